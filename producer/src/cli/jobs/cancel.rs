//! `producer jobs cancel`.

use std::process::ExitCode;

use shared::config::DatabaseConfig;
use shared::db::{Canceled, Db};

use super::selection::{Line, SelectionArgs, report};
use crate::cli::operator::OperatorArgs;
use crate::cli::output::OutputArgs;

const EXAMPLES: &str = "Examples:
  One job:             producer jobs cancel 0f8b… --reason 'the customer asked'
  All of a user:       producer jobs cancel --user 7b0c… --reason 'account closed'

Nothing more is paid for. What is paid already is followed to its end and booked as wasted. A finished job stays as it is.
Exit status: 0 all are canceled, 1 not so, 3 there are no such jobs.";

/// Cancel jobs; what is paid for is followed to its end
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
    db.note_operation(by, reason, "jobs_canceled", "jobs", &selection.words())
        .await?;
    let by_id = !selection.ids.is_empty();
    let mut lines = Vec::new();
    selection
        .pieces(&db, async |ids| {
            for (job, canceled) in db.cancel_jobs(ids, by, reason).await? {
                // Somebody who cancels what a filter finds does not mean what has ended.
                if by_id || matches!(canceled, Canceled::Now | Canceled::Following) {
                    lines.push(line(job, canceled));
                }
            }
            Ok(())
        })
        .await?;
    report(args.output, &lines)
}

fn line(job: uuid::Uuid, canceled: Canceled) -> Line {
    let missing = canceled == Canceled::Gone;
    let (done, outcome) = match canceled {
        Canceled::Now => (true, "canceled".to_owned()),
        Canceled::Following => (
            true,
            "canceled; its stage finds out first whether a request was sent".to_owned(),
        ),
        Canceled::Before => (true, "was canceled before".to_owned()),
        Canceled::Finished(status) => (false, format!("not canceled: it is {status}")),
        Canceled::Gone => (false, "there is no such job".to_owned()),
    };
    Line {
        job,
        done,
        missing,
        outcome,
    }
}
