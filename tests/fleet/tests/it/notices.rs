//! Submitters are told that their jobs have ended: signed, again until somebody takes it, and where the rules allow.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use fleet::{DEADLINE, Environment, Fleet, Kind, Receiver, Service, Told, eventually};
use hmac::{Hmac, KeyInit as _, Mac as _};
use reqwest::{Method, StatusCode};
use sandbox::SandboxConfig;
use serde_json::{Value, json};
use sha2::Sha256;
use uuid::Uuid;

use crate::api::Producer;
use crate::command::producer;
use crate::sql::{execute, value};

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const PREVIOUS: &str = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

fn telling(fleet: &Fleet) -> Environment {
    fleet
        .environment
        .clone()
        .with("NOTICE_SECRET", SECRET)
        .with("NOTICE_RETRY_SCHEDULE", "100ms*2")
}

/// A job whose end is told to this URL; nobody works on it.
async fn job(fleet: &Fleet, url: &str) -> anyhow::Result<Uuid> {
    let mut request = fleet.media.request(Kind::Lipsync, 0);
    request["callback_url"] = url.into();
    fleet.submit(&request).await
}

/// Ends a job as somebody with psql does.
async fn end(fleet: &Fleet, job: Uuid, set: &str) -> anyhow::Result<()> {
    let update = format!("UPDATE video_jobs SET {set} WHERE id = '{job}'");
    execute(&fleet.database.url, &update).await
}

async fn told(receiver: &Receiver, count: usize) -> anyhow::Result<Vec<Told>> {
    eventually(DEADLINE, async || {
        let told = receiver.told();
        anyhow::ensure!(told.len() >= count, "told {} times", told.len());
        Ok(told)
    })
    .await
}

/// Waits until the notices are, in the order of their jobs' ends, as wanted: `state tries`.
async fn stand(fleet: &Fleet, wanted: &str) -> anyhow::Result<()> {
    let query =
        "SELECT string_agg(state || ' ' || tries, ', ' ORDER BY created_at) AS value FROM notices";
    eventually(DEADLINE, async || {
        let found = value(&fleet.database.url, query).await?;
        anyhow::ensure!(found.as_deref() == Some(wanted), "{found:?}, not {wanted}");
        Ok(())
    })
    .await
}

/// What Standard Webhooks asks a receiver to compute.
fn expected(secret: &str, told: &Told) -> String {
    let key = STANDARD
        .decode(secret.trim_start_matches("whsec_"))
        .unwrap();
    let mut mac = Hmac::<Sha256>::new_from_slice(&key).unwrap();
    let (id, time) = (told.header("webhook-id"), told.header("webhook-timestamp"));
    mac.update(format!("{id}.{time}.").as_bytes());
    mac.update(&told.body);
    format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
}

