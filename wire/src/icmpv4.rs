//! ICMP (RFC 792): messages, the errors a router owes (RFC 1812, 4.3), echo answered in place. Rate limits, and the choice of a source address, are the
//! caller's.
//!
//! ```text
//! |     type      |     code      |           checksum            |  0
//! |           rest of the header, by type                         |  4
//! |  data; in an error the packet it is about, from its header on |  8
//! ```

use core::net::Ipv4Addr;

use crate::{
    IpProto, Malformed, checksum, ipv4,
    parse::{Flags, Parsed, parse_quoted},
    view::{get, put},
};

/// Octets before the data.
pub const HEADER_LEN: usize = 8;
/// Octets of an error datagram at most, IP header included (RFC 1812, 4.3.2.3).
pub const MAX_ERROR_LEN: usize = 576;

/// Message types.
pub mod kind {
    /// Echo reply.
    pub const ECHO_REPLY: u8 = 0;
    /// Destination unreachable.
    pub const UNREACHABLE: u8 = 3;
    /// Source quench (RFC 6633: neither sent nor heeded).
    pub const SOURCE_QUENCH: u8 = 4;
    /// Redirect.
    pub const REDIRECT: u8 = 5;
    /// Echo request.
    pub const ECHO_REQUEST: u8 = 8;
    /// Time exceeded.
    pub const TIME_EXCEEDED: u8 = 11;
    /// Parameter problem.
    pub const PARAMETER_PROBLEM: u8 = 12;
}

/// Codes of destination unreachable that a router sends.
pub mod unreachable {
    /// No route.
    pub const NET: u8 = 0;
    /// No answer from a neighbour.
    pub const HOST: u8 = 1;
    /// Protocol not spoken here.
    pub const PROTOCOL: u8 = 2;
    /// No one listens.
    pub const PORT: u8 = 3;
    /// Too big, and may not be fragmented.
    pub const FRAGMENTATION_NEEDED: u8 = 4;
    /// Source route failed.
    pub const SOURCE_ROUTE: u8 = 5;
    /// Forbidden by a filter.
    pub const ADMIN_PROHIBITED: u8 = 13;
}

view! {
    /// An ICMP message.
    Packet
}

fields! { Packet:
    /// Message type.
    u8, kind, set_kind @ 0;
    /// Code within the type.
    u8, code, set_code @ 1;
    /// Checksum over the whole message.
    u16, checksum, set_checksum @ 2;
    /// What stands between checksum and data, as one word.
    u32, rest, set_rest @ 4;
    /// Identifier, of queries.
    u16, ident, set_ident @ 4;
    /// Sequence number, of queries.
    u16, seq, set_seq @ 6;
}

impl<T: AsRef<[u8]>> Packet<T> {
    /// Whether the header is there.
    pub fn check_len(&self) -> Result<(), Malformed> {
        if self.octets().len() < HEADER_LEN { Err(Malformed::Truncated) } else { Ok(()) }
    }

    /// Whether the checksum verifies.
    pub fn checksum_ok(&self) -> bool {
        checksum::transport_sum(0, self.octets()) == 0
    }
}

impl<'a> Packet<&'a [u8]> {
    /// What follows the header.
    pub fn payload(&self) -> &'a [u8] {
        &self.buffer[HEADER_LEN..]
    }
}

/// Whether a message of this type reports an error (RFC 1122, 3.2.2). Nobody answers those with another.
#[inline]
pub const fn is_error(kind: u8) -> bool {
    matches!(kind, 3 | 4 | 5 | 11 | 12)
}

/// What an ICMP error says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Error {
    /// Destination unreachable with a code of [`mod@unreachable`].
    Unreachable(u8),
    /// Too big and may not be fragmented; the MTU of the next hop (RFC 1191).
    FragmentationNeeded(u16),
    /// A better gateway: code (0 network, 1 host) and its address.
    Redirect(u8, Ipv4Addr),
    /// No hop left.
    TtlExceeded,
    /// Not all fragments came.
    ReassemblyTimeExceeded,
    /// The octet of the header that cannot be worked with.
    ParameterProblem(u8),
}

