//! Shared memory as the paths see it: words that are read and written one at a time.
//!
//! The paths are written once over [`Memory`]. [`Relaxed`] is the real thing; tests put loom's and shuttle's atomics behind it. Relaxed order is enough to show the races on x86; locks and state words
//! are AcqRel, so a consistent profile is right on weaker machines too.

use std::sync::atomic::{AtomicU32, Ordering};

/// A word's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct At(pub u32);

/// Words that several virtual CPUs share.
pub trait Memory: Sync {
    /// Whether waiting and holding are worth timing.
    const TIMED: bool = false;
    /// Whether [`tell`](Memory::tell) wants its lines.
    const TOLD: bool = false;

    /// A plain read.
    fn load(&self, at: At) -> u32;
    /// A plain write.
    fn store(&self, at: At, value: u32);
    /// Compare-exchange; whether the word was `old`.
    fn swap_if(&self, at: At, old: u32, new: u32) -> bool;
    /// A locked add; what the word was.
    fn add(&self, at: At, n: u32) -> u32;
    /// Lets others go on: nothing to do here, or a lock is taken.
    fn pause(&self);
    /// A line of a trace.
    fn tell(&self, _line: impl FnOnce() -> String) {}
}

/// Real memory.
pub struct Relaxed(Box<[AtomicU32]>);

impl Relaxed {
    /// This many words, all zero.
    pub fn new(words: usize) -> Relaxed {
        Relaxed((0..words).map(|_| AtomicU32::new(0)).collect())
    }

    #[inline(always)]
    fn word(&self, at: At) -> &AtomicU32 {
        &self.0[at.0 as usize]
    }
}

impl Memory for Relaxed {
    const TIMED: bool = true;

    #[inline(always)]
    fn load(&self, at: At) -> u32 {
        self.word(at).load(Ordering::Relaxed)
    }

    #[inline(always)]
    fn store(&self, at: At, value: u32) {
        // Release costs nothing on x86 and lets `locks` give a lock up with it.
        self.word(at).store(value, Ordering::Release);
    }

    #[inline(always)]
    fn swap_if(&self, at: At, old: u32, new: u32) -> bool {
        self.word(at).compare_exchange(old, new, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    #[inline(always)]
    fn add(&self, at: At, n: u32) -> u32 {
        self.word(at).fetch_add(n, Ordering::AcqRel)
    }

    #[inline(always)]
    fn pause(&self) {
        std::thread::yield_now();
    }
}
