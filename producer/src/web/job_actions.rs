//! `POST /v1/jobs/{id}/cancel`, `/retry` and `/resume`.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, PathRejection};
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse as _, Response};
use serde::Serialize;
use shared::db::{Canceled, Candidate, Db, DbError, DbResult, FleetTimes, RestartOrder, Resumed};
use shared::domain::resume::{How, Refusal};
use shared::domain::{Stage, Vendor};
use tokio::sync::Semaphore;
use utoipa::ToSchema;
use uuid::Uuid;

use super::access::Caller;
use super::body::{Body, Who};
use super::document::JobDocument;
use super::jobs::{HISTORY_LIMIT, database, internal, no_job, read_id};
use super::precondition;
use super::problem::{Kind, Problem};
use super::requests::{ReasonRequest, RetryRequest};

/// What operators' requests need.
#[derive(Clone)]
pub(super) struct Operator {
    pub(super) db: Db,
    /// Times of the protocol here. Those that the fleet runs with count where they are longer.
    pub(super) times: FleetTimes,
    /// Places of those whose preview is being counted.
    pub(super) previews: Arc<Semaphore>,
}

/// Where a job goes.
#[derive(Serialize, ToSchema)]
pub(super) struct RetryDocument {
    id: Uuid,
    /// Nothing was done.
    preview: bool,
    stage: Stage,
    /// What the stage does first.
    first: How,
    /// Whom that pays.
    pays: Option<Vendor>,
    /// What the last submission there cost or was expected to.
    last_cost: Option<f64>,
    /// Whether GhostCut is paid in a later stage, if all goes well.
    then_inpaints: bool,
}

type Id = Result<Path<String>, PathRejection>;
pub(super) type RawBody = Result<Bytes, BytesRejection>;

/// Runs a change in a task of its own: a client that hangs up must not cut a transaction in half.
pub(super) async fn detached<T: Send + 'static>(
    change: impl Future<Output = DbResult<T>> + Send + 'static,
) -> Result<T, Problem> {
    tokio::spawn(change)
        .await
        .map_err(|error| internal(&error))?
        .map_err(|error| database(&error))
}

/// End a job at any stage
///
/// Nothing more is paid for; a work already paid for is followed to its end. Twice is harmless.
#[utoipa::path(post, path = "/v1/jobs/{id}/cancel", tag = "jobs", operation_id = "cancel_job", request_body = ReasonRequest,
    params(("id" = Uuid, Path, description = "The job"), ("If-Match" = Option<String>, Header, description = "The `ETag` that this is for")),
    responses((status = 200, description = "The job, canceled", body = JobDocument), (status = 404, description = "There is no such job"),
        (status = 409, description = "The job has ended otherwise"), (status = 412, description = "Something has happened to it meanwhile")))]
pub(super) async fn cancel(
    State(Operator { db, .. }): State<Operator>,
    id: Id,
    headers: HeaderMap,
    Who { by, reason }: Who,
) -> Result<Response, Problem> {
    let id = read_id(id)?;
    let if_version: Option<String> = precondition::if_match(&headers)?;
    let seen = if_version.clone();
    let change = {
        let db = db.clone();
        async move { db.cancel_job(id, if_version.as_deref(), &by, &reason).await }
    };
    match detached(change).await? {
        Some(Canceled::Now | Canceled::Following | Canceled::Before) => shown(&db, id).await,
        Some(Canceled::Finished(status)) => {
            let detail = format!("the job is {status}");
            Err(Problem::new(Kind::JobFinished, detail).about(id))
        }
        Some(Canceled::Gone) => Err(no_job(id)),
        None => Err(meanwhile(&db, id, seen.as_deref()).await),
    }
}

/// Make a job due now that is parked, or waits for its time
#[utoipa::path(post, path = "/v1/jobs/{id}/resume", tag = "jobs", operation_id = "resume_job", request_body = ReasonRequest,
    params(("id" = Uuid, Path, description = "The job"), ("If-Match" = Option<String>, Header, description = "The `ETag` that this is for")),
    responses((status = 200, description = "The job, due", body = JobDocument), (status = 404, description = "There is no such job"),
        (status = 409, description = "The job does not stand still, or waits for a time that may not be shortened"),
        (status = 412, description = "Something has happened to it meanwhile")))]
pub(super) async fn resume(
    State(Operator { db, .. }): State<Operator>,
    id: Id,
    headers: HeaderMap,
    Who { by, reason }: Who,
) -> Result<Response, Problem> {
    let id = read_id(id)?;
    let if_version: Option<String> = precondition::if_match(&headers)?;
    let seen = if_version.clone();
    let change = {
        let db = db.clone();
        async move { db.resume_job(id, if_version.as_deref(), &by, &reason).await }
    };
    match detached(change).await? {
        Some(Resumed::Now) => {
            // A hint: dispatch has a timer.
            let _ = db.notify_due().await;
            shown(&db, id).await
        }
        Some(Resumed::Stays(state)) => {
            let detail = format!(
                "the job is {state}, and neither parked nor waiting for a time that may be shortened"
            );
            Err(Problem::new(Kind::JobNotRestarted, detail).about(id))
        }
        Some(Resumed::Over) => {
            let detail =
                "the job is over; if it failed or was canceled, `retry` puts it back on its way";
            Err(Problem::new(Kind::JobFinished, detail).about(id))
        }
        Some(Resumed::Gone) => Err(no_job(id)),
        None => Err(meanwhile(&db, id, seen.as_deref()).await),
    }
}

