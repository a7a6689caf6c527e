//! The trail of all jobs, read as it grows.

use diesel::prelude::*;
use diesel::sql_types::BigInt;
use diesel_async::RunQueryDsl;
use uuid::Uuid;

use super::jobs::JobEvent;
use super::schema::job_events;
use super::{Db, DbResult};

/// How far the trail goes, and which transactions are open.
#[derive(Clone, Copy, Debug, diesel::QueryableByName)]
pub struct TrailHorizon {
    /// The newest line that can be seen; 0 when there is none.
    #[diesel(sql_type = BigInt)]
    pub newest: i64,
    /// Every transaction with a lower id has ended.
    #[diesel(sql_type = BigInt)]
    pub oldest_open: i64,
    /// No transaction has this id or a higher one yet.
    #[diesel(sql_type = BigInt)]
    pub next: i64,
}

/// A line with the job it is about.
#[derive(Clone, Debug)]
pub struct TrailLine {
    /// The job.
    pub job_id: Uuid,
    /// What happened.
    pub event: JobEvent,
}

impl Db {
    /// How far the trail goes now.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn trail_horizon(&self) -> DbResult<TrailHorizon> {
        let mut connection = self.connection().await?;
        Ok(diesel::sql_query(
            "SELECT (SELECT coalesce(max(id), 0) FROM job_events) AS newest, \
             pg_snapshot_xmin(s)::text::bigint AS oldest_open, pg_snapshot_xmax(s)::text::bigint AS next \
             FROM pg_current_snapshot() s",
        )
        .get_result(&mut connection)
        .await?)
    }

    /// Lines after `after` up to and with `upto`, oldest first; of one job, or of all.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn trail_after(
        &self,
        after: i64,
        upto: i64,
        job: Option<Uuid>,
        limit: i64,
    ) -> DbResult<Vec<TrailLine>> {
        let mut connection = self.connection().await?;
        let mut query = job_events::table
            .filter(job_events::id.gt(after))
            .filter(job_events::id.le(upto))
            .order(job_events::id)
            .limit(limit)
            .select((job_events::job_id, JobEvent::as_select()))
            .into_boxed();
        if let Some(job) = job {
            query = query.filter(job_events::job_id.eq(job));
        }
        let rows: Vec<(Uuid, JobEvent)> = query.load(&mut connection).await?;
        let line = |(job_id, event)| TrailLine { job_id, event };
        Ok(rows.into_iter().map(line).collect())
    }
}
