//! The IPv4 header (RFC 791). Options are octets with a bounded walk; nothing here acts on them.
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! | version |  ihl  |     tos     |          total length         |  0
//! |         identification        |0 D M|     fragment offset     |  4
//! |      ttl      |   protocol    |        header checksum        |  8
//! |                            source                             | 12
//! |                         destination                           | 16
//! |                        options, 0..40                         | 20
//! ```

use core::net::Ipv4Addr;

use crate::{
    IpProto, Malformed, checksum,
    view::{get, put},
};

/// Octets of a header without options.
pub const HEADER_LEN: usize = 20;
/// Octets of the longest header.
pub const MAX_HEADER_LEN: usize = 60;
/// The least MTU a link may have (RFC 791).
pub const MIN_MTU: usize = 68;
/// "Don't fragment", in the word at offset 6.
pub const DF: u16 = 0x4000;
/// "More fragments".
pub const MF: u16 = 0x2000;
/// The fragment offset, in units of eight octets.
pub const OFFSET_MASK: u16 = 0x1fff;

/// All hosts on the link, 224.0.0.1.
pub const ALL_HOSTS: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 1);
/// All routers on the link, 224.0.0.2.
pub const ALL_ROUTERS: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 2);
/// All IGMPv3 routers, 224.0.0.22.
pub const ALL_IGMP_ROUTERS: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 22);

view! {
    /// An IPv4 packet. Octets after the total length (Ethernet padding) belong to nobody.
    Packet
}

fields! { Packet:
    /// Type of service: DSCP and ECN.
    u8, tos, set_tos @ 1;
    /// Octets of header and payload.
    u16, total_len, set_total_len @ 2;
    /// Identification of the datagram, for reassembly.
    u16, ident, set_ident @ 4;
    /// Flags and fragment offset, as one word.
    u16, frag, set_frag @ 6;
    /// Time to live.
    u8, ttl, set_ttl @ 8;
    /// Protocol of the payload.
    IpProto, proto, set_proto @ 9;
    /// Header checksum.
    u16, checksum, set_checksum @ 10;
    /// Source address.
    Ipv4Addr, src, set_src @ 12;
    /// Destination address.
    Ipv4Addr, dst, set_dst @ 16;
}

impl<T: AsRef<[u8]>> Packet<T> {
    /// Whether header and payload are there: everything but the checksum.
    pub fn check_len(&self) -> Result<(), Malformed> {
        let octets = self.octets();
        if octets.len() < HEADER_LEN {
            return Err(Malformed::Truncated);
        }
        if octets[0] >> 4 != 4 {
            return Err(Malformed::Version);
        }
        let (header, total) = (self.header_len(), self.total_len() as usize);
        if header < HEADER_LEN || header > octets.len() {
            return Err(Malformed::HeaderLength);
        }
        if total < header || total > octets.len() {
            return Err(Malformed::Length);
        }
        Ok(())
    }

    /// Octets of the header, options included.
    pub fn header_len(&self) -> usize {
        usize::from(self.octets()[0] & 0x0f) * 4
    }

    /// Whether the datagram may not be fragmented.
    pub fn dont_fragment(&self) -> bool {
        self.frag() & DF != 0
    }

    /// Whether later fragments follow.
    pub fn more_fragments(&self) -> bool {
        self.frag() & MF != 0
    }

    /// Where the payload belongs in the datagram, in octets.
    pub fn frag_offset(&self) -> u16 {
        (self.frag() & OFFSET_MASK) << 3
    }

    /// Whether this is a part of a datagram only.
    pub fn is_fragment(&self) -> bool {
        self.frag() & (MF | OFFSET_MASK) != 0
    }

    /// Whether the header checksum verifies.
    pub fn checksum_ok(&self) -> bool {
        checksum::sum(&self.octets()[..self.header_len()]) == 0xffff
    }

    /// The walk over the options.
    pub fn options(&self) -> Options<'_> {
        Options { area: &self.octets()[HEADER_LEN..self.header_len()], at: 0 }
    }
}

impl<'a> Packet<&'a [u8]> {
    /// What follows the header, up to the total length.
    pub fn payload(&self) -> &'a [u8] {
        &self.buffer[self.header_len()..self.total_len() as usize]
    }
}

impl<T: AsRef<[u8]> + AsMut<[u8]>> Packet<T> {
    /// What follows the header, to change.
    pub fn payload_mut(&mut self) -> &mut [u8] {
        let range = self.header_len()..self.total_len() as usize;
        &mut self.octets_mut()[range]
    }

    /// Computes and writes the header checksum.
    pub fn fill_checksum(&mut self) {
        self.set_checksum(0);
        let checksum = checksum::finish(checksum::sum(&self.octets()[..self.header_len()]));
        self.set_checksum(checksum);
    }
}

