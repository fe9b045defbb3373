//! BEET mode: what is on the wire, what comes back, and what it refuses.

use super::{
    modes::{aead, packets, sa_of, v4_options},
    *,
};
use crate::transform::{Auth, Cipher};

const INNER4: (IpAddr, IpAddr) =
    (IpAddr::V4(Ipv4Addr::new(192, 0, 2, 10)), IpAddr::V4(Ipv4Addr::new(198, 51, 100, 20)));
const INNER6: (IpAddr, IpAddr) = (
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0xa, 0, 0, 0, 0, 0x10)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0xb, 0, 0, 0, 0, 0x20)),
);

/// An SA for packets of one family under addresses of another.
fn beet(inner6: bool, outer6: bool, suite: Suite) -> SaConfig {
    SaConfig {
        inner: Some(if inner6 { INNER6 } else { INNER4 }),
        ..sa_of(Protocol::Esp, Mode::Beet, suite, outer6)
    }
}

fn peers(sa: &SaConfig) -> Peers {
    Peers::new(sa, [Engine::Auto; 2])
}

/// What a packet is like after BEET between families: what the outer header cannot tell is gone.
fn between_families(mut packet: Vec<u8>) -> Vec<u8> {
    if packet[0] >> 4 == 6 {
        packet[1] &= 0xf0;
        packet[2..4].fill(0);
    } else {
        packet[4..8].copy_from_slice(&[0, 0, 0x40, 0]);
        packet[10..12].fill(0);
        let header = usize::from(packet[0] & 15) * 4;
        let sum = wire::checksum::finish(wire::checksum::sum(&packet[..header]));
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
    }
    packet
}

/// Packets of the inner addresses: with options or extension headers, every field of the IP header something else than usual.
fn inner_packets(v6: bool) -> Vec<Vec<u8>> {
    let mut all: Vec<_> = packets().into_iter().filter(|p| (p[0] >> 4 == 6) == v6).collect();
    all.push(if v6 {
        v6_with(
            77,
            ipv6::Repr { traffic_class: 0xb9, flow_label: 0x54321, hop_limit: 3, ..Default::default() },
        )
    } else {
        v4_with(77, ipv4::Repr { tos: 0xb9, frag: ipv4::DF, ident: 0x4321, ttl: 3, ..Default::default() })
    });
    all.push(if v6 { super::v6(40) } else { v4(20) });
    all
}

#[test]
fn every_suite_carries_every_packet_in_all_four_mixes_of_families() {
    for suite in Suite::esp() {
        for (inner6, outer6) in [(false, false), (true, true), (false, true), (true, false)] {
            let mut peers = peers(&beet(inner6, outer6, suite));
            let sent = inner_packets(inner6);
            let wire = peers.wire(&sent);
            for packet in &wire {
                let parsed = wire::parse::parse_ip(packet).unwrap();
                assert_eq!((parsed.proto, packet[0] >> 4), (IpProto::ESP, if outer6 { 6 } else { 4 }));
            }
            let expected: Vec<_> =
                if inner6 == outer6 { sent } else { sent.into_iter().map(between_families).collect() };
            assert_eq!(peers.open_bytes(&wire), expected, "{suite} v6 in: {inner6}, out: {outer6}");
            assert_eq!(peers.ended(), []);
        }
    }
}

#[test]
fn the_wire_has_the_outer_addresses_the_inner_header_s_fields_and_no_inner_header() {
    let null = Suite::Pair(Cipher::Null, Auth::HmacSha1);
    let sent =
        v4_with(77, ipv4::Repr { tos: 0xb9, frag: ipv4::DF, ident: 0x4321, ttl: 3, ..Default::default() });
    let wire = peers(&beet(false, false, null)).wire(std::slice::from_ref(&sent)).remove(0);
    let h = ipv4::Packet::new_checked(wire.clone()).unwrap();
    assert!(h.checksum_ok());
    assert_eq!((IpAddr::V4(h.src()), IpAddr::V4(h.dst())), (V4[0], V4[1]));
    assert_eq!((h.tos(), h.dont_fragment(), h.ident(), h.ttl()), (0xb9, true, 0x4321, 3));
    // ESP header, the upper layer in clear for want of a cipher, padding, trailer, ICV.
    assert_eq!(wire[28..28 + 57], sent[20..]);
    let pad = (57 + 2usize).next_multiple_of(4) - 59;
    assert_eq!(
        (wire.len(), wire[28 + 57 + pad..][..2].to_vec()),
        (28 + 57 + pad + 2 + 12, vec![pad as u8, 17])
    );
    let sent = v6_with(
        77,
        ipv6::Repr { traffic_class: 0xb9, flow_label: 0x54321, hop_limit: 3, ..Default::default() },
    );
    let wire = peers(&beet(true, false, null)).wire(std::slice::from_ref(&sent)).remove(0);
    let h = ipv4::Packet::new_checked(wire.clone()).unwrap();
    assert!(h.checksum_ok());
    assert_eq!((h.tos(), h.dont_fragment(), h.ident(), h.ttl()), (0xb9, true, 0, 3));
    let wire = peers(&beet(true, true, null)).wire(std::slice::from_ref(&sent)).remove(0);
    let h = ipv6::Packet::new_checked(wire).unwrap();
    assert_eq!((h.traffic_class(), h.flow_label(), h.hop_limit()), (0xb9, 0x54321, 3));
    assert_eq!((IpAddr::V6(h.src()), IpAddr::V6(h.dst())), (V6[0], V6[1]));
}

