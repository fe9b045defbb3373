//! Protocol numbers (IANA "Assigned Internet Protocol Numbers"), which are also the next-header values of IPv6.

use core::fmt;

/// An IP protocol or next-header number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct IpProto(pub u8);

macro_rules! protocols {
    ($($(#[$doc:meta])* $name:ident = $n:literal, $text:literal;)*) => {
        impl IpProto {
            $($(#[$doc])* pub const $name: Self = Self($n);)*

            /// The name in `/etc/protocols`, when it is one this crate knows.
            pub const fn name(self) -> Option<&'static str> {
                match self {
                    $(Self::$name => Some($text),)*
                    _ => None,
                }
            }

            /// The protocol of that name.
            pub fn from_name(name: &str) -> Option<Self> {
                match name {
                    $($text => Some(Self::$name),)*
                    _ => None,
                }
            }
        }
    };
}
protocols! {
    /// IPv6 hop-by-hop options (RFC 8200).
    HOPOPTS = 0, "hopopt";
    /// ICMP (RFC 792).
    ICMP = 1, "icmp";
    /// IGMP (RFC 3376).
    IGMP = 2, "igmp";
    /// IPv4 in IP (RFC 2003).
    IPV4 = 4, "ipencap";
    /// TCP (RFC 9293).
    TCP = 6, "tcp";
    /// UDP (RFC 768).
    UDP = 17, "udp";
    /// DCCP (RFC 4340).
    DCCP = 33, "dccp";
    /// IPv6 in IP (RFC 2473).
    IPV6 = 41, "ipv6";
    /// IPv6 routing header (RFC 8200).
    ROUTING = 43, "ipv6-route";
    /// IPv6 fragment header (RFC 8200).
    FRAGMENT = 44, "ipv6-frag";
    /// GRE (RFC 2784).
    GRE = 47, "gre";
    /// ESP (RFC 4303).
    ESP = 50, "esp";
    /// AH (RFC 4302).
    AH = 51, "ah";
    /// ICMPv6 (RFC 4443).
    ICMPV6 = 58, "ipv6-icmp";
    /// Nothing follows (RFC 8200).
    NO_NEXT = 59, "ipv6-nonxt";
    /// IPv6 destination options (RFC 8200).
    DSTOPTS = 60, "ipv6-opts";
    /// OSPF (RFC 2328).
    OSPF = 89, "ospf";
    /// PIM (RFC 7761).
    PIM = 103, "pim";
    /// IPComp (RFC 3173).
    IPCOMP = 108, "ipcomp";
    /// VRRP (RFC 9568) and CARP.
    VRRP = 112, "vrrp";
    /// SCTP (RFC 9260).
    SCTP = 132, "sctp";
    /// UDP-Lite (RFC 3828).
    UDPLITE = 136, "udplite";
}

impl IpProto {
    /// Whether the first four octets of the header are a source and a destination port.
    #[inline]
    pub const fn has_ports(self) -> bool {
        matches!(self, Self::TCP | Self::UDP | Self::SCTP | Self::DCCP | Self::UDPLITE)
    }

    /// Whether this is an IPv6 extension header that the walk of [`crate::ipv6_ext`] passes over. AH is not one here: IPsec owns it.
    #[inline]
    pub const fn is_extension(self) -> bool {
        matches!(self, Self::HOPOPTS | Self::ROUTING | Self::FRAGMENT | Self::DSTOPTS)
    }

    /// Where the checksum stands in the header, for the protocols whose checksum this crate computes.
    #[inline]
    pub const fn checksum_offset(self) -> Option<usize> {
        match self {
            Self::TCP => Some(16),
            Self::UDP => Some(6),
            Self::ICMP | Self::ICMPV6 => Some(2),
            _ => None,
        }
    }
}

impl From<u8> for IpProto {
    fn from(n: u8) -> Self {
        Self(n)
    }
}

impl From<IpProto> for u8 {
    fn from(p: IpProto) -> Self {
        p.0
    }
}

impl fmt::Display for IpProto {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "{}", self.0),
        }
    }
}

impl fmt::Debug for IpProto {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IpProto({self})")
    }
}
