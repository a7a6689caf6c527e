//! A clock that counts suspended time, for deadlines that the database set.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// A moment on the boot clock. `std::time::Instant` stands still while the machine is suspended, so a worker that slept
/// through its deadline would think there was time left.
#[derive(Clone, Copy, Debug)]
pub struct BootTime(Duration);

impl BootTime {
    /// Now.
    #[must_use]
    pub fn now() -> Self {
        let time = clock_gettime(ClockId::Boottime);
        let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
        let nanos = u32::try_from(time.tv_nsec).unwrap_or(0);
        Self(Duration::new(seconds, nanos))
    }

    /// How long ago it was.
    #[must_use]
    pub fn elapsed(self) -> Duration {
        Self::now().0.saturating_sub(self.0)
    }
}
