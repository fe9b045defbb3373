//! IPv4 to IPv6 and back: headers, ICMP messages and the packets they quote (RFC 7915), and addresses within addresses (RFC 6052).
//!
//! What is needed to know besides the packet is its new addresses; ports and states are not of this file. A packet is translated by putting another
//! [`Head`] in front of its upper layer, whose checksum follows by the difference of the pseudo-headers. An ICMP error carries a second packet and is
//! written anew. Not translated, as the RFC has it: options and extension headers (left out), source routes and routing headers with segments left
//! (refused), ICMP messages without a counterpart (refused).

mod address;
mod error;

pub use address::{PREFIX_LENGTHS, embed, extract};
pub use error::{Quoted, error};

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::{
    IpProto, Malformed, checksum, icmpv4, icmpv6, ipv4, ipv6, ipv6_ext,
    parse::{Flags, Parsed},
    view::{get, put},
};

/// An IPv4 packet no longer than this may be fragmented on its way (RFC 7915, 5.1).
const SMALL: usize = 1260;
/// What every IPv6 link carries.
pub const MIN_MTU6: u16 = 1280;
/// The difference of the headers.
pub const DIFFERENCE: u16 = (ipv6::HEADER_LEN - ipv4::HEADER_LEN) as u16;

/// The header that takes the place of a packet's own.
#[derive(Debug, Clone, Copy)]
pub struct Head {
    octets: [u8; ipv6::HEADER_LEN + ipv6_ext::FRAGMENT_LEN],
    len: u8,
    /// Octets of the packet that it takes the place of.
    pub replaces: u16,
    /// The protocol behind it.
    pub proto: IpProto,
}

impl Head {
    /// Its octets.
    pub fn octets(&self) -> &[u8] {
        &self.octets[..usize::from(self.len)]
    }
}

/// The protocol in the other family.
pub const fn other_proto(proto: IpProto) -> IpProto {
    match proto {
        IpProto::ICMP => IpProto::ICMPV6,
        IpProto::ICMPV6 => IpProto::ICMP,
        other => other,
    }
}

/// Octets of a packet's upper layer as its header says: of a quoted packet, more than are there.
fn upper_len(packet: &[u8], p: &Parsed) -> Result<usize, Malformed> {
    let fixed = packet.first_chunk::<{ ipv4::HEADER_LEN }>().ok_or(Malformed::Truncated)?;
    let announced = if p.is_v6() {
        ipv6::HEADER_LEN + usize::from(get::<u16>(fixed, 4))
    } else {
        usize::from(get::<u16>(fixed, 2))
    };
    announced.checked_sub(usize::from(p.l4)).ok_or(Malformed::Length)
}

/// The header for an IPv6 packet that becomes IPv4. `ident` is for packets that have none of their own and may be fragmented.
pub fn to_ipv4(
    packet: &[u8],
    p: &Parsed,
    src: Ipv4Addr,
    dst: Ipv4Addr,
    ident: u16,
) -> Result<Head, Malformed> {
    let fixed = packet.first_chunk::<{ ipv6::HEADER_LEN }>().ok_or(Malformed::Truncated)?;
    let fragment = if p.flags.contains(Flags::OPTIONS) || p.flags.contains(Flags::FRAGMENT_HEADER) {
        let chain = ipv6_ext::walk(packet, p.end as usize)?;
        if chain.routing.is_some_and(|(_, left)| left != 0) {
            return Err(Malformed::Unknown);
        }
        chain.fragment
    } else {
        None
    };
    let payload_len = upper_len(packet, p)?;
    let (ident, frag) = match fragment {
        Some(f) => (f.ident as u16, (f.offset / 8) | if f.more { ipv4::MF } else { 0 }),
        None if payload_len + ipv4::HEADER_LEN <= SMALL => (ident, 0),
        None => (0, ipv4::DF),
    };
    let proto = other_proto(p.proto);
    let header = ipv4::Repr {
        src,
        dst,
        proto,
        payload_len: u16::try_from(payload_len).map_err(|_| Malformed::Length)?,
        tos: (u16::from_be_bytes([fixed[0], fixed[1]]) >> 4) as u8,
        ident,
        frag,
        ttl: fixed[7],
    };
    let mut head = Head { octets: [0; 48], len: ipv4::HEADER_LEN as u8, replaces: p.l4, proto };
    header.emit(&mut head.octets)?;
    Ok(head)
}

