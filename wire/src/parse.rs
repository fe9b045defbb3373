//! One pass over a packet: is it sound, and what must the router know about it?
//!
//! Two levels, so that plain forwarding does not pay for what only a filter needs:
//!
//! - [`ipv4_check`] and [`ipv6_check`]: version, header length, header checksum, length. What RFC 1812, 5.2.2 asks of a router before it forwards.
//! - [`parse_ipv4`] and [`parse_ipv6`]: also fragment fields, extension headers, the upper layer and its ports. Their answer is small and `Copy`;
//!   offsets count from the first octet of the IP header.
//!
//! A packet whose *upper layer* is too short is not malformed: routers forward it. It is flagged [`Flags::SHORT`] and a filter drops it. Nor are
//! fragments judged here: reassembly does. Nothing here verifies a transport checksum ([`crate::checksum::transport_ok`] does).

use core::net::{Ipv4Addr, Ipv6Addr};

use crate::{
    EtherType, IpProto, Malformed, checksum,
    ether::{self, TAG_LEN},
    flow::{FlowKey, FlowKey4, FlowKey6, HashSeed},
    ipv4, ipv6, ipv6_ext,
};

/// What forwarding must know of an IPv4 header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ipv4Check {
    /// Octets of the header: more than 20 means options.
    pub header_len: u8,
    /// Octets of the packet; what the frame has beyond is padding.
    pub total_len: u16,
}

/// Checks an IPv4 header as RFC 1812, 5.2.2 asks.
#[inline(always)]
pub fn ipv4_check(data: &[u8]) -> Result<Ipv4Check, Malformed> {
    let h: &[u8; 20] = data.first_chunk().ok_or(Malformed::Truncated)?;
    let header_len = if h[0] == 0x45 {
        if !checksum::header_ok(h) {
            return Err(Malformed::Checksum);
        }
        20
    } else {
        uncommon_header(data, h)?
    };
    let total_len = u16::from_be_bytes([h[2], h[3]]);
    if usize::from(total_len) > data.len() || total_len < u16::from(header_len) {
        return Err(Malformed::Length);
    }
    Ok(Ipv4Check { header_len, total_len })
}

/// The header length of a packet that does not begin with 0x45: another version, or options.
#[cold]
#[inline(never)]
fn uncommon_header(data: &[u8], h: &[u8; 20]) -> Result<u8, Malformed> {
    if h[0] >> 4 != 4 {
        return Err(Malformed::Version);
    }
    let len = (h[0] & 0x0f) * 4;
    if len < 20 {
        return Err(Malformed::HeaderLength);
    }
    let header = data.get(..usize::from(len)).ok_or(Malformed::HeaderLength)?;
    if checksum::sum(header) == 0xffff { Ok(len) } else { Err(Malformed::Checksum) }
}

/// What forwarding must know of an IPv6 header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ipv6Check {
    /// What follows the fixed header. Zero: the hop-by-hop options are for us, too.
    pub next_header: IpProto,
    /// Octets of the packet, up to 65,575; what the frame has beyond is padding.
    pub total_len: u32,
}

/// Checks a fixed IPv6 header.
#[inline(always)]
pub fn ipv6_check(data: &[u8]) -> Result<Ipv6Check, Malformed> {
    let h: &[u8; 40] = data.first_chunk().ok_or(Malformed::Truncated)?;
    if h[0] >> 4 != 6 {
        return Err(Malformed::Version);
    }
    let total_len = 40 + u32::from(u16::from_be_bytes([h[4], h[5]]));
    if total_len as usize > data.len() {
        return Err(Malformed::Length);
    }
    Ok(Ipv6Check { next_header: IpProto(h[6]), total_len })
}

