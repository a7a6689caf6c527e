//! Removes what is old, on a timer and for `producer retention`: rows, bytes of ended requests, objects and uploads in the bucket
//! that nobody needs any more.
//!
//! What of a table may go is `db::retention`'s to say. Piece by piece, oldest first, each piece for itself: killed anywhere, or done by
//! two at once, it is simply done again.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context as _;
use chrono::{DateTime, TimeDelta, Utc};
use prometheus::{
    Gauge, IntCounterVec, Opts, register_gauge_with_registry,
    register_int_counter_vec_with_registry,
};
use serde::Serialize;
use shared::crash::{self, Point};
use shared::db::Db;
use shared::domain::retention::Kind;
use shared::storage::{Key, Storage};
use shared::telemetry::{Registry, chain};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::config::RetentionConfig;

/// Rows in one statement.
const PIECE: i64 = 1000;
/// Objects between two looks whether to stop.
const OBJECTS: i64 = 100;

/// Who sweeps, in the settings.
const ACTOR: &str = "retention";

/// What a sweep needs.
#[derive(Clone)]
pub struct Remover {
    /// Database.
    pub db: Db,
    /// The bucket.
    pub storage: Storage,
    /// How old it has to be.
    pub config: RetentionConfig,
}

/// What a sweep came to.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Swept {
    /// What went, or would, by kind; kinds that are kept for ever are not in it.
    pub removed: BTreeMap<&'static str, u64>,
    /// Kinds that could not be finished, and why.
    pub failed: BTreeMap<&'static str, String>,
}

/// A sweep under way. Between two pieces it is asked whether to go on.
struct Sweep<'a> {
    remover: &'a Remover,
    dry_run: bool,
    run: Option<Uuid>,
    stop: &'a CancellationToken,
    count: u64,
}

impl Remover {
    /// Goes through all kinds once; with `dry_run` it only counts. What one kind fails with keeps no other from going. `run` is a
    /// sweep that was begun in the database, and is told that it goes on.
    ///
    /// # Errors
    /// When the database does not tell the time.
    pub async fn sweep(
        &self,
        dry_run: bool,
        run: Option<Uuid>,
        stop: &CancellationToken,
    ) -> anyhow::Result<Swept> {
        let now = self.db.now().await?;
        let mut swept = Swept::default();
        for kind in Kind::ALL {
            let Some(age) = self.config.keep(*kind).0 else {
                continue;
            };
            let before = now - TimeDelta::from_std(age)?;
            let mut sweep = Sweep {
                remover: self,
                dry_run,
                run,
                stop,
                count: 0,
            };
            let ended = match kind {
                Kind::Sources => sweep.sources(before).await,
                Kind::Uploads => sweep.uploads(before).await,
                kind => sweep.rows(*kind, before).await,
            };
            swept.removed.insert(kind.as_str(), sweep.count);
            if let Err(error) = ended {
                let told: Vec<_> = error.chain().map(ToString::to_string).collect();
                swept.failed.insert(kind.as_str(), told.join(": "));
            }
        }
        Ok(swept)
    }
}

impl Sweep<'_> {
    /// Whether to go on; false when told to stop, or when another sweep took the place of this one.
    async fn goes_on(&self) -> anyhow::Result<bool> {
        if self.stop.is_cancelled() {
            return Ok(false);
        }
        match self.run {
            Some(run) => Ok(self.remover.db.renew_retention(run).await?),
            None => Ok(true),
        }
    }

    async fn rows(&mut self, kind: Kind, before: DateTime<Utc>) -> anyhow::Result<()> {
        let mut after = None;
        while self.goes_on().await? {
            let piece = self
                .remover
                .db
                .remove_old(kind, before, after.as_ref(), PIECE, self.dry_run)
                .await?;
            self.count += u64::try_from(piece.removed)?;
            if !self.dry_run && piece.removed > 0 {
                crash::point(Point::OldRemoved);
            }
            if piece.looked_at < PIECE {
                break;
            }
            after = piece.last();
        }
        Ok(())
    }

    /// Sources of submissions that have ended. Killed after the deletion: the object is deleted again, which is success.
    async fn sources(&mut self, before: DateTime<Utc>) -> anyhow::Result<()> {
        let Remover { db, storage, .. } = self.remover;
        let mut last = None;
        while self.goes_on().await? {
            let sources = db.old_sources(before, last.as_ref(), OBJECTS).await?;
            for source in &sources {
                // Only what was made for this submission alone.
                let own = matches!(Key::parse(&source.key), Some(Key::SubmissionSource { token, .. }) if token == source.token);
                if !own {
                    continue;
                }
                if !self.dry_run {
                    storage.delete(&source.key).await?;
                    crash::point(Point::OldSourceDeleted);
                    db.record_source_deleted(source.token).await?;
                }
                self.count += 1;
            }
            if (sources.len() as i64) < OBJECTS {
                break;
            }
            last = sources.into_iter().next_back();
        }
        Ok(())
    }

    /// Uploads that a process which died has left, under keys of the fleet.
    async fn uploads(&mut self, before: DateTime<Utc>) -> anyhow::Result<()> {
        let storage = &self.remover.storage;
        for prefix in Key::PREFIXES {
            let mut next = None;
            while self.goes_on().await? {
                let page = storage
                    .running_uploads(prefix, next.as_ref())
                    .await
                    .context("uploads are listed with the right s3:ListBucketMultipartUploads")?;
                for upload in &page.uploads {
                    if upload.begun >= before || Key::parse(&upload.key).is_none() {
                        continue;
                    }
                    if !self.dry_run {
                        let aborted = storage.abort_upload(&upload.key, &upload.id).await;
                        aborted
                            .context("uploads are ended with the right s3:AbortMultipartUpload")?;
                    }
                    self.count += 1;
                }
                next = page.next;
                if next.is_none() {
                    break;
                }
            }
        }
        Ok(())
    }
}

