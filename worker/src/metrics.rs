//! What a worker measures: its own runs here, the rest with its adapters. Fleet-wide gauges are the producer's.

use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    register_histogram_vec_with_registry, register_histogram_with_registry,
    register_int_counter_vec_with_registry, register_int_gauge_vec_with_registry,
    register_int_gauge_with_registry,
};
use shared::broker::BrokerMetrics;
use shared::domain::{Stage, Vendor};
use shared::telemetry::{Registry, STAGE_SECONDS};
use shared::{db, vendor};

/// Upper bounds in seconds: a job takes minutes at its vendors, hours behind others, days when somebody has to decide.
const JOB_SECONDS: [f64; 12] = [
    15.0, 60.0, 120.0, 300.0, 600.0, 1200.0, 1800.0, 3600.0, 10_800.0, 28_800.0, 86_400.0,
    259_200.0,
];

/// Upper bounds in settlements: at most a group is settled together.
const SETTLEMENTS: [f64; 6] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0];

/// The label's values, by whether it was.
const REDELIVERED: [&str; 2] = ["no", "yes"];

/// The worker's metrics. Cheap to clone.
#[derive(Clone)]
pub struct Metrics {
    /// Messages that were taken, and whether they had been delivered before.
    deliveries: IntCounterVec,
    /// Runs of a stage by what they came to.
    pub stage_runs: IntCounterVec,
    /// Time from delivery to settled.
    pub stage_duration: HistogramVec,
    /// Time from a job's creation to its end.
    pub job_duration: HistogramVec,
    /// Settlements per transaction.
    pub settle_batch: Histogram,
    /// References that no longer matched their row.
    pub stale_references: IntCounterVec,
    /// Submissions by ledger state reached.
    pub submissions: IntCounterVec,
    /// Works that were paid twice. Must stay 0.
    pub duplicate_submissions: IntCounterVec,
    /// Second payments that a guard prevented, by guard.
    pub duplicates_prevented: IntCounterVec,
    /// When a stage last got a delivery, in seconds since 1970.
    last_delivery: IntGaugeVec,
    /// 1 while a stage gets nothing although it could take messages and its queue has some.
    pub deaf: IntGaugeVec,
    /// 1 while nothing new is taken because an operator asked for it.
    pub quiet: IntGauge,
    /// Signs of life that were written, or could not be.
    heartbeats: IntCounterVec,
    /// Of the connection to RabbitMQ.
    pub broker: BrokerMetrics,
    /// Of the database pool.
    pub db: db::Metrics,
    /// Of the requests to the vendors.
    pub vendor: vendor::Metrics,
}

impl Metrics {
    /// Registers all metrics; series that alerts look at start at zero.
    ///
    /// # Errors
    /// When a name is taken.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counter = |name, help, labels: &[&str]| {
            register_int_counter_vec_with_registry!(Opts::new(name, help), labels, registry)
        };
        let gauge = |name, help, labels: &[&str]| {
            register_int_gauge_vec_with_registry!(Opts::new(name, help), labels, registry)
        };
        let histogram = |name, help, labels: &[&str], buckets: &[f64]| {
            register_histogram_vec_with_registry!(
                HistogramOpts::new(name, help).buckets(buckets.to_vec()),
                labels,
                registry
            )
        };
        let metrics = Self {
            deliveries: counter(
                "deliveries_total",
                "Messages taken from a stage's queue; redelivered when somebody had them before and did not acknowledge",
                &["stage", "redelivered"],
            )?,
            stage_runs: counter(
                "stage_runs_total",
                "Runs of a stage by outcome",
                &["stage", "outcome"],
            )?,
            stage_duration: histogram(
                "stage_duration_seconds",
                "From delivery to settled",
                &["stage"],
                &STAGE_SECONDS,
            )?,
            job_duration: histogram(
                "job_duration_seconds",
                "From creation to completed or failed",
                &["outcome"],
                &JOB_SECONDS,
            )?,
            settle_batch: register_histogram_with_registry!(
                HistogramOpts::new("settle_batch_size", "Settlements per transaction")
                    .buckets(SETTLEMENTS.to_vec()),
                registry
            )?,
            stale_references: counter(
                "stale_references_total",
                "References whose stage or epoch no longer matched",
                &["stage"],
            )?,
            submissions: counter(
                "submissions_total",
                "Submissions by the ledger state they reached",
                &["vendor", "outcome"],
            )?,
            duplicate_submissions: counter(
                "duplicate_submissions_total",
                "Works paid for twice; must stay 0",
                &["vendor"],
            )?,
            duplicates_prevented: counter(
                "duplicates_prevented_total",
                "Second payments that a guard prevented",
                &["vendor", "how"],
            )?,
            last_delivery: gauge(
                "consumer_last_delivery_timestamp_seconds",
                "When a stage last got a delivery",
                &["stage"],
            )?,
            deaf: gauge(
                "consumer_deaf",
                "1 while a stage gets nothing although it has hands free and messages wait in its queue",
                &["stage"],
            )?,
            quiet: register_int_gauge_with_registry!(
                "worker_quiet",
                "1 while a worker takes nothing new because an operator asked it to be quiet",
                registry
            )?,
            heartbeats: counter(
                "heartbeats_total",
                "Times a worker wrote into the list of workers that it is there, or could not",
                &["outcome"],
            )?,
            broker: BrokerMetrics::register(registry)?,
            db: db::Metrics::register(registry)?,
            vendor: vendor::Metrics::register(registry)?,
        };
        // An alert on an increase misses the first one of a series that was not there.
        for vendor in Vendor::ALL {
            metrics
                .duplicate_submissions
                .with_label_values(&[vendor.as_str()]);
            for how in ["adopted", "imported", "occupied", "stale"] {
                metrics
                    .duplicates_prevented
                    .with_label_values(&[vendor.as_str(), how]);
            }
        }
        Ok(metrics)
    }

    /// Shows a stage's deliveries from zero on: that nobody takes any is what an alert looks for.
    pub fn consumes(&self, stage: Stage) {
        for redelivered in REDELIVERED {
            self.deliveries
                .with_label_values(&[stage.as_str(), redelivered]);
        }
        self.deaf.with_label_values(&[stage.as_str()]);
    }

    /// Counts a sign of life.
    pub fn heartbeat(&self, written: bool) {
        let outcome = if written { "ok" } else { "failed" };
        self.heartbeats.with_label_values(&[outcome]).inc();
    }

    /// Counts a delivery.
    pub fn delivered(&self, stage: Stage, redelivered: bool) {
        self.deliveries
            .with_label_values(&[stage.as_str(), REDELIVERED[usize::from(redelivered)]])
            .inc();
        self.last_delivery
            .with_label_values(&[stage.as_str()])
            .set(chrono::Utc::now().timestamp());
    }
}
