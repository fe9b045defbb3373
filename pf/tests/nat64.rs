//! `af-to` packet by packet: what a packet of the other family says, both ways, with errors and what they quote.

#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use common::{
    IN, LAN, WAN, World,
    families::{CLIENT6, OUTSIDE, SERVER, SERVER6, ends, packet, through},
    header, unreachable,
};
use kern::{Gso, PktFlags};
use pf::Verdict;
use wire::{IpProto, build, checksum, icmpv4, icmpv6, ipv4, ipv6, parse};

const RULES: &str = "block all\npass in on lan0 inet6 from any to 64:ff9b::/96 af-to inet from 203.0.113.1\n\
                     pass in on wan0 inet from any to 203.0.113.9 af-to inet6 from 64:ff9b::/96 to 2001:db8:a::9\n";

fn syn6() -> Vec<u8> {
    let ip = ipv6::Repr {
        src: CLIENT6,
        dst: SERVER6,
        next_header: IpProto::TCP,
        hop_limit: 61,
        traffic_class: 0xb8,
        flow_label: 0x12345,
        ..ipv6::Repr::default()
    };
    build::tcp6_with(ip, &header(4000, 80, "S", 1000, 0, 8192), b"")
}

#[test]
fn a_connection_out_of_inet6_is_one_of_inet_outside_and_answers_come_back() {
    let mut w = World::new(RULES);
    let out = through(&mut w, LAN, &syn6()).unwrap();
    let ((src, port), dst) = ends(&out);
    assert_eq!((src, dst), (IpAddr::V4(OUTSIDE), (IpAddr::V4(SERVER), 80)));
    assert!(port >= 50001);
    assert_eq!((out[8], out[1], out[6] & 0x40), (61, 0xb8, 0), "hop limit, class, no DF on what is small");
    let answer = build::tcp4(SERVER, OUTSIDE, &header(80, port, "SA", 9000, 1001, 8192), b"");
    let back = through(&mut w, WAN, &answer).unwrap();
    assert_eq!(ends(&back), ((IpAddr::V6(SERVER6), 80), (IpAddr::V6(CLIENT6), 4000)));
    // The state says so from here on, and tracks the connection.
    let ip = build::tcp6(CLIENT6, SERVER6, &header(4000, 80, "A", 1001, 9001, 8192), b"hello");
    assert_eq!(ends(&through(&mut w, LAN, &ip).unwrap()).0, (IpAddr::V4(OUTSIDE), port));
    let states = w.states();
    assert_eq!(states.len(), 1);
    assert_eq!((states[0].src.level, states[0].dst.level), ("ESTABLISHED", "ESTABLISHED"));
    assert_eq!(states[0].packets, [2, 1]);
    let line = states[0].line(None, false);
    for end in ["198.51.100.1:80", "203.0.113.1:", "2001:db8:a::9[4000]", "64:ff9b::c633:6401[80]"] {
        assert!(line.contains(end), "{line}");
    }
    // Beyond the window nothing changes its family.
    let wild = build::tcp4(SERVER, OUTSIDE, &header(80, port, "A", 900_000, 1001, 8192), b"x");
    assert_eq!(through(&mut w, WAN, &wild), None);
    assert_eq!(w.kill(|_| true), 1);
}

#[test]
fn echo_and_datagrams_cross_in_both_rules() {
    let mut w = World::new(RULES);
    let out = through(&mut w, LAN, &build::echo6(CLIENT6, SERVER6, 7, 1, b"abc")).unwrap();
    let ident = u16::from_be_bytes([out[24], out[25]]);
    assert_eq!((out[20], &out[28..]), (8, &b"abc"[..]));
    let mut reply = build::echo4(SERVER, OUTSIDE, ident, 1, b"abc");
    reply[20] = 0;
    reply[22..24].fill(0);
    let end = reply.len();
    checksum::transport_fill(&mut reply, 20, end, IpProto::ICMP).unwrap();
    let back = through(&mut w, WAN, &reply).unwrap();
    assert_eq!((back[40], u16::from_be_bytes([back[44], back[45]])), (129, 7));

    // Without a checksum over IPv4, with one over IPv6.
    let mut udp = build::udp4(SERVER, Ipv4Addr::new(203, 0, 113, 9), 53, 5000, b"question");
    udp[26..28].fill(0);
    let inside = through(&mut w, WAN, &udp).unwrap();
    let ((src, port), dst) = ends(&inside);
    assert_eq!((src, dst), (IpAddr::V6(SERVER6), (IpAddr::V6(CLIENT6), 5000)));
    let answer = build::udp6(CLIENT6, SERVER6, 5000, port, b"answer");
    let outside = through(&mut w, LAN, &answer).unwrap();
    assert_eq!(ends(&outside), ((IpAddr::V4(Ipv4Addr::new(203, 0, 113, 9)), 5000), (IpAddr::V4(SERVER), 53)));
}

