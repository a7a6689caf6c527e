//! Who works: one row per worker, written by itself and kept for a while after its end, and what operators ask of it, which it reads
//! back. Nothing of a job is decided by it.

use std::time::Duration;

use chrono::{DateTime, Utc};
use diesel::sql_types::{
    Array, BigInt, Bool, Integer, Jsonb, Nullable, Text, Timestamptz, Uuid as SqlUuid,
};
use diesel::{OptionalExtension as _, QueryableByName};
use diesel_async::{AsyncConnection as _, RunQueryDsl as _};
use serde_json::{Value, json};
use uuid::Uuid;

use super::dispatch::millis;
use super::job_actions::record;
use super::{Db, DbError, DbResult};
use crate::crash::{self, Point};
use crate::domain::worker_order::{Ordered, WorkerOrder, WorkerState, WorkerWish};

/// What a worker says of itself.
#[derive(Clone, Debug)]
pub struct WorkerBeat<'a> {
    /// One for each start of a process.
    pub id: Uuid,
    /// Its name in trails and at the broker.
    pub name: &'a str,
    /// What runs.
    pub version: &'a str,
    /// How often it means to be seen.
    pub every: Duration,
    /// Told to stop: it takes nothing new.
    pub draining: bool,
    /// None of its consumers takes anything new, as it was asked.
    pub quiet: bool,
    /// The stages it runs.
    pub stages: Vec<&'static str>,
    /// Messages in hand at a time, for each stage.
    pub concurrency: i32,
    /// The same for stages that move whole videos.
    pub transfers: i32,
    /// `[{"stage": "…", "count": 1}]`.
    pub in_hand: Value,
    /// By its own clock.
    pub last_delivery_at: Option<DateTime<Utc>>,
    /// What keeps it from its work; none: it is ready.
    pub why_not_ready: Option<String>,
}

/// A worker that was seen.
#[derive(Clone, Debug, QueryableByName)]
pub struct WorkerRow {
    /// One for each start of a process.
    #[diesel(sql_type = SqlUuid)]
    pub id: Uuid,
    /// Its name in trails and at the broker.
    #[diesel(sql_type = Text)]
    pub name: String,
    /// What runs.
    #[diesel(sql_type = Text)]
    pub version: String,
    /// When it was first seen.
    #[diesel(sql_type = Timestamptz)]
    pub started_at: DateTime<Utc>,
    /// When it was last seen.
    #[diesel(sql_type = Timestamptz)]
    pub seen_at: DateTime<Utc>,
    /// When it ended as it should.
    #[diesel(sql_type = Nullable<Timestamptz>)]
    pub left_at: Option<DateTime<Utc>>,
    /// A [`WorkerState`].
    #[diesel(sql_type = Text)]
    pub state: String,
    /// The stages it runs.
    #[diesel(sql_type = Array<Text>)]
    pub stages: Vec<String>,
    /// Messages in hand at a time, for each stage.
    #[diesel(sql_type = Integer)]
    pub concurrency: i32,
    /// The same for stages that move whole videos.
    #[diesel(sql_type = Integer)]
    pub transfers: i32,
    /// `[{"stage": "…", "count": 1}]`.
    #[diesel(sql_type = Jsonb)]
    pub in_hand: Value,
    /// By the worker's clock.
    #[diesel(sql_type = Nullable<Timestamptz>)]
    pub last_delivery_at: Option<DateTime<Utc>>,
    /// What keeps it from its work; none: it is ready.
    #[diesel(sql_type = Nullable<Text>)]
    pub why_not_ready: Option<String>,
    /// What is asked of it, a [`WorkerWish`]; none: that it works. With it come who, why and when.
    #[diesel(sql_type = Nullable<Text>)]
    pub asked: Option<String>,
    /// Who asked.
    #[diesel(sql_type = Nullable<Text>)]
    pub asked_by: Option<String>,
    /// Why.
    #[diesel(sql_type = Nullable<Text>)]
    pub asked_reason: Option<String>,
    /// When.
    #[diesel(sql_type = Nullable<Timestamptz>)]
    pub asked_at: Option<DateTime<Utc>>,
}

/// What came of an order to a worker.
#[derive(Clone, Debug)]
pub enum WorkerOrdered {
    /// As [`WorkerOrder::to`] says, to the worker as it was then.
    Answered(Ordered, Box<WorkerRow>),
    /// There is no such worker, or it has stopped.
    Gone,
}

const ROWS: &str = "SELECT id, name, version, started_at, seen_at, left_at, \
    CASE WHEN left_at IS NOT NULL THEN 'stopped' WHEN seen_at < clock_timestamp() - make_interval(secs => 3 * beat_ms / 1000.0) THEN 'lost' \
        WHEN draining THEN 'draining' WHEN quiet THEN 'quiet' ELSE 'running' END AS state, \
    stages, concurrency, transfers, in_hand, last_delivery_at, why_not_ready, asked, asked_by, asked_reason, asked_at \
    FROM workers";

#[derive(QueryableByName)]
struct Asked {
    #[diesel(sql_type = Nullable<Text>)]
    asked: Option<String>,
}

fn wish(asked: Option<&str>) -> DbResult<Option<WorkerWish>> {
    let wish = asked.map(str::parse::<WorkerWish>).transpose();
    wish.map_err(|error| DbError::Value(error.to_string()))
}

