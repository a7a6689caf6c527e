//! Clients and receivers the tests share.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use md5::{Digest, Md5};
use sandbox::{Fault, FaultRule, Operation, Sandbox, SandboxConfig, Settings, Vendor};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

pub(crate) const LIMIT: Duration = Duration::from_secs(20);

/// A sandbox with short processing times, changed as wanted.
pub(crate) async fn start(change: impl FnOnce(&mut Settings)) -> Sandbox {
    let mut config = SandboxConfig::default();
    config.settings.sync.process_ms = (50, 100);
    config.settings.ghostcut.process_ms = (50, 100);
    change(&mut config.settings);
    Sandbox::start(config).await.unwrap()
}

pub(crate) fn sample_url(sandbox: &Sandbox, name: &str) -> String {
    format!("{}/samples/{name}", sandbox.endpoints().media)
}

pub(crate) fn rule(sandbox: &Sandbox, vendor: Vendor, operation: Operation, fault: Fault) {
    sandbox
        .faults()
        .add(FaultRule::new(vendor, operation, fault))
        .unwrap();
}

pub(crate) fn rule_once(sandbox: &Sandbox, vendor: Vendor, operation: Operation, fault: Fault) {
    sandbox
        .faults()
        .add(FaultRule::new(vendor, operation, fault).times(1))
        .unwrap();
}

/// Waits until all works of a vendor are final.
pub(crate) async fn settle(sandbox: &Sandbox, vendor: Vendor) {
    assert!(
        sandbox
            .truth()
            .wait_until(LIMIT, |truth| truth.pending(vendor) == 0)
            .await
    );
}

pub(crate) fn md5_sign(body: &[u8], secret: &str) -> String {
    let inner = hex::encode(Md5::digest(body));
    hex::encode(Md5::digest(format!("{inner}{secret}")))
}

/// A signed GhostCut call.
pub(crate) async fn ghostcut_raw(
    sandbox: &Sandbox,
    endpoint: &str,
    body: &Value,
) -> Result<reqwest::Response, reqwest::Error> {
    let (keys, body) = (sandbox.credentials(), body.to_string());
    let url = format!(
        "{}/v-w-c/gateway/ve/{endpoint}",
        sandbox.endpoints().ghostcut
    );
    let sign = md5_sign(body.as_bytes(), &keys.ghostcut_secret);
    let request = reqwest::Client::new()
        .post(url)
        .header("AppKey", &keys.ghostcut_key);
    request.header("AppSign", sign).body(body).send().await
}

/// The same, answer parsed.
pub(crate) async fn ghostcut(sandbox: &Sandbox, endpoint: &str, body: &Value) -> Value {
    ghostcut_raw(sandbox, endpoint, body)
        .await
        .unwrap()
        .json()
        .await
        .unwrap()
}

/// A valid erase request for the sample video under a marker.
pub(crate) fn erase(sandbox: &Sandbox, marker: &str) -> Value {
    json!({
        "urls": [sample_url(sandbox, "talk.mp4")], "names": [marker],
        "needChineseOcclude": 1, "videoInpaintLang": "all",
    })
}

/// The items of a status or list answer.
pub(crate) fn items(answer: &Value) -> Vec<Value> {
    assert_eq!(answer["code"], 1000, "{answer}");
    answer["body"]["content"].as_array().unwrap().clone()
}

/// A Sync.so call with the API key.
pub(crate) fn sync(sandbox: &Sandbox, method: &str, path: &str) -> reqwest::RequestBuilder {
    let url = format!("{}{path}", sandbox.endpoints().sync);
    let method = method.parse().unwrap();
    reqwest::Client::new()
        .request(method, url)
        .header("x-api-key", &sandbox.credentials().sync_api_key)
}

/// A valid create request under a marker.
pub(crate) fn generate(sandbox: &Sandbox, marker: &str) -> Value {
    json!({
        "model": "lipsync-2-pro",
        "input": [
            {"type": "video", "url": sample_url(sandbox, "talk.mp4")},
            {"type": "audio", "url": sample_url(sandbox, "tone-330.wav"), "refId": "a1"},
        ],
        "segments": [{"startTime": 0.0, "endTime": 1.5, "audioInput": {"refId": "a1", "startTime": 0.0, "endTime": 1.5}}],
        "options": {"sync_mode": "remap"},
        "outputFileName": marker,
    })
}

/// Creates a generation; status and parsed body.
pub(crate) async fn create(sandbox: &Sandbox, key: Option<&str>, body: &Value) -> (u16, Value) {
    let mut request = sync(sandbox, "POST", "/v2/generate").body(body.to_string());
    if let Some(key) = key {
        request = request.header("Idempotency-Key", key);
    }
    let answer = request.send().await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap())
}

/// A GET of Sync.so, parsed.
pub(crate) async fn sync_get(sandbox: &Sandbox, path: &str) -> Value {
    sync(sandbox, "GET", path)
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap()
}

/// A received callback: headers in lower case, and the raw body.
#[derive(Clone, Debug)]
pub(crate) struct Received {
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Received {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }
}

/// Receives callbacks; answers with the given full responses in turn, the last one for ever.
pub(crate) struct Receiver {
    pub(crate) url: String,
    seen: Arc<Mutex<Vec<Received>>>,
    changed: tokio::sync::watch::Receiver<usize>,
}

pub(crate) const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok";
pub(crate) const EMPTY: &str = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";

impl Receiver {
    pub(crate) async fn start(answers: &'static [&'static str]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (sender, changed) = tokio::sync::watch::channel(0);
        let store = seen.clone();
        tokio::spawn(async move {
            for number in 0.. {
                let (mut stream, _) = listener.accept().await.unwrap();
                let received = read_request(&mut stream).await;
                store.lock().unwrap().push(received);
                stream
                    .write_all(answers[number.min(answers.len() - 1)].as_bytes())
                    .await
                    .unwrap();
                sender.send_replace(number + 1);
            }
        });
        Self { url, seen, changed }
    }

    pub(crate) fn received(&self) -> Vec<Received> {
        self.seen.lock().unwrap().clone()
    }

    /// Waits for so many calls.
    pub(crate) async fn wait(&self, count: usize) -> Vec<Received> {
        let mut changed = self.changed.clone();
        let enough = changed.wait_for(|seen| *seen >= count);
        tokio::time::timeout(LIMIT, enough)
            .await
            .expect("callback in time")
            .unwrap();
        self.received()
    }
}

async fn read_request(stream: &mut tokio::net::TcpStream) -> Received {
    let mut bytes = Vec::new();
    loop {
        let mut chunk = [0; 4096];
        let read = stream.read(&mut chunk).await.unwrap();
        bytes.extend_from_slice(&chunk[..read]);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            continue;
        };
        let head = head.to_lowercase();
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
        if body.len() >= length.unwrap_or(0) || read == 0 {
            return Received {
                head,
                body: body.to_owned(),
            };
        }
    }
}
