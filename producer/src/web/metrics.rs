//! What is measured of requests. Labels come from the routes and methods we know, never from the request's text.

use std::time::Duration;

use axum::http::{Method, StatusCode};
use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, Opts};
use shared::telemetry::Registry;

use super::access::ROUTES;

/// The label of methods that no route has.
pub const OTHER_METHOD: &str = "other";

/// Every method that a route has, some of them often. HEAD is asked like GET.
pub fn methods() -> impl Iterator<Item = &'static str> {
    let methods = ROUTES.iter().map(|(method, ..)| method.as_str());
    methods.chain(["HEAD"])
}

/// Requests and their durations. Cheap to clone.
#[derive(Clone)]
pub struct HttpMetrics {
    requests: IntCounterVec,
    durations: HistogramVec,
}

impl HttpMetrics {
    /// Registers `http_requests_total{route,method,status}` and `http_request_duration_seconds{route}`.
    ///
    /// # Errors
    /// When a name is taken.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let requests = IntCounterVec::new(
            Opts::new("http_requests_total", "Answered requests of the API"),
            &["route", "method", "status"],
        )?;
        let durations = HistogramVec::new(
            HistogramOpts::new(
                "http_request_duration_seconds",
                "Time from a request's head to its answer",
            ),
            &["route"],
        )?;
        registry.register(Box::new(requests.clone()))?;
        registry.register(Box::new(durations.clone()))?;
        Ok(Self {
            requests,
            durations,
        })
    }

    pub(super) fn observe(
        &self,
        route: Option<&str>,
        method: &Method,
        status: StatusCode,
        took: Duration,
    ) {
        let route = route.unwrap_or("unmatched");
        let method = methods().find(|known| *known == method.as_str());
        let method = method.unwrap_or(OTHER_METHOD);
        self.requests
            .with_label_values(&[route, method, status.as_str()])
            .inc();
        self.durations
            .with_label_values(&[route])
            .observe(took.as_secs_f64());
    }
}
