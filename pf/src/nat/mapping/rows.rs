//! The memory of mappings: rows to find them by, entries that hold them.
//!
//! ```text
//!   row of insides  ──▶ entry ──▶ entry ──▶ ...      an entry stands in a row of outsides from when its outside is
//!                         ▲                          reserved on, and in one of insides while it has states
//!   row of outsides ──────┘
//! ```
//!
//! Rows are locked at the level of source nodes, before those of states. Links and counts are atomics that only a holder of
//! the row's lock writes. Entries come in chunks, which the control thread
//! makes: as many as there may be states, for no mapping is without one for longer than a worker takes to make it. So nothing
//! is allocated when flows come and go.

use std::sync::{
    OnceLock,
    atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
};

use kern::lock::{
    Held, Leaf, SpinMutex,
    levels::{PfRules, PfSrcNodes},
};
use wire::IpProto;

use super::{Endpoint, Mapping};
use crate::{
    rule::Direction,
    state::key::{Hash, Key, Seed},
};

/// Entries of a chunk; few in the tests of this crate, which make a table for every case.
const CHUNK: usize = if cfg!(test) { 1 << 6 } else { 1 << 13 };
const CHUNKS: usize = 1 << 12;

/// What a row is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Inside,
    Outside,
}

/// A row: its first entry, and one more.
type Row = SpinMutex<PfSrcNodes, u32>;

#[derive(Debug)]
struct Entry {
    /// Not changed while the entry stands in a row.
    mapping: Leaf<Mapping>,
    /// By side: tag, and the next entry in the row and one more.
    next: [AtomicU64; 2],
    /// States that have it; for its row of insides.
    states: AtomicU32,
    /// How often its outside is reserved: by what stands in the row of insides, and by workers that are about to make or
    /// unmake that. For its row of outsides.
    reserved: AtomicU32,
}

impl Entry {
    fn new() -> Entry {
        let nowhere = Endpoint { family: crate::addr::Family::Inet, address: 0, port: 0 };
        Entry {
            mapping: Leaf::new(Mapping { inside: nowhere, outside: nowhere }),
            next: [AtomicU64::new(0), AtomicU64::new(0)],
            states: AtomicU32::new(0),
            reserved: AtomicU32::new(0),
        }
    }
}

/// Entries that nobody has, and how many chunks there are.
#[derive(Debug, Default)]
struct Free {
    entries: Vec<u32>,
    chunks: usize,
}

impl Free {
    /// Adds the entries of a chunk, unless it has them.
    fn add(&mut self, chunk: usize) {
        if chunk != self.chunks {
            return;
        }
        self.chunks += 1;
        // Workers give entries back: that must never allocate.
        self.entries.reserve(self.chunks * CHUNK - self.entries.len());
        let first = (chunk * CHUNK) as u32;
        self.entries.extend((first..first + CHUNK as u32).rev());
    }
}

#[derive(Debug)]
pub(super) struct Rows {
    seed: Seed,
    /// The rows of each side; their number is a power of two.
    sides: [Box<[Row]>; 2],
    chunks: Box<[OnceLock<Box<[Entry]>>]>,
    free: Leaf<Free>,
}

impl Rows {
    /// So many rows of each side, and no entries yet.
    pub(super) fn new(rows: usize) -> Rows {
        let rows = || (0..rows.next_power_of_two()).map(|_| Row::new(0)).collect();
        Rows {
            seed: Seed::random(),
            sides: [rows(), rows()],
            chunks: (0..CHUNKS).map(|_| OnceLock::new()).collect(),
            free: Leaf::new(Free::default()),
        }
    }

    /// Adds chunks until there are at least so many entries.
    pub(super) fn grow(&self, entries: u32) {
        for (number, chunk) in self.chunks.iter().enumerate().take(entries.div_ceil(CHUNK as u32) as usize) {
            // Workers wait for the lock: what takes long is done before.
            chunk.get_or_init(|| (0..CHUNK).map(|_| Entry::new()).collect());
            self.free.with(|free| free.add(number));
        }
    }

    /// Reserves the outside of a mapping, unless another sender has it: the entry that it has.
    pub(super) fn reserve(&self, held: &mut Held<'_, PfRules>, mapping: &Mapping) -> Option<u32> {
        let (hash, row) = self.row(Side::Outside, &mapping.outside);
        let (mut first, _held) = held.lock(row);
        let has_it = |it: &Mapping| it.outside == mapping.outside;
        if let Some((at, entry, its)) = self.find(Side::Outside, *first, hash.tag, has_it) {
            let is_own = its.inside == mapping.inside;
            return is_own.then(|| {
                entry.reserved.fetch_add(1, Relaxed);
                at
            });
        }
        let at = self.free.with(|free| free.entries.pop())?;
        let entry = self.entry(at)?;
        entry.mapping.with(|its| *its = *mapping);
        entry.reserved.store(1, Relaxed);
        self.link(Side::Outside, &mut first, hash.tag, at);
        Some(at)
    }

