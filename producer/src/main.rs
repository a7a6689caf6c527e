//! The producer binary: the service and the operator's commands.

use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser as _;
use producer::cli::submit::submit;
use producer::cli::{Cli, Command};
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
        Command::StopPaid {
            database,
            reason,
            by,
        } => {
            Db::new(&database)?.stop_paid(&reason, &by).await?;
            tracing::info!("paid sends are stopped; `producer resume-paid` allows them again");
        }
        Command::ResumePaid(database) => {
            let stopped = Db::new(&database)?.resume_paid().await?;
            tracing::info!(
                "{}",
                if stopped {
                    "paid sends are allowed again"
                } else {
                    "paid sends were not stopped"
                }
            );
        }
    }
    Ok(ExitCode::SUCCESS)
}
