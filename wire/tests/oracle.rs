//! Our formats against etherparse and smoltcp: packets that they build we read, packets that we build they read, with the same fields, and both sides agree on
//! what is no packet. Then `emit(parse(x)) == x`.
//!
//! Where the oracles are more tolerant or more strict than a router may be, the test says so beside the comparison.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::net::{Ipv4Addr, Ipv6Addr};

use etherparse::{NetSlice, PacketBuilder, SlicedPacket, TransportSlice};
use proptest::prelude::*;
use smoltcp::{phy::ChecksumCapabilities, wire as smol};
use wire::{
    EtherType, IpProto, Mac, Malformed, ah, arp, build, checksum, esp, ether, icmpv4, icmpv6, ipv4, ipv6, nd,
    parse, parse_frame, parse_ipv4, parse_ipv6, tcp, udp,
};

fn config() -> ProptestConfig {
    let cases = if std::env::var_os("SOFTNET_SOAK").is_some() { 100_000 } else { 2000 };
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

fn payload() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..200)
}

/// Changes up to three octets: damage, or nothing.
fn damage() -> impl Strategy<Value = Vec<(usize, u8)>> {
    prop::collection::vec((0_usize..100, any::<u8>()), 0..4)
}

fn apply(mut octets: Vec<u8>, damage: &[(usize, u8)]) -> Vec<u8> {
    for &(at, value) in damage {
        let at = at % octets.len();
        octets[at] = value;
    }
    octets
}

fn tcp_repr() -> impl Strategy<Value = tcp::Repr> {
    let head =
        (any::<u16>(), any::<u16>(), any::<u32>(), any::<u32>(), any::<u8>(), any::<u16>(), any::<u16>());
    let options = (
        any::<Option<u16>>(),
        prop::option::of(0_u8..15),
        any::<bool>(),
        any::<Option<(u32, u32)>>(),
        prop::collection::vec(any::<(u32, u32)>(), 0..3),
    );
    (head, options).prop_map(|(h, o)| {
        let mut sack = [None; 4];
        // SACK does not fit beside everything else.
        if o.0.is_none() {
            for (slot, &block) in sack.iter_mut().zip(&o.4) {
                *slot = Some(block);
            }
        }
        tcp::Repr {
            src_port: h.0,
            dst_port: h.1,
            seq: h.2,
            ack: h.3,
            flags: tcp::Flags(h.4),
            window: h.5,
            urgent: h.6,
            max_segment_size: o.0,
            window_scale: o.1,
            sack_permitted: o.2,
            timestamps: o.3,
            sack,
        }
    })
}

