//! The submission protocol's two statements, `claim` and `settle`. Their SQL stands in the `protocol` migration.

use std::time::Duration;

use chrono::{DateTime, Utc};
use diesel::sql_types::{Array, BigInt, Binary, Jsonb, Nullable, Text};
use diesel_async::RunQueryDsl as _;
use serde::Serialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{Db, DbError, DbResult, Refused, Signal};
use crate::domain::outcome::Reason;
use crate::domain::{JobStatus, LedgerState, Stage, Vendor};

/// An intent to pay. Everything the request is made of is fixed here, before it is sent.
#[derive(Clone, Debug, Serialize)]
pub struct Claim {
    /// The job to pay for.
    pub job: Uuid,
    /// The stage that the actor works in.
    pub stage: Stage,
    /// The epoch that the actor was given.
    pub epoch: i64,
    /// Who acts, for the trail.
    pub actor: String,
    /// Whom to pay.
    pub vendor: Vendor,
    /// Our account there.
    pub account: String,
    /// Number of this submission among those of the (job, vendor), from 1.
    pub attempt: i32,
    /// Identifies this submission for ever.
    pub token: Uuid,
    /// The object made for this submission alone, if any.
    pub source_key: Option<String>,
    /// The input URL given to the vendor, to find the work by.
    pub source_url: Option<String>,
    /// Keys that go into `job_metadata` with the vendor's ids when it is accepted.
    pub metadata: Option<Value>,
    /// From the commit on, how long the request may still be sent, in milliseconds.
    pub send_within_ms: u64,
    /// What it is expected to cost, in the vendor's unit.
    pub cost_reserved: Option<f64>,
}

/// What came of a [`Claim`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claimed {
    /// Ours: send within `remaining`, counted from before the claim was asked for.
    Claimed {
        /// What the database says is left.
        remaining: Duration,
    },
    /// The job's row names a work at the vendor that the ledger did not know; now it does. Poll it.
    Imported,
    /// The job's row names a work that belongs to another submission: a person has to look.
    Conflict,
    /// A callback speaks of a work for an attempt that counts as absent, and came to nothing: a person has to look.
    Undecided,
    /// The database forgot a commit that this process knows of: nothing is sent.
    Forgot,
    /// Another submission is live: read it with a second statement and go on from its state.
    Occupied,
    /// The job is gone, over, or at another stage or epoch.
    Stale,
    /// Paid sends are stopped, the account may not send or has no room, or a callback waits to be processed: try later.
    NotNow(Refused),
    /// Less than the sending time is left of the lease.
    LeaseTooShort,
}

impl Claimed {
    /// The word for it in traces.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Claimed { .. } => "claimed",
            Self::Imported => "imported",
            Self::Conflict => "conflict",
            Self::Undecided => "undecided",
            Self::Forgot => "forgot",
            Self::Occupied => "occupied",
            Self::Stale => "stale",
            Self::NotNow(_) => "not_now",
            Self::LeaseTooShort => "lease_too_short",
        }
    }
}

/// What was learned about a submission; written by its token from any state.
#[derive(Clone, Debug, Serialize)]
pub struct Fact {
    /// Which submission.
    pub token: Uuid,
    /// What it has become.
    pub state: LedgerState,
    /// The vendor's id of the work.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task_id: Option<String>,
    /// GhostCut's batch id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub project_id: Option<String>,
    /// Units charged.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub charged: Option<f64>,
    /// What the vendor said, for evidence and later stages.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub answer: Option<Value>,
    /// How many redos the observer of a status knew of: what a work looked like before a redo says nothing after it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub redos: Option<i32>,
    /// Makes a duplicate the job's submission.
    pub promote: bool,
    /// Seen while no stage followed the submission: a failure counts only if that is still so, because a stage may keep the
    /// slot of a failed work on purpose.
    pub unfollowed: bool,
}

impl Fact {
    /// A fact that says nothing but the new state.
    #[must_use]
    pub fn new(token: Uuid, state: LedgerState) -> Self {
        Self {
            token,
            state,
            task_id: None,
            project_id: None,
            charged: None,
            answer: None,
            redos: None,
            promote: false,
            unfollowed: false,
        }
    }
}

