//! Messages that nobody can decide about are kept with their raw bodies and never loop; the queue goes on behind them.

use fleet::{DEADLINE, Kind, eventually};
use sandbox::SandboxConfig;
use shared::broker::{BrokerMetrics, Connection, Outgoing, PublishOutcome, Publisher};
use shared::config::BrokerConfig;
use shared::domain::Stage;
use shared::domain::message::{JobRef, Message};
use uuid::Uuid;

use crate::sql::values;

#[tokio::test(flavor = "multi_thread")]
async fn poison_is_kept_with_its_body_and_jobs_go_on() -> anyhow::Result<()> {
    fleet::run(SandboxConfig::default(), async |fleet| {
        let config: BrokerConfig = fleet.environment.parse()?;
        let metrics = BrokerMetrics::register(&shared::telemetry::Registry::default())?;
        let connection = Connection::connect(&config, "test", &metrics).await?;
        let publisher = Publisher::new(connection.clone(), &config);
        let elsewhere = Message {
            stage: Stage::InpaintPoll,
            jobs: vec![JobRef {
                id: Uuid::new_v4(),
                epoch: 1,
            }],
        };
        let unknown_job = Message {
            stage: Stage::LipsyncSubmit,
            jobs: vec![JobRef {
                id: Uuid::new_v4(),
                epoch: 1,
            }],
        };
        let bodies: [&[u8]; 5] = [
            b"not JSON",
            br#"{"v":1,"stage":"lipsync.sing","jobs":[]}"#,
            br#"{"v":0,"stage":"lipsync.submit","jobs":[]}"#,
            &elsewhere.encode(),
            // A job that never was: kept by the worker itself, which has no headers of a death.
            &unknown_job.encode(),
        ];
        let messages: Vec<_> = bodies
            .iter()
            .map(|body| Outgoing {
                message_id: Uuid::new_v4(),
                body: body.to_vec().into(),
                traceparent: None,
            })
            .collect();
        let outcomes = publisher.publish(Stage::LipsyncSubmit, &messages).await;
        assert!(
            outcomes
                .iter()
                .all(|outcome| *outcome == PublishOutcome::Confirmed),
            "{outcomes:?}"
        );

        let job = fleet.submit_kind(Kind::Lipsync, 0).await?;
        let services = [fleet.workers(1)?, vec![fleet.producer()?]];
        fleet
            .books(std::slice::from_ref(&job))
            .await?
            .assert_balanced();
        // Rejected at once, not after as many deliveries as the queue allows.
        let kept = "SELECT coalesce(headers #>> '{x-death,0,reason}', 'kept') || ' ' || convert_from(body, 'UTF8') AS value \
                    FROM dead_letters WHERE reason = 'undecidable' AND (headers ? 'x-death' OR error LIKE '%nobody knows') \
                    ORDER BY 1";
        eventually(DEADLINE, async || {
            let mut expected: Vec<_> = bodies
                .iter()
                .enumerate()
                .map(|(n, body)| {
                    let how = if n < 4 { "rejected" } else { "kept" };
                    Some(format!("{how} {}", String::from_utf8_lossy(body)))
                })
                .collect();
            expected.sort();
            let kept = values(&fleet.database.url, kept).await?;
            anyhow::ensure!(kept == expected, "kept {kept:?}");
            Ok(())
        })
        .await?;
        for service in services.into_iter().flatten() {
            service.stop().await?;
        }
        connection.close().await;
        Ok(())
    })
    .await
}
