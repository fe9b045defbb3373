//! Datagrams that come in fragments to a gateway which wants to see them whole (`set reassemble`, `scrub`): what goes on is no
//! larger than what came, attacks make nothing, and the memory they take is bounded.

use super::{
    bed::{Bed, Datagram, HOST4, HOST6, NAMES, Shape, WAN4, WAN6},
    pieces::{cut4, cut6, join},
};
use kern::Owner;
use std::net::Ipv4Addr;
use wire::{IpProto, build, ipv4, parse::parse_ip};

/// The first gateway gathers; the second passes on what comes.
const GATHER: &str = "set reassemble yes\npass all keep state\n";
/// Octets of a datagram, and of what of it goes into a fragment.
const LEN: usize = 4000;
const PART: usize = 976;
/// Clusters that a gateway of the bed has.
const CLUSTERS: usize = 4096;

/// Both gateways, which know each other already: of what waits for a neighbour only the last is kept.
fn bed(shape: Shape, rules: &str) -> Bed {
    let mut bed = Bed::new(shape, [Some(rules), Some("pass all no state allow-opts\n")], ["", ""]);
    for v6 in [false, true] {
        assert!(bed.send(0, 0, &datagram(v6, 8)));
    }
    bed.run(1000);
    assert_eq!(bed.arrived(1).len(), 2);
    bed
}

fn datagram(v6: bool, len: usize) -> Vec<u8> {
    Datagram { v6, len, ..Datagram::default() }.packet()
}

fn cut(packet: &[u8], part: usize) -> Vec<Vec<u8>> {
    if packet[0] >> 4 == 4 { cut4(packet, part) } else { cut6(packet, part, 0xfeed) }
}

/// What a packet without options or extension headers carries.
fn payload(packet: &[u8]) -> &[u8] {
    &packet[if packet[0] >> 4 == 4 { 20 } else { 40 }..]
}

/// Sends fragments of the first host's, in this order.
fn send(bed: &mut Bed, pieces: &[Vec<u8>]) {
    for piece in pieces {
        assert!(bed.send(0, 0, piece));
    }
    bed.run(20);
}

/// Demands that exactly this has reached the other host, in fragments no larger than `largest`.
fn arrives(bed: &Bed, packet: &[u8], largest: usize) {
    assert!(join(&bed.arrived(1), largest) == payload(packet), "another datagram");
}

fn sizes(pieces: &[Vec<u8>]) -> Vec<usize> {
    pieces.iter().map(Vec::len).collect()
}

/// Fragments that wait in the first gateway, and datagrams.
fn waiting(bed: &mut Bed) -> (usize, usize) {
    bed.net.with_root(NAMES[0], |node, root| node.router.shared().pf_frags.waiting(&mut root.top()))
}

fn set_ident(piece: &mut [u8], ident: u16) {
    ipv4::set_word(piece.first_chunk_mut().unwrap(), 4, ident);
}

/// A fragment of a datagram: these octets of the payload of an IP packet.
fn part_of(packet: &[u8], at: usize, end: usize, more: bool) -> Vec<u8> {
    let whole = [packet, &[0; 8]].concat();
    let mut piece = cut(&whole[..packet.len()], PART).remove(0);
    let headers = piece.len() - PART;
    piece.truncate(headers);
    piece.extend_from_slice(&payload(packet)[at..end]);
    let len = piece.len() as u16;
    if piece[0] >> 4 == 4 {
        let header: &mut [u8; 20] = piece.first_chunk_mut().unwrap();
        ipv4::set_word(header, 2, len);
        ipv4::set_word(header, 6, (at / 8) as u16 | if more { ipv4::MF } else { 0 });
    } else {
        piece[4..6].copy_from_slice(&(len - 40).to_be_bytes());
        piece[42..44].copy_from_slice(&(at as u16 | u16::from(more)).to_be_bytes());
    }
    piece
}

/// The same, with octets that are not the datagram's.
fn forged(packet: &[u8], at: usize, end: usize, more: bool) -> Vec<u8> {
    let mut piece = part_of(packet, at, end, more);
    let from = piece.len() - (end - at);
    piece[from..].fill(0xee);
    piece
}

