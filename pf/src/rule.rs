//! A rule as pfctl prints it: everything expanded and named, nothing resolved to this router's numbers.
//!
//! The parser makes these, the printer writes them back, the [ruleset](crate::ruleset) compiles them. As in pf, one type
//! is for filter, translation and scrub rules and for the calls of anchors: [`Rule::action`] says which, and
//! [`Rules`] keeps each kind in its own list. Two rules are equal when they mean the same; where they stood in a file is
//! in [`Rule::at`] and does not count. Ethernet rules are in [`crate::ether`].

mod effect;
mod header;
mod keep;
mod lists;
mod peer;

use crate::{addr::Family, conf::Pos, once::Once};

pub use self::{
    effect::{AfTo, Divert, Dummynet, QueueRef, Route, RouteKind, Scrub, Tagged},
    header::{FLAG_LETTERS, IcmpMatch, IdMatch, Ports, TcpFlags, UNKNOWN_ID},
    keep::{Flush, Keep, LimiterRef, Overload, Rate, SourceTrack, StateKind},
    lists::{Anchor, AnchorCall, Rules},
    peer::{Dynamic, Host, On, Part, Peer},
};
pub use crate::pool::{Method, Pool, PoolHost, PoolPorts, PortSet};

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
    /// Nothing is decided; what the rule says besides sticks to the packet.
    Match,
    /// The packet is normalised.
    Scrub,
    /// No later scrub rule is looked at.
    NoScrub,
    /// The source is translated on the way out.
    Nat,
    /// No later nat rule is looked at.
    NoNat,
    /// Source or destination are translated one to one.
    Binat,
    /// No later binat rule is looked at.
    NoBinat,
    /// The destination is translated on the way in.
    Rdr,
    /// No later rdr rule is looked at.
    NoRdr,
}

impl Action {
    /// The keyword of pf.conf.
    pub const fn keyword(self) -> &'static str {
        match self {
            Action::Pass => "pass",
            Action::Block(_) => "block",
            Action::Match => "match",
            Action::Scrub => "scrub",
            Action::NoScrub => "no scrub",
            Action::Nat => "nat",
            Action::NoNat => "no nat",
            Action::Binat => "binat",
            Action::NoBinat => "no binat",
            Action::Rdr => "rdr",
            Action::NoRdr => "no rdr",
        }
    }

    /// The keyword that calls an anchor for rules of this kind.
    pub const fn anchor_keyword(self) -> &'static str {
        match self {
            Action::Nat | Action::NoNat => "nat-anchor",
            Action::Binat | Action::NoBinat => "binat-anchor",
            Action::Rdr | Action::NoRdr => "rdr-anchor",
            _ => "anchor",
        }
    }
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
    /// Every later rule that matches the packet, too.
    pub matches: bool,
    /// With the user of the local socket.
    pub user: bool,
    /// Which pflog interface.
    pub to: u8,
}

