//! Connections cut, kept down and given up; queues deleted under a consumer.

use std::time::{Duration, Instant};

use shared::broker::{BrokerError, Consumer, PublishOutcome, Publisher, Queue, Settled};
use shared::config::Secret;
use shared::domain::Stage;
use tokio_util::sync::CancellationToken;

use crate::harness::{Proxy, delete_queue, depth, fleet, messages, publish_one, soon, take, until};

const STAGE: Stage = Stage::InpaintPoll;
const QUEUE: Queue = Queue::Stage(STAGE);

#[tokio::test]
async fn after_a_cut_consumers_go_on_and_the_unsettled_delivery_comes_again() {
    fleet(async |fleet| {
        let publisher = fleet.publisher().await;
        let sent = publish_one(&publisher, STAGE).await;
        let proxy = Proxy::start().await;
        let fleet = fleet.through(&proxy);
        let connection = fleet.connected().await;
        let mut consumer = Consumer::new(connection.clone(), QUEUE, 1);
        let mut other = Consumer::new(connection.clone(), Queue::Stage(Stage::LipsyncPoll), 1);
        let before = take(&mut consumer).await;

        proxy.cut();
        let (again, _) = soon(async {
            // Two consumers, one connection: it is re-established once.
            tokio::join!(take(&mut consumer), async {
                publish_one(&publisher, Stage::LipsyncPoll).await;
                take(&mut other).await.ack().await
            })
        })
        .await;
        assert_eq!(before.ack().await, Settled::WillComeAgain);
        assert_eq!(
            (again.message_id, again.redelivered),
            (Some(sent.message_id), true)
        );
        assert_eq!(again.ack().await, Settled::Done);
        assert_eq!(fleet.reconnects("connection"), 1);
        assert_eq!(fleet.reconnects("consumer"), 0);
    })
    .await;
}

#[tokio::test]
async fn during_an_outage_publishing_fails_fast_and_recovers_after_it() {
    fleet(async |direct| {
        let proxy = Proxy::start().await;
        let fleet = direct.through(&proxy);
        let connection = fleet.connected().await;
        let publisher = Publisher::new(connection.clone(), &fleet.config);
        publish_one(&publisher, STAGE).await;

        proxy.take_down();
        until("the cut was noticed", async || !publisher.can_publish()).await;
        assert!(soon(connection.queue_depths(&[QUEUE])).await.is_err());
        let started = Instant::now();
        let outcomes = soon(publisher.publish(STAGE, &messages(100))).await;
        assert_eq!(outcomes, vec![PublishOutcome::Lost; 100]);
        assert!(
            started.elapsed() < Duration::from_secs(1),
            "waited {:?}",
            started.elapsed()
        );

        proxy.bring_up();
        publish_one(&publisher, STAGE).await;
        assert_eq!(fleet.reconnects("connection"), 1);
        assert_eq!(depth(&direct.connected().await, QUEUE).await, 2);
    })
    .await;
}

#[tokio::test]
async fn messages_whose_confirms_were_cut_off_are_lost_although_they_arrived() {
    fleet(async |direct| {
        let proxy = Proxy::start().await;
        let publisher = direct.through(&proxy).publisher().await;
        let watcher = direct.connected().await;
        publish_one(&publisher, STAGE).await;
        proxy.mute();
        let batch = messages(200);
        let (outcomes, ()) = soon(async {
            tokio::join!(publisher.publish(STAGE, &batch), async {
                until("all arrived", async || depth(&watcher, QUEUE).await == 201).await;
                proxy.cut();
            })
        })
        .await;
        assert_eq!(outcomes, vec![PublishOutcome::Lost; 200]);
        proxy.bring_up();
        publish_one(&publisher, STAGE).await;
    })
    .await;
}

#[tokio::test]
async fn a_late_confirm_is_not_taken_for_that_of_another_message() {
    fleet(async |mut direct| {
        direct.config.confirm_timeout = Duration::from_millis(300);
        let proxy = Proxy::start().await;
        let publisher = direct.through(&proxy).publisher().await;
        publish_one(&publisher, STAGE).await;
        proxy.mute();
        assert_eq!(
            soon(publisher.publish(STAGE, &messages(20))).await,
            [PublishOutcome::Lost; 20]
        );
        delete_queue(direct.queue_name(STAGE)).await;
        proxy.bring_up();
        // The twenty confirms arrive now. None of them may confirm what is published from here on.
        let batch = messages(20);
        until("all were returned", async || {
            let outcomes = publisher.publish(STAGE, &batch).await;
            assert!(
                !outcomes.contains(&PublishOutcome::Confirmed),
                "{outcomes:?}"
            );
            outcomes == [PublishOutcome::Returned; 20]
        })
        .await;
    })
    .await;
}

#[tokio::test]
async fn a_broker_that_lost_its_queues_is_made_whole_again() {
    fleet(async |direct| {
        let proxy = Proxy::start().await;
        let fleet = direct.through(&proxy);
        let publisher = fleet.publisher().await;
        let mut consumer = Consumer::new(fleet.connected().await, QUEUE, 1);
        proxy.take_down();
        direct.delete_topology().await;
        proxy.bring_up();
        let sent = publish_one(&publisher, STAGE).await;
        assert_eq!(take(&mut consumer).await.message_id, Some(sent.message_id));
    })
    .await;
}

#[tokio::test]
async fn a_queue_deleted_under_its_consumer_is_declared_again() {
    fleet(async |fleet| {
        let publisher = fleet.publisher().await;
        publish_one(&publisher, STAGE).await;
        let mut consumer = Consumer::new(fleet.connected().await, QUEUE, 1);
        let _held = take(&mut consumer).await;
        delete_queue(fleet.queue_name(STAGE)).await;
        let (delivery, sent) =
            soon(async { tokio::join!(take(&mut consumer), publish_one(&publisher, STAGE)) }).await;
        assert_eq!(delivery.message_id, Some(sent.message_id));
        assert!(fleet.reconnects("consumer") >= 1);
        assert_eq!(fleet.reconnects("connection"), 0);
    })
    .await;
}

#[tokio::test]
async fn when_the_bound_is_over_everyone_is_told_to_give_up() {
    fleet(async |direct| {
        let proxy = Proxy::start().await;
        let mut fleet = direct.through(&proxy);
        fleet.config.broker_reconnect_bound = Duration::from_millis(500);
        let connection = fleet.connected().await;
        let mut consumer = Consumer::new(connection.clone(), QUEUE, 1);
        proxy.take_down();
        let told = soon(consumer.next(&CancellationToken::new()))
            .await
            .unwrap_err();
        assert!(matches!(told, BrokerError::GaveUp { .. }), "{told}");
        assert!(matches!(
            soon(connection.ended()).await,
            BrokerError::GaveUp { .. }
        ));
        assert!(!connection.is_connected());
    })
    .await;
}

#[tokio::test]
async fn a_broker_that_never_was_there_is_given_up_without_its_password() {
    fleet(async |mut fleet| {
        let proxy = Proxy::start().await;
        proxy.take_down();
        fleet.config.amqp_url =
            Secret::from(format!("amqp://someone:hunter2@127.0.0.1:{}", proxy.port));
        fleet.config.broker_reconnect_bound = Duration::from_millis(300);
        let error = soon(fleet.connect()).await.unwrap_err();
        assert!(matches!(error, BrokerError::GaveUp { .. }), "{error}");
        assert!(!format!("{error} {error:?}").contains("hunter2"));
    })
    .await;
}
