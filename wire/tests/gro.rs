//! Cutting and coalescing are inverse: what is merged comes out of the cutter octet for octet, and what cutting would change is not merged.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::net::{Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;
use wire::{
    build,
    checksum::{self, copy_and_sum},
    coalesce::{Merge, SuperFrame},
    ipv4, ipv6,
    parse::parse_ip,
    segment::{Cut, Kind},
    tcp::{self, Flags},
    udp,
};

/// Merges packets, in order, into as many super-frames as it takes, as a caller would. Singles come out as they are.
fn coalesce(packets: &[Vec<u8>], fixed_ident: bool) -> Vec<(Vec<u8>, Option<SuperFrame>)> {
    let mut out = Vec::new();
    let mut current: Option<(Merge, Vec<u8>)> = None;
    let flush = |current: &mut Option<(Merge, Vec<u8>)>, out: &mut Vec<_>| {
        if let Some((merge, mut octets)) = current.take() {
            octets.truncate(merge.len());
            let frame = merge.finish(&mut octets);
            out.push((octets, frame));
        }
    };
    for packet in packets {
        let parsed = parse_ip(packet).unwrap();
        if let Some((merge, octets)) = &mut current
            && let Some(step) = merge.next(octets, packet, &parsed)
        {
            let at = merge.len();
            octets.resize(at + step.payload().len(), 0);
            let sum = copy_and_sum(&mut octets[at..], &packet[step.payload()]);
            if merge.accept(&step, sum) {
                continue;
            }
        }
        flush(&mut current, &mut out);
        match Merge::start(packet, &parsed, false, fixed_ident) {
            Some(merge) => current = Some((merge, packet.clone())),
            None => out.push((packet.clone(), None)),
        }
    }
    flush(&mut current, &mut out);
    out
}

/// Cuts super-frames; singles stay as they are.
fn cut(frames: &[(Vec<u8>, Option<SuperFrame>)]) -> Vec<Vec<u8>> {
    let mut out = Vec::new();
    for (octets, frame) in frames {
        let Some(frame) = frame else {
            out.push(octets.clone());
            continue;
        };
        assert!(parse_ip(octets).is_ok(), "a super-frame is a sound packet");
        let at = usize::from(frame.header_len);
        let l4 = usize::from(frame.checksum_start);
        let cut =
            Cut::new(octets, frame.kind, l4, usize::from(frame.size), octets.len() - at, frame.fixed_ident)
                .unwrap();
        assert_eq!(cut.segments(), usize::from(frame.segments));
        for index in 0..cut.segments() {
            let mut segment = vec![0; cut.segment_len(index)];
            cut.write_segment(index, &octets[at..], &mut segment).unwrap();
            out.push(segment);
        }
    }
    out
}

/// One change to a packet of a stream, which may or may not keep it mergeable.
#[derive(Debug, Clone, Copy)]
enum Twist {
    None,
    Shorter(u16),
    Octet(usize, u8),
    Flags(u8),
    Ident(u16),
    Tos(u8),
    Ack(u32),
    WrongChecksum,
}

fn twist() -> impl Strategy<Value = Twist> {
    prop_oneof![
        12 => Just(Twist::None),
        1 => (1_u16..100).prop_map(Twist::Shorter),
        1 => (0_usize..60, any::<u8>()).prop_map(|(at, v)| Twist::Octet(at, v)),
        1 => any::<u8>().prop_map(Twist::Flags),
        1 => any::<u16>().prop_map(Twist::Ident),
        1 => any::<u8>().prop_map(Twist::Tos),
        1 => any::<u32>().prop_map(Twist::Ack),
        1 => Just(Twist::WrongChecksum),
    ]
}

#[derive(Debug, Clone)]
struct Stream {
    kind: Kind,
    size: usize,
    counting: bool,
    df: bool,
    ident: u16,
    seq: u32,
    timestamps: bool,
    twists: Vec<Twist>,
}

fn stream() -> impl Strategy<Value = Stream> {
    let kind = prop_oneof![Just(Kind::Tcp4), Just(Kind::Tcp6), Just(Kind::Udp4), Just(Kind::Udp6)];
    let parts = (kind, 1_usize..300, any::<bool>(), any::<bool>(), any::<u16>(), any::<u32>(), any::<bool>());
    (parts, prop::collection::vec(twist(), 1..90)).prop_map(|(p, twists)| Stream {
        kind: p.0,
        size: p.1,
        counting: p.2,
        df: p.3,
        ident: p.4,
        seq: p.5,
        timestamps: p.6,
        twists,
    })
}

impl Stream {
    fn packets(&self) -> Vec<Vec<u8>> {
        let mut seq = self.seq;
        let mut all = Vec::new();
        for (index, &twist) in self.twists.iter().enumerate() {
            let len = if let Twist::Shorter(by) = twist {
                self.size.saturating_sub(usize::from(by))
            } else {
                self.size
            };
            let payload: Vec<u8> = (0..len).map(|i| (i * 31 + index * 7) as u8).collect();
            all.push(self.packet(index, seq, twist, &payload));
            seq = seq.wrapping_add(len as u32);
        }
        all
    }

