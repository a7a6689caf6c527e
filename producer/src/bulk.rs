//! Operations on many jobs or dead letters: what a selection is, how large it is, and the loop that carries them out. A piece is one
//! transaction of `shared::db`, so this may be killed anywhere; of several producers one does a piece at a time.

use std::time::Duration;

use serde_json::Value;
use shared::crash::{self, Point};
use shared::db::{
    Candidate, Db, DbError, DbResult, JobFilter, LetterFilter, MAX_GROUPS, NewOperation,
    RestartOrder,
};
use shared::domain::JobStatus;
use shared::domain::bulk::{BulkAction, BulkState, fits};
use shared::telemetry::chain;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::replay::{self, PIECE, Tally};

/// A selection is counted up to here.
pub const COUNT_CAP: u64 = 10_000;
/// And in so many pages, each of which may look at many jobs to find a few.
const COUNT_PAGES: usize = 20;

/// Why another status cannot be retried.
pub const RETRIED: &str = "must be `failed` or `canceled`: only what has ended so is retried";

/// Whether jobs in this status can be put back on their way.
#[must_use]
pub const fn may_be_retried(status: JobStatus) -> bool {
    matches!(status, JobStatus::Failed | JobStatus::Canceled)
}

/// Which jobs or dead letters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selection {
    /// Jobs.
    Jobs(JobFilter),
    /// Dead letters.
    Letters(LetterFilter),
}

/// How large a selection is.
#[derive(Clone, Debug)]
pub struct Counted {
    /// How many.
    pub count: u64,
    /// There may be more: counting has stopped.
    pub capped: bool,
    /// What would become of them, where jobs are put back.
    pub tally: Option<Tally>,
}

/// An operation that somebody wants.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// What is done to each.
    pub action: BulkAction,
    /// To which.
    pub selection: Selection,
    /// Who, why, and whether with another paid attempt.
    pub order: RestartOrder,
    /// Replay one of each group first.
    pub canary: bool,
    /// At most so many are changed in a minute.
    pub per_minute: Option<u32>,
    /// How many there should be.
    pub expect: Option<u64>,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Begun {
    /// It goes on by itself under this number.
    Yes(i64),
    /// There are so many, and others were expected.
    Differs {
        /// What was expected.
        expected: u64,
        /// What is there.
        count: u64,
    },
    /// There are more groups than canaries can be looked at.
    TooManyGroups,
}

impl Selection {
    /// What a filter means for this action: a cancel is of what is not over, a resume of what is parked or waits for its time and a
    /// retry of what failed unless a state or status is asked for.
    #[must_use]
    pub fn for_action(action: BulkAction, mut jobs: JobFilter, letters: LetterFilter) -> Self {
        match action {
            BulkAction::Cancel => jobs.unfinished = true,
            BulkAction::Resume => jobs.resumable = jobs.state.is_none(),
            BulkAction::Retry => jobs.status = jobs.status.or(Some(JobStatus::Failed)),
            BulkAction::Replay | BulkAction::Discard => return Self::Letters(letters),
        }
        Self::Jobs(jobs)
    }

    fn to_json(&self) -> DbResult<Value> {
        let json = match self {
            Self::Jobs(filter) => serde_json::to_value(filter),
            Self::Letters(filter) => serde_json::to_value(filter),
        };
        json.map_err(|error| DbError::Value(error.to_string()))
    }
}

/// Counts a selection and says what would become of it.
///
/// # Errors
/// When the database is away.
pub async fn count(db: &Db, wanted: &Wanted) -> DbResult<Counted> {
    match &wanted.selection {
        Selection::Letters(filter) => count_letters(db, filter, wanted).await,
        Selection::Jobs(filter) => count_jobs(db, filter, wanted).await,
    }
}

async fn count_letters(db: &Db, filter: &LetterFilter, wanted: &Wanted) -> DbResult<Counted> {
    let tally = replay::preview(db, filter, &wanted.order, COUNT_CAP).await?;
    Ok(Counted {
        count: tally.letters,
        capped: tally.letters >= COUNT_CAP,
        tally: (wanted.action == BulkAction::Replay).then_some(tally),
    })
}

