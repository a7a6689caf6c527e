//! Guards whose loss costs only time in most runs, and money in the rest: each has a run here in which it is all that stands
//! between the fleet and the fault.

use std::io::ErrorKind;
use std::net::TcpListener;
use std::os::unix::process::ExitStatusExt as _;

use anyhow::Context as _;
use fleet::{DEADLINE, Expectation, Fleet, Kind, Service, eventually};
use rustix::process::Signal;
use sandbox::{Fault, FaultRule, Operation, SandboxConfig, Vendor as Payee};
use shared::crash::Point;
use shared::domain::{LedgerState, Stage};

use crate::callback_evidence::Hand;
use crate::command::producer;
use crate::sql::{execute, value};

/// A worker that dies between the vendor's answer and the commit has acknowledged nothing: its message waits for another one.
#[tokio::test(flavor = "multi_thread")]
async fn a_message_is_acknowledged_after_the_commit_only() -> anyhow::Result<()> {
    fleet::run(SandboxConfig::default(), async |fleet| {
        // One dispatch for the whole test: what comes again comes from the broker.
        let mut environment = fleet.environment.clone();
        environment.set("STAGE_LEASE", "5m");
        let producer = Service::producer(&environment)?;
        let crashing = environment
            .clone()
            .with("CRASH_POINT", format!("{:?}", Point::PaidAnswered))
            .with("STAGES", "lipsync.submit");
        let mut victim = fleet.process("victim", "worker", &crashing)?;
        let job = fleet.submit_kind(Kind::Lipsync, 0).await?;
        let end = victim.end(DEADLINE).await?;
        assert_eq!(end.signal(), Some(Signal::KILL.as_raw()));
        eventually(DEADLINE, async || {
            let waiting = fleet.queues.waiting(Stage::LipsyncSubmit).await?;
            anyhow::ensure!(waiting == 1, "{waiting} messages wait");
            Ok(())
        })
        .await?;
        let heir = Service::worker(&environment, "heir")?;
        fleet.books(&[job]).await?.assert_balanced();
        for service in [producer, heir] {
            service.stop().await?;
        }
        Ok(())
    })
    .await
}

/// A submission to GhostCut whose answer is lost, and which the vendor's list does not show until the rule is removed.
struct Hidden<'a> {
    fleet: &'a Fleet,
    job: Expectation,
    rule: u64,
}

impl<'a> Hidden<'a> {
    async fn submit(fleet: &'a Fleet) -> anyhow::Result<Self> {
        let faults = fleet.sandbox.faults();
        let job = fleet.submit_kind(Kind::Inpaint, 0).await?;
        let contains = job.job.to_string();
        let lost = FaultRule::new(Payee::Ghostcut, Operation::Submit, Fault::LoseAnswer);
        faults.add(lost.containing(&contains).times(1))?;
        let hide = Fault::DropItems { contains };
        let rule = faults.add(FaultRule::new(Payee::Ghostcut, Operation::List, hide))?;
        Ok(Self { fleet, job, rule })
    }

    /// Waits until this is so of the submission.
    async fn reached(&self, condition: &str) -> anyhow::Result<()> {
        let query = format!(
            "SELECT 'yes' AS value FROM submissions WHERE job_id = '{}' AND {condition}",
            self.job.job
        );
        eventually(DEADLINE, async || {
            let reached = value(&self.fleet.database.url, &query).await?;
            anyhow::ensure!(reached.is_some(), "not yet: {condition}");
            Ok(())
        })
        .await
    }

    /// The list shows everything again, and the work is found and not paid for again.
    async fn found_again(self, control: Expectation) -> anyhow::Result<()> {
        let shown = self.fleet.sandbox.faults().remove(self.rule);
        anyhow::ensure!(shown, "the list shows everything already");
        self.fleet
            .books(&[self.job, control])
            .await?
            .assert_balanced();
        Ok(())
    }
}

/// A producer and a worker that wait so long for a list to show a lost work.
fn settling(fleet: &Fleet, time: &str) -> anyhow::Result<[Service; 2]> {
    let environment = fleet.environment.clone().with("GHOSTCUT_SETTLE_TIME", time);
    Ok([
        Service::producer(&environment)?,
        Service::worker(&environment, "worker")?,
    ])
}

async fn stop(services: [Service; 2]) -> anyhow::Result<()> {
    for service in services {
        service.stop().await?;
    }
    Ok(())
}

/// GhostCut's list shows the lost work later than works that were accepted after it. Only the settle time keeps the search from
/// deciding too early.
#[tokio::test(flavor = "multi_thread")]
async fn a_work_is_not_absent_before_the_settle_time() -> anyhow::Result<()> {
    fleet::run(SandboxConfig::default(), async |fleet| {
        let services = settling(fleet, "15s")?;
        let lost = Hidden::submit(fleet).await?;
        lost.reached("source_deleted_at IS NOT NULL").await?;
        // Proves that the list is as new as it has to be, were it in order.
        let control = fleet.submit_kind(Kind::Inpaint, 2).await?;
        fleet.wait_for(std::slice::from_ref(&control)).await?;
        lost.reached("source_deleted_at < clock_timestamp() - interval '4 seconds'")
            .await?;
        lost.found_again(control).await?;
        stop(services).await
    })
    .await
}

