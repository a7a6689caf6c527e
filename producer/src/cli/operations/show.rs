//! `producer operations list` and `show`, and following one until it stands.

use std::process::ExitCode;
use std::time::Duration;

use shared::config::DatabaseConfig;
use shared::db::Db;
use shared::domain::bulk::BulkState;

use crate::cli::exit::NotFound;
use crate::cli::output::{OutputArgs, table};
use crate::cli::progress;
use crate::web::{OperationDocument, OperationPage};

/// Between two looks.
const INTERVAL: Duration = Duration::from_millis(500);

const LIST_EXAMPLE: &str = "Example:
  producer operations list --limit 10";

const SHOW_EXAMPLES: &str = "Examples:
  How far it has come:   producer operations show 7
  Until it stands:       producer operations show 7 --wait

Exit status with --wait: 0 done, or waiting for a look at its canaries; 1 stopped or failed.";

/// List operations, newest first
#[derive(Debug, clap::Args)]
#[command(after_help = LIST_EXAMPLE)]
pub struct ListArgs {
    /// At most so many
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(i64).range(1..=1000))]
    pub limit: i64,
    /// Output.
    #[command(flatten)]
    pub output: OutputArgs,
    /// Database.
    #[command(flatten)]
    pub database: DatabaseConfig,
}

/// Show an operation and how far it has come
#[derive(Debug, clap::Args)]
#[command(after_help = SHOW_EXAMPLES)]
pub struct ShowArgs {
    /// Its number
    pub id: i64,
    /// Follow it until it is over or waits for a person
    #[arg(long)]
    pub wait: bool,
    /// Output.
    #[command(flatten)]
    pub output: OutputArgs,
    /// Database.
    #[command(flatten)]
    pub database: DatabaseConfig,
}

pub(super) async fn list(args: ListArgs) -> anyhow::Result<ExitCode> {
    let page = OperationPage::read(&Db::new(&args.database)?, None, args.limit).await?;
    args.output.print(&page, |page| {
        if page.operations.is_empty() {
            return "no operations".to_owned();
        }
        let rows = page.operations.iter().map(|operation| {
            [
                operation.id.to_string(),
                operation.action.to_string(),
                operation.state.to_string(),
                format!("{} of {}", operation.done, operation.total),
                operation.changed.to_string(),
                operation.by.clone(),
                operation.reason.clone(),
            ]
        });
        table(
            ["ID", "ACTION", "STATE", "DONE", "CHANGED", "BY", "REASON"],
            rows,
        )
    })?;
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn show(args: ShowArgs) -> anyhow::Result<ExitCode> {
    shown(&Db::new(&args.database)?, args.id, args.wait, args.output).await
}

/// Prints an operation, after it has come to stand if that is waited for.
pub(super) async fn shown(
    db: &Db,
    id: i64,
    wait: bool,
    output: OutputArgs,
) -> anyhow::Result<ExitCode> {
    let operation = if wait {
        follow(db, id).await?
    } else {
        read(db, id).await?
    };
    output.print(&operation, human)?;
    let ended_badly = matches!(operation.state, BulkState::Stopped | BulkState::Failed);
    Ok(if wait && ended_badly {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

async fn read(db: &Db, id: i64) -> anyhow::Result<OperationDocument> {
    let row = db.operation(id).await?;
    let row = row.ok_or_else(|| NotFound(format!("there is no operation {id}")))?;
    Ok(OperationDocument::whole(db, row).await?)
}

async fn follow(db: &Db, id: i64) -> anyhow::Result<OperationDocument> {
    let bar = progress::bar(0);
    loop {
        let operation = read(db, id).await?;
        bar.set_length(u64::try_from(operation.total.max(operation.done)).unwrap_or(0));
        bar.set_position(u64::try_from(operation.done).unwrap_or(0));
        bar.set_message(format!("{} changed", operation.changed));
        if operation.state != BulkState::Running {
            bar.finish_and_clear();
            return Ok(operation);
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

fn human(operation: &OperationDocument) -> String {
    let mut lines = vec![format!(
        "operation {}: {} by {}: {}",
        operation.id, operation.action, operation.by, operation.reason
    )];
    lines.push(format!(
        "{}: looked at {} of {}, changed {}",
        operation.state, operation.done, operation.total, operation.changed
    ));
    for (why, count) in &operation.refused {
        lines.push(format!("  {count} not: {why}"));
    }
    if let Some(ends) = operation.ends.as_ref().filter(|_| operation.changed > 0) {
        lines.push(format!(
            "of those put back: {} completed, {} failed again, {} canceled, {} on their way",
            ends.completed, ends.failed, ends.canceled, ends.unfinished
        ));
    }
    for canary in operation.canaries.iter().flatten() {
        lines.push(format!(
            "  canary, letter {}, job {}: {} ({})",
            canary.letter, canary.job_id, canary.outcome, canary.group
        ));
    }
    if operation.state == BulkState::Awaiting {
        lines.push(format!(
            "look at the canaries, then `producer operations continue {}` or `stop`",
            operation.id
        ));
    }
    lines.extend(operation.error.clone());
    lines.join("\n")
}
