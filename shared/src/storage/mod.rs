//! Objects in an S3-compatible store, and transfers into it. The only user of rusoto.
//!
//! rusoto is no longer maintained: its operations, signing and presigning are used, its HTTP stack is not. Everything
//! outside this module sees keys, bytes and [`StorageError`] only. It must not decide what a failure means for a job.

mod boxes;
mod credentials;
mod dispatch;
mod error;
mod fetch;
mod key;
mod location;
mod probe;
mod request;
mod running;
mod transfer;
mod upload;

pub use crate::domain::media::{Container, MediaKind, SNIFF_BYTES};
pub use error::StorageError;
pub use fetch::{Download, Fetcher};
pub use key::Key;
pub use probe::{Depth, ProbeError, Source, probe};
pub use running::{Marker, Running, RunningPage};
pub use transfer::{Stored, TransferClass, TransferError, transfer};
pub use upload::UploadError;

use crate::config::storage::StorageConfig;
use bytes::Bytes;
use credentials::Credentials;
use dispatch::Dispatcher;
use futures::{Stream, TryStreamExt};
use location::Location;
use request::{body_of, check_key};
use rusoto_credential::ProvideAwsCredentials;
use rusoto_s3::util::{PreSignedRequest, PreSignedRequestOption};
use rusoto_s3::{
    CopyObjectRequest, DeleteObjectRequest, GetObjectRequest, HeadBucketRequest, HeadObjectRequest,
    PutObjectRequest, S3, S3Client,
};
use std::ops::RangeInclusive;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

/// The longest life S3 allows a presigned URL:
/// <https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-query-string-auth.html>
pub const PRESIGN_MAX: Duration = Duration::from_secs(7 * 24 * 3600);
/// The largest object S3 copies in one request:
/// <https://docs.aws.amazon.com/AmazonS3/latest/API/API_CopyObject.html>
const COPY_MAX_BYTES: u64 = 5 << 30;

/// The bucket. Cheap to clone; clones share their connections.
#[derive(Clone)]
pub struct Storage {
    shared: Arc<Shared>,
}

struct Shared {
    client: S3Client,
    credentials: Credentials,
    location: Location,
    request_timeout: Duration,
}

/// What the store knows of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// Size in bytes.
    pub bytes: u64,
    /// MIME type it was stored with.
    pub content_type: Option<String>,
    /// The store's mark of this version, in quotes.
    pub etag: Option<String>,
}

/// The bytes of an object, as they arrive.
pub type Body = Pin<Box<dyn Stream<Item = Result<Bytes, StorageError>> + Send>>;

/// An object that is being read.
pub struct Object {
    /// Size of what `body` gives, in bytes.
    pub bytes: u64,
    /// MIME type it was stored with.
    pub content_type: Option<String>,
    /// Its bytes; ends with an error when it breaks off or stalls.
    pub body: Body,
}

impl Storage {
    /// Prepares the client; connects to nothing.
    ///
    /// # Errors
    /// A setting that cannot be used is named by its environment variable.
    pub fn new(config: &StorageConfig) -> Result<Self, StorageError> {
        let location = Location::new(config)?;
        let credentials = Credentials::new(config)?;
        let dispatcher = Dispatcher::new(config.s3_connect_timeout, config.s3_idle_timeout)
            .map_err(StorageError::Client)?;
        let client = S3Client::new_with(dispatcher, credentials.clone(), location.region.clone());
        let request_timeout = config.s3_request_timeout;
        Ok(Self {
            shared: Arc::new(Shared {
                client,
                credentials,
                location,
                request_timeout,
            }),
        })
    }

    /// The bucket's name.
    #[must_use]
    pub fn bucket(&self) -> &str {
        &self.shared.location.bucket
    }

    /// The URL without signature under which an object is public, where it is.
    #[must_use]
    pub fn object_url(&self, key: &str) -> String {
        self.shared.location.object_url(key)
    }

    /// The URL under which everybody can read an object; none where objects are not public (`S3_PUBLIC_BASE_URL` is not set).
    #[must_use]
    pub fn public_url(&self, key: &str) -> Option<String> {
        self.shared.location.public_url(key)
    }

    /// The key a URL means when it lies in our bucket: `s3://bucket/key`, or an object's URL, presigned or not.
    #[must_use]
    pub fn key_of(&self, url: &str) -> Option<String> {
        self.shared.location.key_of(url)
    }

