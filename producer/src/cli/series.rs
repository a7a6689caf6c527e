//! `producer series`: what happened, minute by minute.

use std::process::ExitCode;

use shared::config::DatabaseConfig;
use shared::db::Db;

use super::output::{OutputArgs, table};
use crate::times::told;
use crate::web::{DEFAULT_MINUTES, MAX_MINUTES, Point, Series};

const EXAMPLES: &str = "\
Examples:
  The last hour:             producer series
  A day, for a program:      producer series --minutes 1440 --json

SYNC and GHOSTCUT: submissions that were opened. P50 and P95: seconds from creation to end of the jobs that were completed. The last
minute is still going on. Minutes in which nothing happened are left out of the table, and are in the document.";

/// Show what happened minute by minute: jobs that ended, submissions, how long jobs took
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct SeriesArgs {
    /// How many minutes, the one that is going on included
    #[arg(long, value_name = "N", default_value_t = DEFAULT_MINUTES,
        value_parser = clap::value_parser!(i32).range(1..=i64::from(MAX_MINUTES)))]
    pub minutes: i32,
    /// A line for minutes in which nothing happened too
    #[arg(long)]
    pub all: bool,
    /// How to print.
    #[command(flatten)]
    pub output: OutputArgs,
    /// Database.
    #[command(flatten)]
    pub database: DatabaseConfig,
}

/// Prints the minutes.
///
/// # Errors
/// When the database is away.
pub async fn run(args: SeriesArgs) -> anyhow::Result<ExitCode> {
    let series = Series::read(&Db::new(&args.database)?, args.minutes).await?;
    args.output
        .print(&series, |series| human(series, args.all))?;
    Ok(ExitCode::SUCCESS)
}

fn human(series: &Series, all: bool) -> String {
    let points = series.points.iter();
    let rows: Vec<_> = points
        .filter(|point| all || !point.is_empty())
        .map(row)
        .collect();
    if rows.is_empty() {
        return "nothing happened".to_owned();
    }
    table(
        [
            "MINUTE", "FINISHED", "FAILED", "CANCELED", "SYNC", "GHOSTCUT", "P50", "P95",
        ],
        rows,
    )
}

fn row(point: &Point) -> [String; 8] {
    let seconds = |took: Option<f64>| took.map_or_else(|| "-".to_owned(), |s| format!("{s:.1}"));
    [
        told(point.at).to_string(),
        point.finished.to_string(),
        point.failed.to_string(),
        point.canceled.to_string(),
        point.submissions.sync.to_string(),
        point.submissions.ghostcut.to_string(),
        seconds(point.job_seconds.p50),
        seconds(point.job_seconds.p95),
    ]
}
