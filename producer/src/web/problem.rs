//! Errors as answers: problem details of RFC 9457.
//!
//! A detail may quote what our own rules say, never a value of the request nor the text of an inner error.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use shared::domain::fields::FieldError;
use uuid::Uuid;

/// Seconds after which to come again when something is away.
const RETRY_AFTER_SECONDS: u32 = 5;

/// What kind of problem.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    MalformedBody,
    UnsupportedMediaType,
    BodyTooLarge,
    InvalidRequest,
    InvalidParameters,
    InvalidIdempotencyKey,
    BadSignature,
    IdempotencyKeyReused,
    JobGone,
    JobNotFound,
    JobFinished,
    JobNotRestarted,
    LetterNotFound,
    LetterClosed,
    RouteNotFound,
    MethodNotAllowed,
    Unavailable,
    Internal,
}

impl Kind {
    /// Status, the end of the type URN, and title.
    const fn parts(self) -> (StatusCode, &'static str, &'static str) {
        use StatusCode as S;
        match self {
            Self::MalformedBody => (S::BAD_REQUEST, "malformed-body", "The body cannot be read"),
            Self::UnsupportedMediaType => (
                S::UNSUPPORTED_MEDIA_TYPE,
                "unsupported-media-type",
                "The body is not declared as JSON",
            ),
            Self::BodyTooLarge => (
                S::PAYLOAD_TOO_LARGE,
                "body-too-large",
                "The body is too large",
            ),
            Self::InvalidRequest => (
                S::UNPROCESSABLE_ENTITY,
                "invalid-request",
                "The request has faults",
            ),
            Self::InvalidParameters => (
                S::BAD_REQUEST,
                "invalid-parameters",
                "The parameters have faults",
            ),
            Self::InvalidIdempotencyKey => (
                S::BAD_REQUEST,
                "invalid-idempotency-key",
                "The Idempotency-Key cannot be used",
            ),
            Self::BadSignature => (
                S::UNAUTHORIZED,
                "bad-signature",
                "The callback is not signed by the vendor",
            ),
            Self::IdempotencyKeyReused => (
                S::CONFLICT,
                "idempotency-key-reused",
                "The Idempotency-Key belongs to another request",
            ),
            Self::JobGone => (S::GONE, "job-gone", "The job was deleted"),
            Self::JobNotFound => (S::NOT_FOUND, "job-not-found", "There is no such job"),
            Self::JobFinished => (S::CONFLICT, "job-finished", "The job has ended already"),
            Self::JobNotRestarted => (
                S::CONFLICT,
                "job-not-restarted",
                "The job is not put back on its way",
            ),
            Self::LetterNotFound => (
                S::NOT_FOUND,
                "dead-letter-not-found",
                "There is no such dead letter",
            ),
            Self::LetterClosed => (
                S::CONFLICT,
                "dead-letter-closed",
                "The dead letter is closed already",
            ),
            Self::RouteNotFound => (S::NOT_FOUND, "not-found", "There is nothing here"),
            Self::MethodNotAllowed => (
                S::METHOD_NOT_ALLOWED,
                "method-not-allowed",
                "The method is not allowed here",
            ),
            Self::Unavailable => (
                S::SERVICE_UNAVAILABLE,
                "unavailable",
                "Something the service needs is away",
            ),
            Self::Internal => (
                S::INTERNAL_SERVER_ERROR,
                "internal",
                "The service is at fault",
            ),
        }
    }
}

/// An answer that says what went wrong.
#[derive(Clone, Debug)]
pub(super) struct Problem {
    kind: Kind,
    detail: String,
    errors: Vec<FieldError>,
    job_id: Option<Uuid>,
}

#[derive(Serialize)]
struct Document<'a> {
    #[serde(rename = "type")]
    kind: String,
    title: &'static str,
    status: u16,
    detail: &'a str,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    errors: &'a [FieldError],
    #[serde(skip_serializing_if = "Option::is_none")]
    job_id: Option<Uuid>,
}

impl Problem {
    pub(super) fn new(kind: Kind, detail: impl Into<String>) -> Self {
        Self {
            kind,
            detail: detail.into(),
            errors: Vec::new(),
            job_id: None,
        }
    }

    /// Faults of a body or of parameters, all of them.
    pub(super) fn faults(kind: Kind, errors: Vec<FieldError>) -> Self {
        let detail = match errors.len() {
            1 => "1 fault, see `errors`".to_owned(),
            more => format!("{more} faults, see `errors`"),
        };
        Self {
            errors,
            ..Self::new(kind, detail)
        }
    }

    /// Names the job it is about.
    pub(super) fn about(self, job: Uuid) -> Self {
        Self {
            job_id: Some(job),
            ..self
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let (status, slug, title) = self.kind.parts();
        let document = Document {
            kind: format!("urn:ghostfleet:problem:{slug}"),
            title,
            status: status.as_u16(),
            detail: &self.detail,
            errors: &self.errors,
            job_id: self.job_id,
        };
        let mut response = (status, Json(document)).into_response();
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        if self.kind == Kind::Unavailable {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(RETRY_AFTER_SECONDS));
        }
        response
    }
}
