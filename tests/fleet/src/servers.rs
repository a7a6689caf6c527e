//! PostgreSQL and RabbitMQ for a run: those that the environment names, else private ones from `deploy/local`.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::Context as _;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

/// Where the servers are. Private ones live until [`Servers::release`] or until this process is gone, however it ends.
pub struct Servers {
    /// Of a database whose user may create databases.
    pub database_url: String,
    /// Of a virtual host whose user may configure, write and read.
    pub amqp_url: String,
    /// `deploy/local run`, which stops what it started when its command ends: a `cat` that reads our end of a pipe.
    holder: Option<Child>,
}

impl Servers {
    /// The servers of `DATABASE_URL` and `AMQP_URL`; without these, the private instance `name`, shared with whoever uses it too.
    ///
    /// # Errors
    /// When `deploy/local` cannot start them.
    pub async fn get(name: &str) -> anyhow::Result<Self> {
        let given = |variable| {
            std::env::var(variable)
                .ok()
                .filter(|value| !value.is_empty())
        };
        if let (Some(database_url), Some(amqp_url)) = (given("DATABASE_URL"), given("AMQP_URL")) {
            return Ok(Self {
                database_url,
                amqp_url,
                holder: None,
            });
        }
        Self::private(name).await
    }

    /// The private instance `name`, whatever the environment names: for tests that restart servers.
    ///
    /// # Errors
    /// When `deploy/local` cannot start them.
    pub async fn private(name: &str) -> anyhow::Result<Self> {
        Self::cluster(name, 1).await
    }

    /// The same with so many RabbitMQ nodes; `amqp_url` then names them all, separated by commas.
    ///
    /// # Errors
    /// When `deploy/local` cannot start them.
    pub async fn cluster(name: &str, brokers: usize) -> anyhow::Result<Self> {
        let script = local_script();
        let mut holder = Command::new(&script)
            .env_remove("DATABASE_URL")
            .env_remove("AMQP_URL")
            .args(["--name", name, "--brokers", &brokers.to_string()])
            .args(["run", "--", "sh", "-c"])
            .arg(r#"printf '%s\n' "$DATABASE_URL" "$AMQP_URL"; exec cat"#)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // Ctrl-C is for us: the servers are needed until everything else has stopped.
            .process_group(0)
            .spawn()
            .with_context(|| script.display().to_string())?;
        let out = holder.stdout.take().context("deploy/local has no output")?;
        let mut lines = BufReader::new(out).lines();
        let mut line = async || {
            let line = lines.next_line().await?;
            line.context("deploy/local started no servers; it says why above")
        };
        Ok(Self {
            database_url: line().await?,
            amqp_url: line().await?,
            holder: Some(holder),
        })
    }

    /// Stops the servers if nobody else uses them and they were not running before.
    pub async fn release(self) {
        if let Some(mut holder) = self.holder {
            drop(holder.stdin.take());
            let _ = holder.wait().await;
        }
    }
}

/// Tells `deploy/local` to do something with the private instance `name`, such as `["restart", "rabbitmq"]`.
///
/// # Errors
/// When it does not succeed.
pub async fn local(name: &str, command: &[&str]) -> anyhow::Result<()> {
    let status = Command::new(local_script())
        .args(["--name", name])
        .args(command)
        .stdout(Stdio::null())
        // A Ctrl-C must not leave half a restart.
        .process_group(0)
        .status()
        .await?;
    anyhow::ensure!(
        status.success(),
        "deploy/local --name {name} {} failed",
        command.join(" ")
    );
    Ok(())
}

/// Where the servers of the private instance `name` are now: `DATABASE_URL` and `AMQP_URL`.
///
/// # Errors
/// When it is not up.
pub async fn local_urls(name: &str) -> anyhow::Result<(String, String)> {
    let output = Command::new(local_script())
        .args(["--name", name, "env"])
        .output()
        .await?;
    let text = String::from_utf8(output.stdout)?;
    let value = |variable: &str| {
        let start = format!("export {variable}='");
        let mut lines = text.lines();
        let line = lines.find_map(|line| line.strip_prefix(&start));
        let value = line.and_then(|line| line.strip_suffix('\''));
        let value = value.with_context(|| format!("deploy/local --name {name}: no {variable}"));
        value.map(str::to_owned)
    };
    Ok((value("DATABASE_URL")?, value("AMQP_URL")?))
}

fn local_script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/local")
}
