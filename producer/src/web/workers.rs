//! `/v1/workers`: who works, and what operators ask of a worker.

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::Value;
use shared::db::{WorkerOrdered, WorkerRow};
use shared::domain::worker_order::{Ordered, WorkerOrder, WorkerState, WorkerWish};
use utoipa::ToSchema;
use uuid::Uuid;

use super::body::Who;
use super::job_actions::{Operator, detached};
use super::jobs::{database, read_id};
use super::problem::{Kind, Problem};
use super::requests::ReasonRequest;

/// The workers, by name.
#[derive(Serialize, ToSchema)]
pub(crate) struct WorkerList {
    workers: Vec<WorkerDocument>,
}

/// A worker.
#[derive(Serialize, ToSchema)]
pub(crate) struct WorkerDocument {
    /// One for each start of a process.
    id: Uuid,
    /// Its name in trails and at the broker.
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) started_at: DateTime<Utc>,
    pub(crate) seen_at: DateTime<Utc>,
    /// When it ended as it should; null while it runs, and of one that was killed.
    pub(crate) stopped_at: Option<DateTime<Utc>>,
    /// `running`, `quiet` (it takes nothing new, as it was asked), `draining` (told to stop, finishing what is in hand), `lost` (not
    /// seen for three heartbeats; what it had in hand is due again after its lease) or `stopped`.
    #[schema(value_type = WorkerState)]
    pub(crate) state: String,
    /// What is asked of it; null: that it works. It does so within one heartbeat.
    pub(crate) asked: Option<WorkerAsked>,
    pub(crate) stages: Vec<String>,
    /// Messages in hand at a time, for each stage.
    concurrency: i32,
    /// The same for stages that move whole videos.
    transfers: i32,
    /// Messages in hand, of stages that have some.
    #[schema(value_type = Vec<InHand>)]
    pub(crate) in_hand: Value,
    /// By the worker's clock; null when it has got none.
    pub(crate) last_delivery_at: Option<DateTime<Utc>>,
    /// As its `/readyz` says.
    ready: bool,
    pub(crate) why_not_ready: Option<String>,
}

/// What an operator asks of a worker.
#[derive(Serialize, ToSchema)]
pub(crate) struct WorkerAsked {
    #[schema(value_type = WorkerWish)]
    pub(crate) what: String,
    /// Who: a token's name, or what was said.
    pub(crate) by: String,
    pub(crate) reason: String,
    pub(crate) at: DateTime<Utc>,
}

/// Messages of a stage in hand.
#[derive(Serialize, ToSchema)]
struct InHand {
    stage: String,
    count: u32,
}

impl From<WorkerRow> for WorkerDocument {
    fn from(row: WorkerRow) -> Self {
        let who = row.asked_by.zip(row.asked_reason);
        let asked = row.asked.zip(who).zip(row.asked_at);
        Self {
            id: row.id,
            name: row.name,
            version: row.version,
            started_at: row.started_at,
            seen_at: row.seen_at,
            stopped_at: row.left_at,
            state: row.state,
            asked: asked.map(|((what, (by, reason)), at)| WorkerAsked {
                what,
                by,
                reason,
                at,
            }),
            stages: row.stages,
            concurrency: row.concurrency,
            transfers: row.transfers,
            in_hand: row.in_hand,
            last_delivery_at: row.last_delivery_at,
            ready: row.why_not_ready.is_none(),
            why_not_ready: row.why_not_ready,
        }
    }
}

impl WorkerList {
    /// Of these workers.
    pub(crate) fn new(rows: Vec<WorkerRow>) -> Self {
        Self {
            workers: rows.into_iter().map(Into::into).collect(),
        }
    }

    /// The workers.
    pub(crate) fn workers(&self) -> &[WorkerDocument] {
        &self.workers
    }
}

type Id = Result<Path<String>, PathRejection>;

/// The workers
///
/// One that has stopped stays in the list for an hour; one that was killed is `lost`, for a day.
#[utoipa::path(get, path = "/v1/workers", tag = "fleet", operation_id = "list_workers",
    responses((status = 200, description = "The workers", body = WorkerList)))]
