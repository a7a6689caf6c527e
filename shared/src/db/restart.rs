//! Putting jobs that have ended back on their way: replay of dead letters, and retry. What is decided, and when it is refused,
//! stands in `domain::resume`; here it is read and written under the locks of the job and of its stage.

use std::time::Duration;

use diesel::QueryableByName;
use diesel::sql_types::{
    Array, BigInt, Bool, Double, Integer, Jsonb, Nullable, Text, Uuid as SqlUuid,
};
use diesel_async::{AsyncConnection as _, AsyncPgConnection, RunQueryDsl as _};
use serde_json::{Value, json};
use uuid::Uuid;

use super::dispatch::millis;
use super::load::readable;
use super::{Db, DbResult};
use crate::domain::intake::JobSpec;
use crate::domain::progress;
use crate::domain::resume::{
    Found, PAID_ATTEMPTS, Part, Refusal, Resume, Standing, Wants, is_beyond, refusal, resume,
};
use crate::domain::{JobStatus, Stage, Vendor};

/// Who wants jobs put back, and how.
#[derive(Clone, Debug)]
pub struct RestartOrder {
    /// Who, for the trail.
    pub by: String,
    /// Why, for the trail.
    pub reason: String,
    /// The operation that this is a part of.
    pub operation: Option<i64>,
    /// One more paid attempt than the bound allows, where a job needs it.
    pub another_attempt: bool,
}

/// A job to put back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The job.
    pub job: Uuid,
    /// Epoch of the dead letter that is replayed; none for a retry.
    pub letter_epoch: Option<i64>,
}

/// What happens, or has happened, to a candidate.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The job.
    pub job: Uuid,
    /// Where it goes, or why it does not.
    pub to: Result<Resume, Refusal>,
    /// Where a submission is paid: what the last one of this job and vendor cost, in the vendor's units.
    pub last_cost: Option<f64>,
    /// Whether GhostCut is paid in a later stage.
    pub then_inpaints: bool,
    /// Failed attempts that no longer count.
    forgive: i32,
}

/// Spreads jobs over time: each that is put back is due one step after the one before.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pace {
    /// When the next one is due, from now.
    pub next: Duration,
    /// Between two.
    pub step: Duration,
}

#[derive(QueryableByName)]
struct Row {
    #[diesel(sql_type = SqlUuid)]
    id: Uuid,
    #[diesel(sql_type = Text)]
    status: String,
    #[diesel(sql_type = Nullable<Text>)]
    processing_config: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    segments_data: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    job_metadata: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    state: Option<String>,
    #[diesel(sql_type = Nullable<BigInt>)]
    epoch: Option<i64>,
    #[diesel(sql_type = Bool)]
    source_ready: bool,
    #[diesel(sql_type = Nullable<Text>)]
    sync_state: Option<String>,
    #[diesel(sql_type = Bool)]
    sync_work_failed: bool,
    #[diesel(sql_type = Nullable<Double>)]
    sync_cost: Option<f64>,
    #[diesel(sql_type = Integer)]
    sync_failed: i32,
    #[diesel(sql_type = Nullable<Text>)]
    ghostcut_state: Option<String>,
    #[diesel(sql_type = Bool)]
    ghostcut_work_failed: bool,
    #[diesel(sql_type = Nullable<Double>)]
    ghostcut_cost: Option<f64>,
    #[diesel(sql_type = Integer)]
    ghostcut_failed: i32,
    #[diesel(sql_type = Integer)]
    max_paid_attempts: i32,
}