#[test]
fn what_leaves_is_no_larger_than_what_came() {
    for v6 in [false, true] {
        for (part, len) in [(PART, LEN), (PART, 1200), (1432, 60_000), (520, 60_000)] {
            let mut bed = bed(Shape::default(), GATHER);
            let packet = datagram(v6, len);
            let mut pieces = cut(&packet, part);
            send(&mut bed, &pieces);
            let got = bed.arrived(1);
            assert_eq!(sizes(&got), sizes(&pieces), "IPv6: {v6}");
            assert!(join(&got, pieces[0].len()) == payload(&packet));
            // In another order.
            pieces.reverse();
            send(&mut bed, &pieces);
            arrives(&bed, &packet, pieces.last().unwrap().len());
            assert_eq!(bed.count(0, "pf.reassembled"), 2);
            assert_eq!(waiting(&mut bed), (0, 0));
            bed.finish();
        }
    }
}

#[test]
fn the_largest_datagrams_go_through() {
    for (v6, len) in [(false, 65_507), (true, 65_527)] {
        let mut bed = bed(Shape::default(), GATHER);
        let packet = datagram(v6, len);
        let pieces = cut(&packet, 1440);
        send(&mut bed, &pieces);
        arrives(&bed, &packet, pieces[0].len());
        bed.finish();
    }
}

#[test]
fn a_smaller_link_gets_smaller_ipv4_fragments_and_an_ipv6_sender_is_told_its_mtu() {
    let shape = || Shape { wan_mtu: 1300, ..Shape::default() };
    let mut small = bed(shape(), GATHER);
    let packet = datagram(false, LEN);
    send(&mut small, &cut(&packet, 1480));
    arrives(&small, &packet, 1300);
    small.finish();

    let mut small = bed(shape(), GATHER);
    let packet = datagram(true, LEN);
    send(&mut small, &cut(&packet, 1432));
    assert!(small.arrived(1).is_empty());
    let told: Vec<_> = small.arrived(0).into_iter().filter(|p| p[6] == 58 && p[40] == 2).collect();
    assert_eq!(told.len(), 1);
    assert_eq!(told[0][44..48], 1300_u32.to_be_bytes());
    assert_eq!(told[0][48 + 8..48 + 40], packet[8..40], "it quotes what its sender sent");
    // Whoever obeys gets through.
    send(&mut small, &cut(&packet, 1248));
    arrives(&small, &packet, 1300);
    small.finish();
}

#[test]
fn an_overlap_is_trimmed_off_an_ipv4_fragment() {
    let mut bed = bed(Shape::default(), GATHER);
    let packet = datagram(false, 2984);
    let part = |n: usize| part_of(&packet, n * 1000, payload(&packet).len().min(n * 1000 + 1000), n < 2);
    // Within what is there, across the end of it, and over the start of what is there.
    let within = forged(&packet, 200, 800, true);
    let mut across = part_of(&packet, 504, 1504, true);
    across[20..20 + 496].fill(0xee);
    let mut before = part_of(&packet, 1496, 2496, true);
    before[20..28].fill(0xee);
    before[20 + 504..].fill(0xee);
    let pieces = [part(0), within, across, part(2), before];
    send(&mut bed, &pieces);
    arrives(&bed, &packet, 1020);
    let counts = bed.counts(0);
    assert_eq!((counts["frag.duplicate"], counts["frag.overlap"]), (1, 0));
    bed.finish();
}

#[test]
fn an_overlap_ends_an_ipv6_datagram_and_all_that_comes_for_it() {
    for forgery in [(488, 1464), (0, 1464), (200, 400), (968, 976), (1960, 2960)] {
        let mut bed = bed(Shape::default(), GATHER);
        let packet = datagram(true, LEN);
        let pieces = cut(&packet, PART);
        let overlaps = forged(&packet, forgery.0, forgery.1, true);
        send(&mut bed, &[&pieces[..1], &pieces[2..3], &[overlaps], &pieces[1..2], &pieces[3..]].concat());
        assert!(bed.arrived(1).is_empty(), "{forgery:?}");
        assert!(bed.arrived(0).is_empty(), "nobody is told");
        let counts = bed.counts(0);
        assert_eq!((counts["frag.overlap"], counts["pf.reassembled"]), (pieces.len() as u64 + 1, 0));
        // The next datagram of the same sender is another one.
        send(&mut bed, &cut6(&packet, PART, 0xbeef));
        arrives(&bed, &packet, pieces[0].len());
        bed.finish();
    }
}

