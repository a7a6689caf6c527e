//! The vocabulary of faults: operations, kinds and where each kind can act. Pure data.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::FaultError;
use crate::truth::Vendor;

/// What a request, or a step of the vendor's own work, is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Operation {
    /// The paid call: GhostCut submit, Sync.so create.
    #[serde(alias = "create")]
    Submit,
    /// State of known works: GhostCut `/work/status`, Sync.so `GET /v2/generate/{id}`.
    #[serde(alias = "get")]
    Status,
    /// GhostCut `/work/list`, Sync.so `GET /v2/generations`.
    List,
    /// GhostCut redo.
    Redo,
    /// GhostCut points.
    Balance,
    /// GhostCut `/enum/query2`, Sync.so `/v2/errors`.
    Catalogue,
    /// Sync.so count of generations.
    Count,
    /// Sync.so bare result URL.
    Download,
    /// Sync.so delete.
    Delete,
    /// Sync.so projects.
    Project,
    /// Sync.so cost estimate.
    Estimate,
    /// The processing of an accepted work, once per run.
    Process,
    /// A callback or webhook the vendor sends.
    Callback,
    /// Download of a result file.
    Result,
}

impl Operation {
    /// Name as in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Submit => "submit",
            Self::Status => "status",
            Self::List => "list",
            Self::Redo => "redo",
            Self::Balance => "balance",
            Self::Catalogue => "catalogue",
            Self::Count => "count",
            Self::Download => "download",
            Self::Delete => "delete",
            Self::Project => "project",
            Self::Estimate => "estimate",
            Self::Process => "process",
            Self::Callback => "callback",
            Self::Result => "result",
        }
    }

    fn is_api(self) -> bool {
        !matches!(self, Self::Process | Self::Callback | Self::Result)
    }
}

/// Whether a fault strikes before the vendor acts on the request, or after.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum When {
    /// Nothing is accepted.
    #[default]
    Before,
    /// Sync.so create only: the idempotency key is reserved, nothing is accepted yet.
    During,
    /// All is done and recorded; only the answer is affected.
    After,
}

/// JSON form of GhostCut ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IdForm {
    /// `"488026661"`.
    Text,
    /// `488026661`.
    Number,
}

/// What goes wrong. [`super::Faults::add`] refuses it where it cannot act.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Fault {
    /// Connection closed without an answer, nothing done. On `callback`: never sent.
    LoseRequest,
    /// All done, then the connection is closed without an answer.
    LoseAnswer,
    /// Wait. On `callback` and `result`: before sending.
    Delay {
        /// Milliseconds.
        ms: u64,
        /// Before or after acceptance.
        #[serde(default)]
        when: When,
    },
    /// Answer with this HTTP status; without `body`, with the vendor's usual error body.
    Status {
        /// HTTP status.
        status: u16,
        /// `errorCode` of Sync.so's error body.
        #[serde(default)]
        error_code: Option<String>,
        /// Body as it is; HTML if it begins with `<`.
        #[serde(default)]
        body: Option<String>,
        /// Before or after acceptance.
        #[serde(default)]
        when: When,
    },
    /// GhostCut: HTTP 200 with this `code` in the envelope.
    Code {
        /// Envelope code.
        code: i64,
        /// Before or after acceptance.
        #[serde(default)]
        when: When,
    },
    /// Sync.so create: 503 `IDEMPOTENCY_OUTCOME_UNKNOWN`.
    OutcomeUnknown {
        /// Name the generation (only after acceptance).
        #[serde(default)]
        generation_id: bool,
        /// Before or after acceptance.
        #[serde(default)]
        when: When,
    },
    /// All done, then status 200 with a body that is not JSON.
    Garbage,
    /// All done, then the connection is closed after this many bytes of the body. Also on `result`.
    Truncate {
        /// Bytes of the body that still arrive.
        bytes: u64,
    },
    /// Leave keys out of the answer, at any depth: `idProject`, `dataList`, `name`, `outputUrl` ...
    Omit {
        /// Names of the keys.
        keys: Vec<String>,
    },
    /// Give a key of the answer another name: `outputUrl` -> `outputMediaUrl`, `errorCode` -> `error_code`.
    Rename {
        /// Name now.
        from: String,
        /// Name then.
        to: String,
    },
    /// Put another value under a key of the answer, for example null progress.
    Replace {
        /// Name of the key.
        key: String,
        /// New value.
        value: Value,
    },
    /// GhostCut: form of `id` and `idProject` in the answer.
    Ids {
        /// Text or number.
        form: IdForm,
    },
    /// Items of the answer in reversed order.
    ReverseItems,
    /// Items missing from the answer.
    DropItems {
        /// Only items whose JSON contains this text.
        #[serde(default)]
        contains: String,
    },
    /// Works younger than this are not shown.
    HideYoung {
        /// Milliseconds since acceptance.
        ms: u64,
    },
    /// Submit: the answer waits until the work is final and its callback was tried, at most `timeout_ms`.
    CallbackFirst {
        /// Milliseconds.
        timeout_ms: u64,
    },
    /// GhostCut process: go through these statuses; one above 0 ends the run.
    Statuses {
        /// `processStatus` values in order.
        codes: Vec<i32>,
        /// Time for each; default: the processing time split evenly.
        #[serde(default)]
        step_ms: Option<u64>,
        /// Progress shown with the last one, null if absent. The vendor's failure example has 100.0.
        #[serde(default)]
        progress: Option<f64>,
    },
    /// Sync.so process: end in this status (`FAILED`, `REJECTED`, `CANCELED`, `TIMED_OUT`, ...).
    Outcome {
        /// Status text.
        status: String,
        /// `errorCode` of the generation.
        #[serde(default)]
        error_code: Option<String>,
    },
    /// Process: time to the final state.
    Duration {
        /// Milliseconds.
        ms: u64,
    },
    /// Process: grow the result to at least this size.
    ResultSize {
        /// Bytes.
        bytes: u64,
    },
    /// Process: life of the result URL after completion, then 403.
    ResultTtl {
        /// Milliseconds.
        ms: u64,
    },
    /// Callback: send it so many more times.
    Repeat {
        /// Extra sends.
        times: u32,
    },
    /// Callback: wrong signature.
    BadSignature,
    /// Result: send no faster than this.
    Slow {
        /// Bytes per second.
        bytes_per_second: u64,
    },
}

