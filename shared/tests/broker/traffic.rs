//! Publishing, consuming, dead-lettering: the queues do what the topology says.

use std::collections::HashSet;

use lapin::options::QueueDeclareOptions;
use lapin::types::{AMQPValue, FieldTable};
use shared::broker::{BrokerError, Consumer, Outgoing, PublishOutcome, Queue, Settled};
use shared::domain::Stage;
use shared::domain::message::{JobRef, Message};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::harness::{
    delete_queue, depth, fleet, messages, plain_channel, publish_one, soon, take, until,
};

const STAGE: Stage = Stage::InpaintPoll;
const QUEUE: Queue = Queue::Stage(STAGE);

#[tokio::test]
async fn a_message_arrives_as_it_was_published() {
    fleet(async |fleet| {
        let publisher = fleet.publisher().await;
        let message = Message {
            stage: STAGE,
            jobs: vec![JobRef {
                id: Uuid::new_v4(),
                epoch: 7,
            }],
        };
        let traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let outgoing = Outgoing {
            message_id: Uuid::new_v4(),
            body: message.encode().into(),
            traceparent: Some(traceparent.to_owned()),
        };
        let id = outgoing.message_id;
        assert_eq!(
            soon(publisher.publish(STAGE, &[outgoing])).await,
            [PublishOutcome::Confirmed]
        );

        let mut consumer = Consumer::new(fleet.connected().await, QUEUE, 1);
        let delivery = take(&mut consumer).await;
        assert_eq!(Message::decode(&delivery.body).unwrap(), message);
        assert_eq!(
            (delivery.queue, delivery.message_id, delivery.redelivered),
            (QUEUE, Some(id), false)
        );
        assert_eq!(delivery.traceparent.as_deref(), Some(traceparent));
        assert_eq!(delivery.ack().await, Settled::Done);
    })
    .await;
}

#[tokio::test]
async fn a_batch_is_confirmed_whole_and_only_on_its_own_queue() {
    fleet(async |fleet| {
        let publisher = fleet.publisher().await;
        let outcomes = soon(publisher.publish(STAGE, &messages(500))).await;
        assert_eq!(outcomes, vec![PublishOutcome::Confirmed; 500]);
        let queues: Vec<_> = Queue::all().collect();
        let depths = soon(fleet.connected().await.queue_depths(&queues))
            .await
            .unwrap();
        let expected: Vec<u32> = queues
            .iter()
            .map(|queue| if *queue == QUEUE { 500 } else { 0 })
            .collect();
        assert_eq!(depths, expected);
    })
    .await;
}

#[tokio::test]
async fn without_a_queue_messages_are_returned_and_other_stages_go_on() {
    fleet(async |fleet| {
        let publisher = fleet.publisher().await;
        delete_queue(fleet.queue_name(STAGE)).await;
        let batch = messages(100);
        let others = messages(100);
        let (returned, confirmed) = soon(async {
            tokio::join!(
                publisher.publish(STAGE, &batch),
                publisher.publish(Stage::LipsyncPoll, &others)
            )
        })
        .await;
        assert_eq!(returned, vec![PublishOutcome::Returned; 100]);
        assert_eq!(confirmed, vec![PublishOutcome::Confirmed; 100]);
    })
    .await;
}

#[tokio::test]
async fn a_full_queue_refuses() {
    fleet(async |mut fleet| {
        fleet.config.queue_max_length = 10;
        let publisher = fleet.publisher().await;
        let (mut confirmed, mut full) = (0_usize, false);
        // A quorum queue tells its publishers with some delay that it is full.
        for _ in 0..100 {
            let outcomes = soon(publisher.publish(STAGE, &messages(20))).await;
            for outcome in outcomes {
                match outcome {
                    PublishOutcome::Confirmed => confirmed += 1,
                    PublishOutcome::Nacked => full = true,
                    other => panic!("{other:?}"),
                }
            }
        }
        assert!(full && confirmed >= 10, "{confirmed} confirmed");
        assert_eq!(
            depth(&fleet.connected().await, QUEUE).await as usize,
            confirmed
        );
    })
    .await;
}

#[tokio::test]
async fn a_rejected_message_becomes_a_dead_letter_that_tells_where_from() {
    fleet(async |fleet| {
        let publisher = fleet.publisher().await;
        let sent = publish_one(&publisher, STAGE).await;
        let connection = fleet.connected().await;
        let delivery = take(&mut Consumer::new(connection.clone(), QUEUE, 1)).await;
        assert_eq!(delivery.reject().await, Settled::Done);

        let dead = take(&mut Consumer::new(connection.clone(), Queue::Dead, 1)).await;
        assert_eq!(
            (dead.message_id, &dead.body),
            (Some(sent.message_id), &sent.body)
        );
        let death = &dead.headers["x-death"][0];
        assert_eq!(death["queue"], fleet.queue_name(STAGE));
        assert_eq!(death["reason"], "rejected");
        assert_eq!(death["routing-keys"][0], STAGE.as_str());
        assert_eq!(dead.ack().await, Settled::Done);
    })
    .await;
}

