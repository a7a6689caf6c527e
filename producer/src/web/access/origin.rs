//! Where a request comes from: which machine, and which site's page.

use std::net::{IpAddr, SocketAddr};

use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, Uri, header};
use ipnet::IpNet;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
/// What proxies add.
const FORWARDED: [HeaderName; 5] = [
    header::FORWARDED,
    FORWARDED_FOR,
    HeaderName::from_static("x-forwarded-host"),
    HeaderName::from_static("x-real-ip"),
    header::VIA,
];

/// Whether a program of this machine sent it and means this machine. Not through a proxy, which speaks for others; and not by a
/// name that only its owner's name server leads here, with which a page in a browser gets around the same-origin rule (DNS
/// rebinding). A request can name it in its `Host` and, as proxies are asked, in its first line: whichever counts (RFC 9112,
/// section 3.2.2, and who has not read it), it has to be this machine in both.
pub(super) fn is_this_machine(peer: SocketAddr, uri: &Uri, headers: &HeaderMap) -> bool {
    let mut hosts = headers.get_all(header::HOST).into_iter();
    let (host, second) = (hosts.next(), hosts.next());
    let is_text = |text: &str| text.parse().is_ok_and(|host| is_loopback(&host));
    peer.ip().to_canonical().is_loopback()
        && !FORWARDED.iter().any(|name| headers.contains_key(name))
        && uri.authority().is_none_or(is_loopback)
        && host.is_none_or(|host| host.to_str().is_ok_and(is_text))
        && second.is_none()
}

fn is_loopback(authority: &Authority) -> bool {
    // `evil.test@localhost`: a user's name, which nobody sends here.
    if authority.as_str().contains('@') {
        return false;
    }
    let name = authority.host();
    let address = name.trim_start_matches('[').trim_end_matches(']');
    let is_address = |address: IpAddr| address.to_canonical().is_loopback();
    name.eq_ignore_ascii_case("localhost") || address.parse().is_ok_and(is_address)
}

/// Whether a browser shows that our own page sent it. Browsers say it in `Sec-Fetch-Site` (over https and on this machine), else
/// in `Origin`, which every browser adds to what changes something; no page can set either.
pub(super) fn is_ours(headers: &HeaderMap) -> bool {
    match headers.get(SEC_FETCH_SITE) {
        Some(site) => site == "same-origin",
        None => headers.get(header::ORIGIN).is_some() && !is_foreign(headers),
    }
}

/// Whether a browser shows that a page of another site sent it. Programs that are not browsers show nothing.
pub(super) fn is_foreign(headers: &HeaderMap) -> bool {
    if let Some(site) = headers.get(SEC_FETCH_SITE) {
        // `none`: the user's own doing.
        return site != "same-origin" && site != "none";
    }
    let Some(origin) = headers.get(header::ORIGIN) else {
        return false;
    };
    let origin = origin.to_str().ok().and_then(|text| text.split_once("://"));
    let host = headers
        .get(header::HOST)
        .and_then(|host| host.to_str().ok());
    !matches!((origin, host), (Some((_, origin)), Some(host)) if origin.eq_ignore_ascii_case(host))
}

/// Whose wrong tokens they are. A proxy names its client last, behind those that the client itself named. One on this machine and
/// those of the settings are believed, each about the one before it; others are not, or whoever likes could name the next one.
pub(super) fn client(peer: SocketAddr, headers: &HeaderMap, proxies: &[IpNet]) -> IpAddr {
    let mut client = peer.ip().to_canonical();
    let is_proxy =
        |address: IpAddr| address.is_loopback() || proxies.iter().any(|net| net.contains(&address));
    let lines = headers.get_all(FORWARDED_FOR).into_iter();
    let mut named: Vec<&str> = lines
        .flat_map(|line| line.to_str().unwrap_or_default().split(','))
        .collect();
    while is_proxy(client)
        && let Some(address) = named.pop().and_then(address)
    {
        client = address;
    }
    client
}

/// An address as proxies write it: alone, or with a port.
fn address(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    let with_port = || text.parse().ok().map(|address: SocketAddr| address.ip());
    let found = text.parse().ok().or_else(with_port)?;
    Some(IpAddr::to_canonical(&found))
}

