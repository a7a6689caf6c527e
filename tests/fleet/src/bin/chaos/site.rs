//! The run from its first server to its last: start, storm, rest, end. Whatever was started is stopped again, in whatever state
//! the run was left; what a killed run has left, the next one removes first.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use fleet::{Process, RunFolder, Servers, eventually, local};
use tokio::task::JoinSet;

use crate::client::{self, Taken};
use crate::plan::{Shape, Step};
use crate::watch::{Progress, Watch};
use crate::yard::{INSTANCE, Yard};
use crate::{inflict, say};

/// Between two looks at the processes.
const TEND: Duration = Duration::from_millis(100);
/// Between two lines for whoever watches.
const LINE: Duration = Duration::from_secs(10);
/// After the last fault: a fleet in which nothing has changed for so long is stuck.
const STALLED: Duration = Duration::from_secs(60);
/// After the last fault: how long all may take to come to rest.
const REST: Duration = Duration::from_secs(300);
/// How long processes may take to become healthy then.
const RECOVERY: Duration = Duration::from_secs(60);
/// How long the sandbox may take to stop.
const GRACE: Duration = Duration::from_secs(15);
/// Time of a work at the vendors, milliseconds.
const WORK_MS: (u64, u64) = (500, 3_000);

/// Everything that runs.
pub(crate) struct Site {
    folder: RunFolder,
    servers: Option<Servers>,
    sandbox: Option<Process>,
    yard: Option<Arc<Yard>>,
    /// Everything that runs beside the run: the orchestrator and the faults. Ends with the site.
    tasks: JoinSet<anyhow::Result<()>>,
}