/// The header for an IPv4 packet that becomes IPv6.
pub fn to_ipv6(packet: &[u8], p: &Parsed, src: Ipv6Addr, dst: Ipv6Addr) -> Result<Head, Malformed> {
    let fixed = packet.first_chunk::<{ ipv4::HEADER_LEN }>().ok_or(Malformed::Truncated)?;
    let payload_len = upper_len(packet, p)?;
    let proto = other_proto(p.proto);
    let fragment = p.is_fragment().then(|| ipv6_ext::Fragment {
        at: 0,
        announced_at: 6,
        next_header: proto,
        offset: p.frag_offset,
        more: p.flags.contains(Flags::MORE),
        ident: p.ident & 0xffff,
    });
    let extra = fragment.map_or(0, |_| ipv6_ext::FRAGMENT_LEN);
    let header = ipv6::Repr {
        src,
        dst,
        next_header: if fragment.is_some() { IpProto::FRAGMENT } else { proto },
        payload_len: u16::try_from(payload_len + extra).map_err(|_| Malformed::Length)?,
        traffic_class: fixed[1],
        flow_label: 0,
        hop_limit: fixed[8],
    };
    let mut head = Head { octets: [0; 48], len: (ipv6::HEADER_LEN + extra) as u8, replaces: p.l4, proto };
    header.emit(&mut head.octets)?;
    if let Some(fragment) = fragment {
        head.octets[ipv6::HEADER_LEN..].copy_from_slice(&fragment.octets());
    }
    Ok(head)
}

/// The header for a packet whose new addresses these are, both of the other family.
pub fn head(packet: &[u8], p: &Parsed, src: IpAddr, dst: IpAddr, ident: u16) -> Result<Head, Malformed> {
    match (src, dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) if p.is_v6() => to_ipv4(packet, p, src, dst, ident),
        (IpAddr::V6(src), IpAddr::V6(dst)) if !p.is_v6() => to_ipv6(packet, p, src, dst),
        _ => Err(Malformed::Version),
    }
}

fn sum_of(addr: IpAddr) -> u32 {
    match addr {
        IpAddr::V4(a) => checksum::sum_v4(a),
        IpAddr::V6(a) => checksum::sum_v6(a),
    }
}

/// The sum of a packet's addresses.
fn sum_addresses(packet: &[u8], v6: bool) -> u32 {
    let range = if v6 { 8..40 } else { 12..20 };
    packet.get(range).map_or(0, checksum::sum)
}

/// Makes the upper layer of a packet right for its new addresses: the checksum of TCP, UDP and ICMP queries, and the type of the latter. `packet` is
/// as it was; its upper layer changes in place. `partial`: the checksum is that of the pseudo-header.
pub fn upper_layer(
    packet: &mut [u8],
    p: &Parsed,
    src: IpAddr,
    dst: IpAddr,
    partial: bool,
) -> Result<(), Malformed> {
    if p.is_later_fragment() {
        return Ok(());
    }
    let old = sum_addresses(packet, p.is_v6());
    let new = sum_of(src) + sum_of(dst);
    let (l4, end) = (usize::from(p.l4), (p.end as usize).min(packet.len()));
    let len = upper_len(packet, p)?;
    let segment = packet.get_mut(l4..end).ok_or(Malformed::Truncated)?;
    let at = p.proto.checksum_offset();
    let at = at.filter(|at| segment.len() >= at + 2);
    match p.proto {
        IpProto::ICMP | IpProto::ICMPV6 => query(segment, p.is_v6(), len, old, new),
        IpProto::UDP if at.is_some() && !partial && get::<u16>(segment, 6) == 0 => {
            // Over IPv6 there must be one (RFC 7915, 4.5).
            if p.is_fragment() || p.is_v6() {
                return Err(Malformed::Checksum);
            }
            let pseudo = new + u32::from(p.proto.0) + checksum::sum32(segment.len() as u32);
            let sum = checksum::transport_sum(pseudo, segment);
            put(segment, 6, if sum == 0 { 0xffff } else { sum });
            Ok(())
        }
        _ => {
            let Some(at) = at else { return Ok(()) };
            let before: u16 = get(segment, at);
            let after = match p.proto {
                _ if partial => checksum::partial_sum(before, old, new),
                IpProto::UDP => checksum::update_udp(before, old, new),
                _ => checksum::update_sum(before, old, new),
            };
            put(segment, at, after);
            Ok(())
        }
    }
}

