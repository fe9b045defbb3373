//! Datagrams in pieces: made for small links, put together for ourselves, and what does not come together.

use crate::{
    net::{Net, OUR_V4, OUR_V6},
    pieces::{cut4, cut6, join},
};
use kern::Owner;
use std::net::{Ipv4Addr, Ipv6Addr};
use wire::{
    IpProto, build, icmpv4, ipv4, ipv6,
    ipv6_ext::{self, Fragment},
    parse,
};

#[test]
fn a_packet_larger_than_the_next_link_goes_in_pieces_that_fit() {
    let mut net = Net::new();
    let before = net.bed.counts("r");
    let packet = build::udp4(net.lan.v4, net.wan.v4, 1, 2, &(0..1400).map(|i| i as u8).collect::<Vec<u8>>());
    net.lan.send(&packet);
    net.run(3);
    let pieces = net.wan.packets(4);
    assert_eq!(pieces.len(), 2);
    assert_eq!(join(&pieces, 1300), packet[20..]);
    assert!(pieces.iter().all(|p| p[8] == 63 && p[4..6] == packet[4..6]));
    let moved = net.moved(&before);
    assert_eq!((moved["frag.made"], moved["frag.fragmented"]), (2, 1));
    net.bed.finish();
}

#[test]
fn the_largest_ping_is_put_together_answered_and_taken_apart() {
    let mut net = Net::new();
    net.introduce();
    let data: Vec<u8> = (0..65_507).map(|i| (i / 3) as u8).collect();
    let request = build::echo4(net.lan.v4, OUR_V4, 5, 6, &data);
    assert_eq!(request.len(), 65_535);
    for piece in cut4(&request, 1480) {
        net.lan.send(&piece);
    }
    net.run(3);
    let pieces = net.lan.packets(4);
    assert_eq!(pieces.len(), 45);
    let reply = join(&pieces, 1500);
    assert_eq!(reply[0], icmpv4::kind::ECHO_REPLY);
    assert!(icmpv4::Packet::new_checked(&reply[..]).unwrap().checksum_ok());
    assert_eq!(reply[8..], data);
    assert_eq!(net.count("frag.reassembled"), 1);
    net.bed.finish();
}

#[test]
fn the_largest_ipv6_ping_too() {
    let mut net = Net::new();
    net.introduce();
    let data: Vec<u8> = (0..65_527).map(|i| (i / 3) as u8).collect();
    let request = build::echo6(net.lan.v6, OUR_V6, 5, 6, &data);
    for piece in cut6(&request, 1440, 0xfeed) {
        net.lan.send(&piece);
    }
    net.run(3);
    let pieces = net.lan.packets(6);
    assert_eq!(pieces.len(), 46);
    let mut whole = pieces[0][..40].to_vec();
    let idents: Vec<u32> =
        pieces.iter().map(|p| ipv6_ext::walk(p, p.len()).unwrap().fragment.unwrap().ident).collect();
    assert!(idents.iter().all(|i| *i == idents[0]), "one identification for all pieces");
    whole.extend(join(&pieces, 1500));
    whole[6] = 58;
    whole[4..6].copy_from_slice(&(65_535_u16).to_be_bytes());
    let parsed = parse::parse_ipv6(&whole).unwrap();
    assert!(wire::checksum::transport_ok(&whole, 40, whole.len(), parsed.proto));
    assert_eq!(whole[48..], data);
    net.bed.finish();
}

#[test]
fn fragments_that_overlap_make_nothing() {
    let mut net = Net::new();
    let request = build::echo4(net.lan.v4, OUR_V4, 5, 6, &[7; 3000]);
    let mut pieces = cut4(&request, 1000);
    let word = u16::from_be_bytes([pieces[1][6], pieces[1][7]]) - 1;
    ipv4::set_word(pieces[1].first_chunk_mut().unwrap(), 6, word);
    for piece in &pieces {
        net.lan.send(piece);
    }
    let request = build::echo6(net.lan.v6, OUR_V6, 5, 6, &[7; 3000]);
    let mut pieces = cut6(&request, 1000, 1);
    pieces[1][43] -= 8;
    for piece in &pieces {
        net.lan.send(piece);
    }
    net.run(3);
    assert!(net.lan.take().is_empty());
    assert_eq!((net.count("frag.overlap"), net.count("frag.reassembled")), (8, 0));
    net.run(61_000);
    assert!(net.lan.packets(4).is_empty(), "a ruined datagram times out in silence");
    net.bed.finish();
}

