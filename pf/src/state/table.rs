//! The memory of the state table: rows to find states by, slots that hold them.
//!
//! ```text
//!   row (one cache line)                 slot (three cache lines)
//!   ┌──────┬──────────┬──────────────┐   ┌──────┬──────┬─────────────────────┐
//!   │ lock │ overflow │ 7 x tag:node │   │ twin │ lock │ State               │
//!   └──────┴────┬─────┴───────┬──────┘   └──────┴──────┴─────────────────────┘
//!               │             └─ node = 2 * slot + side (0 wire key, 1 stack key)
//!               └▶ node ─▶ node ─▶ ...   links beside the slots, for what does not fit into the row
//! ```
//!
//! Row and links are atomics that only a holder of the row's lock writes. Without it a row is read to guess which state
//! it will be; what is decided by a guess has been compared with the state itself, under the state's lock. Slots come in
//! chunks, so that a higher `set limit states` adds memory and moves nothing. There are as many rows as states were allowed
//! when the table was made: where many more are allowed later, rows overflow. Rows and slots stand in huge pages: a packet
//! finds its own at a random place.
//!
//! A slot's twin is a guess, too: which node the same packets have at the other hook of their way through the router
//! (OpenBSD links the keys of states in this way). It spares the other hook the hash and the row.

use std::sync::{
    OnceLock,
    atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
};

use kern::{
    lock::{
        Leaf, SpinMutex,
        levels::{PfState, PfStates},
    },
    pages::HugeSlice,
    prefetch, prefetch_lines,
};

use super::{entry::State, key::Hash, timestamps::Timestamps};

/// Keys that a row holds itself.
const IN_ROW: usize = 7;
/// Slots of a chunk: they fill three huge pages. The tests of this crate make a table for every case: theirs are small, and
/// cross from one to the next.
const CHUNK: usize = if cfg!(test) { 1 << 10 } else { 1 << 15 };
const CHUNKS: usize = 1 << 10;
/// A slot that is not in use is not due.
pub(super) const NEVER: u32 = u32::MAX;

#[derive(Debug)]
#[repr(C, align(64))]
pub(super) struct Row {
    /// Guards the row; the first node of the overflow chain, and one more.
    pub(super) lock: SpinMutex<PfStates, u32>,
    entries: [AtomicU64; IN_ROW],
}

const _: () = assert!(size_of::<Row>() == 64);

#[derive(Debug)]
#[repr(C, align(64))]
pub(super) struct Slot {
    twin: AtomicU32,
    pub(super) state: SpinMutex<PfState, State>,
}

const _: () = assert!(size_of::<Slot>() == 192);

#[derive(Debug)]
struct Chunk {
    slots: HugeSlice<Slot>,
    /// Seconds before which a slot need not be looked at by the purge; never too late.
    due: Box<[AtomicU32]>,
    /// By node: tag and the next node, for overflow chains.
    links: Box<[AtomicU64]>,
    /// By slot, once a ruleset wants it: the timestamps of connections.
    timestamps: OnceLock<Box<[Leaf<Timestamps>]>>,
}

/// A key's place: slot and side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Node(pub(super) u32);

impl Node {
    /// No slot has it.
    pub(super) const NONE: Node = Node(u32::MAX);

    pub(super) const fn new(slot: u32, side: u32) -> Node {
        Node(slot * 2 + side)
    }

    pub(super) const fn slot(self) -> u32 {
        self.0 / 2
    }

    pub(super) const fn is_stack(self) -> bool {
        self.0 % 2 == 1
    }
}

const fn pack(tag: u32, node: Node) -> u64 {
    (tag as u64) << 32 | (node.0 as u64 + 1)
}

/// The node of a word whose tag is this.
const fn node_of(word: u64, tag: u32) -> Option<Node> {
    match word as u32 {
        0 => None,
        n if (word >> 32) as u32 == tag => Some(Node(n - 1)),
        _ => None,
    }
}

#[derive(Debug)]
pub(super) struct Table {
    rows: HugeSlice<Row>,
    chunks: Box<[OnceLock<Chunk>]>,
    /// Slots that no worker has, and how many chunks there are.
    free: Leaf<Free>,
    capacity: AtomicU32,
}

#[derive(Debug, Default)]
struct Free {
    slots: Vec<u32>,
    chunks: usize,
}

impl Free {
    /// Adds the slots of a chunk, unless it has them.
    fn add(&mut self, chunk: usize) {
        if chunk != self.chunks {
            return;
        }
        self.chunks += 1;
        // Workers give slots back: that must never allocate.
        self.slots.reserve((self.chunks * CHUNK).saturating_sub(self.slots.len()));
        let first = (chunk * CHUNK) as u32;
        self.slots.extend((first..first + CHUNK as u32).rev());
    }
}

