//! The interface queue: replacing the discipline, one drainer among many threads, the books.

#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use altq::{Drain, IfQueue, QueueSpec, SchedulerKind, Tally, Turn, Victims};
use common::{Link, Random, curve, default_queue, fifo, line, priq, queue, spec};
use kern::{
    Batch, Class, Ledger, Mbuf, Owner, Why,
    lock::{Leaf, Root},
    testing::Fixture,
    time::{Clock, Instant},
};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

fn full_link(tree: altq::Tree) -> Link {
    let mut link = Link::new(tree, 512);
    // The bucket lets the first out; the rest wait.
    link.send(0, 1500, u32::MAX);
    link.run_until(link.now.after(1));
    link.send(0, 1500, u32::MAX);
    link.sent.clear();
    link
}

#[test]
fn attaching_another_discipline_moves_waiting_packets_over_by_name() {
    let mut link = full_link(priq(
        100_000,
        vec![queue("a", 1, 5, 50), queue("b", 2, 4, 50), default_queue("c", 3, 1, 50)],
    ));
    for seq in 0..30 {
        for q in [1, 2, 3] {
            link.send(q, 500, seq);
        }
    }
    // The same names with other numbers and the other way round; b is gone, and c holds 40 instead of 50.
    link.attach(priq(
        100_000,
        vec![queue("c", 4, 9, 40), default_queue("d", 5, 2, 20), queue("a", 6, 3, 50)],
    ));
    let waiting: Vec<u64> = link.stats().counters.iter().map(|c| c.queued.packets).collect();
    assert_eq!(waiting, [30, 20, 30], "c kept its 30, d took 20 of b, a kept its 30");
    let misfits: Vec<_> = link.dropped.drain(..).map(|(f, why)| (f.queue, f.seq, why)).collect();
    assert_eq!(misfits, (20..30).map(|seq| (2, seq, Why::QueuePurge)).collect::<Vec<_>>());
    link.run_until(link.now.after(60_000_000_000));
    let order: Vec<_> = link.sent.iter().map(|f| (f.queue, f.seq)).collect();
    let expected: Vec<_> =
        [(3, 30), (1, 30), (2, 20)].iter().flat_map(|&(q, n)| (0..n).map(move |s| (q, s))).collect();
    assert_eq!(order, expected);
}

#[test]
fn a_shorter_queue_keeps_the_oldest_and_says_full_for_the_rest() {
    let mut link = full_link(priq(100_000, vec![default_queue("a", 1, 1, 50)]));
    (0..40).for_each(|seq| link.send(1, 500, seq));
    link.attach(priq(100_000, vec![default_queue("a", 1, 1, 10)]));
    assert_eq!(link.dropped.len(), 30);
    assert!(link.dropped.iter().all(|(f, why)| *why == Why::QueueFull && f.seq >= 10));
    // And to a FIFO and back, while it drains.
    link.attach(fifo(100_000, 1500, 50));
    link.attach(priq(100_000, vec![default_queue("em0", 1, 1, 50)]));
    link.run_until(link.now.after(60_000_000_000));
    assert_eq!(link.sent.iter().map(|f| f.seq).collect::<Vec<_>>(), (0..10).collect::<Vec<_>>());
}

#[test]
fn a_faster_tree_is_used_at_once_by_whoever_comes_next() {
    let mut link = full_link(priq(100_000, vec![default_queue("a", 1, 1, 50)]));
    (0..10).for_each(|seq| link.send(1, 1500, seq));
    let late = link.wakes_at().unwrap();
    assert!(late.nanos_since(link.now) > 100_000_000);
    link.attach(priq(1_000_000_000, vec![default_queue("a", 1, 1, 50)]));
    link.run_until(link.now.after(1_000_000));
    assert!(link.sent.is_empty(), "the drainer still waits for its old timer");
    link.send(1, 1500, 10);
    assert_eq!(link.sent.len(), 11, "but the next packet takes the turn over");
    // The old timer's turn is worth nothing now.
    link.run_until(late.after(1));
    assert_eq!(link.sent.len(), 11);
}

