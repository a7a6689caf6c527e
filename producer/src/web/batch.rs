//! `POST /v1/jobs/batch`: many jobs at once, each with its own answer.

use std::convert::Infallible;
use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{FromRequestParts, State};
use axum::http::HeaderMap;
use axum::http::request::Parts;
use futures::{StreamExt as _, stream};
use serde::Serialize;
use serde_json::{Value, json};
use shared::db::RequestKey;
use shared::domain::fields::{FieldCode, FieldError};
use tokio::time::Instant;
use utoipa::ToSchema;
use uuid::Uuid;

use super::REQUEST_TIMEOUT;
use super::access::Caller;
use super::document::JobDocument;
use super::jobs::{internal, read_body, taken};
use super::problem::{Document, Kind, Problem};
use super::requests::BatchRequest;
use crate::intake::{self, INTAKE, Intake, LOOKUP_TIMEOUT};

/// Most jobs in one request.
const MAX_JOBS: usize = 100;
/// Jobs that are looked at side by side: looking at their files is mostly waiting.
const AT_ONCE: usize = 16;
/// How long after its head a request still begins with jobs. One that is begun last may wait for the object store as long as
/// [`LOOKUP_TIMEOUT`] and then has to be stored, all before [`REQUEST_TIMEOUT`] takes the answers of the others away.
const BEGIN_WITHIN: Duration = Duration::from_secs(40);
const _: () =
    assert!(BEGIN_WITHIN.as_secs() + LOOKUP_TIMEOUT.as_secs() < REQUEST_TIMEOUT.as_secs());

/// What came of each job, in the order of the request.
#[derive(Serialize, ToSchema)]
pub(super) struct BatchDocument {
    results: Vec<BatchResult>,
}

/// What came of one job: what a single `POST /v1/jobs` would have answered.
#[derive(Serialize, ToSchema)]
pub(super) struct BatchResult {
    /// 201 stored, 200 stored before, 503 to be asked for again, else see `problem`.
    status: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<JobDocument>, nullable = false)]
    job: Option<Value>,
    /// Pointers are into the item's `request`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Document<'static>>, nullable = false)]
    problem: Option<Value>,
}

/// Put many jobs in
///
/// Each is stored or refused by itself; repeat the request under the same keys until every one has a final answer. Files that answer
/// slowly may take the time of the others: a job that was not looked at within 40 seconds gets 503 (`not-looked-at`), and nothing of it
/// is stored.
#[utoipa::path(post, path = "/v1/jobs/batch", tag = "jobs", operation_id = "create_jobs", request_body = BatchRequest,
    responses((status = 200, description = "What came of each", body = BatchDocument)))]
pub(super) async fn create(
    State(intake): State<Intake>,
    caller: Caller,
    Begun(begun): Begun,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<BatchDocument>, Problem> {
    let items = read(read_body(&headers, body)?)?;
    let answer = |item| one(intake.clone(), caller.name.clone(), item);
    let results = each(items, begun + BEGIN_WITHIN, answer).await;
    Ok(Json(BatchDocument { results }))
}

/// When a request's head had come: its body may take its time.
pub(super) struct Begun(Instant);

impl<S: Sync> FromRequestParts<S> for Begun {
    type Rejection = Infallible;

    async fn from_request_parts(_: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self(Instant::now()))
    }
}

/// What comes of each item, in their order; those that are not begun by `until` are left alone.
async fn each<T, F: Future<Output = BatchResult>>(
    items: Vec<T>,
    until: Instant,
    answer: impl Fn(T) -> F,
) -> Vec<BatchResult> {
    let answer = &answer;
    let answers = items.into_iter().map(|item| async move {
        if Instant::now() < until {
            return answer(item).await;
        }
        let detail = "others took the time; nothing of it is stored: send it again, under the same key that is safe";
        BatchResult::refused(&Problem::new(Kind::NotLookedAt, detail))
    });
    stream::iter(answers).buffered(AT_ONCE).collect().await
}

struct Item {
    request: Value,
    key: Option<RequestKey>,
}

async fn one(intake: Intake, by: Option<String>, item: Item) -> BatchResult {
    let Item { request, key } = item;
    // A task of its own: a client that hangs up must not cut a transaction in half.
    let storing = tokio::spawn(async move {
        let by = by.as_deref().unwrap_or(INTAKE);
        let created = intake
            .create(&request, key.as_ref(), Uuid::new_v4(), by)
            .await;
        taken(&intake, created).await
    });
    match storing.await.map_err(|error| internal(&error)).flatten() {
        Ok((status, _, job)) => BatchResult {
            status: status.as_u16(),
            job: Some(job),
            problem: None,
        },
        Err(problem) => BatchResult::refused(&problem),
    }
}

impl BatchResult {
    fn refused(problem: &Problem) -> Self {
        let (status, document) = problem.document();
        Self {
            status: status.as_u16(),
            job: None,
            problem: Some(json!(document)),
        }
    }
}

