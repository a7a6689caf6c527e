//! Lists of jobs, newest first, by filters and in pages. Whatever the filter is and however many jobs there are, a page costs what
//! it shows: filters on the next stage begin at the unfinished jobs, one filter alone has an index in the order of the list, and
//! everything else walks such an index for [`LOOKED_AT`] jobs and leaves the rest to the next page.

use chrono::{DateTime, NaiveDateTime, Utc};
use diesel::prelude::*;
use diesel::sql_types::{BigInt, Jsonb, Nullable, Timestamp, Uuid as SqlUuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use super::jobs::{JobRow, StageRow};
use super::schema::{job_stages, video_jobs};
use super::{Db, DbError, DbResult};
use crate::domain::{JobStatus, Stage, StageState, Vendor};

/// Jobs that are looked at for one page of a list without an index of its own.
const LOOKED_AT: i64 = 10_000;

/// Which jobs. All that is given has to fit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct JobFilter {
    /// Only this owner's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_id: Option<Uuid>,
    /// Only in this status.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<JobStatus>,
    /// Only in this stage.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stage: Option<Stage>,
    /// Only where the stage is in this state.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<StageState>,
    /// Only where the stage stands for this reason.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Only those with a submission at this vendor, whatever came of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vendor: Option<Vendor>,
    /// Only those that failed with this error code.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error_code: Option<String>,
    /// Only those created then or later.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_from: Option<DateTime<Utc>>,
    /// Only those created before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_before: Option<DateTime<Utc>>,
    /// Only those whose names or error message have this text in them, upper or lower case.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// Only those that the fleet has taken in and that are not over.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub unfinished: bool,
    /// Only those that are parked, or wait for a time that may be shortened.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub resumable: bool,
    /// Only those that had come to be what they are by then: what was created or has ended since is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upto: Option<DateTime<Utc>>,
}

/// Where in a list a job stands. Adopted rows may have no time; they come first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, QueryableByName)]
pub struct JobPlace {
    /// When it was created, UTC.
    #[diesel(sql_type = Nullable<Timestamp>)]
    pub created_at: Option<NaiveDateTime>,
    /// The job.
    #[diesel(sql_type = SqlUuid)]
    pub id: Uuid,
}

/// A page of a list.
#[derive(Clone, Debug)]
pub struct JobPage {
    /// The jobs, with the stages they are in.
    pub jobs: Vec<(JobRow, Option<StageRow>)>,
    /// After which place the next page begins; none: this is the last one. A page may be short although another follows.
    pub next: Option<JobPlace>,
}

impl JobFilter {
    fn is_by_stage(&self) -> bool {
        self.stage.is_some()
            || self.state.is_some()
            || self.reason.is_some()
            || self.unfinished
            || self.resumable
    }

    /// Whether no index has what fits in the order of the list.
    fn is_walked(&self) -> bool {
        let indexed = [
            self.user_id.is_some(),
            self.status.is_some(),
            self.error_code.is_some(),
        ];
        let indexed = indexed.into_iter().filter(|given| *given).count();
        !self.is_by_stage() && (self.text.is_some() || self.vendor.is_some() || indexed > 1)
    }

    /// The conditions that one index answers in the order of the list.
    fn walk(&self) -> String {
        let first = if self.user_id.is_some() {
            "j.user_id = ($1 ->> 'user_id')::uuid"
        } else if self.error_code.is_some() {
            "j.error_code = $1 ->> 'error_code'"
        } else if self.status.is_some() {
            "j.status = $1 ->> 'status'"
        } else {
            "true"
        };
        format!("{first}{}", self.times())
    }

    fn times(&self) -> String {
        let mut times = String::new();
        if self.created_from.is_some() {
            times += " AND j.created_at >= timezone('utc', ($1 ->> 'created_from')::timestamptz)";
        }
        if self.created_before.is_some() {
            times += " AND j.created_at < timezone('utc', ($1 ->> 'created_before')::timestamptz)";
        }
        times
    }

    /// Every condition, on `video_jobs j` and `job_stages st`. The filter is bound as `$1`.
    fn conditions(&self) -> String {
        let given = [
            (
                self.user_id.is_some(),
                "j.user_id = ($1 ->> 'user_id')::uuid",
            ),
            (self.status.is_some(), "j.status = $1 ->> 'status'"),
            (
                self.error_code.is_some(),
                "j.error_code = $1 ->> 'error_code'",
            ),
            (self.stage.is_some(), "st.stage = $1 ->> 'stage'"),
            (self.state.is_some(), "st.state = $1 ->> 'state'"),
            (self.reason.is_some(), "st.reason = $1 ->> 'reason'"),
            (
                self.unfinished,
                "j.status IN ('queued', 'uploading', 'processing')",
            ),
            // As the function `resume_job` has it.
            (
                self.resumable,
                "(st.state = 'parked' OR st.state = 'waiting' AND st.due_at > clock_timestamp() AND st.stage <> 'inpaint.reconcile')",
            ),
            (
                self.upto.is_some(),
                "coalesce(j.completed_at, j.created_at, '-infinity') <= timezone('utc', ($1 ->> 'upto')::timestamptz)",
            ),
            (
                self.vendor.is_some(),
                "EXISTS (SELECT FROM submissions s WHERE s.job_id = j.id AND s.vendor = $1 ->> 'vendor')",
            ),
            (
                self.text.is_some(),
                "position(lower($1 ->> 'text') IN lower(concat_ws(' ', j.display_name, j.original_filename, \
                 j.error_message))) > 0",
            ),
        ];
        let given = given.iter().filter(|(given, _)| *given);
        let mut all: Vec<&str> = given.map(|(_, condition)| *condition).collect();
        // A filter that names nothing is bound all the same.
        all.push("$1::jsonb IS NOT NULL");
        format!("{}{}", all.join(" AND "), self.times())
    }
}

