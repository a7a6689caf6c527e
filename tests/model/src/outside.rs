//! What is not ours: the broker, both vendors, time and people. They do what is worst for us, within their documented promises.
//!
//! The promises: Sync.so creates one generation per key until the window is over; a request is not on its way for longer than
//! that window; a work that GhostCut took while its source was there is in its list when the settle time is over, unless the list
//! shows nothing of ours at all.

use crate::guards::Guard;
use crate::process::{Becomes, Doing, Kind, Move, Run};
use crate::protocol::Protocol;
use crate::settle::fact;
use crate::state::{
    Attempt, Failure, Ledger, Progress, Row, RowState, Source, Stage, State, Status, Vendor, Work,
};
use crate::step::Step;
use crate::worker::{Answer, stands};

impl Protocol {
    /// What the broker, the vendor and time can do now.
    pub(crate) fn outside_steps(&self, state: &State, steps: &mut Vec<Step>) {
        if state.queue > 0 {
            steps.push(Step::Lose);
        }
        if state.queue > 0 {
            steps.push(Step::Repeat);
        }
        for &(attempt, kind) in &state.network {
            let waits = |id: &usize| state.workers[*id].doing == Doing::Await(attempt, kind);
            let hears = (0..state.workers.len()).filter(waits).map(Some);
            for heard_by in hears.chain([None]) {
                let arrive = |refused| Step::Arrive {
                    attempt,
                    kind,
                    refused,
                    heard_by,
                };
                steps.push(arrive(false));
                // A refusal nobody sees is a request that never came.
                if heard_by.is_some() && kind != Kind::Redo {
                    steps.push(arrive(true));
                }
            }
        }
        for (id, work) in state.works.iter().enumerate() {
            if work.progress == Progress::Running {
                let ends = self.failures().iter().copied().map(Some).chain([None]);
                steps.extend(ends.map(|failure| Step::Finish { work: id, failure }));
            }
            if !work.listed && work.of.is_some() && !state.blind {
                steps.push(Step::List(id));
            }
        }
        let has_old = state.works.iter().any(|work| work.of.is_none());
        if self.old_system && !has_old && state.metadata.is_none() && state.is_active() {
            steps.push(Step::OldSystemPays);
        }
        // A claim is refused when less of the lease is left than the send deadline, so leases end after deadlines.
        if state.in_lease() && state.ledger.iter().all(|sub| sub.deadline_over) {
            steps.push(Step::LeaseOver);
        }
        for (attempt, sub) in state.ledger.iter().enumerate() {
            if !sub.deadline_over {
                steps.push(Step::DeadlineOver(attempt));
            }
            if sub.source == Source::Deleted {
                steps.push(Step::SettleTimeOver(attempt));
            }
            if self.vendor == Vendor::Sync && sub.deadline_over && !sub.window_over && !sub.imported
            {
                steps.push(Step::WindowOver(attempt));
            }
        }
    }

