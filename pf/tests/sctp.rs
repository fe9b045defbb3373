//! SCTP: associations from INIT to SHUTDOWN COMPLETE, their tags and timeouts, translation, ICMP errors, and the ABORT that
//! answers what is blocked.

#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use common::{
    CLIENT, IN, LAN, OUT, SERVER, WAN, World,
    association::{Association, CLIENT_TAG, SERVER_TAG, chunk, init},
};
use kern::Why;
use pf::{Answer, Direction, IfIndex, Verdict};
use wire::{IpProto, build, checksum, icmpv4, icmpv6, parse, sctp, sctp::kind};

const FILTER: &str = "block all\npass in on lan0 proto sctp to port 5000 keep state\n";
const CLIENT6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xa, 0, 0, 0, 0, 9);
const SERVER6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xc, 0, 0, 0, 0, 1);

fn associations() -> [Association; 2] {
    [Association::new(CLIENT, SERVER), Association::new(CLIENT6, SERVER6)]
}

/// Completes the handshake at the LAN.
fn open(w: &mut World, a: Association) {
    assert!(w.passes(IN, LAN, &a.init(&[])));
    assert!(w.passes(OUT, LAN, &a.init_ack(&[])));
    assert!(w.passes(IN, LAN, &a.says(kind::COOKIE_ECHO)));
    assert!(w.passes(OUT, LAN, &a.answers(kind::COOKIE_ACK)));
}

/// Levels of both ends and seconds until the only state expires.
fn state(w: &mut World) -> (String, u32) {
    let states = w.states();
    assert_eq!(states.len(), 1, "{states:?}");
    (format!("{}:{}", states[0].src.level, states[0].dst.level), states[0].expires)
}

fn is_mismatch(verdict: &Verdict) -> bool {
    matches!(verdict, Verdict::Block(Why::PfStateMismatch))
}

#[test]
fn an_association_is_followed_from_init_to_shutdown_complete() {
    for a in associations() {
        let mut w = World::new(FILTER);
        let up = |w: &mut World, octets: &[u8], is: &str, expires| {
            assert!(w.passes(IN, LAN, octets), "{is}");
            assert_eq!(state(w), (is.to_owned(), expires));
        };
        up(&mut w, &a.init(&[]), "COOKIE_WAIT:CLOSED", 120);
        up(&mut w, &a.init(&[]), "COOKIE_WAIT:CLOSED", 120);
        let down = |w: &mut World, octets: &[u8], is: &str, expires| {
            assert!(w.passes(OUT, LAN, octets), "{is}");
            assert_eq!(state(w), (is.to_owned(), expires));
        };
        down(&mut w, &a.init_ack(&[]), "COOKIE_WAIT:CLOSED", 30);
        up(&mut w, &a.says(kind::COOKIE_ECHO), "COOKIE_ECHOED:CLOSED", 30);
        down(&mut w, &a.answers(kind::COOKIE_ACK), "ESTABLISHED:ESTABLISHED", 86_400);
        up(&mut w, &a.says(kind::DATA), "ESTABLISHED:ESTABLISHED", 86_400);
        down(&mut w, &a.answers(kind::SHUTDOWN), "SHUTDOWN_RECEIVED:SHUTDOWN_SENT", 900);
        up(&mut w, &a.says(kind::SHUTDOWN_ACK), "SHUTDOWN_ACK_SENT:SHUTDOWN_SENT", 900);
        down(&mut w, &a.answers(kind::SHUTDOWN_COMPLETE), "CLOSED:CLOSED", 90);
        let line = w.states()[0].line(None, false);
        let ends = if a.client.0.is_ipv4() {
            "198.51.100.1:5000 <- 192.0.2.9:4000"
        } else {
            "2001:db8:c::1[5000] <- 2001:db8:a::9[4000]"
        };
        assert_eq!(line, format!("all sctp {ends}       CLOSED:CLOSED"));
        w.advance(91);
        w.purge();
        w.advance(10);
        w.purge();
        assert!(w.states().is_empty());
        assert_eq!((w.pf.counters().inserts.get(), w.pf.counters().removals.get()), (1, 1));
    }
}

