//! Settings of the connection to RabbitMQ and of the queues the fleet declares there.

use std::time::Duration;

use super::Secret;

/// RabbitMQ: where it is and what the fleet's queues are like.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Broker")]
pub struct BrokerConfig {
    /// `amqp://` or `amqps://` URL of RabbitMQ, with user, password and virtual host (none or `/`: the default one).
    ///
    /// The query may set `heartbeat` (seconds) and `connection_timeout` (milliseconds). Of a cluster, a URL of each node,
    /// separated by commas: they are tried in turn.
    #[arg(long, env = "AMQP_URL", value_name = "URL", hide_env_values = true)]
    pub amqp_url: Secret,

    /// First part of the names of all exchanges and queues; two fleets on one virtual host need two.
    #[arg(long, env = "AMQP_PREFIX", value_name = "NAME", default_value = "ghostfleet", value_parser = prefix)]
    pub amqp_prefix: String,

    /// Messages a stage's queue holds before RabbitMQ refuses more. An existing queue keeps its own.
    #[arg(long, env = "QUEUE_MAX_LENGTH", value_name = "COUNT", default_value_t = 100_000,
          value_parser = clap::value_parser!(u32).range(1..=1_000_000_000))]
    pub queue_max_length: u32,

    /// Returns of a message to a stage's queue before RabbitMQ dead-letters it. An existing queue keeps its own.
    // At least 50: drains, cut connections and rollouts count as returns too on most versions.
    #[arg(long, env = "DELIVERY_LIMIT", value_name = "COUNT", default_value_t = 100,
          value_parser = clap::value_parser!(u32).range(50..=1_000_000_000))]
    pub delivery_limit: u32,

    /// How long a batch of published messages waits for the broker's confirms.
    #[arg(long, env = "CONFIRM_TIMEOUT", value_name = "DURATION", default_value = "10s",
          value_parser = humantime::parse_duration)]
    pub confirm_timeout: Duration,

    /// How long RabbitMQ may be unreachable before the process gives up and exits.
    #[arg(long, env = "BROKER_RECONNECT_BOUND", value_name = "DURATION", default_value = "5min",
          value_parser = humantime::parse_duration)]
    pub broker_reconnect_bound: Duration,
}

/// A prefix that is legal in every name made of it (AMQP names end at 255 bytes).
fn prefix(text: &str) -> Result<String, &'static str> {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if text.is_empty() || text.len() > 100 || !text.chars().all(legal) {
        return Err("1 to 100 letters, digits, dots, underscores or dashes");
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        broker: BrokerConfig,
    }

    fn parse(args: &[&str]) -> Result<BrokerConfig, clap::Error> {
        let fixed = ["test", "--amqp-url", "amqp://user:hunter2@host/%2f"];
        Cli::try_parse_from(fixed.iter().chain(args)).map(|cli| cli.broker)
    }

    #[test]
    fn defaults_are_usable_and_the_password_stays_hidden() {
        let config = parse(&[]).unwrap();
        assert_eq!(config.amqp_prefix, "ghostfleet");
        assert_eq!(config.broker_reconnect_bound, Duration::from_secs(300));
        assert!(!format!("{config:?}").contains("hunter2"));
    }

    #[test]
    fn values_that_break_the_queues_are_refused() {
        for (flag, value) in [
            ("--amqp-prefix", ""),
            ("--amqp-prefix", "a b"),
            ("--delivery-limit", "49"),
            ("--queue-max-length", "0"),
            ("--confirm-timeout", "soon"),
        ] {
            let error = parse(&[flag, value]).unwrap_err().to_string();
            assert!(error.contains(flag), "{error}");
        }
    }
}
