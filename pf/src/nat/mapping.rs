//! Endpoint-independent mappings of UDP (RFC 4787, section 4.1; FreeBSD: `struct pf_udp_mapping`): whatever a sender sends
//! from one port comes from one port outside, whoever it is for. So a peer can tell another where the sender is met.
//!
//! A mapping is found by its inside and belongs to nobody else by its outside: it stands in two rows, and never are two
//! rows held at once. The outside is reserved first, then the inside is put in; whoever finds another worker's mapping there
//! follows that one and gives its own outside up. Workers of the same sender may reserve the same outside, each for itself:
//! where a sender can have no other, none is turned away for what one of them has begun or not quite ended.
//!
//! ```text
//!   reserve outside ──▶ put in inside ──▶ one more state ─┐ one less
//!         │ another's        │ one is there        ▲──────┤
//!         ▼                  ▼                            ▼ the last
//!   try another port    give outside up      take out inside ──▶ give outside up
//! ```
//!
//! It lives while states have it: each takes it when its source is chosen, and the last that ends takes it out. A sender may
//! have several, where rules lead out by several addresses: a rule follows one that it could have made itself. Rules that make
//! no mappings keep off the ports of those there are.

use std::sync::{
    OnceLock,
    atomic::{AtomicU32, Ordering::Relaxed},
};

use kern::lock::{
    Held, SpinMutex,
    levels::{PfRules, PfSrcNodes},
};
use wire::IpProto;

use crate::{
    addr::Family,
    packet::Packet,
    random::Random,
    rule::Direction,
    state::key::{Key, Seed},
};

const ROWS: usize = 1 << 12;

/// One end of UDP flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Endpoint {
    pub(crate) family: Family,
    pub(crate) address: u128,
    pub(crate) port: u16,
}

impl Endpoint {
    /// The sender of a packet.
    pub(crate) fn of(p: &Packet) -> Endpoint {
        Endpoint { family: p.family, address: p.src, port: p.sport }
    }

    /// Makes this the sender of a packet.
    pub(super) fn send(self, p: &mut Packet) {
        (p.src, p.sport) = (self.address, self.port);
    }
}

/// A sender, and where it sends from as seen from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mapping {
    pub(crate) inside: Endpoint,
    pub(crate) outside: Endpoint,
}

/// What a worker chooses translations with, and has chosen for the state that is about to be made.
#[derive(Debug)]
pub(crate) struct Choices {
    pub(crate) random: Random,
    /// The mapping that the packet's source has taken, and whether it is new.
    pub(crate) mapped: Option<(Mapping, bool)>,
}

/// What came of claiming a mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Claim {
    /// It is made.
    Made,
    /// Its outside is another sender's.
    Taken,
    /// Another worker has made one for the same sender meanwhile, which is taken.
    Follows(Endpoint),
}

/// A mapping as the operator may see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MappingInfo {
    /// The sender.
    pub inside: (std::net::IpAddr, u16),
    /// Where it sends from as seen from outside.
    pub outside: (std::net::IpAddr, u16),
    /// States that have it.
    pub states: u32,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    mapping: Mapping,
    states: u32,
}

/// An outside, whose it is, and how many have reserved it: its mapping, and workers that are about to make or unmake one.
#[derive(Clone, Copy, Debug)]
struct Reserved {
    mapping: Mapping,
    times: u32,
}

#[derive(Debug)]
struct Rows {
    seed: Seed,
    inside: Box<[SpinMutex<PfSrcNodes, Vec<Entry>>]>,
    outside: Box<[SpinMutex<PfSrcNodes, Vec<Reserved>>]>,
}

/// All mappings.
#[derive(Debug, Default)]
pub(crate) struct Mappings {
    /// Made when a ruleset first wants them.
    rows: OnceLock<Rows>,
    count: AtomicU32,
}

impl Rows {
    fn new() -> Rows {
        Rows::of(ROWS)
    }

    fn of(rows: usize) -> Rows {
        Rows {
            seed: Seed::random(),
            inside: (0..rows).map(|_| SpinMutex::new(Vec::new())).collect(),
            outside: (0..rows).map(|_| SpinMutex::new(Vec::new())).collect(),
        }
    }

    fn number(&self, end: &Endpoint) -> usize {
        let sender = (end.address, end.port);
        let key = Key::new(Direction::In, end.family, IpProto::UDP.0, sender, (0, 0));
        self.seed.hash(&key).row as usize % self.inside.len()
    }

    /// Reserves the outside of a mapping, unless another sender has it.
    fn reserve(&self, held: &mut Held<'_, PfRules>, mapping: &Mapping) -> bool {
        let (mut row, _held) = held.lock(&self.outside[self.number(&mapping.outside)]);
        let Some(reserved) = row.iter_mut().find(|it| it.mapping.outside == mapping.outside) else {
            row.push(Reserved { mapping: *mapping, times: 1 });
            return true;
        };
        let is_own = reserved.mapping.inside == mapping.inside;
        reserved.times += u32::from(is_own);
        is_own
    }