    /// Takes back one reservation of an entry's outside. After the last the entry is free.
    pub(super) fn give_up(&self, held: &mut Held<'_, PfRules>, at: u32, outside: &Endpoint) {
        let (_, row) = self.row(Side::Outside, outside);
        let (mut first, _held) = held.lock(row);
        if self.entry(at).is_some_and(|entry| entry.reserved.fetch_sub(1, Relaxed) == 1) {
            self.unlink(Side::Outside, &mut first, at);
            self.free.with(|free| free.entries.push(at));
        }
    }

    /// Takes the mapping of a sender that `serves`, if it has one: its outside.
    pub(super) fn take(
        &self,
        held: &mut Held<'_, PfRules>,
        inside: &Endpoint,
        serves: impl Fn(&Endpoint) -> bool,
    ) -> Option<Endpoint> {
        let (hash, row) = self.row(Side::Inside, inside);
        let (first, _held) = held.lock(row);
        self.take_of(*first, hash, inside, serves)
    }

    /// The same in a row that is locked.
    fn take_of(
        &self,
        first: u32,
        hash: Hash,
        inside: &Endpoint,
        serves: impl Fn(&Endpoint) -> bool,
    ) -> Option<Endpoint> {
        let is_it = |it: &Mapping| it.inside == *inside && serves(&it.outside);
        let (_, entry, its) = self.find(Side::Inside, first, hash.tag, is_it)?;
        entry.states.fetch_add(1, Relaxed);
        Some(its.outside)
    }

    /// Puts a mapping in whose outside is reserved, unless its sender has one that serves by now: that is taken.
    pub(super) fn put(
        &self,
        held: &mut Held<'_, PfRules>,
        at: u32,
        mapping: &Mapping,
        serves: impl Fn(&Endpoint) -> bool,
    ) -> Option<Endpoint> {
        let (hash, row) = self.row(Side::Inside, &mapping.inside);
        let (mut first, _held) = held.lock(row);
        // The same outside is the same mapping, even if its address has left the rule's table meanwhile.
        let serves = |outside: &Endpoint| *outside == mapping.outside || serves(outside);
        let taken = self.take_of(*first, hash, &mapping.inside, serves);
        if taken.is_none() {
            if let Some(entry) = self.entry(at) {
                entry.states.store(1, Relaxed);
            }
            self.link(Side::Inside, &mut first, hash.tag, at);
        }
        taken
    }

    /// Takes a state off a mapping; the entry if that was the last, and the mapping is out.
    pub(super) fn take_out(&self, held: &mut Held<'_, PfRules>, mapping: &Mapping) -> Option<u32> {
        let (hash, row) = self.row(Side::Inside, &mapping.inside);
        let (mut first, _held) = held.lock(row);
        let (at, entry, _) = self.find(Side::Inside, *first, hash.tag, |it| it == mapping)?;
        let is_last = entry.states.fetch_sub(1, Relaxed) == 1;
        if is_last {
            self.unlink(Side::Inside, &mut first, at);
        }
        is_last.then_some(at)
    }

    /// Whether somebody has this outside.
    pub(super) fn have(&self, held: &mut Held<'_, PfRules>, outside: &Endpoint) -> bool {
        let (hash, row) = self.row(Side::Outside, outside);
        let (first, _held) = held.lock(row);
        self.find(Side::Outside, *first, hash.tag, |it| it.outside == *outside).is_some()
    }

    /// What stands in the rows of a side, one lock at a time: each mapping with its states, or with how often it is reserved.
    pub(super) fn all(&self, held: &mut Held<'_, PfRules>, side: Side) -> Vec<(Mapping, u32)> {
        let mut all = Vec::new();
        for row in &self.sides[side as usize] {
            let (first, _held) = held.lock(row);
            let entries = self.chain(side, *first).filter_map(|(at, _)| self.entry(at));
            all.extend(entries.map(|entry| {
                let count = if side == Side::Inside { &entry.states } else { &entry.reserved };
                (entry.mapping.with(|its| *its), count.load(Relaxed))
            }));
        }
        all
    }

    fn row(&self, side: Side, end: &Endpoint) -> (Hash, &Row) {
        let key = Key::new(Direction::In, end.family, IpProto::UDP.0, (end.address, end.port), (0, 0));
        let (hash, rows) = (self.seed.hash(&key), &self.sides[side as usize]);
        (hash, &rows[hash.row as usize & (rows.len() - 1)])
    }

    fn entry(&self, at: u32) -> Option<&Entry> {
        self.chunks.get(at as usize / CHUNK)?.get()?.get(at as usize % CHUNK)
    }

    fn next(&self, side: Side, at: u32) -> Option<&AtomicU64> {
        self.entry(at).map(|entry| &entry.next[side as usize])
    }

