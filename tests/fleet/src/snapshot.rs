//! A fleet at one moment, as its database shows it: for progress, and to choose the moment of a fault.

use diesel::sql_types::{Array, BigInt, Text};
use diesel_async::{AsyncPgConnection, RunQueryDsl as _};

use crate::database::connect;

/// Counts over all jobs and submissions of a database.
#[derive(Clone, Debug, Default, PartialEq, Eq, diesel::QueryableByName)]
pub struct Snapshot {
    /// Jobs that are completed.
    #[diesel(sql_type = BigInt)]
    pub completed: i64,
    /// Jobs that will not go on by themselves: failed, canceled, parked, dead.
    #[diesel(sql_type = BigInt)]
    pub stuck: i64,
    /// Works that the ledger knows Sync.so to have.
    #[diesel(sql_type = BigInt)]
    pub sync: i64,
    /// Works that the ledger knows GhostCut to have.
    #[diesel(sql_type = BigInt)]
    pub ghostcut: i64,
    /// Submissions whose outcome is unknown.
    #[diesel(sql_type = BigInt)]
    pub unknown: i64,
    /// Jobs on their way to pay Sync.so.
    #[diesel(sql_type = BigInt)]
    pub submitting_sync: i64,
    /// Jobs on their way to pay GhostCut.
    #[diesel(sql_type = BigInt)]
    pub submitting_ghostcut: i64,
    /// Names of the workers that have claimed a submission and not settled it: their paid request is on its way, unless they
    /// are gone.
    #[diesel(sql_type = Array<Text>)]
    pub paying: Vec<String>,
}

const SNAPSHOT: &str = "SELECT \
    (SELECT count(*) FROM video_jobs WHERE status = 'completed') AS completed, \
    (SELECT count(*) FROM video_jobs j LEFT JOIN job_stages s ON s.job_id = j.id \
     WHERE j.status IN ('failed', 'canceled') OR s.state IN ('parked', 'dead')) AS stuck, \
    (SELECT count(*) FROM submissions WHERE vendor = 'sync' AND vendor_task_id IS NOT NULL) AS sync, \
    (SELECT count(*) FROM submissions WHERE vendor = 'ghostcut' AND vendor_task_id IS NOT NULL) AS ghostcut, \
    (SELECT count(*) FROM submissions WHERE state = 'unknown') AS unknown, \
    (SELECT count(*) FROM job_stages WHERE stage = 'lipsync.submit') AS submitting_sync, \
    (SELECT count(*) FROM job_stages WHERE stage = 'inpaint.submit') AS submitting_ghostcut, \
    ARRAY(SELECT e.actor FROM submissions s JOIN job_events e ON e.token = s.token AND e.kind = 'claimed' \
          WHERE s.state = 'claimed') AS paying";

/// Takes snapshots over one connection.
pub struct Observer {
    connection: AsyncPgConnection,
}

impl Observer {
    /// Connects to a fleet's database.
    ///
    /// # Errors
    /// When it is away.
    pub async fn connect(database_url: &str) -> anyhow::Result<Self> {
        Ok(Self {
            connection: connect(database_url).await?,
        })
    }

    /// Takes one.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn snapshot(&mut self) -> anyhow::Result<Snapshot> {
        let snapshot = diesel::sql_query(SNAPSHOT).get_result(&mut self.connection);
        Ok(snapshot.await?)
    }
}
