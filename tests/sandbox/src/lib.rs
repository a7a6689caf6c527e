//! Simulators of Sync.so and GhostCut and an S3 server, for demos and tests.
//!
//! They behave as the vendors document, misbehave as [`fault`] rules ask, and own the truth about paid
//! work ([`truth`]). Everything listens on 127.0.0.1. They must never be mistaken for the real services:
//! credentials here are made up and results are the input with a note appended.

mod callback;
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
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use anyhow::Context;
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;
use s3s::service::S3Service;
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
            let share = fault::unit_interval(self.config.seed, work.number, work.runs.into());
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
    folder: DataFolder,
}

/// Where objects and inputs are kept; removed when dropped, if it is our own temporary one.
struct DataFolder {
    path: PathBuf,
    temporary: bool,
}

impl DataFolder {
    fn of(config: &SandboxConfig) -> Self {
        let name = format!("sandbox-{}", uuid::Uuid::new_v4());
        let own = || std::env::temp_dir().join(name);
        Self {
            path: config.data_dir.clone().unwrap_or_else(own),
            temporary: config.data_dir.is_none(),
        }
    }
}

impl Drop for DataFolder {
    fn drop(&mut self) {
        if !self.temporary {
            return;
        }
        // A file that is just being written can make the first try fail.
        let removed = (0..3).map(|_| std::fs::remove_dir_all(&self.path));
        let tries: Vec<_> = removed.take_while(Result::is_err).collect();
        if let [_, _, Err(error)] = &tries[..] {
            let folder = self.path.display();
            tracing::warn!(%error, %folder, "temporary folder left behind");
        }
    }
}

struct Listeners {
    sync: TcpListener,
    ghostcut: TcpListener,
    s3: TcpListener,
    media: TcpListener,
    control: TcpListener,
}

impl Listeners {
    async fn bind(ports: Ports) -> anyhow::Result<(Self, Endpoints)> {
        let (sync, sync_url) = bind(ports.sync, "Sync.so").await?;
        let (ghostcut, ghostcut_url) = bind(ports.ghostcut, "GhostCut").await?;
        let (s3, s3_url) = bind(ports.s3, "S3").await?;
        let (media, media_url) = bind(ports.media, "media").await?;
        let (control, control_url) = bind(ports.control, "control").await?;
        let endpoints = Endpoints {
            sync: sync_url,
            ghostcut: ghostcut_url,
            s3: s3_url,
            media: media_url,
            control: control_url,
        };
        let listeners = Self {
            sync,
            ghostcut,
            s3,
            media,
            control,
        };
        Ok((listeners, endpoints))
    }

    fn serve(self, core: &Arc<Core>, objects: S3Service) {
        let shared = core.clone();
        http::serve(core, self.sync, move |request| {
            sync_so::handle(shared.clone(), request)
        });
        let shared = core.clone();
        http::serve(core, self.ghostcut, move |request| {
            ghostcut::handle(shared.clone(), request)
        });
        let shared = core.clone();
        http::serve(core, self.media, move |request| {
            media::handle(shared.clone(), request)
        });
        http::serve(core, self.s3, move |request| {
            Service::call(&objects, request)
        });
        let routes = TowerToHyperService::new(control::router(core.clone()));
        http::serve(core, self.control, move |request| routes.call(request));
    }
}

impl Sandbox {
    /// Binds all ports and starts all servers on the current tokio runtime.
    ///
    /// # Errors
    /// A port is taken, or the data folder cannot be made.
    pub async fn start(config: SandboxConfig) -> anyhow::Result<Self> {
        // Fails only if the process has a provider already, which then serves as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let folder = DataFolder::of(&config);
        let objects = s3::open(&folder.path, &config)
            .await
            .context("S3 data folder")?;
        let media = media::Store::open(folder.path.join("inputs")).context("folder of inputs")?;
        let (listeners, endpoints) = Listeners::bind(config.ports).await?;
        // The vendors reach clients over the internet; here all is local, so a proxy is never wanted.
        let client = reqwest::Client::builder()
            .no_proxy()
            .connect_timeout(Duration::from_secs(5))
            .read_timeout(Duration::from_secs(30))
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
        listeners.serve(&core, objects);
        Ok(Self { core, folder })
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

    /// Folder of objects and inputs.
    pub fn data_dir(&self) -> &Path {
        &self.folder.path
    }

    /// Environment variables a client of all simulators needs.
    pub fn environment(&self) -> Vec<(&'static str, String)> {
        control::environment(&self.core)
    }

    /// Stops all servers and waits until nothing of them runs.
    pub async fn stop(self) {
        self.core.cancel.cancel();
        self.core.tasks.close();
        self.core.tasks.wait().await;
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        self.core.cancel.cancel();
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