#[test]
fn nothing_but_an_init_opens_an_association_and_only_to_the_port_of_the_rule() {
    let a = Association::new(CLIENT, SERVER);
    let mut w = World::new(FILTER);
    assert!(is_mismatch(&w.verdict(IN, LAN, &a.says(kind::DATA))));
    assert!(is_mismatch(&w.verdict(IN, LAN, &a.says(kind::COOKIE_ECHO))));
    let elsewhere = Association { server: (SERVER.into(), 5001), ..a };
    assert!(!w.passes(IN, LAN, &elsewhere.init(&[])));
    assert!(w.states().is_empty());
    open(&mut w, a);
    assert!(!w.passes(IN, LAN, &elsewhere.says(kind::DATA)), "another association of the same hosts");
    let other = Association { client: (CLIENT.into(), 4001), ..a };
    assert!(!w.passes(OUT, LAN, &other.answers(kind::DATA)));
}

#[test]
fn a_packet_with_another_tag_is_dropped_and_changes_nothing() {
    for a in associations() {
        let mut w = World::new(FILTER);
        open(&mut w, a);
        let before = state(&mut w);
        w.advance(5);
        for (direction, wrong) in [
            (IN, a.up(CLIENT_TAG, &chunk(kind::ABORT))),
            (IN, a.up(SERVER_TAG ^ 1, &chunk(kind::SHUTDOWN))),
            (OUT, a.down(SERVER_TAG, &chunk(kind::DATA))),
            (OUT, a.down(0, &chunk(kind::SHUTDOWN_ACK))),
            (IN, a.up(0, &init(kind::INIT, 77, &[]))),
            (OUT, a.down(0, &init(kind::INIT, 77, &[]))),
        ] {
            assert!(is_mismatch(&w.verdict(direction, LAN, &wrong)), "{wrong:02x?}");
        }
        assert_eq!(state(&mut w), (before.0, before.1 - 5));
        assert_eq!(w.pf.counters().state_mismatch.get(), 6);
        assert!(w.passes(IN, LAN, &a.init(&[])), "the client's INIT once more, late");
        assert!(w.passes(IN, LAN, &a.says(kind::DATA)));
    }
}

#[test]
fn either_of_the_last_two_init_acks_may_be_the_one_that_arrived() {
    let a = Association::new(CLIENT, SERVER);
    for used in [SERVER_TAG, 99] {
        let mut w = World::new(FILTER);
        assert!(w.passes(IN, LAN, &a.init(&[])));
        assert!(w.passes(OUT, LAN, &a.init_ack(&[])));
        assert!(w.passes(IN, LAN, &a.init(&[])));
        assert!(w.passes(OUT, LAN, &a.down(CLIENT_TAG, &init(kind::INIT_ACK, 99, &[]))));
        assert!(w.passes(IN, LAN, &a.up(used, &chunk(kind::COOKIE_ECHO))));
        assert!(w.passes(OUT, LAN, &a.answers(kind::COOKIE_ACK)));
        assert!(w.passes(IN, LAN, &a.up(used, &chunk(kind::DATA))));
        let other = if used == 99 { SERVER_TAG } else { 99 };
        assert!(is_mismatch(&w.verdict(IN, LAN, &a.up(other, &chunk(kind::DATA)))));
        // What the server says another time is not meant.
        assert!(w.passes(OUT, LAN, &a.down(CLIENT_TAG, &init(kind::INIT_ACK, 55, &[]))));
        assert!(is_mismatch(&w.verdict(IN, LAN, &a.up(55, &chunk(kind::DATA)))));
    }
}