const STANDING: &str = "\
SELECT j.id, coalesce(j.status, 'queued') AS status, \
    j.processing_config::text, j.segments_data::text, j.job_metadata::text, \
    st.state, st.epoch, \
    coalesce(starts_with(st.stage, 'inpaint.'), false) OR EXISTS ( \
        SELECT FROM job_events e WHERE e.job_id = j.id AND e.kind = 'advanced' AND e.detail ->> 'move' = 'moved' \
        AND (e.stage = 'source.import' OR e.stage = 'lipsync.store' AND starts_with(e.detail ->> 'event', 'Stored'))) \
        AS source_ready, \
    s.state AS sync_state, coalesce(s.work_failed, false) AS sync_work_failed, s.last_cost AS sync_cost, \
    s.failed_attempts AS sync_failed, \
    g.state AS ghostcut_state, coalesce(g.work_failed, false) AS ghostcut_work_failed, g.last_cost AS ghostcut_cost, \
    g.failed_attempts AS ghostcut_failed, \
    coalesce((SELECT value::integer FROM settings WHERE name = 'max_paid_attempts'), $2) AS max_paid_attempts \
FROM video_jobs j LEFT JOIN job_stages st ON st.job_id = j.id \
CROSS JOIN LATERAL job_part(j, 'sync') s CROSS JOIN LATERAL job_part(j, 'ghostcut') g \
WHERE j.id = ANY($1)";

impl Db {
    /// Writes how often a worker lets a job pay one vendor (`MAX_PAID_ATTEMPTS`). What is put back is decided by it, wherever that is
    /// done; the last worker to start counts.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn record_paid_attempts(&self, bound: i32, by: &str) -> DbResult<()> {
        self.record_setting("max_paid_attempts", &json!(bound), by)
            .await
    }

    /// What would become of these, without doing it. In the order given.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn plan_restart(
        &self,
        order: &RestartOrder,
        candidates: &[Candidate],
    ) -> DbResult<Vec<Plan>> {
        let mut connection = self.connection().await?;
        plan(&mut connection, order, candidates).await
    }

    /// Puts these jobs back on their way, in one transaction: each due under the next epoch in the stage that the ledger says.
    /// Sends nothing. What no longer stands as it should is refused, so doing it twice is harmless. In the order given.
    ///
    /// # Errors
    /// When the outcome is not known; doing it again is harmless.
    pub async fn restart(
        &self,
        order: &RestartOrder,
        candidates: &[Candidate],
        pace: &mut Pace,
    ) -> DbResult<Vec<Plan>> {
        let mut next = *pace;
        let mut connection = self.connection().await?;
        let plans = connection
            .transaction(async |connection| restart(connection, order, candidates, &mut next).await)
            .await?;
        *pace = next;
        Ok(plans)
    }
}

/// What [`Db::restart`] does, in the transaction that is open.
pub(super) async fn restart(
    connection: &mut AsyncPgConnection,
    order: &RestartOrder,
    candidates: &[Candidate],
    pace: &mut Pace,
) -> DbResult<Vec<Plan>> {
    let mut jobs: Vec<Uuid> = candidates.iter().map(|candidate| candidate.job).collect();
    jobs.sort_unstable();
    // While these are locked nothing is claimed or settled for the jobs, so what is read stays true.
    for lock in [
        "SELECT id FROM video_jobs WHERE id = ANY($1) ORDER BY id FOR UPDATE",
        "SELECT job_id FROM job_stages WHERE job_id = ANY($1) ORDER BY job_id FOR UPDATE",
    ] {
        diesel::sql_query(lock)
            .bind::<Array<SqlUuid>, _>(&jobs)
            .execute(connection)
            .await?;
    }
    let plans = plan(connection, order, candidates).await?;
    let mut writes = Vec::new();
    for (candidate, plan) in candidates.iter().zip(&plans) {
        if let Ok(to) = plan.to {
            writes.push(write(order, candidate, plan, to, pace.next));
            pace.next += pace.step;
        }
    }
    diesel::sql_query("SELECT restart_job(r) FROM unnest($1::jsonb[]) r")
        .bind::<Array<Jsonb>, _>(writes)
        .execute(connection)
        .await?;
    Ok(plans)
}

