//! Limiters (`state limiter`, `source limiter`; pf.conf(5) of FreeBSD 16): a limiter is a named bound on states, or on
//! states by source, that several rules share.
//!
//! ```text
//!   rule matches ──▶ is there room? ──no──▶ no match, or block          a look: counts a refusal, takes nothing
//!        │                 yes
//!   rule decides ──▶ take a share ──gone──▶ evaluate again              of all its limiters, or of none
//!        │
//!   state ends   ──▶ give it back
//! ```
//!
//! A share is one state among `limit`, and one of `rate` tokens. Between look and share another worker may have been
//! faster; then the rules say something else, so they are asked again. Packets of a state never come here.
//!
//! Limiters live as long as the process, by number: a reload changes what they allow, and states go on to count where they
//! have counted. One that a reload drops is closed when no worker looks at the old rules any more: only an anchor can name
//! it by then, and finds no room.

mod all;
mod bucket;
mod by_source;
mod by_state;
mod show;
mod tables;
#[cfg(test)]
mod tests;

use crate::{
    conf::Pos,
    rule::{LimiterRef, Rate},
};

pub(crate) use all::{Limiters, Share};
pub use show::{LimiterInfo, LimiterSource};
pub(crate) use tables::TableChange;

/// The limiters of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limited {
    pub(crate) state: Option<LimiterRef>,
    pub(crate) source: Option<LimiterRef>,
    /// It has a rate of its own (`max-pkt-rate`), which is in its slot.
    pub(crate) metered: bool,
}

impl Limited {
    /// By nothing.
    pub(crate) const NOT: Limited = Limited { state: None, source: None, metered: false };
}

/// What a limiter has no room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Full {
    /// A further state.
    Limit,
    /// A further state so soon.
    Rate,
    /// A further source.
    Entries,
}

/// A limiter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limiter {
    /// Counts by source; otherwise all states together.
    pub by_source: bool,
    /// Its name.
    pub name: String,
    /// Its number, by which the engine knows it.
    pub id: u8,
    /// States at most (of one source).
    pub limit: u32,
    /// New states (of one source).
    pub rate: Option<Rate>,
    /// Sources at most; 0 for a state limiter.
    pub entries: u32,
    /// Leading bits of an IPv4 source that count.
    pub inet_mask: Option<u8>,
    /// Leading bits of an IPv6 source that count.
    pub inet6_mask: Option<u8>,
    /// Table of sources above a number of states, until they are below another.
    pub table: Option<LimiterTable>,
    /// Where it stood.
    pub at: Pos,
}

impl Limiter {
    /// Whether it is the same limiter, as it is now or was before.
    fn is_same(&self, other: &Limiter) -> bool {
        (self.by_source, self.id) == (other.by_source, other.id)
    }

    /// Whether sources of both go into one table, or into none.
    fn has_same_table(&self, other: &Limiter) -> bool {
        let name = |l: &Limiter| l.table.as_ref().map(|t| t.name.clone());
        name(self) == name(other)
    }
}

/// `table <t> above n below m`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LimiterTable {
    /// Its name.
    pub name: String,
    /// A source with more states than this is added.
    pub above: u32,
    /// A source with fewer states than this is removed; 0 is never.
    pub below: u32,
}
