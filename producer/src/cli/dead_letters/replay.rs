//! `producer dead-letters replay`: says what it will do, tries one of each group if asked to, then does it piece by piece.

use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use indicatif::ProgressBar;
use serde::Serialize;
use shared::config::DatabaseConfig;
use shared::db::{Db, LetterFilter, Pace, RestartOrder};
use shared::domain::Stage;
use shared::domain::bulk::Canary;
use shared::domain::resume::Refusal;
use uuid::Uuid;

use super::canary::{self, Verdict};
use super::selection::{SelectionArgs, are_open};
use crate::cli::attempts::AttemptArgs;
use crate::cli::exit::Exit;
use crate::cli::operator::OperatorArgs;
use crate::cli::output::OutputArgs;
use crate::cli::progress;
use crate::held::Holds;
use crate::replay::{self, PIECE, Tally};

const EXAMPLES: &str = "Examples:
  See first what it would do:   producer dead-letters preview --stage inpaint.store
  One letter:                   producer dead-letters replay 42 --reason 'the bucket is back'
  A group, carefully:           producer dead-letters replay --stage inpaint.store --class 'no route to <url cdn.example.com>' \\
                                  --canary --per-minute 30 --reason 'the bucket is back'

A replay never sends anything again by itself: the ledger decides what each job does next. It may be killed and simply be
run again. Exit status: 0 done, 1 nothing that was named could be replayed, or a canary did not pass
(its group was left alone); 3 there is no letter of that number.";

/// Groups looked at; more than anybody tells apart.
const GROUPS: i64 = 10_000;

/// Put the jobs of dead letters back on their way
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Which.
    #[command(flatten)]
    pub selection: SelectionArgs,
    /// Replay one letter of each group first, and the others only when its job got out of the stage it had died in
    #[arg(long)]
    pub canary: bool,
    /// How long to wait for a canary
    #[arg(long, default_value = "1h", value_parser = humantime::parse_duration)]
    pub canary_timeout: Duration,
    /// Make at most so many jobs due per minute
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub per_minute: Option<u32>,
    /// Paid attempts.
    #[command(flatten)]
    pub attempts: AttemptArgs,
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

/// What came of a replay.
#[derive(Debug, Default, Serialize)]
struct Report {
    replayed: Tally,
    /// Groups left alone, with why.
    stopped: Vec<Stopped>,
}

#[derive(Debug, Serialize)]
struct Stopped {
    stage: String,
    class: String,
    why: String,
}

struct Replay<'a> {
    db: &'a Db,
    order: RestartOrder,
    pace: Pace,
    canary_timeout: Duration,
    bar: ProgressBar,
    report: Report,
}

pub(super) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let is_all = args.selection.all;
    let filter = args.selection.filter()?;
    let db = Db::new(&args.database)?;
    are_open(&db, &filter).await?;
    // What dies again meanwhile is not replayed again.
    let filter = LetterFilter {
        upto: Some(db.newest_letter().await?),
        ..filter
    };
    let order = RestartOrder {
        by: args.operator.by.clone(),
        reason: args.operator.reason.clone(),
        operation: None,
        another_attempt: args.attempts.another_attempt,
    };
    let planned = replay::preview(&db, &filter, &order, u64::MAX).await?;
    for line in planned.lines("dead letters") {
        writeln!(std::io::stderr(), "{line}")?;
    }
    replay::note(
        &db,
        &order.by,
        &order.reason,
        "dead_letters_replayed",
        &filter,
    )
    .await?;
    let bar = progress::bar(planned.letters);
    let step = args
        .per_minute
        .map_or(Duration::ZERO, |n| Duration::from_secs(60) / n);
    let mut replay = Replay {
        db: &db,
        order,
        pace: Pace {
            next: Duration::ZERO,
            step,
        },
        canary_timeout: args.canary_timeout,
        bar,
        report: Report::default(),
    };
    let done = if args.canary {
        replay.by_group(&filter).await
    } else {
        replay.rest(&filter, 0).await
    };
    replay.bar.finish_and_clear();
    done.context("the replay broke off; run it again to go on")?;
    args.output
        .print(&replay.report, |report| human(report, planned.letters))?;
    let tally = &replay.report.replayed;
    // All of nothing is done; a name or filter that finds nothing is a slip.
    let did = tally.replayable > 0 || is_all && tally.letters == 0;
    Ok(Exit::done_if(replay.report.stopped.is_empty() && did).into())
}

