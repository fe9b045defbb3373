//! Cutting a super-frame: the header arithmetic of TSO and USO. The caller owns buffers; nothing here allocates or keeps a packet.
//!
//! A super-frame is one IP packet with up to 64 KiB of TCP or UDP payload and a segment size. Segment `i` gets the super-frame's headers with
//!
//! - IPv4 total length, identification (one more a segment, or the same in all) and header checksum; IPv6 payload length;
//! - TCP sequence number; FIN and PSH in the last segment only, CWR in the first only (RFC 3168, 6.1.2); UDP length;
//! - a whole transport checksum, from the payload's sum, which copying the payload yields.
//!
//! What all segments share is summed once, in [`Cut::new`]. The cost of a segment is then copying its octets, summing them, and about forty more.

use core::ops::Range;

use crate::{
    IpProto, Malformed,
    checksum::{self, copy_and_sum, sum, sum32},
    ipv4, ipv6,
    parse::{Flags, Parsed},
    tcp, udp,
    view::{get, put},
};

/// What kind of super-frame: transport and IP version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// TCP over IPv4.
    Tcp4,
    /// TCP over IPv6.
    Tcp6,
    /// UDP over IPv4.
    Udp4,
    /// UDP over IPv6.
    Udp6,
}

impl Kind {
    /// The kind of a packet, if its transport can be cut at all: TCP or UDP, whole header, no fragment.
    #[inline]
    pub const fn of(parsed: &Parsed) -> Option<Self> {
        if parsed.is_fragment() || parsed.flags.contains(Flags::SHORT) {
            return None;
        }
        match (parsed.proto, parsed.is_v6()) {
            (IpProto::TCP, false) => Some(Self::Tcp4),
            (IpProto::TCP, true) => Some(Self::Tcp6),
            (IpProto::UDP, false) => Some(Self::Udp4),
            (IpProto::UDP, true) => Some(Self::Udp6),
            _ => None,
        }
    }

    /// Whether the transport is TCP.
    #[inline(always)]
    pub const fn is_tcp(self) -> bool {
        matches!(self, Self::Tcp4 | Self::Tcp6)
    }

    /// Whether the network is IPv6.
    #[inline(always)]
    pub const fn is_v6(self) -> bool {
        matches!(self, Self::Tcp6 | Self::Udp6)
    }

    /// The transport.
    #[inline(always)]
    pub const fn proto(self) -> IpProto {
        if self.is_tcp() { IpProto::TCP } else { IpProto::UDP }
    }

    /// Where the checksum stands in the transport header.
    #[inline(always)]
    pub const fn checksum_offset(self) -> usize {
        if self.is_tcp() { 16 } else { 6 }
    }

    /// Octets of the transport header that begins at `l4`, if it is there.
    #[inline(always)]
    pub(crate) fn transport_len(self, packet: &[u8], l4: usize) -> Result<usize, Malformed> {
        if !self.is_tcp() {
            return Ok(udp::HEADER_LEN);
        }
        let len = usize::from(*packet.get(l4 + 12).ok_or(Malformed::Truncated)? >> 4) * 4;
        if len < tcp::HEADER_LEN { Err(Malformed::HeaderLength) } else { Ok(len) }
    }

    /// The sum of both addresses and the protocol: the pseudo-header without its length.
    #[inline(always)]
    pub(crate) fn pseudo(self, packet: &[u8]) -> u32 {
        let addresses = if self.is_v6() { &packet[8..40] } else { &packet[12..20] };
        sum(addresses) + u32::from(self.proto().0)
    }
}

/// A super-frame about to be cut.
#[derive(Debug, Clone, Copy)]
pub struct Cut<'a> {
    headers: &'a [u8],
    kind: Kind,
    l4: usize,
    size: usize,
    payload_len: usize,
    fixed_ident: bool,
    /// Sum of the IPv4 header without total length, identification and checksum.
    network_sum: u32,
    /// Sum of the pseudo-header and the transport header without what differs by segment.
    transport_sum: u32,
}

