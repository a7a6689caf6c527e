//! The times of the protocol that the fleet runs with. Whoever decides about a submission from elsewhere, a person at a shell
//! with other settings, must not decide earlier than the processes would.
//!
//! Every process writes them into `settings` when it starts, producers and workers apart; the last one to start counts for its
//! kind. Decisions take the larger of these and their own settings.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use diesel::QueryableByName;
use diesel::sql_types::{Jsonb, Text};
use diesel_async::RunQueryDsl as _;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Db, DbError, DbResult};
use crate::config::ProtocolConfig;
use crate::domain::Vendor;

/// What of the protocol decisions of people depend on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FleetTimes {
    /// How long a claimed request may still be sent.
    pub send_deadline: Duration,
    /// How long after its claim a Sync.so request is still repeated under its key.
    pub sync_replay_window: Duration,
    /// How long a GhostCut work may still show up after its source was deleted.
    pub ghostcut_settle_time: Duration,
}

/// Which kind of process runs with them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunBy {
    /// Producers.
    Producer,
    /// Workers.
    Worker,
}

impl RunBy {
    const fn setting(self) -> &'static str {
        match self {
            Self::Producer => "protocol_of_producers",
            Self::Worker => "protocol_of_workers",
        }
    }
}

impl From<&ProtocolConfig> for FleetTimes {
    fn from(config: &ProtocolConfig) -> Self {
        Self {
            send_deadline: config.send_deadline,
            sync_replay_window: config.sync_replay_window,
            ghostcut_settle_time: config.ghostcut_settle_time,
        }
    }
}

impl FleetTimes {
    /// The longer of each time.
    #[must_use]
    pub fn max(self, other: Self) -> Self {
        Self {
            send_deadline: self.send_deadline.max(other.send_deadline),
            sync_replay_window: self.sync_replay_window.max(other.sync_replay_window),
            ghostcut_settle_time: self.ghostcut_settle_time.max(other.ghostcut_settle_time),
        }
    }

    /// From when on a person can decide better than the fleet that a request was not accepted. The last repetition to Sync.so may be
    /// under way when the window ends; a work at GhostCut may still show up.
    #[must_use]
    pub fn decidable_from(
        &self,
        vendor: Vendor,
        claimed_at: DateTime<Utc>,
        send_deadline: DateTime<Utc>,
    ) -> DateTime<Utc> {
        match vendor {
            Vendor::Sync => claimed_at + delta(self.sync_replay_window + self.send_deadline),
            Vendor::Ghostcut => send_deadline + delta(self.ghostcut_settle_time),
        }
    }
}

/// Settings are far below what a time can be moved by.
fn delta(duration: Duration) -> TimeDelta {
    TimeDelta::from_std(duration).unwrap_or(TimeDelta::days(365))
}

#[derive(QueryableByName)]
struct Row {
    #[diesel(sql_type = Jsonb)]
    value: Value,
}

impl Db {
    /// Writes what this process runs with.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn record_times(&self, who: RunBy, times: FleetTimes, by: &str) -> DbResult<()> {
        let value =
            serde_json::to_value(times).map_err(|error| DbError::Value(error.to_string()))?;
        self.record_setting(who.setting(), &value, by).await
    }

    /// Writes a value that processes run with; nothing when it stands so.
    pub(super) async fn record_setting(&self, name: &str, value: &Value, by: &str) -> DbResult<()> {
        let mut connection = self.connection().await?;
        diesel::sql_query(
            "INSERT INTO settings AS s (name, value, changed_by) VALUES ($1, $2, $3) ON CONFLICT (name) DO UPDATE \
             SET value = excluded.value, changed_by = excluded.changed_by, changed_at = excluded.changed_at \
             WHERE s.value <> excluded.value",
        )
        .bind::<Text, _>(name)
        .bind::<Jsonb, _>(value)
        .bind::<Text, _>(by)
        .execute(&mut connection)
        .await?;
        Ok(())
    }

    /// What processes of this kind run with; none when none has ever started.
    ///
    /// # Errors
    /// When the database is away, or a newer build wrote them.
    pub async fn times_of(&self, who: RunBy) -> DbResult<Option<FleetTimes>> {
        let mut connection = self.connection().await?;
        let rows: Vec<Row> = diesel::sql_query("SELECT value FROM settings WHERE name = $1")
            .bind::<Text, _>(who.setting())
            .load(&mut connection)
            .await?;
        let read = |row: Row| serde_json::from_value(row.value);
        let times = rows.into_iter().next().map(read).transpose();
        times.map_err(|error| DbError::Value(error.to_string()))
    }

    /// The longest of what any process runs with and of `own`.
    ///
    /// # Errors
    /// As [`Db::times_of`].
    pub async fn fleet_times(&self, own: FleetTimes) -> DbResult<FleetTimes> {
        let mut times = own;
        for who in [RunBy::Producer, RunBy::Worker] {
            times = self.times_of(who).await?.map_or(times, |of| times.max(of));
        }
        Ok(times)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_decides_earlier_than_the_slowest_process() {
        let times = |seconds| FleetTimes {
            send_deadline: Duration::from_secs(seconds),
            sync_replay_window: Duration::from_secs(seconds * 10),
            ghostcut_settle_time: Duration::from_secs(seconds * 2),
        };
        let both = times(45).max(times(3));
        assert_eq!(both, times(45));
        let claimed = DateTime::UNIX_EPOCH;
        let seconds = |vendor| both.decidable_from(vendor, claimed, claimed).timestamp();
        assert_eq!(
            [seconds(Vendor::Sync), seconds(Vendor::Ghostcut)],
            [495, 90]
        );
        let text = serde_json::to_value(both).unwrap();
        assert_eq!(serde_json::from_value::<FleetTimes>(text).unwrap(), both);
    }
}
