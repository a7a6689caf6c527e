//! What an audit came to, in words for people at night.

use shared::db::{LedgerVerdict, MetadataVerdict, MoveVerdict, Verdict};
use shared::domain::audit::Comparison;

/// Why a comparison proves nothing, if so.
pub(super) fn blind(comparison: &Comparison) -> Option<String> {
    comparison.is_blind().then(|| {
        format!(
            "{}'s list shows none of the {} works that the ledger has there: it proves nothing. Young works may be missing for {} \
             minutes; else look at the vendor's dashboard, and at the key and account of these settings",
            comparison.vendor,
            comparison.expected,
            super::LAG.num_minutes()
        )
    })
}

/// What a repair came to. `others` is the work that the job has already.
pub(super) fn words(verdict: Verdict, others: Option<&str>) -> String {
    let has = || match others {
        Some(task) => format!("the job already has the work {task}"),
        None => "the job already has another work".to_owned(),
    };
    let booked = match (verdict.ledger, verdict.metadata) {
        (LedgerVerdict::Written, MetadataVerdict::Other) => {
            return format!("booked as paid twice; {}", has());
        }
        (LedgerVerdict::Written, MetadataVerdict::Gone) => {
            return "booked; the job was deleted, so the work serves nobody".to_owned();
        }
        (LedgerVerdict::Written, _) => "booked",
        (LedgerVerdict::Same, _) => "known by now",
        (LedgerVerdict::Kept, _) => return "not booked: the ledger knows more by now".to_owned(),
        (LedgerVerdict::Second, _) => {
            return "not booked: the submission has another work, so this one was paid for too"
                .to_owned();
        }
        (LedgerVerdict::Taken, _) => {
            return "not booked: the work belongs to another submission".to_owned();
        }
        (LedgerVerdict::None, _) => return "nothing to book".to_owned(),
    };
    let job = match verdict.r#move {
        MoveVerdict::Moved => "the job goes on with it",
        MoveVerdict::Held | MoveVerdict::Lost | MoveVerdict::None => "the job stays where it is",
    };
    format!("{booked}; {job}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repair_says_what_it_means_for_the_job() {
        use LedgerVerdict as L;
        use MetadataVerdict as D;
        use MoveVerdict as M;
        let said = |ledger, metadata, r#move, others| {
            let verdict = Verdict {
                ledger,
                metadata,
                r#move,
                job_seconds: None,
                line: None,
                line_at: None,
            };
            words(verdict, others)
        };
        for (words, expected) in [
            (
                said(L::Written, D::Other, M::Lost, Some("488000084")),
                "booked as paid twice; the job already has the work 488000084",
            ),
            (
                said(L::Written, D::Set, M::Moved, None),
                "booked; the job goes on with it",
            ),
            (
                said(L::Same, D::None, M::Lost, None),
                "known by now; the job stays where it is",
            ),
        ] {
            assert_eq!(words, expected);
        }
    }
}
