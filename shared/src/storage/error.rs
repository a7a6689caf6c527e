//! What can go wrong with the object store. Texts name operation, bucket and key, never a URL or a signature.

use rusoto_core::RusotoError;
use rusoto_core::request::{BufferedHttpResponse, HttpDispatchError};
use rusoto_credential::CredentialsError;
use std::fmt::Debug;
use std::time::Duration;

/// An error of the object store.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// A setting cannot be used.
    #[error("{setting}: {reason}")]
    Setting {
        /// The environment variable.
        setting: &'static str,
        /// What is wrong with its value.
        reason: String,
    },
    /// The HTTP client could not be built.
    #[error("the HTTP client for S3 could not be built")]
    Client(#[source] reqwest::Error),
    /// A key that cannot be sent unchanged in a URL.
    #[error("object key {key:?} cannot be used: {reason}")]
    Key {
        /// The key.
        key: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// There are no usable credentials.
    #[error("no usable S3 credentials")]
    Credentials(#[source] CredentialsError),
    /// The object does not exist.
    #[error("S3 {operation} of {object}: no such object")]
    NotFound {
        /// What was asked.
        operation: &'static str,
        /// `s3://bucket/key`.
        object: String,
    },
    /// The store answered with an error.
    #[error("S3 {operation} of {object} was answered with HTTP {status} {code}")]
    Refused {
        /// What was asked.
        operation: &'static str,
        /// `s3://bucket/key`.
        object: String,
        /// HTTP status.
        status: u16,
        /// S3's error code; empty when the answer had none.
        code: String,
    },
    /// The request could not be sent, or its answer not be read.
    #[error("S3 {operation} of {object} failed on the way")]
    Transport {
        /// What was asked.
        operation: &'static str,
        /// `s3://bucket/key`.
        object: String,
        /// The cause.
        source: HttpDispatchError,
    },
    /// No answer in time.
    #[error("S3 {operation} of {object} was not answered within {after:?}")]
    TimedOut {
        /// What was asked.
        operation: &'static str,
        /// `s3://bucket/key`.
        object: String,
        /// The limit that passed.
        after: Duration,
    },
    /// The answer was not what S3 promises.
    #[error("S3 {operation} of {object} was answered without {missing}")]
    Answer {
        /// What was asked.
        operation: &'static str,
        /// `s3://bucket/key`.
        object: String,
        /// What the answer should have held.
        missing: &'static str,
    },
    /// An object's body broke off while it was read.
    #[error("S3 get of {object} broke off")]
    Body {
        /// `s3://bucket/key`.
        object: String,
        /// The cause.
        source: std::io::Error,
    },
    /// The object is larger than the operation allows.
    #[error("S3 {operation} of {object}: {bytes} bytes are more than the {limit} allowed")]
    TooLarge {
        /// What was asked.
        operation: &'static str,
        /// `s3://bucket/key`.
        object: String,
        /// Size of the object, or what was seen of it.
        bytes: u64,
        /// The largest size.
        limit: u64,
    },
    /// A presigned URL cannot live as long as asked.
    #[error("a presigned URL for {object} cannot live {asked:?}, at most {most:?}")]
    Life {
        /// `s3://bucket/key`.
        object: String,
        /// The life that was asked for.
        asked: Duration,
        /// Seven days, or what is left of the credentials' life.
        most: Duration,
    },
}

impl StorageError {
    /// Whether the same request may succeed when it is sent again later.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Transport { .. }
            | Self::TimedOut { .. }
            | Self::Answer { .. }
            | Self::Body { .. } => true,
            Self::Refused { status, code, .. } => {
                matches!(status, 408 | 429 | 500 | 502 | 503 | 504)
                    || matches!(
                        code.as_str(),
                        "SlowDown" | "RequestTimeout" | "InternalError" | "OperationAborted"
                    )
            }
            _ => false,
        }
    }

    pub(super) fn from_rusoto<E: Debug>(
        operation: &'static str,
        object: String,
        error: RusotoError<E>,
    ) -> Self {
        match error {
            RusotoError::Credentials(source) => Self::Credentials(source),
            RusotoError::HttpDispatch(source) => Self::Transport {
                operation,
                object,
                source,
            },
            RusotoError::Unknown(answer) => {
                let code = error_code(&answer);
                Self::refused(operation, object, answer.status.as_u16(), code)
            }
            // rusoto drops the status of the few errors it knows by name: `NoSuch…` are 404, the others (archived
            // objects) 403. The name is the variant's, its text may quote anything.
            RusotoError::Service(known) => {
                let code: String = format!("{known:?}")
                    .chars()
                    .take_while(char::is_ascii_alphanumeric)
                    .collect();
                let status = if code.starts_with("NoSuch") { 404 } else { 403 };
                Self::refused(operation, object, status, code)
            }
            RusotoError::Validation(_) | RusotoError::ParseError(_) | RusotoError::Blocking => {
                Self::Answer {
                    operation,
                    object,
                    missing: "a readable body",
                }
            }
        }
    }

    fn refused(operation: &'static str, object: String, status: u16, code: String) -> Self {
        // A HEAD has no body and therefore no code.
        if status == 404 && matches!(code.as_str(), "NoSuchKey" | "NotFound" | "") {
            return Self::NotFound { operation, object };
        }
        Self::Refused {
            operation,
            object,
            status,
            code,
        }
    }
}

