//! Cutting and gathering: what one does the other undoes, octet for octet, and a device's lies are found.

use kern::{
    Batch, Class, Gso, Mbuf, Owner, PktFlags, Why,
    testing::{Chance, Fixture, soak},
};
use proptest::prelude::*;
use router::iface::{
    cut::{self, Cut, cut, finish_checksum},
    driver::Caps,
    gro::{self, Emit, Piece},
    vnet::{self, VnetHdr},
};
use wire::{IpProto, Mac, build, checksum, coalesce::SuperFrame, ipv4, ipv6, tcp, tcp::Flags, udp};

const ALL: Caps = Caps { checksum: true, tso: true, uso: true };
const L3: usize = 14;

fn frame(packet: &[u8]) -> Vec<u8> {
    build::frame(Mac([2, 0, 0, 0, 0, 2]), Mac([2, 0, 0, 0, 0, 1]), packet)
}

/// One segment of a flow; `number` is its place, `at` its octet in the stream.
fn segment(kind: Gso, flow: u8, number: u16, at: u32, payload: &[u8], flags: Flags) -> Vec<u8> {
    let v4 = ipv4::Repr {
        src: [192, 0, 2, flow].into(),
        dst: [198, 51, 100, 1].into(),
        ident: u16::from(flow) << 8 | number,
        frag: ipv4::DF,
        ..ipv4::Repr::default()
    };
    let v6 = ipv6::Repr { src: u128::from(flow + 1).into(), dst: 99.into(), ..ipv6::Repr::default() };
    let tcp = tcp::Repr {
        src_port: 1000 + u16::from(flow),
        dst_port: 80,
        seq: 0xffff_f000_u32.wrapping_add(at),
        ack: 77,
        flags,
        window: 500,
        timestamps: Some((1, 2)),
        ..tcp::Repr::default()
    };
    let udp = udp::Repr { src_port: 1000 + u16::from(flow), dst_port: 53 };
    frame(&match kind {
        Gso::Tcp6 => build::tcp6_with(v6, &tcp, payload),
        Gso::Udp4 => build::udp4_with(v4, &udp, payload),
        Gso::Udp6 => build::udp6_with(v6, &udp, payload),
        Gso::Tcp4 | Gso::None => build::tcp4_with(v4, &tcp, payload),
    })
}

fn packet(side: &Fixture, frame: &[u8], hash: u32) -> Mbuf {
    let mut m = side.packet(frame);
    m.set_l3(L3);
    m.hdr_mut().hash = hash;
    m
}

fn cut_all(side: &Fixture, mut m: Mbuf, limit: usize) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    loop {
        let before = frames.len();
        let state = cut(&mut m, limit, &side.pool, &side.ledger, &mut |segment| {
            assert_eq!(segment.hdr().gso, Gso::None);
            assert!(!segment.hdr().flags.has(PktFlags::PARTIAL));
            assert_eq!((segment.l3(), segment.hdr().hash), (L3, 7));
            frames.push(segment.data().to_vec());
            side.done(segment);
        });
        assert!(frames.len() - before <= limit);
        match state {
            Cut::More => assert_eq!(frames.len() - before, limit),
            Cut::Done => break,
        }
    }
    side.ledger.merge(m);
    frames
}

/// A device that cuts every super-frame it gets.
struct Cutter<'a> {
    side: &'a Fixture,
    frames: Vec<Vec<u8>>,
    units: usize,
}