/// The items; faults of the list itself refuse all of them.
fn read(body: Value) -> Result<Vec<Item>, Problem> {
    let mut faults = Vec::new();
    let mut fault = |path: String, code, message: &str| {
        faults.push(FieldError {
            path,
            code,
            message: message.to_owned(),
        });
    };
    let mut items = Vec::new();
    match body {
        Value::Object(mut fields) => {
            match fields.remove("jobs") {
                Some(Value::Array(jobs)) if (1..=MAX_JOBS).contains(&jobs.len()) => {
                    for (index, job) in jobs.into_iter().enumerate() {
                        items.extend(read_item(index, job, &mut fault));
                    }
                }
                Some(Value::Array(_)) => {
                    let message = format!("must be a list of 1 to {MAX_JOBS}");
                    fault("/jobs".to_owned(), FieldCode::OutOfRange, &message);
                }
                Some(_) => fault("/jobs".to_owned(), FieldCode::WrongType, "must be a list"),
                None => fault("/jobs".to_owned(), FieldCode::Missing, "has to be there"),
            }
            for name in fields.keys() {
                let message = "is not a known field";
                fault(format!("/{name}"), FieldCode::UnknownField, message);
            }
        }
        _ => fault(String::new(), FieldCode::WrongType, "must be an object"),
    }
    if faults.is_empty() {
        return Ok(items);
    }
    faults.truncate(100);
    Err(Problem::faults(Kind::InvalidRequest, faults))
}

fn read_item(
    index: usize,
    item: Value,
    fault: &mut impl FnMut(String, FieldCode, &str),
) -> Option<Item> {
    let at = |name: &str| format!("/jobs/{index}{name}");
    let Value::Object(mut fields) = item else {
        fault(at(""), FieldCode::WrongType, "must be an object");
        return None;
    };
    let request = fields.remove("request");
    let key = fields.remove("idempotency_key");
    for name in fields.keys() {
        let message = "is not a known field";
        fault(at(&format!("/{name}")), FieldCode::UnknownField, message);
    }
    let Some(request) = request else {
        fault(at("/request"), FieldCode::Missing, "has to be there");
        return None;
    };
    let key = match key {
        None => None,
        Some(Value::String(key)) if intake::is_request_key(&key) => {
            Some(intake::request_key(&key, &request))
        }
        Some(_) => {
            let message = "must be 1 to 255 visible ASCII characters";
            fault(at("/idempotency_key"), FieldCode::Malformed, message);
            return None;
        }
    };
    Some(Item { request, key })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_of_the_list_refuse_all_and_are_all_named() {
        let faults = |body: Value| {
            let problem = json!(read(body).err().unwrap().document().1);
            let errors = problem["errors"].as_array().unwrap().iter();
            let path = |error: &Value| error["path"].as_str().unwrap().to_owned();
            errors.map(path).collect::<Vec<_>>()
        };
        assert_eq!(faults(json!([])), [""]);
        assert_eq!(faults(json!({"x": 1})), ["/jobs", "/x"]);
        assert_eq!(faults(json!({"jobs": []})), ["/jobs"]);
        assert_eq!(
            faults(json!({"jobs": vec![json!({"request": 1}); 101]})),
            ["/jobs"]
        );
        let bad = json!({"jobs": [1, {}, {"request": {}, "idempotency_key": "a b", "y": 1}]});
        assert_eq!(
            faults(bad),
            [
                "/jobs/0",
                "/jobs/1/request",
                "/jobs/2/y",
                "/jobs/2/idempotency_key"
            ]
        );
        let items =
            read(json!({"jobs": [{"request": 7}, {"request": {}, "idempotency_key": "k"}]}));
        let items = items.ok().unwrap();
        assert!(items[0].key.is_none() && items[1].key.is_some());
    }

    #[tokio::test]
    async fn what_there_is_no_time_for_is_left_alone_and_said() {
        let until = Instant::now() + Duration::from_secs(1);
        // Each as slow as can be: none ends before the time is over.
        let answer = async |number: usize| {
            tokio::time::sleep_until(until).await;
            BatchResult {
                status: 201,
                job: Some(json!(number)),
                problem: None,
            }
        };
        let results = each((0..MAX_JOBS).collect(), until, answer).await;
        assert_eq!(results.len(), MAX_JOBS);
        let (done, left) = results.split_at(AT_ONCE);
        for (number, result) in done.iter().enumerate() {
            assert_eq!(
                (result.status, &result.job),
                (201, &Some(json!(number))),
                "{number}"
            );
        }
        for result in left {
            let problem = result.problem.as_ref().unwrap();
            assert_eq!((result.status, &result.job), (503, &None));
            assert_eq!(problem["type"], "urn:ghostfleet:problem:not-looked-at");
            assert_eq!(problem["status"], 503);
        }
    }
}
