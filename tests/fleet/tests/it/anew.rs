//! Works that end without a result, and what is paid for instead: another attempt, within its bound.

use std::time::Duration;

use fleet::{DEADLINE, Expectation, Fleet, Kind, Service, eventually};
use sandbox::{Fault, FaultRule, Operation, SandboxConfig, Vendor as Payee, When};
use shared::db::Canceled;
use shared::domain::{LedgerState, Stage, Vendor};

use crate::callback_evidence::{ByHand, Hand};
use crate::ledger::state_of;
use crate::sql::{execute, value};

/// Ends in this GhostCut status.
fn ends_in(code: i32) -> FaultRule {
    let fault = Fault::Statuses {
        codes: vec![0, code],
        step_ms: None,
        progress: Some(100.0),
    };
    FaultRule::new(Payee::Ghostcut, Operation::Process, fault)
}

/// Submits a job whose answer is lost and whose work no search shows until the source is deleted; it then ends as one whose source
/// could not be downloaded.
async fn loses_its_source(
    fleet: &Fleet,
    max_paid_attempts: &str,
) -> anyhow::Result<(Expectation, [Service; 2])> {
    const DOWNLOAD_FAILED: i32 = 3;
    let faults = fleet.sandbox.faults();
    faults.add(ends_in(DOWNLOAD_FAILED).times(1))?;
    let lost = FaultRule::new(Payee::Ghostcut, Operation::Submit, Fault::LoseAnswer);
    faults.add(lost.times(1))?;
    // Both searches of the fast fleet's schedule. The one that decides shows it.
    let contains = String::new();
    let hidden = FaultRule::new(
        Payee::Ghostcut,
        Operation::List,
        Fault::DropItems { contains },
    );
    faults.add(hidden.times(2))?;
    let environment = (fleet.environment.clone()).with("MAX_PAID_ATTEMPTS", max_paid_attempts);
    let job = fleet.submit_kind(Kind::Inpaint, 0).await?;
    let services = [
        Service::producer(&environment)?,
        Service::worker(&environment, "worker")?,
    ];
    eventually(DEADLINE, async || {
        let ended = "SELECT state AS value FROM submissions WHERE attempt = 1 AND source_deleted_at IS NOT NULL";
        let ended = value(&fleet.database.url, ended).await?;
        anyhow::ensure!(ended.as_deref() == Some("failed"), "{ended:?}");
        Ok(())
    })
    .await?;
    Ok((job, services))
}

