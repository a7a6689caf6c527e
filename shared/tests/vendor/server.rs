//! A small HTTP/1.1 server that can also misbehave, which a well-built one cannot.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufStream};
use tokio::net::{TcpListener, TcpStream};

/// A request as it was received.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    /// Method, path and query, e.g. `GET /v2/generate/1`.
    pub(crate) line: String,
    /// By lower-case name.
    pub(crate) headers: HashMap<String, String>,
    pub(crate) body: Vec<u8>,
}

impl Request {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

/// What the server does once it has read a request.
pub(crate) enum Reply {
    /// A well-formed answer.
    Json(u16, Value),
    /// These bytes, then the connection is closed.
    Bytes(Vec<u8>),
    /// Nothing; the connection is closed.
    Close,
    /// Nothing, for ever.
    Hang,
}

pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    connections: Arc<AtomicUsize>,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    pub(crate) async fn start(reply: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Self {
            address: listener.local_addr().unwrap(),
            connections: Arc::default(),
            requests: Arc::default(),
        };
        let (connections, requests, reply) = (
            server.connections.clone(),
            server.requests.clone(),
            Arc::new(reply),
        );
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                connections.fetch_add(1, Ordering::SeqCst);
                let (requests, reply) = (requests.clone(), reply.clone());
                tokio::spawn(async move { serve(stream, &requests, &*reply).await });
            }
        });
        server
    }

    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// Every request that arrived whole.
    pub(crate) fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }
}

/// An address nobody listens on.
pub(crate) async fn closed_port() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap()
}

async fn serve(
    stream: TcpStream,
    requests: &Mutex<Vec<Request>>,
    reply: &impl Fn(&Request) -> Reply,
) {
    let mut stream = BufStream::new(stream);
    while let Some(request) = read(&mut stream).await {
        requests.lock().unwrap().push(request.clone());
        match reply(&request) {
            Reply::Json(status, json) => {
                let body = json.to_string();
                let head = format!(
                    "HTTP/1.1 {status} Status\r\nContent-Length: {}\r\n\r\n",
                    body.len()
                );
                let sent = stream.write_all((head + &body).as_bytes()).await;
                if sent.is_err() || stream.flush().await.is_err() {
                    return;
                }
            }
            Reply::Bytes(bytes) => {
                // The client may have hung up on a long answer.
                let _ = stream.write_all(&bytes).await;
                let _ = stream.shutdown().await;
                return;
            }
            Reply::Close => return,
            Reply::Hang => std::future::pending().await,
        }
    }
}

async fn read(stream: &mut BufStream<TcpStream>) -> Option<Request> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await.ok()?;
        match line.strip_suffix("\r\n")? {
            "" => break,
            text => lines.push(text.to_owned()),
        }
    }
    let headers: HashMap<_, _> = lines[1..]
        .iter()
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
        .collect();
    let length = headers
        .get("content-length")
        .map_or(0, |length| length.parse().unwrap());
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    let line = lines[0].trim_end_matches(" HTTP/1.1").to_owned();
    Some(Request {
        line,
        headers,
        body,
    })
}
