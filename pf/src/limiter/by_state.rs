//! A state limiter: one number of states, for all workers. To look is to read; who takes a share has a lock of its own.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use kern::lock::Leaf;

use super::{Full, Limiter, bucket::Bucket};

/// The moving part of a state limiter.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(super) struct StateLimiter {
    limit: AtomicU32,
    bucket: Bucket,
    states: AtomicU32,
    /// When the bucket is full again.
    full: AtomicU64,
    taking: Taking,
}

/// One at a time takes a share: number and bucket go together.
#[derive(Debug)]
struct Taking(Leaf<()>);

impl Default for Taking {
    fn default() -> Self {
        Taking(Leaf::new(()))
    }
}

impl StateLimiter {
    pub(super) fn set(&self, limiter: &Limiter) {
        self.limit.store(limiter.limit, Relaxed);
        self.bucket.set(limiter.rate);
    }

    /// It is defined no more: there is no room.
    pub(super) fn close(&self) {
        self.limit.store(0, Relaxed);
    }

    /// States that hold a share.
    pub(super) fn states(&self) -> u32 {
        self.states.load(Relaxed)
    }

    /// Whether there is room at `now`, in nanoseconds of the clock: when the bucket would be full again.
    pub(super) fn look(&self, now: u64) -> Result<u64, Full> {
        if self.states() >= self.limit.load(Relaxed) {
            return Err(Full::Limit);
        }
        self.bucket.take(self.full.load(Relaxed), now).ok_or(Full::Rate)
    }

    /// Takes a share, if there still is room.
    pub(super) fn take(&self, now: u64) -> bool {
        self.taking.0.with(|()| match self.look(now) {
            Ok(full) => {
                self.full.store(full, Relaxed);
                self.states.fetch_add(1, Relaxed);
                true
            }
            Err(_) => false,
        })
    }

    /// Gives a share back.
    pub(super) fn leave(&self) {
        self.states.fetch_sub(1, Relaxed);
    }
}
