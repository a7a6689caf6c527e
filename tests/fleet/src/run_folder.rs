//! A folder for the logs of one run. The processes of a run work in its folder, by which a later run recognises and ends those
//! that a killed one has left. It never signals a process that works anywhere else.

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use rustix::process::{Pid, Signal, kill_process};

use crate::wait::{DEADLINE, eventually};

/// A folder `run-<process id>` that is this process's own for as long as the value lives.
pub struct RunFolder {
    path: PathBuf,
    /// Held by the run; the kernel lets go of it however the run ends.
    _lock: File,
}

impl RunFolder {
    /// Makes one in `parent`, after ending the processes of runs there that are over. Their logs stay.
    ///
    /// # Errors
    /// When the folder cannot be made, or a process left behind does not end.
    pub async fn new(parent: &Path) -> anyhow::Result<Self> {
        let named = || parent.display().to_string();
        std::fs::create_dir_all(parent).with_context(named)?;
        // Of processes one learns the whole path.
        let parent = parent.canonicalize().with_context(named)?;
        for entry in std::fs::read_dir(&parent)? {
            let folder = entry?.path();
            let name = folder.file_name().and_then(|name| name.to_str());
            if name.is_some_and(|name| name.starts_with("run-")) {
                end_left(&folder).await?;
            }
        }
        let path = parent.join(format!("run-{}", std::process::id()));
        // A process of the same id may have left one.
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir(&path).with_context(named)?;
        let lock = File::create(path.join("lock"))?;
        lock.try_lock().with_context(named)?;
        Ok(Self { path, _lock: lock })
    }

    /// Its absolute path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Ends what works in the folder of a run that is over.
async fn end_left(folder: &Path) -> anyhow::Result<()> {
    let Ok(lock) = File::open(folder.join("lock")) else {
        return Ok(());
    };
    if lock.try_lock().is_err() {
        return Ok(());
    }
    eventually(DEADLINE, async || {
        let left = working_in(folder)?;
        for pid in &left {
            let _ = kill_process(*pid, Signal::KILL);
        }
        anyhow::ensure!(left.is_empty(), "{left:?} do not end");
        Ok(())
    })
    .await
    .with_context(|| {
        format!(
            "processes of a run that was killed, in {}",
            folder.display()
        )
    })
}

fn working_in(folder: &Path) -> std::io::Result<Vec<Pid>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let entry = entry?;
        let pid = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok());
        let Some(pid) = pid.and_then(Pid::from_raw) else {
            continue;
        };
        // Of processes that are gone or somebody else's there is nothing to read.
        if std::fs::read_link(entry.path().join("cwd")).is_ok_and(|cwd| cwd == folder) {
            found.push(pid);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[tokio::test]
    async fn a_run_ends_what_a_killed_one_left_and_nothing_of_a_live_one() {
        let parent = std::env::temp_dir().join(format!("run-folders-{}", std::process::id()));
        let sleeper = |folder: &Path| {
            let mut command = Command::new("cat");
            let command = command.current_dir(folder).stdin(Stdio::piped());
            command.spawn().unwrap()
        };
        std::fs::create_dir_all(parent.join("run-dead")).unwrap();
        std::fs::create_dir_all(parent.join("run-live")).unwrap();
        let parent = parent.canonicalize().unwrap();
        File::create(parent.join("run-dead/lock")).unwrap();
        let live = File::create(parent.join("run-live/lock")).unwrap();
        live.lock().unwrap();
        let mut left = sleeper(&parent.join("run-dead"));
        let mut kept = sleeper(&parent.join("run-live"));
        // A zombie has no working directory, so it need not be reaped first.
        let run = RunFolder::new(&parent).await.unwrap();
        assert!(!left.wait().unwrap().success(), "killed");
        assert!(kept.try_wait().unwrap().is_none(), "not killed");
        assert!(run.path().starts_with(&parent));
        drop(kept.stdin.take());
        assert!(kept.wait().unwrap().success());
        std::fs::remove_dir_all(&parent).unwrap();
    }
}
