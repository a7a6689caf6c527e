//! GhostCut's envelope, codes and work items.
//!
//! Every answer is `{"code", "msg", "body", "trace"}`. The HTTP status of a business error is not documented, so the code
//! is read first and the status only where there is none. GhostCut cannot replay: whatever is not a documented refusal
//! is *unknown*.

use serde_json::Value;

use super::{
    Answer, ErrorClass, QueryError, class_of_status, id, integer, json, number, public_text, text,
    url,
};
use crate::domain::answer::{FailureClass, Limit, SubmitAnswer, Work, WorkState};

/// The code of an answer that did what was asked.
const SUCCESS: i64 = 1000;

/// An answer in the vendor's own format.
struct Envelope {
    code: i64,
    reason: String,
    body: Value,
}

impl Envelope {
    fn read(answer: &Answer) -> Option<Self> {
        let mut json = json(&answer.body)?;
        let code = integer(json.get("code")?)?;
        let mut reason = format!("code {code}");
        if let Some(message) = text(&json, &["msg", "message"]) {
            reason += &format!(": {}", public_text(message));
        }
        if let Some(trace) = text(&json, &["trace"]) {
            reason += &format!(" (trace {})", public_text(trace));
        }
        let body = json.get_mut("body").map(Value::take).unwrap_or_default();
        Some(Self { code, reason, body })
    }
}

/// What a submit came to.
#[must_use]
pub fn submit(answer: &Answer) -> SubmitAnswer {
    paid(answer, |envelope| {
        let project_id = id(&envelope.body["idProject"]);
        match id(&envelope.body["dataList"][0]["id"]) {
            Some(task_id) => SubmitAnswer::Accepted {
                task_id,
                project_id,
            },
            None => SubmitAnswer::Unknown {
                reason: format!("{}, but no work id", envelope.reason),
                hint: project_id,
            },
        }
    })
}

/// What a redo of the work `task_id` came to; accepted means that the same work runs again.
#[must_use]
pub fn redo(task_id: &str, answer: &Answer) -> SubmitAnswer {
    paid(answer, |envelope| match envelope.body {
        Value::Bool(true) => SubmitAnswer::Accepted {
            task_id: task_id.to_owned(),
            project_id: None,
        },
        Value::Bool(false) => SubmitAnswer::Rejected {
            reason: format!("{}, but the redo was refused", envelope.reason),
        },
        _ => SubmitAnswer::Unknown {
            reason: format!("{}, but neither true nor false", envelope.reason),
            hint: None,
        },
    })
}

/// The table of a paid call; `accepted` reads the body of a success.
fn paid(answer: &Answer, accepted: impl FnOnce(Envelope) -> SubmitAnswer) -> SubmitAnswer {
    let Some(envelope) = Envelope::read(answer) else {
        let reason = without_envelope(answer);
        return match answer.status {
            400 | 401 | 403 | 404 | 405 | 413 | 415 => SubmitAnswer::Rejected { reason },
            _ => SubmitAnswer::Unknown { reason, hint: None },
        };
    };
    match envelope.code {
        SUCCESS => accepted(envelope),
        2001 | 2003 | 2004 => SubmitAnswer::Misconfigured {
            reason: envelope.reason,
        },
        2002 | 3007 | 3008 | 4001..=4004 => SubmitAnswer::Rejected {
            reason: envelope.reason,
        },
        3006 => SubmitAnswer::Throttled {
            limit: Limit::Unspecified,
            retry_after: answer.retry_after,
            reason: envelope.reason,
        },
        // 3001, 3002, 9999 and what nobody documented. 3003 belongs to queries and says nothing about a submit.
        _ => SubmitAnswer::Unknown {
            reason: envelope.reason,
            hint: None,
        },
    }
}

/// The works in a status answer. Items without an id are left out: a missing work means "ask again".
pub fn works(answer: &Answer) -> Result<Vec<Work>, QueryError> {
    Ok(content(answer)?.iter().filter_map(work).collect())
}

/// The works on a page of the list, all of them: an item that cannot be told from the others may be any work.
pub fn listed(answer: &Answer) -> Result<Vec<Work>, QueryError> {
    let works: Option<Vec<Work>> = content(answer)?.iter().map(work).collect();
    works.ok_or_else(|| protocol("the list has an item without a readable id"))
}

