//! Fetched inputs on disk and the results made from them. Downloads are answered by [`super::send`].

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use futures::StreamExt;
use sha2::{Digest, Sha256};
use tokio::fs::File;
use tokio::io::AsyncWriteExt;

use super::send::Piece;
use super::{NOTE, Provenance};
use crate::fault::Fault;
use crate::truth::{ResultFile, Vendor, Work, now_ms};

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

/// A result as the media server sends it.
pub(super) struct StoredResult {
    pub(super) vendor: Vendor,
    pub(super) subject: String,
    pub(super) pieces: Vec<Piece>,
    pub(super) content_type: &'static str,
    pub(super) expires_at: i64,
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
        partial: &Path,
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
        let padding = min_bytes.saturating_sub(input.bytes + note.len() as u64);
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
        let name = file_name(work, input.container);
        let url = format!(
            "{base}/results/{token}/{name}?expires={}",
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

    pub(super) fn result(&self, token: &str) -> Option<Arc<StoredResult>> {
        self.results
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(token)
            .cloned()
    }
}

/// Name of a result, fit for a URL path.
fn file_name(work: &Work, container: Container) -> String {
    let name = work.marker.as_deref().unwrap_or(&work.id);
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-';
    let name = name.replace(|c| !plain(c), "_");
    let extension = match container {
        Container::Ebml => "webm",
        _ => "mp4",
    };
    format!("{name}.{extension}")
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::{SAMPLES, sample};

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
