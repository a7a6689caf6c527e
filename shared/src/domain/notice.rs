//! Notices that a job has ended, which its submitter asked for: where they may go, and what an answer to one means.
//!
//! Must not know how they are sent or signed.

use std::time::Duration;

use url::Url;

use super::outcome::Schedule;
use super::words::vocabulary;

/// Longest URL that is told, in bytes.
pub const MAX_URL_LENGTH: usize = 2048;

vocabulary! {
    /// Where a notice stands.
    NoticeState {
        /// It is to be sent, perhaps again.
        Waiting = "waiting",
        /// The receiver took it.
        Delivered = "delivered",
        /// The receiver wants none of it: it answered 410.
        Refused = "refused",
        /// Nobody took it, however often it was sent.
        GivenUp = "given_up",
    }
}

/// Where notices about a job go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// As the submitter gave it, normalised. May hold a secret of the receiver.
    pub url: Url,
    /// The name or address in it.
    pub host: String,
}

impl Target {
    /// Reads a URL. Whether it may be plain http, and whether its address is allowed, depends on the deployment.
    ///
    /// # Errors
    /// What is wrong with it; never repeats it.
    pub fn read(text: &str) -> Result<Self, &'static str> {
        let url = Url::parse(text).map_err(|_| "must be a URL that begins with https://")?;
        if !matches!(url.scheme(), "https" | "http") {
            return Err("must be a URL that begins with https://");
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err("must not contain a user name or password");
        }
        if url.fragment().is_some() {
            return Err("must not have a fragment (#…)");
        }
        if url.as_str().len() > MAX_URL_LENGTH {
            return Err("must be at most 2048 characters long when it is encoded");
        }
        let host = url.host_str().filter(|host| !host.is_empty());
        let host = host.ok_or("must name a host")?.to_owned();
        Ok(Self { url, host })
    }
}

/// What a try to send a notice came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is over, in this state.
    Ended(NoticeState),
    /// It is sent again after so long.
    Again(Duration),
}

/// What follows from try number `tries` (from 1). `status` is the receiver's answer; none when no answer came. `spread` is a random
/// number from 0 to 1, so that notices that failed together are not sent together for ever.
#[must_use]
pub fn verdict(status: Option<u16>, tries: u32, retries: &Schedule, spread: f64) -> Verdict {
    match status {
        Some(200..=299) => Verdict::Ended(NoticeState::Delivered),
        Some(410) => Verdict::Ended(NoticeState::Refused),
        // A redirect is not followed: it could lead where the URL itself may not.
        _ if tries > retries.len() => Verdict::Ended(NoticeState::GivenUp),
        _ => {
            let delay = retries.delay(tries.saturating_sub(1));
            Verdict::Again(delay.mul_f64(0.9 + 0.2 * spread.clamp(0.0, 1.0)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_answer_has_its_meaning() {
        let retries: Schedule = "10s,100s".parse().unwrap();
        let of = |status, tries| verdict(status, tries, &retries, 0.5);
        for status in [200, 204, 299] {
            assert_eq!(of(Some(status), 9), Verdict::Ended(NoticeState::Delivered));
        }
        assert_eq!(of(Some(410), 1), Verdict::Ended(NoticeState::Refused));
        for status in [None, Some(199), Some(301), Some(404), Some(500)] {
            assert_eq!(of(status, 1), Verdict::Again(Duration::from_secs(10)));
            assert_eq!(of(status, 2), Verdict::Again(Duration::from_secs(100)));
            assert_eq!(of(status, 3), Verdict::Ended(NoticeState::GivenUp));
        }
    }

    #[test]
    fn tries_are_spread() {
        let retries: Schedule = "100s".parse().unwrap();
        let of = |spread| verdict(None, 1, &retries, spread);
        assert_eq!(of(0.0), Verdict::Again(Duration::from_secs(90)));
        assert_eq!(of(1.0), Verdict::Again(Duration::from_secs(110)));
    }

    #[test]
    fn targets_are_urls_of_hosts() {
        let target = Target::read("https://Hooks.Example/end?key=1").unwrap();
        assert_eq!(target.host, "hooks.example");
        assert_eq!(target.url.as_str(), "https://hooks.example/end?key=1");
        for (text, part) in [
            ("hooks.example", "https://"),
            ("ftp://hooks.example", "https://"),
            ("https://u:p@hooks.example", "user name"),
            ("https://hooks.example/#here", "fragment"),
            ("https://", "URL"),
        ] {
            let error = Target::read(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
        let long = format!("https://hooks.example/{}", "ü".repeat(400));
        assert!(Target::read(&long).unwrap_err().contains("2048"));
    }
}
