//! The HTTP API: jobs, dead letters, unknown outcomes, accounts and the fleet under `/v1`; vendors call back under `/webhooks`;
//! browsers sign in at `/session`; `/openapi.json` describes it, `/docs` is a page of that; `/` is the operator's page. A route
//! that is not in [`access::ROUTES`] is not reachable.
//!
//! Must not publish, call a vendor or move a stage otherwise than through the guarded functions of `shared::db`. Every error is
//! a problem document (RFC 9457, `application/problem+json`).

pub mod access;
mod accounts;
mod audits;
mod batch;
mod body;

mod callbacks;
mod dead_letters;
mod document;
mod events;
mod find;
mod fleet;
mod job_actions;
mod jobs;
mod letter_document;
mod list;
mod metrics;
mod notices;
mod openapi;
mod operations;
mod overview;
mod page;
mod precondition;
mod problem;
mod requests;
mod results;
mod unknowns;
mod words;
mod workers;

pub(crate) use body::set as set_letter_filter;
pub use callbacks::Receiver;
pub(crate) use document::{EventDocument, redacted_json};
pub use document::{FullDocument, JobDocument, WaitingDocument, redacted, result_path};
pub use letter_document::{GroupDocument, LetterDocument};
pub(crate) use list::{Fault, set as set_job_filter};
pub use metrics::{HttpMetrics, OTHER_METHOD, methods};
pub use notices::NoticeDocument;
pub(crate) use operations::{OperationDocument, OperationPage, SelectionDocument};
pub(crate) use overview::{ActPage, DEFAULT_MINUTES, MAX_MINUTES, Point, Series};
pub(crate) use workers::{WorkerDocument, WorkerList, refusal as worker_refusal};

use std::any::Any;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use access::Access;
use axum::Router;
use axum::extract::{DefaultBodyLimit, MatchedPath, Request, State};
use axum::http::Uri;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use ipnet::IpNet;
use openapi::{Description, Served};
use problem::{Kind, Problem};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::trace::TraceLayer;
use utoipa::OpenApi as _;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use shared::db::FleetTimes;
use shared::service::{Bounds, serve as serve_connections};

use crate::audit::AuditOrders;
use crate::config::HttpConfig;
use crate::decisions::Decider;
use crate::feed::Feed;
use crate::intake::Intake;

/// For a whole request, reading its body included. Above what storing a job may wait for.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

/// How long links to results live unless something else is set.
const DEFAULT_RESULT_LIFE: Duration = Duration::from_secs(3600);

/// About methods that a path does not have.
const OTHER_METHODS: &str = "the header `Allow` has the methods that are";

/// What the API needs.
#[derive(Clone)]
pub struct AppState {
    intake: Intake,
    callbacks: Receiver,
    metrics: HttpMetrics,
    max_body: usize,
    https: bool,
    proxies: Arc<[IpNet]>,
    decider: Decider,
    audits: AuditOrders,
    feed: Feed,
    result_life: Duration,
}

impl AppState {
    /// `decider` has the bounds that the workers have.
    #[must_use]
    pub fn new(
        intake: Intake,
        callbacks: Receiver,
        max_body: usize,
        decider: Decider,
        audits: AuditOrders,
        feed: Feed,
        metrics: HttpMetrics,
    ) -> Self {
        Self {
            intake,
            callbacks,
            metrics,
            max_body,
            https: false,
            proxies: Arc::default(),
            decider,
            audits,
            feed,
            result_life: DEFAULT_RESULT_LIFE,
        }
    }

    /// The same, which browsers may reach by https alone.
    #[must_use]
    pub const fn over_https(mut self, https: bool) -> Self {
        self.https = https;
        self
    }

    /// The same with links to results that live so long.
    #[must_use]
    pub const fn linking_for(mut self, life: Duration) -> Self {
        self.result_life = life;
        self
    }

    /// The same, which believes these proxies whom they speak for.
    #[must_use]
    pub fn trusting(mut self, proxies: &[IpNet]) -> Self {
        self.proxies = proxies.into();
        self
    }
}

