//! Messages of IGMP and MLD pass with the router alert that they must carry, and with no other option; what is forged does not.

#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use std::net::{Ipv4Addr, Ipv6Addr};

use common::{CLIENT, IN, LAN, SERVER, World};
use kern::{PktFlags, Why};
use pf::Verdict;
use wire::{IpProto, build, checksum, ipv4, ipv6};

/// An IPv4 packet with these options, of IGMP or another protocol.
fn igmp(proto: IpProto, ttl: u8, dst: Ipv4Addr, options: &[u8]) -> Vec<u8> {
    let report = [0x16, 0, 0x09, 0xf6, 224, 0, 0, 9];
    let plain = build::raw4(ipv4::Repr { src: CLIENT, dst, proto, ttl, ..ipv4::Repr::default() }, &report);
    let mut packet = [&plain[..20], options, &plain[20..]].concat();
    let len = packet.len() as u16;
    packet[0] = 0x45 + (options.len() / 4) as u8;
    let mut view = ipv4::Packet::new_unchecked(&mut packet[..]);
    view.set_total_len(len);
    view.fill_checksum();
    packet
}

const ALERT: [u8; 4] = [148, 4, 0, 0];
const GROUP: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 9);

/// Why a packet is blocked that `ip_input` has looked at.
fn blocked(w: &mut World, octets: &[u8]) -> Option<Why> {
    let mut m = w.packet(octets);
    if matches!(octets[0], 0x46..=0x4f) || (octets[0] >> 4 == 6 && octets[6] == 0) {
        m.hdr_mut().flags.set(PktFlags::OPTIONS);
    }
    let verdict = w.test(IN, LAN, &mut m);
    w.fixture.done(m);
    match verdict {
        Verdict::Pass(_) => None,
        Verdict::Block(why) => Some(why),
        other => panic!("{other:?}"),
    }
}

#[test]
fn igmp_passes_with_a_router_alert_and_with_nothing_else() {
    let options = Some(Why::PfOptions);
    for rules in ["pass all\n", "pass all no state\n", "match all tag x\n"] {
        let mut w = World::new(rules);
        let mut is = |proto, ttl, dst, options: &[u8]| blocked(&mut w, &igmp(proto, ttl, dst, options));
        assert_eq!(is(IpProto::IGMP, 1, GROUP, &ALERT), None, "{rules}");
        assert_eq!(is(IpProto::IGMP, 1, GROUP, &[1, 1, 1, 1]), options, "nothing but padding");
        assert_eq!(is(IpProto::IGMP, 1, GROUP, &[148, 4, 0, 0, 7, 3, 4, 0]), options, "another beside it");
        assert_eq!(is(IpProto::IGMP, 2, GROUP, &ALERT), options, "it has come from further");
        assert_eq!(is(IpProto::IGMP, 1, SERVER, &ALERT), options, "not to a group");
        assert_eq!(is(IpProto::GRE, 1, GROUP, &ALERT), options, "another protocol");
        assert_eq!(w.pf.counters().ip_option.get(), 5);
    }
    let mut w = World::new("pass all allow-opts\n");
    assert_eq!(blocked(&mut w, &igmp(IpProto::IGMP, 1, GROUP, &[1, 1, 1, 1])), None);
    assert_eq!(blocked(&mut w, &igmp(IpProto::IGMP, 2, GROUP, &[])), options, "whatever the rules say");
    let mut w = World::new("block all\n");
    assert_eq!(blocked(&mut w, &igmp(IpProto::IGMP, 1, GROUP, &ALERT)), Some(Why::PfBlock));
}

/// MLD of this type behind a hop-by-hop header.
fn mld(kind: u8, hop_limit: u8, src: &str, options: [u8; 6]) -> Vec<u8> {
    let header = ipv6::Repr {
        src: src.parse::<Ipv6Addr>().unwrap(),
        dst: "ff02::1".parse().unwrap(),
        next_header: IpProto::HOPOPTS,
        hop_limit,
        ..ipv6::Repr::default()
    };
    let message = [&[kind][..], &[0; 23]].concat();
    let mut packet = build::raw6(header, &[&[58, 0][..], &options, &message].concat());
    let end = packet.len();
    checksum::transport_fill(&mut packet, 48, end, IpProto::ICMPV6).unwrap();
    packet
}

#[test]
fn mld_passes_with_a_router_alert_from_a_neighbour_only() {
    const ALERT: [u8; 6] = [5, 2, 0, 0, 1, 0];
    const PADDING: [u8; 6] = [1, 4, 0, 0, 0, 0];
    let mut w = World::new("pass all\n");
    let mut is = |kind, hops, src: &str, options| blocked(&mut w, &mld(kind, hops, src, options));
    for kind in [130, 131, 132, 143] {
        assert_eq!(is(kind, 1, "fe80::1", ALERT), None, "{kind}");
        assert_eq!(is(kind, 1, "fe80::1", PADDING), Some(Why::PfOptions), "{kind}: no alert");
        assert_eq!(is(kind, 2, "fe80::1", ALERT), Some(Why::PfOptions), "{kind}: from further");
        assert_eq!(is(kind, 1, "2001:db8:a::9", ALERT), Some(Why::PfOptions), "{kind}: not of the link");
        // Who has no address yet reports, and asks nothing (RFC 3590).
        assert_eq!(is(kind, 1, "::", ALERT), (kind == 130).then_some(Why::PfOptions), "{kind}");
    }
    assert_eq!(is(128, 1, "fe80::1", ALERT), Some(Why::PfOptions), "an echo");
    // A second header may have any options.
    let mut twice = mld(131, 1, "fe80::1", ALERT);
    twice.splice(48..48, [58, 0, 1, 4, 0, 0, 0, 0]);
    (twice[5], twice[40]) = (twice[5] + 8, 60);
    assert_eq!(blocked(&mut w, &twice), Some(Why::PfOptions));
    assert!(w.states().is_empty(), "MLD makes no state");
}

#[test]
fn a_message_of_the_routers_own_passes_its_own_rules() {
    let mut out = [0; 256];
    let src = "fe80::1".parse().unwrap();
    let records = [(wire::igmp::RecordType::ToExclude, "ff02::1:ff00:9".parse().unwrap())];
    let len = wire::mld::report(&mut out, src, &records).unwrap();
    let mut w = World::new("pass all no state\n");
    assert_eq!(blocked(&mut w, &out[..len]), None);
}
