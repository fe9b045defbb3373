//! Sources: how many states, connections and nodes they may have, who overloads a rule, and sticky addresses. And what
//! `modulate state` does to sequence numbers.

#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use std::net::Ipv4Addr;

use common::{
    CLIENT, IN, LAN, OUT, SERVER, WAN, World,
    either::{INET, Party, both, tcp as segment, unreachable},
    header,
};
use kern::lock::{Root, levels::PfRules};
use pf::{Direction, IfIndex, Verdict, table::TableError};
use wire::{IpProto, build, checksum, tcp};

both! {
    a_source_has_as_many_states_as_the_rule_allows_and_others_have_theirs
    a_rule_has_as_many_sources_as_it_allows
    sources_tracked_globally_are_counted_over_all_rules
    nodes_live_on_without_states_for_src_track_seconds
    only_complete_handshakes_count_as_connections
    a_source_that_overloads_a_rule_goes_to_the_table_and_its_states_go
    modulated_ends_see_numbers_that_neither_has_chosen
}

fn client(n: u8) -> Ipv4Addr {
    Ipv4Addr::new(192, 0, 2, n)
}

fn syn(party: Party, from: u8, port: u16) -> Vec<u8> {
    segment(party.in_lan(from), party.server, &header(port, 80, "S", 1000, 0, 100), b"")
}

/// A whole handshake; whether its last packet passed.
fn connects(w: &mut World, party: Party, from: u8, port: u16) -> bool {
    let (client, server) = (party.in_lan(from), party.server);
    let synack = segment(server, client, &header(80, port, "SA", 5000, 1001, 100), b"");
    let ack = segment(client, server, &header(port, 80, "A", 1001, 5001, 100), b"");
    w.passes(IN, LAN, &syn(party, from, port)) && w.passes(OUT, LAN, &synack) && w.passes(IN, LAN, &ack)
}

fn settle(w: &World) -> usize {
    let mut root = Root::claim();
    let mut held = root.top();
    let settled = w.pf.settle(&mut held.at::<PfRules>(), 1);
    assert_eq!(settled.errors, []);
    settled.sources.len()
}

fn sources(w: &World) -> Vec<pf::track::SourceInfo> {
    let mut root = Root::claim();
    let mut held = root.top();
    w.pf.sources(&mut held.at::<PfRules>(), 1000)
}

fn a_source_has_as_many_states_as_the_rule_allows_and_others_have_theirs(party: Party) {
    let mut w = World::new("pass in on lan0 proto tcp keep state (source-track rule, max-src-states 2)\n");
    assert!(w.passes(IN, LAN, &syn(party, 9, 1)) && w.passes(IN, LAN, &syn(party, 9, 2)));
    assert!(!w.passes(IN, LAN, &syn(party, 9, 3)));
    assert!(w.passes(IN, LAN, &syn(party, 10, 1)));
    assert_eq!(w.pf.counters().src_limit.get(), 1);
    assert_eq!((w.states().len(), sources(&w).len()), (3, 2));
    assert_eq!(w.kill(|s| s.wire[0] == (party.in_lan(9), 1)), 1);
    assert!(w.passes(IN, LAN, &syn(party, 9, 3)), "an ended state makes room");
    w.kill(|_| true);
    assert_eq!(w.pf.source_count(), 0, "nodes go with their states");
}

#[test]
fn there_are_as_many_nodes_as_the_limit_says() {
    let rules = "pass in on lan0 proto tcp keep state (source-track rule)\n";
    let mut w = World::new(&format!("set limit src-nodes 2\n{rules}"));
    assert!(w.passes(IN, LAN, &syn(INET, 9, 1)) && w.passes(IN, LAN, &syn(INET, 10, 1)));
    assert!(!w.passes(IN, LAN, &syn(INET, 11, 1)));
    assert!(w.passes(IN, LAN, &syn(INET, 10, 2)), "one that there is");
    let c = w.pf.counters();
    assert_eq!((c.src_limit.get(), c.max_src_nodes.get()), (1, 0), "no rule says so");
    w.load(&format!("set limit {{ src-nodes 3, frags 10 }}\n{rules}"));
    assert!(w.passes(IN, LAN, &syn(INET, 11, 1)));
    w.kill(|_| true);
    assert_eq!(w.pf.source_count(), 0);
}

fn a_rule_has_as_many_sources_as_it_allows(party: Party) {
    let mut w = World::new("pass in on lan0 proto tcp keep state (source-track rule, max-src-nodes 2)\n");
    assert!(w.passes(IN, LAN, &syn(party, 9, 1)) && w.passes(IN, LAN, &syn(party, 10, 1)));
    assert!(!w.passes(IN, LAN, &syn(party, 11, 1)));
    assert!(w.passes(IN, LAN, &syn(party, 9, 2)));
}

