//! Settings of the object store and of downloads from outside.
//!
//! Durations are written like `30s`, `24h`. An empty text counts as unset. `storage::Storage::new` checks the values.

use super::Secret;
use chrono::{DateTime, Utc};
use clap::builder::BoolishValueParser;
use std::time::Duration;

/// Where objects are stored and with which credentials.
///
/// Without an access key the profile file is used (`AWS_SHARED_CREDENTIALS_FILE`, else `~/.aws/credentials`).
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Object storage")]
pub struct StorageConfig {
    /// Region that requests are signed for.
    #[arg(long, env = "AWS_REGION", default_value = "us-east-1")]
    pub aws_region: String,
    /// Bucket that holds every object of the fleet.
    #[arg(long, env = "AWS_S3_BUCKET")]
    pub aws_s3_bucket: String,
    /// Access key; together with the secret access key.
    #[arg(long, env = "AWS_ACCESS_KEY_ID", hide_env_values = true)]
    pub aws_access_key_id: Option<String>,
    /// Secret access key.
    #[arg(long, env = "AWS_SECRET_ACCESS_KEY", hide_env_values = true)]
    pub aws_secret_access_key: Option<Secret>,
    /// Session token of temporary credentials.
    #[arg(long, env = "AWS_SESSION_TOKEN", hide_env_values = true)]
    pub aws_session_token: Option<Secret>,
    /// When temporary credentials end (RFC 3339); no presigned URL is made to live longer.
    #[arg(long, env = "AWS_CREDENTIAL_EXPIRATION")]
    pub aws_credential_expiration: Option<DateTime<Utc>>,
    /// Profile to use when no access key is given [default: default].
    #[arg(long, env = "AWS_PROFILE")]
    pub aws_profile: Option<String>,
    /// Endpoint of an S3-compatible store, addressed by path; unset: AWS.
    #[arg(long, env = "S3_ENDPOINT_URL")]
    pub s3_endpoint_url: Option<String>,
    /// Start of the public URLs of objects, for example a CDN; unset: the bucket's own URL.
    #[arg(long, env = "S3_PUBLIC_BASE_URL")]
    pub s3_public_base_url: Option<String>,
    /// How long a presigned URL handed to a vendor lives (at most seven days).
    #[arg(long, env = "S3_PRESIGN_LIFE", default_value = "24h", value_parser = humantime::parse_duration)]
    pub s3_presign_life: Duration,
    /// Time to connect to the store.
    #[arg(long, env = "S3_CONNECT_TIMEOUT", default_value = "5s", value_parser = humantime::parse_duration)]
    pub s3_connect_timeout: Duration,
    /// Time for one request up to its answer, sending a part of 8 MiB included.
    #[arg(long, env = "S3_REQUEST_TIMEOUT", default_value = "2m", value_parser = humantime::parse_duration)]
    pub s3_request_timeout: Duration,
    /// Time without a byte after which a download from the store is given up.
    #[arg(long, env = "S3_IDLE_TIMEOUT", default_value = "30s", value_parser = humantime::parse_duration)]
    pub s3_idle_timeout: Duration,
}

/// Limits of downloads from vendors and users.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Downloads")]
pub struct FetchConfig {
    /// Allow downloads from loopback, private and other addresses that are not public (for local simulators).
    #[arg(long, env = "FETCH_ALLOW_PRIVATE", default_value = "false", default_missing_value = "true",
          num_args = 0..=1, action = clap::ArgAction::Set, value_parser = BoolishValueParser::new())]
    pub fetch_allow_private: bool,
    /// Largest file that is downloaded, in bytes.
    #[arg(long, env = "FETCH_MAX_BYTES", default_value_t = 2 << 30)]
    pub fetch_max_bytes: u64,
    /// Time to resolve and connect.
    #[arg(long, env = "FETCH_CONNECT_TIMEOUT", default_value = "10s", value_parser = humantime::parse_duration)]
    pub fetch_connect_timeout: Duration,
    /// Time without a byte after which a download is given up.
    #[arg(long, env = "FETCH_IDLE_TIMEOUT", default_value = "30s", value_parser = humantime::parse_duration)]
    pub fetch_idle_timeout: Duration,
    /// Time for a whole download, storing it included.
    #[arg(long, env = "FETCH_TOTAL_TIMEOUT", default_value = "20m", value_parser = humantime::parse_duration)]
    pub fetch_total_timeout: Duration,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{CommandFactory, FromArgMatches, Parser};

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        storage: StorageConfig,
        #[command(flatten)]
        fetch: FetchConfig,
    }

    /// Parses without looking at the environment of whoever runs the tests.
    fn parse(args: &[&str]) -> Result<Cli, clap::Error> {
        let command = Cli::command().mut_args(|arg| arg.env(clap::builder::Resettable::Reset));
        Cli::from_arg_matches(&command.try_get_matches_from(args)?)
    }

    #[test]
    fn flags_fill_the_structs_and_secrets_stay_hidden() {
        let cli = parse(&[
            "test",
            "--aws-s3-bucket=media",
            "--aws-secret-access-key=hunter2",
            "--s3-presign-life=90m",
            "--fetch-allow-private",
            "--fetch-max-bytes=1000",
        ])
        .unwrap();
        assert_eq!(cli.storage.s3_presign_life, Duration::from_secs(5400));
        assert!(cli.fetch.fetch_allow_private);
        assert_eq!(cli.fetch.fetch_max_bytes, 1000);
        assert!(!format!("{cli:?}").contains("hunter2"));
    }

    #[test]
    fn the_bucket_is_required_and_private_addresses_are_off() {
        let error = parse(&["test"]).unwrap_err().to_string();
        assert!(error.contains("--aws-s3-bucket"), "{error}");
        let cli = parse(&["test", "--aws-s3-bucket=media"]).unwrap();
        assert!(!cli.fetch.fetch_allow_private);
    }
}