/// Whether the browser reached the proxy before us by https.
pub(super) fn is_https(headers: &HeaderMap) -> bool {
    let proto = headers
        .get(FORWARDED_PROTO)
        .and_then(|proto| proto.to_str().ok());
    proto.is_some_and(|proto| {
        proto
            .split(',')
            .next()
            .is_some_and(|first| first.trim().eq_ignore_ascii_case("https"))
    })
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            );
        }
        headers
    }

    #[test]
    fn only_a_program_of_this_machine_that_means_it_is_this_machine() {
        let path = Uri::from_static("/v1/status");
        let is = |peer: &str, lines: &[_]| {
            is_this_machine(peer.parse().unwrap(), &path, &headers(lines))
        };
        assert!(is("127.0.0.1:9", &[]));
        for host in [
            "127.0.0.1:8080",
            "localhost",
            "LOCALHOST:1",
            "[::1]:8080",
            "127.9.9.9",
        ] {
            assert!(is("[::1]:9", &[("host", host)]), "{host}");
            assert!(is("[::ffff:127.0.0.1]:9", &[("host", host)]), "{host}");
            assert!(!is("192.0.2.1:9", &[("host", host)]), "{host}");
            assert!(!is("[::ffff:192.0.2.1]:9", &[("host", host)]), "{host}");
        }
        for host in [
            "fleet.test",
            "127.0.0.1.fleet.test",
            "localhost.fleet.test:1",
            "10.0.0.1",
            "",
            "a b",
            "evil.test@localhost",
            "localhost@localhost",
            "@127.0.0.1:8080",
        ] {
            assert!(!is("127.0.0.1:9", &[("host", host)]), "{host}");
        }
        for name in FORWARDED {
            let mut headers = HeaderMap::new();
            headers.insert(name, HeaderValue::from_static("127.0.0.1"));
            let peer = "127.0.0.1:9".parse().unwrap();
            assert!(!is_this_machine(peer, &path, &headers));
        }
    }

    #[test]
    fn every_name_in_a_request_has_to_be_this_machine() {
        let is = |uri: &str, hosts: &[&'static str]| {
            let lines: Vec<_> = hosts.iter().map(|host| ("host", *host)).collect();
            let uri = uri.parse().unwrap();
            is_this_machine("127.0.0.1:9".parse().unwrap(), &uri, &headers(&lines))
        };
        assert!(is("http://localhost:8080/v1/status", &["localhost:8080"]));
        assert!(is("http://127.0.0.1/v1/status", &[]));
        for (uri, hosts) in [
            ("http://evil.test/v1/status", &["localhost"] as &[_]),
            ("http://evil.test/v1/status", &[]),
            ("http://localhost/v1/status", &["evil.test"]),
            ("http://evil.test@localhost/v1/status", &["localhost"]),
            ("/v1/status", &["localhost", "evil.test"]),
            ("/v1/status", &["evil.test", "localhost"]),
            ("/v1/status", &["localhost", "localhost"]),
        ] {
            assert!(!is(uri, hosts), "{uri} {hosts:?}");
        }
    }

    #[test]
    fn a_page_is_known_by_what_the_browser_says() {
        // Ours and foreign, by these lines.
        type Row = (&'static [(&'static str, &'static str)], bool, bool);
        let table: [Row; 10] = [
            (&[], false, false),
            (&[("sec-fetch-site", "same-origin")], true, false),
            (&[("sec-fetch-site", "none")], false, false),
            (&[("sec-fetch-site", "same-site")], false, true),
            (&[("sec-fetch-site", "cross-site")], false, true),
            (
                &[("host", "f.test:8"), ("origin", "https://f.test:8")],
                true,
                false,
            ),
            (
                &[("host", "f.test:8"), ("origin", "https://f.test")],
                false,
                true,
            ),
            (&[("host", "f.test"), ("origin", "null")], false, true),
            (&[("origin", "https://f.test")], false, true),
            (
                &[
                    ("host", "f.test"),
                    ("origin", "https://f.test"),
                    ("sec-fetch-site", "cross-site"),
                ],
                false,
                true,
            ),
        ];
        for (lines, ours, foreign) in table {
            let headers = headers(lines);
            assert_eq!(
                (is_ours(&headers), is_foreign(&headers)),
                (ours, foreign),
                "{lines:?}"
            );
        }
    }

    #[test]
    fn the_client_is_whom_a_proxy_of_this_machine_names() {
        let of = |peer: &str, lines: &[_]| {
            client(peer.parse().unwrap(), &headers(lines), &[]).to_string()
        };
        assert_eq!(
            of("192.0.2.1:9", &[("x-forwarded-for", "198.51.100.1")]),
            "192.0.2.1"
        );
        assert_eq!(
            of(
                "127.0.0.1:9",
                &[("x-forwarded-for", "1.2.3.4, 198.51.100.1")]
            ),
            "198.51.100.1"
        );
        let twice = [
            ("x-forwarded-for", "1.2.3.4"),
            ("x-forwarded-for", "2001:db8::1"),
        ];
        assert_eq!(of("[::1]:9", &twice), "2001:db8::1");
        assert_eq!(
            of("127.0.0.1:9", &[("x-forwarded-for", "unknown")]),
            "127.0.0.1"
        );
        assert!(is_https(&headers(&[("x-forwarded-proto", "https, http")])));
        assert!(!is_https(&headers(&[("x-forwarded-proto", "http")])));
    }

    #[test]
    fn a_proxy_of_the_settings_is_believed_and_what_its_client_names_is_not() {
        let proxies = [
            "10.1.0.0/16".parse().unwrap(),
            "2001:db8:9::/48".parse().unwrap(),
        ];
        let of = |peer: &str, forwarded: &'static str| {
            let headers = headers(&[("x-forwarded-for", forwarded)]);
            client(peer.parse().unwrap(), &headers, &proxies).to_string()
        };
        for (peer, forwarded, expected) in [
            ("10.1.2.3:9", "192.0.2.7", "192.0.2.7"),
            ("10.1.2.3:9", "192.0.2.7:443", "192.0.2.7"),
            ("[::ffff:10.1.2.3]:9", "[2001:db8::7]:443", "2001:db8::7"),
            // Two proxies, one behind the other.
            ("127.0.0.1:9", "1.2.3.4, 192.0.2.7, 10.1.9.9", "192.0.2.7"),
            ("[2001:db8:9::1]:9", "10.1.2.3", "10.1.2.3"),
            // The client has made up the first; and one that is no proxy of ours names whom it likes.
            ("10.1.2.3:9", "10.1.7.7, 192.0.2.7", "192.0.2.7"),
            ("10.2.2.3:9", "192.0.2.7", "10.2.2.3"),
            ("10.1.2.3:9", "192.0.2.7, unknown", "10.1.2.3"),
            ("10.1.2.3:9", "", "10.1.2.3"),
        ] {
            assert_eq!(of(peer, forwarded), expected, "{peer} {forwarded}");
        }
    }
}
