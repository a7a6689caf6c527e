//! Dead letters, cancel and retry with whole fleets: through the command line and the HTTP API, with the simulators' count of
//! what was paid.

use std::process::{Output, Stdio};

use anyhow::Context as _;
use fleet::{DEADLINE, Fleet, Kind, binary, eventually};
use reqwest::Method;
use sandbox::{Fault, FaultRule, Operation, SandboxConfig, Vendor as Payee, When};
use serde_json::{Value, json};
use shared::db::Canceled;
use uuid::Uuid;

use crate::api::Producer;
use crate::sql::{execute, value};

/// Runs `producer` with these arguments.
async fn producer(fleet: &Fleet, args: &[&str]) -> anyhow::Result<Output> {
    let output = tokio::process::Command::new(binary("producer")?)
        .args(args)
        .env_clear()
        .envs(fleet.environment.variables())
        .env("USER", "ann")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    Ok(tokio::time::timeout(2 * DEADLINE, output).await??)
}

/// What it printed, when it ended with this code.
async fn printed(fleet: &Fleet, code: i32, args: &[&str]) -> anyhow::Result<Value> {
    let output = producer(fleet, args).await?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(
        output.status.code() == Some(code),
        "{args:?} ended with {}: {stderr}",
        output.status
    );
    serde_json::from_slice(&output.stdout).context(stderr.into_owned())
}

/// Waits until so many jobs have this status.
async fn until(fleet: &Fleet, status: &str, jobs: usize) -> anyhow::Result<()> {
    let query = format!("SELECT count(*)::text AS value FROM video_jobs WHERE status = '{status}'");
    eventually(2 * DEADLINE, async || {
        let found = value(&fleet.database.url, &query).await?;
        anyhow::ensure!(found == Some(jobs.to_string()), "{found:?} are {status}");
        Ok(())
    })
    .await
}

/// A result that is no video, for as long as the fault stands: every job dies with its work paid for.
#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_dead_jobs_are_replayed_behind_a_canary_and_nothing_is_paid_twice()
-> anyhow::Result<()> {
    const JOBS: usize = 100;
    fleet::run(SandboxConfig::default(), async |fleet| {
        let page = Fault::Status {
            status: 200,
            error_code: None,
            body: Some("<html>maintenance</html>".to_owned()),
            when: When::Before,
        };
        fleet.sandbox.faults().add(FaultRule::new(Payee::Sync, Operation::Result, page))?;
        let mut jobs = Vec::new();
        for number in 0..JOBS {
            jobs.push(fleet.submit_kind(Kind::Lipsync, 2 * number).await?);
        }
        let services = [fleet.workers(2)?, vec![fleet.producer()?]];
        until(fleet, "failed", JOBS).await?;
        let paid = fleet.sandbox.truth().paid(Payee::Sync);
        assert_eq!(paid, JOBS);

        let groups = printed(fleet, 0, &["dead-letters", "list", "--json"]).await?;
        assert_eq!(groups["groups"].as_array().map(Vec::len), Some(1), "{groups}");
        assert_eq!((&groups["groups"][0]["stage"], &groups["groups"][0]["letters"]), (&json!("lipsync.store"), &json!(JOBS)));
        let preview = printed(fleet, 0, &["dead-letters", "preview", "--stage", "lipsync.store", "--json"]).await?;
        assert_eq!((&preview["first"], &preview["paid"], &preview["refused"]), (&json!({ "store": JOBS }), &json!({}), &json!({})));

        // The fault stands: the canary dies again and the others are left alone.
        let replay = ["dead-letters", "replay", "--all", "--canary", "--json", "--reason", "the vendor is back"];
        let stopped = printed(fleet, 1, &replay).await?;
        assert_eq!(stopped["replayed"]["replayable"], 1, "{stopped}");
        assert!(stopped["stopped"][0]["why"].as_str().is_some_and(|why| why.contains("failed again")), "{stopped}");
        until(fleet, "failed", JOBS).await?;

        fleet.sandbox.faults().clear();
        let done = printed(fleet, 0, &replay).await?;
        assert_eq!((&done["replayed"]["replayable"], &done["stopped"]), (&json!(JOBS), &json!([])), "{done}");
        fleet.wait_for(&jobs).await?;
        let books = fleet.books(&jobs).await?;
        books.assert_balanced();
        assert_eq!(fleet.sandbox.truth().paid(Payee::Sync), paid, "a replay never sends by itself");
        let none = printed(fleet, 0, &replay).await?;
        assert_eq!(none["replayed"]["letters"], 0, "again is harmless");
        let trail = "SELECT string_agg(concat_ws(' ', action, actor, reason), ',') AS value FROM operator_events";
        let trail = value(&fleet.database.url, trail).await?.unwrap_or_default();
        assert_eq!(trail, ["dead_letters_replayed ann the vendor is back"; 3].join(","));
        for service in services.into_iter().flatten() {
            service.stop().await?;
        }
        Ok(())
    })
    .await
}

