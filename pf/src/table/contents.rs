//! What is in a table at one moment: prefixes of both families, each in or out, and what is counted of each.
//!
//! A version never changes. A change makes the next version, which shares with this one all but a path.

use std::{cmp::Reverse, sync::Arc};

use kern::counter::Counter;

use super::{
    numbered::Numbered,
    trie::{Item, Trie},
};
use crate::{
    addr::{Entry, Family, Prefix, bits},
    rule::Direction,
};

/// What became of a packet, for the counters of tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The rule blocked it.
    Block,
    /// The rule passed it.
    Pass,
    /// The rule passed it, and the table no longer holds the address.
    XPass,
}

/// Packets and octets by direction and fate; one worker writes.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(super) struct Counts {
    counters: [[[Counter; 2]; 3]; 2],
}

/// The sums over all workers: by direction, by fate, packets and octets.
pub type Totals = [[[u64; 2]; 3]; 2];

impl Counts {
    #[inline(always)]
    pub(super) fn count(&self, direction: Direction, fate: Fate, packets: u32, bytes: u32) {
        let [p, b] = &self.counters[direction.index()][fate as usize];
        p.add(u64::from(packets));
        b.add(u64::from(bytes));
    }

    pub(super) fn sum<'a>(all: impl IntoIterator<Item = &'a Counts>) -> Totals {
        let mut totals = Totals::default();
        for counts in all {
            for (sums, counters) in totals.iter_mut().flatten().zip(counts.counters.iter().flatten()) {
                for (sum, counter) in sums.iter_mut().zip(counters) {
                    *sum += counter.get();
                }
            }
        }
        totals
    }
}

/// What a table knows of one of its prefixes.
#[derive(Clone, Debug)]
pub(super) struct Address {
    pub(super) not: bool,
    /// Seconds since 1970 when its counters were 0.
    pub(super) cleared: u64,
    /// By worker, in a table with `counters`.
    pub(super) counts: Option<Arc<[Counts]>>,
}

/// A version of a table.
#[derive(Clone, Debug, Default)]
pub(super) struct Contents {
    inet: Trie<Address>,
    inet6: Trie<Address>,
    /// For pools, if any chooses from the table.
    numbered: Option<Arc<Numbered>>,
}

#[inline(always)]
const fn key_of(family: Family, bits: u128) -> u128 {
    match family {
        Family::Inet => bits << 96,
        Family::Inet6 => bits,
    }
}

impl Contents {
    #[inline(always)]
    fn trie(&self, family: Family) -> &Trie<Address> {
        match family {
            Family::Inet => &self.inet,
            Family::Inet6 => &self.inet6,
        }
    }

    fn trie_mut(&mut self, family: Family) -> &mut Trie<Address> {
        match family {
            Family::Inet => &mut self.inet,
            Family::Inet6 => &mut self.inet6,
        }
    }

    /// What the longest prefix that covers an address says.
    #[inline(always)]
    pub(super) fn longest(&self, family: Family, address: u128) -> Option<&Address> {
        self.trie(family).longest(key_of(family, address)).map(|item| &item.value)
    }

    /// The longest prefix that covers an address.
    pub(super) fn entry_for(&self, family: Family, address: u128) -> Option<Entry> {
        self.trie(family).longest(key_of(family, address)).map(|item| entry(family, item))
    }

    pub(super) fn get(&self, prefix: Prefix) -> Option<&Address> {
        self.trie(prefix.family()).get(key_of(prefix.family(), bits(prefix.addr())), prefix.length())
    }

    pub(super) fn insert(&mut self, prefix: Prefix, address: Address) {
        let family = prefix.family();
        let item = Item { key: key_of(family, bits(prefix.addr())), len: prefix.length(), value: address };
        self.trie_mut(family).insert(item);
    }

    pub(super) fn remove(&mut self, prefix: Prefix) {
        let family = prefix.family();
        self.trie_mut(family).remove(key_of(family, bits(prefix.addr())), prefix.length());
    }

    /// Numbers what is in it, or not.
    pub(super) fn number(&mut self, wanted: bool) {
        let entries = || self.entries().into_iter().map(|(entry, _)| entry).collect::<Vec<_>>();
        self.numbered = wanted.then(|| Arc::new(Numbered::new(&entries())));
    }

    /// The addresses that are in it, by number; none unless it was numbered.
    pub(super) fn numbered(&self) -> Option<&Numbered> {
        self.numbered.as_deref()
    }

    pub(super) fn len(&self) -> usize {
        self.inet.len() + self.inet6.len()
    }

    /// All entries, IPv4 first, by address, of equal addresses the longer prefix first: the order of pf's radix tree.
    pub(super) fn entries(&self) -> Vec<(Entry, Address)> {
        let mut all = Vec::with_capacity(self.len());
        for family in [Family::Inet, Family::Inet6] {
            let from = all.len();
            self.trie(family).each(&mut |item| all.push((entry(family, item), item.value.clone())));
            all[from..].sort_by_key(|(e, _)| (bits(e.prefix.addr()), Reverse(e.prefix.length())));
        }
        all
    }
}

fn entry(family: Family, item: &Item<Address>) -> Entry {
    let bits = match family {
        Family::Inet => item.key >> 96,
        Family::Inet6 => item.key,
    };
    Entry { not: item.value.not, prefix: Prefix::new(family.address(bits), item.len) }
}
