//! Downloads media from vendors and users, believing neither the URL nor the answer.
//!
//! Only public addresses are asked unless configured otherwise, also on redirects; every wait has an end; what is not
//! the kind of media expected is not taken. Errors name the host, never the URL: it is often signed.

use super::transfer::TransferError;
use crate::address::{NotPublic, Rule, RuledResolver, is_forbidden, rule};
use crate::config::storage::FetchConfig;
use crate::domain::media::{Container, MediaKind, SNIFF_BYTES};
use bytes::{Bytes, BytesMut};
use reqwest::{Response, StatusCode, header};
use std::error::Error;
use std::time::Duration;
use tokio::time::Instant;
use url::Url;

/// How many redirects are followed.
const MAX_REDIRECTS: usize = 5;

/// The client for downloads. Cheap to clone; clones share their connections.
#[derive(Clone, Debug)]
pub struct Fetcher {
    client: reqwest::Client,
    /// Which addresses may be asked.
    rule: Rule,
    max_bytes: u64,
    idle_timeout: Duration,
    total_timeout: Duration,
}

/// A download whose beginning was found to be media.
pub struct Download {
    response: Response,
    host: String,
    container: Container,
    /// What was read to recognise the container, until it is handed out.
    start: Option<Bytes>,
    reader: Reader,
}

/// A stretch of a file, and the size of the file where it is known.
pub(super) struct Part {
    pub(super) total: Option<u64>,
    pub(super) bytes: Bytes,
}

/// First byte and size of the whole, from `Content-Range: bytes 0-9/100`; either may be missing (`*`).
fn content_range(headers: &header::HeaderMap) -> Option<(Option<u64>, Option<u64>)> {
    let text = headers.get(header::CONTENT_RANGE)?.to_str().ok()?;
    let (range, total) = text.strip_prefix("bytes ")?.split_once('/')?;
    let first = range.split_once('-').map(|(first, _)| first);
    Some((
        first.and_then(|first| first.trim().parse().ok()),
        total.trim().parse().ok(),
    ))
}

/// The limits that the bytes of a body are read under.
struct Reader {
    received: u64,
    max_bytes: u64,
    idle_timeout: Duration,
    total_timeout: Duration,
    started: Instant,
}

impl Fetcher {
    /// Prepares the client; connects to nothing.
    ///
    /// # Errors
    /// When the TLS roots of the system cannot be loaded.
    pub fn new(config: &FetchConfig) -> Result<Self, reqwest::Error> {
        Self::ruled(config, rule(config.fetch_allow_private))
    }

