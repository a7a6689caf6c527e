//! A worker that is stopped between its claim and its request, and wakes up when its deadline is over: it must not send.
//! Whatever happened meanwhile, the vendor gets one request.

use fleet::{DEADLINE, Environment, Expectation, Fleet, Kind, Process, Service, eventually};
use rustix::process::Signal;
use sandbox::{Fault, FaultRule, Operation, SandboxConfig, Vendor as Payee};
use shared::crash::Point;

use crate::sql::{execute, value, values};

/// Said by the worker itself, before its client could notice that no time is left.
const TOO_LATE: &str = "the send deadline passed before the request could be sent";

const SUBMIT: &str = "lipsync.submit,inpaint.submit";

/// A worker of these stages that stops itself at a point, and the job that brought it there.
async fn freeze(
    fleet: &Fleet,
    point: Point,
    stages: &str,
    kind: Kind,
) -> anyhow::Result<(Process, Expectation)> {
    freeze_with(fleet, &fleet.environment, point, stages, kind).await
}

async fn freeze_with(
    fleet: &Fleet,
    environment: &Environment,
    point: Point,
    stages: &str,
    kind: Kind,
) -> anyhow::Result<(Process, Expectation)> {
    let environment = environment
        .clone()
        .with("FREEZE_POINT", format!("{point:?}"))
        // The broker gives it nothing more, which would wait for a lease each time.
        .with("CONCURRENCY", "1")
        .with("STAGES", stages);
    let frozen = fleet.process("frozen", "worker", &environment)?;
    let job = fleet.submit_kind(kind, 0).await?;
    eventually(DEADLINE, async || {
        anyhow::ensure!(frozen.is_stopped()?, "the worker runs");
        Ok(())
    })
    .await?;
    Ok((frozen, job))
}

/// Wakes the worker up and waits until it has said that it is too late.
async fn wake(frozen: &mut Process) -> anyhow::Result<()> {
    frozen.signal(Signal::CONT)?;
    let noticed = |line: &serde_json::Value| line["error"] == TOO_LATE;
    frozen.logged(DEADLINE, noticed).await?;
    Ok(())
}

async fn states(fleet: &Fleet, job: &Expectation) -> anyhow::Result<Vec<String>> {
    let states = format!(
        "SELECT state AS value FROM submissions WHERE job_id = '{}' ORDER BY attempt",
        job.job
    );
    let states = values(&fleet.database.url, &states).await?;
    Ok(states.into_iter().flatten().collect())
}

/// Waits until the database's clock has passed this time of the job's submission.
async fn passed(fleet: &Fleet, time: &str) -> anyhow::Result<()> {
    let query = format!("SELECT 'over' AS value FROM submissions WHERE {time} < clock_timestamp()");
    eventually(DEADLINE, async || {
        let over = value(&fleet.database.url, &query).await?;
        anyhow::ensure!(over.is_some(), "there is time left");
        Ok(())
    })
    .await
}

