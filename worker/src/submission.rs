//! The paid call: claim, send, and what the answer means for the ledger and the job.
//!
//! Nothing paid is sent from anywhere else, except a replay of Sync.so under its key and a redo, which the ledger allows in
//! its own way.

use std::time::Duration;

use serde_json::{Value, json};
use shared::crash::{self, Point};
use shared::db::{Claim, Claimed, DbError, Fact, SendAgain, WorkItem};
use shared::domain::answer::SubmitAnswer;
use shared::domain::outcome::Reason;
use shared::domain::transition::Event;
use shared::domain::{LedgerState, Stage, Vendor};
use shared::telemetry::{chain, trace};
use tracing::Instrument as _;
use uuid::Uuid;

use crate::admission::{self, throttle_delay};
use crate::clock::BootTime;
use crate::environment::Environment;
use crate::run::Run;

/// A request that is ready to be claimed and sent. Nothing in it changes any more.
pub struct Prepared {
    /// Identifies the submission.
    pub token: Uuid,
    /// The exact bytes.
    pub body: Vec<u8>,
    /// The object made for this submission.
    pub source_key: Option<String>,
    /// The input URL in the body.
    pub source_url: Option<String>,
    /// Keys for `job_metadata`, written together with the vendor's id.
    pub metadata: Option<Value>,
    /// What it is expected to cost, in the vendor's unit.
    pub cost: f64,
}

/// Claims the prepared request and, if the claim is ours, sends it once.
///
/// # Errors
/// When the claim's outcome is not known: then nothing is sent, and the claim, if it was committed, expires as unknown.
pub async fn pay(
    environment: &Environment,
    stage: Stage,
    item: &WorkItem,
    prepared: &Prepared,
    send: impl AsyncFnOnce(Duration) -> SubmitAnswer,
) -> Result<Run, DbError> {
    let Some(vendor) = stage.vendor() else {
        return Ok(Run::give_up(
            Reason::InternalError,
            format!("{stage} pays nobody"),
        ));
    };
    let settings = &environment.settings;
    let claim = Claim {
        job: item.job_id,
        stage,
        epoch: item.epoch,
        actor: settings.actor.clone(),
        vendor,
        account: account(environment, vendor).to_owned(),
        attempt: item.attempts + 1,
        token: prepared.token,
        source_key: prepared.source_key.clone(),
        source_url: prepared.source_url.clone(),
        metadata: prepared.metadata.clone(),
        send_within_ms: millis(settings.protocol.send_deadline),
        cost_reserved: Some(prepared.cost),
    };
    // Read before the claim is asked for, so that the way back of its answer counts against the time left.
    let asked = BootTime::now();
    let prevented = |how| {
        environment
            .metrics
            .duplicates_prevented
            .with_label_values(&[vendor.as_str(), how])
            .inc()
    };
    // Model: step Claim.
    let span = trace::claim(prepared.token);
    let claimed = environment.db.claim(&claim, &prepared.body);
    let claimed = claimed.instrument(span.clone()).await?;
    span.record("outcome", claimed.as_str());
    drop(span);
    if !matches!(claimed, Claimed::Claimed { .. }) {
        discard_source(environment, prepared).await;
    }
    match claimed {
        Claimed::Claimed { remaining } => {
            // Killed here: the row stands as claimed and becomes unknown after its deadline.
            crash::point(Point::ClaimCommitted);
            let left = remaining.saturating_sub(asked.elapsed());
            if left.is_zero() {
                return Ok(
                    Run::retry("the send deadline passed before the request could be sent")
                        .with_fact(Fact::new(prepared.token, LedgerState::NotSent)),
                );
            }
            // Model: step Send, then Arrive or TimeOut.
            let span = trace::pay(vendor, prepared.token, claim.attempt);
            let answer = send(left).instrument(span).await;
            // Killed here: the vendor may have it and nobody knows: unknown after the deadline.
            crash::point(Point::PaidAnswered);
            let signal = admission::signal(environment, item, prepared.token, &answer);
            Ok(answered(environment, stage, vendor, item, prepared, answer).signalling(signal))
        }
        Claimed::Imported => {
            prevented("imported");
            Ok(Run::advance(Event::Accepted, Duration::ZERO))
        }
        Claimed::Occupied => {
            prevented("occupied");
            Ok(Run::later(Duration::ZERO))
        }
        Claimed::Stale => {
            prevented("stale");
            Ok(Run::later(Duration::ZERO))
        }
        Claimed::NotNow(refused) => Ok(admission::later(environment, refused)),
        Claimed::Forgot => {
            // Says so to the whole fleet, unless an operator has allowed paid sends since.
            environment.db.check_continuity(&settings.actor).await;
            Ok(Run::later(settings.protocol.vendor_pause)
                .with_detail(json!({ "why": "the database forgot commits" })))
        }
        Claimed::Conflict => Ok(Run::park(
            Reason::TaskIdConflict,
            format!("the job's row names a {vendor} work that belongs to another submission"),
        )),
        Claimed::Undecided => Ok(Run::park(
            Reason::OutcomeUndecided,
            format!(
                "{vendor} called back about an attempt that counts as not accepted, and could not be asked about its work: see \
                 `producer jobs show`, then adopt the work or confirm that there is none"
            ),
        )),
        Claimed::LeaseTooShort => Ok(Run::retry("too little of the lease was left to send")),
    }
}

