//! Changing a packet in place to what its state says, checksums kept right by their difference (RFC 1624).
//!
//! A packet may be a super-frame with a *partial* checksum: an address then edits the pseudo-header's sum and a port
//! nothing; [`wire::rewrite`] knows. An ICMP error carries the beginning of another packet, which is translated as well:
//! its addresses and ports become what its sender wrote.

use kern::{Mbuf, PktFlags, Why};
use wire::{
    IpProto, checksum, ipv4,
    parse::{self, Parsed},
    rewrite::{End, set_ipv4, set_ipv6, set_port},
};

use crate::{
    addr::Family,
    rule::Direction,
    state::{key::Key, timestamps::Restamp},
};

/// An address and a port.
pub(crate) type Side = (u128, u16);

/// Source and destination of a packet with this key.
pub(crate) fn sides(key: &Key, direction: Direction) -> (Side, Side) {
    let side = |i: usize| (key.bits(i), key.port[i]);
    match direction {
        Direction::In => (side(0), side(1)),
        Direction::Out => (side(1), side(0)),
    }
}

/// Gives a packet the addresses and ports of a key of its own family.
pub(crate) fn translate(m: &mut Mbuf, direction: Direction, key: &Key) -> Result<(), Why> {
    let partial = m.hdr().flags.has(PktFlags::PARTIAL);
    let (src, dst) = sides(key, direction);
    let data = m.data_mut();
    let p = parse::parse_ip(data).map_err(|_| Why::PfShort)?;
    set_addresses(data, &p, partial, src.0, dst.0)?;
    set_ports(data, &p, partial, src.1, dst.1)?;
    // The flow is another one on the wire, and another queue may be its.
    m.hdr_mut().hash = 0;
    Ok(())
}

fn set_addresses(data: &mut [u8], p: &Parsed, partial: bool, src: u128, dst: u128) -> Result<(), Why> {
    let flow = p.flow(data);
    for (end, old, new) in [(End::Src, flow.src(), src), (End::Dst, flow.dst(), dst)] {
        if crate::addr::bits(old) == new {
            continue;
        }
        let set = match family(p).address(new) {
            std::net::IpAddr::V4(new) => set_ipv4(data, p, partial, end, new),
            std::net::IpAddr::V6(new) => set_ipv6(data, p, partial, end, new),
        };
        set.map_err(|_| Why::PfShort)?;
    }
    Ok(())
}

pub(super) fn set_ports(data: &mut [u8], p: &Parsed, partial: bool, src: u16, dst: u16) -> Result<(), Why> {
    if p.flags.contains(parse::Flags::PORTS) && p.proto.has_ports_or_id() {
        for (end, old, new) in [(End::Src, p.src_port, src), (End::Dst, p.dst_port, dst)] {
            // An ICMP identifier is both ports: it is written once.
            let is_id = end == End::Dst && matches!(p.proto, IpProto::ICMP | IpProto::ICMPV6);
            if old != new && !is_id {
                set_port(data, p, partial, end, new).map_err(|_| Why::PfShort)?;
            }
        }
    }
    Ok(())
}

fn family(p: &Parsed) -> Family {
    if p.is_v6() { Family::Inet6 } else { Family::Inet }
}

/// Protocols whose ports, or identifier, a translation may change.
trait Ports {
    fn has_ports_or_id(self) -> bool;
}

impl Ports for IpProto {
    fn has_ports_or_id(self) -> bool {
        matches!(self, IpProto::TCP | IpProto::UDP | IpProto::ICMP | IpProto::ICMPV6)
    }
}

/// Adds to the sequence number of a TCP segment, and takes off its acknowledgement and SACK blocks what was added for the
/// other end.
#[cold]
pub(crate) fn modulate(m: &mut Mbuf, l4: u16, header: u8, (add, take): (u32, u32)) -> Result<(), Why> {
    let partial = m.hdr().flags.has(PktFlags::PARTIAL);
    let l4 = usize::from(l4);
    let segment = m.data_mut().get_mut(l4..l4 + usize::from(header)).ok_or(Why::PfShort)?;
    let before = checksum::sum(segment);
    shift(segment, 4, add);
    if segment[13] & 0x10 != 0 {
        shift(segment, 8, take.wrapping_neg());
    }
    if take != 0 {
        shift_sacks(segment, take.wrapping_neg());
    }
    let after = checksum::sum(segment);
    if !partial {
        update(segment, 16, before, after);
    }
    Ok(())
}

