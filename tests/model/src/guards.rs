//! The guards of the protocol. Each can be taken out, and then the checker must find what it was for.

/// One guard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Guard {
    /// The intent is committed before anything is sent (I2): SQL `claim`.
    ClaimBeforeSend,
    /// An unknown submission occupies the slot (I1): `ledger_occupies`.
    UnknownOccupies,
    /// The deadline is checked right before the send (I2): `submission::pay`.
    Deadline,
    /// A move without news is fenced by the epoch (I7): SQL `settle`.
    Epoch,
    /// Acknowledged only after the commit (I4): `StageConsumer::handle`.
    CommitBeforeAck,
    /// An id in the job's row is not overwritten (I4): SQL `settle_fact`.
    CompareAndSet,
    /// Absent only if the list shows another work of ours (I3): `domain::search::weigh`.
    Control,
    /// The source is deleted before a work counts as absent (I3): `inpaint_reconcile::delete_source`.
    DeleteSource,
    /// And the list has the settle time to catch up (I3).
    SettleTime,
    /// A replay of the dead sends nothing by itself; the ledger decides.
    LedgerDecidesReplay,
    /// What no stage follows is swept (I6): `LedgerSweep`.
    Sweep,
    /// A job is not given up while something may be paid (I6): SQL `settle`.
    AliveNeverDead,
    /// A refusal of a Sync.so replay says nothing about the first send (I3): `lipsync_submit::replay`.
    ReplayRefusalProvesNothing,
    /// Nor does a refusal of the first send that comes after replays began (I3).
    LateRefusalProvesNothing,
    /// The replay window is checked right before the replay is sent (I2).
    ReplayInTime,
    /// A person confirms "not accepted" only when nothing can be sent any more (I3).
    ConfirmWhenOver,
    /// A redo is claimed only by the epoch's holder, and only for a job that wants its result (I2, I7).
    RedoFenced,
    /// A redo is sent only while the lease holds (I2).
    RedoInTime,
    /// The sweep writes a failure only while no stage follows the submission and no redo came between (I7).
    SweepFenced,
    /// While a redo may still be on its way, a failure that shows is the old one (I3): `poll::redone_lately`.
    RedoPatience,
    /// Only the work's status ends `redoing`; a late answer or find of the submission does not (I7): SQL `settle_fact`.
    StatusEndsRedo,
    /// A poll that finds no work of the job's own goes back to submit, where the ledger decides (I6): `poll::run`.
    PollGoesBack,
}

/// All guards.
pub const GUARDS: &[Guard] = &[
    Guard::ClaimBeforeSend,
    Guard::UnknownOccupies,
    Guard::Deadline,
    Guard::Epoch,
    Guard::CommitBeforeAck,
    Guard::CompareAndSet,
    Guard::Control,
    Guard::DeleteSource,
    Guard::SettleTime,
    Guard::LedgerDecidesReplay,
    Guard::Sweep,
    Guard::AliveNeverDead,
    Guard::ReplayRefusalProvesNothing,
    Guard::LateRefusalProvesNothing,
    Guard::ReplayInTime,
    Guard::ConfirmWhenOver,
    Guard::RedoFenced,
    Guard::RedoInTime,
    Guard::SweepFenced,
    Guard::RedoPatience,
    Guard::StatusEndsRedo,
    Guard::PollGoesBack,
];
