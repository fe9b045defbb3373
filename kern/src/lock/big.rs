//! Softnet and Kernel, and how coarse the operator wants them.
//!
//! Every path enters them in every profile and gets the same tokens, so one order is checked for all. Only in
//! [`Locking::Giant`] is the mutex really taken: then the machine runs as NetBSD did, protocol code one worker at a
//! time, drivers one worker at a time. In [`Locking::Fine`] entering is a branch, and the per-object locks do the
//! work.

use std::{fmt, str::FromStr};

use super::{
    Held, Mutex,
    levels::{Before, Kernel, Level, Softnet},
    sealed::Acquire,
    witness::Hold,
};

/// How coarse the locks are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Locking {
    /// One lock an object; Softnet and Kernel are tokens only.
    #[default]
    Fine,
    /// Softnet over all protocol code, Kernel over all drivers, as in NetBSD.
    Giant,
}

impl Locking {
    /// The word that configuration and command line use.
    pub fn name(self) -> &'static str {
        match self {
            Locking::Fine => "fine",
            Locking::Giant => "giant",
        }
    }
}

impl fmt::Display for Locking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The word is no locking profile.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("locking is \"fine\" or \"giant\", not \"{0}\"")]
pub struct UnknownLocking(String);

impl FromStr for Locking {
    type Err = UnknownLocking;

    fn from_str(word: &str) -> Result<Locking, UnknownLocking> {
        [Locking::Fine, Locking::Giant]
            .into_iter()
            .find(|profile| profile.name() == word)
            .ok_or_else(|| UnknownLocking(word.to_owned()))
    }
}

/// The two big locks of one router.
#[derive(Debug)]
pub struct BigLocks {
    softnet: Mutex<Softnet, ()>,
    kernel: Mutex<Kernel, ()>,
    locking: Locking,
}

/// Softnet or Kernel entered; left when dropped. Whether a mutex is behind it depends on the profile.
#[must_use = "the lock is left at once if the guard is dropped"]
#[derive(Debug)]
pub struct BigGuard<'a, L: Level> {
    _entered: Entered<'a, L>,
}

/// Softnet entered.
pub type SoftnetGuard<'a> = BigGuard<'a, Softnet>;
/// Kernel entered.
pub type KernelGuard<'a> = BigGuard<'a, Kernel>;

/// What a [`BigGuard`] keeps until it is dropped.
#[derive(Debug)]
enum Entered<'a, L: Level> {
    /// The token alone; the witness has it on its books all the same.
    Token { _hold: Hold },
    /// The mutex.
    Locked { _guard: super::Guard<'a, L, ()> },
}

impl<'a, L: Level> BigGuard<'a, L> {
    #[cfg_attr(debug_assertions, track_caller)]
    #[inline(always)]
    fn enter(mutex: &'a Mutex<L, ()>, locked: bool) -> Self {
        let entered = if locked {
            Entered::Locked { _guard: mutex.acquire() }
        } else {
            Entered::Token { _hold: Hold::take::<L>() }
        };
        BigGuard { _entered: entered }
    }
}

impl BigLocks {
    /// The big locks for a profile, which stays for the life of the router.
    pub fn new(locking: Locking) -> BigLocks {
        BigLocks { softnet: Mutex::new(()), kernel: Mutex::new(()), locking }
    }

    /// The profile.
    pub fn locking(&self) -> Locking {
        self.locking
    }

    /// Enters protocol code.
    #[cfg_attr(debug_assertions, track_caller)]
    #[inline(always)]
    pub fn enter_softnet<'s, L: Before<Softnet>>(
        &'s self,
        _held: &'s mut Held<'_, L>,
    ) -> (SoftnetGuard<'s>, Held<'s, Softnet>) {
        (BigGuard::enter(&self.softnet, self.is_giant()), Held::proof())
    }

    /// Enters a driver that is MP-safe.
    #[cfg_attr(debug_assertions, track_caller)]
    #[inline(always)]
    pub fn enter_kernel<'s, L: Before<Kernel>>(
        &'s self,
        _held: &'s mut Held<'_, L>,
    ) -> (KernelGuard<'s>, Held<'s, Kernel>) {
        (BigGuard::enter(&self.kernel, self.is_giant()), Held::proof())
    }

    /// Enters a driver that is not MP-safe: the mutex is taken in every profile.
    #[cfg_attr(debug_assertions, track_caller)]
    #[inline(always)]
    pub fn enter_kernel_always<'s, L: Before<Kernel>>(
        &'s self,
        _held: &'s mut Held<'_, L>,
    ) -> (KernelGuard<'s>, Held<'s, Kernel>) {
        (BigGuard::enter(&self.kernel, true), Held::proof())
    }

    #[inline(always)]
    fn is_giant(&self) -> bool {
        self.locking == Locking::Giant
    }
}
