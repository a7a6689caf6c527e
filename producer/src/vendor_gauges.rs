//! Gauges of the accounts: limits, pauses, balances, costs. Counted on the timer of `sweeps::Gauges`, never by a scrape.

use prometheus::{GaugeVec, IntGaugeVec, Opts};
use prometheus::{register_gauge_vec_with_registry, register_int_gauge_vec_with_registry};
use shared::db::{Db, DbError};
use shared::domain::Vendor;
use shared::domain::admission::Refusal;
use shared::telemetry::Registry;

/// The gauges; one series per vendor, of several accounts the one that is worst off.
pub struct VendorGauges {
    cap: GaugeVec,
    paused: IntGaugeVec,
    balance: GaugeVec,
    floor: GaugeVec,
    budget_used: GaugeVec,
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
            floor: register_gauge_vec_with_registry!(
                Opts::new(
                    "vendor_balance_floor",
                    "Balance below which nothing new is paid for; absent without a floor"
                ),
                &["vendor"],
                registry
            )?,
            budget_used: register_gauge_vec_with_registry!(
                Opts::new(
                    "vendor_budget_used_ratio",
                    "How much of the budget of this UTC day is spent or reserved; absent without a budget"
                ),
                &["vendor"],
                registry
            )?,
            cost: register_gauge_vec_with_registry!(
                Opts::new(
                    "vendor_cost_today",
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
        self.floor.reset();
        self.budget_used.reset();
        for vendor in Vendor::ALL.iter().map(|vendor| vendor.as_str()) {
            let of = || accounts.iter().filter(|account| account.vendor == vendor);
            if let Some(cap) = of().filter_map(|account| account.in_flight_cap).min() {
                self.cap.with_label_values(&[vendor]).set(cap.into());
            }
            if let Some(balance) = of().filter_map(|account| account.balance).reduce(f64::min) {
                self.balance.with_label_values(&[vendor]).set(balance);
            }
            let floors = of().filter_map(|account| account.balance_floor);
            if let Some(floor) = floors.reduce(f64::max) {
                self.floor.with_label_values(&[vendor]).set(floor);
            }
            let used = of().filter_map(|account| {
                let budget = account.daily_budget?;
                // A budget of nothing is used up.
                Some(if budget > 0.0 {
                    account.spent_today / budget
                } else {
                    1.0
                })
            });
            if let Some(used) = used.reduce(f64::max) {
                self.budget_used.with_label_values(&[vendor]).set(used);
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
