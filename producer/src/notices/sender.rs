//! Sends one notice to its receiver, believing nothing about it: only allowed addresses are asked, no redirect is followed, and
//! nothing of the answer is read but its status.

use std::time::Duration;

use chrono::{DateTime, SecondsFormat, Utc};
use serde::Serialize;
use shared::address::{NotPublic, Rule, RuledResolver, is_forbidden};
use shared::db::NoticeRow;
use url::Url;
use uuid::Uuid;

use super::signature::{SigningKey, sign};
use crate::web::{redacted, result_path};

/// The longest part of a try that may pass before there is a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// What a receiver gets.
#[derive(Serialize)]
struct Body {
    /// `job.completed`, `job.failed` or `job.canceled`.
    r#type: String,
    /// The same however often it is sent; `webhook-id` too.
    event_id: Uuid,
    /// The job.
    id: Uuid,
    status: String,
    /// Path of the API that leads to the result.
    result: Option<String>,
    /// Why it failed.
    error: Option<Failure>,
    /// When the job ended.
    at: String,
}

#[derive(Serialize)]
struct Failure {
    code: Option<String>,
    message: Option<String>,
}

/// Sends notices. Cheap to clone.
#[derive(Clone)]
pub(super) struct Sender {
    client: reqwest::Client,
    keys: Vec<SigningKey>,
    rule: Rule,
}

impl Sender {
    /// Connects to nothing yet.
    pub(super) fn new(
        keys: Vec<SigningKey>,
        rule: Rule,
        timeout: Duration,
    ) -> Result<Self, reqwest::Error> {
        shared::tls::install_provider();
        let client = reqwest::Client::builder()
            .user_agent(concat!("GhostFleet/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_TIMEOUT.min(timeout))
            .timeout(timeout)
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            // A proxy would resolve names out of reach of our rules.
            .no_proxy()
            .http1_only()
            .dns_resolver(RuledResolver(rule))
            .build()?;
        Ok(Self { client, keys, rule })
    }

    /// Sends it once and gives the status of the answer.
    ///
    /// # Errors
    /// Why there was none. Names no part of the URL.
    pub(super) async fn send(&self, notice: &NoticeRow) -> Result<u16, String> {
        let url = Url::parse(&notice.url).map_err(|_| "the URL cannot be read".to_owned())?;
        if is_forbidden(&url, self.rule) {
            return Err("the address is not public".to_owned());
        }
        let body = body(notice);
        let time = Utc::now().timestamp();
        let sent = self
            .client
            .post(url)
            .header("content-type", "application/json")
            .header("webhook-id", notice.id.to_string())
            .header("webhook-timestamp", time)
            .header(
                "webhook-signature",
                sign(&self.keys, notice.id, time, &body),
            )
            .body(body)
            .send();
        match sent.await {
            Ok(answer) => Ok(answer.status().as_u16()),
            Err(error) => Err(in_words(&error)),
        }
    }
}

/// The same bytes however often: nothing in them is newer than the notice.
fn body(notice: &NoticeRow) -> Vec<u8> {
    let failed = notice.status == "failed";
    let body = Body {
        r#type: format!("job.{}", notice.status),
        event_id: notice.id,
        id: notice.job_id,
        status: notice.status.clone(),
        result: notice.has_result.then(|| result_path(notice.job_id)),
        error: failed.then(|| Failure {
            code: notice.error_code.clone(),
            message: notice.error_message.clone().map(redacted),
        }),
        at: micros(notice.created_at),
    };
    // Texts and nothing else: it cannot fail.
    serde_json::to_vec(&body).unwrap_or_default()
}

fn micros(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Micros, true)
}

/// The library's own texts may have the URL in them.
fn in_words(error: &reqwest::Error) -> String {
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        if inner.is::<NotPublic>() {
            return "the host has no public address".to_owned();
        }
        cause = inner.source();
    }
    let words = if error.is_timeout() {
        "no answer in time"
    } else if error.is_connect() {
        "no connection"
    } else {
        "the connection broke off"
    };
    words.to_owned()
}
