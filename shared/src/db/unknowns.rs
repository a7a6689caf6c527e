//! Submissions whose outcome is unknown, with everything that is known about them, for a person and for the sweep that searches
//! for those nobody else searches for.

use std::time::Duration;

use chrono::{DateTime, Utc};
use diesel::QueryableByName;
use diesel::sql_types::{
    BigInt, Double, Integer, Jsonb, Nullable, Text, Timestamptz, Uuid as SqlUuid,
};
use diesel_async::RunQueryDsl as _;
use serde::Serialize;
use serde_json::Value;
use uuid::Uuid;

use super::dispatch::millis;
use super::{Db, DbResult};
use crate::domain::Vendor;

/// Which unknown outcomes to list, oldest first.
#[derive(Clone, Copy, Debug, Default)]
pub struct UnknownFilter {
    /// Only at this vendor.
    pub vendor: Option<Vendor>,
    /// Only those claimed so long ago.
    pub older_than: Duration,
    /// Only this submission, whatever its state.
    pub token: Option<Uuid>,
    /// Only the submissions of this job, whatever their states.
    pub job: Option<Uuid>,
    /// Only those after this (time of the claim, token), the last of the page before.
    pub after: Option<(DateTime<Utc>, Uuid)>,
    /// At most this many.
    pub limit: Option<i64>,
}

/// A submission and where its job stands.
#[derive(Clone, Debug, Serialize, QueryableByName, utoipa::ToSchema)]
pub struct UnknownRow {
    /// The submission.
    #[diesel(sql_type = SqlUuid)]
    pub token: Uuid,
    /// Whom it was to pay.
    #[diesel(sql_type = Text)]
    pub vendor: String,
    /// Our account there.
    #[diesel(sql_type = Text)]
    pub account: String,
    /// The job.
    #[diesel(sql_type = SqlUuid)]
    pub job_id: Uuid,
    /// Its number among those of the job and vendor.
    #[diesel(sql_type = Integer)]
    pub attempt: i32,
    /// Its ledger state.
    #[diesel(sql_type = Text)]
    pub state: String,
    /// The vendor's id of the work, if it is known.
    #[diesel(sql_type = Nullable<Text>)]
    pub task_id: Option<String>,
    /// Bytes of the request.
    #[diesel(sql_type = BigInt)]
    pub request_bytes: i64,
    /// SHA-256 of the request, in hexadecimal digits.
    #[diesel(sql_type = Text)]
    pub request_sha256: String,
    /// When the intent was committed.
    #[diesel(sql_type = Timestamptz)]
    pub claimed_at: DateTime<Utc>,
    /// Until when it might be sent.
    #[diesel(sql_type = Timestamptz)]
    pub send_deadline: DateTime<Utc>,
    /// When its state last changed.
    #[diesel(sql_type = Nullable<Timestamptz>)]
    pub settled_at: Option<DateTime<Utc>>,
    /// What was seen instead of an answer.
    #[diesel(sql_type = Jsonb)]
    pub answer: Value,
    /// Searches that worked and did not find it.
    #[diesel(sql_type = Integer)]
    pub searches: i32,
    /// The last one of them.
    #[diesel(sql_type = Nullable<Timestamptz>)]
    pub last_searched_at: Option<DateTime<Utc>>,
    /// The object made for it alone.
    #[diesel(sql_type = Nullable<Text>)]
    pub source_key: Option<String>,
    /// When that was deleted: a request that arrives later can only fail.
    #[diesel(sql_type = Nullable<Timestamptz>)]
    pub source_deleted_at: Option<DateTime<Utc>>,
    /// What it was expected to cost.
    #[diesel(sql_type = Nullable<Double>)]
    pub cost_reserved: Option<f64>,
    /// What the vendor charged.
    #[diesel(sql_type = Nullable<Double>)]
    pub cost_charged: Option<f64>,
    /// The part that served nobody.
    #[diesel(sql_type = Nullable<Double>)]
    pub cost_wasted: Option<f64>,
    /// The job's name, for people; none when the job is gone.
    #[diesel(sql_type = Nullable<Text>)]
    pub job_name: Option<String>,
    /// The job's owner; none when the job is gone.
    #[diesel(sql_type = Nullable<SqlUuid>)]
    pub user_id: Option<Uuid>,
    /// The job's status; none when the job is gone.
    #[diesel(sql_type = Nullable<Text>)]
    pub job_status: Option<String>,
    /// The stage the job is in.
    #[diesel(sql_type = Nullable<Text>)]
    pub stage: Option<String>,
    /// `waiting`, `dispatched`, `parked` or `dead`.
    #[diesel(sql_type = Nullable<Text>)]
    pub stage_state: Option<String>,
    /// Why it stands.
    #[diesel(sql_type = Nullable<Text>)]
    pub stage_reason: Option<String>,
    /// When it is looked at next.
    #[diesel(sql_type = Nullable<Timestamptz>)]
    pub due_at: Option<DateTime<Utc>>,
    /// The vendor refused it for now, too many at once, and at `due_at` it is sent again under its key: nobody has to decide.
    #[diesel(sql_type = diesel::sql_types::Bool)]
    pub refused_for_now: bool,
    /// Somebody may have to decide: its outcome is unknown, or it counts as absent although the vendor called back about a work of
    /// it that could not be looked at.
    #[diesel(sql_type = diesel::sql_types::Bool)]
    pub undecided: bool,
    /// The database's clock.
    #[diesel(sql_type = Timestamptz)]
    pub now: DateTime<Utc>,
}

