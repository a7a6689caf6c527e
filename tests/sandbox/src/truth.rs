//! What really happened: every accepted, hence paid, work and every request.
//! Acceptance is recorded under one lock before any answer is made, so a lost answer never hides money.
//! Knows nothing of HTTP and never acts on its own.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::watch;

use crate::fault::Operation;

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
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
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

/// Works that share something only one of them should have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Duplicate {
    /// Whose works.
    pub vendor: Vendor,
    /// `marker`, `url` or `job`.
    pub by: &'static str,
    /// The shared value.
    pub value: String,
    /// Ids of the works, oldest first.
    pub works: Vec<String>,
}

/// Why a work was not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    SlotsFull,
}

/// What is known of an idempotency key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Key {
    /// Unknown until now and reserved for the caller, who must accept or release.
    Reserved,
    InProgress,
    Conflict,
    Replay(String),
}

struct KeyEntry {
    body_sha256: String,
    created_at: i64,
    work: Option<String>,
}

#[derive(Default)]
struct State {
    works: Vec<Work>,
    by_id: HashMap<(Vendor, String), usize>,
    open: HashMap<Vendor, usize>,
    keys: HashMap<String, KeyEntry>,
    requests: BTreeMap<String, u64>,
    projects: HashMap<String, Value>,
    leaked_credentials: u64,
    /// Never set back, so that ids stay unique over resets.
    next: u64,
}

/// Owner of the truth; see the module.
pub struct Truth {
    state: Mutex<State>,
    changed: watch::Sender<()>,
}

impl Default for Truth {
    fn default() -> Self {
        Self {
            state: Mutex::default(),
            changed: watch::Sender::new(()),
        }
    }
}

/// Epoch milliseconds now.
pub(crate) fn now_ms() -> i64 {
    chrono::Utc::now().timestamp_millis()
}

impl Truth {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All works of a vendor, oldest first.
    pub fn works(&self, vendor: Vendor) -> Vec<Work> {
        self.lock()
            .works
            .iter()
            .filter(|work| work.vendor == vendor)
            .cloned()
            .collect()
    }

    /// The page of a vendor's works that `filter` lets through, newest first; removed works are left out.
    pub(crate) fn page(
        &self,
        vendor: Vendor,
        skip: usize,
        take: usize,
        filter: impl Fn(&Work) -> bool,
    ) -> Vec<Work> {
        let state = self.lock();
        let visible = state
            .works
            .iter()
            .rev()
            .filter(|work| work.vendor == vendor && !work.deleted);
        visible
            .filter(|work| filter(work))
            .skip(skip)
            .take(take)
            .cloned()
            .collect()
    }

    /// One work by the vendor's id.
    pub fn work(&self, vendor: Vendor, id: &str) -> Option<Work> {
        let state = self.lock();
        state
            .by_id
            .get(&(vendor, id.to_owned()))
            .map(|index| state.works[*index].clone())
    }

    /// How many works were accepted: the money.
    pub fn paid(&self, vendor: Vendor) -> usize {
        self.lock()
            .works
            .iter()
            .filter(|work| work.vendor == vendor)
            .count()
    }

    /// Works of a vendor that are not final.
    pub fn pending(&self, vendor: Vendor) -> usize {
        self.lock().open.get(&vendor).copied().unwrap_or(0)
    }

    /// Requests received, by `vendor.operation`.
    pub fn requests(&self) -> BTreeMap<String, u64> {
        self.lock().requests.clone()
    }

    /// Requests received for one operation.
    pub fn request_count(&self, vendor: Vendor, operation: Operation) -> u64 {
        self.lock()
            .requests
            .get(&counter(vendor, operation))
            .copied()
            .unwrap_or(0)
    }

    /// Result downloads that carried an API key, which must not leave the API host.
    pub fn leaked_credentials(&self) -> u64 {
        self.lock().leaked_credentials
    }

