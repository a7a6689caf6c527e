//! Counts and durations of the requests to the vendors.

use std::time::Duration;

use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, Opts};

use crate::domain::Vendor;
use crate::domain::answer::SubmitAnswer;
use crate::domain::classify::ErrorClass;
use crate::telemetry::Registry;

/// Upper bounds in seconds: status calls take tenths, a submit may take the whole request timeout.
const BUCKETS: [f64; 9] = [0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0];

/// `vendor_requests_total` and `vendor_request_duration_seconds`; the registry gives all names their prefix.
#[derive(Clone, Debug)]
pub struct Metrics {
    requests: IntCounterVec,
    duration: HistogramVec,
}

impl Metrics {
    /// Registers both; once per process, then cloned into each client.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let requests = IntCounterVec::new(
            Opts::new(
                "vendor_requests_total",
                "Requests to a vendor by what they came to.",
            ),
            &["vendor", "operation", "outcome"],
        )?;
        let duration = HistogramVec::new(
            HistogramOpts::new(
                "vendor_request_duration_seconds",
                "Time from sending a request to a vendor until its answer was read or given up.",
            )
            .buckets(BUCKETS.to_vec()),
            &["vendor", "operation"],
        )?;
        registry.register(Box::new(requests.clone()))?;
        registry.register(Box::new(duration.clone()))?;
        Ok(Self { requests, duration })
    }

    pub(super) fn observe(&self, vendor: Vendor, operation: &str, outcome: &str, took: Duration) {
        let vendor = vendor.as_str();
        self.requests
            .with_label_values(&[vendor, operation, outcome])
            .inc();
        self.duration
            .with_label_values(&[vendor, operation])
            .observe(took.as_secs_f64());
    }
}

/// The `outcome` of a paid call.
pub(super) const fn paid_outcome(answer: &SubmitAnswer) -> &'static str {
    match answer {
        SubmitAnswer::Accepted { .. } => "accepted",
        SubmitAnswer::NotSent { .. } => "not_sent",
        SubmitAnswer::Rejected { .. } => "rejected",
        SubmitAnswer::Throttled { .. } => "throttled",
        SubmitAnswer::Misconfigured { .. } => "misconfigured",
        SubmitAnswer::OutOfCredit { .. } => "out_of_credit",
        SubmitAnswer::Unknown { .. } => "unknown",
    }
}

/// The `outcome` of a free call that failed.
pub(super) const fn error_outcome(class: ErrorClass) -> &'static str {
    match class {
        ErrorClass::Transient => "transient",
        ErrorClass::Throttled { .. } => "throttled",
        ErrorClass::Misconfigured => "misconfigured",
        ErrorClass::NotFound => "not_found",
        ErrorClass::Protocol => "protocol",
    }
}
