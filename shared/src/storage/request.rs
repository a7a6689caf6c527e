//! How one request to the store runs: its deadline, its repetitions, and what its errors name.

use super::{Storage, StorageError};
use bytes::Bytes;
use futures::stream;
use rusoto_core::{ByteStream, RusotoError};
use std::fmt::Debug;
use std::time::Duration;

/// How often a request is sent at most.
const TRIES: u32 = 5;
/// Pause before the second try; it doubles with each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(250);

impl Storage {
    /// Sends a request that may be repeated, again while the failure is transient.
    pub(super) async fn run<T, E: Debug, F: Future<Output = Result<T, RusotoError<E>>>>(
        &self,
        operation: &'static str,
        key: &str,
        request: impl Fn() -> F,
    ) -> Result<T, StorageError> {
        let mut tries = 1;
        loop {
            match self.run_once(operation, key, request()).await {
                Err(error) if error.is_transient() && tries < TRIES => {
                    tracing::debug!(
                        operation,
                        key,
                        tries,
                        error = &error as &dyn std::error::Error,
                        "S3 request failed, trying again"
                    );
                    // Half fixed, half random, so that workers that failed together do not return together.
                    let pause = FIRST_PAUSE * 2_u32.pow(tries - 1);
                    tokio::time::sleep(pause.mul_f64(rand::random_range(0.5..1.0))).await;
                    tries += 1;
                }
                outcome => return outcome,
            }
        }
    }

    pub(super) async fn run_once<T, E: Debug>(
        &self,
        operation: &'static str,
        key: &str,
        request: impl Future<Output = Result<T, RusotoError<E>>>,
    ) -> Result<T, StorageError> {
        let after = self.shared.request_timeout;
        match tokio::time::timeout(after, request).await {
            Ok(answer) => {
                answer.map_err(|error| StorageError::from_rusoto(operation, self.name(key), error))
            }
            Err(_) => Err(StorageError::TimedOut {
                operation,
                object: self.name(key),
                after,
            }),
        }
    }

    pub(super) fn size(
        &self,
        operation: &'static str,
        key: &str,
        length: Option<i64>,
    ) -> Result<u64, StorageError> {
        let length = length.and_then(|length| u64::try_from(length).ok());
        length.ok_or_else(|| StorageError::Answer {
            operation,
            object: self.name(key),
            missing: "a Content-Length",
        })
    }

    /// How errors name an object.
    pub(super) fn name(&self, key: &str) -> String {
        format!("s3://{}/{key}", self.bucket())
    }
}

/// Refuses keys that a URL would change on its way, so that the signature would not fit.
pub(super) fn check_key(key: &str) -> Result<(), StorageError> {
    let reason = if key.is_empty() {
        "it is empty"
    } else if key.len() > 1024 {
        "it is longer than 1024 bytes"
    } else if key.split('/').any(|segment| matches!(segment, "." | "..")) {
        "it has a `.` or `..` segment"
    } else if key.contains(char::is_control) {
        "it has a control character"
    } else {
        return Ok(());
    };
    Err(StorageError::Key {
        key: key.to_owned(),
        reason,
    })
}

/// A body of known length that is not read for the signature (`UNSIGNED-PAYLOAD`), only sent.
pub(super) fn body_of(bytes: Bytes) -> ByteStream {
    let length = bytes.len();
    ByteStream::new_with_size(stream::once(async { Ok(bytes) }), length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_a_url_would_change_are_refused() {
        for key in [
            "",
            ".",
            "a/../b",
            "a/./b",
            "a/..",
            "a\nb",
            &"k".repeat(1025),
        ] {
            assert!(check_key(key).is_err(), "{key:?}");
        }
        for key in [
            "a",
            "a/b.mp4",
            "a//b",
            "users/x/video_测试 #1.mp4",
            "a/...",
            &"k".repeat(1024),
        ] {
            assert!(check_key(key).is_ok(), "{key:?}");
        }
    }
}