/// Echo becomes echo of the other family. ICMPv6 has a pseudo-header, ICMP has not.
fn query(segment: &mut [u8], v6: bool, len: usize, old: u32, new: u32) -> Result<(), Malformed> {
    let kinds = [
        (icmpv4::kind::ECHO_REQUEST, icmpv6::kind::ECHO_REQUEST),
        (icmpv4::kind::ECHO_REPLY, icmpv6::kind::ECHO_REPLY),
    ];
    if segment.len() < icmpv4::HEADER_LEN {
        return Err(Malformed::Truncated);
    }
    let find = |&&(four, six): &&(u8, u8)| segment[0] == if v6 { six } else { four };
    let &(four, six) = kinds.iter().find(find).ok_or(Malformed::Unknown)?;
    let pseudo = |addresses: u32| addresses + u32::from(IpProto::ICMPV6.0) + checksum::sum32(len as u32);
    let kind = |kind: u8| u32::from(kind) << 8;
    let (before, after, to) = if v6 {
        (pseudo(old) + kind(six), kind(four), four)
    } else {
        (kind(four), pseudo(new) + kind(six), six)
    };
    segment[0] = to;
    put(segment, 2, checksum::update_sum(get(segment, 2), before, after));
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{build, parse, tcp, udp};

    const A: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
    const B: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
    const A6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
    const B6: Ipv6Addr = Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0xc633, 0x6402);

    /// The packet with other addresses, as its owner would put it together.
    fn translated(packet: &[u8], src: IpAddr, dst: IpAddr) -> Result<Vec<u8>, Malformed> {
        let p = parse::parse_ip(packet)?;
        let mut packet = packet.to_vec();
        upper_layer(&mut packet, &p, src, dst, false)?;
        let head = head(&packet, &p, src, dst, 0x1234)?;
        Ok([head.octets(), &packet[usize::from(head.replaces)..]].concat())
    }

    fn to_four(packet: &[u8]) -> Result<Vec<u8>, Malformed> {
        translated(packet, A.into(), B.into())
    }

    fn to_six(packet: &[u8]) -> Result<Vec<u8>, Malformed> {
        translated(packet, A6.into(), B6.into())
    }

    /// Demands that the packet is sound, by another's parser too.
    fn sound(packet: &[u8]) -> Parsed {
        let p = parse::parse_ip(packet).unwrap();
        assert!(checksum::transport_ok(packet, p.l4.into(), p.end as usize, p.proto), "{packet:02x?}");
        let other = etherparse::SlicedPacket::from_ip(packet).unwrap();
        assert_eq!(other.transport.is_some(), matches!(p.proto.0, 1 | 6 | 17 | 58));
        p
    }

    proptest! {
        #[test]
        fn there_and_back_is_the_same_packet(
            kind in 0..3,
            payload in proptest::collection::vec(any::<u8>(), 0..1500),
            ports in any::<(u16, u16)>(),
            (tos, ttl) in (any::<u8>(), 2..255_u8),
        ) {
            let ip = ipv4::Repr { src: A, dst: B, tos, ttl, proto: IpProto::UDP, ident: 0x1234, ..ipv4::Repr::default() };
            let packet = match kind {
                0 => build::udp4_with(ip, &udp::Repr { src_port: ports.0, dst_port: ports.1 }, &payload),
                1 => {
                    let tcp = tcp::Repr { src_port: ports.0, dst_port: ports.1, ..tcp::Repr::default() };
                    build::tcp4_with(ipv4::Repr { proto: IpProto::TCP, ..ip }, &tcp, &payload)
                }
                _ => build::echo4(A, B, ports.0, ports.1, &payload),
            };
            let six = to_six(&packet).unwrap();
            let p = sound(&six);
            prop_assert!(p.is_v6());
            let four = to_four(&six).unwrap();
            prop_assert!(!sound(&four).is_v6());
            prop_assert_eq!(&four[20..], &packet[20..]);
            prop_assert_eq!((four[1], four[8]), (packet[1], packet[8]));
        }

        #[test]
        fn nothing_that_comes_makes_it_fall(octets in proptest::collection::vec(any::<u8>(), 0..200), four in any::<bool>()) {
            let mut octets = octets;
            if let Some(first) = octets.first_mut() {
                *first = if four { 0x45 } else { 0x60 };
            }
            let (own, far) = if four { ((A6.into(), 1), (B6.into(), 2)) } else { ((A.into(), 1), (B.into(), 2)) };
            let _ = translated(&octets, own.0, far.0);
            let mut out = [0; icmpv6::MAX_ERROR_LEN];
            let _ = error(&octets, own.0, far.0, &Quoted { src: own, dst: far }, &mut out);
        }
    }

    #[test]
    fn fragments_keep_place_and_identification() {
        let ip = ipv4::Repr { src: A, dst: B, proto: IpProto::UDP, ident: 0xbeef, ..ipv4::Repr::default() };
        let first = build::raw4(
            ipv4::Repr { frag: ipv4::MF, ..ip },
            &[1, 2, 3, 4, 0, 24, 9, 9, 0, 0, 0, 0, 0, 0, 0, 0],
        );
        let later = build::raw4(ipv4::Repr { frag: 2, ..ip }, &[5; 8]);
        for (packet, offset, more) in [(first, 0, true), (later, 16, false)] {
            let six = to_six(&packet).unwrap();
            let p = parse::parse_ipv6(&six).unwrap();
            assert_eq!((p.frag_offset, p.flags.contains(Flags::MORE), p.ident), (offset, more, 0xbeef));
            let four = parse::parse_ipv4(&to_four(&six).unwrap()).unwrap();
            assert_eq!(
                (four.frag_offset, four.flags.contains(Flags::MORE), four.ident),
                (offset, more, 0xbeef)
            );
        }
    }

    #[test]
    fn large_packets_must_not_be_fragmented_and_small_ones_may() {
        for (len, df) in [(1232, false), (1233, true)] {
            let four = to_four(&build::udp6(A6, B6, 1, 2, &vec![0; len])).unwrap();
            assert_eq!(parse::parse_ipv4(&four).unwrap().flags.contains(Flags::DF), df, "{len}");
        }
    }
}