fn caps() -> ChecksumCapabilities {
    ChecksumCapabilities::default()
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn ipv4_is_what_smoltcp_says(
        src: u32, dst: u32, proto: u8, tos: u8, ident: u16, frag: u16, ttl: u8, payload in payload(), damage in damage(), cut in 0_usize..400,
    ) {
        let header = ipv4::Repr {
            src: src.into(), dst: dst.into(), proto: IpProto(proto), tos, ident, frag, ttl, payload_len: 0,
        };
        let mut packet = apply(build::raw4(header, &payload), &damage);
        packet.truncate(cut.max(1));
        let theirs = smol::Ipv4Packet::new_checked(&packet[..]);
        let ours = ipv4::Packet::new_checked(&packet[..]);
        // smoltcp looks neither at the version nor for a header of fewer than five words until Repr::parse.
        let version_and_length = packet.len() >= 20 && packet[0] >> 4 == 4 && packet[0] & 15 >= 5;
        prop_assert_eq!(ours.is_ok(), theirs.is_ok() && version_and_length);
        let (Ok(ours), Ok(theirs)) = (ours, theirs) else { return Ok(()) };
        prop_assert_eq!(ours.checksum_ok(), theirs.verify_checksum());
        prop_assert_eq!(ours.src(), theirs.src_addr());
        prop_assert_eq!(ours.dst(), theirs.dst_addr());
        prop_assert_eq!(ours.proto().0, u8::from(theirs.next_header()));
        prop_assert_eq!((ours.ttl(), ours.ident()), (theirs.hop_limit(), theirs.ident()));
        prop_assert_eq!((ours.total_len(), ours.header_len()), (theirs.total_len(), usize::from(theirs.header_len())));
        prop_assert_eq!((ours.dont_fragment(), ours.more_fragments()), (theirs.dont_frag(), theirs.more_frags()));
        prop_assert_eq!(ours.frag_offset(), theirs.frag_offset());
        prop_assert_eq!(ours.tos(), theirs.dscp() << 2 | theirs.ecn());
        prop_assert_eq!(ours.payload(), theirs.payload());
        let parsed = parse_ipv4(&packet);
        prop_assert_eq!(parsed.is_ok(), ours.checksum_ok());
        if let Ok(parsed) = parsed {
            prop_assert_eq!(parsed.frag_offset, theirs.frag_offset());
            prop_assert_eq!(parsed.is_fragment(), theirs.more_frags() || theirs.frag_offset() != 0);
            let mut again = vec![0; 20];
            ipv4::Repr::parse(&ours).unwrap().emit(&mut again).unwrap();
            if ours.header_len() == 20 {
                prop_assert_eq!(&again[..], &packet[..20]);
            }
        }
    }

    #[test]
    fn ipv6_is_what_smoltcp_says(
        src: u128, dst: u128, proto: u8, class: u8, label: u32, hops: u8, payload in payload(), damage in damage(), cut in 0_usize..400,
    ) {
        let header = ipv6::Repr {
            src: Ipv6Addr::from_bits(src), dst: Ipv6Addr::from_bits(dst), next_header: IpProto(proto), traffic_class: class,
            flow_label: label & 0xf_ffff, hop_limit: hops, payload_len: 0,
        };
        let mut packet = apply(build::raw6(header, &payload), &damage);
        packet.truncate(cut.max(1));
        let theirs = smol::Ipv6Packet::new_checked(&packet[..]);
        let ours = ipv6::Packet::new_checked(&packet[..]);
        prop_assert_eq!(ours.is_ok(), theirs.is_ok() && packet[0] >> 4 == 6);
        let (Ok(ours), Ok(theirs)) = (ours, theirs) else { return Ok(()) };
        prop_assert_eq!((ours.src(), ours.dst()), (theirs.src_addr(), theirs.dst_addr()));
        prop_assert_eq!((ours.traffic_class(), ours.flow_label()), (theirs.traffic_class(), theirs.flow_label()));
        prop_assert_eq!((ours.hop_limit(), ours.total_len()), (theirs.hop_limit(), theirs.total_len()));
        prop_assert_eq!(ours.payload(), theirs.payload());
        let mut again = vec![0; 40];
        ipv6::Repr::parse(&ours).unwrap().emit(&mut again).unwrap();
        prop_assert_eq!(&again[..], &packet[..40]);
    }

    #[test]
    fn the_one_pass_parse_is_what_etherparse_says(
        v6: bool, is_tcp: bool, tag: Option<u16>, src: u128, dst: u128, sp: u16, dp: u16, payload in payload(), damage in damage(),
    ) {
        let packet = whole(v6, is_tcp, src, dst, sp, dp, &payload);
        let mac = Mac([2, 0, 0, 0, 0, 1]);
        let frame = match tag {
            Some(tci) => build::tagged_frame(mac, mac, tci, &packet),
            None => build::frame(mac, mac, &packet),
        };
        let frame = apply(frame, &damage);
        let ours = parse_frame(&frame);
        let theirs = SlicedPacket::from_ethernet(&frame);
        let ours = match ours {
            Ok(ours) => ours,
            // Etherparse verifies no checksum, takes any chain of extension headers, and lengths instead of ethertypes.
            Err(Malformed::Checksum | Malformed::ExtChain | Malformed::Unknown) => return Ok(()),
            Err(why) => {
                prop_assert!(theirs.is_err(), "we say {:?}", why);
                return Ok(());
            }
        };
        let Some(ip) = ours.ip else { return Ok(()) };
        // What we take, etherparse takes, except an upper layer that is cut short or has a bad data offset: that is not a router's business; an
        // AH header is an extension to it; and so are headers that its walk knows and ours hands on.
        let upper_is_whole = upper_is_whole(&frame[usize::from(ours.link.l3)..], &ip);
        let Ok(theirs) = theirs else {
            prop_assert!(!upper_is_whole, "{:?} but we say {:?}", theirs, ours);
            return Ok(());
        };
        if !upper_is_whole {
            return Ok(());
        }
        let (proto, l4) = match theirs.net.unwrap() {
            NetSlice::Ipv4(net) => {
                prop_assert_eq!(ip.is_fragment(), net.is_payload_fragmented());
                (net.payload_ip_number().0, net.payload().payload.as_ptr())
            }
            NetSlice::Ipv6(net) => {
                prop_assert_eq!(ip.is_fragment(), net.is_payload_fragmented());
                (net.payload().ip_number.0, net.payload().payload.as_ptr())
            }
            NetSlice::Arp(_) => unreachable!("we saw IP"),
        };
        prop_assert_eq!(ip.proto.0, proto);
        prop_assert_eq!(frame[usize::from(ours.link.l3) + usize::from(ip.l4)..].as_ptr(), l4);
        match theirs.transport {
            Some(TransportSlice::Tcp(t)) => {
                prop_assert_eq!((ip.src_port, ip.dst_port), (t.source_port(), t.destination_port()));
            }
            Some(TransportSlice::Udp(u)) => {
                prop_assert_eq!((ip.src_port, ip.dst_port), (u.source_port(), u.destination_port()));
            }
            _ => {}
        }
    }

    #[test]
    fn packets_that_etherparse_builds_parse_and_verify(
        v6: bool, is_tcp: bool, src: u128, dst: u128, sp: u16, dp: u16, seq: u32, payload in payload(),
    ) {
        let link = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
        let net = if v6 {
            link.ipv6(src.to_be_bytes(), dst.to_be_bytes(), 33)
        } else {
            link.ipv4((src as u32).to_be_bytes(), (dst as u32).to_be_bytes(), 33)
        };
        let mut frame = Vec::new();
        if is_tcp {
            net.tcp(sp, dp, seq, 4096).ack(7).write(&mut frame, &payload).unwrap();
        } else {
            net.udp(sp, dp).write(&mut frame, &payload).unwrap();
        }
        let parsed = parse_frame(&frame).unwrap();
        let ip = parsed.ip.unwrap();
        prop_assert_eq!((ip.is_v6(), ip.src_port, ip.dst_port), (v6, sp, dp));
        let packet = &frame[14..];
        prop_assert!(checksum::transport_ok(packet, usize::from(ip.l4), ip.end as usize, ip.proto));
        // Our checksum is theirs, to the bit.
        let mut again = packet.to_vec();
        checksum::transport_fill(&mut again, usize::from(ip.l4), ip.end as usize, ip.proto).unwrap();
        prop_assert_eq!(&again[..], packet);
    }

    #[test]
    fn tcp_is_what_smoltcp_says(repr in tcp_repr(), payload in payload(), src: u32, dst: u32, damage in damage()) {
        let (src, dst) = (Ipv4Addr::from(src), Ipv4Addr::from(dst));
        let packet = build::tcp4(src, dst, &repr, &payload);
        let segment = apply(packet[20..].to_vec(), &damage);
        let ours = tcp::Packet::new_checked(&segment[..]);
        let theirs = smol::TcpPacket::new_checked(&segment[..]);
        prop_assert_eq!(ours.is_ok(), theirs.is_ok());
        let (Ok(ours), Ok(theirs)) = (ours, theirs) else { return Ok(()) };
        prop_assert_eq!((ours.src_port(), ours.dst_port()), (theirs.src_port(), theirs.dst_port()));
        prop_assert_eq!((ours.seq(), ours.ack()), (theirs.seq_number().0 as u32, theirs.ack_number().0 as u32));
        prop_assert_eq!(ours.flags().contains(tcp::Flags::SYN), theirs.syn());
        prop_assert_eq!(ours.flags().contains(tcp::Flags::FIN), theirs.fin());
        prop_assert_eq!(ours.flags().contains(tcp::Flags::RST), theirs.rst());
        prop_assert_eq!(ours.flags().contains(tcp::Flags::PSH), theirs.psh());
        prop_assert_eq!(ours.flags().contains(tcp::Flags::ACK), theirs.ack());
        prop_assert_eq!(ours.flags().contains(tcp::Flags::URG), theirs.urg());
        prop_assert_eq!(ours.flags().contains(tcp::Flags::ECE), theirs.ece());
        prop_assert_eq!(ours.flags().contains(tcp::Flags::CWR), theirs.cwr());
        prop_assert_eq!((ours.window(), ours.urgent()), (theirs.window_len(), theirs.urgent_at()));
        prop_assert_eq!(ours.payload(), theirs.payload());
        let pseudo = checksum::pseudo_v4(src, dst, IpProto::TCP, segment.len() as u32);
        let verified = theirs.verify_checksum(&src.into(), &dst.into());
        prop_assert_eq!(checksum::transport_sum(pseudo, &segment) == 0, verified);
        if damage.is_empty() {
            prop_assert_eq!(tcp::Repr::parse(&ours, Some(pseudo)), Ok(repr));
            let option = |mut o: &[u8], want: fn(&smol::TcpOption<'_>) -> bool| {
                while let Ok((rest, option)) = smol::TcpOption::parse(o) {
                    if want(&option) { return true }
                    if rest.is_empty() { break }
                    o = rest;
                }
                false
            };
            let area = theirs.options();
            prop_assert_eq!(option(area, |o| matches!(o, smol::TcpOption::MaxSegmentSize(_))), repr.max_segment_size.is_some());
            prop_assert_eq!(option(area, |o| matches!(o, smol::TcpOption::WindowScale(_))), repr.window_scale.is_some());
            prop_assert_eq!(option(area, |o| matches!(o, smol::TcpOption::TimeStamp { .. })), repr.timestamps.is_some());
            prop_assert_eq!(theirs.selective_ack_permitted().unwrap(), repr.sack_permitted);
            let theirs_sack = theirs.selective_ack_ranges().unwrap();
            prop_assert_eq!(&theirs_sack[..], &repr.sack[..3]);
        }
    }

    #[test]
    fn udp_is_what_smoltcp_says(sp: u16, dp: u16, payload in payload(), src: u128, dst: u128, damage in damage()) {
        let (src, dst) = (Ipv6Addr::from_bits(src), Ipv6Addr::from_bits(dst));
        let packet = build::udp6(src, dst, sp, dp, &payload);
        let datagram = apply(packet[40..].to_vec(), &damage);
        let ours = udp::Packet::new_checked(&datagram[..]);
        let theirs = smol::UdpPacket::new_checked(&datagram[..]);
        prop_assert_eq!(ours.is_ok(), theirs.is_ok());
        let (Ok(ours), Ok(theirs)) = (ours, theirs) else { return Ok(()) };
        prop_assert_eq!((ours.src_port(), ours.dst_port(), ours.len()), (theirs.src_port(), theirs.dst_port(), theirs.len()));
        prop_assert_eq!(ours.payload(), theirs.payload());
        let mut whole = build::raw6(ipv6::Repr { src, dst, next_header: IpProto::UDP, ..Default::default() }, &datagram);
        let verified = theirs.verify_checksum(&src.into(), &dst.into());
        prop_assert_eq!(checksum::transport_ok(&whole, 40, whole.len(), IpProto::UDP), verified && ours.checksum() != 0);
        if damage.is_empty() {
            checksum::transport_fill(&mut whole, 40, 40 + datagram.len(), IpProto::UDP).unwrap();
            prop_assert_eq!(&whole[40..], &datagram[..]);
        }
    }

    #[test]
    fn arp_is_what_smoltcp_says(reply: bool, sm: [u8; 6], tm: [u8; 6], si: u32, ti: u32, damage in damage()) {
        let operation = if reply { arp::Operation::Reply } else { arp::Operation::Request };
        let repr = arp::Repr {
            operation, sender_mac: Mac(sm), sender_ip: si.into(), target_mac: Mac(tm), target_ip: ti.into(),
        };
        let mut octets = vec![0; 28];
        repr.emit(&mut octets).unwrap();
        let octets = apply(octets, &damage);
        let theirs = smol::ArpPacket::new_checked(&octets[..]).and_then(|view| smol::ArpRepr::parse(&view));
        let ours = arp::Repr::parse(&arp::Packet::new_checked(&octets[..]).unwrap());
        let Ok(ours) = ours else {
            // We also refuse senders that no host can be, and unknown operations.
            let sender = Mac(octets[8..14].try_into().unwrap());
            let ip = Ipv4Addr::from_octets(octets[14..18].try_into().unwrap());
            let strict = !sender.is_unicast() || ip.is_multicast() || ip.is_broadcast() || !matches!(octets[6..8], [0, 1 | 2]);
            prop_assert!(theirs.is_err() || strict);
            return Ok(());
        };
        let smol::ArpRepr::EthernetIpv4 { operation, source_hardware_addr, source_protocol_addr, target_hardware_addr, target_protocol_addr } =
            theirs.unwrap() else { unreachable!("one format") };
        prop_assert_eq!(ours.operation == arp::Operation::Reply, operation == smol::ArpOperation::Reply);
        prop_assert_eq!((ours.sender_mac.0, ours.target_mac.0), (source_hardware_addr.0, target_hardware_addr.0));
        prop_assert_eq!((ours.sender_ip, ours.target_ip), (source_protocol_addr, target_protocol_addr));
    }

    #[test]
    fn echo_is_what_smoltcp_says(ident: u16, seq: u16, data in payload(), src: u128, dst: u128) {
        let (src, dst) = (Ipv6Addr::from_bits(src), Ipv6Addr::from_bits(dst));
        let packet = build::echo4(Ipv4Addr::LOCALHOST, Ipv4Addr::LOCALHOST, ident, seq, &data);
        let theirs = smol::Icmpv4Repr::parse(&smol::Icmpv4Packet::new_checked(&packet[20..]).unwrap(), &caps()).unwrap();
        prop_assert_eq!(theirs, smol::Icmpv4Repr::EchoRequest { ident, seq_no: seq, data: &data });
        let packet = build::echo6(src, dst, ident, seq, &data);
        let view = smol::Icmpv6Packet::new_checked(&packet[40..]).unwrap();
        let theirs = smol::Icmpv6Repr::parse(&src, &dst, &view, &caps()).unwrap();
        prop_assert_eq!(theirs, smol::Icmpv6Repr::EchoRequest { ident, seq_no: seq, data: &data });
    }

    #[test]
    fn errors_are_what_smoltcp_says(mtu: u16, payload in payload()) {
        let (a, b) = (Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2));
        let original = build::udp4(a, b, 1, 2, &payload);
        let mut out = [0; 576];
        let n = icmpv4::build_error(&mut out, icmpv4::Error::TtlExceeded, b, &original, 1).unwrap();
        let ip = smol::Ipv4Packet::new_checked(&out[..n]).unwrap();
        prop_assert!(smol::Ipv4Repr::parse(&ip, &caps()).is_ok());
        let theirs = smol::Icmpv4Repr::parse(&smol::Icmpv4Packet::new_checked(ip.payload()).unwrap(), &caps()).unwrap();
        let smol::Icmpv4Repr::TimeExceeded { header, data, .. } = theirs else { panic!("{theirs:?}") };
        prop_assert_eq!((header.src_addr, header.dst_addr, data), (a, b, &original[20..]));
        let (c, d) = (Ipv6Addr::from_bits(1 << 90), Ipv6Addr::from_bits(2 << 90));
        let original = build::udp6(c, d, 1, 2, &payload);
        let mut out = [0; 1280];
        let n = icmpv6::build_error(&mut out, icmpv6::Error::PacketTooBig(u32::from(mtu)), d, &original).unwrap();
        let ip = smol::Ipv6Packet::new_checked(&out[..n]).unwrap();
        let view = smol::Icmpv6Packet::new_checked(ip.payload()).unwrap();
        let theirs = smol::Icmpv6Repr::parse(&d, &c, &view, &caps()).unwrap();
        let smol::Icmpv6Repr::PktTooBig { mtu: said, header, data } = theirs else { panic!("{theirs:?}") };
        prop_assert_eq!((said, header.src_addr, header.dst_addr, data), (u32::from(mtu), c, d, &original[40..]));
    }

    #[test]
    fn neighbour_discovery_is_what_smoltcp_says(target: u64, mac: [u8; 5], router: bool, solicited: bool, override_: bool) {
        let target = Ipv6Addr::from_bits(0xfe80 << 112 | u128::from(target));
        let me = Ipv6Addr::from_bits(0xfe80 << 112 | 1);
        let mac = Mac([2, mac[0], mac[1], mac[2], mac[3], mac[4]]);
        let raw = smol::RawHardwareAddress::from(smol::EthernetAddress(mac.0));
        let mut out = [0; 200];
        let n = nd::solicit(&mut out, me, mac, target).unwrap();
        let view = smol::Icmpv6Packet::new_checked(&out[40..n]).unwrap();
        let theirs = smol::Icmpv6Repr::parse(&me, &ipv6::solicited_node(target), &view, &caps()).unwrap();
        let wanted = smol::NdiscRepr::NeighborSolicit { target_addr: target, lladdr: Some(raw) };
        prop_assert_eq!(theirs, smol::Icmpv6Repr::Ndisc(wanted));

        let mut flags = smol::NdiscNeighborFlags::empty();
        flags.set(smol::NdiscNeighborFlags::ROUTER, router);
        flags.set(smol::NdiscNeighborFlags::SOLICITED, solicited);
        flags.set(smol::NdiscNeighborFlags::OVERRIDE, override_);
        let repr = smol::Icmpv6Repr::Ndisc(smol::NdiscRepr::NeighborAdvert { flags, target_addr: target, lladdr: Some(raw) });
        let mut theirs = vec![0; repr.buffer_len()];
        repr.emit(&target, &me, &mut smol::Icmpv6Packet::new_unchecked(&mut theirs[..]), &caps());
        let message = nd::parse(&theirs, target, me, 255).unwrap();
        prop_assert_eq!(message.body, nd::Body::NeighborAdvert { router, solicited, override_, target });
        prop_assert_eq!(message.options.target_mac(), Some(mac));
        let options = [nd::NdOption::TargetMac(mac)];
        let mut again = vec![0; theirs.len()];
        nd::Repr { body: message.body, options: &options }.emit(&mut again, target, me).unwrap();
        prop_assert_eq!(again, theirs);
    }

    #[test]
    fn esp_and_ah_are_what_smoltcp_says(spi in 1_u32.., seq: u32, icv in prop::sample::select(vec![12_usize, 16, 20]), next: u8) {
        let mut out = [0; 64];
        esp::Repr { spi, seq }.emit(&mut out).unwrap();
        let view = smol::IpSecEspPacket::new_checked(&out[..]).unwrap();
        prop_assert_eq!((view.security_parameters_index(), view.sequence_number()), (spi, seq));
        let repr = ah::Repr { next_header: IpProto(next), spi, seq, icv_len: icv };
        let n = repr.emit(&mut out).unwrap();
        let view = smol::IpSecAuthHeaderPacket::new_checked(&out[..n]).unwrap();
        prop_assert_eq!(u8::from(view.next_header()), next);
        prop_assert_eq!((view.security_parameters_index(), view.sequence_number()), (spi, seq));
        prop_assert_eq!(view.integrity_check_value().len(), icv);
    }

    #[test]
    fn ethernet_is_what_smoltcp_says(frame in prop::collection::vec(any::<u8>(), 14..80)) {
        let theirs = smol::EthernetFrame::new_checked(&frame[..]).unwrap();
        let ours = ether::Frame::new_checked(&frame[..]);
        // Lengths of 802.3 are not for us.
        prop_assert_eq!(ours.is_ok(), u16::from(theirs.ethertype()) >= 0x600);
        let Ok(ours) = ours else { return Ok(()) };
        prop_assert_eq!((ours.dst().0, ours.src().0), (theirs.dst_addr().0, theirs.src_addr().0));
        prop_assert_eq!(ours.ethertype(), EtherType(theirs.ethertype().into()));
        prop_assert_eq!(ours.payload(), theirs.payload());
    }

    /// Extension headers: etherparse walks the same chain to the same place.
    #[test]
    fn extension_headers_are_what_etherparse_says(
        kinds in prop::collection::vec(prop::sample::select(vec![43_u8, 44, 60]), 0..5), hop_by_hop: bool, offset in 0_u16..3, more: bool,
    ) {
        let mut chain: Vec<u8> = if hop_by_hop { vec![0] } else { vec![] };
        chain.extend(&kinds);
        let mut octets = Vec::new();
        for (index, &kind) in chain.iter().enumerate() {
            let next = chain.get(index + 1).copied().unwrap_or(17);
            let [hi, lo] = (offset << 3 | u16::from(more)).to_be_bytes();
            octets.extend(if kind == 44 { [next, 0, hi, lo, 0, 0, 0, 9] } else { [next, 0, 1, 4, 0, 0, 0, 0] });
        }
        octets.extend([0, 1, 0, 2, 0, 16, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8]);
        let first = IpProto(chain.first().copied().unwrap_or(17));
        let packet = build::raw6(ipv6::Repr { next_header: first, ..Default::default() }, &octets);
        let (ours, theirs) = (parse_ipv6(&packet), SlicedPacket::from_ip(&packet));
        let one_fragment = kinds.iter().position(|&k| k == 44) == kinds.iter().rposition(|&k| k == 44);
        let Ok(ours) = ours else {
            // Two fragment headers, which etherparse takes.
            prop_assert!(!one_fragment);
            return Ok(());
        };
        let Some(NetSlice::Ipv6(net)) = theirs.unwrap().net else { panic!("ipv6") };
        // Behind the fragment header of a later fragment there is only data: etherparse walks on.
        if ours.frag_offset == 0 {
            prop_assert_eq!(net.payload().payload.as_ptr(), packet[usize::from(ours.l4)..].as_ptr());
            prop_assert_eq!(ours.proto.0, net.payload().ip_number.0);
            if !ours.is_fragment() {
                prop_assert_eq!((ours.src_port, ours.dst_port), (1, 2));
            }
        }
        prop_assert_eq!(ours.is_fragment(), net.is_payload_fragmented());
    }
}

