//! The table behind the lock: entries, two lists of them in order of use, and the packets that wait.
//!
//! All memory is there from the start. An entry is in one of two lists: `asked` (being resolved, oldest first) or `known`
//! (least recently used first). A full table takes the head of one of them: resolutions may fill half of it, so a scan
//! of a subnet pushes out its own older questions and never a neighbour that is known.
//!
//! Waiting packets are nodes of one slab, linked per entry, oldest first.

use super::nud::{Nud, State};
use arrayvec::ArrayVec;
use kern::{Class, Mbuf, Owner, time::Instant};
use std::{collections::HashMap, net::IpAddr};

/// Packets that wait for one neighbour.
pub(super) const HOLD: usize = 16;

/// Packets taken from one neighbour.
pub(super) type Taken = ArrayVec<Mbuf, HOLD>;

/// No entry, no node.
const NIL: u32 = u32::MAX;

/// A neighbour: an address on a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub ifindex: u16,
    pub addr: IpAddr,
}

/// One neighbour.
pub(super) struct Entry {
    pub key: Key,
    pub nud: Nud,
    live: bool,
    /// Which list it is in.
    list: usize,
    prev: u32,
    next: u32,
    first: u32,
    last: u32,
    pub held: u8,
}

/// Ends of a list.
#[derive(Clone, Copy)]
struct List {
    head: u32,
    tail: u32,
    len: usize,
}

struct Node {
    m: Option<Mbuf>,
    next: u32,
}

const ASKED: usize = 0;
const KNOWN: usize = 1;

/// All neighbours.
pub(super) struct Table {
    index: HashMap<Key, u32>,
    entries: Vec<Entry>,
    free: Vec<u32>,
    lists: [List; 2],
    nodes: Vec<Node>,
    free_node: u32,
    held: usize,
    held_jumbos: usize,
    limit: usize,
}

impl Table {
    /// A table for `limit` neighbours and `packets` packets that wait for them.
    pub(super) fn new(limit: usize, packets: usize) -> Table {
        let limit = limit.max(2);
        let last = packets.max(1) as u32 - 1;
        let nodes = (0..=last).map(|i| Node { m: None, next: if i < last { i + 1 } else { NIL } });
        Table {
            // Twice the size: removals then never make the map grow.
            index: HashMap::with_capacity(2 * limit),
            entries: Vec::with_capacity(limit),
            free: Vec::with_capacity(limit),
            lists: [List { head: NIL, tail: NIL, len: 0 }; 2],
            nodes: nodes.collect(),
            free_node: 0,
            held: 0,
            held_jumbos: 0,
            limit,
        }
    }

    /// Entries there are.
    pub(super) fn len(&self) -> usize {
        self.lists[ASKED].len + self.lists[KNOWN].len
    }

