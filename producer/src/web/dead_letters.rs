//! `GET /v1/dead-letters`, `GET /v1/dead-letters/{id}`, `PUT …/note`, `POST /v1/dead-letters/replays` and `/discards`.

use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, PathRejection};
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse as _, Response};
use serde::Serialize;
use serde_json::json;
use shared::db::{
    Db, DbResult, Discarded, GroupNote, LetterFilter, LetterGroup, NoteChange, Noted, Pace,
    RestartOrder,
};
use shared::domain::fields::{FieldCode, FieldError};
use utoipa::ToSchema;

use super::access::Caller;
use super::body::{self, Body, Who};
use super::job_actions::{Operator, detached};
use super::jobs::database;
use super::letter_document::{GroupDocument, LetterDocument};
use super::list::{self, DEFAULT_LIMIT, Parameters};
use super::precondition;
use super::problem::{Kind, Problem};
use super::requests::{DiscardRequest, NoteRequest, ReplayRequest};
use crate::replay::{self, PIECE, Tally};

/// Letters that one request works through; the answer says whether there are more.
const PER_REQUEST: u64 = 1000;

/// A page of the list: newest first, or groups by name.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
pub(super) enum LetterPage {
    /// With `view=flat`.
    Flat {
        letters: Vec<LetterDocument>,
        /// Leads to the next page; null on the last one.
        next_cursor: Option<String>,
    },
    /// Otherwise.
    Groups {
        groups: Vec<GroupDocument>,
        /// Leads to the next page; null on the last one.
        next_cursor: Option<String>,
    },
}

/// What a replay came to, or would come to.
#[derive(Serialize, ToSchema)]
pub(super) struct ReplayDocument {
    /// Nothing was done.
    preview: bool,
    /// False: there are more letters of the selection; send the request again.
    complete: bool,
    replay: Tally,
}

/// What discarding came to.
#[derive(Serialize, ToSchema)]
pub(super) struct DiscardDocument {
    discarded: u64,
    /// False: there are more letters of the selection; send the request again.
    complete: bool,
}

/// What people have found out about a group.
#[derive(Serialize, ToSchema)]
pub(super) struct NoteDocument {
    note: Option<GroupNote>,
}

type LetterId = Result<Path<String>, PathRejection>;

struct Page {
    filter: LetterFilter,
    flat: bool,
    limit: i64,
    cursor: Option<String>,
}

impl Page {
    fn set(&mut self, name: &str, value: &str) -> Result<(), (FieldCode, String)> {
        let malformed = |message: &str| Err((FieldCode::Malformed, message.to_owned()));
        match (name, value) {
            ("view", "flat") => self.flat = true,
            ("view", "groups") => self.flat = false,
            ("view", _) => return malformed("must be `groups` or `flat`"),
            ("limit", value) => self.limit = list::read_limit(value)?,
            ("cursor", value) => self.cursor = Some(value.to_owned()),
            (name, value) => return body::set(&mut self.filter, name, value),
        }
        Ok(())
    }
}

/// List what was given up, in groups or one by one
#[utoipa::path(get, path = "/v1/dead-letters", tag = "dead letters", operation_id = "list_dead_letters",
    params(
        ("view" = Option<String>, Query, pattern = "^(groups|flat)$", description = "`groups` (the default) or `flat`"),
        ("stage" = Option<String>, Query, description = "Of this stage; `unknown` for messages that came from elsewhere"),
        ("reason" = Option<String>, Query, min_length = 1, max_length = 1000, description = "With this reason"),
        ("class" = Option<String>, Query, min_length = 1, max_length = 1000, description = "With this normalised error"),
        ("since" = Option<DateTime<Utc>>, Query, description = "Received then or later"),
        ("job" = Option<Uuid>, Query, description = "Of this job"),
        ("user" = Option<Uuid>, Query, description = "Of this user's jobs"),
        ("closed" = Option<bool>, Query, description = "The closed ones too"),
        ("limit" = Option<i64>, Query, minimum = 1, maximum = 200, description = "Letters or groups on a page; 50 by default"),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before, in the same view")),
    responses((status = 200, description = "A page", body = LetterPage)))]
