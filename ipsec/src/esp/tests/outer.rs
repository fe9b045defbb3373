//! The outer header: what it takes from the inner packet, what it gives back, and how much it leaves room for.

use super::*;

#[test]
fn the_outer_header_is_what_rfc_4301_and_6040_say() {
    let mut peers = Peers::simple();
    let inner = ipv4::Repr { tos: 0xb9, frag: ipv4::DF, ttl: 7, ..Default::default() };
    let sent = [
        v4_with(100, inner),
        v4(100),
        v6_with(100, ipv6::Repr { traffic_class: 0x2f, ..Default::default() }),
    ];
    let wire = peers.send(&sent);
    let heads: Vec<_> = wire.iter().map(|m| ipv4::Packet::new_checked(m.data().to_vec()).unwrap()).collect();
    for (n, h) in (1u32..).zip(&heads) {
        assert!(h.checksum_ok());
        let ends = (IpAddr::V4(h.src()), IpAddr::V4(h.dst()));
        assert_eq!((h.ttl(), h.proto(), ends), (64, IpProto::ESP, (V4[0], V4[1])));
        let esp = wire::esp::Packet::new_checked(&h.octets()[20..]).unwrap();
        assert_eq!((esp.spi(), esp.seq()), (0x1000, n));
    }
    assert_eq!((heads[0].tos(), heads[0].dont_fragment(), heads[0].ident()), (0xb9, true, 0));
    assert_eq!((heads[1].tos(), heads[1].dont_fragment(), heads[1].ident()), (0, false, 2));
    assert_eq!(
        (heads[2].tos(), heads[2].dont_fragment(), heads[2].ident()),
        (0x2f, true, 0),
        "IPv6 is never fragmented"
    );
    for m in &wire {
        let (h, df) = (m.hdr(), m.hdr().flags.has(PktFlags::DF));
        assert_eq!((h.family, h.proto, m.l3(), m.l4()), (4, 50, 0, 20));
        assert!(h.flags.has(PktFlags::PROTECTED) && h.hash != 0);
        assert_eq!(df, m.data()[6] & 0x40 != 0);
    }
    let arrived = peers.receive(wire);
    assert_eq!(peers.bytes(arrived), sent);
}

#[test]
fn the_outer_header_over_ipv6_carries_class_length_and_no_flow_label() {
    let mut peers = Peers::new(&config(V6, Suite::Aes256Gcm16), [Engine::Auto; 2]);
    let wire = peers.send(&[v4_with(61, ipv4::Repr { tos: 0xb8, ..Default::default() })]);
    let h = ipv6::Packet::new_checked(wire[0].data().to_vec()).unwrap();
    assert_eq!(
        (h.traffic_class(), h.flow_label(), h.hop_limit(), h.next_header()),
        (0xb8, 0, 64, IpProto::ESP)
    );
    assert_eq!(40 + usize::from(h.payload_len()), wire[0].len());
    assert_eq!((wire[0].hdr().family, wire[0].l4()), (6, 40));
    let arrived = peers.receive(wire);
    peers.bytes(arrived);
}

#[test]
fn tag_and_queue_travel_with_the_outer_packet_and_the_inner_state_does_not() {
    let mut peers = Peers::simple();
    let mut m = peers.fixture.packet(&v4(60));
    let h = m.hdr_mut();
    (h.tag, h.queue, h.prio, h.rcvif, h.state, h.state_gen, h.sa) = (7, 3, 2, 5, 99, 98, 4);
    let mut run = Batch::new();
    run.push(m).unwrap();
    let wire = peers.send_run(&mut run);
    let h = wire[0].hdr();
    assert_eq!((h.tag, h.queue, h.prio, h.rcvif), (7, 3, 2, 5));
    assert_eq!((h.state, h.state_gen, h.sa), (0, 0, 0));
    let arrived = peers.receive(wire);
    let h = arrived[0].hdr();
    assert_eq!((h.tag, h.hash, h.state, h.state_gen, h.flags), (7, 0, 0, 0, PktFlags::empty()));
    peers.bytes(arrived);
}

#[test]
fn congestion_marked_on_the_way_reaches_the_inner_packet_or_ends_it() {
    for ends in [V4, V6] {
        let mut peers = Peers::new(&config(ends, Suite::Aes128Gcm16), [Engine::Auto; 2]);
        let sent = [
            v4_with(60, ipv4::Repr { tos: 0xb8, ..Default::default() }),
            v4_with(60, ipv4::Repr { tos: 0xba, ..Default::default() }),
            v6_with(60, ipv6::Repr { traffic_class: 0x01, ..Default::default() }),
            v6_with(60, ipv6::Repr { traffic_class: 0x00, ..Default::default() }),
        ];
        let mut wire = peers.send(&sent);
        for m in &mut wire {
            let outer = m.data_mut();
            if ends == V4 { outer[1] |= 3 } else { outer[1] |= 0x30 }
        }
        let arrived = peers.receive(wire);
        assert_eq!(peers.ended(), [(Why::EspEcn, 2)]);
        let arrived = peers.bytes(arrived);
        let header = ipv4::Packet::new_checked(&arrived[0]).unwrap();
        assert!(header.tos() == 0xbb && header.checksum_ok());
        assert_eq!(ipv6::Packet::new_checked(&arrived[1]).unwrap().traffic_class(), 0x03);
    }
}

#[test]
fn the_inner_mtu_is_the_largest_packet_that_fits() {
    for (ends, expected) in [(V4, 1446), (V6, 1426)] {
        let mut peers = Peers::new(&config(ends, Suite::Aes128Gcm16), [Engine::Auto; 2]);
        assert_eq!(peers.sender.inner_mtu(1500), expected);
        for mtu in 1280..1300 {
            let inner = peers.sender.inner_mtu(mtu);
            let wire = peers.send(&[v4(inner), v4(inner + 1)]);
            assert!(wire[0].len() <= mtu && wire[1].len() > mtu, "{mtu}");
            assert!(wire[0].len() <= inner + peers.sender.overhead());
            peers.bytes(wire);
        }
    }
}
