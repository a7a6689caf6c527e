//! Reads GhostCut's balance on a timer. What a low balance stops is the database's business; a balance that cannot be read stops
//! nobody once the last one is too old.

use std::time::Duration;

use shared::crash::{self, Point};
use shared::db::Db;
use shared::domain::Vendor;
use shared::telemetry::chain;
use shared::vendor::ghostcut;
use tokio_util::sync::CancellationToken;

/// A balance counts until so many reads in a row have failed.
const VALID_READS: u32 = 3;

/// Reads the balance of one account.
pub struct BalanceWatch {
    /// Database.
    pub db: Db,
    /// GhostCut. Sync.so has no call that tells a balance.
    pub ghostcut: ghostcut::Client,
    /// The account.
    pub account: String,
}

impl BalanceWatch {
    /// Reads until told to stop.
    pub async fn run(self, every: Duration, stop: CancellationToken) {
        loop {
            let read = async {
                self.read(every * VALID_READS).await;
                tokio::time::sleep(every).await;
            };
            if stop.run_until_cancelled(read).await.is_none() {
                return;
            }
        }
    }

    async fn read(&self, valid: Duration) {
        let balance = match self.ghostcut.balance().await {
            Ok(balance) => balance,
            Err(error) => {
                tracing::warn!(error = chain(&error), "cannot read GhostCut's balance");
                return;
            }
        };
        crash::point(Point::BalanceRead);
        let stored = self
            .db
            .record_balance(Vendor::Ghostcut, &self.account, balance, valid)
            .await;
        if let Err(error) = stored {
            tracing::warn!(error = chain(&error), "cannot store GhostCut's balance");
        }
    }
}
