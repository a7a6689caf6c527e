//! `POST /v2/generate`: limits, idempotency and acceptance.

use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use axum::http::{HeaderMap, StatusCode};
use sha2::{Digest, Sha256};

use super::request::CreateRequest;
use super::{bad_request, generation, refuse, work};
use crate::Core;
use crate::callback;
use crate::fault::{Fault, When};
use crate::http::{Call, Reply};
use crate::truth::{Key, NewWork, Refused, Vendor, Work};

pub(super) async fn create(core: &Arc<Core>, call: &Call) -> Reply {
    let Ok(key) = idempotency_key(&call.headers) else {
        return refuse(
            StatusCode::BAD_REQUEST,
            "INVALID_IDEMPOTENCY_KEY",
            "Idempotency-Key is invalid",
        );
    };
    if over_rate(core) {
        return refuse(
            StatusCode::TOO_MANY_REQUESTS,
            "rate_limit_exceeded",
            "Too many requests",
        );
    }
    let request = match CreateRequest::parse(&call.body) {
        Ok(request) => request,
        Err(problem) => return bad_request(&problem),
    };
    let body_sha256 = hex::encode(Sha256::digest(&call.body));
    let settings = core.settings().sync;
    if let Some(key) = &key {
        match core
            .truth
            .reserve_key(key, &body_sha256, settings.key_ttl_ms)
        {
            Key::Reserved => {}
            Key::InProgress => {
                let message = "A request with this key is in progress";
                return refuse(
                    status(settings.in_progress_status),
                    &settings.in_progress_code,
                    message,
                );
            }
            Key::Conflict => {
                let message = "This key was used with another payload";
                return refuse(
                    status(settings.conflict_status),
                    &settings.conflict_code,
                    message,
                );
            }
            Key::Replay(id) => return replay(core, &id, status(settings.replay_status)),
        }
    }
    for fault in &call.faults {
        if let Fault::Delay {
            ms,
            when: When::During,
        } = fault
        {
            tokio::time::sleep(Duration::from_millis(*ms)).await;
        }
    }
    let new = NewWork {
        source_url: request.video_url(),
        marker: request.output_file_name,
        project_id: request.project_id.map(|id| id.to_string()),
        callback_url: request.webhook_url,
        request: serde_json::from_slice(&call.body).unwrap_or_default(),
        body_sha256,
    };
    match core
        .truth
        .accept(Vendor::Sync, vec![new], key.as_deref(), settings.plan_slots)
    {
        Ok(works) => accepted(core, call, &works).await,
        Err(Refused::SlotsFull) => {
            if let Some(key) = &key {
                core.truth.release_key(key);
            }
            let message = "All concurrent generations of your plan are in use";
            refuse(
                StatusCode::TOO_MANY_REQUESTS,
                "concurrency_limit_reached",
                message,
            )
        }
    }
}

async fn accepted(core: &Arc<Core>, call: &Call, works: &[Work]) -> Reply {
    let Some(work) = works.first() else {
        let status = StatusCode::INTERNAL_SERVER_ERROR;
        return refuse(status, "internal_error", "nothing accepted");
    };
    core.spawn(work::process(core.clone(), work.id.clone()));
    callback::before_answer(core, &call.faults, works).await;
    Reply::json(StatusCode::CREATED, generation(work))
}

fn replay(core: &Core, id: &str, status: StatusCode) -> Reply {
    match core.truth.work(Vendor::Sync, id) {
        Some(work) => Reply::json(status, generation(&work)),
        None => refuse(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal_error",
            "generation is gone",
        ),
    }
}

fn status(number: u16) -> StatusCode {
    StatusCode::from_u16(number).unwrap_or(StatusCode::CONFLICT)
}

/// The key, if any: exactly one header of 1-128 of `A-Z a-z 0-9 . _ ~ -`.
fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, ()> {
    let mut values = headers.get_all("idempotency-key").iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    let valid = |byte: &u8| byte.is_ascii_alphanumeric() || b"._~-".contains(byte);
    let bytes = value.as_bytes();
    if values.next().is_some() || bytes.is_empty() || bytes.len() > 128 || !bytes.iter().all(valid)
    {
        return Err(());
    }
    Ok(Some(String::from_utf8_lossy(bytes).into_owned()))
}

/// Counts this create and tells whether it is one too many within a minute.
fn over_rate(core: &Core) -> bool {
    let Some(limit) = core.settings().sync.rate_limit_per_minute else {
        return false;
    };
    let now = Instant::now();
    let mut recent = core
        .recent_creates
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    recent.retain(|at| now.duration_since(*at) < Duration::from_secs(60));
    if recent.len() >= limit as usize {
        return true;
    }
    recent.push(now);
    false
}
