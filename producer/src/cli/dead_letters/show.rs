//! `producer dead-letters show`.

use std::process::ExitCode;

use shared::config::DatabaseConfig;
use shared::db::Db;

use crate::cli::exit::NotFound;
use crate::cli::output::OutputArgs;
use crate::web::LetterDocument;

/// Show one dead letter, its message and its job
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  producer dead-letters show 42")]
pub struct Args {
    /// Number of the dead letter
    pub id: i64,
    /// Output.
    #[command(flatten)]
    pub output: OutputArgs,
    /// Database.
    #[command(flatten)]
    pub database: DatabaseConfig,
}

pub(super) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let db = Db::new(&args.database)?;
    let Some(letter) = db.letter(args.id).await? else {
        return Err(NotFound(format!("there is no dead letter {}", args.id)).into());
    };
    args.output.print(&LetterDocument::new(letter), human)?;
    Ok(ExitCode::SUCCESS)
}

fn human(letter: &LetterDocument) -> String {
    let mut lines = vec![
        format!("dead letter  {}", letter.id),
        format!("received     {}", letter.received_at),
        format!("stage        {}", letter.stage),
        format!("reason       {}", letter.reason),
        format!("error        {}", letter.error.as_deref().unwrap_or("-")),
        format!("class        {}", letter.class),
    ];
    if let Some(job) = letter.job_id {
        lines.push(format!("job          {job} (producer jobs show {job})"));
    }
    if let Some(body) = &letter.body {
        let (form, text) = match (&body.text, &body.hex) {
            (Some(text), _) => ("text", text.as_str()),
            (_, hex) => ("hex", hex.as_deref().unwrap_or_default()),
        };
        lines.push(format!("body         {} bytes, as {form}:", body.bytes));
        lines.push(text.to_owned());
    }
    if let Some(headers) = &letter.headers {
        lines.push(format!("headers      {headers}"));
    }
    match (&letter.resolution, &letter.resolved_at) {
        (Some(resolution), Some(at)) => lines.push(format!(
            "closed       {resolution} at {at} by {}: {}",
            letter.resolved_by.as_deref().unwrap_or("-"),
            letter.note.as_deref().unwrap_or("-")
        )),
        _ => lines.push(format!(
            "open         producer dead-letters preview {0} | replay {0} | discard {0}",
            letter.id
        )),
    }
    lines.join("\n")
}
