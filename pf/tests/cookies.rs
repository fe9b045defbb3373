//! `set syncookies`: handshakes without states, cookies that are none, floods that reach nobody, and when they are on.

#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use std::net::Ipv4Addr;

use common::{
    CLIENT, IN, LAN, OUT, SERVER, World,
    handshake::{down, kept, passed, up},
    header,
};
use kern::{
    Why,
    testing::{Chance, soak},
};
use pf::{Verdict, show};
use wire::build;

const ALWAYS: &str =
    "set limit states 3000\nset syncookies always\nblock all\npass in on lan0 proto tcp to port 80\n";

/// The answer to a SYN.
fn cookie(w: &mut World, port: u16) -> u32 {
    let states = w.pf.states().count();
    let sent = kept(w, IN, &up(port, "S", 1000, 0, b""));
    assert_eq!(w.pf.states().count(), states, "a cookie costs no state");
    let synack = sent[0];
    assert_eq!((synack.flags, synack.ack, synack.window, synack.mss), (0x12, 1001, 0, 536));
    assert_eq!((synack.src, synack.dst), ((SERVER.to_bits().into(), 80), (CLIENT.to_bits().into(), port)));
    synack.seq
}

/// Opens a connection; what the client has to acknowledge, and the number the server expects.
fn connect(w: &mut World, port: u16) -> (u32, u32) {
    let cookie = cookie(w, port);
    let syn = kept(w, IN, &up(port, "A", 1001, cookie.wrapping_add(1), b""))[0];
    assert_eq!((syn.flags, syn.src.1, syn.dst, syn.mss), (2, port, (SERVER.to_bits().into(), 80), 536));
    let both = kept(w, OUT, &down(port, "SA", 7000, syn.seq.wrapping_add(1), b""));
    assert_eq!((both[0].seq, both[0].ack, both[0].window), (syn.seq.wrapping_add(1), 7001, 1000));
    assert_eq!((both[1].seq, both[1].ack, both[1].window), (cookie.wrapping_add(1), 1001, 2000));
    (cookie.wrapping_add(1), syn.seq.wrapping_add(1))
}

/// Answered, brought back, worthless, floods.
fn counted(w: &World) -> [u64; 4] {
    let c = w.pf.counters();
    [&c.syncookies_sent, &c.syncookies_valid, &c.syncookies_invalid, &c.synfloods]
        .map(kern::counter::Counter::get)
}

#[test]
fn a_cookie_that_comes_back_opens_a_connection_through_the_router() {
    let mut w = World::new(ALWAYS);
    let (client_acks, server_expects) = connect(&mut w, 4000);
    let request = passed(&mut w, IN, &up(4000, "A", 1001, client_acks, b"request"));
    assert_eq!(request, (server_expects, 7001));
    let answer = passed(&mut w, OUT, &down(4000, "A", 7001, server_expects.wrapping_add(7), b"answer"));
    assert_eq!(answer, (client_acks, 1008));
    assert_eq!(w.states()[0].src.level, "ESTABLISHED");
    assert_eq!(counted(&w), [1, 1, 0, 0]);
}

#[test]
fn the_rules_decide_when_the_cookie_comes_back_and_translate() {
    let mut w = World::new(
        "set syncookies always\nrdr on lan0 inet proto tcp to 198.51.100.1 port 80 -> 10.0.0.7 port 8080\n\
         block return-rst in proto tcp\npass in on lan0 proto tcp to 10.0.0.7\n",
    );
    let seq = cookie(&mut w, 4000);
    let syn = kept(&mut w, IN, &up(4000, "A", 1001, seq.wrapping_add(1), b""))[0];
    assert_eq!(syn.dst, (u128::from(Ipv4Addr::new(10, 0, 0, 7).to_bits()), 8080));
    w.load("set syncookies always\nblock return-rst in proto tcp\n");
    let seq = cookie(&mut w, 4001);
    let verdict = w.verdict(IN, LAN, &up(4001, "A", 1001, seq.wrapping_add(1), b""));
    assert!(matches!(verdict, Verdict::Return(_, Why::PfReturn)), "{verdict:?}");
    w.load("set syncookies always\npass all no state\n");
    let seq = cookie(&mut w, 4002);
    assert!(
        kept(&mut w, IN, &up(4002, "A", 1001, seq.wrapping_add(1), b"")).is_empty(),
        "no state, no connection"
    );
    assert_eq!(w.states().len(), 1);
}

