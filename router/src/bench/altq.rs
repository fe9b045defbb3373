//! `softnet bench altq`: what queueing costs, in nanoseconds a packet, into the interface queue and out of it again.
//!
//! One thread, batches of 64 packets of 64 bytes, half of the batches waiting in the queue while the others go round,
//! so that every class has packets and headers are not always in the first cache. Time is virtual and goes as fast as the
//! link, so that every class is at its limit, eligible times come and CBQ borrows; the regulator's bucket is large. The
//! median of the rounds is told.

use altq::{
    Bandwidth, CurveSpec, Drain, Framing, IfQueue, QueueFlags, QueueSpec, SchedulerKind, TreeSpec, Turn,
    Victims,
};
use kern::{
    Batch, Class, Ledger, Owner, Pool, Why,
    lock::Root,
    mbuf::PoolConfig,
    time::{Duration, Instant},
};
use serde::Serialize;

const BATCH: usize = 64;
const BATCHES: usize = 64;
const BYTES: usize = 64;
/// Batches that wait in the queue.
const BACKLOG: usize = 32;
const RATE: u64 = 100_000_000_000;

/// A row of the answer.
#[derive(Clone, Debug, Serialize)]
pub struct AltqRow {
    /// Scheduler, or dropper in a queue of its own.
    pub discipline: &'static str,
    /// Classes.
    pub classes: u16,
    /// Nanoseconds a packet, in and out.
    pub ns_per_packet: f64,
    /// Million packets a second.
    pub mpps: f64,
    /// Whether all packets came out and every buffer came back.
    pub balanced: bool,
}

/// The answer.
#[derive(Clone, Debug, Serialize)]
pub struct AltqReport {
    /// `altq`.
    pub bench: &'static str,
    /// The rows.
    pub results: Vec<AltqRow>,
}

/// Measures every discipline; those with trees at each of `classes`. `rounds` is how long.
pub fn altq(classes: &[u16], rounds: usize, root: &mut Root) -> Result<AltqReport, String> {
    use SchedulerKind as S;
    let none = QueueFlags::empty();
    let mut plan = vec![("fifo", S::Fifo, none, 1), ("priq", S::Priq, none, 16)];
    plan.extend(classes.iter().filter(|&&n| n <= 1024).map(|&n| ("cbq", S::Cbq, QueueFlags::BORROW, n)));
    plan.extend(classes.iter().map(|&n| ("hfsc", S::Hfsc, none, n)));
    plan.extend([
        ("fairq", S::Fairq, none, 8),
        ("red", S::Priq, QueueFlags::RED, 1),
        ("rio", S::Priq, QueueFlags::RIO, 1),
        ("codel", S::Priq, QueueFlags::CODEL, 1),
        ("fq_codel", S::Priq, QueueFlags::FQ_CODEL, 1),
        ("cake", S::Priq, QueueFlags::CAKE, 1),
    ]);
    let one = |(name, scheduler, flags, n)| measure(name, &tree(scheduler, flags, n), n, rounds, root);
    Ok(AltqReport { bench: "altq", results: plan.into_iter().map(one).collect::<Result<_, _>>()? })
}

fn tree(scheduler: SchedulerKind, flags: QueueFlags, classes: u16) -> TreeSpec {
    let share = RATE / u64::from(classes);
    // A lone queue is so long that RED and RIO, whose thresholds go by its limit, see little in it and drop nothing.
    let limit = (65_536 / u32::from(classes)).max(64);
    let line = |rate| Some(CurveSpec { first: None, second: Bandwidth::Bits(rate) });
    let shares = matches!(scheduler, SchedulerKind::Cbq | SchedulerKind::Hfsc | SchedulerKind::Fairq);
    let queue = |i: u16| QueueSpec {
        name: format!("q{i}"),
        qid: i + 1,
        bandwidth: shares.then_some(Bandwidth::Bits(share)),
        priority: Some((i % if scheduler == SchedulerKind::Priq { 16 } else { 8 }) as u8),
        qlimit: Some(limit),
        flags: if i == 0 { flags.with(QueueFlags::DEFAULT) } else { flags },
        // Every other class has a real-time curve.
        realtime: if scheduler == SchedulerKind::Hfsc && i.is_multiple_of(2) {
            line(share / 2)
        } else {
            None
        },
        ..QueueSpec::default()
    };
    TreeSpec {
        interface: "bench0".into(),
        mtu: 1500,
        scheduler,
        bandwidth: Some(RATE),
        qlimit: Some(65_536),
        tbrsize: Some(1 << 30),
        flags: QueueFlags::empty(),
        codel: (None, None),
        framing: Framing::default(),
        root_qid: classes + 1,
        queues: if scheduler == SchedulerKind::Fifo { vec![] } else { (0..classes).map(queue).collect() },
    }
}

