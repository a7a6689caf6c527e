//! The secrets we give out: access tokens and the ids of sessions. Made here, kept by whoever got them; we keep hashes.
//!
//! One is 256 bits from the operating system. Nobody can try that many, so its plain SHA-256 may be kept: a slow hash protects
//! texts that people think of. And nobody can choose a secret whose hash begins as they like, so that it may be looked up in an
//! index, without a comparison in constant time.

use rand::TryRng as _;
use rand::rngs::{SysError, SysRng};
use sha2::{Digest as _, Sha256};
use shared::config::Secret;

const BYTES: usize = 32;

/// What a secret is for; each has a beginning of its own, by which people and secret scanners recognise it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An access token.
    Token,
    /// The session of a browser that signed in.
    Session,
}

impl Kind {
    const fn prefix(self) -> &'static str {
        match self {
            Self::Token => "gf_",
            Self::Session => "gfs_",
        }
    }
}

/// A secret that nobody has yet, and its hash.
pub struct Fresh {
    /// To be given out, once.
    pub secret: Secret,
    /// To be kept.
    pub sha256: [u8; 32],
}

/// Makes a secret.
///
/// # Errors
/// When the operating system has no random bytes.
pub fn fresh(kind: Kind) -> Result<Fresh, SysError> {
    let mut bytes = [0; BYTES];
    SysRng.try_fill_bytes(&mut bytes)?;
    let text = format!("{}{}", kind.prefix(), hex::encode(bytes));
    Ok(Fresh {
        sha256: Sha256::digest(&text).into(),
        secret: Secret::from(text),
    })
}

/// The hash of a secret; none if the text cannot be one of this kind.
#[must_use]
pub fn sha256(kind: Kind, text: &str) -> Option<[u8; 32]> {
    let digits = text.strip_prefix(kind.prefix())?;
    let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    (digits.len() == 2 * BYTES && digits.bytes().all(is_digit)).then(|| Sha256::digest(text).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_known_again_by_its_hash_and_by_its_kind_alone() {
        for (kind, other) in [(Kind::Token, Kind::Session), (Kind::Session, Kind::Token)] {
            let (one, two) = (fresh(kind).unwrap(), fresh(kind).unwrap());
            let text = one.secret.expose();
            assert_eq!(sha256(kind, text), Some(one.sha256));
            assert_ne!(one.sha256, two.sha256);
            assert_eq!(sha256(other, text), None);
            for wrong in [
                &text[..text.len() - 1],
                &format!("{text}0"),
                &text.to_uppercase(),
                "",
                &text.replace('_', "-"),
                &format!("{}é{}", &text[..10], &text[12..]),
            ] {
                assert_eq!(sha256(kind, wrong), None, "{wrong}");
            }
        }
    }
}
