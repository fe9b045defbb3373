//! The configuration all workers read: one immutable snapshot.
//!
//! A change clones this small struct of pointers, replaces one, and publishes it. What moves (SA sequence numbers,
//! pf states, interface queues, neighbours) is referred to from here and survives the change.

use crate::{
    hooks::{Keepalives, Tunnels, Ways},
    iface::{Interface, Kind, driver::Driver},
    route::{Fib, IfIndex, NextHop, NextHopId},
};
use ipsec::{Sad, Spd};
use kern::Why;
use std::{
    net::{IpAddr, Ipv6Addr},
    sync::Arc,
};

/// The snapshot.
#[derive(Clone, Default)]
pub struct NetConfig {
    /// By index; place 0 is nobody.
    pub interfaces: Vec<Option<Arc<Interface>>>,
    /// Longest prefix match.
    pub fib: Fib,
    /// pf's rules, if pf is on.
    pub pf: Option<Arc<pf::Ruleset>>,
    /// Security policies.
    pub spd: Arc<Spd>,
    /// Security associations.
    pub sad: Arc<Sad>,
    /// Which of the SAs are those of interfaces.
    pub(crate) tunnels: Tunnels,
    /// Which peers are sent keepalives.
    pub(crate) keepalives: Keepalives,
    /// By which way the packets of each SA leave.
    pub(crate) ways: Ways,
    /// Whether pf sees packets inside tunnels, on `enc0`.
    pub enc0: bool,
    /// ICMP errors a second that a worker may send; 0 for no limit.
    pub icmp_rate: u32,
    /// Whether flows must be hashed in `ip_input`: several queues, several paths, or pf states.
    pub hash_flows: bool,
}

impl NetConfig {
    /// Puts in SAs, and what follows from them.
    pub(crate) fn replace_sad(&mut self, sad: Sad) {
        self.tunnels = Tunnels::new(self.all().map(|i| &**i), &sad);
        self.ways = Ways::new(&sad, &self.fib, &self.interfaces);
        self.sad = Arc::new(sad);
        self.keepalives = Keepalives::new(self);
    }

    /// The interface with this number.
    #[inline(always)]
    pub fn interface(&self, index: u16) -> Option<&Interface> {
        self.interfaces.get(usize::from(index))?.as_deref()
    }

    /// All interfaces.
    pub fn all(&self) -> impl Iterator<Item = &Arc<Interface>> {
        self.interfaces.iter().flatten()
    }

    /// The interface with this name.
    pub fn named(&self, name: &str) -> Option<&Arc<Interface>> {
        self.all().find(|i| &*i.name == name)
    }

    /// The interface of a VLAN on a device.
    pub fn vlan(&self, under: u16, vid: u16) -> Option<u16> {
        let on_it = |i: &&Arc<Interface>| matches!(i.kind, Kind::Vlan { parent, tag } if parent.0 == under && tag == vid);
        self.all().find(on_it).map(|i| i.index.0)
    }

    /// The device of an interface, or that under a VLAN.
    pub fn driver(&self, index: IfIndex) -> Option<&dyn Driver> {
        match &self.interface(index.0)?.kind {
            Kind::Device(driver) => Some(&**driver),
            Kind::Vlan { parent, .. } => match &self.interface(parent.0)?.kind {
                Kind::Device(driver) => Some(&**driver),
                Kind::Vlan { .. } | Kind::Ipsec(_) => None,
            },
            Kind::Ipsec(_) => None,
        }
    }

    /// The gateway a packet's next hop names, if it is one; `nexthop` as in the packet header (0 for none).
    #[inline(always)]
    pub fn gateway(&self, nexthop: u32) -> Option<IpAddr> {
        match self.fib.hop(NextHopId(nexthop)) {
            NextHop::Gateway { addr, .. } => Some(*addr),
            _ => None,
        }
    }

    /// Whether an address is the router's own, on whatever interface. Link-local ones are asked of their interface.
    pub fn is_local(&self, addr: IpAddr) -> bool {
        matches!(self.fib.hop(self.fib.lookup(addr)), NextHop::Local { .. })
    }

    /// The address to use as source towards a destination.
    pub fn source_for(&self, to: IpAddr) -> Result<IpAddr, Why> {
        match *self.fib.route(to, 0) {
            NextHop::Local { .. } => Ok(to),
            NextHop::Connected { iface } | NextHop::Broadcast { iface } => self.source_on(iface, to),
            NextHop::Gateway { iface, addr } => {
                self.source_on(iface, if addr.is_ipv4() == to.is_ipv4() { addr } else { to })
            }
            NextHop::Unreachable | NextHop::Reject | NextHop::Blackhole | NextHop::Ecmp(_) => {
                Err(Why::NoRoute)
            }
        }
    }

    fn source_on(&self, iface: IfIndex, to: IpAddr) -> Result<IpAddr, Why> {
        let own = self.interface(iface.0).and_then(|i| i.source_for(to));
        let usable = |a: &IpAddr| match (a, to) {
            // A link-local source must not go beyond its link.
            (IpAddr::V6(a), IpAddr::V6(to)) => !a.is_unicast_link_local() || on_link(to),
            _ => true,
        };
        let other = || self.all().find_map(|i| i.source_for(to).filter(usable));
        own.filter(usable).or_else(other).ok_or(Why::SourceUnusable)
    }
}

fn on_link(to: Ipv6Addr) -> bool {
    to.is_unicast_link_local() || (to.is_multicast() && to.segments()[0] & 0x000f == 2)
}
