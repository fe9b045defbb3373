//! `scrub (...)`, `set tos`, `set prio` and `prio` of filter rules: what packets get besides being passed.

#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use common::{CLIENT, IN, LAN, OUT, SERVER, World, header};
use kern::Mbuf;
use pf::{Direction, Verdict};
use wire::{IpProto, build, checksum, ipv4, parse, tcp};

/// A packet with its headers noted, as `ip_input` leaves it.
fn packet(w: &World, octets: &[u8]) -> Mbuf {
    let mut m = w.packet(octets);
    let p = parse::parse_ip(octets).unwrap();
    m.set_l4(p.l4.into());
    m.hdr_mut().proto = p.proto.0;
    m
}

/// What a packet has become, checksums verified, and its priority.
fn passed(w: &mut World, direction: Direction, octets: &[u8], prio: u8) -> Option<(Vec<u8>, u8)> {
    let mut m = packet(w, octets);
    m.hdr_mut().prio = prio;
    let verdict = w.test(direction, LAN, &mut m);
    let (data, prio) = (m.data().to_vec(), m.hdr().prio);
    w.fixture.done(m);
    if !matches!(verdict, Verdict::Pass(_)) {
        return None;
    }
    let p = parse::parse_ip(&data).unwrap();
    assert!(checksum::transport_ok(&data, p.l4.into(), p.end as usize, p.proto));
    Some((data, prio))
}

fn segment(up: bool, flags: &str, mss: Option<u16>, ttl: u8, tos: u8) -> Vec<u8> {
    let (src, dst, ports) = if up { (CLIENT, SERVER, (4000, 80)) } else { (SERVER, CLIENT, (80, 4000)) };
    let tcp = tcp::Repr { max_segment_size: mss, ..header(ports.0, ports.1, flags, 1000, 0, 8192) };
    let ip = ipv4::Repr {
        src,
        dst,
        proto: IpProto::TCP,
        ttl,
        tos,
        frag: ipv4::DF,
        ident: 1,
        ..ipv4::Repr::default()
    };
    build::tcp4_with(ip, &tcp, b"")
}

/// TTL, don't-fragment, TOS, and MSS if there is one.
fn facts(data: &[u8]) -> (u8, bool, u8, Option<u16>) {
    let ip = ipv4::Packet::new_checked(data).unwrap();
    let mss = (data.len() >= 44).then(|| u16::from_be_bytes([data[42], data[43]]));
    (ip.ttl(), ip.dont_fragment(), data[1], mss)
}

#[test]
fn match_and_pass_rules_normalise_what_passes_and_a_state_does_so_both_ways() {
    for (rules, states) in [
        ("match scrub (no-df max-mss 1400)\nmatch in all scrub (min-ttl 10)\npass all no state\n", false),
        ("match scrub (no-df max-mss 1400)\npass in scrub (min-ttl 10) set tos 0x10 keep state\n", true),
        ("match scrub (no-df max-mss 1400 min-ttl 99)\npass in all scrub (min-ttl 10) keep state\n", true),
        ("match in scrub (no-df max-mss 1400 min-ttl 10)\n", false),
    ] {
        let mut w = World::new(rules);
        let tos = if rules.contains("tos") { 0x10 } else { 0 };
        let (data, _) = passed(&mut w, IN, &segment(true, "S", Some(1460), 3, 0), 0).unwrap();
        assert_eq!(facts(&data), (10, false, tos, Some(1400)), "{rules}");
        assert_eq!(w.states().len(), usize::from(states), "{rules}");
        if states {
            let back = tcp_back(1001);
            let (data, _) = passed(&mut w, OUT, &back, 0).unwrap();
            assert_eq!(facts(&data), (10, false, tos, Some(1400)), "{rules}");
        }
    }
}

/// The server's answer to the client's SYN.
fn tcp_back(ack: u32) -> Vec<u8> {
    let tcp = tcp::Repr { max_segment_size: Some(8960), ..header(80, 4000, "SA", 9000, ack, 8192) };
    let ip = ipv4::Repr {
        src: SERVER,
        dst: CLIENT,
        proto: IpProto::TCP,
        ttl: 5,
        frag: ipv4::DF,
        ..ipv4::Repr::default()
    };
    build::tcp4_with(ip, &tcp, b"")
}

#[test]
fn what_is_blocked_stays_as_it_came() {
    let mut w = World::new("match scrub (no-df min-ttl 99)\nblock all\n");
    let syn = segment(true, "S", Some(1460), 3, 0);
    let mut m = packet(&w, &syn);
    assert!(matches!(w.test(IN, LAN, &mut m), Verdict::Block(_)));
    assert_eq!(m.data(), syn);
    w.fixture.done(m);
}

#[test]
fn random_ids_are_for_whole_packets() {
    let mut w = World::new("pass in scrub (random-id) no state\n");
    let ids: std::collections::HashSet<_> = (0..20)
        .map(|_| passed(&mut w, IN, &segment(true, "S", None, 64, 0), 0).unwrap().0[4..6].to_vec())
        .collect();
    assert!(ids.len() > 15, "{ids:?}");
}

#[test]
fn priorities_are_set_by_kind_of_packet_and_matched() {
    let mut w = World::new("pass in set prio (3, 6) keep state\nblock in prio 5\n");
    assert_eq!(passed(&mut w, IN, &segment(true, "S", None, 64, 0), 0).unwrap().1, 3);
    // By the state.
    assert_eq!(passed(&mut w, IN, &segment(true, "S", None, 64, 0), 2).unwrap().1, 3);
    assert_eq!(passed(&mut w, IN, &segment(true, "S", None, 64, 0x10), 0).unwrap().1, 6);
    assert_eq!(passed(&mut w, OUT, &tcp_back(1001), 0).unwrap().1, 3);
    let other = build::udp4(CLIENT, SERVER, 1, 2, b"");
    assert_eq!(passed(&mut w, IN, &other, 5), None);
    assert_eq!(passed(&mut w, IN, &other, 4).unwrap().1, 3);
    let mut w = World::new("match in set prio 7\npass in no state\n");
    assert_eq!(passed(&mut w, IN, &other, 0).unwrap().1, 7);
}
