//! The submission protocol as a checked model: every interleaving of workers, dispatchers, broker, vendor, time and people, for
//! one job and one vendor. README.md says what is modelled, what is left out and how to read a counterexample.
//!
//! Must not share code with the fleet: a fault in shared code would be in both and hide itself.

mod guards;
mod outside;
mod process;
mod producer;
mod properties;
mod protocol;
mod settle;
mod stages;
mod state;
mod step;
mod tidy;
mod worker;

pub use guards::{GUARDS, Guard};
pub use properties::*;
pub use protocol::Protocol;
pub use state::{State, Vendor};
pub use step::{Confirm, Step};
