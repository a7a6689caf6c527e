//! No job is lost (I6), as a property of the whole graph: from every reachable state, whatever went wrong before, calm steps
//! alone lead to a state in which nothing more has to happen. A checker of single states cannot say this.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use model::{Guard, Protocol, State, Step, Vendor, is_settled};
use stateright::Model as _;

fn fingerprint(state: &State) -> u64 {
    let mut hasher = DefaultHasher::new();
    state.hash(&mut hasher);
    hasher.finish()
}

/// Every reachable state: its calm predecessors, and whether it is settled.
#[derive(Default)]
struct Graph {
    numbers: HashMap<u64, usize>,
    before: Vec<Vec<u32>>,
    settled: Vec<bool>,
    /// How each was reached first, for the report.
    reached_by: Vec<Option<(usize, Step)>>,
}

impl Graph {
    fn add(
        &mut self,
        state: State,
        by: Option<(usize, Step)>,
        open: &mut Vec<(usize, State)>,
    ) -> usize {
        let next = self.before.len();
        let number = *self.numbers.entry(fingerprint(&state)).or_insert(next);
        if number == next {
            self.before.push(Vec::new());
            self.settled.push(is_settled(&state));
            self.reached_by.push(by);
            open.push((number, state));
        }
        number
    }

    fn of(protocol: &Protocol) -> Self {
        let mut graph = Self::default();
        let mut layer = Vec::new();
        for state in protocol.init_states() {
            graph.add(state, None, &mut layer);
        }
        while !layer.is_empty() {
            let mut next = Vec::new();
            for (number, state) in layer {
                for (step, after) in protocol.next_steps(&state) {
                    let to = graph.add(after, Some((number, step)), &mut next);
                    if step.is_calm() {
                        graph.before[to]
                            .push(u32::try_from(number).expect("fewer than 2^32 states"));
                    }
                }
            }
            layer = next;
        }
        graph
    }

    /// States from which no calm steps lead to a settled one.
    fn lost(&self) -> Vec<usize> {
        let mut safe = self.settled.clone();
        let mut open: Vec<usize> = (0..safe.len()).filter(|number| safe[*number]).collect();
        while let Some(number) = open.pop() {
            for before in &self.before[number] {
                let before = *before as usize;
                if !std::mem::replace(&mut safe[before], true) {
                    open.push(before);
                }
            }
        }
        (0..safe.len()).filter(|number| !safe[*number]).collect()
    }

    fn way_to(&self, mut number: usize) -> Vec<Step> {
        let mut steps = Vec::new();
        while let Some((before, step)) = self.reached_by[number] {
            steps.push(step);
            number = before;
        }
        steps.reverse();
        steps
    }
}

/// The shortest way to a state from which the job does not come to an end, if there is one.
#[expect(clippy::print_stdout, reason = "the counts are the result")]
fn way_to_a_loss(name: &str, protocol: Protocol) -> Option<Vec<Step>> {
    let graph = Graph::of(&protocol);
    let lost = graph.lost();
    println!("{name}: {} states, {} lost", graph.before.len(), lost.len());
    let way = graph.way_to(*lost.first()?);
    for (at, step) in way.iter().enumerate() {
        println!("{:>3}. {step}", at + 1);
    }
    Some(way)
}

const fn alone(protocol: Protocol) -> Protocol {
    Protocol {
        workers: 1,
        ..protocol
    }
}

#[test]
fn whatever_went_wrong_the_job_comes_to_an_end() {
    for (name, protocol) in [
        ("Sync.so", alone(Protocol::of(Vendor::Sync).with_people())),
        (
            "GhostCut",
            alone(Protocol::of(Vendor::Ghostcut).with_people().with_redo()),
        ),
        (
            "GhostCut, callbacks",
            alone(Protocol::of(Vendor::Ghostcut).with_callbacks()),
        ),
        (
            "GhostCut, replaced system",
            alone(Protocol::of(Vendor::Ghostcut).with_old_system()),
        ),
    ] {
        assert_eq!(way_to_a_loss(name, protocol), None, "{name}");
    }
}

#[test]
fn without_the_sweep_a_canceled_jobs_work_is_lost() {
    let protocol = alone(Protocol::of(Vendor::Ghostcut).with_people());
    let way = way_to_a_loss("without Sweep", protocol.without(Guard::Sweep));
    // A person may always retry; nobody has to.
    assert!(way.is_some());
}

#[test]
fn a_poll_that_finds_no_work_and_stays_is_lost() {
    let protocol = alone(Protocol::of(Vendor::Ghostcut).with_callbacks());
    let way = way_to_a_loss(
        "without PollGoesBack",
        protocol.without(Guard::PollGoesBack),
    );
    assert!(way.is_some());
}