/// All the list shows is older than the lost work: it may lag, so the first search that could decide does not.
#[tokio::test(flavor = "multi_thread")]
async fn a_list_without_newer_works_decides_later() -> anyhow::Result<()> {
    fleet::run(SandboxConfig::default(), async |fleet| {
        let services = settling(fleet, "10s")?;
        let control = fleet.submit_kind(Kind::Inpaint, 2).await?;
        fleet.wait_for(std::slice::from_ref(&control)).await?;
        let lost = Hidden::submit(fleet).await?;
        // Two by the schedule, and then the one after the settle time.
        lost.reached("searches >= 3").await?;
        lost.found_again(control).await?;
        stop(services).await
    })
    .await
}

/// While an operator has paused the account, a lost answer is not asked for by sending the request again: that is a send too.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_replayed_while_the_account_is_paused() -> anyhow::Result<()> {
    fleet::run(SandboxConfig::default(), async |fleet| {
        let url = &fleet.database.url;
        let lost = FaultRule::new(Payee::Sync, Operation::Submit, Fault::LoseAnswer).times(1);
        fleet.sandbox.faults().add(lost)?;
        let environment = fleet.environment.clone().with("SYNC_REPLAY_SCHEDULE", "1h");
        let services = [
            Service::producer(&environment)?,
            Service::worker(&environment, "worker")?,
        ];
        let job = fleet.submit_kind(Kind::Lipsync, 0).await?;
        let waits = async |looked_at: i64| {
            let query = format!(
                "SELECT epoch::text AS value FROM job_stages JOIN submissions s USING (job_id) \
                 WHERE s.state = 'unknown' AND job_stages.state = 'waiting' AND due_at > clock_timestamp() AND epoch > {looked_at}"
            );
            eventually(DEADLINE, async || {
                let epoch = value(url, &query).await?;
                epoch.context("it does not wait yet")?.parse::<i64>().context("an epoch")
            })
            .await
        };
        let epoch = waits(0).await?;
        let act = async |action| {
            let args = ["vendors", action, "sync", "--reason", "a test"];
            producer(&fleet.environment, &args).await
        };
        act("pause").await?.said(0, "manual");
        execute(url, "UPDATE job_stages SET due_at = clock_timestamp()").await?;
        waits(epoch).await?;
        let truth = fleet.sandbox.truth();
        assert_eq!(truth.request_count(Payee::Sync, Operation::Submit), 1);
        act("resume").await?.said(0, "1 job that waited for it: due now");
        fleet.books(&[job]).await?.assert_balanced();
        assert_eq!(truth.request_count(Payee::Sync, Operation::Submit), 2);
        stop(services).await
    })
    .await
}

/// However a job with as many failed works as are paid for comes back to its submitting stage, nothing more is paid there.
#[tokio::test(flavor = "multi_thread")]
async fn the_submitting_stage_keeps_the_bound_on_paid_attempts() -> anyhow::Result<()> {
    fleet::run(SandboxConfig::default(), async |fleet| {
        let environment = fleet.environment.clone().with("MAX_PAID_ATTEMPTS", "1");
        let mut job = fleet.submit_kind(Kind::Inpaint, 0).await?;
        let hand = Hand::new(fleet, &environment)?;
        let sent = hand.submit(job.job, 1).await?;
        hand.settle(&sent, LedgerState::Accepted, None).await?;
        let next = Some((Stage::InpaintSubmit, 0));
        hand.settle(&sent, LedgerState::Failed, next).await?;
        let services = [
            Service::producer(&environment)?,
            Service::worker(&environment, "worker")?,
        ];
        (job.status, job.stage_state) = ("failed", Some("dead"));
        fleet.wait_for(std::slice::from_ref(&job)).await?;
        let why = "SELECT reason AS value FROM job_stages";
        let why = value(&fleet.database.url, why).await?;
        assert_eq!(why.as_deref(), Some("attempts_exhausted"));
        assert_eq!(fleet.sandbox.truth().paid(Payee::Ghostcut), 1);
        stop(services).await
    })
    .await
}

/// A proxy of the environment would see keys and signed URLs, resolve names out of reach of our rules, and could send again. Here
/// it takes connections and never answers.
#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_of_the_environment_is_not_used() -> anyhow::Result<()> {
    fleet::run(SandboxConfig::default(), async |fleet| {
        let proxy = TcpListener::bind("127.0.0.1:0")?;
        proxy.set_nonblocking(true)?;
        let url = format!("http://{}", proxy.local_addr()?);
        let mut environment = fleet.environment.clone();
        for name in ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"] {
            environment.set(name, &url);
        }
        let producer = Service::producer(&environment)?;
        let mut worker = fleet.process("worker", "worker", &environment)?;
        let job = fleet.submit_kind(Kind::Both, 1).await?;
        fleet.books(&[job]).await?.assert_balanced();
        let asked = proxy.accept().map(|(_, client)| client);
        assert!(
            matches!(&asked, Err(error) if error.kind() == ErrorKind::WouldBlock),
            "{asked:?}"
        );
        assert!(worker.terminate(DEADLINE).await?.success());
        producer.stop().await
    })
    .await
}
