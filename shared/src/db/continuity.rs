//! Notices a database that forgot commits: restored from a backup, or failed over to a standby that was behind.
//!
//! Three signs. A process remembers the newest line of the trail that it has seen committed; when that line is gone, or is another
//! one, the database went back. The database is another cluster, or on another timeline, than the one in its own `settings`. And
//! elsewhere: a message newer than its row, a settle for a submission that is not there, a work of ours at a vendor (found by an
//! audit and not repaired, or called back about) that the ledger does not have. Each of them stops all paid sends until an
//! audit has rebuilt the ledger and an operator resumes them. Nothing here repairs anything.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chrono::{DateTime, Utc};
use diesel::sql_types::{BigInt, Bool, Nullable, Timestamptz};
use diesel_async::RunQueryDsl as _;
use tokio_util::sync::CancellationToken;

use super::{Db, DbResult};
use crate::crash::{self, Point};
use crate::telemetry::chain;

/// Between two looks. What was paid twice in between would be: the claims themselves look too, so only a process that has just
/// started and remembers nothing depends on it.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);

/// A line of the trail that was the newest one within this time is never removed, however old it is (`retention`): a process that
/// was frozen for less remembers one that is still there.
pub(super) const TRAIL_KEPT: &str = "interval '7 days'";

/// A line of the trail that is known to be committed. Lines are never changed; old ones are removed, but for [`TRAIL_KEPT`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Mark {
    pub(super) id: i64,
    pub(super) at: DateTime<Utc>,
    /// The database's clock when it was last seen.
    seen_at: DateTime<Utc>,
}

/// The newest line that this process has seen; shared by all clones of its [`Db`].
#[derive(Clone, Debug, Default)]
pub(super) struct Memory(Arc<Mutex<Option<Mark>>>);

impl Memory {
    fn lock(&self) -> MutexGuard<'_, Option<Mark>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn mark(&self) -> Option<Mark> {
        *self.lock()
    }

    /// A line that this process was told is committed.
    pub(super) fn remember(&self, id: i64, at: DateTime<Utc>) {
        let mut mark = self.lock();
        if mark.is_none_or(|known| known.id < id) {
            *mark = Some(Mark {
                id,
                at,
                seen_at: at,
            });
        }
    }
}

/// That the database forgot commits, and how somebody came to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forgotten {
    /// In words.
    pub reason: String,
    /// From when on commits may be gone, where that is known.
    pub from: Option<DateTime<Utc>>,
    /// When it was seen.
    pub seen: Seen,
}

/// When a sign was seen. One from before the operator's last resume has been dealt with: every process may still be about to stop
/// paid sends for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// Just now; nobody will see it again.
    Now,
    /// While the last resume was that of this time, if there was one.
    Since(Option<DateTime<Utc>>),
}

#[derive(diesel::QueryableByName)]
struct Look {
    #[diesel(sql_type = Timestamptz)]
    now: DateTime<Utc>,
    #[diesel(sql_type = Bool)]
    kept: bool,
    #[diesel(sql_type = Nullable<BigInt>)]
    id: Option<i64>,
    #[diesel(sql_type = Nullable<Timestamptz>)]
    at: Option<DateTime<Utc>>,
    #[diesel(sql_type = Nullable<Timestamptz>)]
    resumed_at: Option<DateTime<Utc>>,
}

#[derive(diesel::QueryableByName)]
struct Kept {
    #[diesel(sql_type = Nullable<Timestamptz>)]
    at: Option<DateTime<Utc>>,
}

#[derive(diesel::QueryableByName)]
struct Resumed {
    #[diesel(sql_type = Nullable<Timestamptz>)]
    at: Option<DateTime<Utc>>,
}

#[derive(diesel::QueryableByName)]
struct Changed {
    #[diesel(sql_type = Bool)]
    changed: bool,
    #[diesel(sql_type = Nullable<Timestamptz>)]
    resumed_at: Option<DateTime<Utc>>,
}

