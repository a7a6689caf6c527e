//! `producer jobs show`.

use std::process::ExitCode;

use serde_json::Value;
use shared::config::DatabaseConfig;
use shared::db::{Candidate, Db, RestartOrder};
use shared::domain::resume::Refusal;

use crate::cli::attempts::AttemptArgs;
use crate::cli::exit::NotFound;
use crate::cli::find;
use crate::cli::job_trail::in_words as in_short;
use crate::cli::output::{OutputArgs, table};
use crate::replay::in_words;
use crate::times::told_text;
use crate::web::FullDocument;

/// Newest events that are shown.
const HISTORY: i64 = 200;

/// Show a job: where it stands and why, what was paid, what happened
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  producer jobs show 7b0c6c7e-0f8b-4a1e-9d0a-0f8b00000001\n  producer jobs show 7b0c6c7e"
)]
pub struct Args {
    /// The job: its id or how that begins, or the id of a work or submission of it
    pub id: String,
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
    let id = find::job(&db, &args.id).await?;
    let document = FullDocument::read(&db, id, HISTORY)
        .await?
        .ok_or_else(|| NotFound(format!("there is no job {id}")))?;
    let order = RestartOrder {
        by: String::new(),
        reason: String::new(),
        operation: None,
        another_attempt: args.attempts.another_attempt,
    };
    let candidate = Candidate {
        job: id,
        letter_epoch: None,
    };
    let plan = db.plan_restart(&order, &[candidate]).await?.pop();
    let retry = plan.and_then(|plan| match plan.to {
        Ok(to) => Some(format!("{}: {}", to.stage, in_words(to.how))),
        Err(Refusal::GoesOn | Refusal::Completed) => None,
        Err(refusal) => Some(refusal.explain().to_owned()),
    });
    let mut value = serde_json::to_value(&document)?;
    if let Some(keys) = value.as_object_mut() {
        keys.extend(retry.map(|text| ("retry".to_owned(), Value::String(text))));
    }
    args.output.print(&value, human)?;
    Ok(ExitCode::SUCCESS)
}

/// The name that people know it by, and the file.
fn name(job: &Value) -> String {
    let file = job["original_filename"].as_str().unwrap_or("-");
    match job["display_name"].as_str() {
        Some(name) if name != file => format!("{name} ({file})"),
        _ => file.to_owned(),
    }
}

fn human(job: &Value) -> String {
    let text = |value: &Value| match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let time = |value: &Value| value.as_str().map_or_else(|| "-".to_owned(), told_text);
    let mut lines = vec![
        format!("job        {}", text(&job["id"])),
        format!("name       {}", name(job)),
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
            "due        {} ({} failed tries in this stage)",
            time(&stage["due_at"]),
            stage["tries"]
        ));
    }
    if let Some(held) = job["held"]["sentence"].as_str() {
        lines.push(format!("held       {held}"));
    }
    if let Some(put_off) = job["put_off"]["sentence"].as_str() {
        lines.push(format!("put off    {put_off}"));
        if job["put_off"]["answer"].is_string() {
            let id = text(&job["id"]);
            lines.push(format!(
                "           `producer jobs resume {id}` does not wait"
            ));
        }
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
    for line in rows("submissions").filter(|line| line["state"] == "unknown") {
        let token = text(&line["token"]);
        lines.push(format!(
            "unknown    what is known, and what can be done: producer unknowns show {token}"
        ));
    }
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
            .map(|key| match key {
                "claimed_at" => time(&line[key]),
                key => text(&line[key]),
            })
        }),
    ));
    lines.push(String::new());
    lines.push(table(
        ["WHEN", "WHAT", "WHO", "STAGE", "EPOCH", "DETAIL"],
        rows("history").map(|line| {
            ["at", "kind", "actor", "stage", "epoch", "detail"].map(|key| match key {
                "at" => time(&line[key]),
                "detail" => in_short(&line[key]),
                key => text(&line[key]),
            })
        }),
    ));
    lines.join("\n")
}
