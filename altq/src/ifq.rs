//! The interface queue: one lock, one tree, one drainer at a time.
//!
//! ```text
//!            enqueue_batch: nothing waited before          next_burst: packets came
//!   Idle ───────────────────────────────────────▶ Busy ◀──────────────────────────┐
//!    ▲                                            │  │ └──────────────────────────┘
//!    │ next_burst: nothing waits                  │  │ next_burst: not before t
//!    └────────────────────────────────────────────┘  ▼
//!            enqueue_batch: ready before t        Waiting(t)
//!   Busy ◀───────────────────────────────────────────┘
//! ```
//!
//! Whoever finds the queue idle gets the [`Turn`] and drains it: it asks for a burst, writes it to the device, and
//! asks again. Whoever finds it taken enqueues and leaves. A burst with packets in it never ends the turn, because
//! they are not written yet, and a second drainer would overtake them; only the look after the write ends it, under
//! the same lock under which packets come, so none is forgotten.
//!
//! A drainer told to wait keeps the turn and owns the timer. If meanwhile a packet comes that may go before that time,
//! or the time is past and the drainer is late, whoever brings it takes the turn over and the old one becomes worthless:
//! its owner learns so at its next call. Nobody is woken for it.
//!
//! Packets refused or dropped are collected in [`Victims`] and ended by the caller after the lock. Not here: the
//! timer, the device, and cutting (router).

use crate::{
    charge::Charge,
    conf::{Tree, TreeConf},
    discipline::{ClassId, Discipline, Entry, Victims},
    queue::{Counters, Tally},
};
use kern::{
    Batch, Gso, Mbuf, Why,
    lock::{
        Held, Mutex,
        levels::{Before, Ifq},
    },
    time::Instant,
};
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

/// A super-frame that takes this part of a second (1 ms) or more at the interface's rate is cut.
const CUT_PER_SECOND: u64 = 1_000;

/// The right to drain one interface queue. There is one at a time; keep it with the timer.
#[must_use = "who has the turn drains the queue, or nobody does"]
#[derive(Debug)]
pub struct Turn {
    number: u64,
}

/// What a drainer does next.
#[must_use = "the turn is inside"]
#[derive(Debug)]
pub enum Drain {
    /// Write what is in the batch, end the victims, and ask again.
    More(Turn),
    /// Nothing may leave before this instant: set the timer, ask again then.
    Until(Instant, Turn),
    /// Nothing waits, or somebody else drains by now: done.
    Empty,
}

enum Serving {
    Idle,
    Busy,
    Waiting(Instant),
}

struct Inner {
    tree: Tree,
    serving: Serving,
    /// The number of the turn that is valid, if one is.
    turn: u64,
}

/// An interface's output queue.
pub struct IfQueue {
    inner: Mutex<Ifq, Inner>,
    /// Bytes from which on a super-frame is cut. A copy: it is read without the lock.
    cut: AtomicU64,
}

/// An interface queue at one moment.
#[derive(Clone, Debug)]
pub struct IfqStats {
    /// The configuration.
    pub conf: Arc<TreeConf>,
    /// By class, in the order of the configuration.
    pub counters: Vec<Counters>,
}

impl IfqStats {
    /// Over all classes, but for the delays.
    pub fn total(&self) -> Counters {
        self.counters.iter().fold(Counters::default(), |sum, c| Counters {
            offered: sum.offered + c.offered,
            sent: sum.sent + c.sent,
            dropped: sum.dropped + c.dropped,
            queued: sum.queued + c.queued,
            marked: sum.marked + c.marked,
            borrows: sum.borrows + c.borrows,
            suspends: sum.suspends + c.suspends,
            ..sum
        })
    }
}

impl Inner {
    #[inline]
    fn enqueue(&mut self, m: Mbuf, now: Instant, victims: &mut Victims) {
        let class = self.tree.class_of(m.hdr().queue);
        if let Err(refused) = self.tree.engine.enqueue(Entry::new(m, &self.tree.framing, now), class, now) {
            victims.push(refused);
        }
    }

    /// When the next packet may leave.
    fn ready_at(&self, now: Instant) -> Option<Instant> {
        Some(self.tree.engine.ready_at(now)?.max(self.tree.regulator.ready_at(now)))
    }

    /// The turn, if nobody has it or its owner would come too late.
    fn claim(&mut self, now: Instant) -> Option<Turn> {
        let free = match self.serving {
            Serving::Idle => self.tree.engine.ready_at(now).is_some(),
            Serving::Busy => false,
            Serving::Waiting(until) => self.ready_at(now).is_some_and(|at| at <= now || at < until),
        };
        if !free {
            return None;
        }
        self.serving = Serving::Busy;
        self.turn += 1;
        Some(Turn { number: self.turn })
    }

    fn burst(&mut self, now: Instant, out: &mut Batch, victims: &mut Victims, budget: usize) -> usize {
        let limit = budget.min(out.room());
        let mut n = 0;
        while n < limit && !victims.is_full() && self.tree.regulator.may_send(now) {
            let Some(Entry { m, cost, .. }) = self.tree.engine.dequeue(now, victims) else { break };
            self.tree.regulator.charge(cost);
            // There is room: `limit` is at most that.
            match out.push(m) {
                Ok(()) => n += 1,
                Err(m) => victims.push((m, Why::QueuePurge)),
            }
        }
        n
    }

