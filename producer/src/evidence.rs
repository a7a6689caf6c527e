//! Everything that is known about a submission, for people. Changes nothing, and shows no query string of a URL.

use chrono::{DateTime, Utc};
use serde::Serialize;
use shared::db::{
    CallbackSeen, Db, DbResult, FleetTimes, PaidTwice, RunBy, UnknownFilter, UnknownRow,
};
use shared::domain::Vendor;
use shared::domain::search::Marker;
use uuid::Uuid;

use crate::web::{redacted, redacted_json};

/// A submission with what was sent, what was answered, and the callbacks that named it.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct SubmissionEvidence {
    /// The line of the ledger, and where its job stands.
    #[serde(flatten)]
    pub submission: UnknownRow,
    /// The name under which the vendor may show the work.
    pub marker: String,
    /// Callbacks that named it, oldest first.
    pub callbacks: Vec<CallbackSeen>,
    /// The last error that the trail has about it: what the fleet could not find out.
    pub last_word: Option<String>,
    /// Works of it that were one too many.
    pub paid_twice: Vec<PaidTwice>,
    /// How often it was sent again under its key (Sync.so).
    pub replays: i64,
    /// When the fleet searches, or repeats it, again by itself; null when it waits for a person.
    pub fleet_acts_at: Option<DateTime<Utc>>,
    /// From when on a person may decide that it was not accepted, without force; null while no process has said what times it
    /// runs with, and when nothing is to be decided.
    pub decidable_from: Option<DateTime<Utc>>,
}

impl SubmissionEvidence {
    /// Completes a row.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn of(db: &Db, submission: UnknownRow) -> DbResult<Self> {
        let marker = Marker {
            job: submission.job_id,
            attempt: submission.attempt,
            token: submission.token,
        };
        let mut evidence = Self {
            marker: marker.to_string(),
            callbacks: db.callbacks_seen(submission.token).await?,
            last_word: None,
            paid_twice: db.paid_twice(submission.token).await?,
            replays: 0,
            fleet_acts_at: None,
            decidable_from: None,
            submission: presentable(submission),
        };
        evidence.read_on(db).await?;
        Ok(evidence)
    }

    /// What only matters while somebody may have to decide.
    async fn read_on(&mut self, db: &Db) -> DbResult<()> {
        let row = &self.submission;
        if !row.undecided {
            return Ok(());
        }
        let vendor: Vendor = row.vendor.parse()?;
        let story = db.story(row.job_id, vendor, row.claimed_at).await?;
        let (one, other) = (
            db.times_of(RunBy::Producer).await?,
            db.times_of(RunBy::Worker).await?,
        );
        let times = match (one, other) {
            (Some(one), Some(other)) => Some(FleetTimes::max(one, other)),
            (one, other) => one.or(other),
        };
        let searches = matches!(
            row.stage.as_deref(),
            Some("lipsync.submit" | "inpaint.submit" | "inpaint.reconcile")
        );
        self.fleet_acts_at = row.due_at.filter(|_| searches);
        self.decidable_from =
            times.map(|times| times.decidable_from(vendor, row.claimed_at, row.send_deadline));
        self.replays = story.replays;
        self.last_word = story.last_word.map(redacted);
        Ok(())
    }

    /// Of one submission, whatever its state; none when there is none.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn find(db: &Db, token: Uuid) -> DbResult<Option<Self>> {
        let filter = UnknownFilter {
            token: Some(token),
            ..UnknownFilter::default()
        };
        match db.unknowns(filter).await?.pop() {
            Some(row) => Ok(Some(Self::of(db, row).await?)),
            None => Ok(None),
        }
    }

    /// Of all submissions of a job, oldest first.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn of_job(db: &Db, job: Uuid) -> DbResult<Vec<Self>> {
        let filter = UnknownFilter {
            job: Some(job),
            ..UnknownFilter::default()
        };
        let mut all = Vec::new();
        for row in db.unknowns(filter).await? {
            all.push(Self::of(db, row).await?);
        }
        Ok(all)
    }
}

/// The answer may quote the vendor, signed URLs included.
#[must_use]
pub fn presentable(row: UnknownRow) -> UnknownRow {
    UnknownRow {
        answer: redacted_json(row.answer),
        ..row
    }
}
