//! `synproxy state` and SYN cookies together with `af-to`: the handshake with each end is in that end's family, and the
//! numbers are shifted across the translation.

#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use common::{
    IN, LAN, WAN, World,
    families::{CLIENT6, OUTSIDE, SERVER, SERVER6, ends, packet, through},
    header,
};
use kern::{Why, testing::soak};
use pf::{IfIndex, Segment, Verdict, addr::Family};
use wire::{build, icmpv4, icmpv6, parse, tcp};

const PROXY: &str = "set limit states 3000\nblock all\n\
                     pass in on lan0 inet6 proto tcp to 64:ff9b::/96 synproxy state af-to inet from 203.0.113.1\n";
const COOKIES: &str = "set limit states 3000\nset syncookies always\nblock all\n\
                       pass in on lan0 inet6 proto tcp to 64:ff9b::/96 af-to inet from 203.0.113.1\n";

/// A segment of the client, whose window is 1000.
fn up(port: u16, flags: &str, seq: u32, ack: u32, data: &[u8]) -> Vec<u8> {
    build::tcp6(CLIENT6, SERVER6, &header(port, 80, flags, seq, ack, 1000), data)
}

/// A segment of the server to a port of the router's, whose window is 2000.
fn down(port: u16, flags: &str, seq: u32, ack: u32, data: &[u8]) -> Vec<u8> {
    build::tcp4(SERVER, OUTSIDE, &header(80, port, flags, seq, ack, 2000), data)
}

/// A packet that the router keeps, and what it says instead.
fn kept(w: &mut World, index: IfIndex, octets: &[u8]) -> Vec<Segment> {
    let mut m = packet(w, octets);
    let verdict = w.test(IN, index, &mut m);
    w.fixture.done(m);
    assert!(matches!(verdict, Verdict::Block(Why::PfSynproxy)), "{verdict:?}");
    w.outbox()
}

fn segment(octets: &[u8]) -> tcp::Repr {
    let l4 = usize::from(parse::parse_ip(octets).unwrap().l4);
    tcp::Repr::parse(&tcp::Packet::new_checked(&octets[l4..]).unwrap(), None).unwrap()
}

/// Sequence number, acknowledgement and flags of a packet that passes.
fn passed(w: &mut World, index: IfIndex, octets: &[u8]) -> (u32, u32, u8) {
    let repr = segment(&through(w, index, octets).expect("it passes"));
    (repr.seq, repr.ack, repr.flags.0)
}

/// A connection that is through.
#[derive(Clone, Copy)]
struct Connection {
    /// Port of the client, and of the router towards the server.
    ports: (u16, u16),
    /// What the client has to acknowledge, and the number that the server expects.
    client_acks: u32,
    server_expects: u32,
}

/// Opens one from port `client`. The numbers of the ends begin at 1000 and 7000.
fn connect(w: &mut World, client: u16) -> Connection {
    let (client6, server6) = ((CLIENT6.to_bits(), client), (SERVER6.to_bits(), 80));
    let synack = kept(w, LAN, &up(client, "S", 1000, 0, b""))[0];
    assert_eq!((synack.family, synack.src, synack.dst), (Family::Inet6, server6, client6));
    assert_eq!((synack.flags, synack.ack, synack.window, synack.mss), (0x12, 1001, 0, 536));
    assert!(!synack.filtered);
    let sent = kept(w, LAN, &up(client, "A", 1001, synack.seq.wrapping_add(1), b""));
    let [syn] = sent[..] else { panic!("{sent:?}") };
    let (outside, server) = ((u128::from(OUTSIDE.to_bits()), syn.src.1), (SERVER.to_bits().into(), 80));
    assert_eq!((syn.family, syn.src, syn.dst), (Family::Inet, outside, server));
    assert_eq!((syn.flags, syn.ack, syn.mss, syn.filtered), (2, 0, 536, false));
    let both = kept(w, WAN, &down(syn.src.1, "SA", 7000, syn.seq.wrapping_add(1), b""));
    let [to_server, to_client] = both[..] else { panic!("{both:?}") };
    assert_eq!((to_server.family, to_server.src, to_server.dst), (Family::Inet, outside, server));
    assert_eq!(
        (to_server.seq, to_server.ack, to_server.flags, to_server.window),
        (syn.seq.wrapping_add(1), 7001, 0x10, 1000)
    );
    assert_eq!((to_client.family, to_client.src, to_client.dst), (Family::Inet6, server6, client6));
    assert_eq!(
        (to_client.seq, to_client.ack, to_client.flags, to_client.window),
        (synack.seq.wrapping_add(1), 1001, 0x10, 2000)
    );
    Connection { ports: (client, syn.src.1), client_acks: to_client.seq, server_expects: to_server.seq }
}

