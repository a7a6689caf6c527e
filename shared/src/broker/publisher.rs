//! Publishing with confirms.
//!
//! One channel per stage, one batch at a time on each: a batch is its confirm window, and a slow queue holds up nothing
//! but itself. Nothing is retried here: a message that was not confirmed is reported, and its row is put back.

use std::collections::HashSet;

use bytes::Bytes;
use futures::future::join_all;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Confirmation, PublisherConfirm};
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout_at};
use uuid::Uuid;

use super::headers::TRACEPARENT;
use super::{BrokerError, Connection};
use crate::config::BrokerConfig;
use crate::crash::{self, Point};
use crate::domain::Stage;

/// AMQP's delivery mode for messages that survive a restart of the broker.
const PERSISTENT: u8 = 2;

/// A message to publish.
#[derive(Clone, Debug)]
pub struct Outgoing {
    /// Identifies the message; unique within its batch.
    pub message_id: Uuid,
    /// What [`crate::domain::message::Message::encode`] gave.
    pub body: Bytes,
    /// The W3C trace context that the consumer continues.
    pub traceparent: Option<String>,
}

/// What became of a published message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PublishOutcome {
    /// The queue has it, on a majority of its nodes.
    Confirmed,
    /// No queue is bound for the stage.
    Returned,
    /// RabbitMQ refused it: the queue is full or has no leader.
    Nacked,
    /// Not sent, or no confirm was seen: it may be in the queue or not.
    Lost,
}

impl PublishOutcome {
    /// The value of the metric label `outcome`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Confirmed => "confirmed",
            Self::Returned => "returned",
            Self::Nacked => "nacked",
            Self::Lost => "lost",
        }
    }
}

/// Publishes to the queues of the stages.
#[derive(Debug)]
pub struct Publisher {
    connection: Connection,
    confirm_timeout: std::time::Duration,
    channels: [Mutex<Option<Channel>>; Stage::ALL.len()],
}

impl Publisher {
    /// Publishes on `connection`, which must have no consumers.
    #[must_use]
    pub fn new(connection: Connection, config: &BrokerConfig) -> Self {
        Self {
            connection,
            confirm_timeout: config.confirm_timeout,
            channels: std::array::from_fn(|_| Mutex::new(None)),
        }
    }

    /// Whether publishing has a chance: connected and not blocked. While it has none, nothing should be marked dispatched.
    #[must_use]
    pub fn can_publish(&self) -> bool {
        self.connection
            .current()
            .is_some_and(|connection| !connection.status().blocked())
    }

    /// Whether RabbitMQ blocks publishing, see [`Connection::is_blocked`].
    #[must_use]
    pub fn is_blocked(&self) -> bool {
        self.connection.is_blocked()
    }

    /// Publishes a batch, all messages before the first confirm is awaited, and says of each, in order, what became of it.
    ///
    /// Never waits for a connection and never longer than the confirm timeout once it is the batch's turn.
    pub async fn publish(&self, stage: Stage, messages: &[Outgoing]) -> Vec<PublishOutcome> {
        let mut outcomes = vec![PublishOutcome::Lost; messages.len()];
        let mut slot = self.channels[stage as usize].lock().await;
        if !self.can_publish() {
            return outcomes;
        }
        let deadline = Instant::now() + self.confirm_timeout;
        // Taken out, so that a channel with confirms still to come, and with them returns of this batch, serves no other,
        // even when this future is dropped half-way. Dropping the channel closes it.
        let channel = match slot.take().filter(|channel| channel.status().connected()) {
            Some(channel) => channel,
            None => match timeout_at(deadline, self.open()).await {
                Ok(Ok(channel)) => channel,
                failed => {
                    tracing::warn!(%stage, result = ?failed, "cannot open a channel for publishing");
                    return outcomes;
                }
            },
        };
        let publishing = messages
            .iter()
            .map(|message| self.send(&channel, stage, message));
        let sent = timeout_at(deadline, join_all(publishing)).await;
        crash::point(Point::MessagesPublished);
        if let Ok(confirms) = sent
            && settle(messages, confirms, &mut outcomes, deadline).await
        {
            *slot = Some(channel);
        } else {
            tracing::warn!(%stage, "not all published messages were confirmed in time");
        }
        outcomes
    }

    async fn open(&self) -> Result<Channel, BrokerError> {
        let connection = self.connection.current().ok_or(BrokerError::Disconnected)?;
        let channel = connection.create_channel().await?;
        channel
            .confirm_select(ConfirmSelectOptions::default())
            .await?;
        Ok(channel)
    }

    /// Completes when the message is written to the socket.
    async fn send(
        &self,
        channel: &Channel,
        stage: Stage,
        message: &Outgoing,
    ) -> lapin::Result<PublisherConfirm> {
        let mut properties = BasicProperties::default()
            .with_content_type("application/json".into())
            .with_delivery_mode(PERSISTENT)
            .with_message_id(message.message_id.to_string().into());
        if let Some(traceparent) = &message.traceparent {
            let mut headers = FieldTable::default();
            headers.insert(
                TRACEPARENT.into(),
                AMQPValue::LongString(traceparent.as_str().into()),
            );
            properties = properties.with_headers(headers);
        }
        let options = BasicPublishOptions {
            mandatory: true,
            ..Default::default()
        };
        let exchange = self.connection.topology().stages_exchange().into();
        channel
            .basic_publish(
                exchange,
                stage.as_str().into(),
                options,
                &message.body,
                properties,
            )
            .await
    }
}

/// Waits for the confirms until the deadline; false if one is missing.
async fn settle(
    messages: &[Outgoing],
    confirms: Vec<lapin::Result<PublisherConfirm>>,
    outcomes: &mut [PublishOutcome],
    deadline: Instant,
) -> bool {
    let mut complete = true;
    let mut returned = HashSet::new();
    for (outcome, confirm) in outcomes.iter_mut().zip(confirms) {
        let confirmation = match confirm {
            Ok(confirm) => timeout_at(deadline, confirm)
                .await
                .ok()
                .and_then(Result::ok),
            Err(_) => None,
        };
        *outcome = match &confirmation {
            Some(Confirmation::Ack(_)) => PublishOutcome::Confirmed,
            Some(Confirmation::Nack(_)) => PublishOutcome::Nacked,
            Some(Confirmation::NotRequested) | None => PublishOutcome::Lost,
        };
        complete &= *outcome != PublishOutcome::Lost;
        // lapin hands a returned message out with whichever confirm comes next, which need not be its own.
        if let Some(message) = confirmation.and_then(Confirmation::take_message) {
            let id = message
                .delivery
                .properties
                .message_id()
                .as_ref()
                .map(|id| id.to_string());
            returned.extend(id);
        }
    }
    if !returned.is_empty() {
        for (outcome, message) in outcomes.iter_mut().zip(messages) {
            if returned.contains(&message.message_id.to_string()) {
                *outcome = PublishOutcome::Returned;
            }
        }
    }
    complete
}
