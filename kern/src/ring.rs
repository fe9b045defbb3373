//! A ring between two workers: one producer, one consumer, bounded, no lock.
//!
//! ```text
//!   slots   [ . . x x x x x . . . ]        head: next to take; the consumer writes it
//!                 ^head     ^tail          tail: next to fill; the producer writes it
//! ```
//!
//! Both run freely and wrap; `tail - head` items are in the ring, and the slot is the number modulo the capacity.
//! Each side keeps its own number to itself and a copy of the other's, and looks at the other's cache line only when
//! the copy says "full" or "too few". A batch is published with one store, so a run of 32 items costs about a
//! nanosecond an item where a queue with a lock costs eleven.
//!
//! The order that matters:
//! 1. The producer fills the slot, then stores `tail` (release). The consumer loads `tail` (acquire), then reads it.
//! 2. The consumer empties the slot, then stores `head` (release). The producer loads `head` (acquire), then fills it.
//!
//! What is still inside when both ends are gone is dropped. Not here: waking the consumer (the worker's business), more
//! than one producer, growing.
//!
//! Why not `rtrb` or `crossbeam`: loom has to see through it, and a batch must be moved in and out without a copy to
//! somewhere between; the figures are beside each other in `benches/kern.rs`.

use std::{fmt, mem::MaybeUninit};

use crate::sync::{
    Arc, UnsafeCell,
    atomic::{AtomicUsize, Ordering},
};

/// A number that one side writes and the other reads, on cache lines of its own.
#[repr(align(128))]
struct Shared(AtomicUsize);

struct Slots<T> {
    head: Shared,
    tail: Shared,
    /// A power of two of them.
    cells: Box<[UnsafeCell<MaybeUninit<T>>]>,
}

// SAFETY: the slots from `head` to `tail` belong to the consumer, all others to the producer; each side moves its
// border with a release store after it is done with a slot and takes the other's with an acquire load before it
// touches one. There is one `Producer` and one `Consumer`, neither is `Clone`, and both need `&mut self` to touch a
// slot. So items are moved between threads and never shared: `T: Send` is enough.
unsafe impl<T: Send> Sync for Slots<T> {}
// SAFETY: whoever owns the ring owns the items in it.
unsafe impl<T: Send> Send for Slots<T> {}

impl<T> Slots<T> {
    #[inline(always)]
    fn slot(&self, number: usize) -> &UnsafeCell<MaybeUninit<T>> {
        // A power of two, so this is the remainder.
        let index = number & (self.cells.len() - 1);
        // SAFETY: `ring` makes at least one cell, and a remainder is less than what was divided by.
        unsafe { self.cells.get_unchecked(index) }
    }

    /// Moves an item into a slot.
    ///
    /// # Safety
    /// The slot is the caller's and empty.
    #[inline(always)]
    unsafe fn fill(&self, number: usize, item: T) {
        // SAFETY: the caller owns the slot, so this pointer is the only one to it.
        self.slot(number).with_mut(|slot| unsafe { (*slot).write(item) });
    }

    /// Moves the item out of a slot.
    ///
    /// # Safety
    /// The slot is the caller's and full; it counts as empty afterwards.
    #[inline(always)]
    unsafe fn empty(&self, number: usize) -> T {
        // SAFETY: the caller owns the slot and knows that it is filled.
        self.slot(number).with(|slot| unsafe { (*slot).assume_init_read() })
    }
}

impl<T> Drop for Slots<T> {
    fn drop(&mut self) {
        let (head, tail) = (self.head.0.load(Ordering::Acquire), self.tail.0.load(Ordering::Acquire));
        for i in 0..tail.wrapping_sub(head) {
            // SAFETY: both ends are gone, so all slots are ours; those from head to tail are full.
            drop(unsafe { self.empty(head.wrapping_add(i)) });
        }
    }
}

/// Makes a ring for `capacity` items, rounded up to a power of two.
pub fn ring<T: Send>(capacity: usize) -> (Producer<T>, Consumer<T>) {
    let capacity = capacity.next_power_of_two();
    let slots = Arc::new(Slots {
        head: Shared(AtomicUsize::new(0)),
        tail: Shared(AtomicUsize::new(0)),
        cells: (0..capacity).map(|_| UnsafeCell::new(MaybeUninit::uninit())).collect(),
    });
    let consumer = Consumer { ring: Arc::clone(&slots), head: 0, tail_seen: 0 };
    (Producer { ring: slots, tail: 0, head_seen: 0 }, consumer)
}

/// The filling end of a [`ring`].
pub struct Producer<T> {
    ring: Arc<Slots<T>>,
    /// What `ring.tail` is, or will be when the run is published.
    tail: usize,
    /// `ring.head` at the last look.
    head_seen: usize,
}

impl<T> Producer<T> {
    /// Puts one item in; gives it back if the ring is full.
    ///
    /// # Errors
    /// The item itself.
    #[inline]
    pub fn push(&mut self, item: T) -> Result<(), T> {
        if !self.has_room() {
            return Err(item);
        }
        // SAFETY: there is room, so the slot at `tail` is ours and empty.
        unsafe { self.ring.fill(self.tail, item) };
        self.tail = self.tail.wrapping_add(1);
        self.publish();
        Ok(())
    }

