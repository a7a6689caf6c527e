//! The subcommands of `producer` that a person calls.

pub mod submit;
