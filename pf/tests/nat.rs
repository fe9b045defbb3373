//! Translation: nat, rdr, binat and their forms on match and pass rules, both ways, with ICMP errors and super-frames.

#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use std::{
    collections::HashSet,
    net::{IpAddr, Ipv4Addr},
};

use common::{
    CLIENT, Conversation, IN, LAN, OUT, SERVER, WAN, World,
    either::{BOTH, Party, echo, echo_reply, tcp, udp as datagram, unreachable},
    header,
};
use kern::{Gso, Mbuf, PktFlags};
use pf::{Direction, IfIndex, Kind, Verdict};
use wire::{IpProto, build, checksum, parse};

const OUTSIDE: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);

/// Source and destination of a packet whose checksums must verify.
fn ends(data: &[u8]) -> ((IpAddr, u16), (IpAddr, u16)) {
    let p = parse::parse_ip(data).expect("a sound packet");
    let end = p.end as usize;
    assert!(
        checksum::transport_ok(data, usize::from(p.l4), end, p.proto),
        "transport checksum of {data:02x?}"
    );
    let flow = p.flow(data);
    ((flow.src(), p.src_port), (flow.dst(), p.dst_port))
}

/// The same of IPv4.
fn ends4(data: &[u8]) -> ((Ipv4Addr, u16), (Ipv4Addr, u16)) {
    let v4 = |(a, port)| match a {
        IpAddr::V4(a) => (a, port),
        IpAddr::V6(a) => panic!("{a}"),
    };
    let (src, dst) = ends(data);
    (v4(src), v4(dst))
}

trait Through {
    /// The octets of a packet after pf has passed it.
    fn through(&mut self, direction: Direction, index: IfIndex, octets: &[u8]) -> Vec<u8>;
    fn pass(&mut self, direction: Direction, index: IfIndex, m: &mut Mbuf);
}

impl Through for World {
    fn through(&mut self, direction: Direction, index: IfIndex, octets: &[u8]) -> Vec<u8> {
        let mut m = self.packet(octets);
        self.pass(direction, index, &mut m);
        let data = m.data().to_vec();
        self.fixture.done(m);
        data
    }