/// One option of an IPv4 header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeaderOption<'a> {
    /// Type octet: copied flag, class, number.
    pub kind: u8,
    /// Where the type octet stands, from the start of the options.
    pub at: usize,
    /// What follows type and length.
    pub data: &'a [u8],
}

impl HeaderOption<'_> {
    /// Record route.
    pub const RECORD_ROUTE: u8 = 7;
    /// Time stamp.
    pub const TIMESTAMP: u8 = 68;
    /// Loose source and record route.
    pub const LOOSE_SOURCE_ROUTE: u8 = 131;
    /// Strict source and record route.
    pub const STRICT_SOURCE_ROUTE: u8 = 137;
    /// Router alert (RFC 2113).
    pub const ROUTER_ALERT: u8 = 148;

    /// Whether every fragment must carry the option.
    pub const fn is_copied(&self) -> bool {
        self.kind & 0x80 != 0
    }

    /// Whether the sender wants to choose the route. Routers refuse this (RFC 7126, 4.3).
    pub const fn is_source_route(&self) -> bool {
        matches!(self.kind, Self::LOOSE_SOURCE_ROUTE | Self::STRICT_SOURCE_ROUTE)
    }
}

/// The walk over IPv4 options: padding is passed over, an end-of-list ends it, a bad length ends it with an error.
#[derive(Debug, Clone)]
pub struct Options<'a> {
    area: &'a [u8],
    at: usize,
}

impl<'a> Options<'a> {
    /// Walks the options area of a header, without the fixed part.
    pub const fn new(area: &'a [u8]) -> Self {
        Self { area, at: 0 }
    }
}

impl<'a> Iterator for Options<'a> {
    type Item = Result<HeaderOption<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let (at, rest) = (self.at, &self.area[self.at..]);
            match *rest {
                [] | [0, ..] => return None,
                [1, ..] => self.at += 1,
                [kind, len, ..] if len >= 2 && usize::from(len) <= rest.len() => {
                    self.at += usize::from(len);
                    return Some(Ok(HeaderOption { kind, at, data: &rest[2..usize::from(len)] }));
                }
                _ => {
                    self.at = self.area.len();
                    return Some(Err(Malformed::Option));
                }
            }
        }
    }
}

/// A legal IPv4 header without options. A packet with options parses, and emits without them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Repr {
    /// Source address.
    pub src: Ipv4Addr,
    /// Destination address.
    pub dst: Ipv4Addr,
    /// Protocol of the payload.
    pub proto: IpProto,
    /// Octets of the payload.
    pub payload_len: u16,
    /// Type of service.
    pub tos: u8,
    /// Identification.
    pub ident: u16,
    /// Flags and fragment offset, as on the wire.
    pub frag: u16,
    /// Time to live.
    pub ttl: u8,
}

impl Default for Repr {
    fn default() -> Self {
        Self {
            src: Ipv4Addr::UNSPECIFIED,
            dst: Ipv4Addr::UNSPECIFIED,
            proto: IpProto::NO_NEXT,
            payload_len: 0,
            tos: 0,
            ident: 0,
            frag: 0,
            ttl: 64,
        }
    }
}

impl Repr {
    /// Reads a header whose lengths and checksum are right.
    pub fn parse<T: AsRef<[u8]>>(packet: &Packet<T>) -> Result<Self, Malformed> {
        packet.check_len()?;
        if !packet.checksum_ok() {
            return Err(Malformed::Checksum);
        }
        Ok(Self {
            src: packet.src(),
            dst: packet.dst(),
            proto: packet.proto(),
            payload_len: packet.total_len() - packet.header_len() as u16,
            tos: packet.tos(),
            ident: packet.ident(),
            frag: packet.frag(),
            ttl: packet.ttl(),
        })
    }

    /// Octets that [`Self::emit`] writes.
    pub const fn buffer_len(&self) -> usize {
        HEADER_LEN
    }

    /// Writes the header, checksum included, to the front of `out`.
    pub fn emit(&self, out: &mut [u8]) -> Result<usize, Malformed> {
        let total = self.payload_len.checked_add(HEADER_LEN as u16).ok_or(Malformed::Length)?;
        let out = out.get_mut(..HEADER_LEN).ok_or(Malformed::Truncated)?;
        out[0] = 0x45;
        let mut packet = Packet::new_unchecked(out);
        packet.set_tos(self.tos);
        packet.set_total_len(total);
        packet.set_ident(self.ident);
        packet.set_frag(self.frag);
        packet.set_ttl(self.ttl);
        packet.set_proto(self.proto);
        packet.set_src(self.src);
        packet.set_dst(self.dst);
        packet.fill_checksum();
        Ok(HEADER_LEN)
    }

