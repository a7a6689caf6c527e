//! Whether RabbitMQ is one that the fleet runs on, and takes what the fleet gives it.

use std::ops::Range;

use shared::broker::{BrokerMetrics, check_up, server_version};
use shared::config::BrokerConfig;
use shared::telemetry::Registry;

use super::Part;

/// The versions that the queues are made for: major and minor.
const SUPPORTED: Range<(u32, u32)> = (3, 10)..(5, 0);

pub(super) async fn look(config: &BrokerConfig) -> Part {
    let mut part = Part::new("broker");
    if let Err(error) = ask(&mut part, config).await {
        let advice = "check AMQP_URL, its user's rights (configure, write, read on AMQP_PREFIX), and RabbitMQ";
        part.wrong("answers", format!("{error:#}"), advice);
    }
    part
}

async fn ask(part: &mut Part, config: &BrokerConfig) -> anyhow::Result<()> {
    let metrics = BrokerMetrics::register(&Registry::default())?;
    // First: another version may refuse the queues, and then this is why.
    let version = server_version(config, &metrics).await?;
    let found = version
        .as_deref()
        .unwrap_or("of a version that it does not say");
    part.must(
        "version",
        version.as_deref().is_some_and(is_supported),
        format!("RabbitMQ {found}"),
        "use RabbitMQ 3.10 to 4.x",
    );
    let taken = check_up(config, &metrics).await?;
    part.ok(
        "queues",
        "exchanges and queues are as this build wants them",
    );
    let found = if taken {
        "taken"
    } else {
        "not taken: no confirm came"
    };
    let advice =
        "look for a memory or disk alarm: `rabbitmqctl status`, `rabbitmq-diagnostics alarms`";
    part.must("messages", taken, found, advice);
    Ok(())
}

/// What cannot be read is no version that is known.
fn is_supported(version: &str) -> bool {
    let mut numbers = version.split('.').map(|number| number.parse().ok());
    let (major, minor) = (numbers.next().flatten(), numbers.next().flatten());
    major
        .zip(minor)
        .is_some_and(|version| SUPPORTED.contains(&version))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_from_3_10_to_4_are_supported() {
        for version in ["3.10.0", "3.10.8", "3.13.7", "4.0.0-rc.1", "4.2"] {
            assert!(is_supported(version), "{version}");
        }
        for version in [
            "2.8.7", "3.9.29", "3.8.2", "5.0.0", "3", "", "newest", "x.10.1",
        ] {
            assert!(!is_supported(version), "{version}");
        }
    }
}
