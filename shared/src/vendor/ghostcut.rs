//! GhostCut's API: submit, redo, status, list, balance.
//!
//! There is no idempotency: every [`Client::submit`] that reaches the vendor is a paid work.

use std::time::Duration;

use reqwest::RequestBuilder;
use reqwest::header::{CONTENT_TYPE, HeaderValue};
use serde_json::{Value, json};

use super::http::Http;
use super::listing::{Added, ENDLESS, Listing, REPEATS, each_for_itself, list_error};
use super::{Metrics, SetupError, VendorError, signature};
use crate::config::Secret;
use crate::config::vendor::{GhostcutApi, VendorTimeouts};
use crate::domain::Vendor;
use crate::domain::answer::{SubmitAnswer, Work};
use crate::domain::classify::{Answer, ErrorClass, QueryError, ghostcut as classify};

const SUBMIT: &str = "/v-w-c/gateway/ve/work/free";
const STATUS: &str = "/v-w-c/gateway/ve/work/status";
const LIST: &str = "/v-w-c/gateway/ve/work/list";
const REDO: &str = "/v-w-c/gateway/ve/work/video/redo";
const BALANCE: &str = "/v-w-c/gateway/ve/point/query";

/// How many ids one status call may name; the vendor documents no limit.
const IDS_PER_CALL: usize = 100;
/// The vendor's documented maximum. A project of the replaced system may hold several works.
const MAX_PAGE_SIZE: usize = 2000;
const LIST_PAGE_SIZE: usize = 200;
/// 40,000 works in one window; beyond that the list does not end and must not be taken for complete.
const MAX_PAGES: usize = 200;

/// One video to be inpainted.
#[derive(Clone, Copy, Debug)]
pub struct SubmitRequest<'a> {
    /// Public URL of the video, ASCII only.
    pub source_url: &'a str,
    /// Our marker, shown again as the work's name.
    pub marker: &'a str,
    /// Where the vendor reports the final state.
    pub callback: Option<&'a str>,
    /// The sub-user.
    pub uid: Option<&'a str>,
    /// `needChineseOcclude`: 1 the whole frame, 2 only inside the masks.
    pub mode: u8,
    /// `videoInpaintMasks`: a JSON array as text.
    pub masks_json: Option<&'a str>,
}

impl SubmitRequest<'_> {
    /// The body to store, sign and send. The same request always gives the same bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut body = json!({"urls": [self.source_url], "names": [self.marker]});
        if let Some(callback) = self.callback {
            body["callback"] = callback.into();
        }
        if let Some(uid) = self.uid {
            body["uid"] = uid.into();
        }
        body["resolution"] = "1080p".into();
        body["videoInpaintLang"] = "all".into();
        body["needChineseOcclude"] = self.mode.into();
        if let Some(masks) = self.masks_json {
            body["videoInpaintMasks"] = masks.into();
        }
        body.to_string().into_bytes()
    }
}

/// A client of one GhostCut account. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Client {
    http: Http,
    key: HeaderValue,
    secret: Secret,
}

impl Client {
    /// Builds the client; connects to nothing.
    pub fn new(
        api: &GhostcutApi,
        timeouts: VendorTimeouts,
        metrics: Metrics,
    ) -> Result<Self, SetupError> {
        let mut key = HeaderValue::from_str(api.api_key.expose())
            .map_err(|_| SetupError::Key(Vendor::Ghostcut))?;
        key.set_sensitive(true);
        Ok(Self {
            http: Http::new(Vendor::Ghostcut, &api.api_url, timeouts, metrics)?,
            key,
            secret: api.app_secret.clone(),
        })
    }

    /// Sends exactly these bytes, once, within `budget` (what is left of the send deadline). **Paid.**
    pub async fn submit(&self, body: &[u8], budget: Duration) -> SubmitAnswer {
        let prepare = |request| self.signed(request, body.to_vec());
        self.http
            .paid("submit", SUBMIT, budget, prepare, classify::submit)
            .await
    }

    /// Asks, once, to run a failed work again under its id. Counts as **paid**: the price is not documented.
    pub async fn redo(&self, task_id: &str, budget: Duration) -> SubmitAnswer {
        let body = json!({"id": number_or_text(task_id)}).to_string();
        let prepare = |request| self.signed(request, body.into_bytes());
        let read = |answer: &Answer| classify::redo(task_id, answer);
        self.http.paid("redo", REDO, budget, prepare, read).await
    }

    /// The works with these ids, in no order. One that is missing is to be asked for again; it has not failed.
    pub async fn status(&self, task_ids: &[String]) -> Result<Vec<Work>, VendorError> {
        let mut works = Vec::new();
        for ids in task_ids.chunks(IDS_PER_CALL) {
            works.extend(each_for_itself(ids, |ids| self.status_of(ids)).await?);
        }
        works.retain(|work| task_ids.contains(&work.task_id));
        Ok(works)
    }

    async fn status_of(&self, ids: Vec<String>) -> Result<Vec<Work>, VendorError> {
        let body = json!({"idWorks": ids, "page": 0, "pageSize": IDS_PER_CALL});
        match self.query("status", STATUS, &body, classify::works).await {
            // 3003 does not say which of several it is about.
            Err(error) if error.class() == ErrorClass::NotFound && ids.len() == 1 => Ok(Vec::new()),
            answer => answer,
        }
    }

