//! Removes what is old, piece by piece, oldest first. What may go is in [`rule`]; how old it has to be is the caller's to say.
//!
//! Must not touch what has not ended, nor anything of the ledger but the bytes of a request: the trigger `guard_ledger` refuses it.

use std::time::Duration;

use chrono::{DateTime, Utc};
use diesel::OptionalExtension as _;
use diesel::sql_types::{BigInt, Bool, Nullable, Text, Timestamptz, Uuid as SqlUuid};
use diesel_async::RunQueryDsl as _;
use uuid::Uuid;

use super::continuity::TRAIL_KEPT;
use super::dispatch::millis;
use super::{Db, DbResult};
use crate::domain::retention::Kind;

/// A producer that has given no sign of its sweep for so long is taken to be dead.
const LEASE: Duration = Duration::from_secs(5 * 60);

/// Of which nothing can come any more, as the indexes of the ledger say it.
const ENDED: &str =
    "state IN ('not_sent', 'rejected', 'failed', 'absent', 'duplicate', 'succeeded')";
const ALIVE: &str = "('claimed', 'unknown', 'accepted', 'redoing')";

/// How a kind is found and removed. Every text is one of this file's.
struct Rule {
    table: &'static str,
    /// The column that tells the age; first of the index that has exactly the rows of `candidates`.
    at: &'static str,
    /// The rows of that index.
    candidates: String,
    /// Those of them (`t`) that may go. `$2`: what is older than that is old.
    may_go: String,
    /// What is done to them.
    action: &'static str,
}

/// What came of one piece.
#[derive(Clone, Debug, Default, PartialEq, diesel::QueryableByName)]
pub struct Removed {
    /// Old ones looked at; fewer than asked for at the end.
    #[diesel(sql_type = BigInt)]
    pub looked_at: i64,
    /// Those of them that went, or would.
    #[diesel(sql_type = BigInt)]
    pub removed: i64,
    #[diesel(sql_type = Nullable<Timestamptz>)]
    last_at: Option<DateTime<Utc>>,
    #[diesel(sql_type = Nullable<Text>)]
    last_place: Option<String>,
}

impl Removed {
    /// Where to go on; none when nothing was looked at.
    #[must_use]
    pub fn last(&self) -> Option<Place> {
        let (at, place) = (self.last_at?, self.last_place.clone()?);
        Some(Place { at, place })
    }
}

/// The last row of a piece.
#[derive(Clone, Debug, PartialEq)]
pub struct Place {
    at: DateTime<Utc>,
    place: String,
}

/// A submission that has ended and whose own source object nobody has deleted.
#[derive(Clone, Debug, diesel::QueryableByName)]
pub struct OldSource {
    /// The submission.
    #[diesel(sql_type = SqlUuid)]
    pub token: Uuid,
    /// Key of the object.
    #[diesel(sql_type = Text)]
    pub key: String,
    /// When it ended.
    #[diesel(sql_type = Timestamptz)]
    pub settled_at: DateTime<Utc>,
}

#[derive(diesel::QueryableByName)]
struct Begun {
    #[diesel(sql_type = Bool)]
    #[expect(dead_code, reason = "that there is a row is the answer")]
    begun: bool,
}

#[derive(diesel::QueryableByName)]
struct Succeeded {
    #[diesel(sql_type = Nullable<Timestamptz>)]
    at: Option<DateTime<Utc>>,
}

/// Lines that never go: what operators did to jobs, and the only proof that a work was paid for twice.
const KEPT_KINDS: &str = "('canceled', 'resumed', 'replayed', 'retried', 'discarded', 'operator', 'duplicate', 'second_work', 'taken_work')";

