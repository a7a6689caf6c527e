//! Every step that anybody can take, with the file of the real code that takes it. The comments `Model: step X` there lead back.

use std::fmt;

use crate::process::Kind;
use crate::state::{Attempt, Failure, WorkId};

/// What the broker does with a published message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Confirm {
    /// In the queue, confirmed.
    Taken,
    /// In the queue, but the confirm was lost.
    Unheard,
    /// Not in the queue.
    Refused,
}

/// A step. Numbers are processes, attempts or works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// `shared/src/db/dispatch.rs`, `pick_due`
    PickDue(usize),
    /// `producer/src/dispatcher.rs`, `publish`
    Publish {
        /// Who.
        producer: usize,
        /// What came of it.
        confirm: Confirm,
    },
    /// `shared/src/db/dispatch.rs`, `put_back`
    PutBack(usize),
    /// A producer is killed.
    CrashProducer(usize),

    /// A message is delivered twice.
    Repeat,
    /// A message is lost.
    Lose,

    /// `shared/src/db/load.rs`, `start`, and the stage's first decision
    Load {
        /// Who.
        worker: usize,
        /// The tries or starts are spent.
        spent: bool,
    },
    /// `worker/src/submission.rs`, `pay`; SQL `claim`
    Claim(usize),
    /// `worker/src/submission.rs`, `pay`: the one send of a claim
    Send(usize),
    /// `worker/src/stages/lipsync_submit.rs`, `replay`
    Replay(usize),
    /// `worker/src/submission.rs`, `answered`: no answer within the budget
    TimeOut(usize),
    /// `worker/src/stages/inpaint_reconcile.rs` and `lipsync_submit.rs`, `search`
    Search {
        /// Who.
        worker: usize,
        /// The list shows another work of ours.
        control: bool,
    },
    /// `worker/src/stages/inpaint_reconcile.rs`, `delete_source`
    DeleteSource(usize),
    /// `worker/src/stages/poll.rs`, `decide`
    Poll {
        /// Who.
        worker: usize,
        /// See `Protocol::poll`.
        again: bool,
    },
    /// `worker/src/stages/poll.rs`, `redo`: the claim in the ledger
    ClaimRedo(usize),
    /// `worker/src/stages/poll.rs`, `redo`: the request
    SendRedo(usize),
    /// `worker/src/settle.rs`; SQL `settle`
    Settle(usize),
    /// `worker/src/consumer.rs`, `handle`
    Ack(usize),
    /// A worker is killed.
    CrashWorker(usize),

    /// A paid request reaches the vendor.
    Arrive {
        /// Of this submission.
        attempt: Attempt,
        /// Which.
        kind: Kind,
        /// The vendor refuses it for a passing reason (key, plan, points).
        refused: bool,
        /// The worker that sees the answer; none: the answer is lost.
        heard_by: Option<usize>,
    },
    /// A work ends.
    Finish {
        /// Which.
        work: WorkId,
        /// None: as a success.
        failure: Option<Failure>,
    },
    /// The vendor's list catches up with a work.
    List(WorkId),
    /// The replaced system pays for the job and puts the id into its row.
    OldSystemPays,

    /// The row's lease is over.
    LeaseOver,
    /// A submission's send deadline is over.
    DeadlineOver(Attempt),
    /// The source has been gone for the settle time.
    SettleTimeOver(Attempt),
    /// The replay window is over; the vendor forgets the key.
    WindowOver(Attempt),

    /// `producer/src/sweeps.rs`, `expire_claims`
    ExpireClaim(Attempt),
    /// `producer/src/sweeps.rs`, `follow`
    SweepLook(Attempt),
    /// `producer/src/sweeps.rs`, `note`
    SweepNote,
    /// `shared/src/db/callbacks.rs`, `store_callback`
    StoreCallback(Attempt),
    /// `producer/src/callbacks.rs`, `process`
    ProcessCallback(Attempt),

    /// A person cancels the job.
    Cancel,
    /// A person replays a dead job, retries a canceled or failed one, or goes on with a parked one.
    Retry,
    /// A person confirms that the vendor did not take a submission.
    ConfirmNotAccepted(Attempt),
    /// A person adopts the work that a submission became.
    Adopt(Attempt),
}

impl Step {
    /// Whether it is no fault and nobody's intervention: what goes on when nothing more goes wrong.
    #[must_use]
    pub const fn is_calm(&self) -> bool {
        !matches!(
            self,
            Self::CrashProducer(_)
                | Self::CrashWorker(_)
                | Self::Publish {
                    confirm: Confirm::Unheard | Confirm::Refused,
                    ..
                }
                | Self::Repeat
                | Self::Lose
                | Self::Load { spent: true, .. }
                | Self::Arrive { refused: true, .. }
                | Self::OldSystemPays
                | Self::Cancel
                | Self::Retry
                | Self::ConfirmNotAccepted(_)
                | Self::Adopt(_)
        )
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Arrive {
                attempt,
                kind,
                refused,
                heard_by,
            } => {
                write!(f, "{kind:?} of attempt {attempt} arrives")?;
                if *refused {
                    write!(f, ", is refused")?;
                }
                match heard_by {
                    Some(worker) => write!(f, ", worker {worker} sees the answer"),
                    None => write!(f, ", the answer is lost"),
                }
            }
            other => write!(f, "{other:?}"),
        }
    }
}
