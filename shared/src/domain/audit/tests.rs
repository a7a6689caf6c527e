//! The comparison, case by case.

use chrono::Timelike as _;

use super::*;
use crate::domain::answer::WorkState;

fn id(n: u128) -> Uuid {
    Uuid::from_u128(n)
}

/// A fixed afternoon; minutes count from noon.
fn at(minute: i64) -> DateTime<Utc> {
    let noon = DateTime::<Utc>::UNIX_EPOCH
        .with_hour(12)
        .unwrap_or_default();
    noon + TimeDelta::minutes(minute)
}

fn window() -> Window {
    Window {
        since: at(0),
        now: at(300),
        lag: TimeDelta::minutes(15),
    }
}

fn work(task: &str, of: Option<(u128, u128)>) -> Work {
    let name = of.map(|(job, token)| {
        let marker = Marker {
            job: id(job),
            attempt: 1,
            token: id(token),
        };
        marker.to_string()
    });
    Work {
        task_id: task.to_owned(),
        project_id: None,
        source_url: None,
        name,
        callback_url: None,
        created_at_ms: None,
        state: WorkState::Pending {
            progress: None,
            unrecognised: None,
        },
        charged: None,
    }
}

fn booked(token: u128, job: u128, state: LedgerState, task: Option<&str>, minute: i64) -> Booked {
    Booked {
        token: id(token),
        job: id(job),
        attempt: 1,
        state,
        task_id: task.map(str::to_owned),
        project_id: None,
        imported: false,
        work_state: None,
        claimed_at: at(minute),
        send_deadline: at(minute + 1),
    }
}

fn kinds(ledger: &[Booked], works: &[Work]) -> Vec<FindingKind> {
    let comparison = compare(Vendor::Ghostcut, ledger, works, window());
    comparison
        .findings
        .iter()
        .map(|finding| finding.kind)
        .collect()
}

#[test]
fn what_agrees_is_no_finding() {
    let ledger = [
        booked(1, 11, LedgerState::Succeeded, Some("a"), 20),
        booked(2, 12, LedgerState::Failed, Some("b"), 30),
        booked(3, 13, LedgerState::NotSent, None, 40),
    ];
    let works = [work("a", Some((11, 1))), work("b", None), work("x", None)];
    let comparison = compare(Vendor::Ghostcut, &ledger, &works, window());
    assert_eq!(comparison.findings, []);
    let counts = (
        comparison.listed,
        comparison.booked,
        comparison.foreign,
        comparison.unproved,
    );
    assert_eq!(
        counts,
        (3, 2, 1, 0),
        "what has no marker is somebody else's"
    );
}

#[test]
fn what_is_paid_and_not_booked_is_found_once_each() {
    use FindingKind as F;
    let works = [work("a", Some((11, 1))), work("b", Some((11, 1)))];
    assert_eq!(kinds(&[], &works[..1]), [F::Orphan]);
    assert_eq!(
        kinds(&[], &works),
        [F::Orphan, F::SecondWork],
        "two works, one token"
    );
    for (state, twice) in [(LedgerState::Succeeded, true), (LedgerState::Absent, false)] {
        let beside = booked(2, 11, state, None, 10);
        let comparison = compare(Vendor::Ghostcut, &[beside], &works[..1], window());
        let orphan = &comparison.findings[0];
        assert_eq!(orphan.kind, F::Orphan);
        assert_eq!(orphan.detail.ends_with("too: paid twice"), twice, "{state}");
    }
    let comparison = compare(Vendor::Ghostcut, &[], &works, window());
    let first = &comparison.findings[0];
    assert_eq!((first.job, first.token, first.attempt), (id(11), id(1), 1));
    for (state, task, expected) in [
        (LedgerState::Claimed, None, Some(F::Unsettled)),
        (LedgerState::Unknown, None, Some(F::Unsettled)),
        (LedgerState::Absent, None, Some(F::Unsettled)),
        (LedgerState::NotSent, None, Some(F::Denied)),
        (LedgerState::Rejected, None, Some(F::Denied)),
        (LedgerState::Accepted, Some("z"), Some(F::SecondWork)),
        (LedgerState::Succeeded, Some("z"), Some(F::SecondWork)),
        (LedgerState::Failed, Some("z"), Some(F::SecondWork)),
        (LedgerState::Accepted, Some("a"), None),
    ] {
        // Outside of the window, so that nothing is missed.
        let ledger = [booked(1, 11, state, task, -500)];
        assert_eq!(
            kinds(&ledger, &works[..1]),
            Vec::from_iter(expected),
            "{state} {task:?}"
        );
    }
}

