//! The benchmark's device: an endless source of frames and a sink that looks at some of what arrives.
//!
//! The source makes frames of templates: the headers are copied, the rest of a frame is whatever the buffer held, as if a
//! NIC had put it there. Flow *n* of the templates comes from queue *n* modulo the queues, as receive-side scaling would have it.
//! Frames that must be made to measure (sealed ones, say) can be put in [stock](SourceSink::stock) beforehand and are read first, without being touched.
//!
//! The sink counts, and shows every *k*-th packet to a judge. Neither allocates after it was made. Not here: time, loss, a wire.

use super::{
    driver::{Caps, Driver, Read, RxCx, RxQueue, TxCx, Written, refuse},
    vnet,
};
use kern::{Batch, Class, Mbuf, Owner, Why, lock::Leaf};
use std::{
    collections::VecDeque,
    os::fd::BorrowedFd,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

/// A frame to make again and again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    /// What is copied: the headers, or all of it.
    pub octets: Vec<u8>,
    /// Octets of the frame; at least as many.
    pub len: usize,
}

impl Template {
    /// All of a frame.
    pub fn whole(frame: Vec<u8>) -> Template {
        Template { len: frame.len(), octets: frame }
    }

    /// The first `headers` octets of a frame; the rest may hold anything.
    pub fn headers(frame: &[u8], headers: usize) -> Template {
        Template { octets: frame[..headers.min(frame.len())].to_vec(), len: frame.len() }
    }
}

/// Looks at a packet that arrived at the sink.
pub type Judge = Arc<dyn Fn(&Mbuf) + Send + Sync>;

/// What to make and what to look at.
#[derive(Clone, Default)]
pub struct SourceSinkConfig {
    /// Queues; at least one.
    pub queues: usize,
    /// What the source makes, in turn; nothing if empty.
    pub templates: Vec<Template>,
    /// Frames each queue gives before it is empty; `None` is no limit.
    pub budget: Option<u64>,
    /// Buffers that each queue's stock can hold.
    pub stock: usize,
    /// What the sink does with super-frames.
    pub caps: Caps,
    /// Every how many packets the judge is asked, and who it is.
    pub judge: Option<(u64, Judge)>,
}

/// What the sink got.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sunk {
    /// Packets; a super-frame is one.
    pub packets: u64,
    /// Frames on the wire.
    pub frames: u64,
    /// Octets on the wire.
    pub bytes: u64,
    /// Packets shown to the judge.
    pub judged: u64,
}

#[derive(Default)]
#[repr(align(64))]
struct Basin {
    packets: AtomicU64,
    frames: AtomicU64,
    bytes: AtomicU64,
    judged: AtomicU64,
}

struct Shared {
    flowing: AtomicBool,
    taken: Vec<AtomicBool>,
    templates: Vec<Vec<Template>>,
    budget: Vec<AtomicU64>,
    stocks: Vec<Leaf<VecDeque<Mbuf>>>,
    stock_limit: usize,
    basins: Vec<Basin>,
    caps: Caps,
    judge: Option<(u64, Judge)>,
}

/// A device that is a source and a sink; clones are the same device.
#[derive(Clone)]
pub struct SourceSink(Arc<Shared>);

impl SourceSink {
    /// Makes one.
    pub fn new(config: SourceSinkConfig) -> SourceSink {
        let queues = config.queues.max(1);
        let of_queue = |queue: usize| config.templates.iter().skip(queue).step_by(queues).cloned().collect();
        SourceSink(Arc::new(Shared {
            flowing: AtomicBool::new(true),
            taken: (0..queues).map(|_| AtomicBool::new(false)).collect(),
            templates: (0..queues).map(of_queue).collect(),
            budget: (0..queues).map(|_| AtomicU64::new(config.budget.unwrap_or(u64::MAX))).collect(),
            stocks: (0..queues).map(|_| Leaf::new(VecDeque::with_capacity(config.stock))).collect(),
            stock_limit: config.stock,
            basins: (0..queues).map(|_| Basin::default()).collect(),
            caps: config.caps,
            judge: config.judge.map(|(every, judge)| (every.max(1), judge)),
        }))
    }

    /// Lets the source flow or not.
    pub fn flow(&self, on: bool) {
        self.0.flowing.store(on, Ordering::Release);
    }

    /// Lets a queue give so many frames more, made of templates.
    pub fn set_budget(&self, queue: usize, frames: u64) {
        self.0.budget[queue].store(frames, Ordering::Release);
    }

    /// Puts a blank buffer that holds a frame in stock, to be read next; a full stock gives it back.
    pub fn stock(&self, queue: usize, blank: Mbuf) -> Result<(), Mbuf> {
        debug_assert!(!blank.is_packet(), "it becomes a packet when it is read");
        self.0.stocks[queue].with(|stock| {
            if stock.len() == self.0.stock_limit {
                return Err(blank);
            }
            stock.push_back(blank);
            Ok(())
        })
    }

    /// Frames in stock.
    pub fn in_stock(&self, queue: usize) -> usize {
        self.0.stocks[queue].with(|stock| stock.len())
    }

