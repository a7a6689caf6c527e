//! The parts of a running demo and their end. Whatever was started is stopped again, in whatever state the demo was left.

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use fleet::{
    Api, Control, Database, Environment, Media, Observer, Process, Queues, RunFolder, Servers,
};
use futures::future::join_all;
use shared::config::StorageConfig;
use shared::storage::Storage;

/// How long a process may take to stop: more than the grace of its own.
const GRACE: Duration = Duration::from_secs(15);

/// Everything that runs for the demo.
pub(crate) struct Site {
    folder: RunFolder,
    servers: Option<Servers>,
    database: Option<Database>,
    queues: Option<Queues>,
    sandbox: Option<Process>,
    producer: Option<Process>,
    workers: Vec<Process>,
    workers_started: usize,
    running: Option<Running>,
}

/// What there is to work with once everything is up.
struct Running {
    environment: Environment,
    control: Control,
    media: Media,
    api: Api,
    observer: Observer,
}

impl Site {
    /// A site with a folder for its logs beside the report, and nothing running yet.
    pub(crate) async fn new(report: &Path) -> anyhow::Result<Self> {
        let parent = report.parent().unwrap_or(Path::new("."));
        Ok(Self {
            folder: RunFolder::new(parent).await?,
            servers: None,
            database: None,
            queues: None,
            sandbox: None,
            producer: None,
            workers: Vec::new(),
            workers_started: 0,
            running: None,
        })
    }

    /// Starts servers, sandbox, producer and workers. `slowness` is the shortest time of a work at the vendors.
    pub(crate) async fn start(
        &mut self,
        workers: u32,
        seed: u64,
        slowness: Duration,
    ) -> anyhow::Result<()> {
        let servers = self.servers.insert(Servers::get("demo").await?);
        let database = Database::create(&servers.database_url).await?;
        let database = self.database.insert(database);
        let queues = self.queues.insert(Queues::new(&servers.amqp_url));
        let ms = slowness.as_millis();
        let args = [
            format!("--seed={seed}"),
            format!("--process-ms-min={ms}"),
            format!("--process-ms-max={}", ms * 3),
            format!(
                "--data-dir={}",
                self.folder.path().join("sandbox").display()
            ),
        ];
        let (sandbox, announced) = Process::sandbox(args, self.folder.path()).await?;
        self.sandbox = Some(sandbox);
        let environment =
            Environment::fast(&database.url, &servers.amqp_url, &queues.prefix, announced);
        let database_url = database.url.clone();
        self.start_producer(&environment).await?;
        let address = self.started_producer().await?;
        let storage = Storage::new(&environment.parse::<StorageConfig>()?)?;
        self.running = Some(Running {
            control: Control::new(environment.get("SANDBOX_CONTROL_URL")?)?,
            media: Media::upload(&storage, environment.get("SANDBOX_MEDIA_URL")?).await?,
            api: Api::new(&address)?,
            observer: Observer::connect(&database_url).await?,
            environment,
        });
        for _ in 0..workers {
            self.start_worker()?;
        }
        for worker in &mut self.workers {
            worker.started().await?;
        }
        Ok(())
    }

    async fn start_producer(&mut self, environment: &Environment) -> anyhow::Result<()> {
        let folder = self.folder.path();
        Process::migrate(environment, folder).await?;
        let variables = environment.variables();
        let producer = Process::start("producer", "producer", ["serve"], variables, folder)?;
        self.producer = Some(producer);
        Ok(())
    }

    async fn started_producer(&mut self) -> anyhow::Result<String> {
        let producer = self.producer.as_mut().context("no producer")?;
        let line = producer.started().await?;
        Ok(line["http"].as_str().context("no address")?.to_owned())
    }

    fn start_worker(&mut self) -> anyhow::Result<()> {
        self.workers_started += 1;
        let name = format!("worker-{}", self.workers_started);
        let environment = self
            .running()?
            .environment
            .clone()
            .with("WORKER_NAME", &name);
        let none: [&str; 0] = [];
        let variables = environment.variables();
        let worker = Process::start(&name, "worker", none, variables, self.folder.path())?;
        self.workers.push(worker);
        Ok(())
    }

    /// Kills the worker at `index` and waits until another has taken its place. Returns the names of both.
    pub(crate) async fn replace_worker(
        &mut self,
        index: usize,
    ) -> anyhow::Result<(String, String)> {
        let mut victim = self.workers.swap_remove(index);
        victim.kill().await?;
        self.start_worker()?;
        let replacement = self.workers.last_mut().context("no worker")?;
        replacement.started().await?;
        Ok((victim.name, replacement.name.clone()))
    }

    /// Names of the workers that run.
    pub(crate) fn workers(&self) -> Vec<&str> {
        self.workers.iter().map(|w| w.name.as_str()).collect()
    }

    /// Says so if a process ended that nobody killed.
    pub(crate) fn check_processes(&mut self) -> anyhow::Result<()> {
        let processes = self.workers.iter_mut().chain(&mut self.producer);
        for process in processes.chain(&mut self.sandbox) {
            if let Some(status) = process.ended()? {
                anyhow::bail!("{} ended by itself: {status}", process.name);
            }
        }
        Ok(())
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn control(&self) -> anyhow::Result<&Control> {
        Ok(&self.running()?.control)
    }

    pub(crate) fn media(&self) -> anyhow::Result<&Media> {
        Ok(&self.running()?.media)
    }

    pub(crate) fn api(&self) -> anyhow::Result<&Api> {
        Ok(&self.running()?.api)
    }

    pub(crate) fn observer(&mut self) -> anyhow::Result<&mut Observer> {
        let running = self.running.as_mut().context("nothing runs yet")?;
        Ok(&mut running.observer)
    }

    pub(crate) fn database_url(&self) -> anyhow::Result<&str> {
        self.running()?.environment.get("DATABASE_URL")
    }

    fn running(&self) -> anyhow::Result<&Running> {
        self.running.as_ref().context("nothing runs yet")
    }

    /// Stops everything and removes what it left, or says where it is kept. Returns what could not be done.
    pub(crate) async fn close(mut self, keep: bool) -> Vec<String> {
        let mut problems = Vec::new();
        let mut note = |result: anyhow::Result<()>| {
            problems.extend(result.err().map(|error| format!("{error:#}")));
        };
        drop(self.running.take());
        let fleet = self.workers.iter_mut().chain(&mut self.producer);
        for ended in join_all(fleet.map(|process| process.terminate(GRACE))).await {
            note(ended.map(drop));
        }
        if let Some(sandbox) = &mut self.sandbox {
            note(sandbox.terminate(GRACE).await.map(drop));
        }
        match (self.database, self.queues) {
            (Some(database), _) if keep => note(Err(anyhow::anyhow!("kept {}", database.url))),
            (database, queues) => {
                if let Some(queues) = queues {
                    note(queues.delete().await);
                }
                if let Some(database) = database {
                    note(database.drop().await);
                }
                if self.sandbox.is_some() {
                    let objects = std::fs::remove_dir_all(self.folder.path().join("sandbox"));
                    note(objects.context("objects of the sandbox"));
                }
            }
        }
        if let Some(servers) = self.servers {
            servers.release().await;
        }
        problems
    }
}
