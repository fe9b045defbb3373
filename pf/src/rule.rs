//! A filter rule as pfctl prints it: everything expanded and named, nothing resolved to this router's numbers.
//!
//! The parser makes these, the printer writes them back, the [ruleset](crate::ruleset) compiles them. Two rules are
//! equal when they mean the same; where they stood in a file is in [`Rule::at`] and does not count.

use std::net::IpAddr;

use crate::{
    addr::{Family, Prefix},
    conf::Pos,
    timeout::Timeout,
};

/// Which way a packet goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Direction {
    /// It arrived.
    In = 1,
    /// It leaves.
    Out = 2,
}

impl Direction {
    /// The keyword of pf.conf.
    pub const fn keyword(self) -> &'static str {
        match self {
            Direction::In => "in",
            Direction::Out => "out",
        }
    }

    /// 0 for in, 1 for out: for counters by direction.
    pub const fn index(self) -> usize {
        self as usize - 1
    }
}

/// What a rule decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// The packet goes on.
    Pass,
    /// The packet ends, with or without an answer.
    Block(Reply),
}

/// What the sender of a blocked packet is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    /// Nothing.
    Drop,
    /// RST for TCP, port unreachable for the rest.
    Return,
    /// RST, with this TTL; 0 is the default TTL.
    Rst {
        /// Time to live of the answer.
        ttl: u8,
    },
    /// ICMP or ICMPv6 unreachable with these codes.
    Icmp {
        /// Code of ICMP destination unreachable.
        inet: u8,
        /// Code of ICMPv6 destination unreachable.
        inet6: u8,
    },
}

/// What is logged of a rule's packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Log {
    /// All packets of a state, not only the one that made it.
    pub all: bool,
    /// Which pflog interface.
    pub to: u8,
}

/// `on IF`, `on ! IF`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct On {
    /// Every interface but this one.
    pub not: bool,
    /// Name of the interface.
    pub name: String,
}

/// One side of a rule: address and port.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Peer {
    /// Every address but these.
    pub not: bool,
    /// Which addresses.
    pub host: Host,
    /// Which ports.
    pub port: Option<Ports>,
}

/// Which addresses.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum Host {
    /// All.
    #[default]
    Any,
    /// Those of a prefix.
    Prefix(Prefix),
    /// From one to another, both included.
    Range(IpAddr, IpAddr),
    /// Those an interface has whenever a packet is looked at.
    Dynamic(Dynamic),
    /// Those in a table.
    Table(String),
}

/// `(if)`, with its modifiers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dynamic {
    /// Name of the interface; `self` is all of them.
    pub interface: String,
    /// What of it.
    pub part: Part,
    /// `:0`: without aliases.
    pub no_alias: bool,
    /// `/n` behind the parenthesis.
    pub len: Option<u8>,
}

/// Which addresses of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Part {
    /// Its own.
    #[default]
    Address,
    /// The networks it is in.
    Network,
    /// The broadcast addresses of these.
    Broadcast,
    /// The other end of a point-to-point link.
    Peer,
}

impl Part {
    /// How pf.conf writes it, behind the interface's name.
    pub const fn suffix(self) -> &'static str {
        match self {
            Part::Address => "",
            Part::Network => ":network",
            Part::Broadcast => ":broadcast",
            Part::Peer => ":peer",
        }
    }
}

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

/// `keep state` with its options.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Keep {
    /// `max n`: states of the rule; 0 is no limit.
    pub max: u32,
    /// `no-sync`.
    pub no_sync: bool,
    /// `if-bound` or `floating`, where the rule differs from `set state-policy`.
    pub bound: bool,
    /// No sequence window: only flags drive the state.
    pub sloppy: bool,
    /// Timeouts in seconds that differ from the global ones, in pfctl's order.
    pub timeouts: Vec<(Timeout, u32)>,
}

/// `queue a`, `queue (a, b)`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueRef {
    /// Where packets go.
    pub name: String,
    /// Where packets go that ask for low delay, and empty ACKs.
    pub low_delay: Option<String>,
}

/// `tagged t`, `! tagged t`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tagged {
    /// Every tag but this.
    pub not: bool,
    /// The tag.
    pub name: String,
}

/// A filter rule.
#[derive(Clone, Debug)]
pub struct Rule {
    /// What it decides.
    pub action: Action,
    /// Which way the packet goes; none is both.
    pub direction: Option<Direction>,
    /// What is logged.
    pub log: Option<Log>,
    /// Evaluation ends here.
    pub quick: bool,
    /// Interface.
    pub on: Option<On>,
    /// Address family.
    pub family: Option<Family>,
    /// Protocol.
    pub proto: Option<u8>,
    /// Source.
    pub from: Peer,
    /// Destination.
    pub to: Peer,
    /// TCP flags; none is any.
    pub flags: Option<TcpFlags>,
    /// ICMP type and code.
    pub icmp: Option<IcmpMatch>,
    /// TOS octet.
    pub tos: Option<u8>,
    /// `keep state`; a pass rule without is `no state`.
    pub keep: Option<Keep>,
    /// Fragments only.
    pub fragment: bool,
    /// IP options may pass.
    pub allow_opts: bool,
    /// Labels.
    pub labels: Vec<String>,
    /// Queue of ALTQ.
    pub queue: Option<QueueRef>,
    /// Tag it puts on the packet.
    pub tag: Option<String>,
    /// Tag the packet must have.
    pub tagged: Option<Tagged>,
    /// Where it stood.
    pub at: Pos,
}

impl Rule {
    /// `pass all` or `block all` without anything else.
    pub fn all(action: Action) -> Rule {
        Rule {
            action,
            direction: None,
            log: None,
            quick: false,
            on: None,
            family: None,
            proto: None,
            from: Peer::default(),
            to: Peer::default(),
            flags: None,
            icmp: None,
            tos: None,
            keep: None,
            fragment: false,
            allow_opts: false,
            labels: Vec::new(),
            queue: None,
            tag: None,
            tagged: None,
            at: Pos::default(),
        }
    }
}

impl PartialEq for Rule {
    fn eq(&self, other: &Rule) -> bool {
        self.action == other.action
            && self.direction == other.direction
            && self.log == other.log
            && self.quick == other.quick
            && self.on == other.on
            && self.family == other.family
            && self.proto == other.proto
            && self.from == other.from
            && self.to == other.to
            && self.flags == other.flags
            && self.icmp == other.icmp
            && self.tos == other.tos
            && self.keep == other.keep
            && self.fragment == other.fragment
            && self.allow_opts == other.allow_opts
            && self.labels == other.labels
            && self.queue == other.queue
            && self.tag == other.tag
            && self.tagged == other.tagged
    }
}
