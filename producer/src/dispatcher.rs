//! Turns due rows into messages: pick and commit, publish, put back what the broker did not take.
//!
//! A crash between the commit and the publish costs a lease, never a job. Nothing here decides what a job does.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounterVec, Opts,
    register_histogram_vec_with_registry, register_histogram_with_registry,
    register_int_counter_vec_with_registry,
};
use shared::broker::{Outgoing, PublishOutcome, Publisher};
use shared::config::{DatabaseConfig, ProtocolConfig};
use shared::crash::{self, Point};
use shared::db::{self, Db, DbResult, Picked};
use shared::domain::message::{JobRef, Message};
use shared::domain::{Stage, Vendor};
use shared::telemetry::{Registry, STAGE_SECONDS, chain, trace};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::Span;
use uuid::Uuid;

use crate::config::DispatchConfig;

/// Until rows that the broker did not take are due again: a full queue, a lost confirm.
const NOT_TAKEN_WAIT: Duration = Duration::from_secs(1);
/// The same where no queue is bound: somebody has to repair the topology.
const RETURNED_WAIT: Duration = Duration::from_secs(15);
/// Between tries to dispatch while the database is away.
const LONGEST_WAIT: Duration = Duration::from_secs(10);
/// Between tries to listen.
const LISTEN_WAIT: Duration = Duration::from_secs(2);

/// Upper bounds in seconds: a batch is a query and its confirms, which may take the confirm timeout.
const BATCH_SECONDS: [f64; 9] = [0.002, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0];

/// What dispatch measures.
#[derive(Clone)]
pub struct Metrics {
    published: IntCounterVec,
    batch_seconds: Histogram,
    stage_wait: HistogramVec,
}

impl Metrics {
    /// Registers the metrics.
    ///
    /// # Errors
    /// When a name is taken.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        Ok(Self {
            published: register_int_counter_vec_with_registry!(
                Opts::new("published_total", "Messages by what the broker said"),
                &["outcome"],
                registry
            )?,
            batch_seconds: register_histogram_with_registry!(
                HistogramOpts::new(
                    "dispatch_batch_seconds",
                    "From picking a batch to its last confirm"
                )
                .buckets(BATCH_SECONDS.to_vec()),
                registry
            )?,
            stage_wait: register_histogram_vec_with_registry!(
                HistogramOpts::new("stage_wait_seconds", "From due to dispatched")
                    .buckets(STAGE_SECONDS.to_vec()),
                &["stage"],
                registry
            )?,
        })
    }
}

/// Dispatches every stage.
#[derive(Clone)]
pub struct Dispatcher {
    /// Database.
    pub db: Db,
    /// Where messages go.
    pub publisher: Arc<Publisher>,
    /// How much, how often.
    pub config: DispatchConfig,
    /// Leases.
    pub protocol: ProtocolConfig,
    /// Account names, to see whether a vendor is paused.
    pub accounts: Accounts,
    /// Metrics.
    pub metrics: Metrics,
}

/// Our accounts at the vendors.
#[derive(Clone)]
pub struct Accounts {
    /// At Sync.so.
    pub sync: String,
    /// At GhostCut.
    pub ghostcut: String,
}

impl Accounts {
    /// The account at a vendor.
    #[must_use]
    pub fn of(&self, vendor: Vendor) -> &str {
        match vendor {
            Vendor::Sync => &self.sync,
            Vendor::Ghostcut => &self.ghostcut,
        }
    }
}

/// What a batch came to.
enum Taken {
    /// The broker took a full one: there may be more.
    Batch,
    /// It took all there was, or not everything: going on at once would pick and put back the whole backlog at full speed.
    Rest,
}

