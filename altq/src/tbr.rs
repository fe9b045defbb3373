//! The token bucket regulator: how fast an interface with ALTQ sends (`altq_subr.c`, `tbr_dequeue`).
//!
//! The bucket holds up to `depth` bytes and fills at `rate`. A packet may leave while the count is above zero and
//! then takes all its bytes, so the count falls below zero by less than one packet. In any time T it lets through at
//! most rate × T + depth + one packet.
//!
//! Two differences to BSD, for exactness. BSD fills the bucket only when it is empty, so that after a pause a full
//! bucket and then a second one leave at once, against its own bound; this one fills all the time. BSD's regulator is
//! polled by a timer; this one says the very nanosecond at which the count turns positive.
//!
//! Arithmetic: one byte is 8 × 10⁹ units, so that one nanosecond at `rate` bits a second is exactly `rate` units.
//! Nothing is ever rounded, and the long-run rate is the configured one.

use kern::time::Instant;

/// Units in a byte: bits × nanoseconds in a second.
const BYTE: i128 = 8 * 1_000_000_000;

/// A token bucket.
#[derive(Clone, Debug)]
pub struct Regulator {
    /// Bits a second.
    rate: i128,
    depth: i128,
    count: i128,
    /// When `count` was right.
    at: Instant,
}

impl Regulator {
    /// A full bucket of `depth` bytes that fills at `rate` bits a second. Zero is taken as one, of either.
    pub fn new(rate: u64, depth: u32) -> Regulator {
        let depth = i128::from(depth.max(1)) * BYTE;
        Regulator { rate: i128::from(rate.max(1)), depth, count: depth, at: Instant::ZERO }
    }

    /// Bits a second.
    pub fn rate(&self) -> u64 {
        self.rate as u64
    }

    /// Bytes the bucket holds.
    pub fn depth(&self) -> u32 {
        (self.depth / BYTE) as u32
    }

    /// Whether a packet may leave now.
    #[inline]
    pub fn may_send(&mut self, now: Instant) -> bool {
        self.fill(now);
        self.count > 0
    }

    /// A packet of this many bytes leaves.
    #[inline]
    pub fn charge(&mut self, bytes: u32) {
        self.count -= i128::from(bytes) * BYTE;
    }

    /// The first nanosecond at which a packet may leave; not after `now` if one may leave now.
    pub fn ready_at(&self, now: Instant) -> Instant {
        if self.count > 0 {
            return self.at.min(now);
        }
        let wait = -self.count / self.rate + 1;
        self.at.after(u64::try_from(wait).unwrap_or(u64::MAX))
    }

    /// Goes on where `old` stands, so that a new configuration is no new burst.
    pub fn take_over(&mut self, old: &Regulator, now: Instant) {
        let mut old = old.clone();
        old.fill(now);
        self.count = old.count.min(self.depth);
        self.at = old.at;
    }

    #[inline]
    fn fill(&mut self, now: Instant) {
        let elapsed = i128::from(now.nanos_since(self.at));
        if elapsed > 0 {
            self.count = self.count.saturating_add(elapsed.saturating_mul(self.rate)).min(self.depth);
            self.at = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(nanos: u64) -> Instant {
        Instant::from_nanos(nanos)
    }

    #[test]
    fn the_wake_up_is_the_first_nanosecond_at_which_the_count_is_positive() {
        // 1 Mb/s: 8 µs a byte.
        let mut r = Regulator::new(1_000_000, 1500);
        assert!(r.may_send(at(1)));
        r.charge(1500);
        assert!(!r.may_send(at(1)), "an empty bucket sends nothing");
        assert_eq!(r.ready_at(at(1)), at(2));
        assert!(r.may_send(at(2)));
        r.charge(1500);
        let ready = r.ready_at(at(2));
        assert_eq!(ready, at(2 + 1500 * 8_000));
        assert!(!r.may_send(at(ready.nanos() - 1)));
        assert!(r.may_send(ready));
    }

    #[test]
    fn a_pause_fills_the_bucket_and_no_more() {
        let mut r = Regulator::new(1_000_000_000, 3000);
        let now = Instant::from_secs(3600);
        let mut sent = 0;
        while r.may_send(now) {
            r.charge(1000);
            sent += 1;
        }
        assert_eq!(sent, 3);
    }

    #[test]
    fn the_longest_waits_and_pauses_neither_overflow_nor_panic() {
        let mut r = Regulator::new(1, u32::MAX);
        while r.may_send(at(1)) {
            r.charge(u32::MAX);
        }
        assert!(r.ready_at(at(1)) > at(1));
        for _ in 0..4 {
            r.charge(u32::MAX);
        }
        assert_eq!(r.ready_at(at(1)), Instant::NEVER);
        let mut r = Regulator::new(u64::MAX, u32::MAX);
        r.charge(u32::MAX);
        assert!(r.may_send(Instant::NEVER));
    }

    #[test]
    fn taking_over_gives_no_new_burst() {
        let mut old = Regulator::new(1_000_000, 1500);
        assert!(old.may_send(at(1)));
        old.charge(1500);
        let mut new = Regulator::new(2_000_000, 9000);
        new.take_over(&old, at(1));
        assert!(!new.may_send(at(1)));
        assert!(new.may_send(at(2)));
    }
}
