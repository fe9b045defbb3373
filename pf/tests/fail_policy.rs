//! `set fail-policy`: what the sender of a packet is told whose state could not be made.

#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use common::{CLIENT, Conversation, IN, LAN, SERVER, World};
use kern::Why;
use pf::{Answer, Reset, Verdict};
use wire::{build, icmpv4};

fn web(client_port: u16) -> Vec<u8> {
    Conversation { client_port, server_port: 80 }.up("S", 1000, 0, 8192, 0)
}

#[test]
fn as_block_return_does_where_it_says_so() {
    let udp = build::udp4(CLIENT, SERVER, 4000, 53, b"question");
    let ping = build::icmp4(CLIENT, SERVER, &icmpv4::Repr::EchoRequest { ident: 1, seq: 1, data: b"0123" });
    let reset = Answer::Reset(Reset { ttl: 0, acknowledge: true });
    let port = Answer::Unreachable { code: 3 };
    let answers = [(web(4001), Some(reset)), (udp, Some(port)), (ping, None)];
    let options = ["max 1", "max-src-states 1", "max-src-nodes 1, max-src-states 1"];
    for (option, policy) in options.iter().flat_map(|o| [(o, "return"), (o, "drop")]) {
        let mut w = World::new(&format!("set fail-policy {policy}\npass keep state ({option})\n"));
        assert!(w.passes(IN, LAN, &web(4000)), "{option}");
        for (packet, answer) in &answers {
            let verdict = w.verdict(IN, LAN, packet);
            let wanted = if option.starts_with("max 1") { Why::PfStateLimit } else { Why::PfSrcLimit };
            match (verdict, answer.filter(|_| policy == "return")) {
                (Verdict::Return(told, why), Some(answer)) => assert_eq!((told, why), (answer, wanted)),
                (Verdict::Block(why), None) => assert_eq!(why, wanted),
                (verdict, answer) => panic!("{option}, {policy}: {verdict:?}, not {answer:?}"),
            }
        }
        // It is counted for what it is.
        let counters = w.pf.counters();
        assert_eq!(counters.state_limit.get() + counters.src_limit.get(), 3, "{option}");
        // A rule that blocks does as it says.
        w.load(&format!("set fail-policy {policy}\nblock drop\n"));
        assert!(matches!(w.verdict(IN, LAN, &web(4002)), Verdict::Block(Why::PfBlock)));
    }
}

#[test]
fn a_reset_goes_to_who_sent_the_packet_whatever_it_would_have_become() {
    let rules =
        "set fail-policy return\nrdr on lan0 proto tcp to port 80 -> 203.0.113.7\npass keep state (max 1)\n";
    let mut w = World::new(rules);
    assert!(w.passes(IN, LAN, &web(4000)));
    let mut m = w.packet(&web(4001));
    assert!(matches!(w.test(IN, LAN, &mut m), Verdict::Return(Answer::Reset(_), Why::PfStateLimit)));
    assert_eq!(m.data(), web(4001));
    w.fixture.done(m);
}
