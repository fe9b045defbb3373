//! A class's packets, first in first out, and what is counted about them (`class_queue_t` of ALTQ).
//!
//! The ring is as large as the limit from the start, so that waiting costs no allocation. The limit counts wire
//! packets: a queue takes whatever comes while fewer than the limit wait, so a super-frame may overshoot it once.

use crate::{
    charge::Charge,
    discipline::{Entry, Refused},
};
use kern::{Owner, Why};
use std::{collections::VecDeque, ops};

/// Packets and bytes, added up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Wire packets.
    pub packets: u64,
    /// Frame bytes.
    pub bytes: u64,
}

impl ops::AddAssign<Charge> for Tally {
    #[inline(always)]
    fn add_assign(&mut self, charge: Charge) {
        self.packets += u64::from(charge.packets);
        self.bytes += u64::from(charge.bytes);
    }
}

impl ops::SubAssign<Charge> for Tally {
    #[inline(always)]
    fn sub_assign(&mut self, charge: Charge) {
        self.packets -= u64::from(charge.packets);
        self.bytes -= u64::from(charge.bytes);
    }
}

impl ops::Add for Tally {
    type Output = Tally;
    fn add(self, other: Tally) -> Tally {
        Tally { packets: self.packets + other.packets, bytes: self.bytes + other.bytes }
    }
}

/// What a class has counted. Always: offered = sent + dropped + queued, in packets and in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Came to the queue.
    pub offered: Tally,
    /// Left it for the device.
    pub sent: Tally,
    /// Were dropped, on arrival or later.
    pub dropped: Tally,
    /// Wait now; the packets are pfctl's `qlength`.
    pub queued: Tally,
}

impl Counters {
    /// Whether the books of this class balance.
    pub fn balanced(&self) -> bool {
        self.offered == self.sent + self.dropped + self.queued
    }
}

/// One class's queue.
pub struct ClassQueue {
    ring: VecDeque<Entry>,
    limit: u32,
    counters: Counters,
}

impl ClassQueue {
    /// An empty queue for `limit` wire packets.
    pub fn new(limit: u32) -> ClassQueue {
        ClassQueue { ring: VecDeque::with_capacity(limit as usize), limit, counters: Counters::default() }
    }

    /// Puts a packet at the end, or gives it back because the queue is full.
    #[inline]
    pub fn push(&mut self, entry: Entry) -> Result<(), Refused> {
        self.counters.offered += entry.charge;
        if self.counters.queued.packets >= u64::from(self.limit) {
            self.counters.dropped += entry.charge;
            return Err((entry.m, Why::QueueFull));
        }
        self.counters.queued += entry.charge;
        entry.m.set_owner(Owner::Ifq);
        self.ring.push_back(entry);
        Ok(())
    }

    /// Takes the first packet, to be sent.
    #[inline]
    pub fn pop(&mut self) -> Option<Entry> {
        let entry = self.take()?;
        self.counters.sent += entry.charge;
        Some(entry)
    }

    /// Takes the first packet, to be dropped.
    #[inline]
    pub fn drop_head(&mut self) -> Option<Entry> {
        let entry = self.take()?;
        self.counters.dropped += entry.charge;
        Some(entry)
    }

    #[inline]
    fn take(&mut self) -> Option<Entry> {
        let entry = self.ring.pop_front()?;
        self.counters.queued -= entry.charge;
        entry.m.set_owner(Owner::Worker);
        Some(entry)
    }

    /// Whether nothing waits.
    #[inline(always)]
    pub fn is_empty(&self) -> bool {
        self.ring.is_empty()
    }

    /// Wire packets that may wait.
    pub fn limit(&self) -> u32 {
        self.limit
    }

    /// The counters now.
    pub fn counters(&self) -> Counters {
        self.counters
    }
}
