//! One fragment: what its headers say, and whether it may be a fragment at all. No table here.

use crate::icmp::Error;
use kern::{Mbuf, Why};
use std::net::IpAddr;
use wire::{
    IpProto, ipv4, ipv6,
    ipv6_ext::{self, FRAGMENT_LEN},
    parse::{Flags, parse_ipv4, parse_ipv6},
};

/// Octets of a datagram at most, IP header included.
pub(super) const MAX_DATAGRAM: u32 = 65_535;

/// What the fragments of one datagram have in common (RFC 791, 3.2; RFC 8200, 4.5). Besides, all came through the same tunnel or
/// all in clear, and link-local ones over the same link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub src: IpAddr,
    pub dst: IpAddr,
    pub ident: u32,
    /// IPv4 only: zero in IPv6.
    pub proto: u8,
    pub link: u16,
    pub sa: u32,
}

/// A fragment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    pub key: Key,
    /// Where its payload belongs.
    pub offset: u32,
    /// Octets of payload.
    pub len: u32,
    pub more: bool,
    /// Octets of the headers in front of the payload; of IPv6 the fragment header is the last of them.
    pub headers: u16,
    /// Where the octet stands that announces the fragment header (IPv6).
    pub announced_at: u16,
    /// Explicit congestion notification bits.
    pub ecn: u8,
}

impl Piece {
    /// The first octet behind its payload.
    pub(super) fn end(&self) -> u32 {
        self.offset + self.len
    }

    /// Whether it is a whole datagram that has a fragment header nevertheless (RFC 6946).
    pub(super) fn is_atomic(&self) -> bool {
        self.offset == 0 && !self.more
    }
}

/// Why a fragment is refused, and what its sender is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub why: Why,
    pub tell: Option<Error>,
}

impl From<Why> for Refusal {
    fn from(why: Why) -> Refusal {
        Refusal { why, tell: None }
    }
}

const MALFORMED: Refusal = Refusal { why: Why::FragMalformed, tell: None };

/// Reads the headers of a fragment to us.
pub(super) fn describe(m: &Mbuf) -> Result<Piece, Refusal> {
    let piece = if m.hdr().family == 4 { describe4(m)? } else { describe6(m)? };
    if piece.len == 0 && !piece.is_atomic() { Err(MALFORMED) } else { Ok(piece) }
}

fn describe4(m: &Mbuf) -> Result<Piece, Refusal> {
    let data = m.data();
    let parsed = parse_ipv4(data).map_err(|_| MALFORMED)?;
    let header = ipv4::Packet::new_unchecked(data);
    let piece = Piece {
        key: Key {
            src: IpAddr::V4(header.src()),
            dst: IpAddr::V4(header.dst()),
            ident: parsed.ident,
            proto: parsed.proto.0,
            link: 0,
            sa: m.hdr().sa,
        },
        offset: parsed.frag_offset.into(),
        len: parsed.l4_len() as u32,
        more: parsed.flags.contains(Flags::MORE),
        headers: parsed.l4,
        announced_at: 0,
        ecn: header.tos() & 3,
    };
    let ragged = piece.more && !piece.len.is_multiple_of(8);
    // RFC 1858 and RFC 3128: nobody splits a TCP header in earnest.
    let tiny = parsed.proto == IpProto::TCP
        && ((piece.offset == 0 && piece.more && piece.len < 16) || piece.offset == 8);
    if ragged || tiny {
        return Err(MALFORMED);
    }
    if piece.end() + u32::from(piece.headers) > MAX_DATAGRAM {
        return Err(Why::FragTooBig.into());
    }
    Ok(piece)
}

fn describe6(m: &Mbuf) -> Result<Piece, Refusal> {
    let data = m.data();
    let parsed = parse_ipv6(data).map_err(|_| MALFORMED)?;
    let end = parsed.end as usize;
    let fragment = ipv6_ext::walk(data, end).ok().and_then(|chain| chain.fragment).ok_or(MALFORMED)?;
    let header = ipv6::Packet::new_unchecked(data);
    let headers = usize::from(fragment.at) + FRAGMENT_LEN;
    let (src, dst) = (header.src(), header.dst());
    let near = ipv6::is_link_scope(src) || ipv6::is_link_scope(dst);
    let piece = Piece {
        key: Key {
            src: IpAddr::V6(src),
            dst: IpAddr::V6(dst),
            ident: fragment.ident,
            proto: 0,
            link: if near { m.hdr().rcvif } else { 0 },
            sa: m.hdr().sa,
        },
        offset: fragment.offset.into(),
        len: (end - headers) as u32,
        more: fragment.more,
        headers: headers as u16,
        announced_at: fragment.announced_at,
        ecn: header.traffic_class() & 3,
    };
    let problem = |pointer: usize| Refusal {
        why: Why::FragMalformed,
        tell: Some(Error::HeaderProblem { pointer: pointer as u32 }),
    };
    if piece.more && !piece.len.is_multiple_of(8) {
        // The payload length field (RFC 8200, 4.5).
        return Err(problem(4));
    }
    if piece.end() + u32::from(fragment.at) - ipv6::HEADER_LEN as u32 > MAX_DATAGRAM {
        // The fragment offset field.
        return Err(problem(usize::from(fragment.at) + 2));
    }
    if piece.offset == 0 && piece.more && lacks_headers(parsed.flags, fragment.next_header, parsed.proto) {
        return Err(Refusal { why: Why::FragMalformed, tell: Some(Error::FirstFragment) });
    }
    Ok(piece)
}

