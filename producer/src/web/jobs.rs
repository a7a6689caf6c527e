//! `POST /v1/jobs`, `GET /v1/jobs`, `GET /v1/jobs/{id}` and what happened to a job: `/history`, `/submissions`.

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, PathRejection};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::{Value, json};
use shared::db::{Created, DbError, RequestKey};
use shared::domain::fields::{FieldCode, FieldError};
use shared::domain::{JobStatus, Stage, StageState, Vendor};
use shared::telemetry::chain;
use utoipa::ToSchema;
use uuid::Uuid;

use super::access::Caller;
use super::document::{EventDocument, FullDocument, JobDocument, WaitingDocument};
use super::list::{self, Parameters};
use super::precondition;
use super::problem::{Kind, Problem};
use super::requests::JobRequest;
use crate::evidence::SubmissionEvidence;
use crate::intake::{self, INTAKE, Intake, IntakeError};

/// Newest events of a job that are shown.
pub(super) const HISTORY_LIMIT: i64 = 200;
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// A page of jobs, newest first.
#[derive(Serialize, ToSchema)]
pub(super) struct JobPage {
    jobs: Vec<WaitingDocument>,
    /// Leads to the next page; null on the last one.
    next_cursor: Option<String>,
}

/// A page of a job's trail, newest first.
#[derive(Serialize, ToSchema)]
pub(super) struct HistoryPage {
    history: Vec<EventDocument>,
    /// Leads to the next page; null on the last one.
    next_cursor: Option<String>,
}

/// The submissions of a job, oldest first.
#[derive(Serialize, ToSchema)]
pub(super) struct SubmissionList {
    submissions: Vec<SubmissionEvidence>,
}

/// Put a job in
///
/// The same key with the same request answers with the job that it once made, so a client may repeat until it has an answer.
#[utoipa::path(post, path = "/v1/jobs", tag = "jobs", operation_id = "create_job", request_body = JobRequest,
    params(("Idempotency-Key" = Option<String>, Header, min_length = 1, max_length = 255, pattern = "^[!-~]+$",
        description = "Makes repeating harmless; one for each order of a user")),
    responses(
        (status = 201, description = "The job was stored", body = JobDocument,
            headers(("Location" = String, description = "The path of the job"))),
        (status = 200, description = "The job that this request made before", body = JobDocument,
            headers(("Location" = String, description = "The path of the job"))),
        (status = 409, description = "The key belongs to another request"),
        (status = 410, description = "The job that this request made was deleted"),
    ))]
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
    .map_err(|error| internal(&error))?;
    let (status, id, document) = taken(&intake, created).await?;
    let location = [(header::LOCATION, format!("/v1/jobs/{id}"))];
    Ok((status, location, Json(document)).into_response())
}

/// What a creation is answered with.
pub(super) async fn taken(
    intake: &Intake,
    created: Result<Created, IntakeError>,
) -> Result<(StatusCode, Uuid, Value), Problem> {
    match created.map_err(|error| refusal(&error))? {
        Created::New(id) => Ok((StatusCode::CREATED, id, created_document(intake, id).await)),
        Created::Existing(id) => match document(intake, id).await {
            Ok(Some(job)) => Ok((StatusCode::OK, id, json!(job))),
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

/// Show a job with its submissions and the newest lines of its trail
///
/// `held` says why it stays although it is due or was sent out, `put_off` why it is not due yet although it has been tried.
#[utoipa::path(get, path = "/v1/jobs/{id}", tag = "jobs", operation_id = "show_job",
    params(("id" = Uuid, Path, description = "The job")),
    responses((status = 200, description = "The job", body = FullDocument,
            headers(("ETag" = String, description = "Its version, for `If-Match`"))),
        (status = 404, description = "There is no such job")))]
pub(super) async fn show(
    State(Intake { db, .. }): State<Intake>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Response, Problem> {
    let id = read_id(id)?;
    let found = FullDocument::read(&db, id, HISTORY_LIMIT).await;
    match found.map_err(|error| database(&error))? {
        Some(document) => {
            Ok((precondition::etag(document.version()), Json(document)).into_response())
        }
        None => Err(no_job(id)),
    }
}

/// What happened to a job
///
/// The trail outlives the job.
#[utoipa::path(get, path = "/v1/jobs/{id}/history", tag = "jobs", operation_id = "job_history",
    params(("id" = Uuid, Path, description = "The job"),
        ("limit" = Option<i64>, Query, minimum = 1, maximum = 200, description = "Lines on a page; 50 by default"),
        ("cursor" = Option<String>, Query, pattern = "^[0-9]{1,18}$", description = "`next_cursor` of the page before")),
    responses((status = 200, description = "A page", body = HistoryPage), (status = 404, description = "There is no such job")))]
