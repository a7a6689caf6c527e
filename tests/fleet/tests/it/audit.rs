//! `producer audit`: what the vendors have and the ledger does not, found, told and booked.

use chrono::TimeDelta;
use fleet::{DEADLINE, Fleet, Kind, Process, Service, eventually};
use producer::booking::{About, found};
use reqwest::{Method, StatusCode};
use sandbox::{Fault, FaultRule, Operation, SandboxConfig, Vendor as Payee, When};
use serde_json::{Value, json};
use shared::db::{Db, LedgerVerdict, MetadataVerdict, MoveVerdict, NewAudit, PaidTwice, Rebuild};
use shared::domain::answer::{Work, WorkState};
use shared::domain::audit::{Booked, Comparison, Finding, FindingKind, Window, compare};
use shared::domain::search::Marker;
use shared::domain::{LedgerState, Vendor};
use uuid::Uuid;

use crate::api::Producer;
use crate::command::producer;
use crate::ledger::{claim_of, job, stage_of, state_of};
use crate::sql::{execute, value, with_database};

/// Books a second work at GhostCut for a job, paid for and succeeded.
pub(crate) const SECOND_SUBMISSION: &str = "ALTER TABLE submissions DISABLE TRIGGER ALL; \
                     INSERT INTO submissions (token, job_id, vendor, account, attempt, state, request_body, request_sha256, \
                         vendor_task_id, work_state, send_deadline, settled_at) \
                     SELECT gen_random_uuid(), job_id, vendor, account, 2, 'duplicate', '', sha256(''), '4711', 'succeeded', \
                         clock_timestamp() + interval '1 s', now() FROM submissions WHERE vendor = 'ghostcut' AND state = 'succeeded' LIMIT 1; \
                     ALTER TABLE submissions ENABLE TRIGGER ALL";

/// Deletes submissions behind the guards, as a restored backup would.
pub(crate) async fn forget(url: &str, which: &str) -> anyhow::Result<()> {
    let forget = format!(
        "ALTER TABLE submissions DISABLE TRIGGER ALL; DELETE FROM submissions WHERE {which}; \
         ALTER TABLE submissions ENABLE TRIGGER ALL;"
    );
    execute(url, &forget).await
}

/// The findings of a report, as `vendor kind`.
fn findings(report: &Value) -> Vec<String> {
    let vendors = report["comparisons"].as_array().unwrap().iter();
    let lines = vendors.flat_map(|vendor| {
        let findings = vendor["findings"].as_array().unwrap().iter();
        let name = |word: &Value| word.as_str().unwrap().to_owned();
        findings
            .map(move |finding| format!("{} {}", name(&vendor["vendor"]), name(&finding["kind"])))
    });
    lines.collect()
}

