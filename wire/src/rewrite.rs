//! Changing addresses and ports in place, checksums kept right: what NAT does to a packet.
//!
//! An address is part of the IPv4 header checksum and of the pseudo-header of TCP, UDP and ICMPv6. The transport checksum may be whole, *partial* (a
//! super-frame or an offloaded packet: the field holds the sum of the pseudo-header, and the device adds the rest), or not in this packet at all (a fragment
//! but the first). With a partial checksum an address change edits the sum and a port change nothing.

use core::net::{Ipv4Addr, Ipv6Addr};

use crate::{
    IpProto, Malformed, checksum, ipv4, ipv6,
    parse::{Flags, Parsed},
    view::{get, put},
};

/// Which end of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Where it comes from.
    Src,
    /// Where it goes.
    Dst,
}

/// The transport checksum of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// There is none in this packet, or none that addresses and ports enter.
    Absent,
    /// Where the field stands, from the start of the packet.
    Whole(usize),
    /// As [`Self::Whole`], of UDP: zero says "none".
    WholeUdp(usize),
    /// The field holds the sum of the pseudo-header.
    Partial(usize),
}

impl Transport {
    /// Where the checksum of the packet that `parsed` describes stands. `partial`: its header says that a device still has to finish it.
    #[inline]
    pub const fn of(parsed: &Parsed, partial: bool) -> Self {
        let Some(offset) = parsed.proto.checksum_offset() else {
            return Self::Absent;
        };
        if parsed.is_later_fragment() || parsed.l4_len() < offset + 2 {
            return Self::Absent;
        }
        let at = parsed.l4 as usize + offset;
        match parsed.proto {
            _ if partial => Self::Partial(at),
            IpProto::UDP => Self::WholeUdp(at),
            _ => Self::Whole(at),
        }
    }

    /// Follows a change of octets that are in the pseudo-header, or only in the transport header, which a partial sum does not cover.
    #[inline]
    fn update(self, packet: &mut [u8], old: u32, new: u32, in_pseudo: bool) {
        let (at, updated) = match self {
            Self::Whole(at) => (at, checksum::update_sum(get(packet, at), old, new)),
            Self::WholeUdp(at) => (at, checksum::update_udp(get(packet, at), old, new)),
            Self::Partial(at) if in_pseudo => (at, checksum::partial_sum(get(packet, at), old, new)),
            Self::Absent | Self::Partial(_) => return,
        };
        put(packet, at, updated);
    }
}

/// Replaces an address of the IPv4 packet that `parsed` describes.
#[inline]
pub fn set_ipv4(
    packet: &mut [u8],
    parsed: &Parsed,
    partial: bool,
    end: End,
    new: Ipv4Addr,
) -> Result<(), Malformed> {
    if packet.len() < parsed.end as usize || packet.len() < ipv4::HEADER_LEN || parsed.is_v6() {
        return Err(Malformed::Truncated);
    }
    let at = if end == End::Src { 12 } else { 16 };
    let old: Ipv4Addr = get(packet, at);
    put(packet, at, new);
    let (old, new) = (checksum::sum_v4(old), checksum::sum_v4(new));
    put(packet, 10, checksum::update_sum(get(packet, 10), old, new));
    // ICMP has no pseudo-header over IPv4.
    if parsed.proto != IpProto::ICMP {
        Transport::of(parsed, partial).update(packet, old, new, true);
    }
    Ok(())
}

/// Replaces an address of the IPv6 packet that `parsed` describes.
#[inline]
pub fn set_ipv6(
    packet: &mut [u8],
    parsed: &Parsed,
    partial: bool,
    end: End,
    new: Ipv6Addr,
) -> Result<(), Malformed> {
    if packet.len() < parsed.end as usize || packet.len() < ipv6::HEADER_LEN || !parsed.is_v6() {
        return Err(Malformed::Truncated);
    }
    let at = if end == End::Src { 8 } else { 24 };
    let old: Ipv6Addr = get(packet, at);
    put(packet, at, new);
    Transport::of(parsed, partial).update(packet, checksum::sum_v6(old), checksum::sum_v6(new), true);
    Ok(())
}

