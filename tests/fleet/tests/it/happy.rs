//! Nothing goes wrong: every kind of job through three workers.

use fleet::{Expectation, Fleet, Kind};
use futures::TryStreamExt as _;
use sandbox::SandboxConfig;
use sandbox::media::Provenance;
use shared::domain::Vendor;
use shared::storage::Container;

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_is_completed_and_paid_once() -> anyhow::Result<()> {
    fleet::run(SandboxConfig::default(), async |fleet| {
        let producer = fleet.producer()?;
        let workers = fleet.workers(3)?;
        let mut expected = Vec::new();
        for (number, kind) in Kind::ALL.into_iter().cycle().take(6).enumerate() {
            expected.push((fleet.submit_kind(kind, number).await?, kind));
        }
        let ends: Vec<_> = expected.iter().map(|(end, _)| end.clone()).collect();
        let books = fleet.books(&ends).await?;
        books.assert_balanced();
        assert_eq!((books.jobs, books.finished, books.duplicates), (6, 6, 0));
        assert_eq!((books.paid.sync, books.paid.ghostcut), (4, 4));
        assert_eq!((books.ledger, books.unknowns_resolved), (books.paid, 0));
        // The books would have told.
        let wrong: Vec<_> = ends
            .iter()
            .map(|end| end.clone().paying(Vendor::Sync, 0))
            .collect();
        let wrong = fleet.books(&wrong).await?;
        assert_eq!((wrong.differences.len(), wrong.duplicates), (4, 4));
        assert!(
            !fleet.books(&ends[1..]).await?.balanced(),
            "an unexpected job"
        );
        for (end, kind) in &expected {
            check_output(fleet, end, *kind).await?;
        }
        for service in workers.into_iter().chain([producer]) {
            service.stop().await?;
        }
        Ok(())
    })
    .await
}

/// Any number of producers may run: they share the due rows, and none is dispatched by two of them.
#[tokio::test(flavor = "multi_thread")]
async fn several_producers_share_the_work() -> anyhow::Result<()> {
    fleet::run(SandboxConfig::default(), async |fleet| {
        let mut services = fleet.workers(2)?;
        for _ in 0..3 {
            services.push(fleet.producer()?);
        }
        let mut jobs = Vec::new();
        for number in 0..12 {
            jobs.push(fleet.submit_kind(Kind::ALL[number % 3], number).await?);
        }
        fleet.books(&jobs).await?.assert_balanced();
        for service in services {
            service.stop().await?;
        }
        Ok(())
    })
    .await
}

/// The job's output is an MP4 in our bucket, made by exactly the works that were paid for it, in their order.
async fn check_output(fleet: &Fleet, end: &Expectation, kind: Kind) -> anyhow::Result<()> {
    let job = fleet.db.job(end.job).await?.unwrap();
    let key = fleet.storage.key_of(job.output_url.as_deref().unwrap());
    let object = fleet.storage.get(&key.unwrap(), None).await?;
    let file: Vec<u8> = object.body.try_collect::<Vec<_>>().await?.concat();
    assert_eq!(Container::sniff(&file), Some(Container::Mp4));

    let submissions = fleet.db.job_submissions(end.job).await?;
    let booked: Vec<_> = submissions
        .iter()
        .map(|line| (line.vendor.clone(), line.vendor_task_id.clone().unwrap()))
        .collect();
    let made_by: Vec<_> = Provenance::find_all(&file)
        .into_iter()
        .map(|note| {
            let vendor = match note.vendor {
                sandbox::Vendor::Sync => Vendor::Sync,
                sandbox::Vendor::Ghostcut => Vendor::Ghostcut,
            };
            (vendor.to_string(), note.work)
        })
        .collect();
    assert_eq!(made_by, booked, "{kind:?}");
    Ok(())
}
