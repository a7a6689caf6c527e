//! Picking due rows for dispatch: a visibility timeout in one statement, so that there is no second sweep.

use std::time::Duration;

use diesel::sql_types::{Array, BigInt, Bool, Nullable, Text, Uuid as SqlUuid};
use diesel_async::RunQueryDsl as _;
use uuid::Uuid;

use super::{DUE_CHANNEL, Db, DbResult};
use crate::domain::{Stage, Vendor};

/// A row that was due and is now dispatched under a new epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, diesel::QueryableByName)]
pub struct Picked {
    /// The job.
    #[diesel(sql_type = SqlUuid)]
    pub job_id: Uuid,
    /// Its epoch from now on.
    #[diesel(sql_type = BigInt)]
    pub epoch: i64,
    /// How late it was picked, in milliseconds.
    #[diesel(sql_type = BigInt)]
    pub late_ms: i64,
}

#[derive(diesel::QueryableByName)]
struct Renewed {
    #[diesel(sql_type = Bool)]
    renewed: bool,
}

/// Due jobs of a class among which the one that tries an open circuit is chosen.
const PROBE_CHOICE: i64 = 100;

pub(super) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

impl Db {
    /// Marks up to `limit` due rows of a stage as dispatched until `lease` is over, most urgent class first, while at most
    /// `depth` rows of the stage are out. With `paid_by`, no more jobs that have yet to pay than the account has room for: the
    /// others would only come back. Those whose outcome is not known are picked whatever the account may send, because clearing
    /// up makes room. The one job that tries an account after its circuit opened is one that the vendor has rejected least: what the
    /// vendor rejects may be that job's own body.
    ///
    /// # Errors
    /// When the outcome is not known, what was picked is due again after its lease.
    pub async fn pick_due(
        &self,
        stage: Stage,
        limit: i64,
        depth: i64,
        lease: Duration,
        paid_by: Option<(Vendor, &str)>,
    ) -> DbResult<Vec<Picked>> {
        let mut connection = self.connection().await?;
        // Model: step PickDue.
        let picked = diesel::sql_query(
            "WITH dispatched AS ( \
                 SELECT count(*) AS n, count(*) FILTER (WHERE $5::text IS NOT NULL AND NOT EXISTS ( \
                     SELECT FROM submissions b WHERE b.job_id = s.job_id AND b.vendor = $5 AND ledger_occupies(b.state))) AS to_pay \
                 FROM job_stages s WHERE stage = $1 AND state = 'dispatched' AND due_at > now()), \
             room AS ( \
                 SELECT greatest(least($2, $3 - n), 0) AS n, greatest(least($2, $3 - n, \
                     CASE WHEN $5::text IS NOT NULL THEN vendor_room($5, $6) - to_pay END), 0) AS to_pay, \
                     EXISTS (SELECT FROM vendors v WHERE v.vendor = $5 AND v.account = $6 AND v.open_until IS NOT NULL) AS probes \
                 FROM dispatched), \
             unclear AS ( \
                 SELECT due.job_id, due.due_at, due.priority FROM room, \
                 LATERAL (SELECT s.job_id, s.due_at, s.priority FROM submissions b JOIN job_stages s ON s.job_id = b.job_id \
                          WHERE b.vendor = $5 AND b.state IN ('claimed', 'unknown') \
                          AND s.stage = $1 AND s.state IN ('waiting', 'dispatched') AND s.due_at <= now() \
                          ORDER BY s.due_at LIMIT room.n FOR UPDATE OF s SKIP LOCKED) due), \
             fresh AS ( \
                 SELECT due.job_id, due.due_at, class.priority \
                 FROM room, (VALUES (0::smallint), (1::smallint), (2::smallint)) class(priority), \
                 LATERAL (SELECT job_id, due_at FROM job_stages s \
                          WHERE s.stage = $1 AND s.priority = class.priority AND s.state IN ('waiting', 'dispatched') \
                          AND s.due_at <= now() AND s.job_id NOT IN (SELECT job_id FROM unclear) \
                          ORDER BY s.due_at LIMIT CASE WHEN room.probes THEN room.to_pay * $7 ELSE room.to_pay END \
                          FOR UPDATE SKIP LOCKED) due \
                 ORDER BY CASE WHEN room.probes THEN (SELECT count(*) FROM submissions b WHERE b.job_id = due.job_id \
                              AND b.vendor = $5 AND b.state = 'rejected') END, \
                     class.priority, due.due_at LIMIT (SELECT to_pay FROM room)), \
             picked AS ( \
                 SELECT * FROM unclear UNION SELECT * FROM fresh \
                 ORDER BY priority, due_at LIMIT (SELECT n FROM room)) \
             UPDATE job_stages s SET state = 'dispatched', epoch = s.epoch + 1, \
                 dispatched_at = clock_timestamp(), started_at = NULL, \
                 due_at = clock_timestamp() + make_interval(secs => $4 / 1000.0) \
             FROM picked WHERE s.job_id = picked.job_id \
             RETURNING s.job_id, s.epoch, floor(extract(epoch FROM clock_timestamp() - picked.due_at) * 1000)::bigint AS late_ms",
        )
        .bind::<Text, _>(stage.as_str())
        .bind::<BigInt, _>(limit)
        .bind::<BigInt, _>(depth)
        .bind::<BigInt, _>(millis(lease))
        .bind::<Nullable<Text>, _>(paid_by.map(|(vendor, _)| vendor.as_str()))
        .bind::<Nullable<Text>, _>(paid_by.map(|(_, account)| account))
        .bind::<BigInt, _>(PROBE_CHOICE)
        .load(&mut connection)
        .await?;
        Ok(picked)
    }

