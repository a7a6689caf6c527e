//! What GhostCut does with an accepted work: statuses over time, the result, the callback.

use std::sync::Arc;
use std::time::Duration;

use super::query::{failure_text, item};
use super::sign;
use crate::Core;
use crate::callback;
use crate::fault::{Fault, Operation};
use crate::http::reshape_json;
use crate::media::result_limits;
use crate::truth::{Phase, Status, Vendor, Work, now_ms};

const VENDOR: Vendor = Vendor::Ghostcut;
const SUCCESS: i32 = 1;
const DOWNLOAD_FAILED: i32 = 3;
const POINTS_RAN_OUT: i32 = 73;

/// One run of a work, from -1 to a final state.
pub(super) async fn process(core: Arc<Core>, id: String) {
    let started = core.truth.update(VENDOR, &id, |work| {
        work.runs += 1;
        work.status = Status::Code(-1);
        work.progress = Some(0.0);
        (work.error, work.result, work.finished_at) = (None, None, None);
    });
    let Some(work) = started else { return };
    let faults = core
        .faults
        .strike(VENDOR, Operation::Process, &work.subject());
    let bounds = core.settings().ghostcut.process_ms;
    let total = core.duration(&faults, bounds, &work);
    let scripted = faults.iter().find_map(|fault| match fault {
        Fault::Statuses {
            codes,
            step_ms,
            progress,
        } => Some((codes, step_ms, progress)),
        _ => None,
    });
    let outcome = match scripted {
        Some((codes, step_ms, progress)) => {
            let step = step_ms.map_or(total / codes.len() as u32, Duration::from_millis);
            follow(&core, &work, codes, step, *progress, &faults).await
        }
        None => run(&core, &work, total, &faults).await,
    };
    if let Some((code, progress)) = outcome {
        finish(&core, &work, code, progress);
    }
}

/// Goes through given statuses; the first above 0 is the outcome, and without one the work stays as it is.
async fn follow(
    core: &Core,
    work: &Work,
    codes: &[i32],
    step: Duration,
    progress: Option<f64>,
    faults: &[Fault],
) -> Option<(i32, Option<f64>)> {
    for code in codes {
        match *code {
            SUCCESS => return deliver(core, work, faults).await,
            code if code > 0 => return Some((code, progress)),
            code => {
                core.truth
                    .update(VENDOR, &work.id, |work| work.status = Status::Code(code))?;
                tokio::time::sleep(step).await;
            }
        }
    }
    core.truth
        .update(VENDOR, &work.id, |work| work.progress = progress)?;
    None
}

/// The usual course: waiting, processing with rising progress, done.
async fn run(
    core: &Core,
    work: &Work,
    total: Duration,
    faults: &[Fault],
) -> Option<(i32, Option<f64>)> {
    tokio::time::sleep(total / 5).await;
    let paid = core.change_settings(|settings| {
        let enough = settings.ghostcut.points >= settings.ghostcut.points_per_work;
        if enough {
            settings.ghostcut.points -= settings.ghostcut.points_per_work;
        }
        enough
    });
    if !paid {
        return Some((POINTS_RAN_OUT, Some(0.0)));
    }
    for progress in [5.0, 37.5, 62.5, 87.5] {
        core.truth.update(VENDOR, &work.id, |work| {
            work.status = Status::Code(0);
            work.progress = Some(progress);
        })?;
        tokio::time::sleep(total / 5).await;
    }
    deliver(core, work, faults).await
}

/// Fetches the input and makes the result.
async fn deliver(core: &Core, work: &Work, faults: &[Fault]) -> Option<(i32, Option<f64>)> {
    let settings = core.settings().ghostcut;
    match core.media.fetch(&core.client, &work.source_url).await {
        Ok(input) => {
            let (size, ttl) = result_limits(faults, settings.result_bytes, settings.result_ttl_ms);
            let result = core
                .media
                .publish(&core.endpoints.media, work, &input, size, ttl);
            core.truth.update(VENDOR, &work.id, |work| {
                work.paid_points = settings.points_per_work;
                work.result = Some(result);
            })?;
            Some((SUCCESS, Some(100.0)))
        }
        Err(error) => {
            tracing::debug!(work = work.id, %error, "input not fetched");
            Some((DOWNLOAD_FAILED, Some(100.0)))
        }
    }
}

fn finish(core: &Arc<Core>, work: &Work, code: i32, progress: Option<f64>) {
    let finished = core.truth.update(VENDOR, &work.id, |work| {
        work.status = Status::Code(code);
        work.progress = progress;
        work.finished_at = Some(now_ms());
        work.error = (code > SUCCESS).then(|| failure_text(code).to_owned());
    });
    if let Some(work) = finished
        && work.callback_url.is_some()
    {
        core.spawn(call_back(core.clone(), work.id, work.runs));
    }
}

/// Sends the callback of one run until it is taken, the work is too old, or another run has begun.
async fn call_back(core: Arc<Core>, id: String, run: u32) {
    loop {
        let Some(work) = core.truth.work(VENDOR, &id) else {
            return;
        };
        if work.runs != run || work.status.phase() == Phase::Pending {
            return;
        }
        let faults = core
            .faults
            .strike(VENDOR, Operation::Callback, &work.subject());
        let Some(sends) = callback::plan(&faults).await else {
            return;
        };
        let mut delivered = false;
        for _ in 0..sends {
            delivered = send(&core, &work, &faults).await;
        }
        let settings = core.settings().ghostcut;
        let age = now_ms().saturating_sub(work.accepted_at);
        if delivered || age >= settings.callback_max_age_ms as i64 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(settings.callback_retry_ms)).await;
    }
}

async fn send(core: &Core, work: &Work, faults: &[Fault]) -> bool {
    let mut body = item(work);
    reshape_json(&mut body, faults);
    let body = body.to_string();
    let mut signature = sign(body.as_bytes(), &core.config.credentials.ghostcut_secret);
    if faults.contains(&Fault::BadSignature) {
        signature = sign(signature.as_bytes(), "another secret");
    }
    // Only 200 with a body counts; an empty 200 or a 204 is a failure to this vendor.
    callback::post(
        core,
        work,
        ("Callback-Sign", signature),
        body,
        |status, body| status == 200 && !body.is_empty(),
    )
    .await
}
