//! BLUE (Feng, Kandlur, Saha and Shin 1999, `altq_blue.c`): a drop probability that overflow raises and idleness lowers.
//!
//! Not the queue's length decides but what became of it: a queue that overflows is dropped from too little, one that
//! runs empty too much. After a change the probability stays for a while, so that senders can answer.

use crate::{random::Random, red::Verdict};
use kern::time::Instant;

/// Nanoseconds between two changes.
const HOLD: u64 = 50_000_000;
/// The probability is so many of this.
const ONE: u64 = 10_000;
/// What an overflow adds, and what idleness takes away: a tenth, because idle links are noticed more often.
const UP: u64 = 200;
const DOWN: u64 = 20;

/// BLUE for one queue.
#[derive(Debug)]
pub(crate) struct Blue {
    probability: u64,
    changed: Instant,
    random: Random,
}

impl Blue {
    pub(crate) fn new(seed: u64) -> Blue {
        Blue { probability: 0, changed: Instant::ZERO, random: Random::new(seed) }
    }

    /// A packet comes.
    #[inline]
    pub(crate) fn arrive(&mut self) -> Verdict {
        if self.probability > 0 && self.random.below(ONE) < self.probability {
            Verdict::Early
        } else {
            Verdict::Pass
        }
    }

    /// It found the queue full.
    pub(crate) fn overflow(&mut self, now: Instant) {
        self.change(now, (self.probability + UP).min(ONE));
    }

    /// The queue has run empty.
    #[inline]
    pub(crate) fn idle(&mut self, now: Instant) {
        self.change(now, self.probability.saturating_sub(DOWN));
    }

    fn change(&mut self, now: Instant, probability: u64) {
        if now.nanos_since(self.changed) >= HOLD {
            (self.probability, self.changed) = (probability, now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overflow_raises_the_probability_once_a_hold_time_and_idleness_lowers_it() {
        let mut blue = Blue::new(1);
        for ms in 1000..2000 {
            blue.overflow(Instant::from_millis(ms));
        }
        assert_eq!(blue.probability, 20 * UP, "twenty hold times");
        let drops = (0..100_000).filter(|_| blue.arrive() == Verdict::Early).count();
        assert!((39_000..41_000).contains(&drops), "{drops}");
        for ms in 2000..30_000 {
            blue.idle(Instant::from_millis(ms));
        }
        assert_eq!(blue.probability, 0);
        assert_eq!(blue.arrive(), Verdict::Pass);
    }
}