    /// Places that entries can have, live or not: for walks.
    pub(super) fn places(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn find(&self, key: &Key) -> Option<u32> {
        self.index.get(key).copied()
    }

    /// The entry in a place, if one lives there.
    pub(super) fn at(&self, place: u32) -> Option<&Entry> {
        self.entries.get(place as usize).filter(|e| e.live)
    }

    pub(super) fn at_mut(&mut self, place: u32) -> Option<&mut Entry> {
        self.entries.get_mut(place as usize).filter(|e| e.live)
    }

    /// Adds an entry that is not there. If another must go for it, the packets that waited for that one are in `victims`,
    /// and the answer says whether it was known.
    pub(super) fn add(&mut self, key: Key, nud: Nud, victims: &mut Taken) -> (u32, bool) {
        let mut lost_known = false;
        let asked = nud.state == State::Incomplete;
        if asked && self.lists[ASKED].len >= self.limit / 2 {
            self.remove(self.lists[ASKED].head, victims);
        } else if self.len() >= self.limit {
            let from = if self.lists[KNOWN].len > 0 { KNOWN } else { ASKED };
            lost_known = from == KNOWN;
            self.remove(self.lists[from].head, victims);
        }
        let list = if asked { ASKED } else { KNOWN };
        let entry =
            Entry { key, nud, live: true, list, prev: NIL, next: NIL, first: NIL, last: NIL, held: 0 };
        let place = if let Some(place) = self.free.pop() {
            self.entries[place as usize] = entry;
            place
        } else {
            self.entries.push(entry);
            self.entries.len() as u32 - 1
        };
        self.index.insert(key, place);
        self.link(place, list);
        (place, lost_known)
    }

    /// Takes an entry out; what waited for it is in `victims`.
    pub(super) fn remove(&mut self, place: u32, victims: &mut Taken) {
        if self.at(place).is_none() {
            return;
        }
        self.take(place, HOLD, victims);
        self.unlink(place);
        let entry = &mut self.entries[place as usize];
        entry.live = false;
        let key = entry.key;
        self.index.remove(&key);
        self.free.push(place);
    }

    /// Puts an entry at the end of the list it belongs into now: it was used, or it became known.
    pub(super) fn touch(&mut self, place: u32) {
        let Some(entry) = self.at(place) else { return };
        let list = if entry.nud.state == State::Incomplete { ASKED } else { KNOWN };
        self.unlink(place);
        self.entries[place as usize].list = list;
        self.link(place, list);
    }

    fn link(&mut self, place: u32, list: usize) {
        let tail = std::mem::replace(&mut self.lists[list].tail, place);
        let entry = &mut self.entries[place as usize];
        (entry.prev, entry.next) = (tail, NIL);
        match self.entries.get_mut(tail as usize) {
            Some(before) => before.next = place,
            None => self.lists[list].head = place,
        }
        self.lists[list].len += 1;
    }

    fn unlink(&mut self, place: u32) {
        let Entry { prev, next, list, .. } = self.entries[place as usize];
        match self.entries.get_mut(prev as usize) {
            Some(before) => before.next = next,
            None => self.lists[list].head = next,
        }
        match self.entries.get_mut(next as usize) {
            Some(after) => after.prev = prev,
            None => self.lists[list].tail = prev,
        }
        self.lists[list].len -= 1;
    }

    /// Lets a packet wait for an entry. Gives back the packet for which there is no room: the oldest of this neighbour,
    /// or the new one where none of this neighbour's waits. Of jumbo buffers no more than `jumbos` wait in all.
    pub(super) fn hold(&mut self, place: u32, m: Mbuf, jumbos: usize) -> Option<Mbuf> {
        let jumbo = m.class() == Class::Jumbo;
        if jumbo && self.held_jumbos >= jumbos {
            return Some(m);
        }
        let Some(held) = self.at(place).map(|e| usize::from(e.held)) else { return Some(m) };
        let full = held == HOLD || self.held >= self.nodes.len();
        let victim = if full { self.pop(place) } else { None };
        if full && victim.is_none() {
            return Some(m);
        }
        let node = self.free_node;
        let Some(free) = self.nodes.get_mut(node as usize) else { return Some(m) };
        self.free_node = free.next;
        m.set_owner(Owner::Neighbour);
        (free.m, free.next) = (Some(m), NIL);
        let entry = &mut self.entries[place as usize];
        let last = std::mem::replace(&mut entry.last, node);
        entry.held += 1;
        match self.nodes.get_mut(last as usize) {
            Some(before) => before.next = node,
            None => self.entries[place as usize].first = node,
        }
        self.held += 1;
        self.held_jumbos += usize::from(jumbo);
        victim
    }

    /// Takes the packet that has waited longest for an entry.
    fn pop(&mut self, place: u32) -> Option<Mbuf> {
        let entry = self.entries.get_mut(place as usize)?;
        let node = entry.first;
        let waiting = self.nodes.get_mut(node as usize)?;
        let m = waiting.m.take()?;
        entry.first = std::mem::replace(&mut waiting.next, self.free_node);
        self.free_node = node;
        entry.held -= 1;
        if entry.first == NIL {
            entry.last = NIL;
        }
        self.held -= 1;
        self.held_jumbos -= usize::from(m.class() == Class::Jumbo);
        m.set_owner(Owner::Worker);
        Some(m)
    }

    /// Takes up to `limit` packets that wait for an entry, oldest first.
    pub(super) fn take(&mut self, place: u32, limit: usize, into: &mut Taken) {
        let limit = limit.min(into.remaining_capacity());
        into.extend(std::iter::from_fn(|| self.pop(place)).take(limit));
    }
}

/// Where a walk over all entries stands, when one entry's time has come, and when the next one's will.
impl Table {
    /// Whether anything is to be done about an entry now: its time has come, or packets wait though it is known.
    pub(super) fn is_due(&self, place: u32, now: Instant) -> bool {
        self.at(place).is_some_and(|e| e.nud.at <= now || (e.held > 0 && e.nud.known().is_some()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kern::{Why, testing::Fixture};
    use proptest::prelude::*;
    use wire::Mac;

    const NOW: Instant = Instant::from_secs(1);
    const JUMBOS: usize = 2;

    fn key(n: u32) -> Key {
        Key { ifindex: 1, addr: IpAddr::V4(n.into()) }
    }

    fn end(fixture: &Fixture, victims: &mut Taken) -> usize {
        victims.drain(..).map(|m| fixture.done(m)).count()
    }

    #[test]
    fn the_oldest_of_seventeen_waiting_packets_makes_room() {
        let fixture = Fixture::new(64);
        let mut table = Table::new(64, 32);
        let mut victims = Taken::new();
        let (place, _) = table.add(key(1), Nud::asked(NOW), &mut victims);
        for n in 0..=HOLD as u8 {
            let victim = table.hold(place, fixture.packet(&[n]), JUMBOS);
            assert_eq!(victim.as_ref().map(|m| m.data()[0]), (n == 16).then_some(0));
            victims.extend(victim);
        }
        assert_eq!(fixture.audit().owned_by(Owner::Neighbour), 16);
        end(&fixture, &mut victims);
        table.take(place, HOLD, &mut victims);
        let order: Vec<u8> = victims.iter().map(|m| m.data()[0]).collect();
        assert_eq!(order, (1..=16).collect::<Vec<u8>>());
        end(&fixture, &mut victims);
    }

    #[test]
    fn all_neighbours_together_hold_no_more_than_there_is_room() {
        let fixture = Fixture::with_jumbos(64, 8);
        let mut table = Table::new(64, 32);
        let mut victims = Taken::new();
        let places: Vec<u32> = (0..8).map(|n| table.add(key(n), Nud::asked(NOW), &mut victims).0).collect();
        let mut refused = 0;
        for n in 0..48 {
            let m = fixture.packet(&[n]);
            if let Some(m) = table.hold(places[usize::from(n % 8)], m, JUMBOS) {
                refused += 1;
                fixture.done(m);
            }
        }
        assert_eq!((table.held, refused), (32, 16));
        for place in places {
            table.remove(place, &mut victims);
            end(&fixture, &mut victims);
        }
        let (place, _) = table.add(key(9), Nud::asked(NOW), &mut victims);
        for n in 0..4 {
            let back = table.hold(place, fixture.packet(&[0; 3000]), JUMBOS);
            assert_eq!(back.is_some(), n >= 2, "two jumbos may wait");
            if let Some(m) = back {
                fixture.ledger.end(m, Why::NeighbourHeld);
            }
        }
        table.remove(place, &mut victims);
        end(&fixture, &mut victims);
    }

    #[test]
    fn a_scan_pushes_out_its_own_questions_and_no_known_neighbour() {
        let mut table = Table::new(16, 1);
        let mut victims = Taken::new();
        for n in 0..8 {
            table.add(key(n), Nud::introduced(Mac([2; 6]), NOW), &mut victims);
        }
        for n in 100..1000 {
            assert!(!table.add(key(n), Nud::asked(NOW), &mut victims).1);
        }
        assert!((0..8).all(|n| table.find(&key(n)).is_some()));
        assert_eq!(table.len(), 16);
        assert!(table.find(&key(999)).is_some() && table.find(&key(991)).is_none());
    }

    #[test]
    fn a_full_table_forgets_the_neighbour_used_least_recently() {
        let mut table = Table::new(4, 1);
        let mut victims = Taken::new();
        let places: Vec<u32> =
            (0..4).map(|n| table.add(key(n), Nud::introduced(Mac([2; 6]), NOW), &mut victims).0).collect();
        table.touch(places[0]);
        assert!(table.add(key(4), Nud::introduced(Mac([2; 6]), NOW), &mut victims).1);
        assert!(table.find(&key(0)).is_some() && table.find(&key(1)).is_none());
    }

    proptest! {
        #[test]
        fn lists_index_and_nodes_agree_after_any_operations(ops in prop::collection::vec((0..5_u8, 0..12_u32), 0..200)) {
            let fixture = Fixture::new(64);
            let mut table = Table::new(8, 8);
            let mut victims = Taken::new();
            for (op, n) in ops {
                let place = table.find(&key(n));
                match (op, place) {
                    (0, None) => { table.add(key(n), Nud::asked(NOW), &mut victims); }
                    (1, None) => { table.add(key(n), Nud::introduced(Mac([2; 6]), NOW), &mut victims); }
                    (2, Some(place)) => {
                        victims.extend(table.hold(place, fixture.packet(&[1]), 0));
                    }
                    (3, Some(place)) => table.remove(place, &mut victims),
                    (4, Some(place)) => table.touch(place),
                    _ => {}
                }
                end(&fixture, &mut victims);
                let live = (0..table.places() as u32).filter_map(|p| table.at(p));
                let (count, held) = live.fold((0, 0), |(c, h), e| (c + 1, h + usize::from(e.held)));
                prop_assert_eq!(count, table.len());
                prop_assert_eq!(count, table.index.len());
                prop_assert_eq!(held, table.held);
                prop_assert_eq!(held as u64, fixture.audit().owned_by(Owner::Neighbour));
            }
            for n in 0..12 {
                if let Some(place) = table.find(&key(n)) {
                    table.remove(place, &mut victims);
                    end(&fixture, &mut victims);
                }
            }
        }
    }
}
