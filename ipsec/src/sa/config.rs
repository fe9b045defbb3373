//! An SA as agreed with the peer: what a report shows and a file says.

use crate::{natt::Encap, transform::Suite};
use std::{fmt, net::IpAddr};

/// Security parameters index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Spi(pub u32);

impl fmt::Display for Spi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

/// Where an SA stands in the [`Sad`](crate::sad::Sad). Stays the same as long as the SA lives, over reloads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SaIndex(pub u32);

impl SaIndex {
    /// What a packet header's `sa` field holds: 0 is for none.
    pub const fn to_header(self) -> u32 {
        self.0 + 1
    }

    /// What a packet header's `sa` field means.
    pub const fn from_header(sa: u32) -> Option<SaIndex> {
        match sa {
            0 => None,
            n => Some(SaIndex(n - 1)),
        }
    }
}

/// The protocol an SA speaks. SPIs of different protocols are different things (RFC 4301, 4.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// Encapsulating security payload (RFC 4303).
    #[default]
    Esp,
    /// Authentication header (RFC 4302).
    Ah,
    /// Payload compression (RFC 3173); its SPI is a CPI of 16 bits.
    Ipcomp,
}

impl Protocol {
    /// The word of setkey(8).
    pub const fn name(self) -> &'static str {
        match self {
            Protocol::Esp => "esp",
            Protocol::Ah => "ah",
            Protocol::Ipcomp => "ipcomp",
        }
    }
}

/// What an SA does to the IP header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// As the policy says; manual SAs may leave it open.
    Any,
    /// The payload of a packet is protected, its header stays.
    Transport,
    /// A whole packet goes into another.
    Tunnel,
    /// The payload of a packet is protected, and its addresses, always the same, make way for those of the SA.
    Beet,
}

impl Mode {
    /// The word of setkey(8).
    pub const fn name(self) -> &'static str {
        match self {
            Mode::Any => "any",
            Mode::Transport => "transport",
            Mode::Tunnel => "tunnel",
            Mode::Beet => "beet",
        }
    }
}

/// What stands in the padding (setkey `-f`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Padding {
    /// 1, 2, 3, ... is sent; what is received is not looked at, for BSD kernels send zeros unless told otherwise.
    #[default]
    Lenient,
    /// 1, 2, 3, ... is sent and demanded.
    Seq,
    /// Zeros are sent.
    Zero,
}

/// What becomes of DF in the outer header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Df {
    /// As the inner packet has it; set over IPv6, whose routers do not fragment.
    #[default]
    Copy,
    /// Set.
    Set,
    /// Cleared.
    Clear,
}

/// When a packet that is too large for a tunnel and may be fragmented is fragmented (RFC 4301, 8.1; D.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Fragment {
    /// Before it goes in: the peer opens each piece as it comes and reassembles nothing.
    Before,
    /// After: the outer packet, which the peer reassembles before it opens it.
    #[default]
    After,
}

/// How an SA handles what its RFC leaves to the configuration: fields of the outer header, sizes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Handling {
    /// DF of a tunnel's outer IPv4 header.
    pub df: Df,
    /// When too large packets are fragmented.
    pub fragment: Fragment,
    /// DSCP of a tunnel's outer header; `None`: that of the inner one.
    pub dscp: Option<u8>,
    /// Whether ECN passes a tunnel (RFC 6040, normal mode); else the outer field is 0 and not looked at (compatibility).
    pub ecn: bool,
    /// TTL or hop limit of a tunnel's outer header.
    pub ttl: u8,
    /// Whether a tunnel's outer IPv6 header tells flows apart by its label (RFC 6438); else the label is 0.
    pub flow_label: bool,
    /// Octets to which shorter packets in a tunnel are filled up (RFC 4303, 2.7); 0 for none.
    pub tfc: u16,
    /// Pads AH over IPv4 to eight octets, as Linux does by default, instead of four (RFC 4302, 3.3.3.2.1).
    pub align8: bool,
    /// Octets below which IPComp leaves a payload alone (RFC 3173, 2.2).
    pub threshold: u16,
}

impl Default for Handling {
    fn default() -> Handling {
        Handling {
            df: Df::Copy,
            fragment: Fragment::After,
            dscp: None,
            ecn: true,
            ttl: 64,
            flow_label: false,
            tfc: 0,
            align8: false,
            // RFC 2394, 2.2.
            threshold: 90,
        }
    }
}

/// Limits of an SA's life; absent means none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Lifetime {
    /// Bytes of inner packets.
    pub bytes: Option<u64>,
    /// Packets.
    pub packets: Option<u64>,
    /// Seconds since it was made.
    pub seconds: Option<u64>,
}

impl SaConfig {
    /// Source and destination of the packets it is for, where it is for one pair alone: in transport and in BEET mode.
    pub(crate) fn pair(&self) -> (IpAddr, IpAddr) {
        self.inner.unwrap_or((self.src, self.dst))
    }
}

/// An SA as agreed with the peer, but for its key.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SaConfig {
    /// The tunnel's source: ours if outbound.
    pub src: IpAddr,
    /// The tunnel's destination: ours if inbound.
    pub dst: IpAddr,
    /// Security parameters index, chosen by the destination.
    pub spi: Spi,
    /// Protocol.
    pub protocol: Protocol,
    /// Mode.
    pub mode: Mode,
    /// In BEET mode, source and destination of the packets it is for.
    pub inner: Option<(IpAddr, IpAddr)>,
    /// How it goes in UDP, if it does.
    pub encap: Option<Encap>,
    /// Binds it to policies of level `unique`; 0 for none.
    pub reqid: u32,
    /// The worker that alone sends by it (RFC 9611); `None`: all of them.
    pub worker: Option<u16>,
    /// Algorithm.
    pub suite: Suite,
    /// Extended (64-bit) sequence numbers.
    pub esn: bool,
    /// Packets the replay window spans; 0 means no check.
    pub replay: u32,
    /// Padding.
    pub padding: Padding,
    /// What the RFCs leave open.
    pub handling: Handling,
    /// When to ask for a successor.
    pub soft: Lifetime,
    /// When to stop.
    pub hard: Lifetime,
}
