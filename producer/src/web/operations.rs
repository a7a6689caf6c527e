//! `/v1/operations`: work on many jobs or dead letters at once, carried out in the background.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::Value;
use shared::db::{
    Db, DbError, DbResult, Ends, JobFilter, LetterFilter, OperationRow, RestartOrder, Steered,
};
use shared::domain::bulk::{BulkAction, BulkState, CanaryOutcome};
use shared::domain::fields::FieldCode;
use utoipa::ToSchema;
use uuid::Uuid;

use super::access::Caller;
use super::body::{Body, Who};
use super::job_actions::{Operator, RawBody, detached};
use super::jobs::database;
use super::list::{self, Parameters};
use super::problem::{Kind, Problem};
use super::requests::{OperationRequest, PreviewRequest, ReasonRequest};
use crate::bulk::{self, Begun, Selection, Wanted};
use crate::replay::Tally;

/// Previews that are counted at once in one process. One may read ten thousand jobs; the connections of the pool are there for
/// dispatch and callbacks too, and a token that may only read may ask.
pub(super) const MAX_PREVIEWS: usize = 2;
/// How long another one waits for its turn.
const PREVIEW_WAIT: Duration = Duration::from_secs(5);

/// How large a selection is.
#[derive(Serialize, ToSchema)]
pub(crate) struct SelectionDocument {
    /// How many.
    pub(crate) count: u64,
    /// There may be more: counting has stopped.
    pub(crate) capped: bool,
    /// What would become of them, for `replay` and `retry`.
    pub(crate) tally: Option<Tally>,
}

/// A page of operations, newest first.
#[derive(Serialize, ToSchema)]
pub(crate) struct OperationPage {
    pub(crate) operations: Vec<OperationDocument>,
    /// Leads to the next page; null on the last one.
    pub(crate) next_cursor: Option<String>,
}

/// An operation.
#[derive(Serialize, ToSchema)]
pub(crate) struct OperationDocument {
    pub(crate) id: i64,
    pub(crate) action: BulkAction,
    /// Which jobs or dead letters, with what the action adds to it.
    #[schema(value_type = Object)]
    filter: Value,
    pub(crate) by: String,
    pub(crate) reason: String,
    pub(crate) state: BulkState,
    /// How many there were when it began.
    pub(crate) total: i64,
    /// At least so many: counting had stopped.
    capped: bool,
    /// Looked at.
    pub(crate) done: i64,
    /// Of these, changed.
    pub(crate) changed: i64,
    /// And those that were not, by why.
    pub(crate) refused: BTreeMap<String, u64>,
    per_minute: Option<i32>,
    another_attempt: bool,
    /// What became of the jobs that it has put back, of 10,000 at most; null in lists, and where it puts nothing back.
    pub(crate) ends: Option<Ends>,
    /// The first of each group, once they are replayed; null where none were asked for.
    pub(crate) canaries: Option<Vec<CanaryDocument>>,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
    finished_at: Option<DateTime<Utc>>,
    /// Why it failed.
    pub(crate) error: Option<String>,
}

/// The first dead letter of a group, which was replayed to see whether the rest can be.
#[derive(Serialize, ToSchema)]
pub(crate) struct CanaryDocument {
    /// The group: stage, reason and normalised error.
    pub(crate) group: String,
    pub(crate) letter: i64,
    pub(crate) job_id: Uuid,
    /// Whether its job got beyond the stage in which it had died. A group whose canary is dead again is left alone.
    pub(crate) outcome: CanaryOutcome,
}

impl OperationDocument {
    /// All that is known of it.
    pub(crate) async fn whole(db: &Db, row: OperationRow) -> DbResult<Self> {
        let ends = db.operation_ends(&row).await?;
        Ok(Self {
            ends,
            ..Self::read(db, row).await?
        })
    }

    /// What a list shows of it, its canaries included.
    pub(crate) async fn read(db: &Db, row: OperationRow) -> DbResult<Self> {
        let canaries = match row.read_canaries()? {
            None => None,
            Some(canaries) => {
                let outcomes = db.canary_outcomes(&canaries).await?;
                let document =
                    |(canary, outcome): (shared::domain::bulk::Canary, _)| CanaryDocument {
                        group: format!("{} {}: {}", canary.stage, canary.reason, canary.class),
                        letter: canary.letter,
                        job_id: canary.job,
                        outcome,
                    };
                Some(canaries.into_iter().zip(outcomes).map(document).collect())
            }
        };
        let refused = serde_json::from_value(row.refused);
        Ok(Self {
            id: row.id,
            action: row.action.parse()?,
            filter: row.filter,
            by: row.actor,
            reason: row.reason,
            state: row.state.parse()?,
            total: row.total,
            capped: row.capped,
            done: row.done,
            changed: row.changed,
            refused: refused.map_err(|error| DbError::Value(error.to_string()))?,
            per_minute: row.per_minute,
            another_attempt: row.another_attempt,
            ends: None,
            canaries,
            created_at: row.created_at,
            updated_at: row.updated_at,
            finished_at: row.finished_at,
            error: row.error,
        })
    }
}

