//! The producer's steps: `producer/src/dispatcher.rs`, `shared/src/db/dispatch.rs`, `producer/src/sweeps.rs` and callbacks.

use crate::guards::Guard;
use crate::process::{Becomes, From, Move, Producer, Run, Sighting};
use crate::protocol::Protocol;
use crate::settle::fact;
use crate::state::{Attempt, Ledger, Progress, Row, RowState, State, Work};
use crate::step::{Confirm, Step};

impl Protocol {
    /// What a dispatcher can do now.
    pub(crate) fn producer_steps(&self, state: &State, id: usize, steps: &mut Vec<Step>) {
        match state.producers[id] {
            Producer::Idle => {
                let due = |row: Row| {
                    let over = RowState::Dispatched { lease_over: true };
                    row.state == RowState::Waiting || row.state == over
                };
                if state.row.is_some_and(due) {
                    steps.push(Step::PickDue(id));
                }
                return;
            }
            Producer::Publish { .. } => {
                for confirm in [Confirm::Taken, Confirm::Unheard, Confirm::Refused] {
                    steps.push(Step::Publish {
                        producer: id,
                        confirm,
                    });
                }
            }
            Producer::PutBack { .. } => steps.push(Step::PutBack(id)),
        }
        steps.push(Step::CrashProducer(id));
    }

    /// Step `PickDue`: committed before anything is published.
    pub(crate) fn pick_due(&self, state: &mut State, id: usize) {
        let Some(row) = state.row else { return };
        state.put_row(Some(Row {
            state: RowState::Dispatched { lease_over: false },
            ..row
        }));
        state.producers[id] = Producer::Publish { current: true };
    }

    /// Step `Publish`.
    pub(crate) fn publish(&self, state: &mut State, id: usize, confirm: Confirm) {
        let Producer::Publish { current } = state.producers[id] else {
            return;
        };
        if confirm != Confirm::Refused && current {
            state.enqueue();
        }
        state.producers[id] = match confirm {
            Confirm::Taken => Producer::Idle,
            Confirm::Unheard | Confirm::Refused => Producer::PutBack { current },
        };
    }

    /// Step `PutBack`: fenced by the epoch, which it keeps.
    pub(crate) fn put_back(&self, state: &mut State, id: usize) {
        let current = state.producers[id] == Producer::PutBack { current: true };
        state.producers[id] = Producer::Idle;
        if current
            && state.is_dispatched()
            && let Some(row) = &mut state.row
        {
            row.state = RowState::Waiting;
        }
    }

    /// Submissions at the vendor that no stage follows (`Db::unfollowed`).
    pub(crate) fn is_unfollowed(&self, state: &State, attempt: Attempt) -> bool {
        let sub = state.ledger[attempt];
        match sub.state {
            Ledger::Accepted | Ledger::Redoing => state.stands_nowhere(),
            Ledger::Duplicate => sub.duplicate_ended.is_none(),
            _ => false,
        }
    }

    /// What the sweeps and the callbacks can do now.
    pub(crate) fn sweep_steps(&self, state: &State, steps: &mut Vec<Step>) {
        for (attempt, sub) in state.ledger.iter().enumerate() {
            if sub.state == Ledger::Claimed && sub.deadline_over {
                steps.push(Step::ExpireClaim(attempt));
            }
            let work = sub.work.map(|work| state.works[work]);
            let ended = work.is_some_and(|work| work.progress != Progress::Running);
            if self.sweeps() && state.sweep.is_none() && ended && self.is_unfollowed(state, attempt)
            {
                steps.push(Step::SweepLook(attempt));
            }
            if sub.callback {
                steps.push(Step::ProcessCallback(attempt));
            } else if self.callbacks && self.calls_back(state, attempt) {
                steps.push(Step::StoreCallback(attempt));
            }
        }
        if state.sweep.is_some() {
            steps.push(Step::SweepNote);
        }
    }

    /// A work has ended whose submission is not known to be at the vendor. For any other a callback only makes a poll due.
    fn calls_back(&self, state: &State, attempt: Attempt) -> bool {
        let ended = |work: &Work| work.of == Some(attempt) && work.progress != Progress::Running;
        let open = matches!(
            state.ledger[attempt].state,
            Ledger::Claimed | Ledger::Unknown | Ledger::Absent
        );
        open && state.works.iter().any(ended)
    }

    /// Step `SweepLook`: the page of the ledger and the status of its works.
    pub(crate) fn sweep_look(&self, state: &mut State, attempt: Attempt) {
        let sub = state.ledger[attempt];
        let progress = sub.work.map(|work| state.works[work].progress);
        if sub.state == Ledger::Redoing && !self.redo_is_over(state, attempt) {
            return;
        }
        state.sweep = Some(Sighting {
            attempt,
            was: sub.state,
            redone: sub.redone,
            succeeded: progress == Some(Progress::Succeeded),
        });
    }

    /// Step `SweepNote`.
    pub(crate) fn sweep_note(&self, state: &mut State) {
        let Some(Sighting {
            attempt,
            was,
            redone,
            succeeded,
        }) = state.sweep.take()
        else {
            return;
        };
        let sub = &mut state.ledger[attempt];
        if was == Ledger::Duplicate {
            if sub.state == Ledger::Duplicate {
                sub.duplicate_ended = Some(succeeded);
            }
            return;
        }
        let becomes = match (was == Ledger::Redoing, succeeded) {
            (true, _) => Becomes::Accepted,
            (false, true) => Becomes::Succeeded,
            (false, false) => Becomes::Failed,
        };
        let moved_on =
            !self.is_unfollowed(state, attempt) || state.ledger[attempt].redone != redone;
        if becomes == Becomes::Failed && moved_on && self.keeps(Guard::SweepFenced) {
            return;
        }
        let mut seen = fact(attempt, becomes);
        seen.from = From::Status;
        let run = Run {
            fact: Some(seen),
            then: Move::None,
        };
        self.settle(state, false, run);
    }
}
