//! Which policy a flow got last time.
//!
//! Direct-mapped and a worker's own, so nothing is shared. An entry holds the whole key and the number of the database it
//! is of: a reload empties the cache by making its entries strangers. A table of few rules is not worth it; one of many
//! is asked once a flow. The key has the upper layer only where some rule looks at it, since finding it costs more than
//! the rest.

use super::{
    Direction,
    table::{Bits, Tables, few_plainly},
};
use crate::selector::{Ends, Packet, Shown};

const ENTRIES: usize = 1024;
/// No policy.
const NONE: u32 = u32::MAX;

/// `A` is an address.
#[derive(Clone, Copy, Debug, Default)]
struct Entry<A> {
    src: A,
    dst: A,
    /// Direction, protocol and ports.
    rest: u64,
    /// 0 is no database's.
    generation: u32,
    at: u32,
}

impl<A: Bits> Entry<A> {
    #[inline(always)]
    fn is_of(&self, key: &Entry<A>) -> bool {
        (self.src, self.dst, self.rest, self.generation) == (key.src, key.dst, key.rest, key.generation)
    }
}

/// See the head of the file.
#[derive(Debug, Default)]
pub struct FlowCache {
    v4: Box<[Entry<u32>]>,
    v6: Box<[Entry<u128>]>,
    worker: u16,
}

impl FlowCache {
    /// Empty, of worker 0. It takes memory when it is first used.
    pub fn new() -> FlowCache {
        FlowCache::default()
    }

    /// As [`new`](Self::new), of this worker.
    pub fn of(worker: u16) -> FlowCache {
        FlowCache { worker, ..FlowCache::default() }
    }

    /// Whose it is.
    #[inline(always)]
    pub(super) const fn worker(&self) -> u16 {
        self.worker
    }

    /// The first policy of a table that matches.
    #[inline(always)]
    pub(super) fn first(
        &mut self,
        generation: u32,
        tables: &Tables,
        direction: Direction,
        packet: &Packet<'_>,
    ) -> Option<u32> {
        if tables.is_few(packet) {
            return tables.first(packet);
        }
        let shown = tables.looks_at_upper().then(|| packet.shown());
        let rest = rest(direction, shown.map_or(0, upper));
        match packet.ends {
            Ends::V4 { src, dst } => {
                let key = Entry { src, dst, rest, generation, at: NONE };
                ask(&mut self.v4, &key, tables, shown)
            }
            Ends::V6 { src, dst } => {
                let key = Entry { src, dst, rest, generation, at: NONE };
                ask(&mut self.v6, &key, tables, shown)
            }
            Ends::None => None,
        }
    }

    /// The first policy of a table on the way in for addresses of IPv4, if that is known without looking any closer.
    #[inline(always)]
    pub(super) fn known4(&self, generation: u32, tables: &Tables, src: u32, dst: u32) -> Option<u32> {
        if let Some(rules) = tables.few4() {
            return few_plainly(rules, src, dst);
        }
        if tables.looks_at_upper() {
            return None;
        }
        let key = Entry { src, dst, rest: rest(Direction::In, 0), generation, at: NONE };
        self.v4.get(place(&key)).filter(|e| e.is_of(&key)).map(|e| e.at)
    }
}

/// What the cache has for a key, or else the table.
#[inline(always)]
fn ask<A: Bits>(
    entries: &mut Box<[Entry<A>]>,
    key: &Entry<A>,
    tables: &Tables,
    shown: Option<Shown>,
) -> Option<u32> {
    let place = place(key);
    let at = match entries.get(place) {
        Some(e) if e.is_of(key) => e.at,
        _ => fill(entries, place, key, tables, shown),
    };
    (at != NONE).then_some(at)
}

#[inline(never)]
fn fill<A: Bits>(
    entries: &mut Box<[Entry<A>]>,
    place: usize,
    key: &Entry<A>,
    tables: &Tables,
    shown: Option<Shown>,
) -> u32 {
    if entries.is_empty() {
        *entries = vec![Entry::default(); ENTRIES].into();
    }
    let at = A::table(tables).first_of_many(key.src, key.dst, shown).unwrap_or(NONE);
    if let Some(entry) = entries.get_mut(place) {
        *entry = Entry { at, ..*key };
    }
    at
}

/// What a key has besides the addresses; `upper` is 0 where no rule looks at it.
#[inline(always)]
fn rest(direction: Direction, upper: u64) -> u64 {
    upper | u64::from(direction == Direction::Out) << 63
}

/// Protocol and ports, or that they can not be seen.
fn upper(shown: Shown) -> u64 {
    let ends = shown.ends.map_or(1 << 32, |(src, dst)| u64::from(src) << 16 | u64::from(dst));
    shown.proto.map_or(1 << 33, |proto| u64::from(proto.0) << 40) | ends
}

#[inline(always)]
fn place<A: Bits>(key: &Entry<A>) -> usize {
    let mixed =
        (key.src.fold().wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ key.dst.fold() ^ key.rest.rotate_left(17))
            .wrapping_mul(0xd6e8_feb8_6659_fd93);
    (mixed >> 40) as usize % ENTRIES
}
