//! The media server: samples, and results with ranges, expiry and download faults. Streams, never buffers.

use std::collections::VecDeque;
use std::io::SeekFrom;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use bytes::Bytes;
use hyper::body::Incoming;
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt};

use super::sample;
use super::store::StoredResult;
use crate::Core;
use crate::fault::{Fault, Operation, When};
use crate::http::{Hangup, break_off};
use crate::truth::now_ms;

/// A stretch of a result.
#[derive(Clone, Debug)]
pub(super) enum Piece {
    File {
        path: PathBuf,
        from: u64,
        bytes: u64,
    },
    Bytes(Bytes),
    Zeros(u64),
}

impl Piece {
    fn len(&self) -> u64 {
        match self {
            Self::File { bytes, .. } | Self::Zeros(bytes) => *bytes,
            Self::Bytes(bytes) => bytes.len() as u64,
        }
    }

    /// `keep` bytes after the first `skip`.
    fn cut(&self, skip: u64, keep: u64) -> Self {
        match self {
            Self::File { path, from, .. } => Self::File {
                path: path.clone(),
                from: from + skip,
                bytes: keep,
            },
            Self::Bytes(bytes) => Self::Bytes(bytes.slice(skip as usize..(skip + keep) as usize)),
            Self::Zeros(_) => Self::Zeros(keep),
        }
    }
}

