//! What operators are shown and told: costs, what stands and why, and mistakes in what they ask for.

use anyhow::Context as _;
use fleet::{Fleet, Kind};
use reqwest::Method;
use sandbox::SandboxConfig;
use serde_json::{Value, json};
use shared::db::{
    Candidate, Claim, Claimed, Db, Fact, JobPatch, MinutePoint, Move, MoveState, NewEvent, Pace,
    RestartOrder, Settlement,
};
use shared::domain::intake::NewJob;
use shared::domain::outcome::Reason;
use shared::domain::{JobStatus, LedgerState, Stage, Vendor};
use std::time::Duration;
use uuid::Uuid;

use crate::api::Producer;
use crate::command::{Ended, producer};
use crate::ledger::claim_of;
use crate::sql::{execute, value, with_database};
use crate::workers::present;

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
        let shown = producer(environment, &["jobs", "show", &job]).await?;
        shown.said(0, "no worker takes inpaint.submit");
        present(url).await?;
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
                    assert!(ours["held"]["sentence"].as_str().is_some_and(|held| held.contains(text)), "{ours}");
                    assert_eq!(others, [ours], "the other one is not due");
                }
                None => assert!(others.is_empty() && !shown.stdout.contains("\nheld"), "{shown:?}"),
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
        shows(Some("nothing new is sent to ghostcut/default: the day's budget is used up, until 2")).await?;
        status("stopped: budget until").await?;
        status("allowed, but not to these accounts").await?;
        let set = ["vendors", "set", "ghostcut", "--daily-budget", "none", "--max-in-flight", "1"];
        with_reason(fleet, &set).await?.said(0, "full");
        shows(Some("ghostcut/default: as many works as allowed are in flight")).await?;
        let set = ["vendors", "set", "ghostcut", "--max-in-flight", "none"];
        with_reason(fleet, &set).await?;
        shows(None).await?;

        let open = "UPDATE vendors SET open_kind = 'failures', opened_at = now(), open_reason = 'HTTP 500', \
                    open_until = '2101-02-03 04:05:06Z'";
        execute(url, open).await?;
        let circuit = "circuit until 2101-02-03 04:05:06 UTC: too many calls in a row went wrong: HTTP 500";
        shows(Some("ghostcut/default: too many calls in a row went wrong: HTTP 500, until 2101-02-03 04:05:06 UTC")).await?;
        status(circuit).await?;
        with_reason(fleet, &["vendors", "pause", "ghostcut"]).await?;
        shows(Some("ghostcut/default: paused by an operator: a test (ann), until somebody resumes it; behind it, the circuit is open")).await?;
        with_reason(fleet, &["vendors", "resume", "ghostcut"]).await?;
        shows(None).await?;

        let rate = "UPDATE vendors SET max_per_minute = 0.01, tokens = 0, refilled_at = now()";
        execute(url, rate).await?;
        shows(Some("ghostcut/default: as many requests as allowed were sent just now")).await?;
        status("held").await?;
        let floor = "UPDATE vendors SET max_per_minute = NULL, balance = 1, balance_floor = 2, balance_until = now() + interval '1 hour'";
        execute(url, floor).await?;
        shows(Some("ghostcut/default: the balance is below its floor")).await?;
        execute(url, "UPDATE vendors SET balance_floor = NULL").await?;
        shows(None).await?;

        // Another vendor's pause holds it not, the stop of all does.
        with_reason(fleet, &["vendors", "pause", "sync"]).await?;
        shows(None).await?;
        with_reason(fleet, &["stop-paid"]).await?.said(0, "are stopped");
        shows(Some("paid sends are stopped since")).await?;
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

