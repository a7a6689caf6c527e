//! The list of dead letters: grouped, paged, one by one; and closing them. What puts their jobs back is in `restart`.

use chrono::{DateTime, Utc};
use diesel::sql_types::{
    Array, BigInt, Bytea, Integer, Jsonb, Nullable, Text, Timestamptz, Uuid as SqlUuid,
};
use diesel_async::{AsyncPgConnection, RunQueryDsl as _};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use super::letter_notes::{self, GroupNote};
use super::restart::Candidate;
use super::{Db, DbError, DbResult};

/// Which dead letters.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LetterFilter {
    /// Only these.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ids: Vec<i64>,
    /// Only of this stage; `unknown` for messages that came from elsewhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stage: Option<String>,
    /// Only with this reason.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Only with this normalised error.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub class: Option<String>,
    /// Only those received since.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<DateTime<Utc>>,
    /// Only of this job.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub job: Option<Uuid>,
    /// Only of this owner's jobs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<Uuid>,
    /// Only up to this one: what dies again while one works on a selection is not of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upto: Option<i64>,
    /// Not those of these groups, each a stage, a normalised error and a reason.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub except: Vec<(String, String, String)>,
    /// The closed ones too.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub closed: bool,
}

/// A dead letter.
#[derive(Clone, Debug, diesel::QueryableByName)]
pub struct Letter {
    /// Its number.
    #[diesel(sql_type = BigInt)]
    pub id: i64,
    /// When it came.
    #[diesel(sql_type = Timestamptz)]
    pub received_at: DateTime<Utc>,
    /// The job; none for an undecidable message.
    #[diesel(sql_type = Nullable<SqlUuid>)]
    pub job_id: Option<Uuid>,
    /// How people call the job.
    #[diesel(sql_type = Nullable<Text>)]
    pub job_name: Option<String>,
    /// The stage it died in.
    #[diesel(sql_type = Nullable<Text>)]
    pub stage: Option<String>,
    /// The epoch it died under.
    #[diesel(sql_type = Nullable<BigInt>)]
    pub epoch: Option<i64>,
    /// Why, as a word.
    #[diesel(sql_type = Text)]
    pub reason: String,
    /// Why, for people.
    #[diesel(sql_type = Nullable<Text>)]
    pub error: Option<String>,
    /// The error without what differs from case to case.
    #[diesel(sql_type = Text)]
    pub error_class: String,
    /// Length of the body in bytes.
    #[diesel(sql_type = Nullable<Integer>)]
    pub body_bytes: Option<i32>,
    /// The raw body of an undecidable message; only where one letter is read.
    #[diesel(sql_type = Nullable<Bytea>)]
    pub body: Option<Vec<u8>>,
    /// The broker's headers.
    #[diesel(sql_type = Nullable<Jsonb>)]
    pub headers: Option<Value>,
    /// When it was closed.
    #[diesel(sql_type = Nullable<Timestamptz>)]
    pub resolved_at: Option<DateTime<Utc>>,
    /// How: `replayed`, `retried` or `discarded`.
    #[diesel(sql_type = Nullable<Text>)]
    pub resolution: Option<String>,
    /// By whom.
    #[diesel(sql_type = Nullable<Text>)]
    pub resolved_by: Option<String>,
    /// And why.
    #[diesel(sql_type = Nullable<Text>)]
    pub note: Option<String>,
}

/// Dead letters of one stage with the same normalised error and reason.
#[derive(Clone, Debug, PartialEq, Eq, diesel::QueryableByName)]
pub struct LetterGroup {
    /// The stage; `unknown` for messages that came from elsewhere.
    #[diesel(sql_type = Text)]
    pub stage: String,
    /// The normalised error.
    #[diesel(sql_type = Text)]
    pub error_class: String,
    /// Why, as a word.
    #[diesel(sql_type = Text)]
    pub reason: String,
    /// How many.
    #[diesel(sql_type = BigInt)]
    pub letters: i64,
    /// The first of them.
    #[diesel(sql_type = BigInt)]
    pub first: i64,
    /// When the oldest came.
    #[diesel(sql_type = Timestamptz)]
    pub oldest: DateTime<Utc>,
    /// When the newest came.
    #[diesel(sql_type = Timestamptz)]
    pub newest: DateTime<Utc>,
    /// A [`GroupNote`], if there is one.
    #[diesel(sql_type = Nullable<Jsonb>)]
    pub note: Option<Value>,
}

impl LetterGroup {
    /// What people have found out about it.
    ///
    /// # Errors
    /// When the row cannot be read.
    pub fn read_note(&self) -> DbResult<Option<GroupNote>> {
        let note = self.note.clone().map(serde_json::from_value).transpose();
        note.map_err(|error| DbError::Value(error.to_string()))
    }
}

