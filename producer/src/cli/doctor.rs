//! `producer doctor`: checks everything that the fleet depends on, and says what to do about what is wrong.

use std::process::ExitCode;

use serde::Serialize;
use shared::config::{BrokerConfig, CallbackConfig, DatabaseConfig, ProtocolConfig, StorageConfig};

use super::accounts::AccountArgs;
use super::exit::Exit;
use super::output::{OutputArgs, table};
use crate::doctor::{Check, Level, examine};

const EXAMPLE: &str = "Example:
  With the environment of `producer serve`, before the first start and after every change of it:
    producer doctor

Nothing is paid for. Written, and removed again: one small object in the bucket. Exchanges and queues that are missing are
declared, as every start does.

Exit status: 0 nothing is wrong (there may be warnings), 1 something is.";

/// Check what can be wrong before it costs money: times, database, workers, broker, bucket, vendors, callbacks
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLE)]
pub struct DoctorArgs {
    /// How to print.
    #[command(flatten)]
    pub output: OutputArgs,
    /// Database.
    #[command(flatten)]
    pub database: DatabaseConfig,
    /// Broker.
    #[command(flatten)]
    pub broker: BrokerConfig,
    /// Object storage.
    #[command(flatten)]
    pub storage: StorageConfig,
    /// The vendors.
    #[command(flatten)]
    pub accounts: AccountArgs,
    /// Callbacks.
    #[command(flatten)]
    pub callbacks: CallbackConfig,
    /// Times of the protocol.
    #[command(flatten)]
    pub protocol: ProtocolConfig,
}

#[derive(Serialize)]
struct Report {
    healthy: bool,
    checks: Vec<Check>,
}

/// Checks, all parts at once, each within its own timeouts.
///
/// # Errors
/// When standard output is closed.
pub async fn run(args: DoctorArgs) -> anyhow::Result<ExitCode> {
    let checks = examine(&args).await;
    let report = Report {
        healthy: checks.iter().all(|check| check.level != Level::Wrong),
        checks,
    };
    args.output.print(&report, human)?;
    Ok(Exit::done_if(report.healthy).into())
}

fn human(report: &Report) -> String {
    let line = |check: &Check| {
        let mut found = check.found.clone();
        if let Some(advice) = &check.advice {
            found += &format!("\n-> {advice}");
        }
        [
            check.level.as_str().to_owned(),
            format!("{}: {}", check.part, check.what),
            found,
        ]
    };
    table(["", "CHECK", "FOUND"], report.checks.iter().map(line))
}
