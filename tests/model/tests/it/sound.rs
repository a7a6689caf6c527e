//! With all guards in, every property holds in every state, and the interesting states are reachable.
//!
//! A configuration that is too large for every day is checked breadth-first up to a number of states; with `MODEL_FULL=1` all of
//! them are checked to the end.

use std::time::Instant;

use model::{Protocol, Vendor};
use stateright::{Checker as _, Expectation, Model as _};

/// States generated before a large configuration is left for another day.
const BOUND: usize = 8_000_000;

#[expect(clippy::print_stdout, reason = "the counts are the result")]
fn check(name: &str, protocol: Protocol) {
    let started = Instant::now();
    let full = std::env::var_os("MODEL_FULL").is_some();
    let bound = if full { usize::MAX } else { BOUND };
    let checker = (protocol.checker().threads(2))
        .target_state_count(bound)
        .spawn_bfs()
        .join();
    let cut = checker.state_count() >= bound;
    println!(
        "{name}: {} states, {} unique, depth {}, {:.1} s{}",
        checker.state_count(),
        checker.unique_state_count(),
        checker.max_depth(),
        started.elapsed().as_secs_f64(),
        if cut { ", cut" } else { "" }
    );
    for property in protocol.properties() {
        match (property.expectation, checker.discovery(property.name)) {
            (Expectation::Always, Some(path)) => {
                for (at, step) in path.into_actions().iter().enumerate() {
                    println!("{:>3}. {step}", at + 1);
                }
                panic!("{name}: `{}` does not hold", property.name);
            }
            (Expectation::Sometimes, None) if !cut => {
                panic!("{name}: `{}` cannot be reached", property.name);
            }
            _ => {}
        }
    }
}

const SYNC: Protocol = Protocol::of(Vendor::Sync);
const GHOSTCUT: Protocol = Protocol::of(Vendor::Ghostcut);

const fn alone(protocol: Protocol) -> Protocol {
    Protocol {
        workers: 1,
        ..protocol
    }
}

/// One test for each configuration.
macro_rules! sound {
    ($($name:ident: $protocol:expr;)*) => {
        $(
            #[test]
            fn $name() {
                check(stringify!($name), $protocol);
            }
        )*
    };
}

sound! {
    sync_two_workers: SYNC;
    sync_callbacks: SYNC.with_callbacks();
    sync_people: alone(SYNC.with_people().with_callbacks());
    sync_people_two_workers: SYNC.with_people();
    ghostcut_two_workers: GHOSTCUT;
    ghostcut_two_producers: Protocol { producers: 2, attempts: 1, ..GHOSTCUT };
    ghostcut_three_workers: Protocol { workers: 3, attempts: 1, ..GHOSTCUT };
    ghostcut_callbacks: GHOSTCUT.with_callbacks();
    ghostcut_people: alone(GHOSTCUT.with_people().with_callbacks());
    ghostcut_people_two_workers: GHOSTCUT.with_people();
    ghostcut_redo: alone(GHOSTCUT.with_people().with_redo());
    ghostcut_redo_two_workers: GHOSTCUT.with_people().with_redo();
    ghostcut_old_system: alone(GHOSTCUT.with_old_system());
}
