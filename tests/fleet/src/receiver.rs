//! A submitter's server: it is told that jobs have ended, keeps what it was told and answers as a test wants.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse as _, Response};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::watch;

/// One request that came.
#[derive(Clone, Debug)]
pub struct Told {
    /// The path that was asked.
    pub path: String,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its exact body.
    pub body: Bytes,
}

impl Told {
    /// A header as text; empty where it is not there.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name).and_then(|value| value.to_str().ok());
        value.unwrap_or_default()
    }

    /// The body as JSON.
    ///
    /// # Errors
    /// When it is none.
    pub fn json(&self) -> anyhow::Result<Value> {
        Ok(serde_json::from_slice(&self.body)?)
    }
}

struct Inner {
    told: Vec<Told>,
    status: StatusCode,
    at_work: usize,
    most_at_work: usize,
}

/// The server. It runs until the runtime of the test ends.
#[derive(Clone)]
pub struct Receiver {
    address: SocketAddr,
    inner: Arc<Mutex<Inner>>,
    held: watch::Sender<bool>,
}

impl Receiver {
    /// Starts one on this machine that answers 200.
    ///
    /// # Errors
    /// When no port can be had.
    pub async fn start() -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let receiver = Self {
            address: listener.local_addr()?,
            inner: Arc::new(Mutex::new(Inner {
                told: Vec::new(),
                status: StatusCode::OK,
                at_work: 0,
                most_at_work: 0,
            })),
            held: watch::Sender::new(false),
        };
        let router = Router::new().fallback(take).with_state(receiver.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Ok(receiver)
    }

    /// Its URL, by address.
    #[must_use]
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Its URL, by another name of this machine.
    #[must_use]
    pub fn url_by_name(&self, path: &str) -> String {
        format!("http://localhost:{}{path}", self.address.port())
    }

    /// Answers with this status from now on. A redirect leads to `/elsewhere` of the same server.
    pub fn answer(&self, status: StatusCode) {
        self.lock().status = status;
    }

    /// Answers nobody while it is held.
    pub fn hold(&self, held: bool) {
        self.held.send_replace(held);
    }

    /// What it was told so far.
    #[must_use]
    pub fn told(&self) -> Vec<Told> {
        self.lock().told.clone()
    }

    /// The most requests it had in hand at a time.
    #[must_use]
    pub fn most_at_work(&self) -> usize {
        self.lock().most_at_work
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn take(
    State(receiver): State<Receiver>,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let status = {
        let mut inner = receiver.lock();
        inner.told.push(Told {
            path: uri.path().to_owned(),
            headers,
            body,
        });
        inner.at_work += 1;
        inner.most_at_work = inner.most_at_work.max(inner.at_work);
        inner.status
    };
    let mut held = receiver.held.subscribe();
    // Fails when the receiver is gone, and nobody is answered then.
    let _ = held.wait_for(|held| !held).await;
    receiver.lock().at_work -= 1;
    (status, [(header::LOCATION, "/elsewhere")]).into_response()
}
