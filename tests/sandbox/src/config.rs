//! What is fixed at start ([`SandboxConfig`]) and what may be changed while it runs ([`Settings`]).
//! Faults are not settings: they live in [`crate::fault`].

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Fixed at start. The default uses free ports, throw-away credentials and a temporary folder.
#[derive(Clone)]
pub struct SandboxConfig {
    /// Ports to listen on, on 127.0.0.1; 0 takes a free one.
    pub ports: Ports,
    /// Keys that clients have to present.
    pub credentials: Credentials,
    /// Region named in S3 signatures.
    pub region: String,
    /// Buckets made at start; the first one is announced as `AWS_S3_BUCKET`.
    pub buckets: Vec<String>,
    /// Where objects and fetched inputs are kept; `None` is a temporary folder, removed at stop.
    pub data_dir: Option<PathBuf>,
    /// Seed of every random choice: durations and fault probabilities.
    pub seed: u64,
    /// Settings to begin with, and the ones a reset returns to.
    pub settings: Settings,
}

impl Default for SandboxConfig {
    fn default() -> Self {
        Self {
            ports: Ports::default(),
            credentials: Credentials::default(),
            region: "us-east-1".into(),
            buckets: vec!["sandbox".into()],
            data_dir: None,
            seed: 1,
            settings: Settings::default(),
        }
    }
}

/// One port per server; 0 takes a free one.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ports {
    /// Sync.so API.
    pub sync: u16,
    /// GhostCut API.
    pub ghostcut: u16,
    /// S3 API.
    pub s3: u16,
    /// The vendors' result files.
    pub media: u16,
    /// Control API.
    pub control: u16,
}

/// Made-up credentials of the simulated services. Not `Debug`, in case someone puts in real ones.
#[derive(Clone)]
pub struct Credentials {
    /// `x-api-key` of Sync.so.
    pub sync_api_key: String,
    /// Secret that signs Sync.so webhooks, including the prefix `whsec_`.
    pub sync_webhook_secret: String,
    /// `AppKey` of GhostCut.
    pub ghostcut_key: String,
    /// Secret behind `AppSign` and `Callback-Sign`.
    pub ghostcut_secret: String,
    /// Sub-user announced to clients as `GHOSTCUT_UID`.
    pub ghostcut_uid: String,
    /// S3 access key id.
    pub s3_access_key: String,
    /// S3 secret access key.
    pub s3_secret_key: String,
}

impl Default for Credentials {
    fn default() -> Self {
        Self {
            sync_api_key: "sandbox-sync-key".into(),
            sync_webhook_secret: "whsec_sandbox_secret".into(),
            ghostcut_key: "sandbox-ghostcut-key".into(),
            ghostcut_secret: "sandbox-ghostcut-secret".into(),
            ghostcut_uid: "sandbox-user".into(),
            s3_access_key: "sandbox-access-key".into(),
            s3_secret_key: "sandbox-secret-key".into(),
        }
    }
}

/// May be changed at any time, in process or by `PATCH /control/settings`. Times are milliseconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Sync.so.
    pub sync: SyncSettings,
    /// GhostCut.
    pub ghostcut: GhostCutSettings,
}

/// Settings of the Sync.so simulator. Where the vendor documents nothing, the values are assumptions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SyncSettings {
    /// Shortest and longest time from acceptance to the final state.
    pub process_ms: (u64, u64),
    /// Creates per minute; above it 429 `rate_limit_exceeded`. `None`: no limit.
    pub rate_limit_per_minute: Option<u32>,
    /// Generations `PENDING` or `PROCESSING` at once; above it 429 `concurrency_limit_reached`.
    pub plan_slots: Option<u32>,
    /// How long an idempotency key is remembered; `None`: for ever.
    pub key_ttl_ms: Option<u64>,
    /// HTTP status of a replayed create: 200 or 201.
    pub replay_status: u16,
    /// Answer to a known key with another payload.
    pub conflict_status: u16,
    /// Its error code.
    pub conflict_code: String,
    /// Answer to a key whose first copy is still being handled.
    pub in_progress_status: u16,
    /// Its error code.
    pub in_progress_code: String,
    /// Life of a result URL after completion; then 403.
    pub result_ttl_ms: u64,
    /// Grow each result to at least this many bytes.
    pub result_bytes: u64,
}

impl Default for SyncSettings {
    fn default() -> Self {
        Self {
            process_ms: (1_000, 3_000),
            rate_limit_per_minute: None,
            plan_slots: None,
            key_ttl_ms: None,
            replay_status: 201,
            conflict_status: 409,
            conflict_code: "IDEMPOTENCY_CONFLICT".into(),
            in_progress_status: 409,
            in_progress_code: "IDEMPOTENCY_IN_PROGRESS".into(),
            result_ttl_ms: 7 * 24 * 3_600_000,
            result_bytes: 0,
        }
    }
}

/// Settings of the GhostCut simulator. Where the vendor documents nothing, the values are assumptions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GhostCutSettings {
    /// Shortest and longest time from acceptance to the final state.
    pub process_ms: (u64, u64),
    /// Points left on the account. A work that starts without enough of them ends with status 73.
    pub points: f64,
    /// Points one work costs, taken when its processing starts.
    pub points_per_work: f64,
    /// Page size used when a query names none (the vendor's is unknown).
    pub default_page_size: usize,
    /// Send `id` as text, as in the 2026 guide, instead of as a number.
    pub text_ids: bool,
    /// Pause before a failed callback is sent again.
    pub callback_retry_ms: u64,
    /// Age of a work at which failed callbacks are given up.
    pub callback_max_age_ms: u64,
    /// Life of a result URL after completion; then 403.
    pub result_ttl_ms: u64,
    /// Grow each result to at least this many bytes.
    pub result_bytes: u64,
}

impl Default for GhostCutSettings {
    fn default() -> Self {
        Self {
            process_ms: (1_000, 3_000),
            points: 1_000_000.0,
            points_per_work: 1.0,
            default_page_size: 20,
            text_ids: false,
            callback_retry_ms: 30 * 60_000,
            callback_max_age_ms: 24 * 3_600_000,
            result_ttl_ms: 7 * 24 * 3_600_000,
            result_bytes: 0,
        }
    }
}