#[test]
fn an_error_quotes_what_its_receiver_sent() {
    let mut w = World::new(RULES);
    let out = through(&mut w, LAN, &syn6()).unwrap();
    let router = Ipv4Addr::new(198, 51, 100, 254);
    let told = build::icmp4(
        router,
        OUTSIDE,
        &icmpv4::Repr::Error(icmpv4::Error::FragmentationNeeded(1400), &out[..28]),
    );
    let error = through(&mut w, WAN, &told).unwrap();
    let embedded = Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0xc633, 0x64fe);
    let message = icmpv6::Packet::new_checked(&error[40..]).unwrap();
    let icmpv6::Repr::Error(said, quoted) = icmpv6::Repr::parse(&message, embedded, CLIENT6).unwrap() else {
        panic!("{error:02x?}");
    };
    assert_eq!(said, icmpv6::Error::PacketTooBig(1420));
    let inner = parse::parse_quoted(quoted).unwrap();
    let flow = inner.flow(quoted);
    assert_eq!((flow.src(), flow.dst()), (IpAddr::V6(CLIENT6), IpAddr::V6(SERVER6)));
    assert_eq!((inner.src_port, inner.dst_port, inner.proto), (4000, 80, IpProto::TCP));
    assert_eq!(quoted[44..48], syn6()[44..48], "the sequence number it sent");
    // A port that nobody listens on, and one about nothing.
    let told = through(&mut w, WAN, &unreachable(router, OUTSIDE, &out)).unwrap();
    assert_eq!((told[40], told[41]), (1, 0), "no route to the destination");
    let stranger = build::udp4(OUTSIDE, SERVER, 1, 2, b"");
    assert_eq!(through(&mut w, WAN, &unreachable(router, OUTSIDE, &stranger)), None);
}

#[test]
fn an_error_of_inet6_about_an_answer_reaches_the_inet_host() {
    let mut w = World::new(RULES);
    let own = Ipv4Addr::new(203, 0, 113, 9);
    let question = build::udp4(SERVER, own, 53, 5000, b"question");
    let inside = through(&mut w, WAN, &question).unwrap();
    let refused = icmpv6::Repr::Error(icmpv6::Error::Unreachable(4), &inside);
    let told = through(&mut w, LAN, &build::icmp6(CLIENT6, SERVER6, &refused)).unwrap();
    assert_eq!(ends(&told).1.0, IpAddr::V4(SERVER));
    assert_eq!((told[20], told[21]), (3, 3));
    let quoted = &told[28..];
    let inner = parse::parse_quoted(quoted).unwrap();
    assert_eq!((inner.flow(quoted).src(), inner.flow(quoted).dst()), (IpAddr::V4(SERVER), IpAddr::V4(own)));
    assert_eq!((inner.src_port, inner.dst_port), (53, 5000));
}

