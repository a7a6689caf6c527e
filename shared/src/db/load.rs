//! Loading the work that a message points at: rows first, always (I5).

use std::time::Duration;

use chrono::{DateTime, Utc};
use diesel::QueryableByName;
use diesel::sql_types::{
    Array, BigInt, Bool, Bytea, Integer, Jsonb, Nullable, Text, Timestamptz, Uuid as SqlUuid,
};
use diesel_async::RunQueryDsl as _;
use serde_json::Value;
use uuid::Uuid;

use super::dispatch::millis;
use super::{Db, DbResult};
use crate::domain::message::JobRef;
use crate::domain::{JobStatus, LedgerState, Stage};

/// A submission as the stages need it.
#[derive(Clone, Debug)]
pub struct Submission {
    /// Identifies it for ever.
    pub token: Uuid,
    /// Its number among those of the (job, vendor).
    pub attempt: i32,
    /// Its ledger state.
    pub state: LedgerState,
    /// Taken over from the job's row, never sent by us.
    pub imported: bool,
    /// The exact bytes that were, or were to be, sent.
    pub request_body: Vec<u8>,
    /// The object made for it.
    pub source_key: Option<String>,
    /// The input URL the vendor was given.
    pub source_url: Option<String>,
    /// When that object was deleted.
    pub source_deleted_at: Option<DateTime<Utc>>,
    /// The vendor's id of the work.
    pub task_id: Option<String>,
    /// GhostCut's batch id.
    pub project_id: Option<String>,
    /// How the work was last seen at the vendor: `pending`, `succeeded` or `failed`.
    pub work_state: Option<String>,
    /// What the vendor last said.
    pub answer: Value,
    /// When it was claimed.
    pub claimed_at: DateTime<Utc>,
    /// Until when it may be sent.
    pub send_deadline: DateTime<Utc>,
    /// When its state last changed.
    pub settled_at: Option<DateTime<Utc>>,
    /// How often the vendor was asked to run the same work again.
    pub redos: i32,
    /// How often it was searched for, successfully.
    pub searches: i32,
    /// When it was last searched for successfully.
    pub last_searched_at: Option<DateTime<Utc>>,
}

/// One job to work on, with everything its stage needs.
#[derive(Clone, Debug)]
pub struct WorkItem {
    /// The job.
    pub job_id: Uuid,
    /// The epoch this work runs under.
    pub epoch: i64,
    /// Tries spent in this stage.
    pub tries: u32,
    /// Starts without an end, this one included.
    pub starts: u32,
    /// What is left of the lease.
    pub lease: Duration,
    /// How long the job has been in this stage.
    pub in_stage: Duration,
    /// The database's clock when this was read.
    pub now: DateTime<Utc>,
    /// When it was sent out; none where a producer of an older version did.
    pub dispatched_at: Option<DateTime<Utc>>,
    /// The job's owner.
    pub user_id: Uuid,
    /// Where the job stands for its owner; none when that is a word that the fleet does not know.
    pub status: Option<JobStatus>,
    /// `video_jobs.processing_config`.
    pub processing_config: Option<Value>,
    /// `video_jobs.segments_data`.
    pub segments_data: Option<Value>,
    /// `video_jobs.job_metadata`.
    pub job_metadata: Option<Value>,
    /// `video_jobs.video_duration_seconds`, where somebody knows it.
    pub video_seconds: Option<u32>,
    /// The live, else the latest, submission to the stage's vendor.
    pub submission: Option<Submission>,
    /// How many submissions to the stage's vendor there have been.
    pub attempts: i32,
    /// Those of them that were accepted and then failed, hence count against the bound on paid attempts, unless an operator
    /// decided that they do not.
    pub failed_attempts: i32,
}

/// What came of loading the references of a message.
#[derive(Debug, Default)]
pub struct Loaded {
    /// Current: to be worked on.
    pub items: Vec<WorkItem>,
    /// How many no longer matched.
    pub stale: usize,
    /// Those whose epoch is greater than the row's: the database forgot commits.
    pub from_the_future: Vec<Uuid>,
    /// Jobs that are not there and never were: nothing in the trail names them.
    pub unknown: Vec<Uuid>,
}

#[derive(QueryableByName)]
struct Row {
    #[diesel(sql_type = SqlUuid)]
    job_id: Uuid,
    #[diesel(sql_type = BigInt)]
    epoch: i64,
    #[diesel(sql_type = Integer)]
    tries: i32,
    #[diesel(sql_type = Integer)]
    starts: i32,
    #[diesel(sql_type = BigInt)]
    lease_ms: i64,
    #[diesel(sql_type = BigInt)]
    in_stage_ms: i64,
    #[diesel(sql_type = Timestamptz)]
    now: DateTime<Utc>,
    #[diesel(sql_type = Nullable<Timestamptz>)]
    dispatched_at: Option<DateTime<Utc>>,
    #[diesel(sql_type = SqlUuid)]
    user_id: Uuid,
    #[diesel(sql_type = Text)]
    status: String,
    #[diesel(sql_type = Nullable<Text>)]
    processing_config: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    segments_data: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    job_metadata: Option<String>,
    #[diesel(sql_type = Nullable<Integer>)]
    video_seconds: Option<i32>,
    #[diesel(sql_type = Integer)]
    attempts: i32,
    #[diesel(sql_type = Integer)]
    failed_attempts: i32,
    #[diesel(embed)]
    submission: SubmissionPart,
}

