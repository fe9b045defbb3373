//! Sound packets of every kind, to be damaged.

use std::net::IpAddr;

use kern::testing::Chance;
use pf::{Direction, IfIndex};
use wire::{IpProto, ipv4, ipv6_ext::Fragment, parse::parse_ip, sctp::kind, tcp};

use crate::{
    common::{
        IN, LAN, OUT, WAN,
        association::{Association, CLIENT_TAG, SERVER_TAG, asconf},
        either::{Party, echo, echo_reply, raw, tcp, udp, unreachable},
        header,
    },
    damage::mend,
};

/// A packet, and where it is seen.
#[derive(Clone, Debug)]
pub(crate) struct Seed {
    pub(crate) direction: Direction,
    pub(crate) index: IfIndex,
    pub(crate) octets: Vec<u8>,
}

/// Out of the LAN, and back from the WAN.
fn up(octets: Vec<u8>) -> Seed {
    Seed { direction: IN, index: LAN, octets }
}

fn down(octets: Vec<u8>) -> Seed {
    Seed { direction: OUT, index: LAN, octets }
}

fn from_wan(octets: Vec<u8>) -> Seed {
    Seed { direction: IN, index: WAN, octets }
}

pub(crate) fn seeds(party: Party) -> Vec<Seed> {
    let Party { client, server, outside, router, .. } = party;
    let mut all = Vec::new();
    all.extend(segments(party));
    all.extend(associations(party));
    all.extend(extensions(party));
    let (ask, answer) = (party.ask(4000), party.answer(4000));
    all.extend([
        up(ask.clone()),
        up(ask.clone()),
        down(answer),
        up(udp(client, server, 4001, 54, &[1; 1200])),
    ]);
    all.extend([up(echo(client, server, 77)), down(echo_reply(server, client, 77))]);
    all.extend([from_wan(udp(server, outside, 9, 55, b"unasked")), from_wan(echo(server, outside, 3))]);
    // Errors about live flows, about those of nobody, and about errors.
    let syn = party.up(4000, "S", (1000, 0), 1000, 0);
    for about in [&ask, &syn, &echo(client, server, 77)] {
        let error = unreachable(router, client, about);
        all.push(down(error.clone()));
        all.push(from_wan(unreachable(router, client, &error)));
    }
    all.push(up(raw(client, server, IpProto::GRE, &[0; 24])));
    all.push(up(raw(client, server, IpProto::ESP, &[7; 64])));
    if party.is6() {
        let nat64: IpAddr = "64:ff9b::c633:6401".parse().unwrap();
        all.push(up(udp(client, nat64, 4000, 53, b"question")));
        all.push(up(tcp(client, nat64, &header(4000, 80, "S", 1, 0, 1000), b"")));
        all.push(up(echo(client, nat64, 77)));
        // Solicitation, advertisement; MLD is among the extensions.
        for kind in [135, 136] {
            all.push(up(mended(raw(client, router, IpProto::ICMPV6, &[&[kind; 1][..], &[0; 23]].concat()))));
        }
    }
    all
}

fn mended(mut octets: Vec<u8>) -> Vec<u8> {
    mend(&mut octets);
    octets
}

/// A connection from its SYN to its RST, with options.
fn segments(party: Party) -> Vec<Seed> {
    let Party { client, server, .. } = party;
    let options = |mut repr: tcp::Repr| {
        repr.timestamps = Some((1000, 2000));
        if repr.flags.0 & 2 != 0 {
            repr.max_segment_size = Some(1460);
            repr.window_scale = Some(7);
            repr.sack_permitted = true;
        } else {
            repr.sack = [Some((5101, 5201)), None, None, None];
        }
        repr
    };
    let mut all = Vec::new();
    for port in [4000, 4001] {
        let to = |flags, seq, ack, data: &[u8]| {
            let plain = header(port, 80, flags, seq, ack, 1000);
            let repr = if port == 4000 { plain } else { options(plain) };
            up(tcp(client, server, &repr, data))
        };
        let from = |flags, seq, ack, data: &[u8]| {
            let plain = header(80, port, flags, seq, ack, 1000);
            let repr = if port == 4000 { plain } else { options(plain) };
            down(tcp(server, client, &repr, data))
        };
        all.extend([
            to("S", 1000, 0, b""),
            from("SA", 5000, 1001, b""),
            to("A", 1001, 5001, b""),
            to("PA", 1001, 5001, &[7; 600]),
            from("A", 5001, 1601, &[8; 600]),
            to("FA", 1601, 5601, b""),
            from("FA", 5601, 1602, b""),
            to("R", 1602, 0, b""),
        ]);
    }
    all
}

fn associations(party: Party) -> Vec<Seed> {
    let a = Association::new(party.client, party.server);
    let others = [party.neighbour, party.client];
    let changes = [(true, party.neighbour), (false, party.client)];
    vec![
        up(a.init(&others)),
        down(a.init_ack(&[])),
        up(a.says(kind::COOKIE_ECHO)),
        down(a.answers(kind::COOKIE_ACK)),
        up(a.says(kind::DATA)),
        down(a.answers(kind::DATA)),
        up(a.up(SERVER_TAG, &asconf(party.client, &changes))),
        down(a.down(CLIENT_TAG, &asconf(party.server, &[(true, party.router)]))),
        up(a.says(kind::HEARTBEAT)),
        up(a.says(kind::SHUTDOWN)),
        down(a.answers(kind::ABORT)),
    ]
}

