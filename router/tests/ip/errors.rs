//! The ICMP errors a router owes: to whom, about what, with which octets, how many; and echo.

use crate::net::{FAR_V4, FAR_V6, Net, OUR_V4, OUR_V6, is_other_icmp6};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use wire::{IpProto, Mac, build, checksum, icmpv4, icmpv6, ipv4, ipv6, tcp};

const NOWHERE: Ipv4Addr = Ipv4Addr::new(10, 1, 2, 3);
const REJECTED: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 5);
const NOWHERE6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb9, 0, 0, 0, 0, 0, 5);
const REJECTED6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xdead, 0, 0, 0, 0, 5);

/// The one IPv4 error that came, checked octet by octet by another implementation; what it says and quotes.
fn told4(net: &mut Net) -> Option<(icmpv4::Error, Vec<u8>, Ipv4Addr)> {
    let packets = net.lan.packets(4);
    assert!(packets.len() <= 1, "{} errors", packets.len());
    let packet = packets.first()?;
    let smol = smoltcp::wire::Ipv4Packet::new_checked(&packet[..]).expect("an IPv4 packet");
    assert!(smol.verify_checksum());
    let message = smoltcp::wire::Icmpv4Packet::new_checked(smol.payload()).expect("an ICMP message");
    assert!(message.verify_checksum());
    let ip = ipv4::Packet::new_checked(&packet[..]).unwrap();
    assert_eq!((ip.dst(), ip.ttl(), ip.tos(), ip.frag()), (net.lan.v4, 64, 0xc0, 0));
    let repr = icmpv4::Repr::parse(&icmpv4::Packet::new_checked(ip.payload()).unwrap()).unwrap();
    let icmpv4::Repr::Error(error, quoted) = repr else { panic!("{repr:?}") };
    Some((error, quoted.to_vec(), ip.src()))
}

fn told6(net: &mut Net) -> Option<(icmpv6::Error, Vec<u8>, Ipv6Addr)> {
    let packets: Vec<_> = net.lan.packets(6).into_iter().filter(|p| is_other_icmp6(p)).collect();
    assert!(packets.len() <= 1, "{} errors", packets.len());
    let packet = packets.first()?;
    let smol = smoltcp::wire::Ipv6Packet::new_checked(&packet[..]).expect("an IPv6 packet");
    let message = smoltcp::wire::Icmpv6Packet::new_checked(smol.payload()).expect("an ICMPv6 message");
    assert!(message.verify_checksum(&smol.src_addr(), &smol.dst_addr()));
    let ip = ipv6::Packet::new_checked(&packet[..]).unwrap();
    assert_eq!((ip.dst(), ip.hop_limit()), (net.lan.v6, 64));
    let repr = icmpv6::Repr::parse(&icmpv6::Packet::new_checked(ip.payload()).unwrap(), ip.src(), ip.dst());
    let Ok(icmpv6::Repr::Error(error, quoted)) = repr else { panic!("{repr:?}") };
    Some((error, quoted.to_vec(), ip.src()))
}

fn with_ttl(mut packet: Vec<u8>, ttl: u8) -> Vec<u8> {
    if packet[0] >> 4 == 4 {
        ipv4::set_ttl(packet.first_chunk_mut().unwrap(), ttl);
    } else {
        packet[7] = ttl;
    }
    packet
}

fn with_df(mut packet: Vec<u8>) -> Vec<u8> {
    ipv4::set_word(packet.first_chunk_mut().unwrap(), 6, ipv4::DF);
    packet
}

