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

pub use crate::parsed::{Flags, Parsed};
use core::net::Ipv4Addr;

use crate::{
    EtherType, IpProto, Malformed, checksum,
    ether::{self, TAG_LEN},
    flow::{FlowKey4, HashSeed},
    ipv4, ipv6, ipv6_ext,
    parsed::Front,
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

/// Parses an IPv4 packet: everything [`ipv4_check`] checks, and what a filter needs.
#[inline(always)]
pub fn parse_ipv4(data: &[u8]) -> Result<Parsed, Malformed> {
    let check = ipv4_check(data)?;
    let h: &[u8; 20] = data.first_chunk().ok_or(Malformed::Truncated)?;
    Ok(describe_v4(data, h, check.header_len, check.total_len))
}

/// The symmetric hash of the flow of a packet that [`ipv4_check`] found sound: what [`Parsed::hash`] says, without the
/// rest of the parse for the packets that are most of them.
#[inline(always)]
pub fn hash_ipv4(data: &[u8], check: Ipv4Check, seed: &HashSeed) -> u32 {
    /// IP and TCP header: where there are ports for sure.
    const BOTH: u16 = 40;
    let Some(h) = data.first_chunk::<24>() else { return rest_of_hash(data, check, seed) };
    let is_part = u16::from_be_bytes([h[6], h[7]]) & (ipv4::MF | ipv4::OFFSET_MASK) != 0;
    let proto = IpProto(h[9]);
    if is_part
        || check.header_len != 20
        || check.total_len < BOTH
        || !matches!(proto, IpProto::TCP | IpProto::UDP)
    {
        return rest_of_hash(data, check, seed);
    }
    let key = FlowKey4 {
        src: Ipv4Addr::new(h[12], h[13], h[14], h[15]),
        dst: Ipv4Addr::new(h[16], h[17], h[18], h[19]),
        src_port: u16::from_be_bytes([h[20], h[21]]),
        dst_port: u16::from_be_bytes([h[22], h[23]]),
        proto,
    };
    key.hash(seed)
}

#[inline(never)]
fn rest_of_hash(data: &[u8], check: Ipv4Check, seed: &HashSeed) -> u32 {
    let Some(h) = data.first_chunk() else { return 0 };
    describe_v4(data, h, check.header_len, check.total_len).hash(data, seed)
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
    use core::net::{Ipv4Addr, Ipv6Addr};

    use super::*;
    use crate::{HashSeed, Mac, build, flow::FlowKey};

    const A: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
    const B: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
    const C: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
    const D: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2);
    const SEED: HashSeed = HashSeed::new(5, 6);

    #[test]
    fn the_answers_are_small() {
        assert_eq!(size_of::<Parsed>(), 20);
        assert_eq!(size_of::<Result<Link, Malformed>>(), 8);
        assert!(size_of::<Result<Parsed, Malformed>>() <= 24);
        assert_eq!(size_of::<Result<Ipv4Check, Malformed>>(), 6);
    }

    #[test]
    fn padding_is_not_part_of_the_packet() {
        let packet = build::udp4(A, B, 1, 2, b"x");
        let mut frame = build::frame(Mac::ZERO, Mac::ZERO, &packet);
        frame.resize(ether::MIN_FRAME, 0xff);
        let parsed = parse_frame(&frame).unwrap();
        let ip = parsed.ip.unwrap();
        assert_eq!((ip.end as usize, ip.l4_len()), (packet.len(), 9));
        assert_eq!(ip.l4(&frame[usize::from(parsed.link.l3)..]), &packet[20..]);
    }

    #[test]
    fn two_tags_are_passed_over_and_three_are_not() {
        let packet = build::udp4(A, B, 1, 2, b"x");
        let mut frame = build::tagged_frame(Mac::ZERO, Mac::ZERO, 7, &packet);
        frame.splice(12..12, [0x88, 0xa8, 0x00, 0x09]);
        let link = parse_link(&frame).unwrap();
        assert_eq!((link.tci, link.l3, link.ethertype), (Some(9), 22, EtherType::IPV4));
        frame.splice(12..12, [0x88, 0xa8, 0x00, 0x0a]);
        assert_eq!(parse_link(&frame), Err(Malformed::Unknown));
        assert_eq!(parse_link(&frame[..17]), Err(Malformed::Truncated));
    }

    #[test]
    fn each_check_of_the_ipv4_header_has_its_own_answer() {
        let good = build::udp4(A, B, 1, 2, b"x");
        let changed = |at: usize, value: u8, mend: bool| {
            let mut packet = good.clone();
            packet[at] = value;
            if mend {
                ipv4::Packet::new_unchecked(&mut packet).fill_checksum();
            }
            ipv4_check(&packet).err()
        };
        assert_eq!(changed(0, 0x45, true), None);
        assert_eq!(changed(0, 0x65, true), Some(Malformed::Version));
        assert_eq!(changed(0, 0x44, false), Some(Malformed::HeaderLength));
        assert_eq!(changed(0, 0x4f, false), Some(Malformed::HeaderLength));
        assert_eq!(changed(8, 63, false), Some(Malformed::Checksum));
        assert_eq!(changed(3, 30, true), Some(Malformed::Length));
        assert_eq!(changed(3, 19, true), Some(Malformed::Length));
        assert_eq!(ipv4_check(&good[..19]), Err(Malformed::Truncated));
    }

    #[test]
    fn an_upper_layer_too_short_is_flagged_and_not_refused() {
        for (proto, needs) in [
            (IpProto::TCP, 20),
            (IpProto::UDP, 8),
            (IpProto::ICMP, 8),
            (IpProto::ESP, 8),
            (IpProto::AH, 12),
            (IpProto::SCTP, 12),
        ] {
            for len in 0..24 {
                let packet =
                    build::raw4(ipv4::Repr { src: A, dst: B, proto, ..Default::default() }, &vec![1; len]);
                let parsed = parse_ipv4(&packet).unwrap();
                assert_eq!(parsed.flags.contains(Flags::SHORT), len < needs, "{proto} with {len} octets");
            }
        }
    }

    #[test]
    fn a_query_and_its_answer_are_one_flow_and_an_error_has_no_ports() {
        let request = build::echo4(A, B, 77, 1, b"");
        let reply = build::icmp4(B, A, &crate::icmpv4::Repr::EchoReply { ident: 77, seq: 1, data: b"" });
        let (p, q) = (parse_ipv4(&request).unwrap(), parse_ipv4(&reply).unwrap());
        assert_eq!(p.flow(&request).reversed(), q.flow(&reply));
        assert_eq!(p.flow(&request).ports(), (77, 77));
        assert_eq!((p.icmp_type, q.icmp_type), (8, 0));
        let error =
            build::icmp4(A, B, &crate::icmpv4::Repr::Error(crate::icmpv4::Error::TtlExceeded, &request));
        assert!(!parse_ipv4(&error).unwrap().flags.contains(Flags::PORTS));
    }

    #[test]
    fn an_spi_is_found_in_esp_and_ah() {
        let spi = [0x12, 0x34, 0x56, 0x78];
        let esp = [&spi[..], &[0; 28]].concat();
        let ah = [&[4, 4, 0, 0][..], &spi, &[0; 20]].concat();
        for (proto, payload) in [(IpProto::ESP, esp), (IpProto::AH, ah)] {
            let packet = build::raw6(
                ipv6::Repr { src: C, dst: D, next_header: proto, ..Default::default() },
                &payload,
            );
            let parsed = parse_ipv6(&packet).unwrap();
            assert_eq!(parsed.spi(), Some(0x1234_5678), "{proto}");
            let FlowKey::V6(key) = parsed.flow(&packet) else { panic!("{parsed:?}") };
            assert_eq!(key.spi(), Some(0x1234_5678));
        }
    }

    /// One IPv6 fragment of a datagram that begins with destination options and UDP.
    fn fragment6(offset: u16, more: bool, next_header: IpProto) -> Vec<u8> {
        let f = ipv6_ext::Fragment { at: 40, announced_at: 6, next_header, offset, more, ident: 9 };
        let first = [17, 0, 1, 4, 0, 0, 0, 0, 0, 1, 0, 2, 0, 16, 0, 0];
        let header = ipv6::Repr { src: C, dst: D, next_header: IpProto::FRAGMENT, ..Default::default() };
        build::raw6(header, &[&f.octets()[..], &first].concat())
    }

    #[test]
    fn the_fragments_of_a_datagram_have_one_hash_and_it_is_that_of_no_ports() {
        let whole = build::udp4(A, B, 1111, 2222, &[0; 64]);
        let with_frag = |word| {
            let mut packet = whole.clone();
            ipv4::set_word(packet.first_chunk_mut().unwrap(), 6, word);
            let parsed = parse_ipv4(&packet).unwrap();
            (parsed, parsed.hash(&packet, &SEED))
        };
        let (first, later, last) = (with_frag(ipv4::MF), with_frag(ipv4::MF | 3), with_frag(6));
        assert!(first.0.is_fragment() && !first.0.is_later_fragment() && first.0.src_port == 1111);
        assert!(later.0.is_later_fragment() && !later.0.flags.contains(Flags::PORTS));
        assert_eq!((last.0.frag_offset, last.0.flags.contains(Flags::MORE)), (48, false));
        assert!(first.1 == later.1 && later.1 == last.1 && first.1 != with_frag(ipv4::DF).1);

        let packets = [
            fragment6(0, true, IpProto::DSTOPTS),
            fragment6(16, true, IpProto::DSTOPTS),
            // RFC 8200, 4.5: later fragments need not repeat the next header.
            fragment6(32, false, IpProto::UDP),
        ];
        let parsed = packets.each_ref().map(|p| parse_ipv6(p).unwrap());
        let hashes = [0, 1, 2].map(|i| parsed[i].hash(&packets[i], &SEED));
        assert!(hashes[0] == hashes[1] && hashes[1] == hashes[2]);
        assert_eq!((parsed[0].proto, parsed[0].dst_port, parsed[0].l4), (IpProto::UDP, 2, 56));
        assert_eq!((parsed[1].proto, parsed[1].dst_port, parsed[1].l4), (IpProto::DSTOPTS, 0, 48));
    }

    #[test]
    fn an_atomic_fragment_is_a_whole_datagram() {
        let packet = fragment6(0, false, IpProto::DSTOPTS);
        let parsed = parse_ipv6(&packet).unwrap();
        assert!(!parsed.is_fragment() && parsed.flags.contains(Flags::FRAGMENT_HEADER));
        assert_eq!(parsed.flow(&packet).ports(), (1, 2));
        assert_eq!(parsed.ident, 9);
    }

    #[test]
    fn the_largest_ipv6_packet_is_one() {
        let packet = build::raw6(ipv6::Repr { src: C, dst: D, ..Default::default() }, &vec![0; 65_535]);
        assert_eq!(parse_ipv6(&packet).unwrap().end, 65_575);
        assert_eq!(parse_ipv6(&packet[..65_574]), Err(Malformed::Length));
    }

    #[test]
    fn a_quote_may_be_cut_short_and_stale() {
        let mut packet = build::udp4(A, B, 1, 2, &[0; 600]);
        packet[8] = 1;
        let quoted = parse_quoted(&packet[..28]).unwrap();
        assert_eq!((quoted.src_port, quoted.dst_port, quoted.end), (1, 2, 28));
        assert!(parse_ipv4(&packet[..28]).is_err());
        assert_eq!(parse_quoted(&packet[..19]), Err(Malformed::Truncated));
    }
}
