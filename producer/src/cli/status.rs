//! `producer status`: whether somebody has to act, one line for each thing.

use std::process::ExitCode;
use std::time::Duration;

use shared::config::DatabaseConfig;
use shared::db::Db;
use shared::domain::admission::Refusal;

use super::output::{OutputArgs, counted, table};
use super::vendors;
use crate::held;
use crate::overview::{Overview, StageCount};
use crate::status::{MOST_FAILED, Status};
use crate::times::told;

/// Jobs that are due for more seconds, and that nothing holds, are told of: a producer sends them out within one, and a minute later
/// an alert would.
const LATE_SECONDS: f64 = 30.0;

const EXAMPLE: &str = "Example:
  producer status

What to do about a line: paid sends, `producer resume-paid --help`; PAID TWICE and the audit, `producer audit --help`; workers,
`producer workers --help`; unknown outcomes, `producer unknowns --help`; an account, `producer vendors --help`; parked, held, late and
failed jobs, `producer jobs --help`; dead ones, `producer dead-letters --help`. With --json: what `GET /v1/overview` answers.";

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
    let overview = Overview::read(&Db::new(&args.database)?).await?;
    args.output.print(&overview, human)?;
    Ok(ExitCode::SUCCESS)
}

fn human(overview: &Overview) -> String {
    let status = &overview.status;
    let mut lines = vec![["paid sends".to_owned(), stopped(status)]];
    lines.extend(paid_twice(overview));
    lines.push(["workers".to_owned(), workers(overview)]);
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
                "{}: {}, the first in its stage for {oldest}: `producer jobs list --state {}`",
                counted(row.jobs, "job"),
                row.reason,
                row.state
            ),
        ]);
    }
    lines.extend(overview.stages.iter().filter_map(waiting));
    lines.extend(overview.stages.iter().filter_map(failing));
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
        match status.dead_letters {
            0 => "0 open".to_owned(),
            open => format!("{open} open: `producer dead-letters list`"),
        },
    ]);
    lines.push(["last audit".to_owned(), audited(overview)]);
    lines.extend(status.failed_audit.as_ref().map(|audit| {
        let error = audit.error.as_deref().unwrap_or_default();
        let text = format!("the one of {} failed: {error}", told(audit.started_at));
        ["audit".to_owned(), text]
    }));
    table(["WHAT", "STATE"], lines)
}

/// Whatever was paid for twice: loudly until somebody has dealt with it.
fn paid_twice(overview: &Overview) -> Option<[String; 2]> {
    let rows = || overview.duplicates_ever.iter();
    let ever: Vec<_> = rows()
        .filter(|row| row.submissions > 0)
        .map(|row| format!("{} at {}", row.submissions, row.vendor))
        .collect();
    let (open, audited) = (
        rows().map(|row| row.open).sum::<i64>(),
        overview.audited_duplicates.unwrap_or(0),
    );
    if open > 0 || audited > 0 {
        let told = format!(
            "{open} in the ledger and {audited} by audits that nobody has dealt with: `producer audit` names them"
        );
        return Some(["PAID TWICE".to_owned(), told]);
    }
    let told = match (&ever[..], overview.duplicates_dealt_with) {
        ([], 0) => return None,
        ([], audited) => format!("ever {audited}, by audits, dealt with"),
        (ever, _) => format!("ever {}, dealt with", ever.join(", ")),
    };
    Some(["paid twice".to_owned(), told])
}

fn workers(overview: &Overview) -> String {
    let count = &overview.workers;
    let others = [
        (count.quiet, "quiet"),
        (count.draining, "draining"),
        (count.lost, "lost"),
    ];
    let mut told = match count.running {
        0 => "NONE RUNS".to_owned(),
        running => format!("{running} running"),
    };
    for (many, state) in others.into_iter().filter(|(many, _)| *many > 0) {
        told += &format!(", {many} {state}");
    }
    told
}

/// Jobs of a stage that would move and do not.
fn waiting(stage: &StageCount) -> Option<[String; 2]> {
    let oldest = stage.oldest_due_seconds.unwrap_or_default();
    let jobs = |many| format!("{} in {}", counted(many, "job"), stage.stage);
    match &stage.held {
        Some(held) => {
            let many = match held.by {
                Refusal::NoWorker => stage.unserved,
                _ => stage.due,
            };
            let since = match oldest > 0.0 {
                true => format!(", the first due for {}", age_text(oldest)),
                false => String::new(),
            };
            let text = format!("{}{since}: {}", jobs(many), held.sentence);
            Some(["held".to_owned(), text])
        }
        None if oldest >= LATE_SECONDS => {
            let text = format!(
                "{}, the first due for {}: nothing sends it out; does a producer run, and are there workers enough?",
                jobs(stage.due),
                age_text(oldest)
            );
            Some(["late".to_owned(), text])
        }
        None => None,
    }
}

/// Jobs of a stage that fail again and again, mostly because a vendor does not answer.
fn failing(failing: &StageCount) -> Option<[String; 2]> {
    let text = format!(
        "{} in {stage}, tried again after errors: `producer jobs list --stage {stage}` says which",
        counted(failing.failing, "job"),
        stage = failing.stage,
    );
    (failing.failing > 0).then(|| ["failing".to_owned(), text])
}

fn stopped(status: &Status) -> String {
    match &status.paid_sends_stopped {
        Some(stop) => format!("STOPPED {}", held::stopped(stop)),
        None if status.accounts_stopped.is_empty() => "allowed".to_owned(),
        None => "allowed, but not to these accounts".to_owned(),
    }
}

fn audited(overview: &Overview) -> String {
    let Some(audit) = &overview.status.last_audit else {
        return "never".to_owned();
    };
    let (begun, since) = (told(audit.started_at), told(audit.since));
    let open = overview.duplicates_ever.iter().any(|row| row.open > 0);
    let dealt_with = match audit.findings > 0 && overview.open_findings == 0 && !open {
        true => ", all dealt with",
        false => "",
    };
    format!(
        "{begun} back to {since}: {}, {} to be repaired{dealt_with}",
        counted(i64::from(audit.findings), "finding"),
        audit.open
    )
}

/// Whole seconds, minutes or hours.
fn age_text(seconds: f64) -> String {
    humantime::format_duration(Duration::from_secs(seconds.max(0.0) as u64)).to_string()
}
