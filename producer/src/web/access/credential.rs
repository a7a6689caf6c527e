//! What a request brings to say whose it is.

use axum::http::{HeaderMap, header};

use super::session::COOKIE;
use crate::secrets::{self, Kind};

/// A token or the id of a session, not yet checked. Not to be printed.
pub(super) enum Credential<'a> {
    Token(&'a str),
    Session(&'a str),
}

impl<'a> Credential<'a> {
    /// The token, else the session. A scheme other than `Bearer` belongs to somebody before us.
    pub(super) fn read(headers: &'a HeaderMap) -> Option<Self> {
        let authorization = headers.get(header::AUTHORIZATION);
        let token = authorization
            .and_then(|value| value.to_str().ok()?.split_once(' '))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
            .map(|(_, token)| Self::Token(token.trim()));
        token.or_else(|| session(headers).map(Self::Session))
    }

    /// Its hash; none if it cannot be one of ours.
    pub(super) fn sha256(&self) -> Option<[u8; 32]> {
        match self {
            Self::Token(text) => secrets::sha256(Kind::Token, text),
            Self::Session(text) => secrets::sha256(Kind::Session, text),
        }
    }
}

/// The session's cookie.
pub(super) fn session(headers: &HeaderMap) -> Option<&str> {
    let cookies = headers.get_all(header::COOKIE).into_iter();
    cookies
        .filter_map(|value| value.to_str().ok())
        .flat_map(|text| text.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find_map(|(name, value)| (name == COOKIE).then_some(value))
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn read(lines: &[(header::HeaderName, &'static str)]) -> Option<String> {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(name, HeaderValue::from_static(value));
        }
        Credential::read(&headers).map(|credential| match credential {
            Credential::Token(text) => format!("token {text}"),
            Credential::Session(text) => format!("session {text}"),
        })
    }

    #[test]
    fn the_token_counts_before_the_cookie() {
        use header::{AUTHORIZATION, COOKIE};
        let found =
            |lines: &[_], expected: Option<&str>| assert_eq!(read(lines).as_deref(), expected);
        found(&[], None);
        found(&[(AUTHORIZATION, "Bearer a")], Some("token a"));
        found(&[(AUTHORIZATION, "bearer  a ")], Some("token a"));
        found(&[(AUTHORIZATION, "Basic a")], None);
        found(&[(AUTHORIZATION, "Bearer")], None);
        found(
            &[(COOKIE, "x=1; ghostfleet_session=b; y")],
            Some("session b"),
        );
        found(
            &[(COOKIE, "x=1"), (COOKIE, "ghostfleet_session=b")],
            Some("session b"),
        );
        found(&[(COOKIE, "xghostfleet_session=b")], None);
        found(
            &[
                (AUTHORIZATION, "Bearer a"),
                (COOKIE, "ghostfleet_session=b"),
            ],
            Some("token a"),
        );
        found(
            &[(AUTHORIZATION, "Basic a"), (COOKIE, "ghostfleet_session=b")],
            Some("session b"),
        );
    }
}