impl Error {
    /// Type, code and rest of the header.
    pub const fn header(self) -> (u8, u8, u32) {
        match self {
            Self::Unreachable(code) => (kind::UNREACHABLE, code, 0),
            Self::FragmentationNeeded(mtu) => {
                (kind::UNREACHABLE, unreachable::FRAGMENTATION_NEEDED, mtu as u32)
            }
            Self::Redirect(code, gateway) => (kind::REDIRECT, code, gateway.to_bits()),
            Self::TtlExceeded => (kind::TIME_EXCEEDED, 0, 0),
            Self::ReassemblyTimeExceeded => (kind::TIME_EXCEEDED, 1, 0),
            Self::ParameterProblem(pointer) => (kind::PARAMETER_PROBLEM, 0, (pointer as u32) << 24),
        }
    }

    /// The error of these fields.
    pub const fn from_header(kind: u8, code: u8, rest: u32) -> Option<Self> {
        Some(match (kind, code) {
            (kind::UNREACHABLE, unreachable::FRAGMENTATION_NEEDED) => Self::FragmentationNeeded(rest as u16),
            (kind::UNREACHABLE, code) => Self::Unreachable(code),
            (kind::REDIRECT, code) => Self::Redirect(code, Ipv4Addr::from_bits(rest)),
            (kind::TIME_EXCEEDED, 0) => Self::TtlExceeded,
            (kind::TIME_EXCEEDED, 1) => Self::ReassemblyTimeExceeded,
            (kind::PARAMETER_PROBLEM, 0) => Self::ParameterProblem((rest >> 24) as u8),
            _ => return None,
        })
    }
}

/// A message of the types this crate reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repr<'a> {
    /// Please answer.
    EchoRequest {
        /// Identifier.
        ident: u16,
        /// Sequence number.
        seq: u16,
        /// What the answer must carry.
        data: &'a [u8],
    },
    /// An answer.
    EchoReply {
        /// Identifier of the request.
        ident: u16,
        /// Sequence number of the request.
        seq: u16,
        /// What the request carried.
        data: &'a [u8],
    },
    /// An error and the beginning of the packet it is about.
    Error(Error, &'a [u8]),
}

impl<'a> Repr<'a> {
    /// Reads a message whose checksum is right.
    pub fn parse(packet: &Packet<&'a [u8]>) -> Result<Self, Malformed> {
        packet.check_len()?;
        if !packet.checksum_ok() {
            return Err(Malformed::Checksum);
        }
        let (ident, seq, data) = (packet.ident(), packet.seq(), packet.payload());
        match (packet.kind(), packet.code()) {
            (kind::ECHO_REQUEST, 0) => Ok(Self::EchoRequest { ident, seq, data }),
            (kind::ECHO_REPLY, 0) => Ok(Self::EchoReply { ident, seq, data }),
            (kind, code) => {
                let error = Error::from_header(kind, code, packet.rest()).ok_or(Malformed::Unknown)?;
                Ok(Self::Error(error, data))
            }
        }
    }

    fn parts(&self) -> (u8, u8, u32, &'a [u8]) {
        let query = |ident: u16, seq: u16| u32::from(ident) << 16 | u32::from(seq);
        match *self {
            Self::EchoRequest { ident, seq, data } => (kind::ECHO_REQUEST, 0, query(ident, seq), data),
            Self::EchoReply { ident, seq, data } => (kind::ECHO_REPLY, 0, query(ident, seq), data),
            Self::Error(error, data) => {
                let (kind, code, rest) = error.header();
                (kind, code, rest, data)
            }
        }
    }

    /// Octets that [`Self::emit`] writes.
    pub fn buffer_len(&self) -> usize {
        HEADER_LEN + self.parts().3.len()
    }

