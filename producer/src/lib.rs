//! The producer: takes jobs in, turns due rows into messages, follows what nobody else follows. The only one who publishes.

pub mod adoption;
pub mod audit;
pub mod balance;
pub mod booking;
pub mod bulk;
pub mod callbacks;
pub mod cli;
pub mod config;
pub mod dead_letters;
pub mod decisions;
pub mod dispatcher;
pub mod doctor;
pub mod evidence;
pub mod feed;
pub mod held;
pub mod intake;
pub mod lost;
pub mod metrics;
pub mod notices;
pub mod overview;
pub mod replay;
pub mod results;
pub mod retention;
pub mod secrets;
pub mod status;
pub mod sweeps;
pub mod tasks;
pub mod times;
pub mod vendor_gauges;
pub mod vendors;
pub mod web;

use std::sync::Arc;

use anyhow::Context as _;
use shared::address;
use shared::broker::{Connection, Publisher};
use shared::config::Contradiction;
use shared::crash::{self, Point};
use shared::db::{Db, FleetTimes, RunBy, watch_continuity};
use shared::domain::{Stage, Vendor};
use shared::service::{Check, Stopper, serve_admin};
use shared::storage::{Fetcher, Storage};
use shared::telemetry::{self, chain};
use tokio::sync::{Notify, mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::adoption::Adoption;
use crate::audit::{AuditOrders, AuditSweep, Auditor, Order};
use crate::balance::BalanceWatch;
use crate::bulk::Bulk;
use crate::callbacks::Processor;
use crate::config::ServeConfig;
use crate::decisions::Decider;
use crate::dispatcher::{Accounts, Dispatcher};
use crate::feed::Feed;
use crate::intake::{CallbackRule, Intake};
use crate::lost::LostSearch;
use crate::metrics::Metrics;
use crate::notices::Notices;
use crate::retention::{Remover, RetentionSweep};
use crate::sweeps::{Gauges, LedgerSweep};
use crate::tasks::Tasks;
use crate::vendors::Vendors;
use crate::web::{AppState, Receiver};

/// Runs a producer until it is told to stop.
///
/// # Errors
/// A setting that cannot be used, an older schema, a broker that stayed away for its bound, or a part that ended before the stop.
pub async fn run(config: ServeConfig, stopper: Stopper) -> anyhow::Result<()> {
    Contradiction::none(config.check())?;
    Db::require_schema(&config.database)
        .await
        .context("database")?;

    let registry = telemetry::registry("producer")?;
    let metrics = Metrics::register(&registry)?;
    let db = Db::new(&config.database)?.measured(metrics.db);
    for vendor in Vendor::ALL {
        db.ensure_vendor(*vendor, accounts(&config).of(*vendor))
            .await
            .context("database")?;
    }
    db.record_times(
        RunBy::Producer,
        FleetTimes::from(&config.protocol),
        "producer",
    )
    .await
    .context("database")?;
    let storage = Storage::new(&config.storage).context("object storage")?;
    let connect = async |name| {
        Connection::connect(&config.broker, name, &metrics.broker)
            .await
            .context("RabbitMQ")
    };
    // A blocked publishing connection must not keep dead letters from being taken in.
    let publishing = connect("producer: publishing").await?;
    let consuming = connect("producer: dead letters").await?;

    let stop = stopper.drain.clone();
    let mut tasks = Tasks::default();
    dispatch(
        &config,
        &db,
        &publishing,
        metrics.dispatch,
        &mut tasks,
        &stop,
    );
    let vendors = Vendors::new(
        &config.sync,
        &config.ghostcut,
        config.vendor,
        metrics.vendor,
    )?;
    let (audits, ordered) = AuditOrders::new(db.clone());
    let gauges = (metrics.audit, metrics.fleet);
    sweep(&config, &db, &vendors, ordered, gauges, &mut tasks, &stop);
    let decider = Decider {
        db: db.clone(),
        vendors: vendors.clone(),
        storage: storage.clone(),
        protocol: config.protocol.clone(),
    };
    let remover = Remover {
        db: db.clone(),
        storage: storage.clone(),
        config: config.retention.clone(),
    };
    let interval = config.retention_timer.retention_interval;
    if interval.is_zero() {
        // Not started: a task that ends ends the process.
        metrics.retention.switched_off();
    } else {
        let retention = RetentionSweep {
            remover,
            interval,
            metrics: metrics.retention,
        };
        tasks.spawn(
            "retention",
            retention.run(config.dispatch.gauge_interval, stop.clone()),
        );
    }
    let receiver = take_callbacks(&config, &db, vendors, metrics.callbacks, &mut tasks, &stop);
    let ingest = dead_letters::ingest(db.clone(), consuming.clone(), stopper.clone());
    tasks.spawn_fallible("dead letters", async { Ok(ingest.await?) });

    let adoption = Adoption::new(
        db.clone(),
        storage.clone(),
        accounts(&config),
        metrics.adoption,
    );
    if !config.dispatch.adopt_within.is_zero() {
        tasks.spawn(
            "adoption",
            adoption.run(config.dispatch.clone(), stop.clone()),
        );
    }

    tell(&config, &db, metrics.notices, &mut tasks, &stop)?;
    let intake = Intake {
        db: db.clone(),
        storage,
        fetcher: Fetcher::new(&config.fetch).context("download client")?,
        probe: config.probe,
        max_segments: usize::from(config.http.max_segments),
        callbacks: CallbackRule {
            signed: config.notices.secrets.notice_secret.is_some(),
            allow_private: config.fetch.fetch_allow_private,
        },
    };
    let public = config.callbacks.public_url.as_ref();
    let https = public.is_some_and(|url| url.scheme() == "https");
    let feed = Feed::new(db.clone(), stop.clone());
    tasks.spawn("feed", feed.clone().run());
    let max_body = config.http.http_max_body;
    let api = AppState::new(
        intake,
        receiver,
        max_body,
        decider,
        audits,
        feed,
        metrics.http,
    )
    .over_https(https)
    .linking_for(config.results.result_link_life)
    .trusting(&config.http.trusted_proxies);
    let (http, serving) = web::serve(&config.http, api, stop.clone())
        .await
        .with_context(|| format!("cannot serve HTTP_ADDR {}", config.http.http_addr))?;
    tasks.spawn_fallible("HTTP API", async { Ok(serving.await?) });
    web::access::announce(&db, http).await.context("database")?;
    let checks = readiness(&db, &publishing);
    let admin = serve_admin(config.service.admin_addr, registry, checks, stop.clone())
        .await
        .with_context(|| format!("cannot serve ADMIN_ADDR {}", config.service.admin_addr))?;
    tracing::info!(http = %http, admin = %admin, version = env!("CARGO_PKG_VERSION"), "producer started");

    let result = tokio::select! {
        // Whoever is told to stop may end.
        biased;
        () = stop.cancelled() => Ok(()),
        error = publishing.ended() => Err(anyhow::Error::new(error).context("RabbitMQ")),
        error = consuming.ended() => Err(anyhow::Error::new(error).context("RabbitMQ")),
        error = tasks.ended() => Err(error),
    };
    if result.is_err() {
        // As if told to stop: what is in hand has its time, and no more.
        let (stopper, grace) = (stopper.clone(), config.service.stop_grace);
        tokio::spawn(async move { stopper.stop(grace).await });
        stop.cancelled().await;
    }
    stopper.abort.run_until_cancelled(tasks.drained()).await;
    crash::point(Point::StopDrained);
    publishing.close().await;
    consuming.close().await;
    result?;
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
    metrics: dispatcher::Metrics,
    tasks: &mut Tasks,
    stop: &CancellationToken,
) {
    let dispatcher = Dispatcher {
        db: db.clone(),
        publisher: Arc::new(Publisher::new(publishing.clone(), &config.broker)),
        config: config.dispatch.clone(),
        protocol: config.protocol.clone(),
        accounts: accounts(config),
        metrics,
    };
    let (hint, due) = watch::channel(0);
    tasks.spawn(
        "listening",
        dispatcher::listen(config.database.clone(), hint, stop.clone()),
    );
    for stage in Stage::ALL {
        let run = dispatcher.clone().run(*stage, due.clone(), stop.clone());
        tasks.spawn(stage.as_str(), run);
    }
}

fn sweep(
    config: &ServeConfig,
    db: &Db,
    vendors: &Vendors,
    ordered: mpsc::Receiver<Order>,
    (audit, fleet): (audit::Gauges, Gauges),
    tasks: &mut Tasks,
    stop: &CancellationToken,
) {
    let auditor = Auditor {
        db: db.clone(),
        vendors: vendors.clone(),
    };
    let audits = AuditSweep::new(auditor, config.audit.clone(), ordered, audit);
    tasks.spawn(
        "audits",
        audits.run(config.dispatch.gauge_interval, stop.clone()),
    );
    tasks.spawn(
        "continuity",
        watch_continuity(db.clone(), "producer".to_owned(), true, stop.clone()),
    );
    let ledger = LedgerSweep {
        redo_patience: config.protocol.ghostcut_poll_schedule.delay(u32::MAX),
        lost: LostSearch {
            db: db.clone(),
            vendors: vendors.clone(),
            pause: config.protocol.ghostcut_search_schedule.delay(u32::MAX),
        },
        db: db.clone(),
        vendors: vendors.clone(),
    };
    let balance = BalanceWatch {
        db: db.clone(),
        ghostcut: vendors.ghostcut.clone(),
        account: config.ghostcut.account.clone(),
    };
    let bulk = Bulk { db: db.clone() };
    tasks.spawn(
        "operations",
        bulk.run(config.dispatch.dispatch_interval, stop.clone()),
    );
    tasks.spawn(
        "balance",
        balance.run(config.dispatch.balance_interval, stop.clone()),
    );
    tasks.spawn(
        "ledger sweep",
        ledger.run(config.dispatch.sweep_interval, stop.clone()),
    );
    tasks.spawn(
        "gauges",
        fleet.run(db.clone(), config.dispatch.clone(), stop.clone()),
    );
}

/// Starts the processing of callbacks and gives what takes them in.
fn take_callbacks(
    config: &ServeConfig,
    db: &Db,
    vendors: Vendors,
    metrics: callbacks::Metrics,
    tasks: &mut Tasks,
    stop: &CancellationToken,
) -> Receiver {
    let arrived = Arc::new(Notify::new());
    let processor = Processor {
        db: db.clone(),
        vendors,
        retries: config.callback_processing.callback_retry_schedule.clone(),
        // Longer than a status call, as the protocol's times nest.
        lease: config.protocol.stage_lease,
        metrics: metrics.clone(),
    };
    tasks.spawn(
        "callbacks",
        processor.run(
            config.dispatch.dispatch_interval,
            Arc::clone(&arrived),
            stop.clone(),
        ),
    );
    Receiver::new(
        db.clone(),
        config.sync.webhook_secret.clone(),
        config.ghostcut.app_secret.clone(),
        metrics,
        arrived,
    )
}

/// Starts telling submitters that their jobs have ended, where there is a secret to sign that with.
fn tell(
    config: &ServeConfig,
    db: &Db,
    metrics: notices::Metrics,
    tasks: &mut Tasks,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    let rule = address::rule(config.fetch.fetch_allow_private);
    let keys = config.notices.secrets.keys().map_err(anyhow::Error::msg)?;
    let notices = Notices::new(db.clone(), keys, &config.notices, rule, metrics);
    match notices.context("client of notices")? {
        Some(notices) => {
            tasks.spawn(
                "notices",
                notices.run(config.dispatch.dispatch_interval, stop.clone()),
            );
        }
        None => tracing::info!(
            "without NOTICE_SECRET no job may have a callback_url and no notice is sent"
        ),
    }
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
