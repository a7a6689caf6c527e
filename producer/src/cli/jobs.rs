//! `producer jobs`: looking at jobs, and what an operator may do to one or many.

mod cancel;
mod list;
mod result;
mod resume;
mod retry;
mod selection;
mod show;

use std::process::ExitCode;

use clap::Subcommand;

/// The commands.
#[derive(Debug, Subcommand)]
pub enum JobsCommand {
    /// List jobs, newest first
    List(list::Args),
    /// Show a job: where it stands and why, what was paid, what happened
    Show(show::Args),
    /// Print a link to the result of a job, or download it
    Result(Box<result::Args>),
    /// Make jobs that are parked or wait for their time due now
    Resume(resume::Args),
    /// Cancel jobs; what is paid for is followed to its end
    Cancel(cancel::Args),
    /// Put failed or canceled jobs back on their way
    Retry(retry::Args),
}

/// Runs `producer jobs …`.
///
/// # Errors
/// When the database cannot be used or a selection names nothing.
pub async fn run(command: JobsCommand) -> anyhow::Result<ExitCode> {
    match command {
        JobsCommand::List(args) => list::run(args).await,
        JobsCommand::Show(args) => show::run(args).await,
        JobsCommand::Result(args) => result::run(*args).await,
        JobsCommand::Resume(args) => resume::run(args).await,
        JobsCommand::Cancel(args) => cancel::run(args).await,
        JobsCommand::Retry(args) => retry::run(args).await,
    }
}
