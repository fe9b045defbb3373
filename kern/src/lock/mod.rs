//! Locks that know their order.
//!
//! [`levels`] is the list of all locks and the essay on it. A [`Mutex`] or [`SpinMutex`] belongs to a level; to take
//! one a thread shows a [`Held`], the zero-sized proof that it holds nothing at or after that level, and gets the
//! guard and the next proof. The old proof is borrowed until both are gone:
//!
//! ```
//! use kern::lock::{Held, Mutex, Root, SpinMutex, levels::{Before, Ifq, Sa}};
//!
//! struct Tunnel { sa: SpinMutex<Sa, u64>, queue: Mutex<Ifq, Vec<u64>> }
//!
//! fn send(held: &mut Held<'_, impl Before<Sa>>, tunnel: &Tunnel) {
//!     let (mut seq, mut held) = held.lock(&tunnel.sa);
//!     *seq += 1;
//!     let (mut queue, _held) = held.lock(&tunnel.queue);
//!     queue.push(*seq);
//! }
//!
//! let mut root = Root::claim();
//! send(&mut root.top(), &Tunnel { sa: SpinMutex::new(0), queue: Mutex::new(vec![]) });
//! ```
//!
//! The signature of `send` says: call me while holding anything that comes before `Sa`. With the two locks swapped it
//! does not compile, and the message names both.
//!
//! There is one [`Root`] a thread, so nobody makes a second proof out of nothing; whatever waits takes `&mut Root`,
//! which shows that nothing is held. A [`Leaf`] may be taken anywhere and has no proof to give.
//!
//! Not here: reader-writer locks (not cheaper than a mutex for the tens of nanoseconds we hold one; what is read by
//! all is a [snapshot](crate::publish)), condition variables (no waiting under a lock), and recursion.

mod big;
pub mod levels;
mod spin;
pub(crate) mod witness;

use std::{cell::Cell, fmt, marker::PhantomData, ops};

pub use big::{BigGuard, BigLocks, KernelGuard, Locking, SoftnetGuard, UnknownLocking};
pub use levels::{Before, Level};
pub use spin::{SpinGuard, SpinMutex};

use crate::sync;
use levels::{LeafLevel, Pool, Top};
use witness::Hold;

mod sealed {
    /// Rank and name of a level. Sealed: levels exist in `levels.rs` only.
    pub trait Named {
        const RANK: u32;
        const NAME: &'static str;
    }

    /// Taking the lock without showing a proof; for [`super::Held`] alone.
    pub trait Acquire {
        type Level;
        type Guard<'a>
        where
            Self: 'a;
        fn acquire(&self) -> Self::Guard<'_>;
        fn try_acquire(&self) -> Option<Self::Guard<'_>>;
    }
}

sync::thread_local! {
    // loom's macro knows no `const` initialiser.
    #[allow(clippy::missing_const_for_thread_local)]
    static CLAIMED: Cell<bool> = Cell::new(false);
}

/// The one root of all proofs of this thread. Not `Send`, not `Clone`.
#[derive(Debug)]
pub struct Root {
    not_send: PhantomData<*const ()>,
}

impl Root {
    /// Claims this thread's root.
    ///
    /// # Panics
    /// If it is claimed already and not dropped: two roots could take locks in two orders.
    #[must_use]
    pub fn claim() -> Root {
        assert!(
            !CLAIMED.with(|claimed| claimed.replace(true)),
            "this thread has claimed its lock root already"
        );
        Root { not_send: PhantomData }
    }

    /// The proof that nothing is held.
    #[inline(always)]
    pub fn top(&mut self) -> Held<'_, Top> {
        Held::proof()
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        CLAIMED.with(|claimed| claimed.set(false));
    }
}

/// Proof that this thread holds nothing after `L`. Zero bytes.
pub struct Held<'a, L> {
    /// Not `Send`; covariant in the borrow it was made from.
    proof: PhantomData<(&'a (), *const L)>,
}

impl<L> fmt::Debug for Held<'_, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Held<{}>", std::any::type_name::<L>())
    }
}

/// A lock of the hierarchy: [`Mutex`] or [`SpinMutex`].
pub trait Lock: sealed::Acquire {}

impl<'a, L> Held<'a, L> {
    #[inline(always)]
    fn proof() -> Self {
        Held { proof: PhantomData }
    }

    /// Takes a later lock; this proof is borrowed until guard and next proof are gone.
    #[cfg_attr(debug_assertions, track_caller)]
    #[inline(always)]
    pub fn lock<'s, K: Lock>(&'s mut self, lock: &'s K) -> (K::Guard<'s>, Held<'s, K::Level>)
    where
        L: Before<K::Level>,
    {
        (lock.acquire(), Held::proof())
    }

    /// Takes a later lock unless someone else holds it now.
    #[cfg_attr(debug_assertions, track_caller)]
    #[inline(always)]
    pub fn try_lock<'s, K: Lock>(&'s mut self, lock: &'s K) -> Option<(K::Guard<'s>, Held<'s, K::Level>)>
    where
        L: Before<K::Level>,
    {
        Some((lock.try_acquire()?, Held::proof()))
    }

