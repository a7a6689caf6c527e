//! What is done for one message: its jobs are loaded, run within what is left of their leases, and settled.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures::FutureExt as _;
use shared::broker::Delivery;
use shared::config::{ProtocolConfig, SETTLE_MARGIN};
use shared::crash::{self, Point};
use shared::db::{DeadLetter, Forgotten, Loaded, Seen, WorkItem, retry_while_away};
use shared::domain::message::Message;
use shared::domain::outcome::{Outcome, Reason};
use shared::domain::{LedgerState, Stage};
use shared::telemetry::chain;
use uuid::Uuid;

use super::{End, StageConsumer};
use crate::run::Run;
use crate::stages;

/// After the database was away in the middle of a stage. Its settlement waits until it is back.
const DATABASE_PAUSE: Duration = Duration::from_secs(1);

impl StageConsumer {
    pub(super) async fn run_message(&self, delivery: &Delivery, message: &Message) -> End {
        let abort = &self.stopper.abort;
        let lease = self.environment.settings.protocol.stage_lease;
        let start = || self.environment.db.start(self.stage, &message.jobs, lease);
        let loaded = match retry_while_away(abort, start).await {
            None => return End::Requeue,
            Some(Ok(loaded)) => loaded,
            Some(Err(error)) => {
                tracing::error!(
                    error = chain(&error),
                    "cannot load; the jobs are due again after their lease"
                );
                return End::Ack;
            }
        };
        crash::point(Point::Loaded);
        if !self.note_misfits(&loaded).await {
            return End::Requeue;
        }
        if !loaded.unknown.is_empty() && !self.keep_unknown(delivery, &loaded.unknown).await {
            return End::Requeue;
        }
        if loaded.items.is_empty() {
            return End::Ack;
        }
        self.run_and_settle(loaded.items).await
    }

    /// Counts stale references; one from the future means that the database forgot commits, and stops all paid sends. False: told
    /// to give up.
    async fn note_misfits(&self, loaded: &Loaded) -> bool {
        let stale = loaded.stale as u64;
        self.environment
            .metrics
            .stale_references
            .with_label_values(&[self.stage.as_str()])
            .inc_by(stale);
        if stale > 0 {
            tracing::info!(stale, "skipped references that no longer match");
        }
        match loaded.from_the_future.first() {
            Some(job) => {
                self.stop_forgotten(format!(
                    "a message for job {job} is newer than its row: the database forgot commits"
                ))
                .await
            }
            None => true,
        }
    }

    /// Stops all paid sends for a sign that nobody will see again. False: told to give up.
    pub(super) async fn stop_forgotten(&self, reason: String) -> bool {
        let forgotten = Forgotten {
            reason,
            from: None,
            seen: Seen::Now,
        };
        let (db, actor) = (&self.environment.db, &self.environment.settings.actor);
        let stop = || db.stop_forgotten(&forgotten, actor);
        match retry_while_away(&self.stopper.abort, stop).await {
            None => false,
            Some(Ok(())) => true,
            Some(Err(error)) => {
                tracing::error!(
                    error = chain(&error),
                    "the database forgot commits, and paid sends cannot be stopped"
                );
                true
            }
        }
    }

    /// Keeps a message that names jobs nobody knows, with its body, for a person; the other jobs in it go on. False: told to
    /// give up. The same body is kept once, however often it comes.
    async fn keep_unknown(&self, delivery: &Delivery, jobs: &[Uuid]) -> bool {
        tracing::error!(jobs = ?jobs, "a message names jobs that nobody knows: kept as a dead letter");
        let letter = DeadLetter::Undecidable {
            stage: Some(self.stage),
            error: format!("names {} jobs that nobody knows", jobs.len()),
            body: delivery.body.to_vec(),
        };
        let headers = serde_json::json!({});
        let record = || self.environment.db.record_dead_letter(&letter, &headers);
        let kept = retry_while_away(&self.stopper.abort, record).await;
        crash::point(Point::UnknownKept);
        match kept {
            None => false,
            Some(Ok(())) => true,
            Some(Err(error)) => {
                tracing::error!(error = chain(&error), "cannot keep a message");
                true
            }
        }
    }

