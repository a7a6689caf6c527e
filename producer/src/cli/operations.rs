//! `producer operations`: work on many jobs or dead letters that the producers carry out in the background.

mod show;
mod start;
mod steer;

use std::process::ExitCode;

/// The subcommands.
#[derive(Debug, clap::Subcommand)]
pub enum OperationsCommand {
    /// List operations, newest first
    List(show::ListArgs),
    /// Show an operation and how far it has come
    Show(show::ShowArgs),
    /// Do something to many jobs or dead letters
    Start(Box<start::StartArgs>),
    /// Let an operation go on whose canaries were looked at; groups whose canary is dead again are left alone
    Continue(steer::SteerArgs),
    /// Stop an operation; what was done stays done
    Stop(steer::SteerArgs),
}

/// Runs one of them.
///
/// # Errors
/// When the database is away, or what is asked for is refused.
pub async fn run(command: OperationsCommand) -> anyhow::Result<ExitCode> {
    match command {
        OperationsCommand::List(args) => show::list(args).await,
        OperationsCommand::Show(args) => show::show(args).await,
        OperationsCommand::Start(args) => start::run(*args).await,
        OperationsCommand::Continue(args) => steer::go_on(args).await,
        OperationsCommand::Stop(args) => steer::stop(args).await,
    }
}
