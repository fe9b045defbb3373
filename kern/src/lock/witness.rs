//! The run-time half of the hierarchy, in debug builds (the name is FreeBSD's).
//!
//! Each thread keeps one bit for every rank it holds, and where it was taken. Taking a lock while a bit of the same
//! or a later rank is set panics and names both places. It finds what types can not: a lock taken inside a `Drop` or
//! a closure, a second lock of one level reached by another way, a wait begun with a lock held.
//!
//! A set of bits and not a "current top": guards may be dropped in any order.
//!
//! In release builds and under loom (whose threads share thread-locals of the standard library) all of it is empty.

use super::sealed::Named;

/// Proof that the books of this thread show the lock; taking it off them when dropped.
#[derive(Debug)]
pub(super) struct Hold {
    #[cfg(all(debug_assertions, not(loom)))]
    rank: u32,
}

#[cfg(all(debug_assertions, not(loom)))]
mod books {
    use std::{
        cell::{Cell, RefCell},
        panic::Location,
    };

    type Place = (&'static str, &'static Location<'static>);

    thread_local! {
        static HELD: Cell<u64> = const { Cell::new(0) };
        static PLACES: RefCell<[Option<Place>; 64]> = const { RefCell::new([None; 64]) };
    }

    pub(super) fn held() -> u64 {
        HELD.get()
    }

    pub(super) fn enter(rank: u32, name: &'static str, at: &'static Location<'static>) {
        let held = HELD.get();
        let not_before = held & (u64::MAX << rank);
        if not_before != 0 {
            let (held_name, held_at) = place(not_before.trailing_zeros());
            panic!(
                "lock order: {name} at {at} may not be taken while {held_name} is held, taken at {held_at}; \
                 the order is the list in kern/src/lock/levels.rs"
            );
        }
        PLACES.with_borrow_mut(|places| places[rank as usize] = Some((name, at)));
        HELD.set(held | 1 << rank);
    }

    pub(super) fn leave(rank: u32) {
        HELD.set(HELD.get() & !(1 << rank));
    }

    pub(super) fn place(rank: u32) -> Place {
        PLACES.with_borrow(|places| places[rank as usize]).expect("a held rank has a place")
    }
}

#[cfg(all(debug_assertions, not(loom)))]
impl Hold {
    #[track_caller]
    pub(super) fn take<L: Named>() -> Hold {
        books::enter(L::RANK, L::NAME, std::panic::Location::caller());
        Hold { rank: L::RANK }
    }
}

#[cfg(all(debug_assertions, not(loom)))]
impl Drop for Hold {
    fn drop(&mut self) {
        books::leave(self.rank);
    }
}

#[cfg(not(all(debug_assertions, not(loom))))]
impl Hold {
    #[inline(always)]
    pub(super) fn take<L: Named>() -> Hold {
        Hold {}
    }
}

/// Panics in debug builds if this thread holds any lock: for what waits.
#[cfg_attr(debug_assertions, track_caller)]
#[inline]
pub(crate) fn assert_nothing_held(what: &str) {
    #[cfg(all(debug_assertions, not(loom)))]
    if books::held() != 0 {
        let (name, at) = books::place(books::held().trailing_zeros());
        panic!("{what} waits, and {name} is held, taken at {at}");
    }
    let _ = what;
}
