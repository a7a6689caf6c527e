//! The fleet's binaries as real processes: started, watched through their logs, terminated, killed.

use std::ffi::OsStr;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::Context as _;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::process::{Child, Command};

use crate::wait::eventually;

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
        let log = folder.join(format!("{name}.log"));
        let file = File::create(&log).with_context(|| log.display().to_string())?;
        let child = Command::new(binary(program)?)
            .args(args)
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
            .with_context(|| format!("cannot start {program}"))?;
        Ok(Self {
            name: name.to_owned(),
            log,
            child,
        })
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
        let is_start = |line: &Value| {
            let message = line["message"].as_str().unwrap_or_default();
            matches!(message, "producer started" | "worker started")
        };
        self.logged(crate::DEADLINE, is_start).await
    }

    /// How it ended, if it has.
    ///
    /// # Errors
    /// When the system does not tell.
    pub fn ended(&mut self) -> std::io::Result<Option<ExitStatus>> {
        self.child.try_wait()
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
        let pid = self.child.id().and_then(|id| i32::try_from(id).ok());
        if let Some(pid) = pid.and_then(Pid::from_raw) {
            kill_process(pid, Signal::TERM)?;
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
