//! Which jobs a command is about, and working through them piece by piece.

use std::process::ExitCode;

use chrono::{DateTime, Utc};
use clap::builder::{PossibleValuesParser, TypedValueParser as _};
use serde::Serialize;
use serde_json::json;
use shared::crash::{self, Point};
use shared::db::{Db, JobFilter};
use shared::domain::{JobStatus, Stage, StageState, Vendor};
use uuid::Uuid;

use crate::cli::exit::{Exit, Usage};
use crate::cli::output::{OutputArgs, table};
use crate::cli::progress;
use crate::cli::since::since;

/// Jobs in one transaction.
const PIECE: i64 = 100;

/// Filters; all that are given must fit.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Filters")]
pub struct FilterArgs {
    /// Only in this status
    #[arg(long, value_parser = PossibleValuesParser::new(JobStatus::ALL.iter().map(|word| word.as_str()))
        .try_map(|word| word.parse::<JobStatus>()))]
    pub status: Option<JobStatus>,
    /// Only where the next stage is in this state
    #[arg(long, value_parser = PossibleValuesParser::new(StageState::ALL.iter().map(|word| word.as_str()))
        .try_map(|word| word.parse::<StageState>()))]
    pub state: Option<StageState>,
    /// Only in this stage
    #[arg(long, value_parser = PossibleValuesParser::new(Stage::ALL.iter().map(|word| word.as_str()))
        .try_map(|word| word.parse::<Stage>()))]
    pub stage: Option<Stage>,
    /// Only parked or dead for this reason, such as `outcome_undecided`
    #[arg(long, value_name = "REASON")]
    pub with_reason: Option<String>,
    /// Only those with a submission at this vendor, whatever came of it
    #[arg(long, value_parser = PossibleValuesParser::new(Vendor::ALL.iter().map(|word| word.as_str()))
        .try_map(|word| word.parse::<Vendor>()))]
    pub vendor: Option<Vendor>,
    /// Only this user's
    #[arg(long, value_parser = crate::cli::id::id)]
    pub user: Option<Uuid>,
    /// Only those that failed with this error code, such as `input_unreadable`
    #[arg(long, value_name = "CODE")]
    pub error_code: Option<String>,
    /// Only those with this text in their names or error message
    #[arg(long)]
    pub text: Option<String>,
    /// Only those created since: `2h`, `3days`, or a time such as `2026-11-22T16:00:00Z`
    #[arg(long, value_parser = since)]
    pub since: Option<DateTime<Utc>>,
    /// Only those created before: as --since
    #[arg(long, value_name = "WHEN", value_parser = since)]
    pub before: Option<DateTime<Utc>>,
}

/// What a command that changes something is about.
#[derive(Clone, Debug, clap::Args)]
pub struct SelectionArgs {
    /// Ids of jobs
    #[arg(value_name = "ID", value_parser = crate::cli::id::id)]
    pub ids: Vec<Uuid>,
    /// Filters, instead of ids.
    #[command(flatten)]
    pub filter: FilterArgs,
}

impl FilterArgs {
    pub(super) fn filter(&self) -> JobFilter {
        JobFilter {
            user_id: self.user,
            status: self.status,
            stage: self.stage,
            state: self.state,
            reason: self.with_reason.clone(),
            vendor: self.vendor,
            error_code: self.error_code.clone(),
            text: self.text.clone(),
            created_from: self.since,
            created_before: self.before,
            ..JobFilter::default()
        }
    }

    fn is_empty(&self) -> bool {
        let Self {
            status,
            state,
            stage,
            with_reason,
            vendor,
            user,
            error_code,
            text,
            since,
            before,
        } = self;
        status.is_none()
            && state.is_none()
            && stage.is_none()
            && with_reason.is_none()
            && vendor.is_none()
            && user.is_none()
            && error_code.is_none()
            && text.is_none()
            && since.is_none()
            && before.is_none()
    }
}

impl SelectionArgs {
    /// Either ids or filters, and something of it: what is meant must be said.
    pub(super) fn check(&self) -> anyhow::Result<()> {
        if self.ids.is_empty() != self.filter.is_empty() {
            return Ok(());
        }
        let wanted = "give either ids of jobs or filters such as --state or --user";
        Err(Usage(wanted.to_owned()).into())
    }

    /// What the selection is, for the trail.
    pub(super) fn words(&self) -> serde_json::Value {
        let FilterArgs {
            status,
            state,
            stage,
            with_reason,
            vendor,
            user,
            error_code,
            text,
            since,
            before,
        } = &self.filter;
        json!({ "ids": self.ids, "status": status, "state": state, "stage": stage, "reason": with_reason,
            "vendor": vendor, "user": user, "error_code": error_code, "text": text, "since": since, "before": before })
    }

    /// Gives `each` the ids piece by piece. What it does to a job must not be undone by meeting the job again.
    pub(super) async fn pieces(
        &self,
        db: &Db,
        mut each: impl AsyncFnMut(&[Uuid]) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        if !self.ids.is_empty() {
            let bar = progress::bar(self.ids.len() as u64);
            for ids in self.ids.chunks(PIECE as usize) {
                each(ids).await?;
                crash::point(Point::JobsChanged);
                bar.inc(ids.len() as u64);
            }
            bar.finish_and_clear();
            return Ok(());
        }
        let counter = progress::counter("jobs looked at");
        let (filter, mut before) = (self.filter.filter(), None);
        loop {
            let (places, next) = db.job_places(&filter, before, PIECE).await?;
            let ids: Vec<Uuid> = places.iter().map(|place| place.id).collect();
            each(&ids).await?;
            crash::point(Point::JobsChanged);
            counter.inc(ids.len() as u64);
            if next.is_none() {
                counter.finish_and_clear();
                return Ok(());
            }
            before = next;
        }
    }
}

/// What became of a job.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Line {
    pub(super) job: Uuid,
    /// Whether it is now as was asked for.
    pub(super) done: bool,
    /// Whether there is no such job.
    pub(super) missing: bool,
    /// In words.
    pub(super) outcome: String,
}

/// Prints them, and says by the exit code whether all are as was asked for.
pub(super) fn report(output: OutputArgs, lines: &[Line]) -> anyhow::Result<ExitCode> {
    output.print(&json!({ "jobs": lines }), |_| {
        if lines.is_empty() {
            return "no such jobs".to_owned();
        }
        table(
            ["JOB", "OUTCOME"],
            lines
                .iter()
                .map(|line| [line.job.to_string(), line.outcome.clone()]),
        )
    })?;
    let is_nothing_there = !lines.is_empty() && lines.iter().all(|line| line.missing);
    let exit = if is_nothing_there {
        Exit::NotFound
    } else {
        Exit::done_if(lines.iter().all(|line| line.done))
    };
    Ok(exit.into())
}