    /// Takes a later lock and uses this proof up, so that the guard may outlive it.
    ///
    /// For hand over hand: find under the row's lock, take the object's, let the row go, return the object.
    ///
    /// ```
    /// use kern::lock::{Held, SpinGuard, SpinMutex, levels::{Before, PfState, PfStates}};
    ///
    /// fn find<'a>(
    ///     held: &'a mut Held<'_, impl Before<PfStates>>,
    ///     row: &'a SpinMutex<PfStates, usize>,
    ///     states: &'a [SpinMutex<PfState, u64>],
    /// ) -> (SpinGuard<'a, PfState, u64>, Held<'a, PfState>) {
    ///     let (index, held) = held.lock(row);
    ///     let (state, held) = held.then(&states[*index]);
    ///     drop(index);
    ///     (state, held)
    /// }
    /// ```
    #[cfg_attr(debug_assertions, track_caller)]
    #[inline(always)]
    pub fn then<K: Lock>(self, lock: &'a K) -> (K::Guard<'a>, Held<'a, K::Level>)
    where
        L: Before<K::Level>,
    {
        (lock.acquire(), Held::proof())
    }

    /// Forgets that less is held: the same proof as of a later level, to call a function that names its level.
    #[inline(always)]
    pub fn at<B: Level>(&mut self) -> Held<'_, B>
    where
        L: Before<B>,
    {
        Held::proof()
    }
}

/// A mutex that belongs to level `L` and sleeps while it waits. For what is rarely fought over or held for long.
pub struct Mutex<L, T> {
    mutex: sync::Mutex<T>,
    level: PhantomData<fn() -> L>,
}

impl<L: Level, T> Mutex<L, T> {
    /// A lock over `value`.
    #[cfg(not(loom))]
    pub const fn new(value: T) -> Self {
        Mutex { mutex: sync::Mutex::new(value), level: PhantomData }
    }

    /// A lock over `value`.
    #[cfg(loom)]
    pub fn new(value: T) -> Self {
        Mutex { mutex: sync::Mutex::new(value), level: PhantomData }
    }

    /// What is locked, by its only owner: no lock is needed.
    pub fn get_mut(&mut self) -> &mut T {
        self.mutex.get_mut()
    }

    /// What was locked.
    pub fn into_inner(self) -> T {
        self.mutex.into_inner()
    }
}

impl<L: Level, T: Default> Default for Mutex<L, T> {
    fn default() -> Self {
        Mutex::new(T::default())
    }
}

impl<L: Level, T> fmt::Debug for Mutex<L, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mutex<{}>(..)", <L as sealed::Named>::NAME)
    }
}

impl<L: Level, T> Lock for Mutex<L, T> {}

impl<L: Level, T> sealed::Acquire for Mutex<L, T> {
    type Level = L;
    type Guard<'a>
        = Guard<'a, L, T>
    where
        Self: 'a;

    #[cfg_attr(debug_assertions, track_caller)]
    #[inline]
    fn acquire(&self) -> Guard<'_, L, T> {
        let hold = Hold::take::<L>();
        Guard { locked: self.mutex.lock(), _hold: hold, level: PhantomData }
    }

    #[cfg_attr(debug_assertions, track_caller)]
    #[inline]
    fn try_acquire(&self) -> Option<Guard<'_, L, T>> {
        let hold = Hold::take::<L>();
        Some(Guard { locked: self.mutex.try_lock()?, _hold: hold, level: PhantomData })
    }
}

/// A [`Mutex`] held; released when dropped.
#[must_use = "the lock is released at once if the guard is dropped"]
pub struct Guard<'a, L: Level, T> {
    locked: sync::MutexGuard<'a, T>,
    _hold: Hold,
    level: PhantomData<fn() -> L>,
}

impl<L: Level, T> ops::Deref for Guard<'_, L, T> {
    type Target = T;
    #[inline(always)]
    fn deref(&self) -> &T {
        &self.locked
    }
}

impl<L: Level, T> ops::DerefMut for Guard<'_, L, T> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut T {
        &mut self.locked
    }
}

impl<L: Level, T: fmt::Debug> fmt::Debug for Guard<'_, L, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

/// A lock that may be taken anywhere, even inside `Drop`, and under which none may be taken.
///
/// The closure gets what is locked and no proof. Which leaf it is (`N`) only names it in the witness's message.
pub struct Leaf<T, N = Pool> {
    mutex: sync::Mutex<T>,
    name: PhantomData<fn() -> N>,
}

impl<T, N: LeafLevel> Leaf<T, N> {
    /// A leaf over `value`.
    #[cfg(not(loom))]
    pub const fn new(value: T) -> Self {
        Leaf { mutex: sync::Mutex::new(value), name: PhantomData }
    }

    /// A leaf over `value`.
    #[cfg(loom)]
    pub fn new(value: T) -> Self {
        Leaf { mutex: sync::Mutex::new(value), name: PhantomData }
    }

    /// Runs `f` with the lock held. `f` takes no lock, ends no packet and does not wait.
    #[cfg_attr(debug_assertions, track_caller)]
    #[inline]
    pub fn with<R>(&self, f: impl FnOnce(&mut T) -> R) -> R {
        let _hold = Hold::take::<N>();
        f(&mut self.mutex.lock())
    }

    /// What is locked, by its only owner: no lock is needed.
    pub fn get_mut(&mut self) -> &mut T {
        self.mutex.get_mut()
    }
}

impl<T, N: LeafLevel> fmt::Debug for Leaf<T, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Leaf<{}>(..)", <N as sealed::Named>::NAME)
    }
}

#[cfg(test)]
mod tests;
