//! The gate of a link that is not MP-safe: it lets everybody in and writes down who should not have come.

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

/// What an MP-unsafe link saw.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Entries {
    /// Calls.
    pub entered: u64,
    /// Calls while another was inside.
    pub concurrent: u64,
    /// Calls for which the probe said that the Kernel lock was not held.
    pub unlocked: u64,
}

/// Says whether the calling thread holds Kernel.
pub type Probe = Arc<dyn Fn() -> bool + Send + Sync>;

#[derive(Default)]
pub(super) struct Turnstile {
    inside: AtomicBool,
    entered: AtomicU64,
    concurrent: AtomicU64,
    unlocked: AtomicU64,
    probe: OnceLock<Probe>,
}

/// Somebody is inside until this is dropped.
pub(super) struct Inside<'a>(Option<&'a Turnstile>);

impl Turnstile {
    pub(super) fn enter(&self) -> Inside<'_> {
        self.entered.fetch_add(1, Ordering::Relaxed);
        if self.probe.get().is_some_and(|held| !held()) {
            self.unlocked.fetch_add(1, Ordering::Relaxed);
        }
        if self.inside.swap(true, Ordering::Acquire) {
            self.concurrent.fetch_add(1, Ordering::Relaxed);
            return Inside(None);
        }
        Inside(Some(self))
    }

    /// Who came in so far.
    pub(super) fn entries(&self) -> Entries {
        Entries {
            entered: self.entered.load(Ordering::Relaxed),
            concurrent: self.concurrent.load(Ordering::Relaxed),
            unlocked: self.unlocked.load(Ordering::Relaxed),
        }
    }

    /// Sets who says whether Kernel is held; says whether it was the first.
    pub(super) fn set_probe(&self, probe: Probe) -> bool {
        self.probe.set(probe).is_ok()
    }
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        if let Some(turnstile) = self.0 {
            turnstile.inside.store(false, Ordering::Release);
        }
    }
}
