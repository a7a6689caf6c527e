//! `producer dead-letters preview`.

use std::process::ExitCode;

use shared::config::DatabaseConfig;
use shared::db::{Db, RestartOrder};

use super::selection::{SelectionArgs, are_open};
use crate::cli::attempts::AttemptArgs;
use crate::cli::output::OutputArgs;
use crate::replay;

const EXAMPLES: &str = "Examples:
  Everything:       producer dead-letters preview --all
  One stage:        producer dead-letters preview --stage lipsync.poll --another-attempt

Exit status: 0 done, 1 a letter named by its number is closed, 3 there is none of that number.";

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
    are_open(&db, &filter).await?;
    let order = RestartOrder {
        by: String::new(),
        reason: String::new(),
        operation: None,
        another_attempt: args.attempts.another_attempt,
    };
    let tally = replay::preview(&db, &filter, &order, u64::MAX).await?;
    args.output
        .print(&tally, |tally| tally.lines("dead letters").join("\n"))?;
    Ok(ExitCode::SUCCESS)
}