/// Facts about a packet, one bit each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Flags(u16);

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
    const fn with(self, other: Self, when: bool) -> Self {
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
struct Front {
    src_port: u16,
    dst_port: u16,
    flags: Flags,
    icmp_type: u8,
}

impl Front {
    const NOTHING: Self = Self { src_port: 0, dst_port: 0, flags: Flags(0), icmp_type: 0 };

    /// Looks for ports, identifier or SPI at the front of the upper layer.
    #[inline(always)]
    fn look(proto: IpProto, l4: &[u8]) -> Self {
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

/// Parses an IPv4 packet: everything [`ipv4_check`] checks, and what a filter needs.
#[inline(always)]
pub fn parse_ipv4(data: &[u8]) -> Result<Parsed, Malformed> {
    let check = ipv4_check(data)?;
    let h: &[u8; 20] = data.first_chunk().ok_or(Malformed::Truncated)?;
    Ok(describe_v4(data, h, check.header_len, check.total_len))
}

#[inline(always)]
fn describe_v4(data: &[u8], h: &[u8; 20], header_len: u8, end: u16) -> Parsed {
    let frag = u16::from_be_bytes([h[6], h[7]]);
    let flags = Flags::default()
        .with(Flags::FRAGMENT, frag & (ipv4::MF | ipv4::OFFSET_MASK) != 0)
        .with(Flags::MORE, frag & ipv4::MF != 0)
        .with(Flags::DF, frag & ipv4::DF != 0)
        .with(Flags::OPTIONS, header_len > 20);
    let frag_offset = (frag & ipv4::OFFSET_MASK) << 3;
    let proto = IpProto(h[9]);
    let front = match data.get(usize::from(header_len)..usize::from(end)) {
        Some(l4) if frag_offset == 0 => Front::look(proto, l4),
        _ => Front::NOTHING,
    };
    Parsed {
        end: u32::from(end),
        ident: u32::from(u16::from_be_bytes([h[4], h[5]])),
        l4: u16::from(header_len),
        src_port: front.src_port,
        dst_port: front.dst_port,
        frag_offset,
        flags: Flags(flags.0 | front.flags.0),
        proto,
        icmp_type: front.icmp_type,
    }
}

/// Parses an IPv6 packet: everything [`ipv6_check`] checks, the extension headers, and what a filter needs.
#[inline(always)]
pub fn parse_ipv6(data: &[u8]) -> Result<Parsed, Malformed> {
    let check = ipv6_check(data)?;
    describe_v6(data, check.next_header, check.total_len)
}

#[inline(always)]
fn describe_v6(data: &[u8], next_header: IpProto, end: u32) -> Result<Parsed, Malformed> {
    if next_header.is_extension() {
        return describe_chain(data, end);
    }
    let front = Front::look(next_header, data.get(ipv6::HEADER_LEN..end as usize).unwrap_or(&[]));
    Ok(Parsed {
        end,
        ident: 0,
        l4: ipv6::HEADER_LEN as u16,
        src_port: front.src_port,
        dst_port: front.dst_port,
        frag_offset: 0,
        flags: Flags(Flags::V6.0 | front.flags.0),
        proto: next_header,
        icmp_type: front.icmp_type,
    })
}

/// Describes a packet with extension headers.
#[inline(never)]
fn describe_chain(data: &[u8], end: u32) -> Result<Parsed, Malformed> {
    let chain = ipv6_ext::walk(data, end as usize)?;
    let fragment = chain.fragment;
    let frag_offset = fragment.map_or(0, |f| f.offset);
    let front = match data.get(usize::from(chain.l4)..end as usize) {
        Some(l4) if frag_offset == 0 => Front::look(chain.proto, l4),
        _ => Front::NOTHING,
    };
    let flags = Flags(Flags::V6.0 | front.flags.0)
        .with(Flags::OPTIONS, chain.hop_by_hop || chain.dst_options || chain.routing.is_some())
        .with(Flags::HOP_BY_HOP, chain.hop_by_hop)
        .with(Flags::ROUTING, chain.routing.is_some())
        .with(Flags::ROUTING_0, matches!(chain.routing, Some((0, _))))
        .with(Flags::FRAGMENT_HEADER, fragment.is_some())
        .with(Flags::FRAGMENT, fragment.is_some_and(|f| !f.is_atomic()))
        .with(Flags::MORE, fragment.is_some_and(|f| f.more));
    Ok(Parsed {
        end,
        ident: fragment.map_or(0, |f| f.ident),
        l4: chain.l4,
        src_port: front.src_port,
        dst_port: front.dst_port,
        frag_offset,
        flags,
        proto: chain.proto,
        icmp_type: front.icmp_type,
    })
}

/// Parses either version, by the version field.
#[inline]
pub fn parse_ip(data: &[u8]) -> Result<Parsed, Malformed> {
    match data.first().map(|v| v >> 4) {
        Some(4) => parse_ipv4(data),
        Some(6) => parse_ipv6(data),
        Some(_) => Err(Malformed::Version),
        None => Err(Malformed::Truncated),
    }
}

/// Parses the beginning of a packet quoted in an ICMP error: the lengths in its header may exceed what was quoted, and an IPv4 header checksum may be
/// stale, since routers quote after they changed the packet. `end` is what is there.
pub fn parse_quoted(data: &[u8]) -> Result<Parsed, Malformed> {
    match data.first().map(|v| v >> 4) {
        Some(4) => {
            let h: &[u8; 20] = data.first_chunk().ok_or(Malformed::Truncated)?;
            let header_len = (h[0] & 0x0f) * 4;
            if header_len < 20 || usize::from(header_len) > data.len() {
                return Err(Malformed::HeaderLength);
            }
            let total_len = u16::from_be_bytes([h[2], h[3]]);
            if total_len < u16::from(header_len) {
                return Err(Malformed::Length);
            }
            Ok(describe_v4(data, h, header_len, total_len.min(data.len().min(0xffff) as u16)))
        }
        Some(6) => {
            let h: &[u8; 40] = data.first_chunk().ok_or(Malformed::Truncated)?;
            let total_len = 40 + u32::from(u16::from_be_bytes([h[4], h[5]]));
            describe_v6(data, IpProto(h[6]), total_len.min(data.len() as u32))
        }
        Some(_) => Err(Malformed::Version),
        None => Err(Malformed::Truncated),
    }
}

/// What the Ethernet header of a frame says, in one register: the addresses are read where they are needed ([`ether::addresses`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link {
    /// What the payload is, behind the tags.
    pub ethertype: EtherType,
    /// Control information of the outermost tag.
    pub tci: Option<u16>,
    /// Where the payload begins: 14, 18 or 22.
    pub l3: u16,
}

/// Reads the Ethernet header and at most two tags.
#[inline(always)]
pub fn parse_link(frame: &[u8]) -> Result<Link, Malformed> {
    let h: &[u8; ether::HEADER_LEN] = frame.first_chunk().ok_or(Malformed::Truncated)?;
    let link = Link {
        ethertype: EtherType(u16::from_be_bytes([h[12], h[13]])),
        tci: None,
        l3: ether::HEADER_LEN as u16,
    };
    if link.ethertype.is_tag() {
        return behind_tags(link, frame);
    }
    if link.ethertype.0 < 0x0600 { Err(Malformed::Unknown) } else { Ok(link) }
}

/// The link of a tagged frame: what is behind one or two tags.
#[inline(never)]
fn behind_tags(mut link: Link, frame: &[u8]) -> Result<Link, Malformed> {
    for _ in 0..2 {
        let tag: Option<&[u8; TAG_LEN]> = frame.get(usize::from(link.l3)..).and_then(<[u8]>::first_chunk);
        let &[a, b, c, d] = tag.ok_or(Malformed::Truncated)?;
        link.tci = link.tci.or(Some(u16::from_be_bytes([a, b])));
        link.ethertype = EtherType(u16::from_be_bytes([c, d]));
        link.l3 += TAG_LEN as u16;
        if !link.ethertype.is_tag() {
            return if link.ethertype.0 < 0x0600 { Err(Malformed::Unknown) } else { Ok(link) };
        }
    }
    Err(Malformed::Unknown)
}

/// What one pass found out about a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ParsedFrame {
    /// The Ethernet header.
    pub link: Link,
    /// The IP packet at `link.l3`, if it is one.
    pub ip: Option<Parsed>,
}

/// Parses a frame: Ethernet, tags, IP. Other ethertypes are not malformed, they have no `ip`.
#[inline(always)]
pub fn parse_frame(frame: &[u8]) -> Result<ParsedFrame, Malformed> {
    let link = parse_link(frame)?;
    let payload = frame.get(usize::from(link.l3)..).unwrap_or(&[]);
    let ip = match link.ethertype {
        EtherType::IPV4 => Some(parse_ipv4(payload)?),
        EtherType::IPV6 => Some(parse_ipv6(payload)?),
        _ => None,
    };
    Ok(ParsedFrame { link, ip })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answers_are_small() {
        assert_eq!(size_of::<Parsed>(), 20);
        assert_eq!(size_of::<Result<Link, Malformed>>(), 8);
        assert!(size_of::<Result<Parsed, Malformed>>() <= 24);
        assert_eq!(size_of::<Result<Ipv4Check, Malformed>>(), 6);
    }
}