#[test]
fn a_hole_waits_for_as_long_as_the_rules_say_and_nothing_of_it_passes() {
    for v6 in [false, true] {
        for (rules, seconds) in [(GATHER.to_owned(), 30), (format!("set timeout frag 5\n{GATHER}"), 5)] {
            let mut bed = bed(Shape::default(), &rules);
            let packet = datagram(v6, LEN);
            let mut pieces = cut(&packet, PART);
            let hole = pieces.remove(1);
            send(&mut bed, &pieces);
            bed.run(seconds * 1000 - 1000);
            assert_eq!(waiting(&mut bed), (pieces.len(), 1));
            bed.run(3000);
            assert_eq!(waiting(&mut bed), (0, 0));
            send(&mut bed, &[hole]);
            assert_eq!(bed.count(0, "frag.timeout"), pieces.len() as u64);
            assert!(bed.arrived(1).is_empty() && bed.arrived(0).is_empty());
            bed.finish();
        }
    }
}

#[test]
fn a_datagram_beyond_the_largest_is_refused() {
    for v6 in [false, true] {
        let mut bed = bed(Shape::default(), GATHER);
        let packet = datagram(v6, LEN);
        let first = part_of(&packet, 0, PART, true);
        let mut beyond = part_of(&packet, 0, 104, false);
        if v6 {
            beyond[42..44].copy_from_slice(&65_528_u16.to_be_bytes());
        } else {
            ipv4::set_word(beyond.first_chunk_mut().unwrap(), 6, 65_528 / 8);
        }
        send(&mut bed, &[first, beyond]);
        assert!(bed.arrived(1).is_empty() && bed.arrived(0).is_empty());
        let counts = bed.counts(0);
        // An IPv6 field that says so is malformed.
        let refused = if v6 { counts["frag.malformed"] } else { counts["frag.too_big"] };
        assert_eq!((refused, waiting(&mut bed)), (1, (1, 1)));
        bed.finish();
    }
}

#[test]
fn the_limit_of_the_rules_holds_until_a_reload_lifts_it() {
    for v6 in [false, true] {
        let limited = format!("set limit frags 10\n{GATHER}");
        let mut bed = bed(Shape::default(), &limited);
        let packet = datagram(v6, 11_000);
        let long = cut(&packet, PART);
        assert_eq!(long.len(), 12);
        send(&mut bed, &long);
        assert!(bed.arrived(1).is_empty());
        assert_eq!((waiting(&mut bed), bed.count(0, "frag.limit")), ((10, 1), 2));
        // The oldest makes room for what can become whole.
        let short = datagram(v6, 2000);
        let others = if v6 { cut6(&short, PART, 1) } else { cut4(&short, PART) };
        let renamed = others.into_iter().map(|mut piece| {
            if !v6 {
                set_ident(&mut piece, 5);
            }
            piece
        });
        send(&mut bed, &renamed.collect::<Vec<_>>());
        arrives(&bed, &short, 1500);
        assert_eq!((waiting(&mut bed), bed.count(0, "frag.limit")), ((0, 0), 12));
        bed.reload(0, Some(GATHER), "");
        send(&mut bed, &long);
        arrives(&bed, &packet, long[0].len());
        bed.finish();
    }
}

#[test]
fn a_limit_that_sinks_below_what_waits_sends_the_oldest_away() {
    let mut bed = bed(Shape::default(), GATHER);
    let packet = datagram(false, LEN);
    for ident in 0..20 {
        let mut pieces = cut(&packet, PART);
        pieces.pop();
        for piece in &mut pieces {
            set_ident(piece, ident);
        }
        send(&mut bed, &pieces);
    }
    assert_eq!(waiting(&mut bed), (80, 20));
    bed.reload(0, Some(&format!("set limit frags 10\n{GATHER}")), "");
    assert_eq!((waiting(&mut bed), bed.count(0, "frag.limit")), ((8, 2), 72));
    let mut last = cut(&packet, PART).pop().unwrap();
    set_ident(&mut last, 19);
    send(&mut bed, &[last]);
    arrives(&bed, &packet, 1500);
    bed.finish();
}

