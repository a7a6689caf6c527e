//! Sync.so as documented.

use sandbox::Vendor::Sync;
use sandbox::media::Provenance;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::support::{OK, Receiver, create, generate, sample_url, settle, start, sync, sync_get};

#[tokio::test]
async fn a_generation_completes_with_a_result_made_from_its_video() {
    let sandbox = start(|settings| settings.sync.process_ms = (1500, 1500)).await;
    let (status, body) = create(&sandbox, Some("k1"), &generate(&sandbox, "job-1")).await;
    assert_eq!((status, &body["status"]), (201, &json!("PENDING")));
    assert!(body["createdAt"].as_str().unwrap().ends_with('Z'));
    let path = format!("/v2/generate/{}", body["id"].as_str().unwrap());
    settle(&sandbox, Sync).await;
    let done = sync_get(&sandbox, &path).await;
    assert_eq!(
        (&done["status"], &done["errorCode"]),
        (&json!("COMPLETED"), &Value::Null)
    );
    assert_eq!(
        sync_get(&sandbox, &path.replace("generate", "generations")).await,
        done
    );
    assert!(done["outputUrl"].as_str().unwrap().contains("/job-1.mp4?"));
    let result = reqwest::get(done["outputUrl"].as_str().unwrap())
        .await
        .unwrap()
        .bytes()
        .await
        .unwrap();
    let input = sandbox::media::sample("talk.mp4").unwrap().bytes;
    assert!(result.starts_with(input));
    let note = Provenance::find_all(&result).remove(0);
    assert_eq!(
        (note.vendor, note.work.as_str()),
        (Sync, body["id"].as_str().unwrap())
    );
    assert_eq!(note.input_sha256, hex::encode(Sha256::digest(input)));

    let download = sync(
        &sandbox,
        "GET",
        &format!("{}/download", path.replace("generate", "generations")),
    );
    assert_eq!(
        download.send().await.unwrap().text().await.unwrap(),
        done["outputUrl"].as_str().unwrap()
    );
}

#[tokio::test]
async fn a_missing_or_wrong_key_is_401_and_the_catalogue_is_open() {
    let sandbox = start(|_| {}).await;
    let url = |path: &str| format!("{}{path}", sandbox.endpoints().sync);
    let client = reqwest::Client::new();
    let body = generate(&sandbox, "x").to_string();
    let missing = client
        .post(url("/v2/generate"))
        .body(body.clone())
        .send()
        .await
        .unwrap();
    assert_eq!(missing.status(), 401);
    let wrong = client
        .post(url("/v2/generate"))
        .header("x-api-key", "no")
        .body(body)
        .send()
        .await
        .unwrap();
    assert_eq!(wrong.status(), 401);
    assert_eq!(wrong.json::<Value>().await.unwrap()["statusCode"], 401);
    assert_eq!(
        client
            .get(url("/v2/generations"))
            .send()
            .await
            .unwrap()
            .status(),
        401
    );
    assert_eq!(
        client.get(url("/v2/errors")).send().await.unwrap().status(),
        200
    );
    assert_eq!(sandbox.truth().paid(Sync), 0);
}

#[tokio::test]
async fn one_key_pays_once_and_no_key_pays_each_time() {
    let sandbox = start(|_| {}).await;
    let body = generate(&sandbox, "x");
    let (first, original) = create(&sandbox, Some("k.1_~-"), &body).await;
    let (again, replay) = create(&sandbox, Some("k.1_~-"), &body).await;
    assert_eq!((first, again), (201, 201));
    assert_eq!(original["id"], replay["id"]);
    sandbox.change_settings(|settings| settings.sync.replay_status = 200);
    assert_eq!(create(&sandbox, Some("k.1_~-"), &body).await.0, 200);
    assert_eq!(sandbox.truth().paid(Sync), 1);

    let (status, conflict) = create(&sandbox, Some("k.1_~-"), &generate(&sandbox, "y")).await;
    assert_eq!(
        (status, &conflict["errorCode"]),
        (409, &json!("IDEMPOTENCY_CONFLICT"))
    );
    assert_ne!(
        create(&sandbox, Some("K.1_~-"), &body).await.1["id"],
        original["id"],
        "case-sensitive"
    );
    assert_eq!(sandbox.truth().paid(Sync), 2);
    create(&sandbox, None, &body).await;
    create(&sandbox, None, &body).await;
    assert_eq!(sandbox.truth().paid(Sync), 4);
    let duplicates = sandbox.truth().duplicates(Sync);
    let by_marker = duplicates
        .iter()
        .find(|duplicate| duplicate.by == "marker")
        .unwrap();
    assert_eq!((by_marker.value.as_str(), by_marker.works.len()), ("x", 4));
}

