//! The list of workers: they appear, drain and leave, and one that is killed is lost.

use anyhow::Context as _;
use fleet::{DEADLINE, Kind, eventually};
use rustix::process::Signal;
use sandbox::{Fault, FaultRule, Operation, SandboxConfig, Vendor, When};
use serde_json::{Value, json};
use shared::db::Db;
use shared::domain::Stage;

use crate::api::Producer;
use crate::command::producer;
use crate::sql::{config, execute, value, with_database};

/// Whether a worker has ended as it should.
pub(crate) fn has_stopped(worker: &Value) -> bool {
    worker["state"] == "stopped" && worker["stopped_at"].is_string()
}

/// A worker that takes every stage, by its row alone.
pub(crate) async fn present(url: &str) -> anyhow::Result<()> {
    let stages: Vec<_> = Stage::ALL.iter().map(|stage| stage.as_str()).collect();
    let row = format!(
        "INSERT INTO workers (id, name, version, beat_ms, draining, stages, concurrency, transfers, in_hand) \
         VALUES (gen_random_uuid(), 'present', '1', 3600000, false, '{{{}}}', 1, 1, '[]')",
        stages.join(",")
    );
    execute(url, &row).await?;
    Ok(())
}

/// The worker of this name, once it is as wanted; null: it is not in the list.
pub(crate) async fn seen(
    api: &Producer,
    name: &str,
    wanted: impl Fn(&Value) -> bool,
) -> anyhow::Result<Value> {
    eventually(DEADLINE, async || {
        let list = api.get("/v1/workers").await?.json;
        let workers = list["workers"].as_array().context("no list")?;
        let found = workers.iter().find(|worker| worker["name"] == name);
        let found = found.cloned().unwrap_or_default();
        anyhow::ensure!(wanted(&found), "{list}");
        Ok(found)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_appear_drain_and_are_lost() -> anyhow::Result<()> {
    fleet::run(SandboxConfig::default(), async |fleet| {
        let api = Producer::start(fleet, &fleet.environment).await?;
        let mut one = fleet.worker_process("one").await?;
        let mut two = fleet.worker_process("two").await?;
        let found = seen(&api, "one", |worker| worker["state"] == "running").await?;
        assert_eq!(
            (&found["ready"], &found["why_not_ready"]),
            (&json!(true), &Value::Null)
        );
        assert_eq!(
            (&found["in_hand"], &found["last_delivery_at"]),
            (&json!([]), &Value::Null)
        );
        assert_eq!(
            (&found["concurrency"], &found["transfers"]),
            (&json!(8), &json!(4))
        );
        assert_eq!(found["stages"].as_array().map(Vec::len), Some(8));

        // Killed: what it had in hand is the other's, and it stays in the list as lost.
        seen(&api, "two", |worker| worker["state"] == "running").await?;
        two.kill().await?;
        seen(&api, "two", |worker| worker["state"] == "lost").await?;
        let slow = Fault::Delay {
            ms: 1500,
            when: When::After,
        };
        fleet
            .sandbox
            .faults()
            .add(FaultRule::new(Vendor::Sync, Operation::Submit, slow).times(1))?;
        let job = fleet.submit_kind(Kind::Lipsync, 0).await?;
        let has = |worker: &Value| {
            worker["in_hand"] == json!([{ "stage": "lipsync.submit", "count": 1 }])
        };
        let found = seen(&api, "one", has).await?;
        assert!(found["last_delivery_at"].is_string(), "{found}");

        // Told to stop: it says so while it finishes what is in hand, and then that it has stopped.
        one.signal(Signal::TERM)?;
        seen(&api, "one", |worker| {
            worker["state"] == "draining" || has_stopped(worker)
        })
        .await?;
        assert!(one.end(DEADLINE).await?.success());
        let found = seen(&api, "one", has_stopped).await?;
        assert_eq!(found["in_hand"], json!([]));
        let overview = nobody_takes(&api, job.job).await?;
        assert_eq!(
            overview["workers"],
            json!({ "running": 0, "quiet": 0, "draining": 0, "lost": 1 })
        );

        let mut three = fleet.worker_process("three").await?;
        fleet.wait_for(std::slice::from_ref(&job)).await?;
        let shown = api.get(&format!("/v1/jobs/{}", job.job)).await?.json;
        assert_eq!(shown["held"], Value::Null);
        let listed = producer(&fleet.environment, &["workers", "--json"])
            .await?
            .json(0);
        assert_eq!(
            listed["workers"].as_array().map(Vec::len),
            Some(3),
            "{listed}"
        );
        let listed = producer(&fleet.environment, &["workers"]).await?;
        for state in ["lost", "stopped"] {
            listed.said(0, state);
        }
        // After a day, or an hour, nobody needs to be told any more.
        for earlier in [
            "UPDATE workers SET seen_at = seen_at - interval '25 hours' WHERE name = 'two'",
            "UPDATE workers SET left_at = left_at - interval '61 minutes' WHERE name = 'one'",
        ] {
            execute(&fleet.database.url, earlier).await?;
        }
        seen(&api, "two", Value::is_null).await?;
        seen(&api, "one", Value::is_null).await?;
        assert!(three.terminate(DEADLINE).await?.success());
        fleet.books(&[job]).await?.assert_balanced();
        api.stop().await
    })
    .await
}

/// Waits until it is said that no worker takes the stage of this job, of the job and in the overview, which is returned.
async fn nobody_takes(api: &Producer, job: uuid::Uuid) -> anyhow::Result<Value> {
    eventually(DEADLINE, async || {
        let shown = api.get(&format!("/v1/jobs/{job}")).await?.json;
        let stage = shown["stage"]["stage"].as_str().context("it is over")?;
        let held = json!({ "by": "no_worker", "account": null, "until": null, "sentence": format!("no worker takes {stage}") });
        anyhow::ensure!(shown["held"] == held, "{shown}");
        let overview = api.get("/v1/overview").await?.json;
        let rows = overview["stages"].as_array().context("no stages")?;
        let row = rows.iter().find(|row| row["stage"] == stage).context("no stage")?;
        anyhow::ensure!(
            (&row["workers"], &row["unserved"], &row["held"]) == (&json!(0), &json!(1), &held),
            "{row}"
        );
        Ok(overview)
    })
    .await
}

/// A worker whose row cannot be written works on.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_works_without_its_row() -> anyhow::Result<()> {
    fleet::run(SandboxConfig::default(), async |fleet| {
        let url = &fleet.database.url;
        execute(url, "ALTER TABLE workers RENAME TO workers_away").await?;
        let services = [fleet.workers(1)?, vec![fleet.producer()?]];
        let job = fleet.submit_kind(Kind::Lipsync, 0).await?;
        fleet.wait_for(std::slice::from_ref(&job)).await?;
        execute(url, "ALTER TABLE workers_away RENAME TO workers").await?;
        eventually(DEADLINE, async || {
            let found = value(url, "SELECT name AS value FROM workers").await?;
            anyhow::ensure!(found.as_deref() == Some("worker-1"), "{found:?}");
            Ok(())
        })
        .await?;
        for service in services.into_iter().flatten() {
            service.stop().await?;
        }
        let here = "SELECT count(*)::text AS value FROM workers WHERE left_at IS NULL";
        assert_eq!(value(url, here).await?.as_deref(), Some("0"));
        Ok(())
    })
    .await
}

/// Workers that are killed every minute leave rows for a day; the one at work is still seen, and found by its name.
#[tokio::test(flavor = "multi_thread")]
async fn however_many_were_lost_those_that_are_there_are_listed() -> anyhow::Result<()> {
    with_database(true, async |url, _| {
        let rows = "INSERT INTO workers (id, name, version, seen_at, beat_ms, draining, stages, concurrency, transfers, in_hand) \
                    SELECT gen_random_uuid(), CASE n WHEN 0 THEN 'z' ELSE 'a' || n END, '1', \
                        now() - CASE n WHEN 0 THEN interval '0' ELSE interval '1 hour' END, 600000, false, '{}', 1, 1, '[]' \
                    FROM generate_series(0, 1000) n";
        execute(url, rows).await?;
        let workers = Db::new(&config(url))?.workers().await?;
        assert_eq!((workers.len(), workers[0].name.as_str()), (1000, "z"));
        Ok(())
    })
    .await
}
