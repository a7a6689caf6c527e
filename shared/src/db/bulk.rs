//! Operations on many jobs or dead letters: begun, read, stopped, let go on. What a piece does is in `pieces`. A piece is one
//! transaction: it locks the operation's row, which keeps every other producer from it, looks at the next of the selection, does
//! what is to be done to each, and writes how far it has come. So one that is killed has done nothing of its piece, and whoever
//! comes next does it.

mod pieces;

use chrono::{DateTime, Utc};
use diesel::sql_types::{
    Array, BigInt, Bool, Integer, Jsonb, Nullable, Text, Timestamptz, Uuid as SqlUuid,
};
use diesel::{OptionalExtension as _, QueryableByName};
use diesel_async::{AsyncConnection as _, AsyncPgConnection, RunQueryDsl as _};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use uuid::Uuid;

use super::job_actions::record;
use super::letters::LetterFilter;
use super::{Db, DbError, DbResult};
use crate::domain::bulk::{BulkAction, BulkState, Canary, CanaryJob, CanaryOutcome};

/// Most groups of a replay with canaries.
pub const MAX_GROUPS: i64 = 200;

/// Most jobs of an operation whose ends are counted.
pub const MAX_ENDS: i64 = 10_000;

/// An operation that is to begin.
#[derive(Clone, Debug)]
pub struct NewOperation<'a> {
    /// What is done to each.
    pub action: BulkAction,
    /// To which: a [`super::JobFilter`] or a [`LetterFilter`].
    pub filter: Value,
    /// Who.
    pub by: &'a str,
    /// Why.
    pub reason: &'a str,
    /// One more paid attempt than the bound allows, where a job needs it.
    pub another_attempt: bool,
    /// Replay one of each group first, and wait for somebody who lets it go on.
    pub canary: bool,
    /// At most so many are changed in a minute.
    pub per_minute: Option<i32>,
    /// How many there are now.
    pub total: i64,
    /// At least so many.
    pub capped: bool,
}

/// An operation.
#[derive(Clone, Debug, QueryableByName)]
pub struct OperationRow {
    /// Its number.
    #[diesel(sql_type = BigInt)]
    pub id: i64,
    /// A word of [`BulkAction`].
    #[diesel(sql_type = Text)]
    pub action: String,
    /// To which: a [`super::JobFilter`] or a [`LetterFilter`].
    #[diesel(sql_type = Jsonb)]
    pub filter: Value,
    /// Who.
    #[diesel(sql_type = Text)]
    pub actor: String,
    /// Why.
    #[diesel(sql_type = Text)]
    pub reason: String,
    /// One more paid attempt than the bound allows, where a job needs it.
    #[diesel(sql_type = Bool)]
    pub another_attempt: bool,
    /// Replay one of each group first.
    #[diesel(sql_type = Bool)]
    pub canary: bool,
    /// At most so many are changed in a minute.
    #[diesel(sql_type = Nullable<Integer>)]
    pub per_minute: Option<i32>,
    /// A word of [`BulkState`].
    #[diesel(sql_type = Text)]
    pub state: String,
    /// How many there were when it began.
    #[diesel(sql_type = BigInt)]
    pub total: i64,
    /// At least so many.
    #[diesel(sql_type = Bool)]
    pub capped: bool,
    /// Looked at.
    #[diesel(sql_type = BigInt)]
    pub done: i64,
    /// Changed.
    #[diesel(sql_type = BigInt)]
    pub changed: i64,
    /// Those that were not, by why.
    #[diesel(sql_type = Jsonb)]
    pub refused: Value,
    /// Where it goes on.
    #[diesel(sql_type = Nullable<Jsonb>)]
    pub position: Option<Value>,
    /// [`Canary`]s, once they are replayed.
    #[diesel(sql_type = Nullable<Jsonb>)]
    pub canaries: Option<Value>,
    /// When it began.
    #[diesel(sql_type = Timestamptz)]
    pub created_at: DateTime<Utc>,
    /// When its last piece was done, or somebody steered it.
    #[diesel(sql_type = Timestamptz)]
    pub updated_at: DateTime<Utc>,
    /// When it was over.
    #[diesel(sql_type = Nullable<Timestamptz>)]
    pub finished_at: Option<DateTime<Utc>>,
    /// Why it failed.
    #[diesel(sql_type = Nullable<Text>)]
    pub error: Option<String>,
}

