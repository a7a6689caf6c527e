//! Accounts and addresses of the paid APIs, and how long to wait for them.

use std::time::Duration;

use clap::Args;
use clap::builder::{NonEmptyStringValueParser, TypedValueParser};
use url::Url;

use super::Secret;

/// Our account at Sync.so.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Sync.so")]
pub struct SyncApi {
    /// Name of the Sync.so account in the ledger
    #[arg(id = "sync_account", long = "sync-account", env = "SYNC_ACCOUNT", default_value = "default",
          value_parser = NonEmptyStringValueParser::new())]
    pub account: String,
    /// Sync.so API key
    #[arg(id = "sync_api_key", long = "sync-api-key", env = "SYNC_API_KEY", hide_env_values = true,
          value_parser = secret())]
    pub api_key: Secret,
    /// Sync.so address
    #[arg(id = "sync_api_url", long = "sync-api-url", env = "SYNC_API_URL", default_value = "https://api.sync.so",
          value_parser = http_url)]
    pub api_url: Url,
    /// Secret of Sync.so webhooks, with its `whsec_`; without it webhooks are refused and polling does the work. The producer
    /// needs it where `PUBLIC_URL` is set
    #[arg(id = "sync_webhook_secret", long = "sync-webhook-secret", env = "SYNC_WEBHOOK_SECRET", hide_env_values = true,
          value_parser = secret())]
    pub webhook_secret: Option<Secret>,
    /// Sync.so model
    #[arg(id = "sync_model", long = "sync-model", env = "SYNC_MODEL", default_value = "lipsync-2-pro",
          value_parser = NonEmptyStringValueParser::new())]
    pub model: String,
    /// What Sync.so does where audio and video differ in length (`sync_mode`)
    #[arg(id = "sync_mode", long = "sync-mode", env = "SYNC_MODE", default_value = "remap",
          value_parser = NonEmptyStringValueParser::new())]
    pub mode: String,
}

/// Our account at GhostCut.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "GhostCut")]
pub struct GhostcutApi {
    /// Name of the GhostCut account in the ledger
    #[arg(id = "ghostcut_account", long = "ghostcut-account", env = "GHOSTCUT_ACCOUNT", default_value = "default",
          value_parser = NonEmptyStringValueParser::new())]
    pub account: String,
    /// GhostCut AppKey
    #[arg(id = "ghostcut_api_key", long = "ghostcut-api-key", env = "GHOSTCUT_API_KEY", hide_env_values = true,
          value_parser = secret())]
    pub api_key: Secret,
    /// GhostCut AppSecret: signs requests, checks callbacks
    #[arg(id = "ghostcut_app_secret", long = "ghostcut-app-secret", env = "GHOSTCUT_APP_SECRET", hide_env_values = true,
          value_parser = secret())]
    pub app_secret: Secret,
    /// GhostCut sub-user the works are booked on; the main account when absent
    #[arg(id = "ghostcut_uid", long = "ghostcut-uid", env = "GHOSTCUT_UID",
          value_parser = NonEmptyStringValueParser::new())]
    pub uid: Option<String>,
    /// GhostCut address
    #[arg(id = "ghostcut_api_url", long = "ghostcut-api-url", env = "GHOSTCUT_API_URL",
          default_value = "https://api.zhaoli.com", value_parser = http_url)]
    pub api_url: Url,
}

/// How long a vendor may take to answer.
#[derive(Args, Clone, Copy, Debug)]
#[command(next_help_heading = "Vendors")]
pub struct VendorTimeouts {
    /// Longest wait for a connection to a vendor
    #[arg(id = "vendor_connect_timeout", long = "vendor-connect-timeout", env = "VENDOR_CONNECT_TIMEOUT",
          default_value = "5s", value_parser = humantime::parse_duration)]
    pub connect: Duration,
    /// Longest time for a whole request to a vendor, its answer included
    #[arg(id = "vendor_request_timeout", long = "vendor-request-timeout", env = "VENDOR_REQUEST_TIMEOUT",
          default_value = "30s", value_parser = humantime::parse_duration)]
    pub request: Duration,
}

fn secret() -> impl TypedValueParser<Value = Secret> {
    NonEmptyStringValueParser::new().map(Secret::from)
}

/// An `http` or `https` address without query or fragment, to which paths are appended.
pub(super) fn http_url(text: &str) -> Result<Url, String> {
    let url: Url = text.parse().map_err(|error| format!("{error}"))?;
    match url {
        _ if !matches!(url.scheme(), "http" | "https") => {
            Err("must begin with http:// or https://".to_owned())
        }
        _ if url.query().is_some() || url.fragment().is_some() => {
            Err("must have no query or fragment".to_owned())
        }
        _ => Ok(url),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        sync: SyncApi,
        #[command(flatten)]
        ghostcut: GhostcutApi,
        #[command(flatten)]
        timeouts: VendorTimeouts,
    }

    const REQUIRED: [&str; 4] = [
        "fleet",
        "--sync-api-key=sk-hunter2",
        "--ghostcut-api-key=ak-hunter2",
        "--ghostcut-app-secret=as-hunter2",
    ];

    fn parse(more: &[&str]) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(REQUIRED.iter().chain(more))
    }

    #[test]
    fn keys_are_all_that_is_required_and_they_never_print() {
        let cli = parse(&["--sync-webhook-secret=whsec_hunter2"]).unwrap();
        assert_eq!(cli.ghostcut.app_secret.expose(), "as-hunter2");
        assert_eq!(cli.ghostcut.api_url.as_str(), "https://api.zhaoli.com/");
        assert_eq!(cli.sync.api_url.as_str(), "https://api.sync.so/");
        assert_eq!(
            (cli.sync.model.as_str(), cli.sync.mode.as_str()),
            ("lipsync-2-pro", "remap")
        );
        assert_eq!(cli.timeouts.connect, Duration::from_secs(5));
        assert!(!format!("{cli:?}").contains("hunter2"));
    }

    #[test]
    fn mistakes_are_named() {
        let message = |more: &[&str]| parse(more).unwrap_err().to_string();
        assert!(message(&["--sync-api-url=ftp://x"]).contains("http"));
        assert!(message(&["--ghostcut-api-url=https://x/?key=1"]).contains("query"));
        assert!(message(&["--vendor-request-timeout=30"]).contains("vendor-request-timeout"));
        assert!(message(&["--ghostcut-uid="]).contains("ghostcut-uid"));
    }
}
