//! Where a media file lies: a web URL or an object in a bucket.
//!
//! Decides by the text alone; whether an address may be fetched is decided where it is fetched. Debug never shows a
//! query string: that is where signatures are.

use std::str::FromStr;

use percent_encoding::percent_decode_str;
use url::Url;

use super::fields::{FieldCode, Node};
use super::search::Marker;

/// Longest URL taken, in bytes, after percent-encoding.
pub const MAX_URL_LENGTH: usize = 2048;
/// Longest S3 key, in bytes of UTF-8.
const MAX_KEY_LENGTH: usize = 1024;

/// Where a media file lies.
#[derive(Clone, PartialEq, Eq)]
pub enum Location {
    /// An `http` or `https` URL, percent-encoded: plain ASCII, without credentials or fragment.
    Web(Url),
    /// An object in S3, written `s3://bucket/key` with the key as it is, not percent-encoded.
    Object {
        /// Name of the bucket.
        bucket: String,
        /// Key in the bucket.
        key: String,
    },
}

/// Why a text is not a [`Location`].
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum LocationError {
    /// Longer than [`MAX_URL_LENGTH`].
    #[error("must have at most {MAX_URL_LENGTH} bytes once percent-encoded")]
    TooLong,
    /// A control character, which URL parsers silently drop.
    #[error("must not contain control characters")]
    ControlCharacter,
    /// Not a URL.
    #[error("must be a URL")]
    NotUrl(#[source] url::ParseError),
    /// Neither web nor S3.
    #[error("must begin with https://, http:// or s3://")]
    Scheme,
    /// A user name or password, which would be handed to a vendor and stored.
    #[error("must not contain a user name or password")]
    Credentials,
    /// A fragment never reaches a server: most likely an unencoded `#` in a file name.
    #[error("must not contain `#`; in a file name write %23")]
    Fragment,
    /// A name by which the fleet knows its own works. Vendors show input URLs, and such a one would pass for another submission's.
    #[error(
        "must not contain a name like `gf-<job>-1-<token>`: by such names the fleet knows its works at the vendors"
    )]
    Marker,
    /// Not a bucket name of S3.
    #[error("must name a bucket: 3 to 63 lower-case letters, digits, dots and hyphens")]
    Bucket,
    /// Not a key we can fetch.
    #[error("must name a key of 1 to {MAX_KEY_LENGTH} bytes without `.` or `..` as a part")]
    Key,
}

impl FromStr for Location {
    type Err = LocationError;

    fn from_str(text: &str) -> Result<Self, LocationError> {
        if text.len() > MAX_URL_LENGTH {
            return Err(LocationError::TooLong);
        }
        if text.chars().any(char::is_control) {
            return Err(LocationError::ControlCharacter);
        }
        if Marker::find(text).is_some() {
            return Err(LocationError::Marker);
        }
        if let Some(object) = text.strip_prefix("s3://") {
            return parse_object(object);
        }
        let url = Url::parse(text).map_err(LocationError::NotUrl)?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(LocationError::Scheme);
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(LocationError::Credentials);
        }
        if url.fragment().is_some() {
            return Err(LocationError::Fragment);
        }
        if url.as_str().len() > MAX_URL_LENGTH {
            return Err(LocationError::TooLong);
        }
        Ok(Self::Web(url))
    }
}

fn parse_object(object: &str) -> Result<Location, LocationError> {
    let (bucket, key) = object.split_once('/').ok_or(LocationError::Key)?;
    let ends = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let valid = (3..=63).contains(&bucket.len())
        && bucket.chars().all(|c| ends(c) || matches!(c, '.' | '-'))
        && bucket.starts_with(ends)
        && bucket.ends_with(ends);
    if !valid {
        return Err(LocationError::Bucket);
    }
    // An HTTP client would resolve the dots and fetch another object.
    let dots = key.split('/').any(|part| matches!(part, "." | ".."));
    if key.is_empty() || key.len() > MAX_KEY_LENGTH || dots {
        return Err(LocationError::Key);
    }
    Ok(Location::Object {
        bucket: bucket.to_owned(),
        key: key.to_owned(),
    })
}

impl Location {
    /// The text that parses to this location again. May carry a signature: never for logs.
    #[must_use]
    pub fn to_text(&self) -> String {
        match self {
            Self::Web(url) => url.to_string(),
            Self::Object { bucket, key } => format!("s3://{bucket}/{key}"),
        }
    }

