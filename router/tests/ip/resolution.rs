//! Packets for neighbours that are not known yet, not there, or no longer there.

use crate::net::{FAR_V4, FAR_V6, Net, arp_of, nd_of};
use std::net::{Ipv4Addr, Ipv6Addr};
use wire::{Mac, arp, build, icmpv4, icmpv6, nd};

const STRANGER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 99);
const STRANGER6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xb, 0, 0, 0, 0, 0x99);

fn questions(frames: &[Vec<u8>], target: Ipv4Addr) -> usize {
    frames.iter().filter_map(|f| arp_of(f)).filter(|r| r.target_ip == target).count()
}

fn questions6(frames: &[Vec<u8>], wanted: Ipv6Addr) -> usize {
    let asks =
        |f: &Vec<u8>| matches!(nd_of(f), Some((nd::Body::NeighborSolicit { target }, _)) if target == wanted);
    frames.iter().filter(|f| asks(f)).count()
}

#[test]
fn packets_wait_for_an_answer_and_go_on_in_order_the_oldest_making_room() {
    let mut net = Net::new();
    net.wan.answers = false;
    for n in 0..20 {
        net.lan.send(&build::udp4(net.lan.v4, net.wan.v4, 1, n, b"wait"));
    }
    net.run(10);
    let frames = net.wan.take();
    assert_eq!(questions(&frames, net.wan.v4), 1, "one question for all");
    assert_eq!(frames.len(), 1);
    assert_eq!(net.count("neighbour.hold_full"), 4);
    assert_eq!(arp_of(&frames[0]).unwrap().sender_ip, FAR_V4);
    net.wan.send_arp(net.wan.router, arp_of(&frames[0]).unwrap().reply(net.wan.mac));
    net.run(2);
    let ports: Vec<u16> = net.wan.packets(4).iter().map(|p| u16::from_be_bytes([p[22], p[23]])).collect();
    assert_eq!(ports, (4..20).collect::<Vec<u16>>());
    net.bed.finish();
}

#[test]
fn the_same_in_ipv6() {
    let mut net = Net::new();
    net.wan.answers = false;
    for n in 0..20 {
        net.lan.send(&build::udp6(net.lan.v6, net.wan.v6, 1, n, b"wait"));
    }
    net.run(10);
    let frames = net.wan.take();
    assert_eq!((questions6(&frames, net.wan.v6), frames.len()), (1, 1));
    assert_eq!(nd_of(&frames[0]).unwrap().1, FAR_V6);
    assert_eq!(frames[0][..6], Mac::multicast_v6(wire::ipv6::solicited_node(net.wan.v6)).0);
    let mut packet = [0; 200];
    let len = nd::advertise(&mut packet, net.wan.v6, net.wan.mac, FAR_V6, false).unwrap();
    net.wan.send(&packet[..len]);
    net.run(2);
    assert_eq!(net.wan.packets(6).len(), 16);
    net.bed.finish();
}

#[test]
fn a_neighbour_that_does_not_answer_is_asked_five_times_and_the_sender_is_told() {
    let mut net = Net::new();
    let packet = build::udp4(net.lan.v4, STRANGER, 1, 2, b"anybody there?");
    net.lan.send(&packet);
    net.run(6000);
    assert_eq!(questions(&net.wan.take(), STRANGER), 5);
    assert_eq!(net.count("neighbour.unresolved"), 1);
    let told = net.lan.packets(4);
    assert_eq!(told.len(), 1);
    let ip = wire::ipv4::Packet::new_checked(&told[0][..]).unwrap();
    let error = icmpv4::Repr::parse(&icmpv4::Packet::new_checked(ip.payload()).unwrap()).unwrap();
    let icmpv4::Repr::Error(what, quoted) = error else { panic!("{error:?}") };
    assert_eq!(what, icmpv4::Error::Unreachable(icmpv4::unreachable::HOST));
    assert_eq!(quoted[20..], packet[20..]);
    net.bed.finish();
}

#[test]
fn an_ipv6_neighbour_that_does_not_answer_is_asked_three_times_and_the_sender_is_told() {
    let mut net = Net::new();
    net.lan.send(&build::udp6(net.lan.v6, STRANGER6, 1, 2, b"anybody there?"));
    net.run(4000);
    assert_eq!(questions6(&net.wan.take(), STRANGER6), 3);
    let told: Vec<_> = net.lan.packets(6).into_iter().filter(|p| crate::net::is_other_icmp6(p)).collect();
    assert_eq!(told.len(), 1);
    assert_eq!((told[0][40], told[0][41]), (icmpv6::kind::UNREACHABLE, icmpv6::unreachable::ADDRESS));
    net.bed.finish();
}

