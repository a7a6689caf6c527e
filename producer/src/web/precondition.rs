//! Versions of what can be changed: told as `ETag`, asked for as `If-Match` and `If-None-Match` (RFC 9110, section 13.1), so that whoever
//! decides by what they have seen does not change what somebody else has made of it since.

use axum::http::{HeaderMap, HeaderName, header};
use shared::db::ABSENT;

use super::problem::{Kind, Problem};

/// The version that a change is for; none: whatever is there.
///
/// # Errors
/// When it is no version of ours, so that nothing can have it any more.
pub(super) fn if_match(headers: &HeaderMap) -> Result<Option<i64>, Problem> {
    match headers.get(header::IF_MATCH) {
        None => Ok(None),
        Some(tag) if tag == "*" => Ok(None),
        Some(tag) => version(tag.as_bytes()).map(Some).ok_or_else(outdated),
    }
}

/// The same of what need not be there yet: `If-None-Match: *` is for making it.
///
/// # Errors
/// See [`if_match`].
pub(super) fn if_match_or_none(headers: &HeaderMap) -> Result<Option<i64>, Problem> {
    match headers.get(header::IF_NONE_MATCH) {
        Some(tag) if tag == "*" => Ok(Some(ABSENT)),
        _ => if_match(headers),
    }
}

/// Somebody was first.
pub(super) fn outdated() -> Problem {
    let detail = "read it again; `If-Match` takes its `ETag`";
    Problem::new(Kind::VersionOutdated, detail)
}

/// The header that tells a version.
pub(super) fn etag(version: i64) -> [(HeaderName, String); 1] {
    [(header::ETAG, format!("\"{version}\""))]
}

/// The version in a tag; a list of tags or a weak one matches nothing here.
fn version(tag: &[u8]) -> Option<i64> {
    let tag = std::str::from_utf8(tag).ok()?.trim();
    tag.strip_prefix('"')?.strip_suffix('"')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn a_tag_is_a_version_in_quotes() {
        assert_eq!(version(b"\"7\""), Some(7));
        for tag in [
            &b"7"[..],
            b"W/\"7\"",
            b"\"7\", \"8\"",
            b"\"\"",
            b"\"",
            b"\xff",
            b"\"x\"",
        ] {
            assert_eq!(version(tag), None, "{tag:?}");
        }
    }

    #[test]
    fn what_is_not_there_yet_has_a_version_too() {
        let asked = |name: HeaderName, value: &'static str| {
            let headers = HeaderMap::from_iter([(name, HeaderValue::from_static(value))]);
            if_match_or_none(&headers).ok()
        };
        assert_eq!(asked(header::IF_NONE_MATCH, "*"), Some(Some(ABSENT)));
        assert_eq!(asked(header::IF_MATCH, "\"7\""), Some(Some(7)));
        assert_eq!(asked(header::IF_MATCH, "*"), Some(None));
        assert_eq!(asked(header::IF_MATCH, "\"x\""), None);
        assert_eq!(asked(header::ACCEPT, "*"), Some(None));
    }
}
