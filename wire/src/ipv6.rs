//! The fixed IPv6 header (RFC 8200) and the addresses every node knows. Extension headers are in [`crate::ipv6_ext`]; jumbograms (RFC 2675)
//! are not spoken.
//!
//! ```text
//! | version | traffic class |             flow label              |  0
//! |       payload length    |    next header   |    hop limit     |  4
//! |                      source, 16 octets                        |  8
//! |                   destination, 16 octets                      | 24
//! ```

use core::net::Ipv6Addr;

use crate::{
    IpProto, Malformed, checksum,
    view::{get, put},
};

/// Octets of the fixed header.
pub const HEADER_LEN: usize = 40;
/// The least MTU a link may have.
pub const MIN_MTU: usize = 1280;

/// All nodes on the link, ff02::1.
pub const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
/// All routers on the link, ff02::2.
pub const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
/// All MLDv2 routers, ff02::16.
pub const ALL_MLD_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x16);

/// The solicited-node group of an address: ff02::1:ff and its last three octets (RFC 4291, 2.7.1).
pub const fn solicited_node(addr: Ipv6Addr) -> Ipv6Addr {
    Ipv6Addr::from_bits(0xff02_0000_0000_0000_0000_0001_ff00_0000 | (addr.to_bits() & 0x00ff_ffff))
}

/// Whether the address is any solicited-node group.
pub const fn is_solicited_node(addr: Ipv6Addr) -> bool {
    addr.to_bits() >> 24 == 0xff02_0000_0000_0000_0000_0001_ff00_0000 >> 24
}

/// Whether the address is link-local unicast, fe80::/10.
#[inline(always)]
pub const fn is_link_local(addr: Ipv6Addr) -> bool {
    addr.octets()[0] == 0xfe && addr.octets()[1] & 0xc0 == 0x80
}

/// Scope of a group address, 1 (interface) to 14 (global); `None` for unicast.
#[inline]
pub const fn multicast_scope(addr: Ipv6Addr) -> Option<u8> {
    match addr.octets() {
        [0xff, flags_scope, ..] => Some(flags_scope & 0x0f),
        _ => None,
    }
}

/// Whether a packet to (or from) the address stays on its link: link-local unicast, or a group of interface or link scope.
#[inline]
pub const fn is_link_scope(addr: Ipv6Addr) -> bool {
    is_link_local(addr) || matches!(multicast_scope(addr), Some(0..=2))
}

view! {
    /// An IPv6 packet. Octets after the payload length (Ethernet padding) belong to nobody.
    Packet
}

fields! { Packet:
    /// Version, traffic class and flow label, as one word.
    u32, first_word, set_first_word @ 0;
    /// Octets after the fixed header.
    u16, payload_len, set_payload_len @ 4;
    /// What follows the fixed header.
    IpProto, next_header, set_next_header @ 6;
    /// Hop limit.
    u8, hop_limit, set_hop_limit @ 7;
    /// Source address.
    Ipv6Addr, src, set_src @ 8;
    /// Destination address.
    Ipv6Addr, dst, set_dst @ 24;
}

impl<T: AsRef<[u8]>> Packet<T> {
    /// Whether header and payload are there.
    pub fn check_len(&self) -> Result<(), Malformed> {
        let octets = self.octets();
        if octets.len() < HEADER_LEN {
            return Err(Malformed::Truncated);
        }
        if octets[0] >> 4 != 6 {
            return Err(Malformed::Version);
        }
        if self.total_len() > octets.len() {
            return Err(Malformed::Length);
        }
        Ok(())
    }

    /// Octets of header and payload.
    pub fn total_len(&self) -> usize {
        HEADER_LEN + usize::from(self.payload_len())
    }

    /// Traffic class: DSCP and ECN.
    pub fn traffic_class(&self) -> u8 {
        (self.first_word() >> 20) as u8
    }

    /// Flow label, 20 bits.
    pub fn flow_label(&self) -> u32 {
        self.first_word() & 0x000f_ffff
    }
}

impl<'a> Packet<&'a [u8]> {
    /// What follows the fixed header, up to the payload length.
    pub fn payload(&self) -> &'a [u8] {
        &self.buffer[HEADER_LEN..self.total_len()]
    }
}

impl<T: AsRef<[u8]> + AsMut<[u8]>> Packet<T> {
    /// What follows the fixed header, to change.
    pub fn payload_mut(&mut self) -> &mut [u8] {
        let end = self.total_len();
        &mut self.octets_mut()[HEADER_LEN..end]
    }

    /// Sets the traffic class.
    pub fn set_traffic_class(&mut self, class: u8) {
        self.set_first_word(self.first_word() & 0xf00f_ffff | u32::from(class) << 20);
    }

    /// Sets the flow label, of which the low 20 bits count.
    pub fn set_flow_label(&mut self, label: u32) {
        self.set_first_word(self.first_word() & 0xfff0_0000 | label & 0x000f_ffff);
    }
}

