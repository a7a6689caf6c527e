//! What a run of a stage came to, as the stages say it. `settle` turns it into a transaction.

use std::time::Duration;

use serde_json::Value;
use shared::db::{Fact, WorkItem};
use shared::domain::admission::{Refusal, SignalKind};
use shared::domain::outcome::{Outcome, Reason};
use shared::domain::transition::Event;
use uuid::Uuid;

/// What a run of a stage came to.
#[derive(Clone, Debug)]
pub struct Run {
    /// What it came to.
    pub outcome: Outcome,
    /// What was learned about a submission.
    pub fact: Option<Fact>,
    /// What was learned about our account at the stage's vendor.
    pub signal: Option<Signal>,
    /// Why a send was not let through, where that is all that it came to: shown while it waits, and no line of the trail.
    pub refused: Option<Refusal>,
    /// Set when a result was stored.
    pub stored: Option<StoredResult>,
    /// Evidence for the trail.
    pub detail: Value,
}

/// What was learned about our account at a vendor.
#[derive(Clone, Debug)]
pub struct Signal {
    /// What it is.
    pub kind: SignalKind,
    /// The vendor's words.
    pub reason: String,
    /// The submission whose paid call said so; none for a free call.
    pub token: Option<Uuid>,
    /// How long to wait; the configured pause when the vendor did not say.
    pub after: Option<Duration>,
}

/// A result in our bucket.
#[derive(Clone, Debug)]
pub struct StoredResult {
    /// Where.
    pub url: String,
    /// Whether Sync.so had a part in it.
    pub has_segments: bool,
    /// Whether GhostCut has, or will have, a part in it.
    pub has_effects: bool,
}

impl Run {
    /// A run that came to this and learned nothing about a submission.
    #[must_use]
    pub const fn new(outcome: Outcome) -> Self {
        Self {
            outcome,
            fact: None,
            signal: None,
            refused: None,
            stored: None,
            detail: Value::Null,
        }
    }

    /// The stage is over.
    #[must_use]
    pub const fn advance(event: Event, after: Duration) -> Self {
        Self::new(Outcome::Advance { event, after })
    }

    /// Not yet.
    #[must_use]
    pub const fn later(after: Duration) -> Self {
        Self::new(Outcome::Later {
            after,
            progress: None,
        })
    }

    /// A passing error.
    #[must_use]
    pub fn retry(error: impl Into<String>) -> Self {
        Self::new(Outcome::Retry {
            after: None,
            error: error.into(),
        })
    }

    /// Waits for a person.
    #[must_use]
    pub fn park(reason: Reason, error: impl Into<String>) -> Self {
        Self::new(Outcome::Park {
            reason,
            error: error.into(),
        })
    }

    /// The job's own fault.
    #[must_use]
    pub fn fail(reason: Reason, error: impl Into<String>) -> Self {
        Self::new(Outcome::Fail {
            reason,
            error: error.into(),
        })
    }

    /// Dead letter.
    #[must_use]
    pub fn give_up(reason: Reason, error: impl Into<String>) -> Self {
        Self::new(Outcome::GiveUp {
            reason,
            error: error.into(),
        })
    }

    /// The same, with a fact.
    #[must_use]
    pub fn with_fact(mut self, fact: Fact) -> Self {
        self.fact = Some(fact);
        self
    }

    /// The same, with what it says about the account.
    #[must_use]
    pub fn signalling(mut self, signal: Signal) -> Self {
        self.signal = Some(signal);
        self
    }

    /// The same, pausing the account: a free call was refused, or said that nothing can be paid.
    #[must_use]
    pub fn pausing(self, kind: SignalKind, reason: impl Into<String>) -> Self {
        self.signalling(Signal {
            kind,
            reason: reason.into(),
            token: None,
            after: None,
        })
    }

    /// The same, with evidence.
    #[must_use]
    pub fn with_detail(mut self, detail: Value) -> Self {
        self.detail = detail;
        self
    }