    /// Puts rows back that the broker did not take: due again after `delay`, unless somebody moved them meanwhile.
    ///
    /// # Errors
    /// Then they are due again after their lease.
    pub async fn put_back(&self, stage: Stage, picked: &[Picked], delay: Duration) -> DbResult<()> {
        let mut connection = self.connection().await?;
        let (jobs, epochs): (Vec<_>, Vec<_>) = picked.iter().map(|p| (p.job_id, p.epoch)).unzip();
        // Model: step PutBack.
        diesel::sql_query(
            // Locked in one order: restarts lock many rows as well.
            "WITH locked AS (SELECT s.job_id FROM job_stages s JOIN unnest($2, $3) AS r(job_id, epoch) USING (job_id) \
                 WHERE s.epoch = r.epoch AND s.stage = $1 AND s.state = 'dispatched' ORDER BY s.job_id FOR UPDATE OF s) \
             UPDATE job_stages s SET state = 'waiting', due_at = clock_timestamp() + make_interval(secs => $4 / 1000.0) \
             FROM locked WHERE s.job_id = locked.job_id",
        )
        .bind::<Text, _>(stage.as_str())
        .bind::<Array<SqlUuid>, _>(jobs)
        .bind::<Array<BigInt>, _>(epochs)
        .bind::<BigInt, _>(millis(delay))
        .execute(&mut connection)
        .await?;
        Ok(())
    }

    /// Extends the lease of a long stage. False: the lease was lost, stop.
    ///
    /// # Errors
    /// When the database is away; the lease then runs out by itself.
    pub async fn renew_lease(&self, job: Uuid, epoch: i64, lease: Duration) -> DbResult<bool> {
        let mut connection = self.connection().await?;
        let rows: Vec<Renewed> = diesel::sql_query(
            "UPDATE job_stages SET due_at = clock_timestamp() + make_interval(secs => $3 / 1000.0) \
             WHERE job_id = $1 AND epoch = $2 AND state = 'dispatched' RETURNING true AS renewed",
        )
        .bind::<SqlUuid, _>(job)
        .bind::<BigInt, _>(epoch)
        .bind::<BigInt, _>(millis(lease))
        .load(&mut connection)
        .await?;
        Ok(rows.iter().any(|row| row.renewed))
    }

    /// Tells the dispatchers that something is due. Never inside a settle: NOTIFY serialises commits.
    ///
    /// # Errors
    /// Harmless: dispatch has a timer.
    pub async fn notify_due(&self) -> DbResult<()> {
        let mut connection = self.connection().await?;
        diesel::sql_query("SELECT pg_notify($1, '')")
            .bind::<Text, _>(DUE_CHANNEL)
            .execute(&mut connection)
            .await?;
        Ok(())
    }
}
