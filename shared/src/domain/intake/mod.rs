//! What a job asks for: read from an API request ([`NewJob`]) or from a row of `video_jobs` ([`JobSpec`]).
//!
//! Everything that can be known before the first paid call is checked here, by pure rules, and all faults are
//! reported together. Must not fetch, sign or store anything.

mod inputs;
mod request;
mod spec;

pub use inputs::{Inputs, VIDEO_PATH, refused_by_ghostcut};
pub use request::{CALLBACK_URL, NewJob, Priority};
pub use spec::{JobSpec, SpecError};