    fn packet(&self, index: usize, seq: u32, twist: Twist, payload: &[u8]) -> Vec<u8> {
        let mut tcp = tcp::Repr {
            src_port: 1,
            dst_port: 2,
            seq,
            ack: 5,
            flags: Flags::ACK,
            window: 9,
            ..Default::default()
        };
        let udp = udp::Repr { src_port: 1, dst_port: 2 };
        if self.timestamps {
            tcp.timestamps = Some((3, 4));
        }
        let step = if self.counting { index as u16 } else { 0 };
        let mut v4 = ipv4::Repr {
            src: Ipv4Addr::new(10, 0, 0, 1),
            dst: Ipv4Addr::new(10, 0, 0, 2),
            ident: self.ident.wrapping_add(step),
            frag: if self.df { ipv4::DF } else { 0 },
            ..Default::default()
        };
        let mut v6 =
            ipv6::Repr { src: Ipv6Addr::from_bits(1), dst: Ipv6Addr::from_bits(2), ..Default::default() };
        match twist {
            Twist::Flags(flags) => tcp.flags = Flags(flags),
            Twist::Ident(ident) => v4.ident = ident,
            Twist::Tos(tos) => (v4.tos, v6.traffic_class) = (tos, tos),
            Twist::Ack(ack) => tcp.ack = ack,
            _ => {}
        }
        let mut packet = match self.kind {
            Kind::Tcp4 => build::tcp4_with(v4, &tcp, payload),
            Kind::Tcp6 => build::tcp6_with(v6, &tcp, payload),
            Kind::Udp4 => build::udp4_with(v4, &udp, payload),
            Kind::Udp6 => build::udp6_with(v6, &udp, payload),
        };
        match twist {
            Twist::WrongChecksum => *packet.last_mut().unwrap() ^= 1,
            Twist::Octet(at, value) => return self.change(packet, at, value),
            _ => {}
        }
        packet
    }

    /// Changes any octet and makes the checksums right again, so that only the header rules can tell.
    fn change(&self, packet: Vec<u8>, at: usize, value: u8) -> Vec<u8> {
        let mut changed = packet.clone();
        let at = at % changed.len();
        changed[at] = value;
        if !self.kind.is_v6() && changed[0] == 0x45 {
            ipv4::Packet::new_unchecked(&mut changed[..]).fill_checksum();
        }
        let Ok(parsed) = parse_ip(&changed) else {
            return packet;
        };
        let (l4, end) = (usize::from(parsed.l4), parsed.end as usize);
        // A protocol without checksum, or a transport too short for one, stays as it is.
        let _ = checksum::transport_fill(&mut changed, l4, end, parsed.proto);
        // What a length field cut off is padding, which nobody keeps.
        changed.truncate(end);
        changed
    }
}

fn config() -> ProptestConfig {
    let cases = if std::env::var_os("SOFTNET_SOAK").is_some() { 200_000 } else { 1500 };
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn what_is_merged_comes_out_of_the_cutter_as_it_went_in(stream in stream(), fixed_ident: bool) {
        let packets = stream.packets();
        let merged = coalesce(&packets, fixed_ident);
        prop_assert_eq!(cut(&merged), packets);
    }

    #[test]
    fn a_stream_without_twists_becomes_as_few_super_frames_as_the_rules_allow(mut stream in stream()) {
        stream.twists.fill(Twist::None);
        stream.df = true;
        let merged = coalesce(&stream.packets(), true);
        let expected = if stream.kind.is_tcp() { 1 } else { stream.twists.len().div_ceil(64) };
        prop_assert_eq!(merged.len(), expected);
    }
}

#[test]
fn a_super_frame_has_the_headers_a_device_expects() {
    let stream = Stream {
        kind: Kind::Tcp4,
        size: 1448,
        counting: true,
        df: true,
        ident: 7,
        seq: 1,
        timestamps: true,
        twists: vec![Twist::None, Twist::None, Twist::Flags((Flags::ACK | Flags::PSH).0), Twist::None],
    };
    let merged = coalesce(&stream.packets(), false);
    assert_eq!(merged.len(), 2, "a push ends it");
    let (octets, frame) = &merged[0];
    let frame = frame.unwrap();
    assert_eq!((frame.kind, frame.size, frame.segments, frame.header_len), (Kind::Tcp4, 1448, 3, 52));
    assert_eq!((frame.checksum_start, frame.checksum_offset, frame.fixed_ident), (20, 16, false));
    assert_eq!(octets.len(), 52 + 3 * 1448);
    // The device finishes the checksum: then the super-frame verifies as one packet.
    let mut finished = octets.clone();
    checksum::finish_partial(&mut finished, 20, 16).unwrap();
    assert!(checksum::transport_ok(&finished, 20, finished.len(), wire::IpProto::TCP));
    let packet = tcp::Packet::new_checked(&finished[20..]).unwrap();
    assert_eq!(packet.flags(), Flags::ACK | Flags::PSH);
}

#[test]
fn packets_with_one_identification_merge_only_with_df_and_when_it_can_be_restored() {
    let stream = |df| Stream {
        kind: Kind::Udp4,
        size: 100,
        counting: false,
        df,
        ident: 0,
        seq: 0,
        timestamps: false,
        twists: vec![Twist::None; 4],
    };
    assert_eq!(coalesce(&stream(true).packets(), true).len(), 1);
    assert!(coalesce(&stream(true).packets(), true)[0].1.unwrap().fixed_ident);
    assert_eq!(coalesce(&stream(true).packets(), false).len(), 4);
    assert_eq!(coalesce(&stream(false).packets(), true).len(), 4);
}

#[test]
fn a_wrong_checksum_goes_its_way_alone_and_unchanged() {
    for wrong in 0..4 {
        let mut twists = vec![Twist::None; 4];
        twists[wrong] = Twist::WrongChecksum;
        let stream = Stream {
            kind: Kind::Tcp6,
            size: 50,
            counting: true,
            df: true,
            ident: 0,
            seq: 0,
            timestamps: false,
            twists,
        };
        let packets = stream.packets();
        let merged = coalesce(&packets, true);
        assert!(
            merged.iter().any(|(octets, frame)| frame.is_none() && *octets == packets[wrong]),
            "packet {wrong}"
        );
        assert_eq!(cut(&merged), packets);
    }
}
