//! `log`: which packets are shown, as what, and where.

#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use std::net::Ipv4Addr;

use common::{CLIENT, Conversation, IN, LAN, OUT, SERVER, WAN, World};
use kern::PktFlags;
use wire::{build, ipv4};

const WEB: Conversation = Conversation::WEB;

fn udp(port: u16) -> Vec<u8> {
    build::udp4(CLIENT, SERVER, 4000, port, b"question")
}

/// What is logged of a packet that comes in on the LAN, packets left away.
fn said(w: &mut World, packet: &[u8]) -> Vec<String> {
    w.logged(IN, LAN, packet).1.into_iter().map(|shown| shown.why).collect()
}

#[test]
fn the_rule_that_decides_logs_with_its_number_and_no_other() {
    let mut w = World::new(
        "block log all\npass in log proto udp to port 53 no state\npass in proto udp to port 54 no state\n",
    );
    assert_eq!(said(&mut w, &udp(53)), ["pflog0: rule 1(match) pass in 1"]);
    assert_eq!(said(&mut w, &udp(54)), [""; 0]);
    let (passes, shown) = w.logged(OUT, WAN, &udp(55));
    assert_eq!((passes, shown[0].why.as_str(), shown.len()), (false, "pflog0: rule 0(match) block out 2", 1));
    assert_eq!(shown[0].packet, udp(55));
    // Nobody looks.
    assert!(w.passes(IN, LAN, &udp(53)));
}

#[test]
fn the_identifier_is_that_of_the_rule_that_decides() {
    let mut w = World::new(
        "pass in log ridentifier 7 no state\n\
         anchor a ridentifier 5 {\n pass in log proto udp to port 53 ridentifier 1234 no state\n}\n\
         match in log proto udp to port 54 ridentifier 9\n",
    );
    assert_eq!(said(&mut w, &udp(53)), ["pflog0: rule 1.a.0(match) pass in 1 id 1234"]);
    assert_eq!(
        said(&mut w, &udp(54)),
        ["pflog0: rule 2(match) match in 1 id 9", "pflog0: rule 0(match) pass in 1 id 7"]
    );
}

#[test]
fn whose_socket_a_packet_has_is_asked_where_a_rule_says_user() {
    let mut w = World::new(
        "match log (user, matches) proto udp to port 53\npass out log (all, user) proto tcp\npass log proto udp\n",
    );
    let own = |w: &mut World, packet: &[u8]| {
        let (passes, shown) = w.logged_with(PktFlags::ORIGIN, OUT, WAN, packet);
        assert!(passes);
        shown.into_iter().map(|shown| shown.why).collect::<Vec<_>>()
    };
    assert_eq!(own(&mut w, &WEB.up("S", 1000, 0, 100, 0)), ["pflog0: rule 1(match) pass out 2 (user) own"]);
    assert_eq!(own(&mut w, &WEB.up("S", 1000, 0, 100, 0)), ["pflog0: rule 1(match) pass out 2 (user) own"]);
    assert_eq!(
        own(&mut w, &udp(53)),
        ["pflog0: rule 0(match) match out 2 (user) own", "pflog0: rule 2(match) pass out 2 own"]
    );
    assert_eq!(said(&mut w, &udp(54)), ["pflog0: rule 2(match) pass in 1"]);
}

#[test]
fn the_sender_of_a_translated_packet_is_who_sent_it() {
    let mut w = World::new(
        "nat on wan0 inet proto udp from 192.0.2.0/24 to any port 53 -> 203.0.113.1\n\
         pass out log (all, user) on wan0\n\
         match out log (user) on wan0 inet proto udp to port 54 nat-to 203.0.113.1\n",
    );
    for (port, times) in [(53, 1), (53, 1), (54, 2)] {
        let (passes, shown) = w.logged_with(PktFlags::ORIGIN, OUT, WAN, &udp(port));
        assert_eq!((passes, shown.len()), (true, times), "{port}");
        assert!(shown.iter().all(|s| s.source == (CLIENT.into(), 4000)), "{shown:?}");
        assert_eq!(shown.last().unwrap().packet[12..16], [203, 0, 113, 1]);
    }
}

