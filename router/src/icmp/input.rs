//! `icmp_input`: ICMP and ICMPv6 for the router itself.
//!
//! Echo is answered in place, in the buffer the request came in: the address that was asked answers (RFC 792), for a group
//! the interface's own (RFC 4443, 4.2). Errors and echo replies are for the host stack. Pings of IPv4 broadcasts and groups are not
//! answered, as BSD's `bmcastecho = 0` has it, nor are timestamp and mask requests (RFC 6918); redirects and router
//! advertisements are for hosts.

use super::originate;
use crate::{
    hooks, host, nd,
    worker::{Cx, Pending, Stage},
};
use kern::{
    Mbuf, PktFlags, Why,
    lock::{Held, levels::Softnet},
};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use wire::{IpProto, icmpv4, icmpv6, ipv4, ipv6, parse_ipv4, parse_ipv6};

/// What becomes of a message.
#[derive(Debug, PartialEq, Eq)]
enum Fate {
    /// Answer it.
    Echo,
    /// The host stack wants it.
    Deliver,
    /// So it does, unless an SA has sent what was too big.
    TooBig,
    /// Neighbour discovery.
    Discovery,
    /// It ends.
    End(Why),
}

/// Takes in a whole ICMP message to us; data begin at the IP header.
pub(crate) fn icmp_input(cx: &mut Cx<'_>, held: &mut Held<'_, Softnet>, mut m: Mbuf, out: &mut Pending) {
    cx.stats.count.icmp_received.inc();
    if crate::iface::cut::finish_checksum(&mut m).is_err() {
        return cx.end(m, Why::IcmpMalformed);
    }
    let v4 = m.hdr().family == 4;
    let fate = if v4 { judge4(&m) } else { judge6(&m) };
    match fate {
        Fate::Echo => {
            let answered = if v4 { echo4(cx, &mut m) } else { echo6(cx, &mut m) };
            match answered {
                Ok(()) => {
                    originate(&mut m);
                    cx.stats.count.echo_replies.inc();
                    out.push(Stage::IpOutput, m, &cx.stats.ledger);
                }
                Err(why) => cx.end(m, why),
            }
        }
        Fate::TooBig if hooks::too_big_input(cx, held, &m) => cx.end(m, Why::IcmpDone),
        Fate::Deliver | Fate::TooBig => host::deliver(cx, held, m),
        Fate::Discovery => nd::nd_input(cx, held, m, out),
        Fate::End(why) => cx.end(m, why),
    }
}

fn message(m: &Mbuf) -> &[u8] {
    m.data().get(m.l4()..).unwrap_or(&[])
}

fn judge4(m: &Mbuf) -> Fate {
    let Ok(packet) = icmpv4::Packet::new_checked(message(m)) else { return Fate::End(Why::IcmpMalformed) };
    if !m.hdr().flags.has(PktFlags::CSUM_OK) && !packet.checksum_ok() {
        return Fate::End(Why::IcmpMalformed);
    }
    let to_many = m.hdr().flags.any(PktFlags::BCAST.with(PktFlags::MCAST));
    match packet.kind() {
        icmpv4::kind::ECHO_REQUEST if to_many => Fate::End(Why::IcmpUnanswered),
        icmpv4::kind::ECHO_REQUEST => Fate::Echo,
        icmpv4::kind::UNREACHABLE if packet.code() == icmpv4::unreachable::FRAGMENTATION_NEEDED => {
            Fate::TooBig
        }
        icmpv4::kind::ECHO_REPLY
        | icmpv4::kind::UNREACHABLE
        | icmpv4::kind::TIME_EXCEEDED
        | icmpv4::kind::PARAMETER_PROBLEM => Fate::Deliver,
        icmpv4::kind::REDIRECT | icmpv4::kind::SOURCE_QUENCH => Fate::End(Why::IcmpDone),
        _ => Fate::End(Why::IcmpUnanswered),
    }
}

