//! `GET /v1/events` and `GET /v1/jobs/{id}/events`: the trail as server-sent events
//! (<https://html.spec.whatwg.org/multipage/server-sent-events.html>).

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderName};
use axum::response::{IntoResponse as _, Response, Sse, sse};
use futures::{StreamExt as _, stream};
use shared::db::Db;
use shared::domain::fields::{FieldCode, FieldError};
use uuid::Uuid;

use super::access::Caller;
use super::jobs::{database, no_job, read_id};
use super::problem::{Kind, Problem};
use crate::feed::{Feed, NotFollowed};

/// A comment is sent after so long without an event, so that both ends notice a dead connection.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// A stream ends after so long, and its reader comes again: who may follow is asked when a stream begins, so that a revoked token
/// ends with its last one.
const LIFE: Duration = Duration::from_secs(600);
/// Who comes right after the start is not sent away at once, but kept waiting so long.
const BEGIN: Duration = Duration::from_secs(5);
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// What following needs.
#[derive(Clone)]
pub(super) struct Followed {
    pub(super) db: Db,
    pub(super) feed: Feed,
}

/// One of the stream, as a client's parser gives it. Lines that begin with `:` only keep the connection.
#[derive(utoipa::ToSchema)]
#[expect(dead_code, reason = "describes the events; axum writes them")]
struct ServerSentEvent {
    /// The number of the trail's line, for `Last-Event-ID`.
    id: String,
    /// The line, with `job_id`: JSON as in `history`.
    #[schema(content_media_type = "application/json")]
    data: String,
}

/// Follow what happens to all jobs
///
/// Server-sent events: `id` is the number of the trail's line, `data` the line as JSON with `job_id`. Begins with what happens from
/// now on, or after `Last-Event-ID`. Complete and in order; after a reconnection lines may repeat. Ends after
/// ten minutes: come again with `Last-Event-ID`, as browsers do.
#[utoipa::path(get, path = "/v1/events", tag = "events", operation_id = "follow_all",
    params(("Last-Event-ID" = Option<i64>, Header, description = "The last event that was seen")),
    responses((status = 200, description = "The events", body = ServerSentEvent, content_type = "text/event-stream"),
        (status = 503, description = "Too many follow already, all of them or with this token; or something that the service needs is away")))]
pub(super) async fn all(
    State(Followed { feed, .. }): State<Followed>,
    caller: Caller,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    follow(&feed, &caller, None, last_event(&headers)?).await
}

/// Follow what happens to one job
///
/// The same, from the beginning of the job's trail.
#[utoipa::path(get, path = "/v1/jobs/{id}/events", tag = "events", operation_id = "follow_job",
    params(("id" = Uuid, Path, description = "The job"),
        ("Last-Event-ID" = Option<i64>, Header, description = "The last event that was seen")),
    responses((status = 200, description = "The events", body = ServerSentEvent, content_type = "text/event-stream"),
        (status = 404, description = "There is no such job"),
        (status = 503, description = "Too many follow already, all of them or with this token; or something that the service needs is away")))]
pub(super) async fn of_job(
    State(Followed { db, feed }): State<Followed>,
    caller: Caller,
    id: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let id = read_id(id)?;
    let after = last_event(&headers)?;
    if db
        .job(id)
        .await
        .map_err(|error| database(&error))?
        .is_none()
    {
        return Err(no_job(id));
    }
    follow(&feed, &caller, Some(id), after).await
}

fn last_event(headers: &HeaderMap) -> Result<Option<i64>, Problem> {
    let Some(value) = headers.get(LAST_EVENT_ID) else {
        return Ok(None);
    };
    let id = value.to_str().ok().and_then(|text| text.parse().ok());
    let id = id.filter(|id| *id >= 0);
    id.map(Some).ok_or_else(|| {
        let fault = FieldError {
            path: "Last-Event-ID".to_owned(),
            code: FieldCode::Malformed,
            message: "must be the `id` of an event".to_owned(),
        };
        Problem::faults(Kind::InvalidParameters, vec![fault])
    })
}

async fn follow(
    feed: &Feed,
    caller: &Caller,
    job: Option<Uuid>,
    after: Option<i64>,
) -> Result<Response, Problem> {
    feed.begun(BEGIN).await;
    let follower = feed.follow(caller.name.as_deref(), job, after);
    let follower = follower.map_err(|why| match why {
        NotFollowed::TooManyWithToken => {
            let detail = "as many follow with this token as one may have: end some, or use another";
            Problem::new(Kind::TooManyStreams, detail)
        }
        NotFollowed::TooMany => {
            Problem::new(Kind::TooManyStreams, "come again, or ask another producer")
        }
        NotFollowed::Away => Problem::new(Kind::Unavailable, "the database is away"),
    })?;
    let events = stream::unfold(follower, async |mut follower| {
        let line = follower.next().await?;
        let event = sse::Event::default()
            .id(line.id.to_string())
            .data(&line.data);
        Some((Ok::<_, Infallible>(event), follower))
    });
    let events = events.take_until(tokio::time::sleep(LIFE));
    let heartbeat = sse::KeepAlive::new().interval(HEARTBEAT).text("heartbeat");
    Ok(Sse::new(events).keep_alive(heartbeat).into_response())
}
