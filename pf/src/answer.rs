//! The reset that answers a blocked TCP segment (RFC 9293, 3.5.2, as pf builds it), and the ABORT that answers a blocked SCTP
//! packet (RFC 9260, 8.4).

use core::net::{Ipv4Addr, Ipv6Addr};

use kern::{Mbuf, Why};
use wire::{IpProto, Malformed, build, ipv4, ipv6, sctp, tcp};

use crate::{addr::Family, packet::Packet, state::proxy::Segment, verdict::Reset};

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const ACK: u8 = 0x10;

/// Writes the reset that answers `packet`, whose data begin at the IP header, to the end of the empty `reply`.
///
/// `ttl` is used if the rule has none. The caller sends it where the packet came from, with `PktFlags::NO_PF`.
pub fn reset(packet: &Mbuf, reset: Reset, ttl: u8, reply: &mut Mbuf) -> Result<(), Why> {
    let p = Packet::read(packet)?;
    if IpProto(p.proto) != IpProto::TCP || p.fragment {
        return Err(Why::PfShort);
    }
    let ttl = if reset.ttl == 0 { ttl } else { reset.ttl };
    write_tcp(p.family, p.dst, p.src, &segment(&p, reset), ttl, reply)
}

/// Writes the ABORT that answers `packet`, whose data begin at the IP header, to the end of the empty `reply`.
///
/// The caller sends it where the packet came from, with `PktFlags::NO_PF`.
pub fn abort(packet: &Mbuf, ttl: u8, reply: &mut Mbuf) -> Result<(), Why> {
    let p = Packet::read(packet)?;
    let (tag, flags) = is_to_abort(&p, packet.data()).ok_or(Why::PfShort)?;
    let header = sctp::Repr { src_port: p.dport, dst_port: p.sport, tag };
    let chunk = [sctp::kind::ABORT, flags, 0, sctp::CHUNK_HEADER_LEN as u8];
    let len = sctp::HEADER_LEN + chunk.len();
    write(p.family, IpProto::SCTP, (p.dst, p.src), ttl, len, reply, |area, _| {
        area[sctp::HEADER_LEN..].copy_from_slice(&chunk);
        header.emit(area)
    })
}

/// The tag and the chunk flags of the ABORT that answers an SCTP packet (RFC 9260, 8.4): what an INIT says it draws, else what the
/// packet carries. None if it must not be answered, or none would listen.
pub(crate) fn is_to_abort(p: &Packet, data: &[u8]) -> Option<(u32, u8)> {
    use sctp::kind::{ABORT, COOKIE_ACK, ERROR, INIT, SHUTDOWN_COMPLETE};
    if IpProto(p.proto) != IpProto::SCTP || p.fragment {
        return None;
    }
    let scan = sctp::scan(data.get(usize::from(p.l4)..p.bytes as usize)?).ok()?;
    if [ABORT, SHUTDOWN_COMPLETE, COOKIE_ACK, ERROR].iter().any(|kind| scan.kinds.has(*kind)) {
        return None;
    }
    Some(if scan.kinds.has(INIT) { (scan.initiate_tag, 0) } else { (scan.tag, sctp::REFLECTED) })
}

/// Writes a segment that pf itself sends to the end of the empty `reply`.
///
/// The caller sends it by its destination, with `PktFlags::NO_PF` unless it is to be filtered.
pub fn emit(s: &Segment, ttl: u8, reply: &mut Mbuf) -> Result<(), Why> {
    let header = tcp::Repr {
        src_port: s.src.1,
        dst_port: s.dst.1,
        seq: s.seq,
        ack: s.ack,
        flags: tcp::Flags(s.flags),
        window: s.window,
        max_segment_size: (s.mss != 0).then_some(s.mss),
        ..tcp::Repr::default()
    };
    write_tcp(s.family, s.src.0, s.dst.0, &header, ttl, reply)
}

fn write_tcp(
    family: Family,
    src: u128,
    dst: u128,
    header: &tcp::Repr,
    ttl: u8,
    reply: &mut Mbuf,
) -> Result<(), Why> {
    let len = header.header_len();
    write(family, IpProto::TCP, (src, dst), ttl, len, reply, |area, pseudo| header.emit(area, pseudo))
}

/// Writes an IP header and lets `body` write the `len` octets behind it, which gets the sum of the pseudo-header.
fn write(
    family: Family,
    proto: IpProto,
    (src, dst): (u128, u128),
    ttl: u8,
    len: usize,
    reply: &mut Mbuf,
    body: impl FnOnce(&mut [u8], u32) -> Result<usize, Malformed>,
) -> Result<(), Why> {
    let hdr = reply.hdr_mut();
    (hdr.family, hdr.proto) = (family as u8, proto.0);
    let written = match family {
        Family::Inet => {
            let ip = ipv4::Repr {
                src: Ipv4Addr::from_bits(src as u32),
                dst: Ipv4Addr::from_bits(dst as u32),
                proto,
                ttl,
                frag: ipv4::DF,
                payload_len: len as u16,
                ..ipv4::Repr::default()
            };
            build::ipv4_packet(reply.append(ipv4::HEADER_LEN + len)?, &ip, body)
        }
        Family::Inet6 => {
            let ip = ipv6::Repr {
                src: Ipv6Addr::from_bits(src),
                dst: Ipv6Addr::from_bits(dst),
                next_header: proto,
                hop_limit: ttl,
                payload_len: len as u16,
                ..ipv6::Repr::default()
            };
            build::ipv6_packet(reply.append(ipv6::HEADER_LEN + len)?, &ip, body)
        }
    };
    written.map(|_| ()).map_err(|_| Why::PfShort)
}

/// The TCP header: `<SEQ=SEG.ACK>` (0 if there was none), and if it acknowledges, all that the segment occupied.
fn segment(p: &Packet, reset: Reset) -> tcp::Repr {
    let occupied = p.payload + u32::from(p.tcp.flags & SYN != 0) + u32::from(p.tcp.flags & FIN != 0);
    let (ack, flags) = if reset.acknowledge {
        (p.tcp.seq.wrapping_add(occupied), tcp::Flags(tcp::Flags::RST.0 | tcp::Flags::ACK.0))
    } else {
        (0, tcp::Flags::RST)
    };
    let seq = if p.tcp.flags & ACK != 0 { p.tcp.ack } else { 0 };
    tcp::Repr { src_port: p.dport, dst_port: p.sport, seq, ack, flags, ..tcp::Repr::default() }
}
