//! Looking at stored jobs until they end.

use std::time::Duration;

use shared::db::{Db, DbResult, JobRow, StageRow};
use shared::domain::JobStatus;
use shared::telemetry::chain;
use uuid::Uuid;

use super::display::Display;
use crate::web::redacted;

/// Between two looks.
const INTERVAL: Duration = Duration::from_millis(500);

/// A stored job and how it was last seen.
#[derive(Debug)]
pub(super) struct Watched {
    line: Option<usize>,
    pub(super) id: Uuid,
    /// None before the first look, and when the row is gone.
    pub(super) job: Option<JobRow>,
    pub(super) stage: Option<StageRow>,
    gone: bool,
}

impl Watched {
    pub(super) fn new(line: Option<usize>, id: Uuid) -> Self {
        Self {
            line,
            id,
            job: None,
            stage: None,
            gone: false,
        }
    }

    /// The status, if the row is there and has one of the known.
    pub(super) fn status(&self) -> Option<JobStatus> {
        self.job.as_ref()?.status.parse().ok()
    }

    fn has_ended(&self) -> bool {
        use JobStatus as S;
        self.gone || matches!(self.status(), Some(S::Completed | S::Failed | S::Canceled))
    }

    async fn look(&mut self, db: &Db) -> DbResult<()> {
        self.stage = db.job_stage(self.id).await?;
        self.job = db.job(self.id).await?;
        self.gone = self.job.is_none();
        Ok(())
    }

    /// Where the job is, for the bar.
    fn message(&self) -> String {
        let Some(job) = &self.job else {
            return "deleted".to_owned();
        };
        let stage = self.stage.as_ref().map(|stage| match &stage.reason {
            Some(reason) => format!("{} {} ({reason})", stage.stage, stage.state),
            None => stage.stage.clone(),
        });
        let parts = [
            Some(job.status.clone()),
            stage,
            job.progress_message.clone().map(redacted),
        ];
        parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
    }

    fn percent(&self) -> i32 {
        let percent = self.job.as_ref().and_then(|job| job.progress_percentage);
        percent.unwrap_or_default()
    }
}

/// Looks at the jobs once, or until all have ended. A database that is away is waited for.
pub(super) async fn follow(
    db: &Db,
    display: &Display,
    mut watched: Vec<&mut Watched>,
    to_the_end: bool,
) -> DbResult<()> {
    if watched.is_empty() {
        return Ok(());
    }
    let mut shown = None;
    let mut away = false;
    loop {
        for job in watched.iter_mut().filter(|job| !job.has_ended()) {
            match job.look(db).await {
                Ok(()) => away = false,
                Err(error) if error.is_transient() && to_the_end => {
                    if !away {
                        display.note(&format!("still waiting: {}", chain(&error)));
                    }
                    away = true;
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        if !to_the_end {
            return Ok(());
        }
        show(display, &watched, &mut shown);
        if watched.iter().all(|job| job.has_ended()) {
            return Ok(());
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

/// Shows what has changed since `shown`.
fn show(display: &Display, watched: &[&mut Watched], shown: &mut Option<String>) {
    let ended = watched.iter().filter(|job| job.has_ended());
    let failed = ended
        .clone()
        .filter(|job| job.status() != Some(JobStatus::Completed));
    let (ended, failed) = (ended.count(), failed.count());
    let now = match watched {
        [job] if job.line.is_none() => format!("{} {}", job.percent(), job.message()),
        _ => format!("{ended} {failed}"),
    };
    if shown.as_ref() == Some(&now) {
        return;
    }
    match watched {
        [job] if job.line.is_none() => display.percent(job.percent(), &job.message()),
        _ => display.ended(ended, failed),
    }
    *shown = Some(now);
}
