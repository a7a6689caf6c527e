//! `producer audit`: compares the ledger with the vendors' lists, and corrects it when asked to.

use std::process::ExitCode;

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::json;
use shared::config::DatabaseConfig;
use shared::crash::{self, Point};
use shared::db::{Db, NewAudit};
use shared::domain::audit::{Comparison, Finding};
use uuid::Uuid;

use super::accounts::AccountArgs;
use super::exit::{Exit, NotFound};
use super::operator::said;
use super::output::{OutputArgs, table};
use super::progress;
use super::since::since;
use crate::audit::{Audited, Auditor};
use crate::held;

const EXAMPLES: &str = "Examples:
  What the vendors were paid for in the last day and the ledger does not know, or the reverse:
    producer audit --since 24h

  After the database was restored from a backup of last night, book what was forgotten, look again, and go on:
    producer audit --since 36h --repair --reason 'restored the backup of 02:00'
    producer audit --since 36h
    producer resume-paid --reason 'audited'

  The vendor gave the money for a work that was paid for twice back; do not find it again:
    producer audit --acknowledge 6f0f9d0a-0f8b-4a1e-9d0a-0f8b00000001 --reason 'refunded, ticket 4711'

Findings: orphan (paid, not in the ledger) and unsettled (paid, the ledger says it is not, or does not know) can be
repaired; an orphan that is left stops all paid sends, because whatever else was forgotten would be paid for again.
denied: the vendor made a work that we hold to be refused; the money is lost unless it pays back.
second_work and second_submission were paid twice: ask the vendor for the money. vanished: ask the vendor.

LISTED: works that the vendor shows. BOOKED: those of them that the ledger has. FOREIGN: those that are not the fleet's, such
as one sent by hand with the same key; their ids follow. UNPROVED: works of the ledger that the list does not show, without
proof that it should. A missing work is vanished only if it is some minutes old and the list shows works of the fleet from before
and from after it; failed ones may go missing. A list that shows none of the fleet's works, though there are some, proves
nothing: the audit counts as not made.

--acknowledge may be given for each of several submissions, and notes all of them or none.

Exit status: 0 ledger and vendors agree, 1 something differs (or did, with --repair), 3 there is nothing to acknowledge about one of
the submissions, 4 the audit could not be made.";

/// Compare the ledger with the vendors' own lists
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct AuditArgs {
    /// From when on to compare: how long ago, or a time
    #[arg(long, value_name = "WHEN", default_value = "24h", value_parser = since)]
    pub since: DateTime<Utc>,
    /// Book the works that the ledger does not know, and let their jobs go on
    #[arg(long)]
    pub repair: bool,
    /// Compare nothing, but note that findings of these submissions that no repair can end are dealt with
    #[arg(long, value_name = "TOKEN", conflicts_with = "repair", value_parser = crate::cli::id::id)]
    pub acknowledge: Vec<Uuid>,
    /// Why; kept with the audit, or with each finding that is acknowledged, for which it should say more than `audit`
    #[arg(long, default_value = "audit", value_parser = said)]
    pub reason: String,
    /// Who; kept as --reason is
    #[arg(long, env = "USER", default_value = "operator", value_parser = said)]
    pub by: String,
    /// How to print.
    #[command(flatten)]
    pub output: OutputArgs,
    /// Database.
    #[command(flatten)]
    pub database: DatabaseConfig,
    /// The vendors.
    #[command(flatten)]
    pub accounts: AccountArgs,
}

#[derive(Serialize)]
struct Report {
    id: i64,
    since: DateTime<Utc>,
    repair: bool,
    differs: bool,
    /// Why it counts as not made: what was found is true, but proves nothing about the rest.
    error: Option<String>,
    comparisons: Vec<Comparison>,
}

/// Audits once.
///
/// # Errors
/// When standard output is closed.
pub async fn run(args: AuditArgs) -> anyhow::Result<ExitCode> {
    if !args.acknowledge.is_empty() {
        return acknowledge(&args).await;
    }
    let working = progress::working("comparing with the vendors' lists");
    let audited = audit(&args).await;
    working.finish_and_clear();
    let report = match audited {
        Ok(report) => report,
        Err(error) => {
            tracing::error!("the audit could not be made: {error:#}");
            return Ok(Exit::Failed.into());
        }
    };
    args.output.print(&report, human)?;
    if let Some(stop) = Db::new(&args.database)?.paid_stop().await?
        && stop.audit_first
    {
        tracing::warn!(
            "paid sends are stopped {}; once an audit with --repair was late enough, `producer resume-paid` allows them again, and until \
             then it says when",
            held::stopped(&stop)
        );
    }
    if let Some(error) = report.error {
        tracing::error!("the audit could not be made: {error}");
        return Ok(Exit::Failed.into());
    }
    Ok(Exit::done_if(!report.differs).into())
}

