//! What an operator may ask of a worker, and what comes of it.

use super::words::vocabulary;

vocabulary! {
    /// How a worker stands, as its row says.
    WorkerState {
        /// At work.
        Running = "running",
        /// It takes nothing new because it was asked to be quiet.
        Quiet = "quiet",
        /// Told to stop: it takes nothing new and ends when what is in hand is finished.
        Draining = "draining",
        /// Not seen for three times as long as it means to be.
        Lost = "lost",
        /// It has ended as it should.
        Stopped = "stopped",
    }
}

vocabulary! {
    /// What is asked of a worker until something else is; nothing asks it to work.
    WorkerWish {
        /// Take nothing new, finish what is in hand, wait.
        Quiet = "quiet",
        /// As SIGTERM does.
        Stop = "stop",
    }
}

vocabulary! {
    /// What an operator says to a worker.
    WorkerOrder {
        /// Take nothing new.
        Quiet = "quiet",
        /// Take work again.
        Resume = "resume",
        /// Finish what is in hand and end.
        Stop = "stop",
    }
}

/// What comes of an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ordered {
    /// From now on this is asked.
    Asked(Option<WorkerWish>),
    /// It was asked before; who did it and why stays.
    Same,
    /// Refused: nobody would read it.
    Lost,
    /// Refused: a worker that was told to stop does not come back.
    Stopping,
}

impl WorkerOrder {
    /// The word of the trail.
    #[must_use]
    pub const fn action(self) -> &'static str {
        match self {
            Self::Quiet => "worker_quieted",
            Self::Resume => "worker_resumed",
            Self::Stop => "worker_stopped",
        }
    }

    /// What comes of this order to a worker that stands so and was last asked for `wish`.
    #[must_use]
    pub const fn to(self, state: WorkerState, wish: Option<WorkerWish>) -> Ordered {
        match (self, state, wish) {
            (_, WorkerState::Lost | WorkerState::Stopped, _) => Ordered::Lost,
            (Self::Stop, WorkerState::Draining, _) | (Self::Stop, _, Some(WorkerWish::Stop)) => {
                Ordered::Same
            }
            (_, WorkerState::Draining, _) | (_, _, Some(WorkerWish::Stop)) => Ordered::Stopping,
            (Self::Stop, ..) => Ordered::Asked(Some(WorkerWish::Stop)),
            // By what was asked, and not by what the worker has done of it so far.
            (Self::Quiet, _, Some(WorkerWish::Quiet)) | (Self::Resume, _, None) => Ordered::Same,
            (Self::Quiet, _, None) => Ordered::Asked(Some(WorkerWish::Quiet)),
            (Self::Resume, _, Some(WorkerWish::Quiet)) => Ordered::Asked(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_product_is_this_table() {
        let mut found = Vec::new();
        for state in WorkerState::ALL {
            for wish in [None, Some(WorkerWish::Quiet), Some(WorkerWish::Stop)] {
                let answers = WorkerOrder::ALL.iter().map(|order| {
                    let short = match order.to(*state, wish) {
                        Ordered::Asked(None) => "asked to work",
                        Ordered::Asked(Some(wish)) => return format!("asked to {wish}"),
                        Ordered::Same => "same",
                        Ordered::Lost => "lost",
                        Ordered::Stopping => "stopping",
                    };
                    short.to_owned()
                });
                let answers: Vec<_> = answers.collect();
                let wish = wish.map_or("work", WorkerWish::as_str);
                found.push(format!("{state} {wish}: {}", answers.join(", ")));
            }
        }
        // Answers to quiet, resume, stop.
        let table = [
            "running work: asked to quiet, same, asked to stop",
            "running quiet: same, asked to work, asked to stop",
            "running stop: stopping, stopping, same",
            "quiet work: asked to quiet, same, asked to stop",
            "quiet quiet: same, asked to work, asked to stop",
            "quiet stop: stopping, stopping, same",
            "draining work: stopping, stopping, same",
            "draining quiet: stopping, stopping, same",
            "draining stop: stopping, stopping, same",
            "lost work: lost, lost, lost",
            "lost quiet: lost, lost, lost",
            "lost stop: lost, lost, lost",
            "stopped work: lost, lost, lost",
            "stopped quiet: lost, lost, lost",
            "stopped stop: lost, lost, lost",
        ];
        assert_eq!(found, table);
    }
}
