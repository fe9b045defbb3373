//! `set keepcounters`: rules that a reload leaves as they are go on counting where they were.

#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use std::net::Ipv4Addr;

use common::{CLIENT, IN, LAN, OUT, SERVER, WAN, World, router};
use pf::{Kind, show};
use wire::build;

fn udp(port: u16) -> Vec<u8> {
    build::udp4(CLIENT, SERVER, 4000, port, b"question")
}

/// Evaluations, packets and octets of the rules of a kind.
fn counts(w: &World, path: &str, kind: Kind) -> Vec<(u64, u64, u64)> {
    let sum = |each: [u64; 2]| each.iter().sum();
    let rules = show::rules(&w.ruleset, path, kind, &router());
    rules.iter().map(|r| (r.evaluations, sum(r.packets), sum(r.bytes))).collect()
}

const KEEP: &str = "set keepcounters\n";

#[test]
fn a_rule_that_stays_goes_on_wherever_it_stands_and_without_the_option_begins_anew() {
    let rules = "pass in proto udp to port 1 no state\npass in proto udp to port 2 no state\n";
    let mut w = World::new(rules);
    assert!(w.passes(IN, LAN, &udp(1)) && w.passes(IN, LAN, &udp(2)) && w.passes(IN, LAN, &udp(2)));
    let counted = [(3, 1, 36), (3, 2, 72)];
    assert_eq!(counts(&w, "", Kind::Filter), counted);
    w.reload("", &format!("{KEEP}{rules}"));
    assert_eq!(counts(&w, "", Kind::Filter), counted);
    // Another order, and one between that is new; spaces and lines do not matter.
    let slots = w.pf.slab().in_use();
    let moved = "block in proto tcp\n\npass   in proto udp to port 2 no state\npass in inet proto udp to port 1 no state\n";
    w.reload("", &format!("{KEEP}{moved}"));
    assert_eq!(counts(&w, "", Kind::Filter), [(0, 0, 0), counted[1], (0, 0, 0)]);
    assert_eq!(w.pf.slab().in_use(), slots + 1);
    assert!(w.passes(IN, LAN, &udp(2)));
    assert_eq!(counts(&w, "", Kind::Filter), [(1, 0, 0), (4, 3, 108), (1, 0, 0)]);
    w.reload("", moved);
    assert_eq!(counts(&w, "", Kind::Filter), [(0, 0, 0); 3]);
}

#[test]
fn of_equal_rules_each_goes_on_as_one_of_them() {
    let rule = "match in proto udp tag x\n";
    let mut w = World::new(&format!("{KEEP}{rule}{rule}"));
    assert!(w.passes(IN, LAN, &udp(1)));
    w.reload("", &format!("{KEEP}{rule}"));
    assert!(w.passes(IN, LAN, &udp(1)));
    w.reload("", &format!("{KEEP}{}", rule.repeat(3)));
    assert_eq!(counts(&w, "", Kind::Filter), [(2, 2, 72), (0, 0, 0), (0, 0, 0)]);
}

#[test]
fn states_go_on_as_those_of_the_rule_and_know_its_new_number() {
    let rule = "pass in proto udp to port 1 keep state (max 2) label one\n";
    let mut w = World::new(&format!("{KEEP}{rule}"));
    assert!(w.passes(IN, LAN, &udp(1)));
    w.reload("", &format!("{KEEP}block in proto tcp\n{rule}"));
    let [state] = &w.states()[..] else { panic!("one state") };
    assert_eq!((state.rule, w.pf.slab().is_labelled(state.slot, "one")), (Some(1), true));
    assert!(w.passes(IN, LAN, &udp(1)));
    let rule = &show::rules(&w.ruleset, "", Kind::Filter, &router())[1];
    assert_eq!((rule.packets, rule.states, rule.states_made), ([2, 0], 1, 1));
}

#[test]
fn rules_of_anchors_and_those_that_translate_do_so_too() {
    let nat = "nat on wan0 inet from 192.0.2.0/24 to any -> 203.0.113.1\n";
    let rdr = "rdr on lan0 inet proto udp to port 9 -> 198.51.100.9\n";
    let text = |extra: &str| format!("{KEEP}{extra}{nat}{rdr}pass all no state\nanchor a\n");
    let mut w = World::new(&text(""));
    let inside = "pass in proto udp to port 3 no state\n";
    w.reload("a", inside);
    assert!(w.passes(IN, LAN, &udp(3)));
    let mut m = w.packet(&udp(5));
    assert!(matches!(w.test(OUT, WAN, &mut m), pf::Verdict::Pass(_)));
    assert_eq!(m.data()[12..16], Ipv4Addr::new(203, 0, 113, 1).octets());
    w.fixture.done(m);
    let before = [Kind::Nat, Kind::Filter].map(|kind| counts(&w, "", kind));
    assert_eq!(before[0], [(1, 1, 36)]);
    let of_anchor = counts(&w, "a", Kind::Filter);
    assert_eq!(of_anchor[0].1, 1);
    w.reload("", &text("no nat on wan0 proto tcp\n"));
    assert_eq!(counts(&w, "", Kind::Nat), [(0, 0, 0), before[0][0]]);
    assert_eq!(counts(&w, "", Kind::Filter), before[1]);
    assert_eq!(counts(&w, "a", Kind::Filter), of_anchor);
    // The option is that of the main ruleset.
    w.reload("a", &format!("block in proto tcp\n{inside}"));
    assert_eq!(counts(&w, "a", Kind::Filter), [(0, 0, 0), of_anchor[0]]);
}

#[test]
fn a_thousand_reloads_take_no_more_slots_than_one() {
    let rules = |n: u16| {
        format!("{KEEP}pass in proto udp to port {} no state\npass in proto udp to port 9 no state\n", n % 2)
    };
    let mut w = World::new(&rules(0));
    let slots = w.pf.slab().in_use();
    for n in 0..1000 {
        w.reload("", &rules(n));
        assert!(w.passes(IN, LAN, &udp(9)));
    }
    assert_eq!((counts(&w, "", Kind::Filter)[1], w.pf.slab().in_use()), ((1000, 1000, 36_000), slots));
}
