//! Magazines: each worker's own stock of free buffers, in front of the depot.
//!
//! A magazine holds up to two batches of its class. When it is empty one half is fetched from the depot, when it is
//! full the older half goes back, so that a worker that oscillates around a boundary does not visit the depot each
//! time. The thread finds its magazines through one thread-local pointer that is set while the worker runs
//! ([`Magazines::enter`]); a thread without them goes to the depot directly. So any thread may drop any packet.

use super::{
    Batch, Mbuf, buffer,
    header::{Class, PktHdr},
    pool::{self, Core, Pool},
};
use std::{
    cell::Cell,
    marker::PhantomData,
    ptr::{self, NonNull},
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
};

/// What a set of magazines tells the audit.
#[derive(Default)]
#[repr(align(64))]
pub(super) struct Gauge {
    pub(super) stock: [AtomicU32; 2],
    pub(super) requests: [AtomicU64; 2],
    pub(super) releases: [AtomicU64; 2],
    pub(super) fail: [AtomicU64; 2],
}

/// A free buffer's address, as magazines and depot keep it.
#[derive(Clone, Copy)]
pub(super) struct Free(pub(super) NonNull<PktHdr>);

// SAFETY: a free buffer is owned by the container that lists it; moving the listing moves the ownership.
unsafe impl Send for Free {}

struct Stack {
    free: Vec<Free>,
    capacity: usize,
}

struct Inner {
    pool: Pool,
    id: u16,
    gauge: Arc<Gauge>,
    stacks: [Stack; 2],
}

/// One worker's stock of free buffers. Dropping it returns them to the depot.
pub struct Magazines {
    inner: Box<Inner>,
}

thread_local! {
    static CURRENT: Cell<*mut Inner> = const { Cell::new(ptr::null_mut()) };
}

/// Proof that this thread uses a set of magazines; on drop the previous set (or none) is in use again.
pub struct Entered<'a> {
    previous: *mut Inner,
    _magazines: PhantomData<&'a mut Magazines>,
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        CURRENT.set(self.previous);
    }
}

impl Magazines {
    /// An empty set for a worker of this pool.
    pub fn new(pool: &Pool) -> Magazines {
        let stack = |class: Class| {
            let capacity = pool.magazine_capacity(class);
            Stack { free: Vec::with_capacity(capacity), capacity }
        };
        let inner = Inner {
            id: pool.core().id,
            gauge: pool.core().new_gauge(),
            stacks: Class::ALL.map(stack),
            pool: pool.clone(),
        };
        Magazines { inner: Box::new(inner) }
    }

    /// Makes this thread use these magazines until the answer is dropped.
    pub fn enter(&mut self) -> Entered<'_> {
        let previous = CURRENT.replace(&raw mut *self.inner);
        Entered { previous, _magazines: PhantomData }
    }
}

impl Drop for Magazines {
    fn drop(&mut self) {
        for class in Class::ALL {
            let stack = &mut self.inner.stacks[class as usize];
            let free = std::mem::take(&mut stack.free);
            self.inner.gauge.stock[class as usize].store(0, Ordering::Relaxed);
            self.inner.pool.core().depot(class).give(free);
        }
        self.inner.pool.core().retire_gauge(&self.inner.gauge);
    }
}

// SAFETY: the buffers listed are owned by the magazines, and the thread-local pointer to them lives only as long as
// the borrow in `Entered`, which is not Send (raw pointer).
unsafe impl Send for Magazines {}

impl Inner {
    #[inline(always)]
    fn take(&mut self, class: Class) -> Option<NonNull<PktHdr>> {
        let c = class as usize;
        add(&self.gauge.requests[c], 1);
        if self.stacks[c].free.is_empty() && !self.refill(class) {
            add(&self.gauge.fail[c], 1);
            return None;
        }
        let free = self.stacks[c].free.pop()?;
        self.gauge.stock[c].store(self.stacks[c].free.len() as u32, Ordering::Relaxed);
        Some(free.0)
    }

    #[cold]
    #[inline(never)]
    fn refill(&mut self, class: Class) -> bool {
        let stack = &mut self.stacks[class as usize];
        let want = stack.capacity / 2;
        self.pool.core().depot(class).take(want, |f| stack.free.push(f)) > 0
    }

    #[inline(always)]
    fn put(&mut self, class: Class, raw: NonNull<PktHdr>) {
        let c = class as usize;
        add(&self.gauge.releases[c], 1);
        if self.stacks[c].free.len() == self.stacks[c].capacity {
            self.spill(class);
        }
        self.stacks[c].free.push(Free(raw));
        self.gauge.stock[c].store(self.stacks[c].free.len() as u32, Ordering::Relaxed);
    }