fn content(answer: &Answer) -> Result<Vec<Value>, QueryError> {
    let mut body = query(answer)?;
    let content = body.get_mut("content").map_or(Value::Null, Value::take);
    match (content, body) {
        (Value::Array(items), _) | (Value::Null, Value::Array(items)) => Ok(items),
        _ => Err(protocol("no `content` in the answer")),
    }
}

/// The balance in points: the sum over all assets.
pub fn balance(answer: &Answer) -> Result<f64, QueryError> {
    let body = query(answer)?;
    let assets = body["pointAssets"]
        .as_array()
        .ok_or_else(|| protocol("no `pointAssets` in the answer"))?;
    assets
        .iter()
        .map(|asset| {
            number(&asset["pointBalance"])
                .ok_or_else(|| protocol("an asset without `pointBalance`"))
        })
        .sum()
}

/// The table of a free call.
fn query(answer: &Answer) -> Result<Value, QueryError> {
    let Some(envelope) = Envelope::read(answer) else {
        return Err(QueryError {
            class: class_of_status(answer),
            reason: without_envelope(answer),
        });
    };
    let class = match envelope.code {
        SUCCESS => return Ok(envelope.body),
        2001 | 2003 | 2004 => ErrorClass::Misconfigured,
        2002 | 3007 | 3008 | 4001..=4004 => ErrorClass::Protocol,
        3003 => ErrorClass::NotFound,
        3006 => ErrorClass::Throttled {
            retry_after: answer.retry_after,
        },
        _ => ErrorClass::Transient,
    };
    Err(QueryError {
        class,
        reason: envelope.reason,
    })
}

/// The work in a callback: one status item, no envelope. None where the bytes are not that.
#[must_use]
pub fn callback(body: &[u8]) -> Option<Work> {
    work(&json(body)?)
}

fn work(item: &Value) -> Option<Work> {
    Some(Work {
        task_id: id(item.get("id")?)?,
        project_id: id(&item["idProject"]),
        source_url: text(item, &["url"]).map(str::to_owned),
        name: text(item, &["name"]).map(str::to_owned),
        callback_url: None,
        created_at_ms: integer(&item["createTime"]),
        state: state(item),
        charged: number(&item["paidPoint"]),
    })
}

/// Only `processStatus` decides: the vendor's own failure example has a progress of 100.
fn state(item: &Value) -> WorkState {
    let progress = number(&item["processProgress"]).map(|percent| percent.clamp(0.0, 100.0));
    let pending = |unrecognised: Option<&str>| WorkState::Pending {
        progress,
        unrecognised: unrecognised.map(str::to_owned),
    };
    let status =
        integer(&item["processStatus"]).or_else(|| integer(&item["processStatusEnum"]["code"]));
    match status {
        None => pending(Some("no processStatus")),
        Some(-3..=0) => pending(None),
        // 1000 is listed as a second "success".
        Some(status @ (1 | 1000)) => match url(item, &["videoUrl"]) {
            Some(url) => WorkState::Succeeded {
                result_url: url.to_owned(),
            },
            None => pending(Some(&format!("{status} without videoUrl"))),
        },
        Some(status @ ..0) => pending(Some(&status.to_string())),
        Some(status) => WorkState::Failed {
            class: failure(status),
            code: status.to_string(),
            detail: detail(item),
        },
    }
}

/// What a `processStatus` above 1 asks for.
fn failure(status: i64) -> FailureClass {
    match status {
        2 | 3 | 14 => FailureClass::Input,
        5 | 16 | 24 | 26..=32 | 99 | 100 => FailureClass::Permanent,
        18 | 23 | 43 | 111 => FailureClass::Redo,
        6 | 7 | 13 | 20..=22 => FailureClass::Support,
        73 => FailureClass::Unpaid,
        83 => FailureClass::Locked,
        98 => FailureClass::Operator,
        _ => FailureClass::Unrecognised,
    }
}

fn detail(item: &Value) -> String {
    let detail = text(item, &["errorDetail", "error_detail", "errorMsg"])
        .or_else(|| text(&item["processStatusEnum"], &["description"]));
    public_text(detail.unwrap_or_default())
}

fn without_envelope(answer: &Answer) -> String {
    let body = public_text(&String::from_utf8_lossy(&answer.body));
    format!("HTTP {} without a code: {body}", answer.status)
}

fn protocol(reason: &str) -> QueryError {
    QueryError {
        class: ErrorClass::Protocol,
        reason: reason.to_owned(),
    }
}

#[cfg(test)]
mod tests;