/// Every route there is, each with its description. Nothing is routed elsewhere.
fn routes(state: &AppState, access: &Access) -> OpenApiRouter {
    let db = state.intake.db.clone();
    let jobs = OpenApiRouter::with_openapi(Description::openapi())
        .routes(routes!(jobs::list, jobs::create))
        .routes(routes!(batch::create))
        .routes(routes!(jobs::show))
        .routes(routes!(jobs::history))
        .routes(routes!(jobs::submissions))
        .with_state(state.intake.clone());
    let operator = OpenApiRouter::new()
        .routes(routes!(job_actions::cancel))
        .routes(routes!(job_actions::retry))
        .routes(routes!(job_actions::resume))
        .routes(routes!(dead_letters::list))
        .routes(routes!(dead_letters::show))
        .routes(routes!(dead_letters::note))
        .routes(routes!(dead_letters::replay))
        .routes(routes!(dead_letters::discard))
        .routes(routes!(notices::list))
        .routes(routes!(notices::show))
        .routes(routes!(notices::replay))
        .routes(routes!(unknowns::list))
        .routes(routes!(unknowns::show))
        .routes(routes!(accounts::list))
        .routes(routes!(accounts::show, accounts::limit))
        .routes(routes!(accounts::pause))
        .routes(routes!(accounts::resume))
        .routes(routes!(fleet::status))
        .routes(routes!(fleet::paid_sends))
        .routes(routes!(fleet::stop_paid))
        .routes(routes!(fleet::resume_paid))
        .routes(routes!(fleet::costs))
        .routes(routes!(overview::overview))
        .routes(routes!(overview::series))
        .routes(routes!(workers::list))
        .routes(routes!(workers::quiet))
        .routes(routes!(workers::resume))
        .routes(routes!(workers::stop))
        .routes(routes!(overview::operator_events))
        .routes(routes!(words::words))
        .routes(routes!(find::find))
        .routes(routes!(operations::list, operations::begin))
        .routes(routes!(operations::preview))
        .routes(routes!(operations::show))
        .routes(routes!(operations::go_on))
        .routes(routes!(operations::stop))
        .with_state(job_actions::Operator {
            db: db.clone(),
            times: FleetTimes::from(&state.decider.protocol),
            previews: Arc::new(Semaphore::new(operations::MAX_PREVIEWS)),
        });
    let audits = OpenApiRouter::new()
        .routes(routes!(audits::list, audits::begin))
        .routes(routes!(audits::show))
        .routes(routes!(audits::acknowledge))
        .with_state(audits::Audits {
            db: db.clone(),
            orders: state.audits.clone(),
        });
    let results = OpenApiRouter::new()
        .routes(routes!(results::show))
        .with_state(results::Results {
            db: db.clone(),
            storage: state.intake.storage.clone(),
            life: state.result_life,
        });
    let decisions = OpenApiRouter::new()
        .routes(routes!(unknowns::adopt))
        .routes(routes!(unknowns::confirm_not_accepted))
        .with_state(state.decider.clone());
    let events = OpenApiRouter::new()
        .routes(routes!(events::all))
        .routes(routes!(events::of_job))
        .with_state(events::Followed {
            db,
            feed: state.feed.clone(),
        });
    jobs.merge(results)
        .merge(operator)
        .merge(audits)
        .merge(decisions)
        .merge(events)
        .merge(access::routes(access.clone()))
        .merge(callbacks::routes(state.callbacks.clone()))
}

/// The routes with their description.
///
/// # Errors
/// When the description cannot be written.
fn described(state: &AppState, access: &Access) -> Result<Router, serde_json::Error> {
    // The description describes itself: it is written when its own routes are known.
    let (own, own_description) = OpenApiRouter::new()
        .routes(routes!(openapi::document))
        .routes(routes!(openapi::page))
        .routes(routes!(page::index))
        .routes(routes!(page::asset))
        .split_for_parts();
    let (routes, mut description) = routes(state, access).split_for_parts();
    description.merge(own_description);
    let served = Served::new(&description)?;
    Ok(routes.merge(own.with_state(served)))
}

/// The API: the routes, and before each the check who asks.
///
/// # Errors
/// When the description cannot be written.
pub fn router(state: AppState) -> Result<Router, serde_json::Error> {
    let access = Access::new(
        state.intake.db.clone(),
        state.https,
        Arc::clone(&state.proxies),
    );
    let guard = middleware::from_fn_with_state(access.clone(), access::guard);
    Ok(served(described(&state, &access)?.layer(guard), state))
}

/// What holds for every request.
fn served(routes: Router, state: AppState) -> Router {
    routes
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
    let router = router(state).map_err(std::io::Error::other)?;
    serve_at(config.http_addr, router, stop).await
}

async fn serve_at(
    address: SocketAddr,
    router: Router,
    stop: CancellationToken,
) -> std::io::Result<(SocketAddr, JoinHandle<()>)> {
    let listener = TcpListener::bind(address).await?;
    let bound = listener.local_addr()?;
    let serving = serve_connections(listener, router, Bounds::by_files("HTTP API"), stop);
    Ok((bound, tokio::spawn(serving)))
}

async fn no_route(uri: Uri) -> Problem {
    let detail = format!("no route leads to `{}`", uri.path());
    Problem::new(Kind::RouteNotFound, detail)
}

async fn no_method() -> Problem {
    Problem::new(Kind::MethodNotAllowed, OTHER_METHODS)
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
