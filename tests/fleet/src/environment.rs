//! The settings of a fleet under test: the variables that its binaries read, and the same as a parsed configuration.

use std::collections::BTreeMap;

use anyhow::Context as _;
use clap::builder::Resettable;

/// Times of a fleet that recovers within seconds, where the defaults follow the vendors' advice and take minutes to hours.
/// Nested as `ProtocolConfig::check` wants it. The lease must leave room for a send besides the five seconds that a worker keeps
/// back for settling.
const FAST: [(&str, &str); 28] = [
    ("VENDOR_CONNECT_TIMEOUT", "1s"),
    ("VENDOR_REQUEST_TIMEOUT", "2s"),
    ("SEND_DEADLINE", "3s"),
    ("STAGE_LEASE", "10s"),
    ("SYNC_POLL_SCHEDULE", "300ms"),
    ("GHOSTCUT_POLL_SCHEDULE", "300ms"),
    ("SYNC_REPLAY_SCHEDULE", "100ms,200ms,500ms,1s"),
    ("GHOSTCUT_SEARCH_SCHEDULE", "500ms,500ms"),
    ("GHOSTCUT_SETTLE_TIME", "1s"),
    ("THROTTLE_SCHEDULE", "500ms,1s"),
    ("VENDOR_PAUSE", "1s"),
    ("CIRCUIT_WAIT", "500ms"),
    ("CIRCUIT_CAP", "2s"),
    ("BALANCE_INTERVAL", "1s"),
    ("RETRY_FIRST", "200ms"),
    ("RETRY_CAP", "2s"),
    ("DISPATCH_INTERVAL", "100ms"),
    ("SWEEP_INTERVAL", "1s"),
    ("GAUGE_INTERVAL", "1s"),
    ("ADOPT_INTERVAL", "200ms"),
    ("WORKER_HEARTBEAT", "200ms"),
    // Tests that count list calls audit by command.
    ("AUDIT_INTERVAL", "0s"),
    // Nothing of a test is old.
    ("RETENTION_INTERVAL", "0s"),
    ("STOP_GRACE", "5s"),
    ("ADMIN_ADDR", "127.0.0.1:0"),
    ("HTTP_ADDR", "127.0.0.1:0"),
    // The simulators are on this machine.
    ("FETCH_ALLOW_PRIVATE", "true"),
    ("LOG_FORMAT", "json"),
];

/// Variables and their values. Nothing of this process's own environment is in it: real accounts must not get into a test.
#[derive(Clone, Debug)]
pub struct Environment(BTreeMap<String, String>);

impl Environment {
    /// A fast fleet on these servers, with the sandbox's endpoints and credentials.
    #[must_use]
    pub fn fast(
        database_url: &str,
        amqp_url: &str,
        amqp_prefix: &str,
        sandbox: impl IntoIterator<Item = (String, String)>,
    ) -> Self {
        let own = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
        let servers = [
            ("DATABASE_URL", database_url),
            ("AMQP_URL", amqp_url),
            ("AMQP_PREFIX", amqp_prefix),
        ];
        Self(
            FAST.into_iter()
                .chain(servers)
                .map(own)
                .chain(sandbox)
                .collect(),
        )
    }

    /// The same with another value.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.set(name, value);
        self
    }

    /// Sets a value.
    pub fn set(&mut self, name: &str, value: impl Into<String>) {
        self.0.insert(name.to_owned(), value.into());
    }

    /// A value.
    ///
    /// # Errors
    /// When it is not set.
    pub fn get(&self, name: &str) -> anyhow::Result<&str> {
        let value = self.0.get(name);
        value
            .map(String::as_str)
            .with_context(|| format!("{name} is not set"))
    }

    /// All variables.
    pub fn variables(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// What a binary with the settings `T` would read from these variables.
    ///
    /// # Errors
    /// Every setting that is missing or cannot be read.
    pub fn parse<T: clap::Args>(&self) -> anyhow::Result<T> {
        let command = T::augment_args(clap::Command::new("fleet"));
        let mut args = vec!["fleet".to_owned()];
        for arg in command.get_arguments() {
            let name = arg.get_env().and_then(|name| name.to_str());
            let value = name.and_then(|name| self.0.get(name));
            if let (Some(flag), Some(value)) = (arg.get_long(), value) {
                args.push(format!("--{flag}={value}"));
            }
        }
        // Without its variables, so that this process's environment does not count.
        let command = command.mut_args(|arg| arg.env(Resettable::Reset));
        Ok(T::from_arg_matches(&command.try_get_matches_from(args)?)?)
    }
}

#[cfg(test)]
mod tests {
    use producer::config::ServeConfig;
    use worker::config::WorkerConfig;

    use super::*;

    #[test]
    fn a_fast_fleet_is_a_valid_configuration_of_both_binaries() {
        let sandbox = [
            ("SYNC_API_KEY", "k"),
            ("GHOSTCUT_API_KEY", "k"),
            ("GHOSTCUT_APP_SECRET", "s"),
            ("AWS_S3_BUCKET", "b"),
        ];
        let sandbox = sandbox.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let environment = Environment::fast("postgres://d", "amqp://a", "p", sandbox);
        let worker: WorkerConfig = environment.parse().unwrap();
        assert_eq!(worker.check(), Vec::<String>::new());
        assert!(worker.fetch.fetch_allow_private);
        let producer: ServeConfig = environment.parse().unwrap();
        assert_eq!(producer.dispatch.dispatch_interval.as_millis(), 100);
        let wrong = environment.with("STAGE_LEASE", "soon");
        let error = wrong.parse::<WorkerConfig>().unwrap_err().to_string();
        assert!(error.contains("stage-lease"), "{error}");
    }
}
