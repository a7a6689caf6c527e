//! Unknown outcomes that no stage clears up any more, because their job is gone, over, or stands: searched for at the vendor, and
//! booked when found. What is not found stays unknown, where everybody sees it; nothing here decides that a work is absent.

use std::time::Duration;

use chrono::TimeDelta;
use serde_json::json;
use shared::crash::{self, Point};
use shared::db::Db;
use shared::domain::Vendor;
use shared::domain::search::{AROUND, is_of, worth};

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
            let to = unknown.now.min(unknown.claimed_at + LATEST) + AROUND;
            let works = self
                .vendors
                .list(vendor, unknown.claimed_at - AROUND, to)
                .await?;
            crash::point(Point::LostListed);
            let ours = works.iter().filter(|work| is_of(work, unknown.token));
            let Some(work) = ours.min_by_key(|work| worth(&work.state)) else {
                self.db.record_search(unknown.token).await?;
                crash::point(Point::LostSearched);
                continue;
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
        }
        Ok(())
    }
}
