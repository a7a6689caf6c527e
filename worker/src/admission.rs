//! Between a paid call and its account: what an answer says about the account, and what a refused send means for the job.
//!
//! Decides nothing about the account: the rules are in the database, where every worker and producer is counted.

use std::time::Duration;

use shared::db::{Refused, WorkItem};
use shared::domain::admission::SignalKind;
use shared::domain::answer::{Limit, SubmitAnswer};
use uuid::Uuid;

use crate::environment::Environment;
use crate::run::{Run, Signal};

/// The longest a job waits before it asks again: limits change at any time.
const ASK_AGAIN: Duration = Duration::from_secs(60);

/// A send was not let through: the same again when it may be. Spends no try.
#[must_use]
pub fn later(environment: &Environment, refused: Refused) -> Run {
    let pause = environment.settings.protocol.vendor_pause.min(ASK_AGAIN);
    Run {
        refused: Some(refused.why),
        ..Run::later(refused.after.unwrap_or(pause))
    }
}

/// What the answer to the paid call of a submission says about the account.
#[must_use]
pub fn signal(
    environment: &Environment,
    item: &WorkItem,
    token: Uuid,
    answer: &SubmitAnswer,
) -> Signal {
    let of = |kind, reason: &str, after| Signal {
        kind,
        reason: reason.to_owned(),
        token: Some(token),
        after,
    };
    match answer {
        SubmitAnswer::Accepted { .. } => of(SignalKind::Works, "", None),
        SubmitAnswer::NotSent { reason } | SubmitAnswer::Unknown { reason, .. } => {
            of(SignalKind::Fails, reason, None)
        }
        SubmitAnswer::Rejected { reason } => of(SignalKind::Rejects, reason, None),
        SubmitAnswer::Throttled {
            limit,
            retry_after,
            reason,
        } => {
            let kind = match limit {
                Limit::Rate | Limit::Unspecified => SignalKind::Throttled,
                Limit::Slots => SignalKind::Slots,
            };
            let after =
                retry_after.unwrap_or_else(|| throttle_delay(environment, *limit, item.tries));
            of(kind, reason, Some(after))
        }
        SubmitAnswer::Misconfigured { reason } => of(SignalKind::Misconfigured, reason, None),
        SubmitAnswer::OutOfCredit { reason } => of(SignalKind::OutOfCredit, reason, None),
    }
}

/// The same for a replay or redo. Its refusal is about the repetition and says nothing about the account.
#[must_use]
pub fn signal_of_repetition(
    environment: &Environment,
    item: &WorkItem,
    token: Uuid,
    answer: &SubmitAnswer,
) -> Option<Signal> {
    let refused = matches!(answer, SubmitAnswer::Rejected { .. });
    (!refused).then(|| signal(environment, item, token, answer))
}

/// How long to wait for a limit when the vendor did not say.
#[must_use]
pub fn throttle_delay(environment: &Environment, limit: Limit, tries: u32) -> Duration {
    let protocol = &environment.settings.protocol;
    match limit {
        Limit::Rate => protocol.sync_replay_schedule.delay(tries),
        // A slot may become free at any time: nothing is gained by asking ever less often.
        Limit::Slots => protocol.throttle_schedule.delay(0),
        Limit::Unspecified => protocol.throttle_schedule.delay(tries),
    }
}
