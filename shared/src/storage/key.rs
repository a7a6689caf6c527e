//! The key of every object the fleet knows. Nobody formats an object path elsewhere.
//!
//! Keys are made of ids only, so they are ASCII and need no escaping: GhostCut refuses URLs with other letters.

use super::Container;
use std::fmt;
use uuid::Uuid;

/// An object of the fleet; its text is its key in the bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Key {
    /// The video a job was given.
    InputVideo {
        /// Owner of the job.
        user: Uuid,
        /// The job.
        job: Uuid,
        /// Its format.
        container: Container,
    },
    /// One of the audio files a job was given.
    InputAudio {
        /// Owner of the job.
        user: Uuid,
        /// The job.
        job: Uuid,
        /// Which of them, from 0, in the order of first appearance in the segments.
        index: usize,
        /// Its format.
        container: Container,
    },
    /// Our copy of a source that was given as a foreign URL.
    ImportedSource {
        /// Owner of the job.
        user: Uuid,
        /// The job.
        job: Uuid,
        /// Its format.
        container: Container,
    },
    /// What Sync.so made of the input. The name is that of the replaced system.
    LipsyncResult {
        /// Owner of the job.
        user: Uuid,
        /// The job.
        job: Uuid,
    },
    /// What GhostCut made of the source. The name is that of the replaced system.
    InpaintResult {
        /// Owner of the job.
        user: Uuid,
        /// The job.
        job: Uuid,
    },
    /// The source of one paid submission, for that submission alone.
    SubmissionSource {
        /// The submission.
        token: Uuid,
        /// Its format.
        container: Container,
    },
}

impl Key {
    /// The format the object is in.
    #[must_use]
    pub const fn container(&self) -> Container {
        match *self {
            Self::InputVideo { container, .. }
            | Self::InputAudio { container, .. }
            | Self::ImportedSource { container, .. }
            | Self::SubmissionSource { container, .. } => container,
            Self::LipsyncResult { .. } | Self::InpaintResult { .. } => Container::Mp4,
        }
    }

    /// The MIME type to store the object with.
    #[must_use]
    pub const fn content_type(&self) -> &'static str {
        self.container().content_type()
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InputVideo {
                user,
                job,
                container,
            } => write!(f, "users/{user}/jobs/{job}/input/video.{container}"),
            Self::InputAudio {
                user,
                job,
                index,
                container,
            } => {
                write!(f, "users/{user}/jobs/{job}/input/audio-{index}.{container}")
            }
            Self::ImportedSource {
                user,
                job,
                container,
            } => write!(f, "users/{user}/jobs/{job}/source.{container}"),
            Self::LipsyncResult { user, job } => {
                write!(f, "users/{user}/jobs/{job}/pro_sync_result_{job}.mp4")
            }
            Self::InpaintResult { user, job } => {
                write!(f, "users/{user}/jobs/{job}/pro_final_result_{job}.mp4")
            }
            Self::SubmissionSource { token, container } => {
                write!(f, "submissions/{token}/source.{container}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_have_their_fixed_paths_and_types() {
        let (user, job, token) = (Uuid::from_u128(1), Uuid::from_u128(2), Uuid::from_u128(3));
        let (u, j) = (
            "00000000-0000-0000-0000-000000000001",
            "00000000-0000-0000-0000-000000000002",
        );
        let cases = [
            (
                Key::InputVideo {
                    user,
                    job,
                    container: Container::Mov,
                },
                format!("users/{u}/jobs/{j}/input/video.mov"),
            ),
            (
                Key::InputAudio {
                    user,
                    job,
                    index: 4,
                    container: Container::Wav,
                },
                format!("users/{u}/jobs/{j}/input/audio-4.wav"),
            ),
            (
                Key::ImportedSource {
                    user,
                    job,
                    container: Container::Mp4,
                },
                format!("users/{u}/jobs/{j}/source.mp4"),
            ),
            (
                Key::LipsyncResult { user, job },
                format!("users/{u}/jobs/{j}/pro_sync_result_{j}.mp4"),
            ),
            (
                Key::InpaintResult { user, job },
                format!("users/{u}/jobs/{j}/pro_final_result_{j}.mp4"),
            ),
            (
                Key::SubmissionSource {
                    token,
                    container: Container::Webm,
                },
                "submissions/00000000-0000-0000-0000-000000000003/source.webm".to_owned(),
            ),
        ];
        for (key, path) in cases {
            assert_eq!(key.to_string(), path);
            assert_eq!(
                rusoto_s3::util::encode_key(&path),
                path,
                "needs no escaping"
            );
        }
        assert_eq!(
            Key::InputAudio {
                user,
                job,
                index: 0,
                container: Container::Wav
            }
            .content_type(),
            "audio/wav"
        );
        assert_eq!(Key::InpaintResult { user, job }.content_type(), "video/mp4");
    }
}