fn judge6(m: &Mbuf) -> Fate {
    let malformed = Fate::End(Why::IcmpMalformed);
    let (Some((src, dst)), Ok(packet)) = (addresses6(m), icmpv6::Packet::new_checked(message(m))) else {
        return malformed;
    };
    if !m.hdr().flags.has(PktFlags::CSUM_OK) && !packet.checksum_ok(src, dst) {
        return malformed;
    }
    match packet.kind() {
        icmpv6::kind::ECHO_REQUEST if src.is_unspecified() => Fate::End(Why::IcmpUnanswered),
        icmpv6::kind::ECHO_REQUEST => Fate::Echo,
        icmpv6::kind::ECHO_REPLY => Fate::Deliver,
        icmpv6::kind::PACKET_TOO_BIG => Fate::TooBig,
        kind if wire::nd::is_nd(kind) => Fate::Discovery,
        kind if icmpv6::is_error(kind) => Fate::Deliver,
        icmpv6::kind::MLD_QUERY
        | icmpv6::kind::MLD_REPORT
        | icmpv6::kind::MLD_DONE
        | icmpv6::kind::MLD2_REPORT => Fate::End(Why::IcmpDone),
        _ => Fate::End(Why::IcmpUnanswered),
    }
}

/// Source and destination of an IPv6 packet.
pub(crate) fn addresses6(m: &Mbuf) -> Option<(Ipv6Addr, Ipv6Addr)> {
    let header = ipv6::Packet::new_checked(m.data()).ok()?;
    Some((header.src(), header.dst()))
}

fn echo4(cx: &mut Cx<'_>, m: &mut Mbuf) -> Result<(), Why> {
    let parsed = parse_ipv4(m.data()).map_err(|_| Why::IcmpMalformed)?;
    let asked: &[u8; 4] = m.data().get(16..).and_then(<[u8]>::first_chunk).ok_or(Why::IcmpMalformed)?;
    let asked = Ipv4Addr::from_octets(*asked);
    // A broadcast or a group in a frame to us alone.
    if !cx.net.is_local(IpAddr::V4(asked)) {
        return Err(Why::IcmpUnanswered);
    }
    let ident = super::next_ident(cx);
    icmpv4::echo_reply_in_place(m.data_mut(), &parsed, asked).map_err(|_| Why::IcmpMalformed)?;
    let header = m.data_mut().first_chunk_mut().ok_or(Why::IcmpMalformed)?;
    // The reply is a datagram of its own, and may be fragmented whatever the request said.
    ipv4::set_word(header, 4, ident);
    ipv4::set_word(header, 6, 0);
    Ok(())
}

fn echo6(cx: &mut Cx<'_>, m: &mut Mbuf) -> Result<(), Why> {
    drop_extensions(m)?;
    let (src, dst) = addresses6(m).ok_or(Why::IcmpMalformed)?;
    let from = if dst.is_multicast() {
        match cx.net.interface(m.hdr().rcvif).and_then(|i| i.source_for(IpAddr::V6(src))) {
            Some(IpAddr::V6(own)) => own,
            _ => return Err(Why::SourceUnusable),
        }
    } else {
        dst
    };
    let parsed = parse_ipv6(m.data()).map_err(|_| Why::IcmpMalformed)?;
    icmpv6::echo_reply_in_place(m.data_mut(), &parsed, from).map_err(|_| Why::IcmpMalformed)
}

