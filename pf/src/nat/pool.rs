//! Choosing an address from a pool (BSD: `pf_map_addr`).
//!
//! A pool is a list of prefixes and tables, whose addresses are numbered through from the first to the last; a method
//! draws a number. `bitmask` is the exception: it replaces the network's bits and keeps the host's. What is in a table is
//! what is in it at the moment: a pool follows `pfctl -T` without a reload. Round robin then goes on from the number it
//! has come to, so an address may be left out or come twice in the round in which its table changes.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use crate::{
    addr::{Family, Prefix},
    pool::Method,
    random::Random,
    table,
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

/// What a pool chooses from.
#[derive(Clone, Debug)]
pub(crate) enum Item {
    /// The addresses of a prefix.
    Prefix(Prefix),
    /// Those that are in a table.
    Table(table::Shared),
}

impl Item {
    /// How many addresses of a family it has.
    fn total(&self, family: Family) -> u128 {
        match self {
            Item::Prefix(prefix) if prefix.family() == family => size(prefix),
            Item::Prefix(_) => 0,
            Item::Table(table) => table.total(family),
        }
    }

    /// Its address with this number.
    fn at(&self, family: Family, number: u128) -> Option<u128> {
        match self {
            Item::Prefix(prefix) => Some(prefix.range().0 + number),
            Item::Table(table) => table.at(family, number),
        }
    }

    fn has(&self, family: Family, address: u128) -> bool {
        match self {
            Item::Prefix(prefix) => {
                let (first, last) = prefix.range();
                prefix.family() == family && (first..=last).contains(&address)
            }
            Item::Table(table) => table.contains(family, address),
        }
    }
}

/// The addresses of a pool, resolved to this router's.
#[derive(Debug)]
pub(crate) struct Addresses {
    items: Box<[Item]>,
    choice: Choice,
    /// A source keeps what it got.
    pub(crate) sticky: bool,
}

/// How many addresses a prefix has; of all of IPv6, half.
fn size(prefix: &Prefix) -> u128 {
    let (first, last) = prefix.range();
    (last - first).saturating_add(1).min(1 << 127)
}

impl Addresses {
    /// The pool of these. Without a method: as it is if there is one prefix, else one after the other.
    pub(crate) fn new(
        items: &[Item],
        method: Option<Method>,
        sticky: bool,
        random: &mut Random,
    ) -> Addresses {
        let choice = match method {
            None if matches!(items, [Item::Prefix(_)]) => Choice::Bitmask,
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
        Addresses { items: items.into(), choice, sticky }
    }

    /// How many addresses of a family there are; at most 2^127.
    fn total(&self, family: Family) -> u128 {
        let totals = self.items.iter().map(|item| item.total(family));
        totals.fold(0, u128::saturating_add).min(1 << 127)
    }

    /// How many addresses of a family are worth trying one after the other.
    pub(crate) fn tries(&self, family: Family) -> u32 {
        match self.choice {
            Choice::Random | Choice::RoundRobin(_) => self.total(family).min(16) as u32,
            Choice::Bitmask | Choice::SourceHash(_) => 1,
        }
    }

    /// An address of this family for a packet from `source`; `old` is the address it takes the place of.
    pub(crate) fn pick(&self, family: Family, source: u128, old: u128, random: &mut Random) -> Option<u128> {
        self.pick_item(family, source, old, random).map(|(_, address)| address)
    }

    /// The same, and the number of the item that it is of.
    pub(crate) fn pick_item(
        &self,
        family: Family,
        source: u128,
        old: u128,
        random: &mut Random,
    ) -> Option<(usize, u128)> {
        match &self.choice {
            Choice::Bitmask => self.masked(family, old),
            Choice::Random => self.numbered(family, random.wide()),
            Choice::SourceHash(key) => self.numbered(family, keyed_hash(key, source)),
            Choice::RoundRobin(given) => self.numbered(family, u128::from(given.fetch_add(1, Relaxed))),
        }
    }

    /// The address with this number, beginning again after the last.
    fn numbered(&self, family: Family, number: u128) -> Option<(usize, u128)> {
        let mut left = number.checked_rem(self.total(family))?;
        for (i, item) in self.items.iter().enumerate() {
            let n = item.total(family);
            if left < n {
                return Some((i, item.at(family, left)?));
            }
            left -= n;
        }
        // A table has lost addresses since they were added up.
        let (i, item) = self.items.iter().enumerate().find(|(_, item)| item.total(family) > 0)?;
        Some((i, item.at(family, 0)?))
    }

    /// The first prefix, with the bits of the host if it is the only one.
    fn masked(&self, family: Family, old: u128) -> Option<(usize, u128)> {
        let mut prefixes = self.items.iter().enumerate().filter_map(|(i, item)| match item {
            Item::Prefix(prefix) if prefix.family() == family => Some((i, prefix)),
            _ => None,
        });
        let (i, prefix) = prefixes.next()?;
        let (mask, value) = prefix.mask();
        let host = if prefixes.next().is_none() { old & !mask } else { 0 };
        let all = if family == Family::Inet { u128::from(u32::MAX) } else { u128::MAX };
        Some((i, value | host & all))
    }

    /// Whether an address is of this pool: a sticky one may have gone with a reload, or from its table.
    pub(crate) fn has(&self, family: Family, address: u128) -> bool {
        self.items.iter().any(|item| item.has(family, address))
    }
}

impl From<Prefix> for Item {
    fn from(prefix: Prefix) -> Item {
        Item::Prefix(prefix)
    }
}

impl From<&table::Shared> for Item {
    fn from(table: &table::Shared) -> Item {
        Item::Table(Arc::clone(table))
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
            Item::from(Prefix::new(addr.parse().unwrap(), len.parse().unwrap()))
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
