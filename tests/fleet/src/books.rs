//! The books of a run: what the vendors were really asked for, by the sandbox's own count, compared with the ledger and the
//! jobs. Reads only.

use std::collections::{BTreeMap, BTreeSet};

use diesel::sql_types::{BigInt, Bool, Nullable, Text, Uuid as SqlUuid};
use diesel_async::RunQueryDsl as _;
use serde::Serialize;
use shared::domain::Vendor;
use uuid::Uuid;

use crate::control::{Control, PaidWork};
use crate::database::connect;
use crate::jobs::Kind;

/// A number for each vendor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PerVendor {
    /// Sync.so.
    pub sync: usize,
    /// GhostCut.
    pub ghostcut: usize,
}

impl PerVendor {
    /// The number of a vendor.
    #[must_use]
    pub const fn of(&self, vendor: Vendor) -> usize {
        match vendor {
            Vendor::Sync => self.sync,
            Vendor::Ghostcut => self.ghostcut,
        }
    }

    /// The number of a vendor, to be changed.
    pub const fn of_mut(&mut self, vendor: Vendor) -> &mut usize {
        match vendor {
            Vendor::Sync => &mut self.sync,
            Vendor::Ghostcut => &mut self.ghostcut,
        }
    }
}

/// How a job should have ended.
#[derive(Clone, Debug)]
pub struct Expectation {
    /// The job.
    pub job: Uuid,
    /// Its word in `video_jobs.status`.
    pub status: &'static str,
    /// Works the vendors were paid for.
    pub paid: PerVendor,
    /// State of its row in `job_stages`; none when it should have no row any more.
    pub stage_state: Option<&'static str>,
}

impl Expectation {
    /// Completed, and paid once at each vendor of its kind.
    #[must_use]
    pub fn completed(job: Uuid, kind: Kind) -> Self {
        Self {
            job,
            status: "completed",
            paid: PerVendor {
                sync: kind.pays(Vendor::Sync).into(),
                ghostcut: kind.pays(Vendor::Ghostcut).into(),
            },
            stage_state: None,
        }
    }

    /// The same with another number of paid works.
    #[must_use]
    pub const fn paying(mut self, vendor: Vendor, works: usize) -> Self {
        *self.paid.of_mut(vendor) = works;
        self
    }
}

/// What a run came to.
#[derive(Clone, Debug)]
pub struct Books {
    /// Jobs that were expected.
    pub jobs: usize,
    /// Those of them that are completed.
    pub finished: usize,
    /// Works that should have been paid.
    pub expected_paid: PerVendor,
    /// Works that were, by the sandbox's count.
    pub paid: PerVendor,
    /// Works that the ledger says were paid.
    pub ledger: PerVendor,
    /// Works beyond those expected of their job and vendor.
    pub duplicates: usize,
    /// Submissions whose outcome was unknown once and is known now.
    pub unknowns_resolved: usize,
    /// Everything that is not as expected, one line each, beginning with the job.
    pub differences: Vec<String>,
}

#[derive(diesel::QueryableByName)]
struct JobLine {
    #[diesel(sql_type = SqlUuid)]
    id: Uuid,
    #[diesel(sql_type = Text)]
    status: String,
    #[diesel(sql_type = Nullable<Text>)]
    error: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    stage: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    stage_state: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    reason: Option<String>,
}

#[derive(diesel::QueryableByName)]
struct LedgerLine {
    #[diesel(sql_type = SqlUuid)]
    job_id: Uuid,
    #[diesel(sql_type = Text)]
    vendor: String,
    #[diesel(sql_type = Text)]
    state: String,
    #[diesel(sql_type = Nullable<Text>)]
    task_id: Option<String>,
    /// Its vendor id is the one in the job's metadata.
    #[diesel(sql_type = Bool)]
    in_metadata: bool,
    /// What else the claim had for the job's metadata is there. A work that another application paid for has nothing, and one whose
    /// claim was forgotten has what the vendor's list shows: a row that was not forgotten keeps what it had.
    #[diesel(sql_type = Bool)]
    metadata_kept: bool,
}

#[derive(diesel::QueryableByName)]
struct Count {
    #[diesel(sql_type = BigInt)]
    n: i64,
}

const JOBS: &str = "SELECT j.id, j.status, j.error_message AS error, s.stage, s.state AS stage_state, s.reason \
    FROM video_jobs j LEFT JOIN job_stages s ON s.job_id = j.id";
const LEDGER: &str = "SELECT s.job_id, s.vendor, s.state, s.vendor_task_id AS task_id, \
    coalesce(s.vendor_task_id = job_task_id(j, s.vendor), false) AS in_metadata, \
    CASE WHEN s.imported THEN s.metadata IS NULL OR coalesce(j.job_metadata ?& ARRAY(SELECT jsonb_object_keys(s.metadata)), false) \
        WHEN s.metadata IS NULL THEN s.vendor = 'sync' ELSE coalesce(j.job_metadata @> s.metadata, false) END AS metadata_kept \
    FROM submissions s LEFT JOIN video_jobs j ON j.id = s.job_id ORDER BY s.claimed_at";
