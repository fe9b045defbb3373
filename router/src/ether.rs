//! Ethernet II and 802.1Q: frames in, frames out.
//!
//! `ether_input` strips the header and says what kind of packet it is; `ether_output` finds the neighbour, puts the
//! header on and gives the frame to the interface. ARP is answered here, on the worker it arrived at.
//! Not done: 802.3 length frames, stacked tags, spanning tree.

use crate::{
    arp, hooks,
    iface::{Interface, Kind, output},
    neighbour::{self, Resolved},
    worker::{Cx, Pending, Stage},
};
use kern::{
    Batch, Mbuf, PktFlags, Why,
    lock::{Held, levels::Softnet},
};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use wire::{EtherType, Mac, ether};

const HEADER: usize = ether::HEADER_LEN;

/// Stage: frames as read, to IP packets.
pub(crate) fn ether_input(
    cx: &mut Cx<'_>,
    held: &mut Held<'_, Softnet>,
    batch: &mut Box<Batch>,
    out: &mut Pending,
) {
    hooks::frames_in(cx, batch);
    // Frames of a burst came in by one interface: it is looked up once.
    let mut at: Option<&Interface> = None;
    batch.sift(|mut m| {
        if at.is_none_or(|i| i.index.0 != m.hdr().rcvif) {
            at = cx.net.interface(m.hdr().rcvif);
        }
        if at.is_some_and(|interface| strip(interface, &mut m)) {
            return Some(m);
        }
        uncommon(cx, held, m, out)
    });
    out.pass(Stage::IpInput, batch, &cx.stats.ledger);
}

/// An untagged IP frame to this interface's own address loses its header; says whether it was one.
#[inline(always)]
fn strip(interface: &Interface, m: &mut Mbuf) -> bool {
    let Some(header) = m.data().first_chunk::<HEADER>() else { return false };
    let family = match [header[12], header[13]] {
        [0x08, 0x00] => 4,
        [0x86, 0xdd] => 6,
        _ => return false,
    };
    // The destination and the first octets of the source in one, of which only the group bit matters.
    const ASKED: u64 = u64::from_le_bytes([0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01, 0]);
    let (Some(ends), mut own) = (header.first_chunk(), [0; 8]) else { return false };
    own[..6].copy_from_slice(&interface.mac.0);
    if u64::from_le_bytes(*ends) & ASKED != u64::from_le_bytes(own) {
        return false;
    }
    m.hdr_mut().family = family;
    m.trim_front(HEADER).is_ok()
}

/// Everything else: groups, tags, ARP, strangers. Gives back what is an IP packet after all.
#[cold]
fn uncommon(cx: &mut Cx<'_>, held: &mut Held<'_, Softnet>, mut m: Mbuf, out: &mut Pending) -> Option<Mbuf> {
    match demultiplex(cx, &mut m) {
        Ok(EtherType::IPV4) => m.hdr_mut().family = 4,
        Ok(EtherType::IPV6) => m.hdr_mut().family = 6,
        Ok(EtherType::ARP) => {
            arp::arp_input(cx, held, m, out);
            return None;
        }
        Ok(_) => {
            m.end(Why::EtherType, &cx.stats.ledger);
            return None;
        }
        Err(why) => {
            m.end(why, &cx.stats.ledger);
            return None;
        }
    }
    Some(m)
}

/// Checks addresses, takes off header and tag, marks groups; says what is inside.
fn demultiplex(cx: &Cx<'_>, m: &mut Mbuf) -> Result<EtherType, Why> {
    let header = *m.data().first_chunk::<HEADER>().ok_or(Why::EtherShort)?;
    let mut kind = EtherType(u16::from_be_bytes([header[12], header[13]]));
    let (dst, src) = (mac_at(&header, 0), mac_at(&header, 6));
    m.trim_front(HEADER).map_err(|_| Why::EtherShort)?;
    if kind == EtherType::VLAN {
        kind = untag(cx, m)?;
    }
    let interface = cx.net.interface(m.hdr().rcvif).ok_or(Why::IfDetached)?;
    if src.is_multicast() || src == interface.mac {
        return Err(Why::EtherSource);
    }
    if dst.is_broadcast() {
        m.hdr_mut().flags.set(PktFlags::BCAST);
    } else if dst.is_multicast() {
        m.hdr_mut().flags.set(PktFlags::MCAST);
    } else if dst != interface.mac {
        return Err(Why::EtherNotOurs);
    }
    Ok(kind)
}

/// The VLAN that a frame is of, if it is tagged.
pub(crate) fn vlan_id(frame: &[u8]) -> Option<u16> {
    let kind = [*frame.get(12)?, *frame.get(13)?];
    let tci = [*frame.get(14)?, *frame.get(15)?];
    (u16::from_be_bytes(kind) == EtherType::VLAN.0).then(|| u16::from_be_bytes(tci) & 0x0fff)
}

/// Moves a tagged frame to its VLAN's interface.
fn untag(cx: &Cx<'_>, m: &mut Mbuf) -> Result<EtherType, Why> {
    let tag = *m.data().first_chunk::<4>().ok_or(Why::EtherShort)?;
    let tci = u16::from_be_bytes([tag[0], tag[1]]);
    let vlan = cx.net.vlan(m.hdr().rcvif, tci & 0x0fff).ok_or(Why::EtherVlan)?;
    let bytes = m.len() as u64;
    let h = m.hdr_mut();
    h.rcvif = vlan;
    h.prio = (tci >> 13) as u8;
    m.trim_front(4).map_err(|_| Why::EtherShort)?;
    cx.stats.interface(vlan).received(1, bytes);
    Ok(EtherType(u16::from_be_bytes([tag[2], tag[3]])))
}

