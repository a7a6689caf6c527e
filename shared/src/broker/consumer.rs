//! Consuming: one channel and one prefetch window per consumer, several consumers on one connection.
//!
//! The caller takes a permit before it asks for the next delivery, with the prefetch equal to its permits, so that nothing
//! waits in this process that another worker could run. A delivery is settled exactly once, after the database committed;
//! one that is dropped unsettled (a panic, an aborted task) goes back to its queue.

use std::sync::Arc;

use bytes::Bytes;
use futures::{FutureExt, StreamExt};
use lapin::options::{
    BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicNackOptions, BasicQosOptions,
    BasicRejectOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Acker, Channel};
use serde_json::Value;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::headers::{self, TRACEPARENT};
use super::outage::Outage;
use super::{BrokerError, Connection, Queue};

const REQUEUE: BasicNackOptions = BasicNackOptions {
    multiple: false,
    requeue: true,
};

/// Takes deliveries from one queue and resubscribes by itself.
#[derive(Debug)]
pub struct Consumer {
    connection: Connection,
    queue: Queue,
    prefetch: u16,
    outage: Outage,
    subscription: Option<Subscription>,
}

#[derive(Debug)]
struct Subscription {
    channel: Arc<Channel>,
    deliveries: lapin::Consumer,
    since: Instant,
}

impl Consumer {
    /// A consumer of `queue` that holds at most `prefetch` unsettled deliveries, 0 counting as 1. It subscribes with the
    /// first call of [`Self::next`].
    #[must_use]
    pub fn new(connection: Connection, queue: Queue, prefetch: u16) -> Self {
        let outage = Outage::new(connection.bound());
        Self {
            connection,
            queue,
            // To AMQP 0 means without limit.
            prefetch: prefetch.max(1),
            outage,
            subscription: None,
        }
    }

    /// The next delivery, or none once `stop` is cancelled: the subscription has then ended, what was prefetched is back
    /// in the queue, and deliveries handed out before can still be settled.
    ///
    /// Dropping the future loses nothing.
    ///
    /// # Errors
    /// When the connection ended for good or the queue stayed unusable for the reconnect bound.
    pub async fn next(
        &mut self,
        stop: &CancellationToken,
    ) -> Result<Option<Delivery>, BrokerError> {
        match stop.run_until_cancelled(self.take()).await {
            Some(taken) => taken.map(Some),
            None => {
                self.unsubscribe().await;
                Ok(None)
            }
        }
    }

    async fn take(&mut self) -> Result<Delivery, BrokerError> {
        loop {
            let subscription = match &mut self.subscription {
                Some(subscription) => subscription,
                empty => empty.insert(
                    subscribe(
                        &self.connection,
                        self.queue,
                        self.prefetch,
                        &mut self.outage,
                    )
                    .await?,
                ),
            };
            let fault = match subscription.deliveries.next().await {
                // Prefetched before its channel died: RabbitMQ has it back already.
                Some(Ok(delivery)) if !delivery.acker.usable() => continue,
                Some(Ok(delivery)) => {
                    return Ok(Delivery::new(self.queue, delivery, &subscription.channel));
                }
                Some(Err(error)) => Some(error),
                None => None,
            };
            self.recover(fault.map(BrokerError::Amqp)).await?;
        }
    }

    /// The subscription is over although nobody asked for it: waits as long as the next one should wait.
    async fn recover(&mut self, fault: Option<BrokerError>) -> Result<(), BrokerError> {
        let lifetime = self
            .subscription
            .take()
            .map_or_else(Default::default, |lost| lost.since.elapsed());
        if !self.connection.is_connected() {
            // The connection has its own pauses and bound, and its own count.
            return Ok(());
        }
        self.connection.metrics().consumer_reconnects.inc();
        self.outage.stood(lifetime);
        // No error means that RabbitMQ canceled the consumer, for one because the queue was deleted.
        let error = fault.unwrap_or(BrokerError::Canceled);
        wait_out(&mut self.outage, &self.connection, self.queue, error).await?;
        if let Some(connection) = self.connection.current() {
            let declaring = self.connection.topology().declare(&connection);
            match self.connection.in_time(declaring).await {
                Err(error) if error.is_final() => return Err(error),
                // Whatever is still missing shows when subscribing fails.
                _ => {}
            }
        }
        Ok(())
    }

    /// Ends the subscription: what was prefetched is back in the queue, deliveries handed out before can still be settled. The next
    /// call of [`Self::next`] subscribes again.
    ///
    /// Dropping the future gives the same back later, with the channel.
    pub async fn unsubscribe(&mut self) {
        let Some(Subscription {
            channel,
            mut deliveries,
            ..
        }) = self.subscription.take()
        else {
            return;
        };
        let returning = async {
            channel
                .basic_cancel(deliveries.tag(), BasicCancelOptions::default())
                .await?;
            // Ends with the answer to the cancel, after everything that was on its way.
            while let Some(Ok(delivery)) = deliveries.next().await {
                delivery.acker.nack(REQUEUE).await?;
            }
            Ok(())
        };
        if let Err(error) = self.connection.in_time(returning).await {
            // Closing the channel, which happens when its last delivery is settled, gives the rest back.
            tracing::debug!(queue = %self.queue, error = &error as &dyn std::error::Error, "consumer not canceled");
        }
    }
}

