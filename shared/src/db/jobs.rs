//! Jobs as their owners see them: creating and reading. Lists of them are in `job_list`.

use chrono::{DateTime, NaiveDateTime, Utc};
use diesel::dsl::sql;
use diesel::expression::SqlLiteral;
use diesel::prelude::*;
use diesel::sql_types::{Double, Nullable};
use diesel_async::{AsyncConnection as _, AsyncPgConnection, RunQueryDsl};
use serde::Serialize;
use serde_json::Value;
use uuid::Uuid;

use super::notices::insert_target;
use super::schema::{job_events, job_requests, job_stages, submissions, video_jobs};
use super::{Db, DbResult};
use crate::domain::JobStatus;
use crate::domain::intake::NewJob;

/// A job.
#[derive(Clone, Debug, Serialize, Queryable, Selectable)]
#[diesel(table_name = video_jobs, check_for_backend(diesel::pg::Pg))]
pub struct JobRow {
    /// Its id.
    pub id: Uuid,
    /// Its owner.
    pub user_id: Uuid,
    /// As uploaded.
    pub original_filename: String,
    /// As shown.
    pub display_name: Option<String>,
    /// One of the words of [`JobStatus`].
    pub status: String,
    /// Percent.
    pub progress_percentage: Option<i32>,
    /// What is going on.
    pub progress_message: Option<String>,
    /// Where the result lies.
    pub output_url: Option<String>,
    /// UTC.
    pub created_at: Option<NaiveDateTime>,
    /// UTC.
    pub updated_at: Option<NaiveDateTime>,
    /// UTC.
    pub completed_at: Option<NaiveDateTime>,
    /// Why it failed.
    pub error_message: Option<String>,
    /// The class of the failure.
    pub error_code: Option<String>,
}

/// What will happen next to a job.
#[derive(Clone, Debug, Serialize, Queryable, Selectable)]
#[diesel(table_name = job_stages, check_for_backend(diesel::pg::Pg))]
pub struct StageRow {
    /// The stage.
    pub stage: String,
    /// Grows with every dispatch and every move.
    pub epoch: i64,
    /// `waiting`, `dispatched`, `parked` or `dead`.
    pub state: String,
    /// When it will be dispatched (again).
    pub due_at: Option<DateTime<Utc>>,
    /// Tries spent in this stage.
    pub tries: i32,
    /// Why it stands.
    pub reason: Option<String>,
    /// Since when it is in this stage.
    pub entered_at: DateTime<Utc>,
    /// When it was last dispatched.
    pub dispatched_at: Option<DateTime<Utc>>,
    /// When a worker took it up after that; none while it is on its way to one.
    pub started_at: Option<DateTime<Utc>>,
}

/// A line of the ledger.
#[derive(Clone, Debug, Serialize, Queryable, Selectable)]
#[diesel(table_name = submissions, check_for_backend(diesel::pg::Pg))]
pub struct SubmissionRow {
    /// Identifies it.
    pub token: Uuid,
    /// Whom.
    pub vendor: String,
    /// The account there.
    pub account: String,
    /// Its number among those of the (job, vendor).
    pub attempt: i32,
    /// Its ledger state.
    pub state: String,
    /// Taken over, not sent by the fleet.
    pub imported: bool,
    /// The vendor's id of the work.
    pub vendor_task_id: Option<String>,
    /// GhostCut's batch id.
    pub vendor_project_id: Option<String>,
    /// How the work was last seen at the vendor.
    pub work_state: Option<String>,
    /// When the intent was committed.
    pub claimed_at: DateTime<Utc>,
    /// Until when it might be sent.
    pub send_deadline: DateTime<Utc>,
    /// When its state last changed.
    pub settled_at: Option<DateTime<Utc>>,
    /// Successful searches without a find.
    pub searches: i32,
    /// What it was expected to cost.
    #[diesel(select_expression = sql::<Nullable<Double>>("submissions.cost_reserved::float8"))]
    #[diesel(select_expression_type = SqlLiteral<Nullable<Double>>)]
    pub cost_reserved: Option<f64>,
    /// What the vendor charged.
    #[diesel(select_expression = sql::<Nullable<Double>>("submissions.cost_charged::float8"))]
    #[diesel(select_expression_type = SqlLiteral<Nullable<Double>>)]
    pub cost_charged: Option<f64>,
    /// The part that served nobody.
    #[diesel(select_expression = sql::<Nullable<Double>>("submissions.cost_wasted::float8"))]
    #[diesel(select_expression_type = SqlLiteral<Nullable<Double>>)]
    pub cost_wasted: Option<f64>,
}

