//! Processes stored callbacks. A callback is evidence, never trusted for a state: it makes a poll due, and where the ledger does
//! not know of a work, the vendor is asked for it and the answer has to show the submission's token.
//!
//! While one waits, `claim` opens no new submission for its job, so every callback comes to an end: after a bounded number of
//! tries as `failed`. Must not publish, and writes the ledger through `settle` alone.

use std::sync::Arc;
use std::time::Duration;

use chrono::DateTime;
use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, Opts};
use serde_json::json;
use shared::crash::{self, Point};
use shared::db::{
    CalledBack, Db, DbError, DueCallback, Forgotten, Hinted, LedgerVerdict, MetadataVerdict,
};
use shared::domain::answer::Work;
use shared::domain::classify;
use shared::domain::outcome::Schedule;
use shared::domain::search::is_of;
use shared::domain::{LedgerState, Vendor};
use shared::telemetry::{Registry, chain, trace};
use shared::vendor::VendorError;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use crate::booking::{About, found, polls};
use crate::vendors::Vendors;

/// Callbacks in hand at a time. Each takes a few statements, seldom a status call.
const PAGE: i64 = 16;
/// Who acts, in trails.
const ACTOR: &str = "callback";

/// What a callback came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The poll of its job is due.
    Hinted,
    /// Nobody polls the work any more.
    Late,
    /// The ledger did not know the work: it does now, and the job goes on with it.
    Adopted,
    /// The work was paid for and another one is the job's.
    Duplicate,
    /// The submission has another work already: paid twice.
    Second,
    /// The vendor's id belongs to another submission.
    Taken,
    /// The ledger's state says that there cannot be a work.
    Kept,
    /// The work it names does not show the token that was called.
    NotOurs,
    /// The body is no callback of this vendor.
    Unreadable,
    /// The ledger has no such submission.
    UnknownToken,
    /// It could not be processed, however often it was tried.
    Failed,
}

impl Outcome {
    const ALL: [Self; 11] = [
        Self::Hinted,
        Self::Late,
        Self::Adopted,
        Self::Duplicate,
        Self::Second,
        Self::Taken,
        Self::Kept,
        Self::NotOurs,
        Self::Unreadable,
        Self::UnknownToken,
        Self::Failed,
    ];

    /// As in the table and in the metric's label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hinted => "hinted",
            Self::Late => "late",
            Self::Adopted => "adopted",
            Self::Duplicate => "duplicate",
            Self::Second => "second",
            Self::Taken => "taken",
            Self::Kept => "kept",
            Self::NotOurs => "not_ours",
            Self::Unreadable => "unreadable",
            Self::UnknownToken => "unknown_token",
            Self::Failed => "failed",
        }
    }

    /// Why a person has to look; none for what happens every day.
    const fn alarm(self) -> Option<&'static str> {
        match self {
            Self::Hinted | Self::Late | Self::Adopted => None,
            Self::Duplicate => Some("a work was paid for that its job does not need"),
            Self::Second => Some("a submission has two works: paid twice"),
            Self::Taken => Some("the vendor's id belongs to another submission"),
            Self::Kept => Some("the vendor has a work that, by the ledger, it cannot have"),
            Self::NotOurs => Some("the work does not show the token that was called"),
            Self::Unreadable => Some("the body is signed and cannot be read"),
            Self::UnknownToken => {
                Some("the ledger has no such submission: has the database forgotten commits?")
            }
            Self::Failed => Some("it could not be processed"),
        }
    }
}

/// `callbacks_total{vendor,outcome}`, `callback_processing_seconds{vendor}` and `duplicate_submissions_total{vendor}`.
#[derive(Clone)]
pub struct Metrics {
    total: IntCounterVec,
    duplicates: IntCounterVec,
    processing: HistogramVec,
}

impl Metrics {
    /// Registers them.
    ///
    /// # Errors
    /// When a name is taken.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let total = IntCounterVec::new(
            Opts::new(
                "callbacks_total",
                "Callbacks of vendors by what they came to",
            ),
            &["vendor", "outcome"],
        )?;
        let processing = HistogramVec::new(
            HistogramOpts::new(
                "callback_processing_seconds",
                "From storing a callback to the end of its processing",
            )
            .buckets(vec![0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0, 300.0, 3600.0]),
            &["vendor"],
        )?;
        let duplicates = IntCounterVec::new(
            Opts::new(
                "duplicate_submissions_total",
                "Works paid for twice; must stay 0",
            ),
            &["vendor"],
        )?;
        // An alert on an increase misses the first one of a series that was not there.
        for vendor in Vendor::ALL.iter().map(|vendor| vendor.as_str()) {
            duplicates.with_label_values(&[vendor]);
            for outcome in Outcome::ALL {
                total.with_label_values(&[vendor, outcome.as_str()]);
            }
        }
        registry.register(Box::new(duplicates.clone()))?;
        registry.register(Box::new(total.clone()))?;
        registry.register(Box::new(processing.clone()))?;
        Ok(Self {
            total,
            duplicates,
            processing,
        })
    }

    /// Counts one. `outcome` is that of an [`Outcome`], or of the receiver: `repeated`, `refused`.
    pub(crate) fn count(&self, vendor: Vendor, outcome: &'static str) {
        self.total
            .with_label_values(&[vendor.as_str(), outcome])
            .inc();
    }
}

