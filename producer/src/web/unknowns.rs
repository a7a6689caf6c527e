//! `/v1/unknowns`: submissions whose outcome is unknown, with the evidence, and a person's decision about them.

use std::time::Duration;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use chrono::{DateTime, Utc};
use serde::Serialize;
use shared::db::{UnknownFilter, UnknownRow};
use shared::domain::Vendor;
use shared::domain::fields::FieldCode;
use shared::telemetry::chain;
use utoipa::ToSchema;
use uuid::Uuid;

use super::access::Caller;
use super::body::{Body, Who};
use super::job_actions::{Operator, RawBody};
use super::jobs::{database, internal, read_id};
use super::list::{self, Parameters};
use super::problem::{Kind, Problem};
use super::requests::{AdoptRequest, ForceRequest};
use crate::decisions::{Decider, Decision, DecisionError, Surface};
use crate::evidence::{SubmissionEvidence, presentable};

/// A page of unknown outcomes, oldest first.
#[derive(Serialize, ToSchema)]
pub(super) struct UnknownPage {
    unknowns: Vec<UnknownRow>,
    /// Leads to the next page; null on the last one.
    next_cursor: Option<String>,
}

/// What came of a decision.
#[derive(Serialize, ToSchema)]
pub(super) struct DecisionDocument {
    token: Uuid,
    /// What the job does now, in words.
    outcome: String,
}

/// List submissions whose outcome is unknown, oldest first
#[utoipa::path(get, path = "/v1/unknowns", tag = "unknown outcomes", operation_id = "list_unknowns",
    params(("vendor" = Option<Vendor>, Query, description = "At this vendor"),
        ("older_than" = Option<i32>, Query, minimum = 0, maximum = 2147483647, description = "Claimed so many seconds ago, or earlier"),
        ("limit" = Option<i64>, Query, minimum = 1, maximum = 200, description = "Submissions on a page; 50 by default"),
        ("cursor" = Option<String>, Query, pattern = "^000[0-7][0-9a-f]{44}$", description = "`next_cursor` of the page before")),
    responses((status = 200, description = "A page", body = UnknownPage)))]
pub(super) async fn list(
    State(Operator { db, .. }): State<Operator>,
    parameters: Parameters,
) -> Result<Json<UnknownPage>, Problem> {
    let mut limit = list::DEFAULT_LIMIT;
    let mut filter = UnknownFilter::default();
    list::each(parameters, |name, value| {
        let malformed = |message: &str| (FieldCode::Malformed, message.to_owned());
        match name {
            "vendor" => {
                let vendor = value.parse();
                let one_of = || (FieldCode::Malformed, list::one_of(Vendor::ALL));
                filter.vendor = Some(vendor.map_err(|_| one_of())?);
            }
            "older_than" => {
                let seconds = value.parse::<i32>().map(u32::try_from);
                let seconds = seconds.ok().and_then(Result::ok);
                let seconds = seconds.ok_or_else(|| malformed("must be a number of seconds"))?;
                filter.older_than = Duration::from_secs(seconds.into());
            }
            "limit" => limit = list::read_limit(value)?,
            "cursor" => {
                let after = list::read_time_and_id(value);
                filter.after =
                    Some(after.ok_or_else(|| malformed("must be the `next_cursor` of a page"))?);
            }
            _ => return Err(list::unknown()),
        }
        Ok(())
    })?;
    // One more than asked for says whether there is another page.
    filter.limit = Some(limit + 1);
    let read = db.unknowns(filter).await;
    let mut unknowns = read.map_err(|error| database(&error))?;
    let more = unknowns.len() as i64 > limit;
    unknowns.truncate(limit as usize);
    let last = unknowns.last().filter(|_| more);
    Ok(Json(UnknownPage {
        next_cursor: last.map(|row| cursor_after(row.claimed_at, row.token)),
        unknowns: unknowns.into_iter().map(presentable).collect(),
    }))
}

fn cursor_after(at: DateTime<Utc>, token: Uuid) -> String {
    list::time_and_id(at.timestamp_micros(), token)
}

