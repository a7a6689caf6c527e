//! The command line of `producer`: its arguments, and what `submit` does with them.

pub mod submit;

use clap::{Parser, Subcommand};
use shared::config::DatabaseConfig;
use shared::telemetry::LogConfig;

use crate::config::ServeConfig;
use submit::SubmitArgs;

/// Takes video jobs in, dispatches their stages to the workers and follows every paid submission.
#[derive(Debug, Parser)]
#[command(version)]
pub struct Cli {
    /// Logs.
    #[command(flatten)]
    pub log: LogConfig,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the service: HTTP API, dispatch, sweeps, dead-letter ingest
    Serve(Box<ServeConfig>),
    /// Apply the database migrations that are missing
    Migrate(DatabaseConfig),
    /// Upload files, create jobs and follow them
    Submit(Box<SubmitArgs>),
    /// Stop every paid send of the fleet; polling and storing go on
    StopPaid {
        /// Why, for the others
        #[arg(long)]
        reason: String,
        /// Who
        #[arg(long, env = "USER", default_value = "operator")]
        by: String,
        /// Database.
        #[command(flatten)]
        database: DatabaseConfig,
    },
    /// Allow paid sends again
    ResumePaid(DatabaseConfig),
}
