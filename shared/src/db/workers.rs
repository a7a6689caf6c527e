//! Who works: one row per running worker, written by itself. Nothing else of the fleet reads it to decide anything.

use std::time::Duration;

use chrono::{DateTime, Utc};
use diesel::QueryableByName;
use diesel::sql_types::{
    Array, BigInt, Bool, Integer, Jsonb, Nullable, Text, Timestamptz, Uuid as SqlUuid,
};
use diesel_async::RunQueryDsl as _;
use serde_json::Value;
use uuid::Uuid;

use super::dispatch::millis;
use super::{Db, DbResult};

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
    /// `running`, `draining` or `lost`: not seen for three times as long as it means to be.
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
}

impl Db {
    /// Writes what a worker says of itself.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn worker_seen(&self, beat: &WorkerBeat<'_>) -> DbResult<()> {
        let mut connection = self.connection().await?;
        diesel::sql_query(
            "INSERT INTO workers (id, name, version, beat_ms, draining, stages, concurrency, transfers, in_hand, \
                 last_delivery_at, why_not_ready) \
             VALUES ($1, $2, $3, greatest($4, 1), $5, $6, $7, $8, $9, $10, $11) \
             ON CONFLICT (id) DO UPDATE SET seen_at = clock_timestamp(), draining = excluded.draining, \
                 in_hand = excluded.in_hand, last_delivery_at = excluded.last_delivery_at, \
                 why_not_ready = excluded.why_not_ready",
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
        .execute(&mut connection)
        .await?;
        Ok(())
    }

    /// Removes a worker that has stopped.
    ///
    /// # Errors
    /// When the database is away; then it is soon lost, and swept a day later.
    pub async fn worker_left(&self, id: Uuid) -> DbResult<()> {
        let mut connection = self.connection().await?;
        diesel::sql_query("DELETE FROM workers WHERE id = $1")
            .bind::<SqlUuid, _>(id)
            .execute(&mut connection)
            .await?;
        Ok(())
    }

    /// The workers by name, lost ones too.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn workers(&self) -> DbResult<Vec<WorkerRow>> {
        let mut connection = self.connection().await?;
        Ok(diesel::sql_query(
            "SELECT id, name, version, started_at, seen_at, \
                 CASE WHEN seen_at < clock_timestamp() - make_interval(secs => 3 * beat_ms / 1000.0) THEN 'lost' \
                     WHEN draining THEN 'draining' ELSE 'running' END AS state, \
                 stages, concurrency, transfers, in_hand, last_delivery_at, why_not_ready \
             FROM workers ORDER BY name, started_at, id LIMIT 1000",
        )
        .load(&mut connection)
        .await?)
    }

    /// Removes workers that were not seen for a day. Says how many.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn sweep_workers(&self) -> DbResult<usize> {
        let mut connection = self.connection().await?;
        Ok(diesel::sql_query(
            "DELETE FROM workers WHERE seen_at < clock_timestamp() - interval '1 day'",
        )
        .execute(&mut connection)
        .await?)
    }
}
