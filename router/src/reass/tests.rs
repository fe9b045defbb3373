//! The table and the mended headers, without a worker.

mod model;

use super::*;
use kern::testing::Fixture;
use proptest::prelude::*;
use std::net::{Ipv4Addr, Ipv6Addr};
use wire::{IpProto, build, ipv6_ext::Fragment};

const A: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const B: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
const A6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
const B6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2);
const NOW: Instant = Instant::from_secs(100);
const JUMBOS: usize = 2;

/// The fragments of a UDP datagram of `len` octets of payload, at most `size` (a multiple of eight) octets each.
fn split4(src: Ipv4Addr, ident: u16, len: usize, size: usize) -> Vec<Vec<u8>> {
    let payload: Vec<u8> = (0..len).map(|i| i as u8).collect();
    let whole = build::udp4(src, B, 1, 2, &payload);
    let body = &whole[20..];
    let cuts: Vec<usize> = (0..body.len()).step_by(size).collect();
    cuts.iter()
        .map(|&at| {
            let end = (at + size).min(body.len());
            let frag = (at / 8) as u16 | if end < body.len() { ipv4::MF } else { 0 };
            let header =
                ipv4::Repr { src, dst: B, proto: IpProto::UDP, ident, frag, ..ipv4::Repr::default() };
            build::raw4(header, &body[at..end])
        })
        .collect()
}

fn split6(ident: u32, len: usize, size: usize) -> Vec<Vec<u8>> {
    let payload: Vec<u8> = (0..len).map(|i| i as u8).collect();
    let whole = build::udp6(A6, B6, 1, 2, &payload);
    let body = &whole[40..];
    (0..body.len())
        .step_by(size)
        .map(|at| {
            let end = (at + size).min(body.len());
            let fragment = Fragment {
                at: 40,
                announced_at: 6,
                next_header: IpProto::UDP,
                offset: at as u16,
                more: end < body.len(),
                ident,
            };
            let header =
                ipv6::Repr { src: A6, dst: B6, next_header: IpProto::FRAGMENT, ..ipv6::Repr::default() };
            build::raw6(header, &[&fragment.octets(), &body[at..end]].concat())
        })
        .collect()
}

struct World {
    fixture: Fixture,
    table: Table,
    ended: Vec<Why>,
}

impl World {
    fn new(pieces: usize, datagrams: usize) -> World {
        World::with(pieces, datagrams, Overlap::Ruin)
    }

    fn with(pieces: usize, datagrams: usize, overlap: Overlap) -> World {
        World {
            fixture: Fixture::with_jumbos(256, 8),
            table: Table::new(pieces, datagrams, overlap),
            ended: Vec::new(),
        }
    }

    /// A fragment comes; the datagram, if it is whole now.
    fn hear(&mut self, packet: &[u8], now: Instant) -> Option<Vec<u8>> {
        let mut m = self.fixture.packet(packet);
        m.hdr_mut().family = packet[0] >> 4;
        let piece = piece::describe(&m).expect("a sound fragment");
        let mut victims = Victims::new(Why::FragLimit);
        let outcome = self.table.insert(m, &piece, now, JUMBOS, &mut victims);
        let (ledger, why) = (&self.fixture.ledger, victims.why);
        self.ended.extend(victims.packets.iter().map(|_| why));
        end(&mut victims, ledger);
        match outcome {
            Outcome::Waits => None,
            Outcome::Refused(m, why) => {
                self.ended.push(why);
                m.end(why, ledger);
                None
            }
            Outcome::Whole(complete) => {
                let mut m = victims.whole.coalesce(&self.fixture.pool, ledger).expect("room for the whole");
                m.hdr_mut().family = packet[0] >> 4;
                let mended =
                    if packet[0] >> 4 == 4 { mend4(&mut m, complete) } else { mend6(&mut m, complete) };
                let octets = mended.ok().map(|()| m.data().to_vec());
                self.fixture.done(m);
                octets
            }
        }
    }

    fn finish(&mut self) {
        loop {
            let mut victims = Victims::new(Why::Shutdown);
            if !self.table.drain(&mut victims) {
                break;
            }
            end(&mut victims, &self.fixture.ledger);
        }
        assert_eq!(self.table.waiting(), (0, 0));
    }
}

fn udp_payload(whole: &[u8]) -> Vec<u8> {
    let parsed = parse::parse_ip(whole).expect("a sound datagram");
    assert!(wire::checksum::transport_ok(whole, parsed.l4.into(), parsed.end as usize, parsed.proto));
    assert!(!parsed.is_fragment());
    parsed.l4(whole)[8..].to_vec()
}