#[test]
fn a_neighbour_in_use_is_probed_when_its_answer_is_old_and_stays_while_it_answers() {
    let mut net = Net::new();
    for second in 0..120_u16 {
        net.lan.send(&build::udp6(net.lan.v6, net.wan.v6, 1, second, b"tick"));
        net.run(1000);
    }
    assert_eq!(net.wan.packets(6).len(), 120, "no packet was lost to a probe");
    let asked = net.count("nd.solicits_sent");
    // Reachable for 15 to 45 seconds, then five of delay: two to six probes in two minutes.
    net.bed.finish();
    assert!((3 + 2..=3 + 12).contains(&asked), "{asked} questions");
}

#[test]
fn a_neighbour_that_falls_silent_is_found_out_in_a_minute() {
    let mut net = Net::new();
    net.lan.send(&build::udp6(net.lan.v6, net.wan.v6, 1, 2, b"tick"));
    net.run(1000);
    net.wan.answers = false;
    net.wan.clear();
    net.lan.clear();
    let mut unicast = 0;
    for n in 0..70 {
        net.lan.send(&build::udp6(net.lan.v6, net.wan.v6, 1, n, b"tick"));
        net.run(1000);
        unicast += net
            .wan
            .take()
            .iter()
            .filter(|f| {
                f[..6] == net.wan.mac.0 && matches!(nd_of(f), Some((nd::Body::NeighborSolicit { .. }, _)))
            })
            .count();
    }
    net.run(5000);
    assert_eq!(unicast, 3, "RFC 4861, 7.3.3");
    let told = net.lan.packets(6).into_iter().filter(|p| crate::net::is_other_icmp6(p)).count();
    assert!(told > 10, "{told}");
    net.bed.finish();
}

#[test]
fn an_announcement_of_another_address_takes_effect_at_once() {
    let mut net = Net::new();
    for n in 0..3 {
        net.lan.send(&build::udp4(net.lan.v4, net.wan.v4, 1, n, b"old"));
        net.run(1);
    }
    net.wan.clear();
    let other = Mac([2, 0, 0, 0, 9, 9]);
    net.wan.send_arp(Mac::BROADCAST, arp::Repr::request(other, net.wan.v4, net.wan.v4));
    net.run(1);
    net.lan.send(&build::udp4(net.lan.v4, net.wan.v4, 1, 9, b"new"));
    net.run(1);
    let frames = net.wan.take();
    assert_eq!(frames.len(), 1);
    assert_eq!(frames[0][..6], other.0);
    net.bed.finish();
}

#[test]
fn what_one_worker_learns_voids_what_the_other_remembers() {
    let mut net = Net::with_two_workers();
    let udp = |net: &Net, n| build::udp4(net.lan.v4, net.wan.v4, 1, n, b"x");
    for worker in [0, 1, 0, 1] {
        net.lan.send_to_worker(worker, &udp(&net, 1));
        net.run(2);
    }
    assert_eq!(net.wan.packets(4).len(), 4);
    let other = Mac([2, 0, 0, 0, 9, 9]);
    // Queue 0 of the cable, hence worker 0, hears the announcement.
    net.wan.send_arp(Mac::BROADCAST, arp::Repr::request(other, net.wan.v4, net.wan.v4));
    net.run(1);
    for worker in [0, 1] {
        net.lan.send_to_worker(worker, &udp(&net, 2));
        net.run(1);
        let frames = net.wan.take();
        assert_eq!(frames.len(), 1);
        assert_eq!(frames[0][..6], other.0, "worker {worker}");
    }
    net.bed.finish();
}

#[test]
fn a_scan_of_many_addresses_holds_few_buffers_and_hurts_no_neighbour() {
    let mut net = Net::new();
    net.lan.send(&build::udp6(net.lan.v6, net.wan.v6, 1, 2, b"hello"));
    net.run(10);
    let mut most = 0;
    for n in 0..6000_u32 {
        let target = Ipv6Addr::from_bits(STRANGER6.to_bits() & !0xffff_ffff | u128::from(n + 0x1000));
        net.lan.send(&build::udp6(net.lan.v6, target, 1, 2, b"scan"));
        if n % 100 == 99 {
            net.run(2);
            net.wan.take();
            most = most.max(net.bed.books("r").audit.owned_by(kern::Owner::Neighbour));
        }
    }
    assert!(most <= 4096 / 16, "{most} packets wait");
    net.lan.send(&build::udp6(net.lan.v6, net.wan.v6, 1, 77, b"still there?"));
    net.run(2);
    assert_eq!(net.wan.packets(6).iter().filter(|p| p[40..44] == [0, 1, 0, 77]).count(), 1);
    net.run(6000);
    assert_eq!(net.bed.books("r").audit.owned_by(kern::Owner::Neighbour), 0);
    net.bed.finish();
}