/// Processes callbacks. Any number of producers may: each callback is picked up by one.
#[derive(Clone)]
pub struct Processor {
    /// Database.
    pub db: Db,
    /// Both vendors, for free calls.
    pub vendors: Vendors,
    /// Delays between tries; their number bounds the tries.
    pub retries: Schedule,
    /// For so long a picked callback is this producer's.
    pub lease: Duration,
    /// Metrics.
    pub metrics: Metrics,
}

/// What a try came to.
enum Tried {
    Ended(Outcome),
    /// Try again.
    Again {
        /// Why.
        why: &'static str,
        /// What it came to if this was the last try.
        at_last: Outcome,
    },
}

#[derive(Debug, thiserror::Error)]
enum TryError {
    #[error(transparent)]
    Db(#[from] DbError),
    #[error(transparent)]
    Vendor(#[from] VendorError),
}

impl Processor {
    /// Processes what is due until told to stop, at the latest every `interval`; `arrived` says that something was stored here.
    pub async fn run(self, interval: Duration, arrived: Arc<Notify>, stop: CancellationToken) {
        loop {
            // Not cut off by the stop: a try may be settling.
            let full = match self.db.pick_callbacks(PAGE, self.lease).await {
                Ok(picked) => {
                    if !picked.is_empty() {
                        crash::point(Point::CallbacksPicked);
                    }
                    let full = picked.len() as i64 == PAGE;
                    self.process_all(picked).await;
                    full
                }
                Err(error) => {
                    tracing::warn!(error = chain(&error), "cannot pick up callbacks");
                    false
                }
            };
            let wait = async {
                if !full {
                    // A missed notice costs one interval.
                    let _ = tokio::time::timeout(interval, arrived.notified()).await;
                }
            };
            if stop.run_until_cancelled(wait).await.is_none() {
                return;
            }
        }
    }

    async fn process_all(&self, picked: Vec<DueCallback>) {
        if picked.is_empty() {
            return;
        }
        // Tasks, so that a panic costs one try of one callback.
        let mut tries = JoinSet::new();
        for callback in picked {
            let processor = self.clone();
            let span = match &callback.submission {
                Some(about) => trace::callback(about.job, callback.vendor, callback.token),
                None => tracing::Span::none(),
            };
            tries.spawn(async move { processor.process(&callback).await }.instrument(span));
        }
        while let Some(ended) = tries.join_next().await {
            if let Err(error) = ended {
                tracing::error!(%error, "processing a callback panicked");
            }
        }
        crash::point(Point::CallbacksFinished);
        if let Err(error) = self.db.notify_due().await {
            tracing::debug!(error = chain(&error), "cannot say that something is due");
        }
    }

    /// One try, and what it came to into the table. Killed anywhere in it: picked up again after the lease, and everything it
    /// did is harmless to repeat.
    async fn process(&self, callback: &DueCallback) {
        // Model: step ProcessCallback.
        let exhausted = callback.tries > self.retries.len();
        let tried = if exhausted {
            Ok(Tried::Ended(Outcome::Failed))
        } else {
            self.try_once(callback).await
        };
        let (again, at_last) = match tried {
            Ok(Tried::Ended(outcome)) => return self.end(callback, outcome, None).await,
            Ok(Tried::Again { why, at_last }) => (why.to_owned(), at_last),
            Err(TryError::Vendor(error)) => (chain(&error), Outcome::Failed),
            Err(TryError::Db(error)) => (chain(&error), Outcome::Failed),
        };
        if callback.tries >= self.retries.len() {
            return self.end(callback, at_last, Some(&again)).await;
        }
        let delay = self.retries.delay(callback.tries.saturating_sub(1));
        if let Err(error) = self.db.put_off_callback(callback.id, delay, &again).await {
            tracing::warn!(error = chain(&error), "cannot put a callback off");
        }
    }

    async fn end(&self, callback: &DueCallback, outcome: Outcome, detail: Option<&str>) {
        let (vendor, token) = (callback.vendor, callback.token);
        let word = outcome.as_str();
        tracing::Span::current().record("outcome", word);
        match self.db.finish_callback(callback.id, word, detail).await {
            Ok(Some(seconds)) => {
                self.metrics.count(vendor, word);
                let processing = self
                    .metrics
                    .processing
                    .with_label_values(&[vendor.as_str()]);
                processing.observe(seconds);
                let job = callback
                    .submission
                    .as_ref()
                    .map(|submission| submission.job);
                let job = job.map(tracing::field::display);
                match outcome.alarm() {
                    Some(why) => tracing::error!(%vendor, job.id = job, submission.token = %token,
                        outcome = word, detail, "a callback needs a look: {why}"),
                    None => tracing::info!(%vendor, job.id = job, submission.token = %token,
                        outcome = word, "callback processed"),
                }
            }
            Ok(None) => {}
            Err(error) => tracing::warn!(error = chain(&error), "cannot end a callback"),
        }
    }

    async fn try_once(&self, callback: &DueCallback) -> Result<Tried, TryError> {
        let reported = match callback.vendor {
            Vendor::Sync => classify::sync::callback(&callback.body),
            Vendor::Ghostcut => classify::ghostcut::callback(&callback.body),
        };
        let Some(submission) = &callback.submission else {
            return self.forgotten(callback, reported).await;
        };
        match reported {
            None => {
                self.hint(callback.vendor, submission).await?;
                Ok(Tried::Ended(Outcome::Unreadable))
            }
            Some(work) if submission.task_id.as_ref() == Some(&work.task_id) => {
                self.known(callback.vendor, submission).await
            }
            Some(work) => self.look(callback, submission, work.task_id).await,
        }
    }

    /// The ledger does not know the token. If the vendor shows a work with it, the database forgot that we paid. The signature
    /// does not cover the path, so the token alone proves nothing.
    async fn forgotten(
        &self,
        callback: &DueCallback,
        reported: Option<Work>,
    ) -> Result<Tried, TryError> {
        if let Some(reported) = reported {
            let seen = self.db.last_resume().await?;
            let works = self
                .vendors
                .status(callback.vendor, &[reported.task_id])
                .await?;
            let ours = works.iter().find(|work| is_of(work, callback.token));
            if let Some(work) = ours {
                let taken = work.created_at_ms.and_then(DateTime::from_timestamp_millis);
                let reason = format!(
                    "{} has called back about submission {}, which is not in the ledger: the database forgot commits",
                    callback.vendor, callback.token
                );
                let forgotten = Forgotten {
                    reason,
                    from: self.db.forgotten_from(taken).await?,
                    seen,
                };
                // Not stopped: the callback is tried again, nobody else may see the sign.
                self.db.stop_forgotten(&forgotten, ACTOR).await?;
            }
        }
        Ok(Tried::Ended(Outcome::UnknownToken))
    }

    /// The ledger knows the work.
    async fn known(&self, vendor: Vendor, submission: &CalledBack) -> Result<Tried, TryError> {
        match submission.state {
            LedgerState::Duplicate => Ok(Tried::Ended(Outcome::Duplicate)),
            LedgerState::Accepted | LedgerState::Redoing => self.hint(vendor, submission).await,
            _ => Ok(Tried::Ended(Outcome::Late)),
        }
    }

    async fn hint(&self, vendor: Vendor, submission: &CalledBack) -> Result<Tried, TryError> {
        let hinted = self.db.hint_poll(submission.job, polls(vendor)).await?;
        Ok(match hinted {
            Hinted::Due => {
                crash::point(Point::CallbackHinted);
                Tried::Ended(Outcome::Hinted)
            }
            Hinted::NotPolling => Tried::Ended(Outcome::Late),
            // It asks, or asks again, within a lease: nothing is lost.
            Hinted::Running => Tried::Again {
                why: "a poll is under way",
                at_last: Outcome::Late,
            },
        })
    }

    /// The ledger does not know the work: the vendor has to show it, and it the token.
    async fn look(
        &self,
        callback: &DueCallback,
        submission: &CalledBack,
        task_id: String,
    ) -> Result<Tried, TryError> {
        let (vendor, token) = (callback.vendor, callback.token);
        let ids = [task_id];
        let works = self.vendors.status(vendor, &ids).await?;
        crash::point(Point::CallbackLooked);
        let Some(work) = works.iter().find(|work| work.task_id == ids[0]) else {
            return Ok(Tried::Again {
                why: "the vendor does not show the work",
                at_last: Outcome::Failed,
            });
        };
        if !is_of(work, token) {
            return Ok(Tried::Ended(Outcome::NotOurs));
        }
        self.adopt(vendor, submission, token, work).await
    }

    async fn adopt(
        &self,
        vendor: Vendor,
        submission: &CalledBack,
        token: uuid::Uuid,
        work: &Work,
    ) -> Result<Tried, TryError> {
        let about = About {
            vendor,
            job: submission.job,
            token,
        };
        let detail = json!({ "task_id": work.task_id });
        let settlement = found(about, work, ACTOR, "called_back", detail);
        let verdict = self.db.settle(&settlement).await?;
        crash::point(Point::CallbackSettled);
        if verdict.metadata == MetadataVerdict::Other || verdict.ledger == LedgerVerdict::Second {
            let duplicates = self
                .metrics
                .duplicates
                .with_label_values(&[vendor.as_str()]);
            duplicates.inc();
        }
        Ok(Tried::Ended(match verdict.ledger {
            LedgerVerdict::Written if verdict.metadata == MetadataVerdict::Other => {
                Outcome::Duplicate
            }
            LedgerVerdict::Written => Outcome::Adopted,
            LedgerVerdict::Second => Outcome::Second,
            LedgerVerdict::Taken => Outcome::Taken,
            LedgerVerdict::Kept => Outcome::Kept,
            // Somebody settled it since the callback was picked up: its poll is due later.
            LedgerVerdict::Same | LedgerVerdict::None => {
                return self.hint(vendor, submission).await;
            }
        }))
    }
}
