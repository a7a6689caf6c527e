//! Media files: the shipped samples, fetched inputs, and results derived from them.
//! A result is its input plus a note of where it came from, placed where players skip it.
//! Big files are streamed and never held in memory.

mod send;
mod store;

use serde::{Deserialize, Serialize};

use crate::truth::Vendor;

pub(crate) use send::handle;
pub(crate) use store::{Store, result_limits};

/// A small real media file that ships with the sandbox.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// File name; served under `/samples/` of the media server.
    pub name: &'static str,
    /// Content.
    pub bytes: &'static [u8],
}

macro_rules! samples {
    ($($name:literal),*) => {
        &[$(Sample { name: $name, bytes: include_bytes!(concat!("../../media/", $name)) }),*]
    };
}

/// All samples: `talk.mp4` has video and sound, the other videos have no sound.
pub const SAMPLES: &[Sample] = samples![
    "talk.mp4",
    "bars.mp4",
    "zoom.mp4",
    "clip.webm",
    "tone-330.wav",
    "tone-660.wav",
    "tone-550.mp3"
];

/// A sample by name.
pub fn sample(name: &str) -> Option<Sample> {
    SAMPLES.iter().copied().find(|sample| sample.name == name)
}

/// The note in a result: who made it from what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Provenance {
    /// Vendor that made the result.
    pub vendor: Vendor,
    /// Its id of the work.
    pub work: String,
    /// SHA-256 of the video it fetched, lower-case hex.
    pub input_sha256: String,
}

const NOTE: &[u8] = b"sandbox-provenance:";

impl Provenance {
    /// All notes in a file, in the order they were added: a file that went through both vendors has two.
    pub fn find_all(file: &[u8]) -> Vec<Self> {
        let starts = file
            .windows(NOTE.len())
            .enumerate()
            .filter(|(_, window)| *window == NOTE);
        starts
            .filter_map(|(at, _)| {
                let text = &file[at + NOTE.len()..];
                let end = text.iter().position(|byte| *byte == b'\n')?;
                serde_json::from_slice(&text[..end]).ok()
            })
            .collect()
    }
}
