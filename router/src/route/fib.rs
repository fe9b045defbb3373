//! The forwarding information base: what the packet path asks. Immutable; made by [`Rib::commit`](super::rib::Rib::commit).

use super::{
    fib4::Fib4,
    fib6::Fib6,
    hop::{Hops, NextHop, NextHopId},
};
use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

/// Longest prefix match for both families, and the next hops. Cloning clones three pointers.
#[derive(Clone, Default)]
pub struct Fib {
    /// IPv4.
    pub v4: Arc<Fib4>,
    /// IPv6.
    pub v6: Arc<Fib6>,
    /// What the tables' entries mean.
    pub hops: Arc<Hops>,
}

impl Fib {
    /// The next hop of an IPv4 destination, one path of several still to be [selected](Self::select).
    #[inline(always)]
    pub fn lookup4(&self, addr: Ipv4Addr) -> NextHopId {
        self.v4.lookup(addr)
    }

    /// The next hop of an IPv6 destination. Link-local destinations are not in the table: their link is not known from
    /// the address.
    #[inline(always)]
    pub fn lookup6(&self, addr: Ipv6Addr) -> NextHopId {
        self.v6.lookup(addr)
    }

    /// The next hop of a destination.
    #[inline]
    pub fn lookup(&self, addr: IpAddr) -> NextHopId {
        match addr {
            IpAddr::V4(a) => self.lookup4(a),
            IpAddr::V6(a) => self.lookup6(a),
        }
    }

    /// One path: the next hop itself, or the one that this flow takes of several.
    #[inline(always)]
    pub fn select(&self, id: NextHopId, hash: u32) -> NextHopId {
        self.hops.select(id, hash)
    }

    /// [`select`](Self::select) and [`hop`](Self::hop) in one.
    #[inline(always)]
    pub fn resolve(&self, id: NextHopId, hash: u32) -> (NextHopId, &NextHop) {
        self.hops.resolve(id, hash)
    }

    /// What a next hop is.
    #[inline(always)]
    pub fn hop(&self, id: NextHopId) -> &NextHop {
        self.hops.get(id)
    }

    /// Lookup and selection in one, for callers that are not in a hurry.
    pub fn route(&self, addr: IpAddr, hash: u32) -> &NextHop {
        self.hop(self.select(self.lookup(addr), hash))
    }
}
