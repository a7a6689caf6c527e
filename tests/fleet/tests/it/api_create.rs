//! `POST /v1/jobs`: one job per Idempotency-Key, and nothing stored by a request that is refused.

use fleet::{Fleet, Kind};
use futures::future::try_join_all;
use reqwest::header::{CONTENT_TYPE, LOCATION};
use reqwest::{Method, StatusCode};
use sandbox::SandboxConfig;
use sandbox::media::sample;
use serde_json::{Value, json};
use shared::storage::Storage;

use crate::api::{Answer, Producer, stored};
use crate::sql::execute;

async fn put(storage: &Storage, key: &str, bytes: &'static [u8]) -> anyhow::Result<String> {
    storage.put(key, "video/mp4", bytes.into()).await?;
    Ok(format!("s3://{}/{key}", storage.bucket()))
}

/// The same JSON with the keys of every object in the opposite order, and spaced.
fn reordered(request: &Value) -> String {
    fn reverse(value: &Value) -> Value {
        match value {
            Value::Array(items) => items.iter().map(reverse).collect(),
            Value::Object(map) => {
                let entries = map.iter().rev();
                Value::Object(entries.map(|(k, v)| (k.clone(), reverse(v))).collect())
            }
            other => other.clone(),
        }
    }
    format!("\n{:#}\n", reverse(request))
}

