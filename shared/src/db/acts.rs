//! What operators did, newest first: to the fleet (`operator_events`) and to single jobs (`job_events`), as one list.

use chrono::{DateTime, Utc};
use diesel::sql_types::{BigInt, Jsonb, Nullable, Text, Timestamptz, Uuid as SqlUuid};
use diesel::{OptionalExtension as _, QueryableByName};
use diesel_async::RunQueryDsl as _;
use serde_json::Value;
use uuid::Uuid;

use super::{Db, DbResult};

/// Lines of one kind that a page looks at. A filter that little fits leads on by pages that are not full, instead of reading
/// everything at once.
const LOOKED_AT: i64 = 1_000;

/// What operators do to single jobs, as the trail of jobs says it. An `operator` line has its action in its detail.
const KINDS: [&str; 6] = [
    "canceled",
    "resumed",
    "replayed",
    "retried",
    "discarded",
    "operator",
];

/// Which acts.
#[derive(Clone, Debug, Default)]
pub struct ActFilter {
    /// Only by this operator.
    pub by: Option<String>,
    /// Only such.
    pub action: Option<String>,
    /// Only those done to this: a job's id, `sync/default`, `operation/7`, `fleet`.
    pub subject: Option<String>,
}

/// Where a page begins: after this line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, QueryableByName)]
pub struct ActPlace {
    /// When it was done.
    #[diesel(sql_type = Timestamptz)]
    pub at: DateTime<Utc>,
    /// Its number; lines of jobs and others are numbered apart.
    #[diesel(sql_type = BigInt)]
    pub id: i64,
}

/// Something that an operator did.
#[derive(Clone, Debug, QueryableByName)]
pub struct Act {
    /// Its number.
    #[diesel(sql_type = BigInt)]
    pub id: i64,
    /// When.
    #[diesel(sql_type = Timestamptz)]
    pub at: DateTime<Utc>,
    /// Who.
    #[diesel(sql_type = Text)]
    pub by: String,
    /// Why.
    #[diesel(sql_type = Text)]
    pub reason: String,
    /// What.
    #[diesel(sql_type = Text)]
    pub action: String,
    /// To what.
    #[diesel(sql_type = Text)]
    pub subject: String,
    /// To which job, where it was one.
    #[diesel(sql_type = Nullable<SqlUuid>)]
    pub job_id: Option<Uuid>,
    /// Details.
    #[diesel(sql_type = Jsonb)]
    pub detail: Value,
}

const FLEET_LINES: &str = "SELECT id, at, actor AS by, reason, action, subject, NULL::uuid AS job_id, detail \
    FROM operator_events WHERE (at, id) < ($1, $2)";
const JOB_LINES: &str = "SELECT id, at, actor AS by, coalesce(detail ->> 'reason', '') AS reason, \
    CASE kind WHEN 'operator' THEN coalesce(detail ->> 'action', kind) ELSE kind END AS action, job_id::text AS subject, job_id, \
    detail FROM job_events WHERE (at, id) < ($1, $2)";

/// The lists that a page is put together from, each newest first and of bounded length.
fn lists(filter: &ActFilter) -> Vec<String> {
    let bounded = |lines: &str, condition: &str| {
        format!(
            "(SELECT * FROM ({lines}{condition} ORDER BY at DESC, id DESC LIMIT {LOOKED_AT}) l)"
        )
    };
    let of_job = filter.subject.as_deref().map(str::parse::<Uuid>);
    if let Some(Ok(job)) = of_job {
        let kinds = KINDS.map(|kind| format!("'{kind}'")).join(", ");
        let condition = format!(" AND job_id = '{job}' AND kind IN ({kinds})");
        return vec![bounded(JOB_LINES, &condition)];
    }
    let mut lists = vec![bounded(FLEET_LINES, "")];
    if of_job.is_none() {
        // Each kind by its own piece of the index.
        let of_kind = |kind| bounded(JOB_LINES, &format!(" AND kind = '{kind}'"));
        lists.extend(KINDS.map(of_kind));
    }
    lists
}

impl Db {
    /// A page of acts, newest first, those before `before`; and where the next page begins, if there may be one. A page may have fewer
    /// than `limit` although another follows.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn acts(
        &self,
        filter: &ActFilter,
        before: Option<ActPlace>,
        limit: i64,
    ) -> DbResult<(Vec<Act>, Option<ActPlace>)> {
        let (at, id) = before.map_or((DateTime::<Utc>::MAX_UTC, 0), |place| (place.at, place.id));
        // PostgreSQL does not know chrono's last moment.
        let at = at.min(DateTime::from_timestamp(253_402_300_799, 0).unwrap_or(at));
        let lists = lists(filter);
        let mut connection = self.connection().await?;
        let all = lists.join(" UNION ALL ");
        let query = format!(
            "SELECT * FROM ({all}) a WHERE ($3 IS NULL OR by = $3) AND ($4 IS NULL OR action = $4) \
             AND ($5 IS NULL OR subject = $5) ORDER BY at DESC, id DESC LIMIT $6"
        );
        let mut acts: Vec<Act> = diesel::sql_query(query)
            .bind::<Timestamptz, _>(at)
            .bind::<BigInt, _>(id)
            .bind::<Nullable<Text>, _>(filter.by.as_deref())
            .bind::<Nullable<Text>, _>(filter.action.as_deref())
            .bind::<Nullable<Text>, _>(filter.subject.as_deref())
            .bind::<BigInt, _>(limit + 1)
            .load(&mut connection)
            .await?;
        let wanted = usize::try_from(limit).unwrap_or(usize::MAX);
        if acts.len() > wanted {
            acts.truncate(wanted);
            let last = acts.last().map(|act| ActPlace {
                at: act.at,
                id: act.id,
            });
            return Ok((acts, last));
        }
        // The newest of the last lines looked at: below it a list that was cut off may have more.
        let ends = lists.iter().map(|list| {
            format!(
                "(SELECT at, id FROM {list} e ORDER BY at DESC, id DESC OFFSET {} LIMIT 1)",
                LOOKED_AT - 1
            )
        });
        let query = format!(
            "SELECT at, id FROM ({}) ends ORDER BY at DESC, id DESC LIMIT 1",
            ends.collect::<Vec<_>>().join(" UNION ALL ")
        );
        let end: Option<ActPlace> = diesel::sql_query(query)
            .bind::<Timestamptz, _>(at)
            .bind::<BigInt, _>(id)
            .get_result(&mut connection)
            .await
            .optional()?;
        if let Some(end) = end {
            acts.retain(|act| (act.at, act.id) >= (end.at, end.id));
        }
        Ok((acts, end))
    }
}