    /// Up to `n` buffers at once, handed to `to` one by one; how many there were.
    #[inline]
    fn take_many(&mut self, class: Class, n: usize, mut to: impl FnMut(NonNull<PktHdr>)) -> usize {
        let c = class as usize;
        let mut taken = 0;
        while taken < n && (!self.stacks[c].free.is_empty() || self.refill(class)) {
            let free = &mut self.stacks[c].free;
            let from = free.len().saturating_sub(n - taken);
            taken += free.len() - from;
            free.drain(from..).rev().for_each(|Free(raw)| to(raw));
        }
        add(&self.gauge.requests[c], n as u64);
        add(&self.gauge.fail[c], (n - taken) as u64);
        self.gauge.stock[c].store(self.stacks[c].free.len() as u32, Ordering::Relaxed);
        taken
    }

    /// Takes back many buffers at once, at most half of what a magazine holds.
    #[inline]
    fn put_many(&mut self, class: Class, raws: impl ExactSizeIterator<Item = NonNull<PktHdr>>) {
        let (c, n) = (class as usize, raws.len());
        if self.stacks[c].free.len() + n > self.stacks[c].capacity {
            self.spill(class);
        }
        add(&self.gauge.releases[c], n as u64);
        self.stacks[c].free.extend(raws.map(Free));
        self.gauge.stock[c].store(self.stacks[c].free.len() as u32, Ordering::Relaxed);
    }

    /// Returns the older half: it is the colder one.
    #[cold]
    #[inline(never)]
    fn spill(&mut self, class: Class) {
        let stack = &mut self.stacks[class as usize];
        self.pool.core().depot(class).give(stack.free.drain(..stack.capacity / 2));
    }
}

#[inline(always)]
fn add(counter: &AtomicU64, n: u64) {
    counter.store(counter.load(Ordering::Relaxed) + n, Ordering::Relaxed);
}

/// Takes a free buffer from this thread's magazines if they are of this pool, else from the depot.
#[inline(always)]
pub(super) fn take(core: &Core, class: Class) -> Option<NonNull<PktHdr>> {
    let current = CURRENT.get();
    // SAFETY: `CURRENT` is null or points at the `Inner` that `Entered` borrows exclusively for this thread; no
    // reference to it is alive here, since neither `take` nor `put` calls back.
    match unsafe { current.as_mut() } {
        Some(inner) if inner.id == core.id => inner.take(class),
        _ => core.take_from_depot(class),
    }
}

/// Returns a buffer to wherever this thread keeps those of its pool.
#[inline(always)]
pub(super) fn give_back(raw: NonNull<PktHdr>) {
    // SAFETY: called by `Mbuf::drop` with the buffer it owned.
    let (id, class) = unsafe { buffer::identity(raw) };
    let current = CURRENT.get();
    // SAFETY: as in `take`.
    match unsafe { current.as_mut() } {
        Some(inner) if inner.id == id => inner.put(class, raw),
        _ => pool::give_to_depot(id, class, Free(raw)),
    }
}

/// Takes up to `n` buffers, as [`take`] does one; how many there were.
#[inline]
pub(super) fn take_many(core: &Core, class: Class, n: usize, mut to: impl FnMut(NonNull<PktHdr>)) -> usize {
    let current = CURRENT.get();
    // SAFETY: as in `take`; `to` is the pool's own and calls neither.
    match unsafe { current.as_mut() } {
        Some(inner) if inner.id == core.id => inner.take_many(class, n, to),
        _ => (0..n).map_while(|_| core.take_from_depot(class)).map(&mut to).count(),
    }
}

/// Returns the buffers of a batch, at once where they are all of this thread's pool and of one class. `release` is done to
/// each.
#[inline]
pub(super) fn give_back_all(batch: &mut Batch, mut release: impl FnMut(&mut Mbuf)) {
    let first = batch.as_slice().first().map(|m| (m.hdr().pool, m.class()));
    let mut alike = true;
    for m in batch.iter_mut() {
        alike &= first == Some((m.hdr().pool, m.class()));
        release(m);
    }
    let current = CURRENT.get();
    // SAFETY: as in `take`.
    if let Some(inner) = unsafe { current.as_mut() }
        && let Some((pool, class)) = first
        && alike
        && pool == inner.id
        && batch.len() * 2 <= inner.stacks[class as usize].capacity
    {
        inner.put_many(class, batch.drain().map(Mbuf::into_raw));
    } else {
        while batch.pop().is_some() {}
    }
}
