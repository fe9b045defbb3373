//! SCTP hosts with several addresses: states of the further paths, by rules or `allow-related`, from INIT, INIT ACK and ASCONF,
//! and what ends them.

#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use common::{
    CLIENT, IN, LAN, OUT, SERVER, WAN, World,
    association::{Association, CLIENT_TAG, SERVER_TAG, asconf, chunk, init, packet},
    router,
};
use kern::{
    Why,
    lock::{Root, levels::PfRules},
};
use pf::{Direction, IfIndex, Kind, Verdict, show};
use wire::{parse, sctp::kind};

const CLIENT2: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
const CLIENT3: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 11);
const SERVER2: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
const RELATED: &str = "block all\npass in on lan0 proto sctp from 192.0.2.9 to 198.51.100.1 port 5000 keep state (allow-related)\n";

fn web() -> Association {
    Association::new(CLIENT, SERVER)
}

/// The path between two other addresses of the association.
fn path(client: impl Into<IpAddr>, server: impl Into<IpAddr>) -> Association {
    Association::new(client, server)
}

/// The handshake, the ends naming these addresses; a family that the path has not is named, too.
fn open(w: &mut World, client: &[IpAddr], server: &[IpAddr]) {
    let six = [IpAddr::from(Ipv6Addr::LOCALHOST)];
    assert!(w.passes(IN, LAN, &web().init(&[client, &six].concat())));
    assert!(w.passes(OUT, LAN, &web().init_ack(&[server, &six].concat())));
    assert!(w.passes(IN, LAN, &web().says(kind::COOKIE_ECHO)));
    assert!(w.passes(OUT, LAN, &web().answers(kind::COOKIE_ACK)));
}

/// Levels of the client and the server on a path, and seconds until its state expires.
fn level(w: &mut World, path: Association) -> Option<(&'static str, &'static str, u32)> {
    let (client, server) = (path.client, path.server);
    w.states().into_iter().find_map(|s| match s.wire {
        ends if ends == [client, server] => Some((s.src.level, s.dst.level, s.expires)),
        ends if ends == [server, client] => Some((s.dst.level, s.src.level, s.expires)),
        _ => None,
    })
}

fn is_mismatch(verdict: &Verdict) -> bool {
    matches!(verdict, Verdict::Block(Why::PfStateMismatch))
}

/// A path works both ways, with the tags of the association and no others.
fn works(w: &mut World, path: Association) {
    works_with(w, path, CLIENT_TAG, SERVER_TAG);
}

/// The same, with the tags that client and server have drawn.
fn works_with(w: &mut World, path: Association, client: u32, server: u32) {
    for wrong in [server ^ 1, client] {
        assert!(is_mismatch(&w.verdict(IN, LAN, &path.up(wrong, &chunk(kind::HEARTBEAT)))), "{path:?}");
    }
    assert!(is_mismatch(&w.verdict(OUT, LAN, &path.down(7, &chunk(kind::HEARTBEAT)))), "{path:?}");
    assert!(w.passes(IN, LAN, &path.up(server, &chunk(kind::HEARTBEAT))), "{path:?}");
    assert!(w.passes(OUT, LAN, &path.down(client, &chunk(kind::HEARTBEAT_ACK))), "{path:?}");
    assert_eq!(level(w, path), Some(("ESTABLISHED", "ESTABLISHED", 86_400)));
}

#[test]
fn allow_related_opens_every_path_between_the_addresses_of_both_ends() {
    let mut w = World::new(RELATED);
    open(&mut w, &[CLIENT.into(), CLIENT2.into()], &[SERVER2.into()]);
    assert_eq!(w.states().len(), 4, "{:?}", w.states());
    for (client, server) in [(CLIENT2, SERVER), (CLIENT, SERVER2), (CLIENT2, SERVER2)] {
        works(&mut w, path(client, server));
    }
    assert!(!w.passes(IN, LAN, &path(CLIENT3, SERVER).says(kind::HEARTBEAT)), "nobody has named it");
    assert_eq!(w.pf.counters().inserts.get(), 4);
    w.kill(|_| true);
    w.load("block all\n");
    assert_eq!(w.pf.slab().in_use(), 1, "the rules of all are given back");
}

