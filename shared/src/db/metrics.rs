//! What is measured of the connection pool.

use prometheus::{Histogram, HistogramOpts, register_histogram_with_registry};

use crate::telemetry::Registry;

/// Upper bounds in seconds: a free connection is there at once; nobody waits longer than the connect timeout.
const BUCKETS: [f64; 9] = [0.0005, 0.002, 0.01, 0.05, 0.25, 1.0, 2.5, 5.0, 10.0];

/// `db_pool_wait_seconds`. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Metrics {
    pub(super) pool_wait: Histogram,
}

impl Metrics {
    /// Registers it.
    ///
    /// # Errors
    /// When the name is taken.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        Ok(Self {
            pool_wait: register_histogram_with_registry!(
                HistogramOpts::new(
                    "db_pool_wait_seconds",
                    "How long a query waited for a database connection, new ones and failures included"
                )
                .buckets(BUCKETS.to_vec()),
                registry
            )?,
        })
    }
}
