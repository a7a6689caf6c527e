//! `inpaint.poll`: asks GhostCut for the status of many works in one call.

use shared::db::{DbError, WorkItem};
use shared::domain::Stage;

use super::poll;
use crate::environment::Environment;
use crate::run::Run;

pub(super) async fn run(
    environment: &Environment,
    items: &[WorkItem],
) -> Result<Vec<Run>, DbError> {
    let ids = poll::task_ids(items);
    let mut answer = environment.ghostcut.status(&ids).await;
    // An id that came from the replaced application may be a project's.
    let projects: Vec<String> = items
        .iter()
        .filter_map(|item| {
            item.submission
                .as_ref()
                .filter(|submission| submission.imported)?
                .task_id
                .clone()
        })
        .filter(|id| {
            answer
                .as_ref()
                .is_ok_and(|works| works.iter().all(|work| &work.task_id != id))
        })
        .collect();
    if !projects.is_empty()
        && let Ok(works) = &mut answer
    {
        works.extend(
            environment
                .ghostcut
                .status_by_projects(&projects)
                .await
                .unwrap_or_default(),
        );
    }
    poll::run(environment, Stage::InpaintPoll, items, answer).await
}