    /// Stores bytes that are in memory. Replaces an object of the same key.
    ///
    /// # Errors
    /// [`StorageError`], after a few tries when it is transient.
    pub async fn put(
        &self,
        key: &str,
        content_type: &str,
        bytes: Bytes,
    ) -> Result<(), StorageError> {
        check_key(key)?;
        self.run("put", key, || {
            self.shared.client.put_object(PutObjectRequest {
                bucket: self.bucket().to_owned(),
                key: key.to_owned(),
                content_type: Some(content_type.to_owned()),
                body: Some(body_of(bytes.clone())),
                ..PutObjectRequest::default()
            })
        })
        .await?;
        Ok(())
    }

    /// Size and type of an object; `None` when there is none.
    ///
    /// # Errors
    /// [`StorageError`]. Without the right to list the bucket, AWS answers 403 for a missing object.
    pub async fn head(&self, key: &str) -> Result<Option<Head>, StorageError> {
        check_key(key)?;
        let answer = self.run("head", key, || {
            self.shared.client.head_object(HeadObjectRequest {
                bucket: self.bucket().to_owned(),
                key: key.to_owned(),
                ..HeadObjectRequest::default()
            })
        });
        match answer.await {
            Ok(head) => Ok(Some(Head {
                bytes: self.size("head", key, head.content_length)?,
                content_type: head.content_type,
                etag: head.e_tag,
            })),
            Err(StorageError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Reads an object, or the bytes of `range` of it.
    ///
    /// # Errors
    /// [`StorageError::NotFound`] when there is none. Only the beginning is retried; `body` reports what comes later.
    pub async fn get(
        &self,
        key: &str,
        range: Option<RangeInclusive<u64>>,
    ) -> Result<Object, StorageError> {
        check_key(key)?;
        let range = range.map(|range| format!("bytes={}-{}", range.start(), range.end()));
        let answer = self
            .run("get", key, || {
                self.shared.client.get_object(GetObjectRequest {
                    bucket: self.bucket().to_owned(),
                    key: key.to_owned(),
                    range: range.clone(),
                    ..GetObjectRequest::default()
                })
            })
            .await?;
        let bytes = self.size("get", key, answer.content_length)?;
        let object = self.name(key);
        let body = answer.body.unwrap_or_else(|| body_of(Bytes::new()));
        let body = body.map_err(move |source| StorageError::Body {
            object: object.clone(),
            source,
        });
        Ok(Object {
            bytes,
            content_type: answer.content_type,
            body: Box::pin(body),
        })
    }

    /// Copies an object of up to 5 GiB inside the store, its type included.
    ///
    /// # Errors
    /// [`StorageError::NotFound`] when `from` does not exist, [`StorageError::TooLarge`].
    pub async fn copy(&self, from: &str, to: &str) -> Result<(), StorageError> {
        check_key(to)?;
        let operation = "copy";
        let head = self.head(from).await?;
        let head = head.ok_or_else(|| StorageError::NotFound {
            operation,
            object: self.name(from),
        })?;
        if head.bytes > COPY_MAX_BYTES {
            let object = self.name(from);
            return Err(StorageError::TooLarge {
                operation,
                object,
                bytes: head.bytes,
                limit: COPY_MAX_BYTES,
            });
        }
        let copy_source = rusoto_s3::util::encode_key(format!("{}/{from}", self.bucket()));
        self.run(operation, to, || {
            self.shared.client.copy_object(CopyObjectRequest {
                bucket: self.bucket().to_owned(),
                key: to.to_owned(),
                copy_source: copy_source.clone(),
                ..CopyObjectRequest::default()
            })
        })
        .await?;
        Ok(())
    }

    /// Deletes an object; that there is none is success too.
    ///
    /// # Errors
    /// [`StorageError`].
    pub async fn delete(&self, key: &str) -> Result<(), StorageError> {
        check_key(key)?;
        let answer = self.run("delete", key, || {
            self.shared.client.delete_object(DeleteObjectRequest {
                bucket: self.bucket().to_owned(),
                key: key.to_owned(),
                ..DeleteObjectRequest::default()
            })
        });
        match answer.await {
            Ok(_) | Err(StorageError::NotFound { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// A URL that lets anyone read the object for `life`. It is a secret; whether the object exists is not checked.
    ///
    /// # Errors
    /// [`StorageError::Life`] when `life` is under a second, over [`PRESIGN_MAX`], or longer than the credentials live.
    pub async fn presign(&self, key: &str, life: Duration) -> Result<String, StorageError> {
        self.presign_with(key, life, None).await
    }

    /// The same, with a name in the URL under which the object is to be saved (`response-content-disposition`, which is part of
    /// what is signed). Letters, digits and hyphens.
    ///
    /// # Errors
    /// Like [`Storage::presign`].
    pub async fn presign_named(
        &self,
        key: &str,
        life: Duration,
        name: &str,
    ) -> Result<String, StorageError> {
        let disposition = format!("inline; filename={name}");
        self.presign_with(key, life, Some(disposition)).await
    }

    async fn presign_with(
        &self,
        key: &str,
        life: Duration,
        disposition: Option<String>,
    ) -> Result<String, StorageError> {
        check_key(key)?;
        let credentials = self
            .shared
            .credentials
            .credentials()
            .await
            .map_err(StorageError::Credentials)?;
        let left = credentials
            .expires_at()
            .map(|end| (end - chrono::Utc::now()).to_std().unwrap_or_default());
        let most = left.unwrap_or(PRESIGN_MAX).min(PRESIGN_MAX);
        if life > most || life.as_secs() == 0 {
            return Err(StorageError::Life {
                object: self.name(key),
                asked: life,
                most,
            });
        }
        let request = GetObjectRequest {
            bucket: self.bucket().to_owned(),
            key: key.to_owned(),
            response_content_disposition: disposition,
            ..GetObjectRequest::default()
        };
        let option = PreSignedRequestOption { expires_in: life };
        Ok(request.get_presigned_url(&self.shared.location.region, &credentials, &option))
    }

    /// Whether the bucket answers, with one request; for readiness.
    ///
    /// # Errors
    /// [`StorageError`]: not reachable, no such bucket, or not ours to use.
    pub async fn check_bucket(&self) -> Result<(), StorageError> {
        let request = HeadBucketRequest {
            bucket: self.bucket().to_owned(),
            ..HeadBucketRequest::default()
        };
        self.run_once("head bucket", "", self.shared.client.head_bucket(request))
            .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Secret;

    /// A configuration with credentials and nothing else out of the ordinary.
    pub(super) fn config(bucket: &str) -> StorageConfig {
        StorageConfig {
            aws_region: "us-east-1".to_owned(),
            aws_s3_bucket: bucket.to_owned(),
            aws_access_key_id: Some("AKIDEXAMPLE".to_owned()),
            aws_secret_access_key: Some(Secret::from("secret".to_owned())),
            aws_session_token: None,
            aws_credential_expiration: None,
            aws_profile: None,
            s3_endpoint_url: None,
            s3_public_base_url: None,
            s3_presign_life: Duration::from_secs(3600),
            s3_connect_timeout: Duration::from_secs(1),
            s3_request_timeout: Duration::from_secs(1),
            s3_idle_timeout: Duration::from_secs(1),
        }
    }

    #[test]
    fn half_of_a_key_pair_is_an_error() {
        let mut half = config("media");
        half.aws_secret_access_key = Some(Secret::from(String::new()));
        let error = Storage::new(&half).err().map(|error| error.to_string());
        assert_eq!(
            error.as_deref(),
            Some("AWS_SECRET_ACCESS_KEY: is not set although AWS_ACCESS_KEY_ID is")
        );
    }

    #[tokio::test]
    async fn a_presigned_url_does_not_outlive_its_credentials() {
        let mut config = config("media");
        config.aws_session_token = Some(Secret::from("token/+=".to_owned()));
        config.aws_credential_expiration = Some(chrono::Utc::now() + Duration::from_secs(600));
        let storage = Storage::new(&config).unwrap();
        let url = storage
            .presign("a/b.mp4", Duration::from_secs(500))
            .await
            .unwrap();
        assert!(
            url.starts_with("https://s3.us-east-1.amazonaws.com/media/a/b.mp4?"),
            "{url}"
        );
        assert!(
            url.contains("X-Amz-Expires=500")
                && url.contains("X-Amz-Security-Token=token%2F%2B%3D"),
            "{url}"
        );
        for life in [0, 601, 8 * 24 * 3600] {
            let error = storage
                .presign("a/b.mp4", Duration::from_secs(life))
                .await
                .unwrap_err();
            assert!(matches!(error, StorageError::Life { .. }), "{error}");
        }
    }

    #[tokio::test]
    async fn a_presigned_url_lives_seven_days_at_most() {
        let storage = Storage::new(&config("media")).unwrap();
        assert!(storage.presign("k", PRESIGN_MAX).await.is_ok());
        assert!(
            storage
                .presign("k", PRESIGN_MAX + Duration::from_secs(1))
                .await
                .is_err()
        );
    }
}
