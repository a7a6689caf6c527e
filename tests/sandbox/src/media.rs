//! Media files: the shipped samples, fetched inputs, and results derived from them.
//! A result is its input plus a note of where it came from, placed where players skip it.
//! Big files are streamed and never held in memory.

use std::collections::{HashMap, VecDeque};
use std::io::SeekFrom;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use bytes::Bytes;
use futures::StreamExt;
use hyper::body::Incoming;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt, AsyncWriteExt};

use crate::Core;
use crate::fault::{Fault, Operation, When};
use crate::http::Hangup;
use crate::truth::{ResultFile, Vendor, Work, now_ms};

/// A small real media file that ships with the sandbox.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// File name; served under `/samples/` of the media server.
    pub name: &'static str,
    /// Content.
    pub bytes: &'static [u8],
}

macro_rules! samples {
    ($($name:literal),*) => {
        &[$(Sample { name: $name, bytes: include_bytes!(concat!("../media/", $name)) }),*]
    };
}

/// All samples: `talk.mp4` has video and sound, the other videos have no sound.
pub const SAMPLES: &[Sample] = samples![
    "talk.mp4",
    "bars.mp4",
    "zoom.mp4",
    "clip.webm",
    "tone-330.wav",
    "tone-660.wav",
    "tone-550.mp3"
];

/// A sample by name.
pub fn sample(name: &str) -> Option<Sample> {
    SAMPLES.iter().copied().find(|sample| sample.name == name)
}

/// The note in a result: who made it from what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Provenance {
    /// Vendor that made the result.
    pub vendor: Vendor,
    /// Its id of the work.
    pub work: String,
    /// SHA-256 of the video it fetched, lower-case hex.
    pub input_sha256: String,
}

const NOTE: &[u8] = b"sandbox-provenance:";

impl Provenance {
    /// All notes in a file, in the order they were added: a file that went through both vendors has two.
    pub fn find_all(file: &[u8]) -> Vec<Self> {
        let starts = file
            .windows(NOTE.len())
            .enumerate()
            .filter(|(_, window)| *window == NOTE);
        starts
            .filter_map(|(at, _)| {
                let text = &file[at + NOTE.len()..];
                let end = text.iter().position(|byte| *byte == b'\n')?;
                serde_json::from_slice(&text[..end]).ok()
            })
            .collect()
    }
}

/// How a note is wrapped so that the file stays valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Container {
    /// MP4 and MOV: a `free` box.
    IsoMedia,
    /// WebM and MKV: a `Void` element.
    Ebml,
    /// Anything else: plain bytes after the end.
    Other,
}

impl Container {
    fn of(head: &[u8]) -> Self {
        match head {
            [_, _, _, _, b'f', b't', b'y', b'p', ..] => Self::IsoMedia,
            [0x1A, 0x45, 0xDF, 0xA3, ..] => Self::Ebml,
            _ => Self::Other,
        }
    }

    fn content_type(self) -> &'static str {
        match self {
            Self::IsoMedia => "video/mp4",
            Self::Ebml => "video/webm",
            Self::Other => "application/octet-stream",
        }
    }

    /// Header of an element holding `content` bytes.
    fn header(self, content: u64) -> Vec<u8> {
        match self {
            Self::IsoMedia => match u32::try_from(content + 8) {
                Ok(size) => [&size.to_be_bytes()[..], b"free"].concat(),
                Err(_) => [
                    &1u32.to_be_bytes()[..],
                    b"free",
                    &(content + 16).to_be_bytes(),
                ]
                .concat(),
            },
            Self::Ebml => [&[0xEC][..], &((1 << 56) | content).to_be_bytes()].concat(),
            Self::Other => Vec::new(),
        }
    }
}

/// A fetched input, kept on disk under its hash.
#[derive(Clone, Debug)]
pub(crate) struct Input {
    path: PathBuf,
    bytes: u64,
    sha256: String,
    container: Container,
}

