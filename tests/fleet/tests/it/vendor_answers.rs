//! The answer of every call to a vendor is lost, comes too late, or comes twice: each job is completed, and paid once.

use std::collections::BTreeSet;

use fleet::{DEADLINE, Expectation, Fleet, Kind, eventually};
use futures::StreamExt as _;
use sandbox::{Fault, FaultRule, Operation, SandboxConfig, Vendor as Payee, When};
use shared::broker::{BrokerMetrics, Connection, Outgoing, Publisher};
use shared::config::BrokerConfig;
use shared::domain::Stage;
use shared::domain::message::{JobRef, Message};
use uuid::Uuid;

use crate::sql::values;

/// Cases at a time: they wait more than they work.
const AT_A_TIME: usize = 6;
/// Longer than a fast fleet waits for an answer.
const TOO_LATE_MS: u64 = 2_500;
/// Every call takes so long while messages are doubled, that a double finds the first one at work.
const LONG_ENOUGH_TO_DOUBLE_MS: u64 = 200;

/// A call, and what has to go wrong before that it is made at all.
#[derive(Clone, Copy, Debug)]
struct Call(Payee, Operation, Before);

#[derive(Clone, Copy, Debug, PartialEq)]
enum Before {
    Nothing,
    /// The answer to the paid request is lost.
    Lost,
    /// The same, and Sync.so is not asked under the key any more.
    LostLongAgo,
    /// The work ends in this GhostCut status.
    Failed(i32),
}

const CALLS: [Call; 10] = [
    Call(Payee::Sync, Operation::Submit, Before::Nothing),
    Call(Payee::Sync, Operation::Status, Before::Nothing),
    Call(Payee::Sync, Operation::List, Before::LostLongAgo),
    Call(Payee::Sync, Operation::Result, Before::Nothing),
    Call(Payee::Ghostcut, Operation::Submit, Before::Nothing),
    Call(Payee::Ghostcut, Operation::Status, Before::Nothing),
    Call(Payee::Ghostcut, Operation::List, Before::Lost),
    Call(Payee::Ghostcut, Operation::Redo, Before::Failed(43)),
    Call(Payee::Ghostcut, Operation::Balance, Before::Failed(73)),
    Call(Payee::Ghostcut, Operation::Result, Before::Nothing),
];

impl Call {
    const fn kind(self) -> Kind {
        match self.0 {
            Payee::Sync => Kind::Lipsync,
            Payee::Ghostcut => Kind::Inpaint,
        }
    }

    fn cause(self) -> Option<FaultRule> {
        let (operation, fault) = match self.2 {
            Before::Nothing => return None,
            Before::Lost | Before::LostLongAgo => (Operation::Submit, Fault::LoseAnswer),
            Before::Failed(code) => {
                let (codes, step_ms, progress) = (vec![0, code], None, Some(100.0));
                let fault = Fault::Statuses {
                    codes,
                    step_ms,
                    progress,
                };
                (Operation::Process, fault)
            }
        };
        Some(FaultRule::new(self.0, operation, fault).times(1))
    }

    fn lost(self) -> Fault {
        match self.1 {
            // There is no answer but the file.
            Operation::Result => Fault::Truncate { bytes: 1000 },
            _ => Fault::LoseAnswer,
        }
    }

    fn late(self) -> Fault {
        let when = match self.1 {
            Operation::Result => When::Before,
            _ => When::After,
        };
        Fault::Delay {
            ms: TOO_LATE_MS,
            when,
        }
    }
}

