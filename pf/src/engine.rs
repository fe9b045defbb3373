//! pf at work: a packet, its interface and its direction in, a verdict out.
//!
//! [`Pf`] is what lives as long as the process. A [`Ruleset`] is made from it on the control thread and published in
//! the router's snapshot. A worker brings both together in a [`PfCx`], for one batch at one instant, together with the
//! proof that it holds no lock that comes after pf's.
//!
//! A batch is decided in passes over a few packets at a time: read them and ask for the rows of the state table, ask for
//! the states, then decide on each.

mod by_rules;
mod by_state;
mod cookies;
pub(crate) mod explain;
mod lent;
mod log;
mod relate;
mod walk;

use std::cell::Cell;

use arrayvec::ArrayVec;
use kern::{
    Batch, Gso, Mbuf, PktFlags, Survey, Why,
    lock::{Held, levels::PfRules},
    mbuf::BATCH,
    time::Instant,
};

use self::lent::Lent;
use crate::{
    IfIndex,
    addr::Family,
    counters::PfCounters,
    log_interface::LogInterface,
    normalise::Scrubbed,
    packet::Packet,
    pf::{Pf, Worker},
    route::Routed,
    rule::{Direction, RouteKind},
    ruleset::{Constant, Ruleset},
    slab::{RuleCounts, RuleSlot},
    state::{Hit, Lookup, cookie::Cookie},
    verdict::{Exception, Passed, Verdict},
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
    /// It is the SYN that a cookie stood for.
    cookie: Option<Cookie>,
    /// What scrub rules have done to it, if there are any.
    scrubbed: Scrubbed,
}

impl Seen {
    /// The family, the packets and the IP octets of a packet, as far as it could be read.
    pub(crate) fn weight(&self, m: &Mbuf) -> (Family, u32, u32) {
        match self.refused {
            None => (self.p.family, self.p.segments, self.p.bytes),
            Some(_) if m.data().first().is_some_and(|octet| octet >> 4 == 6) => {
                (Family::Inet6, 1, m.len() as u32)
            }
            Some(_) => (Family::Inet, 1, m.len() as u32),
        }
    }

    pub(crate) const NOTHING: Seen = Seen {
        p: Packet::EMPTY,
        lookup: Lookup::NOTHING,
        refused: None,
        cookie: None,
        scrubbed: Scrubbed::No,
    };
}

