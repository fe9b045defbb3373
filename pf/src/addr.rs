//! Addresses, prefixes and sets of them, of both families.
//!
//! Inside the engine an address is a `u128`: IPv6 as it is, IPv4 in the low 32 bits; the family stands beside it. A set
//! is what a table, `(if)`, `if:network` or `self` becomes: prefixes with negation, of which the longest decides,
//! flattened to disjoint ranges and searched by halving. It is immutable; a change makes a new one.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

/// Address family (`inet`, `inet6`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Family {
    /// IPv4.
    Inet = 4,
    /// IPv6.
    Inet6 = 6,
}

impl Family {
    /// The family of an address.
    pub const fn of(addr: IpAddr) -> Family {
        match addr {
            IpAddr::V4(_) => Family::Inet,
            IpAddr::V6(_) => Family::Inet6,
        }
    }

    /// Bits of an address.
    pub const fn width(self) -> u8 {
        match self {
            Family::Inet => 32,
            Family::Inet6 => 128,
        }
    }

    /// The keyword of pf.conf.
    pub const fn keyword(self) -> &'static str {
        match self {
            Family::Inet => "inet",
            Family::Inet6 => "inet6",
        }
    }

    /// The address with these bits.
    pub const fn address(self, bits: u128) -> IpAddr {
        match self {
            Family::Inet => IpAddr::V4(Ipv4Addr::from_bits(bits as u32)),
            Family::Inet6 => IpAddr::V6(Ipv6Addr::from_bits(bits)),
        }
    }
}

/// The bits of an address, IPv4 in the low 32.
pub const fn bits(addr: IpAddr) -> u128 {
    match addr {
        IpAddr::V4(a) => a.to_bits() as u128,
        IpAddr::V6(a) => a.to_bits(),
    }
}

/// An address and how many of its leading bits count. The others are zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Prefix {
    family: Family,
    len: u8,
    bits: u128,
}

impl Prefix {
    /// `addr/len`; bits beyond `len` are cleared, a length beyond the family's is the whole address.
    pub const fn new(addr: IpAddr, len: u8) -> Prefix {
        let family = Family::of(addr);
        let len = if len < family.width() { len } else { family.width() };
        Prefix { family, len, bits: bits(addr) & !low_bits(family.width() - len) }
    }

    /// A single address.
    pub const fn host(addr: IpAddr) -> Prefix {
        Prefix::new(addr, 128)
    }

    /// The prefixes that make up a range, both ends included; none if the ends are of different families.
    pub fn covering(first: IpAddr, last: IpAddr) -> Vec<Prefix> {
        let family = Family::of(first);
        let mut prefixes = Vec::new();
        if family != Family::of(last) {
            return prefixes;
        }
        let (mut at, last) = (bits(first), bits(last));
        while at <= last {
            // The largest block that begins here and does not reach beyond the end.
            let aligned = at.trailing_zeros().min(family.width().into()) as u8;
            let host = (0..=aligned).rev().find(|&n| last - at >= low_bits(n)).unwrap_or(0);
            prefixes.push(Prefix { family, len: family.width() - host, bits: at });
            match at.checked_add(low_bits(host)).and_then(|end| end.checked_add(1)) {
                Some(next) => at = next,
                None => break,
            }
        }
        prefixes
    }

    /// Its family.
    pub const fn family(&self) -> Family {
        self.family
    }

    /// How many bits count.
    pub const fn length(&self) -> u8 {
        self.len
    }

    /// The lowest address.
    pub const fn addr(&self) -> IpAddr {
        self.family.address(self.bits)
    }

    /// The lowest and the highest address, as bits.
    pub const fn range(&self) -> (u128, u128) {
        (self.bits, self.bits | low_bits(self.family.width() - self.len))
    }

    /// Whether an address is one of its.
    pub fn contains(&self, addr: IpAddr) -> bool {
        Prefix::new(addr, self.len) == *self
    }

    /// The bits that count, and their value.
    pub const fn mask(&self) -> (u128, u128) {
        let all = low_bits(self.family.width());
        (all & !low_bits(self.family.width() - self.len), self.bits)
    }
}

/// An IPv4 address before a length, whose trailing zeros may be left out: `10.1` is 10.1.0.0.
pub(crate) fn short_inet(word: &str) -> Option<IpAddr> {
    let mut octets = [0; 4];
    for (i, part) in word.split('.').enumerate() {
        *octets.get_mut(i)? = part.parse().ok()?;
    }
    Some(IpAddr::V4(Ipv4Addr::from_octets(octets)))
}

/// A number whose lowest `n` bits are set.
const fn low_bits(n: u8) -> u128 {
    if n >= 128 { u128::MAX } else { (1 << n) - 1 }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.addr().fmt(f)?;
        if self.len < self.family.width() { write!(f, "/{}", self.len) } else { Ok(()) }
    }
}

/// A prefix in or, with `not`, out of a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Entry {
    /// Addresses of this prefix are not in the set, unless a longer prefix says so.
    pub not: bool,
    /// Which addresses.
    pub prefix: Prefix,
}

/// A set of addresses: disjoint ranges in ascending order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AddrSet {
    inet: Box<[(u32, u32)]>,
    inet6: Box<[(u128, u128)]>,
}

impl AddrSet {
    /// The set that `entries` describe: the longest prefix that covers an address decides; none, and it is not in.
    pub fn new(entries: &[Entry]) -> AddrSet {
        let ranges = |family| disjoint(entries, family);
        AddrSet {
            inet: ranges(Family::Inet).into_iter().map(|(a, b)| (a as u32, b as u32)).collect(),
            inet6: ranges(Family::Inet6).into_boxed_slice(),
        }
    }