async fn stop(services: [Service; 2]) -> anyhow::Result<()> {
    for service in services.into_iter().rev() {
        service.stop().await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_work_that_failed_because_we_deleted_its_source_is_submitted_anew() -> anyhow::Result<()>
{
    fleet::run(SandboxConfig::default(), async |fleet| {
        let (job, services) = loses_its_source(fleet, "2").await?;
        let job = job.paying(Vendor::Ghostcut, 2);
        fleet.books(&[job]).await?.assert_balanced();
        stop(services).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_source_is_made_good_within_the_bound_only() -> anyhow::Result<()> {
    fleet::run(SandboxConfig::default(), async |fleet| {
        let (mut job, services) = loses_its_source(fleet, "1").await?;
        job.status = "failed";
        job.stage_state = Some("dead");
        fleet.books(&[job]).await?.assert_balanced();
        let why = value(
            &fleet.database.url,
            "SELECT reason AS value FROM job_stages",
        )
        .await?;
        assert_eq!(why.as_deref(), Some("input_unreadable"));
        stop(services).await
    })
    .await
}

/// The submission that was polled is the job's no more: it was proved absent, or another work had taken its place. The submitting
/// stage reads the ledger anew: it pays for another attempt, or goes on with the duplicate that is there.
#[tokio::test(flavor = "multi_thread")]
async fn a_poll_with_nothing_to_poll_goes_back_to_submitting() -> anyhow::Result<()> {
    fleet::run(SandboxConfig::default(), async |fleet| {
        let hand = Hand::new(fleet, &fleet.environment)?;
        let absent = fleet.submit_kind(Kind::Inpaint, 0).await?;
        let sent = hand.submit(absent.job, 1).await?;
        hand.settle(&sent, LedgerState::Unknown, None).await?;
        let next = Some((Stage::InpaintPoll, 0));
        hand.settle(&sent, LedgerState::Absent, next).await?;

        let replaced = fleet.submit_kind(Kind::Inpaint, 2).await?;
        let sent = hand.submit(replaced.job, 1).await?;
        let duplicate = format!(
            "UPDATE submissions SET state = 'duplicate', vendor_task_id = '{}', work_state = 'pending', settled_at = now() \
             WHERE token = '{}'; \
             UPDATE job_stages SET stage = 'inpaint.poll', state = 'waiting', due_at = now() WHERE job_id = '{}'",
            sent.task_id, sent.token, sent.job
        );
        execute(&fleet.database.url, &duplicate).await?;
        let jobs = [absent.paying(Vendor::Ghostcut, 2), replaced];
        let services = [fleet.producer()?, fleet.workers(1)?.remove(0)];
        fleet.wait_for(&jobs).await?;
        let attempts = "SELECT string_agg(attempt || ' ' || state, ', ' ORDER BY attempt, state) AS value FROM submissions";
        let attempts = value(&fleet.database.url, attempts).await?;
        let expected = "1 absent, 1 succeeded, 2 succeeded";
        assert_eq!(attempts.as_deref(), Some(expected));
        stop(services).await
    })
    .await
}

/// A status that was read right after a redo may be the one from before it.
#[tokio::test(flavor = "multi_thread")]
async fn the_sweep_believes_a_failure_only_some_time_after_a_redo() -> anyhow::Result<()> {
    fleet::run(SandboxConfig::default(), async |fleet| {
        let url = &fleet.database.url;
        // As long as the slowest poll is apart.
        let environment = (fleet.environment.clone()).with("GHOSTCUT_POLL_SCHEDULE", "1h");
        fleet.sandbox.faults().add(ends_in(43))?;
        let hand = Hand::new(fleet, &environment)?;
        let mut sent = Vec::new();
        for _ in 0..2 {
            let job = fleet.submit_kind(Kind::Inpaint, 0).await?.job;
            let work = hand.submit(job, 1).await?;
            hand.settle(&work, LedgerState::Accepted, None).await?;
            sent.push(work);
        }
        let [redone, other] = &sent[..] else {
            anyhow::bail!("two were sent")
        };
        hand.settle(redone, LedgerState::Redoing, None).await?;
        for work in &sent {
            // No stage follows it any more, and the sweep reads the older one first.
            let canceled = fleet.db.cancel_jobs(&[work.job], "test", "test").await?;
            assert_eq!(canceled[0].1, Canceled::Now);
        }
        let both_failed = fleet.sandbox.truth().wait_until(DEADLINE, |truth| {
            let works = truth.works(Payee::Ghostcut);
            works.iter().all(|work| work.finished_at.is_some())
        });
        assert!(both_failed.await, "the works go on");
        let producer = Service::producer(&environment)?;
        let becomes = async |token, expected: &str| {
            eventually(DEADLINE, async || {
                let state = state_of(url, token).await?;
                anyhow::ensure!(state.as_deref() == Some(expected), "{state:?}");
                Ok(())
            })
            .await
        };
        becomes(other.token, "failed").await?;
        assert_eq!(state_of(url, redone.token).await?.as_deref(), Some("redoing"));
        // It has had the time.
        let hours = Duration::from_secs(2 * 3600).as_secs();
        let earlier = format!(
            "UPDATE submissions SET settled_at = settled_at - interval '{hours} s' WHERE token = '{}'",
            redone.token
        );
        execute(url, &earlier).await?;
        becomes(redone.token, "failed").await?;
        producer.stop().await
    })
    .await
}

/// The sweep asks for a page of works at once.
#[tokio::test(flavor = "multi_thread")]
async fn an_id_that_the_vendor_refuses_keeps_no_other_work_from_being_followed()
-> anyhow::Result<()> {
    fleet::run(SandboxConfig::default(), async |fleet| {
        let url = &fleet.database.url;
        let hand = Hand::new(fleet, &fleet.environment)?;
        let mut sent = Vec::new();
        for _ in 0..3 {
            let job = fleet.submit_kind(Kind::Inpaint, 0).await?.job;
            let work = hand.submit(job, 1).await?;
            hand.settle(&work, LedgerState::Accepted, None).await?;
            fleet.db.cancel_jobs(&[job], "test", "test").await?;
            sent.push(work);
        }
        let when = When::Before;
        let refusal = FaultRule::new(
            Payee::Ghostcut,
            Operation::Status,
            Fault::Code { code: 4001, when },
        );
        let rule = fleet
            .sandbox
            .faults()
            .add(refusal.containing(&sent[1].task_id))?;
        let producer = fleet.producer()?;
        let becomes = async |work: &ByHand| {
            eventually(DEADLINE, async || {
                let state = state_of(url, work.token).await?;
                anyhow::ensure!(state.as_deref() == Some("succeeded"), "{state:?}");
                Ok(())
            })
            .await
        };
        for work in [&sent[0], &sent[2]] {
            becomes(work).await?;
        }
        assert_eq!(
            state_of(url, sent[1].token).await?.as_deref(),
            Some("accepted")
        );
        fleet.sandbox.faults().remove(rule);
        becomes(&sent[1]).await?;
        producer.stop().await
    })
    .await
}
