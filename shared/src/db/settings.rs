//! Fleet-wide switches: the global stop of paid sends, and who used it.

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel::sql_types::{BigInt, Bool, Jsonb, Nullable, Text, Timestamptz};
use diesel_async::{AsyncConnection as _, RunQueryDsl};
use serde::Serialize;
use serde_json::{Value, json};

use super::continuity::{Forgotten, Seen};
use super::job_actions::record;
use super::schema::settings;
use super::{Db, DbResult};
use crate::domain::search::AROUND;

const STOP_PAID: &str = "stop_paid";

/// That paid sends are stopped, and why.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct PaidStop {
    /// Why, in words.
    pub reason: String,
    /// Who stopped them.
    pub by: String,
    /// Since when.
    pub at: DateTime<Utc>,
    /// The database forgot commits: an audit has to rebuild the ledger before they are allowed again.
    pub audit_first: bool,
}

/// What came of asking to resume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PaidResumed {
    /// Paid sends are allowed again.
    Yes,
    /// They were not stopped.
    NotStopped,
    /// The database forgot commits, and no audit that was started at this time or later has been finished.
    AuditFirst {
        /// From then on every request that was on its way has arrived.
        not_before: DateTime<Utc>,
        /// So far it has to look back.
        since: DateTime<Utc>,
    },
    /// Audits found works that the ledger does not have, still.
    Unrepaired {
        /// How many.
        findings: i32,
    },
}

#[derive(diesel::QueryableByName)]
struct Stopped {
    #[diesel(sql_type = Bool)]
    audit_first: bool,
    #[diesel(sql_type = Timestamptz)]
    not_before: DateTime<Utc>,
    #[diesel(sql_type = Timestamptz)]
    since: DateTime<Utc>,
}

#[derive(diesel::QueryableByName)]
struct Before {
    #[diesel(sql_type = Nullable<Timestamptz>)]
    at: Option<DateTime<Utc>>,
}

#[derive(diesel::QueryableByName)]
struct Open {
    #[diesel(sql_type = diesel::sql_types::Integer)]
    open: i32,
}

impl Db {
    /// Stops every paid send of the fleet until [`Db::resume_paid`]; polling and storing go on. False: they were stopped already,
    /// and that reason stays.
    ///
    /// # Errors
    /// When the database is away nothing is stopped.
    pub async fn stop_paid(&self, reason: &str, by: &str) -> DbResult<bool> {
        self.stop(reason, by, None).await
    }

    /// The same because the database forgot commits, whatever the reason before: an audit has to run first, from before what is
    /// gone where that is known. False: known already, or dealt with.
    ///
    /// # Errors
    /// When the database is away nothing is stopped.
    pub async fn stop_paid_until_audit(&self, forgotten: &Forgotten, by: &str) -> DbResult<bool> {
        self.stop(&forgotten.reason, by, Some(forgotten)).await
    }

    async fn stop(&self, reason: &str, by: &str, forgotten: Option<&Forgotten>) -> DbResult<bool> {
        let audit_first = forgotten.is_some();
        let since = forgotten.and_then(|forgotten| forgotten.from);
        let since = since.map(|from| from - AROUND);
        let (fenced, resumed_at) = match forgotten.map(|forgotten| forgotten.seen) {
            Some(Seen::Since(resumed_at)) => (true, resumed_at),
            Some(Seen::Now) | None => (false, None),
        };
        let mut connection = self.connection().await?;
        // Of a restored backup, what is older than the first minutes of its new life ends where the backup was made.
        let trail_before = if audit_first {
            let before: Before = diesel::sql_query(
                "SELECT (SELECT max(at) FROM job_events WHERE at < clock_timestamp() - interval '5 minutes') AS at",
            )
            .get_result(&mut connection)
            .await?;
            before.at.map(|at| at - AROUND)
        } else {
            None
        };
        // A sign that knows since when outranks one that does not.
        let value = json!({ "reason": reason, "audit_first": audit_first, "audit_since": since, "trail_before": trail_before });
        let written = connection
            .transaction(async |connection| {
                // Waits for a resume that is being committed, so that the next statement sees it.
                diesel::sql_query("SELECT FROM settings WHERE name = 'stop_paid' FOR UPDATE")
                    .execute(connection)
                    .await?;
                let written = diesel::sql_query(
                    "INSERT INTO settings AS s (name, value, changed_by) SELECT 'stop_paid', $1, $2 \
                     WHERE NOT $4 OR $5 IS NOT DISTINCT FROM (SELECT changed_at FROM settings WHERE name = 'paid_resumed') \
                     ON CONFLICT (name) DO UPDATE SET value = excluded.value, changed_by = excluded.changed_by, \
                         changed_at = excluded.changed_at \
                     WHERE $3 AND (NOT coalesce((s.value ->> 'audit_first')::boolean, false) \
                         OR excluded.value ->> 'audit_since' IS NOT NULL AND s.value ->> 'audit_since' IS NULL \
                         OR (excluded.value ->> 'audit_since')::timestamptz < (s.value ->> 'audit_since')::timestamptz)",
                )
                .bind::<Jsonb, _>(&value)
                .bind::<Text, _>(by)
                .bind::<Bool, _>(audit_first)
                .bind::<Bool, _>(fenced)
                .bind::<Nullable<Timestamptz>, _>(resumed_at)
                .execute(connection)
                .await?;
                if written > 0 {
                    record(connection, "paid_stopped", "fleet", by, reason, &value).await?;
                }
                Ok::<_, diesel::result::Error>(written > 0)
            })
            .await?;
        Ok(written)
    }

