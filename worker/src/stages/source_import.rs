//! `source.import`: streams a foreign input into our bucket, so that every GhostCut submission can have a source of its own.

use std::time::Duration;

use shared::db::WorkItem;
use shared::domain::outcome::Reason;
use shared::domain::transition::Event;
use shared::storage::{Key, MediaKind, TransferClass, transfer};
use shared::telemetry::chain;

use crate::environment::Environment;
use crate::run::Run;
use crate::source;

pub(super) async fn run(environment: &Environment, item: &WorkItem) -> Run {
    let spec = match source::spec(item) {
        Ok(spec) => spec,
        Err(error) => return Run::fail(Reason::InvalidJob, error),
    };
    if source::own_key(environment, &spec.video).is_some() {
        return Run::advance(Event::Imported, Duration::ZERO);
    }
    let key = Key::ImportedSource {
        user: item.user_id,
        job: item.job_id,
        container: source::container_of(&spec.video),
    };
    let url = spec.video.to_text();
    match transfer(
        &environment.fetcher,
        &environment.storage,
        &url,
        &key,
        MediaKind::Video,
    )
    .await
    {
        Ok(_) => Run::advance(Event::Imported, Duration::ZERO),
        Err(error) => match error.class() {
            TransferClass::Gone | TransferClass::Invalid => {
                Run::fail(Reason::InputUnreadable, chain(&error))
            }
            TransferClass::Transient | TransferClass::Storage => Run::retry(chain(&error)),
        },
    }
}