impl OperationPage {
    /// A page, newest first.
    pub(crate) async fn read(db: &Db, before: Option<i64>, limit: i64) -> DbResult<Self> {
        // One more than asked for says whether there is another page.
        let mut rows = db.operations(before, limit + 1).await?;
        let more = rows.len() as i64 > limit;
        rows.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
        let last = rows.last().filter(|_| more);
        let next_cursor = last.map(|row| row.id.to_string());
        let mut operations = Vec::new();
        for row in rows {
            operations.push(OperationDocument::read(db, row).await?);
        }
        Ok(Self {
            operations,
            next_cursor,
        })
    }
}

fn none(id: i64) -> Problem {
    Problem::new(
        Kind::OperationNotFound,
        format!("there is no operation {id}"),
    )
}

async fn shown(db: &Db, id: i64) -> Result<OperationDocument, Problem> {
    let read = async {
        match db.operation(id).await? {
            Some(row) => Ok::<_, DbError>(Some(OperationDocument::whole(db, row).await?)),
            None => Ok(None),
        }
    };
    let found = read.await.map_err(|error| database(&error))?;
    found.ok_or_else(|| none(id))
}

/// Reads what is wanted; every fault is told.
fn read(mut body: Body, who: impl FnOnce(&mut Body) -> Who) -> Result<Wanted, Problem> {
    let action = body.word::<BulkAction>("action", BulkAction::ALL);
    let Who { by, reason } = who(&mut body);
    let (canary, another_attempt) = (body.flag("canary"), body.flag("another_attempt"));
    let (per_minute, expect) = (body.count("per_minute"), body.count("expect"));
    let (mut jobs, mut letters) = (JobFilter::default(), LetterFilter::default());
    if action.is_some_and(BulkAction::is_of_letters) {
        letters = body.filter();
    } else {
        let set = |name: &str, text: &str| list::set(&mut jobs, name, text);
        body.selection(set);
    }
    if canary && action != Some(BulkAction::Replay) {
        body.fault("canary", FieldCode::Malformed, "only a replay has canaries");
    }
    if action == Some(BulkAction::Retry)
        && jobs
            .status
            .is_some_and(|status| !bulk::may_be_retried(status))
    {
        body.fault("filter/status", FieldCode::Malformed, bulk::RETRIED);
    }
    body.finish()?;
    // Without an action the body has a fault.
    let action = action.unwrap_or(BulkAction::Cancel);
    Ok(Wanted {
        action,
        selection: Selection::for_action(action, jobs, letters),
        order: RestartOrder {
            by,
            reason,
            operation: None,
            another_attempt,
        },
        canary,
        per_minute,
        expect: expect.map(u64::from),
    })
}

/// Do something to many jobs or dead letters
///
/// It goes on in the background, piece by piece, whatever process is killed meanwhile. `cancel` is of jobs that are not over, `resume` of
/// parked ones and those that wait for their time unless `state` says which, `retry` of failed ones unless `status` says `canceled`; `replay` and `discard` are of open dead letters.
#[utoipa::path(post, path = "/v1/operations", tag = "operations", operation_id = "begin_operation", request_body = OperationRequest,
    responses((status = 202, description = "It goes on", body = OperationDocument,
            headers(("Location" = String, description = "The path of the operation"))),
        (status = 409, description = "There are more or fewer than expected, or more groups than canaries can be looked at; nothing was done")))]
pub(super) async fn begin(
    State(operator): State<Operator>,
    caller: Caller,
    headers: HeaderMap,
    body: RawBody,
) -> Result<Response, Problem> {
    let wanted = read(Body::read(&headers, body)?, |body| body.who(&caller))?;
    let db = operator.db.clone();
    let begun = detached(async move { bulk::begin(&db, wanted).await }).await?;
    let id = match begun {
        Begun::Yes(id) => id,
        Begun::Differs { expected, count } => {
            let detail = format!(
                "{expected} were expected and {count} are there: look again, then repeat with that number"
            );
            return Err(Problem::new(Kind::CountDiffers, detail));
        }
        Begun::TooManyGroups => {
            let detail = "the dead letters have too many groups for canaries: narrow the filter";
            return Err(Problem::new(Kind::CountDiffers, detail));
        }
    };
    let document = shown(&operator.db, id).await?;
    let location = [(header::LOCATION, format!("/v1/operations/{id}"))];
    Ok((StatusCode::ACCEPTED, location, Json(document)).into_response())
}

