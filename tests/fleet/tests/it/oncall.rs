//! What an operator on call sees and does while a vendor refuses, and afterwards.

use std::time::Duration;

use fleet::{DEADLINE, Expectation, Fleet, Kind, Service, eventually};
use sandbox::{Fault, FaultRule, Operation, SandboxConfig, Vendor as Payee, When};
use serde_json::Value;
use shared::db::{FleetTimes, RunBy};
use shared::storage::{Container, Key};
use uuid::Uuid;

use crate::audit::SECOND_SUBMISSION;
use crate::command::producer;
use crate::sql::{execute, value};
use crate::unknowns::parked;

/// The next submission to Sync.so is answered so, before anything is accepted.
fn refuse(fleet: &Fleet, status: u16, error_code: Option<&str>) -> anyhow::Result<()> {
    let fault = Fault::Status {
        status,
        error_code: error_code.map(str::to_owned),
        body: None,
        when: When::Before,
    };
    let rule = FaultRule::new(Payee::Sync, Operation::Submit, fault).times(1);
    fleet.sandbox.faults().add(rule)?;
    Ok(())
}

/// A fleet that would wait for an hour, and a lip-sync job whose submission was refused.
async fn refused(fleet: &Fleet) -> anyhow::Result<(Expectation, Vec<Service>)> {
    let environment = (fleet.environment.clone())
        .with("VENDOR_PAUSE", "1h")
        .with("THROTTLE_SCHEDULE", "1h");
    let services = vec![
        Service::producer(&environment)?,
        Service::worker(&environment, "worker")?,
    ];
    let job = fleet.submit_kind(Kind::Lipsync, 0).await?;
    let answered = format!(
        "SELECT detail ->> 'answer' AS value FROM job_events WHERE job_id = '{}' ORDER BY id DESC LIMIT 1",
        job.job
    );
    eventually(DEADLINE, async || {
        let answer = value(&fleet.database.url, &answered).await?;
        anyhow::ensure!(answer.is_some(), "not refused yet");
        Ok(())
    })
    .await?;
    Ok((job, services))
}

async fn stopped(services: Vec<Service>) -> anyhow::Result<()> {
    for service in services {
        service.stop().await?;
    }
    Ok(())
}