/// Where the job's stage row goes.
#[derive(Clone, Debug, Serialize)]
pub struct Move {
    /// Its next state.
    pub state: MoveState,
    /// Its next stage; the same when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stage: Option<Stage>,
    /// For `waiting`: when it is due, in milliseconds from now.
    pub delay_ms: u64,
    /// The count of tries from now on; the same when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tries: Option<u32>,
    /// For `parked` and `dead`: why, a word of [`crate::domain::outcome::Reason`]. For `waiting`: what did not let it send, a word of
    /// [`crate::domain::admission::Refusal`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'static str>,
    /// Stages from which a new fact about the job's own submission moves it whatever the epoch.
    pub from: &'static [Stage],
}

/// The state a [`Move`] leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum MoveState {
    /// Due after the delay.
    Waiting,
    /// Stands until a person or a condition moves it.
    Parked,
    /// Given up.
    Dead,
    /// Over: the row goes.
    Done,
}

/// What users see of the job; absent fields stay.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct JobPatch {
    /// `video_jobs.status`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<JobStatus>,
    /// Percent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub progress: Option<i32>,
    /// `progress_message`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// `error_message`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// `error_code`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error_code: Option<Reason>,
    /// Where the result lies.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output_url: Option<String>,
}

/// A line for the job's trail.
#[derive(Clone, Debug, Serialize)]
pub struct NewEvent {
    /// What happened, one word.
    pub kind: &'static str,
    /// Details.
    pub detail: Value,
}

/// Everything a stage came to, for one transaction.
#[derive(Clone, Debug, Serialize)]
pub struct Settlement {
    /// The job.
    pub job: Uuid,
    /// The stage the actor worked in.
    pub stage: Stage,
    /// The epoch the actor was given.
    pub epoch: i64,
    /// Who acts, for the trail.
    pub actor: String,
    /// What was learned about a submission.
    pub fact: Option<Fact>,
    /// Where the job goes.
    pub r#move: Option<Move>,
    /// What users see.
    pub job_patch: Option<JobPatch>,
    /// What the trail says.
    pub event: Option<NewEvent>,
    /// What the answer says about the account.
    pub signal: Option<Signal>,
}

/// What `settle` did.
#[derive(Clone, Copy, Debug, PartialEq, serde::Deserialize)]
pub struct Verdict {
    /// About the ledger.
    pub ledger: LedgerVerdict,
    /// About `job_metadata`.
    pub metadata: MetadataVerdict,
    /// About the stage row.
    pub r#move: MoveVerdict,
    /// Age of the job; none when it is gone.
    pub job_seconds: Option<f64>,
    /// The line of the trail that this wrote.
    pub line: Option<i64>,
    /// When.
    pub line_at: Option<DateTime<Utc>>,
}

/// What became of the fact.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LedgerVerdict {
    /// New, and written by this call.
    Written,
    /// Known before.
    Same,
    /// A state stands that this fact does not change.
    Kept,
    /// Another work for a token that already has one: paid twice.
    Second,
    /// The vendor id belongs to another submission.
    Taken,
    /// No fact was given.
    None,
}

/// What the compare-and-set on `job_metadata` found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MetadataVerdict {
    /// No id was there that still counts: ours is set.
    Set,
    /// Ours was there.
    Same,
    /// Another one is there and stays: ours is a duplicate.
    Other,
    /// The job is gone.
    Gone,
    /// Nothing to set.
    None,
}

/// What became of the move.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MoveVerdict {
    /// Done.
    Moved,
    /// The job waits instead of failing: the vendor seems to reject everybody.
    Held,
    /// Somebody else moved the job first.
    Lost,
    /// No move was given.
    None,
}

#[derive(diesel::QueryableByName)]
struct ClaimRow {
    #[diesel(sql_type = Text)]
    verdict: String,
    #[diesel(sql_type = Nullable<BigInt>)]
    remaining_ms: Option<i64>,
    #[diesel(sql_type = Nullable<BigInt>)]
    retry_ms: Option<i64>,
}

#[derive(diesel::QueryableByName)]
struct SettleRow {
    #[diesel(sql_type = Jsonb)]
    verdict: Value,
}

