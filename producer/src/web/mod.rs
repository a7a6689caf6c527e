//! The HTTP API: jobs are put in, read, canceled and retried under `/v1/jobs`, dead letters under `/v1/dead-letters`; vendors call
//! back under `/webhooks`.
//!
//! Must not publish, call a vendor or move a stage otherwise than through the guarded functions of `shared::db`. Every error is
//! a problem document (RFC 9457, `application/problem+json`).

mod body;
mod callbacks;
mod dead_letters;
mod document;
mod jobs;
mod letter_document;
mod list;
mod metrics;
mod operations;
mod problem;

pub use callbacks::Receiver;
pub(crate) use document::{EventDocument, redacted_json};
pub use document::{FullDocument, JobDocument, redacted};
pub use letter_document::LetterDocument;
pub use metrics::HttpMetrics;

use std::any::Any;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{DefaultBodyLimit, MatchedPath, Request, State};
use axum::http::Uri;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use problem::{Kind, Problem};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::trace::TraceLayer;

use crate::config::HttpConfig;
use crate::intake::Intake;

/// For a whole request, reading its body included. Above what storing a job may wait for.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

/// What the API needs.
#[derive(Clone)]
pub struct AppState {
    intake: Intake,
    callbacks: Receiver,
    metrics: HttpMetrics,
    max_body: usize,
    max_paid_attempts: i32,
}

impl AppState {
    /// `max_paid_attempts` is the bound that the workers have.
    #[must_use]
    pub const fn new(
        intake: Intake,
        callbacks: Receiver,
        max_body: usize,
        max_paid_attempts: i32,
        metrics: HttpMetrics,
    ) -> Self {
        Self {
            intake,
            callbacks,
            metrics,
            max_body,
            max_paid_attempts,
        }
    }
}

/// The routes.
pub fn router(state: AppState) -> Router {
    let operator = operations::Operator {
        db: state.intake.db.clone(),
        max_paid_attempts: state.max_paid_attempts,
    };
    let operations = Router::new()
        .route("/v1/jobs/{id}/cancel", post(operations::cancel))
        .route("/v1/jobs/{id}/retry", post(operations::retry))
        .route("/v1/jobs/{id}/resume", post(operations::resume))
        .route("/v1/dead-letters", get(dead_letters::list))
        .route("/v1/dead-letters/{id}", get(dead_letters::show))
        .route("/v1/dead-letters/replays", post(dead_letters::replay))
        .route("/v1/dead-letters/discards", post(dead_letters::discard))
        .with_state(operator);
    Router::new()
        .route("/v1/jobs", get(jobs::list).post(jobs::create))
        .route("/v1/jobs/{id}", get(jobs::show))
        .with_state(state.intake)
        .merge(operations)
        .merge(callbacks::routes(state.callbacks))
        .fallback(no_route)
        .method_not_allowed_fallback(no_method)
        .layer(DefaultBodyLimit::max(state.max_body))
        .layer(CatchPanicLayer::custom(panicked))
        .layer(middleware::from_fn(limit_time))
        .layer(middleware::from_fn_with_state(state.metrics, observe))
        // The path alone: a query string is the client's. Failures are logged where they are found.
        .layer(TraceLayer::new_for_http().on_failure(()).make_span_with(|request: &Request| {
            tracing::info_span!("request", http.method = %request.method(), http.path = request.uri().path())
        }))
}

/// Binds the API's address and serves it until `stop`; then requests in hand are finished, and the task ends.
/// Returns the address it is bound to.
///
/// # Errors
/// When the address cannot be bound.
pub async fn serve(
    config: &HttpConfig,
    state: AppState,
    stop: CancellationToken,
) -> std::io::Result<(SocketAddr, JoinHandle<()>)> {
    let listener = TcpListener::bind(config.http_addr).await?;
    let bound = listener.local_addr()?;
    let router = router(state);
    let task = tokio::spawn(async move {
        let served = axum::serve(listener, router)
            .with_graceful_shutdown(stop.cancelled_owned())
            .await;
        if let Err(error) = served {
            tracing::error!(%error, "the API failed");
        }
    });
    Ok((bound, task))
}

async fn no_route(uri: Uri) -> Problem {
    let detail = format!("no route leads to `{}`", uri.path());
    Problem::new(Kind::RouteNotFound, detail)
}

async fn no_method() -> Problem {
    let detail = "the header `Allow` has the methods that are";
    Problem::new(Kind::MethodNotAllowed, detail)
}

fn panicked(_: Box<dyn Any + Send + 'static>) -> Response {
    // The panic hook has written the message already.
    tracing::error!("a request panicked");
    Problem::new(Kind::Internal, "the log of the service says why").into_response()
}

async fn limit_time(request: Request, next: Next) -> Response {
    match tokio::time::timeout(REQUEST_TIMEOUT, next.run(request)).await {
        Ok(response) => response,
        Err(_) => {
            let detail = format!("no answer within {} seconds", REQUEST_TIMEOUT.as_secs());
            Problem::new(Kind::Unavailable, detail).into_response()
        }
    }
}

async fn observe(
    State(metrics): State<HttpMetrics>,
    route: Option<MatchedPath>,
    request: Request,
    next: Next,
) -> Response {
    let started = Instant::now();
    let method = request.method().clone();
    let response = next.run(request).await;
    let route = route.as_ref().map(MatchedPath::as_str);
    metrics.observe(route, &method, response.status(), started.elapsed());
    response
}

#[cfg(test)]
mod tests;