/// A job of each kind, completed.
async fn completed(fleet: &Fleet) -> anyhow::Result<Vec<fleet::Expectation>> {
    let services = [fleet.workers(1)?, vec![fleet.producer()?]];
    let mut jobs = Vec::new();
    for (number, kind) in Kind::ALL.into_iter().enumerate() {
        jobs.push(fleet.submit_kind(kind, number).await?);
    }
    fleet.wait_for(&jobs).await?;
    for service in services.into_iter().flatten() {
        service.stop().await?;
    }
    Ok(jobs)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_paid_and_forgotten_is_found_and_booked() -> anyhow::Result<()> {
    fleet::run(SandboxConfig::default(), async |fleet| {
        let (url, environment) = (&fleet.database.url, &fleet.environment);
        let jobs = completed(fleet).await?;
        let audit = async |args: &[&str]| producer(environment, &[&["audit", "--json"], args].concat()).await;
        let clean = audit(&[]).await?.json(0);
        assert_eq!((findings(&clean), &clean["comparisons"][0]["listed"]), (vec![], &json!(2)));
        // What another account of ours has sent is not forgotten.
        let other = environment.clone().with("SYNC_ACCOUNT", "other");
        let other = producer(&other, &["audit", "--json"]).await?.json(0);
        assert_eq!(findings(&other), [""; 0]);

        // One forgotten, one believed to be absent, one paid for a job that is gone.
        forget(url, &format!("vendor = 'sync' AND job_id = '{}'", jobs[0].job)).await?;
        let believed = format!(
            "ALTER TABLE submissions DISABLE TRIGGER guard_ledger; \
             UPDATE submissions SET state = 'absent', vendor_task_id = NULL WHERE vendor = 'ghostcut' AND job_id = '{}'; \
             ALTER TABLE submissions ENABLE TRIGGER guard_ledger;",
            jobs[0].job
        );
        execute(url, &believed).await?;
        forget(url, &format!("job_id = '{}'", jobs[2].job)).await?;
        execute(url, &format!("DELETE FROM video_jobs WHERE id = '{}'", jobs[2].job)).await?;
        let expected = ["sync orphan", "ghostcut orphan", "ghostcut unsettled"];
        let same = |report: &Value| {
            let mut found = findings(report);
            found.sort();
            let mut expected = expected.map(str::to_owned).to_vec();
            expected.sort();
            assert_eq!(found, expected, "{report:#}");
        };
        same(&audit(&["--since", "1h"]).await?.json(1));
        // Whatever else was forgotten would be paid for again.
        producer(environment, &["status"]).await?.said(0, "which is not in the ledger: the database forgot commits");
        let back_to = "SELECT ((value ->> 'audit_since')::timestamptz < (SELECT min(claimed_at) FROM submissions))::text AS value \
                       FROM settings WHERE name = 'stop_paid'";
        assert_eq!(value(url, back_to).await?.as_deref(), Some("true"), "an audit has to reach what is gone");
        let table = producer(environment, &["audit"]).await?;
        table.said(1, "orphan");
        table.said(1, "unsettled");
        same(&audit(&["--repair", "--reason", "a test"]).await?.json(1));
        assert_eq!(findings(&audit(&[]).await?.json(0)), [""; 0], "all is booked");
        let gone = format!("SELECT state AS value FROM submissions WHERE job_id = '{}'", jobs[2].job);
        assert_eq!(value(url, &gone).await?.as_deref(), Some("accepted"), "followed to its end by the sweep");
        let who = "SELECT actor || ': ' || reason AS value FROM audits WHERE repair";
        assert!(value(url, who).await?.unwrap().ends_with(": a test"));

        // A vendor that does not answer proves nothing.
        let away = environment.clone().with("GHOSTCUT_API_URL", "http://127.0.0.1:1");
        producer(&away, &["audit"]).await?.said(4, "ghostcut cannot be audited");
        Ok(())
    })
    .await
}

/// What `producer audit` does, over HTTP: look, repair, and say that something is dealt with.
#[tokio::test(flavor = "multi_thread")]
async fn an_audit_is_asked_for_and_a_finding_acknowledged_over_http() -> anyhow::Result<()> {
    fleet::run(SandboxConfig::default(), async |fleet| {
        let url = &fleet.database.url;
        let jobs = completed(fleet).await?;
        forget(
            url,
            &format!("vendor = 'sync' AND job_id = '{}'", jobs[0].job),
        )
        .await?;
        let api = Producer::start(fleet, &fleet.environment).await?;
        let post = |path: &str, body: Value| api.request(Method::POST, path).json(&body);
        let audited = async |repair: bool| {
            let body = json!({ "reason": "a test", "by": "ann", "repair": repair });
            let begun = api.send(post("/v1/audits", body)).await?;
            anyhow::ensure!(begun.status == StatusCode::ACCEPTED, "{}", begun.json);
            let path = begun.headers["location"].to_str()?.to_owned();
            let ended = eventually(DEADLINE, async || {
                let audit = api.get(&path).await?.json;
                anyhow::ensure!(!audit["finished_at"].is_null(), "{audit}");
                Ok(audit)
            })
            .await?;
            assert_eq!(
                (&ended["actor"], &ended["reason"]),
                (&json!("ann"), &json!("a test"))
            );
            assert_eq!(
                (&ended["repair"], &ended["error"]),
                (&json!(repair), &Value::Null)
            );
            anyhow::Ok(ended)
        };
        let found = audited(false).await?;
        assert_eq!(
            (&found["findings"], &found["open"]),
            (&json!(1), &json!(1)),
            "{found}"
        );
        let repaired = audited(true).await?;
        assert_eq!(
            (&repaired["findings"], &repaired["open"]),
            (&json!(1), &json!(0)),
            "{repaired}"
        );
        assert_eq!(audited(false).await?["findings"], 0);

        // What a repair ends is not ended by words; what none can end is.
        let acknowledge = |finding: &Value| {
            let token = finding["token"].as_str().unwrap();
            let body = json!({ "reason": "refunded", "by": "ann" });
            post(&format!("/v1/findings/{token}/acknowledge"), body)
        };
        let orphan = &found["comparisons"][0]["findings"][0];
        api.refused(acknowledge(orphan), 404, "finding-not-found")
            .await?;
        execute(url, SECOND_SUBMISSION).await?;
        let twice = audited(false).await?;
        let second = &twice["comparisons"][1]["findings"][0];
        assert_eq!(second["kind"], "second_submission", "{twice}");
        let ever =
            async || anyhow::Ok(api.get("/v1/overview").await?.json["duplicates_ever"][1].clone());
        let open = ever().await?;
        assert_eq!(
            (&open["open"], &open["jobs"]),
            (&json!(1), &json!([second["job"]])),
            "{open}"
        );
        let noted = api.send(acknowledge(second)).await?;
        assert_eq!(
            (noted.status, &noted.json["findings"]),
            (StatusCode::OK, &json!(1))
        );
        let known = audited(false).await?;
        assert_eq!(
            known["comparisons"][1]["findings"][0]["acknowledged"], "ann: refunded",
            "{known}"
        );
        let ended = ever().await?;
        assert_eq!(
            (&ended["submissions"], &ended["open"], &ended["jobs"]),
            (&json!(1), &json!(0), &json!([])),
            "{ended}"
        );
        let nothing = format!("/v1/findings/{}/acknowledge", Uuid::new_v4());
        api.refused(
            post(&nothing, json!({ "reason": "r" })),
            404,
            "finding-not-found",
        )
        .await?;
        let wrong = json!({ "reason": " ", "since": "2101-02-03T04:05:06Z" });
        let problem = api
            .refused(post("/v1/audits", wrong), 422, "invalid-request")
            .await?
            .json;
        let paths: Vec<_> = problem["errors"]
            .as_array()
            .unwrap()
            .iter()
            .map(|fault| &fault["path"])
            .collect();
        assert_eq!(paths, ["/reason", "/since"], "{problem}");
        api.stop().await
    })
    .await
}

/// Whoever asks again and again while a vendor is slow is told to wait; what was taken is made.
#[tokio::test(flavor = "multi_thread")]
async fn no_more_audits_are_taken_than_can_wait() -> anyhow::Result<()> {
    fleet::run(SandboxConfig::default(), async |fleet| {
        let slow = Fault::Delay {
            ms: 1_000,
            when: When::Before,
        };
        let slow =
            fleet
                .sandbox
                .faults()
                .add(FaultRule::new(Payee::Sync, Operation::List, slow))?;
        let api = Producer::start(fleet, &fleet.environment).await?;
        let ask = || {
            api.request(Method::POST, "/v1/audits")
                .json(&json!({ "reason": "a test" }))
        };
        let mut taken = 0;
        let refused = loop {
            let answer = api.send(ask()).await?;
            if answer.status != StatusCode::ACCEPTED {
                break answer;
            }
            taken += 1;
            anyhow::ensure!(taken < 10, "nobody is told to wait");
        };
        assert_eq!(refused.status, StatusCode::CONFLICT, "{}", refused.json);
        assert_eq!(
            refused.json["type"],
            "urn:ghostfleet:problem:audits-waiting"
        );
        fleet.sandbox.faults().remove(slow);
        eventually(DEADLINE, async || {
            let audits = api.get("/v1/audits").await?.json["audits"].clone();
            let ended = |audit: &&Value| audit["finished_at"].is_string();
            let made = audits
                .as_array()
                .into_iter()
                .flatten()
                .filter(ended)
                .count();
            anyhow::ensure!(made >= taken, "{made} of {taken}: {audits}");
            Ok(())
        })
        .await?;
        api.stop().await
    })
    .await
}

/// Whoever only looks at the last minutes has not found that all is well.
#[tokio::test(flavor = "multi_thread")]
async fn a_short_audit_does_not_take_the_place_of_a_longer_one() -> anyhow::Result<()> {
    with_database(true, async |url, db| {
        let audited = async |by: &str, reason: &str, ago: TimeDelta| {
            let since = db.now().await? - ago;
            let audit = NewAudit {
                since,
                by,
                reason,
                repair: false,
            };
            let id = db.begin_audit(&audit, None).await?.unwrap();
            db.finish_audit(id, &[]).await?;
            anyhow::Ok((id, since))
        };
        let day = TimeDelta::days(1);
        let last = async || anyhow::Ok(db.last_audit().await?.map(|audit| audit.id));
        let (early, _) = audited("ann", "look", TimeDelta::minutes(1)).await?;
        assert_eq!(last().await?, Some(early), "there is no other");
        let (scheduled, since) = audited("audit", "scheduled", day).await?;
        audited("ann", "look", TimeDelta::minutes(1)).await?;
        assert_eq!(last().await?, Some(scheduled));
        let (by_hand, _) = audited("ann", "look", day).await?;
        assert_eq!(last().await?, Some(by_hand), "it looked back as far");

        // One that failed since is the newest word until a good one is made.
        let failed = async || {
            let last = db.last_audit().await?;
            anyhow::Ok(db.failed_audit(last.as_ref()).await?.map(|audit| audit.id))
        };
        assert_eq!(failed().await?, None);
        let (by, reason, repair) = ("ann", "look", false);
        let audit = NewAudit {
            since: db.now().await? - day,
            by,
            reason,
            repair,
        };
        let broken = db.begin_audit(&audit, None).await?.unwrap();
        db.fail_audit(broken, "the list is away", &[]).await?;
        audited("ann", "look", TimeDelta::minutes(1)).await?;
        assert_eq!(failed().await?, Some(broken));
        audited("ann", "look", day).await?;
        assert_eq!(failed().await?, None);

        // One whose process was killed ends after an hour; one that was only slow counts when it is finished.
        let slow = db.begin_audit(&audit, None).await?.unwrap();
        assert_eq!(db.fail_cut_off_audits().await?, 0);
        execute(url, &format!("UPDATE audits SET started_at = started_at - interval '61 minutes' WHERE id = {slow}")).await?;
        assert_eq!((db.fail_cut_off_audits().await?, db.fail_cut_off_audits().await?), (1, 0));
        assert_eq!(failed().await?, Some(slow));
        db.finish_audit(slow, &[]).await?;
        assert_eq!((failed().await?, db.audit(slow).await?.unwrap().0.error), (None, None));

        let next = |since| NewAudit {
            since,
            by: "audit",
            reason: "scheduled",
            repair: false,
        };
        let hour = Some(std::time::Duration::from_secs(3600));
        let due = db.begin_audit(&next(since), hour).await?;
        assert_eq!(due, None, "one that looked back as far was made");
        let due = db.begin_audit(&next(since - day), hour).await?;
        assert!(due.is_some(), "none has looked back so far");
        Ok(())
    })
    .await
}

/// What was paid for in vain stays open until somebody has dealt with it, however short the audits are that follow, and an
/// acknowledgement ends what it is about and nothing else.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_paid_in_vain_is_open_until_it_is_dealt_with() -> anyhow::Result<()> {
    with_database(true, async |url, db| {
        let (token, job) = (Uuid::new_v4(), Uuid::new_v4());
        let finding = |kind, task: &str| Finding {
            kind, task_id: Some(task.to_owned()), project_id: None, token, job, attempt: 1, at: None, detail: String::new(),
            twice: false, repair: None, repaired: false, acknowledged: None,
        };
        let audited = async |findings: Vec<Finding>| {
            let audit = NewAudit { since: db.now().await? - TimeDelta::days(1), by: "ann", reason: "look", repair: false };
            let id = db.begin_audit(&audit, None).await?.unwrap();
            let comparison = Comparison { vendor: Vendor::Ghostcut, listed: 1, booked: 1, foreign: 0, unproved: 0, expected: 1,
                foreign_ids: Vec::new(), findings };
            db.finish_audit(id, &[comparison]).await?;
            anyhow::Ok(id)
        };
        let open = async || {
            let last = db.last_audit().await?;
            let found = db.open_findings(&last).await?;
            let mut kinds: Vec<_> = found.iter().map(|(_, one)| format!("{} {}", one.kind, one.task_id.as_deref().unwrap())).collect();
            kinds.sort();
            anyhow::Ok(kinds)
        };
        let first = audited(vec![finding(FindingKind::SecondWork, "7"), finding(FindingKind::Vanished, "6")]).await?;
        assert_eq!(open().await?, ["second_work 7", "vanished 6"]);
        audited(Vec::new()).await?;
        assert_eq!(open().await?, ["second_work 7"], "what a list did not show it may show by now");
        assert_eq!(db.acknowledge_findings(&[token], "ann", "refunded").await?.findings, 2);
        assert_eq!(open().await?, [""; 0]);
        let (_, shown) = db.audit(first).await?.unwrap();
        assert_eq!(shown[0].findings[0].acknowledged.as_deref(), Some("ann: refunded"), "at once, also where it was found");
        audited(vec![finding(FindingKind::SecondWork, "8")]).await?;
        assert_eq!(open().await?, ["second_work 8"], "another work of the same submission");

        // The ledger's own count, too.
        let ever = async || anyhow::Ok(db.duplicates_ever().await?.into_iter().map(|row| row.open).sum::<i64>());
        let second = format!(
            "INSERT INTO submissions (token, job_id, vendor, account, attempt, state, request_body, request_sha256, send_deadline) \
                 VALUES ('{token}', '{job}', 'ghostcut', 'default', 1, 'absent', '', sha256(''), now() + interval '1 s'); \
             INSERT INTO job_events (job_id, kind, actor, token, detail) VALUES ('{job}', 'second_work', 'w', '{token}', '{{\"task_id\": \"9\"}}')"
        );
        execute(url, &second).await?;
        assert_eq!(ever().await?, 1, "what was acknowledged before was another one");
        let works = async || {
            let works = db.paid_twice(token).await?.into_iter();
            let told = |work: PaidTwice| format!("{} {}", work.task_id.unwrap(), work.dealt_with.as_deref().unwrap_or("open"));
            anyhow::Ok(works.map(told).collect::<Vec<_>>())
        };
        assert_eq!(works().await?, ["7 ann: refunded", "8 open", "9 open"], "found by audits and by the fleet itself");
        db.acknowledge_findings(&[token], "ann", "refunded too").await?;
        assert_eq!(ever().await?, 0);
        assert_eq!(works().await?, ["7 ann: refunded too", "8 ann: refunded too", "9 ann: refunded too"]);

        // One that took the place of a work which failed is no duplicate any more; it was paid for all the same.
        let promoted = second.replace("second_work", "duplicate").replace(&token.to_string(), &job.to_string()).replace("'default', 1", "'default', 2");
        execute(url, &promoted).await?;
        assert_eq!(ever().await?, 1);
        assert_eq!(db.acknowledge_findings(&[job], "ann", "both were needed").await?.findings, 1);
        assert_eq!(ever().await?, 0, "who is paged for it can end it");
        Ok(())
    })
    .await
}

