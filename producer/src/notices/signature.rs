//! How notices are signed, by Standard Webhooks
//! (<https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>): receivers check them with a
//! library of theirs.

use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use uuid::Uuid;

/// Fewest and most bytes of a key.
const LENGTHS: std::ops::RangeInclusive<usize> = 24..=64;

/// A secret that notices are signed with. Shown nowhere.
#[derive(Clone, PartialEq, Eq)]
pub struct SigningKey(Vec<u8>);

/// A text that is no such secret.
#[derive(Debug, thiserror::Error)]
#[error(
    "must be `whsec_` and 24 to 64 random bytes in base64, such as `echo whsec_$(openssl rand -base64 32)` makes"
)]
pub struct BadKey;

impl FromStr for SigningKey {
    type Err = BadKey;

    fn from_str(text: &str) -> Result<Self, BadKey> {
        let encoded = text.trim().strip_prefix("whsec_").ok_or(BadKey)?;
        let key = STANDARD.decode(encoded).map_err(|_| BadKey)?;
        if LENGTHS.contains(&key.len()) {
            Ok(Self(key))
        } else {
            Err(BadKey)
        }
    }
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SigningKey(***)")
    }
}

/// The value of `webhook-signature`: one `v1,…` for each key. `time` is that of `webhook-timestamp`, in Unix seconds.
pub(super) fn sign(keys: &[SigningKey], id: Uuid, time: i64, body: &[u8]) -> String {
    let signatures = keys.iter().filter_map(|SigningKey(key)| {
        // An HMAC takes a key of any length; the error cannot happen.
        let mut mac = Hmac::<Sha256>::new_from_slice(key).ok()?;
        mac.update(format!("{id}.{time}.").as_bytes());
        mac.update(body);
        Some(format!(
            "v1,{}",
            STANDARD.encode(mac.finalize().into_bytes())
        ))
    });
    signatures.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> SigningKey {
        text.parse().unwrap()
    }

    /// The value was computed by Python's hmac, over `id.timestamp.body` as the specification says.
    #[test]
    fn a_known_body_has_its_known_signature() {
        let one = key("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
        let two = key("whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=");
        let id = Uuid::from_u128(7);
        let body = br#"{"test": 2432232314}"#;
        let first = sign(std::slice::from_ref(&one), id, 1_614_265_330, body);
        assert_eq!(first, "v1,DpjDiUQtqY4KpU+ttsaMN4ufTzLZ/I1uCUwqulcoqnM=");
        let both = sign(&[one, two], id, 1_614_265_330, body);
        assert_eq!(
            both,
            format!("{first} v1,tMhtZ2egd83og/uZPmf3UuomgqwKKW7OGGz/F2x0J0Y=")
        );
    }

    #[test]
    fn keys_that_are_too_weak_are_refused_and_none_is_shown() {
        for text in [
            "",
            "secret",
            "whsec_",
            "whsec_c2hvcnQ=",
            "whsec_!!!!",
            "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        ] {
            assert!(text.parse::<SigningKey>().is_err(), "{text}");
        }
        let key = key("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
        assert_eq!(format!("{key:?}"), "SigningKey(***)");
    }
}
