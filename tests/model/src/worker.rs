//! The worker's steps: `worker/src/consumer.rs`, `submission.rs` and `stages/`.
//!
//! Each step has one effect outside of the process; between two of them the worker may be killed or frozen.

use crate::guards::Guard;
use crate::process::{Becomes, Doing, From, Kind, Move, Run, Worker};
use crate::protocol::Protocol;
use crate::settle::{Claimed, Verdict, fact};
use crate::state::{Attempt, Ledger, RowState, Source, Stage, State, Status, Vendor};
use crate::step::Step;

/// A run without a fact.
pub(crate) const fn run(then: Move) -> Doing {
    Doing::Settle(Run { fact: None, then })
}

/// A run with one.
pub(crate) const fn news(attempt: Attempt, becomes: Becomes, then: Move) -> Doing {
    Doing::Settle(Run {
        fact: Some(fact(attempt, becomes)),
        then,
    })
}

impl Protocol {
    /// What a worker can do now.
    pub(crate) fn worker_steps(&self, state: &State, id: usize, steps: &mut Vec<Step>) {
        let worker = state.workers[id];
        let early = worker.holds && !self.keeps(Guard::CommitBeforeAck);
        match worker.doing {
            Doing::Idle => {
                if state.queue > 0 && state.is_dispatched() {
                    let load = |spent| Step::Load { worker: id, spent };
                    steps.push(load(false));
                    if self.may_be_spent(state) {
                        steps.push(load(true));
                    }
                }
                return;
            }
            Doing::Claim(_) => steps.push(Step::Claim(id)),
            Doing::Send(_) => steps.push(Step::Send(id)),
            Doing::Replay(_) => steps.push(Step::Replay(id)),
            Doing::Await(..) => steps.push(Step::TimeOut(id)),
            Doing::Search { .. } => {
                steps.push(Step::Search {
                    worker: id,
                    control: false,
                });
                if !state.blind {
                    steps.push(Step::Search {
                        worker: id,
                        control: true,
                    });
                }
            }
            Doing::DeleteSource(_) => steps.push(Step::DeleteSource(id)),
            Doing::Poll { .. } => {
                steps.push(Step::Poll {
                    worker: id,
                    again: false,
                });
                steps.push(Step::Poll {
                    worker: id,
                    again: true,
                });
            }
            Doing::ClaimRedo(_) => steps.push(Step::ClaimRedo(id)),
            Doing::SendRedo(_) => steps.push(Step::SendRedo(id)),
            Doing::Settle(_) if early => steps.push(Step::Ack(id)),
            Doing::Settle(_) => steps.push(Step::Settle(id)),
            Doing::Ack => steps.push(Step::Ack(id)),
        }
        steps.push(Step::CrashWorker(id));
    }

    /// Step `Load`: `Db::start`, then the stage decides by the rows (`stages::run`, `consumer::refusal`).
    pub(crate) fn load(&self, state: &mut State, id: usize, spent: bool) {
        state.queue -= 1;
        let doing = if spent {
            run(Move::GiveUp)
        } else {
            self.decide(state)
        };
        state.workers[id] = Worker {
            doing,
            current: true,
            holds: true,
        };
    }

    /// Tries and starts end a job only while nothing is alive (`Run::bound`, `consumer::refusal`).
    fn may_be_spent(&self, state: &State) -> bool {
        state.is_active() && self.live(state).is_none()
    }

    /// The live, else the best known submission, as `Db::start` picks it.
    fn found(&self, state: &State) -> Option<Attempt> {
        let paid_duplicate = |at: &Attempt| {
            let sub = state.ledger[*at];
            sub.state == Ledger::Duplicate && sub.duplicate_ended != Some(false)
        };
        self.live(state)
            .or_else(|| (0..state.ledger.len()).rev().find(paid_duplicate))
            .or_else(|| state.ledger.len().checked_sub(1))
    }

    fn decide(&self, state: &State) -> Doing {
        let Some(row) = state.row else {
            return run(Move::Later);
        };
        let found = self.found(state);
        let unclear = found
            .is_some_and(|at| matches!(state.ledger[at].state, Ledger::Claimed | Ledger::Unknown));
        if !state.is_active() && !unclear {
            return run(Move::Over);
        }
        match (row.stage, self.live(state)) {
            (Stage::Poll, _) => match found {
                Some(at) if self.can_be_polled(state, at) => Doing::Poll {
                    attempt: at,
                    was: state.ledger[at].state,
                    redone: state.ledger[at].redone,
                },
                Some(_) if self.keeps(Guard::PollGoesBack) => run(Move::To(Stage::Submit)),
                Some(_) => run(Move::Later),
                None => run(Move::GiveUp),
            },
            (Stage::Submit, None) => self.pay(state, found),
            (Stage::Reconcile, None) => run(Move::To(Stage::Submit)),
            (stage, Some(at)) => match state.ledger[at].state {
                // Its owner may still be sending.
                Ledger::Claimed if !state.ledger[at].deadline_over => run(Move::Later),
                Ledger::Claimed => news(at, Becomes::Unknown, Move::Later),
                Ledger::Unknown if stage == Stage::Reconcile => self.reconcile(state, at),
                Ledger::Unknown => self.clear_up(state, at),
                _ => run(Move::To(Stage::Poll)),
            },
        }
    }

