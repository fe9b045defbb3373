//! Tables: sets of addresses and prefixes that rules refer to by name and that change while packets pass (pf.conf(5),
//! TABLES; pfctl(8), `-t` and `-T`).
//!
//! The longest prefix that covers an address decides; an entry with `!` says that its addresses are not in. What is in a
//! table is a persistent [trie] behind one pointer: the packet path loads the pointer and walks, without a lock; a
//! change copies a path of the trie and stores the pointer. Changes are the control thread's alone. It also keeps every
//! version until no worker looks at it, so that no worker frees one.
//!
//! ```text
//!   rule ──▶ Table ── current ──▶ version 8 ─┐
//!                                            ├─▶ nodes that both share
//!            retired ──────────▶ version 7 ──┘
//! ```

mod contents;
mod numbered;
mod registry;
#[cfg(test)]
mod tests;
mod trie;

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
};

use arc_swap::{ArcSwap, ArcSwapOption};
use kern::counter::Counter;

use crate::{
    addr::{Entry, Family, Prefix, short_inet},
    rule::Direction,
};
use contents::{Address, Contents, Counts};
pub use contents::{Fate, Totals};
pub use registry::Tables;
pub use registry::{Changes, Feedback, LIMIT_ENTRIES, LIMIT_TABLES, TableError, TableInfo};
pub(crate) use registry::{Staged, Wanted};

/// Characters a name may have.
pub const NAME: usize = 31;

/// A table.
#[derive(Debug)]
pub struct Table {
    name: String,
    anchor: String,
    current: ArcSwap<Contents>,
    /// pfctl may not change it.
    constant: AtomicBool,
    /// It exists without rules.
    persist: AtomicBool,
    /// It counts by entry.
    counters: AtomicBool,
    /// A ruleset or pfctl has defined it, it is not only spoken of.
    active: AtomicBool,
    /// A pool chooses from it: its addresses are numbered.
    pooled: AtomicBool,
    /// Rules that refer to it.
    rules: AtomicU32,
    /// Seconds since 1970 when its counters were 0.
    cleared: AtomicU64,
    workers: Box<[WorkerCounts]>,
    /// The table of the same name of the main ruleset, for one of an anchor: it decides while this one is not active.
    root: ArcSwapOption<Table>,
}

/// What one worker counts of a table.
#[derive(Debug, Default)]
struct WorkerCounts {
    matched: Counter,
    not_matched: Counter,
    counts: Counts,
}

/// An entry and what was counted of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntryInfo {
    /// The entry.
    pub entry: Entry,
    /// Seconds since 1970 when it was added, or its counters were last set to 0.
    pub cleared: u64,
    /// Packets and octets, in a table with `counters`.
    pub counts: Option<Totals>,
}

/// Two tables are the same if they are one.
impl PartialEq for Table {
    fn eq(&self, other: &Table) -> bool {
        std::ptr::eq(self, other)
    }
}

impl Eq for Table {}

impl Table {
    fn new(anchor: &str, name: &str, workers: usize, now: u64) -> Table {
        Table {
            name: name.to_owned(),
            anchor: anchor.to_owned(),
            current: ArcSwap::default(),
            constant: AtomicBool::new(false),
            persist: AtomicBool::new(false),
            counters: AtomicBool::new(false),
            active: AtomicBool::new(false),
            pooled: AtomicBool::new(false),
            rules: AtomicU32::new(0),
            cleared: AtomicU64::new(now),
            workers: (0..workers.max(1)).map(|_| WorkerCounts::default()).collect(),
            root: ArcSwapOption::empty(),
        }
    }

