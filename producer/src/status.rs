//! Whether somebody has to act: what stands still or waits for a person.

use serde::Serialize;
use shared::db::{AuditRecord, Db, DbResult, LedgerGauge, PaidStop, Standing, VendorStatus};

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
    /// Open ones.
    pub dead_letters: i64,
    /// The last audit that was finished without an error.
    pub last_audit: Option<AuditRecord>,
}

impl Status {
    /// Reads it.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn read(db: &Db) -> DbResult<Self> {
        let mut accounts = db.vendor_status().await?;
        accounts.retain(|account| account.refusal.is_some());
        let letters = db.dead_letter_gauges().await?;
        let last_audit = match db.last_audit().await? {
            Some(audit) => db.audit(audit.id).await?,
            None => None,
        };
        Ok(Self {
            paid_sends_stopped: db.paid_stop().await?,
            accounts_stopped: accounts,
            unknown: db.ledger_gauges().await?,
            standing: db.standing_jobs().await?,
            dead_letters: letters.iter().map(|row| row.letters).sum(),
            last_audit,
        })
    }
}
