//! The bench's devices: a source that makes packets of templates, and a sink that looks at what arrives.
//!
//! Whatever is not the router's path is *untimed*: the source writes (and seals) its frames as a device and its peer
//! would, and the sink verifies what it gets, between two looks at the clock whose difference is taken off the worker's
//! time. Buffers are allocated and freed on the clock.

use crate::iface::driver::{Caps, Driver, Read, RxCx, RxQueue, TxCx, Written};
use kern::{
    Batch, Class, Mbuf, Owner, Why,
    lock::Leaf,
    time::{Clock, Instant},
};
use std::{
    cell::Cell,
    os::fd::BorrowedFd,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

thread_local! {
    static SEAT: Cell<usize> = const { Cell::new(0) };
}

/// Says whose thread this is. A device is told which queue a frame is for, not who writes it, and any worker writes to any
/// queue.
pub(super) fn take_seat(worker: usize) {
    SEAT.set(worker);
}

/// What one worker's source and sink count. Written by that worker only.
#[derive(Default)]
#[repr(align(64))]
pub(super) struct Lane {
    untimed_ns: AtomicU64,
    packets: AtomicU64,
    wrong: AtomicU64,
}

impl Lane {
    fn add(counter: &AtomicU64, n: u64) {
        counter.store(counter.load(Ordering::Relaxed) + n, Ordering::Relaxed);
    }

    /// Runs what is not the path, off the clock.
    fn untimed<R>(&self, work: impl FnOnce() -> R) -> R {
        let before = Clock::Real.now();
        let result = work();
        Self::add(&self.untimed_ns, Clock::Real.now().nanos_since(before));
        result
    }

    pub(super) fn untimed_ns(&self) -> u64 {
        self.untimed_ns.load(Ordering::Relaxed)
    }

    pub(super) fn packets(&self) -> u64 {
        self.packets.load(Ordering::Relaxed)
    }

    pub(super) fn wrong(&self) -> u64 {
        self.wrong.load(Ordering::Relaxed)
    }
}

/// Makes frames.
pub(super) trait Generator: Send {
    /// Fills one blank buffer with the next frame.
    fn next(&mut self, m: &mut Mbuf);
}

/// The source: one queue a worker.
pub(super) struct Source {
    queues: Vec<Leaf<Option<Box<dyn RxQueue>>>>,
}

struct SourceQueue {
    generator: Box<dyn Generator>,
    lane: Arc<Lane>,
}

impl Source {
    pub(super) fn new(generators: Vec<Box<dyn Generator>>, lanes: &[Arc<Lane>]) -> Source {
        let queue = |(generator, lane): (Box<dyn Generator>, &Arc<Lane>)| {
            let queue: Box<dyn RxQueue> = Box::new(SourceQueue { generator, lane: lane.clone() });
            Leaf::new(Some(queue))
        };
        Source { queues: generators.into_iter().zip(lanes).map(queue).collect() }
    }
}

impl Driver for Source {
    fn mp_safe(&self) -> bool {
        true
    }

    fn queues(&self) -> usize {
        self.queues.len()
    }

    fn caps(&self) -> Caps {
        Caps::default()
    }

    fn rx(&self, queue: usize) -> Option<Box<dyn RxQueue>> {
        self.queues.get(queue)?.with(Option::take)
    }

    fn write(&self, _queue: usize, batch: &mut Batch, cx: &TxCx<'_>) -> Written {
        cx.ledger.sent_all(batch);
        Written::default()
    }

    fn is_up(&self) -> bool {
        true
    }
}

impl RxQueue for SourceQueue {
    fn read(&mut self, cx: &RxCx<'_>, burst: usize, out: &mut Batch) -> Read {
        let before = out.len();
        cx.pool.alloc_many(Class::Cluster, Owner::Worker, burst, out);
        let new = &mut out.as_mut_slice()[before..];
        // What a device does by DMA, and what its peer did before that, is not the router's time.
        self.lane.untimed(|| new.iter_mut().for_each(|m| self.generator.next(m)));
        cx.ledger.receive_all(new);
        Read::More
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

/// Looks at a frame at the end of its way; says whether it is right.
pub(super) type Check = Box<dyn Fn(&Mbuf) -> bool + Send + Sync>;

/// The sink: counts frames, and looks at one of each batch.
pub(super) struct Sink {
    lanes: Vec<Arc<Lane>>,
    check: Check,
}

impl Sink {
    pub(super) fn new(lanes: Vec<Arc<Lane>>, check: Check) -> Sink {
        Sink { lanes, check }
    }
}

impl Driver for Sink {
    fn mp_safe(&self) -> bool {
        true
    }

    fn queues(&self) -> usize {
        self.lanes.len()
    }

    fn caps(&self) -> Caps {
        Caps::default()
    }

    fn rx(&self, _queue: usize) -> Option<Box<dyn RxQueue>> {
        None
    }

    fn write(&self, _queue: usize, batch: &mut Batch, cx: &TxCx<'_>) -> Written {
        let Some(lane) = self.lanes.get(SEAT.get()) else {
            let refused = batch.len() as u64;
            cx.ledger.end_all(batch, Why::IfDetached);
            return Written { refused, ..Written::default() };
        };
        let frames = batch.len() as u64;
        let bytes = batch.iter().map(|m| m.len() as u64).sum();
        Lane::add(&lane.packets, frames);
        // One frame in some batches: looking is a cache miss or a decryption that the path does not have.
        // What the router says of its own accord (ARP, neighbour discovery) is not looked at.
        if lane.packets() / 64 % 16 == 0
            && let Some(m) = batch.as_slice().last()
            && m.data().get(12..14) == Some(&[0x08, 0x00])
        {
            let right = lane.untimed(|| (self.check)(m));
            Lane::add(&lane.wrong, (!right).into());
        }
        cx.ledger.sent_all(batch);
        Written { frames, bytes, refused: 0 }
    }

    fn is_up(&self) -> bool {
        true
    }
}

/// A worker's clock: time that passed, without what was untimed.
pub(super) struct Timed<'a> {
    lane: &'a Lane,
    since: Instant,
    untimed_before: u64,
    packets_before: u64,
}

impl<'a> Timed<'a> {
    pub(super) fn start(lane: &'a Lane) -> Timed<'a> {
        Timed {
            lane,
            since: Clock::Real.now(),
            untimed_before: lane.untimed_ns(),
            packets_before: lane.packets(),
        }
    }

    /// Timed nanoseconds since the start, and packets that arrived in them.
    pub(super) fn stop(self) -> (u64, u64) {
        let all = Clock::Real.now().nanos_since(self.since);
        let untimed = self.lane.untimed_ns() - self.untimed_before;
        (all.saturating_sub(untimed), self.lane.packets() - self.packets_before)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kern::testing::Fixture;

    #[test]
    fn a_frame_counts_for_who_writes_it_whatever_its_queue() {
        let side = Fixture::new(8);
        let lanes: Vec<Arc<Lane>> = (0..2).map(|_| Arc::default()).collect();
        let sink = Sink::new(lanes.clone(), Box::new(|_| true));
        for (worker, queue) in [(0, 0), (0, 1), (1, 0)] {
            take_seat(worker);
            let mut batch = Batch::new();
            assert!(batch.push(side.packet(&[0; 60])).is_ok());
            let written = sink.write(queue, &mut batch, &TxCx { pool: &side.pool, ledger: &side.ledger });
            assert_eq!(written, Written { frames: 1, bytes: 60, refused: 0 });
        }
        assert_eq!(lanes.iter().map(|lane| lane.packets()).collect::<Vec<_>>(), [2, 1]);
    }
}