    /// The works of these projects: for jobs of the replaced system, which kept only the `idProject`.
    pub async fn status_by_projects(
        &self,
        project_ids: &[String],
    ) -> Result<Vec<Work>, VendorError> {
        let mut works = Vec::new();
        for ids in project_ids.chunks(IDS_PER_CALL) {
            let ids: Vec<_> = ids.iter().map(|id| number_or_text(id)).collect();
            let body = json!({"idProjects": ids, "page": 0, "pageSize": MAX_PAGE_SIZE});
            works.extend(self.query("status", STATUS, &body, classify::works).await?);
        }
        works.retain(|work| {
            work.project_id
                .as_ref()
                .is_some_and(|id| project_ids.contains(id))
        });
        Ok(works)
    }

    /// All works created in `from_ms..to_ms` (milliseconds since 1970), complete or an error.
    ///
    /// The list call is missing from the vendor's newest guide: where it fails, a status call without ids lists the same.
    pub async fn list(&self, from_ms: i64, to_ms: i64) -> Result<Vec<Work>, VendorError> {
        match self.pages("list", LIST, from_ms, to_ms).await {
            Err(error)
                if !matches!(
                    error.class(),
                    ErrorClass::Misconfigured | ErrorClass::Throttled { .. }
                ) =>
            {
                self.pages("list_by_status", STATUS, from_ms, to_ms).await
            }
            result => result,
        }
    }

    /// Reads pages until one brings nothing new. A short page is not trusted to be the last: the vendor may cap the size.
    async fn pages(
        &self,
        operation: &'static str,
        path: &str,
        from_ms: i64,
        to_ms: i64,
    ) -> Result<Vec<Work>, VendorError> {
        let mut list = Listing::default();
        for page in 0..MAX_PAGES {
            let body = json!({"page": page, "pageSize": LIST_PAGE_SIZE,
                "createTimeGreaterThanOrEqualTo": from_ms, "createTimeLessThan": to_ms});
            let found = self.query(operation, path, &body, classify::listed).await?;
            match list.add(found) {
                Added::More => {}
                Added::End => return Ok(list.works),
                Added::Again => return Err(list_error(Vendor::Ghostcut, operation, REPEATS)),
            }
        }
        Err(list_error(Vendor::Ghostcut, operation, ENDLESS))
    }

    /// The account's balance in points.
    pub async fn balance(&self) -> Result<f64, VendorError> {
        let body = json!({"notZero": true, "isValid": true});
        self.query("balance", BALANCE, &body, classify::balance)
            .await
    }

    async fn query<T>(
        &self,
        operation: &'static str,
        path: &str,
        body: &Value,
        read: impl FnOnce(&Answer) -> Result<T, QueryError>,
    ) -> Result<T, VendorError> {
        let prepare = |request| self.signed(request, body.to_string().into_bytes());
        self.http.post(operation, path, prepare, read).await
    }

    /// Signs the very bytes that are sent.
    fn signed(&self, request: RequestBuilder, body: Vec<u8>) -> RequestBuilder {
        request
            .header(CONTENT_TYPE, "application/json")
            .header("AppKey", self.key.clone())
            .header("AppSign", signature::ghostcut(&self.secret, &body))
            .body(body)
    }
}

/// An id in the form the vendor's examples show: a number where it is one.
fn number_or_text(id: &str) -> Value {
    id.parse::<u64>()
        .map_or_else(|_| Value::from(id), Value::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_submit_body_is_fixed_to_the_byte() {
        let request = SubmitRequest {
            source_url: "https://media.example.com/jobs/0f8b/sync-a1.mp4",
            marker: "vj-0f8b-gc-a1",
            callback: Some("https://app.example.com/hooks/ghostcut/4b1f0c7a9e"),
            uid: Some("sub-user-1"),
            mode: 2,
            masks_json: Some(
                r#"[{"type":"remove_only_ocr","start":0,"end":12.5,"region":[[0.1,0.8],[0.9,0.8],[0.9,0.95],[0.1,0.95]]}]"#,
            ),
        };
        let expected = concat!(
            r#"{"urls":["https://media.example.com/jobs/0f8b/sync-a1.mp4"],"names":["vj-0f8b-gc-a1"],"#,
            r#""callback":"https://app.example.com/hooks/ghostcut/4b1f0c7a9e","uid":"sub-user-1","resolution":"1080p","#,
            r#""videoInpaintLang":"all","needChineseOcclude":2,"videoInpaintMasks":"[{\"type\":\"remove_only_ocr\",\"start\":0,"#,
            r#"\"end\":12.5,\"region\":[[0.1,0.8],[0.9,0.8],[0.9,0.95],[0.1,0.95]]}]"}"#
        );
        assert_eq!(String::from_utf8(request.to_bytes()).unwrap(), expected);
        let small = SubmitRequest {
            callback: None,
            uid: None,
            mode: 1,
            masks_json: None,
            ..request
        };
        let expected = concat!(
            r#"{"urls":["https://media.example.com/jobs/0f8b/sync-a1.mp4"],"names":["vj-0f8b-gc-a1"],"#,
            r#""resolution":"1080p","videoInpaintLang":"all","needChineseOcclude":1}"#
        );
        assert_eq!(String::from_utf8(small.to_bytes()).unwrap(), expected);
    }
}
