//! The pool: all buffers there are, mapped once.
//!
//! Never grows. Exhaustion is a normal answer (`None`) with a counter. Buffers are found again through their header's
//! pool number and a table of live pools, so a packet may be dropped on any thread. A pool whose buffers are not all
//! home when its last handle goes is left mapped for ever rather than unmapped under somebody's feet.

use super::{
    Batch,
    audit::Audit,
    buffer::{self, Mbuf},
    depot::Depot,
    header::{Class, Owner, PktHdr},
    magazine::{self, Free, Gauge},
};
use crate::{lock::Leaf, pages::Mapping};
use std::{
    io, ptr,
    ptr::NonNull,
    sync::{
        Arc,
        atomic::{AtomicPtr, AtomicU64, Ordering},
    },
};

/// Pools that may live at once in one process (a process runs one; tests run many).
const POOLS: usize = 1024;

static LIVE: [AtomicPtr<Core>; POOLS] = [const { AtomicPtr::new(ptr::null_mut()) }; POOLS];

/// How many buffers of each class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolConfig {
    /// 2 KiB buffers.
    pub clusters: usize,
    /// 64 KiB buffers.
    pub jumbos: usize,
}

impl Default for PoolConfig {
    fn default() -> Self {
        PoolConfig { clusters: 16_384, jumbos: 512 }
    }
}

/// Why a pool could not be made.
#[derive(Debug, thiserror::Error)]
pub enum PoolError {
    /// The system has no memory for it.
    #[error("no memory for {count} {class} buffers ({bytes} bytes): {source}")]
    NoMemory {
        /// Class.
        class: &'static str,
        /// How many.
        count: usize,
        /// Bytes asked for.
        bytes: usize,
        /// What the system said.
        source: io::Error,
    },
    /// The process has too many pools already.
    #[error("more than {POOLS} pools in one process")]
    TooMany,
}

/// One class's mapping.
struct Slab {
    mapping: Mapping,
    count: usize,
    class: Class,
}

/// The pool's inside; its address stays the same as long as a buffer is out.
pub(super) struct Core {
    pub(super) id: u16,
    slabs: [Slab; 2],
    depots: [Depot<Free>; 2],
    gauges: Leaf<Vec<Arc<Gauge>>>,
    /// Sums of gauges whose magazines are gone, and of threads without magazines.
    loose: Gauge,
    unexplained: AtomicU64,
}

// SAFETY: the raw pointers in the slabs are addresses of mappings that live as long as the core; buffers are reached
// through `Free` and `Mbuf`, which carry ownership.
unsafe impl Send for Core {}
// SAFETY: as above; everything mutable inside is atomic or under a lock.
unsafe impl Sync for Core {}

/// The last handle gone: unmap if every buffer is home.
struct Handle(NonNull<Core>);

// SAFETY: a handle is a shared pointer to a `Core`, which is Sync.
unsafe impl Send for Handle {}
// SAFETY: as above.
unsafe impl Sync for Handle {}

impl Drop for Handle {
    fn drop(&mut self) {
        // SAFETY: the core was leaked by `Pool::new` and is freed only here, by the last handle.
        let core = unsafe { self.0.as_ref() };
        let home = Class::ALL.iter().all(|&c| core.depot(c).len() == core.slabs[c as usize].count);
        if home {
            LIVE[core.id as usize].store(ptr::null_mut(), Ordering::Release);
            // SAFETY: all buffers are in the depot, so no Mbuf and no magazine of this pool exists (magazines hold a
            // handle), and the table no longer names it.
            drop(unsafe { Box::from_raw(self.0.as_ptr()) });
        }
    }
}

impl Slab {
    fn map(class: Class, count: usize) -> Result<Slab, PoolError> {
        let bytes = class.stride() * count.max(1);
        let mapping = Mapping::new(bytes).map_err(|source| PoolError::NoMemory {
            class: class.name(),
            count,
            bytes,
            source,
        })?;
        Ok(Slab { mapping, count, class })
    }

