//! `demo`: one producer and some workers as real processes run a mix of jobs, while workers are killed and vendors' answers get
//! lost. Succeeds only if every job finishes and every vendor was paid exactly once for each.

mod chaos;
mod report;
mod site;
mod view;

use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Parser;
use fleet::{Books, Expectation, Kind, Snapshot};
use futures::FutureExt as _;
use shared::domain::Vendor;
use tokio::signal::unix::{SignalKind, signal};

use crate::chaos::Chaos;
use crate::report::Report;
use crate::site::Site;
use crate::view::View;

/// Between two looks at the fleet.
const TICK: Duration = Duration::from_millis(50);
/// A fleet in which nothing has changed for so long is stuck: an undecided submission takes some ten seconds.
const STALLED: Duration = Duration::from_secs(90);
/// Unfinished jobs for each worker; more are submitted as these finish, so that kills meet jobs in every stage.
const JOBS_PER_WORKER: usize = 5;

/// Runs jobs through a fleet whose workers are killed, and counts what the vendors were paid for.
#[derive(Parser)]
#[command(version)]
struct Args {
    /// Jobs to run
    #[arg(long, default_value_t = 24, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    jobs: u32,
    /// Workers at a time
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=64))]
    workers: u32,
    /// Workers to kill with SIGKILL while jobs run
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(0..=10_000))]
    kills: u32,
    /// Seed of faults, durations and the choice of victims; timing stays what it is
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Keep the database, the queues and the objects
    #[arg(long)]
    keep: bool,
    /// Where to write the result; logs go to a folder beside it
    #[arg(long, default_value = "target/demo/report.json")]
    report: PathBuf,
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    // Not the report of another run, should this one not come to its end.
    match std::fs::remove_file(&args.report) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    let mut interrupt = signal(SignalKind::interrupt())?;
    let view = View::new(args.jobs.into());
    let mut site = Site::new(&args.report).await?;
    view.say(&format!("logs: {}", site.folder().display()));
    let outcome = tokio::select! {
        outcome = AssertUnwindSafe(run(&args, &mut site, &view)).catch_unwind() => Some(outcome),
        _ = terminate.recv() => None,
        _ = hang_up.recv() => None,
        _ = interrupt.recv() => None,
    };
    view.close();
    let folder = site.folder().to_owned();
    for problem in site.close(args.keep).await {
        view.say(&format!("cleaning up: {problem}"));
    }
    let report = match outcome {
        None => {
            view.say("interrupted");
            return Ok(ExitCode::from(130));
        }
        Some(Err(panic)) => std::panic::resume_unwind(panic),
        Some(Ok(Err(error))) => return Err(error.context(format!("logs: {}", folder.display()))),
        Some(Ok(Ok(report))) => report,
    };
    report.write(&args.report)?;
    report.print(&mut std::io::stdout())?;
    let faults = report.faults();
    for fault in &faults {
        view.say(fault);
    }
    if faults.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    let folder = folder.display();
    view.say(&format!(
        "the logs of all processes are in {folder}; search them for a job's id"
    ));
    Ok(ExitCode::FAILURE)
}

async fn run(args: &Args, site: &mut Site, view: &View) -> anyhow::Result<Report> {
    site.start(args.workers, args.seed, slowness(args)).await?;
    let mut chaos = Chaos::new(args.kills, args.seed, milestones(args.jobs));
    chaos.begin(site.control()?).await?;
    let (started, mut expected) = (Instant::now(), Vec::new());
    let (mut last, mut changed) = (Snapshot::default(), Instant::now());
    loop {
        site.check_processes()?;
        let now = site.observer()?.snapshot().await?;
        let over = usize::try_from(now.completed + now.stuck)?;
        if over == args.jobs as usize {
            view.show(&now, chaos.kills());
            break;
        }
        // First of all: who pays at this moment may have the answer in the next.
        chaos.act(site, &now, expected.len() > over, view).await?;
        view.show(&now, chaos.kills());
        let room = args.workers as usize * JOBS_PER_WORKER;
        while expected.len() < args.jobs as usize && expected.len() - over < room {
            expected.push(submit(site, expected.len()).await?);
        }
        if now != last {
            (last, changed) = (now, Instant::now());
        }
        if changed.elapsed() > STALLED {
            view.say(&format!("nothing has changed for {STALLED:?}: {last:?}"));
            break;
        }
        tokio::time::sleep(TICK).await;
    }
    let seconds = started.elapsed().as_secs_f64();
    let books = Books::close(site.database_url()?, site.control()?, &expected).await?;
    Ok(Report::new(&books, args.kills, chaos.kills(), seconds))
}

/// Submits job `number` of the mix over the producer's API.
async fn submit(site: &Site, number: usize) -> anyhow::Result<Expectation> {
    let kind = Kind::ALL[number % Kind::ALL.len()];
    let request = site.media()?.request(kind, number);
    let key = format!("demo-{number}");
    let job = site.api()?.submit(&request, &key).await;
    Ok(Expectation::completed(
        job.with_context(|| format!("job number {number}"))?,
        kind,
    ))
}

/// What can be seen of the jobs' way: each paid work, and each job finished.
fn milestones(jobs: u32) -> usize {
    let kinds = Kind::ALL.iter().cycle().take(jobs as usize);
    let of = |kind: &Kind| 1 + Vendor::ALL.iter().filter(|v| kind.pays(**v)).count();
    kinds.map(of).sum()
}

/// Shortest time of a work at the vendors: long enough for all kills, when few jobs have to bear many.
fn slowness(args: &Args) -> Duration {
    Duration::from_millis(u64::from(args.kills) * 700 / u64::from(args.jobs))
        .max(Duration::from_secs(1))
}