#[test]
fn options_of_every_length_go_behind_a_pseudo_header_of_a_multiple_of_eight_octets() {
    let null = Suite::Pair(Cipher::Null, Auth::HmacSha1);
    for outer6 in [false, true] {
        for len in (4..=40).step_by(4) {
            let plain = v4(60);
            let options: Vec<u8> = (0..len).map(|i| u8::from(i + 1 < len)).collect();
            let mut sent = [&plain[..20], &options, &plain[20..]].concat();
            sent[0] = 0x45 + (len / 4) as u8;
            let total = sent.len() as u16;
            sent[2..4].copy_from_slice(&total.to_be_bytes());
            sent[10..12].fill(0);
            let sum = wire::checksum::finish(wire::checksum::sum(&sent[..20 + len]));
            sent[10..12].copy_from_slice(&sum.to_be_bytes());
            let mut peers = peers(&beet(false, outer6, null));
            let wire = peers.wire(std::slice::from_ref(&sent));
            let pseudo = &wire[0][if outer6 { 48 } else { 28 }..];
            let padding = if len % 8 == 0 { 4 } else { 0 };
            assert_eq!(pseudo[..4], [17, (len / 8) as u8, padding as u8, 0], "{len}");
            assert_eq!(pseudo[4..4 + padding], [1; 4][..padding]);
            assert_eq!(pseudo[4 + padding..][..len], options);
            assert_eq!((4 + padding + len) % 8, 0);
            let expected = if outer6 { between_families(sent) } else { sent };
            assert_eq!(peers.open_bytes(&wire), [expected], "{len}");
        }
    }
}

#[test]
fn a_packet_never_grows_by_more_than_the_overhead() {
    for suite in Suite::esp() {
        for (inner6, outer6) in [(false, false), (true, true), (false, true), (true, false)] {
            let mut peers = peers(&beet(inner6, outer6, suite));
            let sent = inner_packets(inner6);
            let overhead = peers.sender.overhead();
            for (packet, sent) in peers.wire(&sent).iter().zip(&sent) {
                assert!(packet.len() <= sent.len() + overhead, "{suite} {inner6} {outer6}");
            }
        }
    }
}

#[test]
fn a_packet_of_other_addresses_or_another_family_and_a_fragment_are_refused() {
    let mut other = v4(100);
    other[15] ^= 1;
    let fragment = v4_with(100, ipv4::Repr { frag: 0x2000, ..Default::default() });
    let mut peers = peers(&beet(false, false, aead()));
    for (packet, why) in [
        (other, Why::EspPolicy),
        (v6(100), Why::EspPolicy),
        (fragment, Why::EspTransport),
        (vec![0x45; 10], Why::EspProtocol),
    ] {
        assert!(peers.wire(&[packet]).is_empty());
        assert_eq!(peers.ended(), [(why, 1)]);
    }
    // Its numbers were used up, and that harms nothing.
    let wire = peers.wire(&[v4(100)]);
    assert_eq!(peers.open_bytes(&wire), [v4(100)]);
}

