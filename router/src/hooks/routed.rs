//! Packets that pf routes (`route-to`, `reply-to`, `dup-to`): by the next hop of a rule instead of the routing table's.
//!
//! What came in goes through `ip_forward` as any packet, with its next hop in its header already: it loses a hop and meets
//! the SPD. What is on its way out has met it; if it changes the interface, pf looks at it there too. A packet that pf sees
//! on its way into a tunnel (out on `enc0`) goes into the tunnel, whatever a rule says: never is it sent in clear. The
//! header counts how often a packet has been routed, and ends a loop.

use super::{
    ENC0,
    esp_input::{CLUSTER_ROOM, twin},
};
use crate::worker::{Cx, Pending, Shared, Stage};
use kern::{Class, Ledger, Mbuf, PktFlags, Why};
use pf::{Direction, Exception, HopId, NextHop, Via};
use std::net::IpAddr;

/// Whether pf has chosen where this packet goes.
#[inline(always)]
pub(crate) fn is_routed(m: &Mbuf) -> bool {
    HopId::from_header(m.hdr().nexthop).is_some()
}

/// The gateway that a packet's next hop names, be it the routing table's or pf's.
#[inline(always)]
pub(crate) fn gateway(cx: &Cx<'_>, nexthop: u32) -> Option<IpAddr> {
    match HopId::from_header(nexthop) {
        None => cx.net.gateway(nexthop),
        Some(hop) => cx.shared.pf.slab().next_hop(hop)?.gateway,
    }
}

/// Where pf has tested a batch.
pub(super) struct Place<'a> {
    shared: &'a Shared,
    ledger: &'a Ledger,
    direction: Direction,
    /// Out on `enc0`: what is here goes into a tunnel.
    is_protected: bool,
}

impl<'a> Place<'a> {
    pub(super) fn new(shared: &'a Shared, ledger: &'a Ledger, direction: Direction, via: Via) -> Place<'a> {
        let is_protected = direction == Direction::Out && via == Via::One(ENC0);
        Place { shared, ledger, direction, is_protected }
    }

    /// Gives back a packet that goes on where it is, its copy made if there is to be one.
    pub(super) fn stays(
        &self,
        mut m: Mbuf,
        exception: Exception,
        late: &mut Vec<(Stage, Mbuf)>,
    ) -> Result<Mbuf, (Mbuf, Exception)> {
        match exception {
            Exception::Route(_) | Exception::Copy(_) if self.is_protected => Ok(m),
            Exception::Copy(hop) => {
                if late.len() < late.capacity()
                    && let Some(copy) = self.copy(&mut m, hop)
                {
                    late.push(copy);
                }
                Ok(m)
            }
            Exception::Route(hop) if self.direction == Direction::Out => {
                let to = self.shared.pf.slab().next_hop(hop).map(|hop| hop.iface.0);
                match hop.to_header(m.hdr().nexthop) {
                    Some(nexthop) if to == Some(m.hdr().egress) => {
                        m.hdr_mut().nexthop = nexthop;
                        Ok(m)
                    }
                    _ => Err((m, exception)),
                }
            }
            other => Err((m, other)),
        }
    }

    /// A copy on its way to a next hop.
    #[cold]
    fn copy(&self, m: &mut Mbuf, hop: HopId) -> Option<(Stage, Mbuf)> {
        let to = self.shared.pf.slab().next_hop(hop)?;
        let class = if m.len() <= CLUSTER_ROOM { Class::Cluster } else { Class::Jumbo };
        m.hdr_mut().flags.set(PktFlags::COPIED);
        let mut copy = twin(&self.shared.pool, m, class)?;
        self.ledger.create(&mut copy);
        if m.hdr().flags.has(PktFlags::PARTIAL) {
            copy.set_partial(m.csum_start(), m.hdr().csum_offset);
        }
        copy.set_gso(m.hdr().gso, m.hdr().gso_size);
        if self.direction == Direction::Out && to.iface.0 == m.hdr().egress {
            // pf has seen it here.
            copy.hdr_mut().flags.set(PktFlags::NO_PF);
        }
        match send(&mut copy, to, hop) {
            Ok(()) => Some((next(self.direction), copy)),
            Err(why) => {
                copy.end(why, self.ledger);
                None
            }
        }
    }
}

/// Sends a packet to the next hop that pf has chosen.
#[cold]
pub(super) fn divert(cx: &mut Cx<'_>, mut m: Mbuf, hop: HopId, direction: Direction, out: &mut Pending) {
    let to = cx.shared.pf.slab().next_hop(hop).ok_or(Why::PfRoute);
    match to.and_then(|to| send(&mut m, to, hop)) {
        Ok(()) => out.push(next(direction), m, &cx.stats.ledger),
        Err(why) => cx.end(m, why),
    }
}

fn send(m: &mut Mbuf, to: &NextHop, hop: HopId) -> Result<(), Why> {
    let h = m.hdr_mut();
    h.nexthop = hop.to_header(h.nexthop).ok_or(Why::TooManyPasses)?;
    h.egress = to.iface.0;
    Ok(())
}

/// Where a packet goes on: as far as it had come.
const fn next(direction: Direction) -> Stage {
    match direction {
        Direction::In => Stage::Forward,
        Direction::Out => Stage::IpOutput,
    }
}
