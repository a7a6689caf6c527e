//! How a work at a vendor is told to be ours, and what a list that does not show it proves.
//!
//! Pure: whoever searches asks the vendor and the ledger, and brings both here.

use std::fmt;

use chrono::{DateTime, TimeDelta, Utc};
use percent_encoding::percent_decode_str;
use uuid::Uuid;

use super::answer::{Work, WorkState};

/// How far around a submission to search: the vendor's clock may differ from ours and its list may lag.
pub const AROUND: TimeDelta = TimeDelta::minutes(15);

/// What a vendor's own list shows of a submission. It stands in the work's name and in the URL of its input, so that the list
/// can rebuild the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Marker {
    /// The job.
    pub job: Uuid,
    /// The number of the submission among those of the job and vendor.
    pub attempt: i32,
    /// The submission.
    pub token: Uuid,
}

/// Letters, digits and hyphens, as Sync.so's `outputFileName` wants.
impl fmt::Display for Marker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "gf-{}-{}-{}", self.job, self.attempt, self.token)
    }
}

impl Marker {
    /// The first marker in a text, percent-encoded or not.
    #[must_use]
    pub fn find(text: &str) -> Option<Self> {
        let text = percent_decode_str(text).decode_utf8_lossy();
        text.match_indices("gf-")
            .find_map(|(at, prefix)| Self::read(&text[at + prefix.len()..]))
    }

    fn read(text: &str) -> Option<Self> {
        const ID: usize = 36;
        let job = text.get(..ID)?.parse().ok()?;
        let (attempt, token) = text.get(ID..)?.strip_prefix('-')?.split_once('-')?;
        let attempt: i32 = attempt.parse().ok()?;
        let token = token.get(..ID)?.parse().ok()?;
        (attempt >= 1).then_some(Self {
            job,
            attempt,
            token,
        })
    }

    /// The marker that a vendor shows of a work, wherever it stands.
    #[must_use]
    pub fn of(work: &Work) -> Option<Self> {
        [&work.name, &work.source_url, &work.callback_url]
            .into_iter()
            .flatten()
            .find_map(|text| Self::find(text))
    }
}

/// Whether a vendor's text (name or URL, percent-encoded or not, cut or not) carries the token of a submission.
#[must_use]
pub fn carries(text: Option<&str>, token: Uuid) -> bool {
    let token = token.to_string();
    text.is_some_and(|text| {
        percent_decode_str(text)
            .decode_utf8_lossy()
            .contains(&token)
    })
}

/// Whether the vendor shows the token of this submission with the work.
#[must_use]
pub fn is_of(work: &Work, token: Uuid) -> bool {
    [&work.name, &work.source_url, &work.callback_url]
        .into_iter()
        .any(|text| carries(text.as_deref(), token))
}

/// Every token that the vendor may show with the work: whatever in its texts is written as one.
#[must_use]
pub fn tokens(work: &Work) -> Vec<Uuid> {
    const LENGTH: usize = 36;
    let mut tokens = Vec::new();
    for text in [&work.name, &work.source_url, &work.callback_url]
        .into_iter()
        .flatten()
    {
        let text = percent_decode_str(text).decode_utf8_lossy();
        let starts = text.char_indices().map(|(at, _)| at);
        let written = starts.filter_map(|at| text.get(at..at + LENGTH));
        tokens.extend(written.filter_map(|written| Uuid::try_parse(written).ok()));
    }
    tokens
}

/// The order in which several works of one submission are preferred: success before pending before failed.
#[must_use]
pub const fn worth(state: &WorkState) -> u8 {
    match state {
        WorkState::Succeeded { .. } => 0,
        WorkState::Pending { .. } => 1,
        WorkState::Failed { .. } => 2,
    }
}

/// A work known to be at the vendor: a search that shows it, and shows it as ours, has been seen to work.
#[derive(Clone, Debug)]
pub struct Known {
    /// The vendor's id of the work.
    pub task_id: String,
    /// The submission behind it.
    pub token: Uuid,
    /// When it was claimed.
    pub claimed_at: DateTime<Utc>,
}

/// What a list that does not show our work proves.
#[derive(Debug, PartialEq, Eq)]
pub struct Evidence {
    /// Works sent after ours could no longer be sent, and shown as ours: the list is as new as it has to be.
    pub later_controls: usize,
    /// Works of around that time, shown as ours.
    pub controls: usize,
    /// Works that we do not know and could not tell from ours by what the controls show.
    pub undecidable: usize,
}