/// Data go both ways, and both ends close.
fn talk(w: &mut World, c: Connection) {
    let (client, router) = c.ports;
    let (acks, expects) = (c.client_acks, c.server_expects);
    assert_eq!(passed(w, LAN, &up(client, "PA", 1001, acks, b"request")), (expects, 7001, 0x18));
    assert_eq!(
        passed(w, WAN, &down(router, "PA", 7001, expects.wrapping_add(7), b"answer")),
        (acks, 1008, 0x18)
    );
    assert_eq!(passed(w, LAN, &up(client, "A", 1008, acks.wrapping_add(6), b"")).1, 7007);
    assert_eq!(
        passed(w, LAN, &up(client, "FA", 1008, acks.wrapping_add(6), b"")),
        (expects.wrapping_add(7), 7007, 0x11)
    );
    assert_eq!(
        passed(w, WAN, &down(router, "FA", 7007, expects.wrapping_add(8), b"")),
        (acks.wrapping_add(6), 1009, 0x11)
    );
    assert_eq!(passed(w, LAN, &up(client, "A", 1009, acks.wrapping_add(7), b"")).1, 7008);
}

#[test]
fn each_end_is_spoken_to_in_its_family_and_numbers_are_shifted_across() {
    for rules in [PROXY, COOKIES] {
        let mut w = World::new(rules);
        let c = connect(&mut w, 4000);
        assert_eq!(w.states()[0].src.level, "ESTABLISHED");
        talk(&mut w, c);
        let states = w.states();
        assert_eq!(states.len(), 1);
        assert_eq!((states[0].src.level, states[0].dst.level), ("FIN_WAIT_2", "FIN_WAIT_2"));
        assert_eq!(w.kill(|_| true), 1);
    }
}

#[test]
fn a_reset_of_either_end_arrives_where_the_other_expects_it() {
    for of_client in [true, false] {
        let mut w = World::new(PROXY);
        let Connection { ports: (client, router), client_acks, server_expects } = connect(&mut w, 4000);
        let (index, reset, wanted) = if of_client {
            (LAN, up(client, "RA", 1001, client_acks, b""), (server_expects, 7001, 0x14))
        } else {
            (WAN, down(router, "RA", 7001, server_expects, b""), (client_acks, 1001, 0x14))
        };
        assert_eq!(passed(&mut w, index, &reset), wanted);
        let states = w.states();
        assert_eq!((states[0].src.level, states[0].dst.level), ("TIME_WAIT", "TIME_WAIT"));
    }
}

#[test]
fn selective_acknowledgements_say_the_numbers_of_the_end_that_sent() {
    let mut w = World::new(PROXY);
    let Connection { ports: (client, router), client_acks, server_expects } = connect(&mut w, 4000);
    let with = |repr: tcp::Repr, from: u32| tcp::Repr {
        sack: [Some((from, from.wrapping_add(100))), None, None, None],
        ..repr
    };
    let ack = with(header(client, 80, "A", 1001, client_acks, 1000), client_acks.wrapping_add(50));
    let out = segment(&through(&mut w, LAN, &build::tcp6(CLIENT6, SERVER6, &ack, b"")).unwrap());
    assert_eq!(out.sack[0], Some((7051, 7151)));
    let ack = with(header(80, router, "A", 7001, server_expects, 2000), server_expects.wrapping_add(50));
    let back = segment(&through(&mut w, WAN, &build::tcp4(SERVER, OUTSIDE, &ack, b"")).unwrap());
    assert_eq!(back.sack[0], Some((1051, 1151)));
}

#[test]
fn an_error_about_a_segment_quotes_the_number_that_its_sender_gave_it() {
    let mut w = World::new(PROXY);
    let Connection { ports: (client, _), client_acks, .. } = connect(&mut w, 4000);
    let out = through(&mut w, LAN, &up(client, "A", 1001, client_acks, b"request")).unwrap();
    let router = Ipv4Addr::new(198, 51, 100, 254);
    let error = icmpv4::Repr::Error(icmpv4::Error::FragmentationNeeded(1400), &out[..28]);
    let told = through(&mut w, WAN, &build::icmp4(router, OUTSIDE, &error)).unwrap();
    let message = icmpv6::Packet::new_checked(&told[40..]).unwrap();
    let (IpAddr::V6(from), _) = ends(&told).0 else { panic!("{told:02x?}") };
    let icmpv6::Repr::Error(said, quoted) = icmpv6::Repr::parse(&message, from, CLIENT6).unwrap() else {
        panic!("{told:02x?}");
    };
    assert_eq!(said, icmpv6::Error::PacketTooBig(1420));
    assert_eq!(quoted[44..48], 1001_u32.to_be_bytes());
}