impl Dispatcher {
    /// Dispatches one stage until told to stop: when something became due, and by the timer in any case.
    pub async fn run(self, stage: Stage, mut due: watch::Receiver<u64>, stop: CancellationToken) {
        let mut wait = self.config.dispatch_interval;
        loop {
            match self.dispatch(stage).await {
                Ok(Taken::Batch) => continue,
                Ok(Taken::Rest) => wait = self.config.dispatch_interval,
                Err(error) => {
                    tracing::warn!(%stage, error = chain(&error), "cannot dispatch");
                    wait = (wait * 2).min(LONGEST_WAIT.max(self.config.dispatch_interval));
                }
            }
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                changed = due.changed() => if changed.is_err() { return },
                () = stop.cancelled() => return,
            }
        }
    }

    /// Dispatches a batch of what is due now.
    async fn dispatch(&self, stage: Stage) -> DbResult<Taken> {
        // Marking rows that cannot be published would only make them wait for their lease.
        if !self.publisher.can_publish() {
            return Ok(Taken::Rest);
        }
        let timer = self.metrics.batch_seconds.start_timer();
        let paid_by = stage
            .pays()
            .map(|vendor| (vendor, self.accounts.of(vendor)));
        let (limit, depth) = (
            i64::from(self.config.dispatch_batch),
            i64::from(self.config.dispatch_depth),
        );
        let picked = self
            .db
            .pick_due(stage, limit, depth, self.protocol.stage_lease, paid_by)
            .await?;
        if picked.is_empty() {
            timer.stop_and_discard();
            return Ok(Taken::Rest);
        }
        let wait = self.metrics.stage_wait.with_label_values(&[stage.as_str()]);
        for row in &picked {
            wait.observe(
                std::time::Duration::from_millis(row.late_ms.max(0).unsigned_abs()).as_secs_f64(),
            );
        }
        // Killed here: the rows are due again after their lease.
        crash::point(Point::DuePicked);
        let all_taken = self.publish(stage, &picked).await?;
        timer.observe_duration();
        Ok(
            if all_taken && picked.len() == self.config.dispatch_batch as usize {
                Taken::Batch
            } else {
                Taken::Rest
            },
        )
    }

    /// Publishes, and puts back what the broker did not take. Says whether it took everything.
    async fn publish(&self, stage: Stage, picked: &[Picked]) -> DbResult<bool> {
        let groups: Vec<&[Picked]> = picked.chunks(stage.jobs_per_message()).collect();
        // Until every confirm is in.
        let spans: Vec<Span> = groups.iter().map(|group| span(stage, group)).collect();
        let messages: Vec<Outgoing> = groups
            .iter()
            .zip(&spans)
            .map(|(group, span)| message(stage, group, span))
            .collect();
        // Model: step Publish.
        let outcomes = self.publisher.publish(stage, &messages).await;
        drop(spans);
        crash::point(Point::PublishAnswered);
        let (mut refused, mut returned) = (Vec::new(), Vec::new());
        for (group, outcome) in groups.iter().zip(&outcomes) {
            self.metrics
                .published
                .with_label_values(&[outcome.as_str()])
                .inc();
            match outcome {
                PublishOutcome::Confirmed => {}
                PublishOutcome::Returned => returned.extend_from_slice(group),
                PublishOutcome::Nacked | PublishOutcome::Lost => refused.extend_from_slice(group),
            }
        }
        let all_taken = refused.is_empty() && returned.is_empty();
        for (rows, wait) in [(refused, NOT_TAKEN_WAIT), (returned, RETURNED_WAIT)] {
            if !rows.is_empty() {
                tracing::warn!(%stage, jobs = rows.len(), "the broker did not take messages; putting their jobs back");
                self.db.put_back(stage, &rows, wait).await?;
            }
        }
        Ok(all_taken)
    }
}

fn span(stage: Stage, group: &[Picked]) -> Span {
    let jobs: Vec<Uuid> = group.iter().map(|row| row.job_id).collect();
    trace::dispatch(stage, &jobs)
}

fn message(stage: Stage, group: &[Picked], span: &Span) -> Outgoing {
    let jobs = group
        .iter()
        .map(|row| JobRef {
            id: row.job_id,
            epoch: row.epoch,
        })
        .collect();
    Outgoing {
        message_id: Uuid::new_v4(),
        body: Message { stage, jobs }.encode().into(),
        traceparent: trace::traceparent(span),
    }
}

/// Passes the database's hints on to the dispatchers until told to stop. While it cannot listen, the timer serves.
pub async fn listen(config: DatabaseConfig, due: watch::Sender<u64>, stop: CancellationToken) {
    let hear = async {
        loop {
            match db::listen(&config).await {
                Ok(mut connection) => {
                    let mut hints = std::pin::pin!(connection.notifications_stream());
                    while let Some(Ok(_)) = hints.next().await {
                        due.send_modify(|count| *count += 1);
                    }
                    tracing::warn!("stopped hearing what becomes due; connecting again");
                }
                Err(error) => {
                    tracing::warn!(error = chain(&error), "cannot listen for what becomes due")
                }
            }
            tokio::time::sleep(LISTEN_WAIT).await;
        }
    };
    stop.run_until_cancelled(hear).await;
}
