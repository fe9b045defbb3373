//! ARP and neighbour discovery as others see us.

use crate::net::{Net, OUR_V4, OUR_V6, arp_of, nd_of};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use wire::{Mac, arp, build, ipv6, nd};

fn adverts(frames: &[Vec<u8>]) -> Vec<nd::Body> {
    let bodies = frames.iter().filter_map(|f| nd_of(f)).map(|(body, _)| body);
    bodies.filter(|b| matches!(b, nd::Body::NeighborAdvert { .. })).collect()
}

fn solicit(target: Ipv6Addr) -> nd::Repr<'static> {
    const OPTIONS: &[nd::NdOption<'static>] = &[nd::NdOption::SourceMac(Mac([2, 0, 0, 0, 1, 1]))];
    nd::Repr { body: nd::Body::NeighborSolicit { target }, options: OPTIONS }
}

#[test]
fn a_request_is_answered_in_the_same_buffer() {
    let mut net = Net::new();
    let before = net.bed.counts("r");
    net.lan.send_arp(Mac::BROADCAST, arp::Repr::request(net.lan.mac, net.lan.v4, OUR_V4));
    net.run(1);
    let replies = net.lan.take();
    assert_eq!(replies.len(), 1);
    let reply = arp_of(&replies[0]).unwrap();
    assert_eq!(
        (reply.operation, reply.sender_mac, reply.sender_ip),
        (arp::Operation::Reply, net.lan.router, OUR_V4)
    );
    assert_eq!((reply.target_mac, reply.target_ip), (net.lan.mac, net.lan.v4));
    let after = net.bed.counts("r");
    assert_eq!(after["packet.received"] - before["packet.received"], 1);
    assert_eq!(after["packet.sent"] - before["packet.sent"], 1);
    assert_eq!(after["packet.created"], before["packet.created"]);
    net.bed.finish();
}

#[test]
fn requests_of_strangers_and_for_strangers_are_not_answered() {
    let mut net = Net::new();
    let off_link = Ipv4Addr::new(10, 9, 8, 7);
    net.lan.send_arp(Mac::BROADCAST, arp::Repr::request(net.lan.mac, off_link, OUR_V4));
    net.lan
        .send_arp(Mac::BROADCAST, arp::Repr::request(net.lan.mac, net.lan.v4, Ipv4Addr::new(192, 0, 2, 77)));
    net.run(1);
    assert!(net.lan.take().is_empty());
    assert_eq!((net.count("arp.source"), net.count("arp.done")), (1, 1));
    net.bed.finish();
}

#[test]
fn somebody_with_our_address_is_counted_and_answered_once_in_ten_seconds() {
    let mut net = Net::new();
    for _ in 0..5 {
        net.lan.send_arp(Mac::BROADCAST, arp::Repr::request(net.lan.mac, OUR_V4, OUR_V4));
        net.run(1);
    }
    let frames = net.lan.take();
    assert_eq!(frames.len(), 1, "one announcement");
    let announcement = arp_of(&frames[0]).unwrap();
    assert_eq!((announcement.sender_ip, announcement.target_ip), (OUR_V4, OUR_V4));
    assert_eq!(announcement.sender_mac, net.lan.router);
    assert_eq!(net.count("nd.dad_conflicts"), 5);
    net.bed.finish();
}

#[test]
fn a_new_router_announces_its_ipv4_and_probes_its_ipv6_addresses() {
    let mut net = Net::fresh();
    net.run(5000);
    let frames = net.lan.take();
    let announced = frames.iter().filter_map(|f| arp_of(f)).filter(|a| a.sender_ip == OUR_V4).count();
    assert_eq!(announced, 2, "RFC 5227, 2.3");
    let mut probed: Vec<Ipv6Addr> = frames
        .iter()
        .filter_map(|f| nd_of(f))
        .filter_map(|(body, src)| match body {
            nd::Body::NeighborSolicit { target } if src.is_unspecified() => Some(target),
            _ => None,
        })
        .collect();
    probed.sort();
    assert_eq!(probed, [OUR_V6, net.lan.router.link_local()]);
    net.bed.finish();
}

#[test]
fn an_address_that_another_probes_at_the_same_time_is_given_up() {
    let mut net = Net::fresh();
    net.run(20);
    let probe = nd::Repr { body: nd::Body::NeighborSolicit { target: OUR_V6 }, options: &[] };
    net.lan.send_nd(&probe, Ipv6Addr::UNSPECIFIED, ipv6::solicited_node(OUR_V6));
    net.run(2000);
    net.lan.clear();
    net.lan.send_nd(&solicit(OUR_V6), net.lan.v6, ipv6::solicited_node(OUR_V6));
    net.run(10);
    assert!(adverts(&net.lan.take()).is_empty(), "a duplicate is not answered for");
    assert_eq!(net.count("nd.dad_conflicts"), 1);
    net.bed.finish();
}

#[test]
fn our_own_probe_coming_back_is_no_conflict() {
    let mut net = Net::fresh();
    net.run(20);
    let frames = net.lan.take();
    let probes: Vec<_> = frames
        .iter()
        .filter(|f| matches!(nd_of(f), Some((nd::Body::NeighborSolicit { .. }, src)) if src.is_unspecified()))
        .collect();
    assert_eq!(probes.len(), 2);
    for probe in probes {
        // A bridge that loops changes no octet, but a repeater's own address may be the source.
        let mut back = probe.clone();
        back[6..12].copy_from_slice(&net.lan.mac.0);
        net.lan.send_frame(&back);
    }
    net.run(2000);
    assert_eq!(net.count("nd.dad_conflicts"), 0);
    net.bed.finish();
}

