//! `route-to`, `reply-to` and `dup-to` between two gateways that have a second wire besides the one their routes use.

use super::bed::{Bed, Datagram, Seen, Shape, classify, policies, sas};
use router::iface::link::LinkEnd;
use wire::{IpProto, parse::parse_ip};

/// The other wire.
fn shape(mtu: u16) -> Shape {
    let more = |side: usize| {
        format!(
            "[[interface]]\nname = \"alt0\"\ndriver = \"link\"\ndevice = \"alt\"\nmtu = {mtu}\n\
             address = [\"10.9.0.{0}/24\", \"2001:db8:fffe::{0}/64\"]\n",
            side + 1
        )
    };
    Shape { more: [more(0), more(1)], ..Shape::default() }
}

/// Both gateways under these rules; `alt` is watched.
fn bed(mtu: u16, pf: [&str; 2]) -> Bed {
    let bed = Bed::new(shape(mtu), pf.map(Some), ["", ""]);
    bed.net.watch("alt").unwrap().iter().for_each(|end| end.capture(true));
    bed.on_the_wire();
    bed
}

/// What is of interest of a wire's frames: datagrams.
fn datagrams(frames: &[Vec<u8>]) -> usize {
    frames.iter().filter(|f| parse_ip(&f[14..]).is_ok_and(|p| p.proto == IpProto::UDP)).count()
}

/// Datagrams on the usual wire and on the other one since the last call.
fn ways(bed: &Bed) -> (usize, usize) {
    let alt: Vec<_> = bed.net.watch("alt").unwrap().iter().flat_map(LinkEnd::captured).collect();
    (datagrams(&bed.on_the_wire()), datagrams(&alt))
}

fn udp(v6: bool, from: usize) -> Vec<u8> {
    let ports = if from == 0 { (1000, 2000) } else { (2000, 1000) };
    Datagram { v6, from, ports, ..Datagram::default() }.packet()
}

/// The other gateway on the other wire.
fn next(side: usize, v6: bool) -> String {
    if v6 { format!("(alt0 2001:db8:fffe::{})", 2 - side) } else { format!("(alt0 10.9.0.{})", 2 - side) }
}

#[test]
fn route_to_takes_the_other_wire_on_the_way_in_and_out_with_and_without_states() {
    for v6 in [false, true] {
        let family = if v6 { "inet6" } else { "inet" };
        for at in ["in on lan0", "out on wan0"] {
            for keep in ["no state", "keep state"] {
                let rule = format!(
                    "pass all no state\npass {at} route-to {} {family} proto udp {keep}\n",
                    next(0, v6)
                );
                let mut bed = bed(1500, [&rule, "pass all no state\n"]);
                for n in 1..=3 {
                    assert!(bed.send(0, 0, &udp(v6, 0)));
                    bed.run(20);
                    assert_eq!((ways(&bed), bed.arrived(1).len()), ((0, 1), 1), "{rule}, packet {n}");
                }
                // It has lost a hop in each gateway, no more.
                assert!(bed.send(0, 0, &udp(v6, 0)));
                bed.run(20);
                let ttl = bed.arrived(1)[0][if v6 { 7 } else { 8 }];
                assert_eq!(ttl, 62, "{rule}");
                assert!(bed.send(1, 0, &udp(v6, 1)));
                bed.run(20);
                ways(&bed);
                assert_eq!(bed.arrived(0).len(), 1, "{rule}");
                bed.finish();
            }
        }
    }
}

#[test]
fn reply_to_answers_where_the_question_came_from_whatever_the_routes_say() {
    for v6 in [false, true] {
        let family = if v6 { "inet6" } else { "inet" };
        let there = format!(
            "pass all no state\npass in on lan0 route-to {} {family} proto udp no state\n",
            next(0, v6)
        );
        let back = format!(
            "pass all no state\npass in on alt0 reply-to {} {family} proto udp keep state\n",
            next(1, v6)
        );
        let mut bed = bed(1500, [&there, &back]);
        assert!(bed.send(0, 0, &udp(v6, 0)));
        bed.run(20);
        assert_eq!((ways(&bed), bed.arrived(1).len()), ((0, 1), 1));
        assert!(bed.send(1, 0, &udp(v6, 1)));
        bed.run(20);
        assert_eq!((ways(&bed), bed.arrived(0).len()), ((0, 1), 1), "v6: {v6}");
        // Another flow has no state to say so.
        let other = Datagram { v6, from: 1, ports: (2000, 1001), ..Datagram::default() };
        assert!(bed.send(1, 0, &other.packet()));
        bed.run(20);
        assert_eq!((ways(&bed), bed.arrived(0).len()), ((1, 0), 1));
        bed.finish();
    }
}