/// Show everything that is known about a submission, whatever its state
#[utoipa::path(get, path = "/v1/unknowns/{id}", tag = "unknown outcomes", operation_id = "show_unknown",
    params(("id" = Uuid, Path, description = "The submission's token")),
    responses((status = 200, description = "The evidence", body = SubmissionEvidence),
        (status = 404, description = "There is no such submission")))]
pub(super) async fn show(
    State(Operator { db, .. }): State<Operator>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Json<SubmissionEvidence>, Problem> {
    let token = read_id(id)?;
    let found = SubmissionEvidence::find(&db, token).await;
    let found = found.map_err(|error| database(&error))?;
    found.map(Json).ok_or_else(|| gone(token))
}

/// The vendor has the work: book it under its id, and let the job go on
#[utoipa::path(post, path = "/v1/unknowns/{id}/adopt", tag = "unknown outcomes", operation_id = "adopt", request_body = AdoptRequest,
    params(("id" = Uuid, Path, description = "The submission's token")),
    responses((status = 200, description = "It is booked", body = DecisionDocument),
        (status = 404, description = "There is no such submission"),
        (status = 409, description = "It cannot be decided so; the problem says why")))]
pub(super) async fn adopt(
    State(decider): State<Decider>,
    id: Result<Path<String>, PathRejection>,
    caller: Caller,
    headers: HeaderMap,
    body: RawBody,
) -> Result<Json<DecisionDocument>, Problem> {
    let token = read_id(id)?;
    let mut body = Body::read(&headers, body)?;
    let decision = decision(token, &caller, &mut body);
    let task_id = body.text("task_id", None);
    body.finish()?;
    decided(
        token,
        async move { decider.adopt(&decision, &task_id).await },
    )
    .await
}

/// The vendor never got the request: let the job pay for a new attempt
#[utoipa::path(post, path = "/v1/unknowns/{id}/confirm-not-accepted", tag = "unknown outcomes",
    operation_id = "confirm_not_accepted", request_body = ForceRequest,
    params(("id" = Uuid, Path, description = "The submission's token")),
    responses((status = 200, description = "It counts as not accepted", body = DecisionDocument),
        (status = 404, description = "There is no such submission"),
        (status = 409, description = "It cannot be decided so, or not yet; the problem says why")))]
pub(super) async fn confirm_not_accepted(
    State(decider): State<Decider>,
    id: Result<Path<String>, PathRejection>,
    caller: Caller,
    headers: HeaderMap,
    body: RawBody,
) -> Result<Json<DecisionDocument>, Problem> {
    let token = read_id(id)?;
    let mut body = Body::read(&headers, body)?;
    let decision = decision(token, &caller, &mut body);
    body.finish()?;
    decided(token, async move {
        decider.confirm_not_accepted(&decision).await
    })
    .await
}

fn decision(token: Uuid, caller: &Caller, body: &mut Body) -> Decision {
    let Who { by, reason } = body.who(caller);
    Decision {
        token,
        by,
        reason,
        force: body.flag("force"),
        surface: Surface::Http,
    }
}

/// A task of its own: a client that hangs up must not cut a transaction in half.
async fn decided(
    token: Uuid,
    deciding: impl Future<Output = Result<String, DecisionError>> + Send + 'static,
) -> Result<Json<DecisionDocument>, Problem> {
    let decided = tokio::spawn(deciding).await;
    match decided.map_err(|error| internal(&error))? {
        Ok(outcome) => Ok(Json(DecisionDocument { token, outcome })),
        Err(DecisionError::Gone(token)) => Err(gone(token)),
        Err(error @ (DecisionError::Refused(_) | DecisionError::Unproved(_))) => {
            Err(Problem::new(Kind::OutcomeNotDecided, error.to_string()))
        }
        Err(DecisionError::Database(error)) => Err(database(&error)),
        Err(error @ (DecisionError::Vendor(_) | DecisionError::Storage(_))) => {
            tracing::warn!(submission.token = %token, error = chain(&error), "an outcome was not decided");
            let detail = "the vendor or the object store does not answer; nothing was decided";
            Err(Problem::new(Kind::Unavailable, detail))
        }
    }
}

fn gone(token: Uuid) -> Problem {
    let detail = format!("there is no submission {token}");
    Problem::new(Kind::SubmissionNotFound, detail)
}
