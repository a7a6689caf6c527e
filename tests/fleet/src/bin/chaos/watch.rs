//! Looks at the database all the time, past the proxies, for what must never be true. Reads only.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::Context as _;
use diesel::sql_types::{BigInt, Text};
use diesel_async::{AsyncConnection as _, AsyncPgConnection, RunQueryDsl as _};
use fleet::local_urls;

use crate::yard::INSTANCE;

/// Between two looks.
const EVERY: Duration = Duration::from_secs(1);
/// A look that takes longer is given up: the database is away.
const PATIENCE: Duration = Duration::from_secs(5);

/// What must have no row at any moment, with its name. Each gives lines of text.
const INVARIANTS: [(&str, &str); 8] = [
    (
        "I1: one submission occupies the slot",
        "SELECT job_id || ' ' || vendor AS line FROM submissions WHERE ledger_occupies(state) \
         GROUP BY job_id, vendor HAVING count(*) > 1",
    ),
    (
        "I4: the vendor's id is in the job's row with the acceptance",
        "SELECT s.job_id || ' ' || s.vendor || ' ' || s.vendor_task_id AS line \
         FROM submissions s JOIN video_jobs j ON j.id = s.job_id \
         WHERE s.state IN ('accepted', 'redoing', 'succeeded') AND s.vendor_task_id IS DISTINCT FROM job_task_id(j, s.vendor)",
    ),
    (
        "I6: every unfinished job has a row",
        "SELECT j.id || ' ' || j.status AS line FROM video_jobs j LEFT JOIN job_stages s ON s.job_id = j.id \
         WHERE j.status IN ('queued', 'uploading', 'processing') AND s.job_id IS NULL",
    ),
    (
        "a completed job has no row, and a result",
        "SELECT j.id || ' ' || coalesce(s.stage, 'no result') AS line FROM video_jobs j LEFT JOIN job_stages s ON s.job_id = j.id \
         WHERE j.status = 'completed' AND (s.job_id IS NOT NULL OR j.output_url IS NULL)",
    ),
    (
        "a completed job leaves no submission open",
        "SELECT s.job_id || ' ' || s.vendor || ' ' || s.state AS line FROM submissions s JOIN video_jobs j ON j.id = s.job_id \
         WHERE j.status = 'completed' AND s.state IN ('claimed', 'unknown', 'redoing')",
    ),
    (
        "nothing is a duplicate",
        "SELECT job_id || ' ' || vendor || ' ' || token || ' ' || coalesce(work_state, '') AS line \
         FROM submissions WHERE state = 'duplicate' AND work_state = 'succeeded'",
    ),
    (
        "no work is known twice",
        "SELECT job_id || ' ' || kind AS line FROM job_events WHERE kind IN ('second_work', 'taken_work')",
    ),
    (
        "nothing has stopped paid sends",
        "SELECT changed_by || ' ' || value AS line FROM settings WHERE name = 'stop_paid'",
    ),
];

#[derive(diesel::QueryableByName)]
struct Line {
    #[diesel(sql_type = Text)]
    line: String,
}

/// How far the fleet is.
#[derive(Clone, Debug, Default, PartialEq, Eq, diesel::QueryableByName)]
pub(crate) struct Progress {
    #[diesel(sql_type = BigInt)]
    pub(crate) completed: i64,
    /// Rows that will go on by themselves.
    #[diesel(sql_type = BigInt)]
    pub(crate) moving: i64,
    /// Rows that a person has to look at.
    #[diesel(sql_type = BigInt)]
    pub(crate) standing: i64,
    #[diesel(sql_type = BigInt)]
    pub(crate) submissions: i64,
    #[diesel(sql_type = BigInt)]
    pub(crate) unknown: i64,
    /// Submissions followed by nobody but the sweep.
    #[diesel(sql_type = BigInt)]
    pub(crate) unfollowed: i64,
    /// Sum of all epochs: changes while anything is dispatched.
    #[diesel(sql_type = BigInt)]
    pub(crate) epochs: i64,
}

const PROGRESS: &str = "SELECT \
    (SELECT count(*) FROM video_jobs WHERE status = 'completed') AS completed, \
    (SELECT count(*) FROM job_stages WHERE state IN ('waiting', 'dispatched')) AS moving, \
    (SELECT count(*) FROM job_stages WHERE state IN ('parked', 'dead')) AS standing, \
    (SELECT count(*) FROM submissions) AS submissions, \
    (SELECT count(*) FROM submissions WHERE state = 'unknown') AS unknown, \
    (SELECT count(*) FROM submissions s WHERE s.state IN ('claimed', 'accepted', 'redoing', 'unknown') \
     AND NOT EXISTS (SELECT FROM job_stages t WHERE t.job_id = s.job_id)) AS unfollowed, \
    (SELECT coalesce(sum(epoch), 0)::bigint FROM job_stages) AS epochs";

/// Watches over one run.
#[derive(Default)]
pub(crate) struct Watch {
    connection: Option<AsyncPgConnection>,
    /// Looks taken, and looks that the database did not answer.
    pub(crate) looks: usize,
    pub(crate) missed: usize,
    /// What was seen that must never be.
    pub(crate) violations: BTreeSet<String>,
}

impl Watch {
    /// Looks once. None when the database is away, which is no fault of the fleet.
    pub(crate) async fn look(&mut self) -> Option<Progress> {
        self.looks += 1;
        let seen = tokio::time::timeout(PATIENCE, self.see()).await;
        match seen {
            Ok(Ok(progress)) => Some(progress),
            _ => {
                self.missed += 1;
                self.connection = None;
                None
            }
        }
    }

    async fn see(&mut self) -> anyhow::Result<Progress> {
        if self.connection.is_none() {
            let (database, _) = local_urls(INSTANCE).await?;
            self.connection = Some(AsyncPgConnection::establish(&database).await?);
        }
        let connection = self.connection.as_mut().context("no connection")?;
        for (name, query) in INVARIANTS {
            let lines: Vec<Line> = diesel::sql_query(query).load(connection).await?;
            let lines = lines
                .into_iter()
                .map(|line| format!("{name}: {}", line.line));
            self.violations.extend(lines);
        }
        Ok(diesel::sql_query(PROGRESS).get_result(connection).await?)
    }

    /// Forgets a connection on which a look was broken off.
    pub(crate) fn begin_again(&mut self) {
        self.connection = None;
    }

    /// Looks until `until` says so.
    pub(crate) async fn look_until(
        &mut self,
        mut until: impl AsyncFnMut(Option<&Progress>) -> anyhow::Result<bool>,
    ) -> anyhow::Result<()> {
        loop {
            let seen = self.look().await;
            if until(seen.as_ref()).await? {
                return Ok(());
            }
            tokio::time::sleep(EVERY).await;
        }
    }
}
