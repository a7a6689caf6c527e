//! The worker binary.

use std::process::ExitCode;

use clap::Parser as _;
use shared::config::Contradiction;
use shared::service::Stopper;
use shared::telemetry::init_logs;
use worker::config::WorkerConfig;

/// As `clap` ends where a setting is missing or cannot be read. Both are as of `producer`.
const WRONG_SETTINGS: u8 = 2;
/// Something outside failed.
const FAILED: u8 = 4;

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
            ExitCode::from(if error.is::<Contradiction>() {
                WRONG_SETTINGS
            } else {
                FAILED
            })
        }
    }
}
