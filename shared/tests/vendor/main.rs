//! The vendor clients against a real socket: what is sent, and what each way of losing an answer comes to.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod ghostcut;
mod server;
mod signature;
mod sync;
mod transport;

use std::net::SocketAddr;
use std::time::Duration;

use clap::Parser;
use prometheus::TextEncoder;
use shared::config::vendor::{GhostcutApi, SyncApi, VendorTimeouts};
use shared::telemetry::Registry;
use shared::vendor::{Metrics, SetupError, ghostcut as gc, sync as so};

/// Longer than any test needs.
const LONG: Duration = Duration::from_secs(60);

#[derive(Parser)]
#[command(args_override_self = true)]
struct Config {
    #[command(flatten)]
    sync: SyncApi,
    #[command(flatten)]
    ghostcut: GhostcutApi,
    #[command(flatten)]
    timeouts: VendorTimeouts,
}

/// Both clients with their addresses set to one server, and the registry they count in.
struct Clients {
    ghostcut: gc::Client,
    sync: so::Client,
    registry: Registry,
}

impl Clients {
    fn of(address: SocketAddr) -> Self {
        Self::with(&format!("http://{address}"), &[])
    }

    fn with(base: &str, more: &[&str]) -> Self {
        let config = config(base, more);
        let registry = Registry::default();
        let metrics = Metrics::register(&registry).unwrap();
        Self {
            ghostcut: gc::Client::new(&config.ghostcut, config.timeouts, metrics.clone()).unwrap(),
            sync: so::Client::new(&config.sync, config.timeouts, metrics).unwrap(),
            registry,
        }
    }

    fn metrics(&self) -> String {
        TextEncoder::new()
            .encode_to_string(&self.registry.gather())
            .unwrap()
    }
}

/// Later words replace earlier ones.
fn config(base: &str, more: &[&str]) -> Config {
    let urls = [
        format!("--sync-api-url={base}"),
        format!("--ghostcut-api-url={base}"),
    ];
    let keys = [
        "test",
        "--sync-api-key=sk-hunter2",
        "--ghostcut-api-key=ak-hunter2",
        "--ghostcut-app-secret=test-app-secret-0001",
    ];
    let words = keys.into_iter().chain(urls.iter().map(String::as_str));
    Config::parse_from(words.chain(more.iter().copied()))
}

fn sync_client(base: &str, more: &[&str]) -> Result<so::Client, SetupError> {
    let config = config(base, more);
    so::Client::new(
        &config.sync,
        config.timeouts,
        Metrics::register(&Registry::default()).unwrap(),
    )
}
