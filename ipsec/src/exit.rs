//! The exit of an SA: the runs that several workers seal for it leave in the order of their numbers.
//!
//! Any worker may seal for any SA, each a run of consecutive sequence numbers, and they may be done in any order. The peer's
//! replay window is small (32 by default), so they must *leave* in order. The exit knows the number of the packet that leaves
//! next:
//!
//! ```text
//!                    next
//!                     ▼
//!   ┌─────────┬───────────┬───────────┬───────────┐
//!   │ written │ 9 .. 16   │ 17 .. 19  │ 20 .. 27  │     9 to 16 may be written: A writes, and then moves `next` to 17
//!   └─────────┴───────────┴───────────┴───────────┘
//!              worker A     worker B    worker A         20 to 27 wait with A until B has written 17 to 19
//! ```
//!
//! A run whose first number is `next` may go on to the device; when it has been *written* there `next` moves behind it, not
//! earlier, so nothing overtakes between here and the wire. Any other run waits with the worker who sealed it
//! ([`Releasing`](crate::esp::Releasing)), who looks again when he has written what he had. So packets stay in the caches of
//! the worker that read them, and all that workers take from each other is the line with this number.
//!
//! Nobody waits for ever: the run at `next` belongs to a worker who is sealing it, writing it, or about to look again. A run
//! that was given up passes like any other, empty. One word, written only by who has the run at `next`: no lock.
//!
//! Where a packet goes into one SA after the other, the exit of the inner one moves when the outer packet is written; but if
//! the worker has no room for more packets that wait in front of the outer SA it moves at once, for two workers could wait for
//! each other otherwise. The outer SA keeps its order in any case.
//!
//! Not here: how numbers are reserved ([`crate::seq`]), and the order on the way in ([`crate::order`]).

use std::sync::atomic::{AtomicU64, Ordering};

/// How often to look again before a run waits.
const SPINS: u32 = 40;

/// See the file's head. On a cache line of its own: whoever reserves numbers does not disturb whoever looks here.
#[derive(Debug)]
#[repr(align(128))]
pub struct Exit(AtomicU64);

impl Exit {
    /// The packet with this number leaves first.
    pub const fn new(next: u64) -> Exit {
        Exit(AtomicU64::new(next))
    }

    /// Whether the run that begins with this number may leave.
    #[inline(always)]
    pub fn is_turn_of(&self, first: u64) -> bool {
        // Acquire: what was written to the device before the number moved is there before ours.
        self.0.load(Ordering::Acquire) == first
    }

    /// Whether it is the turn of the run that begins with this number, now or in about a microsecond: the run before it may be
    /// sealed already and be on its way to the device. Two workers who send by one SA fall into step in this way, each sealing
    /// while the other writes.
    #[inline(always)]
    pub fn comes_to(&self, first: u64) -> bool {
        self.is_turn_of(first)
            || (0..SPINS).any(|_| {
                std::hint::spin_loop();
                self.is_turn_of(first)
            })
    }

    /// The run before this number has been written; only who has that run may say so.
    #[inline(always)]
    pub fn written_up_to(&self, next: u64) {
        self.0.store(next, Ordering::Release);
    }
}
