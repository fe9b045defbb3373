//! What few packets get besides being passed, out of line: rules and states refer to it, and it costs the others nothing.
//!
//! Match rules add up, and the rule that decides comes last: of two that say the same thing the later one counts. A state
//! gives the packets of both directions what its first packet got.

use kern::Mbuf;

use crate::{
    intern::Interned,
    log::Where,
    normalise::{Ids, Normalise},
    packet::Packet,
    route::Routed,
};

/// What packets of a state get.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Treatment {
    /// Where they go.
    pub(crate) route: Option<Routed>,
    /// What is normalised about them.
    pub(crate) normalise: Normalise,
    /// Their priority on the wire (802.1p), and that of low-delay packets.
    pub(crate) prio: Option<(u8, u8)>,
    /// Octets of IP at most (`max-pkt-size`); 0 is any number.
    pub(crate) max_size: u16,
    /// Where every packet is logged.
    pub(crate) log: Option<Where>,
}

/// All treatments that states have; a state refers to one by number, and 0 is none.
pub(crate) type Treatments = Interned<Treatment>;

impl Treatment {
    /// Nothing.
    pub(crate) const NONE: Treatment =
        Treatment { route: None, normalise: Normalise::NONE, prio: None, max_size: 0, log: None };

    /// This, and what a later rule says.
    pub(crate) fn then(self, normalise: Normalise, prio: Option<(u8, u8)>, max_size: u16) -> Treatment {
        let max_size = if max_size != 0 { max_size } else { self.max_size };
        Treatment { normalise: self.normalise.then(normalise), prio: prio.or(self.prio), max_size, ..self }
    }

    /// Whether a packet may be as long as it is; a super-frame, as what it becomes on the wire.
    #[inline]
    pub(crate) fn admits(&self, m: &Mbuf, p: &Packet) -> bool {
        self.max_size == 0 || p.longest(m) <= u32::from(self.max_size)
    }

    /// Gives a packet what it is to get; `p` is what it was read as.
    #[cold]
    pub(crate) fn apply(&self, m: &mut Mbuf, p: &Packet, ids: &mut Ids) {
        if !self.normalise.is_none() {
            self.normalise.apply(m, || ids.next());
        }
        if let Some((prio, low_delay)) = self.prio {
            m.hdr_mut().prio = if p.wants_low_delay() { low_delay } else { prio };
        }
    }
}