    /// Works of one vendor sharing a marker, a source URL or a job.
    pub fn duplicates(&self, vendor: Vendor) -> Vec<Duplicate> {
        let works = self.works(vendor);
        let mut groups: BTreeMap<(&'static str, String), Vec<String>> = BTreeMap::new();
        for work in works {
            let values = [
                ("marker", work.marker),
                ("url", Some(work.source_url)),
                ("job", work.job),
            ];
            for (by, value) in values {
                if let Some(value) = value {
                    groups.entry((by, value)).or_default().push(work.id.clone());
                }
            }
        }
        groups
            .into_iter()
            .filter(|(_, works)| works.len() > 1)
            .map(|((by, value), works)| Duplicate {
                vendor,
                by,
                value,
                works,
            })
            .collect()
    }

    /// Waits until `check` holds; `false` when it did not within `limit`.
    pub async fn wait_until(&self, limit: Duration, check: impl Fn(&Self) -> bool) -> bool {
        let mut changed = self.changed.subscribe();
        let wait = async {
            while !check(self) {
                if changed.changed().await.is_err() {
                    return;
                }
            }
        };
        tokio::time::timeout(limit, wait).await.is_ok()
    }

    /// Forgets all works, keys and counters. Ids go on, so old ids never come back.
    pub fn reset(&self) {
        let mut state = self.lock();
        *state = State {
            next: state.next,
            ..State::default()
        };
        drop(state);
        self.changed.send_replace(());
    }

    pub(crate) fn count_request(&self, vendor: Vendor, operation: Operation) {
        *self
            .lock()
            .requests
            .entry(counter(vendor, operation))
            .or_insert(0) += 1;
        self.changed.send_replace(());
    }

    pub(crate) fn count_leak(&self) {
        self.lock().leaked_credentials += 1;
    }

    /// Stores a Sync.so project unless its id is known; the stored one, and whether it is new.
    pub(crate) fn project(&self, id: &str, project: Value) -> (Value, bool) {
        let mut state = self.lock();
        let new = !state.projects.contains_key(id);
        (
            state
                .projects
                .entry(id.to_owned())
                .or_insert(project)
                .clone(),
            new,
        )
    }

    /// Looks a key up and reserves it if it is new, in one step.
    pub(crate) fn reserve_key(&self, key: &str, body_sha256: &str, ttl_ms: Option<u64>) -> Key {
        let mut state = self.lock();
        let expired = |entry: &KeyEntry| {
            ttl_ms.is_some_and(|ttl| now_ms().saturating_sub(entry.created_at) >= ttl as i64)
        };
        if let Some(entry) = state.keys.get(key) {
            let same = entry.body_sha256 == body_sha256;
            match &entry.work {
                None if same => return Key::InProgress,
                Some(_) if expired(entry) => {}
                Some(id) if same => return Key::Replay(id.clone()),
                _ => return Key::Conflict,
            }
        }
        let entry = KeyEntry {
            body_sha256: body_sha256.into(),
            created_at: now_ms(),
            work: None,
        };
        state.keys.insert(key.into(), entry);
        Key::Reserved
    }

    /// Gives a reserved key back because nothing was accepted under it.
    pub(crate) fn release_key(&self, key: &str) {
        let mut state = self.lock();
        if state
            .keys
            .get(key)
            .is_some_and(|entry| entry.work.is_none())
        {
            state.keys.remove(key);
        }
    }

    /// Records works as accepted and paid; with `slots`, only while fewer than that are open.
    pub(crate) fn accept(
        &self,
        vendor: Vendor,
        works: Vec<NewWork>,
        key: Option<&str>,
        slots: Option<u32>,
    ) -> Result<Vec<Work>, Refused> {
        let mut state = self.lock();
        let open = state.open.entry(vendor).or_insert(0);
        if slots.is_some_and(|slots| *open >= slots as usize) {
            return Err(Refused::SlotsFull);
        }
        *open += works.len();
        state.next += 1;
        let batch_id = (vendor == Vendor::Ghostcut).then_some(230_000_000 + state.next);
        let mut accepted = Vec::with_capacity(works.len());
        for new in works {
            state.next += 1;
            let work = admit(vendor, batch_id, state.next, key, new);
            let index = state.works.len();
            state.by_id.insert((vendor, work.id.clone()), index);
            if let Some(entry) = key.and_then(|key| state.keys.get_mut(key)) {
                entry.work = Some(work.id.clone());
            }
            state.works.push(work.clone());
            accepted.push(work);
        }
        drop(state);
        self.changed.send_replace(());
        Ok(accepted)
    }

    /// Changes a work and returns it; `None` when it is unknown (for example after a reset).
    pub(crate) fn update(
        &self,
        vendor: Vendor,
        id: &str,
        change: impl FnOnce(&mut Work),
    ) -> Option<Work> {
        let mut state = self.lock();
        let index = *state.by_id.get(&(vendor, id.to_owned()))?;
        let work = &mut state.works[index];
        let was_open = work.status.phase() == Phase::Pending;
        change(work);
        let work = work.clone();
        let is_open = work.status.phase() == Phase::Pending;
        let open = state.open.entry(vendor).or_insert(0);
        match (was_open, is_open) {
            (true, false) => *open = open.saturating_sub(1),
            (false, true) => *open += 1,
            _ => {}
        }
        drop(state);
        self.changed.send_replace(());
        Some(work)
    }
}

fn counter(vendor: Vendor, operation: Operation) -> String {
    let vendor = match vendor {
        Vendor::Sync => "sync",
        Vendor::Ghostcut => "ghostcut",
    };
    format!("{vendor}.{}", operation.name())
}

fn admit(
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
    Work {
        vendor,
        id,
        batch_id,
        accepted_at: now_ms(),
        source_url: new.source_url,
        marker: new.marker,
        project_id: new.project_id,
        job,
        idempotency_key: key.map(str::to_owned),
        callback_url: new.callback_url,
        body_sha256: new.body_sha256,
        request: new.request,
        status,
        progress: Some(0.0),
        paid_points: 0.0,
        error_code: None,
        error: None,
        runs: 0,
        finished_at: None,
        result: None,
        callbacks: Vec::new(),
        deleted: false,
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

    #[test]
    fn keys_are_reserved_once_and_expire() {
        let truth = Truth::default();
        assert_eq!(truth.reserve_key("k", "a", None), Key::Reserved);
        assert_eq!(truth.reserve_key("k", "a", None), Key::InProgress);
        let works = truth
            .accept(Vendor::Sync, vec![NewWork::default()], Some("k"), None)
            .unwrap();
        assert_eq!(
            truth.reserve_key("k", "a", None),
            Key::Replay(works[0].id.clone())
        );
        assert_eq!(truth.reserve_key("k", "b", None), Key::Conflict);
        assert_eq!(truth.reserve_key("k", "b", Some(0)), Key::Reserved);
        truth.release_key("k");
        assert_eq!(truth.reserve_key("k", "c", None), Key::Reserved);
    }
}
