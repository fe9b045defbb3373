//! Real freight: clusters of the pool through pf's rules, an SA in two halves, and ALTQ.
//!
//! Each packet is a run of its own between the halves, as in 2013. Transport mode uses the tunnel's transform; what
//! differs, and matters here, is the path behind it. Which half has the work hangs on the transform: IPComp's out and ESP's
//! and AH's in are done by the first, the others by the second.

use super::{
    freight::{End, Freight},
    packets::{Packets, number_of},
    tunnel::Tunnel,
    world::{Kind, TX_RING},
};
use altq::{Drain, Framing, IfQueue, QueueFlags, QueueSpec, SchedulerKind, TreeSpec, Turn, Victims};
use ipsec::{
    esp::{Releasing, input, output},
    order::{Leave, Worker},
    sa::{Protocol, Sa},
};
use kern::{
    Batch, Class, Ledger, Magazines, Mbuf, Owner, Pool, Why,
    lock::{Leaf, Root, levels},
    time::{Clock, Instant},
};
use pf::{Direction, Environment, IfIndex, Names, Pf, PfCx, Ruleset, Verdict};
use std::sync::Arc;

/// pf's rules in every cell: some to look at, none that keeps state.
const RULES: &str = "block drop in quick proto tcp from any to any port 23\n\
                     block drop in quick proto udp from any to any port 161\n\
                     pass no state\n";

/// A run between the halves.
pub enum Job {
    /// Sealed, to leave in its turn.
    Out(output::Pending<Arc<Sa>, Box<Batch>>),
    /// Opened, to be looked at in its turn.
    In(Arc<Sa>, input::Opened<Arc<Sa>, Box<Batch>>),
}

/// What a virtual CPU keeps.
pub struct Hand {
    root: Root,
    ledger: Ledger,
    pf: pf::Worker,
    in_owed: Releasing,
    worker: Worker,
    now: Instant,
    turns: u32,
    number: u32,
}

/// Clusters, pf, SAs, ALTQ.
pub struct Real {
    pool: Pool,
    pf: Pf,
    rules: Ruleset,
    tunnel: Tunnel,
    queue: IfQueue,
    turn: Leaf<Option<Turn>, levels::Log>,
    packets: Packets,
}

/// The laboratory could not be set up.
#[derive(Debug, thiserror::Error)]
#[error("the laboratory cannot be set up: {0}")]
pub struct SetupError(String);

impl SetupError {
    pub(super) fn of(error: impl std::fmt::Display) -> SetupError {
        SetupError(error.to_string())
    }
}

impl Real {
    /// Everything for one cell of `vcpus` virtual CPUs, with buffers of `pool`.
    pub fn new(pool: Pool, vcpus: u32, v6: bool, transform: Protocol) -> Result<Real, SetupError> {
        let pf = Pf::new(vcpus as usize, 16);
        let conf = pf::conf::load_text("leak", RULES, &Environment::default(), &[])
            .map_err(|faults| SetupError::of(format!("{faults:?}")))?;
        let rules = pf
            .compile(&Arc::new(conf), &Environment::default(), &mut Names::default())
            .map_err(SetupError::of)?;
        Ok(Real {
            tunnel: Tunnel::new(vcpus as usize, v6, transform)?,
            queue: IfQueue::new(tree()?),
            turn: Leaf::new(None),
            packets: Packets::new(v6, transform),
            pool,
            pf,
            rules,
        })
    }

    /// A packet as the peer sends it: what its SA makes of it, with the outer header in front.
    fn protected(&self, hand: &mut Hand, m: Mbuf) -> Option<Mbuf> {
        let Hand { root, ledger, now, .. } = hand;
        let peer = self.tunnel.peer(number_of(&m));
        let mut run = Box::new(Batch::new());
        if let Err(m) = run.push(m) {
            ledger.end(m, Why::PendingFull);
            return None;
        }
        let mut top = root.top();
        match output::begin(&**peer, run, *now, &mut top) {
            Ok(pending) => {
                // The peer is one, whoever plays it here: it has an SA for one worker.
                let mut owed = Releasing::default();
                output::finish(pending, &mut owed, &mut top, |m, why| ledger.end(m, why)).pop()
            }
            Err(mut declined) => {
                ledger.end_all(&mut declined.run, Why::EspSequence);
                None
            }
        }
    }
}