#[test]
fn what_is_still_being_sent_or_searched_for_is_no_finding() {
    for state in [LedgerState::Claimed, LedgerState::Unknown] {
        for (minute, found) in [(283, 1), (285, 0)] {
            let ledger = [booked(1, 11, state, None, minute)];
            let works = [work("a", Some((11, 1)))];
            assert_eq!(
                kinds(&ledger, &works).len(),
                found,
                "{state} claimed at minute {minute}"
            );
        }
    }
}

#[test]
fn a_token_is_recognised_without_its_marker() {
    let mut shown = work("a", None);
    shown.source_url = Some(format!("https://s3/submissions%2F{}/source.mp4", id(1)));
    let ledger = [booked(1, 11, LedgerState::Absent, None, 20)];
    assert_eq!(kinds(&ledger, &[shown]), [FindingKind::Unsettled]);
}

#[test]
fn a_work_is_missed_only_where_the_list_is_proved() {
    let missed = booked(2, 12, LedgerState::Accepted, Some("b"), 100);
    let before = booked(1, 11, LedgerState::Succeeded, Some("a"), 50);
    let after = booked(3, 13, LedgerState::Accepted, Some("c"), 150);
    let (a, c) = (work("a", None), work("c", None));
    let all = [before.clone(), missed.clone(), after.clone()];
    assert_eq!(
        kinds(&all, &[a.clone(), c.clone()]),
        [FindingKind::Vanished]
    );
    let lists: [&[Work]; 3] = [std::slice::from_ref(&a), std::slice::from_ref(&c), &[]];
    for works in lists {
        assert_eq!(kinds(&all, works), [], "the list may be cut there");
    }
    let unproved = compare(Vendor::Sync, &all, std::slice::from_ref(&a), window()).unproved;
    assert_eq!(unproved, 2);
    for (minute, why) in [(5, "at the edge of the window"), (290, "the list may lag")] {
        let mut edge = missed.clone();
        (edge.claimed_at, edge.send_deadline) = (at(minute), at(minute + 1));
        let mut ends = [before.clone(), edge, after.clone()];
        ends[0].claimed_at = at(-10);
        ends[2].claimed_at = at(299);
        assert_eq!(kinds(&ends, &[a.clone(), c.clone()]), [], "{why}");
    }
    let imported = Booked {
        imported: true,
        ..missed
    };
    assert_eq!(
        kinds(&[before, imported, after], &[a, c]),
        [],
        "somebody else's id"
    );
}

#[test]
fn two_paid_submissions_of_a_job_are_found() {
    let first = booked(1, 11, LedgerState::Succeeded, Some("a"), 20);
    let duplicate = booked(2, 11, LedgerState::Duplicate, Some("b"), 30);
    let works = [work("a", None), work("b", None)];
    let comparison = compare(
        Vendor::Sync,
        &[duplicate.clone(), first.clone()],
        &works,
        window(),
    );
    assert_eq!(comparison.findings.len(), 1);
    let finding = &comparison.findings[0];
    assert_eq!(
        (finding.kind, finding.token),
        (FindingKind::SecondSubmission, id(2))
    );
    // A failed one was paid for again by policy, or is not charged.
    let failed = Booked {
        work_state: Some("failed".to_owned()),
        ..duplicate
    };
    assert_eq!(kinds(&[failed, first.clone()], &works), []);
    let failed = booked(2, 11, LedgerState::Failed, Some("b"), 30);
    assert_eq!(kinds(&[failed, first], &works), []);
}

#[test]
fn a_list_without_anything_of_ours_proves_nothing() {
    let ours = [booked(1, 11, LedgerState::Accepted, Some("a"), 299)];
    let blind = |ledger: &[Booked], works: &[Work]| {
        compare(Vendor::Sync, ledger, works, window()).is_blind()
    };
    assert!(blind(&ours, &[]), "however young the work is");
    assert!(
        blind(&ours, &[work("x", None)]),
        "somebody else's work is no sign of ours"
    );
    assert!(!blind(&ours, &[work("a", None)]));
    assert!(
        !blind(&ours, &[work("b", Some((12, 2)))]),
        "an orphan is ours"
    );
    assert!(!blind(&[], &[]), "there is nothing to be shown");
    assert!(!blind(
        &[booked(1, 11, LedgerState::NotSent, None, 20)],
        &[]
    ));
    let foreign = compare(Vendor::Sync, &ours, &[work("x", None)], window());
    assert_eq!(foreign.foreign_ids, ["x"]);
}