#[test]
fn an_abort_closes_at_once_with_the_tag_of_either_end_and_an_init_opens_anew() {
    let a = Association::new(CLIENT, SERVER);
    let reflected = |tag| (tag, build::sctp_chunk(kind::ABORT, sctp::REFLECTED, &[]));
    for (direction, (tag, chunk)) in [
        (IN, (SERVER_TAG, chunk(kind::ABORT))),
        (OUT, (CLIENT_TAG, chunk(kind::ABORT))),
        // Who knows nothing of the association gives back the tag that it was sent.
        (IN, reflected(CLIENT_TAG)),
        (OUT, reflected(SERVER_TAG)),
    ] {
        let mut w = World::new(FILTER);
        open(&mut w, a);
        let octets = if direction == IN { a.up(tag, &chunk) } else { a.down(tag, &chunk) };
        assert!(w.passes(direction, LAN, &octets));
        assert_eq!(state(&mut w), ("CLOSED:CLOSED".to_owned(), 90));
        assert!(w.passes(IN, LAN, &a.up(0, &init(kind::INIT, 1234, &[]))));
        assert_eq!(state(&mut w), ("COOKIE_WAIT:CLOSED".to_owned(), 120));
        assert_eq!((w.pf.counters().inserts.get(), w.pf.counters().removals.get()), (2, 1));
    }
    // The server refuses.
    let mut w = World::new(FILTER);
    assert!(w.passes(IN, LAN, &a.init(&[])));
    assert!(w.passes(OUT, LAN, &a.answers(kind::ABORT)));
    assert_eq!(state(&mut w), ("CLOSED:CLOSED".to_owned(), 90));
}

#[test]
fn an_init_opens_anew_what_both_ends_have_shut_down_and_not_what_one_has() {
    let a = Association::new(CLIENT, SERVER);
    let anew = a.up(0, &init(kind::INIT, 1234, &[]));
    let shuts: [&[(Direction, u8)]; 3] = [
        &[(OUT, kind::SHUTDOWN)],
        &[(OUT, kind::SHUTDOWN), (IN, kind::SHUTDOWN_ACK)],
        &[(IN, kind::SHUTDOWN), (OUT, kind::SHUTDOWN)],
    ];
    for shut in shuts {
        let mut w = World::new(FILTER);
        open(&mut w, a);
        for (direction, kind) in shut {
            let octets = if *direction == IN { a.says(*kind) } else { a.answers(*kind) };
            assert!(w.passes(*direction, LAN, &octets));
        }
        if shut.len() == 1 {
            assert!(is_mismatch(&w.verdict(IN, LAN, &anew)));
            assert!(w.passes(IN, LAN, &a.says(kind::DATA)), "what the client has left");
            assert_eq!(state(&mut w), ("SHUTDOWN_RECEIVED:SHUTDOWN_SENT".to_owned(), 900));
        } else {
            assert!(w.passes(IN, LAN, &anew));
            assert_eq!(state(&mut w), ("COOKIE_WAIT:CLOSED".to_owned(), 120));
        }
    }
}

#[test]
fn each_stage_has_its_timeout_and_a_rule_its_own() {
    let a = Association::new(CLIENT, SERVER);
    let mut w = World::new(&format!(
        "set timeout {{ sctp.first 11, sctp.opening 12, sctp.established 13, sctp.closing 14, sctp.closed 15 }}\n{FILTER}"
    ));
    let mut expires = vec![];
    for (direction, octets) in [
        (IN, a.init(&[])),
        (OUT, a.init_ack(&[])),
        (IN, a.says(kind::COOKIE_ECHO)),
        (OUT, a.answers(kind::COOKIE_ACK)),
        (IN, a.says(kind::SHUTDOWN)),
        (OUT, a.answers(kind::SHUTDOWN_ACK)),
        (IN, a.says(kind::SHUTDOWN_COMPLETE)),
    ] {
        assert!(w.passes(direction, LAN, &octets));
        expires.push(state(&mut w).1);
    }
    assert_eq!(expires, [11, 12, 12, 13, 14, 14, 15]);
    let mut w =
        World::new("pass in on lan0 proto sctp to port 5000 keep state (sctp.first 3, sctp.established 5)\n");
    assert!(w.passes(IN, LAN, &a.init(&[])));
    assert_eq!(state(&mut w).1, 3);
    open(&mut w, a);
    assert_eq!(state(&mut w).1, 5);
    w.advance(16);
    w.purge();
    assert!(w.states().is_empty());
}