/// pf for one batch at one instant.
#[derive(Debug)]
pub struct PfCx<'a> {
    pf: &'a Pf,
    rules: &'a Ruleset,
    worker: &'a mut Worker,
    held: Held<'a, PfRules>,
    now: Instant,
    lent: Lent<'a>,
    /// The rule that counted last: mostly it is the next to count.
    counted: Cell<Option<(RuleSlot, &'a RuleCounts)>>,
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
        PfCx { pf, rules, worker, held, now, lent: Lent::default(), counted: Cell::new(None) }
    }

    /// Tests one packet. Its data begin at the IP header; `hdr.family` and `hdr.proto` are set.
    ///
    /// A packet that passes may have got a tag, a queue and a state hint.
    #[inline]
    pub fn test(&mut self, direction: Direction, index: IfIndex, m: &mut Mbuf) -> Verdict {
        if self.pass_unseen(direction, index, m) {
            return Verdict::pass();
        }
        let mut seen = Seen { scrubbed: self.normalise(direction, index, m), ..Seen::NOTHING };
        self.look(direction, m, &mut seen);
        let verdict = self.decide(direction, index, m, &seen);
        if let Some(watched) = self.rules.log_interface.as_ref().filter(|watched| watched.is(index)) {
            let blocked = matches!(Exception::of(&verdict), Some(Exception::Refused(_)));
            watched.count(self.worker.id, direction, m, &seen, blocked);
        }
        if let Some(Exception::Refused(refused)) = Exception::of(&verdict) {
            self.pf.debug.end(refused.why, direction, index, m);
        }
        verdict
    }

    /// Passes packets of which no more need be known than what a survey tells, all at one interface. `None` if they have to
    /// be [tested](Self::test_batch); then nothing has been counted.
    #[inline(always)]
    pub fn pass_unseen_all(&self, direction: Direction, index: IfIndex, survey: &Survey) -> Option<Passed> {
        match self.rules.constant(direction, index) {
            Constant::Skip => Some(Passed::proof()),
            Constant::Look => None,
            // States come before rules, those of an earlier ruleset too.
            Constant::Pass { rule, allow_opts } => {
                let odd = if allow_opts { PktFlags::NO_PF } else { PktFlags::NO_PF.with(PktFlags::OPTIONS) };
                if survey.any(odd) || survey.any_super() || self.pf.states.count() != 0 {
                    return None;
                }
                self.count_unseen(direction, rule, survey.packets().into(), survey.packets(), survey.bytes());
                Some(Passed::proof())
            }
        }
    }

    /// Tests the packets of a batch. Those that pass stay, in order; the others go to `except`, in order, which gives
    /// back those that stay all the same.
    #[inline(never)]
    pub fn test_batch(
        &mut self,
        direction: Direction,
        via: Via,
        batch: &mut Batch,
        mut except: impl FnMut(Mbuf, Exception) -> Option<Mbuf>,
    ) -> Passed {
        let mut exceptions = ArrayVec::<(usize, Exception), BATCH>::new();
        let mut at = 0;
        let unseen = !self.rules.looks(direction) && self.pf.states.count() == 0;
        // Where all packets come to be looked at but those that pf does not see.
        let looks = matches!(via, Via::One(index) if self.rules.constant(direction, index) == Constant::Look);
        // Out of the worker for the time being, and back in below: nothing in between returns.
        let mut ahead = std::mem::take(&mut self.worker.ahead);
        for chunk in batch.as_mut_slice().chunks_mut(AHEAD) {
            let first = at;
            if !self.rules.scrub.is_empty() {
                for (m, seen) in chunk.iter_mut().zip(&mut ahead) {
                    seen.scrubbed = self.normalise(direction, via.of(m), m);
                }
            }
            if !unseen {
                self.look_ahead(direction, chunk, &mut ahead);
            }
            for (m, seen) in chunk.iter_mut().zip(&mut ahead) {
                let index = via.of(m);
                let passes = if looks {
                    m.hdr().flags.has(PktFlags::NO_PF)
                } else {
                    self.pass_unseen(direction, index, m)
                };
                let exception = if passes {
                    None
                } else {
                    if unseen {
                        self.look(direction, m, seen);
                    }
                    Exception::of(&self.decide(direction, index, m, seen))
                };
                if let Some(exception) = exception {
                    // A batch has no more packets than this has places.
                    let _ = exceptions.try_push((at, exception));
                }
                at += 1;
            }
            if let Some(watched) = self.rules.log_interface.as_ref().filter(|_| !unseen) {
                self.watch(watched, direction, via, (first, chunk), &ahead, &exceptions);
            }
        }
        self.worker.ahead = ahead;
        if !exceptions.is_empty() {
            let mut exceptions = exceptions.into_iter().peekable();
            let (mut at, debug) = (0, &self.pf.debug);
            batch.sift(|m| {
                at += 1;
                match exceptions.next_if(|(place, _)| *place + 1 == at) {
                    None => Some(m),
                    Some((_, exception)) => {
                        if let Exception::Refused(refused) = exception {
                            debug.end(refused.why, direction, via.of(&m), &m);
                        }
                        except(m, exception)
                    }
                }
            });
        }
        Passed::proof()
    }

    /// Counts the packets of a chunk, the first of which has this place in the batch, that are at the interface whose
    /// statistics are shown.
    #[cold]
    fn watch(
        &self,
        watched: &LogInterface,
        direction: Direction,
        via: Via,
        (first, chunk): (usize, &[Mbuf]),
        seen: &[Seen],
        exceptions: &[(usize, Exception)],
    ) {
        for (place, (m, seen)) in chunk.iter().zip(seen).enumerate() {
            let index = via.of(m);
            if watched.is(index) && self.rules.constant(direction, index) == Constant::Look {
                let is_it =
                    |(at, e): &(usize, Exception)| *at == first + place && matches!(e, Exception::Refused(_));
                watched.count(self.worker.id, direction, m, seen, exceptions.iter().any(is_it));
            }
        }
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

    /// Does to a packet what scrub rules say.
    #[inline(always)]
    fn normalise(&mut self, direction: Direction, index: IfIndex, m: &mut Mbuf) -> Scrubbed {
        let rules = self.rules;
        if rules.scrub.is_empty()
            || rules.constant(direction, index) != Constant::Look
            || m.hdr().flags.has(PktFlags::NO_PF)
        {
            return Scrubbed::No;
        }
        let (routes, ids) = (self.lent.routes, &mut self.worker.ids);
        rules.scrub.normalise(direction, index, m, &rules.known, routes, ids)
    }

    /// Reads a packet, and says what to look for in the state table.
    #[inline(always)]
    fn look(&self, direction: Direction, m: &Mbuf, seen: &mut Seen) {
        let read = seen.p.fill(m);
        let (states, before) = (&self.pf.states, before(direction, m));
        let read = read.and_then(|()| states.lookup(direction, &seen.p, m.data(), before, &mut seen.lookup));
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
                states.prefetch(&seen.lookup);
            }
        }
        if !any {
            return;
        }
        for (_, seen) in chunk.iter().zip(ahead.iter_mut()) {
            states.guess(&mut seen.lookup);
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

    #[inline(always)]
    fn count_unseen(&self, direction: Direction, rule: Option<u32>, times: u64, packets: u32, bytes: u32) {
        let Some(rule) = rule.map(|r| r as usize) else { return };
        if let Some(evaluations) = self.rules.main.evaluations_of(self.worker.id).get(rule) {
            evaluations.add(times);
        }
        if let Some(rule) = self.rules.main.filter.get(rule) {
            self.count(rule.slot, direction, packets, bytes);
        }
    }

    #[inline(always)]
    fn count(&self, slot: RuleSlot, direction: Direction, packets: u32, bytes: u32) {
        let counts = match self.counted.get() {
            Some((last, counts)) if last == slot => counts,
            _ => {
                let Some(counts) = self.pf.slab.counts(self.worker.id, slot) else { return };
                self.counted.set(Some((slot, counts)));
                counts
            }
        };
        counts.count(direction.index(), packets, bytes);
    }

    #[inline(always)]
    fn counters(&self) -> Option<&'a PfCounters> {
        self.pf.counters.get(self.worker.id)
    }

    /// A state decides, or the rules.
    #[inline(always)]
    fn decide(&mut self, direction: Direction, index: IfIndex, m: &mut Mbuf, seen: &Seen) -> Verdict {
        if seen.refused.is_some() {
            return self.refused(direction, index, m, *seen);
        }
        if seen.lookup.is_something()
            && let Some(verdict) = self.by_state(direction, index, m, seen)
        {
            return verdict;
        }
        if self.rules.cookies
            && direction == Direction::In
            && let Some(verdict) = self.by_cookie(index, m, seen)
        {
            return verdict;
        }
        self.by_rules(direction, index, m, seen)
    }

    /// What cannot be right is blocked; segments whose flags make no sense are, unless there are scrub rules and none of them
    /// is for it (as in FreeBSD).
    #[cold]
    fn refused(&mut self, direction: Direction, index: IfIndex, m: &mut Mbuf, mut seen: Seen) -> Verdict {
        self.forgive(direction, m, &mut seen);
        match seen.refused {
            Some(why) => self.block(why),
            None => self.decide(direction, index, m, &seen),
        }
    }

    #[cold]
    fn forgive(&self, direction: Direction, m: &Mbuf, seen: &mut Seen) {
        let spared = !self.rules.scrub.is_empty() && seen.scrubbed == Scrubbed::No;
        if seen.refused == Some(Why::PfNormalize) && spared {
            let before = before(direction, m);
            let looked = self.pf.states.lookup(direction, &seen.p, m.data(), before, &mut seen.lookup);
            seen.refused = looked.err();
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
            Why::PfNormalize => counters.normalize.inc(),
            Why::PfOptions => counters.ip_option.inc(),
            Why::PfFragment => counters.fragment.inc(),
            Why::PfStateMismatch => counters.state_mismatch.inc(),
            Why::PfStateInsert => counters.state_insert.inc(),
            Why::PfStateLimit => counters.state_limit.inc(),
            Why::PfSynproxy => counters.synproxy.inc(),
            Why::PfSrcLimit => counters.src_limit.inc(),
            Why::PfTranslate => counters.translate.inc(),
            Why::PfTimestamp => counters.bad_timestamp.inc(),
            Why::PfRoute => counters.no_route.inc(),
            _ => {}
        }
    }
}

