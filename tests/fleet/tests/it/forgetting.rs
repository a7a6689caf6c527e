//! A database that forgot commits: noticed, stopped, rebuilt from the vendors' lists, and nothing is paid twice.

use std::path::Path;
use std::time::Duration;

use fleet::{DEADLINE, Expectation, Kind, eventually};
use sandbox::{SandboxConfig, Vendor as Payee};
use serde_json::json;
use shared::db::{Claimed, Forgotten, NewAudit, NewEvent, PaidResumed, Seen};
use shared::domain::Vendor;
use shared::domain::audit::{Comparison, Finding, FindingKind};
use shared::domain::search::AROUND;
use uuid::Uuid;

use crate::command::producer;
use crate::ledger::{claim_of, claimed, job, resume, settlement};
use crate::sql::{execute, value, with_database};

/// A tool of PostgreSQL's client.
async fn tool(name: &str, args: &[&str]) -> anyhow::Result<()> {
    let output = tokio::process::Command::new(name)
        .args(args)
        .kill_on_drop(true)
        .output()
        .await?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(output.status.success(), "{name}: {stderr}");
    Ok(())
}

async fn dump(url: &str, file: &Path) -> anyhow::Result<()> {
    tool(
        "pg_dump",
        &["--no-owner", "-f", &file.to_string_lossy(), url],
    )
    .await
}