#[test]
fn what_rfc_9260_forbids_is_dropped_before_any_rule() {
    let a = Association::new(CLIENT, SERVER);
    // Where every packet passes, none is looked at.
    let mut w = World::new("block all\npass proto sctp no state\n");
    let mut is_short = |octets: &[u8]| matches!(w.verdict(IN, LAN, octets), Verdict::Block(Why::PfShort));
    let data = chunk(kind::DATA);
    assert!(!is_short(&a.says(kind::DATA)));
    assert!(is_short(&Association { client: (CLIENT.into(), 0), ..a }.says(kind::DATA)));
    assert!(is_short(&Association { server: (SERVER.into(), 0), ..a }.says(kind::DATA)));
    assert!(is_short(&a.up(0, &[init(kind::INIT, 5, &[]), data.clone()].concat())));
    assert!(is_short(&a.up(9, &init(kind::INIT, 5, &[]))));
    assert!(is_short(&a.up(9, &data[..data.len() - 1])));
    assert!(is_short(&a.up(9, &[0, 0, 0, 3])));
    let bare = |len| {
        let header = wire::ipv4::Repr {
            src: CLIENT,
            dst: SERVER,
            proto: IpProto::SCTP,
            ..wire::ipv4::Repr::default()
        };
        build::raw4(header, &vec![1; len])
    };
    assert!(is_short(&bare(11)));
}

#[test]
fn block_return_answers_with_an_abort_that_the_sender_believes() {
    for a in associations() {
        let mut w = World::new("block return all\n");
        for (octets, tag, flags) in [
            (a.init(&[]), CLIENT_TAG, 0),
            (a.says(kind::DATA), SERVER_TAG, sctp::REFLECTED),
            (a.init_ack(&[]), CLIENT_TAG, sctp::REFLECTED),
        ] {
            let mut m = w.packet(&octets);
            let verdict = w.test(IN, LAN, &mut m);
            assert!(matches!(verdict, Verdict::Return(Answer::Abort, Why::PfReturn)), "{verdict:?}");
            let mut reply = w.fixture.packet(&[]);
            pf::answer::abort(&m, 64, &mut reply).unwrap();
            let p = parse::parse_ip(reply.data()).unwrap();
            let asked = parse::parse_ip(&octets).unwrap();
            assert_eq!(p.flow(reply.data()), asked.flow(&octets).reversed());
            let packet = sctp::Packet::new_checked(p.l4(reply.data())).unwrap();
            assert_eq!(sctp::Repr::parse(&packet).unwrap().tag, tag);
            let chunks: Vec<_> = packet.chunks().map(Result::unwrap).collect();
            assert_eq!(chunks, [sctp::Chunk { kind: kind::ABORT, flags, value: b"" }]);
            w.fixture.done(reply);
            w.fixture.done(m);
        }
        // A packet without its association, if the rules want to be told.
        w.load("set fail-policy return\npass proto sctp keep state\n");
        let verdict = w.verdict(IN, LAN, &a.says(kind::DATA));
        assert!(matches!(verdict, Verdict::Return(Answer::Abort, Why::PfStateMismatch)), "{verdict:?}");
        w.load("block return all\n");
        for kind in [kind::ABORT, kind::SHUTDOWN_COMPLETE, kind::ERROR, kind::COOKIE_ACK] {
            let verdict = w.verdict(IN, LAN, &a.says(kind));
            assert!(matches!(verdict, Verdict::Block(Why::PfBlock)), "{kind}: {verdict:?}");
        }
    }
}

