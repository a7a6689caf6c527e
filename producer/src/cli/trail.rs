//! `producer trail`: what operators did, and why.

use std::process::ExitCode;

use shared::config::DatabaseConfig;
use shared::db::{ActFilter, Db};

use super::output::{OutputArgs, table};
use crate::times::told;
use crate::web::ActPage;

const EXAMPLES: &str = "Examples:
  The last acts:              producer trail
  What was done to a job:     producer trail --subject 7b0c6c7e-0f8b-4a1e-9d0a-0f8b00000001
  Who paused an account:      producer trail --action vendor_paused
  All of an operation:        producer trail --subject operation/7";

/// Lines read at once.
const PAGE: i64 = 200;

/// Show what operators did to the fleet and to jobs, newest first: who, when and why
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct TrailArgs {
    /// At most so many
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(i64).range(1..=10_000))]
    pub limit: i64,
    /// Only by this operator
    #[arg(long)]
    pub by: Option<String>,
    /// Only such acts: `canceled`, `vendor_paused`, `jobs_retried`
    #[arg(long)]
    pub action: Option<String>,
    /// Only those done to this: a job's id, `sync/default`, `operation/7`, `fleet`
    #[arg(long)]
    pub subject: Option<String>,
    /// How to print.
    #[command(flatten)]
    pub output: OutputArgs,
    /// Database.
    #[command(flatten)]
    pub database: DatabaseConfig,
}

/// Shows them.
///
/// # Errors
/// When the database is away.
pub async fn run(args: TrailArgs) -> anyhow::Result<ExitCode> {
    let db = Db::new(&args.database)?;
    let filter = ActFilter {
        by: args.by,
        action: args.action,
        subject: args.subject,
    };
    let (mut found, mut before) = (Vec::new(), None);
    loop {
        // A page may be short although another follows.
        let missing = args.limit - found.len() as i64;
        let (acts, next) = db.acts(&filter, before, missing.min(PAGE)).await?;
        found.extend(acts);
        before = next;
        if next.is_none() || found.len() as i64 >= args.limit {
            break;
        }
    }
    args.output.print(&ActPage::new(found, before), human)?;
    Ok(ExitCode::SUCCESS)
}

fn human(page: &ActPage) -> String {
    if page.events.is_empty() {
        return "nothing".to_owned();
    }
    let rows = page.events.iter().map(|act| {
        [
            told(act.at).to_string(),
            act.by.clone(),
            act.action.clone(),
            act.subject.clone(),
            act.reason.clone(),
        ]
    });
    table(["AT", "BY", "ACTION", "SUBJECT", "REASON"], rows)
}
