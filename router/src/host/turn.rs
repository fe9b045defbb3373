//! One turn of the control thread in the host stack: the packets it makes, and how they leave.
//!
//! A packet of ours begins in the control thread's books, has no route yet, and waits in the output queue for worker 0, in
//! whose `ip_output` it meets SPD and pf and is fragmented if it must be: IPv4 packets leave here without DF.

use crate::{netconfig::NetConfig, worker::Shared};
use ipsec::spd::{Action, Direction, Policy};
use kern::{
    Class, Ledger, Mbuf, Owner, PktFlags, Why,
    lock::{Held, levels::Softnet},
    time::Instant,
};
use std::net::IpAddr;
use wire::{HashSeed, IpProto};

/// Longest packet that is put into a cluster.
const CLUSTER_PACKET: usize = 1700;

/// What a turn works with.
pub(super) struct Turn<'a> {
    /// What workers share.
    pub(super) shared: &'a Shared,
    /// The control thread's books.
    pub(super) ledger: &'a Ledger,
    /// The configuration in force.
    pub(super) net: &'a NetConfig,
    /// When the turn began.
    pub(super) now: Instant,
    /// Proof of Softnet.
    pub(super) held: Held<'a, Softnet>,
    /// Packets sent so far.
    pub(super) sent: usize,
}

impl Turn<'_> {
    /// A blank buffer for a packet of this length.
    pub(super) fn blank(&self, len: usize) -> Option<Mbuf> {
        let class = if len <= CLUSTER_PACKET { Class::Cluster } else { Class::Jumbo };
        self.shared.pool.alloc(class, Owner::Control)
    }

    /// Packets that may still be sent in this turn.
    pub(super) fn room(&self) -> usize {
        self.shared.host.send_room()
    }

    /// Gives a packet to the workers.
    pub(super) fn send(&mut self, m: Mbuf) {
        m.set_owner(Owner::Host);
        match self.shared.host.send(&mut self.held, m) {
            Ok(()) => {
                self.ledger.given.inc();
                self.sent += 1;
            }
            Err(m) => m.end(Why::HostFull, self.ledger),
        }
    }

    /// Takes the next packet that came for the host stack.
    pub(super) fn take(&mut self) -> Option<Mbuf> {
        let m = self.shared.host.take_input(&mut self.held)?;
        self.ledger.taken.inc();
        Some(m)
    }
}

/// Whether an address means something on one link only.
pub(super) fn is_of_a_link(to: IpAddr) -> bool {
    match to {
        IpAddr::V4(a) => a.is_multicast() || a.is_broadcast(),
        IpAddr::V6(a) => a.is_multicast() || a.is_unicast_link_local(),
    }
}

/// How to speak to somebody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Way {
    /// Our address.
    pub(super) from: IpAddr,
    /// The interface, if the other's address does not say; else 0.
    pub(super) link: u16,
}

/// Where to speak from, and on which link. An address of one link is clear if just one interface speaks its family.
pub(super) fn way(net: &NetConfig, to: IpAddr) -> Result<Way, String> {
    if to.is_unspecified() {
        return Err(format!("{to} is nobody's address"));
    }
    if !is_of_a_link(to) {
        let from = net.source_for(to).map_err(|why| format!("{to}: {}", why.text()))?;
        return Ok(Way { from: tunnel_source(net, from, to).unwrap_or(from), link: 0 });
    }
    let mut able = net.all().filter(|i| i.addrs.iter().any(|a| a.addr.is_ipv4() == to.is_ipv4()));
    let (Some(interface), None) = (able.next(), able.next()) else {
        return Err(format!("{to} may be on any of several links"));
    };
    let from = if to.is_ipv6() {
        interface.link_local().map(IpAddr::V6)
    } else {
        interface.first_v4().map(IpAddr::V4)
    };
    let from = from.ok_or_else(|| format!("{to}: {}", Why::SourceUnusable.text()))?;
    Ok(Way { from, link: interface.index.0 })
}

/// An address of ours for which some policy takes what we say to `to` into a tunnel, if no policy is about what `usual`
/// says to it. What is behind a tunnel answers nobody else.
fn tunnel_source(net: &NetConfig, usual: IpAddr, to: IpAddr) -> Option<IpAddr> {
    let about = |p: &&Policy| p.direction == Direction::Out && p.selector.dst.contains(to);
    let policies = || net.spd.policies().iter().filter(about);
    if net.is_local(to) || policies().any(|p| p.selector.src.contains(usual)) {
        return None;
    }
    let mut protect = policies().filter(|p| matches!(p.action, Action::Protect(_)));
    let ours = || net.all().flat_map(|i| &i.addrs).map(|a| a.addr);
    protect.find_map(|p| ours().find(|a| p.selector.src.contains(*a)))
}

/// Makes a whole packet one of the router's own that has no route yet. `link` is where it goes if its destination does
/// not say. False if it is no packet.
pub(super) fn originate(m: &mut Mbuf, link: u16, seed: &HashSeed) -> bool {
    let Ok(parsed) = wire::parse::parse_ip(m.data()) else { return false };
    let hash = parsed.hash(m.data(), seed);
    m.set_l3(0);
    m.set_l4(usize::from(parsed.l4));
    let h = m.hdr_mut();
    h.flags = PktFlags::ORIGIN;
    if parsed.is_v6() {
        h.flags.set(PktFlags::DF);
    }
    h.family = if parsed.is_v6() { 6 } else { 4 };
    h.proto = parsed.proto.0;
    h.rcvif = link;
    h.hash = hash;
    true
}

/// What somebody sent us.
#[derive(Clone, Copy, Debug)]
pub(super) struct Heard<'a> {
    /// Who.
    pub(super) from: IpAddr,
    /// To which of our addresses.
    pub(super) to: IpAddr,
    /// Hops it could still have gone.
    pub(super) hops: u8,
    /// The upper layer.
    pub(super) upper: &'a [u8],
}

/// Reads a packet that a worker has checked; `None` for what no worker lets through.
pub(super) fn hear(m: &Mbuf) -> Option<Heard<'_>> {
    let data = m.data();
    let upper = data.get(m.l4()..)?;
    if m.hdr().family == 4 {
        let header = wire::ipv4::Packet::new_checked(data).ok()?;
        Some(Heard { from: header.src().into(), to: header.dst().into(), hops: header.ttl(), upper })
    } else {
        let header = wire::ipv6::Packet::new_checked(data).ok()?;
        Some(Heard { from: header.src().into(), to: header.dst().into(), hops: header.hop_limit(), upper })
    }
}

/// Whether a packet is ICMP of its family.
pub(super) fn is_icmp(m: &Mbuf) -> bool {
    matches!((m.hdr().family, IpProto(m.hdr().proto)), (4, IpProto::ICMP) | (6, IpProto::ICMPV6))
}
