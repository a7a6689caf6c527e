//! `producer dead-letters`: what nobody but a person can decide: jobs that were given up, and messages that say nothing.

mod canary;
mod discard;
mod list;
mod note;
mod preview;
mod replay;
mod selection;
mod show;

use std::process::ExitCode;

use clap::Subcommand;

/// Which failures are here and which are not.
pub const EXAMPLES: &str = "\
Here is what needs a person's decision: a stage that was tried to its bound, a result that is none, a message that nobody can read.
A job that a vendor refuses to take, whose work a vendor could not finish, or that the check of its inputs rejects, fails without a
dead letter, unless the vendor could not read the input: `producer jobs list --status failed`, and `producer jobs retry` when its
cause is mended.";

/// The commands.
#[derive(Debug, Subcommand)]
pub enum DeadLettersCommand {
    /// List open dead letters, grouped by stage and error
    List(list::Args),
    /// Show one dead letter, its message and its job
    Show(show::Args),
    /// Say what you have found out about the group of a dead letter
    Note(note::Args),
    /// Say what a replay would do and cost, without doing it
    Preview(preview::Args),
    /// Put the jobs of dead letters back on their way
    Replay(Box<replay::Args>),
    /// Close dead letters; their jobs stay failed
    Discard(discard::Args),
}

/// Runs `producer dead-letters …`.
///
/// # Errors
/// When the database cannot be used or a selection names nothing.
pub async fn run(command: DeadLettersCommand) -> anyhow::Result<ExitCode> {
    match command {
        DeadLettersCommand::List(args) => list::run(args).await,
        DeadLettersCommand::Show(args) => show::run(args).await,
        DeadLettersCommand::Note(args) => note::run(args).await,
        DeadLettersCommand::Preview(args) => preview::run(args).await,
        DeadLettersCommand::Replay(args) => replay::run(*args).await,
        DeadLettersCommand::Discard(args) => discard::run(args).await,
    }
}
