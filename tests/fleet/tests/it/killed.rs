//! A worker process is killed while its paid request is on its way: nothing is paid twice, nothing is lost.

use anyhow::Context as _;
use fleet::{Api, DEADLINE, Expectation, Kind, Observer, eventually};
use sandbox::{Fault, FaultRule, Operation, SandboxConfig, Vendor, When};

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
