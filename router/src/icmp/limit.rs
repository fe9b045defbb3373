//! How many ICMP errors a worker may send (RFC 1812, 4.3.2.8; RFC 4443, 2.4 f): a token bucket.
//!
//! A thousand a second and worker unless the configuration says otherwise (`[icmp] rate`), a hundred at once. FreeBSD allows 200
//! a second and Linux 1,000 (and bursts of 50), both for a host; a router between large networks owes more, and one
//! whose errors are dropped breaks path MTU discovery before it saves anything.

use kern::time::Instant;

const SECOND: u64 = 1_000_000_000;
/// Errors that may follow each other at once.
const BURST: u64 = 100;

/// One worker's bucket, kept as the instant at which it would be full again (the generic cell rate algorithm): no refill to
/// compute.
pub struct Limiter {
    full_at: Instant,
}

impl Limiter {
    /// A full bucket.
    pub fn new(now: Instant) -> Limiter {
        Limiter { full_at: now }
    }

    /// Takes a token, if there is one; `rate` a second come in, 0 is no limit.
    #[inline]
    pub(super) fn allows(&mut self, now: Instant, rate: u32) -> bool {
        let Some(interval) = SECOND.checked_div(rate.into()) else { return true };
        let full_at = self.full_at.max(now);
        if full_at.nanos_since(now) > (BURST - 1) * interval {
            return false;
        }
        self.full_at = full_at.after(interval);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_of_a_hundred_then_one_a_millisecond() {
        let mut now = Instant::from_secs(5);
        let mut limiter = Limiter::new(now);
        assert_eq!((0..200).filter(|_| limiter.allows(now, 1000)).count(), 100);
        now = now.after(SECOND / 100);
        assert_eq!((0..200).filter(|_| limiter.allows(now, 1000)).count(), 10);
        assert!((0..1000).all(|_| limiter.allows(now, 0)), "no limit");
        now = Instant::from_secs(60);
        assert_eq!((0..200).filter(|_| limiter.allows(now, 1000)).count(), 100);
    }

    #[test]
    fn a_thousand_a_second_in_the_long_run() {
        let mut limiter = Limiter::new(Instant::ZERO);
        let sent = (0..10_000_000_u64)
            .step_by(1000)
            .filter(|&us| limiter.allows(Instant::from_nanos(us * 1000), 1000));
        assert_eq!(sent.count(), 10_000);
        let mut limiter = Limiter::new(Instant::ZERO);
        let sent = (0..10_000_000_u64)
            .step_by(100)
            .filter(|&us| limiter.allows(Instant::from_nanos(us * 1000), 1000));
        assert!((10_000..=10_100).contains(&sent.count()));
    }
}