/// Subscribes, on the connection that stands or the one that comes, until the bound of `outage`.
async fn subscribe(
    connection: &Connection,
    queue: Queue,
    prefetch: u16,
    outage: &mut Outage,
) -> Result<Subscription, BrokerError> {
    loop {
        let standing = connection.ready().await?;
        let opening = async {
            let channel = Arc::new(standing.create_channel().await?);
            channel
                .basic_qos(prefetch, BasicQosOptions::default())
                .await?;
            let name = connection.topology().queue_name(queue);
            let (options, arguments) = (BasicConsumeOptions::default(), FieldTable::default());
            let deliveries = channel
                .basic_consume(name.into(), "".into(), options, arguments)
                .await?;
            Ok(Subscription {
                channel,
                deliveries,
                since: Instant::now(),
            })
        };
        match connection.in_time(opening).await {
            Ok(subscription) => return Ok(subscription),
            Err(_) if !standing.status().connected() => {}
            Err(error) => wait_out(outage, connection, queue, error).await?,
        }
    }
}

/// Pauses before the next try on a sound connection, or gives up.
async fn wait_out(
    outage: &mut Outage,
    connection: &Connection,
    queue: Queue,
    error: BrokerError,
) -> Result<(), BrokerError> {
    let name = connection.topology().queue_name(queue);
    let Some(pause) = outage.pause() else {
        let what = format!("consuming from `{name}`");
        return Err(BrokerError::GaveUp {
            what,
            bound: outage.bound(),
            last: Box::new(error),
        });
    };
    tracing::warn!(
        queue = name,
        error = &error as &dyn std::error::Error,
        ?pause,
        "cannot consume, trying again"
    );
    sleep(pause).await;
    Ok(())
}

/// Whether a settlement reached the broker's connection.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// Handed to the connection the delivery came on.
    Done,
    /// That connection or channel is gone: RabbitMQ delivers the message again, whatever was decided.
    WillComeAgain,
}

/// A message that was taken from a queue.
#[derive(Debug)]
pub struct Delivery {
    /// Where it was taken from.
    pub queue: Queue,
    /// What was published, to be read by [`crate::domain::message::Message::decode`].
    pub body: Bytes,
    /// As given by the publisher; none if somebody else published it.
    pub message_id: Option<Uuid>,
    /// All headers as a JSON object. `x-death` tells where a dead letter came from and why, `x-delivery-count` how often a
    /// message was returned.
    pub headers: Value,
    /// The W3C trace context of the publisher.
    pub traceparent: Option<String>,
    /// Whether it was delivered before, to anyone.
    pub redelivered: bool,
    acker: Acker,
    /// Open until the last delivery taken from it is settled.
    _channel: Arc<Channel>,
}

impl Delivery {
    fn new(queue: Queue, delivery: lapin::message::Delivery, channel: &Arc<Channel>) -> Self {
        let table = delivery.properties.headers().as_ref();
        let traceparent = table.and_then(|table| match table.inner().get(TRACEPARENT) {
            Some(AMQPValue::LongString(text)) => String::from_utf8(text.as_bytes().to_vec()).ok(),
            _ => None,
        });
        Self {
            queue,
            body: delivery.data.into(),
            message_id: delivery
                .properties
                .message_id()
                .as_ref()
                .and_then(|id| id.as_str().parse().ok()),
            headers: table.map_or_else(|| Value::Object(Default::default()), headers::to_json),
            traceparent,
            redelivered: delivery.redelivered,
            acker: delivery.acker,
            _channel: Arc::clone(channel),
        }
    }

    /// The message is done with.
    pub async fn ack(self) -> Settled {
        settled(self.acker.ack(BasicAckOptions::default()).await)
    }

    /// The message goes to the dead-letter queue; on the dead queue itself it is dropped.
    pub async fn reject(self) -> Settled {
        settled(
            self.acker
                .reject(BasicRejectOptions { requeue: false })
                .await,
        )
    }

    /// The message goes back to its queue, for anyone to take at once. Counts towards its delivery limit.
    pub async fn requeue(self) -> Settled {
        settled(self.acker.nack(REQUEUE).await)
    }
}

fn settled(result: lapin::Result<bool>) -> Settled {
    match result {
        Ok(true) => Settled::Done,
        Ok(false) | Err(_) => Settled::WillComeAgain,
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        if self.acker.usable() {
            // The first poll hands the command to the connection's task; there is nobody to wait for the rest.
            let _ = self.acker.nack(REQUEUE).now_or_never();
        }
    }
}