    /// It has a work, and that is the job's.
    fn can_be_polled(&self, state: &State, at: Attempt) -> bool {
        let sub = state.ledger[at];
        let duplicate = sub.state == Ledger::Duplicate && self.keeps(Guard::PollGoesBack);
        sub.work.is_some() && !duplicate
    }

    /// Nothing live: a paid duplicate, else a new attempt (`submission::before_another`, `pay`).
    fn pay(&self, state: &State, found: Option<Attempt>) -> Doing {
        if let Some(at) = found
            && state.ledger[at].state == Ledger::Duplicate
            && state.ledger[at].duplicate_ended != Some(false)
        {
            let mut promoted = fact(at, Becomes::Accepted);
            promoted.work = state.ledger[at].work;
            promoted.from = From::Promotion;
            return Doing::Settle(Run {
                fact: Some(promoted),
                then: Move::Accepted,
            });
        }
        if state.ledger.len() >= self.attempts {
            return run(Move::GiveUp);
        }
        Doing::Claim(state.ledger.len())
    }

    /// `lipsync_submit::clear_up`; at GhostCut the way to `inpaint.reconcile`.
    fn clear_up(&self, state: &State, at: Attempt) -> Doing {
        match self.vendor {
            Vendor::Ghostcut => run(Move::To(Stage::Reconcile)),
            Vendor::Sync if state.ledger[at].window_over || !state.is_active() => Doing::Search {
                attempt: at,
                deciding: true,
            },
            Vendor::Sync => Doing::Replay(at),
        }
    }

    /// `inpaint_reconcile::run`: searches, then the source goes, then a settle time, then the search that decides.
    fn reconcile(&self, state: &State, at: Attempt) -> Doing {
        let sub = state.ledger[at];
        let settled = sub.source == Source::Settled || !self.keeps(Guard::DeleteSource);
        match (sub.searched, sub.source) {
            (false, _) if !sub.deadline_over => run(Move::Later),
            (searched, _) if !searched || settled => Doing::Search {
                attempt: at,
                deciding: searched,
            },
            (_, Source::There) => Doing::DeleteSource(at),
            _ => run(Move::Later),
        }
    }

    /// Steps `Claim`, `Send`, `Replay`: what is paid leaves here.
    pub(crate) fn claim_step(&self, state: &mut State, id: usize, attempt: Attempt) {
        if !self.keeps(Guard::ClaimBeforeSend) {
            state.workers[id].doing = Doing::Send(attempt);
            return;
        }
        let current = state.workers[id].current;
        state.workers[id].doing = match self.claim(state, current, attempt) {
            Claimed::Ours => Doing::Send(attempt),
            Claimed::Imported => run(Move::Accepted),
            Claimed::Conflict => run(Move::Park),
            Claimed::Occupied | Claimed::NotNow => run(Move::Later),
        };
    }

    /// The claim stands; killed here, it becomes unknown after its deadline.
    pub(crate) fn send_step(&self, state: &mut State, id: usize, attempt: Attempt) {
        let claimed = state.ledger.get(attempt).copied();
        if claimed.is_some_and(|sub| sub.deadline_over) && self.keeps(Guard::Deadline) {
            state.workers[id].doing = news(attempt, Becomes::NotSent, Move::Later);
            return;
        }
        state.crimes.sent_unclaimed |= claimed.is_none();
        state.crimes.sent_late |= claimed.is_some_and(|sub| sub.deadline_over);
        state.send((attempt, Kind::First));
        state.workers[id].doing = Doing::Await(attempt, Kind::First);
    }

    /// The same bytes under the same key.
    pub(crate) fn replay_step(&self, state: &mut State, id: usize, attempt: Attempt) {
        let late = state.ledger[attempt].window_over;
        if late && self.keeps(Guard::ReplayInTime) {
            state.workers[id].doing = run(Move::Later);
            return;
        }
        state.crimes.sent_late |= late;
        state.send((attempt, Kind::Replay));
        state.workers[id].doing = Doing::Await(attempt, Kind::Replay);
    }

