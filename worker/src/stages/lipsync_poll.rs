//! `lipsync.poll`: asks Sync.so for the status of many generations in one call.

use shared::db::{DbError, WorkItem};
use shared::domain::Stage;

use super::poll;
use crate::environment::Environment;
use crate::run::Run;

pub(super) async fn run(
    environment: &Environment,
    items: &[WorkItem],
) -> Result<Vec<Run>, DbError> {
    let answer = environment.sync.status(&poll::task_ids(items)).await;
    poll::run(environment, Stage::LipsyncPoll, items, answer).await
}
