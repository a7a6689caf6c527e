//! What really happened: every accepted, hence paid, work and every request.
//! Acceptance is recorded under one lock before any answer is made, so a lost answer never hides money.
//! Knows nothing of HTTP and never acts on its own.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;
use tokio::sync::watch;

use crate::fault::Operation;

mod work;

pub(crate) use work::NewWork;
use work::admit;
pub use work::{CallbackAttempt, Phase, ResultFile, Status, StatusChange, Vendor, Work};

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
    paid: HashMap<Vendor, usize>,
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

    /// A page of a vendor's works, newest first: those named by `ids`, or all, that `filter` lets
    /// through. Removed works are left out.
    pub(crate) fn page(
        &self,
        vendor: Vendor,
        ids: Option<&[String]>,
        (skip, take): (usize, usize),
        filter: impl Fn(&Work) -> bool,
    ) -> Vec<Work> {
        let state = self.lock();
        let wanted = |work: &&Work| work.vendor == vendor && !work.deleted && filter(work);
        let Some(ids) = ids else {
            let works = state.works.iter().rev().filter(wanted);
            return works.skip(skip).take(take).cloned().collect();
        };
        let index = |id: &String| state.by_id.get(&(vendor, id.clone())).copied();
        let mut named: Vec<usize> = ids.iter().filter_map(index).collect();
        named.sort_unstable_by(|a, b| b.cmp(a));
        named.dedup();
        let works = named
            .into_iter()
            .map(|index| &state.works[index])
            .filter(wanted);
        works.skip(skip).take(take).cloned().collect()
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
        self.lock().paid.get(&vendor).copied().unwrap_or(0)
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
        *state.paid.entry(vendor).or_insert(0) += works.len();
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
        if work
            .history
            .last()
            .is_none_or(|last| last.status != work.status)
        {
            let status = work.status.clone();
            work.history.push(StatusChange {
                at: now_ms(),
                status,
            });
        }
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

#[cfg(test)]
mod tests {
    use super::*;

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