/// What sweeps have removed.
pub struct Metrics {
    removed: IntCounterVec,
    last_success: Gauge,
}

impl Metrics {
    /// Registers them.
    ///
    /// # Errors
    /// When a name is taken.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let removed = register_int_counter_vec_with_registry!(
            Opts::new(
                "retention_removed_total",
                "Old rows, request bodies, objects and uploads that this process has removed"
            ),
            &["kind"],
            registry
        )?;
        for kind in Kind::ALL {
            removed.with_label_values(&[kind.as_str()]);
        }
        Ok(Self {
            removed,
            last_success: register_gauge_with_registry!(
                "retention_last_success_timestamp_seconds",
                "When old things were last removed without an error, by any producer; 0 when never, NaN while that is switched off",
                registry
            )?,
        })
    }

    /// Nothing is removed, and nobody is to be told that it is overdue.
    pub fn switched_off(&self) {
        self.last_success.set(f64::NAN);
    }
}

/// Removes what is old on a timer. Of several producers one does it at a time.
pub struct RetentionSweep {
    /// What it needs.
    pub remover: Remover,
    /// From the end of one sweep to the begin of the next; zero for never.
    pub interval: Duration,
    /// What it has done.
    pub metrics: Metrics,
}

impl RetentionSweep {
    /// Looks every `every` whether a sweep is due, until told to stop.
    pub async fn run(self, every: Duration, stop: CancellationToken) {
        loop {
            // Not cut off half-way: a sweep ends between two pieces.
            if let Err(error) = self.sweep_when_due(&stop).await {
                tracing::warn!("cannot remove what is old: {error:#}");
            }
            match self.remover.db.last_retention().await {
                Ok(last) => {
                    let seconds = last.map_or(0, |last| last.timestamp());
                    self.metrics.last_success.set(seconds as f64);
                }
                Err(error) => tracing::debug!(error = chain(&error), "cannot read the last sweep"),
            }
            if stop
                .run_until_cancelled(tokio::time::sleep(every))
                .await
                .is_none()
            {
                return;
            }
        }
    }

    async fn sweep_when_due(&self, stop: &CancellationToken) -> anyhow::Result<()> {
        let db = &self.remover.db;
        let Some(run) = db.begin_retention(ACTOR, self.interval).await? else {
            return Ok(());
        };
        // Killed from here on: another one begins when this one has given no sign for some minutes.
        crash::point(Point::RetentionBegun);
        let swept = self.remover.sweep(false, Some(run), stop).await;
        let succeeded = swept.as_ref().is_ok_and(|swept| swept.failed.is_empty());
        if let Ok(swept) = &swept {
            self.count(swept);
        }
        // A sweep that was stopped is not finished: whoever is left goes on when it is taken to be dead.
        if !stop.is_cancelled() {
            db.end_retention(run, succeeded).await?;
        }
        swept.map(drop)
    }

    fn count(&self, swept: &Swept) {
        for (kind, count) in &swept.removed {
            self.metrics
                .removed
                .with_label_values(&[kind])
                .inc_by(*count);
        }
        for (kind, error) in &swept.failed {
            tracing::warn!(kind, error, "old things could not be removed");
        }
        tracing::info!(removed = ?swept.removed, "old things are removed");
    }
}
