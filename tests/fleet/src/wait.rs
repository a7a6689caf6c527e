//! Waiting for a state with a deadline; the only place that sleeps.

use std::time::{Duration, Instant};

/// No wait of a test for one state needs longer, on a slow machine either.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(20);

/// Looks until `look` gives a value instead of saying what it saw.
///
/// # Errors
/// What `look` said last, when the deadline has passed.
pub async fn eventually<T>(
    deadline: Duration,
    mut look: impl AsyncFnMut() -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let until = Instant::now() + deadline;
    loop {
        match look().await {
            Ok(value) => return Ok(value),
            Err(seen) if Instant::now() >= until => {
                return Err(seen.context(format!("not within {deadline:?}")));
            }
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_ends_with_the_value_or_with_what_was_seen_last() {
        let mut looks = 0;
        let value = eventually(DEADLINE, async || {
            looks += 1;
            anyhow::ensure!(looks > 2, "too early");
            Ok(looks)
        });
        assert_eq!(value.await.unwrap(), 3);
        let never = eventually(Duration::ZERO, async || -> anyhow::Result<()> {
            anyhow::bail!("saw a cat")
        });
        assert!(format!("{:#}", never.await.unwrap_err()).contains("saw a cat"));
    }
}
