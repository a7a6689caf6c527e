//! The pipeline: which stage follows which. The only place that knows the order of a job's stages.

use super::Stage;

/// What ended a stage for good and moves the job on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// The source lies in our bucket.
    Imported,
    /// The vendor has the work.
    Accepted,
    /// The paid GhostCut request was, or may have been, sent and its answer was not seen: search for it. (A Sync.so request
    /// is repeated under its key by the same stage, which is a retry, not an event.)
    AnswerLost,
    /// The search proved that the vendor does not have the work.
    Absent,
    /// The vendor finished the work.
    Succeeded,
    /// The work failed at the vendor and policy allows to pay for another.
    Resubmit,
    /// The result lies in our bucket.
    Stored {
        /// Whether the job has effects, and so a second vendor.
        effects: bool,
    },
    /// The vendor's result URL no longer answers: ask for a fresh one.
    ResultGone,
}

/// Where a job goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// To a stage, which may be the same one.
    Stage(Stage),
    /// To its end: completed.
    Finished,
}

/// An event that cannot happen in that stage: a programming fault.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{event:?} cannot happen in {stage}")]
pub struct IllegalTransition {
    /// Where the job is.
    pub stage: Stage,
    /// What was said to have happened.
    pub event: Event,
}

/// The transition table.
///
/// # Errors
/// [`IllegalTransition`] for every pair that is not in the table.
pub const fn next(stage: Stage, event: Event) -> Result<Next, IllegalTransition> {
    use Event as E;
    use Stage as S;
    let to = match (stage, event) {
        (S::SourceImport, E::Imported) => S::InpaintSubmit,
        (S::LipsyncSubmit, E::Accepted) => S::LipsyncPoll,
        (S::LipsyncPoll, E::Succeeded) => S::LipsyncStore,
        (S::LipsyncPoll, E::Resubmit) => S::LipsyncSubmit,
        (S::LipsyncStore, E::ResultGone) => S::LipsyncPoll,
        (S::LipsyncStore, E::Stored { effects: true }) => S::InpaintSubmit,
        (S::InpaintSubmit | S::InpaintReconcile, E::Accepted) => S::InpaintPoll,
        (S::InpaintSubmit, E::AnswerLost) => S::InpaintReconcile,
        (S::InpaintReconcile, E::Absent) => S::InpaintSubmit,
        (S::InpaintPoll, E::Succeeded) => S::InpaintStore,
        (S::InpaintPoll, E::Resubmit) => S::InpaintSubmit,
        (S::InpaintStore, E::ResultGone) => S::InpaintPoll,
        (S::LipsyncStore, E::Stored { effects: false }) | (S::InpaintStore, E::Stored { .. }) => {
            return Ok(Next::Finished);
        }
        _ => return Err(IllegalTransition { stage, event }),
    };
    Ok(Next::Stage(to))
}

/// The stages from which a late acceptance by this stage's vendor may still move the job to polling.
#[must_use]
pub const fn accepted_from(stage: Stage) -> &'static [Stage] {
    match stage {
        Stage::LipsyncSubmit | Stage::LipsyncPoll | Stage::LipsyncStore => &[Stage::LipsyncSubmit],
        Stage::InpaintSubmit
        | Stage::InpaintReconcile
        | Stage::InpaintPoll
        | Stage::InpaintStore => &[Stage::InpaintSubmit, Stage::InpaintReconcile],
        Stage::SourceImport => &[],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVENTS: &[Event] = &[
        Event::Imported,
        Event::Accepted,
        Event::AnswerLost,
        Event::Absent,
        Event::Succeeded,
        Event::Resubmit,
        Event::Stored { effects: false },
        Event::Stored { effects: true },
        Event::ResultGone,
    ];

    /// The whole product, so that a new stage or event cannot slip in unseen. ARCHITECTURE.md shows the same table.
    #[test]
    fn the_whole_product_is_this_table() {
        let mut table = String::new();
        for stage in Stage::ALL {
            for event in EVENTS {
                if let Ok(to) = next(*stage, *event) {
                    let to = match to {
                        Next::Stage(stage) => stage.as_str(),
                        Next::Finished => "finished",
                    };
                    table += &format!("{stage} --{event:?}--> {to}\n");
                }
            }
        }
        assert_eq!(
            table,
            "source.import --Imported--> inpaint.submit\n\
             lipsync.submit --Accepted--> lipsync.poll\n\
             lipsync.poll --Succeeded--> lipsync.store\n\
             lipsync.poll --Resubmit--> lipsync.submit\n\
             lipsync.store --Stored { effects: false }--> finished\n\
             lipsync.store --Stored { effects: true }--> inpaint.submit\n\
             lipsync.store --ResultGone--> lipsync.poll\n\
             inpaint.submit --Accepted--> inpaint.poll\n\
             inpaint.submit --AnswerLost--> inpaint.reconcile\n\
             inpaint.reconcile --Accepted--> inpaint.poll\n\
             inpaint.reconcile --Absent--> inpaint.submit\n\
             inpaint.poll --Succeeded--> inpaint.store\n\
             inpaint.poll --Resubmit--> inpaint.submit\n\
             inpaint.store --Stored { effects: false }--> finished\n\
             inpaint.store --Stored { effects: true }--> finished\n\
             inpaint.store --ResultGone--> inpaint.poll\n"
        );
    }
}
