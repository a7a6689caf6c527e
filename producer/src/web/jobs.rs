//! `POST /v1/jobs`, `GET /v1/jobs` and `GET /v1/jobs/{id}`.

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::{Value, json};
use shared::db::{Created, DbError, RequestKey};
use shared::domain::fields::{FieldCode, FieldError};
use shared::telemetry::chain;
use uuid::Uuid;

use super::access::Caller;
use super::document::{FullDocument, JobDocument};
use super::list;
use super::problem::{Kind, Problem};
use crate::intake::{self, INTAKE, Intake, IntakeError};

/// Newest events of a job that are shown.
const HISTORY_LIMIT: i64 = 200;
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// A page of jobs.
#[derive(Serialize)]
struct Page {
    jobs: Vec<JobDocument>,
    next_cursor: Option<String>,
}

pub(super) async fn create(
    State(intake): State<Intake>,
    caller: Caller,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let request = read_body(&headers, body)?;
    let key = read_key(&headers, &request)?;
    let id = Uuid::new_v4();
    // A task of its own: a client that hangs up must not cut a transaction in half.
    let created = tokio::spawn({
        let intake = intake.clone();
        async move {
            let by = caller.name.as_deref().unwrap_or(INTAKE);
            intake.create(&request, key.as_ref(), id, by).await
        }
    })
    .await
    .map_err(|error| internal(&error))?
    .map_err(|error| refusal(&error))?;
    match created {
        Created::New(id) => Ok((
            StatusCode::CREATED,
            [(header::LOCATION, format!("/v1/jobs/{id}"))],
            Json(created_document(&intake, id).await),
        )
            .into_response()),
        Created::Existing(id) => match document(&intake, id).await {
            Ok(Some(job)) => {
                let location = [(header::LOCATION, format!("/v1/jobs/{id}"))];
                Ok((location, Json(job)).into_response())
            }
            Ok(None) => {
                let detail = "the job this request once made is no longer there";
                Err(Problem::new(Kind::JobGone, detail).about(id))
            }
            Err(error) => Err(database(&error)),
        },
        Created::KeyTaken(id) => {
            let detail = format!("under this key another request made the job {id}");
            Err(Problem::new(Kind::IdempotencyKeyReused, detail).about(id))
        }
    }
}

pub(super) async fn show(
    State(Intake { db, .. }): State<Intake>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Response, Problem> {
    let id = read_id(id)?;
    let found = FullDocument::read(&db, id, HISTORY_LIMIT).await;
    match found.map_err(|error| database(&error))? {
        Some(document) => Ok(Json(document).into_response()),
        None => Err(no_job(id)),
    }
}

/// The id of a job in a path.
pub(super) fn read_id(id: Result<Path<String>, PathRejection>) -> Result<Uuid, Problem> {
    let id = id.ok().and_then(|Path(id)| id.parse::<Uuid>().ok());
    id.ok_or_else(|| {
        let fault = FieldError {
            path: "id".to_owned(),
            code: FieldCode::Malformed,
            message: "must be a UUID".to_owned(),
        };
        Problem::faults(Kind::InvalidParameters, vec![fault])
    })
}

pub(super) fn no_job(id: Uuid) -> Problem {
    Problem::new(Kind::JobNotFound, format!("there is no job {id}"))
}

pub(super) async fn list(
    State(Intake { db, .. }): State<Intake>,
    parameters: Result<Query<Vec<(String, String)>>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(parameters) = parameters.map_err(|_| {
        let detail = "the query string cannot be read";
        Problem::new(Kind::InvalidParameters, detail)
    })?;
    let mut filter = list::read(&parameters)
        .map_err(|faults| Problem::faults(Kind::InvalidParameters, faults))?;
    let limit = filter.limit;
    // One more than asked for says whether there is another page.
    filter.limit += 1;
    let mut rows = db
        .list_jobs(&filter)
        .await
        .map_err(|error| database(&error))?;
    let more = rows.len() as i64 > limit;
    rows.truncate(limit as usize);
    let last = rows.last().filter(|_| more);
    let next_cursor = last.map(|(job, _)| list::cursor_after(job));
    let jobs = rows
        .into_iter()
        .map(|(job, stage)| JobDocument::new(job, stage))
        .collect();
    Ok(Json(Page { jobs, next_cursor }).into_response())
}

pub(super) fn read_body(
    headers: &HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Value, Problem> {
    let content_type = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    let essence = content_type.and_then(|text| text.split(';').next());
    if !essence.is_some_and(|essence| essence.trim().eq_ignore_ascii_case("application/json")) {
        let detail = "send the header `Content-Type: application/json`";
        return Err(Problem::new(Kind::UnsupportedMediaType, detail));
    }
    let body = body.map_err(|rejection| {
        if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
            let detail = "the body is larger than this service takes";
            Problem::new(Kind::BodyTooLarge, detail)
        } else {
            Problem::new(Kind::MalformedBody, "the body broke off")
        }
    })?;
    serde_json::from_slice(&body).map_err(|error| {
        // The library's own text could quote the body.
        let (line, column) = (error.line(), error.column());
        let detail = format!("the body is not JSON at line {line}, column {column}");
        Problem::new(Kind::MalformedBody, detail)
    })
}

fn read_key(headers: &HeaderMap, request: &Value) -> Result<Option<RequestKey>, Problem> {
    let mut values = headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    let key = value
        .to_str()
        .ok()
        .filter(|key| intake::is_request_key(key));
    match (key, values.next()) {
        (Some(key), None) => Ok(Some(intake::request_key(key, request))),
        _ => {
            let detail = "send it once, with 1 to 255 visible ASCII characters";
            Err(Problem::new(Kind::InvalidIdempotencyKey, detail))
        }
    }
}

async fn document(intake: &Intake, id: Uuid) -> Result<Option<JobDocument>, DbError> {
    let Some(job) = intake.db.job(id).await? else {
        return Ok(None);
    };
    Ok(Some(JobDocument::new(job, intake.db.job_stage(id).await?)))
}

/// The job as stored. Where it cannot be read back the answer is shorter, but no error: the client would order again.
async fn created_document(intake: &Intake, id: Uuid) -> Value {
    match document(intake, id).await {
        Ok(Some(job)) => json!(job),
        Ok(None) => json!({"id": id}),
        Err(error) => {
            tracing::warn!(job.id = %id, error = chain(&error), "a stored job could not be read back");
            json!({"id": id})
        }
    }
}

fn refusal(error: &IntakeError) -> Problem {
    match error {
        IntakeError::Invalid(faults) => Problem::faults(Kind::InvalidRequest, faults.clone()),
        IntakeError::Storage(_) | IntakeError::StorageTimeout => {
            tracing::warn!(error = chain(error), "a job was not taken");
            let detail = "the object store is away; nothing was stored";
            Problem::new(Kind::Unavailable, detail)
        }
        IntakeError::Database(error) if error.is_transient() => {
            tracing::warn!(error = chain(error), "a job was not taken");
            let detail = "the database is away; the job may be stored all the same, which repeating the \
                          request under the same Idempotency-Key finds out";
            Problem::new(Kind::Unavailable, detail)
        }
        IntakeError::Database(error) => database(error),
    }
}

pub(super) fn database(error: &DbError) -> Problem {
    if error.is_transient() {
        tracing::warn!(error = chain(error), "the database is away");
        return Problem::new(Kind::Unavailable, "the database is away");
    }
    internal(error)
}

pub(super) fn internal(error: &(dyn std::error::Error + 'static)) -> Problem {
    tracing::error!(error = chain(error), "a request failed");
    Problem::new(Kind::Internal, "the log of the service says why")
}
