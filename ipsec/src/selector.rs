//! Selectors (RFC 4301, 4.4.1.1): what a policy matches, and what a packet shows to be matched.
//!
//! Two ranges of addresses (prefixes, or from one address to another), and an upper layer: a protocol, and ranges of ports or an ICMP type and code. The ports of a fragment
//! that is not the first can not be seen (RFC 4301 calls them OPAQUE); such a packet matches a policy with ports if the
//! policy protects or discards, and does not if it bypasses: what might have to be protected is never let out in clear. Nor can the
//! protocol be seen in a fragment of IPv6 that names an extension header as what the datagram goes on with: that header, and what it says
//! comes next, are in the first fragment.
//!
//! Not here: the order of policies and what they do ([`crate::spd`]).

use kern::Mbuf;
use std::{fmt, net::IpAddr};
use wire::{IpProto, parse};

/// A range of addresses: those that share the first `len` bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Prefix {
    addr: IpAddr,
    len: u8,
}

impl Prefix {
    /// The prefix of an address; the bits behind it are cleared. `None` if it is longer than the address.
    pub fn new(addr: IpAddr, len: u8) -> Option<Prefix> {
        let addr = match addr {
            IpAddr::V4(v4) if len <= 32 => IpAddr::V4((v4.to_bits() & mask4(len)).into()),
            IpAddr::V6(v6) if len <= 128 => IpAddr::V6((v6.to_bits() & mask6(len)).into()),
            _ => return None,
        };
        Some(Prefix { addr, len })
    }

    /// The prefix of this address alone.
    pub fn host(addr: IpAddr) -> Prefix {
        Prefix { addr, len: if addr.is_ipv4() { 32 } else { 128 } }
    }

    /// Its first address.
    pub const fn addr(&self) -> IpAddr {
        self.addr
    }

    /// Bits that count.
    pub const fn len(&self) -> u8 {
        self.len
    }

    /// Whether it is all addresses of its family.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether it is of one address.
    pub const fn is_host(&self) -> bool {
        self.len == if self.addr.is_ipv4() { 32 } else { 128 }
    }

    /// Whether an address lies in it.
    pub fn contains(&self, addr: IpAddr) -> bool {
        Prefix::new(addr, self.len).is_some_and(|p| p == *self)
    }
}

pub(crate) const fn mask4(len: u8) -> u32 {
    if len == 0 { 0 } else { u32::MAX << (32 - len) }
}

pub(crate) const fn mask6(len: u8) -> u128 {
    if len == 0 { 0 } else { u128::MAX << (128 - len) }
}

impl fmt::Display for Prefix {
    /// As setkey(8) has it: the length of a single host is left out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_host() { write!(f, "{}", self.addr) } else { write!(f, "{}/{}", self.addr, self.len) }
    }
}

/// Addresses that a policy is for: those of a prefix, or all between two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Addresses {
    /// A prefix.
    Prefix(Prefix),
    /// From the first to the last, both among them; of one family.
    Span(IpAddr, IpAddr),
}

impl From<Prefix> for Addresses {
    fn from(prefix: Prefix) -> Addresses {
        Addresses::Prefix(prefix)
    }
}

impl Addresses {
    /// All between two addresses, both among them. A prefix if it is one; `None` if there are none, or of two families.
    pub fn span(first: IpAddr, last: IpAddr) -> Option<Addresses> {
        if first > last || first.is_ipv4() != last.is_ipv4() {
            return None;
        }
        let span = Addresses::Span(first, last);
        let cover = span.cover();
        Some(if Addresses::Prefix(cover).bounds() == (first, last) { cover.into() } else { span })
    }

    /// The first and the last.
    pub fn bounds(&self) -> (IpAddr, IpAddr) {
        match *self {
            Addresses::Span(first, last) => (first, last),
            Addresses::Prefix(p) => match p.addr {
                IpAddr::V4(v4) => (p.addr, IpAddr::V4((v4.to_bits() | !mask4(p.len)).into())),
                IpAddr::V6(v6) => (p.addr, IpAddr::V6((v6.to_bits() | !mask6(p.len)).into())),
            },
        }
    }