#[test]
fn cookies_that_are_none_are_counted_and_what_the_rules_say() {
    let mut w = World::new(ALWAYS);
    let mut chance = Chance::seeded(11);
    assert!(!w.passes(IN, LAN, &up(3999, "A", 1001, 77, b"")));
    assert_eq!(counted(&w), [0; 4], "none is out that could come back");
    let seq = cookie(&mut w, 4000);
    for _ in 0..1000 {
        let guess = up(4000, "A", 1001, chance.next() as u32, b"");
        let verdict = w.verdict(IN, LAN, &guess);
        assert!(matches!(verdict, Verdict::Block(Why::PfBlock)), "{verdict:?}");
    }
    let verdict = w.verdict(IN, LAN, &up(4001, "A", 1001, seq.wrapping_add(1), b""));
    assert!(matches!(verdict, Verdict::Block(Why::PfBlock)), "of another port: {verdict:?}");
    assert_eq!((counted(&w), w.states().len()), ([1, 0, 1001, 0], 0));
    w.advance(31);
    let old = up(4000, "A", 1001, seq.wrapping_add(1), b"");
    assert!(matches!(w.verdict(IN, LAN, &old), Verdict::Block(Why::PfBlock)), "too late");
    assert!(w.outbox().is_empty() && w.states().is_empty());
}

#[test]
fn spoofed_syns_make_no_state_and_live_connections_lose_nothing() {
    let (flood, connections) = (if soak() { 1_000_000_u32 } else { 20_000 }, 1000_u16);
    let mut w = World::new(ALWAYS);
    let open: Vec<_> = (0..connections).map(|n| connect(&mut w, 10_000 + n)).collect();
    for n in 0..flood {
        let from = Ipv4Addr::from_bits(0x0a00_0000 + n);
        let syn = build::tcp4(from, SERVER, &header(1024 + n as u16 % 50_000, 80, "S", n, 0, 100), b"");
        let sent = kept(&mut w, IN, &syn);
        assert!(sent.len() == 1 && sent[0].flags == 0x12, "the server hears nothing");
        if n % (flood / 100) == 0 {
            w.advance(1);
            w.purge();
            assert_eq!(w.pf.states().count(), u32::from(connections));
        }
    }
    for (n, (client_acks, server_expects)) in (0..connections).zip(open) {
        let seen = passed(&mut w, IN, &up(10_000 + n, "A", 1001, client_acks, b"x"));
        assert_eq!(seen.0, server_expects);
    }
    let connections = u64::from(connections);
    assert_eq!(counted(&w), [u64::from(flood) + connections, connections, 0, 0]);
}

#[test]
fn half_open_connections_turn_them_on_and_off() {
    let rules =
        "set limit states 100\nset syncookies adaptive (start 20%, end 10%)\npass in on lan0 proto tcp\n";
    let mut w = World::new(rules);
    let info = |w: &World| show::info(&w.pf, Some(&w.ruleset), Some(1));
    for port in 0..20 {
        assert!(w.passes(IN, LAN, &up(1000 + port, "S", 1000, 0, b"")), "{port}");
    }
    let seq = cookie(&mut w, 4000);
    let (when, now) = info(&w).syncookies;
    assert_eq!((when.keyword(), now.active, now.half_open), ("adaptive", true, 20));
    let text = info(&w).text(2);
    let wanted = "\
  syncookies sent                        1            1.0/s
  syncookies validated                   0            0.0/s
Syncookies
  mode                      adaptive
  active                    active
  highwater                 20 %
  lowwater                  10 %
  halfopen states           20
Reassemble                       no \n";
    assert!(text.ends_with(wanted), "{text}");
    // Six are complete, five are killed: nine are left.
    for port in 0..6 {
        assert!(w.passes(OUT, LAN, &down(1000 + port, "SA", 5000, 1001, b"")));
        assert!(w.passes(IN, LAN, &up(1000 + port, "A", 1001, 5001, b"")));
    }
    assert_eq!(info(&w).syncookies.1.half_open, 14);
    w.kill(|state| (1010..1015).contains(&state.wire[0].1) || (1010..1015).contains(&state.wire[1].1));
    assert!(w.passes(IN, LAN, &up(4001, "S", 1000, 0, b"")), "nine are below the end");
    let syn = kept(&mut w, IN, &up(4000, "A", 1001, seq.wrapping_add(1), b""))[0];
    assert_eq!(syn.flags, 2, "one that is out is still good");
    assert_eq!(info(&w).syncookies.1.half_open, 11);
    w.kill(|_| true);
    assert_eq!(info(&w).syncookies.1.half_open, 0);
    assert_eq!(counted(&w), [1, 1, 0, 1]);
}
