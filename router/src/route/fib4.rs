//! The IPv4 forwarding table: one memory access a lookup, nearly always.
//!
//! After DIR-24-8 (Gupta, Lin, McKeown, "Routing Lookups in Hardware at Memory Access Speeds", 1998): one entry for
//! each /24, and for a /24 with longer prefixes in it a group of 256 entries. The flat table is cut into 4096 chunks, one
//! a /12, so that a change makes one new chunk and shares all others with the table it came from; chunks with nothing
//! but a covering route in them are one chunk however many they are.
//!
//! ```text
//!   address   12 bits | 12 bits | 8 bits
//!   top       chunk ──►entry ───► next hop, or (bit 31) a group of the chunk ──► next hop
//! ```
//!
//! Not done: compressing next hops to 16 bits (would halve the memory; the whole Internet takes 64 MiB).

use super::hop::NextHopId;
use std::{net::Ipv4Addr, sync::Arc};

const CHUNKS: usize = 1 << 12;
const ENTRIES: usize = 1 << 12;
/// Prefix length that a chunk stands for.
pub(super) const CHUNK_BITS: u8 = 12;
/// Bit of an entry that is the number of a group.
const GROUP: u32 = 1 << 31;

/// All entries below one /12.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Chunk {
    entries: [u32; ENTRIES],
    groups: Vec<[u32; 256]>,
}

impl Chunk {
    /// One with the same next hop everywhere.
    pub(super) fn uniform(hop: NextHopId) -> Chunk {
        Chunk { entries: [hop.0; ENTRIES], groups: Vec::new() }
    }

    /// Lays a route over what is there. Routes must come shorter before longer where they overlap.
    pub(super) fn lay(&mut self, bits: u32, len: u8, hop: NextHopId) {
        let first = entry_of(bits);
        if len <= 24 {
            let count = 1 << (24 - len.max(CHUNK_BITS));
            self.entries[first..first + count].fill(hop.0);
        } else {
            let group = self.group(first);
            let low = bits as usize & 0xff;
            group[low..low + (1 << (32 - len))].fill(hop.0);
        }
    }

    /// The group at an entry; made if there was none.
    fn group(&mut self, entry: usize) -> &mut [u32; 256] {
        let was = self.entries[entry];
        let index = if was & GROUP == 0 {
            self.groups.push([was; 256]);
            self.entries[entry] = GROUP | (self.groups.len() as u32 - 1);
            self.groups.len() - 1
        } else {
            (was & !GROUP) as usize
        };
        &mut self.groups[index]
    }

    fn bytes(&self) -> usize {
        size_of::<Chunk>() + self.groups.capacity() * size_of::<[u32; 256]>()
    }
}

/// Longest prefix match over IPv4.
#[derive(Clone)]
pub struct Fib4 {
    chunks: Box<[Arc<Chunk>; CHUNKS]>,
}

impl Default for Fib4 {
    fn default() -> Self {
        let empty = Arc::new(Chunk::uniform(NextHopId::NONE));
        Fib4 { chunks: Box::new(std::array::from_fn(|_| empty.clone())) }
    }
}

impl Fib4 {
    /// The next hop of the longest prefix that has the address; [`NextHopId::NONE`] if none has.
    #[inline(always)]
    pub fn lookup(&self, addr: Ipv4Addr) -> NextHopId {
        let bits = addr.to_bits();
        let chunk = &*self.chunks[chunk_of(bits)];
        let entry = chunk.entries[entry_of(bits)];
        if entry & GROUP == 0 { NextHopId(entry) } else { in_group(chunk, entry, bits) }
    }

    /// Asks for the cache line that [`lookup`](Self::lookup) will read.
    #[inline(always)]
    pub fn prefetch(&self, addr: Ipv4Addr) {
        let bits = addr.to_bits();
        kern::prefetch(&self.chunks[chunk_of(bits)].entries[entry_of(bits)]);
    }

    /// Memory taken, parts shared with other tables included, each part once.
    pub fn bytes(&self) -> usize {
        let mut seen = std::collections::HashSet::new();
        let parts = self.chunks.iter().filter(|c| seen.insert(Arc::as_ptr(c)));
        size_of_val(&*self.chunks) + parts.map(|c| c.bytes()).sum::<usize>()
    }

    pub(super) fn replace(&mut self, chunk: usize, with: Arc<Chunk>) {
        self.chunks[chunk] = with;
    }

    #[cfg(test)]
    pub(super) fn shared_with(&self, other: &Fib4) -> usize {
        self.chunks.iter().zip(other.chunks.iter()).filter(|(a, b)| Arc::ptr_eq(a, b)).count()
    }
}

/// Out of line: prefixes longer than /24 are few, and packets to them fewer.
#[inline(never)]
fn in_group(chunk: &Chunk, entry: u32, bits: u32) -> NextHopId {
    NextHopId(chunk.groups[(entry & !GROUP) as usize][bits as usize & 0xff])
}

#[inline(always)]
pub(super) fn chunk_of(bits: u32) -> usize {
    (bits >> 20) as usize
}

#[inline(always)]
fn entry_of(bits: u32) -> usize {
    (bits >> 8) as usize & (ENTRIES - 1)
}
