//! Sync.so's endpoints that start no work: generations, projects, estimate, error catalogue.

use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderName, HeaderValue, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{bad_request, generation, not_found, refuse};
use crate::Core;
use crate::fault::Fault;
use crate::http::{Call, Reply};
use crate::truth::{Phase, Status, Vendor, Work, now_ms};

const VENDOR: Vendor = Vendor::Sync;

/// Error codes of generations the vendor documents.
const GENERATION_ERRORS: [&str; 11] = [
    "generation_unsupported_model",
    "generation_media_metadata_missing",
    "generation_audio_length_exceeded",
    "generation_audio_missing",
    "generation_video_missing",
    "generation_input_video_inaccessible",
    "generation_timeout",
    "generation_pipeline_failed",
    "generation_database_error",
    "generation_unhandled_error",
    "generation_internal_auth",
];

fn find(core: &Core, id: &str) -> Result<Work, Reply> {
    let found = core.truth.work(VENDOR, id).filter(|work| !work.deleted);
    found.ok_or_else(|| not_found("Generation not found"))
}

pub(super) async fn get(core: &Arc<Core>, call: &Call, id: &str) -> Reply {
    let wait = call.query("wait").as_deref() == Some("true");
    let progress = call.query("include").as_deref() == Some("progress");
    let timeout = call
        .query("timeout")
        .map_or(Ok(5), |text| text.parse::<u64>());
    let (Ok(timeout @ 1..=10), false) = (timeout, wait && progress) else {
        return bad_request("timeout must be 1 to 10, and include=progress does not go with wait");
    };
    if let Err(reply) = find(core, id) {
        return reply;
    }
    if wait {
        let is_final = |truth: &crate::Truth| {
            truth
                .work(VENDOR, id)
                .is_none_or(|work| work.status.phase() != Phase::Pending)
        };
        // Final or not, the state after the wait is the answer.
        core.truth
            .wait_until(Duration::from_secs(timeout), is_final)
            .await;
    }
    let work = match find(core, id) {
        Ok(work) => work,
        Err(reply) => return reply,
    };
    let mut body = generation(&work);
    if progress {
        body["progress"] = work.progress.into();
    }
    let mut reply = Reply::json(StatusCode::OK, body);
    if wait {
        let headers = [
            ("retry-after", HeaderValue::from_static("2")),
            ("x-sync-wait-mode", HeaderValue::from_static("long-poll")),
            ("x-sync-wait-timeout-seconds", HeaderValue::from(timeout)),
        ];
        reply
            .headers
            .extend(headers.map(|(name, value)| (HeaderName::from_static(name), value)));
    }
    reply
}

struct Filter {
    statuses: Option<Vec<String>>,
    ids: Option<Vec<String>>,
    project: Option<String>,
}

impl Filter {
    /// `source` is accepted and ignored: all works here come over the API.
    fn of(call: &Call) -> Self {
        let list = |name: &str| {
            let text = call.query(name).filter(|text| !text.is_empty())?;
            Some(text.split(',').map(|part| part.trim().to_owned()).collect())
        };
        Self {
            statuses: list("status"),
            ids: list("ids"),
            project: call.query("projectId"),
        }
    }

    fn lets(&self, work: &Work) -> bool {
        let Status::Text(status) = &work.status else {
            return false;
        };
        self.statuses
            .as_ref()
            .is_none_or(|wanted| wanted.contains(status))
            && self
                .project
                .as_ref()
                .is_none_or(|wanted| work.project_id.as_ref() == Some(wanted))
    }
}

