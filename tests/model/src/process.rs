//! What each process has in hand: facts and moves on their way to a settlement, and what it does next.
//!
//! Must not decide anything: the steps do.

use crate::state::{Attempt, Ledger, Stage, WorkId};

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// The one send of a claim.
    First,
    /// Sync.so: the same bytes under the same key.
    Replay,
    /// GhostCut: run the failed work again.
    Redo,
}

/// A paid request on its way. It arrives whenever it likes.
pub(crate) type Request = (Attempt, Kind);

/// What was learned about a submission.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fact {
    /// About which.
    pub attempt: Attempt,
    /// What it becomes.
    pub becomes: Becomes,
    /// The vendor's id.
    pub work: Option<WorkId>,
    /// Where it comes from.
    pub from: From,
}

/// Where a fact comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum From {
    /// The answer to the request, a search, a callback, or a look at our own clock.
    Submission,
    /// The status of the work.
    Status,
    /// The ledger itself: a paid duplicate takes the job's place.
    Promotion,
}

/// The states that a fact can bring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Becomes {
    Unknown,
    Accepted,
    Redoing,
    Succeeded,
    NotSent,
    Rejected,
    ReplayRejected,
    Failed,
    Absent,
}

impl Becomes {
    /// The ledger's word.
    #[must_use]
    pub const fn state(self) -> Ledger {
        match self {
            Self::Unknown => Ledger::Unknown,
            Self::Accepted => Ledger::Accepted,
            Self::Redoing => Ledger::Redoing,
            Self::Succeeded => Ledger::Succeeded,
            Self::NotSent => Ledger::NotSent,
            Self::Rejected | Self::ReplayRejected => Ledger::Rejected,
            Self::Failed => Ledger::Failed,
            Self::Absent => Ledger::Absent,
        }
    }
}

/// What a settlement does to the row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Move {
    /// Only the fact.
    None,
    /// The same stage again.
    Later,
    /// Another stage, now.
    To(Stage),
    /// To polling, also by a stale actor if its fact is new (`from`).
    Accepted,
    /// Waits for a person.
    Park,
    /// Dead letter.
    GiveUp,
    /// The row goes: the job's own fault.
    Fail,
    /// The row goes: done.
    Complete,
    /// The row goes: somebody else ended the job.
    Over,
}

/// What a run of a stage came to (`worker/src/run.rs`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Run {
    /// For the ledger.
    pub fact: Option<Fact>,
    /// For the row.
    pub then: Move,
}

/// What a worker does next. Between two of these it may freeze for ever or be killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Doing {
    /// Nothing in hand.
    Idle,
    /// Prepared; has to claim this attempt.
    Claim(Attempt),
    /// Its claim stood; has to send.
    Send(Attempt),
    /// Decided to repeat the request under its key.
    Replay(Attempt),
    /// The bytes are out.
    Await(Attempt, Kind),
    /// Has to look at the vendor's list.
    Search {
        /// For this one.
        attempt: Attempt,
        /// Whether not finding it may decide.
        deciding: bool,
    },
    /// Has to delete the submission's source.
    DeleteSource(Attempt),
    /// Has to ask for the status.
    Poll {
        /// Of this one.
        attempt: Attempt,
        /// Its state when the rows were read.
        was: Ledger,
        /// Whether it had been redone then.
        redone: bool,
    },
    /// Has to claim a redo in the ledger.
    ClaimRedo(Attempt),
    /// May ask for the redo.
    SendRedo(Attempt),
    /// Has to commit.
    Settle(Run),
    /// Has committed; has to acknowledge.
    Ack,
}

/// A worker process, with one delivery at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Worker {
    /// What it does next.
    pub doing: Doing,
    /// Its epoch is the row's.
    pub current: bool,
    /// It has a delivery that is not acknowledged.
    pub holds: bool,
}

impl Worker {
    /// Just started.
    pub const IDLE: Self = Self {
        doing: Doing::Idle,
        current: false,
        holds: false,
    };
}

/// A dispatcher.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Producer {
    /// Between batches.
    Idle,
    /// Has committed; has to publish.
    Publish {
        /// Its epoch is the row's.
        current: bool,
    },
    /// The broker did not confirm; has to put the row back.
    PutBack {
        /// Its epoch is the row's.
        current: bool,
    },
}

/// What the ledger sweep saw at the vendor and has not written yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Sighting {
    /// Of which submission.
    pub attempt: Attempt,
    /// Its state when it was picked.
    pub was: Ledger,
    /// Whether it had been redone then.
    pub redone: bool,
    /// The work succeeded.
    pub succeeded: bool,
}
