//! What operators do to jobs by name: cancel, resume, and retry if nothing has happened to the job since they looked; and the trail of
//! what they do to many at once. What a job becomes is decided by SQL functions of the migrations, and for a retry by `restart`.

use diesel::sql_types::{Array, Jsonb, Text, Uuid as SqlUuid};
use diesel_async::{AsyncConnection as _, AsyncPgConnection, RunQueryDsl as _};
use serde_json::Value;
use uuid::Uuid;

use super::restart::{Candidate, Pace, Plan, RestartOrder, restart};
use super::{Db, DbError, DbResult};
use crate::crash::{self, Point};

/// What came of canceling a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Canceled {
    /// It has ended; a work that is paid for is followed by the ledger sweep.
    Now,
    /// It is canceled; its stage stays until the outcome of a submission is known.
    Following,
    /// It was canceled before.
    Before,
    /// It had ended in this status.
    Finished(String),
    /// There is no such job.
    Gone,
}

/// What came of resuming a job that is parked, or waits for its time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resumed {
    /// It is due now.
    Now,
    /// It stays as it is, in this state.
    Stays(String),
    /// It is over.
    Over,
    /// There is no such job.
    Gone,
}

#[derive(diesel::QueryableByName)]
struct Verdict {
    #[diesel(sql_type = SqlUuid)]
    id: Uuid,
    #[diesel(sql_type = Text)]
    verdict: String,
}

#[derive(diesel::QueryableByName)]
struct Version {
    #[diesel(sql_type = Text)]
    version: String,
}

/// The newest line of a job's trail, 0 where it has none, and its status, which other applications may change without a line.
const VERSION: &str = "\
    SELECT concat_ws('-', coalesce((SELECT max(id) FROM job_events WHERE job_id = $1), 0), \
        (SELECT coalesce(status, 'queued') FROM video_jobs WHERE id = $1)) AS version";

impl Db {
    /// The version of a job: another one with every line of its trail, and with its status. Not with every poll, nor when it is sent out.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn job_version(&self, job: Uuid) -> DbResult<String> {
        let mut connection = self.connection().await?;
        let row: Version = diesel::sql_query(VERSION)
            .bind::<SqlUuid, _>(job)
            .get_result(&mut connection)
            .await?;
        Ok(row.version)
    }

    /// [`Db::cancel_jobs`] of one, if it still has this version; none: it has another one.
    ///
    /// # Errors
    /// When the outcome is not known; canceling again is harmless.
    pub async fn cancel_job(
        &self,
        job: Uuid,
        if_version: Option<&str>,
        by: &str,
        reason: &str,
    ) -> DbResult<Option<Canceled>> {
        let mut connection = self.connection().await?;
        let done = connection.transaction(async |connection| {
            if is_outdated(connection, job, if_version).await? {
                return Ok(None);
            }
            let done = cancel(connection, &[job], by, reason).await?.pop();
            Ok::<_, DbError>(Some(done.map_or(Canceled::Gone, |(_, canceled)| canceled)))
        });
        done.await
    }

    /// [`Db::resume_jobs`] of one, if it still has this version; none: it has another one.
    ///
    /// # Errors
    /// When the outcome is not known; resuming again is harmless.
    pub async fn resume_job(
        &self,
        job: Uuid,
        if_version: Option<&str>,
        by: &str,
        reason: &str,
    ) -> DbResult<Option<Resumed>> {
        let mut connection = self.connection().await?;
        let done = connection.transaction(async |connection| {
            if is_outdated(connection, job, if_version).await? {
                return Ok(None);
            }
            let done = resume(connection, &[job], by, reason).await?.pop();
            Ok::<_, DbError>(Some(done.map_or(Resumed::Gone, |(_, resumed)| resumed)))
        });
        done.await
    }

    /// [`Db::restart`] of one as a retry, if it still has this version; none: it has another one.
    ///
    /// # Errors
    /// When the outcome is not known; doing it again is harmless.
    pub async fn retry_job(
        &self,
        order: &RestartOrder,
        job: Uuid,
        if_version: Option<&str>,
    ) -> DbResult<Option<Vec<Plan>>> {
        let candidates = [Candidate {
            job,
            letter_epoch: None,
        }];
        let mut connection = self.connection().await?;
        let done = connection.transaction(async |connection| {
            if is_outdated(connection, job, if_version).await? {
                return Ok(None);
            }
            let plans = restart(connection, order, &candidates, &mut Pace::default()).await?;
            Ok::<_, DbError>(Some(plans))
        });
        done.await
    }

    /// Cancels jobs, whatever stage they are in. Twice is harmless; a finished job stays as it is.
    ///
    /// # Errors
    /// When the outcome is not known; canceling again is harmless.
    pub async fn cancel_jobs(
        &self,
        jobs: &[Uuid],
        by: &str,
        reason: &str,
    ) -> DbResult<Vec<(Uuid, Canceled)>> {
        cancel(&mut *self.connection().await?, jobs, by, reason).await
    }

    /// Makes parked jobs due now, in the stage where they stand. Twice is harmless.
    ///
    /// # Errors
    /// When the outcome is not known; resuming again is harmless.
    pub async fn resume_jobs(
        &self,
        jobs: &[Uuid],
        by: &str,
        reason: &str,
    ) -> DbResult<Vec<(Uuid, Resumed)>> {
        resume(&mut *self.connection().await?, jobs, by, reason).await
    }

    /// Notes in the operators' trail what is about to be done to many at once; what was done to each job is in its own.
    ///
    /// # Errors
    /// Then it is not to be done.
    pub async fn note_operation(
        &self,
        by: &str,
        reason: &str,
        action: &str,
        subject: &str,
        detail: &Value,
    ) -> DbResult<()> {
        let mut connection = self.connection().await?;
        record(&mut connection, action, subject, by, reason, detail).await?;
        crash::point(Point::OperationNoted);
        Ok(())
    }
}

