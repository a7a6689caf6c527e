//! Our accounts at the vendors, for commands that ask the vendors themselves.

use anyhow::Context as _;
use shared::config::{GhostcutApi, SyncApi, VendorTimeouts};
use shared::vendor::Metrics;

use crate::vendors::Vendors;

/// The settings that such a command takes.
#[derive(Clone, Debug, clap::Args)]
pub struct AccountArgs {
    /// Sync.so.
    #[command(flatten)]
    pub sync: SyncApi,
    /// GhostCut.
    #[command(flatten)]
    pub ghostcut: GhostcutApi,
    /// Vendor timeouts.
    #[command(flatten)]
    pub vendor: VendorTimeouts,
}

impl AccountArgs {
    /// The clients; connects to nothing.
    ///
    /// # Errors
    /// When a key or an address cannot be used.
    pub fn vendors(&self) -> anyhow::Result<Vendors> {
        // A command ends before anybody asks for its metrics.
        let metrics = Metrics::register(&shared::telemetry::Registry::default())?;
        Vendors::new(&self.sync, &self.ghostcut, self.vendor, metrics).context("vendors")
    }
}
