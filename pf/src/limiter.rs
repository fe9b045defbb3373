//! Limiters (`state limiter`, `source limiter`): the model. A limiter is a named bound on states, or on states by source,
//! that several rules share.

use crate::{conf::Pos, rule::Rate};

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
