//! Small loops that make recovery an everyday path: claims that were never settled, submissions that no stage follows, and the
//! counts behind the fleet-wide gauges. Idempotent, paged, bounded by what is alive.

use std::time::Duration;

use prometheus::{
    Gauge, GaugeVec, IntGauge, IntGaugeVec, Opts, register_gauge_vec_with_registry,
    register_gauge_with_registry, register_int_gauge_vec_with_registry,
    register_int_gauge_with_registry,
};
use serde_json::json;
use shared::crash::{self, Point};
use shared::db::{AliveSubmission, Db, DbError, Fact, NewEvent, Settlement};
use shared::domain::answer::{Work, WorkState};
use shared::domain::{LedgerState, Stage, StageState, Vendor};
use shared::telemetry::{Registry, chain};
use shared::vendor::VendorError;
use tokio_util::sync::CancellationToken;

use crate::config::DispatchConfig;
use crate::lost::LostSearch;
use crate::notices;
use crate::vendor_gauges::VendorGauges;
use crate::vendors::Vendors;

/// Submissions asked about in one call.
const PAGE: i64 = 100;
/// After its deadline a claim has had the time to be settled by its owner.
const CLAIM_GRACE: Duration = Duration::from_secs(60);

/// Follows submissions that no stage follows.
pub struct LedgerSweep {
    /// Database.
    pub db: Db,
    /// Both vendors.
    pub vendors: Vendors,
    /// How long after a redo a failure may be the one from before.
    pub redo_patience: Duration,
    /// Unknown outcomes that no stage clears up.
    pub lost: LostSearch,
}

