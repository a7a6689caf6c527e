//! What an audit reads of the ledger, writes into it, and leaves behind.

use std::time::Duration;

use chrono::{DateTime, Utc};
use diesel::sql_types::{
    Array, BigInt, Bool, Integer, Jsonb, Nullable, Text, Timestamptz, Uuid as SqlUuid,
};
use diesel::{OptionalExtension as _, QueryableByName};
use diesel_async::{AsyncConnection as _, RunQueryDsl as _};
use serde::Serialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::dispatch::millis;
use super::job_actions::record;
use super::protocol::{Settlement, Verdict, to_json};
use super::{Db, DbError, DbResult};
use crate::domain::Vendor;
use crate::domain::audit::{Booked, Comparison};

/// An audit that begins.
#[derive(Clone, Debug)]
pub struct NewAudit<'a> {
    /// Works taken by the vendors from then on are compared.
    pub since: DateTime<Utc>,
    /// Who.
    pub by: &'a str,
    /// Why.
    pub reason: &'a str,
    /// Whether the ledger is corrected.
    pub repair: bool,
}

/// An audit that was begun.
#[derive(Clone, Debug, Serialize, QueryableByName, utoipa::ToSchema)]
pub struct AuditRecord {
    /// Its number.
    #[diesel(sql_type = BigInt)]
    pub id: i64,
    /// When it began.
    #[diesel(sql_type = Timestamptz)]
    pub started_at: DateTime<Utc>,
    /// When it ended; null while it runs, or waits for its turn. One that has not ended after an hour counts as failed until it does.
    #[diesel(sql_type = Nullable<Timestamptz>)]
    pub finished_at: Option<DateTime<Utc>>,
    /// From when on it compared.
    #[diesel(sql_type = Timestamptz)]
    pub since: DateTime<Utc>,
    /// Who.
    #[diesel(sql_type = Text)]
    pub actor: String,
    /// Why.
    #[diesel(sql_type = Text)]
    pub reason: String,
    /// Whether the ledger was corrected.
    #[diesel(sql_type = Bool)]
    pub repair: bool,
    /// Why it was not finished.
    #[diesel(sql_type = Nullable<Text>)]
    pub error: Option<String>,
    /// How much differed.
    #[diesel(sql_type = Integer)]
    pub findings: i32,
    /// How much of that could be repaired and is not.
    #[diesel(sql_type = Integer)]
    pub open: i32,
}

/// The columns of [`AuditRecord`].
const COLUMNS: &str =
    "id, started_at, finished_at, since, actor, reason, repair, error, findings, open";

/// A work with our marker that the ledger does not know.
#[derive(Clone, Debug, Serialize)]
pub struct Rebuild {
    /// The submission, from the marker.
    pub token: Uuid,
    /// The job, from the marker.
    pub job: Uuid,
    /// Who has the work.
    pub vendor: Vendor,
    /// Our account there.
    pub account: String,
    /// The number of the submission, from the marker.
    pub attempt: i32,
    /// When the vendor took it.
    pub at: Option<DateTime<Utc>>,
    /// As in its claim, as far as the vendor's list shows it.
    pub metadata: Option<Value>,
    /// What it is then settled as.
    pub settlement: Settlement,
}

#[derive(QueryableByName)]
struct BookedRow {
    #[diesel(sql_type = SqlUuid)]
    token: Uuid,
    #[diesel(sql_type = SqlUuid)]
    job_id: Uuid,
    #[diesel(sql_type = Integer)]
    attempt: i32,
    #[diesel(sql_type = Text)]
    state: String,
    #[diesel(sql_type = Nullable<Text>)]
    vendor_task_id: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    vendor_project_id: Option<String>,
    #[diesel(sql_type = Bool)]
    imported: bool,
    #[diesel(sql_type = Nullable<Text>)]
    work_state: Option<String>,
    #[diesel(sql_type = Timestamptz)]
    claimed_at: DateTime<Utc>,
    #[diesel(sql_type = Timestamptz)]
    send_deadline: DateTime<Utc>,
}

#[derive(QueryableByName)]
struct Begun {
    #[diesel(sql_type = BigInt)]
    id: i64,
}

#[derive(QueryableByName)]
struct Rebuilt {
    #[diesel(sql_type = Jsonb)]
    verdict: Value,
}

