//! `producer jobs show`.

use std::process::ExitCode;

use serde_json::Value;
use shared::config::DatabaseConfig;
use shared::db::{Candidate, Db, RestartOrder};
use shared::domain::resume::Refusal;
use uuid::Uuid;

use super::held::Holds;
use crate::cli::attempts::AttemptArgs;
use crate::cli::exit::NotFound;
use crate::cli::output::{OutputArgs, table};
use crate::operations::in_words;
use crate::web::FullDocument;

/// Newest events that are shown.
const HISTORY: i64 = 200;

/// Show a job: where it stands and why, what was paid, what happened
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  producer jobs show 7b0c6c7e-0f8b-4a1e-9d0a-0f8b00000001")]
pub struct Args {
    /// The job
    pub id: Uuid,
    /// Paid attempts, for what a retry would do.
    #[command(flatten)]
    pub attempts: AttemptArgs,
    /// Output.
    #[command(flatten)]
    pub output: OutputArgs,
    /// Database.
    #[command(flatten)]
    pub database: DatabaseConfig,
}

pub(super) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let db = Db::new(&args.database)?;
    let document = FullDocument::read(&db, args.id, HISTORY)
        .await?
        .ok_or_else(|| NotFound(format!("there is no job {}", args.id)))?;
    let order = RestartOrder {
        by: String::new(),
        reason: String::new(),
        another_attempt: args.attempts.another_attempt,
        max_paid_attempts: args.attempts.max_paid_attempts,
    };
    let candidate = Candidate {
        job: args.id,
        letter_epoch: None,
    };
    let plan = db.plan_restart(&order, &[candidate]).await?.pop();
    let retry = plan.and_then(|plan| match plan.to {
        Ok(to) => Some(format!("{}: {}", to.stage, in_words(to.how))),
        Err(Refusal::GoesOn | Refusal::Completed) => None,
        Err(refusal) => Some(refusal.explain().to_owned()),
    });
    let stage = db.job_stage(args.id).await?;
    let held = Holds::read(&db).await?.why(stage.as_ref());
    let mut value = serde_json::to_value(&document)?;
    if let Some(keys) = value.as_object_mut() {
        for (key, text) in [("retry", retry), ("held", held)] {
            keys.extend(text.map(|text| (key.to_owned(), Value::String(text))));
        }
    }
    args.output.print(&value, human)?;
    Ok(ExitCode::SUCCESS)
}

fn human(job: &Value) -> String {
    let text = |value: &Value| match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let mut lines = vec![
        format!("job        {}", text(&job["id"])),
        format!("user       {}", text(&job["user_id"])),
        format!(
            "status     {} ({} %)",
            text(&job["status"]),
            text(&job["progress_percentage"])
        ),
    ];
    let stage = &job["stage"];
    if stage.is_object() {
        let why = stage["reason"]
            .as_str()
            .map(|why| format!(": {why}"))
            .unwrap_or_default();
        lines.push(format!(
            "stage      {} {}{why}",
            text(&stage["stage"]),
            text(&stage["state"])
        ));
        lines.push(format!(
            "due        {} (tries {})",
            text(&stage["due_at"]),
            stage["tries"]
        ));
    }
    if let Some(held) = job["held"].as_str() {
        lines.push(held.to_owned());
    }
    if job["error"].is_object() {
        let (code, message) = (text(&job["error"]["code"]), text(&job["error"]["message"]));
        lines.push(format!("error      {code}: {message}"));
    }
    if !job["output_url"].is_null() {
        lines.push(format!("output     {}", text(&job["output_url"])));
    }
    if !job["retry"].is_null() {
        lines.push(format!("retry      {}", text(&job["retry"])));
    }
    let rows = |list: &'static str| job[list].as_array().into_iter().flatten();
    lines.push(String::new());
    lines.push(table(
        [
            "SUBMISSION",
            "VENDOR",
            "ATTEMPT",
            "STATE",
            "WORK",
            "CLAIMED",
            "RESERVED",
            "CHARGED",
            "WASTED",
        ],
        rows("submissions").map(|line| {
            [
                "token",
                "vendor",
                "attempt",
                "state",
                "vendor_task_id",
                "claimed_at",
                "cost_reserved",
                "cost_charged",
                "cost_wasted",
            ]
            .map(|key| text(&line[key]))
        }),
    ));
    lines.push(String::new());
    lines.push(table(
        ["WHEN", "WHAT", "WHO", "STAGE", "EPOCH", "DETAIL"],
        rows("history").map(|line| {
            ["at", "kind", "actor", "stage", "epoch", "detail"].map(|key| text(&line[key]))
        }),
    ));
    lines.join("\n")
}
