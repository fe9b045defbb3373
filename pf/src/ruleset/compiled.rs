//! A rule as it is evaluated, in this router's numbers.

use crate::{
    IfIndex,
    addr::{AddrSet, Family},
    limiter::Limited,
    nat::Translate,
    normalise::Normalise,
    once::Once,
    osfp::Asked,
    route::{RoutePool, RouteTest},
    rule::{Action, Direction, IcmpMatch, Keep, Log, Ports, SourceTrack, StateKind, TcpFlags},
    slab::RuleSlot,
    table::{self, Counted},
    track,
};
use std::sync::Arc;

/// The fields that have skip steps, in the order in which they are tested.
pub(crate) const FIELDS: usize = 8;

/// Which interfaces a rule is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Iface {
    Any,
    Is(IfIndex),
    Not(IfIndex),
    /// An interface that does not exist (yet).
    Never,
}

impl Iface {
    #[inline(always)]
    pub(crate) fn matches(self, index: IfIndex) -> bool {
        match self {
            Iface::Any => true,
            Iface::Is(i) => i == index,
            Iface::Not(i) => i != index,
            Iface::Never => false,
        }
    }
}

/// Which addresses a rule is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum AddrTest {
    Any,
    Masked { family: Family, mask: u128, value: u128, not: bool },
    Range { family: Family, low: u128, high: u128, not: bool },
    Set { set: Arc<AddrSet>, not: bool },
    Table { table: table::Shared, not: bool },
}

impl AddrTest {
    #[inline(always)]
    pub(crate) fn matches(&self, family: Family, addr: u128) -> bool {
        match self {
            AddrTest::Any => true,
            AddrTest::Masked { family: f, mask, value, not } => {
                (*f == family && addr & mask == *value) != *not
            }
            AddrTest::Range { family: f, low, high, not } => {
                (*f == family && (*low..=*high).contains(&addr)) != *not
            }
            AddrTest::Set { set, not } => set.contains(family, addr) != *not,
            AddrTest::Table { table, not } => table.contains(family, addr) != *not,
        }
    }

    /// Counts a packet of a rule with this test in its table, if it has one.
    pub(crate) fn count(&self, worker: usize, address: u128, packet: &Counted) {
        if let AddrTest::Table { table, not } = self {
            table.count(worker, &Counted { not: *not, ..*packet }, address);
        }
    }
}

/// A rule as it is evaluated.
#[derive(Debug)]
pub(crate) struct Compiled {
    pub(crate) skip: [u32; FIELDS],
    pub(crate) iface: Iface,
    pub(crate) direction: Option<Direction>,
    pub(crate) family: Option<Family>,
    pub(crate) proto: Option<u8>,
    pub(crate) src: AddrTest,
    pub(crate) sport: Option<Ports>,
    pub(crate) dst: AddrTest,
    pub(crate) dport: Option<Ports>,
    pub(crate) flags: Option<TcpFlags>,
    pub(crate) icmp: Option<IcmpMatch>,
    pub(crate) tos: Option<u8>,
    /// Priority it must have.
    pub(crate) prio: Option<u8>,
    pub(crate) fragment: bool,
    /// Tag it must have, or must not have.
    pub(crate) tagged: Option<(u16, bool)>,
    pub(crate) quick: bool,
    pub(crate) action: Action,
    pub(crate) keep: Option<KeepState>,
    pub(crate) allow_opts: bool,
    pub(crate) log: Option<Log>,
    /// 0 is none.
    pub(crate) tag: u16,
    /// 0 is none.
    pub(crate) queue: u16,
    /// Where low-delay packets go; `queue` if the rule does not say.
    pub(crate) low_delay_queue: u16,
    pub(crate) slot: RuleSlot,
    /// Its counter of evaluations.
    pub(crate) counter: u32,
    /// Where the packet must have come in.
    pub(crate) received: Iface,
    /// Which systems its packets come from.
    pub(crate) os: Option<Asked>,
    /// It is for one packet.
    pub(crate) once: Option<Once>,
    /// So many of 2^32 packets; none is all.
    pub(crate) probability: Option<u32>,
    /// What it does to addresses, in this order.
    pub(crate) translates: Box<[Translate]>,
    /// What it translates is not filtered.
    pub(crate) nat_pass: bool,
    /// It calls what this number stands for; 0 is no call.
    pub(crate) call: u16,
    /// What few rules say besides.
    pub(crate) rare: Option<Box<Rare>>,
}

/// What few rules say besides.
#[derive(Debug)]
pub(crate) struct Rare {
    /// Where its packets go.
    pub(crate) route: Option<RoutePool>,
    /// `scrub (...)`, `set tos`.
    pub(crate) normalise: Normalise,
    /// `set prio`: for most packets, for low-delay ones.
    pub(crate) prio: Option<(u8, u8)>,
    /// `max-pkt-size`; 0 is any.
    pub(crate) max_size: u16,
    /// `no-route`, `urpf-failed`.
    pub(crate) asks: Option<RouteTest>,
    /// `state limiter`, `source limiter`, `max-pkt-rate`.
    pub(crate) limited: Option<Limited>,
}

/// What a rule says of the states it makes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KeepState {
    pub(crate) bound: bool,
    pub(crate) sloppy: bool,
    pub(crate) allow_related: bool,
    pub(crate) kind: StateKind,
    pub(crate) track: Option<SourceTrack>,
}

impl KeepState {
    pub(super) fn of(keep: &Keep) -> KeepState {
        let Keep { bound, sloppy, allow_related, kind, .. } = *keep;
        KeepState { bound, sloppy, allow_related, kind, track: track::tracked(keep) }
    }
}

impl Compiled {
    fn same(&self, other: &Compiled, field: usize) -> bool {
        match field {
            0 => self.iface == other.iface,
            1 => self.direction == other.direction,
            2 => self.family == other.family,
            3 => self.proto == other.proto,
            4 => self.src == other.src,
            5 => self.sport == other.sport,
            6 => self.dst == other.dst,
            _ => self.dport == other.dport,
        }
    }

    /// Whether it matches every packet of its interface and direction.
    pub(super) fn is_unconditional(&self) -> bool {
        self.family.is_none()
            && self.proto.is_none()
            && self.src == AddrTest::Any
            && self.dst == AddrTest::Any
            && self.flags.is_none()
            && self.tos.is_none()
            && self.prio.is_none()
            && !self.fragment
            && self.tagged.is_none()
            && self.received == Iface::Any
            && self.os.is_none()
            && self.once.is_none()
            && self.probability.is_none()
            && self.asks().is_none()
            && self.limited().is_none()
    }

    /// What it asks of the routes, if it does.
    #[inline(always)]
    pub(crate) fn asks(&self) -> Option<RouteTest> {
        self.rare.as_ref()?.asks
    }

    /// What bounds how often it matches, if anything does.
    #[inline(always)]
    pub(crate) fn limited(&self) -> Option<Limited> {
        self.rare.as_ref()?.limited
    }

    /// Whether being matched has an effect even if a later rule decides.
    pub(super) fn has_side_effect(&self) -> bool {
        self.quick || self.tag != 0 || self.log.is_some() || self.action == Action::Match
    }
}

pub(super) fn link_skip_steps(rules: &mut [Compiled]) {
    for i in (0..rules.len()).rev() {
        for field in 0..FIELDS {
            let same =
                rules.get(i + 1).filter(|next| rules[i].same(next, field)).map(|next| next.skip[field]);
            rules[i].skip[field] = same.unwrap_or(i as u32 + 1);
        }
    }
}
