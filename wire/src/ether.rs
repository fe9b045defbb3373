//! Ethernet II (RFC 894) and 802.1Q tags. Not 802.3 length/LLC frames: their "ethertype" is below 0x0600 and they are refused.
//!
//! ```text
//!  0       6       12    14            plain
//! | dst   | src   | type | payload
//!  0       6       12    14    16    18   tagged: one tag (8100), or two (88a8 then 8100)
//! | dst   | src   | tpid | tci | type | payload
//! ```

use core::{
    fmt,
    net::{Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use crate::Malformed;

/// Octets of an untagged header.
pub const HEADER_LEN: usize = 14;
/// Octets of one 802.1Q tag.
pub const TAG_LEN: usize = 4;
/// Octets of a frame without its checksum, below which a real Ethernet pads.
pub const MIN_FRAME: usize = 60;

/// A 48-bit link-layer address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// Everyone on the link.
    pub const BROADCAST: Self = Self([0xff; 6]);
    /// No address.
    pub const ZERO: Self = Self([0; 6]);

    /// Whether a group is addressed (broadcast included).
    #[inline]
    pub const fn is_multicast(self) -> bool {
        self.0[0] & 1 == 1
    }

    /// Whether everyone is addressed.
    #[inline]
    pub fn is_broadcast(self) -> bool {
        self == Self::BROADCAST
    }

    /// Whether the address can belong to one interface: no group, not zero.
    #[inline]
    pub fn is_unicast(self) -> bool {
        !self.is_multicast() && self != Self::ZERO
    }

    /// The group address of an IPv4 group (RFC 1112, 6.4).
    pub const fn multicast_v4(group: Ipv4Addr) -> Self {
        let [_, b, c, d] = group.octets();
        Self([0x01, 0x00, 0x5e, b & 0x7f, c, d])
    }

    /// The group address of an IPv6 group (RFC 2464, 7).
    pub const fn multicast_v6(group: Ipv6Addr) -> Self {
        let o = group.octets();
        Self([0x33, 0x33, o[12], o[13], o[14], o[15]])
    }

    /// The modified EUI-64 interface identifier (RFC 4291, appendix A).
    pub const fn interface_id(self) -> u64 {
        let [a, b, c, d, e, f] = self.0;
        u64::from_be_bytes([a ^ 2, b, c, 0xff, 0xfe, d, e, f])
    }

    /// The link-local IPv6 address made of the interface identifier.
    pub const fn link_local(self) -> Ipv6Addr {
        Ipv6Addr::from_bits(0xfe80 << 112 | self.interface_id() as u128)
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Text that is not six octets of hexadecimal digits between colons.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a link-layer address is six pairs of hexadecimal digits: 02:00:5e:10:00:01")]
pub struct NotAMac;

impl FromStr for Mac {
    type Err = NotAMac;

    fn from_str(text: &str) -> Result<Self, NotAMac> {
        let mut octets = [0; 6];
        let mut parts = text.split([':', '-']);
        for octet in &mut octets {
            let part = parts.next().ok_or(NotAMac)?;
            let digits = (1..=2).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_hexdigit());
            *octet = if digits {
                u8::from_str_radix(part, 16).map_err(|_| NotAMac)?
            } else {
                return Err(NotAMac);
            };
        }
        if parts.next().is_some() { Err(NotAMac) } else { Ok(Self(octets)) }
    }
}

/// What follows the Ethernet header.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct EtherType(pub u16);

impl EtherType {
    /// IPv4 (RFC 894).
    pub const IPV4: Self = Self(0x0800);
    /// ARP (RFC 826).
    pub const ARP: Self = Self(0x0806);
    /// A customer tag (802.1Q).
    pub const VLAN: Self = Self(0x8100);
    /// A service tag (802.1ad).
    pub const QINQ: Self = Self(0x88a8);
    /// IPv6 (RFC 2464).
    pub const IPV6: Self = Self(0x86dd);

    /// Whether a tag follows.
    #[inline]
    pub const fn is_tag(self) -> bool {
        matches!(self, Self::VLAN | Self::QINQ)
    }
}

impl fmt::Display for EtherType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::IPV4 => f.write_str("ipv4"),
            Self::ARP => f.write_str("arp"),
            Self::VLAN => f.write_str("vlan"),
            Self::QINQ => f.write_str("qinq"),
            Self::IPV6 => f.write_str("ipv6"),
            Self(n) => write!(f, "0x{n:04x}"),
        }
    }
}

