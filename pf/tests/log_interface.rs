//! `set loginterface`: what the interface has carried, by family, direction and what became of it.

#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use common::{CLIENT, IN, LAN, OUT, SERVER, WAN, World};
use kern::{Batch, PktFlags};
use pf::{Direction, IfIndex, Via, show, show::InterfaceStats};
use wire::build;

fn udp4(port: u16) -> Vec<u8> {
    build::udp4(CLIENT, SERVER, 4000, port, b"question")
}

fn udp6(port: u16) -> Vec<u8> {
    let [from, to] = ["2001:db8:a::9", "2001:db8:c::1"].map(|a| a.parse().unwrap());
    build::udp6(from, to, 4000, port, b"question")
}

fn stats(w: &World) -> InterfaceStats {
    w.ruleset.interface_stats().unwrap()
}

/// Passed and blocked packets: in and out of IPv4, of IPv6.
fn packets(w: &World) -> [[[u64; 2]; 2]; 2] {
    let stats = stats(w);
    [stats.passed, stats.blocked]
}

#[test]
fn what_passes_and_what_is_blocked_is_counted_of_that_interface_alone() {
    let mut w = World::new("set loginterface lan0\npass\nblock proto udp to port 7\n");
    let sent = [(IN, LAN, 53, true), (IN, LAN, 7, false), (OUT, LAN, 9, true), (IN, WAN, 53, true)];
    for (direction, index, port, passes) in sent {
        assert_eq!(w.passes(direction, index, &udp4(port)), passes);
        assert_eq!(w.passes(direction, index, &udp6(port)), passes);
    }
    // By its state.
    assert!(w.passes(IN, LAN, &udp4(53)));
    let wanted = InterfaceStats {
        name: "lan0".into(),
        bytes: [[108, 36], [112, 56]],
        passed: [[2, 1], [1, 1]],
        blocked: [[1, 0], [1, 0]],
    };
    assert_eq!(stats(&w), wanted);
    // A packet that cannot be right is blocked.
    assert!(!w.passes(IN, LAN, &udp4(53)[..24]));
    assert_eq!(stats(&w).blocked, [[2, 0], [1, 0]]);
}

#[test]
fn it_is_printed_as_pfctl_does() {
    let mut w = World::new("set loginterface lan0\npass no state\nblock proto udp to port 7\n");
    assert!(w.passes(IN, LAN, &udp4(1)) && !w.passes(IN, LAN, &udp6(7)) && w.passes(OUT, LAN, &udp6(1)));
    let info = show::info(&w.pf, Some(&w.ruleset), Some(10));
    let wanted = "\
Interface Stats for lan0              IPv4             IPv6
  Bytes In                              36               56
  Bytes Out                              0               56
  Packets In
    Passed                               1                0
    Blocked                              0                1
  Packets Out
    Passed                               0                1
    Blocked                              0                0

State Table                          Total             Rate
";
    for verbose in [0, 1] {
        assert!(info.text(verbose).contains(wanted), "{}", info.text(verbose));
    }
}

#[test]
fn a_reload_goes_on_with_the_same_interface_and_begins_anew_with_another() {
    let mut w = World::new("set loginterface lan0\npass no state\n");
    assert!(w.passes(IN, LAN, &udp4(1)));
    w.reload("", "set loginterface lan0\nblock\n");
    assert!(!w.passes(IN, LAN, &udp4(1)));
    assert_eq!(packets(&w), [[[1, 0], [0, 0]]; 2]);
    w.ruleset.clear_interface_stats();
    assert_eq!(packets(&w), [[[0; 2]; 2]; 2]);
    assert!(!w.passes(IN, LAN, &udp4(1)));
    assert_eq!(packets(&w)[1], [[1, 0], [0, 0]]);
    w.reload("", "set loginterface wan0\npass no state\n");
    assert!(w.passes(IN, LAN, &udp4(1)) && w.passes(OUT, WAN, &udp4(1)));
    assert_eq!(packets(&w)[0], [[0, 1], [0, 0]]);
    // An interface that there is not shows noughts, as in pf; and none shows nothing.
    w.reload("", "set loginterface tun9\npass no state\n");
    assert!(w.passes(IN, LAN, &udp4(1)));
    assert_eq!(stats(&w), InterfaceStats { name: "tun9".into(), ..InterfaceStats::default() });
    for text in ["set loginterface none\npass\n", "pass\n"] {
        w.reload("", text);
        assert_eq!(w.ruleset.interface_stats(), None);
        assert!(!show::info(&w.pf, Some(&w.ruleset), Some(1)).text(1).contains("Interface Stats"));
    }
}

#[test]
fn what_pf_does_not_see_is_not_counted() {
    let mut w = World::new("set loginterface lan0\nset skip on lan0\nblock\n");
    assert!(w.passes(IN, LAN, &udp4(1)));
    assert_eq!(packets(&w), [[[0; 2]; 2]; 2]);
    w.reload("", "set loginterface lan0\nblock\n");
    let mut m = w.packet(&udp4(1));
    m.hdr_mut().flags.set(PktFlags::NO_PF);
    assert!(matches!(w.test(IN, LAN, &mut m), pf::Verdict::Pass(_)));
    w.fixture.done(m);
    assert_eq!(packets(&w), [[[0; 2]; 2]; 2]);
}

#[test]
fn a_batch_counts_as_its_packets_do_one_by_one() {
    let rulesets = [
        "pass no state\n",
        "pass\n",
        "block proto udp to port 3\npass proto udp to port 4\n",
        "block return in on lan0 proto udp\n",
        "set skip on lan0\nblock\n",
        "pass in route-to (wan0 203.0.113.254) inet proto udp\n",
    ];
    for (rules, mixed) in rulesets.into_iter().flat_map(|rules| [(rules, false), (rules, true)]) {
        let text = format!("set loginterface lan0\n{rules}");
        // More than are read ahead in one go.
        let sent: Vec<(Vec<u8>, IfIndex)> = (0..100_u16)
            .map(|n| {
                let at = if mixed && n % 5 == 0 { WAN } else { LAN };
                (if n % 3 == 0 { udp6(n % 7) } else { udp4(n % 7 + 1) }, at)
            })
            .collect();
        let mut one = World::new(&text);
        for (octets, at) in &sent {
            let _ = one.verdict(IN, *at, octets);
        }
        let mut all = World::new(&text);
        let mut batch = Batch::new();
        for (octets, at) in &sent {
            let mut m = all.packet(octets);
            m.hdr_mut().rcvif = at.0;
            batch.push(m).unwrap();
        }
        batched(&mut all, IN, if mixed { Via::Rcvif } else { Via::One(LAN) }, batch);
        assert_eq!(stats(&all), stats(&one), "{text}");
        let counted: u64 = packets(&all).as_flattened().as_flattened().iter().sum();
        let seen = if rules.contains("skip") {
            0
        } else if mixed {
            80
        } else {
            100
        };
        assert_eq!(counted, seen, "{text}");
    }
}

fn batched(w: &mut World, direction: Direction, via: Via, mut batch: Batch) {
    let ended = w.test_batch(direction, via, &mut batch);
    for m in ended.into_iter().chain(batch.drain()) {
        w.fixture.done(m);
    }
}
