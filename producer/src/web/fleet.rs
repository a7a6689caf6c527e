//! What concerns the whole fleet: `/v1/status`, `/v1/paid-sends`, `/v1/costs` and `/v1/audits`.

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use serde::Serialize;
use shared::db::{AuditRecord, CostDay, Db, PaidResumed, PaidStop};
use shared::domain::fields::{FieldCode, FieldError};
use utoipa::ToSchema;

use super::access::Caller;
use super::body::{Body, Who};
use super::jobs::database;
use super::list::{self, Parameters};
use super::operations::{Operator, RawBody, detached};
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

/// A page of audits, newest first.
#[derive(Serialize, ToSchema)]
pub(super) struct AuditPage {
    audits: Vec<AuditRecord>,
    /// Leads to the next page; null on the last one.
    next_cursor: Option<String>,
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
    caller: Caller,
    headers: HeaderMap,
    body: RawBody,
) -> Result<Json<PaidSends>, Problem> {
    let mut body = Body::read(&headers, body)?;
    let Who { by, reason } = body.who(&caller);
    body.finish()?;
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
            "the database forgot commits: run `producer audit --since {} --repair` at or after {}, then resume",
            since.format("%Y-%m-%dT%H:%M:%SZ"),
            not_before.format("%Y-%m-%dT%H:%M:%SZ")
        ),
        PaidResumed::Unrepaired { findings } => format!(
            "the last audit found {findings} paid works that the ledger does not have: run `producer audit --repair`, then resume"
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

/// List audits, newest first
#[utoipa::path(get, path = "/v1/audits", tag = "fleet", operation_id = "list_audits",
    params(("limit" = Option<i64>, Query, minimum = 1, maximum = 200, description = "Audits on a page; 50 by default"),
        ("cursor" = Option<String>, Query, pattern = "^[0-9]{1,18}$", description = "`next_cursor` of the page before")),
    responses((status = 200, description = "A page", body = AuditPage)))]
pub(super) async fn audits(
    State(Operator { db, .. }): State<Operator>,
    parameters: Parameters,
) -> Result<Json<AuditPage>, Problem> {
    let (mut limit, mut before) = (list::DEFAULT_LIMIT, None);
    list::each(parameters, |name, value| {
        match name {
            "limit" => limit = list::read_limit(value)?,
            "cursor" => before = Some(list::read_number(value)?),
            _ => return Err(list::unknown()),
        }
        Ok(())
    })?;
    // One more than asked for says whether there is another page.
    let audits = db.audits(before, limit + 1).await;
    let mut audits = audits.map_err(|error| database(&error))?;
    let more = audits.len() as i64 > limit;
    audits.truncate(limit as usize);
    let last = audits.last().filter(|_| more);
    Ok(Json(AuditPage {
        next_cursor: last.map(|audit| audit.id.to_string()),
        audits,
    }))
}

/// Show an audit and what it found
#[utoipa::path(get, path = "/v1/audits/{id}", tag = "fleet", operation_id = "show_audit",
    params(("id" = i64, Path, description = "The audit")),
    responses((status = 200, description = "The audit", body = AuditRecord), (status = 404, description = "There is no such audit")))]
pub(super) async fn audit(
    State(Operator { db, .. }): State<Operator>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Json<AuditRecord>, Problem> {
    let id = read_number_in_path(id)?;
    let found = db.audit(id).await.map_err(|error| database(&error))?;
    found.map(Json).ok_or_else(|| {
        let detail = format!("there is no audit {id}");
        Problem::new(Kind::AuditNotFound, detail)
    })
}

/// The number at the end of a path.
pub(super) fn read_number_in_path(id: Result<Path<String>, PathRejection>) -> Result<i64, Problem> {
    let id: Option<i64> = id.ok().and_then(|Path(id)| id.parse().ok());
    id.ok_or_else(|| {
        let fault = FieldError {
            path: "id".to_owned(),
            code: FieldCode::Malformed,
            message: "must be a number".to_owned(),
        };
        Problem::faults(Kind::InvalidParameters, vec![fault])
    })
}
