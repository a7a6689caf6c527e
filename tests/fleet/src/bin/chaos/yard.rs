//! Everything that runs for a chaos run, shared by those who break it: the processes, which are restarted as an orchestrator
//! would, the proxies before every server, and the sandbox. What goes wrong is not decided here.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use fleet::{Carriage, Control, Environment, Media, Process, Proxy, local, local_urls};
use producer::cli::exit::Exit;
use reqwest::Url;
use shared::config::StorageConfig;
use shared::storage::Storage;
use tokio::sync::Mutex as AsyncMutex;

use crate::plan::{Place, Route, Shape};

/// The private servers' instance.
pub(crate) const INSTANCE: &str = "chaos";
/// First part of the names of the fleet's queues.
pub(crate) const PREFIX: &str = "chaos";
/// Before a process that ended by itself is started again.
const RESTART_PAUSE: Duration = Duration::from_millis(500);

/// What is different from a fast fleet: everything that can hang gives up within seconds, as faults come every few seconds.
const SETTINGS: [(&str, &str); 12] = [
    ("AMQP_PREFIX", PREFIX),
    ("CONFIRM_TIMEOUT", "2s"),
    // Reached in a run, so that processes give up and are started again.
    ("BROKER_RECONNECT_BOUND", "15s"),
    ("DATABASE_CONNECT_TIMEOUT", "3s"),
    ("DATABASE_STATEMENT_TIMEOUT", "5s"),
    ("FETCH_CONNECT_TIMEOUT", "2s"),
    ("FETCH_IDLE_TIMEOUT", "3s"),
    ("S3_CONNECT_TIMEOUT", "1s"),
    ("S3_REQUEST_TIMEOUT", "3s"),
    ("S3_IDLE_TIMEOUT", "3s"),
    // Ten fates at a time for three workers, on a small machine.
    ("CONCURRENCY", "4"),
    ("TRANSFERS", "2"),
];

/// The running parts.
pub(crate) struct Yard {
    /// Settings of the fleet, which knows the proxies only.
    environment: Environment,
    pub(crate) control: Control,
    pub(crate) media: Media,
    folder: PathBuf,
    slots: Vec<(Place, AsyncMutex<Slot>)>,
    proxies: BTreeMap<Route, Proxy>,
    tally: Mutex<Tally>,
}

/// What has happened so far.
#[derive(Clone, Default)]
pub(crate) struct Tally {
    /// Faults carried out, by kind.
    pub(crate) faults: BTreeMap<String, usize>,
    /// Processes that ended by themselves and how.
    pub(crate) exits: Vec<String>,
    /// Such ends as no fault explains.
    pub(crate) crashes: Vec<String>,
}

/// The place of one process.
#[derive(Default)]
struct Slot {
    process: Option<Process>,
    starts: usize,
    not_before: Option<Instant>,
    /// Known once it has started.
    addresses: Option<Addresses>,
}

#[derive(Clone)]
struct Addresses {
    admin: String,
    http: Option<SocketAddr>,
}

impl Yard {
    /// Proxies, and the fleet's database brought up to date. `sandbox` is what the sandbox announced.
    pub(crate) async fn new(
        folder: &Path,
        shape: Shape,
        sandbox: BTreeMap<String, String>,
    ) -> anyhow::Result<Self> {
        let (database, amqp) = local_urls(INSTANCE).await?;
        let storage = Environment::fast(&database, &amqp, PREFIX, sandbox.clone());
        let storage = Storage::new(&storage.parse::<StorageConfig>()?)?;
        let media = Media::upload(&storage, &sandbox["SANDBOX_MEDIA_URL"]).await?;
        let control = Control::new(&sandbox["SANDBOX_CONTROL_URL"])?;

        let mut proxies = BTreeMap::new();
        let mut environment = Environment::fast(&database, &amqp, PREFIX, sandbox);
        let vendors = [
            (Route::Sync, "SYNC_API_URL"),
            (Route::Ghostcut, "GHOSTCUT_API_URL"),
            (Route::Store, "S3_ENDPOINT_URL"),
            (Route::Database, "DATABASE_URL"),
        ];
        for (route, variable) in vendors {
            let (proxy, url) = behind_proxy(environment.get(variable)?).await?;
            environment.set(variable, url.trim_end_matches('/'));
            proxies.insert(route, proxy);
        }
        let mut nodes = Vec::new();
        for (number, node) in amqp.split(',').enumerate() {
            let (proxy, url) = behind_proxy(node).await?;
            // Dead peers are noticed within seconds.
            nodes.push(format!("{url}?heartbeat=2&connection_timeout=3000"));
            proxies.insert(Route::Broker(number), proxy);
        }
        environment.set("AMQP_URL", nodes.join(","));
        let api = Proxy::start().await?;
        environment.set("PUBLIC_URL", format!("http://{}", api.address()));
        proxies.insert(Route::Api, api);
        for (name, value) in SETTINGS {
            environment.set(name, value);
        }
        Process::migrate(&environment, folder).await?;
        let producers = (0..shape.producers).map(Place::Producer);
        let places = producers.chain((0..shape.workers).map(Place::Worker));
        Ok(Self {
            environment,
            control,
            media,
            folder: folder.to_owned(),
            slots: places.map(|place| (place, AsyncMutex::default())).collect(),
            proxies,
            tally: Mutex::default(),
        })
    }