/// What a packet is after pf has passed it; its checksums must be right.
fn through(w: &mut World, direction: Direction, index: IfIndex, octets: &[u8]) -> Vec<u8> {
    let mut m = w.packet(octets);
    let verdict = w.test(direction, index, &mut m);
    assert!(matches!(verdict, Verdict::Pass(_)), "{verdict:?}");
    let data = m.data().to_vec();
    w.fixture.done(m);
    let p = parse::parse_ip(&data).unwrap();
    assert!(checksum::transport_ok(&data, p.l4.into(), p.end as usize, p.proto), "{data:02x?}");
    data
}

fn ends(data: &[u8]) -> [(IpAddr, u16); 2] {
    let p = parse::parse_ip(data).unwrap();
    let flow = p.flow(data);
    [(flow.src(), p.src_port), (flow.dst(), p.dst_port)]
}

#[test]
fn translation_changes_addresses_and_never_ports() {
    let outside: [IpAddr; 2] = [Ipv4Addr::new(203, 0, 113, 1).into(), "2001:db8:b::1".parse().unwrap()];
    for (a, outside) in associations().into_iter().zip(outside) {
        for rules in [
            "nat on wan0 from any to any -> (wan0)\n",
            "pass out on wan0 proto sctp nat-to (wan0)\n",
            "pass out on wan0 nat-to (wan0) port 20000:30000\n",
        ] {
            let mut w = World::new(rules);
            assert_eq!(
                ends(&through(&mut w, OUT, WAN, &a.init(&[]))),
                [(outside, 4000), a.server],
                "{rules}"
            );
            let b = Association { client: (outside, 4000), ..a };
            assert_eq!(ends(&through(&mut w, IN, WAN, &b.init_ack(&[]))), [a.server, a.client]);
            assert_eq!(ends(&through(&mut w, OUT, WAN, &a.says(kind::COOKIE_ECHO)))[0].0, outside);
            through(&mut w, IN, WAN, &b.answers(kind::COOKIE_ACK));
            assert_eq!(state(&mut w).0, "ESTABLISHED:ESTABLISHED");
            // The same port of another client is taken.
            let taken = Association { client: (other(a.client.0), 4000), ..a };
            let verdict = w.verdict(OUT, WAN, &taken.init(&[]));
            assert!(matches!(verdict, Verdict::Block(Why::PfTranslate)), "{verdict:?}");
            // An error about what went out comes back to who sent it.
            let sent = through(&mut w, OUT, WAN, &a.says(kind::DATA));
            let error =
                through(&mut w, IN, WAN, &unreachable(a.server.0, outside, &sent[..sent.len().min(80)]));
            assert_eq!(ends(&error)[1].0, a.client.0);
            let quoted = &error[if a.client.0.is_ipv4() { 28 } else { 48 }..];
            let p = parse::parse_quoted(quoted).unwrap();
            assert_eq!((p.flow(quoted).src(), p.src_port), a.client);
            // And what went out is put back into the words of its sender.
            let mut m = w.packet(&a.says(kind::DATA));
            assert!(matches!(w.test(OUT, WAN, &mut m), Verdict::Pass(_)));
            w.undo(&mut m);
            assert_eq!(ends(m.data()), [a.client, a.server]);
            w.fixture.done(m);
        }
    }
}

/// Another address of the same network.
fn other(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(a) => Ipv4Addr::from_bits(a.to_bits() ^ 0x30).into(),
        IpAddr::V6(a) => Ipv6Addr::from_bits(a.to_bits() ^ 0x30).into(),
    }
}

