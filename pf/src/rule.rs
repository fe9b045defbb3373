//! A rule as pfctl prints it: everything expanded and named, nothing resolved to this router's numbers.
//!
//! The parser makes these, the printer writes them back, the [ruleset](crate::ruleset) compiles them. As in pf, one type
//! is for filter, translation and scrub rules and for the calls of anchors: [`Rule::action`] says which, and
//! [`Rules`] keeps each kind in its own list. Two rules are equal when they mean the same; where they stood in a file is
//! in [`Rule::at`] and does not count. Ethernet rules are in [`crate::ether`].

use std::net::IpAddr;

use crate::{
    addr::{Family, Prefix},
    anchor::Kind,
    conf::Pos,
    ether::EtherRule,
    once::Once,
    timeout::Timeout,
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

/// `on IF`, `on ! IF`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct On {
    /// Every interface but this one.
    pub not: bool,
    /// Name of the interface.
    pub name: String,
}

/// One side of a rule: address and port.
#[derive(Clone, Debug, PartialEq, Eq, Default, Hash)]
pub struct Peer {
    /// Every address but these.
    pub not: bool,
    /// Which addresses.
    pub host: Host,
    /// Which ports.
    pub port: Option<Ports>,
}

/// Which addresses.
#[derive(Clone, Debug, PartialEq, Eq, Default, Hash)]
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
    /// `no-route`: those to which no route leads.
    NoRoute,
    /// `urpf-failed`: sources to which the route leads through another interface.
    UrpfFailed,
}

/// `(if)`, with its modifiers.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Hash)]
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

/// How much pf takes part in a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum StateKind {
    /// `keep state`
    #[default]
    Keep,
    /// `modulate state`: other initial sequence numbers.
    Modulate,
    /// `synproxy state`: the handshake is completed before the server hears of it; implies modulation.
    Synproxy,
}

/// `source-track`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceTrack {
    /// Sources are counted over all rules that track globally.
    Global,
    /// Sources are counted for this rule alone.
    Rule,
}

/// `overload <t> [flush [global]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overload {
    /// The table that the source goes to.
    pub table: String,
    /// Whether its states go, and which.
    pub flush: Option<Flush>,
}

/// Which states of an overloading source are removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flush {
    /// Those that this rule made.
    Rule,
    /// All.
    Global,
}

/// `n/s`: so many in so many seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// How many.
    pub limit: u32,
    /// In how many seconds.
    pub seconds: u32,
}

/// `keep state` with its options.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Keep {
    /// Keep, modulate or synproxy.
    pub kind: StateKind,
    /// `max n`: states of the rule; 0 is no limit.
    pub max: u32,
    /// `no-sync`.
    pub no_sync: bool,
    /// `source-track`.
    pub track: Option<SourceTrack>,
    /// `max-src-states n`: states of one source; 0 is no limit.
    pub max_src_states: u32,
    /// `max-src-conn n`: connections of one source whose handshake is complete; 0 is no limit.
    pub max_src_conn: u32,
    /// `max-src-conn-rate n/s`: new connections of one source.
    pub max_src_conn_rate: Option<Rate>,
    /// `max-src-nodes n`: sources at a time; 0 is no limit.
    pub max_src_nodes: u32,
    /// What happens to a source beyond `max-src-conn` or `max-src-conn-rate`.
    pub overload: Option<Overload>,
    /// `if-bound` or `floating`, where the rule differs from `set state-policy`.
    pub bound: bool,
    /// No sequence window: only flags drive the state.
    pub sloppy: bool,
    /// `pflow`: flows are exported.
    pub pflow: bool,
    /// `allow-related`: further associations of SCTP hosts.
    pub allow_related: bool,
    /// Timeouts in seconds that differ from the global ones, in pfctl's order.
    pub timeouts: Vec<(Timeout, u32)>,
}

/// `route-to`, `reply-to`, `dup-to`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RouteKind {
    /// Packets of the rule go there.
    RouteTo,
    /// Answers go there.
    ReplyTo,
    /// A copy goes there.
    DupTo,
}

impl RouteKind {
    /// All, with their keywords.
    pub const ALL: [(RouteKind, &'static str); 3] =
        [(RouteKind::RouteTo, "route-to"), (RouteKind::ReplyTo, "reply-to"), (RouteKind::DupTo, "dup-to")];

    /// The keyword of pf.conf.
    pub const fn keyword(self) -> &'static str {
        Self::ALL[self as usize].1
    }
}

/// A next hop that does not come from the routing table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// For which packets.
    pub kind: RouteKind,
    /// Interfaces and next hops.
    pub pool: Pool,
    /// `prefer-ipv6-nexthop`: an IPv4 packet may have an IPv6 next hop.
    pub prefer_inet6: bool,
}

/// `af-to FAMILY from POOL [to POOL]`: the packet becomes one of the other family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AfTo {
    /// The family it becomes.
    pub family: Family,
    /// Its new source.
    pub from: Pool,
    /// Its new destination; none is the address within the old one (RFC 6052).
    pub to: Option<Pool>,
}

