//! The IPv6 forwarding table: a trie of strides 8, 8, then 8 more where it must, with buckets at its ends.
//!
//! The first 16 bits index two small tables. Below each /16 lies a [`Subtrie`]: while more than [`BUCKET`] prefixes are
//! left, a node of 256 slots tells them apart by one octet (octets in which all agree are skipped and compared once);
//! the few that are left stand in a bucket, longest first, and are compared one after the other. So a router with a
//! handful of routes reads one or two cache lines, and one with the whole Internet five to eight.
//!
//! ```text
//!   octet 0   octet 1      octets 2..16
//!   top ─────► slot ──► next hop | subtrie: node ─► node ─► bucket [prefix, len, hop] ... [::/0, hop]
//! ```
//!
//! A change makes a new subtrie for its /16 and shares the rest. The bucket's last entry is the route that covers
//! all of it, so a scan always ends.

use super::hop::NextHopId;
use std::{net::Ipv6Addr, sync::Arc};

/// Prefix length that a subtrie stands for.
pub(super) const SLOT_BITS: u8 = 16;
/// Prefixes that are compared one by one rather than told apart by a node.
const BUCKET: usize = 6;

/// Bits of a reference that say what it is: a next hop (neither), a node, or a bucket.
const NODE: u32 = 1 << 31;
const LIST: u32 = 1 << 30;
const INDEX: u32 = LIST - 1;

/// A route as the trie sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Prefix {
    pub(super) bits: u128,
    pub(super) len: u8,
    pub(super) hop: NextHopId,
}

/// One line of a bucket: 24 octets.
#[derive(Clone, Copy)]
struct Line {
    high: u64,
    low: u64,
    len: u32,
    hop: NextHopId,
}

/// Tells prefixes apart by one octet.
struct Node {
    /// The octets before, which all prefixes below share.
    above: u128,
    /// How far the octet is from the right, in bits.
    shift: u32,
    /// For addresses that differ in `above`.
    otherwise: u32,
    slots: [u32; 256],
}

/// Everything below one /16.
pub(super) struct Subtrie {
    root: u32,
    nodes: Vec<Node>,
    lines: Vec<Line>,
}

impl Subtrie {
    /// Builds one of the prefixes longer than /16 below a /16, in lexical order (parents first), over the route that
    /// covers them.
    pub(super) fn new(prefixes: &[Prefix], cover: NextHopId) -> Subtrie {
        let mut trie = Subtrie { root: cover.0, nodes: Vec::new(), lines: Vec::new() };
        trie.root = trie.build(prefixes, 2, cover.0);
        trie.nodes.shrink_to_fit();
        trie.lines.shrink_to_fit();
        trie
    }

    /// All prefixes are longer than the octets before `octet`, and agree in them.
    fn build(&mut self, prefixes: &[Prefix], octet: u32, cover: u32) -> u32 {
        if prefixes.len() <= BUCKET { self.list(prefixes, cover) } else { self.node(prefixes, octet, cover) }
    }

    fn list(&mut self, prefixes: &[Prefix], cover: u32) -> u32 {
        if prefixes.is_empty() {
            return cover;
        }
        let first = self.lines.len() as u32;
        let mut longest_first = prefixes.to_vec();
        longest_first.sort_by_key(|p| std::cmp::Reverse(p.len));
        self.lines.extend(longest_first.into_iter().map(Line::new));
        self.lines.push(Line::new(Prefix { bits: 0, len: 0, hop: NextHopId(cover) }));
        LIST | first
    }

    fn node(&mut self, prefixes: &[Prefix], octet: u32, cover: u32) -> u32 {
        let octet = first_difference(prefixes, octet);
        let shift = 120 - 8 * octet;
        let slot = |p: &Prefix| (p.bits >> shift) as usize & 0xff;
        let ends_here = |p: &Prefix| u32::from(p.len) <= 8 * (octet + 1);

        let mut slots = [cover; 256];
        for p in prefixes.iter().filter(|p| ends_here(p)) {
            let count = 1 << (8 * (octet + 1) - u32::from(p.len));
            slots[slot(p)..slot(p) + count].fill(p.hop.0);
        }
        let index = self.nodes.len();
        self.nodes.push(Node { above: above(prefixes[0].bits, shift), shift, otherwise: cover, slots });

        let longer: Vec<Prefix> = prefixes.iter().filter(|p| !ends_here(p)).copied().collect();
        for below in longer.chunk_by(|a, b| slot(a) == slot(b)) {
            let at = slot(&below[0]);
            let cover = self.nodes[index].slots[at];
            self.nodes[index].slots[at] = self.build(below, octet + 1, cover);
        }
        NODE | index as u32
    }

