//! Which dead letters a command is about.

use chrono::{DateTime, Utc};
use clap::builder::PossibleValuesParser;
use shared::db::{Db, LetterFilter};
use shared::domain::Stage;
use uuid::Uuid;

use crate::cli::exit::{NotFound, Usage};
use crate::cli::since::since;
use crate::replay;

/// Filters; all that are given must fit.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Filters")]
pub struct FilterArgs {
    /// Only of this stage; `unknown` are messages from elsewhere
    #[arg(long, value_parser = stages())]
    pub stage: Option<String>,
    /// Only with this reason, such as `tries_exhausted` or `undecidable`
    #[arg(long, value_name = "REASON")]
    pub with_reason: Option<String>,
    /// Only with this normalised error, word for word as `list` shows it
    #[arg(long, value_name = "ERROR")]
    pub class: Option<String>,
    /// Only those received since: `2h`, `3days`, or a time such as `2026-11-22T16:00:00Z`
    #[arg(long, value_parser = since)]
    pub since: Option<DateTime<Utc>>,
    /// Only of this job
    #[arg(long, value_parser = crate::cli::id::id)]
    pub job: Option<Uuid>,
    /// Only of this user's jobs
    #[arg(long, value_parser = crate::cli::id::id)]
    pub user: Option<Uuid>,
}

/// What a command that changes something is about.
#[derive(Clone, Debug, clap::Args)]
pub struct SelectionArgs {
    /// Numbers of dead letters
    #[arg(value_name = "ID")]
    pub ids: Vec<i64>,
    /// Every open dead letter, or every one that the filters let through
    #[arg(long)]
    pub all: bool,
    /// Filters.
    #[command(flatten)]
    pub filter: FilterArgs,
}

fn stages() -> PossibleValuesParser {
    let words = Stage::ALL.iter().map(|stage| stage.as_str());
    PossibleValuesParser::new(words.chain(["unknown"]))
}

impl FilterArgs {
    pub(super) fn filter(self) -> LetterFilter {
        LetterFilter {
            stage: self.stage,
            reason: self.with_reason,
            class: self.class,
            since: self.since,
            job: self.job,
            user: self.user,
            ..LetterFilter::default()
        }
    }
}

impl SelectionArgs {
    /// The filter, if it names something: an empty one must be meant.
    pub(super) fn filter(self) -> anyhow::Result<LetterFilter> {
        let filter = LetterFilter {
            ids: self.ids,
            ..self.filter.filter()
        };
        if self.all || filter != LetterFilter::default() {
            return Ok(filter);
        }
        let wanted =
            "name dead letters by ID, give a filter such as --stage or --class, or say --all";
        Err(Usage(wanted.to_owned()).into())
    }
}

/// Refuses numbers of letters that do not exist or are closed.
pub(super) async fn are_open(db: &Db, filter: &LetterFilter) -> anyhow::Result<()> {
    let not_open = replay::not_open(db, filter).await?;
    let told: Vec<_> = not_open.iter().map(ToString::to_string).collect();
    let told = format!("nothing is done: {}", told.join(", "));
    if not_open.iter().any(|letter| letter.closed.is_none()) {
        return Err(NotFound(told).into());
    }
    anyhow::ensure!(not_open.is_empty(), told);
    Ok(())
}