#[test]
fn every_ipv4_error_is_sent_to_the_sender_and_quotes_the_packet() {
    use icmpv4::{Error as E, unreachable as code};
    let mut net = Net::new();
    let udp = |dst, len| build::udp4(Ipv4Addr::new(192, 0, 2, 16), dst, 1000, 2000, &vec![7; len]);
    let far = Ipv4Addr::new(198, 51, 100, 16);
    let odd = ipv4::Repr { src: net.lan.v4, dst: OUR_V4, proto: IpProto(200), ..ipv4::Repr::default() };
    let rows: [(Vec<u8>, E, &str); 6] = [
        (with_ttl(udp(far, 100), 1), E::TtlExceeded, "ip.ttl"),
        (udp(NOWHERE, 100), E::Unreachable(code::NET), "ip.no_route"),
        (udp(REJECTED, 100), E::Unreachable(code::ADMIN_PROHIBITED), "ip.reject"),
        (with_df(udp(far, 1400)), E::FragmentationNeeded(1300), "ip.too_big"),
        (udp(OUR_V4, 100), E::Unreachable(code::PORT), "host.closed"),
        (build::raw4(odd, &[1; 30]), E::Unreachable(code::PROTOCOL), "host.protocol"),
    ];
    for (packet, error, why) in rows {
        let before = net.bed.counts("r");
        net.lan.send(&packet);
        net.run(2);
        let (said, quoted, from) = told4(&mut net).unwrap_or_else(|| panic!("no {error:?}"));
        assert_eq!((said, from), (error, OUR_V4));
        assert_eq!(quoted.len(), packet.len().min(576 - 28), "{error:?}");
        if error != E::FragmentationNeeded(1300) {
            assert_eq!(quoted, packet[..quoted.len()], "{error:?} quotes the packet as it came");
        }
        let moved = net.moved(&before);
        assert_eq!(moved.get(why), Some(&1), "{moved:?}");
        assert_eq!(moved.get("icmp.sent"), Some(&1), "{moved:?}");
    }
    net.bed.finish();
}

#[test]
fn every_ipv6_error_is_sent_to_the_sender_and_quotes_the_packet() {
    use icmpv6::{Error as E, problem, unreachable as code};
    let mut net = Net::new();
    let (here, far) = (net.lan.v6, net.wan.v6);
    let udp = |dst, len| build::udp6(here, dst, 1000, 2000, &vec![7; len]);
    let odd = ipv6::Repr { src: here, dst: OUR_V6, next_header: IpProto(200), ..ipv6::Repr::default() };
    let rows: [(Vec<u8>, E, &str); 6] = [
        (with_ttl(udp(far, 100), 1), E::HopLimitExceeded, "ip6.hop_limit"),
        (udp(NOWHERE6, 100), E::Unreachable(code::NO_ROUTE), "ip.no_route"),
        (udp(REJECTED6, 100), E::Unreachable(code::ADMIN_PROHIBITED), "ip.reject"),
        (udp(far, 1400), E::PacketTooBig(1300), "ip.too_big"),
        (udp(OUR_V6, 100), E::Unreachable(code::PORT), "host.closed"),
        (build::raw6(odd, &[1; 30]), E::ParameterProblem(problem::NEXT_HEADER, 6), "host.protocol"),
    ];
    for (packet, error, why) in rows {
        let before = net.bed.counts("r");
        net.lan.send(&packet);
        net.run(2);
        let (said, quoted, from) = told6(&mut net).unwrap_or_else(|| panic!("no {error:?}"));
        assert_eq!((said, from), (error, OUR_V6));
        assert_eq!(quoted.len(), packet.len().min(1280 - 48), "{error:?}");
        assert_eq!(quoted[40..], packet[40..quoted.len()]);
        let moved = net.moved(&before);
        assert_eq!(moved.get(why), Some(&1), "{moved:?}");
    }
    net.bed.finish();
}

#[test]
fn a_source_beyond_its_scope_is_told_so_at_its_link_local_address() {
    let mut net = Net::new();
    let own = net.lan.mac.link_local();
    net.lan.send(&build::udp6(own, net.wan.v6, 1, 2, b"from a link-local address"));
    net.run(2);
    let mut packet = [0; 200];
    let len = wire::nd::advertise(&mut packet, own, net.lan.mac, net.lan.router.link_local(), false).unwrap();
    net.lan.send(&packet[..len]);
    net.run(2);
    let packets: Vec<_> = net.lan.packets(6).into_iter().filter(|p| is_other_icmp6(p)).collect();
    assert_eq!(packets.len(), 1);
    let ip = ipv6::Packet::new_checked(&packets[0][..]).unwrap();
    assert_eq!((ip.src(), ip.dst()), (net.lan.router.link_local(), own));
    assert_eq!(ip.payload()[..2], [1, 2]);
    net.bed.finish();
}

