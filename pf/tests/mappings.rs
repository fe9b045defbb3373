//! `endpoint-independent`: a sender of UDP has one port outside, whoever it sends to (RFC 4787, REQ-1).

#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::{Arc, Barrier},
    thread,
};

use common::{CLIENT, IN, LAN, OUT, SERVER, WAN, World, header, router};
use kern::{
    Mbuf, Why,
    lock::{Root, levels::PfRules},
    testing::{Chance, Fixture, soak},
    time::Instant,
};
use pf::{Direction, IfIndex, MappingInfo, Names, Pf, PfCx, StateInfo, Verdict};
use wire::{build, parse};

const RULE: &str =
    "nat on wan0 inet from 192.0.2.0/24 to any -> 203.0.113.1 endpoint-independent\npass all\n";

type End = (IpAddr, u16);

fn sender(host: u8) -> Ipv4Addr {
    Ipv4Addr::new(192, 0, 2, host)
}

fn server(host: u8) -> Ipv4Addr {
    Ipv4Addr::new(198, 51, 100, host)
}

fn datagram(from: (u8, u16), to: (u8, u16)) -> Vec<u8> {
    build::udp4(sender(from.0), server(to.0), from.1, to.1, b"datagram")
}

fn source(m: &Mbuf) -> End {
    let p = parse::parse_ip(m.data()).unwrap();
    (p.flow(m.data()).src(), p.src_port)
}

/// The source with which a packet leaves; why it does not if it does not.
fn leaves(w: &mut World, octets: &[u8]) -> Result<End, Why> {
    passes(w, (OUT, WAN), octets)
}

/// The source that a packet has afterwards.
fn passes(w: &mut World, at: (Direction, IfIndex), octets: &[u8]) -> Result<End, Why> {
    let mut m = w.packet(octets);
    let verdict = w.test(at.0, at.1, &mut m);
    let source = source(&m);
    w.fixture.done(m);
    match verdict {
        Verdict::Pass(_) => Ok(source),
        Verdict::Block(why) => Err(why),
        other => panic!("{other:?}"),
    }
}

fn mappings(w: &World) -> Vec<MappingInfo> {
    w.pf.mappings(&mut Root::claim().top().at())
}

#[test]
fn all_destinations_see_one_port_of_a_sender_and_answer_to_it() {
    for rules in [
        RULE,
        "pass out on wan0 inet proto udp nat-to 203.0.113.1 endpoint-independent\n",
        "match out on wan0 inet nat-to 203.0.113.1 endpoint-independent\npass all no state\n",
        "nat pass on wan0 inet to any -> 203.0.113.1 endpoint-independent\n",
        "nat on wan0 inet to any -> 203.0.113.1 endpoint-independent\n",
        "nat on wan0 inet to any -> 203.0.113.1 map-e-portset 6/8/0x34 endpoint-independent\npass all\n",
        "nat on wan0 inet to any -> { 203.0.113.1 203.0.113.7 } endpoint-independent\npass all\n",
        "nat on wan0 inet to any -> 203.0.113.0/28 random endpoint-independent\npass all\n",
        "nat on wan0 inet to any -> 203.0.113.1 static-port endpoint-independent\npass all\n",
    ] {
        let mut w = World::new(rules);
        let one = leaves(&mut w, &datagram((9, 4000), (1, 53))).unwrap();
        for to in (0..20).flat_map(|n| [(1, 54 + n), (2 + n as u8, 53)]) {
            assert_eq!(leaves(&mut w, &datagram((9, 4000), to)), Ok(one), "{rules}: {to:?}");
            let answer = build::udp4(server(to.0), Ipv4Addr::new(203, 0, 113, 1), to.1, one.1, b"answer");
            if one.0 == IpAddr::V4(Ipv4Addr::new(203, 0, 113, 1)) {
                assert!(w.passes(IN, WAN, &answer), "{rules}");
            }
        }
        let other = leaves(&mut w, &datagram((9, 4001), (1, 53))).unwrap();
        assert_ne!(other, one, "{rules}: of another port");
        let [a, b] = mappings(&w)[..] else { panic!("{rules}") };
        let states = BTreeMap::from([(a.outside, a.states), (b.outside, b.states)]);
        assert_eq!(states, BTreeMap::from([(one, 41), (other, 1)]), "{rules}");
        assert_eq!(w.pf.counters().mappings.get(), 2, "{rules}");
    }
}

