//! The stages: one file each, and what two vendors' stages have in common (`poll`, `store`).

mod inpaint_poll;
mod inpaint_reconcile;
mod inpaint_store;
mod inpaint_submit;
mod lipsync_poll;
mod lipsync_store;
mod lipsync_submit;
mod poll;
mod source_import;
mod store;

use std::time::Duration;

use shared::db::{DbError, Fact, Submission, WorkItem};
use shared::domain::admission::SignalKind;
use shared::domain::classify::ErrorClass;
use shared::domain::transition::Event;
use shared::domain::{JobStatus, LedgerState, Stage};
use shared::storage::StorageError;
use shared::telemetry::chain;
use shared::vendor::VendorError;

use crate::environment::Environment;
use crate::run::Run;

/// After a send deadline, how long until the claim counts as not settled by its owner.
const CLAIM_GRACE: Duration = Duration::from_secs(1);

/// Runs a stage for the jobs of one message and says, in their order, what each came to.
///
/// # Errors
/// When the database is away: nothing is known then, and the message is to be kept.
pub async fn run(
    environment: &Environment,
    stage: Stage,
    items: &[WorkItem],
) -> Result<Vec<Run>, DbError> {
    match stage {
        Stage::LipsyncPoll => return lipsync_poll::run(environment, items).await,
        Stage::InpaintPoll => return inpaint_poll::run(environment, items).await,
        _ => {}
    }
    let mut runs = Vec::with_capacity(items.len());
    for item in items {
        runs.push(match stage {
            Stage::SourceImport => source_import::run(environment, item).await,
            Stage::LipsyncSubmit => lipsync_submit::run(environment, item).await?,
            Stage::LipsyncStore => lipsync_store::run(environment, item).await,
            Stage::InpaintSubmit => inpaint_submit::run(environment, item).await?,
            Stage::InpaintReconcile => inpaint_reconcile::run(environment, item).await?,
            Stage::InpaintStore => inpaint_store::run(environment, item).await,
            Stage::LipsyncPoll | Stage::InpaintPoll => continue,
        });
    }
    Ok(runs)
}

/// What a submission that is no longer to be sent means for a stage that wants to send: the state decides, whoever made it.
/// `None`: its outcome is unknown and the stage clears that up.
fn resume(submission: &Submission, item: &WorkItem) -> Option<Run> {
    match submission.state {
        LedgerState::Claimed => {
            let until = submission.send_deadline - item.now;
            Some(match until.to_std() {
                // Its owner may still be sending.
                Ok(left) => Run::later(left + CLAIM_GRACE),
                Err(_) => Run::later(Duration::ZERO)
                    .with_fact(Fact::new(submission.token, LedgerState::Unknown)),
            })
        }
        LedgerState::Unknown => None,
        _ => Some(Run::advance(Event::Accepted, Duration::ZERO)),
    }
}

/// The submission that keeps another from being opened, if there is one.
fn live(item: &WorkItem) -> Option<&Submission> {
    item.submission
        .as_ref()
        .filter(|submission| submission.state.occupies())
}

/// Whether the job still wants its result.
pub fn is_active(item: &WorkItem) -> bool {
    matches!(
        item.status,
        Some(JobStatus::Queued | JobStatus::Uploading | JobStatus::Processing)
    )
}

/// What a failed free call means for every job it was made for.
fn not_answered(environment: &Environment, error: &VendorError, tries: u32) -> Run {
    let protocol = &environment.settings.protocol;
    match error.class() {
        ErrorClass::Misconfigured => {
            Run::later(protocol.vendor_pause).pausing(SignalKind::Misconfigured, chain(error))
        }
        ErrorClass::Throttled { retry_after } => {
            Run::later(retry_after.unwrap_or_else(|| protocol.throttle_schedule.delay(tries)))
        }
        ErrorClass::Transient | ErrorClass::NotFound | ErrorClass::Protocol => {
            Run::retry(chain(error))
        }
    }
}

/// What a failure of our own store means.
fn store_failed(error: &StorageError) -> Run {
    Run::retry(chain(error))
}
