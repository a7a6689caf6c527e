//! Where a job that has ended goes when somebody wants it after all: decided by the ledger, never by where it was.
//!
//! Nothing is sent because of this: the stage that is named reads the ledger itself. Used by the replay of dead letters, by
//! retry, and by the previews of both.

use super::words::vocabulary;
use super::{JobStatus, LedgerState, Stage, StageState, Vendor};

vocabulary! {
    /// What the stage that a job is put back into will do first.
    How {
        /// Stream the input into our bucket; nothing is paid yet.
        Import = "import",
        /// Pay for a submission: nothing that is paid stands in its way.
        Submit = "submit",
        /// Find out whether the vendor has a submission whose outcome is unknown.
        Search = "search",
        /// Ask for the status of a work that is paid for.
        Poll = "poll",
        /// Stream a finished result into our bucket.
        Store = "store",
    }
}

vocabulary! {
    /// Why a job or a dead letter is not put back on its way.
    Refusal {
        /// The message names no job that anybody could go on with.
        Undecidable = "undecidable",
        /// The job was deleted.
        JobGone = "job_gone",
        /// The job no longer stands as the letter says: somebody else replayed, retried or moved it.
        MovedOn = "moved_on",
        /// The job was canceled.
        Canceled = "canceled",
        /// The job is completed.
        Completed = "completed",
        /// The job is not over.
        GoesOn = "goes_on",
        /// The bound on paid attempts is reached.
        AttemptsExhausted = "attempts_exhausted",
        /// The job's row cannot be read.
        InvalidJob = "invalid_job",
    }
}

/// How often a job may pay one vendor, failed submissions included, where no worker says otherwise (`MAX_PAID_ATTEMPTS`).
pub const PAID_ATTEMPTS: i32 = 2;

impl Refusal {
    /// For people: why, and what can be done.
    #[must_use]
    pub const fn explain(self) -> &'static str {
        match self {
            Self::Undecidable => "the message names no job: look at its body, then discard it",
            Self::JobGone => "the job was deleted: discard the letter",
            Self::MovedOn => "the job has moved on since the letter was written",
            Self::Canceled => "the job was canceled: `producer jobs retry` brings it back",
            Self::Completed => "the job is completed",
            Self::GoesOn => "the job is not over; `producer jobs resume` moves a parked one",
            Self::AttemptsExhausted => {
                "the bound on paid attempts is reached: `--another-attempt` (API: `another_attempt`) allows one more"
            }
            Self::InvalidJob => "the job's row cannot be read: repair it first",
        }
    }
}

/// Where a job stands when somebody wants it put back.
#[derive(Clone, Copy, Debug)]
pub struct Found {
    /// Its status; none when that is a word that the fleet does not know.
    pub status: Option<JobStatus>,
    /// State and epoch of its stage row, if it has one.
    pub row: Option<(StageState, i64)>,
}

/// Why the job is not to be put back, if so. `letter` is the epoch of the dead letter that is replayed: giving a job up ends
/// that epoch, so the row stands as the letter left it while its epoch is the next one.
#[must_use]
pub fn refusal(found: Found, letter: Option<i64>) -> Option<Refusal> {
    if let Some(epoch) = letter
        && found.row != Some((StageState::Dead, epoch + 1))
    {
        return Some(Refusal::MovedOn);
    }
    match found.status {
        Some(JobStatus::Failed) => None,
        Some(JobStatus::Canceled) => letter.map(|_| Refusal::Canceled),
        Some(JobStatus::Completed) => Some(Refusal::Completed),
        Some(JobStatus::Queued | JobStatus::Uploading | JobStatus::Processing) | None => {
            Some(Refusal::GoesOn)
        }
    }
}

/// What a vendor's part of a job has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The live, else the latest submission.
    Submitted {
        /// Its state.
        state: LedgerState,
        /// The work was last seen as failed; tells a duplicate that can still be used from one that cannot.
        work_failed: bool,
    },
    /// The job's row names a work that the ledger does not know; the claim takes it over.
    Foreign,
    /// Nothing was ever submitted.
    Nothing,
}

/// What the job asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wants {
    /// Lip-sync.
    pub segments: bool,
    /// Text inpainting.
    pub effects: bool,
}

/// What is known of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// What it asks for.
    pub wants: Wants,
    /// The video that GhostCut is to work on was stored in our bucket: the lip-sync result, or the imported input.
    pub source_ready: bool,
    /// Sync.so's part.
    pub sync: Part,
    /// GhostCut's part.
    pub ghostcut: Part,
}

/// Where a job goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resume {
    /// The stage to put it back into.
    pub stage: Stage,
    /// What that stage will do first.
    pub how: How,
}

impl Resume {
    /// Whom it pays, if it pays.
    #[must_use]
    pub fn pays(self) -> Option<Vendor> {
        (self.how == How::Submit)
            .then(|| self.stage.vendor())
            .flatten()
    }
}