impl Emit for Cutter<'_> {
    fn alone(&mut self, packets: &mut [Mbuf], index: usize) {
        self.units += 1;
        self.frames.push(packets[index].data().to_vec());
    }

    fn together(&mut self, packets: &mut [Mbuf], pieces: &[Piece], shape: &SuperFrame) {
        self.units += 1;
        assert_eq!(pieces.len(), usize::from(shape.segments));
        let mut whole = self.side.pool.alloc(Class::Jumbo, Owner::Worker).expect("a jumbo");
        self.side.ledger.create(&mut whole);
        for piece in pieces {
            let part =
                &packets[usize::from(piece.index)].data()[usize::from(piece.from)..usize::from(piece.to)];
            whole.append(part.len()).expect("room").copy_from_slice(part);
        }
        let vnet = VnetHdr {
            flags: vnet::NEEDS_CSUM,
            gso_type: match shape.kind {
                wire::segment::Kind::Tcp4 => vnet::GSO_TCPV4,
                wire::segment::Kind::Tcp6 => vnet::GSO_TCPV6,
                _ => vnet::GSO_UDP_L4,
            },
            hdr_len: 0,
            gso_size: shape.size,
            csum_start: L3 as u16 + shape.checksum_start,
            csum_offset: shape.checksum_offset,
        };
        vnet.apply(&mut whole).expect("a device takes what we made");
        assert_eq!(vnet::segments(&whole), pieces.len());
        assert_eq!(VnetHdr::of(&whole), VnetHdr { hdr_len: vnet::header_len(&whole) as u16, ..vnet });
        whole.set_l3(L3);
        whole.hdr_mut().hash = 7;
        self.frames.extend(cut_all(self.side, whole, 7));
    }
}

/// Gathers a batch and gives what a cutting device puts on its wire, and how many units it got.
fn through(side: &Fixture, batch: &mut Batch, caps: Caps) -> (Vec<Vec<u8>>, usize) {
    let mut cutter = Cutter { side, frames: Vec::new(), units: 0 };
    gro::gather(batch.as_mut_slice(), caps, &mut cutter);
    side.ledger.end_all(batch, Why::Sink);
    (cutter.frames, cutter.units)
}

#[test]
fn interleaved_flows_are_gathered_each_by_itself() {
    let side = Fixture::new(300);
    let mut batch = Batch::new();
    let mut sent = Vec::new();
    for number in 0..20_u16 {
        for (flow, kind) in [Gso::Tcp4, Gso::Tcp6, Gso::Udp4, Gso::Udp6].into_iter().enumerate() {
            let frame =
                segment(kind, flow as u8, number, u32::from(number) * 1000, &[flow as u8; 1000], Flags::ACK);
            batch.push(packet(&side, &frame, flow as u32 + 1)).expect("room");
            sent.push(frame);
        }
    }
    let (mut frames, units) = through(&side, &mut batch, ALL);
    assert_eq!(units, 4);
    frames.sort();
    sent.sort();
    assert_eq!(frames, sent);
}

#[test]
fn a_device_without_uso_gets_datagrams_alone_and_one_without_tso_gets_all_alone() {
    let side = Fixture::new(300);
    for (caps, expected) in [(Caps { uso: false, ..ALL }, 11), (Caps::default(), 20)] {
        let mut batch = Batch::new();
        for number in 0..10_u16 {
            let tcp = segment(Gso::Tcp4, 1, number, u32::from(number) * 500, &[1; 500], Flags::ACK);
            let udp = segment(Gso::Udp4, 2, number, 0, &[1; 500], Flags::ACK);
            batch.push(packet(&side, &tcp, 1)).expect("room");
            batch.push(packet(&side, &udp, 2)).expect("room");
        }
        assert_eq!(through(&side, &mut batch, caps).1, expected);
    }
}

#[test]
fn an_empty_acknowledgment_stays_in_its_place_among_the_data() {
    let side = Fixture::new(300);
    let mut batch = Batch::new();
    let mut sent = Vec::new();
    for number in 0..9_u16 {
        let payload: &[u8] = if number == 4 { &[] } else { &[1; 100] };
        let at = u32::from(number - u16::from(number > 4)) * 100;
        sent.push(segment(Gso::Tcp4, 1, number, at, payload, Flags::ACK));
        batch.push(packet(&side, sent.last().expect("just pushed"), 5)).expect("room");
    }
    let (frames, units) = through(&side, &mut batch, ALL);
    assert_eq!((frames, units), (sent, 3));
}

#[test]
fn a_wrong_checksum_is_never_hidden_in_a_super_frame() {
    let side = Fixture::new(300);
    for wrong in 0..5 {
        let mut batch = Batch::new();
        let mut sent = Vec::new();
        for number in 0..5_u16 {
            let mut frame = segment(Gso::Tcp6, 1, number, u32::from(number) * 100, &[1; 100], Flags::ACK);
            if number == wrong {
                *frame.last_mut().expect("octets") ^= 1;
            }
            batch.push(packet(&side, &frame, 5)).expect("room");
            sent.push(frame);
        }
        assert_eq!(through(&side, &mut batch, ALL).0, sent, "segment {wrong} wrong");
    }
}