/// A callback that named a submission.
#[derive(Clone, Debug, Serialize, QueryableByName, utoipa::ToSchema)]
pub struct CallbackSeen {
    /// When it came.
    #[diesel(sql_type = Timestamptz)]
    pub received_at: DateTime<Utc>,
    /// What was made of it.
    #[diesel(sql_type = Nullable<Text>)]
    pub outcome: Option<String>,
}

/// An unknown outcome that no stage clears up.
#[derive(Clone, Debug, QueryableByName)]
pub struct LostUnknown {
    /// The submission.
    #[diesel(sql_type = SqlUuid)]
    pub token: Uuid,
    /// The job it was for.
    #[diesel(sql_type = SqlUuid)]
    pub job_id: Uuid,
    /// When the intent was committed.
    #[diesel(sql_type = Timestamptz)]
    pub claimed_at: DateTime<Utc>,
    /// The database's clock.
    #[diesel(sql_type = Timestamptz)]
    pub now: DateTime<Utc>,
}

/// Jobs that stand, by state and reason.
#[derive(Clone, Debug, Serialize, QueryableByName, utoipa::ToSchema)]
pub struct Standing {
    /// `parked` or `dead`.
    #[diesel(sql_type = Text)]
    pub state: String,
    /// Why.
    #[diesel(sql_type = Text)]
    pub reason: String,
    /// How many.
    #[diesel(sql_type = BigInt)]
    pub jobs: i64,
    /// How long the first of them stands in its stage, in seconds.
    #[diesel(sql_type = Double)]
    pub oldest_seconds: f64,
}

