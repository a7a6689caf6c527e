//! What operators ask of a worker: to be quiet, to go on, to stop. Nothing is lost and nothing is done twice by it.

use anyhow::Context as _;
use fleet::{DEADLINE, Environment, Expectation, Fleet, Kind, eventually};
use reqwest::{Method, StatusCode};
use sandbox::{Fault, FaultRule, Operation, SandboxConfig, Vendor, When};
use serde_json::{Value, json};
use shared::domain::Stage;
use uuid::Uuid;

use crate::access::token;
use crate::api::Producer;
use crate::command::producer;
use crate::sql::value;
use crate::workers::{has_stopped, seen};

/// Long enough for an order to be given and read while a result is on its way.
const SLOW_RESULT_MS: u64 = 6_000;
const IN_HAND: &str = r#"[{"stage":"lipsync.store","count":1}]"#;

/// `producer workers WHAT WORKER`.
async fn order(
    environment: &Environment,
    what: &str,
    worker: &str,
) -> anyhow::Result<crate::command::Ended> {
    let args = [
        "workers",
        "--json",
        what,
        worker,
        "--reason",
        "its disk is full",
        "--by",
        "ann",
    ];
    producer(environment, &args).await
}

fn post(api: &Producer, worker: &str, what: &str) -> reqwest::RequestBuilder {
    let path = format!("/v1/workers/{worker}/{what}");
    let body = json!({ "reason": "by the API", "by": "ann" });
    api.request(Method::POST, &path).json(&body)
}

/// Waits until a query has this value.
async fn becomes(url: &str, query: &str, expected: &str) -> anyhow::Result<()> {
    eventually(DEADLINE, async || {
        let found = value(url, query).await?;
        anyhow::ensure!(found.as_deref() == Some(expected), "{query}: {found:?}");
        Ok(())
    })
    .await
}

/// The next result comes so slowly.
fn slow_result(fleet: &Fleet, ms: u64) -> anyhow::Result<()> {
    let when = When::Before;
    let slow = FaultRule::new(Vendor::Sync, Operation::Result, Fault::Delay { ms, when });
    fleet.sandbox.faults().add(slow.times(1))?;
    Ok(())
}

/// Waits until the worker has a result in hand. Its document.
async fn storing(api: &Producer, name: &str) -> anyhow::Result<Value> {
    let in_hand: Value = serde_json::from_str(IN_HAND)?;
    seen(api, name, |worker| worker["in_hand"] == in_hand).await
}