    /// Allows paid sends again. After a database that forgot commits it wants an audit that was begun `in_flight_ms` after the stop,
    /// when nothing sent before could still arrive, looked back to before what was forgotten (where that is not known a day, or to the last line of the trail before, whichever is longer
    /// ago), and left
    /// nothing unrepaired; `force` goes without.
    ///
    /// # Errors
    /// When the database is away they stay stopped.
    pub async fn resume_paid(
        &self,
        reason: &str,
        by: &str,
        in_flight: std::time::Duration,
        force: bool,
    ) -> DbResult<PaidResumed> {
        let mut connection = self.connection().await?;
        let resumed = connection
            .transaction(async |connection| {
                let stopped: Option<Stopped> = diesel::sql_query(
                    "SELECT coalesce((value ->> 'audit_first')::boolean, false) AS audit_first, \
                     changed_at + make_interval(secs => $1 / 1000.0) AS not_before, \
                     coalesce((value ->> 'audit_since')::timestamptz, \
                         least(changed_at - interval '1 day', (value ->> 'trail_before')::timestamptz)) AS since \
                     FROM settings WHERE name = 'stop_paid' FOR UPDATE",
                )
                .bind::<BigInt, _>(super::dispatch::millis(in_flight))
                .get_result(connection)
                .await
                .optional()?;
                let Some(stopped) = stopped else {
                    return Ok(PaidResumed::NotStopped);
                };
                if stopped.audit_first && !force {
                    let audit: Option<Open> = diesel::sql_query(
                        "SELECT open FROM audits WHERE finished_at IS NOT NULL AND error IS NULL AND started_at >= $1 AND since <= $2 \
                         ORDER BY started_at DESC LIMIT 1",
                    )
                    .bind::<Timestamptz, _>(stopped.not_before)
                    .bind::<Timestamptz, _>(stopped.since)
                    .get_result(connection)
                    .await
                    .optional()?;
                    match audit {
                        None => {
                            return Ok(PaidResumed::AuditFirst {
                                not_before: stopped.not_before,
                                since: stopped.since,
                            });
                        }
                        Some(Open { open: 0 }) => {
                            // Whatever that audit's list showed: what audits since the last resume have seen to be gone has to be there again.
                            let gone: Open = diesel::sql_query(
                                "SELECT count(DISTINCT f ->> 'token')::integer AS open FROM audits a, \
                                     jsonb_array_elements(a.comparisons) c, jsonb_array_elements(c -> 'findings') f \
                                 WHERE a.findings > 0 AND f ->> 'kind' = 'orphan' \
                                 AND a.started_at > coalesce((SELECT changed_at FROM settings WHERE name = 'paid_resumed'), '-infinity') \
                                 AND NOT EXISTS (SELECT FROM submissions s \
                                     WHERE s.token = (f ->> 'token')::uuid)",
                            )
                            .get_result(connection)
                            .await?;
                            if gone.open > 0 {
                                return Ok(PaidResumed::Unrepaired { findings: gone.open });
                            }
                        }
                        Some(Open { open }) => return Ok(PaidResumed::Unrepaired { findings: open }),
                    }
                }
                diesel::sql_query("SELECT allow_paid($1)")
                    .bind::<Text, _>(by)
                    .execute(connection)
                    .await?;
                let detail = json!({ "forced": force });
                record(connection, "paid_resumed", "fleet", by, reason, &detail).await?;
                Ok::<_, diesel::result::Error>(PaidResumed::Yes)
            })
            .await?;
        Ok(resumed)
    }

    /// Whether and why paid sends are stopped.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn paid_stop(&self) -> DbResult<Option<PaidStop>> {
        let mut connection = self.connection().await?;
        let row: Option<(Value, DateTime<Utc>, String)> = settings::table
            .find(STOP_PAID)
            .select((settings::value, settings::changed_at, settings::changed_by))
            .first(&mut connection)
            .await
            .optional()?;
        Ok(row.map(|(value, at, by)| PaidStop {
            reason: value["reason"].as_str().unwrap_or_default().to_owned(),
            by,
            at,
            audit_first: value["audit_first"].as_bool().unwrap_or_default(),
        }))
    }

    /// Why paid sends are stopped, if they are.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn paid_stopped(&self) -> DbResult<Option<String>> {
        Ok(self.paid_stop().await?.map(|stop| stop.reason))
    }
}
