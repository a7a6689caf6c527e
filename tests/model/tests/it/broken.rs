//! With one guard out, the checker finds what it was for, and says so in as few steps as there can be.

use std::collections::BTreeSet;

use model::{GUARDS, Guard, Protocol, Vendor};
use stateright::{Checker as _, HasDiscoveries, Model as _};

/// Checks that the property breaks without the guard, and prints the shortest way there.
#[expect(clippy::print_stdout, reason = "the counterexample is the result")]
fn breaks(guard: Guard, protocol: Protocol, property: &'static str) {
    let checker = protocol
        .without(guard)
        .checker()
        .finish_when(HasDiscoveries::AnyOf(BTreeSet::from([property])))
        .spawn_bfs()
        .join();
    let steps = checker
        .discovery(property)
        .unwrap_or_else(|| panic!("`{property}` holds without {guard:?}"))
        .into_actions();
    println!(
        "without {guard:?}: `{property}` breaks in {} steps, {} unique states seen",
        steps.len(),
        checker.unique_state_count()
    );
    for (at, step) in steps.iter().enumerate() {
        println!("{:>3}. {step}", at + 1);
    }
}

/// One test for each guard: the guard, the configuration, and the property that breaks without it.
macro_rules! broken {
    ($($name:ident: $guard:ident, $protocol:expr, $property:ident;)*) => {
        $(
            #[test]
            fn $name() {
                breaks(Guard::$guard, $protocol, model::$property);
            }
        )*

        /// The guards that have a test.
        const TESTED: &[Guard] = &[$(Guard::$guard),*];
    };
}

const SYNC: Protocol = Protocol::of(Vendor::Sync);
const GHOSTCUT: Protocol = Protocol::of(Vendor::Ghostcut);

const fn alone(protocol: Protocol) -> Protocol {
    Protocol {
        workers: 1,
        ..protocol
    }
}

broken! {
    no_claim_before_the_send: ClaimBeforeSend, GHOSTCUT, PAID_ONCE;
    unknown_does_not_occupy_the_slot: UnknownOccupies, GHOSTCUT, PAID_ONCE;
    the_deadline_is_not_checked: Deadline, GHOSTCUT, IN_TIME;
    a_claim_is_sent_after_its_window: Deadline, SYNC, PAID_ONCE;
    the_epoch_is_not_checked: Epoch, GHOSTCUT, FENCED;
    acknowledged_before_the_commit: CommitBeforeAck, GHOSTCUT, COMMITTED_FIRST;
    the_id_is_overwritten: CompareAndSet, GHOSTCUT.with_old_system(), NOT_OVERWRITTEN;
    absent_without_a_control: Control, GHOSTCUT, PAID_ONCE;
    absent_while_the_source_is_there: DeleteSource, GHOSTCUT, PAID_ONCE;
    absent_before_the_settle_time: SettleTime, GHOSTCUT, PAID_ONCE;
    a_replay_of_the_dead_sends: LedgerDecidesReplay, GHOSTCUT.with_people(), PAID_ONCE;
    nobody_sweeps: Sweep, GHOSTCUT.with_people(), FOLLOWED;
    given_up_while_alive: AliveNeverDead, GHOSTCUT, FOLLOWED;
    a_refused_replay_proves_something: ReplayRefusalProvesNothing, SYNC, PAID_ONCE;
    a_late_refusal_proves_something: LateRefusalProvesNothing, SYNC, PAID_ONCE;
    a_replay_after_its_window: ReplayInTime, SYNC, PAID_ONCE;
    confirmed_while_it_may_be_sent: ConfirmWhenOver, SYNC.with_people(), PAID_ONCE;
    a_redo_by_a_stale_worker: RedoFenced, GHOSTCUT.with_redo(), FENCED;
    a_redo_after_its_time: RedoInTime, GHOSTCUT.with_people().with_redo(), PAID_ONCE;
    a_redo_is_not_waited_for: RedoPatience, alone(GHOSTCUT.with_people().with_redo()), PAID_ONCE;
    an_old_answer_ends_a_redo: StatusEndsRedo, alone(GHOSTCUT.with_people().with_redo().with_callbacks()), PAID_ONCE;
    a_late_sweep: SweepFenced, alone(GHOSTCUT.with_people().with_redo()), PAID_ONCE;
}

#[test]
fn every_guard_has_its_test() {
    for guard in GUARDS {
        let by_recovery = *guard == Guard::PollGoesBack;
        assert!(
            by_recovery || TESTED.contains(guard),
            "{guard:?} has no test"
        );
    }
}