    /// The producers' API, whichever of them answers.
    pub(crate) fn api(&self) -> anyhow::Result<String> {
        Ok(self.proxy(Route::Api)?.address().to_string())
    }

    /// Settings of the fleet, for commands.
    pub(crate) const fn environment(&self) -> &Environment {
        &self.environment
    }

    pub(crate) fn proxy(&self, route: Route) -> anyhow::Result<&Proxy> {
        let proxy = self.proxies.get(&route);
        proxy.with_context(|| format!("no proxy for {route:?}"))
    }

    /// Lets everything pass again.
    pub(crate) fn free_all_proxies(&self) {
        for proxy in self.proxies.values() {
            proxy.carry(Carriage::Pass);
        }
    }

    pub(crate) fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts what does not run, as an orchestrator would, and learns where what has started listens.
    pub(crate) async fn tend(&self) -> anyhow::Result<()> {
        let mut producers = Vec::new();
        for (place, slot) in &self.slots {
            let mut slot = slot.lock().await;
            self.tend_slot(*place, &mut slot)?;
            producers.extend(slot.addresses.as_ref().and_then(|addresses| addresses.http));
        }
        self.proxy(Route::Api)?.lead_to(producers);
        Ok(())
    }

    fn tend_slot(&self, place: Place, slot: &mut Slot) -> anyhow::Result<()> {
        if let Some(process) = &mut slot.process {
            if let Some(status) = process.ended()? {
                let log = process.log().display();
                let end = format!("{}: {status}, see {log}", process.name);
                let mut tally = self.tally();
                // A process may give up while its servers are away, with an error. It may not crash, or stop unasked.
                if status.code() != Some(Exit::Failed as i32) {
                    tally.crashes.push(end.clone());
                }
                tally.exits.push(end);
                drop(tally);
                slot.process = None;
                slot.addresses = None;
                slot.not_before = Some(Instant::now() + RESTART_PAUSE);
            } else if slot.addresses.is_none()
                && let Some(line) = process.has_started()?
            {
                let admin = line["admin"].as_str().context("no admin address")?;
                slot.addresses = Some(Addresses {
                    admin: admin.to_owned(),
                    http: line["http"].as_str().map(str::parse).transpose()?,
                });
            }
        }
        let now = Instant::now();
        if slot.process.is_none() && slot.not_before.is_none_or(|time| time <= now) {
            slot.starts += 1;
            slot.process = Some(self.start(place, slot.starts)?);
        }
        Ok(())
    }

    fn start(&self, place: Place, starts: usize) -> anyhow::Result<Process> {
        let (name, program, args): (_, _, &[&str]) = match place {
            Place::Producer(n) => (
                format!("producer-{}.{starts}", n + 1),
                "producer",
                &["serve"],
            ),
            Place::Worker(n) => (format!("worker-{}.{starts}", n + 1), "worker", &[]),
        };
        let environment = self.environment.clone().with("WORKER_NAME", &name);
        Process::start(&name, program, args, environment.variables(), &self.folder)
    }

