//! The signatures of both vendors: GhostCut's on requests and callbacks, Sync.so's on webhooks.
//!
//! Always over the exact bytes sent or received. Comparisons take the same time wherever the texts differ.

use hmac::{Hmac, KeyInit, Mac};
use md5::{Digest, Md5};
use serde_json::Value;
use sha2::Sha256;
use subtle::ConstantTimeEq;

use crate::config::Secret;

/// GhostCut's `AppSign` of a request body: `md5hex(md5hex(body) + secret)`.
#[must_use]
pub fn ghostcut(secret: &Secret, body: &[u8]) -> String {
    let digest = hex::encode(Md5::digest(body));
    hex::encode(Md5::digest(format!("{digest}{}", secret.expose())))
}

/// Whether `header` (`Callback-Sign`) is GhostCut's signature of a callback with this raw body.
#[must_use]
pub fn ghostcut_matches(secret: &Secret, header: &str, body: &[u8]) -> bool {
    let expected = ghostcut(secret, body);
    header.trim().as_bytes().ct_eq(expected.as_bytes()).into()
}

/// A webhook that Sync.so did not sign with our secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// The header is not `t=<unix seconds>,v1=<hex>`.
    #[error("the signature header is malformed")]
    Malformed,
    /// The header belongs to another body or another secret.
    #[error("the signature does not match")]
    Mismatch,
}

/// Checks `header` (`Sync-Signature`) against a webhook's raw body and returns the Unix second it was signed at, so that
/// the caller can log old ones (the vendor documents no tolerance).
///
/// The vendor's sample signs the parsed and compactly written JSON, so that form is tried where the raw bytes fail.
pub fn sync(secret: &Secret, header: &str, body: &[u8]) -> Result<i64, SignatureError> {
    let (mut time, mut signatures) = (None, Vec::new());
    for part in header.split(',') {
        match part.trim().split_once('=') {
            Some(("t", seconds)) => time = Some(seconds),
            Some(("v1", hex)) => signatures.extend(hex::decode(hex)),
            _ => {}
        }
    }
    let time = time.ok_or(SignatureError::Malformed)?;
    let signed_at = time.parse().map_err(|_| SignatureError::Malformed)?;
    if signatures.is_empty() {
        return Err(SignatureError::Malformed);
    }
    let matches = |payload: &[u8]| {
        signatures
            .iter()
            .any(|signature| hmac_matches(secret, time, payload, signature))
    };
    let compact = || {
        serde_json::from_slice::<Value>(body).is_ok_and(|json| matches(json.to_string().as_bytes()))
    };
    if matches(body) || compact() {
        Ok(signed_at)
    } else {
        Err(SignatureError::Mismatch)
    }
}

