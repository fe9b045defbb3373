//! Where rules live as long as anything refers to them.
//!
//! A ruleset is replaced on reload, its rules may have states that live on. So a rule's counters and what its states
//! need of it (timeouts, maximum, number) stand in a slot of this slab, and a ruleset and a state hold the slot, never
//! each other. A slot is free again when its ruleset and its last state are gone: memory is bounded by the rules of the
//! present ruleset and the states there are, however often it is reloaded.
//!
//! ```text
//!   RuleSlab ─ chunk ─ slots[256]     references, states, options      shared, written when states come and go
//!                    └ worker 0 [256] packets, bytes                   one writer each
//!                    └ worker 1 [256]
//! ```
//!
//! The slab grows by chunks and never moves one. Slots are handed out by the control thread alone.

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicU32, AtomicU64, Ordering},
};

use kern::{counter::Counter, lock::Leaf};

use crate::{
    meter::Meter,
    route::{HopId, NextHop, NextHops},
    rule::{Keep, Overload, Rate},
    timeout::Timeout,
    track::Limits,
    treatment::Treatments,
};

const CHUNK: usize = 256;
const CHUNKS: usize = 4096;

/// A slot of the slab: a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RuleSlot(pub(crate) u32);

impl RuleSlot {
    /// No rule: a packet passed because no rule matched.
    pub const NONE: RuleSlot = RuleSlot(u32::MAX);
}

/// All rules that anything refers to.
#[derive(Debug)]
pub struct RuleSlab {
    chunks: Box<[OnceLock<Chunk>]>,
    free: Leaf<Free>,
    workers: usize,
    /// States that a rule's maximum has refused.
    refused: AtomicU64,
    /// What the rules have chosen beyond their own life.
    pub(crate) hops: NextHops,
    pub(crate) treatments: Treatments,
}

#[derive(Debug, Default)]
struct Free {
    slots: Vec<u32>,
    chunks: usize,
}

#[derive(Debug)]
struct Chunk {
    slots: Box<[Slot]>,
    counts: Box<[Box<[RuleCounts]>]>,
}

/// What a slot is told of its rule.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Described<'a> {
    /// Its number in its list.
    pub(crate) number: u32,
    /// The path of its anchor; empty for the main ruleset.
    pub(crate) path: &'a str,
    /// What it says of states.
    pub(crate) keep: Option<&'a Keep>,
    /// `max-pkt-rate`.
    pub(crate) rate: Option<Rate>,
    /// `ridentifier`; 0 is none.
    pub(crate) identifier: u32,
    /// `label`.
    pub(crate) labels: &'a [String],
}

/// What a rule's states need of it.
#[derive(Debug)]
pub(crate) struct Slot {
    /// One for each ruleset it is in and one for each state.
    references: AtomicU32,
    states: AtomicU32,
    number: AtomicU32,
    identifier: AtomicU32,
    max: AtomicU32,
    /// Source nodes of the rule.
    nodes: AtomicU32,
    /// What it allows a source: nodes, states, connections, rate.
    sources: [AtomicU32; 5],
    /// The rule's anchor; none for the main ruleset.
    anchor: Leaf<Option<Arc<str>>>,
    /// The rule's anchor, and where sources go that overload it.
    overload: Leaf<Option<(String, Overload)>>,
    /// The rule's labels.
    labels: Leaf<Box<[String]>>,
    /// Seconds, 0 for the global value.
    timeouts: [AtomicU32; Timeout::COUNT],
    /// How many packets there may be; made for the first rule here that asks.
    meter: OnceLock<Box<Meter>>,
    /// What had been counted when the counters were last cleared: workers own them, so nobody else sets them to 0.
    cleared: Leaf<RuleTotals>,
}

/// What one worker counts of a rule. Index 0 is in, 1 is out.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct RuleCounts {
    /// Packets on the wire that the rule, or a state of it, decided.
    pub packets: [Counter; 2],
    /// Their IP octets.
    pub bytes: [Counter; 2],
    /// States made.
    pub states: Counter,
}

impl RuleCounts {
    #[inline(always)]
    pub(crate) fn count(&self, direction: usize, packets: u32, bytes: u32) {
        if let (Some(p), Some(b)) = (self.packets.get(direction), self.bytes.get(direction)) {
            p.add(u64::from(packets));
            b.add(u64::from(bytes));
        }
    }
}

/// The sums over all workers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RuleTotals {
    /// Packets, in and out.
    pub packets: [u64; 2],
    /// IP octets, in and out.
    pub bytes: [u64; 2],
    /// States made so far.
    pub states_made: u64,
    /// States now.
    pub states: u32,
}