impl fmt::Debug for EtherType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EtherType({self})")
    }
}

view! {
    /// An Ethernet II frame without its checksum. Tags are payload here: see [`Tag`].
    Frame
}

fields! { Frame:
    /// Destination.
    Mac, dst, set_dst @ 0;
    /// Source.
    Mac, src, set_src @ 6;
    /// What the payload is; a tag's identifier when the frame is tagged.
    EtherType, ethertype, set_ethertype @ 12;
}

impl<T: AsRef<[u8]>> Frame<T> {
    /// Whether the header is there and is Ethernet II.
    pub fn check_len(&self) -> Result<(), Malformed> {
        if self.octets().len() < HEADER_LEN {
            Err(Malformed::Truncated)
        } else if self.ethertype().0 < 0x0600 {
            Err(Malformed::Unknown)
        } else {
            Ok(())
        }
    }
}

impl<'a> Frame<&'a [u8]> {
    /// What follows the header, padding included.
    pub fn payload(&self) -> &'a [u8] {
        &self.buffer[HEADER_LEN..]
    }
}

impl<T: AsRef<[u8]> + AsMut<[u8]>> Frame<T> {
    /// What follows the header, to change.
    pub fn payload_mut(&mut self) -> &mut [u8] {
        &mut self.octets_mut()[HEADER_LEN..]
    }
}

view! {
    /// The four octets after a tag identifier: control information and the type of what follows. Begins at the *payload* of the frame.
    Tag
}

fields! { Tag:
    /// Priority (3 bits), drop eligible (1), VLAN identifier (12).
    u16, tci, set_tci @ 0;
    /// What follows the tag.
    EtherType, ethertype, set_ethertype @ 2;
}

impl<T: AsRef<[u8]>> Tag<T> {
    /// Whether the tag is there.
    pub fn check_len(&self) -> Result<(), Malformed> {
        if self.octets().len() < TAG_LEN { Err(Malformed::Truncated) } else { Ok(()) }
    }

    /// VLAN identifier, 0 to 4095. Zero is "priority only", 4095 is reserved.
    pub fn vid(&self) -> u16 {
        self.tci() & 0x0fff
    }

    /// Priority code point.
    pub fn priority(&self) -> u8 {
        (self.tci() >> 13) as u8
    }
}

/// An Ethernet II header with at most one tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Repr {
    /// Destination.
    pub dst: Mac,
    /// Source.
    pub src: Mac,
    /// Tag control information, when the frame carries a customer tag.
    pub tci: Option<u16>,
    /// What the payload is.
    pub ethertype: EtherType,
}

impl Repr {
    /// Reads a header with no tag or one customer tag.
    pub fn parse(frame: &Frame<&[u8]>) -> Result<Self, Malformed> {
        frame.check_len()?;
        let (dst, src, ethertype) = (frame.dst(), frame.src(), frame.ethertype());
        if ethertype != EtherType::VLAN {
            return Ok(Self { dst, src, tci: None, ethertype });
        }
        let tag = Tag::new_checked(frame.payload())?;
        Ok(Self { dst, src, tci: Some(tag.tci()), ethertype: tag.ethertype() })
    }

    /// Octets that [`Self::emit`] writes.
    pub const fn buffer_len(&self) -> usize {
        if self.tci.is_some() { HEADER_LEN + TAG_LEN } else { HEADER_LEN }
    }

