//! Pools that name tables: what they choose from is what is in the table at the moment, without a reload.

#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
};

use common::{IN, LAN, OUT, SERVER, WAN, World};
use kern::{Why, testing::Chance};
use pf::{
    Direction, IfIndex, NextHop, Verdict,
    addr::{Entry, Family},
    table::parse_entry,
};
use wire::{build, parse};

const NAT: &str = "table <out> persist\nnat on wan0 inet from any to any -> <out>\npass all\n";
const RDR: &str = "table <web> persist\nrdr on lan0 inet proto udp from any to any -> <web> round-robin";

fn entries(words: &str) -> Vec<Entry> {
    words.split_whitespace().map(|word| parse_entry(word).unwrap()).collect()
}

/// `pfctl -a ANCHOR -t TABLE -T replace WORDS`
fn replace(w: &World, anchor: &str, table: &str, words: &str) {
    w.pf.tables().set(anchor, table, &entries(words), 0).unwrap();
}

/// A question of a host of the LAN.
fn question(host: u8, port: u16) -> Vec<u8> {
    build::udp4(Ipv4Addr::new(192, 0, 2, host), SERVER, port, 53, b"question")
}

/// Source and destination of a packet when pf has passed it; why it has not.
fn ends(w: &mut World, way: (Direction, IfIndex), octets: &[u8]) -> Result<(IpAddr, IpAddr), Why> {
    let mut m = w.packet(octets);
    let verdict = w.test(way.0, way.1, &mut m);
    let flow = parse::parse_ip(m.data()).map(|p| p.flow(m.data())).unwrap();
    w.fixture.done(m);
    match verdict {
        Verdict::Pass(_) => Ok((flow.src(), flow.dst())),
        Verdict::Block(why) => Err(why),
        other => panic!("{other:?}"),
    }
}

fn source(w: &mut World, port: u16) -> Result<String, Why> {
    ends(w, (OUT, WAN), &question(9, port)).map(|(source, _)| source.to_string())
}

fn destination(w: &mut World, host: u8, port: u16) -> Result<String, Why> {
    ends(w, (IN, LAN), &question(host, port)).map(|(_, destination)| destination.to_string())
}

#[test]
fn nat_takes_the_addresses_of_a_table_in_turn_as_they_are_at_the_moment() {
    let mut w = World::new(NAT);
    let mut port = 1000;
    let mut round = |w: &mut World, n: u16| -> BTreeSet<Result<String, Why>> {
        let first = port;
        port += n;
        (first..port).map(|port| source(w, port)).collect()
    };
    let of = |all: &[&str]| all.iter().map(|a| Ok((*a).to_owned())).collect::<BTreeSet<_>>();
    assert_eq!(round(&mut w, 1), [Err(Why::PfTranslate)].into(), "there is none yet");
    replace(&w, "", "out", "203.0.113.8/31 203.0.113.77");
    assert_eq!(round(&mut w, 3), of(&["203.0.113.8", "203.0.113.9", "203.0.113.77"]));
    replace(&w, "", "out", "203.0.113.0/29 !203.0.113.0/30 203.0.113.2 !203.0.113.6/31 2001:db8::/64");
    assert_eq!(
        round(&mut w, 3),
        of(&["203.0.113.2", "203.0.113.4", "203.0.113.5"]),
        "what is in, and no more"
    );
    w.pf.tables().delete("", "out", &entries("203.0.113.2")).unwrap();
    assert_eq!(round(&mut w, 2), of(&["203.0.113.4", "203.0.113.5"]));
    w.load(&NAT.replace("pass", "pass in all\npass"));
    assert_eq!(round(&mut w, 2), of(&["203.0.113.4", "203.0.113.5"]), "after a reload, too");
    w.pf.tables().flush("", "out").unwrap();
    assert_eq!(round(&mut w, 1), [Err(Why::PfTranslate)].into());
}

#[test]
fn a_sticky_source_keeps_its_address_until_that_leaves_the_table() {
    let mut w = World::new(&format!("{RDR} sticky-address\npass all\n"));
    replace(&w, "", "web", "10.0.0.1 10.0.0.2 10.0.0.3");
    let first = destination(&mut w, 9, 1000).unwrap();
    for port in 1001..1007 {
        assert_eq!(destination(&mut w, 9, port).as_ref(), Ok(&first));
    }
    let others: BTreeSet<String> = (20..30).map(|host| destination(&mut w, host, 1000).unwrap()).collect();
    assert_eq!(others.len(), 3, "{others:?}");
    w.pf.tables().delete("", "web", &entries(&first)).unwrap();
    for host in [9, 40, 41] {
        assert_ne!(destination(&mut w, host, 2000), Ok(first.clone()));
    }
}

