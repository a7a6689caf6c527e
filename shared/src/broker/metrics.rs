//! The broker's own metrics. Outcomes of publishing and of stages are counted by those who decide them.

use prometheus::{IntCounter, IntCounterVec, Opts};

use crate::telemetry::Registry;

/// Counters of this module, registered once per process.
#[derive(Clone, Debug)]
pub struct BrokerMetrics {
    pub(super) connection_reconnects: IntCounter,
    pub(super) consumer_reconnects: IntCounter,
}

impl BrokerMetrics {
    /// Creates the counters in `registry`, at zero.
    ///
    /// # Errors
    /// When they are registered there already.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let opts = Opts::new(
            "broker_reconnects_total",
            "Times a connection to RabbitMQ, or a consumer on a sound connection, was lost and re-established.",
        );
        let reconnects = IntCounterVec::new(opts, &["part"])?;
        registry.register(Box::new(reconnects.clone()))?;
        Ok(Self {
            connection_reconnects: reconnects.with_label_values(&["connection"]),
            consumer_reconnects: reconnects.with_label_values(&["consumer"]),
        })
    }
}
