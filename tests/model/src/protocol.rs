//! The model as the checker takes it: who takes part, which guard is out, and the steps by name.

use stateright::{Model, Property};

use crate::guards::Guard;
use crate::process::{Doing, Producer, Worker};
use crate::properties;
use crate::state::{Crimes, Ledger, Progress, Row, RowState, Stage, State, Status, Vendor};
use crate::step::Step;
use crate::worker::Answer;

/// One configuration to check.
#[derive(Clone, Copy, Debug)]
pub struct Protocol {
    /// Which vendor.
    pub vendor: Vendor,
    /// Worker processes.
    pub workers: usize,
    /// Dispatchers.
    pub producers: usize,
    /// The bound on submissions of the job: the only bound of the model.
    pub attempts: usize,
    /// The vendor's callbacks are processed.
    pub callbacks: bool,
    /// People cancel, retry, adopt and confirm.
    pub people: bool,
    /// GhostCut's redo.
    pub redo: bool,
    /// The replaced system still pays beside us.
    pub old_system: bool,
    /// The guard that is taken out.
    pub without: Option<Guard>,
}

impl Protocol {
    /// The smallest fleet in which something can go wrong, without people.
    #[must_use]
    pub const fn of(vendor: Vendor) -> Self {
        Self {
            vendor,
            workers: 2,
            producers: 1,
            attempts: 2,
            callbacks: false,
            people: false,
            redo: false,
            old_system: false,
            without: None,
        }
    }

    /// And people cancel, retry, adopt and confirm.
    #[must_use]
    pub const fn with_people(self) -> Self {
        Self {
            people: true,
            ..self
        }
    }

    /// And callbacks come, late and repeatedly.
    #[must_use]
    pub const fn with_callbacks(self) -> Self {
        Self {
            callbacks: true,
            ..self
        }
    }

    /// And failed works are redone.
    #[must_use]
    pub const fn with_redo(self) -> Self {
        Self { redo: true, ..self }
    }

    /// And the replaced system still pays.
    #[must_use]
    pub const fn with_old_system(self) -> Self {
        Self {
            old_system: true,
            ..self
        }
    }

    /// The same without one guard.
    #[must_use]
    pub const fn without(self, guard: Guard) -> Self {
        Self {
            without: Some(guard),
            ..self
        }
    }

    /// Whether a guard is in.
    #[must_use]
    pub fn keeps(&self, guard: Guard) -> bool {
        self.without != Some(guard)
    }

    /// Whether unfollowed submissions are looked for.
    #[must_use]
    pub fn sweeps(&self) -> bool {
        self.keeps(Guard::Sweep)
    }

    fn take_step(&self, state: &mut State, step: Step) {
        match step {
            Step::PickDue(id) => self.pick_due(state, id),
            Step::Publish { producer, confirm } => self.publish(state, producer, confirm),
            Step::PutBack(id) => self.put_back(state, id),
            Step::CrashProducer(id) => state.producers[id] = Producer::Idle,
            Step::Repeat => state.enqueue(),
            Step::Lose => state.queue -= 1,
            Step::Arrive {
                attempt,
                kind,
                refused,
                heard_by,
            } => {
                self.arrive(state, (attempt, kind), refused, heard_by);
            }
            Step::Finish { work, failure } => {
                state.works[work].progress = failure.map_or(Progress::Succeeded, Progress::Failed);
            }
            Step::List(work) => state.works[work].listed = true,
            Step::OldSystemPays => self.old_system_pays(state),
            Step::LeaseOver => {
                if let Some(row) = &mut state.row {
                    row.state = RowState::Dispatched { lease_over: true };
                }
            }
            Step::DeadlineOver(attempt) => state.ledger[attempt].deadline_over = true,
            Step::SettleTimeOver(attempt) => self.settle_time_over(state, attempt),
            Step::WindowOver(attempt) => self.window_over(state, attempt),
            Step::ExpireClaim(attempt) => state.ledger[attempt].state = Ledger::Unknown,
            Step::SweepLook(attempt) => self.sweep_look(state, attempt),
            Step::SweepNote => self.sweep_note(state),
            Step::StoreCallback(attempt) => state.ledger[attempt].callback = true,
            Step::ProcessCallback(attempt) | Step::Adopt(attempt) => self.bring(state, attempt),
            Step::Cancel => state.status = Status::Canceled,
            Step::Retry => self.retry(state),
            Step::ConfirmNotAccepted(attempt) => self.confirm_not_accepted(state, attempt),
            by_worker => self.take_worker_step(state, by_worker),
        }
    }

    fn take_worker_step(&self, state: &mut State, step: Step) {
        let doing = |id: usize| state.workers[id].doing;
        match step {
            Step::Load { worker, spent } => self.load(state, worker, spent),
            Step::Search { worker, control } => self.search(state, worker, control),
            Step::Poll { worker, again } => self.poll(state, worker, again),
            Step::Ack(id) => self.ack(state, id),
            Step::CrashWorker(id) => self.crash_worker(state, id),
            Step::Claim(id)
            | Step::Send(id)
            | Step::Replay(id)
            | Step::TimeOut(id)
            | Step::DeleteSource(id)
            | Step::ClaimRedo(id)
            | Step::SendRedo(id)
            | Step::Settle(id) => match doing(id) {
                Doing::Claim(attempt) => self.claim_step(state, id, attempt),
                Doing::Send(attempt) => self.send_step(state, id, attempt),
                Doing::Replay(attempt) => self.replay_step(state, id, attempt),
                Doing::Await(attempt, kind) => {
                    state.workers[id].doing = self.answered(attempt, kind, Answer::Unseen);
                }
                Doing::DeleteSource(attempt) => self.delete_source(state, id, attempt),
                Doing::ClaimRedo(attempt) => self.claim_redo(state, id, attempt),
                Doing::SendRedo(attempt) => self.send_redo(state, id, attempt),
                Doing::Settle(run) => self.settle_step(state, id, run),
                _ => {}
            },
            _ => {}
        }
    }
}

impl Model for Protocol {
    type State = State;
    type Action = Step;

    fn init_states(&self) -> Vec<State> {
        let new = |blind| State {
            status: Status::Active,
            metadata: None,
            row: Some(Row {
                stage: Stage::Submit,
                state: RowState::Waiting,
            }),
            ledger: Vec::new(),
            works: Vec::new(),
            network: Vec::new(),
            blind,
            queue: 0,
            workers: vec![Worker::IDLE; self.workers],
            producers: vec![Producer::Idle; self.producers],
            sweep: None,
            crimes: Crimes::default(),
        };
        match self.vendor {
            Vendor::Sync => vec![new(false)],
            Vendor::Ghostcut => vec![new(false), new(true)],
        }
    }

    fn actions(&self, state: &State, steps: &mut Vec<Step>) {
        for id in 0..self.producers {
            self.producer_steps(state, id, steps);
        }
        for id in 0..self.workers {
            self.worker_steps(state, id, steps);
        }
        self.sweep_steps(state, steps);
        self.outside_steps(state, steps);
        self.people_steps(state, steps);
    }

    fn next_state(&self, last: &State, step: Step) -> Option<State> {
        let mut state = last.clone();
        self.take_step(&mut state, step);
        self.tidy(&mut state);
        Some(state)
    }

    fn format_action(&self, step: &Step) -> String {
        step.to_string()
    }

    fn properties(&self) -> Vec<Property<Self>> {
        properties::all(self)
    }
}
