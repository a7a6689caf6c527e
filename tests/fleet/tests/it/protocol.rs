//! The submission protocol end to end: answers lost, workers killed, messages doubled. The simulators count what was paid.

use std::time::Duration;

use fleet::{DEADLINE, Expectation, Fleet, Kind, Process, eventually};
use sandbox::{Fault, FaultRule, IdForm, Operation, SandboxConfig, Vendor as Payee, When};
use shared::broker::{BrokerMetrics, Connection, Outgoing, PublishOutcome, Publisher};
use shared::config::BrokerConfig;
use shared::domain::message::{JobRef, Message};
use shared::domain::{Stage, Vendor};
use uuid::Uuid;

use crate::callback_evidence::Hand;
use crate::sql::{execute, value};

const LONGER_THAN_A_TEST: u64 = 600_000;

/// Adds a fault for the one submission of this job.
fn strike(
    fleet: &Fleet,
    vendor: Payee,
    operation: Operation,
    job: Uuid,
    fault: Fault,
) -> anyhow::Result<()> {
    let rule = FaultRule::new(vendor, operation, fault)
        .containing(job.to_string())
        .times(1);
    fleet.sandbox.faults().add(rule)?;
    Ok(())
}

async fn settle_the_books(fleet: &Fleet, jobs: &[Expectation]) -> anyhow::Result<()> {
    let books = fleet.books(jobs).await?;
    books.assert_balanced();
    Ok(())
}

/// Every message three times, to three workers at once.
#[tokio::test(flavor = "multi_thread")]
async fn the_same_submit_message_at_several_workers_pays_once() -> anyhow::Result<()> {
    fleet::run(SandboxConfig::default(), async |fleet| {
        let mut jobs = Vec::new();
        for number in 0..12 {
            jobs.push(fleet.submit_kind(Kind::Lipsync, number).await?);
        }
        let workers = fleet.workers(3)?;
        let config: BrokerConfig = fleet.environment.parse()?;
        let metrics = BrokerMetrics::register(&shared::telemetry::Registry::default())?;
        let connection = Connection::connect(&config, "test", &metrics).await?;
        let publisher = Publisher::new(connection.clone(), &config);
        let lease = Duration::from_secs(10);
        let picked = fleet
            .db
            .pick_due(Stage::LipsyncSubmit, 100, 100, lease, None)
            .await?;
        assert_eq!(picked.len(), jobs.len());
        let thrice: Vec<_> = picked
            .iter()
            .flat_map(|row| std::iter::repeat_n(row, 3))
            .map(|row| Outgoing {
                message_id: Uuid::new_v4(),
                body: Message {
                    stage: Stage::LipsyncSubmit,
                    jobs: vec![JobRef {
                        id: row.job_id,
                        epoch: row.epoch,
                    }],
                }
                .encode()
                .into(),
                traceparent: None,
            })
            .collect();
        let outcomes = publisher.publish(Stage::LipsyncSubmit, &thrice).await;
        assert!(
            outcomes
                .iter()
                .all(|outcome| *outcome == PublishOutcome::Confirmed),
            "{outcomes:?}"
        );

        let producer = fleet.producer()?;
        settle_the_books(fleet, &jobs).await?;
        for service in workers.into_iter().chain([producer]) {
            service.stop().await?;
        }
        connection.close().await;
        Ok(())
    })
    .await
}

