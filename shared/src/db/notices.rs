//! Notices that a job has ended: made by the trigger on its status, picked up by one producer at a time, and kept.

use std::time::Duration;

use chrono::{DateTime, Utc};
use diesel::QueryableByName;
use diesel::sql_types::{
    BigInt, Bool, Double, Integer, Nullable, Text, Timestamptz, Uuid as SqlUuid,
};
use diesel_async::{AsyncConnection as _, AsyncPgConnection, RunQueryDsl as _};
use uuid::Uuid;

use super::dispatch::millis;
use super::job_actions::record;
use super::{Db, DbResult};
use crate::domain::notice::{NoticeState, Target};

/// A notice.
#[derive(Clone, Debug, QueryableByName)]
pub struct NoticeRow {
    /// Identifies it, however often it is sent.
    #[diesel(sql_type = SqlUuid)]
    pub id: Uuid,
    /// The job that has ended; may be gone.
    #[diesel(sql_type = SqlUuid)]
    pub job_id: Uuid,
    /// Where it goes. May hold a secret of the receiver.
    #[diesel(sql_type = Text)]
    pub url: String,
    /// What the job came to: `completed`, `failed` or `canceled`.
    #[diesel(sql_type = Text)]
    pub status: String,
    /// Whether there is a result.
    #[diesel(sql_type = Bool)]
    pub has_result: bool,
    /// Of a failed job: the class of the failure.
    #[diesel(sql_type = Nullable<Text>)]
    pub error_code: Option<String>,
    /// Of a failed job: why.
    #[diesel(sql_type = Nullable<Text>)]
    pub error_message: Option<String>,
    /// When the job ended.
    #[diesel(sql_type = Timestamptz)]
    pub created_at: DateTime<Utc>,
    /// A word of [`NoticeState`].
    #[diesel(sql_type = Text)]
    pub state: String,
    /// When it is sent next, or when whoever sends it now must be done.
    #[diesel(sql_type = Nullable<Timestamptz>)]
    pub due_at: Option<DateTime<Utc>>,
    /// How often it was sent, this time included.
    #[diesel(sql_type = Integer)]
    pub tries: i32,
    /// Tries before it was replayed, which do not count.
    #[diesel(sql_type = Integer)]
    pub forgiven: i32,
    /// The receiver's last status, if it answered.
    #[diesel(sql_type = Nullable<Integer>)]
    pub last_status: Option<i32>,
    /// Why the last try did not do.
    #[diesel(sql_type = Nullable<Text>)]
    pub last_error: Option<String>,
    /// When it was taken or given up.
    #[diesel(sql_type = Nullable<Timestamptz>)]
    pub ended_at: Option<DateTime<Utc>>,
}

const COLUMNS: &str = "id, job_id, url, status, has_result, error_code, error_message, created_at, state, due_at, tries, forgiven, \
                       last_status, last_error, ended_at";

/// How many notices a producer may pick up.
#[derive(Clone, Copy, Debug)]
pub struct NoticeRoom {
    /// At most this many now.
    pub limit: i64,
    /// At most this many of one host in the hands of all producers together.
    pub per_host: i64,
    /// For so long they are nobody else's.
    pub lease: Duration,
}

/// What one try of a notice came to.
#[derive(Clone, Debug)]
pub struct NoticeTry {
    /// The notice.
    pub id: Uuid,
    /// The number of the try, as picked up: a try that took longer than its lease says nothing any more.
    pub tries: i32,
    /// The receiver's status, if it answered.
    pub status: Option<u16>,
    /// Why it did not do.
    pub error: Option<String>,
}

/// Which notices to list, newest first.
#[derive(Clone, Debug, Default)]
pub struct NoticeFilter {
    /// Only in this state.
    pub state: Option<NoticeState>,
    /// Only of this job.
    pub job: Option<Uuid>,
    /// Only those before this (time, id), the last of the page before.
    pub before: Option<(DateTime<Utc>, Uuid)>,
    /// At most this many.
    pub limit: i64,
}

/// What came of [`Db::replay_notice`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoticeReplayed {
    /// It is sent again, as if for the first time.
    Due,
    /// It waits to be sent anyway.
    Waiting,
    /// There is no such notice.
    Gone,
}

/// What waits to be sent.
#[derive(Clone, Copy, Debug, QueryableByName)]
pub struct NoticeGauge {
    /// How many.
    #[diesel(sql_type = BigInt)]
    pub waiting: i64,
    /// How long the first of them waits, in seconds.
    #[diesel(sql_type = Double)]
    pub oldest_seconds: f64,
}

