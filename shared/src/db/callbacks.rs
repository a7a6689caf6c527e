//! What vendors called back with: stored once before it is answered, picked up by one producer at a time.
//!
//! A callback decides nothing here: the processing asks the vendor, and the ledger is written by `settle`.

use std::time::Duration;

use chrono::{DateTime, Utc};
use diesel::sql_types::{
    BigInt, Binary, Bool, Double, Integer, Nullable, Text, Timestamptz, Uuid as SqlUuid,
};
use diesel_async::RunQueryDsl as _;
use uuid::Uuid;

use super::dispatch::millis;
use super::{Db, DbResult};
use crate::domain::{LedgerState, Stage, Vendor};

/// A callback that waits to be processed.
#[derive(Clone, Debug)]
pub struct DueCallback {
    /// Its row.
    pub id: i64,
    /// Who called.
    pub vendor: Vendor,
    /// The token in the path that was called.
    pub token: Uuid,
    /// The raw body; its signature was right.
    pub body: Vec<u8>,
    /// How often it was picked up, this time included.
    pub tries: u32,
    /// The submission of that token, if the ledger has it.
    pub submission: Option<CalledBack>,
}

/// The submission a callback is about, as the ledger has it.
#[derive(Clone, Debug)]
pub struct CalledBack {
    /// Its job; may be gone.
    pub job: Uuid,
    /// Its state.
    pub state: LedgerState,
    /// The vendor's id of its work, if known.
    pub task_id: Option<String>,
}

/// What came of [`Db::hint_poll`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hinted {
    /// The job is due.
    Due,
    /// A poll is under way, which may have asked too early: try again when it has ended.
    Running,
    /// The job is not there to be polled.
    NotPolling,
}

#[derive(diesel::QueryableByName)]
struct Row {
    #[diesel(sql_type = BigInt)]
    id: i64,
    #[diesel(sql_type = Text)]
    vendor: String,
    #[diesel(sql_type = SqlUuid)]
    token: Uuid,
    #[diesel(sql_type = Binary)]
    body: Vec<u8>,
    #[diesel(sql_type = Integer)]
    tries: i32,
    #[diesel(sql_type = Nullable<SqlUuid>)]
    job_id: Option<Uuid>,
    #[diesel(sql_type = Nullable<Text>)]
    state: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    task_id: Option<String>,
}

#[derive(diesel::QueryableByName)]
struct Missed {
    #[diesel(sql_type = Bool)]
    running: bool,
}

#[derive(diesel::QueryableByName)]
struct Finished {
    #[diesel(sql_type = Double)]
    seconds: f64,
}

impl Db {
    /// Stores a callback. False: it was stored before. One for a token that the ledger does not have is kept too, but the
    /// same body only once, under whatever tokens it comes.
    ///
    /// # Errors
    /// Then the vendor must not be told that it was taken.
    pub async fn store_callback(&self, vendor: Vendor, token: Uuid, body: &[u8]) -> DbResult<bool> {
        // Model: step StoreCallback.
        let mut connection = self.connection().await?;
        let stored = diesel::sql_query(
            "INSERT INTO callbacks (vendor, token, job_id, body) \
             SELECT $1, $2, s.job_id, $3 \
             FROM (SELECT) one LEFT JOIN submissions s ON s.token = $2 AND s.vendor = $1 \
             WHERE s.token IS NOT NULL OR NOT EXISTS ( \
                 SELECT FROM callbacks c WHERE c.vendor = $1 AND c.body_sha256 = sha256($3)) \
             ON CONFLICT DO NOTHING",
        )
        .bind::<Text, _>(vendor.as_str())
        .bind::<SqlUuid, _>(token)
        .bind::<Binary, _>(body)
        .execute(&mut connection)
        .await?;
        Ok(stored == 1)
    }

    /// Picks up callbacks that are due and keeps them from others for `lease`, oldest first.
    ///
    /// # Errors
    /// When the database is away; what was picked up is due again after its lease.
    pub async fn pick_callbacks(&self, limit: i64, lease: Duration) -> DbResult<Vec<DueCallback>> {
        let mut connection = self.connection().await?;
        let rows: Vec<Row> = diesel::sql_query(
            "WITH picked AS ( \
                 UPDATE callbacks SET tries = tries + 1, due_at = clock_timestamp() + make_interval(secs => $2 / 1000.0) \
                 WHERE id IN (SELECT id FROM callbacks WHERE processed_at IS NULL AND due_at <= clock_timestamp() \
                              ORDER BY due_at LIMIT $1 FOR UPDATE SKIP LOCKED) \
                 RETURNING id, vendor, token, body, tries) \
             SELECT p.*, s.job_id, s.state, s.vendor_task_id AS task_id \
             FROM picked p LEFT JOIN submissions s ON s.token = p.token AND s.vendor = p.vendor ORDER BY p.id",
        )
        .bind::<BigInt, _>(limit)
        .bind::<BigInt, _>(millis(lease))
        .load(&mut connection)
        .await?;
        rows.into_iter()
            .map(|row| {
                let submission = match (row.job_id, row.state) {
                    (Some(job), Some(state)) => Some(CalledBack {
                        job,
                        state: state.parse()?,
                        task_id: row.task_id,
                    }),
                    _ => None,
                };
                Ok(DueCallback {
                    id: row.id,
                    vendor: row.vendor.parse()?,
                    token: row.token,
                    body: row.body,
                    tries: row.tries.unsigned_abs(),
                    submission,
                })
            })
            .collect()
    }