impl Replay<'_> {
    /// One of each group, then, if its job got through, the others.
    async fn by_group(&mut self, filter: &LetterFilter) -> anyhow::Result<()> {
        for group in self.db.letter_groups(filter, None, GROUPS).await? {
            let of_group = LetterFilter {
                stage: Some(group.stage.clone()),
                class: Some(group.error_class.clone()),
                reason: Some(group.reason.clone()),
                ..filter.clone()
            };
            let (after, verdict) = self.canary(&of_group).await?;
            match verdict {
                Verdict::Passed => self.rest(&of_group, after).await?,
                Verdict::Stopped(why) => self.report.stopped.push(Stopped {
                    stage: group.stage,
                    class: group.error_class,
                    why,
                }),
            }
        }
        Ok(())
    }

    /// Replays the first letter of a group that can be, and waits for its job. Says where the group goes on.
    async fn canary(&mut self, group: &LetterFilter) -> anyhow::Result<(i64, Verdict)> {
        let mut after = 0;
        loop {
            let one = self.piece(group, after, 1).await?;
            let Some(replayed) = one.into_iter().next() else {
                return Ok((after, Verdict::Passed));
            };
            after = replayed.letter.id;
            if let (Ok(to), Some(job)) = (replayed.to, replayed.letter.job_id) {
                self.bar
                    .set_message(format!("waiting for the canary, job {job}"));
                self.tell_of_canary(job, to.stage).await?;
                let canary = Canary {
                    stage: replayed.letter.stage.unwrap_or_default(),
                    class: replayed.letter.error_class,
                    reason: replayed.letter.reason,
                    letter: after,
                    job,
                    put_into: to.stage,
                };
                let verdict = canary::watch(self.db, &canary, self.canary_timeout).await?;
                self.bar.set_message("");
                return Ok((after, verdict));
            }
        }
    }

    /// Also where no progress bar is drawn: it may take long, and for ever where nobody works.
    async fn tell_of_canary(&self, job: Uuid, stage: Stage) -> anyhow::Result<()> {
        let within = humantime::format_duration(self.canary_timeout);
        let mut told = format!("waiting up to {within} for the canary, job {job} in {stage}");
        if let Some(held) = Holds::read(self.db).await?.of(stage) {
            told += &format!("; it does not move: {}", held.sentence);
        }
        self.bar.suspend(|| writeln!(std::io::stderr(), "{told}"))?;
        Ok(())
    }

    async fn rest(&mut self, filter: &LetterFilter, mut after: i64) -> anyhow::Result<()> {
        loop {
            let piece = self.piece(filter, after, PIECE).await?;
            let Some(last) = piece.last() else {
                return Ok(());
            };
            after = last.letter.id;
        }
    }

    async fn piece(
        &mut self,
        filter: &LetterFilter,
        after: i64,
        limit: i64,
    ) -> anyhow::Result<Vec<replay::Replayed>> {
        let (db, order) = (self.db, &self.order);
        let piece = replay::replay_piece(db, filter, order, after, limit, &mut self.pace).await?;
        for replayed in &piece {
            self.report.replayed.add(replayed);
        }
        self.bar.inc(piece.len() as u64);
        Ok(piece)
    }
}

/// `selected` letters were to be replayed; a group whose canary failed was left alone.
fn human(report: &Report, selected: u64) -> String {
    let tally = &report.replayed;
    let mut lines = vec![format!(
        "replayed {} of {} dead letters",
        tally.replayable,
        selected.max(tally.letters)
    )];
    for refusal in Refusal::ALL {
        if let Some(count) = tally.refused.get(refusal.as_str()) {
            lines.push(format!("  {count} not ({refusal}): {}", refusal.explain()));
        }
    }
    if selected == 0 {
        lines.push("  no open letter is like that: see `producer dead-letters list`".to_owned());
    }
    for stopped in &report.stopped {
        lines.push(format!(
            "left alone: {} `{}`: {}",
            stopped.stage, stopped.class, stopped.why
        ));
    }
    lines.join("\n")
}
