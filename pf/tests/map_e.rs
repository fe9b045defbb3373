//! `map-e-portset`: whatever is translated leaves with a port of the set (RFC 7597, section 5.1).

#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use std::collections::BTreeSet;

use common::{CLIENT, OUT, SERVER, WAN, World, families, header};
use kern::Why;
use pf::Verdict;
use wire::{build, parse};

/// Identifier 0x34 of eight bits behind six: 63 blocks of four ports.
const RULE: &str =
    "nat on wan0 inet from 192.0.2.0/24 to any -> 203.0.113.1 map-e-portset 6/8/0x34\npass all\n";
const PORTS: u16 = 63 * 4;

fn is_in_the_set(port: u16) -> bool {
    port >> 10 != 0 && port >> 2 & 0xff == 0x34
}

/// The source port, or identifier, with which a packet leaves; why it does not if it does not.
fn leaves(w: &mut World, octets: &[u8]) -> Result<u16, Why> {
    let mut m = w.packet(octets);
    let verdict = w.test(OUT, WAN, &mut m);
    let port = parse::parse_ip(m.data()).unwrap().src_port;
    w.fixture.done(m);
    match verdict {
        Verdict::Pass(_) => Ok(port),
        Verdict::Block(why) => Err(why),
        other => panic!("{other:?}"),
    }
}

fn datagram(from: u16, to: u16) -> Vec<u8> {
    build::udp4(CLIENT, SERVER, from, to, b"question")
}

#[test]
fn every_port_of_the_set_is_given_out_and_no_other() {
    let mut w = World::new(RULE);
    let given: BTreeSet<u16> = (0..PORTS).map(|n| leaves(&mut w, &datagram(1000 + n, 53)).unwrap()).collect();
    assert!(given.iter().copied().all(is_in_the_set), "{given:?}");
    assert_eq!(given.len(), usize::from(PORTS), "no two flows to one place have the same");
    assert_eq!(leaves(&mut w, &datagram(999, 53)), Err(Why::PfTranslate), "there are no more");
    assert!(leaves(&mut w, &datagram(999, 54)).is_ok_and(is_in_the_set), "for another place there are all");
}

#[test]
fn connections_and_pings_get_ports_of_the_set_too() {
    let mut w = World::new(RULE);
    let ping = |id| build::echo4(CLIENT, SERVER, id, 1, b"ping");
    for n in 0..PORTS {
        let syn = build::tcp4(CLIENT, SERVER, &header(4000 + n, 80, "S", 1, 0, 1000), b"");
        assert!(leaves(&mut w, &syn).is_ok_and(is_in_the_set));
        assert!(leaves(&mut w, &ping(n)).is_ok_and(is_in_the_set));
    }
}

#[test]
fn nat_to_and_af_to_choose_from_the_set_and_a_destination_has_none() {
    let mut w = World::new("pass out on wan0 inet nat-to 203.0.113.1 map-e-portset 6/8/0x34\n");
    assert!(leaves(&mut w, &datagram(4000, 53)).is_ok_and(is_in_the_set));
    let rules = "pass in on lan0 inet6 to 64:ff9b::/96 af-to inet from 203.0.113.1 map-e-portset 6/8/0x34\n";
    let mut w = World::new(rules);
    let octets = build::udp6(families::CLIENT6, families::SERVER6, 4000, 53, b"question");
    let mut m = w.packet(&octets);
    assert!(matches!(w.test(common::IN, common::LAN, &mut m), Verdict::Pass(_)));
    w.fixture.done(m);
    let states = w.states();
    assert!(is_in_the_set(states[0].stack[0].1), "{states:?}");
}