/// Gives a TCP segment other timestamps and another time to live.
#[cold]
pub(crate) fn restamp(m: &mut Mbuf, l4: u16, header: u8, to: &Restamp) -> Result<(), Why> {
    let partial = m.hdr().flags.has(PktFlags::PARTIAL);
    let data = m.data_mut();
    if to.ttl != 0 {
        match data.first().map(|v| v >> 4) {
            Some(4) => ipv4::set_ttl(data.first_chunk_mut().ok_or(Why::PfShort)?, to.ttl),
            _ => *data.get_mut(7).ok_or(Why::PfShort)? = to.ttl,
        }
    }
    if to.at == 0 {
        return Ok(());
    }
    let l4 = usize::from(l4);
    let segment = data.get_mut(l4..l4 + usize::from(header)).ok_or(Why::PfShort)?;
    let before = checksum::sum(segment);
    let at = usize::from(to.at);
    segment.get_mut(at..at + 4).ok_or(Why::PfShort)?.copy_from_slice(&to.stamps.0.to_be_bytes());
    segment.get_mut(at + 4..at + 8).ok_or(Why::PfShort)?.copy_from_slice(&to.stamps.1.to_be_bytes());
    let after = checksum::sum(segment);
    if !partial {
        update(segment, 16, before, after);
    }
    Ok(())
}

fn shift(segment: &mut [u8], at: usize, by: u32) {
    if let Some(field) = segment.get_mut(at..).and_then(<[u8]>::first_chunk_mut::<4>) {
        *field = u32::from_be_bytes(*field).wrapping_add(by).to_be_bytes();
    }
}

/// SACK blocks say what has come of the other end's numbers (RFC 2018).
fn shift_sacks(segment: &mut [u8], by: u32) {
    const SACK: u8 = 5;
    let mut at = 20;
    while let Some(&kind) = segment.get(at) {
        let len = match kind {
            0 => return,
            1 => 1,
            _ => match segment.get(at + 1) {
                Some(&len) if len >= 2 => usize::from(len),
                _ => return,
            },
        };
        if kind == SACK {
            for edge in (at + 2..at + len).step_by(4).filter(|edge| edge + 4 <= at + len) {
                shift(segment, edge, by);
            }
        }
        at += len;
    }
}

/// Translates an ICMP error of this direction and the packet that it quotes; `key` is what the key of the quoted packet
/// becomes. The quoted packet went the other way.
///
/// If the source of the quoted packet changes, the error goes to that source; if its destination does, the error comes
/// from there (as pf has it: what is behind a translation does not show itself).
#[cold]
pub(crate) fn translate_error(
    m: &mut Mbuf,
    direction: Direction,
    l4: u16,
    key: &Key,
    shown: u32,
) -> Result<(), Why> {
    let (dst, src) = sides(key, direction);
    let partial = m.hdr().flags.has(PktFlags::PARTIAL);
    let (l4, at) = (usize::from(l4), usize::from(l4) + 8);
    let data = m.data_mut();
    let outer = parse::parse_ip(data).map_err(|_| Why::PfShort)?;
    let end = (outer.end as usize).min(data.len());
    let message = data.get_mut(..end).ok_or(Why::PfShort)?;
    let quoted = message.get_mut(at..).ok_or(Why::PfShort)?;
    let p = parse::parse_quoted(quoted).map_err(|_| Why::PfShort)?;
    let flow = p.flow(quoted);
    let (old_src, old_dst) = (crate::addr::bits(flow.src()), crate::addr::bits(flow.dst()));
    let before = checksum::sum(quoted);
    set_quoted(quoted, &p, src, dst)?;
    if shown != 0 && p.proto == IpProto::TCP {
        unshow(quoted, usize::from(p.l4), shown);
    }
    let after = checksum::sum(quoted);
    // The message's own checksum covers the quotation.
    let field = message.get_mut(l4 + 2..l4 + 4).and_then(<[u8]>::first_chunk_mut::<2>).ok_or(Why::PfShort)?;
    if !partial {
        *field = checksum::update_sum(u16::from_be_bytes(*field), before, after).to_be_bytes();
    }
    let flow = outer.flow(message);
    let from = if old_dst == dst.0 { crate::addr::bits(flow.src()) } else { dst.0 };
    let to = if old_src == src.0 { crate::addr::bits(flow.dst()) } else { src.0 };
    set_addresses(message, &outer, partial, from, to)?;
    m.hdr_mut().hash = 0;
    Ok(())
}

