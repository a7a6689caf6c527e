//! Control API under `/control`: the truth as JSON, fault rules, settings, reset. Unsigned, for tests only.

use std::sync::Arc;

use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::Core;
use crate::config::Settings;
use crate::fault::FaultRule;
use crate::truth::{Phase, Vendor};

type Shared = State<Arc<Core>>;

const VENDORS: [Vendor; 2] = [Vendor::Sync, Vendor::Ghostcut];

pub(crate) fn router(core: Arc<Core>) -> Router {
    let routes = Router::new()
        .route("/healthz", get(|| async { "ok" }))
        .route("/environment", get(show_environment))
        .route("/truth", get(truth))
        .route("/works/{vendor}", get(works))
        .route("/works/{vendor}/{id}", get(work))
        .route("/faults", get(rules).post(add_rule).delete(clear_rules))
        .route("/faults/fired", get(fired))
        .route("/faults/{id}", delete(remove_rule))
        .route("/settings", get(settings).patch(change_settings))
        .route("/reset", post(reset));
    Router::new()
        .route("/control", get(index))
        .nest("/control", routes)
        .fallback(unknown)
        .with_state(core)
}

/// What there is, for somebody who has only the address.
async fn index() -> Json<Value> {
    Json(json!({
        "environment": "GET /control/environment: variables for a client",
        "truth": "GET /control/truth: what was paid for; GET /control/works/{sync|ghostcut}, also ?phase= and ?contains=",
        "faults": "POST /control/faults with {\"vendor\": \"sync\", \"operation\": \"submit\", \"fault\": {\"kind\": \"lose_answer\"}, \"count\": 1}; GET lists \
                   them, DELETE removes them, GET /control/faults/fired says which struck",
        "settings": "GET and PATCH /control/settings",
        "reset": "POST /control/reset",
        "read": "tests/sandbox/README.md",
    }))
}

/// Environment variables a client of all simulators needs.
pub(crate) fn environment(core: &Core) -> Vec<(&'static str, String)> {
    let (urls, keys) = (&core.endpoints, &core.config.credentials);
    vec![
        ("SYNC_API_URL", urls.sync.clone()),
        ("SYNC_API_KEY", keys.sync_api_key.clone()),
        ("SYNC_WEBHOOK_SECRET", keys.sync_webhook_secret.clone()),
        ("GHOSTCUT_API_URL", urls.ghostcut.clone()),
        ("GHOSTCUT_API_KEY", keys.ghostcut_key.clone()),
        ("GHOSTCUT_APP_SECRET", keys.ghostcut_secret.clone()),
        ("GHOSTCUT_UID", keys.ghostcut_uid.clone()),
        ("S3_ENDPOINT_URL", urls.s3.clone()),
        ("AWS_ACCESS_KEY_ID", keys.s3_access_key.clone()),
        ("AWS_SECRET_ACCESS_KEY", keys.s3_secret_key.clone()),
        ("AWS_REGION", core.config.region.clone()),
        (
            "AWS_S3_BUCKET",
            core.config.buckets.first().cloned().unwrap_or_default(),
        ),
        ("SANDBOX_MEDIA_URL", urls.media.clone()),
        ("SANDBOX_CONTROL_URL", urls.control.clone()),
    ]
}

async fn show_environment(State(core): Shared) -> Json<Value> {
    let pairs = environment(&core)
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value.into()));
    Json(Value::Object(pairs.collect()))
}

/// Money and counters at a glance; works themselves are under `/works`.
async fn truth(State(core): Shared) -> Json<Value> {
    let vendors = VENDORS.into_iter().map(|vendor| {
        let works = core.truth.works(vendor);
        let in_phase = |phase| {
            works
                .iter()
                .filter(|work| work.status.phase() == phase)
                .count()
        };
        json!({
            "vendor": vendor,
            "paid": works.len(),
            "pending": in_phase(Phase::Pending),
            "succeeded": in_phase(Phase::Succeeded),
            "failed": in_phase(Phase::Failed),
            "duplicates": core.truth.duplicates(vendor),
        })
    });
    Json(json!({
        "vendors": vendors.collect::<Vec<_>>(),
        "requests": core.truth.requests(),
        "leaked_credentials": core.truth.leaked_credentials(),
        "faults_fired": core.faults.fired().len(),
    }))
}

#[derive(Deserialize)]
struct WorkFilter {
    phase: Option<Phase>,
    contains: Option<String>,
}

async fn works(
    State(core): Shared,
    Path(vendor): Path<Vendor>,
    Query(filter): Query<WorkFilter>,
) -> Response {
    let mut works = core.truth.works(vendor);
    works.retain(|work| {
        filter
            .phase
            .is_none_or(|phase| work.status.phase() == phase)
            && filter
                .contains
                .as_ref()
                .is_none_or(|text| work.subject().contains(text))
    });
    Json(works).into_response()
}

async fn work(State(core): Shared, Path((vendor, id)): Path<(Vendor, String)>) -> Response {
    match core.truth.work(vendor, &id) {
        Some(work) => Json(work).into_response(),
        None => problem(StatusCode::NOT_FOUND, "no such work"),
    }
}

async fn rules(State(core): Shared) -> Response {
    Json(core.faults.rules()).into_response()
}

async fn add_rule(State(core): Shared, Json(rule): Json<FaultRule>) -> Response {
    match core.faults.add(rule) {
        Ok(id) => (StatusCode::CREATED, Json(json!({"id": id}))).into_response(),
        Err(error) => problem(StatusCode::BAD_REQUEST, &error.to_string()),
    }
}

async fn clear_rules(State(core): Shared) -> StatusCode {
    core.faults.clear();
    StatusCode::NO_CONTENT
}

async fn remove_rule(State(core): Shared, Path(id): Path<u64>) -> StatusCode {
    if core.faults.remove(id) {
        StatusCode::NO_CONTENT
    } else {
        StatusCode::NOT_FOUND
    }
}

async fn fired(State(core): Shared) -> Response {
    Json(core.faults.fired()).into_response()
}

async fn settings(State(core): Shared) -> Json<Settings> {
    Json(core.settings())
}

/// Takes any part of the settings; the rest stays.
async fn change_settings(State(core): Shared, Json(patch): Json<Map<String, Value>>) -> Response {
    let changed = core.change_settings(|settings| {
        let mut value = serde_json::to_value(&*settings)?;
        merge(&mut value, Value::Object(patch));
        *settings = serde_json::from_value(value)?;
        Ok::<_, serde_json::Error>(settings.clone())
    });
    match changed {
        Ok(settings) => Json(settings).into_response(),
        Err(error) => problem(StatusCode::BAD_REQUEST, &error.to_string()),
    }
}

/// Lays `patch` over `value`, object by object.
fn merge(value: &mut Value, patch: Value) {
    match (value, patch) {
        (Value::Object(object), Value::Object(patch)) => {
            for (key, inner) in patch {
                merge(object.entry(key).or_insert(Value::Null), inner);
            }
        }
        (value, patch) => *value = patch,
    }
}

async fn reset(State(core): Shared) -> StatusCode {
    core.reset();
    StatusCode::NO_CONTENT
}

async fn unknown(uri: Uri) -> Response {
    problem(StatusCode::NOT_FOUND, &format!("nothing at {}", uri.path()))
}

fn problem(status: StatusCode, message: &str) -> Response {
    (status, Json(json!({"error": message}))).into_response()
}