/// Put a failed or canceled job back on its way
///
/// To where the ledger says: what is paid for is polled or stored, and only what is not there is paid for again.
#[utoipa::path(post, path = "/v1/jobs/{id}/retry", tag = "jobs", operation_id = "retry_job", request_body = RetryRequest,
    params(("id" = Uuid, Path, description = "The job"), ("If-Match" = Option<String>, Header, description = "The `ETag` that this is for")),
    responses((status = 200, description = "Where it goes", body = RetryDocument), (status = 404, description = "There is no such job"),
        (status = 409, description = "The job goes on, is completed, or cannot be put back"),
        (status = 412, description = "Something has happened to it meanwhile")))]
pub(super) async fn retry(
    State(operator): State<Operator>,
    id: Id,
    caller: Caller,
    headers: HeaderMap,
    body: RawBody,
) -> Result<Json<RetryDocument>, Problem> {
    let id = read_id(id)?;
    let mut body = Body::read(&headers, body)?;
    let Who { by, reason } = body.who(&caller);
    let preview = body.flag("preview");
    let order = RestartOrder {
        by,
        reason,
        operation: None,
        another_attempt: body.flag("another_attempt"),
    };
    body.finish()?;
    let if_version: Option<String> = precondition::if_match(&headers)?;
    let seen = if_version.clone();
    let db = operator.db.clone();
    let plans = detached(async move {
        if preview {
            if let Some(wanted) = if_version
                && db.job(id).await?.is_some()
                && db.job_version(id).await? != wanted
            {
                return Ok(None);
            }
            let candidates = [Candidate {
                job: id,
                letter_epoch: None,
            }];
            return Ok(Some(db.plan_restart(&order, &candidates).await?));
        }
        let plans = db.retry_job(&order, id, if_version.as_deref()).await?;
        // A hint: dispatch has a timer.
        let _ = db.notify_due().await;
        Ok(plans)
    })
    .await?;
    let Some(plans) = plans else {
        return Err(meanwhile(&operator.db, id, seen.as_deref()).await);
    };
    match plans
        .into_iter()
        .next()
        .map(|plan| (plan.to, plan.last_cost, plan.then_inpaints))
    {
        Some((Ok(to), last_cost, then_inpaints)) => Ok(Json(RetryDocument {
            id,
            preview,
            stage: to.stage,
            first: to.how,
            pays: to.pays(),
            last_cost,
            then_inpaints,
        })),
        Some((Err(Refusal::JobGone), ..)) | None => Err(no_job(id)),
        Some((Err(Refusal::Completed), ..)) => {
            Err(Problem::new(Kind::JobFinished, Refusal::Completed.explain()).about(id))
        }
        Some((Err(refusal), ..)) => {
            Err(Problem::new(Kind::JobNotRestarted, refusal.explain()).about(id))
        }
    }
}

/// Says what has happened to a job since it had the version that somebody has seen: what a person did, rather than what came of it.
async fn meanwhile(db: &Db, id: Uuid, seen: Option<&str>) -> Problem {
    const BY_PEOPLE: [&str; 4] = ["canceled", "resumed", "replayed", "retried"];
    let line = seen.and_then(|seen| seen.split('-').next()?.parse::<i64>().ok());
    let read = async {
        let mut since = db.job_events(id, HISTORY_LIMIT).await?;
        since.retain(|event| line.is_none_or(|line| event.id > line));
        let by_people = (since.iter()).find(|event| BY_PEOPLE.contains(&event.kind.as_str()));
        let what = by_people.or(since.last()).map(|event| {
            let what = event.kind.replace('_', " ");
            format!("{what} by {}", event.actor)
        });
        Ok::<_, DbError>(db.job(id).await?.map(|job| (what, job.status)))
    };
    match read.await {
        Ok(Some((what, status))) => {
            let what = what.map(|what| format!("{what}; ")).unwrap_or_default();
            let detail = format!("meanwhile: {what}the job is {status}");
            Problem::new(Kind::VersionOutdated, detail).about(id)
        }
        Ok(None) | Err(_) => precondition::outdated(),
    }
}

async fn shown(db: &Db, id: Uuid) -> Result<Response, Problem> {
    let read = async {
        let Some(job) = db.job(id).await? else {
            return Ok::<_, DbError>(None);
        };
        Ok(Some(JobDocument::new(job, db.job_stage(id).await?)))
    };
    match read.await.map_err(|error| database(&error))? {
        Some(document) => Ok(Json(document).into_response()),
        None => Err(no_job(id)),
    }
}
