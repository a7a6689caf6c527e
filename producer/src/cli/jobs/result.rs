//! `producer jobs result`.

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use futures::TryStreamExt as _;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;
use shared::config::{DatabaseConfig, StorageConfig};
use shared::db::Db;
use shared::storage::Storage;
use tokio::io::AsyncWriteExt as _;
use uuid::Uuid;

use crate::cli::exit::NotFound;
use crate::cli::output::OutputArgs;
use crate::config::ResultConfig;
use crate::results::{self, NoResult, Place};

const EXAMPLES: &str = "Examples:
  A link to give to somebody:  producer jobs result 7b0c6c7e-0f8b-4a1e-9d0a-0f8b00000001 --result-link-life 1d
  The file itself:             producer jobs result 7b0c6c7e-0f8b-4a1e-9d0a-0f8b00000001 --output result.mp4

Exit status: 0 done, 1 there is no result (yet), 3 there is no such job, 4 it could not be read.";

/// Print a link to the result of a job, or download it
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The job
    pub id: Uuid,
    /// Download the result into this file, which must not exist
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// How to print.
    #[command(flatten)]
    pub print: OutputArgs,
    /// How long the link lives.
    #[command(flatten)]
    pub results: ResultConfig,
    /// Database.
    #[command(flatten)]
    pub database: DatabaseConfig,
    /// Object storage.
    #[command(flatten)]
    pub storage: StorageConfig,
}

pub(super) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let db = Db::new(&args.database)?;
    let storage = Storage::new(&args.storage)?;
    let place = results::find(&db, &storage, args.id)
        .await
        .map_err(|error| match error {
            NoResult::NoJob(_) => anyhow::Error::new(NotFound(error.to_string())),
            other => other.into(),
        })?;
    let Some(file) = &args.output else {
        let link = results::link(&storage, place, args.results.result_link_life).await?;
        args.print.print(&link, |link| link.url.clone())?;
        return Ok(ExitCode::SUCCESS);
    };
    let (key, bytes) = match place {
        Place::Object { key, bytes } => (key, bytes),
        Place::Elsewhere(_) => anyhow::bail!(
            "the result is not in the bucket of the fleet: fetch it from the link that is printed without --output"
        ),
    };
    download(&storage, &key, bytes, file)
        .await
        .with_context(|| format!("cannot download to {}", file.display()))?;
    let document = json!({ "file": file, "bytes": bytes });
    args.print.print(&document, |_| {
        format!("{bytes} bytes in {}", file.display())
    })?;
    Ok(ExitCode::SUCCESS)
}

/// The file has its name only when it is whole.
async fn download(storage: &Storage, key: &str, bytes: u64, file: &Path) -> anyhow::Result<()> {
    anyhow::ensure!(!file.exists(), "the file is there already");
    let mut part = file.as_os_str().to_owned();
    part.push(".part");
    let part = PathBuf::from(part);
    let mut out = tokio::fs::File::create(&part).await?;
    let bar = progress(bytes);
    let mut body = storage.get(key, None).await?.body;
    let copied = async {
        while let Some(bytes) = body.try_next().await? {
            out.write_all(&bytes).await?;
            bar.inc(bytes.len() as u64);
        }
        out.sync_all().await?;
        Ok::<_, anyhow::Error>(())
    };
    let copied = copied.await;
    bar.finish_and_clear();
    if let Err(error) = copied {
        tokio::fs::remove_file(&part).await?;
        return Err(error);
    }
    tokio::fs::rename(&part, file).await?;
    Ok(())
}

fn progress(bytes: u64) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(
        Some(bytes),
        if std::io::stderr().is_terminal() {
            ProgressDrawTarget::stderr()
        } else {
            ProgressDrawTarget::hidden()
        },
    );
    let style =
        ProgressStyle::with_template("{bar:40} {bytes}/{total_bytes} {bytes_per_sec} {eta}");
    bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}
