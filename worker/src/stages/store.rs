//! Streaming a result into our bucket, for both vendors. May be repeated at will: the same bytes under the same key.

use std::time::Duration;

use shared::db::WorkItem;
use shared::domain::Stage;
use shared::domain::outcome::Reason;
use shared::domain::transition::Event;
use shared::storage::{Key, MediaKind, TransferClass, transfer};
use shared::telemetry::chain;

use crate::environment::Environment;
use crate::run::{Run, StoredResult};
use crate::source;

/// How often a result that is no video is fetched before the job is given up.
const INVALID_TRIES: u32 = 3;

pub(super) async fn run(environment: &Environment, stage: Stage, item: &WorkItem, key: Key) -> Run {
    let spec = match source::spec(item) {
        Ok(spec) => spec,
        // Paid for already: a person repairs the row and retries.
        Err(error) => return Run::park(Reason::InvalidJob, error),
    };
    let url = item
        .submission
        .as_ref()
        .and_then(|submission| submission.answer["result_url"].as_str());
    let Some(url) = url else {
        return Run::advance(Event::ResultGone, Duration::ZERO);
    };
    let (has_segments, has_effects) = (spec.has_segments(), spec.has_effects());
    match transfer(
        &environment.fetcher,
        &environment.storage,
        url,
        &key,
        MediaKind::Video,
    )
    .await
    {
        Ok(_) => {
            let event = Event::Stored {
                effects: has_effects && stage == Stage::LipsyncStore,
            };
            let stored = StoredResult {
                url: environment.storage.object_url(&key.to_string()),
                has_segments,
                has_effects,
            };
            Run {
                stored: Some(stored),
                ..Run::advance(event, Duration::ZERO)
            }
        }
        Err(error) => {
            let protocol = &environment.settings.protocol;
            let tries_left = item.tries + 1 < protocol.max_tries;
            match error.class() {
                // The vendor signs a fresh URL on every status call.
                TransferClass::Gone if tries_left => Run::advance(
                    Event::ResultGone,
                    protocol.retry_first.saturating_mul(item.tries),
                ),
                TransferClass::Gone => Run::give_up(Reason::TriesExhausted, chain(&error)),
                // Once may be an error page of the vendor's CDN with status 200.
                TransferClass::Invalid if item.tries + 1 < INVALID_TRIES => {
                    Run::retry(chain(&error))
                }
                TransferClass::Invalid => Run::give_up(Reason::InvalidResult, chain(&error)),
                TransferClass::Transient | TransferClass::Storage => Run::retry(chain(&error)),
            }
        }
    }
}