#[test]
fn a_solicitation_is_answered_and_a_probe_is_answered_to_everyone() {
    let mut net = Net::new();
    net.lan.send_nd(&solicit(OUR_V6), net.lan.v6, ipv6::solicited_node(OUR_V6));
    net.run(1);
    let frames = net.lan.take();
    let wanted = nd::Body::NeighborAdvert { router: true, solicited: true, override_: true, target: OUR_V6 };
    assert_eq!(adverts(&frames), [wanted]);
    assert_eq!(frames[0][..6], net.lan.mac.0);
    let probe = nd::Repr { body: nd::Body::NeighborSolicit { target: OUR_V6 }, options: &[] };
    net.lan.send_nd(&probe, Ipv6Addr::UNSPECIFIED, ipv6::solicited_node(OUR_V6));
    net.run(1);
    let frames = net.lan.take();
    let wanted = nd::Body::NeighborAdvert { router: true, solicited: false, override_: true, target: OUR_V6 };
    assert_eq!(adverts(&frames), [wanted]);
    assert_eq!(frames[0][..6], Mac::multicast_v6(ipv6::ALL_NODES).0);
    net.bed.finish();
}

#[test]
fn discovery_from_beyond_the_link_is_refused() {
    let mut net = Net::new();
    let mut packet = vec![0; 200];
    let len = solicit(OUR_V6).emit_packet(&mut packet, net.lan.v6, OUR_V6).unwrap();
    packet[7] = 254;
    net.lan.send(&packet[..len]);
    net.run(1);
    assert_eq!(net.count("nd.malformed"), 1);
    assert!(net.lan.take().is_empty());
    net.bed.finish();
}

#[test]
fn a_host_that_asks_is_told_of_the_router_and_the_prefix() {
    let mut net = Net::new();
    let mac = [nd::NdOption::SourceMac(net.lan.mac)];
    let ask = nd::Repr { body: nd::Body::RouterSolicit, options: &mac };
    net.lan.send_nd(&ask, net.lan.mac.link_local(), ipv6::ALL_ROUTERS);
    net.run(1);
    let frames = net.lan.take();
    assert_eq!(frames.len(), 1);
    assert_eq!(frames[0][..6], net.lan.mac.0, "to the asker alone");
    let packet = &frames[0][14..];
    let ip = ipv6::Packet::new_checked(packet).unwrap();
    assert_eq!(ip.src(), net.lan.router.link_local());
    let message = nd::parse(ip.payload(), ip.src(), ip.dst(), ip.hop_limit()).unwrap();
    let nd::Body::RouterAdvert(advert) = message.body else { panic!("{message:?}") };
    assert_eq!((advert.lifetime, advert.hop_limit, advert.managed), (1800, 64, false));
    let options: Vec<_> = message.options.iter().collect();
    assert!(options.contains(&nd::NdOption::SourceMac(net.lan.router)));
    assert!(options.contains(&nd::NdOption::Mtu(1500)));
    let prefixes = options.iter().filter(|o| matches!(o, nd::NdOption::Prefix(p) if p.prefix == "2001:db8:a::".parse::<Ipv6Addr>().unwrap() && p.len == 64));
    assert_eq!(prefixes.count(), 1);
    net.wan.send_nd(&ask, net.wan.mac.link_local(), ipv6::ALL_ROUTERS);
    net.run(1);
    assert!(net.wan.take().is_empty(), "not configured there");
    net.bed.finish();
}

#[test]
fn advertisements_come_unasked_where_they_are_configured() {
    let mut net = Net::fresh();
    net.run(40_000);
    let adverts = |frames: Vec<Vec<u8>>| {
        frames.iter().filter(|f| matches!(nd_of(f), Some((nd::Body::RouterAdvert(_), _)))).count()
    };
    let (lan, wan) = (adverts(net.lan.take()), adverts(net.wan.take()));
    assert!((3..=4).contains(&lan), "{lan} in the first forty seconds");
    assert_eq!(wan, 0);
    net.bed.finish();
}

#[test]
fn a_group_is_pinged_and_the_routers_own_address_answers() {
    let mut net = Net::new();
    let own = net.lan.mac.link_local();
    let ping = build::echo6(own, ipv6::ALL_NODES, 7, 1, b"who is there?");
    net.lan.send_frame(&build::frame(Mac::multicast_v6(ipv6::ALL_NODES), net.lan.mac, &ping));
    net.run(3);
    // The router asks for the host's link-local address, which this host does not answer for; the reply waits.
    let frames = net.lan.take();
    let asked = frames
        .iter()
        .any(|f| matches!(nd_of(f), Some((nd::Body::NeighborSolicit { target }, _)) if target == own));
    assert!(asked);
    let mut packet = [0; 200];
    let len = nd::advertise(&mut packet, own, net.lan.mac, net.lan.router.link_local(), false).unwrap();
    net.lan.send(&packet[..len]);
    net.run(3);
    let replies = net.lan.packets(6);
    assert_eq!(replies.len(), 1);
    let ip = ipv6::Packet::new_checked(&replies[0][..]).unwrap();
    assert_eq!((IpAddr::V6(ip.src()), ip.payload()[0]), (IpAddr::V6(net.lan.router.link_local()), 129));
    net.bed.finish();
}