#[test]
fn a_mapping_is_of_a_sender_on_whichever_side_of_the_router_and_in_whichever_family_it_is_made() {
    let [client, outside]: [Ipv6Addr; 2] = ["2001:db8:a::9", "2001:db8:b::1"].map(|a| a.parse().unwrap());
    let server = |n: u16| Ipv6Addr::new(0x2001, 0xdb8, 0xc, 0, 0, 0, 0, n);
    for (rules, at) in [
        ("nat on wan0 inet6 to any -> 2001:db8:b::1 endpoint-independent\npass all\n", (OUT, WAN)),
        ("match in on lan0 inet6 nat-to 2001:db8:b::1 endpoint-independent\npass all\n", (IN, LAN)),
    ] {
        let mut w = World::new(rules);
        let sources: BTreeSet<End> = (1..10)
            .map(|n| passes(&mut w, at, &build::udp6(client, server(n), 4000, 53, b"datagram")).unwrap())
            .collect();
        let port = sources.first().unwrap().1;
        assert_eq!(sources, BTreeSet::from([(outside.into(), port)]), "{rules}");
        let mapping =
            MappingInfo { inside: (client.into(), 4000), outside: (outside.into(), port), states: 9 };
        assert_eq!(mappings(&w), [mapping], "{rules}");
        assert_eq!((w.kill(|_| true), mappings(&w)), (9, vec![]), "{rules}");
    }
}

#[test]
fn a_flow_that_moves_to_another_way_out_keeps_its_source_where_states_are_bound_to_interfaces() {
    let rules = "set state-policy if-bound\n\
                 nat on { wan0 enc0 } inet to any -> 203.0.113.1 endpoint-independent\npass all\n";
    let mut w = World::new(rules);
    let one = leaves(&mut w, &datagram((9, 4000), (1, 53))).unwrap();
    assert_eq!(passes(&mut w, (OUT, IfIndex(3)), &datagram((9, 4000), (1, 53))), Ok(one));
    assert_eq!(mappings(&w)[0].states, 2);
    assert_eq!((w.kill(|_| true), mappings(&w)), (2, vec![]));
}

#[test]
fn a_mapping_ends_with_its_last_state_and_other_protocols_have_none() {
    let mut w = World::new(RULE);
    leaves(&mut w, &datagram((9, 4000), (1, 53))).unwrap();
    leaves(&mut w, &datagram((9, 4000), (2, 53))).unwrap();
    let to = |host| move |s: &StateInfo| s.stack.iter().any(|end| end.0 == IpAddr::V4(server(host)));
    assert_eq!((w.kill(to(1)), mappings(&w)[0].states), (1, 1));
    w.advance(10_000);
    // A round takes as long as the interval says.
    (0..4).for_each(|_| {
        w.purge();
        w.advance(10);
    });
    assert_eq!((w.states().len(), mappings(&w)), (0, vec![]));
    let syn = build::tcp4(CLIENT, SERVER, &header(4000, 80, "S", 1, 0, 1000), b"");
    leaves(&mut w, &syn).unwrap();
    leaves(&mut w, &build::echo4(CLIENT, SERVER, 4000, 1, b"ping")).unwrap();
    assert_eq!((w.states().len(), mappings(&w)), (2, vec![]));
}

