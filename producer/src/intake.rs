//! The one way in for a job: `POST /v1/jobs` and `producer submit` both end here.
//!
//! Everything that can be known is checked before anything is stored. Must not publish: a stored job is a due row.

use std::path::Path;
use std::time::Duration;

use chrono::Utc;
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};
use shared::address::{is_forbidden, rule};
use shared::config::{IntakeProbe, ProbeLevel};
use shared::crash::{self, Point};
use shared::db::{Created, Db, DbError, RequestKey};
use shared::domain::fields::{FieldCode, FieldError};
use shared::domain::intake::{CALLBACK_URL, Inputs, JobSpec, NewJob, VIDEO_PATH};
use shared::domain::location::Location;
use shared::domain::media::{MediaFacts, MediaKind};
use shared::domain::notice::Target;
use shared::storage::{Depth, Fetcher, ProbeError, Source, Storage, StorageError, probe};
use shared::telemetry::{chain, trace};
use tracing::Instrument as _;
use uuid::Uuid;

/// How long an object of ours may take to be looked up. A client waits for the answer.
pub const LOOKUP_TIMEOUT: Duration = Duration::from_secs(10);

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

/// Who puts in what comes without a name, in the trail.
pub const INTAKE: &str = "intake";

/// What taking jobs in needs. Cheap to clone.
#[derive(Clone)]
pub struct Intake {
    /// Where jobs are stored.
    pub db: Db,
    /// Where their files are.
    pub storage: Storage,
    /// Asks for files that are elsewhere.
    pub fetcher: Fetcher,
    /// How closely to look at files.
    pub probe: IntakeProbe,
    /// Segments a job may have.
    pub max_segments: usize,
    /// Which `callback_url` a job may have.
    pub callbacks: CallbackRule,
}

/// Which `callback_url` a job may have.
#[derive(Clone, Copy, Debug)]
pub struct CallbackRule {
    /// There is a secret to sign notices with.
    pub signed: bool,
    /// Receivers may be on this machine or in our own network, and may be asked by plain http.
    pub allow_private: bool,
}

impl CallbackRule {
    fn fault(self, target: &Target) -> Option<FieldError> {
        let fault = |code, message: &str| {
            Some(FieldError {
                path: format!("/{CALLBACK_URL}"),
                code,
                message: message.to_owned(),
            })
        };
        if !self.signed {
            return fault(
                FieldCode::Incomplete,
                "cannot be used: the service has no NOTICE_SECRET to sign notices with",
            );
        }
        if self.allow_private {
            return None;
        }
        if target.url.scheme() != "https" {
            return fault(FieldCode::Malformed, "must begin with https://");
        }
        if is_forbidden(&target.url, rule(false)) {
            return fault(
                FieldCode::Malformed,
                "must not be an address that is not public",
            );
        }
        None
    }
}

impl Intake {
    /// Checks a request, stores the job under `id` and tells the dispatcher. `by` is who put it in, for the trail.
    ///
    /// # Errors
    /// [`IntakeError`].
    pub async fn create(
        &self,
        request: &Value,
        key: Option<&RequestKey>,
        id: Uuid,
        by: &str,
    ) -> Result<Created, IntakeError> {
        let mut job = self.validate(request).map_err(IntakeError::Invalid)?;
        // A repeat is answered as before even if its files are gone by now.
        if let Some(known) = self.known(&job, key).await? {
            return Ok(known);
        }
        let checked = async {
            let inputs = self.check_inputs(&job, |_| None).await?;
            inputs.store(&mut job.job_metadata);
            self.db.create_job(id, &job, key, by).await.map_err(refusal)
        };
        let created = checked.instrument(trace::intake(id, "request")).await?;
        crash::point(Point::JobCommitted);
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
        let faults: Vec<_> = files(&spec_of(&job)?)
            .into_iter()
            .filter(|file| foreign(&file.location))
            .map(|file| FieldError {
                path: file.path,
                code: FieldCode::Malformed,
                message: format!("must be in the bucket `{}`", self.storage.bucket()),
            })
            .chain(
                job.notify
                    .as_ref()
                    .and_then(|target| self.callbacks.fault(target)),
            )
            .collect();
        if faults.is_empty() {
            Ok(job)
        } else {
            Err(faults)
        }
    }

