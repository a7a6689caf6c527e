//! Which URLs belong to our bucket, and which URL an object has.

use super::StorageError;
use crate::config::storage::StorageConfig;
use percent_encoding::percent_decode_str;
use rusoto_core::Region;
use url::Url;

/// The bucket, the endpoint it is reached at and the URLs that mean it.
#[derive(Debug)]
pub(super) struct Location {
    pub(super) bucket: String,
    /// Always a custom region: rusoto's list of regions ends in 2022, and for AWS its rule is a fixed pattern anyway.
    pub(super) region: Region,
    /// URLs under which the bucket's keys appear, each ending in `/`; object URLs are built on the first.
    bases: Vec<Url>,
    /// Whether the first of them is readable by everybody (`S3_PUBLIC_BASE_URL`).
    public: bool,
}

impl Location {
    pub(super) fn new(config: &StorageConfig) -> Result<Self, StorageError> {
        let bucket = &config.aws_s3_bucket;
        let region = &config.aws_region;
        check_name("AWS_S3_BUCKET", bucket)?;
        check_name("AWS_REGION", region)?;
        let own_endpoint = base_url("S3_ENDPOINT_URL", config.s3_endpoint_url.as_deref())?;
        let public = base_url("S3_PUBLIC_BASE_URL", config.s3_public_base_url.as_deref())?;

        let is_public = public.is_some();
        let mut bases: Vec<Url> = public.into_iter().collect();
        let endpoint = match own_endpoint {
            Some(endpoint) => endpoint,
            None => {
                let domain = if region.starts_with("cn-") {
                    "amazonaws.com.cn"
                } else {
                    "amazonaws.com"
                };
                let global = known(&format!("https://{bucket}.s3.amazonaws.com/"))?;
                let regional = known(&format!("https://{bucket}.s3.{region}.{domain}/"))?;
                bases.extend(if region == "us-east-1" {
                    [global, regional]
                } else {
                    [regional, global]
                });
                known(&format!("https://s3.{region}.{domain}/"))?
            }
        };
        bases.push(known(&format!("{endpoint}{bucket}/"))?);
        // rusoto joins endpoint and path without looking, so the endpoint must not end in a slash.
        let endpoint = endpoint.as_str().trim_end_matches('/').to_owned();
        Ok(Self {
            bucket: bucket.clone(),
            region: Region::Custom {
                name: region.clone(),
                endpoint,
            },
            bases,
            public: is_public,
        })
    }

    pub(super) fn public_url(&self, key: &str) -> Option<String> {
        self.public.then(|| self.object_url(key))
    }

    pub(super) fn object_url(&self, key: &str) -> String {
        format!("{}{}", self.bases[0], rusoto_s3::util::encode_key(key))
    }

    pub(super) fn key_of(&self, url: &str) -> Option<String> {
        if let Some(reference) = url.strip_prefix("s3://") {
            let (bucket, key) = reference.split_once('/')?;
            return (bucket == self.bucket && !key.is_empty()).then(|| key.to_owned());
        }
        let url = Url::parse(url).ok()?;
        if !url.username().is_empty() || url.password().is_some() {
            return None;
        }
        let under = |base: &Url| {
            let same = url.origin() == base.origin();
            same.then(|| url.path().strip_prefix(base.path()))
                .flatten()
                .filter(|key| !key.is_empty())
        };
        let key = self.bases.iter().find_map(under)?;
        percent_decode_str(key).decode_utf8().ok().map(Into::into)
    }
}

fn check_name(setting: &'static str, name: &str) -> Result<(), StorageError> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
    if name.is_empty() || name.starts_with('.') || !name.bytes().all(allowed) {
        let reason = "must consist of letters, digits, `-`, `.` and `_`".to_owned();
        return Err(StorageError::Setting { setting, reason });
    }
    Ok(())
}

/// A configured URL in normal form (no default port, as a signature covers the host) ending in `/`.
fn base_url(setting: &'static str, text: Option<&str>) -> Result<Option<Url>, StorageError> {
    let Some(text) = text.filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    let invalid = |reason: &str| StorageError::Setting {
        setting,
        reason: reason.to_owned(),
    };
    let mut url = Url::parse(text).map_err(|_| invalid("is not a URL"))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(invalid("must begin with http:// or https://"));
    }
    if !url.username().is_empty()
        || url.password().is_some()
        || url.query().is_some()
        || url.fragment().is_some()
    {
        return Err(invalid(
            "must not have a user, a password, a query or a fragment",
        ));
    }
    let path = format!("{}/", url.path().trim_end_matches('/'));
    url.set_path(&path);
    Ok(Some(url))
}