#[test]
fn what_gets_no_state_leaves_no_mapping() {
    let nat = "nat on wan0 inet to any -> 203.0.113.1 endpoint-independent\n";
    for (rules, why) in [
        ("block all\n", Why::PfBlock),
        ("match out inet nat-to 203.0.113.9\nblock all\n", Why::PfBlock),
        ("pass out keep state (max-src-states 1)\n", Why::PfSrcLimit),
        ("pass out keep state (max 1)\n", Why::PfStateLimit),
    ] {
        let mut w = World::new(&format!("{nat}{rules}"));
        let first = leaves(&mut w, &datagram((9, 4000), (1, 53)));
        assert_eq!(leaves(&mut w, &datagram((9, 4001), (2, 53))), Err(why), "{rules}");
        assert_eq!(mappings(&w).len(), usize::from(first.is_ok()), "{rules}");
        w.kill(|_| true);
        assert_eq!(mappings(&w), [], "{rules}");
    }
    // A later rule translates to something else: what the first chose is nobody's.
    let mut w = World::new(&format!("{nat}match out inet nat-to 203.0.113.9\npass all\n"));
    let (address, _) = leaves(&mut w, &datagram((9, 4000), (1, 53))).unwrap();
    assert_eq!((address, mappings(&w)), ("203.0.113.9".parse().unwrap(), vec![]));
    // And an explanation leaves nothing.
    let w = World::new(RULE);
    let packet = "out on wan0 proto udp from 192.0.2.9 port 4000 to 198.51.100.1 port 53";
    let question = pf::explain::Question::parse(packet, &router()).unwrap();
    let said = w.ruleset.explain(&question, &router(), &mut Names::new(), None, &mut Root::claim().top());
    assert!(said.unwrap().becomes.is_some());
    assert_eq!(mappings(&w), []);
}

#[test]
fn a_reload_keeps_mappings_as_far_as_the_rules_could_have_made_them() {
    let mut w = World::new(RULE);
    let one = leaves(&mut w, &datagram((9, 4000), (1, 53))).unwrap();
    w.load(RULE);
    assert_eq!(leaves(&mut w, &datagram((9, 4000), (2, 53))), Ok(one));
    // Where the address is another, so is the mapping; the old one stays for its states.
    w.load(&RULE.replace("203.0.113.1", "203.0.113.9"));
    let other = leaves(&mut w, &datagram((9, 4000), (3, 53))).unwrap();
    assert_eq!(other.0, "203.0.113.9".parse::<IpAddr>().unwrap());
    assert_eq!(leaves(&mut w, &datagram((9, 4000), (2, 53))), Ok(one), "by its state");
    assert_eq!(mappings(&w).iter().map(|m| m.states).collect::<BTreeSet<_>>(), BTreeSet::from([1, 2]));
    w.load(RULE);
    assert_eq!(leaves(&mut w, &datagram((9, 4000), (4, 53))), Ok(one));
    w.kill(|_| true);
    assert_eq!(mappings(&w), []);
}

#[test]
fn rules_without_mappings_keep_off_the_ports_of_those_there_are() {
    let rules = "nat on wan0 inet from 192.0.2.9 to any -> 203.0.113.1 port 2000:2003 endpoint-independent\n\
                 nat on wan0 inet from any to any -> 203.0.113.1 port 2000:2003\npass all\n";
    let mut w = World::new(rules);
    let one = leaves(&mut w, &datagram((9, 4000), (1, 53))).unwrap();
    for n in 0..3 {
        let other = leaves(&mut w, &datagram((7, 5000 + n), (2, 53))).unwrap();
        assert_ne!(other, one);
    }
    assert_eq!(leaves(&mut w, &datagram((7, 5003), (2, 53))), Err(Why::PfTranslate));
    assert_eq!(leaves(&mut w, &datagram((9, 4000), (2, 53))), Ok(one), "which is free for its owner");
}