impl Site {
    /// A site with a folder for its logs beside the report, and nothing running yet.
    pub(crate) async fn new(report: &Path) -> anyhow::Result<Self> {
        Ok(Self {
            folder: RunFolder::new(report.parent().unwrap_or(Path::new("."))).await?,
            servers: None,
            sandbox: None,
            yard: None,
            tasks: JoinSet::new(),
        })
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn yard(&self) -> anyhow::Result<&Arc<Yard>> {
        self.yard.as_ref().context("nothing runs yet")
    }

    /// Starts servers, sandbox, producers and workers, and waits until all of them are well.
    pub(crate) async fn start(&mut self, shape: Shape, seed: u64) -> anyhow::Result<()> {
        // What a killed run has left is of no use.
        local(INSTANCE, &["destroy"]).await?;
        self.servers = Some(Servers::cluster(INSTANCE, shape.brokers).await?);
        let args = [
            format!("--seed={seed}"),
            format!("--process-ms-min={}", WORK_MS.0),
            format!("--process-ms-max={}", WORK_MS.1),
            "--callback-retry-ms=2000".to_owned(),
            format!("--data-dir={}", self.folder().join("sandbox").display()),
        ];
        let (sandbox, announced) = Process::sandbox(args, self.folder()).await?;
        self.sandbox = Some(sandbox);
        let yard = Arc::new(Yard::new(self.folder(), shape, announced).await?);
        self.yard = Some(Arc::clone(&yard));
        self.tasks.spawn(async move {
            loop {
                yard.tend().await?;
                tokio::time::sleep(TEND).await;
            }
        });
        let unhealthy = self.health().await?;
        anyhow::ensure!(unhealthy.is_empty(), "{}", unhealthy.join("; "));
        Ok(())
    }

    /// Jobs come in while the lanes of the plan run. Returns the jobs that were taken.
    pub(crate) async fn storm(
        &mut self,
        lanes: Vec<Vec<Step>>,
        length: Duration,
        jobs: usize,
    ) -> anyhow::Result<(Vec<Taken>, Watch)> {
        let yard = Arc::clone(self.yard()?);
        let (started, known) = (Instant::now(), Arc::new(Mutex::new(Vec::new())));
        let mut faults = JoinSet::new();
        for lane in lanes {
            faults.spawn(inflict::run(
                Arc::clone(&yard),
                started,
                length,
                lane,
                Arc::clone(&known),
            ));
        }
        let client = client::hand_in(Arc::clone(&yard), jobs, length, known);
        let storm = async {
            let struck = async {
                while let Some(lane) = faults.join_next().await {
                    lane??;
                }
                anyhow::Ok(())
            };
            anyhow::Ok(tokio::try_join!(client, struck)?.0)
        };
        let (mut watch, mut line) = (Watch::default(), Lines::default());
        let sandbox = self.sandbox.as_mut().context("no sandbox")?;
        let watching = watch.look_until(async |seen| {
            line.show(&yard, started.elapsed(), seen);
            check(sandbox)?;
            Ok(false)
        });
        let taken = tokio::select! {
            taken = storm => taken?,
            failed = watching => {
                failed?;
                anyhow::bail!("nobody watches any more");
            }
            ended = self.tasks.join_next() => anyhow::bail!("the orchestrator ended: {ended:?}"),
        };
        watch.begin_again();
        Ok((taken, watch))
    }

    /// Waits until no job goes on by itself, and says which processes are not well then.
    pub(crate) async fn rest(&mut self, watch: &mut Watch) -> anyhow::Result<Vec<String>> {
        let yard = Arc::clone(self.yard()?);
        yard.free_all_proxies();
        let (started, mut line) = (Instant::now(), Lines::default());
        let (mut last, mut changed) = (Progress::default(), Instant::now());
        watch
            .look_until(async |seen| {
                line.show(&yard, started.elapsed(), seen);
                let Some(now) = seen else {
                    return Ok(started.elapsed() > REST);
                };
                if now.moving + now.unfollowed == 0 {
                    return Ok(true);
                }
                if *now != last {
                    (last, changed) = (now.clone(), Instant::now());
                }
                Ok(changed.elapsed() > STALLED || started.elapsed() > REST)
            })
            .await?;
        check(self.sandbox.as_mut().context("no sandbox")?)?;
        self.health().await
    }

    /// Waits until all processes are well, and says which are not.
    async fn health(&self) -> anyhow::Result<Vec<String>> {
        let yard = self.yard()?;
        let healthy = eventually(RECOVERY, async || {
            let unhealthy = yard.unhealthy().await?;
            anyhow::ensure!(unhealthy.is_empty(), "{}", unhealthy.join("; "));
            Ok(())
        });
        let Err(error) = healthy.await else {
            return Ok(Vec::new());
        };
        Ok(vec![format!("{error:#}")])
    }

    /// Stops everything and removes what it left. Returns what could not be done.
    pub(crate) async fn close(mut self, keep: bool) -> Vec<String> {
        let mut problems = Vec::new();
        let mut note = |result: anyhow::Result<()>| {
            problems.extend(result.err().map(|error| format!("{error:#}")));
        };
        self.tasks.shutdown().await;
        if let Some(yard) = self.yard {
            yard.free_all_proxies();
            note(yard.stop().await);
        }
        if let Some(sandbox) = &mut self.sandbox {
            note(sandbox.terminate(GRACE).await.map(drop));
            let objects = std::fs::remove_dir_all(self.folder.path().join("sandbox"));
            note(objects.context("objects of the sandbox"));
        }
        if let Some(servers) = self.servers {
            servers.release().await;
            if !keep {
                note(local(INSTANCE, &["destroy"]).await);
            }
        }
        problems
    }
}

/// The sandbox owns the truth: without it nothing can be said.
fn check(sandbox: &mut Process) -> anyhow::Result<()> {
    match sandbox.ended()? {
        Some(status) => anyhow::bail!("the sandbox ended: {status}"),
        None => Ok(()),
    }
}

/// A line now and then for whoever watches.
#[derive(Default)]
struct Lines {
    said: Option<Instant>,
}

impl Lines {
    fn show(&mut self, yard: &Yard, time: Duration, seen: Option<&Progress>) {
        if self.said.is_some_and(|said| said.elapsed() < LINE) {
            return;
        }
        self.said = Some(Instant::now());
        let faults: usize = yard.tally().faults.values().sum();
        let fleet = seen.map_or_else(
            || "the database is away".to_owned(),
            |now| {
                let Progress { completed, moving, standing, submissions, unknown, .. } = now;
                format!("jobs completed {completed}, going on {moving}, standing {standing}; submissions {submissions}, unknown {unknown}")
            },
        );
        say(&format!(
            "{:>5} s: faults {faults}; {fleet}",
            time.as_secs()
        ));
    }
}