    /// Puts in what `items` yields until the ring is full, as one run; says how many. An item is asked for only when
    /// there is room for it, so none is lost: the rest stays in the iterator.
    #[inline]
    pub fn push_from(&mut self, items: &mut impl Iterator<Item = T>) -> usize {
        let start = self.tail;
        // Published also when the iterator panics: what is in the ring is the consumer's.
        let run = Run(self);
        while run.0.has_room() {
            for _ in 0..run.0.room_seen() {
                let Some(item) = items.next() else { return run.0.tail.wrapping_sub(start) };
                // SAFETY: there is room, so the slot at `tail` is ours and empty.
                unsafe { run.0.ring.fill(run.0.tail, item) };
                run.0.tail = run.0.tail.wrapping_add(1);
            }
        }
        run.0.tail.wrapping_sub(start)
    }

    /// How many items would fit now; more later, never fewer.
    pub fn room(&mut self) -> usize {
        self.look();
        self.room_seen()
    }

    /// How many items are in the ring, as far as this end can tell.
    pub fn len(&self) -> usize {
        self.tail.wrapping_sub(self.ring.head.0.load(Ordering::Acquire))
    }

    /// Whether everything has been taken.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many items fit.
    pub fn capacity(&self) -> usize {
        self.ring.cells.len()
    }

    /// Whether the consumer is gone.
    pub fn is_abandoned(&self) -> bool {
        Arc::strong_count(&self.ring) == 1
    }

    /// The room there was at the last look; there is at least as much.
    #[inline(always)]
    fn room_seen(&self) -> usize {
        self.capacity() - self.tail.wrapping_sub(self.head_seen)
    }

    #[inline(always)]
    fn has_room(&mut self) -> bool {
        if self.room_seen() == 0 {
            self.look();
        }
        self.room_seen() > 0
    }

    #[inline]
    fn look(&mut self) {
        // (2) acquire: the consumer is done with the slots before `head`.
        self.head_seen = self.ring.head.0.load(Ordering::Acquire);
    }

    #[inline]
    fn publish(&self) {
        // (1) release: the slots before `tail` are filled.
        self.ring.tail.0.store(self.tail, Ordering::Release);
    }
}

/// A run of items being put in; published at its end.
struct Run<'a, T>(&'a mut Producer<T>);

impl<T> Drop for Run<'_, T> {
    #[inline]
    fn drop(&mut self) {
        self.0.publish();
    }
}

/// The emptying end of a [`ring`].
pub struct Consumer<T> {
    ring: Arc<Slots<T>>,
    /// What `ring.head` is, or will be when the run is given back.
    head: usize,
    /// `ring.tail` at the last look.
    tail_seen: usize,
}

impl<T> Consumer<T> {
    /// Takes one item out.
    #[inline]
    pub fn pop(&mut self) -> Option<T> {
        if self.head == self.tail_seen {
            self.look();
            if self.head == self.tail_seen {
                return None;
            }
        }
        // SAFETY: `head` is before `tail`, so its slot is ours and full.
        let item = unsafe { self.ring.empty(self.head) };
        self.head = self.head.wrapping_add(1);
        self.give_back();
        Some(item)
    }

    /// Takes up to `limit` items out as one run and gives each to `take`; says how many.
    #[inline]
    pub fn drain(&mut self, limit: usize, mut take: impl FnMut(T)) -> usize {
        if self.tail_seen.wrapping_sub(self.head) < limit {
            self.look();
        }
        let count = self.tail_seen.wrapping_sub(self.head).min(limit);
        // Given back also when `take` panics; the item it was given is out of the ring by then.
        let run = Emptied(self);
        for _ in 0..count {
            // SAFETY: `count` slots from `head` on are before `tail`, so ours and full.
            let item = unsafe { run.0.ring.empty(run.0.head) };
            run.0.head = run.0.head.wrapping_add(1);
            take(item);
        }
        count
    }

    /// How many items could be taken now; more later, never fewer.
    pub fn len(&self) -> usize {
        self.ring.tail.0.load(Ordering::Acquire).wrapping_sub(self.head)
    }

    /// Whether there is nothing to take.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many items fit.
    pub fn capacity(&self) -> usize {
        self.ring.cells.len()
    }

    /// Whether the producer is gone; there may still be items.
    pub fn is_abandoned(&self) -> bool {
        Arc::strong_count(&self.ring) == 1
    }

    #[inline]
    fn look(&mut self) {
        // (1) acquire: the slots before `tail` are filled.
        self.tail_seen = self.ring.tail.0.load(Ordering::Acquire);
    }

    #[inline]
    fn give_back(&self) {
        // (2) release: we are done with the slots before `head`.
        self.ring.head.0.store(self.head, Ordering::Release);
    }
}

/// A run of items being taken out; the slots are given back at its end.
struct Emptied<'a, T>(&'a mut Consumer<T>);

impl<T> Drop for Emptied<'_, T> {
    #[inline]
    fn drop(&mut self) {
        self.0.give_back();
    }
}

