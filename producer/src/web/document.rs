//! What clients see of a job. Texts from vendors lose the query strings of their URLs: that is where signatures are.

use std::borrow::Cow;

use chrono::{DateTime, NaiveDateTime, SecondsFormat, Utc};
use serde::Serialize;
use serde_json::Value;
use shared::db::{Db, DbResult, JobEvent, JobRow, StageRow, SubmissionRow};
use shared::domain::{LedgerState, Stage, StageState, Vendor};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::held::{Wait, Waits};
use crate::results::has_result;

/// What stands for a query string.
const REDACTED: &str = "?[redacted]";

/// A job.
#[derive(Debug, Serialize, ToSchema)]
pub struct JobDocument {
    id: Uuid,
    user_id: Uuid,
    original_filename: String,
    display_name: Option<String>,
    status: String,
    /// Percent.
    progress_percentage: i32,
    progress_message: Option<String>,
    /// What will happen next; null when the job is over.
    stage: Option<StageDocument>,
    /// Where the result lies.
    output_url: Option<String>,
    /// Path of the API that leads to the result, and goes on doing so; null while there is none.
    result: Option<String>,
    /// Why it failed.
    error: Option<ErrorDocument>,
    #[schema(format = DateTime)]
    created_at: Option<String>,
    #[schema(format = DateTime)]
    updated_at: Option<String>,
    #[schema(format = DateTime)]
    completed_at: Option<String>,
}

/// What will happen next; absent when the job is over.
#[derive(Debug, Serialize, ToSchema)]
struct StageDocument {
    #[schema(value_type = Stage)]
    stage: String,
    #[schema(value_type = StageState)]
    state: String,
    #[schema(format = DateTime)]
    due_at: Option<String>,
    /// Tries spent in this stage.
    tries: i32,
    /// Why it stands.
    reason: Option<String>,
    #[schema(format = DateTime)]
    entered_at: String,
    /// When it was sent out; null unless it is `dispatched`.
    #[schema(format = DateTime)]
    dispatched_at: Option<String>,
    /// Since when a worker runs it; null while it is on its way to one.
    #[schema(format = DateTime)]
    started_at: Option<String>,
}

/// Why a job failed.
#[derive(Debug, Serialize, ToSchema)]
struct ErrorDocument {
    code: Option<String>,
    message: Option<String>,
}

/// A job and why it waits.
#[derive(Debug, Serialize, ToSchema)]
pub struct WaitingDocument {
    #[serde(flatten)]
    job: JobDocument,
    #[serde(flatten)]
    wait: Wait,
}

/// A job with its submissions and its history.
#[derive(Debug, Serialize, ToSchema)]
pub struct FullDocument {
    #[serde(flatten)]
    job: WaitingDocument,
    /// Another one with every line of its history, and with its status; for `If-Match` of what is done to it.
    version: String,
    submissions: Vec<SubmissionDocument>,
    /// Oldest first.
    history: Vec<EventDocument>,
}

/// A line of the ledger.
#[derive(Debug, Serialize, ToSchema)]
struct SubmissionDocument {
    /// Identifies it for ever.
    token: Uuid,
    #[schema(value_type = Vendor)]
    vendor: String,
    account: String,
    attempt: i32,
    #[schema(value_type = LedgerState)]
    state: String,
    /// Taken over, not sent by the fleet.
    imported: bool,
    /// The vendor's id of the work.
    vendor_task_id: Option<String>,
    vendor_project_id: Option<String>,
    work_state: Option<String>,
    #[schema(format = DateTime)]
    claimed_at: String,
    #[schema(format = DateTime)]
    send_deadline: String,
    #[schema(format = DateTime)]
    settled_at: Option<String>,
    /// Successful searches without a find.
    searches: i32,
    /// What it was expected to cost, in the vendor's unit.
    cost_reserved: Option<f64>,
    /// What the vendor charged.
    cost_charged: Option<f64>,
    /// The part that served nobody.
    cost_wasted: Option<f64>,
}

/// A line of the trail.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct EventDocument {
    /// Order of the trail.
    pub(crate) id: i64,
    #[schema(format = DateTime)]
    pub(crate) at: String,
    pub(crate) kind: String,
    pub(crate) actor: String,
    stage: Option<String>,
    epoch: Option<i64>,
    token: Option<Uuid>,
    pub(crate) detail: Value,
    /// Keys written to `job_metadata`.
    metadata_changed: Option<Value>,
}

