//! The comparison of the ledger with a vendor's own list: what was paid for and is not booked, and the reverse.
//!
//! Pure: whoever audits reads both sides and brings them here. Says what differs; repairs nothing.

use std::collections::HashMap;

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::answer::{Work, WorkState};
use super::search::{Marker, tokens};
use super::words::vocabulary;
use super::{LedgerState, Vendor};

vocabulary! {
    /// How the ledger and a vendor's list differ.
    FindingKind {
        /// The vendor has a work with our marker that the ledger does not know: paid for and forgotten. Can be repaired.
        Orphan = "orphan",
        /// The vendor has the work of a submission that the ledger believes not to be there, or not to be known. Can be
        /// repaired.
        Unsettled = "unsettled",
        /// The vendor has the work of a submission that the ledger says was refused or never sent. That is final in the
        /// ledger, and the job may have gone on to pay for another one: a person asks the vendor for the money.
        Denied = "denied",
        /// The vendor has another work for a submission that has one: paid twice.
        SecondWork = "second_work",
        /// A job has more than one submission at the vendor that did not fail: paid twice.
        SecondSubmission = "second_submission",
        /// The ledger has a work that the vendor's list should show and does not.
        Vanished = "vanished",
    }
}

impl FindingKind {
    /// Whether the ledger can be corrected from what the vendor shows.
    #[must_use]
    pub const fn repairable(self) -> bool {
        matches!(self, Self::Orphan | Self::Unsettled)
    }

    /// Whether money was paid for nothing, which no later look undoes.
    #[must_use]
    pub const fn is_in_vain(self) -> bool {
        matches!(
            self,
            Self::SecondWork | Self::SecondSubmission | Self::Denied
        )
    }

    /// What it means, for people.
    #[must_use]
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::Orphan => "paid for and forgotten",
            Self::Unsettled => "the vendor has it, the ledger does not say so",
            Self::Denied => "the vendor has a work that it refused, or that was not sent",
            Self::SecondWork => "paid twice: a second work",
            Self::SecondSubmission => "paid twice: a second submission",
            Self::Vanished => "the vendor does not show it",
        }
    }

    /// Whether something was paid for twice.
    #[must_use]
    pub const fn is_twice(self) -> bool {
        matches!(self, Self::SecondWork | Self::SecondSubmission)
    }
}

/// A submission as the ledger has it.
#[derive(Clone, Debug)]
pub struct Booked {
    /// The submission.
    pub token: Uuid,
    /// The job it was for.
    pub job: Uuid,
    /// Its number among those of the job and vendor.
    pub attempt: i32,
    /// What the ledger says.
    pub state: LedgerState,
    /// The vendor's id of the work.
    pub task_id: Option<String>,
    /// GhostCut's batch id.
    pub project_id: Option<String>,
    /// Taken over, not sent by us: may have no marker, and its id may be a project's.
    pub imported: bool,
    /// How the work was last seen: `pending`, `succeeded` or `failed`.
    pub work_state: Option<String>,
    /// When the intent was committed.
    pub claimed_at: DateTime<Utc>,
    /// Until when it might be sent.
    pub send_deadline: DateTime<Utc>,
}

/// One difference.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Finding {
    /// What kind.
    pub kind: FindingKind,
    /// The vendor's id of the work.
    pub task_id: Option<String>,
    /// GhostCut's batch id.
    pub project_id: Option<String>,
    /// The submission, from the ledger or from the marker.
    pub token: Uuid,
    /// The job, from the ledger or from the marker.
    pub job: Uuid,
    /// The number of the submission.
    pub attempt: i32,
    /// When the vendor took the work; for a vanished one, when it was claimed.
    pub at: Option<DateTime<Utc>>,
    /// What is different, for people.
    pub detail: String,
    /// The job has another submission that is paid for.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub twice: bool,
    /// What the repair came to; none when none was tried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repair: Option<String>,
    /// Whether the ledger now says what the vendor says.
    #[serde(default)]
    pub repaired: bool,
    /// Who knows about it and has dealt with it at the vendor, and why; it no longer counts as a difference.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acknowledged: Option<String>,
}

impl Finding {
    /// Whether somebody still has to do something about it.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        !self.repaired && self.acknowledged.is_none()
    }

    /// Whether something was paid for twice, as far as is known before a repair books it.
    #[must_use]
    pub const fn is_twice(&self) -> bool {
        self.kind.is_twice() || self.twice
    }
}

/// What the comparison with one vendor came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Comparison {
    /// The vendor.
    pub vendor: Vendor,
    /// Works that it lists in the window.
    pub listed: usize,
    /// Those of them that the ledger knows.
    pub booked: usize,
    /// Those without a marker of ours that the ledger does not know: other users of the account.
    pub foreign: usize,
    /// Works of the ledger that the list does not show and that it is not proved to have to show.
    pub unproved: usize,
    /// Works that the ledger has at the vendor from this time, however young.
    #[serde(default)]
    pub expected: usize,
    /// The vendor's ids of the first foreign works, at most [`FOREIGN_SHOWN`].
    #[serde(default)]
    pub foreign_ids: Vec<String>,
    /// What differs.
    pub findings: Vec<Finding>,
}

