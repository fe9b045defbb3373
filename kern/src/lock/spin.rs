//! A four-byte lock for objects of which there are many: a row of the state table, a state, an SA.
//!
//! Such a lock is held for tens of nanoseconds, so a waiter spins; but the holder may have been descheduled, so after
//! about a hundred turns each further turn gives the time slice away. It is not fair, and nothing sleeps on it.

use std::{fmt, marker::PhantomData, ops};

use super::{Level, Lock, sealed, witness::Hold};
use crate::sync::{
    UnsafeCell,
    atomic::{AtomicU32, Ordering},
    relax,
};

const FREE: u32 = 0;
const TAKEN: u32 = 1;

/// A spin lock of level `L` over `T`: four bytes in front of the value, and may stand in arrays.
// The lock comes first, so that it shares a cache line with the first fields of a large value.
#[repr(C)]
pub struct SpinMutex<L, T> {
    state: AtomicU32,
    value: UnsafeCell<T>,
    level: PhantomData<fn() -> L>,
}

// SAFETY: `value` is reached through a guard, of which there is one at a time (`state` goes from FREE to TAKEN by
// compare-exchange), or by `&mut self`. So sharing the lock moves `T` between threads and never shares it: `T: Send`
// is enough, as for the standard mutex.
unsafe impl<L, T: Send> Sync for SpinMutex<L, T> {}
// SAFETY: owning the lock is owning the `T` in it.
unsafe impl<L, T: Send> Send for SpinMutex<L, T> {}

impl<L: Level, T> SpinMutex<L, T> {
    /// A lock over `value`.
    #[cfg(not(loom))]
    pub const fn new(value: T) -> Self {
        SpinMutex { state: AtomicU32::new(FREE), value: UnsafeCell::new(value), level: PhantomData }
    }

    /// A lock over `value`.
    #[cfg(loom)]
    pub fn new(value: T) -> Self {
        SpinMutex { state: AtomicU32::new(FREE), value: UnsafeCell::new(value), level: PhantomData }
    }

    /// What is locked, by its only owner: no lock is needed.
    pub fn get_mut(&mut self) -> &mut T {
        // SAFETY: `&mut self` shows that no guard exists, for a guard borrows the lock.
        self.value.with_mut(|value| unsafe { &mut *value })
    }

    /// What was locked.
    pub fn into_inner(self) -> T {
        self.value.into_inner()
    }

    #[inline(always)]
    fn take(&self) -> bool {
        // Acquire pairs with the release in `SpinGuard::drop`: what the last holder wrote is seen by this one.
        self.state.compare_exchange(FREE, TAKEN, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    #[cold]
    fn take_slow(&self) {
        let mut turn = 0;
        loop {
            // Look without writing: the line stays shared among the waiters until the holder gives it up.
            if self.state.load(Ordering::Relaxed) == FREE && self.take() {
                return;
            }
            relax(&mut turn);
        }
    }
}

impl<L: Level, T: Default> Default for SpinMutex<L, T> {
    fn default() -> Self {
        SpinMutex::new(T::default())
    }
}

impl<L: Level, T> fmt::Debug for SpinMutex<L, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SpinMutex<{}>(..)", <L as sealed::Named>::NAME)
    }
}

impl<L: Level, T> Lock for SpinMutex<L, T> {}

impl<L: Level, T> sealed::Acquire for SpinMutex<L, T> {
    type Level = L;
    type Guard<'a>
        = SpinGuard<'a, L, T>
    where
        Self: 'a;

    #[cfg_attr(debug_assertions, track_caller)]
    #[inline(always)]
    fn acquire(&self) -> SpinGuard<'_, L, T> {
        let hold = Hold::take::<L>();
        if !self.take() {
            self.take_slow();
        }
        SpinGuard { lock: self, _hold: hold, not_send: PhantomData }
    }

    #[cfg_attr(debug_assertions, track_caller)]
    #[inline(always)]
    fn try_acquire(&self) -> Option<SpinGuard<'_, L, T>> {
        let hold = Hold::take::<L>();
        // Not `then_some`: a guard made for nothing would release a lock that is not ours.
        self.take().then(|| SpinGuard { lock: self, _hold: hold, not_send: PhantomData })
    }
}

/// A [`SpinMutex`] held; released when dropped.
#[must_use = "the lock is released at once if the guard is dropped"]
pub struct SpinGuard<'a, L, T> {
    lock: &'a SpinMutex<L, T>,
    _hold: Hold,
    /// The witness keeps its books by thread.
    not_send: PhantomData<*const ()>,
}

impl<L, T> ops::Deref for SpinGuard<'_, L, T> {
    type Target = T;
    #[inline(always)]
    fn deref(&self) -> &T {
        // SAFETY: this guard is the only one, so no `&mut T` exists but through `&mut` of this guard.
        self.lock.value.with(|value| unsafe { &*value })
    }
}

impl<L, T> ops::DerefMut for SpinGuard<'_, L, T> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: this guard is the only one and borrowed exclusively.
        self.lock.value.with_mut(|value| unsafe { &mut *value })
    }
}

impl<L, T> Drop for SpinGuard<'_, L, T> {
    #[inline(always)]
    fn drop(&mut self) {
        self.lock.state.store(FREE, Ordering::Release);
    }
}

impl<L, T: fmt::Debug> fmt::Debug for SpinGuard<'_, L, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}