impl Db {
    /// Writes what a worker says of itself, and reads what is asked of it.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn worker_seen(&self, beat: &WorkerBeat<'_>) -> DbResult<Option<WorkerWish>> {
        let mut connection = self.connection().await?;
        let row: Asked = diesel::sql_query(
            "INSERT INTO workers (id, name, version, beat_ms, draining, stages, concurrency, transfers, in_hand, \
                 last_delivery_at, why_not_ready, quiet) \
             VALUES ($1, $2, $3, greatest($4, 1), $5, $6, $7, $8, $9, $10, $11, $12) \
             ON CONFLICT (id) DO UPDATE SET seen_at = clock_timestamp(), draining = excluded.draining, \
                 in_hand = excluded.in_hand, last_delivery_at = excluded.last_delivery_at, \
                 why_not_ready = excluded.why_not_ready, quiet = excluded.quiet \
             RETURNING asked",
        )
        .bind::<SqlUuid, _>(beat.id)
        .bind::<Text, _>(beat.name)
        .bind::<Text, _>(beat.version)
        .bind::<BigInt, _>(millis(beat.every))
        .bind::<Bool, _>(beat.draining)
        .bind::<Array<Text>, _>(&beat.stages)
        .bind::<Integer, _>(beat.concurrency)
        .bind::<Integer, _>(beat.transfers)
        .bind::<Jsonb, _>(&beat.in_hand)
        .bind::<Nullable<Timestamptz>, _>(beat.last_delivery_at)
        .bind::<Nullable<Text>, _>(beat.why_not_ready.as_deref())
        .bind::<Bool, _>(beat.quiet)
        .get_result(&mut connection)
        .await?;
        wish(row.asked.as_deref())
    }

    /// Asks something of a worker, which does it with its next sign of life, and writes who and why into the trail. Twice is
    /// harmless: the first stays.
    ///
    /// # Errors
    /// When the database is away nothing is asked.
    pub async fn order_worker(
        &self,
        id: Uuid,
        order: WorkerOrder,
        by: &str,
        reason: &str,
    ) -> DbResult<WorkerOrdered> {
        let mut connection = self.connection().await?;
        let ordered = connection
            .transaction(async |connection| {
                let row: Option<WorkerRow> =
                    diesel::sql_query(format!("{ROWS} WHERE id = $1 FOR UPDATE"))
                        .bind::<SqlUuid, _>(id)
                        .get_result(connection)
                        .await
                        .optional()?;
                let Some(row) = row else {
                    return Ok(WorkerOrdered::Gone);
                };
                let state = row.state.parse::<WorkerState>();
                let state = state.map_err(|error| DbError::Value(error.to_string()))?;
                if state == WorkerState::Stopped {
                    return Ok(WorkerOrdered::Gone);
                }
                let answer = order.to(state, wish(row.asked.as_deref())?);
                let Ordered::Asked(wish) = answer else {
                    return Ok(WorkerOrdered::Answered(answer, Box::new(row)));
                };
                diesel::sql_query(
                    "UPDATE workers SET asked = $2, asked_by = CASE WHEN $2 IS NOT NULL THEN $3 END, \
                         asked_reason = CASE WHEN $2 IS NOT NULL THEN $4 END, \
                         asked_at = CASE WHEN $2 IS NOT NULL THEN clock_timestamp() END \
                     WHERE id = $1",
                )
                .bind::<SqlUuid, _>(id)
                .bind::<Nullable<Text>, _>(wish.map(WorkerWish::as_str))
                .bind::<Text, _>(by)
                .bind::<Text, _>(reason)
                .execute(connection)
                .await?;
                let subject = format!("worker/{}", row.name);
                let detail = json!({ "id": id });
                record(connection, order.action(), &subject, by, reason, &detail).await?;
                let row: WorkerRow = diesel::sql_query(format!("{ROWS} WHERE id = $1"))
                    .bind::<SqlUuid, _>(id)
                    .get_result(connection)
                    .await?;
                Ok::<_, DbError>(WorkerOrdered::Answered(answer, Box::new(row)))
            })
            .await?;
        if matches!(ordered, WorkerOrdered::Answered(Ordered::Asked(_), _)) {
            crash::point(Point::WorkerOrdered);
        }
        Ok(ordered)
    }

    /// Writes that a worker has stopped, with nothing in hand.
    ///
    /// # Errors
    /// When the database is away; then it is soon lost, and swept a day later.
    pub async fn worker_left(&self, id: Uuid) -> DbResult<()> {
        let mut connection = self.connection().await?;
        diesel::sql_query(
            "UPDATE workers SET left_at = clock_timestamp(), in_hand = '[]' WHERE id = $1",
        )
        .bind::<SqlUuid, _>(id)
        .execute(&mut connection)
        .await?;
        Ok(())
    }

    /// The workers by name, lost ones too, and those that have stopped lately.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn workers(&self) -> DbResult<Vec<WorkerRow>> {
        let mut connection = self.connection().await?;
        // Those that are there come first: however many were lost today, none of them is left out.
        let query = format!(
            "SELECT * FROM ({ROWS}) w ORDER BY state IN ('lost', 'stopped'), name, started_at, id LIMIT 1000"
        );
        Ok(diesel::sql_query(query).load(&mut connection).await?)
    }

    /// Removes workers that were not seen for a day, or stopped more than an hour ago. Says how many.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn sweep_workers(&self) -> DbResult<usize> {
        let mut connection = self.connection().await?;
        Ok(diesel::sql_query(
            "DELETE FROM workers WHERE seen_at < clock_timestamp() - interval '1 day' \
                 OR left_at < clock_timestamp() - interval '1 hour'",
        )
        .execute(&mut connection)
        .await?)
    }
}
