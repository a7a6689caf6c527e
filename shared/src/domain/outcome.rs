//! What a run of a stage came to, as a value, and how long to wait before the next try.

use std::time::Duration;

use super::transition::Event;
use super::words::vocabulary;

/// What a run of a stage came to. The worker turns it into one transaction and then one acknowledgement.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// The stage is over; the transition table says what follows.
    Advance {
        /// What happened.
        event: Event,
        /// When the next stage is due.
        after: Duration,
    },
    /// Nothing wrong, not yet: the same stage again. Spends no try.
    Later {
        /// When.
        after: Duration,
        /// Percent done to show, where it is known.
        progress: Option<i32>,
    },
    /// A passing error: the same stage again. Spends a try.
    Retry {
        /// When; by [`retry_delay`] when the other side did not say.
        after: Option<Duration>,
        /// What went wrong, for people.
        error: String,
    },
    /// Only a person or a condition can go on.
    Park {
        /// Why, for alerts and lists.
        reason: Reason,
        /// What happened, for people.
        error: String,
    },
    /// The job's own fault: it ends as failed, without a dead letter.
    Fail {
        /// Why.
        reason: Reason,
        /// What to show the user.
        error: String,
    },
    /// The job was ended by somebody else (canceled, deleted and made anew): its stage goes, nothing else changes.
    Over {
        /// What was found.
        why: String,
    },
    /// Tries exhausted or impossible: dead letter.
    GiveUp {
        /// Why.
        reason: Reason,
        /// What happened, for people.
        error: String,
    },
}

vocabulary! {
    /// Why a job stands still or has ended. Also `video_jobs.error_code`.
    Reason {
        /// The stored job is not one that the fleet can run.
        InvalidJob = "invalid_job",
        /// The vendor refused the request.
        Rejected = "rejected",
        /// An input could not be read, by us before paying or by the vendor.
        InputUnreadable = "input_unreadable",
        /// An input breaks a limit of a vendor, or a time of the job lies outside of it; found before paying.
        InputUnsuitable = "input_unsuitable",
        /// The work failed at the vendor for good.
        VendorFailed = "vendor_failed",
        /// The vendor's support or an operator has to act at the vendor.
        VendorNeedsOperator = "vendor_needs_operator",
        /// Points ran out; the work waits at the vendor.
        OutOfPoints = "out_of_points",
        /// Whether the vendor has the work could not be decided.
        OutcomeUndecided = "outcome_undecided",
        /// The vendor does not know an id that it gave us.
        WorkVanished = "work_vanished",
        /// The bound on paid attempts is reached.
        AttemptsExhausted = "attempts_exhausted",
        /// The bound on tries of one stage is reached.
        TriesExhausted = "tries_exhausted",
        /// The job was started so often without an end that it is taken to kill its consumers.
        KillsConsumers = "kills_consumers",
        /// The result is not a usable video.
        InvalidResult = "invalid_result",
        /// A vendor id belongs to somebody else's submission.
        TaskIdConflict = "task_id_conflict",
        /// A fault of ours.
        InternalError = "internal_error",
    }
}

impl Reason {
    /// What it means, as the end of "it stands because …".
    #[must_use]
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::InvalidJob => "the stored job is not one that the fleet can run",
            Self::Rejected => "the vendor refused the request",
            Self::InputUnreadable => "an input could not be read",
            Self::InputUnsuitable => {
                "an input breaks a limit of the vendor, or is shorter than the times of the job"
            }
            Self::VendorFailed => "the work failed at the vendor for good",
            Self::VendorNeedsOperator => "somebody has to act at the vendor",
            Self::OutOfPoints => "the account ran out of points; the work waits at the vendor",
            Self::OutcomeUndecided => "nobody can tell whether the vendor has the work",
            Self::WorkVanished => "the vendor does not know an id that it gave us",
            Self::AttemptsExhausted => "the bound on paid attempts is reached",
            Self::TriesExhausted => "the stage failed as often as it may",
            Self::KillsConsumers => {
                "it was started again and again and never ended, so it seems to kill workers"
            }
            Self::InvalidResult => "the result is not a usable video",
            Self::TaskIdConflict => "a vendor id belongs to somebody else's submission",
            Self::InternalError => "of a fault of ours",
        }
    }

    /// What a person can do about it.
    #[must_use]
    pub const fn remedy(self) -> &'static str {
        match self {
            Self::InvalidJob => "Put it in again.",
            Self::Rejected => "Look at the vendor's answer.",
            Self::InputUnreadable => "Put the file where it can be read, then retry.",
            Self::InputUnsuitable => "Put it in again with another file.",
            Self::VendorFailed => "A retry pays for a new attempt.",
            Self::VendorNeedsOperator => "Look at the vendor's dashboard, then resume.",
            Self::OutOfPoints => "Add points, then resume.",
            Self::OutcomeUndecided => {
                "Look at the vendor's dashboard, then adopt the work or confirm that it is not there."
            }
            Self::WorkVanished => "Look at the vendor's dashboard, then resume or cancel.",
            Self::AttemptsExhausted => "A retry may allow another attempt.",
            Self::TriesExhausted => "Mend what the error says, then replay its dead letter.",
            Self::KillsConsumers => "Look at the workers' logs before it is replayed.",
            Self::InvalidResult => "A replay fetches it again and does not pay again.",
            Self::TaskIdConflict => "Compare the submissions with the vendor's dashboard.",
            Self::InternalError => "The producer's and workers' logs say more.",
        }
    }
}

