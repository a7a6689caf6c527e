//! What a worker measures about its own runs. Fleet-wide gauges are the producer's.

use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts, Registry,
    exponential_buckets, register_histogram_vec_with_registry, register_histogram_with_registry,
    register_int_counter_vec_with_registry, register_int_gauge_vec_with_registry,
};

/// The worker's metrics. Cheap to clone.
#[derive(Clone)]
pub struct Metrics {
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
    pub last_delivery: IntGaugeVec,
}

impl Metrics {
    /// Registers all metrics; series that alerts look at start at zero.
    ///
    /// # Errors
    /// When a name is taken.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let seconds = exponential_buckets(0.005, 4.0, 11)?;
        let metrics = Self {
            stage_runs: register_int_counter_vec_with_registry!(
                Opts::new("stage_runs_total", "Runs of a stage by outcome"),
                &["stage", "outcome"],
                registry
            )?,
            stage_duration: register_histogram_vec_with_registry!(
                HistogramOpts::new("stage_duration_seconds", "From delivery to settled")
                    .buckets(seconds),
                &["stage"],
                registry
            )?,
            job_duration: register_histogram_vec_with_registry!(
                HistogramOpts::new(
                    "job_duration_seconds",
                    "From creation to completed or failed"
                )
                .buckets(exponential_buckets(15.0, 2.5, 11)?),
                &["outcome"],
                registry
            )?,
            settle_batch: register_histogram_with_registry!(
                HistogramOpts::new("settle_batch_size", "Settlements per transaction")
                    .buckets(exponential_buckets(1.0, 2.0, 6)?),
                registry
            )?,
            stale_references: register_int_counter_vec_with_registry!(
                Opts::new(
                    "stale_references_total",
                    "References whose stage or epoch no longer matched"
                ),
                &["stage"],
                registry
            )?,
            submissions: register_int_counter_vec_with_registry!(
                Opts::new(
                    "submissions_total",
                    "Submissions by the ledger state they reached"
                ),
                &["vendor", "outcome"],
                registry
            )?,
            duplicate_submissions: register_int_counter_vec_with_registry!(
                Opts::new(
                    "duplicate_submissions_total",
                    "Works paid twice; must stay 0"
                ),
                &["vendor"],
                registry
            )?,
            duplicates_prevented: register_int_counter_vec_with_registry!(
                Opts::new(
                    "duplicates_prevented_total",
                    "Second payments that a guard prevented"
                ),
                &["vendor", "how"],
                registry
            )?,
            last_delivery: register_int_gauge_vec_with_registry!(
                Opts::new(
                    "consumer_last_delivery_timestamp_seconds",
                    "When a stage last got a delivery"
                ),
                &["stage"],
                registry
            )?,
        };
        for vendor in shared::domain::Vendor::ALL {
            metrics
                .duplicate_submissions
                .with_label_values(&[vendor.as_str()])
                .inc_by(0);
        }
        Ok(metrics)
    }
}
