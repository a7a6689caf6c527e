//! What a vendor's answer means to us, in words that both vendors share.
//!
//! The vendor clients translate wire formats into these values; nothing else in the code looks at vendor codes.

use std::time::Duration;

use serde::Serialize;

/// What a paid POST came to.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "class", rename_all = "snake_case")]
pub enum SubmitAnswer {
    /// The vendor took the work (or says that it had taken it before, under the same key).
    Accepted {
        /// The vendor's id of the work: Sync.so generation id, GhostCut work id.
        task_id: String,
        /// GhostCut's `idProject`; Sync.so has none.
        project_id: Option<String>,
    },
    /// No connection stood, so the vendor cannot have seen it.
    NotSent {
        /// What failed, without URLs or secrets.
        reason: String,
    },
    /// Refused; nothing was created and the same body will be refused again.
    Rejected {
        /// The vendor's code and message.
        reason: String,
    },
    /// Refused for now; nothing was created as far as the vendor says.
    Throttled {
        /// Which limit was met.
        limit: Limit,
        /// When the vendor said to come back.
        #[serde(skip)]
        retry_after: Option<Duration>,
        /// The vendor's code and message.
        reason: String,
    },
    /// Our key or signature is at fault, not the job: the vendor is to be paused.
    Misconfigured {
        /// The vendor's code and message.
        reason: String,
    },
    /// Our plan or balance does not allow it: the vendor is to be paused until somebody pays.
    OutOfCredit {
        /// The vendor's code and message.
        reason: String,
    },
    /// The answer was not seen or does not say whether the work exists. Never to be sent again blindly.
    Unknown {
        /// What was seen instead of an answer.
        reason: String,
        /// An id the vendor named without confirming the work: ask about it first. Sync.so: a generation id. GhostCut: an
        /// `idProject` that came without a work id.
        hint: Option<String>,
    },
}

/// The limit behind [`SubmitAnswer::Throttled`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Limit {
    /// Requests per time (Sync.so `rate_limit_exceeded`): seconds.
    Rate,
    /// Works in flight (Sync.so `concurrency_limit_reached`): minutes.
    Slots,
    /// GhostCut 3006, meaning undocumented: search once before sending again.
    Unspecified,
}

/// A work as the vendor describes it in a status, list or callback item.
#[derive(Clone, Debug, PartialEq)]
pub struct Work {
    /// The vendor's id of the work.
    pub task_id: String,
    /// GhostCut's batch id; Sync.so's `projectId`.
    pub project_id: Option<String>,
    /// The input video URL that was submitted, where the vendor shows it.
    pub source_url: Option<String>,
    /// Our marker (`names`, `outputFileName`), where the vendor shows it.
    pub name: Option<String>,
    /// The callback URL that was submitted, where the vendor shows it (Sync.so): its path holds our marker.
    pub callback_url: Option<String>,
    /// When the vendor took the work, milliseconds since 1970, where it shows that.
    pub created_at_ms: Option<i64>,
    /// Where the work stands.
    pub state: WorkState,
    /// Units charged so far, where the vendor shows them (GhostCut `paidPoint`).
    pub charged: Option<f64>,
}

/// Where a work stands at the vendor.
#[derive(Clone, Debug, PartialEq)]
pub enum WorkState {
    /// Not finished.
    Pending {
        /// Percent done, 0 to 100, where shown.
        progress: Option<f64>,
        /// Set when the vendor sent a status this code does not know, or a success without a URL; alert when it lasts.
        unrecognised: Option<String>,
    },
    /// Finished.
    Succeeded {
        /// Where the result can be fetched, for a limited time.
        result_url: String,
    },
    /// Ended without a result.
    Failed {
        /// What to do about it.
        class: FailureClass,
        /// The vendor's code, e.g. `20` or `generation_timeout`.
        code: String,
        /// The vendor's text.
        detail: String,
    },
}

/// What is to be done about a failed work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureClass {
    /// The vendor could not read our input: check that the URL answers, then a person decides.
    Input,
    /// The job itself cannot succeed.
    Permanent,
    /// The same work may be run again at the vendor (GhostCut redo), once or twice.
    Redo,
    /// A new submission may be paid, within a bound.
    Resubmit,
    /// The vendor's support has to look: park and alert.
    Support,
    /// Points ran out before the work was started (GhostCut 73): top up, then redo the same work.
    Unpaid,
    /// Points ran out and the finished work is locked (GhostCut 83): top up, then poll. Never submit again.
    Locked,
    /// The account needs an operator (storage exhausted).
    Operator,
    /// A code nobody documented: park and alert. (Sync.so advises one new submission first; it does not charge failures.)
    Unrecognised,
}