    /// Puts another tree in place; waiting packets move over, by the name of their class.
    fn replace(&mut self, mut tree: Tree, now: Instant, misfits: &mut Victims) -> Tree {
        tree.regulator.take_over(&self.tree.regulator, now);
        let mut old = std::mem::replace(&mut self.tree, tree);
        let places: Vec<Option<ClassId>> =
            old.conf.classes.iter().map(|c| self.tree.class_named(&c.name)).collect();
        old.engine.purge(&mut |class, mut entry| {
            entry.cost = self.tree.framing.cost(&entry.m, entry.charge);
            let place = places.get(usize::from(class.0)).copied().flatten();
            let class = place.unwrap_or(self.tree.default_class());
            if let Err((m, why)) = self.tree.engine.enqueue(entry, class, now) {
                misfits.push((m, if place.is_some() { why } else { Why::QueuePurge }));
            }
        });
        old
    }
}

impl IfQueue {
    /// An empty queue.
    pub fn new(tree: Tree) -> IfQueue {
        let cut = AtomicU64::new(cut_threshold(&tree));
        IfQueue { inner: Mutex::new(Inner { tree, serving: Serving::Idle, turn: 0 }), cut }
    }

    /// Bytes on the wire from which on a super-frame must be cut before it is enqueued: those that take 1 ms.
    #[inline]
    pub fn cut_threshold(&self) -> u64 {
        self.cut.load(Ordering::Relaxed)
    }

    /// Whether this frame is a super-frame that must be cut before it is enqueued.
    #[inline]
    pub fn must_cut(&self, m: &Mbuf) -> bool {
        m.hdr().gso != Gso::None && u64::from(Charge::of(m).bytes) >= self.cut_threshold()
    }

    /// Takes a batch of frames in, first to last, and says whether the caller now drains the queue.
    ///
    /// The batch is empty afterwards. `victims`, empty before, holds what was refused.
    pub fn enqueue_batch(
        &self,
        held: &mut Held<'_, impl Before<Ifq>>,
        batch: &mut Batch,
        now: Instant,
        victims: &mut Victims,
    ) -> Option<Turn> {
        let (mut ifq, _held) = held.lock(&self.inner);
        for m in batch.drain() {
            ifq.enqueue(m, now, victims);
        }
        ifq.claim(now)
    }

    /// Adds up to `budget` frames that may leave now to `out`, and says what the drainer does next.
    ///
    /// `victims`, empty before, holds what the discipline dropped on the way.
    pub fn next_burst(
        &self,
        held: &mut Held<'_, impl Before<Ifq>>,
        turn: Turn,
        now: Instant,
        out: &mut Batch,
        victims: &mut Victims,
        budget: usize,
    ) -> Drain {
        let (mut ifq, _held) = held.lock(&self.inner);
        if turn.number != ifq.turn {
            return Drain::Empty;
        }
        ifq.serving = Serving::Busy;
        if ifq.burst(now, out, victims, budget) > 0 {
            return Drain::More(turn);
        }
        match ifq.ready_at(now) {
            None => {
                ifq.serving = Serving::Idle;
                Drain::Empty
            }
            Some(at) if at > now => {
                ifq.serving = Serving::Waiting(at);
                Drain::Until(at, turn)
            }
            Some(_) => Drain::More(turn),
        }
    }

    /// Replaces the discipline. Waiting packets move over to the class of the same name, or to the default class if
    /// there is none; what does not fit is left in `misfits`. Who drains the queue goes on draining it.
    ///
    /// A drainer that waits does so for as long as the old tree told it, unless the next packet is ready sooner.
    pub fn attach(
        &self,
        held: &mut Held<'_, impl Before<Ifq>>,
        tree: Tree,
        now: Instant,
        misfits: &mut Victims,
    ) {
        let cut = cut_threshold(&tree);
        let old = {
            let (mut ifq, _held) = held.lock(&self.inner);
            ifq.replace(tree, now, misfits)
        };
        self.cut.store(cut, Ordering::Relaxed);
        drop(old);
    }

    /// Takes all packets out, because the interface goes: they end as [`Why::QueuePurge`].
    pub fn purge(&self, held: &mut Held<'_, impl Before<Ifq>>, victims: &mut Victims) {
        let (mut ifq, _held) = held.lock(&self.inner);
        ifq.tree.engine.purge(&mut |_, entry| victims.push((entry.m, Why::QueuePurge)));
    }

    /// What every class has counted, at one moment.
    pub fn stats(&self, held: &mut Held<'_, impl Before<Ifq>>) -> IfqStats {
        let (ifq, _held) = held.lock(&self.inner);
        let conf = ifq.tree.conf.clone();
        let counters = (0..conf.classes.len()).map(|c| ifq.tree.engine.counters(ClassId(c as u16))).collect();
        IfqStats { conf, counters }
    }

    /// Packets and bytes that wait.
    pub fn queued(&self, held: &mut Held<'_, impl Before<Ifq>>) -> Tally {
        self.stats(held).total().queued
    }
}

fn cut_threshold(tree: &Tree) -> u64 {
    tree.conf.bandwidth.div_ceil(8 * CUT_PER_SECOND)
}