#[tokio::test]
async fn what_is_requeued_or_dropped_comes_again() {
    fleet(async |fleet| {
        let publisher = fleet.publisher().await;
        let sent = publish_one(&publisher, STAGE).await;
        let mut consumer = Consumer::new(fleet.connected().await, QUEUE, 1);
        assert_eq!(take(&mut consumer).await.requeue().await, Settled::Done);
        let second = take(&mut consumer).await;
        assert_eq!(
            (second.message_id, second.redelivered),
            (Some(sent.message_id), true)
        );
        drop(second);
        let third = take(&mut consumer).await;
        assert_eq!(
            (third.message_id, &third.headers["x-delivery-count"]),
            (Some(sent.message_id), &2.into())
        );
        assert_eq!(third.ack().await, Settled::Done);
    })
    .await;
}

#[tokio::test]
async fn stopping_gives_back_what_was_prefetched_and_keeps_what_was_taken() {
    fleet(async |fleet| {
        let publisher = fleet.publisher().await;
        soon(publisher.publish(STAGE, &messages(10))).await;
        let watcher = fleet.connected().await;
        let connection = fleet.connected().await;
        let mut consumer = Consumer::new(connection.clone(), QUEUE, 4);
        let taken = take(&mut consumer).await;
        until("the prefetch is four", async || {
            depth(&watcher, QUEUE).await == 6
        })
        .await;

        let stop = CancellationToken::new();
        stop.cancel();
        assert!(soon(consumer.next(&stop)).await.unwrap().is_none());
        until("three are back", async || depth(&watcher, QUEUE).await == 9).await;
        drop(consumer);
        assert_eq!(taken.ack().await, Settled::Done);
        soon(connection.close()).await;
        // A message that was not acknowledged would be back with the closing of its connection.
        let mut left = Consumer::new(watcher, QUEUE, 10);
        let mut ids = HashSet::new();
        for _ in 0..9 {
            let delivery = take(&mut left).await;
            ids.insert(delivery.message_id);
            assert_eq!(delivery.ack().await, Settled::Done);
        }
        assert_eq!(ids.len(), 9);
        assert_eq!(depth(&fleet.connected().await, QUEUE).await, 0);
    })
    .await;
}

#[tokio::test]
async fn a_consumer_with_its_hands_full_rests_and_goes_on() {
    fleet(async |fleet| {
        let publisher = fleet.publisher().await;
        soon(publisher.publish(STAGE, &messages(3))).await;
        let watcher = fleet.connected().await;
        let mut consumer = Consumer::new(fleet.connected().await, QUEUE, 1);
        let first = take(&mut consumer).await;
        soon(consumer.unsubscribe()).await;
        // A hand that becomes free is not filled again.
        assert_eq!(first.ack().await, Settled::Done);
        let another = take(&mut Consumer::new(watcher.clone(), QUEUE, 1)).await;
        assert_eq!(another.ack().await, Settled::Done);
        until("one waits", async || depth(&watcher, QUEUE).await == 1).await;

        soon(consumer.unsubscribe()).await;
        assert_eq!(take(&mut consumer).await.ack().await, Settled::Done);
        assert_eq!(depth(&watcher, QUEUE).await, 0);
    })
    .await;
}

#[tokio::test]
async fn an_idle_consumer_stops_at_once() {
    fleet(async |fleet| {
        let mut consumer = Consumer::new(fleet.connected().await, QUEUE, 1);
        let stop = CancellationToken::new();
        let (next, ()) =
            soon(async { tokio::join!(consumer.next(&stop), async { stop.cancel() }) }).await;
        assert!(next.unwrap().is_none());
    })
    .await;
}

#[tokio::test]
async fn an_incompatible_queue_is_named_with_the_argument() {
    fleet(async |fleet| {
        let name = fleet.queue_name(STAGE);
        let (connection, channel) = plain_channel().await;
        let mut arguments = FieldTable::default();
        arguments.insert(
            "x-queue-type".into(),
            AMQPValue::LongString("quorum".into()),
        );
        arguments.insert("x-delivery-limit".into(), AMQPValue::LongLongInt(50));
        let options = QueueDeclareOptions {
            durable: true,
            ..Default::default()
        };
        soon(channel.queue_declare(name.as_str().into(), options, arguments))
            .await
            .unwrap();

        let error = soon(fleet.connect()).await.unwrap_err();
        let BrokerError::Incompatible(conflict) = &error else {
            panic!("{error}")
        };
        assert_eq!((conflict.kind, &conflict.name), ("queue", &name));
        assert!(conflict.argument.starts_with("x-"), "{error}");
        assert!(error.to_string().contains(&conflict.argument), "{error}");

        soon(channel.queue_delete(name.into(), Default::default()))
            .await
            .unwrap();
        soon(connection.close(200, "bye".into())).await.unwrap();
    })
    .await;
}
