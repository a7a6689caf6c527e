//! From what a stage came to, to one transaction: moves, tries and what users see. The settle function keeps the last word
//! where the ledger knows more (`kept`, `second`, `taken`).

use std::time::Duration;

use serde_json::{Value, json};
use shared::config::ProtocolConfig;
use shared::db::{self, JobPatch, Move, MoveState, NewEvent, Settlement, WorkItem};
use shared::domain::admission::Refusal;
use shared::domain::outcome::{Outcome, Reason, retry_delay};
use shared::domain::transition::{self, Event, Next};
use shared::domain::{JobStatus, LedgerState, Stage, Vendor, progress};

use crate::run::{Run, Signal, StoredResult};

/// Whom a run settles for.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// Who acts.
    pub actor: &'a str,
    /// The account at the stage's vendor.
    pub account: &'a str,
    /// Times and bounds.
    pub protocol: &'a ProtocolConfig,
    /// 0 to 1, spreads retries.
    pub jitter: f64,
}

/// Turns a run into what the settle function takes.
#[must_use]
pub fn settlement(stage: Stage, item: &WorkItem, run: Run, context: Context<'_>) -> Settlement {
    let (mv, job_patch, event) = decide(stage, item, &run, context);
    Settlement {
        job: item.job_id,
        stage,
        epoch: item.epoch,
        actor: context.actor.to_owned(),
        fact: run.fact,
        r#move: Some(mv),
        job_patch,
        event,
        signal: run
            .signal
            .zip(stage.vendor())
            .map(|(signal, vendor)| about_account(vendor, signal, context)),
    }
}

fn about_account(vendor: Vendor, signal: Signal, context: Context<'_>) -> db::Signal {
    let protocol = context.protocol;
    db::Signal {
        vendor,
        account: context.account.to_owned(),
        kind: signal.kind,
        token: signal.token,
        reason: signal.reason,
        ms: millis(signal.after.unwrap_or(protocol.vendor_pause)),
        max_failures: protocol.circuit_failures,
        max_rejects: protocol.circuit_rejects,
        open_ms: millis(protocol.circuit_wait),
        open_cap_ms: millis(protocol.circuit_cap),
    }
}

fn decide(
    stage: Stage,
    item: &WorkItem,
    run: &Run,
    context: Context<'_>,
) -> (Move, Option<JobPatch>, Option<NewEvent>) {
    // When it was sent out and taken up is nowhere else once it is settled.
    let times = json!({ "dispatched_at": item.dispatched_at, "started_at": item.now });
    let event = |kind: &'static str, detail: Value| {
        Some(NewEvent {
            kind,
            detail: merged(merged(detail, &run.detail), &times),
        })
    };
    // What put the job off: people read it, and `release_jobs` finds by it who may go on when the cause is mended.
    let answered = |detail: Value| match &run.signal {
        Some(signal) => merged(
            detail,
            &json!({ "answer": signal.kind.as_str(), "said": signal.reason }),
        ),
        None => detail,
    };
    match &run.outcome {
        Outcome::Advance {
            event: happened,
            after,
        } => {
            let (mv, patch) = advance(stage, item, *happened, *after, run.stored.as_ref());
            (
                mv,
                patch,
                event("advanced", json!({ "event": format!("{happened:?}") })),
            )
        }
        Outcome::Later { after, progress } => {
            let patch = progress.map(|percent| JobPatch {
                progress: Some(percent),
                ..JobPatch::default()
            });
            // Every poll passes here: the trail records only what carried news.
            let line = if run.fact.is_some() || run.signal.is_some() {
                event("later", answered(json!({})))
            } else {
                None
            };
            let mv = Move {
                reason: run.refused.map(Refusal::as_str),
                ..waiting(stage, *after, 0)
            };
            (mv, patch, line)
        }
        Outcome::Retry { after, error } => {
            let delay = after.unwrap_or_else(|| {
                retry_delay(&context.protocol.retry(), item.tries, context.jitter)
            });
            (
                waiting(stage, delay, item.tries + 1),
                None,
                event("retry", answered(json!({ "error": error }))),
            )
        }
        Outcome::Park { reason, error } => {
            let mv = Move {
                state: MoveState::Parked,
                stage: None,
                delay_ms: 0,
                tries: Some(0),
                reason: Some(reason.as_str()),
                from: transition::accepted_from(stage),
            };
            (
                mv,
                None,
                event("parked", json!({ "reason": reason, "error": error })),
            )
        }
        Outcome::Fail { reason, error } => {
            let mv = done();
            (
                mv,
                Some(failed(stage, *reason, error)),
                event("failed", json!({ "reason": reason, "error": error })),
            )
        }
        Outcome::Over { why } => (done(), None, event("over", json!({ "why": why }))),
        Outcome::GiveUp { reason, error } => {
            let (mv, patch) = dead(stage, *reason, error);
            (
                mv,
                patch,
                event("gave_up", json!({ "reason": reason, "error": error })),
            )
        }
    }
}

