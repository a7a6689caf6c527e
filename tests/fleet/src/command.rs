//! The producer's commands as processes: their exit codes and what they write.

use std::process::Stdio;

use serde_json::Value;

use crate::{DEADLINE, Environment, binary};

/// How a command ended and what it wrote.
#[derive(Debug)]
pub struct Ended {
    /// Its exit code; none after a signal.
    pub code: Option<i32>,
    /// What it wrote for programs.
    pub stdout: String,
    /// What it wrote for people.
    pub stderr: String,
}

impl Ended {
    /// The document of a command that ended with this code.
    ///
    /// # Panics
    /// When it ended otherwise, or wrote something else.
    #[must_use]
    pub fn json(&self, code: i32) -> Value {
        assert_eq!(self.code, Some(code), "{self:?}");
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Checks that it ended with this code and said this.
    ///
    /// # Panics
    /// When it did not.
    pub fn said(&self, code: i32, text: &str) {
        assert_eq!(self.code, Some(code), "{self:?}");
        let all = format!("{}{}", self.stdout, self.stderr);
        assert!(all.contains(text), "`{text}` is not in {self:?}");
    }
}

/// Runs `producer` with these arguments.
///
/// # Errors
/// When it cannot be started or takes too long.
pub async fn producer(environment: &Environment, args: &[&str]) -> anyhow::Result<Ended> {
    let output = tokio::process::Command::new(binary("producer")?)
        .args(args)
        .env_clear()
        .envs(environment.variables())
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(DEADLINE, output).await??;
    Ok(Ended {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout)?,
        stderr: String::from_utf8(output.stderr)?,
    })
}
