//! The evidence about unknown outcomes, as tables. Changes nothing, and shows no query string of a URL.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::json;
use shared::config::DatabaseConfig;
use shared::db::{Db, UnknownFilter, UnknownRow};
use shared::domain::Vendor;
use uuid::Uuid;

use crate::cli::exit::NotFound;
use crate::cli::job_trail::in_words;
use crate::cli::output::{OutputArgs, table};
use crate::evidence::{SubmissionEvidence, presentable};
use crate::times::told;
use crate::web::EventDocument;

/// Lines of the job's trail that are looked through for those about the submission.
const TRAIL: i64 = 1000;

/// Lists unknown outcomes.
pub(super) async fn list(
    vendor: Option<Vendor>,
    older_than: Duration,
    output: OutputArgs,
    database: &DatabaseConfig,
) -> anyhow::Result<()> {
    let filter = UnknownFilter {
        vendor,
        older_than,
        ..UnknownFilter::default()
    };
    let db = Db::new(database)?;
    let rows = db.unknowns(filter).await?;
    let rows: Vec<_> = rows.into_iter().map(presentable).collect();
    let younger = match rows.is_empty() && !older_than.is_zero() {
        true => {
            let any_age = UnknownFilter {
                older_than: Duration::ZERO,
                ..filter
            };
            db.unknowns(any_age).await?.len()
        }
        false => 0,
    };
    output.print(&json!({ "unknowns": rows }), |_| {
        if rows.is_empty() {
            return match younger {
                0 => "no outcome is unknown".to_owned(),
                younger => format!(
                    "no outcome is unknown for so long; {younger} are for less: leave --older-than out"
                ),
            };
        }
        let line = |row: &UnknownRow| {
            [
                row.token.to_string(),
                row.vendor.clone(),
                row.job_id.to_string(),
                age(row.now, row.claimed_at),
                next_step(row),
                job(row),
            ]
        };
        let header = ["TOKEN", "VENDOR", "JOB", "AGE", "NEXT", "JOB IS"];
        table(header, rows.iter().map(line))
    })
}

#[derive(Serialize)]
struct Evidence {
    #[serde(flatten)]
    known: SubmissionEvidence,
    trail: Vec<EventDocument>,
}

/// Shows one submission.
pub(super) async fn show(
    token: Uuid,
    output: OutputArgs,
    database: &DatabaseConfig,
) -> anyhow::Result<()> {
    let db = Db::new(database)?;
    let known = SubmissionEvidence::find(&db, token).await?;
    let known = known.ok_or_else(|| {
        NotFound(format!(
            "there is no submission {token}; `producer unknowns list` shows those that are unknown"
        ))
    })?;
    let mut trail = db.job_events(known.submission.job_id, TRAIL).await?;
    // Searches and repetitions write no token of their own.
    let ours = |stage: &str| {
        matches!(
            (known.submission.vendor.as_str(), stage),
            ("sync", "lipsync.submit") | ("ghostcut", "inpaint.submit" | "inpaint.reconcile")
        )
    };
    trail.retain(|event| {
        event.token == Some(token)
            || event.token.is_none()
                && event.at >= known.submission.claimed_at
                && event.stage.as_deref().is_some_and(ours)
    });
    let evidence = Evidence {
        trail: trail.into_iter().map(Into::into).collect(),
        known,
    };
    output.print(&evidence, human)
}

