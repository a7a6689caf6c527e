//! Accounts at the vendors: permits for sends, limits, pauses, balances and costs. The rules stand in the `admission` migration.

use std::time::Duration;

use chrono::{DateTime, NaiveDate, Utc};
use diesel::sql_types::{
    BigInt, Date, Double, Integer, Jsonb, Nullable, Text, Timestamptz, Uuid as SqlUuid,
};
use diesel_async::RunQueryDsl as _;
use serde::Serialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::dispatch::millis;
use super::protocol::to_json;
use super::{Db, DbResult};
use crate::domain::admission::{Refusal, SignalKind};
use crate::domain::{Stage, Vendor};

/// A send that was not let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Why.
    pub why: Refusal,
    /// When it may help to ask again; at most a minute, because limits change at any time. None: the database does not know.
    pub after: Option<Duration>,
}

impl Refused {
    pub(super) fn read(why: &str, retry_ms: Option<i64>) -> DbResult<Self> {
        let after = retry_ms.map(|ms| Duration::from_millis(ms.max(0).unsigned_abs()));
        Ok(Self {
            why: why.parse()?,
            after,
        })
    }
}

/// What an answer says about an account; `settle` acts on it.
#[derive(Clone, Debug, Serialize)]
pub struct Signal {
    /// Which vendor.
    pub vendor: Vendor,
    /// Which account.
    pub account: String,
    /// What it says.
    pub kind: SignalKind,
    /// The submission that was answered; none for a free call.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<Uuid>,
    /// The vendor's words.
    pub reason: String,
    /// How long a pause or a cap that it asks for lasts, in milliseconds.
    pub ms: u64,
    /// Calls in a row without an answer that open the circuit.
    pub max_failures: u32,
    /// Rejections in a row for one reason that open it.
    pub max_rejects: u32,
    /// How long it is open the first time; doubles each time the probe fails. In milliseconds.
    pub open_ms: u64,
    /// The longest it is open.
    pub open_cap_ms: u64,
}

/// An operator's change of an account.
#[derive(Clone, Debug)]
pub struct VendorChange {
    /// Which vendor.
    pub vendor: Vendor,
    /// Which account.
    pub account: String,
    /// Columns and their new values.
    pub change: Value,
    /// One word for the trail.
    pub action: &'static str,
    /// Only if the account still has this version.
    pub if_version: Option<i64>,
    /// Who.
    pub by: String,
    /// Why.
    pub reason: String,
}

/// An account as it stands.
#[derive(Clone, Debug, Serialize, diesel::QueryableByName, utoipa::ToSchema)]
pub struct VendorStatus {
    /// The vendor.
    #[diesel(sql_type = Text)]
    pub vendor: String,
    /// The account.
    #[diesel(sql_type = Text)]
    pub account: String,
    /// Grows with every change by an operator.
    #[diesel(sql_type = BigInt)]
    pub version: i64,
    /// Submissions from claim to final state.
    #[diesel(sql_type = BigInt)]
    pub in_flight: i64,
    /// The most there may be; the operator's cap, or what the vendor's plan was seen to allow.
    #[diesel(sql_type = Nullable<Integer>)]
    pub in_flight_cap: Option<i32>,
    /// The operator's cap.
    #[diesel(sql_type = Nullable<Integer>)]
    pub max_in_flight: Option<i32>,
    /// Paid sends a minute.
    #[diesel(sql_type = Nullable<Double>)]
    pub max_per_minute: Option<f64>,
    /// How many of them may be sent at once.
    #[diesel(sql_type = Nullable<Integer>)]
    pub burst: Option<i32>,
    /// The most to spend from midnight to midnight UTC.
    #[diesel(sql_type = Nullable<Double>)]
    pub daily_budget: Option<f64>,
    /// Reserved and charged since midnight UTC.
    #[diesel(sql_type = Double)]
    pub spent_today: f64,
    /// Below this balance nothing new is paid for.
    #[diesel(sql_type = Nullable<Double>)]
    pub balance_floor: Option<f64>,
    /// As last read.
    #[diesel(sql_type = Nullable<Double>)]
    pub balance: Option<f64>,
    /// When that was.
    #[diesel(sql_type = Nullable<Timestamptz>)]
    pub balance_at: Option<DateTime<Utc>>,
    /// Why nothing, or nothing new, is sent now: a word of [`Refusal`].
    #[diesel(sql_type = Nullable<Text>)]
    pub refusal: Option<String>,
    /// The same in the operator's or the vendor's words.
    #[diesel(sql_type = Nullable<Text>)]
    pub refusal_reason: Option<String>,
    /// Until when; none when only an operator ends it.
    #[diesel(sql_type = Nullable<Timestamptz>)]
    pub refusal_until: Option<DateTime<Utc>>,
    /// When the rate lets the next paid send through; none when it does now.
    #[diesel(sql_type = Nullable<Timestamptz>)]
    pub rate_until: Option<DateTime<Utc>>,
    /// Works that were running when the vendor last said that its slots are full, at least one: a cap until `slots_until`.
    #[diesel(sql_type = Nullable<Integer>)]
    pub slots: Option<i32>,
    /// When that cap ends.
    #[diesel(sql_type = Nullable<Timestamptz>)]
    pub slots_until: Option<DateTime<Utc>>,
    /// A circuit is open behind the refusal that is shown: it stays when that one ends.
    #[diesel(sql_type = diesel::sql_types::Bool)]
    pub circuit_open: bool,
}

