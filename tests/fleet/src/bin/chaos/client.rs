//! A client of the API that does what clients do: it repeats a request under its key until it has an answer, and sometimes sends
//! it twice at once.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use fleet::{Api, Kind};
use serde_json::Value;
use uuid::Uuid;

use crate::yard::Yard;

/// How long the first request may take before it is repeated; each further one twice as long, up to what the API takes at most. A
/// machine under load answers late, and a client that never waits longer would never have an answer.
const PATIENCE: Duration = Duration::from_secs(4);
const MOST_PATIENCE: Duration = Duration::from_secs(32);
/// Before it is.
const PAUSE: Duration = Duration::from_millis(500);
/// How long a job may take to get in, outages and all.
const DEADLINE: Duration = Duration::from_secs(180);
/// Every so many-th job is sent twice at once.
const TWICE: usize = 5;
/// Share of the run in which jobs arrive; what comes last must meet faults too.
const ARRIVAL: f64 = 0.9;

/// A job that the API took.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Taken {
    pub(crate) job: Uuid,
    pub(crate) kind: Kind,
}

/// Hands in `jobs` jobs, spread over `length`, and waits until all are taken. Their ids go to `known` as they come.
pub(crate) async fn hand_in(
    yard: Arc<Yard>,
    jobs: usize,
    length: Duration,
    known: Arc<Mutex<Vec<Uuid>>>,
) -> anyhow::Result<Vec<Taken>> {
    let api = Api::new(&yard.api()?)?;
    let (started, every) = (Instant::now(), length.mul_f64(ARRIVAL / jobs.max(1) as f64));
    let (api, yard, known) = (&api, &yard, &known);
    let requests = (0..jobs).map(|number| async move {
        tokio::time::sleep_until((started + every * u32::try_from(number)?).into()).await;
        let kind = Kind::ALL[number % Kind::ALL.len()];
        let job = hand_in_one(api, &yard.media.request(kind, number), number).await?;
        if let Ok(mut known) = known.lock() {
            known.push(job);
        }
        anyhow::Ok(Taken { job, kind })
    });
    futures::future::try_join_all(requests).await
}

async fn hand_in_one(api: &Api, request: &Value, number: usize) -> anyhow::Result<Uuid> {
    let key = format!("chaos-{number}");
    let persist = async || {
        let (until, mut patience) = (Instant::now() + DEADLINE, PATIENCE);
        loop {
            let answer = tokio::time::timeout(patience, api.submit(request, &key)).await;
            patience = MOST_PATIENCE.min(2 * patience);
            match answer.unwrap_or_else(|_| Err(anyhow::anyhow!("no answer"))) {
                Ok(job) => return Ok(job),
                Err(error) if Instant::now() > until => return Err(error.context(key.clone())),
                Err(_) => tokio::time::sleep(PAUSE).await,
            }
        }
    };
    let job = persist().await?;
    if number.is_multiple_of(TWICE) {
        let (one, two) = tokio::try_join!(persist(), persist())?;
        let same = one == job && two == job;
        anyhow::ensure!(same, "the same key made the jobs {job}, {one} and {two}");
    }
    Ok(job)
}