/// A line of the trail.
#[derive(Clone, Debug, Serialize, Queryable, Selectable)]
#[diesel(table_name = job_events, check_for_backend(diesel::pg::Pg))]
pub struct JobEvent {
    /// Order of the trail.
    pub id: i64,
    /// When.
    pub at: DateTime<Utc>,
    /// What.
    pub kind: String,
    /// Who.
    pub actor: String,
    /// In which stage.
    pub stage: Option<String>,
    /// Under which epoch.
    pub epoch: Option<i64>,
    /// About which submission.
    pub token: Option<Uuid>,
    /// Details.
    pub detail: Value,
    /// Keys written to `job_metadata`.
    pub metadata_changed: Option<Value>,
}

/// What came of creating a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Created {
    /// Stored, with its first stage due.
    New(Uuid),
    /// The same request under the same key was stored before.
    Existing(Uuid),
    /// Another request was stored under this key.
    KeyTaken(Uuid),
}

/// What makes a repeated creation the same.
#[derive(Clone, Debug)]
pub struct RequestKey {
    /// The client's `Idempotency-Key`.
    pub key: String,
    /// SHA-256 of the request.
    pub sha256: [u8; 32],
}

impl Db {
    /// Stores a job and makes its first stage due, in one transaction. `by` put it in, for the trail.
    ///
    /// # Errors
    /// Then nothing is stored.
    pub async fn create_job(
        &self,
        id: Uuid,
        job: &NewJob,
        key: Option<&RequestKey>,
        by: &str,
    ) -> DbResult<Created> {
        let mut connection = self.connection().await?;
        let created = connection
            .transaction(async |connection| {
                if let Some(key) = key
                    && let Some(existing) =
                        claim_request_key(connection, id, job.user_id, key).await?
                {
                    return Ok(existing);
                }
                insert_job(connection, id, job, by).await?;
                Ok::<_, diesel::result::Error>(Created::New(id))
            })
            .await?;
        Ok(created)
    }

    /// What an earlier creation under this key came to, if there was one.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn known_request(
        &self,
        user_id: Uuid,
        key: &RequestKey,
    ) -> DbResult<Option<Created>> {
        let mut connection = self.connection().await?;
        Ok(find_request(&mut connection, user_id, key).await?)
    }

    /// One job.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn job(&self, id: Uuid) -> DbResult<Option<JobRow>> {
        let mut connection = self.connection().await?;
        Ok(video_jobs::table
            .find(id)
            .select(JobRow::as_select())
            .first(&mut connection)
            .await
            .optional()?)
    }

    /// What will happen next to a job; none when it is over.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn job_stage(&self, id: Uuid) -> DbResult<Option<StageRow>> {
        let mut connection = self.connection().await?;
        Ok(job_stages::table
            .find(id)
            .select(StageRow::as_select())
            .first(&mut connection)
            .await
            .optional()?)
    }

    /// A job's lines of the ledger, oldest first.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn job_submissions(&self, id: Uuid) -> DbResult<Vec<SubmissionRow>> {
        let mut connection = self.connection().await?;
        Ok(submissions::table
            .filter(submissions::job_id.eq(id))
            .order((submissions::claimed_at, submissions::token))
            .select(SubmissionRow::as_select())
            .load(&mut connection)
            .await?)
    }

    /// The newest `limit` lines of a job's trail, oldest first.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn job_events(&self, id: Uuid, limit: i64) -> DbResult<Vec<JobEvent>> {
        let mut connection = self.connection().await?;
        let mut events: Vec<JobEvent> = job_events::table
            .filter(job_events::job_id.eq(id))
            .order(job_events::id.desc())
            .limit(limit)
            .select(JobEvent::as_select())
            .load(&mut connection)
            .await?;
        events.reverse();
        Ok(events)
    }

    /// A page of a job's trail, newest first: lines before `before`.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn job_events_before(
        &self,
        id: Uuid,
        before: Option<i64>,
        limit: i64,
    ) -> DbResult<Vec<JobEvent>> {
        let mut connection = self.connection().await?;
        Ok(job_events::table
            .filter(job_events::job_id.eq(id))
            .filter(job_events::id.lt(before.unwrap_or(i64::MAX)))
            .order(job_events::id.desc())
            .limit(limit)
            .select(JobEvent::as_select())
            .load(&mut connection)
            .await?)
    }
}