/// Nobody else has looked at the job: what was not sent is recorded as not sent, and paid for by a new attempt.
async fn alone(kind: Kind, vendor: Payee) -> anyhow::Result<()> {
    fleet::run(SandboxConfig::default(), async |fleet| {
        let producer = fleet.producer()?;
        let (mut frozen, job) = freeze(fleet, Point::ClaimCommitted, SUBMIT, kind).await?;
        assert_eq!(states(fleet, &job).await?, ["claimed"]);
        passed(fleet, "send_deadline").await?;
        wake(&mut frozen).await?;
        let others = fleet.workers(1)?;
        fleet
            .books(std::slice::from_ref(&job))
            .await?
            .assert_balanced();
        assert_eq!(states(fleet, &job).await?, ["not_sent", "succeeded"]);
        let sent = fleet
            .sandbox
            .truth()
            .request_count(vendor, Operation::Submit);
        assert_eq!(sent, 1, "requests at {vendor:?}");
        for service in others.into_iter().chain([producer]) {
            service.stop().await?;
        }
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_frozen_past_its_deadline_does_not_send_to_sync() -> anyhow::Result<()> {
    alone(Kind::Lipsync, Payee::Sync).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_frozen_past_its_deadline_does_not_send_to_ghostcut() -> anyhow::Result<()> {
    alone(Kind::Inpaint, Payee::Ghostcut).await
}

/// Another worker has taken over, and the job is completed: the late one changes nothing.
async fn taken_over(kind: Kind, vendor: Payee, ends: &[&str]) -> anyhow::Result<()> {
    fleet::run(SandboxConfig::default(), async |fleet| {
        let producer = fleet.producer()?;
        // GhostCut's list has to show a work before it proves that another is not there.
        let mut jobs = Vec::new();
        if vendor == Payee::Ghostcut {
            let before = fleet.workers(1)?;
            jobs.push(fleet.submit_kind(kind, 2).await?);
            fleet.wait_for(&jobs).await?;
            for worker in before {
                worker.stop().await?;
            }
        }
        let (mut frozen, job) = freeze(fleet, Point::ClaimCommitted, SUBMIT, kind).await?;
        assert_eq!(states(fleet, &job).await?, ["claimed"]);
        let heirs = fleet.workers(1)?;
        fleet.wait_for(std::slice::from_ref(&job)).await?;
        wake(&mut frozen).await?;
        jobs.push(job.clone());
        fleet.books(&jobs).await?.assert_balanced();
        assert_eq!(states(fleet, &job).await?, ends);
        let sent = fleet
            .sandbox
            .truth()
            .request_count(vendor, Operation::Submit);
        assert_eq!(sent, jobs.len() as u64, "requests at {vendor:?}");
        for service in heirs.into_iter().chain([producer]) {
            service.stop().await?;
        }
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_worker_whose_job_was_replayed_at_sync_does_not_send() -> anyhow::Result<()> {
    taken_over(Kind::Lipsync, Payee::Sync, &["succeeded"]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_worker_whose_work_was_absent_at_ghostcut_does_not_send() -> anyhow::Result<()> {
    taken_over(Kind::Inpaint, Payee::Ghostcut, &["absent", "succeeded"]).await
}

/// The replay of a lost answer is a send like any other: the key may be forgotten by the time the worker wakes up.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_frozen_past_its_deadline_does_not_replay() -> anyhow::Result<()> {
    fleet::run(SandboxConfig::default(), async |fleet| {
        let rule = FaultRule::new(Payee::Sync, Operation::Submit, Fault::LoseAnswer).times(1);
        fleet.sandbox.faults().add(rule)?;
        let producer = fleet.producer()?;
        // Its lease outlasts the test: the deadline alone keeps it from sending.
        let patient = fleet.environment.clone().with("STAGE_LEASE", "10m");
        let (point, kind) = (Point::ReplayPending, Kind::Lipsync);
        let (mut frozen, job) = freeze_with(fleet, &patient, point, SUBMIT, kind).await?;
        let since = fleet.db.now().await?;
        let sent = || {
            fleet
                .sandbox
                .truth()
                .request_count(Payee::Sync, Operation::Submit)
        };
        assert_eq!(
            (states(fleet, &job).await?, sent()),
            (vec!["unknown".to_owned()], 1)
        );
        let over = "UPDATE job_stages SET due_at = clock_timestamp()";
        execute(&fleet.database.url, over).await?;
        let heirs = fleet.workers(1)?;
        fleet.wait_for(std::slice::from_ref(&job)).await?;
        assert_eq!(sent(), 2, "the heir has replayed it");
        let within = fleet.environment.get("SEND_DEADLINE")?;
        passed(
            fleet,
            &format!("timestamptz '{since}' + interval '{within}'"),
        )
        .await?;
        frozen.signal(Signal::CONT)?;
        // It finishes what it has in hand before it ends.
        assert!(frozen.terminate(DEADLINE).await?.success());
        assert_eq!(sent(), 2, "the frozen worker sends nothing");
        fleet
            .books(std::slice::from_ref(&job))
            .await?
            .assert_balanced();
        for service in heirs.into_iter().chain([producer]) {
            service.stop().await?;
        }
        Ok(())
    })
    .await
}

/// The first work fails in a way that a redo mends: a fleet whose worker of `inpaint.poll` stops itself at a point of that redo.
async fn freeze_redo(
    fleet: &Fleet,
    environment: &Environment,
    point: Point,
) -> anyhow::Result<(Process, Expectation)> {
    let (codes, step_ms, progress) = (vec![0, 43], None, None);
    let fault = Fault::Statuses {
        codes,
        step_ms,
        progress,
    };
    let rule = FaultRule::new(Payee::Ghostcut, Operation::Process, fault).times(1);
    fleet.sandbox.faults().add(rule)?;
    let submitting = fleet.environment.clone().with("STAGES", SUBMIT);
    let submitter = Service::worker(&submitting, "submitter")?;
    let frozen = freeze_with(fleet, environment, point, "inpaint.poll", Kind::Inpaint).await?;
    submitter.stop().await?;
    Ok(frozen)
}

fn redos(fleet: &Fleet) -> u64 {
    let truth = fleet.sandbox.truth();
    truth.request_count(Payee::Ghostcut, Operation::Redo)
}

/// What another worker has asked for meanwhile is not asked for again: the ledger does not allow it a second time.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_comes_late_to_a_redo_does_not_ask_for_it() -> anyhow::Result<()> {
    fleet::run(SandboxConfig::default(), async |fleet| {
        let producer = fleet.producer()?;
        // Its lease outlasts the test: the ledger's verdict alone keeps it from asking.
        let patient = fleet.environment.clone().with("STAGE_LEASE", "10m");
        let (mut frozen, job) = freeze_redo(fleet, &patient, Point::RedoPermitted).await?;
        assert_eq!(states(fleet, &job).await?, ["accepted"]);
        let over = "UPDATE job_stages SET due_at = clock_timestamp()";
        execute(&fleet.database.url, over).await?;
        let heirs = fleet.workers(1)?;
        fleet.wait_for(std::slice::from_ref(&job)).await?;
        assert_eq!(redos(fleet), 1, "the heir has asked for it");
        frozen.signal(Signal::CONT)?;
        // It finishes what it has in hand before it ends.
        assert!(frozen.terminate(DEADLINE).await?.success());
        assert_eq!(redos(fleet), 1, "the frozen worker asks for nothing");
        fleet.books(&[job]).await?.assert_balanced();
        for service in heirs.into_iter().chain([producer]) {
            service.stop().await?;
        }
        Ok(())
    })
    .await
}

/// A redo is paid for too: the ledger allowed it, the worker slept, and asks nothing. The next poll sees that nothing runs.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_frozen_past_its_deadline_does_not_redo() -> anyhow::Result<()> {
    fleet::run(SandboxConfig::default(), async |fleet| {
        let producer = fleet.producer()?;
        let (frozen, job) = freeze_redo(fleet, &fleet.environment, Point::RedoClaimed).await?;
        assert_eq!(states(fleet, &job).await?, ["redoing"]);
        let deadline = format!(
            "settled_at + interval '{}'",
            fleet.environment.get("SEND_DEADLINE")?
        );
        passed(fleet, &deadline).await?;
        assert_eq!(redos(fleet), 0);
        frozen.signal(Signal::CONT)?;
        let others = fleet.workers(1)?;
        fleet
            .books(std::slice::from_ref(&job))
            .await?
            .assert_balanced();
        let allowed = "SELECT redos::text AS value FROM submissions";
        let allowed = value(&fleet.database.url, allowed).await?;
        assert_eq!(
            (allowed.as_deref(), redos(fleet)),
            (Some("2"), 1),
            "allowed twice, asked once"
        );
        for service in others.into_iter().chain([producer]) {
            service.stop().await?;
        }
        Ok(())
    })
    .await
}
