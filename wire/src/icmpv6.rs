//! ICMPv6 (RFC 4443): messages, the errors a router owes, echo answered in place. Neighbour discovery is in `nd`. Rate limits, and the choice of a
//! source address, are the caller's.

use core::net::Ipv6Addr;

use crate::{
    IpProto, Malformed, checksum, ipv6,
    parse::{Flags, Parsed, parse_quoted},
    view::{get, put},
};

/// Octets before the data.
pub const HEADER_LEN: usize = 8;
/// Octets of an error packet at most, IP header included: the least MTU (RFC 4443, 2.4 c).
pub const MAX_ERROR_LEN: usize = ipv6::MIN_MTU;

/// Message types.
pub mod kind {
    /// Destination unreachable.
    pub const UNREACHABLE: u8 = 1;
    /// Packet too big.
    pub const PACKET_TOO_BIG: u8 = 2;
    /// Time exceeded.
    pub const TIME_EXCEEDED: u8 = 3;
    /// Parameter problem.
    pub const PARAMETER_PROBLEM: u8 = 4;
    /// Echo request.
    pub const ECHO_REQUEST: u8 = 128;
    /// Echo reply.
    pub const ECHO_REPLY: u8 = 129;
    /// Multicast listener query (RFC 2710, 3810).
    pub const MLD_QUERY: u8 = 130;
    /// Multicast listener report, version 1.
    pub const MLD_REPORT: u8 = 131;
    /// Multicast listener done, version 1.
    pub const MLD_DONE: u8 = 132;
    /// Router solicitation (RFC 4861).
    pub const ROUTER_SOLICIT: u8 = 133;
    /// Router advertisement.
    pub const ROUTER_ADVERT: u8 = 134;
    /// Neighbour solicitation.
    pub const NEIGHBOR_SOLICIT: u8 = 135;
    /// Neighbour advertisement.
    pub const NEIGHBOR_ADVERT: u8 = 136;
    /// Redirect.
    pub const REDIRECT: u8 = 137;
    /// Multicast listener report, version 2 (RFC 3810).
    pub const MLD2_REPORT: u8 = 143;
}

/// Codes of destination unreachable.
pub mod unreachable {
    /// No route.
    pub const NO_ROUTE: u8 = 0;
    /// Forbidden by a filter.
    pub const ADMIN_PROHIBITED: u8 = 1;
    /// The source address is of a smaller scope than the destination.
    pub const BEYOND_SCOPE: u8 = 2;
    /// No answer from a neighbour.
    pub const ADDRESS: u8 = 3;
    /// No one listens.
    pub const PORT: u8 = 4;
    /// The source address is refused by policy.
    pub const SOURCE_POLICY: u8 = 5;
    /// The route rejects.
    pub const REJECT_ROUTE: u8 = 6;
}

/// Codes of parameter problem.
pub mod problem {
    /// A header field.
    pub const FIELD: u8 = 0;
    /// A next header that is not known.
    pub const NEXT_HEADER: u8 = 1;
    /// An option that is not known.
    pub const OPTION: u8 = 2;
    /// A first fragment without the whole header chain (RFC 7112).
    pub const FIRST_FRAGMENT: u8 = 3;
}

view! {
    /// An ICMPv6 message.
    Packet
}

fields! { Packet:
    /// Message type: below 128 an error.
    u8, kind, set_kind @ 0;
    /// Code within the type.
    u8, code, set_code @ 1;
    /// Checksum over pseudo-header and message.
    u16, checksum, set_checksum @ 2;
    /// What stands between checksum and data, as one word.
    u32, rest, set_rest @ 4;
    /// Identifier, of echo.
    u16, ident, set_ident @ 4;
    /// Sequence number, of echo.
    u16, seq, set_seq @ 6;
}

impl<T: AsRef<[u8]>> Packet<T> {
    /// Whether the header is there.
    pub fn check_len(&self) -> Result<(), Malformed> {
        if self.octets().len() < HEADER_LEN { Err(Malformed::Truncated) } else { Ok(()) }
    }

    /// Whether the checksum verifies.
    pub fn checksum_ok(&self, src: Ipv6Addr, dst: Ipv6Addr) -> bool {
        let octets = self.octets();
        let pseudo = checksum::pseudo_v6(src, dst, IpProto::ICMPV6, octets.len() as u32);
        checksum::transport_sum(pseudo, octets) == 0
    }
}

impl<'a> Packet<&'a [u8]> {
    /// What follows the header.
    pub fn payload(&self) -> &'a [u8] {
        &self.buffer[HEADER_LEN..]
    }
}

/// Whether a message of this type reports an error.
#[inline]
pub const fn is_error(kind: u8) -> bool {
    kind < 128
}

/// What an ICMPv6 error says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Error {
    /// Destination unreachable with a code of [`mod@unreachable`].
    Unreachable(u8),
    /// Too big for the next link; its MTU.
    PacketTooBig(u32),
    /// No hop left.
    HopLimitExceeded,
    /// Not all fragments came.
    ReassemblyTimeExceeded,
    /// A code of [`problem`] and the octet it is about.
    ParameterProblem(u8, u32),
}

