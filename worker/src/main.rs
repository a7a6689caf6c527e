//! The worker binary.

use std::process::ExitCode;

use clap::Parser as _;
use shared::service::Stopper;
use shared::telemetry::init_logs;
use worker::config::WorkerConfig;

#[tokio::main]
async fn main() -> ExitCode {
    let config = WorkerConfig::parse();
    let result = async {
        init_logs(&config.log)?;
        let stopper = Stopper::on_signals(config.service.stop_grace)?;
        worker::run(config, stopper).await
    };
    match result.await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
