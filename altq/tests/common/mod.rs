//! An interface that sends in virtual time: what the tests of this crate drive.

#![allow(clippy::unwrap_used, reason = "a test")]
#![allow(dead_code, unreachable_pub, reason = "each test uses a part")]
#![allow(clippy::unnecessary_wraps, reason = "as a configuration has it")]

use altq::{
    Bandwidth, Counters, CurveSpec, Drain, Framing, IfQueue, IfqStats, QueueFlags, QueueSpec, SchedulerKind,
    Tree, TreeSpec, Turn, Victims,
};
use kern::{Batch, Mbuf, Why, lock::Root, testing::Fixture, time::Instant};

/// A frame that left, or was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    pub at: Instant,
    pub queue: u16,
    pub bytes: u32,
    /// When it came.
    pub came: Instant,
    pub seq: u32,
}

impl Frame {
    pub fn waited(&self) -> u64 {
        self.at.nanos_since(self.came)
    }
}

/// One interface queue, its drainer and its clock.
pub struct Link {
    pub ifq: IfQueue,
    pub now: Instant,
    pub sent: Vec<Frame>,
    pub dropped: Vec<(Frame, Why)>,
    /// Frames a burst may have.
    pub budget: usize,
    /// Whether to keep the bytes of frames that left.
    pub keep: bool,
    pub kept: Vec<Vec<u8>>,
    root: Root,
    waiting: Option<(Instant, Turn)>,
    batch: Batch,
    victims: Victims,
    out: Batch,
    // Last: its promise is checked after everything else has gone.
    pub f: Fixture,
}

pub fn queue(name: &str, qid: u16, priority: u8, qlimit: u32) -> QueueSpec {
    let (priority, qlimit) = (Some(priority), Some(qlimit));
    QueueSpec { name: name.into(), qid, priority, qlimit, ..QueueSpec::default() }
}

pub fn default_queue(name: &str, qid: u16, priority: u8, qlimit: u32) -> QueueSpec {
    QueueSpec { flags: QueueFlags::DEFAULT, ..queue(name, qid, priority, qlimit) }
}

pub fn spec(scheduler: SchedulerKind, bandwidth: u64, queues: Vec<QueueSpec>) -> TreeSpec {
    TreeSpec {
        interface: "em0".into(),
        mtu: 1500,
        scheduler,
        bandwidth: Some(bandwidth),
        qlimit: None,
        tbrsize: None,
        flags: QueueFlags::empty(),
        codel: (None, None),
        framing: Framing::default(),
        root_qid: 60_000,
        queues,
    }
}

/// A straight service curve.
pub fn line(rate: u64) -> Option<CurveSpec> {
    Some(CurveSpec { first: None, second: Bandwidth::Bits(rate) })
}

/// A service curve of two pieces; the first lasts `ms` milliseconds.
pub fn curve(m1: u64, ms: u32, m2: u64) -> Option<CurveSpec> {
    Some(CurveSpec { first: Some((Bandwidth::Bits(m1), ms)), second: Bandwidth::Bits(m2) })
}

/// A queue of a tree.
pub fn node(name: &str, qid: u16, parent: Option<&str>, bandwidth: u64) -> QueueSpec {
    QueueSpec {
        name: name.into(),
        qid,
        parent: parent.map(Into::into),
        bandwidth: Some(Bandwidth::Bits(bandwidth)),
        ..QueueSpec::default()
    }
}

/// The same queue as the default one.
pub fn as_default(queue: QueueSpec) -> QueueSpec {
    QueueSpec { flags: queue.flags.with(QueueFlags::DEFAULT), ..queue }
}

/// Bytes of a queue that left in a span of time.
pub fn bytes_of(sent: &[Frame], queue: u16, from: Instant, to: Instant) -> u64 {
    sent.iter().filter(|f| f.queue == queue && f.at >= from && f.at < to).map(|f| u64::from(f.bytes)).sum()
}

pub fn priq(bandwidth: u64, queues: Vec<QueueSpec>) -> Tree {
    spec(SchedulerKind::Priq, bandwidth, queues).build().expect("a tree")
}

pub fn fifo(bandwidth: u64, tbrsize: u32, qlimit: u32) -> Tree {
    let mut spec = spec(SchedulerKind::Fifo, bandwidth, vec![]);
    (spec.tbrsize, spec.qlimit) = (Some(tbrsize), Some(qlimit));
    spec.build().expect("a tree")
}

impl Link {
    pub fn new(tree: Tree, clusters: usize) -> Link {
        Link {
            ifq: IfQueue::new(tree),
            now: Instant::from_secs(1),
            sent: Vec::new(),
            dropped: Vec::new(),
            budget: 64,
            keep: false,
            kept: Vec::new(),
            root: Root::claim(),
            waiting: None,
            batch: Batch::new(),
            victims: Victims::new(),
            out: Batch::new(),
            f: Fixture::new(clusters),
        }
    }

    /// A frame for a queue; its first bytes say when it came and which it is.
    pub fn frame(&self, queue: u16, bytes: u32, seq: u32) -> Mbuf {
        let mut data = vec![0; bytes as usize];
        data[..8].copy_from_slice(&self.now.nanos().to_be_bytes());
        data[8..12].copy_from_slice(&seq.to_be_bytes());
        let mut m = self.f.packet(&data);
        m.hdr_mut().queue = queue;
        m
    }

    fn read(&self, m: &Mbuf) -> Frame {
        let came = u64::from_be_bytes(m.data()[..8].try_into().unwrap());
        let seq = u32::from_be_bytes(m.data()[8..12].try_into().unwrap());
        let (queue, bytes) = (m.hdr().queue, m.len() as u32);
        Frame { at: self.now, queue, bytes, came: Instant::from_nanos(came), seq }
    }

