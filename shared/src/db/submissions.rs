//! Reading and marking the ledger outside of a settle: searches, sweeps, counts.

use chrono::{DateTime, Utc};
use diesel::sql_types::{BigInt, Bool, Double, Nullable, Text, Timestamptz, Uuid as SqlUuid};
use diesel_async::RunQueryDsl as _;
use uuid::Uuid;

use super::dispatch::millis;
use super::{Db, DbResult};
use crate::domain::Vendor;
use crate::domain::search::Known;

/// A submission that nobody's stage follows: its job is gone, over, or on another way.
#[derive(Clone, Debug, diesel::QueryableByName)]
pub struct AliveSubmission {
    /// The submission.
    #[diesel(sql_type = SqlUuid)]
    pub token: Uuid,
    /// The job it was for; may be gone.
    #[diesel(sql_type = SqlUuid)]
    pub job_id: Uuid,
    /// `accepted`, `redoing` or `duplicate`.
    #[diesel(sql_type = Text)]
    pub state: String,
    /// The vendor's id of the work.
    #[diesel(sql_type = Text)]
    pub task_id: String,
    /// How often the vendor was asked to run it again.
    #[diesel(sql_type = diesel::sql_types::Integer)]
    pub redos: i32,
    /// Since when it is in its state, in seconds.
    #[diesel(sql_type = Double)]
    pub settled_seconds: f64,
    /// Where in the pages of the sweep this row stands.
    #[diesel(sql_type = Timestamptz)]
    pub claimed_at: DateTime<Utc>,
}

#[derive(diesel::QueryableByName)]
struct KnownRow {
    #[diesel(sql_type = Text)]
    task_id: String,
    #[diesel(sql_type = SqlUuid)]
    token: Uuid,
    #[diesel(sql_type = Timestamptz)]
    claimed_at: DateTime<Utc>,
}

/// Counts over the alive part of the ledger, per vendor.
#[derive(Clone, Debug, serde::Serialize, diesel::QueryableByName, utoipa::ToSchema)]
pub struct LedgerGauge {
    /// The vendor.
    #[diesel(sql_type = Text)]
    pub vendor: String,
    /// Submissions from claim to final state.
    #[diesel(sql_type = BigInt)]
    pub in_flight: i64,
    /// Those whose outcome is unknown, and that may need a person.
    #[diesel(sql_type = BigInt)]
    pub unknown: i64,
    /// Those that the vendor refused for now, too many at once, and that are sent again under their key: nobody has to decide.
    #[diesel(sql_type = BigInt)]
    pub refused: i64,
    /// Age of the oldest of these, in seconds; 0 when there is none.
    #[diesel(sql_type = Double)]
    pub oldest_unknown_seconds: f64,
}

/// Jobs by stage and state.
#[derive(Clone, Debug, diesel::QueryableByName)]
pub struct BacklogGauge {
    /// The stage.
    #[diesel(sql_type = Text)]
    pub stage: String,
    /// The state of the stage row.
    #[diesel(sql_type = Text)]
    pub state: String,
    /// How many.
    #[diesel(sql_type = BigInt)]
    pub jobs: i64,
    /// Those of them that are due.
    #[diesel(sql_type = BigInt)]
    pub due: i64,
    /// How long the oldest due one waits, in seconds; 0 when none is due.
    #[diesel(sql_type = Double)]
    pub oldest_due_seconds: f64,
    /// Those that have failed at least twice in a row in this stage and are tried again.
    #[diesel(sql_type = BigInt)]
    pub failing: i64,
}

/// Open dead letters by stage and reason.
#[derive(Clone, Debug, diesel::QueryableByName)]
pub struct DeadLetterGauge {
    /// The stage; `unknown` for a message that came from elsewhere.
    #[diesel(sql_type = Text)]
    pub stage: String,
    /// Why.
    #[diesel(sql_type = Text)]
    pub reason: String,
    /// How many.
    #[diesel(sql_type = BigInt)]
    pub letters: i64,
}

#[derive(diesel::QueryableByName)]
struct Shares {
    #[diesel(sql_type = Bool)]
    shares: bool,
}

#[derive(diesel::QueryableByName)]
struct Deleted {
    #[diesel(sql_type = Nullable<Timestamptz>)]
    source_deleted_at: Option<DateTime<Utc>>,
}

impl Db {
    /// Records that a search ended without an error and without a find.
    ///
    /// # Errors
    /// Then the search does not count and is made again.
    pub async fn record_search(&self, token: Uuid) -> DbResult<()> {
        let mut connection = self.connection().await?;
        diesel::sql_query(
            "UPDATE submissions SET searches = searches + 1, last_searched_at = clock_timestamp() \
             WHERE token = $1 AND state = 'unknown'",
        )
        .bind::<SqlUuid, _>(token)
        .execute(&mut connection)
        .await?;
        Ok(())
    }