impl<'a> Cut<'a> {
    /// Prepares to cut `packet`, whose transport header is at `l4`, into segments with `size` octets of payload, the last with what is left. `packet` may
    /// end after the headers: the payload has `payload_len` octets wherever it is. With `fixed_ident` all segments keep the super-frame's IPv4
    /// identification, as [`crate::coalesce`] found it.
    pub fn new(
        packet: &'a [u8],
        kind: Kind,
        l4: usize,
        size: usize,
        payload_len: usize,
        fixed_ident: bool,
    ) -> Result<Self, Malformed> {
        let network_len = if kind.is_v6() { ipv6::HEADER_LEN } else { ipv4::HEADER_LEN };
        if l4 < network_len || size == 0 {
            return Err(Malformed::HeaderLength);
        }
        let header_len = l4 + kind.transport_len(packet, l4)?;
        let headers = packet.get(..header_len).ok_or(Malformed::Truncated)?;
        if header_len + size.min(payload_len) > 0xffff {
            return Err(Malformed::Length);
        }
        let network_sum =
            if kind.is_v6() { 0 } else { sum(&headers[..2]) + sum(&headers[6..10]) + sum(&headers[12..l4]) };
        let t = &headers[l4..];
        let transport = if kind.is_tcp() {
            sum(&t[..4]) + sum(&t[8..12]) + sum(&t[14..16]) + sum(&t[18..])
        } else {
            sum(&t[..4])
        };
        let transport_sum = transport + kind.pseudo(headers);
        Ok(Self { headers, kind, l4, size, payload_len, fixed_ident, network_sum, transport_sum })
    }

    /// How many segments there will be: one at least.
    #[inline]
    pub const fn segments(&self) -> usize {
        if self.payload_len == 0 { 1 } else { self.payload_len.div_ceil(self.size) }
    }

    /// Octets of the IP and transport headers of each segment.
    #[inline]
    pub const fn header_len(&self) -> usize {
        self.headers.len()
    }

    /// Octets of the largest segment, from the IP header on: what an MTU is compared with.
    #[inline]
    pub fn largest(&self) -> usize {
        self.headers.len() + self.size.min(self.payload_len)
    }

    /// Which octets of the payload segment `index` carries.
    #[inline]
    pub fn payload_range(&self, index: usize) -> Range<usize> {
        let start = (index * self.size).min(self.payload_len);
        start..(start + self.size).min(self.payload_len)
    }

    /// Octets of segment `index`, from the IP header on.
    #[inline]
    pub fn segment_len(&self, index: usize) -> usize {
        self.headers.len() + self.payload_range(index).len()
    }

    /// Writes the headers of segment `index` to the front of `out`; `payload_sum` is the sum of its payload. Returns their length.
    #[inline]
    pub fn write_headers(&self, index: usize, payload_sum: u32, out: &mut [u8]) -> Result<usize, Malformed> {
        let len = self.headers.len();
        let out = out.get_mut(..len).ok_or(Malformed::Truncated)?;
        out.copy_from_slice(self.headers);
        let transport_len = self.segment_len(index) - self.l4;
        self.write_network(index, transport_len, out);
        if self.kind.is_tcp() {
            self.write_tcp(index, transport_len, payload_sum, out);
        } else {
            self.write_udp(transport_len, payload_sum, out);
        }
        Ok(len)
    }

    /// Writes the whole segment `index` to the front of `out`: headers, and its part of the super-frame's `payload`. Returns its length.
    #[inline]
    pub fn write_segment(&self, index: usize, payload: &[u8], out: &mut [u8]) -> Result<usize, Malformed> {
        let chunk = payload.get(self.payload_range(index)).ok_or(Malformed::Truncated)?;
        let total = self.headers.len() + chunk.len();
        let out = out.get_mut(..total).ok_or(Malformed::Truncated)?;
        let payload_sum = copy_and_sum(&mut out[self.headers.len()..], chunk);
        self.write_headers(index, payload_sum, out)?;
        Ok(total)
    }

    #[inline(always)]
    fn write_network(&self, index: usize, transport_len: usize, out: &mut [u8]) {
        if self.kind.is_v6() {
            put(out, 4, (self.l4 - ipv6::HEADER_LEN + transport_len) as u16);
            return;
        }
        let total = (self.l4 + transport_len) as u16;
        let step = if self.fixed_ident { 0 } else { index as u16 };
        let ident = get::<u16>(self.headers, 4).wrapping_add(step);
        put(out, 2, total);
        put(out, 4, ident);
        put(out, 10, checksum::finish(self.network_sum + u32::from(total) + u32::from(ident)));
    }

    #[inline(always)]
    fn write_tcp(&self, index: usize, transport_len: usize, payload_sum: u32, out: &mut [u8]) {
        let seq = get::<u32>(self.headers, self.l4 + 4).wrapping_add((index * self.size) as u32);
        let mut word: u16 = get(self.headers, self.l4 + 12);
        if index + 1 < self.segments() {
            word &= !u16::from((tcp::Flags::FIN | tcp::Flags::PSH).0);
        }
        if index > 0 {
            word &= !u16::from(tcp::Flags::CWR.0);
        }
        put(out, self.l4 + 4, seq);
        put(out, self.l4 + 12, word);
        let total = self.transport_sum + sum32(seq) + u32::from(word) + transport_len as u32 + payload_sum;
        put(out, self.l4 + 16, checksum::finish(total));
    }

