//! Damaged messages of every kind we read: none may stop the router, leave a buffer behind or hurt the flow beside them.

use crate::net::{Net, OUR_V4, OUR_V6};
use kern::testing::{Chance, soak};
use std::net::Ipv4Addr;
use wire::{IpProto, Mac, arp, build, icmpv4, icmpv6, ipv4, ipv6, ipv6_ext::Fragment, nd};

/// Sound frames, to be damaged.
fn seeds(net: &Net) -> Vec<Vec<u8>> {
    let (mac, to, v4, v6) = (net.lan.mac, net.lan.router, net.lan.v4, net.lan.v6);
    let mut all = Vec::new();
    let request = arp::Repr::request(mac, v4, OUR_V4);
    for message in [request, request.reply(mac), arp::Repr::request(mac, Ipv4Addr::UNSPECIFIED, OUR_V4)] {
        let mut frame = vec![0; 60];
        message.emit_frame(&mut frame).unwrap();
        all.push(frame);
    }
    let options = [nd::NdOption::SourceMac(mac), nd::NdOption::Nonce(&[7; 6]), nd::NdOption::Mtu(1400)];
    let advert = nd::RouterAdvert {
        hop_limit: 64,
        managed: false,
        other_config: false,
        preference: 0,
        lifetime: 1800,
        reachable_time: 0,
        retrans_timer: 0,
    };
    let bodies = [
        (nd::Body::NeighborSolicit { target: OUR_V6 }, v6, ipv6::solicited_node(OUR_V6)),
        (
            nd::Body::NeighborAdvert { router: false, solicited: true, override_: true, target: v6 },
            v6,
            OUR_V6,
        ),
        (nd::Body::RouterSolicit, v6, ipv6::ALL_ROUTERS),
        (nd::Body::RouterAdvert(advert), mac.link_local(), ipv6::ALL_NODES),
        (nd::Body::Redirect { target: v6, destination: v6 }, mac.link_local(), OUR_V6),
    ];
    for (body, src, dst) in bodies {
        let mut packet = vec![0; 300];
        let len = nd::Repr { body, options: &options }.emit_packet(&mut packet, src, dst).unwrap();
        let to = if dst.is_multicast() { Mac::multicast_v6(dst) } else { to };
        all.push(build::frame(to, mac, &packet[..len]));
    }
    all.extend(packets(net).iter().map(|p| build::frame(to, mac, p)));
    all
}

fn packets(net: &Net) -> Vec<Vec<u8>> {
    let (v4, v6, far4, far6) = (net.lan.v4, net.lan.v6, net.wan.v4, net.wan.v6);
    let mut error4 = vec![0; 576];
    let about = build::udp4(OUR_V4, far4, 1, 2, &[1; 60]);
    let n = icmpv4::build_error(&mut error4, icmpv4::Error::Unreachable(3), v4, &about, 1).unwrap();
    error4.truncate(n);
    let mut error6 = vec![0; 1280];
    let about = build::udp6(OUR_V6, far6, 1, 2, &[1; 60]);
    let n = icmpv6::build_error(&mut error6, icmpv6::Error::PacketTooBig(1300), v6, &about).unwrap();
    error6.truncate(n);
    let frag4 =
        |frag| ipv4::Repr { src: v4, dst: OUR_V4, proto: IpProto::ICMP, frag, ..ipv4::Repr::default() };
    let frag6 = |offset, more| {
        let fragment =
            Fragment { at: 40, announced_at: 6, next_header: IpProto::ICMPV6, offset, more, ident: 5 };
        let ip = ipv6::Repr { src: v6, dst: OUR_V6, next_header: IpProto::FRAGMENT, ..ipv6::Repr::default() };
        build::raw6(ip, &[&fragment.octets()[..], &[9; 64]].concat())
    };
    let mut options4 = build::udp4(v4, far4, 1, 2, &[1; 1400]);
    options4.splice(20..20, [148, 4, 0, 0, 7, 7, 4, 0, 0, 0, 0, 0]);
    options4[0] = 0x48;
    let len = options4.len() as u16;
    options4[2..4].copy_from_slice(&len.to_be_bytes());
    let mut ttl1 = build::udp4(v4, far4, 1, 2, &[1; 30]);
    ttl1[8] = 1;
    vec![
        error4,
        error6,
        options4,
        ttl1,
        build::echo4(v4, OUR_V4, 1, 2, &[3; 100]),
        build::echo6(v6, OUR_V6, 1, 2, &[3; 100]),
        build::udp4(v4, far4, 1, 2, &[1; 1400]),
        build::udp6(v6, far6, 1, 2, &[1; 1400]),
        build::udp6(v6, OUR_V6, 1, 2, &[1; 20]),
        build::raw4(frag4(ipv4::MF), &[7; 64]),
        build::raw4(frag4(8), &[7; 64]),
        build::raw4(frag4(4 | ipv4::MF), &[7; 64]),
        frag6(0, true),
        frag6(64, false),
        frag6(32, true),
    ]
}