/// What was spent on a day.
#[derive(Clone, Debug, Serialize, diesel::QueryableByName, utoipa::ToSchema)]
pub struct CostDay {
    /// UTC.
    #[diesel(sql_type = Date)]
    pub day: NaiveDate,
    /// At whom.
    #[diesel(sql_type = Text)]
    pub vendor: String,
    /// For whom; none in totals of a vendor, and for jobs whose owner nobody knows any more.
    #[diesel(sql_type = Nullable<SqlUuid>)]
    pub user_id: Option<Uuid>,
    /// Submissions that were, or may have been, accepted.
    #[diesel(sql_type = BigInt)]
    pub submissions: i64,
    /// Expected of those that have not ended.
    #[diesel(sql_type = Double)]
    pub reserved: f64,
    /// Charged for those that have.
    #[diesel(sql_type = Double)]
    pub charged: f64,
    /// The part of it that served nobody: duplicates, failures that were charged, results of ended jobs.
    #[diesel(sql_type = Double)]
    pub wasted: f64,
}

/// What the whole ledger has cost at a vendor.
#[derive(Clone, Debug, diesel::QueryableByName)]
pub struct CostTotal {
    /// The vendor.
    #[diesel(sql_type = Text)]
    pub vendor: String,
    /// See [`CostDay`].
    #[diesel(sql_type = Double)]
    pub reserved: f64,
    /// See [`CostDay`].
    #[diesel(sql_type = Double)]
    pub charged: f64,
    /// See [`CostDay`].
    #[diesel(sql_type = Double)]
    pub wasted: f64,
}

#[derive(diesel::QueryableByName)]
struct PermitRow {
    #[diesel(sql_type = Nullable<Text>)]
    refusal: Option<String>,
    #[diesel(sql_type = Nullable<BigInt>)]
    retry_ms: Option<i64>,
}

#[derive(diesel::QueryableByName)]
struct Changed {
    #[diesel(sql_type = diesel::sql_types::Bool)]
    changed: bool,
}

/// The word of the trail for the end of every pause.
const RESUMED: &str = "vendor_resumed";

impl VendorChange {
    /// New limits: columns and their values, null for no limit.
    #[must_use]
    pub fn limits(
        vendor: Vendor,
        account: String,
        limits: Value,
        by: String,
        reason: String,
    ) -> Self {
        Self {
            vendor,
            account,
            change: limits,
            action: "vendor_limited",
            if_version: None,
            by,
            reason,
        }
    }

    /// A pause for so long, or until resumed.
    #[must_use]
    pub fn pause(
        vendor: Vendor,
        account: String,
        duration: Option<Duration>,
        by: String,
        reason: String,
    ) -> Self {
        let ms = duration.map(millis);
        Self {
            change: json!({ "hold_ms": ms, "held_reason": reason, "held_by": by }),
            action: "vendor_paused",
            ..Self::limits(vendor, account, Value::Null, by, reason)
        }
    }

    /// The end of every pause, also of those that the vendor's answers made; limits stay.
    #[must_use]
    pub fn resume(vendor: Vendor, account: String, by: String, reason: String) -> Self {
        Self {
            change: json!({
                "held_until": null, "held_reason": null, "held_by": null,
                "paused_until": null, "pause_kind": null, "pause_reason": null, "slots": null, "slots_until": null,
                "failures": 0, "reject_reason": null, "reject_job": null, "rejects": 0, "open_kind": null, "open_reason": null,
                "opened_at": null, "open_until": null, "openings": 0, "probe_token": null, "probe_until": null,
            }),
            action: RESUMED,
            ..Self::limits(vendor, account, Value::Null, by, reason)
        }
    }
}

