//! The message that tells a worker which jobs to look at, as bytes.
//!
//! A message is a hint: it names jobs and the epoch they were dispatched with, never state. Deciding whether a reference
//! is still current is not done here.

use serde::Deserialize;
use uuid::Uuid;

use super::Stage;

/// The version this build writes and reads. A change that an older worker would misread (a new stage too) needs a new one.
const VERSION: u64 = 1;

/// Longest body that is read, in bytes; 100 jobs take about 7 KiB.
const MAX_BODY_BYTES: usize = 64 * 1024;

/// What one message asks for: run `stage` for these jobs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The stage to run.
    pub stage: Stage,
    /// At least one and at most [`Stage::jobs_per_message`].
    pub jobs: Vec<JobRef>,
}

/// A job as it was when it was dispatched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub struct JobRef {
    /// `video_jobs.id`.
    pub id: Uuid,
    /// `job_stages.epoch` that the dispatch committed; the reference is stale when the row has another.
    pub epoch: i64,
}

/// Why a body could not be read.
#[derive(Debug, thiserror::Error)]
pub enum Undecodable {
    /// Written by a newer build: leave it to one, a rollout is under way.
    #[error("message version {0} is newer than {VERSION}")]
    NewerVersion(u64),
    /// Not a message, or an older version: no build will read it.
    #[error("not a message")]
    Malformed(#[source] serde_json::Error),
    /// A version that was never written.
    #[error("message version 0 does not exist")]
    NoVersion,
    /// Longer than any message of this version.
    #[error("message of {0} bytes is longer than {MAX_BODY_BYTES}")]
    TooLong(usize),
    /// No job at all, or more than one message of the stage may carry.
    #[error("message with {count} jobs for `{stage}`")]
    JobCount {
        /// The stage the message is for.
        stage: Stage,
        /// How many jobs it names.
        count: usize,
    },
}

#[derive(Deserialize)]
struct Versioned {
    v: u64,
}

#[derive(Deserialize)]
struct Body {
    stage: Stage,
    jobs: Vec<JobRef>,
}

impl Message {
    /// The body as published. The caller keeps to [`Stage::jobs_per_message`].
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        // Nothing in here needs escaping: a fixed word, hexadecimal ids and numbers.
        let jobs: Vec<String> = self
            .jobs
            .iter()
            .map(|job| format!(r#"{{"id":"{}","epoch":{}}}"#, job.id, job.epoch))
            .collect();
        let (stage, jobs) = (self.stage, jobs.join(","));
        format!(r#"{{"v":{VERSION},"stage":"{stage}","jobs":[{jobs}]}}"#).into_bytes()
    }

    /// Reads a body.
    ///
    /// # Errors
    /// [`Undecodable::NewerVersion`] is to be returned to the queue after a delay, everything else is a dead letter.
    pub fn decode(body: &[u8]) -> Result<Self, Undecodable> {
        // The version first and alone: of a newer one nothing else may be assumed, not even its size.
        let Versioned { v } = serde_json::from_slice(body).map_err(Undecodable::Malformed)?;
        match v {
            VERSION => {}
            0 => return Err(Undecodable::NoVersion),
            newer => return Err(Undecodable::NewerVersion(newer)),
        }
        if body.len() > MAX_BODY_BYTES {
            return Err(Undecodable::TooLong(body.len()));
        }
        let Body { stage, jobs } = serde_json::from_slice(body).map_err(Undecodable::Malformed)?;
        if jobs.is_empty() || jobs.len() > stage.jobs_per_message() {
            let count = jobs.len();
            return Err(Undecodable::JobCount { stage, count });
        }
        Ok(Self { stage, jobs })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn message() -> impl Strategy<Value = Message> {
        let stage = proptest::sample::select(Stage::ALL);
        stage.prop_flat_map(|stage| {
            let job = (any::<u128>(), any::<i64>());
            proptest::collection::vec(job, 1..=stage.jobs_per_message()).prop_map(move |jobs| {
                let jobs = jobs.into_iter().map(|(id, epoch)| JobRef {
                    id: Uuid::from_u128(id),
                    epoch,
                });
                Message {
                    stage,
                    jobs: jobs.collect(),
                }
            })
        })
    }

    proptest! {
        #[test]
        fn what_is_encoded_decodes_to_itself(message in message()) {
            prop_assert_eq!(Message::decode(&message.encode()).unwrap(), message);
        }

        #[test]
        fn no_bytes_panic(body in proptest::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(Message::decode(&body).is_err());
        }

        #[test]
        fn no_damaged_message_panics(message in message(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
            let mut body = message.encode();
            let at = at.index(body.len());
            body[at] = byte;
            let _ = Message::decode(&body);
        }
    }

    #[test]
    fn the_wire_format_is_fixed() {
        let id = Uuid::from_u128(0x1234);
        let message = Message {
            stage: Stage::InpaintPoll,
            jobs: vec![JobRef { id, epoch: 7 }],
        };
        let body = r#"{"v":1,"stage":"inpaint.poll","jobs":[{"id":"00000000-0000-0000-0000-000000001234","epoch":7}]}"#;
        assert_eq!(String::from_utf8(message.encode()).unwrap(), body);
    }

    #[test]
    fn a_newer_version_is_told_apart_whatever_else_it_says() {
        for body in [
            r#"{"v":2}"#.to_owned(),
            format!(
                r#"{{"stage":7,"x":"{}","v":2}}"#,
                "x".repeat(MAX_BODY_BYTES)
            ),
        ] {
            let error = Message::decode(body.as_bytes()).unwrap_err();
            assert!(matches!(error, Undecodable::NewerVersion(2)), "{error}");
        }
    }

    #[test]
    fn garbage_is_refused() {
        let job = r#"{"id":"00000000-0000-0000-0000-000000001234","epoch":7}"#;
        let two_submits = format!(r#"{{"v":1,"stage":"inpaint.submit","jobs":[{job},{job}]}}"#);
        let no_stage = format!(r#"{{"v":1,"stage":"inpaint.sing","jobs":[{job}]}}"#);
        let crowd = format!(
            r#"{{"v":1,"stage":"inpaint.poll","jobs":[{}]}}"#,
            vec![job; 101].join(",")
        );
        let long = format!(
            r#"{{"v":1,"stage":"inpaint.submit","jobs":[{job}],"x":"{}"}}"#,
            "x".repeat(MAX_BODY_BYTES)
        );
        let bodies = [
            "",
            "null",
            "[]",
            "{}",
            r#"{"v":0}"#,
            r#"{"v":-1}"#,
            r#"{"v":"2"}"#,
            r#"{"v":2.5}"#,
            r#"{"v":1e999}"#,
            r#"{"v":18446744073709551616}"#,
            r#"{"v":1,"v":2}"#,
            r#"{"v":2,"v":1}"#,
            "{\"v\":1}\0",
            &"[".repeat(1_000_000),
            &format!(r#"{{"v":1,"x":{}"#, "[".repeat(1_000_000)),
            &format!(r#"{{"v":1,"stage":"inpaint.poll","stage":"inpaint.poll","jobs":[{job}]}}"#),
            &format!(r#"{{"v":1,"stage":"inpaint.poll\u0000","jobs":[{job}]}}"#),
            &format!(
                r#"{{"v":1,"stage":"inpaint.poll","jobs":[{}]}}"#,
                job.replace("7}", "9223372036854775808}")
            ),
            &format!(
                r#"{{"v":1,"stage":"inpaint.poll","jobs":[{}]}}"#,
                job.replace("7}", "7.5}")
            ),
            &format!(
                r#"{{"v":1,"stage":"inpaint.poll","jobs":[{}]}}"#,
                job.replace("7}", "\"7\"}")
            ),
            &format!(r#"{{"v":1,"stage":"inpaint.poll","jobs":{{"0":{job}}}}}"#),
            r#"{"v":1}"#,
            r#"{"v":1,"stage":"inpaint.poll","jobs":[]}"#,
            &two_submits,
            &no_stage,
            &crowd,
            &long,
        ];
        for body in bodies {
            let error = Message::decode(body.as_bytes()).unwrap_err();
            assert!(
                !matches!(error, Undecodable::NewerVersion(_)),
                "{body}: {error}"
            );
        }
    }
}