    #[inline(always)]
    fn lookup(&self, addr: u128) -> NextHopId {
        let mut at = self.root;
        while at & NODE != 0 {
            let node = &self.nodes[(at & INDEX) as usize];
            at = if above(addr, node.shift) == node.above {
                node.slots[(addr >> node.shift) as usize & 0xff]
            } else {
                node.otherwise
            };
        }
        if at & LIST == 0 { NextHopId(at) } else { self.scan((at & INDEX) as usize, addr) }
    }

    #[inline(always)]
    fn scan(&self, first: usize, addr: u128) -> NextHopId {
        for line in &self.lines[first..] {
            if line.matches(addr) {
                return line.hop;
            }
        }
        NextHopId::NONE
    }

    fn bytes(&self) -> usize {
        size_of::<Subtrie>()
            + self.nodes.capacity() * size_of::<Node>()
            + self.lines.capacity() * size_of::<Line>()
    }
}

impl Line {
    fn new(p: Prefix) -> Line {
        Line { high: (p.bits >> 64) as u64, low: p.bits as u64, len: p.len.into(), hop: p.hop }
    }

    #[inline(always)]
    fn matches(&self, addr: u128) -> bool {
        let prefix = u128::from(self.high) << 64 | u128::from(self.low);
        (addr ^ prefix).leading_zeros() >= self.len
    }
}

/// What stands left of the octet at `shift`.
#[inline(always)]
fn above(bits: u128, shift: u32) -> u128 {
    bits >> (shift + 8)
}

/// The first octet, from `octet` on, in which a prefix ends or two differ.
fn first_difference(prefixes: &[Prefix], octet: u32) -> u32 {
    let shortest = prefixes.iter().map(|p| u32::from(p.len)).min().unwrap_or(0);
    let all = prefixes.iter().fold(0, |acc, p| acc | (p.bits ^ prefixes[0].bits));
    let agree = all.leading_zeros() / 8;
    agree.min((shortest - 1) / 8).max(octet)
}

/// What a /16 leads to.
#[derive(Clone)]
pub(super) enum Slot {
    /// Nothing longer than it: one next hop.
    Hop(NextHopId),
    /// Longer prefixes.
    Below(Arc<Subtrie>),
}

/// What the 256 /16s of a /8 lead to.
pub(super) type Page = [Slot; 256];

/// Longest prefix match over IPv6.
#[derive(Clone)]
pub struct Fib6 {
    pages: Box<[Arc<Page>; 256]>,
}

impl Default for Fib6 {
    fn default() -> Self {
        let empty: Arc<Page> = Arc::new(std::array::from_fn(|_| Slot::Hop(NextHopId::NONE)));
        Fib6 { pages: Box::new(std::array::from_fn(|_| empty.clone())) }
    }
}

impl Fib6 {
    /// The next hop of the longest prefix that has the address; [`NextHopId::NONE`] if none has.
    #[inline(always)]
    pub fn lookup(&self, addr: Ipv6Addr) -> NextHopId {
        let bits = addr.to_bits();
        match self.slot(bits) {
            Slot::Hop(hop) => *hop,
            Slot::Below(trie) => trie.lookup(bits),
        }
    }

    /// Asks for the first cache line that [`lookup`](Self::lookup) reads in the subtrie.
    #[inline(always)]
    pub fn prefetch(&self, addr: Ipv6Addr) {
        if let Slot::Below(trie) = self.slot(addr.to_bits()) {
            kern::prefetch(&**trie);
        }
    }

    #[inline(always)]
    fn slot(&self, bits: u128) -> &Slot {
        &self.pages[(bits >> 120) as usize][(bits >> 112) as usize & 0xff]
    }

    /// Memory taken, parts shared with other tables included, each part once.
    pub fn bytes(&self) -> usize {
        let mut seen = std::collections::HashSet::new();
        let mut bytes = size_of_val(&*self.pages);
        for page in self.pages.iter().filter(|p| seen.insert(Arc::as_ptr(p))) {
            let below = page.iter().map(|slot| if let Slot::Below(trie) = slot { trie.bytes() } else { 0 });
            bytes += size_of::<Page>() + below.sum::<usize>();
        }
        bytes
    }

    /// Puts what belongs to a /16, by its number.
    pub(super) fn replace(&mut self, slot: usize, with: Slot) {
        Arc::make_mut(&mut self.pages[slot >> 8])[slot & 0xff] = with;
    }

    /// Puts one next hop for 256 /16s, sharing the page with others alike.
    pub(super) fn replace_page(&mut self, page: usize, with: Arc<Page>) {
        self.pages[page] = with;
    }

    /// A page with one next hop everywhere.
    pub(super) fn uniform(hop: NextHopId) -> Arc<Page> {
        Arc::new(std::array::from_fn(|_| Slot::Hop(hop)))
    }

    #[cfg(test)]
    pub(super) fn pages_shared_with(&self, other: &Fib6) -> usize {
        self.pages.iter().zip(other.pages.iter()).filter(|(a, b)| Arc::ptr_eq(a, b)).count()
    }
}
