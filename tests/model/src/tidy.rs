//! Forgets what can make no difference any more, so that states that differ in nothing else are one state.
//!
//! Every line needs its reason: what is forgotten here can never be found wrong.

use crate::guards::Guard;
use crate::process::{Becomes, Doing, Fact, Producer, Request, Run, Worker};
use crate::protocol::Protocol;
use crate::state::{Attempt, Ledger, State, Vendor};

impl Protocol {
    /// After every step.
    pub(crate) fn tidy(&self, state: &mut State) {
        for id in 0..state.workers.len() {
            let worker = state.workers[id];
            // A stale delivery is skipped when it comes again, so neither acknowledging nor redelivering it does anything.
            if !worker.current && worker.holds && self.is_spent(state, worker.doing) {
                state.workers[id] = Worker::IDLE;
            }
        }
        for producer in &mut state.producers {
            // A stale message is skipped, and `put_back` is fenced by the epoch.
            if matches!(
                producer,
                Producer::Publish { current: false } | Producer::PutBack { current: false }
            ) {
                *producer = Producer::Idle;
            }
        }
        for attempt in 0..state.ledger.len() {
            self.tidy_submission(state, attempt);
        }
    }

    /// Whether a worker that lost its epoch can still do anything: only facts, searches and sends count then.
    fn is_spent(&self, state: &State, doing: Doing) -> bool {
        match doing {
            Doing::Ack | Doing::Claim(_) => self.keeps(Guard::ClaimBeforeSend),
            Doing::Settle(Run { fact: None, .. }) => self.keeps(Guard::Epoch),
            Doing::Settle(Run {
                fact: Some(fact), ..
            }) => self.keeps(Guard::Epoch) && self.is_old_news(state, fact),
            Doing::ClaimRedo(_) => self.keeps(Guard::RedoFenced),
            Doing::SendRedo(_) => self.keeps(Guard::RedoInTime),
            _ => false,
        }
    }

    /// Whether `settle` will change nothing for this fact, now or later.
    fn is_old_news(&self, state: &State, fact: Fact) -> bool {
        let Some(sub) = state.ledger.get(fact.attempt) else {
            return false;
        };
        match sub.state {
            Ledger::Succeeded | Ledger::Failed | Ledger::NotSent | Ledger::Rejected => {
                !sub.imported && sub.work.is_some() == fact.work.is_some()
            }
            Ledger::Claimed => false,
            _ => matches!(fact.becomes, Becomes::Unknown | Becomes::NotSent),
        }
    }

    fn tidy_submission(&self, state: &mut State, attempt: Attempt) {
        let has_work = state.works.iter().any(|work| work.of == Some(attempt));
        if self.vendor == Vendor::Sync && has_work && !state.ledger[attempt].window_over {
            // The vendor knows the key: a repetition that nobody waits for does nothing, and is gone when the window is over.
            let waits = |of| state.workers.iter().any(|worker| worker.doing == of);
            let network = std::mem::take(&mut state.network);
            let matters = |request: &Request| {
                request.0 != attempt || waits(Doing::Await(request.0, request.1))
            };
            state.network = network.into_iter().filter(matters).collect();
        }
        let open = matches!(
            state.ledger[attempt].state,
            Ledger::Claimed | Ledger::Unknown
        );
        let uses = |worker: &Worker| {
            matches!(worker.doing,
                Doing::Send(of) | Doing::Replay(of) | Doing::Await(of, _) if of == attempt)
        };
        let in_use = state.workers.iter().any(uses)
            || state.network.iter().any(|request| request.0 == attempt);
        if open || in_use {
            return;
        }
        // Nobody will search for it or send it, so neither the list nor its times matter.
        state.ledger[attempt].deadline_over = true;
        state.ledger[attempt].window_over = self.vendor == Vendor::Sync;
        let searching = |worker: &Worker| matches!(worker.doing, Doing::Search { attempt: of, .. } if of == attempt);
        if !state.workers.iter().any(searching) {
            for work in &mut state.works {
                work.listed |= work.of == Some(attempt);
            }
        }
    }
}