impl JobDocument {
    /// Of a row and of the stage it is in.
    #[must_use]
    pub fn new(job: JobRow, stage: Option<StageRow>) -> Self {
        let has_result = has_result(&job);
        let error = ErrorDocument {
            code: job.error_code,
            message: job.error_message.map(redacted),
        };
        Self {
            id: job.id,
            user_id: job.user_id,
            original_filename: job.original_filename,
            display_name: job.display_name,
            status: job.status,
            progress_percentage: job.progress_percentage.unwrap_or_default(),
            progress_message: job.progress_message.map(redacted),
            stage: stage.map(StageDocument::from),
            // Ours has no query string; that of an adopted job may be signed.
            output_url: job.output_url.map(redacted),
            result: has_result.then(|| result_path(job.id)),
            error: (error.code.is_some() || error.message.is_some()).then_some(error),
            created_at: job.created_at.map(naive_utc),
            updated_at: job.updated_at.map(naive_utc),
            completed_at: job.completed_at.map(naive_utc),
        }
    }
}

impl WaitingDocument {
    /// Of the jobs of a list, in its order.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn of(db: &Db, jobs: Vec<(JobRow, Option<StageRow>)>) -> DbResult<Vec<Self>> {
        let rows: Vec<_> = jobs
            .iter()
            .map(|(job, stage)| (job.id, stage.as_ref()))
            .collect();
        let waits = Waits::read(db, &rows).await?;
        let document = |(job, stage): (JobRow, Option<StageRow>)| Self {
            wait: waits.of(job.id, stage.as_ref()),
            job: JobDocument::new(job, stage),
        };
        Ok(jobs.into_iter().map(document).collect())
    }

    /// Why it waits.
    #[must_use]
    pub const fn wait(&self) -> &Wait {
        &self.wait
    }
}

/// Path of the API that leads to the result of a job.
#[must_use]
pub fn result_path(job: Uuid) -> String {
    format!("/v1/jobs/{job}/result")
}

impl FullDocument {
    /// Reads a job with its submissions and the newest `history` lines of its trail; none when there is no such job.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn read(db: &Db, id: Uuid, history: i64) -> DbResult<Option<Self>> {
        // First: what happens while the rest is read is not taken for seen.
        let version = db.job_version(id).await?;
        let Some(job) = db.job(id).await? else {
            return Ok(None);
        };
        let stage = db.job_stage(id).await?;
        let waits = Waits::read(db, &[(id, stage.as_ref())]).await?;
        let submissions = db.job_submissions(id).await?;
        let history = db.job_events(id, history).await?;
        Ok(Some(Self {
            job: WaitingDocument {
                wait: waits.of(id, stage.as_ref()),
                job: JobDocument::new(job, stage),
            },
            version,
            submissions: submissions.into_iter().map(Into::into).collect(),
            history: history.into_iter().map(Into::into).collect(),
        }))
    }
}

impl FullDocument {
    /// Its version.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }
}

impl From<StageRow> for StageDocument {
    fn from(row: StageRow) -> Self {
        // Of the run before, otherwise.
        let is_out = row.state == StageState::Dispatched.as_str();
        Self {
            dispatched_at: row.dispatched_at.filter(|_| is_out).map(utc),
            started_at: row.started_at.filter(|_| is_out).map(utc),
            stage: row.stage,
            state: row.state,
            due_at: row.due_at.map(utc),
            tries: row.tries,
            reason: row.reason,
            entered_at: utc(row.entered_at),
        }
    }
}

impl From<SubmissionRow> for SubmissionDocument {
    fn from(row: SubmissionRow) -> Self {
        Self {
            token: row.token,
            vendor: row.vendor,
            account: row.account,
            attempt: row.attempt,
            state: row.state,
            imported: row.imported,
            vendor_task_id: row.vendor_task_id,
            vendor_project_id: row.vendor_project_id,
            work_state: row.work_state,
            claimed_at: utc(row.claimed_at),
            send_deadline: utc(row.send_deadline),
            settled_at: row.settled_at.map(utc),
            searches: row.searches,
            cost_reserved: row.cost_reserved,
            cost_charged: row.cost_charged,
            cost_wasted: row.cost_wasted,
        }
    }
}

