//! What a producer does when its queues are full, or not as they should be.

use std::time::{Duration, Instant};

use fleet::{DEADLINE, Kind, eventually};
use lapin::types::FieldTable;
use sandbox::SandboxConfig;
use shared::broker::Queue;

use crate::sql::value;

/// What a full queue refuses is offered again long before its lease is over, but batch by batch, one in each interval, and not all
/// of it again and again at full speed.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_is_offered_one_batch_at_a_time() -> anyhow::Result<()> {
    fleet::run(SandboxConfig::default(), async |fleet| {
        const JOBS: i64 = 20;
        for number in 0..JOBS {
            fleet
                .submit_kind(Kind::Lipsync, usize::try_from(number)?)
                .await?;
        }
        let settings = [
            ("QUEUE_MAX_LENGTH", "1"),
            ("DISPATCH_BATCH", "2"),
            ("DISPATCH_INTERVAL", "500ms"),
            ("STAGE_LEASE", "10m"),
        ];
        let mut environment = fleet.environment.clone();
        for (name, setting) in settings {
            environment.set(name, setting);
        }
        let producer = fleet::Service::producer(&environment)?;
        // Every pick raises an epoch.
        let picked = "SELECT sum(epoch)::text AS value FROM job_stages";
        let picks = async |at_least: i64| {
            eventually(DEADLINE, async || {
                let sum = value(&fleet.database.url, picked).await?;
                let sum: i64 = sum.unwrap_or_default().parse()?;
                anyhow::ensure!(sum >= at_least, "{sum} picks");
                Ok(sum)
            })
            .await
        };
        let before = picks(0).await?;
        let started = Instant::now();
        // More than there are jobs.
        picks(before + JOBS + 10).await?;
        let took = started.elapsed();
        assert!(took > Duration::from_secs(4), "thirty picks in {took:?}");
        producer.stop().await
    })
    .await
}

/// A part of the producer that cannot go on ends it, so that somebody notices; the rest alone would look ready.
#[tokio::test(flavor = "multi_thread")]
async fn a_producer_that_cannot_take_dead_letters_in_ends() -> anyhow::Result<()> {
    fleet::run(SandboxConfig::default(), async |fleet| {
        let (mut producer, _) = fleet.producer_process("deaf").await?;
        let amqp = fleet.environment.get("AMQP_URL")?;
        let connection = lapin::Connection::connect(amqp, Default::default()).await?;
        let channel = connection.create_channel().await?;
        let dead = fleet.queues.topology().queue_name(Queue::Dead);
        channel
            .queue_delete(dead.as_str().into(), Default::default())
            .await?;
        // Somebody else's, with other arguments.
        channel
            .queue_declare(
                dead.as_str().into(),
                Default::default(),
                FieldTable::default(),
            )
            .await?;
        let end = producer.end(DEADLINE).await?;
        assert_eq!(end.code(), Some(4));
        let log = std::fs::read_to_string(producer.log())?;
        assert!(log.contains("dead letters") && log.contains(&dead), "{log}");
        connection.close(200, "done".into()).await?;
        Ok(())
    })
    .await
}
