//! A worker process is killed while its paid request is on its way, or by the job itself: nothing is paid twice, nothing is lost.

use std::os::unix::process::ExitStatusExt as _;

use anyhow::Context as _;
use fleet::{Api, DEADLINE, Environment, Expectation, Fleet, Kind, Observer, Service, eventually};
use rustix::process::Signal;
use sandbox::{Fault, FaultRule, Operation, SandboxConfig, Vendor, When};
use shared::crash::Point;

use crate::sql::value;

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_killed_while_it_pays_costs_nothing() -> anyhow::Result<()> {
    fleet::run(SandboxConfig::default(), async |fleet| {
        let (_producer, started) = fleet.producer_process("producer").await?;
        let mut worker = fleet.worker_process("worker-1").await?;
        let api = Api::new(started["http"].as_str().context("no address")?)?;
        for vendor in [Vendor::Sync, Vendor::Ghostcut] {
            let late = Fault::Delay {
                ms: 1500,
                when: When::After,
            };
            fleet
                .sandbox
                .faults()
                .add(FaultRule::new(vendor, Operation::Submit, late).times(1))?;
        }
        let mut ends = Vec::new();
        let mut observer = Observer::connect(&fleet.database.url).await?;
        for (number, kind) in [Kind::Lipsync, Kind::Inpaint].into_iter().enumerate() {
            let request = fleet.media.request(kind, number);
            let job = api.submit(&request, &format!("key-{number}")).await?;
            assert_eq!(api.submit(&request, &format!("key-{number}")).await?, job);
            ends.push(Expectation::completed(job, kind));
            eventually(DEADLINE, async || {
                let now = observer.snapshot().await?;
                let accepted = fleet.sandbox.truth().paid(Vendor::Sync)
                    + fleet.sandbox.truth().paid(Vendor::Ghostcut);
                let pays = now.paying.contains(&worker.name);
                anyhow::ensure!(
                    pays && accepted == number + 1,
                    "{now:?}, accepted {accepted}"
                );
                Ok(())
            })
            .await?;
            worker.kill().await?;
            worker = fleet
                .worker_process(&format!("worker-{}", number + 2))
                .await?;
        }
        let books = fleet.books(&ends).await?;
        books.assert_balanced();
        assert_eq!((books.finished, books.unknowns_resolved), (2, 2));
        let shown = api.show(ends[0].job).await?;
        assert_eq!(shown["status"], "completed");
        assert!(worker.terminate(DEADLINE).await?.success(), "a clean end");
        Ok(())
    })
    .await
}

/// One dispatch for the whole test, so that each worker is given the job itself and no message of an older epoch.
fn patient(fleet: &Fleet) -> Environment {
    let environment = fleet.environment.clone().with("STAGE_LEASE", "5m");
    environment.with("MAX_STARTS", "2")
}

/// Two workers, as many starts as are allowed, are killed as soon as they have loaded the job; then comes one that lives.
async fn kills_its_workers(fleet: &Fleet, stage: &str) -> anyhow::Result<Service> {
    let dying = patient(fleet)
        .with("CRASH_POINT", format!("{:?}", Point::Loaded))
        .with("STAGES", stage);
    for name in ["victim-1", "victim-2"] {
        let end = fleet.process(name, "worker", &dying)?.end(DEADLINE).await?;
        assert_eq!(end.signal(), Some(Signal::KILL.as_raw()));
    }
    Service::worker(&patient(fleet), "heir")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_kills_its_workers_is_given_up_before_it_is_paid_for() -> anyhow::Result<()> {
    fleet::run(SandboxConfig::default(), async |fleet| {
        let producer = Service::producer(&patient(fleet))?;
        let job = fleet.submit_kind(Kind::Lipsync, 0).await?;
        let heir = kills_its_workers(fleet, "lipsync.submit").await?;
        let given_up = Expectation {
            status: "failed",
            stage_state: Some("dead"),
            ..job
        };
        let given_up = given_up.paying(shared::domain::Vendor::Sync, 0);
        fleet.books(&[given_up]).await?.assert_balanced();
        let reason = "SELECT reason AS value FROM dead_letters";
        let reason = value(&fleet.database.url, reason).await?;
        assert_eq!(reason.as_deref(), Some("kills_consumers"));
        for service in [heir, producer] {
            service.stop().await?;
        }
        Ok(())
    })
    .await
}

/// What is paid for is tried again, however often it kills.
#[tokio::test(flavor = "multi_thread")]
async fn a_paid_job_that_kills_its_workers_is_not_given_up() -> anyhow::Result<()> {
    fleet::run(SandboxConfig::default(), async |fleet| {
        let producer = Service::producer(&patient(fleet))?;
        let submitting = patient(fleet).with("STAGES", "lipsync.submit");
        let submitter = Service::worker(&submitting, "submitter")?;
        let job = fleet.submit_kind(Kind::Lipsync, 0).await?;
        let heir = kills_its_workers(fleet, "lipsync.poll").await?;
        fleet.books(&[job]).await?.assert_balanced();
        for service in [heir, submitter, producer] {
            service.stop().await?;
        }
        Ok(())
    })
    .await
}