/// Damages a frame: some octets, its length, or neither; mends the checksums of some so that they get further.
fn damage(frame: &mut Vec<u8>, chance: &mut Chance) {
    for _ in 0..chance.below(4) {
        let at = if chance.below(8) == 0 { chance.below(14) } else { 14 + chance.below(frame.len() - 14) };
        frame[at] = match chance.below(3) {
            0 => chance.next() as u8,
            1 => frame[at] ^ 1 << chance.below(8),
            _ => [0, 0xff, 1, 0x80][chance.below(4)],
        };
    }
    if chance.below(10) == 0 {
        frame.truncate(chance.below(frame.len()).max(1));
    }
    if chance.below(3) > 0 {
        mend(frame);
    }
}

fn mend(frame: &mut [u8]) {
    let Some(packet) = frame.get_mut(14..).filter(|p| p.len() >= 40) else { return };
    match packet[0] >> 4 {
        4 if (20..=packet.len()).contains(&(usize::from(packet[0] & 15) * 4)) => {
            ipv4::Packet::new_unchecked(&mut packet[..]).fill_checksum();
            let (l4, end, proto) = (usize::from(packet[0] & 15) * 4, packet.len(), IpProto(packet[9]));
            let _ = wire::checksum::transport_fill(packet, l4, end, proto);
        }
        6 => {
            let (end, proto) = (packet.len(), IpProto(packet[6]));
            let _ = wire::checksum::transport_fill(packet, 40, end, proto);
        }
        _ => {}
    }
}

#[test]
fn damaged_messages_harm_nobody() {
    let rounds = if soak() { 1_000_000 } else { 100_000 };
    let mut net = Net::new();
    net.introduce();
    net.lan.send(&build::udp4(net.lan.v4, net.wan.v4, 7, 0, b"good"));
    net.run(5);
    net.wan.clear();
    let seeds = seeds(&net);
    let mut chance = Chance::seeded(0x5eed);
    let (mut sent, mut arrived) = (0_u32, 0);
    for round in 0..rounds {
        let mut frame = seeds[chance.below(seeds.len())].clone();
        damage(&mut frame, &mut chance);
        net.lan.send_frame(&frame);
        if round % 50 == 49 {
            net.lan.send(&build::udp4(net.lan.v4, net.wan.v4, 7, 7777, &sent.to_be_bytes()));
            sent += 1;
            net.run(1);
            net.lan.clear();
            for packet in net.wan.packets(4) {
                let good = packet[20..24] == [0, 7, 0x1e, 0x61] && packet.len() == 32;
                if good && packet[28..32] == u32::to_be_bytes(arrived) {
                    arrived += 1;
                }
            }
        }
    }
    assert_eq!(arrived, sent, "the good flow lost packets");
    net.run(65_000);
    let books = net.bed.books("r");
    // Errors and echo replies wait for the host stack, which nobody runs here.
    assert_eq!(books.audit.packets(), books.audit.owned_by(kern::Owner::Host), "{books:?}");
    assert_eq!(books.audit.unexplained, 0);
    for (name, n) in net.bed.counts("r").iter().filter(|(_, n)| **n > 0) {
        println!("{name} {n}");
    }
    net.bed.finish();
}
