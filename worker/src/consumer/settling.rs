//! Writes what runs came to: paid ones alone, free moves in groups; counts and logs what the database made of them.

use shared::crash::{self, Point};
use shared::db::{
    LedgerVerdict, MetadataVerdict, MoveVerdict, Settlement, Verdict, WorkItem, retry_while_away,
};
use shared::domain::JobStatus;
use shared::telemetry::{chain, trace};

use super::StageConsumer;
use crate::run::{Run, log_run};
use crate::settle::{Context, settlement};
use crate::submission::account;

/// Free moves that are settled in one transaction.
const GROUP: usize = 32;

impl StageConsumer {
    /// Settles everything, keeping at it while the database is away. False: told to give up.
    pub(super) async fn settle(&self, runs: Vec<(WorkItem, Run)>) -> bool {
        let settings = &self.environment.settings;
        let context = Context {
            actor: &settings.actor,
            account: self
                .stage
                .vendor()
                .map_or("", |vendor| account(&self.environment, vendor)),
            protocol: &settings.protocol,
            jitter: rand::random(),
        };
        let (mut free, mut alone) = (Vec::new(), Vec::new());
        // Until all of them are written.
        let mut spans = Vec::new();
        for (item, run) in runs {
            spans.push(trace::settle(
                item.job_id,
                self.stage,
                item.epoch,
                run.label(),
            ));
            self.environment
                .metrics
                .stage_runs
                .with_label_values(&[self.stage.as_str(), run.label()])
                .inc();
            log_run(&item, &run);
            let group = if run.is_free() { &mut free } else { &mut alone };
            group.push(settlement(self.stage, &item, run, context));
        }
        for settlement in alone {
            if !self.settle_group(std::slice::from_ref(&settlement)).await {
                return false;
            }
        }
        for group in free.chunks(GROUP) {
            if !self.settle_group(group).await {
                return false;
            }
        }
        true
    }

    async fn settle_group(&self, group: &[Settlement]) -> bool {
        let abort = &self.stopper.abort;
        // Model: step Settle.
        let settled = retry_while_away(abort, || self.environment.db.settle_all(group)).await;
        match settled {
            None => false,
            Some(Ok(verdicts)) => {
                crash::point(Point::SettleCommitted);
                self.environment
                    .metrics
                    .settle_batch
                    .observe(group.len() as f64);
                for (settlement, verdict) in group.iter().zip(verdicts) {
                    self.note(settlement, verdict);
                }
                true
            }
            // One bad settlement must not keep the others from being settled.
            Some(Err(_)) if group.len() > 1 => {
                let mut all = true;
                for settlement in group {
                    all &= Box::pin(self.settle_group(std::slice::from_ref(settlement))).await;
                }
                all
            }
            Some(Err(error)) if error.is_forgotten_submission() => {
                let (job, token) = (group[0].job, group[0].fact.as_ref().map(|fact| fact.token));
                // What the vendor answered is in the vendor's list too, from where the audit books it.
                tracing::error!(job.id = %job, submission.token = token.map(tracing::field::display), "the submission is gone from the ledger");
                self.stop_forgotten(format!(
                    "a submission of job {job} is gone from the ledger: the database forgot commits"
                ))
                .await
            }
            Some(Err(error)) => {
                tracing::error!(job.id = %group[0].job, error = chain(&error), "cannot settle; the job is due again after its lease");
                true
            }
        }
    }

    fn note(&self, settlement: &Settlement, verdict: Verdict) {
        let metrics = &self.environment.metrics;
        if let (Some(fact), Some(vendor)) = (&settlement.fact, settlement.stage.vendor()) {
            let vendor = vendor.as_str();
            if verdict.ledger == LedgerVerdict::Written {
                metrics
                    .submissions
                    .with_label_values(&[vendor, fact.state.as_str()])
                    .inc();
            }
            if verdict.metadata == MetadataVerdict::Other || verdict.ledger == LedgerVerdict::Second
            {
                metrics
                    .duplicate_submissions
                    .with_label_values(&[vendor])
                    .inc();
                tracing::error!(job.id = %settlement.job, submission.token = %fact.token, ?verdict,
                    "a second work was paid for this job");
            }
        }
        let ended = settlement.job_patch.as_ref().and_then(|patch| patch.status);
        if let (
            Some(status @ (JobStatus::Completed | JobStatus::Failed)),
            MoveVerdict::Moved,
            Some(seconds),
        ) = (ended, verdict.r#move, verdict.job_seconds)
        {
            metrics
                .job_duration
                .with_label_values(&[status.as_str()])
                .observe(seconds);
        }
        if verdict.r#move == MoveVerdict::Held {
            tracing::warn!(job.id = %settlement.job, "the vendor seems to reject every job: this one waits instead of failing");
        }
        tracing::debug!(job.id = %settlement.job, epoch = settlement.epoch, ?verdict, "settled");
        if settlement
            .r#move
            .as_ref()
            .is_some_and(|mv| mv.delay_ms == 0)
        {
            self.due.notify_one();
        }
    }
}
