//! Fragmentation (RFC 791, 3.2; RFC 8200, 4.5): a packet larger than the link, in pieces that fit.
//!
//! IPv4 packets are fragmented wherever they meet the small link, unless DF forbids it; IPv6 packets by their source only,
//! which is the router for what it sends itself. A fragment may be fragmented again. Pieces are buffers of their own; the
//! packet stays with the caller, who ends it as merged when [`Fragmented::Done`] comes back. At most `limit` pieces are made a
//! call, and `hdr.cursor` remembers how far it came, in units of eight octets.
//!
//! ```text
//!  IPv4:  | header, options      | payload ........................ |
//!         | header, all options  | n*8 |
//!         | header, copied options     | n*8 |  ...
//!
//!  IPv6:  | fixed header, per-hop headers | fragment header (put into the packet first) | payload ... |
//! ```
//!
//! Partial checksums and super-frames were finished and cut before: the caller knows what the device takes.

use crate::{entropy, worker::Cx};
use kern::{Class, Mbuf, Owner, PktFlags, Why, mbuf::HEADROOM};
use wire::{
    IpProto, ipv4, ipv6,
    ipv6_ext::{self, FRAGMENT_LEN, Fragment},
};

/// Octets of data that go into a cluster, with room left behind for a trailer.
const CLUSTER_ROOM: usize = Class::Cluster.capacity() - HEADROOM - 64;
/// The longest headers that are repeated: IPv4's longest, or IPv6 with a few extension headers.
const MAX_HEADERS: usize = 256;

/// How far fragmenting came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fragmented {
    /// All pieces are made: the packet ends as merged.
    Done,
    /// The limit was reached: call again.
    More,
    /// The rest cannot be made: the packet ends for this reason.
    Failed(Why),
}

/// The headers that every piece repeats, and what they say of the packet itself.
struct Plan {
    /// Headers of the piece at the front, as they lie in the packet.
    first: usize,
    /// Headers of all others.
    later: arrayvec::ArrayVec<u8, MAX_HEADERS>,
    /// Where the payload of the packet belongs in its datagram.
    base: usize,
    /// Whether the packet is a fragment with others behind it.
    more: bool,
}

