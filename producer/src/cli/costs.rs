//! `producer costs`: what was spent, by day.

use std::process::ExitCode;

use clap::ValueEnum;
use serde_json::json;
use shared::config::DatabaseConfig;
use shared::db::{CostDay, Db};

use super::output::{OutputArgs, table};

const EXAMPLES: &str = "\
Examples:
  producer costs
  producer costs --days 30 --by user --json

Units are the vendors': US dollars at Sync.so, points at GhostCut. RESERVED is expected of what has not ended yet, CHARGED
is what the vendor said (Sync.so says nothing: what was expected, nothing for failures), WASTED the part of it that served
nobody. Days are UTC, by the time of the claim.";

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
            format!("{:.2}", day.reserved),
            format!("{:.2}", day.charged),
            format!("{:.2}", day.wasted),
        ]
    });
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
        rows,
    )
}