/// The queue, its drainer, and packets going round.
struct Round {
    ifq: IfQueue,
    ring: Vec<Batch>,
    now: Instant,
    turn: Option<Turn>,
    victims: Victims,
}

fn measure(
    discipline: &'static str,
    tree: &TreeSpec,
    classes: u16,
    rounds: usize,
    root: &mut Root,
) -> Result<AltqRow, String> {
    let tree = tree.build().map_err(|e| e.to_string())?;
    let config = PoolConfig { clusters: BATCH * BATCHES, jumbos: 1 };
    let (pool, ledger) = (Pool::new(config).map_err(|e| e.to_string())?, Ledger::new());
    let ring = (0..BATCHES).map(|b| full_batch(&pool, &ledger, b, classes)).collect();
    let (now, victims) = (Instant::from_secs(1), Victims::new());
    let mut round = Round { ifq: IfQueue::new(tree), ring, now, turn: None, victims };
    let mut times: Vec<f64> = (0..rounds.max(3)).map(|_| round.once(root)).collect();
    let lost = !round.victims.is_empty();
    round.end(&ledger, root);
    let balanced = !lost && pool.audit().held() == 0 && ledger.balance().held() == 0;
    times.sort_by(f64::total_cmp);
    let ns_per_packet = times[times.len() / 2];
    Ok(AltqRow { discipline, classes, ns_per_packet, mpps: 1e3 / ns_per_packet, balanced })
}

fn full_batch(pool: &Pool, ledger: &Ledger, seed: usize, classes: u16) -> Batch {
    let mut batch = Batch::new();
    for i in 0..BATCH {
        let Some(mut m) = pool.alloc(Class::Cluster, Owner::Worker) else { break };
        if let Ok(data) = m.append(BYTES) {
            data.fill(0);
            // IPv4, so that what looks at the traffic class has something to look at.
            data[12..15].copy_from_slice(&[8, 0, 0x45]);
        }
        ledger.receive(&mut m);
        let flow = (seed * BATCH + i) as u32;
        let h = m.hdr_mut();
        h.queue = (flow % u32::from(classes)) as u16 + 1;
        h.hash = (flow % 500).wrapping_mul(0x9e37_79b1) | 1;
        if let Err(m) = batch.push(m) {
            ledger.end(m, Why::Sink);
        }
    }
    batch
}

impl Round {
    /// Every batch in once and out once; nanoseconds a packet.
    fn once(&mut self, root: &mut Root) -> f64 {
        let start = std::time::Instant::now();
        for b in 0..BATCHES {
            self.now += Duration::from_nanos((BATCH * BYTES * 8) as u64 * 1_000_000_000 / RATE);
            let Round { ifq, ring, now, turn, victims } = self;
            let got = ifq.enqueue_batch(&mut root.top(), &mut ring[b], *now, victims);
            *turn = got.or(turn.take());
            let out = &mut ring[(b + BATCHES - BACKLOG) % BATCHES];
            while out.len() < BATCH && victims.is_empty() {
                let Some(mine) = turn.take() else { break };
                match ifq.next_burst(&mut root.top(), mine, *now, out, victims, BATCH - out.len()) {
                    Drain::More(again) => *turn = Some(again),
                    Drain::Until(at, again) => (*now, *turn) = ((*now).max(at), Some(again)),
                    Drain::Empty => {}
                }
            }
        }
        start.elapsed().as_nanos() as f64 / (BATCH * BATCHES) as f64
    }

    fn end(mut self, ledger: &Ledger, root: &mut Root) {
        let mut left = Victims::new();
        self.ifq.purge(&mut root.top(), &mut left);
        left.drain().chain(self.victims.drain()).for_each(|(m, why)| ledger.end(m, why));
        self.ring.iter_mut().flat_map(Batch::drain).for_each(|m| ledger.end(m, Why::Sink));
    }
}