/// Which workers moved the jobs.
async fn movers(fleet: &Fleet, jobs: &[Expectation]) -> anyhow::Result<String> {
    let ids: Vec<_> = jobs.iter().map(|job| format!("'{}'", job.job)).collect();
    let query = format!(
        "SELECT string_agg(DISTINCT actor, ', ' ORDER BY actor) AS value FROM job_events \
         WHERE actor IN ('one', 'two') AND job_id IN ({})",
        ids.join(", ")
    );
    let movers = value(&fleet.database.url, &query).await?;
    movers.context("nobody moved them")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quiet_worker_takes_nothing_finishes_what_it_has_and_goes_on() -> anyhow::Result<()> {
    fleet::run(SandboxConfig::default(), async |fleet| {
        let url = &fleet.database.url;
        // A lease that ends would put a message into its queue again.
        let environment = fleet
            .environment
            .clone()
            .with("STAGE_LEASE", "90s")
            .with("TRANSFERS", "1");
        let api = Producer::start(fleet, &environment).await?;
        let mut one = fleet.process("one", "worker", &environment)?;
        let admin = one.started().await?["admin"].clone();
        let admin = admin.as_str().context("no port")?.to_owned();

        // Its only hand for results is full, and another result waits.
        slow_result(fleet, SLOW_RESULT_MS)?;
        let mut jobs = vec![
            fleet.submit_kind(Kind::Lipsync, 0).await?,
            fleet.submit_kind(Kind::Lipsync, 2).await?,
        ];
        storing(&api, "one").await?;
        let both = "SELECT count(*)::text AS value FROM job_stages WHERE stage = 'lipsync.store' AND state = 'dispatched'";
        becomes(url, both, "2").await?;
        let asked = order(&environment, "quiet", "one").await?.json(0);
        assert_eq!(
            (&asked["asked"]["what"], &asked["asked"]["by"]),
            (&json!("quiet"), &json!("ann"))
        );
        let in_hand: Value = serde_json::from_str(IN_HAND)?;
        let is_quiet = |worker: &Value| worker["state"] == "quiet";
        let found = seen(&api, "one", is_quiet).await?;
        assert_eq!(found["in_hand"], in_hand, "{found}");
        assert_eq!(found["asked"]["reason"], "its disk is full");
        let ended = order(&environment, "quiet", "one").await?.json(0);
        assert_eq!(ended["asked"], found["asked"], "the first stays");

        // What it had in hand is finished; what it would have got next is in the queue, for others.
        let completed = "SELECT count(*)::text AS value FROM video_jobs WHERE status = 'completed'";
        becomes(url, completed, "1").await?;
        let found = seen(&api, "one", |worker| worker["in_hand"] == json!([])).await?;
        assert_eq!((&found["state"], &found["ready"]), (&json!("quiet"), &json!(true)));
        assert_eq!(fleet.queues.waiting(Stage::LipsyncStore).await?, 1);
        let ready = reqwest::get(format!("http://{admin}/readyz")).await?;
        assert_eq!(ready.status(), StatusCode::OK);
        let metrics = reqwest::get(format!("http://{admin}/metrics")).await?.text().await?;
        let says = metrics.lines().find(|line| line.starts_with("ghostfleet_worker_quiet"));
        assert!(says.is_some_and(|line| line.ends_with(" 1")), "{says:?}");
        let mut others = Vec::new();
        for number in 0..6 {
            others.push(fleet.submit_kind(Kind::Lipsync, 2 * number).await?);
        }
        let dispatched = "SELECT count(*)::text AS value FROM job_stages WHERE stage = 'lipsync.submit' AND state = 'dispatched'";
        becomes(url, dispatched, "6").await?;
        let waiting = async || fleet.queues.waiting(Stage::LipsyncSubmit).await;
        eventually(DEADLINE, async || {
            let waiting = waiting().await?;
            anyhow::ensure!(waiting == 6, "{waiting} wait");
            Ok(())
        })
        .await?;
        let overview = api.get("/v1/overview").await?.json;
        assert_eq!(
            overview["workers"],
            json!({ "running": 0, "quiet": 1, "draining": 0, "lost": 0 })
        );

        // Another one does it all.
        let mut two = fleet.process("two", "worker", &environment)?;
        two.started().await?;
        jobs.extend(others.iter().cloned());
        fleet.wait_for(&jobs).await?;
        assert_eq!(movers(fleet, &others).await?, "two");
        let after = seen(&api, "one", is_quiet).await?;
        assert_eq!(after["last_delivery_at"], found["last_delivery_at"]);

        // It goes on where the other one stops.
        let stopped = order(&environment, "stop", "two").await?.json(0);
        assert_eq!(stopped["asked"]["what"], "stop");
        assert!(two.end(DEADLINE).await?.success());
        seen(&api, "two", has_stopped).await?;
        let id = found["id"].as_str().context("no id")?;
        let answer = api.send(post(&api, id, "resume")).await?;
        assert_eq!((answer.status, &answer.json["asked"]), (StatusCode::OK, &Value::Null));
        seen(&api, "one", |worker| worker["state"] == "running").await?;
        let last = fleet.submit_kind(Kind::Lipsync, 4).await?;
        fleet.wait_for(std::slice::from_ref(&last)).await?;
        assert_eq!(movers(fleet, std::slice::from_ref(&last)).await?, "one");
        jobs.push(last);

        let trail = api.get("/v1/operator-events?subject=worker/one").await?.json;
        let acts = trail["events"].as_array().context("no trail")?;
        let acts: Vec<_> = acts.iter().map(|act| (&act["action"], &act["by"])).collect();
        let by = json!("ann");
        assert_eq!(
            acts,
            [(&json!("worker_resumed"), &by), (&json!("worker_quieted"), &by)]
        );
        fleet.books(&jobs).await?.assert_balanced();
        assert!(one.terminate(DEADLINE).await?.success());
        api.stop().await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_is_asked_to_stop_finishes_and_ends_with_0() -> anyhow::Result<()> {
    fleet::run(SandboxConfig::default(), async |fleet| {
        let api = Producer::start(fleet, &fleet.environment).await?;
        let patient = fleet.environment.clone().with("STOP_GRACE", "1m");
        let mut one = fleet.process("one", "worker", &patient)?;
        slow_result(fleet, SLOW_RESULT_MS)?;
        let job = fleet.submit_kind(Kind::Lipsync, 0).await?;
        let found = storing(&api, "one").await?;
        let id = found["id"].as_str().context("no id")?;
        let answer = api.send(post(&api, id, "stop")).await?;
        assert_eq!(answer.json["asked"]["what"], "stop", "{}", answer.json);

        // That is for good.
        for what in ["resume", "quiet"] {
            api.refused(post(&api, id, what), 409, "worker-not-steered")
                .await?;
        }
        order(&fleet.environment, "resume", "one")
            .await?
            .said(1, "cannot be taken back");
        assert_eq!(
            api.send(post(&api, id, "stop")).await?.status,
            StatusCode::OK
        );
        let drains = |worker: &Value| worker["state"] == "draining";
        seen(&api, "one", drains).await?;

        // By itself, and with the result.
        assert!(one.end(DEADLINE).await?.success());
        seen(&api, "one", has_stopped).await?;
        let row = fleet.db.job(job.job).await?.context("the job is gone")?;
        assert_eq!(row.status, "completed");
        api.refused(post(&api, id, "resume"), 404, "worker-not-found")
            .await?;
        order(&fleet.environment, "stop", "one")
            .await?
            .said(3, "there is no worker one that runs");
        producer(&fleet.environment, &["trail", "--action", "worker_stopped"])
            .await?
            .said(0, "worker/one");
        fleet.books(&[job]).await?.assert_balanced();
        api.stop().await
    })
    .await
}

/// Its grace is over before its result is: it gives that back, and is not taken for one that went away without a word.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_gives_back_what_it_has_is_shown_as_stopped() -> anyhow::Result<()> {
    fleet::run(SandboxConfig::default(), async |fleet| {
        let environment = fleet.environment.clone().with("STOP_GRACE", "500ms");
        let api = Producer::start(fleet, &fleet.environment).await?;
        let mut one = fleet.process("one", "worker", &environment)?;
        slow_result(fleet, SLOW_RESULT_MS)?;
        let job = fleet.submit_kind(Kind::Lipsync, 0).await?;
        storing(&api, "one").await?;
        assert!(one.terminate(DEADLINE).await?.success());
        seen(&api, "one", has_stopped).await?;
        let heir = fleet.worker_process("two").await?;
        fleet.books(&[job]).await?.assert_balanced();
        drop(heir);
        api.stop().await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_and_who_cannot_is_told() -> anyhow::Result<()> {
    fleet::run(SandboxConfig::default(), async |fleet| {
        let api = Producer::start(fleet, &fleet.environment).await?;
        let mut lost = fleet.worker_process("one").await?;
        let found = seen(&api, "one", |worker| worker["state"] == "running").await?;
        let id = found["id"].as_str().context("no id")?.to_owned();

        // What is asked of nobody, without a reason, or of nothing.
        let path = format!("/v1/workers/{id}/quiet");
        let request = api.request(Method::POST, &path).json(&json!({}));
        let answer = api.refused(request, 422, "invalid-request").await?;
        assert_eq!(answer.json["errors"][0]["path"], "/reason");
        let nobody = Uuid::nil().to_string();
        api.refused(post(&api, &nobody, "stop"), 404, "worker-not-found").await?;
        api.refused(post(&api, "one", "stop"), 400, "invalid-parameters").await?;

        // Killed while it is asked to be quiet: the next one of that name is asked nothing, and named by it.
        let asked = order(&fleet.environment, "quiet", "one").await?.json(0);
        assert_eq!(asked["id"], id);
        seen(&api, "one", |worker| worker["state"] == "quiet").await?;
        lost.kill().await?;
        let is_lost = |worker: &Value| worker["state"] == "lost" && worker["asked"]["what"] == "quiet";
        seen(&api, "one", is_lost).await?;
        for what in ["quiet", "resume", "stop"] {
            let answer = api.refused(post(&api, &id, what), 409, "worker-not-steered").await?;
            let detail = answer.json["detail"].as_str().unwrap_or_default();
            assert!(detail.contains("SIGTERM"), "{detail}");
            order(&fleet.environment, what, "one").await?.said(1, "not seen since");
        }
        let _new = fleet.worker_process("one").await?;
        let anew = async |count: usize| {
            eventually(DEADLINE, async || {
                let list = api.get("/v1/workers").await?.json;
                let workers = list["workers"].as_array().context("no list")?.clone();
                let works = |worker: &&Value| worker["state"] == "running" && worker["asked"].is_null();
                anyhow::ensure!(workers.iter().filter(works).count() == count, "{list}");
                Ok(())
            })
            .await
        };
        anew(1).await?;
        let resumed = order(&fleet.environment, "resume", "one").await?.json(0);
        assert_ne!(resumed["id"], id, "the one that runs");
        let _newer = fleet.worker_process("one").await?;
        anew(2).await?;
        order(&fleet.environment, "stop", "one").await?.said(2, "2 workers are called one");
        let asked = "SELECT string_agg(action, ', ') AS value FROM operator_events WHERE subject LIKE 'worker/%'";
        let asked = value(&fleet.database.url, asked).await?;
        assert_eq!(asked.as_deref(), Some("worker_quieted"), "what is refused is not in the trail");

        // By role.
        let id = resumed["id"].as_str().context("no id")?;
        let (reader, operator) = (token(fleet, "rose", "read").await?, token(fleet, "otto", "operate").await?);
        for what in ["quiet", "resume", "stop"] {
            let request = post(&api, id, what).bearer_auth(&reader);
            api.refused(request, 403, "forbidden").await?;
        }
        let answer = api.send(post(&api, id, "quiet").bearer_auth(&operator)).await?;
        assert_eq!(answer.json["asked"]["by"], "otto", "{}", answer.json);
        api.stop().await
    })
    .await
}
