//! Whether a worker can do its work: the checks behind `/readyz`.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use prometheus::IntGaugeVec;
use shared::broker::{BrokerError, Connection, Queue};
use shared::domain::Stage;
use shared::service::Check;
use shared::telemetry::chain;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::environment::Environment;

/// A consumer with free permits and a filled queue that got nothing for this long is deaf.
const DEAF_AFTER: Duration = Duration::from_secs(30);

/// How a stage's consumer is doing, for readiness.
#[derive(Clone)]
pub struct Pulse {
    /// The stage.
    pub stage: Stage,
    /// Its free permits.
    pub permits: Arc<Semaphore>,
    /// The deliveries in hand.
    pub in_hand: TaskTracker,
    last_delivery: Arc<Mutex<LastDelivery>>,
}

/// When a delivery last came: by the clock that intervals are measured with, and by the one that people read.
struct LastDelivery {
    /// Or since when one could have come.
    since: Instant,
    at: Option<DateTime<Utc>>,
    /// None is wanted: an operator has asked the worker to be quiet.
    at_rest: bool,
}

impl Pulse {
    /// The pulse of a consumer with that many permits.
    #[must_use]
    pub fn new(stage: Stage, permits: u16) -> Self {
        Self {
            stage,
            permits: Arc::new(Semaphore::new(usize::from(permits))),
            in_hand: TaskTracker::new(),
            last_delivery: Arc::new(Mutex::new(LastDelivery {
                since: Instant::now(),
                at: None,
                at_rest: false,
            })),
        }
    }

    /// A delivery came.
    pub fn beat(&self) {
        let mut last = self.last();
        (last.since, last.at) = (Instant::now(), Some(Utc::now()));
    }

    /// From now on none is wanted, or one could come again.
    pub fn rest(&self, at_rest: bool) {
        let mut last = self.last();
        (last.since, last.at_rest) = (Instant::now(), at_rest);
    }

    /// Whether none is wanted.
    #[must_use]
    pub fn is_at_rest(&self) -> bool {
        self.last().at_rest
    }

    /// When a delivery last came, if any did.
    #[must_use]
    pub fn last_delivery_at(&self) -> Option<DateTime<Utc>> {
        self.last().at
    }

    fn last(&self) -> MutexGuard<'_, LastDelivery> {
        self.last_delivery
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it could take a message and has got none for `quiet`. With messages in its queue, that is deaf.
    #[must_use]
    pub fn idle_for(&self, quiet: Duration) -> bool {
        let last = self.last();
        !last.at_rest && self.permits.available_permits() > 0 && last.since.elapsed() > quiet
    }
}

/// The checks of a worker.
#[must_use]
pub fn checks(environment: &Environment, connection: &Connection, pulses: &[Pulse]) -> Vec<Check> {
    let (db, broker) = (environment.db.clone(), connection.clone());
    let (connection, pulses) = (connection.clone(), pulses.to_vec());
    vec![
        Check {
            name: "database",
            check: Box::new(move || {
                let db = db.clone();
                Box::pin(async move { db.ping().await.map_err(|error| chain(&error)) })
            }),
        },
        Check {
            name: "broker",
            check: Box::new(move || {
                let connected = broker.is_connected();
                Box::pin(async move {
                    if connected {
                        Ok(())
                    } else {
                        Err("not connected".to_owned())
                    }
                })
            }),
        },
        Check {
            name: "deliveries",
            check: Box::new(move || {
                let (connection, pulses) = (connection.clone(), pulses.clone());
                Box::pin(async move {
                    let deaf = deaf(&connection, &pulses).await;
                    let deaf = deaf.map_err(|error| chain(&error))?;
                    if deaf.is_empty() {
                        return Ok(());
                    }
                    let deaf: Vec<_> = deaf.iter().map(|stage| stage.as_str()).collect();
                    Err(format!(
                        "no deliveries although messages wait for {}",
                        deaf.join(", ")
                    ))
                })
            }),
        },
    ]
}

/// Between two looks for deaf consumers.
const DEAF_LOOK: Duration = Duration::from_secs(10);

/// Shows which stages are deaf, until told to stop. While the broker is away nobody can tell, and the gauge stays as it was.
pub async fn watch_deaf(
    connection: Connection,
    pulses: Vec<Pulse>,
    gauge: IntGaugeVec,
    stop: CancellationToken,
) {
    let watch = async {
        loop {
            if let Ok(deaf) = deaf(&connection, &pulses).await {
                for stage in pulses.iter().map(|pulse| pulse.stage) {
                    gauge
                        .with_label_values(&[stage.as_str()])
                        .set(deaf.contains(&stage).into());
                }
            }
            tokio::time::sleep(DEAF_LOOK).await;
        }
    };
    stop.run_until_cancelled(watch).await;
}

/// The stages that wait for messages although their queues hold some.
async fn deaf(connection: &Connection, pulses: &[Pulse]) -> Result<Vec<Stage>, BrokerError> {
    let idle: Vec<_> = pulses
        .iter()
        .filter(|pulse| pulse.idle_for(DEAF_AFTER))
        .map(|pulse| pulse.stage)
        .collect();
    if idle.is_empty() {
        return Ok(idle);
    }
    let queues: Vec<_> = idle.iter().map(|stage| Queue::Stage(*stage)).collect();
    let depths = connection.queue_depths(&queues).await?;
    Ok(idle
        .into_iter()
        .zip(depths)
        .filter(|(_, depth)| *depth > 0)
        .map(|(stage, _)| stage)
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_consumer_at_rest_is_not_deaf_nor_is_it_as_soon_as_it_goes_on() {
        let (pulse, never) = (Pulse::new(Stage::LipsyncPoll, 1), Duration::from_secs(3600));
        let idle = |pulse: &Pulse| pulse.idle_for(Duration::ZERO);
        assert!(idle(&pulse), "it could take something");
        pulse.rest(true);
        // Its task began before the rest, and says so after it.
        pulse.beat();
        assert!(pulse.is_at_rest() && !idle(&pulse));
        let before = pulse.last().since;
        pulse.rest(false);
        assert!(pulse.last().since > before, "it waits from now on");
        assert!(idle(&pulse) && !pulse.idle_for(never));
    }
}