async fn survives(call: Call, fault: Fault) -> anyhow::Result<()> {
    fleet::run(SandboxConfig::default(), async |fleet| {
        let mut environment = fleet.environment.clone();
        if call.2 == Before::LostLongAgo {
            environment.set("SYNC_REPLAY_WINDOW", "0s");
        }
        let faults = fleet.sandbox.faults();
        if let Some(rule) = call.cause() {
            faults.add(rule)?;
        }
        let mut rule = FaultRule::new(call.0, call.1, fault).times(1);
        if call.1 == Operation::Balance {
            // The producer reads it once, when it starts; the worker's own question comes later.
            environment.set("BALANCE_INTERVAL", "1h");
            rule.skip = 1;
        }
        let struck = faults.add(rule)?;
        let job = fleet.submit_kind(call.kind(), 0).await?;
        let producer = fleet::Service::producer(&environment)?;
        let worker = fleet::Service::worker(&environment, "worker")?;
        let books = fleet.books(std::slice::from_ref(&job)).await?;
        anyhow::ensure!(books.balanced(), "{:#?}", books.differences);
        let fired: Vec<_> = faults.fired().into_iter().map(|fired| fired.rule).collect();
        anyhow::ensure!(fired.contains(&struck), "the call was not made");
        worker.stop().await?;
        producer.stop().await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn no_answer_that_is_lost_or_late_is_paid_for_twice() -> anyhow::Result<()> {
    let cases = CALLS
        .into_iter()
        .flat_map(|call| [(call, call.lost()), (call, call.late())]);
    let ends = futures::stream::iter(cases).map(|(call, fault)| async move {
        let text = format!("{call:?}, {fault:?}");
        Some(format!("{text}: {:#}", survives(call, fault).await.err()?))
    });
    let failed: Vec<_> = ends.buffer_unordered(AT_A_TIME).collect().await;
    let failed: Vec<_> = failed.into_iter().flatten().collect();
    anyhow::ensure!(failed.is_empty(), "{}", failed.join("\n"));
    Ok(())
}

/// Every stage gets every message twice, while the first one is at work, so that two workers ask the vendor and two bring its
/// answer.
#[tokio::test(flavor = "multi_thread")]
async fn every_answer_twice_changes_nothing() -> anyhow::Result<()> {
    fleet::run(SandboxConfig::default(), async |fleet| {
        let mut jobs: Vec<Expectation> = Vec::new();
        for call in CALLS {
            let job = fleet.submit_kind(call.kind(), jobs.len()).await?;
            if let Some(rule) = call.cause() {
                fleet
                    .sandbox
                    .faults()
                    .add(rule.containing(job.job.to_string()))?;
            }
            jobs.push(job);
            let (ms, when) = (LONG_ENOUGH_TO_DOUBLE_MS, When::Before);
            let slow = FaultRule::new(call.0, call.1, Fault::Delay { ms, when });
            fleet.sandbox.faults().add(slow)?;
        }
        let producer = fleet.producer()?;
        let workers = fleet.workers(2)?;
        let doubled = double_until_completed(fleet, &jobs).await?;
        fleet.books(&jobs).await?.assert_balanced();
        for stage in Stage::ALL.iter().filter(|stage| stage.vendor().is_some()) {
            assert!(
                doubled.contains(stage.as_str()),
                "{stage} was not doubled: {doubled:?}"
            );
        }
        for service in workers.into_iter().chain([producer]) {
            service.stop().await?;
        }
        Ok(())
    })
    .await
}

/// Publishes once more what is out, again and again; says in which stages.
async fn double_until_completed(
    fleet: &Fleet,
    jobs: &[Expectation],
) -> anyhow::Result<BTreeSet<String>> {
    let config: BrokerConfig = fleet.environment.parse()?;
    let metrics = BrokerMetrics::register(&shared::telemetry::Registry::default())?;
    let connection = Connection::connect(&config, "test", &metrics).await?;
    let publisher = Publisher::new(connection.clone(), &config);
    let out = "SELECT stage || ' ' || job_id || ' ' || epoch AS value FROM job_stages WHERE state = 'dispatched'";
    let mut seen = BTreeSet::new();
    let mut stages = BTreeSet::new();
    eventually(DEADLINE, async || {
        for row in values(&fleet.database.url, out)
            .await?
            .into_iter()
            .flatten()
        {
            if seen.insert(row.clone()) {
                let [stage, id, epoch] = row.split(' ').collect::<Vec<_>>()[..] else {
                    anyhow::bail!("odd row {row}");
                };
                let (stage, id, epoch): (Stage, Uuid, i64) =
                    (stage.parse()?, id.parse()?, epoch.parse()?);
                let jobs = vec![JobRef { id, epoch }];
                let double = Outgoing {
                    message_id: Uuid::new_v4(),
                    body: Message { stage, jobs }.encode().into(),
                    traceparent: None,
                };
                publisher.publish(stage, &[double]).await;
                stages.insert(stage.to_string());
            }
        }
        for Expectation { job, status, .. } in jobs {
            let row = fleet.db.job(*job).await?;
            anyhow::ensure!(
                row.is_some_and(|row| row.status == *status),
                "job {job} goes on"
            );
        }
        Ok(())
    })
    .await?;
    connection.close().await;
    Ok(stages)
}
