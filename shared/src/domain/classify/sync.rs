//! Sync.so's answers, error codes and generations.
//!
//! Every create carries an `Idempotency-Key`, so *unknown* here means: the same key and bytes again, never a new key.

use serde_json::Value;

use super::{
    Answer, ErrorClass, QueryError, class_of_status, id, integer, json, public_text, text, url,
};
use crate::domain::answer::{FailureClass, Limit, SubmitAnswer, Work, WorkState};
use crate::domain::search::Marker;

/// Codes that begin so speak about the key, not about the request: whatever the status, a work may exist.
const ABOUT_THE_KEY: &str = "IDEMPOTENCY_";

/// What a create came to.
#[must_use]
pub fn create(answer: &Answer) -> SubmitAnswer {
    let json = json(&answer.body).unwrap_or_default();
    if let (200 | 201, Some(task_id)) = (answer.status, id(&json["id"])) {
        return SubmitAnswer::Accepted {
            task_id,
            project_id: None,
        };
    }
    let reason = reason(answer, &json);
    let unknown = |reason| SubmitAnswer::Unknown {
        reason,
        hint: generation_id(&json),
    };
    let code = text(&json, &["errorCode", "error_code"]).unwrap_or_default();
    if code.starts_with(ABOUT_THE_KEY) {
        return unknown(reason);
    }
    match answer.status {
        400 | 404 | 413 | 422 => SubmitAnswer::Rejected { reason },
        401 => SubmitAnswer::Misconfigured { reason },
        402 => SubmitAnswer::OutOfCredit { reason },
        429 => SubmitAnswer::Throttled {
            limit: match code {
                "concurrency_limit_reached" => Limit::Slots,
                _ => Limit::Rate,
            },
            retry_after: answer.retry_after,
            reason,
        },
        _ => unknown(reason),
    }
}

/// The generation in the answer to a get.
pub fn generation(answer: &Answer) -> Result<Work, QueryError> {
    work(&query(answer)?).ok_or_else(|| protocol("a generation without `id`"))
}

/// The generations in the answer to a list or batch query. Items without an id are left out: a missing generation means
/// "ask again".
pub fn generations(answer: &Answer) -> Result<Vec<Work>, QueryError> {
    Ok(array(answer)?.iter().filter_map(work).collect())
}

/// The generations on a page of the list, all of them: an item that cannot be told from the others may be any work.
pub fn listed(answer: &Answer) -> Result<Vec<Work>, QueryError> {
    let works: Option<Vec<Work>> = array(answer)?.iter().map(work).collect();
    works.ok_or_else(|| protocol("the list has an item without a readable id"))
}

fn array(answer: &Answer) -> Result<Vec<Value>, QueryError> {
    match query(answer)? {
        Value::Array(items) => Ok(items),
        _ => Err(protocol("not an array")),
    }
}

fn query(answer: &Answer) -> Result<Value, QueryError> {
    let json = json(&answer.body);
    match (answer.status, json) {
        (200, Some(json)) => Ok(json),
        (_, json) => Err(QueryError {
            class: class_of_status(answer),
            reason: reason(answer, &json.unwrap_or_default()),
        }),
    }
}

/// The generation in a webhook. None where the bytes are not that.
#[must_use]
pub fn callback(body: &[u8]) -> Option<Work> {
    work(&json(body)?)
}

fn work(item: &Value) -> Option<Work> {
    let video = item["input"].as_array().and_then(|inputs| {
        let video = inputs.iter().find(|input| input["type"] == "video")?;
        text(video, &["url"])
    });
    let state = state(item);
    Some(Work {
        task_id: id(item.get("id")?)?,
        project_id: id(&item["projectId"]),
        source_url: video.map(str::to_owned),
        name: text(item, &["outputFileName"])
            .map(str::to_owned)
            .or_else(|| marker_in_inputs(item)),
        callback_url: text(item, &["webhookUrl"]).map(str::to_owned),
        created_at_ms: created_at_ms(&item["createdAt"]),
        // The vendor's price list: failed generations are not charged. What others cost it does not say.
        charged: matches!(state, WorkState::Failed { .. }).then_some(0.0),
        state,
    })
}

