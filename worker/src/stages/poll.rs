//! What the status of a work means for its job, for both vendors. Only the state decides; progress is for people.

use std::time::Duration;

use serde_json::json;
use shared::crash::{self, Point};
use shared::db::{DbError, Fact, LedgerVerdict, Submission, WorkItem};
use shared::domain::admission::SignalKind;
use shared::domain::answer::{FailureClass, SubmitAnswer, Work, WorkState};
use shared::domain::outcome::{Outcome, Reason};
use shared::domain::transition::Event;
use shared::domain::{LedgerState, Stage, Vendor, progress};
use shared::storage::StorageError;
use shared::vendor::VendorError;

use super::not_answered;
use crate::admission;
use crate::clock::BootTime;
use crate::environment::Environment;
use crate::run::Run;
use crate::settle::{self, settlement};
use crate::source;
use crate::submission::{self, account, spread};

/// A status nobody documented may be new; after this long somebody should look.
const UNRECOGNISED_FOR: Duration = Duration::from_secs(3600);

/// The vendor ids to ask for.
pub(super) fn task_ids(items: &[WorkItem]) -> Vec<String> {
    items
        .iter()
        .filter_map(|item| item.submission.as_ref()?.task_id.clone())
        .collect()
}

/// Says what each job's work came to.
pub(super) async fn run(
    environment: &Environment,
    stage: Stage,
    items: &[WorkItem],
    answer: Result<Vec<Work>, VendorError>,
) -> Result<Vec<Run>, DbError> {
    let mut runs = Vec::with_capacity(items.len());
    for item in items {
        let run = match (&answer, &item.submission) {
            (_, None) => Run::give_up(
                Reason::InternalError,
                "polling a job that has no submission",
            ),
            // The sweep saw it fail while nobody polled. Whether another attempt is paid for is the submit stage's to decide,
            // after an operator's replay.
            (_, Some(submission)) if submission.state == LedgerState::Failed => Run::give_up(
                Reason::VendorFailed,
                "the work failed while its job was given up",
            ),
            // Nothing to poll: another submission of the job was settled since. The submit stage reads the ledger anew.
            (_, Some(submission))
                if submission.task_id.is_none() || submission.state == LedgerState::Duplicate =>
            {
                Run::advance(Event::Resubmit, Duration::ZERO)
            }
            (Err(error), Some(_)) => not_answered(environment, error, item.tries),
            (Ok(works), Some(submission)) => {
                match works.iter().find(|work| is_of(work, submission)) {
                    Some(work) => decide(environment, stage, item, submission, work).await?,
                    None => missing(environment, stage, item),
                }
            }
        };
        runs.push(run);
    }
    Ok(runs)
}

fn is_of(work: &Work, submission: &Submission) -> bool {
    submission.task_id.as_ref() == Some(&work.task_id)
        || submission.imported
            && submission.task_id.is_some()
            && submission.task_id == work.project_id
}

async fn decide(
    environment: &Environment,
    stage: Stage,
    item: &WorkItem,
    submission: &Submission,
    work: &Work,
) -> Result<Run, DbError> {
    let mut fact = Fact::new(submission.token, LedgerState::Accepted);
    fact.charged = work.charged;
    fact.task_id = Some(work.task_id.clone());
    fact.project_id.clone_from(&work.project_id);
    fact.redos = Some(submission.redos);
    // A project's id was all we had, or a redo was under way: note what is known now, then look again.
    let changed = submission.task_id.as_ref() != Some(&work.task_id)
        || submission.state == LedgerState::Redoing;
    // Model: step Poll.
    Ok(match &work.state {
        WorkState::Pending {
            progress,
            unrecognised,
        } => {
            let run = pending(environment, stage, item, *progress, unrecognised.as_deref());
            if changed { run.with_fact(fact) } else { run }
        }
        // Just redone: the status may still be the one from before.
        WorkState::Failed { .. }
            if submission.state == LedgerState::Redoing
                && redone_lately(environment, stage, item, submission) =>
        {
            Run::later(next_poll(environment, stage, item))
        }
        _ if changed => Run::later(next_poll(environment, stage, item)).with_fact(fact),
        WorkState::Succeeded { result_url } => {
            fact.state = LedgerState::Succeeded;
            fact.answer = Some(json!({ "result_url": result_url }));
            Run::advance(Event::Succeeded, Duration::ZERO).with_fact(fact)
        }
        WorkState::Failed { code, .. } if submission.state == LedgerState::Succeeded => Run::park(
            Reason::VendorNeedsOperator,
            format!("the vendor shows a finished work as failed (code {code})"),
        ),
        WorkState::Failed {
            class,
            code,
            detail,
        } => {
            let error = if detail.is_empty() {
                format!("code {code}")
            } else {
                format!("{detail} (code {code})")
            };
            fact.state = LedgerState::Failed;
            fact.answer = Some(json!({ "code": code, "detail": detail }));
            failed(environment, stage, item, submission, fact, *class, error).await?
        }
    })
}

