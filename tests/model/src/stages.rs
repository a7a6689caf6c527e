//! The worker's steps that ask the vendor and pay nothing: search, deletion of the source, poll (`worker/src/stages/`).

use crate::guards::Guard;
use crate::process::{Becomes, Doing, From, Kind, Move, Run, Worker};
use crate::protocol::Protocol;
use crate::settle::fact;
use crate::state::{Attempt, Failure, Ledger, Progress, Source, Stage, State, Vendor, Work};
use crate::worker::{adopt, news, run};

impl Protocol {
    /// Step `Search`: the vendor's list, and what it proves (`inpaint_reconcile::search`, `lipsync_submit::search`).
    pub(crate) fn search(&self, state: &mut State, id: usize, control: bool) {
        let Doing::Search {
            attempt: at,
            deciding,
        } = state.workers[id].doing
        else {
            return;
        };
        let ours = |work: &Work| work.of == Some(at) && work.listed;
        let found = state.works.iter().position(ours);
        let doing = match found {
            Some(work) if !state.blind => adopt(at, work),
            _ if self.vendor == Vendor::Sync => run(Move::Park),
            _ if !deciding => {
                // Counted only while nothing better is known (`Db::record_search`).
                state.ledger[at].searched |= state.ledger[at].state == Ledger::Unknown;
                run(Move::Later)
            }
            _ if control || !self.keeps(Guard::Control) => {
                news(at, Becomes::Absent, Move::To(Stage::Submit))
            }
            _ => run(Move::Park),
        };
        state.workers[id].doing = doing;
    }

    /// Step `DeleteSource`. The object is gone before that is recorded; killed in between, it is deleted once more.
    pub(crate) fn delete_source(&self, state: &mut State, id: usize, at: Attempt) {
        let sub = &mut state.ledger[at];
        if sub.source == Source::There {
            sub.source = if self.keeps(Guard::SettleTime) {
                Source::Deleted
            } else {
                Source::Settled
            };
        }
        state.workers[id].doing = run(Move::Later);
    }

    /// Step `Poll` (`poll::decide`). `again`: the result cannot be stored; a failure seen while redoing is no longer the old one.
    pub(crate) fn poll(&self, state: &mut State, id: usize, again: bool) {
        let Doing::Poll {
            attempt: at,
            was,
            redone,
        } = state.workers[id].doing
        else {
            return;
        };
        let sub = state.ledger[at];
        let progress = sub.work.map(|work| state.works[work].progress);
        let redoing = was == Ledger::Redoing;
        let changed = || {
            let mut seen = fact(at, Becomes::Accepted);
            seen.work = sub.work;
            seen.from = From::Status;
            Doing::Settle(Run {
                fact: Some(seen),
                then: Move::Later,
            })
        };
        state.workers[id].doing = match progress {
            Some(Progress::Failed(_)) if redoing && !(again && self.redo_is_over(state, at)) => {
                run(Move::Later)
            }
            Some(_) if redoing => changed(),
            None | Some(Progress::Running) => run(Move::Later),
            Some(Progress::Succeeded) => {
                let then = if again { Move::GiveUp } else { Move::Complete };
                news(at, Becomes::Succeeded, then)
            }
            Some(Progress::Failed(_)) if was == Ledger::Succeeded => run(Move::Park),
            Some(Progress::Failed(failure)) => match (failure, self.vendor) {
                (Failure::Permanent, _) => news(at, Becomes::Failed, Move::Fail),
                (Failure::Input, _) => news(at, Becomes::Failed, Move::GiveUp),
                (Failure::Again, Vendor::Sync) => {
                    let before = (state.ledger.iter())
                        .filter(|sub| sub.state == Ledger::Failed)
                        .count();
                    let then = if before + 1 < self.attempts {
                        Move::To(Stage::Submit)
                    } else {
                        Move::GiveUp
                    };
                    news(at, Becomes::Failed, then)
                }
                (Failure::Again, Vendor::Ghostcut) if redone => run(Move::Park),
                (Failure::Again, Vendor::Ghostcut) => Doing::ClaimRedo(at),
            },
        };
    }

    /// The slow poll interval has passed since a redo was claimed: longer than a lease, and than a request is on its way.
    pub(crate) fn redo_is_over(&self, state: &mut State, at: Attempt) -> bool {
        let may_send = |worker: &Worker| worker.current && worker.doing == Doing::SendRedo(at);
        if state.in_lease() && state.workers.iter().any(may_send) {
            return false;
        }
        if self.keeps(Guard::RedoPatience) {
            state.network.retain(|request| *request != (at, Kind::Redo));
        }
        true
    }
}