pub(super) async fn list(
    State(Operator { db, .. }): State<Operator>,
    parameters: Parameters,
) -> Result<Json<LetterPage>, Problem> {
    let mut page = Page {
        filter: LetterFilter::default(),
        flat: false,
        limit: DEFAULT_LIMIT,
        cursor: None,
    };
    list::each(parameters, |name, value| page.set(name, value))?;
    // One more than asked for says whether there is another page.
    let (limit, more) = (page.limit as usize, page.limit + 1);
    let document = if page.flat {
        let before = match &page.cursor {
            Some(text) => Some(text.parse().map_err(|_| bad_cursor())?),
            None => None,
        };
        let letters = db.letters(&page.filter, before, more).await;
        let mut letters = letters.map_err(|error| database(&error))?;
        let is_more = letters.len() > limit;
        letters.truncate(limit);
        let last = letters.last().filter(|_| is_more);
        let next = last.map(|letter| letter.id.to_string());
        let letters: Vec<_> = letters.into_iter().map(LetterDocument::new).collect();
        LetterPage::Flat {
            letters,
            next_cursor: next,
        }
    } else {
        let after = page.cursor.as_deref().map(read_cursor).transpose()?;
        let groups = db.letter_groups(&page.filter, after.as_ref(), more).await;
        let mut groups = groups.map_err(|error| database(&error))?;
        let is_more = groups.len() > limit;
        groups.truncate(limit);
        let next = groups.last().filter(|_| is_more).map(cursor_after);
        LetterPage::Groups {
            groups: groups
                .into_iter()
                .map(GroupDocument::new)
                .collect::<DbResult<_>>()
                .map_err(|error| database(&error))?,
            next_cursor: next,
        }
    };
    Ok(Json(document))
}

/// The key of the last group, as JSON in hexadecimal: classes hold any text.
fn cursor_after(group: &LetterGroup) -> String {
    let key = json!([group.stage, group.error_class, group.reason]).to_string();
    key.bytes().map(|byte| format!("{byte:02x}")).collect()
}

fn read_cursor(text: &str) -> Result<(String, String, String), Problem> {
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    let bytes: Option<Vec<u8>> = text.as_bytes().chunks(2).map(byte).collect();
    let key =
        bytes.and_then(|bytes| serde_json::from_slice::<(String, String, String)>(&bytes).ok());
    key.filter(|(stage, class, reason)| {
        ![stage, class, reason]
            .iter()
            .any(|part| part.contains('\0'))
    })
    .ok_or_else(bad_cursor)
}

fn bad_cursor() -> Problem {
    let fault = FieldError {
        path: "cursor".to_owned(),
        code: FieldCode::Malformed,
        message: "must be the `next_cursor` of a page".to_owned(),
    };
    Problem::faults(Kind::InvalidParameters, vec![fault])
}

/// Show one dead letter, its message and its job
#[utoipa::path(get, path = "/v1/dead-letters/{id}", tag = "dead letters", operation_id = "show_dead_letter",
    params(("id" = i64, Path, description = "The letter")),
    responses((status = 200, description = "The letter", body = LetterDocument),
        (status = 404, description = "There is no such dead letter")))]
pub(super) async fn show(
    State(Operator { db, .. }): State<Operator>,
    id: LetterId,
) -> Result<Json<LetterDocument>, Problem> {
    let id = list::read_number_in_path(id)?;
    let Some(letter) = db.letter(id).await.map_err(|error| database(&error))? else {
        return Err(no_letter(id));
    };
    let note = db.group_note(id).await.map_err(|error| database(&error))?;
    Ok(Json(LetterDocument::new(letter).with_note(note)))
}

fn no_letter(id: i64) -> Problem {
    let detail = format!("there is no dead letter {id}");
    Problem::new(Kind::LetterNotFound, detail)
}

/// Say what you have found out about the group of a dead letter
///
/// One note for all dead letters of the same stage, reason and normalised error. It stays when they are closed, and is there when the
/// same fault comes again.
#[utoipa::path(put, path = "/v1/dead-letters/{id}/note", tag = "dead letters", operation_id = "note_dead_letters",
    request_body = NoteRequest,
    params(("id" = i64, Path, description = "A letter of the group"),
        ("If-Match" = Option<String>, Header, description = "The version of the note, in quotes, that the change is for"),
        ("If-None-Match" = Option<String>, Header, description = "`*`: only if there is none")),
    responses((status = 200, description = "The note; null when there is none", body = NoteDocument,
            headers(("ETag" = String, description = "Its version, for `If-Match`; absent with it"))),
        (status = 404, description = "There is no such dead letter"), (status = 412, description = "Somebody has changed it meanwhile")))]
pub(super) async fn note(
    State(Operator { db, .. }): State<Operator>,
    id: LetterId,
    caller: Caller,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let letter = list::read_number_in_path(id)?;
    let mut body = Body::read(&headers, body)?;
    let text = body.note();
    let by = body.by(&caller);
    body.finish()?;
    let change = NoteChange {
        letter,
        text,
        if_note: precondition::if_note(&headers)?,
        by,
    };
    match detached(async move { db.note_group(&change).await }).await? {
        Noted::Now(note) => {
            let tag = note.as_ref().map(|note| precondition::etag(note.version));
            let answer = Json(NoteDocument { note });
            Ok(match tag {
                Some(tag) => (tag, answer).into_response(),
                None => answer.into_response(),
            })
        }
        Noted::Outdated => Err(precondition::outdated()),
        Noted::Gone => Err(no_letter(letter)),
    }
}