#[test]
fn nobody_is_told_where_rfc_1812_and_rfc_4443_forbid_it() {
    let mut net = Net::new();
    let (v4, v6) = (net.lan.v4, net.lan.v6);
    let ttl1 = |packet| with_ttl(packet, 1);
    let error4 = {
        let mut out = vec![0; 600];
        let about = build::udp4(net.wan.v4, v4, 1, 2, b"x");
        let n = icmpv4::build_error(&mut out, icmpv4::Error::TtlExceeded, v4, &about, 1).unwrap();
        out.truncate(n);
        out
    };
    let error6 = {
        let mut out = vec![0; 600];
        let about = build::udp6(net.wan.v6, v6, 1, 2, b"x");
        let n = icmpv6::build_error(&mut out, icmpv6::Error::HopLimitExceeded, v6, &about).unwrap();
        out.truncate(n);
        out
    };
    let mut later = build::udp4(v4, net.wan.v4, 1, 2, &[0; 64]);
    ipv4::set_word(later.first_chunk_mut().unwrap(), 6, 100);
    for (what, packet) in [
        ("an error", ttl1(error4)),
        ("an ICMPv6 error", ttl1(error6)),
        ("a later fragment", ttl1(later)),
        ("a subnet's broadcast", build::udp4(v4, Ipv4Addr::new(192, 0, 2, 255), 1, 2, b"x")),
        ("a closed port, asked by broadcast", build::udp4(v4, Ipv4Addr::BROADCAST, 1, 2, b"x")),
        ("a group", build::udp4(v4, ipv4::ALL_HOSTS, 1, 2, b"x")),
        ("an IPv6 group", build::udp6(v6, ipv6::ALL_NODES, 1, 2, b"x")),
        ("nobody", build::udp6(Ipv6Addr::UNSPECIFIED, net.wan.v6, 1, 2, b"x")),
    ] {
        net.lan.send(&packet);
        net.run(2);
        let said = net.lan.take();
        assert!(said.is_empty(), "about {what}: {said:x?}");
    }
    let broadcast = build::frame(Mac::BROADCAST, net.lan.mac, &ttl1(build::udp4(v4, net.wan.v4, 1, 2, b"x")));
    net.lan.send_frame(&broadcast);
    net.run(2);
    assert!(net.lan.take().is_empty(), "about a link-layer broadcast");
    assert_eq!(net.count("icmp.sent"), 0);
    net.bed.finish();
}

#[test]
fn a_hundred_errors_at_once_and_a_thousand_a_second() {
    let mut net = Net::new();
    let packet = with_ttl(build::udp4(net.lan.v4, net.wan.v4, 1, 2, b"x"), 1);
    for _ in 0..500 {
        net.lan.send(&packet);
    }
    net.bed.run_for(kern::time::Duration::ZERO);
    assert_eq!((net.count("icmp.sent"), net.count("icmp.limited")), (100, 400));
    for _ in 0..200 {
        for _ in 0..20 {
            net.lan.send(&packet);
        }
        net.run(5);
        net.lan.clear();
    }
    let sent = net.count("icmp.sent");
    assert!((1050..=1110).contains(&sent), "{sent} in one second and a burst");
    assert_eq!(net.count("ip.ttl"), 4500);
    net.bed.finish();
}

#[test]
fn one_segment_of_a_super_frame_is_quoted() {
    // Without offloads the cable finishes nothing: the frame says itself that it is a super-frame.
    let mut net = Net::with_offload();
    let header = tcp::Repr { src_port: 1, dst_port: 2, seq: 7, ..tcp::Repr::default() };
    let whole = build::tcp4(net.lan.v4, net.wan.v4, &header, &vec![0x5a; 20_000]);
    net.lan.send_super(&with_df(whole), 1400);
    net.run(2);
    let (said, quoted, _) = told4(&mut net).expect("too big for the far link");
    assert_eq!(said, icmpv4::Error::FragmentationNeeded(1300));
    let ip = ipv4::Packet::new_unchecked(&quoted[..]);
    assert_eq!((ip.total_len(), ip.checksum_ok()), (1440, true));
    net.bed.finish();
}

