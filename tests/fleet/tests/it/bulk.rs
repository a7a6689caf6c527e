//! Operations on many jobs and dead letters: carried out by whichever producer is there, each job once, with canaries, a pace, a stop,
//! and a trail; and what the overview, the series and the trail say of it.

use anyhow::Context as _;
use fleet::{DEADLINE, Expectation, Fleet, Kind, Process, eventually};
use reqwest::{Method, StatusCode};
use sandbox::{SandboxConfig, Vendor as Payee};
use serde_json::{Value, json};
use shared::db::{Db, NewOperation, Piece, Steered};
use shared::domain::bulk::{BulkAction, BulkState};
use uuid::Uuid;

use crate::api::Producer;
use crate::command::producer;
use crate::operations::{give_up, job};
use crate::sql::{execute, value, with_database};

/// Jobs that failed and are dead, with a letter each; half of them of another group. Nothing was paid for them.
async fn dead(fleet: &Fleet, count: usize) -> anyhow::Result<Vec<Uuid>> {
    let mut jobs = Vec::new();
    for number in 0..count {
        jobs.push(
            fleet
                .submit(&fleet.media.request(Kind::Lipsync, 2 * number))
                .await?,
        );
    }
    let die = "UPDATE video_jobs SET status = 'failed', error_message = 'e', completed_at = timezone('utc', now()); \
        UPDATE job_stages SET state = 'dead', due_at = NULL, reason = 'tries_exhausted', epoch = epoch + 1; \
        INSERT INTO dead_letters (job_id, stage, epoch, reason, error) \
            SELECT job_id, stage, epoch - 1, reason, CASE WHEN row_number() OVER (ORDER BY job_id) % 2 = 0 THEN 'first' ELSE 'second' END \
            FROM job_stages";
    execute(&fleet.database.url, die).await?;
    Ok(jobs)
}

async fn begun(api: &Producer, body: &Value) -> anyhow::Result<i64> {
    let answer = api
        .send(api.request(Method::POST, "/v1/operations").json(body))
        .await?;
    anyhow::ensure!(answer.status == StatusCode::ACCEPTED, "{}", answer.json);
    let id = answer.json["id"].as_i64().context("no id")?;
    assert_eq!(answer.headers["location"], format!("/v1/operations/{id}"));
    Ok(id)
}

/// The operation once it is in this state.
async fn came_to(api: &Producer, id: i64, state: &str) -> anyhow::Result<Value> {
    eventually(DEADLINE, async || {
        let operation = api.get(&format!("/v1/operations/{id}")).await?.json;
        anyhow::ensure!(operation["state"] == state, "{operation}");
        Ok(operation)
    })
    .await
}