    /// Another with the same entries, which no packet meets.
    fn rehearsal(&self) -> Table {
        let table = Table::new(&self.anchor, &self.name, 1, self.cleared.load(Ordering::Relaxed));
        table.current.store(self.current.load_full());
        let flags = [(&table.constant, &self.constant), (&table.active, &self.active)];
        for (new, own) in flags.into_iter().chain([(&table.counters, &self.counters)]) {
            new.store(own.load(Ordering::Relaxed), Ordering::Relaxed);
        }
        table.rules.store(self.rules.load(Ordering::Relaxed), Ordering::Relaxed);
        table
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The anchor it belongs to, empty for the main ruleset.
    pub fn anchor(&self) -> &str {
        &self.anchor
    }

    /// Whether an address is in it.
    #[inline]
    pub fn contains(&self, family: Family, address: u128) -> bool {
        if self.defers() {
            return self.root.load().as_ref().is_some_and(|root| root.contains(family, address));
        }
        self.current.load().longest(family, address).is_some_and(|a| !a.not)
    }

    /// How many addresses of a family a pool can choose from.
    pub(crate) fn total(&self, family: Family) -> u128 {
        if self.defers() {
            return self.root.load().as_ref().map_or(0, |root| root.total(family));
        }
        self.current.load().numbered().map_or(0, |all| all.total(family))
    }

    /// The address of this number, for a pool.
    pub(crate) fn at(&self, family: Family, number: u128) -> Option<u128> {
        if self.defers() {
            return self.root.load().as_ref()?.at(family, number);
        }
        self.current.load().numbered()?.at(family, number)
    }

    /// Whether this is the table of an anchor, and there only by name: that of the main ruleset decides.
    #[inline(always)]
    fn defers(&self) -> bool {
        !self.anchor.is_empty() && !self.active.load(Ordering::Relaxed)
    }

    /// Counts a packet of a rule that refers to this table; `not` if the rule is for those that are not in.
    pub(crate) fn count(&self, worker: usize, packet: &Counted, address: u128) {
        if self.defers() {
            if let Some(root) = self.root.load().as_ref() {
                root.count(worker, packet, address);
            }
            return;
        }
        let Some(own) = self.workers.get(worker) else { return };
        let current = self.current.load();
        let found = current.longest(packet.family, address);
        let is_in = found.is_some_and(|a| !a.not);
        let fate = if is_in == packet.not && packet.fate == Fate::Pass { Fate::XPass } else { packet.fate };
        own.counts.count(packet.direction, fate, packet.packets, packet.bytes);
        let counts = found.and_then(|a| a.counts.as_ref()).and_then(|c| c.get(worker));
        if let Some(counts) = counts.filter(|_| fate != Fate::XPass) {
            counts.count(packet.direction, fate, packet.packets, packet.bytes);
        }
    }

    /// How many entries it has.
    pub fn len(&self) -> usize {
        self.current.load().len()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All entries in pf's order, with what was counted of them.
    pub fn entries(&self) -> Vec<EntryInfo> {
        let one = |(entry, address): (Entry, Address)| EntryInfo {
            entry,
            cleared: address.cleared,
            counts: address.counts.map(|c| Counts::sum(c.iter())),
        };
        self.current.load().entries().into_iter().map(one).collect()
    }

    /// The longest prefix that covers an address.
    pub fn entry_for(&self, family: Family, address: u128) -> Option<Entry> {
        self.current.load().entry_for(family, address)
    }

    fn address(&self, not: bool, now: u64) -> Address {
        let counts = || self.workers.iter().map(|_| Counts::default()).collect();
        let counts = self.counters.load(Ordering::Relaxed).then(counts);
        Address { not, cleared: now, counts }
    }
}

/// What is counted of a packet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Counted {
    pub(crate) direction: Direction,
    pub(crate) family: Family,
    pub(crate) fate: Fate,
    /// The rule is for addresses that are not in the table.
    pub(crate) not: bool,
    pub(crate) packets: u32,
    pub(crate) bytes: u32,
}

/// An address or prefix (`10/8` too), with `!` if its addresses are not in.
pub fn parse_entry(text: &str) -> Result<Entry, String> {
    let (not, rest) = match text.strip_prefix('!') {
        Some(rest) => (true, rest.trim_start()),
        None => (false, text),
    };
    let (address, len) = match rest.split_once('/') {
        Some((address, len)) => (address, Some(len)),
        None => (rest, None),
    };
    let wrong = || format!("`{text}` is no address, prefix or negated prefix");
    let short = || short_inet(address).filter(|_| len.is_some());
    let address = address.parse().ok().or_else(short).ok_or_else(wrong)?;
    let width = Family::of(address).width();
    let len = match len {
        None => width,
        Some(len) => len.parse().ok().filter(|&l| l <= width).ok_or_else(wrong)?,
    };
    Ok(Entry { not, prefix: Prefix::new(address, len) })
}

/// Seconds since 1970, for what pfctl shows as a date.
pub fn wall_clock() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |t| t.as_secs())
}

/// A table as an [`Arc`], as rules hold it.
pub(crate) type Shared = Arc<Table>;
