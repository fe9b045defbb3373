//! Nanoseconds per call of what the packet path calls, beside etherparse and smoltcp on the same frames: `cargo bench -p wire`.
//!
//! Each round calls a parser on each of 64 frames of different flows, hot in the cache, and the least of several rounds counts: what a busy machine adds
//! is thereby mostly left out. etherparse slices and checks lengths, but does not verify the IPv4 header checksum; smoltcp does, with `new_checked` and
//! `Repr::parse` for IP and `new_checked` for the ports. Neither yields fragment facts, extension headers and a flow hash in the same pass.

#![allow(clippy::unwrap_used, reason = "a bench")]

use std::{
    hint::black_box,
    net::{Ipv4Addr, Ipv6Addr},
    time::Instant,
};

use etherparse::{SlicedPacket, TransportSlice};
use smoltcp::{phy::ChecksumCapabilities, wire as smol};
use wire::{
    HashSeed, Mac, build,
    checksum::{copy_and_sum, sum},
    coalesce::Merge,
    ipv4, ipv4_check, ipv6_check, parse_frame, parse_ipv4, parse_ipv6,
    segment::{Cut, Kind},
    tcp::{self, Flags},
};

const FRAMES: usize = 64;
const ROUNDS: usize = 25;

/// The least time a call takes, over rounds of many calls, in nanoseconds.
fn least(calls: usize, mut round: impl FnMut()) -> f64 {
    let mut best = f64::MAX;
    for _ in 0..ROUNDS {
        let start = Instant::now();
        round();
        best = best.min(start.elapsed().as_nanos() as f64 / calls as f64);
    }
    best
}

fn report(what: &str, name: &str, ns: f64) {
    println!("{what:<28} {name:<44} {ns:8.2} ns");
}

/// Measures `call` on each of the frames, from `at` on.
fn on_each<R>(what: &str, name: &str, frames: &[Vec<u8>], at: usize, mut call: impl FnMut(&[u8]) -> R) {
    const LAPS: usize = 400;
    let ns = least(LAPS * frames.len(), || {
        for _ in 0..LAPS {
            for frame in frames {
                black_box(call(black_box(&frame[at..])));
            }
        }
    });
    report(what, name, ns);
}

fn frames(make: impl Fn(u16) -> Vec<u8>) -> Vec<Vec<u8>> {
    let (dst, src) = (Mac([2, 0, 0, 0, 0, 1]), Mac([2, 0, 0, 0, 0, 2]));
    (0..FRAMES as u16).map(|i| build::frame(dst, src, &make(i))).collect()
}

fn etherparse_ports(frame: &[u8]) -> Option<(u16, u16)> {
    match SlicedPacket::from_ethernet(frame).ok()?.transport? {
        TransportSlice::Tcp(t) => Some((t.source_port(), t.destination_port())),
        TransportSlice::Udp(u) => Some((u.source_port(), u.destination_port())),
        _ => None,
    }
}

fn smoltcp_ports(frame: &[u8]) -> Option<(u16, u16)> {
    let ethernet = smol::EthernetFrame::new_checked(frame).ok()?;
    match ethernet.ethertype() {
        smol::EthernetProtocol::Ipv4 => {
            let ip = smol::Ipv4Packet::new_checked(ethernet.payload()).ok()?;
            let repr = smol::Ipv4Repr::parse(&ip, &ChecksumCapabilities::default()).ok()?;
            smoltcp_transport(repr.next_header, ip.payload())
        }
        smol::EthernetProtocol::Ipv6 => {
            let ip = smol::Ipv6Packet::new_checked(ethernet.payload()).ok()?;
            let repr = smol::Ipv6Repr::parse(&ip).ok()?;
            smoltcp_transport(repr.next_header, ip.payload())
        }
        _ => None,
    }
}

fn smoltcp_transport(proto: smol::IpProtocol, payload: &[u8]) -> Option<(u16, u16)> {
    match proto {
        smol::IpProtocol::Tcp => {
            let t = smol::TcpPacket::new_checked(payload).ok()?;
            Some((t.src_port(), t.dst_port()))
        }
        smol::IpProtocol::Udp => {
            let u = smol::UdpPacket::new_checked(payload).ok()?;
            Some((u.src_port(), u.dst_port()))
        }
        _ => None,
    }
}

fn whole_frames(what: &str, frames: &[Vec<u8>]) {
    let seed = HashSeed::new(1, 2);
    on_each(what, "wire::parse_frame, ports", frames, 0, |f| {
        let ip = parse_frame(f).ok()?.ip?;
        Some((ip.src_port, ip.dst_port))
    });
    on_each(what, "wire::parse_frame, ports and hash", frames, 0, |f| {
        let parsed = parse_frame(f).ok()?;
        let ip = parsed.ip?;
        Some((ip.src_port, ip.hash(&f[usize::from(parsed.link.l3)..], &seed)))
    });
    on_each(what, "etherparse, ports (no header checksum)", frames, 0, etherparse_ports);
    on_each(what, "smoltcp, ports", frames, 0, smoltcp_ports);
}