/// Who asked for it has not seen what came later, and did not mean it.
#[tokio::test(flavor = "multi_thread")]
async fn what_came_to_fit_after_it_was_asked_for_is_left_alone() -> anyhow::Result<()> {
    fleet::run(SandboxConfig::default(), async |fleet| {
        let submit =
            async |number| fleet.submit(&fleet.media.request(Kind::Lipsync, number)).await;
        let (earlier, failed) = (submit(0).await?, submit(1).await?);
        // While no producer runs it waits.
        let start = [
            "operations", "start", "cancel", "--all", "--reason", "r", "--by", "ann",
        ];
        producer(&fleet.environment, &start).await?.said(0, "");
        let retry = [
            "operations", "start", "retry", "--all", "--reason", "r", "--by", "ann",
        ];
        producer(&fleet.environment, &retry).await?.said(0, "");
        let later = submit(2).await?;
        let fails = format!(
            "UPDATE video_jobs SET status = 'failed', completed_at = timezone('utc', now()) WHERE id = '{failed}'; \
             DELETE FROM job_stages WHERE job_id = '{failed}'"
        );
        execute(&fleet.database.url, &fails).await?;
        let api = Producer::start(fleet, &fleet.environment).await?;
        for id in [1, 2] {
            came_to(&api, id, "done").await?;
        }
        for (job, expected) in [(earlier, "canceled"), (later, "queued"), (failed, "failed")] {
            let job = api.get(&format!("/v1/jobs/{job}")).await?.json;
            assert_eq!(job["status"], expected, "{job}");
        }
        api.stop().await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_waits_for_its_canaries_and_leaves_alone_what_dies_again() -> anyhow::Result<()> {
    fleet::run(SandboxConfig::default(), async |fleet| {
        let jobs = dead(fleet, 10).await?;
        let api = Producer::start(fleet, &fleet.environment).await?;
        let post = |path: &str, body: Value| api.request(Method::POST, path).json(&body);
        let replay = json!({ "action": "replay", "filter": { "stage": "lipsync.submit" }, "reason": "the vendor is back",
            "by": "ann", "canary": true, "expect": 10 });
        let preview = api.send(post("/v1/operations/preview", replay.clone())).await?.json;
        assert_eq!((&preview["count"], &preview["capped"]), (&json!(10), &json!(false)));
        assert_eq!(preview["tally"]["first"], json!({ "submit": 10 }), "{preview}");
        let mut other = replay.clone();
        other["expect"] = json!(8);
        api.refused(post("/v1/operations", other), 409, "count-differs").await?;

        let id = begun(&api, &replay).await?;
        let waits = came_to(&api, id, "awaiting").await?;
        let canaries = waits["canaries"].as_array().context("no canaries")?;
        assert_eq!((canaries.len(), &waits["done"], &waits["changed"]), (2, &json!(2), &json!(2)), "{waits}");
        // One gets through. The other dies again.
        let dies = canaries[0]["job_id"].as_str().context("no job")?.to_owned();
        let again = format!(
            "UPDATE video_jobs SET status = 'failed' WHERE id = '{dies}'; \
             UPDATE job_stages SET state = 'dead', due_at = NULL, reason = 'e', epoch = epoch + 1 WHERE job_id = '{dies}'"
        );
        execute(&fleet.database.url, &again).await?;
        let workers = fleet.workers(1)?;
        eventually(DEADLINE, async || {
            let shown = api.get(&format!("/v1/operations/{id}")).await?.json;
            let outcomes = [&shown["canaries"][0]["outcome"], &shown["canaries"][1]["outcome"]];
            anyhow::ensure!(outcomes == [&json!("dead again"), &json!("settled")], "{shown}");
            Ok(())
        })
        .await?;
        let why = json!({ "reason": "half of it", "by": "bob" });
        api.send(post(&format!("/v1/operations/{id}/continue"), why.clone())).await?;
        let done = came_to(&api, id, "done").await?;
        assert_eq!((&done["done"], &done["changed"], &done["refused"]), (&json!(6), &json!(6), &json!({})), "{done}");
        api.refused(post(&format!("/v1/operations/{id}/continue"), why.clone()), 409, "operation-not-steered").await?;
        api.refused(post("/v1/operations/99/stop", why), 404, "operation-not-found").await?;
        let letters = api.get("/v1/dead-letters").await?.json;
        assert_eq!(letters["groups"].as_array().map(Vec::len), Some(1), "{letters}");
        assert_eq!(letters["groups"][0]["letters"], 4, "the group of the dead canary");
        let completed = "SELECT count(*)::text AS value FROM video_jobs WHERE status = 'completed'";
        eventually(DEADLINE, async || {
            let found = value(&fleet.database.url, completed).await?;
            anyhow::ensure!(found.as_deref() == Some("5"), "{found:?}");
            Ok(())
        })
        .await?;
        assert_eq!(fleet.sandbox.truth().paid(Payee::Sync), 5);
        let shown = api.get(&format!("/v1/operations/{id}")).await?.json;
        let ends = json!({ "completed": 5, "failed": 1, "canceled": 0, "unfinished": 0 });
        assert_eq!(shown["ends"], ends, "{shown}");
        told(&api, id, &jobs).await?;
        for worker in workers {
            worker.stop().await?;
        }
        api.stop().await
    })
    .await
}

/// What is paid for by a stage that comes later is told too.
#[tokio::test(flavor = "multi_thread")]
async fn a_preview_tells_what_is_paid_for_later() -> anyhow::Result<()> {
    fleet::run(SandboxConfig::default(), async |fleet| {
        for kind in [Kind::Lipsync, Kind::Both, Kind::Inpaint] {
            fleet.submit_kind(kind, 0).await?;
        }
        let die = "UPDATE video_jobs SET status = 'failed', completed_at = timezone('utc', now()); \
            UPDATE job_stages SET state = 'dead', due_at = NULL, reason = 'tries_exhausted', epoch = epoch + 1; \
            INSERT INTO dead_letters (job_id, stage, epoch, reason, error) SELECT job_id, stage, epoch - 1, reason, 'e' FROM job_stages";
        execute(&fleet.database.url, die).await?;
        let preview = producer(&fleet.environment, &["dead-letters", "preview", "--all"]).await?;
        preview.said(0, "2 to sync");
        preview.said(0, "1 to ghostcut, by their last cost");
        preview.said(0, "to be paid later, when that is done: 1 to ghostcut");
        let nothing = ["operations", "start", "cancel", "--filter", "text=none", "--preview"];
        producer(&fleet.environment, &nothing).await?.said(0, "nothing fits");

        // And what a canary waits for, if nobody moves it.
        let replay = [
            "dead-letters", "replay", "--all", "--canary", "--canary-timeout", "1s", "--reason", "r",
        ];
        let replay = producer(&fleet.environment, &replay).await?;
        replay.said(1, "waiting up to 1s for the canary, job ");
        replay.said(1, "it does not move: no worker takes lipsync.submit");
        Ok(())
    })
    .await
}

/// Begins a replay with canaries of all open letters.
async fn with_canaries(db: &Db, per_minute: Option<i32>) -> anyhow::Result<i64> {
    let new = NewOperation {
        action: BulkAction::Replay,
        filter: json!({}),
        by: "ann",
        reason: "test",
        another_attempt: false,
        canary: true,
        per_minute,
        total: 0,
        capped: false,
    };
    Ok(db.begin_operation(&new).await?)
}

fn piece(changed: i64, state: BulkState) -> Option<Piece> {
    Some(Piece { changed, state })
}

#[tokio::test(flavor = "multi_thread")]
async fn canaries_keep_the_pace_and_so_does_what_follows_them() -> anyhow::Result<()> {
    with_database(true, async |url, db| {
        for error in ["first", "second", "second"] {
            give_up(db, job(url, db).await?, error).await?;
        }
        let id = with_canaries(db, Some(6)).await?;
        assert_eq!(db.operation_piece(id).await?, piece(2, BulkState::Awaiting));
        let apart = "SELECT round(extract(epoch FROM max(due_at) - min(due_at)))::text AS value FROM job_stages WHERE state = 'waiting'";
        assert_eq!(value(url, apart).await?.as_deref(), Some("10"));
        assert_eq!(db.continue_operation(id, "bob", "go on").await?, Steered::Yes);
        assert_eq!(db.operation_piece(id).await?, None, "the canaries' twenty seconds are not over");
        execute(url, "UPDATE operations SET due_at = now()").await?;
        assert_eq!(db.operation_piece(id).await?, piece(1, BulkState::Running));
        Ok(())
    })
    .await
}

/// Such a group has no canary that anybody could look at: why is told at once, and each letter is counted once.
#[tokio::test(flavor = "multi_thread")]
async fn a_group_of_which_none_can_be_replayed_is_counted_and_done() -> anyhow::Result<()> {
    with_database(true, async |url, db| {
        // More than a piece.
        let undecidable = "INSERT INTO dead_letters (reason, body) \
            SELECT 'undecidable', convert_to(n::text, 'UTF8') FROM generate_series(1, 130) n";
        execute(url, undecidable).await?;
        let id = with_canaries(db, None).await?;
        assert_eq!(db.operation_piece(id).await?, piece(0, BulkState::Running), "nobody is waited for");
        assert_eq!(db.operation_piece(id).await?, piece(0, BulkState::Done));
        let told = async |id: i64| {
            let query = format!("SELECT concat_ws(' ', done, changed, refused) AS value FROM operations WHERE id = {id}");
            anyhow::Ok(value(url, &query).await?.unwrap_or_default())
        };
        assert_eq!(told(id).await?, r#"130 0 {"undecidable": 130}"#);

        // One of a canceled job alone, and one whose canary comes after some of them.
        for error in ["canceled"].into_iter().chain(["mixed"; 3]) {
            give_up(db, job(url, db).await?, error).await?;
        }
        execute(url, "UPDATE video_jobs SET status = 'canceled'").await?;
        let good = job(url, db).await?;
        give_up(db, good, "mixed").await?;
        let id = with_canaries(db, None).await?;
        assert_eq!(db.operation_piece(id).await?, piece(1, BulkState::Awaiting));
        assert_eq!(told(id).await?, r#"132 1 {"canceled": 1, "undecidable": 130}"#);
        let canary = format!("SELECT canaries -> 0 ->> 'job' AS value FROM operations WHERE id = {id}");
        assert_eq!(value(url, &canary).await?, Some(good.to_string()));
        assert_eq!(db.continue_operation(id, "bob", "go on").await?, Steered::Yes);
        while db.operation_piece(id).await?.is_some() {}
        assert_eq!(told(id).await?, r#"135 1 {"canceled": 4, "undecidable": 130}"#);
        Ok(())
    })
    .await
}

/// The bound on paid attempts is the workers', whatever the settings of who asks say.
#[tokio::test(flavor = "multi_thread")]
async fn everybody_goes_by_the_workers_bound_on_paid_attempts() -> anyhow::Result<()> {
    fleet::run(SandboxConfig::default(), async |fleet| {
        let url = &fleet.database.url;
        let job = dead(fleet, 1).await?.remove(0).to_string();
        let failed = format!(
            "INSERT INTO submissions (token, job_id, vendor, account, attempt, state, request_body, request_sha256, send_deadline, \
                 vendor_task_id, work_state) \
             SELECT gen_random_uuid(), '{job}', 'sync', 'default', n, 'failed', '', sha256(''), now() + interval '1 minute', 'work-' || n, \
                 'failed' FROM generate_series(1, 2) n"
        );
        execute(url, &failed).await?;
        let other = fleet.environment.clone().with("MAX_PAID_ATTEMPTS", "9");
        let api = Producer::start(fleet, &other).await?;
        let retry = format!("/v1/jobs/{job}/retry");
        let previews = async || {
            let mut lets_through = Vec::new();
            for command in [
                &["dead-letters", "preview", "--all", "--json"] as &[&str],
                &["jobs", "retry", &job, "--preview", "--json"],
                &["operations", "start", "replay", "--all", "--preview", "--reason", "r", "--json"],
            ] {
                let said = producer(&other, command).await?;
                lets_through.push(!said.stdout.contains("attempts_exhausted"));
            }
            for (path, body) in [
                ("/v1/dead-letters/replays", json!({ "all": true, "preview": true, "reason": "r" })),
                ("/v1/operations/preview", json!({ "action": "replay", "all": true, "reason": "r" })),
                (retry.as_str(), json!({ "preview": true, "reason": "r" })),
            ] {
                let request = api.request(Method::POST, path).json(&body).send().await?;
                lets_through.push(!request.text().await?.contains("attempts"));
            }
            anyhow::Ok(lets_through)
        };
        assert_eq!(previews().await?, [false; 6], "two are allowed where no worker says otherwise");
        let worker = fleet::Service::worker(&fleet.environment.clone().with("MAX_PAID_ATTEMPTS", "3"), "worker")?;
        eventually(DEADLINE, async || {
            let told = value(url, "SELECT value::text AS value FROM settings WHERE name = 'max_paid_attempts'").await?;
            anyhow::ensure!(told.as_deref() == Some("3"), "{told:?}");
            Ok(())
        })
        .await?;
        worker.stop().await?;
        assert_eq!(previews().await?, [true; 6]);
        api.stop().await
    })
    .await
}

/// What trail, series and overview say of the replay.
async fn told(api: &Producer, id: i64, jobs: &[Uuid]) -> anyhow::Result<()> {
    let trail = api
        .get(&format!("/v1/operator-events?subject=operation/{id}"))
        .await?
        .json;
    let acts = trail["events"].as_array().context("no trail")?.iter();
    let acts: Vec<_> = acts
        .map(|act| {
            (
                act["action"].as_str(),
                act["by"].as_str(),
                act["reason"].as_str(),
            )
        })
        .collect();
    let expected = [
        (Some("operation_continued"), Some("bob"), Some("half of it")),
        (
            Some("dead_letters_replayed"),
            Some("ann"),
            Some("the vendor is back"),
        ),
    ];
    assert_eq!(acts, expected);
    let (mut seen, mut path) = (0, "/v1/operator-events?action=replayed&limit=2".to_owned());
    loop {
        let page = api.get(&path).await?.json;
        let lines = page["events"].as_array().context("no trail")?;
        for line in lines {
            assert_eq!(
                (&line["by"], &line["reason"], &line["subject"]),
                (&json!("ann"), &json!("the vendor is back"), &line["job_id"])
            );
        }
        seen += lines.len();
        let Some(cursor) = page["next_cursor"].as_str() else {
            break;
        };
        path = format!("/v1/operator-events?action=replayed&limit=2&cursor={cursor}");
    }
    assert_eq!(seen, 6);
    let mut found = 0;
    for job in jobs {
        let of_job = api
            .get(&format!("/v1/operator-events?subject={job}"))
            .await?
            .json;
        found += of_job["events"].as_array().map_or(0, Vec::len);
    }
    assert_eq!(found, 6, "each once");
    let wrong = api.request(Method::GET, "/v1/operator-events?cursor=x&colour=1");
    let problem = api.refused(wrong, 400, "invalid-parameters").await?;
    assert_eq!(
        problem.faults(),
        [("cursor", "malformed"), ("colour", "unknown_field")]
    );

    let series = api.get("/v1/series?minutes=30").await?.json;
    let points = series["points"].as_array().context("no points")?;
    assert_eq!(points.len(), 30);
    let sum = |field: &dyn Fn(&Value) -> &Value| {
        points
            .iter()
            .filter_map(|point| field(point).as_i64())
            .sum::<i64>()
    };
    assert_eq!(sum(&|point| &point["finished"]), 5);
    assert_eq!(sum(&|point| &point["submissions"]["sync"]), 5);
    assert!(
        points
            .iter()
            .any(|point| point["job_seconds"]["p95"].is_number())
    );
    let overview = api.get("/v1/overview").await?.json;
    assert_eq!(overview["open_dead_letters"], 4, "{overview}");
    let none = ["sync", "ghostcut"]
        .map(|vendor| json!({ "vendor": vendor, "submissions": 0, "open": 0, "jobs": [] }));
    assert_eq!(overview["duplicates_ever"], json!(none));
    assert_eq!(overview["stages"].as_array().map(Vec::len), Some(8));
    assert_eq!(
        (
            &overview["stages"][1]["stage"],
            &overview["stages"][1]["dead"]
        ),
        (&json!("lipsync.submit"), &json!(5))
    );
    Ok(())
}

/// The first producer is killed between two pieces; the second does the rest, and nobody anything twice.
#[tokio::test(flavor = "multi_thread")]
async fn another_producer_goes_on_where_one_was_killed() -> anyhow::Result<()> {
    const JOBS: i64 = 450;
    fleet::run(SandboxConfig::default(), async |fleet| {
        // Jobs that wait for a vendor's works, as many as make five pieces.
        let rows = format!(
            "INSERT INTO video_jobs (id, user_id, original_filename, status, created_at) \
                 SELECT gen_random_uuid(), gen_random_uuid(), 'clip.mp4', 'processing', timezone('utc', now()) - n * interval '1 s' \
                 FROM generate_series(1, {JOBS}) n; \
             INSERT INTO job_stages (job_id, stage, fairness_key, due_at) \
                 SELECT id, 'inpaint.poll', user_id, now() + interval '1 day' FROM video_jobs"
        );
        execute(&fleet.database.url, &rows).await?;
        let cancel = ["operations", "start", "cancel", "--all", "--reason", "wrong batch", "--by", "ann", "--json"];
        let begun = producer(&fleet.environment, &cancel).await?.json(0);
        assert_eq!((&begun["total"], &begun["state"]), (&json!(JOBS), &json!("running")));
        let armed = fleet.environment.clone().with("CRASH_POINT", "OperationPieceDone:2");
        let mut victim = Process::start("victim", "producer", ["serve"], armed.variables(), fleet.folder())?;
        victim.end(DEADLINE).await?;
        let left = "SELECT concat_ws(' ', state, done, changed) AS value FROM operations";
        assert_eq!(value(&fleet.database.url, left).await?.as_deref(), Some("running 200 200"));
        // Two of them: a piece is one's alone.
        let heirs = [fleet.producer()?, fleet.producer()?];
        let id = begun["id"].to_string();
        let shown = producer(&fleet.environment, &["operations", "show", &id, "--wait", "--json"]).await?.json(0);
        assert_eq!((&shown["state"], &shown["done"], &shown["changed"]), (&json!("done"), &json!(JOBS), &json!(JOBS)));
        let once = "SELECT count(*) || ' ' || count(DISTINCT job_id) AS value FROM job_events WHERE kind = 'canceled'";
        assert_eq!(value(&fleet.database.url, once).await?, Some(format!("{JOBS} {JOBS}")));
        let listed = producer(&fleet.environment, &["operations", "list", "--json"]).await?.json(0);
        assert_eq!(listed["operations"].as_array().map(Vec::len), Some(1));
        let trail = ["trail", "--by", "ann", "--action", "canceled", "--limit", "1000", "--json"];
        let trail = producer(&fleet.environment, &trail).await?.json(0);
        assert_eq!(trail["events"].as_array().map(Vec::len), Some(usize::try_from(JOBS)?));
        for heir in heirs {
            heir.stop().await?;
        }
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operation_keeps_its_pace_and_is_stopped() -> anyhow::Result<()> {
    fleet::run(SandboxConfig::default(), async |fleet| {
        let api = Producer::start(fleet, &fleet.environment).await?;
        let post = |path: &str, body: Value| api.request(Method::POST, path).json(&body);
        let mut jobs: Vec<Expectation> = Vec::new();
        for number in 0..3 {
            jobs.push(fleet.submit_kind(Kind::Lipsync, 2 * number).await?);
        }
        let park = "UPDATE job_stages SET state = 'parked', due_at = NULL, reason = 'vendor_needs_operator'";
        execute(&fleet.database.url, park).await?;
        // One in ten seconds.
        let resume = json!({ "action": "resume", "filter": { "stage": "lipsync.submit" }, "reason": "asked", "per_minute": 6 });
        let id = begun(&api, &resume).await?;
        eventually(DEADLINE, async || {
            let shown = api.get(&format!("/v1/operations/{id}")).await?.json;
            anyhow::ensure!(shown["changed"] == 1, "{shown}");
            Ok(())
        })
        .await?;
        let stopped = api.send(post(&format!("/v1/operations/{id}/stop"), json!({ "reason": "too soon" }))).await?.json;
        assert_eq!((&stopped["state"], &stopped["changed"]), (&json!("stopped"), &json!(1)), "{stopped}");
        assert!(stopped["finished_at"].is_string());

        // The rest without a pace, parked or waiting for its time, and what has ended is retried.
        let later = "UPDATE job_stages SET state = 'waiting', due_at = now() + interval '1 hour', reason = NULL WHERE job_id = \
                     (SELECT job_id FROM job_stages WHERE state = 'parked' LIMIT 1)";
        execute(&fleet.database.url, later).await?;
        let parked = json!({ "action": "resume", "filter": { "state": "parked" } });
        assert_eq!(api.send(post("/v1/operations/preview", parked)).await?.json["count"], 1);
        let all = json!({ "action": "resume", "all": true, "reason": "asked" });
        let done = came_to(&api, begun(&api, &all).await?, "done").await?;
        assert_eq!((&done["total"], &done["changed"]), (&json!(2), &json!(2)), "{done}");
        let id = begun(&api, &json!({ "action": "cancel", "all": true, "reason": "asked" })).await?;
        assert_eq!(came_to(&api, id, "done").await?["changed"], 3);
        let retry = json!({ "action": "retry", "filter": { "status": "canceled" }, "reason": "asked" });
        let preview = api.send(post("/v1/operations/preview", retry.clone())).await?.json;
        assert_eq!((&preview["count"], &preview["tally"]["paid"]["sync"]["submissions"]), (&json!(3), &json!(3)), "{preview}");
        let workers = fleet.workers(1)?;
        assert_eq!(came_to(&api, begun(&api, &retry).await?, "done").await?["changed"], 3);
        fleet.wait_for(&jobs).await?;
        fleet.books(&jobs).await?.assert_balanced();
        for (body, fault) in [
            (json!({ "reason": "r", "all": true }), ("/action", "missing")),
            (json!({ "action": "cancel", "reason": "r" }), ("/filter", "missing")),
            (json!({ "action": "cancel", "reason": "r", "filter": {} }), ("/filter", "empty")),
            (json!({ "action": "cancel", "reason": "r", "filter": { "limit": "5" } }), ("/filter/limit", "unknown_field")),
            (json!({ "action": "retry", "reason": "r", "filter": { "status": "completed" } }), ("/filter/status", "malformed")),
            (json!({ "action": "discard", "reason": "r", "filter": { "status": "failed" } }), ("/filter/status", "unknown_field")),
            (json!({ "action": "cancel", "reason": "r", "all": true, "canary": true }), ("/canary", "malformed")),
            (json!({ "action": "cancel", "all": true }), ("/reason", "missing")),
        ] {
            let problem = api.refused(post("/v1/operations", body), 422, "invalid-request").await?;
            assert_eq!(problem.faults(), [fault]);
        }
        for worker in workers {
            worker.stop().await?;
        }
        api.stop().await
    })
    .await
}
