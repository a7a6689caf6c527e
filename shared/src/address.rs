//! Which addresses may be connected to for a URL from outside: downloads, and notices that a job has ended.
//!
//! URLs come from vendors and users. Without these rules one could make the fleet read its own network, for example
//! a cloud's metadata service. The rules are applied to what the name resolved to, where the connection is made, so
//! that nothing can be answered differently in between. A client with such a resolver must follow no redirects and use no
//! proxy, and addresses that stand in a URL as numbers are not resolved: check them with the rule.

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// A host none of whose addresses is public.
#[derive(Debug, thiserror::Error)]
#[error("the host has no public address")]
pub struct NotPublic;

/// Says which addresses may be connected to.
pub type Rule = fn(IpAddr) -> bool;

/// The rule of a fleet: public addresses alone, unless it is set up to reach private ones (`FETCH_ALLOW_PRIVATE`).
#[must_use]
pub fn rule(allow_private: bool) -> Rule {
    if allow_private { |_| true } else { is_public }
}

/// Whether the URL's host is an address in numbers that the rule forbids. Names are checked where they are resolved.
#[must_use]
pub fn is_forbidden(url: &url::Url, rule: Rule) -> bool {
    match url.host() {
        Some(url::Host::Ipv4(address)) => !rule(IpAddr::V4(address)),
        Some(url::Host::Ipv6(address)) => !rule(IpAddr::V6(address)),
        Some(url::Host::Domain(_)) | None => false,
    }
}

/// Resolves names by the system and drops every address that the rule forbids.
pub struct RuledResolver(pub Rule);

impl Resolve for RuledResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let rule = self.0;
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let public: Vec<SocketAddr> = found.filter(|address| rule(address.ip())).collect();
            if public.is_empty() {
                return Err(NotPublic.into());
            }
            Ok(Box::new(public.into_iter()) as Addrs)
        })
    }
}

/// Whether an address belongs to the public internet, by the special-purpose registries of IANA:
/// <https://www.iana.org/assignments/iana-ipv4-special-registry> and `iana-ipv6-special-registry`.
#[must_use]
pub fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let special = match address.octets() {
        [0 | 10 | 127, ..] | [169, 254, ..] | [192, 168, ..] => true,
        // Private 172.16/12, shared between carriers and customers 100.64/10, benchmarks 198.18/15.
        [172, second, ..] => second & 0xf0 == 16,
        [100, second, ..] => second & 0xc0 == 64,
        [198, second, ..] if second & 0xfe == 18 => true,
        // Protocol assignments, documentation, and the retired 6to4 relays.
        [192, 0, 0 | 2, _] | [198, 51, 100, _] | [203, 0, 113, _] | [192, 88, 99, _] => true,
        // Public by its number, and on every machine at Azure the host's own service, which hands out secrets:
        // https://learn.microsoft.com/azure/virtual-network/what-is-ip-address-168-63-129-16
        [168, 63, 129, 16] => true,
        // Multicast, reserved and broadcast.
        [first, ..] => first >= 224,
    };
    !special
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let inner = |high: u16, low: u16| {
        is_public_v4(Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low)))
    };
    match address.segments() {
        // Forms that carry an IPv4 address are as public as that: mapped, NAT64 and 6to4.
        [0, 0, 0, 0, 0, 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => {
            inner(high, low)
        }
        [0x2002, high, low, ..] => inner(high, low),
        // A tunnel to an IPv4 address inside a site (ISATAP, RFC 5214), whatever the network before it.
        [.., 0 | 0x200, 0x5efe, high, low] if !inner(high, low) => false,
        // Protocol assignments with Teredo, and documentation.
        [0x2001, second, ..] => second >= 0x200 && second != 0xdb8,
        [0x3fff, second, ..] => second >= 0x1000,
        // Of all the rest only 2000::/3 is global unicast.
        [first, ..] => first & 0xe000 == 0x2000,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_are_not_public_are_refused() {
        for address in [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "100.64.0.1",
            "100.127.255.255",
            "127.0.0.1",
            "127.255.0.1",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.1",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.1.1",
            "168.63.129.16",
            "::ffff:168.63.129.16",
            "100.100.100.200",
            "192.0.0.192",
            "fd00:ec2::254",
            "198.18.0.1",
            "198.19.255.255",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::7f00:1",
            "fe80::1",
            "febf::1",
            "fec0::1",
            "fc00::1",
            "fdff::1",
            "ff02::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::ffff:169.254.169.254",
            "::ffff:0:127.0.0.1",
            "64:ff9b::127.0.0.1",
            "64:ff9b::10.1.1.1",
            "64:ff9b:1::8.8.8.8",
            "100::1",
            "2002:7f00:1::",
            "2002:a00:1::1",
            "2002:c0a8:101::",
            "64:ff9b::a9fe:a9fe",
            "2002:a9fe:a9fe::1",
            "2400:1:2:3:0:5efe:10.0.0.1",
            "2400:1:2:3:200:5efe:127.0.0.1",
            "fe80::5efe:8.8.8.8",
            "::10.0.0.1",
            "2001::1",
            "2001:0:4136:e378::",
            "2001:10::1",
            "2001:db8::1",
            "3fff::1",
            "3fff:fff::1",
            "4000::1",
            "5f00::1",
        ] {
            assert!(!is_public(address.parse().unwrap()), "{address}");
        }
    }

    #[test]
    fn public_addresses_are_allowed() {
        for address in [
            "1.1.1.1",
            "8.8.8.8",
            "9.255.255.255",
            "11.0.0.1",
            "100.63.0.1",
            "100.128.0.1",
            "126.0.0.1",
            "128.0.0.1",
            "172.15.0.1",
            "172.32.0.1",
            "192.0.1.1",
            "192.167.0.1",
            "192.169.0.1",
            "198.17.0.1",
            "198.20.0.1",
            "223.255.255.255",
            "2001:200::1",
            "2001:4860:4860::8888",
            "2400::1",
            "2606:4700::1111",
            "2a00:1450::1",
            "::ffff:8.8.8.8",
            "64:ff9b::8.8.8.8",
            "2002:808:808::1",
            "2400:1:2:3:0:5efe:8.8.8.8",
            "3fff:1000::1",
        ] {
            assert!(is_public(address.parse().unwrap()), "{address}");
        }
    }

    #[tokio::test]
    async fn a_name_of_the_own_machine_resolves_to_nothing() {
        let error = RuledResolver(is_public)
            .resolve("localhost".parse().unwrap())
            .await
            .err()
            .unwrap();
        assert!(error.is::<NotPublic>(), "{error}");
    }
}
