//! `producer operations start`.

use std::process::ExitCode;

use clap::builder::{PossibleValuesParser, TypedValueParser as _};
use shared::config::DatabaseConfig;
use shared::db::{Db, JobFilter, LetterFilter, RestartOrder};
use shared::domain::bulk::BulkAction;

use super::show::shown;
use crate::bulk::{self, Begun, Counted, RETRIED, Selection, Wanted, may_be_retried};
use crate::cli::attempts::AttemptArgs;
use crate::cli::exit::Usage;
use crate::cli::operator::PreviewOperatorArgs;
use crate::cli::output::OutputArgs;
use crate::web::{Fault, SelectionDocument, set_job_filter, set_letter_filter};

const EXAMPLES: &str = "Examples:
  See first what it is about:   producer operations start cancel --filter user_id=7b0c… --preview
  Cancel a user's jobs:         producer operations start cancel --filter user_id=7b0c… --reason 'account closed' --wait
  Retry an hour's failures:     producer operations start retry --filter error_code=input_unreadable \\
                                  --filter created_from=2026-11-22T16:00:00Z --reason 'the bucket is back'
  Replay behind canaries:       producer operations start replay --all --canary --per-minute 60 --reason 'the vendor is back'

Filters of jobs: user_id, status, stage, state, reason, vendor, error_code, text, created_from, created_before. Of dead letters:
stage, reason, class, since, job, user. A cancel is of jobs that are not over, a resume of parked ones and of those that wait for
their time unless `state` says which, a retry of failed ones unless status=canceled. A running `producer serve` carries it out; this command may end meanwhile. Exit status: 0 it goes on (with --wait:
done, or waiting for a look at its canaries), 1 refused, stopped or failed.";

/// Do something to many jobs or dead letters
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct StartArgs {
    /// What to do to each
    #[arg(value_parser = PossibleValuesParser::new(BulkAction::ALL.iter().map(|word| word.as_str()))
        .try_map(|word| word.parse::<BulkAction>()))]
    pub action: BulkAction,
    /// Which; every filter that is given has to fit
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair)]
    pub filter: Vec<(String, String)>,
    /// Everything that the action can be done to
    #[arg(long)]
    pub all: bool,
    /// Only say how many there are and what would become of them
    #[arg(long)]
    pub preview: bool,
    /// How many there should be; refused if it is more than a tenth off
    #[arg(long, value_name = "N")]
    pub expect: Option<u64>,
    /// Replay one of each group first, then wait for `producer operations continue`
    #[arg(long)]
    pub canary: bool,
    /// Change at most so many in a minute
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(i32::MAX)))]
    pub per_minute: Option<u32>,
    /// Follow it until it is over or waits for a person
    #[arg(long)]
    pub wait: bool,
    /// Paid attempts.
    #[command(flatten)]
    pub attempts: AttemptArgs,
    /// Who and why.
    #[command(flatten)]
    pub operator: PreviewOperatorArgs,
    /// Output.
    #[command(flatten)]
    pub output: OutputArgs,
    /// Database.
    #[command(flatten)]
    pub database: DatabaseConfig,
}

fn pair(text: &str) -> Result<(String, String), String> {
    let pair = text
        .split_once('=')
        .map(|(name, value)| (name.to_owned(), value.to_owned()));
    pair.ok_or_else(|| "must be NAME=VALUE".to_owned())
}

impl StartArgs {
    fn selection(&self) -> anyhow::Result<Selection> {
        anyhow::ensure!(
            self.all == self.filter.is_empty(),
            Usage("give either filters or --all".to_owned())
        );
        anyhow::ensure!(
            !self.canary || self.action == BulkAction::Replay,
            Usage("only a replay has canaries".to_owned())
        );
        let (mut jobs, mut letters) = (JobFilter::default(), LetterFilter::default());
        for (name, value) in &self.filter {
            let set: Result<(), Fault> = if self.action.is_of_letters() {
                set_letter_filter(&mut letters, name, value)
            } else {
                set_job_filter(&mut jobs, name, value)
            };
            set.map_err(|(_, message)| Usage(format!("the filter `{name}` {message}")))?;
        }
        anyhow::ensure!(
            !letters.closed,
            Usage("closed dead letters are neither replayed nor discarded".to_owned())
        );
        let retried = self.action == BulkAction::Retry;
        let status = jobs
            .status
            .filter(|status| retried && !may_be_retried(*status));
        anyhow::ensure!(
            status.is_none(),
            Usage(format!("the filter `status` {RETRIED}"))
        );
        Ok(Selection::for_action(self.action, jobs, letters))
    }
}

pub(super) async fn run(args: StartArgs) -> anyhow::Result<ExitCode> {
    let wanted = Wanted {
        action: args.action,
        selection: args.selection()?,
        order: RestartOrder {
            by: args.operator.by.clone(),
            reason: args.operator.reason.clone().unwrap_or_default(),
            operation: None,
            another_attempt: args.attempts.another_attempt,
        },
        canary: args.canary,
        per_minute: args.per_minute,
        expect: args.expect,
    };
    let db = Db::new(&args.database)?;
    if args.preview {
        let Counted {
            count,
            capped,
            tally,
        } = bulk::count(&db, &wanted).await?;
        let document = SelectionDocument {
            count,
            capped,
            tally,
        };
        args.output.print(&document, human)?;
        return Ok(ExitCode::SUCCESS);
    }
    match bulk::begin(&db, wanted).await? {
        Begun::Yes(id) => shown(&db, id, args.wait, args.output).await,
        Begun::Differs { expected, count } => {
            anyhow::bail!("nothing is done: {expected} were expected and {count} are there")
        }
        Begun::TooManyGroups => {
            anyhow::bail!("nothing is done: too many groups for canaries, narrow the filter")
        }
    }
}

fn human(document: &SelectionDocument) -> String {
    let at_least = if document.capped { "at least " } else { "" };
    let mut lines = vec![match document.count {
        0 => "nothing fits".to_owned(),
        1 => "1 fits".to_owned(),
        count => format!("{at_least}{count} fit"),
    }];
    lines.extend(
        document
            .tally
            .iter()
            .flat_map(|tally| tally.lines("that are found")),
    );
    lines.join("\n")
}
