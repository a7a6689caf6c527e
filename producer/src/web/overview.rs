//! What operators look at: `/v1/overview`, `/v1/series` and `/v1/operator-events`.

use axum::Json;
use axum::extract::State;
use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::Value;
use shared::db::{Act, ActFilter, ActPlace, Db, DbResult, MinutePoint};
use shared::domain::fields::FieldCode;
use utoipa::ToSchema;
use uuid::Uuid;

use super::document::redacted_json;
use super::job_actions::Operator;
use super::jobs::database;
use super::list::{self, Parameters};
use super::problem::Problem;
use crate::overview::Overview;

/// Minutes of a series when nothing else is asked for.
pub(crate) const DEFAULT_MINUTES: i32 = 60;
/// Most of them: a day.
pub(crate) const MAX_MINUTES: i32 = 1440;

/// What happened minute by minute, oldest first.
#[derive(Serialize, ToSchema)]
pub(crate) struct Series {
    pub(crate) points: Vec<Point>,
}

/// A minute; the last one is still going on.
#[derive(Serialize, ToSchema)]
pub(crate) struct Point {
    /// Its start.
    pub(crate) at: DateTime<Utc>,
    /// Jobs that were completed in it.
    pub(crate) finished: i64,
    /// Jobs that failed in it, whatever became of them since.
    pub(crate) failed: i64,
    /// Jobs that were canceled in it, whatever became of them since.
    pub(crate) canceled: i64,
    pub(crate) submissions: VendorCount,
    pub(crate) job_seconds: Percentiles,
}

/// Submissions that were opened, works that were taken over included.
#[derive(Serialize, ToSchema)]
pub(crate) struct VendorCount {
    pub(crate) sync: i64,
    pub(crate) ghostcut: i64,
}

/// From creation to end of the jobs that were completed; null when none was.
#[derive(Serialize, ToSchema)]
pub(crate) struct Percentiles {
    /// Half took less.
    pub(crate) p50: Option<f64>,
    /// Nineteen of twenty took less.
    pub(crate) p95: Option<f64>,
}

impl From<MinutePoint> for Point {
    fn from(point: MinutePoint) -> Self {
        Self {
            at: point.at,
            finished: point.finished,
            failed: point.failed,
            canceled: point.canceled,
            submissions: VendorCount {
                sync: point.sync,
                ghostcut: point.ghostcut,
            },
            job_seconds: Percentiles {
                p50: point.p50,
                p95: point.p95,
            },
        }
    }
}

impl Series {
    /// The last `minutes` minutes.
    ///
    /// # Errors
    /// When the database is away.
    pub(crate) async fn read(db: &Db, minutes: i32) -> DbResult<Self> {
        let points = db.series(minutes).await?;
        Ok(Self {
            points: points.into_iter().map(Into::into).collect(),
        })
    }
}

impl Point {
    /// Whether nothing happened in it.
    pub(crate) fn is_empty(&self) -> bool {
        let VendorCount { sync, ghostcut } = self.submissions;
        [self.finished, self.failed, self.canceled, sync, ghostcut] == [0; 5]
    }
}

/// A page of what operators did, newest first.
#[derive(Serialize, ToSchema)]
pub(crate) struct ActPage {
    pub(crate) events: Vec<ActDocument>,
    /// Leads to the next page; null on the last one.
    pub(crate) next_cursor: Option<String>,
}

/// Something that an operator did.
#[derive(Serialize, ToSchema)]
pub(crate) struct ActDocument {
    /// Its number; what was done to single jobs is numbered apart from the rest.
    id: i64,
    pub(crate) at: DateTime<Utc>,
    /// Who: a token's name, or what was said.
    pub(crate) by: String,
    pub(crate) reason: String,
    /// What, as a word: `canceled`, `vendor_paused`, `operation_stopped`.
    pub(crate) action: String,
    /// To what: a job's id, `sync/default`, `operation/7`, `fleet`.
    pub(crate) subject: String,
    /// To which job, where it was one.
    job_id: Option<Uuid>,
    /// Details, by action.
    #[schema(value_type = Object)]
    detail: Value,
}

impl ActPage {
    /// Of these acts.
    pub(crate) fn new(acts: Vec<Act>, next: Option<ActPlace>) -> Self {
        let document = |act: Act| ActDocument {
            id: act.id,
            at: act.at,
            by: act.by,
            reason: act.reason,
            action: act.action,
            subject: act.subject,
            job_id: act.job_id,
            detail: redacted_json(act.detail),
        };
        Self {
            events: acts.into_iter().map(document).collect(),
            next_cursor: next.map(|next| format!("{}-{}", next.at.timestamp_micros(), next.id)),
        }
    }
}