/// No slot is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("more than {} rules are in use", CHUNK * CHUNKS)]
pub struct TooManyRules;

impl RuleSlab {
    /// An empty slab for this many workers.
    pub fn new(workers: usize) -> RuleSlab {
        RuleSlab {
            chunks: (0..CHUNKS).map(|_| OnceLock::new()).collect(),
            free: Leaf::new(Free::default()),
            workers: workers.max(1),
            refused: AtomicU64::new(0),
            hops: NextHops::new(),
            treatments: Treatments::new(),
        }
    }

    /// A next hop that a rule has chosen.
    #[inline]
    pub fn next_hop(&self, id: HopId) -> Option<&NextHop> {
        self.hops.get(id.0)
    }

    /// Takes a slot for a rule; its counters are at 0.
    pub(crate) fn take(&self, rule: &Described<'_>) -> Result<RuleSlot, TooManyRules> {
        let slot = RuleSlot(self.free.with(|free| self.take_index(free))?);
        if let Some(s) = self.slot(slot) {
            s.references.store(1, Ordering::Relaxed);
            s.states.store(0, Ordering::Relaxed);
            s.cleared.with(|cleared| *cleared = RuleTotals::default());
            s.describe(rule);
        }
        Ok(slot)
    }

    /// The slot that a rule has had before, or one for it.
    pub(crate) fn share_or_take(
        &self,
        before: Option<RuleSlot>,
        rule: &Described<'_>,
    ) -> Result<RuleSlot, TooManyRules> {
        before.map_or_else(|| self.take(rule), |slot| Ok(self.share(slot)))
    }

    /// A rule has another number now.
    pub(crate) fn renumber(&self, slot: RuleSlot, number: u32) {
        if let Some(s) = self.slot(slot) {
            s.number.store(number, Ordering::Relaxed);
        }
    }

    /// Takes a further reference to the slot of a rule that stays as it is.
    pub(crate) fn share(&self, slot: RuleSlot) -> RuleSlot {
        if let Some(s) = self.slot(slot) {
            s.references.fetch_add(1, Ordering::Relaxed);
        }
        slot
    }

    fn take_index(&self, free: &mut Free) -> Result<u32, TooManyRules> {
        if free.slots.is_empty() {
            let chunk = self.chunks.get(free.chunks).ok_or(TooManyRules)?;
            chunk.get_or_init(|| Chunk::new(self.workers));
            let first = (free.chunks * CHUNK) as u32;
            free.slots.extend((first..first + CHUNK as u32).rev());
            free.chunks += 1;
            // Workers give slots back: that must never allocate.
            let all = free.chunks * CHUNK;
            free.slots.reserve(all);
        }
        let index = free.slots.pop().ok_or(TooManyRules)?;
        if let Some(chunk) = self.chunks[index as usize / CHUNK].get() {
            for worker in &chunk.counts {
                worker[index as usize % CHUNK].reset();
            }
        }
        Ok(index)
    }

    /// One of something for each worker.
    pub(crate) fn per_worker<T>(&self, make: impl Fn() -> T) -> Box<[T]> {
        (0..self.workers).map(|_| make()).collect()
    }

    #[inline(always)]
    pub(crate) fn slot(&self, slot: RuleSlot) -> Option<&Slot> {
        self.chunks.get(slot.0 as usize / CHUNK)?.get()?.slots.get(slot.0 as usize % CHUNK)
    }

    /// What a worker counts of a rule.
    #[inline(always)]
    pub(crate) fn counts(&self, worker: usize, slot: RuleSlot) -> Option<&RuleCounts> {
        let chunk = self.chunks.get(slot.0 as usize / CHUNK)?.get()?;
        chunk.counts.get(worker)?.get(slot.0 as usize % CHUNK)
    }

    /// A state of the rule comes to be, unless the rule has its maximum already.
    pub(crate) fn state_made(&self, slot: RuleSlot) -> bool {
        let Some(s) = self.slot(slot) else { return true };
        let max = s.max.load(Ordering::Relaxed);
        if max != 0 && s.states.load(Ordering::Relaxed) >= max {
            self.refused.fetch_add(1, Ordering::Relaxed);
            return false;
        }
        s.states.fetch_add(1, Ordering::Relaxed);
        s.references.fetch_add(1, Ordering::Relaxed);
        true
    }

    /// How many states rules have refused because they had their maximum.
    pub(crate) fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// A state of the rule is gone.
    pub(crate) fn state_gone(&self, slot: RuleSlot) {
        if let Some(s) = self.slot(slot) {
            s.states.fetch_sub(1, Ordering::Relaxed);
        }
        self.release(slot);
    }

