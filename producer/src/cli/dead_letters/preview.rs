//! `producer dead-letters preview`.

use std::process::ExitCode;

use shared::config::DatabaseConfig;
use shared::db::{Db, RestartOrder};

use super::selection::SelectionArgs;
use crate::cli::attempts::AttemptArgs;
use crate::cli::output::OutputArgs;
use crate::operations;

const EXAMPLES: &str = "Examples:
  Everything:       producer dead-letters preview --all
  One stage:        producer dead-letters preview --stage lipsync.poll --another-attempt";

/// Say what a replay would do and cost, without doing it
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Which.
    #[command(flatten)]
    pub selection: SelectionArgs,
    /// Paid attempts.
    #[command(flatten)]
    pub attempts: AttemptArgs,
    /// Output.
    #[command(flatten)]
    pub output: OutputArgs,
    /// Database.
    #[command(flatten)]
    pub database: DatabaseConfig,
}

pub(super) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let filter = args.selection.filter()?;
    let db = Db::new(&args.database)?;
    let order = RestartOrder {
        by: String::new(),
        reason: String::new(),
        another_attempt: args.attempts.another_attempt,
        max_paid_attempts: args.attempts.max_paid_attempts,
    };
    let tally = operations::preview(&db, &filter, &order, u64::MAX).await?;
    args.output
        .print(&tally, |tally| tally.lines().join("\n"))?;
    Ok(ExitCode::SUCCESS)
}
