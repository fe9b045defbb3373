//! By which way the packets of a tunnel leave: the route to its peer, found when the configuration is made.
//!
//! An outer packet goes where its SA's peer is, whatever is in it, and both the routes and the SAs are of one snapshot. So
//! nothing is looked up per packet, and a run knows the MTU ahead of it before it is sealed.

use crate::{
    iface::Interface,
    netconfig::NetConfig,
    route::{Fib, NextHop},
};
use ipsec::{
    Sad,
    sa::{Mode, Sa},
};
use std::{net::IpAddr, sync::Arc};

/// Where no route leads the size of a packet does not matter; it is what most links carry.
const USUAL_MTU: u16 = 1500;

/// The way of one SA.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Way {
    /// MTU of the first link.
    pub(super) mtu: u16,
    /// The interface, 0 if `ip_output` has to see for itself.
    pub(super) egress: u16,
    /// Next hop, as a packet's header has it.
    pub(super) nexthop: u32,
}

/// No route leads there, or `ip_output` has to see which.
const UNKNOWN: Way = Way { mtu: USUAL_MTU, egress: 0, nexthop: 0 };

/// The ways of all SAs, by index: part of the snapshot, made anew with its SAs.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ways(Box<[Way]>);

impl Ways {
    /// Of these SAs, over these routes.
    pub(crate) fn new(sad: &Sad, fib: &Fib, interfaces: &[Option<Arc<Interface>>]) -> Ways {
        let mut ways = Vec::new();
        for sa in sad.iter() {
            let at = sa.index().0 as usize;
            ways.resize(ways.len().max(at + 1), UNKNOWN);
            ways[at] = find(sa, fib, interfaces);
        }
        Ways(ways.into())
    }
}

/// The way of an SA of this snapshot.
#[inline(always)]
pub(super) fn way(net: &NetConfig, sa: &Sa) -> Way {
    net.ways.0.get(sa.index().0 as usize).copied().unwrap_or(UNKNOWN)
}

fn find(sa: &Sa, fib: &Fib, interfaces: &[Option<Arc<Interface>>]) -> Way {
    let peer = sa.destination();
    let (id, hop) = fib.resolve(fib.lookup(peer), sa.outer_hash());
    let egress = hop.iface().map_or(0, |iface| iface.0);
    let interface = interfaces.get(usize::from(egress)).and_then(Option::as_deref);
    let mtu = interface.map_or(USUAL_MTU, |interface| interface.mtu);
    // In transport mode it is the packet's own way, and that of a link-local peer depends on where it was heard.
    let leads_on = matches!(hop, NextHop::Connected { .. } | NextHop::Gateway { .. })
        && matches!(sa.config().mode, Mode::Tunnel | Mode::Beet)
        && !is_link_local(peer);
    if leads_on { Way { mtu, egress, nexthop: id.0 } } else { Way { mtu, ..UNKNOWN } }
}

fn is_link_local(peer: IpAddr) -> bool {
    matches!(peer, IpAddr::V6(peer) if peer.is_unicast_link_local())
}
