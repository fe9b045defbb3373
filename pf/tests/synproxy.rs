//! `synproxy state`: the handshake with both ends, numbers after it, and floods that reach nobody.

#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use std::net::Ipv4Addr;

use common::{
    CLIENT, IN, LAN, OUT, SERVER, World,
    handshake::{down, kept, passed, up},
    header,
};
use kern::Why;
use pf::Verdict;
use wire::build;

const RULES: &str = "set limit states 3000\npass in on lan0 proto tcp synproxy state\n";

/// Opens a connection; what the client has to acknowledge, and the number the server expects.
fn connect(w: &mut World, port: u16) -> (u32, u32) {
    let synack = kept(w, IN, &up(port, "S", 1000, 0, b""))[0];
    assert_eq!((synack.flags, synack.ack, synack.window, synack.mss), (0x12, 1001, 0, 536));
    assert!(!synack.filtered && synack.dst == (CLIENT.to_bits().into(), port));
    let syn = kept(w, IN, &up(port, "A", 1001, synack.seq.wrapping_add(1), b""))[0];
    assert_eq!((syn.flags, syn.src.1, syn.dst), (2, port, (SERVER.to_bits().into(), 80)));
    let both = kept(w, OUT, &down(port, "SA", 7000, syn.seq.wrapping_add(1), b""));
    assert_eq!((both[0].seq, both[0].ack, both[0].window), (syn.seq.wrapping_add(1), 7001, 1000));
    assert_eq!((both[1].seq, both[1].ack, both[1].window), (synack.seq.wrapping_add(1), 1001, 2000));
    (synack.seq.wrapping_add(1), syn.seq.wrapping_add(1))
}

#[test]
fn the_server_hears_of_a_client_that_has_answered_and_both_ends_are_joined() {
    let mut w = World::new(RULES);
    let (client_acks, server_expects) = connect(&mut w, 4000);
    let request = passed(&mut w, IN, &up(4000, "A", 1001, client_acks, b"request"));
    assert_eq!(request, (server_expects, 7001));
    let answer = passed(&mut w, OUT, &down(4000, "A", 7001, server_expects.wrapping_add(7), b"answer"));
    assert_eq!(answer, (client_acks, 1008));
    assert_eq!(w.states()[0].src.level, "ESTABLISHED");
}

#[test]
fn wrong_answers_go_nowhere() {
    let mut w = World::new(RULES);
    let synack = kept(&mut w, IN, &up(4000, "S", 1000, 0, b""))[0];
    assert!(kept(&mut w, IN, &up(4000, "A", 1001, synack.seq, b"")).is_empty(), "a guess");
    assert!(kept(&mut w, IN, &up(4000, "R", 1001, 0, b"")).is_empty());
    assert!(kept(&mut w, OUT, &down(4000, "SA", 1, 1001, b"")).is_empty(), "nobody has asked the server");
    assert_eq!(kept(&mut w, IN, &up(4000, "S", 1000, 0, b"")), [synack], "a retransmission");
}

#[test]
fn spoofed_syns_reach_no_server_and_live_connections_lose_nothing() {
    let soak = std::env::var_os("SOFTNET_SOAK").is_some();
    let (flood, connections) = if soak { (1_000_000_u32, 1000_u16) } else { (20_000, 200) };
    let mut w = World::new(RULES);
    let open: Vec<_> = (0..connections).map(|n| connect(&mut w, 10_000 + n)).collect();
    for n in 0..flood {
        let from = Ipv4Addr::from_bits(0x0a00_0000 + n);
        let syn = build::tcp4(from, SERVER, &header(1024 + n as u16 % 50_000, 80, "S", n, 0, 100), b"");
        let verdict = w.verdict(IN, LAN, &syn);
        assert!(matches!(verdict, Verdict::Block(Why::PfSynproxy | Why::PfStateLimit)), "{verdict:?}");
        assert!(w.outbox().iter().all(|s| s.flags == 0x12), "the server hears nothing");
        if n % (flood / 100) == 0 {
            w.advance(1);
            w.purge();
        }
    }
    for (n, (client_acks, server_expects)) in (0..connections).zip(open) {
        let seen = passed(&mut w, IN, &up(10_000 + n, "A", 1001, client_acks, b"x"));
        assert_eq!(seen.0, server_expects);
    }
}