    /// Writes the message, checksum included, to the front of `out`.
    pub fn emit(&self, out: &mut [u8]) -> Result<usize, Malformed> {
        let (kind, code, rest, data) = self.parts();
        let len = HEADER_LEN + data.len();
        let mut packet = Packet::new_unchecked(out.get_mut(..len).ok_or(Malformed::Truncated)?);
        packet.set_kind(kind);
        packet.set_code(code);
        packet.set_checksum(0);
        packet.set_rest(rest);
        let octets = packet.into_inner();
        let sum =
            checksum::copy_and_sum(&mut octets[HEADER_LEN..], data) + checksum::sum(&octets[..HEADER_LEN]);
        put(octets, 2, checksum::finish(sum));
        Ok(len)
    }
}

/// Whether an error may be sent about `packet` at all (RFC 1122, 3.2.2; RFC 1812, 4.3.2.7): not about an ICMP error, a fragment but the first, a
/// packet to a group or to everyone, or one whose source is no single host. That the frame was a link-layer broadcast, or the destination a directed
/// one, only the caller knows.
pub fn may_answer(packet: &[u8]) -> bool {
    let Ok(parsed) = parse_quoted(packet) else {
        return false;
    };
    if parsed.is_v6() || parsed.is_later_fragment() {
        return false;
    }
    if parsed.proto == IpProto::ICMP && (parsed.flags.contains(Flags::SHORT) || is_error(parsed.icmp_type)) {
        return false;
    }
    let (src, dst): (Ipv4Addr, Ipv4Addr) = (get(packet, 12), get(packet, 16));
    let group = dst.is_multicast() || dst.is_broadcast() || dst.octets()[0] >= 240;
    let nobody = src.octets()[0] == 0 || src.is_loopback() || src.octets()[0] >= 224;
    !group && !nobody
}

/// Writes a whole IPv4 packet with an ICMP error about `packet` to the front of `out`: from `src` to the source of `packet`, quoting as much of it as
/// fits 576 octets. Returns its length. Call [`may_answer`] first. TOS is precedence 6 (internetwork control, RFC 1812, 4.3.2.5).
pub fn build_error(
    out: &mut [u8],
    error: Error,
    src: Ipv4Addr,
    packet: &[u8],
    ident: u16,
) -> Result<usize, Malformed> {
    let total = ipv4::Packet::new_unchecked(packet);
    if packet.len() < ipv4::HEADER_LEN {
        return Err(Malformed::Truncated);
    }
    let (dst, total) = (total.src(), usize::from(total.total_len()));
    let room = MAX_ERROR_LEN - ipv4::HEADER_LEN - HEADER_LEN;
    let quote = &packet[..total.min(packet.len()).min(room)];
    let payload_len = (HEADER_LEN + quote.len()) as u16;
    let repr =
        ipv4::Repr { src, dst, proto: IpProto::ICMP, payload_len, tos: 0xc0, ident, ..ipv4::Repr::default() };
    let at = repr.emit(out)?;
    Ok(at + Repr::Error(error, quote).emit(&mut out[at..])?)
}