/// What a piece came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// How many were changed.
    pub changed: i64,
    /// How the operation stands now.
    pub state: BulkState,
}

/// What became of the jobs that an operation has put back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, QueryableByName, utoipa::ToSchema)]
pub struct Ends {
    /// Completed.
    #[diesel(sql_type = BigInt)]
    pub completed: i64,
    /// Failed again; those that were given up are among the dead letters.
    #[diesel(sql_type = BigInt)]
    pub failed: i64,
    /// Canceled.
    #[diesel(sql_type = BigInt)]
    pub canceled: i64,
    /// On their way.
    #[diesel(sql_type = BigInt)]
    pub unfinished: i64,
}

/// What came of stopping an operation or letting it go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Steered {
    /// It is done.
    Yes,
    /// It stands otherwise: this word of [`BulkState`].
    Not(String),
    /// There is no such operation.
    Gone,
}

#[derive(QueryableByName)]
struct Id {
    #[diesel(sql_type = BigInt)]
    id: i64,
}

#[derive(QueryableByName)]
struct CanaryRow {
    #[diesel(sql_type = SqlUuid)]
    id: Uuid,
    #[diesel(sql_type = Nullable<Text>)]
    status: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    stage: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    state: Option<String>,
}

fn read<T: DeserializeOwned>(value: &Value) -> DbResult<T> {
    serde_json::from_value(value.clone()).map_err(|error| DbError::Value(error.to_string()))
}

fn write(value: &impl Serialize) -> DbResult<Value> {
    serde_json::to_value(value).map_err(|error| DbError::Value(error.to_string()))
}

impl OperationRow {
    /// Its canaries; none before they are replayed.
    ///
    /// # Errors
    /// When the row cannot be read.
    pub fn read_canaries(&self) -> DbResult<Option<Vec<Canary>>> {
        self.canaries.as_ref().map(read).transpose()
    }
}

impl Db {
    /// Stores an operation, which then goes on by itself, and notes it in the operators' trail.
    ///
    /// # Errors
    /// Then there is none.
    pub async fn begin_operation(&self, new: &NewOperation<'_>) -> DbResult<i64> {
        let mut connection = self.connection().await?;
        let begun = connection.transaction(async |connection| {
            let begun: Id = diesel::sql_query(
                "INSERT INTO operations (action, filter, actor, reason, another_attempt, canary, per_minute, total, capped) \
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) RETURNING id",
            )
            .bind::<Text, _>(new.action.as_str())
            .bind::<Jsonb, _>(&new.filter)
            .bind::<Text, _>(new.by)
            .bind::<Text, _>(new.reason)
            .bind::<Bool, _>(new.another_attempt)
            .bind::<Bool, _>(new.canary)
            .bind::<Nullable<Integer>, _>(new.per_minute)
            .bind::<BigInt, _>(new.total)
            .bind::<Bool, _>(new.capped)
            .get_result(connection)
            .await?;
            let detail = json!({ "filter": new.filter, "total": new.total });
            let (word, subject) = (new.action.trail_word(), subject(begun.id));
            record(connection, word, &subject, new.by, new.reason, &detail).await?;
            Ok::<_, DbError>(begun.id)
        });
        begun.await
    }

