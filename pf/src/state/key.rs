//! The key of a state: both addresses and ports, the protocol and the family, ordered by direction.
//!
//! ```text
//!   in  A:1 ─▶ B:2      key [A:1, B:2]        the two directions of a flow through one interface
//!   out B:2 ─▶ A:1      key [A:1, B:2]        make the same key
//!   out A:1 ─▶ B:2      key [B:2, A:1]        but the way out of another interface does not
//! ```
//!
//! ICMP queries have their identifier in both ports, other protocols without ports have 0.

use std::hash::{BuildHasher, RandomState};

use crate::{addr::Family, packet::Packet, rule::Direction};

/// Who talks to whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct Key {
    pub(crate) addr: [[u8; 16]; 2],
    pub(crate) port: [u16; 2],
    pub(crate) proto: u8,
    pub(crate) family: u8,
}

impl Key {
    pub(crate) const EMPTY: Key = Key { addr: [[0; 16]; 2], port: [0; 2], proto: 0, family: 0 };

    /// Becomes the key of a packet.
    #[inline(always)]
    pub(crate) fn fill(&mut self, direction: Direction, p: &Packet) {
        let first = usize::from(direction == Direction::Out);
        self.addr[first] = p.src.to_ne_bytes();
        self.addr[first ^ 1] = p.dst.to_ne_bytes();
        self.port[first] = p.sport;
        self.port[first ^ 1] = p.dport;
        self.proto = p.proto;
        self.family = p.family as u8;
    }

    /// The key of a packet from `src` to `dst`.
    #[inline(always)]
    pub(crate) fn new(
        direction: Direction,
        family: Family,
        proto: u8,
        src: (u128, u16),
        dst: (u128, u16),
    ) -> Key {
        let (first, second) = match direction {
            Direction::In => (src, dst),
            Direction::Out => (dst, src),
        };
        Key {
            addr: [first.0.to_ne_bytes(), second.0.to_ne_bytes()],
            port: [first.1, second.1],
            proto,
            family: family as u8,
        }
    }

    pub(crate) fn family(&self) -> Family {
        if self.family == Family::Inet6 as u8 { Family::Inet6 } else { Family::Inet }
    }

    /// The bits of one of the addresses.
    #[inline(always)]
    pub(crate) fn bits(&self, side: usize) -> u128 {
        u128::from_ne_bytes(self.addr[side])
    }
}

/// What makes hashes unpredictable: drawn when the table is made.
#[derive(Clone, Copy)]
pub(crate) struct Seed([u64; 4]);

impl Seed {
    pub(crate) fn random() -> Seed {
        // The standard library draws the keys of its hash maps from the system, and hashes with SipHash.
        let state = RandomState::new();
        Seed(std::array::from_fn(|i| state.hash_one(i)))
    }

    /// The hash of a key: a folded multiplication for each pair of words.
    #[inline(always)]
    pub(crate) fn hash(&self, key: &Key) -> Hash {
        let [s0, s1, s2, s3] = self.0;
        // The ports have just been written one by one: put together by a shift they would be read as one word, and that
        // stalls until both have reached the cache.
        let rest = u64::from(key.port[0])
            + u64::from(key.port[1]) * 65_537
            + (u64::from(key.proto) << 40)
            + (u64::from(key.family) << 48);
        let (a, b) = (key.bits(0), key.bits(1));
        let addresses = if key.family == Family::Inet as u8 {
            a as u64 | (b as u64) << 32
        } else {
            let first = fold(a as u64 ^ s2, (a >> 64) as u64 ^ s3);
            fold(b as u64 ^ first, (b >> 64) as u64 ^ s0)
        };
        let mixed = fold(fold(addresses ^ s0, rest ^ s1) ^ s2, s3 | 1);
        Hash { row: mixed as u32, tag: (mixed >> 32) as u32 }
    }
}

impl std::fmt::Debug for Seed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Seed(..)")
    }
}

#[inline(always)]
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    product as u64 ^ (product >> 64) as u64
}

/// Where a key is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hash {
    /// Which row, modulo their number.
    pub(crate) row: u32,
    /// What tells the keys of a row apart before they are compared.
    pub(crate) tag: u32,
}

impl Hash {
    /// Not worked out.
    pub(crate) const NONE: Hash = Hash { row: 0, tag: 0 };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_directions_through_one_interface_have_one_key() {
        let (a, b) = ((1, 1024), (2, 80));
        let there = Key::new(Direction::In, Family::Inet, 6, a, b);
        assert_eq!(there, Key::new(Direction::Out, Family::Inet, 6, b, a));
        assert_ne!(there, Key::new(Direction::Out, Family::Inet, 6, a, b));
        assert_eq!(size_of::<Key>(), 38);
    }

    #[test]
    fn neighbouring_keys_spread_over_rows_and_tags() {
        let seed = Seed::random();
        let mut rows = vec![0; 256];
        let mut tags = std::collections::HashSet::new();
        for n in 0..65_536_u32 {
            let src = (u128::from(0x0a00_0000 + n / 256), (1024 + n % 256) as u16);
            let hash = seed.hash(&Key::new(Direction::In, Family::Inet, 6, src, (0xc000_0201, 443)));
            rows[hash.row as usize % 256] += 1;
            tags.insert(hash.tag);
        }
        // 256 in each, give or take six standard deviations.
        assert!(rows.iter().all(|n| (160..=352).contains(n)), "{rows:?}");
        assert!(tags.len() > 65_500);
    }
}