fn pending(
    environment: &Environment,
    stage: Stage,
    item: &WorkItem,
    percent: Option<f64>,
    unrecognised: Option<&str>,
) -> Run {
    if let Some(status) = unrecognised
        && item.in_stage > UNRECOGNISED_FOR
    {
        tracing::error!(job.id = %item.job_id, stage = %stage, status, "the vendor shows an unknown status for over an hour");
    }
    let shown = match stage {
        Stage::InpaintPoll => Some(progress::inpaint_percentage(percent)),
        _ => None,
    };
    Run::new(Outcome::Later {
        after: next_poll(environment, stage, item),
        progress: shown,
    })
}

/// The vendor does not show a work that it accepted. Its lists may lag; a work that stays away is for a person, and nothing else
/// is paid meanwhile. Tries count the times in a row.
fn missing(environment: &Environment, stage: Stage, item: &WorkItem) -> Run {
    let why = "the vendor does not show a work that it accepted";
    let enough = item.tries + 1 >= environment.settings.protocol.max_tries;
    if enough && item.in_stage > UNRECOGNISED_FOR {
        return Run::park(Reason::WorkVanished, why);
    }
    Run::new(Outcome::Retry {
        after: Some(next_poll(environment, stage, item)),
        error: why.to_owned(),
    })
}

fn redone_lately(
    environment: &Environment,
    stage: Stage,
    item: &WorkItem,
    submission: &Submission,
) -> bool {
    let slow = environment
        .settings
        .protocol
        .poll_schedule(stage)
        .delay(u32::MAX);
    let age = submission
        .settled_at
        .and_then(|at| (item.now - at).to_std().ok());
    age.is_some_and(|age| age < slow)
}

fn next_poll(environment: &Environment, stage: Stage, item: &WorkItem) -> Duration {
    let schedule = environment.settings.protocol.poll_schedule(stage);
    spread(schedule.delay_at(item.in_stage))
}

async fn failed(
    environment: &Environment,
    stage: Stage,
    item: &WorkItem,
    submission: &Submission,
    fact: Fact,
    class: FailureClass,
    error: String,
) -> Result<Run, DbError> {
    let protocol = &environment.settings.protocol;
    let slow = protocol.poll_schedule(stage).delay(u32::MAX);
    Ok(match class {
        FailureClass::Permanent => Run::fail(Reason::VendorFailed, error).with_fact(fact),
        // We deleted its source while we searched for it (`inpaint_reconcile`): the input is not at fault.
        FailureClass::Input
            if submission.source_deleted_at.is_some()
                && item.failed_attempts + 1 < environment.settings.max_paid_attempts =>
        {
            Run::advance(Event::Resubmit, Duration::ZERO).with_fact(fact)
        }
        FailureClass::Input => Run::give_up(Reason::InputUnreadable, error).with_fact(fact),
        FailureClass::Resubmit | FailureClass::Unrecognised if stage == Stage::LipsyncPoll => {
            // A failed generation is not charged (Sync.so's price list); the bound is against loops.
            if item.failed_attempts + 1 < environment.settings.max_paid_attempts {
                Run::advance(Event::Resubmit, Duration::ZERO).with_fact(fact)
            } else {
                Run::give_up(Reason::AttemptsExhausted, error).with_fact(fact)
            }
        }
        FailureClass::Redo if submission.redos < protocol.max_redos => {
            redo(environment, stage, item, submission, error).await?
        }
        FailureClass::Unpaid | FailureClass::Locked => match environment.ghostcut.balance().await {
            Ok(points) if points <= 0.0 => {
                Run::later(slow).pausing(SignalKind::OutOfCredit, "GhostCut points ran out")
            }
            // A finished work may unlock by itself after a top-up (the vendor does not say): one more poll before the redo.
            Ok(_) if class == FailureClass::Locked && submission.answer["locked"] != true => {
                let mut seen = fact;
                seen.state = LedgerState::Accepted;
                seen.answer = Some(json!({ "locked": true }));
                Run::later(slow).with_fact(seen)
            }
            Ok(_) if submission.redos < protocol.max_redos => {
                redo(environment, stage, item, submission, error).await?
            }
            Ok(_) => Run::park(Reason::OutOfPoints, error),
            Err(error) => not_answered(environment, &error, item.tries),
        },
        // The ledger keeps it as accepted, so that nothing is paid again before a person has looked.
        FailureClass::Redo
        | FailureClass::Resubmit
        | FailureClass::Support
        | FailureClass::Operator
        | FailureClass::Unrecognised => Run::park(Reason::VendorNeedsOperator, error),
    })
}