#[test]
fn what_ends_an_association_on_one_path_ends_it_on_all() {
    for (kind, tag, up) in [(kind::ABORT, SERVER_TAG, true), (kind::SHUTDOWN_COMPLETE, CLIENT_TAG, false)] {
        let mut w = World::new(RELATED);
        open(&mut w, &[CLIENT2.into()], &[SERVER2.into()]);
        let ended = path(CLIENT2, SERVER2);
        works(&mut w, ended);
        let (direction, octets) =
            if up { (IN, ended.up(tag, &chunk(kind))) } else { (OUT, ended.down(tag, &chunk(kind))) };
        assert!(w.passes(direction, LAN, &octets));
        let all = w.states();
        assert_eq!(all.len(), 4);
        for state in &all {
            assert_eq!(
                (state.src.level, state.dst.level, state.expires),
                ("CLOSED", "CLOSED", 90),
                "{state:?}"
            );
        }
        w.advance(91);
        w.purge();
        w.advance(10);
        w.purge();
        assert!(w.states().is_empty());
        // The same hosts again, with what they had.
        open(&mut w, &[CLIENT2.into()], &[]);
        works(&mut w, path(CLIENT2, SERVER));
        assert_eq!(w.states().len(), 2);
    }
}

#[test]
fn an_init_on_a_path_of_an_association_that_is_over_opens_all_paths_anew() {
    // An ABORT closes all paths, a shutdown without its last packet none but its own.
    let abort = |path: Association| vec![(IN, path.up(SERVER_TAG, &chunk(kind::ABORT)))];
    let shutdown =
        |path: Association| vec![(IN, path.says(kind::SHUTDOWN)), (OUT, path.answers(kind::SHUTDOWN_ACK))];
    let endings: [&dyn Fn(Association) -> Vec<_>; 2] = [&abort, &shutdown];
    for end in endings {
        for (client, server) in [(CLIENT, SERVER), (CLIENT2, SERVER2)] {
            let mut w = World::new("pass proto sctp keep state (allow-related)\n");
            open(&mut w, &[CLIENT2.into()], &[SERVER2.into()]);
            for octets in end(path(client, server)) {
                assert!(w.passes(octets.0, LAN, &octets.1));
            }
            w.advance(1);
            let anew = path(client, server);
            let (names_client, names_server) = (
                if client == CLIENT { CLIENT2 } else { CLIENT },
                if server == SERVER { SERVER2 } else { SERVER },
            );
            assert!(w.passes(IN, LAN, &anew.up(0, &init(kind::INIT, 1234, &[names_client.into()]))));
            assert_eq!(w.states().len(), 2, "{:?}", w.states());
            assert!(w.passes(
                OUT,
                LAN,
                &anew.down(1234, &init(kind::INIT_ACK, 5678, &[names_server.into()]))
            ));
            assert!(w.passes(IN, LAN, &anew.up(5678, &chunk(kind::COOKIE_ECHO))));
            assert!(w.passes(OUT, LAN, &anew.down(1234, &chunk(kind::COOKIE_ACK))));
            for (client, server) in
                [(CLIENT, SERVER), (CLIENT2, SERVER), (CLIENT, SERVER2), (CLIENT2, SERVER2)]
            {
                works_with(&mut w, path(client, server), 1234, 5678);
            }
            let counted = w.pf.counters();
            assert_eq!((w.states().len(), counted.inserts.get(), counted.removals.get()), (4, 8, 4));
        }
    }
}

