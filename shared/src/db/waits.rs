//! Why jobs wait although nothing stands in their own way: what a vendor last answered, and letting them go on when its cause is
//! mended. The rules stand in the migration `operations`.

use std::collections::HashMap;
use std::time::Duration;

use chrono::{DateTime, Utc};
use diesel::QueryableByName;
use diesel::sql_types::{Array, BigInt, Nullable, Text, Timestamptz, Uuid as SqlUuid};
use diesel_async::RunQueryDsl as _;
use uuid::Uuid;

use super::dispatch::millis;
use super::{Db, DbResult};
use crate::domain::Vendor;

/// What the newest line of a job's trail says about its wait.
#[derive(Clone, Debug, QueryableByName)]
pub struct PutOff {
    #[diesel(sql_type = SqlUuid)]
    job_id: Uuid,
    /// When it was written.
    #[diesel(sql_type = Timestamptz)]
    pub at: DateTime<Utc>,
    /// What the vendor's answer says about the account, a word of `SignalKind`; `rejects` where the job waits for others to show
    /// whose fault it is. None for another error.
    #[diesel(sql_type = Nullable<Text>)]
    pub answer: Option<String>,
    /// The vendor's words, or the error.
    #[diesel(sql_type = Nullable<Text>)]
    pub said: Option<String>,
}

/// What the trail says about one submission whose outcome is unknown.
#[derive(Clone, Debug, Default, QueryableByName)]
pub struct Story {
    /// How often it was sent again under its key.
    #[diesel(sql_type = BigInt)]
    pub replays: i64,
    /// The last error that was written about it.
    #[diesel(sql_type = Nullable<Text>)]
    pub last_word: Option<String>,
}

#[derive(QueryableByName)]
struct Count {
    #[diesel(sql_type = BigInt)]
    count: i64,
}

impl Db {
    /// What the newest line of each of these jobs' trails says about a wait, if no run has followed it: most runs write none. Jobs
    /// that are not put off are not there.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn put_off(&self, jobs: &[Uuid]) -> DbResult<HashMap<Uuid, PutOff>> {
        let mut connection = self.connection().await?;
        let rows: Vec<PutOff> = diesel::sql_query(
            "SELECT j.id AS job_id, e.at, coalesce(e.detail ->> 'answer', CASE WHEN e.detail ->> 'move' = 'held' THEN 'rejects' END) \
                 AS answer, coalesce(e.detail ->> 'said', e.detail ->> 'error') AS said \
             FROM unnest($1) j(id) JOIN job_stages st ON st.job_id = j.id CROSS JOIN LATERAL \
                 (SELECT at, epoch, detail FROM job_events WHERE job_id = j.id ORDER BY id DESC LIMIT 1) e \
             WHERE e.epoch = st.epoch - 1 AND (jsonb_exists_any(e.detail, ARRAY['answer', 'error']) OR e.detail ->> 'move' = 'held')",
        )
        .bind::<Array<SqlUuid>, _>(jobs)
        .load(&mut connection)
        .await?;
        Ok(rows.into_iter().map(|row| (row.job_id, row)).collect())
    }

    /// Jobs created within so long that failed, dead letters or not; counts to `most` and no further.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn failed_lately(&self, within: Duration, most: i64) -> DbResult<i64> {
        let mut connection = self.connection().await?;
        let row: Count = diesel::sql_query(
            "SELECT count(*) AS count FROM (SELECT FROM video_jobs WHERE status = 'failed' \
             AND created_at > timezone('utc', now()) - make_interval(secs => $1 / 1000.0) LIMIT $2) failed",
        )
        .bind::<BigInt, _>(millis(within))
        .bind::<BigInt, _>(most)
        .get_result(&mut connection)
        .await?;
        Ok(row.count)
    }

    /// Makes the jobs due that wait because of what a vendor last answered about the account. Says how many.
    ///
    /// # Errors
    /// When the outcome is not known; doing it again is harmless.
    pub async fn release_jobs(&self, vendor: Vendor, by: &str, reason: &str) -> DbResult<i64> {
        let mut connection = self.connection().await?;
        let row: Count = diesel::sql_query("SELECT release_jobs($1, $2, $3) AS count")
            .bind::<Text, _>(vendor.as_str())
            .bind::<Text, _>(by)
            .bind::<Text, _>(reason)
            .get_result(&mut connection)
            .await?;
        Ok(row.count)
    }

    /// What the trail says about a submission of a job that was claimed then: runs of the stages that send and search.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn story(
        &self,
        job: Uuid,
        vendor: Vendor,
        claimed_at: DateTime<Utc>,
    ) -> DbResult<Story> {
        let mut connection = self.connection().await?;
        // The first line is about the send itself, or about a sender that did not end it.
        Ok(diesel::sql_query(
            "SELECT greatest(count(*) FILTER (WHERE stage = 'lipsync.submit' AND kind IN ('retry', 'later')) - 1, 0) AS replays, \
             (array_agg(detail ->> 'error' ORDER BY id DESC) FILTER (WHERE detail ->> 'error' IS NOT NULL))[1] AS last_word \
             FROM job_events WHERE job_id = $1 AND at >= $2 \
             AND stage IN (CASE $3 WHEN 'sync' THEN 'lipsync.submit' ELSE 'inpaint.submit' END, \
                           CASE $3 WHEN 'sync' THEN 'lipsync.submit' ELSE 'inpaint.reconcile' END)",
        )
        .bind::<SqlUuid, _>(job)
        .bind::<Timestamptz, _>(claimed_at)
        .bind::<Text, _>(vendor.as_str())
        .get_result(&mut connection)
        .await?)
    }
}