    /// A source node of the rule comes to be, unless the rule has its maximum already.
    pub(crate) fn node_made(&self, slot: RuleSlot, max: u32) -> bool {
        let Some(s) = self.slot(slot) else { return true };
        if max != 0 && s.nodes.load(Ordering::Relaxed) >= max {
            return false;
        }
        s.nodes.fetch_add(1, Ordering::Relaxed);
        s.references.fetch_add(1, Ordering::Relaxed);
        true
    }

    /// A source node of the rule is gone.
    pub(crate) fn node_gone(&self, slot: RuleSlot) {
        if let Some(s) = self.slot(slot) {
            s.nodes.fetch_sub(1, Ordering::Relaxed);
        }
        self.release(slot);
    }

    /// The path of the rule's anchor; none for the main ruleset.
    pub(crate) fn anchor(&self, slot: RuleSlot) -> Option<Arc<str>> {
        self.slot(slot)?.anchor.with(|anchor| anchor.clone())
    }

    /// The rule's anchor, and where sources go that overload it; for the control thread.
    pub(crate) fn overload(&self, slot: RuleSlot) -> Option<(String, Overload)> {
        self.slot(slot)?.overload.with(|overload| overload.clone())
    }

    /// Whether the rule has this label, in the present ruleset or in the one that it was in.
    pub fn is_labelled(&self, slot: RuleSlot, label: &str) -> bool {
        self.slot(slot).is_some_and(|s| s.labels.with(|labels| labels.iter().any(|l| l == label)))
    }

    /// The ruleset, or a state, lets go.
    pub(crate) fn release(&self, slot: RuleSlot) {
        let Some(s) = self.slot(slot) else { return };
        // Release and acquire: whoever takes the slot anew comes after everything that was done with it.
        if s.references.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.free.with(|free| free.slots.push(slot.0));
        }
    }

    /// The sums over all workers of a rule's counters, since they were cleared.
    pub fn totals(&self, slot: RuleSlot) -> RuleTotals {
        let mut totals = self.counted(slot);
        let cleared = self.slot(slot).map_or_else(RuleTotals::default, |s| s.cleared.with(|c| *c));
        for direction in 0..2 {
            totals.packets[direction] -= cleared.packets[direction];
            totals.bytes[direction] -= cleared.bytes[direction];
        }
        totals.states_made -= cleared.states_made;
        totals
    }

    /// Lets a rule's counters begin at 0.
    pub(crate) fn clear(&self, slot: RuleSlot) {
        let counted = self.counted(slot);
        if let Some(s) = self.slot(slot) {
            s.cleared.with(|cleared| *cleared = counted);
        }
    }

    /// The sums over all workers since the slot was taken.
    fn counted(&self, slot: RuleSlot) -> RuleTotals {
        let mut totals = RuleTotals::default();
        for worker in 0..self.workers {
            let Some(counts) = self.counts(worker, slot) else { continue };
            for direction in 0..2 {
                totals.packets[direction] += counts.packets[direction].get();
                totals.bytes[direction] += counts.bytes[direction].get();
            }
            totals.states_made += counts.states.get();
        }
        totals.states = self.slot(slot).map_or(0, |s| s.states.load(Ordering::Relaxed));
        totals
    }

    /// How many slots are in use.
    pub fn in_use(&self) -> usize {
        self.free.with(|free| free.chunks * CHUNK - free.slots.len())
    }
}

impl Chunk {
    fn new(workers: usize) -> Chunk {
        Chunk {
            slots: (0..CHUNK).map(|_| Slot::new()).collect(),
            counts: (0..workers).map(|_| (0..CHUNK).map(|_| RuleCounts::default()).collect()).collect(),
        }
    }
}

impl RuleCounts {
    /// Back to 0. The slot is free, so no worker writes it now.
    fn reset(&self) {
        for counter in self.packets.iter().chain(&self.bytes).chain([&self.states]) {
            counter.add(counter.get().wrapping_neg());
        }
    }
}

impl Slot {
    fn new() -> Slot {
        Slot {
            references: AtomicU32::new(0),
            states: AtomicU32::new(0),
            number: AtomicU32::new(0),
            identifier: AtomicU32::new(0),
            max: AtomicU32::new(0),
            nodes: AtomicU32::new(0),
            sources: std::array::from_fn(|_| AtomicU32::new(0)),
            anchor: Leaf::new(None),
            overload: Leaf::new(None),
            labels: Leaf::new(Box::default()),
            timeouts: std::array::from_fn(|_| AtomicU32::new(0)),
            meter: OnceLock::new(),
            cleared: Leaf::new(RuleTotals::default()),
        }
    }

