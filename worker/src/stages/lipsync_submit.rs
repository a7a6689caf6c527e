//! `lipsync.submit`: pays Sync.so once, under a key; an unclear answer is cleared up by sending the same bytes under the same
//! key again, which the vendor answers with the original (Sync.so's documentation of `Idempotency-Key`), and after the
//! replay window by search.

use std::time::Duration;

use chrono::TimeDelta;
use shared::crash::{self, Point};
use shared::db::{DbError, Fact, SendAgain, Submission, WorkItem};
use shared::domain::answer::SubmitAnswer;
use shared::domain::cost;
use shared::domain::intake::JobSpec;
use shared::domain::outcome::{Outcome, Reason};
use shared::domain::search::{AROUND, Marker, is_of};
use shared::domain::{LedgerState, Stage, Vendor};
use shared::storage::StorageError;
use shared::vendor::sync::CreateRequest;
use uuid::Uuid;

use super::{is_active, live, not_answered, resume, store_failed};
use crate::admission::{self, throttle_delay};
use crate::clock::BootTime;
use crate::environment::Environment;
use crate::preflight;
use crate::run::Run;
use crate::source;
use crate::submission::{self, Prepared, accepted, pay};

pub(super) async fn run(environment: &Environment, item: &WorkItem) -> Result<Run, DbError> {
    if let Some(submission) = live(item) {
        return match resume(submission, item) {
            Some(run) => Ok(run),
            None => clear_up(environment, item, submission).await,
        };
    }
    if let Some(run) = submission::before_another(environment, Stage::LipsyncSubmit, item) {
        return Ok(run);
    }
    let spec = match source::spec(item) {
        Ok(spec) => spec,
        Err(error) => return Ok(Run::fail(Reason::InvalidJob, error)),
    };
    if let Some(run) = preflight::before_lipsync(environment, item, &spec).await {
        return Ok(run);
    }
    let prepared = match prepare(environment, item, &spec).await {
        Ok(prepared) => prepared,
        Err(error) => return Ok(store_failed(&error)),
    };
    pay(
        environment,
        Stage::LipsyncSubmit,
        item,
        &prepared,
        async |budget| {
            environment
                .sync
                .create(&prepared.body, &prepared.token.to_string(), budget)
                .await
        },
    )
    .await
}

async fn prepare(
    environment: &Environment,
    item: &WorkItem,
    spec: &JobSpec,
) -> Result<Prepared, StorageError> {
    let token = Uuid::new_v4();
    // In the URLs too: Sync.so's list shows these, and not the file name.
    let marker = Marker {
        job: item.job_id,
        attempt: item.attempts + 1,
        token,
    }
    .to_string();
    let video_url = source::vendor_url(environment, &spec.video, &marker).await?;
    let mut audio = Vec::with_capacity(spec.audio.len());
    for input in &spec.audio {
        audio.push((
            input.ref_id.as_str(),
            source::vendor_url(environment, &input.location, &marker).await?,
        ));
    }
    let webhook_url = environment.settings.callbacks.url(Vendor::Sync, token);
    let (api, costs) = (&environment.settings.sync, &environment.settings.costs);
    let body = CreateRequest {
        model: &api.model,
        video_url: &video_url,
        audio: audio
            .iter()
            .map(|(ref_id, url)| (*ref_id, url.as_str()))
            .collect(),
        segments: spec
            .segments
            .iter()
            .map(|segment| segment.to_json())
            .collect(),
        sync_mode: &api.mode,
        webhook_url: webhook_url.as_deref(),
        output_file_name: &marker,
        project_id: None,
    }
    .to_bytes();
    Ok(Prepared {
        token,
        body,
        source_key: None,
        source_url: Some(video_url),
        metadata: None,
        cost: cost::lipsync(
            &spec.segments,
            costs.sync_cost_flat,
            costs.sync_cost_per_second,
        ),
    })
}