#[test]
fn echo_is_answered_in_both_families_on_both_addresses() {
    let mut net = Net::new();
    net.introduce();
    let before = net.bed.counts("r");
    for (n, dst) in [IpAddr::V4(OUR_V4), FAR_V4.into(), OUR_V6.into(), FAR_V6.into()].into_iter().enumerate()
    {
        let (request, family) = match dst {
            IpAddr::V4(dst) => (build::echo4(net.lan.v4, dst, 7, n as u16, b"ping"), 4),
            IpAddr::V6(dst) => (build::echo6(net.lan.v6, dst, 7, n as u16, b"ping"), 6),
        };
        net.lan.send(&request);
        net.run(2);
        let replies = net.lan.packets(family);
        assert_eq!(replies.len(), 1, "{dst}");
        let parsed = wire::parse::parse_ip(&replies[0]).unwrap();
        assert_eq!(parsed.icmp_type, if family == 4 { 0 } else { 129 });
        let l4 = usize::from(parsed.l4);
        assert!(checksum::transport_ok(&replies[0], l4, replies[0].len(), parsed.proto));
        assert_eq!(replies[0][l4 + 8..], *b"ping");
        assert_eq!(parsed.flow(&replies[0]).src(), dst);
    }
    let moved = net.moved(&before);
    assert_eq!(moved.get("icmp.echo_replies"), Some(&4), "{moved:?}");
    assert_eq!(net.bed.counts("r")["packet.created"], before["packet.created"], "answered in place");
    net.bed.finish();
}

#[test]
fn a_broadcast_ping_is_not_answered() {
    let mut net = Net::new();
    for dst in [Ipv4Addr::new(192, 0, 2, 255), Ipv4Addr::BROADCAST, ipv4::ALL_HOSTS] {
        let ping = build::echo4(net.lan.v4, dst, 7, 1, b"everyone");
        net.lan.send_frame(&build::frame(Mac::BROADCAST, net.lan.mac, &ping));
        // A group in a frame to us alone, too.
        net.lan.send(&ping);
        net.run(2);
    }
    assert!(net.lan.take().is_empty());
    assert_eq!(net.count("icmp.unanswered"), 6);
    net.bed.finish();
}

#[test]
fn who_could_go_straight_is_told_so_and_the_packet_goes_on() {
    let mut net = Net::new();
    net.introduce();
    let gateway = Ipv4Addr::new(192, 0, 2, 200);
    for (dst, better) in
        [(Ipv4Addr::new(10, 99, 1, 1), gateway), (Ipv4Addr::new(192, 0, 2, 77), Ipv4Addr::new(192, 0, 2, 77))]
    {
        let packet = build::udp4(net.lan.v4, dst, 1, 2, b"the long way");
        net.lan.send(&packet);
        net.run(2);
        let (said, quoted, from) = told4(&mut net).expect("a redirect");
        assert_eq!((said, from), (icmpv4::Error::Redirect(1, better), OUR_V4));
        assert_eq!(quoted[20..], packet[20..]);
    }
    for (dst, better) in [("2001:db8:99::1", "fe80::200"), ("2001:db8:a::77", "2001:db8:a::77")] {
        let (dst, better): (Ipv6Addr, Ipv6Addr) = (dst.parse().unwrap(), better.parse().unwrap());
        net.lan.send(&build::udp6(net.lan.v6, dst, 1, 2, b"the long way"));
        net.run(2);
        let frames = net.lan.take();
        let redirects: Vec<_> = frames.iter().filter_map(|f| crate::net::nd_of(f)).collect();
        let wanted = wire::nd::Body::Redirect { target: better, destination: dst };
        assert!(redirects.contains(&(wanted, net.lan.router.link_local())), "{redirects:?}");
    }
    // The packets wait for their next hops, which are not there.
    assert_eq!(net.bed.books("r").audit.owned_by(kern::Owner::Neighbour), 4);
    // A stranger that came through another router on the link is not told.
    net.lan.send(&build::udp4(Ipv4Addr::new(10, 98, 0, 1), Ipv4Addr::new(10, 99, 1, 1), 1, 2, b"x"));
    net.run(2);
    assert!(net.lan.packets(4).is_empty());
    net.bed.finish();
}