/// How a stage is retried after passing errors.
#[derive(Clone, Copy, Debug)]
pub struct RetryPolicy {
    /// Delay before the first retry; doubles with each.
    pub first: Duration,
    /// The delay never grows beyond this.
    pub cap: Duration,
    /// Tries before the job is given up, unless a submission is alive.
    pub max_tries: u32,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            first: Duration::from_secs(5),
            cap: Duration::from_secs(15 * 60),
            max_tries: 12,
        }
    }
}

/// Delay before try number `tries + 1`: doubling from the first delay up to the cap, then between half and all of it by
/// `jitter` (0 to 1), so that what failed together does not come back together.
#[must_use]
pub fn retry_delay(policy: &RetryPolicy, tries: u32, jitter: f64) -> Duration {
    let doubled = policy
        .first
        .saturating_mul(2_u32.saturating_pow(tries.min(20)));
    doubled
        .min(policy.cap)
        .mul_f64(0.5 + 0.5 * jitter.clamp(0.0, 1.0))
}

/// Waiting times between polls, searches or replays: one after the other, the last one repeats.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule(Vec<Duration>);

/// A schedule must name at least one delay.
#[derive(Debug, thiserror::Error)]
pub enum InvalidSchedule {
    /// No delay was given.
    #[error("names no delay; give one or more, such as `10s*6,30s*10,1m`")]
    Empty,
    /// An item is not a duration.
    #[error("`{0}` is not a delay such as `30s`, `5m` or `10s*6`")]
    Item(String),
}

impl Schedule {
    /// The delay before step number `step` (from 0).
    #[must_use]
    pub fn delay(&self, step: u32) -> Duration {
        let at = usize::try_from(step)
            .unwrap_or(usize::MAX)
            .min(self.0.len() - 1);
        self.0[at]
    }

    /// The delay that is current when `elapsed` has passed since the first step was scheduled.
    #[must_use]
    pub fn delay_at(&self, elapsed: Duration) -> Duration {
        let mut sum = Duration::ZERO;
        for delay in &self.0 {
            sum += *delay;
            if sum > elapsed {
                return *delay;
            }
        }
        self.delay(u32::MAX)
    }

    /// All listed delays together.
    #[must_use]
    pub fn total(&self) -> Duration {
        self.0.iter().sum()
    }

    /// How many delays are listed.
    #[must_use]
    pub fn len(&self) -> u32 {
        u32::try_from(self.0.len()).unwrap_or(u32::MAX)
    }

    /// Never: a schedule names at least one delay.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        false
    }
}

impl std::str::FromStr for Schedule {
    type Err = InvalidSchedule;

    /// Reads `10s*6,30s*10,60s`: delays in order, `*n` repeats one.
    fn from_str(text: &str) -> Result<Self, InvalidSchedule> {
        let mut delays = Vec::new();
        for item in text
            .split(',')
            .map(str::trim)
            .filter(|item| !item.is_empty())
        {
            let wrong = || InvalidSchedule::Item(item.to_owned());
            let (delay, times) = match item.split_once('*') {
                Some((delay, times)) => (delay, times.parse::<u16>().map_err(|_| wrong())?),
                None => (item, 1),
            };
            let delay = humantime::parse_duration(delay).map_err(|_| wrong())?;
            delays.extend(std::iter::repeat_n(delay, usize::from(times)));
        }
        if delays.is_empty() {
            return Err(InvalidSchedule::Empty);
        }
        Ok(Self(delays))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_to_the_cap_and_spread_over_the_upper_half() {
        let policy = RetryPolicy::default();
        let seconds = |tries, jitter| retry_delay(&policy, tries, jitter).as_secs_f64();
        assert_eq!(
            [seconds(0, 1.0), seconds(1, 1.0), seconds(2, 1.0)],
            [5.0, 10.0, 20.0]
        );
        assert_eq!([seconds(50, 1.0), seconds(50, 0.0)], [900.0, 450.0]);
        assert_eq!(seconds(u32::MAX, 7.0), 900.0);
    }

    #[test]
    fn schedules_read_repeat_and_stay_at_the_last() {
        let schedule: Schedule = "10s*2, 30s,1m".parse().unwrap();
        let delays: Vec<_> = (0..6).map(|step| schedule.delay(step).as_secs()).collect();
        assert_eq!(delays, [10, 10, 30, 60, 60, 60]);
        let at = |seconds| schedule.delay_at(Duration::from_secs(seconds)).as_secs();
        assert_eq!(
            [at(0), at(10), at(20), at(49), at(50), at(5000)],
            [10, 10, 30, 30, 60, 60]
        );
        assert!(matches!(
            "".parse::<Schedule>(),
            Err(InvalidSchedule::Empty)
        ));
        assert!(matches!(
            "5 parsecs".parse::<Schedule>(),
            Err(InvalidSchedule::Item(_))
        ));
        assert!(matches!(
            "5s*0".parse::<Schedule>(),
            Err(InvalidSchedule::Empty)
        ));
    }
}
