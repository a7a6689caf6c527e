//! The times of the submission protocol and the schedules of polls and searches.
//!
//! They nest: request timeout < send deadline < stage lease < the broker's consumer timeout. [`ProtocolConfig::check`] refuses
//! a configuration that says otherwise. The defaults are the vendors' advice (vendor documents of 2026, sections on polling).

use std::time::Duration;

use super::VendorTimeouts;
use crate::domain::Stage;
use crate::domain::outcome::{RetryPolicy, Schedule};

/// RabbitMQ closes the channel of a consumer that holds a delivery for longer (30 minutes: its default since 3.8.17, "Delivery
/// Acknowledgement Timeout" of its consumer guide).
pub const CONSUMER_TIMEOUT: Duration = Duration::from_secs(30 * 60);

/// Left of a lease for settling what a run came to.
pub const SETTLE_MARGIN: Duration = Duration::from_secs(5);

/// Times and bounds of the protocol. Producer and workers must agree on them.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Protocol")]
pub struct ProtocolConfig {
    /// From the commit of a claim on, how long the paid request may still be sent
    #[arg(long, env, default_value = "45s", value_parser = humantime::parse_duration)]
    pub send_deadline: Duration,
    /// How long a dispatched stage may run before it is dispatched again
    #[arg(long, env, default_value = "2m", value_parser = humantime::parse_duration)]
    pub stage_lease: Duration,
    /// Delays before the polls of a Sync.so generation; the last one repeats
    #[arg(long, env, default_value = "10s*6,30s*10,1m*5,2m*5,5m")]
    pub sync_poll_schedule: Schedule,
    /// Delays before the polls of a GhostCut work; the last one repeats
    #[arg(long, env, default_value = "5m,5m,10m,15m,30m")]
    pub ghostcut_poll_schedule: Schedule,
    /// Delays before the replays of a Sync.so request under its key; the last one repeats
    #[arg(long, env, default_value = "1s,2s,4s,8s,16s,1m,2m,5m")]
    pub sync_replay_schedule: Schedule,
    /// How long after its claim a Sync.so request is still replayed; later it is only searched for
    #[arg(long, env, default_value = "12h", value_parser = humantime::parse_duration)]
    pub sync_replay_window: Duration,
    /// Delays before the searches for a GhostCut request whose answer was lost, each after the one before
    #[arg(long, env, default_value = "1m,5m,15m,30m")]
    pub ghostcut_search_schedule: Schedule,
    /// After the last search and the deletion of the source, how long until a request not found counts as absent
    #[arg(long, env, default_value = "10m", value_parser = humantime::parse_duration)]
    pub ghostcut_settle_time: Duration,
    /// How long to wait after a vendor said that a limit is met, when it did not say how long
    #[arg(long, env, default_value = "1m,5m,10m,20m,40m,1h")]
    pub throttle_schedule: Schedule,
    /// How long paid sends to a vendor pause after it refused our key, plan or balance
    #[arg(long, env, default_value = "5m", value_parser = humantime::parse_duration)]
    pub vendor_pause: Duration,
    /// Paid calls in a row without an answer before sends to the account stop and only one tries
    #[arg(long, env, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    pub circuit_failures: u32,
    /// Rejections in a row, of more than one job and for one reason, before sends to the account stop and only one tries
    #[arg(long, env, default_value_t = 5, value_parser = clap::value_parser!(u32).range(2..))]
    pub circuit_rejects: u32,
    /// How long sends to the account then stop; doubles each time that the one that tries fails
    #[arg(long, env, default_value = "30s", value_parser = humantime::parse_duration)]
    pub circuit_wait: Duration,
    /// The longest they stop
    #[arg(long, env, default_value = "15m", value_parser = humantime::parse_duration)]
    pub circuit_cap: Duration,
    /// How often GhostCut is asked to run the same failed work again
    #[arg(long, env, default_value_t = 2)]
    pub max_redos: i32,
    /// First delay after a passing error; doubles with each
    #[arg(long, env, default_value = "5s", value_parser = humantime::parse_duration)]
    pub retry_first: Duration,
    /// Longest delay after a passing error
    #[arg(long, env, default_value = "15m", value_parser = humantime::parse_duration)]
    pub retry_cap: Duration,
    /// Passing errors of one stage before the job is given up, unless a submission is alive
    #[arg(long, env, default_value_t = 12)]
    pub max_tries: u32,
    /// Starts of one stage without an end before the job is taken to kill its consumers
    #[arg(long, env, default_value_t = 8)]
    pub max_starts: u32,
}

impl ProtocolConfig {
    /// The retry policy of passing errors.
    #[must_use]
    pub const fn retry(&self) -> RetryPolicy {
        RetryPolicy {
            first: self.retry_first,
            cap: self.retry_cap,
            max_tries: self.max_tries,
        }
    }

    /// The poll schedule of a poll stage; the one of Sync.so for every other.
    #[must_use]
    pub const fn poll_schedule(&self, stage: Stage) -> &Schedule {
        match stage {
            Stage::InpaintPoll => &self.ghostcut_poll_schedule,
            _ => &self.sync_poll_schedule,
        }
    }

    /// Everything wrong with the settings taken together; empty when nothing is.
    #[must_use]
    pub fn check(&self, vendor: &VendorTimeouts) -> Vec<String> {
        let nested = [
            (
                "VENDOR_REQUEST_TIMEOUT",
                vendor.request,
                "SEND_DEADLINE",
                self.send_deadline,
            ),
            (
                "SEND_DEADLINE and 5 s to settle",
                self.send_deadline + SETTLE_MARGIN,
                "STAGE_LEASE",
                self.stage_lease,
            ),
            (
                "STAGE_LEASE",
                self.stage_lease,
                "RabbitMQ's consumer timeout",
                CONSUMER_TIMEOUT,
            ),
        ];
        let mut faults: Vec<String> = nested
            .iter()
            .filter(|(_, inner, _, outer)| inner >= outer)
            .map(|(inner_name, inner, outer_name, outer)| {
                format!("{inner_name} ({inner:?}) must be shorter than {outer_name} ({outer:?})")
            })
            .collect();
        if self.max_starts < 1 {
            faults.push("MAX_STARTS must be at least 1".to_owned());
        }
        faults
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        protocol: ProtocolConfig,
        #[command(flatten)]
        vendor: VendorTimeouts,
    }

    #[test]
    fn defaults_nest_and_every_contradiction_is_named() {
        let cli = Cli::parse_from(["test"]);
        assert_eq!(cli.protocol.check(&cli.vendor), Vec::<String>::new());
        let cli = Cli::parse_from([
            "test",
            "--send-deadline=10s",
            "--stage-lease=31m",
            "--max-starts=0",
        ]);
        let faults = cli.protocol.check(&cli.vendor).join("\n");
        assert!(
            faults
                .contains("VENDOR_REQUEST_TIMEOUT (30s) must be shorter than SEND_DEADLINE (10s)"),
            "{faults}"
        );
        assert!(
            faults.contains("STAGE_LEASE (1860s) must be shorter than RabbitMQ's"),
            "{faults}"
        );
        assert!(faults.contains("MAX_STARTS"), "{faults}");
    }
}
