//! Why a job that is due stays where it is: nothing new may be paid for at its vendor now.

use shared::db::{Db, DbResult, PaidStop, StageRow, VendorStatus};
use shared::domain::{Stage, StageState, Vendor};

use crate::cli::{paid, vendors};

/// What may hold jobs back at the moment.
pub(super) struct Holds {
    stop: Option<PaidStop>,
    accounts: Vec<VendorStatus>,
}

impl Holds {
    /// Reads it.
    pub(super) async fn read(db: &Db) -> DbResult<Self> {
        Ok(Self {
            stop: db.paid_stop().await?,
            accounts: db.vendor_status().await?,
        })
    }

    /// Why this job is held, in one sentence; none when nothing holds it. One whose outcome is unknown waits in the same stage and is
    /// not held by caps and budgets, but it is dispatched as soon as it is due and so is not seen waiting here.
    pub(super) fn why(&self, stage: Option<&StageRow>) -> Option<String> {
        let stage = stage?;
        let vendor = pays(stage.stage.parse().ok()?)?;
        let is_due = stage.due_at.is_some_and(|due| due <= chrono::Utc::now());
        if !is_due || stage.state != StageState::Waiting.as_str() {
            return None;
        }
        if let Some(stop) = &self.stop {
            return Some(format!(
                "held: paid sends are stopped {}",
                paid::in_words(stop)
            ));
        }
        let ours = || {
            let all = self.accounts.iter();
            all.filter(|account| account.vendor == vendor.as_str())
        };
        // Whose account a job will be sent with is the workers' to say.
        let open = ours().any(|account| account.refusal.is_none());
        let account = ours().next().filter(|_| !open)?;
        Some(format!(
            "held: nothing new is sent to {}/{}: {}",
            account.vendor,
            account.account,
            vendors::stopped(account)
        ))
    }
}

/// Whom a stage pays.
fn pays(stage: Stage) -> Option<Vendor> {
    matches!(stage, Stage::LipsyncSubmit | Stage::InpaintSubmit).then(|| stage.vendor())?
}
