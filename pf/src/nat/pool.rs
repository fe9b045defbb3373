//! Choosing an address from a pool (BSD: `pf_map_addr`).
//!
//! A pool is the list of its prefixes, numbered through from the first address to the last; a method draws a number.
//! `bitmask` is the exception: it replaces the network's bits and keeps the host's.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::{
    addr::{Family, Prefix},
    pool::Method,
    random::Random,
};

/// How an address is chosen.
#[derive(Debug)]
enum Choice {
    Bitmask,
    Random,
    SourceHash([u32; 4]),
    /// How many have been given out.
    RoundRobin(AtomicU64),
}

/// The addresses of a pool, resolved to this router's.
#[derive(Debug)]
pub(crate) struct Addresses {
    inet: Span,
    inet6: Span,
    choice: Choice,
    /// A source keeps what it got.
    pub(crate) sticky: bool,
}

#[derive(Debug, Default)]
struct Span {
    prefixes: Box<[Prefix]>,
    /// How many addresses these have; at most 2^127.
    total: u128,
}

impl Span {
    fn new(prefixes: &[Prefix], family: Family) -> Span {
        let prefixes: Box<[Prefix]> = prefixes.iter().filter(|p| p.family() == family).copied().collect();
        let total = prefixes.iter().fold(0_u128, |sum, p| sum.saturating_add(size(p))).min(1 << 127);
        Span { prefixes, total }
    }

    /// The address with this number.
    fn at(&self, number: u128) -> Option<u128> {
        let mut left = number.checked_rem(self.total)?;
        for prefix in &self.prefixes {
            let n = size(prefix);
            if left < n {
                return Some(prefix.range().0 + left);
            }
            left -= n;
        }
        None
    }
}

/// How many addresses a prefix has; of all of IPv6, half.
fn size(prefix: &Prefix) -> u128 {
    let (first, last) = prefix.range();
    (last - first).saturating_add(1).min(1 << 127)
}

impl Addresses {
    /// The pool of these prefixes. Without a method: as it is if there is one prefix, else one after the other.
    pub(crate) fn new(
        prefixes: &[Prefix],
        method: Option<Method>,
        sticky: bool,
        random: &mut Random,
    ) -> Addresses {
        let choice = match method {
            None if prefixes.len() == 1 => Choice::Bitmask,
            Some(Method::Bitmask) => Choice::Bitmask,
            Some(Method::Random) => Choice::Random,
            Some(Method::SourceHash(key)) => {
                let drawn = || {
                    let bits = random.wide();
                    std::array::from_fn(|i| (bits >> (32 * i)) as u32)
                };
                Choice::SourceHash(key.unwrap_or_else(drawn))
            }
            None | Some(Method::RoundRobin) => Choice::RoundRobin(AtomicU64::new(0)),
        };
        Addresses {
            inet: Span::new(prefixes, Family::Inet),
            inet6: Span::new(prefixes, Family::Inet6),
            choice,
            sticky,
        }
    }

    fn span(&self, family: Family) -> &Span {
        match family {
            Family::Inet => &self.inet,
            Family::Inet6 => &self.inet6,
        }
    }

    /// How many addresses of a family are worth trying one after the other.
    pub(crate) fn tries(&self, family: Family) -> u32 {
        match self.choice {
            Choice::Random | Choice::RoundRobin(_) => self.span(family).total.min(16) as u32,
            Choice::Bitmask | Choice::SourceHash(_) => 1,
        }
    }

    /// An address of this family for a packet from `source`; `old` is the address it takes the place of.
    pub(crate) fn pick(&self, family: Family, source: u128, old: u128, random: &mut Random) -> Option<u128> {
        let span = self.span(family);
        match &self.choice {
            Choice::Bitmask => {
                let (mask, value) = span.prefixes.first()?.mask();
                let host = (span.prefixes.len() == 1).then_some(old & !mask);
                let all = if family == Family::Inet { u128::from(u32::MAX) } else { u128::MAX };
                Some(value | host.unwrap_or(0) & all)
            }
            Choice::Random => span.at(random.wide()),
            Choice::SourceHash(key) => span.at(keyed_hash(key, source)),
            Choice::RoundRobin(given) => span.at(u128::from(given.fetch_add(1, Relaxed))),
        }
    }

    /// Whether an address is of this pool: a sticky one may have gone with a reload.
    pub(crate) fn has(&self, family: Family, address: u128) -> bool {
        self.span(family).prefixes.iter().any(|p| {
            let (first, last) = p.range();
            (first..=last).contains(&address)
        })
    }
}