    /// One operation.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn operation(&self, id: i64) -> DbResult<Option<OperationRow>> {
        let mut connection = self.connection().await?;
        let rows =
            diesel::sql_query("SELECT * FROM operations WHERE id = $1").bind::<BigInt, _>(id);
        Ok(rows.get_result(&mut connection).await.optional()?)
    }

    /// A page of operations, newest first, those before `before`.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn operations(&self, before: Option<i64>, limit: i64) -> DbResult<Vec<OperationRow>> {
        let mut connection = self.connection().await?;
        Ok(
            diesel::sql_query("SELECT * FROM operations WHERE id < $1 ORDER BY id DESC LIMIT $2")
                .bind::<BigInt, _>(before.unwrap_or(i64::MAX))
                .bind::<BigInt, _>(limit)
                .load(&mut connection)
                .await?,
        )
    }

    /// The operations whose next piece is due, longest due first.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn due_operations(&self) -> DbResult<Vec<i64>> {
        let mut connection = self.connection().await?;
        let due: Vec<Id> = diesel::sql_query(
            "SELECT id FROM operations WHERE state = 'running' AND due_at <= clock_timestamp() ORDER BY due_at LIMIT 100",
        )
        .load(&mut connection)
        .await?;
        Ok(due.into_iter().map(|row| row.id).collect())
    }

    /// Does the next piece of an operation. `None`: it is not due any more, or another producer does it now.
    ///
    /// # Errors
    /// Then nothing of the piece is done, unless the answer to the commit was lost; then the next one goes on after it.
    pub async fn operation_piece(&self, id: i64) -> DbResult<Option<Piece>> {
        let mut connection = self.connection().await?;
        let done = connection.transaction(async |connection| {
            // SKIP LOCKED: whoever holds the row does the piece.
            let row: Option<OperationRow> = diesel::sql_query(
                "SELECT * FROM operations WHERE id = $1 AND state = 'running' AND due_at <= clock_timestamp() \
                 FOR UPDATE SKIP LOCKED",
            )
            .bind::<BigInt, _>(id)
            .get_result(connection)
            .await
            .optional()?;
            let Some(operation) = row else {
                return Ok(None);
            };
            Ok::<_, DbError>(Some(pieces::next(connection, &operation).await?))
        });
        done.await
    }

    /// Ends an operation that met an error which does not pass. Nothing when it is over already.
    ///
    /// # Errors
    /// When the database is away; then it is tried again.
    pub async fn fail_operation(&self, id: i64, error: &str) -> DbResult<()> {
        let mut connection = self.connection().await?;
        diesel::sql_query(
            "UPDATE operations SET state = 'failed', error = $2, finished_at = clock_timestamp(), updated_at = clock_timestamp() \
             WHERE id = $1 AND state = 'running'",
        )
        .bind::<BigInt, _>(id)
        .bind::<Text, _>(error)
        .execute(&mut connection)
        .await?;
        Ok(())
    }

    /// Stops an operation. When this has returned nothing of it is done any more; what was done stays done.
    ///
    /// # Errors
    /// When the outcome is not known; stopping again is harmless.
    pub async fn stop_operation(&self, id: i64, by: &str, reason: &str) -> DbResult<Steered> {
        let mut connection = self.connection().await?;
        let steered = connection.transaction(async |connection| {
            // Waits for the piece that is being done.
            let Some(operation) = locked(connection, id).await? else {
                return Ok(Steered::Gone);
            };
            if !matches!(operation.state.parse()?, BulkState::Running | BulkState::Awaiting) {
                return Ok(Steered::Not(operation.state));
            }
            diesel::sql_query(
                "UPDATE operations SET state = 'stopped', finished_at = clock_timestamp(), updated_at = clock_timestamp() \
                 WHERE id = $1",
            )
            .bind::<BigInt, _>(id)
            .execute(connection)
            .await?;
            let detail = json!({ "done": operation.done, "changed": operation.changed });
            record(connection, "operation_stopped", &subject(id), by, reason, &detail).await?;
            Ok::<_, DbError>(Steered::Yes)
        });
        steered.await
    }

    /// Lets an operation go on whose canaries were looked at, not before they have used up the time that its pace gives them. Groups
    /// whose canary died again are left alone.
    ///
    /// # Errors
    /// When the outcome is not known; then it may go on already.
    pub async fn continue_operation(&self, id: i64, by: &str, reason: &str) -> DbResult<Steered> {
        let mut connection = self.connection().await?;
        let steered = connection.transaction(async |connection| {
            let Some(operation) = locked(connection, id).await? else {
                return Ok(Steered::Gone);
            };
            if operation.state != BulkState::Awaiting.as_str() {
                return Ok(Steered::Not(operation.state));
            }
            let canaries = operation.read_canaries()?.unwrap_or_default();
            let outcomes = outcomes(connection, &canaries).await?;
            let mut filter: LetterFilter = read(&operation.filter)?;
            for (canary, outcome) in canaries.into_iter().zip(outcomes) {
                if outcome == CanaryOutcome::DeadAgain {
                    filter
                        .except
                        .push((canary.stage, canary.class, canary.reason));
                }
            }
            diesel::sql_query(
                "UPDATE operations SET state = 'running', filter = $2, due_at = greatest(due_at, clock_timestamp()), \
                     updated_at = clock_timestamp() WHERE id = $1",
            )
            .bind::<BigInt, _>(id)
            .bind::<Jsonb, _>(write(&filter)?)
            .execute(connection)
            .await?;
            let detail = json!({ "except": filter.except });
            record(
                connection,
                "operation_continued",
                &subject(id),
                by,
                reason,
                &detail,
            )
            .await?;
            Ok::<_, DbError>(Steered::Yes)
        });
        steered.await
    }

    /// What became of the jobs that an operation has put back, the first [`MAX_ENDS`] of them. None: it puts nothing back.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn operation_ends(&self, operation: &OperationRow) -> DbResult<Option<Ends>> {
        if !matches!(
            operation.action.parse()?,
            BulkAction::Replay | BulkAction::Retry
        ) {
            return Ok(None);
        }
        let query = format!(
            "SELECT count(*) FILTER (WHERE j.status = 'completed') AS completed, count(*) FILTER (WHERE j.status = 'failed') AS failed, \
                 count(*) FILTER (WHERE j.status = 'canceled') AS canceled, \
                 count(*) FILTER (WHERE j.status NOT IN ('completed', 'failed', 'canceled')) AS unfinished \
             FROM (SELECT DISTINCT job_id FROM job_events WHERE kind IN ('replayed', 'retried') AND at BETWEEN $1 AND $2 \
                   AND (detail ->> 'operation')::bigint = $3 LIMIT {MAX_ENDS}) put_back JOIN video_jobs j ON j.id = put_back.job_id"
        );
        let mut connection = self.connection().await?;
        let ends = diesel::sql_query(query)
            .bind::<Timestamptz, _>(operation.created_at)
            .bind::<Timestamptz, _>(operation.updated_at)
            .bind::<BigInt, _>(operation.id)
            .get_result(&mut connection)
            .await?;
        Ok(Some(ends))
    }

    /// What became of canaries, in their order.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn canary_outcomes(&self, canaries: &[Canary]) -> DbResult<Vec<CanaryOutcome>> {
        outcomes(&mut *self.connection().await?, canaries).await
    }
}