/// Makes up to `limit` more pieces of a packet, none larger than `mtu`, and gives them to `emit`, in order.
pub(crate) fn fragment(
    cx: &mut Cx<'_>,
    m: &mut Mbuf,
    mtu: usize,
    limit: usize,
    mut emit: impl FnMut(&mut Cx<'_>, Mbuf),
) -> Fragmented {
    if limit == 0 {
        return Fragmented::More;
    }
    let planned = if m.hdr().family == 4 { plan4(m.data()) } else { plan6(m) };
    let plan = match planned {
        Ok(plan) => plan,
        Err(why) => return Fragmented::Failed(why),
    };
    for _ in 0..limit {
        let piece = match piece(&plan, m.data(), usize::from(m.hdr().cursor) * 8, mtu) {
            Ok(piece) => piece,
            Err(why) => return Fragmented::Failed(why),
        };
        match make(cx, m, &plan, &piece) {
            Ok(made) => emit(cx, made),
            Err(why) => return Fragmented::Failed(why),
        }
        if piece.end == m.len() {
            return Fragmented::Done;
        }
        m.hdr_mut().cursor = ((piece.end - plan.first) / 8) as u16;
    }
    Fragmented::More
}

/// One piece: which octets of the packet it carries, and where they belong.
#[derive(Debug, PartialEq, Eq)]
struct Piece {
    start: usize,
    end: usize,
    offset: usize,
    more: bool,
}

/// The piece that begins `done` octets into the payload.
fn piece(plan: &Plan, data: &[u8], done: usize, mtu: usize) -> Result<Piece, Why> {
    let headers = if done == 0 { plan.first } else { plan.later.len() };
    let start = plan.first + done;
    let rest = data.len().checked_sub(start).ok_or(Why::FragMalformed)?;
    let room = mtu.checked_sub(headers).ok_or(Why::TooBig)?;
    let n = if rest <= room { rest } else { room & !7 };
    if n == 0 {
        return Err(Why::TooBig);
    }
    let more = plan.more || n < rest;
    Ok(Piece { start, end: start + n, offset: plan.base + done, more })
}

fn make(cx: &Cx<'_>, m: &Mbuf, plan: &Plan, piece: &Piece) -> Result<Mbuf, Why> {
    let data = m.data();
    let front = piece.start == plan.first;
    let headers = if front { &data[..plan.first] } else { &plan.later[..] };
    let len = headers.len() + piece.end - piece.start;
    let class = if len <= CLUSTER_ROOM { Class::Cluster } else { Class::Jumbo };
    let mut made = cx.shared.pool.alloc(class, Owner::Worker).ok_or(Why::NoBuffer)?;
    let octets = made.append(len)?;
    octets[..headers.len()].copy_from_slice(headers);
    octets[headers.len()..].copy_from_slice(&data[piece.start..piece.end]);
    let family = m.hdr().family;
    if family == 4 {
        write4(octets, piece);
    } else {
        write6(octets, headers.len(), piece);
    }
    cx.stats.ledger.split(&mut made);
    made.hdr_mut().inherit(m.hdr());
    made.hdr_mut().flags.set(PktFlags::FRAG);
    made.hdr_mut().flags.clear(PktFlags::CSUM_OK.with(PktFlags::PARTIAL).with(PktFlags::REFRAG));
    made.set_l3(0);
    made.set_l4(headers.len());
    Ok(made)
}

fn plan4(data: &[u8]) -> Result<Plan, Why> {
    let packet = ipv4::Packet::new_checked(data).map_err(|_| Why::FragMalformed)?;
    let mut later = arrayvec::ArrayVec::new();
    later.extend(data[..ipv4::HEADER_LEN].iter().copied());
    for option in packet.options() {
        let option = option.map_err(|_| Why::IpOptions)?;
        if option.is_copied() {
            later.push(option.kind);
            later.push(option.data.len() as u8 + 2);
            later.extend(option.data.iter().copied());
        }
    }
    while later.len() % 4 != 0 {
        later.push(0);
    }
    later[0] = 0x40 | (later.len() / 4) as u8;
    Ok(Plan {
        first: packet.header_len(),
        later,
        base: packet.frag_offset().into(),
        more: packet.more_fragments(),
    })
}

fn write4(octets: &mut [u8], piece: &Piece) {
    let len = octets.len() as u16;
    let mut packet = ipv4::Packet::new_unchecked(octets);
    packet.set_total_len(len);
    packet.set_frag((piece.offset / 8) as u16 | if piece.more { ipv4::MF } else { 0 });
    packet.fill_checksum();
}

/// On the first call a fragment header goes into the packet, with an identification nobody can guess (RFC 7739).
fn plan6(m: &mut Mbuf) -> Result<Plan, Why> {
    if m.hdr().cursor == 0 {
        insert_header(m, entropy::random() as u32)?;
    }
    let first = fragment_at(m.data())?.0 + FRAGMENT_LEN;
    let mut later = arrayvec::ArrayVec::new();
    later.try_extend_from_slice(&m.data()[..first]).map_err(|_| Why::Ip6Extension)?;
    Ok(Plan { first, later, base: 0, more: false })
}

/// Where the fragment header of a packet stands, and the octet that announces it: behind the headers that routers look at, which
/// are all up to a routing header, or else hop-by-hop options (RFC 8200, 4.5).
fn fragment_at(data: &[u8]) -> Result<(usize, usize), Why> {
    let octet = |at: usize| data.get(at).copied().ok_or(Why::Ip6Malformed);
    let (mut at, mut announced_at) = (ipv6::HEADER_LEN, 6);
    let mut found = (at, announced_at);
    loop {
        let header = IpProto(octet(announced_at)?);
        if !matches!(header, IpProto::HOPOPTS | IpProto::DSTOPTS | IpProto::ROUTING) {
            return Ok(found);
        }
        announced_at = at;
        at += 8 + usize::from(octet(at + 1)?) * 8;
        if header != IpProto::DSTOPTS {
            found = (at, announced_at);
        }
    }
}

fn insert_header(m: &mut Mbuf, ident: u32) -> Result<(), Why> {
    let chain = ipv6_ext::walk(m.data(), m.len()).map_err(|_| Why::Ip6Extension)?;
    if chain.fragment.is_some() {
        return Err(Why::Ip6Extension);
    }
    let (at, announced_at) = fragment_at(m.data())?;
    m.prepend(FRAGMENT_LEN)?;
    let data = m.data_mut();
    data.get_mut(..at + FRAGMENT_LEN).ok_or(Why::Ip6Malformed)?.copy_within(FRAGMENT_LEN.., 0);
    let next_header = IpProto(std::mem::replace(&mut data[announced_at], IpProto::FRAGMENT.0));
    let header = Fragment {
        at: at as u16,
        announced_at: announced_at as u16,
        next_header,
        offset: 0,
        more: false,
        ident,
    };
    data[at..at + FRAGMENT_LEN].copy_from_slice(&header.octets());
    Ok(())
}

fn write6(octets: &mut [u8], headers: usize, piece: &Piece) {
    let len = (octets.len() - ipv6::HEADER_LEN) as u16;
    ipv6::Packet::new_unchecked(&mut *octets).set_payload_len(len);
    let word = piece.offset as u16 & 0xfff8 | u16::from(piece.more);
    let field = headers - FRAGMENT_LEN + 2;
    octets[field..field + 2].copy_from_slice(&word.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use kern::testing::Fixture;
    use proptest::prelude::*;
    use std::net::{Ipv4Addr, Ipv6Addr};
    use wire::build;

    const A: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
    const B: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);

    /// The pieces of a packet as octets, without a worker around.
    fn pieces(m: &Mbuf, plan: &Plan, mtu: usize) -> Vec<Vec<u8>> {
        let (mut done, mut all) = (0, Vec::new());
        loop {
            let piece = piece(plan, m.data(), done, mtu).unwrap();
            let headers = if done == 0 { &m.data()[..plan.first] } else { &plan.later[..] };
            let mut octets = [headers, &m.data()[piece.start..piece.end]].concat();
            if m.data()[0] >> 4 == 4 {
                write4(&mut octets, &piece);
            } else {
                write6(&mut octets, headers.len(), &piece);
            }
            all.push(octets);
            if piece.end == m.len() {
                return all;
            }
            done = piece.end - plan.first;
        }
    }

    #[test]
    fn options_that_are_to_be_copied_are_in_every_piece_and_others_in_the_first() {
        let fixture = Fixture::new(4);
        let plain = build::udp4(A, B, 1, 2, &[7; 992]);
        // Record route (7 octets, not copied), router alert (copied), end of list.
        let options = [7, 7, 4, 0, 0, 0, 0, 148, 4, 0, 0, 0];
        let mut packet = [&plain[..20], &options, &plain[20..]].concat();
        packet[0] = 0x48;
        let total = packet.len() as u16;
        let mut view = ipv4::Packet::new_unchecked(&mut packet[..]);
        view.set_total_len(total);
        view.fill_checksum();
        let m = fixture.packet(&packet);
        let plan = plan4(m.data()).unwrap();
        assert_eq!((plan.first, plan.later.len()), (32, 24));
        let all = pieces(&m, &plan, 576);
        assert_eq!(all.len(), 2);
        let first = ipv4::Packet::new_checked(&all[0][..]).unwrap();
        let second = ipv4::Packet::new_checked(&all[1][..]).unwrap();
        assert!(first.checksum_ok() && second.checksum_ok());
        assert_eq!((first.header_len(), second.header_len()), (32, 24));
        assert!(first.more_fragments() && !second.more_fragments());
        let kinds: Vec<u8> = second.options().map(|o| o.unwrap().kind).collect();
        assert_eq!(kinds, [148]);
        assert_eq!([first.payload(), second.payload()].concat(), &packet[32..]);
        assert_eq!(usize::from(second.frag_offset()), first.payload().len());
        fixture.done(m);
    }

    #[test]
    fn a_link_too_small_for_the_headers_is_refused() {
        let packet = build::udp4(A, B, 1, 2, &[7; 100]);
        let plan = plan4(&packet).unwrap();
        assert_eq!(piece(&plan, &packet, 0, 27), Err(Why::TooBig));
        assert_eq!(piece(&plan, &packet, 0, 10), Err(Why::TooBig));
        assert_eq!(piece(&plan, &packet, 0, 28).unwrap().end, 28);
    }

    #[test]
    fn an_ipv6_packet_gets_a_fragment_header_behind_what_routers_look_at() {
        let fixture = Fixture::new(4);
        let (a, b) = (Ipv6Addr::LOCALHOST, Ipv6Addr::UNSPECIFIED);
        let plain = build::udp6(a, b, 1, 2, &[7; 100]);
        let mut hopped = [&plain[..40], &[17, 0, 1, 4, 0, 0, 0, 0], &plain[40..]].concat();
        hopped[6] = 0;
        // Destination options are for the segments of a routing header behind them, or else for the last destination.
        let options = |next: u8| [next, 0, 1, 4, 0, 0, 0, 0];
        let mut routed =
            [&plain[..40], &options(60), &options(43), &[17, 0, 253, 0, 0, 0, 0, 0], &plain[40..]].concat();
        routed[6] = 0;
        let mut destined = [&plain[..40], &options(17), &plain[40..]].concat();
        destined[6] = 60;
        for (packet, at) in [(plain, 40), (hopped, 48), (routed, 64), (destined, 40)] {
            let mut m = fixture.packet(&packet);
            insert_header(&mut m, 0x0a0b_0c0d).unwrap();
            let end = m.len();
            ipv6::Packet::new_unchecked(m.data_mut()).set_payload_len(end as u16 - 40);
            let chain = ipv6_ext::walk(m.data(), end).unwrap();
            let fragment = chain.fragment.unwrap();
            assert_eq!((fragment.at, fragment.ident), (at, 0x0a0b_0c0d));
            assert_eq!(chain.proto, IpProto::UDP);
            assert_eq!(insert_header(&mut m, 1), Err(Why::Ip6Extension));
            fixture.done(m);
        }
    }

    proptest! {
        #[test]
        fn pieces_fit_the_link_and_put_together_are_the_packet(len in 0..4000_usize, mtu in 68..1500_usize) {
            let fixture = Fixture::new(4);
            let payload: Vec<u8> = (0..len).map(|i| i as u8).collect();
            let m = fixture.packet(&build::udp4(A, B, 1, 2, &payload));
            let plan = plan4(m.data()).unwrap();
            let all = pieces(&m, &plan, mtu);
            let mut joined = Vec::new();
            for (i, octets) in all.iter().enumerate() {
                prop_assert!(octets.len() <= mtu);
                let piece = ipv4::Packet::new_checked(&octets[..]).unwrap();
                prop_assert!(piece.checksum_ok());
                prop_assert_eq!(usize::from(piece.frag_offset()), joined.len());
                prop_assert_eq!(piece.more_fragments(), i + 1 < all.len());
                joined.extend_from_slice(piece.payload());
            }
            prop_assert_eq!(&joined[..], &m.data()[20..]);
            fixture.done(m);
        }

        #[test]
        fn a_fragment_can_be_fragmented_again(len in 600..3000_usize, first in 300..600_usize, second in 68..300_usize) {
            let fixture = Fixture::new(64);
            let payload: Vec<u8> = (0..len).map(|i| (i * 7) as u8).collect();
            let m = fixture.packet(&build::udp4(A, B, 1, 2, &payload));
            let mut joined = Vec::new();
            for octets in pieces(&m, &plan4(m.data()).unwrap(), first) {
                let again = fixture.packet(&octets);
                for octets in pieces(&again, &plan4(again.data()).unwrap(), second) {
                    let piece = ipv4::Packet::new_checked(&octets[..]).unwrap();
                    prop_assert_eq!(usize::from(piece.frag_offset()), joined.len());
                    joined.extend_from_slice(piece.payload());
                    prop_assert_eq!(piece.more_fragments(), joined.len() < m.len() - 20);
                }
                fixture.done(again);
            }
            prop_assert_eq!(&joined[..], &m.data()[20..]);
            fixture.done(m);
        }
    }
}
