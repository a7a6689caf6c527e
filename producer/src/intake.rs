//! The one way in for a job: `POST /v1/jobs` and `producer submit` both end here.
//!
//! Everything that can be known is checked before anything is stored. Must not publish: a stored job is a due row.

use std::time::Duration;

use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};
use shared::db::{Created, Db, DbError, RequestKey};
use shared::domain::fields::{FieldCode, FieldError};
use shared::domain::intake::{JobSpec, NewJob};
use shared::domain::location::Location;
use shared::storage::{Storage, StorageError};
use uuid::Uuid;

/// How long the objects of one job may take to be looked up. A client waits for the answer.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(10);

/// Why a job was not taken.
#[derive(Debug, thiserror::Error)]
pub enum IntakeError {
    /// The request is at fault; each fault has a JSON pointer. Nothing is stored.
    #[error("the request has {} fault(s)", .0.len())]
    Invalid(Vec<FieldError>),
    /// The object store did not say whether the files are there. Nothing is stored.
    #[error("the files of the job could not be looked up")]
    Storage(#[from] StorageError),
    /// The object store did not answer in time. Nothing is stored.
    #[error("the files of the job could not be looked up within {LOOKUP_TIMEOUT:?}")]
    StorageTimeout,
    /// The database failed; where it failed while committing, the job may be stored.
    #[error("the job could not be stored")]
    Database(#[from] DbError),
}

/// What taking jobs in needs. Cheap to clone.
#[derive(Clone)]
pub struct Intake {
    /// Where jobs are stored.
    pub db: Db,
    /// Where their files are.
    pub storage: Storage,
    /// Segments a job may have.
    pub max_segments: usize,
}

impl Intake {
    /// Checks a request, stores the job under `id` and tells the dispatcher.
    ///
    /// # Errors
    /// [`IntakeError`].
    pub async fn create(
        &self,
        request: &Value,
        key: Option<&RequestKey>,
        id: Uuid,
    ) -> Result<Created, IntakeError> {
        let job = self.validate(request).map_err(IntakeError::Invalid)?;
        // A repeat is answered as before even if its files are gone by now.
        if let Some(known) = self.known(&job, key).await? {
            return Ok(known);
        }
        self.check_objects(&job, |_| false).await?;
        let created = self.db.create_job(id, &job, key).await.map_err(refusal)?;
        if matches!(created, Created::New(_))
            && let Err(error) = self.db.notify_due().await
        {
            tracing::debug!(job.id = %id, %error, "the dispatcher was not told; its timer will find the job");
        }
        Ok(created)
    }

    /// What an earlier request under this key came to, if there was one.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn known(
        &self,
        job: &NewJob,
        key: Option<&RequestKey>,
    ) -> Result<Option<Created>, DbError> {
        match key {
            Some(key) => self.db.known_request(job.user_id, key).await,
            None => Ok(None),
        }
    }

    /// The rules that need no look outside. An object in a bucket that is not ours is refused: nothing says that the
    /// fleet may read it.
    ///
    /// # Errors
    /// Every fault of the request.
    pub fn validate(&self, request: &Value) -> Result<NewJob, Vec<FieldError>> {
        let is_ours = |location: &Location| self.storage.key_of(&location.to_text()).is_some();
        let job = NewJob::from_request(request, self.max_segments, is_ours)?;
        let foreign = |location: &Location| matches!(location, Location::Object { bucket, .. } if bucket != self.storage.bucket());
        let faults: Vec<_> = files(&job)?
            .into_iter()
            .filter(|(_, location)| foreign(location))
            .map(|(path, _)| FieldError {
                path,
                code: FieldCode::Malformed,
                message: format!("must be in the bucket `{}`", self.storage.bucket()),
            })
            .collect();
        if faults.is_empty() {
            Ok(job)
        } else {
            Err(faults)
        }
    }

    /// Whether the files that are in our bucket exist; those whose key is `expected` to appear are not looked up.
    ///
    /// # Errors
    /// [`IntakeError::Invalid`] names the missing ones; the other two when the store is away.
    pub async fn check_objects(
        &self,
        job: &NewJob,
        expected: impl Fn(&str) -> bool,
    ) -> Result<(), IntakeError> {
        let mut faults = Vec::new();
        let lookups = async {
            for (path, location) in files(job).map_err(IntakeError::Invalid)? {
                if let Some(key) = self.storage.key_of(&location.to_text())
                    && !expected(&key)
                    && let Some((code, message)) = self.fault_of(&key).await?
                {
                    let message = message.to_owned();
                    faults.push(FieldError {
                        path,
                        code,
                        message,
                    });
                }
            }
            Ok::<_, IntakeError>(())
        };
        tokio::time::timeout(LOOKUP_TIMEOUT, lookups)
            .await
            .map_err(|_| IntakeError::StorageTimeout)??;
        if faults.is_empty() {
            Ok(())
        } else {
            Err(IntakeError::Invalid(faults))
        }
    }

    async fn fault_of(&self, key: &str) -> Result<Option<(FieldCode, &'static str)>, StorageError> {
        match self.storage.head(key).await {
            Ok(Some(head)) if head.bytes == 0 => Ok(Some((FieldCode::Empty, "is an empty object"))),
            Ok(Some(_)) => Ok(None),
            Ok(None) => Ok(Some((
                FieldCode::Unmatched,
                "names an object that does not exist",
            ))),
            Err(StorageError::Key { .. }) => {
                Ok(Some((FieldCode::Malformed, "is not a usable object key")))
            }
            Err(error) => Err(error),
        }
    }
}

/// The table of the replaced application refers to its users. Nothing else that a request brings is referred to.
fn refusal(error: DbError) -> IntakeError {
    if !error.is_unmatched_reference() {
        return IntakeError::Database(error);
    }
    IntakeError::Invalid(vec![FieldError {
        path: "/user_id".to_owned(),
        code: FieldCode::Unmatched,
        message: "names a user who does not exist".to_owned(),
    }])
}

/// The files of a job with the places where the request names them.
fn files(job: &NewJob) -> Result<Vec<(String, Location)>, Vec<FieldError>> {
    let spec = JobSpec::from_row(
        Some(&job.processing_config),
        job.segments_data.as_ref(),
        Some(&job.job_metadata),
    )
    .map_err(|error| error.0)?;
    let audio = spec
        .audio
        .into_iter()
        .map(|audio| (format!("/audio/{}", audio.ref_id), audio.location));
    Ok(std::iter::once(("/video_url".to_owned(), spec.video))
        .chain(audio)
        .collect())
}

/// Whether a text can be an `Idempotency-Key`: 1 to 255 visible ASCII characters.
#[must_use]
pub fn is_request_key(key: &str) -> bool {
    (1..=255).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic())
}

