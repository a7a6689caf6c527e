//! `chaos`: producers and workers as real processes on real servers, while everything goes wrong that can, by a plan that a seed
//! decides. Succeeds only if no invariant was ever broken, nothing was paid for twice, all are well in the end, and every job is
//! completed, some of them with what an operator does after such a day.

mod aftermath;
mod books;
mod client;
mod inflict;
mod plan;
mod report;
mod site;
mod vendor_faults;
mod watch;
mod yard;

use std::io::Write as _;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use futures::FutureExt as _;
use tokio::signal::unix::{SignalKind, signal};

use crate::plan::Shape;
use crate::report::{Report, Run};
use crate::site::Site;

/// Jobs for each minute of a run, unless told otherwise: what a small machine can do beside the servers' restarts.
const JOBS_PER_MINUTE: f64 = 30.0;

/// Runs jobs through a fleet while everything goes wrong, and counts what the vendors were paid for.
#[derive(Parser)]
#[command(version)]
struct Args {
    /// How long things go wrong; the fleet has some time after that to come to rest
    #[arg(long, default_value_t = 10.0, value_parser = minutes)]
    minutes: f64,
    /// Seed of the faults and of the simulators; timing stays what it is
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Jobs to run [default: 30 a minute]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    jobs: Option<u32>,
    /// Producers at a time
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=16))]
    producers: u16,
    /// Workers at a time
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=64))]
    workers: u16,
    /// RabbitMQ nodes; with three, the cluster loses one at a time
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=5))]
    brokers: u16,
    /// Keep the servers' data for a look at it
    #[arg(long)]
    keep: bool,
    /// Where to write the result; logs go to a folder beside it
    #[arg(long, default_value = "target/chaos/report.json")]
    report: PathBuf,
}

fn minutes(text: &str) -> Result<f64, String> {
    let minutes: f64 = text
        .parse()
        .map_err(|_| "a number of minutes, such as 10 or 0.5")?;
    let sensible = (0.1..=1440.0).contains(&minutes);
    sensible
        .then_some(minutes)
        .ok_or_else(|| "0.1 to 1440 minutes".to_owned())
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    // Not the report of another run, should this one not come to its end.
    match std::fs::remove_file(&args.report) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    let mut site = Site::new(&args.report).await?;
    let (seed, folder) = (args.seed, site.folder().display().to_string());
    say(&format!("seed {seed}, logs: {folder}"));
    let outcome = tokio::select! {
        outcome = AssertUnwindSafe(run(&args, &mut site)).catch_unwind() => Some(outcome),
        _ = terminate.recv() => None,
        _ = hang_up.recv() => None,
        _ = interrupt.recv() => None,
    };
    for problem in site.close(args.keep).await {
        say(&format!("cleaning up: {problem}"));
    }
    let report = match outcome {
        None => {
            say("interrupted");
            return Ok(ExitCode::from(130));
        }
        Some(Err(panic)) => std::panic::resume_unwind(panic),
        Some(Ok(Err(error))) => return Err(error.context(format!("seed {seed}, logs: {folder}"))),
        Some(Ok(Ok(report))) => report,
    };
    report.write(&args.report)?;
    report.print(&mut std::io::stdout())?;
    for violation in report.violations() {
        say(&format!("violated: {violation}"));
    }
    if report.violations().is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    say(&format!(
        "seed {seed}; the logs of all processes are in {folder}; search them for a job's id"
    ));
    Ok(ExitCode::FAILURE)
}

async fn run(args: &Args, site: &mut Site) -> anyhow::Result<Report> {
    let shape = Shape {
        producers: args.producers.into(),
        workers: args.workers.into(),
        brokers: args.brokers.into(),
    };
    let length = Duration::from_secs_f64(args.minutes * 60.0);
    let jobs = args.jobs.map_or_else(
        || (args.minutes * JOBS_PER_MINUTE).ceil() as usize,
        |jobs| jobs as usize,
    );
    site.start(shape, args.seed).await?;
    let started = Instant::now();
    let (taken, mut watch) = site
        .storm(plan::plan(args.seed, length, shape), length, jobs)
        .await?;
    say("no more faults; waiting until everything has come to rest");
    let aftermath = aftermath::clear_up(site, &mut watch).await?;
    let yard = site.yard()?;
    let books = books::Books::close(&yard.control, &taken).await?;
    let run = Run {
        seed: args.seed,
        minutes: args.minutes,
        brokers: args.brokers.into(),
        jobs,
        seconds: started.elapsed().as_secs_f64(),
    };
    let mut tally = yard.tally().clone();
    let strokes = yard.control.strokes().await?.into_iter();
    tally
        .faults
        .extend(strokes.map(|(kind, count)| (format!("vendor_{kind}"), count)));
    Ok(Report::new(&run, tally, books, watch, aftermath))
}

/// Says something to whoever watches; nobody may be there any more.
fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}
