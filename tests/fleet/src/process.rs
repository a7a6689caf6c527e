//! The fleet's binaries as real processes: started, watched through their logs, terminated, killed.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::Context as _;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::process::{Child, Command};

use crate::Environment;
use crate::wait::{DEADLINE, eventually};

/// A running binary in a process group of its own, with its output in a file. Killed when dropped.
pub struct Process {
    /// What it is called here; its log is `<name>.log`.
    pub name: String,
    log: PathBuf,
    child: Child,
}

/// A binary of the workspace, beside the running one; a test's own executable is one folder deeper.
///
/// # Errors
/// When it is not there: `cargo build --workspace --bins` makes it.
pub fn binary(name: &str) -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe()?;
    let found = own
        .ancestors()
        .skip(1)
        .take(2)
        .map(|folder| folder.join(name))
        .find(|path| path.is_file());
    found.with_context(|| {
        format!(
            "no `{name}` beside {}; run `cargo build --workspace --bins` in the same profile",
            own.display()
        )
    })
}

impl Process {
    /// Starts a binary of the workspace with these variables and no others.
    ///
    /// # Errors
    /// When the binary or the folder is not there.
    pub fn start<'a>(
        name: &str,
        program: &str,
        args: impl IntoIterator<Item = impl AsRef<OsStr>>,
        variables: impl IntoIterator<Item = (&'a str, &'a str)>,
        folder: &Path,
    ) -> anyhow::Result<Self> {
        Self::spawn(
            name,
            Command::new(binary(program)?).args(args),
            variables,
            folder,
        )
    }

    /// A producer that may open no more than so many files.
    ///
    /// # Errors
    /// Like [`Process::start`].
    pub fn producer_with_files<'a>(
        name: &str,
        files: u32,
        variables: impl IntoIterator<Item = (&'a str, &'a str)>,
        folder: &Path,
    ) -> anyhow::Result<Self> {
        let mut shell = Command::new("/bin/sh");
        let shell = shell
            .args(["-c", "ulimit -n \"$1\" && exec \"$0\" serve"])
            .arg(binary("producer")?)
            .arg(files.to_string());
        Self::spawn(name, shell, variables, folder)
    }

    fn spawn<'a>(
        name: &str,
        command: &mut Command,
        variables: impl IntoIterator<Item = (&'a str, &'a str)>,
        folder: &Path,
    ) -> anyhow::Result<Self> {
        let log = folder.join(format!("{name}.log"));
        let file = File::create(&log).with_context(|| log.display().to_string())?;
        let child = command
            // By which a later run recognises it, see `RunFolder`.
            .current_dir(folder)
            .env_clear()
            .env("RUST_BACKTRACE", "1")
            .envs(variables)
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            // Ctrl-C in a terminal is for the one who started it.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        Ok(Self {
            name: name.to_owned(),
            log,
            child,
        })
    }

    /// Starts the sandbox and returns the endpoints and credentials it announces.
    ///
    /// # Errors
    /// Like [`Process::logged`].
    pub async fn sandbox(
        args: impl IntoIterator<Item = String>,
        folder: &Path,
    ) -> anyhow::Result<(Self, BTreeMap<String, String>)> {
        let mut sandbox = Self::start("sandbox", "sandbox", args, [], folder)?;
        let announced = sandbox
            .logged(DEADLINE, |line| line["SANDBOX_CONTROL_URL"].is_string())
            .await?;
        let announced = announced.as_object().into_iter().flatten();
        let announced =
            announced.filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())));
        Ok((sandbox, announced.collect()))
    }

    /// Brings the database of this environment up to date.
    ///
    /// # Errors
    /// Like [`Process::logged`].
    pub async fn migrate(environment: &Environment, folder: &Path) -> anyhow::Result<()> {
        let variables = environment.variables();
        let mut migrate = Self::start("migrate", "producer", ["migrate"], variables, folder)?;
        let migrated = |line: &Value| line["message"] == "the database is up to date";
        migrate.logged(DEADLINE, migrated).await?;
        Ok(())
    }

    /// Waits for the first line of the log that is a JSON object accepted by `wanted`.
    ///
    /// # Errors
    /// When the process ends, or the deadline passes, before that.
    pub async fn logged(
        &mut self,
        deadline: Duration,
        wanted: impl Fn(&Value) -> bool,
    ) -> anyhow::Result<Value> {
        let found = eventually(deadline, async || {
            // Looked at before the log is read: what an ended process has written is complete.
            let ended = self.child.try_wait()?;
            let text = std::fs::read_to_string(&self.log)?;
            let mut lines = text
                .lines()
                .filter_map(|line| serde_json::from_str(line).ok());
            match (lines.find(|line| wanted(line)), ended) {
                (Some(line), _) => Ok(Ok(line)),
                (None, Some(status)) => Ok(Err(status)),
                (None, None) => anyhow::bail!("the log has no such line yet"),
            }
        });
        let found = match found.await {
            Ok(Ok(line)) => Ok(line),
            Ok(Err(status)) => Err(anyhow::anyhow!("it ended: {status}")),
            Err(error) => Err(error),
        };
        found.with_context(|| format!("{}, see {}", self.name, self.log.display()))
    }

    /// Waits until a producer or worker has logged that it is started; the fields of the line are its addresses.
    ///
    /// # Errors
    /// Like [`Process::logged`].
    pub async fn started(&mut self) -> anyhow::Result<Value> {
        self.logged(DEADLINE, is_start).await
    }

    /// The same without waiting: none when it has not logged that yet.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn has_started(&self) -> anyhow::Result<Option<Value>> {
        let text = std::fs::read_to_string(&self.log)?;
        let mut lines = text
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok());
        Ok(lines.find(is_start))
    }

    /// How it ended, if it has.
    ///
    /// # Errors
    /// When the system does not tell.
    pub fn ended(&mut self) -> std::io::Result<Option<ExitStatus>> {
        self.child.try_wait()
    }

    /// Waits for its end, without doing anything to bring it about.
    ///
    /// # Errors
    /// When it still runs after `deadline`.
    pub async fn end(&mut self, deadline: Duration) -> anyhow::Result<ExitStatus> {
        let ended = tokio::time::timeout(deadline, self.child.wait()).await;
        let ended = ended
            .with_context(|| format!("{} still runs, see {}", self.name, self.log.display()))?;
        Ok(ended?)
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// When it has ended.
    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let pid = self
            .pid()
            .with_context(|| format!("{} has ended", self.name))?;
        Ok(kill_process(pid, signal)?)
    }

    /// Whether SIGSTOP has stopped it.
    ///
    /// # Errors
    /// When it has ended.
    pub fn is_stopped(&self) -> anyhow::Result<bool> {
        let id = self.child.id().context("it has ended")?;
        let stat = std::fs::read_to_string(format!("/proc/{id}/stat"))?;
        // The state follows the name in brackets, proc_pid_stat(5).
        Ok(stat
            .rsplit_once(") ")
            .is_some_and(|(_, rest)| rest.starts_with('T')))
    }

    /// Its log.
    #[must_use]
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Freezes it with SIGSTOP, or lets it go on with SIGCONT.
    ///
    /// # Errors
    /// When it has ended.
    pub fn freeze(&self, frozen: bool) -> anyhow::Result<()> {
        self.signal(if frozen { Signal::STOP } else { Signal::CONT })
    }

    fn pid(&self) -> Option<Pid> {
        let id = self.child.id().and_then(|id| i32::try_from(id).ok());
        id.and_then(Pid::from_raw)
    }

    /// Ends it with SIGKILL: nothing in it runs any more when this returns.
    ///
    /// # Errors
    /// When it has ended already, by itself.
    pub async fn kill(&mut self) -> anyhow::Result<()> {
        let gone = || format!("{} ended by itself, see {}", self.name, self.log.display());
        anyhow::ensure!(self.child.try_wait()?.is_none(), gone());
        self.child.start_kill()?;
        self.child.wait().await?;
        Ok(())
    }

    /// Asks it to stop with SIGTERM and waits for its end; kills it when that takes longer than `grace`.
    ///
    /// # Errors
    /// When the system refuses.
    pub async fn terminate(&mut self, grace: Duration) -> anyhow::Result<ExitStatus> {
        if self.child.id().is_some() {
            self.signal(Signal::TERM)?;
        }
        match tokio::time::timeout(grace, self.child.wait()).await {
            Ok(status) => Ok(status?),
            Err(_) => {
                self.child.start_kill()?;
                Ok(self.child.wait().await?)
            }
        }
    }
}

fn is_start(line: &Value) -> bool {
    let message = line["message"].as_str().unwrap_or_default();
    matches!(message, "producer started" | "worker started")
}