/// Why an input could not be fetched, in words for the vendor's error text.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FetchError {
    #[error("request failed")]
    Request(#[from] reqwest::Error),
    #[error("the file is empty")]
    Empty,
    #[error("cannot store the file")]
    Store(#[from] std::io::Error),
}

struct StoredResult {
    vendor: Vendor,
    subject: String,
    pieces: Vec<Piece>,
    content_type: &'static str,
    expires_at: i64,
}

/// Fetched inputs and the results made from them.
pub(crate) struct Store {
    folder: PathBuf,
    results: Mutex<HashMap<String, Arc<StoredResult>>>,
}

impl Store {
    pub(crate) fn open(folder: PathBuf) -> std::io::Result<Self> {
        std::fs::create_dir_all(&folder)?;
        Ok(Self {
            folder,
            results: Mutex::default(),
        })
    }

    pub(crate) fn clear(&self) {
        self.results
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
    }

    /// Downloads a URL.
    pub(crate) async fn fetch(
        &self,
        client: &reqwest::Client,
        url: &str,
    ) -> Result<Input, FetchError> {
        let partial = self.folder.join(format!("{}.part", uuid::Uuid::new_v4()));
        let fetched = self.fetch_to(client, url, &partial).await;
        if fetched.is_err() {
            // May not exist yet; what matters is that it does not stay.
            let _ = tokio::fs::remove_file(&partial).await;
        }
        fetched
    }

    async fn fetch_to(
        &self,
        client: &reqwest::Client,
        url: &str,
        partial: &PathBuf,
    ) -> Result<Input, FetchError> {
        let response = client.get(url).send().await?.error_for_status()?;
        let mut file = File::create(partial).await?;
        let (mut hash, mut bytes, mut head) = (Sha256::new(), 0u64, Vec::new());
        let mut body = response.bytes_stream();
        while let Some(chunk) = body.next().await {
            let chunk = chunk?;
            hash.update(&chunk);
            bytes += chunk.len() as u64;
            if head.len() < 12 {
                head.extend_from_slice(&chunk[..chunk.len().min(12)]);
            }
            file.write_all(&chunk).await?;
        }
        file.flush().await?;
        if bytes == 0 {
            return Err(FetchError::Empty);
        }
        let sha256 = hex::encode(hash.finalize());
        let path = self.folder.join(&sha256);
        tokio::fs::rename(partial, &path).await?;
        Ok(Input {
            path,
            bytes,
            sha256,
            container: Container::of(&head),
        })
    }

    /// Makes the result of a work; it can be downloaded from then on.
    pub(crate) fn publish(
        &self,
        base: &str,
        work: &Work,
        input: &Input,
        min_bytes: u64,
        ttl_ms: u64,
    ) -> ResultFile {
        let note = Provenance {
            vendor: work.vendor,
            work: work.id.clone(),
            input_sha256: input.sha256.clone(),
        };
        // The type has no map keys or floats that could fail to serialise.
        let mut note = [
            NOTE,
            serde_json::to_string(&note).unwrap_or_default().as_bytes(),
            b"\n",
        ]
        .concat();
        let padding = min_bytes.saturating_sub(input.bytes + note.len() as u64 + 16);
        let mut tail = input.container.header(note.len() as u64 + padding);
        tail.append(&mut note);
        let bytes = input.bytes + tail.len() as u64 + padding;
        let expires_at = now_ms().saturating_add_unsigned(ttl_ms);
        let pieces = vec![
            Piece::File {
                path: input.path.clone(),
                from: 0,
                bytes: input.bytes,
            },
            Piece::Bytes(tail.into()),
            Piece::Zeros(padding),
        ];
        let token = uuid::Uuid::new_v4().simple().to_string();
        let name = work.marker.as_deref().unwrap_or(&work.id);
        let name: String = name
            .chars()
            .map(|c| {
                if c.is_ascii_alphanumeric() || c == '-' {
                    c
                } else {
                    '_'
                }
            })
            .collect();
        let extension = if input.container == Container::Ebml {
            "webm"
        } else {
            "mp4"
        };
        let url = format!(
            "{base}/results/{token}/{name}.{extension}?expires={}",
            expires_at / 1000
        );
        let content_type = input.container.content_type();
        let stored = StoredResult {
            vendor: work.vendor,
            subject: work.subject(),
            pieces,
            content_type,
            expires_at,
        };
        self.results
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(token, Arc::new(stored));
        ResultFile {
            url,
            expires_at,
            input_sha256: input.sha256.clone(),
            bytes,
        }
    }

    fn result(&self, token: &str) -> Option<Arc<StoredResult>> {
        self.results
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(token)
            .cloned()
    }
}

/// Size and life of a result: a fault's, or the settings'.
pub(crate) fn result_limits(faults: &[Fault], min_bytes: u64, ttl_ms: u64) -> (u64, u64) {
    faults
        .iter()
        .fold((min_bytes, ttl_ms), |(size, ttl), fault| match fault {
            Fault::ResultSize { bytes } => (*bytes, ttl),
            Fault::ResultTtl { ms } => (size, *ms),
            _ => (size, ttl),
        })
}

#[derive(Clone, Debug)]
enum Piece {
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
            return Err(std::io::Error::other(Hangup));
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
    fn box_headers_grow_to_64_bits_when_needed() {
        assert_eq!(
            Container::IsoMedia.header(8),
            [&[0, 0, 0, 16][..], b"free"].concat()
        );
        let long = Container::IsoMedia.header(u64::from(u32::MAX));
        assert_eq!(
            long,
            [
                &[0, 0, 0, 1][..],
                b"free",
                &(u64::from(u32::MAX) + 16).to_be_bytes()
            ]
            .concat()
        );
        assert_eq!(Container::Ebml.header(3), [0xEC, 1, 0, 0, 0, 0, 0, 0, 3]);
    }

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

    #[test]
    fn samples_are_what_their_names_say() {
        assert_eq!(
            Container::of(sample("talk.mp4").unwrap().bytes),
            Container::IsoMedia
        );
        assert_eq!(
            Container::of(sample("clip.webm").unwrap().bytes),
            Container::Ebml
        );
        assert!(SAMPLES.iter().all(|sample| sample.bytes.len() < 100_000));
    }
}