    /// Makes the poll of a job due now. A dispatched row is left alone: its worker goes on under its epoch.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn hint_poll(&self, job: Uuid, stage: Stage) -> DbResult<Hinted> {
        let mut connection = self.connection().await?;
        let hinted = diesel::sql_query(
            "UPDATE job_stages SET due_at = least(due_at, clock_timestamp()) \
             WHERE job_id = $1 AND stage = $2 AND state = 'waiting'",
        )
        .bind::<SqlUuid, _>(job)
        .bind::<Text, _>(stage.as_str())
        .execute(&mut connection)
        .await?;
        if hinted == 1 {
            return Ok(Hinted::Due);
        }
        // Killed here, or settled meanwhile: the callback is picked up again.
        let rows: Vec<Missed> = diesel::sql_query(
            "SELECT state IN ('waiting', 'dispatched') AS running FROM job_stages WHERE job_id = $1 AND stage = $2",
        )
        .bind::<SqlUuid, _>(job)
        .bind::<Text, _>(stage.as_str())
        .load(&mut connection)
        .await?;
        Ok(match rows.into_iter().next() {
            Some(Missed { running: true }) => Hinted::Running,
            _ => Hinted::NotPolling,
        })
    }

    /// Ends the processing of a callback; it is kept. Says how many seconds it took from storing on; none if it had ended
    /// before.
    ///
    /// # Errors
    /// When the database is away; it is then processed again, which is harmless.
    pub async fn finish_callback(
        &self,
        id: i64,
        outcome: &str,
        detail: Option<&str>,
    ) -> DbResult<Option<f64>> {
        let mut connection = self.connection().await?;
        let rows: Vec<Finished> = diesel::sql_query(
            "UPDATE callbacks SET processed_at = clock_timestamp(), outcome = $2, detail = coalesce($3, detail) \
             WHERE id = $1 AND processed_at IS NULL \
             RETURNING extract(epoch FROM clock_timestamp() - received_at)::float8 AS seconds",
        )
        .bind::<BigInt, _>(id)
        .bind::<Text, _>(outcome)
        .bind::<Nullable<Text>, _>(detail)
        .load(&mut connection)
        .await?;
        Ok(rows.into_iter().next().map(|row| row.seconds))
    }

    /// Puts off the processing of a callback and says why.
    ///
    /// # Errors
    /// When the database is away; it is then due after its lease.
    pub async fn put_off_callback(&self, id: i64, delay: Duration, why: &str) -> DbResult<()> {
        let mut connection = self.connection().await?;
        diesel::sql_query(
            "UPDATE callbacks SET due_at = clock_timestamp() + make_interval(secs => $2 / 1000.0), detail = $3 \
             WHERE id = $1 AND processed_at IS NULL",
        )
        .bind::<BigInt, _>(id)
        .bind::<BigInt, _>(millis(delay))
        .bind::<Text, _>(why)
        .execute(&mut connection)
        .await?;
        Ok(())
    }

    /// Whether callbacks of the submission came to nothing and nobody has decided about it since.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn has_failed_callbacks(&self, token: Uuid) -> DbResult<bool> {
        let mut connection = self.connection().await?;
        let failed = diesel::sql_query(
            "SELECT FROM callbacks WHERE token = $1 AND outcome = 'failed' LIMIT 1",
        )
        .bind::<SqlUuid, _>(token)
        .execute(&mut connection)
        .await?;
        Ok(failed > 0)
    }

    /// A person has decided about the submission: callbacks of it that had come to nothing by then no longer keep its job from
    /// paying. Says how many did.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn dismiss_callbacks(&self, token: Uuid, until: DateTime<Utc>) -> DbResult<usize> {
        let mut connection = self.connection().await?;
        let dismissed = diesel::sql_query(
            "UPDATE callbacks SET outcome = 'dismissed' WHERE token = $1 AND outcome = 'failed' AND processed_at <= $2",
        )
        .bind::<SqlUuid, _>(token)
        .bind::<Timestamptz, _>(until)
        .execute(&mut connection)
        .await?;
        Ok(dismissed)
    }
}
