//! The one form in which people are told a time. Programs get RFC 3339, and so does what is to be copied into a command.

use std::fmt::Display;
use std::time::Duration;

use chrono::{DateTime, Utc};

/// `2026-11-22 16:00:00 UTC`, always with its zone.
pub const FORM: &str = "%Y-%m-%d %H:%M:%S UTC";

/// A time of a document of the API as people are told it.
#[must_use]
pub fn told_text(at: &str) -> String {
    at.parse()
        .map_or_else(|_| at.to_owned(), |at| told(at).to_string())
}

/// A time as people are told it.
pub fn told(at: DateTime<Utc>) -> impl Display {
    at.format(FORM)
}

/// How long something lasts: whole days as days, which would else be months and odd hours.
#[must_use]
pub fn lasting(time: Duration) -> String {
    const DAY: u64 = 24 * 3600;
    match time.as_secs() {
        DAY => "1 day".to_owned(),
        seconds if seconds > DAY && seconds % DAY == 0 => format!("{} days", seconds / DAY),
        _ => humantime::format_duration(time).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn sources(folder: &Path, found: &mut Vec<(String, String)>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                sources(&path, found);
            } else {
                let text = std::fs::read_to_string(&path).unwrap_or_default();
                found.push((path.display().to_string(), text));
            }
        }
    }

    #[test]
    fn a_time_of_a_document_is_told_like_any_other() {
        let text = "2026-11-22T16:00:00.123456Z";
        assert_eq!(told_text(text), "2026-11-22 16:00:00 UTC");
        assert_eq!(told(text.parse().unwrap()).to_string(), told_text(text));
        assert_eq!(told_text("-"), "-");
    }

    #[test]
    fn days_are_told_as_days() {
        for (hours, told) in [
            (90 * 24, "90 days"),
            (24, "1 day"),
            (36, "1day 12h"),
            (1, "1h"),
        ] {
            assert_eq!(lasting(Duration::from_secs(hours * 3600)), told);
        }
    }

    #[test]
    fn people_are_told_times_in_no_other_form() {
        let mut found = Vec::new();
        sources(
            &Path::new(env!("CARGO_MANIFEST_DIR")).join("src"),
            &mut found,
        );
        assert!(found.len() > 100, "{} files", found.len());
        for (name, text) in found {
            // What is to be copied into a command is RFC 3339.
            let text = text.replace(concat!("format(\"", "%Y-%m-%dT%H:%M:%SZ\")"), "");
            assert!(!text.contains(concat!("format(\"", "%")), "{name}");
        }
    }
}