/// A super-frame as a device gives it.
fn super_frame(side: &Fixture, kind: Gso, payload: usize, size: u16) -> Mbuf {
    let data: Vec<u8> = (0..payload).map(|i| (i * 7) as u8).collect();
    let mut m = side.packet(&segment(kind, 1, 0, 0, &data, Flags::ACK | Flags::PSH));
    let l4 = if matches!(kind, Gso::Tcp4 | Gso::Udp4) { 34 } else { 54 };
    let (proto, offset) = match kind {
        Gso::Udp4 | Gso::Udp6 => (IpProto::UDP, 6),
        _ => (IpProto::TCP, 16),
    };
    let end = m.len() - L3;
    checksum::transport_fill_partial(&mut m.data_mut()[L3..], l4 - L3, end, proto).expect("a transport");
    m.set_l3(L3);
    m.set_partial(l4, offset);
    m.set_gso(kind, size);
    m.hdr_mut().hash = 7;
    m
}

#[test]
fn a_super_frame_is_cut_in_turns_and_the_pieces_are_whole() {
    let side = Fixture::new(300);
    for kind in [Gso::Tcp4, Gso::Tcp6, Gso::Udp4, Gso::Udp6] {
        let m = super_frame(&side, kind, 60_001, 1398);
        let (segments, octets) = vnet::on_the_wire(&m);
        assert_eq!(segments, 43);
        let frames = cut_all(&side, m, 10);
        assert_eq!(frames.len(), 43);
        assert_eq!(frames.iter().map(Vec::len).sum::<usize>() as u64, octets);
        for frame in &frames {
            let parsed = wire::parse_frame(frame).expect("sound").ip.expect("IP");
            let packet = &frame[L3..];
            assert!(checksum::transport_ok(packet, usize::from(parsed.l4), packet.len(), parsed.proto));
        }
    }
}

#[test]
fn cutting_works_where_the_data_begin_at_the_ip_header_too() {
    let side = Fixture::new(300);
    let mut m = super_frame(&side, Gso::Tcp4, 5000, 1000);
    m.trim_front(L3).expect("there is one");
    assert_eq!(m.l3(), 0);
    let mut lens = Vec::new();
    let state = cut(&mut m, 64, &side.pool, &side.ledger, &mut |segment| {
        assert_eq!((segment.l3(), segment.l4()), (0, 20));
        lens.push(segment.len());
        side.done(segment);
    });
    assert_eq!(state, Cut::Done);
    assert_eq!(lens, [1052; 5]);
    side.ledger.merge(m);
}

#[test]
fn without_buffers_the_rest_of_a_super_frame_ends_and_is_accounted_for() {
    let side = Fixture::with_jumbos(5, 2);
    let mut m = super_frame(&side, Gso::Udp6, 20_000, 1000);
    let mut made = Vec::new();
    let state = cut(&mut m, cut::LIMIT, &side.pool, &side.ledger, &mut |segment| made.push(segment));
    assert_eq!(state, Cut::Done);
    assert_eq!(made.len(), 5);
    side.ledger.merge(m);
    assert_eq!((side.ledger.why(Why::NoBuffer), side.ledger.balance().split), (15, 20));
    for segment in made {
        side.done(segment);
    }
}

#[test]
fn what_is_no_super_frame_cannot_be_cut() {
    let side = Fixture::new(16);
    let mut m = packet(&side, &segment(Gso::Tcp4, 1, 0, 0, &[1; 100], Flags::ACK), 0);
    let state = cut(&mut m, 64, &side.pool, &side.ledger, &mut |_| panic!("made something"));
    assert_eq!(state, Cut::Done);
    assert_eq!(side.ledger.why(Why::IfOffload), 1);
    side.ledger.merge(m);
}

