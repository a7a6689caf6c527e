//! `producer submit`: local files to the bucket, a job into the database, and a progress bar until it ends.
//!
//! Jobs go in through [`Intake`], like those of the HTTP API. Everything is checked before the first byte is sent.

mod display;
mod draft;
mod follow;
mod lines;
mod local;
mod report;

use std::io::Write as _;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::builder::PossibleValuesParser;
use display::Display;
use draft::{Draft, Fault};
use follow::Watched;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use report::Report;
use serde_json::Value;
use shared::config::{DatabaseConfig, FetchConfig, IntakeProbe, StorageConfig};
use shared::db::{Created, Db};
use shared::domain::fields::FieldError;
use shared::storage::{Fetcher, Storage};
use shared::telemetry::chain;
use uuid::Uuid;

use super::exit::Exit;
use crate::config::NoticeSecrets;
use crate::intake::{CallbackRule, INTAKE, Intake, IntakeError};

/// Jobs that are uploaded and stored at the same time. An upload holds up to 16 MiB.
const AT_ONCE: usize = 4;

const EXAMPLES: &str = r#"Examples:
  Lip-sync one audio file into the first ten seconds:
    producer submit talk.mp4 voice.wav --user-id 7b0c6c7e-0f8b-4a1e-9d0a-0f8b00000001 \
      --segments '[{"startTime":0,"endTime":10,"audioInput":{"refId":"voice"}}]'

  Two audio files, named by the refIds of the segments, and text removed as the file says:
    producer submit talk.mp4 intro=a.wav outro=b.wav --user-id "$USER_ID" \
      --segments segments.json --effects effects.json

  Many jobs, one JSON object a line as POST /v1/jobs takes it:
    producer submit --jobs jobs.jsonl
    {"user_id":"…","video_url":"talk.mp4","audio":{"a":"file:voice.wav"},"segments":[…],"idempotency_key":"42"}

Exit status: 0 every job completed (with --no-follow: was stored), 1 not so, 2 the arguments or a job were wrong
and nothing was stored, 4 database or bucket failed before anything was stored."#;

/// Upload files, create jobs and follow them
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct SubmitArgs {
    /// The video, then the audio files: in the order in which the segments first name their refIds, or as refId=FILE.
    /// A URL (https://, s3://) is taken as it is
    #[arg(
        value_name = "FILE",
        required_unless_present = "jobs",
        conflicts_with = "jobs"
    )]
    pub files: Vec<String>,
    /// Owner of the job
    #[arg(long, required_unless_present = "jobs", conflicts_with = "jobs")]
    pub user_id: Option<Uuid>,
    /// Segments as a JSON list, or the file that has it
    #[arg(long, value_name = "FILE|JSON", conflicts_with = "jobs")]
    pub segments: Option<String>,
    /// Effects as a JSON list, or the file that has it
    #[arg(long, value_name = "FILE|JSON", conflicts_with = "jobs")]
    pub effects: Option<String>,
    /// Name to show for the job
    #[arg(long, conflicts_with = "jobs")]
    pub display_name: Option<String>,
    /// How soon compared with other jobs
    #[arg(long, conflicts_with = "jobs", value_parser = PossibleValuesParser::new(["low", "normal", "high"]))]
    pub priority: Option<String>,
    /// Told by a signed POST when the job ends; only with NOTICE_SECRET, which the service signs with
    #[arg(long, value_name = "URL", conflicts_with = "jobs")]
    pub callback_url: Option<String>,
    /// File of jobs, one JSON object a line; `-` reads standard input. Paths in it count from the current folder
    #[arg(long, value_name = "FILE")]
    pub jobs: Option<String>,
    /// Store the jobs and leave
    #[arg(long)]
    pub no_follow: bool,
    /// Print jobs as JSON, one a line
    #[arg(long)]
    pub json: bool,
    /// Segments a job may have; the plan at Sync.so says how many
    #[arg(long, env, default_value_t = 10, value_parser = clap::value_parser!(u8).range(1..=10))]
    pub max_segments: u8,
    /// Database.
    #[command(flatten)]
    pub database: DatabaseConfig,
    /// Object storage.
    #[command(flatten)]
    pub storage: StorageConfig,
    /// Asking for files that are elsewhere.
    #[command(flatten)]
    pub fetch: FetchConfig,
    /// Looking at files.
    #[command(flatten)]
    pub probe: IntakeProbe,
    /// Whether notices are signed.
    #[command(flatten)]
    pub secrets: NoticeSecrets,
}

