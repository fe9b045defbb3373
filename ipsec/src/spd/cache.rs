//! Which policy a flow got last time.
//!
//! Direct-mapped and a worker's own, so nothing is shared. An entry holds the whole key and the number of the database it
//! is of: a reload empties the cache by making its entries strangers. A table of few rules is not worth it; one of many
//! is asked once a flow. The key has the upper layer only where some rule looks at it, since finding it costs more than
//! the rest.

use super::{Direction, table::Tables};
use crate::selector::{Ends, Packet};

const ENTRIES: usize = 1024;
/// No policy.
const NONE: u32 = u32::MAX;

#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    src: u128,
    dst: u128,
    /// Direction, family, protocol and ports.
    rest: u64,
    /// 0 is no database's.
    generation: u32,
    at: u32,
}

/// See the head of the file.
#[derive(Debug, Default)]
pub struct FlowCache {
    entries: Box<[Entry]>,
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
            tables.first(packet)
        } else {
            self.ask(generation, tables, direction, packet.data)
        }
    }

    #[inline(never)]
    fn ask(&mut self, generation: u32, tables: &Tables, direction: Direction, data: &[u8]) -> Option<u32> {
        let packet = &Packet::of(data);
        let (src, dst, family) = match packet.ends {
            Ends::V4 { src, dst } => (src.into(), dst.into(), 0),
            Ends::V6 { src, dst } => (src, dst, 1),
            Ends::None => return None,
        };
        let upper = if tables.looks_at_upper() { upper(packet) } else { 0 };
        let way = u64::from(direction == Direction::Out);
        let key = Entry { src, dst, rest: upper | family << 63 | way << 62, generation, at: NONE };
        if self.entries.is_empty() {
            self.entries = vec![Entry::default(); ENTRIES].into();
        }
        let Some(entry) = self.entries.get_mut(place(&key)) else { return tables.first(packet) };
        if (entry.src, entry.dst, entry.rest, entry.generation) != (src, dst, key.rest, generation) {
            *entry = Entry { at: tables.first(packet).unwrap_or(NONE), ..key };
        }
        (entry.at != NONE).then_some(entry.at)
    }
}

/// Protocol, and ports or that there are none to be seen.
fn upper(packet: &Packet<'_>) -> u64 {
    let shown = packet.shown();
    let ends = shown.ends.map_or(1 << 32, |(src, dst)| u64::from(src) << 16 | u64::from(dst));
    u64::from(shown.proto.0) << 40 | ends
}

#[inline(always)]
fn place(key: &Entry) -> usize {
    let fold = |n: u128| (n >> 64) as u64 ^ n as u64;
    let mixed =
        (fold(key.src).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ fold(key.dst) ^ key.rest.rotate_left(17))
            .wrapping_mul(0xd6e8_feb8_6659_fd93);
    (mixed >> 40) as usize % ENTRIES
}