/// Jobs are canceled wherever they are, every outcome is followed to its end, and then all are retried.
#[tokio::test(flavor = "multi_thread")]
async fn jobs_canceled_anywhere_and_retried_are_completed_and_paid_once() -> anyhow::Result<()> {
    fleet::run(SandboxConfig::default(), async |fleet| {
        // Some answers are late, some are lost: there are claims and unknown outcomes to cancel into.
        for vendor in [Payee::Sync, Payee::Ghostcut] {
            let late = Fault::Delay { ms: 500, when: When::After };
            let rule = |fault| FaultRule::new(vendor, Operation::Submit, fault).times(2);
            fleet.sandbox.faults().add(rule(late))?;
            fleet.sandbox.faults().add(rule(Fault::LoseAnswer))?;
        }
        let services = [fleet.workers(2)?, vec![fleet.producer()?]];
        let mut jobs = Vec::new();
        for number in 0..15 {
            jobs.push(fleet.submit_kind(Kind::ALL[number % 3], number).await?);
        }
        // One after the other, each as soon as so much has been paid.
        for (number, job) in jobs.iter().enumerate() {
            let enough = number.min(10);
            let truth = fleet.sandbox.truth();
            let reached = truth.wait_until(DEADLINE, |truth| truth.paid(Payee::Sync) + truth.paid(Payee::Ghostcut) >= enough);
            assert!(reached.await, "nothing goes on");
            let canceled = fleet.db.cancel_jobs(&[job.job], "ann", "test").await?.remove(0).1;
            let ended = Canceled::Finished("completed".to_owned());
            assert!(matches!(canceled, Canceled::Now | Canceled::Following) || canceled == ended, "{canceled:?}");
        }
        let id = jobs[0].job.to_string();
        let again = printed(fleet, 0, &["jobs", "cancel", &id, "--reason", "test", "--json"]).await?;
        assert_eq!(again["jobs"][0]["outcome"], "was canceled before");
        // Everything paid is followed to its end. What Sync.so was perhaps asked for is searched for and, where the list does
        // not tell it from other jobs' works, left to a person: sending again under its key might pay for a canceled job.
        let alive = "SELECT string_agg(concat_ws(' ', s.job_id, s.vendor, s.state, st.stage, st.state), ', ') AS value \
            FROM submissions s LEFT JOIN job_stages st USING (job_id) WHERE s.state IN ('claimed', 'unknown', 'accepted', 'redoing') \
            AND (s.state, st.state, st.reason) IS DISTINCT FROM ('unknown', 'parked', 'outcome_undecided')";
        let going = "SELECT count(*)::text AS value FROM job_stages WHERE state <> 'parked'";
        eventually(DEADLINE, async || {
            let url = &fleet.database.url;
            let (alive, going) = (value(url, alive).await?, value(url, going).await?);
            anyhow::ensure!(alive.is_none() && going.as_deref() == Some("0"), "{alive:?}, {going:?} go on");
            Ok(())
        })
        .await?;
        let mut canceled = 0;
        for job in &jobs {
            let row = fleet.db.job(job.job).await?.context("no job")?;
            canceled += usize::from(row.status == "canceled");
        }
        assert!(canceled >= 5, "{canceled} were canceled: the test was too slow to show anything");

        let retried = printed(fleet, 0, &["jobs", "retry", "--status", "canceled", "--reason", "test", "--json"]).await?;
        assert_eq!(retried["jobs"].as_array().map(Vec::len), Some(canceled), "{retried}");
        fleet.wait_for(&jobs).await?;
        fleet.books(&jobs).await?.assert_balanced();
        let wasted = "SELECT count(*)::text AS value FROM submissions WHERE cost_wasted IS NOT NULL";
        assert_eq!(value(&fleet.database.url, wasted).await?.as_deref(), Some("0"), "everything was used after all");
        for service in services.into_iter().flatten() {
            service.stop().await?;
        }
        Ok(())
    })
    .await
}