/// Nothing was claimed, so nobody knows of the object that was made for it. One that cannot be deleted costs its storage.
async fn discard_source(environment: &Environment, prepared: &Prepared) {
    if let Some(key) = &prepared.source_key
        && let Err(error) = environment.storage.delete(key).await
    {
        tracing::warn!(
            key,
            error = chain(&error),
            "a source that is not needed stays"
        );
    }
}

/// A submission that is to be sent once more, by the stage that the job is in. It becomes a replay with `not_after`.
#[must_use]
pub fn again(environment: &Environment, stage: Stage, item: &WorkItem, token: Uuid) -> SendAgain {
    let vendor = stage.vendor().unwrap_or(Vendor::Ghostcut);
    SendAgain {
        vendor,
        account: account(environment, vendor).to_owned(),
        token,
        job: item.job_id,
        stage,
        epoch: item.epoch,
        send_within_ms: millis(environment.settings.protocol.send_deadline),
        not_after: None,
    }
}

/// What is to be done instead of paying for another submission: a paid duplicate takes the place of the one that failed, and
/// the bound on paid attempts is kept.
#[must_use]
pub fn before_another(environment: &Environment, stage: Stage, item: &WorkItem) -> Option<Run> {
    if let (Some(vendor), Some(paid)) = (stage.vendor(), &item.submission)
        && let (LedgerState::Duplicate, Some(task_id)) = (paid.state, &paid.task_id)
        && paid.work_state.as_deref() != Some("failed")
    {
        let mut fact = Fact::new(paid.token, LedgerState::Accepted);
        fact.promote = true;
        return Some(accepted(
            environment,
            vendor,
            fact,
            task_id.clone(),
            paid.project_id.clone(),
        ));
    }
    let bound = environment.settings.max_paid_attempts;
    (item.failed_attempts >= bound).then(|| {
        Run::give_up(
            Reason::AttemptsExhausted,
            format!("{bound} paid attempts have failed"),
        )
    })
}

/// Our account at a vendor.
#[must_use]
pub fn account(environment: &Environment, vendor: Vendor) -> &str {
    match vendor {
        Vendor::Sync => &environment.settings.sync.account,
        Vendor::Ghostcut => &environment.settings.ghostcut.account,
    }
}

fn answered(
    environment: &Environment,
    stage: Stage,
    vendor: Vendor,
    item: &WorkItem,
    prepared: &Prepared,
    answer: SubmitAnswer,
) -> Run {
    let protocol = &environment.settings.protocol;
    let mut fact = Fact::new(prepared.token, LedgerState::Unknown);
    fact.answer = serde_json::to_value(&answer).ok();
    match answer {
        SubmitAnswer::Accepted {
            task_id,
            project_id,
        } => accepted(environment, vendor, fact, task_id, project_id),
        SubmitAnswer::NotSent { reason } => {
            fact.state = LedgerState::NotSent;
            Run::retry(reason).with_fact(fact)
        }
        SubmitAnswer::Rejected { reason } => {
            fact.state = LedgerState::Rejected;
            Run::fail(Reason::Rejected, reason).with_fact(fact)
        }
        SubmitAnswer::Misconfigured { .. } | SubmitAnswer::OutOfCredit { .. } => {
            fact.state = LedgerState::Rejected;
            Run::later(protocol.vendor_pause).with_fact(fact)
        }
        SubmitAnswer::Throttled {
            limit,
            retry_after,
            reason,
        } => {
            let after =
                retry_after.unwrap_or_else(|| throttle_delay(environment, limit, item.tries));
            unknown(stage, after, reason).with_fact(fact)
        }
        SubmitAnswer::Unknown { reason, .. } => {
            let after = match vendor {
                Vendor::Sync => protocol.sync_replay_schedule.delay(item.tries),
                // Searches count from the deadline on: until then the request may still arrive.
                Vendor::Ghostcut => {
                    protocol.send_deadline + protocol.ghostcut_search_schedule.delay(0)
                }
            };
            unknown(stage, after, reason).with_fact(fact)
        }
    }
}

/// The acceptance of a submission, however it came to be known.
#[must_use]
pub fn accepted(
    environment: &Environment,
    vendor: Vendor,
    mut fact: Fact,
    task_id: String,
    project_id: Option<String>,
) -> Run {
    let first_poll = environment
        .settings
        .protocol
        .poll_schedule(poll_stage(vendor))
        .delay(0);
    let first_poll = spread(first_poll);
    fact.state = LedgerState::Accepted;
    fact.task_id = Some(task_id);
    fact.project_id = project_id;
    Run::advance(Event::Accepted, first_poll).with_fact(fact)
}

/// Where an unknown outcome is cleared up: at Sync.so by the same stage, at GhostCut by a search.
fn unknown(stage: Stage, after: Duration, reason: String) -> Run {
    let detail = json!({ "error": reason });
    match stage {
        Stage::InpaintSubmit => Run::advance(Event::AnswerLost, after).with_detail(detail),
        _ => Run::new(shared::domain::outcome::Outcome::Retry {
            after: Some(after),
            error: reason,
        }),
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Up to a tenth sooner or later, so that what was submitted together is not polled together for ever.
#[must_use]
pub fn spread(delay: Duration) -> Duration {
    delay.mul_f64(rand::random_range(0.9..1.1))
}

const fn poll_stage(vendor: Vendor) -> Stage {
    match vendor {
        Vendor::Sync => Stage::LipsyncPoll,
        Vendor::Ghostcut => Stage::InpaintPoll,
    }
}