impl Db {
    /// Whether the database forgot a commit that this process knows of. An operator who has resumed paid sends since it was last
    /// seen has dealt with that.
    ///
    /// # Errors
    /// When the database is away; then nothing is known.
    pub async fn forgot_commits(&self) -> DbResult<Option<Forgotten>> {
        let mark = self.memory.mark();
        let mut connection = self.connection().await?;
        let look: Look = diesel::sql_query(
            "SELECT clock_timestamp() AS now, newest.id, newest.at, \
             $1 IS NULL OR EXISTS (SELECT FROM job_events WHERE id = $1 AND at = $2) AS kept, \
             (SELECT changed_at FROM settings WHERE name = 'paid_resumed') AS resumed_at \
             FROM (SELECT) one LEFT JOIN LATERAL (SELECT id, at FROM job_events ORDER BY id DESC LIMIT 1) newest ON true",
        )
        .bind::<Nullable<BigInt>, _>(mark.map(|mark| mark.id))
        .bind::<Nullable<Timestamptz>, _>(mark.map(|mark| mark.at))
        .get_result(&mut connection)
        .await?;
        if let Some(mark) = mark.filter(|_| !look.kept)
            && look.resumed_at.is_none_or(|at| at <= mark.seen_at)
        {
            // The newest line that is older than the one that is gone: what came after it may be forgotten.
            let kept: Kept =
                diesel::sql_query("SELECT max(at) AS at FROM job_events WHERE at < $1")
                    .bind::<Timestamptz, _>(mark.at)
                    .get_result(&mut connection)
                    .await?;
            return Ok(Some(Forgotten {
                reason: format!(
                    "line {} of the trail, committed at {}, is gone: the database forgot commits",
                    mark.id, mark.at
                ),
                from: kept.at,
                seen: Seen::Since(look.resumed_at),
            }));
        }
        let newest = look.id.zip(look.at).map(|(id, at)| Mark {
            id,
            at,
            seen_at: look.now,
        });
        let mut memory = self.memory.lock();
        // Another task may have learned of a newer line since; that one stays.
        if !look.kept || memory.is_none_or(|known| newest.is_some_and(|new| new.id >= known.id)) {
            *memory = newest;
        }
        Ok(None)
    }

    /// The operator's last resume of paid sends, for what is about to look for signs.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn last_resume(&self) -> DbResult<Seen> {
        let mut connection = self.connection().await?;
        let resumed: Resumed = diesel::sql_query(
            "SELECT (SELECT changed_at FROM settings WHERE name = 'paid_resumed') AS at",
        )
        .get_result(&mut connection)
        .await?;
        Ok(Seen::Since(resumed.at))
    }

    /// Whether this is another database cluster, or another timeline, than the one that the settings name; the first one that asks
    /// names it. The timeline is that of the WAL being written, which a promotion changes at once.
    ///
    /// # Errors
    /// When the database is away, or does not let its user ask.
    pub async fn cluster_changed(&self) -> DbResult<Option<Forgotten>> {
        let mut connection = self.connection().await?;
        let row: Changed = diesel::sql_query(
            "WITH named AS (INSERT INTO settings (name, value, changed_by) VALUES ('database_cluster', database_cluster(), 'fleet') \
                            ON CONFLICT (name) DO NOTHING) \
             SELECT coalesce((SELECT value <> database_cluster() FROM settings WHERE name = 'database_cluster'), false) AS changed, \
             (SELECT changed_at FROM settings WHERE name = 'paid_resumed') AS resumed_at",
        )
        .get_result(&mut connection)
        .await?;
        Ok(row.changed.then(|| Forgotten {
            reason: "this is another database cluster or timeline than before: it may have forgotten commits".to_owned(),
            from: None,
            seen: Seen::Since(row.resumed_at),
        }))
    }

    /// Looks once, and stops all paid sends when the database forgot commits. What goes wrong is logged: the next look may work.
    pub async fn check_continuity(&self, by: &str) {
        match self.forgot_commits().await {
            Ok(None) => {}
            Ok(Some(forgotten)) => self.stop_seen(&forgotten, by).await,
            Err(error) => tracing::debug!(
                error = chain(&error),
                "cannot look whether the database forgot commits"
            ),
        }
    }

    /// Stops all paid sends because the database forgot commits.
    ///
    /// # Errors
    /// When that is not known to be stored: then the sign must not count as dealt with.
    pub async fn stop_forgotten(&self, forgotten: &Forgotten, by: &str) -> DbResult<()> {
        crash::point(Point::ForgettingSeen);
        if self.stop_paid_until_audit(forgotten, by).await? {
            tracing::error!(
                reason = forgotten.reason,
                "the database forgot commits: paid sends are stopped until `producer audit --repair` has run"
            );
        }
        crash::point(Point::PaidStopped);
        Ok(())
    }

    /// The same for a sign that the next look sees again.
    async fn stop_seen(&self, forgotten: &Forgotten, by: &str) {
        if let Err(error) = self.stop_forgotten(forgotten, by).await {
            tracing::error!(
                reason = forgotten.reason,
                error = chain(&error),
                "the database forgot commits, and paid sends cannot be stopped"
            );
        }
    }
}

/// Looks until told to stop; with `cluster`, also whether this is still the same cluster.
pub async fn watch_continuity(db: Db, by: String, cluster: bool, stop: CancellationToken) {
    let mut ask_cluster = cluster;
    loop {
        // Not cut off half-way: a stop that is being written is written.
        db.check_continuity(&by).await;
        if ask_cluster {
            match db.cluster_changed().await {
                Ok(None) => {}
                Ok(Some(forgotten)) => db.stop_seen(&forgotten, &by).await,
                Err(error) if error.is_transient() => {}
                Err(error) => {
                    tracing::warn!(
                        error = chain(&error),
                        "cannot ask which database cluster this is; a failover is not noticed by that"
                    );
                    ask_cluster = false;
                }
            }
        }
        let pause = tokio::time::sleep(WATCH_INTERVAL);
        if stop.run_until_cancelled(pause).await.is_none() {
            return;
        }
    }
}
