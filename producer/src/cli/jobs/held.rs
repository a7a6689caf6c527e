//! Why a job stays where it is: nothing new may be paid for at its vendor now, or the last answer put it off.

use std::collections::HashMap;

use shared::db::{Db, DbResult, PaidStop, PutOff, StageRow, VendorStatus};
use shared::domain::admission::SignalKind;
use shared::domain::{Stage, StageState, Vendor};
use uuid::Uuid;

use crate::cli::{paid, vendors};
use crate::web::redacted;

/// What may hold jobs back at the moment.
pub(super) struct Holds {
    stop: Option<PaidStop>,
    accounts: Vec<VendorStatus>,
    put_off: HashMap<Uuid, PutOff>,
}

impl Holds {
    /// Reads it, for these jobs.
    pub(super) async fn read(db: &Db, jobs: &[Uuid]) -> DbResult<Self> {
        Ok(Self {
            stop: db.paid_stop().await?,
            accounts: db.vendor_status().await?,
            put_off: db.put_off(jobs).await?,
        })
    }

    /// Why this job is held, in one sentence; none when nothing holds it. One whose outcome is unknown waits in the same stage and is
    /// not held by caps and budgets, but it is dispatched as soon as it is due and so is not seen waiting here.
    pub(super) fn why(&self, job: Uuid, stage: Option<&StageRow>) -> Option<String> {
        let stage = stage?;
        if stage.state != StageState::Waiting.as_str() {
            return None;
        }
        if stage.due_at.is_some_and(|due| due > chrono::Utc::now()) {
            return self.waits(job, stage);
        }
        let vendor = pays(stage.stage.parse().ok()?)?;
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

impl Holds {
    /// Why a job waits for its time although it has been tried.
    fn waits(&self, job: Uuid, stage: &StageRow) -> Option<String> {
        let put_off = self.put_off.get(&job)?;
        let due = stage.due_at?.format("%Y-%m-%d %H:%M:%S UTC");
        let said = put_off.said.clone().map(redacted).unwrap_or_default();
        let vendor = stage.stage.parse().ok().and_then(Stage::vendor);
        Some(match (&put_off.answer, vendor) {
            // No answer is none.
            (Some(answer), Some(vendor)) if answer != SignalKind::Fails.as_str() => format!(
                "waits until {due}: {vendor} answered {answer}: {said}; `producer jobs resume {job}` does not wait"
            ),
            _ => format!("waits until {due}: {said}"),
        })
    }
}

/// Whom a stage pays.
fn pays(stage: Stage) -> Option<Vendor> {
    matches!(stage, Stage::LipsyncSubmit | Stage::InpaintSubmit).then(|| stage.vendor())?
}