/// What `scrub` does to a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Scrub {
    /// `no-df`: don't-fragment is cleared.
    pub no_df: bool,
    /// `random-id`: whole IPv4 packets get another identification.
    pub random_id: bool,
    /// `min-ttl n`: time to live is at least this; 0 leaves it.
    pub min_ttl: u8,
    /// `max-mss n`: a SYN's maximum segment size is at most this; 0 leaves it.
    pub max_mss: u16,
    /// `set-tos n`.
    pub set_tos: Option<u8>,
    /// `reassemble tcp`: time to live and timestamps of a connection are normalised.
    pub reassemble_tcp: bool,
    /// `fragment no reassemble`, in scrub rules only.
    pub no_reassemble: bool,
}

/// `dnpipe n`, `dnqueue (n, m)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dummynet {
    /// A pipe; otherwise a queue.
    pub pipe: bool,
    /// For packets of the rule; 0 is none.
    pub number: u16,
    /// For answers, if it says.
    pub reverse: Option<u16>,
}

/// `divert-to`, `divert-reply`, `divert-packet`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Divert {
    /// To a port; its address has no meaning (divert(4)).
    To(u16),
    /// Answers of a local socket.
    Reply,
}

/// `state limiter name (block)`, `source limiter ...`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LimiterRef {
    /// Number of the limiter.
    pub id: u8,
    /// Beyond the limit the packet is blocked; otherwise the rule does not match.
    pub block: bool,
}

/// A call of an anchor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnchorCall {
    /// As it is written: relative to the anchor it stands in unless it begins with `/`; empty for one without a name.
    pub name: String,
    /// The anchor from the main ruleset down: `a/b`, without the `/*` of a wildcard.
    pub path: String,
    /// `/*`: all anchors below, in the order of their names.
    pub wildcard: bool,
    /// Its rules stand in braces behind it.
    pub inline: bool,
}

/// The rules of the main ruleset or of one anchor, each kind in the order of evaluation.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Rules {
    /// Ethernet rules.
    pub ether: Vec<EtherRule>,
    /// Scrub rules.
    pub scrub: Vec<Rule>,
    /// Nat rules and calls.
    pub nat: Vec<Rule>,
    /// Rdr rules and calls.
    pub rdr: Vec<Rule>,
    /// Binat rules and calls.
    pub binat: Vec<Rule>,
    /// Filter rules and calls.
    pub filter: Vec<Rule>,
}

impl Rules {
    /// None.
    pub const NONE: Rules = Rules {
        ether: Vec::new(),
        scrub: Vec::new(),
        nat: Vec::new(),
        rdr: Vec::new(),
        binat: Vec::new(),
        filter: Vec::new(),
    };

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ether.is_empty() && self.all().next().is_none()
    }

    /// The list that rules with this action are in.
    pub const fn list_mut(&mut self, action: Action) -> &mut Vec<Rule> {
        match action {
            Action::Pass | Action::Block(_) | Action::Match => &mut self.filter,
            Action::Scrub | Action::NoScrub => &mut self.scrub,
            Action::Nat | Action::NoNat => &mut self.nat,
            Action::Binat | Action::NoBinat => &mut self.binat,
            Action::Rdr | Action::NoRdr => &mut self.rdr,
        }
    }

    /// The rules of a kind.
    pub fn list(&self, kind: Kind) -> &[Rule] {
        match kind {
            Kind::Filter => &self.filter,
            Kind::Nat => &self.nat,
            Kind::Rdr => &self.rdr,
            Kind::Binat => &self.binat,
        }
    }

    /// The calls of anchors, those of Ethernet rules first.
    pub fn calls(&self) -> impl Iterator<Item = &AnchorCall> {
        let ether = self.ether.iter().filter_map(|rule| rule.anchor.as_ref());
        ether.chain(self.all().filter_map(|rule| rule.anchor.as_ref()))
    }

    /// All but the Ethernet rules, in the order in which pfctl prints them.
    pub fn all(&self) -> impl Iterator<Item = &Rule> {
        [&self.scrub, &self.nat, &self.rdr, &self.binat, &self.filter].into_iter().flatten()
    }

    /// The same, to be changed.
    pub(crate) fn all_mut(&mut self) -> impl Iterator<Item = &mut Rule> {
        [&mut self.scrub, &mut self.nat, &mut self.rdr, &mut self.binat, &mut self.filter]
            .into_iter()
            .flatten()
    }
}

/// The rules of an anchor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Anchor {
    /// From the main ruleset down: `a/b`. An anchor without a name is `_1`, `_2` and so on.
    pub path: String,
    /// Its rules.
    pub rules: Rules,
    /// What is printed before them: its tables.
    pub preamble: Vec<String>,
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
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Tagged {
    /// Every tag but this.
    pub not: bool,
    /// The tag.
    pub name: String,
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
    /// `max-pkt-size n`: matches only packets up to this size; 0 is any.
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
