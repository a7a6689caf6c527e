//! Gauges of the accounts: limits, pauses, balances, costs. Counted on the timer of `sweeps::Gauges`, never by a scrape.

use prometheus::{GaugeVec, IntGaugeVec, Opts, Registry};
use prometheus::{register_gauge_vec_with_registry, register_int_gauge_vec_with_registry};
use shared::db::{Db, DbError};
use shared::domain::Vendor;
use shared::domain::admission::Refusal;

/// The gauges; one series per vendor, of several accounts the one that is worst off.
pub struct VendorGauges {
    cap: GaugeVec,
    paused: IntGaugeVec,
    balance: GaugeVec,
    cost: GaugeVec,
}

impl VendorGauges {
    /// Registers the gauges.
    ///
    /// # Errors
    /// When a name is taken.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        Ok(Self {
            cap: register_gauge_vec_with_registry!(
                Opts::new(
                    "vendor_in_flight_cap",
                    "Submissions that may be in flight; absent without a limit"
                ),
                &["vendor"],
                registry
            )?,
            paused: register_int_gauge_vec_with_registry!(
                Opts::new(
                    "vendor_paused",
                    "1 while paid sends to the vendor, or new ones (floor, budget), are paused for this reason"
                ),
                &["vendor", "reason"],
                registry
            )?,
            balance: register_gauge_vec_with_registry!(
                Opts::new(
                    "vendor_balance",
                    "Balance as last read, in the vendor's unit; absent where there is none to read"
                ),
                &["vendor"],
                registry
            )?,
            cost: register_gauge_vec_with_registry!(
                Opts::new(
                    "vendor_cost_total",
                    "What submissions of this UTC day have cost, in the vendor's unit: reserved (not ended), charged, wasted"
                ),
                &["vendor", "kind"],
                registry
            )?,
        })
    }

    /// Counts.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn count(&self, db: &Db) -> Result<(), DbError> {
        let (accounts, costs) = (db.vendor_status().await?, db.cost_totals().await?);
        self.cap.reset();
        self.balance.reset();
        for vendor in Vendor::ALL.iter().map(|vendor| vendor.as_str()) {
            let of = || accounts.iter().filter(|account| account.vendor == vendor);
            if let Some(cap) = of().filter_map(|account| account.in_flight_cap).min() {
                self.cap.with_label_values(&[vendor]).set(cap.into());
            }
            if let Some(balance) = of().filter_map(|account| account.balance).reduce(f64::min) {
                self.balance.with_label_values(&[vendor]).set(balance);
            }
            for pause in Refusal::PAUSES.iter().map(|pause| pause.as_str()) {
                let paused = of().any(|account| account.refusal.as_deref() == Some(pause));
                self.paused
                    .with_label_values(&[vendor, pause])
                    .set(paused.into());
            }
            let cost = costs.iter().find(|cost| cost.vendor == vendor);
            for (kind, value) in [
                ("reserved", cost.map(|cost| cost.reserved)),
                ("charged", cost.map(|cost| cost.charged)),
                ("wasted", cost.map(|cost| cost.wasted)),
            ] {
                self.cost
                    .with_label_values(&[vendor, kind])
                    .set(value.unwrap_or(0.0));
            }
        }
        Ok(())
    }
}
