//! Whole fleets for those scenarios of the replaced system that no other test has.

use anyhow::Context as _;
use fleet::{DEADLINE, Expectation, Fleet, Kind, Service, eventually};
use sandbox::{Fault, FaultRule, Operation, SandboxConfig, Vendor as Payee, When};
use shared::domain::Vendor;

use crate::sql::{execute, value};

/// Long enough for a test to do something to a job whose work goes on.
const SLOW_WORK: Fault = Fault::Duration { ms: 2_500 };
/// A sample of some 40 kB takes longer than everything else in the test.
const SLOW_BYTES_PER_SECOND: u64 = 2_000;

async fn one_of_each(fleet: &Fleet) -> anyhow::Result<[Service; 2]> {
    Ok([fleet.producer()?, fleet.workers(1)?.remove(0)])
}

async fn stop(services: [Service; 2]) -> anyhow::Result<()> {
    for service in services {
        service.stop().await?;
    }
    Ok(())
}

fn strike(
    fleet: &Fleet,
    vendor: Payee,
    at: Operation,
    job: &Expectation,
    fault: Fault,
    times: u64,
) -> anyhow::Result<()> {
    let rule = FaultRule::new(vendor, at, fault).containing(job.job.to_string());
    fleet.sandbox.faults().add(rule.times(times))?;
    Ok(())
}

const fn result_status(status: u16) -> Fault {
    let (error_code, body, when) = (None, None, When::Before);
    Fault::Status {
        status,
        error_code,
        body,
        when,
    }
}

/// Waits until a query has a value that `is_it` accepts.
async fn until(fleet: &Fleet, query: &str, is_it: impl Fn(&str) -> bool) -> anyhow::Result<()> {
    eventually(DEADLINE, async || {
        let found = value(&fleet.database.url, query).await?;
        anyhow::ensure!(found.as_deref().is_some_and(&is_it), "{query}: {found:?}");
        Ok(())
    })
    .await
}

async fn until_accepted(fleet: &Fleet, works: usize) -> anyhow::Result<()> {
    let accepted =
        "SELECT count(*)::text AS value FROM submissions WHERE vendor_task_id IS NOT NULL";
    until(fleet, accepted, |count| count == works.to_string()).await
}

