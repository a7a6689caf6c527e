//! The accounts as a table, and in words what stops them.

use std::time::Duration;

use chrono::{DateTime, Utc};
use shared::db::{PaidStop, VendorStatus};
use shared::domain::admission::Refusal;

use crate::cli::output::table;
use crate::held;
use crate::replay::money;
use crate::times::told;

pub(super) fn human(
    accounts: &[VendorStatus],
    stop: Option<&PaidStop>,
    now: DateTime<Utc>,
) -> String {
    let rows = accounts
        .iter()
        .map(|account| line(account, stop.is_some(), now));
    let mut text = table(
        [
            "ACCOUNT",
            "IN FLIGHT",
            "PER MINUTE",
            "SPENT TODAY",
            "BALANCE",
            "FLOOR",
            "STOPPED",
        ],
        rows,
    );
    if let Some(stop) = stop {
        let since = held::stopped(stop);
        let ends = match stop.audit_first {
            true => "`producer audit --repair`, and then `producer resume-paid`, end it",
            false => "`producer resume-paid` ends it",
        };
        text += &format!("\n\nAll paid sends are stopped {since}: {ends}.");
    }
    for account in accounts {
        if let Some(words) = slots(account) {
            text += &format!("\n\n{words}");
        }
    }
    text
}

fn line(account: &VendorStatus, is_all_stopped: bool, now: DateTime<Utc>) -> [String; 7] {
    let of = |limit: Option<String>| limit.unwrap_or_else(|| "-".to_owned());
    let amount = |amount: f64| {
        let vendor = account.vendor.parse();
        vendor.map_or_else(|_| amount.to_string(), |vendor| money(vendor, amount))
    };
    let balance = account.balance.map(|balance| match account.balance_at {
        Some(at) => format!("{} ({} ago)", amount(balance), ago(at, now)),
        None => amount(balance),
    });
    let stopped = match is_all_stopped {
        true if account.refusal.is_none() => "yes, all paid sends are".to_owned(),
        true => format!("yes, all paid sends are; {}", stopped(account)),
        false => stopped(account),
    };
    [
        format!("{}/{}", account.vendor, account.account),
        out_of(
            account.in_flight.to_string(),
            account.in_flight_cap.map(|n| n.to_string()),
        ),
        of(account.max_per_minute.map(|n| n.to_string())),
        out_of(
            amount(account.spent_today),
            account.daily_budget.map(amount),
        ),
        of(balance),
        of(account.balance_floor.map(amount)),
        stopped,
    ]
}

fn out_of(used: String, limit: Option<String>) -> String {
    match limit {
        Some(limit) => format!("{used} of {limit}"),
        None => used,
    }
}

/// Where a cap comes from that no operator has set, and when it ends.
fn slots(account: &VendorStatus) -> Option<String> {
    let (slots, until) = (account.slots?, account.slots_until?);
    if account.in_flight_cap != Some(slots) || account.max_in_flight == Some(slots) {
        return None;
    }
    let (vendor, account) = (&account.vendor, &account.account);
    Some(format!(
        "{vendor}/{account}: the cap of {slots} in flight is the vendor's: it said that its slots are full, and so many works were running \
         (1 at least). It ends at {}, or with `producer vendors resume {vendor}`. A request that was refused counts until it is sent again.",
        told(until)
    ))
}

/// Why an account sends nothing, or nothing new, and until when; `no` when it does.
pub(in crate::cli) fn stopped(account: &VendorStatus) -> String {
    let Some(refusal) = &account.refusal else {
        return "no".to_owned();
    };
    // It ends with any work.
    if refusal == Refusal::Full.as_str() {
        return refusal.clone();
    }
    let time = |until: DateTime<Utc>| told(until).to_string();
    if refusal == Refusal::Floor.as_str() {
        let counts = account.refusal_until.map(time).unwrap_or_default();
        return format!(
            "floor until the balance is above it (as last read, which counts until {counts})"
        );
    }
    let until = match account.refusal_until {
        Some(until) => format!(" until {}", time(until)),
        None => " until resumed".to_owned(),
    };
    let reason = account.refusal_reason.as_ref();
    let reason = reason.map_or_else(String::new, |reason| format!(": {reason}"));
    let behind = match account.circuit_open && refusal != Refusal::Circuit.as_str() {
        true => "; behind it, the circuit is open",
        false => "",
    };
    let word: Result<Refusal, _> = refusal.parse();
    let what = word.map_or("", Refusal::meaning);
    format!("{refusal}{until}: {what}{reason}{behind}")
}

fn ago(at: DateTime<Utc>, now: DateTime<Utc>) -> String {
    let seconds = (now - at).num_seconds().max(0).unsigned_abs();
    humantime::format_duration(Duration::from_secs(seconds)).to_string()
}
