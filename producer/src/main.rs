//! The producer binary: the service and the operator's commands.

use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser as _;
use producer::cli::submit::submit;
use producer::cli::{
    Cli, Command, audit, costs, operations, paid, status, tokens, trail, unknowns, vendors, workers,
};
use shared::db::Db;
use shared::service::Stopper;
use shared::telemetry::init_logs;

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli).await {
        Ok(code) => code,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    init_logs(&cli.log)?;
    match cli.command {
        Command::Serve(config) => {
            let stopper = Stopper::on_signals(config.service.stop_grace)?;
            producer::run(*config, stopper).await?;
        }
        Command::Migrate(database) => {
            let applied = Db::migrate(&database).await.context("migrate")?;
            tracing::info!(applied = applied.len(), migrations = ?applied, "the database is up to date");
        }
        Command::Submit(args) => return submit(*args).await,
        Command::Vendors(args) => return vendors::run(*args).await,
        Command::Costs(args) => return costs::run(args).await,
        Command::Jobs(command) => return producer::cli::jobs::run(command).await,
        Command::DeadLetters(command) => return producer::cli::dead_letters::run(command).await,
        Command::Operations(command) => return operations::run(command).await,
        Command::Workers(args) => return workers::run(args).await,
        Command::Trail(args) => return trail::run(args).await,
        Command::StopPaid(args) => return paid::stop(args).await,
        Command::ResumePaid(args) => return paid::resume(*args).await,
        Command::Doctor(args) => return producer::cli::doctor::run(*args).await,
        Command::Status(args) => return status::run(args).await,
        Command::Unknowns(args) => return unknowns::run(args).await,
        Command::Audit(args) => return audit::run(*args).await,
        Command::Tokens(args) => return tokens::run(*args).await,
    }
    Ok(ExitCode::SUCCESS)
}