/// Whether a first fragment ends before the upper layer's header does (RFC 7112).
fn lacks_headers(flags: Flags, next_header: IpProto, proto: IpProto) -> bool {
    flags.contains(Flags::SHORT) || (proto.is_extension() && next_header.is_extension())
}

#[cfg(test)]
mod tests {
    use super::*;
    use kern::testing::Fixture;
    use std::net::{Ipv4Addr, Ipv6Addr};
    use wire::{build, ipv6_ext::Fragment};

    fn fragment4(proto: IpProto, offset: u16, more: bool, len: usize) -> Vec<u8> {
        let header = ipv4::Repr {
            src: Ipv4Addr::new(192, 0, 2, 1),
            dst: Ipv4Addr::new(192, 0, 2, 2),
            proto,
            ident: 7,
            frag: (offset / 8) | if more { ipv4::MF } else { 0 },
            ..ipv4::Repr::default()
        };
        build::raw4(header, &vec![1; len])
    }

    fn fragment6(next_header: IpProto, offset: u16, more: bool, payload: &[u8]) -> Vec<u8> {
        let fragment = Fragment { at: 40, announced_at: 6, next_header, offset, more, ident: 9 };
        let header = ipv6::Repr {
            src: Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1),
            dst: Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2),
            next_header: IpProto::FRAGMENT,
            ..ipv6::Repr::default()
        };
        build::raw6(header, &[&fragment.octets(), payload].concat())
    }

    fn read(fixture: &Fixture, packet: &[u8]) -> Result<Piece, Refusal> {
        let mut m = fixture.packet(packet);
        m.hdr_mut().family = packet[0] >> 4;
        let described = describe(&m);
        fixture.done(m);
        described
    }

    #[test]
    fn a_fragment_says_where_it_belongs() {
        let fixture = Fixture::new(2);
        let piece = read(&fixture, &fragment4(IpProto::UDP, 1480, true, 800)).unwrap();
        assert_eq!((piece.offset, piece.len, piece.more, piece.headers), (1480, 800, true, 20));
        assert_eq!((piece.key.ident, piece.key.proto), (7, 17));
        let piece = read(&fixture, &fragment6(IpProto::UDP, 1448, false, &[1; 33])).unwrap();
        assert_eq!((piece.offset, piece.len, piece.more, piece.headers), (1448, 33, false, 48));
        assert_eq!((piece.key.ident, piece.key.proto, piece.announced_at), (9, 0, 6));
    }

    #[test]
    fn impossible_fragments_are_refused() {
        let fixture = Fixture::new(2);
        let malformed = Err(Refusal::from(Why::FragMalformed));
        assert_eq!(read(&fixture, &fragment4(IpProto::UDP, 0, true, 17)), malformed, "not in units of eight");
        assert_eq!(read(&fixture, &fragment4(IpProto::UDP, 800, false, 0)), malformed, "empty");
        assert_eq!(read(&fixture, &fragment4(IpProto::TCP, 0, true, 8)), malformed, "tiny (RFC 1858)");
        assert_eq!(read(&fixture, &fragment4(IpProto::TCP, 8, true, 800)), malformed, "RFC 3128");
        let over = read(&fixture, &fragment4(IpProto::UDP, 65_528, false, 100));
        assert_eq!(over, Err(Refusal::from(Why::FragTooBig)), "the ping of death");
    }

    #[test]
    fn an_ipv6_sender_is_told_which_field_is_wrong() {
        let fixture = Fixture::new(2);
        let tell = |packet: &[u8]| read(&fixture, packet).unwrap_err().tell;
        let udp = [&[0_u8; 4][..], &[0, 40, 0, 0], &[1; 9]].concat();
        let ragged = tell(&fragment6(IpProto::UDP, 0, true, &udp));
        assert_eq!(ragged, Some(Error::HeaderProblem { pointer: 4 }));
        let over = tell(&fragment6(IpProto::UDP, 65_528, false, &[1; 64]));
        assert_eq!(over, Some(Error::HeaderProblem { pointer: 42 }));
        let headless = tell(&fragment6(IpProto::TCP, 0, true, &[0; 8]));
        assert_eq!(headless, Some(Error::FirstFragment));
    }
}
