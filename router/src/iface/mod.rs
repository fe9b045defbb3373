//! Interfaces: what the router reads frames from and writes them to.

pub mod cut;
pub mod driver;
pub mod gro;
pub mod link;
pub mod output;
pub mod source_sink;
pub mod tap;
pub mod vnet;

use crate::{conf::Ends, route::IfIndex};
use altq::IfQueue;
use driver::{Caps, Driver};
use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};
use wire::Mac;

/// An address of an interface, with the length of its subnet's prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IfAddr {
    /// The address.
    pub addr: IpAddr,
    /// Bits of the subnet.
    pub len: u8,
}

impl IfAddr {
    /// Whether another address is in the same subnet.
    pub fn contains(&self, other: IpAddr) -> bool {
        match (self.addr, other) {
            (IpAddr::V4(a), IpAddr::V4(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros() >= self.len.into(),
            (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros() >= self.len.into(),
            _ => false,
        }
    }
}

/// What an interface sits on.
#[derive(Clone)]
pub enum Kind {
    /// A device of its own.
    Device(Arc<dyn Driver>),
    /// Tagged frames on another interface.
    Vlan {
        /// That interface.
        parent: IfIndex,
        /// VLAN identifier.
        tag: u16,
    },
    /// No wire at all: what is sent here goes into a tunnel, and what comes out of it was received here.
    Ipsec(Ends),
}

/// An interface as configured: immutable, part of the snapshot.
#[derive(Clone)]
pub struct Interface {
    /// Its number.
    pub index: IfIndex,
    /// Its name in pf.conf.
    pub name: Arc<str>,
    /// What it sits on.
    pub kind: Kind,
    /// Its link-layer address.
    pub mac: Mac,
    /// Octets of the largest IP packet.
    pub mtu: u16,
    /// Its addresses, link-local ones included.
    pub addrs: Vec<IfAddr>,
    /// Its queue, if pf.conf has an `altq` line for it.
    pub ifq: Option<Arc<IfQueue>>,
    /// Super-frames it takes (the device's, or the parent's).
    pub caps: Caps,
    /// Device queues (the device's, or the parent's), at least 1.
    pub queues: u16,
    /// What it advertises to hosts, if anything.
    pub advertises: Option<crate::conf::Advertise>,
}

impl Interface {
    /// VLAN identifier, if it is a VLAN.
    #[inline(always)]
    pub fn tag(&self) -> Option<u16> {
        match self.kind {
            Kind::Device(_) | Kind::Ipsec(_) => None,
            Kind::Vlan { tag, .. } => Some(tag),
        }
    }

    /// Whether it is on a wire, with neighbours.
    #[inline(always)]
    pub const fn has_link(&self) -> bool {
        !matches!(self.kind, Kind::Ipsec(_))
    }

    /// Whether an address is one of its own.
    pub fn has(&self, addr: IpAddr) -> bool {
        self.addrs.iter().any(|a| a.addr == addr)
    }

    /// Its link-local IPv6 address.
    pub fn link_local(&self) -> Option<Ipv6Addr> {
        self.addrs.iter().find_map(|a| match a.addr {
            IpAddr::V6(a) if a.is_unicast_link_local() => Some(a),
            _ => None,
        })
    }

    /// Its first IPv4 address.
    pub fn first_v4(&self) -> Option<Ipv4Addr> {
        self.addrs.iter().find_map(|a| match a.addr {
            IpAddr::V4(a) => Some(a),
            IpAddr::V6(_) => None,
        })
    }

    /// The address to speak from to a neighbour or through it: in its subnet if there is one, else the first of the
    /// family (for IPv6 a global one before the link-local one).
    pub fn source_for(&self, to: IpAddr) -> Option<IpAddr> {
        let same = |a: &&IfAddr| a.addr.is_ipv4() == to.is_ipv4();
        let global = |a: &&IfAddr| !matches!(a.addr, IpAddr::V6(v6) if v6.is_unicast_link_local());
        let all = || self.addrs.iter().filter(same);
        all().find(|a| a.contains(to)).or_else(|| all().find(global)).or_else(|| all().next()).map(|a| a.addr)
    }
}