#[derive(QueryableByName)]
struct SubmissionPart {
    #[diesel(sql_type = Nullable<SqlUuid>)]
    token: Option<Uuid>,
    #[diesel(sql_type = Nullable<Integer>)]
    attempt: Option<i32>,
    #[diesel(sql_type = Nullable<Text>)]
    state: Option<String>,
    #[diesel(sql_type = Nullable<Bool>)]
    imported: Option<bool>,
    #[diesel(sql_type = Nullable<Bytea>)]
    request_body: Option<Vec<u8>>,
    #[diesel(sql_type = Nullable<Text>)]
    source_key: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    source_url: Option<String>,
    #[diesel(sql_type = Nullable<Timestamptz>)]
    source_deleted_at: Option<DateTime<Utc>>,
    #[diesel(sql_type = Nullable<Text>)]
    vendor_task_id: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    vendor_project_id: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    work_state: Option<String>,
    #[diesel(sql_type = Nullable<Jsonb>)]
    answer: Option<Value>,
    #[diesel(sql_type = Nullable<Timestamptz>)]
    claimed_at: Option<DateTime<Utc>>,
    #[diesel(sql_type = Nullable<Timestamptz>)]
    send_deadline: Option<DateTime<Utc>>,
    #[diesel(sql_type = Nullable<Timestamptz>)]
    settled_at: Option<DateTime<Utc>>,
    #[diesel(sql_type = Nullable<Integer>)]
    redos: Option<i32>,
    #[diesel(sql_type = Nullable<Integer>)]
    searches: Option<i32>,
    #[diesel(sql_type = Nullable<Timestamptz>)]
    last_searched_at: Option<DateTime<Utc>>,
}

impl SubmissionPart {
    fn into_submission(self) -> DbResult<Option<Submission>> {
        let (Some(token), Some(state), Some(claimed_at), Some(send_deadline)) =
            (self.token, self.state, self.claimed_at, self.send_deadline)
        else {
            return Ok(None);
        };
        Ok(Some(Submission {
            token,
            attempt: self.attempt.unwrap_or(0),
            state: state.parse()?,
            imported: self.imported.unwrap_or(false),
            request_body: self.request_body.unwrap_or_default(),
            source_key: self.source_key,
            source_url: self.source_url,
            source_deleted_at: self.source_deleted_at,
            task_id: self.vendor_task_id,
            project_id: self.vendor_project_id,
            work_state: self.work_state,
            answer: self.answer.unwrap_or_default(),
            claimed_at,
            send_deadline,
            settled_at: self.settled_at,
            redos: self.redos.unwrap_or(0),
            searches: self.searches.unwrap_or(0),
            last_searched_at: self.last_searched_at,
        }))
    }
}

#[derive(QueryableByName)]
struct EpochRow {
    #[diesel(sql_type = SqlUuid)]
    job_id: Uuid,
    #[diesel(sql_type = BigInt)]
    epoch: i64,
}

#[derive(QueryableByName)]
struct IdRow {
    #[diesel(sql_type = SqlUuid)]
    id: Uuid,
}

