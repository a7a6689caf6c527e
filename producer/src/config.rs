//! The producer's settings: the shared ones it needs and its own.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ipnet::IpNet;
use shared::config::{
    BrokerConfig, CallbackConfig, DatabaseConfig, FetchConfig, GhostcutApi, IntakeProbe,
    ProtocolConfig, Secret, StorageConfig, SyncApi, VendorTimeouts,
};
use shared::domain::outcome::Schedule;
use shared::domain::retention::Kind;
use shared::service::ServiceConfig;
use shared::storage::PRESIGN_MAX;

/// Settings of `producer serve`.
#[derive(Clone, Debug, clap::Args)]
pub struct ServeConfig {
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
    /// Looking at the files of new jobs.
    #[command(flatten)]
    pub probe: IntakeProbe,
    /// Sync.so.
    #[command(flatten)]
    pub sync: SyncApi,
    /// GhostCut.
    #[command(flatten)]
    pub ghostcut: GhostcutApi,
    /// Callbacks.
    #[command(flatten)]
    pub callbacks: CallbackConfig,
    /// Processing callbacks.
    #[command(flatten)]
    pub callback_processing: CallbackProcessing,
    /// Notices that a job has ended.
    #[command(flatten)]
    pub notices: NoticeConfig,
    /// Links to results.
    #[command(flatten)]
    pub results: ResultConfig,
    /// Vendor timeouts.
    #[command(flatten)]
    pub vendor: VendorTimeouts,
    /// Times of the protocol.
    #[command(flatten)]
    pub protocol: ProtocolConfig,
    /// Dispatch.
    #[command(flatten)]
    pub dispatch: DispatchConfig,
    /// Audits on a timer.
    #[command(flatten)]
    pub audit: AuditConfig,
    /// What is removed when it is old.
    #[command(flatten)]
    pub retention: RetentionConfig,
    /// How often that is done.
    #[command(flatten)]
    pub retention_timer: RetentionTimer,
    /// HTTP API.
    #[command(flatten)]
    pub http: HttpConfig,
    /// Admin port and stopping.
    #[command(flatten)]
    pub service: ServiceConfig,
}

impl ServeConfig {
    /// Everything wrong with the settings taken together.
    #[must_use]
    pub fn check(&self) -> Vec<String> {
        let mut faults = self.protocol.check(&self.vendor);
        if self.callbacks.public_url.is_some() && self.sync.webhook_secret.is_none() {
            faults.push(
                "PUBLIC_URL asks Sync.so to call back: set SYNC_WEBHOOK_SECRET, without which its callbacks are refused"
                    .to_owned(),
            );
        }
        faults.extend(self.notices.secrets.keys().err());
        let life = self.results.result_link_life;
        if life > PRESIGN_MAX || life < Duration::from_secs(1) {
            faults.push("RESULT_LINK_LIFE has to be between one second and seven days".to_owned());
        }
        faults
    }
}

/// How stored callbacks are processed.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Callbacks")]
pub struct CallbackProcessing {
    /// Delays between the tries to process a callback; after as many tries it is kept as failed. Until then no new submission
    /// is opened for its job
    #[arg(long, env, default_value = "1s,2s,5s,10s,30s,1m,2m,5m*12")]
    pub callback_retry_schedule: Schedule,
}

/// Notices that a job has ended, to the `callback_url` of the job.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Notices")]
pub struct NoticeConfig {
    /// The secrets.
    #[command(flatten)]
    pub secrets: NoticeSecrets,
    /// Delays between the tries to tell a receiver; after one more try than there are delays it is given up
    #[arg(long, env, default_value = "5s,30s,2m,10m,30m,1h,2h,4h,8h*2")]
    pub notice_retry_schedule: Schedule,
    /// For one try, from name lookup to the head of the answer
    #[arg(long, env, default_value = "10s", value_parser = humantime::parse_duration)]
    pub notice_timeout: Duration,
    /// Notices to one host at a time, of all producers together: a slow receiver holds up nobody else
    #[arg(long, env, default_value_t = 4, value_parser = clap::value_parser!(u8).range(1..=16))]
    pub notice_per_host: u8,
}

