//! `pfctl -s LimiterStates`, `-s LimiterSrcs`: the limiters of the main ruleset and what they have done.

use super::Daemon;
use crate::control::pf::{LimiterReport, LimiterSourceReport, LimitersReport};
use pf::{LimiterInfo, limiter::LimiterSource};

impl Daemon {
    pub(super) fn limiters(&mut self, by_source: bool) -> LimitersReport {
        let shared = self.router.shared().clone();
        let all = shared.pf.limiters(&mut self.root.top().at(), by_source);
        let mut text = LimiterInfo::head(by_source) + "\n";
        let mut verbose = text.clone();
        for limiter in &all {
            let line = limiter.line() + "\n";
            text += &line;
            verbose += &line;
            for source in &limiter.sources {
                verbose += &(source.line(limiter.limiter.limit) + "\n");
            }
        }
        LimitersReport { text, verbose, limiters: all.into_iter().map(one).collect() }
    }
}

fn one(info: LimiterInfo) -> LimiterReport {
    LimiterReport {
        id: info.limiter.id,
        limit: info.limiter.limit,
        name: info.limiter.name,
        states: info.states,
        admitted: info.admitted,
        hard_limited: info.hard,
        rate_limited: info.rate,
        address_limited: info.addresses,
        sources: info.sources.iter().map(source).collect(),
    }
}

fn source(info: &LimiterSource) -> LimiterSourceReport {
    LimiterSourceReport {
        source: format!("{}/{}", info.prefix.addr(), info.prefix.length()),
        states: info.states,
        admitted: info.admitted,
        hard_limited: info.hard,
        rate_limited: info.rate,
    }
}