/// Where the job goes.
#[must_use]
pub const fn resume(standing: &Standing) -> Resume {
    let Standing { wants, .. } = standing;
    // GhostCut was given something to work on, so the part before it is done.
    let inpainting =
        wants.effects && (standing.source_ready || !matches!(standing.ghostcut, Part::Nothing));
    let how = how(if inpainting || !wants.segments {
        standing.ghostcut
    } else {
        standing.sync
    });
    let stage = if wants.segments && !inpainting {
        match how {
            How::Poll if is_accepted(standing.sync) => Stage::LipsyncPoll,
            How::Store => Stage::LipsyncStore,
            // An unknown outcome and an adopted work are cleared up where requests are sent.
            How::Import | How::Submit | How::Search | How::Poll => Stage::LipsyncSubmit,
        }
    } else {
        match how {
            How::Poll if is_accepted(standing.ghostcut) => Stage::InpaintPoll,
            How::Store => Stage::InpaintStore,
            How::Search => Stage::InpaintReconcile,
            How::Import | How::Submit | How::Poll => {
                if !inpainting {
                    return Resume {
                        stage: Stage::SourceImport,
                        how: How::Import,
                    };
                }
                Stage::InpaintSubmit
            }
        }
    };
    Resume { stage, how }
}

const fn how(part: Part) -> How {
    use LedgerState as L;
    match part {
        Part::Nothing => How::Submit,
        Part::Foreign => How::Poll,
        Part::Submitted { state, work_failed } => match state {
            L::Claimed | L::Unknown => How::Search,
            L::Accepted | L::Redoing => How::Poll,
            L::Succeeded => How::Store,
            // A paid duplicate takes the place of what failed.
            L::Duplicate if !work_failed => How::Poll,
            L::Duplicate | L::NotSent | L::Rejected | L::Failed | L::Absent => How::Submit,
        },
    }
}

const fn is_accepted(part: Part) -> bool {
    matches!(
        part,
        Part::Submitted {
            state: LedgerState::Accepted | LedgerState::Redoing,
            ..
        }
    )
}