/// Turns an echo request into its reply, in place: `packet` is the IPv4 packet that `parsed` describes, whose checksums are right. The reply comes from
/// `from` (the request may have gone to a group) and goes to the request's source. Options become no-operations.
pub fn echo_reply_in_place(packet: &mut [u8], parsed: &Parsed, from: Ipv4Addr) -> Result<(), Malformed> {
    let (l4, end) = (usize::from(parsed.l4), parsed.end as usize);
    let is_request =
        parsed.proto == IpProto::ICMP && parsed.icmp_type == kind::ECHO_REQUEST && !parsed.is_fragment();
    if !is_request || parsed.flags.contains(Flags::SHORT) || end > packet.len() {
        return Err(Malformed::Unknown);
    }
    let (header, message) = packet.split_at_mut(l4);
    header[ipv4::HEADER_LEN..].fill(1);
    let mut ip = ipv4::Packet::new_unchecked(header);
    ip.set_dst(ip.src());
    ip.set_src(from);
    ip.set_ttl(64);
    ip.fill_checksum();
    let old: u16 = get(message, 0);
    message[0] = kind::ECHO_REPLY;
    let checksum = checksum::update16(get(message, 2), old, get(message, 0));
    put(message, 2, checksum);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{build, parse_ipv4};

    const A: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
    const B: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);

    #[test]
    fn an_error_quotes_the_packet_up_to_576_octets() {
        for len in [0, 100, 519, 520, 1400] {
            let packet = build::udp4(A, B, 1, 2, &vec![7; len]);
            let mut out = [0; MAX_ERROR_LEN];
            let n = build_error(&mut out, Error::FragmentationNeeded(1280), B, &packet, 9).unwrap();
            assert_eq!(n, (packet.len() + 28).min(576));
            let ip = ipv4::Packet::new_checked(&out[..n]).unwrap();
            assert_eq!(ipv4::Repr::parse(&ip).unwrap().dst, A);
            let quote = &packet[..n - 28];
            let message = Repr::parse(&Packet::new_checked(ip.payload()).unwrap());
            assert_eq!(message, Ok(Repr::Error(Error::FragmentationNeeded(1280), quote)));
            assert_eq!(parse_quoted(quote).unwrap().dst_port, 2);
            assert!(!may_answer(&out[..n]), "an error about an error");
        }
    }

    #[test]
    fn nobody_is_told_about_what_nobody_sent_or_everyone_got() {
        assert!(may_answer(&build::udp4(A, B, 1, 2, b"x")));
        for (src, dst) in [
            (A, Ipv4Addr::BROADCAST),
            (A, ipv4::ALL_HOSTS),
            (Ipv4Addr::UNSPECIFIED, B),
            (Ipv4Addr::LOCALHOST, B),
            (Ipv4Addr::BROADCAST, B),
        ] {
            assert!(!may_answer(&build::udp4(src, dst, 1, 2, b"x")), "{src} to {dst}");
        }
        let mut later = build::udp4(A, B, 1, 2, &[0; 64]);
        ipv4::set_word(later.first_chunk_mut().unwrap(), 6, 4);
        assert!(!may_answer(&later));
    }

    #[test]
    fn an_echo_is_answered_in_place() {
        let mut packet = build::echo4(A, B, 77, 3, b"some data");
        let parsed = parse_ipv4(&packet).unwrap();
        assert_eq!((parsed.src_port, parsed.dst_port), (77, 77));
        echo_reply_in_place(&mut packet, &parsed, B).unwrap();
        let ip = ipv4::Packet::new_checked(&packet[..]).unwrap();
        let repr = ipv4::Repr::parse(&ip).unwrap();
        assert_eq!((repr.src, repr.dst, repr.ttl), (B, A, 64));
        let reply = Repr::parse(&Packet::new_checked(ip.payload()).unwrap());
        assert_eq!(reply, Ok(Repr::EchoReply { ident: 77, seq: 3, data: b"some data" }));
        assert_eq!(
            echo_reply_in_place(&mut packet.clone(), &parse_ipv4(&packet).unwrap(), B),
            Err(Malformed::Unknown)
        );
    }

    #[test]
    fn every_error_survives_emit_and_parse() {
        for error in [
            Error::Unreachable(13),
            Error::FragmentationNeeded(1400),
            Error::Redirect(1, A),
            Error::TtlExceeded,
            Error::ReassemblyTimeExceeded,
            Error::ParameterProblem(20),
        ] {
            let mut out = [0; 16];
            Repr::Error(error, &[1; 8]).emit(&mut out).unwrap();
            assert_eq!(Repr::parse(&Packet::new_checked(&out[..]).unwrap()), Ok(Repr::Error(error, &[1; 8])));
        }
    }
}
