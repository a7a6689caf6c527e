//! Downloads media from vendors and users, believing neither the URL nor the answer.
//!
//! Only public addresses are asked unless configured otherwise, also on redirects; every wait has an end; what is not
//! the kind of media expected is not taken. Errors name the host, never the URL: it is often signed.

use super::address::{NotPublic, PublicResolver, is_public};
use super::media::{Container, MediaKind, SNIFF_BYTES};
use super::transfer::TransferError;
use crate::config::storage::FetchConfig;
use bytes::{Bytes, BytesMut};
use reqwest::{Response, StatusCode, header};
use std::error::Error;
use std::net::IpAddr;
use std::time::Duration;
use tokio::time::Instant;
use url::{Host, Url};

/// How many redirects are followed.
const MAX_REDIRECTS: usize = 5;

/// The client for downloads. Cheap to clone; clones share their connections.
#[derive(Clone, Debug)]
pub struct Fetcher {
    client: reqwest::Client,
    allow_private: bool,
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
        super::install_tls_provider();
        let mut client = reqwest::Client::builder()
            .user_agent(concat!("GhostFleet/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(config.fetch_connect_timeout)
            // Followed by hand, to check each step.
            .redirect(reqwest::redirect::Policy::none())
            // A proxy would resolve names out of reach of our rules.
            .no_proxy()
            .http1_only();
        if !config.fetch_allow_private {
            client = client.dns_resolver(PublicResolver);
        }
        Ok(Self {
            client: client.build()?,
            allow_private: config.fetch_allow_private,
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
        let mut reader = Reader {
            received: 0,
            max_bytes,
            idle_timeout: self.idle_timeout,
            total_timeout: self.total_timeout,
            started: Instant::now(),
        };
        let (mut response, host) = self.follow(url, &reader).await?;
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

    /// Asks, and asks again where a redirect points, each URL being checked before.
    async fn follow(
        &self,
        url: &str,
        reader: &Reader,
    ) -> Result<(Response, String), TransferError> {
        let mut url = Url::parse(url).map_err(|_| TransferError::Url("cannot be parsed"))?;
        for _ in 0..=MAX_REDIRECTS {
            let host = self.check(&url)?;
            let answer = self.client.get(url.clone()).send();
            let response = match tokio::time::timeout(reader.patience(), answer).await {
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
        let address = match url.host() {
            None => return Err(TransferError::Url("has no host")),
            Some(Host::Domain(_)) => None,
            Some(Host::Ipv4(address)) => Some(IpAddr::V4(address)),
            Some(Host::Ipv6(address)) => Some(IpAddr::V6(address)),
        };
        let host = url.host_str().unwrap_or_default().to_owned();
        if !self.allow_private && address.is_some_and(|address| !is_public(address)) {
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

    fn fetcher(allow_private: bool) -> Fetcher {
        let second = Duration::from_secs(1);
        Fetcher::new(&FetchConfig {
            fetch_allow_private: allow_private,
            fetch_max_bytes: 1000,
            fetch_connect_timeout: second,
            fetch_idle_timeout: second,
            fetch_total_timeout: second,
        })
        .unwrap()
    }

    #[tokio::test]
    async fn hosts_that_are_not_public_are_never_asked() {
        for url in [
            "http://127.0.0.1/a.mp4",
            "http://2130706433/a.mp4",
            "http://0x7f.1/a.mp4",
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

    #[tokio::test]
    async fn urls_that_make_no_sense_are_refused() {
        for url in [
            "",
            "a.mp4",
            "file:///etc/passwd",
            "ftp://example.com/a.mp4",
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