#[test]
fn a_datagram_that_stays_in_pieces_is_reported_if_its_first_came() {
    let mut net = Net::new();
    let request = build::echo4(net.lan.v4, OUR_V4, 5, 6, &[7; 3000]);
    let first = cut4(&request, 1000).remove(0);
    net.lan.send(&first);
    let late = build::echo4(net.lan.v4, OUR_V4, 5, 7, &[7; 3000]);
    let mut second = cut4(&late, 1000).remove(1);
    ipv4::set_word(second.first_chunk_mut().unwrap(), 4, 100);
    net.lan.send(&second);
    let six = cut6(&build::echo6(net.lan.v6, OUR_V6, 5, 6, &[7; 3000]), 1000, 3);
    net.lan.send(&six[0]);
    net.run(29_000);
    assert!(net.lan.packets(4).is_empty());
    net.run(3000);
    let told = net.lan.packets(4);
    assert_eq!(told.len(), 1);
    assert_eq!(told[0][20..22], [icmpv4::kind::TIME_EXCEEDED, 1]);
    assert_eq!(told[0][28..48], first[..20]);
    net.run(30_000);
    let told: Vec<_> = net.lan.packets(6).into_iter().filter(|p| crate::net::is_other_icmp6(p)).collect();
    assert_eq!(told.len(), 1);
    assert_eq!(told[0][40..42], [3, 1]);
    assert_eq!(net.count("frag.timeout"), 3);
    net.bed.finish();
}

#[test]
fn fragments_that_come_to_different_workers_make_one_datagram() {
    let mut net = Net::with_two_workers();
    net.introduce();
    let request = build::echo4(net.lan.v4, OUR_V4, 5, 6, &[7; 4000]);
    for (n, piece) in cut4(&request, 1000).iter().enumerate() {
        net.lan.send_to_worker(n % 2, piece);
        net.run(1);
    }
    net.run(2);
    let mut pieces = net.lan.packets(4);
    pieces.sort_by_key(|p| ipv4::Packet::new_unchecked(&p[..]).frag_offset());
    assert_eq!(join(&pieces, 1500)[8..], [7; 4000]);
    net.bed.finish();
}

#[test]
fn a_flood_of_fragments_keeps_to_its_share_and_a_good_ping_comes_through() {
    let mut net = Net::new();
    let mut most = 0;
    for n in 0..5000_u32 {
        let src = Ipv4Addr::from_bits(0x0a00_0000 + n / 3);
        let request = build::echo4(src, OUR_V4, 5, 6, &[7; 1500]);
        let mut piece = cut4(&request, 1400).remove(0);
        ipv4::set_word(piece.first_chunk_mut().unwrap(), 4, n as u16);
        net.lan.send(&piece);
        if n % 200 == 199 {
            net.run(1);
            most = most.max(net.bed.books("r").audit.owned_by(Owner::Reass));
        }
    }
    assert!(most <= 4096 / 16, "{most} fragments wait");
    for piece in cut4(&build::echo4(net.lan.v4, OUR_V4, 5, 6, &[7; 3000]), 1400) {
        net.lan.send(&piece);
    }
    net.run(3);
    assert_eq!(net.lan.packets(4).len(), 3, "the reply, in three pieces");
    net.run(35_000);
    assert_eq!(net.bed.books("r").audit.owned_by(Owner::Reass), 0);
    net.bed.finish();
}

#[test]
fn a_whole_datagram_with_a_fragment_header_is_a_datagram() {
    let mut net = Net::new();
    let request = build::echo6(net.lan.v6, OUR_V6, 5, 6, b"atomic");
    let piece = cut6(&request, 1400, 1).remove(0);
    net.lan.send(&piece);
    net.run(2);
    let replies = net.lan.packets(6);
    assert_eq!(replies.len(), 1);
    assert_eq!(replies[0][40], 129);
    net.bed.finish();
}

#[test]
fn a_bad_ipv6_fragment_is_reported_with_the_octet_that_is_wrong() {
    let mut net = Net::new();
    let source: Ipv6Addr = net.lan.v6;
    let fragment =
        Fragment { at: 40, announced_at: 6, next_header: IpProto::UDP, offset: 0, more: true, ident: 1 };
    let ip = ipv6::Repr { src: source, dst: OUR_V6, next_header: IpProto::FRAGMENT, ..ipv6::Repr::default() };
    let ragged = build::raw6(ip, &[&fragment.octets()[..], &[0, 1, 0, 2, 0, 40, 0, 0, 9]].concat());
    net.lan.send(&ragged);
    net.run(2);
    let told: Vec<_> = net.lan.packets(6).into_iter().filter(|p| crate::net::is_other_icmp6(p)).collect();
    assert_eq!(told.len(), 1);
    assert_eq!(told[0][40..48], [&[4, 0][..], &told[0][42..44], &[0, 0, 0, 4]].concat());
    net.bed.finish();
}
