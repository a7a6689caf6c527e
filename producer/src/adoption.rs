//! Takes in jobs that another application puts into `video_jobs` as rows: gives each its stage row, and the works it names to
//! the ledger, so that nothing that was paid for is paid for again. Must not check more than a worker does: a row at fault fails
//! in its first stage, where its owner sees it.

use prometheus::{IntCounterVec, Opts, register_int_counter_vec_with_registry};
use shared::crash::{self, Point};
use shared::db::{Db, DbError, UnadoptedRow};
use shared::domain::adoption::{first_stage, works};
use shared::domain::intake::JobSpec;
use shared::storage::Storage;
use shared::telemetry::{Registry, chain, trace};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use crate::config::DispatchConfig;
use crate::dispatcher::Accounts;

/// Rows looked at in one query.
const PAGE: i64 = 200;

/// Looks for rows and adopts them.
pub struct Adoption {
    db: Db,
    storage: Storage,
    accounts: Accounts,
    metrics: Metrics,
}

/// `jobs_adopted_total{stage}`.
pub struct Metrics {
    adopted: IntCounterVec,
}

impl Metrics {
    /// Registers it.
    ///
    /// # Errors
    /// When the name is taken.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        Ok(Self {
            adopted: register_int_counter_vec_with_registry!(
                Opts::new(
                    "jobs_adopted_total",
                    "Rows of video_jobs taken in, by their first stage"
                ),
                &["stage"],
                registry
            )?,
        })
    }
}

impl Adoption {
    /// An adoption that has not begun.
    #[must_use]
    pub const fn new(db: Db, storage: Storage, accounts: Accounts, metrics: Metrics) -> Self {
        Self {
            db,
            storage,
            accounts,
            metrics,
        }
    }

    /// Adopts until told to stop.
    pub async fn run(self, config: DispatchConfig, stop: CancellationToken) {
        loop {
            // Not cut off half-way: only the pause ends early.
            if let Err(error) = self.adopt(&config).await {
                tracing::warn!(error = chain(&error), "cannot adopt rows");
            }
            let pause = tokio::time::sleep(config.adopt_interval);
            if stop.run_until_cancelled(pause).await.is_none() {
                return;
            }
        }
    }

    async fn adopt(&self, config: &DispatchConfig) -> Result<(), DbError> {
        let rows = self.db.unadopted(config.adopt_within, PAGE).await?;
        let mut adopted = false;
        for row in &rows {
            match self.adopt_row(row).await {
                Ok(taken) => adopted |= taken,
                Err(error) if error.is_transient() => return Err(error),
                // One bad row must not keep the others out.
                Err(error) => {
                    tracing::error!(job.id = %row.id, error = chain(&error), "cannot adopt a row");
                }
            }
        }
        if adopted && let Err(error) = self.db.notify_due().await {
            tracing::debug!(%error, "the dispatcher was not told; its timer will find the jobs");
        }
        Ok(())
    }

    async fn adopt_row(&self, row: &UnadoptedRow) -> Result<bool, DbError> {
        let spec = JobSpec::from_row(
            row.processing_config.as_ref(),
            row.segments_data.as_ref(),
            row.job_metadata.as_ref(),
        )
        .ok();
        let works = works(row.job_metadata.as_ref(), row.zhaoli_task_id.as_deref());
        let video_is_ours = spec
            .as_ref()
            .is_some_and(|spec| self.storage.key_of(&spec.video.to_text()).is_some());
        let stage = first_stage(spec.as_ref(), &works, video_is_ours);
        let named: Vec<_> = works
            .iter()
            .map(|(vendor, id)| (*vendor, self.accounts.of(*vendor), id.as_str()))
            .collect();
        let adopted = self.db.adopt(row.id, stage, &named);
        let adopted = adopted.instrument(trace::intake(row.id, "row")).await?;
        crash::point(Point::RowAdopted);
        if adopted {
            self.metrics
                .adopted
                .with_label_values(&[stage.as_str()])
                .inc();
            tracing::info!(job.id = %row.id, %stage, works = named.len(), "adopted a row");
        }
        Ok(adopted)
    }
}
