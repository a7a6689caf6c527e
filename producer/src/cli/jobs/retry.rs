//! `producer jobs retry`.

use std::process::ExitCode;

use shared::config::DatabaseConfig;
use shared::db::{Candidate, Db, Pace, Plan, RestartOrder};
use shared::domain::resume::Refusal;

use super::selection::{Line, SelectionArgs, report};
use crate::cli::attempts::AttemptArgs;
use crate::cli::operator::OperatorArgs;
use crate::cli::output::OutputArgs;
use crate::operations::in_words;

const EXAMPLES: &str = "Examples:
  One job:                       producer jobs retry 0f8b… --reason 'the input is readable now'
  Beyond the bound on attempts:  producer jobs retry 0f8b… --another-attempt --reason '...'

`producer jobs show` says what a retry would do. The ledger decides: what is paid for is polled or stored, what may be paid
for is searched for, and only what is not there is submitted anew. Exit status: 0 all go on, 1 not so, 3 there are no such jobs.";

/// Put failed or canceled jobs back on their way
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Which.
    #[command(flatten)]
    pub selection: SelectionArgs,
    /// Paid attempts.
    #[command(flatten)]
    pub attempts: AttemptArgs,
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
    let order = RestartOrder {
        by: args.operator.by,
        reason: args.operator.reason,
        another_attempt: args.attempts.another_attempt,
        max_paid_attempts: args.attempts.max_paid_attempts,
    };
    let selection = &args.selection;
    db.note_operation(
        &order.by,
        &order.reason,
        "jobs_retried",
        "jobs",
        &selection.words(),
    )
    .await?;
    let by_id = !selection.ids.is_empty();
    let mut lines = Vec::new();
    selection
        .pieces(&db, async |ids| {
            let candidate = |job: &uuid::Uuid| Candidate {
                job: *job,
                letter_epoch: None,
            };
            let candidates: Vec<_> = ids.iter().map(candidate).collect();
            for plan in db
                .restart(&order, &candidates, &mut Pace::default())
                .await?
            {
                let has_ended = !matches!(plan.to, Err(Refusal::GoesOn | Refusal::Completed));
                if by_id || has_ended {
                    lines.push(line(&plan));
                }
            }
            Ok(())
        })
        .await?;
    // A hint: dispatch has a timer.
    let _ = db.notify_due().await;
    report(args.output, &lines)
}

fn line(plan: &Plan) -> Line {
    let (done, outcome) = match plan.to {
        Ok(to) => (
            true,
            format!("goes on in {}: {}", to.stage, in_words(to.how)),
        ),
        Err(Refusal::JobGone) => (false, "there is no such job".to_owned()),
        Err(refusal) => (false, format!("not retried: {}", refusal.explain())),
    };
    Line {
        job: plan.job,
        done,
        missing: matches!(plan.to, Err(Refusal::JobGone)),
        outcome,
    }
}