/// None for what is not a row.
fn rule(kind: Kind) -> Option<Rule> {
    let all = || "true".to_owned();
    let delete = "DELETE FROM";
    Some(match kind {
        Kind::Events => Rule {
            table: "job_events",
            at: "at",
            candidates: all(),
            // The first condition is `continuity`'s: what was the newest line at any moment of the last days stays, because a
            // process may remember it. A job that may be retried needs to know how far it came.
            may_go: format!(
                "(SELECT n.at FROM job_events n WHERE n.id > t.id ORDER BY n.id LIMIT 1) < statement_timestamp() - {TRAIL_KEPT} \
                 AND t.kind NOT IN {KEPT_KINDS} \
                 AND NOT (t.kind IN ('created', 'advanced') AND EXISTS (SELECT FROM video_jobs j WHERE j.id = t.job_id \
                     AND j.status IN ('failed', 'canceled'))) \
                 AND NOT EXISTS (SELECT FROM job_stages s WHERE s.job_id = t.job_id) \
                 AND NOT EXISTS (SELECT FROM submissions s WHERE s.job_id = t.job_id AND s.state IN {ALIVE}) \
                 AND NOT EXISTS (SELECT FROM video_jobs j WHERE j.id = t.job_id \
                     AND (coalesce(j.status, 'queued') IN ('queued', 'uploading', 'processing') \
                          OR coalesce(j.completed_at, j.updated_at, j.created_at) >= timezone('utc', $2)))"
            ),
            action: delete,
        },
        Kind::RequestBodies => Rule {
            table: "submissions",
            at: "settled_at",
            candidates: format!("{ENDED} AND request_body <> ''"),
            may_go: all(),
            action: "UPDATE",
        },
        Kind::Callbacks => Rule {
            table: "callbacks",
            at: "processed_at",
            candidates: "processed_at IS NOT NULL".to_owned(),
            // One that came to nothing is evidence against an absence, for as long as that can be doubted.
            may_go: format!(
                "NOT EXISTS (SELECT FROM submissions s WHERE s.token = t.token AND (s.state IN {ALIVE} OR s.state = 'absent'))"
            ),
            action: delete,
        },
        Kind::DeadLetters => Rule {
            table: "dead_letters",
            at: "resolved_at",
            candidates: "resolved_at IS NOT NULL".to_owned(),
            may_go: all(),
            action: delete,
        },
        Kind::GroupNotes => Rule {
            table: "dead_letter_notes",
            at: "noted_at",
            candidates: all(),
            may_go: "NOT EXISTS (SELECT FROM dead_letters l WHERE l.resolved_at IS NULL \
                     AND (coalesce(l.stage, 'unknown'), l.error_class, l.reason) = (t.stage, t.error_class, t.reason))"
                .to_owned(),
            action: delete,
        },
        Kind::IdempotencyKeys => Rule {
            table: "job_requests",
            at: "created_at",
            candidates: all(),
            // A client may ask again for as long as the job has not ended.
            may_go: "NOT EXISTS (SELECT FROM job_stages s WHERE s.job_id = t.job_id)".to_owned(),
            action: delete,
        },
        Kind::Audits => Rule {
            table: "audits",
            at: "started_at",
            candidates: all(),
            // What is due, and whether paid sends may be resumed, is read from the newest.
            may_go: "EXISTS (SELECT FROM audits n WHERE n.started_at > t.started_at AND n.finished_at IS NOT NULL \
                     AND n.error IS NULL)"
                .to_owned(),
            action: delete,
        },
        Kind::Sessions => Rule {
            table: "access_sessions",
            at: "expires_at",
            candidates: all(),
            may_go: all(),
            action: delete,
        },
        Kind::Notices => Rule {
            table: "notices",
            at: "ended_at",
            candidates: "ended_at IS NOT NULL".to_owned(),
            may_go: all(),
            action: delete,
        },
        Kind::Operations => Rule {
            table: "operations",
            at: "finished_at",
            // One that waits for somebody to look at its canaries has not finished, however old it is.
            candidates: "finished_at IS NOT NULL".to_owned(),
            may_go: all(),
            action: delete,
        },
        Kind::Sources | Kind::Uploads => return None,
    })
}

impl Rule {
    /// One piece of what is older than `$2`, after the row at `$1` and `$4`, `$3` rows at most. Rows that somebody works on are left for the next
    /// time. They are named by their place in the table, so that no plan reads the whole of it.
    fn statement(&self, dry_run: bool) -> String {
        let Self {
            table,
            at,
            candidates,
            may_go,
            action,
        } = self;
        let lock = if dry_run {
            ""
        } else {
            "FOR UPDATE SKIP LOCKED"
        };
        let rows = format!("t.ctid = ANY (ARRAY(SELECT place FROM piece)) AND {may_go}");
        let gone = match (dry_run, *action) {
            (true, _) => format!("SELECT FROM {table} t WHERE {rows}"),
            (false, "UPDATE") => {
                format!("UPDATE {table} t SET request_body = '' WHERE {rows} RETURNING 1")
            }
            (false, _) => format!("DELETE FROM {table} t WHERE {rows} RETURNING 1"),
        };
        format!(
            "WITH piece AS MATERIALIZED (SELECT ctid AS place, {at} AS at FROM {table} WHERE {candidates} \
                 AND {at} >= coalesce($1, '-infinity') AND {at} < $2 AND ($1 IS NULL OR ({at}, ctid) > ($1, $4::tid)) \
                 ORDER BY {at}, ctid LIMIT $3 {lock}), \
             gone AS ({gone}), \
             last AS (SELECT at, place FROM piece ORDER BY at DESC, place DESC LIMIT 1) \
             SELECT (SELECT count(*) FROM piece) AS looked_at, (SELECT count(*) FROM gone) AS removed, \
                    (SELECT at FROM last) AS last_at, (SELECT place::text FROM last) AS last_place"
        )
    }
}

