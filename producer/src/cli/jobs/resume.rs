//! `producer jobs resume`.

use std::process::ExitCode;

use shared::config::DatabaseConfig;
use shared::db::{Db, Resumed};

use super::selection::{Line, SelectionArgs, report};
use crate::cli::operator::OperatorArgs;
use crate::cli::output::OutputArgs;

const EXAMPLES: &str = "Examples:
  One job:                       producer jobs resume 0f8b… --reason 'the row is repaired'
  All that wait for points:      producer jobs resume --state parked --with-reason out_of_points --reason 'topped up'

A parked job goes on in the stage where it stands, and one that waits for its time does not wait any longer; the ledger decides
what that does: nothing is paid twice by resuming. `producer vendors resume` does it for all that a vendor's answer put off.
Exit status: 0 all are due, 1 not so, 3 there are no such jobs.";

/// Make jobs that are parked or wait for their time due now
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Which.
    #[command(flatten)]
    pub selection: SelectionArgs,
    /// Who and why.
    #[command(flatten)]
    pub operator: OperatorArgs,
    /// Output.
    #[command(flatten)]
    pub output: OutputArgs,
    /// Database.
    #[command(flatten)]
    pub database: DatabaseConfig,
}

pub(super) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    args.selection.check()?;
    let db = Db::new(&args.database)?;
    let OperatorArgs { reason, by } = &args.operator;
    let selection = &args.selection;
    db.note_operation(by, reason, "jobs_resumed", "jobs", &selection.words())
        .await?;
    let by_id = !selection.ids.is_empty();
    let mut lines = Vec::new();
    selection
        .pieces(&db, async |ids| {
            for (job, resumed) in db.resume_jobs(ids, by, reason).await? {
                if by_id || resumed == Resumed::Now {
                    lines.push(line(job, resumed));
                }
            }
            Ok(())
        })
        .await?;
    // A hint: dispatch has a timer.
    let _ = db.notify_due().await;
    report(args.output, &lines)
}

fn line(job: uuid::Uuid, resumed: Resumed) -> Line {
    let missing = resumed == Resumed::Gone;
    let (done, outcome) = match resumed {
        Resumed::Now => (true, "due now".to_owned()),
        Resumed::Stays(state) if state == "dead" => (
            false,
            "not parked but dead: see `producer dead-letters`".to_owned(),
        ),
        Resumed::Stays(state) if state == "waiting" => (
            false,
            "it does not wait for a time that may be shortened: it is due, or searched for"
                .to_owned(),
        ),
        Resumed::Stays(state) => (false, format!("not parked but {state}")),
        Resumed::Over => (
            false,
            "it is over; if it failed or was canceled, `producer jobs retry` brings it back"
                .to_owned(),
        ),
        Resumed::Gone => (false, "there is no such job".to_owned()),
    };
    Line {
        job,
        done,
        missing,
        outcome,
    }
}
