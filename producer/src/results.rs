//! Where the result of a job is, and links to it. Links are made when they are asked for: one that is kept would end, or would let
//! anybody in for ever.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::Serialize;
use shared::db::{Db, DbError, JobRow};
use shared::domain::JobStatus;
use shared::storage::{Storage, StorageError};
use url::Url;
use utoipa::ToSchema;
use uuid::Uuid;

/// A link to the result of a job.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ResultLink {
    /// Lets anybody read the result until it ends.
    pub url: String,
    /// When it ends; null where results are public.
    pub expires_at: Option<DateTime<Utc>>,
}

/// Where a result is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// An object of our bucket.
    Object {
        /// Its key.
        key: String,
        /// Its size.
        bytes: u64,
    },
    /// Where the application that the fleet replaced has put it.
    Elsewhere(String),
}

/// Why there is no result to give.
#[derive(Debug, thiserror::Error)]
pub enum NoResult {
    /// There is no such job.
    #[error("there is no job {0}")]
    NoJob(Uuid),
    /// The job has none, or none yet.
    #[error("the job is {0}")]
    NotThere(String),
    /// It was there.
    #[error("the result is no longer in the bucket")]
    Gone,
    /// The database failed.
    #[error(transparent)]
    Db(#[from] DbError),
    /// The object store failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// Whether a job has a result.
#[must_use]
pub fn has_result(job: &JobRow) -> bool {
    job.status == JobStatus::Completed.as_str() && job.output_url.is_some()
}

/// Looks for the result of a job.
///
/// # Errors
/// [`NoResult`].
pub async fn find(db: &Db, storage: &Storage, job: Uuid) -> Result<Place, NoResult> {
    let job = db.job(job).await?.ok_or(NoResult::NoJob(job))?;
    let url = match job.output_url {
        Some(ref url) if has_result(&job) => url.clone(),
        _ => return Err(NoResult::NotThere(job.status)),
    };
    if let Some(key) = storage.key_of(&url) {
        let head = storage.head(&key).await?.ok_or(NoResult::Gone)?;
        let bytes = head.bytes;
        return Ok(Place::Object { key, bytes });
    }
    // Nothing else may be followed by a browser.
    let followed = Url::parse(&url).is_ok_and(|url| matches!(url.scheme(), "http" | "https"));
    if followed {
        Ok(Place::Elsewhere(url))
    } else {
        Err(NoResult::Gone)
    }
}

/// A link to what was found: the public one, else one that lives for `life`.
///
/// # Errors
/// [`NoResult::Storage`] when the credentials do not live that long, or cannot be had.
pub async fn link(storage: &Storage, place: Place, life: Duration) -> Result<ResultLink, NoResult> {
    let public = |url| ResultLink {
        url,
        expires_at: None,
    };
    match place {
        Place::Elsewhere(url) => Ok(public(url)),
        Place::Object { key, .. } => match storage.public_url(&key) {
            Some(url) => Ok(public(url)),
            None => {
                // Read first, so that the link lives at least until then.
                let now = Utc::now();
                let url = storage.presign(&key, life).await?;
                Ok(ResultLink {
                    url,
                    expires_at: Some(now + life),
                })
            }
        },
    }
}