    /// Whether an address is in it.
    #[inline]
    pub fn contains(&self, family: Family, bits: u128) -> bool {
        match family {
            Family::Inet => within(&self.inet, bits as u32),
            Family::Inet6 => within(&self.inet6, bits),
        }
    }

    /// Whether no address of either family is in it.
    pub fn is_empty(&self) -> bool {
        self.inet.is_empty() && self.inet6.is_empty()
    }
}

#[inline]
fn within<T: Ord + Copy>(ranges: &[(T, T)], at: T) -> bool {
    let after = ranges.partition_point(|&(first, _)| first <= at);
    after > 0 && ranges.get(after - 1).is_some_and(|&(_, last)| at <= last)
}

/// The addresses of a family that are in the set that `entries` describe, as ranges in order.
pub(crate) fn disjoint(entries: &[Entry], family: Family) -> Vec<(u128, u128)> {
    flatten(entries.iter().filter(|e| e.prefix.family == family))
}

/// Sweeps over the entries from the lowest address up, with the prefixes that cover the present address on a stack,
/// the longest on top.
fn flatten<'a>(entries: impl Iterator<Item = &'a Entry>) -> Vec<(u128, u128)> {
    let mut sorted: Vec<(u128, u8, u128, bool)> = entries
        .map(|e| {
            let (first, last) = e.prefix.range();
            (first, e.prefix.len, last, !e.not)
        })
        .collect();
    sorted.sort_by_key(|&(first, len, ..)| (first, len));
    let mut sweep = Sweep { at: Some(0), ranges: Vec::new() };
    let mut open: Vec<(u128, bool)> = Vec::new();
    for (first, _, last, is_in) in sorted {
        while let Some(&(end, was_in)) = open.last().filter(|(end, _)| *end < first) {
            sweep.up_to(end, was_in);
            open.pop();
        }
        let covered = open.last().is_some_and(|&(_, was_in)| was_in);
        if let Some(before) = first.checked_sub(1) {
            sweep.up_to(before, covered);
        }
        open.push((last, is_in));
    }
    while let Some((end, was_in)) = open.pop() {
        sweep.up_to(end, was_in);
    }
    sweep.ranges
}

struct Sweep {
    /// The first address not yet decided; none when all are.
    at: Option<u128>,
    ranges: Vec<(u128, u128)>,
}

impl Sweep {
    /// Decides all addresses up to `last`.
    fn up_to(&mut self, last: u128, is_in: bool) {
        let Some(at) = self.at.filter(|&at| at <= last) else { return };
        self.at = last.checked_add(1);
        if !is_in {
            return;
        }
        match self.ranges.last_mut() {
            Some((_, end)) if end.checked_add(1) == Some(at) => *end = last,
            _ => self.ranges.push((at, last)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn prefix(text: &str) -> Prefix {
        let (addr, len) = text.split_once('/').unwrap_or((text, "128"));
        Prefix::new(addr.parse().unwrap(), len.parse().unwrap())
    }

    #[test]
    fn a_range_is_made_up_of_prefixes_that_cover_it_and_nothing_else() {
        let list = |a: &str, b: &str| -> Vec<String> {
            let covering = Prefix::covering(a.parse().unwrap(), b.parse().unwrap());
            covering.iter().map(ToString::to_string).collect()
        };
        assert_eq!(list("10.0.0.1", "10.0.0.6"), ["10.0.0.1", "10.0.0.2/31", "10.0.0.4/31", "10.0.0.6"]);
        assert_eq!(list("0.0.0.0", "255.255.255.255"), ["0.0.0.0/0"]);
        assert_eq!(list("::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"), ["::/0"]);
        assert_eq!(list("255.255.255.255", "255.255.255.255"), ["255.255.255.255"]);
        assert!(list("10.0.0.2", "10.0.0.1").is_empty() && list("10.0.0.2", "::1").is_empty());
    }

    #[test]
    fn a_prefix_is_masked_and_printed_without_the_length_of_a_whole_address() {
        for (text, printed) in [
            ("10.1.2.3/8", "10.0.0.0/8"),
            ("10.1.2.3", "10.1.2.3"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("fe80::1/64", "fe80::/64"),
        ] {
            assert_eq!(prefix(text).to_string(), printed);
        }
    }

    #[test]
    fn the_whole_of_both_families_is_one_range_each() {
        let set = AddrSet::new(&["0.0.0.0/0", "::/0"].map(|p| Entry { not: false, prefix: prefix(p) }));
        assert_eq!((&*set.inet, &*set.inet6), (&[(0, u32::MAX)][..], &[(0, u128::MAX)][..]));
    }

    proptest! {
        #[test]
        fn a_set_says_what_its_longest_prefix_says(
            entries in proptest::collection::vec((any::<bool>(), 0_u32..64, 26_u8..=32), 0..12),
            probes in proptest::collection::vec(0_u32..80, 20),
        ) {
            let mut seen = std::collections::HashSet::new();
            let entries: Vec<Entry> = entries
                .into_iter()
                .map(|(not, a, len)| Entry { not, prefix: Prefix::new(IpAddr::V4(Ipv4Addr::from_bits(a)), len) })
                .filter(|e| seen.insert(e.prefix))
                .collect();
            let set = AddrSet::new(&entries);
            for probe in probes {
                let longest = entries
                    .iter()
                    .filter(|e| { let (a, b) = e.prefix.range(); (a..=b).contains(&u128::from(probe)) })
                    .max_by_key(|e| e.prefix.length());
                prop_assert_eq!(set.contains(Family::Inet, u128::from(probe)), longest.is_some_and(|e| !e.not), "{}", probe);
            }
        }
    }
}