/// PRIQ with two classes, at a rate that is never the limit.
fn tree() -> Result<altq::Tree, SetupError> {
    let class = |name: &str, qid, priority, flags| QueueSpec {
        name: name.into(),
        qid,
        priority: Some(priority),
        qlimit: Some(256),
        flags,
        ..QueueSpec::default()
    };
    let spec = TreeSpec {
        interface: "wm0".into(),
        mtu: 1500,
        scheduler: SchedulerKind::Priq,
        bandwidth: Some(100_000_000_000),
        qlimit: None,
        tbrsize: None,
        flags: QueueFlags::empty(),
        codel: (None, None),
        framing: Framing { overhead: 0, mpu: 0, atm: false },
        root_qid: 3,
        queues: vec![class("q_std", 1, 1, QueueFlags::DEFAULT), class("q_pri", 2, 5, QueueFlags::empty())],
    };
    spec.build().map_err(SetupError::of)
}

impl Freight for Real {
    type Packet = Mbuf;
    type Job = Job;
    type Hand = Hand;
    const DISCIPLINE: bool = true;

    fn with_hand(&self, cpu: u32, body: &mut dyn FnMut(&mut Hand)) {
        let mut magazines = Magazines::new(&self.pool);
        let _entered = magazines.enter();
        let mut hand = Hand {
            root: Root::claim(),
            ledger: Ledger::new(),
            pf: self.pf.worker(cpu as usize),
            in_owed: Releasing::default(),
            worker: Worker(cpu as u16),
            now: Clock::Real.now(),
            turns: 0,
            number: 0,
        };
        body(&mut hand);
    }

    fn receive(&self, hand: &mut Hand, kind: Kind) -> Option<Mbuf> {
        let mut m = self.pool.alloc(Class::Cluster, Owner::Rx)?;
        hand.number = hand.number.wrapping_add(1);
        self.packets.write(&mut m, hand.number, kind)?;
        hand.ledger.receive(&mut m);
        if matches!(kind, Kind::Protected | Kind::Plain) { self.protected(hand, m) } else { Some(m) }
    }

    fn filter(&self, hand: &mut Hand, m: &mut Mbuf, out: bool) -> bool {
        // One look at the clock for many packets.
        hand.turns = hand.turns.wrapping_add(1);
        if hand.turns.is_multiple_of(64) {
            hand.now = Clock::Real.now();
        }
        let direction = if out { Direction::Out } else { Direction::In };
        let mut top = hand.root.top();
        let held = top.at::<levels::PfRules>();
        let mut cx = PfCx::new(&self.pf, &self.rules, &mut hand.pf, held, hand.now);
        matches!(cx.test(direction, IfIndex(1), m), Verdict::Pass(_))
    }

    fn begin(&self, hand: &mut Hand, m: Mbuf, out: bool) -> Option<Job> {
        m.set_owner(Owner::Crypto);
        let Hand { root, ledger, now, .. } = hand;
        let sa = if out { self.tunnel.out(&m) } else { self.tunnel.inbound(&m) };
        let sa = Arc::clone(sa);
        let mut run = Box::new(Batch::new());
        if let Err(m) = run.push(m) {
            ledger.end(m, Why::PendingFull);
            return None;
        }
        let mut top = root.top();
        let begun = if out {
            output::begin(sa, run, *now, &mut top).map(Job::Out)
        } else {
            let own = Arc::clone(&sa);
            input::begin(sa, run, *now, &mut top, |m, why| ledger.end(m, why))
                .map(|pending| Job::In(own, pending.open(&mut top, |m, why| ledger.end(m, why))))
        };
        begun.map_err(|mut declined| ledger.end_all(&mut declined.run, Why::HandOverFull)).ok()
    }

