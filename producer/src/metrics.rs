//! Every metric of a producer, in one place: what [`crate::run`] exports is what `docs/metrics.md` lists.

use shared::broker::BrokerMetrics;
use shared::telemetry::Registry;
use shared::{db, vendor};

use crate::web::HttpMetrics;
use crate::{adoption, audit, callbacks, dispatcher, notices, retention, sweeps};

/// The metrics of a producer, each for the module that sets it.
pub struct Metrics {
    pub(crate) adoption: adoption::Metrics,
    pub(crate) audit: audit::Gauges,
    pub(crate) broker: BrokerMetrics,
    pub(crate) callbacks: callbacks::Metrics,
    pub(crate) db: db::Metrics,
    pub(crate) dispatch: dispatcher::Metrics,
    pub(crate) fleet: sweeps::Gauges,
    pub(crate) http: HttpMetrics,
    pub(crate) notices: notices::Metrics,
    pub(crate) retention: retention::Metrics,
    pub(crate) vendor: vendor::Metrics,
}

impl Metrics {
    /// Registers them all.
    ///
    /// # Errors
    /// When a name is taken.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let notices = notices::Metrics::register(registry)?;
        Ok(Self {
            adoption: adoption::Metrics::register(registry)?,
            audit: audit::Gauges::register(registry)?,
            broker: BrokerMetrics::register(registry)?,
            callbacks: callbacks::Metrics::register(registry)?,
            db: db::Metrics::register(registry)?,
            dispatch: dispatcher::Metrics::register(registry)?,
            fleet: sweeps::Gauges::register(registry, notices.clone())?,
            http: HttpMetrics::register(registry)?,
            notices,
            retention: retention::Metrics::register(registry)?,
            vendor: vendor::Metrics::register(registry)?,
        })
    }
}