    fn buffer(&self, index: usize) -> NonNull<PktHdr> {
        // SAFETY: index < count, so the address lies in the mapping; the base is page-aligned and the stride a
        // multiple of 64, so the header is aligned.
        unsafe { self.mapping.base().add(index * self.class.stride()).cast() }
    }

    fn buffers(&self) -> impl Iterator<Item = NonNull<PktHdr>> + '_ {
        (0..self.count).map(|i| self.buffer(i))
    }
}

impl Core {
    pub(super) fn depot(&self, class: Class) -> &Depot<Free> {
        &self.depots[class as usize]
    }

    pub(super) fn new_gauge(&self) -> Arc<Gauge> {
        let gauge = Arc::new(Gauge::default());
        self.gauges.with(|g| g.push(gauge.clone()));
        gauge
    }

    pub(super) fn retire_gauge(&self, gauge: &Arc<Gauge>) {
        self.gauges.with(|all| all.retain(|g| !Arc::ptr_eq(g, gauge)));
        for c in 0..Class::ALL.len() {
            self.loose.requests[c].fetch_add(gauge.requests[c].load(Ordering::Relaxed), Ordering::Relaxed);
            self.loose.releases[c].fetch_add(gauge.releases[c].load(Ordering::Relaxed), Ordering::Relaxed);
            self.loose.fail[c].fetch_add(gauge.fail[c].load(Ordering::Relaxed), Ordering::Relaxed);
        }
    }

    #[cold]
    pub(super) fn take_from_depot(&self, class: Class) -> Option<NonNull<PktHdr>> {
        self.loose.requests[class as usize].fetch_add(1, Ordering::Relaxed);
        let mut one = None;
        if self.depot(class).take(1, |f| one = Some(f.0)) == 0 {
            self.loose.fail[class as usize].fetch_add(1, Ordering::Relaxed);
        }
        one
    }

    pub(super) fn with_gauges(&self, class: Class, mut each: impl FnMut(u64, u64, u64, u64)) {
        let c = class as usize;
        let read = |g: &Gauge| {
            (
                u64::from(g.stock[c].load(Ordering::Relaxed)),
                g.requests[c].load(Ordering::Relaxed),
                g.releases[c].load(Ordering::Relaxed),
                g.fail[c].load(Ordering::Relaxed),
            )
        };
        let mut call = |(stock, requests, releases, fail)| each(stock, requests, releases, fail);
        call(read(&self.loose));
        self.gauges.with(|all| all.iter().for_each(|g| call(read(g))));
    }

    pub(super) fn count(&self, class: Class) -> usize {
        self.slabs[class as usize].count
    }

    pub(super) fn owners(&self, class: Class) -> [u64; Owner::ALL.len()] {
        let mut by_owner = [0; Owner::ALL.len()];
        for raw in self.slabs[class as usize].buffers() {
            // SAFETY: a buffer of this pool's own mapping.
            by_owner[unsafe { buffer::owner_of(raw) } as usize] += 1;
        }
        by_owner
    }

    pub(super) fn unexplained(&self) -> u64 {
        self.unexplained.load(Ordering::Relaxed)
    }
}

/// A handle to the pool; clones share it.
#[derive(Clone)]
pub struct Pool(Arc<Handle>);

impl Pool {
    /// Maps the buffers and puts them all into the depot.
    pub fn new(config: PoolConfig) -> Result<Pool, PoolError> {
        let slabs = [Slab::map(Class::Cluster, config.clusters)?, Slab::map(Class::Jumbo, config.jumbos)?];
        let depots = [Depot::new(config.clusters), Depot::new(config.jumbos)];
        let core = Box::new(Core {
            id: 0,
            slabs,
            depots,
            gauges: Leaf::new(Vec::new()),
            loose: Gauge::default(),
            unexplained: AtomicU64::new(0),
        });
        let core = register(core)?;
        for slab in &core.slabs {
            for (index, raw) in slab.buffers().enumerate() {
                // SAFETY: fresh memory of the right size that nobody else knows.
                unsafe { buffer::stamp(raw, core.id, slab.class, index as u32) };
            }
            // The lowest addresses end up on top of the stack, so that a quiet router touches few pages.
            let order: Vec<Free> = slab.buffers().map(Free).collect();
            core.depot(slab.class).give(order.into_iter().rev());
        }
        Ok(Pool(Arc::new(Handle(NonNull::from(core)))))
    }