/// `HMAC-SHA256(secret, time + "." + payload)`, compared in constant time.
fn hmac_matches(secret: &Secret, time: &str, payload: &[u8], signature: &[u8]) -> bool {
    // An HMAC takes a key of any length; the error of this signature cannot happen.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret.expose().as_bytes()) else {
        return false;
    };
    mac.update(time.as_bytes());
    mac.update(b".");
    mac.update(payload);
    mac.verify_slice(signature).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(text: &str) -> Secret {
        Secret::from(text.to_owned())
    }

    #[test]
    fn ghostcut_vectors() {
        let rows = [
            (
                r#"{"idWorks":["521461135"]}"#,
                25,
                "60900d1c44bd27d7911ba2ea9b49864a",
            ),
            (
                r#"{"idWorks": ["521461135"]}"#,
                26,
                "9fdbb8b56477b55260e799c4a66c0627",
            ),
            (
                r#"{"idWorks":[521461135,521461136]}"#,
                33,
                "bcb6c8c43fa8a1d38d94d46cb0c43f4a",
            ),
            (
                r#"{"urls":["https://media.example.com/a.mp4"],"names":["vj-0f8b"],"needChineseOcclude":1,"videoInpaintLang":"all"}"#,
                112,
                "44ff5e83d8a9a3a5e52a545d3661766d",
            ),
            (
                r#"{"names":["测试"],"urls":["https://media.example.com/a.mp4"]}"#,
                63,
                "d13daeabd5beb2145989bde80d2fbeb2",
            ),
            (
                r#"{"id":488026661,"idProject":230953994,"processStatus":1,"processProgress":100.0,"videoUrl":"https://media.example.com/out.mp4","errorDetail":""}"#,
                144,
                "67d38ab14006c778350cf7c4260d64b0",
            ),
        ];
        let secret = secret("test-app-secret-0001");
        for (body, length, expected) in rows {
            assert_eq!(body.len(), length);
            assert_eq!(ghostcut(&secret, body.as_bytes()), expected);
            assert!(ghostcut_matches(&secret, expected, body.as_bytes()));
            assert!(!ghostcut_matches(
                &secret,
                expected,
                format!("{body} ").as_bytes()
            ));
            assert!(!ghostcut_matches(&secret, &expected[1..], body.as_bytes()));
        }
        assert!(!ghostcut_matches(&secret, "", b""));
    }

    const SYNC_SECRET: &str = "whsec_test_secret_0001";
    const SYNC_BODY: &str = r#"{"id":"6533643b-aceb-4c40-967e-d9ba9baac39e","status":"COMPLETED","outputUrl":"https://media.example.com/out.mp4"}"#;
    const SYNC_HEADER: &str =
        "t=1760000000,v1=55dc5769a3f03a9022206f8ddbbf5e233e07b7eeebd7054ee450bf7cc43cc80a";

    #[test]
    fn sync_vector() {
        assert_eq!(SYNC_BODY.len(), 114);
        assert_eq!(
            sync(&secret(SYNC_SECRET), SYNC_HEADER, SYNC_BODY.as_bytes()),
            Ok(1_760_000_000)
        );
    }

    #[test]
    fn sync_signs_the_compact_form_too() {
        let spaced = SYNC_BODY
            .replace(':', ": ")
            .replace("https: ", "https:")
            .replace(',', ",\n  ");
        assert_ne!(spaced, SYNC_BODY);
        assert_eq!(
            sync(&secret(SYNC_SECRET), SYNC_HEADER, spaced.as_bytes()),
            Ok(1_760_000_000)
        );
        // Keys keep their order and non-ASCII stays as it is.
        let compact = r#"{"z":"测试","a":1.0}"#;
        let mut mac = Hmac::<Sha256>::new_from_slice(SYNC_SECRET.as_bytes()).unwrap();
        mac.update(format!("7.{compact}").as_bytes());
        let header = format!("t=7,v1={}", hex::encode(mac.finalize().into_bytes()));
        let sent = r#"{ "z": "\u6d4b\u8bd5", "a": 1.0 }"#;
        assert_eq!(sync(&secret(SYNC_SECRET), &header, sent.as_bytes()), Ok(7));
    }

    #[test]
    fn sync_refusals() {
        let check = |secret_text: &str, header: &str, body: &str| {
            sync(&secret(secret_text), header, body.as_bytes())
        };
        assert_eq!(
            check("whsec_other", SYNC_HEADER, SYNC_BODY),
            Err(SignatureError::Mismatch)
        );
        assert_eq!(
            check("test_secret_0001", SYNC_HEADER, SYNC_BODY),
            Err(SignatureError::Mismatch)
        );
        assert_eq!(
            check(SYNC_SECRET, &SYNC_HEADER.replace("t=1", "t=2"), SYNC_BODY),
            Err(SignatureError::Mismatch)
        );
        assert_eq!(
            check(SYNC_SECRET, SYNC_HEADER, &SYNC_BODY.replace("out", "in")),
            Err(SignatureError::Mismatch)
        );
        assert_eq!(
            check(
                SYNC_SECRET,
                &SYNC_HEADER[..SYNC_HEADER.len() - 2],
                SYNC_BODY
            ),
            Err(SignatureError::Mismatch)
        );
        for malformed in [
            "",
            "t=1760000000",
            "v1=55dc",
            "t=soon,v1=55dc",
            "t=1760000000,v1=xyz",
        ] {
            assert_eq!(
                check(SYNC_SECRET, malformed, SYNC_BODY),
                Err(SignatureError::Malformed),
                "{malformed}"
            );
        }
    }
}
