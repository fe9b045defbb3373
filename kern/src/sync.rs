//! The switch between the real world and loom, the model checker.
//!
//! Everything in this crate that synchronises threads takes its primitives from here, so that `--cfg loom` runs the
//! very same code under every interleaving.
//! This is the only file of the project that names the locks of the standard library; everything else uses
//! [`crate::lock`], which knows the order.
//!
//! What loom does not see: `Arc` reference counts of the standard library (we use loom's under loom), time, and the
//! system calls that put a worker to sleep.
//!
//! A poisoned lock is entered all the same: in release builds a panic ends the process anyway, and in tests the
//! first failure is the one worth reading, not the poison that follows from it.

#![allow(clippy::disallowed_types, reason = "the one file that names them")]

use std::{
    fmt,
    sync::{PoisonError, TryLockError},
    time::Duration,
};

#[cfg(loom)]
pub(crate) use loom::{
    sync::{Arc, MutexGuard, atomic},
    thread, thread_local,
};
#[cfg(not(loom))]
pub(crate) use std::{
    sync::{Arc, MutexGuard, atomic},
    thread, thread_local,
};

#[cfg(loom)]
use loom::sync as raw;
#[cfg(not(loom))]
use std::sync as raw;

#[cfg(loom)]
pub(crate) use loom::cell::UnsafeCell;

/// The standard cell in the shape of loom's: access through a closure, so that loom can watch the access begin and
/// end.
#[cfg(not(loom))]
#[derive(Debug)]
pub(crate) struct UnsafeCell<T: ?Sized>(std::cell::UnsafeCell<T>);

#[cfg(not(loom))]
impl<T> UnsafeCell<T> {
    pub(crate) const fn new(value: T) -> UnsafeCell<T> {
        UnsafeCell(std::cell::UnsafeCell::new(value))
    }

    pub(crate) fn into_inner(self) -> T {
        self.0.into_inner()
    }

    /// Gives the closure a pointer to read through.
    #[inline(always)]
    pub(crate) fn with<R>(&self, f: impl FnOnce(*const T) -> R) -> R {
        f(self.0.get())
    }

    /// Gives the closure a pointer to write through.
    #[inline(always)]
    pub(crate) fn with_mut<R>(&self, f: impl FnOnce(*mut T) -> R) -> R {
        f(self.0.get())
    }
}

/// A mutex without a level, for [`crate::lock`] and [`crate::publish`] to build on.
#[derive(Default)]
pub(crate) struct Mutex<T>(raw::Mutex<T>);

impl<T> Mutex<T> {
    #[cfg(not(loom))]
    pub(crate) const fn new(value: T) -> Mutex<T> {
        Mutex(raw::Mutex::new(value))
    }

    #[cfg(loom)]
    pub(crate) fn new(value: T) -> Mutex<T> {
        Mutex(raw::Mutex::new(value))
    }

    #[inline]
    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[inline]
    pub(crate) fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        match self.0.try_lock() {
            Ok(guard) => Some(guard),
            Err(TryLockError::Poisoned(poison)) => Some(poison.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    pub(crate) fn get_mut(&mut self) -> &mut T {
        self.0.get_mut().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn into_inner(self) -> T {
        self.0.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> fmt::Debug for Mutex<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Mutex(..)")
    }
}

/// Something that threads wait for under a [`Mutex`].
pub(crate) struct Condition(raw::Condvar);

impl Condition {
    pub(crate) fn new() -> Condition {
        Condition(raw::Condvar::new())
    }

    /// Wakes all who wait.
    pub(crate) fn notify_all(&self) {
        self.0.notify_all();
    }

    /// Waits for a notification, without an end.
    pub(crate) fn wait<'a, T>(&self, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
        self.0.wait(guard).unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a notification for at most `timeout`.
    ///
    /// loom has no time: there this waits until it is notified, so that a lost wake-up shows as a deadlock.
    pub(crate) fn wait_timeout<'a, T>(
        &self,
        guard: MutexGuard<'a, T>,
        timeout: Duration,
    ) -> MutexGuard<'a, T> {
        if cfg!(loom) {
            return self.wait(guard);
        }
        match self.0.wait_timeout(guard, timeout) {
            Ok((guard, _)) => guard,
            Err(poison) => poison.into_inner().0,
        }
    }
}

impl fmt::Debug for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Condition")
    }
}

/// One turn of a loop that waits for another core: a hint to the core first, then the rest of the time slice to
/// whoever needs it, who may be the holder.
#[inline]
pub(crate) fn relax(turn: &mut u32) {
    const SPINS: u32 = 100;
    if cfg!(loom) || *turn >= SPINS {
        thread::yield_now();
    } else {
        *turn += 1;
        std::hint::spin_loop();
    }
}
