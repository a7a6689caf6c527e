//! The books of a chaos run: every work that a vendor was paid for, by the sandbox's own count, is explained by the ledger, and
//! every job that the API took is completed. Reads only.

use std::collections::{BTreeMap, BTreeSet};

use diesel::sql_types::{BigInt, Nullable, Text, Uuid as SqlUuid};
use diesel_async::{AsyncConnection as _, AsyncPgConnection, RunQueryDsl as _};
use fleet::{Control, PaidWork, local_urls};
use sandbox::Phase;
use shared::domain::Vendor;
use uuid::Uuid;

use crate::client::Taken;
use crate::yard::INSTANCE;

/// What a run came to.
#[derive(Debug, Default)]
pub(crate) struct Books {
    pub(crate) finished: usize,
    pub(crate) submissions: usize,
    /// Works by the vendors' count.
    pub(crate) paid: usize,
    /// Works beyond the one that a job may have at a vendor.
    pub(crate) duplicates: Vec<String>,
    /// Works of requests that came after their submission was given up, and so failed for want of a source.
    pub(crate) late: usize,
    /// Jobs that nobody follows any more.
    pub(crate) lost: Vec<String>,
    /// Jobs that have failed or stand although an operator has put them back.
    pub(crate) unfinished: Vec<String>,
    pub(crate) unknowns_opened: usize,
    pub(crate) unknowns_open: usize,
    /// Whatever else is not as it should be.
    pub(crate) differences: Vec<String>,
}

#[derive(diesel::QueryableByName)]
struct JobLine {
    #[diesel(sql_type = SqlUuid)]
    id: Uuid,
    #[diesel(sql_type = Text)]
    status: String,
    #[diesel(sql_type = Nullable<Text>)]
    error_code: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    stage: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    state: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    reason: Option<String>,
}

#[derive(diesel::QueryableByName)]
struct LedgerLine {
    #[diesel(sql_type = SqlUuid)]
    token: Uuid,
    #[diesel(sql_type = SqlUuid)]
    job_id: Uuid,
    #[diesel(sql_type = Text)]
    vendor: String,
    #[diesel(sql_type = Text)]
    state: String,
    #[diesel(sql_type = Nullable<Text>)]
    task_id: Option<String>,
}

#[derive(diesel::QueryableByName)]
struct Count {
    #[diesel(sql_type = BigInt)]
    n: i64,
}

const JOBS: &str = "SELECT j.id, j.status, j.error_code, s.stage, s.state, s.reason \
    FROM video_jobs j LEFT JOIN job_stages s ON s.job_id = j.id";
const LEDGER: &str = "SELECT token, job_id, vendor, state, vendor_task_id AS task_id FROM submissions ORDER BY claimed_at";
/// Before a submission is accepted, a settlement that wrote a fact about it can only have said "unknown", unless it was the end.
const OPENED: &str = "SELECT count(*) AS n FROM submissions s WHERE s.state = 'unknown' OR EXISTS (\
    SELECT FROM job_events e WHERE e.token = s.token AND e.detail ->> 'ledger' = 'written' \
    AND e.detail ->> 'event' IS DISTINCT FROM 'Accepted' AND e.detail ->> 'event' IS DISTINCT FROM 'Absent' \
    AND s.state NOT IN ('claimed', 'not_sent', 'rejected') \
    AND NOT EXISTS (SELECT FROM job_events a WHERE a.token = s.token AND a.kind = 'task_id_set' AND a.id < e.id))";

impl Books {
    /// Closes them over every job and every work.
    pub(crate) async fn close(control: &Control, taken: &[Taken]) -> anyhow::Result<Self> {
        let (database, _) = local_urls(INSTANCE).await?;
        let mut connection = AsyncPgConnection::establish(&database).await?;
        let jobs: Vec<JobLine> = diesel::sql_query(JOBS).load(&mut connection).await?;
        let ledger: Vec<LedgerLine> = diesel::sql_query(LEDGER).load(&mut connection).await?;
        let opened: Count = diesel::sql_query(OPENED)
            .get_result(&mut connection)
            .await?;
        let mut books = Self {
            submissions: ledger.len(),
            unknowns_opened: usize::try_from(opened.n)?,
            unknowns_open: ledger.iter().filter(|line| line.state == "unknown").count(),
            ..Self::default()
        };
        books.compare_jobs(&jobs, taken);
        for vendor in Vendor::ALL {
            let works = control.works(*vendor).await?;
            books.paid += works.len();
            let of_vendor = ledger.iter().filter(|line| line.vendor == vendor.as_str());
            let lines: Vec<_> = of_vendor.collect();
            books.explain(*vendor, &works, &lines);
            books.complete(*vendor, &works, &jobs, taken);
        }
        Ok(books)
    }

