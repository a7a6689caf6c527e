//! Unknown outcomes that no stage clears up any more, because their job is gone, over, or stands: searched for at the vendor, and
//! booked when found. What is not found stays unknown, where everybody sees it; nothing here decides that a work is absent.

use std::time::Duration;

use chrono::TimeDelta;
use serde_json::json;
use shared::crash::{self, Point};
use shared::db::{Db, DbError, LostUnknown};
use shared::domain::Vendor;
use shared::domain::classify::ErrorClass;
use shared::domain::search::{AROUND, is_of, worth};
use shared::vendor::VendorError;

use crate::booking::{About, found};
use crate::vendors::Vendors;

/// Searches for unknown outcomes that no stage clears up any more, because their job is gone, over, or stands.
pub struct LostSearch {
    /// Database.
    pub db: Db,
    /// Both vendors.
    pub vendors: Vendors,
    /// How long after one search the next one is made.
    pub pause: Duration,
}

/// Searches in one sweep: each is a list call.
const SEARCHES: i64 = 20;
/// How long after its claim a work may have been taken at the latest: a frozen sender wakes up.
const LATEST: TimeDelta = TimeDelta::hours(24);

impl LostSearch {
    /// Searches for those that are due, and books what it finds.
    pub async fn sweep(&self) {
        for vendor in Vendor::ALL {
            if let Err(error) = self.search(*vendor).await {
                tracing::warn!(%vendor, "cannot search for unknown outcomes: {error:#}");
            }
        }
    }

    async fn search(&self, vendor: Vendor) -> anyhow::Result<()> {
        let account = self.vendors.account(vendor);
        let lost = self
            .db
            .lost_unknowns(vendor, account, self.pause, SEARCHES)
            .await?;
        for unknown in lost {
            let Err(error) = self.search_one(vendor, &unknown).await else {
                continue;
            };
            if ends_sweep(&error) {
                return Err(error);
            }
            tracing::warn!(%vendor, job.id = %unknown.job_id, submission.token = %unknown.token,
                "cannot search for an unknown outcome: {error:#}");
        }
        Ok(())
    }

    async fn search_one(&self, vendor: Vendor, unknown: &LostUnknown) -> anyhow::Result<()> {
        let (from, to) = (
            unknown.claimed_at - AROUND,
            unknown.now.min(unknown.claimed_at + LATEST) + AROUND,
        );
        let works = match self.vendors.list(vendor, from, to).await {
            Ok(works) => works,
            Err(error) => {
                // Whatever it was: next time the others come first.
                self.db.record_failed_search(unknown.token).await?;
                crash::point(Point::LostSearched);
                return Err(error.into());
            }
        };
        crash::point(Point::LostListed);
        let ours = works.iter().filter(|work| is_of(work, unknown.token));
        let Some(work) = ours.min_by_key(|work| worth(&work.state)) else {
            self.db.record_search(unknown.token).await?;
            crash::point(Point::LostSearched);
            return Ok(());
        };
        let about = About {
            vendor,
            job: unknown.job_id,
            token: unknown.token,
        };
        let detail = json!({ "adopted": work.task_id });
        let settlement = found(about, work, "ledger-sweep", "swept", detail);
        let verdict = self.db.settle(&settlement).await?;
        crash::point(Point::LostBooked);
        tracing::warn!(%vendor, job.id = %unknown.job_id, submission.token = %unknown.token, ?verdict,
            "a work whose answer was lost was found for a job that does not look for it");
        Ok(())
    }
}

/// Whether the next search would fail as well: the database or the vendor is away, or the account may not ask now.
fn ends_sweep(error: &anyhow::Error) -> bool {
    if let Some(error) = error.downcast_ref::<VendorError>() {
        return match error.class() {
            ErrorClass::Transient | ErrorClass::Throttled { .. } | ErrorClass::Misconfigured => {
                true
            }
            ErrorClass::NotFound | ErrorClass::Protocol => false,
        };
    }
    error
        .downcast_ref::<DbError>()
        .is_some_and(DbError::is_transient)
}
