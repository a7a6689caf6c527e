//! Sync.so's API: create, get, batch status, list.
//!
//! A create is replayed under its `Idempotency-Key`: the same key and the same bytes never give a second generation.

use std::time::Duration;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::RequestBuilder;
use reqwest::header::{CONTENT_TYPE, HeaderValue};
use serde_json::{Value, json};

use super::http::Http;
use super::listing::{Added, ENDLESS, Listing, REPEATS, each_for_itself, list_error};
use super::{Metrics, SetupError, VendorError};
use crate::config::vendor::{SyncApi, VendorTimeouts};
use crate::domain::Vendor;
use crate::domain::answer::{SubmitAnswer, Work};
use crate::domain::classify::{ErrorClass, sync as classify};

const CREATE: &str = "/v2/generate";
const LIST: &str = "/v2/generations";

/// Keeps the URL of a batch query below 4 KiB.
const IDS_PER_CALL: usize = 100;
/// The vendor's documented maximum.
const LIST_PAGE_SIZE: usize = 100;
/// 40,000 generations; beyond that the list must not be taken for complete.
const MAX_PAGES: usize = 400;

/// What an id in a path may show unencoded.
const ID: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_');

/// One video to be lip-synced.
#[derive(Clone, Debug)]
pub struct CreateRequest<'a> {
    /// The model, e.g. `lipsync-2-pro`.
    pub model: &'a str,
    /// URL of the video.
    pub video_url: &'a str,
    /// `refId` and URL of each audio, in a fixed order: another order would be another request under the same key.
    pub audio: Vec<(&'a str, &'a str)>,
    /// The vendor's segment objects; none for the whole video.
    pub segments: Vec<Value>,
    /// `options.sync_mode`, e.g. `remap`.
    pub sync_mode: &'a str,
    /// Where the vendor reports the end, https.
    pub webhook_url: Option<&'a str>,
    /// Our marker: letters, digits, `_` and `-`.
    pub output_file_name: &'a str,
    /// A project that exists at the vendor.
    pub project_id: Option<&'a str>,
}

impl CreateRequest<'_> {
    /// The body to store and send. The same request always gives the same bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut input = vec![json!({"type": "video", "url": self.video_url})];
        input.extend(
            self.audio
                .iter()
                .map(|(id, url)| json!({"type": "audio", "url": url, "refId": id})),
        );
        let mut body = json!({"model": self.model, "input": input});
        if !self.segments.is_empty() {
            body["segments"] = Value::from(self.segments.as_slice());
        }
        body["options"] = json!({"sync_mode": self.sync_mode});
        if let Some(url) = self.webhook_url {
            body["webhookUrl"] = url.into();
        }
        body["outputFileName"] = self.output_file_name.into();
        if let Some(id) = self.project_id {
            body["projectId"] = id.into();
        }
        body.to_string().into_bytes()
    }
}

/// A client of one Sync.so account. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Client {
    http: Http,
    key: HeaderValue,
}

impl Client {
    /// Builds the client; connects to nothing.
    pub fn new(
        api: &SyncApi,
        timeouts: VendorTimeouts,
        metrics: Metrics,
    ) -> Result<Self, SetupError> {
        let mut key = HeaderValue::from_str(api.api_key.expose())
            .map_err(|_| SetupError::Key(Vendor::Sync))?;
        key.set_sensitive(true);
        Ok(Self {
            http: Http::new(Vendor::Sync, &api.api_url, timeouts, metrics)?,
            key,
        })
    }

    /// Sends exactly these bytes under this key, once, within `budget` (what is left of the send deadline). **Paid**,
    /// unless the vendor has seen the key before.
    pub async fn create(
        &self,
        body: &[u8],
        idempotency_key: &str,
        budget: Duration,
    ) -> SubmitAnswer {
        if !is_key(idempotency_key) {
            return SubmitAnswer::Rejected {
                reason: "INVALID_IDEMPOTENCY_KEY, found before sending".to_owned(),
            };
        }
        let prepare = |request| {
            self.keyed(request)
                .header(CONTENT_TYPE, "application/json")
                .header("Idempotency-Key", idempotency_key)
                .body(body.to_vec())
        };
        self.http
            .paid("create", CREATE, budget, prepare, classify::create)
            .await
    }

    /// One generation, with a fresh result URL where it is finished.
    pub async fn get(&self, task_id: &str) -> Result<Work, VendorError> {
        let path = format!("{CREATE}/{}", utf8_percent_encode(task_id, ID));
        self.http
            .get(
                "get",
                &path,
                |request| self.keyed(request),
                classify::generation,
            )
            .await
    }

