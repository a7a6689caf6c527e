//! Everything at one glance: what waits where, what stands, who works. Reads what is unfinished and what an index answers, never
//! what has ended.

use chrono::{DateTime, Utc};
use serde::Serialize;
use shared::db::{BacklogGauge, Db, DbResult, VendorStatus};
use shared::domain::worker_order::WorkerState;
use shared::domain::{Stage, StageState, Vendor};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::held::{Held, Holds};
use crate::status::Status;

/// The overview.
#[derive(Debug, Serialize, ToSchema)]
pub struct Overview {
    /// The database's clock.
    pub at: DateTime<Utc>,
    /// Unfinished jobs by stage, in the order of the pipeline.
    pub stages: Vec<StageCount>,
    /// What stands still or waits for a person.
    pub status: Status,
    /// The accounts.
    pub vendors: Vec<VendorStatus>,
    /// Submissions that were ever paid for twice; both vendors, and 0 is what is wanted.
    pub duplicates_ever: Vec<Duplicates>,
    /// What audits found to be paid for twice and nobody has dealt with, also where only the vendor knows; null: no audit was made yet.
    pub audited_duplicates: Option<usize>,
    /// Works that were ever paid for twice, by the ledger or by an audit, and that somebody has dealt with.
    pub duplicates_dealt_with: i64,
    /// What audits found that is neither repaired nor dealt with: these, and whatever else the last one found.
    pub open_findings: usize,
    /// Submissions whose outcome is unknown.
    pub open_unknowns: i64,
    /// Dead letters that nobody has closed.
    pub open_dead_letters: i64,
    /// Jobs that wait for a person.
    pub parked: i64,
    /// Workers by state.
    pub workers: WorkerCount,
}

/// Unfinished jobs of one stage.
#[derive(Debug, PartialEq, Serialize, ToSchema)]
pub struct StageCount {
    /// The stage.
    pub stage: Stage,
    /// Dispatched when they are due.
    pub waiting: i64,
    /// With a worker, or on the way to one.
    pub dispatched: i64,
    /// For a person.
    pub parked: i64,
    /// Given up.
    pub dead: i64,
    /// Those that are due and not taken up: waiting, or dispatched under a lease that is over.
    pub due: i64,
    /// Workers that take its jobs: neither quiet nor told to stop.
    pub workers: usize,
    /// Those that wait, for their time or for a worker, while no worker takes them; 0 where one does.
    pub unserved: i64,
    /// Those that have failed at least twice in a row in this stage and are tried again: the vendor or the store does not answer.
    pub failing: i64,
    /// What holds the due ones, or all that move; null when nothing does.
    pub held: Option<Held>,
    /// How long the oldest due one waits; null when none is due.
    pub oldest_due_seconds: Option<f64>,
}

/// Submissions of a vendor that were paid for twice.
#[derive(Debug, Serialize, ToSchema)]
pub struct Duplicates {
    /// The vendor.
    pub vendor: Vendor,
    /// How many.
    pub submissions: i64,
    /// Those of them of which nobody has said that they are dealt with (`POST /v1/findings/{token}/acknowledge`).
    pub open: i64,
    /// The jobs of these, ten at most.
    pub jobs: Vec<Uuid>,
}

/// Workers by state.
#[derive(Debug, Default, PartialEq, Serialize, ToSchema)]
pub struct WorkerCount {
    /// At work.
    pub running: i64,
    /// Taking nothing new, as they were asked.
    pub quiet: i64,
    /// Told to stop, finishing what is in hand.
    pub draining: i64,
    /// Not seen for three heartbeats.
    pub lost: i64,
}

