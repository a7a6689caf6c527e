//! The worker's row in the list of workers: that it is there, what it has in hand, whether it can work. For people; nothing of a job
//! waits for it or depends on it, and a worker whose row cannot be written works on.
//!
//! The same statement brings back what an operator asks of this worker, so that it is done within a heartbeat. What is asked is a state
//! and not an event: read twice, or late, it means the same. While the database is away the last word stands.

use std::time::Duration;

use serde_json::json;
use shared::crash::{self, Point};
use shared::db::{Db, DbResult, WorkerBeat};
use shared::domain::worker_order::WorkerWish;
use shared::service::{Check, Stopper, why_not_ready};
use shared::telemetry::chain;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::config::WorkConfig;
use crate::gate::Gate;
use crate::metrics::Metrics;
use crate::readiness::Pulse;

/// Writes the row of one worker.
pub struct Heartbeat {
    /// Database.
    pub db: Db,
    /// The worker's name in trails and at the broker.
    pub name: String,
    /// What it runs.
    pub work: WorkConfig,
    /// How its consumers are doing.
    pub pulses: Vec<Pulse>,
    /// What `/readyz` asks.
    pub checks: Vec<Check>,
    /// Counts.
    pub metrics: Metrics,
    /// The two phases of a stop.
    pub stopper: Stopper,
    /// How long an operator's stop lets it finish what is in hand.
    pub grace: Duration,
    /// Whether anything new is taken.
    pub gate: Gate,
}

/// A heartbeat that goes on. Dropped without [`Beating::end`], as in a crash, it leaves its row behind.
pub struct Beating {
    id: Uuid,
    db: Db,
    ended: CancellationToken,
    task: JoinHandle<()>,
}

impl Heartbeat {
    /// Begins to write the row, in a task of its own.
    #[must_use]
    pub fn begin(self) -> Beating {
        let (id, ended) = (Uuid::new_v4(), CancellationToken::new());
        Beating {
            id,
            db: self.db.clone(),
            ended: ended.clone(),
            task: tokio::spawn(self.run(id, ended)),
        }
    }

    async fn run(self, id: Uuid, ended: CancellationToken) {
        let mut away = false;
        while !ended.is_cancelled() {
            let drain = &self.stopper.drain;
            let draining = drain.is_cancelled();
            // Not cut off half-way: only the pause ends early.
            let written = self.write(id, draining).await;
            self.metrics.heartbeat(written.is_ok());
            match written {
                Ok(wish) => {
                    away = false;
                    crash::point(Point::WorkerSeen);
                    self.heed(wish);
                }
                Err(error) if !away => {
                    away = true;
                    tracing::warn!(
                        error = chain(&error),
                        "cannot write that this worker is there; it works on"
                    );
                }
                Err(_) => {}
            }
            tokio::select! {
                () = tokio::time::sleep(self.work.worker_heartbeat) => {}
                () = drain.cancelled(), if !draining => {}
                () = self.gate.heeded() => {}
                () = ended.cancelled() => {}
            }
        }
    }

    /// Does what is asked, unless it is done already. After a stop nothing else counts.
    fn heed(&self, wish: Option<WorkerWish>) {
        let is_done = match wish {
            Some(WorkerWish::Quiet) => self.gate.is_closed(),
            Some(WorkerWish::Stop) => false,
            None => !self.gate.is_closed(),
        };
        if is_done || self.stopper.drain.is_cancelled() {
            return;
        }
        crash::point(Point::OrderRead);
        match wish {
            Some(WorkerWish::Quiet) => {
                tracing::info!("asked to be quiet: taking nothing new");
                self.gate.close();
            }
            Some(WorkerWish::Stop) => {
                let grace_seconds = self.grace.as_secs();
                tracing::info!(grace_seconds, "asked to stop: finishing what is in hand");
                let (stopper, grace) = (self.stopper.clone(), self.grace);
                tokio::spawn(async move { stopper.stop(grace).await });
            }
            None => {
                tracing::info!("asked to go on: taking work again");
                self.gate.open();
            }
        }
    }

    async fn write(&self, id: Uuid, draining: bool) -> DbResult<Option<WorkerWish>> {
        let quiet = self.pulses.iter().all(Pulse::is_at_rest);
        self.metrics.quiet.set(quiet.into());
        let why_not_ready = why_not_ready(&self.checks).await;
        let in_hand = self.pulses.iter().filter(|pulse| !pulse.in_hand.is_empty());
        let in_hand: Vec<_> = in_hand
            .map(|pulse| json!({ "stage": pulse.stage, "count": pulse.in_hand.len() }))
            .collect();
        let beat = WorkerBeat {
            id,
            name: &self.name,
            version: env!("CARGO_PKG_VERSION"),
            every: self.work.worker_heartbeat,
            draining,
            quiet,
            stages: self
                .work
                .stages()
                .iter()
                .map(|stage| stage.as_str())
                .collect(),
            concurrency: self.work.concurrency.into(),
            transfers: self.work.transfers.into(),
            in_hand: in_hand.into(),
            last_delivery_at: self.pulses.iter().filter_map(Pulse::last_delivery_at).max(),
            why_not_ready,
        };
        self.db.worker_seen(&beat).await
    }
}

/// How long its last word may take: a database that is away must not keep a worker from stopping.
const LAST_WORD: Duration = Duration::from_secs(2);

impl Beating {
    /// Ends it and writes that the worker has stopped, also when its grace is over.
    pub async fn end(mut self) {
        self.ended.cancel();
        let end = async {
            let _ = (&mut self.task).await;
            match self.db.worker_left(self.id).await {
                Ok(()) => crash::point(Point::WorkerLeft),
                Err(error) => tracing::warn!(
                    error = chain(&error),
                    "cannot write that this worker has stopped; it will be shown as lost"
                ),
            }
        };
        let _ = tokio::time::timeout(LAST_WORD, end).await;
    }
}

impl Drop for Beating {
    fn drop(&mut self) {
        self.task.abort();
    }
}
