//! `producer dead-letters list`.

use std::process::ExitCode;

use serde_json::json;
use shared::config::DatabaseConfig;
use shared::db::{Db, LetterFilter};

use super::note;
use super::selection::FilterArgs;
use crate::cli::output::{OutputArgs, table};
use crate::times::{told, told_text};
use crate::web::{GroupDocument, LetterDocument, redacted};

const EXAMPLES: &str = "Examples:
  What there is, by stage and error:     producer dead-letters list
  The letters of one group, one by one:  producer dead-letters list --flat --stage inpaint.submit \\
                                           --class 'no route to <url cdn.example.com>'
  What came in the last two hours:       producer dead-letters list --since 2h";

/// List open dead letters, grouped by stage and error
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// One line for each letter, newest first, instead of one for each group
    #[arg(long)]
    pub flat: bool,
    /// The closed ones too (with --flat)
    #[arg(long, requires = "flat")]
    pub closed: bool,
    /// At most so many lines
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(i64).range(1..=10_000))]
    pub limit: i64,
    /// Filters.
    #[command(flatten)]
    pub filter: FilterArgs,
    /// Output.
    #[command(flatten)]
    pub output: OutputArgs,
    /// Database.
    #[command(flatten)]
    pub database: DatabaseConfig,
}

pub(super) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let db = Db::new(&args.database)?;
    let filter = LetterFilter {
        closed: args.closed,
        ..args.filter.filter()
    };
    if args.flat {
        let letters = db.letters(&filter, None, args.limit).await?;
        let letters: Vec<_> = letters.into_iter().map(LetterDocument::new).collect();
        args.output
            .print(&json!({ "letters": letters }), |_| flat(&letters))?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut groups = db.letter_groups(&filter, None, args.limit).await?;
    groups.sort_by_key(|group| std::cmp::Reverse(group.letters));
    let groups = groups
        .into_iter()
        .map(GroupDocument::new)
        .collect::<Result<Vec<_>, _>>()?;
    args.output.print(&json!({ "groups": groups }), |_| {
        if groups.is_empty() {
            return "no open dead letters".to_owned();
        }
        table(
            [
                "LETTERS", "STAGE", "REASON", "SAMPLE", "NEWEST", "ERROR", "NOTE",
            ],
            groups.iter().map(|group| {
                [
                    group.letters.to_string(),
                    group.stage.clone(),
                    group.reason.clone(),
                    format!("#{}", group.first),
                    told(group.newest).to_string(),
                    redacted(group.class.clone()),
                    group.note.as_ref().map(note::human).unwrap_or_default(),
                ]
            }),
        )
    })?;
    Ok(ExitCode::SUCCESS)
}

fn flat(letters: &[LetterDocument]) -> String {
    if letters.is_empty() {
        return "no dead letters".to_owned();
    }
    table(
        ["ID", "RECEIVED", "STAGE", "REASON", "JOB", "ERROR"],
        letters.iter().map(|letter| {
            [
                letter.id.to_string(),
                told_text(&letter.received_at),
                letter.stage.clone(),
                match &letter.resolution {
                    Some(resolution) => format!("{} ({resolution})", letter.reason),
                    None => letter.reason.clone(),
                },
                letter
                    .job_id
                    .map_or_else(|| "-".to_owned(), |job| job.to_string()),
                letter.error.clone().unwrap_or_default(),
            ]
        }),
    )
}