impl Table {
    /// A table with rows for `states`, and no slots yet.
    pub(super) fn new(states: u32) -> Table {
        let rows = (states as usize).next_power_of_two().clamp(1 << 10, 1 << 22);
        let row = || Row { lock: SpinMutex::new(0), entries: [const { AtomicU64::new(0) }; IN_ROW] };
        Table {
            rows: HugeSlice::new(rows, |_| row()),
            chunks: (0..CHUNKS).map(|_| OnceLock::new()).collect(),
            free: Leaf::new(Free::default()),
            capacity: AtomicU32::new(0),
        }
    }

    /// How many rows there are.
    pub(super) fn rows(&self) -> u32 {
        self.rows.len() as u32
    }

    /// Adds chunks until there are at least `slots`.
    pub(super) fn grow(&self, slots: u32) {
        for (number, chunk) in self.chunks.iter().enumerate().take(slots.div_ceil(CHUNK as u32) as usize) {
            // Workers wait for the lock: what takes long is done before.
            chunk.get_or_init(Chunk::new);
            self.free.with(|free| free.add(number));
        }
        self.capacity.store(self.free.with(|free| (free.chunks * CHUNK) as u32), Relaxed);
    }

    /// Slots there are.
    pub(super) fn capacity(&self) -> u32 {
        self.capacity.load(Relaxed)
    }

    /// Moves up to `n` free slots to a worker.
    pub(super) fn take_free(&self, n: usize, to: &mut impl Extend<u32>) {
        self.free.with(|free| {
            let from = free.slots.len().saturating_sub(n);
            to.extend(free.slots.drain(from..));
        });
    }

    /// Takes free slots back from a worker.
    pub(super) fn give_free(&self, slots: impl Iterator<Item = u32>) {
        self.free.with(|free| free.slots.extend(slots));
    }

    #[inline(always)]
    pub(super) fn row(&self, hash: Hash) -> &Row {
        // The number of rows is a power of two.
        &self.rows[hash.row as usize & (self.rows.len() - 1)]
    }

    #[inline(always)]
    fn chunk(&self, slot: u32) -> Option<&Chunk> {
        self.chunks.get(slot as usize / CHUNK)?.get()
    }

    #[inline(always)]
    pub(super) fn slot(&self, slot: u32) -> Option<&Slot> {
        self.chunk(slot)?.slots.get(slot as usize % CHUNK)
    }

    /// Where the timestamps of a connection are kept, if there is room for them.
    pub(super) fn timestamps(&self, slot: u32) -> Option<&Leaf<Timestamps>> {
        self.chunk(slot)?.timestamps.get()?.get(slot as usize % CHUNK)
    }

    /// Makes room for timestamps: for the control thread.
    pub(super) fn keep_timestamps(&self) {
        for chunk in self.chunks.iter().map_while(OnceLock::get) {
            chunk.timestamps.get_or_init(|| (0..CHUNK).map(|_| Leaf::new(Timestamps::default())).collect());
        }
    }

    #[inline(always)]
    pub(super) fn due(&self, slot: u32) -> Option<&AtomicU32> {
        self.chunk(slot)?.due.get(slot as usize % CHUNK)
    }

    /// The due times from `slot` to the end of its chunk.
    pub(super) fn due_from(&self, slot: u32) -> &[AtomicU32] {
        self.chunk(slot).and_then(|c| c.due.get(slot as usize % CHUNK..)).unwrap_or(&[])
    }

    #[inline(always)]
    fn link(&self, node: Node) -> Option<&AtomicU64> {
        self.chunk(node.slot())?.links.get(node.0 as usize % (2 * CHUNK))
    }

    #[inline(always)]
    pub(super) fn prefetch_row(&self, hash: Hash) {
        prefetch(self.row(hash));
    }

    /// Which node it will be by the row, which is near by now and whose lock nobody holds; asks for its slot.
    #[inline(always)]
    pub(super) fn guess(&self, hash: Hash) -> Node {
        let entries = &self.row(hash).entries;
        // All are compared: a loop that ends at the right one ends where nobody can foresee it.
        let mut found = 0_u32;
        for (i, word) in entries.iter().enumerate() {
            found |= u32::from((word.load(Relaxed) >> 32) as u32 == hash.tag) << i;
        }
        let word = entries.get(found.trailing_zeros() as usize).map_or(0, |word| word.load(Relaxed));
        let node = node_of(word, hash.tag).unwrap_or(Node::NONE);
        self.prefetch_slot(node);
        node
    }

    /// Which node a packet of this slot's state has at the other hook, as far as that is known.
    #[inline(always)]
    pub(super) fn twin(&self, slot: u32) -> Node {
        self.slot(slot).map_or(Node::NONE, |slot| Node(slot.twin.load(Relaxed)))
    }