impl<T> fmt::Debug for Producer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Producer({} of {})", self.len(), self.capacity())
    }
}

impl<T> fmt::Debug for Consumer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Consumer({} of {})", self.len(), self.capacity())
    }
}

#[cfg(test)]
mod tests {
    use std::{
        collections::VecDeque,
        panic::{AssertUnwindSafe, catch_unwind},
        sync::Arc,
        thread,
    };

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_does_not_fit_stays_with_the_caller() {
        let (mut producer, mut consumer) = ring(3);
        assert_eq!((producer.capacity(), producer.room()), (4, 4));
        let mut items = 0..10;
        assert_eq!(producer.push_from(&mut items), 4);
        assert_eq!((producer.push(99), items.next(), producer.room()), (Err(99), Some(4), 0));
        assert_eq!((consumer.pop(), producer.push(99)), (Some(0), Ok(())));
        let mut taken = Vec::new();
        assert_eq!((consumer.drain(3, |item| taken.push(item)), consumer.len()), (3, 1));
        assert_eq!((consumer.drain(3, |item| taken.push(item)), consumer.pop()), (1, None));
        assert_eq!(taken, [1, 2, 3, 99]);
        assert!(consumer.is_empty() && producer.is_empty() && !producer.is_abandoned());
        drop(consumer);
        assert!(producer.is_abandoned());
    }

    #[test]
    fn what_is_inside_when_both_ends_are_gone_is_dropped() {
        let witness = Arc::new(());
        let (mut producer, mut consumer) = ring(8);
        for _ in 0..20 {
            producer.push_from(&mut std::iter::repeat_with(|| Arc::clone(&witness)).take(5));
            consumer.drain(5, drop);
        }
        producer.push_from(&mut std::iter::repeat_with(|| Arc::clone(&witness)).take(7));
        drop(consumer.pop());
        assert_eq!(Arc::strong_count(&witness), 7);
        drop(producer);
        assert!(consumer.is_abandoned());
        assert_eq!(Arc::strong_count(&witness), 7);
        drop(consumer);
        assert_eq!(Arc::strong_count(&witness), 1);
    }

    #[test]
    fn a_panic_in_the_middle_of_a_run_loses_and_doubles_nothing() {
        let (mut producer, mut consumer) = ring(8);
        let mut items = (0..8).inspect(|&i| assert!(i < 5, "the iterator fails"));
        catch_unwind(AssertUnwindSafe(|| producer.push_from(&mut items))).unwrap_err();
        assert_eq!(consumer.len(), 5);
        let mut taken = Vec::new();
        let take = |item| {
            taken.push(item);
            assert!(item != 2, "the closure fails");
        };
        catch_unwind(AssertUnwindSafe(|| consumer.drain(8, take))).unwrap_err();
        consumer.drain(8, |item| taken.push(item));
        assert_eq!(taken, [0, 1, 2, 3, 4]);
    }

    #[test]
    fn a_million_items_cross_between_threads_in_order() {
        let (mut producer, mut consumer) = ring(256);
        let total = if std::env::var_os("SOFTNET_SOAK").is_some() { 100_000_000 } else { 1_000_000_u64 };
        thread::scope(|scope| {
            scope.spawn(move || {
                let mut items = 0..total;
                let mut run = 0;
                while !items.is_empty() {
                    run = run % 37 + 1;
                    let pushed = producer.push_from(&mut items.by_ref().take(run));
                    if pushed == 0 {
                        thread::yield_now();
                    }
                }
            });
            let mut next = 0;
            while next < total {
                let taken = consumer.drain(64, |item| {
                    assert_eq!(item, next);
                    next += 1;
                });
                if taken == 0 {
                    thread::yield_now();
                }
            }
        });
    }

    proptest! {
        #[test]
        fn the_ring_is_a_bounded_queue(
            capacity in 1..20_usize,
            runs in prop::collection::vec((0..12_usize, 0..12_usize, any::<bool>()), 0..100),
        ) {
            let (mut producer, mut consumer) = ring(capacity);
            let mut model = VecDeque::new();
            let mut items = 0..;
            for (push, take, singly) in runs {
                if singly {
                    for item in items.by_ref().take(push) {
                        let fits = model.len() < producer.capacity();
                        prop_assert_eq!(producer.push(item).is_ok(), fits);
                        if fits {
                            model.push_back(item);
                        }
                    }
                    for _ in 0..take {
                        prop_assert_eq!(consumer.pop(), model.pop_front());
                    }
                } else {
                    let fits = push.min(producer.capacity() - model.len());
                    model.extend(items.start..items.start + fits);
                    prop_assert_eq!(producer.push_from(&mut items.by_ref().take(push)), fits);
                    let mut taken = Vec::new();
                    consumer.drain(take, |item| taken.push(item));
                    let expected: Vec<_> = model.drain(..take.min(model.len())).collect();
                    prop_assert_eq!(taken, expected);
                }
                prop_assert_eq!((producer.len(), consumer.len()), (model.len(), model.len()));
                prop_assert_eq!(producer.room(), producer.capacity() - model.len());
            }
        }
    }
}
