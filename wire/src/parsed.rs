//! The answer of the one-pass parse: twenty octets of offsets, ports and facts, and the flow key and hash they yield together with the packet.

use core::net::{Ipv4Addr, Ipv6Addr};

use crate::{
    IpProto,
    flow::{FlowKey, FlowKey4, FlowKey6, HashSeed},
};

/// Facts about a packet, one bit each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Flags(pub(crate) u16);

impl Flags {
    /// IPv6 (otherwise IPv4).
    pub const V6: Self = Self(1 << 0);
    /// A part of a datagram: more fragments follow, or the offset is not zero.
    pub const FRAGMENT: Self = Self(1 << 1);
    /// More fragments follow.
    pub const MORE: Self = Self(1 << 2);
    /// IPv6: a fragment header is there, be it of a whole ("atomic") datagram.
    pub const FRAGMENT_HEADER: Self = Self(1 << 3);
    /// IPv4: "don't fragment".
    pub const DF: Self = Self(1 << 4);
    /// IPv4 options, or IPv6 hop-by-hop, routing or destination headers (the `allow-opts` of pf).
    pub const OPTIONS: Self = Self(1 << 5);
    /// IPv6: a hop-by-hop options header.
    pub const HOP_BY_HOP: Self = Self(1 << 6);
    /// IPv6: a routing header.
    pub const ROUTING: Self = Self(1 << 7);
    /// IPv6: a routing header of type 0, which RFC 5095 forbids.
    pub const ROUTING_0: Self = Self(1 << 8);
    /// The ports (or ICMP identifier, or SPI) were there and are in the key.
    pub const PORTS: Self = Self(1 << 9);
    /// The upper layer is shorter than its header.
    pub const SHORT: Self = Self(1 << 10);

    /// Whether all of `other` hold.
    #[inline(always)]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    #[inline(always)]
    pub(crate) const fn with(self, other: Self, when: bool) -> Self {
        if when { Self(self.0 | other.0) } else { self }
    }
}

/// What one pass found out about an IP packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parsed {
    /// Octets of the packet: what the frame has beyond is padding.
    pub end: u32,
    /// Identification: of every IPv4 packet, and of IPv6 packets with a fragment header.
    pub ident: u32,
    /// Where the upper layer stands, or the data of a fragment that is not the first.
    pub l4: u16,
    /// Source port; ICMP: the identifier; ESP and AH: the high half of the SPI; zero when there is none or it cannot be seen.
    pub src_port: u16,
    /// Destination port; ICMP: the identifier; ESP and AH: the low half of the SPI; zero when there is none or it cannot be seen.
    pub dst_port: u16,
    /// Where the payload belongs in its datagram, in octets.
    pub frag_offset: u16,
    /// Facts.
    pub flags: Flags,
    /// Protocol of the upper layer. Of an IPv6 fragment that is not the first: the fragment header's next header.
    pub proto: IpProto,
    /// ICMP type of ICMP and ICMPv6; otherwise zero.
    pub icmp_type: u8,
}

impl Parsed {
    /// Whether the packet is IPv6.
    #[inline(always)]
    pub const fn is_v6(&self) -> bool {
        self.flags.contains(Flags::V6)
    }

    /// Whether this is a part of a datagram only.
    #[inline(always)]
    pub const fn is_fragment(&self) -> bool {
        self.flags.contains(Flags::FRAGMENT)
    }

    /// Whether this is a part of a datagram that does not begin with the upper layer's header.
    #[inline(always)]
    pub const fn is_later_fragment(&self) -> bool {
        self.frag_offset != 0
    }

    /// Octets of upper-layer header and payload.
    #[inline(always)]
    pub const fn l4_len(&self) -> usize {
        self.end as usize - self.l4 as usize
    }

    /// Security parameters index of ESP or AH.
    #[inline]
    pub const fn spi(&self) -> Option<u32> {
        if matches!(self.proto, IpProto::ESP | IpProto::AH) && self.flags.contains(Flags::PORTS) {
            Some((self.src_port as u32) << 16 | self.dst_port as u32)
        } else {
            None
        }
    }