/// What the audit calls repairable is what the ledger takes; the rest must not keep paid sends stopped for ever.
#[tokio::test(flavor = "multi_thread")]
async fn only_what_the_ledger_takes_counts_as_repairable() -> anyhow::Result<()> {
    with_database(true, async |url, db| {
        use LedgerState as L;
        let since = db.now().await? - TimeDelta::days(1);
        let window = Window {
            since,
            now: since + TimeDelta::days(1),
            lag: TimeDelta::minutes(15),
        };
        for state in [L::Claimed, L::Unknown, L::Absent, L::NotSent, L::Rejected] {
            let marker = Marker {
                job: Uuid::new_v4(),
                attempt: 1,
                token: Uuid::new_v4(),
            };
            let booked = Booked {
                token: marker.token,
                job: marker.job,
                attempt: 1,
                state,
                task_id: None,
                project_id: None,
                imported: false,
                work_state: None,
                claimed_at: since,
                send_deadline: since,
            };
            let work = Work {
                name: Some(marker.to_string()),
                ..work("1")
            };
            let comparison = compare(Vendor::Ghostcut, &[booked], &[work], window);
            let repairable = comparison.findings[0].kind.repairable();
            let taken = format!("SELECT ledger_edge('{state}', 'accepted')::text AS value");
            let taken = value(url, &taken).await?.as_deref() == Some("true");
            assert_eq!(repairable, taken, "{state}");
            let audit = NewAudit {
                since,
                by: "test",
                reason: "test",
                repair: true,
            };
            let id = db.begin_audit(&audit, None).await?.unwrap();
            db.finish_audit(id, &[comparison]).await?;
            let open = db.last_audit().await?.unwrap().open;
            assert_eq!(open, i32::from(repairable), "{state}");
        }
        Ok(())
    })
    .await
}

