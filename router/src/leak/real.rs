//! Real freight: clusters of the pool through pf's rules, ESP in two halves, and ALTQ.
//!
//! Each packet is a run of its own between the halves of ESP, as in 2013. Transport mode uses the tunnel's transform; what
//! differs, and matters here, is the path behind it.

use super::{
    freight::{End, Freight},
    tunnel::{Tunnel, number_of},
    world::{Kind, TX_RING},
};
use altq::{Drain, Framing, IfQueue, QueueFlags, QueueSpec, SchedulerKind, TreeSpec, Turn, Victims};
use ipsec::{
    esp::{Releasing, input, output},
    order::{Leave, Worker},
    sa::Sa,
};
use kern::{
    Batch, Class, Ledger, Magazines, Mbuf, Owner, Pool, Why,
    lock::{Leaf, Root, levels},
    time::{Clock, Instant},
};
use pf::{Direction, Environment, IfIndex, Names, Pf, PfCx, Ruleset, Verdict};
use std::sync::Arc;
use wire::IpProto;

/// pf's rules in every cell: some to look at, none that keeps state.
const RULES: &str = "block drop in quick proto tcp from any to any port 23\n\
                     block drop in quick proto udp from any to any port 161\n\
                     pass no state\n";
/// Bytes of an inner packet.
const INNER: usize = 200;

/// A run between the halves.
pub enum Job {
    /// Sealed, to leave in its turn.
    Out(Arc<Sa>, output::Pending<Arc<Sa>, Box<Batch>>),
    /// Opened, to be looked at in its turn.
    In(Arc<Sa>, input::Opened<Arc<Sa>, Box<Batch>>),
}

/// What a virtual CPU keeps.
pub struct Hand {
    root: Root,
    ledger: Ledger,
    pf: pf::Worker,
    out_owed: Releasing,
    in_owed: Releasing,
    worker: Worker,
    now: Instant,
    turns: u32,
    number: u32,
}

/// Clusters, pf, ESP, ALTQ.
pub struct Real {
    pool: Pool,
    pf: Pf,
    rules: Ruleset,
    tunnel: Tunnel,
    queue: IfQueue,
    turn: Leaf<Option<Turn>, levels::Log>,
    template: Vec<u8>,
    v6: bool,
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
    pub fn new(pool: Pool, vcpus: u32, v6: bool) -> Result<Real, SetupError> {
        let pf = Pf::new(vcpus as usize, 16);
        let conf = pf::conf::load_text("leak", RULES, &Environment::default(), &[])
            .map_err(|faults| SetupError::of(format!("{faults:?}")))?;
        let rules = pf
            .compile(&Arc::new(conf), &Environment::default(), &mut Names::default())
            .map_err(SetupError::of)?;
        Ok(Real {
            tunnel: Tunnel::new(vcpus as usize, v6)?,
            queue: IfQueue::new(tree()?),
            turn: Leaf::new(None),
            template: template(v6),
            pool,
            pf,
            rules,
            v6,
        })
    }

    /// Puts a packet's first bytes down.
    fn inner(&self, m: &mut Mbuf, number: u32) -> Option<()> {
        let room = m.append(INNER).ok()?;
        room.copy_from_slice(&self.template);
        let at = INNER - 4;
        room[at..].copy_from_slice(&number.to_be_bytes());
        let h = m.hdr_mut();
        h.family = if self.v6 { 6 } else { 4 };
        h.proto = IpProto::UDP.0;
        Some(())
    }