/// Answers `/results/{token}/{name}` and `/samples/{name}`.
pub(crate) async fn handle(
    core: Arc<Core>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Hangup> {
    let path: Vec<&str> = request
        .uri()
        .path()
        .trim_start_matches('/')
        .split('/')
        .collect();
    match path[..] {
        ["samples", name] => Ok(match sample(name) {
            Some(found) => Response::new(Body::from(found.bytes)),
            None => plain(StatusCode::NOT_FOUND, "no such sample"),
        }),
        ["results", token, _] => match core.media.result(token) {
            Some(result) => send_result(&core, &result, request.headers()).await,
            None => Ok(plain(StatusCode::NOT_FOUND, "no such result")),
        },
        _ => Ok(plain(StatusCode::NOT_FOUND, "not found")),
    }
}

async fn send_result(
    core: &Core,
    result: &StoredResult,
    headers: &HeaderMap,
) -> Result<Response<Body>, Hangup> {
    core.truth.count_request(result.vendor, Operation::Result);
    if headers.contains_key("x-api-key") || headers.contains_key("appkey") {
        core.truth.count_leak();
    }
    let faults = core
        .faults
        .strike(result.vendor, Operation::Result, &result.subject);
    let (mut cut, mut bytes_per_second) = (None, None);
    for fault in &faults {
        match fault {
            Fault::LoseRequest => return Err(Hangup),
            Fault::Delay { ms, .. } => tokio::time::sleep(Duration::from_millis(*ms)).await,
            Fault::Status {
                status,
                body,
                when: When::Before,
                ..
            } => {
                let status =
                    StatusCode::from_u16(*status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
                return Ok(plain(status, body.as_deref().unwrap_or("unavailable")));
            }
            Fault::Truncate { bytes } => cut = Some(*bytes),
            Fault::Slow {
                bytes_per_second: rate,
            } => bytes_per_second = Some(*rate),
            _ => {}
        }
    }
    if now_ms() >= result.expires_at {
        return Ok(plain(
            StatusCode::FORBIDDEN,
            "<Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>",
        ));
    }
    let total: u64 = result.pieces.iter().map(Piece::len).sum();
    let (first, after) = match headers.get(header::RANGE) {
        None => (0, total),
        Some(range) => match parse_range(range, total) {
            Some(range) => range,
            None => return Ok(plain(StatusCode::RANGE_NOT_SATISFIABLE, "no such range")),
        },
    };
    let sender = Sender {
        pieces: select(&result.pieces, first, after),
        file: None,
        cut,
        bytes_per_second,
    };
    let mut response = Response::new(Body::from_stream(futures::stream::try_unfold(
        sender,
        Sender::next,
    )));
    let out = response.headers_mut();
    out.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static(result.content_type),
    );
    out.insert(header::CONTENT_LENGTH, HeaderValue::from(after - first));
    out.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    if headers.contains_key(header::RANGE) {
        let value = format!("bytes {first}-{}/{total}", after.saturating_sub(1));
        out.insert(
            header::CONTENT_RANGE,
            HeaderValue::from_str(&value).map_err(|_| Hangup)?,
        );
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    }
    Ok(response)
}

fn plain(status: StatusCode, body: &str) -> Response<Body> {
    let content_type = if body.starts_with('<') {
        "text/html"
    } else {
        "text/plain"
    };
    let mut response = Response::new(Body::from(body.to_owned()));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// First byte and end (exclusive) of a single range; `None` if it cannot be satisfied.
fn parse_range(value: &HeaderValue, total: u64) -> Option<(u64, u64)> {
    let (first, last) = value
        .to_str()
        .ok()?
        .strip_prefix("bytes=")?
        .split_once('-')?;
    let (first, after) = match (first, last) {
        ("", suffix) => (total.saturating_sub(suffix.parse().ok()?), total),
        (first, "") => (first.parse().ok()?, total),
        (first, last) => (
            first.parse().ok()?,
            last.parse::<u64>().ok()?.saturating_add(1).min(total),
        ),
    };
    (first < after).then_some((first, after))
}

fn select(pieces: &[Piece], first: u64, after: u64) -> VecDeque<Piece> {
    let mut start = 0;
    let mut selected = VecDeque::new();
    for piece in pieces {
        let end = start + piece.len();
        let (from, to) = (first.max(start), after.min(end));
        if from < to {
            selected.push_back(piece.cut(from - start, to - from));
        }
        start = end;
    }
    selected
}

struct Sender {
    pieces: VecDeque<Piece>,
    file: Option<File>,
    /// Bytes until the connection breaks.
    cut: Option<u64>,
    bytes_per_second: Option<u64>,
}

static ZEROS: [u8; 65_536] = [0; 65_536];

impl Sender {
    async fn next(mut self) -> std::io::Result<Option<(Bytes, Self)>> {
        let Some(piece) = self.pieces.front().cloned() else {
            return Ok(None);
        };
        if self.cut == Some(0) {
            return break_off().await.map_err(std::io::Error::other);
        }
        let mut most = self
            .cut
            .unwrap_or(u64::MAX)
            .min(ZEROS.len() as u64)
            .min(piece.len());
        if let Some(rate) = self.bytes_per_second {
            most = most.min((rate / 20).max(1));
            tokio::time::sleep(Duration::from_secs_f64(most as f64 / rate as f64)).await;
        }
        let chunk = match &piece {
            Piece::Bytes(bytes) => bytes.slice(..most as usize),
            Piece::Zeros(_) => Bytes::from_static(&ZEROS[..most as usize]),
            Piece::File { path, from, .. } => {
                let mut file = match self.file.take() {
                    Some(file) => file,
                    None => {
                        let mut file = File::open(path).await?;
                        file.seek(SeekFrom::Start(*from)).await?;
                        file
                    }
                };
                let mut buffer = vec![0; most as usize];
                file.read_exact(&mut buffer).await?;
                self.file = Some(file);
                buffer.into()
            }
        };
        let sent = chunk.len() as u64;
        self.cut = self.cut.map(|cut| cut - sent);
        if sent == piece.len() {
            self.pieces.pop_front();
            self.file = None;
        } else {
            self.pieces[0] = piece.cut(sent, piece.len() - sent);
        }
        Ok(Some((chunk, self)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_follow_the_http_rules() {
        let range = |text: &'static str| parse_range(&HeaderValue::from_static(text), 100);
        assert_eq!(range("bytes=0-9"), Some((0, 10)));
        assert_eq!(range("bytes=90-"), Some((90, 100)));
        assert_eq!(range("bytes=-30"), Some((70, 100)));
        assert_eq!(range("bytes=50-1000"), Some((50, 100)));
        assert_eq!(range("bytes=100-"), None);
        assert_eq!(range("items=0-9"), None);
    }
}
