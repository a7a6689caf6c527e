//! The control API and the binary.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use sandbox::Vendor::{Ghostcut, Sync};
use serde_json::{Value, json};

use crate::support::{create, erase, generate, ghostcut, settle, start};

#[tokio::test]
async fn the_truth_is_served_and_reset() {
    let sandbox = start(|_| {}).await;
    let base = format!("{}/control", sandbox.endpoints().control);
    let get = async |path: &str| {
        reqwest::get(format!("{base}{path}"))
            .await
            .unwrap()
            .json::<Value>()
            .await
            .unwrap()
    };
    let job = "0f8b0000-1111-4222-8333-444455556666";
    for attempt in 1..=2 {
        ghostcut(
            &sandbox,
            "work/free",
            &erase(&sandbox, &format!("gf-{job}-a{attempt}")),
        )
        .await;
    }
    create(&sandbox, Some("k"), &generate(&sandbox, "x")).await;
    settle(&sandbox, Ghostcut).await;
    let truth = get("/truth").await;
    let paid: Vec<_> = truth["vendors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|vendor| &vendor["paid"])
        .collect();
    assert_eq!(paid, [&json!(1), &json!(2)]);
    assert_eq!(truth["requests"]["ghostcut.submit"], 2);
    let duplicates = truth["vendors"][1]["duplicates"].as_array().unwrap();
    assert!(
        duplicates
            .iter()
            .any(|duplicate| duplicate["by"] == "job" && duplicate["value"] == job)
    );
    let works = get("/works/ghostcut?phase=succeeded&contains=-a2").await;
    assert_eq!(works.as_array().unwrap().len(), 1);
    let one = get(&format!(
        "/works/ghostcut/{}",
        works[0]["id"].as_str().unwrap()
    ))
    .await;
    assert_eq!((&one["job"], &one["status"]), (&json!(job), &json!(1)));
    assert_eq!(one["body_sha256"].as_str().unwrap().len(), 64);
    assert_eq!(get("/works/sync").await[0]["idempotency_key"], "k");
    assert_eq!(get("/works/sync?phase=failed").await, json!([]));

    let client = reqwest::Client::new();
    assert_eq!(
        client
            .post(format!("{base}/reset"))
            .send()
            .await
            .unwrap()
            .status(),
        204
    );
    assert_eq!(get("/works/sync").await, json!([]));
    assert_eq!(
        (
            sandbox.truth().paid(Ghostcut),
            sandbox.truth().pending(Sync)
        ),
        (0, 0)
    );
}

#[tokio::test]
async fn rules_and_settings_are_managed_over_http() {
    let sandbox = start(|_| {}).await;
    let base = format!("{}/control", sandbox.endpoints().control);
    let client = reqwest::Client::new();
    let rule = json!({
        "vendor": "sync", "operation": "create", "contains": "job-7", "count": 1,
        "fault": {"kind": "status", "status": 500, "when": "after"},
    });
    let added = client
        .post(format!("{base}/faults"))
        .json(&rule)
        .send()
        .await
        .unwrap();
    assert_eq!(added.status(), 201);
    let id = added.json::<Value>().await.unwrap()["id"].clone();
    assert_eq!(
        create(&sandbox, None, &generate(&sandbox, "job-8")).await.0,
        201
    );
    assert_eq!(
        create(&sandbox, None, &generate(&sandbox, "job-7")).await.0,
        500
    );
    assert_eq!(
        create(&sandbox, None, &generate(&sandbox, "job-7")).await.0,
        201
    );
    let get = async |path: &str| {
        reqwest::get(format!("{base}{path}"))
            .await
            .unwrap()
            .json::<Value>()
            .await
            .unwrap()
    };
    assert_eq!(get("/faults").await[0]["fired"], 1);
    assert_eq!(get("/faults/fired").await[0]["fault"]["kind"], "status");
    let remove = || client.delete(format!("{base}/faults/{id}")).send();
    assert_eq!(remove().await.unwrap().status(), 204);
    assert_eq!(remove().await.unwrap().status(), 404);
    let bad = json!({"vendor": "sync", "operation": "list", "fault": {"kind": "callback_first", "timeout_ms": 1}});
    assert_eq!(
        client
            .post(format!("{base}/faults"))
            .json(&bad)
            .send()
            .await
            .unwrap()
            .status(),
        400
    );

    let patch = json!({"sync": {"plan_slots": 3}, "ghostcut": {"points": 7.5}});
    let changed = client
        .patch(format!("{base}/settings"))
        .json(&patch)
        .send()
        .await
        .unwrap();
    assert_eq!(
        changed.json::<Value>().await.unwrap()["ghostcut"]["points"],
        7.5
    );
    assert_eq!(sandbox.settings().sync.plan_slots, Some(3));
    assert_eq!(
        sandbox.settings().sync.process_ms,
        (50, 100),
        "the rest stays"
    );
    let typo = client
        .patch(format!("{base}/settings"))
        .json(&json!({"sync": {"slots": 3}}))
        .send()
        .await
        .unwrap();
    assert_eq!(typo.status(), 400);
    assert_eq!(
        get("/environment").await["SYNC_API_URL"],
        sandbox.endpoints().sync
    );
}

#[tokio::test]
async fn stop_closes_all_ports_and_removes_the_folder() {
    let sandbox = start(|_| {}).await;
    let (urls, folder) = (sandbox.endpoints().clone(), sandbox.data_dir().to_owned());
    assert!(folder.join("s3/sandbox").is_dir());
    assert!(
        reqwest::get(format!("{}/control/healthz", urls.control))
            .await
            .unwrap()
            .status()
            .is_success()
    );
    sandbox.stop().await;
    assert!(!folder.exists());
    for url in [urls.sync, urls.ghostcut, urls.s3, urls.media, urls.control] {
        assert!(reqwest::get(&url).await.unwrap_err().is_connect(), "{url}");
    }
}

#[test]
fn the_binary_announces_itself_and_ends_on_sigterm() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_sandbox"))
        .args(["--bucket", "videos", "--sync-api-key", "own-key"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    let environment: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(
        (&environment["AWS_S3_BUCKET"], &environment["SYNC_API_KEY"]),
        (&json!("videos"), &json!("own-key"))
    );
    let address = environment["SYNC_API_URL"]
        .as_str()
        .unwrap()
        .strip_prefix("http://")
        .unwrap()
        .to_owned();
    std::net::TcpStream::connect(&address).unwrap();
    let stopped = Command::new("kill")
        .args(["-TERM", &child.id().to_string()])
        .status()
        .unwrap();
    assert!(stopped.success());
    assert!(child.wait().unwrap().success());
    assert!(std::net::TcpStream::connect(&address).is_err());
}