/// What came of discarding a letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Discarded {
    /// It is closed.
    Discarded,
    /// It was closed before.
    Resolved,
    /// There is no such letter.
    Gone,
}

#[derive(diesel::QueryableByName)]
struct Verdict {
    #[diesel(sql_type = BigInt)]
    id: i64,
    #[diesel(sql_type = Text)]
    verdict: String,
}

#[derive(diesel::QueryableByName)]
struct Newest {
    #[diesel(sql_type = BigInt)]
    id: i64,
}

const COLUMNS: &str = "l.id, l.received_at, l.job_id, \
    (SELECT coalesce(j.display_name, j.original_filename) FROM video_jobs j WHERE j.id = l.job_id) AS job_name, l.stage, l.epoch, l.reason, l.error, l.error_class, \
    length(l.body) AS body_bytes, l.headers, l.resolved_at, l.resolution, l.resolved_by, l.note";

/// The condition of a filter, which is bound as `$1`. That a letter is open stands in the text, so that the partial indexes
/// are used.
fn chosen(filter: &LetterFilter) -> String {
    let mut conditions = vec!["true"];
    let when = |wanted: bool, condition: &'static str| wanted.then_some(condition);
    conditions.extend(
        [
            when(!filter.closed, "l.resolved_at IS NULL"),
            when(
                !filter.ids.is_empty(),
                "l.id IN (SELECT e::bigint FROM jsonb_array_elements_text($1 -> 'ids') e)",
            ),
            when(
                filter.stage.is_some(),
                "coalesce(l.stage, 'unknown') = $1 ->> 'stage'",
            ),
            when(filter.reason.is_some(), "l.reason = $1 ->> 'reason'"),
            when(filter.class.is_some(), "l.error_class = $1 ->> 'class'"),
            when(
                filter.since.is_some(),
                "l.received_at >= ($1 ->> 'since')::timestamptz",
            ),
            when(filter.job.is_some(), "l.job_id = ($1 ->> 'job')::uuid"),
            when(
                filter.user.is_some(),
                "l.job_id IN (SELECT j.id FROM video_jobs j WHERE j.user_id = ($1 ->> 'user')::uuid)",
            ),
            when(filter.upto.is_some(), "l.id <= ($1 ->> 'upto')::bigint"),
            when(
                !filter.except.is_empty(),
                "NOT EXISTS (SELECT FROM jsonb_array_elements($1 -> 'except') e WHERE (e ->> 0, e ->> 1, e ->> 2) \
                 = (coalesce(l.stage, 'unknown'), l.error_class, l.reason))",
            ),
        ]
        .into_iter()
        .flatten(),
    );
    // A filter that names nothing is bound all the same.
    format!("$1::jsonb IS NOT NULL AND {}", conditions.join(" AND "))
}

fn to_json(filter: &LetterFilter) -> DbResult<Value> {
    serde_json::to_value(filter).map_err(|error| DbError::Value(error.to_string()))
}

impl Letter {
    /// The job to put back for it; none for a message that names no job.
    #[must_use]
    pub fn candidate(&self) -> Option<Candidate> {
        Some(Candidate {
            job: self.job_id?,
            letter_epoch: Some(self.epoch?),
        })
    }
}

impl Db {
    /// Groups in the order of (stage, normalised error, reason), those after `after`.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn letter_groups(
        &self,
        filter: &LetterFilter,
        after: Option<&(String, String, String)>,
        limit: i64,
    ) -> DbResult<Vec<LetterGroup>> {
        groups(&mut *self.connection().await?, filter, after, limit).await
    }

    /// A page of letters, newest first, those before `before`. Without their bodies.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn letters(
        &self,
        filter: &LetterFilter,
        before: Option<i64>,
        limit: i64,
    ) -> DbResult<Vec<Letter>> {
        let (page, from) = ("l.id < $2 ORDER BY l.id DESC", before.unwrap_or(i64::MAX));
        page_of(&mut *self.connection().await?, filter, page, from, limit).await
    }

    /// A piece of a selection, oldest first, those after `after`. Without their bodies.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn letters_after(
        &self,
        filter: &LetterFilter,
        after: i64,
        limit: i64,
    ) -> DbResult<Vec<Letter>> {
        after_letter(&mut *self.connection().await?, filter, after, limit).await
    }

    /// One letter with its body, open or closed.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn letter(&self, id: i64) -> DbResult<Option<Letter>> {
        let mut connection = self.connection().await?;
        let rows: Vec<Letter> = diesel::sql_query(format!(
            "SELECT {COLUMNS}, l.body FROM dead_letters l WHERE l.id = $1"
        ))
        .bind::<BigInt, _>(id)
        .load(&mut connection)
        .await?;
        Ok(rows.into_iter().next())
    }

    /// The newest letter there is; 0 when there is none.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn newest_letter(&self) -> DbResult<i64> {
        let mut connection = self.connection().await?;
        let row: Newest = diesel::sql_query("SELECT coalesce(max(id), 0) AS id FROM dead_letters")
            .get_result(&mut connection)
            .await?;
        Ok(row.id)
    }

    /// Closes letters without doing anything for their jobs, which stay failed. Twice is harmless.
    ///
    /// # Errors
    /// When the outcome is not known; discarding again is harmless.
    pub async fn discard_letters(
        &self,
        ids: &[i64],
        by: &str,
        reason: &str,
    ) -> DbResult<Vec<(i64, Discarded)>> {
        discard(&mut *self.connection().await?, ids, by, reason).await
    }
}