fn advance(
    stage: Stage,
    item: &WorkItem,
    event: Event,
    after: Duration,
    stored: Option<&StoredResult>,
) -> (Move, Option<JobPatch>) {
    match transition::next(stage, event) {
        Ok(Next::Stage(next)) => {
            let tries = match event {
                // The two stages hand the job back and forth while the vendor's URLs do not answer: one count for both.
                Event::ResultGone => item.tries + 1,
                // But not the polls that failed before it was known that the work had succeeded.
                Event::Succeeded if knew_success(item) => item.tries,
                _ => 0,
            };
            let mut mv = waiting(next, after, tries);
            if event == Event::Accepted {
                mv.from = transition::accepted_from(stage);
            }
            (mv, entering(next, event))
        }
        Ok(Next::Finished) => {
            let mv = done();
            (mv, stored.map(completed))
        }
        Err(illegal) => dead(stage, Reason::InternalError, &illegal.to_string()),
    }
}

/// Whether the ledger had the work as succeeded already: its result was gone, and is asked for again.
fn knew_success(item: &WorkItem) -> bool {
    let submission = item.submission.as_ref();
    submission.is_some_and(|submission| submission.state == LedgerState::Succeeded)
}

fn entering(stage: Stage, event: Event) -> Option<JobPatch> {
    let accepted = |vendor| {
        let (percent, message) = progress::accepted(vendor);
        (percent, message.map(str::to_owned))
    };
    let (percent, message) = match (stage, event) {
        (Stage::LipsyncPoll, Event::Accepted) => accepted(Vendor::Sync),
        (Stage::InpaintSubmit, Event::Stored { .. }) => (
            progress::LIPSYNC_DONE,
            Some(progress::LIPSYNC_DONE_MESSAGE.to_owned()),
        ),
        (Stage::InpaintPoll, Event::Accepted) => accepted(Vendor::Ghostcut),
        _ => return None,
    };
    Some(JobPatch {
        status: Some(JobStatus::Processing),
        progress: Some(percent),
        message,
        ..JobPatch::default()
    })
}

fn completed(stored: &StoredResult) -> JobPatch {
    JobPatch {
        status: Some(JobStatus::Completed),
        progress: Some(progress::DONE),
        message: Some(progress::done_message(stored.has_segments, stored.has_effects).to_owned()),
        output_url: Some(stored.url.clone()),
        ..JobPatch::default()
    }
}

/// The end of a failed job as the replaced application worded it: for lip-sync in the message beside the vendor's own text,
/// for inpainting in the error.
fn failed(stage: Stage, reason: Reason, error: &str) -> JobPatch {
    let (message, error) = match stage {
        Stage::LipsyncSubmit => (Some(progress::lipsync_not_started(error)), error.to_owned()),
        Stage::LipsyncPoll | Stage::LipsyncStore => {
            (Some(progress::lipsync_failed(error)), error.to_owned())
        }
        Stage::SourceImport | Stage::InpaintSubmit | Stage::InpaintReconcile => {
            (None, progress::inpaint_not_started(error))
        }
        Stage::InpaintPoll => (None, progress::inpaint_failed(error)),
        Stage::InpaintStore => (None, progress::result_unusable(error)),
    };
    JobPatch {
        status: Some(JobStatus::Failed),
        message,
        error: Some(error),
        error_code: Some(reason),
        ..JobPatch::default()
    }
}

fn dead(stage: Stage, reason: Reason, error: &str) -> (Move, Option<JobPatch>) {
    let mv = Move {
        state: MoveState::Dead,
        stage: None,
        delay_ms: 0,
        tries: None,
        reason: Some(reason.as_str()),
        from: &[],
    };
    (mv, Some(failed(stage, reason, error)))
}

const fn done() -> Move {
    Move {
        state: MoveState::Done,
        stage: None,
        delay_ms: 0,
        tries: None,
        reason: None,
        from: &[],
    }
}

fn waiting(stage: Stage, after: Duration, tries: u32) -> Move {
    Move {
        state: MoveState::Waiting,
        stage: Some(stage),
        delay_ms: millis(after),
        tries: Some(tries),
        reason: None,
        from: &[],
    }
}

fn merged(mut detail: Value, more: &Value) -> Value {
    if let (Some(detail), Some(more)) = (detail.as_object_mut(), more.as_object()) {
        detail.extend(more.clone());
    }
    detail
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