fn parsers() {
    let tcp =
        |i: u16| tcp::Repr { src_port: 1000 + i, dst_port: 443, flags: Flags::ACK, ..Default::default() };
    let v4 = |i: u16| (Ipv4Addr::new(10, 0, 0, i as u8), Ipv4Addr::new(192, 0, 2, 1));
    let v6 =
        |i: u16| (Ipv6Addr::from_bits(u128::from(i) << 8 | 1), Ipv6Addr::from_bits(0x2001_0db8 << 96 | 2));
    let udp4 = frames(|i| build::udp4(v4(i).0, v4(i).1, 1000 + i, 53, &[0; 18]));
    let tcp4 = frames(|i| build::tcp4(v4(i).0, v4(i).1, &tcp(i), &[0; 6]));
    let tcp6 = frames(|i| build::tcp6(v6(i).0, v6(i).1, &tcp(i), &[0; 6]));
    on_each("the loop itself", "length of the slice", &udp4, 14, <[u8]>::len);
    on_each("ipv4, 64-octet frame", "wire::ipv4_check", &udp4, 14, ipv4_check);
    on_each("ipv4, 64-octet frame", "wire::parse_ipv4, ports", &udp4, 14, |p| {
        parse_ipv4(p).map(|ip| (ip.src_port, ip.dst_port))
    });
    on_each("ipv4, 64-octet frame", "smoltcp Ipv4Repr::parse", &udp4, 14, |p| {
        let ip = smol::Ipv4Packet::new_checked(p).ok()?;
        smol::Ipv4Repr::parse(&ip, &ChecksumCapabilities::default()).map(|r| r.dst_addr).ok()
    });
    on_each("ipv4, 64-octet frame", "etherparse Ipv4Slice (no header checksum)", &udp4, 14, |p| {
        etherparse::Ipv4Slice::from_slice(p).map(|s| s.header().destination()).ok()
    });
    on_each("ipv6", "wire::ipv6_check", &tcp6, 14, ipv6_check);
    on_each("ipv6", "wire::parse_ipv6, ports", &tcp6, 14, |p| {
        parse_ipv6(p).map(|ip| (ip.src_port, ip.dst_port))
    });
    whole_frames("udp over ipv4, frame", &udp4);
    whole_frames("tcp over ipv4, frame", &tcp4);
    whole_frames("tcp over ipv6, frame", &tcp6);
    let mut packets: Vec<Vec<u8>> = udp4.iter().map(|f| f[14..].to_vec()).collect();
    let ns = least(200 * FRAMES, || {
        for _ in 0..200 {
            for packet in &mut packets {
                packet[8] = 64;
                black_box(ipv4::decrement_ttl(black_box(packet)));
            }
        }
    });
    report("ipv4", "wire::ipv4::decrement_ttl", ns);
}

fn checksums() {
    let octets: Vec<u8> = (0..65_536_u32).map(|i| (i % 251) as u8).collect();
    let mut to = vec![0; 65_536];
    for len in [20, 40, 64, 576, 1400, 9000, 65_536] {
        let what = format!("{len} octets");
        let each = |name: &str, call: &mut dyn FnMut(&[u8])| {
            let ns = least(4000, || (0..4000).for_each(|_| call(black_box(&octets[..len]))));
            report(&what, name, ns);
        };
        each("checksum::sum", &mut |from| {
            black_box(sum(from));
        });
        each("checksum::copy_and_sum", &mut |from| {
            black_box(copy_and_sum(black_box(&mut to), from));
        });
        each("copy alone", &mut |from| black_box(&mut to)[..len].copy_from_slice(from));
    }
}

/// Cuts a super-frame of 46 segments of 1,398 octets; then puts them together again.
fn super_frames() {
    let size = 1398;
    let tcp = tcp::Repr { seq: 1, ack: 1, flags: Flags::ACK, timestamps: Some((1, 2)), ..Default::default() };
    let header = ipv4::Repr { src: [10, 0, 0, 1].into(), dst: [10, 0, 0, 2].into(), ..Default::default() };
    let whole = build::tcp4_with(header, &tcp, &vec![0x5a; size * 46]);
    let (headers, payload) = whole.split_at(52);
    let cut = Cut::new(headers, Kind::Tcp4, 20, size, payload.len(), false).unwrap();
    let mut segments = vec![[0_u8; 2112]; cut.segments()];
    let ns = least(cut.segments() * 50, || {
        for _ in 0..50 {
            for (index, segment) in segments.iter_mut().enumerate() {
                black_box(cut.write_segment(index, black_box(payload), segment).unwrap());
            }
        }
    });
    report("1398-octet segments", "cut, copy, checksum", ns);
    let mut room = vec![0; 65_536];
    let ns = least(cut.segments() * 50, || {
        for _ in 0..50 {
            let first = &segments[0][..52 + size];
            room[..first.len()].copy_from_slice(first);
            let mut merge = Merge::start(first, &parse_ipv4(first).unwrap(), false, false).unwrap();
            for segment in &segments[1..] {
                let packet = black_box(&segment[..52 + size]);
                let parsed = parse_ipv4(packet).unwrap();
                let at = merge.len();
                let step = merge.next(&room[..at], packet, &parsed).unwrap();
                let sum = copy_and_sum(&mut room[at..], &packet[step.payload()]);
                assert!(merge.accept(&step, sum));
            }
            black_box(merge.finish(&mut room));
        }
    });
    report("1398-octet segments", "parse, coalesce, copy, verify", ns);
    let headers_only = least(20_000, || {
        let mut out = [0; 64];
        for index in 0..20_000 {
            black_box(cut.write_headers(black_box(index % 46), 77, &mut out).unwrap());
        }
    });
    report("1398-octet segments", "headers of one segment", headers_only);
}

fn main() {
    parsers();
    checksums();
    super_frames();
}