/// Senders come and go at random: one that has states has one port, and no two have the same.
#[test]
fn mappings_are_stable_and_of_one_sender_each() {
    let seed = 0x0e1d;
    let mut chance = Chance::seeded(seed);
    let rules = "nat on wan0 inet to any -> 203.0.113.0/31 port 2000:2019 round-robin endpoint-independent\npass all\n";
    let mut w = World::new(rules);
    for _ in 0..if soak() { 50_000 } else { 2000 } {
        let known: HashMap<End, End> = mappings(&w).iter().map(|m| (m.inside, m.outside)).collect();
        if chance.is(3) {
            let (host, port) = (chance.below(5_u8), 4000 + chance.below(4_u16));
            let from = (IpAddr::V4(sender(host)), port);
            let to = (1 + chance.below(3_u8), 53 + chance.below(3_u16));
            let source = leaves(&mut w, &datagram((host, port), to)).unwrap();
            assert!(known.get(&from).is_none_or(|before| *before == source), "seed {seed:#x}");
        } else if chance.is(2) {
            let (host, to) = (chance.below(5_u8), 1 + chance.below(3_u8));
            let ends = [sender(host), server(to)].map(IpAddr::V4);
            w.kill(|s| s.stack.iter().all(|end| ends.contains(&end.0)));
        }
        let states = w.states();
        let all = mappings(&w);
        let outside: BTreeSet<End> = all.iter().map(|m| m.outside).collect();
        assert_eq!(outside.len(), all.len(), "seed {seed:#x}: {all:?}");
        assert_eq!(all.iter().map(|m| m.states as usize).sum::<usize>(), states.len(), "seed {seed:#x}");
        for state in states {
            let owner = all.iter().find(|m| state.wire.contains(&m.outside));
            assert!(owner.is_some_and(|m| state.stack.contains(&m.inside)), "seed {seed:#x}: {state:?}");
        }
    }
}

/// Workers on threads of their own send the first datagrams of the same senders at the same time.
#[test]
fn workers_that_meet_at_a_sender_agree_on_its_port() {
    const WORKERS: usize = 3;
    const SENDERS: u8 = 4;
    let text = "nat on wan0 inet to any -> 203.0.113.1 port 2000:2015 endpoint-independent\npass all\n";
    let pf = Pf::new(WORKERS, 1000);
    let conf = Arc::new(pf::conf::load_text("pf.conf", text, &router(), &[]).unwrap());
    let rules = pf.compile(&conf, &router(), &mut Names::new()).unwrap();
    pf.enforce(&mut Root::claim().top().at(), &rules);
    let barrier = Barrier::new(WORKERS);
    let rounds = if soak() { 20_000 } else { 500 };
    thread::scope(|scope| {
        for id in 0..WORKERS {
            let (pf, rules, barrier) = (&pf, &rules, &barrier);
            scope.spawn(move || {
                let (fixture, mut worker, mut root) = (Fixture::new(64), pf.worker(id), Root::claim());
                for _ in 0..rounds {
                    barrier.wait();
                    for (host, port) in (0..2).flat_map(|port| (0..SENDERS).map(move |host| (host, port))) {
                        let mut m = fixture.packet(&datagram((host, 4000), (1 + id as u8, 53 + port)));
                        m.hdr_mut().family = 4;
                        let (mut held, now) = (root.top(), Instant::from_secs(1000));
                        let mut cx = PfCx::new(pf, rules, &mut worker, held.at::<PfRules>(), now);
                        let verdict = cx.test(OUT, WAN, &mut m);
                        assert!(matches!(verdict, Verdict::Pass(_)), "{verdict:?}");
                        fixture.done(m);
                    }
                    barrier.wait();
                    let mut held = root.top();
                    if id == 0 {
                        let all = pf.mappings(&mut held.at::<PfRules>());
                        let inside: BTreeSet<End> = all.iter().map(|m| m.inside).collect();
                        let outside: BTreeSet<End> = all.iter().map(|m| m.outside).collect();
                        assert_eq!((inside.len(), outside.len(), all.len()), (4, 4, 4), "{all:?}");
                        assert!(all.iter().all(|m| m.states as usize == 2 * WORKERS), "{all:?}");
                    }
                    barrier.wait();
                    // All end them at once, too: a mapping may go and come again meanwhile.
                    let own = IpAddr::V4(server(1 + id as u8));
                    let ended =
                        pf.kill_states(&mut held.at::<PfRules>(), |s| s.stack.iter().any(|e| e.0 == own));
                    assert_eq!(ended, 2 * u32::from(SENDERS));
                }
                barrier.wait();
            });
        }
    });
    let mut root = Root::claim();
    assert_eq!((pf.mappings(&mut root.top().at()), pf.states().count()), (vec![], 0));
}