    /// Takes back one reservation.
    fn give_up(&self, held: &mut Held<'_, PfRules>, outside: &Endpoint) {
        let (mut row, _held) = held.lock(&self.outside[self.number(outside)]);
        let Some(at) = row.iter().position(|it| it.mapping.outside == *outside) else { return };
        row[at].times -= 1;
        if row[at].times == 0 {
            row.swap_remove(at);
        }
    }

    /// Puts a mapping in whose outside is reserved, unless its sender has one that serves by now: that is taken.
    fn put(
        &self,
        held: &mut Held<'_, PfRules>,
        mapping: &Mapping,
        serves: impl Fn(&Endpoint) -> bool,
    ) -> Option<Endpoint> {
        let (mut row, _held) = held.lock(&self.inside[self.number(&mapping.inside)]);
        // The same outside is the same mapping, even if its address has left the rule's table meanwhile.
        let taken = take(&mut row, &mapping.inside, |outside| *outside == mapping.outside || serves(outside));
        if taken.is_none() {
            row.push(Entry { mapping: *mapping, states: 1 });
        }
        taken
    }

    /// Takes a state off a mapping; whether that was the last, and the mapping is out.
    fn take_out(&self, held: &mut Held<'_, PfRules>, mapping: &Mapping) -> bool {
        let (mut row, _held) = held.lock(&self.inside[self.number(&mapping.inside)]);
        let Some(at) = row.iter().position(|entry| entry.mapping == *mapping) else { return false };
        row[at].states -= 1;
        let is_last = row[at].states == 0;
        if is_last {
            row.swap_remove(at);
        }
        is_last
    }
}

/// Takes the mapping of a sender that serves, if it has one: its outside.
fn take(row: &mut [Entry], inside: &Endpoint, serves: impl Fn(&Endpoint) -> bool) -> Option<Endpoint> {
    let is_it = |entry: &&mut Entry| entry.mapping.inside == *inside && serves(&entry.mapping.outside);
    let entry = row.iter_mut().find(is_it)?;
    entry.states += 1;
    Some(entry.mapping.outside)
}

impl Mappings {
    /// Makes room, so that no worker has to.
    pub(crate) fn open(&self) {
        self.rows.get_or_init(Rows::new);
    }

    /// How many there are.
    pub(crate) fn count(&self) -> u32 {
        self.count.load(Relaxed)
    }

    /// Takes the mapping of a sender that `serves`, if it has one: its outside.
    pub(super) fn take(
        &self,
        held: &mut Held<'_, PfRules>,
        inside: &Endpoint,
        serves: impl Fn(&Endpoint) -> bool,
    ) -> Option<Endpoint> {
        let rows = self.rows.get().filter(|_| self.count() != 0)?;
        let (mut row, _held) = held.lock(&rows.inside[rows.number(inside)]);
        take(&mut row, inside, serves)
    }

    /// Makes and takes a mapping, unless its outside is another sender's or its own has one that `serves` by now.
    pub(super) fn claim(
        &self,
        held: &mut Held<'_, PfRules>,
        mapping: &Mapping,
        serves: impl Fn(&Endpoint) -> bool,
    ) -> Claim {
        let rows = self.rows.get_or_init(Rows::new);
        if !rows.reserve(held, mapping) {
            return Claim::Taken;
        }
        // Counted before it can be found: whoever asks for the count first finds what there is.
        self.count.fetch_add(1, Relaxed);
        match rows.put(held, mapping, serves) {
            None => Claim::Made,
            Some(other) => {
                rows.give_up(held, &mapping.outside);
                self.count.fetch_sub(1, Relaxed);
                Claim::Follows(other)
            }
        }
    }

    /// A state of a mapping has ended, or was not made: after the last the mapping is out.
    #[cold]
    pub(crate) fn leave(&self, held: &mut Held<'_, PfRules>, mapping: &Mapping) {
        let Some(rows) = self.rows.get() else { return };
        if rows.take_out(held, mapping) {
            rows.give_up(held, &mapping.outside);
            self.count.fetch_sub(1, Relaxed);
        }
    }

    /// Whether some mapping sends from there.
    pub(super) fn have(&self, held: &mut Held<'_, PfRules>, outside: &Endpoint) -> bool {
        let Some(rows) = self.rows.get().filter(|_| self.count() != 0) else { return false };
        let (row, _held) = held.lock(&rows.outside[rows.number(outside)]);
        row.iter().any(|it| it.mapping.outside == *outside)
    }

    /// All of them, one lock at a time.
    pub(crate) fn dump(&self, held: &mut Held<'_, PfRules>) -> Vec<MappingInfo> {
        let end = |end: Endpoint| (end.family.address(end.address), end.port);
        let info = |entry: &Entry| MappingInfo {
            inside: end(entry.mapping.inside),
            outside: end(entry.mapping.outside),
            states: entry.states,
        };
        let mut all = Vec::new();
        for row in self.rows.get().iter().flat_map(|rows| &rows.inside) {
            let (row, _held) = held.lock(row);
            all.extend(row.iter().map(info));
        }
        all
    }
}

#[cfg(test)]
mod tests;
