//! Verdicts of rules without state: answers, options, fragments, batches, counters.

#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use std::sync::Arc;

use common::{CLIENT, Conversation, IN, LAN, OUT, SERVER, WAN, World, router};
use kern::{
    Batch, Class, Gso, Owner, PktFlags, Why,
    lock::{Root, levels::PfRules},
    time::Instant,
};
use pf::{Answer, Exception, IfIndex, Kind, PfCx, Refused, Reset, Verdict, Via, answer, show};
use wire::{IpProto, build, checksum, ipv4, ipv6, tcp};

fn udp() -> Vec<u8> {
    build::udp4(CLIENT, SERVER, 1000, 53, b"question")
}

#[test]
fn the_last_rule_that_matches_decides_and_quick_decides_at_once() {
    let mut w = World::new(
        "block all\npass in on lan0 no state\nblock in quick proto udp to port 53\npass in no state\n",
    );
    assert!(!w.passes(IN, LAN, &udp()));
    assert!(w.passes(IN, LAN, &build::udp4(CLIENT, SERVER, 1000, 54, b"")));
    assert!(!w.passes(OUT, LAN, &build::udp4(CLIENT, SERVER, 1000, 54, b"")));
    let mut w = World::new("");
    assert!(w.passes(IN, LAN, &udp()), "no rule, no objection");
}

#[test]
fn blocked_packets_are_answered_as_the_rule_says() {
    let syn = Conversation::WEB.up("S", 1000, 0, 100, 0);
    let reset = |ttl| Some(Answer::Reset(Reset { ttl, acknowledge: true }));
    let cases: [(&str, &[u8], Option<Answer>); 8] = [
        ("block drop", &syn, None),
        ("block return", &syn, reset(0)),
        ("block return-rst(ttl 9) proto tcp", &syn, reset(9)),
        ("block return", &udp(), Some(Answer::Unreachable { code: 3 })),
        ("block return-icmp(host-prohib)", &syn, Some(Answer::Unreachable { code: 10 })),
        ("block return", &build::echo4(CLIENT, SERVER, 1, 1, b""), None),
        ("block return", &Conversation::WEB.up("R", 1000, 0, 100, 0), None),
        (
            "block return-icmp6(admin-unr)",
            &build::udp6("2001:db8::1".parse().unwrap(), "2001:db8::2".parse().unwrap(), 1, 2, b""),
            Some(Answer::Unreachable6 { code: 1 }),
        ),
    ];
    for (rule, packet, wanted) in cases {
        let mut w = World::new(&format!("{rule}\n"));
        let got = match w.verdict(IN, LAN, packet) {
            Verdict::Return(answer, Why::PfReturn) => Some(answer),
            Verdict::Block(Why::PfBlock) => None,
            other => panic!("{rule}: {other:?}"),
        };
        assert_eq!(got, wanted, "{rule}");
    }
}

#[test]
fn a_reset_says_where_the_segment_ended_and_has_right_checksums() {
    let w = World::new("");
    for (packet, acknowledge) in [
        (Conversation::WEB.up("SP", 1000, 0, 100, 5), true),
        (Conversation::WEB.down("SA", 1000, 77, 100, 0), false),
    ] {
        let m = w.packet(&packet);
        let mut reply = w.fixture.pool.alloc(Class::Cluster, Owner::Control).unwrap();
        answer::reset(&m, Reset { ttl: 0, acknowledge }, 64, &mut reply).unwrap();
        let data = reply.data();
        let ip = ipv4::Packet::new_checked(data).unwrap();
        let given = ipv4::Packet::new_checked(&packet[..]).unwrap();
        assert_eq!((ip.src(), ip.dst()), (given.dst(), given.src()));
        assert!(checksum::transport_ok(data, 20, data.len(), IpProto::TCP));
        let segment = tcp::Packet::new_checked(&data[20..]).unwrap();
        let flags = if acknowledge { 0x14 } else { 0x04 };
        let (seq, ack) = if acknowledge { (0, 1006) } else { (77, 0) };
        assert_eq!((segment.flags().0, segment.seq(), segment.ack()), (flags, seq, ack));
        assert_eq!((reply.hdr().family, reply.hdr().proto), (4, 6));
        w.fixture.done(m);
    }
}

#[test]
fn options_pass_only_where_a_rule_allows_them() {
    let with_options = {
        let mut p = udp();
        p.splice(20..20, [0x94, 4, 0, 0]);
        p[0] = 0x46;
        let len = p.len() as u16;
        p[2..4].copy_from_slice(&len.to_be_bytes());
        p
    };
    for (rules, passes) in [
        ("pass no state", false),
        ("pass no state allow-opts", true),
        ("pass proto udp", false),
        ("pass proto udp allow-opts", true),
        ("", false),
        ("set skip on lan0", true),
    ] {
        let mut w = World::new(&format!("{rules}\n"));
        let mut m = w.packet(&with_options);
        m.hdr_mut().flags.set(PktFlags::OPTIONS);
        let verdict = w.test(IN, LAN, &mut m);
        assert_eq!(matches!(verdict, Verdict::Pass(_)), passes, "{rules}: {verdict:?}");
        w.fixture.done(m);
    }
}

