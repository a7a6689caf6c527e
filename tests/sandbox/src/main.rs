//! `sandbox`: starts the simulators, tells where they are, runs until told to stop.

use std::io::Write as _;
use std::path::PathBuf;

use anyhow::Context;
use clap::{Parser, ValueEnum};
use sandbox::{
    Credentials, GhostCutSettings, Ports, Sandbox, SandboxConfig, Settings, SyncSettings,
};
use tokio::signal::unix::{SignalKind, signal};

/// Simulators of Sync.so and GhostCut and an S3 server, on 127.0.0.1.
///
/// Prints the endpoints and credentials a client needs, then runs until SIGTERM or SIGINT.
/// Its own variables begin with SANDBOX_, so that real keys in the environment are never picked up.
/// Accepted (paid) works, fault rules and settings are served by the control API: GET `$SANDBOX_CONTROL_URL/control` lists its routes, `tests/sandbox/README.md` has examples.
#[derive(Parser)]
#[command(version)]
struct Args {
    /// Port of the Sync.so API; 0 takes a free one.
    #[arg(long, env = "SANDBOX_SYNC_PORT", default_value_t = 0)]
    sync_port: u16,
    /// Port of the GhostCut API; 0 takes a free one.
    #[arg(long, env = "SANDBOX_GHOSTCUT_PORT", default_value_t = 0)]
    ghostcut_port: u16,
    /// Port of the S3 API; 0 takes a free one.
    #[arg(long, env = "SANDBOX_S3_PORT", default_value_t = 0)]
    s3_port: u16,
    /// Port of result files and samples; 0 takes a free one.
    #[arg(long, env = "SANDBOX_MEDIA_PORT", default_value_t = 0)]
    media_port: u16,
    /// Port of the control API; 0 takes a free one.
    #[arg(long, env = "SANDBOX_CONTROL_PORT", default_value_t = 0)]
    control_port: u16,

    /// Sync.so API key to accept.
    #[arg(long, env = "SANDBOX_SYNC_API_KEY", default_value_t = Credentials::default().sync_api_key, hide_env_values = true)]
    sync_api_key: String,
    /// Secret that signs Sync.so webhooks.
    #[arg(long, env = "SANDBOX_SYNC_WEBHOOK_SECRET", default_value_t = Credentials::default().sync_webhook_secret, hide_env_values = true)]
    sync_webhook_secret: String,
    /// GhostCut AppKey to accept.
    #[arg(long, env = "SANDBOX_GHOSTCUT_API_KEY", default_value_t = Credentials::default().ghostcut_key, hide_env_values = true)]
    ghostcut_api_key: String,
    /// Secret behind AppSign and Callback-Sign.
    #[arg(long, env = "SANDBOX_GHOSTCUT_APP_SECRET", default_value_t = Credentials::default().ghostcut_secret, hide_env_values = true)]
    ghostcut_app_secret: String,
    /// GhostCut sub-user to announce.
    #[arg(long, env = "SANDBOX_GHOSTCUT_UID", default_value_t = Credentials::default().ghostcut_uid)]
    ghostcut_uid: String,
    /// S3 access key id to accept.
    #[arg(long, env = "SANDBOX_S3_ACCESS_KEY", default_value_t = Credentials::default().s3_access_key, hide_env_values = true)]
    s3_access_key: String,
    /// S3 secret access key to accept.
    #[arg(long, env = "SANDBOX_S3_SECRET_KEY", default_value_t = Credentials::default().s3_secret_key, hide_env_values = true)]
    s3_secret_key: String,
    /// S3 region to announce.
    #[arg(long, env = "SANDBOX_S3_REGION", default_value = "us-east-1")]
    region: String,
    /// Bucket to make; repeat for more, the first is announced.
    #[arg(
        long = "bucket",
        env = "SANDBOX_S3_BUCKETS",
        default_value = "sandbox",
        value_delimiter = ','
    )]
    buckets: Vec<String>,

    /// Folder for objects and fetched inputs; without it a temporary one, removed at the end.
    #[arg(long, env = "SANDBOX_DATA_DIR")]
    data_dir: Option<PathBuf>,
    /// Shortest processing time of a work, milliseconds.
    #[arg(long, env = "SANDBOX_PROCESS_MS_MIN", default_value_t = 1_000)]
    process_ms_min: u64,
    /// Longest processing time of a work, milliseconds.
    #[arg(long, env = "SANDBOX_PROCESS_MS_MAX", default_value_t = 3_000)]
    process_ms_max: u64,
    /// Grow each result to at least this many bytes.
    #[arg(long, env = "SANDBOX_RESULT_BYTES", default_value_t = 0)]
    result_bytes: u64,
    /// Sync.so plan slots (PENDING + PROCESSING at once); without it no limit.
    #[arg(long, env = "SANDBOX_PLAN_SLOTS")]
    plan_slots: Option<u32>,
    /// Pause before GhostCut repeats a failed callback, milliseconds.
    #[arg(long, env = "SANDBOX_CALLBACK_RETRY_MS", default_value_t = 30 * 60_000)]
    callback_retry_ms: u64,
    /// Seed of durations and fault probabilities.
    #[arg(long, env = "SANDBOX_SEED", default_value_t = 1)]
    seed: u64,
    /// How to print endpoints and credentials.
    #[arg(long, value_enum, default_value_t = Print::Json)]
    print: Print,
}

