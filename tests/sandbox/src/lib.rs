//! Simulators of Sync.so and GhostCut and an S3 server, for demos and tests.
//!
//! They behave as the vendors document, misbehave as [`fault`] rules ask, and own the truth about paid
//! work ([`truth`]). Everything listens on 127.0.0.1. They must never be mistaken for the real services:
//! credentials here are made up and results are the input with a note appended.

mod config;
mod control;
pub mod fault;
mod ghostcut;
mod http;
pub mod media;
mod s3;
mod sync_so;
pub mod truth;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use anyhow::Context;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use config::{Credentials, GhostCutSettings, Ports, SandboxConfig, Settings, SyncSettings};
pub use fault::{Fault, FaultRule, Faults, IdForm, Operation, When};
pub use truth::{Phase, Status, Truth, Vendor, Work};

/// Base URLs, without a slash at the end.
#[derive(Clone, Debug)]
pub struct Endpoints {
    /// Sync.so API.
    pub sync: String,
    /// GhostCut API.
    pub ghostcut: String,
    /// S3, path style.
    pub s3: String,
    /// Result files, and sample media under `/samples/`.
    pub media: String,
    /// Control API; paths begin with `/control`.
    pub control: String,
}

/// What all servers share.
pub(crate) struct Core {
    pub(crate) config: SandboxConfig,
    pub(crate) endpoints: Endpoints,
    pub(crate) settings: RwLock<Settings>,
    pub(crate) truth: Truth,
    pub(crate) faults: Faults,
    pub(crate) media: media::Store,
    pub(crate) client: reqwest::Client,
    /// Times of Sync.so creates within the last minute.
    pub(crate) recent_creates: Mutex<Vec<Instant>>,
    pub(crate) cancel: CancellationToken,
    pub(crate) tasks: TaskTracker,
}

impl Core {
    pub(crate) fn settings(&self) -> Settings {
        self.settings
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub(crate) fn change_settings<T>(&self, change: impl FnOnce(&mut Settings) -> T) -> T {
        change(
            &mut self
                .settings
                .write()
                .unwrap_or_else(PoisonError::into_inner),
        )
    }

    /// Runs work of the vendor's own until done or the sandbox stops.
    pub(crate) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let cancel = self.cancel.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                () = cancel.cancelled() => {}
                () = work => {}
            }
        });
    }

    /// Time from acceptance to the final state: a fault's, or by seed within the setting's bounds.
    pub(crate) fn duration(
        &self,
        faults: &[Fault],
        bounds_ms: (u64, u64),
        work: &Work,
    ) -> Duration {
        let fixed = faults.iter().find_map(|fault| match fault {
            Fault::Duration { ms } => Some(*ms),
            _ => None,
        });
        let ms = fixed.unwrap_or_else(|| {
            let (low, high) = bounds_ms;
            let order = work.id.bytes().fold(0, |sum: u64, byte| {
                sum.wrapping_mul(31).wrapping_add(byte.into())
            });
            let share = fault::unit_interval(self.config.seed, order, work.runs.into());
            low + (high.saturating_sub(low) as f64 * share) as u64
        });
        Duration::from_millis(ms)
    }

    pub(crate) fn reset(&self) {
        self.truth.reset();
        self.faults.clear();
        self.media.clear();
        self.change_settings(|settings| *settings = self.config.settings.clone());
        self.recent_creates
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
    }
}

/// A running sandbox. Dropping it stops everything; [`Sandbox::stop`] also waits.
pub struct Sandbox {
    core: Arc<Core>,
    temporary: Option<PathBuf>,
}

impl Sandbox {
    /// Binds all ports and starts all servers on the current tokio runtime.
    ///
    /// # Errors
    /// A port is taken, or the data folder cannot be made.
    pub async fn start(config: SandboxConfig) -> anyhow::Result<Self> {
        // Fails only if the process has a provider already, which then serves as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let temporary = match config.data_dir {
            Some(_) => None,
            None => Some(std::env::temp_dir().join(format!("sandbox-{}", uuid::Uuid::new_v4()))),
        };
        let data_dir = config
            .data_dir
            .clone()
            .or_else(|| temporary.clone())
            .unwrap_or_default();
        let store = s3::open(&data_dir, &config)
            .await
            .context("S3 data folder")?;
        let media = media::Store::open(data_dir.join("inputs")).context("folder of inputs")?;

