//! Vendors call back: jobs end without waiting for a poll, lost answers heal without a search, and nothing that is not signed or
//! does not show the token changes anything. Polls are put off for longer than a test takes wherever a callback has to do it.

use std::net::TcpListener;

use anyhow::Context as _;
use diesel_async::{AsyncConnection as _, AsyncPgConnection, SimpleAsyncConnection as _};
use fleet::{DEADLINE, Environment, Expectation, Fleet, Kind, Process, Service, eventually};
use producer::config::ServeConfig;
use sandbox::{Fault, FaultRule, Operation, SandboxConfig, Vendor as Payee, When};
use tokio::net::TcpStream;

use crate::sql::values;

/// An address that stays free until the producer takes it: below the ports that the system gives to others.
fn free_address() -> anyhow::Result<String> {
    let mut ports = std::iter::repeat_with(|| rand::random_range(10_000..20_000));
    let listener = ports.find_map(|port: u16| TcpListener::bind(("127.0.0.1", port)).ok());
    Ok(listener.context("no free port")?.local_addr()?.to_string())
}

/// A fleet that vendors can call, at an address that is known before its producer listens.
pub(crate) fn called(fleet: &Fleet) -> anyhow::Result<Environment> {
    let address = free_address()?;
    Ok(fleet
        .environment
        .clone()
        .with("PUBLIC_URL", format!("http://{address}"))
        .with("HTTP_ADDR", address))
}

/// The same, and nothing but a callback ends a poll or clears up a lost answer in time.
pub(crate) fn called_only(fleet: &Fleet) -> anyhow::Result<Environment> {
    let mut environment = called(fleet)?;
    for schedule in [
        "SYNC_POLL_SCHEDULE",
        "GHOSTCUT_POLL_SCHEDULE",
        "SYNC_REPLAY_SCHEDULE",
        "GHOSTCUT_SEARCH_SCHEDULE",
    ] {
        environment.set(schedule, "10m");
    }
    Ok(environment)
}

/// A producer and a worker. Sync.so calls once: who is to be called listens before anything is paid.
pub(crate) async fn services(environment: &Environment) -> anyhow::Result<Vec<Service>> {
    let producer = Service::producer(environment)?;
    if environment.get("PUBLIC_URL").is_ok() {
        let address = environment.get("HTTP_ADDR")?;
        eventually(DEADLINE, async || Ok(TcpStream::connect(address).await?)).await?;
    }
    Ok(vec![producer, Service::worker(environment, "worker-1")?])
}

pub(crate) async fn stop(services: Vec<Service>) -> anyhow::Result<()> {
    for service in services.into_iter().rev() {
        service.stop().await?;
    }
    Ok(())
}

/// Vendor and outcome of every callback stored, in order.
pub(crate) async fn outcomes(fleet: &Fleet) -> anyhow::Result<Vec<String>> {
    let query =
        "SELECT vendor || ' ' || coalesce(outcome, 'waits') AS value FROM callbacks ORDER BY id";
    let rows = values(&fleet.database.url, query).await?;
    Ok(rows.into_iter().flatten().collect())
}

/// Waits until the callbacks stored have come to these.
pub(crate) async fn came_to(fleet: &Fleet, expected: &[&str]) -> anyhow::Result<()> {
    eventually(DEADLINE, async || {
        let mut seen = outcomes(fleet).await?;
        seen.sort();
        anyhow::ensure!(seen == expected, "{seen:?}");
        Ok(())
    })
    .await
}

fn strike(fleet: &Fleet, vendor: Payee, operation: Operation, fault: Fault) -> anyhow::Result<()> {
    let rule = FaultRule::new(vendor, operation, fault).times(1);
    fleet.sandbox.faults().add(rule)?;
    Ok(())
}