impl Fault {
    /// Refuses a fault where it could never act, so that no test relies on a rule that does nothing.
    pub(super) fn check(&self, vendor: Vendor, operation: Operation) -> Result<(), FaultError> {
        use Operation as Op;
        let sync_submit = vendor == Vendor::Sync && operation == Op::Submit;
        let fits = match self {
            Self::LoseRequest => operation != Op::Process,
            Self::Delay {
                when: When::During, ..
            } => sync_submit,
            Self::Delay { when, .. } => {
                operation.is_api() || (operation != Op::Process && *when == When::Before)
            }
            Self::Status {
                when: When::During, ..
            }
            | Self::Code {
                when: When::During, ..
            } => false,
            Self::Status { when, .. } => {
                operation.is_api() || (operation == Op::Result && *when == When::Before)
            }
            Self::Code { .. } | Self::Ids { .. } => {
                vendor == Vendor::Ghostcut && operation.is_api()
            }
            Self::OutcomeUnknown {
                generation_id,
                when,
            } => sync_submit && *when != When::During && (!generation_id || *when == When::After),
            Self::LoseAnswer | Self::Garbage => operation.is_api(),
            Self::Omit { .. } | Self::Rename { .. } | Self::Replace { .. } => {
                operation.is_api() || operation == Op::Callback
            }
            Self::Truncate { .. } => operation.is_api() || operation == Op::Result,
            Self::ReverseItems | Self::DropItems { .. } | Self::HideYoung { .. } => {
                operation == Op::List || (vendor == Vendor::Ghostcut && operation == Op::Status)
            }
            Self::CallbackFirst { .. } => operation == Op::Submit,
            Self::Statuses { codes, .. } => {
                vendor == Vendor::Ghostcut && operation == Op::Process && !codes.is_empty()
            }
            Self::Outcome { .. } => vendor == Vendor::Sync && operation == Op::Process,
            Self::Duration { .. } | Self::ResultSize { .. } | Self::ResultTtl { .. } => {
                operation == Op::Process
            }
            Self::Repeat { .. } | Self::BadSignature => operation == Op::Callback,
            Self::Slow { bytes_per_second } => operation == Op::Result && *bytes_per_second > 0,
        };
        if fits {
            Ok(())
        } else {
            Err(FaultError::NeverActs)
        }
    }
}
