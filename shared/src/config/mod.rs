//! Configuration, one struct per concern, read from flags and environment by `clap`.
//!
//! Each binary composes the structs it needs with `#[command(flatten)]`. Nothing here connects to anything.

mod secret;
pub mod vendor;

pub use secret::Secret;