/// They are polled together; one is deleted on the way, one has a row that nobody can read any more.
#[tokio::test(flavor = "multi_thread")]
async fn regression_03_one_bad_job_affects_no_other() -> anyhow::Result<()> {
    fleet::run(SandboxConfig::default(), async |fleet| {
        fleet.sandbox.faults().add(FaultRule::new(
            Payee::Ghostcut,
            Operation::Process,
            SLOW_WORK,
        ))?;
        let mut jobs = Vec::new();
        for number in [0, 2, 4, 6, 8] {
            jobs.push(fleet.submit_kind(Kind::Inpaint, number).await?);
        }
        let services = one_of_each(fleet).await?;
        until_accepted(fleet, jobs.len()).await?;
        let (deleted, broken) = (jobs[1].job, jobs[2].job);
        let harm = format!(
            "DELETE FROM video_jobs WHERE id = '{deleted}'; \
             UPDATE video_jobs SET processing_config = '[]' WHERE id = '{broken}'"
        );
        execute(&fleet.database.url, &harm).await?;
        jobs[2].status = "processing";
        jobs[2].stage_state = Some("parked");
        let books = fleet.books(&jobs).await?;
        let others: Vec<_> = books
            .differences
            .iter()
            .filter(|line| !line.contains(&deleted.to_string()))
            .collect();
        assert!(others.is_empty(), "{others:?}");
        assert_eq!(
            (books.finished, books.paid.ghostcut, books.ledger.ghostcut),
            (3, 5, 5)
        );
        stop(services).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn regression_07_a_slow_transfer_holds_up_no_other_job() -> anyhow::Result<()> {
    fleet::run(SandboxConfig::default(), async |fleet| {
        let slow = fleet.submit_kind(Kind::Lipsync, 0).await?;
        let bytes_per_second = SLOW_BYTES_PER_SECOND;
        strike(
            fleet,
            Payee::Sync,
            Operation::Result,
            &slow,
            Fault::Slow { bytes_per_second },
            9,
        )?;
        let _services = one_of_each(fleet).await?;
        let storing = "SELECT state AS value FROM job_stages WHERE stage = 'lipsync.store'";
        until(fleet, storing, |state| state == "dispatched").await?;
        let other = fleet.submit_kind(Kind::Both, 2).await?;
        fleet.wait_for(std::slice::from_ref(&other)).await?;
        let stage = fleet
            .db
            .job_stage(slow.job)
            .await?
            .context("the slow one was not slow")?;
        assert_eq!(
            (stage.stage.as_str(), stage.state.as_str()),
            ("lipsync.store", "dispatched")
        );
        let unclear = "SELECT count(*)::text AS value FROM job_events WHERE kind = 'retry'";
        assert_eq!(
            value(&fleet.database.url, unclear).await?.as_deref(),
            Some("0")
        );
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn regression_10_a_submit_without_a_project_is_polled_by_its_work() -> anyhow::Result<()> {
    fleet::run(SandboxConfig::default(), async |fleet| {
        let keys = vec!["idProject".to_owned()];
        let rule = FaultRule::new(Payee::Ghostcut, Operation::Submit, Fault::Omit { keys });
        fleet.sandbox.faults().add(rule.times(1))?;
        let job = fleet.submit_kind(Kind::Inpaint, 0).await?;
        let services = one_of_each(fleet).await?;
        fleet
            .books(std::slice::from_ref(&job))
            .await?
            .assert_balanced();
        let ids = "SELECT concat_ws('|', vendor_task_id, attempt) AS value FROM submissions";
        let work = fleet.sandbox.truth().works(Payee::Ghostcut).remove(0);
        assert_eq!(
            value(&fleet.database.url, ids).await?,
            Some(format!("{}|1", work.id))
        );
        assert_eq!(fleet.sandbox.faults().fired().len(), 1);
        stop(services).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn regression_13_a_failure_is_final_at_any_progress() -> anyhow::Result<()> {
    fleet::run(SandboxConfig::default(), async |fleet| {
        let mut jobs = Vec::new();
        for (number, progress) in [Some(40.0), None, Some(100.0)].into_iter().enumerate() {
            let mut job = fleet.submit_kind(Kind::Inpaint, number).await?;
            let (codes, step_ms) = (vec![0, 20], None);
            let fault = Fault::Statuses {
                codes,
                step_ms,
                progress,
            };
            strike(fleet, Payee::Ghostcut, Operation::Process, &job, fault, 1)?;
            job.status = "processing";
            job.stage_state = Some("parked");
            jobs.push(job);
        }
        let services = one_of_each(fleet).await?;
        fleet.books(&jobs).await?.assert_balanced();
        let told = "SELECT count(*)::text AS value FROM job_events \
                    WHERE kind = 'parked' AND detail ->> 'error' LIKE '%(code 20)'";
        assert_eq!(
            value(&fleet.database.url, told).await?.as_deref(),
            Some("3")
        );
        stop(services).await
    })
    .await
}

/// A server error, half a file, a connection that breaks: twice each.
#[tokio::test(flavor = "multi_thread")]
async fn regression_14_a_result_that_cannot_be_fetched_at_first_is_fetched_later()
-> anyhow::Result<()> {
    fleet::run(SandboxConfig::default(), async |fleet| {
        let mut jobs = Vec::new();
        for (number, fault) in [
            result_status(503),
            Fault::Truncate { bytes: 1_000 },
            Fault::LoseRequest,
        ]
        .into_iter()
        .enumerate()
        {
            for (vendor, kind) in [
                (Payee::Sync, Kind::Lipsync),
                (Payee::Ghostcut, Kind::Inpaint),
            ] {
                let job = fleet.submit_kind(kind, number).await?;
                strike(fleet, vendor, Operation::Result, &job, fault.clone(), 2)?;
                jobs.push(job);
            }
        }
        let services = one_of_each(fleet).await?;
        fleet.books(&jobs).await?.assert_balanced();
        assert_eq!(fleet.sandbox.faults().fired().len(), 2 * jobs.len());
        stop(services).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn regression_19_an_expired_result_is_asked_for_anew_but_not_for_ever() -> anyhow::Result<()>
{
    fleet::run(SandboxConfig::default(), async |fleet| {
        let environment = fleet.environment.clone().with("MAX_TRIES", "4");
        let once = fleet.submit_kind(Kind::Lipsync, 0).await?;
        strike(
            fleet,
            Payee::Sync,
            Operation::Result,
            &once,
            result_status(403),
            1,
        )?;
        let mut always = fleet.submit_kind(Kind::Lipsync, 1).await?;
        strike(
            fleet,
            Payee::Sync,
            Operation::Result,
            &always,
            result_status(403),
            100,
        )?;
        always.status = "failed";
        always.stage_state = Some("dead");
        let services = [
            Service::producer(&environment)?,
            Service::worker(&environment, "worker")?,
        ];
        fleet
            .books(&[once.clone(), always])
            .await?
            .assert_balanced();
        let polls = format!(
            "SELECT count(*)::text AS value FROM job_events \
             WHERE job_id = '{}' AND detail ->> 'event' = 'Succeeded'",
            once.job
        );
        assert_eq!(
            value(&fleet.database.url, &polls).await?.as_deref(),
            Some("2")
        );
        stop(services).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn regression_20_every_end_of_a_generation_ends_its_job() -> anyhow::Result<()> {
    fleet::run(SandboxConfig::default(), async |fleet| {
        let mut jobs = Vec::new();
        for (number, status) in ["CANCELED", "TIMED_OUT", "REJECTED"]
            .into_iter()
            .enumerate()
        {
            let mut job = fleet.submit_kind(Kind::Lipsync, number).await?;
            let (status, error_code) = (status.to_owned(), None);
            strike(
                fleet,
                Payee::Sync,
                Operation::Process,
                &job,
                Fault::Outcome { status, error_code },
                1,
            )?;
            job.status = "failed";
            jobs.push(job);
        }
        let services = one_of_each(fleet).await?;
        fleet.books(&jobs).await?.assert_balanced();
        stop(services).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn regression_30_ghostcut_reads_from_our_bucket_only() -> anyhow::Result<()> {
    fleet::run(SandboxConfig::default(), async |fleet| {
        let mut jobs = Vec::new();
        // The second one's own video is elsewhere too.
        for (number, kind) in [Kind::Both, Kind::Inpaint].into_iter().enumerate() {
            jobs.push(fleet.submit_kind(kind, number).await?);
        }
        let services = one_of_each(fleet).await?;
        fleet.books(&jobs).await?.assert_balanced();
        let bucket = format!(
            "{}/{}/",
            fleet.environment.get("S3_ENDPOINT_URL")?,
            fleet.storage.bucket()
        );
        for work in fleet.sandbox.truth().works(Payee::Ghostcut) {
            assert!(work.source_url.starts_with(&bucket), "{}", work.source_url);
            assert!(work.source_url.is_ascii());
        }
        stop(services).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn regression_31_a_deleted_job_leaves_its_ledger() -> anyhow::Result<()> {
    fleet::run(SandboxConfig::default(), async |fleet| {
        fleet.sandbox.faults().add(FaultRule::new(
            Payee::Ghostcut,
            Operation::Process,
            SLOW_WORK,
        ))?;
        let job = fleet.submit_kind(Kind::Inpaint, 0).await?;
        let services = one_of_each(fleet).await?;
        until_accepted(fleet, 1).await?;
        let delete = format!("DELETE FROM video_jobs WHERE id = '{}'", job.job);
        execute(&fleet.database.url, &delete).await?;
        let wasted = format!(
            "SELECT state AS value FROM submissions WHERE job_id = '{}' AND cost_wasted > 0",
            job.job
        );
        until(fleet, &wasted, |state| state == "succeeded").await?;
        assert_eq!(fleet.sandbox.truth().paid(Payee::Ghostcut), 1);
        stop(services).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn regression_34_a_canceled_job_stays_canceled() -> anyhow::Result<()> {
    fleet::run(SandboxConfig::default(), async |fleet| {
        fleet
            .sandbox
            .faults()
            .add(FaultRule::new(Payee::Sync, Operation::Process, SLOW_WORK))?;
        let job = fleet.submit_kind(Kind::Both, 0).await?;
        let services = one_of_each(fleet).await?;
        until_accepted(fleet, 1).await?;
        let cancel = format!(
            "UPDATE video_jobs SET status = 'canceled' WHERE id = '{}'",
            job.job
        );
        execute(&fleet.database.url, &cancel).await?;
        until(fleet, "SELECT state AS value FROM submissions", |state| {
            state == "succeeded"
        })
        .await?;
        let mut job = job.paying(Vendor::Ghostcut, 0);
        job.status = "canceled";
        fleet.books(&[job]).await?.assert_balanced();
        stop(services).await
    })
    .await
}

/// Chinese letters, a blank, a `#`, a `%` and a `+` in the name of the input.
#[tokio::test(flavor = "multi_thread")]
async fn regression_35_any_file_name_will_do() -> anyhow::Result<()> {
    fleet::run(SandboxConfig::default(), async |fleet| {
        let name = "视频 #1 50%+ü.mp4";
        let sample = sandbox::media::SAMPLES
            .iter()
            .find(|sample| sample.name == "talk.mp4");
        let bytes = sample.context("no sample")?.bytes.into();
        fleet
            .storage
            .put(&format!("uploads/{name}"), "video/mp4", bytes)
            .await?;
        let mut jobs = Vec::new();
        for kind in Kind::ALL {
            let mut request = fleet.media.request(kind, 0);
            request["video_url"] = format!("s3://{}/uploads/{name}", fleet.storage.bucket()).into();
            jobs.push(Expectation::completed(fleet.submit(&request).await?, kind));
        }
        let services = one_of_each(fleet).await?;
        fleet.books(&jobs).await?.assert_balanced();
        for vendor in [Payee::Sync, Payee::Ghostcut] {
            for work in fleet.sandbox.truth().works(vendor) {
                assert!(work.source_url.is_ascii(), "{}", work.source_url);
            }
        }
        stop(services).await
    })
    .await
}
