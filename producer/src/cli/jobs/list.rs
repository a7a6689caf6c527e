//! `producer jobs list`.

use std::process::ExitCode;

use serde::Serialize;
use serde_json::json;
use shared::config::DatabaseConfig;
use shared::db::Db;

use super::held::Holds;
use super::selection::FilterArgs;
use crate::cli::output::{OutputArgs, table};
use crate::web::JobDocument;

const EXAMPLES: &str = "Examples:
  What waits for a person:   producer jobs list --state parked
  What a user has:           producer jobs list --user 7b0c6c7e-0f8b-4a1e-9d0a-0f8b00000001
  What failed today, and why: producer jobs list --status failed --since 24h
  What the vendor refused:   producer jobs list --error-code vendor_failed";

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

#[derive(Serialize)]
struct Listed {
    #[serde(flatten)]
    job: JobDocument,
    /// Why it stays although it is due.
    held: Option<String>,
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
    let ids: Vec<_> = rows.iter().map(|(job, _)| job.id).collect();
    let holds = Holds::read(&db, &ids).await?;
    let held: Vec<_> = rows
        .iter()
        .map(|(job, stage)| holds.why(job.id, stage.as_ref()))
        .collect();
    let lines: Vec<[String; 7]> = rows
        .iter()
        .zip(&held)
        .map(|((job, stage), held)| {
            let of_stage = |field: fn(&shared::db::StageRow) -> String| {
                stage.as_ref().map_or_else(|| "-".to_owned(), field)
            };
            let time = job.created_at;
            [
                job.id.to_string(),
                time.map_or_else(|| "-".to_owned(), |time| time.format("%F %T").to_string()),
                job.status.clone(),
                of_stage(|stage| stage.stage.clone()),
                of_stage(|stage| stage.state.clone()),
                match (held, stage, &job.error_code) {
                    (Some(held), ..) => held.clone(),
                    (None, Some(stage), _) => stage.reason.clone().unwrap_or_default(),
                    (None, None, Some(code)) => code.clone(),
                    (None, None, None) => "-".to_owned(),
                },
                job.display_name
                    .clone()
                    .unwrap_or_else(|| job.original_filename.clone()),
            ]
        })
        .collect();
    let documents = rows
        .into_iter()
        .zip(held)
        .map(|((job, stage), held)| Listed {
            job: JobDocument::new(job, stage),
            held,
        });
    let document = json!({ "jobs": documents.collect::<Vec<_>>() });
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
