//! `producer dead-letters note`.

use std::process::ExitCode;

use serde_json::json;
use shared::config::DatabaseConfig;
use shared::db::{Db, GroupNote, IfNote, NoteChange, Noted};
use shared::domain::fields::{SAID, is_said};

use crate::cli::exit::NotFound;
use crate::cli::operator::said;
use crate::cli::output::OutputArgs;
use crate::times::told;

const EXAMPLES: &str = "Examples:
  For whoever looks next:    producer dead-letters note 42 'the CDN refuses our address; they mend it on Monday'
  When it holds no longer:   producer dead-letters note 42 --remove

One note for all dead letters of the same stage, reason and normalised error; 42 is any of them. It stays when they are closed, and is
there when the same fault comes again.

Exit status: 0 done, 3 there is no letter of that number.";

/// Say what you have found out about the group of a dead letter
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// A dead letter of the group
    pub id: i64,
    /// What you have found out; takes the place of what is there
    #[arg(value_name = "NOTE", required_unless_present = "remove", value_parser = note)]
    pub note: Option<String>,
    /// Remove the note
    #[arg(long, conflicts_with = "note")]
    pub remove: bool,
    /// Who; kept in the trail
    #[arg(long, env = "USER", default_value = "operator", value_parser = said)]
    pub by: String,
    /// Output.
    #[command(flatten)]
    pub output: OutputArgs,
    /// Database.
    #[command(flatten)]
    pub database: DatabaseConfig,
}

fn note(text: &str) -> Result<String, String> {
    match is_said(&text.replace('\n', " ")) {
        true => Ok(text.to_owned()),
        false => Err(format!("{SAID}, or lines of it")),
    }
}

pub(super) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let db = Db::new(&args.database)?;
    let change = NoteChange {
        letter: args.id,
        text: args.note,
        if_note: IfNote::Any,
        by: args.by,
    };
    let Noted::Now(now) = db.note_group(&change).await? else {
        return Err(NotFound(format!("there is no dead letter {}", args.id)).into());
    };
    args.output.print(&json!({ "note": now }), |_| {
        now.as_ref()
            .map_or_else(|| "there is no note".to_owned(), human)
    })?;
    Ok(ExitCode::SUCCESS)
}

/// A note in a line.
pub(super) fn human(note: &GroupNote) -> String {
    let text = note.text.replace('\n', " ");
    format!("{text} ({}, {})", note.by, told(note.at))
}
