//! A rate `n/s`: n states at once, and from then on one every s/n seconds (the generic cell rate algorithm, ITU-T I.371,
//! as pf has it). What is kept is one instant: when the bucket will be full again.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::rule::Rate;

/// How fast a bucket fills; set by the control thread.
#[derive(Debug, Default)]
pub(super) struct Bucket {
    /// Nanoseconds until there is one token more; 0 is no bound.
    token: AtomicU64,
    /// Nanoseconds until all are there.
    whole: AtomicU64,
}

impl Bucket {
    pub(super) fn set(&self, rate: Option<Rate>) {
        let whole = rate.map_or(0, |r| u64::from(r.seconds.max(1)) * 1_000_000_000);
        self.whole.store(whole, Relaxed);
        self.token.store(rate.map_or(0, |r| whole / u64::from(r.limit.max(1))), Relaxed);
    }

    /// Whether it bounds anything.
    pub(super) fn is_bound(&self) -> bool {
        self.token.load(Relaxed) != 0
    }

    /// When it is full again if a token is taken at `now`; none if there is no token. In nanoseconds of the clock.
    pub(super) fn take(&self, full: u64, now: u64) -> Option<u64> {
        let token = self.token.load(Relaxed);
        if token == 0 {
            return Some(full);
        }
        let next = full.max(now) + token;
        (next <= now + self.whole.load(Relaxed)).then_some(next)
    }
}