/// The marker in the URL of any input, where the video is a foreign one and an audio file is ours.
fn marker_in_inputs(item: &Value) -> Option<String> {
    let mut urls = item["input"].as_array()?.iter();
    let marker = urls.find_map(|input| Marker::find(text(input, &["url"])?))?;
    Some(marker.to_string())
}

fn created_at_ms(value: &Value) -> Option<i64> {
    match value {
        Value::String(text) => Some(
            chrono::DateTime::parse_from_rfc3339(text)
                .ok()?
                .timestamp_millis(),
        ),
        _ => integer(value),
    }
}

fn state(item: &Value) -> WorkState {
    let pending = |unrecognised: Option<&str>| WorkState::Pending {
        progress: None,
        unrecognised: unrecognised.map(public_text),
    };
    let code = text(item, &["errorCode", "error_code"]);
    let failed = |class, code: &str| WorkState::Failed {
        class,
        code: public_text(code),
        detail: public_text(text(item, &["error", "message"]).unwrap_or_default()),
    };
    match text(item, &["status"]) {
        Some("PENDING" | "PROCESSING") => pending(None),
        Some("COMPLETED") => match url(
            item,
            &[
                "outputUrl",
                "outputMediaUrl",
                "output_url",
                "output_media_url",
            ],
        ) {
            Some(url) => WorkState::Succeeded {
                result_url: url.to_owned(),
            },
            None => pending(Some("COMPLETED without outputUrl")),
        },
        Some("FAILED") => failed(failure(code), code.unwrap_or("FAILED")),
        Some(status @ ("REJECTED" | "CANCELED" | "TIMED_OUT")) => {
            failed(FailureClass::Permanent, code.unwrap_or(status))
        }
        Some(status) => pending(Some(status)),
        None => pending(Some("no status")),
    }
}

/// What the error code of a failed generation asks for.
fn failure(code: Option<&str>) -> FailureClass {
    match code {
        // The address was ours: look at it before the job is blamed.
        Some("generation_input_video_inaccessible") => FailureClass::Input,
        Some(
            "generation_unsupported_model"
            | "generation_media_metadata_missing"
            | "generation_audio_length_exceeded"
            | "generation_audio_missing"
            | "generation_video_missing",
        ) => FailureClass::Permanent,
        Some(
            "generation_timeout"
            | "generation_pipeline_failed"
            | "generation_database_error"
            | "generation_unhandled_error",
        ) => FailureClass::Resubmit,
        Some("generation_internal_auth") => FailureClass::Support,
        _ => FailureClass::Unrecognised,
    }
}

/// The value of the first `generationId` at any depth: where the vendor puts it is not documented.
fn generation_id(json: &Value) -> Option<String> {
    match json {
        Value::Object(members) => ["generationId", "generation_id"]
            .iter()
            .find_map(|name| id(members.get(*name)?))
            .or_else(|| members.values().find_map(generation_id)),
        Value::Array(items) => items.iter().find_map(generation_id),
        _ => None,
    }
}

/// Status, code, message and request id of an error, as far as they are there.
fn reason(answer: &Answer, json: &Value) -> String {
    let mut reason = format!("HTTP {}", answer.status);
    if let Some(code) = text(json, &["errorCode", "error_code"]) {
        reason += &format!(" {}", public_text(code));
    }
    if !json.is_object() {
        reason += " without a code";
    }
    let message = match json.get("message") {
        Some(Value::Array(lines)) => lines
            .iter()
            .filter_map(Value::as_str)
            .collect::<Vec<_>>()
            .join("; "),
        _ => match text(json, &["message", "error"]) {
            Some(message) => message.to_owned(),
            None if json.is_object() => String::new(),
            None => String::from_utf8_lossy(&answer.body).into_owned(),
        },
    };
    let message = public_text(&message);
    if !message.is_empty() {
        reason += &format!(": {message}");
    }
    if let Some(request) = text(json, &["requestId"]) {
        reason += &format!(" (request {})", public_text(request));
    }
    reason
}

fn protocol(reason: &str) -> QueryError {
    QueryError {
        class: ErrorClass::Protocol,
        reason: reason.to_owned(),
    }
}

#[cfg(test)]
mod tests;
