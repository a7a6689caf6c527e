//! `producer migrate`: brings the database up to date.

use std::process::ExitCode;

use anyhow::Context as _;
use serde_json::json;
use shared::config::DatabaseConfig;
use shared::db::Db;

use super::exit::Exit;
use super::output::OutputArgs;

const EXAMPLE: &str = "Example:
  Once, and again with every new version, before its workers and producers are started:
    producer migrate

Old processes may go on meanwhile. Exit status: 0 the database is up to date, 4 it is not; it is at the last migration that worked.";

/// Apply the database migrations that are missing
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLE)]
pub struct MigrateArgs {
    /// How to print.
    #[command(flatten)]
    pub output: OutputArgs,
    /// Database.
    #[command(flatten)]
    pub database: DatabaseConfig,
}

/// Applies them.
///
/// # Errors
/// When one cannot be applied.
pub async fn run(args: MigrateArgs) -> anyhow::Result<ExitCode> {
    let applied = Db::migrate(&args.database).await.context("migrate")?;
    tracing::info!(applied = applied.len(), migrations = ?applied, "the database is up to date");
    args.output.print(&json!({ "applied": applied }), |_| {
        match applied.as_slice() {
            [] => "nothing was missing".to_owned(),
            applied => format!("applied: {}", applied.join(", ")),
        }
    })?;
    Ok(Exit::Done.into())
}