#[test]
fn a_flood_takes_its_share_and_no_more_and_a_good_datagram_passes_in_the_middle_of_it() {
    let mut bed = bed(Shape::default(), GATHER);
    let mut most = (0, 0);
    for n in 0..5000_u32 {
        let source = Ipv4Addr::from_bits(0x0a00_0000 + n / 3);
        let mut piece = cut4(&build::udp4(source, HOST4[1], 1, 2, &[7; 1500]), PART).remove(0);
        set_ident(&mut piece, n as u16);
        assert!(bed.send(0, 0, &piece));
        if n % 100 == 99 {
            bed.run(1);
            let (fragments, datagrams) = waiting(&mut bed);
            most = (most.0.max(fragments), most.1.max(datagrams));
            assert_eq!(bed.net.books(NAMES[0]).audit.owned_by(Owner::Reass), fragments as u64);
        }
        if n == 2500 {
            let packet = datagram(false, LEN);
            send(&mut bed, &cut(&packet, PART));
            arrives(&bed, &packet, PART + 20);
        }
    }
    assert!(most.0 <= CLUSTERS / 16 && most.1 == CLUSTERS / 32, "{most:?}");
    let left = waiting(&mut bed).0 as u64;
    assert_eq!(bed.count(0, "frag.limit"), 5000 - left);
    // Those that are left are the last that came.
    let mut last =
        cut4(&build::udp4(Ipv4Addr::from_bits(0x0a00_0000 + 4999 / 3), HOST4[1], 1, 2, &[7; 1500]), PART);
    for piece in &mut last {
        set_ident(piece, 4999);
    }
    send(&mut bed, &last[1..]);
    assert_eq!(bed.arrived(1).len(), 2);
    bed.run(31_000);
    assert_eq!(waiting(&mut bed), (0, 0));
    bed.finish();
}

#[test]
fn one_source_has_a_quarter_of_the_datagrams() {
    for v6 in [false, true] {
        let mut bed = bed(Shape::default(), GATHER);
        let packet = datagram(v6, 1500);
        for n in 0..200_u16 {
            let mut piece = if v6 { cut6(&packet, PART, n.into()) } else { cut4(&packet, PART) }.remove(0);
            if !v6 {
                set_ident(&mut piece, n);
            }
            send(&mut bed, &[piece]);
        }
        assert_eq!((waiting(&mut bed), bed.count(0, "frag.limit")), ((32, 32), 168));
        bed.finish();
    }
}

#[test]
fn fragments_that_must_not_be_fragmented_pass_only_where_that_is_forgiven() {
    let forgiving =
        ["set reassemble yes no-df\npass all keep state\n", "scrub in all no-df\npass all keep state\n"];
    let strict = [GATHER, "scrub in all\npass all keep state\n"];
    let packet = datagram(false, LEN);
    let mut pieces = cut(&packet, 1480);
    for piece in &mut pieces {
        let header: &mut [u8; 20] = piece.first_chunk_mut().unwrap();
        let word = u16::from_be_bytes([header[6], header[7]]);
        ipv4::set_word(header, 6, word | ipv4::DF);
    }
    for rules in forgiving {
        let mut bed = bed(Shape { wan_mtu: 1300, ..Shape::default() }, rules);
        send(&mut bed, &pieces);
        arrives(&bed, &packet, 1300);
        bed.finish();
    }
    for rules in strict {
        let mut bed = bed(Shape::default(), rules);
        send(&mut bed, &pieces);
        assert!(bed.arrived(1).is_empty());
        assert_eq!((bed.count(0, "frag.malformed"), waiting(&mut bed)), (pieces.len() as u64, (0, 0)));
        bed.finish();
    }
}

