//! A TCP proxy on a port that stays, which misbehaves when told to: it cuts connections, holds bytes back, delays them or loses
//! answers. It knows nothing of what it carries, and never changes a byte.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Bytes taken in one piece.
const CHUNK: usize = 16 * 1024;

/// What becomes of the bytes on their way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carriage {
    /// They pass.
    Pass,
    /// They are held, in both directions, and go on afterwards: also those whose sender has long given up.
    Stall,
    /// Each piece waits so long.
    Delay(Duration),
    /// Requests pass; what would be an answer cuts the connection.
    LoseAnswers,
}

/// A proxy before one of several servers. It ends with the value.
pub struct Proxy {
    address: SocketAddr,
    line: Arc<Line>,
    listening: JoinHandle<()>,
}

/// What all connections of a proxy share.
struct Line {
    upstreams: Mutex<Vec<SocketAddr>>,
    turn: AtomicUsize,
    carriage: watch::Sender<Carriage>,
    /// A change cuts every connection there is.
    cuts: watch::Sender<()>,
    open: AtomicUsize,
}

impl Proxy {
    /// A proxy on a free port of 127.0.0.1, without a server yet.
    ///
    /// # Errors
    /// When no port is free.
    pub async fn start() -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await;
        let listener = listener.context("no port for a proxy")?;
        let line = Arc::new(Line {
            upstreams: Mutex::default(),
            turn: AtomicUsize::new(0),
            carriage: watch::Sender::new(Carriage::Pass),
            cuts: watch::Sender::new(()),
            open: AtomicUsize::new(0),
        });
        Ok(Self {
            address: listener.local_addr()?,
            listening: tokio::spawn(listen(listener, Arc::clone(&line))),
            line,
        })
    }

    /// Where clients connect to.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// The servers of new connections, taken in turn; the next one when one is away.
    pub fn lead_to(&self, servers: Vec<SocketAddr>) {
        *self.line.lock() = servers;
    }

    /// From now on, also for connections that stand.
    pub fn carry(&self, carriage: Carriage) {
        self.line.carriage.send_replace(carriage);
    }

    /// Cuts every connection, and says how many there were.
    pub fn cut(&self) -> usize {
        self.line.cuts.send_replace(());
        self.line.open.load(Ordering::Relaxed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.listening.abort();
        self.line.cuts.send_replace(());
    }
}

impl Line {
    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<SocketAddr>> {
        self.upstreams
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection to the server whose turn it is.
    async fn connect(&self) -> Option<TcpStream> {
        let mut servers = self.lock().clone();
        if servers.is_empty() {
            return None;
        }
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) % servers.len();
        servers.rotate_left(turn);
        for server in servers {
            if let Ok(stream) = TcpStream::connect(server).await {
                return Some(stream);
            }
        }
        None
    }

    async fn carry(&self, client: TcpStream) -> std::io::Result<()> {
        let mut carriage = self.carriage.subscribe();
        held(&mut carriage).await;
        let Some(server) = self.connect().await else {
            return Ok(());
        };
        // Small pieces, each of which somebody waits for.
        client.set_nodelay(true)?;
        server.set_nodelay(true)?;
        let (from_client, to_client) = client.into_split();
        let (from_server, to_server) = server.into_split();
        tokio::try_join!(
            pump(from_client, to_server, carriage.clone(), false),
            pump(from_server, to_client, carriage, true),
        )?;
        Ok(())
    }
}

async fn listen(listener: TcpListener, line: Arc<Line>) {
    loop {
        let Ok((client, _)) = listener.accept().await else {
            return;
        };
        let line = Arc::clone(&line);
        let mut cuts = line.cuts.subscribe();
        tokio::spawn(async move {
            line.open.fetch_add(1, Ordering::Relaxed);
            tokio::select! {
                _ = line.carry(client) => {}
                _ = cuts.changed() => {}
            }
            line.open.fetch_sub(1, Ordering::Relaxed);
        });
    }
}

/// Waits until nothing is held back, and says what is to be done instead.
async fn held(carriage: &mut watch::Receiver<Carriage>) -> Carriage {
    let free = carriage.wait_for(|now| *now != Carriage::Stall).await;
    free.map_or(Carriage::Pass, |now| *now)
}

/// Carries one direction until its sender closes it.
async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut carriage: watch::Receiver<Carriage>,
    answers: bool,
) -> std::io::Result<()> {
    let mut bytes = vec![0; CHUNK];
    loop {
        let count = from.read(&mut bytes).await?;
        match held(&mut carriage).await {
            Carriage::LoseAnswers if answers && count > 0 => {
                return Err(std::io::ErrorKind::ConnectionReset.into());
            }
            Carriage::Delay(time) => tokio::time::sleep(time).await,
            _ => {}
        }
        if count == 0 {
            return to.shutdown().await;
        }
        to.write_all(&bytes[..count]).await?;
    }
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;

    use tokio::time::timeout;

    use super::*;
    use crate::DEADLINE;

    /// Answers every byte with the next one, and tells how many it got.
    async fn server() -> (SocketAddr, watch::Receiver<usize>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (count, counted) = watch::channel(0);
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let count = count.clone();
                tokio::spawn(async move {
                    while let Ok(byte) = stream.read_u8().await {
                        count.send_modify(|count| *count += 1);
                        let _ = stream.write_u8(byte + 1).await;
                    }
                });
            }
        });
        (address, counted)
    }

    async fn ask(stream: &mut TcpStream, byte: u8) -> std::io::Result<u8> {
        stream.write_u8(byte).await?;
        timeout(DEADLINE, stream.read_u8()).await?
    }

    #[tokio::test]
    async fn it_carries_cuts_and_goes_on_after_a_server_that_is_away() {
        let (address, _) = server().await;
        let proxy = Proxy::start().await.unwrap();
        let gone = TcpListener::bind("127.0.0.1:0").await.unwrap();
        proxy.lead_to(vec![gone.local_addr().unwrap(), address]);
        drop(gone);
        for _ in 0..3 {
            let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
            assert_eq!(ask(&mut stream, 1).await.unwrap(), 2);
            assert_eq!(proxy.cut(), 1);
            assert!(ask(&mut stream, 1).await.is_err());
        }
    }

    #[tokio::test]
    async fn what_is_held_arrives_later_though_nobody_waits_for_it() {
        let (address, mut count) = server().await;
        let proxy = Proxy::start().await.unwrap();
        proxy.lead_to(vec![address]);
        let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
        assert_eq!(ask(&mut stream, 1).await.unwrap(), 2);
        proxy.carry(Carriage::Stall);
        stream.write_u8(5).await.unwrap();
        let early = timeout(Duration::from_millis(100), stream.read_u8()).await;
        assert!(early.is_err(), "nothing comes through");
        drop(stream);
        assert_eq!(*count.borrow(), 1);
        proxy.carry(Carriage::Pass);
        let late = timeout(DEADLINE, count.wait_for(|count| *count == 2)).await;
        late.unwrap().unwrap();
    }

    #[tokio::test]
    async fn lost_answers_are_those_of_requests_that_arrived() {
        let (address, count) = server().await;
        let proxy = Proxy::start().await.unwrap();
        proxy.lead_to(vec![address]);
        proxy.carry(Carriage::LoseAnswers);
        let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
        let error = ask(&mut stream, 1).await.unwrap_err();
        assert!(
            matches!(
                error.kind(),
                ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset
            ),
            "{error}"
        );
        assert_eq!(*count.borrow(), 1);
    }
}