/// Refuses a request that names letters which do not exist or are closed; nothing is done then.
async fn are_open(db: &Db, filter: &LetterFilter) -> Result<(), Problem> {
    let not_open = replay::not_open(db, filter).await;
    let not_open = not_open.map_err(|error| database(&error))?;
    let Some(first) = not_open.iter().find(|letter| letter.closed.is_none()) else {
        return match not_open.first() {
            Some(first) => Err(Problem::new(Kind::LetterClosed, first.to_string())),
            None => Ok(()),
        };
    };
    Err(Problem::new(Kind::LetterNotFound, first.to_string()))
}

/// Put the jobs of dead letters back on their way
///
/// Sends no paid request by itself. Works through at most 1000 letters; `complete` says whether there are more.
#[utoipa::path(post, path = "/v1/dead-letters/replays", tag = "dead letters", operation_id = "replay_dead_letters",
    request_body = ReplayRequest, responses((status = 200, description = "What it came to", body = ReplayDocument),
        (status = 404, description = "A letter named by its number does not exist; nothing was done"),
        (status = 409, description = "A letter named by its number is closed; nothing was done")))]
pub(super) async fn replay(
    State(operator): State<Operator>,
    caller: Caller,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<ReplayDocument>, Problem> {
    let mut body = Body::read(&headers, body)?;
    let preview = body.flag("preview");
    let per_minute = body.count("per_minute");
    let filter = body.filter();
    let Who { by, reason } = body.who(&caller);
    let order = RestartOrder {
        by,
        reason,
        operation: None,
        another_attempt: body.flag("another_attempt"),
    };
    body.finish()?;
    let db = operator.db;
    are_open(&db, &filter).await?;
    let step = per_minute.map_or(Duration::ZERO, |n| Duration::from_secs(60) / n);
    let (tally, complete) = detached(async move {
        if preview {
            return Ok((replay::preview(&db, &filter, &order, u64::MAX).await?, true));
        }
        replay::note(
            &db,
            &order.by,
            &order.reason,
            "dead_letters_replayed",
            &filter,
        )
        .await?;
        let filter = LetterFilter {
            upto: Some(db.newest_letter().await?),
            ..filter
        };
        let mut pace = Pace {
            next: Duration::ZERO,
            step,
        };
        let (mut tally, mut after) = (Tally::default(), 0);
        while tally.letters < PER_REQUEST {
            let piece = replay::replay_piece(&db, &filter, &order, after, PIECE, &mut pace);
            let piece = piece.await?;
            let Some(last) = piece.last() else {
                return Ok((tally, true));
            };
            after = last.letter.id;
            for replayed in &piece {
                tally.add(replayed);
            }
        }
        let rest = db.letters_after(&filter, after, 1).await?;
        Ok((tally, rest.is_empty()))
    })
    .await?;
    Ok(Json(ReplayDocument {
        preview,
        complete,
        replay: tally,
    }))
}

/// Close dead letters; their jobs stay failed
#[utoipa::path(post, path = "/v1/dead-letters/discards", tag = "dead letters", operation_id = "discard_dead_letters",
    request_body = DiscardRequest, responses((status = 200, description = "What it came to", body = DiscardDocument),
        (status = 404, description = "A letter named by its number does not exist; nothing was done"),
        (status = 409, description = "A letter named by its number is closed; nothing was done")))]
pub(super) async fn discard(
    State(Operator { db, .. }): State<Operator>,
    caller: Caller,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<DiscardDocument>, Problem> {
    let mut body = Body::read(&headers, body)?;
    let filter = body.filter();
    let Who { by, reason } = body.who(&caller);
    body.finish()?;
    are_open(&db, &filter).await?;
    let (discarded, complete) = detached(async move {
        replay::note(&db, &by, &reason, "dead_letters_discarded", &filter).await?;
        let filter = LetterFilter {
            upto: Some(db.newest_letter().await?),
            ..filter
        };
        let (mut discarded, mut looked_at, mut after) = (0_u64, 0_u64, 0);
        while looked_at < PER_REQUEST {
            let piece = replay::discard_piece(&db, &filter, &by, &reason, after).await?;
            let Some((last, _)) = piece.last() else {
                return Ok((discarded, true));
            };
            after = *last;
            looked_at += piece.len() as u64;
            let now = piece
                .iter()
                .filter(|(_, verdict)| *verdict == Discarded::Discarded);
            discarded += now.count() as u64;
        }
        let rest = db.letters_after(&filter, after, 1).await?;
        Ok((discarded, rest.is_empty()))
    })
    .await?;
    Ok(Json(DiscardDocument {
        discarded,
        complete,
    }))
}