/// A replay or a redo that is about to be sent.
#[derive(Clone, Debug, Serialize)]
pub struct SendAgain {
    /// To whom.
    pub vendor: Vendor,
    /// Our account there.
    pub account: String,
    /// The submission.
    pub token: Uuid,
    /// Its job, which has to want its result still.
    pub job: Uuid,
    /// Where the job has to be, under `epoch`.
    pub stage: Stage,
    /// The epoch of the sender's message.
    pub epoch: i64,
    /// From the permit on, how long the request may be sent, in milliseconds.
    pub send_within_ms: u64,
    /// When the vendor may have forgotten the first send: a replay is not allowed any more then. None: a redo.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_after: Option<DateTime<Utc>>,
}

const STATUS: &str = "\
SELECT v.vendor, v.account, v.version, vendor_in_flight(v) AS in_flight, vendor_cap(v) AS in_flight_cap, v.max_in_flight, \
    v.max_per_minute::float8, v.burst, v.daily_budget::float8, vendor_spent_today(v)::float8 AS spent_today, \
    v.balance_floor::float8, v.balance::float8, v.balance_at, coalesce(stop.why, fresh.why) AS refusal, \
    CASE stop.why WHEN 'manual' THEN format('%s (%s)', v.held_reason, v.held_by) WHEN 'circuit' THEN v.open_reason \
        ELSE CASE WHEN stop.why IS NOT NULL THEN v.pause_reason END END AS refusal_reason, \
    CASE WHEN coalesce(stop.why, fresh.why) IS NOT NULL \
        THEN nullif(CASE WHEN stop.why IS NOT NULL THEN stop.until ELSE fresh.until END, 'infinity') END AS refusal_until, \
    CASE WHEN bucket.tokens < 1 \
        THEN clock_timestamp() + make_interval(secs => ((1 - bucket.tokens) / v.max_per_minute * 60)::float8) END AS rate_until, \
    CASE WHEN v.slots_until > clock_timestamp() THEN v.slots END AS slots, \
    CASE WHEN v.slots_until > clock_timestamp() THEN v.slots_until END AS slots_until, v.open_until IS NOT NULL AS circuit_open \
FROM vendors v, vendor_tokens(v) bucket(tokens), vendor_stop(v) stop, \
    vendor_stop_new(v, CASE WHEN v.daily_budget IS NULL THEN 0 ELSE vendor_least_cost(v) END) fresh ORDER BY v.vendor, v.account";

