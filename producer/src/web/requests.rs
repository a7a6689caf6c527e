//! What requests look like, for the API's description. They are read elsewhere, as JSON, so that every fault is told.

#![expect(dead_code, reason = "describes what is read as JSON")]

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::Deserialize;
use shared::domain::bulk::BulkAction;
use shared::domain::effects::EffectKind;
use shared::domain::intake::Priority;
use shared::domain::{JobStatus, StageState, Vendor};
use utoipa::ToSchema;
use uuid::Uuid;

/// A job: segments, effects or both.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct JobRequest {
    /// Its owner.
    user_id: Uuid,
    /// `https://`, `http://`, or `s3://` in the fleet's own bucket.
    #[schema(min_length = 10, example = "https://media.example.com/talk.mp4")]
    video_url: String,
    /// Audio files by the names that segments use.
    #[schema(nullable)]
    audio: Option<BTreeMap<String, String>>,
    /// What is lip-synced, in order and without overlap.
    #[schema(nullable, max_items = 10)]
    segments: Option<Vec<SegmentRequest>>,
    /// What is removed from the picture.
    #[schema(nullable, max_items = 50)]
    effects: Option<Vec<EffectRequest>>,
    /// How soon; `normal` by default.
    #[schema(nullable)]
    priority: Option<Priority>,
    /// For people.
    #[schema(nullable, min_length = 1, max_length = 500)]
    display_name: Option<String>,
    /// For people; the end of the video's URL by default.
    #[schema(nullable, min_length = 1, max_length = 500)]
    original_filename: Option<String>,
    /// Told when the job ends, by a signed POST (Standard Webhooks). `https://`, on a public address. The body has `type`
    /// (`job.completed`, `job.failed`, `job.canceled`), `event_id`, `id` of the job, `status`, `result` (a path of this API),
    /// `error` and `at`. Sent again until it is answered with 2xx or 410, for a day.
    #[schema(
        nullable,
        min_length = 10,
        max_length = 2048,
        example = "https://app.example.com/hooks/video"
    )]
    callback_url: Option<String>,
}

/// A stretch of the video and the audio that is spoken in it, at least half a second.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[serde(rename_all = "camelCase")]
pub(super) struct SegmentRequest {
    /// Seconds.
    #[schema(minimum = 0)]
    start_time: f64,
    /// Seconds.
    #[schema(minimum = 0.5)]
    end_time: f64,
    audio_input: AudioRequest,
    /// For people.
    #[schema(nullable, min_length = 1, max_length = 200)]
    label: Option<String>,
}

/// A file of `audio`, or a stretch of it.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[serde(rename_all = "camelCase")]
pub(super) struct AudioRequest {
    /// Its name.
    #[schema(min_length = 1, max_length = 128)]
    ref_id: String,
    /// Seconds within the audio; together with `endTime`.
    #[schema(nullable, minimum = 0)]
    start_time: Option<f64>,
    /// Seconds within the audio.
    #[schema(nullable, minimum = 0)]
    end_time: Option<f64>,
}

/// A box in the picture and what is done there.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[serde(rename_all = "camelCase")]
pub(super) struct EffectRequest {
    #[serde(rename = "type")]
    kind: EffectKind,
    /// Seconds; the beginning by default.
    #[schema(nullable, minimum = 0)]
    start_time: Option<f64>,
    /// Seconds; the end by default.
    #[schema(nullable, minimum = 0)]
    end_time: Option<f64>,
    region: RegionRequest,
}

/// Fractions of the picture; the origin is top left.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RegionRequest {
    #[schema(minimum = 0, maximum = 1)]
    x: f64,
    #[schema(minimum = 0, maximum = 1)]
    y: f64,
    #[schema(minimum = 0, maximum = 1)]
    width: f64,
    #[schema(minimum = 0, maximum = 1)]
    height: f64,
}

/// Jobs to put in at once.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct BatchRequest {
    #[schema(min_items = 1, max_items = 100)]
    jobs: Vec<BatchItem>,
}

/// One of them.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct BatchItem {
    /// A `JobRequest`; its faults refuse this job alone.
    request: serde_json::Value,
    /// Makes repeating harmless, like the header `Idempotency-Key` of a single one.
    #[schema(
        nullable = false,
        min_length = 1,
        max_length = 255,
        pattern = "^[!-~]+$"
    )]
    idempotency_key: Option<String>,
}

/// What a person says for others to read, in one line: no control characters, and nothing that turns the direction of what follows.
#[derive(Deserialize, ToSchema)]
#[schema(
    min_length = 1,
    max_length = 1000,
    pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f\\u202a-\\u202e\\u2066-\\u2069]*[^\\u0000-\\u001f\\u007f-\\u009f\\u202a-\\u202e\\u2066-\\u2069\\s][^\\u0000-\\u001f\\u007f-\\u009f\\u202a-\\u202e\\u2066-\\u2069]*$"
)]
struct Said(String);

/// Who and why.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ReasonRequest {
    /// Why, for the others; kept in the trail.
    reason: Said,
    /// Who; `api` by default.
    #[schema(nullable = false)]
    by: Option<Said>,
}