#[derive(Clone, Copy, ValueEnum)]
enum Print {
    /// One JSON object on one line.
    Json,
    /// `export NAME='value'` lines for a shell.
    Export,
}

impl Args {
    fn config(self) -> SandboxConfig {
        let process_ms = (
            self.process_ms_min,
            self.process_ms_max.max(self.process_ms_min),
        );
        SandboxConfig {
            ports: Ports {
                sync: self.sync_port,
                ghostcut: self.ghostcut_port,
                s3: self.s3_port,
                media: self.media_port,
                control: self.control_port,
            },
            credentials: Credentials {
                sync_api_key: self.sync_api_key,
                sync_webhook_secret: self.sync_webhook_secret,
                ghostcut_key: self.ghostcut_api_key,
                ghostcut_secret: self.ghostcut_app_secret,
                ghostcut_uid: self.ghostcut_uid,
                s3_access_key: self.s3_access_key,
                s3_secret_key: self.s3_secret_key,
            },
            region: self.region,
            buckets: self.buckets,
            data_dir: self.data_dir,
            seed: self.seed,
            settings: Settings {
                sync: SyncSettings {
                    process_ms,
                    plan_slots: self.plan_slots,
                    result_bytes: self.result_bytes,
                    ..SyncSettings::default()
                },
                ghostcut: GhostCutSettings {
                    process_ms,
                    callback_retry_ms: self.callback_retry_ms,
                    result_bytes: self.result_bytes,
                    ..GhostCutSettings::default()
                },
            },
        }
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt()
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_default_env()
                .unwrap_or_else(|_| "warn,s3s::ops=off".into()),
        )
        .with_writer(std::io::stderr)
        .init();
    let args = Args::parse();
    let print = args.print;
    // Before the announcement, so that whoever reads it may already signal.
    let mut terminate = signal(SignalKind::terminate()).context("SIGTERM handler")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT handler")?;
    let sandbox = Sandbox::start(args.config()).await?;
    announce(&sandbox, print).context("announcing the endpoints")?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    sandbox.stop().await;
    Ok(())
}

fn announce(sandbox: &Sandbox, print: Print) -> std::io::Result<()> {
    let environment = sandbox.environment();
    let mut out = std::io::stdout().lock();
    match print {
        Print::Json => {
            let object: serde_json::Map<_, _> = environment
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value.into()))
                .collect();
            writeln!(out, "{}", serde_json::Value::Object(object))?;
        }
        Print::Export => {
            for (name, value) in environment {
                writeln!(out, "export {name}='{}'", value.replace('\'', r"'\''"))?;
            }
        }
    }
    out.flush()
}
