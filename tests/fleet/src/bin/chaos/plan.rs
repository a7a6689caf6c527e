//! What will go wrong and when: a pure function of the seed. Lanes run side by side, the steps of a lane one after the other.
//! Nothing is carried out here.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use sandbox::FaultRule;

use crate::vendor_faults;

/// Which processes there are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) producers: usize,
    pub(crate) workers: usize,
    pub(crate) brokers: usize,
}

/// A process of the fleet, by its place.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Place {
    Producer(usize),
    Worker(usize),
}

/// What a proxy leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Route {
    /// The producers' API, and through it the vendors' callbacks.
    Api,
    /// A node of RabbitMQ, by its number.
    Broker(usize),
    Database,
    Ghostcut,
    /// The object store.
    Store,
    Sync,
}

impl Route {
    const fn name(self) -> &'static str {
        match self {
            Self::Api => "api",
            Self::Broker(_) => "broker",
            Self::Database => "database",
            Self::Ghostcut => "ghostcut",
            Self::Store => "store",
            Self::Sync => "sync",
        }
    }
}

/// Something that goes wrong.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Fault {
    /// SIGKILL; another takes its place at once.
    Kill(Place),
    /// SIGSTOP, and SIGCONT in the end.
    Freeze(Place),
    /// SIGKILL of a broker's node, which comes back in the end.
    BrokerKill(usize),
    /// The broker thinks that it runs out of memory, and blocks publishers.
    MemoryAlarm,
    /// Queues take next to nothing and are full of old messages.
    FullQueues,
    /// Messages that nobody can read.
    Poison,
    /// SIGKILL of all processes of the database, which comes back in the end.
    DatabaseKill,
    /// An immediate shutdown of the database, which comes back in the end.
    DatabaseImmediate,
    /// A fast shutdown and a start.
    DatabaseRestart,
    /// Every connection is cut.
    Cut(Route),
    /// Nothing passes.
    Stall(Route),
    /// Everything is late.
    Delay(Route, Duration),
    /// Requests arrive, answers do not.
    LoseAnswers(Route),
    /// A vendor misbehaves.
    Vendor(Box<FaultRule>),
}

/// Longer than a frozen process keeps its lease.
const PAST_LEASE: Duration = Duration::from_secs(10);

/// A fault with its time.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Step {
    /// Since the start of the run.
    pub(crate) at: Duration,
    /// How long it lasts.
    pub(crate) hold: Duration,
    pub(crate) fault: Fault,
}

impl Step {
    /// The kind it is counted under. Vendors' faults are counted by the sandbox.
    pub(crate) fn kind(&self) -> Option<String> {
        let name = |place: &Place| match place {
            Place::Producer(_) => "producer",
            Place::Worker(_) => "worker",
        };
        Some(match &self.fault {
            Fault::Kill(place) => format!("{}_killed", name(place)),
            Fault::Freeze(place) if self.hold > PAST_LEASE => {
                format!("{}_frozen_past_lease", name(place))
            }
            Fault::Freeze(place) => format!("{}_frozen", name(place)),
            Fault::BrokerKill(_) => "broker_killed".to_owned(),
            Fault::MemoryAlarm => "broker_memory_alarm".to_owned(),
            Fault::FullQueues => "queues_full".to_owned(),
            Fault::Poison => "poison_messages".to_owned(),
            Fault::DatabaseKill => "database_killed".to_owned(),
            Fault::DatabaseImmediate => "database_shut_down_immediately".to_owned(),
            Fault::DatabaseRestart => "database_restarted".to_owned(),
            Fault::Cut(route) => format!("{}_cut", route.name()),
            Fault::Stall(route) => format!("{}_stalled", route.name()),
            Fault::Delay(route, _) => format!("{}_delayed", route.name()),
            Fault::LoseAnswers(route) => format!("{}_answers_lost", route.name()),
            Fault::Vendor(_) => return None,
        })
    }
}

/// What may go wrong next in a lane, with the shortest and longest time it lasts, milliseconds.
type Deck = Vec<(Fault, (u64, u64))>;

/// Everything that will go wrong within `length`.
pub(crate) fn plan(seed: u64, length: Duration, shape: Shape) -> Vec<Vec<Step>> {
    let mut lanes: Vec<((u64, u64), Deck)> = Vec::new();
    let workers = (0..shape.workers).map(|n| (Place::Worker(n), (4_000, 12_000)));
    let producers = (0..shape.producers).map(|n| (Place::Producer(n), (8_000, 24_000)));
    for (place, gap) in workers.chain(producers) {
        lanes.push((gap, process(place)));
    }
    lanes.push(((8_000, 20_000), broker(shape.brokers)));
    lanes.push(((15_000, 35_000), database()));
    let brokers = (0..shape.brokers).map(Route::Broker);
    let fixed = [
        Route::Database,
        Route::Api,
        Route::Sync,
        Route::Ghostcut,
        Route::Store,
    ];
    for route in fixed.into_iter().chain(brokers) {
        lanes.push(((5_000, 15_000), network(route)));
    }
    // Two lanes each: vendors have more than one trouble at a time.
    let vendors = [vendor_faults::sync(), vendor_faults::ghostcut()];
    for rules in vendors.clone().into_iter().chain(vendors) {
        let rules = rules.into_iter().map(|rule| Fault::Vendor(Box::new(rule)));
        let deck = rules.map(|fault| (fault, (3_000, 8_000))).collect();
        lanes.push(((500, 3_000), deck));
    }
    let lanes = lanes.iter().enumerate();
    lanes
        .map(|(number, (gap, deck))| lane(seed, number, length, *gap, deck))
        .collect()
}