#[derive(QueryableByName)]
struct State {
    #[diesel(sql_type = SqlUuid)]
    job_id: Uuid,
    #[diesel(sql_type = Text)]
    state: String,
}

impl Db {
    /// Picks up notices that are due, of each host those that wait longest, and keeps them from others for the lease.
    ///
    /// # Errors
    /// When the database is away; what was picked up is due again after its lease.
    pub async fn pick_notices(&self, room: NoticeRoom) -> DbResult<Vec<NoticeRow>> {
        // `now()` and the array are what lets the indexes be used however much waits.
        let pick = format!(
            "WITH RECURSIVE hosts AS ( \
                 (SELECT host FROM notices WHERE state = 'waiting' ORDER BY host LIMIT 1) \
                 UNION ALL \
                 SELECT (SELECT n.host FROM notices n WHERE n.state = 'waiting' AND n.host > h.host ORDER BY n.host LIMIT 1) \
                 FROM hosts h WHERE h.host IS NOT NULL), \
             due AS ( \
                 SELECT n.id FROM hosts h CROSS JOIN LATERAL ( \
                     SELECT w.id, w.due_at FROM notices w \
                     WHERE w.host = h.host AND w.state = 'waiting' AND w.due_at <= now() \
                     ORDER BY w.due_at LIMIT greatest(0, $2 - ( \
                         SELECT count(*) FROM notices i WHERE i.host = h.host AND i.in_hand AND i.due_at > now()))) n \
                 ORDER BY n.due_at LIMIT $1) \
             UPDATE notices SET in_hand = true, tries = tries + 1, \
                 due_at = clock_timestamp() + make_interval(secs => $3 / 1000.0) \
             WHERE id = ANY(ARRAY(SELECT id FROM due)) AND state = 'waiting' AND due_at <= now() RETURNING {COLUMNS}"
        );
        let mut connection = self.connection().await?;
        Ok(connection
            .transaction(async |connection| {
                // One at a time, so that the bound on a host holds across producers. A statement of its own: the next one has to
                // see what the one before has picked up.
                diesel::sql_query("SELECT pg_advisory_xact_lock(hashtext('ghostfleet notices'))")
                    .execute(connection)
                    .await?;
                diesel::sql_query(pick)
                    .bind::<BigInt, _>(room.limit)
                    .bind::<BigInt, _>(room.per_host)
                    .bind::<BigInt, _>(millis(room.lease))
                    .load(connection)
                    .await
            })
            .await?)
    }

    /// Ends a notice; it is kept. False: it was picked up again, or has ended, since this try began.
    ///
    /// # Errors
    /// When the database is away; it is then sent again, under the same id.
    pub async fn end_notice(&self, tried: &NoticeTry, state: NoticeState) -> DbResult<bool> {
        let mut connection = self.connection().await?;
        let ended = diesel::sql_query(
            "UPDATE notices SET state = $5, due_at = NULL, in_hand = false, ended_at = clock_timestamp(), \
                 last_status = $3, last_error = $4 \
             WHERE id = $1 AND tries = $2 AND state = 'waiting'",
        )
        .bind::<SqlUuid, _>(tried.id)
        .bind::<Integer, _>(tried.tries)
        .bind::<Nullable<Integer>, _>(tried.status.map(i32::from))
        .bind::<Nullable<Text>, _>(&tried.error)
        .bind::<Text, _>(state.as_str())
        .execute(&mut connection)
        .await?;
        Ok(ended == 1)
    }

    /// Has a notice sent again after `delay`. False: as for [`Db::end_notice`].
    ///
    /// # Errors
    /// When the database is away; it is then sent again after its lease.
    pub async fn put_off_notice(&self, tried: &NoticeTry, delay: Duration) -> DbResult<bool> {
        let mut connection = self.connection().await?;
        let put_off = diesel::sql_query(
            "UPDATE notices SET in_hand = false, due_at = clock_timestamp() + make_interval(secs => $5 / 1000.0), \
                 last_status = $3, last_error = $4 \
             WHERE id = $1 AND tries = $2 AND state = 'waiting'",
        )
        .bind::<SqlUuid, _>(tried.id)
        .bind::<Integer, _>(tried.tries)
        .bind::<Nullable<Integer>, _>(tried.status.map(i32::from))
        .bind::<Nullable<Text>, _>(&tried.error)
        .bind::<BigInt, _>(millis(delay))
        .execute(&mut connection)
        .await?;
        Ok(put_off == 1)
    }

