//! RED: random early detection (Floyd and Jacobson 1993, `altq_red.c`), and its average, which RIO uses too.
//!
//! ```text
//!  drop                     ┌────── 1: forced
//!  probability   1/10 ┌─────┘
//!                   ╱
//!             ____╱
//!                min   max          average queue, in packets
//! ```
//!
//! Between the thresholds the drops are evenly spaced by counting: the n-th packet since the last drop is dropped with
//! a probability such that the distance is uniform on 1 .. 2/p - 1, whose mean is exactly 1/p. Above the upper
//! threshold every packet is dropped, ECN or not. Averages are fixed point, 2⁻³² of a packet.

use crate::random::Random;
use kern::time::Instant;

/// Fraction bits of an average.
const FRACTION: u32 = 32;
/// 1 / the highest probability of an early drop.
pub(crate) const INV_MAX_P: u64 = 10;

/// What a dropper says to a packet that comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Let it in.
    Pass,
    /// Drop it, or mark it.
    Early,
    /// Drop it.
    Forced,
}

/// An exponentially weighted average of a queue's length.
#[derive(Clone, Debug)]
pub(crate) struct Average {
    value: u64,
    /// The weight is 2 to the minus this.
    shift: u32,
    /// Nanoseconds a packet takes: by so many packets an idle queue would have been empty.
    packet_time: u64,
    idle_since: Option<Instant>,
}

impl Average {
    /// Of a queue served at `rate` bits a second, packets of `mtu` bytes.
    pub(crate) fn new(rate: u64, mtu: u32) -> Average {
        let packet_time = (u64::from(mtu) * 8_000_000_000 / rate.max(1)).max(1);
        // A slow queue would take minutes to notice anything at the usual weight.
        let shift = match 1_000_000_000 / packet_time {
            0..50 => 6,
            50..300 => 7,
            _ => 9,
        };
        Average { value: 0, shift, packet_time, idle_since: Some(Instant::ZERO) }
    }

    /// A packet comes and finds `length` there.
    #[inline]
    pub(crate) fn arrive(&mut self, length: u64, now: Instant) {
        if let Some(since) = self.idle_since.take() {
            self.age(now.nanos_since(since) / self.packet_time);
        }
        let length = length << FRACTION;
        if length >= self.value {
            self.value += (length - self.value) >> self.shift;
        } else {
            self.value -= (self.value - length) >> self.shift;
        }
    }

    /// The queue has run empty.
    #[inline]
    pub(crate) fn idle(&mut self, now: Instant) {
        self.idle_since = Some(now);
    }

    /// As if `packets` had come to an empty queue: (1 - weight) to that power, by squaring.
    fn age(&mut self, packets: u64) {
        // After this many the average is below 2⁻³² of what it was.
        if packets >= 32 << self.shift {
            self.value = 0;
            return;
        }
        let one = 1_u64 << FRACTION;
        let (mut factor, mut n) = (one - (one >> self.shift), packets);
        while n > 0 && self.value > 0 {
            if n & 1 == 1 {
                self.value = times(self.value, factor);
            }
            factor = times(factor, factor);
            n >>= 1;
        }
    }

    /// The average, in 2⁻³² of a packet.
    #[inline(always)]
    pub(crate) fn value(&self) -> u64 {
        self.value
    }
}

fn times(a: u64, b: u64) -> u64 {
    ((u128::from(a) * u128::from(b)) >> FRACTION) as u64
}

/// A line from 0 at `min` to 1/10 at `max`, and the packets since the last drop.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    min: u64,
    max: u64,
    since: u64,
}

impl Line {
    pub(crate) fn new(min: u64, max: u64) -> Line {
        let min = min.max(1);
        Line { min: min << FRACTION, max: max.max(min + 1) << FRACTION, since: 0 }
    }

    /// What becomes of a packet at this average.
    #[inline]
    pub(crate) fn judge(&mut self, average: u64, random: &mut Random) -> Verdict {
        if average < self.min {
            self.since = 0;
            return Verdict::Pass;
        }
        if average >= self.max {
            self.since = 0;
            return Verdict::Forced;
        }
        // p = above / (whole): the n-th packet since the last drop goes with p / (2 - p (n + 1)).
        let above = average - self.min;
        let whole = 2 * INV_MAX_P * (self.max - self.min);
        let rest = whole.saturating_sub(above.saturating_mul(self.since + 1));
        if rest <= above || random.below(rest) < above {
            self.since = 0;
            Verdict::Early
        } else {
            self.since += 1;
            Verdict::Pass
        }
    }
}

/// Random early detection for one queue.
#[derive(Debug)]
pub(crate) struct Red {
    average: Average,
    line: Line,
    random: Random,
}

impl Red {
    /// For a queue of `limit` packets, served at `rate` bits a second: from a tenth of the limit to three tenths.
    pub(crate) fn new(limit: u32, rate: u64, mtu: u32, seed: u64) -> Red {
        let limit = u64::from(limit);
        Red {
            average: Average::new(rate, mtu),
            line: Line::new(limit / 10, limit * 3 / 10),
            random: Random::new(seed),
        }
    }

    /// A packet comes and finds `length` there.
    #[inline]
    pub(crate) fn arrive(&mut self, length: u64, now: Instant) -> Verdict {
        self.average.arrive(length, now);
        if length < 2 {
            return Verdict::Pass;
        }
        self.line.judge(self.average.value(), &mut self.random)
    }

    /// The queue has run empty.
    #[inline]
    pub(crate) fn idle(&mut self, now: Instant) {
        self.average.idle(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drops_match_the_line_within_three_sigma_at_every_average() {
        let mut random = Random::new(0x4ed);
        for tenths in (55..150_u64).step_by(10) {
            let mut line = Line::new(5, 15);
            let average = (tenths << FRACTION) / 10;
            let n = 200_000;
            let drops = (0..n).filter(|_| line.judge(average, &mut random) == Verdict::Early).count() as f64;
            let p = (tenths as f64 / 10.0 - 5.0) / 100.0;
            // Distances are uniform on 1 .. 2/p - 1: a renewal process, its variance that of the distance.
            let span = 2.0 / p - 1.0;
            let sigma = (f64::from(n) * (span * span - 1.0) / 12.0 * p.powi(3)).sqrt();
            let expected = f64::from(n) * p;
            // One more for the distance cut off at the end.
            assert!(
                (drops - expected).abs() <= 3.0 * sigma + 1.0,
                "{tenths}: {drops} for {expected} ± {sigma}"
            );
        }
    }

    #[test]
    fn an_idle_time_ages_the_average_as_empty_arrivals_would() {
        let mut average = Average::new(10_000_000, 1500);
        for ms in 0..4_000 {
            average.arrive(20, Instant::from_millis(ms));
        }
        let mut twin = average.clone();
        (0..100).for_each(|_| twin.arrive(0, Instant::from_secs(4)));
        average.idle(Instant::from_secs(4));
        average.arrive(0, Instant::from_secs(4).after(99 * 1_200_000 + 5));
        let (a, b) = (average.value() as f64, twin.value() as f64);
        assert!((a / b - 1.0).abs() < 1e-6, "{a} {b}");
        average.idle(Instant::from_secs(5));
        average.arrive(0, Instant::from_secs(3600));
        assert_eq!(average.value(), 0);
    }
}
