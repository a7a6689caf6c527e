//! Logs and the metric registry. Says nothing about what is logged or measured: that stands beside the code it is about.

use std::io::IsTerminal as _;
use std::str::FromStr;

use tracing_subscriber::EnvFilter;

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    Human,
    /// One JSON object per line.
    Json,
}

/// Log settings.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Logs")]
pub struct LogConfig {
    /// How log lines look
    #[arg(long, env, value_enum, default_value = "human")]
    pub log_format: LogFormat,
    /// Which log lines appear, such as `info,worker=debug` (syntax of tracing's EnvFilter)
    // lapin logs an orderly close as an error; what matters of it comes back as an error of ours.
    #[arg(long, env = "LOG_FILTER", default_value = "info,lapin=off")]
    pub log_filter: String,
}

/// The filter cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("LOG_FILTER `{filter}` is not a log filter such as `info,worker=debug`")]
pub struct BadFilter {
    filter: String,
    source: tracing_subscriber::filter::ParseError,
}

/// Starts logging to standard error. A second call in one process changes nothing.
///
/// # Errors
/// When the filter cannot be read.
pub fn init_logs(config: &LogConfig) -> Result<(), BadFilter> {
    let filter = EnvFilter::from_str(&config.log_filter).map_err(|source| BadFilter {
        filter: config.log_filter.clone(),
        source,
    })?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    // Tests run several services in one process; the first one's logging serves all.
    let _ = match config.log_format {
        LogFormat::Human => builder.try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    Ok(())
}

/// An error with all its causes on one line.
#[must_use]
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// An empty registry whose metrics are all called `ghostfleet_…`, with `build_info` in it.
///
/// # Errors
/// Never with the fixed names used here; the signature is the library's.
pub fn registry(binary: &'static str) -> Result<prometheus::Registry, prometheus::Error> {
    let registry = prometheus::Registry::new_custom(Some("ghostfleet".to_owned()), None)?;
    let info = prometheus::IntGaugeVec::new(
        prometheus::Opts::new("build_info", "Always 1; the labels say what runs"),
        &["binary", "version"],
    )?;
    info.with_label_values(&[binary, env!("CARGO_PKG_VERSION")])
        .set(1);
    registry.register(Box::new(info))?;
    Ok(registry)
}