    /// Brings frames to the queue now.
    pub fn offer(&mut self, frames: impl IntoIterator<Item = Mbuf>) {
        for m in frames {
            self.batch.push(m).unwrap();
        }
        let turn = self.ifq.enqueue_batch(&mut self.root.top(), &mut self.batch, self.now, &mut self.victims);
        assert!(self.batch.is_empty());
        self.end_victims();
        if let Some(turn) = turn {
            self.waiting = None;
            self.drain(turn);
        }
    }

    /// Makes and brings one.
    pub fn send(&mut self, queue: u16, bytes: u32, seq: u32) {
        let m = self.frame(queue, bytes, seq);
        self.offer([m]);
    }

    /// Lets time pass, sending whatever may be sent when it may.
    pub fn run_until(&mut self, until: Instant) {
        self.run_until_late(until, || 0);
    }

    /// The same with a timer that is late by so many nanoseconds.
    pub fn run_until_late(&mut self, until: Instant, mut late: impl FnMut() -> u64) {
        while let Some((at, turn)) = self.waiting.take() {
            let wake = at.after(late());
            if wake > until {
                self.waiting = Some((at, turn));
                break;
            }
            self.now = self.now.max(wake);
            self.drain(turn);
        }
        self.now = self.now.max(until);
    }

    /// When the drainer wakes up.
    pub fn wakes_at(&self) -> Option<Instant> {
        self.waiting.as_ref().map(|&(at, _)| at)
    }

    fn drain(&mut self, mut turn: Turn) {
        loop {
            let mut held = self.root.top();
            let next =
                self.ifq.next_burst(&mut held, turn, self.now, &mut self.out, &mut self.victims, self.budget);
            self.end_victims();
            for m in self.out.drain().collect::<Vec<_>>() {
                self.sent.push(self.read(&m));
                if self.keep {
                    self.kept.push(m.data().to_vec());
                }
                self.f.ledger.sent(m);
            }
            match next {
                Drain::More(again) => turn = again,
                Drain::Until(at, turn) => return self.waiting = Some((at, turn)),
                Drain::Empty => return,
            }
        }
    }

    fn end_victims(&mut self) {
        for (m, why) in self.victims.drain().collect::<Vec<_>>() {
            self.dropped.push((self.read(&m), why));
            self.f.ledger.end(m, why);
        }
    }

    pub fn attach(&mut self, tree: Tree) {
        self.ifq.attach(&mut self.root.top(), tree, self.now, &mut self.victims);
        self.end_victims();
    }

    pub fn purge(&mut self) {
        self.ifq.purge(&mut self.root.top(), &mut self.victims);
        self.end_victims();
    }

    pub fn stats(&mut self) -> IfqStats {
        self.ifq.stats(&mut self.root.top())
    }
}

/// A small generator; the seed is printed by the test that makes it.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        println!("seed {seed:#x}");
        Random(seed | 1)
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }
}

/// By how many bytes the worst window of any length is over `rate` × its length.
pub fn worst_window(frames: &[Frame], rate: u64) -> u64 {
    // In units of a byte's 8 × 10⁹: the largest drop-free rise of (bytes sent - rate × time), each frame included.
    let (mut worst, mut level, mut last) = (0_i128, 0_i128, None::<Instant>);
    for frame in frames {
        let idle = last.map_or(0, |l| frame.at.nanos_since(l));
        level =
            (level - i128::from(idle) * i128::from(rate)).max(0) + i128::from(frame.bytes) * 8_000_000_000;
        worst = worst.max(level);
        last = Some(frame.at);
    }
    (worst as u128).div_ceil(8_000_000_000) as u64
}

/// Compares with a committed table; `SNAPSHOT=write` writes it.
pub fn snapshot(name: &str, text: &str) {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/snapshots").join(name);
    if std::env::var_os("SNAPSHOT").is_some_and(|v| v == "write") {
        std::fs::write(&path, text).unwrap();
    }
    let saved = std::fs::read_to_string(&path).unwrap();
    assert_eq!(text, saved, "{} differs; SNAPSHOT=write accepts the new one", path.display());
}

/// Keeps ten packets in each of these queues until then, sizes at random, looking every `step` nanoseconds.
pub fn flood(link: &mut Link, queues: &[u16], until: Instant, random: &mut Random, step: u64) {
    let mut seq = 0;
    while link.now < until {
        let stats = link.stats();
        for &qid in queues {
            let class = stats.conf.classes.iter().position(|c| c.qid == qid).unwrap();
            // What leaves at once while these come is made up for in the next step.
            for _ in stats.counters[class].queued.packets..10 {
                link.send(qid, 64 + random.below(1451) as u32, seq);
                seq += 1;
            }
        }
        link.run_until(link.now.after(step).min(until));
    }
}

/// The full sizes are asked for.
pub fn soak() -> bool {
    std::env::var_os("SOFTNET_SOAK").is_some()
}

/// Nanoseconds that a flood at this rate is measured over: five seconds, above 100 Mb/s as many packets as at that rate.
pub fn span(rate: u64) -> u64 {
    5_000_000_000 / (rate / 100_000_000).max(1)
}

/// Nanoseconds in which a link sends four large frames.
pub fn four_frames(rate: u64) -> u64 {
    4 * 1514 * 8_000_000_000 / rate
}

/// The books balance, also when all that waits has been thrown away.
pub fn finish(mut link: Link) {
    assert!(link.stats().counters.iter().all(Counters::balanced));
    link.purge();
    assert!(link.stats().counters.iter().all(Counters::balanced));
    assert_eq!(link.stats().total().queued.packets, 0);
}
