//! Sync.so simulator: routes, key and error body. Each endpoint's rules are in its own file.

mod create;
mod read;
mod request;
mod work;

use std::sync::Arc;

use axum::body::Body;
use axum::http::{Method, Request, Response, StatusCode};
use hmac::{Hmac, KeyInit, Mac};
use hyper::body::Incoming;
use serde_json::{Value, json};
use sha2::Sha256;

use crate::Core;
use crate::fault::{Fault, Operation, When};
use crate::http::{Call, Dialect, Hangup, Payload, Reply, exchange};
use crate::truth::{Status, Vendor, Work};

/// `Sync-Signature`: HMAC-SHA256 over `t.payload` with the whole secret text as key.
pub(crate) fn sign(payload: &str, unix_seconds: i64, secret: &str) -> String {
    // HMAC takes keys of any length, so the error arm is never taken.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret.as_bytes()) else {
        return String::new();
    };
    mac.update(format!("{unix_seconds}.{payload}").as_bytes());
    format!(
        "t={unix_seconds},v1={}",
        hex::encode(mac.finalize().into_bytes())
    )
}

#[derive(Clone, Copy)]
struct SyncSo;

impl Dialect for SyncSo {
    const VENDOR: Vendor = Vendor::Sync;

    fn error(status: StatusCode, error_code: Option<&str>) -> Reply {
        let reason = status.canonical_reason().unwrap_or("error");
        refuse(status, error_code.unwrap_or("internal_error"), reason)
    }

    fn own_error(fault: &Fault, stage: When, reply: Option<&Reply>) -> Option<Reply> {
        let Fault::OutcomeUnknown {
            generation_id,
            when,
        } = fault
        else {
            return None;
        };
        if *when != stage {
            return None;
        }
        let mut other = refuse(
            StatusCode::SERVICE_UNAVAILABLE,
            "IDEMPOTENCY_OUTCOME_UNKNOWN",
            "The outcome of this request is not known",
        );
        let id = reply.and_then(|reply| match &reply.body {
            Payload::Json(body) => body.get("id").cloned(),
            _ => None,
        });
        if let (true, Some(id), Payload::Json(body)) = (*generation_id, id, &mut other.body) {
            body["generationId"] = id;
        }
        Some(other)
    }
}

/// An error in the vendor's form.
fn refuse(status: StatusCode, error_code: &str, message: &str) -> Reply {
    let mut body = json!({
        "statusCode": status.as_u16(),
        "errorCode": error_code,
        "message": message,
        "error": status.canonical_reason(),
    });
    if status == StatusCode::INTERNAL_SERVER_ERROR {
        body["requestId"] = uuid::Uuid::new_v4().to_string().into();
    }
    Reply::json(status, body)
}

fn bad_request(message: &str) -> Reply {
    refuse(StatusCode::BAD_REQUEST, "validation_error", message)
}

fn not_found(message: &str) -> Reply {
    refuse(StatusCode::NOT_FOUND, "not_found", message)
}

/// A work in the vendor's form.
fn generation(work: &Work) -> Value {
    let Status::Text(status) = &work.status else {
        return Value::Null;
    };
    json!({
        "id": work.id,
        "createdAt": timestamp(work.accepted_at),
        "status": status,
        "model": work.request["model"],
        "input": work.request["input"],
        "options": work.request["options"],
        "segments": work.request["segments"],
        "webhookUrl": work.callback_url,
        "projectId": work.project_id,
        "outputUrl": work.result.as_ref().map(|result| &result.url),
        "outputDuration": null,
        "error": work.error,
        "errorCode": work.error_code,
    })
}

fn timestamp(epoch_ms: i64) -> String {
    let time = chrono::DateTime::from_timestamp_millis(epoch_ms).unwrap_or_default();
    time.to_rfc3339_opts(chrono::SecondsFormat::Millis, true)
}

/// Answers one request.
pub(crate) async fn handle(
    core: Arc<Core>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Hangup> {
    let path: Vec<&str> = request.uri().path().trim_matches('/').split('/').collect();
    let operation = match (request.method(), &path[..]) {
        (&Method::POST, ["v2", "generate"]) => Operation::Submit,
        (
            &Method::POST,
            ["v2", "generations", "estimate"] | ["v2", "generate", "estimate-cost"],
        ) => Operation::Estimate,
        (&Method::POST, ["v2", "projects"]) => Operation::Project,
        (&Method::GET, ["v2", "errors"]) => Operation::Catalogue,
        (&Method::GET, ["v2", "generations"]) => Operation::List,
        (&Method::GET, ["v2", "generations", "count"]) => Operation::Count,
        (&Method::GET, ["v2", "generations", _, "download"]) => Operation::Download,
        (&Method::GET, ["v2", "generate" | "generations", _]) => Operation::Status,
        (&Method::DELETE, ["v2", "generations", _]) => Operation::Delete,
        _ => {
            let mut response = Response::new(Body::from(
                r#"{"statusCode":404,"message":"Cannot find route"}"#,
            ));
            *response.status_mut() = StatusCode::NOT_FOUND;
            return Ok(response);
        }
    };
    let id = path.get(2).map(|id| (*id).to_owned()).unwrap_or_default();
    exchange(
        core,
        SyncSo,
        operation,
        request,
        move |core, call| async move { answer(&core, &call, operation, &id).await },
    )
    .await
}

async fn answer(core: &Arc<Core>, call: &Call, operation: Operation, id: &str) -> Reply {
    let key = call.headers.get("x-api-key").map(|key| key.as_bytes());
    if operation != Operation::Catalogue
        && key != Some(core.config.credentials.sync_api_key.as_bytes())
    {
        return refuse(StatusCode::UNAUTHORIZED, "unauthorized", "Invalid API key");
    }
    match operation {
        Operation::Submit => create::create(core, call).await,
        Operation::Status => read::get(core, call, id).await,
        Operation::List => read::list(core, call),
        Operation::Count => read::count(core, call),
        Operation::Download => read::download(core, id),
        Operation::Delete => read::delete(core, id),
        Operation::Project => read::project(core, call),
        Operation::Estimate => read::estimate(call),
        _ => read::catalogue(),
    }
}

#[cfg(test)]
mod tests {
    use super::sign;

    #[test]
    fn webhook_signature_matches_the_known_vector() {
        let body = r#"{"id":"6533643b-aceb-4c40-967e-d9ba9baac39e","status":"COMPLETED","outputUrl":"https://media.example.com/out.mp4"}"#;
        assert_eq!(
            sign(body, 1_760_000_000, "whsec_test_secret_0001"),
            "t=1760000000,v1=55dc5769a3f03a9022206f8ddbbf5e233e07b7eeebd7054ee450bf7cc43cc80a"
        );
    }
}
