//! Who has signed a callback: over the bytes as they came, whatever a stranger sends.

use hmac::{Hmac, KeyInit as _, Mac as _};
use proptest::prelude::*;
use sha2::Sha256;
use shared::config::Secret;
use shared::vendor::signature::{self, SignatureError};

const SECRET: &str = "whsec_test_secret_0001";

fn secret() -> Secret {
    Secret::from(SECRET.to_owned())
}

/// As Sync.so signs these bytes.
fn header(time: i64, body: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).unwrap();
    mac.update(format!("{time}.").as_bytes());
    mac.update(body);
    format!("t={time},v1={}", hex::encode(mac.finalize().into_bytes()))
}

proptest! {
    /// Whatever was signed is right for its own bytes, JSON or not, and for no others.
    #[test]
    fn a_signature_is_of_its_own_bytes(
        body in proptest::collection::vec(any::<u8>(), 0..300), time in any::<i64>(), at in any::<prop::sample::Index>()
    ) {
        let (sync, ghostcut) = (header(time, &body), signature::ghostcut(&secret(), &body));
        prop_assert_eq!(signature::sync(&secret(), &sync, &body), Ok(time));
        prop_assert!(signature::ghostcut_matches(&secret(), &ghostcut, &body));
        let mut other = body.clone();
        other.insert(at.index(body.len() + 1), b'#');
        prop_assert_eq!(signature::sync(&secret(), &sync, &other), Err(SignatureError::Mismatch));
        prop_assert!(!signature::ghostcut_matches(&secret(), &ghostcut, &other));
    }

    /// No header that was not made with the secret is right, and none breaks the reader.
    #[test]
    fn no_other_header_is_right(
        header in "(t=|v1=|[0-9a-f]{2}|[,= ]|\\PC){0,60}", body in proptest::collection::vec(any::<u8>(), 0..300)
    ) {
        prop_assert!(signature::sync(&secret(), &header, &body).is_err());
        prop_assert!(!signature::ghostcut_matches(&secret(), &header, &body));
    }
}

/// With blanks, as no JSON writer would repeat it.
#[test]
fn the_body_is_taken_as_it_came() {
    let body = b"{ \"id\" : \"6533643b\" }\n";
    assert_eq!(signature::sync(&secret(), &header(7, body), body), Ok(7));
}
