//! How long the packets of a queue waited: a histogram with a fixed relative error.
//!
//! Eight steps an octave, from 1 µs on: a value is told from one 12.5 % larger, and counting one is a shift and an
//! addition. The greatest delay is kept as it was.

/// Steps in an octave.
const STEPS: u32 = 8;
/// Below this all is one: 2¹⁰ ns, about a microsecond.
const FLOOR: u32 = 10;
/// Octaves: up to 2³⁵ ns, 34 seconds; what waits longer counts there.
const OCTAVES: u32 = 25;
const BUCKETS: usize = (OCTAVES * STEPS) as usize + 1;

/// Delays of the packets that left a queue, in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Delay {
    /// Half of the packets waited no longer.
    pub p50: u64,
    /// Of a hundred packets, 99 waited no longer.
    pub p99: u64,
    /// None waited longer.
    pub max: u64,
}

/// The histogram.
pub(crate) struct Histogram {
    buckets: Box<[u64; BUCKETS]>,
    max: u64,
}

/// The bucket of a delay.
#[inline]
fn bucket(nanos: u64) -> usize {
    let log = nanos.max(1).ilog2();
    if log < FLOOR {
        return 0;
    }
    let step = (nanos >> (log - 3)) as u32 & (STEPS - 1);
    (((log - FLOOR) * STEPS + step) as usize + 1).min(BUCKETS - 1)
}

/// The longest delay in a bucket.
fn end_of(bucket: usize) -> u64 {
    let Some(i) = bucket.checked_sub(1) else { return (1 << FLOOR) - 1 };
    let (log, step) = (i as u32 / STEPS + FLOOR, i as u64 % u64::from(STEPS));
    (((u64::from(STEPS) + step + 1) << log) / u64::from(STEPS)) - 1
}

impl Histogram {
    pub(crate) fn new() -> Histogram {
        Histogram { buckets: Box::new([0; BUCKETS]), max: 0 }
    }

    /// Counts one that waited so long.
    #[inline]
    pub(crate) fn add(&mut self, nanos: u64) {
        self.buckets[bucket(nanos)] += 1;
        self.max = self.max.max(nanos);
    }

    /// What there is to say of them.
    pub(crate) fn summary(&self) -> Delay {
        let all: u64 = self.buckets.iter().sum();
        let quantile = |percent: u64| {
            let rank = (all * percent).div_ceil(100);
            let mut seen = 0;
            let at = self.buckets.iter().position(|n| {
                seen += n;
                seen >= rank
            });
            at.map_or(0, end_of).min(self.max)
        };
        if all == 0 {
            Delay::default()
        } else {
            Delay { p50: quantile(50), p99: quantile(99), max: self.max }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_bucket_ends_at_most_an_eighth_above_what_it_holds(nanos in 1024_u64..1 << 35) {
            let end = end_of(bucket(nanos));
            prop_assert!(end >= nanos);
            prop_assert!(end - nanos <= nanos / 8, "{nanos} is told as {end}");
            prop_assert_eq!(bucket(end), bucket(nanos));
            prop_assert_eq!(bucket(end + 1).min(BUCKETS - 1), (bucket(nanos) + 1).min(BUCKETS - 1));
        }
    }

    #[test]
    fn quantiles_are_those_of_what_was_counted() {
        let mut h = Histogram::new();
        assert_eq!(h.summary(), Delay::default());
        (1..=1000).for_each(|ms| h.add(ms * 1_000_000));
        let d = h.summary();
        assert!((500_000_000..=562_500_000).contains(&d.p50), "{d:?}");
        assert!((990_000_000..=1_000_000_000).contains(&d.p99), "{d:?}");
        assert_eq!(d.max, 1_000_000_000);
        h.add(u64::MAX);
        h.add(0);
        assert_eq!(h.summary().max, u64::MAX);
    }
}
