//! `producer dead-letters discard`.

use std::collections::BTreeMap;
use std::process::ExitCode;

use shared::config::DatabaseConfig;
use shared::db::{Db, Discarded, LetterFilter};

use super::selection::{SelectionArgs, are_open};
use crate::cli::operator::OperatorArgs;
use crate::cli::output::OutputArgs;
use crate::cli::progress;
use crate::replay;

const EXAMPLES: &str = "Examples:
  One message that says nothing:  producer dead-letters discard 42 --reason 'sent by a test by mistake'
  A whole group:                  producer dead-letters discard --stage inpaint.store --class 'not a video' --reason '...'";

/// Close dead letters; their jobs stay failed
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Which.
    #[command(flatten)]
    pub selection: SelectionArgs,
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

pub(super) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let filter = args.selection.filter()?;
    let db = Db::new(&args.database)?;
    are_open(&db, &filter).await?;
    let filter = LetterFilter {
        upto: Some(db.newest_letter().await?),
        ..filter
    };
    let OperatorArgs { reason, by } = &args.operator;
    replay::note(&db, by, reason, "dead_letters_discarded", &filter).await?;
    let mut counts: BTreeMap<&str, u64> = BTreeMap::from([("discarded", 0)]);
    let mut after = 0;
    let counter = progress::counter("dead letters looked at");
    loop {
        let done = replay::discard_piece(&db, &filter, by, reason, after).await?;
        let Some((last, _)) = done.last() else { break };
        after = *last;
        counter.inc(done.len() as u64);
        for (_, verdict) in done {
            let word = match verdict {
                Discarded::Discarded => "discarded",
                Discarded::Resolved => "closed_before",
                Discarded::Gone => "gone",
            };
            *counts.entry(word).or_default() += 1;
        }
    }
    counter.finish_and_clear();
    args.output.print(&counts, |counts| {
        let words: Vec<_> = counts
            .iter()
            .map(|(word, count)| format!("{count} {}", word.replace('_', " ")))
            .collect();
        words.join(", ")
    })?;
    Ok(ExitCode::SUCCESS)
}
