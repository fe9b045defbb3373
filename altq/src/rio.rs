//! RIO: RED with in and out (Clark and Fang 1998, `altq_rio.c`): three drop precedences in one queue.
//!
//! The average that judges a packet counts only packets of its own and of lower precedence, so what is out of
//! profile suffers first and what is in profile does not notice it. Precedences are those of the AF classes.

use crate::{
    random::Random,
    red::{Average, Line, Verdict},
};
use kern::time::Instant;

/// Thresholds for a queue of fifty, by precedence.
const THRESHOLDS: [(u64, u64); 3] = [(35, 45), (20, 30), (5, 15)];

struct Precedence {
    average: Average,
    line: Line,
    /// Packets of this and lower precedence that wait.
    length: u64,
}

/// Random early detection with three precedences.
pub(crate) struct Rio {
    precedences: [Precedence; 3],
    random: Random,
}

impl Rio {
    /// For a queue of `limit` packets, served at `rate` bits a second.
    pub(crate) fn new(limit: u32, rate: u64, mtu: u32, seed: u64) -> Rio {
        let scale = |n: u64| n * u64::from(limit) / 50;
        let precedences = THRESHOLDS.map(|(min, max)| Precedence {
            average: Average::new(rate, mtu),
            line: Line::new(scale(min), scale(max)),
            length: 0,
        });
        Rio { precedences, random: Random::new(seed) }
    }

    /// A packet of this precedence comes.
    #[inline]
    pub(crate) fn arrive(&mut self, precedence: u8, now: Instant) -> Verdict {
        for p in &mut self.precedences[usize::from(precedence)..] {
            p.average.arrive(p.length, now);
        }
        let own = &mut self.precedences[usize::from(precedence)];
        if own.length < 2 {
            return Verdict::Pass;
        }
        own.line.judge(own.average.value(), &mut self.random)
    }

    /// It was let in.
    #[inline]
    pub(crate) fn entered(&mut self, precedence: u8, packets: u32) {
        for p in &mut self.precedences[usize::from(precedence)..] {
            p.length += u64::from(packets);
        }
    }

    /// It has left.
    #[inline]
    pub(crate) fn left(&mut self, precedence: u8, packets: u32, now: Instant) {
        for p in &mut self.precedences[usize::from(precedence)..] {
            p.length -= u64::from(packets);
            if p.length == 0 {
                p.average.idle(now);
            }
        }
    }
}
