//! Logs, traces and the metric registry. Says nothing about what is logged or measured: that stands beside the code it is about.

pub mod trace;

use std::io::IsTerminal as _;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus::core::Collector;
use prometheus::proto::{MetricFamily, MetricType};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _, Registry as Subscriber};
use url::Url;

use trace::Traces;

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
    /// OpenTelemetry collector that gets a trace for each job, such as `http://127.0.0.1:4318` (OTLP, protobuf over HTTP); without it
    /// there are no traces. `OTEL_EXPORTER_OTLP_HEADERS` may hold headers for it
    #[arg(long, env = "OTEL_EXPORTER_OTLP_ENDPOINT", value_parser = collector)]
    pub otlp_endpoint: Option<Url>,
}

fn collector(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|_| "must be a URL such as http://127.0.0.1:4318")?;
    if matches!(url.scheme(), "http" | "https") {
        Ok(url)
    } else {
        Err("must begin with http:// or https://".to_owned())
    }
}

/// Why logs and traces cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The filter cannot be read.
    #[error("LOG_FILTER `{filter}` is not a log filter such as `info,worker=debug`")]
    Filter {
        /// As it was given.
        filter: String,
        /// What is wrong with it.
        source: tracing_subscriber::filter::ParseError,
    },
    /// Traces cannot be sent.
    #[error("OTEL_EXPORTER_OTLP_ENDPOINT cannot be used")]
    Traces(#[from] opentelemetry_otlp::ExporterBuildError),
}

/// Starts logging to standard error, and sending traces where a collector is set; `service` is what they call this process. A second
/// call in one process changes nothing. What is returned is to be shut down at the end.
///
/// # Errors
/// When the filter cannot be read, or traces cannot be sent.
pub fn init(config: &LogConfig, service: &'static str) -> Result<Traces, SetupError> {
    let filter = EnvFilter::from_str(&config.log_filter).map_err(|source| SetupError::Filter {
        filter: config.log_filter.clone(),
        source,
    })?;
    let lines = tracing_subscriber::fmt::layer()
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    let lines = match config.log_format {
        LogFormat::Human => lines.boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    let traces = match &config.otlp_endpoint {
        Some(collector) => Traces::to(collector, service)?,
        None => Traces::default(),
    };
    // Tests run several services in one process; the first one's logging serves all.
    let _ = match traces.tracer() {
        // The filter of the lines decides alone what is made at all: without a collector spans of traces are not.
        None => Subscriber::default().with(lines).with(filter).try_init(),
        Some(tracer) => {
            let spans = tracing_opentelemetry::layer()
                .with_tracer(tracer)
                .with_location(false)
                .with_threads(false)
                .with_target(false)
                .with_level(false)
                .with_tracked_inactivity(false)
                .with_context_activation(false);
            let ours = Targets::new().with_target(trace::TARGET, LevelFilter::TRACE);
            let layers = Subscriber::default().with(lines.with_filter(filter));
            layers.with(spans.with_filter(ours)).try_init()
        }
    };
    Ok(traces)
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

/// The prefix of every metric's name.
const PREFIX: &str = "ghostfleet";

/// What a metric is, whether or not it has a series yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    /// Its name, prefix included.
    pub name: String,
    /// `counter`, `gauge` or `histogram`.
    pub kind: &'static str,
    /// The names of its labels.
    pub labels: Vec<String>,
    /// What it says.
    pub help: String,
}

/// The metrics of a process. It also knows those that have no series yet, which the registry of the library does not show.
#[derive(Clone, Debug, Default)]
pub struct Registry {
    metrics: prometheus::Registry,
    described: Arc<Mutex<Vec<Description>>>,
}

impl Registry {
    /// Adds a metric; the macros of `prometheus` call it.
    ///
    /// # Errors
    /// When a metric of its name is there already.
    pub fn register(&self, metric: Box<dyn Collector>) -> Result<(), prometheus::Error> {
        let kind = metric.collect().first().map(MetricFamily::get_field_type);
        let kind = match kind {
            Some(MetricType::COUNTER) => "counter",
            Some(MetricType::HISTOGRAM) => "histogram",
            _ => "gauge",
        };
        let described: Vec<_> = metric
            .desc()
            .into_iter()
            .map(|desc| Description {
                name: format!("{PREFIX}_{}", desc.fq_name),
                kind,
                labels: desc.variable_labels.clone(),
                help: desc.help.clone(),
            })
            .collect();
        self.metrics.register(metric)?;
        self.described
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .extend(described);
        Ok(())
    }

    /// The series there are now.
    #[must_use]
    pub fn gather(&self) -> Vec<MetricFamily> {
        self.metrics.gather()
    }

    /// Every metric that was registered, by name.
    #[must_use]
    pub fn described(&self) -> Vec<Description> {
        let mut described = self
            .described
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        described.sort_by(|a, b| a.name.cmp(&b.name));
        described
    }
}

/// An empty registry whose metrics are all called `ghostfleet_…`, with `build_info` in it.
///
/// # Errors
/// Never with the fixed names used here; the signature is the library's.
pub fn registry(binary: &'static str) -> Result<Registry, prometheus::Error> {
    let registry = Registry {
        metrics: prometheus::Registry::new_custom(Some(PREFIX.to_owned()), None)?,
        described: Arc::default(),
    };
    let info = prometheus::IntGaugeVec::new(
        prometheus::Opts::new("build_info", "Always 1; the labels say what runs"),
        &["binary", "version"],
    )?;
    info.with_label_values(&[binary, env!("CARGO_PKG_VERSION")])
        .set(1);
    registry.register(Box::new(info))?;
    Ok(registry)
}

/// Bounds in seconds for what takes between a few milliseconds and hours: stages and their waits.
pub const STAGE_SECONDS: [f64; 13] = [
    0.005, 0.02, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 1800.0, 3600.0, 10_800.0,
];

#[cfg(test)]
mod tests {
    use prometheus::{IntCounterVec, Opts};

    use super::*;

    #[test]
    fn a_metric_without_a_series_is_described() {
        let registry = registry("test").unwrap();
        let opts = || Opts::new("things_total", "Things that happened");
        let things = IntCounterVec::new(opts(), &["kind", "colour"]).unwrap();
        registry.register(Box::new(things)).unwrap();
        assert!(
            registry
                .gather()
                .iter()
                .all(|family| family.name() != "ghostfleet_things_total")
        );
        let described = registry.described();
        assert_eq!(described.len(), 2);
        assert_eq!(
            described[1],
            Description {
                name: "ghostfleet_things_total".to_owned(),
                kind: "counter",
                labels: vec!["kind".to_owned(), "colour".to_owned()],
                help: "Things that happened".to_owned(),
            }
        );
        // What was refused is not described.
        let again = IntCounterVec::new(opts(), &["kind", "colour"]).unwrap();
        assert!(registry.register(Box::new(again)).is_err());
        assert_eq!(registry.described().len(), 2);
    }
}
