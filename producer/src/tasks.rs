//! The tasks of a running producer. None of them may end before the stop: what is not dispatched, swept or taken in any more would
//! be missed by nobody while the process looks ready.

use std::panic::AssertUnwindSafe;

use anyhow::Context as _;
use futures::FutureExt as _;
use tokio::task::JoinSet;

/// Everything that a producer does side by side. Ends with it.
#[derive(Default)]
pub struct Tasks(JoinSet<(&'static str, anyhow::Result<()>)>);

impl Tasks {
    /// Starts one; `name` is for the error that tells of its end.
    pub fn spawn(&mut self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        self.spawn_fallible(name, task.map(Ok));
    }

    /// Starts one that can fail.
    pub fn spawn_fallible(
        &mut self,
        name: &'static str,
        task: impl Future<Output = anyhow::Result<()>> + Send + 'static,
    ) {
        // The panic hook has written the message already.
        let task = AssertUnwindSafe(task)
            .catch_unwind()
            .map(move |end| (name, end.unwrap_or_else(|_| anyhow::bail!("it panicked"))));
        self.0.spawn(task);
    }

    /// Waits until one has ended, which is an error whatever it ended with. Dropping the future loses nothing.
    pub async fn ended(&mut self) -> anyhow::Error {
        match self.0.join_next().await {
            Some(Ok((name, end))) => {
                let error = end.err().unwrap_or_else(|| anyhow::anyhow!("it ended"));
                error.context(format!("the task `{name}` ended before the stop"))
            }
            Some(Err(error)) => error.into(),
            None => std::future::pending().await,
        }
    }

    /// Waits until all have ended, after the stop; an error is only told.
    pub async fn drained(&mut self) {
        while let Some(ended) = self.0.join_next().await {
            let end = ended
                .context("a task was aborted")
                .map_or_else(|error| ("", Err(error)), |(name, end)| (name, end));
            if let (name, Err(error)) = end {
                tracing::warn!(task = name, "failed while stopping: {error:#}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn whatever_ends_before_the_stop_is_an_error_that_names_it() {
        let mut tasks = Tasks::default();
        tasks.spawn("the stayer", std::future::pending());
        tasks.spawn("the quitter", async {});
        assert!(format!("{:#}", tasks.ended().await).contains("`the quitter`"));
        tasks.spawn_fallible("the loser", async { anyhow::bail!("no queue") });
        let error = format!("{:#}", tasks.ended().await);
        assert!(
            error.contains("`the loser`") && error.contains("no queue"),
            "{error}"
        );
        tasks.spawn("the panicker", async { panic!("a fault of ours") });
        let error = format!("{:#}", tasks.ended().await);
        assert!(
            error.contains("`the panicker`") && error.contains("panicked"),
            "{error}"
        );
    }

    #[tokio::test]
    async fn after_the_stop_all_are_waited_for() {
        let mut tasks = Tasks::default();
        let (said, heard) = tokio::sync::oneshot::channel();
        tasks.spawn_fallible("one", async { anyhow::bail!("late") });
        tasks.spawn("two", async move {
            tokio::task::yield_now().await;
            said.send(()).unwrap();
        });
        tasks.drained().await;
        heard.await.unwrap();
    }
}
