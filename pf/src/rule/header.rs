//! What a rule asks of a packet's headers, and of the socket it belongs to.

/// Which ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ports {
    /// `= n`
    Equal(u16),
    /// `!= n`
    NotEqual(u16),
    /// `< n`
    Less(u16),
    /// `<= n`
    LessEqual(u16),
    /// `> n`
    Greater(u16),
    /// `>= n`
    GreaterEqual(u16),
    /// `a:b`, both included
    Within(u16, u16),
    /// `a >< b`, both excluded
    Between(u16, u16),
    /// `a <> b`, neither included
    Outside(u16, u16),
}

impl Ports {
    /// The port that a redirection counts from.
    pub const fn first(self) -> u16 {
        match self {
            Ports::Equal(a)
            | Ports::NotEqual(a)
            | Ports::Less(a)
            | Ports::LessEqual(a)
            | Ports::Greater(a)
            | Ports::GreaterEqual(a)
            | Ports::Within(a, _)
            | Ports::Between(a, _)
            | Ports::Outside(a, _) => a,
        }
    }

    /// Whether a port is one of these.
    #[inline(always)]
    pub const fn matches(self, port: u16) -> bool {
        match self {
            Ports::Equal(a) => port == a,
            Ports::NotEqual(a) => port != a,
            Ports::Less(a) => port < a,
            Ports::LessEqual(a) => port <= a,
            Ports::Greater(a) => port > a,
            Ports::GreaterEqual(a) => port >= a,
            Ports::Within(a, b) => port >= a && port <= b,
            Ports::Between(a, b) => port > a && port < b,
            Ports::Outside(a, b) => port < a || port > b,
        }
    }
}

/// `flags set/mask`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TcpFlags {
    /// Which must be set.
    pub set: u8,
    /// Of which.
    pub mask: u8,
}

/// The letters of `flags`, FIN in the lowest bit.
pub const FLAG_LETTERS: &[u8; 8] = b"FSRPAUEW";

/// `user op n`, `group op n`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum IdMatch {
    /// `= n`
    Equal(u32),
    /// `!= n`
    NotEqual(u32),
    /// `< n`
    Less(u32),
    /// `<= n`
    LessEqual(u32),
    /// `> n`
    Greater(u32),
    /// `>= n`
    GreaterEqual(u32),
    /// `a:b`, both included
    Within(u32, u32),
    /// `a >< b`, both excluded
    Between(u32, u32),
    /// `a <> b`, neither included
    Outside(u32, u32),
}

/// The id that stands for `unknown`: a packet that belongs to no local socket.
pub const UNKNOWN_ID: u32 = u32::MAX;

impl TcpFlags {
    /// `S/SA`: what a stateful rule of TCP has unless it says otherwise.
    pub const OPENING: TcpFlags = TcpFlags { set: 0x02, mask: 0x12 };
}

/// `icmp-type t code c`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct IcmpMatch {
    /// Type.
    pub kind: u8,
    /// Code.
    pub code: Option<u8>,
}
