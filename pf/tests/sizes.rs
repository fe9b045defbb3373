//! `max-pkt-size` and `max-pkt-rate`: how long packets may be that a rule passes, and how many it matches.

#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use common::{CLIENT, Conversation, IN, LAN, OUT, SERVER, WAN, World, unreachable};
use kern::{Gso, Why};
use pf::Verdict;
use wire::{build, icmpv4};

const WEB: Conversation = Conversation::WEB;

/// Octets of IP and UDP headers.
const HEADERS: usize = 28;

fn udp(port: u16, bytes: usize) -> Vec<u8> {
    build::udp4(CLIENT, SERVER, 4000, port, &vec![0; bytes - HEADERS])
}

fn ping(id: u16) -> Vec<u8> {
    build::icmp4(CLIENT, SERVER, &icmpv4::Repr::EchoRequest { ident: id, seq: 1, data: b"0123" })
}

fn pong(id: u16) -> Vec<u8> {
    build::icmp4(SERVER, CLIENT, &icmpv4::Repr::EchoReply { ident: id, seq: 1, data: b"0123" })
}

#[test]
fn longer_packets_end_whichever_rule_says_how_long_they_may_be() {
    let rulesets = [
        ("pass max-pkt-size 128\n", 128),
        ("pass max-pkt-size 128 no state\n", 128),
        // A match rule speaks for what passes behind it, of several the last, and above all the rule that passes.
        ("match in max-pkt-size 128\npass\n", 128),
        ("match max-pkt-size 2000\nmatch in max-pkt-size 128\npass no state\n", 128),
        ("match in max-pkt-size 60\npass max-pkt-size 128\n", 128),
        // No rule passes it.
        ("match in max-pkt-size 128\n", 128),
        ("pass max-pkt-size 1400\n", 1400),
    ];
    for (rules, most) in rulesets {
        let mut w = World::new(rules);
        assert!(w.passes(IN, LAN, &udp(53, most)), "{rules}");
        let longer = w.verdict(IN, LAN, &udp(54, most + 1));
        assert!(matches!(longer, Verdict::Block(Why::PfNormalize)), "{rules}: {longer:?}");
        assert_eq!(w.pf.counters().normalize.get(), 1, "{rules}");
        // It makes no state.
        assert!(w.states().len() <= 1, "{rules}");
    }
}

#[test]
fn packets_of_a_state_are_held_to_it_both_ways() {
    let mut w = World::new("pass in on lan0 max-pkt-size 500\n");
    assert!(w.passes(IN, LAN, &WEB.up("S", 1000, 0, 8192, 0)));
    assert!(w.passes(OUT, LAN, &WEB.down("SA", 9000, 1001, 8192, 0)));
    assert!(w.passes(IN, LAN, &WEB.up("A", 1001, 9001, 8192, 460)));
    let long = [(IN, WEB.up("A", 1461, 9001, 8192, 461)), (OUT, WEB.down("A", 9001, 1001, 8192, 461))];
    for (direction, packet) in long {
        assert!(matches!(w.verdict(direction, LAN, &packet), Verdict::Block(Why::PfNormalize)));
    }
    assert!(w.passes(OUT, LAN, &WEB.down("A", 9001, 1001, 8192, 460)));
}

#[test]
fn a_super_frame_is_as_long_as_what_it_becomes_on_the_wire() {
    let mut w = World::new("pass in on lan0 max-pkt-size 500\n");
    assert!(w.passes(IN, LAN, &WEB.up("S", 1000, 0, 60_000, 0)));
    assert!(w.passes(OUT, LAN, &WEB.down("SA", 9000, 1001, 60_000, 0)));
    for (size, passes) in [(460, true), (461, false)] {
        let mut m = w.packet(&WEB.up("A", 1001, 9001, 60_000, 4600));
        (m.hdr_mut().gso, m.hdr_mut().gso_size) = (Gso::Tcp4, size);
        assert_eq!(matches!(w.test(IN, LAN, &mut m), Verdict::Pass(_)), passes, "{size}");
        w.fixture.done(m);
    }
}

#[test]
fn a_rule_matches_so_many_packets_in_so_many_seconds() {
    // After FreeBSD's tests/sys/netpfil/pf/max_pkt_rate.sh.
    let mut w = World::new("block\npass in proto icmp max-pkt-rate 2/2\n");
    assert!(w.passes(IN, LAN, &ping(1)) && w.passes(IN, LAN, &ping(2)));
    assert!(matches!(w.verdict(IN, LAN, &ping(3)), Verdict::Block(Why::PfBlock)));
    w.advance(1);
    assert!(!w.passes(IN, LAN, &ping(3)));
    w.advance(2);
    assert!(w.passes(IN, LAN, &ping(3)));
    // Other packets do not count.
    let mut w = World::new("block\npass in proto icmp max-pkt-rate 1/2\n");
    assert!(!w.passes(IN, LAN, &udp(53, 100)) && w.passes(IN, LAN, &ping(1)));
}

#[test]
fn packets_of_its_states_count_that_go_as_their_first_did() {
    let mut w = World::new("block\npass in proto icmp max-pkt-rate 3/1\n");
    for _ in 0..3 {
        assert!(w.passes(IN, LAN, &ping(7)));
        // Answers pass, and are not counted.
        assert!(w.passes(OUT, LAN, &pong(7)) && w.passes(OUT, LAN, &pong(7)));
    }
    assert!(matches!(w.verdict(IN, LAN, &ping(7)), Verdict::Block(Why::PfBlock)));
    assert!(w.passes(OUT, LAN, &pong(7)));
    // What is beyond the rate is no packet of the state.
    let [state] = &w.states()[..] else { panic!("one state") };
    assert_eq!(state.packets, [3, 7]);
    w.advance(1);
    assert!(w.passes(IN, LAN, &ping(7)));
}

#[test]
fn beyond_the_rate_the_rules_before_and_behind_say_what_happens() {
    let text = "pass in proto udp no state set prio 1\nmatch in proto udp max-pkt-rate 1/1 tag few\n\
                block in quick proto udp max-pkt-rate 1/10\nblock in tagged few\n";
    let mut w = World::new(text);
    assert!(!w.passes(IN, LAN, &udp(53, 100)), "the quick rule");
    assert!(w.passes(IN, LAN, &udp(53, 100)), "neither the match rule nor the quick one");
    w.advance(1);
    assert!(!w.passes(IN, LAN, &udp(53, 100)), "the match rule again");
    assert!(w.passes(IN, LAN, &udp(53, 100)));
}

#[test]
fn a_reload_begins_a_rate_anew_and_states_go_on_with_that_of_their_rule() {
    let rules = "block\npass in proto icmp max-pkt-rate 2/60\n";
    let mut w = World::new(rules);
    assert!(w.passes(IN, LAN, &ping(7)));
    w.load(rules);
    assert!(w.passes(IN, LAN, &ping(7)), "the second of the state's rule");
    assert!(w.passes(IN, LAN, &ping(8)) && w.passes(IN, LAN, &ping(9)));
    assert!(!w.passes(IN, LAN, &ping(10)));
    let first = w.states().into_iter().find(|s| s.wire[0].1 == 7).unwrap();
    assert_eq!(first.packets, [2, 0]);
}

#[test]
fn an_error_about_a_packet_is_not_metered() {
    let mut w = World::new("block\npass out on wan0 proto udp max-pkt-rate 1/10\n");
    let question = udp(53, 100);
    assert!(w.passes(OUT, WAN, &question));
    assert!(w.passes(IN, WAN, &unreachable(SERVER, CLIENT, &question)));
    assert!(!w.passes(OUT, WAN, &question));
}
