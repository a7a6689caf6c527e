//! What Sync.so does with an accepted generation: statuses over time, the result, the webhook.

use std::sync::Arc;

use super::{generation, sign};
use crate::Core;
use crate::callback;
use crate::fault::{Fault, Operation};
use crate::http::reshape_json;
use crate::media::result_limits;
use crate::truth::{ResultFile, Status, Vendor, Work, now_ms};

const VENDOR: Vendor = Vendor::Sync;
const MODELS: [&str; 5] = [
    "lipsync-2",
    "lipsync-2-pro",
    "lipsync-1.9.0-beta",
    "react-1",
    "sync-3",
];

/// From `PENDING` to a final state.
pub(super) async fn process(core: Arc<Core>, id: String) {
    let Some(work) = core.truth.update(VENDOR, &id, |work| work.runs += 1) else {
        return;
    };
    let faults = core
        .faults
        .strike(VENDOR, Operation::Process, &work.subject());
    let total = core.duration(&faults, core.settings().sync.process_ms, &work);
    tokio::time::sleep(total / 5).await;
    for progress in [5.0, 37.5, 62.5, 87.5] {
        let shown = core.truth.update(VENDOR, &id, |work| {
            work.status = Status::Text("PROCESSING".into());
            work.progress = Some(progress);
        });
        if shown.is_none() {
            return;
        }
        tokio::time::sleep(total / 5).await;
    }
    let wanted = faults.iter().find_map(|fault| match fault {
        Fault::Outcome { status, error_code } if status != "COMPLETED" => {
            Some((status.clone(), error_code.clone()))
        }
        _ => None,
    });
    let outcome = match wanted {
        Some(failure) => Err(failure),
        None => make(&core, &work, &faults)
            .await
            .map_err(|code| ("FAILED".to_owned(), Some(code.to_owned()))),
    };
    let finished = core.truth.update(VENDOR, &id, |work| {
        work.finished_at = Some(now_ms());
        match outcome {
            Ok(result) => {
                work.status = Status::Text("COMPLETED".into());
                work.progress = Some(100.0);
                work.result = Some(result);
            }
            Err((status, error_code)) => {
                work.error = Some(
                    error_code
                        .as_deref()
                        .unwrap_or("Generation failed")
                        .replace('_', " "),
                );
                work.error_code = error_code;
                work.status = Status::Text(status);
            }
        }
    });
    if let Some(work) = finished {
        call_back(&core, &work).await;
    }
}

/// Fetches every input that has a URL and makes the result from the video.
async fn make(core: &Core, work: &Work, faults: &[Fault]) -> Result<ResultFile, &'static str> {
    if !work.request["model"]
        .as_str()
        .is_some_and(|model| MODELS.contains(&model))
    {
        return Err("generation_unsupported_model");
    }
    let mut video = None;
    for input in work.request["input"].as_array().into_iter().flatten() {
        let Some(url) = input["url"].as_str() else {
            continue;
        };
        let fetched = core.media.fetch(&core.client, url).await.map_err(|error| {
            tracing::debug!(work = work.id, %error, "input not fetched");
            "generation_input_video_inaccessible"
        })?;
        if input["type"] == "video" {
            video = Some(fetched);
        }
    }
    let settings = core.settings().sync;
    let (size, ttl) = result_limits(faults, settings.result_bytes, settings.result_ttl_ms);
    let video = video.ok_or("generation_video_missing")?;
    Ok(core
        .media
        .publish(&core.endpoints.media, work, &video, size, ttl))
}

/// Sends the webhook once: `COMPLETED` and `FAILED` only, and no retry is promised.
async fn call_back(core: &Core, work: &Work) {
    if work.callback_url.is_none() {
        return;
    }
    if !matches!(&work.status, Status::Text(status) if status == "COMPLETED" || status == "FAILED")
    {
        return;
    }
    let faults = core
        .faults
        .strike(VENDOR, Operation::Callback, &work.subject());
    let Some(sends) = callback::plan(&faults).await else {
        return;
    };
    let mut body = generation(work);
    reshape_json(&mut body, &faults);
    let body = body.to_string();
    let secret = match faults.contains(&Fault::BadSignature) {
        true => "whsec_another",
        false => &core.config.credentials.sync_webhook_secret,
    };
    for _ in 0..sends {
        let signature = ("Sync-Signature", sign(&body, now_ms() / 1000, secret));
        callback::post(core, work, signature, body.clone(), |status, _| {
            (200..300).contains(&status)
        })
        .await;
    }
}