/// The key of a request with the hash by which its repetitions are recognised: the same JSON is the same request,
/// however it is spaced and ordered.
#[must_use]
pub fn request_key(key: &str, request: &Value) -> RequestKey {
    RequestKey {
        key: key.to_owned(),
        sha256: Sha256::digest(canonical(request).to_string()).into(),
    }
}

/// A value with its keys in order and its numbers as the doubles that are read from them, like RFC 8785.
fn canonical(value: &Value) -> Value {
    match value {
        Value::Number(number) => match number.as_f64() {
            // Adding zero makes -0 and 0 one.
            Some(number) => Value::from(number + 0.0),
            None => value.clone(),
        },
        Value::Array(items) => items.iter().map(canonical).collect(),
        Value::Object(map) => {
            let mut entries: Vec<_> = map.iter().collect();
            entries.sort_unstable_by_key(|(key, _)| *key);
            let entries = entries
                .into_iter()
                .map(|(key, value)| (key.clone(), canonical(value)));
            Value::Object(entries.collect::<Map<_, _>>())
        }
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(text: &str) -> [u8; 32] {
        request_key("k", &serde_json::from_str(text).unwrap()).sha256
    }

    #[test]
    fn the_same_json_is_the_same_request() {
        let first = hash(r#"{"a":{"y":1,"x":[1,2]},"b":"é","n":0}"#);
        for same in [
            r#"{ "b":"\u00e9", "n":-0.0, "a":{"x":[1.0,2e0],"y":1} }"#,
            "{\"a\":\n{\"y\":1,\"x\":[1,2]},\"n\":0.0,\"b\":\"é\"}",
        ] {
            assert_eq!(hash(same), first, "{same}");
        }
    }

    #[test]
    fn other_json_is_another_request() {
        let first = hash(r#"{"a":[1,2],"b":null}"#);
        for other in [
            r#"{"a":[2,1],"b":null}"#,
            r#"{"a":[1,2]}"#,
            r#"{"a":["1",2],"b":null}"#,
            r#"{"a":[1,2],"b":"null"}"#,
            r#"{"a":[1,2.0000001],"b":null}"#,
        ] {
            assert_ne!(hash(other), first, "{other}");
        }
    }

    #[test]
    fn request_keys_are_visible_ascii() {
        for key in ["a", "6f9e-\"x\"~!", &"k".repeat(255)] {
            assert!(is_request_key(key), "{key}");
        }
        for key in ["", " a", "a b", "ä", "a\n", "\u{7f}", &"k".repeat(256)] {
            assert!(!is_request_key(key), "{key:?}");
        }
    }
}
