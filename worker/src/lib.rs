//! The worker: consumes messages, runs the stage they ask for, writes what came of it, then acknowledges. Never publishes.

pub mod admission;
pub mod clock;
pub mod config;
pub mod consumer;
pub mod environment;
pub mod gate;
pub mod heartbeat;
pub mod metrics;
pub mod preflight;
pub mod readiness;
pub mod run;
pub mod settle;
pub mod source;
pub mod stages;
pub mod submission;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use shared::broker::Connection;
use shared::config::Contradiction;
use shared::crash::{self, Point};
use shared::db::{Db, FleetTimes, RunBy, watch_continuity};
use shared::service::{Stopper, serve_admin};
use shared::telemetry::{self, chain};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::config::WorkerConfig;
use crate::consumer::StageConsumer;
use crate::environment::Environment;
use crate::gate::Gate;
use crate::heartbeat::Heartbeat;
use crate::readiness::Pulse;

/// Hints that something is due are gathered for this long: NOTIFY takes a lock that all commits with one share.
const NOTIFY_DEBOUNCE: Duration = Duration::from_millis(20);

/// Runs a worker until it is told to stop.
///
/// # Errors
/// A setting that cannot be used, or a broker that stayed away for its bound.
pub async fn run(config: WorkerConfig, stopper: Stopper) -> anyhow::Result<()> {
    Contradiction::none(config.check())?;
    Db::require_schema(&config.database)
        .await
        .context("database")?;
    let registry = telemetry::registry("worker")?;
    let environment = Environment::new(&config, &registry)?;
    let settings = &environment.settings;
    environment
        .db
        .record_times(
            RunBy::Worker,
            FleetTimes::from(&settings.protocol),
            &settings.actor,
        )
        .await
        .context("database")?;
    environment
        .db
        .record_paid_attempts(settings.max_paid_attempts, &settings.actor)
        .await
        .context("database")?;
    let connection = Connection::connect(
        &config.broker,
        &environment.settings.actor,
        &environment.metrics.broker,
    )
    .await
    .context("RabbitMQ")?;

    let served = CancellationToken::new();
    let _stop_serving = served.clone().drop_guard();
    let watched = served.clone();
    let stages = config.work.stages();
    let pulses: Vec<Pulse> = stages
        .iter()
        .map(|stage| Pulse::new(*stage, config.work.permits(*stage)))
        .collect();
    for stage in &stages {
        environment.metrics.consumes(*stage);
    }
    tokio::spawn(readiness::watch_deaf(
        connection.clone(),
        pulses.clone(),
        environment.metrics.deaf.clone(),
        watched.clone(),
    ));
    let checks = readiness::checks(&environment, &connection, &pulses);
    let admin = serve_admin(config.service.admin_addr, registry, checks, served)
        .await
        .with_context(|| format!("cannot serve ADMIN_ADDR {}", config.service.admin_addr))?;
    tracing::info!(admin = %admin, actor = environment.settings.actor, version = env!("CARGO_PKG_VERSION"),
        stages = stages.iter().map(|stage| stage.as_str()).collect::<Vec<_>>().join(","), "worker started");

    let gate = Gate::new(stopper.drain.clone());
    let heartbeat = Heartbeat {
        db: environment.db.clone(),
        name: environment.settings.actor.clone(),
        work: config.work.clone(),
        checks: readiness::checks(&environment, &connection, &pulses),
        pulses: pulses.clone(),
        metrics: environment.metrics.clone(),
        stopper: stopper.clone(),
        grace: config.service.stop_grace,
        gate: gate.clone(),
    }
    .begin();
    let due = Arc::new(Notify::new());
    let notifier = tokio::spawn(notify_due(environment.clone(), Arc::clone(&due)));
    tokio::spawn(watch_continuity(
        environment.db.clone(),
        environment.settings.actor.clone(),
        false,
        watched,
    ));
    let consumers = pulses.into_iter().map(|pulse| {
        StageConsumer {
            environment: environment.clone(),
            stage: pulse.stage,
            permits: config.work.permits(pulse.stage),
            pulse,
            due: Arc::clone(&due),
            stopper: stopper.clone(),
            gate: gate.clone(),
        }
        .run(connection.clone())
    });
    let result = all_together(consumers, &stopper, config.service.stop_grace).await;
    crash::point(Point::StopDrained);
    notifier.abort();
    heartbeat.end().await;
    connection.close().await;
    result.context("RabbitMQ")?;
    tracing::info!("worker stopped");
    Ok(())
}

/// Waits for all consumers. When one fails, the others stop as on SIGTERM: they finish what is in hand, paid calls included, within
/// `grace`. Gives the first error.
async fn all_together<E>(
    consumers: impl IntoIterator<Item = impl Future<Output = Result<(), E>>>,
    stopper: &Stopper,
    grace: Duration,
) -> Result<(), E> {
    let mut consumers: FuturesUnordered<_> = consumers.into_iter().collect();
    let mut result = Ok(());
    while let Some(ended) = consumers.next().await {
        if ended.is_err() && result.is_ok() {
            result = ended;
            let stopper = stopper.clone();
            tokio::spawn(async move { stopper.stop(grace).await });
        }
    }
    result
}

async fn notify_due(environment: Environment, due: Arc<Notify>) {
    loop {
        due.notified().await;
        tokio::time::sleep(NOTIFY_DEBOUNCE).await;
        if let Err(error) = environment.db.notify_due().await {
            tracing::debug!(
                error = chain(&error),
                "cannot hint that something is due; dispatch has a timer"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures::future::BoxFuture;

    use super::*;

    /// A consumer that fails must not take a paid call of another one with it, nor wait for one that never ends.
    #[tokio::test]
    async fn when_one_consumer_fails_the_others_finish_what_is_in_hand() {
        let (stopper, finished) = (Stopper::default(), Arc::new(AtomicUsize::new(0)));
        let until = |token: CancellationToken| -> BoxFuture<'static, Result<(), &str>> {
            let finished = Arc::clone(&finished);
            Box::pin(async move {
                token.cancelled().await;
                // What was in hand takes a little longer than the news.
                for _ in 0..10 {
                    tokio::task::yield_now().await;
                }
                finished.fetch_add(1, Ordering::Relaxed);
                Ok(())
            })
        };
        let consumers = [
            until(stopper.drain.clone()),
            Box::pin(async { Err("the queue is gone") }),
            Box::pin(async { Err("another queue is gone") }),
            until(stopper.abort.clone()),
        ];
        let result = all_together(consumers, &stopper, Duration::from_millis(1)).await;
        assert_eq!(result, Err("the queue is gone"));
        assert_eq!(finished.load(Ordering::Relaxed), 2);
    }
}