    /// The file name at the end, decoded, for people to read. None where the location ends in a slash.
    #[must_use]
    pub fn file_name(&self) -> Option<String> {
        let last = match self {
            Self::Web(url) => percent_decode_str(url.path().rsplit('/').next()?)
                .decode_utf8_lossy()
                .into_owned(),
            Self::Object { key, .. } => key.rsplit('/').next()?.to_owned(),
        };
        let name: String = last.chars().filter(|c| !c.is_control()).collect();
        (!name.is_empty()).then_some(name)
    }

    pub(super) fn read(node: &Node<'_>) -> Option<Self> {
        node.raw_text()?
            .parse()
            .map_err(|error: LocationError| {
                let code = match error {
                    LocationError::TooLong => FieldCode::OutOfRange,
                    _ => FieldCode::Malformed,
                };
                node.fault(code, error.to_string());
            })
            .ok()
    }
}

impl std::fmt::Debug for Location {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Web(url) => {
                let mut shown = url.clone();
                shown.set_query(None);
                f.write_str(shown.as_str())
            }
            Self::Object { .. } => f.write_str(&self.to_text()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn texts_and_what_they_become() {
        for (text, stored) in [
            ("https://a.example/v.mp4?X=1", "https://a.example/v.mp4?X=1"),
            ("http://a.example:9000/v.mp4", "http://a.example:9000/v.mp4"),
            (
                "https://a.example/my video.mp4",
                "https://a.example/my%20video.mp4",
            ),
            (
                "https://a.example/测.mp4",
                "https://a.example/%E6%B5%8B.mp4",
            ),
            ("s3://my-bucket/a b/测#1.mp4", "s3://my-bucket/a b/测#1.mp4"),
        ] {
            assert_eq!(text.parse::<Location>().unwrap().to_text(), stored);
        }
    }

    #[test]
    fn texts_that_are_refused() {
        use LocationError as E;
        let long = format!("https://a.example/{}", "x".repeat(MAX_URL_LENGTH));
        let marker =
            "gf-7b0c6c7e-0f8b-4a1e-9d0a-0f8b00000001-1-6f0f9d0a-0f8b-4a1e-9d0a-0f8b00000001";
        let marked = &format!("https://a.example/v.mp4?n={marker}");
        let long_when_encoded = format!("https://a.example/{}", "测".repeat(400));
        for (text, expected) in [
            (long.as_str(), E::TooLong),
            (&long_when_encoded, E::TooLong),
            ("https://a.example/\tv", E::ControlCharacter),
            ("", E::NotUrl(url::ParseError::RelativeUrlWithoutBase)),
            ("None", E::NotUrl(url::ParseError::RelativeUrlWithoutBase)),
            ("https://", E::NotUrl(url::ParseError::EmptyHost)),
            ("file:///etc/passwd", E::Scheme),
            ("https://u:p@a.example/v", E::Credentials),
            ("https://a.example/v#1.mp4", E::Fragment),
            (marked, E::Marker),
            (&marked.replace('-', "%2D"), E::Marker),
            (&format!("s3://bucket/{marker}.mp4"), E::Marker),
            ("s3://Up/v.mp4", E::Bucket),
            ("s3://-bucket/v.mp4", E::Bucket),
            ("s3://bucket", E::Key),
            ("s3://bucket/", E::Key),
            ("s3://bucket/a/../b", E::Key),
        ] {
            assert_eq!(text.parse::<Location>(), Err(expected), "{text:.60}");
        }
    }

    #[test]
    fn file_names_are_decoded() {
        for (text, name) in [
            (
                "https://a.example/x/my%20video.mp4?sig=1",
                Some("my video.mp4"),
            ),
            ("https://a.example/%00%0Aa.mp4", Some("a.mp4")),
            ("https://a.example/", None),
            ("s3://bucket/a/b%20c.mp4", Some("b%20c.mp4")),
        ] {
            let location: Location = text.parse().unwrap();
            assert_eq!(location.file_name().as_deref(), name);
        }
    }

    #[test]
    fn debug_hides_the_signature() {
        let location: Location = "https://a.example/v.mp4?X-Amz-Signature=abc"
            .parse()
            .unwrap();
        assert_eq!(format!("{location:?}"), "https://a.example/v.mp4");
    }

    proptest! {
        #[test]
        fn what_is_taken_reads_back(text in "(https?://|s3://)?[a-z0-9./?%#: 测-]{0,40}") {
            if let Ok(location) = text.parse::<Location>() {
                prop_assert_eq!(location.to_text().parse::<Location>().unwrap(), location);
            }
        }
    }
}
