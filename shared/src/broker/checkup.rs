//! What `producer doctor` tries with the broker: ask for its version, connect, declare as every start does, publish.

use std::time::Duration;

use lapin::BasicProperties;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};

use super::connect::Dialer;
use super::{BrokerError, BrokerMetrics};
use crate::config::BrokerConfig;

/// Who we are, in RabbitMQ's list of connections.
const NAME: &str = "producer doctor";
/// How long RabbitMQ may take to confirm; an alarm makes it wait for ever.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(5);

/// The version of the first node that answers; none if it does not say it.
///
/// # Errors
/// What does not work.
pub async fn server_version(
    config: &BrokerConfig,
    metrics: &BrokerMetrics,
) -> Result<Option<String>, BrokerError> {
    Dialer::new(config, NAME, metrics)?.version().await
}

/// Connects to the first node that answers, declares the fleet's exchanges and queues, which fails where one of them exists with
/// other arguments, and publishes a message that goes to no queue. False: RabbitMQ does not take messages, as during a memory or
/// disk alarm (<https://www.rabbitmq.com/docs/alarms>).
///
/// # Errors
/// What does not work.
pub async fn check_up(config: &BrokerConfig, metrics: &BrokerMetrics) -> Result<bool, BrokerError> {
    let connection = Dialer::new(config, NAME, metrics)?.dial().await?;
    let publish = async {
        let channel = connection.create_channel().await?;
        channel
            .confirm_select(ConfirmSelectOptions::default())
            .await?;
        let options = BasicPublishOptions::default();
        let properties = BasicProperties::default();
        let nowhere = format!("{}.doctor", config.amqp_prefix);
        let confirm =
            channel.basic_publish("".into(), nowhere.as_str().into(), options, b"", properties);
        confirm.await?.await?;
        Ok::<_, BrokerError>(())
    };
    let taken = match tokio::time::timeout(CONFIRM_TIMEOUT, publish).await {
        Ok(published) => published.map(|()| true),
        Err(_) => Ok(false),
    };
    // A blocked connection does not answer to this either.
    let _ = tokio::time::timeout(CONFIRM_TIMEOUT, connection.close(200, "checked".into())).await;
    taken
}