/// What [`Db::letter_groups`] reads, on this connection.
pub(super) async fn groups(
    connection: &mut AsyncPgConnection,
    filter: &LetterFilter,
    after: Option<&(String, String, String)>,
    limit: i64,
) -> DbResult<Vec<LetterGroup>> {
    let query = format!(
        "SELECT g.*, (SELECT {note} FROM dead_letter_notes n \
             WHERE (n.stage, n.error_class, n.reason) = (g.stage, g.error_class, g.reason)) AS note FROM ( \
             SELECT coalesce(l.stage, 'unknown') AS stage, l.error_class, l.reason, count(*) AS letters, min(l.id) AS first, \
             min(l.received_at) AS oldest, max(l.received_at) AS newest FROM dead_letters l WHERE {chosen} \
             AND ($2::text IS NULL OR (coalesce(l.stage, 'unknown'), l.error_class, l.reason) > ($2, $3, $4)) \
             GROUP BY 1, 2, 3 ORDER BY 1, 2, 3 LIMIT $5) g ORDER BY 1, 2, 3",
        note = letter_notes::AS_JSON,
        chosen = chosen(filter)
    );
    Ok(diesel::sql_query(query)
        .bind::<Jsonb, _>(to_json(filter)?)
        .bind::<Nullable<Text>, _>(after.map(|(stage, _, _)| stage))
        .bind::<Nullable<Text>, _>(after.map(|(_, class, _)| class))
        .bind::<Nullable<Text>, _>(after.map(|(_, _, reason)| reason))
        .bind::<BigInt, _>(limit)
        .load(connection)
        .await?)
}

/// What [`Db::letters_after`] reads, on this connection.
pub(super) async fn after_letter(
    connection: &mut AsyncPgConnection,
    filter: &LetterFilter,
    after: i64,
    limit: i64,
) -> DbResult<Vec<Letter>> {
    page_of(connection, filter, "l.id > $2 ORDER BY l.id", after, limit).await
}

async fn page_of(
    connection: &mut AsyncPgConnection,
    filter: &LetterFilter,
    page: &str,
    from: i64,
    limit: i64,
) -> DbResult<Vec<Letter>> {
    let query = format!(
        "SELECT {COLUMNS}, NULL::bytea AS body FROM dead_letters l WHERE {} AND {page} LIMIT $3",
        chosen(filter)
    );
    Ok(diesel::sql_query(query)
        .bind::<Jsonb, _>(to_json(filter)?)
        .bind::<BigInt, _>(from)
        .bind::<BigInt, _>(limit)
        .load(connection)
        .await?)
}

/// What [`Db::discard_letters`] does, on this connection.
pub(super) async fn discard(
    connection: &mut AsyncPgConnection,
    ids: &[i64],
    by: &str,
    reason: &str,
) -> DbResult<Vec<(i64, Discarded)>> {
    // Sorted by job, which is the lock order.
    let rows: Vec<Verdict> = diesel::sql_query(
        "SELECT id, discard_letter(id, $2, $3) AS verdict FROM ( \
             SELECT u.id FROM unnest($1) u(id) LEFT JOIN dead_letters l ON l.id = u.id ORDER BY l.job_id OFFSET 0) ordered",
    )
    .bind::<Array<BigInt>, _>(ids)
    .bind::<Text, _>(by)
    .bind::<Text, _>(reason)
    .load(connection)
    .await?;
    rows.into_iter()
        .map(|row| {
            let verdict = match row.verdict.as_str() {
                "discarded" => Discarded::Discarded,
                "resolved" => Discarded::Resolved,
                "gone" => Discarded::Gone,
                other => return Err(DbError::Value(format!("discard verdict `{other}`"))),
            };
            Ok((row.id, verdict))
        })
        .collect()
}
