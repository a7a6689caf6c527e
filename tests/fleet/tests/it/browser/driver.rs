//! The `chromedriver` of a test, a process that starts browsers and passes on what they are told: on a port of its own, and gone with
//! its browsers when the test ends, however that ends. Must not know what the browsers are for.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::Context as _;
use fleet::{DEADLINE, eventually};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::{Child, Command};

/// The program of a Debian package, by which it can be installed.
pub(super) fn program(name: &str) -> anyhow::Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|folder| folder.join(name));
    let mut found = found.filter(|file| file.is_file());
    found.next().with_context(|| {
        format!("`{name}` is needed: `deploy/local install chromium chromium-driver` installs it")
    })
}

/// A `chromedriver` and every browser it started, which are in its process group. Killed when dropped.
pub(super) struct Driver {
    child: Child,
    group: Option<Pid>,
    /// Where it listens.
    pub(super) url: String,
}

impl Driver {
    /// Starts one on a free port, with this folder as its home.
    pub(super) async fn start(home: &Path) -> anyhow::Result<Self> {
        const ATTEMPTS: usize = 5;
        std::fs::create_dir_all(home)?;
        let log = home.join("chromedriver.log");
        for _ in 0..ATTEMPTS {
            let mut driver = Self::launch(home, &log)?;
            if driver.listens(&log).await? {
                return Ok(driver);
            }
        }
        anyhow::bail!("chromedriver ends at once, see {}", log.display())
    }

    fn launch(home: &Path, log: &Path) -> anyhow::Result<Self> {
        let file = File::create(log)?;
        let child = Command::new(program("chromedriver")?)
            .arg("--port=0")
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", home)
            .env("TMPDIR", home)
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .context("cannot start chromedriver")?;
        let group = child.id().and_then(|id| i32::try_from(id).ok());
        Ok(Self {
            group: group.and_then(Pid::from_raw),
            child,
            url: String::new(),
        })
    }

    /// Waits until it listens. False: it has ended, as it does when the port that it chose for IPv6 is taken for IPv4.
    async fn listens(&mut self, log: &Path) -> anyhow::Result<bool> {
        let port = eventually(DEADLINE, async || {
            // Looked at before the log is read: what an ended process has written is complete.
            let ended = self.child.try_wait()?.is_some();
            let text = std::fs::read_to_string(log)?;
            let line = text.split_once("started successfully on port ");
            match line.and_then(|(_, rest)| rest.split_once('.')) {
                Some((port, _)) => Ok(Some(port.to_owned())),
                None if ended => Ok(None),
                None => anyhow::bail!("it does not listen yet: {text}"),
            }
        })
        .await?;
        if let Some(port) = &port {
            self.url = format!("http://127.0.0.1:{port}");
        }
        Ok(port.is_some())
    }

    /// Ends it and its browsers, which need not be gone yet when this returns.
    pub(super) async fn stop(&mut self) -> anyhow::Result<()> {
        self.kill();
        self.child.wait().await?;
        Ok(())
    }

    fn kill(&mut self) {
        // Taken, since a group that is gone may come again as somebody else's.
        if let Some(group) = self.group.take() {
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.kill();
    }
}