/// What becomes of a packet that passes and may be routed.
#[inline(always)]
fn route(routed: Option<Routed>, forward: bool, m: &Mbuf) -> Verdict {
    match routed {
        Some(routed) if routed.is_for(forward) => match routed.kind {
            RouteKind::DupTo if m.hdr().flags.has(PktFlags::COPIED) => Verdict::pass(),
            RouteKind::DupTo => Verdict::Copy(Passed::proof(), routed.hop),
            _ => Verdict::Route(Passed::proof(), routed.hop),
        },
        _ => Verdict::pass(),
    }
}

/// The slot of the state that a packet on its way out belonged to on its way in.
#[inline(always)]
fn before(direction: Direction, m: &Mbuf) -> Option<u32> {
    let hdr = m.hdr();
    (direction == Direction::Out && hdr.state_gen != 0).then_some(hdr.state)
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

#[inline(always)]
fn choose_queue(m: &mut Mbuf, p: &Packet, queue: u16, low_delay_queue: u16) {
    if queue == 0 {
        return;
    }
    let low_delay = p.wants_low_delay();
    let hdr = m.hdr_mut();
    if low_delay {
        hdr.flags.set(PktFlags::LOW_DELAY);
    }
    hdr.queue = if low_delay { low_delay_queue } else { queue };
}
