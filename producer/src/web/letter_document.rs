//! What clients see of a dead letter. Texts lose the query strings of their URLs, raw bodies too.

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::Value;
use shared::db::{DbResult, GroupNote, Letter, LetterGroup};
use utoipa::ToSchema;
use uuid::Uuid;

use super::document::{redacted, redacted_json, utc};

/// A dead letter.
#[derive(Debug, Serialize, ToSchema)]
pub struct LetterDocument {
    /// Its number.
    pub id: i64,
    /// When it came.
    #[schema(format = DateTime)]
    pub received_at: String,
    /// The stage it died in; `unknown` for a message that came from elsewhere.
    pub stage: String,
    /// Why, as a word.
    pub reason: String,
    /// Why, for people.
    pub error: Option<String>,
    /// The error without what differs from case to case.
    pub class: String,
    /// The job it is about.
    pub job_id: Option<Uuid>,
    /// How people call the job; null when it is gone.
    pub job_name: Option<String>,
    /// The raw body of a message that says nothing; in lists its length only.
    pub body: Option<BodyDocument>,
    /// The broker's headers.
    pub headers: Option<Value>,
    /// How it was closed.
    pub resolution: Option<String>,
    /// When.
    #[schema(format = DateTime)]
    pub resolved_at: Option<String>,
    /// By whom.
    pub resolved_by: Option<String>,
    /// And why.
    pub resolved_reason: Option<String>,
    /// What people have found out about its group; in lists it is with the groups.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<GroupNote>,
}

/// Dead letters of one stage with the same normalised error and reason.
#[derive(Debug, Serialize, ToSchema)]
pub struct GroupDocument {
    /// The stage; `unknown` for messages that came from elsewhere.
    pub stage: String,
    /// The normalised error.
    pub class: String,
    /// Why, as a word.
    pub reason: String,
    /// How many.
    pub letters: i64,
    /// The first of them.
    pub first: i64,
    /// When the oldest came.
    pub oldest: DateTime<Utc>,
    /// When the newest came.
    pub newest: DateTime<Utc>,
    /// What people have found out about it; older than `oldest`: when the same fault was there before.
    pub note: Option<GroupNote>,
}

impl GroupDocument {
    /// Of a row.
    ///
    /// # Errors
    /// When its note cannot be read.
    pub fn new(group: LetterGroup) -> DbResult<Self> {
        Ok(Self {
            note: group.read_note()?,
            stage: group.stage,
            class: group.error_class,
            reason: group.reason,
            letters: group.letters,
            first: group.first,
            oldest: group.oldest,
            newest: group.newest,
        })
    }
}

/// A raw body: as text where it is text, else in hexadecimal.
#[derive(Debug, Serialize, ToSchema)]
pub struct BodyDocument {
    /// Its length.
    pub bytes: i32,
    /// As text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// In hexadecimal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hex: Option<String>,
}

impl BodyDocument {
    fn new(bytes: i32, body: Option<Vec<u8>>) -> Self {
        let (mut text, mut hex) = (None, None);
        match body.map(String::from_utf8) {
            // Nothing that a terminal would obey.
            Some(Ok(body)) if !body.chars().any(|c| c.is_control() && !c.is_whitespace()) => {
                text = Some(redacted(body));
            }
            Some(Ok(body)) => hex = Some(in_hex(body.as_bytes())),
            Some(Err(error)) => hex = Some(in_hex(error.as_bytes())),
            None => {}
        }
        Self { bytes, text, hex }
    }
}

fn in_hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        // Writing into a string cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

impl LetterDocument {
    /// Of a row.
    #[must_use]
    pub fn new(letter: Letter) -> Self {
        let body = letter.body;
        Self {
            id: letter.id,
            received_at: utc(letter.received_at),
            stage: letter.stage.unwrap_or_else(|| "unknown".to_owned()),
            reason: letter.reason,
            error: letter.error.map(redacted),
            class: letter.error_class,
            job_id: letter.job_id,
            job_name: letter.job_name,
            body: letter
                .body_bytes
                .map(|bytes| BodyDocument::new(bytes, body)),
            headers: letter.headers.map(redacted_json),
            resolution: letter.resolution,
            resolved_at: letter.resolved_at.map(utc),
            resolved_by: letter.resolved_by,
            resolved_reason: letter.note,
            note: None,
        }
    }

    /// The same with what people have found out about its group.
    #[must_use]
    pub fn with_note(self, note: Option<GroupNote>) -> Self {
        Self { note, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_are_shown_as_what_they_are() {
        let shown = |body: &[u8]| {
            let document = BodyDocument::new(0, Some(body.to_vec()));
            (
                document.text.unwrap_or_default(),
                document.hex.unwrap_or_default(),
            )
        };
        let text = |text: &str| (text.to_owned(), String::new());
        let hex = |hex: &str| (String::new(), hex.to_owned());
        assert_eq!(shown(b"not\nJSON"), text("not\nJSON"));
        assert_eq!(
            shown(b"https://a.example/?sig=S"),
            text("https://a.example/?[redacted]")
        );
        assert_eq!(shown(&[0xff, 0x00]), hex("ff00"));
        assert_eq!(shown(b"\x1b[2J"), hex("1b5b324a"), "no control sequences");
    }
}