impl Db {
    /// Submissions about which somebody may have to decide, oldest first, or those that the filter names.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn unknowns(&self, filter: UnknownFilter) -> DbResult<Vec<UnknownRow>> {
        let mut connection = self.connection().await?;
        // In the text, so that each is answered by its own index.
        let chosen = match (filter.token, filter.job) {
            (Some(_), _) => "s.token = $1",
            (None, Some(_)) => "s.job_id = $1",
            (None, None) => {
                "$1::uuid IS NULL AND s.token IN (SELECT u.token FROM submissions u WHERE u.state = 'unknown' \
                 UNION ALL SELECT a.token FROM callbacks k JOIN submissions a ON a.token = k.token \
                 WHERE k.outcome = 'failed' AND a.state = 'absent')"
            }
        };
        let query = format!(
            "SELECT s.token, s.vendor, s.account, s.job_id, s.attempt, s.state, s.vendor_task_id AS task_id, \
             octet_length(s.request_body)::bigint AS request_bytes, encode(s.request_sha256, 'hex') AS request_sha256, \
             s.claimed_at, s.send_deadline, s.settled_at, s.answer, s.searches, s.last_searched_at, s.source_key, \
             s.source_deleted_at, s.cost_reserved::float8, s.cost_charged::float8, s.cost_wasted::float8, \
             coalesce(j.display_name, j.original_filename) AS job_name, j.user_id, j.status AS job_status, st.stage, st.state AS stage_state, st.reason AS stage_reason, \
             st.due_at, coalesce(s.state = 'unknown' AND s.vendor = 'sync' AND s.answer ->> 'class' = 'throttled' \
                 AND st.stage = 'lipsync.submit' AND st.due_at IS NOT NULL, false) AS refused_for_now, \
             s.state = 'unknown' OR s.state = 'absent' AND EXISTS (SELECT FROM callbacks k WHERE k.token = s.token \
                 AND k.outcome = 'failed') AS undecided, clock_timestamp() AS now \
             FROM submissions s LEFT JOIN video_jobs j ON j.id = s.job_id LEFT JOIN job_stages st ON st.job_id = s.job_id \
             WHERE {chosen} AND ($2 IS NULL OR s.vendor = $2) \
             AND s.claimed_at <= clock_timestamp() - make_interval(secs => $3 / 1000.0) \
             AND ($4 IS NULL OR (s.claimed_at, s.token) > ($4, $5)) ORDER BY s.claimed_at, s.token LIMIT $6"
        );
        let rows = diesel::sql_query(query)
            .bind::<Nullable<SqlUuid>, _>(filter.token.or(filter.job))
            .bind::<Nullable<Text>, _>(filter.vendor.map(Vendor::as_str))
            .bind::<BigInt, _>(millis(filter.older_than))
            .bind::<Nullable<Timestamptz>, _>(filter.after.map(|(at, _)| at))
            .bind::<Nullable<SqlUuid>, _>(filter.after.map(|(_, token)| token))
            .bind::<Nullable<BigInt>, _>(filter.limit)
            .load(&mut connection)
            .await?;
        Ok(rows)
    }

    /// The callbacks that named a submission, oldest first.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn callbacks_seen(&self, token: Uuid) -> DbResult<Vec<CallbackSeen>> {
        let mut connection = self.connection().await?;
        Ok(diesel::sql_query(
            "SELECT received_at, outcome FROM callbacks WHERE token = $1 ORDER BY received_at LIMIT 100",
        )
        .bind::<SqlUuid, _>(token)
        .load(&mut connection)
        .await?)
    }

    /// Unknown outcomes whose job is gone, over, or stands, and that were not searched for within `pause`; oldest first.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn lost_unknowns(
        &self,
        vendor: Vendor,
        account: &str,
        pause: Duration,
        limit: i64,
    ) -> DbResult<Vec<LostUnknown>> {
        let mut connection = self.connection().await?;
        Ok(diesel::sql_query(
            "SELECT token, job_id, claimed_at, clock_timestamp() AS now FROM submissions s \
             WHERE vendor = $1 AND account = $2 AND state = 'unknown' AND send_deadline < clock_timestamp() \
             AND coalesce(last_searched_at, settled_at, send_deadline) < clock_timestamp() - make_interval(secs => $3 / 1000.0) \
             AND NOT EXISTS (SELECT FROM job_stages st WHERE st.job_id = s.job_id AND st.state IN ('waiting', 'dispatched') \
                             AND starts_with(st.stage, CASE s.vendor WHEN 'sync' THEN 'lipsync.' ELSE 'inpaint.' END)) \
             ORDER BY coalesce(last_searched_at, claimed_at) LIMIT $4",
        )
        .bind::<Text, _>(vendor.as_str())
        .bind::<Text, _>(account)
        .bind::<BigInt, _>(millis(pause))
        .bind::<BigInt, _>(limit)
        .load(&mut connection)
        .await?)
    }

    /// Jobs that stand, by state and reason.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn standing_jobs(&self) -> DbResult<Vec<Standing>> {
        let mut connection = self.connection().await?;
        Ok(diesel::sql_query(
            "SELECT state, coalesce(reason, 'unknown') AS reason, count(*) AS jobs, \
             extract(epoch FROM clock_timestamp() - min(entered_at))::float8 AS oldest_seconds \
             FROM job_stages WHERE state IN ('parked', 'dead') GROUP BY 1, 2 ORDER BY 1 DESC, 2",
        )
        .load(&mut connection)
        .await?)
    }
}
