//! The producer's settings: the shared ones it needs and its own.

use std::net::SocketAddr;
use std::time::Duration;

use shared::config::{
    BrokerConfig, DatabaseConfig, GhostcutApi, ProtocolConfig, StorageConfig, SyncApi,
    VendorTimeouts,
};
use shared::service::ServiceConfig;

/// Settings of `producer serve`.
#[derive(Clone, Debug, clap::Args)]
pub struct ServeConfig {
    /// Database.
    #[command(flatten)]
    pub database: DatabaseConfig,
    /// Broker.
    #[command(flatten)]
    pub broker: BrokerConfig,
    /// Object storage.
    #[command(flatten)]
    pub storage: StorageConfig,
    /// Sync.so.
    #[command(flatten)]
    pub sync: SyncApi,
    /// GhostCut.
    #[command(flatten)]
    pub ghostcut: GhostcutApi,
    /// Vendor timeouts.
    #[command(flatten)]
    pub vendor: VendorTimeouts,
    /// Times of the protocol.
    #[command(flatten)]
    pub protocol: ProtocolConfig,
    /// Dispatch.
    #[command(flatten)]
    pub dispatch: DispatchConfig,
    /// HTTP API.
    #[command(flatten)]
    pub http: HttpConfig,
    /// Admin port and stopping.
    #[command(flatten)]
    pub service: ServiceConfig,
}

/// How due rows become messages.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Dispatch")]
pub struct DispatchConfig {
    /// How often to look for due rows when nobody says that there are some
    #[arg(long, env, default_value = "1s", value_parser = humantime::parse_duration)]
    pub dispatch_interval: Duration,
    /// Jobs of one stage that may be out at a time
    #[arg(long, env, default_value_t = 1000)]
    pub dispatch_depth: u32,
    /// Jobs picked in one statement
    #[arg(long, env, default_value_t = 500)]
    pub dispatch_batch: u32,
    /// How often to follow submissions that no stage follows
    #[arg(long, env, default_value = "1m", value_parser = humantime::parse_duration)]
    pub sweep_interval: Duration,
    /// How often to count jobs and submissions for the metrics
    #[arg(long, env, default_value = "10s", value_parser = humantime::parse_duration)]
    pub gauge_interval: Duration,
}

/// The HTTP API.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "HTTP API")]
pub struct HttpConfig {
    /// Address of the API; port 0 takes a free one and logs it
    #[arg(long, env, default_value = "127.0.0.1:8080")]
    pub http_addr: SocketAddr,
    /// Largest request body in bytes
    #[arg(long, env, default_value_t = 256 * 1024)]
    pub http_max_body: usize,
    /// Segments a job may have; the plan at Sync.so says how many
    #[arg(long, env, default_value_t = 10, value_parser = clap::value_parser!(u8).range(1..=10))]
    pub max_segments: u8,
}
