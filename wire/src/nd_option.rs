//! Options of neighbour discovery: those of RFC 4861, the nonce of RFC 3971 that enhanced DAD uses (RFC 7527), route information (RFC 4191) and
//! recursive DNS servers (RFC 8106) for router advertisements. Anything else keeps its octets.

use core::net::Ipv6Addr;

use crate::{
    Mac, Malformed,
    view::{Field, get, put},
};

/// Options of a message, as they lie on the wire; their lengths were checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options<'a>(&'a [u8]);

impl<'a> Options<'a> {
    /// No options.
    pub const NONE: Self = Self(&[]);

    /// Checks that every option has a length and that all of them fill the area (RFC 4861, 4.6).
    pub(crate) fn new(area: &'a [u8]) -> Result<Self, Malformed> {
        let mut rest = area;
        while !rest.is_empty() {
            rest = match *rest {
                [_, units, ..] if units > 0 => rest.get(usize::from(units) * 8..).ok_or(Malformed::Option)?,
                _ => return Err(Malformed::Option),
            };
        }
        Ok(Self(area))
    }

    /// The options, one by one. One whose content is too short for its type is [`NdOption::Other`].
    pub fn iter(&self) -> impl Iterator<Item = NdOption<'a>> + use<'a> {
        let mut rest = self.0;
        core::iter::from_fn(move || {
            let &[kind, units, ..] = rest else {
                return None;
            };
            let (option, after) = rest.split_at_checked(usize::from(units) * 8)?;
            rest = after;
            Some(NdOption::decode(kind, option))
        })
    }

    /// The link-layer address of the sender.
    pub fn source_mac(&self) -> Option<Mac> {
        self.iter().find_map(|o| if let NdOption::SourceMac(mac) = o { Some(mac) } else { None })
    }

    /// The link-layer address of the target.
    pub fn target_mac(&self) -> Option<Mac> {
        self.iter().find_map(|o| if let NdOption::TargetMac(mac) = o { Some(mac) } else { None })
    }

    /// The nonce.
    pub fn nonce(&self) -> Option<&'a [u8]> {
        self.iter().find_map(|o| if let NdOption::Nonce(nonce) = o { Some(nonce) } else { None })
    }
}

/// A prefix that a router announces (RFC 4861, 4.6.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prefix {
    /// The prefix; bits behind its length do not count.
    pub prefix: Ipv6Addr,
    /// Bits of the prefix.
    pub len: u8,
    /// Addresses of the prefix are on this link.
    pub on_link: bool,
    /// Hosts may make addresses of the prefix.
    pub autonomous: bool,
    /// Seconds that "on link" holds; all ones is for ever.
    pub valid_lifetime: u32,
    /// Seconds that addresses are preferred.
    pub preferred_lifetime: u32,
}