    /// A page of notices, newest first.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn notices(&self, filter: &NoticeFilter) -> DbResult<Vec<NoticeRow>> {
        let mut query = diesel::sql_query(format!("SELECT {COLUMNS} FROM notices WHERE true"))
            .into_boxed::<diesel::pg::Pg>();
        // Each filter only where it is given: a parameter that may be null would keep the planner from its index.
        let mut given = 0;
        let mut next = || {
            given += 1;
            given
        };
        if let Some(state) = filter.state {
            query = query
                .sql(format!(" AND state = ${}", next()))
                .bind::<Text, _>(state.as_str());
        }
        if let Some(job) = filter.job {
            query = query
                .sql(format!(" AND job_id = ${}", next()))
                .bind::<SqlUuid, _>(job);
        }
        if let Some((time, id)) = filter.before {
            query = query
                .sql(format!(
                    " AND (created_at, id) < (${}, ${})",
                    next(),
                    next()
                ))
                .bind::<Timestamptz, _>(time)
                .bind::<SqlUuid, _>(id);
        }
        query = query
            .sql(format!(
                " ORDER BY created_at DESC, id DESC LIMIT ${}",
                next()
            ))
            .bind::<BigInt, _>(filter.limit);
        let mut connection = self.connection().await?;
        Ok(query.load(&mut connection).await?)
    }

    /// One notice.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn notice(&self, id: Uuid) -> DbResult<Option<NoticeRow>> {
        let mut connection = self.connection().await?;
        let query = format!("SELECT {COLUMNS} FROM notices WHERE id = $1");
        let rows: Vec<NoticeRow> = diesel::sql_query(query)
            .bind::<SqlUuid, _>(id)
            .load(&mut connection)
            .await?;
        Ok(rows.into_iter().next())
    }

    /// Has a notice that has ended sent again, under the same id. `by` and `reason` are for the trail.
    ///
    /// # Errors
    /// When the outcome is not known; doing it again is harmless.
    pub async fn replay_notice(
        &self,
        id: Uuid,
        by: &str,
        reason: &str,
    ) -> DbResult<NoticeReplayed> {
        let mut connection = self.connection().await?;
        Ok(connection
            .transaction(async |connection| {
                let rows: Vec<State> = diesel::sql_query(
                    "SELECT job_id, state FROM notices WHERE id = $1 FOR UPDATE",
                )
                .bind::<SqlUuid, _>(id)
                .load(connection)
                .await?;
                let Some(found) = rows.into_iter().next() else {
                    return Ok(NoticeReplayed::Gone);
                };
                if found.state == NoticeState::Waiting.as_str() {
                    return Ok(NoticeReplayed::Waiting);
                }
                diesel::sql_query(
                    "UPDATE notices SET state = 'waiting', due_at = clock_timestamp(), forgiven = tries, \
                     ended_at = NULL WHERE id = $1",
                )
                .bind::<SqlUuid, _>(id)
                .execute(connection)
                .await?;
                let detail = serde_json::json!({ "job": found.job_id, "was": found.state });
                let subject = id.to_string();
                record(connection, "notice_replayed", &subject, by, reason, &detail).await?;
                Ok::<_, diesel::result::Error>(NoticeReplayed::Due)
            })
            .await?)
    }

    /// What waits to be sent.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn notice_gauge(&self) -> DbResult<NoticeGauge> {
        let mut connection = self.connection().await?;
        Ok(diesel::sql_query(
            "SELECT count(*) AS waiting, \
                 coalesce(extract(epoch FROM clock_timestamp() - min(created_at)), 0)::float8 AS oldest_seconds \
             FROM notices WHERE state = 'waiting'",
        )
        .get_result(&mut connection)
        .await?)
    }
}

/// Says where notices about a job go, in the transaction that stores the job.
pub(super) async fn insert_target(
    connection: &mut AsyncPgConnection,
    job: Uuid,
    target: &Target,
) -> diesel::QueryResult<()> {
    diesel::sql_query("INSERT INTO notice_targets (job_id, url, host) VALUES ($1, $2, $3)")
        .bind::<SqlUuid, _>(job)
        .bind::<Text, _>(target.url.as_str())
        .bind::<Text, _>(&target.host)
        .execute(connection)
        .await?;
    Ok(())
}
