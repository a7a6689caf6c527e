//! Whatever id an operator has leads to the job: over HTTP and by `producer find`.

use fleet::{Fleet, Kind};
use reqwest::StatusCode;
use sandbox::SandboxConfig;
use serde_json::Value;

use crate::api::Producer;
use crate::callback_evidence::Hand;
use crate::command::producer;

fn only<'a>(found: &'a Value, kind: &str) -> &'a Value {
    for other in ["jobs", "submissions", "users"] {
        let expected = usize::from(other == kind);
        let rows = found[other].as_array().unwrap();
        assert_eq!(rows.len(), expected, "{kind}: {found}");
    }
    &found[kind][0]
}

async fn found(fleet: &Fleet, api: &Producer, id: &str) -> anyhow::Result<Value> {
    let answer = api.get(&format!("/v1/find?id={id}")).await?;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.json);
    let nothing = ["jobs", "submissions", "users"]
        .iter()
        .all(|kind| answer.json[kind] == Value::Array(Vec::new()));
    let command = producer(&fleet.environment, &["find", id, "--json"]).await?;
    assert_eq!(command.json(if nothing { 3 } else { 0 }), answer.json);
    Ok(answer.json)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_found_by_every_id_that_belongs_to_it() -> anyhow::Result<()> {
    fleet::run(SandboxConfig::default(), async |fleet| {
        // Nothing moves: the works are sent by hand.
        let hand = Hand::new(fleet, &fleet.environment)?;
        let job = fleet.submit_kind(Kind::Inpaint, 0).await?.job;
        let other = fleet.submit_kind(Kind::Inpaint, 2).await?.job;
        let sent = hand.submit(job, 1).await?;
        hand.settle(&sent, shared::domain::LedgerState::Accepted, None)
            .await?;
        let api = Producer::start(fleet, &fleet.environment).await?;
        let user = api.get(&format!("/v1/jobs/{job}")).await?.json["user_id"].clone();
        let user = user.as_str().unwrap().to_owned();

        let whole = job.to_string();
        for id in [&whole, &whole[..8], &whole.to_uppercase()[..13]] {
            let shown = found(fleet, &api, id).await?;
            assert_eq!(only(&shown, "jobs")["id"], whole, "{id}");
        }
        let marker = format!("gf-{job}-1-{}", sent.token);
        for id in [&marker, &sent.token.to_string(), &sent.task_id] {
            let shown = found(fleet, &api, id).await?;
            let submission = only(&shown, "submissions");
            assert_eq!(
                (&submission["job_id"], &submission["state"]),
                (&whole.as_str().into(), &"accepted".into()),
                "{id}"
            );
        }
        assert_eq!(
            only(&found(fleet, &api, &user).await?, "users"),
            user.as_str()
        );
        for id in ["404404", &other.to_string()[..5], "clip"] {
            let shown = found(fleet, &api, id).await?;
            assert_eq!(shown["jobs"], Value::Array(Vec::new()), "{id}: {shown}");
        }
        let trace = whole.replace('-', "");
        for id in [&whole[..8], &sent.task_id, &sent.token.to_string(), &trace] {
            producer(&fleet.environment, &["jobs", "show", id])
                .await?
                .said(0, &format!("job        {whole}"));
        }
        producer(&fleet.environment, &["jobs", "show", "404404"])
            .await?
            .said(3, "there is no job 404404");
        let named = ["jobs", "list", "--text", "inpaint 2"];
        let named = producer(&fleet.environment, &named).await?;
        named.said(0, &other.to_string());
        assert!(!named.stdout.contains(&whole), "{named:?}");
        let table = producer(&fleet.environment, &["find", &sent.task_id]).await?;
        table.said(0, &whole);
        producer(&fleet.environment, &["find", "404404"])
            .await?
            .said(3, "nothing has this id");
        for wrong in ["/v1/find", "/v1/find?id="] {
            let problem = api.get(wrong).await?;
            assert_eq!(
                (problem.status, &problem.json["errors"][0]["path"]),
                (StatusCode::BAD_REQUEST, &"id".into())
            );
        }
        api.stop().await
    })
    .await
}
