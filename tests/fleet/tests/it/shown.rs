//! What operators are shown and told: costs, what stands and why, and mistakes in what they ask for.

use fleet::{Fleet, Kind};
use reqwest::Method;
use sandbox::SandboxConfig;
use serde_json::{Value, json};
use shared::db::{Claim, Claimed};
use shared::domain::{Stage, Vendor};
use std::time::Duration;

use crate::api::Producer;
use crate::command::{Ended, producer};
use crate::ledger::claim_of;
use crate::sql::{execute, value};

const WHY: [&str; 4] = ["--reason", "a test", "--by", "ann"];

/// Runs `producer` with these arguments and a reason.
async fn with_reason(fleet: &Fleet, args: &[&str]) -> anyhow::Result<Ended> {
    producer(&fleet.environment, &[args, &WHY].concat()).await
}

/// A job with a submission that is expected to cost 2.5.
async fn claimed(fleet: &Fleet) -> anyhow::Result<Claim> {
    let job = fleet.submit_kind(Kind::Inpaint, 0).await?.job;
    let lease = Duration::from_secs(600);
    let picked = fleet
        .db
        .pick_due(Stage::InpaintSubmit, 10, 10, lease, None)
        .await?;
    let claim = Claim {
        epoch: picked[0].epoch,
        cost_reserved: Some(2.5),
        ..claim_of(job)
    };
    let claimed = fleet.db.claim(&claim, b"{}").await?;
    anyhow::ensure!(matches!(claimed, Claimed::Claimed { .. }), "{claimed:?}");
    Ok(claim)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_shown_with_what_it_cost() -> anyhow::Result<()> {
    fleet::run(SandboxConfig::default(), async |fleet| {
        let claim = claimed(fleet).await?;
        let ended = "UPDATE submissions SET cost_charged = 1.75, cost_wasted = 0.625";
        execute(&fleet.database.url, ended).await?;
        let id = claim.job.to_string();
        let costs = |job: &Value| {
            let line = &job["submissions"][0];
            ["cost_reserved", "cost_charged", "cost_wasted"].map(|key| line[key].clone())
        };
        let expected = [json!(2.5), json!(1.75), json!(0.625)];
        let show = ["jobs", "show", &id];
        let shown = producer(&fleet.environment, &[&show[..], &["--json"]].concat()).await?;
        assert_eq!(costs(&shown.json(0)), expected);
        let shown = producer(&fleet.environment, &show).await?;
        for text in ["RESERVED", "2.5", "CHARGED", "1.75", "WASTED", "0.625"] {
            shown.said(0, text);
        }
        let api = Producer::start(fleet, &fleet.environment).await?;
        let document = api.get(&format!("/v1/jobs/{id}")).await?;
        assert_eq!(costs(&document.json), expected);
        api.stop().await
    })
    .await
}

/// Everything that may hold back a job that is due, one after the other.
#[tokio::test(flavor = "multi_thread")]
async fn it_is_shown_why_a_due_job_is_held() -> anyhow::Result<()> {
    fleet::run(SandboxConfig::default(), async |fleet| {
        let (url, environment) = (&fleet.database.url, &fleet.environment);
        claimed(fleet).await?;
        let job = fleet.submit_kind(Kind::Inpaint, 0).await?.job.to_string();
        let shows = async |text: Option<&str>| {
            let shown = producer(environment, &["jobs", "show", &job]).await?;
            let listed = producer(environment, &["jobs", "list"]).await?;
            let json = producer(environment, &["jobs", "list", "--json"]).await?.json(0);
            let jobs = json["jobs"].as_array().unwrap();
            let ours = jobs.iter().find(|line| line["id"] == job.as_str()).unwrap();
            let others: Vec<_> = jobs.iter().filter(|line| !line["held"].is_null()).collect();
            match text {
                Some(text) => {
                    shown.said(0, text);
                    listed.said(0, text);
                    assert!(ours["held"].as_str().is_some_and(|held| held.contains(text)), "{ours}");
                    assert_eq!(others, [ours], "the other one is not due");
                }
                None => assert!(others.is_empty() && !shown.stdout.contains("held"), "{shown:?}"),
            }
            anyhow::Ok(())
        };
        let status = async |text: &str| {
            producer(environment, &["status"]).await?.said(0, text);
            anyhow::Ok(())
        };
        shows(None).await?;
        status("allowed").await?;

        // Spent to the last: nothing that costs nothing is sent either.
        let set = ["vendors", "set", "ghostcut", "--daily-budget", "2.5"];
        with_reason(fleet, &set).await?.said(0, "budget until");
        shows(Some("held: nothing new is sent to ghostcut/default: budget until")).await?;
        status("stopped: budget until").await?;
        status("allowed, but not to these accounts").await?;
        let set = ["vendors", "set", "ghostcut", "--daily-budget", "none", "--max-in-flight", "1"];
        with_reason(fleet, &set).await?.said(0, "full");
        shows(Some("ghostcut/default: full")).await?;
        let set = ["vendors", "set", "ghostcut", "--max-in-flight", "none"];
        with_reason(fleet, &set).await?;
        shows(None).await?;

        let open = "UPDATE vendors SET open_kind = 'failures', opened_at = now(), open_reason = 'HTTP 500', \
                    open_until = '2101-02-03 04:05:06Z'";
        execute(url, open).await?;
        let circuit = "circuit until 2101-02-03 04:05:06 UTC: HTTP 500";
        shows(Some(circuit)).await?;
        status(circuit).await?;
        with_reason(fleet, &["vendors", "pause", "ghostcut"]).await?;
        shows(Some("ghostcut/default: manual until resumed: a test (ann)")).await?;
        with_reason(fleet, &["vendors", "resume", "ghostcut"]).await?;
        shows(None).await?;

        // Another vendor's pause holds it not, the stop of all does.
        with_reason(fleet, &["vendors", "pause", "sync"]).await?;
        shows(None).await?;
        with_reason(fleet, &["stop-paid"]).await?.said(0, "are stopped");
        shows(Some("held: paid sends are stopped since")).await?;
        shows(Some("by ann: a test")).await?;
        status("STOPPED since").await?;

        let again = ["stop-paid", "--reason", "another", "--by", "bob"];
        let again = producer(environment, &again).await?;
        again.said(0, "were stopped already, since");
        again.said(0, "by ann: a test; that reason stays");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_an_account_that_there_is_not_is_refused() -> anyhow::Result<()> {
    fleet::run(SandboxConfig::default(), async |fleet| {
        let accounts = async || {
            let query = "SELECT string_agg(vendor || '/' || account, ' ' ORDER BY vendor, account) AS value FROM vendors";
            value(&fleet.database.url, query).await
        };
        for command in [&["pause"][..], &["resume"], &["set", "--burst", "2"]] {
            let typo = [&["vendors", command[0], "sync", "--account", "typo"], &command[1..]].concat();
            let refused = with_reason(fleet, &typo).await?;
            refused.said(3, "there is no account `typo` of sync; known: default");
        }
        assert_eq!(accounts().await?, None);
        fleet.db.ensure_vendor(Vendor::Sync, "studio").await?;
        // The default is no account of this fleet.
        let refused = with_reason(fleet, &["vendors", "pause", "sync"]).await?;
        refused.said(3, "there is no account `default` of sync; known: studio");
        let paused = ["vendors", "pause", "sync", "--account", "studio"];
        with_reason(fleet, &paused).await?.said(0, "manual until resumed");
        assert_eq!(accounts().await?.as_deref(), Some("sync/studio"));

        let floor = ["vendors", "set", "sync", "--account", "studio", "--balance-floor", "10"];
        let refused = with_reason(fleet, &floor).await?;
        refused.said(2, "--balance-floor: sync does not tell its balance");
        Ok(())
    })
    .await
}

/// Whoever names a letter by its number means that one.
#[tokio::test(flavor = "multi_thread")]
async fn letters_that_are_named_have_to_be_open() -> anyhow::Result<()> {
    fleet::run(SandboxConfig::default(), async |fleet| {
        let url = &fleet.database.url;
        let letters = "INSERT INTO dead_letters (reason, error, body) \
                       SELECT 'undecidable', 'e', convert_to(n::text, 'UTF8') FROM generate_series(1, 3) n; \
                       UPDATE dead_letters SET resolved_at = now(), resolution = 'discarded' WHERE id = 2";
        execute(url, letters).await?;
        let untouched = async || {
            let query = "SELECT (SELECT count(*) FROM dead_letters WHERE resolved_at IS NULL) || ' ' || \
                         (SELECT count(*) FROM operator_events) AS value";
            assert_eq!(value(url, query).await?.as_deref(), Some("2 0"));
            anyhow::Ok(())
        };
        for command in ["replay", "discard"] {
            let ids = ["dead-letters", command, "1", "2", "999"];
            let refused = with_reason(fleet, &ids).await?;
            refused.said(3, "nothing is done: dead letter 2 was discarded already, there is no dead letter 999");
        }
        let preview = producer(&fleet.environment, &["dead-letters", "preview", "999"]).await?;
        preview.said(3, "there is no dead letter 999");
        untouched().await?;
        let api = Producer::start(fleet, &fleet.environment).await?;
        for (path, more) in [("replays", json!({})), ("replays", json!({ "preview": true })), ("discards", json!({}))] {
            let post = |ids: Value| {
                let mut body = json!({ "reason": "r", "filter": { "ids": ids } });
                body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
                api.request(Method::POST, &format!("/v1/dead-letters/{path}")).json(&body)
            };
            let refused = api.refused(post(json!([1, 2, 999])), 404, "dead-letter-not-found").await?;
            assert_eq!(refused.json["detail"], "there is no dead letter 999");
            let refused = api.refused(post(json!([1, 2])), 409, "dead-letter-closed").await?;
            assert_eq!(refused.json["detail"], "dead letter 2 was discarded already");
        }
        untouched().await?;
        with_reason(fleet, &["dead-letters", "discard", "1", "3", "1"]).await?.said(0, "2 discarded");
        api.stop().await
    })
    .await
}