/// The `<Code>` of an error answer. Nothing else of the body is used: it can quote the request's signature.
fn error_code(answer: &BufferedHttpResponse) -> String {
    let body = answer.body_as_str();
    let code = body
        .split_once("<Code>")
        .and_then(|(_, rest)| rest.split_once("</Code>"))
        .map_or("", |(code, _)| code);
    if code.len() <= 64 && code.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'.') {
        code.to_owned()
    } else {
        String::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(status: u16, body: &str) -> StorageError {
        let response = BufferedHttpResponse {
            status: http_02::StatusCode::from_u16(status).unwrap(),
            body: bytes::Bytes::from(body.to_owned()),
            headers: http_02::HeaderMap::default(),
        };
        StorageError::from_rusoto::<()>(
            "put",
            "s3://b/k".to_owned(),
            RusotoError::Unknown(response),
        )
    }

    #[test]
    fn the_error_code_is_shown_and_the_body_is_not() {
        let body = "<Error><Code>SignatureDoesNotMatch</Code><SignatureProvided>abc123</SignatureProvided></Error>";
        let error = answered(403, body);
        assert_eq!(
            error.to_string(),
            "S3 put of s3://b/k was answered with HTTP 403 SignatureDoesNotMatch"
        );
        assert!(!format!("{error:?}").contains("abc123"));
        assert!(!error.is_transient());
    }

    #[test]
    fn slow_down_and_server_errors_are_transient() {
        assert!(answered(503, "<Error><Code>SlowDown</Code></Error>").is_transient());
        assert!(answered(502, "<html>bad gateway</html>").is_transient());
        assert!(answered(400, "<Error><Code>RequestTimeout</Code></Error>").is_transient());
        assert!(!answered(501, "<Error><Code>NotImplemented</Code></Error>").is_transient());
        assert!(!answered(404, "<Error><Code>NoSuchBucket</Code></Error>").is_transient());
    }

    #[test]
    fn only_a_missing_object_is_not_found() {
        assert!(matches!(answered(404, ""), StorageError::NotFound { .. }));
        assert!(matches!(
            answered(404, "<Error><Code>NoSuchKey</Code></Error>"),
            StorageError::NotFound { .. }
        ));
        assert!(matches!(
            answered(404, "<Error><Code>NoSuchBucket</Code></Error>"),
            StorageError::Refused { status: 404, .. }
        ));
    }
}
