//! Files of this machine: what they are, and their way into the bucket.

use std::path::{Path, PathBuf};

use futures::TryStreamExt as _;
use shared::domain::fields::FieldCode;
use shared::storage::{Container, Key, SNIFF_BYTES, Storage};
use shared::telemetry::chain;
use tokio::fs::File;
use tokio::io::AsyncReadExt as _;
use tokio_util::io::ReaderStream;

use super::display::Display;

/// What is read from a file at a time.
const READ_BYTES: usize = 256 << 10;

/// What a local file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LocalFile {
    pub(super) bytes: u64,
    pub(super) container: Container,
}

/// What a file is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    /// The video.
    Video,
    /// An audio file.
    Audio,
}

/// A file and the object it becomes.
#[derive(Debug)]
pub(super) struct Upload {
    pub(super) path: PathBuf,
    pub(super) key: Key,
    pub(super) bytes: u64,
    /// Something is wrong with the file: it is never sent.
    pub(super) faulty: bool,
}

/// The path a location means; none for a URL. An empty text is left to be refused as no URL.
pub(super) fn path_of(location: &str) -> Option<PathBuf> {
    match location.strip_prefix("file:") {
        Some(path) => Some(path.into()),
        None if location.is_empty() || location.contains("://") => None,
        None => Some(location.into()),
    }
}

/// What a file is, if it can be read at all.
pub(super) async fn inspect(path: &Path) -> Result<LocalFile, (FieldCode, String)> {
    let unreadable = |error: std::io::Error| {
        let message = format!("{}: cannot be read: {error}", path.display());
        (FieldCode::Unmatched, message)
    };
    // Asked before it is opened: opening a pipe would wait for its other end.
    let metadata = tokio::fs::metadata(path).await.map_err(unreadable)?;
    if !metadata.is_file() {
        let message = format!("{}: is not a file", path.display());
        return Err((FieldCode::Malformed, message));
    }
    if metadata.len() == 0 {
        return Err((FieldCode::Empty, format!("{}: is empty", path.display())));
    }
    let mut start = Vec::new();
    let file = File::open(path).await.map_err(unreadable)?;
    file.take(SNIFF_BYTES as u64)
        .read_to_end(&mut start)
        .await
        .map_err(unreadable)?;
    match Container::sniff(&start) {
        Some(container) => Ok(LocalFile {
            bytes: metadata.len(),
            container,
        }),
        None => {
            let message = format!("{}: is not a known media format", path.display());
            Err((FieldCode::Malformed, message))
        }
    }
}

impl Upload {
    /// Streams the file into the bucket.
    pub(super) async fn send(&self, storage: &Storage, display: &Display) -> Result<(), String> {
        let name = self.path.display();
        let file = File::open(&self.path)
            .await
            .map_err(|error| format!("{name}: cannot be read: {error}"))?;
        let bar = display.upload(&self.path, self.bytes);
        let pieces = ReaderStream::with_capacity(file, READ_BYTES)
            .inspect_ok(|piece| bar.inc(piece.len() as u64));
        let key = self.key.to_string();
        let sent = storage
            .put_stream(&key, self.key.content_type(), pieces)
            .await;
        display.uploaded(&bar);
        match sent {
            Ok(bytes) if bytes == self.bytes => Ok(()),
            Ok(_) => Err(format!("{name}: changed while it was uploaded")),
            Err(error) => Err(format!("{name}: {}", chain(&error))),
        }
    }
}

/// The text of a file; `-` is standard input.
pub(super) async fn read_text(file: &str) -> Result<String, String> {
    let text = if file == "-" {
        tokio::task::spawn_blocking(|| std::io::read_to_string(std::io::stdin()))
            .await
            .unwrap_or_else(|error| Err(std::io::Error::other(error)))
    } else {
        tokio::fs::read_to_string(file).await
    };
    text.map_err(|error| format!("{file}: cannot be read: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locations_are_urls_or_paths() {
        for (location, path) in [
            ("talk.mp4", Some("talk.mp4")),
            ("/tmp/talk.mp4", Some("/tmp/talk.mp4")),
            ("file:my talk.mp4", Some("my talk.mp4")),
            ("file:///tmp/talk.mp4", Some("///tmp/talk.mp4")),
            ("https://a.example/talk.mp4", None),
            ("s3://bucket/talk.mp4", None),
            ("", None),
        ] {
            assert_eq!(path_of(location), path.map(PathBuf::from), "{location}");
        }
    }

    #[tokio::test]
    async fn what_is_no_media_file_is_told() {
        let missing = inspect(Path::new("no-such-file.mp4")).await.unwrap_err();
        assert_eq!(missing.0, FieldCode::Unmatched);
        let folder = inspect(Path::new(env!("CARGO_MANIFEST_DIR"))).await;
        assert_eq!(folder.unwrap_err().0, FieldCode::Malformed);
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
        let (code, message) = inspect(&source).await.unwrap_err();
        assert_eq!(code, FieldCode::Malformed);
        assert!(
            message.ends_with("is not a known media format"),
            "{message}"
        );
    }
}
