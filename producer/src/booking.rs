//! Facts that the producer learns about submissions, as settlements: what was found at a vendor, and what an operator knows. The SQL
//! function `settle` keeps the last word, whoever brings a fact.

use serde_json::Value;
use shared::db::{Fact, JobPatch, Move, MoveState, NewEvent, Settlement};
use shared::domain::answer::Work;
use shared::domain::transition::{Event, Next, accepted_from, next};
use shared::domain::{JobStatus, LedgerState, Stage, Vendor, progress};
use uuid::Uuid;

/// Which submission a fact is about.
#[derive(Clone, Copy, Debug)]
pub struct About {
    /// Whom it pays.
    pub vendor: Vendor,
    /// The job it was for.
    pub job: Uuid,
    /// The submission.
    pub token: Uuid,
}

/// The vendor has the work: the job goes on to polling from wherever it submits or searches, parked or not.
#[must_use]
pub fn found(
    about: About,
    work: &Work,
    actor: &str,
    kind: &'static str,
    detail: Value,
) -> Settlement {
    let poll = polls(about.vendor);
    let mut fact = Fact::new(about.token, LedgerState::Accepted);
    fact.task_id = Some(work.task_id.clone());
    fact.project_id.clone_from(&work.project_id);
    fact.charged = work.charged;
    let (percent, message) = progress::accepted(about.vendor);
    let patch = JobPatch {
        status: Some(JobStatus::Processing),
        progress: Some(percent),
        message: message.map(str::to_owned),
        ..JobPatch::default()
    };
    settlement(
        about,
        actor,
        fact,
        poll,
        Some(patch),
        NewEvent { kind, detail },
    )
}

/// The vendor never got the request: the job goes back to where it submits, for a new attempt.
#[must_use]
pub fn not_there(about: About, actor: &str, kind: &'static str, detail: Value) -> Settlement {
    let fact = Fact::new(about.token, LedgerState::Absent);
    let submit = match next(Stage::InpaintReconcile, Event::Absent) {
        Ok(Next::Stage(stage)) if about.vendor == Vendor::Ghostcut => stage,
        _ => Stage::LipsyncSubmit,
    };
    settlement(about, actor, fact, submit, None, NewEvent { kind, detail })
}

fn settlement(
    about: About,
    actor: &str,
    fact: Fact,
    to: Stage,
    job_patch: Option<JobPatch>,
    event: NewEvent,
) -> Settlement {
    Settlement {
        job: about.job,
        stage: polls(about.vendor),
        // No epoch: it moves only what a new fact about the job's own submission may move.
        epoch: 0,
        actor: actor.to_owned(),
        fact: Some(fact),
        r#move: Some(Move {
            state: MoveState::Waiting,
            stage: Some(to),
            delay_ms: 0,
            tries: Some(0),
            reason: None,
            from: accepted_from(polls(about.vendor)),
        }),
        job_patch,
        event: Some(event),
        signal: None,
    }
}

/// The stage that polls a vendor's works.
#[must_use]
pub const fn polls(vendor: Vendor) -> Stage {
    match vendor {
        Vendor::Sync => Stage::LipsyncPoll,
        Vendor::Ghostcut => Stage::InpaintPoll,
    }
}