/// A job that is dispatched in `inpaint.submit`, whose run fails or is given up as a worker settles it.
async fn failed(
    db: &Db,
    url: &str,
    kind: &'static str,
    known_better: bool,
) -> anyhow::Result<Uuid> {
    let request = json!({ "user_id": Uuid::from_u128(7), "video_url": "s3://ours/talk.mp4", "effects": [{ "type": "text",
        "startTime": 0, "endTime": 2, "region": { "x": 0.1, "y": 0.8, "width": 0.8, "height": 0.15 } }] });
    let new = NewJob::from_request(&request, 10, |_| true).map_err(|f| anyhow::anyhow!("{f:?}"))?;
    let job = Uuid::new_v4();
    db.create_job(job, &new, None, "test").await?;
    let picked = db
        .pick_due(Stage::InpaintSubmit, 10, 10, Duration::from_secs(60), None)
        .await?;
    let ours = picked.iter().find(|row| row.job_id == job);
    let epoch = ours.context("it is not picked")?.epoch;
    let state = match kind {
        "gave_up" => MoveState::Dead,
        _ => MoveState::Done,
    };
    let mut fact = None;
    if known_better {
        let claim = Claim {
            epoch,
            ..claim_of(job)
        };
        db.claim(&claim, b"{}").await?;
        let accepted = format!(
            "UPDATE submissions SET state = 'accepted', vendor_task_id = '{job}' WHERE job_id = '{job}'"
        );
        execute(url, &accepted).await?;
        // Late news of a request that the vendor has accepted by now.
        if kind == "failed" {
            fact = Some(Fact::new(claim.token, LedgerState::Rejected));
        }
    }
    let settlement = Settlement {
        job,
        stage: Stage::InpaintSubmit,
        epoch,
        actor: "w".to_owned(),
        fact,
        r#move: Some(Move {
            state,
            stage: None,
            delay_ms: 0,
            tries: None,
            reason: Some(Reason::InvalidResult.as_str()),
            from: &[],
        }),
        job_patch: Some(JobPatch {
            status: Some(JobStatus::Failed),
            ..JobPatch::default()
        }),
        event: Some(NewEvent {
            kind,
            detail: json!({}),
        }),
        signal: None,
    };
    db.settle(&settlement).await?;
    Ok(job)
}

/// What has happened has happened, whatever becomes of the jobs.
#[tokio::test(flavor = "multi_thread")]
async fn a_retry_does_not_change_what_the_last_hour_was() -> anyhow::Result<()> {
    with_database(true, async |url, db| {
        let counted = async || {
            let points = db.series(60).await?;
            let sum = |of: fn(&MinutePoint) -> i64| points.iter().map(of).sum::<i64>();
            anyhow::Ok((sum(|point| point.failed), sum(|point| point.canceled)))
        };
        assert_eq!(counted().await?, (0, 0));
        let (failed_one, dead) = (
            failed(db, url, "failed", false).await?,
            failed(db, url, "gave_up", false).await?,
        );
        let canceled = Uuid::new_v4();
        let rows = format!(
            "INSERT INTO video_jobs (id, user_id, original_filename, status) VALUES ('{canceled}', '{canceled}', 'a', 'queued')"
        );
        execute(url, &rows).await?;
        db.cancel_jobs(&[canceled], "ann", "test").await?;
        assert_eq!(counted().await?, (2, 1));

        // Runs that failed without ending their jobs: the ledger knew more, and something may be paid for.
        failed(db, url, "failed", true).await?;
        failed(db, url, "gave_up", true).await?;
        let unfinished = "SELECT count(*)::text AS value FROM video_jobs v JOIN job_stages st ON st.job_id = v.id \
                          WHERE v.status <> 'failed' AND st.state = 'waiting'";
        assert_eq!(value(url, unfinished).await?.as_deref(), Some("2"));
        assert_eq!(counted().await?, (2, 1));

        let order = RestartOrder {
            by: "ann".to_owned(),
            reason: "test".to_owned(),
            operation: None,
another_attempt: true,
        };
        for job in [failed_one, dead] {
            let candidate = Candidate {
                job,
                letter_epoch: None,
            };
            let plans = db
                .restart(&order, &[candidate], &mut Pace::default())
                .await?;
            assert!(plans[0].to.is_ok(), "{plans:?}");
        }
        let failed = "SELECT count(*)::text AS value FROM video_jobs WHERE status = 'failed'";
        assert_eq!(value(url, failed).await?.as_deref(), Some("0"));
        assert_eq!(counted().await?, (2, 1), "as before the retry");
        Ok(())
    })
    .await
}