/// A hash that stays the same over restarts if the key is given (BSD: `pf_hash`): the mix of R. Jenkins's lookup2.
fn keyed_hash(key: &[u32; 4], source: u128) -> u128 {
    let word = |i: u32| (source >> (32 * i)) as u32;
    let mut abc = [0x9e37_79b9_u32.wrapping_add(word(0)), 0x9e37_79b9_u32.wrapping_add(word(1)), key[0]];
    mix(&mut abc);
    abc[0] = abc[0].wrapping_add(word(2)).wrapping_add(key[1]);
    abc[1] = abc[1].wrapping_add(word(3)).wrapping_add(key[2]);
    abc[2] = abc[2].wrapping_add(key[3]);
    mix(&mut abc);
    let [a, b, c] = abc;
    mix(&mut abc);
    u128::from(c) | u128::from(b) << 32 | u128::from(a) << 64 | u128::from(abc[2]) << 96
}

fn mix([a, b, c]: &mut [u32; 3]) {
    for (x, y, z) in [(13, 8, 13), (12, 16, 5), (3, 10, 15)] {
        *a = a.wrapping_sub(*b).wrapping_sub(*c) ^ (*c >> x);
        *b = b.wrapping_sub(*c).wrapping_sub(*a) ^ (*a << y);
        *c = c.wrapping_sub(*a).wrapping_sub(*b) ^ (*b >> z);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn pool(prefixes: &[&str], method: Option<Method>) -> Addresses {
        let prefix = |text: &&str| {
            let (addr, len) = text.split_once('/').unwrap();
            Prefix::new(addr.parse().unwrap(), len.parse().unwrap())
        };
        Addresses::new(&prefixes.iter().map(prefix).collect::<Vec<_>>(), method, false, &mut Random::new())
    }

    fn picks(pool: &Addresses, sources: impl Iterator<Item = u32>) -> Vec<String> {
        let mut random = Random::new();
        let pick = |s: u32| pool.pick(Family::Inet, s.into(), s.into(), &mut random);
        sources.map(pick).map(|a| Family::Inet.address(a.unwrap()).to_string()).collect()
    }

    #[test]
    fn bitmask_keeps_the_bits_of_the_host() {
        let pool = pool(&["203.0.113.0/28"], Some(Method::Bitmask));
        assert_eq!(picks(&pool, [0x0a00_0005, 0x0a00_001f].into_iter()), ["203.0.113.5", "203.0.113.15"]);
    }

    #[test]
    fn round_robin_goes_through_all_addresses_and_begins_again() {
        let pool = pool(&["203.0.113.8/31", "198.51.100.1/32", "2001:db8::/64"], None);
        let all = ["203.0.113.8", "203.0.113.9", "198.51.100.1", "203.0.113.8"];
        assert_eq!(picks(&pool, 0..4), all);
        assert_eq!(pool.tries(Family::Inet), 3);
    }

    #[test]
    fn random_reaches_every_address() {
        let pool = pool(&["203.0.113.0/30", "198.51.100.0/31"], Some(Method::Random));
        assert_eq!(picks(&pool, 0..400).into_iter().collect::<HashSet<_>>().len(), 6);
    }

    #[test]
    fn source_hash_gives_a_source_the_same_address_always_and_spreads_sources() {
        let key = Some(Method::SourceHash(Some([1, 2, 3, 4])));
        let (one, two) = (pool(&["203.0.113.0/24"], key), pool(&["203.0.113.0/24"], key));
        let chosen = picks(&one, 0..600);
        assert_eq!(chosen, picks(&two, 0..600), "a given key is the same after a restart");
        assert!(chosen.into_iter().collect::<HashSet<_>>().len() > 200);
        let other = pool(&["203.0.113.0/24"], Some(Method::SourceHash(Some([1, 2, 3, 5]))));
        assert_ne!(picks(&other, 0..100), picks(&two, 0..100));
    }

    #[test]
    fn a_pool_without_addresses_of_a_family_gives_none() {
        let pool = pool(&["2001:db8::/64"], Some(Method::RoundRobin));
        assert_eq!(pool.pick(Family::Inet, 1, 1, &mut Random::new()), None);
        assert!(pool.has(Family::Inet6, 0x2001_0db8 << 96) && !pool.has(Family::Inet, 1));
    }
}
