//! Policies for some ports, protocols and types only, beside which the rest goes in clear: fragments and super-frames must not take what is
//! protected out of its policy.
//!
//! Which of the two a packet is its payload says, every octet of it, so that each piece of it tells.

use super::{
    bed::{Bed, Datagram, HOST4, HOST6, Seen, Shape, classify},
    together::{Case, ordeal},
};
use kern::testing::{Chance, soak};
use std::fmt::Write;
use wire::{IpProto, build, ipv4, ipv6, ipv6_ext::Fragment, tcp};

/// What the payload of packets is made of that a policy is for,
const SECRET: u8 = 0xa5;
/// of others,
const PUBLIC: u8 = 0x3c;
/// and of those that somebody on the wire has made up, who has no keys.
const FORGED: u8 = 0xf0;

/// Datagrams to port 2000, all of TCP, and echo requests of IPv6.
fn narrow(side: usize) -> String {
    let mut text = String::new();
    let nets = [["192.0.2.0/24", "198.51.100.0/24"], ["2001:db8:a::/64", "2001:db8:b::/64"]];
    let ends = [["203.0.113.1", "203.0.113.2"], ["2001:db8:ffff::1", "2001:db8:ffff::2"]];
    for (nets, ends) in nets.into_iter().zip(ends) {
        for (from, way) in [(side, "out"), (1 - side, "in")] {
            let (src, dst, a, b) = (nets[from], nets[1 - from], ends[from], ends[1 - from]);
            let all = [("", "", "udp"), ("", "", "tcp"), ("", "", "icmp6 128,0")];
            let ports = ["[any]", "[2000]"];
            for (at, (mut src_port, mut dst_port, upper)) in all.into_iter().enumerate() {
                if at == 0 {
                    [src_port, dst_port] = ports;
                }
                if at < 2 || src.contains(':') {
                    let policy = format!("spdadd {src}{src_port} {dst}{dst_port} {upper} -P {way}");
                    writeln!(text, "{policy} ipsec esp/tunnel/{a}-{b}/require;").unwrap();
                }
            }
        }
    }
    text
}

/// A packet of IPv4 in pieces of at most so many octets of payload.
fn cut4(packet: &[u8], size: usize) -> Vec<Vec<u8>> {
    let (header, payload) = packet.split_at(ipv4::HEADER_LEN);
    let pieces = payload.chunks(size).enumerate();
    let last = payload.len().div_ceil(size) - 1;
    pieces
        .map(|(at, part)| {
            let mut piece = [header, part].concat();
            let mut view = ipv4::Packet::new_unchecked(&mut piece[..]);
            view.set_total_len((header.len() + part.len()) as u16);
            view.set_frag((at * size / 8) as u16 | if at < last { ipv4::MF } else { 0 });
            view.fill_checksum();
            piece
        })
        .collect()
}

/// A packet of IPv6 in pieces, if wanted with destination options in front of the upper layer.
fn cut6(packet: &[u8], size: usize, ident: u32, options: bool) -> Vec<Vec<u8>> {
    let (header, upper) = packet.split_at(ipv6::HEADER_LEN);
    let proto = IpProto(header[6]);
    let pad_n = [proto.0, 0, 1, 4, 0, 0, 0, 0];
    let (begins_with, payload) =
        if options { (IpProto::DSTOPTS, [&pad_n, upper].concat()) } else { (proto, upper.to_vec()) };
    let pieces = payload.chunks(size).enumerate();
    let last = payload.len().div_ceil(size) - 1;
    pieces
        .map(|(at, part)| {
            let offset = (at * size) as u16;
            let fragment = Fragment {
                at: 40,
                announced_at: 6,
                next_header: begins_with,
                offset,
                more: at < last,
                ident,
            };
            let mut piece = [header, &fragment.octets(), part].concat();
            piece[4..6].copy_from_slice(&((8 + part.len()) as u16).to_be_bytes());
            piece[6] = IpProto::FRAGMENT.0;
            piece
        })
        .collect()
}

