//! What asking for many works has in common at both vendors: a list that is complete or an error, and an answer about many ids
//! that one of them does not spoil.

use std::collections::HashSet;

use super::VendorError;
use crate::domain::Vendor;
use crate::domain::answer::Work;
use crate::domain::classify::{ErrorClass, QueryError};
use crate::telemetry::chain;

/// Pages that bring nothing new and have at least so many works, as many as the first one, are no end: the vendor does not turn
/// the page. Smaller lists may be whole on a first page that is shown again.
const FULL_PAGE: usize = 10;

/// Pages in a row that may be shown again. A vendor that counts from 1 shows its first page as page 0 too.
const REPEATED: usize = 1;

/// What a list that shows one page for ever is called.
pub(super) const REPEATS: &str = "the list shows full pages again and again";
/// What a list that is longer than anybody reads is called.
pub(super) const ENDLESS: &str = "the list did not end within the pages that are read";

/// A list as it is read, page by page.
#[derive(Default)]
pub(super) struct Listing {
    pub(super) works: Vec<Work>,
    seen: HashSet<String>,
    first_page: Option<usize>,
    repeated: usize,
}

/// What a page was.
pub(super) enum Added {
    /// Read the next one.
    More,
    /// The list is whole.
    End,
    /// The vendor shows a full page again and again: what comes after it is not known.
    Again,
}

impl Listing {
    pub(super) fn add(&mut self, page: Vec<Work>) -> Added {
        let (size, known) = (page.len(), self.works.len());
        let first_page = *self.first_page.get_or_insert(size);
        for work in page {
            if self.seen.insert(work.task_id.clone()) {
                self.works.push(work);
            }
        }
        if self.works.len() > known {
            self.repeated = 0;
            return Added::More;
        }
        if size == 0 {
            return Added::End;
        }
        self.repeated += 1;
        if self.repeated <= REPEATED {
            Added::More
        } else if size >= FULL_PAGE && size >= first_page {
            Added::Again
        } else {
            Added::End
        }
    }
}

/// A list that is not complete is none: what it does not show may still be there.
pub(super) fn list_error(vendor: Vendor, operation: &'static str, why: &str) -> VendorError {
    let error = QueryError {
        class: ErrorClass::Protocol,
        reason: why.to_owned(),
    };
    VendorError::answer(vendor, operation, error)
}

/// Asks for all of `ids` at once. Where the vendor refuses that, one of them may be to blame: then each is asked for alone, and
/// one that is refused even so is left out, unless all are.
pub(super) async fn each_for_itself<F: Future<Output = Result<Vec<Work>, VendorError>>>(
    ids: &[String],
    ask: impl Fn(Vec<String>) -> F,
) -> Result<Vec<Work>, VendorError> {
    let refused =
        |error: &VendorError| matches!(error.class(), ErrorClass::Protocol | ErrorClass::NotFound);
    let of_all = match ask(ids.to_vec()).await {
        Err(error) if refused(&error) && ids.len() > 1 => error,
        answer => return answer,
    };
    let (mut works, mut answered) = (Vec::new(), false);
    for id in ids {
        match ask(vec![id.clone()]).await {
            Ok(found) => {
                answered = true;
                works.extend(found);
            }
            Err(error) if refused(&error) => {
                tracing::warn!(
                    task_id = id,
                    error = chain(&error),
                    "the vendor does not take an id"
                );
            }
            Err(error) => return Err(error),
        }
    }
    if answered { Ok(works) } else { Err(of_all) }
}