    /// Looks at the files of a job as closely as is set, and says what was seen. A foreign file that does not answer in time
    /// is no fault: a worker looks again before it pays. `upload` says which objects are still to be made.
    ///
    /// # Errors
    /// [`IntakeError::Invalid`] names every file that is not there or that a vendor would refuse, and every time that is
    /// outside of its file; the other two when the store is away.
    pub async fn check_inputs<'a>(
        &self,
        job: &NewJob,
        upload: impl Fn(&str) -> Option<Upload<'a>>,
    ) -> Result<Inputs, IntakeError> {
        let spec = spec_of(job).map_err(IntakeError::Invalid)?;
        let looks = files(&spec)
            .into_iter()
            .map(|file| self.look(file, &upload));
        let looks = futures::future::join_all(looks).await;
        let mut inputs = Inputs::unseen(Utc::now(), self.probe.intake_probe == ProbeLevel::Full);
        let mut faults = Vec::new();
        for (file, found) in looks {
            match found? {
                Look::Facts(facts) => match file.ref_id {
                    None => inputs.video = Some(facts),
                    Some(name) => {
                        inputs.audio.insert(name, facts);
                    }
                },
                Look::Fault(code, message) => faults.push(FieldError {
                    path: file.path,
                    code,
                    message,
                }),
                Look::Nothing => {}
            }
        }
        faults.extend(inputs.faults(&spec));
        faults.extend(inputs.doubts(&spec));
        if faults.is_empty() {
            Ok(inputs)
        } else {
            Err(IntakeError::Invalid(faults))
        }
    }

    async fn look<'a>(
        &self,
        file: File,
        upload: impl Fn(&str) -> Option<Upload<'a>>,
    ) -> (File, Result<Look, IntakeError>) {
        let looked = self.look_at(&file, upload).await;
        (file, looked)
    }

    async fn look_at<'a>(
        &self,
        file: &File,
        upload: impl Fn(&str) -> Option<Upload<'a>>,
    ) -> Result<Look, IntakeError> {
        let depth = match self.probe.intake_probe {
            ProbeLevel::Off => None,
            ProbeLevel::Reachable => Some(Depth::Beginning),
            ProbeLevel::Full => Some(Depth::Duration),
        };
        let url = file.location.to_text();
        let kind = file.kind();
        if let Some(key) = self.storage.key_of(&url) {
            let looked = async {
                match (upload(&key), depth) {
                    (Some(Upload::Faulty), _) | (Some(Upload::From(_)), None) => Ok(Look::Nothing),
                    (Some(Upload::From(path)), Some(depth)) => {
                        judged(probe(Source::File(path), kind, depth).await)
                    }
                    (None, Some(depth)) => {
                        judged(probe(Source::Object(&self.storage, &key), kind, depth).await)
                    }
                    (None, None) => self.existing(&key).await,
                }
            };
            let looked = tokio::time::timeout(LOOKUP_TIMEOUT, looked).await;
            return looked.map_err(|_| IntakeError::StorageTimeout)?;
        }
        let Some(depth) = depth else {
            return Ok(Look::Nothing);
        };
        let looked = probe(Source::Url(&self.fetcher, &url), kind, depth);
        match tokio::time::timeout(self.probe.intake_probe_timeout, looked).await {
            Ok(found) => judged(found),
            Err(_) => {
                tracing::info!(
                    field = file.path,
                    "a file did not answer in time; a worker looks again"
                );
                Ok(Look::Nothing)
            }
        }
    }

    /// Whether an object exists and is not empty. Nothing is known of it then: a worker still has to look.
    async fn existing(&self, key: &str) -> Result<Look, IntakeError> {
        let found = match self.storage.head(key).await {
            Ok(Some(head)) if head.bytes > 0 => return Ok(Look::Nothing),
            Ok(Some(_)) => ProbeError::Empty,
            Ok(None) => ProbeError::Missing,
            Err(error) => error.into(),
        };
        judged(Err(found))
    }
}

/// An object that is still to be made.
#[derive(Clone, Copy, Debug)]
pub enum Upload<'a> {
    /// From this file of this machine.
    From(&'a Path),
    /// Never: what is wrong with its file has been told.
    Faulty,
}

/// What came of looking at a file.
enum Look {
    Facts(MediaFacts),
    Fault(FieldCode, String),
    /// Nothing could be seen, which is nobody's fault.
    Nothing,
}

fn judged(found: Result<MediaFacts, ProbeError>) -> Result<Look, IntakeError> {
    let error = match found {
        Ok(facts) => return Ok(Look::Facts(facts)),
        Err(error) => error,
    };
    if let Some((code, message)) = error.fault() {
        return Ok(Look::Fault(code, message));
    }
    match error {
        ProbeError::Storage(error) => Err(error.into()),
        error => {
            let error = chain(&error);
            tracing::info!(error, "a file could not be looked at; a worker tries again");
            Ok(Look::Nothing)
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

/// A file of a job.
struct File {
    /// Where the request names it.
    path: String,
    location: Location,
    /// What segments call it; none for the video.
    ref_id: Option<String>,
}

impl File {
    const fn kind(&self) -> MediaKind {
        match self.ref_id {
            Some(_) => MediaKind::Audio,
            None => MediaKind::Video,
        }
    }
}

fn spec_of(job: &NewJob) -> Result<JobSpec, Vec<FieldError>> {
    JobSpec::from_row(
        Some(&job.processing_config),
        job.segments_data.as_ref(),
        Some(&job.job_metadata),
    )
    .map_err(|error| error.0)
}

/// The video, then the audio files.
fn files(spec: &JobSpec) -> Vec<File> {
    let video = File {
        path: VIDEO_PATH.to_owned(),
        location: spec.video.clone(),
        ref_id: None,
    };
    let audio = spec.audio.iter().map(|audio| File {
        path: format!("/audio/{}", audio.ref_id),
        location: audio.location.clone(),
        ref_id: Some(audio.ref_id.clone()),
    });
    std::iter::once(video).chain(audio).collect()
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

    #[test]
    fn a_callback_goes_to_public_https_alone_and_only_signed() {
        let fault = |signed, allow_private, url| {
            let rule = CallbackRule {
                signed,
                allow_private,
            };
            rule.fault(&Target::read(url).unwrap())
                .map(|fault| fault.message)
        };
        assert_eq!(fault(true, false, "https://hooks.example/end"), None);
        assert_eq!(fault(true, true, "http://127.0.0.1:9/end"), None);
        for (signed, url, part) in [
            (false, "https://hooks.example/end", "NOTICE_SECRET"),
            (true, "http://hooks.example/end", "https://"),
            (true, "https://127.0.0.1/end", "public"),
            (true, "https://[::1]/end", "public"),
            (true, "https://0x7f000001/end", "public"),
            (true, "https://169.254.169.254/", "public"),
        ] {
            let message = fault(signed, false, url).unwrap();
            assert!(message.contains(part), "{url}: {message}");
        }
    }

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