#[test]
fn every_path_has_the_tag_of_the_init_ack_that_arrived() {
    for (used, names) in [SERVER_TAG, 99].into_iter().flat_map(|tag| [(tag, false), (tag, true)]) {
        let mut w = World::new(RELATED);
        let named: &[IpAddr] = if names { &[CLIENT2.into()] } else { &[] };
        let server: [IpAddr; 1] = [SERVER2.into()];
        for tag in [SERVER_TAG, 99] {
            assert!(w.passes(IN, LAN, &web().init(named)));
            assert!(w.passes(OUT, LAN, &web().down(CLIENT_TAG, &init(kind::INIT_ACK, tag, &server))));
        }
        assert!(w.passes(IN, LAN, &web().up(used, &chunk(kind::COOKIE_ECHO))));
        assert!(w.passes(OUT, LAN, &web().answers(kind::COOKIE_ACK)));
        let clients: &[Ipv4Addr] = if names { &[CLIENT, CLIENT2] } else { &[CLIENT] };
        for client in clients {
            for server in [SERVER, SERVER2] {
                works_with(&mut w, path(*client, server), CLIENT_TAG, used);
            }
        }
        assert!(w.passes(IN, LAN, &web().up(used, &chunk(kind::ABORT))));
        assert!(w.states().iter().all(|state| state.src.level == "CLOSED"), "{:?}", w.states());
    }
}

#[test]
fn without_allow_related_the_rules_are_asked_about_each_path() {
    let mut w = World::new(
        "block all\npass in on lan0 proto sctp from { 192.0.2.9 192.0.2.10 } to 198.51.100.1 port 5000\n\
         pass out on lan0 proto sctp from 198.51.100.2 to 192.0.2.9\n",
    );
    open(&mut w, &[CLIENT2.into(), CLIENT3.into()], &[SERVER2.into()]);
    works(&mut w, path(CLIENT2, SERVER));
    works(&mut w, path(CLIENT, SERVER2));
    assert_eq!(w.states().len(), 3);
    for (client, server) in [(CLIENT3, SERVER), (CLIENT2, SERVER2)] {
        assert!(!w.passes(IN, LAN, &path(client, server).says(kind::HEARTBEAT)));
    }
}

/// Evaluations and packets of every filter rule.
fn counts(w: &World) -> Vec<(u64, u64)> {
    let rules = show::rules(&w.ruleset, "", Kind::Filter, &router());
    rules.iter().map(|r| (r.evaluations, r.packets.iter().sum())).collect()
}

#[test]
fn rules_that_are_asked_about_a_path_count_only_what_they_give_it() {
    let mut w = World::new(
        "block all\nmatch in log on lan0 proto sctp\n\
         pass in on lan0 proto sctp from 192.0.2.9 to 198.51.100.1 port 5000\n\
         pass in on lan0 proto sctp from 192.0.2.10 to 198.51.100.1 port 5000 max-pkt-rate 2/100\n",
    );
    let (_, logged) = w.logged(IN, LAN, &web().init(&[CLIENT2.into()]));
    assert_eq!((w.states().len(), logged.len()), (2, 1), "{logged:?}");
    assert_eq!(counts(&w), [(1, 0), (1, 1), (1, 1), (1, 0)]);
    // The rate is there for packets of the path.
    let beats = [1, 2, 3].map(|_| w.passes(IN, LAN, &path(CLIENT2, SERVER).up(7, &chunk(kind::HEARTBEAT))));
    assert_eq!(beats, [true, true, false]);
    assert_eq!(w.pf.counters().inserts.get(), 2);
}

#[test]
fn a_path_spends_once_and_a_limiter_if_it_gets_a_state() {
    let rules = "state limiter few id 1 limit 2\nblock all\npass in on lan0 proto sctp from { 192.0.2.9 192.0.2.11 }\n\
         pass in on lan0 proto sctp from 192.0.2.10 once state limiter few\n";
    for taken in [true, false] {
        let mut w = World::new(rules);
        if taken {
            // The path is another association's: nobody has opened anything.
            w.load("pass in on lan0 proto sctp\n");
            assert!(opens(&mut w, (CLIENT2.into(), web().client.1), 66, &[]));
            w.load(rules);
        }
        assert!(opens(&mut w, web().client, CLIENT_TAG, &[CLIENT2.into()]));
        assert_eq!(w.states().len(), 2);
        assert_eq!(opens(&mut w, (CLIENT2.into(), 4001), 67, &[]), taken, "the rule is for one");
        assert!(!opens(&mut w, (CLIENT2.into(), 4002), 68, &[]));
        let mut root = Root::claim();
        let mut held = root.top();
        let limiters = w.pf.limiters(&mut held.at::<PfRules>(), false);
        assert_eq!((limiters.len(), limiters[0].states), (1, 1), "{limiters:?}");
    }
}

