//! What the model remembers: the database, the broker, the vendor and the processes, for one job and one vendor.
//!
//! Must not decide anything: the steps do. Epochs are not counted: whoever holds one only asks whether it is still the row's,
//! and once it is not it never is again. So each holder has a flag, and the state space is finite without a bound on time.

use std::hash::{Hash, Hasher};

use crate::process::{Producer, Request, Sighting, Worker};

/// Which vendor the job pays, and so which way unknown outcomes are cleared up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Vendor {
    /// Replays by key.
    Sync,
    /// Has to be searched.
    Ghostcut,
}

/// Index of a submission in the ledger: the attempt number, from 0.
pub(crate) type Attempt = usize;
/// Index of a work at the vendor: its id.
pub(crate) type WorkId = usize;

/// `job_stages.stage`. Storing the result costs nothing and may be repeated, so it is part of `Poll`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Stage {
    /// `lipsync.submit`, `inpaint.submit`
    Submit,
    /// `inpaint.reconcile`
    Reconcile,
    /// `lipsync.poll`, `inpaint.poll`
    Poll,
}

/// `job_stages.state`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RowState {
    /// Due now or later: delays that guard nothing are left out.
    Waiting,
    /// Out, until the lease is over.
    Dispatched {
        /// Then it is due again.
        lease_over: bool,
    },
    /// Waits for a person.
    Parked,
    /// Given up.
    Dead,
}

/// The row of `job_stages`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Row {
    /// Where the job is.
    pub stage: Stage,
    /// Whether it can move.
    pub state: RowState,
}

/// `video_jobs.status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Status {
    /// Queued, uploading or processing.
    Active,
    /// By a person.
    Canceled,
    /// Its own fault, or given up.
    Failed,
    /// With a result.
    Completed,
}

/// `submissions.state`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Ledger {
    /// Committed, may be sent until its deadline.
    Claimed,
    /// Perhaps sent.
    Unknown,
    /// At the vendor.
    Accepted,
    /// Perhaps asked to run it again.
    Redoing,
    /// Done.
    Succeeded,
    /// Proved: not sent.
    NotSent,
    /// Refused.
    Rejected,
    /// Failed at the vendor.
    Failed,
    /// Proved: not there.
    Absent,
    /// There, but another one is the job's.
    Duplicate,
}

impl Ledger {
    /// SQL `ledger_occupies`.
    #[must_use]
    pub const fn occupies(self) -> bool {
        matches!(
            self,
            Self::Claimed | Self::Unknown | Self::Accepted | Self::Redoing | Self::Succeeded
        )
    }

    /// SQL `ledger_edge`.
    #[must_use]
    pub const fn may_become(self, next: Self) -> bool {
        use Ledger as L;
        matches!(
            (self, next),
            (
                L::Claimed,
                L::Accepted | L::Rejected | L::NotSent | L::Unknown | L::Duplicate
            ) | (
                L::Unknown,
                L::Accepted | L::Absent | L::Rejected | L::Duplicate
            ) | (L::Accepted, L::Succeeded | L::Failed | L::Redoing)
                | (L::Redoing | L::Duplicate, L::Accepted)
                | (L::Absent, L::Accepted | L::Duplicate)
        )
    }
}

/// The submission's own source object at GhostCut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// A request with its URL can be paid.
    There,
    /// Deleted: a request that comes now can only fail.
    Deleted,
    /// Deleted for the settle time.
    Settled,
}

/// A row of the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Submission {
    /// What is known.
    pub state: Ledger,
    /// `vendor_task_id`.
    pub work: Option<WorkId>,
    /// Taken over from the job's row, never sent by us.
    pub imported: bool,
    /// `send_deadline` is over.
    pub deadline_over: bool,
    /// The planned searches were made and found nothing.
    pub searched: bool,
    /// GhostCut only.
    pub source: Source,
    /// Sync.so only: the replay window is over, and the vendor may have forgotten the key.
    pub window_over: bool,
    /// `redos` has reached its bound.
    pub redone: bool,
    /// A callback for it is stored and not processed.
    pub callback: bool,
    /// A duplicate whose work has ended: as a failure, or not.
    pub duplicate_ended: Option<bool>,
}

/// How a work fails, by what follows from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Failure {
    /// The job's own fault.
    Permanent,
    /// The input was not readable: dead letter.
    Input,
    /// Sync.so: pay anew. GhostCut: redo.
    Again,
}

