//! Errors as answers: problem details of RFC 9457.
//!
//! A detail may quote what our own rules say, never a value of the request nor the text of an inner error.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use shared::domain::fields::{FieldCode, FieldError};
use utoipa::ToSchema;
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
    Unauthorized,
    WrongToken,
    Forbidden,
    CrossSite,
    NoTokens,
    TooManyFailures,
    IdempotencyKeyReused,
    JobGone,
    JobNotFound,
    JobFinished,
    JobNotRestarted,
    NoResult,
    ResultGone,
    NoticeNotFound,
    NoticeWaiting,
    LetterNotFound,
    SubmissionNotFound,
    AuditNotFound,
    AuditsWaiting,
    FindingNotFound,
    AccountNotFound,
    VersionOutdated,
    OutcomeNotDecided,
    PaidStillStopped,
    TooManyStreams,
    NotLookedAt,
    TooManyPreviews,
    LetterClosed,
    FileNotFound,
    OperationNotFound,
    OperationNotSteered,
    CountDiffers,
    WorkerNotFound,
    WorkerNotSteered,
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
            Self::Unauthorized => (S::UNAUTHORIZED, "unauthorized", "An access token is needed"),
            Self::WrongToken => (
                S::UNAUTHORIZED,
                "wrong-token",
                "The access token is not good",
            ),
            Self::Forbidden => (
                S::FORBIDDEN,
                "forbidden",
                "The access token is not for this",
            ),
            Self::CrossSite => (
                S::FORBIDDEN,
                "cross-site",
                "The request comes from another site",
            ),
            Self::NoTokens => (S::FORBIDDEN, "no-tokens", "There are no access tokens yet"),
            Self::TooManyFailures => (
                S::TOO_MANY_REQUESTS,
                "too-many-failures",
                "Too many wrong access tokens",
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
            Self::NoResult => (S::CONFLICT, "no-result", "The job has no result"),
            Self::ResultGone => (S::NOT_FOUND, "result-gone", "The result is no longer there"),
            Self::NoticeNotFound => (S::NOT_FOUND, "notice-not-found", "There is no such notice"),
            Self::NoticeWaiting => (
                S::CONFLICT,
                "notice-waiting",
                "The notice waits to be sent anyway",
            ),
            Self::LetterNotFound => (
                S::NOT_FOUND,
                "dead-letter-not-found",
                "There is no such dead letter",
            ),
            Self::SubmissionNotFound => (
                S::NOT_FOUND,
                "submission-not-found",
                "There is no such submission",
            ),
            Self::OperationNotFound => (
                S::NOT_FOUND,
                "operation-not-found",
                "There is no such operation",
            ),
            Self::OperationNotSteered => (
                S::CONFLICT,
                "operation-not-steered",
                "The operation does not stand so that this could be done",
            ),
            Self::CountDiffers => (
                S::CONFLICT,
                "count-differs",
                "The selection is not as large as expected",
            ),
            Self::WorkerNotFound => (S::NOT_FOUND, "worker-not-found", "There is no such worker"),
            Self::WorkerNotSteered => (
                S::CONFLICT,
                "worker-not-steered",
                "The worker does not stand so that this could be asked",
            ),
            Self::AuditNotFound => (S::NOT_FOUND, "audit-not-found", "There is no such audit"),
            Self::AuditsWaiting => (
                S::CONFLICT,
                "audits-waiting",
                "Other audits have to be made first",
            ),
            Self::FindingNotFound => (
                S::NOT_FOUND,
                "finding-not-found",
                "No audit has found such a thing",
            ),
            Self::AccountNotFound => (
                S::NOT_FOUND,
                "account-not-found",
                "There is no such account",
            ),
            Self::VersionOutdated => (
                S::PRECONDITION_FAILED,
                "version-outdated",
                "Somebody has changed it meanwhile",
            ),
            Self::OutcomeNotDecided => (
                S::CONFLICT,
                "outcome-not-decided",
                "The outcome is not decided by this",
            ),
            Self::PaidStillStopped => {
                (S::CONFLICT, "paid-still-stopped", "Paid sends stay stopped")
            }
            Self::TooManyStreams => (
                S::SERVICE_UNAVAILABLE,
                "too-many-streams",
                "Too many clients follow events",
            ),
            Self::NotLookedAt => (
                S::SERVICE_UNAVAILABLE,
                "not-looked-at",
                "There was no time to look at the job",
            ),
            Self::TooManyPreviews => (
                S::SERVICE_UNAVAILABLE,
                "too-many-previews",
                "Other previews are being counted",
            ),
            Self::LetterClosed => (
                S::CONFLICT,
                "dead-letter-closed",
                "The dead letter is closed already",
            ),
            Self::FileNotFound => (S::NOT_FOUND, "file-not-found", "The page has no such file"),
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

/// What went wrong (RFC 9457).
#[derive(Serialize, ToSchema)]
#[schema(as = Problem)]
pub(super) struct Document<'a> {
    /// What kind of problem: `urn:ghostfleet:problem:` and a word.
    #[serde(rename = "type")]
    kind: String,
    /// The same for people.
    title: &'static str,
    /// The status of the answer.
    status: u16,
    /// What happened this time.
    detail: &'a str,
    /// Every fault of the body or of the parameters.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    #[schema(value_type = Vec<Fault>, required = false)]
    errors: &'a [FieldError],
    /// The job it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false, nullable = false)]
    job_id: Option<Uuid>,
}

/// A fault of a request, as [`FieldError`] is written.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes `FieldError`")]
pub(super) struct Fault {
    /// Where: a JSON pointer into the body, or the name of a parameter.
    path: String,
    /// What is wrong, for programs.
    code: FieldCode,
    /// What is wrong, for people.
    message: String,
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

impl Problem {
    /// The document and the status it is answered with.
    pub(super) fn document(&self) -> (StatusCode, Document<'_>) {
        let (status, slug, title) = self.kind.parts();
        let document = Document {
            kind: format!("urn:ghostfleet:problem:{slug}"),
            title,
            status: status.as_u16(),
            detail: &self.detail,
            errors: &self.errors,
            job_id: self.job_id,
        };
        (status, document)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let (status, document) = self.document();
        let mut response = (status, Json(document)).into_response();
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        match self.kind {
            // RFC 6750, section 3.
            Kind::Unauthorized => {
                let challenge = HeaderValue::from_static("Bearer realm=\"ghostfleet\"");
                headers.insert(header::WWW_AUTHENTICATE, challenge);
            }
            Kind::WrongToken => {
                let challenge = HeaderValue::from_static(
                    "Bearer realm=\"ghostfleet\", error=\"invalid_token\"",
                );
                headers.insert(header::WWW_AUTHENTICATE, challenge);
            }
            kind if kind.parts().0 == StatusCode::SERVICE_UNAVAILABLE => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from(RETRY_AFTER_SECONDS));
            }
            _ => {}
        }
        response
    }
}
