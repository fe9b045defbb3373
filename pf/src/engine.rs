//! pf at work: a packet, its interface and its direction in, a verdict out.
//!
//! [`Pf`] is what lives as long as the process. A [`Ruleset`] is made from it on the control thread and published in
//! the router's snapshot. A worker brings both together in a [`PfCx`], for one batch at one instant, together with the
//! proof that it holds no lock that comes after pf's.
//!
//! A batch is decided in passes over a few packets at a time: read them and ask for the rows of the state table, ask for
//! the states, then decide on each.

use kern::{
    Batch, Gso, Mbuf, PktFlags, Why,
    lock::{Held, levels::PfRules},
    mbuf::BATCH,
    time::Instant,
};

use crate::{
    IfIndex,
    counters::PfCounters,
    eval::evaluate,
    packet::Packet,
    pf::{Pf, Worker},
    rule::{Action, Direction},
    ruleset::{Compiled, Constant, Ruleset},
    slab::RuleSlot,
    state::{Hit, Lookup, Passing, Tracked},
    table::{Counted, Fate},
    verdict::{Answer, Passed, Refused, Reset, Verdict, refuse},
};

/// Which interface the packets of a batch are at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    /// All at one.
    One(IfIndex),
    /// Each at its `rcvif`.
    Rcvif,
    /// Each at its `egress`.
    Egress,
}

impl Via {
    #[inline(always)]
    fn of(self, m: &Mbuf) -> IfIndex {
        match self {
            Via::One(index) => index,
            Via::Rcvif => IfIndex(m.hdr().rcvif),
            Via::Egress => IfIndex(m.hdr().egress),
        }
    }
}

/// Packets that are read ahead in one go.
pub(crate) const AHEAD: usize = 32;

/// A packet that has been read, and what to look for in the state table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    p: Packet,
    lookup: Lookup,
    /// It cannot be right.
    refused: Option<Why>,
}

impl Seen {
    pub(crate) const NOTHING: Seen = Seen { p: Packet::EMPTY, lookup: Lookup::NOTHING, refused: None };
}

/// pf for one batch at one instant.
#[derive(Debug)]
pub struct PfCx<'a> {
    pf: &'a Pf,
    rules: &'a Ruleset,
    worker: &'a mut Worker,
    held: Held<'a, PfRules>,
    now: Instant,
}

