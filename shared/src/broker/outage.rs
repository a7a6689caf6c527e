//! How long to wait before the next try, and when to stop trying.

use std::time::Duration;

use tokio::time::Instant;

/// First pause; doubled up to [`MAX_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// Longest pause: an operator who repaired the broker sees the fleet back within this time.
const MAX_PAUSE: Duration = Duration::from_secs(10);
/// What stood this long was sound: its next fault is a new outage, not the same one flapping.
const STABLE: Duration = Duration::from_secs(10);

/// The bounded backoff of one thing that must stay up.
#[derive(Debug)]
pub(super) struct Outage {
    bound: Duration,
    since: Option<Instant>,
    pauses: u32,
}

impl Outage {
    pub(super) fn new(bound: Duration) -> Self {
        Self {
            bound,
            since: None,
            pauses: 0,
        }
    }

    /// The bound that ends an outage.
    pub(super) fn bound(&self) -> Duration {
        self.bound
    }

    /// Notes that the thing was up for `lifetime` before it failed.
    pub(super) fn stood(&mut self, lifetime: Duration) {
        if lifetime >= STABLE {
            *self = Self::new(self.bound);
        }
    }

    /// How long to wait before the next try; none when the outage has lasted for its bound.
    pub(super) fn pause(&mut self) -> Option<Duration> {
        let since = *self.since.get_or_insert_with(Instant::now);
        let left = self
            .bound
            .checked_sub(since.elapsed())
            .filter(|left| !left.is_zero())?;
        let longest = FIRST_PAUSE
            .saturating_mul(1 << self.pauses.min(16))
            .min(MAX_PAUSE);
        self.pauses += 1;
        // Jitter, so that a fleet does not come back as one.
        Some(longest.mul_f64(rand::random_range(0.5..=1.0)).min(left))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_within_their_limits() {
        let mut outage = Outage::new(Duration::from_secs(300));
        let pauses: Vec<_> = (0..40).map(|_| outage.pause().unwrap()).collect();
        assert!(pauses[0] <= FIRST_PAUSE);
        assert!(
            pauses
                .iter()
                .all(|pause| (FIRST_PAUSE / 2..=MAX_PAUSE).contains(pause))
        );
        assert!(pauses[39] >= MAX_PAUSE / 2);
    }

    #[test]
    fn the_bound_ends_it() {
        assert_eq!(Outage::new(Duration::ZERO).pause(), None);
        let mut outage = Outage::new(Duration::from_millis(5));
        assert!(outage.pause().unwrap() <= Duration::from_millis(5));
    }

    #[test]
    fn flapping_is_one_outage_and_a_sound_life_ends_it() {
        let mut outage = Outage::new(Duration::from_secs(300));
        (0..10).for_each(|_| assert!(outage.pause().is_some()));
        outage.stood(STABLE / 2);
        assert!(outage.pause().unwrap() >= MAX_PAUSE / 2);
        outage.stood(STABLE);
        assert!(outage.pause().unwrap() <= FIRST_PAUSE);
    }
}