#[test]
fn an_asconf_adds_and_deletes_addresses_if_its_tag_is_right() {
    let mut w = World::new(RELATED);
    open(&mut w, &[], &[SERVER2.into()]);
    assert_eq!(w.states().len(), 2);
    let adds = asconf(CLIENT.into(), &[(true, CLIENT2.into())]);
    assert!(is_mismatch(&w.verdict(IN, LAN, &web().up(7, &adds))));
    assert_eq!(w.states().len(), 2);
    assert!(w.passes(IN, LAN, &web().up(SERVER_TAG, &adds)));
    works(&mut w, path(CLIENT2, SERVER));
    works(&mut w, path(CLIENT2, SERVER2));
    let deletes = asconf(CLIENT.into(), &[(false, CLIENT2.into())]);
    assert!(w.passes(IN, LAN, &web().up(SERVER_TAG, &deletes)));
    assert_eq!(level(&mut w, path(CLIENT2, SERVER)), Some(("SHUTDOWN_SENT", "ESTABLISHED", 900)));
    assert_eq!(level(&mut w, path(CLIENT2, SERVER2)), Some(("SHUTDOWN_SENT", "ESTABLISHED", 900)));
    assert_eq!(level(&mut w, web()), Some(("ESTABLISHED", "ESTABLISHED", 86_400)));
    // An address that is not its own is named by a stranger, on whose path there is another association.
    let other = Association { client: (CLIENT3.into(), 4000), ..web() };
    w.load("pass in on lan0 proto sctp keep state\n");
    assert!(w.passes(
        IN,
        LAN,
        &packet(other.client, other.server, 0, &init(kind::INIT, 55, &[CLIENT.into()]))
    ));
    assert_eq!(level(&mut w, web()), Some(("ESTABLISHED", "ESTABLISHED", 86_400)));
    assert!(w.passes(IN, LAN, &web().says(kind::DATA)));
}

/// Source and destination of a packet after pf has passed it.
fn through(w: &mut World, direction: Direction, index: IfIndex, octets: &[u8]) -> [IpAddr; 2] {
    let mut m = w.packet(octets);
    let verdict = w.test(direction, index, &mut m);
    assert!(matches!(verdict, Verdict::Pass(_)), "{verdict:?}");
    let flow = parse::parse_ip(m.data()).unwrap().flow(m.data());
    w.fixture.done(m);
    [flow.src(), flow.dst()]
}

#[test]
fn the_paths_of_a_translated_client_lead_through_its_translation() {
    let mut w = World::new(
        "block all\npass out on wan0 proto sctp from 192.0.2.9 nat-to 203.0.113.1 keep state (allow-related)\n",
    );
    let outside = Ipv4Addr::new(203, 0, 113, 1);
    through(&mut w, OUT, WAN, &web().init(&[CLIENT2.into()]));
    through(&mut w, IN, WAN, &path(outside, SERVER).init_ack(&[SERVER2.into()]));
    through(&mut w, OUT, WAN, &web().says(kind::COOKIE_ECHO));
    through(&mut w, IN, WAN, &path(outside, SERVER).answers(kind::COOKIE_ACK));
    let there = through(&mut w, OUT, WAN, &path(CLIENT, SERVER2).says(kind::HEARTBEAT));
    assert_eq!(there, [IpAddr::from(outside), SERVER2.into()]);
    let back = through(&mut w, IN, WAN, &path(outside, SERVER2).answers(kind::HEARTBEAT_ACK));
    assert_eq!(back, [IpAddr::from(SERVER2), CLIENT.into()]);
    assert_eq!(w.states().len(), 2, "{:?}", w.states());
}

