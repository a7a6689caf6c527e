//! Guards whose loss costs only time in most runs, and money in the rest: each has a run here in which it is all that stands
//! between the fleet and the fault.

use std::io::ErrorKind;
use std::net::TcpListener;

use fleet::{DEADLINE, Kind, eventually};
use rustix::process::Signal;
use sandbox::{Fault, FaultRule, Operation, SandboxConfig, Vendor as Payee};
use shared::crash::Point;
use shared::domain::Stage;
use std::os::unix::process::ExitStatusExt as _;

use crate::sql::value;

/// A worker that dies between the vendor's answer and the commit has acknowledged nothing: its message waits for another one.
#[tokio::test(flavor = "multi_thread")]
async fn a_message_is_acknowledged_after_the_commit_only() -> anyhow::Result<()> {
    fleet::run(SandboxConfig::default(), async |fleet| {
        // One dispatch for the whole test: what comes again comes from the broker.
        let mut environment = fleet.environment.clone();
        environment.set("STAGE_LEASE", "5m");
        let producer = fleet::Service::producer(&environment)?;
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
        let heir = fleet::Service::worker(&environment, "heir")?;
        fleet.books(&[job]).await?.assert_balanced();
        for service in [producer, heir] {
            service.stop().await?;
        }
        Ok(())
    })
    .await
}

/// GhostCut's list shows the lost work later than works that were accepted after it. Only the settle time keeps the search from
/// deciding too early.
#[tokio::test(flavor = "multi_thread")]
async fn a_work_is_not_absent_before_the_settle_time() -> anyhow::Result<()> {
    fleet::run(SandboxConfig::default(), async |fleet| {
        let mut environment = fleet.environment.clone();
        environment.set("GHOSTCUT_SETTLE_TIME", "15s");
        let services = [
            fleet::Service::producer(&environment)?,
            fleet::Service::worker(&environment, "worker")?,
        ];
        let lost = fleet.submit_kind(Kind::Inpaint, 0).await?;
        let faults = fleet.sandbox.faults();
        let job = lost.job.to_string();
        faults.add(
            FaultRule::new(Payee::Ghostcut, Operation::Submit, Fault::LoseAnswer)
                .containing(&job)
                .times(1),
        )?;
        let hide = Fault::DropItems { contains: job };
        let hidden = faults.add(FaultRule::new(Payee::Ghostcut, Operation::List, hide))?;
        let reached = async |condition: &str| {
            let query = format!(
                "SELECT 'yes' AS value FROM submissions WHERE job_id = '{}' AND {condition}",
                lost.job
            );
            eventually(DEADLINE, async || {
                let reached = value(&fleet.database.url, &query).await?;
                anyhow::ensure!(reached.is_some(), "not yet: {condition}");
                Ok(())
            })
            .await
        };
        reached("source_deleted_at IS NOT NULL").await?;
        // Proves that the list is as new as it has to be, were it in order.
        let control = fleet.submit_kind(Kind::Inpaint, 2).await?;
        fleet.wait_for(std::slice::from_ref(&control)).await?;
        reached("source_deleted_at < clock_timestamp() - interval '4 seconds'").await?;
        assert!(faults.remove(hidden), "the list shows everything again");
        fleet.books(&[lost, control]).await?.assert_balanced();
        for service in services {
            service.stop().await?;
        }
        Ok(())
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
        let producer = fleet::Service::producer(&environment)?;
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
