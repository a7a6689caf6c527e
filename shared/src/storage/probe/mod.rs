//! What a media file is and how long it lasts, found with a few small reads wherever it lies.
//!
//! Reads at most a few hundred kilobytes and keeps no more, whatever the file says about itself: it may be hostile. The
//! parsers are our own: the crates that read MP4 want a whole `moov` in memory or a seekable reader that blocks, and none
//! reads all the formats that the vendors take. Must not decide what a limit is: `domain::intake` does.

mod audio;
mod ebml;
mod mp4;
mod riff;
mod sparse;
#[cfg(test)]
mod tests;

use std::path::Path;

use bytes::Bytes;
use futures::TryStreamExt as _;
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};

use super::fetch::Part;
use super::{Fetcher, Storage, StorageError, TransferClass, TransferError};
use crate::domain::fields::FieldCode;
use crate::domain::media::{Container, MediaFacts, MediaKind, SNIFF_BYTES, is_text};
use sparse::{Sparse, Stop};

/// The first read: the heads of most files are shorter.
const FIRST_BYTES: usize = 64 << 10;
/// Each further read.
const NEXT_BYTES: usize = 32 << 10;
/// How many reads a file is worth.
const MAX_READS: usize = 12;
/// What is read of a file at most.
const MAX_BYTES: usize = FIRST_BYTES + (MAX_READS - 1) * NEXT_BYTES;

/// Where a file lies.
#[derive(Clone, Copy)]
pub enum Source<'a> {
    /// In our bucket.
    Object(&'a Storage, &'a str),
    /// At a URL, which is asked by the rules of downloads.
    Url(&'a Fetcher, &'a str),
    /// On this machine.
    File(&'a Path),
}

/// How much of a file is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// Its first bytes: is it there, and is it media at all.
    Beginning,
    /// As much as tells its duration, within bounds.
    Duration,
}

