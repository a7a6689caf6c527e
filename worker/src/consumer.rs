//! One consumer per stage: permit -> delivery -> load -> run -> settle -> acknowledge. What a message asks for is in `message`, how it is
//! written in `settling`.
//!
//! Must not decide what a stage's outcome means (`settle`), and must not acknowledge before the commit (I4).

mod message;
mod settling;

use std::sync::Arc;
use std::time::Instant;

use shared::broker::{BrokerError, Connection, Consumer, Delivery, Queue};
use shared::crash::{self, Point};
use shared::domain::Stage;
use shared::domain::message::{Message, Undecodable};
use shared::service::Stopper;
use shared::telemetry::{chain, trace};
use tokio::sync::{Notify, OwnedSemaphorePermit};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;
use uuid::Uuid;

use crate::environment::Environment;
use crate::gate::Gate;
use crate::readiness::Pulse;

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
}