#[test]
fn the_books_of_every_class_balance_at_every_moment() {
    let mut random = Random::new(0xb00c);
    let queues = vec![queue("a", 1, 9, 20), queue("b", 2, 4, 30), default_queue("c", 3, 0, 5)];
    let mut link = Link::new(priq(20_000_000, queues), 256);
    let mut offered = [Tally::default(); 3];
    for seq in 0..20_000 {
        let q = random.below(3) as usize;
        let bytes = 60 + random.below(1455) as u32;
        link.send(q as u16 + 1, bytes, seq);
        offered[q].packets += 1;
        offered[q].bytes += u64::from(bytes);
        link.run_until(link.now.after(random.below(600_000)));
        for (class, c) in link.stats().counters.iter().enumerate() {
            assert!(c.balanced(), "{c:?}");
            assert_eq!(c.offered, offered[class]);
        }
    }
    let held = link.stats().total().queued.packets;
    assert_eq!(link.f.audit().owned_by(Owner::Ifq), held, "what waits is marked as waiting");
    assert_eq!(link.f.audit().held(), held);
    assert_eq!((link.sent.len() + link.dropped.len()) as u64 + held, 20_000);
    link.purge();
    assert_eq!(link.stats().total().queued, Tally::default());
}

/// A thread that brings numbered packets of one flow, and drains the queue whenever it has the turn.
struct Station<'a> {
    f: &'a Fixture,
    ifq: &'a IfQueue,
    wire: &'a Wire,
    ledger: &'a Ledger,
    qid: u16,
    each: u32,
    seq: u32,
    root: Root,
    batch: Batch,
    out: Batch,
    victims: Victims,
    waiting: Option<(Instant, Turn)>,
}

/// The device: what was written, and whether two wrote at once.
struct Wire {
    frames: Leaf<Vec<(u16, u32)>>,
    writers: AtomicUsize,
    overlapped: AtomicBool,
    finished: AtomicUsize,
}

impl Wire {
    fn new() -> Wire {
        Wire {
            frames: Leaf::new(Vec::new()),
            writers: AtomicUsize::new(0),
            overlapped: AtomicBool::new(false),
            finished: AtomicUsize::new(0),
        }
    }