    /// Records that a search was tried and failed: it does not count as one, and others have their turn before it is tried again.
    ///
    /// # Errors
    /// Then it is tried again first.
    pub async fn record_failed_search(&self, token: Uuid) -> DbResult<()> {
        let mut connection = self.connection().await?;
        diesel::sql_query(
            "UPDATE submissions SET last_searched_at = clock_timestamp() WHERE token = $1 AND state = 'unknown'",
        )
        .bind::<SqlUuid, _>(token)
        .execute(&mut connection)
        .await?;
        Ok(())
    }

    /// Records that the submission's own source object was deleted; the first time stays.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn record_source_deleted(&self, token: Uuid) -> DbResult<Option<DateTime<Utc>>> {
        let mut connection = self.connection().await?;
        let row: Deleted = diesel::sql_query(
            "UPDATE submissions SET source_deleted_at = coalesce(source_deleted_at, clock_timestamp()) \
             WHERE token = $1 RETURNING source_deleted_at",
        )
        .bind::<SqlUuid, _>(token)
        .get_result(&mut connection)
        .await?;
        Ok(row.source_deleted_at)
    }

    /// The same because an operator decides, with a line in the job's trail.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn record_source_deleted_by(
        &self,
        token: Uuid,
        by: &str,
        reason: &str,
    ) -> DbResult<Option<DateTime<Utc>>> {
        let mut connection = self.connection().await?;
        let row: Deleted = diesel::sql_query(
            "WITH deleted AS (UPDATE submissions SET source_deleted_at = coalesce(source_deleted_at, clock_timestamp()) \
                 WHERE token = $1 RETURNING job_id, source_deleted_at), \
             told AS (INSERT INTO job_events (job_id, kind, actor, token, detail) SELECT job_id, 'operator', $2, $1, \
                 jsonb_build_object('action', 'source_deleted', 'reason', $3::text) FROM deleted) \
             SELECT source_deleted_at FROM deleted",
        )
        .bind::<SqlUuid, _>(token)
        .bind::<Text, _>(by)
        .bind::<Text, _>(reason)
        .get_result(&mut connection)
        .await?;
        Ok(row.source_deleted_at)
    }

    /// Works of the account that the vendor is known to have, claimed in the window under the same sub-user (`uid`) as the
    /// submission `like`: the positive controls of a search for it. Those whose bytes are gone prove nothing.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn known_works(
        &self,
        vendor: Vendor,
        account: &str,
        from: DateTime<Utc>,
        to: DateTime<Utc>,
        like: Uuid,
    ) -> DbResult<Vec<Known>> {
        let mut connection = self.connection().await?;
        let rows: Vec<KnownRow> = diesel::sql_query(
            "SELECT s.vendor_task_id AS task_id, s.token, s.claimed_at FROM submissions s, submissions own \
             WHERE own.token = $5 AND s.vendor = $1 AND s.account = $2 AND s.claimed_at >= $3 AND s.claimed_at < $4 \
             AND s.vendor_task_id IS NOT NULL AND CASE WHEN s.imported OR s.request_body = '' OR own.request_body = '' THEN false ELSE \
                 convert_from(s.request_body, 'UTF8')::jsonb -> 'uid' \
                 IS NOT DISTINCT FROM convert_from(own.request_body, 'UTF8')::jsonb -> 'uid' END \
             ORDER BY s.claimed_at DESC LIMIT 1000",
        )
        .bind::<Text, _>(vendor.as_str())
        .bind::<Text, _>(account)
        .bind::<Timestamptz, _>(from)
        .bind::<Timestamptz, _>(to)
        .bind::<SqlUuid, _>(like)
        .load(&mut connection)
        .await?;
        Ok(rows
            .into_iter()
            .map(|row| Known {
                task_id: row.task_id,
                token: row.token,
                claimed_at: row.claimed_at,
            })
            .collect())
    }

    /// Whether another submission was given the same input URL, so that the URL does not tell them apart.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn shares_source(&self, token: Uuid) -> DbResult<bool> {
        let mut connection = self.connection().await?;
        let rows: Vec<Shares> = diesel::sql_query(
            "SELECT true AS shares FROM submissions own JOIN submissions o \
             ON o.source_url = own.source_url AND o.vendor = own.vendor AND o.token <> own.token \
             WHERE own.token = $1 LIMIT 1",
        )
        .bind::<SqlUuid, _>(token)
        .load(&mut connection)
        .await?;
        Ok(rows.iter().any(|row| row.shares))
    }

    /// Claims that were not settled by `grace_ms` after their deadline become unknown. Says how many.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn expire_claims(&self, grace: std::time::Duration) -> DbResult<usize> {
        let mut connection = self.connection().await?;
        let rows = diesel::sql_query(
            "UPDATE submissions SET state = 'unknown', settled_at = clock_timestamp() \
             WHERE state = 'claimed' AND send_deadline < clock_timestamp() - make_interval(secs => $1 / 1000.0)",
        )
        .bind::<BigInt, _>(millis(grace))
        .execute(&mut connection)
        .await?;
        Ok(rows)
    }

    /// A page of submissions at the vendor that no stage follows, oldest first, behind the one `after` names by its
    /// `claimed_at` and token. A parked stage waits for a person's decision,
    /// which a swept failure would pre-empt.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn unfollowed(
        &self,
        vendor: Vendor,
        account: &str,
        after: Option<(DateTime<Utc>, Uuid)>,
        limit: i64,
    ) -> DbResult<Vec<AliveSubmission>> {
        let mut connection = self.connection().await?;
        let rows = diesel::sql_query(
            "SELECT token, job_id, state, vendor_task_id AS task_id, claimed_at, redos, \
                 coalesce(extract(epoch FROM clock_timestamp() - settled_at), 0)::float8 AS settled_seconds FROM submissions s \
             WHERE vendor = $1 AND account = $2 AND ($3 IS NULL OR (claimed_at, token) > ($3, $5)) \
             AND (state IN ('accepted', 'redoing') AND NOT EXISTS ( \
                      SELECT FROM job_stages st WHERE st.job_id = s.job_id AND st.state <> 'dead' \
                      AND starts_with(st.stage, CASE s.vendor WHEN 'sync' THEN 'lipsync.' ELSE 'inpaint.' END)) \
                  OR state = 'duplicate' AND work_state = 'pending') \
             ORDER BY claimed_at, token LIMIT $4",
        )
        .bind::<Text, _>(vendor.as_str())
        .bind::<Text, _>(account)
        .bind::<Nullable<Timestamptz>, _>(after.map(|(claimed_at, _)| claimed_at))
        .bind::<BigInt, _>(limit)
        .bind::<Nullable<SqlUuid>, _>(after.map(|(_, token)| token))
        .load(&mut connection)
        .await?;
        Ok(rows)
    }

    /// Notes how a duplicate ended at the vendor.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn record_duplicate_end(
        &self,
        token: Uuid,
        succeeded: bool,
        charged: Option<f64>,
    ) -> DbResult<()> {
        let mut connection = self.connection().await?;
        diesel::sql_query(
            "UPDATE submissions SET work_state = CASE WHEN $2 THEN 'succeeded' ELSE 'failed' END, \
             cost_charged = coalesce($3::numeric, cost_charged), cost_wasted = coalesce($3::numeric, cost_wasted) \
             WHERE token = $1 AND state = 'duplicate'",
        )
        .bind::<SqlUuid, _>(token)
        .bind::<Bool, _>(succeeded)
        .bind::<Nullable<Double>, _>(charged)
        .execute(&mut connection)
        .await?;
        Ok(())
    }

    /// The alive part of the ledger in numbers.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn ledger_gauges(&self) -> DbResult<Vec<LedgerGauge>> {
        let mut connection = self.connection().await?;
        let rows = diesel::sql_query(
            "SELECT s.vendor, count(*) AS in_flight, count(*) FILTER (WHERE s.state = 'unknown' AND st.job_id IS NULL) AS unknown, \
             count(st.job_id) AS refused, \
             coalesce(extract(epoch FROM now() - min(claimed_at) FILTER (WHERE s.state = 'unknown' AND st.job_id IS NULL)), 0)::float8 \
                 AS oldest_unknown_seconds \
             FROM submissions s LEFT JOIN job_stages st ON st.job_id = s.job_id AND s.state = 'unknown' AND s.vendor = 'sync' \
                 AND s.answer ->> 'class' = 'throttled' AND st.stage = 'lipsync.submit' AND st.state IN ('waiting', 'dispatched') \
             WHERE s.state IN ('claimed', 'unknown', 'accepted', 'redoing') GROUP BY s.vendor",
        )
        .load(&mut connection)
        .await?;
        Ok(rows)
    }

    /// Unfinished jobs by stage and state.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn backlog_gauges(&self) -> DbResult<Vec<BacklogGauge>> {
        let mut connection = self.connection().await?;
        let rows = diesel::sql_query(
            "SELECT stage, state, count(*) AS jobs, count(*) FILTER (WHERE due_at <= now()) AS due, \
             count(*) FILTER (WHERE tries >= 2 AND due_at IS NOT NULL) AS failing, \
             greatest(coalesce(extract(epoch FROM now() - min(due_at)), 0), 0)::float8 AS oldest_due_seconds \
             FROM job_stages GROUP BY stage, state",
        )
        .load(&mut connection)
        .await?;
        Ok(rows)
    }

    /// Dead letters that nobody has resolved.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn dead_letter_gauges(&self) -> DbResult<Vec<DeadLetterGauge>> {
        let mut connection = self.connection().await?;
        let rows = diesel::sql_query(
            "SELECT coalesce(stage, 'unknown') AS stage, reason, count(*) AS letters FROM dead_letters \
             WHERE resolved_at IS NULL GROUP BY 1, 2",
        )
        .load(&mut connection)
        .await?;
        Ok(rows)
    }
}