    fn pass(&mut self, direction: Direction, index: IfIndex, m: &mut Mbuf) {
        match self.test(direction, index, m) {
            Verdict::Pass(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

fn udp(port: u16) -> Vec<u8> {
    build::udp4(CLIENT, SERVER, port, 53, b"question")
}

fn answer(to: (Ipv4Addr, u16)) -> Vec<u8> {
    build::udp4(SERVER, to.0, 53, to.1, b"answer")
}

#[test]
fn nat_gives_a_flow_the_outside_address_and_answers_come_back_to_the_client() {
    for party in BOTH {
        let Party { client, server, outside: outside_ip, .. } = party;
        for rules in [
            "nat on wan0 inet from 192.0.2.0/24 to any -> (wan0)\npass all\n",
            "nat on wan0 inet from 192.0.2.0/24 to any -> (wan0)\n",
            "match out on wan0 inet from 192.0.2.0/24 nat-to (wan0)\npass all no state\n",
            "pass out on wan0 inet from 192.0.2.0/24 to any nat-to 203.0.113.1\n",
            "nat pass on wan0 inet from 192.0.2.0/24 to any -> 203.0.113.1\nblock all\n",
        ] {
            let mut w = World::new(&party.rules(rules));
            let (src, dst) = ends(&w.through(OUT, WAN, &party.ask(4000)));
            assert_eq!((src.0, dst), (outside_ip, (server, 53)), "{rules}");
            assert!((50001..=65535).contains(&src.1), "{src:?}");
            let back = w.through(IN, WAN, &datagram(server, src.0, 53, src.1, b"answer"));
            assert_eq!(ends(&back), ((server, 53), (client, 4000)), "{rules}");
            // And again, by the state alone.
            assert_eq!(ends(&w.through(OUT, WAN, &party.ask(4000))).0, src);
            let states = w.states();
            let nat: Vec<_> = states.iter().filter(|s| s.wire != s.stack).collect();
            assert_eq!(nat.len(), 1, "{states:?}");
            assert_eq!(nat[0].line(None, false).split_whitespace().nth(2), Some(&*party.shown(client, 4000)));
            assert!(
                nat[0].line(None, false).contains(&format!("({})", party.shown(outside_ip, src.1))),
                "{}",
                nat[0].line(None, false)
            );
        }
    }
}

#[test]
fn filter_rules_see_the_translated_packet() {
    let mut w = World::new(
        "nat on wan0 inet proto udp from 192.0.2.0/24 to any -> 203.0.113.1\nblock all\npass out on wan0 inet from 203.0.113.1\n",
    );
    w.through(OUT, WAN, &udp(4000));
    let mut w = World::new(
        "nat on wan0 inet from 192.0.2.0/24 to any -> 203.0.113.1\nblock return all\npass out on wan0 inet from 192.0.2.0/24\n",
    );
    let mut m = w.packet(&udp(4000));
    assert!(matches!(w.test(OUT, WAN, &mut m), Verdict::Return(..)));
    assert_eq!(ends4(m.data()).0, (CLIENT, 4000), "what is blocked is answered as it came");
    w.fixture.done(m);
    assert!(w.states().is_empty());
}

#[test]
fn no_nat_and_other_interfaces_leave_a_packet_alone() {
    let mut w = World::new(
        "no nat on wan0 inet from 192.0.2.9 to any\nnat on wan0 inet from any to any -> (wan0)\npass all\n",
    );
    assert_eq!(w.through(OUT, WAN, &udp(4000)), udp(4000));
    let other = build::udp4(Ipv4Addr::new(192, 0, 2, 10), SERVER, 1, 53, b"");
    assert_eq!(ends4(&w.through(OUT, WAN, &other)).0.0, OUTSIDE);
    let third = build::udp4(Ipv4Addr::new(192, 0, 2, 11), SERVER, 1, 53, b"");
    assert_eq!(w.through(OUT, LAN, &third), third);
}

#[test]
fn static_port_keeps_the_port_and_a_taken_one_is_refused() {
    let mut w = World::new("nat on wan0 inet from any to any -> 203.0.113.1 static-port\npass all\n");
    assert_eq!(ends4(&w.through(OUT, WAN, &udp(4000))).0, (OUTSIDE, 4000));
    let other = build::udp4(Ipv4Addr::new(192, 0, 2, 10), SERVER, 4000, 53, b"");
    assert!(!w.passes(OUT, WAN, &other));
    assert_eq!(w.pf.counters().translate.get(), 1);
}

#[test]
fn a_small_port_range_is_used_up_to_the_last_and_then_refuses() {
    let mut w = World::new("nat on wan0 inet from any to any -> 203.0.113.1 port 40000:40009\npass all\n");
    let mut ports = HashSet::new();
    for n in 0..10 {
        ports.insert(ends4(&w.through(OUT, WAN, &udp(4000 + n))).0.1);
    }
    assert_eq!(ports, (40000..=40009).collect());
    assert!(!w.passes(OUT, WAN, &udp(5000)));
    // Another destination has the ports to itself.
    assert!(w.passes(OUT, WAN, &build::udp4(CLIENT, SERVER, 5000, 54, b"")));
}

#[test]
fn a_pool_takes_its_addresses_in_turn_and_then_a_second_port_range() {
    let mut w = World::new(
        "nat on wan0 inet from any to any -> { 203.0.113.8, 203.0.113.9 } port 40000:40001 round-robin\npass all\n",
    );
    let sources: HashSet<_> = (0..4).map(|n| ends4(&w.through(OUT, WAN, &udp(4000 + n))).0).collect();
    assert_eq!(sources.len(), 4, "two addresses with two ports each: {sources:?}");
    assert!(!w.passes(OUT, WAN, &udp(4010)));
}

#[test]
fn an_echo_has_its_identifier_translated_both_ways() {
    for party in BOTH {
        let Party { client, server, outside: outside_ip, .. } = party;
        let mut w = World::new(&party.rules("nat on wan0 inet from any to any -> (wan0)\npass all\n"));
        let (src, dst) = ends(&w.through(OUT, WAN, &echo(client, server, 77)));
        assert_eq!((src.0, dst.0, src.1), (outside_ip, server, dst.1));
        let back = w.through(IN, WAN, &echo_reply(server, outside_ip, src.1));
        assert_eq!(ends(&back), ((server, 77), (client, 77)));
        // Two clients with one identifier get two.
        let other = echo(party.neighbour, server, 77);
        assert_ne!(ends(&w.through(OUT, WAN, &other)).0.1, src.1);
    }
}

#[test]
fn rdr_leads_to_the_server_inside_and_its_answers_seem_to_come_from_outside() {
    for party in BOTH {
        let Party { server, outside: outside_ip, .. } = party;
        let inside = party.in_lan(if party.is6() { 0x80 } else { 80 });
        for rules in [
            "rdr on wan0 inet proto tcp from any to 203.0.113.1 port 80 -> 192.0.2.80 port 8080\npass all\n",
            "rdr pass on wan0 inet proto tcp from any to (wan0) port 80 -> 192.0.2.80 port 8080\nblock all\n",
            "pass in on wan0 inet proto tcp from any to 203.0.113.1 port 80 rdr-to 192.0.2.80 port 8080\n",
            "match in on wan0 inet proto tcp to 203.0.113.1 port 80 rdr-to 192.0.2.80 port 8080\nblock all\npass in on wan0 inet proto tcp to 192.0.2.80 port 8080\n",
        ] {
            let mut w = World::new(&party.rules(rules));
            let syn = tcp(server, outside_ip, &header(4000, 80, "S", 1000, 0, 100), b"");
            assert_eq!(ends(&w.through(IN, WAN, &syn)), ((server, 4000), (inside, 8080)), "{rules}");
            let answer = tcp(inside, server, &header(8080, 4000, "SA", 5000, 1001, 100), b"");
            assert_eq!(ends(&w.through(OUT, WAN, &answer)), ((outside_ip, 80), (server, 4000)), "{rules}");
            let ack = tcp(server, outside_ip, &header(4000, 80, "A", 1001, 5001, 100), b"x");
            assert_eq!(ends(&w.through(IN, WAN, &ack)).1, (inside, 8080));
        }
    }
}

#[test]
fn rdr_of_a_port_range_keeps_the_distance_and_goes_round() {
    let mut w = World::new(
        "rdr on wan0 inet proto udp from any to any port 2000:2999 -> 192.0.2.80 port 22:*\nrdr on wan0 inet proto udp from any to any port 3000:3999 -> 192.0.2.80 port 500:501\npass all\n",
    );
    let mut port = |n| ends4(&w.through(IN, WAN, &build::udp4(SERVER, OUTSIDE, n, n, b""))).1.1;
    assert_eq!([2000, 2007, 2999].map(&mut port), [22, 29, 1021]);
    assert_eq!([3000, 3001, 3002].map(&mut port), [500, 501, 500]);
}

#[test]
fn two_redirections_of_one_source_to_one_place_are_told_apart_by_the_source_port() {
    let mut w = World::new(
        "rdr on wan0 inet proto udp from any to any port { 53, 54 } -> 192.0.2.80 port 5300\npass all\n",
    );
    let first = ends4(&w.through(IN, WAN, &build::udp4(SERVER, OUTSIDE, 999, 53, b"")));
    let second = ends4(&w.through(IN, WAN, &build::udp4(SERVER, OUTSIDE, 999, 54, b"")));
    assert_eq!((first.0, first.1), ((SERVER, 999), second.1));
    assert_ne!(second.0, first.0);
    let answer = build::udp4(Ipv4Addr::new(192, 0, 2, 80), SERVER, 5300, second.0.1, b"");
    assert_eq!(ends4(&w.through(OUT, WAN, &answer)), ((OUTSIDE, 54), (SERVER, 999)));
}

#[test]
fn binat_maps_both_ways_and_keeps_ports() {
    for party in BOTH {
        let Party { client, server, .. } = party;
        for rules in [
            "binat on wan0 inet from 192.0.2.0/28 to any -> 203.0.113.16/28\npass all\n",
            "match on wan0 inet from 192.0.2.0/28 to any binat-to 203.0.113.16/28\npass all\n",
        ] {
            let mut w = World::new(&party.rules(rules));
            let outside: IpAddr =
                if party.is6() { "2001:db8:b::19" } else { "203.0.113.25" }.parse().unwrap();
            assert_eq!(
                ends(&w.through(OUT, WAN, &party.ask(4000))),
                ((outside, 4000), (server, 53)),
                "{rules}"
            );
            assert_eq!(
                ends(&w.through(IN, WAN, &datagram(server, outside, 53, 4000, b"answer"))),
                ((server, 53), (client, 4000))
            );
            let unasked = datagram(server, outside, 9, 9, b"");
            assert_eq!(ends(&w.through(IN, WAN, &unasked)), ((server, 9), (client, 9)), "{rules}");
        }
    }
}

#[test]
fn icmp_errors_about_translated_flows_reach_the_sender_as_it_knows_the_flow() {
    for party in BOTH {
        let Party { client, server, router, outside: outside_ip, .. } = party;
        let mut w = World::new(&party.rules("nat on wan0 inet from any to any -> (wan0)\npass all\n"));
        for sent in [
            party.ask(4000),
            tcp(client, server, &header(4000, 80, "S", 1000, 0, 100), b""),
            echo(client, server, 77),
        ] {
            let outside = w.through(OUT, WAN, &sent);
            let error = w.through(IN, WAN, &unreachable(router, outside_ip, &outside));
            assert_eq!((ends(&error).0.0, ends(&error).1.0), (router, client));
            let quoted = &error[party.l4() + 8..];
            assert_eq!(quoted, &sent[..quoted.len()], "addresses, ports and checksums are those it sent");
        }
    }
}

#[test]
fn icmp_errors_from_inside_do_not_show_the_inside() {
    for party in BOTH {
        let Party { client, server, outside: outside_ip, .. } = party;
        let mut w = World::new(
            &party.rules("rdr on wan0 inet proto udp from any to any port 53 -> 192.0.2.9\npass all\n"),
        );
        let asked = datagram(server, outside_ip, 1000, 53, b"question");
        let inside = w.through(IN, WAN, &asked);
        let error = w.through(OUT, WAN, &unreachable(client, server, &inside));
        assert_eq!((ends(&error).0.0, ends(&error).1.0), (outside_ip, server));
        let quoted = &error[party.l4() + 8..];
        assert_eq!(quoted, &asked[..quoted.len()]);
    }
}

#[test]
fn a_super_frame_with_a_partial_checksum_is_translated_once_and_right() {
    let mut w = World::new("nat on wan0 inet from any to any -> (wan0)\npass all flags any\n");
    let whole = build::tcp4(CLIENT, SERVER, &header(4000, 80, "PA", 1000, 1, 500), &[7; 3000]);
    let mut m = w.packet(&whole);
    let end = m.len();
    checksum::transport_fill_partial(m.data_mut(), 20, end, IpProto::TCP).unwrap();
    m.hdr_mut().flags.set(PktFlags::PARTIAL);
    m.set_partial(20, 16);
    m.set_gso(Gso::Tcp4, 1000);
    w.pass(OUT, WAN, &mut m);
    checksum::finish_partial(m.data_mut(), 20, 16).unwrap();
    assert_eq!(ends4(m.data()).0.0, OUTSIDE);
    let nat = w.states().into_iter().find(|s| s.wire != s.stack).unwrap();
    assert_eq!(nat.packets, [3, 0], "counted as the segments it will be");
    w.fixture.done(m);
}

#[test]
fn a_connection_with_nat_keeps_its_window_over_reloads() {
    let rules = "nat on wan0 inet from any to any -> (wan0)\npass all\n";
    let mut w = World::new(rules);
    let c = Conversation::WEB;
    let (outside, _) = ends4(&w.through(OUT, WAN, &c.up("S", 1000, 0, 1000, 0)));
    let down = |flags: &str, seq, ack, len: usize| {
        build::tcp4(SERVER, outside.0, &header(80, outside.1, flags, seq, ack, 1000), &vec![0; len])
    };
    w.load(rules);
    assert_eq!(ends4(&w.through(IN, WAN, &down("SA", 9000, 1001, 0))).1, (CLIENT, 4000));
    w.load("block all\n");
    w.through(OUT, WAN, &c.up("A", 1001, 9001, 1000, 10));
    assert_eq!(ends4(&w.through(IN, WAN, &down("A", 9001, 1011, 100))).1, (CLIENT, 4000));
    assert!(!w.passes(IN, WAN, &down("A", 9_009_001, 1011, 100)), "far out of the window");
}

#[test]
fn an_error_about_a_translated_packet_can_be_undone() {
    for party in BOTH {
        let Party { outside: outside_ip, .. } = party;
        let mut w = World::new(&party.rules("nat on wan0 inet from any to any -> (wan0)\npass all\n"));
        let mut m = w.packet(&party.ask(4000));
        w.pass(OUT, WAN, &mut m);
        assert_eq!(ends(m.data()).0.0, outside_ip);
        w.undo(&mut m);
        assert_eq!(m.data(), party.ask(4000));
        w.undo(&mut m);
        assert_eq!(m.data(), party.ask(4000), "only once");
        w.fixture.done(m);
    }
}

#[test]
fn match_rules_stick_and_decide_nothing() {
    let mut w = World::new("match in on lan0 proto udp tag seen\nblock all\npass in tagged seen no state\n");
    assert!(w.passes(IN, LAN, &udp(1)));
    assert!(!w.passes(IN, LAN, &Conversation::WEB.up("S", 1, 0, 1, 0)));
    let mut w = World::new("match in all\n");
    assert!(w.passes(IN, LAN, &udp(1)), "no rule decides");
}

#[test]
fn received_on_tells_where_a_packet_came_in() {
    let mut w = World::new("block out on wan0 all\npass out on wan0 received-on lan0 no state\n");
    let mut passes = |rcvif| {
        let mut m = w.packet(&udp(1));
        m.hdr_mut().rcvif = rcvif;
        let passes = matches!(w.test(OUT, WAN, &mut m), Verdict::Pass(_));
        w.fixture.done(m);
        passes
    };
    assert!(passes(LAN.0) && !passes(WAN.0) && !passes(0));
}

#[test]
fn a_rule_with_a_probability_is_honoured_as_often() {
    let mut w = World::new("pass all no state\nblock in quick proto udp probability 25%\n");
    let passed = (0..4000).filter(|_| w.passes(IN, LAN, &udp(1))).count();
    assert!((2800..3200).contains(&passed), "{passed} of 4000, six standard deviations are 165");
}

/// Packets and octets of both directions that each rule has counted.
fn counted(w: &World, kind: Kind) -> Vec<[u64; 2]> {
    pf::show::rules(&w.ruleset, "", kind, &common::router()).iter().map(|rule| rule.packets).collect()
}

#[test]
fn every_rule_counts_a_packet_once_be_it_the_first_of_a_state_or_a_later_one() {
    let nat = "nat on wan0 inet from 192.0.2.0/24 to any -> 203.0.113.1\n";
    for (rules, kinds) in [
        (format!("{nat}pass all\n"), &[(Kind::Nat, 1), (Kind::Filter, 1)][..]),
        (nat.to_owned(), &[(Kind::Nat, 1)]),
        (nat.replace("nat on", "nat pass on"), &[(Kind::Nat, 1)]),
        (
            "match out on wan0 nat-to 203.0.113.1\npass all\n".to_owned(),
            // A match rule that only matches would be asked once a state; one that translates is the state's, too.
            &[(Kind::Filter, 2)],
        ),
        ("match out on wan0 nat-to 203.0.113.1\n".to_owned(), &[(Kind::Filter, 1)]),
        ("pass out on wan0 nat-to 203.0.113.1\n".to_owned(), &[(Kind::Filter, 1)]),
    ] {
        let mut w = World::new(&rules);
        let (src, _) = ends4(&w.through(OUT, WAN, &udp(4000)));
        for &(kind, n) in kinds {
            assert_eq!(counted(&w, kind), vec![[0, 1]; n], "{rules}: the first");
        }
        w.through(OUT, WAN, &udp(4000));
        w.through(IN, WAN, &answer(src));
        for &(kind, n) in kinds {
            assert_eq!(counted(&w, kind), vec![[1, 2]; n], "{rules}: all three");
        }
    }
    let mut w = World::new("rdr on lan0 proto udp to port 53 -> 198.51.100.9\npass all\n");
    w.through(IN, LAN, &udp(4000));
    assert_eq!((counted(&w, Kind::Rdr), counted(&w, Kind::Filter)), (vec![[1, 0]], vec![[1, 0]]));
}