/// What notices are signed with. Both are used while both are set, so that receivers can change theirs in between.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Notices")]
pub struct NoticeSecrets {
    /// Secret that notices are signed with (Standard Webhooks): `whsec_` and 24 to 64 bytes in base64, such as
    /// `echo whsec_$(openssl rand -base64 32)` makes. Without it no job may have a `callback_url`
    #[arg(long, env, hide_env_values = true)]
    pub notice_secret: Option<Secret>,
    /// The secret before: notices are signed with it as well until it is unset
    #[arg(long, env, hide_env_values = true)]
    pub notice_secret_previous: Option<Secret>,
}

/// Links to results.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Results")]
pub struct ResultConfig {
    /// How long a link to a result lives that is made on request (at most seven days). With `S3_PUBLIC_BASE_URL` links are public
    /// and do not end
    #[arg(long, env, default_value = "1h", value_parser = humantime::parse_duration)]
    pub result_link_life: Duration,
}

/// How due rows become messages.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Dispatch")]
pub struct DispatchConfig {
    /// How often to look for due rows when nobody says that there are some
    #[arg(long, env, default_value = "1s", value_parser = humantime::parse_duration)]
    pub dispatch_interval: Duration,
    /// Jobs of one stage that may be out at a time
    #[arg(long, env, default_value_t = 1000)]
    pub dispatch_depth: u32,
    /// Jobs picked in one statement
    #[arg(long, env, default_value_t = 500)]
    pub dispatch_batch: u32,
    /// How often to follow submissions that no stage follows
    #[arg(long, env, default_value = "1m", value_parser = humantime::parse_duration)]
    pub sweep_interval: Duration,
    /// How often to read GhostCut's balance
    #[arg(long, env, default_value = "5m", value_parser = humantime::parse_duration)]
    pub balance_interval: Duration,
    /// How often to count jobs and submissions for the metrics
    #[arg(long, env, default_value = "10s", value_parser = humantime::parse_duration)]
    pub gauge_interval: Duration,
    /// How often to look for rows that another application has put into `video_jobs`
    #[arg(long, env, default_value = "5s", value_parser = humantime::parse_duration)]
    pub adopt_interval: Duration,
    /// Such a row is taken while it was written to within this time, so that forgotten ones are not paid for; `0s` takes none
    #[arg(long, env, default_value = "1h", value_parser = humantime::parse_duration)]
    pub adopt_within: Duration,
}

/// Audits on a timer.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Audit")]
pub struct AuditConfig {
    /// How often the ledger is compared with the vendors' lists; `0s` for never
    #[arg(long, env, default_value = "1h", value_parser = humantime::parse_duration)]
    pub audit_interval: Duration,
    /// How far back that goes
    #[arg(long, env, default_value = "24h", value_parser = humantime::parse_duration)]
    pub audit_lookback: Duration,
}

/// How often what is old is removed.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Retention")]
pub struct RetentionTimer {
    /// How often to remove what is old; `0s` for never
    #[arg(long, env, default_value = "1h", value_parser = humantime::parse_duration)]
    pub retention_interval: Duration,
}

/// How old what is removed has to be. The operators' trail, and what proves payments, stay for ever.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Retention")]
pub struct RetentionConfig {
    /// Trail of jobs, from the end of the job on (30d or more); `off` keeps it, as for all of these
    #[arg(long, env, default_value = "90d", value_parser = keep_trail)]
    pub retain_events: Keep,
    /// Bytes of requests in the ledger, from the end of the submission on; their hashes stay
    #[arg(long, env, default_value = "30d", value_parser = keep)]
    pub retain_request_bodies: Keep,
    /// Callbacks, from when they were processed on
    #[arg(long, env, default_value = "90d", value_parser = keep)]
    pub retain_callbacks: Keep,
    /// Dead letters, from when somebody replayed or discarded them on; notes on groups that have none open, from when they were written on
    #[arg(long, env, default_value = "90d", value_parser = keep)]
    pub retain_dead_letters: Keep,
    /// Idempotency keys; after that the same key makes a new job
    #[arg(long, env, default_value = "365d", value_parser = keep)]
    pub retain_idempotency_keys: Keep,
    /// Audits; the last one that was finished stays
    #[arg(long, env, default_value = "365d", value_parser = keep)]
    pub retain_audits: Keep,
    /// Sessions of browsers, from their end on
    #[arg(long, env, default_value = "1d", value_parser = keep)]
    pub retain_sessions: Keep,
    /// Notices, from when they were delivered, refused or given up on
    #[arg(long, env, default_value = "30d", value_parser = keep)]
    pub retain_notices: Keep,
    /// Operations on many, from their end on
    #[arg(long, env, default_value = "90d", value_parser = keep)]
    pub retain_operations: Keep,
    /// Sources of single submissions in the bucket, from the end of the submission on
    #[arg(long, env, default_value = "7d", value_parser = keep)]
    pub retain_sources: Keep,
    /// Multipart uploads of the fleet that nobody completes, from their begin on
    #[arg(long, env, default_value = "2d", value_parser = keep)]
    pub retain_uploads: Keep,
}