#[test]
fn the_largest_ping_comes_together_in_a_jumbo() {
    let mut world = World::new(128, 64);
    let pieces = split4(A, 1, 65_507, 1480);
    assert_eq!(pieces.len(), 45);
    let whole: Vec<Vec<u8>> = pieces.iter().filter_map(|p| world.hear(p, NOW)).collect();
    assert_eq!(whole.len(), 1);
    assert_eq!(whole[0].len(), 65_535);
    assert_eq!(udp_payload(&whole[0]), (0..65_507).map(|i| i as u8).collect::<Vec<u8>>());
    world.finish();
}

#[test]
fn an_ipv6_datagram_loses_its_fragment_header() {
    let mut world = World::new(64, 8);
    let whole: Vec<Vec<u8>> = split6(77, 4000, 1232).iter().filter_map(|p| world.hear(p, NOW)).collect();
    assert_eq!(whole, [build::udp6(A6, B6, 1, 2, &(0..4000).map(|i| i as u8).collect::<Vec<u8>>())]);
    world.finish();
}

#[test]
fn overlapping_fragments_ruin_their_datagram_and_what_comes_after() {
    for (mut pieces, family) in [(split4(A, 1, 3000, 1000), 4), (split6(1, 3000, 1000), 6)] {
        let mut world = World::new(64, 8);
        assert!(world.hear(&pieces[0], NOW).is_none());
        // The second piece moved eight octets forward lies over the first one's end.
        let mut over = pieces[1].clone();
        if family == 4 {
            let word = u16::from_be_bytes([over[6], over[7]]) - 1;
            ipv4::set_word(over.first_chunk_mut().unwrap(), 6, word);
        } else {
            over[43] -= 8;
        }
        assert!(world.hear(&over, NOW).is_none());
        assert_eq!(world.ended, [Why::FragOverlap; 2]);
        for piece in pieces.drain(..) {
            assert!(world.hear(&piece, NOW).is_none());
        }
        assert_eq!(world.ended.len(), 6, "no piece of it was kept");
        world.finish();
    }
}

#[test]
fn a_fragment_that_comes_twice_is_counted_and_harms_nobody() {
    let mut world = World::new(64, 8);
    let pieces = split4(A, 1, 2500, 1000);
    assert!(world.hear(&pieces[0], NOW).is_none());
    assert!(world.hear(&pieces[0], NOW).is_none());
    assert!(world.hear(&pieces[2], NOW).is_none());
    assert!(world.hear(&pieces[2], NOW).is_none());
    assert!(world.hear(&pieces[1], NOW).is_some());
    assert_eq!(world.ended, [Why::FragDuplicate; 2]);
    world.finish();
}

#[test]
fn two_ends_of_one_datagram_ruin_it() {
    let mut world = World::new(64, 8);
    let (long, short) = (split4(A, 1, 3000, 1000), split4(A, 1, 1500, 1000));
    assert!(world.hear(&long[2], NOW).is_none());
    assert!(world.hear(&short[1], NOW).is_none());
    assert_eq!(world.ended, [Why::FragMalformed; 2]);
    world.finish();
}

#[test]
fn a_datagram_waits_thirty_seconds_and_an_ipv6_one_sixty() {
    let mut world = World::new(64, 8);
    world.hear(&split4(A, 1, 3000, 1000)[1], NOW);
    world.hear(&split6(1, 3000, 1000)[0], NOW);
    let second = 1_000_000_000;
    let mut victims = Victims::new(Why::FragTimeout);
    assert_eq!(world.table.expire(NOW.after(29 * second), &mut victims), Err(NOW.after(30 * second)));
    assert_eq!(world.table.expire(NOW.after(30 * second), &mut victims), Ok(false), "no first fragment");
    assert_eq!(world.table.expire(NOW.after(59 * second), &mut victims), Err(NOW.after(60 * second)));
    end(&mut victims, &world.fixture.ledger);
    assert_eq!(world.table.expire(NOW.after(60 * second), &mut victims), Ok(true));
    assert_eq!(world.table.expire(NOW.after(60 * second), &mut victims), Err(Instant::NEVER));
    end(&mut victims, &world.fixture.ledger);
}