    fn slot(&self, place: Place) -> anyhow::Result<&AsyncMutex<Slot>> {
        let slot = self.slots.iter().find(|(known, _)| *known == place);
        Ok(&slot.with_context(|| format!("no {place:?}"))?.1)
    }

    /// Kills a process; false when it has just ended by itself.
    pub(crate) async fn kill(&self, place: Place) -> anyhow::Result<bool> {
        let mut slot = self.slot(place)?.lock().await;
        slot.addresses = None;
        // One that has ended by itself is left to be counted as such.
        let running = match &mut slot.process {
            Some(process) => process.ended()?.is_none(),
            None => false,
        };
        let Some(process) = slot.process.as_mut().filter(|_| running) else {
            return Ok(false);
        };
        process.kill().await?;
        slot.process = None;
        Ok(true)
    }

    /// Freezes a process or lets it go on; false when there is none.
    pub(crate) async fn freeze(&self, place: Place, frozen: bool) -> anyhow::Result<bool> {
        let slot = self.slot(place)?.lock().await;
        let process = slot.process.as_ref();
        Ok(process.is_some_and(|process| process.freeze(frozen).is_ok()))
    }

    /// Tells `deploy/local` to do something, and looks where the servers are then.
    pub(crate) async fn servers(&self, command: &[&str]) -> anyhow::Result<()> {
        local(INSTANCE, command).await?;
        let (database, amqp) = local_urls(INSTANCE).await?;
        self.proxy(Route::Database)?
            .lead_to(vec![address_of(&database)?]);
        for (number, node) in amqp.split(',').enumerate() {
            self.proxy(Route::Broker(number))?
                .lead_to(vec![address_of(node)?]);
        }
        Ok(())
    }

    /// Processes that are not healthy and ready.
    pub(crate) async fn unhealthy(&self) -> anyhow::Result<Vec<String>> {
        let client = reqwest::Client::builder()
            .no_proxy()
            .timeout(Duration::from_secs(5));
        let client = client.build()?;
        let mut unhealthy = Vec::new();
        for (place, slot) in &self.slots {
            let addresses = slot.lock().await.addresses.clone();
            let Some(Addresses { admin, .. }) = addresses else {
                unhealthy.push(format!("{place:?} has not started"));
                continue;
            };
            for path in ["healthz", "readyz"] {
                let answer = client.get(format!("http://{admin}/{path}")).send().await;
                let said = match answer {
                    Ok(answer) if answer.status().is_success() => continue,
                    Ok(answer) => answer.text().await.unwrap_or_default(),
                    Err(error) => error.to_string(),
                };
                unhealthy.push(format!("{place:?}: /{path} says {}", said.trim()));
            }
        }
        Ok(unhealthy)
    }

    /// Ends all processes of the fleet, politely.
    pub(crate) async fn stop(&self) -> anyhow::Result<()> {
        let slots = self.slots.iter().map(async |(_, slot)| {
            let mut slot = slot.lock().await;
            let Some(mut process) = slot.process.take() else {
                return Ok(());
            };
            let _ = process.freeze(false);
            process.terminate(Duration::from_secs(15)).await.map(drop)
        });
        futures::future::join_all(slots).await.into_iter().collect()
    }
}

/// What `deploy/local` calls a node of the broker.
pub(crate) fn broker_name(node: usize) -> String {
    match node {
        0 => "rabbitmq".to_owned(),
        node => format!("rabbitmq-{}", node + 1),
    }
}

/// A proxy before the server of a URL, and the URL that leads through it.
async fn behind_proxy(url: &str) -> anyhow::Result<(Proxy, String)> {
    let proxy = Proxy::start().await?;
    proxy.lead_to(vec![address_of(url)?]);
    let mut url: Url = url.parse()?;
    let moved = url.set_port(Some(proxy.address().port()));
    moved.map_err(|()| anyhow::anyhow!("a URL without a port"))?;
    Ok((proxy, url.into()))
}

fn address_of(url: &str) -> anyhow::Result<SocketAddr> {
    let url: Url = url.parse()?;
    let host = url.host_str().context("a URL without a host")?;
    let port = url
        .port_or_known_default()
        .context("a URL without a port")?;
    Ok(SocketAddr::new(host.parse()?, port))
}