#[test]
fn a_super_frame_changes_its_kind_and_a_partial_checksum_stays_partial() {
    let mut w = World::new(RULES);
    let syn = through(&mut w, LAN, &syn6()).unwrap();
    let port = ends(&syn).0.1;
    through(&mut w, WAN, &build::tcp4(SERVER, OUTSIDE, &header(80, port, "SA", 9000, 1001, 8192), b""))
        .unwrap();
    let mut octets = build::tcp4(SERVER, OUTSIDE, &header(80, port, "A", 9001, 1001, 8192), &[7; 1500]);
    let end = octets.len();
    checksum::transport_fill_partial(&mut octets, 20, end, IpProto::TCP).unwrap();
    let mut m = packet(&w, &octets);
    m.set_partial(20, 16);
    m.set_gso(Gso::Tcp4, 500);
    m.hdr_mut().flags.set(PktFlags::DF);
    assert!(matches!(w.test(IN, WAN, &mut m), Verdict::Pass(_)));
    assert_eq!((m.hdr().gso, m.hdr().gso_size, m.csum_start()), (Gso::Tcp6, 480, 40));
    let mut data = m.data().to_vec();
    checksum::finish_partial(&mut data, 40, 16).unwrap();
    assert!(checksum::transport_ok(&data, 40, data.len(), IpProto::TCP));
    w.fixture.done(m);
}

#[test]
fn what_may_be_fragmented_leaves_in_fragments_that_every_inet6_link_takes() {
    let mut w = World::new(RULES);
    let ip = |frag| ipv4::Repr {
        src: SERVER,
        dst: Ipv4Addr::new(203, 0, 113, 9),
        proto: IpProto::UDP,
        frag,
        ..ipv4::Repr::default()
    };
    for (frag, refragments) in [(0, true), (ipv4::DF, false)] {
        let udp = wire::udp::Repr { src_port: 9, dst_port: 9 };
        let mut m = packet(&w, &build::udp4_with(ip(frag), &udp, &[1; 1400]));
        assert!(matches!(w.test(IN, WAN, &mut m), Verdict::Pass(_)));
        assert_eq!(m.hdr().flags.has(PktFlags::REFRAG), refragments);
        assert_eq!(m.hdr().gso_size, if refragments { 1280 } else { 0 });
        w.fixture.done(m);
    }
}

#[test]
fn a_translation_is_undone_for_an_error_about_it() {
    let mut w = World::new(RULES);
    for _ in 0..2 {
        let mut m = packet(&w, &syn6());
        assert!(matches!(w.test(IN, LAN, &mut m), Verdict::Pass(_)));
        assert_eq!(m.hdr().family, 4);
        w.undo(&mut m);
        assert_eq!((m.hdr().family, m.hdr().proto), (6, 6));
        assert_eq!(ends(m.data()), ends(&syn6()));
        let data = m.data().to_vec();
        assert!(checksum::transport_ok(&data, 40, data.len(), IpProto::TCP));
        w.fixture.done(m);
    }
}

#[test]
fn what_has_no_counterpart_does_not_pass() {
    let mut w = World::new(RULES);
    // A query that is not echo, and a protocol without ports, which goes.
    let odd = icmpv6::Repr::Error(icmpv6::Error::Unreachable(1), &[0; 48]);
    assert_eq!(through(&mut w, LAN, &build::icmp6(CLIENT6, SERVER6, &odd)), None);
    let gre = ipv6::Repr { src: CLIENT6, dst: SERVER6, next_header: IpProto(47), ..ipv6::Repr::default() };
    let out = through(&mut w, LAN, &build::raw6(gre, &[0; 12])).unwrap();
    assert_eq!((ends(&out).1.0, out[9]), (IpAddr::V4(SERVER), 47));
}

#[test]
fn addresses_stand_where_rfc_6052_says() {
    for (prefix, dst) in [
        ("2001:db8::/32", "2001:db8:c633:6401::"),
        ("2001:db8:100::/40", "2001:db8:1c6:3364:1::"),
        ("2001:db8:122::/48", "2001:db8:122:c633:64:100::"),
        ("2001:db8:122:300::/56", "2001:db8:122:3c6:33:6401::"),
        ("2001:db8:122:344::/64", "2001:db8:122:344:c6:3364:100::"),
        ("2001:db8:122:344::/96", "2001:db8:122:344::c633:6401"),
    ] {
        let mut w =
            World::new(&format!("pass in on lan0 inet6 from any to {prefix} af-to inet from (wan0:0)\n"));
        let dst: Ipv6Addr = dst.parse().unwrap();
        let out = through(&mut w, LAN, &build::udp6(CLIENT6, dst, 1000, 53, b"")).unwrap();
        assert_eq!(ends(&out).1, (IpAddr::V4(SERVER), 53), "{prefix}");
    }
}
