//! Limits, pauses and money end to end: producers, workers and the operator's commands. The simulators say what was sent.

use std::process::Stdio;

use fleet::{DEADLINE, Expectation, Fleet, Kind, Service, binary, eventually};
use sandbox::{Fault, FaultRule, Operation, SandboxConfig, Vendor as Payee, When};
use serde_json::Value;

use crate::sql::{value, values};

/// Runs `producer` with these arguments and `--json`, as an operator would.
async fn producer(fleet: &Fleet, args: &[&str]) -> anyhow::Result<Value> {
    let output = tokio::process::Command::new(binary("producer")?)
        .args([&args[..1], &["--json"], &args[1..]].concat())
        .env_clear()
        .envs(fleet.environment.variables())
        .env("USER", "ada")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(DEADLINE, output).await??;
    anyhow::ensure!(output.status.success(), "{output:?}");
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// Producers and workers of a fleet.
fn start(fleet: &Fleet, producers: usize, workers: usize) -> anyhow::Result<Vec<Service>> {
    let mut services = fleet.workers(workers)?;
    for _ in 0..producers {
        services.push(fleet.producer()?);
    }
    Ok(services)
}

async fn submit(fleet: &Fleet, kind: Kind, n: usize) -> anyhow::Result<Vec<Expectation>> {
    let mut jobs = Vec::new();
    for number in 0..n {
        jobs.push(fleet.submit_kind(kind, number).await?);
    }
    Ok(jobs)
}

async fn completed(fleet: &Fleet) -> anyhow::Result<usize> {
    let count =
        "SELECT count(*)::text AS value FROM video_jobs WHERE status = 'completed'".to_owned();
    Ok(value(&fleet.database.url, &count)
        .await?
        .unwrap_or_default()
        .parse()?)
}

/// The most works that were not final at one moment, by the simulator's own times.
fn most_at_once(fleet: &Fleet, vendor: Payee) -> usize {
    let works = fleet.sandbox.truth().works(vendor);
    let mut edges: Vec<(i64, bool)> = works
        .iter()
        .flat_map(|work| {
            let end = work.finished_at.unwrap_or(i64::MAX);
            [(work.accepted_at, true), (end, false)]
        })
        .collect();
    // In one millisecond ends come first.
    edges.sort_unstable();
    let (mut now, mut most) = (0_usize, 0);
    for (_, begins) in edges {
        now = if begins { now + 1 } else { now - 1 };
        most = most.max(now);
    }
    most
}

fn before(status: u16, error_code: Option<&str>, body: Option<&str>) -> Fault {
    Fault::Status {
        status,
        error_code: error_code.map(str::to_owned),
        body: body.map(str::to_owned),
        when: When::Before,
    }
}

/// Two producers and three workers against a vendor that refuses the fourth work: it never has to.
#[tokio::test(flavor = "multi_thread")]
async fn the_cap_holds_with_several_producers_and_workers() -> anyhow::Result<()> {
    let mut config = SandboxConfig::default();
    config.settings.sync.plan_slots = Some(3);
    config.settings.sync.process_ms = (300, 600);
    config.settings.ghostcut.process_ms = (300, 600);
    fleet::run(config, async |fleet| {
        for vendor in ["sync", "ghostcut"] {
            let args = [
                "vendors",
                "set",
                vendor,
                "--max-in-flight",
                "3",
                "--reason",
                "plan",
            ];
            producer(fleet, &args).await?;
        }
        let mut jobs = submit(fleet, Kind::Lipsync, 12).await?;
        jobs.extend(submit(fleet, Kind::Inpaint, 12).await?);
        let services = start(fleet, 2, 3)?;
        fleet.books(&jobs).await?.assert_balanced();
        let truth = fleet.sandbox.truth();
        assert_eq!(
            truth.request_count(Payee::Sync, Operation::Submit),
            12,
            "a work beyond the plan was sent"
        );
        let most = most_at_once(fleet, Payee::Ghostcut);
        assert!(
            (2..=3).contains(&most),
            "{most} works were at GhostCut at once"
        );
        for service in services {
            service.stop().await?;
        }
        Ok(())
    })
    .await
}

/// The plan's slots are fewer than anybody said, and requests are throttled: jobs wait, none fails, nothing is paused for long.
#[tokio::test(flavor = "multi_thread")]
async fn both_limits_of_sync_make_jobs_wait() -> anyhow::Result<()> {
    let mut config = SandboxConfig::default();
    config.settings.sync.plan_slots = Some(2);
    config.settings.sync.process_ms = (300, 600);
    fleet::run(config, async |fleet| {
        let throttled = before(429, Some("rate_limit_exceeded"), None);
        let rule = FaultRule::new(Payee::Sync, Operation::Submit, throttled);
        fleet.sandbox.faults().add(rule.times(1))?;
        let jobs = submit(fleet, Kind::Lipsync, 8).await?;
        let services = start(fleet, 1, 2)?;
        fleet.books(&jobs).await?.assert_balanced();
        // Works that have ended at the vendor and were not polled yet count as well, so that the slots seen may be a few more.
        let seen = "SELECT (slots >= 1 AND paused_at IS NOT NULL)::text AS value FROM vendors WHERE vendor = 'sync'";
        let seen = value(&fleet.database.url, seen).await?;
        assert_eq!(seen.as_deref(), Some("true"), "the plan's slots and a throttling were seen");
        for service in services {
            service.stop().await?;
        }
        Ok(())
    })
    .await
}

/// The budget stops new submissions; works under way are polled and stored; the operator's change counts at once.
#[tokio::test(flavor = "multi_thread")]
async fn a_budget_stops_submissions_and_nothing_else() -> anyhow::Result<()> {
    fleet::run(SandboxConfig::default(), async |fleet| {
        // A work is expected to cost 2 points, and is charged 1 when it ends.
        producer(fleet, &["vendors", "set", "ghostcut", "--daily-budget", "4.5", "--reason", "test"]).await?;
        let jobs = submit(fleet, Kind::Inpaint, 6).await?;
        let environment = fleet.environment.clone().with("GHOSTCUT_COST_PER_30S", "2").with("GHOSTCUT_COST_FLAT", "2");
        let services = [
            Service::worker(&environment, "worker-1")?,
            Service::worker(&environment, "worker-2")?,
            fleet.producer()?,
            fleet.producer()?,
        ];
        // Two; when both have ended, charged less than expected, a third (1 + 1 + 2); then too little is left (1 + 1 + 1 + 2).
        eventually(DEADLINE, async || {
            let listed = producer(fleet, &["vendors"]).await?;
            let ghostcut = listed["vendors"].as_array().and_then(|all| all.iter().find(|one| one["vendor"] == "ghostcut")).cloned();
            let ghostcut = ghostcut.unwrap_or_default();
            anyhow::ensure!(completed(fleet).await? == 3 && ghostcut["spent_today"] == 3.0, "{listed}");
            anyhow::ensure!(ghostcut["in_flight"] == 0, "{listed}");
            Ok(())
        })
        .await?;
        assert_eq!(fleet.sandbox.truth().paid(Payee::Ghostcut), 3);
        producer(fleet, &["vendors", "set", "ghostcut", "--daily-budget", "none", "--reason", "more"]).await?;
        fleet.books(&jobs).await?.assert_balanced();

        let costs = producer(fleet, &["costs", "--days", "1", "--by", "vendor"]).await?;
        assert_eq!((&costs["days"][0]["submissions"], &costs["days"][0]["charged"]), (&6.into(), &6.0.into()), "{costs}");
        let trail = "SELECT format('%s %s %s %s', actor, action, subject, reason) AS value FROM operator_events ORDER BY id";
        let trail: Vec<_> = values(&fleet.database.url, trail).await?.into_iter().flatten().collect();
        assert_eq!(trail, ["ada vendor_limited ghostcut/default test", "ada vendor_limited ghostcut/default more"]);
        for service in services {
            service.stop().await?;
        }
        Ok(())
    })
    .await
}

/// The producer reads the balance; above the floor the jobs go on by themselves.
#[tokio::test(flavor = "multi_thread")]
async fn a_balance_below_its_floor_stops_new_works_until_it_is_above() -> anyhow::Result<()> {
    let mut config = SandboxConfig::default();
    config.settings.ghostcut.points = 5.0;
    fleet::run(config, async |fleet| {
        let args = [
            "vendors",
            "set",
            "ghostcut",
            "--balance-floor",
            "10",
            "--reason",
            "test",
        ];
        producer(fleet, &args).await?;
        let services = start(fleet, 1, 1)?;
        eventually(DEADLINE, async || {
            let accounts = fleet.db.vendor_status().await?;
            let low = accounts
                .iter()
                .any(|one| one.refusal.as_deref() == Some("floor"));
            anyhow::ensure!(low, "{accounts:?}");
            Ok(())
        })
        .await?;
        let held = submit(fleet, Kind::Inpaint, 2).await?;
        // Lip-sync goes on meanwhile.
        let other = submit(fleet, Kind::Lipsync, 1).await?;
        fleet.wait_for(&other).await?;
        assert_eq!(fleet.sandbox.truth().paid(Payee::Ghostcut), 0);
        fleet
            .sandbox
            .change_settings(|settings| settings.ghostcut.points = 100.0);
        fleet
            .books(&[held, other].concat())
            .await?
            .assert_balanced();
        for service in services {
            service.stop().await?;
        }
        Ok(())
    })
    .await
}

/// Nothing but 502 for a while: the circuit opens, few requests are made, and when the vendor is back every job is finished.
#[tokio::test(flavor = "multi_thread")]
async fn an_outage_of_a_vendor_opens_the_circuit_and_its_end_closes_it() -> anyhow::Result<()> {
    fleet::run(SandboxConfig::default(), async |fleet| {
        let rule = FaultRule::new(Payee::Sync, Operation::Submit, before(502, None, None));
        fleet.sandbox.faults().add(rule)?;
        let jobs = submit(fleet, Kind::Lipsync, 10).await?;
        let services = start(fleet, 2, 2)?;
        let openings = "SELECT openings::text AS value FROM vendors WHERE vendor = 'sync'";
        eventually(DEADLINE, async || {
            let seen = value(&fleet.database.url, openings).await?;
            // Opened, and two probes have failed.
            anyhow::ensure!(seen.as_deref() >= Some("3"), "{seen:?}");
            Ok(())
        })
        .await?;
        let sent = fleet
            .sandbox
            .truth()
            .request_count(Payee::Sync, Operation::Submit);
        assert!(
            sent <= 10 + 2 + 1,
            "{sent} requests: the first ones, and the probes"
        );
        fleet.sandbox.faults().clear();
        fleet.books(&jobs).await?.assert_balanced();
        let trail = "SELECT DISTINCT action AS value FROM operator_events ORDER BY 1";
        let trail = values(&fleet.database.url, trail).await?;
        assert_eq!(
            trail.into_iter().flatten().collect::<Vec<_>>(),
            ["circuit_closed", "circuit_opened"]
        );
        for service in services {
            service.stop().await?;
        }
        Ok(())
    })
    .await
}

/// A proxy answers 404 to every submission after lip-sync was paid for: the jobs wait, and one paid work of Sync.so each is not
/// wasted.
#[tokio::test(flavor = "multi_thread")]
async fn jobs_rejected_one_after_the_other_wait_for_the_vendor() -> anyhow::Result<()> {
    fleet::run(SandboxConfig::default(), async |fleet| {
        let not_found = before(404, None, Some("<html>no route</html>"));
        let rule = FaultRule::new(Payee::Ghostcut, Operation::Submit, not_found);
        fleet.sandbox.faults().add(rule)?;
        let jobs = submit(fleet, Kind::Both, 8).await?;
        let services = start(fleet, 1, 2)?;
        let opened = "SELECT open_kind AS value FROM vendors WHERE vendor = 'ghostcut'";
        eventually(DEADLINE, async || {
            let seen = value(&fleet.database.url, opened).await?;
            anyhow::ensure!(seen.as_deref() == Some("rejects"), "{seen:?}");
            Ok(())
        })
        .await?;
        fleet.sandbox.faults().clear();
        let failed = "SELECT id::text AS value FROM video_jobs WHERE status = 'failed'";
        let failed: Vec<_> = values(&fleet.database.url, failed)
            .await?
            .into_iter()
            .flatten()
            .collect();
        assert_eq!(
            failed.len(),
            1,
            "only the first is taken to be at fault itself: {failed:?}"
        );
        let jobs: Vec<_> = jobs
            .into_iter()
            .map(|job| {
                if failed.contains(&job.job.to_string()) {
                    Expectation {
                        status: "failed",
                        ..job
                    }
                    .paying(shared::domain::Vendor::Ghostcut, 0)
                } else {
                    job
                }
            })
            .collect();
        fleet.books(&jobs).await?.assert_balanced();
        for service in services {
            service.stop().await?;
        }
        Ok(())
    })
    .await
}

/// `producer vendors pause` and `resume`: nothing is sent in between, what is under way is finished.
#[tokio::test(flavor = "multi_thread")]
async fn an_operator_pauses_and_resumes_an_account() -> anyhow::Result<()> {
    fleet::run(SandboxConfig::default(), async |fleet| {
        let services = start(fleet, 2, 2)?;
        let first = submit(fleet, Kind::Lipsync, 2).await?;
        let truth = fleet.sandbox.truth();
        let sent = truth.wait_until(DEADLINE, |truth| truth.paid(Payee::Sync) == 2);
        assert!(sent.await);
        let paused = producer(fleet, &["vendors", "pause", "sync", "--reason", "incident"]).await?;
        let sync = paused["vendors"]
            .as_array()
            .and_then(|all| all.iter().find(|one| one["vendor"] == "sync"));
        let sync = sync.cloned().unwrap_or_default();
        assert_eq!(
            (
                &sync["refusal"],
                &sync["refusal_reason"],
                &sync["refusal_until"]
            ),
            (&"manual".into(), &"incident (ada)".into(), &Value::Null)
        );
        let second = submit(fleet, Kind::Lipsync, 3).await?;
        let other = submit(fleet, Kind::Inpaint, 1).await?;
        fleet
            .wait_for(&[first.clone(), other.clone()].concat())
            .await?;
        assert_eq!(truth.paid(Payee::Sync), 2);
        producer(fleet, &["vendors", "resume", "sync", "--reason", "over"]).await?;
        fleet
            .books(&[first, second, other].concat())
            .await?
            .assert_balanced();
        for service in services {
            service.stop().await?;
        }
        Ok(())
    })
    .await
}