impl From<JobEvent> for EventDocument {
    fn from(row: JobEvent) -> Self {
        Self {
            id: row.id,
            at: utc(row.at),
            kind: row.kind,
            actor: row.actor,
            stage: row.stage,
            epoch: row.epoch,
            token: row.token,
            detail: redacted_json(row.detail),
            metadata_changed: row.metadata_changed.map(redacted_json),
        }
    }
}

/// RFC 3339 in UTC, with `Z`.
pub(super) fn utc(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Micros, true)
}

/// The application's table keeps UTC without saying so.
fn naive_utc(time: NaiveDateTime) -> String {
    utc(time.and_utc())
}

/// A text whose web URLs have lost their query strings.
#[must_use]
pub fn redacted(text: String) -> String {
    match redact(&text) {
        Cow::Borrowed(_) => text,
        Cow::Owned(redacted) => redacted,
    }
}

/// The same for every text in a value.
pub(crate) fn redacted_json(value: Value) -> Value {
    match value {
        Value::String(text) => Value::String(redacted(text)),
        Value::Array(items) => items.into_iter().map(redacted_json).collect(),
        Value::Object(map) => Value::Object(
            map.into_iter()
                .map(|(key, value)| (key, redacted_json(value)))
                .collect(),
        ),
        other => other,
    }
}

fn redact(text: &str) -> Cow<'_, str> {
    let mut rest = text;
    let mut kept = String::new();
    while let Some((before, query)) = next_query(rest) {
        kept.push_str(before);
        kept.push_str(REDACTED);
        rest = &rest[before.len() + query.len()..];
    }
    if kept.is_empty() {
        Cow::Borrowed(text)
    } else {
        kept.push_str(rest);
        Cow::Owned(kept)
    }
}

/// The first query string of a web URL, with its `?`, and all that stands before it.
fn next_query(text: &str) -> Option<(&str, &str)> {
    // What no URL holds unescaped, so that it ends there in JSON, HTML and prose.
    let ends = |c: char| c.is_whitespace() || matches!(c, '"' | '<' | '>' | '\\' | '`' | '|');
    let mut from = 0;
    loop {
        let start = from + text.get(from..)?.find("://")? + "://".len();
        let url = &text[start..];
        let url = &url[..url.find(ends).unwrap_or(url.len())];
        if let Some(mark) = url.find('?') {
            return Some((&text[..start + mark], &url[mark..]));
        }
        from = start;
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn query_strings_are_redacted_wherever_they_stand() {
        for (text, shown) in [
            (
                "https://a.example/v.mp4?X-Amz-Signature=S",
                "https://a.example/v.mp4?[redacted]",
            ),
            (
                "GET HTTP://a.example?x=S failed; see https://b.example/?y=S (S3)",
                "GET HTTP://a.example?[redacted] failed; see https://b.example/?[redacted] (S3)",
            ),
            (
                r#"{"url":"https://a.example/?a=S&b=S","n":1}"#,
                r#"{"url":"https://a.example/?[redacted]","n":1}"#,
            ),
            (
                "测 https://a.example/测?S=测测",
                "测 https://a.example/测?[redacted]",
            ),
        ] {
            assert_eq!(redacted(text.to_owned()), shown);
        }
    }

    #[test]
    fn other_texts_stay() {
        for text in [
            "",
            "why? because",
            "https://a.example/v.mp4",
            "https://a.example/v.mp4 really?",
            "://",
        ] {
            assert_eq!(redacted(text.to_owned()), text);
        }
    }

    #[test]
    fn events_are_redacted_to_the_bottom() {
        let url = "https://a.example/v?sig=S";
        let event = JobEvent {
            id: 1,
            at: DateTime::UNIX_EPOCH,
            kind: "second_work".to_owned(),
            actor: "worker".to_owned(),
            stage: None,
            epoch: None,
            token: None,
            detail: json!({"answer": {"urls": [url], "n": 1}}),
            metadata_changed: Some(json!({"ghostcut_video_url": url})),
        };
        let text = serde_json::to_string(&EventDocument::from(event)).unwrap();
        assert!(!text.contains("sig=S"), "{text}");
        assert!(
            text.contains(r#""at":"1970-01-01T00:00:00.000000Z""#),
            "{text}"
        );
        assert!(
            text.contains(r#"["https://a.example/v?[redacted]"]"#),
            "{text}"
        );
    }
}
