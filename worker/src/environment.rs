//! The handles that every stage works with, built once.

use std::sync::Arc;

use anyhow::Context as _;
use shared::config::{CostConfig, ProtocolConfig};
use shared::db::Db;
use shared::storage::{Fetcher, Storage};
use shared::telemetry::Registry;
use shared::vendor::{ghostcut, sync};

use crate::config::WorkerConfig;
use crate::metrics::Metrics;

/// The handles of one worker. Cheap to clone.
#[derive(Clone)]
pub struct Environment {
    /// Database.
    pub db: Db,
    /// Object storage.
    pub storage: Storage,
    /// Downloads.
    pub fetcher: Fetcher,
    /// Sync.so.
    pub sync: sync::Client,
    /// GhostCut.
    pub ghostcut: ghostcut::Client,
    /// Settings.
    pub settings: Arc<Settings>,
    /// Metrics.
    pub metrics: Metrics,
}

/// Settings that stages read.
pub struct Settings {
    /// Who acts, in trails.
    pub actor: String,
    /// Times of the protocol.
    pub protocol: ProtocolConfig,
    /// Paid submissions of one job to one vendor.
    pub max_paid_attempts: i32,
    /// Sync.so account and choices.
    pub sync: shared::config::SyncApi,
    /// GhostCut account.
    pub ghostcut: shared::config::GhostcutApi,
    /// What submissions are expected to cost.
    pub costs: CostConfig,
    /// Where vendors call back.
    pub callbacks: shared::config::CallbackConfig,
    /// How long a presigned URL lives.
    pub presign_life: std::time::Duration,
    /// How closely to look at files before paying.
    pub probe: shared::config::SubmitProbe,
}

impl Environment {
    /// Builds the handles; connects to nothing yet.
    ///
    /// # Errors
    /// When a setting cannot be used.
    pub fn new(config: &WorkerConfig, registry: &Registry) -> anyhow::Result<Self> {
        let metrics = Metrics::register(registry)?;
        Ok(Self {
            db: Db::new(&config.database)?.measured(metrics.db.clone()),
            storage: Storage::new(&config.storage).context("object storage")?,
            fetcher: Fetcher::new(&config.fetch).context("download client")?,
            sync: sync::Client::new(&config.sync, config.vendor, metrics.vendor.clone())?,
            ghostcut: ghostcut::Client::new(
                &config.ghostcut,
                config.vendor,
                metrics.vendor.clone(),
            )?,
            settings: Arc::new(Settings {
                actor: config.work.worker_name.clone().unwrap_or_else(default_name),
                protocol: config.protocol.clone(),
                max_paid_attempts: config.work.max_paid_attempts,
                sync: config.sync.clone(),
                ghostcut: config.ghostcut.clone(),
                costs: config.costs,
                callbacks: config.callbacks.clone(),
                presign_life: config.storage.s3_presign_life,
                probe: config.probe,
            }),
            metrics,
        })
    }
}

fn default_name() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    format!("worker@{}/{}", host.trim(), std::process::id())
}
