//! The worker's row in the list of workers: that it is there, what it has in hand, whether it can work. For people; nothing of a job
//! waits for it or depends on it, and a worker whose row cannot be written works on.

use serde_json::json;
use shared::crash::{self, Point};
use shared::db::{Db, WorkerBeat};
use shared::service::{Check, why_not_ready};
use shared::telemetry::chain;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::config::WorkConfig;
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
    /// Told to stop: it takes nothing new.
    pub drain: CancellationToken,
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
            let draining = self.drain.is_cancelled();
            // Not cut off half-way: only the pause ends early.
            let written = self.write(id, draining).await;
            self.metrics.heartbeat(written.is_ok());
            match written {
                Ok(()) => {
                    away = false;
                    crash::point(Point::WorkerSeen);
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
                () = self.drain.cancelled(), if !draining => {}
                () = ended.cancelled() => {}
            }
        }
    }

    async fn write(&self, id: Uuid, draining: bool) -> shared::db::DbResult<()> {
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

impl Beating {
    /// Ends it and removes the row, while `abort` lets it: a database that is away must not keep a worker from stopping.
    pub async fn end(mut self, abort: &CancellationToken) {
        self.ended.cancel();
        let end = async {
            let _ = (&mut self.task).await;
            match self.db.worker_left(self.id).await {
                Ok(()) => crash::point(Point::WorkerLeft),
                Err(error) => tracing::warn!(
                    error = chain(&error),
                    "cannot remove this worker from the list; it will be shown as lost"
                ),
            }
        };
        abort.run_until_cancelled(end).await;
    }
}

impl Drop for Beating {
    fn drop(&mut self) {
        self.task.abort();
    }
}