#[test]
fn dup_to_sends_one_copy_and_the_packet_itself_as_ever() {
    for v6 in [false, true] {
        let family = if v6 { "inet6" } else { "inet" };
        for at in ["in on lan0", "out on wan0"] {
            for keep in ["no state", "keep state"] {
                let rule = format!(
                    "pass all no state\npass {at} dup-to {} {family} proto udp {keep}\n",
                    next(0, v6)
                );
                let mut bed = bed(1500, [&rule, "pass all no state\n"]);
                let before = bed.count(0, "packet.created");
                for _ in 0..3 {
                    assert!(bed.send(0, 0, &udp(v6, 0)));
                }
                bed.run(50);
                assert_eq!(ways(&bed), (3, 3), "{rule}");
                let arrived = bed.arrived(1);
                assert_eq!(arrived.len(), 6, "{rule}");
                assert!(arrived.iter().all(|p| *p == arrived[0]), "copies are equal");
                assert!(bed.count(0, "packet.created") >= before + 3);
                bed.finish();
            }
        }
    }
}

#[test]
fn what_is_too_big_for_the_way_a_rule_chose_is_told_so() {
    for v6 in [false, true] {
        for at in ["in on lan0", "out on wan0"] {
            let family = if v6 { "inet6" } else { "inet" };
            let rule = format!(
                "pass all no state\npass {at} route-to {} {family} proto udp keep state\n",
                next(0, v6)
            );
            let mut bed = bed(1300, [&rule, "pass all no state\n"]);
            let large = Datagram { v6, len: 1350, df: true, ..Datagram::default() };
            assert!(bed.send(0, 0, &large.packet()));
            bed.run(20);
            let told = bed.arrived(0);
            assert_eq!((bed.arrived(1).len(), told.len()), (0, 1), "{rule}");
            let icmp = &told[0][if v6 { 40 } else { 20 }..];
            if v6 {
                assert_eq!((icmp[0], u32::from_be_bytes(*icmp[4..].first_chunk().unwrap())), (2, 1300));
            } else {
                assert_eq!(
                    (icmp[0], icmp[1], u16::from_be_bytes(*icmp[6..].first_chunk().unwrap())),
                    (3, 4, 1300)
                );
                // Without DF it goes in fragments.
                assert!(bed.send(0, 0, &Datagram { df: false, ..large }.packet()));
                bed.run(20);
                assert_eq!(bed.arrived(1).len(), 2, "{rule}");
            }
            bed.finish();
        }
    }
}

#[test]
fn a_packet_that_rules_send_round_and_round_ends() {
    let rule = format!(
        "pass all no state\npass out on wan0 route-to {} inet proto udp no state\n\
         pass out on alt0 route-to (wan0 203.0.113.2) inet proto udp no state\n",
        next(0, false)
    );
    let mut bed = bed(1500, [&rule, "pass all no state\n"]);
    assert!(bed.send(0, 0, &udp(false, 0)));
    bed.run(20);
    assert_eq!((ways(&bed), bed.count(0, "ip.passes")), ((0, 0), 1));
    bed.finish();
}

#[test]
fn what_a_policy_protects_never_leaves_in_clear_by_a_route_of_pf() {
    for v6 in [false, true] {
        let family = if v6 { "inet6" } else { "inet" };
        for kind in ["route-to", "dup-to"] {
            for at in ["in on lan0", "out on enc0", "out on wan0"] {
                let to = next(0, v6);
                let rule = format!("pass all no state\npass {at} {kind} {to} {family} keep state\n");
                let ipsec = [0, 1].map(|side| sas(0, "") + &policies(side));
                let mut bed = Bed::new(shape(1500), [Some(&rule), None], [&ipsec[0], &ipsec[1]]);
                bed.net.watch("alt").unwrap().iter().for_each(|end| end.capture(true));
                for _ in 0..3 {
                    assert!(bed.send(0, 0, &udp(v6, 0)));
                    bed.run(20);
                }
                for frame in bed.net.watch("alt").unwrap().iter().flat_map(LinkEnd::captured) {
                    assert_ne!(classify(&frame), Seen::Clear, "{rule}: {frame:02x?}");
                }
                bed.nothing_in_clear();
                assert!(bed.arrived(1).len() >= 3, "{rule}");
                bed.finish();
            }
        }
    }
}
