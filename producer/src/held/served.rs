//! Which stages have a worker that takes their jobs, by what the workers write of themselves. Must not decide anything: jobs are sent
//! out whether anybody takes them or not.

use shared::db::{Db, DbResult, WorkerRow};
use shared::domain::Stage;
use shared::domain::admission::Refusal;
use shared::domain::worker_order::WorkerState;

use super::Held;

/// The workers, those that are lost or have stopped too.
#[derive(Debug, Default)]
pub struct Served(Vec<WorkerRow>);

impl Served {
    /// Reads it.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn read(db: &Db) -> DbResult<Self> {
        Ok(Self(db.workers().await?))
    }

    /// All of them.
    #[must_use]
    pub fn workers(&self) -> &[WorkerRow] {
        &self.0
    }

    fn of(&self, stage: Stage, state: WorkerState) -> impl Iterator<Item = &WorkerRow> {
        self.0
            .iter()
            .filter(move |row| row.state == state.as_str() && runs(row, stage))
    }

    /// How many take the jobs of this stage: neither quiet nor told to stop nor gone.
    #[must_use]
    pub fn takers(&self, stage: Stage) -> usize {
        self.of(stage, WorkerState::Running).count()
    }

    /// Whether a worker that was seen has messages of this stage in hand, also one that takes nothing new.
    #[must_use]
    pub fn has_in_hand(&self, stage: Stage) -> bool {
        let here = |row: &&WorkerRow| row.state != WorkerState::Lost.as_str();
        self.0.iter().filter(here).any(|row| {
            let rows = row.in_hand.as_array().into_iter().flatten();
            let mut stages = rows.filter_map(|row| row["stage"].as_str());
            stages.any(|name| name == stage.as_str())
        })
    }

    /// That nobody takes the jobs of this stage; none where somebody does.
    #[must_use]
    pub fn lack(&self, stage: Stage) -> Option<Held> {
        if self.takers(stage) > 0 {
            return None;
        }
        let quiet = match self.of(stage, WorkerState::Quiet).count() {
            0 => String::new(),
            1 => ", and one that could is quiet".to_owned(),
            several => format!(", and {several} that could are quiet"),
        };
        Some(Held {
            by: Refusal::NoWorker,
            account: None,
            until: None,
            sentence: format!("no worker takes {stage}{quiet}"),
        })
    }
}

fn runs(row: &WorkerRow, stage: Stage) -> bool {
    row.stages.iter().any(|name| name == stage.as_str())
}

#[cfg(test)]
mod tests {
    use chrono::Utc;
    use serde_json::json;
    use uuid::Uuid;

    use super::*;
    use crate::held::Holds;

    fn worker(state: WorkerState, stages: &[Stage]) -> WorkerRow {
        WorkerRow {
            id: Uuid::nil(),
            name: "w".to_owned(),
            version: "1".to_owned(),
            started_at: Utc::now(),
            seen_at: Utc::now(),
            left_at: None,
            state: state.to_string(),
            stages: stages.iter().map(ToString::to_string).collect(),
            concurrency: 1,
            transfers: 1,
            in_hand: json!([]),
            last_delivery_at: None,
            why_not_ready: None,
            asked: None,
            asked_by: None,
            asked_reason: None,
            asked_at: None,
        }
    }

    impl Served {
        /// By one worker that takes everything.
        pub(in crate::held) fn by_all() -> Self {
            Self(vec![worker(WorkerState::Running, Stage::ALL)])
        }
    }

    #[test]
    fn a_stage_that_no_worker_takes_says_so() {
        let (taken, other) = (Stage::InpaintSubmit, Stage::LipsyncPoll);
        let only = |state| Served(vec![worker(state, &[taken])]);
        assert!(only(WorkerState::Running).lack(taken).is_none());
        let none = "no worker takes inpaint.submit";
        for (served, stage, sentence) in [
            (Served::default(), taken, none),
            (only(WorkerState::Lost), taken, none),
            (only(WorkerState::Draining), taken, none),
            (
                only(WorkerState::Quiet),
                taken,
                "no worker takes inpaint.submit, and one that could is quiet",
            ),
            (
                only(WorkerState::Running),
                other,
                "no worker takes lipsync.poll",
            ),
        ] {
            let held = served.lack(stage).unwrap();
            assert_eq!((held.by, &*held.sentence), (Refusal::NoWorker, sentence));
        }
    }

    #[test]
    fn what_was_sent_out_is_held_unless_somebody_finishes_it() {
        let stage = Stage::InpaintPoll;
        let sent = |state, in_hand| {
            let row = WorkerRow {
                in_hand,
                ..worker(state, &[stage])
            };
            let holds = Holds::new(None, Vec::new(), Served(vec![row]));
            holds.of_sent(stage).map(|held| held.by)
        };
        let busy = || json!([{ "stage": "inpaint.poll", "count": 1 }]);
        let by = Some(Refusal::NoWorker);
        assert_eq!(sent(WorkerState::Running, json!([])), None);
        assert_eq!(sent(WorkerState::Draining, busy()), None);
        assert_eq!(sent(WorkerState::Draining, json!([])), by);
        assert_eq!(sent(WorkerState::Lost, busy()), by);
    }
}
