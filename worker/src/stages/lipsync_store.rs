//! `lipsync.store`: streams what Sync.so made into our bucket.

use shared::db::WorkItem;
use shared::domain::Stage;
use shared::storage::Key;

use super::store;
use crate::environment::Environment;
use crate::run::Run;

pub(super) async fn run(environment: &Environment, item: &WorkItem) -> Run {
    let key = Key::LipsyncResult {
        user: item.user_id,
        job: item.job_id,
    };
    store::run(environment, Stage::LipsyncStore, item, key).await
}
