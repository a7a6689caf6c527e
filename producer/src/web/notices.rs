//! `/v1/notices`: what submitters were told about the end of their jobs, and telling them again.

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use chrono::{DateTime, Utc};
use serde::Serialize;
use shared::db::{Db, NoticeFilter, NoticeReplayed, NoticeRow};
use shared::domain::JobStatus;
use shared::domain::fields::FieldCode;
use shared::domain::notice::NoticeState;
use utoipa::ToSchema;
use uuid::Uuid;

use super::body::Who;
use super::document::redacted;
use super::job_actions::{Operator, detached};
use super::jobs::{database, read_id};
use super::list::{self, Parameters};
use super::problem::{Kind, Problem};
use super::requests::ReasonRequest;

/// A notice that a job has ended.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct NoticeDocument {
    /// The receiver sees it as `webhook-id` and `event_id`.
    pub id: Uuid,
    /// The job; may be gone.
    pub job_id: Uuid,
    /// Where it goes, without the query string.
    pub url: String,
    /// What the job came to.
    #[schema(value_type = JobStatus)]
    pub status: String,
    /// When the job ended.
    pub created_at: DateTime<Utc>,
    /// Where it stands.
    #[schema(value_type = NoticeState)]
    pub state: String,
    /// When it is sent next; null when it is not.
    pub due_at: Option<DateTime<Utc>>,
    /// How often it was sent.
    pub tries: i32,
    /// The receiver's last status.
    pub last_status: Option<i32>,
    /// Why the last try did not do.
    pub last_error: Option<String>,
    /// When it was taken or given up.
    pub ended_at: Option<DateTime<Utc>>,
}

impl From<NoticeRow> for NoticeDocument {
    fn from(row: NoticeRow) -> Self {
        Self {
            id: row.id,
            job_id: row.job_id,
            url: redacted(row.url),
            status: row.status,
            created_at: row.created_at,
            state: row.state,
            due_at: row.due_at,
            tries: row.tries,
            last_status: row.last_status,
            last_error: row.last_error,
            ended_at: row.ended_at,
        }
    }
}

/// A page of notices, newest first.
#[derive(Serialize, ToSchema)]
pub(super) struct NoticePage {
    notices: Vec<NoticeDocument>,
    /// Leads to the next page; null on the last one.
    next_cursor: Option<String>,
}

/// List notices that jobs have ended, newest first
#[utoipa::path(get, path = "/v1/notices", tag = "notices", operation_id = "list_notices",
    params(("state" = Option<NoticeState>, Query, description = "In this state"),
        ("job" = Option<Uuid>, Query, description = "Of this job"),
        ("limit" = Option<i64>, Query, minimum = 1, maximum = 200, description = "Notices on a page; 50 by default"),
        ("cursor" = Option<String>, Query, pattern = "^000[0-7][0-9a-f]{44}$", description = "`next_cursor` of the page before")),
    responses((status = 200, description = "A page", body = NoticePage)))]
pub(super) async fn list(
    State(Operator { db, .. }): State<Operator>,
    parameters: Parameters,
) -> Result<Json<NoticePage>, Problem> {
    let mut filter = NoticeFilter::default();
    let mut limit = list::DEFAULT_LIMIT;
    list::each(parameters, |name, value| {
        let malformed = |message: &str| (FieldCode::Malformed, message.to_owned());
        match name {
            "state" => {
                let one_of = |_| (FieldCode::Malformed, list::one_of(NoticeState::ALL));
                filter.state = Some(value.parse().map_err(one_of)?);
            }
            "job" => filter.job = Some(value.parse().map_err(|_| malformed("must be a UUID"))?),
            "limit" => limit = list::read_limit(value)?,
            "cursor" => {
                let before = list::read_time_and_id(value);
                let no_cursor = || malformed("must be the `next_cursor` of a page");
                filter.before = Some(before.ok_or_else(no_cursor)?);
            }
            _ => return Err(list::unknown()),
        }
        Ok(())
    })?;
    // One more than asked for says whether there is another page.
    filter.limit = limit + 1;
    let read = db.notices(&filter).await;
    let mut notices = read.map_err(|error| database(&error))?;
    let more = notices.len() as i64 > limit;
    notices.truncate(limit as usize);
    let last = notices.last().filter(|_| more);
    let cursor = |row: &NoticeRow| list::time_and_id(row.created_at.timestamp_micros(), row.id);
    Ok(Json(NoticePage {
        next_cursor: last.map(cursor),
        notices: notices.into_iter().map(Into::into).collect(),
    }))
}

/// Show one notice
#[utoipa::path(get, path = "/v1/notices/{id}", tag = "notices", operation_id = "show_notice",
    params(("id" = Uuid, Path, description = "The notice")),
    responses((status = 200, description = "The notice", body = NoticeDocument),
        (status = 404, description = "There is no such notice")))]
pub(super) async fn show(
    State(Operator { db, .. }): State<Operator>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Json<NoticeDocument>, Problem> {
    shown(&db, read_id(id)?).await
}

/// Send a notice again that was taken, refused or given up
///
/// Under the same id, and with all its tries before it.
#[utoipa::path(post, path = "/v1/notices/{id}/replay", tag = "notices", operation_id = "replay_notice", request_body = ReasonRequest,
    params(("id" = Uuid, Path, description = "The notice")),
    responses((status = 200, description = "The notice, due", body = NoticeDocument),
        (status = 404, description = "There is no such notice"), (status = 409, description = "It waits to be sent anyway")))]
pub(super) async fn replay(
    State(Operator { db, .. }): State<Operator>,
    id: Result<Path<String>, PathRejection>,
    Who { by, reason }: Who,
) -> Result<Json<NoticeDocument>, Problem> {
    let id = read_id(id)?;
    let change = {
        let db = db.clone();
        async move { db.replay_notice(id, &by, &reason).await }
    };
    match detached(change).await? {
        NoticeReplayed::Due => shown(&db, id).await,
        NoticeReplayed::Waiting => {
            let detail = "the notice waits to be sent anyway; `due_at` says when";
            Err(Problem::new(Kind::NoticeWaiting, detail))
        }
        NoticeReplayed::Gone => Err(no_notice(id)),
    }
}

async fn shown(db: &Db, id: Uuid) -> Result<Json<NoticeDocument>, Problem> {
    match db.notice(id).await.map_err(|error| database(&error))? {
        Some(row) => Ok(Json(row.into())),
        None => Err(no_notice(id)),
    }
}

fn no_notice(id: Uuid) -> Problem {
    Problem::new(Kind::NoticeNotFound, format!("there is no notice {id}"))
}