/// Gives a quoted TCP segment the sequence number that its sender gave it.
pub(super) fn unshow(quoted: &mut [u8], l4: usize, shown: u32) {
    let number =
        |q: &[u8]| q.get(l4 + 4..).and_then(<[u8]>::first_chunk::<4>).map(|b| u32::from_be_bytes(*b));
    let before = number(quoted).unwrap_or(0);
    shift(quoted, l4 + 4, shown.wrapping_neg());
    let after = number(quoted).unwrap_or(0);
    update(quoted, l4 + 16, checksum::sum32(before), checksum::sum32(after));
}

/// Changes a quotation, which may end anywhere behind its ports. Its own checksums follow as far as they are there.
fn set_quoted(quoted: &mut [u8], p: &Parsed, src: Side, dst: Side) -> Result<(), Why> {
    let (at, len) = if p.is_v6() { (8, 16) } else { (12, 4) };
    let octets = |address: u128| address.to_be_bytes();
    let l4 = usize::from(p.l4);
    let before = checksum::sum(quoted.get(at..at + 2 * len).ok_or(Why::PfShort)?);
    for (i, address) in [src.0, dst.0].into_iter().enumerate() {
        let place = quoted.get_mut(at + i * len..at + (i + 1) * len).ok_or(Why::PfShort)?;
        place.copy_from_slice(&octets(address)[16 - len..]);
    }
    let after = checksum::sum(&quoted[at..at + 2 * len]);
    if !p.is_v6() {
        update(quoted, 10, before, after);
    }
    let has_pseudo = p.proto != IpProto::ICMP;
    let mut ports = (0, 0);
    if p.flags.contains(parse::Flags::PORTS) && p.proto.has_ports_or_id() {
        let (offset, new) = match p.proto {
            IpProto::TCP | IpProto::UDP => (0, u32::from(src.1) << 16 | u32::from(dst.1)),
            // The identifier, and the sequence number behind it as it is.
            _ => (4, u32::from(src.1) << 16 | sequence(quoted, l4 + 6)),
        };
        let place =
            quoted.get_mut(l4 + offset..).and_then(<[u8]>::first_chunk_mut::<4>).ok_or(Why::PfShort)?;
        ports = (checksum::sum32(u32::from_be_bytes(*place)), checksum::sum32(new));
        *place = new.to_be_bytes();
    }
    let Some(field) = p.proto.checksum_offset().map(|offset| l4 + offset) else { return Ok(()) };
    if has_pseudo {
        update(quoted, field, before, after);
    }
    update(quoted, field, ports.0, ports.1);
    Ok(())
}

fn sequence(quoted: &[u8], at: usize) -> u32 {
    quoted.get(at..).and_then(<[u8]>::first_chunk::<2>).map_or(0, |b| u16::from_be_bytes(*b).into())
}

/// Follows a change in a checksum, if that is there and says anything.
fn update(packet: &mut [u8], at: usize, before: u32, after: u32) {
    if let Some(field) = packet.get_mut(at..).and_then(<[u8]>::first_chunk_mut::<2>)
        && *field != [0, 0]
    {
        *field = checksum::update_sum(u16::from_be_bytes(*field), before, after).to_be_bytes();
    }
}