/// A rule, or the call of an anchor.
#[derive(Clone, Debug)]
pub struct Rule {
    /// What it decides.
    pub action: Action,
    /// `nat pass`: what is translated is not filtered.
    pub nat_pass: bool,
    /// It calls an anchor instead.
    pub anchor: Option<AnchorCall>,
    /// Which way the packet goes; none is both.
    pub direction: Option<Direction>,
    /// What is logged.
    pub log: Option<Log>,
    /// Evaluation ends here.
    pub quick: bool,
    /// Interface.
    pub on: Option<On>,
    /// Next hop.
    pub route: Option<Route>,
    /// Address family.
    pub family: Option<Family>,
    /// Protocol.
    pub proto: Option<u8>,
    /// Source.
    pub from: Peer,
    /// Operating system of the source, as its SYN betrays it.
    pub os: Option<String>,
    /// Destination.
    pub to: Peer,
    /// Interface on which it was received, for packets that leave.
    pub received_on: Option<On>,
    /// User of the local socket.
    pub user: Option<IdMatch>,
    /// Group of the local socket.
    pub group: Option<IdMatch>,
    /// TCP flags; none is any.
    pub flags: Option<TcpFlags>,
    /// ICMP type and code.
    pub icmp: Option<IcmpMatch>,
    /// TOS octet.
    pub tos: Option<u8>,
    /// Priority the packet must have.
    pub prio: Option<u8>,
    /// `max-pkt-rate n/s`: matches only while packets come no faster.
    pub max_pkt_rate: Option<Rate>,
    /// `max-pkt-size n`: longer packets that it passes, or that a later rule does, end; 0 is any size.
    pub max_pkt_size: u16,
    /// `set prio a`, `set prio (a, b)`: the second for low delay and empty ACKs.
    pub set_prio: Option<(u8, u8)>,
    /// `keep state`; a pass rule without is `no state`.
    pub keep: Option<Keep>,
    /// `probability`: matches so many of 2^32 times; none is always.
    pub probability: Option<u32>,
    /// `state limiter`.
    pub state_limiter: Option<LimiterRef>,
    /// `source limiter`.
    pub source_limiter: Option<LimiterRef>,
    /// Fragments only.
    pub fragment: bool,
    /// Normalisation.
    pub scrub: Scrub,
    /// IP options may pass.
    pub allow_opts: bool,
    /// Labels.
    pub labels: Vec<String>,
    /// `ridentifier n`; 0 is none.
    pub ridentifier: u32,
    /// `once`: it is for one packet.
    pub once: Option<Once>,
    /// Pipe or queue of dummynet.
    pub dummynet: Option<Dummynet>,
    /// Queue of ALTQ.
    pub queue: Option<QueueRef>,
    /// Tag it puts on the packet.
    pub tag: Option<String>,
    /// Tag the packet must have.
    pub tagged: Option<Tagged>,
    /// `rtable n`.
    pub rtable: Option<u32>,
    /// To a socket instead of onwards.
    pub divert: Option<Divert>,
    /// `nat-to`, and `->` of nat and binat.
    pub nat: Option<Pool>,
    /// `rdr-to`, and `->` of rdr.
    pub rdr: Option<Pool>,
    /// `af-to`.
    pub af_to: Option<AfTo>,
    /// Where it stood.
    pub at: Pos,
}

impl Rule {
    /// `pass all` or `block all` without anything else.
    pub fn all(action: Action) -> Rule {
        Rule {
            action,
            nat_pass: false,
            anchor: None,
            direction: None,
            log: None,
            quick: false,
            on: None,
            route: None,
            family: None,
            proto: None,
            from: Peer::default(),
            os: None,
            to: Peer::default(),
            received_on: None,
            user: None,
            group: None,
            flags: None,
            icmp: None,
            tos: None,
            prio: None,
            max_pkt_rate: None,
            max_pkt_size: 0,
            set_prio: None,
            keep: None,
            probability: None,
            state_limiter: None,
            source_limiter: None,
            fragment: false,
            scrub: Scrub::default(),
            allow_opts: false,
            labels: Vec::new(),
            ridentifier: 0,
            once: None,
            dummynet: None,
            queue: None,
            tag: None,
            tagged: None,
            rtable: None,
            divert: None,
            nat: None,
            rdr: None,
            af_to: None,
            at: Pos::default(),
        }
    }
}

impl PartialEq for Rule {
    fn eq(&self, other: &Rule) -> bool {
        self.action == other.action
            && self.nat_pass == other.nat_pass
            && self.anchor == other.anchor
            && self.direction == other.direction
            && self.log == other.log
            && self.quick == other.quick
            && self.on == other.on
            && self.route == other.route
            && self.family == other.family
            && self.proto == other.proto
            && self.from == other.from
            && self.os == other.os
            && self.to == other.to
            && self.received_on == other.received_on
            && self.user == other.user
            && self.group == other.group
            && self.flags == other.flags
            && self.icmp == other.icmp
            && self.tos == other.tos
            && self.prio == other.prio
            && self.max_pkt_rate == other.max_pkt_rate
            && self.max_pkt_size == other.max_pkt_size
            && self.set_prio == other.set_prio
            && self.keep == other.keep
            && self.probability == other.probability
            && self.state_limiter == other.state_limiter
            && self.source_limiter == other.source_limiter
            && self.fragment == other.fragment
            && self.scrub == other.scrub
            && self.allow_opts == other.allow_opts
            && self.labels == other.labels
            && self.ridentifier == other.ridentifier
            && self.once == other.once
            && self.dummynet == other.dummynet
            && self.queue == other.queue
            && self.tag == other.tag
            && self.tagged == other.tagged
            && self.rtable == other.rtable
            && self.divert == other.divert
            && self.nat == other.nat
            && self.rdr == other.rdr
            && self.af_to == other.af_to
    }
}

impl Eq for Rule {}
