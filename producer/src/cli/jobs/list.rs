//! `producer jobs list`.

use std::process::ExitCode;

use serde_json::json;
use shared::config::DatabaseConfig;
use shared::db::{Db, JobRow, StageRow};

use super::selection::FilterArgs;
use crate::cli::output::{OutputArgs, table};
use crate::held::Wait;
use crate::times::told;
use crate::web::WaitingDocument;

const EXAMPLES: &str = "Examples:
  What waits for a person:   producer jobs list --state parked
  What a user has:           producer jobs list --user 7b0c6c7e-0f8b-4a1e-9d0a-0f8b00000001
  What failed today, and why: producer jobs list --status failed --since 24h
  What the vendor refused:   producer jobs list --error-code vendor_failed
  What an outage met:        producer jobs list --vendor ghostcut --since 3h --before 1h";

/// List jobs, newest first
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// At most so many
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(i64).range(1..=10_000))]
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
    let filter = args.filter.filter();
    let (mut rows, mut before) = (Vec::new(), None);
    loop {
        // A page may be short although another follows.
        let missing = args.limit - rows.len() as i64;
        let page = db.list_jobs(&filter, before, missing).await?;
        rows.extend(page.jobs);
        before = page.next;
        if before.is_none() || rows.len() as i64 >= args.limit {
            break;
        }
    }
    let mut lines: Vec<[String; 7]> = rows
        .iter()
        .map(|(job, stage)| line(job, stage.as_ref()))
        .collect();
    let documents = WaitingDocument::of(&db, rows).await?;
    for (line, document) in lines.iter_mut().zip(&documents) {
        if let Some(why) = why(document.wait()) {
            line[REASON] = why;
        }
    }
    let document = json!({ "jobs": documents });
    args.output.print(&document, |_| {
        if lines.is_empty() {
            return "no such jobs".to_owned();
        }
        table(
            [
                "JOB", "CREATED", "STATUS", "STAGE", "STATE", "REASON", "NAME",
            ],
            lines,
        )
    })?;
    Ok(ExitCode::SUCCESS)
}

/// The column that says why a job is where it is.
const REASON: usize = 5;

fn line(job: &JobRow, stage: Option<&StageRow>) -> [String; 7] {
    let of_stage = |field: fn(&StageRow) -> String| stage.map_or_else(|| "-".to_owned(), field);
    let created = job.created_at.map(|time| told(time.and_utc()).to_string());
    [
        job.id.to_string(),
        created.unwrap_or_else(|| "-".to_owned()),
        job.status.clone(),
        of_stage(|stage| stage.stage.clone()),
        of_stage(|stage| stage.state.clone()),
        match (stage, &job.error_code) {
            (Some(stage), _) => stage.reason.clone().unwrap_or_default(),
            (None, Some(code)) => code.clone(),
            (None, None) => "-".to_owned(),
        },
        job.display_name
            .clone()
            .unwrap_or_else(|| job.original_filename.clone()),
    ]
}

fn why(wait: &Wait) -> Option<String> {
    let held = wait.held.as_ref();
    let held = held.map(|held| format!("held: {}", held.sentence));
    held.or_else(|| {
        wait.put_off
            .as_ref()
            .map(|put_off| put_off.sentence.clone())
    })
}
