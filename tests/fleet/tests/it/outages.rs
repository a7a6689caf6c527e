//! Broker and database go away under a running fleet. No process is restarted; nothing is lost or paid twice.

use fleet::{DEADLINE, Expectation, Fleet, Kind, Servers, eventually, local};
use rustix::process::Signal;
use sandbox::{SandboxConfig, Vendor as Payee};
use serde_json::Value;
use shared::crash::Point;

/// An instance of its own: other tests use theirs while this one restarts and kills servers.
const INSTANCE: &str = "it-outages";

#[tokio::test(flavor = "multi_thread")]
async fn the_fleet_survives_its_servers() -> anyhow::Result<()> {
    let servers = Servers::private(INSTANCE).await?;
    let result = fleet::run_on(servers, SandboxConfig::default(), async |fleet| {
        let producer = fleet.producer()?;
        let workers = fleet.workers(2)?;
        let mut jobs = Vec::new();
        let outages: [&[&str]; 5] = [
            &["restart", "rabbitmq"],
            &["restart", "postgresql"],
            &["kill", "rabbitmq"],
            &["kill", "postgresql"],
            &["immediate", "postgresql"],
        ];
        for (number, outage) in outages.into_iter().enumerate() {
            // Something is on its way when the server goes.
            for kind in Kind::ALL {
                jobs.push(fleet.submit_kind(kind, number).await?);
            }
            let paid = 2 * number + 1;
            let under_way = fleet
                .sandbox
                .truth()
                .wait_until(DEADLINE, |truth| truth.paid(Payee::Sync) >= paid)
                .await;
            assert!(under_way, "nothing was submitted before outage {number}");
            local(INSTANCE, outage).await?;
            local(INSTANCE, &["up"]).await?;
            fleet.wait_for(&jobs).await?;
        }
        jobs.extend(through_an_alarm(fleet).await?);
        let books = fleet.books(&jobs).await?;
        books.assert_balanced();
        for service in workers.into_iter().chain([producer]) {
            service.stop().await?;
        }
        Ok(())
    })
    .await;
    local(INSTANCE, &["destroy"]).await?;
    result
}

/// While the broker blocks publishers, jobs wait as rows; afterwards they go on.
async fn through_an_alarm(fleet: &Fleet) -> anyhow::Result<Vec<Expectation>> {
    let watermark = async |value| {
        local(
            INSTANCE,
            &["ctl", "--", "set_vm_memory_high_watermark", value],
        )
        .await
    };
    watermark("0.00001").await?;
    let mut jobs = Vec::new();
    for kind in Kind::ALL {
        jobs.push(fleet.submit_kind(kind, 9).await?);
    }
    // Picked, not confirmed, put back: nothing is marked as out that is not.
    eventually(DEADLINE, async || {
        for job in &jobs {
            let stage = fleet.db.job_stage(job.job).await?;
            // Due when it was entered until it is put back.
            if stage.is_some_and(|stage| {
                stage.state == "waiting" && stage.due_at > Some(stage.entered_at)
            }) {
                return Ok(());
            }
        }
        anyhow::bail!("nothing was put back")
    })
    .await?;
    watermark("0.4").await?;
    fleet.wait_for(&jobs).await?;
    Ok(jobs)
}

/// PostgreSQL is gone when a stage asks it for the leave to pay: that says nothing about the job.
#[tokio::test(flavor = "multi_thread")]
async fn that_the_database_was_away_costs_no_try() -> anyhow::Result<()> {
    const INSTANCE: &str = "it-away";
    let servers = Servers::private(INSTANCE).await?;
    let result = fleet::run_on(servers, SandboxConfig::default(), async |fleet| {
        // With the first try the job would be given up.
        let environment = (fleet.environment.clone())
            .with("MAX_TRIES", "1")
            .with("STAGE_LEASE", "2m");
        let mut producer = fleet.process("producer", "producer", &environment)?;
        // One that is still starting may end when the database goes.
        producer.started().await?;
        // Stops itself in the middle of `inpaint.submit`, before it claims.
        let environment = environment.with("FREEZE_POINT", format!("{:?}", Point::SourceCopied));
        let mut worker = fleet.process("worker", "worker", &environment)?;
        let job = fleet.submit_kind(Kind::Inpaint, 0).await?;
        eventually(DEADLINE, async || {
            anyhow::ensure!(worker.is_stopped()?, "the worker runs");
            Ok(())
        })
        .await?;
        local(INSTANCE, &["kill", "postgresql"]).await?;
        worker.signal(Signal::CONT)?;
        let is_noticed =
            |line: &Value| line["message"] == "the database is away: the stage will run again";
        let noticed = worker.logged(DEADLINE, is_noticed).await;
        local(INSTANCE, &["up"]).await?;
        noticed?;
        let jobs = [job];
        fleet.wait_for(&jobs).await?;
        fleet.books(&jobs).await?.assert_balanced();
        worker.terminate(DEADLINE).await?;
        producer.terminate(DEADLINE).await?;
        Ok(())
    })
    .await;
    local(INSTANCE, &["destroy"]).await?;
    result
}
