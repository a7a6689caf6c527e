//! `producer notices`: what submitters were told about the end of their jobs, and telling them again.

use std::process::ExitCode;

use clap::Subcommand;
use serde_json::json;
use shared::config::DatabaseConfig;
use shared::db::{Db, NoticeFilter, NoticeReplayed};
use shared::domain::notice::NoticeState;
use uuid::Uuid;

use super::exit::{Exit, NotFound, Usage};
use super::operator::OperatorArgs;
use super::output::{OutputArgs, table};
use crate::times::told;
use crate::web::NoticeDocument;

const EXAMPLES: &str = "Examples:
  What nobody has taken:        producer notices list --state given_up
  What was told about a job:    producer notices list --job 7b0c6c7e-0f8b-4a1e-9d0a-0f8b00000001
  Send one again:               producer notices replay 0198f0c2-0f8b-4a1e-9d0a-0f8b00000002 --reason 'their server is back'
  Send all of them again:       producer notices replay --state given_up --reason 'their server is back'

  How one was answered:         producer notices show 0198f0c2-0f8b-4a1e-9d0a-0f8b00000002

Exit status: 0 done, 3 there is no such notice.";

/// The commands.
#[derive(Debug, Subcommand)]
#[command(after_help = EXAMPLES)]
pub enum NoticesCommand {
    /// List notices, newest first
    List(ListArgs),
    /// Show one notice
    Show(ShowArgs),
    /// Send notices again, under the same ids
    Replay(ReplayArgs),
}

/// Listing notices.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct ListArgs {
    /// Only in this state: waiting, delivered, refused or given_up
    #[arg(long)]
    pub state: Option<NoticeState>,
    /// Only of this job
    #[arg(long)]
    pub job: Option<Uuid>,
    /// At most so many
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(i64).range(1..=10_000))]
    pub limit: i64,
    /// Output.
    #[command(flatten)]
    pub output: OutputArgs,
    /// Database.
    #[command(flatten)]
    pub database: DatabaseConfig,
}

/// Showing a notice.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct ShowArgs {
    /// The notice
    pub id: Uuid,
    /// Output.
    #[command(flatten)]
    pub output: OutputArgs,
    /// Database.
    #[command(flatten)]
    pub database: DatabaseConfig,
}

/// Sending notices again.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct ReplayArgs {
    /// The notices
    #[arg(required_unless_present = "state")]
    pub ids: Vec<Uuid>,
    /// Instead: all in this state, refused or given_up
    #[arg(long, conflicts_with = "ids")]
    pub state: Option<NoticeState>,
    /// Who and why.
    #[command(flatten)]
    pub operator: OperatorArgs,
    /// Output.
    #[command(flatten)]
    pub output: OutputArgs,
    /// Database.
    #[command(flatten)]
    pub database: DatabaseConfig,
}

/// Notices that are read at a time.
const PAGE: i64 = 500;

/// Runs `producer notices …`.
///
/// # Errors
/// When the database cannot be used or a notice does not exist.
pub async fn run(command: NoticesCommand) -> anyhow::Result<ExitCode> {
    match command {
        NoticesCommand::List(args) => list(args).await,
        NoticesCommand::Show(args) => show(args).await,
        NoticesCommand::Replay(args) => replay(args).await,
    }
}

async fn list(args: ListArgs) -> anyhow::Result<ExitCode> {
    let filter = NoticeFilter {
        state: args.state,
        job: args.job,
        before: None,
        limit: args.limit,
    };
    let rows = Db::new(&args.database)?.notices(&filter).await?;
    let notices: Vec<NoticeDocument> = rows.into_iter().map(Into::into).collect();
    args.output.print(&json!({ "notices": notices }), |_| {
        if notices.is_empty() {
            return "no notices".to_owned();
        }
        let header = ["ID", "JOB", "JOB IS", "STATE", "TRIES", "NEXT", "LAST"];
        table(header, notices.iter().map(line))
    })?;
    Ok(ExitCode::SUCCESS)
}

fn line(notice: &NoticeDocument) -> [String; 7] {
    let next = notice.due_at.map(|at| told(at).to_string());
    let last = notice.last_error.clone();
    let last = last.or_else(|| notice.last_status.map(|status| status.to_string()));
    [
        notice.id.to_string(),
        notice.job_id.to_string(),
        notice.status.clone(),
        notice.state.clone(),
        notice.tries.to_string(),
        next.unwrap_or_else(|| "-".to_owned()),
        last.unwrap_or_else(|| "-".to_owned()),
    ]
}

async fn show(args: ShowArgs) -> anyhow::Result<ExitCode> {
    let row = Db::new(&args.database)?.notice(args.id).await?;
    let row = row.ok_or_else(|| NotFound(format!("there is no notice {}", args.id)))?;
    let notice = NoticeDocument::from(row);
    args.output.print(&notice, |notice| {
        let [.., state, tries, next, last] = line(notice);
        format!(
            "notice    {}\njob       {} ({})\nto        {}\nended     {}\nstate     {state}, {tries} tries\nnext      {next}\nlast      {last}",
            notice.id,
            notice.job_id,
            notice.status,
            notice.url,
            told(notice.created_at),
        )
    })?;
    Ok(ExitCode::SUCCESS)
}

async fn replay(args: ReplayArgs) -> anyhow::Result<ExitCode> {
    let db = Db::new(&args.database)?;
    let (mut due, mut waiting, mut gone) = (0, 0, Vec::new());
    let mut ids = args.ids;
    let mut before = None;
    loop {
        if let Some(state) = args.state {
            if !matches!(state, NoticeState::Refused | NoticeState::GivenUp) {
                let why = "--state has to be refused or given_up; name the others one by one";
                return Err(Usage(why.to_owned()).into());
            }
            let filter = NoticeFilter {
                state: Some(state),
                job: None,
                before,
                limit: PAGE,
            };
            let rows = db.notices(&filter).await?;
            before = rows.last().map(|row| (row.created_at, row.id));
            ids = rows.into_iter().map(|row| row.id).collect();
        }
        for id in &ids {
            let (by, reason) = (&args.operator.by, &args.operator.reason);
            match db.replay_notice(*id, by, reason).await? {
                NoticeReplayed::Due => due += 1,
                NoticeReplayed::Waiting => waiting += 1,
                NoticeReplayed::Gone => gone.push(*id),
            }
        }
        if args.state.is_none() || ids.is_empty() {
            break;
        }
    }
    let document = json!({ "replayed": due, "waiting_anyway": waiting, "not_found": gone });
    args.output.print(&document, |_| {
        let mut text = format!("{due} sent again, {waiting} wait to be sent anyway");
        for id in &gone {
            text += &format!("\nthere is no notice {id}");
        }
        text
    })?;
    Ok(if gone.is_empty() {
        Exit::Done.into()
    } else {
        Exit::NotFound.into()
    })
}
