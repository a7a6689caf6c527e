//! The producer's commands as processes: their exit codes and what they write.

use std::process::Stdio;

use fleet::{Environment, binary};
use serde_json::Value;

/// How a command ended and what it wrote.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ended {
    /// The document of a command that ended with this code.
    pub(crate) fn json(&self, code: i32) -> Value {
        assert_eq!(self.code, Some(code), "{self:?}");
        serde_json::from_str(&self.stdout).unwrap()
    }

    /// Checks that it ended with this code and said this.
    pub(crate) fn said(&self, code: i32, text: &str) {
        assert_eq!(self.code, Some(code), "{self:?}");
        let all = format!("{}{}", self.stdout, self.stderr);
        assert!(all.contains(text), "`{text}` is not in {self:?}");
    }
}

/// Runs `producer` with these arguments.
pub(crate) async fn producer(environment: &Environment, args: &[&str]) -> anyhow::Result<Ended> {
    let output = tokio::process::Command::new(binary("producer")?)
        .args(args)
        .env_clear()
        .envs(environment.variables())
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(fleet::DEADLINE, output).await??;
    Ok(Ended {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout)?,
        stderr: String::from_utf8(output.stderr)?,
    })
}