    /// The sum of the pseudo-header of this packet's transport.
    pub const fn pseudo(&self) -> u32 {
        match self.proto {
            IpProto::ICMP => 0,
            proto => checksum::pseudo_v4(self.src, self.dst, proto, self.payload_len as u32),
        }
    }
}

/// Takes one hop off the time to live and keeps the header checksum right. Returns what is left; `None`, and nothing is changed, when the packet
/// may not go on (RFC 1812, 5.3.1: it had one hop or none) or is no header.
#[inline(always)]
pub fn decrement_ttl(packet: &mut [u8]) -> Option<u8> {
    let header: &mut [u8; HEADER_LEN] = packet.first_chunk_mut()?;
    if header[8] <= 1 {
        return None;
    }
    header[8] -= 1;
    // The word of ttl and protocol lost 0x0100, so the complement gains it; RFC 1141 with the correction of RFC 1624.
    let sum = u32::from(u16::from_be_bytes([header[10], header[11]])) + 0x0100;
    let sum = (sum + u32::from(sum >= 0xffff)) as u16;
    [header[10], header[11]] = sum.to_be_bytes();
    Some(header[8])
}

/// Changes the type of service and keeps the header checksum right.
#[inline]
pub fn set_tos(packet: &mut [u8; HEADER_LEN], tos: u8) {
    let old: u16 = get(packet, 0);
    packet[1] = tos;
    fix(packet, old, get(packet, 0));
}

/// Changes the time to live and keeps the header checksum right.
#[inline]
pub fn set_ttl(packet: &mut [u8; HEADER_LEN], ttl: u8) {
    let old: u16 = get(packet, 8);
    packet[8] = ttl;
    fix(packet, old, get(packet, 8));
}

/// Changes identification, flags or fragment offset, or total length: the word at the even offset `at`, and keeps the header checksum right.
#[inline]
pub fn set_word(packet: &mut [u8; HEADER_LEN], at: usize, new: u16) {
    debug_assert!(at.is_multiple_of(2) && at != 10);
    let old: u16 = get(packet, at);
    put(packet, at, new);
    fix(packet, old, new);
}

#[inline(always)]
fn fix(packet: &mut [u8; HEADER_LEN], old: u16, new: u16) {
    let checksum = checksum::update16(get(packet, 10), old, new);
    put(packet, 10, checksum);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn header(ttl: u8, ident: u16) -> [u8; 20] {
        let mut out = [0; 20];
        let repr =
            Repr { src: [10, 0, 0, 1].into(), dst: [10, 0, 0, 2].into(), ttl, ident, ..Repr::default() };
        repr.emit(&mut out).unwrap();
        out
    }

    #[test]
    fn a_packet_of_one_hop_is_not_touched() {
        for ttl in [0, 1] {
            let before = header(ttl, 7);
            let mut after = before;
            assert_eq!(decrement_ttl(&mut after), None);
            assert_eq!(before, after);
        }
        assert_eq!(decrement_ttl(&mut [0x45; 19]), None);
    }

    #[test]
    fn every_identification_and_hop_count_keeps_a_right_checksum() {
        for ident in 0..=u16::MAX {
            let mut packet = header(64, ident);
            assert_eq!(decrement_ttl(&mut packet), Some(63));
            assert_eq!(packet, header(63, ident), "ident {ident}");
        }
    }

    #[test]
    fn a_source_route_is_found_and_a_bad_length_ends_the_walk() {
        let options: Vec<_> = Options::new(&[1, 131, 7, 4, 192, 0, 2, 1, 148, 4, 0, 0, 0, 9]).collect();
        assert!(options[0].unwrap().is_source_route());
        assert_eq!(options[1].unwrap(), HeaderOption { kind: 148, at: 8, data: &[0, 0] });
        assert_eq!(options.len(), 2);
        for bad in [&[7][..], &[7, 0], &[7, 1], &[7, 3]] {
            assert_eq!(Options::new(bad).collect::<Vec<_>>(), [Err(Malformed::Option)]);
        }
    }

    proptest! {
        #[test]
        fn fields_change_and_the_checksum_follows(mut h in any::<[u8; 20]>(), tos: u8, ttl: u8, id: u16) {
            h[0] = 0x45;
            Packet::new_unchecked(&mut h).fill_checksum();
            set_tos(&mut h, tos);
            set_ttl(&mut h, ttl);
            set_word(&mut h, 4, id);
            let packet = Packet::new_unchecked(&h[..]);
            prop_assert!(packet.checksum_ok());
            prop_assert_eq!((packet.tos(), packet.ttl(), packet.ident()), (tos, ttl, id));
        }
    }
}