    /// The entries of a row with their tags.
    fn chain(&self, side: Side, first: u32) -> impl Iterator<Item = (u32, u32)> {
        let mut next = first;
        std::iter::from_fn(move || {
            let at = next.checked_sub(1)?;
            let word = self.next(side, at)?.load(Relaxed);
            next = word as u32;
            Some((at, (word >> 32) as u32))
        })
    }

    fn find(
        &self,
        side: Side,
        first: u32,
        tag: u32,
        is_it: impl Fn(&Mapping) -> bool,
    ) -> Option<(u32, &Entry, Mapping)> {
        self.chain(side, first).filter(|(_, its)| *its == tag).find_map(|(at, _)| {
            let entry = self.entry(at)?;
            let mapping = entry.mapping.with(|its| *its);
            is_it(&mapping).then_some((at, entry, mapping))
        })
    }

    fn link(&self, side: Side, first: &mut u32, tag: u32, at: u32) {
        if let Some(next) = self.next(side, at) {
            next.store(u64::from(tag) << 32 | u64::from(*first), Relaxed);
            *first = at + 1;
        }
    }

    fn unlink(&self, side: Side, first: &mut u32, at: u32) {
        let after = |n: u32| self.next(side, n).map_or(0, |next| next.load(Relaxed) as u32);
        if *first == at + 1 {
            *first = after(at);
            return;
        }
        let before = self.chain(side, *first).map(|(n, _)| n).find(|&n| after(n) == at + 1);
        if let Some(next) = before.and_then(|n| self.next(side, n)) {
            let tag = next.load(Relaxed) & !u64::from(u32::MAX);
            next.store(tag | u64::from(after(at)), Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::Family;
    use kern::lock::Root;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn mapping(inside: u16, outside: u16) -> Mapping {
        let end = |port| Endpoint { family: Family::Inet6, address: 0x2001_0db8 << 96, port };
        Mapping { inside: end(inside), outside: end(outside) }
    }

    proptest! {
        /// Rows have exactly what was put in and not taken out, however many there are in one, and every entry comes back.
        #[test]
        fn rows_behave_as_a_map(ops in proptest::collection::vec((0_u16..24, 0_u16..24, any::<bool>()), 1..120)) {
            let rows = Rows::new(1);
            rows.grow(1);
            let (mut root, mut model) = (Root::claim(), BTreeMap::<u16, (u16, u32)>::new());
            let mut top = root.top();
            let mut held = top.at::<PfRules>();
            for (inside, outside, comes) in ops {
                let owner = model.iter().find(|(_, its)| its.0 == outside).map(|(owner, _)| *owner);
                if comes {
                    let at = rows.reserve(&mut held, &mapping(inside, outside));
                    prop_assert_eq!(at.is_some(), owner.is_none_or(|owner| owner == inside));
                    let Some(at) = at else { continue };
                    let taken = rows.put(&mut held, at, &mapping(inside, outside), |_| true);
                    let its = model.entry(inside).or_insert((outside, 0));
                    prop_assert_eq!(taken, (its.1 != 0).then(|| mapping(inside, its.0).outside));
                    its.1 += 1;
                    if taken.is_some() {
                        rows.give_up(&mut held, at, &mapping(inside, outside).outside);
                    }
                } else if let Some(its) = model.get_mut(&inside) {
                    its.1 -= 1;
                    let gone = mapping(inside, its.0);
                    let at = rows.take_out(&mut held, &gone);
                    prop_assert_eq!(at.is_some(), its.1 == 0);
                    if let Some(at) = at {
                        rows.give_up(&mut held, at, &gone.outside);
                        model.remove(&inside);
                    }
                }
                let found: BTreeMap<u16, (u16, u32)> = rows
                    .all(&mut held, Side::Inside)
                    .iter()
                    .map(|(its, states)| (its.inside.port, (its.outside.port, *states)))
                    .collect();
                prop_assert_eq!(&found, &model);
                for outside in 0..24 {
                    let is_there = model.values().any(|its| its.0 == outside);
                    prop_assert_eq!(rows.have(&mut held, &mapping(0, outside).outside), is_there);
                }
                let free = rows.free.with(|free| free.entries.len());
                prop_assert_eq!(free + model.len(), CHUNK);
            }
        }
    }

    #[test]
    fn where_no_entry_is_left_nothing_is_reserved_until_one_comes_back() {
        let rows = Rows::new(4);
        rows.grow(CHUNK as u32);
        let mut root = Root::claim();
        let mut top = root.top();
        let mut held = top.at::<PfRules>();
        let all: Vec<_> =
            (0..CHUNK as u16).map(|n| rows.reserve(&mut held, &mapping(n, n)).unwrap()).collect();
        assert_eq!(rows.reserve(&mut held, &mapping(1000, 1000)), None);
        rows.give_up(&mut held, all[5], &mapping(5, 5).outside);
        assert_eq!(rows.reserve(&mut held, &mapping(1000, 1000)), Some(all[5]));
        rows.grow(CHUNK as u32 + 1);
        assert!(rows.reserve(&mut held, &mapping(5, 5)).is_some());
    }
}