impl Overview {
    /// Reads it.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn read(db: &Db) -> DbResult<Self> {
        let backlog = db.backlog_gauges().await?;
        let holds = Holds::read(db).await?;
        let status = Status::of(db, &holds).await?;
        let duplicates = db.duplicates_ever().await?;
        let duplicates = Vendor::ALL.iter().map(|vendor| {
            let found = duplicates.iter().find(|row| row.vendor == vendor.as_str());
            Duplicates {
                vendor: *vendor,
                submissions: found.map_or(0, |row| row.submissions),
                open: found.map_or(0, |row| row.open),
                jobs: found.and_then(|row| row.jobs.clone()).unwrap_or_default(),
            }
        });
        let mut workers = WorkerCount::default();
        for worker in holds.served().workers() {
            *match worker.state.parse()? {
                WorkerState::Running => &mut workers.running,
                WorkerState::Quiet => &mut workers.quiet,
                WorkerState::Draining => &mut workers.draining,
                WorkerState::Lost => &mut workers.lost,
                WorkerState::Stopped => continue,
            } += 1;
        }
        let audits = || status.last_audit.iter().chain(&status.failed_audit);
        let found = db.open_findings(audits()).await?;
        let twice = found.iter().filter(|(_, finding)| finding.is_twice());
        let stages: Vec<_> = Stage::ALL
            .iter()
            .map(|stage| count(*stage, &backlog, &holds))
            .collect();
        Ok(Self {
            at: db.now().await?,
            parked: stages.iter().map(|stage| stage.parked).sum(),
            stages,
            vendors: holds.accounts().to_vec(),
            duplicates_ever: duplicates.collect(),
            audited_duplicates: audits().next().map(|_| twice.count()),
            duplicates_dealt_with: db.duplicates_dealt_with().await?,
            open_findings: found.len(),
            open_unknowns: status.unknown.iter().map(|row| row.unknown).sum(),
            open_dead_letters: status.dead_letters,
            status,
            workers,
        })
    }
}

fn count(stage: Stage, backlog: &[BacklogGauge], holds: &Holds) -> StageCount {
    let rows = || {
        backlog
            .iter()
            .filter(move |row| row.stage == stage.as_str())
    };
    let jobs = |state: StageState| {
        let row = rows().find(|row| row.state == state.as_str());
        row.map_or(0, |row| row.jobs)
    };
    let due: i64 = rows().map(|row| row.due).sum();
    let oldest = rows().map(|row| row.oldest_due_seconds).fold(0.0, f64::max);
    let (waiting, dispatched) = (jobs(StageState::Waiting), jobs(StageState::Dispatched));
    let workers = holds.served().takers(stage);
    let lack = holds.of_sent(stage);
    let unserved = match (workers, &lack) {
        (0, Some(_)) => waiting + dispatched,
        (0, None) => waiting,
        _ => 0,
    };
    let held = holds.of(stage).filter(|_| due > 0);
    StageCount {
        stage,
        waiting,
        dispatched,
        parked: jobs(StageState::Parked),
        dead: jobs(StageState::Dead),
        due,
        workers,
        unserved,
        failing: rows().map(|row| row.failing).sum(),
        held: held.or(lack.filter(|_| unserved > 0)),
        oldest_due_seconds: (oldest > 0.0).then_some(oldest),
    }
}

#[cfg(test)]
mod tests {
    use shared::domain::admission::Refusal;

    use super::*;
    use crate::held::Served;

    #[test]
    fn a_stage_counts_its_own_rows() {
        let row = |stage: Stage, state: StageState, jobs, oldest_due_seconds| BacklogGauge {
            stage: stage.to_string(),
            state: state.to_string(),
            jobs,
            due: i64::from(oldest_due_seconds > 0.0),
            oldest_due_seconds,
            failing: 0,
        };
        let holds = Holds::new(None, Vec::new(), Served::default());
        let backlog = [
            row(Stage::LipsyncPoll, StageState::Waiting, 3, 0.0),
            row(Stage::LipsyncPoll, StageState::Dispatched, 2, 4.5),
            row(Stage::InpaintPoll, StageState::Parked, 1, 0.0),
        ];
        let found = count(Stage::LipsyncPoll, &backlog, &holds);
        assert_eq!(
            (found.waiting, found.dispatched, found.parked, found.dead),
            (3, 2, 0, 0)
        );
        assert_eq!((found.due, found.oldest_due_seconds), (1, Some(4.5)));
        // Sent out or not: nobody takes them.
        let by = found.held.map(|held| held.by);
        assert_eq!((found.workers, found.unserved), (0, 5));
        assert_eq!(by, Some(Refusal::NoWorker));
        let found = count(Stage::InpaintPoll, &backlog, &holds);
        assert_eq!((found.parked, found.oldest_due_seconds), (1, None));
        assert_eq!((found.unserved, found.held), (0, None));
    }
}
