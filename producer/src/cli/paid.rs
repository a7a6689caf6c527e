//! `producer stop-paid` and `producer resume-paid`: the global stop of paid sends.

use std::process::ExitCode;

use serde_json::json;
use shared::config::{DatabaseConfig, ProtocolConfig};
use shared::db::{Db, FleetTimes, PaidResumed};

use super::exit::Exit;
use super::operator::OperatorArgs;
use super::output::OutputArgs;
use crate::held::stopped;
use crate::times::told;

const STOP_EXAMPLE: &str = "Example:
  producer stop-paid --reason 'GhostCut charges twice, ticket 4711'

A paid request that is already on its way is not called back. `producer status` shows the stop, `producer resume-paid` ends it.";

const RESUME_EXAMPLE: &str = "Example:
  producer resume-paid --reason 'ticket 4711 is solved'

After a database that forgot commits (restored, failed over) it wants an audit first: `producer audit --since 36h --repair`.
Without one, works that were paid for and forgotten are paid for again; --force goes without.

Exit status: 0 paid sends are allowed, 1 they are still stopped.";

/// Stop every paid send of the fleet; polling and storing go on
#[derive(Debug, clap::Args)]
#[command(after_help = STOP_EXAMPLE)]
pub struct StopArgs {
    /// How to print.
    #[command(flatten)]
    pub output: OutputArgs,
    /// Who and why.
    #[command(flatten)]
    pub operator: OperatorArgs,
    /// Database.
    #[command(flatten)]
    pub database: DatabaseConfig,
}

/// Allow paid sends again
#[derive(Debug, clap::Args)]
#[command(after_help = RESUME_EXAMPLE)]
pub struct ResumeArgs {
    /// Allow them although the database forgot commits and no audit has rebuilt the ledger
    #[arg(long)]
    pub force: bool,
    /// How to print.
    #[command(flatten)]
    pub output: OutputArgs,
    /// Who and why.
    #[command(flatten)]
    pub operator: OperatorArgs,
    /// Database.
    #[command(flatten)]
    pub database: DatabaseConfig,
    /// Times of the protocol.
    #[command(flatten)]
    pub protocol: ProtocolConfig,
}

/// Stops paid sends.
///
/// # Errors
/// When the database is away.
pub async fn stop(args: StopArgs) -> anyhow::Result<ExitCode> {
    let OperatorArgs { reason, by } = &args.operator;
    let db = Db::new(&args.database)?;
    let stopped_now = db.stop_paid(reason, by).await?;
    // Somebody may resume between the two.
    let stop = db.paid_stop().await?;
    let document = json!({ "stopped_now": stopped_now, "paid_sends_stopped": stop });
    args.output.print(&document, |_| match &stop {
        Some(stop) if !stopped_now => format!(
            "paid sends were stopped already, {}; that reason stays",
            stopped(stop)
        ),
        _ => "paid sends are stopped; `producer resume-paid` allows them again".to_owned(),
    })?;
    Ok(Exit::Done.into())
}

/// Allows paid sends again, or says what has to be done first.
///
/// # Errors
/// When the database is away.
pub async fn resume(args: ResumeArgs) -> anyhow::Result<ExitCode> {
    let OperatorArgs { reason, by } = &args.operator;
    let db = Db::new(&args.database)?;
    let times = db.fleet_times(FleetTimes::from(&args.protocol)).await?;
    let resumed = db
        .resume_paid(reason, by, times.send_deadline, args.force)
        .await?;
    let (allowed, told) = match resumed {
        PaidResumed::Yes => (true, "paid sends are allowed again".to_owned()),
        PaidResumed::NotStopped => (true, "paid sends were not stopped".to_owned()),
        PaidResumed::AuditFirst { not_before, since } => (
            false,
            format!(
                "paid sends stay stopped: the database forgot commits. Run `producer audit --since {} --repair` at or after {}, \
                 then resume",
                since.format("%Y-%m-%dT%H:%M:%SZ"),
                told(not_before)
            ),
        ),
        PaidResumed::Unrepaired { findings } => (
            false,
            format!(
                "paid sends stay stopped: audits found {findings} paid works that the ledger does not have. Run \
                 `producer audit --since DURATION --repair`, then resume"
            ),
        ),
    };
    let document = json!({ "allowed": allowed, "told": told });
    args.output.print(&document, |_| told.clone())?;
    Ok(Exit::done_if(allowed).into())
}
