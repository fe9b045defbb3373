//! `set debug`: which packets that end are told of at which level, and how often.

#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use common::{CLIENT, Conversation, IN, LAN, OUT, SERVER, World};
use pf::{debug::Level, show};
use wire::{build, ipv4};

fn world(level: &str) -> World {
    World::new(&format!("{level}pass in on lan0 proto tcp\npass in on lan0 proto udp keep state (max 1)\n"))
}

/// What is said, without the numbers that only one run has.
fn said(w: &World) -> Vec<String> {
    w.pf.remarks().iter().map(|remark| remark.line(|index| format!("if{}", index.0))).collect()
}

/// A segment that fits no state, so many times; a datagram beyond the limit; a packet that is too short.
fn annoy(w: &mut World, times: u32) {
    let c = Conversation::WEB;
    w.passes(IN, LAN, &c.up("S", 1000, 0, 8192, 0));
    w.passes(OUT, LAN, &c.down("SA", 9000, 1001, 8192, 0));
    w.passes(IN, LAN, &c.up("A", 1001, 9001, 8192, 0));
    for _ in 0..times {
        assert!(!w.passes(IN, LAN, &c.up("PA", 900_001_001, 9001, 8192, 1)));
    }
    w.passes(IN, LAN, &build::udp4(CLIENT, SERVER, 1, 9, b""));
    assert!(!w.passes(IN, LAN, &build::udp4(CLIENT, SERVER, 2, 9, b"")));
    let header = ipv4::Repr { src: CLIENT, dst: SERVER, proto: wire::IpProto::TCP, ..ipv4::Repr::default() };
    assert!(!w.passes(IN, LAN, &build::raw4(header, &[0; 8])));
}

#[test]
fn a_level_tells_of_what_is_as_grave_or_graver() {
    let misc = [
        "pf: BAD state: tcp in on if1 192.0.2.9:4000 > 198.51.100.1:80 PA seq=900001001 ack=9001",
        "pf: states limit reached: udp in on if1 192.0.2.9:2 > 198.51.100.1:9",
    ];
    let short = "pf: packet too short";
    for (level, wanted) in [
        ("set debug none\n", vec![]),
        ("", vec![]),
        ("set debug urgent\n", vec![]),
        ("set debug misc\n", misc.to_vec()),
        ("set debug loud\n", [&misc[..], &[short]].concat()),
    ] {
        let mut w = world(level);
        annoy(&mut w, 1);
        assert_eq!(said(&w), wanted, "{level}");
        assert!(said(&w).is_empty(), "it is said once");
    }
}

#[test]
fn what_happens_again_is_counted_and_has_one_example() {
    let mut w = world("set debug misc\n");
    annoy(&mut w, 50);
    assert!(said(&w)[0].ends_with(" ack=9001, 50 times"));
    annoy(&mut w, 7);
    assert!(said(&w)[0].ends_with(" ack=9001, 7 times"), "and another when it happens again");
}

#[test]
fn the_level_is_that_of_the_ruleset_until_it_is_set_otherwise() {
    let mut w = world("");
    let shown = |w: &World| show::info(&w.pf, None, Some(0)).text(0);
    assert_eq!(w.pf.debug_level(), Level::Urgent);
    let first = "Status: Enabled for 0 days 00:00:00           Debug: Urgent\n";
    assert!(shown(&w).starts_with(first), "{}", shown(&w));
    annoy(&mut w, 3);
    w.pf.set_debug_level(Level::Loud);
    assert!(shown(&w).contains("Debug: Loud\n"));
    let before = said(&w);
    assert!(
        !before.is_empty() && !before[0].contains("ack="),
        "of what was before there is no example: {before:?}"
    );
    w.load("set debug none\npass all\n");
    assert_eq!(w.pf.debug_level(), Level::None);
}

#[test]
fn a_flood_of_syns_is_urgent() {
    let mut w = World::new("set syncookies always\npass in on lan0 proto tcp\n");
    let _ = w.verdict(IN, LAN, &Conversation::WEB.up("S", 1, 0, 1, 0));
    let first = said(&w);
    // Always is no flood.
    assert!(first.is_empty(), "{first:?}");
    let mut w = World::new(
        "set limit states 100\nset syncookies adaptive (start 10%, end 5%)\npass in on lan0 proto tcp\n",
    );
    for port in 0..12 {
        let _ = w.verdict(
            IN,
            LAN,
            &Conversation { client_port: 1000 + port, server_port: 80 }.up("S", 1, 0, 1, 0),
        );
    }
    assert_eq!(said(&w), ["pf: synflood detected, enabling syncookies"]);
}