/// Fragments, options, and chains of extension headers.
fn extensions(party: Party) -> Vec<Seed> {
    let whole = udp(party.client, party.server, 4000, 53, &[3; 600]);
    let body = &whole[party.l4()..];
    if !party.is6() {
        let with_options = |proto: u8, options: &[u8], body: &[u8]| {
            let mut packet = [&whole[..20], options, body].concat();
            packet[0] = 0x45 + (options.len() / 4) as u8;
            packet[9] = proto;
            up(mended(packet))
        };
        let fragment = |word: u16, body: &[u8]| {
            let mut packet = [&whole[..20], body].concat();
            packet[6..8].copy_from_slice(&word.to_be_bytes());
            up(mended(packet))
        };
        // In units of 8 octets.
        let second = 304 / 8;
        return vec![
            fragment(ipv4::MF, &body[..304]),
            fragment(second, &body[304..]),
            fragment(ipv4::MF | second, &body[304..600]),
            with_options(17, &[148, 4, 0, 0], body),
            with_options(17, &[7, 7, 4, 0, 0, 0, 0, 0], body),
            with_options(2, &[148, 4, 0, 0], &[0x16, 0, 0, 0, 224, 0, 0, 9]),
        ];
    }
    let fragment = |offset, more, body: &[u8]| {
        let header = Fragment { at: 40, announced_at: 6, next_header: IpProto::UDP, offset, more, ident: 9 };
        up(raw(party.client, party.server, IpProto::FRAGMENT, &[&header.octets(), body].concat()))
    };
    let chain = |first: u8, headers: &[&[u8]], body: &[u8]| {
        let payload = [&headers.concat()[..], body].concat();
        up(mended(raw(party.client, party.server, IpProto(first), &payload)))
    };
    let padding = [1, 4, 0, 0, 0, 0];
    let mld = [&[131][..], &[0; 23]].concat();
    vec![
        fragment(0, true, &body[..304]),
        fragment(304, false, &body[304..]),
        fragment(304, true, &body[304..600]),
        chain(0, &[&[17, 0], &padding], body),
        chain(0, &[&[58, 0, 5, 2, 0, 0, 1, 0]], &mld),
        chain(0, &[&[60, 0], &padding, &[43, 0], &padding, &[17, 0, 253, 0, 0, 0, 0, 0]], body),
        chain(60, &[&[60, 0], &padding, &[60, 0], &padding, &[17, 0], &padding], body),
        chain(43, &[&[6, 0, 253, 1, 0, 0, 0, 0]], &party.up(4000, "S", (1, 0), 100, 0)[40..]),
    ]
}

/// What comes back about a packet that has left by the WAN: an answer, or an error of a router on the way.
pub(crate) fn back(about: &[u8], chance: &mut Chance) -> Seed {
    let answer = mirror(about).unwrap_or_else(|| about.to_vec());
    let Ok(p) = parse_ip(about) else { return from_wan(answer) };
    let flow = p.flow(about);
    let octets = match chance.below(3) {
        0 => unreachable(flow.dst(), flow.src(), about),
        _ => answer,
    };
    from_wan(octets)
}

/// A packet the other way: addresses and ports are exchanged, a SYN is answered, and so is an echo request.
pub(crate) fn mirror(octets: &[u8]) -> Option<Vec<u8>> {
    let p = parse_ip(octets).ok().filter(|p| !p.is_fragment())?;
    let mut back = octets.to_vec();
    let (at, len) = if octets[0] >> 4 == 6 { (8, 16) } else { (12, 4) };
    let (src, dst) = (&octets[at..at + len], &octets[at + len..at + 2 * len]);
    back[at..at + len].copy_from_slice(dst);
    back[at + len..at + 2 * len].copy_from_slice(src);
    let l4 = usize::from(p.l4);
    let body = octets.get(l4..).filter(|body| body.len() >= 8)?;
    match p.proto {
        IpProto::TCP | IpProto::UDP | IpProto::SCTP => {
            back[l4..l4 + 2].copy_from_slice(&body[2..4]);
            back[l4 + 2..l4 + 4].copy_from_slice(&body[..2]);
            if p.proto == IpProto::TCP && body.len() >= 20 {
                let seq = u32::from_be_bytes([body[4], body[5], body[6], body[7]]);
                let syn = body[13] & 2 != 0;
                back[l4 + 4..l4 + 8].copy_from_slice(&body[8..12]);
                back[l4 + 8..l4 + 12].copy_from_slice(&seq.wrapping_add(u32::from(syn)).to_be_bytes());
                back[l4 + 13] = body[13] | 0x10;
            }
        }
        IpProto::ICMP if body[0] == 8 => back[l4] = 0,
        IpProto::ICMPV6 if body[0] == 128 => back[l4] = 129,
        _ => {}
    }
    mend(&mut back);
    Some(back)
}