impl Db {
    /// Makes rows for the configured accounts, so that they can be listed and limited before they are first used.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn ensure_vendor(&self, vendor: Vendor, account: &str) -> DbResult<()> {
        let mut connection = self.connection().await?;
        diesel::sql_query(
            "INSERT INTO vendors (vendor, account) VALUES ($1, $2) ON CONFLICT DO NOTHING",
        )
        .bind::<Text, _>(vendor.as_str())
        .bind::<Text, _>(account)
        .execute(&mut connection)
        .await?;
        Ok(())
    }

    /// Permission to send once more for a submission that is in the ledger already. `None`: send now.
    ///
    /// # Errors
    /// When the outcome is not known nothing may be sent.
    pub async fn take_send_permit(&self, again: &SendAgain) -> DbResult<Option<Refused>> {
        let mut connection = self.connection().await?;
        let row: PermitRow =
            diesel::sql_query("SELECT refusal, retry_ms FROM take_send_permit($1)")
                .bind::<Jsonb, _>(to_json(again)?)
                .get_result(&mut connection)
                .await?;
        row.refusal
            .map(|why| Refused::read(&why, row.retry_ms))
            .transpose()
    }

    /// Stores a balance that was just read. It counts for `valid`; above zero and its floor, a want of credit is over.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn record_balance(
        &self,
        vendor: Vendor,
        account: &str,
        balance: f64,
        valid: Duration,
    ) -> DbResult<()> {
        let mut connection = self.connection().await?;
        diesel::sql_query(
            "INSERT INTO vendors AS v (vendor, account, balance, balance_at, balance_until) \
             SELECT $1, $2, $3::numeric, t, t + make_interval(secs => $4 / 1000.0) FROM clock_timestamp() t \
             ON CONFLICT (vendor, account) DO UPDATE SET \
                 balance = excluded.balance, balance_at = excluded.balance_at, balance_until = excluded.balance_until, \
                 (paused_until, pause_kind, pause_reason) = (SELECT \
                     CASE WHEN keep THEN v.paused_until END, CASE WHEN keep THEN v.pause_kind END, \
                     CASE WHEN keep THEN v.pause_reason END \
                     FROM (SELECT v.pause_kind IS DISTINCT FROM 'out_of_credit' OR excluded.balance <= 0 \
                           OR coalesce(excluded.balance < v.balance_floor, false) AS keep) k)",
        )
        .bind::<Text, _>(vendor.as_str())
        .bind::<Text, _>(account)
        .bind::<Double, _>(balance)
        .bind::<BigInt, _>(millis(valid))
        .execute(&mut connection)
        .await?;
        Ok(())
    }

    /// Changes limits or pauses of an account at once for the whole fleet, and writes who and why into the trail. The end of a pause
    /// makes the jobs due that waited for it; says how many. None: somebody has changed it since the version that the change is for,
    /// and nothing was done.
    ///
    /// # Errors
    /// When the database is away, or a value is out of its range.
    pub async fn change_vendor(&self, change: &VendorChange) -> DbResult<Option<i64>> {
        let mut connection = self.connection().await?;
        let row: Changed =
            diesel::sql_query("SELECT change_vendor($1, $2, $3, $4, $5, $6, $7) AS changed")
                .bind::<Text, _>(change.vendor.as_str())
                .bind::<Text, _>(&change.account)
                .bind::<Jsonb, _>(&change.change)
                .bind::<Text, _>(&change.by)
                .bind::<Text, _>(&change.reason)
                .bind::<Text, _>(change.action)
                .bind::<Nullable<BigInt>, _>(change.if_version)
                .get_result(&mut connection)
                .await?;
        drop(connection);
        if !row.changed {
            return Ok(None);
        }
        if change.action != RESUMED {
            return Ok(Some(0));
        }
        // Killed before: these jobs come due by themselves, or with the next resume. Not in one transaction, because `settle`
        // locks jobs before accounts.
        let released = self
            .release_jobs(change.vendor, &change.by, &change.reason)
            .await?;
        // A hint: dispatch has a timer.
        let _ = self.notify_due().await;
        Ok(Some(released))
    }

    /// Every account as it stands.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn vendor_status(&self) -> DbResult<Vec<VendorStatus>> {
        let mut connection = self.connection().await?;
        Ok(diesel::sql_query(STATUS).load(&mut connection).await?)
    }

    /// Costs of the last `days` UTC days, today included, newest first; by user, or totals of each vendor.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn cost_days(&self, days: u32, by_user: bool) -> DbResult<Vec<CostDay>> {
        let mut connection = self.connection().await?;
        let rows = diesel::sql_query(
            // Account by account, so that each reads its part of the index and no more.
            "SELECT (s.claimed_at AT TIME ZONE 'UTC')::date AS day, v.vendor, \
                 CASE WHEN $2 THEN coalesce(s.user_id, (SELECT j.user_id FROM video_jobs j WHERE j.id = s.job_id)) END AS user_id, \
                 count(*) FILTER (WHERE s.state NOT IN ('not_sent', 'rejected', 'absent')) AS submissions, \
                 coalesce(sum(submission_cost(s)) FILTER (WHERE alive), 0)::float8 AS reserved, \
                 coalesce(sum(submission_cost(s)) FILTER (WHERE NOT alive), 0)::float8 AS charged, \
                 coalesce(sum(s.cost_wasted), 0)::float8 AS wasted \
             FROM vendors v JOIN submissions s ON s.vendor = v.vendor AND s.account = v.account, \
                 LATERAL (SELECT s.state IN ('claimed', 'unknown', 'accepted', 'redoing') AS alive) a \
             WHERE s.claimed_at >= date_trunc('day', statement_timestamp(), 'UTC') - make_interval(days => $1 - 1) \
             GROUP BY 1, 2, 3 ORDER BY day DESC, vendor, charged DESC, 3",
        )
        .bind::<Integer, _>(i32::try_from(days).unwrap_or(i32::MAX))
        .bind::<diesel::sql_types::Bool, _>(by_user)
        .load(&mut connection)
        .await?;
        Ok(rows)
    }

    /// What submissions claimed since midnight UTC have cost.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn cost_totals(&self) -> DbResult<Vec<CostTotal>> {
        let mut connection = self.connection().await?;
        let rows = diesel::sql_query(
            // Account by account, so that each reads its part of the index and no more.
            "SELECT v.vendor, sum(today.reserved)::float8 AS reserved, sum(today.charged)::float8 AS charged, \
                 sum(today.wasted)::float8 AS wasted \
             FROM vendors v, LATERAL ( \
                 SELECT coalesce(sum(submission_cost(s)) FILTER (WHERE alive), 0) AS reserved, \
                     coalesce(sum(submission_cost(s)) FILTER (WHERE NOT alive), 0) AS charged, \
                     coalesce(sum(s.cost_wasted), 0) AS wasted \
                 FROM submissions s, LATERAL (SELECT s.state IN ('claimed', 'unknown', 'accepted', 'redoing') AS alive) a \
                 WHERE s.vendor = v.vendor AND s.account = v.account \
                 AND s.claimed_at >= date_trunc('day', statement_timestamp(), 'UTC')) today \
             GROUP BY v.vendor",
        )
        .load(&mut connection)
        .await?;
        Ok(rows)
    }
}
