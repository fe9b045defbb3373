//! What queueing costs: nanoseconds a packet, into the interface queue and out of it again, by discipline.
//!
//! One thread, batches of 64, 64 batches of packets going round, so that headers are not always in the first cache.
//! The regulator is there and never says no. Least and median of the rounds.

use altq::{Drain, IfQueue, QueueFlags, QueueSpec, SchedulerKind, TreeSpec, Victims};
use kern::{
    Batch, Class, Owner,
    lock::Root,
    testing::Fixture,
    time::{Duration, Instant},
};
use std::hint::black_box;

const BATCH: usize = 64;
const BATCHES: usize = 64;
const ROUNDS: usize = 40;

fn tree(scheduler: SchedulerKind, classes: u16) -> TreeSpec {
    let queue = |i: u16| QueueSpec {
        name: format!("q{i}"),
        qid: i + 1,
        priority: Some(i as u8),
        qlimit: Some(4096),
        flags: if i == 0 { QueueFlags::DEFAULT } else { QueueFlags::empty() },
        ..QueueSpec::default()
    };
    TreeSpec {
        interface: "bench0".into(),
        mtu: 1500,
        scheduler,
        bandwidth: Some(1_000_000_000_000),
        qlimit: Some(4096),
        tbrsize: Some(1 << 30),
        flags: QueueFlags::empty(),
        codel: (None, None),
        framing: altq::Framing::default(),
        root_qid: 60_000,
        queues: if scheduler == SchedulerKind::Fifo { vec![] } else { (0..classes).map(queue).collect() },
    }
}

/// Nanoseconds a packet: least and median of the rounds.
fn measure(f: &Fixture, scheduler: SchedulerKind, classes: u16, backlog: usize) -> (f64, f64) {
    let ifq = IfQueue::new(tree(scheduler, classes).build().expect("a tree"));
    let mut root = Root::claim();
    let mut victims = Victims::new();
    let mut ring: Vec<Batch> = (0..BATCHES).map(|b| full_batch(f, b, classes)).collect();
    let mut now = Instant::from_secs(1);
    let mut turn = None;
    let mut rounds: Vec<f64> = Vec::new();
    for _ in 0..ROUNDS {
        let start = std::time::Instant::now();
        for b in 0..BATCHES {
            now += Duration::from_millis(1);
            let got = ifq.enqueue_batch(&mut root.top(), &mut ring[b], now, &mut victims);
            turn = got.or(turn);
            let out = &mut ring[(b + BATCHES - backlog) % BATCHES];
            if out.is_empty() {
                turn = turn.take().and_then(|turn| drain(&ifq, &mut root, turn, now, out, &mut victims));
            }
        }
        rounds.push(start.elapsed().as_nanos() as f64 / (BATCH * BATCHES) as f64);
        assert!(victims.is_empty());
    }
    ifq.purge(&mut root.top(), &mut victims);
    victims.drain().for_each(|(m, why)| f.ledger.end(m, why));
    ring.iter_mut().flat_map(Batch::drain).for_each(|m| f.done(m));
    rounds.sort_by(f64::total_cmp);
    (rounds[0], rounds[ROUNDS / 2])
}

fn drain(
    ifq: &IfQueue,
    root: &mut Root,
    turn: altq::Turn,
    now: Instant,
    out: &mut Batch,
    victims: &mut Victims,
) -> Option<altq::Turn> {
    match black_box(ifq.next_burst(&mut root.top(), turn, now, out, victims, BATCH)) {
        Drain::More(turn) => Some(turn),
        Drain::Until(..) | Drain::Empty => None,
    }
}

fn full_batch(f: &Fixture, seed: usize, classes: u16) -> Batch {
    let mut batch = Batch::new();
    for i in 0..BATCH {
        let mut m = f.pool.alloc(Class::Cluster, Owner::Worker).expect("a buffer");
        m.append(64).expect("room").fill(0);
        m.hdr_mut().queue = ((seed * 31 + i * 7) as u16 % classes) + 1;
        f.ledger.receive(&mut m);
        assert!(batch.push(m).is_ok());
    }
    batch
}

fn main() {
    let f = Fixture::new(BATCH * BATCHES);
    println!("ns a packet, enqueue and dequeue        least  median");
    for (name, scheduler, classes) in [
        ("fifo", SchedulerKind::Fifo, 1),
        ("priq, 1 class", SchedulerKind::Priq, 1),
        ("priq, 16 classes", SchedulerKind::Priq, 16),
    ] {
        for backlog in [0, 32] {
            let (least, median) = measure(&f, scheduler, classes, backlog);
            println!("{name:<18} {:>5} packets waiting  {least:6.1}  {median:6.1}", backlog * BATCH);
        }
    }
}