/// What one vendor shows does not wait for the other's list; the audit as a whole is not made.
#[tokio::test(flavor = "multi_thread")]
async fn an_orphan_stops_paid_sends_although_the_other_vendors_list_is_away() -> anyhow::Result<()>
{
    fleet::run(SandboxConfig::default(), async |fleet| {
        let jobs = completed(fleet).await?;
        let both = jobs[0].job;
        forget(
            &fleet.database.url,
            &format!("vendor = 'ghostcut' AND job_id = '{both}'"),
        )
        .await?;
        let away = Fault::Status {
            status: 500,
            error_code: None,
            body: None,
            when: When::Before,
        };
        let away = FaultRule::new(Payee::Sync, Operation::List, away);
        fleet.sandbox.faults().add(away)?;
        let environment = fleet.environment.clone().with("AUDIT_INTERVAL", "1h");
        let auditor = Service::producer(&environment)?;
        let stop = eventually(DEADLINE, async || {
            let stop = fleet.db.paid_stop().await?;
            stop.ok_or_else(|| anyhow::anyhow!("paid sends go on"))
        })
        .await?;
        assert!(stop.reason.contains("ghostcut"), "{stop:?}");
        auditor.stop().await?;
        let failed = "SELECT count(*)::text AS value FROM audits WHERE error IS NOT NULL";
        assert_eq!(
            value(&fleet.database.url, failed).await?.as_deref(),
            Some("1")
        );
        producer(&environment, &["status"])
            .await?
            .said(0, "failed: sync cannot be audited");
        // What it found is kept all the same.
        let newest = fleet.db.audits(None, 1).await?.remove(0);
        let (_, compared) = fleet.db.audit(newest.id).await?.unwrap();
        let kinds: Vec<_> = compared
            .iter()
            .map(|one| (one.vendor, one.findings[0].kind))
            .collect();
        assert_eq!(kinds, [(Vendor::Ghostcut, FindingKind::Orphan)]);
        assert_eq!((newest.findings, newest.open), (1, 1));
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_scheduled_audit_shows_what_differs() -> anyhow::Result<()> {
    fleet::run(SandboxConfig::default(), async |fleet| {
        let jobs = completed(fleet).await?;
        forget(
            &fleet.database.url,
            &format!("vendor = 'ghostcut' AND job_id = '{}'", jobs[0].job),
        )
        .await?;
        let environment = fleet.environment.clone().with("AUDIT_INTERVAL", "1h");
        let mut auditor = Process::start(
            "auditor",
            "producer",
            ["serve"],
            environment.variables(),
            fleet.folder(),
        )?;
        let started = auditor.started().await?;
        let metrics = format!("http://{}/metrics", started["admin"].as_str().unwrap());
        eventually(DEADLINE, async || {
            let text = reqwest::get(&metrics).await?.text().await?;
            let has = |line: &str| text.lines().any(|found| found == line);
            anyhow::ensure!(
                has(r#"ghostfleet_audit_findings{kind="orphan",vendor="ghostcut"} 1"#),
                "{text}"
            );
            anyhow::ensure!(
                has(r#"ghostfleet_audit_findings{kind="orphan",vendor="sync"} 0"#),
                "{text}"
            );
            anyhow::ensure!(
                text.contains("ghostfleet_audit_last_success_timestamp_seconds 1"),
                "{text}"
            );
            Ok(())
        })
        .await?;
        let line = auditor
            .logged(DEADLINE, |line| {
                line["message"] == "the ledger and the vendor's list differ"
            })
            .await?;
        assert_eq!(line["kind"], "orphan");
        // What else was forgotten would be paid for again.
        eventually(DEADLINE, async || {
            anyhow::ensure!(fleet.db.paid_stopped().await?.is_some(), "paid sends go on");
            Ok(())
        })
        .await?;
        assert_eq!(fleet.sandbox.truth().paid(Payee::Ghostcut), 2);
        producer(&environment, &["status"])
            .await?
            .said(0, "1 finding, 1 to be repaired");
        Ok(())
    })
    .await
}

/// The work `task`, as a vendor's list shows it.
fn work(task: &str) -> Work {
    Work {
        task_id: task.to_owned(),
        project_id: Some("7".to_owned()),
        source_url: None,
        name: None,
        callback_url: None,
        created_at_ms: None,
        state: WorkState::Pending {
            progress: None,
            unrecognised: None,
        },
        charged: None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuilt_submission_is_the_jobs_own_or_a_duplicate() -> anyhow::Result<()> {
    with_database(true, async |url, db: &Db| {
        let rebuild = |job: Uuid, token: Uuid, task: &str| Rebuild {
            token,
            job,
            vendor: Vendor::Ghostcut,
            account: "default".to_owned(),
            attempt: 1,
            at: None,
            metadata: Some(json!({ "ghostcut_video_url": "https://b/s.mp4" })),
            settlement: found(
                About {
                    vendor: Vendor::Ghostcut,
                    job,
                    token,
                },
                &work(task),
                "test",
                "audited",
                json!({}),
            ),
        };
        let own = job(url, &json!({})).await?;
        let token = Uuid::new_v4();
        let verdict = db.rebuild(&rebuild(own, token, "1")).await?;
        assert_eq!(
            (verdict.ledger, verdict.metadata, verdict.r#move),
            (
                LedgerVerdict::Written,
                MetadataVerdict::Set,
                MoveVerdict::Moved
            )
        );
        assert_eq!(
            stage_of(url, own).await?.as_deref(),
            Some("inpaint.poll waiting")
        );
        assert_eq!(state_of(url, token).await?.as_deref(), Some("accepted"));
        let metadata =
            format!("SELECT job_metadata::text AS value FROM video_jobs WHERE id = '{own}'");
        assert_eq!(
            value(url, &metadata).await?.as_deref(),
            Some(r#"{"ghostcut_task_id": "1", "ghostcut_video_url": "https://b/s.mp4", "ghostcut_project_id": "7"}"#)
        );
        let again = db.rebuild(&rebuild(own, token, "1")).await?;
        assert_eq!(
            (again.ledger, again.r#move),
            (LedgerVerdict::Same, MoveVerdict::Lost),
            "harmless twice"
        );

        // Since the database forgot it, another attempt was made under the same number: this one was paid for too.
        let other = job(url, &json!({})).await?;
        db.claim(&claim_of(other), b"body").await?;
        let token = Uuid::new_v4();
        let verdict = db.rebuild(&rebuild(other, token, "2")).await?;
        assert_eq!(
            (verdict.ledger, verdict.r#move),
            (LedgerVerdict::Written, MoveVerdict::Lost)
        );
        assert_eq!(state_of(url, token).await?.as_deref(), Some("duplicate"));
        let attempt =
            format!("SELECT attempt::text AS value FROM submissions WHERE token = '{token}'");
        assert_eq!(value(url, &attempt).await?.as_deref(), Some("2"));

        let token = Uuid::new_v4();
        let verdict = db.rebuild(&rebuild(Uuid::new_v4(), token, "3")).await?;
        assert_eq!(
            (verdict.metadata, verdict.r#move),
            (MetadataVerdict::Gone, MoveVerdict::Lost),
            "the job is gone"
        );
        assert_eq!(state_of(url, token).await?.as_deref(), Some("accepted"));
        Ok(())
    })
    .await
}