    /// Remembers which node a packet of this slot's state has at the other hook.
    #[inline(always)]
    pub(super) fn set_twin(&self, slot: u32, to: Node) {
        if let Some(slot) = self.slot(slot)
            && slot.twin.load(Relaxed) != to.0
        {
            slot.twin.store(to.0, Relaxed);
        }
    }

    /// Asks for the slot of a node.
    #[inline(always)]
    pub(super) fn prefetch_slot(&self, node: Node) {
        if let Some(slot) = self.slot(node.slot()) {
            prefetch_lines::<2, _>(slot);
        }
    }

    /// The nodes with this tag in a row whose lock is held, `overflow` being what it guards.
    #[inline(always)]
    pub(super) fn candidates(&self, row: &Row, overflow: u32, tag: u32) -> impl Iterator<Item = Node> {
        let here = row.entries.iter().filter_map(move |word| node_of(word.load(Relaxed), tag));
        here.chain(self.chain(overflow).filter_map(move |(node, its)| (its == tag).then_some(node)))
    }

    /// The nodes of an overflow chain with their tags.
    fn chain(&self, overflow: u32) -> impl Iterator<Item = (Node, u32)> {
        let mut next = overflow;
        std::iter::from_fn(move || {
            let node = Node(next.checked_sub(1)?);
            let word = self.link(node)?.load(Relaxed);
            next = word as u32;
            Some((node, (word >> 32) as u32))
        })
    }

    /// Puts a key into a row whose lock is held.
    pub(super) fn put(&self, row: &Row, overflow: &mut u32, tag: u32, node: Node) {
        if let Some(word) = row.entries.iter().find(|word| word.load(Relaxed) == 0) {
            word.store(pack(tag, node), Relaxed);
        } else if let Some(link) = self.link(node) {
            link.store(u64::from(tag) << 32 | u64::from(*overflow), Relaxed);
            *overflow = node.0 + 1;
        }
    }

    /// Takes a key out of a row whose lock is held; one of the overflow chain takes its place.
    pub(super) fn remove(&self, row: &Row, overflow: &mut u32, tag: u32, node: Node) {
        if let Some(word) = row.entries.iter().find(|word| word.load(Relaxed) == pack(tag, node)) {
            word.store(0, Relaxed);
            if let Some((first, its)) = self.chain(*overflow).next() {
                self.unchain(overflow, first);
                word.store(pack(its, first), Relaxed);
            }
        } else {
            self.unchain(overflow, node);
        }
    }

    fn unchain(&self, overflow: &mut u32, node: Node) {
        let after = |n: Node| self.link(n).map_or(0, |link| link.load(Relaxed) as u32);
        if *overflow == node.0 + 1 {
            *overflow = after(node);
            return;
        }
        let before = self.chain(*overflow).map(|(n, _)| n).find(|&n| after(n) == node.0 + 1);
        if let Some(link) = before.and_then(|n| self.link(n)) {
            let tag = link.load(Relaxed) & !u64::from(u32::MAX);
            link.store(tag | u64::from(after(node)), Relaxed);
        }
    }
}

impl Chunk {
    fn new() -> Chunk {
        let slot = || Slot { twin: AtomicU32::new(Node::NONE.0), state: SpinMutex::new(State::FREE) };
        Chunk {
            slots: HugeSlice::new(CHUNK, |_| slot()),
            due: (0..CHUNK).map(|_| AtomicU32::new(NEVER)).collect(),
            links: (0..2 * CHUNK).map(|_| AtomicU64::new(0)).collect(),
            timestamps: OnceLock::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kern::lock::Root;
    use proptest::prelude::*;

    proptest! {
        /// A row finds exactly what was put in and not taken out, however many there are.
        #[test]
        fn a_row_and_its_overflow_behave_as_a_list(ops in proptest::collection::vec((0_u32..24, any::<bool>()), 1..120)) {
            let table = Table::new(1);
            table.grow(1);
            let row = table.row(Hash { row: 0, tag: 0 });
            let mut root = Root::claim();
            let mut top = root.top();
            let (mut overflow, _held) = top.lock(&row.lock);
            let mut model = std::collections::BTreeSet::new();
            for (n, put) in ops {
                // Two keys share each tag.
                let (tag, node) = (n / 2, Node(n));
                if put && model.insert(n) {
                    table.put(row, &mut overflow, tag, node);
                } else if !put && model.remove(&n) {
                    table.remove(row, &mut overflow, tag, node);
                }
                for tag in 0..12 {
                    let mut found: Vec<u32> = table.candidates(row, *overflow, tag).map(|n| n.0).collect();
                    found.sort_unstable();
                    let wanted: Vec<u32> = model.iter().copied().filter(|n| n / 2 == tag).collect();
                    prop_assert_eq!(found, wanted);
                }
            }
        }
    }
}
