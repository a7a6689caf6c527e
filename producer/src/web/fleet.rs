//! What concerns the whole fleet: `/v1/status`, `/v1/paid-sends` and `/v1/costs`.

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use serde::Serialize;
use shared::db::{CostDay, Db, PaidResumed, PaidStop};
use shared::domain::fields::FieldCode;
use utoipa::ToSchema;

use super::access::Caller;
use super::body::{Body, Who};
use super::job_actions::{Operator, RawBody, detached};
use super::jobs::database;
use super::list::{self, Parameters};
use super::problem::{Kind, Problem};
use super::requests::{ForceRequest, ReasonRequest};
use crate::status::Status;

/// Days of costs when nothing else is asked for.
const DEFAULT_DAYS: u32 = 7;
/// Most of them.
const MAX_DAYS: u32 = 3660;

/// Whether paid sends are allowed.
#[derive(Serialize, ToSchema)]
pub(super) struct PaidSends {
    /// Why they are stopped; null when they are not.
    stopped: Option<PaidStop>,
}

/// Costs, newest day first.
#[derive(Serialize, ToSchema)]
pub(super) struct CostList {
    days: Vec<CostDay>,
}

/// What stands still or waits for a person
#[utoipa::path(get, path = "/v1/status", tag = "fleet", operation_id = "status",
    responses((status = 200, description = "What stands", body = Status)))]
pub(super) async fn status(
    State(Operator { db, .. }): State<Operator>,
) -> Result<Json<Status>, Problem> {
    let status = Status::read(&db).await;
    status.map(Json).map_err(|error| database(&error))
}

/// Whether paid sends are allowed
#[utoipa::path(get, path = "/v1/paid-sends", tag = "fleet", operation_id = "paid_sends",
    responses((status = 200, description = "Whether they are", body = PaidSends)))]
pub(super) async fn paid_sends(
    State(Operator { db, .. }): State<Operator>,
) -> Result<Json<PaidSends>, Problem> {
    paid_now(&db).await
}

/// Stop every paid send of the fleet; polling and storing go on
///
/// A paid request already on its way is not called back.
#[utoipa::path(post, path = "/v1/paid-sends/stop", tag = "fleet", operation_id = "stop_paid", request_body = ReasonRequest,
    responses((status = 200, description = "They are stopped", body = PaidSends)))]
pub(super) async fn stop_paid(
    State(Operator { db, .. }): State<Operator>,
    Who { by, reason }: Who,
) -> Result<Json<PaidSends>, Problem> {
    let writer = db.clone();
    detached(async move { writer.stop_paid(&reason, &by).await }).await?;
    paid_now(&db).await
}

/// Allow paid sends again
///
/// After a database that forgot commits it wants an audit first; `force` goes without.
#[utoipa::path(post, path = "/v1/paid-sends/resume", tag = "fleet", operation_id = "resume_paid", request_body = ForceRequest,
    responses((status = 200, description = "They are allowed", body = PaidSends),
        (status = 409, description = "They stay stopped; the problem says what has to be done first")))]
pub(super) async fn resume_paid(
    State(operator): State<Operator>,
    caller: Caller,
    headers: HeaderMap,
    body: RawBody,
) -> Result<Json<PaidSends>, Problem> {
    let mut body = Body::read(&headers, body)?;
    let Who { by, reason } = body.who(&caller);
    let force = body.flag("force");
    body.finish()?;
    let (db, own) = (operator.db.clone(), operator.times);
    let resumed = detached(async move {
        let times = db.fleet_times(own).await?;
        db.resume_paid(&reason, &by, times.send_deadline, force)
            .await
    })
    .await?;
    let why = match resumed {
        PaidResumed::Yes | PaidResumed::NotStopped => return paid_now(&operator.db).await,
        PaidResumed::AuditFirst { not_before, since } => format!(
            "the database forgot commits: audit with repair back to {}, at or after {} (`POST /v1/audits`, `producer audit`), then resume",
            since.format("%Y-%m-%dT%H:%M:%SZ"),
            not_before.format("%Y-%m-%dT%H:%M:%SZ")
        ),
        PaidResumed::Unrepaired { findings } => format!(
            "audits found {findings} paid works that the ledger does not have: audit with repair (`POST /v1/audits`, \
             `producer audit`), then resume"
        ),
    };
    Err(Problem::new(Kind::PaidStillStopped, why))
}

async fn paid_now(db: &Db) -> Result<Json<PaidSends>, Problem> {
    let stopped = db.paid_stop().await.map_err(|error| database(&error))?;
    Ok(Json(PaidSends { stopped }))
}

/// What was spent, by day and vendor
///
/// In the vendors' units: US dollars at Sync.so, points at GhostCut. Days are UTC, by the time of the claim.
#[utoipa::path(get, path = "/v1/costs", tag = "fleet", operation_id = "costs",
    params(("days" = Option<u32>, Query, minimum = 1, maximum = 3660, description = "How many days, today included; 7 by default"),
        ("by" = Option<String>, Query, pattern = "^(vendor|user)$",
            description = "Totals of each `vendor` (the default), or of each `user` at each vendor")),
    responses((status = 200, description = "The totals", body = CostList)))]
pub(super) async fn costs(
    State(Operator { db, .. }): State<Operator>,
    parameters: Parameters,
) -> Result<Json<CostList>, Problem> {
    let (mut days, mut by_user) = (DEFAULT_DAYS, false);
    list::each(parameters, |name, value| {
        match (name, value) {
            ("days", value) => {
                let read = value.parse().ok();
                let read = read.filter(|days| (1..=MAX_DAYS).contains(days));
                days = read.ok_or_else(|| {
                    let message = format!("must be a number from 1 to {MAX_DAYS}");
                    (FieldCode::OutOfRange, message)
                })?;
            }
            ("by", "vendor") => by_user = false,
            ("by", "user") => by_user = true,
            ("by", _) => {
                let message = "must be `vendor` or `user`";
                return Err((FieldCode::Malformed, message.to_owned()));
            }
            _ => return Err(list::unknown()),
        }
        Ok(())
    })?;
    let days = db.cost_days(days, by_user).await;
    let days = days.map_err(|error| database(&error))?;
    Ok(Json(CostList { days }))
}
