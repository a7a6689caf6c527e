//! Wrong tokens, counted by address and minute, in bounded memory.
//!
//! Nobody can guess a token; this keeps those who try from costing a query each.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use shared::db::Sha256;

/// Counts begin anew so often.
const WINDOW: Duration = Duration::from_secs(60);
/// Wrong tokens that an address may send in this time.
const MAX_WRONG: u32 = 20;
/// Addresses that are counted apart; the others of the same minute count as one.
const MAX_ADDRESSES: usize = 10_000;
/// Right tokens and sessions that are remembered.
const MAX_RIGHT: usize = 1000;

pub(super) struct Failures {
    since: Instant,
    wrong: HashMap<IpAddr, u32>,
    right: HashSet<Sha256>,
}

impl Failures {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            since: now,
            wrong: HashMap::new(),
            right: HashSet::new(),
        }
    }

    /// Seconds for which this address is not to be listened to, unless with what was right lately.
    pub(super) fn wait(
        &mut self,
        address: IpAddr,
        sha256: Option<&Sha256>,
        now: Instant,
    ) -> Option<u64> {
        self.turn(now);
        let count = self.wrong.get(&self.key(address))?;
        if *count < MAX_WRONG || sha256.is_some_and(|sha256| self.right.contains(sha256)) {
            return None;
        }
        let left = WINDOW.saturating_sub(now.saturating_duration_since(self.since));
        Some(left.as_secs() + 1)
    }

    /// Counts a wrong one. True: the address has just sent as many as it may.
    pub(super) fn wrong(&mut self, address: IpAddr, now: Instant) -> bool {
        self.turn(now);
        let count = self.wrong.entry(self.key(address)).or_default();
        *count = count.saturating_add(1);
        *count == MAX_WRONG
    }

    /// Remembers what was right. Whether it still is, the database says each time.
    pub(super) fn right(&mut self, sha256: Sha256) {
        if self.right.len() >= MAX_RIGHT && !self.right.contains(&sha256) {
            self.right.clear();
        }
        self.right.insert(sha256);
    }

    fn turn(&mut self, now: Instant) {
        if now.saturating_duration_since(self.since) >= WINDOW {
            self.since = now;
            self.wrong = HashMap::new();
        }
    }

    /// Under what an address is counted: whoever has one IPv6 address has the 2^64 of its network.
    fn key(&self, address: IpAddr) -> IpAddr {
        let key = match address.to_canonical() {
            IpAddr::V6(address) => {
                IpAddr::V6(Ipv6Addr::from(u128::from(address) & !u128::from(u64::MAX)))
            }
            v4 => v4,
        };
        if self.wrong.len() >= MAX_ADDRESSES && !self.wrong.contains_key(&key) {
            return IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        }
        key
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: Sha256 = [7; 32];

    fn v4(number: u32) -> IpAddr {
        IpAddr::V4(Ipv4Addr::from(number))
    }

    #[test]
    fn an_address_is_not_listened_to_until_the_minute_is_over() {
        let start = Instant::now();
        let mut failures = Failures::new(start);
        let later = start + Duration::from_secs(15);
        for number in 1..=MAX_WRONG {
            assert_eq!(failures.wait(v4(1), None, later), None);
            assert_eq!(failures.wrong(v4(1), later), number == MAX_WRONG);
        }
        assert_eq!(failures.wait(v4(1), Some(&TOKEN), later), Some(46));
        assert_eq!(failures.wait(v4(2), None, later), None, "others are");
        failures.right(TOKEN);
        assert_eq!(failures.wait(v4(1), Some(&TOKEN), later), None);
        assert_eq!(failures.wait(v4(1), Some(&[8; 32]), later), Some(46));
        assert_eq!(failures.wait(v4(1), None, start + WINDOW), None);
    }

    #[test]
    fn one_network_counts_once() {
        let now = Instant::now();
        let mut failures = Failures::new(now);
        for number in 0..MAX_WRONG {
            let address = format!("2001:db8::{number:x}").parse().unwrap();
            failures.wrong(address, now);
        }
        let wait =
            |failures: &mut Failures, text: &str| failures.wait(text.parse().unwrap(), None, now);
        assert!(wait(&mut failures, "2001:db8::ffff").is_some());
        assert!(wait(&mut failures, "2001:db8:0:1::").is_none());
        for _ in 0..MAX_WRONG {
            failures.wrong("::ffff:192.0.2.1".parse().unwrap(), now);
        }
        assert!(wait(&mut failures, "192.0.2.1").is_some());
        assert!(wait(&mut failures, "192.0.2.2").is_none());
    }

    #[test]
    fn memory_is_bounded() {
        let now = Instant::now();
        let mut failures = Failures::new(now);
        for number in 1..=2 * MAX_ADDRESSES {
            failures.wrong(v4(number as u32), now);
            let mut hash = TOKEN;
            hash[..8].copy_from_slice(&number.to_be_bytes());
            failures.right(hash);
        }
        assert_eq!(failures.wrong.len(), MAX_ADDRESSES + 1);
        assert!(failures.right.len() <= MAX_RIGHT);
        assert!(failures.wait(v4(1), None, now).is_none(), "counted apart");
        assert!(
            failures.wait(v4(3_000_000), None, now).is_some(),
            "counted together"
        );
    }
}