#[test]
fn a_finished_checksum_is_right_and_finishing_twice_changes_nothing() {
    let side = Fixture::new(16);
    for kind in [Gso::Tcp4, Gso::Udp6] {
        let mut m = super_frame(&side, kind, 3000, 1000);
        finish_checksum(&mut m).expect("a checked packet");
        let once = m.data().to_vec();
        let parsed = wire::parse_frame(&once).expect("sound").ip.expect("IP");
        assert!(checksum::transport_ok(&once[L3..], usize::from(parsed.l4), once.len() - L3, parsed.proto));
        assert_eq!((m.hdr().gso, m.hdr().flags.has(PktFlags::PARTIAL)), (Gso::None, false));
        finish_checksum(&mut m).expect("nothing to do");
        assert_eq!(m.data(), once);
        side.done(m);
    }
}

#[test]
fn a_partial_checksum_inside_a_tunnel_is_finished_on_arrival() {
    let side = Fixture::new(16);
    // UDP in IPv4 in GRE would be seen as GRE; the device says where the inner checksum is.
    let inner = build::udp4([10, 0, 0, 1].into(), [10, 0, 0, 2].into(), 5, 6, b"inside a tunnel");
    let mut partial = inner.clone();
    checksum::transport_fill_partial(&mut partial, 20, inner.len(), IpProto::UDP).expect("a datagram");
    let outer = |inner: &[u8]| {
        let header = ipv4::Repr { proto: IpProto::IPV4, ..ipv4::Repr::default() };
        frame(&build::raw4(header, inner))
    };
    let mut m = side.packet(&outer(&partial));
    let vnet = VnetHdr { flags: vnet::NEEDS_CSUM, csum_start: 54, csum_offset: 6, ..VnetHdr::PLAIN };
    assert_eq!(vnet.apply(&mut m), Ok(()));
    assert_eq!(m.data(), outer(&inner));
    assert!(!m.hdr().flags.has(PktFlags::PARTIAL));
    side.done(m);
}

#[derive(Clone, Debug)]
struct Seg {
    flow: u8,
    full: bool,
    flags: u8,
    odd: u8,
}

fn seg() -> impl Strategy<Value = Seg> {
    (0..5_u8, prop::bool::weighted(0.9), 0..20_u8, 0..60_u8).prop_map(|(flow, full, flags, odd)| Seg {
        flow,
        full,
        flags,
        odd,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(
        if soak() { 20_000 } else { 300 }
    ))]

    #[test]
    fn gathering_and_cutting_restores_every_flow_octet_for_octet(
        segs in prop::collection::vec(seg(), 1..200), size in 1..1400_usize, collide in any::<bool>()
    ) {
        let side = Fixture::new(512);
        let mut batch = Batch::new();
        let mut sent: Vec<Vec<Vec<u8>>> = vec![Vec::new(); 5];
        let (mut at, mut number) = ([0_u32; 5], [0_u16; 5]);
        for s in &segs {
            let f = usize::from(s.flow);
            let kind = [Gso::Tcp4, Gso::Tcp6, Gso::Udp4, Gso::Udp6, Gso::Tcp4][f];
            let len = if s.full { size } else { size / 2 };
            let flags = match s.flags {
                0 => Flags::ACK | Flags::PSH,
                1 => Flags::ACK | Flags::FIN,
                2 => Flags::ACK | Flags::CWR,
                3 => Flags::ACK | Flags::ECE,
                4 => Flags::SYN,
                _ => Flags::ACK,
            };
            let payload: Vec<u8> = (0..len).map(|i| (i as u8).wrapping_mul(s.flow + 3)).collect();
            // Now and then a gap in the sequence or in the identification.
            let skip = u32::from(s.odd == 0);
            let mut frame = segment(kind, s.flow, number[f].wrapping_add(u16::from(s.odd == 1)), at[f] + skip, &payload, flags);
            match s.odd {
                2 => *frame.last_mut().expect("octets") ^= 0x10,
                3 => frame[L3 + 8] = frame[L3 + 8].wrapping_sub(1),
                4 => frame.extend([0; 6]),
                5 => frame[5] ^= 1,
                _ => {}
            }
            at[f] = at[f].wrapping_add(len as u32);
            number[f] += 1;
            let mut m = packet(&side, &frame, if collide { 1 + u32::from(s.flow / 2) } else { 1 + u32::from(s.flow) });
            // A device may have looked already; not at those we broke.
            if s.odd > 30 {
                m.hdr_mut().flags.set(PktFlags::CSUM_OK);
            }
            batch.push(m).expect("room");
            // Padding of the last segment may go.
            sent[f].push(frame);
        }
        let (frames, _) = through(&side, &mut batch, ALL);
        prop_assert_eq!(frames.len(), segs.len());
        let mut got: Vec<Vec<Vec<u8>>> = vec![Vec::new(); 5];
        for frame in frames {
            let f = if frame[12..14] == [8, 0] { frame[L3 + 15] } else { frame[L3 + 23] - 1 };
            got[usize::from(f)].push(frame);
        }
        for (f, (got, sent)) in got.iter().zip(&sent).enumerate() {
            for (n, (got, sent)) in got.iter().zip(sent).enumerate() {
                let unpadded = &sent[..got.len().min(sent.len())];
                prop_assert!(got == unpadded, "segment {} of flow {}", n, f);
                prop_assert!(sent.len() - got.len() == 0 || sent.len() - got.len() == 6);
            }
        }
    }
}