/// A settlement that wrote a fact about the submission before it was accepted can only have said "unknown", unless the
/// submission has ended as not sent or rejected.
const RESOLVED: &str = "SELECT count(DISTINCT s.token) AS n FROM submissions s JOIN job_events e ON e.token = s.token \
    WHERE s.state NOT IN ('claimed', 'unknown', 'not_sent', 'rejected') AND e.detail ->> 'ledger' = 'written' \
    AND e.detail ->> 'event' IS DISTINCT FROM 'Accepted' AND e.detail ->> 'event' IS DISTINCT FROM 'Absent' \
    AND NOT EXISTS (SELECT FROM job_events a WHERE a.token = s.token AND a.kind = 'task_id_set' AND a.id < e.id)";

impl Books {
    /// Closes the books over every job of the database and every work of the sandbox.
    ///
    /// # Errors
    /// When the database or the sandbox does not answer.
    pub async fn close(
        database_url: &str,
        control: &Control,
        expected: &[Expectation],
    ) -> anyhow::Result<Self> {
        let mut connection = connect(database_url).await?;
        let jobs: Vec<JobLine> = diesel::sql_query(JOBS).load(&mut connection).await?;
        let ledger: Vec<LedgerLine> = diesel::sql_query(LEDGER).load(&mut connection).await?;
        let resolved: Count = diesel::sql_query(RESOLVED)
            .get_result(&mut connection)
            .await?;
        let mut books = Self {
            jobs: expected.len(),
            finished: 0,
            expected_paid: PerVendor::default(),
            paid: PerVendor::default(),
            ledger: PerVendor::default(),
            duplicates: 0,
            unknowns_resolved: usize::try_from(resolved.n)?,
            differences: Vec::new(),
        };
        books.compare_jobs(&jobs, expected);
        for vendor in Vendor::ALL {
            let works = control.works(*vendor).await?;
            let lines: Vec<_> = ledger
                .iter()
                .filter(|line| line.vendor == vendor.as_str())
                .collect();
            books.compare_vendor(*vendor, &works, &lines, expected);
        }
        Ok(books)
    }

    /// Whether every job ended as expected and every vendor was paid as often as expected.
    #[must_use]
    pub const fn balanced(&self) -> bool {
        self.differences.is_empty()
    }

    /// # Panics
    /// With all differences, when there is one.
    pub fn assert_balanced(&self) {
        assert!(
            self.balanced(),
            "the books do not balance:\n  {}\n{self:#?}",
            self.differences.join("\n  ")
        );
    }

    fn compare_jobs(&mut self, jobs: &[JobLine], expected: &[Expectation]) {
        for expectation in expected {
            let Some(job) = jobs.iter().find(|job| job.id == expectation.job) else {
                self.differs(expectation.job, "is not in the database");
                continue;
            };
            self.finished += usize::from(job.status == "completed");
            if job.status != expectation.status {
                let error = job.error.as_deref().unwrap_or("no error");
                let text = format!("is {} ({error}), not {}", job.status, expectation.status);
                self.differs(job.id, &text);
            }
            if job.stage_state.as_deref() != expectation.stage_state {
                let text = format!(
                    "its stage {} is {}: {}",
                    job.stage.as_deref().unwrap_or("(none)"),
                    job.stage_state.as_deref().unwrap_or("over"),
                    job.reason.as_deref().unwrap_or("no reason"),
                );
                self.differs(job.id, &text);
            }
        }
        let known: BTreeSet<Uuid> = expected.iter().map(|expectation| expectation.job).collect();
        for job in jobs.iter().filter(|job| !known.contains(&job.id)) {
            self.differs(job.id, "nobody expected this job");
        }
    }

    fn compare_vendor(
        &mut self,
        vendor: Vendor,
        works: &[PaidWork],
        ledger: &[&LedgerLine],
        expected: &[Expectation],
    ) {
        *self.paid.of_mut(vendor) = works.len();
        let mut paid: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
        for work in works {
            let job = work.job.clone().unwrap_or_default();
            paid.entry(job).or_default().insert(&work.id);
        }
        for expectation in expected {
            let job = expectation.job;
            let works = paid.remove(&job.to_string()).unwrap_or_default();
            let wanted = expectation.paid.of(vendor);
            *self.expected_paid.of_mut(vendor) += wanted;
            self.duplicates += works.len().saturating_sub(wanted);
            if works.len() != wanted {
                let ids = Vec::from_iter(works.iter().copied()).join(", ");
                let text = format!("{wanted} works of {vendor} expected, paid: {ids}");
                self.differs(job, &text);
            }
            let lines: Vec<_> = ledger.iter().filter(|line| line.job_id == job).collect();
            let booked: BTreeSet<_> = lines.iter().filter_map(|l| l.task_id.as_deref()).collect();
            *self.ledger.of_mut(vendor) += booked.len();
            if booked != works {
                let text = format!("{vendor} has the works {works:?}, the ledger {booked:?}");
                self.differs(job, &text);
            }
            for line in lines {
                if matches!(line.state.as_str(), "claimed" | "unknown" | "redoing") {
                    self.differs(job, &format!("a submission to {vendor} is {}", line.state));
                }
                if line.state == "succeeded" && !line.in_metadata {
                    self.differs(job, &format!("its row lacks the id of its {vendor} work"));
                }
                if line.state == "succeeded" && !line.metadata_kept {
                    let text = format!("its row lacks what its {vendor} work was given");
                    self.differs(job, &text);
                }
            }
        }
        for (job, works) in paid {
            self.duplicates += works.len();
            self.differences
                .push(format!("job `{job}`: {vendor} was paid for {works:?}"));
        }
    }

    fn differs(&mut self, job: Uuid, what: &str) {
        self.differences.push(format!("job {job}: {what}"));
    }
}