/// What an operation would be about
///
/// Counts up to 10,000, and says for `replay` and `retry` what would become of them and what may be paid. Takes the body of an operation,
/// and changes nothing.
#[utoipa::path(post, path = "/v1/operations/preview", tag = "operations", operation_id = "preview_operation",
    request_body = PreviewRequest, responses((status = 200, description = "How many", body = SelectionDocument),
        (status = 503, description = "Other previews are being counted, or something that the service needs is away")))]
pub(super) async fn preview(
    State(operator): State<Operator>,
    caller: Caller,
    headers: HeaderMap,
    body: RawBody,
) -> Result<Json<SelectionDocument>, Problem> {
    let wanted = read(Body::read(&headers, body)?, |body| body.who_would(&caller))?;
    let turn = tokio::time::timeout(PREVIEW_WAIT, operator.previews.acquire_owned()).await;
    let Ok(Ok(turn)) = turn else {
        let detail = "as many previews are being counted as may be at once";
        return Err(Problem::new(Kind::TooManyPreviews, detail));
    };
    let db = operator.db;
    // Of whom hangs up the database goes on counting: it stays their turn until that is done.
    let counted = detached(async move {
        let counted = bulk::count(&db, &wanted).await;
        drop(turn);
        counted
    });
    let counted = counted.await?;
    Ok(Json(SelectionDocument {
        count: counted.count,
        capped: counted.capped,
        tally: counted.tally,
    }))
}

/// List operations, newest first
#[utoipa::path(get, path = "/v1/operations", tag = "operations", operation_id = "list_operations",
    params(("limit" = Option<i64>, Query, minimum = 1, maximum = 200, description = "Operations on a page; 50 by default"),
        ("cursor" = Option<String>, Query, pattern = "^[0-9]{1,18}$", description = "`next_cursor` of the page before")),
    responses((status = 200, description = "A page", body = OperationPage)))]
pub(super) async fn list(
    State(Operator { db, .. }): State<Operator>,
    parameters: Parameters,
) -> Result<Json<OperationPage>, Problem> {
    let (limit, before) = list::read_numbered(parameters)?;
    let page = OperationPage::read(&db, before, limit).await;
    page.map(Json).map_err(|error| database(&error))
}

/// Show an operation and how far it has come
#[utoipa::path(get, path = "/v1/operations/{id}", tag = "operations", operation_id = "show_operation",
    params(("id" = i64, Path, description = "The operation")),
    responses((status = 200, description = "The operation", body = OperationDocument),
        (status = 404, description = "There is no such operation")))]
pub(super) async fn show(
    State(Operator { db, .. }): State<Operator>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Json<OperationDocument>, Problem> {
    shown(&db, list::read_number_in_path(id)?).await.map(Json)
}

/// Let an operation go on whose canaries were looked at
///
/// Groups whose canary is dead again are left alone.
#[utoipa::path(post, path = "/v1/operations/{id}/continue", tag = "operations", operation_id = "continue_operation",
    request_body = ReasonRequest, params(("id" = i64, Path, description = "The operation")),
    responses((status = 200, description = "It goes on", body = OperationDocument),
        (status = 404, description = "There is no such operation"), (status = 409, description = "It does not wait for that")))]
pub(super) async fn go_on(
    State(Operator { db, .. }): State<Operator>,
    id: Result<Path<String>, PathRejection>,
    who: Who,
) -> Result<Json<OperationDocument>, Problem> {
    let id = list::read_number_in_path(id)?;
    let writer = db.clone();
    let steered =
        detached(async move { writer.continue_operation(id, &who.by, &who.reason).await });
    steered_to(&db, id, steered.await?).await
}

/// Stop an operation; what was done stays done
///
/// When this is answered nothing of it is done any more. Twice is refused and harmless.
#[utoipa::path(post, path = "/v1/operations/{id}/stop", tag = "operations", operation_id = "stop_operation",
    request_body = ReasonRequest, params(("id" = i64, Path, description = "The operation")),
    responses((status = 200, description = "It is stopped", body = OperationDocument),
        (status = 404, description = "There is no such operation"), (status = 409, description = "It is over")))]
pub(super) async fn stop(
    State(Operator { db, .. }): State<Operator>,
    id: Result<Path<String>, PathRejection>,
    who: Who,
) -> Result<Json<OperationDocument>, Problem> {
    let id = list::read_number_in_path(id)?;
    let writer = db.clone();
    let steered = detached(async move { writer.stop_operation(id, &who.by, &who.reason).await });
    steered_to(&db, id, steered.await?).await
}

async fn steered_to(
    db: &Db,
    id: i64,
    steered: Steered,
) -> Result<Json<OperationDocument>, Problem> {
    match steered {
        Steered::Yes => shown(db, id).await.map(Json),
        Steered::Not(state) => {
            let detail = format!("the operation is {state}");
            Err(Problem::new(Kind::OperationNotSteered, detail))
        }
        Steered::Gone => Err(none(id)),
    }
}