/// A legal IPv6 header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Repr {
    /// Source address.
    pub src: Ipv6Addr,
    /// Destination address.
    pub dst: Ipv6Addr,
    /// What follows the fixed header.
    pub next_header: IpProto,
    /// Octets after the fixed header.
    pub payload_len: u16,
    /// Traffic class.
    pub traffic_class: u8,
    /// Flow label, 20 bits.
    pub flow_label: u32,
    /// Hop limit.
    pub hop_limit: u8,
}

impl Default for Repr {
    fn default() -> Self {
        Self {
            src: Ipv6Addr::UNSPECIFIED,
            dst: Ipv6Addr::UNSPECIFIED,
            next_header: IpProto::NO_NEXT,
            payload_len: 0,
            traffic_class: 0,
            flow_label: 0,
            hop_limit: 64,
        }
    }
}

impl Repr {
    /// Reads a header whose lengths are right.
    pub fn parse<T: AsRef<[u8]>>(packet: &Packet<T>) -> Result<Self, Malformed> {
        packet.check_len()?;
        Ok(Self {
            src: packet.src(),
            dst: packet.dst(),
            next_header: packet.next_header(),
            payload_len: packet.payload_len(),
            traffic_class: packet.traffic_class(),
            flow_label: packet.flow_label(),
            hop_limit: packet.hop_limit(),
        })
    }

    /// Octets that [`Self::emit`] writes.
    pub const fn buffer_len(&self) -> usize {
        HEADER_LEN
    }

    /// Writes the header to the front of `out`.
    pub fn emit(&self, out: &mut [u8]) -> Result<usize, Malformed> {
        let mut packet = Packet::new_unchecked(out.get_mut(..HEADER_LEN).ok_or(Malformed::Truncated)?);
        packet.set_first_word(6 << 28 | u32::from(self.traffic_class) << 20 | self.flow_label & 0x000f_ffff);
        packet.set_payload_len(self.payload_len);
        packet.set_next_header(self.next_header);
        packet.set_hop_limit(self.hop_limit);
        packet.set_src(self.src);
        packet.set_dst(self.dst);
        Ok(HEADER_LEN)
    }

    /// The sum of the pseudo-header, when the upper layer `next_header` follows at once.
    pub const fn pseudo(&self) -> u32 {
        checksum::pseudo_v6(self.src, self.dst, self.next_header, self.payload_len as u32)
    }
}

/// Takes one hop off the hop limit. Returns what is left; `None`, and nothing is changed, when the packet may not go on (RFC 8200, 3: it had one hop
/// or none) or is no header.
#[inline(always)]
pub fn decrement_hop_limit(packet: &mut [u8]) -> Option<u8> {
    let header: &mut [u8; HEADER_LEN] = packet.first_chunk_mut()?;
    if header[7] <= 1 {
        return None;
    }
    header[7] -= 1;
    Some(header[7])
}

/// Changes the traffic class of a packet whose fixed header is there.
#[inline]
pub fn set_traffic_class(packet: &mut [u8; HEADER_LEN], class: u8) {
    let word: u32 = get(packet, 0);
    put(packet, 0, word & 0xf00f_ffff | u32::from(class) << 20);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_solicited_node_group_is_that_of_rfc_4291() {
        let group = solicited_node("4037::1:800:200e:8c6c".parse().unwrap());
        assert_eq!(group.to_string(), "ff02::1:ff0e:8c6c");
        assert!(is_solicited_node(group));
        assert!(!is_solicited_node(ALL_NODES));
    }

    #[test]
    fn scopes_are_read_from_addresses() {
        for (addr, stays) in [
            ("fe80::1", true),
            ("febf::1", true),
            ("fec0::1", false),
            ("ff02::1", true),
            ("ff05::2", false),
            ("2001:db8::1", false),
        ] {
            assert_eq!(is_link_scope(addr.parse().unwrap()), stays, "{addr}");
        }
    }

    #[test]
    fn a_packet_of_one_hop_is_not_touched() {
        let mut packet = [0; 40];
        Repr { hop_limit: 2, ..Repr::default() }.emit(&mut packet).unwrap();
        assert_eq!(decrement_hop_limit(&mut packet), Some(1));
        assert_eq!(decrement_hop_limit(&mut packet), None);
        assert_eq!(packet[7], 1);
    }

    #[test]
    fn class_and_label_do_not_disturb_each_other() {
        let mut out = [0; 40];
        let repr = Repr { traffic_class: 0xb8, flow_label: 0xabcde, ..Repr::default() };
        repr.emit(&mut out).unwrap();
        assert_eq!(Repr::parse(&Packet::new_unchecked(&out)), Ok(repr));
        set_traffic_class(&mut out, 0x03);
        let packet = Packet::new_checked(&out[..]).unwrap();
        assert_eq!((packet.traffic_class(), packet.flow_label()), (0x03, 0xabcde));
    }
}
