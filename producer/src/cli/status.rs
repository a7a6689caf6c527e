//! `producer status`: whether somebody has to act, one line for each thing.

use std::process::ExitCode;
use std::time::Duration;

use shared::config::DatabaseConfig;
use shared::db::{AuditRecord, Db};

use super::output::{OutputArgs, counted, table};
use super::vendors;
use crate::held;
use crate::status::{DueToBeSent, MOST_FAILED, Status};
use crate::times::told;

const EXAMPLE: &str = "Example:
  producer status

What to do about a line: paid sends, `producer resume-paid --help`; unknown outcomes, `producer unknowns --help`; an account,
`producer vendors --help`; parked, held and failed jobs, `producer jobs --help`; dead ones, `producer dead-letters --help`; audit,
`producer audit --help`.";

/// Show what stands still or waits for a person
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLE)]
pub struct StatusArgs {
    /// How to print.
    #[command(flatten)]
    pub output: OutputArgs,
    /// Database.
    #[command(flatten)]
    pub database: DatabaseConfig,
}

/// Shows it.
///
/// # Errors
/// When the database is away.
pub async fn run(args: StatusArgs) -> anyhow::Result<ExitCode> {
    let status = Status::read(&Db::new(&args.database)?).await?;
    args.output.print(&status, human)?;
    Ok(ExitCode::SUCCESS)
}

fn human(status: &Status) -> String {
    let mut lines = vec![["paid sends".to_owned(), stopped(status)]];
    for account in &status.accounts_stopped {
        let name = format!("{}/{}", account.vendor, account.account);
        lines.push([name, format!("stopped: {}", vendors::stopped(account))]);
    }
    for row in &status.unknown {
        let mut text = format!(
            "{} in flight, {} of them with unknown outcome",
            row.in_flight, row.unknown
        );
        if row.refused > 0 {
            text += &format!(
                ", {} refused for now and sent again under their keys",
                row.refused
            );
        }
        if row.oldest_unknown_seconds > 0.0 {
            let age = age_text(row.oldest_unknown_seconds);
            text += &format!(", the oldest for {age}");
        }
        lines.push([row.vendor.clone(), text]);
    }
    for row in &status.standing {
        let oldest = age_text(row.oldest_seconds);
        lines.push([
            row.state.clone(),
            format!(
                "{}: {}, the first for {oldest}",
                counted(row.jobs, "job"),
                row.reason
            ),
        ]);
    }
    lines.extend(held_jobs(status));
    if status.failed_last_day > 0 {
        let more = if status.failed_last_day >= MOST_FAILED {
            "at least "
        } else {
            ""
        };
        let jobs = counted(status.failed_last_day, "job");
        let text =
            format!("{more}{jobs} of the last 24 hours: `producer jobs list --status failed`");
        lines.push(["failed".to_owned(), text]);
    }
    lines.push([
        "dead letters".to_owned(),
        format!("{} open", status.dead_letters),
    ]);
    lines.push(["last audit".to_owned(), audited(status.last_audit.as_ref())]);
    table(["WHAT", "STATE"], lines)
}

/// Jobs that would be sent and are not.
fn held_jobs(status: &Status) -> impl Iterator<Item = [String; 2]> {
    let rows = status.to_be_sent.iter().filter(|row| row.held.is_some());
    rows.map(|DueToBeSent { jobs: row, .. }| {
        let (jobs, oldest) = (counted(row.jobs, "job"), age_text(row.oldest_seconds));
        let text = format!(
            "{jobs} to be sent to {}, the first for {oldest}",
            row.vendor
        );
        ["held".to_owned(), text]
    })
}

fn stopped(status: &Status) -> String {
    match &status.paid_sends_stopped {
        Some(stop) => format!("STOPPED {}", held::stopped(stop)),
        None if status.accounts_stopped.is_empty() => "allowed".to_owned(),
        None => "allowed, but not to these accounts".to_owned(),
    }
}

fn audited(audit: Option<&AuditRecord>) -> String {
    audit.map_or_else(
        || "never".to_owned(),
        |audit| {
            let (begun, since) = (told(audit.started_at), told(audit.since));
            format!(
                "{begun} back to {since}: {}, {} to be repaired",
                counted(i64::from(audit.findings), "finding"),
                audit.open
            )
        },
    )
}

/// Whole seconds, minutes or hours.
fn age_text(seconds: f64) -> String {
    humantime::format_duration(Duration::from_secs(seconds.max(0.0) as u64)).to_string()
}