/// The outcome is unknown: ask about the id the vendor hinted at, else send again under the key, else search.
async fn clear_up(
    environment: &Environment,
    item: &WorkItem,
    submission: &Submission,
) -> Result<Run, DbError> {
    let hint = submission.answer["hint"].as_str();
    if let Some(id) = hint
        && let Ok(work) = environment.sync.get(id).await
    {
        return Ok(adopt(environment, submission, work.task_id));
    }
    let window = TimeDelta::from_std(environment.settings.protocol.sync_replay_window)
        .unwrap_or(TimeDelta::MAX);
    // For a job that is over nothing is sent any more: a replay of a request that never arrived would be paid.
    if item.now - submission.claimed_at >= window || !is_active(item) {
        return search(environment, item, submission).await;
    }
    let within = environment.settings.protocol.send_deadline;
    // Read before the permit is asked for, as for a claim: a worker that was frozen since must not send.
    let asked = BootTime::now();
    let again = SendAgain {
        not_after: Some(submission.claimed_at + window),
        ..submission::again(environment, Stage::LipsyncSubmit, item, submission.token)
    };
    if let Some(refused) = environment.db.take_send_permit(&again).await? {
        return Ok(admission::later(environment, refused));
    }
    // Killed here: a token of the rate is lost.
    crash::point(Point::ReplayPending);
    let left = within.saturating_sub(asked.elapsed());
    if left.is_zero() {
        return Ok(Run::later(Duration::ZERO));
    }
    Ok(replay(environment, item, submission, left).await)
}

async fn replay(
    environment: &Environment,
    item: &WorkItem,
    submission: &Submission,
    within: Duration,
) -> Run {
    let protocol = &environment.settings.protocol;
    let key = submission.token.to_string();
    // Model: step Replay.
    let answer = environment
        .sync
        .create(&submission.request_body, &key, within)
        .await;
    crash::point(Point::ReplayAnswered);
    let mut fact = Fact::new(submission.token, LedgerState::Unknown);
    fact.answer = serde_json::to_value(&answer).ok();
    let signal = admission::signal_of_repetition(environment, item, submission.token, &answer);
    let again = |after: Duration, error: String, fact: Option<Fact>| Run {
        fact,
        ..Run::new(Outcome::Retry {
            after: Some(after),
            error,
        })
    };
    let next = protocol.sync_replay_schedule.delay(item.tries + 1);
    let run = match answer {
        SubmitAnswer::Accepted { task_id, .. } => adopt(environment, submission, task_id),
        // A refusal of the repetition says nothing about the first send, nor about a repetition that was killed before its
        // answer was stored: only an id or a person ends an unknown outcome here.
        SubmitAnswer::Rejected { reason } => again(next, reason, None),
        // Says nothing about the first send, whose outcome stays unknown.
        SubmitAnswer::NotSent { reason } => again(next, reason, None),
        SubmitAnswer::Misconfigured { .. } | SubmitAnswer::OutOfCredit { .. } => {
            Run::later(protocol.vendor_pause)
        }
        SubmitAnswer::Throttled {
            limit,
            retry_after,
            reason,
        } => again(
            retry_after.unwrap_or_else(|| throttle_delay(environment, limit, item.tries)),
            reason,
            None,
        ),
        SubmitAnswer::Unknown { reason, .. } => again(next, reason, Some(fact)),
    };
    Run { signal, ..run }
}

/// Too old to be replayed: the key may be forgotten. The list shows input URLs.
async fn search(
    environment: &Environment,
    item: &WorkItem,
    submission: &Submission,
) -> Result<Run, DbError> {
    let (from, to) = (
        submission.claimed_at - AROUND,
        submission.send_deadline + AROUND,
    );
    // Model: step Search.
    let works = match environment
        .sync
        .list(from.timestamp_millis(), to.timestamp_millis())
        .await
    {
        Ok(works) => works,
        Err(error) => return Ok(not_answered(environment, &error, item.tries)),
    };
    crash::point(Point::ListAnswered);
    environment.db.record_search(submission.token).await?;
    crash::point(Point::SearchRecorded);
    // Jobs may share a foreign input URL: it counts only where it is nobody else's.
    let shared = environment.db.shares_source(submission.token).await?;
    let mut found = works.into_iter().filter(|work| {
        is_of(work, submission.token)
            || !shared && work.source_url.is_some() && work.source_url == submission.source_url
    });
    Ok(match (found.next(), found.next()) {
        (Some(work), None) => adopt(environment, submission, work.task_id),
        _ => Run::park(
            Reason::OutcomeUndecided,
            "Sync.so neither answered for the key in time nor lists the generation; look at its dashboard",
        ),
    })
}

fn adopt(environment: &Environment, submission: &Submission, task_id: String) -> Run {
    environment
        .metrics
        .duplicates_prevented
        .with_label_values(&[Vendor::Sync.as_str(), "adopted"])
        .inc();
    let fact = Fact::new(submission.token, LedgerState::Accepted);
    accepted(environment, Vendor::Sync, fact, task_id, None)
}