#[tokio::test(flavor = "multi_thread")]
async fn every_end_is_told_once_and_signed() -> anyhow::Result<()> {
    fleet::run(SandboxConfig::default(), async |fleet| {
        let receiver = Receiver::start().await?;
        let environment = telling(fleet).with("NOTICE_SECRET_PREVIOUS", PREVIOUS);
        let producer = Service::producer(&environment)?;
        let workers = fleet.workers(1)?;
        let completed = job(fleet, &receiver.url("/end?key=1")).await?;
        // A job that asked for nothing.
        fleet.submit_kind(Kind::Lipsync, 1).await?;
        let first = told(&receiver, 1).await?.remove(0);
        let body = first.json()?;
        assert_eq!(body["id"], completed.to_string());
        assert_eq!((&body["type"], &body["status"]), (&json!("job.completed"), &json!("completed")));
        assert_eq!(body["result"], format!("/v1/jobs/{completed}/result"));
        assert_eq!(body["error"], Value::Null);
        assert_eq!(body["event_id"], first.header("webhook-id"));
        assert_eq!(first.path, "/end");
        let both = format!("{} {}", expected(SECRET, &first), expected(PREVIOUS, &first));
        assert_eq!(first.header("webhook-signature"), both);

        for worker in workers {
            worker.stop().await?;
        }
        let failed = job(fleet, &receiver.url("/end")).await?;
        let why = "error_code = 'rejected', error_message = 'cannot read https://a.example/v?X-Amz-Signature=SECRET'";
        end(fleet, failed, &format!("status = 'failed', {why}")).await?;
        let canceled = job(fleet, &receiver.url("/end")).await?;
        fleet.db.cancel_jobs(&[canceled], "test", "test").await?;
        // Ending again is the same end.
        fleet.db.cancel_jobs(&[canceled], "test", "test").await?;
        end(fleet, canceled, "status = 'canceled'").await?;
        stand(fleet, "delivered 1, delivered 1, delivered 1").await?;
        let told = receiver.told();
        assert_eq!(told.len(), 3);
        let of = |job: Uuid| {
            let bodies = told.iter().map(|told| told.json().unwrap());
            bodies.into_iter().find(|body| body["id"] == job.to_string()).unwrap()
        };
        assert_eq!(of(canceled)["type"], "job.canceled");
        let error = &of(failed)["error"];
        assert_eq!(error["code"], "rejected");
        assert_eq!(error["message"], "cannot read https://a.example/v?[redacted]");
        assert_eq!(of(failed)["result"], Value::Null);
        producer.stop().await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_takes_is_sent_again_given_up_and_replayed() -> anyhow::Result<()> {
    fleet::run(SandboxConfig::default(), async |fleet| {
        let receiver = Receiver::start().await?;
        let environment = telling(fleet);
        receiver.answer(StatusCode::FOUND);
        let api = Producer::start(fleet, &environment).await?;
        let job = job(fleet, &receiver.url("/end?key=SECRET")).await?;
        end(fleet, job, "status = 'canceled'").await?;
        stand(fleet, "given_up 3").await?;
        let told = receiver.told();
        assert_eq!(told.len(), 3);
        assert!(
            told.iter().all(|told| told.path == "/end"),
            "a redirect was followed"
        );
        let same = |told: &Told| (told.header("webhook-id").to_owned(), told.body.clone());
        assert!(told.iter().all(|one| same(one) == same(&told[0])));
        let id = told[0].header("webhook-id").to_owned();

        let list = producer(
            &environment,
            &["notices", "list", "--state", "given_up", "--json"],
        )
        .await?;
        let list = list.json(0);
        assert_eq!(list["notices"][0]["id"], id);
        let url = list["notices"][0]["url"].as_str().unwrap();
        assert!(url.ends_with("/end?[redacted]"), "{url}");
        producer(&environment, &["notices", "show", &id])
            .await?
            .said(0, "the receiver answered 302");

        receiver.answer(StatusCode::GONE);
        let replay = ["notices", "replay", &id, "--reason", "a test"];
        producer(&environment, &replay)
            .await?
            .said(0, "1 sent again");
        stand(fleet, "refused 4").await?;
        receiver.answer(StatusCode::NO_CONTENT);
        let path = format!("/v1/notices/{id}/replay");
        let replay = api
            .request(Method::POST, &path)
            .json(&json!({ "reason": "a test" }));
        let answer = api.send(replay).await?;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.json);
        stand(fleet, "delivered 5").await?;
        assert_eq!(receiver.told()[4].header("webhook-id"), id);
        let page = api
            .get(&format!("/v1/notices?job={job}&state=delivered&limit=1"))
            .await?;
        assert_eq!(page.json["notices"][0]["last_status"], 204);
        assert_eq!(page.json["next_cursor"], Value::Null);
        let nobody = format!("/v1/notices/{}", Uuid::nil());
        api.refused(api.request(Method::GET, &nobody), 404, "notice-not-found")
            .await?;
        let trail =
            "SELECT count(*)::text AS value FROM operator_events WHERE action = 'notice_replayed'";
        assert_eq!(
            value(&fleet.database.url, trail).await?.as_deref(),
            Some("2")
        );
        api.stop().await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_receiver_holds_up_nobody_else() -> anyhow::Result<()> {
    fleet::run(SandboxConfig::default(), async |fleet| {
        let (slow, quick) = (Receiver::start().await?, Receiver::start().await?);
        slow.hold(true);
        let environment = telling(fleet).with("NOTICE_PER_HOST", "2");
        let producers = [
            Service::producer(&environment)?,
            Service::producer(&environment)?,
        ];
        for _ in 0..5 {
            let job = job(fleet, &slow.url("/end")).await?;
            end(fleet, job, "status = 'canceled'").await?;
        }
        told(&slow, 2).await?;
        let job = job(fleet, &quick.url_by_name("/end")).await?;
        end(fleet, job, "status = 'canceled'").await?;
        told(&quick, 1).await?;
        assert_eq!(slow.told().len(), 2, "of two producers together");
        slow.hold(false);
        told(&slow, 5).await?;
        assert!(slow.most_at_work() <= 2, "{}", slow.most_at_work());
        for producer in producers {
            producer.stop().await?;
        }
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_is_not_public_is_not_asked() -> anyhow::Result<()> {
    fleet::run(SandboxConfig::default(), async |fleet| {
        let receiver = Receiver::start().await?;
        let environment = telling(fleet)
            .with("FETCH_ALLOW_PRIVATE", "false")
            .with("NOTICE_RETRY_SCHEDULE", "1h");
        let producer = Service::producer(&environment)?;
        for url in [receiver.url("/end"), receiver.url_by_name("/end")] {
            let job = job(fleet, &url).await?;
            end(fleet, job, "status = 'canceled'").await?;
        }
        stand(fleet, "waiting 1, waiting 1").await?;
        let why = "SELECT string_agg(coalesce(last_error, ''), '; ' ORDER BY created_at) AS value FROM notices";
        eventually(DEADLINE, async || {
            let why = value(&fleet.database.url, why).await?;
            let both = "the address is not public; the host has no public address";
            anyhow::ensure!(why.as_deref() == Some(both), "{why:?}");
            Ok(())
        })
        .await?;
        assert!(receiver.told().is_empty());
        producer.stop().await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_secret_no_job_may_ask_to_be_told() -> anyhow::Result<()> {
    fleet::run(SandboxConfig::default(), async |fleet| {
        let api = Producer::start(fleet, &fleet.environment).await?;
        let mut request = fleet.media.request(Kind::Lipsync, 0);
        request["callback_url"] = "https://hooks.example/end".into();
        let problem = api
            .refused(api.post(&request), 422, "invalid-request")
            .await?;
        assert_eq!(problem.faults(), [("/callback_url", "incomplete")]);
        let message = problem.json["errors"][0]["message"].as_str().unwrap();
        assert!(message.contains("NOTICE_SECRET"), "{message}");
        let weak = fleet.environment.clone().with("NOTICE_SECRET", "too-weak");
        let serve = producer(&weak, &["serve"]).await?;
        serve.said(2, "NOTICE_SECRET must be `whsec_`");
        assert!(!serve.stderr.contains("too-weak"), "{}", serve.stderr);
        api.stop().await
    })
    .await
}