/// Replaces a port, or the identifier of an ICMP query (then `end` does not matter). Refuses packets that have none: later fragments, other protocols.
#[inline]
pub fn set_port(
    packet: &mut [u8],
    parsed: &Parsed,
    partial: bool,
    end: End,
    new: u16,
) -> Result<(), Malformed> {
    let l4 = usize::from(parsed.l4);
    let at = match parsed.proto {
        _ if !parsed.flags.contains(Flags::PORTS) || packet.len() < parsed.end as usize => {
            return Err(Malformed::Truncated);
        }
        IpProto::TCP | IpProto::UDP if end == End::Src => l4,
        IpProto::TCP | IpProto::UDP => l4 + 2,
        IpProto::ICMP | IpProto::ICMPV6 => l4 + 4,
        _ => return Err(Malformed::Unknown),
    };
    let old: u16 = get(packet, at);
    put(packet, at, new);
    Transport::of(parsed, partial).update(packet, u32::from(old), u32::from(new), false);
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{build, parse::parse_ip};

    /// Every packet that can be rewritten, of both families.
    fn packets(payload: &[u8]) -> Vec<Vec<u8>> {
        let (a, b) = (Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2));
        let (c, d) = (Ipv6Addr::from_bits(1), Ipv6Addr::from_bits(2));
        let tcp = crate::tcp::Repr { src_port: 5, dst_port: 6, ..Default::default() };
        vec![
            build::udp4(a, b, 1, 2, payload),
            build::tcp4(a, b, &tcp, payload),
            build::echo4(a, b, 9, 1, payload),
            build::udp6(c, d, 1, 2, payload),
            build::tcp6(c, d, &tcp, payload),
            build::echo6(c, d, 9, 1, payload),
        ]
    }

    fn rewrite(packet: &mut [u8], parsed: &Parsed, partial: bool, addr: u128, port: u16, end: End) {
        if parsed.is_v6() {
            set_ipv6(packet, parsed, partial, end, Ipv6Addr::from_bits(addr)).unwrap();
        } else {
            set_ipv4(packet, parsed, partial, end, Ipv4Addr::from_bits(addr as u32)).unwrap();
        }
        set_port(packet, parsed, partial, end, port).unwrap();
    }

    proptest! {
        #[test]
        fn a_rewritten_packet_verifies(payload in proptest::collection::vec(any::<u8>(), 0..99), addr: u128, port: u16, src: bool) {
            let end = if src { End::Src } else { End::Dst };
            for mut packet in packets(&payload) {
                let parsed = parse_ip(&packet).unwrap();
                rewrite(&mut packet, &parsed, false, addr, port, end);
                let again = parse_ip(&packet).unwrap();
                prop_assert!(checksum::transport_ok(&packet, usize::from(again.l4), again.end as usize, again.proto));
                prop_assert_eq!(if src { again.src_port } else { again.dst_port }, port);
            }
        }

        #[test]
        fn a_rewritten_packet_with_a_partial_checksum_verifies_once_finished(
            payload in proptest::collection::vec(any::<u8>(), 0..99), addr: u128, port: u16,
        ) {
            for mut packet in packets(&payload) {
                let parsed = parse_ip(&packet).unwrap();
                let (l4, end) = (usize::from(parsed.l4), parsed.end as usize);
                checksum::transport_fill_partial(&mut packet, l4, end, parsed.proto).unwrap();
                rewrite(&mut packet, &parsed, true, addr, port, End::Dst);
                checksum::finish_partial(&mut packet, l4, parsed.proto.checksum_offset().unwrap()).unwrap();
                prop_assert!(checksum::transport_ok(&packet, l4, end, parsed.proto));
                prop_assert!(parse_ip(&packet).is_ok());
            }
        }
    }

    #[test]
    fn a_udp_datagram_without_checksum_stays_without() {
        let mut packet = build::udp4([10, 0, 0, 1].into(), [10, 0, 0, 2].into(), 1, 2, b"x");
        packet[26..28].fill(0);
        let parsed = parse_ip(&packet).unwrap();
        rewrite(&mut packet, &parsed, false, 0x0a00_0009, 77, End::Src);
        assert_eq!(packet[26..28], [0, 0]);
    }

    #[test]
    fn a_later_fragment_has_no_port_to_rewrite() {
        let mut packet = build::udp4([10, 0, 0, 1].into(), [10, 0, 0, 2].into(), 1, 2, &[0; 32]);
        ipv4::set_word(packet.first_chunk_mut().unwrap(), 6, 1);
        let parsed = parse_ip(&packet).unwrap();
        assert_eq!(set_port(&mut packet, &parsed, false, End::Src, 9), Err(Malformed::Truncated));
        set_ipv4(&mut packet, &parsed, false, End::Src, [10, 9, 9, 9].into()).unwrap();
        assert!(parse_ip(&packet).is_ok());
        assert_eq!(
            packet[20..28],
            build::udp4([10, 0, 0, 1].into(), [10, 0, 0, 2].into(), 1, 2, &[0; 32])[20..28]
        );
    }
}