pub(super) async fn history(
    State(Intake { db, .. }): State<Intake>,
    id: Result<Path<String>, PathRejection>,
    parameters: Parameters,
) -> Result<Json<HistoryPage>, Problem> {
    let id = read_id(id)?;
    let (limit, before) = list::read_numbered(parameters)?;
    // One more than asked for says whether there is another page.
    let read = db.job_events_before(id, before, limit + 1).await;
    let mut events = read.map_err(|error| database(&error))?;
    if events.is_empty()
        && db
            .job(id)
            .await
            .map_err(|error| database(&error))?
            .is_none()
    {
        return Err(no_job(id));
    }
    let more = events.len() as i64 > limit;
    events.truncate(limit as usize);
    let last = events.last().filter(|_| more);
    Ok(Json(HistoryPage {
        next_cursor: last.map(|event| event.id.to_string()),
        history: events.into_iter().map(Into::into).collect(),
    }))
}

/// The submissions of a job with all that is known about them
///
/// What was sent (its hash), what was answered, the vendor's id, costs, searches and callbacks. The ledger outlives the job.
#[utoipa::path(get, path = "/v1/jobs/{id}/submissions", tag = "jobs", operation_id = "job_submissions",
    params(("id" = Uuid, Path, description = "The job")),
    responses((status = 200, description = "The submissions", body = SubmissionList),
        (status = 404, description = "There is no such job")))]
pub(super) async fn submissions(
    State(Intake { db, .. }): State<Intake>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Json<SubmissionList>, Problem> {
    let id = read_id(id)?;
    let submissions = SubmissionEvidence::of_job(&db, id).await;
    let submissions = submissions.map_err(|error| database(&error))?;
    if submissions.is_empty()
        && db
            .job(id)
            .await
            .map_err(|error| database(&error))?
            .is_none()
    {
        return Err(no_job(id));
    }
    Ok(Json(SubmissionList { submissions }))
}

/// `id` in a path.
pub(super) fn read_id(id: Result<Path<String>, PathRejection>) -> Result<Uuid, Problem> {
    read_uuid("id", id)
}

/// The UUID in a path, which calls it so.
pub(super) fn read_uuid(
    name: &str,
    id: Result<Path<String>, PathRejection>,
) -> Result<Uuid, Problem> {
    let id = id.ok().and_then(|Path(id)| id.parse::<Uuid>().ok());
    id.ok_or_else(|| {
        let fault = FieldError {
            path: name.to_owned(),
            code: FieldCode::Malformed,
            message: "must be a UUID".to_owned(),
        };
        Problem::faults(Kind::InvalidParameters, vec![fault])
    })
}

pub(super) fn no_job(id: Uuid) -> Problem {
    Problem::new(Kind::JobNotFound, format!("there is no job {id}"))
}

/// List jobs, newest first
///
/// Each says why it waits. `held`: due, but nothing may be sent or no worker takes the stage. `put_off`: an error or an answer delayed it.
/// All filters that are given have to fit. Where no index has what is asked for, as for a text, a page looks at 10,000 jobs: it may be
/// short, or empty, although `next_cursor` leads on.
#[utoipa::path(get, path = "/v1/jobs", tag = "jobs", operation_id = "list_jobs",
    params(
        ("user_id" = Option<Uuid>, Query, description = "Of this user"),
        ("status" = Option<JobStatus>, Query, description = "In this status"),
        ("stage" = Option<Stage>, Query, description = "In this stage"),
        ("state" = Option<StageState>, Query, description = "Where the stage is in this state"),
        ("reason" = Option<String>, Query, min_length = 1, max_length = 200, description = "Where the stage stands for this reason"),
        ("vendor" = Option<Vendor>, Query, description = "With a submission at this vendor, whatever came of it"),
        ("error_code" = Option<String>, Query, min_length = 1, max_length = 200, description = "Failed with this error code"),
        ("text" = Option<String>, Query, min_length = 1, max_length = 200,
            description = "With this text in a name or in the error message, upper or lower case"),
        ("created_from" = Option<DateTime<Utc>>, Query, description = "Created then or later"),
        ("created_before" = Option<DateTime<Utc>>, Query, description = "Created earlier"),
        ("limit" = Option<i64>, Query, minimum = 1, maximum = 200, description = "Jobs on a page; 50 by default"),
        ("cursor" = Option<String>, Query, pattern = "^000[0-7][0-9a-f]{44}$", description = "`next_cursor` of the page before")),
    responses((status = 200, description = "A page", body = JobPage)))]
pub(super) async fn list(
    State(Intake { db, .. }): State<Intake>,
    parameters: Parameters,
) -> Result<Json<JobPage>, Problem> {
    let query = list::read(parameters)?;
    let page = db
        .list_jobs(&query.filter, query.before, query.limit)
        .await
        .map_err(|error| database(&error))?;
    let jobs = WaitingDocument::of(&db, page.jobs).await;
    Ok(Json(JobPage {
        jobs: jobs.map_err(|error| database(&error))?,
        next_cursor: page.next.map(list::cursor_after),
    }))
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
