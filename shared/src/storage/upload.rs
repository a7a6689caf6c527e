//! Streams of any length into an object, in constant memory.
//!
//! At most two parts are in memory: one on its way to the store while the next is filled. A part is sent from the
//! memory it was collected in, also when it is sent again.

use super::request::{body_of, check_key};
use super::{Storage, StorageError};
use crate::crash::{self, Point};
use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt, future};
use rusoto_s3::{
    CompleteMultipartUploadRequest, CompletedMultipartUpload, CompletedPart,
    CreateMultipartUploadRequest, S3, UploadPartRequest,
};
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Size of a part; shorter streams are stored with one request. S3 wants 5 MiB or more.
pub(super) const PART_BYTES: usize = 8 << 20;
/// S3's limit: <https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html>
const MAX_PARTS: usize = 10_000;

/// Why a stream could not be stored.
#[derive(Debug, thiserror::Error)]
pub enum UploadError<E> {
    /// The stream ended with an error.
    #[error("the stream to store broke off")]
    Source(#[source] E),
    /// The store failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// A multipart upload under way. Dropped before it is completed, it has the store throw the parts away.
struct Upload {
    storage: Storage,
    key: String,
    id: String,
    open: bool,
    /// Parts under way.
    sending: TaskTracker,
    /// Ends them.
    cut_off: CancellationToken,
}

impl Storage {
    /// Stores a stream and returns its length in bytes. The object appears whole or not at all.
    ///
    /// When it fails, or the future is dropped, the parts sent so far are deleted in the background; if the process
    /// dies they stay, for the producer's retention or the bucket's lifecycle rule (`AbortIncompleteMultipartUpload`) to remove.
    ///
    /// # Errors
    /// [`UploadError`]. Requests to the store are retried, the stream cannot be.
    pub async fn put_stream<S, E>(
        &self,
        key: &str,
        content_type: &str,
        stream: S,
    ) -> Result<u64, UploadError<E>>
    where
        S: Stream<Item = Result<Bytes, E>> + Unpin,
    {
        check_key(key)?;
        let mut parts = Parts {
            stream,
            rest: Bytes::new(),
        };
        let first = parts.next().await?;
        if first.len() < PART_BYTES {
            let bytes = first.len() as u64;
            self.put(key, content_type, first).await?;
            return Ok(bytes);
        }
        let mut upload = Upload::create(self.clone(), key, content_type).await?;
        crash::point(Point::MultipartBegun);
        let mut done = Vec::new();
        let mut bytes = 0;
        let mut part = first;
        while !part.is_empty() {
            if done.len() == MAX_PARTS {
                let limit = (MAX_PARTS * PART_BYTES) as u64;
                let object = self.name(key);
                return Err(StorageError::TooLarge {
                    operation: "put",
                    object,
                    bytes: bytes + 1,
                    limit,
                }
                .into());
            }
            bytes += part.len() as u64;
            let number = done.len() as i64 + 1;
            let sent = async {
                upload
                    .send(number, part)
                    .await
                    .map_err(UploadError::Storage)
            };
            let (sent, next) = future::try_join(sent, parts.next()).await?;
            done.push(sent);
            part = next;
        }
        crash::point(Point::PartsSent);
        upload.complete(done, bytes).await?;
        Ok(bytes)
    }
}

/// Cuts a stream into parts of [`PART_BYTES`]; only the last one is shorter, and after it come empty ones.
struct Parts<S> {
    stream: S,
    rest: Bytes,
}

impl<S: Stream<Item = Result<Bytes, E>> + Unpin, E> Parts<S> {
    async fn next(&mut self) -> Result<Bytes, UploadError<E>> {
        let mut part = BytesMut::with_capacity(PART_BYTES);
        loop {
            let take = self.rest.len().min(PART_BYTES - part.len());
            // Copied rather than kept: a small piece can hold on to the large buffer it was read into.
            part.extend_from_slice(&self.rest.split_to(take));
            if part.len() == PART_BYTES {
                return Ok(part.freeze());
            }
            match self.stream.next().await {
                Some(piece) => self.rest = piece.map_err(UploadError::Source)?,
                None => return Ok(part.freeze()),
            }
        }
    }
}

impl Upload {
    async fn create(storage: Storage, key: &str, content_type: &str) -> Result<Self, StorageError> {
        let operation = "create upload";
        let answer = storage.run(operation, key, || {
            storage
                .shared
                .client
                .create_multipart_upload(CreateMultipartUploadRequest {
                    bucket: storage.bucket().to_owned(),
                    key: key.to_owned(),
                    content_type: Some(content_type.to_owned()),
                    ..CreateMultipartUploadRequest::default()
                })
        });
        let id = answer
            .await?
            .upload_id
            .ok_or_else(|| StorageError::Answer {
                operation,
                object: storage.name(key),
                missing: "an UploadId",
            })?;
        Ok(Self {
            storage,
            key: key.to_owned(),
            id,
            open: true,
            sending: TaskTracker::new(),
            cut_off: CancellationToken::new(),
        })
    }

    /// Sends a part in a task of its own: a part that is under way must end before the upload is aborted, or the store may keep
    /// it for ever ("in-progress part uploads might or might not succeed", S3 API reference, AbortMultipartUpload).
    async fn send(&self, number: i64, part: Bytes) -> Result<CompletedPart, StorageError> {
        let (storage, key, id) = (self.storage.clone(), self.key.clone(), self.id.clone());
        let object = storage.name(&key);
        let cut_off = self.cut_off.clone();
        let sent = async move {
            cut_off
                .run_until_cancelled(send_part(&storage, &key, &id, number, part))
                .await
        };
        let ended = self.sending.spawn(sent).await.ok().flatten();
        ended.unwrap_or(Err(StorageError::Answer {
            operation: PUT_PART,
            object,
            missing: "an end",
        }))
    }

    async fn complete(
        &mut self,
        parts: Vec<CompletedPart>,
        bytes: u64,
    ) -> Result<(), StorageError> {
        let answer = self.storage.run("complete upload", &self.key, || {
            self.storage
                .shared
                .client
                .complete_multipart_upload(CompleteMultipartUploadRequest {
                    bucket: self.storage.bucket().to_owned(),
                    key: self.key.clone(),
                    upload_id: self.id.clone(),
                    multipart_upload: Some(CompletedMultipartUpload {
                        parts: Some(parts.clone()),
                    }),
                    ..CompleteMultipartUploadRequest::default()
                })
        });
        match answer.await {
            Ok(_) => {}
            // A completion whose answer was lost has used the upload up: then the object stands.
            Err(StorageError::Refused { ref code, .. })
                if code == "NoSuchUpload" && self.is_stored(bytes).await? => {}
            Err(error) => return Err(error),
        }
        self.open = false;
        Ok(())
    }

    async fn is_stored(&self, bytes: u64) -> Result<bool, StorageError> {
        Ok(self
            .storage
            .head(&self.key)
            .await?
            .is_some_and(|head| head.bytes == bytes))
    }
}

const PUT_PART: &str = "put part";
/// How long parts under way may take to end before the upload they belong to is aborted.
const PARTS_GRACE: Duration = Duration::from_secs(5);

async fn send_part(
    storage: &Storage,
    key: &str,
    id: &str,
    number: i64,
    part: Bytes,
) -> Result<CompletedPart, StorageError> {
    let answer = storage.run(PUT_PART, key, || {
        storage.shared.client.upload_part(UploadPartRequest {
            bucket: storage.bucket().to_owned(),
            key: key.to_owned(),
            upload_id: id.to_owned(),
            part_number: number,
            body: Some(body_of(part.clone())),
            ..UploadPartRequest::default()
        })
    });
    let e_tag = answer.await?.e_tag.ok_or_else(|| StorageError::Answer {
        operation: PUT_PART,
        object: storage.name(key),
        missing: "an ETag",
    })?;
    Ok(CompletedPart {
        e_tag: Some(e_tag),
        part_number: Some(number),
    })
}

impl Drop for Upload {
    fn drop(&mut self) {
        if !self.open {
            return;
        }
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return;
        };
        let (storage, key, id) = (
            self.storage.clone(),
            std::mem::take(&mut self.key),
            std::mem::take(&mut self.id),
        );
        let (sending, cut_off) = (self.sending.clone(), self.cut_off.clone().drop_guard());
        sending.close();
        runtime.spawn(async move {
            // A part that hangs is cut off: waiting for its time-out would keep the others stored.
            let _ = tokio::time::timeout(PARTS_GRACE, sending.wait()).await;
            drop(cut_off);
            if let Err(error) = storage.abort_upload(&key, &id).await {
                tracing::warn!(
                    key,
                    error = &error as &dyn std::error::Error,
                    "the parts of an abandoned upload could not be deleted"
                );
            }
        });
    }
}
