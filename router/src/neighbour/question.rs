//! The frames that ask for a neighbour.

use crate::{ether, iface::Interface, worker::Cx};
use kern::{Mbuf, PktFlags, Why};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use wire::{Mac, arp, nd};

/// The frame that asks for a neighbour: everyone, or the neighbour itself where it was known. `None` where there is no
/// buffer or no address to ask from; it is asked again by the timer.
pub(super) fn question(cx: &Cx<'_>, interface: &Interface, to: IpAddr, known: Option<Mac>) -> Option<Mbuf> {
    let from = interface.source_for(to)?;
    let m = cx.new_packet()?;
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => ask_arp(cx, interface, m, from, to, known),
        (IpAddr::V6(from), IpAddr::V6(to)) => ask_nd(cx, interface, m, from, to, known),
        _ => {
            cx.end(m, Why::SourceUnusable);
            None
        }
    }
}

fn ask_arp(
    cx: &Cx<'_>,
    interface: &Interface,
    m: Mbuf,
    from: Ipv4Addr,
    to: Ipv4Addr,
    known: Option<Mac>,
) -> Option<Mbuf> {
    cx.stats.count.arp_requests_sent.inc();
    let request = arp::Repr::request(interface.mac, from, to);
    own_frame(cx, interface, m, 0, known.unwrap_or(Mac::BROADCAST), |out| request.emit(out))
}

fn ask_nd(
    cx: &Cx<'_>,
    interface: &Interface,
    m: Mbuf,
    from: Ipv6Addr,
    to: Ipv6Addr,
    known: Option<Mac>,
) -> Option<Mbuf> {
    cx.stats.count.nd_solicits_sent.inc();
    let group = wire::ipv6::solicited_node(to);
    own_frame(cx, interface, m, 6, known.unwrap_or(Mac::multicast_v6(group)), |out| match known {
        Some(_) => nd::solicit_unicast(out, from, interface.mac, to),
        None => nd::solicit(out, from, interface.mac, to),
    })
}

/// Makes a whole frame of a new packet: the content that `write` puts into it, and the Ethernet header. It skips
/// everything on its way to the device: resolving must not need pf, the SPD or itself.
pub(crate) fn own_frame(
    cx: &Cx<'_>,
    interface: &Interface,
    mut m: Mbuf,
    family: u8,
    to: Mac,
    write: impl FnOnce(&mut [u8]) -> Result<usize, wire::Malformed>,
) -> Option<Mbuf> {
    let Ok(len) = write(m.fill()) else {
        cx.end(m, Why::NoBuffer);
        return None;
    };
    m.truncate(len);
    m.set_l4(if family == 6 { 40 } else { 0 });
    let h = m.hdr_mut();
    h.family = family;
    h.flags = PktFlags::ORIGIN;
    h.egress = interface.index.0;
    let mut m = ether::frame(cx, interface, m, to)?;
    m.hdr_mut().family = 0;
    Some(m)
}