    /// The generations with these ids, in no order. One that is missing is to be asked for again; it has not failed.
    pub async fn status(&self, task_ids: &[String]) -> Result<Vec<Work>, VendorError> {
        if let [id] = task_ids {
            return match self.get(id).await {
                Err(error) if error.class() == ErrorClass::NotFound => Ok(Vec::new()),
                result => result.map(|work| vec![work]),
            };
        }
        let mut works = Vec::new();
        for ids in task_ids.chunks(IDS_PER_CALL) {
            works.extend(each_for_itself(ids, |ids| self.status_of(ids)).await?);
        }
        works.retain(|work| task_ids.contains(&work.task_id));
        Ok(works)
    }

    async fn status_of(&self, ids: Vec<String>) -> Result<Vec<Work>, VendorError> {
        let prepare = |request| self.keyed(request).query(&[("ids", ids.join(","))]);
        self.http
            .get("status", LIST, prepare, classify::generations)
            .await
    }

    /// All generations created in `from_ms..to_ms` (milliseconds since 1970), complete or an error. Those that do not
    /// say when they were created are included.
    ///
    /// The vendor cannot filter by time, so this pages back from the newest: a window long ago costs many requests.
    pub async fn list(&self, from_ms: i64, to_ms: i64) -> Result<Vec<Work>, VendorError> {
        let mut list = Listing::default();
        let mut cursor: Option<String> = None;
        for _ in 0..MAX_PAGES {
            let prepare = |request| {
                let request = self.keyed(request).query(&[("limit", LIST_PAGE_SIZE)]);
                match &cursor {
                    Some(id) => request.query(&[("cursor", id)]),
                    None => request,
                }
            };
            let page = self
                .http
                .get("list", LIST, prepare, classify::listed)
                .await?;
            cursor = page.last().map(|work| work.task_id.clone());
            let before_window = page
                .iter()
                .any(|work| work.created_at_ms.is_some_and(|at| at < from_ms));
            match list.add(page) {
                Added::More if !before_window => {}
                Added::More | Added::End => {
                    list.works.retain(|work| {
                        work.created_at_ms
                            .is_none_or(|at| (from_ms..to_ms).contains(&at))
                    });
                    return Ok(list.works);
                }
                Added::Again => return Err(list_error(Vendor::Sync, "list", REPEATS)),
            }
        }
        Err(list_error(Vendor::Sync, "list", ENDLESS))
    }

    fn keyed(&self, request: RequestBuilder) -> RequestBuilder {
        request.header("x-api-key", self.key.clone())
    }
}

/// The vendor's documented syntax of a key.
fn is_key(text: &str) -> bool {
    (1..=128).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'~' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_create_body_is_fixed_to_the_byte() {
        let request = CreateRequest {
            model: "lipsync-2-pro",
            video_url: "https://media.example.com/jobs/0f8b/video.mp4",
            audio: vec![
                ("b2", "https://media.example.com/b2.wav"),
                ("a1", "https://media.example.com/a1.wav"),
            ],
            segments: vec![
                json!({"startTime": 0.0, "endTime": 15.0, "audioInput": {"refId": "b2"}}),
            ],
            sync_mode: "remap",
            webhook_url: Some("https://app.example.com/hooks/sync/9d1e7a"),
            output_file_name: "vj-0f8b-sync-a1",
            project_id: Some("2f0d0c52-6f0f-4a1e-9d0a-0f8b00000001"),
        };
        let expected = concat!(
            r#"{"model":"lipsync-2-pro","input":[{"type":"video","url":"https://media.example.com/jobs/0f8b/video.mp4"},"#,
            r#"{"type":"audio","url":"https://media.example.com/b2.wav","refId":"b2"},"#,
            r#"{"type":"audio","url":"https://media.example.com/a1.wav","refId":"a1"}],"#,
            r#""segments":[{"startTime":0.0,"endTime":15.0,"audioInput":{"refId":"b2"}}],"options":{"sync_mode":"remap"},"#,
            r#""webhookUrl":"https://app.example.com/hooks/sync/9d1e7a","outputFileName":"vj-0f8b-sync-a1","#,
            r#""projectId":"2f0d0c52-6f0f-4a1e-9d0a-0f8b00000001"}"#
        );
        assert_eq!(String::from_utf8(request.to_bytes()).unwrap(), expected);
        let small = CreateRequest {
            audio: vec![],
            segments: vec![],
            webhook_url: None,
            project_id: None,
            ..request
        };
        let expected = concat!(
            r#"{"model":"lipsync-2-pro","input":[{"type":"video","url":"https://media.example.com/jobs/0f8b/video.mp4"}],"#,
            r#""options":{"sync_mode":"remap"},"outputFileName":"vj-0f8b-sync-a1"}"#
        );
        assert_eq!(String::from_utf8(small.to_bytes()).unwrap(), expected);
    }

    #[test]
    fn keys_have_the_documented_syntax() {
        assert!(
            is_key("0198c9d2-6f0f-7a1e-9d0a-0f8b00000001")
                && is_key("a.b_c~d")
                && is_key(&"k".repeat(128))
        );
        for bad in ["", "a b", "a\n", "ü", "a/b", &"k".repeat(129)] {
            assert!(!is_key(bad), "{bad:?}");
        }
    }
}