    /// Step `ClaimRedo`: a redo is an intent of ours, not news, so it is fenced (`poll::redo`).
    pub(crate) fn claim_redo(&self, state: &mut State, id: usize, attempt: Attempt) {
        let current = state.workers[id].current && state.is_dispatched();
        let may = current && state.is_active() || !self.keeps(Guard::RedoFenced);
        let intent = Run {
            fact: Some(fact(attempt, Becomes::Redoing)),
            then: Move::None,
        };
        let written = may && self.settle(state, current, intent) == Verdict::Written;
        state.crimes.stale_moved |= written && !current;
        state.workers[id].doing = if written {
            Doing::SendRedo(attempt)
        } else {
            run(Move::Later)
        };
    }

    /// Killed here, the next poll shows whether the work runs.
    pub(crate) fn send_redo(&self, state: &mut State, id: usize, attempt: Attempt) {
        let in_time = state.workers[id].current && state.in_lease();
        if !in_time && self.keeps(Guard::RedoInTime) {
            state.workers[id].doing = run(Move::Later);
            return;
        }
        state.crimes.sent_late |= !in_time;
        state.send((attempt, Kind::Redo));
        state.workers[id].doing = Doing::Await(attempt, Kind::Redo);
    }

    /// What the answer to a paid request means; none: it was not seen (`submission::answered`, `lipsync_submit::replay`).
    pub(crate) fn answered(&self, at: Attempt, kind: Kind, answer: Answer) -> Doing {
        match (kind, answer) {
            (Kind::First | Kind::Replay, Answer::Accepted(work)) => adopt(at, work),
            (Kind::First, Answer::Refused) => news(at, Becomes::Rejected, Move::Later),
            (Kind::Replay, Answer::Refused) if !self.keeps(Guard::ReplayRefusalProvesNothing) => {
                news(at, Becomes::ReplayRejected, Move::Later)
            }
            (Kind::First, Answer::Unseen) => {
                let then = match self.vendor {
                    Vendor::Sync => Move::Later,
                    Vendor::Ghostcut => Move::To(Stage::Reconcile),
                };
                news(at, Becomes::Unknown, then)
            }
            (Kind::Replay, Answer::Unseen) => news(at, Becomes::Unknown, Move::Later),
            (Kind::Replay, Answer::Refused) | (Kind::Redo, _) => run(Move::Later),
        }
    }

    /// Step `Settle`: one transaction; then, and only then, the message may go.
    pub(crate) fn settle_step(&self, state: &mut State, id: usize, run: Run) {
        let worker = state.workers[id];
        if let Some(fact) = run.fact
            && fact.attempt >= state.ledger.len()
        {
            // Only without `ClaimBeforeSend`: the row comes with the answer.
            state.ledger.push(crate::settle::NEW);
        }
        self.settle(state, worker.current, run);
        state.workers[id].doing = Doing::Ack;
        if !state.workers[id].holds {
            state.workers[id] = Worker::IDLE;
        }
    }

    /// Step `Ack`: the delivery is gone for ever.
    pub(crate) fn ack(&self, state: &mut State, id: usize) {
        match state.workers[id].doing {
            Doing::Ack => state.workers[id] = Worker::IDLE,
            _ => {
                state.workers[id].holds = false;
                state.crimes.acked_early = true;
            }
        }
    }

    /// Step `CrashWorker`: memory is lost, the delivery comes again.
    pub(crate) fn crash_worker(&self, state: &mut State, id: usize) {
        let worker = std::mem::replace(&mut state.workers[id], Worker::IDLE);
        if worker.holds && worker.current {
            state.enqueue();
        }
    }
}

/// What the sender of a paid request saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Accepted(usize),
    Refused,
    Unseen,
}

pub(crate) fn adopt(at: Attempt, work: usize) -> Doing {
    let mut accepted = fact(at, Becomes::Accepted);
    accepted.work = Some(work);
    Doing::Settle(Run {
        fact: Some(accepted),
        then: Move::Accepted,
    })
}

/// For the properties: whether a worker is about to adopt an unknown submission.
pub(crate) fn adopts(state: &State, worker: &Worker) -> bool {
    matches!(worker.doing, Doing::Settle(Run { fact: Some(news), then: Move::Accepted })
        if state.ledger.get(news.attempt).is_some_and(|sub| sub.state == Ledger::Unknown))
}

/// For the steps of people: the row waits for one.
pub(crate) fn stands(state: &State) -> bool {
    let by_row = state
        .row
        .is_some_and(|row| matches!(row.state, RowState::Parked | RowState::Dead));
    by_row || matches!(state.status, Status::Canceled | Status::Failed)
}