/// A note is on the group, is changed by who has seen it, and outlives its letters. Letter 1 is alone in its group.
async fn groups_are_noted(fleet: &Fleet, api: &Producer) -> anyhow::Result<()> {
    let put = |letter: i64, body: Value| {
        let path = format!("/v1/dead-letters/{letter}/note");
        api.request(Method::PUT, &path).json(&body)
    };
    let text = |text: &str| json!({ "note": text, "by": "ann" });
    let faults = api
        .refused(put(1, json!({ "notes": "x" })), 422, "invalid-request")
        .await?;
    assert_eq!(
        faults.faults(),
        [("/note", "missing"), ("/notes", "unknown_field")]
    );
    for odd in [" ", "\u{1b}[2J", "left \u{202e}to right"] {
        let faults = api
            .refused(put(1, text(odd)), 422, "invalid-request")
            .await?;
        assert_eq!(faults.faults(), [("/note", "malformed")], "{odd:?}");
    }
    let none_there = put(1, text("x")).header("If-Match", "*");
    api.refused(none_there, 412, "version-outdated").await?;
    api.refused(put(99, text("x")), 404, "dead-letter-not-found")
        .await?;

    let first = put(1, text("the CDN is at fault")).header("If-None-Match", "*");
    let first = api.send(first).await?;
    let etag = format!("\"{}\"", first.json["note"]["version"]);
    assert_eq!(first.headers["etag"].to_str()?, etag);
    let first = first.json["note"].clone();
    assert_eq!(
        (&first["text"], &first["by"]),
        (&json!("the CDN is at fault"), &json!("ann"))
    );
    let again = put(1, text("I was second")).header("If-None-Match", "*");
    api.refused(again, 412, "version-outdated").await?;
    let tag = |note: &Value| format!("\"{}\"", note["version"]);
    let second = put(1, text("mended on Monday")).header("If-Match", tag(&first));
    let second = api.send(second).await?.json["note"].clone();
    let late = put(1, json!({ "note": null })).header("If-Match", tag(&first));
    api.refused(late, 412, "version-outdated").await?;
    let groups = api.get("/v1/dead-letters").await?.json;
    assert_eq!(
        (&groups["groups"][0]["note"], &groups["groups"][1]["note"]),
        (&second, &Value::Null),
        "{groups}"
    );
    assert_eq!(api.get("/v1/dead-letters/1").await?.json["note"], second);

    let gone = put(1, json!({ "note": null })).header("If-Match", tag(&second));
    assert_eq!(api.send(gone).await?.json, json!({ "note": null }));
    let noted = printed(
        fleet,
        0,
        &["dead-letters", "note", "1", "see the ticket", "--json"],
    )
    .await?;
    assert!(
        noted["note"]["version"].as_i64() > second["version"].as_i64(),
        "no version comes again: {noted}"
    );
    let listed = printed(fleet, 0, &["dead-letters", "list", "--json"]).await?;
    assert_eq!(
        listed["groups"],
        api.get("/v1/dead-letters").await?.json["groups"],
        "as the API has it"
    );
    let list = String::from_utf8(producer(fleet, &["dead-letters", "list"]).await?.stdout)?;
    assert!(list.contains("see the ticket (ann, "), "{list}");
    let missing = producer(fleet, &["dead-letters", "note", "99", "x"]).await?;
    assert_eq!(missing.status.code(), Some(3));
    let trail = "SELECT string_agg(concat_ws(' ', action, actor, reason), ', ' ORDER BY id) AS value FROM operator_events \
                 WHERE action LIKE 'dead_letters_note%'";
    assert_eq!(
        value(&fleet.database.url, trail).await?.unwrap_or_default(),
        "dead_letters_noted ann the CDN is at fault, dead_letters_noted ann mended on Monday, \
         dead_letters_note_removed api it was: mended on Monday, dead_letters_noted ann see the ticket"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_cancels_retries_replays_and_discards() -> anyhow::Result<()> {
    fleet::run(SandboxConfig::default(), async |fleet| {
        let api = Producer::start(fleet, &fleet.environment).await?;
        let post = |path: &str, body: Value| api.request(Method::POST, path).json(&body);
        let why = || json!({ "reason": "test", "by": "ann" });
        let request = fleet.media.request(Kind::Lipsync, 0);
        let id = api.created(api.post(&request)).await?;
        let of = |what: &str| format!("/v1/jobs/{id}/{what}");

        let faults = api.refused(post(&of("cancel"), json!({ "because": 1 })), 422, "invalid-request").await?;
        assert_eq!(faults.faults(), [("/reason", "missing"), ("/because", "unknown_field")]);
        let unknown = format!("/v1/jobs/{}/cancel", Uuid::new_v4());
        api.refused(post(&unknown, why()), 404, "job-not-found").await?;
        api.refused(post(&of("retry"), why()), 409, "job-not-restarted").await?;
        api.refused(post(&of("resume"), why()), 409, "job-not-restarted").await?;
        for _ in 0..2 {
            let canceled = api.send(post(&of("cancel"), why())).await?;
            assert_eq!((&canceled.json["status"], &canceled.json["stage"]), (&json!("canceled"), &Value::Null));
        }
        let mut preview = why();
        preview["preview"] = json!(true);
        let plan = api.send(post(&of("retry"), preview)).await?.json;
        assert_eq!((&plan["stage"], &plan["first"], &plan["pays"]), (&json!("lipsync.submit"), &json!("submit"), &json!("sync")));
        let shown = api.get(&format!("/v1/jobs/{id}")).await?;
        assert_eq!(shown.json["status"], "canceled");
        // Of two that decide by the same sight of a job, one does.
        let tag = shown.headers["etag"].to_str()?.to_owned();
        assert_eq!(tag, shown.json["version"].to_string());
        // Another application sets the status by hand, which leaves no line in the trail.
        for (status, stands) in [("failed", false), ("canceled", true)] {
            let by_hand = format!("UPDATE video_jobs SET status = '{status}' WHERE id = '{id}'");
            execute(&fleet.database.url, &by_hand).await?;
            let mut preview = why();
            preview["preview"] = json!(true);
            let preview = post(&of("retry"), preview).header("If-Match", &tag);
            match stands {
                true => assert_eq!(api.send(preview).await?.status, 200),
                false => drop(api.refused(preview, 412, "version-outdated").await?),
            }
        }
        let gone = post(&unknown, why()).header("If-Match", &tag);
        api.refused(gone, 404, "job-not-found").await?;
        let seen = |what: &str| post(&of(what), why()).header("If-Match", &tag);
        assert_eq!(api.send(seen("retry")).await?.json["preview"], false);
        for what in ["retry", "resume", "cancel"] {
            let refused = api.refused(seen(what), 412, "version-outdated").await?;
            assert_eq!(refused.json["detail"], "meanwhile: retried by ann; the job is processing");
        }
        assert_eq!(api.get(&format!("/v1/jobs/{id}")).await?.json["status"], "processing");
        let workers = fleet.workers(1)?;
        until(fleet, "completed", 1).await?;
        api.refused(post(&of("cancel"), why()), 409, "job-finished").await?;
        api.refused(post(&of("retry"), why()), 409, "job-finished").await?;
        assert_eq!(fleet.sandbox.truth().paid(Payee::Sync), 1);

        // A job that died in a stage, and a message that says nothing.
        let dead = fleet.submit_kind(Kind::Lipsync, 0).await?;
        fleet.wait_for(std::slice::from_ref(&dead)).await?;
        execute(&fleet.database.url, &format!(
            "UPDATE video_jobs SET status = 'failed', error_message = 'e' WHERE id = '{0}'; \
             INSERT INTO job_stages (job_id, stage, epoch, state, due_at, reason, fairness_key) \
             VALUES ('{0}', 'lipsync.store', 31, 'dead', NULL, 'invalid_result', '{0}'); \
             INSERT INTO dead_letters (job_id, stage, epoch, reason, error) \
             VALUES ('{0}', 'lipsync.store', 30, 'invalid_result', 'got https://a.example/v?sig=S after 3 s'); \
             INSERT INTO dead_letters (reason, error, body) VALUES ('undecidable', 'not a message', '\\x00ff')", dead.job)).await?;
        let groups = api.get("/v1/dead-letters?limit=1").await?.json;
        assert_eq!(groups["groups"][0]["class"], "got <url a.example> after <n> s");
        let next = groups["next_cursor"].as_str().unwrap();
        let groups = api.get(&format!("/v1/dead-letters?limit=1&cursor={next}")).await?.json;
        assert_eq!((&groups["groups"][0]["stage"], &groups["next_cursor"]), (&json!("unknown"), &Value::Null));
        let flat = api.get("/v1/dead-letters?view=flat&stage=lipsync.store").await?.json;
        assert_eq!(flat["letters"][0]["error"], "got https://a.example/v?[redacted] after 3 s");
        let name = api.get(&format!("/v1/jobs/{id}")).await?.json["display_name"].clone();
        assert_eq!((flat["letters"][0]["job_name"].clone(), name.is_string()), (name, true));
        let poison = api.get("/v1/dead-letters/2").await?.json;
        assert_eq!(poison["job_name"], Value::Null);
        assert_eq!(poison["body"], json!({ "bytes": 2, "hex": "00ff" }));
        let get = |path: &str| api.request(Method::GET, path);
        api.refused(get("/v1/dead-letters/99"), 404, "dead-letter-not-found").await?;
        let faults = api.refused(get("/v1/dead-letters?stage=x&colour=1&cursor=1&view=2"), 400, "invalid-parameters").await?;
        assert_eq!(faults.faults(), [("stage", "malformed"), ("colour", "unknown_field"), ("view", "malformed")]);

        groups_are_noted(fleet, &api).await?;

        let replays = "/v1/dead-letters/replays";
        api.refused(post(replays, json!({ "reason": "r", "filter": {} })), 422, "invalid-request").await?;
        let preview = api.send(post(replays, json!({ "reason": "r", "all": true, "preview": true }))).await?.json;
        let tally = &preview["replay"];
        assert_eq!((&tally["first"], &tally["refused"]), (&json!({ "store": 1 }), &json!({ "undecidable": 1 })));
        let done = api.send(post(replays, json!({ "reason": "r", "all": true, "per_minute": 60 }))).await?.json;
        assert_eq!((&done["replay"]["replayable"], &done["complete"]), (&json!(1), &json!(true)));
        fleet.wait_for(std::slice::from_ref(&dead)).await?;
        assert_eq!(fleet.sandbox.truth().paid(Payee::Sync), 2);
        let discards = post("/v1/dead-letters/discards", json!({ "reason": "r", "filter": { "reason": "undecidable" } }));
        assert_eq!(api.send(discards).await?.json["discarded"], 1);
        assert_eq!(api.get("/v1/dead-letters?view=flat").await?.json["letters"], json!([]));
        assert_eq!(api.get("/v1/dead-letters/1").await?.json["note"]["text"], "see the ticket", "it outlives its letters");
        let shown = producer(fleet, &["dead-letters", "show", "2"]).await?;
        let shown = String::from_utf8(shown.stdout)?;
        assert!(shown.contains("00ff") && shown.contains("discarded at"), "{shown}");
        let shown = String::from_utf8(producer(fleet, &["jobs", "show", &id]).await?.stdout)?;
        assert!(shown.contains("retried") && shown.contains("succeeded"), "{shown}");
        for worker in workers {
            worker.stop().await?;
        }
        api.stop().await
    })
    .await
}
