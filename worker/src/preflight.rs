//! Looks at a job's files before a vendor is paid: nothing is paid for that must fail.
//!
//! What intake saw shortly before is believed; everything else is looked at here, also for jobs that no intake of ours took.
//! A fault ends the job and names the field of the request; what may pass is retried. Must not pay, store or move anything.

use std::time::Duration;

use shared::config::{ProbeLevel, SETTLE_MARGIN};
use shared::db::WorkItem;
use shared::domain::intake::{Inputs, JobSpec, SpecError, VIDEO_PATH, refused_by_ghostcut};
use shared::domain::location::Location;
use shared::domain::media::{MediaFacts, MediaKind};
use shared::domain::outcome::Reason;
use shared::storage::{Depth, ProbeError, Source, probe};
use shared::telemetry::chain;

use crate::environment::Environment;
use crate::run::Run;
use crate::source;

/// The longest that a look at the files of a job may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// What stands against paying Sync.so for the job. In a job with effects that is also what GhostCut would refuse later.
pub async fn before_lipsync(
    environment: &Environment,
    item: &WorkItem,
    spec: &JobSpec,
) -> Option<Run> {
    let depth = depth(environment)?;
    let mut inputs = believed(item, depth);
    let video = inputs.video.is_none().then(|| (None, spec.video.clone()));
    let audio = spec
        .audio
        .iter()
        .filter(|audio| !inputs.audio.contains_key(&audio.ref_id))
        .map(|audio| (Some(audio.ref_id.clone()), audio.location.clone()));
    let files: Vec<_> = video.into_iter().chain(audio).collect();
    let looks = files
        .into_iter()
        .map(|(ref_id, location)| look(environment, location, ref_id, depth));
    let looks = futures::future::join_all(looks);
    let Ok(looks) = tokio::time::timeout(patience(environment, item), looks).await else {
        return Some(out_of_time());
    };
    for (ref_id, found) in looks {
        match (ref_id, found) {
            (None, Ok(facts)) => inputs.video = Some(facts),
            (Some(name), Ok(facts)) => {
                inputs.audio.insert(name, facts);
            }
            (None, Err(error)) => return Some(unreadable(VIDEO_PATH, &error)),
            (Some(name), Err(error)) => return Some(unreadable(&format!("/audio/{name}"), &error)),
        }
    }
    unsuitable(&inputs, spec)
}

/// What stands against paying GhostCut for the video under `key`: the input, our copy of it, or Sync.so's result.
pub async fn before_inpaint(
    environment: &Environment,
    item: &WorkItem,
    spec: &JobSpec,
    key: &str,
) -> Option<Run> {
    let depth = depth(environment)?;
    let mut inputs = believed(item, depth);
    if !spec.has_segments() && inputs.video.is_some() {
        return unsuitable(&inputs, spec);
    }
    let source = Source::Object(&environment.storage, key);
    let look = probe(source, MediaKind::Video, depth);
    let found = match tokio::time::timeout(patience(environment, item), look).await {
        Ok(found) => found,
        Err(_) => return Some(out_of_time()),
    };
    if spec.has_segments() {
        return unsuitable_result(found);
    }
    match found {
        Ok(facts) => inputs.video = Some(facts),
        Err(error) => return Some(unreadable(VIDEO_PATH, &error)),
    }
    unsuitable(&inputs, spec)
}

/// What intake saw, if that was as close a look as this one.
fn believed(item: &WorkItem, depth: Depth) -> Inputs {
    let measured = depth == Depth::Duration;
    Inputs::from_metadata(item.job_metadata.as_ref(), item.now, measured)
        .unwrap_or_else(|| Inputs::unseen(item.now, measured))
}

fn depth(environment: &Environment) -> Option<Depth> {
    match environment.settings.probe.submit_probe {
        ProbeLevel::Off => None,
        ProbeLevel::Reachable => Some(Depth::Beginning),
        ProbeLevel::Full => Some(Depth::Duration),
    }
}

/// Half of what the lease leaves besides sending and settling: the other half is for preparing.
fn patience(environment: &Environment, item: &WorkItem) -> Duration {
    let kept = environment.settings.protocol.send_deadline + SETTLE_MARGIN;
    (item.lease.saturating_sub(kept) / 2).min(PATIENCE)
}

/// What is to be seen of a file, with its name given back.
async fn look(
    environment: &Environment,
    location: Location,
    ref_id: Option<String>,
    depth: Depth,
) -> (Option<String>, Result<MediaFacts, ProbeError>) {
    let kind = match ref_id {
        Some(_) => MediaKind::Audio,
        None => MediaKind::Video,
    };
    let found = match source::own_key(environment, &location) {
        Some(key) => probe(Source::Object(&environment.storage, &key), kind, depth).await,
        None => {
            let url = location.to_text();
            probe(Source::Url(&environment.fetcher, &url), kind, depth).await
        }
    };
    (ref_id, found)
}

fn out_of_time() -> Run {
    Run::retry("the files of the job did not answer in time")
}

fn unreadable(path: &str, error: &ProbeError) -> Run {
    match error.fault() {
        Some((_, message)) => Run::fail(Reason::InputUnreadable, format!("{path}: {message}")),
        None => Run::retry(format!("{path}: {}", chain(error))),
    }
}

fn unsuitable(inputs: &Inputs, spec: &JobSpec) -> Option<Run> {
    let faults = inputs.faults(spec);
    (!faults.is_empty()).then(|| Run::fail(Reason::InputUnsuitable, SpecError(faults).to_string()))
}

/// Sync.so is paid by now: a dead letter, so that a person sees what was paid for in vain.
fn unsuitable_result(found: Result<MediaFacts, ProbeError>) -> Option<Run> {
    let error = match found {
        Ok(facts) => {
            let faults = refused_by_ghostcut("the result of lip-sync", &facts);
            if faults.is_empty() {
                return None;
            }
            SpecError(faults).to_string()
        }
        Err(ProbeError::Missing) => return Some(Run::retry("the result of lip-sync is not there")),
        Err(error) => match error.fault() {
            Some((_, message)) => format!("the result of lip-sync {message}"),
            None => return Some(Run::retry(chain(&error))),
        },
    };
    Some(Run::give_up(Reason::InvalidResult, error))
}