    /// Upper-layer header and payload of the packet that was parsed.
    #[inline]
    pub fn l4<'a>(&self, data: &'a [u8]) -> &'a [u8] {
        data.get(usize::from(self.l4)..self.end as usize).unwrap_or(&[])
    }

    /// The key of the flow that the parsed packet `data` belongs to.
    #[inline(always)]
    pub fn flow(&self, data: &[u8]) -> FlowKey {
        if self.is_v6() { FlowKey::V6(self.flow6(data)) } else { FlowKey::V4(self.flow4(data)) }
    }

    /// The symmetric hash of the flow: the hash of [`Self::flow`].
    #[inline(always)]
    pub fn hash(&self, data: &[u8], seed: &HashSeed) -> u32 {
        if self.is_v6() { self.flow6(data).hash(seed) } else { self.flow4(data).hash(seed) }
    }

    #[inline(always)]
    const fn ports(&self) -> (u16, u16) {
        if self.is_fragment() { (0, 0) } else { (self.src_port, self.dst_port) }
    }

    #[inline(always)]
    fn flow4(&self, data: &[u8]) -> FlowKey4 {
        let h: [u8; 20] = data.first_chunk().copied().unwrap_or_default();
        let (src_port, dst_port) = self.ports();
        FlowKey4 {
            src: Ipv4Addr::new(h[12], h[13], h[14], h[15]),
            dst: Ipv4Addr::new(h[16], h[17], h[18], h[19]),
            src_port,
            dst_port,
            proto: self.proto,
        }
    }

    #[inline(always)]
    fn flow6(&self, data: &[u8]) -> FlowKey6 {
        let at = |at: usize| data.get(at..).and_then(<[u8]>::first_chunk::<16>).copied().unwrap_or_default();
        let (src_port, dst_port) = self.ports();
        let proto = if self.is_fragment() { IpProto::FRAGMENT } else { self.proto };
        FlowKey6 {
            src: Ipv6Addr::from_octets(at(8)),
            dst: Ipv6Addr::from_octets(at(24)),
            src_port,
            dst_port,
            proto,
        }
    }
}

/// What the front of the upper layer shows. By value everywhere: a `&mut Parsed` handed to a function that is not inlined would keep all of it in memory.
#[derive(Clone, Copy)]
pub(crate) struct Front {
    pub(crate) src_port: u16,
    pub(crate) dst_port: u16,
    pub(crate) flags: Flags,
    pub(crate) icmp_type: u8,
}

impl Front {
    pub(crate) const NOTHING: Self = Self { src_port: 0, dst_port: 0, flags: Flags(0), icmp_type: 0 };

    /// Looks for ports, identifier or SPI at the front of the upper layer.
    #[inline(always)]
    pub(crate) fn look(proto: IpProto, l4: &[u8]) -> Self {
        match proto {
            IpProto::TCP => Self::ports(l4, 20),
            IpProto::UDP => Self::ports(l4, 8),
            proto => Self::other(proto, l4),
        }
    }

    #[inline(always)]
    fn ports(l4: &[u8], header_len: usize) -> Self {
        let short = Flags::default().with(Flags::SHORT, l4.len() < header_len);
        let Some(&[a, b, c, d]) = l4.first_chunk() else {
            return Self { flags: short, ..Self::NOTHING };
        };
        Self {
            src_port: u16::from_be_bytes([a, b]),
            dst_port: u16::from_be_bytes([c, d]),
            flags: short.with(Flags::PORTS, true),
            icmp_type: 0,
        }
    }

    #[inline(never)]
    fn other(proto: IpProto, l4: &[u8]) -> Self {
        match proto {
            IpProto::ICMP | IpProto::ICMPV6 => Self::icmp(proto, l4),
            IpProto::ESP => Self::ports(l4, 8),
            IpProto::AH => Self::ports(l4.get(4..).unwrap_or(&[]), 8),
            IpProto::SCTP => Self::ports(l4, 12),
            proto if proto.has_ports() => Self::ports(l4, 8),
            _ => Self::NOTHING,
        }
    }

    fn icmp(proto: IpProto, l4: &[u8]) -> Self {
        // No ICMP message in use is shorter than 8.
        let Some(&[icmp_type, _, _, _, a, b, _, _]) = l4.first_chunk() else {
            return Self {
                flags: Flags::SHORT,
                icmp_type: l4.first().copied().unwrap_or(0),
                ..Self::NOTHING
            };
        };
        let is_query = match proto {
            IpProto::ICMP => matches!(icmp_type, 0 | 8 | 13..=18),
            _ => matches!(icmp_type, 128 | 129),
        };
        if !is_query {
            return Self { icmp_type, ..Self::NOTHING };
        }
        let ident = u16::from_be_bytes([a, b]);
        Self { src_port: ident, dst_port: ident, flags: Flags::PORTS, icmp_type }
    }
}