/// Why nothing is known of a file.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// There is no such object.
    #[error("names an object that does not exist")]
    Missing,
    /// It has no bytes.
    #[error("is an empty file")]
    Empty,
    /// It is a text.
    #[error("is a text, such as an error page, and no {0}")]
    Text(MediaKind),
    /// No player can play it.
    #[error("{0}")]
    Broken(&'static str),
    /// It cannot be read from this machine.
    #[error("cannot be read: {0}")]
    File(std::io::Error),
    /// It could not be fetched.
    #[error(transparent)]
    Transfer(#[from] TransferError),
    /// Our store did not give it.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl ProbeError {
    /// What is wrong with the file or its address, if that is what it was; none where the same look may succeed later.
    #[must_use]
    pub fn fault(&self) -> Option<(FieldCode, String)> {
        let code = match self {
            Self::Missing | Self::File(_) => FieldCode::Unmatched,
            Self::Empty => FieldCode::Empty,
            Self::Text(_) | Self::Broken(_) => FieldCode::Malformed,
            Self::Storage(StorageError::Key { .. }) => {
                return Some((
                    FieldCode::Malformed,
                    "is not a usable object key".to_owned(),
                ));
            }
            Self::Storage(_) => return None,
            Self::Transfer(error) => {
                let code = match error.class() {
                    TransferClass::Gone => FieldCode::Unmatched,
                    TransferClass::Invalid => FieldCode::Malformed,
                    TransferClass::Transient | TransferClass::Storage => return None,
                };
                return Some((code, format!("cannot be fetched: {error}")));
            }
        };
        Some((code, self.to_string()))
    }
}

/// What a parser found.
#[derive(Debug, PartialEq)]
struct Timing {
    seconds: f64,
    picture: Option<(u32, u32)>,
}

impl Timing {
    const fn of(seconds: f64) -> Self {
        Self {
            seconds,
            picture: None,
        }
    }
}

/// Looks at a file.
///
/// # Errors
/// [`ProbeError`]: there is nothing that could be media, or it could not be looked at. Nothing is retried but requests to
/// our own store. A format that we do not know is no error: the facts then say little.
pub async fn probe(
    source: Source<'_>,
    kind: MediaKind,
    depth: Depth,
) -> Result<MediaFacts, ProbeError> {
    let mut file = Sparse::new(size_of(source).await?);
    let first = match depth {
        Depth::Beginning => SNIFF_BYTES,
        Depth::Duration => FIRST_BYTES,
    };
    if file.total == Some(0) {
        return Err(ProbeError::Empty);
    }
    let start = read(source, &mut file, 0, first).await?;
    if start.is_empty() {
        return Err(ProbeError::Empty);
    }
    let start = &start[..start.len().min(SNIFF_BYTES)];
    let container = Container::sniff(start);
    if container.is_none() && is_text(start) {
        return Err(ProbeError::Text(kind));
    }
    let mut facts = MediaFacts {
        container,
        ..MediaFacts::default()
    };
    if let (Some(container), Depth::Duration) = (container, depth) {
        let mut reads = 1;
        let timing = loop {
            match timing(container, &file) {
                Err(Stop::Need { offset, length }) if reads < MAX_READS => {
                    let wanted = length.max(NEXT_BYTES);
                    let bytes = read(source, &mut file, offset, wanted).await?;
                    reads += 1;
                    if bytes.len() < length {
                        break Err(Stop::Unknown);
                    }
                }
                other => break other,
            }
        };
        match timing {
            Ok(timing) => {
                facts.seconds = Some(timing.seconds).filter(|s| s.is_finite() && *s > 0.0);
                facts.picture = timing.picture;
            }
            Err(Stop::Broken(why)) => return Err(ProbeError::Broken(why)),
            Err(Stop::Unknown | Stop::Need { .. }) => {}
        }
    }
    facts.bytes = file.total;
    Ok(facts)
}

/// What the parser of a format makes of the pieces that were read.
fn timing(container: Container, file: &Sparse) -> Result<Timing, Stop> {
    match container {
        Container::Mp4 | Container::Mov | Container::M4a => mp4::timing(file),
        Container::Webm | Container::Mkv => ebml::timing(file),
        Container::Avi => riff::avi(file),
        Container::Wav => riff::wav(file),
        Container::Mp3 => audio::mp3(file),
        Container::Flac => audio::flac(file),
        Container::Ogg | Container::Aac => Err(Stop::Unknown),
    }
}

/// The size, where a request of its own tells it.
async fn size_of(source: Source<'_>) -> Result<Option<u64>, ProbeError> {
    match source {
        Source::Object(storage, key) => match storage.head(key).await? {
            Some(head) => Ok(Some(head.bytes)),
            None => Err(ProbeError::Missing),
        },
        Source::Url(..) => Ok(None),
        Source::File(path) => {
            let metadata = tokio::fs::metadata(path).await.map_err(ProbeError::File)?;
            Ok(Some(metadata.len()))
        }
    }
}

/// Adds a stretch of up to `length` bytes to the pieces.
async fn read(
    source: Source<'_>,
    file: &mut Sparse,
    offset: u64,
    length: usize,
) -> Result<Bytes, ProbeError> {
    let bytes = match source {
        Source::Object(storage, key) => read_object(storage, key, file, offset, length).await?,
        Source::Url(fetcher, url) => {
            // A server without ranges is asked once: all that we would ever read comes with the first answer.
            let instead = if length < FIRST_BYTES && offset == 0 {
                length
            } else {
                MAX_BYTES
            };
            let Part { total, bytes } = fetcher.read_at(url, offset, length, instead).await?;
            file.total = file.total.or(total);
            bytes
        }
        Source::File(path) => {
            let read = async {
                let mut file = tokio::fs::File::open(path).await?;
                file.seek(std::io::SeekFrom::Start(offset)).await?;
                let mut bytes = Vec::new();
                file.take(length as u64).read_to_end(&mut bytes).await?;
                Ok(bytes)
            };
            read.await.map_err(ProbeError::File)?.into()
        }
    };
    file.add(offset, bytes.clone());
    Ok(bytes)
}

async fn read_object(
    storage: &Storage,
    key: &str,
    file: &Sparse,
    offset: u64,
    length: usize,
) -> Result<Bytes, ProbeError> {
    let end = offset.saturating_add(length as u64);
    let end = file.total.map_or(end, |total| end.min(total));
    if end <= offset {
        return Ok(Bytes::new());
    }
    let mut object = match storage.get(key, Some(offset..=end - 1)).await {
        Ok(object) => object,
        Err(StorageError::NotFound { .. }) => return Err(ProbeError::Missing),
        Err(error) => return Err(error.into()),
    };
    let mut bytes = Vec::new();
    while bytes.len() < length
        && let Some(more) = object.body.try_next().await?
    {
        bytes.extend_from_slice(&more);
    }
    bytes.truncate(length);
    Ok(bytes.into())
}