    /// The smallest prefix that they all have.
    pub fn cover(&self) -> Prefix {
        let (addr, len) = match *self {
            Addresses::Prefix(p) => return p,
            Addresses::Span(IpAddr::V4(a), IpAddr::V4(b)) => {
                (IpAddr::V4(a), (a.to_bits() ^ b.to_bits()).leading_zeros() as u8)
            }
            Addresses::Span(IpAddr::V6(a), IpAddr::V6(b)) => {
                (IpAddr::V6(a), (a.to_bits() ^ b.to_bits()).leading_zeros() as u8)
            }
            Addresses::Span(a, _) => (a, 0),
        };
        Prefix::new(addr, len).unwrap_or(Prefix { addr, len: 0 })
    }

    /// Whether an address is one of them.
    pub fn contains(&self, addr: IpAddr) -> bool {
        match self {
            Addresses::Prefix(p) => p.contains(addr),
            Addresses::Span(first, last) => (*first..=*last).contains(&addr),
        }
    }

    /// Whether they are IPv4.
    pub const fn is_ipv4(&self) -> bool {
        match self {
            Addresses::Prefix(p) => p.addr.is_ipv4(),
            Addresses::Span(first, _) => first.is_ipv4(),
        }
    }

    /// The address, if it is only one.
    pub fn host(&self) -> Option<IpAddr> {
        let (first, last) = self.bounds();
        (first == last).then_some(first)
    }
}

impl fmt::Display for Addresses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Addresses::Prefix(p) => p.fmt(f),
            Addresses::Span(first, last) => write!(f, "{first}-{last}"),
        }
    }
}

/// Ports from the first to the last, both among them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ports {
    first: u16,
    last: u16,
}

impl Ports {
    /// One port.
    pub const fn one(port: u16) -> Ports {
        Ports { first: port, last: port }
    }

    /// Several; `None` if the last comes before the first.
    pub const fn span(first: u16, last: u16) -> Option<Ports> {
        if first > last { None } else { Some(Ports { first, last }) }
    }

    /// The first and the last.
    pub(crate) const fn bounds(self) -> (u16, u16) {
        (self.first, self.last)
    }

    /// Whether a port is one of them.
    #[inline(always)]
    pub const fn contains(self, port: u16) -> bool {
        self.first <= port && port <= self.last
    }
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last { self.first.fmt(f) } else { write!(f, "{}-{}", self.first, self.last) }
    }
}

/// What of the upper layer must match.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Upper {
    /// All of it.
    #[default]
    Any,
    /// A protocol and, if it has them, ports.
    Proto {
        /// The protocol.
        proto: IpProto,
        /// Source ports, if not all match.
        src_port: Option<Ports>,
        /// Destination ports, if not all match.
        dst_port: Option<Ports>,
    },
    /// Ports of whatever protocol has them.
    Ports {
        /// Source ports, if not all match.
        src_port: Option<Ports>,
        /// Destination ports, if not all match.
        dst_port: Option<Ports>,
    },
    /// ICMP or ICMPv6 of a type, and perhaps a code.
    Icmp {
        /// Which of the two.
        proto: IpProto,
        /// Type.
        kind: u8,
        /// Code, if not all match.
        code: Option<u8>,
    },
}

/// What a policy matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Selector {
    /// Source addresses.
    pub src: Addresses,
    /// Destination addresses, of the same family.
    pub dst: Addresses,
    /// Upper layer.
    pub upper: Upper,
}

/// What the upper layer of a packet shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shown {
    /// The protocol, if it can be seen: of IPv6, no extension header is called so.
    pub proto: Option<IpProto>,
    /// Ports, or type and code, if they can be seen.
    pub ends: Option<(u16, u16)>,
}

/// Whether something matches, as far as can be seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Match {
    /// It does.
    Yes,
    /// It does not.
    No,
    /// It would if what can not be seen is right.
    Unseen,
}

impl Upper {
    /// Whether the upper layer of a packet need be looked at.
    pub const fn is_any(&self) -> bool {
        matches!(self, Upper::Any)
    }