#[test]
fn a_translated_datagram_is_whole_in_between_and_in_fragments_both_ways() {
    let rules = "set reassemble yes\nnat on wan0 inet proto udp from 192.0.2.0/24 to any -> 203.0.113.1 static-port\n\
         nat on wan0 inet6 proto udp from 2001:db8:a::/64 to any -> 2001:db8:ffff::1 static-port\npass all keep state\n";
    // Of the long ones more fragments are made than in one turn: the rest waits.
    for (v6, len, part) in [(false, LEN, PART), (true, LEN, PART), (false, 60_000, 520), (true, 60_000, 520)]
    {
        let mut bed = bed(Shape::default(), rules);
        let pieces = cut(&datagram(v6, len), part);
        send(&mut bed, &pieces);
        let data: Vec<u8> = (0..len).map(|i| i as u8 ^ 0x5a).collect();
        let (there, back, home) = if v6 {
            let there = build::udp6(WAN6[0], HOST6[1], 1000, 2000, &data);
            let back = build::udp6(HOST6[1], WAN6[0], 2000, 1000, &data);
            (there, back, build::udp6(HOST6[1], HOST6[0], 2000, 1000, &data))
        } else {
            let there = build::udp4(WAN4[0], HOST4[1], 1000, 2000, &data);
            let back = build::udp4(HOST4[1], WAN4[0], 2000, 1000, &data);
            (there, back, build::udp4(HOST4[1], HOST4[0], 2000, 1000, &data))
        };
        let got = bed.arrived(1);
        assert_eq!(sizes(&got), sizes(&pieces));
        assert!(got.iter().all(|p| addresses(p) == addresses(&there)));
        assert!(join(&got, pieces[0].len()) == payload(&there), "the checksum is that of the new address");
        let answers = cut(&back, part);
        for piece in &answers {
            assert!(bed.send(1, 0, piece));
        }
        bed.run(20);
        let got = bed.arrived(0);
        assert_eq!(sizes(&got), sizes(&answers));
        assert!(got.iter().all(|p| addresses(p) == addresses(&home)));
        assert!(join(&got, answers[0].len()) == payload(&home));
        bed.finish();
    }
}

fn addresses(packet: &[u8]) -> &[u8] {
    if packet[0] >> 4 == 4 { &packet[12..20] } else { &packet[8..40] }
}

#[test]
fn fragments_that_come_to_two_workers_make_one_datagram() {
    for v6 in [false, true] {
        let mut bed = bed(Shape { workers: 2, ..Shape::default() }, GATHER);
        let packet = datagram(v6, LEN);
        for (n, piece) in cut(&packet, PART).iter().enumerate() {
            assert!(bed.send(0, n % 2, piece));
            bed.run(1);
        }
        bed.run(20);
        let mut got = bed.arrived(1);
        got.sort_by_key(|p| {
            if v6 { u16::from_be_bytes([p[42], p[43]]) } else { u16::from_be_bytes([p[6], p[7]]) & 0x1fff }
        });
        assert!(join(&got, 1500) == payload(&packet));
        assert_eq!(bed.count(0, "pf.reassembled"), 1);
        bed.finish();
    }
}

#[test]
fn rules_see_the_ports_of_every_octet_of_a_datagram() {
    for v6 in [false, true] {
        let rules =
            "set reassemble yes\nblock all\npass inet6 proto icmp6\npass proto udp to port 2000 keep state\n";
        let mut bed = bed(Shape::default(), rules);
        let packet = datagram(v6, LEN);
        send(&mut bed, &cut(&packet, PART));
        arrives(&bed, &packet, 1500);
        let other = Datagram { v6, len: LEN, ports: (1000, 2001), ..Datagram::default() }.packet();
        send(&mut bed, &cut(&other, PART));
        assert!(bed.arrived(1).is_empty());
        bed.finish();
    }
}

#[test]
fn headers_that_every_fragment_repeats_stay_in_front() {
    // Hop-by-hop options (nothing but padding) and a routing header with no segments left.
    let hop_by_hop = [43, 0, 1, 4, 0, 0, 0, 0];
    let routing = [IpProto::FRAGMENT.0, 0, 253, 0, 0, 0, 0, 0];
    let mut bed = bed(Shape::default(), "set reassemble yes\npass all keep state allow-opts\n");
    let packet = datagram(true, LEN);
    let with_headers = |piece: &Vec<u8>| {
        let mut all = [&piece[..40], &hop_by_hop, &routing, &piece[40..]].concat();
        all[6] = 0;
        let len = all.len() as u16 - 40;
        all[4..6].copy_from_slice(&len.to_be_bytes());
        all
    };
    let pieces: Vec<_> = cut(&packet, PART).iter().map(with_headers).collect();
    send(&mut bed, &pieces);
    let got = bed.arrived(1);
    assert_eq!(sizes(&got), sizes(&pieces));
    assert!(got.iter().all(|p| p[40..56] == pieces[0][40..56] && parse_ip(p).is_ok()));
    assert!(join(&got, pieces[0].len()) == payload(&packet));
    bed.finish();
}