    /// What all queues of the sink got so far.
    pub fn sunk(&self) -> Sunk {
        let mut sum = Sunk::default();
        for basin in &self.0.basins {
            sum.packets += basin.packets.load(Ordering::Acquire);
            sum.frames += basin.frames.load(Ordering::Acquire);
            sum.bytes += basin.bytes.load(Ordering::Acquire);
            sum.judged += basin.judged.load(Ordering::Acquire);
        }
        sum
    }

    /// Asks the judge about every k-th packet; `before` packets went into this queue so far.
    fn judge(&self, before: u64, batch: &Batch) -> u64 {
        let Some((every, judge)) = &self.0.judge else { return 0 };
        let first = (every - before % every) % every;
        let chosen = batch.iter().skip(first as usize).step_by(*every as usize);
        chosen.map(|m| judge(m)).count() as u64
    }
}

impl Driver for SourceSink {
    fn mp_safe(&self) -> bool {
        true
    }

    fn queues(&self) -> usize {
        self.0.taken.len()
    }

    fn caps(&self) -> Caps {
        self.0.caps
    }

    fn rx(&self, queue: usize) -> Option<Box<dyn RxQueue>> {
        let first = !self.0.taken.get(queue)?.swap(true, Ordering::AcqRel);
        first.then(|| Box::new(SourceRx { shared: Arc::clone(&self.0), queue, next: 0 }) as Box<dyn RxQueue>)
    }

    fn write(&self, queue: usize, batch: &mut Batch, cx: &TxCx<'_>) -> Written {
        if batch.iter().any(|m| !vnet::takes(self.0.caps, m.hdr().gso)) {
            return refuse(batch, cx, Why::IfOffload);
        }
        let mut written = Written::default();
        for m in batch.iter() {
            let (frames, bytes) = vnet::on_the_wire(m);
            written.frames += frames;
            written.bytes += bytes;
        }
        let basin = &self.0.basins[queue % self.0.basins.len()];
        let before = basin.packets.fetch_add(batch.len() as u64, Ordering::AcqRel);
        basin.frames.fetch_add(written.frames, Ordering::AcqRel);
        basin.bytes.fetch_add(written.bytes, Ordering::AcqRel);
        if self.0.judge.is_some() {
            basin.judged.fetch_add(self.judge(before, batch), Ordering::AcqRel);
        }
        cx.ledger.sent_all(batch);
        written
    }

    fn is_up(&self) -> bool {
        true
    }
}

struct SourceRx {
    shared: Arc<Shared>,
    queue: usize,
    next: usize,
}

impl SourceRx {
    fn read_stock(&self, cx: &RxCx<'_>, burst: usize, out: &mut Batch) {
        let from = out.len();
        self.shared.stocks[self.queue].with(|stock| {
            for m in stock.drain(..burst.min(stock.len())) {
                // There is room: `burst` was bounded by it.
                let _ = out.push(m);
            }
        });
        out.as_mut_slice()[from..].iter_mut().for_each(|m| cx.ledger.receive(m));
    }

    fn make(&mut self, cx: &RxCx<'_>, burst: usize, out: &mut Batch) -> usize {
        let templates = &self.shared.templates[self.queue];
        for made in 0..burst {
            let Some(template) = templates.get(self.next) else { return made };
            let class =
                if template.len <= super::link::CLUSTER_FRAME { Class::Cluster } else { Class::Jumbo };
            let Some(mut m) = cx.pool.alloc(class, Owner::Worker) else {
                cx.ledger.turn_away(Why::NoBuffer);
                return made;
            };
            let len = template.octets.len();
            // A template longer than a buffer gives an empty frame, which nobody takes.
            if let Ok(frame) = m.append(template.len.max(len)) {
                frame[..len].copy_from_slice(&template.octets);
            }
            cx.ledger.receive(&mut m);
            self.next = if self.next + 1 == templates.len() { 0 } else { self.next + 1 };
            if let Err(m) = out.push(m) {
                cx.ledger.end(m, Why::NoBuffer);
            }
        }
        burst
    }
}

impl RxQueue for SourceRx {
    fn read(&mut self, cx: &RxCx<'_>, burst: usize, out: &mut Batch) -> Read {
        if !self.shared.flowing.load(Ordering::Acquire) {
            return Read::Empty;
        }
        let before = out.len();
        let burst = burst.min(out.room());
        self.read_stock(cx, burst, out);
        let wanted = burst - (out.len() - before);
        let budget = self.shared.budget[self.queue].load(Ordering::Acquire);
        let made = self.make(cx, wanted.min(budget.min(wanted as u64) as usize), out);
        if budget != u64::MAX {
            self.shared.budget[self.queue].store(budget - made as u64, Ordering::Release);
        }
        if out.len() - before == burst { Read::More } else { Read::Empty }
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

impl Drop for SourceRx {
    fn drop(&mut self) {
        self.shared.taken[self.queue].store(false, Ordering::Release);
    }
}
