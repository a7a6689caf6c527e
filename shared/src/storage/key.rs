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
    /// What every key of the fleet begins with. Others may have objects there too: [`Key::parse`] tells.
    pub const PREFIXES: [&str; 2] = ["users/", "submissions/"];

    /// The key whose text this is; none when it is not one of the fleet's.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let parts: Vec<&str> = text.split('/').collect();
        let key = match *parts.as_slice() {
            ["users", user, "jobs", job, "input", file] => {
                let (user, job) = (user.parse().ok()?, job.parse().ok()?);
                let (name, container) = named(file)?;
                match name.strip_prefix("audio-") {
                    Some(index) => Self::InputAudio {
                        user,
                        job,
                        index: index.parse().ok()?,
                        container,
                    },
                    None => Self::InputVideo {
                        user,
                        job,
                        container,
                    },
                }
            }
            ["users", user, "jobs", job, file] => {
                let (user, job) = (user.parse().ok()?, job.parse().ok()?);
                let (name, container) = named(file)?;
                if name == "source" {
                    Self::ImportedSource {
                        user,
                        job,
                        container,
                    }
                } else if name.starts_with("pro_sync_") {
                    Self::LipsyncResult { user, job }
                } else {
                    Self::InpaintResult { user, job }
                }
            }
            ["submissions", token, file] => Self::SubmissionSource {
                token: token.parse().ok()?,
                container: named(file)?.1,
            },
            _ => return None,
        };
        // Ids have several spellings and names more than one pattern: only what would be written so is ours.
        (key.to_string() == text).then_some(key)
    }

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

/// Name and format of a file.
fn named(file: &str) -> Option<(&str, Container)> {
    let (name, extension) = file.rsplit_once('.')?;
    let mut containers = Container::ALL.into_iter();
    Some((
        name,
        containers.find(|container| container.extension() == extension)?,
    ))
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
    fn a_key_is_read_back_and_what_others_store_is_not_ours() {
        let (user, job, token) = (Uuid::from_u128(1), Uuid::from_u128(2), Uuid::from_u128(3));
        let container = Container::Mkv;
        for key in [
            Key::InputVideo {
                user,
                job,
                container,
            },
            Key::InputAudio {
                user,
                job,
                index: 12,
                container,
            },
            Key::ImportedSource {
                user,
                job,
                container,
            },
            Key::LipsyncResult { user, job },
            Key::InpaintResult { user, job },
            Key::SubmissionSource { token, container },
        ] {
            let text = key.to_string();
            assert_eq!(Key::parse(&text), Some(key), "{text}");
            let is_prefixed = Key::PREFIXES.iter().any(|prefix| text.starts_with(prefix));
            assert!(is_prefixed, "{text}");
            for other in [
                text.to_uppercase(),
                format!("{text}/"),
                format!("{text}.part"),
            ] {
                assert_eq!(Key::parse(&other), None, "{other}");
            }
        }
        for other in [
            "",
            "users/1/jobs/2/source.mp4",
            "submissions/00000000000000000000000000000003/source.mkv",
            "users/00000000-0000-0000-0000-000000000001/jobs/00000000-0000-0000-0000-000000000002/portrait.mp4",
        ] {
            assert_eq!(Key::parse(other), None, "{other}");
        }
    }

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