    async fn run_and_settle(&self, items: Vec<WorkItem>) -> End {
        let protocol = &self.environment.settings.protocol;
        let single = items.len() == 1;
        let (mut done, mut to_run) = (Vec::new(), Vec::new());
        for item in items {
            match refusal(&item, protocol) {
                Some(run) => done.push((item, run)),
                None => to_run.push(item),
            }
        }
        if !to_run.is_empty() {
            let runs = tokio::select! {
                runs = self.run_stage(&to_run) => runs,
                () = self.stopper.abort.cancelled() => return End::Requeue,
            };
            done.extend(to_run.into_iter().zip(runs));
        }
        for (item, run) in &mut done {
            run.bound(item, protocol.max_tries);
        }
        let gives_up = done.iter().any(|(_, run)| run.gives_up());
        if !self.settle(done).await {
            return End::Requeue;
        }
        // The rejected message carries the broker's headers to the dead-letter list; a batch has other jobs in it.
        if gives_up && single {
            End::Reject
        } else {
            End::Ack
        }
    }

    /// Runs the stage within what is left of the lease. Whatever happens, every item has a run. A claim that is cut off here
    /// is not sent on; it expires as unknown.
    async fn run_stage(&self, items: &[WorkItem]) -> Vec<Run> {
        let lease = items
            .iter()
            .map(|item| item.lease)
            .min()
            .unwrap_or_default();
        let within = if self.is_transfer() {
            Duration::MAX
        } else {
            lease.saturating_sub(SETTLE_MARGIN)
        };
        let work =
            AssertUnwindSafe(stages::run(&self.environment, self.stage, items)).catch_unwind();
        let fallback = |error: &str| items.iter().map(|_| Run::retry(error)).collect();
        let result = tokio::select! {
            result = tokio::time::timeout(within, work) => result,
            () = self.keep_lease(items) => return fallback("the lease was lost"),
        };
        match result {
            Ok(Ok(Ok(runs))) => runs,
            // No try is spent: the settlement waits for the database anyway.
            Ok(Ok(Err(error))) if error.is_transient() => {
                tracing::warn!(
                    error = chain(&error),
                    "the database is away: the stage will run again"
                );
                items.iter().map(|_| Run::later(DATABASE_PAUSE)).collect()
            }
            Ok(Ok(Err(error))) => fallback(&chain(&error)),
            Ok(Err(_)) => {
                tracing::error!("a stage panicked");
                fallback("the stage panicked")
            }
            Err(_) => fallback("the stage did not end within its lease"),
        }
    }

    const fn is_transfer(&self) -> bool {
        matches!(
            self.stage,
            Stage::SourceImport | Stage::LipsyncStore | Stage::InpaintStore
        )
    }

    /// Extends the lease of a long stage; ends when it was lost. Never ends for short stages.
    async fn keep_lease(&self, items: &[WorkItem]) {
        if !self.is_transfer() {
            return std::future::pending().await;
        }
        let lease = self.environment.settings.protocol.stage_lease;
        loop {
            tokio::time::sleep(lease / 3).await;
            for item in items {
                match self
                    .environment
                    .db
                    .renew_lease(item.job_id, item.epoch, lease)
                    .await
                {
                    Ok(true) => crash::point(Point::LeaseRenewed),
                    Ok(false) => return,
                    Err(error) => tracing::warn!(error = chain(&error), "cannot renew a lease"),
                }
            }
        }
    }
}

/// What happens to a job that is not to be run: it is over, or it has killed too many consumers. A submission whose outcome is
/// not known is cleared up first, whatever became of its job.
fn refusal(item: &WorkItem, protocol: &ProtocolConfig) -> Option<Run> {
    let state = item.submission.as_ref().map(|submission| submission.state);
    let unclear = matches!(state, Some(LedgerState::Claimed | LedgerState::Unknown));
    if !stages::is_active(item) && !unclear {
        return Some(match item.status {
            Some(status) => Run::new(Outcome::Over {
                why: format!("the job is {status}"),
            }),
            // Somebody else's word: it may come back.
            None => Run::later(protocol.retry_cap),
        });
    }
    (item.starts > protocol.max_starts).then(|| {
        let error = format!("started {} times without an end", item.starts - 1);
        if state.is_some_and(LedgerState::alive) {
            // Paid, or maybe paid: it is tried again for ever, but rarely, and loudly.
            tracing::error!(job.id = %item.job_id, error, "a job with a paid submission seems to kill its consumers");
            return Run::later(protocol.retry_cap);
        }
        Run::give_up(Reason::KillsConsumers, error)
    })
}
