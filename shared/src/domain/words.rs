//! The closed vocabularies: every enum whose values are stored, sent or shown as text.

/// A text that is none of the words of a vocabulary.
#[derive(Debug, thiserror::Error)]
#[error("unknown {vocabulary} `{word}`: one of {known}")]
pub struct UnknownWord {
    /// Which vocabulary was expected.
    pub vocabulary: &'static str,
    /// The text that was found.
    pub word: String,
    /// The words that there are.
    pub known: String,
}

/// Declares an enum whose values have one fixed text each, in the database, on the wire and in metrics.
macro_rules! vocabulary {
    ($(#[$meta:meta])* $name:ident { $($(#[$vmeta:meta])* $variant:ident = $text:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $name { $($(#[$vmeta])* $variant,)+ }

        impl $name {
            /// Every value, in the order of declaration.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The text of this value.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl std::str::FromStr for $name {
            type Err = $crate::domain::UnknownWord;
            fn from_str(word: &str) -> Result<Self, Self::Err> {
                match word {
                    $($text => Ok(Self::$variant),)+
                    _ => Err($crate::domain::UnknownWord {
                        vocabulary: stringify!($name),
                        word: word.to_owned(),
                        known: [$($text,)+].join(", "),
                    }),
                }
            }
        }

        impl utoipa::PartialSchema for $name {
            fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
                utoipa::openapi::ObjectBuilder::new()
                    .schema_type(utoipa::openapi::schema::Type::String)
                    .enum_values(Some(Self::ALL.iter().map(|word| word.as_str())))
                    .into()
            }
        }

        impl utoipa::ToSchema for $name {}

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.serialize_str(self.as_str())
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                let word = std::borrow::Cow::<'de, str>::deserialize(d)?;
                word.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}
pub(crate) use vocabulary;

vocabulary! {
    /// A step of a job. Its text is also the name of its queue.
    Stage {
        /// Stream the input into our bucket; only where GhostCut is first and the input lies elsewhere.
        SourceImport = "source.import",
        /// Claim and send the paid Sync.so request.
        LipsyncSubmit = "lipsync.submit",
        /// Ask Sync.so for the status.
        LipsyncPoll = "lipsync.poll",
        /// Stream the Sync.so result to S3.
        LipsyncStore = "lipsync.store",
        /// Claim and send the paid GhostCut request.
        InpaintSubmit = "inpaint.submit",
        /// Search GhostCut for a request whose answer was not seen.
        InpaintReconcile = "inpaint.reconcile",
        /// Ask GhostCut for the status.
        InpaintPoll = "inpaint.poll",
        /// Stream the GhostCut result to S3.
        InpaintStore = "inpaint.store",
    }
}

vocabulary! {
    /// A paid API.
    Vendor {
        /// Sync.so, lip-sync.
        Sync = "sync",
        /// GhostCut, text inpainting.
        Ghostcut = "ghostcut",
    }
}

vocabulary! {
    /// What a job's row in `job_stages` says about its next move.
    StageState {
        /// Will be dispatched at `due_at`.
        Waiting = "waiting",
        /// A message was, or is about to be, published; due again at `due_at` (end of its lease).
        Dispatched = "dispatched",
        /// Waits for a person or a condition; nothing happens by itself.
        Parked = "parked",
        /// Given up; in the dead-letter list until replayed or discarded.
        Dead = "dead",
    }
}

vocabulary! {
    /// `video_jobs.status`, the vocabulary of the replaced application.
    JobStatus {
        /// Accepted, nothing started.
        Queued = "queued",
        /// Files are being uploaded (set by the replaced application only).
        Uploading = "uploading",
        /// Under way.
        Processing = "processing",
        /// Finished; the result is stored.
        Completed = "completed",
        /// Ended without a result.
        Failed = "failed",
        /// Ended on request.
        Canceled = "canceled",
    }
}

vocabulary! {
    /// State of a submission in the ledger.
    LedgerState {
        /// Intent committed; may be sent until its deadline by the one who inserted it.
        Claimed = "claimed",
        /// Sent, or maybe sent, and the answer was not seen.
        Unknown = "unknown",
        /// The vendor has it.
        Accepted = "accepted",
        /// The vendor was, or may have been, asked to run the same work again.
        Redoing = "redoing",
        /// The vendor finished it. Occupies the slot for ever.
        Succeeded = "succeeded",
        /// No connection stood: the vendor never saw it.
        NotSent = "not_sent",
        /// The vendor refused it.
        Rejected = "rejected",
        /// The vendor accepted it and it failed there.
        Failed = "failed",
        /// Searched for and proved not to be at the vendor.
        Absent = "absent",
        /// At the vendor, but another submission is the job's.
        Duplicate = "duplicate",
    }
}

impl Stage {
    /// The vendor whose submission this stage works on; none for the import of a source.
    #[must_use]
    pub const fn vendor(self) -> Option<Vendor> {
        match self {
            Self::SourceImport => None,
            Self::LipsyncSubmit | Self::LipsyncPoll | Self::LipsyncStore => Some(Vendor::Sync),
            Self::InpaintSubmit
            | Self::InpaintReconcile
            | Self::InpaintPoll
            | Self::InpaintStore => Some(Vendor::Ghostcut),
        }
    }

    /// Whom this stage pays: jobs that are due in it are held back while nothing new may be sent there.
    #[must_use]
    pub const fn pays(self) -> Option<Vendor> {
        match self {
            Self::LipsyncSubmit | Self::InpaintSubmit => self.vendor(),
            _ => None,
        }
    }

    /// How many jobs one message of this stage may carry: polls are batched, everything else goes alone.
    #[must_use]
    pub const fn jobs_per_message(self) -> usize {
        match self {
            Self::LipsyncPoll | Self::InpaintPoll => 100,
            _ => 1,
        }
    }
}

impl LedgerState {
    /// Whether a submission in this state keeps others of its (job, vendor) from being opened.
    #[must_use]
    pub const fn occupies(self) -> bool {
        matches!(
            self,
            Self::Claimed | Self::Unknown | Self::Accepted | Self::Redoing | Self::Succeeded
        )
    }

    /// Whether the submission still has to be followed to its end at the vendor.
    #[must_use]
    pub const fn alive(self) -> bool {
        matches!(
            self,
            Self::Claimed | Self::Unknown | Self::Accepted | Self::Redoing
        )
    }

    /// The legal edges of the ledger; the database enforces the same table by trigger.
    #[must_use]
    pub const fn may_become(self, next: Self) -> bool {
        use LedgerState as L;
        matches!(
            (self, next),
            (
                L::Claimed,
                L::Accepted | L::Rejected | L::NotSent | L::Unknown | L::Duplicate
            ) | (
                L::Unknown,
                L::Accepted | L::Absent | L::Rejected | L::Duplicate
            ) | (L::Accepted, L::Succeeded | L::Failed | L::Redoing)
                | (L::Redoing, L::Accepted)
                | (L::Absent, L::Accepted | L::Duplicate)
                | (L::Duplicate, L::Accepted)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_reads_back() {
        for stage in Stage::ALL {
            assert_eq!(stage.as_str().parse::<Stage>().unwrap(), *stage);
        }
        let error = "lipsync.sing".parse::<Stage>().unwrap_err();
        let said = error.to_string();
        assert!(
            said.starts_with(
                "unknown Stage `lipsync.sing`: one of source.import, lipsync.submit, "
            ),
            "{said}"
        );
    }

    #[test]
    fn five_states_free_the_slot_and_succeeded_is_for_ever() {
        use LedgerState as L;
        let free: Vec<_> = L::ALL.iter().filter(|state| !state.occupies()).collect();
        assert_eq!(
            free,
            [
                &L::NotSent,
                &L::Rejected,
                &L::Failed,
                &L::Absent,
                &L::Duplicate
            ]
        );
        assert!(L::ALL.iter().all(|next| !L::Succeeded.may_become(*next)));
    }
}