    /// Compares with what a packet shows.
    pub fn compare(&self, shown: Shown) -> Match {
        let ports = |src: Option<Ports>, dst: Option<Ports>| match shown.ends {
            _ if src.is_none() && dst.is_none() => Match::Yes,
            None => Match::Unseen,
            Some((s, d)) if src.is_none_or(|p| p.contains(s)) && dst.is_none_or(|p| p.contains(d)) => {
                Match::Yes
            }
            Some(_) => Match::No,
        };
        let Some(shown_proto) = shown.proto else {
            return if self.is_any() { Match::Yes } else { Match::Unseen };
        };
        match *self {
            Upper::Any => Match::Yes,
            Upper::Proto { proto, .. } | Upper::Icmp { proto, .. } if proto != shown_proto => Match::No,
            Upper::Ports { .. } if !shown_proto.has_ports() => Match::No,
            Upper::Proto { src_port, dst_port, .. } | Upper::Ports { src_port, dst_port } => {
                ports(src_port, dst_port)
            }
            Upper::Icmp { kind, code, .. } => {
                ports(Some(Ports::one(kind.into())), code.map(|code| Ports::one(code.into())))
            }
        }
    }
}

/// The addresses of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ends {
    V4 {
        src: u32,
        dst: u32,
    },
    V6 {
        src: u128,
        dst: u128,
    },
    /// Not IP at all: matches no policy.
    None,
}

/// A packet as policies see it. Its upper layer is looked at when a policy first asks.
#[derive(Clone, Copy, Debug)]
pub struct Packet<'a> {
    pub(crate) data: &'a [u8],
    pub(crate) ends: Ends,
}

impl<'a> Packet<'a> {
    /// The packet in a buffer, whose data begin with the IP header.
    #[inline(always)]
    pub fn read(m: &'a Mbuf) -> Packet<'a> {
        Packet::of(m.data())
    }

    /// The packet in a slice.
    #[inline(always)]
    pub fn of(data: &'a [u8]) -> Packet<'a> {
        Packet { data, ends: ends(data) }
    }

    /// Source and destination.
    #[inline]
    pub fn addresses(&self) -> Option<(IpAddr, IpAddr)> {
        match self.ends {
            Ends::V4 { src, dst } => Some((IpAddr::V4(src.into()), IpAddr::V4(dst.into()))),
            Ends::V6 { src, dst } => Some((IpAddr::V6(src.into()), IpAddr::V6(dst.into()))),
            Ends::None => None,
        }
    }

    /// Protocol, and ports or type and code.
    #[cold]
    pub fn shown(&self) -> Shown {
        let nothing = Shown { proto: None, ends: None };
        let parsed = match self.ends {
            Ends::V4 { .. } => parse::parse_ipv4(self.data),
            Ends::V6 { .. } => parse::parse_ipv6(self.data),
            Ends::None => return nothing,
        };
        let Ok(parsed) = parsed else { return nothing };
        let ends = match parsed.proto {
            _ if parsed.is_later_fragment() => None,
            IpProto::ICMP | IpProto::ICMPV6 => parsed
                .l4(self.data)
                .first_chunk::<2>()
                .map(|[kind, code]| (u16::from(*kind), u16::from(*code))),
            _ => parsed.flags.contains(parse::Flags::PORTS).then_some((parsed.src_port, parsed.dst_port)),
        };
        // IPv4 has no extension headers: there the number is that of a protocol like any other.
        let is_upper = |proto: &IpProto| matches!(self.ends, Ends::V4 { .. }) || !proto.is_extension();
        Shown { proto: Some(parsed.proto).filter(is_upper), ends }
    }
}

#[inline(always)]
fn ends(data: &[u8]) -> Ends {
    let version = data.first().map_or(0, |b| b >> 4);
    if version == 4
        && let Some(h) = data.first_chunk::<20>()
    {
        return Ends::V4 {
            src: u32::from_be_bytes([h[12], h[13], h[14], h[15]]),
            dst: u32::from_be_bytes([h[16], h[17], h[18], h[19]]),
        };
    }
    if version == 6
        && let Some(h) = data.first_chunk::<40>()
        && let (Some(src), Some(dst)) = (h[8..].first_chunk::<16>(), h[24..].first_chunk::<16>())
    {
        return Ends::V6 { src: u128::from_be_bytes(*src), dst: u128::from_be_bytes(*dst) };
    }
    Ends::None
}
