//! Looking for whatever has an id. Every query reads the beginning of one index, however large the tables are.

use diesel::QueryableByName;
use diesel::sql_types::{BigInt, Integer, Nullable, Text, Uuid as SqlUuid};
use diesel_async::RunQueryDsl as _;
use serde::Serialize;
use uuid::Uuid;

use super::{Db, DbResult};
use crate::domain::find::Sought;
use crate::domain::{JobStatus, LedgerState, Vendor};

/// Most of each kind that are found: more than a person reads, and fewer than would cost.
const MOST: i64 = 10;

/// What was found.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct Found {
    /// By their own id.
    pub jobs: Vec<FoundJob>,
    /// By their token, their marker or the vendor's id of their work.
    pub submissions: Vec<FoundSubmission>,
    /// Owners of jobs.
    pub users: Vec<Uuid>,
}

/// A job.
#[derive(Clone, Debug, Serialize, QueryableByName, utoipa::ToSchema)]
pub struct FoundJob {
    /// Its id.
    #[diesel(sql_type = SqlUuid)]
    pub id: Uuid,
    /// For people.
    #[diesel(sql_type = Text)]
    pub name: String,
    /// Its status.
    #[schema(value_type = JobStatus)]
    #[diesel(sql_type = Text)]
    pub status: String,
}

/// A submission.
#[derive(Clone, Debug, Serialize, QueryableByName, utoipa::ToSchema)]
pub struct FoundSubmission {
    /// Identifies it for ever.
    #[diesel(sql_type = SqlUuid)]
    pub token: Uuid,
    /// The job it was for; may be gone.
    #[diesel(sql_type = SqlUuid)]
    pub job_id: Uuid,
    /// To whom.
    #[schema(value_type = Vendor)]
    #[diesel(sql_type = Text)]
    pub vendor: String,
    /// Its number among those of the job and vendor.
    #[diesel(sql_type = Integer)]
    pub attempt: i32,
    /// What the ledger says.
    #[schema(value_type = LedgerState)]
    #[diesel(sql_type = Text)]
    pub state: String,
    /// The vendor's id of the work.
    #[diesel(sql_type = Nullable<Text>)]
    pub vendor_task_id: Option<String>,
}

#[derive(QueryableByName)]
struct User {
    #[diesel(sql_type = SqlUuid)]
    user_id: Uuid,
}

impl Db {
    /// Whatever is meant, at most ten of each kind.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn find(&self, sought: &Sought) -> DbResult<Found> {
        let mut connection = self.connection().await?;
        // No id is between these.
        let (from, to) = sought.ids.unwrap_or((Uuid::max(), Uuid::nil()));
        let jobs = diesel::sql_query(
            "SELECT id, coalesce(display_name, original_filename) AS name, coalesce(status, 'queued') AS status FROM video_jobs \
             WHERE id BETWEEN $1 AND $2 ORDER BY id LIMIT $3",
        )
        .bind::<SqlUuid, _>(from)
        .bind::<SqlUuid, _>(to)
        .bind::<BigInt, _>(MOST)
        .load(&mut connection)
        .await?;
        let submissions = diesel::sql_query(
            "(SELECT token, job_id, vendor, attempt, state, vendor_task_id FROM submissions \
              WHERE token BETWEEN $1 AND $2 ORDER BY token LIMIT $3) \
             UNION ALL \
             SELECT s.token, s.job_id, s.vendor, s.attempt, s.state, s.vendor_task_id FROM vendors v \
             JOIN submissions s ON s.vendor = v.vendor AND s.account = v.account AND s.vendor_task_id = $4 \
             UNION \
             SELECT s.token, s.job_id, s.vendor, s.attempt, s.state, s.vendor_task_id FROM submissions s WHERE s.token IN ( \
                 SELECT e.token FROM job_events e WHERE e.kind = 'second_work' AND e.detail ->> 'task_id' = $4 \
                 UNION ALL SELECT (f ->> 'token')::uuid \
                 FROM audits a, jsonb_array_elements(a.comparisons) c, jsonb_array_elements(c -> 'findings') f \
                 WHERE a.findings > 0 AND a.finished_at > now() - interval '90 days' AND f ->> 'task_id' = $4) LIMIT $3",
        )
        .bind::<SqlUuid, _>(from)
        .bind::<SqlUuid, _>(to)
        .bind::<BigInt, _>(MOST)
        .bind::<Text, _>(&sought.text)
        .load(&mut connection)
        .await?;
        // From one user to the next, past all the jobs of each.
        let users: Vec<User> = diesel::sql_query(
            "WITH RECURSIVE users AS ( \
                 (SELECT user_id FROM video_jobs WHERE user_id BETWEEN $1 AND $2 ORDER BY user_id LIMIT 1) \
                 UNION ALL \
                 SELECT (SELECT j.user_id FROM video_jobs j WHERE j.user_id > u.user_id AND j.user_id <= $2 ORDER BY j.user_id LIMIT 1) \
                 FROM users u WHERE u.user_id IS NOT NULL) \
             SELECT user_id FROM users WHERE user_id IS NOT NULL LIMIT $3",
        )
        .bind::<SqlUuid, _>(from)
        .bind::<SqlUuid, _>(to)
        .bind::<BigInt, _>(MOST)
        .load(&mut connection)
        .await?;
        Ok(Found {
            jobs,
            submissions,
            users: users.into_iter().map(|user| user.user_id).collect(),
        })
    }
}