/// What to compare, and why.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct AuditRequest {
    /// Why, for the others; kept with the audit.
    reason: Said,
    /// Who; `api` by default.
    #[schema(nullable = false)]
    by: Option<Said>,
    /// Works taken by the vendors then or later; those of the last 24 hours by default.
    #[schema(nullable = false)]
    since: Option<DateTime<Utc>>,
    /// Book the works that the ledger does not know, and let their jobs go on.
    #[schema(nullable = false)]
    repair: Option<bool>,
}

/// How to put a job back.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RetryRequest {
    /// Why, for the others; kept in the trail.
    reason: Said,
    /// Who; `api` by default.
    #[schema(nullable = false)]
    by: Option<Said>,
    /// Only say what would happen.
    #[schema(nullable = false)]
    preview: Option<bool>,
    /// Allow one paid attempt beyond the bound.
    #[schema(nullable = false)]
    another_attempt: Option<bool>,
}

/// What somebody has found out.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NoteRequest {
    /// For whoever looks next; null removes what is there. Kept in the trail too.
    #[schema(
        required,
        min_length = 1,
        max_length = 1000,
        pattern = "^[^\\u0000-\\u0009\\u000b-\\u001f\\u007f-\\u009f\\u202a-\\u202e\\u2066-\\u2069]*[^\\u0000-\\u0009\\u000b-\\u001f\\u007f-\\u009f\\u202a-\\u202e\\u2066-\\u2069\\s][^\\u0000-\\u0009\\u000b-\\u001f\\u007f-\\u009f\\u202a-\\u202e\\u2066-\\u2069]*$"
    )]
    note: Option<String>,
    /// Who; `api` by default.
    #[schema(nullable = false)]
    by: Option<Said>,
}

/// Which dead letters; all that is given has to fit.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct LetterSelection {
    #[schema(nullable = false, min_items = 1, max_items = 1000)]
    ids: Option<Vec<i64>>,
    /// A stage, or `unknown` for messages that came from elsewhere.
    #[schema(nullable = false)]
    stage: Option<String>,
    #[schema(nullable = false, min_length = 1, max_length = 1000)]
    reason: Option<String>,
    /// The normalised error.
    #[schema(nullable = false, min_length = 1, max_length = 1000)]
    class: Option<String>,
    /// Received then or later.
    #[schema(nullable = false)]
    since: Option<DateTime<Utc>>,
    #[schema(nullable = false)]
    job: Option<Uuid>,
    #[schema(nullable = false)]
    user: Option<Uuid>,
}

/// Which dead letters to close, and why.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct DiscardRequest {
    /// Why, for the others; kept in the trail.
    reason: Said,
    /// Who; `api` by default.
    #[schema(nullable = false)]
    by: Option<Said>,
    /// Which; has to name something unless `all` is true.
    #[schema(nullable = false)]
    filter: Option<LetterSelection>,
    /// Everything that is open.
    #[schema(nullable = false)]
    all: Option<bool>,
}

/// Which dead letters to put back, and how.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ReplayRequest {
    /// Why, for the others; kept in the trail.
    reason: Said,
    /// Who; `api` by default.
    #[schema(nullable = false)]
    by: Option<Said>,
    /// Which; has to name something unless `all` is true.
    #[schema(nullable = false)]
    filter: Option<LetterSelection>,
    /// Everything that is open.
    #[schema(nullable = false)]
    all: Option<bool>,
    /// Only say what would happen.
    #[schema(nullable = false)]
    preview: Option<bool>,
    /// Allow one paid attempt beyond the bound.
    #[schema(nullable = false)]
    another_attempt: Option<bool>,
    /// How many become due a minute.
    #[schema(nullable = false, minimum = 1, maximum = 2147483647)]
    per_minute: Option<u32>,
}

/// Which jobs or dead letters; all that is given has to fit. Jobs are named by what `GET /v1/jobs` takes (`user_id`, `status`, `stage`,
/// `state`, `reason`, `vendor`, `error_code`, `text`, `created_from`, `created_before`), dead letters by what `GET /v1/dead-letters` takes
/// (`ids`, `stage`, `reason`, `class`, `since`, `job`, `user`).
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct OperationSelection {
    #[schema(nullable = false)]
    user_id: Option<Uuid>,
    #[schema(nullable = false)]
    status: Option<JobStatus>,
    /// For dead letters also `unknown`: of messages that came from elsewhere.
    #[schema(nullable = false)]
    stage: Option<String>,
    #[schema(nullable = false)]
    state: Option<StageState>,
    #[schema(nullable = false, min_length = 1, max_length = 200)]
    reason: Option<String>,
    #[schema(nullable = false)]
    vendor: Option<Vendor>,
    #[schema(nullable = false, min_length = 1, max_length = 200)]
    error_code: Option<String>,
    #[schema(nullable = false, min_length = 1, max_length = 200)]
    text: Option<String>,
    #[schema(nullable = false)]
    created_from: Option<DateTime<Utc>>,
    #[schema(nullable = false)]
    created_before: Option<DateTime<Utc>>,
    #[schema(nullable = false, min_items = 1, max_items = 1000)]
    ids: Option<Vec<i64>>,
    /// The normalised error.
    #[schema(nullable = false, min_length = 1, max_length = 1000)]
    class: Option<String>,
    /// Received then or later.
    #[schema(nullable = false)]
    since: Option<DateTime<Utc>>,
    #[schema(nullable = false)]
    job: Option<Uuid>,
    #[schema(nullable = false)]
    user: Option<Uuid>,
}