#[test]
fn an_anchor_chooses_from_the_table_of_the_main_ruleset_until_it_has_its_own() {
    let mut w = World::new(
        "rdr-anchor \"app\"\nanchor \"app\" {\n rdr on lan0 inet proto udp from any to any -> <web>\n}\npass all\n",
    );
    assert_eq!(destination(&mut w, 9, 1000), Err(Why::PfTranslate));
    replace(&w, "", "web", "10.0.0.1");
    assert_eq!(destination(&mut w, 9, 1001), Ok("10.0.0.1".into()));
    replace(&w, "app", "web", "10.0.0.2");
    assert_eq!(destination(&mut w, 9, 1002), Ok("10.0.0.2".into()));
    w.pf.tables().kill("app", "web").unwrap();
    assert_eq!(destination(&mut w, 9, 1003), Ok("10.0.0.1".into()));
}

#[test]
fn a_table_of_gateways_stands_beside_others_and_each_keeps_its_interface() {
    let mut w = World::new(
        "table <gw> persist { 198.51.100.7 }\n\
         pass in on lan0 route-to { (wan0 203.0.113.254), (lan0 <gw>) } round-robin inet no state\n",
    );
    let hops = |w: &mut World, n: u16| -> BTreeMap<String, u16> {
        let mut all = BTreeMap::new();
        for port in 0..n {
            let Verdict::Route(_, id) = w.verdict(IN, LAN, &question(9, 1000 + port)) else {
                panic!("no way")
            };
            let NextHop { iface, gateway } = *w.pf.slab().next_hop(id).unwrap();
            *all.entry(format!("{} {}", iface.0, gateway.unwrap())).or_default() += 1;
        }
        all
    };
    let of = |all: &[&str]| all.iter().map(|a| ((*a).to_owned(), 4)).collect::<BTreeMap<_, _>>();
    assert_eq!(hops(&mut w, 8), of(&["2 203.0.113.254", "1 198.51.100.7"]));
    w.pf.tables().add("", "gw", &entries("198.51.100.8"), 0).unwrap();
    assert_eq!(hops(&mut w, 12), of(&["2 203.0.113.254", "1 198.51.100.7", "1 198.51.100.8"]));
    w.pf.tables().flush("", "gw").unwrap();
    assert_eq!(hops(&mut w, 4), of(&["2 203.0.113.254"]));
}

/// Whatever is in a table, one round is each of its addresses once.
#[test]
fn a_round_is_what_is_in_the_table() {
    let mut chance = Chance::seeded(7);
    let mut w = World::new(&format!("{RDR}\npass all no state\n"));
    let mut port = 1000;
    for step in 0..200 {
        let some: Vec<String> = (0..chance.below(6_u8))
            .map(|_| {
                let (not, last, len) = (chance.is(3), chance.below(64_u8), 26 + chance.below(7_u8));
                format!("{}10.0.0.{last}/{len}", if not { "!" } else { "" })
            })
            .collect();
        replace(&w, "", "web", &some.join(" "));
        let table = w.pf.tables().find("", "web").unwrap();
        let of_table =
            (0..64_u32).map(|n| 0x0a00_0000 + n).filter(|&a| table.contains(Family::Inet, a.into()));
        let wanted: BTreeSet<String> = of_table.map(|a| Ipv4Addr::from_bits(a).to_string()).collect();
        let mut found = BTreeSet::new();
        for _ in 0..wanted.len().max(1) {
            port = if port == 60_000 { 1000 } else { port + 1 };
            match destination(&mut w, 9, port) {
                Ok(address) => assert!(found.insert(address), "step {step}: {some:?}"),
                Err(why) => assert_eq!((why, wanted.len()), (Why::PfTranslate, 0), "step {step}: {some:?}"),
            }
        }
        assert_eq!(found, wanted, "step {step}: {some:?}");
        w.kill(|_| true);
    }
}
