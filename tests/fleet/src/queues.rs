//! The exchanges and queues of one run, under a prefix of its own, and their removal.

use anyhow::Context as _;
use lapin::options::QueueDeclareOptions;
use shared::broker::{Queue, Topology};
use shared::config::{BrokerConfig, Secret};
use shared::domain::Stage;
use std::time::Duration;
use uuid::Uuid;

/// Names under which a fleet declares its exchanges and queues.
pub struct Queues {
    /// The value for `AMQP_PREFIX`.
    pub prefix: String,
    amqp_url: String,
}

impl Queues {
    /// Names that nobody else uses.
    #[must_use]
    pub fn new(amqp_url: &str) -> Self {
        Self {
            prefix: format!("ghostfleet-{}", Uuid::new_v4().simple()),
            amqp_url: amqp_url.to_owned(),
        }
    }

    /// The fleet's topology under these names.
    #[must_use]
    pub fn topology(&self) -> Topology {
        Topology::new(&BrokerConfig {
            amqp_url: Secret::from(self.amqp_url.clone()),
            amqp_prefix: self.prefix.clone(),
            queue_max_length: 1,
            delivery_limit: 1,
            confirm_timeout: Duration::ZERO,
            broker_reconnect_bound: Duration::ZERO,
        })
    }

    /// Messages that wait in a stage's queue; one that a consumer has in hand is not counted.
    ///
    /// # Errors
    /// When the broker is away or has no such queue.
    pub async fn waiting(&self, stage: Stage) -> anyhow::Result<u32> {
        let connection = lapin::Connection::connect(&self.amqp_url, Default::default())
            .await
            .context("RabbitMQ is away")?;
        let channel = connection.create_channel().await?;
        let name = self.topology().queue_name(Queue::Stage(stage)).into();
        let passive = QueueDeclareOptions {
            passive: true,
            ..QueueDeclareOptions::default()
        };
        let queue = channel
            .queue_declare(name, passive, Default::default())
            .await?;
        let count = queue.message_count();
        connection.close(200, "done".into()).await?;
        Ok(count)
    }

    /// Deletes everything under these names with the messages in it; what is not there is no error.
    ///
    /// # Errors
    /// When the broker is away.
    pub async fn delete(&self) -> anyhow::Result<()> {
        let connection = lapin::Connection::connect(&self.amqp_url, Default::default())
            .await
            .context("RabbitMQ is away")?;
        let channel = connection.create_channel().await?;
        let topology = self.topology();
        for queue in Queue::all() {
            let name = topology.queue_name(queue).into();
            channel.queue_delete(name, Default::default()).await?;
        }
        for name in [topology.stages_exchange(), topology.dead_exchange()] {
            channel
                .exchange_delete(name.into(), Default::default())
                .await?;
        }
        Ok(connection.close(200, "done".into()).await?)
    }
}