/// An INIT of this tag from a client's address, naming others.
fn opens(w: &mut World, client: (IpAddr, u16), tag: u32, names: &[IpAddr]) -> bool {
    w.passes(IN, LAN, &packet(client, web().server, 0, &init(kind::INIT, tag, names)))
}

#[test]
fn whoever_names_a_stranger_s_address_does_nothing_to_his_association() {
    for over in [false, true] {
        let mut w = World::new("pass in on lan0 proto sctp keep state\n");
        let (stranger, port) = (IpAddr::from(CLIENT3), web().client.1);
        assert!(opens(&mut w, (stranger, port), 66, &[]));
        let answer = packet(web().server, (stranger, port), 66, &init(kind::INIT_ACK, 99, &[]));
        if over {
            assert!(w.passes(OUT, LAN, &packet(web().server, (stranger, port), 66, &chunk(kind::ABORT))));
        }
        let (before, states) = (level(&mut w, path(CLIENT3, SERVER)), w.states().len());
        let counted = w.pf.counters().state_insert.get();
        assert!(opens(&mut w, web().client, 7, &[stranger]));
        assert_eq!((level(&mut w, path(CLIENT3, SERVER)), w.states().len()), (before, states + 1));
        assert_eq!(w.pf.counters().state_insert.get(), counted, "no packet has ended");
        assert!(w.passes(OUT, LAN, &answer), "{:?}", w.states());
    }
}

#[test]
fn ends_that_name_each_other_where_no_more_are_kept_come_to_an_end() {
    let mut w = World::new("pass in on lan0 proto sctp keep state\n");
    let port = web().client.1;
    for n in 0..4200_u32 {
        let from = IpAddr::from(Ipv4Addr::from_bits(0x0a00_0000 + n));
        assert!(opens(&mut w, (from, 2000), 1000 + n, &[Ipv4Addr::from_bits(0x0b00_0000 + n).into()]));
    }
    let ends: Vec<IpAddr> = (1..=3).map(|n| Ipv4Addr::new(192, 0, 2, 100 + n).into()).collect();
    assert!(opens(&mut w, (ends[1], port), 2, &[ends[2], ends[0]]));
    assert!(opens(&mut w, (ends[2], port), 3, &[ends[1], ends[0]]));
    assert!(opens(&mut w, (ends[0], port), 1, &[ends[1], ends[2]]));
    assert_eq!(w.pf.counters().endpoint_limit.get(), 4200 - 4096 + 3);
}

#[test]
fn one_source_leaves_room_for_the_ends_of_others() {
    let mut w = World::new("pass proto sctp keep state (allow-related)\n");
    for n in 0..600_u16 {
        assert!(opens(&mut w, (CLIENT.into(), 10_000 + n), 1000 + u32::from(n), &[CLIENT2.into()]));
    }
    assert_eq!(w.pf.counters().endpoint_limit.get(), 600 - 512);
    let other = path(CLIENT3, SERVER);
    let further = Ipv4Addr::new(192, 0, 2, 12);
    assert!(w.passes(IN, LAN, &other.init(&[further.into()])));
    // The server's end is of the association that the client has opened.
    assert!(w.passes(OUT, LAN, &other.init_ack(&[SERVER2.into()])));
    assert!(w.passes(IN, LAN, &other.says(kind::COOKIE_ECHO)));
    assert!(w.passes(OUT, LAN, &other.answers(kind::COOKIE_ACK)));
    for (client, server) in [(CLIENT3, SERVER2), (further, SERVER), (further, SERVER2)] {
        works(&mut w, path(client, server));
    }
    assert_eq!(w.pf.counters().endpoint_limit.get(), 600 - 512);
    w.kill(|_| true);
    assert!(opens(&mut w, web().client, CLIENT_TAG, &[CLIENT2.into()]));
    assert_eq!(w.pf.counters().endpoint_limit.get(), 600 - 512, "what has ended has left room");
}