fn known(text: &str) -> Result<Url, StorageError> {
    Url::parse(text).map_err(|_| StorageError::Setting {
        setting: "AWS_S3_BUCKET",
        reason: "cannot be part of a URL".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::tests::config;

    fn location(region: &str, endpoint: Option<&str>, public: Option<&str>) -> Location {
        let mut config = config("media");
        config.aws_region = region.to_owned();
        config.s3_endpoint_url = endpoint.map(str::to_owned);
        config.s3_public_base_url = public.map(str::to_owned);
        Location::new(&config).unwrap()
    }

    #[test]
    fn object_urls_follow_the_configuration_and_are_encoded() {
        let url =
            |region, endpoint, public| location(region, endpoint, public).object_url("a/b c#.mp4");
        assert_eq!(
            url("us-east-1", None, None),
            "https://media.s3.amazonaws.com/a/b%20c%23.mp4"
        );
        assert_eq!(
            url("eu-west-1", None, None),
            "https://media.s3.eu-west-1.amazonaws.com/a/b%20c%23.mp4"
        );
        assert_eq!(
            url("x", Some("http://127.0.0.1:9000/"), None),
            "http://127.0.0.1:9000/media/a/b%20c%23.mp4"
        );
        assert_eq!(
            url("x", Some("http://h/s3"), None),
            "http://h/s3/media/a/b%20c%23.mp4"
        );
        assert_eq!(
            url("x", Some("http://h"), Some("https://cdn.test/v/")),
            "https://cdn.test/v/a/b%20c%23.mp4"
        );
        assert_eq!(
            url("x", Some(""), Some("")),
            "https://media.s3.x.amazonaws.com/a/b%20c%23.mp4"
        );
    }

    #[test]
    fn urls_of_our_bucket_are_recognised() {
        let aws = location("eu-west-1", None, Some("https://cdn.test/v"));
        for url in [
            "s3://media/a/b c.mp4",
            "https://cdn.test/v/a/b%20c.mp4",
            "https://MEDIA.s3.amazonaws.com/a/b c.mp4",
            "https://media.s3.eu-west-1.amazonaws.com:443/a/b%20c.mp4?X-Amz-Signature=1",
            "https://s3.eu-west-1.amazonaws.com/media/a/b%20c.mp4",
            "https://media.s3.amazonaws.com/x/../a/b%20c.mp4",
        ] {
            assert_eq!(aws.key_of(url).as_deref(), Some("a/b c.mp4"), "{url}");
        }
        let own = location("us-east-1", Some("http://127.0.0.1:9000"), None);
        assert_eq!(
            own.key_of("http://127.0.0.1:9000/media/k").as_deref(),
            Some("k")
        );
        assert_eq!(own.key_of(&own.object_url("ä/?#")).as_deref(), Some("ä/?#"));
    }

    #[test]
    fn other_urls_are_not_ours() {
        let aws = location("eu-west-1", None, Some("https://cdn.test/v"));
        for url in [
            "s3://media/",
            "s3://media",
            "s3://media2/k",
            "https://cdn.test/k",
            "https://cdn.test/v/",
            "https://cdn.test/v/../k",
            "https://media.s3.amazonaws.com.evil.test/k",
            "https://u:p@media.s3.amazonaws.com/k",
            "http://media.s3.amazonaws.com/k",
            "https://s3.eu-west-1.amazonaws.com/media2/k",
            "https://media.s3.amazonaws.com/%ff",
            "media/k",
        ] {
            assert_eq!(aws.key_of(url), None, "{url}");
        }
        let own = location("us-east-1", Some("http://127.0.0.1:9000"), None);
        assert_eq!(own.key_of("https://media.s3.amazonaws.com/k"), None);
    }

    #[test]
    fn bad_settings_are_named() {
        let check = |edit: fn(&mut StorageConfig)| {
            let mut config = config("media");
            edit(&mut config);
            Location::new(&config).unwrap_err().to_string()
        };
        assert!(check(|c| c.aws_s3_bucket = "a/b".into()).starts_with("AWS_S3_BUCKET: "));
        assert!(check(|c| c.aws_region = String::new()).starts_with("AWS_REGION: "));
        assert!(
            check(|c| c.s3_endpoint_url = Some("ftp://h".into())).starts_with("S3_ENDPOINT_URL: ")
        );
        assert!(
            check(|c| c.s3_endpoint_url = Some("http://u:p@h".into()))
                .starts_with("S3_ENDPOINT_URL: ")
        );
        assert!(
            check(|c| c.s3_public_base_url = Some("cdn".into()))
                .starts_with("S3_PUBLIC_BASE_URL: ")
        );
    }
}
