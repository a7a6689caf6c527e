//! `GET /v1/jobs`, `GET /v1/jobs/{id}` and the admin port: whole, in order, and without a signature.

use std::collections::BTreeSet;

use fleet::{DEADLINE, Fleet, Kind, eventually};
use futures::future::try_join_all;
use reqwest::{Method, StatusCode};
use sandbox::{Fault, FaultRule, Operation, SandboxConfig, Vendor};
use serde_json::{Value, json};
use shared::domain::outcome::Reason;
use uuid::Uuid;

use crate::api::{Answer, Producer};
use crate::sql::execute;
use crate::workers::present;

const SIGNED: &str = "https://vendor.example/in.mp4?X-Amz-Expires=60&X-Amz-Signature=0123abcd";

/// Shows a job until it has this status. Every answer on the way is looked through for signatures.
async fn show_until(producer: &Producer, id: &str, status: &str) -> anyhow::Result<Answer> {
    eventually(DEADLINE, async || {
        let answer = producer.get(&format!("/v1/jobs/{id}")).await?;
        producer.get("/v1/jobs").await?;
        anyhow::ensure!(answer.json["status"] == status, "{}", answer.json);
        Ok(answer)
    })
    .await
}

fn words<'a>(list: &'a Value, field: &str) -> Vec<&'a str> {
    let items = list.as_array().unwrap().iter();
    items.map(|item| item[field].as_str().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_shown_with_its_ledger_and_its_history_but_no_signature() -> anyhow::Result<()> {
    fleet::run(SandboxConfig::default(), async |fleet| {
        let producer = Producer::start(fleet, &fleet.environment).await?;
        // The samples are read with any query string, like a file behind a signed URL.
        let mut good = fleet.media.request(Kind::Both, 1);
        let video = good["video_url"].as_str().unwrap();
        good["video_url"] = format!("{video}?X-Amz-Signature=0123abcd").into();
        let good = producer.created(producer.post(&good)).await?;
        let bad = fleet.media.request(Kind::Inpaint, 2);
        let bad = producer.created(producer.post(&bad)).await?;
        let too_long = Fault::Statuses {
            codes: vec![0, 5],
            step_ms: None,
            progress: None,
        };
        let says = Fault::Replace {
            key: "errorDetail".to_owned(),
            value: json!(format!("cannot read {SIGNED}")),
        };
        let rule = |operation, fault| FaultRule::new(Vendor::Ghostcut, operation, fault);
        let faults = fleet.sandbox.faults();
        faults.add(rule(Operation::Process, too_long).containing(&bad))?;
        faults.add(rule(Operation::Status, says))?;
        let workers = fleet.workers(1)?;

        let done = show_until(&producer, &good, "completed").await?.json;
        is_complete(&done);
        let failed = show_until(&producer, &bad, "failed").await?.json;
        assert!(failed["error"]["code"].is_string(), "{failed}");
        let message = failed["error"]["message"].as_str().unwrap();
        assert!(
            message.contains("https://vendor.example/in.mp4"),
            "{message}"
        );
        assert_eq!(words(&failed["submissions"], "state"), ["failed"]);
        shows_no_signature_of_adopted_rows(fleet, &producer, &good).await?;

        let unknown = producer.request(Method::GET, &format!("/v1/jobs/{}", Uuid::nil()));
        producer.refused(unknown, 404, "job-not-found").await?;
        for id in ["7", "%ff", "00000000-0000-0000-0000-00000000000g"] {
            let sent = producer.request(Method::GET, &format!("/v1/jobs/{id}"));
            let problem = producer.refused(sent, 400, "invalid-parameters").await?;
            assert_eq!(problem.faults(), [("id", "malformed")]);
        }
        for worker in workers {
            worker.stop().await?;
        }
        producer.stop().await
    })
    .await
}

/// The document of a completed job that both vendors have worked on.
fn is_complete(job: &Value) {
    assert_eq!(job["progress_percentage"], 100);
    assert_eq!(job["stage"], Value::Null);
    assert_eq!(job["error"], Value::Null);
    assert!(job["output_url"].as_str().unwrap().starts_with("http"));
    let submissions = &job["submissions"];
    assert_eq!(words(submissions, "vendor"), ["sync", "ghostcut"]);
    assert_eq!(words(submissions, "state"), ["succeeded"; 2]);
    assert!(!words(submissions, "vendor_task_id").contains(&""));
    let history = words(&job["history"], "kind");
    assert_eq!(history[0], "created");
    let claims = history.iter().filter(|kind| **kind == "claimed");
    assert_eq!(claims.count(), 2, "{history:?}");
    let events = job["history"].as_array().unwrap().iter();
    assert!(events.map(|event| event["id"].as_i64()).is_sorted());
}

/// Rows of the replaced application may hold anything.
async fn shows_no_signature_of_adopted_rows(
    fleet: &Fleet,
    producer: &Producer,
    id: &str,
) -> anyhow::Result<()> {
    let columns = ["output_url", "progress_message", "error_message"];
    let signed = columns
        .map(|column| format!("{column} = '{SIGNED}'"))
        .join(", ");
    let update = format!("UPDATE video_jobs SET {signed} WHERE id = '{id}'");
    execute(&fleet.database.url, &update).await?;
    let shown = producer.get(&format!("/v1/jobs/{id}")).await?.json;
    let redacted = "https://vendor.example/in.mp4?[redacted]";
    assert_eq!(shown["output_url"], redacted);
    assert_eq!(shown["error"]["message"], redacted);
    producer.get("/v1/jobs").await?;
    Ok(())
}

/// Of each job that is due and not sent it is said what holds it; of one that is not due, what put it off.
#[tokio::test(flavor = "multi_thread")]
async fn a_job_says_why_it_waits() -> anyhow::Result<()> {
    fleet::run(SandboxConfig::default(), async |fleet| {
        let producer = Producer::start(fleet, &fleet.environment).await?;
        let change = async |path: &str| {
            let sent = producer.request(reqwest::Method::POST, path);
            let answer = producer.send(sent.json(&json!({ "reason": "a test" }))).await?;
            anyhow::ensure!(answer.status == StatusCode::OK, "{}", answer.json);
            Ok(())
        };
        present(&fleet.database.url).await?;
        change("/v1/vendors/ghostcut/default/pause").await?;
        let ids = create(&producer, 1, 3).await?;
        let held = |by: &str, account: Value, sentence: &str| {
            json!({ "by": by, "account": account, "until": null, "sentence": sentence })
        };
        let paused = "nothing new is sent to ghostcut/default: paused by an operator: a test (api), until somebody resumes it";
        let paused = held("manual", json!("ghostcut/default"), paused);
        // Their inputs would be imported first.
        let ready = "UPDATE job_stages SET stage = 'inpaint.submit', state = 'waiting', epoch = epoch + 5, due_at = now()";
        execute(&fleet.database.url, ready).await?;
        let last = format!(
            "INSERT INTO job_events (job_id, kind, actor, stage, epoch, detail) SELECT job_id, 'retry', 'w', stage, epoch - 1, \
                 '{{\"answer\": \"throttled\", \"said\": \"come again, {SIGNED}\"}}' FROM job_stages WHERE job_id = '{0}'; \
             UPDATE job_stages SET due_at = '2101-02-03 04:05:06Z' WHERE job_id = '{0}'; \
             UPDATE job_stages SET state = 'dispatched', due_at = now() - interval '1 minute' WHERE job_id = '{1}'",
            ids[0], ids[1]
        );
        execute(&fleet.database.url, &last).await?;
        let put_off = json!({ "answer": "throttled", "until": "2101-02-03T04:05:06Z",
            "sentence": "it waits until 2101-02-03 04:05:06 UTC: ghostcut answered throttled: come again, \
                https://vendor.example/in.mp4?[redacted]" });
        says(&producer, &ids[0], &Value::Null, &put_off).await?;
        // A lease that is over makes a job due like its time.
        for id in &ids[1..] {
            says(&producer, id, &paused, &Value::Null).await?;
        }
        let overview = producer.get("/v1/overview").await?.json;
        let stages = overview["stages"].as_array().unwrap().iter();
        let held_stages: Vec<_> = stages.filter(|stage| !stage["held"].is_null()).collect();
        assert_eq!(words(&json!(held_stages), "stage"), ["inpaint.submit"]);
        assert_eq!((&held_stages[0]["due"], &held_stages[0]["held"]), (&json!(2), &paused));

        change("/v1/paid-sends/stop").await?;
        let stop = producer.get(&format!("/v1/jobs/{}", ids[2])).await?.json["held"].take();
        assert_eq!((&stop["by"], &stop["account"]), (&json!("stopped"), &Value::Null));
        change("/v1/vendors/ghostcut/default/resume").await?;
        change("/v1/paid-sends/resume").await?;
        for id in &ids {
            says(&producer, id, &Value::Null, &Value::Null).await?;
        }
        let told = producer.get("/v1/words").await?.json;
        let all: Vec<_> = Reason::ALL.iter().map(|reason| reason.as_str()).collect();
        assert_eq!(words(&told["reasons"], "code"), all);
        producer.stop().await
    })
    .await
}

/// Of one job and of a list.
async fn says(producer: &Producer, id: &str, held: &Value, put_off: &Value) -> anyhow::Result<()> {
    let shown = producer.get(&format!("/v1/jobs/{id}")).await?.json;
    assert_eq!(
        (&shown["held"], &shown["put_off"]),
        (held, put_off),
        "{shown}"
    );
    let listed = producer.get("/v1/jobs").await?.json;
    let ours = listed["jobs"]
        .as_array()
        .unwrap()
        .iter()
        .find(|job| job["id"] == id);
    let ours = ours.unwrap();
    assert_eq!((&ours["held"], &ours["put_off"]), (held, put_off), "{ours}");
    Ok(())
}

/// Jobs that need nothing of the object store.
fn request(user: u128, number: usize) -> Value {
    json!({
        "user_id": Uuid::from_u128(user),
        "video_url": format!("https://a.example/{number}.mp4"),
        "effects": [{ "type": "text", "startTime": 0, "endTime": 5,
            "region": { "x": 0.1, "y": 0.8, "width": 0.8, "height": 0.15 } }],
    })
}

async fn create(producer: &Producer, user: u128, count: usize) -> anyhow::Result<Vec<String>> {
    try_join_all((0..count).map(|number| producer.created(producer.post(&request(user, number)))))
        .await
}

/// The ids on all pages, which have to be in order; `between` runs after each.
async fn walk(
    producer: &Producer,
    query: &str,
    between: impl AsyncFn() -> anyhow::Result<()>,
) -> anyhow::Result<Vec<String>> {
    let mut path = format!("/v1/jobs?{query}");
    let mut seen = Vec::new();
    loop {
        let page = producer.get(&path).await?;
        assert_eq!(page.status, StatusCode::OK, "{}", page.json);
        for job in page.json["jobs"].as_array().unwrap() {
            let time = job["created_at"].as_str().unwrap_or("no time comes first");
            seen.push((time.to_owned(), job["id"].as_str().unwrap().to_owned()));
        }
        let Some(cursor) = page.json["next_cursor"].as_str() else {
            break;
        };
        path = format!("/v1/jobs?{query}&cursor={cursor}");
        between().await?;
    }
    assert!(seen.is_sorted_by(|a, b| a > b), "{query}: {seen:?}");
    Ok(seen.into_iter().map(|(_, id)| id).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_have_every_job_once_while_jobs_come_in() -> anyhow::Result<()> {
    fleet::run(SandboxConfig::default(), async |fleet| {
        let producer = Producer::start(fleet, &fleet.environment).await?;
        let mut there: BTreeSet<_> = create(&producer, 1, 20).await?.into_iter().collect();
        // Equal times are told apart by the id; adopted rows may have none.
        let times = "ALTER TABLE video_jobs ALTER created_at DROP NOT NULL; \
            UPDATE video_jobs SET created_at = date_trunc('minute', created_at); \
            UPDATE video_jobs SET created_at = NULL \
                WHERE id IN (SELECT id FROM video_jobs ORDER BY id LIMIT 5);";
        execute(&fleet.database.url, times).await?;
        there.extend(create(&producer, 1, 9).await?);

        for limit in [3, 7, 200] {
            let come_in = async || create(&producer, 2, 2).await.map(drop);
            let seen = walk(&producer, &format!("limit={limit}"), come_in).await?;
            let seen = seen.into_iter().collect();
            let missing: Vec<_> = there.difference(&seen).collect();
            assert!(missing.is_empty(), "limit {limit}: {missing:?}");
        }
        filters(fleet, &producer, &there).await?;
        refuses_bad_parameters(&producer).await?;
        shows_its_metrics(&producer).await?;
        producer.stop().await
    })
    .await
}

/// `own` are all jobs of the first user.
async fn filters(fleet: &Fleet, producer: &Producer, own: &BTreeSet<String>) -> anyhow::Result<()> {
    let listed = async |query: &str| walk(producer, query, async || Ok(())).await;
    let by_user = listed(&format!("limit=4&user_id={}", Uuid::from_u128(1))).await?;
    assert_eq!(&by_user.into_iter().collect::<BTreeSet<_>>(), own);
    let chosen = own.first().unwrap();
    let changes = format!(
        "UPDATE video_jobs SET status = 'canceled' WHERE id = '{chosen}'; \
         UPDATE job_stages SET stage = 'inpaint.poll' WHERE job_id = '{chosen}';"
    );
    execute(&fleet.database.url, &changes).await?;
    for query in [
        "status=canceled",
        "stage=inpaint.poll",
        "status=canceled&stage=inpaint.poll",
    ] {
        assert_eq!(listed(query).await?, [chosen.as_str()], "{query}");
    }
    let nobody = listed("status=canceled&stage=inpaint.submit").await?;
    assert_eq!(nobody, [""; 0]);
    Ok(())
}

async fn refuses_bad_parameters(producer: &Producer) -> anyhow::Result<()> {
    for (query, fault) in [
        ("limit=0", ("limit", "out_of_range")),
        ("limit=201", ("limit", "out_of_range")),
        ("limit=x", ("limit", "out_of_range")),
        ("cursor=", ("cursor", "malformed")),
        (
            "cursor=7fffffffffffffff00000000000000000000000000000000",
            ("cursor", "malformed"),
        ),
        ("user_id=1", ("user_id", "malformed")),
        ("status=done", ("status", "malformed")),
        ("stage=lipsync", ("stage", "malformed")),
        ("page=2", ("page", "unknown_field")),
    ] {
        let sent = producer.request(Method::GET, &format!("/v1/jobs?{query}"));
        let problem = producer.refused(sent, 400, "invalid-parameters").await?;
        assert_eq!(problem.faults(), [fault], "{query}");
    }
    Ok(())
}

/// After many requests: counted by the templates of the routes.
async fn shows_its_metrics(producer: &Producer) -> anyhow::Result<()> {
    producer.get(&format!("/v1/jobs/{}", Uuid::nil())).await?;
    producer.get("/nowhere").await?;
    for (method, path) in [
        (Method::PATCH, "/v1/vendors/sync/nobody"),
        (Method::DELETE, "/session"),
        (Method::TRACE, "/session"),
    ] {
        let sent = producer.request(method, path).json(&json!({"reason": "r"}));
        sent.send().await?;
    }
    let (status, text) = producer.admin("/metrics").await?;
    assert_eq!(status, StatusCode::OK);
    for series in [
        r#"ghostfleet_http_requests_total{method="GET",route="/v1/jobs/{id}",status="404"} 1"#,
        r#"ghostfleet_http_requests_total{method="GET",route="unmatched",status="404"} 1"#,
        r#"ghostfleet_http_requests_total{method="GET",route="/v1/jobs",status="400"} 9"#,
        r#"ghostfleet_http_requests_total{method="PATCH",route="/v1/vendors/{vendor}/{account}",status=""#,
        r#"ghostfleet_http_requests_total{method="DELETE",route="/session",status=""#,
        r#"ghostfleet_http_requests_total{method="other",route="/session",status=""#,
        r#"ghostfleet_http_requests_total{method="POST",route="/v1/jobs",status="201"} "#,
        r#"ghostfleet_http_request_duration_seconds_count{route="/v1/jobs/{id}"} 1"#,
        "ghostfleet_build_info{",
    ] {
        assert!(text.contains(series), "no {series} in\n{text}");
    }
    assert_eq!(
        producer.admin("/healthz").await?,
        (StatusCode::OK, "ok\n".to_owned())
    );
    assert_eq!(
        producer.admin("/readyz").await?,
        (StatusCode::OK, "database: ok\nbroker: ok\n".to_owned())
    );
    assert_eq!(producer.admin("/v1/jobs").await?.0, StatusCode::NOT_FOUND);
    Ok(())
}
