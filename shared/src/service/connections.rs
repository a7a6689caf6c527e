//! How a port serves its clients: so many connections at a time, and none for longer than its client goes on with it.
//!
//! Must not know what is served. `axum::serve` has neither a bound nor a timeout: a few hundred clients that send half a request
//! and wait would take every file that the process may open, and with them the admin port, for as long as they like.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::ConnectInfo;
use axum::serve::Listener;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustix::net::sockopt::set_tcp_user_timeout;
use rustix::process::{Resource, getrlimit};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

/// From the first moment, or the end of the answer before, to the end of a request's head: a head is one packet, and who keeps a
/// connection open without a request can have another one at any time.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a client may leave what it was sent unread. Nothing else ends the connection of one who asks and never reads.
const UNREAD_TIMEOUT: Duration = Duration::from_secs(60);
/// Of the files that the process may open, one in so many is a connection of the API: the rest is for the database, the broker, the
/// vendors, the object store, and the admin port.
const FILES_PER_CONNECTION: u64 = 4;
/// As many as this are served even where few files may be open.
const LEAST_CONNECTIONS: u64 = 64;
/// A quarter of what our systemd units allow. More would only be memory.
const MOST_CONNECTIONS: u64 = 16_384;
/// Prometheus, the probes of a load balancer, and people who look.
const FEW_CONNECTIONS: u64 = 32;
/// Between two warnings that a port is full: it may be so for long, and fills anew with every client that goes.
const WARN_EVERY: Duration = Duration::from_secs(60);

/// What a port gives to its clients.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// What the port is called in the log.
    port: &'static str,
    connections: u32,
    head: Duration,
    unread: Duration,
}

impl Bounds {
    /// For the port that the world reaches: by the files that the process may open.
    #[must_use]
    pub fn by_files(port: &'static str) -> Self {
        Self::of(port, by_files(getrlimit(Resource::Nofile).current))
    }

    /// For a port that few need, which answers them while the other one is full.
    #[must_use]
    pub fn of_few(port: &'static str) -> Self {
        Self::of(port, FEW_CONNECTIONS)
    }

    fn of(port: &'static str, connections: u64) -> Self {
        Self {
            port,
            connections: u32::try_from(connections).unwrap_or(u32::MAX),
            head: HEAD_TIMEOUT,
            unread: UNREAD_TIMEOUT,
        }
    }
}

/// None: any number of files.
fn by_files(files: Option<u64>) -> u64 {
    let connections = files.map_or(MOST_CONNECTIONS, |files| files / FILES_PER_CONNECTION);
    connections.clamp(LEAST_CONNECTIONS, MOST_CONNECTIONS)
}

/// Serves what comes to a listener until `stop`; then requests in hand are finished, and this ends. Requests know their peer by
/// `ConnectInfo`. Who comes while the port is full waits to be accepted: that costs no file and loses no request.
pub async fn serve(
    mut listener: TcpListener,
    router: Router,
    bounds: Bounds,
    stop: CancellationToken,
) {
    let places = Arc::new(Semaphore::new(bounds.connections as usize));
    let mut warned = None;
    // Made ready once and not for each request.
    let router = TowerToHyperService::new(router.with_state::<()>(()));
    let mut accept = async || {
        let place = place(&places, bounds, &mut warned).await?;
        Some((place, Listener::accept(&mut listener).await))
    };
    while let Some(Some((place, (stream, peer)))) = stop.run_until_cancelled(accept()).await {
        let (router, stop) = (router.clone(), stop.clone());
        tokio::spawn(async move {
            serve_one(stream, peer, router, bounds, stop).await;
            drop(place);
        });
    }
    drop(listener);
    // Whoever is served still has a place.
    let _ = places.acquire_many(bounds.connections).await;
}

/// A place for one more connection. There always is one in the end: nobody closes the semaphore.
async fn place(
    places: &Arc<Semaphore>,
    bounds: Bounds,
    warned: &mut Option<Instant>,
) -> Option<OwnedSemaphorePermit> {
    if places.available_permits() == 0 && warned.is_none_or(|at| at.elapsed() >= WARN_EVERY) {
        *warned = Some(Instant::now());
        let Bounds {
            port, connections, ..
        } = bounds;
        tracing::warn!(
            port,
            connections,
            "all connections of a port are taken; others wait"
        );
    }
    Arc::clone(places).acquire_owned().await.ok()
}

