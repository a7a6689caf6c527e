//! One consumer per stage: permit -> delivery -> load -> run -> settle -> acknowledge.
//!
//! Must not decide what a stage's outcome means (`settle`), and must not acknowledge before the commit (I4).

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt as _;
use shared::broker::{BrokerError, Connection, Consumer, Delivery, Queue};
use shared::config::{ProtocolConfig, SETTLE_MARGIN};
use shared::crash::{self, Point};
use shared::db::{
    DeadLetter, Forgotten, LedgerVerdict, Loaded, MetadataVerdict, MoveVerdict, Seen, Settlement,
    Verdict, WorkItem, retry_while_away,
};
use shared::domain::message::{Message, Undecodable};
use shared::domain::outcome::{Outcome, Reason};
use shared::domain::{JobStatus, LedgerState, Stage};
use shared::service::Stopper;
use shared::telemetry::{chain, trace};
use tokio::sync::{Notify, OwnedSemaphorePermit};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;
use uuid::Uuid;

use crate::environment::Environment;
use crate::gate::Gate;
use crate::readiness::Pulse;
use crate::run::{Run, log_run};
use crate::settle::{Context, settlement};
use crate::stages;
use crate::submission::account;

/// After the database was away in the middle of a stage. Its settlement waits until it is back.
const DATABASE_PAUSE: Duration = Duration::from_secs(1);

/// Free moves that are settled in one transaction.
const GROUP: usize = 32;

/// One stage's consumer.
pub struct StageConsumer {
    /// The handles.
    pub environment: Environment,
    /// The stage.
    pub stage: Stage,
    /// Messages in hand at a time.
    pub permits: u16,
    /// Tells the dispatchers that something became due.
    pub due: Arc<Notify>,
    /// The two phases of a stop.
    pub stopper: Stopper,
    /// Whether anything new is taken.
    pub gate: Gate,
    /// For readiness; see [`Pulse`].
    pub pulse: Pulse,
}

/// What happens to a delivery when its work is over.
enum End {
    Ack,
    Reject,
    Requeue,
}

impl End {
    const fn as_str(&self) -> &'static str {
        match self {
            Self::Ack => "acknowledged",
            Self::Reject => "rejected",
            Self::Requeue => "given_back",
        }
    }
}

impl StageConsumer {
    /// Consumes until told to stop, but for the times in which the gate is closed; then finishes what is in hand, or gives it back
    /// when the grace period is over.
    ///
    /// # Errors
    /// When the broker stayed unusable for the bound: the process should exit.
    pub async fn run(self, connection: Connection) -> Result<(), BrokerError> {
        let queue = Queue::Stage(self.stage);
        let mut consumer = Consumer::new(connection.clone(), queue, self.permits);
        let tasks = self.pulse.in_hand.clone();
        let this = Arc::new(self);
        let result = loop {
            match this.take(&mut consumer, &this.gate.opening()).await {
                Ok(Some((permit, delivery))) => {
                    let this = Arc::clone(&this);
                    tasks.spawn(async move {
                        this.handle(delivery).await;
                        drop(permit);
                    });
                }
                Ok(None) => match this.rest(&connection).await {
                    Ok(true) => {}
                    Ok(false) => break Ok(()),
                    Err(error) => break Err(error),
                },
                Err(error) => break Err(error),
            }
        };
        tasks.close();
        tasks.wait().await;
        result
    }

    /// The next delivery; none once `opening` is over: then nothing is subscribed to, whatever is still in hand.
    async fn take(
        &self,
        consumer: &mut Consumer,
        opening: &CancellationToken,
    ) -> Result<Option<(OwnedSemaphorePermit, Delivery)>, BrokerError> {
        // The permit first: a delivery in hand that nobody works on would keep another worker from it.
        let permit = Arc::clone(&self.pulse.permits).acquire_owned();
        let Some(Ok(permit)) = opening.run_until_cancelled(permit).await else {
            // With all hands full, each that becomes free would be filled again.
            consumer.unsubscribe().await;
            return Ok(None);
        };
        let delivery = consumer.next(opening).await?;
        Ok(delivery.map(|delivery| (permit, delivery)))
    }

    /// Nothing is taken: waits until it may be, or false: told to stop. What was in hand goes on meanwhile.
    async fn rest(&self, connection: &Connection) -> Result<bool, BrokerError> {
        if self.stopper.drain.is_cancelled() {
            return Ok(false);
        }
        crash::point(Point::ConsumerQuiet);
        self.pulse.rest(true);
        self.gate.note_heeded();
        let goes_on = tokio::select! {
            opened = self.gate.opened() => opened,
            // As for a consumer at work: whatever started this process should start it again.
            error = connection.ended() => return Err(error),
        };
        if goes_on {
            self.pulse.rest(false);
            self.gate.note_heeded();
        }
        Ok(goes_on)
    }

    async fn handle(&self, delivery: Delivery) {
        let (stage, started) = (self.stage, Instant::now());
        crash::point(Point::DeliveryTaken);
        self.pulse.beat();
        let metrics = &self.environment.metrics;
        metrics.delivered(stage, delivery.redelivered);
        let span = tracing::info_span!("delivery", %stage, message.id = delivery.message_id.map(tracing::field::display));
        let end = self.work(&delivery).instrument(span).await;
        metrics
            .stage_duration
            .with_label_values(&[stage.as_str()])
            .observe(started.elapsed().as_secs_f64());
        // An answer of "it will come again" needs nothing: the rows have moved on and the reference will be stale.
        // Model: step Ack.
        let _ = match end {
            End::Ack => delivery.ack().await,
            End::Reject => {
                crash::point(Point::RejectPending);
                delivery.reject().await
            }
            End::Requeue => delivery.requeue().await,
        };
        crash::point(Point::Acknowledged);
    }

    async fn work(&self, delivery: &Delivery) -> End {
        let message = match Message::decode(&delivery.body) {
            Ok(message) if message.stage == self.stage => message,
            Ok(message) => {
                tracing::error!(found = %message.stage, "a message of another stage: to the dead-letter queue");
                return End::Reject;
            }
            Err(Undecodable::NewerVersion(version)) => {
                tracing::warn!(
                    version,
                    "a message of a newer version: its jobs are due again after their lease"
                );
                return End::Ack;
            }
            Err(error) => {
                tracing::error!(
                    error = chain(&error),
                    "a message nobody can read: to the dead-letter queue"
                );
                return End::Reject;
            }
        };
        let jobs: Vec<Uuid> = message.jobs.iter().map(|job| job.id).collect();
        let span = trace::delivery(self.stage, delivery.traceparent.as_deref(), &jobs);
        let end = self.run_message(delivery, &message);
        let end = end.instrument(span.clone()).await;
        span.record("outcome", end.as_str());
        end
    }

    async fn run_message(&self, delivery: &Delivery, message: &Message) -> End {
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
    async fn stop_forgotten(&self, reason: String) -> bool {
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

    /// Settles everything, keeping at it while the database is away. False: told to give up.
    async fn settle(&self, runs: Vec<(WorkItem, Run)>) -> bool {
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
