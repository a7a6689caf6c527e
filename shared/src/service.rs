//! What every binary does around its own work: stopping in two phases, and the admin port.
//!
//! Must not know what a particular binary does.

mod connections;

pub use connections::{Bounds, serve};

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use futures::future::BoxFuture;
use prometheus::{Encoder as _, TextEncoder};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::crash::{self, Point};
use crate::telemetry::Registry;

/// The two phases of a stop, passed down by argument.
#[derive(Clone, Debug, Default)]
pub struct Stopper {
    /// Phase one: take nothing new, finish what is in hand.
    pub drain: CancellationToken,
    /// Phase two: give up what is in hand. Interrupted is not failed: no try is spent.
    pub abort: CancellationToken,
}

impl Stopper {
    /// Starts phase one now and phase two when the grace period is over.
    pub async fn stop(&self, grace: Duration) {
        self.drain.cancel();
        tokio::time::sleep(grace).await;
        self.abort.cancel();
    }

    /// A stopper that SIGTERM or SIGINT starts; a second signal ends the grace period at once.
    ///
    /// # Errors
    /// When the process may not install signal handlers.
    pub fn on_signals(grace: Duration) -> std::io::Result<Self> {
        let stopper = Self::default();
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let signalled = stopper.clone();
        tokio::spawn(async move {
            tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
            crash::point(Point::StopBegun);
            tracing::info!(
                grace_seconds = grace.as_secs(),
                "stopping: finishing what is in hand"
            );
            tokio::select! {
                () = signalled.stop(grace) => {}
                _ = terminate.recv() => signalled.abort.cancel(),
                _ = interrupt.recv() => signalled.abort.cancel(),
            }
        });
        Ok(stopper)
    }
}

/// Settings of the admin port and of stopping.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Service")]
pub struct ServiceConfig {
    /// Address of `/metrics`, `/healthz` and `/readyz`; port 0 takes a free one and logs it
    #[arg(long, env, default_value = "127.0.0.1:9480")]
    pub admin_addr: SocketAddr,
    /// On SIGTERM or SIGINT, how long to finish what is in hand
    #[arg(long, env, default_value = "30s", value_parser = humantime::parse_duration)]
    pub stop_grace: Duration,
}

/// One condition of readiness.
pub struct Check {
    /// What is checked.
    pub name: &'static str,
    /// The check: an error says what is wrong.
    pub check: Box<dyn Fn() -> BoxFuture<'static, Result<(), String>> + Send + Sync>,
}

struct Admin {
    registry: Registry,
    checks: Vec<Check>,
}

/// How long a readiness check may take.
const CHECK_TIMEOUT: Duration = Duration::from_secs(3);

/// Binds the admin port and serves it until `stop`. Returns the address it is bound to.
///
/// # Errors
/// When the address cannot be bound.
pub async fn serve_admin(
    addr: SocketAddr,
    registry: Registry,
    checks: Vec<Check>,
    stop: CancellationToken,
) -> std::io::Result<SocketAddr> {
    let listener = TcpListener::bind(addr).await?;
    let bound = listener.local_addr()?;
    let router = Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .with_state(std::sync::Arc::new(Admin { registry, checks }));
    tokio::spawn(serve(listener, router, Bounds::of_few("admin"), stop));
    Ok(bound)
}

async fn metrics(State(admin): State<std::sync::Arc<Admin>>) -> impl IntoResponse {
    let encoder = TextEncoder::new();
    let mut text = Vec::new();
    match encoder.encode(&admin.registry.gather(), &mut text) {
        Ok(()) => (
            StatusCode::OK,
            [(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)],
            text,
        ),
        Err(error) => (
            StatusCode::INTERNAL_SERVER_ERROR,
            [(header::CONTENT_TYPE, "text/plain")],
            error.to_string().into_bytes(),
        ),
    }
}

async fn ready(State(admin): State<std::sync::Arc<Admin>>) -> impl IntoResponse {
    let results = run(&admin.checks).await;
    let ready = results.iter().all(|(_, result)| result.is_ok());
    let text: String = results
        .iter()
        .map(|(name, result)| match result {
            Ok(()) => format!("{name}: ok\n"),
            Err(error) => format!("{name}: {error}\n"),
        })
        .collect();
    (
        if ready {
            StatusCode::OK
        } else {
            StatusCode::SERVICE_UNAVAILABLE
        },
        text,
    )
}

async fn run(checks: &[Check]) -> Vec<(&'static str, Result<(), String>)> {
    futures::future::join_all(checks.iter().map(|check| async move {
        let result = tokio::time::timeout(CHECK_TIMEOUT, (check.check)()).await;
        (
            check.name,
            result.unwrap_or_else(|_| Err("did not answer in time".to_owned())),
        )
    }))
    .await
}

/// What keeps a process from being ready, in one line; none when it is.
pub async fn why_not_ready(checks: &[Check]) -> Option<String> {
    let results = run(checks).await.into_iter();
    let faults = results.filter_map(|(name, result)| Some(format!("{name}: {}", result.err()?)));
    let faults: Vec<_> = faults.collect();
    (!faults.is_empty()).then(|| faults.join("; "))
}
