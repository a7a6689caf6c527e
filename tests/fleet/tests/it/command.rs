//! The producer's commands, under the name by which the tests know them.

pub(crate) use fleet::command::{Ended, producer};
