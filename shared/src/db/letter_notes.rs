//! Notes on groups of dead letters: what people have found out, for whoever looks next. A note is of the group and not of its letters:
//! it stays when they are closed, and is there again when the same fault comes again. Must not change a letter or a job.

use chrono::{DateTime, Utc};
use diesel::OptionalExtension as _;
use diesel::sql_types::{BigInt, Text, Timestamptz};
use diesel_async::{AsyncConnection as _, AsyncPgConnection, RunQueryDsl as _};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::job_actions::record;
use super::{Db, DbError, DbResult};

/// What somebody has found out about a group.
#[derive(
    Clone, Debug, PartialEq, Eq, Serialize, Deserialize, diesel::QueryableByName, utoipa::ToSchema,
)]
pub struct GroupNote {
    /// In their words.
    #[diesel(sql_type = Text)]
    pub text: String,
    /// Who.
    #[diesel(sql_type = Text)]
    pub by: String,
    /// When.
    #[diesel(sql_type = Timestamptz)]
    pub at: DateTime<Utc>,
    /// Another one with every change.
    #[diesel(sql_type = BigInt)]
    pub version: i64,
}

/// A change of the note on a group.
#[derive(Clone, Debug)]
pub struct NoteChange {
    /// A dead letter of the group, open or closed.
    pub letter: i64,
    /// The new note; none removes it.
    pub text: Option<String>,
    /// What has to be there for it.
    pub if_note: IfNote,
    /// Who.
    pub by: String,
}

/// Which note a change is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IfNote {
    /// Whatever is there, or nothing.
    Any,
    /// Any note.
    Present,
    /// None.
    Absent,
    /// The one of this version.
    Version(i64),
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Noted {
    /// This is the note now.
    Now(Option<GroupNote>),
    /// Somebody has changed it since that version; nothing was done.
    Outdated,
    /// There is no such dead letter.
    Gone,
}

#[derive(diesel::QueryableByName)]
struct Group {
    #[diesel(sql_type = Text)]
    stage: String,
    #[diesel(sql_type = Text)]
    class: String,
    #[diesel(sql_type = Text)]
    reason: String,
}

/// A note (`n`) as JSON, as [`GroupNote`] reads it.
pub(super) const AS_JSON: &str =
    "jsonb_build_object('text', n.note, 'by', n.noted_by, 'at', n.noted_at, 'version', n.version)";

const NOTE: &str = "SELECT n.note AS text, n.noted_by AS by, n.noted_at AS at, n.version FROM dead_letter_notes n \
    WHERE (n.stage, n.error_class, n.reason) = ($1, $2, $3)";

impl Db {
    /// The note on the group of a dead letter, open or closed.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn group_note(&self, letter: i64) -> DbResult<Option<GroupNote>> {
        let mut connection = self.connection().await?;
        match group(&mut connection, letter).await? {
            Some(group) => note(&mut connection, &group).await,
            None => Ok(None),
        }
    }

    /// Writes or removes the note on the group of a dead letter, and says so in the operators' trail.
    ///
    /// # Errors
    /// When the outcome is not known; doing it again is harmless.
    pub async fn note_group(&self, change: &NoteChange) -> DbResult<Noted> {
        let mut connection = self.connection().await?;
        let noted = connection.transaction(async |connection| write(connection, change).await);
        noted.await
    }
}

async fn write(connection: &mut AsyncPgConnection, change: &NoteChange) -> DbResult<Noted> {
    let Some(group) = group(connection, change.letter).await? else {
        return Ok(Noted::Gone);
    };
    // People write here: one at a time, so that what is compared stays true. Reading goes on.
    diesel::sql_query("LOCK TABLE dead_letter_notes IN SHARE ROW EXCLUSIVE MODE")
        .execute(connection)
        .await?;
    let before = note(connection, &group).await?;
    let version = before.as_ref().map(|note| note.version);
    let is_outdated = match change.if_note {
        IfNote::Any => false,
        IfNote::Present => version.is_none(),
        IfNote::Absent => version.is_some(),
        IfNote::Version(wanted) => version != Some(wanted),
    };
    if is_outdated {
        return Ok(Noted::Outdated);
    }
    let changed = match &change.text {
        Some(text) => {
            diesel::sql_query(
                "INSERT INTO dead_letter_notes (stage, error_class, reason, note, noted_by) VALUES ($1, $2, $3, $4, $5) \
                 ON CONFLICT (stage, error_class, reason) DO UPDATE SET note = excluded.note, noted_by = excluded.noted_by, \
                     noted_at = excluded.noted_at, version = DEFAULT",
            )
            .bind::<Text, _>(&group.stage)
            .bind::<Text, _>(&group.class)
            .bind::<Text, _>(&group.reason)
            .bind::<Text, _>(text)
            .bind::<Text, _>(&change.by)
            .execute(connection)
            .await?
        }
        None => {
            diesel::sql_query(
                "DELETE FROM dead_letter_notes WHERE (stage, error_class, reason) = ($1, $2, $3)",
            )
            .bind::<Text, _>(&group.stage)
            .bind::<Text, _>(&group.class)
            .bind::<Text, _>(&group.reason)
            .execute(connection)
            .await?
        }
    };
    if changed > 0 {
        let detail = json!({
            "filter": { "stage": group.stage, "class": group.class, "reason": group.reason },
            "was": before.as_ref().map(|note| &note.text),
        });
        let was = || before.map_or_else(String::new, |note| format!("it was: {}", note.text));
        let (action, reason) = match &change.text {
            Some(text) => ("dead_letters_noted", text.clone()),
            None => ("dead_letters_note_removed", was()),
        };
        let reason = reason.replace('\n', " ");
        record(
            connection,
            action,
            "dead_letters",
            &change.by,
            &reason,
            &detail,
        )
        .await?;
    }
    Ok::<_, DbError>(Noted::Now(note(connection, &group).await?))
}

async fn group(connection: &mut AsyncPgConnection, letter: i64) -> DbResult<Option<Group>> {
    Ok(diesel::sql_query(
        "SELECT coalesce(stage, 'unknown') AS stage, error_class AS class, reason FROM dead_letters WHERE id = $1",
    )
    .bind::<BigInt, _>(letter)
    .get_result(connection)
    .await
    .optional()?)
}

async fn note(connection: &mut AsyncPgConnection, group: &Group) -> DbResult<Option<GroupNote>> {
    Ok(diesel::sql_query(NOTE)
        .bind::<Text, _>(&group.stage)
        .bind::<Text, _>(&group.class)
        .bind::<Text, _>(&group.reason)
        .get_result(connection)
        .await
        .optional()?)
}