/// Statuses that the vendor's callbacks were answered with, per work.
fn answers(fleet: &Fleet, vendor: Payee) -> Vec<Vec<Option<u16>>> {
    let works = fleet.sandbox.truth().works(vendor);
    let answers = works.iter().map(|work| {
        work.callbacks
            .iter()
            .map(|attempt| attempt.answer)
            .collect()
    });
    answers.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn callbacks_alone_finish_jobs() -> anyhow::Result<()> {
    fleet::run(SandboxConfig::default(), async |fleet| {
        let running = services(&called_only(fleet)?).await?;
        let mut jobs = Vec::new();
        for (number, kind) in Kind::ALL.into_iter().enumerate() {
            jobs.push(fleet.submit_kind(kind, number).await?);
        }
        fleet.books(&jobs).await?.assert_balanced();
        let hinted = [
            "ghostcut hinted",
            "ghostcut hinted",
            "sync hinted",
            "sync hinted",
        ];
        came_to(fleet, &hinted).await?;
        stop(running).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn repeated_callbacks_are_stored_once_and_late_ones_change_nothing() -> anyhow::Result<()> {
    fleet::run(SandboxConfig::default(), async |fleet| {
        let late = Fault::Delay {
            ms: 4000,
            when: When::Before,
        };
        strike(fleet, Payee::Sync, Operation::Callback, late)?;
        let repeat = Fault::Repeat { times: 3 };
        strike(fleet, Payee::Ghostcut, Operation::Callback, repeat)?;
        let mut environment = called(fleet)?;
        environment.set("GHOSTCUT_POLL_SCHEDULE", "10m");
        let running = services(&environment).await?;
        let jobs = [
            fleet.submit_kind(Kind::Lipsync, 0).await?,
            fleet.submit_kind(Kind::Inpaint, 1).await?,
        ];
        fleet.books(&jobs).await?.assert_balanced();
        came_to(fleet, &["ghostcut hinted", "sync late"]).await?;
        eventually(DEADLINE, async || {
            let (ghostcut, sync) = (answers(fleet, Payee::Ghostcut), answers(fleet, Payee::Sync));
            anyhow::ensure!(
                ghostcut == [[Some(200); 4]] && sync == [[Some(200)]],
                "{ghostcut:?} {sync:?}"
            );
            Ok(())
        })
        .await?;
        assert_eq!(
            outcomes(fleet).await?.len(),
            2,
            "four times the same is once"
        );
        fleet.books(&jobs).await?.assert_balanced();
        stop(running).await
    })
    .await
}

/// The vendor has the work and the worker never saw the answer: no search, no replay, no second payment.
#[tokio::test(flavor = "multi_thread")]
async fn a_lost_answer_is_healed_by_the_callback() -> anyhow::Result<()> {
    fleet::run(SandboxConfig::default(), async |fleet| {
        for vendor in [Payee::Sync, Payee::Ghostcut] {
            strike(fleet, vendor, Operation::Submit, Fault::LoseAnswer)?;
        }
        let running = services(&called_only(fleet)?).await?;
        let job = fleet.submit_kind(Kind::Both, 0).await?;
        let books = fleet.books(std::slice::from_ref(&job)).await?;
        books.assert_balanced();
        assert_eq!(books.unknowns_resolved, 2);
        came_to(fleet, &["ghostcut adopted", "sync adopted"]).await?;
        let asked = |vendor, operation| fleet.sandbox.truth().request_count(vendor, operation);
        for vendor in [Payee::Sync, Payee::Ghostcut] {
            assert_eq!(
                asked(vendor, Operation::Submit),
                1,
                "sent once to {vendor:?}"
            );
            assert_eq!(
                asked(vendor, Operation::List),
                0,
                "{vendor:?} was not searched"
            );
        }
        stop(running).await
    })
    .await
}

/// The vendor calls back before it answers the submit: the submission is still `claimed`.
#[tokio::test(flavor = "multi_thread")]
async fn a_callback_may_come_before_the_answer() -> anyhow::Result<()> {
    fleet::run(SandboxConfig::default(), async |fleet| {
        fleet.sandbox.change_settings(|settings| {
            settings.sync.process_ms = (100, 100);
            settings.ghostcut.process_ms = (100, 100);
        });
        for vendor in [Payee::Sync, Payee::Ghostcut] {
            let first = Fault::CallbackFirst { timeout_ms: 20_000 };
            strike(fleet, vendor, Operation::Submit, first)?;
        }
        // Polls too: the vendor may call its work pending until it has answered, and the callback comes once.
        let running = services(&called(fleet)?).await?;
        let job = fleet.submit_kind(Kind::Both, 0).await?;
        fleet
            .books(std::slice::from_ref(&job))
            .await?
            .assert_balanced();
        // On a slow machine the answer, or a poll, may overtake the processing.
        let ends = ["adopted", "hinted", "late"];
        let fine = |outcome: &String| ends.iter().any(|end| outcome.ends_with(end));
        eventually(DEADLINE, async || {
            let seen = outcomes(fleet).await?;
            anyhow::ensure!(
                seen.len() == 2 && seen.iter().all(fine),
                "{seen:?}, answered {:?}",
                [Payee::Sync, Payee::Ghostcut].map(|vendor| answers(fleet, vendor))
            );
            Ok(())
        })
        .await?;
        stop(running).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_signature_is_refused_and_the_vendor_comes_again() -> anyhow::Result<()> {
    fleet::run(SandboxConfig::default(), async |fleet| {
        fleet
            .sandbox
            .change_settings(|settings| settings.ghostcut.callback_retry_ms = 200);
        strike(
            fleet,
            Payee::Ghostcut,
            Operation::Callback,
            Fault::BadSignature,
        )?;
        let running = services(&called_only(fleet)?).await?;
        let job = fleet.submit_kind(Kind::Inpaint, 0).await?;
        fleet
            .books(std::slice::from_ref(&job))
            .await?
            .assert_balanced();
        came_to(fleet, &["ghostcut hinted"]).await?;
        assert_eq!(answers(fleet, Payee::Ghostcut), [[Some(401), Some(200)]]);
        stop(running).await
    })
    .await
}

/// Answered, stored, not yet processed when the producer is killed: the next one goes on with it.
#[tokio::test(flavor = "multi_thread")]
async fn a_stored_callback_outlives_its_producer() -> anyhow::Result<()> {
    fleet::run(SandboxConfig::default(), async |fleet| {
        let environment = called_only(fleet)?;
        let late = Fault::Delay {
            ms: 1500,
            when: When::Before,
        };
        strike(fleet, Payee::Sync, Operation::Callback, late)?;
        let start = async |name: &str| -> anyhow::Result<Process> {
            let variables = environment.variables();
            let mut process =
                Process::start(name, "producer", ["serve"], variables, fleet.folder())?;
            process.started().await?;
            Ok(process)
        };
        let mut victim = start("victim").await?;
        let worker = Service::worker(&environment, "worker-1")?;
        let job = fleet.submit_kind(Kind::Lipsync, 0).await?;
        eventually(DEADLINE, async || {
            let stage = fleet.db.job_stage(job.job).await?.context("over")?;
            anyhow::ensure!(stage.stage == "lipsync.poll", "{stage:?}");
            Ok(())
        })
        .await?;
        // Processing has to write this table; storing has not.
        let mut lock = AsyncPgConnection::establish(&fleet.database.url).await?;
        lock.batch_execute("BEGIN; LOCK TABLE job_stages IN EXCLUSIVE MODE")
            .await?;
        eventually(DEADLINE, async || {
            let answered = answers(fleet, Payee::Sync);
            anyhow::ensure!(answered == [[Some(200)]], "{answered:?}");
            Ok(())
        })
        .await?;
        assert_eq!(outcomes(fleet).await?, ["sync waits"]);
        victim.kill().await?;
        lock.batch_execute("ROLLBACK").await?;

        let mut heir = start("heir").await?;
        fleet
            .books(std::slice::from_ref(&job))
            .await?
            .assert_balanced();
        came_to(fleet, &["sync hinted"]).await?;
        worker.stop().await?;
        assert!(heir.terminate(DEADLINE).await?.success());
        Ok(())
    })
    .await
}

/// Callbacks are asked for only where they can be received and checked.
#[tokio::test(flavor = "multi_thread")]
async fn without_a_public_url_none_is_asked_for() -> anyhow::Result<()> {
    fleet::run(SandboxConfig::default(), async |fleet| {
        let mut config: ServeConfig = called(fleet)?.parse()?;
        assert_eq!(config.check(), Vec::<String>::new());
        config.sync.webhook_secret = None;
        assert!(config.check().concat().contains("SYNC_WEBHOOK_SECRET"));

        let running = services(&fleet.environment).await?;
        let job: Expectation = fleet.submit_kind(Kind::Both, 0).await?;
        fleet
            .books(std::slice::from_ref(&job))
            .await?
            .assert_balanced();
        for vendor in [Payee::Sync, Payee::Ghostcut] {
            let works = fleet.sandbox.truth().works(vendor);
            assert!(
                works.len() == 1 && works[0].callback_url.is_none(),
                "{works:?}"
            );
        }
        stop(running).await
    })
    .await
}
