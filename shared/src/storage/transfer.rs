//! From a vendor's or user's URL into the bucket, in constant memory.
//!
//! The object appears only when the whole file came and is what it should be. Retrying, and asking the vendor for a
//! fresh URL, is the caller's: [`TransferError::class`] says which.

use super::boxes::{Boxes, Flaw};
use super::fetch::{Download, Fetcher};
use super::{Key, Storage, StorageError, UploadError};
use crate::crash::{self, Point};
use crate::domain::media::{Container, MediaKind};
use crate::telemetry::trace;
use bytes::Bytes;
use futures::{Stream, stream};
use std::time::Duration;
use tracing::Instrument as _;

/// What was stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Size in bytes.
    pub bytes: u64,
    /// What the file is, by its own first bytes.
    pub container: Container,
    /// The MIME type it was stored with.
    pub content_type: &'static str,
}

/// What a caller can do about a failed transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransferClass {
    /// The URL is not served (any more): ask for a fresh one.
    Gone,
    /// The same transfer may succeed later.
    Transient,
    /// The file or the URL can never be taken.
    Invalid,
    /// Our own store refuses: a person must look.
    Storage,
}

/// Why a transfer failed.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    /// The URL cannot be used.
    #[error("the URL {0}")]
    Url(&'static str),
    /// The host's addresses are not public.
    #[error("{host} has no public address")]
    Forbidden {
        /// The host.
        host: String,
    },
    /// No connection, or no answer on it.
    #[error("{host} cannot be reached")]
    Unreachable {
        /// The host.
        host: String,
        /// The cause.
        source: reqwest::Error,
    },
    /// An answer other than 200.
    #[error("{host} answered HTTP {status}")]
    Status {
        /// The host.
        host: String,
        /// HTTP status.
        status: u16,
    },
    /// The file is larger than allowed.
    #[error("the file at {host} is larger than {limit} bytes")]
    TooLarge {
        /// The host.
        host: String,
        /// The largest size.
        limit: u64,
    },
    /// The body broke off, or was shorter than announced.
    #[error("the file from {host} broke off after {received} bytes")]
    Broken {
        /// The host.
        host: String,
        /// Bytes that came.
        received: u64,
        /// The cause.
        source: reqwest::Error,
    },
    /// Nothing more came.
    #[error("the file from {host} stalled for {after:?} after {received} bytes")]
    Stalled {
        /// The host.
        host: String,
        /// Bytes that came.
        received: u64,
        /// How long was waited.
        after: Duration,
    },
    /// The file did not come whole in the time for all of it.
    #[error("only {received} bytes of the file from {host} came within {after:?}")]
    TooSlow {
        /// The host.
        host: String,
        /// Bytes that came.
        received: u64,
        /// The time for the whole transfer.
        after: Duration,
    },
    /// The answer was 200, the content is something else: an error page for example.
    #[error("{host} sent no {expected} but {}", found.map_or("something unknown", Container::extension))]
    NotMedia {
        /// The host.
        host: String,
        /// What was expected.
        expected: MediaKind,
        /// What it is, as far as known.
        found: Option<Container>,
    },
    /// The file ends within a box, although the connection ended well.
    #[error("the file from {host} is cut short")]
    CutShort {
        /// The host.
        host: String,
    },
    /// The file lacks a part without which it cannot be played.
    #[error("the file from {host} has no `{missing}` box")]
    Incomplete {
        /// The host.
        host: String,
        /// The type of the box.
        missing: &'static str,
    },
    /// The store failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl TransferError {
    /// What to do about it.
    #[must_use]
    pub fn class(&self) -> TransferClass {
        match self {
            Self::Unreachable { .. }
            | Self::Broken { .. }
            | Self::Stalled { .. }
            | Self::TooSlow { .. }
            | Self::CutShort { .. } => TransferClass::Transient,
            Self::Status {
                status: 408 | 425 | 429 | 500..,
                ..
            } => TransferClass::Transient,
            // Expired signatures are 403 at most stores, 400 or 401 at some.
            Self::Status {
                status: 400..500, ..
            } => TransferClass::Gone,
            Self::Url(_)
            | Self::Forbidden { .. }
            | Self::Status { .. }
            | Self::TooLarge { .. }
            | Self::NotMedia { .. }
            | Self::Incomplete { .. } => TransferClass::Invalid,
            Self::Storage(error) if error.is_transient() => TransferClass::Transient,
            Self::Storage(_) => TransferClass::Storage,
        }
    }
}

impl From<UploadError<Self>> for TransferError {
    fn from(error: UploadError<Self>) -> Self {
        match error {
            UploadError::Source(error) => error,
            UploadError::Storage(error) => Self::Storage(error),
        }
    }
}

/// Streams the file at `url` to `key`. Dropping the future leaves no object behind.
///
/// # Errors
/// [`TransferError`]; then an object that was there before is unchanged.
pub async fn transfer(
    fetcher: &Fetcher,
    storage: &Storage,
    url: &str,
    key: &Key,
    kind: MediaKind,
) -> Result<Stored, TransferError> {
    let span = trace::transfer();
    let moved = async {
        let download = fetcher.fetch(url, kind).await?;
        let container = download.container();
        let content_type = container.content_type();
        let body = Box::pin(checked(download));
        let bytes = storage
            .put_stream(&key.to_string(), content_type, body)
            .await?;
        Ok::<_, TransferError>((container, content_type, bytes))
    };
    let (container, content_type, bytes) = moved.instrument(span.clone()).await?;
    span.record("bytes", bytes);
    drop(span);
    crash::point(Point::FileTransferred);
    Ok(Stored {
        bytes,
        container,
        content_type,
    })
}

/// The bytes of a download, ending in an error when they turn out not to be a whole file.
fn checked(download: Download) -> impl Stream<Item = Result<Bytes, TransferError>> {
    let boxes = download.container().has_boxes().then(Boxes::default);
    stream::try_unfold((download, boxes), |(mut download, mut boxes)| async move {
        let Some(bytes) = download.next().await? else {
            let verdict = boxes.map_or(Ok(()), |boxes| boxes.finish());
            let host = download.host().to_owned();
            return match verdict {
                Ok(()) => Ok(None),
                Err(Flaw::CutShort) => Err(TransferError::CutShort { host }),
                Err(Flaw::Missing(missing)) => Err(TransferError::Incomplete { host, missing }),
            };
        };
        if let Some(boxes) = &mut boxes {
            boxes.feed(&bytes);
        }
        Ok(Some((bytes, (download, boxes))))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_say_what_to_do() {
        let class = |status| {
            TransferError::Status {
                host: "h".to_owned(),
                status,
            }
            .class()
        };
        for status in [400, 401, 403, 404, 410, 451] {
            assert_eq!(class(status), TransferClass::Gone, "{status}");
        }
        for status in [408, 425, 429, 500, 502, 503, 504, 520] {
            assert_eq!(class(status), TransferClass::Transient, "{status}");
        }
        for status in [201, 204, 206, 302, 304] {
            assert_eq!(class(status), TransferClass::Invalid, "{status}");
        }
    }

    #[test]
    fn trouble_of_the_store_is_transient_or_for_a_person() {
        let refused = |status| {
            let (operation, object, code) = ("put", "s3://b/k".to_owned(), String::new());
            TransferError::Storage(StorageError::Refused {
                operation,
                object,
                status,
                code,
            })
            .class()
        };
        assert_eq!(refused(503), TransferClass::Transient);
        assert_eq!(refused(403), TransferClass::Storage);
    }
}