/// Whether a job in this stage has got out of that one: it is further on in the pipeline. A search belongs to the submission
/// that it clears up.
#[must_use]
pub fn is_beyond(stage: Stage, that: Stage) -> bool {
    let rank = |stage: Stage| match stage {
        Stage::InpaintReconcile => Stage::InpaintSubmit,
        other => other,
    };
    rank(stage) > rank(that)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts() -> Vec<(String, Part)> {
        let mut parts = vec![
            ("nothing".to_owned(), Part::Nothing),
            ("foreign".to_owned(), Part::Foreign),
        ];
        for state in LedgerState::ALL {
            for work_failed in [false, true] {
                let name = format!("{state}{}", if work_failed { "+failed" } else { "" });
                parts.push((
                    name,
                    Part::Submitted {
                        state: *state,
                        work_failed,
                    },
                ));
            }
        }
        parts
    }

    /// The rules, written the other way round, over every combination.
    #[test]
    fn the_whole_product_follows_the_ledger() {
        let kinds = [(true, true), (true, false), (false, true)];
        let mut seen = 0;
        for (segments, effects) in kinds {
            for source_ready in [false, true] {
                for (sync_name, sync) in parts() {
                    for (ghostcut_name, ghostcut) in parts() {
                        let wants = Wants { segments, effects };
                        let found = resume(&Standing {
                            wants,
                            source_ready,
                            sync,
                            ghostcut,
                        });
                        let case = format!(
                            "{wants:?} ready={source_ready} sync={sync_name} ghostcut={ghostcut_name}: {found:?}"
                        );
                        let second = effects && (source_ready || ghostcut != Part::Nothing);
                        let part = if second || !segments { ghostcut } else { sync };
                        let vendor = if second || !segments {
                            Vendor::Ghostcut
                        } else {
                            Vendor::Sync
                        };
                        // Whoever is paid, or may be, is never paid again.
                        if let Part::Submitted { state, .. } = part
                            && state.occupies()
                        {
                            assert_ne!(found.how, How::Submit, "{case}");
                        }
                        if part == Part::Foreign {
                            assert_eq!(found.how, How::Poll, "{case}");
                        }
                        assert!(
                            found.stage.vendor().is_none_or(|found| found == vendor),
                            "{case}"
                        );
                        assert_eq!(
                            found.stage == Stage::SourceImport,
                            !segments && !second,
                            "{case}"
                        );
                        // Every combination of stage and way is one that the stage can do.
                        let fits = matches!(
                            (found.stage, found.how),
                            (Stage::SourceImport, How::Import)
                                | (Stage::LipsyncSubmit, How::Submit | How::Search | How::Poll)
                                | (Stage::InpaintSubmit, How::Submit | How::Poll)
                                | (Stage::InpaintReconcile, How::Search)
                                | (Stage::LipsyncPoll | Stage::InpaintPoll, How::Poll)
                                | (Stage::LipsyncStore | Stage::InpaintStore, How::Store)
                        );
                        assert!(fits, "{case}");
                        seen += 1;
                    }
                }
            }
        }
        assert_eq!(seen, 3 * 2 * 22 * 22);
    }

    #[test]
    fn each_state_leads_where_the_table_says() {
        use LedgerState as L;
        let of = |state| Part::Submitted {
            state,
            work_failed: state == L::Failed,
        };
        let paid_duplicate = of(L::Duplicate);
        let failed_duplicate = Part::Submitted {
            state: L::Duplicate,
            work_failed: true,
        };
        let table = [
            (
                Part::Nothing,
                "lipsync.submit submit",
                "inpaint.submit submit",
            ),
            (Part::Foreign, "lipsync.submit poll", "inpaint.submit poll"),
            (
                of(L::Claimed),
                "lipsync.submit search",
                "inpaint.reconcile search",
            ),
            (
                of(L::Unknown),
                "lipsync.submit search",
                "inpaint.reconcile search",
            ),
            (of(L::Accepted), "lipsync.poll poll", "inpaint.poll poll"),
            (of(L::Redoing), "lipsync.poll poll", "inpaint.poll poll"),
            (
                of(L::Succeeded),
                "lipsync.store store",
                "inpaint.store store",
            ),
            (
                of(L::NotSent),
                "lipsync.submit submit",
                "inpaint.submit submit",
            ),
            (
                of(L::Rejected),
                "lipsync.submit submit",
                "inpaint.submit submit",
            ),
            (
                of(L::Failed),
                "lipsync.submit submit",
                "inpaint.submit submit",
            ),
            (
                of(L::Absent),
                "lipsync.submit submit",
                "inpaint.submit submit",
            ),
            (paid_duplicate, "lipsync.submit poll", "inpaint.submit poll"),
            (
                failed_duplicate,
                "lipsync.submit submit",
                "inpaint.submit submit",
            ),
        ];
        for (part, at_sync, at_ghostcut) in table {
            let show = |standing: &Standing| {
                let Resume { stage, how } = resume(standing);
                format!("{stage} {how}")
            };
            let lipsync_only = Standing {
                wants: Wants {
                    segments: true,
                    effects: false,
                },
                source_ready: false,
                sync: part,
                ghostcut: Part::Nothing,
            };
            assert_eq!(show(&lipsync_only), at_sync, "{part:?}");
            let both = Standing {
                wants: Wants {
                    segments: true,
                    effects: true,
                },
                source_ready: true,
                sync: of(L::Succeeded),
                ghostcut: part,
            };
            assert_eq!(show(&both), at_ghostcut, "{part:?}");
        }
        // The lip-sync was paid for and not yet stored: that comes first.
        let unstored = Standing {
            wants: Wants {
                segments: true,
                effects: true,
            },
            source_ready: false,
            sync: of(L::Succeeded),
            ghostcut: Part::Nothing,
        };
        assert_eq!(resume(&unstored).stage, Stage::LipsyncStore);
        assert_eq!(resume(&unstored).pays(), None);
    }

    /// Twice, late, or while the job moves: refused.
    #[test]
    fn only_what_stands_as_the_letter_says_is_replayed() {
        let mut replayed = Vec::new();
        for status in JobStatus::ALL {
            for state in StageState::ALL {
                for epoch in [6, 7, 8, 9] {
                    let found = Found {
                        status: Some(*status),
                        row: Some((*state, epoch)),
                    };
                    if refusal(found, Some(7)).is_none() {
                        replayed.push((*status, *state, epoch));
                    }
                }
            }
            let gone = Found {
                status: Some(*status),
                row: None,
            };
            assert_eq!(refusal(gone, Some(7)), Some(Refusal::MovedOn));
            let retried = matches!(status, JobStatus::Failed | JobStatus::Canceled);
            assert_eq!(refusal(gone, None).is_none(), retried, "{status}");
        }
        assert_eq!(replayed, [(JobStatus::Failed, StageState::Dead, 8)]);
    }

    #[test]
    fn a_search_is_not_beyond_its_submission() {
        use Stage as S;
        assert!(!is_beyond(S::InpaintReconcile, S::InpaintSubmit));
        assert!(!is_beyond(S::InpaintSubmit, S::InpaintReconcile));
        assert!(is_beyond(S::InpaintPoll, S::InpaintReconcile));
        assert!(is_beyond(S::InpaintSubmit, S::LipsyncStore));
        assert!(!is_beyond(S::LipsyncSubmit, S::LipsyncPoll));
    }
}