fn mac_at(header: &[u8; HEADER], at: usize) -> Mac {
    let mut mac = [0; 6];
    mac.copy_from_slice(&header[at..at + 6]);
    Mac(mac)
}

/// Stage: packets with a next hop, to frames on a device.
pub(crate) fn ether_output(
    cx: &mut Cx<'_>,
    held: &mut Held<'_, Softnet>,
    batch: &mut Box<Batch>,
    out: &mut Pending,
) {
    let (mut last, mut ways) = (None, 0);
    batch.sift(|m| {
        // The next packet mostly goes the same way.
        if let Some(Through { egress, nexthop, to, interface, ends }) = last
            && (m.hdr().egress, m.hdr().nexthop) == (egress, nexthop)
            && m.hdr().family != 0
            && to.is_none_or(|to| is_to(&m, to))
        {
            return frame_between(cx, interface, m, ends);
        }
        ways += 1;
        address(cx, held, m, &mut last, out)
    });
    hooks::frames_out(cx, batch);
    output::if_output(cx, held, batch, ways == 1);
}

/// A neighbour whose link-layer address has just been found.
#[derive(Clone, Copy)]
struct Through<'a> {
    egress: u16,
    nexthop: u32,
    /// The neighbour, where it is the destination itself: the next hop tells a gateway from others, not these.
    to: Option<IpAddr>,
    interface: &'a Interface,
    ends: ether::Ends,
}

/// Puts the Ethernet header on, or leaves the packet with the neighbour until its address is known.
#[inline(always)]
fn address<'a>(
    cx: &mut Cx<'a>,
    held: &mut Held<'_, Softnet>,
    m: Mbuf,
    last: &mut Option<Through<'a>>,
    out: &mut Pending,
) -> Option<Mbuf> {
    let Some(interface) = cx.net.interface(m.hdr().egress) else {
        m.end(Why::IfDetached, &cx.stats.ledger);
        return None;
    };
    // ARP, and what was framed already when it waited for its turn.
    if m.hdr().family == 0 {
        return Some(m);
    }
    if let Kind::Ipsec(_) = interface.kind {
        hooks::tunnel_output(cx, interface, m, out);
        return None;
    }
    let gateway = hooks::gateway(cx, m.hdr().nexthop);
    let to = gateway.unwrap_or_else(|| destination(&m));
    let (m, mac) = match neighbour::resolve(cx, held, interface, to, m) {
        Resolved::Mac(m, mac) => (m, mac),
        Resolved::Waits => return None,
    };
    let (egress, nexthop) = (m.hdr().egress, m.hdr().nexthop);
    let to = gateway.is_none().then_some(to);
    let ends = ether::Ends::new(mac, interface.mac);
    *last = Some(Through { egress, nexthop, to, interface, ends });
    frame_between(cx, interface, m, ends)
}

/// Destination of the packet whose data start at its IP header.
#[inline(always)]
pub(crate) fn destination(m: &Mbuf) -> IpAddr {
    let data = m.data();
    if m.hdr().family == 4 {
        let dst = data.get(16..20).and_then(|d| d.first_chunk::<4>()).copied().unwrap_or_default();
        IpAddr::V4(Ipv4Addr::from_octets(dst))
    } else {
        let dst = data.get(24..40).and_then(|d| d.first_chunk::<16>()).copied().unwrap_or_default();
        IpAddr::V6(Ipv6Addr::from_octets(dst))
    }
}

/// Whether an address is the packet's destination: compared as octets, for to read the packet's into an [`IpAddr`] takes longer.
#[inline(always)]
fn is_to(m: &Mbuf, to: IpAddr) -> bool {
    let (data, family) = (m.data(), m.hdr().family);
    match to {
        IpAddr::V4(to) => family == 4 && data.get(16..20) == Some(&to.octets()),
        IpAddr::V6(to) => family == 6 && data.get(24..40) == Some(&to.octets()),
    }
}

/// Writes the header of a frame to a neighbour, and the tag where the interface is a VLAN.
pub(crate) fn frame(cx: &Cx<'_>, interface: &Interface, m: Mbuf, dst: Mac) -> Option<Mbuf> {
    frame_between(cx, interface, m, ether::Ends::new(dst, interface.mac))
}

#[inline(always)]
fn frame_between(cx: &Cx<'_>, interface: &Interface, mut m: Mbuf, ends: ether::Ends) -> Option<Mbuf> {
    let kind = match m.hdr().family {
        4 => EtherType::IPV4,
        6 => EtherType::IPV6,
        _ => EtherType::ARP,
    };
    m.set_l3(0);
    let written = match interface.tag() {
        None => write(&mut m, ends, kind),
        Some(tag) => {
            let tci = tag | u16::from(m.hdr().prio) << 13;
            write_tag(&mut m, tci, kind).and_then(|()| write(&mut m, ends, EtherType::VLAN))
        }
    };
    if let Err(why) = written {
        m.end(why, &cx.stats.ledger);
        return None;
    }
    Some(m)
}

#[inline(always)]
fn write(m: &mut Mbuf, ends: ether::Ends, kind: EtherType) -> Result<(), Why> {
    let room = m.prepend(HEADER)?.first_chunk_mut().ok_or(Why::Headroom)?;
    ends.write(room, kind);
    Ok(())
}

fn write_tag(m: &mut Mbuf, tci: u16, kind: EtherType) -> Result<(), Why> {
    let room = m.prepend(4)?;
    room[..2].copy_from_slice(&tci.to_be_bytes());
    room[2..].copy_from_slice(&kind.0.to_be_bytes());
    Ok(())
}
