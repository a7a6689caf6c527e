//! Times on the command line: how long ago, or a moment.

use chrono::{DateTime, TimeDelta, Utc};

/// Reads `2h`, `3days` (so long ago) or an RFC 3339 time.
///
/// # Errors
/// What is expected.
pub fn since(text: &str) -> Result<DateTime<Utc>, String> {
    if let Ok(time) = DateTime::parse_from_rfc3339(text) {
        return Ok(time.to_utc());
    }
    humantime::parse_duration(text)
        .ok()
        .and_then(|ago| TimeDelta::from_std(ago).ok())
        .and_then(|ago| Utc::now().checked_sub_signed(ago))
        .ok_or_else(|| {
            "is neither how long ago, such as `2h`, nor a time such as `2026-11-22T16:00:00Z`"
                .to_owned()
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_are_read() {
        let ago = Utc::now() - since("90m").unwrap();
        assert!((5399..5460).contains(&ago.num_seconds()), "{ago}");
        let time = since("2026-11-22T16:00:00+01:00").unwrap();
        assert_eq!(time.to_rfc3339(), "2026-11-22T15:00:00+00:00");
        for wrong in ["", "yesterday", "2026-11-22", "99999999999999years"] {
            assert!(since(wrong).is_err(), "{wrong}");
        }
    }
}