#[test]
fn a_flood_stays_within_its_limits_and_one_source_within_its_share() {
    let mut world = World::new(16, 8);
    for ident in 0..200 {
        world.hear(&split4(A, ident, 3000, 1000)[0], NOW);
    }
    assert_eq!(world.table.waiting(), (2, 2), "a quarter of eight datagrams");
    for n in 0..200_u8 {
        world.hear(&split4(Ipv4Addr::new(10, 0, 0, n), 1, 3000, 1000)[0], NOW);
        let (pieces, datagrams) = world.table.waiting();
        assert!(pieces <= 16 && datagrams <= 8);
    }
    assert_eq!(world.table.waiting(), (8, 8));
    assert!(world.ended.iter().all(|&w| w == Why::FragLimit));
    // Whoever completes quickly gets through in spite of it.
    let whole: Vec<_> = split4(A, 999, 3000, 1000).iter().filter_map(|p| world.hear(p, NOW)).collect();
    assert_eq!(whole.len(), 1);
    world.finish();
}

#[test]
fn congestion_marks_are_joined() {
    const CE: u8 = 1 << 3;
    assert_eq!(joint_ecn(1), Ok(None));
    assert_eq!(joint_ecn(1 << 2), Ok(None));
    assert_eq!(joint_ecn(CE | 1 << 2), Ok(Some(3)));
    assert_eq!(joint_ecn(CE | 1), Err(Why::FragMalformed));
    let mut world = World::new(64, 8);
    let mut pieces = split4(A, 1, 1500, 1000);
    ipv4::set_tos(pieces[0].first_chunk_mut().unwrap(), 2);
    ipv4::set_tos(pieces[1].first_chunk_mut().unwrap(), 3);
    world.hear(&pieces[1], NOW);
    let whole = world.hear(&pieces[0], NOW).unwrap();
    assert_eq!(whole[1] & 3, 3);
    assert!(ipv4::Packet::new_checked(&whole[..]).unwrap().checksum_ok());
    world.finish();
}

/// A fragment of datagram 1 from A to B: `len` octets of `value` at `offset`.
fn raw4(offset: usize, len: usize, more: bool, value: u8) -> Vec<u8> {
    let frag = (offset / 8) as u16 | if more { ipv4::MF } else { 0 };
    let header = ipv4::Repr { src: A, dst: B, proto: IpProto(200), ident: 1, frag, ..ipv4::Repr::default() };
    build::raw4(header, &vec![value; len])
}

#[test]
fn pf_keeps_what_it_has_of_an_ipv4_datagram_and_ruins_an_ipv6_one() {
    let mut world = World::with(64, 8, Overlap::Trim);
    assert!(world.hear(&raw4(0, 16, true, 1), NOW).is_none());
    assert!(world.hear(&raw4(24, 8, true, 2), NOW).is_none());
    // Eight octets too many in front, eight behind.
    assert!(world.hear(&raw4(8, 24, true, 3), NOW).is_none());
    let whole = world.hear(&raw4(24, 13, false, 4), NOW).unwrap();
    assert_eq!(
        whole[20..],
        [[1; 8], [1; 8], [3; 8], [2; 8]].concat().into_iter().chain([4; 5]).collect::<Vec<u8>>()
    );
    assert!(world.ended.is_empty());
    let pieces = split6(1, 3000, 1000);
    world.hear(&pieces[0], NOW);
    let mut over = pieces[1].clone();
    over[43] -= 8;
    world.hear(&over, NOW);
    assert_eq!(world.ended, [Why::FragOverlap; 2]);
    world.finish();
}

#[test]
fn a_limit_below_the_room_there_is_sends_the_oldest_away() {
    let mut world = World::with(64, 32, Overlap::Trim);
    world.table.limit(3, 5_000_000_000);
    for ident in 0..5 {
        world.hear(
            &split4(Ipv4Addr::new(10, 0, 0, ident as u8), ident, 3000, 1000)[0],
            NOW.after(ident.into()),
        );
        assert!(world.table.waiting().0 <= 3);
    }
    assert_eq!(world.ended, [Why::FragLimit; 2]);
    let mut victims = Victims::new(Why::FragTimeout);
    assert_eq!(world.table.expire(NOW.after(3), &mut victims), Err(NOW.after(2 + 5_000_000_000)));
    world.finish();
}