fn sources_tracked_globally_are_counted_over_all_rules(party: Party) {
    let mut w = World::new(
        "pass in on lan0 proto tcp keep state (source-track global, max-src-states 1)\npass in on lan0 proto tcp to port 80 keep state (source-track global, max-src-states 2)\n",
    );
    let other = |port| segment(party.in_lan(9), party.server, &header(port, 81, "S", 1, 0, 1), b"");
    assert!(w.passes(IN, LAN, &other(1)) && w.passes(IN, LAN, &syn(party, 9, 1)));
    assert!(!w.passes(IN, LAN, &syn(party, 9, 2)) && !w.passes(IN, LAN, &other(2)));
}

fn nodes_live_on_without_states_for_src_track_seconds(party: Party) {
    let mut w =
        World::new("set timeout src.track 30\npass in on lan0 proto tcp keep state (source-track rule)\n");
    assert!(w.passes(IN, LAN, &syn(party, 9, 1)));
    w.kill(|_| true);
    assert_eq!(w.pf.source_count(), 1);
    for _ in 0..300 {
        w.purge();
    }
    assert_eq!(w.pf.source_count(), 1);
    w.advance(31);
    for _ in 0..300 {
        w.purge();
    }
    assert_eq!(w.pf.source_count(), 0);
    w.load("block all\n");
    let before = w.pf.slab().in_use();
    assert_eq!(before, 1, "a node lets go of its rule");
}

fn only_complete_handshakes_count_as_connections(party: Party) {
    let mut w = World::new("pass in on lan0 proto tcp keep state (max-src-conn 2)\n");
    for port in 100..110 {
        assert!(w.passes(IN, LAN, &syn(party, 9, port)));
    }
    assert!(connects(&mut w, party, 9, 1) && connects(&mut w, party, 9, 2));
    assert!(!connects(&mut w, party, 9, 3));
    assert!(connects(&mut w, party, 10, 1));
}

fn a_source_that_overloads_a_rule_goes_to_the_table_and_its_states_go(party: Party) {
    for (flush, left) in [("", 5), ("flush", 1), ("flush global", 0)] {
        let mut w = World::new(&format!(
            "table <bad> persist\nblock in quick from <bad>\npass in on lan0 proto udp keep state\npass in on lan0 proto tcp keep state (max-src-conn-rate 3/10, overload <bad> {flush})\n"
        ));
        assert!(w.passes(IN, LAN, &party.ask(1)));
        assert!((1..=3).all(|port| connects(&mut w, party, 9, port)));
        assert_eq!(settle(&w), 0);
        assert!(!connects(&mut w, party, 9, 4), "the fourth is too many");
        assert_eq!(settle(&w), 1);
        assert_eq!(w.states().len(), left - usize::from(flush.is_empty()), "{flush}");
        assert!(!w.passes(IN, LAN, &syn(party, 9, 5)), "it is in the table");
        assert!(w.passes(IN, LAN, &syn(party, 10, 5)));
    }
}

#[test]
fn a_const_table_takes_what_overloads_a_rule_and_nothing_from_users() {
    let mut w = World::new(
        "table <bad> const { 192.0.2.77 }\nblock in quick from <bad>\n\
         pass in on lan0 proto tcp keep state (max-src-conn-rate 1/10, overload <bad>)\n",
    );
    assert!(connects(&mut w, INET, 9, 1) && !connects(&mut w, INET, 9, 2));
    assert_eq!(settle(&w), 1);
    assert!(!w.passes(IN, LAN, &syn(INET, 9, 3)), "it is in the table");
    assert!(w.pf.tables().flush("", "bad").is_err());
}

#[test]
fn what_one_table_does_not_take_keeps_nothing_from_the_others() {
    let overload = |port: u16, name: &str| {
        format!(
            "pass in proto tcp to port {port} keep state (max-src-conn-rate 1/10, overload <{name}> flush)\n"
        )
    };
    // The first has a name that tables of this limit have no room for.
    let rules =
        format!("set limit table-entries 2\ntable <one> persist {{ 192.0.2.77 }}\n{}", overload(80, "one"));
    let mut w = World::new(&rules);
    for n in [9, 10, 11] {
        assert!(connects(&mut w, INET, n, 1) && !connects(&mut w, INET, n, 2));
    }
    let settled = w.pf.settle(&mut Root::claim().top().at(), 1);
    assert_eq!(settled.sources.len(), 3);
    // Two have no room, and that is said once; the states of all three go.
    assert_eq!(settled.errors, [TableError::Entries { wanted: 3, limit: 2 }]);
    assert_eq!((w.pf.tables().find("", "one").unwrap().len(), w.states().len()), (2, 0));
}

#[test]
fn a_sticky_source_keeps_its_address_while_it_has_states() {
    let mut w = World::new(
        "nat on wan0 inet from any to any -> { 203.0.113.8, 203.0.113.9 } round-robin sticky-address\npass all\n",
    );
    let mut outside = |n: u8, port| {
        let mut m = w.packet(&build::udp4(client(n), SERVER, port, 53, b""));
        assert!(matches!(w.test(OUT, WAN, &mut m), Verdict::Pass(_)));
        let octets = m.data()[15];
        w.fixture.done(m);
        octets
    };
    let first = outside(9, 1);
    assert!((2..9).all(|port| outside(9, port) == first));
    let second = outside(10, 1);
    assert_ne!(second, first);
    assert_eq!((outside(9, 20), outside(10, 20)), (first, second));
    assert_eq!(sources(&w).iter().filter(|s| s.address.is_some()).count(), 2);
}