fn whole(v6: bool, is_tcp: bool, src: u128, dst: u128, sp: u16, dp: u16, payload: &[u8]) -> Vec<u8> {
    let tcp = tcp::Repr { src_port: sp, dst_port: dp, max_segment_size: Some(1460), ..Default::default() };
    let (s4, d4) = (Ipv4Addr::from_bits(src as u32), Ipv4Addr::from_bits(dst as u32));
    let (s6, d6) = (Ipv6Addr::from_bits(src), Ipv6Addr::from_bits(dst));
    match (v6, is_tcp) {
        (false, true) => build::tcp4(s4, d4, &tcp, payload),
        (false, false) => build::udp4(s4, d4, sp, dp, payload),
        (true, true) => build::tcp6(s6, d6, &tcp, payload),
        (true, false) => build::udp6(s6, d6, sp, dp, payload),
    }
}

/// Whether the upper layer is one that both sides understand in the same way, and is whole.
fn upper_is_whole(packet: &[u8], ip: &parse::Parsed) -> bool {
    let l4 = ip.l4(packet);
    if ip.is_fragment() || ip.flags.contains(parse::Flags::SHORT) {
        return false;
    }
    match ip.proto {
        IpProto::TCP => tcp::Packet::new_checked(l4).is_ok(),
        // Zero means "to the end" to etherparse; a length beyond the packet is wrong to both.
        IpProto::UDP => udp::Packet::new_checked(l4).is_ok(),
        IpProto::ICMP | IpProto::ICMPV6 => true,
        // AH, and mobility, HIP and shim6, are extension headers to etherparse.
        IpProto(51 | 135 | 139 | 140) => false,
        IpProto(n) => !ip.is_v6() || !IpProto(n).is_extension(),
    }
}
