//! `no-route` and `urpf-failed`: rules that ask the router, when a packet comes to them, what routes there are.

#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use common::{CLIENT, IN, LAN, OUT, SERVER, WAN, Ways, World};
use kern::{Survey, lock::Root};
use pf::{IfIndex, PfCx, Verdict};
use wire::build;

const CLIENT6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xa, 0, 0, 0, 0, 9);
const SERVER6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xc, 0, 0, 0, 0, 1);

fn ways(all: &[(IpAddr, &[IfIndex])]) -> Ways {
    Ways(all.iter().map(|&(address, out)| (address, out.to_vec())).collect())
}

fn up() -> Vec<u8> {
    build::udp4(CLIENT, SERVER, 4000, 53, b"question")
}

fn up6() -> Vec<u8> {
    build::udp6(CLIENT6, SERVER6, 4000, 53, b"question")
}

#[test]
fn addresses_to_which_no_route_leads_match_as_long_as_none_does() {
    for (rule, address, other) in [("from no-route", CLIENT, SERVER), ("to no-route", SERVER, CLIENT)] {
        let mut w = World::new(&format!("pass no state\nblock in {rule}\n"));
        w.routes = ways(&[(other.into(), &[WAN])]);
        assert!(!w.passes(IN, LAN, &up()), "{rule}");
        assert!(w.passes(OUT, WAN, &up()), "the rule is for what comes in");
        w.routes = ways(&[(other.into(), &[WAN]), (address.into(), &[])]);
        assert!(w.passes(IN, LAN, &up()), "{rule}: a route that rejects is one");
        w.routes = Ways::default();
        assert!(!w.passes(IN, LAN, &up()), "{rule}: the ruleset has not kept the answer");
        assert!(!w.passes(IN, LAN, &up6()), "{rule} is for both families");
    }
    let mut w = World::new("pass no state\nblock in from no-route to no-route\n");
    assert!(!w.passes(IN, LAN, &up()));
    w.routes = ways(&[(SERVER.into(), &[WAN])]);
    assert!(w.passes(IN, LAN, &up()), "both sides are asked for");
}

#[test]
fn a_source_fails_where_no_path_leads_back_out_of_the_interface() {
    let mut w = World::new("pass no state\nblock in from urpf-failed\n");
    for (out, passes) in [(&[LAN][..], true), (&[WAN], false), (&[WAN, LAN], true), (&[], false)] {
        w.routes = ways(&[(CLIENT.into(), out), (CLIENT6.into(), out)]);
        assert_eq!(w.passes(IN, LAN, &up()), passes, "{out:?}");
        assert_eq!(w.passes(IN, LAN, &up6()), passes, "{out:?}");
    }
    w.routes = Ways::default();
    assert!(!w.passes(IN, LAN, &up()), "nor where there is no route at all");
}

#[test]
fn a_rule_that_asks_is_not_taken_for_one_that_matches_everything() {
    // By what it says besides, the second rule of each decides beforehand what becomes of every packet.
    for (rules, passes) in [
        ("block all\npass in from urpf-failed no state\n", false),
        ("block all\npass in from no-route no state\n", false),
        ("pass no state\npass in quick from no-route no state\n", true),
        ("pass in quick to no-route no state\nblock all\n", false),
    ] {
        let mut w = World::new(rules);
        w.routes = ways(&[(CLIENT.into(), &[LAN]), (SERVER.into(), &[WAN])]);
        assert_eq!(w.passes(IN, LAN, &up()), passes, "{rules}");
        let mut root = Root::claim();
        let (mut top, mut worker) = (root.top(), w.pf.worker(1));
        let cx = PfCx::new(&w.pf, &w.ruleset, &mut worker, top.at(), w.now);
        let m = w.fixture.packet(&up());
        let unseen = cx.pass_unseen_all(IN, LAN, &Survey::of([&m]));
        assert!(unseen.is_none(), "{rules}: a packet has to be looked at");
        w.fixture.done(m);
    }
}

#[test]
fn whoever_has_a_state_is_not_asked_again() {
    let mut w = World::new("block all\npass in from no-route keep state\n");
    assert!(w.passes(IN, LAN, &up()));
    w.routes = ways(&[(CLIENT.into(), &[LAN])]);
    assert!(w.passes(IN, LAN, &up()), "by its state");
    let other = build::udp4(CLIENT, SERVER, 4001, 53, b"question");
    assert!(!w.passes(IN, LAN, &other));
}

#[test]
fn translation_and_scrub_ask_too() {
    let mut w =
        World::new("no nat on wan0 from no-route\nnat on wan0 inet to any -> 203.0.113.1\npass all\n");
    let source = |w: &mut World, octets: &[u8]| {
        let mut m = w.packet(octets);
        assert!(matches!(w.test(OUT, WAN, &mut m), Verdict::Pass(_)));
        let source = Ipv4Addr::from(*m.data()[12..].first_chunk::<4>().unwrap());
        w.fixture.done(m);
        source
    };
    assert_eq!(source(&mut w, &up()), CLIENT);
    w.routes = ways(&[(CLIENT.into(), &[LAN])]);
    let other = build::udp4(CLIENT, SERVER, 4001, 53, b"question");
    assert_eq!(source(&mut w, &other), Ipv4Addr::new(203, 0, 113, 1));

    let mut w = World::new("scrub in from urpf-failed min-ttl 200\npass no state\n");
    let ttl = |w: &mut World| {
        let mut m = w.packet(&up());
        assert!(matches!(w.test(IN, LAN, &mut m), Verdict::Pass(_)));
        let ttl = m.data()[8];
        w.fixture.done(m);
        ttl
    };
    assert_eq!(ttl(&mut w), 200);
    w.routes = ways(&[(CLIENT.into(), &[LAN])]);
    assert_eq!(ttl(&mut w), 64);
}

#[test]
fn an_explanation_says_which_address_is_reached_or_that_nobody_knows() {
    let mut w = World::new("pass all\nblock in from urpf-failed\nblock in to no-route\n");
    let env = common::router();
    let packet = "in on lan0 proto udp from 192.0.2.9 port 4000 to 198.51.100.1 port 53";
    let question = pf::explain::Question::parse(packet, &env).unwrap();
    let mut said = |routes: Option<&dyn pf::Routes>| {
        let said =
            w.ruleset.explain(&question, &env, &mut w.names, routes, &mut Root::claim().top()).unwrap();
        said.text(true)
    };
    let both = said(Some(&ways(&[(CLIENT.into(), &[LAN]), (SERVER.into(), &[WAN])])));
    assert!(both.contains("from urpf-failed to any  [source address]"), "{both}");
    assert!(both.contains("to no-route  [destination address]\npasses"), "{both}");
    let spoofed = said(Some(&ways(&[(CLIENT.into(), &[WAN]), (SERVER.into(), &[WAN])])));
    assert!(spoofed.contains("decides    pf.conf:2"), "{spoofed}");
    let offline = said(None);
    assert!(offline.contains("there are no routes to ask: ") && offline.contains("\npasses"), "{offline}");
}