    /// Writes the header to the front of `out`.
    pub fn emit(&self, out: &mut [u8]) -> Result<usize, Malformed> {
        let len = self.buffer_len();
        let out = out.get_mut(..len).ok_or(Malformed::Truncated)?;
        let mut frame = Frame::new_unchecked(out);
        frame.set_dst(self.dst);
        frame.set_src(self.src);
        frame.set_ethertype(if self.tci.is_some() { EtherType::VLAN } else { self.ethertype });
        if let Some(tci) = self.tci {
            let mut tag = Tag::new_unchecked(frame.payload_mut());
            tag.set_tci(tci);
            tag.set_ethertype(self.ethertype);
        }
        Ok(len)
    }
}

/// Destination and source of a frame whose header is there.
#[inline(always)]
pub fn addresses(header: &[u8; HEADER_LEN]) -> (Mac, Mac) {
    let h = header;
    (Mac([h[0], h[1], h[2], h[3], h[4], h[5]]), Mac([h[6], h[7], h[8], h[9], h[10], h[11]]))
}

/// Writes the two addresses and the type of an untagged header.
#[inline]
pub fn write_header(out: &mut [u8; HEADER_LEN], dst: Mac, src: Mac, ethertype: EtherType) {
    Ends::new(dst, src).write(out, ethertype);
}

/// The two addresses of a header as two numbers, in the order of their octets: written many times, put together once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    first: u64,
    last: u32,
}

impl Ends {
    /// Of frames from `src` to `dst`.
    #[inline(always)]
    pub const fn new(dst: Mac, src: Mac) -> Self {
        let [d, s] = [dst.0, src.0];
        Self {
            first: u64::from_ne_bytes([d[0], d[1], d[2], d[3], d[4], d[5], s[0], s[1]]),
            last: u32::from_ne_bytes([s[2], s[3], s[4], s[5]]),
        }
    }

    /// Writes them and the type.
    #[inline(always)]
    pub fn write(self, out: &mut [u8; HEADER_LEN], ethertype: EtherType) {
        let (addresses, kind) = out.split_at_mut(12);
        let (first, last) = addresses.split_at_mut(8);
        first.copy_from_slice(&self.first.to_ne_bytes());
        last.copy_from_slice(&self.last.to_ne_bytes());
        kind.copy_from_slice(&ethertype.0.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_map_to_group_addresses() {
        assert_eq!(Mac::multicast_v4(Ipv4Addr::new(239, 255, 1, 2)), Mac([1, 0, 0x5e, 0x7f, 1, 2]));
        let group = "ff02::1:ff12:3456".parse().unwrap();
        assert_eq!(Mac::multicast_v6(group).to_string(), "33:33:ff:12:34:56");
    }

    #[test]
    fn an_address_makes_the_link_local_address_of_rfc_4291() {
        let mac: Mac = "34:56:78:9a:bc:de".parse().unwrap();
        assert_eq!(mac.link_local().to_string(), "fe80::3656:78ff:fe9a:bcde");
    }

    #[test]
    fn text_that_is_no_address_is_refused() {
        for text in ["", "1:2:3:4:5", "1:2:3:4:5:6:7", "1:2:3:4:5:g", "1:2:3:4:5:+6", "001:2:3:4:5:6"] {
            assert_eq!(text.parse::<Mac>(), Err(NotAMac), "{text}");
        }
    }

    #[test]
    fn a_header_survives_emit_and_parse_with_and_without_tag() {
        for tci in [None, Some(0x6005)] {
            let repr =
                Repr { dst: Mac::BROADCAST, src: Mac([2, 0, 0, 0, 0, 1]), tci, ethertype: EtherType::ARP };
            let mut out = [0; 18];
            let len = repr.emit(&mut out).unwrap();
            assert_eq!(Repr::parse(&Frame::new_checked(&out[..len]).unwrap()), Ok(repr));
        }
    }
}