impl Db {
    /// Notes that an audit begins. With `not_within`, only if none that looks back as far has begun for so long; of several producers
    /// that ask at once one is answered. The `since` counts back from the database's clock.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn begin_audit(
        &self,
        audit: &NewAudit<'_>,
        not_within: Option<Duration>,
    ) -> DbResult<Option<i64>> {
        let mut connection = self.connection().await?;
        let begun: Option<Begun> = connection
            .transaction(async |connection| {
                diesel::sql_query("SELECT pg_advisory_xact_lock(hashtext('ghostfleet audit'))")
                    .execute(connection)
                    .await?;
                let begun: Option<Begun> = diesel::sql_query(
                    "INSERT INTO audits (since, actor, reason, repair) SELECT $1, $2, $3, $4 \
                     WHERE $5 IS NULL OR NOT EXISTS (SELECT FROM audits \
                         WHERE started_at > clock_timestamp() - make_interval(secs => $5 / 1000.0) AND since <= $1 \
                         AND (finished_at IS NOT NULL AND error IS NULL OR started_at > clock_timestamp() - interval '5 minutes')) \
                     RETURNING id",
                )
                .bind::<Timestamptz, _>(audit.since)
                .bind::<Text, _>(audit.by)
                .bind::<Text, _>(audit.reason)
                .bind::<Bool, _>(audit.repair)
                .bind::<Nullable<BigInt>, _>(not_within.map(millis))
                .get_result(connection)
                .await
                .optional()?;
                // By hand; what the producers do by themselves is nobody's act.
                if let (Some(begun), None) = (&begun, not_within) {
                    let detail = json!({ "since": audit.since, "repair": audit.repair });
                    let subject = format!("audit/{}", begun.id);
                    record(connection, "audit_begun", &subject, audit.by, audit.reason, &detail).await?;
                }
                Ok::<_, diesel::result::Error>(begun)
            })
            .await?;
        Ok(begun.map(|begun| begun.id))
    }

    /// From when on commits may be gone, if a vendor took a work of ours at this time that the ledger does not have: from the newest line
    /// of the trail that is older. Whatever was committed between the two may be gone as well.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn forgotten_from(
        &self,
        taken: Option<DateTime<Utc>>,
    ) -> DbResult<Option<DateTime<Utc>>> {
        let Some(taken) = taken else {
            return Ok(None);
        };
        let mut connection = self.connection().await?;
        let row: Clock = diesel::sql_query(
            "SELECT coalesce((SELECT max(at) FROM job_events WHERE at < $1), $1) AS now",
        )
        .bind::<Timestamptz, _>(taken)
        .get_result(&mut connection)
        .await?;
        Ok(Some(row.now))
    }

    /// The submissions to an account that were claimed since, and all those that a list names by the vendor's id or by a token.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn booked(
        &self,
        vendor: Vendor,
        account: &str,
        since: DateTime<Utc>,
        task_ids: &[String],
        tokens: &[Uuid],
    ) -> DbResult<Vec<Booked>> {
        let mut connection = self.connection().await?;
        let rows: Vec<BookedRow> = diesel::sql_query(
            "SELECT token, job_id, attempt, state, vendor_task_id, vendor_project_id, imported, work_state, claimed_at, \
             send_deadline FROM submissions WHERE vendor = $1 \
             AND (account = $2 AND (claimed_at >= $3 OR vendor_task_id = ANY($4)) OR token = ANY($5)) ORDER BY claimed_at",
        )
        .bind::<Text, _>(vendor.as_str())
        .bind::<Text, _>(account)
        .bind::<Timestamptz, _>(since)
        .bind::<Array<Text>, _>(task_ids)
        .bind::<Array<SqlUuid>, _>(tokens)
        .load(&mut connection)
        .await?;
        rows.into_iter()
            .map(|row| {
                Ok(Booked {
                    token: row.token,
                    job: row.job_id,
                    attempt: row.attempt,
                    state: row.state.parse()?,
                    task_id: row.vendor_task_id,
                    project_id: row.vendor_project_id,
                    imported: row.imported,
                    work_state: row.work_state,
                    claimed_at: row.claimed_at,
                    send_deadline: row.send_deadline,
                })
            })
            .collect()
    }

    /// Takes a work that the ledger does not know into it, and settles it; one transaction, harmless twice.
    ///
    /// # Errors
    /// When the outcome is not known.
    pub async fn rebuild(&self, rebuild: &Rebuild) -> DbResult<Verdict> {
        let mut connection = self.connection().await?;
        let row: Rebuilt = diesel::sql_query("SELECT rebuild($1) AS verdict")
            .bind::<Jsonb, _>(to_json(rebuild)?)
            .get_result(&mut connection)
            .await?;
        self.verdict(row.verdict)
    }

    /// Writes what an audit came to.
    ///
    /// # Errors
    /// When the database is away; it then counts as not finished.
    pub async fn finish_audit(&self, id: i64, comparisons: &[Comparison]) -> DbResult<()> {
        self.end_audit(id, None, comparisons).await
    }

    /// Writes why an audit was not finished, and what it found all the same: it is no less true, but proves nothing about the rest.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn fail_audit(
        &self,
        id: i64,
        error: &str,
        comparisons: &[Comparison],
    ) -> DbResult<()> {
        self.end_audit(id, Some(error), comparisons).await
    }

    async fn end_audit(
        &self,
        id: i64,
        error: Option<&str>,
        comparisons: &[Comparison],
    ) -> DbResult<()> {
        let all = || comparisons.iter().flat_map(|c| &c.findings);
        let open = all().filter(|finding| finding.kind.repairable() && !finding.repaired);
        let mut connection = self.connection().await?;
        diesel::sql_query(
            "UPDATE audits SET finished_at = clock_timestamp(), error = $2, comparisons = $3, findings = $4, open = $5 WHERE id = $1",
        )
        .bind::<BigInt, _>(id)
        .bind::<Nullable<Text>, _>(error)
        .bind::<Jsonb, _>(to_json(&comparisons)?)
        .bind::<Integer, _>(count(all().count()))
        .bind::<Integer, _>(count(open.count()))
        .execute(&mut connection)
        .await?;
        Ok(())
    }

    /// Ends audits that have not ended for an hour: their process, or the database, was killed. One that is made all the same is
    /// finished later, and then counts.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn fail_cut_off_audits(&self) -> DbResult<usize> {
        let mut connection = self.connection().await?;
        Ok(diesel::sql_query(
            "UPDATE audits SET finished_at = clock_timestamp(), error = 'cut off: it did not end within an hour; ask again' \
             WHERE finished_at IS NULL AND started_at < clock_timestamp() - interval '1 hour'",
        )
        .execute(&mut connection)
        .await?)
    }

    /// Audits, newest first: those before `before`.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn audits(&self, before: Option<i64>, limit: i64) -> DbResult<Vec<AuditRecord>> {
        let mut connection = self.connection().await?;
        Ok(diesel::sql_query(format!(
            "SELECT {COLUMNS} FROM audits WHERE id < $1 ORDER BY id DESC LIMIT $2"
        ))
        .bind::<BigInt, _>(before.unwrap_or(i64::MAX))
        .bind::<BigInt, _>(limit)
        .load(&mut connection)
        .await?)
    }

    /// One audit and what it found, with what somebody has said about it since.
    ///
    /// # Errors
    /// When the database is away, or a newer build wrote it.
    pub async fn audit(&self, id: i64) -> DbResult<Option<(AuditRecord, Vec<Comparison>)>> {
        let found = self.audits(Some(id.saturating_add(1)), 1).await?.pop();
        let Some(audit) = found.filter(|audit| audit.id == id) else {
            return Ok(None);
        };
        let found: Option<Compared> = {
            let mut connection = self.connection().await?;
            diesel::sql_query("SELECT comparisons FROM audits WHERE id = $1")
                .bind::<BigInt, _>(id)
                .get_result(&mut connection)
                .await
                .optional()?
        };
        let mut comparisons = match found {
            Some(found) => read_comparisons(found.comparisons)?,
            None => Vec::new(),
        };
        for comparison in &mut comparisons {
            self.note_acknowledged(comparison).await?;
        }
        Ok(Some((audit, comparisons)))
    }

    /// The last audit that was finished without an error. One by hand that looks back less far than the producers' own does not take their
    /// place: it says less.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn last_audit(&self) -> DbResult<Option<AuditRecord>> {
        let mut connection = self.connection().await?;
        Ok(diesel::sql_query(format!(
            "SELECT {COLUMNS} FROM audits \
             WHERE finished_at IS NOT NULL AND error IS NULL AND started_at - since >= coalesce((SELECT s.started_at - s.since - interval '1 minute' \
                 FROM audits s WHERE s.finished_at IS NOT NULL AND s.error IS NULL AND s.actor = 'audit' AND s.reason = 'scheduled' \
                 ORDER BY s.started_at DESC LIMIT 1), interval '0') ORDER BY started_at DESC LIMIT 1"
        ))
        .get_result(&mut connection)
        .await
        .optional()?)
    }

    /// The newest audit that ended with an error and began after `last`: what the last good one says is no longer the newest word.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn failed_audit(&self, last: Option<&AuditRecord>) -> DbResult<Option<AuditRecord>> {
        let mut connection = self.connection().await?;
        Ok(diesel::sql_query(format!(
            "SELECT {COLUMNS} FROM audits WHERE error IS NOT NULL AND id > $1 ORDER BY id DESC LIMIT 1"
        ))
        .bind::<BigInt, _>(last.map_or(0, |audit| audit.id))
        .get_result(&mut connection)
        .await
        .optional()?)
    }

    /// The database's clock, which claims and deadlines are told by.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn now(&self) -> DbResult<DateTime<Utc>> {
        let mut connection = self.connection().await?;
        let row: Clock = diesel::sql_query("SELECT clock_timestamp() AS now")
            .get_result(&mut connection)
            .await?;
        Ok(row.now)
    }
}

#[derive(QueryableByName)]
struct Clock {
    #[diesel(sql_type = Timestamptz)]
    now: DateTime<Utc>,
}

#[derive(QueryableByName)]
struct Compared {
    #[diesel(sql_type = Jsonb)]
    comparisons: Value,
}

fn read_comparisons(value: Value) -> DbResult<Vec<Comparison>> {
    serde_json::from_value(value).map_err(|error| DbError::Value(error.to_string()))
}

fn count(n: usize) -> i32 {
    i32::try_from(n).unwrap_or(i32::MAX)
}
