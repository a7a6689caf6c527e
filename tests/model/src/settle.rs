//! SQL `claim` and `settle` (`migrations/*_protocol/up.sql`), line by line but for what costs nothing: money, texts, pauses.
//!
//! Must not know who calls: a worker, the sweep, a callback or a person.

use crate::guards::Guard;
use crate::process::{Becomes, Fact, From, Move, Run};
use crate::protocol::Protocol;
use crate::state::{
    Attempt, Ledger, Row, RowState, Source, Stage, State, Status, Submission, Vendor, WorkId,
};

/// What `claim` answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claimed {
    /// May send.
    Ours,
    /// The row has an id: polled from now on.
    Imported,
    /// Somebody else's row stands.
    Occupied,
    /// The id in the row is another submission's.
    Conflict,
    /// gone, stale, over, callback, lease.
    NotNow,
}

/// What `settle` answers about a fact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// No fact.
    None,
    /// New.
    Written,
    /// Known before.
    Same,
    /// A state stands that it does not change.
    Kept,
    /// Another work for a token that has one.
    Second,
    /// The id belongs to another submission.
    Taken,
}

impl Protocol {
    /// Whether a state keeps others from being opened.
    #[must_use]
    pub fn occupies(&self, state: Ledger) -> bool {
        state.occupies() && (state != Ledger::Unknown || self.keeps(Guard::UnknownOccupies))
    }

    /// The submission that keeps another from being opened.
    #[must_use]
    pub fn live(&self, state: &State) -> Option<Attempt> {
        (state.ledger.iter()).position(|submission| self.occupies(submission.state))
    }

    fn ended_of(&self, state: &State, work: WorkId) -> bool {
        let of = |submission: &Submission| {
            submission.work == Some(work) && !self.occupies(submission.state)
        };
        state.ledger.iter().any(of)
    }

    fn import(&self, state: &mut State, work: WorkId) -> bool {
        let known = |submission: &Submission| submission.work == Some(work);
        if self.live(state).is_some() || state.ledger.iter().any(known) {
            return false;
        }
        state.ledger.push(Submission {
            state: Ledger::Accepted,
            work: Some(work),
            imported: true,
            deadline_over: true,
            ..NEW
        });
        true
    }

    /// Step `Claim`.
    pub fn claim(&self, state: &mut State, current: bool, attempt: Attempt) -> Claimed {
        let fenced = current && state.in_lease();
        if !fenced || !state.is_active() || state.ledger.iter().any(|sub| sub.callback) {
            return Claimed::NotNow;
        }
        if let Some(present) = state.metadata
            && !self.ended_of(state, present)
        {
            return if self.import(state, present) {
                Claimed::Imported
            } else if self.live(state).is_some() {
                Claimed::Occupied
            } else {
                Claimed::Conflict
            };
        }
        if self.live(state).is_some() || state.ledger.len() != attempt {
            return Claimed::Occupied;
        }
        state.ledger.push(NEW);
        Claimed::Ours
    }

    /// Step `Settle`. `current`: whether the caller's epoch is the row's.
    pub fn settle(&self, state: &mut State, current: bool, run: Run) -> Verdict {
        let fenced = current && state.is_dispatched();
        let mut then = run.then;
        let mut verdict = Verdict::None;
        let mut ours = true;
        if let Some(fact) = run.fact {
            let was = state.ledger[fact.attempt].state;
            ours = self.occupies(was) || self.live(state).is_none();
            let other;
            (verdict, other) = self.settle_fact(state, fact);
            let foreign = other && ours && {
                let present = state.metadata;
                !present.is_some_and(|present| self.import(state, present))
            };
            if foreign || verdict == Verdict::Taken {
                then = Move::Park;
            } else if verdict == Verdict::Kept || verdict == Verdict::Second && then != Move::None {
                then = Move::Later;
            }
        }
        let alive = |submission: &Submission| {
            submission.state.occupies() && submission.state != Ledger::Succeeded
        };
        if then == Move::GiveUp
            && state.ledger.iter().any(alive)
            && self.keeps(Guard::AliveNeverDead)
        {
            then = Move::Later;
        }
        if let Some(row) = state.row
            && then != Move::None
            && ours
        {
            let by_fact = verdict == Verdict::Written
                && row.state != RowState::Dead
                && then == Move::Accepted
                && row.stage != Stage::Poll;
            let unfenced = !self.keeps(Guard::Epoch);
            if fenced || by_fact || unfenced {
                state.crimes.stale_moved |= !fenced && !by_fact;
                apply(state, row, then);
            }
        }
        verdict
    }