/// The deck is dealt in random order, again and again, so that each of its faults has its turn.
fn lane(seed: u64, number: usize, length: Duration, gap: (u64, u64), deck: &Deck) -> Vec<Step> {
    // A stream of its own: what is added to one lane does not change the others.
    let stream = (number as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let mut random = StdRng::seed_from_u64(seed.wrapping_add(stream));
    let pick = |(from, to): (u64, u64), random: &mut StdRng| {
        Duration::from_millis(random.random_range(from..=to))
    };
    let (mut steps, mut hand) = (Vec::new(), Vec::new());
    let mut at = pick((gap.0 / 4, gap.1 / 2), &mut random);
    loop {
        if hand.is_empty() {
            hand.clone_from(deck);
            hand.shuffle(&mut random);
        }
        let Some((fault, hold)) = hand.pop() else {
            return steps;
        };
        let hold = pick(hold, &mut random);
        if at + hold > length {
            return steps;
        }
        steps.push(Step { at, hold, fault });
        at += hold + pick(gap, &mut random);
    }
}

fn process(place: Place) -> Deck {
    vec![
        (Fault::Kill(place), (0, 0)),
        (Fault::Kill(place), (0, 0)),
        (Fault::Kill(place), (0, 0)),
        (Fault::Freeze(place), (300, 4_000)),
        (Fault::Freeze(place), (11_000, 16_000)),
    ]
}

fn broker(nodes: usize) -> Deck {
    let mut deck = vec![
        (Fault::MemoryAlarm, (2_000, 6_000)),
        (Fault::FullQueues, (3_000, 8_000)),
        (Fault::Poison, (0, 0)),
    ];
    deck.extend((0..nodes).map(|node| (Fault::BrokerKill(node), (0, 5_000))));
    deck
}

fn database() -> Deck {
    vec![
        (Fault::DatabaseKill, (0, 5_000)),
        (Fault::DatabaseKill, (0, 500)),
        (Fault::DatabaseImmediate, (0, 5_000)),
        (Fault::DatabaseRestart, (0, 0)),
    ]
}

fn network(route: Route) -> Deck {
    let mut deck = vec![
        (Fault::Cut(route), (0, 0)),
        (Fault::Stall(route), (500, 4_000)),
        (
            Fault::Delay(route, Duration::from_millis(60)),
            (2_000, 6_000),
        ),
        (Fault::LoseAnswers(route), (200, 1_500)),
    ];
    // What is sent to the vendors then arrives after everybody has given it up. The store is spared: vendors read from it, and
    // would fail works for want of their input.
    if route != Route::Store {
        deck.push((Fault::Stall(route), (6_000, 13_000)));
    }
    deck
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: Shape = Shape {
        producers: 2,
        workers: 3,
        brokers: 3,
    };

    fn minutes(seed: u64, minutes: u64) -> Vec<Vec<Step>> {
        plan(seed, Duration::from_secs(60 * minutes), SHAPE)
    }

    #[test]
    fn the_same_seed_gives_the_same_plan_and_another_seed_another() {
        assert_eq!(minutes(7, 10), minutes(7, 10));
        assert_ne!(minutes(7, 10), minutes(8, 10));
    }

    #[test]
    fn a_lane_does_one_thing_at_a_time_and_ends_in_time() {
        let end = Duration::from_secs(600);
        for lane in minutes(1, 10) {
            assert!(
                lane.windows(2)
                    .all(|two| two[0].at + two[0].hold <= two[1].at)
            );
            assert!(lane.iter().all(|step| step.at + step.hold <= end));
        }
    }

    #[test]
    fn ten_minutes_have_everything_in_them() {
        let lanes = minutes(1, 10);
        let kinds: std::collections::BTreeSet<_> =
            lanes.iter().flatten().filter_map(Step::kind).collect();
        let places = ["producer", "worker"];
        for place in places {
            for what in ["killed", "frozen", "frozen_past_lease"] {
                assert!(kinds.contains(&format!("{place}_{what}")), "{kinds:?}");
            }
        }
        for route in ["api", "broker", "database", "ghostcut", "store", "sync"] {
            for what in ["cut", "stalled", "delayed", "answers_lost"] {
                assert!(kinds.contains(&format!("{route}_{what}")), "{kinds:?}");
            }
        }
        let servers = "broker_killed broker_memory_alarm queues_full poison_messages \
                       database_killed database_shut_down_immediately database_restarted";
        for kind in servers.split_whitespace() {
            assert!(kinds.contains(kind), "{kind}");
        }
    }
}
