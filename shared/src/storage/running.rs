//! Multipart uploads that are under way, ours or those of a process that died: listed, and ended. Whether one is abandoned is the
//! caller's to say.

use super::{Storage, StorageError};
use chrono::{DateTime, Utc};
use rusoto_s3::{AbortMultipartUploadRequest, ListMultipartUploadsRequest, MultipartUpload, S3};

/// An upload that was begun and neither completed nor aborted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Running {
    /// The key the object is to have.
    pub key: String,
    /// The store's id of the upload.
    pub id: String,
    /// When it was begun, by the store's clock.
    pub begun: DateTime<Utc>,
}

/// Where a listing goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Marker {
    key: Option<String>,
    id: Option<String>,
}

/// A piece of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunningPage {
    /// The uploads.
    pub uploads: Vec<Running>,
    /// Where to go on; none at the end.
    pub next: Option<Marker>,
}

impl Storage {
    /// The uploads under way whose keys begin so, up to 1000 at a time. Needs the right `s3:ListBucketMultipartUploads`.
    ///
    /// # Errors
    /// [`StorageError`].
    pub async fn running_uploads(
        &self,
        prefix: &str,
        after: Option<&Marker>,
    ) -> Result<RunningPage, StorageError> {
        let operation = "list uploads";
        let answer = self
            .run(operation, prefix, || {
                self.shared
                    .client
                    .list_multipart_uploads(ListMultipartUploadsRequest {
                        bucket: self.bucket().to_owned(),
                        prefix: Some(prefix.to_owned()),
                        key_marker: after.and_then(|after| after.key.clone()),
                        upload_id_marker: after.and_then(|after| after.id.clone()),
                        ..ListMultipartUploadsRequest::default()
                    })
            })
            .await?;
        let listed = answer.uploads.unwrap_or_default();
        let next = Marker {
            key: answer.next_key_marker,
            id: answer.next_upload_id_marker,
        };
        // A store that says there is more and not where would be asked for the same for ever.
        let goes_on = answer.is_truncated == Some(true)
            && (next.key.is_some() || next.id.is_some())
            && Some(&next) != after;
        Ok(RunningPage {
            // One without key, id or time cannot be told from one that has just begun.
            uploads: listed.into_iter().filter_map(running).collect(),
            next: goes_on.then_some(next),
        })
    }

    /// Ends an upload and has the store throw its parts away; that there is none any more is success too.
    ///
    /// # Errors
    /// [`StorageError`].
    pub async fn abort_upload(&self, key: &str, id: &str) -> Result<(), StorageError> {
        let aborted = self.run("abort upload", key, || {
            self.shared
                .client
                .abort_multipart_upload(AbortMultipartUploadRequest {
                    bucket: self.bucket().to_owned(),
                    key: key.to_owned(),
                    upload_id: id.to_owned(),
                    ..AbortMultipartUploadRequest::default()
                })
        });
        match aborted.await {
            Ok(_) => Ok(()),
            Err(StorageError::Refused { ref code, .. }) if code == "NoSuchUpload" => Ok(()),
            Err(StorageError::NotFound { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

fn running(upload: MultipartUpload) -> Option<Running> {
    Some(Running {
        key: upload.key?,
        id: upload.upload_id?,
        begun: upload.initiated?.parse().ok()?,
    })
}