/// Ends every pause of the account; nothing stops it then.
async fn resume_sync(fleet: &Fleet) -> anyhow::Result<()> {
    let args = [
        "vendors", "resume", "sync", "--reason", "mended", "--by", "ann", "--json",
    ];
    let shown = producer(&fleet.environment, &args).await?.json(0);
    assert!(shown.to_string().contains("\"refusal\":null"), "{shown}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_job_that_met_the_refusal_says_so_and_goes_on_with_the_account() -> anyhow::Result<()> {
    fleet::run(SandboxConfig::default(), async |fleet| {
        refuse(fleet, 401, None)?;
        let (job, services) = refused(fleet).await?;
        let id = job.job.to_string();
        let show = producer(&fleet.environment, &["jobs", "show", &id]).await?;
        show.said(0, "sync answered misconfigured: HTTP 401");
        show.said(0, "answer misconfigured");
        producer(&fleet.environment, &["jobs", "list"]).await?.said(0, "answered misconfigured");

        resume_sync(fleet).await?;
        fleet.books(&[job]).await?.assert_balanced();
        let trail = format!(
            "SELECT actor || ': ' || (detail ->> 'reason') AS value FROM job_events WHERE job_id = '{id}' AND kind = 'resumed'"
        );
        assert_eq!(value(&fleet.database.url, &trail).await?.as_deref(), Some("ann: mended"));
        let finished = producer(&fleet.environment, &["jobs", "resume", &id, "--reason", "r"]).await?;
        finished.said(1, "it is over; if it failed or was canceled");
        stopped(services).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn one_job_can_be_resumed_before_its_time() -> anyhow::Result<()> {
    fleet::run(SandboxConfig::default(), async |fleet| {
        let url = &fleet.database.url;
        let job = fleet.submit_kind(Kind::Lipsync, 0).await?;
        execute(url, "UPDATE job_stages SET due_at = now() + interval '1 hour', tries = 2").await?;
        let status = producer(&fleet.environment, &["status"]).await?;
        status.said(0, "1 job in lipsync.submit, tried again after errors");
        let id = job.job.to_string();
        let resume = ["jobs", "resume", &id, "--reason", "a test"];
        producer(&fleet.environment, &resume).await?.said(0, "due now");
        producer(&fleet.environment, &resume).await?.said(1, "it is due, or searched for");
        let services = vec![fleet.producer()?, fleet.workers(1)?.remove(0)];
        fleet.books(&[job]).await?.assert_balanced();
        stopped(services).await?;

        // The times of a search prove something.
        let (waiting, _) = parked(fleet, Kind::Inpaint, None).await?;
        let search = format!(
            "UPDATE job_stages SET stage = 'inpaint.reconcile', state = 'waiting', reason = NULL, due_at = now() + interval '1 hour' \
             WHERE job_id = '{}'",
            waiting.job
        );
        execute(url, &search).await?;
        let id = waiting.job.to_string();
        let resume = ["jobs", "resume", &id, "--reason", "a test"];
        producer(&fleet.environment, &resume).await?.said(1, "searched for");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_plan_is_no_unknown_outcome_to_decide() -> anyhow::Result<()> {
    fleet::run(SandboxConfig::default(), async |fleet| {
        refuse(fleet, 429, Some("concurrency_limit_reached"))?;
        let (job, services) = refused(fleet).await?;
        let says = async |args: &[&str], text: &str| {
            producer(&fleet.environment, args).await?.said(0, text);
            anyhow::Ok(())
        };
        says(
            &["status"],
            "0 of them with unknown outcome, 1 refused for now",
        )
        .await?;
        says(
            &["unknowns", "list"],
            "refused for now, sent again under its key at",
        )
        .await?;
        says(&["vendors"], "the cap of 1 in flight is the vendor's").await?;
        let query = "SELECT token::text AS value FROM submissions";
        let token = value(&fleet.database.url, query).await?.unwrap_or_default();
        let show = producer(&fleet.environment, &["unknowns", "show", &token]).await?;
        show.said(0, "Nobody has to act: the vendor refused it for now");
        show.said(0, &format!("0 times, under the key {token}"));
        assert!(!show.stdout.contains("source deleted"), "{show:?}");

        resume_sync(fleet).await?;
        fleet.books(&[job]).await?.assert_balanced();
        stopped(services).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_audit_of_a_list_that_shows_nothing_is_not_made() -> anyhow::Result<()> {
    fleet::run(SandboxConfig::default(), async |fleet| {
        let services = vec![fleet.producer()?, fleet.workers(1)?.remove(0)];
        let job = fleet.submit_kind(Kind::Inpaint, 0).await?;
        fleet.wait_for(std::slice::from_ref(&job)).await?;
        stopped(services).await?;
        let contains = String::new();
        let hidden = FaultRule::new(
            Payee::Ghostcut,
            Operation::List,
            Fault::DropItems { contains },
        );
        fleet.sandbox.faults().add(hidden)?;
        let audit = producer(&fleet.environment, &["audit"]).await?;
        audit.said(
            4,
            "shows none of the 1 works that the ledger has there: it proves nothing",
        );
        assert!(fleet.db.last_audit().await?.is_none(), "it allows nothing");
        fleet.sandbox.faults().clear();
        producer(&fleet.environment, &["audit"])
            .await?
            .said(0, "BOOKED");

        // Paid twice, dealt with at the vendor, and found no more.
        execute(&fleet.database.url, SECOND_SUBMISSION).await?;
        let found = producer(&fleet.environment, &["audit", "--json"])
            .await?
            .json(1);
        producer(&fleet.environment, &["status"])
            .await?
            .said(0, "PAID TWICE");
        let findings = |report: &Value| report["comparisons"][1]["findings"].clone();
        assert_eq!(findings(&found)[0]["kind"], "second_submission");
        let token = findings(&found)[0]["token"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        let known = [
            "audit",
            "--acknowledge",
            &token,
            "--reason",
            "refunded",
            "--by",
            "ann",
        ];
        // All of them or none.
        let nobody = Uuid::new_v4().to_string();
        let both = ["audit", "--acknowledge", &token, "--acknowledge", &nobody];
        let refused = producer(&fleet.environment, &both).await?;
        refused.said(3, &format!("finding about {nobody} that no repair can end"));
        let noted = "SELECT string_agg(actor || ' ' || reason, ', ' ORDER BY id) AS value FROM operator_events \
                     WHERE action = 'finding_acknowledged'";
        assert_eq!(value(&fleet.database.url, noted).await?, None);
        producer(&fleet.environment, &known)
            .await?
            .said(0, "1 acknowledged");
        let words = value(&fleet.database.url, noted).await?;
        assert_eq!(words.as_deref(), Some("ann refunded"));
        let found = producer(&fleet.environment, &["audit", "--json"])
            .await?
            .json(0);
        assert_eq!(findings(&found)[0]["acknowledged"], "ann: refunded");
        let status = producer(&fleet.environment, &["status"]).await?;
        status.said(0, "all dealt with");
        assert!(!status.stdout.contains("PAID TWICE"), "{status:?}");
        Ok(())
    })
    .await
}

/// The settings of whoever decides may be shorter than those that the fleet runs with.
#[tokio::test(flavor = "multi_thread")]
async fn a_decision_waits_as_long_as_the_fleet_would() -> anyhow::Result<()> {
    fleet::run(SandboxConfig::default(), async |fleet| {
        let url = &fleet.database.url;
        let key = Key::SubmissionSource {
            token: Uuid::new_v4(),
            container: Container::Mp4,
        };
        let key = key.to_string();
        fleet.storage.put(&key, "video/mp4", "source".into()).await?;
        let (_, token) = parked(fleet, Kind::Inpaint, Some(key)).await?;
        let past = "UPDATE submissions SET claimed_at = claimed_at - interval '2 hours', send_deadline = now() - interval '1 minute'";
        execute(url, past).await?;
        let hour = Duration::from_secs(3600);
        let times = FleetTimes {
            send_deadline: Duration::from_secs(45),
            sync_replay_window: hour,
            ghostcut_settle_time: hour,
        };
        fleet.db.record_times(RunBy::Worker, times, "worker").await?;
        let text = token.to_string();
        let shown = producer(&fleet.environment, &["unknowns", "show", &text]).await?;
        shown.said(0, "Somebody has to decide");
        shown.said(0, &format!("producer unknowns confirm-not-accepted {token}"));
        let confirm = ["unknowns", "confirm-not-accepted", &text, "--reason", "ticket 4711", "--by", "ann"];
        let early = producer(&fleet.environment, &confirm).await?;
        early.said(1, "too early: run this again at");
        early.said(1, "and a last time at");

        // Forced, it deletes the source and decides at once; both are in the trail with the reason.
        let forced = [&confirm[..], &["--force"]].concat();
        producer(&fleet.environment, &forced).await?.said(0, "pays for a new attempt");
        let trail = "SELECT string_agg((detail ->> 'action') || ' ' || (detail ->> 'reason') || ' ' || actor, ', ' ORDER BY id) AS value \
                     FROM job_events WHERE kind = 'operator'";
        let expected = "source_deleted ticket 4711 ann, confirm_not_accepted ticket 4711 ann";
        assert_eq!(value(url, trail).await?.as_deref(), Some(expected));
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_retry_would_cost_is_said_before() -> anyhow::Result<()> {
    fleet::run(SandboxConfig::default(), async |fleet| {
        let job = fleet.submit_kind(Kind::Inpaint, 0).await?.job;
        let failed = format!(
            "DELETE FROM job_stages; UPDATE video_jobs SET status = 'failed', error_code = 'vendor_failed'; \
             INSERT INTO submissions (token, job_id, vendor, account, attempt, state, request_body, request_sha256, vendor_task_id, \
                 work_state, send_deadline, cost_reserved, cost_charged) \
             VALUES (gen_random_uuid(), '{job}', 'ghostcut', 'default', 1, 'failed', '', sha256(''), '7', 'failed', \
                 clock_timestamp() + interval '1 s', 2.5, 0)"
        );
        execute(&fleet.database.url, &failed).await?;
        let run = async |args: &[&str]| producer(&fleet.environment, args).await;
        let preview = ["jobs", "retry", "--error-code", "vendor_failed", "--since", "1h", "--preview"];
        run(&preview).await?.said(0, "to be paid: 1 to ghostcut, by their last cost 2.50 points");
        run(&["jobs", "list", "--status", "failed"]).await?.said(0, "vendor_failed");
        run(&["status"]).await?.said(0, "1 job of the last 24 hours");
        run(&["jobs", "list", "--user", "nobody"]).await?.said(2, "must be a UUID");
        run(&["vendors", "pause", "snc", "--reason", "r"]).await?.said(2, "one of sync, ghostcut");
        let replay = ["dead-letters", "replay", "--class", "mistyped", "--reason", "r"];
        run(&replay).await?.said(1, "no open letter is like that");
        Ok(())
    })
    .await
}