/// What the operators' trail calls an operation.
fn subject(id: i64) -> String {
    format!("operation/{id}")
}

async fn locked(connection: &mut AsyncPgConnection, id: i64) -> DbResult<Option<OperationRow>> {
    let row = diesel::sql_query("SELECT * FROM operations WHERE id = $1 FOR UPDATE")
        .bind::<BigInt, _>(id);
    Ok(row.get_result(connection).await.optional()?)
}

async fn outcomes(
    connection: &mut AsyncPgConnection,
    canaries: &[Canary],
) -> DbResult<Vec<CanaryOutcome>> {
    let jobs: Vec<Uuid> = canaries.iter().map(|canary| canary.job).collect();
    let rows: Vec<CanaryRow> = diesel::sql_query(
        "SELECT j.id, coalesce(j.status, 'queued') AS status, st.stage, st.state \
         FROM video_jobs j LEFT JOIN job_stages st ON st.job_id = j.id WHERE j.id = ANY($1)",
    )
    .bind::<Array<SqlUuid>, _>(&jobs)
    .load(connection)
    .await?;
    let outcome = |canary: &Canary| {
        let row = rows.iter().find(|row| row.id == canary.job);
        let stage = row.and_then(|row| Some((row.stage.as_ref()?, row.state.as_ref()?)));
        let stage = stage.map(|(stage, state)| Ok::<_, DbError>((stage.parse()?, state.parse()?)));
        let status = row.and_then(|row| row.status.as_ref()?.parse().ok());
        Ok(canary.outcome(CanaryJob {
            status,
            stage: stage.transpose()?,
        }))
    };
    canaries.iter().map(outcome).collect()
}