/// One option.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NdOption<'a> {
    /// 1: link-layer address of the sender.
    SourceMac(Mac),
    /// 2: link-layer address of the target.
    TargetMac(Mac),
    /// 3: prefix information.
    Prefix(Prefix),
    /// 4: the packet that was redirected, from its header on.
    Redirected(&'a [u8]),
    /// 5: MTU of the link.
    Mtu(u32),
    /// 14: nonce (RFC 3971, 5.3.2). To emit it, its length must be 6, 14, ...: two octets short of a unit.
    Nonce(&'a [u8]),
    /// 24: a route: prefix, its length, preference as two's complement (-1, 0, 1), lifetime (RFC 4191).
    Route(Ipv6Addr, u8, i8, u32),
    /// 25: lifetime, and DNS servers as they lie on the wire: see [`addresses`] (RFC 8106).
    DnsServers(u32, &'a [u8]),
    /// Any other, and known ones too short for their type: type, and content behind type and length.
    Other(u8, &'a [u8]),
}

/// The addresses in the content of a DNS server option.
pub fn addresses(data: &[u8]) -> impl Iterator<Item = Ipv6Addr> + '_ {
    data.as_chunks::<16>().0.iter().map(|&octets| Ipv6Addr::from_octets(octets))
}

impl<'a> NdOption<'a> {
    /// Decodes one whole option.
    fn decode(kind: u8, option: &'a [u8]) -> Self {
        let read = |at: usize| -> u32 { get(option, at) };
        match (kind, option.len()) {
            (1, 8..) => Self::SourceMac(get(option, 2)),
            (2, 8..) => Self::TargetMac(get(option, 2)),
            (3, 32..) => Self::Prefix(Prefix {
                prefix: get(option, 16),
                len: option[2],
                on_link: option[3] & 0x80 != 0,
                autonomous: option[3] & 0x40 != 0,
                valid_lifetime: read(4),
                preferred_lifetime: read(8),
            }),
            (4, 8..) => Self::Redirected(&option[8..]),
            (5, 8..) => Self::Mtu(read(4)),
            (14, _) => Self::Nonce(&option[2..]),
            (24, 8 | 16 | 24) => {
                let mut prefix = [0; 16];
                prefix[..option.len() - 8].copy_from_slice(&option[8..]);
                // Two bits, two's complement; 10 is reserved and reads as medium.
                let preference = match option[3] >> 3 & 3 {
                    1 => 1,
                    3 => -1,
                    _ => 0,
                };
                Self::Route(Ipv6Addr::from_octets(prefix), option[2], preference, read(4))
            }
            (25, 24..) => Self::DnsServers(read(4), &option[8..]),
            (kind, _) => Self::Other(kind, &option[2..]),
        }
    }

    /// Octets of the option, a multiple of eight.
    pub const fn buffer_len(&self) -> usize {
        let content = match self {
            Self::SourceMac(_) | Self::TargetMac(_) | Self::Mtu(_) => 6,
            Self::Prefix(_) => 30,
            Self::Redirected(data) | Self::DnsServers(_, data) => 6 + data.len(),
            Self::Nonce(data) | Self::Other(_, data) => data.len(),
            Self::Route(_, len, ..) => match len {
                0 => 6,
                1..=64 => 14,
                _ => 22,
            },
        };
        (content + 2).next_multiple_of(8)
    }

    /// Writes the option to the front of `out`, padded with zeros.
    pub(crate) fn emit(&self, out: &mut [u8]) -> Result<usize, Malformed> {
        let len = self.buffer_len();
        let out = out.get_mut(..len).ok_or(Malformed::Truncated)?;
        out.fill(0);
        out[1] = u8::try_from(len / 8).map_err(|_| Malformed::Length)?;
        out[0] = match *self {
            Self::SourceMac(mac) => with(out, 2, mac, 1),
            Self::TargetMac(mac) => with(out, 2, mac, 2),
            Self::Prefix(prefix) => {
                out[2] = prefix.len;
                out[3] = u8::from(prefix.on_link) << 7 | u8::from(prefix.autonomous) << 6;
                put(out, 4, prefix.valid_lifetime);
                put(out, 8, prefix.preferred_lifetime);
                with(out, 16, prefix.prefix, 3)
            }
            Self::Redirected(data) => copied(out, 8, data, 4),
            Self::Mtu(mtu) => with(out, 4, mtu, 5),
            Self::Nonce(data) => copied(out, 2, data, 14),
            Self::Route(prefix, len, preference, lifetime) => {
                out[2] = len;
                out[3] = (preference as u8 & 3) << 3;
                put(out, 4, lifetime);
                let octets = out.len() - 8;
                copied(out, 8, &prefix.octets()[..octets], 24)
            }
            Self::DnsServers(lifetime, data) => {
                put(out, 4, lifetime);
                copied(out, 8, data, 25)
            }
            Self::Other(kind, data) => copied(out, 2, data, kind),
        };
        Ok(len)
    }
}

/// Writes a field and returns the type of the option it is in.
fn with<F: Field>(out: &mut [u8], at: usize, value: F, kind: u8) -> u8 {
    put(out, at, value);
    kind
}

/// Copies content and returns the type of the option it is in.
fn copied(out: &mut [u8], at: usize, data: &[u8], kind: u8) -> u8 {
    out[at..at + data.len()].copy_from_slice(data);
    kind
}