/// Weighs a list that does not show a submission whose send deadline was `deadline`.
#[must_use]
pub fn weigh(works: &[Work], known: &[Known], deadline: DateTime<Utc>) -> Evidence {
    let controls: Vec<_> = works
        .iter()
        .filter_map(|work| {
            let known = known.iter().find(|known| known.task_id == work.task_id)?;
            let by_name = carries(work.name.as_deref(), known.token);
            let by_url = carries(work.source_url.as_deref(), known.token);
            (by_name || by_url).then_some((known, by_name, by_url))
        })
        .collect();
    let (names, urls) = (
        controls.iter().any(|(_, name, _)| *name),
        controls.iter().any(|(_, _, url)| *url),
    );
    let told_apart =
        |work: &Work| names && work.name.is_some() || urls && work.source_url.is_some();
    let is_known = |work: &Work| known.iter().any(|known| known.task_id == work.task_id);
    Evidence {
        later_controls: controls
            .iter()
            .filter(|(known, ..)| known.claimed_at >= deadline)
            .count(),
        controls: controls.len(),
        undecidable: works
            .iter()
            .filter(|work| !is_known(work) && !told_apart(work))
            .count(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::answer::FailureClass;

    fn work(task_id: &str, source_url: Option<&str>, name: Option<&str>) -> Work {
        Work {
            task_id: task_id.to_owned(),
            project_id: None,
            source_url: source_url.map(str::to_owned),
            name: name.map(str::to_owned),
            callback_url: None,
            created_at_ms: None,
            state: WorkState::Pending {
                progress: None,
                unrecognised: None,
            },
            charged: None,
        }
    }

    #[test]
    fn a_marker_is_found_wherever_the_vendor_shows_it() {
        let marker = Marker {
            job: Uuid::from_u128(1),
            attempt: 12,
            token: Uuid::from_u128(2),
        };
        let text = marker.to_string();
        let encoded = format!(
            "https://s3/a.mp4?response-content-disposition=inline%3B%20filename%3D{text}&X-Amz-Date=1"
        );
        for shown in [&text, &encoded, &format!("gf-gf-{text}.mp4")] {
            assert_eq!(Marker::find(shown), Some(marker), "{shown}");
        }
        assert_eq!(Marker::of(&work("1", Some(&encoded), None)), Some(marker));
        for other in [
            "",
            "gf-",
            "vj-0f8b-gc-a1",
            &text[..text.len() - 1],
            &text.replace("-12-", "-0-"),
            &text.replace("-12-", "--1-"),
            "gf-ééééééééééééééééééééééééééééééééééé-1-é",
        ] {
            assert_eq!(Marker::find(other), None, "{other}");
        }
    }

    #[test]
    fn a_list_proves_only_what_it_shows() {
        let (token, deadline) = (Uuid::from_u128(7), Utc::now());
        let known = |minutes| Known {
            task_id: "1".to_owned(),
            token,
            claimed_at: deadline + TimeDelta::minutes(minutes),
        };
        let url = format!("https://s3/submissions%2F{token}/source.mp4?X-Amz-Signature=1");
        let name = Marker {
            job: token,
            attempt: 1,
            token,
        }
        .to_string();
        let weigh = |works: &[Work], minutes| {
            let Evidence {
                later_controls,
                controls,
                undecidable,
            } = weigh(works, &[known(minutes)], deadline);
            (later_controls, controls, undecidable)
        };
        assert_eq!(weigh(&[], 1), (0, 0, 0));
        assert_eq!(
            weigh(&[work("1", Some(&url), None)], 1),
            (1, 1, 0),
            "by URL"
        );
        assert_eq!(
            weigh(&[work("1", None, Some(&name))], -1),
            (0, 1, 0),
            "by name, but from before"
        );
        assert_eq!(
            weigh(&[work("1", None, None)], 1),
            (0, 0, 0),
            "seen, but ours would not be recognised"
        );
        let other = || work("2", Some("https://s3/other"), None);
        assert_eq!(
            weigh(&[other(), work("1", Some(&url), None)], 1),
            (1, 1, 0),
            "somebody else's"
        );
        assert_eq!(
            weigh(&[other(), work("1", None, Some(&name))], 1),
            (1, 1, 1),
            "names are proved, URLs are not"
        );
        assert_eq!(weigh(&[other()], 1), (0, 0, 1), "nothing is proved");
        assert!(
            is_of(
                &work("3", Some(url.split('?').next().unwrap()), None),
                token
            ),
            "a URL without its query"
        );
    }

    #[test]
    fn all_tokens_of_a_work_are_read_whatever_stands_around_them() {
        let (one, two) = (Uuid::from_u128(1), Uuid::from_u128(u128::MAX));
        let url = format!("https://s3/é{one}a/{two}.mp4?x={}", "0".repeat(40));
        let encoded = url.replace('-', "%2D");
        for shown in [
            work("1", Some(&url), None),
            work("1", None, Some(&url)),
            work("1", Some(&encoded), None),
        ] {
            assert_eq!(tokens(&shown), [one, two], "{shown:?}");
            assert!([one, two].iter().all(|token| is_of(&shown, *token)));
        }
        assert!(tokens(&work("1", Some("short"), None)).is_empty());
        assert!(tokens(&work("1", None, None)).is_empty());
    }

    #[test]
    fn the_best_work_comes_first() {
        let failed = WorkState::Failed {
            class: FailureClass::Support,
            code: "20".to_owned(),
            detail: String::new(),
        };
        let pending = WorkState::Pending {
            progress: None,
            unrecognised: None,
        };
        let succeeded = WorkState::Succeeded {
            result_url: String::new(),
        };
        assert!(worth(&succeeded) < worth(&pending) && worth(&pending) < worth(&failed));
    }
}