/// A packet through pf, and its TCP header.
fn through(w: &mut World, direction: Direction, index: IfIndex, octets: &[u8]) -> (Vec<u8>, tcp::Repr) {
    let mut m = w.packet(octets);
    let verdict = w.test(direction, index, &mut m);
    assert!(matches!(verdict, Verdict::Pass(_)), "{verdict:?}");
    let data = m.data().to_vec();
    w.fixture.done(m);
    let l4 = if data[0] >> 4 == 6 { 40 } else { 20 };
    assert!(checksum::transport_ok(&data, l4, data.len(), IpProto::TCP));
    let segment = tcp::Packet::new_checked(&data[l4..]).unwrap();
    let repr = tcp::Repr::parse(&segment, None).unwrap();
    (data, repr)
}

fn modulated_ends_see_numbers_that_neither_has_chosen(party: Party) {
    let mut w = World::new("pass in on lan0 proto tcp modulate state\n");
    let up = |flags: &str, seq, ack, data: &[u8]| {
        segment(party.client, party.server, &header(4000, 80, flags, seq, ack, 1000), data)
    };
    let down = |flags: &str, seq, ack, data: &[u8]| {
        segment(party.server, party.client, &header(80, 4000, flags, seq, ack, 1000), data)
    };
    let (_, syn) = through(&mut w, IN, LAN, &up("S", 1000, 0, b""));
    assert_ne!(syn.seq, 1000);
    let (_, again) = through(&mut w, IN, LAN, &up("S", 1000, 0, b""));
    assert_eq!(again.seq, syn.seq, "a retransmission is the same");
    let (_, synack) = through(&mut w, OUT, LAN, &down("SA", 5000, syn.seq.wrapping_add(1), b""));
    assert_eq!(synack.ack, 1001);
    assert_ne!(synack.seq, 5000);
    let shown = synack.seq.wrapping_sub(5000);
    let (sent, ack) = through(&mut w, IN, LAN, &up("A", 1001, synack.seq.wrapping_add(1), b"request"));
    assert_eq!((ack.seq, ack.ack), (syn.seq.wrapping_add(1), 5001));
    let (_, data) = through(&mut w, OUT, LAN, &down("A", 5001, ack.seq.wrapping_add(7), b"answer"));
    assert_eq!((data.seq, data.ack), (5001_u32.wrapping_add(shown), 1008));
    let quote = 2 * party.l4() + 8;
    // An error quotes what it was shown, and is told to the sender in the sender's numbers.
    let mut m = w.packet(&unreachable(party.server, party.client, &sent));
    assert!(matches!(w.test(OUT, LAN, &mut m), Verdict::Pass(_)));
    assert!(checksum::transport_ok(
        m.data(),
        party.l4(),
        m.len(),
        if party.is6() { IpProto::ICMPV6 } else { IpProto::ICMP }
    ));
    assert_eq!(m.data()[quote + 4..quote + 8], 1001_u32.to_be_bytes());
    w.fixture.done(m);
    // Far beyond the window in the sender's own numbers.
    assert!(!w.passes(IN, LAN, &up("A", 900_000, synack.seq.wrapping_add(1), b"x")));
}

#[test]
fn modulation_and_translation_go_together_and_sack_blocks_follow() {
    let mut w = World::new(
        "nat on wan0 inet from any to any -> 203.0.113.1\npass out on wan0 proto tcp modulate state\n",
    );
    let out =
        |flags: &str, seq, ack| build::tcp4(CLIENT, SERVER, &header(4000, 80, flags, seq, ack, 1000), b"");
    let (_, syn) = through(&mut w, OUT, WAN, &out("S", 1000, 0));
    let reply = |flags: &str, seq, ack| {
        let header = header(80, syn.src_port, flags, seq, ack, 1000);
        build::tcp4(SERVER, Ipv4Addr::new(203, 0, 113, 1), &header, b"")
    };
    let (data, synack) = through(&mut w, IN, WAN, &reply("SA", 5000, syn.seq.wrapping_add(1)));
    assert_eq!((&data[16..20], synack.ack), (&CLIENT.octets()[..], 1001));
    let shown = synack.seq.wrapping_sub(5000);
    // The client has got 5101..5201 out of order: it says so in the numbers it was shown.
    let mut ack = header(4000, 80, "A", 1001, synack.seq.wrapping_add(1), 1000);
    ack.sack = [Some((5101_u32.wrapping_add(shown), 5201_u32.wrapping_add(shown))), None, None, None];
    let (data, _) = through(&mut w, OUT, WAN, &build::tcp4(CLIENT, SERVER, &ack, b""));
    let segment = tcp::Packet::new_checked(&data[20..]).unwrap();
    let found = segment.options().find_map(|option| match option {
        Ok((_, tcp::HeaderOption::Sack(blocks))) => tcp::sack_blocks(blocks).next(),
        _ => None,
    });
    assert_eq!(found, Some((5101, 5201)));
}