/// Runs `producer submit`.
///
/// # Errors
/// When the database or the object store cannot be used. What a job came to is in the exit code.
pub async fn submit(args: SubmitArgs) -> anyhow::Result<ExitCode> {
    let callbacks = CallbackRule {
        signed: args.secrets.notice_secret.is_some(),
        allow_private: args.fetch.fetch_allow_private,
    };
    let intake = Intake {
        db: Db::new(&args.database)?,
        storage: Storage::new(&args.storage)?,
        fetcher: Fetcher::new(&args.fetch)?,
        probe: args.probe,
        max_segments: args.max_segments.into(),
        callbacks,
    };
    let (mut drafts, faults) = match read(&args, intake.storage.bucket()).await {
        Ok(read) => read,
        Err(message) => return refuse(&[message]),
    };
    let faults = check(&intake, &mut drafts, faults).await?;
    if !faults.is_empty() {
        let texts: Vec<_> = faults.iter().map(Fault::to_string).collect();
        return refuse(&texts);
    }
    let answers = intake.db.ping().await;
    answers.context("the database is away; nothing was stored")?;
    let display = Display::new(args.jobs.is_some().then_some(drafts.len()));
    let mut reports: Vec<Report> = stream::iter(&drafts)
        .map(|draft| store(&intake, &display, draft))
        .buffered(AT_ONCE)
        .collect()
        .await;
    let watched: Vec<&mut Watched> = reports
        .iter_mut()
        .filter_map(|report| report.outcome.as_mut().ok())
        .collect();
    follow::follow(&intake.db, &display, watched, !args.no_follow).await?;
    display.finish();
    report::print(&mut std::io::stdout().lock(), &reports, args.json)?;
    let good = reports.iter().all(|report| report.is_good(!args.no_follow));
    Ok(if good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// The jobs to submit and what is wrong with them already, or why there are none.
async fn read(args: &SubmitArgs, bucket: &str) -> Result<(Vec<Draft>, Vec<Fault>), String> {
    let mut faults = Vec::new();
    let mut drafts = Vec::new();
    match &args.jobs {
        Some(file) => {
            let text = local::read_text(file).await?;
            for (line, read) in lines::read(&text) {
                match read {
                    Ok(line) => drafts.push(Draft::new(line, bucket, &mut faults).await),
                    Err(error) => faults.push(Fault {
                        line: Some(line),
                        error,
                    }),
                }
            }
            if drafts.is_empty() && faults.is_empty() {
                return Err(format!("{file}: has no jobs"));
            }
        }
        None => {
            let segments = list("--segments", args.segments.as_deref()).await?;
            let effects = list("--effects", args.effects.as_deref()).await?;
            let request = draft::request(args, segments, effects)?;
            let line = lines::Line {
                request,
                ..lines::Line::default()
            };
            drafts.push(Draft::new(line, bucket, &mut faults).await);
        }
    }
    Ok((drafts, faults))
}

/// The JSON of an argument that holds it or names a file that does.
async fn list(argument: &str, value: Option<&str>) -> Result<Option<Value>, String> {
    let Some(value) = value else {
        return Ok(None);
    };
    let text = if value.trim_start().starts_with(['[', '{']) {
        value.to_owned()
    } else {
        local::read_text(value)
            .await
            .map_err(|error| format!("{argument}: {error}"))?
    };
    let parsed = serde_json::from_str(&text).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        format!("{argument}: is not JSON at line {line}, column {column}")
    })?;
    Ok(Some(parsed))
}

