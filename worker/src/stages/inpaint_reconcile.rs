//! `inpaint.reconcile`: finds out whether GhostCut has a work whose submission was not answered.
//!
//! Found: adopted. Not found after all searches: the submission's source object is deleted, so that a request sent late can only
//! fail, and after a settle time one more search decides, if it shows that it can see works of that time at all.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::json;
use shared::crash::{self, Point};
use shared::db::{DbError, Fact, Submission, WorkItem};
use shared::domain::answer::Work;
use shared::domain::outcome::Reason;
use shared::domain::search::{AROUND, is_of, weigh, worth};
use shared::domain::transition::Event;
use shared::domain::{LedgerState, Vendor};

use super::{live, not_answered, resume, store_failed};
use crate::environment::Environment;
use crate::run::Run;
use crate::submission::accepted;

pub(super) async fn run(environment: &Environment, item: &WorkItem) -> Result<Run, DbError> {
    let Some(submission) = live(item) else {
        return Ok(Run::advance(Event::Absent, Duration::ZERO));
    };
    if let Some(run) = resume(submission, item) {
        return Ok(run);
    }
    let protocol = &environment.settings.protocol;
    // 3006 is the vendor's own word that it did not take the request: one look after the wait is enough.
    let refused = submission.answer["class"] == "throttled";
    let needed = if refused {
        1
    } else {
        protocol.ghostcut_search_schedule.len()
    };
    let made = submission.searches.unsigned_abs();
    let last = submission
        .last_searched_at
        .unwrap_or(submission.send_deadline);

    let (due, deciding) = if made < needed {
        let wait = if refused {
            Duration::ZERO
        } else {
            protocol.ghostcut_search_schedule.delay(made)
        };
        (last + delta(wait), refused)
    } else {
        let deleted = match delete_source(environment, submission).await? {
            Ok(deleted) => deleted,
            Err(run) => return Ok(run),
        };
        (
            last.max(deleted) + delta(protocol.ghostcut_settle_time),
            true,
        )
    };
    if let Ok(left) = (due - item.now).to_std()
        && !left.is_zero()
    {
        return Ok(Run::later(left));
    }
    search(environment, item, submission, deciding, refused).await
}

async fn search(
    environment: &Environment,
    item: &WorkItem,
    submission: &Submission,
    deciding: bool,
    refused: bool,
) -> Result<Run, DbError> {
    // The answer named a project but no work: ask for it first.
    if let Some(project) = submission.answer["hint"].as_str()
        && let Ok(works) = environment
            .ghostcut
            .status_by_projects(&[project.to_owned()])
            .await
        && let Some(work) = works.first()
    {
        return Ok(adopt(environment, item, submission, work, &[]));
    }
    let (from, to) = (submission.claimed_at - AROUND, item.now + AROUND);
    // Model: step Search.
    let works = match environment
        .ghostcut
        .list(from.timestamp_millis(), to.timestamp_millis())
        .await
    {
        Ok(works) => works,
        Err(error) => return Ok(not_answered(environment, &error, item.tries)),
    };
    crash::point(Point::ListAnswered);
    let mut found: Vec<&Work> = works
        .iter()
        .filter(|work| is_of(work, submission.token))
        .collect();
    found.sort_by_key(|work| worth(&work.state));
    if let Some((best, others)) = found.split_first() {
        return Ok(adopt(environment, item, submission, best, others));
    }
    environment.db.record_search(submission.token).await?;
    crash::point(Point::SearchRecorded);
    if !deciding {
        let next = environment
            .settings
            .protocol
            .ghostcut_search_schedule
            .delay(submission.searches.unsigned_abs() + 1);
        return Ok(Run::later(next));
    }
    let account = &environment.settings.ghostcut.account;
    let known = environment
        .db
        .known_works(Vendor::Ghostcut, account, from, item.now, submission.token)
        .await?;
    // A request sent after the source was deleted can only fail: the list has to be as new as that.
    let since = submission
        .source_deleted_at
        .map_or(submission.send_deadline, |deleted| {
            deleted.max(submission.send_deadline)
        });
    let evidence = weigh(&works, &known, since);
    let detail = json!({ "searches": submission.searches + 1, "listed": works.len(), "controls": evidence.controls,
        "later_controls": evidence.later_controls, "undecidable": evidence.undecidable });
    // The vendor's own word that it refused needs no control.
    if !refused && (evidence.undecidable > 0 || evidence.controls == 0) {
        return Ok(Run::park(
            Reason::OutcomeUndecided,
            "GhostCut's list does not show this work, nor does it show that it would; look at its dashboard",
        )
        .with_detail(detail));
    }
    if !refused
        && evidence.later_controls == 0
        && item.now < submission.send_deadline + patience(environment) * 2
    {
        return Ok(Run::later(
            environment
                .settings
                .protocol
                .ghostcut_search_schedule
                .delay(u32::MAX),
        ));
    }
    Ok(Run::advance(Event::Absent, Duration::ZERO)
        .with_fact(Fact::new(submission.token, LedgerState::Absent))
        .with_detail(detail))
}

/// Deletes the submission's own source, once, and says when. The inner error is a run: the store is away.
async fn delete_source(
    environment: &Environment,
    submission: &Submission,
) -> Result<Result<DateTime<Utc>, Run>, DbError> {
    if let Some(deleted) = submission.source_deleted_at {
        return Ok(Ok(deleted));
    }
    // Model: step DeleteSource.
    if let Some(key) = &submission.source_key
        && let Err(error) = environment.storage.delete(key).await
    {
        return Ok(Err(store_failed(&error)));
    }
    // Killed here: the object is deleted again and the settle time counts from then.
    crash::point(Point::SourceDeleted);
    let deleted = environment
        .db
        .record_source_deleted(submission.token)
        .await?;
    crash::point(Point::SourceDeletionRecorded);
    Ok(Ok(deleted.unwrap_or(submission.send_deadline)))
}

fn adopt(
    environment: &Environment,
    item: &WorkItem,
    submission: &Submission,
    best: &Work,
    others: &[&Work],
) -> Run {
    let vendor = Vendor::Ghostcut.as_str();
    environment
        .metrics
        .duplicates_prevented
        .with_label_values(&[vendor, "adopted"])
        .inc();
    if !others.is_empty() {
        let ids: Vec<_> = others.iter().map(|work| work.task_id.as_str()).collect();
        tracing::error!(job.id = %item.job_id, submission.token = %submission.token, works = ?ids,
            "GhostCut has more than one work for one submission: paid twice");
        environment
            .metrics
            .duplicate_submissions
            .with_label_values(&[vendor])
            .inc_by(ids.len() as u64);
    }
    let fact = Fact::new(submission.token, LedgerState::Accepted);
    accepted(
        environment,
        Vendor::Ghostcut,
        fact,
        best.task_id.clone(),
        best.project_id.clone(),
    )
    .with_detail(json!({ "adopted": best.task_id, "others": others.len() }))
}

/// From the send deadline to the deciding search. A control from before the deadline proves only that the list lags by less than
/// its age; without a later one the search goes on for as long again.
fn patience(environment: &Environment) -> TimeDelta {
    let protocol = &environment.settings.protocol;
    delta(protocol.ghostcut_search_schedule.total() + protocol.ghostcut_settle_time)
}

fn delta(duration: Duration) -> TimeDelta {
    TimeDelta::from_std(duration).unwrap_or(TimeDelta::MAX)
}