#[test]
fn no_lie_of_a_device_about_a_frame_does_harm() {
    let rounds = if soak() { 1_000_000 } else { 100_000 };
    let mut chance = Chance::new(20_130_312);
    let side = Fixture::with_jumbos(1100, 4);
    let (mut taken, mut supers) = (0, 0);
    for _ in 0..rounds {
        let nth = chance.below(4);
        let kind = [Gso::Tcp4, Gso::Tcp6, Gso::Udp4, Gso::Udp6][nth];
        let len = chance.below(900);
        let mut octets = segment(kind, 1, 0, 0, &vec![9; len], Flags::ACK);
        for _ in 0..chance.below(4) {
            let at = chance.below(octets.len().min(90));
            octets[at] = chance.next() as u8;
        }
        if chance.below(4) == 0 {
            octets.truncate(octets.len() - chance.below(octets.len() / 2));
        }
        let l4 = if matches!(kind, Gso::Tcp4 | Gso::Udp4) { 34 } else { 54 };
        let offset = if matches!(kind, Gso::Tcp4 | Gso::Tcp6) { 16 } else { 6 };
        let right = [vnet::GSO_TCPV4, vnet::GSO_TCPV6, vnet::GSO_UDP_L4, vnet::GSO_UDP_L4][nth];
        let mut vnet = VnetHdr {
            flags: vnet::NEEDS_CSUM,
            gso_type: [0, 1, 3, 4, 5, 0x81, right, right, right, right][chance.below(10)],
            hdr_len: chance.next() as u16,
            gso_size: chance.below(300) as u16,
            csum_start: l4,
            csum_offset: offset,
        };
        match chance.below(6) {
            0 => vnet.flags = chance.next() as u8,
            1 => vnet.csum_start = chance.next() as u16 >> chance.below(16),
            2 => vnet.csum_offset = chance.next() as u16 >> chance.below(16),
            3 => vnet.gso_size = chance.next() as u16,
            _ => {}
        }
        assert_eq!(VnetHdr::parse(&vnet.emit()), vnet);
        let mut m = side.packet(&octets);
        if let Err(why) = vnet.apply(&mut m) {
            assert_eq!(why, Why::IfOffload);
            side.ledger.end(m, why);
            continue;
        }
        taken += 1;
        m.set_l3(L3);
        let (segments, wire_octets) = vnet::on_the_wire(&m);
        if m.hdr().gso == Gso::None {
            finish_checksum(&mut m).expect("what was checked can be finished");
            side.done(m);
            continue;
        }
        supers += 1;
        assert!(segments >= 2);
        let (mut count, mut sum) = (0, 0);
        loop {
            let state = cut(&mut m, 64, &side.pool, &side.ledger, &mut |segment| {
                count += 1;
                sum += segment.len() as u64;
                side.done(segment);
            });
            match state {
                Cut::More => {}
                Cut::Done => break side.ledger.merge(m),
            }
        }
        assert_eq!((count, sum), (segments, wire_octets), "{vnet:?}");
    }
    println!("{taken} of {rounds} taken, {supers} super-frames");
    assert!(supers > rounds / 50);
}