impl<'a> PfCx<'a> {
    /// Brings everything together. `held` shows that nothing after [`PfRules`] is held: `held.at::<PfRules>()`.
    pub fn new(
        pf: &'a Pf,
        rules: &'a Ruleset,
        worker: &'a mut Worker,
        held: Held<'a, PfRules>,
        now: Instant,
    ) -> PfCx<'a> {
        PfCx { pf, rules, worker, held, now }
    }

    /// Tests one packet. Its data begin at the IP header; `hdr.family` and `hdr.proto` are set.
    ///
    /// A packet that passes may have got a tag, a queue and a state hint.
    #[inline]
    pub fn test(&mut self, direction: Direction, index: IfIndex, m: &mut Mbuf) -> Verdict {
        if self.pass_unseen(direction, index, m) {
            return Verdict::pass();
        }
        self.normalise(direction, index, m);
        let mut seen = Seen::NOTHING;
        self.look(direction, m, &mut seen);
        self.decide(direction, index, m, &seen)
    }

    /// Tests the packets of a batch. Those that pass stay, in order; the others go to `refused`, in order.
    pub fn test_batch(
        &mut self,
        direction: Direction,
        via: Via,
        batch: &mut Batch,
        mut refused: impl FnMut(Mbuf, Refused),
    ) -> Passed {
        if let Via::One(index) = via
            && self.pass_all_unseen(direction, index, batch)
        {
            return Passed::proof();
        }
        let mut refusals = [None; BATCH];
        let mut any = false;
        let mut at = 0;
        let unseen = !self.rules.looks(direction) && self.pf.states.count() == 0;
        // Out of the worker for the time being, and back in below: nothing in between returns.
        let mut ahead = std::mem::take(&mut self.worker.ahead);
        for chunk in batch.as_mut_slice().chunks_mut(AHEAD) {
            if !self.rules.scrub.is_empty() {
                for m in chunk.iter_mut() {
                    self.normalise(direction, via.of(m), m);
                }
            }
            if !unseen {
                self.look_ahead(direction, chunk, &mut ahead);
            }
            for (m, seen) in chunk.iter_mut().zip(&mut ahead) {
                let index = via.of(m);
                let refusal = if self.pass_unseen(direction, index, m) {
                    None
                } else {
                    if unseen {
                        self.look(direction, m, seen);
                    }
                    Refused::of(&self.decide(direction, index, m, seen))
                };
                any |= refusal.is_some();
                refusals[at] = refusal;
                at += 1;
            }
        }
        self.worker.ahead = ahead;
        if any {
            let mut refusals = refusals.into_iter();
            batch.sift(|m| match refusals.next().flatten() {
                None => Some(m),
                Some(refusal) => {
                    refused(m, refusal);
                    None
                }
            });
        }
        Passed::proof()
    }

    /// Removes some of the states that have expired. To be called every few milliseconds; `budget` slots are looked at
    /// at most. Returns how many states were removed.
    pub fn purge(&mut self, budget: u32) -> u32 {
        let removed = self.pf.states.purge(&mut self.held, &mut self.worker.slots, self.now, budget);
        if let Some(counters) = self.counters() {
            counters.removals.add(u64::from(removed));
        }
        removed
    }

    /// What scrub rules do to a packet.
    #[inline(always)]
    fn normalise(&mut self, direction: Direction, index: IfIndex, m: &mut Mbuf) {
        let rules = self.rules;
        if !rules.scrub.is_empty()
            && rules.constant(direction, index) == Constant::Look
            && !m.hdr().flags.has(PktFlags::NO_PF)
        {
            rules.scrub.normalise(direction, index, m, &mut self.worker.ids);
        }
    }

    /// Reads a packet, and says what to look for in the state table.
    #[inline(always)]
    fn look(&self, direction: Direction, m: &Mbuf, seen: &mut Seen) {
        let read = seen.p.fill(m);
        let read = read.and_then(|()| self.pf.states.lookup(direction, &seen.p, m.data(), &mut seen.lookup));
        seen.refused = read.err();
    }

    /// Reads packets and asks for the memory that deciding on them will need: first the rows, then the states.
    #[inline(always)]
    fn look_ahead(&self, direction: Direction, chunk: &[Mbuf], ahead: &mut [Seen]) {
        let states = &self.pf.states;
        let any = states.count() != 0;
        for (m, seen) in chunk.iter().zip(ahead.iter_mut()) {
            self.look(direction, m, seen);
            if any {
                states.prefetch_row(&seen.lookup);
            }
        }
        if !any {
            return;
        }
        for (_, seen) in chunk.iter().zip(ahead.iter()) {
            states.prefetch_state(&seen.lookup);
        }
    }

    /// Passes a packet that need not be looked at, and counts it.
    #[inline(always)]
    fn pass_unseen(&self, direction: Direction, index: IfIndex, m: &Mbuf) -> bool {
        match self.rules.constant(direction, index) {
            Constant::Skip => true,
            Constant::Look => m.hdr().flags.has(PktFlags::NO_PF),
            Constant::Pass { rule, allow_opts } => {
                if m.hdr().flags.has(PktFlags::NO_PF) {
                    return true;
                }
                let has_options = m.hdr().flags.has(PktFlags::OPTIONS);
                if (has_options && !allow_opts) || self.pf.states.count() != 0 {
                    return false;
                }
                let (packets, bytes) = weight(m);
                self.count_unseen(direction, rule, 1, packets, bytes);
                true
            }
        }
    }

    /// The same for a whole batch; `false` if some packet has to be looked at, and then none is counted.
    #[inline(always)]
    fn pass_all_unseen(&self, direction: Direction, index: IfIndex, batch: &Batch) -> bool {
        let (rule, allow_opts) = match self.rules.constant(direction, index) {
            Constant::Skip => return true,
            Constant::Look => return false,
            // States come before rules, those of an earlier ruleset too.
            Constant::Pass { .. } if self.pf.states.count() != 0 => return false,
            Constant::Pass { rule, allow_opts } => (rule, allow_opts),
        };
        let odd = if allow_opts { PktFlags::NO_PF } else { PktFlags::NO_PF.with(PktFlags::OPTIONS) };
        let (mut packets, mut bytes) = (0, 0);
        for m in batch {
            if m.hdr().flags.any(odd) {
                return false;
            }
            let (p, b) = weight(m);
            packets += p;
            bytes += b;
        }
        self.count_unseen(direction, rule, batch.len() as u64, packets, bytes);
        true
    }

    #[inline(always)]
    fn count_unseen(&self, direction: Direction, rule: Option<u32>, times: u64, packets: u32, bytes: u32) {
        let Some(rule) = rule.map(|r| r as usize) else { return };
        if let Some(evaluations) = self.rules.evaluations_of(self.worker.id).get(rule) {
            evaluations.add(times);
        }
        if let Some(rule) = self.rules.rules.get(rule) {
            self.count(rule.slot, direction, packets, bytes);
        }
    }

    #[inline(always)]
    fn count(&self, slot: RuleSlot, direction: Direction, packets: u32, bytes: u32) {
        if let Some(counts) = self.pf.slab.counts(self.worker.id, slot) {
            counts.count(direction.index(), packets, bytes);
        }
    }

    #[inline(always)]
    fn counters(&self) -> Option<&'a PfCounters> {
        self.pf.counters.get(self.worker.id)
    }

    /// A state decides, or the rules.
    #[inline(always)]
    fn decide(&mut self, direction: Direction, index: IfIndex, m: &mut Mbuf, seen: &Seen) -> Verdict {
        if let Some(why) = seen.refused {
            return self.block(why);
        }
        if seen.lookup.is_something()
            && let Some(verdict) = self.by_state(direction, index, m, seen)
        {
            return verdict;
        }
        self.by_rules(direction, index, m, seen)
    }

    #[inline(always)]
    fn by_state(
        &mut self,
        direction: Direction,
        index: IfIndex,
        m: &mut Mbuf,
        seen: &Seen,
    ) -> Option<Verdict> {
        let Seen { p, lookup, .. } = seen;
        let states = &self.pf.states;
        if states.count() == 0 {
            return None;
        }
        if let Some(counters) = self.counters() {
            counters.searches.inc();
        }
        let passing = Passing { direction, index, p, data: m.data(), now: self.now.secs() as u32 };
        let mut hit = Hit::NONE;
        match states.track(&mut self.held, &mut self.worker.slots, lookup, &passing, &mut hit) {
            Tracked::None => None,
            Tracked::Hit | Tracked::Changed => Some(self.pass_by_state(direction, m, p, &hit)),
            Tracked::Ended => {
                if let Some(counters) = self.counters() {
                    counters.removals.inc();
                }
                None
            }
            Tracked::Mismatch => Some(self.block(Why::PfStateMismatch)),
            Tracked::Reset => {
                self.note(Why::PfStateMismatch);
                Some(Verdict::Return(
                    Answer::Reset(Reset { ttl: 0, acknowledge: false }),
                    Why::PfStateMismatch,
                ))
            }
        }
    }

    #[inline(always)]
    fn pass_by_state(&mut self, direction: Direction, m: &mut Mbuf, p: &Packet, hit: &Hit) -> Verdict {
        self.count(hit.rule, direction, p.segments, p.bytes);
        if p.options && !hit.allow_opts {
            return self.block(Why::PfOptions);
        }
        remember(m, hit);
        if hit.tag != 0 {
            m.hdr_mut().tag = hit.tag;
        }
        choose_queue(m, p, hit.queue, hit.low_delay_queue);
        Verdict::pass()
    }

    fn by_rules(&mut self, direction: Direction, index: IfIndex, m: &mut Mbuf, seen: &Seen) -> Verdict {
        let p = &seen.p;
        let rules = self.rules;
        let outcome = evaluate(&rules.rules, rules.evaluations_of(self.worker.id), direction, index, p);
        if let Some(counters) = self.counters() {
            counters.matched.inc();
        }
        let Some(rule) = outcome.rule.and_then(|i| rules.rules.get(i)) else {
            return if p.options { self.block(Why::PfOptions) } else { Verdict::pass() };
        };
        self.count(rule.slot, direction, p.segments, p.bytes);
        self.count_tables(direction, rule, p);
        match rule.action {
            Action::Block(reply) => refuse(reply, p),
            Action::Pass if p.options && !rule.allow_opts => self.block(Why::PfOptions),
            // Only pass and block rules are compiled yet: `conf` refuses the others.
            _ => {
                if rule.keep.is_some()
                    && seen.lookup.opens_state(p)
                    && let Err(verdict) = self.keep_state(direction, index, m, seen, rule, outcome.tag)
                {
                    return verdict;
                }
                mark(m, p, outcome.tag, rule);
                Verdict::pass()
            }
        }
    }

    /// Counts a packet in the tables of the rule that decides on it.
    #[inline]
    fn count_tables(&self, direction: Direction, rule: &Compiled, p: &Packet) {
        let counted = Counted {
            direction,
            family: p.family,
            fate: if rule.action == Action::Pass { Fate::Pass } else { Fate::Block },
            not: false,
            packets: p.segments,
            bytes: p.bytes,
        };
        rule.src.count(self.worker.id, p.src, &counted);
        rule.dst.count(self.worker.id, p.dst, &counted);
    }

    /// Makes the state of a packet that `rule` passes. If another worker has made it meanwhile, that one decides.
    #[cold]
    fn keep_state(
        &mut self,
        direction: Direction,
        index: IfIndex,
        m: &mut Mbuf,
        seen: &Seen,
        rule: &Compiled,
        tag: u16,
    ) -> Result<(), Verdict> {
        let (p, data, now) = (&seen.p, m.data(), self.now.secs() as u32);
        let passing = Passing { direction, index, p, data, now };
        let slots = &mut self.worker.slots;
        let made = self.pf.states.insert(&mut self.held, slots, &seen.lookup, &passing, rule, tag);
        match made {
            Ok(Some(hit)) => {
                remember(m, &hit);
                if let Some(counters) = self.counters() {
                    counters.inserts.inc();
                }
                if let Some(counts) = self.pf.slab.counts(self.worker.id, rule.slot) {
                    counts.states.inc();
                }
                Ok(())
            }
            Ok(None) => match self.by_state(direction, index, m, seen) {
                Some(verdict) => Err(verdict),
                None => Err(self.block(Why::PfStateInsert)),
            },
            Err(why) => Err(self.block(why)),
        }
    }

    #[cold]
    fn block(&self, why: Why) -> Verdict {
        self.note(why);
        Verdict::Block(why)
    }

    fn note(&self, why: Why) {
        let Some(counters) = self.counters() else { return };
        match why {
            Why::PfShort => counters.short.inc(),
            Why::PfOptions => counters.ip_option.inc(),
            Why::PfFragment => counters.fragment.inc(),
            Why::PfStateMismatch => counters.state_mismatch.inc(),
            Why::PfStateInsert => counters.state_insert.inc(),
            Why::PfStateLimit => counters.state_limit.inc(),
            _ => {}
        }
    }
}

