//! Audits that somebody asks for over HTTP: begun at once, and made one after the other by the sweep of the same process.

use chrono::{DateTime, Utc};
use shared::crash::{self, Point};
use shared::db::{Db, DbResult, NewAudit};
use tokio::sync::mpsc;

/// How many may wait besides the one that is being made.
const WAITING: usize = 4;

/// Takes orders for audits. Clones give them to the same sweep.
#[derive(Clone)]
pub struct AuditOrders {
    db: Db,
    orders: mpsc::Sender<Order>,
}

/// An audit that has begun and that nobody makes yet.
#[derive(Debug)]
pub struct Order {
    pub(super) id: i64,
    pub(super) since: DateTime<Utc>,
    pub(super) repair: bool,
}

impl AuditOrders {
    /// The two ends of the orders of one process.
    #[must_use]
    pub fn new(db: Db) -> (Self, mpsc::Receiver<Order>) {
        let (orders, ordered) = mpsc::channel(WAITING);
        (Self { db, orders }, ordered)
    }

    /// Begins an audit and returns its number. None: as many wait as may, or the process is stopping.
    ///
    /// # Errors
    /// When it is not known whether it has begun; nobody makes it then.
    pub async fn begin(&self, audit: &NewAudit<'_>) -> DbResult<Option<i64>> {
        let Ok(place) = self.orders.try_reserve() else {
            return Ok(None);
        };
        let begun = self.db.begin_audit(audit, None).await?;
        crash::point(Point::AuditBegun);
        if let Some(id) = begun {
            // Killed here, or while it waits: it stands as one that has not ended, and proves nothing.
            place.send(Order {
                id,
                since: audit.since,
                repair: audit.repair,
            });
        }
        Ok(begun)
    }
}