#[test]
fn a_limit_that_sinks_sends_the_oldest_away_until_the_rest_is_within_it() {
    let mut world = World::with(64, 32, Overlap::Trim);
    for ident in 0..8 {
        let pieces = split4(Ipv4Addr::new(10, 0, 0, ident as u8), ident, 3000, 1000);
        for piece in &pieces[..2] {
            assert_eq!(world.hear(piece, NOW.after(ident.into())), None);
        }
    }
    world.table.limit(5, 5_000_000_000);
    let mut gone = 0;
    loop {
        let mut victims = Victims::new(Why::FragLimit);
        if !world.table.shrink(&mut victims) {
            break;
        }
        gone += victims.packets.len();
        end(&mut victims, &world.fixture.ledger);
    }
    assert_eq!((gone, world.table.waiting()), (12, (4, 2)));
    for n in 2..4 {
        let last = &split4(Ipv4Addr::new(10, 0, 0, 7), 7, 3000, 1000)[n];
        assert_eq!(world.hear(last, NOW.after(9)).is_some(), n == 3, "the newest becomes whole");
    }
    assert_eq!(world.table.waiting(), (0, 0), "the other has made room for it");
    world.finish();
}

proptest! {
    #[test]
    fn overlapping_ipv4_fragments_are_for_pf_what_came_first(
        cuts in proptest::collection::vec((0..12_usize, 1..6_usize), 1..40),
        tail in 1..8_usize,
    ) {
        let mut world = World::with(64, 8, Overlap::Trim);
        let len = 96 + tail;
        let mut model: Vec<Option<u8>> = vec![None; len];
        for (n, (at, blocks)) in cuts.into_iter().enumerate() {
            let (start, end) = (at * 8, ((at + blocks) * 8).min(len));
            let end = if end + 8 > len { len } else { end };
            let value = n as u8 + 1;
            let whole = world.hear(&raw4(start, end - start, end < len, value), NOW);
            let first = (start..end).find(|&i| model[i].is_none());
            if let Some(first) = first {
                let last = (first..end).find(|&i| model[i].is_some()).unwrap_or(end);
                model[first..last].fill(Some(value));
            }
            if let Some(whole) = whole {
                let expected: Vec<u8> = model.iter().map(|o| o.unwrap_or(0)).collect();
                prop_assert_eq!(&whole[20..], &expected[..]);
                model.fill(None);
            }
        }
        world.finish();
    }

    #[test]
    fn fragments_of_any_kind_leave_the_books_balanced(
        pieces in proptest::collection::vec((0..70_usize, 0..200_usize, any::<bool>(), 0..3_u16, any::<bool>()), 0..60),
        trim in any::<bool>(),
    ) {
        let mut world = World::with(16, 6, if trim { Overlap::Trim } else { Overlap::Ruin });
        let mut clock = NOW;
        for (at, len, more, ident, v6) in pieces {
            clock = clock.after(1_500_000_000);
            let packet = if v6 {
                let fragment = Fragment { at: 40, announced_at: 6, next_header: IpProto(200), offset: at as u16 * 8, more, ident: ident.into() };
                let header = ipv6::Repr { src: A6, dst: B6, next_header: IpProto::FRAGMENT, ..ipv6::Repr::default() };
                build::raw6(header, &[&fragment.octets()[..], &vec![7; len]].concat())
            } else {
                let mut packet = raw4(at * 8, len, more, 7);
                ipv4::set_word(packet.first_chunk_mut().unwrap(), 4, ident);
                packet
            };
            let mut m = world.fixture.packet(&packet);
            m.hdr_mut().family = packet[0] >> 4;
            let sound = piece::describe(&m).is_ok_and(|p| !p.is_atomic());
            world.fixture.done(m);
            if sound {
                world.hear(&packet, clock);
            }
            let mut victims = Victims::new(Why::FragTimeout);
            let _ = world.table.expire(clock, &mut victims);
            end(&mut victims, &world.fixture.ledger);
        }
        world.finish();
    }

    #[test]
    fn any_order_of_arrival_gives_the_datagram(
        len in 100..6000_usize,
        size in 1..180_usize,
        v6 in any::<bool>(),
        order in any::<u64>(),
    ) {
        let size = (size * 8).max(len.div_ceil(100).next_multiple_of(8));
        let mut pieces = if v6 { split6(9, len, size) } else { split4(A, 9, len, size) };
        let count = pieces.len();
        prop_assume!(count > 1 && count <= 128);
        let mut random = order;
        for i in (1..count).rev() {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            pieces.swap(i, (random >> 33) as usize % (i + 1));
        }
        let mut world = World::new(512, 8);
        let whole: Vec<_> = pieces.iter().filter_map(|p| world.hear(p, NOW)).collect();
        prop_assert_eq!(whole.len(), 1);
        prop_assert_eq!(udp_payload(&whole[0]), (0..len).map(|i| i as u8).collect::<Vec<u8>>());
        prop_assert!(world.ended.is_empty());
        world.finish();
    }
}
