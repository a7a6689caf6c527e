//! `GET /v1/dead-letters`, `GET /v1/dead-letters/{id}`, `POST /v1/dead-letters/replays` and `/discards`.

use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse as _, Response};
use serde_json::{Value, json};
use shared::db::{Db, Discarded, LetterFilter, LetterGroup, Pace, RestartOrder};
use shared::domain::fields::{FieldCode, FieldError};

use super::body::{self, Body, Who};
use super::jobs::database;
use super::letter_document::LetterDocument;
use super::operations::{Operator, detached};
use super::problem::{Kind, Problem};
use crate::operations::{self, PIECE, Tally};

/// Letters or groups on a page when nothing else is asked for.
const DEFAULT_LIMIT: i64 = 50;
/// Most of them.
const MAX_LIMIT: i64 = 200;
/// Letters that one request works through; the answer says whether there are more.
const PER_REQUEST: u64 = 1000;

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
            ("limit", value) => match value.parse() {
                Ok(limit) if (1..=MAX_LIMIT).contains(&limit) => self.limit = limit,
                _ => {
                    let message = format!("must be a number from 1 to {MAX_LIMIT}");
                    return Err((FieldCode::OutOfRange, message));
                }
            },
            ("cursor", value) => self.cursor = Some(value.to_owned()),
            (name, value) => return body::set(&mut self.filter, name, value),
        }
        Ok(())
    }
}

pub(super) async fn list(
    State(Operator { db, .. }): State<Operator>,
    parameters: Result<Query<Vec<(String, String)>>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(parameters) = parameters.map_err(|_| {
        let detail = "the query string cannot be read";
        Problem::new(Kind::InvalidParameters, detail)
    })?;
    let page = read(&parameters)?;
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
        json!({ "letters": letters, "next_cursor": next })
    } else {
        let after = page.cursor.as_deref().map(read_cursor).transpose()?;
        let groups = db.letter_groups(&page.filter, after.as_ref(), more).await;
        let mut groups = groups.map_err(|error| database(&error))?;
        let is_more = groups.len() > limit;
        groups.truncate(limit);
        let next = groups.last().filter(|_| is_more).map(cursor_after);
        let groups: Vec<_> = groups.iter().map(group).collect();
        json!({ "groups": groups, "next_cursor": next })
    };
    Ok(Json(document).into_response())
}

fn group(group: &LetterGroup) -> Value {
    json!({ "stage": group.stage, "class": group.error_class, "reason": group.reason, "letters": group.letters,
        "first": group.first, "oldest": group.oldest, "newest": group.newest })
}

fn read(parameters: &[(String, String)]) -> Result<Page, Problem> {
    let mut page = Page {
        filter: LetterFilter::default(),
        flat: false,
        limit: DEFAULT_LIMIT,
        cursor: None,
    };
    let mut faults = Vec::new();
    for (index, (name, value)) in parameters.iter().enumerate().take(32) {
        let read = if parameters[..index].iter().any(|(other, _)| other == name) {
            Err((FieldCode::Malformed, "may be given once".to_owned()))
        } else {
            page.set(name, value)
        };
        if let Err((code, message)) = read {
            faults.push(FieldError {
                path: name.clone(),
                code,
                message,
            });
        }
    }
    if faults.is_empty() {
        Ok(page)
    } else {
        Err(Problem::faults(Kind::InvalidParameters, faults))
    }
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

pub(super) async fn show(
    State(Operator { db, .. }): State<Operator>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Response, Problem> {
    let id: Option<i64> = id.ok().and_then(|Path(id)| id.parse().ok());
    let id = id.ok_or_else(|| {
        let fault = FieldError {
            path: "id".to_owned(),
            code: FieldCode::Malformed,
            message: "must be a number".to_owned(),
        };
        Problem::faults(Kind::InvalidParameters, vec![fault])
    })?;
    match db.letter(id).await.map_err(|error| database(&error))? {
        Some(letter) => Ok(Json(LetterDocument::new(letter)).into_response()),
        None => {
            let detail = format!("there is no dead letter {id}");
            Err(Problem::new(Kind::LetterNotFound, detail))
        }
    }
}

/// Refuses a request that names letters which do not exist or are closed; nothing is done then.
async fn are_open(db: &Db, filter: &LetterFilter) -> Result<(), Problem> {
    let not_open = operations::not_open(db, filter).await;
    let not_open = not_open.map_err(|error| database(&error))?;
    let Some(first) = not_open.iter().find(|letter| letter.closed.is_none()) else {
        return match not_open.first() {
            Some(first) => Err(Problem::new(Kind::LetterClosed, first.to_string())),
            None => Ok(()),
        };
    };
    Err(Problem::new(Kind::LetterNotFound, first.to_string()))
}

pub(super) async fn replay(
    State(operator): State<Operator>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let mut body = Body::read(&headers, body)?;
    let preview = body.flag("preview");
    let per_minute = body.count("per_minute");
    let filter = body.filter();
    let Who { by, reason } = body.who();
    let order = RestartOrder {
        by,
        reason,
        another_attempt: body.flag("another_attempt"),
        max_paid_attempts: operator.max_paid_attempts,
    };
    body.finish()?;
    let db = operator.db;
    are_open(&db, &filter).await?;
    let step = per_minute.map_or(Duration::ZERO, |n| Duration::from_secs(60) / n);
    let (tally, complete) = detached(async move {
        if preview {
            return Ok((operations::preview(&db, &filter, &order).await?, true));
        }
        operations::note(
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
            let piece = operations::replay_piece(&db, &filter, &order, after, PIECE, &mut pace);
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
    Ok(Json(json!({ "preview": preview, "complete": complete, "replay": tally })).into_response())
}

pub(super) async fn discard(
    State(Operator { db, .. }): State<Operator>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let mut body = Body::read(&headers, body)?;
    let filter = body.filter();
    let Who { by, reason } = body.who();
    body.finish()?;
    are_open(&db, &filter).await?;
    let (discarded, complete) = detached(async move {
        operations::note(&db, &by, &reason, "dead_letters_discarded", &filter).await?;
        let filter = LetterFilter {
            upto: Some(db.newest_letter().await?),
            ..filter
        };
        let (mut discarded, mut looked_at, mut after) = (0_u64, 0_u64, 0);
        while looked_at < PER_REQUEST {
            let piece = operations::discard_piece(&db, &filter, &by, &reason, after).await?;
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
    Ok(Json(json!({ "discarded": discarded, "complete": complete })).into_response())
}