    /// Turns a passing error into a dead letter when the job has no tries left. While a submission is alive, passing errors
    /// never exhaust a job: somebody has paid, or may have.
    pub fn bound(&mut self, item: &WorkItem, max_tries: u32) {
        let alive = item
            .submission
            .as_ref()
            .is_some_and(|submission| submission.state.alive())
            || self.fact.as_ref().is_some_and(|fact| fact.state.alive());
        if let Outcome::Retry { error, .. } = &self.outcome
            && item.tries + 1 >= max_tries
            && !alive
        {
            let error = format!("given up after {} tries: {error}", item.tries + 1);
            self.outcome = Outcome::GiveUp {
                reason: Reason::TriesExhausted,
                error,
            };
        }
    }

    /// Whether it moves nothing but a due time: such settlements are grouped. One about the account locks its row, which is
    /// the last in lock order, so no other job may follow it in a transaction.
    #[must_use]
    pub const fn is_free(&self) -> bool {
        self.fact.is_none()
            && self.signal.is_none()
            && matches!(self.outcome, Outcome::Later { .. } | Outcome::Retry { .. })
    }

    /// Whether the message is to be rejected after the commit, so that its headers reach the dead-letter list.
    #[must_use]
    pub const fn gives_up(&self) -> bool {
        matches!(self.outcome, Outcome::GiveUp { .. })
    }

    /// The value of the metric label `outcome`.
    #[must_use]
    pub const fn label(&self) -> &'static str {
        match self.outcome {
            Outcome::Advance { .. } => "advance",
            Outcome::Later { .. } => "later",
            Outcome::Retry { .. } => "retry",
            Outcome::Park { .. } => "park",
            Outcome::Fail { .. } => "fail",
            Outcome::Over { .. } => "over",
            Outcome::GiveUp { .. } => "give_up",
        }
    }
}

/// One line per run: for people to act on, to know about, or (polls that found nothing new) to debug with.
pub fn log_run(item: &WorkItem, run: &Run) {
    let (job, epoch, tries) = (item.job_id, item.epoch, item.tries);
    // The one this run learned something about, else the one it found.
    let found = item.submission.as_ref().map(|submission| submission.token);
    let token = run
        .fact
        .as_ref()
        .map(|fact| fact.token)
        .or(found)
        .map(tracing::field::display);
    match &run.outcome {
        Outcome::Advance { event, .. } => {
            tracing::info!(job.id = %job, epoch, submission.token = token, ?event, "stage done");
        }
        Outcome::Later { after, .. } => {
            tracing::debug!(job.id = %job, epoch, submission.token = token, ?after, "stage again later");
        }
        Outcome::Retry { after, error } => {
            tracing::warn!(job.id = %job, epoch, submission.token = token, tries, ?after, error, "stage will be retried");
        }
        Outcome::Over { why } => {
            tracing::info!(job.id = %job, epoch, submission.token = token, why, "job is over");
        }
        Outcome::Fail { reason, error } => {
            tracing::warn!(job.id = %job, epoch, submission.token = token, %reason, error, "job failed");
        }
        Outcome::Park { reason, error } => {
            tracing::error!(job.id = %job, epoch, submission.token = token, %reason, error, "job parked: somebody has to decide");
        }
        Outcome::GiveUp { reason, error } => {
            tracing::error!(job.id = %job, epoch, submission.token = token, %reason, error, "job given up: see its dead letter");
        }
    }
    let Some(Signal { kind, reason, .. }) = &run.signal else {
        return;
    };
    match kind {
        SignalKind::Misconfigured | SignalKind::OutOfCredit => {
            tracing::error!(job.id = %job, %kind, reason, "the vendor refuses us: pausing paid sends to it");
        }
        SignalKind::Throttled | SignalKind::Slots => {
            tracing::warn!(job.id = %job, %kind, reason, "the vendor asks for less: waiting");
        }
        SignalKind::Works | SignalKind::Fails | SignalKind::Rejects => {}
    }
}