    fn failures(&self) -> &'static [Failure] {
        match self.vendor {
            Vendor::Sync => &[Failure::Permanent, Failure::Again],
            Vendor::Ghostcut if self.redo => &[Failure::Input, Failure::Again],
            Vendor::Ghostcut => &[Failure::Input],
        }
    }

    /// Step `Arrive`.
    pub(crate) fn arrive(
        &self,
        state: &mut State,
        (attempt, kind): (Attempt, Kind),
        refused: bool,
        heard_by: Option<usize>,
    ) {
        state.network.retain(|request| *request != (attempt, kind));
        let answer = if refused {
            Answer::Refused
        } else {
            Answer::Accepted(self.take(state, attempt, kind))
        };
        if let Some(worker) = heard_by {
            state.workers[worker].doing = self.answered(attempt, kind, answer);
        }
    }

    /// The vendor takes a request: the id of its work.
    fn take(&self, state: &mut State, attempt: Attempt, kind: Kind) -> usize {
        let sub = state.ledger.get(attempt).copied();
        let own = state.works.iter().position(|work| work.of == Some(attempt));
        let keyed = self.vendor == Vendor::Sync && !sub.is_some_and(|sub| sub.window_over);
        match (kind, own) {
            (Kind::Redo, Some(work)) => {
                if let Progress::Failed(_) = state.works[work].progress {
                    state.works[work].progress = Progress::Running;
                }
                work
            }
            (_, Some(work)) if keyed => work,
            _ => {
                let gone = sub.is_some_and(|sub| sub.source != Source::There);
                let progress = if gone {
                    Progress::Failed(Failure::Input)
                } else {
                    Progress::Running
                };
                state.works.push(Work {
                    of: Some(attempt),
                    progress,
                    listed: false,
                });
                state.works.len() - 1
            }
        }
    }

    /// Step `OldSystemPays`: as the replaced application did, without looking at the ledger.
    pub(crate) fn old_system_pays(&self, state: &mut State) {
        state.metadata = Some(state.works.len());
        state.works.push(Work {
            of: None,
            progress: Progress::Running,
            listed: false,
        });
    }

    /// Step `SettleTimeOver`: the list is as new as the deletion.
    pub(crate) fn settle_time_over(&self, state: &mut State, attempt: Attempt) {
        state.ledger[attempt].source = Source::Settled;
        for work in &mut state.works {
            work.listed |= work.of == Some(attempt) && !state.blind;
        }
    }

    /// Step `WindowOver`: nothing of this key is on its way any more, and a new request with it would be a new generation.
    pub(crate) fn window_over(&self, state: &mut State, attempt: Attempt) {
        state.network.retain(|request| request.0 != attempt);
        state.ledger[attempt].window_over = true;
    }

    /// What people can do now.
    pub(crate) fn people_steps(&self, state: &State, steps: &mut Vec<Step>) {
        if !self.people {
            return;
        }
        if state.is_active() && state.row.is_some() {
            steps.push(Step::Cancel);
        }
        if stands(state) && state.status != Status::Completed {
            steps.push(Step::Retry);
        }
        let parked = state.row.is_some_and(|row| row.state == RowState::Parked);
        for (attempt, sub) in state.ledger.iter().enumerate() {
            if !parked || sub.state != Ledger::Unknown {
                continue;
            }
            let there = state.works.iter().any(|work| work.of == Some(attempt));
            let over = match self.vendor {
                Vendor::Sync => sub.window_over,
                Vendor::Ghostcut => sub.source == Source::Settled,
            };
            if there {
                steps.push(Step::Adopt(attempt));
            } else if over || !self.keeps(Guard::ConfirmWhenOver) {
                steps.push(Step::ConfirmNotAccepted(attempt));
            }
        }
    }

    /// Step `Retry`: the row is due again; what it does then, the ledger decides.
    pub(crate) fn retry(&self, state: &mut State) {
        let stage = state.row.map_or(Stage::Submit, |row| row.stage);
        state.status = Status::Active;
        let mut next = Row {
            stage,
            state: RowState::Waiting,
        };
        if !self.keeps(Guard::LedgerDecidesReplay) {
            next.stage = Stage::Submit;
            state.metadata = None;
            for sub in &mut state.ledger {
                sub.state = Ledger::Absent;
            }
        }
        state.put_row(Some(next));
    }

    /// Step `ConfirmNotAccepted`: the person has looked at the vendor's own pages.
    pub(crate) fn confirm_not_accepted(&self, state: &mut State, attempt: Attempt) {
        state.ledger[attempt].state = Ledger::Absent;
        state.put_row(Some(Row {
            stage: Stage::Submit,
            state: RowState::Waiting,
        }));
    }

    /// Steps `Adopt` and `ProcessCallback`: a fact by token, from wherever the job stands.
    pub(crate) fn bring(&self, state: &mut State, attempt: Attempt) {
        let mut accepted = fact(attempt, Becomes::Accepted);
        accepted.work = state.works.iter().position(|work| work.of == Some(attempt));
        let run = Run {
            fact: Some(accepted),
            then: Move::Accepted,
        };
        self.settle(state, false, run);
        state.ledger[attempt].callback = false;
    }
}
