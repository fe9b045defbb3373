//! `max-pkt-rate n/s` (pf.conf(5)): packets of a rule, and of states that it has made in the direction of their first
//! packet, in a window of s seconds. The window begins with the first packet behind the one before (FreeBSD:
//! counter_ratecheck(9)); n packets of it are let through.
//!
//! All workers share a meter, so it is one word: how many packets there were, and above it when the window began.
//! Once n packets are through, nobody writes it before the next window.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use crate::rule::Rate;

/// Packets of a rule in the present window; in a line of its own, since every packet writes it.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(crate) struct Meter {
    /// Packets in a window; 0 is no bound.
    limit: AtomicU32,
    seconds: AtomicU32,
    /// Milliseconds of the clock, and in as many bits as the limit has, packets: none before the first window.
    window: AtomicU64,
}

/// Workers read the clock once a batch: so far one may be behind another, in milliseconds.
const BEHIND: u64 = 60_000;

impl Meter {
    /// Begins anew, for a rule of this rate.
    pub(crate) fn set(&self, rate: Option<Rate>) {
        self.limit.store(rate.map_or(0, |r| r.limit), Relaxed);
        self.seconds.store(rate.map_or(0, |r| r.seconds), Relaxed);
        self.window.store(0, Relaxed);
    }

    /// Whether there is room for a packet at `now`, in nanoseconds of the clock; then it is counted, as so many. A
    /// super-frame fits while one of its packets does.
    pub(crate) fn take(&self, now: u64, packets: u32) -> bool {
        let (limit, seconds) = (self.limit.load(Relaxed), self.seconds.load(Relaxed));
        if limit == 0 {
            return true;
        }
        let bits = u32::BITS - limit.leading_zeros();
        let latest = u64::MAX >> bits;
        let now = (now / 1_000_000) & latest;
        let limit = u64::from(limit);
        let counted = |before: u64| limit.min(before + u64::from(packets.max(1)));
        let next = |window: u64| {
            let (begun, count) = (window >> bits, window & !(u64::MAX << bits));
            let elapsed = now.wrapping_sub(begun) & latest;
            let is_over = elapsed >= u64::from(seconds) * 1000 && elapsed < latest - BEHIND;
            if count == 0 || is_over {
                return Some(now << bits | counted(0));
            }
            (count < limit).then(|| begun << bits | counted(count))
        };
        self.window.fetch_update(Relaxed, Relaxed, next).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn meter(limit: u32, seconds: u32) -> Meter {
        let meter = Meter::default();
        meter.set(Some(Rate { limit, seconds }));
        meter
    }

    #[test]
    fn a_window_begins_with_its_first_packet_and_has_room_for_so_many() {
        let meter = meter(3, 2);
        let at = |tenths: u64| 7 * SECOND + tenths * SECOND / 10;
        let through = [0, 5, 19, 19, 19, 20, 39, 39, 39, 40, 100].map(|t| meter.take(at(t), 1));
        assert_eq!(through, [true, true, true, false, false, true, true, true, false, true, true]);
    }

    #[test]
    fn a_worker_whose_clock_is_behind_begins_no_window() {
        let meter = meter(1, 1);
        assert!(meter.take(5 * SECOND, 1));
        assert!(!meter.take(5 * SECOND - SECOND / 100, 1));
        assert!(!meter.take(5 * SECOND + SECOND / 2, 1));
        assert!(meter.take(6 * SECOND, 1));
    }

    #[test]
    fn a_super_frame_counts_as_its_packets_and_fits_while_one_of_them_does() {
        let meter = meter(10, 1);
        assert!(meter.take(SECOND, 8) && meter.take(SECOND, 40) && !meter.take(SECOND, 1));
    }

    #[test]
    fn the_largest_rate_and_none_are_metered_too() {
        let large = meter(u32::MAX, u32::MAX);
        assert!(large.take(SECOND, u32::MAX) && !large.take(1_000_000 * SECOND, 1));
        let none = Meter::default();
        assert!((0..100).all(|_| none.take(SECOND, 1)));
    }

    #[test]
    fn workers_together_get_no_more_than_the_rate() {
        let meter = meter(1000, 1);
        let through: usize = std::thread::scope(|scope| {
            let worker = || (0..1000).filter(|_| meter.take(SECOND, 1)).count();
            let workers: Vec<_> = (0..4).map(|_| scope.spawn(worker)).collect();
            workers.into_iter().map(|worker| worker.join().unwrap()).sum()
        });
        assert_eq!(through, 1000);
    }
}
