//! The pure part: words, rules and tables of GhostFleet.
//!
//! Nothing in here does I/O, reads a clock or knows a database, broker or HTTP library.

mod words;

pub mod access;
pub mod admission;
pub mod adoption;
pub mod answer;
pub mod audit;
pub mod bulk;
pub mod classify;
pub mod cost;
pub mod effects;
pub mod fields;
pub mod find;
pub mod intake;
pub mod location;
pub mod media;
pub mod message;
pub mod metadata;
pub mod notice;
pub mod outcome;
pub mod progress;
pub mod resume;
pub mod retention;
pub mod search;
pub mod segments;
pub mod transition;
pub mod worker_order;

pub use words::{JobStatus, LedgerState, Stage, StageState, UnknownWord, Vendor};