    /// SQL `settle_fact`: the verdict, and whether the job's row has somebody else's id.
    fn settle_fact(&self, state: &mut State, fact: Fact) -> (Verdict, bool) {
        let sub = state.ledger[fact.attempt];
        let mut becomes = fact.becomes.state();
        let known = matches!(
            sub.state,
            Ledger::Accepted | Ledger::Succeeded | Ledger::Failed
        );
        let old = becomes == Ledger::Accepted
            && sub.state == Ledger::Redoing
            && fact.from == From::Submission
            && self.keeps(Guard::StatusEndsRedo);
        let written = if old
            || becomes == Ledger::Accepted
                && (known || sub.state == Ledger::Duplicate && fact.from != From::Promotion)
            || becomes == sub.state
        {
            if fact.work.is_some() && sub.work.is_some() && fact.work != sub.work && !sub.imported {
                return (Verdict::Second, false);
            }
            becomes = sub.state;
            false
        } else if !self.may_become(sub.state, fact.becomes) {
            return (Verdict::Kept, false);
        } else {
            true
        };
        let taken = |(at, other): (usize, &Submission)| {
            at != fact.attempt && fact.work.is_some() && other.work == fact.work
        };
        if state.ledger.iter().enumerate().any(taken) {
            return (Verdict::Taken, false);
        }
        let mut other = false;
        let mut set = false;
        if written && becomes == Ledger::Accepted && sub.state != Ledger::Redoing {
            let counts = state.metadata.is_some_and(|present| {
                Some(present) != fact.work && !self.ended_of(state, present)
            });
            let occupied = !self.occupies(sub.state) && self.live(state).is_some();
            if (counts || occupied) && self.keeps(Guard::CompareAndSet) {
                becomes = Ledger::Duplicate;
                other = true;
            } else {
                set = true;
                state.crimes.overwritten |= counts;
            }
        }
        let sub = &mut state.ledger[fact.attempt];
        sub.redone |= becomes == Ledger::Redoing;
        sub.state = becomes;
        sub.work = fact.work.or(sub.work);
        if set {
            state.metadata = fact.work;
        }
        let verdict = if written {
            Verdict::Written
        } else {
            Verdict::Same
        };
        (verdict, other)
    }

    /// The ledger's edges, less one: what the first send was told after replays began proves nothing.
    fn may_become(&self, was: Ledger, becomes: Becomes) -> bool {
        let late_refusal = was == Ledger::Unknown && becomes == Becomes::Rejected;
        was.may_become(becomes.state())
            && !(late_refusal
                && self.vendor == Vendor::Sync
                && self.keeps(Guard::LateRefusalProvesNothing))
    }
}

/// A fresh claim.
pub(crate) const NEW: Submission = Submission {
    state: Ledger::Claimed,
    work: None,
    imported: false,
    deadline_over: false,
    searched: false,
    source: Source::There,
    window_over: false,
    redone: false,
    callback: false,
    duplicate_ended: None,
};

/// A fact about an attempt.
#[must_use]
pub(crate) const fn fact(attempt: Attempt, becomes: Becomes) -> Fact {
    Fact {
        attempt,
        becomes,
        work: None,
        from: From::Submission,
    }
}

/// SQL `move_stage` and `patch_job`.
fn apply(state: &mut State, row: Row, then: Move) {
    let at = |stage, state| Some(Row { stage, state });
    let next = match then {
        Move::None => return,
        Move::Later => at(row.stage, RowState::Waiting),
        Move::To(stage) => at(stage, RowState::Waiting),
        Move::Accepted => at(Stage::Poll, RowState::Waiting),
        Move::Park => at(row.stage, RowState::Parked),
        Move::GiveUp => at(row.stage, RowState::Dead),
        Move::Fail | Move::Complete | Move::Over => None,
    };
    state.put_row(next);
    if state.is_active() {
        state.status = match then {
            Move::GiveUp | Move::Fail => Status::Failed,
            Move::Complete => Status::Completed,
            _ => Status::Active,
        };
    }
}