/// How a work stands at the vendor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Progress {
    /// Costs money.
    Running,
    /// Cost money.
    Succeeded,
    /// Is not charged.
    Failed(Failure),
}

/// A work at the vendor: the truth about money.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Work {
    /// The submission it came of; none: the replaced system paid for it.
    pub of: Option<Attempt>,
    /// How it stands.
    pub progress: Progress,
    /// The vendor's list has caught up with it.
    pub listed: bool,
}

/// Forbidden moments that no later state shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Crimes {
    /// A paid request left without a claim in the ledger.
    pub sent_unclaimed: bool,
    /// A paid request left after its time.
    pub sent_late: bool,
    /// A row or an intent was moved by somebody whose epoch is over.
    pub stale_moved: bool,
    /// An id that counted was overwritten in the job's row.
    pub overwritten: bool,
    /// A delivery was acknowledged before what it came to was committed.
    pub acked_early: bool,
}

/// Everything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// `video_jobs.status`
    pub status: Status,
    /// The vendor's id in `video_jobs.job_metadata`.
    pub metadata: Option<WorkId>,
    /// `job_stages`
    pub row: Option<Row>,
    /// `submissions`, in the order of attempts.
    pub ledger: Vec<Submission>,
    /// Works at the vendor.
    pub works: Vec<Work>,
    /// Requests on their way, sorted.
    pub network: Vec<Request>,
    /// The vendor's list does not show our works, or not as ours.
    pub blind: bool,
    /// Messages with the row's epoch in the queue. Others are skipped by `Db::start` and left out.
    pub queue: u8,
    /// Worker processes.
    pub workers: Vec<Worker>,
    /// Producer processes.
    pub producers: Vec<Producer>,
    /// The ledger sweep.
    pub sweep: Option<Sighting>,
    /// What should not have happened.
    pub crimes: Crimes,
}

/// Processes of a kind are alike: who of them does something makes no difference.
impl Hash for State {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        let mut workers = self.workers.clone();
        workers.sort_unstable();
        let mut producers = self.producers.clone();
        producers.sort_unstable();
        (self.status, self.metadata, self.row, &self.ledger).hash(hasher);
        (&self.works, &self.network, self.blind, self.queue).hash(hasher);
        (workers, producers, self.sweep, self.crimes).hash(hasher);
    }
}

impl State {
    /// Whether the job still wants its result.
    #[must_use]
    pub fn is_active(&self) -> bool {
        self.status == Status::Active
    }

    /// The row is out under an epoch that is held by whoever is current.
    #[must_use]
    pub fn is_dispatched(&self) -> bool {
        matches!(
            self.row,
            Some(Row {
                state: RowState::Dispatched { .. },
                ..
            })
        )
    }

    /// The row is out and its lease is not over.
    #[must_use]
    pub fn in_lease(&self) -> bool {
        matches!(
            self.row,
            Some(Row {
                state: RowState::Dispatched { lease_over: false },
                ..
            })
        )
    }

    /// The row is gone or given up: no stage follows.
    #[must_use]
    pub fn stands_nowhere(&self) -> bool {
        self.row.is_none_or(|row| row.state == RowState::Dead)
    }

    /// Another copy of the row's message comes into the queue, unless there is one for every worker already.
    pub(crate) fn enqueue(&mut self) {
        let held = self
            .workers
            .iter()
            .filter(|worker| worker.current && worker.holds);
        let copies = held.count() + usize::from(self.queue);
        if copies < self.workers.len() {
            self.queue += 1;
        }
    }

    /// Puts a request on its way. The same one twice at the same time counts once: it may be sent again later.
    pub fn send(&mut self, request: Request) {
        if let Err(at) = self.network.binary_search(&request) {
            self.network.insert(at, request);
        }
    }

    /// The row moves: every message, worker and producer with the old epoch is stale from now on.
    pub fn put_row(&mut self, row: Option<Row>) {
        self.row = row;
        self.queue = 0;
        for worker in &mut self.workers {
            worker.current = false;
        }
        for producer in &mut self.producers {
            *producer = match producer {
                Producer::PutBack { .. } => Producer::PutBack { current: false },
                Producer::Publish { .. } => Producer::Publish { current: false },
                Producer::Idle => Producer::Idle,
            };
        }
    }
}
