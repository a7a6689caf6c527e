//! A whole fleet for a test: servers, a database and queues of its own, the sandbox in this process, and producers and workers
//! as tasks of this process or as processes. Everything is removed at the end, also when the test panics.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use futures::FutureExt as _;
use producer::config::ServeConfig;
use producer::intake::{CallbackRule, INTAKE, Intake};
use sandbox::{Sandbox, SandboxConfig};
use serde_json::Value;
use shared::config::{DatabaseConfig, FetchConfig, StorageConfig};
use shared::db::{Created, Db};
use shared::service::Stopper;
use shared::storage::{Fetcher, Storage};
use shared::telemetry::{self, LogConfig, LogFormat};
use tokio::task::JoinHandle;
use uuid::Uuid;
use worker::config::WorkerConfig;

use crate::{
    Books, Control, DEADLINE, Database, Environment, Expectation, Kind, Media, Process, Queues,
    Servers, eventually,
};

/// How many segments a job of these tests may have.
const MAX_SEGMENTS: usize = 10;

/// A fleet without producers and workers: start those a test needs.
pub struct Fleet {
    /// The vendors and the object store.
    pub sandbox: Sandbox,
    /// Settings of whatever is started from here on.
    pub environment: Environment,
    /// The fleet's database.
    pub db: Db,
    /// The fleet's bucket.
    pub storage: Storage,
    /// Sample media in the bucket.
    pub media: Media,
    /// The fleet's queues.
    pub queues: Queues,
    /// The database's own handle, for its URL.
    pub database: Database,
    fetcher: Fetcher,
    control: Control,
    folder: PathBuf,
}

/// A producer or worker that runs as a task of this process. Dropping it ends it as a crash would, between two awaits.
pub struct Service {
    stopper: Stopper,
    task: JoinHandle<anyhow::Result<()>>,
}

impl Service {
    /// Starts a worker.
    ///
    /// # Errors
    /// When its settings cannot be read.
    pub fn worker(environment: &Environment, name: &str) -> anyhow::Result<Self> {
        let config: WorkerConfig = environment.clone().with("WORKER_NAME", name).parse()?;
        let stopper = Stopper::default();
        let task = tokio::spawn(worker::run(config, stopper.clone()));
        Ok(Self { stopper, task })
    }

    /// Starts a producer.
    ///
    /// # Errors
    /// When its settings cannot be read.
    pub fn producer(environment: &Environment) -> anyhow::Result<Self> {
        let config: ServeConfig = environment.parse()?;
        let stopper = Stopper::default();
        let task = tokio::spawn(producer::run(config, stopper.clone()));
        Ok(Self { stopper, task })
    }

    /// Drains it and waits for its end.
    ///
    /// # Errors
    /// What it ended with.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        self.stopper.drain.cancel();
        (&mut self.task).await.context("the service panicked")?
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.stopper.drain.cancel();
        self.stopper.abort.cancel();
        self.task.abort();
    }
}

/// Runs a test with a fleet of its own and cleans up after it.
///
/// # Errors
/// What the test or the preparation failed with.
///
/// # Panics
/// When the test does, after cleaning up.
pub async fn run(
    config: SandboxConfig,
    test: impl AsyncFnOnce(&Fleet) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    run_on(Servers::get("test").await?, config, test).await
}

