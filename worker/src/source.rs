//! The videos that vendors are given: where they lie and the URLs they are fetched from.

use shared::db::WorkItem;
use shared::domain::intake::JobSpec;
use shared::domain::location::Location;
use shared::storage::{Container, Key, StorageError};

use crate::environment::Environment;

/// Reads what the job asks for from its row.
///
/// # Errors
/// What is wrong with the row, for its owner.
pub fn spec(item: &WorkItem) -> Result<JobSpec, String> {
    JobSpec::from_row(
        item.processing_config.as_ref(),
        item.segments_data.as_ref(),
        item.job_metadata.as_ref(),
    )
    .map_err(|error| error.to_string())
}

/// A URL under which a vendor can fetch the input for as long as presigned URLs live; it carries the marker, so that a list that
/// shows it tells whose it is. A foreign URL is handed on as it is.
///
/// # Errors
/// When our object cannot be presigned.
pub async fn vendor_url(
    environment: &Environment,
    location: &Location,
    marker: &str,
) -> Result<String, StorageError> {
    match own_key(environment, location) {
        Some(key) => {
            environment
                .storage
                .presign_named(&key, environment.settings.presign_life, marker)
                .await
        }
        None => Ok(location.to_text()),
    }
}

/// The key of a location in our bucket.
#[must_use]
pub fn own_key(environment: &Environment, location: &Location) -> Option<String> {
    environment.storage.key_of(&location.to_text())
}

/// The video that GhostCut is to work on, as a key in our bucket with its format: the lip-sync result, else the input, else
/// our copy of the input.
#[must_use]
pub fn inpaint_source(
    environment: &Environment,
    item: &WorkItem,
    spec: &JobSpec,
) -> (String, Container) {
    let (user, job) = (item.user_id, item.job_id);
    if spec.has_segments() {
        let key = Key::LipsyncResult { user, job };
        return (key.to_string(), key.container());
    }
    let container = container_of(&spec.video);
    let key = own_key(environment, &spec.video).unwrap_or_else(|| {
        Key::ImportedSource {
            user,
            job,
            container,
        }
        .to_string()
    });
    (key, container)
}

/// The format that a location's name promises; MP4 when it promises none.
#[must_use]
pub fn container_of(location: &Location) -> Container {
    location
        .file_name()
        .and_then(|name| Container::from_extension(name.rsplit('.').next()?))
        .unwrap_or(Container::Mp4)
}
