//! I1 to I7 as properties of a state, and the interesting states that must be reachable, lest the rest be true of nothing.

use stateright::Property;

use crate::protocol::Protocol;
use crate::state::{Ledger, Progress, Row, RowState, State, Status, Submission, Vendor, Work};
use crate::worker::adopts;

/// At most one work that costs money, but for works of the replaced system.
pub const PAID_ONCE: &str = "I1 paid once";
/// At most one submission occupies the slot.
pub const ONE_SLOT: &str = "I1 one submission occupies the slot";
/// The claim is committed before anything is sent.
pub const CLAIMED_FIRST: &str = "I2 claimed before sent";
/// Nothing is sent after its time.
pub const IN_TIME: &str = "I2 sent in time";
/// What the ledger calls not sent, refused or absent costs nothing.
pub const PROVED: &str = "I3 what freed the slot is not paid";
/// The acknowledgement comes last.
pub const COMMITTED_FIRST: &str = "I4 committed before acknowledged";
/// An id that counts stays.
pub const NOT_OVERWRITTEN: &str = "I4 an id is never overwritten";
/// The job's row has the id of the submission that occupies the slot.
pub const ID_KNOWN: &str = "I4 the id is in the job's row";
/// A row says what happens next, or why it stands.
pub const NOT_LOST: &str = "I6 no job is lost";
/// Somebody looks at every submission that may cost money.
pub const FOLLOWED: &str = "I6 every live submission is followed";
/// Who lost the epoch moves nothing.
pub const FENCED: &str = "I7 a stale actor moves nothing";

fn costs(work: &Work) -> bool {
    work.of.is_some() && !matches!(work.progress, Progress::Failed(_))
}

fn has(state: &State, ledger: Ledger) -> bool {
    state.ledger.iter().any(|sub| sub.state == ledger)
}

fn proved(state: &State) -> bool {
    state.ledger.iter().enumerate().all(|(attempt, sub)| {
        let free = matches!(
            sub.state,
            Ledger::NotSent | Ledger::Rejected | Ledger::Absent
        );
        let costs = |work: &Work| work.of == Some(attempt) && costs(work);
        !free || !state.works.iter().any(costs)
    })
}

fn id_known(state: &State) -> bool {
    let known = |sub: &Submission| {
        let at_vendor = matches!(
            sub.state,
            Ledger::Accepted | Ledger::Redoing | Ledger::Succeeded
        );
        !at_vendor || sub.work.is_some() && sub.work == state.metadata
    };
    state.ledger.iter().all(known)
}

fn not_lost(state: &State) -> bool {
    match state.status {
        Status::Active => state.row.is_some_and(|row| row.state != RowState::Dead),
        Status::Completed => state.row.is_none(),
        Status::Failed | Status::Canceled => true,
    }
}

fn followed(model: &Protocol, state: &State) -> bool {
    (0..state.ledger.len()).all(|attempt| match state.ledger[attempt].state {
        Ledger::Claimed | Ledger::Unknown => !state.stands_nowhere(),
        Ledger::Accepted | Ledger::Redoing => {
            !state.stands_nowhere() || model.sweeps() && model.is_unfollowed(state, attempt)
        }
        Ledger::Duplicate => state.ledger[attempt].duplicate_ended.is_some() || model.sweeps(),
        _ => true,
    })
}

/// Nothing more has to happen by itself: the job stands and says why, or it is over and the ledger knows how each work ended.
#[must_use]
pub fn is_settled(state: &State) -> bool {
    let stands = |row: Row| matches!(row.state, RowState::Parked | RowState::Dead);
    let ended = |sub: &Submission| match sub.state {
        Ledger::Claimed | Ledger::Unknown | Ledger::Accepted | Ledger::Redoing => false,
        Ledger::Duplicate => sub.duplicate_ended.is_some(),
        _ => true,
    };
    match state.row {
        Some(row) => stands(row),
        None => !state.is_active() && state.ledger.iter().all(ended),
    }
}

/// All properties of a configuration.
pub(crate) fn all(model: &Protocol) -> Vec<Property<Protocol>> {
    let mut all = vec![
        Property::always(PAID_ONCE, |_, state: &State| {
            state.works.iter().filter(|work| costs(work)).count() <= 1
        }),
        Property::always(ONE_SLOT, |_, state: &State| {
            (state.ledger.iter())
                .filter(|sub| sub.state.occupies())
                .count()
                <= 1
        }),
        Property::always(CLAIMED_FIRST, |_, state: &State| {
            !state.crimes.sent_unclaimed
        }),
        Property::always(IN_TIME, |_, state: &State| !state.crimes.sent_late),
        Property::always(PROVED, |_, state: &State| proved(state)),
        Property::always(COMMITTED_FIRST, |_, state: &State| {
            !state.crimes.acked_early
        }),
        Property::always(NOT_OVERWRITTEN, |_, state: &State| {
            !state.crimes.overwritten
        }),
        Property::always(ID_KNOWN, |_, state: &State| id_known(state)),
        Property::always(NOT_LOST, |_, state: &State| not_lost(state)),
        Property::always(FOLLOWED, followed),
        Property::always(FENCED, |_, state: &State| !state.crimes.stale_moved),
        Property::sometimes("a job is completed", |_, state: &State| {
            state.status == Status::Completed
        }),
        Property::sometimes("an unknown outcome is adopted", |_, state: &State| {
            state.workers.iter().any(|worker| adopts(state, worker))
        }),
        Property::sometimes("a job is given up", |_, state: &State| {
            matches!(
                state.row,
                Some(Row {
                    state: RowState::Dead,
                    ..
                })
            )
        }),
        Property::sometimes("a job is parked", |_, state: &State| {
            matches!(
                state.row,
                Some(Row {
                    state: RowState::Parked,
                    ..
                })
            )
        }),
    ];
    if model.attempts > 1 && (model.people || model.vendor == Vendor::Ghostcut) {
        all.push(Property::sometimes(
            "an absent one is paid anew",
            |_, state: &State| has(state, Ledger::Absent) && has(state, Ledger::Accepted),
        ));
    }
    if model.attempts > 1 && model.callbacks && model.vendor == Vendor::Ghostcut || model.old_system
    {
        all.push(Property::sometimes(
            "a duplicate is noticed",
            |_, state: &State| has(state, Ledger::Duplicate),
        ));
    }
    if model.redo {
        all.push(Property::sometimes(
            "a redone work succeeds",
            |_, state: &State| {
                let redone = |sub: &Submission| sub.redone && sub.state == Ledger::Succeeded;
                state.ledger.iter().any(redone)
            },
        ));
    }
    all
}