/// Whether something has happened to a job since it had this version. Locks it, so that nothing does until the transaction ends.
async fn is_outdated(
    connection: &mut AsyncPgConnection,
    job: Uuid,
    if_version: Option<&str>,
) -> DbResult<bool> {
    let Some(wanted) = if_version else {
        return Ok(false);
    };
    // What moves a job locks it before it writes into its trail.
    let locked = diesel::sql_query("SELECT FROM video_jobs WHERE id = $1 FOR UPDATE")
        .bind::<SqlUuid, _>(job)
        .execute(connection)
        .await?;
    if locked == 0 {
        // That it is gone is what there is to say.
        return Ok(false);
    }
    let found: Version = diesel::sql_query(VERSION)
        .bind::<SqlUuid, _>(job)
        .get_result(connection)
        .await?;
    Ok(found.version != wanted)
}

pub(super) async fn cancel(
    connection: &mut AsyncPgConnection,
    jobs: &[Uuid],
    by: &str,
    reason: &str,
) -> DbResult<Vec<(Uuid, Canceled)>> {
    let read = |verdict: String| match verdict.as_str() {
        "now" => Canceled::Now,
        "following" => Canceled::Following,
        "canceled" => Canceled::Before,
        "gone" => Canceled::Gone,
        _ => Canceled::Finished(verdict),
    };
    let verdicts = each_job(connection, "cancel_job", jobs, by, reason).await?;
    let read = |row: Verdict| (row.id, read(row.verdict));
    Ok(verdicts.into_iter().map(read).collect())
}

pub(super) async fn resume(
    connection: &mut AsyncPgConnection,
    jobs: &[Uuid],
    by: &str,
    reason: &str,
) -> DbResult<Vec<(Uuid, Resumed)>> {
    let read = |verdict: String| match verdict.as_str() {
        "resumed" => Resumed::Now,
        "over" => Resumed::Over,
        "gone" => Resumed::Gone,
        _ => Resumed::Stays(verdict),
    };
    let verdicts = each_job(connection, "resume_job", jobs, by, reason).await?;
    let read = |row: Verdict| (row.id, read(row.verdict));
    Ok(verdicts.into_iter().map(read).collect())
}

/// In the order of ids, which is the lock order, and in one transaction.
async fn each_job(
    connection: &mut AsyncPgConnection,
    function: &str,
    jobs: &[Uuid],
    by: &str,
    reason: &str,
) -> DbResult<Vec<Verdict>> {
    let query = format!(
        "SELECT id, {function}(id, $2, $3) AS verdict \
         FROM (SELECT DISTINCT u.id FROM unnest($1) u(id) ORDER BY u.id OFFSET 0) ordered"
    );
    Ok(diesel::sql_query(query)
        .bind::<Array<SqlUuid>, _>(jobs)
        .bind::<Text, _>(by)
        .bind::<Text, _>(reason)
        .load(connection)
        .await?)
}

/// A line of the operators' trail.
pub(super) async fn record(
    connection: &mut AsyncPgConnection,
    action: &str,
    subject: &str,
    by: &str,
    reason: &str,
    detail: &Value,
) -> diesel::QueryResult<()> {
    diesel::sql_query(
        "INSERT INTO operator_events (actor, reason, action, subject, detail) VALUES ($1, $2, $3, $4, $5)",
    )
    .bind::<Text, _>(by)
    .bind::<Text, _>(reason)
    .bind::<Text, _>(action)
    .bind::<Text, _>(subject)
    .bind::<Jsonb, _>(detail)
    .execute(connection)
    .await?;
    Ok(())
}