    /// A packet as the peer sends it: sealed, with the outer header in front.
    fn sealed(&self, hand: &mut Hand, m: Mbuf) -> Option<Mbuf> {
        let Hand { root, ledger, worker, now, .. } = hand;
        let peer = self.tunnel.peer(number_of(&m));
        let mut run = Box::new(Batch::new());
        if let Err(m) = run.push(m) {
            ledger.end(m, Why::PendingFull);
            return None;
        }
        let mut top = root.top();
        match output::begin(&**peer, run, *now, &mut top, |m, why| ledger.end(m, why)) {
            Ok(pending) => {
                let (mut run, leave) =
                    output::finish(pending, *worker, &mut top, |m, why| ledger.end(m, why));
                if leave == Leave::Taken {
                    let mut owed = Releasing::default();
                    owed.note_output(peer);
                    owed.written_output(*worker, &mut run, &mut top);
                }
                run.pop()
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

/// A UDP packet that pf passes.
fn template(v6: bool) -> Vec<u8> {
    let mut packet = vec![0; INNER];
    let l4 = if v6 {
        packet[0] = 0x60;
        packet[4..6].copy_from_slice(&((INNER - 40) as u16).to_be_bytes());
        packet[6..8].copy_from_slice(&[IpProto::UDP.0, 64]);
        packet[8..10].copy_from_slice(&[0x20, 0x01]);
        packet[23] = 1;
        packet[24..26].copy_from_slice(&[0x20, 0x01]);
        packet[39] = 2;
        40
    } else {
        packet[0] = 0x45;
        packet[2..4].copy_from_slice(&(INNER as u16).to_be_bytes());
        packet[8..10].copy_from_slice(&[64, IpProto::UDP.0]);
        packet[12..16].copy_from_slice(&[192, 0, 2, 10]);
        packet[16..20].copy_from_slice(&[198, 51, 100, 10]);
        let sum = !wire::checksum::fold(wire::checksum::sum(&packet[..20]));
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
        20
    };
    packet[l4..l4 + 4].copy_from_slice(&[0x12, 0x34, 0x15, 0xb3]);
    packet[l4 + 4..l4 + 6].copy_from_slice(&((INNER - l4) as u16).to_be_bytes());
    packet
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
            out_owed: Releasing::default(),
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
        self.inner(&mut m, hand.number)?;
        hand.ledger.receive(&mut m);
        if kind == Kind::Esp { self.sealed(hand, m) } else { Some(m) }
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
        let sa = if out { self.tunnel.out(number_of(&m)) } else { self.tunnel.inbound(&m) };
        let (sa, own) = (Arc::clone(sa), Arc::clone(sa));
        let mut run = Box::new(Batch::new());
        if let Err(m) = run.push(m) {
            ledger.end(m, Why::PendingFull);
            return None;
        }
        let mut top = root.top();
        let begun = if out {
            output::begin(sa, run, *now, &mut top, |m, why| ledger.end(m, why))
                .map(|pending| Job::Out(own, pending))
        } else {
            input::begin(sa, run, *now, &mut top, |m, why| ledger.end(m, why))
                .map(|pending| Job::In(own, pending.open(&mut top, |m, why| ledger.end(m, why))))
        };
        begun.map_err(|mut declined| ledger.end_all(&mut declined.run, Why::HandOverFull)).ok()
    }

    fn finish(&self, hand: &mut Hand, job: Job, _out: bool, done: &mut Vec<Mbuf>) {
        let Hand { root, ledger, worker, out_owed, in_owed, .. } = hand;
        let mut top = root.top();
        let (mut run, parked) = match job {
            Job::Out(sa, pending) => {
                let (run, leave) = output::finish(pending, *worker, &mut top, |m, why| ledger.end(m, why));
                if leave == Leave::Taken {
                    out_owed.note_output(&sa);
                }
                (run, leave == Leave::Parked)
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
        let Hand { root, ledger, worker, out_owed, in_owed, now, .. } = hand;
        if if out { out_owed.is_empty() } else { in_owed.is_empty() } {
            return false;
        }
        let mut top = root.top();
        let mut more = Batch::new();
        let owed = if out {
            out_owed.written_output(*worker, &mut more, &mut top)
        } else {
            in_owed.written_input(*worker, *now, &mut more, &mut top, |m, why| ledger.end(m, why))
        };
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
