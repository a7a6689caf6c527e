//! The exchanges and queues of the fleet: their names and arguments stand here and nowhere else.
//!
//! Quorum queues, so that a confirmed message survives the loss of a node. Dead-lettering is at-least-once, which needs
//! `x-overflow: reject-publish` (<https://www.rabbitmq.com/docs/quorum-queues#dead-lettering>; RabbitMQ 3.10 needs the
//! feature flag `stream_queue` enabled, which it is on new installations, and silently falls back to at-most-once without).

use std::fmt;

use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::protocol::{AMQPErrorKind, AMQPSoftError};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{ErrorKind, ExchangeKind};

use super::BrokerError;
use crate::config::BrokerConfig;
use crate::domain::Stage;

/// Returns before the dead queue drops a message, that is never. There is nothing behind it to dead-letter to, versions
/// from 4.0 on limit to 20 by default, and -1 (no limit) is not valid on all versions.
const DEAD_DELIVERY_LIMIT: u32 = 1_000_000_000;

/// A queue of the fleet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Queue {
    /// Where the messages of a stage wait for a worker.
    Stage(Stage),
    /// Where rejected messages wait for the dead-letter ingest.
    Dead,
}

impl Queue {
    /// Every queue: one per stage and the dead one.
    pub fn all() -> impl Iterator<Item = Self> {
        Stage::ALL
            .iter()
            .copied()
            .map(Self::Stage)
            .chain([Self::Dead])
    }
}

impl fmt::Display for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stage(stage) => stage.fmt(f),
            Self::Dead => f.pad("dead"),
        }
    }
}

/// An exchange or queue that exists and is not what we would declare.
#[derive(Clone, Debug, thiserror::Error)]
#[error(
    "{kind} `{name}` exists with another `{argument}` ({reply}); configure what it has, or use another AMQP_PREFIX, \
     or stop the fleet, delete the {kind} and start again (unfinished jobs are dispatched again)"
)]
pub struct Conflict {
    /// `queue` or `exchange`.
    pub kind: &'static str,
    /// Its full name.
    pub name: String,
    /// The argument or property that differs.
    pub argument: String,
    /// What RabbitMQ said.
    pub reply: String,
}

/// Names and arguments of the exchanges and queues of one fleet.
#[derive(Clone, Debug)]
pub struct Topology {
    prefix: String,
    max_length: u32,
    delivery_limit: u32,
}

impl Topology {
    /// The topology that `config` asks for.
    #[must_use]
    pub fn new(config: &BrokerConfig) -> Self {
        Self {
            prefix: config.amqp_prefix.clone(),
            max_length: config.queue_max_length,
            delivery_limit: config.delivery_limit,
        }
    }

    /// The direct exchange that stages are published to, with the stage as routing key.
    #[must_use]
    pub fn stages_exchange(&self) -> String {
        format!("{}.stages", self.prefix)
    }

    /// The fanout exchange behind every stage's queue; dead letters keep their stage as routing key.
    #[must_use]
    pub fn dead_exchange(&self) -> String {
        format!("{}.dead", self.prefix)
    }

    /// The full name of a queue.
    #[must_use]
    pub fn queue_name(&self, queue: Queue) -> String {
        format!("{}.{queue}", self.prefix)
    }

    fn arguments(&self, queue: Queue) -> FieldTable {
        let mut table = FieldTable::default();
        let mut text = |key: &str, value: &str| {
            table.insert(key.into(), AMQPValue::LongString(value.into()));
        };
        text("x-queue-type", "quorum");
        let delivery_limit = match queue {
            Queue::Dead => DEAD_DELIVERY_LIMIT,
            Queue::Stage(_) => {
                text("x-dead-letter-exchange", &self.dead_exchange());
                text("x-dead-letter-strategy", "at-least-once");
                text("x-overflow", "reject-publish");
                table.insert(
                    "x-max-length".into(),
                    AMQPValue::LongLongInt(self.max_length.into()),
                );
                self.delivery_limit
            }
        };
        table.insert(
            "x-delivery-limit".into(),
            AMQPValue::LongLongInt(delivery_limit.into()),
        );
        table
    }

    /// Declares everything; what exists and is equal stays as it is.
    pub(super) async fn declare(&self, connection: &lapin::Connection) -> Result<(), BrokerError> {
        let channel = connection.create_channel().await?;
        let exchanges = [
            (self.stages_exchange(), ExchangeKind::Direct),
            (self.dead_exchange(), ExchangeKind::Fanout),
        ];
        for (name, kind) in exchanges {
            let options = ExchangeDeclareOptions {
                durable: true,
                ..Default::default()
            };
            channel
                .exchange_declare(name.as_str().into(), kind, options, FieldTable::default())
                .await
                .map_err(|error| refused("exchange", name, error))?;
        }
        for queue in Queue::all() {
            let name = self.queue_name(queue);
            let options = QueueDeclareOptions {
                durable: true,
                ..Default::default()
            };
            channel
                .queue_declare(name.as_str().into(), options, self.arguments(queue))
                .await
                .map_err(|error| refused("queue", name.clone(), error))?;
            let (exchange, key) = match queue {
                Queue::Stage(stage) => (self.stages_exchange(), stage.as_str()),
                Queue::Dead => (self.dead_exchange(), ""),
            };
            let options = QueueBindOptions::default();
            channel
                .queue_bind(
                    name.into(),
                    exchange.into(),
                    key.into(),
                    options,
                    FieldTable::default(),
                )
                .await?;
        }
        Ok(channel.close(200, "declared".into()).await?)
    }
}

/// Tells a conflict with what exists (406, `PRECONDITION_FAILED`) from every other failure of a declaration.
fn refused(kind: &'static str, name: String, error: lapin::Error) -> BrokerError {
    if let ErrorKind::ProtocolError(amqp) = error.kind()
        && *amqp.kind() == AMQPErrorKind::Soft(AMQPSoftError::PRECONDITIONFAILED)
    {
        let reply = amqp.get_message().to_string();
        let argument = argument_of(&reply).to_owned();
        return Conflict {
            kind,
            name,
            argument,
            reply,
        }
        .into();
    }
    error.into()
}

/// The argument in RabbitMQ's "inequivalent arg 'x-max-length' for queue …" or "invalid arg 'x-overflow' …".
fn argument_of(reply: &str) -> &str {
    let quoted = reply
        .split_once("arg '")
        .and_then(|(_, rest)| rest.split_once('\''));
    quoted.map_or("definition", |(argument, _)| argument)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_argument_is_read_from_the_reply() {
        let reply = "PRECONDITION_FAILED - inequivalent arg 'x-max-length' for queue 'p.inpaint.poll' in vhost '/': \
                     received the value '20' of type 'signedint' but current is the value '10' of type 'signedint'";
        assert_eq!(argument_of(reply), "x-max-length");
        assert_eq!(
            argument_of("PRECONDITION_FAILED - invalid arg 'x-overflow' for queue 'q'"),
            "x-overflow"
        );
        assert_eq!(
            argument_of("PRECONDITION_FAILED - something new"),
            "definition"
        );
    }
}