    fn ruled(config: &FetchConfig, rule: Rule) -> Result<Self, reqwest::Error> {
        crate::tls::install_provider();
        let client = reqwest::Client::builder()
            .user_agent(concat!("GhostFleet/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(config.fetch_connect_timeout)
            // Followed by hand, to check each step.
            .redirect(reqwest::redirect::Policy::none())
            // A proxy would resolve names out of reach of our rules.
            .no_proxy()
            .http1_only()
            .dns_resolver(RuledResolver(rule));
        Ok(Self {
            client: client.build()?,
            rule,
            max_bytes: config.fetch_max_bytes,
            idle_timeout: config.fetch_idle_timeout,
            total_timeout: config.fetch_total_timeout,
        })
    }

    /// Starts a download and reads as much as tells what it is.
    ///
    /// # Errors
    /// [`TransferError`]; nothing is retried.
    pub async fn fetch(&self, url: &str, kind: MediaKind) -> Result<Download, TransferError> {
        let max_bytes = self.max_bytes;
        let mut reader = self.reader();
        let (mut response, host) = self.follow(url, None, &reader).await?;
        if response.status() != StatusCode::OK {
            return Err(TransferError::Status {
                host,
                status: response.status().as_u16(),
            });
        }
        if response
            .content_length()
            .is_some_and(|length| length > max_bytes)
        {
            return Err(TransferError::TooLarge {
                host,
                limit: max_bytes,
            });
        }
        let mut start = BytesMut::new();
        while start.len() < SNIFF_BYTES
            && let Some(bytes) = reader.next(&mut response, &host).await?
        {
            start.extend_from_slice(&bytes);
        }
        let found = Container::sniff(&start);
        match found.filter(|container| container.can_be(kind)) {
            Some(container) => Ok(Download {
                response,
                host,
                container,
                start: Some(start.freeze()),
                reader,
            }),
            None => Err(TransferError::NotMedia {
                host,
                expected: kind,
                found,
            }),
        }
    }

    /// Reads up to `length` bytes from `first` on. A server that knows no ranges sends its file from the beginning: then up
    /// to `instead` bytes of it come, if they begin at `first`, else none.
    ///
    /// # Errors
    /// [`TransferError`]; nothing is retried.
    pub(super) async fn read_at(
        &self,
        url: &str,
        first: u64,
        length: usize,
        instead: usize,
    ) -> Result<Part, TransferError> {
        let mut reader = self.reader();
        let last = first.saturating_add(length as u64).saturating_sub(1);
        let range = format!("bytes={first}-{last}");
        let (mut response, host) = self.follow(url, Some(&range), &reader).await?;
        let status = response.status();
        let said = content_range(response.headers());
        let (total, most) = match (status, said) {
            (StatusCode::PARTIAL_CONTENT, Some((Some(from), total))) if from == first => {
                (total, length)
            }
            (StatusCode::OK, _) => (
                response.content_length(),
                if first == 0 { instead } else { 0 },
            ),
            // Nothing is there from `first` on.
            (StatusCode::RANGE_NOT_SATISFIABLE, _) => {
                let total = said.and_then(|(_, total)| total);
                (total.or((first == 0).then_some(0)), 0)
            }
            _ => {
                let status = status.as_u16();
                return Err(TransferError::Status { host, status });
            }
        };
        let mut bytes = BytesMut::new();
        let mut ended = most == 0;
        while !ended && bytes.len() < most {
            match reader.next(&mut response, &host).await? {
                Some(more) => bytes.extend_from_slice(&more),
                None => ended = true,
            }
        }
        // A whole file whose length was not announced.
        let end = first.saturating_add(bytes.len() as u64);
        let whole = status == StatusCode::OK && ended && most > 0;
        bytes.truncate(most);
        Ok(Part {
            total: total.or(whole.then_some(end)),
            bytes: bytes.freeze(),
        })
    }

    fn reader(&self) -> Reader {
        Reader {
            received: 0,
            max_bytes: self.max_bytes,
            idle_timeout: self.idle_timeout,
            total_timeout: self.total_timeout,
            started: Instant::now(),
        }
    }

    /// Asks, and asks again where a redirect points, each URL being checked before.
    async fn follow(
        &self,
        url: &str,
        range: Option<&str>,
        reader: &Reader,
    ) -> Result<(Response, String), TransferError> {
        let mut url = Url::parse(url).map_err(|_| TransferError::Url("cannot be parsed"))?;
        for _ in 0..=MAX_REDIRECTS {
            let host = self.check(&url)?;
            let mut request = self.client.get(url.clone());
            if let Some(range) = range {
                request = request.header(header::RANGE, range);
            }
            let response = match tokio::time::timeout(reader.patience(), request.send()).await {
                Ok(response) => response.map_err(|error| refusal(error, &host))?,
                Err(_) => return Err(reader.given_up(host)),
            };
            let location = response
                .headers()
                .get(header::LOCATION)
                .filter(|_| response.status().is_redirection());
            let Some(location) = location else {
                return Ok((response, host));
            };
            let next = location
                .to_str()
                .ok()
                .and_then(|location| url.join(location).ok());
            url = next.ok_or(TransferError::Url("redirects to what cannot be parsed"))?;
        }
        Err(TransferError::Url("redirects too often"))
    }

    /// Checks what can be seen in a URL and returns its host; names are checked when they are resolved.
    fn check(&self, url: &Url) -> Result<String, TransferError> {
        if !matches!(url.scheme(), "http" | "https") {
            return Err(TransferError::Url("is neither http nor https"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(TransferError::Url("holds a user name or password"));
        }
        let Some(host) = url.host_str().map(str::to_owned) else {
            return Err(TransferError::Url("has no host"));
        };
        if is_forbidden(url, self.rule) {
            return Err(TransferError::Forbidden { host });
        }
        Ok(host)
    }
}

impl Download {
    /// What the first bytes show it to be.
    #[must_use]
    pub fn container(&self) -> Container {
        self.container
    }

    /// Where it comes from, for messages.
    pub(super) fn host(&self) -> &str {
        &self.host
    }

    /// The next bytes; `None` after the last.
    ///
    /// # Errors
    /// [`TransferError`] when the body breaks off, stalls, takes too long or grows too large.
    pub async fn next(&mut self) -> Result<Option<Bytes>, TransferError> {
        match self.start.take() {
            Some(start) => Ok(Some(start)),
            None => self.reader.next(&mut self.response, &self.host).await,
        }
    }
}

impl Reader {
    /// How long the next bytes may take.
    fn patience(&self) -> Duration {
        let left = self.total_timeout.saturating_sub(self.started.elapsed());
        self.idle_timeout.min(left)
    }

    /// The error when they took longer.
    fn given_up(&self, host: String) -> TransferError {
        let received = self.received;
        if self.started.elapsed() < self.total_timeout {
            let after = self.idle_timeout;
            return TransferError::Stalled {
                host,
                received,
                after,
            };
        }
        let after = self.total_timeout;
        TransferError::TooSlow {
            host,
            received,
            after,
        }
    }

    async fn next(
        &mut self,
        response: &mut Response,
        host: &str,
    ) -> Result<Option<Bytes>, TransferError> {
        let bytes = match tokio::time::timeout(self.patience(), response.chunk()).await {
            // A body shorter than its Content-Length ends in an error too.
            Ok(chunk) => chunk.map_err(|error| TransferError::Broken {
                host: host.to_owned(),
                received: self.received,
                source: error.without_url(),
            })?,
            Err(_) => return Err(self.given_up(host.to_owned())),
        };
        self.received += bytes.as_ref().map_or(0, |bytes| bytes.len() as u64);
        if self.received > self.max_bytes {
            let (host, limit) = (host.to_owned(), self.max_bytes);
            return Err(TransferError::TooLarge { host, limit });
        }
        Ok(bytes)
    }
}

/// Tells a host that may not be asked from one that does not answer.
fn refusal(error: reqwest::Error, host: &str) -> TransferError {
    let host = host.to_owned();
    let mut causes = std::iter::successors(error.source(), |cause| (*cause).source());
    if causes.any(|cause| cause.is::<NotPublic>()) {
        return TransferError::Forbidden { host };
    }
    TransferError::Unreachable {
        host,
        source: error.without_url(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    fn config(allow_private: bool) -> FetchConfig {
        let seconds = Duration::from_secs(5);
        FetchConfig {
            fetch_allow_private: allow_private,
            fetch_max_bytes: 1000,
            fetch_connect_timeout: seconds,
            fetch_idle_timeout: seconds,
            fetch_total_timeout: seconds,
        }
    }

    fn fetcher(allow_private: bool) -> Fetcher {
        Fetcher::new(&config(allow_private)).unwrap()
    }

    #[tokio::test]
    async fn hosts_that_are_not_public_are_never_asked() {
        for url in [
            "http://127.0.0.1/a.mp4",
            "http://2130706433/a.mp4",
            "http://0x7f.1/a.mp4",
            "http://0177.0.0.1/a.mp4",
            "http://0x7f000001/a.mp4",
            "http://127.1/a.mp4",
            "http://127.0.0.1./a.mp4",
            "http://%31%32%37.0.0.1/a.mp4",
            "http://\u{ff11}27.0.0.1/a.mp4",
            "http://127\u{3002}0.0.1/a.mp4",
            "http://0/a.mp4",
            "http://[::]/a.mp4",
            "http://[fe80::1]/a.mp4",
            "http://[fc00::1]/a.mp4",
            "http://[64:ff9b::a9fe:a9fe]/a.mp4",
            "http://[2002:7f00:1::]/a.mp4",
            "http://[::ffff:7f00:1]/a.mp4",
            "http://168.63.129.16/machine",
            "http://[::1]/a.mp4",
            "http://[::ffff:10.0.0.1]/a.mp4",
            "http://169.254.169.254/latest/meta-data/",
            "http://localhost/a.mp4",
            "https://localhost:1/a.mp4",
        ] {
            let error = fetcher(false)
                .fetch(url, MediaKind::Video)
                .await
                .err()
                .unwrap();
            assert!(
                matches!(error, TransferError::Forbidden { .. }),
                "{url}: {error:?}"
            );
        }
    }

    /// A server that redirects to whatever the path says, decoded; and how often it was asked.
    async fn redirecting(address: &str) -> (std::net::SocketAddr, Arc<AtomicUsize>) {
        let listener = tokio::net::TcpListener::bind((address, 0)).await.unwrap();
        let (bound, asked) = (
            listener.local_addr().unwrap(),
            Arc::<AtomicUsize>::default(),
        );
        let count = Arc::clone(&asked);
        let answer = async move |uri: axum::http::Uri| {
            count.fetch_add(1, Ordering::SeqCst);
            let to = percent_encoding::percent_decode_str(&uri.path()[1..]).decode_utf8();
            (StatusCode::FOUND, [("location", to.unwrap().into_owned())])
        };
        let router = axum::Router::new().fallback(answer);
        tokio::spawn(async move { axum::serve(listener, router).await });
        (bound, asked)
    }

    /// The first server may be asked and the second, to which it redirects, may not: as a public one and a private one.
    #[tokio::test]
    async fn redirects_to_addresses_that_are_not_allowed_are_not_followed() {
        let config = config(false);
        let fetcher = Fetcher::ruled(&config, |address| address == Ipv4Addr::LOCALHOST).unwrap();
        let (first, asked) = redirecting("127.0.0.1").await;
        let (second, reached) = redirecting("127.0.0.2").await;
        let port = second.port();
        let targets = [
            format!("http://127.0.0.2:{port}/a.mp4"),
            format!("//127.0.0.2:{port}/a.mp4"),
            format!("http://2130706434:{port}/a.mp4"),
            format!("http://[::ffff:127.0.0.2]:{port}/a.mp4"),
            format!("http://[::1]:{port}/a.mp4"),
            "http://169.254.169.254/latest/meta-data/".to_owned(),
        ];
        for (number, target) in targets.iter().enumerate() {
            let to =
                percent_encoding::utf8_percent_encode(target, percent_encoding::NON_ALPHANUMERIC);
            let url = format!("http://{first}/{to}");
            let error = fetcher.fetch(&url, MediaKind::Video).await.err().unwrap();
            assert!(
                matches!(error, TransferError::Forbidden { .. }),
                "{target}: {error:?}"
            );
            assert_eq!(
                asked.load(Ordering::SeqCst),
                number + 1,
                "the first was asked"
            );
        }
        assert_eq!(reached.load(Ordering::SeqCst), 0);
        // A name is judged by what it resolves to, here to addresses that are allowed.
        let named = format!("http://localhost:{}/x:", first.port());
        let error = fetcher.fetch(&named, MediaKind::Video).await.err().unwrap();
        assert!(matches!(error, TransferError::Url(_)), "{error:?}");
        let elsewhere =
            Fetcher::ruled(&config, |address| address == Ipv4Addr::new(127, 0, 0, 2)).unwrap();
        let error = elsewhere
            .fetch(&named, MediaKind::Video)
            .await
            .err()
            .unwrap();
        assert!(
            matches!(error, TransferError::Forbidden { .. }),
            "{error:?}"
        );
    }

    #[tokio::test]
    async fn urls_that_make_no_sense_are_refused() {
        for url in [
            "",
            "a.mp4",
            "file:///etc/passwd",
            "ftp://example.com/a.mp4",
            // An address with a zone is no URL, encoded or not.
            "http://[fe80::1%25eth0]/a.mp4",
            "http://[fe80::1%eth0]/a.mp4",
            "http://256.256.256.256/a.mp4",
            "http://0x100000000/a.mp4",
            "https://u:p@example.com/a.mp4",
        ] {
            let error = fetcher(true)
                .fetch(url, MediaKind::Video)
                .await
                .err()
                .unwrap();
            assert!(matches!(error, TransferError::Url(_)), "{url}: {error:?}");
        }
    }
}