/// Takes the key for this job, or says which job has it.
async fn claim_request_key(
    connection: &mut AsyncPgConnection,
    id: Uuid,
    user_id: Uuid,
    key: &RequestKey,
) -> QueryResult<Option<Created>> {
    let inserted = diesel::insert_into(job_requests::table)
        .values((
            job_requests::user_id.eq(user_id),
            job_requests::idempotency_key.eq(&key.key),
            job_requests::request_sha256.eq(key.sha256.as_slice()),
            job_requests::job_id.eq(id),
        ))
        .on_conflict_do_nothing()
        .execute(connection)
        .await?;
    if inserted == 1 {
        return Ok(None);
    }
    find_request(connection, user_id, key).await
}

async fn find_request(
    connection: &mut AsyncPgConnection,
    user_id: Uuid,
    key: &RequestKey,
) -> QueryResult<Option<Created>> {
    let found: Option<(Vec<u8>, Uuid)> = job_requests::table
        .find((user_id, &key.key))
        .select((job_requests::request_sha256, job_requests::job_id))
        .first(connection)
        .await
        .optional()?;
    Ok(found.map(|(sha256, job)| {
        if sha256 == key.sha256 {
            Created::Existing(job)
        } else {
            Created::KeyTaken(job)
        }
    }))
}

async fn insert_job(
    connection: &mut AsyncPgConnection,
    id: Uuid,
    job: &NewJob,
    by: &str,
) -> QueryResult<()> {
    let now = Utc::now().naive_utc();
    diesel::insert_into(video_jobs::table)
        .values((
            video_jobs::id.eq(id),
            video_jobs::user_id.eq(job.user_id),
            video_jobs::original_filename.eq(&job.original_filename),
            video_jobs::display_name.eq(&job.display_name),
            video_jobs::status.eq(JobStatus::Queued.as_str()),
            video_jobs::is_pro_job.eq(job.is_pro_job),
            video_jobs::progress_percentage.eq(crate::domain::progress::STARTED),
            video_jobs::processing_config.eq(&job.processing_config),
            video_jobs::segments_data.eq(&job.segments_data),
            video_jobs::job_metadata.eq(&job.job_metadata),
            video_jobs::queued_at.eq(now),
            video_jobs::created_at.eq(now),
            video_jobs::updated_at.eq(now),
        ))
        .execute(connection)
        .await?;
    diesel::insert_into(job_stages::table)
        .values((
            job_stages::job_id.eq(id),
            job_stages::stage.eq(job.first_stage.as_str()),
            job_stages::priority.eq(job.priority.class()),
            job_stages::fairness_key.eq(job.user_id),
        ))
        .execute(connection)
        .await?;
    diesel::insert_into(job_events::table)
        .values((
            job_events::job_id.eq(id),
            job_events::kind.eq("created"),
            job_events::actor.eq(by),
            job_events::stage.eq(job.first_stage.as_str()),
            job_events::detail.eq(serde_json::json!({ "priority": job.priority.class() })),
        ))
        .execute(connection)
        .await?;
    if let Some(target) = &job.notify {
        insert_target(connection, id, target).await?;
    }
    Ok(())
}