#[test]
fn a_pseudo_header_that_lies_is_refused_and_a_dummy_is_a_dummy() {
    let mut peers = peers(&beet(false, false, aead()));
    let good = [17, 1, 4, 0, 1, 1, 1, 1, 7, 3, 4, 0, 1, 1, 1, 0, 0xaa, 0xbb, 0xcc, 0xdd];
    let cases: [(&[u8], u8, Option<Why>); 8] = [
        (&good, 94, None),
        // More words than there are; padding that leaves no multiple of four; more padding than there is; too many options.
        (&[17, 3, 4, 0, 1, 1, 1, 1, 7, 3, 4, 0, 1, 1, 1, 0], 94, Some(Why::EspPadding)),
        (&[17, 1, 3, 0, 1, 1, 1, 1, 7, 3, 4, 0, 1, 1, 1, 0], 94, Some(Why::EspPadding)),
        (&[17, 0, 8, 0, 1, 1, 1, 1], 94, Some(Why::EspPadding)),
        (&[&[17, 6, 0, 0][..], &[1; 52]].concat(), 94, Some(Why::EspPadding)),
        (&[17, 0, 0], 94, Some(Why::EspPadding)),
        (&[], 94, Some(Why::EspPadding)),
        (&[1, 2, 3, 4], 59, Some(Why::EspDummy)),
    ];
    for (n, (payload, next, why)) in (1..).zip(cases) {
        let pad = (payload.len() + 2).wrapping_neg() & 3;
        let sealed = [payload, &[1, 2, 3][..pad], &[pad as u8, next]].concat();
        let m = peers.forge(n, &sealed);
        let bytes = peers.bytes([m]);
        let opened = peers.open_bytes(&bytes);
        assert_eq!(peers.ended(), why.map(|why| (why, 1)).into_iter().collect::<Vec<_>>(), "{payload:?}");
        if why.is_none() {
            let h = ipv4::Packet::new_checked(opened[0].clone()).unwrap();
            assert!(h.checksum_ok());
            assert_eq!(
                (h.proto(), h.header_len(), opened[0][20..].to_vec()),
                (IpProto::UDP, 28, good[8..].to_vec())
            );
        }
    }
    // IPv6 has no options: to it the number is an upper layer like any other.
    drop(peers);
    let mut peers = self::peers(&beet(true, true, aead()));
    let m = peers.forge(1, &[17, 0, 8, 0, 1, 1, 1, 1, 2, 94]);
    let bytes = peers.bytes([m]);
    assert!(peers.open_bytes(&bytes).is_empty(), "not of the cipher's alignment");
    assert_eq!(peers.ended(), [(Why::EspMalformed, 1)]);
}

#[test]
fn it_goes_in_udp_too_and_no_checksum_needs_mending_behind_a_translator() {
    for outer6 in [false, true] {
        let encap = crate::natt::Encap { src_port: 4500, dst_port: 4500, original: [None; 2], keepalive: 0 };
        let mut peers = peers(&SaConfig { encap: Some(encap), ..beet(false, outer6, aead()) });
        let sent = vec![v4(100), v4_options(200)];
        let wire = peers.wire(&sent);
        let mut run = Batch::new();
        for bytes in &wire {
            let mut m = modes::arrived(&peers, bytes);
            assert_eq!(m.hdr().proto, 17);
            assert_eq!(crate::natt::arrive(&mut m), Ok(crate::natt::Arrived::Esp));
            run.push(m).unwrap();
        }
        let opened = peers.receive_run(&mut run);
        let expected: Vec<_> = if outer6 { sent.into_iter().map(between_families).collect() } else { sent };
        assert_eq!(peers.bytes(opened), expected);
        assert_eq!(peers.ended(), []);
    }
}

#[test]
fn whatever_a_peer_seals_becomes_a_packet_of_the_inner_addresses_or_ends() {
    const SEED: u64 = 0xbee7_2013;
    let count = if soak() { 1_000_000 } else { 4_000 };
    println!("seed {SEED:#x}, {count} packets");
    let mut random = kern::testing::Chance::seeded(SEED);
    let null = Suite::Pair(Cipher::Null, Auth::HmacSha1);
    let mut passed = 0;
    for (inner6, outer6) in [(false, false), (true, true), (false, true), (true, false)] {
        let mut peers = peers(&SaConfig { replay: 0, ..beet(inner6, outer6, null) });
        for seq in 1..=count / 4 {
            let len = random.below(60) * 4 + 2;
            let mut payload = random.octets(len);
            // A pseudo-header that may be right, half the time.
            if random.below(2) == 0 && len > 4 {
                payload[1] = random.below(8) as u8;
                payload[2] = random.below(3) as u8 * 4;
            }
            let next = if random.below(2) == 0 { 94 } else { random.below(256) as u8 };
            payload.extend([0, next]);
            let m = peers.forge(seq, &payload);
            let bytes = peers.bytes([m]);
            let opened = peers.open_bytes(&bytes);
            let ended: u32 = peers.ended().iter().map(|(_, n)| n).sum();
            assert_eq!(opened.len() as u32 + ended, 1);
            for packet in opened {
                passed += 1;
                assert_eq!(packet[0] >> 4, if inner6 { 6 } else { 4 });
                let (src, dst) = if inner6 { INNER6 } else { INNER4 };
                assert_eq!(
                    (crate::ip::source(&packet), crate::ip::destination(&packet)),
                    (Some(src), Some(dst))
                );
                assert!(inner6 || ipv4::Packet::new_checked(packet.clone()).unwrap().checksum_ok());
            }
        }
    }
    assert!(passed > count / 4 && passed < count, "{passed} of {count}");
}