impl Db {
    /// I2: commits the intent to pay, or says why not. Only the caller that is answered [`Claimed::Claimed`] may send.
    ///
    /// # Errors
    /// When the outcome is not known the caller must not send: the row, if it is there, is found as a claim not sent on.
    pub async fn claim(&self, claim: &Claim, body: &[u8]) -> DbResult<Claimed> {
        let mut claim = to_json(claim)?;
        if let Some(mark) = self.memory.mark() {
            claim["mark"] = json!({ "id": mark.id, "at": mark.at });
        }
        let mut connection = self.connection().await?;
        let row: ClaimRow =
            diesel::sql_query("SELECT verdict, remaining_ms, retry_ms FROM claim($1, $2)")
                .bind::<Jsonb, _>(claim)
                .bind::<Binary, _>(body)
                .get_result(&mut connection)
                .await?;
        Ok(match row.verdict.as_str() {
            "claimed" => Claimed::Claimed {
                remaining: Duration::from_millis(
                    row.remaining_ms.unwrap_or(0).try_into().unwrap_or(0),
                ),
            },
            "imported" => Claimed::Imported,
            "occupied" => Claimed::Occupied,
            "conflict" => Claimed::Conflict,
            "undecided" => Claimed::Undecided,
            "forgot" => Claimed::Forgot,
            "gone" | "stale" | "over" => Claimed::Stale,
            "lease" => Claimed::LeaseTooShort,
            refusal => Claimed::NotNow(Refused::read(refusal, row.retry_ms)?),
        })
    }

    /// Writes what a stage came to; one round trip, one transaction.
    ///
    /// # Errors
    /// When the outcome is not known; settling again is harmless.
    pub async fn settle(&self, settlement: &Settlement) -> DbResult<Verdict> {
        let mut verdicts = self.settle_all(std::slice::from_ref(settlement)).await?;
        verdicts
            .pop()
            .ok_or_else(|| DbError::Value("settle gave no verdict".to_owned()))
    }

    /// Settles free moves together in one transaction, in ascending order of job ids; verdicts come in the order given.
    ///
    /// # Errors
    /// All or nothing: on an error none is settled and each is to be settled alone.
    pub async fn settle_all(&self, settlements: &[Settlement]) -> DbResult<Vec<Verdict>> {
        let values = settlements
            .iter()
            .map(to_json)
            .collect::<DbResult<Vec<_>>>()?;
        let mut connection = self.connection().await?;
        // `settle` runs in the order of the inner sort, which is the lock order; the outer one restores the caller's.
        let rows: Vec<SettleRow> = diesel::sql_query(
            "SELECT verdict FROM ( \
                 SELECT n, settle(s) AS verdict FROM ( \
                     SELECT s, n FROM unnest($1::jsonb[]) WITH ORDINALITY AS u(s, n) ORDER BY s ->> 'job', n OFFSET 0) o \
                 OFFSET 0) settled ORDER BY n",
        )
        .bind::<Array<Jsonb>, _>(values)
        .load(&mut connection)
        .await?;
        rows.into_iter()
            .map(|row| self.verdict(row.verdict))
            .collect()
    }

    /// Reads what a committed `settle` answered, and remembers the line it wrote.
    pub(super) fn verdict(&self, verdict: Value) -> DbResult<Verdict> {
        let verdict: Verdict =
            serde_json::from_value(verdict).map_err(|e| DbError::Value(e.to_string()))?;
        if let (Some(id), Some(at)) = (verdict.line, verdict.line_at) {
            self.memory.remember(id, at);
        }
        Ok(verdict)
    }
}

/// As JSON that PostgreSQL can store: `jsonb` has no U+0000, and vendors' texts may hold anything.
pub(super) fn to_json(value: &impl Serialize) -> DbResult<Value> {
    let mut value =
        serde_json::to_value(value).map_err(|error| DbError::Value(error.to_string()))?;
    strip_nul(&mut value);
    Ok(value)
}

pub(super) fn strip_nul(value: &mut Value) {
    match value {
        Value::String(text) if text.contains('\0') => *text = text.replace('\0', "\u{fffd}"),
        Value::Array(items) => items.iter_mut().for_each(strip_nul),
        Value::Object(keys) => keys.values_mut().for_each(strip_nul),
        _ => {}
    }
}
