//! `producer jobs retry`.

use std::process::ExitCode;
use std::time::Duration;

use shared::config::DatabaseConfig;
use shared::db::{Candidate, Db, Pace, Plan, RestartOrder};
use shared::domain::resume::Refusal;

use super::selection::{Line, SelectionArgs, report};
use crate::cli::attempts::AttemptArgs;
use crate::cli::operator::PreviewOperatorArgs;
use crate::cli::output::OutputArgs;
use crate::replay::{Tally, in_words};

const EXAMPLES: &str = "Examples:
  One job:                       producer jobs retry 0f8b… --reason 'the input is readable now'
  What many would do and cost:   producer jobs retry --status failed --since 24h --preview
  Then ten a minute:             producer jobs retry --status failed --since 24h --per-minute 10 --reason '...'
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
    /// Say what would happen and cost, without doing it
    #[arg(long)]
    pub preview: bool,
    /// Make at most so many jobs due per minute
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub per_minute: Option<u32>,
    /// Paid attempts.
    #[command(flatten)]
    pub attempts: AttemptArgs,
    /// Who and why.
    #[command(flatten)]
    pub operator: PreviewOperatorArgs,
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
        reason: args.operator.reason.unwrap_or_default(),
        operation: None,
        another_attempt: args.attempts.another_attempt,
    };
    let selection = &args.selection;
    if args.preview {
        return preview(&db, selection, &order, args.output).await;
    }
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
    let step = args
        .per_minute
        .map_or(Duration::ZERO, |n| Duration::from_secs(60) / n);
    let mut pace = Pace {
        next: Duration::ZERO,
        step,
    };
    selection
        .pieces(&db, async |ids| {
            for plan in db.restart(&order, &candidates(ids), &mut pace).await? {
                if by_id || has_ended(&plan) {
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

/// Says what a retry would do and cost. Changes nothing.
async fn preview(
    db: &Db,
    selection: &SelectionArgs,
    order: &RestartOrder,
    output: OutputArgs,
) -> anyhow::Result<ExitCode> {
    let mut tally = Tally::default();
    let by_id = !selection.ids.is_empty();
    selection
        .pieces(db, async |ids| {
            for plan in db.plan_restart(order, &candidates(ids)).await? {
                if by_id || has_ended(&plan) {
                    tally.count(plan.to, plan.last_cost, plan.then_inpaints);
                }
            }
            Ok(())
        })
        .await?;
    output.print(&tally, |tally| tally.lines("jobs").join("\n"))?;
    Ok(ExitCode::SUCCESS)
}

fn candidates(ids: &[uuid::Uuid]) -> Vec<Candidate> {
    let candidate = |job: &uuid::Uuid| Candidate {
        job: *job,
        letter_epoch: None,
    };
    ids.iter().map(candidate).collect()
}

/// Somebody who retries what a filter finds does not mean what goes on or is completed.
fn has_ended(plan: &Plan) -> bool {
    !matches!(plan.to, Err(Refusal::GoesOn | Refusal::Completed))
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
