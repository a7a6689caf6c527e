//! What clients, operators and broken databases do in the stories, and what is waited for.

use anyhow::Context as _;
use fleet::{DEADLINE, Environment, Expectation, Fleet, eventually};
use sandbox::Vendor as Payee;
use shared::broker::{BrokerMetrics, Connection, Outgoing, PublishOutcome, Publisher};
use shared::config::BrokerConfig;
use shared::db::{NewOperation, StageRow};
use shared::domain::Stage;
use shared::domain::bulk::BulkAction;
use shared::domain::message::{JobRef, Message};
use uuid::Uuid;

use crate::command::producer;
use crate::sql::{execute, value};

/// Waits until a query has this value.
pub(super) async fn seen(url: &str, query: &str, expected: &str) -> anyhow::Result<()> {
    eventually(DEADLINE, async || {
        let found = value(url, query).await?;
        anyhow::ensure!(found.as_deref() == Some(expected), "{query}: {found:?}");
        Ok(())
    })
    .await
}

/// Waits until the job's row is as wanted.
pub(super) async fn stands(
    fleet: &Fleet,
    job: Uuid,
    wanted: impl Fn(&StageRow) -> bool,
) -> anyhow::Result<()> {
    eventually(DEADLINE, async || {
        let row = fleet.db.job_stage(job).await?;
        anyhow::ensure!(row.as_ref().is_some_and(&wanted), "{row:?}");
        Ok(())
    })
    .await
}

/// Waits until the vendor has the job's work and the job waits for its poll.
pub(super) async fn polled_later(fleet: &Fleet, job: Uuid) -> anyhow::Result<()> {
    let waits = |row: &StageRow| row.stage == "inpaint.poll" && row.state == "waiting";
    stands(fleet, job, waits).await
}

/// Waits until the job stands for a person.
pub(super) async fn parked(fleet: &Fleet, job: Uuid) -> anyhow::Result<()> {
    stands(fleet, job, |row| row.state == "parked").await
}

/// A message beside those of the producer.
pub(super) async fn publish(fleet: &Fleet, job: Uuid, epoch: i64) -> anyhow::Result<()> {
    let config: BrokerConfig = fleet.environment.parse()?;
    let metrics = BrokerMetrics::register(&shared::telemetry::Registry::default())?;
    let connection = Connection::connect(&config, "test", &metrics).await?;
    let stage = Stage::LipsyncSubmit;
    let jobs = vec![JobRef { id: job, epoch }];
    let message = Outgoing {
        message_id: Uuid::new_v4(),
        body: Message { stage, jobs }.encode().into(),
        traceparent: None,
    };
    let publisher = Publisher::new(connection.clone(), &config);
    let outcomes = publisher.publish(stage, &[message]).await;
    anyhow::ensure!(outcomes == [PublishOutcome::Confirmed], "{outcomes:?}");
    connection.close().await;
    Ok(())
}

/// The vendor calls again what is not answered, every 200 ms.
pub(super) fn call_again_soon(fleet: &Fleet) {
    fleet
        .sandbox
        .change_settings(|settings| settings.ghostcut.callback_retry_ms = 200);
}

/// Waits until GhostCut's callback is answered as taken, and the one that is stored has come to something good.
pub(super) async fn called_back(fleet: &Fleet) -> anyhow::Result<()> {
    eventually(DEADLINE, async || {
        let works = fleet.sandbox.truth().works(Payee::Ghostcut);
        let last = works.first().and_then(|work| work.callbacks.last());
        anyhow::ensure!(last.is_some_and(|call| call.delivered), "{last:?}");
        Ok(())
    })
    .await?;
    let outcomes = "SELECT string_agg(CASE WHEN outcome IN ('hinted', 'late', 'adopted') THEN 'good' \
                    ELSE coalesce(outcome, 'waits') END, ', ') AS value FROM callbacks";
    seen(&fleet.database.url, outcomes, "good").await
}

/// The ledger loses what these jobs paid for, as in a database that is restored from a backup.
pub(super) async fn forget(fleet: &Fleet, jobs: &[Expectation]) -> anyhow::Result<()> {
    for Expectation { job, .. } in jobs {
        let delete = format!(
            "ALTER TABLE submissions DISABLE TRIGGER ALL; DELETE FROM submissions WHERE job_id = '{job}'; \
             ALTER TABLE submissions ENABLE TRIGGER ALL"
        );
        execute(&fleet.database.url, &delete).await?;
    }
    Ok(())
}

/// The same, and a job that was being polled is about to be submitted, by and by.
pub(super) async fn forget_acceptance(fleet: &Fleet, job: &Expectation) -> anyhow::Result<()> {
    forget(fleet, std::slice::from_ref(job)).await?;
    let id = job.job;
    let back = format!(
        "UPDATE job_stages SET stage = 'inpaint.submit', due_at = now() + interval '10 minutes' WHERE job_id = '{id}'; \
         UPDATE video_jobs SET job_metadata = job_metadata - 'ghostcut_task_id' - 'ghostcut_project_id' \
             - 'ghostcut_video_url' WHERE id = '{id}'"
    );
    execute(&fleet.database.url, &back).await
}

/// Waits until paid sends are stopped, and does what an operator then does.
pub(super) async fn rebuild(fleet: &Fleet, environment: &Environment) -> anyhow::Result<()> {
    let url = &fleet.database.url;
    let stopped = "SELECT value ->> 'audit_first' AS value FROM settings WHERE name = 'stop_paid'";
    seen(url, stopped, "true").await?;
    // So late that nothing is on its way any more.
    let earlier = "UPDATE settings SET changed_at = changed_at - interval '1 minute' WHERE name = 'stop_paid'";
    execute(url, earlier).await?;
    let audit = ["audit", "--since", "48h", "--repair", "--reason", "a test"];
    producer(environment, &audit).await?.said(1, "booked");
    let resume = ["resume-paid", "--reason", "audited"];
    producer(environment, &resume).await?.said(0, "allowed");
    Ok(())
}

/// Deletes the object that was made for the job's submission.
pub(super) async fn delete_source(fleet: &Fleet, job: Uuid) -> anyhow::Result<()> {
    let key = format!("SELECT source_key AS value FROM submissions WHERE job_id = '{job}'");
    let key = value(&fleet.database.url, &key).await?;
    fleet.storage.delete(&key.context("no source")?).await?;
    Ok(())
}

/// Begins an operation that cancels every job that is not over.
pub(super) async fn cancel_all(fleet: &Fleet) -> anyhow::Result<()> {
    let cancel = NewOperation {
        action: BulkAction::Cancel,
        filter: serde_json::json!({ "unfinished": true }),
        by: "ann",
        reason: "a test",
        another_attempt: false,
        canary: false,
        per_minute: None,
        total: 1,
        capped: false,
    };
    fleet.db.begin_operation(&cancel).await?;
    Ok(())
}

/// Asks a worker to be quiet as soon as it is in the list.
pub(super) async fn quiet(environment: &Environment, worker: &str) -> anyhow::Result<()> {
    let args = ["workers", "quiet", worker, "--reason", "a test"];
    eventually(DEADLINE, async || {
        let ended = producer(environment, &args).await?;
        anyhow::ensure!(ended.code == Some(0), "{ended:?}");
        Ok(())
    })
    .await
}