/// The same on these servers, which are released at the end.
///
/// # Errors
/// What the test or the preparation failed with.
///
/// # Panics
/// When the test does, after cleaning up.
pub async fn run_on(
    servers: Servers,
    config: SandboxConfig,
    test: impl AsyncFnOnce(&Fleet) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let fleet = Fleet::new(&servers, config).await?;
    let outcome = std::panic::AssertUnwindSafe(test(&fleet))
        .catch_unwind()
        .await;
    let failed = !matches!(outcome, Ok(Ok(())));
    let closed = fleet.close(failed).await;
    servers.release().await;
    match outcome {
        Ok(result) => result.and(closed),
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

impl Fleet {
    async fn new(servers: &Servers, config: SandboxConfig) -> anyhow::Result<Self> {
        // What runs in this process is silent unless asked.
        if let Ok(log_filter) = std::env::var("LOG_FILTER") {
            let log_format = LogFormat::Human;
            telemetry::init(
                &LogConfig {
                    log_format,
                    log_filter,
                    otlp_endpoint: None,
                },
                "test",
            )?;
        }
        let sandbox = Sandbox::start(config).await?;
        let database = Database::create(&servers.database_url).await?;
        let queues = Queues::new(&servers.amqp_url);
        let announced = sandbox.environment();
        let announced = announced
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value));
        let environment =
            Environment::fast(&database.url, &servers.amqp_url, &queues.prefix, announced);
        let config: DatabaseConfig = environment.parse()?;
        Db::migrate(&config).await?;
        let storage = Storage::new(&environment.parse::<StorageConfig>()?)?;
        let fetcher = Fetcher::new(&environment.parse::<FetchConfig>()?)?;
        let media = Media::upload(&storage, &sandbox.endpoints().media).await?;
        let folder = std::env::temp_dir().join(&queues.prefix);
        std::fs::create_dir_all(&folder)?;
        Ok(Self {
            control: Control::new(&sandbox.endpoints().control)?,
            sandbox,
            environment,
            fetcher,
            db: Db::new(&config)?,
            storage,
            media,
            queues,
            database,
            folder,
        })
    }

    /// Starts a producer in this process.
    ///
    /// # Errors
    /// When its settings cannot be read.
    pub fn producer(&self) -> anyhow::Result<Service> {
        Service::producer(&self.environment)
    }

    /// Starts `count` workers in this process.
    ///
    /// # Errors
    /// When their settings cannot be read.
    pub fn workers(&self, count: usize) -> anyhow::Result<Vec<Service>> {
        (1..=count)
            .map(|n| Service::worker(&self.environment, &format!("worker-{n}")))
            .collect()
    }

    /// Starts a producer as a process and waits until it is up; its log line has the addresses `http` and `admin`.
    ///
    /// # Errors
    /// When it does not come up.
    pub async fn producer_process(&self, name: &str) -> anyhow::Result<(Process, Value)> {
        let mut process = self.process(name, "producer", &self.environment)?;
        let started = process.started().await?;
        Ok((process, started))
    }

    /// Starts a worker as a process and waits until it is up.
    ///
    /// # Errors
    /// When it does not come up.
    pub async fn worker_process(&self, name: &str) -> anyhow::Result<Process> {
        let mut process = self.process(name, "worker", &self.environment)?;
        process.started().await?;
        Ok(process)
    }

    /// Starts a `producer` or `worker` as a process with these settings and does not wait for it.
    ///
    /// # Errors
    /// When its binary is not there.
    pub fn process(
        &self,
        name: &str,
        program: &str,
        environment: &Environment,
    ) -> anyhow::Result<Process> {
        let environment = environment.clone().with("WORKER_NAME", name);
        let serve = (program == "producer").then_some("serve");
        Process::start(name, program, serve, environment.variables(), self.folder())
    }

    /// Where the logs of its processes are; kept when the test fails.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Takes a request in as the API does; no producer needs to run.
    ///
    /// # Errors
    /// When the request is refused or the database is away.
    pub async fn submit(&self, request: &Value) -> anyhow::Result<Uuid> {
        let intake = Intake {
            db: self.db.clone(),
            storage: self.storage.clone(),
            fetcher: self.fetcher.clone(),
            probe: self.environment.parse()?,
            max_segments: MAX_SEGMENTS,
            callbacks: CallbackRule {
                signed: true,
                allow_private: true,
            },
        };
        match intake.create(request, None, Uuid::new_v4(), INTAKE).await? {
            Created::New(id) => Ok(id),
            other => anyhow::bail!("a job without a key was not new: {other:?}"),
        }
    }

    /// Submits a job of this kind, number `number` of a mix, and says how it should end.
    ///
    /// # Errors
    /// Like [`Fleet::submit`].
    pub async fn submit_kind(&self, kind: Kind, number: usize) -> anyhow::Result<Expectation> {
        let job = self.submit(&self.media.request(kind, number)).await?;
        Ok(Expectation::completed(job, kind))
    }

    /// Waits until every job has the status it is expected to end with.
    ///
    /// # Errors
    /// After [`DEADLINE`], with the first job that has not.
    pub async fn wait_for(&self, expected: &[Expectation]) -> anyhow::Result<()> {
        eventually(DEADLINE, async || {
            for Expectation { job, status, .. } in expected {
                let row = self.db.job(*job).await?.context("the job is gone")?;
                let stage = self.db.job_stage(*job).await?;
                anyhow::ensure!(
                    row.status == *status,
                    "job {job} is {}: {stage:?}",
                    row.status
                );
            }
            Ok(())
        })
        .await
    }

    /// Waits until none of the jobs goes on by itself, and closes the books.
    ///
    /// # Errors
    /// After [`DEADLINE`], with a job that still goes on.
    pub async fn books(&self, expected: &[Expectation]) -> anyhow::Result<Books> {
        eventually(DEADLINE, async || {
            for Expectation { job, .. } in expected {
                let stage = self.db.job_stage(*job).await?;
                let goes_on = stage
                    .as_ref()
                    .is_some_and(|stage| matches!(stage.state.as_str(), "waiting" | "dispatched"));
                if goes_on {
                    let stop = self.db.paid_stop().await?;
                    anyhow::bail!("job {job} goes on: {stage:?}; paid sends are stopped: {stop:?}");
                }
            }
            Ok(())
        })
        .await?;
        Books::close(&self.database.url, &self.control, expected).await
    }

    async fn close(self, keep_logs: bool) -> anyhow::Result<()> {
        drop(self.db);
        self.sandbox.stop().await;
        self.queues.delete().await?;
        self.database.drop().await?;
        if keep_logs {
            eprint_folder(&self.folder);
        } else {
            std::fs::remove_dir_all(&self.folder)?;
        }
        Ok(())
    }
}

#[expect(
    clippy::print_stderr,
    reason = "for the person who reads why a test failed"
)]
fn eprint_folder(folder: &Path) {
    eprintln!("logs of the fleet's processes: {}", folder.display());
}