/// Leaves a hint which state the packet belongs to.
#[inline(always)]
fn remember(m: &mut Mbuf, hit: &Hit) {
    let hdr = m.hdr_mut();
    (hdr.state, hdr.state_gen) = (hit.slot, hit.generation);
}

/// Packets on the wire and their IP octets, without a look at the packet unless it is a super-frame.
#[inline(always)]
fn weight(m: &Mbuf) -> (u32, u32) {
    if m.hdr().gso == Gso::None {
        return (1, m.len() as u32);
    }
    Packet::read(m).map_or((1, m.len() as u32), |p| (p.segments, p.bytes))
}

/// Puts the tag and the queue on a packet that passes.
#[inline(always)]
fn mark(m: &mut Mbuf, p: &Packet, tag: u16, rule: &Compiled) {
    if tag != 0 {
        m.hdr_mut().tag = tag;
    }
    choose_queue(m, p, rule.queue, rule.low_delay_queue);
}

#[inline(always)]
fn choose_queue(m: &mut Mbuf, p: &Packet, queue: u16, low_delay_queue: u16) {
    if queue == 0 {
        return;
    }
    let low_delay = p.is_low_delay() || p.is_empty_ack();
    let hdr = m.hdr_mut();
    if low_delay {
        hdr.flags.set(PktFlags::LOW_DELAY);
    }
    hdr.queue = if low_delay { low_delay_queue } else { queue };
}
