//! Everything that is known about a submission, for people. Changes nothing, and shows no query string of a URL.

use serde::Serialize;
use shared::db::{CallbackSeen, Db, DbResult, UnknownFilter, UnknownRow};
use shared::domain::search::Marker;
use uuid::Uuid;

use crate::web::redacted_json;

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
        Ok(Self {
            marker: marker.to_string(),
            callbacks: db.callbacks_seen(submission.token).await?,
            submission: presentable(submission),
        })
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