    fn finish(&self, hand: &mut Hand, job: Job, _out: bool, done: &mut Vec<Mbuf>) {
        let Hand { root, ledger, worker, in_owed, .. } = hand;
        let mut top = root.top();
        let (mut run, parked) = match job {
            Job::Out(pending) => {
                // One worker sends by this SA: nothing is owed.
                let mut owed = Releasing::default();
                (output::finish(pending, &mut owed, &mut top, |m, why| ledger.end(m, why)), false)
            }
            Job::In(sa, opened) => {
                let (run, leave) = input::finish(opened, *worker, &mut top, |m, why| ledger.end(m, why));
                if leave == Leave::Taken {
                    in_owed.note_input(&sa);
                }
                (run, leave == Leave::Parked)
            }
        };
        debug_assert!(!parked || run.is_empty(), "a parked run is in the SA's hands");
        done.extend(run.drain());
    }

    fn owed(&self, hand: &mut Hand, out: bool, done: &mut Vec<Mbuf>) -> bool {
        let Hand { root, ledger, worker, in_owed, now, .. } = hand;
        // Out, nothing waits for its turn.
        if out || in_owed.is_empty() {
            return false;
        }
        let mut top = root.top();
        let mut more = Batch::new();
        let owed = in_owed.written_input(*worker, *now, &mut more, &mut top, |m, why| ledger.end(m, why));
        done.extend(more.drain());
        owed || !done.is_empty()
    }

    fn enqueue(&self, hand: &mut Hand, m: Mbuf) -> u64 {
        let Hand { root, ledger, now, .. } = hand;
        let (mut batch, mut victims) = (Batch::new(), Victims::new());
        m.set_owner(Owner::Ifq);
        if let Err(m) = batch.push(m) {
            ledger.end(m, Why::PendingFull);
        }
        if let Some(turn) = self.queue.enqueue_batch(&mut root.top(), &mut batch, *now, &mut victims) {
            self.turn.with(|slot| *slot = Some(turn));
        }
        let refused = victims.len() as u64;
        victims.drain().for_each(|(m, why)| ledger.end(m, why));
        refused
    }

    fn dequeue(&self, hand: &mut Hand, room: usize, done: &mut Vec<Mbuf>) {
        let Some(mut turn) = self.turn.with(Option::take) else { return };
        let Hand { root, ledger, now, .. } = hand;
        let (mut out, mut victims) = (Batch::new(), Victims::new());
        loop {
            let left = room.min(TX_RING) - out.len();
            let answer = self.queue.next_burst(&mut root.top(), turn, *now, &mut out, &mut victims, left);
            victims.drain().for_each(|(m, why)| ledger.end(m, why));
            match answer {
                Drain::More(again) if out.len() < room.min(TX_RING) => turn = again,
                Drain::More(again) | Drain::Until(_, again) => {
                    // Whoever took the turn over meanwhile has put a newer one here.
                    self.turn.with(|slot| {
                        let _ = slot.get_or_insert(again);
                    });
                    break;
                }
                Drain::Empty => break,
            }
        }
        done.extend(out.drain());
    }

    fn waits(&self) -> bool {
        self.turn.with(|slot| slot.is_some())
    }

    fn sent(&self, hand: &mut Hand, m: Mbuf) {
        hand.ledger.sent(m);
    }

