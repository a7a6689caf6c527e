//! Where vendors reach us. Nothing depends on being reached: without a public address polling alone does the work.

use clap::Args;
use url::{Host, Url};
use uuid::Uuid;

use super::vendor::http_url;
use crate::domain::Vendor;

/// The address under which the vendors call back.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Callbacks")]
pub struct CallbackConfig {
    /// Address under which the vendors reach the producers' API, https; without it no callbacks are asked for
    #[arg(long, env, value_parser = public_url)]
    pub public_url: Option<Url>,
}

impl CallbackConfig {
    /// The URL that a vendor is to call when the work of this submission ends. None: it is not asked to.
    #[must_use]
    pub fn url(&self, vendor: Vendor, token: Uuid) -> Option<String> {
        let base = self.public_url.as_ref()?.as_str().trim_end_matches('/');
        Some(format!("{base}/webhooks/{vendor}/{token}"))
    }
}

/// Sync.so takes https alone; plain http serves simulators on this machine.
fn public_url(text: &str) -> Result<Url, String> {
    let url = http_url(text)?;
    let local = match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    };
    if url.scheme() != "https" && !local {
        return Err("must begin with https://, which Sync.so demands".to_owned());
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("must not contain a user name or password".to_owned());
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_submission_has_a_path_of_its_own() {
        let token = Uuid::from_u128(7);
        let url = |public: &str| {
            let config = CallbackConfig {
                public_url: Some(public_url(public).unwrap()),
            };
            config.url(Vendor::Ghostcut, token).unwrap()
        };
        let path = format!("webhooks/ghostcut/{token}");
        assert_eq!(
            url("https://fleet.test"),
            format!("https://fleet.test/{path}")
        );
        assert_eq!(
            url("https://fleet.test/api/"),
            format!("https://fleet.test/api/{path}")
        );
        assert_eq!(
            url("http://127.0.0.1:81"),
            format!("http://127.0.0.1:81/{path}")
        );
        assert_eq!(CallbackConfig::default().url(Vendor::Sync, token), None);
    }

    #[test]
    fn addresses_that_vendors_cannot_use_are_refused() {
        for (text, part) in [
            ("http://fleet.test", "https"),
            ("ftp://fleet.test", "http"),
            ("https://fleet.test?key=1", "query"),
            ("https://u:p@fleet.test", "user name"),
            ("fleet.test", "URL"),
        ] {
            let error = public_url(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
