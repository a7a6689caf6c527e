//! Watching one replayed job: did it get out of the stage that it had died in? Reads only.

use std::time::{Duration, Instant};

use shared::db::{Db, DbResult};
use shared::domain::Stage;
use shared::domain::resume::is_beyond;
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
pub(super) async fn watch(
    db: &Db,
    job: Uuid,
    died_in: Option<Stage>,
    put_into: Stage,
    timeout: Duration,
) -> DbResult<Verdict> {
    let until = Instant::now() + timeout;
    let furthest = match died_in {
        Some(stage) if is_beyond(stage, put_into) => stage,
        _ => put_into,
    };
    loop {
        if let Some(verdict) = look(db, job, furthest).await? {
            return Ok(verdict);
        }
        if Instant::now() >= until {
            return Ok(Verdict::Stopped(format!(
                "the canary, job {job}, has not got beyond {furthest} within {timeout:?}"
            )));
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

async fn look(db: &Db, id: Uuid, furthest: Stage) -> DbResult<Option<Verdict>> {
    // The stage first: a job that ends between the two looks has its last word in its row.
    let stage = db.job_stage(id).await?;
    let Some(job) = db.job(id).await? else {
        return Ok(Some(Verdict::Stopped(format!(
            "the canary, job {id}, was deleted"
        ))));
    };
    let stopped = |what: &str| {
        let why = format!("the canary, job {id}, {what}");
        Some(Verdict::Stopped(why))
    };
    Ok(match (job.status.as_str(), stage) {
        ("completed", _) => Some(Verdict::Passed),
        ("failed", _) => stopped("failed again"),
        ("canceled", _) => stopped("was canceled"),
        (_, Some(row)) if row.state == "parked" => stopped(&format!(
            "is parked: {}",
            row.reason.as_deref().unwrap_or("no reason")
        )),
        (_, Some(row)) => row
            .stage
            .parse()
            .ok()
            .filter(|stage| is_beyond(*stage, furthest))
            .map(|_| Verdict::Passed),
        (_, None) => None,
    })
}