/// Restores a dump over a database that is in use, as an operator does who knows no better. A deadlock with the fleet is tried again.
async fn restore(url: &str, file: &Path) -> anyhow::Result<()> {
    let anew = "DROP SCHEMA public CASCADE; CREATE SCHEMA public";
    let file = file.to_string_lossy();
    let args = [
        "-X",
        "-q",
        "-1",
        "-v",
        "ON_ERROR_STOP=1",
        "-c",
        anew,
        "-f",
        &file,
        url,
    ];
    eventually(DEADLINE, async || tool("psql", &args).await).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restored_backup_stops_paid_sends_until_an_audit_has_rebuilt_the_ledger()
-> anyhow::Result<()> {
    fleet::run(SandboxConfig::default(), async |fleet| {
        let (url, environment) = (&fleet.database.url, &fleet.environment);
        let backup = fleet.folder().join("backup.sql");
        let mut services = vec![fleet.producer()?];
        let early = fleet.workers(1)?;
        let mut jobs: Vec<Expectation> = vec![fleet.submit_kind(Kind::Both, 0).await?];
        fleet.wait_for(&jobs).await?;
        for service in early {
            service.stop().await?;
        }
        // Six jobs that the backup has as not paid for.
        for number in 0..6 {
            jobs.push(fleet.submit_kind(Kind::ALL[number % 3], number).await?);
        }
        dump(url, &backup).await?;
        services.extend(fleet.workers(2)?);
        let truth = fleet.sandbox.truth();
        let paid = |truth: &sandbox::Truth| {
            truth.paid(Payee::Sync) == 5 && truth.paid(Payee::Ghostcut) >= 4
        };
        assert!(
            truth.wait_until(DEADLINE, paid).await,
            "too little was paid"
        );
        restore(url, &backup).await?;

        let stop = eventually(DEADLINE, async || {
            let stop = fleet.db.paid_stop().await?;
            stop.ok_or_else(|| anyhow::anyhow!("not stopped"))
        })
        .await?;
        assert!(stop.audit_first, "{stop:?}");
        let go = ["resume-paid", "--reason", "restored"];
        producer(environment, &go).await?.said(1, "producer audit");
        producer(environment, &["status"]).await?.said(0, "STOPPED");

        let repair = [
            "audit", "--since", "48h", "--repair", "--reason", "restored", "--json",
        ];
        let report = producer(environment, &repair).await?.json(1);
        let booked = |report: &serde_json::Value| {
            let vendors = report["comparisons"].as_array().unwrap().iter();
            let findings = vendors.flat_map(|vendor| vendor["findings"].as_array().unwrap());
            let orphans = findings.filter(|finding| finding["kind"] == "orphan");
            orphans
                .inspect(|finding| assert_eq!(finding["repaired"], true, "{finding}"))
                .count()
        };
        assert!(booked(&report) >= 6, "{report:#}");
        // What was on its way when the stop came has arrived, and is booked too.
        eventually(DEADLINE, async || {
            producer(environment, &repair).await?;
            let resumed = producer(environment, &go).await?;
            anyhow::ensure!(resumed.code == Some(0), "{resumed:?}");
            Ok(())
        })
        .await?;
        fleet.books(&jobs).await?.assert_balanced();
        let last = producer(environment, &["audit", "--since", "1h", "--json"])
            .await?
            .json(0);
        assert_eq!(last["differs"], false);
        for vendor in [Payee::Sync, Payee::Ghostcut] {
            let duplicates = truth.duplicates(vendor);
            let twice: Vec<_> = duplicates
                .iter()
                .filter(|duplicate| duplicate.by != "url")
                .collect();
            assert!(twice.is_empty(), "{twice:?}");
            assert_eq!(truth.paid(vendor), 5);
        }
        let trail = "SELECT string_agg(action, ' ' ORDER BY id) AS value FROM operator_events WHERE action <> 'audit_begun'";
        // A sign that knows since when may follow one that does not: stopped twice.
        let trail = value(url, trail).await?.unwrap_or_default();
        let stops = trail.strip_suffix(" paid_resumed").unwrap_or_default();
        assert!(
            ["paid_stopped", "paid_stopped paid_stopped"].contains(&stops),
            "{trail}"
        );
        for service in services {
            service.stop().await?;
        }
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_process_saw_committed_must_stay() -> anyhow::Result<()> {
    with_database(true, async |url, db| {
        // Nothing is remembered, nothing can be missed.
        assert_eq!(db.forgot_commits().await?, None);
        let (first, _) = claimed(url, db, &json!({})).await?;
        let mut settled = settlement(first, 1, None);
        let line = || Some(NewEvent { kind: "test", detail: json!({}) });
        settled.event = line();
        db.settle(&settled).await?;
        assert_eq!(db.forgot_commits().await?, None);
        let may_claim = async || -> anyhow::Result<Claimed> {
            Ok(db.claim(&claim_of(job(url, &json!({})).await?), b"body").await?)
        };
        assert!(matches!(may_claim().await?, Claimed::Claimed { .. }));

        // Only the line that the settle wrote is lost: nobody has looked since.
        settled.epoch = 2;
        settled.event = line();
        db.settle(&settled).await?;
        execute(url, "DELETE FROM job_events WHERE id = (SELECT max(id) FROM job_events)").await?;
        assert_eq!(may_claim().await?, Claimed::Forgot);
        // New lines do not cover it up.
        execute(url, "INSERT INTO job_events (job_id, kind, actor) SELECT gen_random_uuid(), 'test', 'test' FROM generate_series(1, 9)").await?;
        let sign = db.forgot_commits().await?.unwrap();
        assert_eq!(may_claim().await?, Claimed::Forgot);

        // An operator's own stop does not hide it.
        db.stop_paid("a test", "somebody").await?;
        db.check_continuity("a worker").await;
        let stop = db.paid_stop().await?.unwrap();
        assert!(stop.audit_first && stop.by == "a worker", "{stop:?}");
        db.check_continuity("another worker").await;
        assert_eq!(db.paid_stop().await?.unwrap().by, "a worker", "the first reason stays");

        assert!(matches!(resume(db).await?, PaidResumed::AuditFirst { .. }));
        let audited = async |findings: Vec<Finding>| -> anyhow::Result<()> {
            let audit = NewAudit { since: db.now().await? - chrono::TimeDelta::days(2), by: "test", reason: "test", repair: false };
            let id = db.begin_audit(&audit, None).await?.unwrap();
            assert!(matches!(resume(db).await?, PaidResumed::AuditFirst { .. } | PaidResumed::Unrepaired { .. }), "not finished");
            let comparison = Comparison { vendor: Vendor::Sync, listed: 0, booked: 0, foreign: 0, unproved: 0, expected: 0,
                foreign_ids: Vec::new(), findings };
            Ok(db.finish_audit(id, &[comparison]).await?)
        };
        let gone = orphan();
        audited(vec![gone.clone()]).await?;
        assert_eq!(resume(db).await?, PaidResumed::Unrepaired { findings: 1 });
        // A list that does not show it any more proves nothing: it has to be in the ledger.
        audited(Vec::new()).await?;
        assert_eq!(resume(db).await?, PaidResumed::Unrepaired { findings: 1 });
        let book = format!(
            "INSERT INTO submissions (token, job_id, vendor, account, attempt, state, request_body, request_sha256, send_deadline) \
             VALUES ('{}', '{}', 'sync', 'default', 1, 'absent', '', sha256(''), now() + interval '1 s')",
            gone.token, gone.job
        );
        execute(url, &book).await?;
        // An audit may have been made while requests were still on their way.
        let too_early = db.resume_paid("test", "test", Duration::from_secs(60), false).await?;
        assert!(matches!(too_early, PaidResumed::AuditFirst { .. }));
        assert_eq!(resume(db).await?, PaidResumed::Yes);
        assert_eq!(resume(db).await?, PaidResumed::NotStopped);
        // What was remembered from before counts no more.
        assert_eq!(db.forgot_commits().await?, None);
        assert!(matches!(may_claim().await?, Claimed::Claimed { .. }));
        // A process that looked before the resume, and only now gets to stopping paid sends, does not.
        assert!(!db.stop_paid_until_audit(&sign, "a slow worker").await?);
        assert!(db.paid_stop().await?.is_none());

        let sign = Forgotten { reason: "test".to_owned(), from: None, seen: db.last_resume().await? };
        assert!(db.stop_paid_until_audit(&sign, "test").await?);
        assert_eq!(db.resume_paid("test", "test", Duration::ZERO, true).await?, PaidResumed::Yes, "forced");
        Ok(())
    })
    .await
}

fn orphan() -> Finding {
    Finding {
        kind: FindingKind::Orphan,
        task_id: Some("1".to_owned()),
        project_id: None,
        token: Uuid::new_v4(),
        job: Uuid::new_v4(),
        attempt: 1,
        at: None,
        detail: String::new(),
        twice: false,
        repair: None,
        repaired: false,
        acknowledged: None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_cluster_or_timeline_is_noticed_until_somebody_resumes() -> anyhow::Result<()> {
    with_database(true, async |url, db| {
        assert_eq!(db.cluster_changed().await?, None, "the first one that asks names it");
        assert_eq!(db.cluster_changed().await?, None);
        for key in ["system", "timeline"] {
            let other = format!(
                "UPDATE settings SET value = value || '{{\"{key}\": \"1\"}}' WHERE name = 'database_cluster'"
            );
            execute(url, &other).await?;
            assert!(db.cluster_changed().await?.is_some(), "{key}");
            db.stop_paid("test", "test").await?;
            assert_eq!(resume(db).await?, PaidResumed::Yes);
            assert_eq!(db.cluster_changed().await?, None);
        }
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn of_several_producers_one_audits() -> anyhow::Result<()> {
    with_database(true, async |_, db| {
        let audit = NewAudit {
            since: db.now().await? - chrono::TimeDelta::days(2),
            by: "test",
            reason: "test",
            repair: false,
        };
        let hour = Some(Duration::from_secs(3600));
        let begun =
            futures::future::try_join_all((0..8).map(|_| db.begin_audit(&audit, hour))).await?;
        assert_eq!(begun.iter().flatten().count(), 1, "{begun:?}");
        assert!(
            db.begin_audit(&audit, Some(Duration::ZERO))
                .await?
                .is_some(),
            "due again"
        );
        assert!(db.last_audit().await?.is_none(), "none is finished");
        Ok(())
    })
    .await
}

/// A sign that knows since when commits are gone takes the place of one that does not, and the audit has to look back so far.
#[tokio::test(flavor = "multi_thread")]
async fn the_audit_has_to_look_back_to_what_is_gone() -> anyhow::Result<()> {
    with_database(true, async |url, db| {
        let sign = |from| Forgotten {
            reason: "test".to_owned(),
            from,
            seen: Seen::Now,
        };
        let by = async || anyhow::Ok(db.paid_stop().await?.map(|stop| stop.by));
        let from = db.now().await? - chrono::TimeDelta::days(9);
        assert!(db.stop_paid_until_audit(&sign(None), "vague").await?);
        assert!(!db.stop_paid_until_audit(&sign(None), "vague again").await?);
        assert!(
            db.stop_paid_until_audit(&sign(Some(from)), "exact").await?,
            "nobody knew since when"
        );
        assert!(
            !db.stop_paid_until_audit(&sign(Some(from)), "exact again")
                .await?
        );
        assert!(
            !db.stop_paid_until_audit(&sign(None), "vague at last")
                .await?
        );
        assert_eq!(by().await?.as_deref(), Some("exact"));

        let audited = async |since| {
            let audit = NewAudit {
                since,
                by: "test",
                reason: "test",
                repair: false,
            };
            let id = db.begin_audit(&audit, None).await?.unwrap();
            anyhow::Ok(db.finish_audit(id, &[]).await?)
        };
        // A day, which is enough where nothing is known, is not enough here; nor is the very time, because clocks differ.
        for since in [from + chrono::TimeDelta::days(7), from] {
            audited(since).await?;
            let PaidResumed::AuditFirst { since, .. } = resume(db).await? else {
                panic!("the audit did not look back far enough");
            };
            assert_eq!(since, from - AROUND);
        }
        audited(from - AROUND).await?;
        assert_eq!(resume(db).await?, PaidResumed::Yes);

        // Where nobody knows since when, the trail of a restored backup ends where that was made.
        let restored = "INSERT INTO job_events (job_id, at, kind, actor, detail) \
                        VALUES (gen_random_uuid(), now() - interval '3 days', 'created', 'test', '{}')";
        execute(url, restored).await?;
        assert!(db.stop_paid_until_audit(&sign(None), "vague").await?);
        let wanted = async || match resume(db).await? {
            PaidResumed::AuditFirst { since, .. } => Ok(since),
            other => anyhow::bail!("{other:?}"),
        };
        let backup = db.now().await? - chrono::TimeDelta::days(3);
        assert!(wanted().await? <= backup - AROUND);
        // One that was forgotten even earlier has to be reached as well.
        for (days, replaces) in [(9, true), (11, true), (10, false)] {
            let at = db.now().await? - chrono::TimeDelta::days(days);
            let stopped = db.stop_paid_until_audit(&sign(Some(at)), "exact").await?;
            assert_eq!(stopped, replaces, "{days} days ago");
        }
        assert!(wanted().await? < db.now().await? - chrono::TimeDelta::days(11));
        Ok(())
    })
    .await
}
