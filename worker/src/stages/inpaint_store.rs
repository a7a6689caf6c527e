//! `inpaint.store`: streams what GhostCut made into our bucket.

use shared::db::WorkItem;
use shared::domain::Stage;
use shared::storage::Key;

use super::store;
use crate::environment::Environment;
use crate::run::Run;

pub(super) async fn run(environment: &Environment, item: &WorkItem) -> Run {
    let key = Key::InpaintResult {
        user: item.user_id,
        job: item.job_id,
    };
    store::run(environment, Stage::InpaintStore, item, key).await
}
