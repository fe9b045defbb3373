//! The ledger: how many packets began and ended on one worker, and why.
//!
//! Over all workers: received + created + split = sent + delivered + merged + ended (by reason) + held. A worker's
//! own line has *given* and *taken* besides, for what went to and came from other workers.

use super::{Batch, Mbuf, Owner, Why, magazine};
use crate::counter::Counter;

/// One worker's books. Written by that worker only.
#[derive(Default)]
#[repr(align(64))]
pub struct Ledger {
    /// Packets read from a device.
    pub received: Counter,
    /// Packets the router made itself.
    pub created: Counter,
    /// Packets made of a larger one, by cutting or fragmenting. The larger one ends as `merged`.
    pub split: Counter,
    /// Packets written to a device.
    pub sent: Counter,
    /// Packets taken in by the host stack.
    pub delivered: Counter,
    /// Packets that went into another: fragments into a datagram, segments into a super-frame, a super-frame into
    /// its segments.
    pub merged: Counter,
    /// Packets handed to another worker.
    pub given: Counter,
    /// Packets taken from another worker.
    pub taken: Counter,
    ended: Ends,
}

struct Ends([Counter; Why::COUNT]);

impl Default for Ends {
    fn default() -> Self {
        Ends([const { Counter::new() }; Why::COUNT])
    }
}

/// A ledger's numbers at one moment, or the sum of several.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Balance {
    /// See [`Ledger::received`].
    pub received: u64,
    /// See [`Ledger::created`].
    pub created: u64,
    /// See [`Ledger::split`].
    pub split: u64,
    /// See [`Ledger::sent`].
    pub sent: u64,
    /// See [`Ledger::delivered`].
    pub delivered: u64,
    /// See [`Ledger::merged`].
    pub merged: u64,
    /// See [`Ledger::given`].
    pub given: u64,
    /// See [`Ledger::taken`].
    pub taken: u64,
    /// Ended packets by reason, in the order of [`Why::ALL`].
    pub ended: Vec<u64>,
}

impl Balance {
    /// Adds another's numbers.
    pub fn add(&mut self, other: &Balance) {
        self.received += other.received;
        self.created += other.created;
        self.split += other.split;
        self.sent += other.sent;
        self.delivered += other.delivered;
        self.merged += other.merged;
        self.given += other.given;
        self.taken += other.taken;
        self.ended.resize(Why::COUNT, 0);
        for (mine, theirs) in self.ended.iter_mut().zip(&other.ended) {
            *mine += theirs;
        }
    }

    /// Packets that began.
    pub fn begun(&self) -> u64 {
        self.received + self.created + self.split
    }

    /// Packets that ended, in whatever way.
    pub fn finished(&self) -> u64 {
        self.sent + self.delivered + self.merged + self.ended.iter().sum::<u64>()
    }

    /// Packets that must still be somewhere.
    pub fn held(&self) -> i128 {
        i128::from(self.begun()) - i128::from(self.finished())
    }

    /// How many ended for this reason.
    pub fn why(&self, why: Why) -> u64 {
        self.ended.get(why as usize).copied().unwrap_or(0)
    }
}

impl Ledger {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// A blank buffer holds a packet read from a device.
    #[inline(always)]
    pub fn receive(&self, m: &mut Mbuf) {
        self.received.inc();
        begin(m);
    }

    /// Blank buffers hold packets read from a device.
    #[inline]
    pub fn receive_all(&self, packets: &mut [Mbuf]) {
        self.received.add(packets.len() as u64);
        packets.iter_mut().for_each(begin);
    }

    /// A packet arrived on a device and no buffer could be had for it: it begins and ends at once.
    #[inline]
    pub fn turn_away(&self, why: Why) {
        self.received.inc();
        self.ended.0[why as usize].inc();
    }

    /// A blank buffer holds a packet the router made.
    #[inline(always)]
    pub fn create(&self, m: &mut Mbuf) {
        self.created.inc();
        begin(m);
    }

    /// A blank buffer holds a piece of a larger packet.
    #[inline(always)]
    pub fn split(&self, m: &mut Mbuf) {
        self.split.inc();
        begin(m);
    }

    /// Pieces of a larger packet could not be made: each begins and ends at once.
    #[inline]
    pub fn split_away(&self, pieces: u64, why: Why) {
        self.split.add(pieces);
        self.ended.0[why as usize].add(pieces);
    }

    /// The packet ends, for a reason.
    #[inline(always)]
    pub fn end(&self, m: Mbuf, why: Why) {
        self.ended.0[why as usize].inc();
        finish(m);
    }

    /// The packet was written to a device.
    #[inline(always)]
    pub fn sent(&self, m: Mbuf) {
        self.sent.inc();
        finish(m);
    }

    /// The packet was taken in by the host stack.
    #[inline(always)]
    pub fn deliver(&self, m: Mbuf) {
        self.delivered.inc();
        finish(m);
    }

    /// The packet lives on in another.
    #[inline(always)]
    pub fn merge(&self, m: Mbuf) {
        self.merged.inc();
        finish(m);
    }

    /// All packets of a batch end for one reason.
    #[inline]
    pub fn end_all(&self, batch: &mut Batch, why: Why) {
        self.ended.0[why as usize].add(batch.len() as u64);
        finish_all(batch);
    }

    /// All packets of a batch were written to a device.
    #[inline]
    pub fn sent_all(&self, batch: &mut Batch) {
        self.sent.add(batch.len() as u64);
        finish_all(batch);
    }

    /// How many ended for this reason.
    pub fn why(&self, why: Why) -> u64 {
        self.ended.0[why as usize].get()
    }

    /// The numbers at this moment.
    pub fn balance(&self) -> Balance {
        Balance {
            received: self.received.get(),
            created: self.created.get(),
            split: self.split.get(),
            sent: self.sent.get(),
            delivered: self.delivered.get(),
            merged: self.merged.get(),
            given: self.given.get(),
            taken: self.taken.get(),
            ended: self.ended.0.iter().map(Counter::get).collect(),
        }
    }
}

#[inline(always)]
fn begin(m: &mut Mbuf) {
    debug_assert!(!m.is_packet(), "a packet began twice");
    m.hdr_mut().live = true;
    m.set_owner(Owner::Worker);
}

#[inline(always)]
fn finish(mut m: Mbuf) {
    debug_assert!(m.is_packet(), "a blank buffer cannot end as a packet");
    m.hdr_mut().live = false;
}

#[inline(always)]
fn finish_all(batch: &mut Batch) {
    magazine::give_back_all(batch, |m| {
        debug_assert!(m.is_packet(), "a blank buffer cannot end as a packet");
        m.release();
    });
}