/// For how long something is kept; none for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keep(pub Option<Duration>);

/// A day: below it, what is removed may still be needed by what is under way.
const SHORTEST_DAYS: u64 = 1;
/// Of the trail: what operators look at after an incident.
const SHORTEST_TRAIL_DAYS: u64 = 30;

fn keep(text: &str) -> Result<Keep, String> {
    keep_days(text, SHORTEST_DAYS)
}

fn keep_trail(text: &str) -> Result<Keep, String> {
    keep_days(text, SHORTEST_TRAIL_DAYS)
}

fn keep_days(text: &str, shortest: u64) -> Result<Keep, String> {
    const DAY: u64 = 24 * 3600;
    if text == "off" {
        return Ok(Keep(None));
    }
    match humantime::parse_duration(text) {
        Ok(time) if (shortest * DAY..=36_500 * DAY).contains(&time.as_secs()) => {
            Ok(Keep(Some(time)))
        }
        _ => Err(format!(
            "must be a time such as `90d`, {shortest}d or more, or `off` to keep everything"
        )),
    }
}

impl RetentionConfig {
    /// For how long this kind is kept.
    #[must_use]
    pub const fn keep(&self, kind: Kind) -> Keep {
        match kind {
            Kind::Events => self.retain_events,
            Kind::RequestBodies => self.retain_request_bodies,
            Kind::Callbacks => self.retain_callbacks,
            Kind::DeadLetters | Kind::GroupNotes => self.retain_dead_letters,
            Kind::IdempotencyKeys => self.retain_idempotency_keys,
            Kind::Audits => self.retain_audits,
            Kind::Sessions => self.retain_sessions,
            Kind::Notices => self.retain_notices,
            Kind::Operations => self.retain_operations,
            Kind::Sources => self.retain_sources,
            Kind::Uploads => self.retain_uploads,
        }
    }
}

/// The HTTP API.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "HTTP API")]
pub struct HttpConfig {
    /// Address of the API; port 0 takes a free one and logs it. Until the first access token is made only this machine is
    /// answered, wherever it listens
    #[arg(long, env, default_value = "127.0.0.1:8080")]
    pub http_addr: SocketAddr,
    /// Largest request body in bytes
    #[arg(long, env, default_value_t = 256 * 1024)]
    pub http_max_body: usize,
    /// Segments a job may have; the plan at Sync.so says how many
    #[arg(long, env, default_value_t = 10, value_parser = clap::value_parser!(u8).range(1..=10))]
    pub max_segments: u8,
    /// Networks of proxies before the API, separated by commas, such as `10.1.0.0/16,2001:db8::/48`: what they say in
    /// `X-Forwarded-For` is believed, so that wrong tokens are counted for the client and not for the proxy. One on this machine
    /// is always
    #[arg(long, env, value_delimiter = ',', value_parser = network)]
    pub trusted_proxies: Vec<IpNet>,
}

fn network(text: &str) -> Result<IpNet, String> {
    let text = text.trim();
    let alone = || {
        text.parse()
            .ok()
            .map(|address: IpAddr| IpNet::from(address))
    };
    let network = text.parse().ok().or_else(alone);
    network.ok_or_else(|| "must be a network such as `10.1.0.0/16`, or an address".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_has_a_shortest_time_and_may_be_everything() {
        assert_eq!(keep("off"), Ok(Keep(None)));
        let days = |days: u64| Ok(Keep(Some(Duration::from_secs(days * 24 * 3600))));
        assert_eq!(keep("36h"), Ok(Keep(Some(Duration::from_secs(36 * 3600)))));
        assert_eq!((keep("1d"), keep_trail("30d")), (days(1), days(30)));
        for wrong in ["", "23h", "0s", "never", "90", "101years"] {
            assert!(keep(wrong).unwrap_err().contains("1d or more"), "{wrong}");
        }
        assert!(keep_trail("29d").unwrap_err().contains("30d or more"));
    }
}