#[derive(Debug, thiserror::Error)]
enum SweepError {
    #[error(transparent)]
    Db(#[from] DbError),
    #[error(transparent)]
    Vendor(#[from] VendorError),
}

impl LedgerSweep {
    /// Sweeps until told to stop.
    pub async fn run(self, every: Duration, stop: CancellationToken) {
        loop {
            // Not cut off half-way: only the pause ends early.
            // Model: step ExpireClaim.
            match self.db.expire_claims(CLAIM_GRACE).await {
                Ok(0) => {}
                Ok(claims) => tracing::warn!(
                    claims,
                    "claims were never settled: their outcome is unknown"
                ),
                Err(error) => tracing::warn!(error = chain(&error), "cannot expire claims"),
            }
            crash::point(Point::ClaimsExpired);
            for vendor in Vendor::ALL {
                if let Err(error) = self.follow(*vendor).await {
                    tracing::warn!(%vendor, error = chain(&error), "cannot follow submissions");
                }
            }
            self.lost.sweep().await;
            if let Err(error) = self.db.sweep_workers().await {
                tracing::warn!(
                    error = chain(&error),
                    "cannot remove lost workers from the list"
                );
            }
            if stop
                .run_until_cancelled(tokio::time::sleep(every))
                .await
                .is_none()
            {
                return;
            }
        }
    }

    async fn follow(&self, vendor: Vendor) -> Result<(), SweepError> {
        let mut after = None;
        loop {
            let page = self
                .db
                .unfollowed(vendor, self.vendors.account(vendor), after, PAGE)
                .await?;
            let Some(last) = page.last() else {
                return Ok(());
            };
            after = Some((last.claimed_at, last.token));
            let ids: Vec<String> = page
                .iter()
                .map(|submission| submission.task_id.clone())
                .collect();
            // Model: step SweepLook.
            let works = self.vendors.status(vendor, &ids).await?;
            crash::point(Point::SweepAnswered);
            for submission in &page {
                if let Some(work) = works.iter().find(|work| work.task_id == submission.task_id) {
                    self.note(vendor, submission, work).await?;
                    crash::point(Point::SweepSettled);
                }
            }
            if page.len() < usize::try_from(PAGE).unwrap_or(usize::MAX) {
                return Ok(());
            }
        }
    }

    /// Records how a work ended. Its job, if there still is one, goes its own way.
    async fn note(
        &self,
        vendor: Vendor,
        submission: &AliveSubmission,
        work: &Work,
    ) -> Result<(), DbError> {
        let succeeded = match &work.state {
            WorkState::Pending { .. } => return Ok(()),
            WorkState::Succeeded { .. } => true,
            WorkState::Failed { .. } => false,
        };
        if submission.state == LedgerState::Duplicate.as_str() {
            return self
                .db
                .record_duplicate_end(submission.token, succeeded, work.charged)
                .await;
        }
        // Just redone: the status may still be the one from before.
        if submission.state == LedgerState::Redoing.as_str()
            && !succeeded
            && submission.settled_seconds < self.redo_patience.as_secs_f64()
        {
            return Ok(());
        }
        // Model: step SweepNote.
        let state = match (submission.state == LedgerState::Redoing.as_str(), succeeded) {
            (true, _) => LedgerState::Accepted,
            (false, true) => LedgerState::Succeeded,
            (false, false) => LedgerState::Failed,
        };
        let mut fact = Fact::new(submission.token, state);
        fact.charged = work.charged;
        fact.redos = Some(submission.redos);
        fact.unfollowed = true;
        self.db
            .settle(&Settlement {
                job: submission.job_id,
                stage: match vendor {
                    Vendor::Sync => Stage::LipsyncPoll,
                    Vendor::Ghostcut => Stage::InpaintPoll,
                },
                epoch: 0,
                actor: "ledger-sweep".to_owned(),
                fact: Some(fact),
                r#move: None,
                job_patch: None,
                event: Some(NewEvent {
                    kind: "swept",
                    detail: json!({ "state": state }),
                }),
                signal: None,
            })
            .await?;
        Ok(())
    }
}

/// The fleet-wide gauges, counted on a timer and never by a scrape.
pub struct Gauges {
    backlog: IntGaugeVec,
    oldest_due: GaugeVec,
    in_flight: IntGaugeVec,
    unknown: IntGaugeVec,
    oldest_unknown: GaugeVec,
    paid_stopped: IntGauge,
    vendors: VendorGauges,
    notices: notices::Metrics,
    dead_letters: IntGaugeVec,
    duplicates: IntGaugeVec,
    last_success: Gauge,
}

impl Gauges {
    /// Registers the gauges.
    ///
    /// # Errors
    /// When a name is taken.
    pub fn register(
        registry: &Registry,
        notices: notices::Metrics,
    ) -> Result<Self, prometheus::Error> {
        let int = |name, help, labels: &[&str]| {
            register_int_gauge_vec_with_registry!(Opts::new(name, help), labels, registry)
        };
        let float = |name, help, labels: &[&str]| {
            register_gauge_vec_with_registry!(Opts::new(name, help), labels, registry)
        };
        Ok(Self {
            backlog: int(
                "stage_backlog",
                "Unfinished jobs by stage and state",
                &["stage", "state"],
            )?,
            oldest_due: float(
                "stage_oldest_due_seconds",
                "How long the oldest due job waits",
                &["stage"],
            )?,
            in_flight: int(
                "vendor_in_flight",
                "Submissions from claim to final state",
                &["vendor"],
            )?,
            unknown: int(
                "submissions_unknown",
                "Submissions whose outcome is unknown",
                &["vendor"],
            )?,
            oldest_unknown: float(
                "submissions_unknown_oldest_seconds",
                "Age of the oldest of these",
                &["vendor"],
            )?,
            vendors: VendorGauges::register(registry)?,
            notices,
            dead_letters: int(
                "dead_letters",
                "Dead letters that nobody has resolved",
                &["stage", "reason"],
            )?,
            duplicates: int(
                "duplicates_open",
                "Submissions that were paid for twice, by the ledger and its trail, and that nobody has dealt with",
                &["vendor"],
            )?,
            paid_stopped: register_int_gauge_with_registry!(
                "paid_sends_stopped",
                "1 while the global stop of paid sends is on",
                registry
            )?,
            last_success: register_gauge_with_registry!(
                "gauges_last_success_timestamp_seconds",
                "When the gauges of the fleet were last counted; 0 before the first time",
                registry
            )?,
        })
    }

    /// Counts until told to stop.
    pub async fn run(self, db: Db, config: DispatchConfig, stop: CancellationToken) {
        loop {
            let counted = async {
                if let Err(error) = self.count(&db).await {
                    tracing::warn!(error = chain(&error), "cannot count for the gauges");
                }
                tokio::time::sleep(config.gauge_interval).await;
            };
            if stop.run_until_cancelled(counted).await.is_none() {
                return;
            }
        }
    }

    async fn count(&self, db: &Db) -> Result<(), DbError> {
        self.paid_stopped
            .set(i64::from(db.paid_stopped().await?.is_some()));
        let (backlog, ledger) = (db.backlog_gauges().await?, db.ledger_gauges().await?);
        for stage in Stage::ALL.iter().map(|stage| stage.as_str()) {
            let rows = || backlog.iter().filter(|row| row.stage == stage);
            let oldest = rows().map(|row| row.oldest_due_seconds).fold(0.0, f64::max);
            self.oldest_due.with_label_values(&[stage]).set(oldest);
            for state in StageState::ALL.iter().map(|state| state.as_str()) {
                let jobs = rows()
                    .find(|row| row.state == state)
                    .map_or(0, |row| row.jobs);
                self.backlog.with_label_values(&[stage, state]).set(jobs);
            }
        }
        for vendor in Vendor::ALL.iter().map(|vendor| vendor.as_str()) {
            let row = ledger.iter().find(|row| row.vendor == vendor);
            self.in_flight
                .with_label_values(&[vendor])
                .set(row.map_or(0, |row| row.in_flight));
            self.unknown
                .with_label_values(&[vendor])
                .set(row.map_or(0, |row| row.unknown));
            self.oldest_unknown
                .with_label_values(&[vendor])
                .set(row.map_or(0.0, |row| row.oldest_unknown_seconds));
        }
        // Read before the old series go: a scrape must not find none, and those of before are better than none.
        let letters = db.dead_letter_gauges().await?;
        self.dead_letters.reset();
        for row in letters {
            self.dead_letters
                .with_label_values(&[&row.stage, &row.reason])
                .set(row.letters);
        }
        let duplicates = db.duplicates_ever().await?;
        for vendor in Vendor::ALL.iter().map(|vendor| vendor.as_str()) {
            let row = duplicates.iter().find(|row| row.vendor == vendor);
            let open = row.map_or(0, |row| row.open);
            self.duplicates.with_label_values(&[vendor]).set(open);
        }
        self.notices.count(db).await?;
        // Last: it reads most, and what people are paged for must not wait for it.
        self.vendors.count(db).await?;
        self.last_success.set(chrono::Utc::now().timestamp() as f64);
        Ok(())
    }
}