/// Everything at one glance
///
/// What waits where, what stands still, the accounts, the workers, and whether anything was ever paid for twice.
#[utoipa::path(get, path = "/v1/overview", tag = "fleet", operation_id = "overview",
    responses((status = 200, description = "The overview", body = Overview)))]
pub(super) async fn overview(
    State(Operator { db, .. }): State<Operator>,
) -> Result<Json<Overview>, Problem> {
    let overview = Overview::read(&db).await;
    overview.map(Json).map_err(|error| database(&error))
}

/// What happened minute by minute
///
/// The minute that is going on comes last. Costs what has happened in that time: a day of a busy fleet takes longer than an hour.
#[utoipa::path(get, path = "/v1/series", tag = "fleet", operation_id = "series",
    params(("minutes" = Option<i32>, Query, minimum = 1, maximum = 1440, description = "How many; 60 by default")),
    responses((status = 200, description = "One point for each minute, oldest first", body = Series)))]
pub(super) async fn series(
    State(Operator { db, .. }): State<Operator>,
    parameters: Parameters,
) -> Result<Json<Series>, Problem> {
    let mut minutes = DEFAULT_MINUTES;
    list::each(parameters, |name, value| {
        if name != "minutes" {
            return Err(list::unknown());
        }
        let read = value.parse().ok();
        minutes = read
            .filter(|n| (1..=MAX_MINUTES).contains(n))
            .ok_or_else(|| {
                let message = format!("must be a number from 1 to {MAX_MINUTES}");
                (FieldCode::OutOfRange, message)
            })?;
        Ok(())
    })?;
    let series = Series::read(&db, minutes).await;
    series.map(Json).map_err(|error| database(&error))
}

/// What operators did, newest first
///
/// To the fleet and to single jobs. A page looks at 1,000 lines of each kind: it may be short, or empty, although `next_cursor` leads
/// on.
#[utoipa::path(get, path = "/v1/operator-events", tag = "fleet", operation_id = "list_operator_events",
    params(("by" = Option<String>, Query, min_length = 1, max_length = 200, description = "By this operator"),
        ("action" = Option<String>, Query, min_length = 1, max_length = 200, description = "This was done"),
        ("subject" = Option<String>, Query, min_length = 1, max_length = 200, description = "To this"),
        ("limit" = Option<i64>, Query, minimum = 1, maximum = 200, description = "Lines on a page; 50 by default"),
        ("cursor" = Option<String>, Query, pattern = "^[0-9]{1,16}-[0-9]{1,18}$", description = "`next_cursor` of the page before")),
    responses((status = 200, description = "A page", body = ActPage)))]
pub(super) async fn operator_events(
    State(Operator { db, .. }): State<Operator>,
    parameters: Parameters,
) -> Result<Json<ActPage>, Problem> {
    let (mut limit, mut before, mut filter) = (list::DEFAULT_LIMIT, None, ActFilter::default());
    list::each(parameters, |name, value| {
        match name {
            "by" => filter.by = Some(list::read_text(value)?),
            "action" => filter.action = Some(list::read_text(value)?),
            "subject" => filter.subject = Some(list::read_text(value)?),
            "limit" => limit = list::read_limit(value)?,
            "cursor" => {
                let message = || "must be the `next_cursor` of a page".to_owned();
                let place = read_cursor(value).ok_or_else(|| (FieldCode::Malformed, message()))?;
                before = Some(place);
            }
            _ => return Err(list::unknown()),
        }
        Ok(())
    })?;
    let page = db.acts(&filter, before, limit).await;
    let (acts, next) = page.map_err(|error| database(&error))?;
    Ok(Json(ActPage::new(acts, next)))
}

fn read_cursor(text: &str) -> Option<ActPlace> {
    let (at, id) = text.split_once('-')?;
    if ![at, id]
        .iter()
        .all(|part| part.bytes().all(|byte| byte.is_ascii_digit()))
    {
        return None;
    }
    let at = DateTime::from_timestamp_micros(at.parse().ok()?)?;
    // Later than PostgreSQL and people know is no time of ours.
    let at = (at.timestamp_micros() <= list::MAX_MICROS).then_some(at)?;
    Some(ActPlace {
        at,
        id: id.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_reads_back() {
        let at = DateTime::from_timestamp_micros(1_790_000_000_123_456).unwrap();
        let next = Some(ActPlace { at, id: 7 });
        let cursor = ActPage::new(Vec::new(), next).next_cursor.unwrap();
        assert_eq!(read_cursor(&cursor), next);
        for text in [
            "",
            "-",
            "1",
            "1-",
            "-1-1",
            "999999999999999999-1",
            "1-99999999999999999999",
        ] {
            assert_eq!(read_cursor(text), None, "{text}");
        }
    }
}