impl Db {
    /// Begins a sweep, if none has ended for `interval` and none is under way. Of several producers that ask at once one is
    /// answered with the number of its sweep.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn begin_retention(&self, by: &str, interval: Duration) -> DbResult<Option<Uuid>> {
        let run = Uuid::new_v4();
        let mut connection = self.connection().await?;
        let begun: Option<Begun> = diesel::sql_query(
            "INSERT INTO settings AS s (name, value, changed_by) VALUES ('retention', jsonb_build_object('run', $1), $2) \
             ON CONFLICT (name) DO UPDATE SET value = s.value || excluded.value, changed_at = clock_timestamp(), \
                 changed_by = excluded.changed_by \
             WHERE s.changed_at <= clock_timestamp() - make_interval(secs => \
                 CASE WHEN s.value -> 'run' = 'null' THEN $3 ELSE $4 END / 1000.0) \
             RETURNING true AS begun",
        )
        .bind::<SqlUuid, _>(run)
        .bind::<Text, _>(by)
        .bind::<BigInt, _>(millis(interval))
        .bind::<BigInt, _>(millis(LEASE))
        .get_result(&mut connection)
        .await
        .optional()?;
        Ok(begun.map(|_| run))
    }

    /// Says that this sweep is still under way. False: another one has taken its place.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn renew_retention(&self, run: Uuid) -> DbResult<bool> {
        let mut connection = self.connection().await?;
        let renewed = diesel::sql_query(
            "UPDATE settings SET changed_at = clock_timestamp() WHERE name = 'retention' AND value ->> 'run' = $1::text",
        )
        .bind::<SqlUuid, _>(run)
        .execute(&mut connection)
        .await?;
        Ok(renewed == 1)
    }

    /// Ends this sweep; the next one is due an interval later.
    ///
    /// # Errors
    /// When the database is away: then the next one is due when the sweep is taken to be dead.
    pub async fn end_retention(&self, run: Uuid, succeeded: bool) -> DbResult<()> {
        let mut connection = self.connection().await?;
        diesel::sql_query(
            "UPDATE settings SET changed_at = clock_timestamp(), value = value || '{\"run\": null}' \
                 || CASE WHEN $2 THEN jsonb_build_object('succeeded_at', clock_timestamp()) ELSE '{}' END \
             WHERE name = 'retention' AND value ->> 'run' = $1::text",
        )
        .bind::<SqlUuid, _>(run)
        .bind::<Bool, _>(succeeded)
        .execute(&mut connection)
        .await?;
        Ok(())
    }

    /// When a sweep last ended without an error, whichever producer made it.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn last_retention(&self) -> DbResult<Option<DateTime<Utc>>> {
        let mut connection = self.connection().await?;
        let last: Succeeded = diesel::sql_query(
            "SELECT (SELECT (value ->> 'succeeded_at')::timestamptz FROM settings WHERE name = 'retention') AS at",
        )
        .get_result(&mut connection)
        .await?;
        Ok(last.at)
    }

    /// Removes the next `limit` old rows of a kind, from `after` on, or with `dry_run` only counts them. Nothing for kinds that
    /// are not rows.
    ///
    /// # Errors
    /// When the outcome is not known; removing again is harmless.
    pub async fn remove_old(
        &self,
        kind: Kind,
        before: DateTime<Utc>,
        after: Option<&Place>,
        limit: i64,
        dry_run: bool,
    ) -> DbResult<Removed> {
        let Some(rule) = rule(kind) else {
            return Ok(Removed::default());
        };
        let mut connection = self.connection().await?;
        Ok(diesel::sql_query(rule.statement(dry_run))
            .bind::<Nullable<Timestamptz>, _>(after.map(|after| after.at))
            .bind::<Timestamptz, _>(before)
            .bind::<BigInt, _>(limit)
            .bind::<Nullable<Text>, _>(after.map(|after| after.place.as_str()))
            .get_result(&mut connection)
            .await?)
    }

    /// The next submissions that ended before a time and still have a source of their own, oldest first; those after the last one
    /// seen. A duplicate may still run at the vendor.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn old_sources(
        &self,
        before: DateTime<Utc>,
        after: Option<&OldSource>,
        limit: i64,
    ) -> DbResult<Vec<OldSource>> {
        let mut connection = self.connection().await?;
        Ok(diesel::sql_query(format!(
            "SELECT token, source_key AS key, settled_at FROM submissions \
             WHERE {ENDED} AND source_key IS NOT NULL AND source_deleted_at IS NULL \
             AND settled_at >= coalesce($1, '-infinity') AND settled_at < $3 \
             AND ($1 IS NULL OR (settled_at, token) > ($1, $2)) \
             AND NOT (state = 'duplicate' AND work_state IS NOT DISTINCT FROM 'pending') \
             ORDER BY settled_at, token LIMIT $4"
        ))
        .bind::<Nullable<Timestamptz>, _>(after.map(|after| after.settled_at))
        .bind::<Nullable<SqlUuid>, _>(after.map(|after| after.token))
        .bind::<Timestamptz, _>(before)
        .bind::<BigInt, _>(limit)
        .load(&mut connection)
        .await?)
    }
}