pub(super) async fn list(
    State(Operator { db, .. }): State<Operator>,
) -> Result<Json<WorkerList>, Problem> {
    let workers = db.workers().await.map_err(|error| database(&error))?;
    Ok(Json(WorkerList::new(workers)))
}

/// Ask a worker to take nothing new
///
/// Within one heartbeat it takes nothing new; other workers get what it would have got. It finishes what it has in hand and waits until
/// it is resumed or stopped. A worker that is started anew is asked nothing. Twice is harmless: who asked first, and why, stays.
#[utoipa::path(post, path = "/v1/workers/{id}/quiet", tag = "fleet", operation_id = "quiet_worker", request_body = ReasonRequest,
    params(("id" = Uuid, Path, description = "The worker")),
    responses((status = 200, description = "The worker, and what is asked of it", body = WorkerDocument),
        (status = 404, description = "There is no such worker, or it has stopped"),
        (status = 409, description = "It is lost, or told to stop")))]
pub(super) async fn quiet(
    State(operator): State<Operator>,
    id: Id,
    who: Who,
) -> Result<Json<WorkerDocument>, Problem> {
    order(operator, id, who, WorkerOrder::Quiet).await
}

/// Let a quiet worker take work again
///
/// Within one heartbeat. One that is not quiet stays as it is.
#[utoipa::path(post, path = "/v1/workers/{id}/resume", tag = "fleet", operation_id = "resume_worker", request_body = ReasonRequest,
    params(("id" = Uuid, Path, description = "The worker")),
    responses((status = 200, description = "The worker, and what is asked of it", body = WorkerDocument),
        (status = 404, description = "There is no such worker, or it has stopped"),
        (status = 409, description = "It is lost, or told to stop")))]
pub(super) async fn resume(
    State(operator): State<Operator>,
    id: Id,
    who: Who,
) -> Result<Json<WorkerDocument>, Problem> {
    order(operator, id, who, WorkerOrder::Resume).await
}

/// Ask a worker to stop
///
/// As SIGTERM does, within one heartbeat: it takes nothing new, finishes what it has in hand within its `STOP_GRACE`, gives back the
/// rest and ends with exit status 0; the list shows it as `stopped` for an hour. This cannot be taken back. Whether it is started again is up to whatever
/// started it.
#[utoipa::path(post, path = "/v1/workers/{id}/stop", tag = "fleet", operation_id = "stop_worker", request_body = ReasonRequest,
    params(("id" = Uuid, Path, description = "The worker")),
    responses((status = 200, description = "The worker, and what is asked of it", body = WorkerDocument),
        (status = 404, description = "There is no such worker, or it has stopped"), (status = 409, description = "It is lost")))]
pub(super) async fn stop(
    State(operator): State<Operator>,
    id: Id,
    who: Who,
) -> Result<Json<WorkerDocument>, Problem> {
    order(operator, id, who, WorkerOrder::Stop).await
}

async fn order(
    Operator { db, .. }: Operator,
    id: Id,
    Who { by, reason }: Who,
    order: WorkerOrder,
) -> Result<Json<WorkerDocument>, Problem> {
    let id = read_id(id)?;
    let asked = async move { db.order_worker(id, order, &by, &reason).await };
    match detached(asked).await? {
        WorkerOrdered::Answered(answer, row) => match refusal(answer, &row) {
            None => Ok(Json((*row).into())),
            Some(why) => Err(Problem::new(Kind::WorkerNotSteered, why)),
        },
        WorkerOrdered::Gone => {
            let detail = "it has stopped, or never was: `GET /v1/workers` lists the workers";
            Err(Problem::new(Kind::WorkerNotFound, detail))
        }
    }
}

/// Why an order is not taken, for the API and the command line.
pub(crate) fn refusal(answer: Ordered, row: &WorkerRow) -> Option<String> {
    match answer {
        Ordered::Asked(_) | Ordered::Same => None,
        Ordered::Lost => Some(format!(
            "the worker was not seen since {}, so it would not read this; what it had in hand is due again after its lease; if it still \
             runs, end it with SIGTERM where it runs",
            crate::times::told(row.seen_at)
        )),
        Ordered::Stopping => Some(
            "the worker was told to stop, which cannot be taken back; start another one".to_owned(),
        ),
    }
}