async fn count_jobs(db: &Db, filter: &JobFilter, wanted: &Wanted) -> DbResult<Counted> {
    let (mut before, mut jobs) = (None, Vec::<Uuid>::new());
    let mut capped = true;
    for _ in 0..COUNT_PAGES {
        let missing = COUNT_CAP.saturating_sub(jobs.len() as u64);
        let limit = i64::try_from(missing).unwrap_or(i64::MAX);
        let (places, next) = db.job_places(filter, before, limit).await?;
        jobs.extend(places.iter().map(|place| place.id));
        before = next;
        if next.is_none() {
            capped = false;
        }
        if next.is_none() || jobs.len() as u64 >= COUNT_CAP {
            break;
        }
    }
    let mut tally = None;
    if wanted.action == BulkAction::Retry {
        let tally = tally.insert(Tally::default());
        for jobs in jobs.chunks(PIECE as usize) {
            let candidates: Vec<_> = jobs
                .iter()
                .map(|job| Candidate {
                    job: *job,
                    letter_epoch: None,
                })
                .collect();
            for plan in db.plan_restart(&wanted.order, &candidates).await? {
                tally.count(plan.to, plan.last_cost, plan.then_inpaints);
            }
        }
    }
    Ok(Counted {
        count: jobs.len() as u64,
        capped,
        tally,
    })
}

/// Counts a selection and begins an operation on it.
///
/// # Errors
/// When the outcome is not known. What begins twice finds the second time nothing that is left to do.
pub async fn begin(db: &Db, mut wanted: Wanted) -> DbResult<Begun> {
    if let Selection::Letters(filter) = &mut wanted.selection {
        // What dies again meanwhile is not of the selection.
        filter.upto = Some(db.newest_letter().await?);
        if wanted.canary {
            let groups = db.letter_groups(filter, None, MAX_GROUPS + 1).await?;
            if groups.len() as i64 > MAX_GROUPS {
                return Ok(Begun::TooManyGroups);
            }
        }
    }
    let Counted { count, capped, .. } = count(db, &wanted).await?;
    if let Some(expected) = wanted.expect
        && !fits(expected, count, capped)
    {
        return Ok(Begun::Differs { expected, count });
    }
    let new = NewOperation {
        action: wanted.action,
        filter: wanted.selection.to_json()?,
        by: &wanted.order.by,
        reason: &wanted.order.reason,
        another_attempt: wanted.order.another_attempt,
        canary: wanted.canary,
        per_minute: wanted.per_minute.and_then(|n| i32::try_from(n).ok()),
        total: i64::try_from(count).unwrap_or(i64::MAX),
        capped,
    };
    let id = db.begin_operation(&new).await?;
    crash::point(Point::OperationBegun);
    Ok(Begun::Yes(id))
}

/// Carries operations out.
pub struct Bulk {
    /// Database.
    pub db: Db,
}

impl Bulk {
    /// Does pieces until told to stop, looking for due ones every `every`.
    pub async fn run(self, every: Duration, stop: CancellationToken) {
        while !stop.is_cancelled() {
            // Not cut off half-way: only the pause ends early.
            match self.round(&stop).await {
                Ok(true) => continue,
                Ok(false) => {}
                Err(error) => tracing::warn!(error = chain(&error), "cannot go on with operations"),
            }
            stop.run_until_cancelled(tokio::time::sleep(every)).await;
        }
    }

    /// A piece of each operation that is due. False: none was.
    async fn round(&self, stop: &CancellationToken) -> DbResult<bool> {
        let mut any = false;
        for id in self.db.due_operations().await? {
            if stop.is_cancelled() {
                break;
            }
            match self.db.operation_piece(id).await {
                Ok(None) => {}
                Ok(Some(piece)) => {
                    any = true;
                    crash::point(Point::OperationPieceDone);
                    if piece.changed > 0 {
                        // A hint: dispatch has a timer.
                        let _ = self.db.notify_due().await;
                    }
                    if piece.state != BulkState::Running {
                        tracing::info!(operation = id, state = %piece.state, "an operation has come to this");
                    }
                }
                Err(error) if error.is_transient() => return Err(error),
                Err(error) => {
                    let error = chain(&error).to_string();
                    tracing::error!(operation = id, error, "an operation failed");
                    self.db.fail_operation(id, &error).await?;
                }
            }
        }
        Ok(any)
    }
}
