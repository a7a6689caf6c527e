//! The worker binary.

use std::process::ExitCode;

use clap::Parser as _;
use shared::config::Contradiction;
use shared::service::Stopper;
use shared::telemetry;
use worker::config::WorkerConfig;

/// As `clap` ends where a setting is missing or cannot be read. Both are as of `producer`.
const WRONG_SETTINGS: u8 = 2;
/// Something outside failed.
const FAILED: u8 = 4;

#[tokio::main]
async fn main() -> ExitCode {
    let config = WorkerConfig::parse();
    let result = async {
        let traces = telemetry::init(&config.log, "worker")?;
        let stopper = Stopper::on_signals(config.service.stop_grace)?;
        let result = worker::run(config, stopper).await;
        traces.shut_down().await;
        result
    };
    match result.await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::from(if error.is::<Contradiction>() {
                WRONG_SETTINGS
            } else {
                FAILED
            })
        }
    }
}