#[tokio::test]
async fn malformed_idempotency_keys_are_refused() {
    let sandbox = start(|_| {}).await;
    let body = generate(&sandbox, "x");
    for key in ["", "a b", "a/b", &"k".repeat(129)] {
        let (status, answer) = create(&sandbox, Some(key), &body).await;
        assert_eq!(
            (status, &answer["errorCode"]),
            (400, &json!("INVALID_IDEMPOTENCY_KEY")),
            "{key:?}"
        );
    }
    let twice = sync(&sandbox, "POST", "/v2/generate")
        .header("Idempotency-Key", "a")
        .header("Idempotency-Key", "b");
    assert_eq!(
        twice.body(body.to_string()).send().await.unwrap().status(),
        400
    );
    assert_eq!(sandbox.truth().paid(Sync), 0);
    assert_eq!(create(&sandbox, Some(&"k".repeat(128)), &body).await.0, 201);
}

#[tokio::test]
async fn many_copies_of_one_key_at_once_pay_once() {
    let sandbox = start(|_| {}).await;
    let body = generate(&sandbox, "x");
    let copies =
        futures::future::join_all((0..20).map(|_| create(&sandbox, Some("k"), &body))).await;
    assert_eq!(sandbox.truth().paid(Sync), 1);
    let id = &sandbox.truth().works(Sync)[0].id;
    for (status, answer) in copies {
        let replayed = status == 201 && answer["id"] == id.as_str();
        assert!(
            replayed || answer["errorCode"] == "IDEMPOTENCY_IN_PROGRESS",
            "{status} {answer}"
        );
    }
}

#[tokio::test]
async fn the_request_schema_is_enforced() {
    let sandbox = start(|_| {}).await;
    let base = generate(&sandbox, "x");
    let changed = |pointer: &str, value: Value| {
        let mut body = base.clone();
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        match body.pointer_mut(parent).unwrap() {
            Value::Object(object) => drop(object.insert(key.into(), value)),
            other => other[key.parse::<usize>().unwrap()] = value,
        }
        body
    };
    let cases = [
        changed("/segments/0/label", json!("intro")),
        changed("/segments/0/audioInput/endTime", Value::Null),
        changed("/segments/0/audioInput/refId", json!("a2")),
        changed("/segments/0/endTime", json!(0.0)),
        changed("/input/0/url", json!("ftp://host/file")),
        changed("/input/0/url", Value::Null),
        changed("/input/1", json!({"type": "video", "url": "https://a/b"})),
        changed("/input", json!([])),
        changed("/model", Value::Null),
        changed("/outputFileName", json!("a b")),
        changed("/projectId", json!("not-a-uuid")),
        changed("/webhookUrl", json!("hook")),
        changed("/options/sync_mode", json!("fast")),
        changed("/options/temperature", json!(2)),
        changed("/unknown", json!(1)),
    ];
    for body in cases {
        let (status, answer) = create(&sandbox, Some("k"), &body).await;
        assert_eq!(status, 400, "{body} -> {answer}");
    }
    let twice = json!([base["input"][0], base["input"][1], base["input"][1]]);
    assert_eq!(
        create(&sandbox, Some("k"), &changed("/input", twice))
            .await
            .0,
        400,
        "refId names two inputs"
    );
    assert_eq!(sandbox.truth().paid(Sync), 0);
    assert_eq!(
        create(&sandbox, Some("k"), &base).await.0,
        201,
        "a refused body does not use the key up"
    );
}