fn unreachable(from: IpAddr, to: IpAddr, about: &[u8]) -> Vec<u8> {
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            build::icmp4(from, to, &icmpv4::Repr::Error(icmpv4::Error::Unreachable(1), about))
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            build::icmp6(from, to, &icmpv6::Repr::Error(icmpv6::Error::Unreachable(3), about))
        }
        families => panic!("{families:?}"),
    }
}

#[test]
fn a_redirected_association_keeps_its_port_and_its_answers_come_from_where_it_went() {
    let outside: IpAddr = Ipv4Addr::new(203, 0, 113, 1).into();
    for rules in [
        "rdr pass on wan0 inet proto sctp from any to 203.0.113.1 port 5000 -> 192.0.2.9 port 5000\n",
        "rdr pass on wan0 inet from any to 203.0.113.1 -> 192.0.2.9\n",
        "binat on wan0 inet from 192.0.2.9 to any -> 203.0.113.1\npass all\n",
        "pass in on wan0 inet proto sctp to 203.0.113.1 port 5000 rdr-to 192.0.2.9\n",
    ] {
        let mut w = World::new(rules);
        let a = Association { client: (SERVER.into(), 4000), server: (outside, 5000) };
        let inside = Association { server: (CLIENT.into(), 5000), ..a };
        assert_eq!(ends(&through(&mut w, IN, WAN, &a.init(&[]))), [a.client, inside.server], "{rules}");
        assert_eq!(ends(&through(&mut w, OUT, WAN, &inside.init_ack(&[]))), [a.server, a.client]);
        through(&mut w, IN, WAN, &a.says(kind::COOKIE_ECHO));
        through(&mut w, OUT, WAN, &inside.answers(kind::COOKIE_ACK));
        assert_eq!(state(&mut w).0, "ESTABLISHED:ESTABLISHED");
    }
}

#[test]
fn an_icmp_error_passes_if_the_tag_that_it_quotes_is_the_senders() {
    for a in associations() {
        let mut w = World::new(FILTER);
        open(&mut w, a);
        let quote = |octets: &[u8]| octets[..if a.client.0.is_ipv4() { 28 } else { 48 }].to_vec();
        let error = |octets: &[u8]| unreachable(a.server.0, a.client.0, &quote(octets));
        assert!(w.passes(OUT, LAN, &error(&a.says(kind::DATA))));
        assert!(is_mismatch(&w.verdict(OUT, LAN, &error(&a.up(SERVER_TAG ^ 1, &chunk(kind::DATA))))));
        assert!(is_mismatch(&w.verdict(OUT, LAN, &error(&a.init(&[])))), "long ago");
        let mut w = World::new(FILTER);
        assert!(w.passes(IN, LAN, &a.init(&[])));
        assert!(w.passes(OUT, LAN, &error(&a.init(&[]))));
    }
}

#[test]
fn an_association_of_the_other_family_keeps_tag_and_checksum() {
    let mut w =
        World::new("pass in on lan0 inet6 proto sctp from any to 64:ff9b::/96 af-to inet from 203.0.113.1\n");
    let a = Association::new(CLIENT6, "64:ff9b::c633:6401".parse::<Ipv6Addr>().unwrap());
    let four =
        Association { client: (Ipv4Addr::new(203, 0, 113, 1).into(), 4000), server: (SERVER.into(), 5000) };
    assert_eq!(ends(&through(&mut w, IN, LAN, &a.init(&[]))), [four.client, four.server]);
    assert_eq!(ends(&through(&mut w, IN, WAN, &four.init_ack(&[]))), [a.server, a.client]);
    through(&mut w, IN, LAN, &a.says(kind::COOKIE_ECHO));
    through(&mut w, IN, WAN, &four.answers(kind::COOKIE_ACK));
    assert_eq!(state(&mut w).0, "ESTABLISHED:ESTABLISHED");
    assert!(is_mismatch(&w.verdict(IN, WAN, &four.down(7, &chunk(kind::DATA)))));
}
