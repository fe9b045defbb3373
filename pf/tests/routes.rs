//! `route-to`, `reply-to` and `dup-to`: which next hop a packet gets, by rules and by states, and what happens without one.

#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use std::net::{Ipv4Addr, Ipv6Addr};

use common::{CLIENT, Conversation, IN, LAN, OUT, SERVER, WAN, World, unreachable};
use kern::{PktFlags, Why};
use pf::{Direction, HopId, IfIndex, NextHop, Verdict};
use wire::build;

/// What becomes of a packet: nothing said, a next hop, a copy for one, or refused.
#[derive(Debug, PartialEq, Eq)]
enum Way {
    Pass,
    Route(NextHop),
    Copy(NextHop),
    Block(Why),
}

fn way(w: &mut World, direction: Direction, index: IfIndex, octets: &[u8]) -> Way {
    let verdict = w.verdict(direction, index, octets);
    let hop = |id: HopId| *w.pf.slab().next_hop(id).expect("a known next hop");
    match verdict {
        Verdict::Pass(_) => Way::Pass,
        Verdict::Route(_, id) => Way::Route(hop(id)),
        Verdict::Copy(_, id) => Way::Copy(hop(id)),
        Verdict::Block(why) => Way::Block(why),
        other @ Verdict::Return(..) => panic!("{other:?}"),
    }
}

fn hop(iface: IfIndex, gateway: &str) -> NextHop {
    NextHop { iface, gateway: (!gateway.is_empty()).then(|| gateway.parse().unwrap()) }
}

fn udp(source: u8) -> Vec<u8> {
    build::udp4(Ipv4Addr::new(192, 0, 2, source), SERVER, 4000, 53, b"question")
}

fn answer() -> Vec<u8> {
    build::udp4(SERVER, Ipv4Addr::new(192, 0, 2, 9), 53, 4000, b"answer")
}

#[test]
fn route_to_is_for_the_way_of_the_rule_with_and_without_a_state() {
    for (keep, states) in [("no state", 0), ("keep state", 1)] {
        let mut w = World::new(&format!(
            "pass all no state\npass in on lan0 route-to (wan0 203.0.113.254) inet {keep}\n"
        ));
        let there = Way::Route(hop(WAN, "203.0.113.254"));
        for _ in 0..3 {
            assert_eq!(way(&mut w, IN, LAN, &udp(9)), there);
        }
        let gateways: Vec<_> = w.states().iter().map(|s| s.gateway).collect();
        assert_eq!(gateways, vec![Some("203.0.113.254".parse().unwrap()); states]);
        assert_eq!(way(&mut w, OUT, LAN, &answer()), Way::Pass, "an answer goes as it always did");
    }
}

#[test]
fn reply_to_is_for_the_other_way_and_for_errors_too() {
    let mut w = World::new("pass in on lan0 reply-to (wan0 203.0.113.254) inet proto tcp keep state\n");
    let c = Conversation::WEB;
    assert_eq!(way(&mut w, IN, LAN, &c.up("S", 1000, 0, 8192, 0)), Way::Pass);
    let back = Way::Route(hop(WAN, "203.0.113.254"));
    assert_eq!(way(&mut w, OUT, LAN, &c.down("SA", 9000, 1001, 8192, 0)), back);
    let ack = c.up("A", 1001, 9001, 8192, 0);
    assert_eq!(way(&mut w, IN, LAN, &ack), Way::Pass);
    assert_eq!(way(&mut w, OUT, LAN, &unreachable(Ipv4Addr::new(198, 51, 100, 254), CLIENT, &ack)), back);
}

#[test]
fn dup_to_asks_for_a_copy_once() {
    let mut w = World::new("pass in on lan0 dup-to (wan0 203.0.113.253) inet keep state\n");
    let copy = Way::Copy(hop(WAN, "203.0.113.253"));
    assert_eq!(way(&mut w, IN, LAN, &udp(9)), copy);
    assert_eq!(way(&mut w, IN, LAN, &udp(9)), copy);
    assert_eq!(way(&mut w, OUT, LAN, &answer()), copy, "both ways, as pf does");
    let mut m = w.packet(&udp(9));
    m.hdr_mut().flags.set(PktFlags::COPIED);
    assert!(matches!(w.test(IN, LAN, &mut m), Verdict::Pass(_)));
    w.fixture.done(m);
}

#[test]
fn a_pool_is_gone_through_and_a_sticky_source_keeps_what_it_got() {
    let list = "{ (wan0 203.0.113.10), (lan0 192.0.2.254) }";
    let mut w = World::new(&format!("pass in on lan0 route-to {list} inet no state\n"));
    let hops = [Way::Route(hop(WAN, "203.0.113.10")), Way::Route(hop(LAN, "192.0.2.254"))];
    for i in 0..6 {
        assert_eq!(way(&mut w, IN, LAN, &udp(9)), hops[i % 2]);
    }
    let mut w =
        World::new(&format!("pass in on lan0 route-to {list} round-robin sticky-address inet no state\n"));
    let mut used = [0; 2];
    for source in 1..=40 {
        let first = way(&mut w, IN, LAN, &udp(source));
        assert_eq!(way(&mut w, IN, LAN, &udp(source)), first);
        used[hops.iter().position(|h| *h == first).unwrap()] += 1;
    }
    assert!(used.iter().all(|&n| n > 5), "{used:?}");
}

