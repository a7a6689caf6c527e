//! Operations: what operators do to many jobs or dead letters at once, piece by piece. Here is what does not depend on where the
//! pieces are kept: how large they are, how fast they follow each other, and what became of a canary.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::resume::is_beyond;
use super::words::vocabulary;
use super::{JobStatus, Stage, StageState};

vocabulary! {
    /// What is done to each of a selection.
    BulkAction {
        /// End jobs that are not over.
        Cancel = "cancel",
        /// Put failed or canceled jobs back on their way.
        Retry = "retry",
        /// Make jobs due now that are parked, or wait for their time.
        Resume = "resume",
        /// Put the jobs of dead letters back on their way.
        Replay = "replay",
        /// Close dead letters; their jobs stay failed.
        Discard = "discard",
    }
}

impl BulkAction {
    /// Whether the selection is of dead letters; otherwise it is of jobs.
    #[must_use]
    pub const fn is_of_letters(self) -> bool {
        matches!(self, Self::Replay | Self::Discard)
    }

    /// What the operators' trail calls it.
    #[must_use]
    pub const fn trail_word(self) -> &'static str {
        match self {
            Self::Cancel => "jobs_canceled",
            Self::Retry => "jobs_retried",
            Self::Resume => "jobs_resumed",
            Self::Replay => "dead_letters_replayed",
            Self::Discard => "dead_letters_discarded",
        }
    }
}

vocabulary! {
    /// How an operation stands.
    BulkState {
        /// Its next piece is done when it is due.
        Running = "running",
        /// The canaries are replayed; somebody has to look and let it go on.
        Awaiting = "awaiting",
        /// Everything was looked at.
        Done = "done",
        /// Somebody stopped it; what was done stays done.
        Stopped = "stopped",
        /// An error that does not pass; what was done stays done.
        Failed = "failed",
    }
}

vocabulary! {
    /// What became of a canary.
    CanaryOutcome {
        /// It is on its way.
        Going = "going",
        /// It got beyond the stage in which its job had died.
        Settled = "settled",
        /// It did not: failed again, parked, canceled or deleted.
        DeadAgain = "dead again",
    }
}

/// The first dead letter of a group that could be replayed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Canary {
    /// The group: its stage.
    pub stage: String,
    /// The group: its normalised error.
    pub class: String,
    /// The group: its reason.
    pub reason: String,
    /// The letter.
    pub letter: i64,
    /// Its job.
    pub job: Uuid,
    /// Where the job was put.
    pub put_into: Stage,
}

/// Where the job of a canary stands.
#[derive(Clone, Copy, Debug)]
pub struct CanaryJob {
    /// Its status; none when it is gone.
    pub status: Option<JobStatus>,
    /// Its stage and state, if it has any.
    pub stage: Option<(Stage, StageState)>,
}

impl Canary {
    /// What became of it.
    #[must_use]
    pub fn outcome(&self, job: CanaryJob) -> CanaryOutcome {
        // An undecidable letter names no stage; then where it was put counts.
        let furthest = match self.stage.parse() {
            Ok(died_in) if is_beyond(died_in, self.put_into) => died_in,
            _ => self.put_into,
        };
        match (job.status, job.stage) {
            (Some(JobStatus::Completed), _) => CanaryOutcome::Settled,
            (Some(JobStatus::Failed | JobStatus::Canceled) | None, _)
            | (_, Some((_, StageState::Parked | StageState::Dead))) => CanaryOutcome::DeadAgain,
            (_, Some((stage, _))) if is_beyond(stage, furthest) => CanaryOutcome::Settled,
            (Some(JobStatus::Queued | JobStatus::Uploading | JobStatus::Processing), _) => {
                CanaryOutcome::Going
            }
        }
    }
}

/// Most jobs or letters in one transaction.
pub const PIECE: i64 = 100;
/// A piece is for so many seconds of the pace, so that a stop is soon felt.
const PIECE_SECONDS: u32 = 10;

/// How many are looked at in one piece.
#[must_use]
pub fn piece(per_minute: Option<u32>) -> i64 {
    per_minute.map_or(PIECE, |n| {
        i64::from(n / (60 / PIECE_SECONDS)).clamp(1, PIECE)
    })
}

/// Between two changes.
#[must_use]
pub fn step(per_minute: Option<u32>) -> Duration {
    per_minute.map_or(Duration::ZERO, |n| Duration::from_secs(60) / n.max(1))
}

/// Whether a selection is about as large as somebody expected: within a tenth. Of one that was not counted to its end (`capped`)
/// only that it is too large can be said.
#[must_use]
pub fn fits(expected: u64, count: u64, capped: bool) -> bool {
    if capped && count <= expected {
        return true;
    }
    count.abs_diff(expected) * 10 <= expected
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_canary_has_to_get_beyond_where_its_job_died() {
        use CanaryOutcome as C;
        use JobStatus as J;
        use StageState as S;
        let canary = Canary {
            stage: "inpaint.store".to_owned(),
            class: "e".to_owned(),
            reason: "invalid_result".to_owned(),
            letter: 1,
            job: Uuid::nil(),
            put_into: Stage::InpaintPoll,
        };
        for (status, stage, expected) in [
            (Some(J::Completed), None, C::Settled),
            (
                Some(J::Failed),
                Some((Stage::InpaintStore, S::Dead)),
                C::DeadAgain,
            ),
            (Some(J::Canceled), None, C::DeadAgain),
            (None, None, C::DeadAgain),
            (Some(J::Processing), None, C::Going),
            (
                Some(J::Processing),
                Some((Stage::InpaintStore, S::Parked)),
                C::DeadAgain,
            ),
            (
                Some(J::Processing),
                Some((Stage::InpaintStore, S::Dispatched)),
                C::Going,
            ),
            (
                Some(J::Processing),
                Some((Stage::InpaintPoll, S::Waiting)),
                C::Going,
            ),
        ] {
            assert_eq!(canary.outcome(CanaryJob { status, stage }), expected);
        }
        let early = Canary {
            stage: "lipsync.store".to_owned(),
            put_into: Stage::LipsyncPoll,
            ..canary
        };
        let on = CanaryJob {
            status: Some(J::Processing),
            stage: Some((Stage::InpaintSubmit, S::Waiting)),
        };
        assert_eq!(early.outcome(on), C::Settled);
    }

    #[test]
    fn pieces_follow_the_pace() {
        assert_eq!(piece(None), PIECE);
        assert_eq!(
            [1, 6, 60, 600, 6000].map(|n| piece(Some(n))),
            [1, 1, 10, 100, PIECE]
        );
        assert_eq!(step(Some(30)), Duration::from_secs(2));
        assert_eq!(step(None), Duration::ZERO);
    }

    #[test]
    fn a_tenth_more_or_less_is_as_expected() {
        for (expected, count, capped, fits_) in [
            (100, 110, false, true),
            (100, 111, false, false),
            (100, 90, false, true),
            (100, 89, false, false),
            (0, 0, false, true),
            (0, 1, false, false),
            (50_000, 10_000, true, true),
            (5_000, 10_000, true, false),
        ] {
            assert_eq!(fits(expected, count, capped), fits_, "{expected} {count}");
        }
    }
}
