//! Limiters as the operator sees them.

use kern::lock::{Held, levels::PfRules};

use super::{Limiter, Limiters, by_source::Source};
use crate::{addr::Prefix, rule::Rate};

/// A limiter and what it has done: `pfctl -s LimiterStates`, `-s LimiterSrcs`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LimiterInfo {
    /// As it is defined.
    pub limiter: Limiter,
    /// States that hold a share.
    pub states: u32,
    /// Shares taken.
    pub admitted: u64,
    /// Packets refused because of the limit.
    pub hard: u64,
    /// Packets refused because of the rate.
    pub rate: u64,
    /// Packets refused because there were as many sources as there may be.
    pub addresses: u64,
    /// The sources there are.
    pub sources: Vec<LimiterSource>,
}

/// A source of a limiter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LimiterSource {
    /// Its addresses.
    pub prefix: Prefix,
    /// States that hold a share.
    pub states: u32,
    /// Shares taken.
    pub admitted: u64,
    /// Packets refused because of the limit.
    pub hard: u64,
    /// Packets refused because of the rate.
    pub rate: u64,
}

impl Limiters {
    /// The limiters of a kind, by number.
    pub(crate) fn dump(&self, held: &mut Held<'_, PfRules>, by_source: bool) -> Vec<LimiterInfo> {
        let mut defined = self.defined.with(|defined| defined.clone());
        defined.retain(|l| l.by_source == by_source);
        defined.sort_by_key(|l| l.id);
        defined.into_iter().filter_map(|limiter| self.info(held, limiter)).collect()
    }

    fn info(&self, held: &mut Held<'_, PfRules>, limiter: Limiter) -> Option<LimiterInfo> {
        let (states, since, sources) = if limiter.by_source {
            let place = self.source(limiter.id)?;
            let sources = place.limiter.dump(held).iter().map(LimiterSource::of).collect();
            (place.limiter.states(), place.since(), sources)
        } else {
            let place = self.state(limiter.id)?;
            (place.limiter.states(), place.since(), Vec::new())
        };
        let [admitted, hard, rate, addresses] = since;
        Some(LimiterInfo { limiter, states, admitted, hard, rate, addresses, sources })
    }
}

impl LimiterInfo {
    /// The head of pfctl's list of limiters of a kind.
    pub fn head(by_source: bool) -> String {
        if by_source {
            format!(
                "{:>3} {:>8}/{:<8} {:>5} {:>5}/{:<5} {:>8} {:>8} {:>8} {:>8}",
                "ID", "USE", "ADDRS", "LIMIT", "RATE", "SECS", "ADMIT", "ADDRLIM", "HARDLIM", "RATELIM"
            )
        } else {
            format!(
                "{:>3} {:>8}/{:<8} {:>5}/{:<5} {:>8} {:>8} {:>8}",
                "ID", "USE", "LIMIT", "RATE", "SECS", "ADMIT", "HARDLIM", "RATELIM"
            )
        }
    }

    /// As pfctl prints it: one line.
    pub fn line(&self) -> String {
        let LimiterInfo { limiter: l, admitted, hard, rate, addresses, .. } = self;
        let speed = match l.rate {
            Some(Rate { limit, seconds }) => format!("{limit:>5}/{seconds:<5}"),
            None => format!("{:>5}/{:<5}", "nil", "nil"),
        };
        if l.by_source {
            format!(
                "{:>3} {:>8}/{:<8} {:>5} {speed} {admitted:>8} {addresses:>8} {hard:>8} {rate:>8}",
                l.id,
                self.sources.len(),
                l.entries,
                l.limit
            )
        } else {
            format!("{:>3} {:>8}/{:<8} {speed} {admitted:>8} {hard:>8} {rate:>8}", l.id, self.states, l.limit)
        }
    }
}

impl LimiterSource {
    fn of(source: &Source) -> LimiterSource {
        let Source { prefix, states, admitted, refused: [hard, rate], .. } = *source;
        LimiterSource { prefix, states, admitted, hard, rate }
    }

    /// As `pfctl -v` prints it below its limiter.
    pub fn line(&self, limit: u32) -> String {
        let LimiterSource { prefix, states, admitted, hard, rate } = self;
        format!(
            "\t{}/{} inuse {states}/{limit} admit {admitted} hardlim {hard} ratelim {rate}",
            prefix.addr(),
            prefix.length()
        )
    }
}
