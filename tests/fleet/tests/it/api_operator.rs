//! What operators do and see over HTTP: filters, history, submissions, accounts, paid sends, costs, audits, unknown outcomes,
//! batches and events.

use anyhow::Context as _;
use fleet::{DEADLINE, Fleet, Kind, eventually};
use reqwest::{Method, Response, StatusCode};
use sandbox::SandboxConfig;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::api::Producer;
use crate::sql::{execute, value};

const LIMITS: &str = "/v1/vendors/ghostcut/default";

/// A job that needs nothing of the object store.
fn request(user: u128, name: &str) -> Value {
    json!({
        "user_id": Uuid::from_u128(user),
        "video_url": format!("https://a.example/{name}.mp4"),
        "display_name": name,
        "effects": [{ "type": "text", "startTime": 0, "endTime": 5,
            "region": { "x": 0.1, "y": 0.8, "width": 0.8, "height": 0.15 } }],
    })
}

async fn listed(producer: &Producer, query: &str) -> anyhow::Result<Vec<String>> {
    let page = producer.get(&format!("/v1/jobs?{query}")).await?;
    anyhow::ensure!(page.status == StatusCode::OK, "{query}: {}", page.json);
    let jobs = page.json["jobs"].as_array().context("no jobs")?.iter();
    Ok(jobs
        .map(|job| job["id"].as_str().unwrap_or_default().to_owned())
        .collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_are_put_in_by_batches_and_found_by_filters() -> anyhow::Result<()> {
    fleet::run(SandboxConfig::default(), async |fleet| {
        let producer = Producer::start(fleet, &fleet.environment).await?;
        let item = |name: &str, key: &str| json!({"request": request(1, name), "idempotency_key": key});
        let mut wrong = item("wrong", "k3");
        wrong["request"]["colour"] = json!("red");
        let batch = json!({"jobs": [item("Harbour 100%", "k1"), wrong, item("mill", "k2"), item("other", "k2")]});
        let send = async || {
            let sent = producer.request(Method::POST, "/v1/jobs/batch").json(&batch);
            let answer = producer.send(sent).await?;
            anyhow::ensure!(answer.status == StatusCode::OK, "{}", answer.json);
            Ok(answer.json["results"].clone())
        };
        let statuses = |results: &Value| -> Vec<u64> {
            let results = results.as_array().unwrap().iter();
            results.map(|result| result["status"].as_u64().unwrap()).collect()
        };
        let first = send().await?;
        // Of two requests under one key either may be first.
        let mut came = statuses(&first);
        came[2..].sort_unstable();
        assert_eq!(came, [201, 422, 201, 409], "{first}");
        assert_eq!(first[1]["problem"]["errors"][0]["path"], "/colour");
        let again = send().await?;
        assert_eq!(statuses(&again)[..2], [200, 422], "nothing is stored twice");
        assert_eq!(again[0]["job"]["id"], first[0]["job"]["id"]);

        let id = first[0]["job"]["id"].as_str().context("no id")?;
        assert_eq!(listed(&producer, "text=harbour%20100%25").await?, [id]);
        assert_eq!(listed(&producer, "text=100_").await?, [""; 0], "no wildcards");
        let change = format!(
            "UPDATE video_jobs SET status = 'failed', error_code = 'input_unreadable', created_at = '2020-01-01' WHERE id = '{id}'"
        );
        execute(&fleet.database.url, &change).await?;
        for query in [
            "error_code=input_unreadable",
            "status=failed&text=HARBOUR",
            "created_before=2020-01-02T00:00:00Z",
            "created_from=2019-12-31T23:00:00-02:00&created_before=2021-01-01T00:00:00Z",
        ] {
            let expected = if query.contains("-02:00") { vec![] } else { vec![id] };
            assert_eq!(listed(&producer, query).await?, expected, "{query}");
        }
        assert_eq!(listed(&producer, "vendor=sync").await?, [""; 0]);
        assert_eq!(listed(&producer, "created_from=2021-01-01T00:00:00Z").await?.len(), 1);
        producer.stop().await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_finished_job_has_its_history_its_proofs_and_its_costs() -> anyhow::Result<()> {
    fleet::run(SandboxConfig::default(), async |fleet| {
        let producer = Producer::start(fleet, &fleet.environment).await?;
        let workers = fleet.workers(1)?;
        let id = producer
            .created(producer.post(&fleet.media.request(Kind::Both, 0)))
            .await?;
        let done = eventually(DEADLINE, async || {
            let job = producer.get(&format!("/v1/jobs/{id}")).await?.json;
            anyhow::ensure!(job["status"] == "completed", "{job}");
            Ok(job)
        })
        .await?;

        let mut seen = Vec::new();
        let mut path = format!("/v1/jobs/{id}/history?limit=3");
        loop {
            let page = producer.get(&path).await?.json;
            let lines = page["history"].as_array().context("no history")?;
            seen.extend(lines.iter().filter_map(|line| line["id"].as_i64()));
            let Some(cursor) = page["next_cursor"].as_str() else {
                break;
            };
            path = format!("/v1/jobs/{id}/history?limit=3&cursor={cursor}");
        }
        seen.reverse();
        let whole = done["history"].as_array().context("no history")?.iter();
        assert_eq!(
            seen,
            whole
                .filter_map(|line| line["id"].as_i64())
                .collect::<Vec<_>>()
        );

        let proofs = producer
            .get(&format!("/v1/jobs/{id}/submissions"))
            .await?
            .json;
        for (number, vendor) in ["sync", "ghostcut"].into_iter().enumerate() {
            let proof = &proofs["submissions"][number];
            assert_eq!(
                (&proof["vendor"], &proof["state"]),
                (&json!(vendor), &json!("succeeded"))
            );
            assert_eq!(proof["request_sha256"].as_str().map(str::len), Some(64));
            let marker = proof["marker"].as_str().context("no marker")?;
            assert!(marker.ends_with(proof["token"].as_str().context("no token")?));
        }
        assert_eq!(listed(&producer, "vendor=sync").await?, [id.as_str()]);
        let costs = producer.get("/v1/costs?by=user").await?.json;
        assert_eq!(costs["days"].as_array().map(Vec::len), Some(2), "{costs}");

        follows(&producer, &id, &seen).await?;
        for path in ["history", "submissions", "events"] {
            let sent = producer.request(Method::GET, &format!("/v1/jobs/{}/{path}", Uuid::nil()));
            producer.refused(sent, 404, "job-not-found").await?;
        }
        for worker in workers {
            worker.stop().await?;
        }
        producer.stop().await
    })
    .await
}

/// Reads events until there are `count`; their ids.
async fn events(response: &mut Response, count: usize) -> anyhow::Result<Vec<i64>> {
    let mut text = String::new();
    let read = async {
        loop {
            let whole = text.rfind("\n\n").map_or("", |end| &text[..end]);
            let ids = whole.lines().filter_map(|line| line.strip_prefix("id: "));
            let ids: Vec<i64> = ids.map(str::parse).collect::<Result<_, _>>()?;
            if ids.len() >= count {
                return Ok(ids);
            }
            let chunk = response.chunk().await?.context("the stream has ended")?;
            text.push_str(std::str::from_utf8(&chunk)?);
        }
    };
    tokio::time::timeout(DEADLINE, read).await?
}

/// The whole trail of a job, the rest of it, and what happens next in the fleet.
async fn follows(producer: &Producer, id: &str, trail: &[i64]) -> anyhow::Result<()> {
    let path = format!("/v1/jobs/{id}/events");
    let mut whole = producer.request(Method::GET, &path).send().await?;
    assert_eq!(whole.headers()["content-type"], "text/event-stream");
    assert_eq!(events(&mut whole, trail.len()).await?, trail);
    let rest = producer
        .request(Method::GET, &path)
        .header("Last-Event-ID", trail[1].to_string());
    assert_eq!(
        events(&mut rest.send().await?, trail.len() - 2).await?,
        trail[2..]
    );

    let mut all = producer.request(Method::GET, "/v1/events").send().await?;
    let other = producer.created(producer.post(&request(2, "new"))).await?;
    let newest = events(&mut all, 1).await?[0];
    assert!(newest > trail[trail.len() - 1]);
    let shown = producer.get(&format!("/v1/jobs/{other}")).await?.json;
    assert_eq!(shown["history"][0]["id"], newest);
    let wrong = producer
        .request(Method::GET, "/v1/events")
        .header("Last-Event-ID", "x");
    let problem = producer.refused(wrong, 400, "invalid-parameters").await?;
    assert_eq!(problem.faults(), [("Last-Event-ID", "malformed")]);
    Ok(())
}

/// A line that is numbered first and committed last is neither lost nor passed by those numbered later.
#[tokio::test(flavor = "multi_thread")]
async fn events_are_in_order_although_commits_are_not() -> anyhow::Result<()> {
    fleet::run(SandboxConfig::default(), async |fleet| {
        use diesel_async::{AsyncConnection as _, AsyncPgConnection, SimpleAsyncConnection as _};
        let producer = Producer::start(fleet, &fleet.environment).await?;
        // Right after the start, too.
        let mut all = producer.request(Method::GET, "/v1/events").send().await?;
        assert_eq!(all.status(), StatusCode::OK);
        let line = |kind: &str| {
            format!(
                "INSERT INTO job_events (job_id, kind, actor) VALUES ('{}', '{kind}', 'test')",
                Uuid::nil()
            )
        };
        let mut slow = AsyncPgConnection::establish(&fleet.database.url).await?;
        slow.batch_execute(&format!("BEGIN; {}", line("slow")))
            .await?;
        execute(&fleet.database.url, &line("quick")).await?;
        // Nothing may come before the slow line, however long it takes.
        let first =
            tokio::time::timeout(std::time::Duration::from_secs(3), events(&mut all, 1)).await;
        assert!(first.is_err(), "{first:?}");
        slow.batch_execute("COMMIT").await?;
        let ids = "SELECT string_agg(id::text, ',' ORDER BY id) AS value FROM job_events";
        let ids = value(&fleet.database.url, ids).await?.context("no lines")?;
        let seen = events(&mut all, 2).await?;
        assert_eq!(
            seen.iter()
                .map(i64::to_string)
                .collect::<Vec<_>>()
                .join(","),
            ids
        );
        // A follower does not keep the producer from stopping.
        producer.stop().await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn accounts_and_paid_sends_are_changed_by_version() -> anyhow::Result<()> {
    fleet::run(SandboxConfig::default(), async |fleet| {
        let producer = Producer::start(fleet, &fleet.environment).await?;
        let shown = producer.get(LIMITS).await?;
        let tag = shown.headers["etag"].to_str()?.to_owned();
        let limit = |body: Value| producer.request(Method::PATCH, LIMITS).json(&body);
        let change = json!({"reason": "plan", "max_in_flight": 6.0, "daily_budget": 12.5});
        let changed = producer
            .send(limit(change.clone()).header("If-Match", &tag))
            .await?;
        assert_eq!(changed.status, StatusCode::OK, "{}", changed.json);
        assert_eq!(
            (
                &changed.json["max_in_flight"],
                &changed.json["daily_budget"]
            ),
            (&json!(6), &json!(12.5))
        );
        assert_ne!(changed.headers["etag"].to_str()?, tag);
        let outdated =
            limit(json!({"reason": "late", "max_in_flight": 1})).header("If-Match", &tag);
        producer.refused(outdated, 412, "version-outdated").await?;
        assert_eq!(producer.get(LIMITS).await?.json["max_in_flight"], 6);
        let lifted = producer
            .send(limit(json!({"reason": "r", "max_in_flight": null})))
            .await?;
        assert_eq!(
            (&lifted.json["max_in_flight"], &lifted.json["daily_budget"]),
            (&Value::Null, &json!(12.5))
        );
        for (body, fault) in [
            (json!({"max_in_flight": 1}), ("/reason", "missing")),
            (json!({"reason": "r"}), ("", "empty")),
            (
                json!({"reason": "r", "burst": 0}),
                ("/burst", "out_of_range"),
            ),
            (
                json!({"reason": "r", "burst": 1.5}),
                ("/burst", "out_of_range"),
            ),
            (
                json!({"reason": "r", "burst": 1, "speed": 1}),
                ("/speed", "unknown_field"),
            ),
        ] {
            let problem = producer
                .refused(limit(body), 422, "invalid-request")
                .await?;
            assert_eq!(problem.faults(), [fault]);
        }
        let post = |path: &str, body: Value| producer.request(Method::POST, path).json(&body);
        let nobody = post("/v1/vendors/sync/nobody/pause", json!({"reason": "r"}));
        producer.refused(nobody, 404, "account-not-found").await?;
        let paused = post(
            &format!("{LIMITS}/pause"),
            json!({"reason": "incident", "seconds": 600}),
        );
        assert_eq!(producer.send(paused).await?.json["refusal"], "manual");
        let status = producer.get("/v1/status").await?.json;
        assert_eq!(status["accounts_stopped"][0]["vendor"], "ghostcut");
        let resumed = post(&format!("{LIMITS}/resume"), json!({"reason": "over"}));
        assert_eq!(producer.send(resumed).await?.json["refusal"], Value::Null);

        let stop = post(
            "/v1/paid-sends/stop",
            json!({"reason": "ticket", "by": "me"}),
        );
        assert_eq!(producer.send(stop).await?.json["stopped"]["by"], "me");
        assert_eq!(
            producer.get("/v1/paid-sends").await?.json["stopped"]["reason"],
            "ticket"
        );
        let resume = post("/v1/paid-sends/resume", json!({"reason": "solved"}));
        assert_eq!(producer.send(resume).await?.json["stopped"], Value::Null);
        needs_an_audit(fleet, &producer).await?;
        producer.stop().await
    })
    .await
}

/// After a database that forgot commits.
async fn needs_an_audit(fleet: &Fleet, producer: &Producer) -> anyhow::Result<()> {
    let statements = "INSERT INTO settings (name, value, changed_by) \
            VALUES ('stop_paid', '{\"reason\": \"forgot\", \"audit_first\": true}', 'test'); \
        INSERT INTO audits (since, actor, reason, repair, finished_at, comparisons, findings) \
            SELECT now(), 'test', 'number ' || n, false, now(), '[]', n FROM generate_series(1, 3) n";
    execute(&fleet.database.url, statements).await?;
    let resume = producer
        .request(Method::POST, "/v1/paid-sends/resume")
        .json(&json!({"reason": "r"}));
    producer.refused(resume, 409, "paid-still-stopped").await?;
    let page = producer.get("/v1/audits?limit=2").await?.json;
    assert_eq!(page["audits"][0]["findings"], 3);
    let cursor = page["next_cursor"].as_str().context("one page only")?;
    let last = producer
        .get(&format!("/v1/audits?cursor={cursor}"))
        .await?
        .json;
    assert_eq!(
        (
            last["audits"].as_array().map(Vec::len),
            &last["next_cursor"]
        ),
        (Some(1), &Value::Null)
    );
    let id = &last["audits"][0]["id"];
    assert_eq!(
        producer.get(&format!("/v1/audits/{id}")).await?.json["reason"],
        "number 1"
    );
    let missing = producer.request(Method::GET, "/v1/audits/404");
    producer.refused(missing, 404, "audit-not-found").await?;
    Ok(())
}