#[test]
fn of_a_connection_the_first_packet_is_logged_and_with_all_every_one() {
    let packets = [
        (IN, WEB.up("S", 1000, 0, 100, 0)),
        (OUT, WEB.down("SA", 500, 1001, 100, 0)),
        (IN, WEB.up("A", 1001, 501, 100, 0)),
    ];
    for (rule, wanted) in [("log", 1), ("log (all)", 3)] {
        let mut w = World::new(&format!("block all\npass in {rule} proto tcp\n"));
        let all: Vec<String> = packets
            .iter()
            .flat_map(|(direction, packet)| {
                let (passes, shown) = w.logged(*direction, LAN, packet);
                assert!(passes);
                shown
            })
            .map(|shown| shown.why)
            .collect();
        let each = ["in", "out", "in"].map(|way| format!("pflog0: rule 1(match) pass {way} 1"));
        assert_eq!(all, each[..wanted], "{rule}");
    }
}

#[test]
fn it_goes_to_the_log_that_the_rule_names_and_says_the_anchor() {
    let mut w = World::new(
        "block all\nanchor \"x\" out {\n pass out\n}\nanchor \"a\" in {\n block in\n anchor b {\n  pass in log (all, to pflog3) proto udp\n }\n}\n",
    );
    let wanted = "pflog3: rule 2.a/b.0(match) pass in 1";
    assert_eq!(said(&mut w, &udp(53)), [wanted]);
    assert_eq!(said(&mut w, &udp(53)), [wanted], "by its state");
}

#[test]
fn match_rules_log_when_they_match_and_with_matches_what_matches_behind_them() {
    let mut w = World::new("match in log proto udp\nblock in\npass in log proto udp no state\n");
    assert_eq!(
        said(&mut w, &udp(53)),
        ["pflog0: rule 0(match) match in 1", "pflog0: rule 2(match) pass in 1"]
    );
    let mut w = World::new(
        "pass out\nmatch in log (matches, to pflog1) proto udp\nblock in\nmatch in proto udp to port 99\npass in no state\n",
    );
    assert_eq!(
        said(&mut w, &udp(53)),
        [
            "pflog1: rule 1(match) match in 1",
            "pflog1: rule 2(match) block in 1",
            "pflog1: rule 4(match) pass in 1",
        ]
    );
    assert_eq!(said(&mut w, &WEB.up("S", 1, 0, 100, 0)), [""; 0]);
}

#[test]
fn what_ends_says_why_and_what_is_translated_is_shown_so() {
    let mut w = World::new("pass in log proto udp keep state (max 1)\n");
    assert_eq!(said(&mut w, &udp(53)), ["pflog0: rule 0(match) pass in 1"]);
    assert_eq!(said(&mut w, &udp(54)), ["pflog0: rule 0(statelimit) block in 1"]);
    let mut w = World::new("pass in log proto tcp synproxy state\n");
    assert_eq!(said(&mut w, &WEB.up("S", 1000, 0, 100, 0)), ["pflog0: rule 0(synproxy) synproxy in 1"]);

    let inner = Ipv4Addr::new(10, 0, 0, 7);
    for (rules, why) in [
        ("rdr log on lan0 proto udp to port 53 -> 10.0.0.7\npass\n", "pflog0: rule 0(match) rdr in 1"),
        ("rdr pass log on lan0 proto udp to port 53 -> 10.0.0.7\nblock\n", "pflog0: rule 0(match) rdr in 1"),
        (
            "rdr log on lan0 proto udp to port 53 -> 10.0.0.7\nblock\npass in log\n",
            "pflog0: rule 1(match) pass in 1",
        ),
    ] {
        let mut w = World::new(rules);
        let (passes, shown) = w.logged(IN, LAN, &udp(53));
        assert!(passes, "{rules}");
        assert_eq!((shown[0].why.as_str(), shown.len()), (why, 1), "{rules}");
        assert_eq!(ipv4::Packet::new_checked(&shown[0].packet[..]).unwrap().dst(), inner, "{rules}");
    }
}

#[test]
fn a_rule_that_is_spent_is_logged_once() {
    let mut w = World::new("block log all\npass in log proto udp no state once\n");
    assert_eq!(said(&mut w, &udp(53)), ["pflog0: rule 1(match) pass in 1"]);
    assert_eq!(said(&mut w, &udp(53)), ["pflog0: rule 0(match) block in 1"]);
}