    fn end(&self, hand: &mut Hand, m: Mbuf, how: End) {
        match how {
            End::Delivered => hand.ledger.deliver(m),
            End::Full => hand.ledger.end(m, Why::QueueFull),
            End::Dropped => hand.ledger.end(m, Why::PfBlock),
            End::Swept => hand.ledger.end(m, Why::Sink),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kern::mbuf::PoolConfig;
    use wire::IpProto;

    /// Both halves in one go; what comes out.
    fn through(real: &Real, hand: &mut Hand, m: Mbuf, out: bool) -> Mbuf {
        let (job, mut done) = (real.begin(hand, m, out).unwrap(), Vec::new());
        real.finish(hand, job, out, &mut done);
        while real.owed(hand, out, &mut done) {}
        assert_eq!(done.len(), 1);
        done.pop().unwrap()
    }

    /// What packets of this kind are on the wire, over `count` of them, and that they come back: the protocols seen.
    fn protocols(real: &Real, hand: &mut Hand, kind: Kind, count: u32) -> Vec<u8> {
        let out = matches!(kind, Kind::Policy | Kind::Short);
        let mut seen = Vec::new();
        for _ in 0..count {
            let m = real.receive(hand, kind).unwrap();
            let m = if out {
                let m = through(real, hand, m, true);
                seen.push(m.hdr().proto);
                m
            } else {
                seen.push(m.hdr().proto);
                let m = through(real, hand, m, false);
                let len = if kind == Kind::Plain { 800 } else { 200 };
                assert_eq!((m.len(), number_of(&m)), (len, hand.number), "the inner packet");
                m
            };
            real.end(hand, m, End::Delivered);
        }
        seen.sort_unstable();
        seen.dedup();
        seen
    }

    #[test]
    fn what_ipcomp_leaves_alone_does_not_wait_for_a_callback() {
        let pool = Pool::new(PoolConfig { clusters: 512, jumbos: 2 }).unwrap();
        let real = Real::new(pool.clone(), 1, false, Protocol::Ipcomp).unwrap();
        real.with_hand(0, &mut |hand| {
            for (kind, alone, out) in
                [(Kind::Policy, Kind::Short, true), (Kind::Protected, Kind::Plain, false)]
            {
                // Nearly every SA has something between its halves.
                let begin = |_| {
                    let m = real.receive(hand, kind).unwrap();
                    real.begin(hand, m, out).unwrap()
                };
                let late: Vec<Job> = (0..300).map(begin).collect();
                for _ in 0..20 {
                    let m = real.receive(hand, alone).unwrap();
                    let m = through(&real, hand, m, out);
                    real.end(hand, m, End::Delivered);
                }
                let mut done = Vec::new();
                for job in late {
                    real.finish(hand, job, out, &mut done);
                }
                assert_eq!(done.len(), 300);
                for m in done {
                    real.end(hand, m, End::Delivered);
                }
            }
        });
        assert!(pool.audit().balanced() && pool.audit().held() == 0, "{:?}", pool.audit());
    }

    #[test]
    fn each_transform_carries_real_packets_and_ipcomp_leaves_what_does_not_shrink() {
        for v6 in [false, true] {
            let plain = if v6 { IpProto::IPV6.0 } else { IpProto::IPV4.0 };
            for (transform, ours, peers) in [
                (Protocol::Esp, vec![50], vec![50]),
                (Protocol::Ah, vec![51], vec![51]),
                // Of ours half are noise.
                (Protocol::Ipcomp, vec![plain, 108], vec![108]),
            ] {
                let pool = Pool::new(PoolConfig { clusters: 64, jumbos: 2 }).unwrap();
                let real = Real::new(pool.clone(), 1, v6, transform).unwrap();
                real.with_hand(0, &mut |hand| {
                    assert_eq!(protocols(&real, hand, Kind::Policy, 40), ours, "{transform:?}");
                    assert_eq!(protocols(&real, hand, Kind::Protected, 40), peers, "{transform:?}");
                    if transform == Protocol::Ipcomp {
                        assert_eq!(protocols(&real, hand, Kind::Plain, 40), [plain]);
                        assert_eq!(protocols(&real, hand, Kind::Short, 40), [plain]);
                    }
                });
                assert!(pool.audit().balanced() && pool.audit().held() == 0, "{:?}", pool.audit());
            }
        }
    }
}
