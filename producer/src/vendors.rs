//! The free calls of both vendors' clients behind one name, for what looks the same at both: asking for works by id, and listing.

use chrono::{DateTime, Utc};
use shared::config::{GhostcutApi, SyncApi, VendorTimeouts};
use shared::domain::Vendor;
use shared::domain::answer::Work;
use shared::vendor::{Metrics, SetupError, VendorError, ghostcut, sync};

use crate::dispatcher::Accounts;

/// Our accounts at both vendors. Cheap to clone.
#[derive(Clone)]
pub struct Vendors {
    /// Sync.so.
    pub sync: sync::Client,
    /// GhostCut.
    pub ghostcut: ghostcut::Client,
    accounts: Accounts,
}

impl Vendors {
    /// Builds the clients; connects to nothing.
    ///
    /// # Errors
    /// When a key or an address cannot be used.
    pub fn new(
        sync: &SyncApi,
        ghostcut: &GhostcutApi,
        timeouts: VendorTimeouts,
        metrics: Metrics,
    ) -> Result<Self, SetupError> {
        Ok(Self {
            accounts: Accounts {
                sync: sync.account.clone(),
                ghostcut: ghostcut.account.clone(),
            },
            sync: sync::Client::new(sync, timeouts, metrics.clone())?,
            ghostcut: ghostcut::Client::new(ghostcut, timeouts, metrics)?,
        })
    }

    /// The name of our account.
    #[must_use]
    pub fn account(&self, vendor: Vendor) -> &str {
        self.accounts.of(vendor)
    }

    /// The works with these ids; one that is missing is not known to the vendor, or not yet.
    ///
    /// # Errors
    /// When the vendor does not answer.
    pub async fn status(&self, vendor: Vendor, ids: &[String]) -> Result<Vec<Work>, VendorError> {
        match vendor {
            Vendor::Sync => self.sync.status(ids).await,
            Vendor::Ghostcut => self.ghostcut.status(ids).await,
        }
    }

    /// Every work that the vendor took in the window, complete or an error.
    ///
    /// # Errors
    /// When the vendor does not answer.
    pub async fn list(
        &self,
        vendor: Vendor,
        from: DateTime<Utc>,
        to: DateTime<Utc>,
    ) -> Result<Vec<Work>, VendorError> {
        let (from, to) = (from.timestamp_millis(), to.timestamp_millis());
        match vendor {
            Vendor::Sync => self.sync.list(from, to).await,
            Vendor::Ghostcut => self.ghostcut.list(from, to).await,
        }
    }
}