#[tokio::test]
async fn an_input_that_cannot_be_fetched_fails_the_generation() {
    let sandbox = start(|_| {}).await;
    for (index, name) in [(0, "missing.mp4"), (1, "missing.wav")] {
        let mut body = generate(&sandbox, name.split('.').next().unwrap());
        body["input"][index]["url"] = sample_url(&sandbox, name).into();
        let id = create(&sandbox, None, &body).await.1["id"]
            .as_str()
            .unwrap()
            .to_owned();
        settle(&sandbox, Sync).await;
        let failed = sync_get(&sandbox, &format!("/v2/generate/{id}")).await;
        assert_eq!(failed["status"], "FAILED");
        assert_eq!(failed["errorCode"], "generation_input_video_inaccessible");
        assert_eq!(failed["outputUrl"], Value::Null);
    }
}

#[tokio::test]
async fn limits_answer_429() {
    let sandbox = start(|settings| {
        settings.sync.plan_slots = Some(1);
        settings.sync.process_ms = (1500, 1500);
    })
    .await;
    let body = generate(&sandbox, "x");
    assert_eq!(create(&sandbox, Some("k1"), &body).await.0, 201);
    let (status, full) = create(&sandbox, Some("k2"), &body).await;
    assert_eq!(
        (status, &full["errorCode"]),
        (429, &json!("concurrency_limit_reached"))
    );
    settle(&sandbox, Sync).await;
    assert_eq!(
        create(&sandbox, Some("k2"), &body).await.0,
        201,
        "same key, once a slot is free"
    );

    sandbox.reset();
    sandbox.change_settings(|settings| settings.sync.rate_limit_per_minute = Some(2));
    sandbox.change_settings(|settings| settings.sync.plan_slots = None);
    assert_eq!(create(&sandbox, None, &body).await.0, 201);
    assert_eq!(create(&sandbox, None, &body).await.0, 201);
    let (status, limited) = create(&sandbox, None, &body).await;
    assert_eq!(
        (status, &limited["errorCode"]),
        (429, &json!("rate_limit_exceeded"))
    );
    assert_eq!(sandbox.truth().paid(Sync), 2);
}

#[tokio::test]
async fn the_webhook_is_signed_and_sent_once() {
    let sandbox = start(|_| {}).await;
    const FAILED: &str = "HTTP/1.1 500 No\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    let receiver = Receiver::start(&[FAILED, OK]).await;
    let mut body = generate(&sandbox, "x");
    body["webhookUrl"] = receiver.url.clone().into();
    create(&sandbox, None, &body).await;
    let call = receiver.wait(1).await.remove(0);
    let generation: Value = serde_json::from_str(&call.body).unwrap();
    assert_eq!(generation["status"], "COMPLETED");
    let signature = call.header("sync-signature").unwrap();
    let (time, mac) = signature
        .strip_prefix("t=")
        .unwrap()
        .split_once(",v1=")
        .unwrap();
    let expected = hmac_hex(
        &sandbox.credentials().sync_webhook_secret,
        &format!("{time}.{}", call.body),
    );
    assert_eq!(mac, expected);
    // A second generation's webhook shows that nothing was repeated in between.
    create(&sandbox, None, &body).await;
    assert_eq!(receiver.wait(2).await.len(), 2);
    assert_eq!(sandbox.truth().works(Sync)[0].callbacks.len(), 1);
}

fn hmac_hex(secret: &str, message: &str) -> String {
    use hmac::{KeyInit, Mac};
    let mut mac = hmac::Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
    mac.update(message.as_bytes());
    hex::encode(mac.finalize().into_bytes())
}
