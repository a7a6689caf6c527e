//! `/v1/audits`: what the ledger and the vendors' lists differed in, an audit now, and a word about a finding that no repair can end.

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use chrono::{TimeDelta, Utc};
use serde::Serialize;
use shared::db::{AuditRecord, Db, NewAudit};
use shared::domain::audit::Comparison;
use shared::domain::fields::FieldCode;
use utoipa::ToSchema;
use uuid::Uuid;

use super::access::Caller;
use super::body::{Body, Who};
use super::job_actions::{RawBody, detached};
use super::jobs::{database, read_uuid};
use super::list::{self, Parameters};
use super::problem::{Kind, Problem};
use super::requests::{AuditRequest, ReasonRequest};
use crate::audit::AuditOrders;

/// How far back an audit looks unless it is told.
const LOOK_BACK: TimeDelta = TimeDelta::hours(24);

/// What these routes need.
#[derive(Clone)]
pub(super) struct Audits {
    pub(super) db: Db,
    pub(super) orders: AuditOrders,
}

/// A page of audits, newest first.
#[derive(Serialize, ToSchema)]
pub(super) struct AuditPage {
    audits: Vec<AuditRecord>,
    /// Leads to the next page; null on the last one.
    next_cursor: Option<String>,
}

/// An audit and what it found.
#[derive(Serialize, ToSchema)]
pub(super) struct AuditDocument {
    #[serde(flatten)]
    audit: AuditRecord,
    /// What each vendor's list showed; not of a vendor whose list could not be read.
    comparisons: Vec<Comparison>,
}

/// What somebody has dealt with.
#[derive(Serialize, ToSchema)]
pub(super) struct Acknowledgement {
    /// The submission.
    token: Uuid,
    /// Kinds of findings about it, of the last 90 days.
    findings: i64,
}

/// List audits, newest first
#[utoipa::path(get, path = "/v1/audits", tag = "fleet", operation_id = "list_audits",
    params(("limit" = Option<i64>, Query, minimum = 1, maximum = 200, description = "Audits on a page; 50 by default"),
        ("cursor" = Option<String>, Query, pattern = "^[0-9]{1,18}$", description = "`next_cursor` of the page before")),
    responses((status = 200, description = "A page", body = AuditPage)))]
pub(super) async fn list(
    State(Audits { db, .. }): State<Audits>,
    parameters: Parameters,
) -> Result<Json<AuditPage>, Problem> {
    let (limit, before) = list::read_numbered(parameters)?;
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
    responses((status = 200, description = "The audit", body = AuditDocument), (status = 404, description = "There is no such audit")))]
pub(super) async fn show(
    State(Audits { db, .. }): State<Audits>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Json<AuditDocument>, Problem> {
    let id = list::read_number_in_path(id)?;
    shown(&db, id).await.map(Json)
}

async fn shown(db: &Db, id: i64) -> Result<AuditDocument, Problem> {
    let found = db.audit(id).await.map_err(|error| database(&error))?;
    let found = found.map(|(audit, comparisons)| AuditDocument { audit, comparisons });
    found.ok_or_else(|| {
        let detail = format!("there is no audit {id}");
        Problem::new(Kind::AuditNotFound, detail)
    })
}

/// Compare the ledger with the vendors' own lists now
///
/// It is made in the background, after those that were asked for before. It pays for nothing. With `repair` the works that the ledger
/// does not know are booked, and their jobs go on; nothing that is booked is taken away. A work that is paid for, not in the ledger and
/// not repaired stops all paid sends of the fleet. One that does not end within an hour was cut off, and counts as failed.
#[utoipa::path(post, path = "/v1/audits", tag = "fleet", operation_id = "begin_audit", request_body = AuditRequest,
    responses((status = 202, description = "The audit, which has begun", body = AuditDocument,
            headers(("Location" = String, description = "Where its progress and its findings are"))),
        (status = 409, description = "Others that were asked for have to be made first, or the producer is stopping")))]
pub(super) async fn begin(
    State(Audits { db, orders }): State<Audits>,
    caller: Caller,
    headers: HeaderMap,
    body: RawBody,
) -> Result<Response, Problem> {
    let mut body = Body::read(&headers, body)?;
    let Who { by, reason } = body.who(&caller);
    let (since, repair) = (body.time("since"), body.flag("repair"));
    if since.is_some_and(|since| since > Utc::now()) {
        // It would compare nothing, and count as made.
        body.fault("since", FieldCode::OutOfRange, "must not be still to come");
    }
    body.finish()?;
    let clock = db.clone();
    let begun = detached(async move {
        let since = match since {
            Some(since) => since,
            None => clock.now().await? - LOOK_BACK,
        };
        let audit = NewAudit {
            since,
            by: &by,
            reason: &reason,
            repair,
        };
        orders.begin(&audit).await
    });
    let Some(id) = begun.await? else {
        let detail = "this producer makes others first, or is stopping; look at `GET /v1/audits` and ask again";
        return Err(Problem::new(Kind::AuditsWaiting, detail));
    };
    let location = [(header::LOCATION, format!("/v1/audits/{id}"))];
    let audit = Json(shown(&db, id).await?);
    Ok((StatusCode::ACCEPTED, location, audit).into_response())
}

/// Say that a finding which no repair can end is dealt with
///
/// Such as a work that was paid for twice and is refunded. Later audits show it, and count it no longer; another work or another kind
/// of finding about the same submission counts again.
#[utoipa::path(post, path = "/v1/findings/{token}/acknowledge", tag = "fleet", operation_id = "acknowledge_finding",
    request_body = ReasonRequest,
    params(("token" = Uuid, Path, description = "The submission that the finding is about")),
    responses((status = 200, description = "It is noted", body = Acknowledgement),
        (status = 404, description = "No audit of the last 90 days has found anything about it that no repair can end")))]
pub(super) async fn acknowledge(
    State(Audits { db, .. }): State<Audits>,
    token: Result<Path<String>, PathRejection>,
    Who { by, reason }: Who,
) -> Result<Json<Acknowledgement>, Problem> {
    let token = read_uuid("token", token)?;
    let noted = async move { db.acknowledge_findings(&[token], &by, &reason).await };
    match detached(noted).await?.findings {
        0 => {
            let detail = format!(
                "no audit of the last 90 days has a finding about {token} that no repair can end; `repair` ends the others"
            );
            Err(Problem::new(Kind::FindingNotFound, detail))
        }
        findings => Ok(Json(Acknowledgement { token, findings })),
    }
}