async fn serve_one(
    stream: TcpStream,
    peer: SocketAddr,
    router: TowerToHyperService<Router>,
    bounds: Bounds,
    stop: CancellationToken,
) {
    let unread = u32::try_from(bounds.unread.as_millis()).unwrap_or(u32::MAX);
    if let Err(error) = set_tcp_user_timeout(&stream, unread) {
        tracing::debug!(%error, "a connection has no timeout for what is not read");
    }
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(ConnectInfo(peer));
        router.call(request)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(bounds.head)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    let served = tokio::select! {
        served = connection.as_mut() => served,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = served {
        // Clients hang up as they like.
        tracing::trace!(%error, "a connection ended early");
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::task::JoinHandle;

    use super::*;

    /// Much longer than what is waited for.
    const PATIENCE: Duration = Duration::from_secs(20);
    const SHORT: Duration = Duration::from_millis(300);
    const REQUEST: &[u8] = b"GET /peer HTTP/1.1\r\nHost: localhost\r\n\r\n";
    const LAST_REQUEST: &[u8] =
        b"GET /peer HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";

    struct Port {
        address: SocketAddr,
        stop: CancellationToken,
        task: JoinHandle<()>,
    }

    /// A port whose requests to `/slow` end when `go` does.
    async fn port(
        connections: u32,
        head: Duration,
        unread: Duration,
        go: &CancellationToken,
    ) -> Port {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let go = go.clone();
        let slow = async move || {
            go.cancelled().await;
            "done"
        };
        let peer = async |ConnectInfo(peer): ConnectInfo<SocketAddr>| peer.to_string();
        let router = Router::new()
            .route("/peer", get(peer))
            .route("/slow", get(slow))
            .route("/large", get(async || vec![b'x'; 64 << 20]));
        let bounds = Bounds {
            port: "test",
            connections,
            head,
            unread,
        };
        let stop = CancellationToken::new();
        let task = tokio::spawn(serve(listener, router, bounds, stop.clone()));
        Port {
            address,
            stop,
            task,
        }
    }

    impl Port {
        async fn sent(&self, bytes: &[u8]) -> TcpStream {
            let mut stream = TcpStream::connect(self.address).await.unwrap();
            stream.write_all(bytes).await.unwrap();
            stream
        }

        async fn ends(self) {
            let ended = tokio::time::timeout(PATIENCE, self.task).await;
            ended.expect("it still serves").unwrap();
        }
    }

    /// What is sent until the connection ends, however it does.
    async fn rest(mut stream: TcpStream) -> String {
        let mut read = Vec::new();
        let ended = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut read)).await;
        let _ = ended.expect("the connection is still open");
        String::from_utf8(read).unwrap()
    }

    #[test]
    fn a_quarter_of_the_files_within_bounds() {
        for (files, connections) in [
            (Some(0), 64),
            (Some(256), 64),
            (Some(1024), 256),
            (Some(65_536), 16_384),
            (Some(u64::MAX), 16_384),
            (None, 16_384),
        ] {
            assert_eq!(by_files(files), connections, "{files:?}");
        }
    }

    #[tokio::test]
    async fn who_sends_no_head_or_half_of_one_gives_its_place_to_the_next() {
        let port = port(3, SHORT, PATIENCE, &CancellationToken::new()).await;
        let half = port.sent(b"GET /peer HTTP/1.1\r\nHost: ").await;
        let none = port.sent(b"").await;
        // Answered, and then silent.
        let idle = port.sent(REQUEST).await;
        // There is no place for this one before one of them has gone.
        let next = port.sent(LAST_REQUEST).await;
        let own = next.local_addr().unwrap().to_string();
        let answer = rest(next).await;
        assert!(
            answer.starts_with("HTTP/1.1 200") && answer.ends_with(&own),
            "{answer}"
        );
        let own = idle.local_addr().unwrap().to_string();
        assert!(rest(idle).await.ends_with(&own));
        assert_eq!(
            (rest(half).await, rest(none).await),
            (String::new(), String::new())
        );
    }

    #[tokio::test]
    async fn who_does_not_read_is_left() {
        let port = port(1, PATIENCE, SHORT, &CancellationToken::new()).await;
        let _unread = port
            .sent(b"GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n")
            .await;
        let answer = rest(port.sent(LAST_REQUEST).await).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }

    #[tokio::test]
    async fn a_stop_ends_idle_connections_and_finishes_requests_in_hand() {
        let go = CancellationToken::new();
        let port = port(9, PATIENCE * 2, PATIENCE, &go).await;
        let mut slow = port
            .sent(b"GET /slow HTTP/1.1\r\nHost: localhost\r\n\r\n")
            .await;
        let mut idle = port.sent(REQUEST).await;
        let mut answer = [0; 12];
        idle.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"HTTP/1.1 200");
        let silent = port.sent(b"").await;
        let second = port.sent(REQUEST).await;
        port.stop.cancel();
        rest(idle).await;
        rest(silent).await;
        rest(second).await;
        assert!(!port.task.is_finished(), "a request is in hand");
        assert!(
            TcpStream::connect(port.address).await.is_err(),
            "it takes more"
        );
        go.cancel();
        let mut answer = vec![0; 12];
        slow.read_exact(&mut answer).await.unwrap();
        assert_eq!(answer, b"HTTP/1.1 200");
        assert!(rest(slow).await.ends_with("done"));
        port.ends().await;
    }
}