/// Foreign works that are named; the others are counted.
pub const FOREIGN_SHOWN: usize = 20;

impl Comparison {
    /// Whether the list shows nothing of ours although the ledger has works at the vendor: then it proves nothing, and is no
    /// agreement.
    #[must_use]
    pub const fn is_blind(&self) -> bool {
        self.listed == self.foreign && self.expected > 0
    }
}

/// When and how sharply to compare.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    /// From when on the vendor was asked.
    pub since: DateTime<Utc>,
    /// The clock, by which a submission is young.
    pub now: DateTime<Utc>,
    /// How long after its send deadline a submission may be unclear before that is a finding, and how long a list may lag.
    pub lag: TimeDelta,
}

/// Compares. `ledger` has every submission to this vendor that was claimed in the window, and every other one that a listed
/// work names by id or token.
#[must_use]
pub fn compare(vendor: Vendor, ledger: &[Booked], works: &[Work], window: Window) -> Comparison {
    let by_task: HashMap<&str, &Booked> = ledger
        .iter()
        .filter_map(|booked| Some((booked.task_id.as_deref()?, booked)))
        .collect();
    let by_project: HashMap<&str, &Booked> = ledger
        .iter()
        .filter(|booked| booked.imported)
        .filter_map(|booked| Some((booked.task_id.as_deref()?, booked)))
        .collect();
    let by_token: HashMap<Uuid, &Booked> = ledger.iter().map(|b| (b.token, b)).collect();
    let mut comparison = Comparison {
        vendor,
        listed: works.len(),
        booked: 0,
        foreign: 0,
        unproved: 0,
        expected: ledger.iter().filter(|booked| is_expected(booked)).count(),
        foreign_ids: Vec::new(),
        findings: Vec::new(),
    };
    let mut seen: HashMap<Uuid, usize> = HashMap::new();
    for work in works {
        let known = by_task.get(work.task_id.as_str()).or_else(|| {
            let project = work.project_id.as_deref()?;
            by_project.get(project)
        });
        if let Some(booked) = known {
            comparison.booked += 1;
            seen.insert(booked.token, 1);
            continue;
        }
        let marker = Marker::of(work);
        let booked = match marker {
            Some(marker) => by_token.get(&marker.token).copied(),
            // A list that cuts or hides the name may still show the token, in a URL.
            None => (tokens(work).iter()).find_map(|token| by_token.get(token).copied()),
        };
        match (booked, marker) {
            (Some(booked), _) => {
                comparison.booked += 1;
                let nth = seen.entry(booked.token).or_default();
                *nth += 1;
                comparison
                    .findings
                    .extend(known_token(booked, work, *nth, window));
            }
            (None, Some(marker)) => {
                let nth = seen.entry(marker.token).or_default();
                *nth += 1;
                let beside =
                    (ledger.iter()).find(|booked| booked.job == marker.job && is_paid(booked));
                comparison
                    .findings
                    .push(unknown_token(marker, work, *nth, beside));
            }
            (None, None) => {
                comparison.foreign += 1;
                if comparison.foreign <= FOREIGN_SHOWN {
                    comparison.foreign_ids.push(work.task_id.clone());
                }
            }
        }
    }
    missing(&mut comparison, ledger, &seen, window);
    comparison.findings.extend(second_submissions(ledger));
    comparison
}

/// A work whose id the ledger does not have, of a submission that it has.
fn known_token(booked: &Booked, work: &Work, nth: usize, window: Window) -> Option<Finding> {
    let (kind, detail) = match booked.state {
        _ if nth > 1 => (
            FindingKind::SecondWork,
            "the vendor has more than one work with this token".to_owned(),
        ),
        // Somebody is still at it.
        LedgerState::Claimed | LedgerState::Unknown
            if window.now < booked.send_deadline + window.lag =>
        {
            return None;
        }
        LedgerState::Claimed | LedgerState::Unknown | LedgerState::Absent => (
            FindingKind::Unsettled,
            format!("the ledger says {}, the vendor has the work", booked.state),
        ),
        LedgerState::NotSent | LedgerState::Rejected => (
            FindingKind::Denied,
            format!(
                "the ledger says {}, which is final, and the vendor has the work: ask it for the money",
                booked.state
            ),
        ),
        LedgerState::Accepted
        | LedgerState::Redoing
        | LedgerState::Succeeded
        | LedgerState::Failed
        | LedgerState::Duplicate => (
            FindingKind::SecondWork,
            format!(
                "the ledger has the work {} for this token",
                booked.task_id.as_deref().unwrap_or("(none)")
            ),
        ),
    };
    Some(Finding {
        kind,
        task_id: Some(work.task_id.clone()),
        project_id: work.project_id.clone(),
        token: booked.token,
        job: booked.job,
        attempt: booked.attempt,
        at: created(work),
        detail,
        twice: false,
        repair: None,
        repaired: false,
        acknowledged: None,
    })
}

