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
        std::fs::create_dir_all(home)?;
        let log = home.join("chromedriver.log");
        let file = File::create(&log)?;
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
        let mut driver = Self {
            group: group.and_then(Pid::from_raw),
            child,
            url: String::new(),
        };
        let port = eventually(DEADLINE, async || {
            let text = std::fs::read_to_string(&log)?;
            let (_, rest) = text
                .split_once("started successfully on port ")
                .with_context(|| text.clone())?;
            let port = rest.split_once('.').context("half a line")?.0;
            Ok(port.to_owned())
        });
        driver.url = format!("http://127.0.0.1:{}", port.await?);
        Ok(driver)
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