/// That a job comes after the place that is bound as `$2` and `$3`: a row comparison, which one index scan answers.
const fn after(before: Option<&JobPlace>) -> &'static str {
    match before {
        None => "$2::timestamp IS NULL AND $3::uuid IS NULL",
        Some(JobPlace {
            created_at: Some(_),
            ..
        }) => "(j.created_at, j.id) < ($2::timestamp, $3::uuid)",
        Some(JobPlace {
            created_at: None, ..
        }) => "$2::timestamp IS NULL AND (j.created_at IS NOT NULL OR j.id < $3::uuid)",
    }
}

const NEWEST_FIRST: &str = "ORDER BY j.created_at DESC, j.id DESC";

/// The places of the next `limit` jobs after `before`, and after which place the list goes on, if it may.
pub(super) async fn places(
    connection: &mut AsyncPgConnection,
    filter: &JobFilter,
    before: Option<JobPlace>,
    limit: i64,
) -> DbResult<(Vec<JobPlace>, Option<JobPlace>)> {
    let bound = serde_json::to_value(filter).map_err(|error| DbError::Value(error.to_string()))?;
    let (conditions, after) = (filter.conditions(), after(before.as_ref()));
    let walk = format!(
        "FROM video_jobs j WHERE $1::jsonb IS NOT NULL AND {} AND {after} {NEWEST_FIRST}",
        filter.walk()
    );
    let source = if filter.is_walked() {
        format!("(SELECT j.* {walk} LIMIT {LOOKED_AT}) j WHERE {conditions}")
    } else if filter.is_by_stage() {
        format!(
            "job_stages st JOIN video_jobs j ON j.id = st.job_id WHERE {conditions} AND {after}"
        )
    } else {
        format!("video_jobs j WHERE {conditions} AND {after}")
    };
    let query = format!("SELECT j.created_at, j.id FROM {source} {NEWEST_FIRST} LIMIT $4");
    // One more than asked for says whether there is another page.
    let mut places = load(connection, &query, &bound, before, limit + 1).await?;
    let wanted = usize::try_from(limit).unwrap_or(usize::MAX);
    if places.len() > wanted {
        places.truncate(wanted);
        let last = places.last().copied();
        return Ok((places, last));
    }
    if !filter.is_walked() {
        return Ok((places, None));
    }
    let end = format!(
        "SELECT j.created_at, j.id {walk} OFFSET {} LIMIT $4",
        LOOKED_AT - 1
    );
    let end = load(connection, &end, &bound, before, 1).await?;
    Ok((places, end.into_iter().next()))
}

async fn load(
    connection: &mut AsyncPgConnection,
    query: &str,
    filter: &Value,
    before: Option<JobPlace>,
    limit: i64,
) -> DbResult<Vec<JobPlace>> {
    Ok(diesel::sql_query(query)
        .bind::<Jsonb, _>(filter)
        .bind::<Nullable<Timestamp>, _>(before.and_then(|place| place.created_at))
        .bind::<Nullable<SqlUuid>, _>(before.map(|place| place.id))
        .bind::<BigInt, _>(limit)
        .load(connection)
        .await?)
}

impl Db {
    /// A page of jobs with the stages they are in, newest first: at most `limit`, those after `before`.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn list_jobs(
        &self,
        filter: &JobFilter,
        before: Option<JobPlace>,
        limit: i64,
    ) -> DbResult<JobPage> {
        let mut connection = self.connection().await?;
        let (places, next) = places(&mut connection, filter, before, limit).await?;
        let ids: Vec<Uuid> = places.iter().map(|place| place.id).collect();
        let mut jobs: Vec<(JobRow, Option<StageRow>)> = video_jobs::table
            .left_join(job_stages::table.on(job_stages::job_id.eq(video_jobs::id)))
            .filter(video_jobs::id.eq_any(&ids))
            .select((JobRow::as_select(), Option::<StageRow>::as_select()))
            .load(&mut connection)
            .await?;
        let order = ids.iter().enumerate().map(|(at, id)| (*id, at));
        let order: std::collections::HashMap<Uuid, usize> = order.collect();
        jobs.sort_by_key(|(job, _)| order.get(&job.id).copied());
        Ok(JobPage { jobs, next })
    }

    /// The ids of the next `limit` jobs after `before`, newest first, and after which place the list goes on.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn job_places(
        &self,
        filter: &JobFilter,
        before: Option<JobPlace>,
        limit: i64,
    ) -> DbResult<(Vec<JobPlace>, Option<JobPlace>)> {
        let mut connection = self.connection().await?;
        places(&mut connection, filter, before, limit).await
    }
}
