//! Configuration, one struct per concern, read from flags and environment by `clap`.
//!
//! Each binary composes the structs it needs with `#[command(flatten)]`. Nothing here connects to anything.

mod broker;
mod secret;

pub use broker::BrokerConfig;
pub use secret::Secret;