/// A work of ours whose submission the ledger does not have; `beside` is one of the same job that was paid for.
fn unknown_token(marker: Marker, work: &Work, nth: usize, beside: Option<&Booked>) -> Finding {
    let (kind, mut detail) = if nth > 1 {
        (
            FindingKind::SecondWork,
            "the vendor has more than one work with this token, which the ledger does not know"
                .to_owned(),
        )
    } else {
        (
            FindingKind::Orphan,
            "the vendor has the work, the ledger does not know its token".to_owned(),
        )
    };
    // A work that failed is not one that was paid for.
    let beside = beside.filter(|_| !matches!(work.state, WorkState::Failed { .. }));
    if let Some(booked) = beside {
        detail += &format!(
            "; the job has the submission {} too: paid twice",
            booked.token
        );
    }
    Finding {
        kind,
        task_id: Some(work.task_id.clone()),
        project_id: work.project_id.clone(),
        token: marker.token,
        job: marker.job,
        attempt: marker.attempt,
        at: created(work),
        detail,
        twice: beside.is_some(),
        repair: None,
        repaired: false,
        acknowledged: None,
    }
}

/// Works of the ledger that are not listed. They are missed only where the list shows works of ours from before and from after:
/// it may lag, be cut, or not go back so far.
fn missing(
    comparison: &mut Comparison,
    ledger: &[Booked],
    seen: &HashMap<Uuid, usize>,
    window: Window,
) {
    let shown = || {
        ledger
            .iter()
            .filter(|booked| seen.contains_key(&booked.token))
    };
    let first = shown().map(|booked| booked.claimed_at).min();
    let last = shown().map(|booked| booked.claimed_at).max();
    for booked in ledger {
        let inside = booked.claimed_at >= window.since + window.lag
            && booked.send_deadline + window.lag <= window.now;
        if !is_expected(booked) || !inside || seen.contains_key(&booked.token) {
            continue;
        }
        let proved = first.is_some_and(|first| first < booked.claimed_at)
            && last.is_some_and(|last| last > booked.claimed_at);
        if !proved {
            comparison.unproved += 1;
            continue;
        }
        comparison.findings.push(Finding {
            kind: FindingKind::Vanished,
            task_id: booked.task_id.clone(),
            project_id: booked.project_id.clone(),
            token: booked.token,
            job: booked.job,
            attempt: booked.attempt,
            at: Some(booked.claimed_at),
            detail: format!(
                "the ledger says {}, the vendor's list shows works from before and after and not this one",
                booked.state
            ),
            twice: false,
        repair: None,
            repaired: false,
        acknowledged: None,
        });
    }
}

/// Whether the vendor has the work, as far as the ledger knows, under an id that its list would show.
const fn is_expected(booked: &Booked) -> bool {
    let at_the_vendor = matches!(
        booked.state,
        LedgerState::Accepted | LedgerState::Redoing | LedgerState::Succeeded
    );
    at_the_vendor && !booked.imported
}

/// Whether it is paid for: at the vendor and not failed.
fn is_paid(booked: &Booked) -> bool {
    let at_the_vendor = matches!(
        booked.state,
        LedgerState::Accepted
            | LedgerState::Redoing
            | LedgerState::Succeeded
            | LedgerState::Duplicate
    );
    at_the_vendor && booked.work_state.as_deref() != Some("failed")
}

/// Submissions that are one too many for their job: at the vendor, not failed, beside another one that is the same.
fn second_submissions(ledger: &[Booked]) -> Vec<Finding> {
    let mut jobs: HashMap<Uuid, Vec<&Booked>> = HashMap::new();
    for booked in ledger.iter().filter(|booked| is_paid(booked)) {
        jobs.entry(booked.job).or_default().push(booked);
    }
    let mut findings = Vec::new();
    for submissions in jobs
        .values_mut()
        .filter(|submissions| submissions.len() > 1)
    {
        // The job's own one is the one that is no duplicate.
        submissions.sort_by_key(|b| (b.state == LedgerState::Duplicate, b.attempt));
        for second in &submissions[1..] {
            findings.push(Finding {
                kind: FindingKind::SecondSubmission,
                task_id: second.task_id.clone(),
                project_id: second.project_id.clone(),
                token: second.token,
                job: second.job,
                attempt: second.attempt,
                at: Some(second.claimed_at),
                detail: format!("the job has the submission {} too", submissions[0].token),
                twice: false,
                repair: None,
                repaired: false,
                acknowledged: None,
            });
        }
    }
    findings.sort_by_key(|finding| (finding.at, finding.token));
    findings
}

fn created(work: &Work) -> Option<DateTime<Utc>> {
    work.created_at_ms.and_then(DateTime::from_timestamp_millis)
}

#[cfg(test)]
mod tests;