    #[inline(always)]
    pub(super) fn core(&self) -> &Core {
        // SAFETY: the core lives at least as long as the last handle.
        unsafe { self.0.0.as_ref() }
    }

    /// A blank buffer, or `None` when there is none left (counted).
    #[inline(always)]
    pub fn alloc(&self, class: Class, owner: Owner) -> Option<Mbuf> {
        let raw = magazine::take(self.core(), class)?;
        // SAFETY: the buffer was free and is ours now.
        Some(unsafe { Mbuf::from_raw(raw, owner) })
    }

    /// Up to `n` blank buffers, as many as `out` has room for, to its end; how many there were (the rest is counted as
    /// refused).
    #[inline]
    pub fn alloc_many(&self, class: Class, owner: Owner, n: usize, out: &mut Batch) -> usize {
        let n = n.min(out.room());
        magazine::take_many(self.core(), class, n, |raw| {
            // SAFETY: the buffer was free and is ours now.
            let m = unsafe { Mbuf::from_raw(raw, owner) };
            // There is room: see above.
            let _ = out.push(m);
        })
    }

    /// How many buffers of this class there are.
    pub fn count(&self, class: Class) -> usize {
        self.core().count(class)
    }

    /// Free buffers of this class, by the books. Exact at a quiet moment, else near.
    pub fn free(&self, class: Class) -> usize {
        let mut stock = 0;
        self.core().with_gauges(class, |s, _, _, _| stock += s);
        self.core().depot(class).len() + stock as usize
    }

    /// Reads the books. Exact at a quiet moment (no worker runs) only.
    pub fn audit(&self) -> Audit {
        Audit::take(self.core())
    }

    /// Two batches, or less where the pool is so small that one worker would swallow it.
    pub(super) fn magazine_capacity(&self, class: Class) -> usize {
        (self.count(class) / 16).clamp(2, 512) & !1
    }
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool").field("id", &self.core().id).finish_non_exhaustive()
    }
}

/// Gives the pool a number and a place in the table of live pools.
fn register(mut core: Box<Core>) -> Result<&'static Core, PoolError> {
    for (id, place) in LIVE.iter().enumerate() {
        core.id = id as u16;
        let raw = Box::into_raw(core);
        match place.compare_exchange(ptr::null_mut(), raw, Ordering::AcqRel, Ordering::Relaxed) {
            // SAFETY: leaked above; freed by the last `Handle` only.
            Ok(_) => return Ok(unsafe { &*raw }),
            // SAFETY: not published, so still ours alone.
            Err(_) => core = unsafe { Box::from_raw(raw) },
        }
    }
    Err(PoolError::TooMany)
}

fn live(id: u16) -> Option<&'static Core> {
    // SAFETY: null, or a core that stays as long as any of its buffers is out; the caller has one.
    unsafe { LIVE[id as usize].load(Ordering::Acquire).as_ref() }
}

/// A buffer comes home on a thread without magazines of its pool.
#[cold]
pub(super) fn give_to_depot(id: u16, class: Class, free: Free) {
    if let Some(core) = live(id) {
        core.loose.releases[class as usize].fetch_add(1, Ordering::Relaxed);
        core.depot(class).give([free]);
    }
}

/// A packet was dropped without a reason.
pub(super) fn count_unexplained(id: u16) {
    if let Some(core) = live(id) {
        core.unexplained.fetch_add(1, Ordering::Relaxed);
    }
}