impl Error {
    /// Type, code and rest of the header.
    pub const fn header(self) -> (u8, u8, u32) {
        match self {
            Self::Unreachable(code) => (kind::UNREACHABLE, code, 0),
            Self::PacketTooBig(mtu) => (kind::PACKET_TOO_BIG, 0, mtu),
            Self::HopLimitExceeded => (kind::TIME_EXCEEDED, 0, 0),
            Self::ReassemblyTimeExceeded => (kind::TIME_EXCEEDED, 1, 0),
            Self::ParameterProblem(code, pointer) => (kind::PARAMETER_PROBLEM, code, pointer),
        }
    }

    /// The error of these fields. The code of "packet too big" is not looked at (RFC 4443, 3.2).
    pub const fn from_header(kind: u8, code: u8, rest: u32) -> Option<Self> {
        Some(match (kind, code) {
            (kind::UNREACHABLE, code) => Self::Unreachable(code),
            (kind::PACKET_TOO_BIG, _) => Self::PacketTooBig(rest),
            (kind::TIME_EXCEEDED, 0) => Self::HopLimitExceeded,
            (kind::TIME_EXCEEDED, 1) => Self::ReassemblyTimeExceeded,
            (kind::PARAMETER_PROBLEM, code) => Self::ParameterProblem(code, rest),
            _ => return None,
        })
    }

    /// Whether this may be said about a packet to a group, or a link-layer broadcast (RFC 4443, 2.4 e.3).
    pub const fn about_groups(self) -> bool {
        matches!(self, Self::PacketTooBig(_) | Self::ParameterProblem(problem::OPTION, _))
    }
}

