//! What callbacks of both vendors have in common: their faults, the sending, the record.
//! Signature, payload, and whether to try again are each vendor's own.

use std::time::Duration;

use bytes::Bytes;

use crate::Core;
use crate::fault::{Fault, Operation};
use crate::truth::{CallbackAttempt, Phase, Truth, Work, now_ms};

/// Waits as the faults ask; how often to send, or `None` if the callback is lost.
pub(crate) async fn plan(faults: &[Fault]) -> Option<u32> {
    let mut sends = 1;
    for fault in faults {
        match fault {
            Fault::LoseRequest => return None,
            Fault::Delay { ms, .. } => tokio::time::sleep(Duration::from_millis(*ms)).await,
            Fault::Repeat { times } => sends += times,
            _ => {}
        }
    }
    Some(sends)
}

/// Sends one callback of a work and records it; `taken` is the vendor's rule for a good answer.
pub(crate) async fn post(
    core: &Core,
    work: &Work,
    signature: (&str, String),
    body: String,
    taken: fn(u16, &Bytes) -> bool,
) -> bool {
    let Some(url) = &work.callback_url else {
        return true;
    };
    core.truth.count_request(work.vendor, Operation::Callback);
    let request = core
        .client
        .post(url)
        .timeout(Duration::from_secs(10))
        .header("Content-Type", "application/json")
        .header(signature.0, signature.1);
    let (answer, delivered) = match request.body(body).send().await {
        Ok(answer) => {
            let status = answer.status().as_u16();
            let body = answer.bytes().await.unwrap_or_default();
            (Some(status), taken(status, &body))
        }
        Err(_) => (None, false),
    };
    let at = now_ms();
    core.truth.update(work.vendor, &work.id, |work| {
        work.callbacks.push(CallbackAttempt {
            at,
            answer,
            delivered,
        });
    });
    delivered
}

/// Holds the answer to a submit until the callbacks of its works were tried, if a fault asks for it.
pub(crate) async fn before_answer(core: &Core, faults: &[Fault], works: &[Work]) {
    let called_back = |truth: &Truth| {
        works
            .iter()
            .filter_map(|work| truth.work(work.vendor, &work.id))
            .all(|work| {
                let tried = work.callback_url.is_none() || !work.callbacks.is_empty();
                work.status.phase() != Phase::Pending && tried
            })
    };
    for fault in faults {
        if let Fault::CallbackFirst { timeout_ms } = fault {
            // An answer is due in any case; the limit only bounds how late.
            let limit = Duration::from_millis(*timeout_ms);
            core.truth.wait_until(limit, called_back).await;
        }
    }
}
