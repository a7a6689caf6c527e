//! `producer retention`: removes what is old, once, or says what would go. The producers do the same on a timer.

use std::process::ExitCode;

use anyhow::Context as _;
use serde::Serialize;
use shared::config::{DatabaseConfig, StorageConfig};
use shared::db::Db;
use shared::domain::retention::Kind;
use shared::storage::Storage;
use tokio_util::sync::CancellationToken;

use super::exit::Exit;
use super::output::{OutputArgs, table};
use super::progress;
use crate::config::{Keep, RetentionConfig};
use crate::retention::{Remover, Swept};
use crate::times::lasting;

const EXAMPLES: &str = "Examples:
  What would go, with the settings of `producer serve`:
    producer retention --dry-run

  What would go if the trail were kept for two months and callbacks for ever:
    producer retention --dry-run --retain-events 60d --retain-callbacks off

  Remove it now instead of at the next RETENTION_INTERVAL:
    producer retention

Jobs, the operators' trail and what proves payments never go. May be killed, and run beside the producers.

Exit status: 0 done, 4 a kind could not be finished; the others are done.";

/// Remove what is old, or say what would go
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct RetentionArgs {
    /// Only count, remove nothing
    #[arg(long)]
    pub dry_run: bool,
    /// How to print.
    #[command(flatten)]
    pub output: OutputArgs,
    /// Database.
    #[command(flatten)]
    pub database: DatabaseConfig,
    /// Object storage.
    #[command(flatten)]
    pub storage: StorageConfig,
    /// How old it has to be.
    #[command(flatten)]
    pub retention: RetentionConfig,
}

#[derive(Serialize)]
struct Report {
    dry_run: bool,
    #[serde(flatten)]
    swept: Swept,
}

/// Goes through everything once.
///
/// # Errors
/// When the database is away or a setting cannot be used.
pub async fn run(args: RetentionArgs) -> anyhow::Result<ExitCode> {
    let remover = Remover {
        db: Db::new(&args.database)?,
        storage: Storage::new(&args.storage).context("object storage")?,
        config: args.retention.clone(),
    };
    let stop = CancellationToken::new();
    let working = progress::working("looking for what is old");
    let swept = remover.sweep(args.dry_run, None, &stop).await;
    working.finish_and_clear();
    let swept = swept?;
    let report = Report {
        dry_run: args.dry_run,
        swept,
    };
    args.output
        .print(&report, |report| human(report, &args.retention))?;
    let is_whole = report.swept.failed.is_empty();
    Ok(if is_whole { Exit::Done } else { Exit::Failed }.into())
}

fn human(report: &Report, config: &RetentionConfig) -> String {
    let count = if report.dry_run {
        "WOULD GO"
    } else {
        "REMOVED"
    };
    let rows = Kind::ALL.iter().map(|kind| {
        let kept = match config.keep(*kind) {
            Keep(Some(age)) => lasting(age),
            Keep(None) => "off".to_owned(),
        };
        let removed = report.swept.removed.get(kind.as_str());
        let failed = report.swept.failed.get(kind.as_str());
        [
            kind.to_string(),
            kept,
            removed.map_or_else(|| "-".to_owned(), ToString::to_string),
            failed.cloned().unwrap_or_default(),
        ]
    });
    table(["KIND", "KEPT FOR", count, "FAILED"], rows)
}