    fn write(&self, out: &Batch) {
        self.overlapped.fetch_or(self.writers.fetch_add(1, Ordering::SeqCst) != 0, Ordering::SeqCst);
        let frame = |m: &Mbuf| (m.hdr().queue, u32::from_be_bytes(m.data()[..4].try_into().unwrap()));
        self.frames.with(|frames| frames.extend(out.iter().map(frame)));
        self.writers.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Station<'_> {
    /// Up to 32 new packets into the queue; the turn, if it is ours now.
    fn bring(&mut self) -> Option<Turn> {
        for _ in 0..32.min(self.each - self.seq) {
            let Some(mut m) = self.f.pool.alloc(Class::Cluster, Owner::Worker) else { break };
            m.append(64).unwrap().fill(0);
            m.data_mut()[..4].copy_from_slice(&self.seq.to_be_bytes());
            m.hdr_mut().queue = self.qid;
            self.ledger.receive(&mut m);
            self.batch.push(m).unwrap();
            self.seq += 1;
        }
        self.ifq.enqueue_batch(&mut self.root.top(), &mut self.batch, Clock::Real.now(), &mut self.victims)
    }

    fn drain(&mut self, mut turn: Option<Turn>) {
        while let Some(mine) = turn.take() {
            let (out, victims, now) = (&mut self.out, &mut self.victims, Clock::Real.now());
            match self.ifq.next_burst(&mut self.root.top(), mine, now, out, victims, 64) {
                Drain::More(again) => turn = Some(again),
                Drain::Until(at, mine) => self.waiting = Some((at, mine)),
                Drain::Empty => {}
            }
            // A call without frames may have given the turn away: then the device is somebody else's.
            if !self.out.is_empty() {
                self.wire.write(&self.out);
                self.ledger.sent_all(&mut self.out);
            }
        }
    }

    /// Until all packets of all `stations` are written, or nobody writes them.
    fn run(&mut self, stations: usize) {
        let deadline = Clock::Real.now().after(120_000_000_000);
        let mut finished = false;
        while self.waiting.is_some() || self.wire.finished.load(Ordering::SeqCst) < stations {
            assert!(Clock::Real.now() < deadline, "the queue stands still");
            let brought = self.bring();
            assert!(self.victims.is_empty(), "the queues hold all there are");
            self.drain(brought);
            if let Some((at, turn)) = self.waiting.take() {
                if Clock::Real.now() < at {
                    self.waiting = Some((at, turn));
                } else {
                    self.drain(Some(turn));
                }
            }
            if self.seq == self.each && !finished {
                finished = true;
                self.wire.finished.fetch_add(1, Ordering::SeqCst);
            }
            std::thread::yield_now();
        }
    }
}

/// Numbered packets of one flow from each thread; whoever gets the turn drains. Nothing may be lost or overtake.
fn crowd(threads: u16, each: u32, rate: u64) {
    let f = Fixture::new(8192);
    let queues = (0..threads).map(|q| match q {
        0 => default_queue("q0", 1, 0, 8192),
        q => queue(&format!("q{q}"), q + 1, q as u8, 8192),
    });
    let (ifq, wire) = (IfQueue::new(priq(rate, queues.collect())), Wire::new());
    let ledgers: Vec<Ledger> = (0..threads).map(|_| Ledger::new()).collect();
    std::thread::scope(|scope| {
        for (qid, ledger) in (1..).zip(&ledgers) {
            let (f, ifq, wire) = (&f, &ifq, &wire);
            scope.spawn(move || {
                let mut magazines = f.magazines();
                let _entered = magazines.enter();
                let (root, batch, out, victims) = (Root::claim(), Batch::new(), Batch::new(), Victims::new());
                Station { f, ifq, wire, ledger, qid, each, seq: 0, root, batch, out, victims, waiting: None }
                    .run(usize::from(threads));
            });
        }
    });
    assert!(!wire.overlapped.into_inner(), "two drainers wrote at once");
    let frames = wire.frames.with(std::mem::take);
    assert_eq!(frames.len(), usize::from(threads) * each as usize);
    for qid in 1..=threads {
        let seqs: Vec<u32> = frames.iter().filter(|frame| frame.0 == qid).map(|frame| frame.1).collect();
        assert_eq!(seqs, (0..each).collect::<Vec<_>>(), "flow {qid} lost packets or order");
    }
    assert!(ledgers.iter().all(|l| l.received.get() == u64::from(each)));
    let sent: u64 = ledgers.iter().map(|l| l.sent.get()).sum();
    assert_eq!(sent, u64::from(threads) * u64::from(each));
}

#[test]
fn several_threads_and_one_drainer_lose_nothing_and_keep_each_flow_in_order() {
    let each = if std::env::var_os("SOFTNET_SOAK").is_some() { 1_000_000 } else { 60_000 };
    crowd(2, each, 100_000_000_000);
    crowd(4, each / 2, 100_000_000_000);
}

#[test]
fn several_threads_and_a_drainer_that_waits_lose_nothing_either() {
    // 64-byte frames at 400 Mb/s: the regulator makes the drainer wait all the time.
    let each = if std::env::var_os("SOFTNET_SOAK").is_some() { 400_000 } else { 20_000 };
    crowd(3, each, 400_000_000);
}

#[test]
fn a_tree_that_cannot_run_is_refused_by_name_and_by_how_much() {
    let check = |scheduler, bandwidth, queues: Vec<QueueSpec>| {
        let error = spec(scheduler, bandwidth, queues)
            .build()
            .err()
            .map(|e| (e.to_string(), e.queue().map(String::from)));
        error.map_or_else(String::new, |(text, queue)| format!("{text} [{}]", queue.unwrap_or_default()))
    };
    use SchedulerKind::{Cbq, Fairq, Fifo, Hfsc, Priq};
    let d = || default_queue("d", 1, 1, 50);
    let with = |change: &dyn Fn(&mut QueueSpec)| {
        let mut q = queue("q", 2, 2, 50);
        change(&mut q);
        vec![d(), q]
    };
    let half = |q| QueueSpec { bandwidth: Some(altq::Bandwidth::Percent(50)), ..q };
    let hfsc = |change: &dyn Fn(&mut QueueSpec)| {
        let mut q = half(queue("q", 2, 1, 50));
        change(&mut q);
        vec![half(d()), q]
    };
    let cases = [
        (check(Cbq, 1, vec![]), "altq on em0: cbq needs at least one queue []"),
        (check(Priq, 0, vec![d()]), "altq on em0: interface speed unknown, say `bandwidth` []"),
        (check(Priq, 1, vec![]), "altq on em0: priq needs at least one queue []"),
        (check(Priq, 1, vec![queue("q", 1, 1, 1)]), "em0 should have one default queue and has none []"),
        (
            check(Priq, 1, with(&|q| q.flags = altq::QueueFlags::DEFAULT)),
            "queue q: em0 should have one default queue and d is it already [q]",
        ),
        (
            check(Priq, 1, with(&|q| q.priority = Some(18))),
            "queue q: priority 18 out of range: max 15, 3 over [q]",
        ),
        (check(Priq, 1, with(&|q| q.priority = None)), "queue q: priority 1 is d's already [q]"),
        (check(Priq, 1, with(&|q| q.qlimit = Some(0))), "queue q: qlimit 0 out of range: 1 to 65536 [q]"),
        (check(Priq, 1, with(&|q| q.name = "d".into())), "queue d already exists on interface em0 [d]"),
        (check(Priq, 1, with(&|q| q.qid = 1)), "queue q: queue id 1 is not free on em0 [q]"),
        (
            check(Priq, 1_000_000, with(&|q| q.bandwidth = Some(altq::Bandwidth::Bits(1_250_000)))),
            "queue q: bandwidth 1.25Mb is 250Kb over em0's 1Mb [q]",
        ),
        (
            check(Priq, 1, with(&|q| q.bandwidth = Some(altq::Bandwidth::Percent(120)))),
            "queue q: bandwidth 120% is 20 over 100% [q]",
        ),
        (
            check(Priq, 1, with(&|q| q.parent = Some("d".into()))),
            "queue q: priq queues have no children, d cannot be its parent [q]",
        ),
        (
            check(Priq, 1, with(&|q| q.flags = altq::QueueFlags::FLOWVALVE)),
            "queue q: flowvalve is no option of priq [q]",
        ),
        (
            check(Priq, 1, with(&|q| q.flags = altq::QueueFlags::RED.with(altq::QueueFlags::CODEL))),
            "queue q: red and codel cannot both drop its packets [q]",
        ),
        (check(Priq, 1, with(&|q| q.realtime = line(1))), "queue q: realtime is no option of priq [q]"),
        (
            check(Fairq, 9, with(&|q| q.buckets = Some(100))),
            "queue q: 100 buckets are not possible: a power of two, at most 2048 [q]",
        ),
        (
            check(Fairq, 9, with(&|q| q.linkshare = curve(2, 10, 1))),
            "queue q: a linkshare of two pieces is no option of fairq [q]",
        ),
        (
            check(Cbq, 9, with(&|q| q.flags = altq::QueueFlags::FLOWVALVE.with(altq::QueueFlags::CODEL))),
            "queue q: flowvalve and codel cannot both drop its packets [q]",
        ),
        (check(Cbq, 9, with(&|q| q.parent = Some("x".into()))), "queue q: parent x not found [q]"),
        (
            check(Cbq, 9, with(&|q| q.parent = Some("d".into()))),
            "queue d is the default queue and cannot have children [d]",
        ),
        (
            check(Cbq, 9, with(&|q| q.bandwidth = Some(altq::Bandwidth::Percent(1)))),
            "queue q: bandwidth 0 would never send [q]",
        ),
        (
            check(Hfsc, 10_000_000, hfsc(&|q| q.realtime = curve(9_000_000, 10, 1_000_000))),
            "queue q: realtime curves of em0 sum to 9Mb in the first 10 ms, 1Mb over 8Mb, 80% of the interface [q]",
        ),
        (
            check(Hfsc, 10_000_000, hfsc(&|q| q.realtime = line(8_500_000))),
            "queue q: realtime curves of em0 sum to 8.50Mb, 500Kb over 8Mb, 80% of the interface [q]",
        ),
        (
            check(Hfsc, 10_000_000, hfsc(&|q| q.linkshare = line(6_000_000))),
            "queue q: linkshare curves of root_em0's queues sum to 11Mb, 1Mb over 10Mb, root_em0's linkshare [q]",
        ),
        (
            check(Hfsc, 10_000_000, hfsc(&|q| q.upperlimit = line(11_000_000))),
            "queue q: upperlimit 11Mb is 1Mb over em0's 10Mb [q]",
        ),
        (
            check(
                Hfsc,
                10_000_000,
                hfsc(&|q| (q.realtime, q.upperlimit) = (curve(4_000_000, 10, 1_000_000), line(2_000_000))),
            ),
            "queue q: realtime is 4Mb in the first 10 ms, 2Mb over 2Mb, its upperlimit [q]",
        ),
        (
            check(Hfsc, 10_000_000, hfsc(&|q| q.realtime = curve(1_000_000, 10, 2_000_000))),
            "queue q: realtime curve: m1 1Mb is 1Mb under m2 2Mb: a convex curve needs m1 0 [q]",
        ),
        (
            check(Hfsc, 10_000_000, hfsc(&|q| q.linkshare = curve(1_000_000, 10, 0))),
            "queue q: linkshare curve: m2 is 0 [q]",
        ),
        (check(Hfsc, 10_000_000, hfsc(&|q| q.realtime = curve(0, 10, 2_000_000))), ""),
        (check(Fifo, 1, with(&|_| {})), "queue q: fifo has room for 1 queues and em0 has 2, 1 too many [q]"),
        (check(Priq, 1, vec![d()]), ""),
        (check(Fifo, 1, vec![]), ""),
    ];
    for (got, expected) in cases {
        assert_eq!(got, expected);
    }
}

#[test]
fn super_frames_are_cut_where_they_would_take_a_millisecond() {
    for (rate, threshold) in
        [(100_000, 13), (8_000_000, 1000), (100_000_000, 12_500), (1_000_000_000, 125_000)]
    {
        let link = Link::new(fifo(rate, 1500, 50), 8);
        assert_eq!(link.ifq.cut_threshold(), threshold);
        let mut m = link.frame(0, 14 + 20 + 8 + 20_000, 0);
        assert!(!link.ifq.must_cut(&m), "a frame that is none is not cut");
        m.set_l4(34);
        m.set_gso(kern::Gso::Udp4, 1400);
        assert_eq!(link.ifq.must_cut(&m), rate < 160_000_000);
        link.f.done(m);
    }
}

#[test]
fn shares_that_do_not_fit_are_a_warning_in_cbq() {
    let share = |name: &str, qid, parent: Option<&str>, b| QueueSpec {
        parent: parent.map(Into::into),
        bandwidth: Some(altq::Bandwidth::Bits(b)),
        ..queue(name, qid, 1, 50)
    };
    let default = QueueSpec { flags: altq::QueueFlags::DEFAULT, ..share("c", 4, None, 3_000_000) };
    let queues = vec![
        share("a", 1, None, 8_000_000),
        share("b", 2, Some("a"), 6_000_000),
        share("d", 3, Some("a"), 4_500_000),
        default,
    ];
    let conf = spec(SchedulerKind::Cbq, 10_000_000, queues).check().unwrap();
    assert_eq!(
        conf.warnings,
        [
            "the queues of root_em0 sum to 11Mb, 1Mb over its 10Mb",
            "the queues of a sum to 10.50Mb, 2.50Mb over its 8Mb"
        ]
    );
}

#[test]
fn trees_are_shown_as_pfctl_shows_them() {
    use altq::QueueFlags as F;
    let show = |tree: altq::Tree, detail| {
        let mut link = Link::new(tree, 8);
        let mut text = String::new();
        altq::show::queues(&mut text, &link.stats(), detail, &[], 5.0).unwrap();
        text
    };
    let share = |name: &str, qid, parent: Option<&str>, percent, flags| QueueSpec {
        parent: parent.map(Into::into),
        bandwidth: Some(altq::Bandwidth::Percent(percent)),
        flags,
        ..queue(name, qid, 1, 50)
    };
    let tree = spec(
        SchedulerKind::Cbq,
        100_000_000,
        vec![
            share("std", 1, None, 45, F::BORROW.with(F::DEFAULT)),
            share("web", 2, None, 50, F::empty()),
            share("img", 3, Some("web"), 90, F::BORROW.with(F::RED)),
        ],
    );
    let root = "queue root_em0 on em0 bandwidth 100Mb priority 0 ";
    assert_eq!(
        show(tree.build().unwrap(), altq::show::Detail::default()),
        format!(
            "{root}cbq( wrr root ) {{std, web}}\n\
             queue  std on em0 bandwidth 45Mb cbq( borrow default ) \n\
             queue  web on em0 bandwidth 50Mb {{img}}\n\
             queue   img on em0 bandwidth 45Mb cbq( red borrow ) \n"
        )
    );
    let voice =
        QueueSpec { realtime: curve(1_000_000, 10, 100_000), ..share("voice", 1, None, 10, F::empty()) };
    let rest = QueueSpec { upperlimit: line(4_500_000), ..share("rest", 2, None, 90, F::DEFAULT) };
    let detail = altq::show::Detail { counters: true, ids: false };
    let counters = "  [ pkts:          0  bytes:          0  dropped pkts:      0 bytes:      0 ]\n  [ qlength:   0/ 50 ]\n";
    assert_eq!(
        show(spec(SchedulerKind::Hfsc, 10_000_000, vec![voice, rest]).build().unwrap(), detail),
        format!(
            "queue root_em0 on em0 bandwidth 10Mb priority 0 {{voice, rest}}\n{counters}\
             queue  voice on em0 bandwidth 1Mb hfsc( realtime(1Mb 10 100Kb) ) \n{counters}\
             queue  rest on em0 bandwidth 9Mb hfsc( default upperlimit 4.50Mb ) \n{counters}"
        )
    );
    let detail = altq::show::Detail { counters: true, ids: false };
    let text = show(
        spec(SchedulerKind::Cbq, 1_000_000, vec![share("a", 1, None, 50, F::DEFAULT)]).build().unwrap(),
        detail,
    );
    assert!(text.ends_with("\n  [ qlength:   0/ 50  borrows:      0  suspends:      0 ]\n"), "{text}");
}

#[test]
fn the_queues_are_shown_as_pfctl_shows_them() {
    let mut queues = vec![queue("ssh_login", 3, 14, 20), default_queue("bulk", 4, 1, 50)];
    queues[1].priority = None;
    let mut link = Link::new(priq(45_000_000, queues), 256);
    for seq in 0..70 {
        link.send(4, 1000, seq);
    }
    link.send(3, 98, 0);
    let stats = link.stats();
    let show = |detail| {
        let mut text = String::new();
        altq::show::queues(&mut text, &stats, detail, &[], 5.0).unwrap();
        text
    };
    assert_eq!(
        show(altq::show::Detail::default()),
        "queue ssh_login on em0 priority 14 qlimit 20 \nqueue bulk on em0 priq( default ) \n"
    );
    assert_eq!(
        show(altq::show::Detail { counters: true, ids: true }),
        "queue ssh_login on em0 priority 14 qlimit 20 \n  \
         [ pkts:          0  bytes:          0  dropped pkts:      0 bytes:      0 ]\n  \
         [ qlength:   1/ 20 ]\n  \
         [ qid=3 ifname=em0 ifbandwidth=45Mb ]\n\
         queue bulk on em0 priq( default ) \n  \
         [ pkts:         12  bytes:      12000  dropped pkts:      8 bytes:   8000 ]\n  \
         [ qlength:  50/ 50 ]\n  \
         [ qid=4 ifname=em0 ifbandwidth=45Mb ]\n"
    );
    link.purge();
}