/// Takes the extension headers out of a packet whose upper layer is at `l4`: a reply does not repeat them.
pub(crate) fn drop_extensions(m: &mut Mbuf) -> Result<(), Why> {
    let l4 = m.l4();
    let Some(between) = l4.checked_sub(ipv6::HEADER_LEN).filter(|&n| n > 0) else { return Ok(()) };
    let proto = IpProto(m.hdr().proto);
    m.data_mut().get_mut(..l4).ok_or(Why::IcmpMalformed)?.copy_within(..ipv6::HEADER_LEN, between);
    m.trim_front(between).map_err(|_| Why::IcmpMalformed)?;
    let len = (m.len() - ipv6::HEADER_LEN) as u16;
    let mut header = ipv6::Packet::new_unchecked(m.data_mut());
    header.set_payload_len(len);
    header.set_next_header(proto);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use kern::testing::Fixture;
    use wire::build;

    const A6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
    const B6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2);

    fn judge(fixture: &Fixture, packet: &[u8], change: impl FnOnce(&mut Mbuf)) -> Fate {
        let mut m = fixture.packet(packet);
        let v4 = packet[0] >> 4 == 4;
        m.set_l4(if v4 { 20 } else { 40 });
        change(&mut m);
        let fate = if v4 { judge4(&m) } else { judge6(&m) };
        fixture.done(m);
        fate
    }

    #[test]
    fn messages_go_where_they_are_wanted() {
        let fixture = Fixture::new(4);
        let (a, b) = (Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(192, 0, 2, 2));
        let message4 = |kind: u8, flags| {
            let mut packet = build::echo4(a, b, 1, 2, b"abc");
            packet[20] = kind;
            wire::checksum::transport_fill(&mut packet, 20, 31, IpProto::ICMP).unwrap();
            judge(&fixture, &packet, |m| m.hdr_mut().flags.set(flags))
        };
        let none = PktFlags::empty();
        assert_eq!(message4(8, none), Fate::Echo);
        assert_eq!(message4(8, PktFlags::BCAST), Fate::End(Why::IcmpUnanswered));
        assert_eq!(message4(13, none), Fate::End(Why::IcmpUnanswered));
        assert_eq!(message4(5, none), Fate::End(Why::IcmpDone));
        for kind in [0, 3, 11, 12] {
            assert_eq!(message4(kind, none), Fate::Deliver);
        }
        let message6 = |kind: u8, src| {
            let mut packet = build::echo6(src, B6, 1, 2, b"abc");
            packet[40] = kind;
            wire::checksum::transport_fill(&mut packet, 40, 51, IpProto::ICMPV6).unwrap();
            judge(&fixture, &packet, |_| ())
        };
        assert_eq!(message6(128, A6), Fate::Echo);
        assert_eq!(message6(128, Ipv6Addr::UNSPECIFIED), Fate::End(Why::IcmpUnanswered));
        assert_eq!(message6(135, A6), Fate::Discovery);
        assert_eq!(message6(130, A6), Fate::End(Why::IcmpDone));
        assert_eq!(message6(200, A6), Fate::End(Why::IcmpUnanswered));
        for kind in [1, 3, 4, 127, 129] {
            assert_eq!(message6(kind, A6), Fate::Deliver);
        }
        assert_eq!(message6(2, A6), Fate::TooBig);
    }

    #[test]
    fn a_wrong_checksum_is_noticed_unless_the_device_has_checked() {
        let fixture = Fixture::new(4);
        for mut packet in [
            build::echo4(Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(192, 0, 2, 2), 1, 2, b"abc"),
            build::echo6(A6, B6, 1, 2, b"abc"),
        ] {
            let last = packet.len() - 1;
            packet[last] ^= 1;
            assert_eq!(judge(&fixture, &packet, |_| ()), Fate::End(Why::IcmpMalformed));
            assert_eq!(judge(&fixture, &packet, |m| m.hdr_mut().flags.set(PktFlags::CSUM_OK)), Fate::Echo);
        }
    }

    #[test]
    fn extension_headers_are_left_out_of_a_reply() {
        let fixture = Fixture::new(4);
        let plain = build::echo6(A6, B6, 1, 2, b"some data");
        let mut extended = plain[..40].to_vec();
        extended[6] = 60;
        extended.extend_from_slice(&[58, 0, 1, 4, 0, 0, 0, 0]);
        extended.extend_from_slice(&plain[40..]);
        extended[5] += 8;
        let mut m = fixture.packet(&extended);
        m.set_l4(48);
        m.hdr_mut().proto = 58;
        drop_extensions(&mut m).unwrap();
        assert_eq!((m.data(), m.l4()), (&plain[..], 40));
        fixture.done(m);
    }
}
