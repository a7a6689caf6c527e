//! `producer costs`: what was spent, by day.

use std::process::ExitCode;

use clap::ValueEnum;
use serde_json::json;
use shared::config::DatabaseConfig;
use shared::db::{CostDay, Db};
use shared::domain::Vendor;

use super::output::{OutputArgs, table};
use crate::replay::money;

const EXAMPLES: &str = "\
Examples:
  producer costs
  producer costs --days 30 --by user --json

Units are the vendors': US dollars at Sync.so, points at GhostCut. RESERVED is expected of what has not ended yet, or of which
nobody knows, CHARGED is what the vendor said of what has (Sync.so says nothing: what was expected, nothing for failures), WASTED
the part of it that served nobody. Days are UTC, by the time of the claim.";

/// Show what was spent, by day and vendor
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct CostsArgs {
    /// How many days, today included
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..=3660))]
    pub days: u32,
    /// Totals of each vendor, or of each user at each vendor
    #[arg(long, value_enum, default_value = "vendor")]
    pub by: By,
    /// How to print.
    #[command(flatten)]
    pub output: OutputArgs,
    /// Database.
    #[command(flatten)]
    pub database: DatabaseConfig,
}

/// What a total is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum By {
    /// Each vendor.
    Vendor,
    /// Each user at each vendor.
    User,
}

/// Prints the totals.
///
/// # Errors
/// When the database is away.
pub async fn run(args: CostsArgs) -> anyhow::Result<ExitCode> {
    let by_user = args.by == By::User;
    let days = Db::new(&args.database)?
        .cost_days(args.days, by_user)
        .await?;
    args.output
        .print(&json!({ "days": days }), |_| human(&days, by_user))?;
    Ok(ExitCode::SUCCESS)
}

fn human(days: &[CostDay], by_user: bool) -> String {
    if days.is_empty() {
        return "nothing was submitted".to_owned();
    }
    let rows = days.iter().map(|day| {
        let user = match day.user_id {
            Some(user) => user.to_string(),
            None if by_user => "unknown".to_owned(),
            None => "all".to_owned(),
        };
        [
            day.day.to_string(),
            day.vendor.clone(),
            user,
            day.submissions.to_string(),
            amount(day, day.reserved),
            amount(day, day.charged),
            amount(day, day.wasted),
        ]
    });
    let totals = Vendor::ALL.iter().filter_map(|vendor| total(days, *vendor));
    table(
        [
            "DAY",
            "VENDOR",
            "USER",
            "SUBMISSIONS",
            "RESERVED",
            "CHARGED",
            "WASTED",
        ],
        rows.chain(totals),
    )
}

/// In the vendor's unit.
fn amount(day: &CostDay, amount: f64) -> String {
    let vendor = day.vendor.parse();
    vendor.map_or_else(|_| amount.to_string(), |vendor| money(vendor, amount))
}

/// The last line of a vendor; none where nothing was submitted to it.
fn total(days: &[CostDay], vendor: Vendor) -> Option<[String; 7]> {
    let of_vendor = || days.iter().filter(|day| day.vendor == vendor.as_str());
    of_vendor().next()?;
    let sum = |of: fn(&CostDay) -> f64| money(vendor, of_vendor().map(of).sum());
    Some([
        "total".to_owned(),
        vendor.to_string(),
        "all".to_owned(),
        of_vendor()
            .map(|day| day.submissions)
            .sum::<i64>()
            .to_string(),
        sum(|day| day.reserved),
        sum(|day| day.charged),
        sum(|day| day.wasted),
    ])
}