    #[inline(always)]
    fn write_udp(&self, transport_len: usize, payload_sum: u32, out: &mut [u8]) {
        put(out, self.l4 + 4, transport_len as u16);
        let total = self.transport_sum + 2 * transport_len as u32 + payload_sum;
        put(out, self.l4 + 6, checksum::finish_udp(total));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{build, parse::parse_ip, tcp::Flags as T};

    fn segments(packet: &[u8], size: usize, fixed_ident: bool) -> Vec<Vec<u8>> {
        let parsed = parse_ip(packet).unwrap();
        let kind = Kind::of(&parsed).unwrap();
        let l4 = usize::from(parsed.l4);
        let at = l4 + kind.transport_len(packet, l4).unwrap();
        let cut = Cut::new(&packet[..at], kind, l4, size, packet.len() - at, fixed_ident).unwrap();
        let mut all = Vec::new();
        for index in 0..cut.segments() {
            let mut out = vec![0xee; cut.segment_len(index)];
            assert_eq!(cut.write_segment(index, &packet[at..], &mut out), Ok(out.len()));
            all.push(out);
        }
        all
    }

    #[test]
    fn tcp_over_ipv4_is_cut_into_segments_that_the_sender_could_have_sent() {
        let (src, dst) = ([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
        let header = ipv4::Repr { src, dst, ident: 0xffff, frag: ipv4::DF, tos: 3, ..Default::default() };
        let all = T::FIN | T::PSH | T::ACK | T::CWR | T::ECE;
        let tcp = tcp::Repr {
            seq: u32::MAX - 50,
            ack: 9,
            flags: all,
            timestamps: Some((1, 2)),
            ..Default::default()
        };
        let payload: Vec<u8> = (0..250).collect();
        let packet = build::tcp4_with(header, &tcp, &payload);
        let expected =
            [(0, T::ACK | T::CWR | T::ECE), (100, T::ACK | T::ECE), (200, T::FIN | T::PSH | T::ACK | T::ECE)];
        for (index, (at, flags)) in expected.into_iter().enumerate() {
            let ident = 0xffff_u16.wrapping_add(index as u16);
            let tcp = tcp::Repr { seq: tcp.seq.wrapping_add(at as u32), flags, ..tcp };
            let wanted =
                build::tcp4_with(ipv4::Repr { ident, ..header }, &tcp, &payload[at..(at + 100).min(250)]);
            assert_eq!(segments(&packet, 100, false)[index], wanted, "segment {index}");
            let wanted = build::tcp4_with(header, &tcp, &payload[at..(at + 100).min(250)]);
            assert_eq!(segments(&packet, 100, true)[index], wanted, "segment {index}, fixed identification");
        }
        assert_eq!(segments(&packet, 100, false).len(), 3);
    }

    #[test]
    fn udp_over_ipv6_is_cut_into_datagrams_that_the_sender_could_have_sent() {
        let header = ipv6::Repr { src: 1.into(), dst: 2.into(), flow_label: 77, ..ipv6::Repr::default() };
        let udp = udp::Repr { src_port: 1, dst_port: 2 };
        let payload: Vec<u8> = (0..200).collect();
        let cut = segments(&build::udp6_with(header, &udp, &payload), 77, false);
        let wanted: Vec<_> = payload.chunks(77).map(|chunk| build::udp6_with(header, &udp, chunk)).collect();
        assert_eq!(cut, wanted);
    }

    #[test]
    fn a_packet_of_one_segment_is_cut_into_itself() {
        for payload in [&b""[..], b"12345"] {
            let packet = build::udp4([10, 0, 0, 1].into(), [10, 0, 0, 2].into(), 7, 8, payload);
            assert_eq!(segments(&packet, 1400, false), [packet]);
        }
    }

    #[test]
    fn headers_that_cannot_be_cut_are_refused() {
        let packet = build::udp4([10, 0, 0, 1].into(), [10, 0, 0, 2].into(), 7, 8, b"x");
        assert_eq!(Cut::new(&packet, Kind::Udp4, 20, 0, 1, false).err(), Some(Malformed::HeaderLength));
        assert_eq!(Cut::new(&packet, Kind::Udp4, 12, 9, 1, false).err(), Some(Malformed::HeaderLength));
        assert_eq!(Cut::new(&packet[..27], Kind::Udp4, 20, 9, 1, false).err(), Some(Malformed::Truncated));
        assert_eq!(Cut::new(&packet, Kind::Tcp4, 20, 9, 1, false).err(), Some(Malformed::Truncated));
        assert_eq!(Cut::new(&packet, Kind::Udp4, 20, 70_000, 70_000, false).err(), Some(Malformed::Length));
    }
}