#[test]
fn an_inet_packet_may_have_an_inet6_next_hop_and_an_interface_may_stand_alone() {
    let mut w =
        World::new("pass in on lan0 route-to (wan0 2001:db8:b::fe) prefer-ipv6-nexthop inet no state\n");
    assert_eq!(way(&mut w, IN, LAN, &udp(9)), Way::Route(hop(WAN, "2001:db8:b::fe")));
    let mut w = World::new("pass in on lan0 route-to wan0 no state\n");
    assert_eq!(way(&mut w, IN, LAN, &udp(9)), Way::Route(hop(WAN, "")));
    let (a, b) = (Ipv6Addr::LOCALHOST, Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1));
    assert_eq!(way(&mut w, IN, LAN, &build::udp6(a, b, 1, 2, b"x")), Way::Route(hop(WAN, "")));
}

#[test]
fn no_interface_no_way_and_no_state() {
    let mut w = World::new("pass in on lan0 route-to (ppp0 10.0.0.2) inet keep state\n");
    assert_eq!(way(&mut w, IN, LAN, &udp(9)), Way::Block(Why::PfRoute));
    assert_eq!((w.states().len(), w.pf.counters().no_route.get()), (0, 1));
}

#[test]
fn a_bound_state_is_bound_where_its_packets_go_and_answers_by_another_way_find_it() {
    let mut w =
        World::new("block all\npass out on lan0 route-to (wan0 203.0.113.254) inet keep state (if-bound)\n");
    assert_eq!(way(&mut w, OUT, LAN, &udp(9)), Way::Route(hop(WAN, "203.0.113.254")));
    // At the interface it was sent to: this state, not another.
    assert_eq!(way(&mut w, OUT, WAN, &udp(9)), Way::Route(hop(WAN, "203.0.113.254")));
    assert_eq!(way(&mut w, IN, WAN, &answer()), Way::Pass);
    assert_eq!(w.states().len(), 1);
    let mut w =
        World::new("block all\npass in on lan0 reply-to (wan0 203.0.113.254) inet keep state (if-bound)\n");
    assert_eq!(way(&mut w, IN, LAN, &udp(9)), Way::Pass);
    assert_eq!(way(&mut w, OUT, WAN, &answer()), Way::Route(hop(WAN, "203.0.113.254")));
}

#[test]
fn reloads_do_not_add_next_hops_and_a_state_keeps_its_own() {
    let mut w = World::new("pass in on lan0 route-to (wan0 203.0.113.254) inet keep state\n");
    way(&mut w, IN, LAN, &udp(9));
    for n in 0..20 {
        w.load(&format!("pass in on lan0 route-to (wan0 203.0.113.{}) inet keep state\n", 1 + n % 2));
        assert_eq!(way(&mut w, IN, LAN, &udp(9)), Way::Route(hop(WAN, "203.0.113.254")));
        let other = Way::Route(hop(WAN, &format!("203.0.113.{}", 1 + n % 2)));
        assert_eq!(way(&mut w, IN, LAN, &udp(10)), other);
        w.kill(|s| s.line(None, false).contains("192.0.2.10"));
    }
}

#[test]
fn an_interface_alone_may_stand_in_a_list_and_is_chosen_as_often_as_an_address() {
    let v6 = build::udp6(
        "2001:db8:a::9".parse().unwrap(),
        "2001:db8:f::1".parse().unwrap(),
        4000,
        53,
        b"question",
    );
    let mut w = World::new("pass in on lan0 route-to { wan0, (lan0 192.0.2.254) } no state\n");
    let ways: Vec<Way> = (0..4).map(|_| way(&mut w, IN, LAN, &udp(9))).collect();
    let (link, gateway) = (Way::Route(hop(WAN, "")), Way::Route(hop(LAN, "192.0.2.254")));
    assert_eq!([&ways[0], &ways[2]], [&link; 2]);
    assert_eq!([&ways[1], &ways[3]], [&gateway; 2]);
    w.load("pass in on lan0 route-to { wan0, enc0 } sticky-address no state\n");
    let by_source: Vec<Way> = (2..40).map(|source| way(&mut w, IN, LAN, &udp(source))).collect();
    assert!([WAN, IfIndex(3)].iter().all(|&i| by_source.contains(&Way::Route(hop(i, "")))));
    assert_eq!(by_source[7], way(&mut w, IN, LAN, &udp(9)), "a source stays with one");
    assert!(
        matches!(way(&mut w, IN, LAN, &v6), Way::Route(NextHop { gateway: None, .. })),
        "of both families"
    );
}
