//! Watching one replayed job: did it get out of the stage that it had died in? Reads only; what counts is `domain::bulk`'s to say.

use std::time::{Duration, Instant};

use shared::db::{Db, DbResult};
use shared::domain::bulk::{Canary, CanaryOutcome};
use uuid::Uuid;

/// Between two looks.
const INTERVAL: Duration = Duration::from_millis(500);

/// What became of the canary.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is further on, or there was none to wait for.
    Passed,
    /// It is not, with why.
    Stopped(String),
}

/// Waits until the job is beyond the stage it had died in and the one it was put back into.
pub(super) async fn watch(db: &Db, canary: &Canary, timeout: Duration) -> DbResult<Verdict> {
    let until = Instant::now() + timeout;
    let job = canary.job;
    loop {
        let outcomes = db.canary_outcomes(std::slice::from_ref(canary)).await?;
        match outcomes.first() {
            Some(CanaryOutcome::Settled) => return Ok(Verdict::Passed),
            Some(CanaryOutcome::DeadAgain) => {
                let what = standing(db, job).await?;
                return Ok(Verdict::Stopped(format!("the canary, job {job}, {what}")));
            }
            Some(CanaryOutcome::Going) | None => {}
        }
        if Instant::now() >= until {
            return Ok(Verdict::Stopped(format!(
                "the canary, job {job}, has not got beyond where it had died within {timeout:?}"
            )));
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

/// Why it goes no further, for people.
async fn standing(db: &Db, job: Uuid) -> DbResult<String> {
    let status = db.job(job).await?.map(|job| job.status);
    Ok(match status.as_deref() {
        None => "was deleted".to_owned(),
        Some("failed") => "failed again".to_owned(),
        Some("canceled") => "was canceled".to_owned(),
        Some(_) => {
            let reason = db.job_stage(job).await?.and_then(|stage| stage.reason);
            format!("is parked: {}", reason.as_deref().unwrap_or("no reason"))
        }
    })
}