/// Notes who has dealt with findings, and how. Twice is harmless: the last word counts.
async fn acknowledge(args: &AuditArgs) -> anyhow::Result<ExitCode> {
    let db = Db::new(&args.database)?;
    let noted = db
        .acknowledge_findings(&args.acknowledge, &args.by, &args.reason)
        .await?;
    if !noted.without.is_empty() {
        let tokens: Vec<_> = noted.without.iter().map(ToString::to_string).collect();
        let why = format!(
            "nothing is done: no audit of the last 90 days has a finding about {} that no repair can end; --repair ends the others",
            tokens.join(", ")
        );
        return Err(NotFound(why).into());
    }
    let document = json!({ "acknowledged": args.acknowledge });
    args.output.print(&document, |_| {
        let number = args.acknowledge.len();
        format!("{number} acknowledged; audits show them, and count them no longer")
    })?;
    Ok(ExitCode::SUCCESS)
}

async fn audit(args: &AuditArgs) -> anyhow::Result<Report> {
    let db = Db::new(&args.database)?;
    let vendors = args.accounts.vendors()?;
    let since = args.since;
    let new = NewAudit {
        since,
        by: &args.by,
        reason: &args.reason,
        repair: args.repair,
    };
    let id = db.begin_audit(&new, None).await?;
    let id = id.ok_or_else(|| anyhow::anyhow!("the audit could not be begun"))?;
    crash::point(Point::AuditBegun);
    let Audited {
        comparisons,
        failed: error,
    } = Auditor { db, vendors }.run(id, since, args.repair).await?;
    Ok(Report {
        error,
        id,
        since,
        repair: args.repair,
        differs: (comparisons.iter().flat_map(|vendor| &vendor.findings))
            .any(|finding| finding.acknowledged.is_none()),
        comparisons,
    })
}

/// How many, and how many of them somebody has dealt with.
fn findings(vendor: &Comparison) -> String {
    let all = vendor.findings.len();
    let known = vendor.findings.iter();
    match known
        .filter(|finding| finding.acknowledged.is_some())
        .count()
    {
        0 => all.to_string(),
        known => format!("{all}, {known} of them acknowledged"),
    }
}

fn human(report: &Report) -> String {
    let mut text = table(
        [
            "VENDOR", "LISTED", "BOOKED", "FOREIGN", "UNPROVED", "FINDINGS",
        ],
        report.comparisons.iter().map(|vendor| {
            [
                vendor.vendor.to_string(),
                vendor.listed.to_string(),
                vendor.booked.to_string(),
                vendor.foreign.to_string(),
                vendor.unproved.to_string(),
                findings(vendor),
            ]
        }),
    );
    for vendor in &report.comparisons {
        if !vendor.foreign_ids.is_empty() {
            let ids = vendor.foreign_ids.join(", ");
            text += &format!("\nforeign at {}: {ids}", vendor.vendor);
        }
    }
    if report
        .comparisons
        .iter()
        .any(|vendor| !vendor.findings.is_empty())
    {
        let line = |vendor: &Comparison, finding: &Finding| {
            let acknowledged = finding.acknowledged.as_ref();
            let acknowledged = acknowledged.map(|words| format!("acknowledged by {words}"));
            let repair = finding.repair.clone().or(acknowledged);
            [
                vendor.vendor.to_string(),
                finding.kind.to_string(),
                finding.task_id.clone().unwrap_or_default(),
                finding.job.to_string(),
                finding.token.to_string(),
                repair.unwrap_or_else(|| finding.detail.clone()),
            ]
        };
        let lines = report.comparisons.iter().flat_map(|vendor| {
            vendor
                .findings
                .iter()
                .map(move |finding| line(vendor, finding))
        });
        text += "\n\n";
        text += &table(
            ["VENDOR", "FINDING", "WORK", "JOB", "TOKEN", "DETAIL"],
            lines,
        );
    }
    text
}