#[test]
fn wrong_answers_go_nowhere() {
    let mut w = World::new(PROXY);
    let synack = kept(&mut w, LAN, &up(4000, "S", 1000, 0, b""))[0];
    assert!(kept(&mut w, LAN, &up(4000, "A", 1001, synack.seq, b"")).is_empty(), "a guess");
    assert!(kept(&mut w, LAN, &up(4000, "RA", 1001, synack.seq.wrapping_add(1), b"")).is_empty());
    assert_eq!(kept(&mut w, LAN, &up(4000, "S", 1000, 0, b"")), [synack], "a retransmission");
    let router = w.states()[0].stack[0].1;
    assert!(kept(&mut w, WAN, &down(router, "SA", 1, 1001, b"")).is_empty(), "nobody has asked the server");
    let syn = kept(&mut w, LAN, &up(4000, "A", 1001, synack.seq.wrapping_add(1), b""))[0];
    assert!(kept(&mut w, WAN, &down(router, "SA", 1, syn.seq, b"")).is_empty(), "not to this SYN");
    assert_eq!(
        kept(&mut w, LAN, &up(4000, "A", 1001, synack.seq.wrapping_add(1), b"")),
        [syn],
        "asked again"
    );
}

#[test]
fn out_of_inet_the_other_family_gets_segments_that_fit_its_longer_header() {
    const OWN: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 9);
    let rule = "pass in on wan0 inet proto tcp to 203.0.113.9 synproxy state \
                af-to inet6 from 64:ff9b::/96 to 2001:db8:a::9\n";
    let plain = rule.replace(" synproxy state", "");
    for rules in [rule.to_owned(), format!("set syncookies always\n{plain}")] {
        let mut w = World::new(&rules);
        let up = |flags: &str, seq, ack| {
            let mss = flags.contains('S').then_some(1460);
            let header = tcp::Repr { max_segment_size: mss, ..header(4000, 80, flags, seq, ack, 1000) };
            build::tcp4(SERVER, OWN, &header, b"")
        };
        let synack = kept(&mut w, WAN, &up("S", 1000, 0))[0];
        assert_eq!((synack.family, synack.mss), (Family::Inet, 1440));
        let syn = kept(&mut w, WAN, &up("A", 1001, synack.seq.wrapping_add(1)))[0];
        assert_eq!((syn.family, syn.mss), (Family::Inet6, 1440));
        assert_eq!((syn.src.0, syn.dst), (SERVER6.to_bits(), (CLIENT6.to_bits(), 80)));
        let answer = build::tcp6(
            CLIENT6,
            SERVER6,
            &header(80, syn.src.1, "SA", 7000, syn.seq.wrapping_add(1), 2000),
            b"",
        );
        assert_eq!(kept(&mut w, LAN, &answer).len(), 2);
        let seen = passed(&mut w, WAN, &up("A", 1001, synack.seq.wrapping_add(1)));
        assert_eq!(seen, (syn.seq.wrapping_add(1), 7001, 0x10));
        assert_eq!(w.states()[0].src.level, "ESTABLISHED");
    }
}

#[test]
fn spoofed_syns_reach_no_server_and_with_cookies_make_no_state() {
    let (flood, connections) = if soak() { (1_000_000_u32, 1000_u16) } else { (20_000, 200) };
    for rules in [PROXY, COOKIES] {
        let mut w = World::new(rules);
        let open: Vec<_> = (0..connections).map(|n| connect(&mut w, 10_000 + n)).collect();
        for n in 0..flood {
            let from = Ipv6Addr::from_bits(0x2001_0db8_00bb << 80 | u128::from(n));
            let syn = build::tcp6(from, SERVER6, &header(1024 + n as u16 % 50_000, 80, "S", n, 0, 100), b"");
            let mut m = packet(&w, &syn);
            let verdict = w.test(IN, LAN, &mut m);
            w.fixture.done(m);
            assert!(matches!(verdict, Verdict::Block(Why::PfSynproxy | Why::PfStateLimit)), "{verdict:?}");
            let sent = w.outbox();
            assert!(
                sent.iter().all(|s| s.flags == 0x12 && s.family == Family::Inet6),
                "the server hears nothing"
            );
            if n % (flood / 100) == 0 {
                w.advance(1);
                w.purge();
            }
        }
        if rules == COOKIES {
            assert_eq!(w.pf.states().count(), u32::from(connections));
        }
        for c in open {
            talk(&mut w, c);
        }
    }
}