/// SIGKILL between the vendor's acceptance and our commit.
async fn killed_after_acceptance(vendor: Payee, kind: Kind) -> anyhow::Result<()> {
    fleet::run(SandboxConfig::default(), async |fleet| {
        let job = fleet.submit_kind(kind, 0).await?;
        let hang = Fault::Delay {
            ms: LONGER_THAN_A_TEST,
            when: When::After,
        };
        strike(fleet, vendor, Operation::Submit, job.job, hang)?;
        let _producer = fleet.producer()?;
        let mut victim = fleet.worker_process("victim").await?;
        let accepted = fleet
            .sandbox
            .truth()
            .wait_until(DEADLINE, |truth| truth.paid(vendor) == 1)
            .await;
        assert!(accepted, "the vendor accepted nothing");
        victim.kill().await?;

        let mut heir = fleet.worker_process("heir").await?;
        settle_the_books(fleet, std::slice::from_ref(&job)).await?;
        let submissions = fleet.db.job_submissions(job.job).await?;
        assert!(
            submissions.iter().all(|line| line.attempt == 1),
            "adopted, not sent again: {submissions:?}"
        );
        assert!(heir.terminate(DEADLINE).await?.success());
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_killed_after_sync_accepted_costs_nothing() -> anyhow::Result<()> {
    killed_after_acceptance(Payee::Sync, Kind::Lipsync).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_killed_after_ghostcut_accepted_costs_nothing() -> anyhow::Result<()> {
    killed_after_acceptance(Payee::Ghostcut, Kind::Inpaint).await
}

/// Whatever happens to the answer of an accepted submit: one paid work, adopted.
#[tokio::test(flavor = "multi_thread")]
async fn an_unclear_answer_is_cleared_up_and_never_paid_again() -> anyhow::Result<()> {
    let after = |status| Fault::Status {
        status,
        error_code: None,
        body: None,
        when: When::After,
    };
    let cases = [
        (Payee::Sync, Fault::LoseAnswer),
        (Payee::Sync, Fault::LoseRequest),
        (
            Payee::Sync,
            Fault::Delay {
                ms: 4_000,
                when: When::After,
            },
        ),
        (Payee::Sync, Fault::Garbage),
        (Payee::Sync, Fault::Truncate { bytes: 20 }),
        (Payee::Sync, after(502)),
        (
            Payee::Sync,
            Fault::Omit {
                keys: vec!["id".to_owned()],
            },
        ),
        (
            Payee::Sync,
            Fault::OutcomeUnknown {
                generation_id: false,
                when: When::After,
            },
        ),
        (
            Payee::Sync,
            Fault::OutcomeUnknown {
                generation_id: true,
                when: When::After,
            },
        ),
        (Payee::Ghostcut, Fault::LoseAnswer),
        (
            Payee::Ghostcut,
            Fault::Delay {
                ms: 4_000,
                when: When::After,
            },
        ),
        (Payee::Ghostcut, Fault::Garbage),
        (Payee::Ghostcut, Fault::Truncate { bytes: 20 }),
        (Payee::Ghostcut, after(502)),
        (
            Payee::Ghostcut,
            Fault::Code {
                code: 9999,
                when: When::After,
            },
        ),
        (
            Payee::Ghostcut,
            Fault::Omit {
                keys: vec!["dataList".to_owned(), "idProject".to_owned()],
            },
        ),
        (
            Payee::Ghostcut,
            Fault::Omit {
                keys: vec!["dataList".to_owned()],
            },
        ),
        (Payee::Ghostcut, Fault::Ids { form: IdForm::Text }),
    ];
    fleet::run(SandboxConfig::default(), async |fleet| {
        let mut jobs = Vec::new();
        for (number, (vendor, fault)) in cases.into_iter().enumerate() {
            let kind = if vendor == Payee::Sync {
                Kind::Lipsync
            } else {
                Kind::Inpaint
            };
            let job = fleet.submit_kind(kind, number).await?;
            strike(fleet, vendor, Operation::Submit, job.job, fault)?;
            jobs.push(job);
        }
        let struck = jobs.len();
        let services = [fleet.workers(2)?, vec![fleet.producer()?]];
        settle_the_books(fleet, &jobs).await?;
        assert_eq!(
            fleet.sandbox.faults().fired().len(),
            struck,
            "every fault was met"
        );
        for service in services.into_iter().flatten() {
            service.stop().await?;
        }
        Ok(())
    })
    .await
}

/// The request never arrived. Sync.so gets it again under its key; GhostCut only after it was searched for in vain by a search
/// that showed other works of that time.
#[tokio::test(flavor = "multi_thread")]
async fn a_lost_ghostcut_request_is_sent_anew_after_a_search_with_a_control() -> anyhow::Result<()>
{
    fleet::run(SandboxConfig::default(), async |fleet| {
        let services = [fleet.workers(1)?, vec![fleet.producer()?]];
        let control = fleet.submit_kind(Kind::Inpaint, 0).await?;
        fleet.wait_for(std::slice::from_ref(&control)).await?;

        let rule = FaultRule::new(Payee::Ghostcut, Operation::Submit, Fault::LoseRequest).times(1);
        fleet.sandbox.faults().add(rule)?;
        let lost = fleet.submit_kind(Kind::Inpaint, 1).await?;
        settle_the_books(fleet, &[control, lost.clone()]).await?;
        let states: Vec<_> = fleet
            .db
            .job_submissions(lost.job)
            .await?
            .into_iter()
            .map(|line| line.state)
            .collect();
        assert_eq!(states, ["absent", "succeeded"]);
        for service in services.into_iter().flatten() {
            service.stop().await?;
        }
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_control_a_person_decides_and_nothing_is_sent() -> anyhow::Result<()> {
    undecided(async |_| Ok(0)).await
}

/// The list shows other works, but neither their names nor their URLs: it would not show ours either.
#[tokio::test(flavor = "multi_thread")]
async fn a_list_without_names_and_urls_proves_nothing() -> anyhow::Result<()> {
    undecided(async |fleet| {
        let other = fleet.submit_kind(Kind::Inpaint, 1).await?;
        fleet.wait_for(&[other]).await?;
        let keys = ["name", "url"].map(str::to_owned).to_vec();
        for operation in [Operation::List, Operation::Status] {
            let blind = FaultRule::new(
                Payee::Ghostcut,
                operation,
                Fault::Omit { keys: keys.clone() },
            );
            fleet.sandbox.faults().add(blind)?;
        }
        Ok(1)
    })
    .await
}

/// The list shows names alone, and a work without one: it may be ours.
#[tokio::test(flavor = "multi_thread")]
async fn a_work_that_may_be_anybodys_is_for_a_person() -> anyhow::Result<()> {
    undecided(async |fleet| {
        let other = fleet.submit_kind(Kind::Inpaint, 1).await?;
        fleet.wait_for(&[other]).await?;
        Hand::new(fleet, &fleet.environment)?
            .send_nameless()
            .await?;
        let keys = vec!["url".to_owned()];
        let nameless = FaultRule::new(Payee::Ghostcut, Operation::List, Fault::Omit { keys });
        fleet.sandbox.faults().add(nameless)?;
        Ok(2)
    })
    .await
}

/// A lost request whose fate the search cannot tell. `prepare` says how many works were submitted before.
async fn undecided(prepare: impl AsyncFnOnce(&Fleet) -> anyhow::Result<u64>) -> anyhow::Result<()> {
    fleet::run(SandboxConfig::default(), async |fleet| {
        let services = [fleet.workers(1)?, vec![fleet.producer()?]];
        let before = prepare(fleet).await?;
        let rule = FaultRule::new(Payee::Ghostcut, Operation::Submit, Fault::LoseRequest).times(1);
        fleet.sandbox.faults().add(rule)?;
        let lost = fleet.submit_kind(Kind::Inpaint, 0).await?;
        let stage = eventually(DEADLINE, async || {
            let stage = fleet.db.job_stage(lost.job).await?;
            stage
                .filter(|stage| stage.state == "parked")
                .ok_or_else(|| anyhow::anyhow!("not parked"))
        })
        .await?;
        assert_eq!(stage.reason.as_deref(), Some("outcome_undecided"));
        assert_eq!(
            fleet
                .sandbox
                .truth()
                .request_count(Payee::Ghostcut, Operation::Submit),
            before + 1
        );
        for service in services.into_iter().flatten() {
            service.stop().await?;
        }
        Ok(())
    })
    .await
}

/// 3006 and both kinds of 429 are waits, 2003 and 402 pause the vendor; none of them fails a job or pays twice.
#[tokio::test(flavor = "multi_thread")]
async fn refusals_for_now_make_jobs_wait() -> anyhow::Result<()> {
    let before = |status, code: &str| Fault::Status {
        status,
        error_code: Some(code.to_owned()),
        body: None,
        when: When::Before,
    };
    let cases = [
        (
            Payee::Ghostcut,
            Fault::Code {
                code: 3006,
                when: When::Before,
            },
        ),
        (
            Payee::Ghostcut,
            Fault::Code {
                code: 2003,
                when: When::Before,
            },
        ),
        (Payee::Sync, before(429, "rate_limit_exceeded")),
        (Payee::Sync, before(429, "concurrency_limit_reached")),
        (Payee::Sync, before(402, "payment_required")),
        (Payee::Sync, before(401, "unauthorized")),
    ];
    fleet::run(SandboxConfig::default(), async |fleet| {
        let mut jobs = Vec::new();
        for (number, (vendor, fault)) in cases.into_iter().enumerate() {
            let kind = if vendor == Payee::Sync {
                Kind::Lipsync
            } else {
                Kind::Inpaint
            };
            let job = fleet.submit_kind(kind, number).await?;
            strike(fleet, vendor, Operation::Submit, job.job, fault)?;
            jobs.push(job);
        }
        let services = [fleet.workers(1)?, vec![fleet.producer()?]];
        settle_the_books(fleet, &jobs).await?;
        assert_eq!(fleet.sandbox.faults().fired().len(), jobs.len());
        let paused = value(
            &fleet.database.url,
            "SELECT count(paused_at)::text AS value FROM vendors",
        )
        .await?;
        assert_eq!(
            paused.as_deref(),
            Some("2"),
            "both vendors were paused on the way"
        );
        for service in services.into_iter().flatten() {
            service.stop().await?;
        }
        Ok(())
    })
    .await
}

/// Paid for by somebody else, for instance the replaced application: polled, stored, not paid again, not overwritten.
#[tokio::test(flavor = "multi_thread")]
async fn an_id_in_the_row_is_followed_and_not_overwritten() -> anyhow::Result<()> {
    fleet::run(SandboxConfig::default(), async |fleet| {
        let services = [fleet.workers(1)?, vec![fleet.producer()?]];
        let first = fleet.submit_kind(Kind::Inpaint, 0).await?;
        fleet.wait_for(std::slice::from_ref(&first)).await?;
        let url = &fleet.database.url;
        // Hand its work over to another job, and forget that the ledger knows it.
        let work = fleet.sandbox.truth().works(Payee::Ghostcut).remove(0);
        execute(
            url,
            "ALTER TABLE submissions DISABLE TRIGGER ALL; DELETE FROM submissions; \
             ALTER TABLE submissions ENABLE TRIGGER ALL; INSERT INTO settings VALUES ('stop_paid', '{}', now(), 'test')",
        )
        .await?;
        let second = fleet.submit_kind(Kind::Inpaint, 1).await?;
        // As the replaced application stored it: the project's id.
        let id = work.batch_id.unwrap_or_default();
        execute(
            url,
            &format!(
                "UPDATE video_jobs SET job_metadata = job_metadata || '{{\"ghostcut_task_id\":\"{id}\"}}' WHERE id = '{}'; \
                 DELETE FROM settings",
                second.job
            ),
        )
        .await?;
        fleet.wait_for(std::slice::from_ref(&second)).await?;
        assert_eq!(fleet.sandbox.truth().paid(Payee::Ghostcut), 1);
        let query = format!("SELECT job_metadata ->> 'ghostcut_task_id' AS value FROM video_jobs WHERE id = '{}'", second.job);
        assert_eq!(value(url, &query).await?, Some(id.to_string()));
        for service in services.into_iter().flatten() {
            service.stop().await?;
        }
        Ok(())
    })
    .await
}

/// What a failed work means, by its code.
#[tokio::test(flavor = "multi_thread")]
async fn a_failed_work_ends_as_its_code_says() -> anyhow::Result<()> {
    let statuses = |codes: &[i32]| Fault::Statuses {
        codes: codes.to_vec(),
        step_ms: None,
        progress: Some(100.0),
    };
    fleet::run(SandboxConfig::default(), async |fleet| {
        let url = fleet.database.url.clone();
        let struck = async |kind, number, vendor, fault| -> anyhow::Result<Expectation> {
            let job = fleet.submit_kind(kind, number).await?;
            strike(fleet, vendor, Operation::Process, job.job, fault)?;
            Ok(job)
        };
        let redone = struck(Kind::Inpaint, 0, Payee::Ghostcut, statuses(&[-1, 0, 43])).await?;
        let topped_up = struck(Kind::Inpaint, 1, Payee::Ghostcut, statuses(&[0, 83])).await?;
        let too_long = Expectation {
            status: "failed",
            ..struck(Kind::Inpaint, 2, Payee::Ghostcut, statuses(&[5])).await?
        };
        let support = struck(Kind::Inpaint, 3, Payee::Ghostcut, statuses(&[20])).await?;
        let services = [fleet.workers(1)?, vec![fleet.producer()?]];
        fleet
            .wait_for(&[redone.clone(), topped_up.clone(), too_long])
            .await?;
        eventually(DEADLINE, async || {
            let stage = fleet.db.job_stage(support.job).await?;
            anyhow::ensure!(
                stage.is_some_and(|stage| stage.state == "parked"),
                "not parked"
            );
            Ok(())
        })
        .await?;
        assert_eq!(
            fleet.sandbox.truth().paid(Payee::Ghostcut),
            4,
            "nothing was paid for again"
        );
        let redos = format!(
            "SELECT redos::text AS value FROM submissions WHERE job_id = '{}'",
            redone.job
        );
        assert_eq!(value(&url, &redos).await?.as_deref(), Some("1"));
        for service in services.into_iter().flatten() {
            service.stop().await?;
        }
        Ok(())
    })
    .await
}

/// A failed generation is not charged and gets a new submission under a new key, within the bound on attempts.
#[tokio::test(flavor = "multi_thread")]
async fn a_retryable_generation_is_submitted_anew_within_its_bound() -> anyhow::Result<()> {
    fleet::run(SandboxConfig::default(), async |fleet| {
        let failed = Fault::Outcome { status: "FAILED".to_owned(), error_code: Some("generation_timeout".to_owned()) };
        let once = fleet.submit_kind(Kind::Lipsync, 0).await?;
        strike(fleet, Payee::Sync, Operation::Process, once.job, failed.clone())?;
        let services = [fleet.workers(1)?, vec![fleet.producer()?]];
        fleet.wait_for(std::slice::from_ref(&once)).await?;
        // Alone, so that the message that gives it up is its own and goes to the dead-letter queue.
        fleet.sandbox.faults().add(FaultRule::new(Payee::Sync, Operation::Process, failed))?;
        let always = fleet.submit_kind(Kind::Lipsync, 1).await?;
        let jobs = [
            once.paying(Vendor::Sync, 2),
            Expectation { status: "failed", stage_state: Some("dead"), ..always.clone() }.paying(Vendor::Sync, 2),
        ];
        settle_the_books(fleet, &jobs).await?;
        // The dead letter has the headers of the message that gave the job up.
        let headers = format!(
            "SELECT headers ->> 'x-death' AS value FROM dead_letters WHERE job_id = '{}' AND reason = 'attempts_exhausted'",
            always.job
        );
        eventually(DEADLINE, async || {
            anyhow::ensure!(value(&fleet.database.url, &headers).await?.is_some(), "no headers yet");
            Ok(())
        })
        .await?;
        for service in services.into_iter().flatten() {
            service.stop().await?;
        }
        Ok(())
    })
    .await
}

/// Told to stop, a worker finishes what it has in hand and exits with 0; another one takes over the rest.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_is_told_to_stop_loses_nothing() -> anyhow::Result<()> {
    fleet::run(SandboxConfig::default(), async |fleet| {
        let mut jobs = Vec::new();
        for number in 0..6 {
            jobs.push(fleet.submit_kind(Kind::Both, number).await?);
        }
        let _producer = fleet.producer()?;
        let mut first: Process = fleet.worker_process("first").await?;
        let some = fleet
            .sandbox
            .truth()
            .wait_until(DEADLINE, |truth| truth.paid(Payee::Sync) >= 3)
            .await;
        assert!(some, "nothing was submitted");
        assert!(first.terminate(DEADLINE).await?.success());
        let _second = fleet.workers(1)?;
        settle_the_books(fleet, &jobs).await
    })
    .await
}
