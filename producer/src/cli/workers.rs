//! `producer workers`: who works.

use std::process::ExitCode;

use shared::config::DatabaseConfig;
use shared::db::Db;

use super::output::{OutputArgs, table};
use crate::times::told;
use crate::web::WorkerList;

const EXAMPLE: &str = "Example:
  producer workers

States: running; draining (told to stop, finishing what is in hand); lost (not seen for three heartbeats: it was killed, or cannot
reach the database. What it had in hand is due again after its lease). Lost workers are shown for a day.";

/// Show the workers: what they run, what they have in hand, which are lost
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLE)]
pub struct WorkersArgs {
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
pub async fn run(args: WorkersArgs) -> anyhow::Result<ExitCode> {
    let list = WorkerList::new(Db::new(&args.database)?.workers().await?);
    args.output.print(&list, human)?;
    Ok(ExitCode::SUCCESS)
}

fn human(list: &WorkerList) -> String {
    if list.workers().is_empty() {
        return "no workers".to_owned();
    }
    let rows = list.workers().iter().map(|worker| {
        let in_hand = worker.in_hand.as_array().into_iter().flatten();
        let in_hand: Vec<_> = in_hand
            .map(|one| {
                format!(
                    "{} {}",
                    one["count"],
                    one["stage"].as_str().unwrap_or_default()
                )
            })
            .collect();
        let at = |time: chrono::DateTime<chrono::Utc>| told(time).to_string();
        [
            worker.name.clone(),
            worker.state.clone(),
            worker.version.clone(),
            at(worker.started_at),
            at(worker.seen_at),
            in_hand.join(", "),
            worker
                .last_delivery_at
                .map_or_else(|| "never".to_owned(), at),
            worker
                .why_not_ready
                .clone()
                .unwrap_or_else(|| "ready".to_owned()),
        ]
    });
    table(
        [
            "WORKER",
            "STATE",
            "VERSION",
            "STARTED",
            "SEEN",
            "IN HAND",
            "LAST DELIVERY",
            "READY",
        ],
        rows,
    )
}
