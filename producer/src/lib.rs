//! The producer: takes jobs in, turns due rows into messages, follows what nobody else follows. The only one who publishes.

pub mod cli;
pub mod config;
pub mod dead_letters;
pub mod dispatcher;
pub mod intake;
pub mod sweeps;
pub mod web;

use std::sync::Arc;

use anyhow::Context as _;
use shared::broker::{BrokerMetrics, Connection, Publisher};
use shared::db::Db;
use shared::domain::Stage;
use shared::service::{Check, Stopper, serve_admin};
use shared::storage::Storage;
use shared::telemetry::{self, chain};
use shared::vendor::{self, ghostcut, sync};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::ServeConfig;
use crate::dispatcher::{Accounts, Dispatcher};
use crate::intake::Intake;
use crate::sweeps::{Gauges, LedgerSweep};
use crate::web::AppState;

/// Runs a producer until it is told to stop.
///
/// # Errors
/// A setting that cannot be used, an older schema, or a broker that stayed away for its bound.
pub async fn run(config: ServeConfig, stopper: Stopper) -> anyhow::Result<()> {
    let faults = config.protocol.check(&config.vendor);
    anyhow::ensure!(
        faults.is_empty(),
        "the configuration contradicts itself:\n  {}",
        faults.join("\n  ")
    );
    Db::require_schema(&config.database)
        .await
        .context("database")?;

    let registry = telemetry::registry("producer")?;
    let db = Db::new(&config.database)?;
    let storage = Storage::new(&config.storage).context("object storage")?;
    let broker_metrics = BrokerMetrics::register(&registry)?;
    let connect = async |name| {
        Connection::connect(&config.broker, name, &broker_metrics)
            .await
            .context("RabbitMQ")
    };
    // A blocked publishing connection must not keep dead letters from being taken in.
    let publishing = connect("producer: publishing").await?;
    let consuming = connect("producer: dead letters").await?;

    let stop = stopper.drain.clone();
    let tasks = TaskTracker::new();
    dispatch(&config, &db, &publishing, &registry, &tasks, &stop)?;
    sweep(&config, &db, &registry, &tasks, &stop)?;
    tasks.spawn(dead_letters::ingest(
        db.clone(),
        consuming.clone(),
        stopper.clone(),
    ));

    let intake = Intake {
        db: db.clone(),
        storage,
        max_segments: usize::from(config.http.max_segments),
    };
    let api = AppState::new(intake, config.http.http_max_body, &registry)?;
    let (http, serving) = web::serve(&config.http, api, stop.clone())
        .await
        .with_context(|| format!("cannot serve HTTP_ADDR {}", config.http.http_addr))?;
    let checks = readiness(&db, &publishing);
    let admin = serve_admin(config.service.admin_addr, registry, checks, stop.clone())
        .await
        .with_context(|| format!("cannot serve ADMIN_ADDR {}", config.service.admin_addr))?;
    tracing::info!(http = %http, admin = %admin, version = env!("CARGO_PKG_VERSION"), "producer started");

    let result = tokio::select! {
        () = stop.cancelled() => Ok(()),
        error = publishing.ended() => Err(error),
        error = consuming.ended() => Err(error),
    };
    stopper.drain.cancel();
    tasks.close();
    stopper
        .abort
        .run_until_cancelled(async { tokio::join!(tasks.wait(), serving) })
        .await;
    publishing.close().await;
    consuming.close().await;
    result.context("RabbitMQ")?;
    tracing::info!("producer stopped");
    Ok(())
}

fn accounts(config: &ServeConfig) -> Accounts {
    Accounts {
        sync: config.sync.account.clone(),
        ghostcut: config.ghostcut.account.clone(),
    }
}

fn dispatch(
    config: &ServeConfig,
    db: &Db,
    publishing: &Connection,
    registry: &prometheus::Registry,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    let dispatcher = Dispatcher {
        db: db.clone(),
        publisher: Arc::new(Publisher::new(publishing.clone(), &config.broker)),
        config: config.dispatch.clone(),
        protocol: config.protocol.clone(),
        accounts: accounts(config),
        metrics: dispatcher::Metrics::register(registry)?,
    };
    let (hint, due) = watch::channel(0);
    tasks.spawn(dispatcher::listen(
        config.database.clone(),
        hint,
        stop.clone(),
    ));
    for stage in Stage::ALL {
        tasks.spawn(dispatcher.clone().run(*stage, due.clone(), stop.clone()));
    }
    Ok(())
}

fn sweep(
    config: &ServeConfig,
    db: &Db,
    registry: &prometheus::Registry,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    let metrics = vendor::Metrics::register(registry)?;
    let ledger = LedgerSweep {
        db: db.clone(),
        sync: sync::Client::new(&config.sync, config.vendor, metrics.clone())?,
        ghostcut: ghostcut::Client::new(&config.ghostcut, config.vendor, metrics)?,
        accounts: accounts(config),
    };
    tasks.spawn(ledger.run(config.dispatch.sweep_interval, stop.clone()));
    tasks.spawn(Gauges::register(registry)?.run(db.clone(), config.dispatch.clone(), stop.clone()));
    Ok(())
}

fn readiness(db: &Db, publishing: &Connection) -> Vec<Check> {
    let (db, publishing) = (db.clone(), publishing.clone());
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
                let state = match (publishing.is_connected(), publishing.is_blocked()) {
                    (false, _) => Err("not connected".to_owned()),
                    (true, true) => Err("blocked by a resource alarm".to_owned()),
                    (true, false) => Ok(()),
                };
                Box::pin(async move { state })
            }),
        },
    ]
}