/// What to do to many, and how.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct OperationRequest {
    action: BulkAction,
    /// Why, for the others; kept in the trail.
    reason: Said,
    /// Who; `api` by default.
    #[schema(nullable = false)]
    by: Option<Said>,
    /// Which; has to name something unless `all` is true.
    #[schema(nullable = false)]
    filter: Option<OperationSelection>,
    /// Everything that the action can be done to.
    #[schema(nullable = false)]
    all: Option<bool>,
    /// How many there should be, as a preview said: refused if it is more than a tenth off.
    #[schema(nullable = false, minimum = 1, maximum = 2147483647)]
    expect: Option<u32>,
    /// Replay one of each group first, then wait until somebody lets it go on.
    #[schema(nullable = false)]
    canary: Option<bool>,
    /// At most so many are changed in a minute.
    #[schema(nullable = false, minimum = 1, maximum = 2147483647)]
    per_minute: Option<u32>,
    /// Allow one paid attempt beyond the bound.
    #[schema(nullable = false)]
    another_attempt: Option<bool>,
}

/// What would be done to many: an operation, of which the reason may be left out.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PreviewRequest {
    action: BulkAction,
    /// Not kept.
    #[schema(nullable = false)]
    reason: Option<Said>,
    /// Not kept.
    #[schema(nullable = false)]
    by: Option<Said>,
    /// Which; has to name something unless `all` is true.
    #[schema(nullable = false)]
    filter: Option<OperationSelection>,
    /// Everything that the action can be done to.
    #[schema(nullable = false)]
    all: Option<bool>,
    /// As of the operation; changes nothing here.
    #[schema(nullable = false, minimum = 1, maximum = 2147483647)]
    expect: Option<u32>,
    /// As of the operation; changes nothing here.
    #[schema(nullable = false)]
    canary: Option<bool>,
    /// As of the operation; changes nothing here.
    #[schema(nullable = false, minimum = 1, maximum = 2147483647)]
    per_minute: Option<u32>,
    /// Count one paid attempt beyond the bound.
    #[schema(nullable = false)]
    another_attempt: Option<bool>,
}

/// New limits of an account. Those that are not named stay; null is no limit.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct LimitsRequest {
    /// Why, for the others; kept in the trail.
    reason: Said,
    /// Who; `api` by default.
    #[schema(nullable = false)]
    by: Option<Said>,
    /// Submissions from claim to final state, unknown outcomes included.
    #[schema(nullable, minimum = 1, maximum = 2147483647)]
    max_in_flight: Option<i32>,
    /// Paid sends a minute, replays and redos included.
    #[schema(nullable, minimum = 0.001, maximum = 1000000000)]
    max_per_minute: Option<f64>,
    /// How many of them may be sent at once; null: two seconds' worth.
    #[schema(nullable, minimum = 1, maximum = 2147483647)]
    burst: Option<i32>,
    /// The most to spend from midnight to midnight UTC, in the vendor's unit (US dollars, points).
    #[schema(nullable, minimum = 0, maximum = 1000000000)]
    daily_budget: Option<f64>,
    /// Nothing new is paid for while the balance is below this.
    #[schema(nullable, minimum = 0, maximum = 1000000000)]
    balance_floor: Option<f64>,
}

/// How long to pause.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PauseRequest {
    /// Why, for the others; kept in the trail.
    reason: Said,
    /// Who; `api` by default.
    #[schema(nullable = false)]
    by: Option<Said>,
    /// For how long; until resumed by default.
    #[schema(nullable = false, minimum = 1, maximum = 2147483647)]
    seconds: Option<u32>,
}

/// Why, and whether to insist.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ForceRequest {
    /// Why, for the others; kept in the trail.
    reason: Said,
    /// Who; `api` by default.
    #[schema(nullable = false)]
    by: Option<Said>,
    /// Go without what is otherwise waited for or asked first.
    #[schema(nullable = false)]
    force: Option<bool>,
}

/// Which work a submission came to.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct AdoptRequest {
    /// Why, for the others; kept in the trail.
    reason: Said,
    /// Who; `api` by default.
    #[schema(nullable = false)]
    by: Option<Said>,
    /// The vendor's id of the work: GhostCut's work id, Sync.so's generation id.
    #[schema(min_length = 1, max_length = 200, pattern = "\\S")]
    task_id: String,
    /// Although the vendor does not show that it is this submission's.
    #[schema(nullable = false)]
    force: Option<bool>,
}

/// Who wants to sign in.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SignIn {
    /// As `producer tokens create` showed it.
    token: String,
}
