//! Whether somebody has to act: what stands still or waits for a person.

use std::time::Duration;

use serde::Serialize;
use shared::db::{AuditRecord, Db, DbResult, LedgerGauge, PaidStop, Standing, VendorStatus};

use crate::held::Holds;

/// Failed jobs are counted so far back.
const LATELY: Duration = Duration::from_secs(24 * 3600);
/// And no further than to this number.
pub const MOST_FAILED: i64 = 10_000;

/// What stands still.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct Status {
    /// Why nothing paid is sent; null when it is.
    pub paid_sends_stopped: Option<PaidStop>,
    /// Accounts to which nothing, or nothing new, is sent.
    pub accounts_stopped: Vec<VendorStatus>,
    /// Works in flight, and those of them whose outcome is unknown.
    pub unknown: Vec<LedgerGauge>,
    /// Parked and dead jobs by reason.
    pub standing: Vec<Standing>,
    /// Jobs created in the last 24 hours that failed, dead letters among them; 10000 stands for more.
    pub failed_last_day: i64,
    /// Open ones.
    pub dead_letters: i64,
    /// The last audit that was finished without an error.
    pub last_audit: Option<AuditRecord>,
    /// The newest audit after that one which was not finished; null when none failed.
    pub failed_audit: Option<AuditRecord>,
}

impl Status {
    /// Reads it.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn read(db: &Db) -> DbResult<Self> {
        Self::of(db, &Holds::read(db).await?).await
    }

    /// Reads the rest of it.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn of(db: &Db, holds: &Holds) -> DbResult<Self> {
        let accounts = holds.accounts().iter();
        let accounts = accounts.filter(|account| account.refusal.is_some());
        let letters = db.dead_letter_gauges().await?;
        let last_audit = db.last_audit().await?;
        Ok(Self {
            paid_sends_stopped: holds.stop().cloned(),
            accounts_stopped: accounts.cloned().collect(),
            unknown: db.ledger_gauges().await?,
            standing: db.standing_jobs().await?,
            failed_last_day: db.failed_lately(LATELY, MOST_FAILED).await?,
            dead_letters: letters.iter().map(|row| row.letters).sum(),
            failed_audit: db.failed_audit(last_audit.as_ref()).await?,
            last_audit,
        })
    }
}
