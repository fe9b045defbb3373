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

mod rows;

use std::sync::{
    OnceLock,
    atomic::{AtomicU32, Ordering::Relaxed},
};

use kern::lock::{Held, levels::PfRules};

use crate::{addr::Family, packet::Packet, random::Random};
use rows::{Rows, Side};

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
    /// Its outside is another sender's, or there is no room for it.
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

/// All mappings.
#[derive(Debug, Default)]
pub(crate) struct Mappings {
    /// Made when a ruleset first wants them.
    rows: OnceLock<Rows>,
    count: AtomicU32,
}

impl Mappings {
    /// Makes room for so many, for the control thread: no worker has to.
    pub(crate) fn open(&self, room: u32) {
        let rows = (room as usize).clamp(1 << 10, 1 << 20);
        self.rows.get_or_init(|| Rows::new(rows)).grow(room);
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
        self.rows.get().filter(|_| self.count() != 0)?.take(held, inside, serves)
    }

    /// Makes and takes a mapping, unless its outside is another sender's or its own has one that `serves` by now.
    pub(super) fn claim(
        &self,
        held: &mut Held<'_, PfRules>,
        mapping: &Mapping,
        serves: impl Fn(&Endpoint) -> bool,
    ) -> Claim {
        let Some(rows) = self.rows.get() else { return Claim::Taken };
        let Some(at) = rows.reserve(held, mapping) else { return Claim::Taken };
        // Counted before it can be found: whoever asks for the count first finds what there is.
        self.count.fetch_add(1, Relaxed);
        match rows.put(held, at, mapping, serves) {
            None => Claim::Made,
            Some(other) => {
                rows.give_up(held, at, &mapping.outside);
                self.count.fetch_sub(1, Relaxed);
                Claim::Follows(other)
            }
        }
    }

    /// A state of a mapping has ended, or was not made: after the last the mapping is out.
    #[cold]
    pub(crate) fn leave(&self, held: &mut Held<'_, PfRules>, mapping: &Mapping) {
        let Some(rows) = self.rows.get() else { return };
        if let Some(at) = rows.take_out(held, mapping) {
            rows.give_up(held, at, &mapping.outside);
            self.count.fetch_sub(1, Relaxed);
        }
    }

    /// Whether some mapping sends from there.
    pub(super) fn have(&self, held: &mut Held<'_, PfRules>, outside: &Endpoint) -> bool {
        self.rows.get().filter(|_| self.count() != 0).is_some_and(|rows| rows.have(held, outside))
    }

    /// All of them, one lock at a time.
    pub(crate) fn dump(&self, held: &mut Held<'_, PfRules>) -> Vec<MappingInfo> {
        let end = |end: Endpoint| (end.family.address(end.address), end.port);
        let info = |(mapping, states): (Mapping, u32)| MappingInfo {
            inside: end(mapping.inside),
            outside: end(mapping.outside),
            states,
        };
        let all = self.rows.get().map(|rows| rows.all(held, Side::Inside));
        all.into_iter().flatten().map(info).collect()
    }
}

#[cfg(test)]
mod tests;