fn human(evidence: &Evidence) -> String {
    let row = &evidence.known.submission;
    let time = |at: DateTime<Utc>| told(at).to_string();
    let maybe = |at: Option<DateTime<Utc>>, none: &str| at.map_or_else(|| none.to_owned(), time);
    let answer = |key: &str| row.answer[key].as_str().unwrap_or_default().to_owned();
    let seen = match (answer("class"), answer("reason")) {
        (class, _) if class.is_empty() => {
            "none: whoever sent it ended before the answer came".to_owned()
        }
        (class, reason) => format!("{class}: {reason}"),
    };
    let mut lines = vec![
        ["submission", row.token.to_string().as_str()].map(str::to_owned),
        ["state".to_owned(), row.state.clone()],
        [
            "vendor".to_owned(),
            format!("{}, account {}", row.vendor, row.account),
        ],
        [
            "job".to_owned(),
            format!("{}, attempt {}: {}", row.job_id, row.attempt, job(row)),
        ],
        [
            "its name and owner".to_owned(),
            match (&row.job_name, row.user_id) {
                (Some(name), Some(user)) => format!("{name}, of the user {user}"),
                _ => "the job is gone".to_owned(),
            },
        ],
        [
            "request".to_owned(),
            format!("{} bytes, sha256 {}", row.request_bytes, row.request_sha256),
        ],
        ["claimed".to_owned(), time(row.claimed_at)],
        ["could be sent until".to_owned(), time(row.send_deadline)],
        ["answer seen".to_owned(), seen],
    ];
    if row.vendor == Vendor::Sync.as_str() {
        lines.push([
            "sent again".to_owned(),
            format!(
                "{} times, under the key {}",
                evidence.known.replays, row.token
            ),
        ]);
    } else {
        lines.push([
            "searches".to_owned(),
            format!(
                "{}, the last {}",
                row.searches,
                maybe(row.last_searched_at, "never")
            ),
        ]);
        lines.push([
            "source deleted".to_owned(),
            maybe(row.source_deleted_at, "no"),
        ]);
    }
    if let Some(word) = &evidence.known.last_word {
        lines.push(["last word".to_owned(), word.clone()]);
    }
    let cost = |cost: Option<f64>| cost.map_or_else(|| "-".to_owned(), |cost| cost.to_string());
    lines.push([
        "cost".to_owned(),
        format!(
            "reserved {}, charged {}, wasted {}",
            cost(row.cost_reserved),
            cost(row.cost_charged),
            cost(row.cost_wasted)
        ),
    ]);
    if let Some(task) = &row.task_id {
        lines.push(["work".to_owned(), task.clone()]);
    }
    lines.push([
        "callbacks".to_owned(),
        format!("{} came", evidence.known.callbacks.len()),
    ]);
    lines.push([
        "look for".to_owned(),
        format!("the name {}", evidence.known.marker),
    ]);
    if let Some(key) = &row.source_key {
        lines.push(["or for".to_owned(), format!("a source URL with {key}")]);
    }
    let mut text = table(["WHAT", "EVIDENCE"], lines);
    text += &what_now(&evidence.known);
    let callbacks = evidence.known.callbacks.iter().map(|callback| {
        let outcome = callback.outcome.clone();
        [
            time(callback.received_at),
            outcome.unwrap_or_else(|| "not processed".to_owned()),
        ]
    });
    if !evidence.known.callbacks.is_empty() {
        text += &format!("\n\n{}", table(["CALLBACK", "OUTCOME"], callbacks));
    }
    let trail = evidence.trail.iter().map(|event| {
        [
            event.at.clone(),
            event.kind.clone(),
            event.actor.clone(),
            in_words(&event.detail),
        ]
    });
    text += &format!("\n\n{}", table(["TIME", "EVENT", "WHO", "DETAIL"], trail));
    text
}

/// Who does what next, for the list.
fn next_step(row: &UnknownRow) -> String {
    let at = |at: DateTime<Utc>| told(at);
    match row.due_at {
        Some(due) if row.refused_for_now => {
            format!("refused for now, sent again under its key at {}", at(due))
        }
        Some(due) => format!("the fleet looks again at {}", at(due)),
        None => "a person decides".to_owned(),
    }
}

/// Whether somebody has to act, and the commands for it. Empty when the outcome is known.
fn what_now(known: &SubmissionEvidence) -> String {
    let row = &known.submission;
    if !row.undecided {
        return String::new();
    }
    let token = row.token;
    let time = |at: DateTime<Utc>| told(at).to_string();
    let mut text = "\n\n".to_owned();
    text += &match known.fleet_acts_at {
        Some(at) if row.refused_for_now => format!(
            "Nobody has to act: the vendor refused it for now, and it is sent again under its key at {}.",
            time(at)
        ),
        Some(at) => format!(
            "Nobody has to act: the fleet looks again by itself at {}.",
            time(at)
        ),
        None => "Somebody has to decide: look for it in the vendor's dashboard.".to_owned(),
    };
    text += &format!(
        "\nIt is there:      producer unknowns adopt {token} --task-id ID --reason '…'\
         \nIt is not there:  producer unknowns confirm-not-accepted {token} --reason '…'"
    );
    if let Some(from) = known.decidable_from.filter(|from| *from > row.now) {
        text += &format!("\n                  from {} on", time(from));
    }
    if row.vendor == "ghostcut" && row.source_deleted_at.is_none() {
        text += "\n                  twice: the first time deletes the source, the second time, after the settle time, decides";
    }
    text
}

/// Where the job stands.
fn job(row: &UnknownRow) -> String {
    let Some(status) = &row.job_status else {
        return "gone".to_owned();
    };
    match (&row.stage, &row.stage_state) {
        (Some(stage), Some(state)) => {
            let why = row
                .stage_reason
                .as_ref()
                .map(|reason| format!(" ({reason})"));
            format!("{status}, {stage} {state}{}", why.unwrap_or_default())
        }
        _ => status.clone(),
    }
}

fn age(now: DateTime<Utc>, at: DateTime<Utc>) -> String {
    let seconds = u64::try_from((now - at).num_seconds()).unwrap_or_default();
    humantime::format_duration(Duration::from_secs(seconds)).to_string()
}
