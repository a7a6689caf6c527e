//! The worker's settings: the shared ones it needs and its own.

use std::time::Duration;

use shared::config::{
    BrokerConfig, CONSUMER_TIMEOUT, CallbackConfig, CostConfig, DatabaseConfig, FetchConfig,
    GhostcutApi, ProtocolConfig, StorageConfig, SubmitProbe, SyncApi, VendorTimeouts,
};
use shared::domain::Stage;
use shared::domain::resume::PAID_ATTEMPTS;
use shared::service::ServiceConfig;
use shared::telemetry::LogConfig;

const EXAMPLES: &str = "Examples:
  With the settings in the environment:
    worker

  A second one on the same machine, for long transfers only:
    worker --admin-addr 127.0.0.1:0 --stages lipsync.store,inpaint.store

Stops when it gets SIGTERM, and at once when it gets another one. Exit status: 0 stopped as it was told, 2 settings are missing, wrong
or contradict each other, 4 the database has another schema, an address cannot be bound, or the broker stayed away for
BROKER_RECONNECT_BOUND: whatever started it should start it again.";

/// Runs the stages of video jobs: consumes messages, calls the vendors, writes what came of it, then acknowledges.
///
/// Add replicas to scale. Every worker may run every stage; `--stages` limits one to some.
#[derive(Clone, Debug, clap::Parser)]
#[command(version, after_help = EXAMPLES)]
pub struct WorkerConfig {
    /// Logs.
    #[command(flatten)]
    pub log: LogConfig,
    /// Database.
    #[command(flatten)]
    pub database: DatabaseConfig,
    /// Broker.
    #[command(flatten)]
    pub broker: BrokerConfig,
    /// Object storage.
    #[command(flatten)]
    pub storage: StorageConfig,
    /// Downloads.
    #[command(flatten)]
    pub fetch: FetchConfig,
    /// Looking at files before paying.
    #[command(flatten)]
    pub probe: SubmitProbe,
    /// Sync.so.
    #[command(flatten)]
    pub sync: SyncApi,
    /// GhostCut.
    #[command(flatten)]
    pub ghostcut: GhostcutApi,
    /// Callbacks.
    #[command(flatten)]
    pub callbacks: CallbackConfig,
    /// Vendor timeouts.
    #[command(flatten)]
    pub vendor: VendorTimeouts,
    /// Times of the protocol.
    #[command(flatten)]
    pub protocol: ProtocolConfig,
    /// What submissions are expected to cost.
    #[command(flatten)]
    pub costs: CostConfig,
    /// What this worker runs.
    #[command(flatten)]
    pub work: WorkConfig,
    /// Admin port and stopping.
    #[command(flatten)]
    pub service: ServiceConfig,
}

/// What a worker runs and how much of it at a time.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Work")]
pub struct WorkConfig {
    /// Stages to run, separated by commas [default: all]
    #[arg(long, env, value_delimiter = ',')]
    pub stages: Vec<Stage>,
    /// Messages in hand at a time, for each stage; also the prefetch of its consumer
    #[arg(long, env, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub concurrency: u16,
    /// Transfers in hand at a time, for each stage that moves whole videos
    #[arg(long, env, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub transfers: u16,
    /// Paid submissions of one job to one vendor, failed ones included; what is replayed or retried is decided by what the last worker
    /// to start had
    #[arg(long, env, default_value_t = PAID_ATTEMPTS, value_parser = clap::value_parser!(i32).range(1..))]
    pub max_paid_attempts: i32,
    /// Name of this worker in trails and at the broker [default: host name and process id]
    #[arg(long, env)]
    pub worker_name: Option<String>,
    /// How often it writes into the list of workers that it is there; after three times that without a sign it is shown as lost
    #[arg(long, env, default_value = "10s", value_parser = humantime::parse_duration)]
    pub worker_heartbeat: Duration,
}

impl WorkConfig {
    /// The stages to run.
    #[must_use]
    pub fn stages(&self) -> Vec<Stage> {
        if self.stages.is_empty() {
            Stage::ALL.to_vec()
        } else {
            self.stages.clone()
        }
    }

    /// How many messages of a stage may be in hand.
    #[must_use]
    pub const fn permits(&self, stage: Stage) -> u16 {
        match stage {
            Stage::SourceImport | Stage::LipsyncStore | Stage::InpaintStore => self.transfers,
            _ => self.concurrency,
        }
    }
}

impl WorkerConfig {
    /// Everything wrong with the settings taken together.
    #[must_use]
    pub fn check(&self) -> Vec<String> {
        let mut faults = self.protocol.check(&self.vendor);
        if self.work.worker_heartbeat.is_zero() {
            faults.push("WORKER_HEARTBEAT must be longer than nothing".to_owned());
        }
        let transfer = self.fetch.fetch_total_timeout;
        if transfer >= CONSUMER_TIMEOUT {
            faults.push(format!(
                "FETCH_TOTAL_TIMEOUT ({transfer:?}) must be shorter than RabbitMQ's consumer timeout ({CONSUMER_TIMEOUT:?})"
            ));
        }
        let permits: usize = self
            .work
            .stages()
            .iter()
            .map(|stage| usize::from(self.work.permits(*stage)))
            .sum();
        // Every delivery in hand may want a connection at once, and waits for one no longer than this.
        if self.database.database_pool_size * 20 < permits {
            faults.push(format!(
                "DATABASE_POOL_SIZE ({}) is too small for {permits} messages in hand: give one connection for at most 20",
                self.database.database_pool_size
            ));
        }
        faults
    }
}
