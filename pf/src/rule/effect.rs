//! What a rule does to the packets that it is for, besides deciding on them.

use crate::{addr::Family, pool::Pool};

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
