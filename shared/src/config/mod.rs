//! Configuration, one struct per concern, read from flags and environment by `clap`.
//!
//! Each binary composes the structs it needs with `#[command(flatten)]`. Nothing here connects to anything.

pub mod broker;
mod callbacks;
mod contradiction;
mod cost;
mod database;
mod probe;
mod protocol;
pub mod secret;
pub mod storage;
pub mod vendor;

pub use broker::BrokerConfig;
pub use callbacks::CallbackConfig;
pub use contradiction::Contradiction;
pub use cost::CostConfig;
pub use database::DatabaseConfig;
pub use probe::{IntakeProbe, ProbeLevel, SubmitProbe};
pub use protocol::{CONSUMER_TIMEOUT, ProtocolConfig, SETTLE_MARGIN};
pub use secret::Secret;
pub use storage::{FetchConfig, StorageConfig};
pub use vendor::{GhostcutApi, SyncApi, VendorTimeouts};
