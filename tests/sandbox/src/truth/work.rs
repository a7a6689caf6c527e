//! One accepted work and the words for its state. Pure data.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::now_ms;

/// The two simulated vendors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Vendor {
    /// Sync.so, lip-sync.
    Sync,
    /// GhostCut, text inpainting.
    Ghostcut,
}

/// A vendor's own word for the state of a work.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Status {
    /// GhostCut `processStatus`.
    Code(i32),
    /// Sync.so `status`.
    Text(String),
}

/// What a [`Status`] means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Not final.
    Pending,
    /// Final, with a result.
    Succeeded,
    /// Final, without one.
    Failed,
}

impl Status {
    /// The phase this status belongs to.
    pub fn phase(&self) -> Phase {
        match self {
            Self::Code(code) if *code < 1 => Phase::Pending,
            Self::Code(1) => Phase::Succeeded,
            Self::Code(_) => Phase::Failed,
            Self::Text(text) => match text.as_str() {
                "PENDING" | "PROCESSING" => Phase::Pending,
                "COMPLETED" => Phase::Succeeded,
                _ => Phase::Failed,
            },
        }
    }
}

/// Where a result can be fetched.
#[derive(Clone, Debug, Serialize)]
pub struct ResultFile {
    /// Public URL, valid until `expires_at`.
    pub url: String,
    /// Epoch milliseconds.
    pub expires_at: i64,
    /// SHA-256 of the input it was made from, lower-case hex.
    pub input_sha256: String,
    /// Size in bytes.
    pub bytes: u64,
}

/// A status and when it began.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StatusChange {
    /// Epoch milliseconds.
    pub at: i64,
    /// The status.
    pub status: Status,
}

/// One call of a callback URL.
#[derive(Clone, Debug, Serialize)]
pub struct CallbackAttempt {
    /// Epoch milliseconds.
    pub at: i64,
    /// HTTP status of the answer, absent when there was none.
    pub answer: Option<u16>,
    /// The vendor's view: was it taken?
    pub delivered: bool,
}

/// A work as it comes in, before it has an id.
#[derive(Clone, Debug, Default)]
pub(crate) struct NewWork {
    pub source_url: String,
    pub marker: Option<String>,
    pub project_id: Option<String>,
    pub callback_url: Option<String>,
    pub request: Value,
    pub body_sha256: String,
}

/// One accepted work: for Sync.so a generation, for GhostCut one URL of a submit.
#[derive(Clone, Debug, Serialize)]
pub struct Work {
    /// Who accepted it.
    pub vendor: Vendor,
    /// The vendor's id, as text.
    pub id: String,
    /// GhostCut `idProject`, the batch of one request.
    pub batch_id: Option<u64>,
    /// Epoch milliseconds of acceptance.
    pub accepted_at: i64,
    /// Video URL to work on.
    pub source_url: String,
    /// GhostCut `names[i]` or Sync.so `outputFileName`.
    pub marker: Option<String>,
    /// Sync.so `projectId`.
    pub project_id: Option<String>,
    /// First UUID found in marker, project, source URL: the client's job, if it writes one there.
    pub job: Option<String>,
    /// Sync.so `Idempotency-Key` of the request.
    pub idempotency_key: Option<String>,
    /// Callback or webhook URL.
    pub callback_url: Option<String>,
    /// SHA-256 of the request body, lower-case hex.
    pub body_sha256: String,
    /// Parsed request body.
    pub request: Value,
    /// Current state.
    pub status: Status,
    /// Every status it had, oldest first.
    pub history: Vec<StatusChange>,
    /// Percent; may be absent.
    pub progress: Option<f64>,
    /// GhostCut `paidPoint`.
    pub paid_points: f64,
    /// Vendor's error code of a failed work (Sync.so).
    pub error_code: Option<String>,
    /// Vendor's error text.
    pub error: Option<String>,
    /// How often processing was started: 1, plus redos.
    pub runs: u32,
    /// Epoch milliseconds of the final state.
    pub finished_at: Option<i64>,
    /// The result, once there is one.
    pub result: Option<ResultFile>,
    /// Calls of the callback URL so far.
    pub callbacks: Vec<CallbackAttempt>,
    /// Removed by its owner; still paid.
    pub deleted: bool,
    /// Order of acceptance over both vendors; seeds its duration.
    #[serde(skip)]
    pub(crate) number: u64,
}

impl Work {
    /// Text that fault rules for this work are matched against.
    pub(crate) fn subject(&self) -> String {
        let part = |text: &Option<String>| text.clone().unwrap_or_default();
        format!(
            "{} {} {} {} {} {}",
            self.id,
            part(&self.marker),
            self.source_url,
            part(&self.project_id),
            part(&self.callback_url),
            part(&self.idempotency_key)
        )
    }
}

/// Gives a new work its id and first state.
pub(super) fn admit(
    vendor: Vendor,
    batch_id: Option<u64>,
    number: u64,
    key: Option<&str>,
    new: NewWork,
) -> Work {
    let (id, status) = match vendor {
        Vendor::Sync => (
            uuid::Uuid::new_v4().to_string(),
            Status::Text("PENDING".into()),
        ),
        Vendor::Ghostcut => ((488_000_000 + number).to_string(), Status::Code(-1)),
    };
    let job = [
        new.marker.as_deref(),
        new.project_id.as_deref(),
        Some(new.source_url.as_str()),
    ]
    .into_iter()
    .flatten()
    .find_map(find_uuid);
    let accepted_at = now_ms();
    let history = vec![StatusChange {
        at: accepted_at,
        status: status.clone(),
    }];
    Work {
        vendor,
        id,
        batch_id,
        accepted_at,
        source_url: new.source_url,
        marker: new.marker,
        project_id: new.project_id,
        job,
        idempotency_key: key.map(str::to_owned),
        callback_url: new.callback_url,
        body_sha256: new.body_sha256,
        request: new.request,
        status,
        history,
        progress: Some(0.0),
        paid_points: 0.0,
        error_code: None,
        error: None,
        runs: 0,
        finished_at: None,
        result: None,
        callbacks: Vec::new(),
        deleted: false,
        number,
    }
}

/// The first UUID in a text, hyphenated or as 32 hex digits, in hyphenated lower-case form.
fn find_uuid(text: &str) -> Option<String> {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric();
    let bytes = text.as_bytes();
    (0..bytes.len())
        .filter(|at| *at == 0 || !is_word(bytes[at - 1]))
        .find_map(|at| {
            [36, 32].into_iter().find_map(|length| {
                let word = text.get(at..at + length)?;
                let ends = bytes.get(at + length).is_none_or(|next| !is_word(*next));
                let uuid = uuid::Uuid::try_parse(word).ok().filter(|_| ends)?;
                Some(uuid.to_string())
            })
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uuids_are_found_anywhere_in_a_text() {
        let uuid = "0f8b0000-1111-4222-8333-444455556666";
        assert_eq!(find_uuid(&format!("job-{uuid}-a1")).as_deref(), Some(uuid));
        assert_eq!(
            find_uuid(&format!("u/{}.mp4", uuid.replace('-', ""))).as_deref(),
            Some(uuid)
        );
        assert_eq!(find_uuid("0f8b0000-1111-4222-8333-44445555666"), None);
        assert_eq!(find_uuid(&format!("{uuid}7")), None);
    }
}
