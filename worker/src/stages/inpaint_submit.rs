//! `inpaint.submit`: pays GhostCut once. GhostCut has no idempotency key, so every submission gets a source object of its own,
//! by whose URL the work can be found, and whose deletion makes a late request fail.

use std::time::Duration;

use serde_json::json;
use shared::db::{DbError, WorkItem};
use shared::domain::Stage;
use shared::domain::effects::Masks;
use shared::domain::intake::JobSpec;
use shared::domain::outcome::Reason;
use shared::domain::transition::Event;
use shared::storage::{Key, StorageError};
use shared::vendor::ghostcut::SubmitRequest;
use uuid::Uuid;

use super::{live, resume, store_failed};
use crate::environment::Environment;
use crate::run::Run;
use crate::source;
use crate::submission::{self, Prepared, marker, pay};

pub(super) async fn run(environment: &Environment, item: &WorkItem) -> Result<Run, DbError> {
    if let Some(submission) = live(item) {
        return Ok(resume(submission, item)
            .unwrap_or_else(|| Run::advance(Event::AnswerLost, Duration::ZERO)));
    }
    if let Some(run) = submission::before_another(environment, Stage::InpaintSubmit, item) {
        return Ok(run);
    }
    let (spec, masks) = match source::spec(item) {
        Ok(JobSpec { masks: None, .. }) => {
            return Ok(Run::give_up(
                Reason::InternalError,
                "a job without effects came to inpainting",
            ));
        }
        Ok(JobSpec {
            masks: Some(masks),
            video,
            audio,
            segments,
        }) => (
            JobSpec {
                masks: None,
                video,
                audio,
                segments,
            },
            masks,
        ),
        // Sync.so may be paid already: a person repairs the row and retries.
        Err(error) => return Ok(Run::park(Reason::InvalidJob, error)),
    };
    let prepared = match prepare(environment, item, &spec, &masks).await {
        Ok(prepared) => prepared,
        Err(error) => return Ok(store_failed(&error)),
    };
    pay(
        environment,
        Stage::InpaintSubmit,
        item,
        &prepared,
        async |budget| environment.ghostcut.submit(&prepared.body, budget).await,
    )
    .await
}

async fn prepare(
    environment: &Environment,
    item: &WorkItem,
    spec: &JobSpec,
    masks: &Masks,
) -> Result<Prepared, StorageError> {
    let token = Uuid::new_v4();
    let (source, container) = source::inpaint_source(environment, item, spec);
    let own = Key::SubmissionSource { token, container }.to_string();
    environment.storage.copy(&source, &own).await?;
    let source_url = environment
        .storage
        .presign(&own, environment.settings.presign_life)
        .await?;
    let body = SubmitRequest {
        source_url: &source_url,
        marker: &marker(item.job_id, item.attempts + 1, token),
        callback: None,
        uid: environment.settings.ghostcut.uid.as_deref(),
        mode: masks.mode,
        masks_json: Some(&masks.json),
    }
    .to_bytes();
    let metadata = json!({ "ghostcut_video_url": environment.storage.object_url(&source) });
    Ok(Prepared {
        token,
        body,
        source_key: Some(own),
        source_url: Some(source_url),
        metadata,
    })
}