/// A message of the types this file reads.
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
    pub fn parse(packet: &Packet<&'a [u8]>, src: Ipv6Addr, dst: Ipv6Addr) -> Result<Self, Malformed> {
        packet.check_len()?;
        if !packet.checksum_ok(src, dst) {
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
    pub fn emit(&self, out: &mut [u8], src: Ipv6Addr, dst: Ipv6Addr) -> Result<usize, Malformed> {
        let (kind, code, rest, data) = self.parts();
        let len = HEADER_LEN + data.len();
        let mut packet = Packet::new_unchecked(out.get_mut(..len).ok_or(Malformed::Truncated)?);
        packet.set_kind(kind);
        packet.set_code(code);
        packet.set_rest(rest);
        let octets = packet.into_inner();
        octets[HEADER_LEN..].copy_from_slice(data);
        fill_checksum(octets, src, dst);
        Ok(len)
    }
}

/// Computes and writes the checksum of a message, which must have its header.
pub(crate) fn fill_checksum(message: &mut [u8], src: Ipv6Addr, dst: Ipv6Addr) {
    put(message, 2, 0_u16);
    let pseudo = checksum::pseudo_v6(src, dst, IpProto::ICMPV6, message.len() as u32);
    let checksum = checksum::transport_sum(pseudo, message);
    put(message, 2, checksum);
}

/// Whether `error` may be sent about `packet` (RFC 4443, 2.4 e): not about an ICMPv6 error or redirect, a fragment but the first, a packet to a group
/// (but see [`Error::about_groups`]) or from no single node. That the frame was a link-layer broadcast only the caller knows.
pub fn may_answer(packet: &[u8], error: Error) -> bool {
    let Ok(parsed) = parse_quoted(packet) else {
        return false;
    };
    if !parsed.is_v6() || parsed.is_later_fragment() {
        return false;
    }
    if parsed.proto == IpProto::ICMPV6 {
        // A message too short to show its type could be an error.
        let no_type = parsed.flags.contains(Flags::SHORT) && parsed.l4_len() == 0;
        if no_type || is_error(parsed.icmp_type) || parsed.icmp_type == kind::REDIRECT {
            return false;
        }
    }
    let (src, dst): (Ipv6Addr, Ipv6Addr) = (get(packet, 8), get(packet, 24));
    let nobody = src.is_unspecified() || src.is_multicast() || src.is_loopback();
    !nobody && (!dst.is_multicast() || error.about_groups())
}

/// Writes a whole IPv6 packet with an ICMPv6 error about `packet` to the front of `out`: from `src` to the source of `packet`, quoting as much of it as
/// fits 1,280 octets. Returns its length. Call [`may_answer`] first.
pub fn build_error(out: &mut [u8], error: Error, src: Ipv6Addr, packet: &[u8]) -> Result<usize, Malformed> {
    if packet.len() < ipv6::HEADER_LEN {
        return Err(Malformed::Truncated);
    }
    let original = ipv6::Packet::new_unchecked(packet);
    let (dst, total) = (original.src(), original.total_len());
    let room = MAX_ERROR_LEN - ipv6::HEADER_LEN - HEADER_LEN;
    let quote = &packet[..total.min(packet.len()).min(room)];
    let payload_len = (HEADER_LEN + quote.len()) as u16;
    let at = ipv6::Repr { src, dst, next_header: IpProto::ICMPV6, payload_len, ..ipv6::Repr::default() }
        .emit(out)?;
    Ok(at + Repr::Error(error, quote).emit(&mut out[at..], src, dst)?)
}

/// Turns an echo request into its reply, in place: `packet` is the IPv6 packet that `parsed` describes, whose checksum is right. The reply comes from
/// `from` (the request may have gone to a group) and goes to the request's source. A packet with extension headers is refused.
pub fn echo_reply_in_place(packet: &mut [u8], parsed: &Parsed, from: Ipv6Addr) -> Result<(), Malformed> {
    let is_request =
        parsed.proto == IpProto::ICMPV6 && parsed.icmp_type == kind::ECHO_REQUEST && parsed.is_v6();
    let plain = usize::from(parsed.l4) == ipv6::HEADER_LEN && !parsed.flags.contains(Flags::SHORT);
    if !is_request || !plain || parsed.end as usize > packet.len() {
        return Err(Malformed::Unknown);
    }
    let (header, message) = packet.split_at_mut(ipv6::HEADER_LEN);
    let mut ip = ipv6::Packet::new_unchecked(header);
    let asked = ip.dst();
    ip.set_dst(ip.src());
    ip.set_src(from);
    ip.set_hop_limit(64);
    let old: u16 = get(message, 0);
    message[0] = kind::ECHO_REPLY;
    // The source moved to the destination, which leaves the sum; only the address asked for and the type changed.
    let checksum = checksum::update16(get(message, 2), old, get(message, 0));
    put(message, 2, checksum::update128(checksum, asked, from));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{build, parse_ipv6};

    const A: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 1, 0, 0, 0, 1);
    const B: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 2, 0, 0, 0, 2);

    #[test]
    fn an_error_quotes_the_packet_up_to_1280_octets() {
        for len in [0, 100, 1183, 1184, 1185, 8000] {
            let packet = build::udp6(A, B, 1, 2, &vec![7; len]);
            let mut out = [0; MAX_ERROR_LEN];
            let n = build_error(&mut out, Error::PacketTooBig(1400), B, &packet).unwrap();
            assert_eq!(n, (packet.len() + 48).min(1280));
            let ip = ipv6::Packet::new_checked(&out[..n]).unwrap();
            assert_eq!((ip.src(), ip.dst()), (B, A));
            let message = Repr::parse(&Packet::new_checked(ip.payload()).unwrap(), B, A);
            assert_eq!(message, Ok(Repr::Error(Error::PacketTooBig(1400), &packet[..n - 48])));
            assert!(!may_answer(&out[..n], Error::HopLimitExceeded), "an error about an error");
        }
    }

    #[test]
    fn groups_are_told_only_what_rfc_4443_allows() {
        let to_all = build::udp6(A, ipv6::ALL_NODES, 1, 2, b"x");
        assert!(may_answer(&to_all, Error::PacketTooBig(1280)));
        assert!(may_answer(&to_all, Error::ParameterProblem(problem::OPTION, 42)));
        assert!(!may_answer(&to_all, Error::HopLimitExceeded));
        assert!(!may_answer(&build::udp6(Ipv6Addr::UNSPECIFIED, B, 1, 2, b"x"), Error::PacketTooBig(1280)));
        assert!(may_answer(&build::udp6(A, B, 1, 2, b"x"), Error::HopLimitExceeded));
    }

    #[test]
    fn an_echo_is_answered_in_place_from_the_address_asked_or_another() {
        for (asked, from) in [(B, B), (ipv6::ALL_NODES, B)] {
            let mut packet = build::echo6(A, asked, 77, 3, b"some data");
            let parsed = parse_ipv6(&packet).unwrap();
            echo_reply_in_place(&mut packet, &parsed, from).unwrap();
            let ip = ipv6::Packet::new_checked(&packet[..]).unwrap();
            assert_eq!((ip.src(), ip.dst(), ip.hop_limit()), (from, A, 64));
            let reply = Repr::parse(&Packet::new_checked(ip.payload()).unwrap(), from, A);
            assert_eq!(reply, Ok(Repr::EchoReply { ident: 77, seq: 3, data: b"some data" }));
        }
    }

    #[test]
    fn every_error_survives_emit_and_parse() {
        for error in [
            Error::Unreachable(1),
            Error::PacketTooBig(1400),
            Error::HopLimitExceeded,
            Error::ReassemblyTimeExceeded,
            Error::ParameterProblem(2, 42),
        ] {
            let mut out = [0; 16];
            Repr::Error(error, &[1; 8]).emit(&mut out, A, B).unwrap();
            assert_eq!(
                Repr::parse(&Packet::new_checked(&out[..]).unwrap(), A, B),
                Ok(Repr::Error(error, &[1; 8]))
            );
        }
    }
}
