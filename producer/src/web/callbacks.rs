//! `POST /webhooks/sync/{token}` and `POST /webhooks/ghostcut/{token}`: what the vendors call when a work ends.
//!
//! Checks the signature over the raw body before anything else is done with it, stores, answers. Must not decide what a
//! callback means: that is `crate::callbacks`, after the answer.
//!
//! | What comes | Answer | Why |
//! |---|---|---|
//! | a right signature | 200 `ok` | GhostCut repeats for a day what is not answered 200 with a body; Sync.so takes any 2xx |
//! | the same again | 200 `ok` | stored once |
//! | a token that the ledger does not have | 200 `ok` | signed, so the vendor has a work of ours that we forgot: kept as evidence |
//! | a wrong signature or none | 401 | nothing is stored, so strangers cannot fill the table |
//! | a path without a UUID | 404 | never one of ours |
//! | a body above 256 KiB | 413 | polling does the work |
//! | the database is away | 503 | GhostCut comes again; for Sync.so polling does the work |

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use shared::config::Secret;
use shared::crash::{self, Point};
use shared::db::{Db, DbResult};
use shared::domain::Vendor;
use shared::telemetry::chain;
use shared::vendor::signature;
use tokio::sync::Notify;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::problem::{Kind, Problem};
use crate::callbacks::Metrics;

/// Longest body that is taken, in bytes. A generation with all its signed input URLs is below 64 KiB.
const MAX_BODY_BYTES: usize = 256 * 1024;
/// Refused callbacks are counted one by one and logged so often.
const WARN_EVERY: Duration = Duration::from_secs(60);

/// Takes callbacks in. Cheap to clone.
#[derive(Clone)]
pub struct Receiver {
    db: Db,
    sync_secret: Option<Secret>,
    ghostcut_secret: Secret,
    metrics: Metrics,
    arrived: Arc<Notify>,
    warned: Arc<Mutex<Option<Instant>>>,
}

impl Receiver {
    /// `arrived` is notified of every callback stored.
    #[must_use]
    pub fn new(
        db: Db,
        sync_secret: Option<Secret>,
        ghostcut_secret: Secret,
        metrics: Metrics,
        arrived: Arc<Notify>,
    ) -> Self {
        Self {
            db,
            sync_secret,
            ghostcut_secret,
            metrics,
            arrived,
            warned: Arc::default(),
        }
    }

    /// Why the vendor cannot have sent this; none if it has.
    fn fault(&self, vendor: Vendor, headers: &HeaderMap, body: &[u8]) -> Option<&'static str> {
        let name = match vendor {
            Vendor::Sync => "Sync-Signature",
            Vendor::Ghostcut => "Callback-Sign",
        };
        let header = match headers.get(name).map(|value| value.to_str()) {
            Some(Ok(header)) => header,
            Some(Err(_)) => return Some("the signature header is not text"),
            None => return Some("there is no signature header"),
        };
        let right = match (vendor, &self.sync_secret) {
            // The vendor documents no tolerance for the signature's age; a repetition is harmless.
            (Vendor::Sync, Some(secret)) => signature::sync(secret, header, body).is_ok(),
            (Vendor::Sync, None) => return Some("SYNC_WEBHOOK_SECRET is not set"),
            (Vendor::Ghostcut, _) => {
                signature::ghostcut_matches(&self.ghostcut_secret, header, body)
            }
        };
        (!right).then_some("the signature does not match")
    }

    fn refuse(&self, vendor: Vendor, why: &'static str) -> Problem {
        self.metrics.count(vendor, "refused");
        let mut warned = self.warned.lock().unwrap_or_else(PoisonError::into_inner);
        if warned.is_none_or(|at| at.elapsed() >= WARN_EVERY) {
            *warned = Some(Instant::now());
            tracing::warn!(%vendor, why, "a callback was refused; further ones are counted and logged once a minute");
        }
        Problem::new(Kind::BadSignature, why)
    }

    /// A task of its own: a vendor that hangs up must not cut a statement in half.
    async fn store(&self, vendor: Vendor, token: Uuid, body: Bytes) -> Option<DbResult<bool>> {
        let db = self.db.clone();
        tokio::spawn(async move { db.store_callback(vendor, token, &body).await })
            .await
            .ok()
    }
}

/// The routes.
pub(super) fn routes(receiver: Receiver) -> OpenApiRouter {
    OpenApiRouter::new()
        .routes(routes!(from_sync))
        .routes(routes!(from_ghostcut))
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .with_state(receiver)
}

/// Take a callback of Sync.so in
#[utoipa::path(post, path = "/webhooks/sync/{token}", tag = "webhooks", operation_id = "sync_callback",
    request_body(content = Vec<u8>, content_type = "application/octet-stream", description = "As the vendor signed it"),
    params(("token" = Uuid, Path, description = "The submission"), ("Sync-Signature" = Option<String>, Header, description = "The vendor's signature")),
    responses((status = 200, description = "Stored, now or before", body = String, content_type = "text/plain"),
        (status = 401, description = "Not signed by the vendor"), (status = 404, description = "The path has no UUID")))]
async fn from_sync(
    State(receiver): State<Receiver>,
    Path(token): Path<String>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    receive(&receiver, Vendor::Sync, &token, &headers, body).await
}

/// Take a callback of GhostCut in
#[utoipa::path(post, path = "/webhooks/ghostcut/{token}", tag = "webhooks", operation_id = "ghostcut_callback",
    request_body(content = Vec<u8>, content_type = "application/octet-stream", description = "As the vendor signed it"),
    params(("token" = Uuid, Path, description = "The submission"), ("Callback-Sign" = Option<String>, Header, description = "The vendor's signature")),
    responses((status = 200, description = "Stored, now or before", body = String, content_type = "text/plain"),
        (status = 401, description = "Not signed by the vendor"), (status = 404, description = "The path has no UUID")))]
async fn from_ghostcut(
    State(receiver): State<Receiver>,
    Path(token): Path<String>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    receive(&receiver, Vendor::Ghostcut, &token, &headers, body).await
}

async fn receive(
    receiver: &Receiver,
    vendor: Vendor,
    token: &str,
    headers: &HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let Ok(token) = Uuid::try_parse(token) else {
        let detail = "a callback's path ends in the UUID of a submission";
        return Err(Problem::new(Kind::RouteNotFound, detail));
    };
    let body = body.map_err(|rejection| match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => {
            let detail = format!("a callback may have {MAX_BODY_BYTES} bytes");
            Problem::new(Kind::BodyTooLarge, detail)
        }
        _ => Problem::new(Kind::MalformedBody, "the body broke off"),
    })?;
    if let Some(why) = receiver.fault(vendor, headers, &body) {
        return Err(receiver.refuse(vendor, why));
    }
    match receiver.store(vendor, token, body).await {
        Some(Ok(new)) => {
            crash::point(Point::CallbackStored);
            if new {
                receiver.arrived.notify_one();
            } else {
                receiver.metrics.count(vendor, "repeated");
            }
            Ok((StatusCode::OK, "ok").into_response())
        }
        Some(Err(error)) => {
            tracing::error!(%vendor, submission.token = %token, error = chain(&error), "cannot store a callback");
            let detail = "the callback was not stored: send it again";
            Err(Problem::new(Kind::Unavailable, detail))
        }
        None => Err(Problem::new(
            Kind::Internal,
            "the log of the service says why",
        )),
    }
}