fn assert_is(answer: &Answer, status: StatusCode, id: &str) {
    assert_eq!((answer.status, answer.id()), (status, id));
    assert_eq!(answer.headers[LOCATION], format!("/v1/jobs/{id}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_request_finds_the_job_it_made() -> anyhow::Result<()> {
    fleet::run(SandboxConfig::default(), async |fleet| {
        let producer = Producer::start(fleet, &fleet.environment).await?;
        let mut request = fleet.media.request(Kind::Both, 0);
        let video = sample("talk.mp4").unwrap();
        request["video_url"] = put(&fleet.storage, "mine/v.mp4", video.bytes).await?.into();

        let first = producer.send(producer.post_with_key(&request, "k")).await?;
        let id = first.id().to_owned();
        assert_is(&first, StatusCode::CREATED, &id);
        let fields = |field: &str| first.json[field].clone();
        assert_eq!(fields("user_id"), request["user_id"]);
        assert_eq!(fields("display_name"), request["display_name"]);
        assert_eq!(fields("original_filename"), "v.mp4");
        assert_eq!(fields("status"), "queued");
        assert_eq!(fields("stage")["stage"], "lipsync.submit");
        let location = first.headers[LOCATION].to_str()?;
        assert_eq!(producer.get(location).await?.id(), id);

        let repeat =
            async |request: &Value| producer.send(producer.post_with_key(request, "k")).await;
        assert_is(&repeat(&request).await?, StatusCode::OK, &id);
        let same = producer
            .request(Method::POST, "/v1/jobs")
            .header(CONTENT_TYPE, "application/json; charset=utf-8")
            .header("idempotency-key", "k")
            .body(reordered(&request));
        assert_is(&producer.send(same).await?, StatusCode::OK, &id);
        fleet.storage.delete("mine/v.mp4").await?;
        assert_is(&repeat(&request).await?, StatusCode::OK, &id);
        assert_eq!(stored(fleet).await?, [1, 1, 1, 1]);

        let mut other = fleet.media.request(Kind::Both, 0);
        let sent = producer.post_with_key(&other, "k");
        let taken = producer
            .refused(sent, 409, "idempotency-key-reused")
            .await?;
        assert_eq!(taken.json["job_id"], id);
        assert!(taken.json["detail"].as_str().unwrap().contains(&id));
        assert_eq!(stored(fleet).await?, [1, 1, 1, 1]);

        // A key belongs to one user, and without a key every request is a new one.
        other["user_id"] = json!("00000000-0000-0000-0000-000000000099");
        producer
            .created(producer.post_with_key(&other, "k"))
            .await?;
        for _ in 0..2 {
            producer.created(producer.post(&other)).await?;
        }
        assert_eq!(stored(fleet).await?, [4, 4, 4, 2]);

        let delete = format!("DELETE FROM video_jobs WHERE id = '{id}'");
        execute(&fleet.database.url, &delete).await?;
        let sent = producer.post_with_key(&request, "k");
        let gone = producer.refused(sent, 410, "job-gone").await?;
        assert_eq!(gone.json["job_id"], id);
        producer.stop().await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn parallel_requests_under_one_key_make_one_job() -> anyhow::Result<()> {
    fleet::run(SandboxConfig::default(), async |fleet| {
        let producer = Producer::start(fleet, &fleet.environment).await?;
        let same = fleet.media.request(Kind::Lipsync, 0);
        let posts = (0..24).map(|_| producer.send(producer.post_with_key(&same, "same")));
        let answers = try_join_all(posts).await?;
        let created = |answer: &&Answer| answer.status == StatusCode::CREATED;
        assert_eq!(answers.iter().filter(created).count(), 1);
        for answer in &answers {
            let status = answer.status;
            assert!(matches!(status, StatusCode::CREATED | StatusCode::OK));
            assert_is(answer, status, answers[0].id());
        }
        assert_eq!(stored(fleet).await?, [1, 1, 1, 1]);

        let rivals: Vec<_> = (0..12)
            .map(|number| {
                let mut request = same.clone();
                request["display_name"] = format!("rival {number}").into();
                producer.post_with_key(&request, "rivals")
            })
            .collect();
        let answers = try_join_all(rivals.into_iter().map(|rival| producer.send(rival))).await?;
        let winner = answers.iter().find(created).unwrap().id();
        for answer in &answers {
            match answer.status {
                StatusCode::CREATED => assert_eq!(answer.id(), winner),
                status => {
                    assert_eq!(status, StatusCode::CONFLICT);
                    assert_eq!(answer.json["job_id"], winner);
                }
            }
        }
        assert_eq!(stored(fleet).await?, [2, 2, 2, 2]);
        producer.stop().await
    })
    .await
}

/// A valid request with some of its values replaced.
fn changed(fleet: &Fleet, changes: Value) -> Value {
    let mut request = fleet.media.request(Kind::Both, 0);
    for (pointer, value) in changes.as_object().unwrap() {
        *request.pointer_mut(pointer).unwrap() = value.clone();
    }
    request
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_request_stores_nothing_and_names_every_fault() -> anyhow::Result<()> {
    fleet::run(SandboxConfig::default(), async |fleet| {
        let producer = Producer::start(fleet, &fleet.environment).await?;
        let empty = put(&fleet.storage, "mine/empty.mp4", b"").await?;
        let missing = format!("s3://{}/no.mp4", fleet.storage.bucket());
        let missing_by_url = fleet.storage.object_url("no.mp4");
        let foreign = "s3://theirs/v.mp4";
        let mut form = changed(
            fleet,
            json!({ "/user_id": "me", "/display_name": "a\0b", "/effects/0/region/width": "wide",
                "/segments/1/startTime": 0.5 }),
        );
        form["colour"] = json!("red");
        for (request, faults) in [
            (
                changed(fleet, json!({ "/video_url": missing })),
                &[("/video_url", "unmatched")][..],
            ),
            (
                changed(fleet, json!({ "/video_url": missing_by_url })),
                &[("/video_url", "unmatched")],
            ),
            (
                changed(
                    fleet,
                    json!({ "/video_url": missing, "/audio/first": missing, "/audio/second": empty }),
                ),
                &[
                    ("/video_url", "unmatched"),
                    ("/audio/first", "unmatched"),
                    ("/audio/second", "empty"),
                ],
            ),
            (
                changed(fleet, json!({ "/video_url": foreign, "/audio/first": foreign })),
                &[("/video_url", "malformed"), ("/audio/first", "malformed")],
            ),
            (
                form,
                &[
                    ("/colour", "unknown_field"),
                    ("/user_id", "malformed"),
                    ("/display_name", "malformed"),
                    ("/segments/1/startTime", "order"),
                    ("/effects/0/region/width", "wrong_type"),
                ],
            ),
            (json!([]), &[("", "wrong_type")]),
        ] {
            let sent = producer.post_with_key(&request, "free");
            let problem = producer.refused(sent, 422, "invalid-request").await?;
            assert_eq!(problem.faults(), faults, "{request}");
        }
        let good = fleet.media.request(Kind::Both, 0);
        for key in ["", "a b", &"k".repeat(256)] {
            let sent = producer.post_with_key(&good, key);
            producer
                .refused(sent, 400, "invalid-idempotency-key")
                .await?;
        }
        refuse_unreadable(&producer, &good).await?;
        assert_eq!(stored(fleet).await?, [0; 4]);
        producer
            .created(producer.post_with_key(&good, "free"))
            .await?;
        producer.stop().await
    })
    .await
}

/// Whatever stands in a request, it is stored as it is or refused with a reason; PostgreSQL and the object store included.
#[tokio::test(flavor = "multi_thread")]
async fn hostile_values_are_stored_or_refused() -> anyhow::Result<()> {
    fleet::run(SandboxConfig::default(), async |fleet| {
        let producer = Producer::start(fleet, &fleet.environment).await?;
        let bucket = fleet.storage.bucket();
        let values = [
            json!(null),
            json!(true),
            json!([[[[[]]]]]),
            json!({ "": { "\u{0}": null } }),
            json!(-0.0),
            json!(1e308),
            json!(5e-324),
            json!(u64::MAX),
            json!("\u{0}"),
            json!("\\u0000"),
            json!("\u{202e}\u{feff}\u{ffff}\u{10ffff}"),
            json!("'; DROP TABLE submissions; --"),
            json!("x".repeat(5000)),
            json!("https://a.example/%00.mp4"),
            json!(format!("https://a.example/{}", "\u{10ffff}".repeat(160))),
            json!(format!("s3://{bucket}/%00\u{ffff}%ff.mp4")),
            json!(format!("s3://{bucket}/{}", "\u{10ffff}".repeat(255))),
        ];
        let pointers = [
            "/user_id",
            "/display_name",
            "/video_url",
            "/audio",
            "/audio/first",
            "/segments",
            "/segments/0",
            "/segments/0/startTime",
            "/segments/0/endTime",
            "/segments/0/audioInput/refId",
            "/effects",
            "/effects/0/type",
            "/effects/0/endTime",
            "/effects/0/region/x",
            "/effects/0/region/width",
        ];
        let mut seen = [0, 0];
        for pointer in pointers {
            for value in &values {
                let answer = producer
                    .send(producer.post(&changed(fleet, json!({ pointer: value }))))
                    .await?;
                match answer.status {
                    StatusCode::CREATED => seen[0] += 1,
                    StatusCode::UNPROCESSABLE_ENTITY => seen[1] += 1,
                    other => panic!("{pointer} {value}: {other} {:?}", answer.json),
                }
            }
        }
        assert!(seen[0] > 0 && seen[1] > seen[0], "{seen:?}");
        producer.stop().await
    })
    .await
}

/// What is refused before anybody looks at the fields.
async fn refuse_unreadable(producer: &Producer, good: &Value) -> anyhow::Result<()> {
    let json = "application/json";
    let deep = "[".repeat(10_000);
    let large = format!("{good}{}", " ".repeat(256 * 1024));
    let text = good.to_string();
    for (content_type, body, status, kind) in [
        ("text/plain", text.as_bytes(), 415, "unsupported-media-type"),
        (json, b"", 400, "malformed-body"),
        (json, &text.as_bytes()[1..], 400, "malformed-body"),
        (json, b"{\"user_id\":\"\xff\"}", 400, "malformed-body"),
        (json, deep.as_bytes(), 400, "malformed-body"),
        (json, large.as_bytes(), 413, "body-too-large"),
    ] {
        let sent = producer
            .request(Method::POST, "/v1/jobs")
            .header(CONTENT_TYPE, content_type)
            .body(body.to_vec());
        producer.refused(sent, status, kind).await?;
    }
    for (method, path, status, kind) in [
        (Method::POST, "/v1/videos", 404, "not-found"),
        (Method::POST, "/v1/jobs/", 404, "not-found"),
        (Method::PUT, "/v1/jobs", 405, "method-not-allowed"),
        (Method::DELETE, "/v1/jobs/1", 405, "method-not-allowed"),
    ] {
        let sent = producer.request(method, path).json(good);
        producer.refused(sent, status, kind).await?;
    }
    Ok(())
}

/// The table of the replaced application refers to its users.
#[tokio::test(flavor = "multi_thread")]
async fn a_user_the_application_does_not_know_is_a_fault_of_the_request() -> anyhow::Result<()> {
    fleet::run(SandboxConfig::default(), async |fleet| {
        let request = fleet.media.request(Kind::Both, 0);
        let users = "CREATE TABLE users (id uuid PRIMARY KEY); \
            ALTER TABLE video_jobs ADD FOREIGN KEY (user_id) REFERENCES users (id);";
        execute(&fleet.database.url, users).await?;
        let producer = Producer::start(fleet, &fleet.environment).await?;
        let sent = producer.post_with_key(&request, "k");
        let problem = producer.refused(sent, 422, "invalid-request").await?;
        assert_eq!(problem.faults(), [("/user_id", "unmatched")]);
        assert_eq!(stored(fleet).await?, [0; 4]);

        let user = format!("INSERT INTO users VALUES ({})", request["user_id"]);
        execute(&fleet.database.url, &user.replace('"', "'")).await?;
        producer
            .created(producer.post_with_key(&request, "k"))
            .await?;
        producer.stop().await
    })
    .await
}
