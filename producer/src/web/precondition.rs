//! Versions of what can be changed: told as `ETag`, asked for as `If-Match` and `If-None-Match` (RFC 9110, section 13.1), so that whoever
//! decides by what they have seen does not change what somebody else has made of it since.

use std::fmt::Display;
use std::str::FromStr;

use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use shared::db::IfNote;

use super::problem::{Kind, Problem};

/// The version that a change is for; none: whatever is there.
///
/// # Errors
/// When it is no version of ours, so that nothing can have it any more.
pub(super) fn if_match<V: FromStr>(headers: &HeaderMap) -> Result<Option<V>, Problem> {
    match one(headers, &header::IF_MATCH)? {
        None => Ok(None),
        Some(tag) if tag == "*" => Ok(None),
        Some(tag) => version(tag.as_bytes()).map(Some).ok_or_else(outdated),
    }
}

/// The same of a note, which need not be there: `If-None-Match: *` is for making it.
///
/// # Errors
/// See [`if_match`].
pub(super) fn if_note(headers: &HeaderMap) -> Result<IfNote, Problem> {
    match one(headers, &header::IF_NONE_MATCH)? {
        Some(tag) if tag == "*" => return Ok(IfNote::Absent),
        // That it is another one than this is nothing to write by.
        Some(_) => return Err(outdated()),
        None => {}
    }
    match one(headers, &header::IF_MATCH)? {
        Some(tag) if tag == "*" => Ok(IfNote::Present),
        _ => Ok(if_match(headers)?.map_or(IfNote::Any, IfNote::Version)),
    }
}

/// The only value of a header; several are never what is meant here.
fn one<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a HeaderValue>, Problem> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (value, None) => Ok(value),
        _ => Err(outdated()),
    }
}

/// Somebody was first.
pub(super) fn outdated() -> Problem {
    let detail = "read it again; `If-Match` takes its `version`, in quotes";
    Problem::new(Kind::VersionOutdated, detail)
}

/// The header that tells a version.
pub(super) fn etag(version: impl Display) -> [(HeaderName, String); 1] {
    [(header::ETAG, format!("\"{version}\""))]
}

/// The version in a tag; a list of tags or a weak one matches nothing here.
fn version<V: FromStr>(tag: &[u8]) -> Option<V> {
    let tag = std::str::from_utf8(tag).ok()?.trim();
    tag.strip_prefix('"')?.strip_suffix('"')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_a_version_in_quotes() {
        assert_eq!(version(b"\"7\""), Some(7));
        assert_eq!(version(b"\"7-failed\""), Some("7-failed".to_owned()));
        for tag in [
            &b"7"[..],
            b"W/\"7\"",
            b"\"7\", \"8\"",
            b"\"\"",
            b"\"",
            b"\xff",
            b"\"x\"",
        ] {
            assert_eq!(version::<i64>(tag), None, "{tag:?}");
        }
    }

    #[test]
    fn what_is_not_there_yet_has_a_version_too() {
        let asked = |lines: &[(HeaderName, &'static str)]| {
            let lines = lines.iter();
            let lines = lines.map(|(name, value)| (name.clone(), HeaderValue::from_static(value)));
            let mut headers = HeaderMap::new();
            headers.extend(lines);
            if_note(&headers).ok()
        };
        let (is, is_not) = (header::IF_MATCH, header::IF_NONE_MATCH);
        assert_eq!(asked(&[(is_not.clone(), "*")]), Some(IfNote::Absent));
        assert_eq!(asked(&[(is_not, "\"7\"")]), None);
        assert_eq!(asked(&[(is.clone(), "\"7\"")]), Some(IfNote::Version(7)));
        assert_eq!(asked(&[(is.clone(), "*")]), Some(IfNote::Present));
        assert_eq!(asked(&[(is.clone(), "\"x\"")]), None);
        let mut twice = HeaderMap::from_iter([(is.clone(), HeaderValue::from_static("\"7\""))]);
        twice.append(is, HeaderValue::from_static("\"8\""));
        assert!(if_note(&twice).is_err() && if_match::<i64>(&twice).is_err());
        assert_eq!(asked(&[(header::ACCEPT, "*")]), Some(IfNote::Any));
    }
}