#[test]
fn of_ipv6_headers_hop_by_hop_and_routing_need_allow_opts_and_destination_options_do_not() {
    let with_header = |proto: IpProto| {
        let datagram =
            build::udp6("2001:db8::1".parse().unwrap(), "2001:db8::2".parse().unwrap(), 1, 2, b"x");
        let mut payload = vec![IpProto::UDP.0, 0, 1, 4, 0, 0, 0, 0];
        payload.extend_from_slice(&datagram[40..]);
        let header = ipv6::Repr {
            src: "2001:db8::1".parse().unwrap(),
            dst: "2001:db8::2".parse().unwrap(),
            next_header: proto,
            ..Default::default()
        };
        build::raw6(header, &payload)
    };
    let mut w = World::new("block all\npass proto udp to port 2\n");
    assert!(w.passes(IN, LAN, &with_header(IpProto::DSTOPTS)));
    assert!(!w.passes(IN, LAN, &with_header(IpProto::HOPOPTS)));
    let mut w = World::new("block all\npass proto udp to port 2 allow-opts\n");
    assert!(w.passes(IN, LAN, &with_header(IpProto::HOPOPTS)));
}

#[test]
fn fragments_match_rules_without_ports_only_and_make_no_state() {
    let mut first = udp();
    first[6] = 0x20;
    let mut later = udp();
    later[7] = 1;
    for fragment in [first, later] {
        let mut w = World::new("block all\npass proto udp to port 53\n");
        assert!(!w.passes(IN, LAN, &fragment));
        let mut w = World::new("block all\npass proto udp\n");
        assert!(w.passes(IN, LAN, &fragment));
        assert!(w.states().is_empty());
        let mut w = World::new("pass all\nblock fragment\n");
        assert!(!w.passes(IN, LAN, &fragment));
        assert!(w.passes(IN, LAN, &udp()));
    }
}

#[test]
fn a_packet_too_short_for_its_protocol_is_dropped() {
    let mut w = World::new("pass proto tcp\n");
    let header = ipv4::Repr { src: CLIENT, dst: SERVER, proto: IpProto::TCP, ..Default::default() };
    assert!(matches!(w.verdict(IN, LAN, &build::raw4(header, &[0; 19])), Verdict::Block(Why::PfShort)));
    let header = ipv6::Repr { next_header: IpProto::UDP, ..Default::default() };
    assert!(matches!(w.verdict(IN, LAN, &build::raw6(header, &[0; 7])), Verdict::Block(Why::PfShort)));
    assert_eq!(w.pf.counters().short.get(), 2);
}

#[test]
fn a_packet_that_pf_has_sent_itself_is_not_tested_again() {
    let mut w = World::new("block all\n");
    let mut m = w.packet(&udp());
    m.hdr_mut().flags.set(PktFlags::NO_PF);
    assert!(matches!(w.test(OUT, LAN, &mut m), Verdict::Pass(_)));
    w.fixture.done(m);
}

#[test]
fn a_super_frame_is_one_packet_to_the_rules_and_many_to_the_counters() {
    for rules in ["pass no state\n", "pass proto tcp no state\n", "pass proto tcp\n"] {
        let mut w = World::new(rules);
        let octets = Conversation::WEB.up("S", 1000, 0, 100, 4000);
        let mut m = w.packet(&octets);
        m.set_gso(Gso::Tcp4, 1448);
        assert!(matches!(w.test(IN, LAN, &mut m), Verdict::Pass(_)));
        w.fixture.done(m);
        let rule = &show::rules(&w.ruleset, "", Kind::Filter, &router())[0];
        assert_eq!((rule.packets, rule.bytes), ([3, 0], [4000 + 3 * 40, 0]), "{rules}");
    }
}

#[test]
fn rules_count_what_they_saw_and_what_they_decided() {
    let mut w = World::new("block in on wan0\npass in on lan0 proto udp label dns\n");
    assert!(w.passes(IN, LAN, &udp()) && w.passes(IN, LAN, &udp()));
    assert!(!w.passes(IN, WAN, &build::udp4(CLIENT, SERVER, 1, 2, b"")));
    let rules = show::rules(&w.ruleset, "", Kind::Filter, &router());
    assert_eq!((rules[0].evaluations, rules[0].packets), (2, [1, 0]));
    assert_eq!((rules[1].evaluations, rules[1].packets, rules[1].states), (2, [2, 0], 1));
    assert_eq!(
        rules[1].line(2),
        "@1 pass in on lan0 proto udp all keep state label \"dns\"\n  \
         [ Evaluations: 2         Packets: 2         Bytes: 72          States: 1     ]"
    );
    assert_eq!(rules[1].label_lines(), ["dns 2 2 72 2 72 0 0 1"]);
    let info = show::info(&w.pf, None, Some(10)).text(0);
    assert!(info.starts_with("Status: Enabled for 0 days 00:00:10 "), "{info}");
    assert!(info.contains("  current entries                        1"), "{info}");
    assert!(info.contains("  inserts                                1            0.1/s"), "{info}");
}