pub(super) async fn plan(
    connection: &mut AsyncPgConnection,
    order: &RestartOrder,
    candidates: &[Candidate],
) -> DbResult<Vec<Plan>> {
    let jobs: Vec<Uuid> = candidates.iter().map(|candidate| candidate.job).collect();
    let rows: Vec<Row> = diesel::sql_query(STANDING)
        .bind::<Array<SqlUuid>, _>(&jobs)
        .bind::<Integer, _>(PAID_ATTEMPTS)
        .load(connection)
        .await?;
    let mut rows: std::collections::HashMap<Uuid, Row> =
        rows.into_iter().map(|row| (row.id, row)).collect();
    candidates
        .iter()
        .enumerate()
        .map(|(index, candidate)| {
            let refused = |refusal| Plan {
                job: candidate.job,
                to: Err(refusal),
                last_cost: None,
                then_inpaints: false,
                forgive: 0,
            };
            if candidates[..index]
                .iter()
                .any(|other| other.job == candidate.job)
            {
                return Ok(refused(Refusal::MovedOn));
            }
            match rows.remove(&candidate.job) {
                Some(row) => row.plan(order, *candidate),
                None => Ok(refused(Refusal::JobGone)),
            }
        })
        .collect()
}

impl Row {
    fn plan(self, order: &RestartOrder, candidate: Candidate) -> DbResult<Plan> {
        let mut plan = Plan {
            job: candidate.job,
            to: Err(Refusal::InvalidJob),
            last_cost: None,
            then_inpaints: false,
            forgive: 0,
        };
        let row = match (&self.state, self.epoch) {
            (Some(state), Some(epoch)) => Some((state.parse()?, epoch)),
            _ => None,
        };
        let found = Found {
            status: self.status.parse().ok(),
            row,
        };
        if let Some(refusal) = refusal(found, candidate.letter_epoch) {
            plan.to = Err(refusal);
            return Ok(plan);
        }
        let Ok(spec) = JobSpec::from_row(
            readable(self.processing_config).as_ref(),
            readable(self.segments_data).as_ref(),
            readable(self.job_metadata).as_ref(),
        ) else {
            return Ok(plan);
        };
        let to = resume(&Standing {
            wants: Wants {
                segments: spec.has_segments(),
                effects: spec.has_effects(),
            },
            source_ready: self.source_ready,
            sync: part(self.sync_state.as_deref(), self.sync_work_failed)?,
            ghostcut: part(self.ghostcut_state.as_deref(), self.ghostcut_work_failed)?,
        });
        plan.to = Ok(to);
        plan.then_inpaints = spec.has_effects() && is_beyond(Stage::InpaintSubmit, to.stage);
        if let Some(vendor) = to.pays() {
            let (failed, cost) = match vendor {
                Vendor::Sync => (self.sync_failed, self.sync_cost),
                Vendor::Ghostcut => (self.ghostcut_failed, self.ghostcut_cost),
            };
            plan.last_cost = cost;
            let beyond = failed - self.max_paid_attempts + 1;
            if beyond > 0 && !order.another_attempt {
                plan.to = Err(Refusal::AttemptsExhausted);
            }
            plan.forgive = beyond.max(0);
        }
        Ok(plan)
    }
}

fn part(state: Option<&str>, work_failed: bool) -> DbResult<Part> {
    Ok(match state {
        None => Part::Nothing,
        // The word of the SQL function `job_part`.
        Some("foreign") => Part::Foreign,
        Some(state) => Part::Submitted {
            state: state.parse()?,
            work_failed,
        },
    })
}

/// What the SQL function `restart_job` takes.
fn write(
    order: &RestartOrder,
    candidate: &Candidate,
    plan: &Plan,
    to: Resume,
    after: Duration,
) -> Value {
    let inpainting = is_beyond(to.stage, Stage::InpaintSubmit);
    let kind = match candidate.letter_epoch {
        Some(_) => "replayed",
        None => "retried",
    };
    json!({
        "job": plan.job,
        "stage": to.stage,
        "delay_ms": millis(after),
        "by": order.by,
        "reason": order.reason,
        "kind": kind,
        "how": to.how,
        "status": JobStatus::Processing,
        "message": inpainting.then_some(progress::INPAINT_MESSAGE),
        "vendor": to.stage.vendor(),
        "forgive": plan.forgive,
        "operation": order.operation,
    })
}