    /// Every job that was taken is there and completed; no other is.
    fn compare_jobs(&mut self, jobs: &[JobLine], taken: &[Taken]) {
        let known: BTreeSet<Uuid> = taken.iter().map(|taken| taken.job).collect();
        if known.len() != taken.len() {
            self.differences
                .push("two keys have the same job".to_owned());
        }
        for job in &known {
            let Some(line) = jobs.iter().find(|line| line.id == *job) else {
                self.lost
                    .push(format!("{job} was taken and is not in the database"));
                continue;
            };
            let row = || {
                let part = |text: &Option<String>| text.clone().unwrap_or_default();
                format!(
                    "{} {} {}",
                    part(&line.stage),
                    part(&line.state),
                    part(&line.reason)
                )
            };
            match (line.status.as_str(), line.state.as_deref()) {
                ("completed", _) => self.finished += 1,
                ("failed", None) => {
                    let why = line.error_code.clone().unwrap_or_default();
                    self.unfinished.push(format!("{job} has failed: {why}"));
                }
                (_, Some("parked" | "dead")) => {
                    self.unfinished.push(format!("{job} stands: {}", row()));
                }
                (status, _) => self
                    .lost
                    .push(format!("{job} is {status}, and does not go on: {}", row())),
            }
        }
        let strangers = jobs.iter().filter(|line| !known.contains(&line.id));
        for line in strangers {
            self.differences
                .push(format!("nobody was told of the job {}", line.id));
        }
    }

    /// Every work is one of the ledger, and a job has one that did not fail.
    fn explain(&mut self, vendor: Vendor, works: &[PaidWork], ledger: &[&LedgerLine]) {
        let mut of_job: BTreeMap<&str, Vec<&PaidWork>> = BTreeMap::new();
        let mut markers = BTreeSet::new();
        for work in works {
            of_job
                .entry(work.job.as_deref().unwrap_or_default())
                .or_default()
                .push(work);
            if !markers.insert(work.marker.as_deref()) {
                self.duplicates.push(format!(
                    "{vendor} {}: a second work of one request",
                    work.id
                ));
            }
            let booked = ledger
                .iter()
                .any(|line| line.task_id.as_deref() == Some(&work.id));
            let marker = work.marker.as_deref().unwrap_or_default();
            let token = ledger
                .iter()
                .find(|line| marker.contains(&line.token.to_string()));
            match token.map(|line| line.state.as_str()) {
                Some(_) if booked => {}
                // Whoever searched did not find it, and made sure that it would fail if it still came.
                Some("absent") if work.phase() == Phase::Failed => self.late += 1,
                Some(state) => self.differences.push(format!(
                    "{vendor} {} is paid, its submission {state}",
                    work.id
                )),
                None => self.differences.push(format!(
                    "{vendor} {} is paid and not in the ledger",
                    work.id
                )),
            }
        }
        for (job, works) in of_job {
            let alive: Vec<_> = works
                .iter()
                .filter(|work| work.phase() != Phase::Failed)
                .collect();
            if alive.len() > 1 {
                let ids: Vec<_> = alive.iter().map(|work| work.id.as_str()).collect();
                self.duplicates.push(format!(
                    "{vendor} was paid for job {job} more than once: {}",
                    ids.join(", ")
                ));
            }
            self.in_turn(vendor, &works, ledger);
        }
        let alive = ledger
            .iter()
            .filter(|line| matches!(line.state.as_str(), "claimed" | "accepted" | "redoing"));
        for line in alive {
            self.differences.push(format!(
                "{vendor} {}: its submission is still {}",
                line.job_id, line.state
            ));
        }
    }

    /// A further work of a job is paid for only when the one before has failed or its submission was given up.
    fn in_turn(&mut self, vendor: Vendor, works: &[&PaidWork], ledger: &[&LedgerLine]) {
        for two in works.windows(2) {
            let given_up = ledger.iter().any(|line| {
                let marked = |work: &PaidWork| {
                    work.marker
                        .as_ref()
                        .is_some_and(|m| m.contains(&line.token.to_string()))
                };
                matches!(line.state.as_str(), "absent" | "duplicate")
                    && (marked(two[0]) || marked(two[1]))
            });
            let failed = two[0]
                .failed_at()
                .is_some_and(|at| at <= two[1].accepted_at);
            if !failed && !given_up {
                self.duplicates.push(format!(
                    "{vendor} was paid for {} before {} had failed",
                    two[1].id, two[0].id
                ));
            }
        }
    }

    /// A completed job has one succeeded work at each of its vendors.
    fn complete(&mut self, vendor: Vendor, works: &[PaidWork], jobs: &[JobLine], taken: &[Taken]) {
        for taken in taken.iter().filter(|taken| taken.kind.pays(vendor)) {
            let completed = |line: &&JobLine| line.id == taken.job && line.status == "completed";
            if jobs.iter().find(completed).is_none() {
                continue;
            }
            let id = taken.job.to_string();
            let succeeded = works
                .iter()
                .filter(|work| work.job.as_ref() == Some(&id) && work.phase() == Phase::Succeeded);
            if succeeded.count() != 1 {
                self.differences.push(format!(
                    "{id} is completed without one succeeded work of {vendor}"
                ));
            }
        }
    }
}