pub(super) fn list(core: &Core, call: &Call) -> Reply {
    let limit = match call.query("limit").map(|text| text.parse::<usize>()) {
        None => None,
        Some(Ok(limit @ 1..=100)) => Some(limit),
        Some(_) => return bad_request("limit must be 1 to 100"),
    };
    let (cursor, filter, now) = (call.query("cursor"), Filter::of(call), now_ms());
    // A cursor needs all works before it; otherwise the limit bounds what is copied.
    let most = limit.filter(|_| cursor.is_none()).unwrap_or(usize::MAX);
    let mut works = core
        .truth
        .page(VENDOR, filter.ids.as_deref(), (0, most), |work| {
            filter.lets(work) && !call.hides(work.accepted_at, now)
        });
    match (limit, cursor) {
        // Without a limit no order is promised; oldest first keeps clients from counting on one.
        (None, None) => works.reverse(),
        (None, Some(_)) => return bad_request("cursor needs limit"),
        (Some(_), None) => {}
        (Some(limit), Some(cursor)) => match works.iter().position(|work| work.id == cursor) {
            Some(last) => works = works.into_iter().skip(last + 1).take(limit).collect(),
            None => return bad_request("cursor is unknown"),
        },
    }
    let mut items: Vec<Value> = works.iter().map(generation).collect();
    for fault in &call.faults {
        match fault {
            Fault::ReverseItems => items.reverse(),
            Fault::DropItems { contains } => {
                items.retain(|item| !item.to_string().contains(contains))
            }
            _ => {}
        }
    }
    Reply::json(StatusCode::OK, items.into())
}

pub(super) fn count(core: &Core, call: &Call) -> Reply {
    let filter = Filter::of(call);
    let works = core
        .truth
        .page(VENDOR, filter.ids.as_deref(), (0, usize::MAX), |work| {
            filter.lets(work)
        });
    Reply::json(StatusCode::OK, json!({"count": works.len()}))
}

pub(super) fn download(core: &Core, id: &str) -> Reply {
    match find(core, id) {
        Err(reply) => reply,
        Ok(work) => match work.result {
            Some(result) => Reply::text(StatusCode::OK, result.url),
            None => not_found("Generation has no output"),
        },
    }
}

pub(super) fn delete(core: &Core, id: &str) -> Reply {
    if let Err(reply) = find(core, id) {
        return reply;
    }
    let changed = core.truth.update(VENDOR, id, |work| {
        work.deleted = work.status.phase() != Phase::Pending
    });
    match changed {
        Some(work) if work.deleted => Reply::empty(StatusCode::NO_CONTENT),
        _ => refuse(
            StatusCode::CONFLICT,
            "generation_not_final",
            "Generation is still in progress",
        ),
    }
}

#[derive(Deserialize)]
struct ProjectRequest {
    name: String,
    id: Option<uuid::Uuid>,
}

pub(super) fn project(core: &Core, call: &Call) -> Reply {
    match serde_json::from_slice::<ProjectRequest>(&call.body) {
        Err(error) => bad_request(&error.to_string()),
        Ok(request) => {
            let id = request.id.unwrap_or_else(uuid::Uuid::new_v4).to_string();
            let project =
                json!({"id": id, "name": request.name, "createdAt": super::timestamp(now_ms())});
            let (project, new) = core.truth.project(&id, project);
            Reply::json(
                if new {
                    StatusCode::CREATED
                } else {
                    StatusCode::OK
                },
                project,
            )
        }
    }
}

#[derive(Deserialize)]
struct EstimateRequest {
    model: String,
    duration: f64,
    fps: Option<f64>,
}

/// USD per frame, from the vendor's prices per second at 25 frames.
fn price_per_frame(model: &str) -> Option<f64> {
    match model {
        "lipsync-2" => Some(0.002),
        "lipsync-2-pro" => Some(0.0032),
        "sync-3" => Some(0.0053),
        _ => None,
    }
}

pub(super) fn estimate(call: &Call) -> Reply {
    let request = match serde_json::from_slice::<EstimateRequest>(&call.body) {
        Ok(request) if request.duration > 0.0 => request,
        Ok(_) => return bad_request("duration must be above 0"),
        Err(error) => return bad_request(&error.to_string()),
    };
    let Some(price) = price_per_frame(&request.model) else {
        return refuse(
            StatusCode::UNPROCESSABLE_ENTITY,
            "cost_estimate_unavailable",
            "No price for this model",
        );
    };
    let frames = (request.duration * request.fps.unwrap_or(30.0)).ceil();
    let cost = (frames * price * 10_000.0).round() / 10_000.0;
    let body = json!({"estimatedFrameCount": frames as u64, "estimatedGenerationCost": cost, "estimatedCredits": null});
    Reply::json(StatusCode::OK, body)
}

pub(super) fn catalogue() -> Reply {
    let items = GENERATION_ERRORS
        .iter()
        .map(|code| json!({"errorCode": code, "message": code.replace('_', " ")}));
    Reply::json(StatusCode::OK, items.collect())
}