/// Asks the vendor to run the same work again. The ledger allows it to one caller only; the outcome is read from the status,
/// never sent again.
async fn redo(
    environment: &Environment,
    stage: Stage,
    item: &WorkItem,
    submission: &Submission,
    error: String,
) -> Result<Run, DbError> {
    let wait =
        Run::later(next_poll(environment, stage, item)).with_detail(json!({ "redo_of": error }));
    let Some(task_id) = &submission.task_id else {
        return Ok(wait);
    };
    if let Err(error) = restore_source(environment, item, submission).await {
        return Ok(Run::retry(shared::telemetry::chain(&error)));
    }
    let within = environment.settings.protocol.send_deadline;
    let again = submission::again(environment, stage, item, submission.token);
    if let Some(refused) = environment.db.take_send_permit(&again).await? {
        return Ok(admission::later(environment, refused));
    }
    // Killed here: a token of the rate is lost.
    crash::point(Point::RedoPermitted);
    let context = settle::Context {
        actor: &environment.settings.actor,
        account: account(environment, Vendor::Ghostcut),
        protocol: &environment.settings.protocol,
        jitter: 1.0,
    };
    let mut claim = settlement(
        stage,
        item,
        wait.clone().with_fact(Fact {
            redos: Some(submission.redos),
            ..Fact::new(submission.token, LedgerState::Redoing)
        }),
        context,
    );
    // The move comes with the run's own settlement, after the vendor was asked.
    claim.r#move = None;
    // Read before the ledger is asked, as for a claim: a worker that was frozen since must not send.
    let asked = BootTime::now();
    // Model: step ClaimRedo.
    let verdict = environment.db.settle(&claim).await?;
    // Killed here, or the answer lost: the next poll shows whether the work runs.
    crash::point(Point::RedoClaimed);
    let left = within.saturating_sub(asked.elapsed());
    if verdict.ledger != LedgerVerdict::Written || left.is_zero() {
        return Ok(wait);
    }
    // Model: step SendRedo.
    let answer = environment.ghostcut.redo(task_id, left).await;
    crash::point(Point::RedoAnswered);
    let signal = admission::signal_of_repetition(environment, item, submission.token, &answer);
    if !matches!(answer, SubmitAnswer::Accepted { .. }) {
        tracing::warn!(job.id = %item.job_id, submission.token = %submission.token, ?answer, "redo was not confirmed");
    }
    Ok(Run { signal, ..wait })
}

/// The vendor fetches the source again.
async fn restore_source(
    environment: &Environment,
    item: &WorkItem,
    submission: &Submission,
) -> Result<(), StorageError> {
    if let (Some(key), Ok(spec)) = (&submission.source_key, source::spec(item))
        && environment.storage.head(key).await?.is_none()
    {
        let (source, _) = source::inpaint_source(environment, item, &spec);
        environment.storage.copy(&source, key).await?;
        crash::point(Point::SourceRestored);
    }
    Ok(())
}
