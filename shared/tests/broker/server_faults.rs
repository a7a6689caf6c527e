//! Faults of the server itself. They disturb everyone on it, hence ignored by default: run them alone, one at a time,
//! with `RABBITMQCTL` naming a command that controls the server of `AMQP_URL`.

use std::process::Stdio;

use shared::broker::{Consumer, PublishOutcome, Queue, Settled};
use shared::domain::Stage;

use crate::harness::{fleet, messages, publish_one, soon, take, until};

const STAGE: Stage = Stage::InpaintPoll;
const QUEUE: Queue = Queue::Stage(STAGE);

async fn rabbitmqctl(arguments: &[&str]) {
    let command = std::env::var("RABBITMQCTL")
        .expect("set RABBITMQCTL to a rabbitmqctl of the server of AMQP_URL");
    let mut process = tokio::process::Command::new(command);
    let status = soon(process.args(arguments).stdout(Stdio::null()).status())
        .await
        .unwrap();
    assert!(status.success(), "rabbitmqctl {arguments:?}: {status}");
}

#[tokio::test]
#[ignore = "restarts the server"]
async fn a_restart_of_the_server_loses_nothing_that_was_confirmed() {
    fleet(async |fleet| {
        let publisher = fleet.publisher().await;
        let sent = publish_one(&publisher, STAGE).await;
        let mut consumer = Consumer::new(fleet.connected().await, QUEUE, 1);
        let before = take(&mut consumer).await;
        rabbitmqctl(&["stop_app"]).await;
        rabbitmqctl(&["start_app"]).await;
        let again = take(&mut consumer).await;
        assert_eq!(before.ack().await, Settled::WillComeAgain);
        assert_eq!(again.message_id, Some(sent.message_id));
        assert_eq!(again.ack().await, Settled::Done);
        publish_one(&publisher, STAGE).await;
    })
    .await;
}

#[tokio::test]
#[ignore = "raises the server's memory alarm"]
async fn while_an_alarm_blocks_publishing_consuming_goes_on() {
    fleet(async |mut fleet| {
        fleet.config.confirm_timeout = std::time::Duration::from_millis(500);
        let publisher = fleet.publisher().await;
        publish_one(&publisher, STAGE).await;
        let mut consumer = Consumer::new(fleet.connected().await, QUEUE, 1);
        rabbitmqctl(&["set_vm_memory_high_watermark", "0.00001"]).await;
        // RabbitMQ blocks, and says so, only when something is published.
        until("publishing is blocked", async || {
            soon(publisher.publish(STAGE, &messages(1))).await;
            publisher.is_blocked()
        })
        .await;
        assert!(!publisher.can_publish());
        assert_eq!(
            soon(publisher.publish(STAGE, &messages(2))).await,
            [PublishOutcome::Lost; 2]
        );
        assert_eq!(take(&mut consumer).await.ack().await, Settled::Done);
        rabbitmqctl(&["set_vm_memory_high_watermark", "0.4"]).await;
        until("publishing is possible again", async || {
            publisher.can_publish()
        })
        .await;
        publish_one(&publisher, STAGE).await;
    })
    .await;
}