    /// What the rule allows a source.
    pub(crate) fn source_limits(&self) -> Limits {
        let [nodes, states, connections, n, seconds] = &self.sources;
        let get = |a: &AtomicU32| a.load(Ordering::Relaxed);
        Limits {
            nodes: get(nodes),
            states: get(states),
            connections: get(connections),
            rate: (get(n), get(seconds)),
        }
    }

    fn describe(&self, rule: &Described<'_>) {
        let &Described { number, path, keep, rate, identifier, labels } = rule;
        self.number.store(number, Ordering::Relaxed);
        self.identifier.store(identifier, Ordering::Relaxed);
        if rate.is_some() || self.meter.get().is_some() {
            self.meter.get_or_init(Box::default).set(rate);
        }
        self.max.store(keep.map_or(0, |k| k.max), Ordering::Relaxed);
        let limits = keep.map_or_else(Limits::default, Limits::of);
        let (n, seconds) = limits.rate;
        let values = [limits.nodes, limits.states, limits.connections, n, seconds];
        for (place, value) in self.sources.iter().zip(values) {
            place.store(value, Ordering::Relaxed);
        }
        let overload = keep.and_then(|k| k.overload.clone()).map(|overload| (path.to_owned(), overload));
        self.overload.with(|place| *place = overload);
        self.anchor.with(|place| *place = (!path.is_empty()).then(|| path.into()));
        self.labels.with(|place| *place = labels.into());
        for timeout in &self.timeouts {
            timeout.store(0, Ordering::Relaxed);
        }
        for &(timeout, seconds) in keep.map_or(&[][..], |k| &k.timeouts) {
            self.timeouts[timeout as usize].store(seconds, Ordering::Relaxed);
        }
    }

    /// Seconds of a timeout, if the rule has its own.
    pub(crate) fn timeout(&self, index: usize) -> Option<u32> {
        self.timeouts.get(index).map(|t| t.load(Ordering::Relaxed)).filter(|&t| t != 0)
    }

    /// The rule's own adaptive pair and the number of its states.
    pub(crate) fn adaptive(&self) -> Option<(u32, u32, u32)> {
        let end = self.timeout(Timeout::AdaptiveEnd as usize)?;
        let start = self.timeout(Timeout::AdaptiveStart as usize).unwrap_or(0);
        Some((start, end, self.states.load(Ordering::Relaxed)))
    }

    /// The rule's number in its ruleset.
    pub(crate) fn number(&self) -> u32 {
        self.number.load(Ordering::Relaxed)
    }

    /// What the rule says `ridentifier`; 0 is nothing.
    pub(crate) fn identifier(&self) -> u32 {
        self.identifier.load(Ordering::Relaxed)
    }

    /// Whether the rate of the rule has room for a packet at `now`, in nanoseconds of the clock; then it is counted.
    #[cold]
    pub(crate) fn meters(&self, now: u64, packets: u32) -> bool {
        self.meter.get().is_none_or(|meter| meter.take(now, packets))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_reused_only_when_ruleset_and_states_are_gone() {
        let slab = RuleSlab::new(2);
        let slot = slab.take(&Described { number: 3, ..Described::default() }).unwrap();
        slab.counts(1, slot).unwrap().count(0, 2, 120);
        assert!(slab.state_made(slot) && slab.state_made(slot));
        assert_eq!((slab.totals(slot).states, slab.totals(slot).packets), (2, [2, 0]));
        slab.release(slot);
        slab.state_gone(slot);
        assert_eq!(slab.in_use(), 1);
        slab.state_gone(slot);
        assert_eq!(slab.in_use(), 0);
        let again = slab.take(&Described::default()).unwrap();
        assert_eq!((again, slab.totals(again)), (slot, RuleTotals::default()));
    }

    #[test]
    fn a_thousand_reloads_take_no_more_slots_than_one() {
        let slab = RuleSlab::new(1);
        for _ in 0..1000 {
            let rule = |number| Described { number, ..Described::default() };
            let slots: Vec<_> = (0..300).map(|n| slab.take(&rule(n)).unwrap()).collect();
            for slot in slots {
                slab.release(slot);
            }
        }
        assert_eq!(slab.free.with(|f| f.chunks), 2);
    }

    #[test]
    fn a_rule_with_a_maximum_makes_no_more_states() {
        let slab = RuleSlab::new(1);
        let keep = Keep { max: 1, ..Keep::default() };
        let slot = slab.take(&Described { keep: Some(&keep), ..Described::default() }).unwrap();
        assert!(slab.state_made(slot));
        assert!(!slab.state_made(slot));
        slab.state_gone(slot);
        assert!(slab.state_made(slot));
    }
}
