//! Times on the command line: how long ago, or a moment.

use chrono::{DateTime, NaiveDateTime, TimeDelta, Utc};

use crate::times::FORM;

/// Reads `2h`, `3days` (so long ago), an RFC 3339 time, or one as people are told it; none that is still to come.
///
/// # Errors
/// What is expected.
pub fn since(text: &str) -> Result<DateTime<Utc>, String> {
    let time = read(text)?;
    match time <= Utc::now() {
        true => Ok(time),
        false => Err("is a time that is still to come".to_owned()),
    }
}

fn read(text: &str) -> Result<DateTime<Utc>, String> {
    if let Ok(time) = DateTime::parse_from_rfc3339(text) {
        return Ok(time.to_utc());
    }
    if let Ok(time) = NaiveDateTime::parse_from_str(text, FORM) {
        return Ok(time.and_utc());
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
    fn every_form_is_read() {
        let ago = Utc::now() - since("90m").unwrap();
        assert!((5399..5460).contains(&ago.num_seconds()), "{ago}");
        let time = since("2026-11-22T16:00:00+01:00").unwrap();
        assert_eq!(time.to_rfc3339(), "2026-11-22T15:00:00+00:00");
        assert_eq!(since(&crate::times::told(time).to_string()), Ok(time));
        for wrong in [
            "2101-02-03T04:05:06Z",
            "",
            "yesterday",
            "2026-11-22",
            "99999999999999years",
        ] {
            assert!(since(wrong).is_err(), "{wrong}");
        }
    }
}
