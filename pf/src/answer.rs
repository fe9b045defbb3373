//! The reset that answers a blocked TCP segment (RFC 9293, 3.5.2, as pf builds it).

use core::net::{Ipv4Addr, Ipv6Addr};

use kern::{Mbuf, Why};
use wire::{IpProto, build, ipv4, ipv6, tcp};

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
    write(p.family, p.dst, p.src, &segment(&p, reset), ttl, reply)
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
    write(s.family, s.src.0, s.dst.0, &header, ttl, reply)
}

fn write(
    family: Family,
    src: u128,
    dst: u128,
    header: &tcp::Repr,
    ttl: u8,
    reply: &mut Mbuf,
) -> Result<(), Why> {
    let hdr = reply.hdr_mut();
    (hdr.family, hdr.proto) = (family as u8, IpProto::TCP.0);
    let len = header.header_len();
    let written = match family {
        Family::Inet => {
            let ip = ipv4::Repr {
                src: Ipv4Addr::from_bits(src as u32),
                dst: Ipv4Addr::from_bits(dst as u32),
                proto: IpProto::TCP,
                ttl,
                frag: ipv4::DF,
                payload_len: len as u16,
                ..ipv4::Repr::default()
            };
            let area = reply.append(ipv4::HEADER_LEN + len)?;
            build::ipv4_packet(area, &ip, |area, pseudo| header.emit(area, pseudo))
        }
        Family::Inet6 => {
            let ip = ipv6::Repr {
                src: Ipv6Addr::from_bits(src),
                dst: Ipv6Addr::from_bits(dst),
                next_header: IpProto::TCP,
                hop_limit: ttl,
                payload_len: len as u16,
                ..ipv6::Repr::default()
            };
            let area = reply.append(ipv6::HEADER_LEN + len)?;
            build::ipv6_packet(area, &ip, |area, pseudo| header.emit(area, pseudo))
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