/// Everything that is wrong with the jobs, in the order of their lines. Finds out which of them are known already:
/// their files may be gone by now.
async fn check(
    intake: &Intake,
    drafts: &mut [Draft],
    mut faults: Vec<Fault>,
) -> anyhow::Result<Vec<Fault>> {
    let checked: Vec<_> = stream::iter(&*drafts)
        .map(|draft| check_one(intake, draft))
        .buffered(AT_ONCE)
        .try_collect()
        .await
        .context("the jobs could not be checked; nothing was stored")?;
    for (draft, checked) in drafts.iter_mut().zip(checked) {
        let line = draft.line;
        match checked {
            Checked::Good => {}
            Checked::Known(known) => {
                draft.known = Some(known);
                faults.retain(|fault| fault.line != line);
            }
            Checked::Faulty(errors) => {
                faults.extend(errors.into_iter().map(|error| Fault { line, error }));
            }
        }
    }
    faults.sort_by_key(|fault| fault.line);
    Ok(faults)
}

/// What is found of a job before it is stored.
enum Checked {
    Good,
    /// An earlier request under its key came to this.
    Known(Created),
    Faulty(Vec<FieldError>),
}

async fn check_one(intake: &Intake, draft: &Draft) -> Result<Checked, IntakeError> {
    let job = match intake.validate(&draft.request) {
        Ok(job) => job,
        Err(errors) => return Ok(Checked::Faulty(errors)),
    };
    if let Some(known) = intake.known(&job, draft.key.as_ref()).await? {
        return Ok(Checked::Known(known));
    }
    match intake.check_inputs(&job, |key| draft.upload_to(key)).await {
        Ok(_) => Ok(Checked::Good),
        Err(IntakeError::Invalid(errors)) => Ok(Checked::Faulty(errors)),
        Err(error) => Err(error),
    }
}

/// Uploads the files of a job and stores it, unless it is known.
async fn store(intake: &Intake, display: &Display, draft: &Draft) -> Report {
    let created = match draft.known {
        Some(known) => Ok(known),
        None => upload_and_create(intake, display, draft).await,
    };
    let outcome = match created {
        Ok(Created::New(id)) => Ok(Watched::new(draft.line, id)),
        Ok(Created::Existing(id)) => {
            display.note(&draft.named(&format!("the same request made job {id} before")));
            Ok(Watched::new(draft.line, id))
        }
        Ok(Created::KeyTaken(id)) => Err(format!(
            "another request under its idempotency_key made job {id}"
        )),
        Err(StoreError::Upload(message)) => Err(message),
        Err(StoreError::Intake(IntakeError::Invalid(faults))) => {
            let faults: Vec<_> = faults.iter().map(ToString::to_string).collect();
            Err(faults.join("; "))
        }
        Err(StoreError::Intake(error)) => Err(chain(&error)),
    };
    if let Err(error) = &outcome {
        display.note(&draft.named(error));
    }
    Report {
        line: draft.line,
        outcome,
    }
}

/// Why a job was not stored.
enum StoreError {
    /// A file could not be uploaded.
    Upload(String),
    /// The job was not taken.
    Intake(IntakeError),
}

/// What was uploaded for a job that was not stored is deleted again.
async fn upload_and_create(
    intake: &Intake,
    display: &Display,
    draft: &Draft,
) -> Result<Created, StoreError> {
    let created = async {
        for upload in &draft.uploads {
            let sent = upload.send(&intake.storage, display).await;
            sent.map_err(StoreError::Upload)?;
        }
        let created = intake.create(&draft.request, draft.key.as_ref(), draft.id, INTAKE);
        created.await.map_err(StoreError::Intake)
    }
    .await;
    let unused = match &created {
        Ok(Created::New(_)) => false,
        Ok(Created::Existing(_) | Created::KeyTaken(_)) => true,
        // Where the database failed the job may be stored.
        Err(error) => !matches!(error, StoreError::Intake(IntakeError::Database(_))),
    };
    if unused {
        for upload in &draft.uploads {
            if let Err(error) = intake.storage.delete(&upload.key.to_string()).await {
                tracing::warn!(key = %upload.key, %error, "an upload that no job needs was not deleted");
            }
        }
    }
    created
}

fn refuse(messages: &[String]) -> anyhow::Result<ExitCode> {
    let mut stderr = std::io::stderr().lock();
    for message in messages {
        writeln!(stderr, "error: {message}")?;
    }
    writeln!(stderr, "nothing was stored")?;
    Ok(Exit::Usage.into())
}

#[cfg(test)]
mod tests;