/// A packet to a port or of a kind that a policy is for, or to another; its payload says so, or that it is made up.
fn whole(chance: &mut Chance, from: usize, forged: bool) -> (Vec<u8>, bool) {
    let (v6, secret) = (chance.is(2), forged || chance.is(2));
    let fill = if forged { FORGED } else { [PUBLIC, SECRET][usize::from(secret)] };
    let len = chance.one_of(&[8, 64, 600, 1300, 1400, 1456, 2400, 4000]);
    let port = if secret { 2000 } else { 2001 + chance.below(2) as u16 };
    let (to, data) = (1 - from, vec![fill; len]);
    let datagram = Datagram {
        v6,
        from,
        ports: (1000 + chance.below(16) as u16, port),
        len,
        fill: Some(fill),
        ..Datagram::default()
    };
    let ports = tcp::Repr { src_port: 1000 + chance.below(16) as u16, dst_port: 80, ..tcp::Repr::default() };
    let packet = match (chance.below(3), v6, secret) {
        (0, false, true) => build::tcp4(HOST4[from], HOST4[to], &ports, &data),
        (0, true, true) => build::tcp6(HOST6[from], HOST6[to], &ports, &data),
        (0, false, false) => build::echo4(HOST4[from], HOST4[to], 7, 1, &data),
        (1, true, true) => build::echo6(HOST6[from], HOST6[to], 7, 1, &data),
        _ => datagram.packet(),
    };
    (packet, v6)
}

/// A packet as a link carries it: whole or, if it is larger or so it is wanted, in pieces, now and then with one missing or in another order.
fn pieces(chance: &mut Chance, from: usize, forged: bool) -> Vec<Vec<u8>> {
    let (mut packet, v6) = whole(chance, from, forged);
    if packet.len() <= 1500 && (packet.len() < 200 || chance.is(2)) {
        return vec![packet];
    }
    // What is made up may be taken for a piece of what is protected, and not for one of what anybody may change.
    let is_public = packet.last() == Some(&PUBLIC);
    let (size, ident) = (chance.one_of(&[64, 520, 1400]), chance.below(4) + 4 * usize::from(is_public));
    let mut pieces = if v6 {
        let options = chance.is(2);
        cut6(&packet, size, ident as u32, options)
    } else {
        packet[4..6].copy_from_slice(&(ident as u16).to_be_bytes());
        cut4(&packet, size)
    };
    if chance.is(4) {
        pieces.reverse();
    }
    if chance.is(4) {
        pieces.remove(chance.below(pieces.len()));
    }
    pieces
}

fn send(bed: &mut Bed, chance: &mut Chance, side: usize) {
    let queue = chance.below(bed.shape.workers);
    if chance.is(6) {
        let (secret, size) = (chance.is(2), chance.one_of(&[200, 1000, 1400, 1472]));
        let (port, fill) = if secret { (2000, SECRET) } else { (2001, PUBLIC) };
        let len = usize::from(size) * (2 + chance.below(20));
        let ports = (1000 + chance.below(16) as u16, port);
        let datagram = Datagram { from: side, ports, len, fill: Some(fill), ..Datagram::default() };
        return bed.send_whole(queue, datagram, size);
    }
    if chance.is(6) {
        return pieces(chance, side, true).iter().for_each(|piece| bed.forge(1 - side, piece));
    }
    // What finds no room on the wire is lost there.
    for piece in pieces(chance, side, false) {
        bed.send(side, queue, &piece);
    }
}

/// Whether four octets in a row are this one.
fn has(octets: &[u8], fill: u8) -> bool {
    octets.windows(4).any(|four| four == [fill; 4])
}

/// Whether a packet goes from one net to the other, as all do that hosts send and that is made up. Of one to port 2000 that has come
/// in, `rdr` on the WAN may make one within a net, which is for the rules to answer for: no policy is for that.
fn is_between_the_nets(p: &[u8]) -> bool {
    p[0] >> 4 == 6 || p[12..15] != p[16..19]
}

fn no_secret_in_clear(bed: &Bed) -> usize {
    let mut esp = 0;
    for frame in bed.on_the_wire() {
        let seen = classify(&frame);
        let is_secret = has(&frame, SECRET) && is_between_the_nets(&frame[14..]);
        assert!(seen != Seen::Clear || !is_secret, "in clear on the wire: {frame:02x?}");
        esp += usize::from(seen == Seen::Esp);
    }
    esp
}

const NARROW: Case = Case {
    policies: narrow,
    before_rules: "scrub in all fragment reassemble\n",
    send,
    nothing_in_clear: no_secret_in_clear,
    may_arrive: |packets| {
        let forged = packets.iter().find(|p| has(p, FORGED) && is_between_the_nets(p));
        assert!(forged.is_none(), "a packet that nobody has sealed: {forged:02x?}");
    },
};

#[test]
fn nothing_that_a_narrow_policy_protects_is_in_clear_in_pieces_or_in_super_frames_joined_or_not() {
    let mut chance = Chance::seeded(0x0ff5_e700);
    let rounds = if soak() { 10_000 } else { 120 };
    for before_rules in [NARROW.before_rules, ""] {
        for (workers, locking) in [(1, "fine"), (2, "fine"), (2, "giant")] {
            let shape = Shape { workers, locking, offload: true, ..Shape::default() };
            ordeal(&Case { before_rules, ..NARROW }, shape, rounds, &mut chance);
        }
    }
}