/// A batch is decided as its packets would be one by one, in order, refused ones included.
#[test]
fn a_batch_gets_the_verdicts_of_its_packets() {
    for rules in [
        "pass no state\n",
        "block proto udp\npass proto tcp\n",
        "set skip on lan0\nblock all\n",
        "block return in on lan0 proto udp\n",
        "block all\npass in on lan0 route-to (wan0 203.0.113.254) inet proto udp no state\n",
    ] {
        let mut w = World::new(rules);
        let packet = |n: u16| {
            if n.is_multiple_of(3) {
                Conversation { client_port: 1000 + n, server_port: 80 }.up("S", 1, 0, 100, 0)
            } else {
                build::udp4(CLIENT, SERVER, 1000 + n, 53, b"")
            }
        };
        let refused = |why, answer| Some(Exception::Refused(Refused { why, answer }));
        let single: Vec<Option<Exception>> = (0..200)
            .map(|n| match w.verdict(IN, LAN, &packet(n)) {
                Verdict::Pass(_) => None,
                Verdict::Route(_, hop) => Some(Exception::Route(hop)),
                Verdict::Copy(_, hop) => Some(Exception::Copy(hop)),
                Verdict::Block(why) => refused(why, None),
                Verdict::Return(answer, why) => refused(why, Some(answer)),
            })
            .collect();
        for via in [Via::One(LAN), Via::Rcvif] {
            let w = World::new(rules);
            let mut batch = Batch::new();
            for n in 0..200_u16 {
                let mut m = w.packet(&packet(n));
                (m.hdr_mut().rcvif, m.hdr_mut().nexthop) = (LAN.0, u32::from(n));
                batch.push(m).unwrap();
            }
            let mut got = vec![None; 200];
            let mut order = Vec::new();
            {
                let mut worker = w.pf.worker(1);
                let mut root = Root::claim();
                let mut held = root.top();
                let mut cx =
                    PfCx::new(&w.pf, &w.ruleset, &mut worker, held.at::<PfRules>(), Instant::from_secs(1000));
                let _passed = cx.test_batch(IN, via, &mut batch, |m, exception| {
                    order.push(m.hdr().nexthop);
                    got[m.hdr().nexthop as usize] = Some(exception);
                    w.fixture.done(m);
                    None
                });
            }
            assert!(order.is_sorted());
            let stayed: Vec<u32> = batch.iter().map(|m| m.hdr().nexthop).collect();
            assert!(stayed.is_sorted() && stayed.iter().all(|&n| got[n as usize].is_none()));
            assert_eq!((got, stayed.len() + order.len()), (single.clone(), 200), "{rules}");
            batch.drain().for_each(|m| w.fixture.done(m));
        }
    }
}

#[test]
fn the_first_packets_of_all_find_the_states_that_others_of_their_batch_have_made() {
    let w = World::new("pass\n");
    let mut batch = Batch::new();
    for n in 0..40_u16 {
        batch.push(w.packet(&build::udp4(CLIENT, SERVER, 1000 + n % 2, 53, b""))).unwrap();
    }
    let mut exceptions = Vec::new();
    {
        let mut worker = w.pf.worker(1);
        let mut root = Root::claim();
        let mut held = root.top();
        let now = Instant::from_secs(1000);
        let mut cx = PfCx::new(&w.pf, &w.ruleset, &mut worker, held.at::<PfRules>(), now);
        let _passed = cx.test_batch(IN, Via::One(LAN), &mut batch, |m, exception| {
            exceptions.push(exception);
            w.fixture.done(m);
            None
        });
    }
    assert_eq!((exceptions, batch.len()), (vec![], 40));
    batch.drain().for_each(|m| w.fixture.done(m));
}

#[test]
fn rules_are_compiled_again_when_addresses_change() {
    let mut w = World::new("block in from any to (lan0)\n");
    let to_router = build::udp4(CLIENT, "192.0.2.1".parse().unwrap(), 1, 2, b"");
    assert!(!w.passes(IN, LAN, &to_router));
    let mut env = router();
    env.interfaces[0].addresses.clear();
    let conf = Arc::new(w.ruleset.conf().clone());
    w.ruleset = w.pf.compile(&conf, &env, &mut w.names).unwrap();
    assert!(w.passes(IN, LAN, &to_router));
}

#[test]
fn a_rule_on_an_interface_that_does_not_exist_waits_for_it() {
    let mut w = World::new("pass no state\nblock in on tun7\nblock in on ! tun7 proto udp to port 9\n");
    assert!(w.passes(IN, IfIndex(7), &udp()));
    assert!(!w.passes(IN, LAN, &build::udp4(CLIENT, SERVER, 1, 9, b"")));
}

#[test]
fn tables_decide_by_their_longest_prefix() {
    let mut w =
        World::new("table <bad> { 192.0.2.0/24 !192.0.2.9 }\nblock all\npass from ! <bad> no state\n");
    assert!(w.passes(IN, LAN, &udp()));
    assert!(!w.passes(IN, LAN, &build::udp4("192.0.2.8".parse().unwrap(), SERVER, 1, 2, b"")));
}
