//! `inpaint.submit`: pays GhostCut once. GhostCut has no idempotency key, so every submission gets a source object of its own,
//! by whose URL the work can be found, and whose deletion makes a late request fail.

use std::time::Duration;

use serde_json::json;
use shared::crash::{self, Point};
use shared::db::{DbError, WorkItem};
use shared::domain::cost;
use shared::domain::effects::Masks;
use shared::domain::outcome::Reason;
use shared::domain::search::Marker;
use shared::domain::transition::Event;
use shared::domain::{Stage, Vendor};
use shared::storage::{Container, Key, StorageError};
use shared::vendor::ghostcut::SubmitRequest;
use uuid::Uuid;

use super::{live, resume, store_failed};
use crate::environment::Environment;
use crate::preflight;
use crate::run::Run;
use crate::source;
use crate::submission::{self, Prepared, pay};

pub(super) async fn run(environment: &Environment, item: &WorkItem) -> Result<Run, DbError> {
    if let Some(submission) = live(item) {
        return Ok(resume(submission, item)
            .unwrap_or_else(|| Run::advance(Event::AnswerLost, Duration::ZERO)));
    }
    if let Some(run) = submission::before_another(environment, Stage::InpaintSubmit, item) {
        return Ok(run);
    }
    let spec = match source::spec(item) {
        Ok(spec) => spec,
        // Sync.so may be paid already: a person repairs the row and retries.
        Err(error) => return Ok(Run::park(Reason::InvalidJob, error)),
    };
    let Some(masks) = &spec.masks else {
        return Ok(Run::give_up(
            Reason::InternalError,
            "a job without effects came to inpainting",
        ));
    };
    let (source, container) = source::inpaint_source(environment, item, &spec);
    if let Some(run) = preflight::before_inpaint(environment, item, &spec, &source).await {
        return Ok(run);
    }
    let prepared = match prepare(environment, item, &source, container, masks).await {
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
    source: &str,
    container: Container,
    masks: &Masks,
) -> Result<Prepared, StorageError> {
    let token = Uuid::new_v4();
    let own = Key::SubmissionSource { token, container }.to_string();
    environment.storage.copy(source, &own).await?;
    crash::point(Point::SourceCopied);
    let marker = Marker {
        job: item.job_id,
        attempt: item.attempts + 1,
        token,
    }
    .to_string();
    let source_url = environment
        .storage
        .presign_named(&own, environment.settings.presign_life, &marker)
        .await?;
    let callback = environment.settings.callbacks.url(Vendor::Ghostcut, token);
    let body = SubmitRequest {
        source_url: &source_url,
        marker: &marker,
        callback: callback.as_deref(),
        uid: environment.settings.ghostcut.uid.as_deref(),
        mode: masks.mode,
        masks_json: Some(&masks.json),
    }
    .to_bytes();
    let costs = &environment.settings.costs;
    let metadata = json!({ "ghostcut_video_url": environment.storage.object_url(source) });
    Ok(Prepared {
        token,
        body,
        source_key: Some(own),
        source_url: Some(source_url),
        metadata: Some(metadata),
        cost: cost::inpaint(
            item.video_seconds,
            costs.ghostcut_cost_per_30s,
            costs.ghostcut_cost_flat,
        ),
    })
}
