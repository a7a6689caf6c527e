//! `producer dead-letters show`.

use std::process::ExitCode;

use shared::config::DatabaseConfig;
use shared::db::Db;

use super::note;
use crate::cli::exit::NotFound;
use crate::cli::output::OutputArgs;
use crate::times::told_text;
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
    let job = match letter.job_id {
        Some(job) => db.job(job).await?,
        None => None,
    };
    let status = job.map(|job| job.status);
    let note = db.group_note(args.id).await?;
    let letter = LetterDocument::new(letter).with_note(note);
    args.output
        .print(&letter, |letter| human(letter, status.as_deref()))?;
    Ok(ExitCode::SUCCESS)
}

/// `status` is the job's; none when it was deleted.
fn human(letter: &LetterDocument, status: Option<&str>) -> String {
    let mut lines = vec![
        format!("dead letter  {}", letter.id),
        format!("received     {}", told_text(&letter.received_at)),
        format!("stage        {}", letter.stage),
        format!("reason       {}", letter.reason),
        format!("error        {}", letter.error.as_deref().unwrap_or("-")),
        format!("class        {}", letter.class),
    ];
    if let Some(note) = &letter.note {
        lines.push(format!("note         {}", note::human(note)));
    }
    if let Some(job) = letter.job_id {
        let status = status.unwrap_or("deleted");
        lines.push(format!(
            "job          {job}, {status} (producer jobs show {job})"
        ));
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
            "closed       {resolution} at {} by {}: {}",
            told_text(at),
            letter.resolved_by.as_deref().unwrap_or("-"),
            letter.resolved_reason.as_deref().unwrap_or("-")
        )),
        _ => {
            let id = letter.id;
            lines.push(format!("open         producer dead-letters preview {id}"));
            lines.push(format!(
                "             producer dead-letters replay {id} --reason '…'"
            ));
            lines.push(format!(
                "             producer dead-letters discard {id} --reason '…'"
            ));
        }
    }
    lines.join("\n")
}
