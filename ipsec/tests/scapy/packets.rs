//! Packets of many kinds, with all headers that AH must know about, and what routers do to them.

use kern::testing::Chance;
use std::net::IpAddr;
use wire::{IpProto, build, checksum, sctp, tcp};

const RECORD_ROUTE: u8 = 7;
const TIMESTAMP: u8 = 68;
const SOURCE_ROUTES: [u8; 2] = [131, 137];
/// Options of IPv6 that nobody knows: to be skipped, and of the second kind routers change what they say.
const UNKNOWN: [u8; 2] = [0x1e, 0x3e];

/// Which headers stand in front of what is protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Front {
    /// No options, no extension headers.
    Bare,
    /// Any. A source route or routing header has no stops left.
    Any,
    /// Any, and a route has stops left.
    Stops,
}

/// IP headers and what is in them.
pub(crate) fn packet(
    chance: &mut Chance,
    ends: [IpAddr; 2],
    front: Front,
    next: u8,
    payload: &[u8],
) -> Vec<u8> {
    let class = chance.next() as u8 & 0xfc;
    let ttl = 1 + chance.below(255u8);
    match ends {
        [IpAddr::V4(src), IpAddr::V4(dst)] => {
            let options = if front == Front::Bare { vec![] } else { options4(chance, front == Front::Stops) };
            let (words, total) =
                ((20 + options.len()) as u8 / 4, (20 + options.len() + payload.len()) as u16);
            let mut packet = vec![0x40 | words, class];
            packet.extend(total.to_be_bytes());
            packet.extend([chance.next() as u8, chance.next() as u8, 0, 0, ttl, next, 0, 0]);
            packet.extend(src.octets());
            packet.extend(dst.octets());
            packet.extend(&options);
            packet.extend(payload);
            settle(&mut packet);
            packet
        }
        [IpAddr::V6(src), IpAddr::V6(dst)] => {
            let mut headers = if front == Front::Bare {
                vec![]
            } else {
                headers6(
                    chance,
                    front == Front::Stops,
                    [IpProto::IPV4, IpProto::IPV6].contains(&IpProto(next)),
                )
            };
            let kinds: Vec<u8> = headers.iter().map(|(kind, _)| *kind).chain([next]).collect();
            for ((_, header), next) in headers.iter_mut().zip(&kinds[1..]) {
                header[0] = *next;
            }
            let front: Vec<u8> = headers.into_iter().flat_map(|(_, header)| header).collect();
            let mut packet = vec![0x60 | class >> 4, class << 4];
            packet.extend([chance.next() as u8, chance.next() as u8]);
            packet.extend(((front.len() + payload.len()) as u16).to_be_bytes());
            packet.extend([kinds[0], ttl]);
            packet.extend(src.octets());
            packet.extend(dst.octets());
            packet.extend(&front);
            packet.extend(payload);
            packet
        }
        _ => unreachable!("both ends are of one family"),
    }
}

/// Protocol and content of what is in a packet between these.
pub(crate) fn upper(chance: &mut Chance, ends: [IpAddr; 2]) -> (u8, Vec<u8>) {
    let len = if chance.is(4) { chance.below(8) } else { chance.below(1200) };
    let octets = chance.octets(len);
    let (a, b) = (chance.next() as u16, chance.next() as u16);
    let whole = match (ends, chance.below(5)) {
        (_, 0) => return (253, octets),
        ([IpAddr::V4(src), IpAddr::V4(dst)], 1) => build::udp4(src, dst, a, 1 + b % 4000, &octets),
        ([IpAddr::V6(src), IpAddr::V6(dst)], 1) => build::udp6(src, dst, a, 1 + b % 4000, &octets),
        ([IpAddr::V4(src), IpAddr::V4(dst)], 2) => build::tcp4(src, dst, &segment(chance, a, b), &octets),
        ([IpAddr::V6(src), IpAddr::V6(dst)], 2) => build::tcp6(src, dst, &segment(chance, a, b), &octets),
        ([IpAddr::V4(src), IpAddr::V4(dst)], 3) => build::echo4(src, dst, a, b, &octets),
        ([IpAddr::V6(src), IpAddr::V6(dst)], 3) => build::echo6(src, dst, a, b, &octets),
        ([IpAddr::V4(src), IpAddr::V4(dst)], _) => {
            build::sctp4(src, dst, &association(a, b), &chunk(&octets))
        }
        ([IpAddr::V6(src), IpAddr::V6(dst)], _) => {
            build::sctp6(src, dst, &association(a, b), &chunk(&octets))
        }
        _ => unreachable!("both ends are of one family"),
    };
    let (next, at) = if whole[0] >> 4 == 4 { (whole[9], 20) } else { (whole[6], 40) };
    (next, whole[at..].to_vec())
}

