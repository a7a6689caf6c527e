//! The producer binary: the service and the operator's commands.

use std::process::ExitCode;

use clap::FromArgMatches as _;
use producer::cli::submit::submit;
use producer::cli::{
    Cli, Command, audit, completions, costs, exit::Exit, find, migrate, operations, paid,
    retention, series, short, status, tokens, trail, unknowns, vendors, workers,
};
use shared::db::DbError;
use shared::service::Stopper;
use shared::telemetry;

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::from_arg_matches(&short::command().get_matches());
    let cli = cli.unwrap_or_else(|error| error.exit());
    match run(cli).await {
        Ok(code) => code,
        // `| head` has seen enough.
        Err(error) if is_closed(&error) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            if error
                .chain()
                .any(|cause| cause.downcast_ref().is_some_and(DbError::is_of_schema))
            {
                tracing::error!("the database is not that of this version: run `producer migrate`");
            }
            Exit::of(&error).into()
        }
    }
}

/// Whether whoever read our output has gone.
fn is_closed(error: &anyhow::Error) -> bool {
    let mut causes = error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<std::io::Error>());
    causes.any(|cause| cause.kind() == std::io::ErrorKind::BrokenPipe)
}

async fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    let traces = telemetry::init(&cli.log, "producer")?;
    let result = command(cli.command).await;
    traces.shut_down().await;
    result
}

async fn command(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Serve(config) => {
            let stopper = Stopper::on_signals(config.service.stop_grace)?;
            producer::run(*config, stopper).await?;
        }
        Command::Migrate(args) => return migrate::run(args).await,
        Command::Completions(args) => return completions::run(&args),
        Command::Submit(args) => return submit(*args).await,
        Command::Vendors(args) => return vendors::run(*args).await,
        Command::Costs(args) => return costs::run(args).await,
        Command::Jobs(command) => return producer::cli::jobs::run(command).await,
        Command::Find(args) => return find::run(args).await,
        Command::DeadLetters(command) => return producer::cli::dead_letters::run(command).await,
        Command::Notices(command) => return producer::cli::notices::run(command).await,
        Command::Operations(command) => return operations::run(command).await,
        Command::Workers(args) => return workers::run(args).await,
        Command::Trail(args) => return trail::run(args).await,
        Command::StopPaid(args) => return paid::stop(args).await,
        Command::ResumePaid(args) => return paid::resume(*args).await,
        Command::Doctor(args) => return producer::cli::doctor::run(*args).await,
        Command::Status(args) => return status::run(args).await,
        Command::Series(args) => return series::run(args).await,
        Command::Unknowns(args) => return unknowns::run(args).await,
        Command::Audit(args) => return audit::run(*args).await,
        Command::Retention(args) => return retention::run(*args).await,
        Command::Tokens(args) => return tokens::run(*args).await,
    }
    Ok(ExitCode::SUCCESS)
}
