//! What happened lately in numbers: by minute, and what must never have happened. Costs what has happened in that time and not what
//! there is. Ends that a retry can undo are counted from the trail, which nobody changes: a job that is put back on its way was failed
//! all the same.

use chrono::{DateTime, Utc};
use diesel::QueryableByName;
use diesel::sql_types::{
    Array, BigInt, Double, Integer, Nullable, Text, Timestamptz, Uuid as SqlUuid,
};
use diesel_async::RunQueryDsl as _;
use uuid::Uuid;

use super::findings::{IS_ABOUT, PAID_TWICE};
use super::{Db, DbResult};

/// A minute.
#[derive(Clone, Debug, PartialEq, QueryableByName)]
pub struct MinutePoint {
    /// Its start.
    #[diesel(sql_type = Timestamptz)]
    pub at: DateTime<Utc>,
    /// Jobs that were completed in it.
    #[diesel(sql_type = BigInt)]
    pub finished: i64,
    /// Jobs that failed in it, whatever became of them since.
    #[diesel(sql_type = BigInt)]
    pub failed: i64,
    /// Jobs that were canceled in it, whatever became of them since.
    #[diesel(sql_type = BigInt)]
    pub canceled: i64,
    /// Submissions to Sync.so that were opened in it.
    #[diesel(sql_type = BigInt)]
    pub sync: i64,
    /// Submissions to GhostCut that were opened in it.
    #[diesel(sql_type = BigInt)]
    pub ghostcut: i64,
    /// From creation to end of the jobs completed in it, in seconds: half took less.
    #[diesel(sql_type = Nullable<Double>)]
    pub p50: Option<f64>,
    /// Nineteen of twenty took less.
    #[diesel(sql_type = Nullable<Double>)]
    pub p95: Option<f64>,
}

/// Submissions that were paid for twice.
#[derive(Clone, Debug, QueryableByName)]
pub struct DuplicateCount {
    /// The vendor.
    #[diesel(sql_type = Text)]
    pub vendor: String,
    /// How many.
    #[diesel(sql_type = BigInt)]
    pub submissions: i64,
    /// Those of them of which nobody has said that they are dealt with.
    #[diesel(sql_type = BigInt)]
    pub open: i64,
    /// The jobs of these, ten at most.
    #[diesel(sql_type = Nullable<Array<SqlUuid>>)]
    pub jobs: Option<Vec<Uuid>>,
}

/// The bound stands in each condition as it is: PostgreSQL knows then how little it asks for. Nobody restarts a completed job, so its
/// row is as good as the trail. A run that came to a failure has not always ended its job; `settle` writes where it did.
const SERIES: &str = "\
WITH completed AS ( \
    SELECT date_trunc('minute', completed_at) AT TIME ZONE 'UTC' AS at, count(*) AS finished, \
        percentile_cont(ARRAY[0.5, 0.95]) WITHIN GROUP (ORDER BY extract(epoch FROM completed_at - created_at)::float8) AS seconds \
    FROM video_jobs WHERE status = 'completed' \
    AND completed_at >= timezone('utc', date_trunc('minute', now()) - make_interval(mins => $1 - 1)) GROUP BY 1), \
failed AS ( \
    SELECT date_trunc('minute', e.at) AS at, count(*) AS failed FROM job_events e \
    WHERE e.detail ->> 'status' = 'failed' AND e.at >= date_trunc('minute', now()) - make_interval(mins => $1 - 1) GROUP BY 1), \
canceled AS ( \
    SELECT date_trunc('minute', at) AS at, count(*) AS canceled FROM job_events \
    WHERE kind = 'canceled' AND at >= date_trunc('minute', now()) - make_interval(mins => $1 - 1) \
    AND detail ->> 'was' IS DISTINCT FROM 'canceled' GROUP BY 1), \
sent AS ( \
    SELECT s.at, count(*) FILTER (WHERE v.vendor = 'sync') AS sync, count(*) FILTER (WHERE v.vendor = 'ghostcut') AS ghostcut \
    FROM vendors v, LATERAL ( \
        SELECT date_trunc('minute', claimed_at) AS at FROM submissions \
        WHERE vendor = v.vendor AND account = v.account \
        AND claimed_at >= date_trunc('minute', now()) - make_interval(mins => $1 - 1)) s GROUP BY 1) \
SELECT m.at, coalesce(e.finished, 0) AS finished, coalesce(f.failed, 0) AS failed, coalesce(c.canceled, 0) AS canceled, \
    coalesce(s.sync, 0) AS sync, coalesce(s.ghostcut, 0) AS ghostcut, e.seconds[1] AS p50, e.seconds[2] AS p95 \
FROM generate_series(date_trunc('minute', now()) - make_interval(mins => $1 - 1), date_trunc('minute', now()), \
    interval '1 minute') m(at) \
LEFT JOIN completed e ON e.at = m.at LEFT JOIN failed f ON f.at = m.at LEFT JOIN canceled c ON c.at = m.at \
LEFT JOIN sent s ON s.at = m.at ORDER BY m.at";

impl Db {
    /// The last `minutes` minutes, the one that is going on included; oldest first.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn series(&self, minutes: i32) -> DbResult<Vec<MinutePoint>> {
        let mut connection = self.connection().await?;
        Ok(diesel::sql_query(SERIES)
            .bind::<Integer, _>(minutes)
            .load(&mut connection)
            .await?)
    }

    /// Submissions that were ever paid for twice, of vendors that have some: those that are duplicates in the ledger, and those of
    /// which the trail says that they were, or that they came to a second work.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn duplicates_ever(&self) -> DbResult<Vec<DuplicateCount>> {
        let mut connection = self.connection().await?;
        Ok(diesel::sql_query(format!(
            "SELECT vendor, count(*) AS submissions, count(*) FILTER (WHERE open) AS open, \
                 (array_agg(DISTINCT job_id) FILTER (WHERE open))[1:10] AS jobs \
             FROM (SELECT token, vendor, job_id, \
                 bool_or(NOT EXISTS (SELECT FROM operator_events o WHERE {IS_ABOUT})) AS open \
                 FROM ({PAID_TWICE}) d GROUP BY 1, 2, 3) found GROUP BY vendor"
        ))
        .load(&mut connection)
        .await?)
    }
}