/// One of several pieces of a packet, not the first.
pub(crate) fn piece(chance: &mut Chance, ends: [IpAddr; 2]) -> Vec<u8> {
    let len = 8 + chance.below(600);
    let octets = chance.octets(len);
    let offset = 1 + chance.below(100u16);
    if ends[0].is_ipv4() {
        let mut packet = packet(chance, ends, Front::Any, 17, &octets);
        packet[6..8].copy_from_slice(&offset.to_be_bytes());
        settle(&mut packet);
        return packet;
    }
    let header = [&[17, 0][..], &(offset << 3).to_be_bytes(), &chance.octets(4), &octets].concat();
    packet(chance, ends, Front::Bare, 44, &header)
}

fn segment(chance: &mut Chance, src_port: u16, dst_port: u16) -> tcp::Repr {
    tcp::Repr { src_port, dst_port, seq: chance.next() as u32, ..Default::default() }
}

fn association(src_port: u16, dst_port: u16) -> sctp::Repr {
    sctp::Repr { src_port, dst_port, ..Default::default() }
}

fn chunk(octets: &[u8]) -> Vec<u8> {
    build::sctp_chunk(0, 3, octets)
}

fn options4(chance: &mut Chance, stops: bool) -> Vec<u8> {
    let mut options = vec![];
    for _ in 0..=chance.below(3) {
        let slots = 1 + chance.below(2u8);
        let len = 3 + 4 * slots;
        let option = match chance.below(6) {
            0 => vec![1],
            1 => vec![148, 4, 0, 0],
            2 => [&[RECORD_ROUTE, len, 4][..], &vec![0; 4 * usize::from(slots)]].concat(),
            // With room for one: scapy takes more for further options.
            3 => vec![TIMESTAMP, 8, 5, 0, 0, 0, 0, 0],
            // RFC 1108, 2: its length is 11 with the fields of old.
            4 => [&[130, 11][..], &chance.octets(9)].concat(),
            _ => {
                let pointer = if stops { 4 } else { len + 1 };
                let kind = chance.one_of(&SOURCE_ROUTES);
                [&[kind, len, pointer][..], &chance.octets(4 * usize::from(slots))].concat()
            }
        };
        let is_second_route = SOURCE_ROUTES.contains(&option[0]) && has_route(&options);
        if options.len() + option.len() <= 40 && !is_second_route {
            options.extend(option);
        }
    }
    options.resize(options.len().next_multiple_of(4), 0);
    options
}

fn has_route(options: &[u8]) -> bool {
    let mut found = false;
    each_option4(&mut options.to_vec(), |option| found |= SOURCE_ROUTES.contains(&option[0]));
    found
}

/// Extension headers and the numbers of their kinds; what follows one is filled in later.
fn headers6(chance: &mut Chance, stops: bool, tunnel: bool) -> Vec<(u8, Vec<u8>)> {
    let mut headers = vec![];
    if chance.is(2) {
        headers.push((IpProto::HOPOPTS.0, options6(chance)));
    }
    if stops || chance.is(2) {
        if chance.is(2) {
            headers.push((IpProto::DSTOPTS.0, options6(chance)));
        }
        let count = 1 + chance.below(3u8);
        let left = if stops { count } else { 0 };
        let header =
            [&[0, 2 * count, 0, left, 0, 0, 0, 0][..], &chance.octets(16 * usize::from(count))].concat();
        headers.push((IpProto::ROUTING.0, header));
    }
    // Behind a routing header they are for the end alone, and a tunnel's end looks for a packet there.
    if headers.is_empty() || (!tunnel && chance.is(2)) {
        headers.push((IpProto::DSTOPTS.0, options6(chance)));
    }
    headers
}

