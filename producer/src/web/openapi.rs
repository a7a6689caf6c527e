//! The description of the API (OpenAPI 3.1), made from the routes themselves, and a page to read it.

use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::{Html, IntoResponse as _, Response};
use bytes::Bytes;
use serde_json::{Map, Value, json};
use shared::domain::{JobStatus, Stage, StageState, Vendor};
use utoipa::OpenApi;

use super::access::{COOKIE, Need, ROUTES};
use super::problem::{Document, Fault};
use super::requests::JobRequest;

/// Titles and what every route has in common.
#[derive(OpenApi)]
#[openapi(
    info(title = "GhostFleet", description = "Runs video jobs through two paid vendors. Every error is a problem document (RFC 9457) \
        that names all faults; 503 says when to come again."),
    components(schemas(Document<'static>, Fault, JobRequest, JobStatus, Stage, StageState, Vendor)),
    tags((name = "jobs", description = "Put jobs in, read them, end them, put them back."),
        (name = "events", description = "Follow what happens."),
        (name = "dead letters", description = "What was given up."),
        (name = "unknown outcomes", description = "Paid requests whose answer was lost."),
        (name = "notices", description = "What submitters are told when a job ends."),
        (name = "vendors", description = "The accounts and their limits."),
        (name = "operations", description = "Do something to many at once."),
        (name = "fleet", description = "What concerns all jobs."),
        (name = "access", description = "Who asks."),
        (name = "webhooks", description = "For the vendors."),
        (name = "page", description = "For operators."),
        (name = "description", description = "This document."))
)]
pub(super) struct Description;

/// The description as it is served. Cheap to clone.
#[derive(Clone)]
pub(super) struct Served(Bytes);

impl Served {
    /// Adds to every operation the problems that any request of its kind can meet.
    ///
    /// # Errors
    /// When the description cannot be written as JSON.
    pub(super) fn new(description: &utoipa::openapi::OpenApi) -> Result<Self, serde_json::Error> {
        let mut document = serde_json::to_value(description)?;
        if let Some(paths) = document["paths"].as_object_mut() {
            for (path, item) in paths {
                for (method, operation) in item.as_object_mut().into_iter().flatten() {
                    add_problems(path, operation);
                    add_access(method, path, operation);
                }
            }
        }
        document["components"]["securitySchemes"] = json!({
            "token": { "type": "http", "scheme": "bearer", "description": "`producer tokens create` makes one" },
            "session": { "type": "apiKey", "in": "cookie", "name": COOKIE, "description": "`POST /session` sets it" },
        });
        Ok(Self(Bytes::from(document.to_string())))
    }
}

fn add_problems(path: &str, operation: &mut Value) {
    let has_body = operation["requestBody"].is_object();
    let has_parameters = operation["parameters"].is_array();
    let own_body = path.starts_with("/webhooks/");
    let common = [
        (
            "400",
            has_body || has_parameters,
            "The parameters have faults, or the body cannot be read",
        ),
        ("413", has_body, "The body is too large"),
        (
            "415",
            has_body && !own_body,
            "The body is not declared as JSON",
        ),
        ("422", has_body && !own_body, "The body has faults"),
        ("500", true, "The service is at fault"),
        ("503", true, "Something that the service needs is away"),
    ];
    let Some(responses) = operation["responses"].as_object_mut() else {
        return;
    };
    for (status, applies, description) in common {
        if applies && !responses.contains_key(status) {
            responses.insert(status.to_owned(), json!({ "description": description }));
        }
    }
    for (status, response) in responses.iter_mut() {
        if status.starts_with(['4', '5']) {
            complete(status, response);
        }
    }
}

/// Who may, and what the others are told.
fn add_access(method: &str, path: &str, operation: &mut Value) {
    let line = ROUTES
        .iter()
        .find(|line| line.1 == path && line.0.as_str().eq_ignore_ascii_case(method));
    let (Some((.., need @ (Need::Token | Need::Right(_)))), true) =
        (line, operation["responses"].is_object())
    else {
        operation["security"] = json!([]);
        return;
    };
    if let Need::Right(right) = need {
        operation["x-right"] = right.as_str().into();
    }
    operation["security"] = json!([{ "token": [] }, { "session": [] }]);
    for (status, description) in [
        (
            "401",
            "A token is needed, or this one is wrong, revoked or expired",
        ),
        (
            "403",
            "The token's role does not give the right, or another site's page asks",
        ),
        ("429", "Too many wrong tokens came from this address"),
    ] {
        let responses = &mut operation["responses"];
        if responses[status].is_null() {
            responses[status] = json!({ "description": description });
            complete(status, &mut responses[status]);
        }
    }
}

/// Every error has the same form.
fn complete(status: &str, response: &mut Value) {
    let schema = json!({ "schema": { "$ref": "#/components/schemas/Problem" } });
    response["content"] = json!({ "application/problem+json": schema });
    if matches!(status, "429" | "503") {
        let mut headers = Map::new();
        let seconds = json!({ "description": "Seconds", "schema": { "type": "integer" } });
        headers.insert("Retry-After".to_owned(), seconds);
        response["headers"] = headers.into();
    }
}

/// This document
#[utoipa::path(get, path = "/openapi.json", tag = "description", operation_id = "openapi",
    responses((status = 200, description = "The description of the API", body = Object)))]
pub(super) async fn document(State(Served(document)): State<Served>) -> Response {
    let json = HeaderValue::from_static("application/json");
    ([(header::CONTENT_TYPE, json)], document).into_response()
}

/// This document as a page
#[utoipa::path(get, path = "/docs", tag = "description", operation_id = "docs",
    responses((status = 200, description = "A page", body = String, content_type = "text/html")))]
pub(super) async fn page() -> Response {
    // The page is whole: it needs nothing but the description from this service.
    let policy = "default-src 'none'; connect-src 'self'; style-src 'unsafe-inline'; script-src 'unsafe-inline'";
    let headers = [
        (header::CONTENT_SECURITY_POLICY, policy),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (headers, Html(include_str!("docs.html"))).into_response()
}