const START: &str = "\
WITH locked AS ( \
    SELECT s.job_id FROM unnest($2, $3) AS r(job_id, epoch) \
    JOIN job_stages s ON s.job_id = r.job_id AND s.epoch = r.epoch AND s.stage = $1 AND s.state = 'dispatched' \
    ORDER BY s.job_id FOR UPDATE OF s), \
started AS ( \
    UPDATE job_stages s SET starts = s.starts + 1, started_at = clock_timestamp(), due_at = clock_timestamp() + make_interval(secs => $5 / 1000.0) \
    FROM locked WHERE s.job_id = locked.job_id \
    RETURNING s.job_id, s.epoch, s.tries, s.starts, s.due_at, s.entered_at, s.dispatched_at) \
SELECT started.job_id, started.epoch, started.tries, started.starts, \
    floor(extract(epoch FROM started.due_at - clock_timestamp()) * 1000)::bigint AS lease_ms, \
    floor(extract(epoch FROM clock_timestamp() - started.entered_at) * 1000)::bigint AS in_stage_ms, \
    clock_timestamp() AS now, started.dispatched_at, j.user_id, coalesce(j.status, 'queued') AS status, j.processing_config::text, j.segments_data::text, j.job_metadata::text, \
    j.video_duration_seconds AS video_seconds, ended.attempts, ended.failed_attempts, \
    sub.token, sub.attempt, sub.state, sub.imported, sub.request_body, sub.source_key, sub.source_url, \
    sub.source_deleted_at, sub.vendor_task_id, sub.vendor_project_id, sub.work_state, sub.answer, sub.claimed_at, sub.send_deadline, \
    sub.settled_at, sub.redos, sub.searches, sub.last_searched_at \
FROM started JOIN video_jobs j ON j.id = started.job_id \
LEFT JOIN LATERAL (SELECT * FROM submissions x WHERE x.job_id = j.id AND x.vendor = $4 \
                   ORDER BY ledger_occupies(x.state) DESC, (x.state = 'duplicate' AND x.work_state <> 'failed') DESC, \
                            x.attempt DESC LIMIT 1) sub ON true \
CROSS JOIN LATERAL (SELECT coalesce(max(x.attempt), 0) AS attempts, \
                           (count(*) FILTER (WHERE x.state = 'failed' AND NOT x.forgiven))::integer AS failed_attempts \
                    FROM submissions x WHERE x.job_id = j.id AND x.vendor = $4) ended";

/// A column that other applications write. PostgreSQL takes JSON that we cannot read (a number beyond all doubles, hundreds of
/// levels): it comes as a text that is no JSON, which the job's own checks refuse, and must not keep its neighbours from loading.
pub(super) fn readable(column: Option<String>) -> Option<Value> {
    column.map(|text| {
        serde_json::from_str(&text)
            .unwrap_or_else(|error| Value::String(format!("unreadable JSON: {error}")))
    })
}

impl Db {
    /// Records a start of each reference that still matches and reads its work; one round trip when all match. The lease begins
    /// anew: waiting in the queue must not use it up.
    ///
    /// # Errors
    /// When the database is away; a start may then be counted.
    pub async fn start(&self, stage: Stage, refs: &[JobRef], lease: Duration) -> DbResult<Loaded> {
        let mut connection = self.connection().await?;
        let (jobs, epochs): (Vec<_>, Vec<_>) = refs.iter().map(|r| (r.id, r.epoch)).unzip();
        // Model: step Load.
        let rows: Vec<Row> = diesel::sql_query(START)
            .bind::<Text, _>(stage.as_str())
            .bind::<Array<SqlUuid>, _>(&jobs)
            .bind::<Array<BigInt>, _>(&epochs)
            .bind::<Nullable<Text>, _>(stage.vendor().map(crate::domain::Vendor::as_str))
            .bind::<BigInt, _>(millis(lease))
            .load(&mut connection)
            .await?;
        let mut loaded = Loaded {
            stale: refs.len() - rows.len(),
            ..Loaded::default()
        };
        if loaded.stale > 0 {
            let current: Vec<EpochRow> =
                diesel::sql_query("SELECT job_id, epoch FROM job_stages WHERE job_id = ANY($1)")
                    .bind::<Array<SqlUuid>, _>(&jobs)
                    .load(&mut connection)
                    .await?;
            loaded.from_the_future = current
                .iter()
                .filter(|row| {
                    refs.iter()
                        .any(|r| r.id == row.job_id && r.epoch > row.epoch)
                })
                .map(|row| row.job_id)
                .collect();
            if current.len() < refs.len() {
                let unknown: Vec<IdRow> = diesel::sql_query(
                    "SELECT u.id FROM unnest($1) u(id) WHERE NOT EXISTS (SELECT FROM video_jobs j WHERE j.id = u.id) \
                     AND NOT EXISTS (SELECT FROM job_events e WHERE e.job_id = u.id)",
                )
                .bind::<Array<SqlUuid>, _>(&jobs)
                .load(&mut connection)
                .await?;
                loaded.unknown = unknown.into_iter().map(|row| row.id).collect();
            }
        }
        for row in rows {
            loaded.items.push(WorkItem {
                job_id: row.job_id,
                epoch: row.epoch,
                tries: row.tries.unsigned_abs(),
                starts: row.starts.unsigned_abs(),
                lease: Duration::from_millis(row.lease_ms.max(0).unsigned_abs()),
                in_stage: Duration::from_millis(row.in_stage_ms.max(0).unsigned_abs()),
                now: row.now,
                dispatched_at: row.dispatched_at,
                user_id: row.user_id,
                status: row.status.parse().ok(),
                processing_config: readable(row.processing_config),
                segments_data: readable(row.segments_data),
                job_metadata: readable(row.job_metadata),
                video_seconds: row.video_seconds.and_then(|n| n.try_into().ok()),
                submission: row.submission.into_submission()?,
                attempts: row.attempts,
                failed_attempts: row.failed_attempts,
            });
        }
        Ok(loaded)
    }
}
