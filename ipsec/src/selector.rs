//! Selectors (RFC 4301, 4.4.1.1): what a policy matches, and what a packet shows to be matched.
//!
//! Two ranges of addresses, and an upper layer: a protocol, and ports or an ICMP type and code. The ports of a fragment
//! that is not the first can not be seen (RFC 4301 calls them OPAQUE); such a packet matches a policy with ports if the
//! policy protects or discards, and does not if it bypasses: what might have to be protected is never let out in clear.
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
        /// Source port, if only one matches.
        src_port: Option<u16>,
        /// Destination port, if only one matches.
        dst_port: Option<u16>,
    },
    /// Ports of whatever protocol has them.
    Ports {
        /// Source port, if only one matches.
        src_port: Option<u16>,
        /// Destination port, if only one matches.
        dst_port: Option<u16>,
    },
    /// ICMP or ICMPv6 of a type and code.
    Icmp {
        /// Which of the two.
        proto: IpProto,
        /// Type.
        kind: u8,
        /// Code.
        code: u8,
    },
}

/// What a policy matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Selector {
    /// Source addresses.
    pub src: Prefix,
    /// Destination addresses, of the same family.
    pub dst: Prefix,
    /// Upper layer.
    pub upper: Upper,
}

/// What the upper layer of a packet shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shown {
    /// The protocol.
    pub proto: IpProto,
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
        let ports = |src: Option<u16>, dst: Option<u16>| match shown.ends {
            _ if src.is_none() && dst.is_none() => Match::Yes,
            None => Match::Unseen,
            Some((s, d)) if src.is_none_or(|p| p == s) && dst.is_none_or(|p| p == d) => Match::Yes,
            Some(_) => Match::No,
        };
        match *self {
            Upper::Any => Match::Yes,
            Upper::Proto { proto, .. } | Upper::Icmp { proto, .. } if proto != shown.proto => Match::No,
            Upper::Ports { .. } if !shown.proto.has_ports() => Match::No,
            Upper::Proto { src_port, dst_port, .. } | Upper::Ports { src_port, dst_port } => {
                ports(src_port, dst_port)
            }
            Upper::Icmp { kind, code, .. } => ports(Some(kind.into()), Some(code.into())),
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
    data: &'a [u8],
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

    /// Protocol, and ports or type and code.
    #[cold]
    pub fn shown(&self) -> Shown {
        let nothing = Shown { proto: IpProto::NO_NEXT, ends: None };
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
        Shown { proto: parsed.proto, ends }
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