fn options6(chance: &mut Chance) -> Vec<u8> {
    let mut header = vec![0, 0];
    // Router alert wants an even place (RFC 2711, 2.1), and scapy moves it to one.
    if chance.is(2) {
        header.extend([5, 2, 0, 0]);
    }
    for _ in 0..chance.below(3) {
        let len = chance.below(12u8);
        header.extend([chance.one_of(&UNKNOWN), len]);
        header.extend(chance.octets(len.into()));
    }
    match header.len().next_multiple_of(8) - header.len() {
        0 => {}
        1 => header.push(0),
        n => {
            header.extend([1, n as u8 - 2]);
            header.resize(header.len() + n - 2, 0);
        }
    }
    header[1] = (header.len() / 8 - 1) as u8;
    header
}

/// What routers on the way to the destination do to a packet, and what of it AH must not cover.
pub(crate) fn travel(packet: &mut [u8], chance: &mut Chance) {
    let (class, ttl) = (chance.next() as u8 & 0xfc, 1 + chance.below(255u8));
    if packet[0] >> 4 == 4 {
        packet[1] = class | packet[1] & 3;
        packet[6] |= (chance.next() as u8 & 1) << 6;
        packet[8] = ttl;
        let end = usize::from(packet[0] & 15) * 4;
        let (header, options) = packet[..end].split_at_mut(20);
        each_option4(options, |option| pass4(option, header, chance));
        settle(packet);
        return;
    }
    packet[0] = 0x60 | class >> 4;
    packet[1] = class << 4 | packet[1] & 0x30 | chance.next() as u8 & 0x0f;
    packet[2..4].copy_from_slice(&chance.octets(2));
    packet[7] = ttl;
    let (mut next, mut at) = (packet[6], 40);
    while let IpProto::HOPOPTS | IpProto::DSTOPTS | IpProto::ROUTING = IpProto(next) {
        let len = 8 + 8 * usize::from(packet[at + 1]);
        let (header, rest) = packet.split_at_mut(at);
        match IpProto(next) {
            IpProto::ROUTING => stop_at_all(&mut rest[..len], header),
            // For the end of the way alone; AH may stand in front of it as well as behind.
            IpProto::DSTOPTS if IpProto(rest[0]) != IpProto::ROUTING => {}
            _ => change_options6(&mut rest[2..len], chance),
        }
        (next, at) = (rest[0], at + len);
    }
}

/// A router's entry in a record route or timestamp option; all stops of a source route.
fn pass4(option: &mut [u8], header: &mut [u8], chance: &mut Chance) {
    let (kind, len) = (option[0], option.len());
    let route = SOURCE_ROUTES.contains(&kind);
    while (route || kind == RECORD_ROUTE || kind == TIMESTAMP) && usize::from(option[2]) + 3 <= len {
        let at = usize::from(option[2]) - 1;
        if route {
            header[16..20].copy_from_slice(&option[at..at + 4]);
        }
        option[at..at + 4].copy_from_slice(&chance.octets(4));
        option[2] += 4;
    }
}

fn each_option4(mut options: &mut [u8], mut then: impl FnMut(&mut [u8])) {
    while let Some(kind) = options.first() {
        let len = match kind {
            0 => return,
            1 => 1,
            _ => usize::from(options[1]),
        };
        let (option, rest) = options.split_at_mut(len);
        then(option);
        options = rest;
    }
}

/// What the stops of a routing header do (RFC 2460, 4.4): each puts itself where the next destination was.
fn stop_at_all(routing: &mut [u8], header: &mut [u8]) {
    let count = usize::from(routing[1]) / 2;
    while routing[3] > 0 {
        let at = 8 + 16 * (count - usize::from(routing[3]));
        header[24..40].swap_with_slice(&mut routing[at..at + 16]);
        routing[3] -= 1;
    }
}

fn change_options6(mut options: &mut [u8], chance: &mut Chance) {
    while let Some(kind) = options.first() {
        let len = if *kind == 0 { 1 } else { 2 + usize::from(options[1]) };
        let (option, rest) = options.split_at_mut(len);
        if option[0] == UNKNOWN[1] {
            let octets = chance.octets(len - 2);
            option[2..].copy_from_slice(&octets);
        }
        options = rest;
    }
}

/// Makes the checksum of an IPv4 header right.
fn settle(packet: &mut [u8]) {
    let end = usize::from(packet[0] & 15) * 4;
    packet[10..12].fill(0);
    let sum = checksum::finish(checksum::sum(&packet[..end]));
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
}