        let ports = config.ports;
        let (sync, sync_url) = bind(ports.sync, "Sync.so").await?;
        let (ghostcut, ghostcut_url) = bind(ports.ghostcut, "GhostCut").await?;
        let (s3, s3_url) = bind(ports.s3, "S3").await?;
        let (results, media_url) = bind(ports.media, "media").await?;
        let (control, control_url) = bind(ports.control, "control").await?;
        let endpoints = Endpoints {
            sync: sync_url,
            ghostcut: ghostcut_url,
            s3: s3_url,
            media: media_url,
            control: control_url,
        };
        // The vendors reach clients over the internet; here all is local, so a proxy is never wanted.
        let client = reqwest::Client::builder()
            .no_proxy()
            .connect_timeout(Duration::from_secs(5))
            .build()
            .context("HTTP client")?;
        let core = Arc::new(Core {
            settings: RwLock::new(config.settings.clone()),
            faults: Faults::new(config.seed),
            config,
            endpoints,
            truth: Truth::default(),
            media,
            client,
            recent_creates: Mutex::default(),
            cancel: CancellationToken::new(),
            tasks: TaskTracker::new(),
        });
        let (cancel, tasks) = (&core.cancel, &core.tasks);
        let for_sync = core.clone();
        tasks.spawn(http::serve(
            sync,
            cancel.clone(),
            tasks.clone(),
            move |request| sync_so::handle(for_sync.clone(), request),
        ));
        let for_ghostcut = core.clone();
        tasks.spawn(http::serve(
            ghostcut,
            cancel.clone(),
            tasks.clone(),
            move |request| ghostcut::handle(for_ghostcut.clone(), request),
        ));
        let for_media = core.clone();
        tasks.spawn(http::serve(
            results,
            cancel.clone(),
            tasks.clone(),
            move |request| media::handle(for_media.clone(), request),
        ));
        let service = store;
        tasks.spawn(http::serve(
            s3,
            cancel.clone(),
            tasks.clone(),
            move |request| hyper::service::Service::call(&service, request),
        ));
        let stopped = cancel.clone().cancelled_owned();
        let routes = control::router(core.clone());
        tasks.spawn(async move {
            let server = axum::serve(control, routes).with_graceful_shutdown(stopped);
            if let Err(error) = server.await {
                tracing::error!(%error, "control server ended");
            }
        });
        Ok(Self { core, temporary })
    }

    /// Base URLs of all servers.
    pub fn endpoints(&self) -> &Endpoints {
        &self.core.endpoints
    }

    /// Credentials clients have to use.
    pub fn credentials(&self) -> &Credentials {
        &self.core.config.credentials
    }

    /// Accepted work and counters.
    pub fn truth(&self) -> &Truth {
        &self.core.truth
    }

    /// Fault rules.
    pub fn faults(&self) -> &Faults {
        &self.core.faults
    }

    /// Settings as they are now.
    pub fn settings(&self) -> Settings {
        self.core.settings()
    }

    /// Changes settings; later requests and runs see them.
    pub fn change_settings(&self, change: impl FnOnce(&mut Settings)) {
        self.core.change_settings(change);
    }

    /// Back to the state after start, except for stored objects.
    pub fn reset(&self) {
        self.core.reset();
    }

    /// Environment variables a client of all simulators needs.
    pub fn environment(&self) -> Vec<(&'static str, String)> {
        control::environment(&self.core)
    }

    /// Stops all servers and waits for them, a few seconds at most.
    pub async fn stop(self) {
        self.core.cancel.cancel();
        self.core.tasks.close();
        // Only a control client that keeps its connection can make this wait.
        let _ = tokio::time::timeout(Duration::from_secs(2), self.core.tasks.wait()).await;
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        self.core.cancel.cancel();
        if let Some(folder) = &self.temporary
            && let Err(error) = std::fs::remove_dir_all(folder)
        {
            tracing::warn!(%error, folder = %folder.display(), "temporary folder left behind");
        }
    }
}

async fn bind(port: u16, server: &str) -> anyhow::Result<(TcpListener, String)> {
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("{server} server on {address}"))?;
    let url = format!("http://{}", listener.local_addr()?);
    Ok((listener, url))
}
