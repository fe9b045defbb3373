//! pf at work: a packet, its interface and its direction in, a verdict out.
//!
//! [`Pf`] is what lives as long as the process. A [`Ruleset`] is made from it on the control thread and published in
//! the router's snapshot. A worker brings both together in a [`PfCx`], for one batch at one instant, together with the
//! proof that it holds no lock that comes after pf's.
//!
//! A batch is decided in passes over a few packets at a time: read them and ask for the rows of the state table, ask for
//! the states, then decide on each.

mod cookies;
pub(crate) mod explain;
mod log;

use kern::{
    Batch, Gso, Mbuf, PktFlags, Survey, Why,
    lock::{Held, levels::PfRules},
    mbuf::BATCH,
    time::Instant,
};
use wire::flow::host;

use self::log::{Decision, Shown};
use crate::{
    IfIndex,
    counters::PfCounters,
    eval::{Effects, Outcome, Trial, evaluate, first_match},
    nat::{Chooser, Translate, family, rewrite},
    once::Once,
    osfp::{Asked, Sender},
    packet::Packet,
    pf::{Pf, Worker},
    random::Random,
    route::Routed,
    rule::{Action, Direction, RouteKind},
    ruleset::{Compiled, Constant, Ruleset, Translation},
    slab::RuleSlot,
    state::{
        Hit, Lookup, Passing, States, Tracked,
        cookie::Cookie,
        insert::{Made, Making},
        key::Key,
    },
    table::{Counted, Fate},
    track::NodeKey,
    treatment::Treatment,
    verdict::{Answer, Exception, Passed, Reset, Verdict, refuse},
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
}

impl Seen {
    pub(crate) const NOTHING: Seen =
        Seen { p: Packet::EMPTY, lookup: Lookup::NOTHING, refused: None, cookie: None };
}

/// pf for one batch at one instant.
#[derive(Debug)]
pub struct PfCx<'a> {
    pf: &'a Pf,
    rules: &'a Ruleset,
    worker: &'a mut Worker,
    held: Held<'a, PfRules>,
    now: Instant,
    shown: Shown<'a>,
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
        PfCx { pf, rules, worker, held, now, shown: Shown::default() }
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
        let mut exceptions = [None; BATCH];
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
                let exception = if self.pass_unseen(direction, index, m) {
                    None
                } else {
                    if unseen {
                        self.look(direction, m, seen);
                    }
                    Exception::of(&self.decide(direction, index, m, seen))
                };
                any |= exception.is_some();
                exceptions[at] = exception;
                at += 1;
            }
        }
        self.worker.ahead = ahead;
        if any {
            let mut exceptions = exceptions.into_iter();
            batch.sift(|m| match exceptions.next().flatten() {
                None => Some(m),
                Some(exception) => except(m, exception),
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
        if self.rules.cookies
            && direction == Direction::In
            && let Some(verdict) = self.by_cookie(index, m, seen)
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
            Tracked::Hit | Tracked::Changed => {
                Some(self.pass_by_state(direction, index, m, p, &hit, lookup.is_error()))
            }
            Tracked::Ended => {
                if let Some(counters) = self.counters() {
                    counters.removals.inc();
                }
                None
            }
            Tracked::Mismatch => Some(self.block(Why::PfStateMismatch)),
            Tracked::BadTimestamp => Some(self.block(Why::PfTimestamp)),
            Tracked::Proxied | Tracked::Joined => Some(self.block(Why::PfSynproxy)),
            Tracked::Overloads => {
                if let Some(counters) = self.counters() {
                    counters.removals.inc();
                }
                Some(self.block(Why::PfSrcLimit))
            }
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
    fn pass_by_state(
        &mut self,
        direction: Direction,
        index: IfIndex,
        m: &mut Mbuf,
        p: &Packet,
        hit: &Hit,
        is_error: bool,
    ) -> Verdict {
        self.count(hit.rule, direction, p.segments, p.bytes);
        if hit.anchor != RuleSlot::NONE {
            self.count(hit.anchor, direction, p.segments, p.bytes);
        }
        if p.options && !hit.allow_opts {
            return self.block(Why::PfOptions);
        }
        match before(direction, m) {
            Some(slot) => self.pf.states.set_twin(slot, hit),
            None => self.pf.states.prefetch_twin(hit),
        }
        remember(m, hit);
        if hit.tag != 0 {
            m.hdr_mut().tag = hit.tag;
        }
        choose_queue(m, p, hit.queue, hit.low_delay_queue);
        if hit.rewrites()
            && let Err(why) = self.rewrite_by(direction, index, m, p, hit, is_error)
        {
            return self.block(why);
        }
        if hit.treatment != 0 {
            return self.treat(direction, index, m, p, hit);
        }
        Verdict::pass()
    }

    /// What few states say of their packets.
    #[cold]
    fn treat(
        &mut self,
        direction: Direction,
        index: IfIndex,
        m: &mut Mbuf,
        p: &Packet,
        hit: &Hit,
    ) -> Verdict {
        let treatment = self.pf.slab.treatments.get(hit.treatment).copied().unwrap_or_default();
        treatment.apply(m, p, &mut self.worker.ids);
        if let Some(to) = treatment.log {
            self.log_by_state(direction, index, m, hit, to);
        }
        route(treatment.route, hit.forward, m)
    }

    /// Makes of a packet what its state says.
    #[cold]
    fn rewrite_by(
        &mut self,
        direction: Direction,
        index: IfIndex,
        m: &mut Mbuf,
        p: &Packet,
        hit: &Hit,
        is_error: bool,
    ) -> Result<(), Why> {
        if hit.restamp.is_some() {
            rewrite::restamp(m, p.l4, p.tcp.header, &hit.restamp)?;
        }
        if hit.translates && hit.key.family() != p.family {
            return self.change_family(direction, m, p, hit, is_error);
        }
        if is_error {
            return rewrite::translate_error(m, direction, p.l4, &hit.key, hit.diffs.1);
        }
        if hit.translates {
            self.count(hit.nat, direction, p.segments, p.bytes);
            rewrite::translate(m, direction, &hit.key)?;
            if direction == Direction::Out && self.rules.tells_hosts(index) {
                m.hdr_mut().set_host(host(&p.src.to_be_bytes()));
            }
        }
        if hit.modulates {
            rewrite::modulate(m, p.l4, p.tcp.header, hit.diffs)?;
        }
        Ok(())
    }

    /// Makes of a packet one of the other family.
    #[cold]
    fn change_family(
        &mut self,
        direction: Direction,
        m: &mut Mbuf,
        p: &Packet,
        hit: &Hit,
        is_error: bool,
    ) -> Result<(), Why> {
        if is_error {
            return family::translate_error(m, p.l4, &hit.key, hit.diffs.1);
        }
        self.count(hit.nat, direction, p.segments, p.bytes);
        if hit.modulates {
            rewrite::modulate(m, p.l4, p.tcp.header, hit.diffs)?;
        }
        family::onwards(m, &hit.key, self.worker.ids.next())
    }

    fn by_rules(&mut self, direction: Direction, index: IfIndex, m: &mut Mbuf, seen: &Seen) -> Verdict {
        let mut decision = Decision::default();
        let verdict = self.judge(direction, index, m, seen, &mut decision);
        self.log_decided(direction, index, m, &verdict, &decision);
        verdict
    }

    /// Evaluates the rules, does what they say, and says which have decided.
    #[inline]
    fn judge(
        &mut self,
        direction: Direction,
        index: IfIndex,
        m: &mut Mbuf,
        seen: &Seen,
        decision: &mut Decision<'a>,
    ) -> Verdict {
        let rules = self.rules;
        // Rules see the packet as translation makes it; its octets stay until it passes.
        let mut p = seen.p;
        let opens = seen.lookup.opens_state(&p);
        let mut translated = None;
        if opens && !rules.main.translation.is_empty(direction) {
            match self.translate(direction, index, m, &mut p) {
                Ok(by) => translated = by,
                Err(why) => return self.block(why),
            }
        }
        let classic = translated.map(|by| by.rule);
        if let Some(counters) = self.counters() {
            counters.matched.inc();
        }
        if let Some(rule) = classic.filter(|rule| rule.nat_pass) {
            (decision.rule, decision.translates) = (Some(rule), classic);
            let outcome = Outcome::decided(p.tag);
            return self.pass(direction, index, m, &Judged { seen, p: &p, rule, outcome, by: translated });
        }
        let worker = self.worker.id;
        let mut walk = self.walk(direction, index, opens, m);
        let outcome = match evaluate(rules, worker, direction, index, &mut p, &mut walk) {
            Ok(outcome) => outcome,
            Err(why) => return self.block(why),
        };
        let mut by = walk.by.or(translated);
        (decision.rule, decision.call) = (outcome.rule, outcome.anchor);
        decision.translates = classic;
        let Some(rule) = outcome.rule else {
            let Some(By { rule, .. }) = by else { return self.by_none(m, &seen.p, outcome) };
            return self.pass(direction, index, m, &Judged { seen, p: &p, rule, outcome, by });
        };
        if rule.once.as_ref().is_some_and(|once| !self.spends(once)) {
            return self.judge(direction, index, m, seen, decision);
        }
        if let Action::Block(reply) = rule.action {
            self.count_decided(direction, rule, outcome.anchor, &p);
            return refuse(reply, &seen.p);
        }
        if !opens && rule.translates.iter().any(Translate::changes_family) {
            // Without a state it would have to stay what it is.
            return self.block(Why::PfTranslate);
        }
        if opens && !rule.translates.is_empty() {
            let mut walk = self.walk(direction, index, opens, m);
            if let Err(why) = walk.translate(rule, &mut p) {
                return self.block(why);
            }
            by = walk.by;
        }
        self.pass(direction, index, m, &Judged { seen, p: &p, rule, outcome, by })
    }

    /// Takes the one packet that a rule is for, unless another worker has. Whoever only asks takes nothing.
    #[cold]
    fn spends(&self, once: &Once) -> bool {
        self.counters().is_none() || once.spend()
    }

    /// What the rules of translation make of a packet without a state.
    #[cold]
    fn translate(
        &mut self,
        direction: Direction,
        index: IfIndex,
        m: &Mbuf,
        p: &mut Packet,
    ) -> Result<Option<By<'a>>, Why> {
        let rules = self.rules;
        let worker = self.worker.id;
        let mut walk = self.walk(direction, index, true, m);
        for kind in Translation::kinds(direction) {
            if let Some(rule) = first_match(rules, worker, kind, direction, index, p, &mut walk) {
                walk.translate(rule, p)?;
                return Ok(walk.by);
            }
        }
        Ok(None)
    }

    fn walk<'w>(
        &'w mut self,
        direction: Direction,
        interface: IfIndex,
        opens: bool,
        m: &'w Mbuf,
    ) -> Walk<'w, 'a, 'a> {
        Walk {
            states: &self.pf.states,
            held: &mut self.held,
            random: &mut self.worker.random,
            counts: Counts { pf: self.pf, worker: self.worker.id },
            direction,
            interface,
            shown: &mut self.shown,
            following: None,
            opens,
            sender: Sender::new(&self.rules.known, m.data()),
            by: None,
        }
    }

    /// Counts a packet of the rule that decides on it, of the call that led there, and in the rule's tables.
    #[inline]
    fn count_decided(&self, direction: Direction, rule: &Compiled, call: Option<&Compiled>, p: &Packet) {
        self.count(rule.slot, direction, p.segments, p.bytes);
        if let Some(call) = call {
            self.count(call.slot, direction, p.segments, p.bytes);
        }
        self.count_tables(direction, rule, p);
    }

    /// Counts a packet in the tables of the rule that decides on it.
    #[inline]
    fn count_tables(&self, direction: Direction, rule: &Compiled, p: &Packet) {
        let blocks = matches!(rule.action, Action::Block(_));
        let counted = Counted {
            direction,
            family: p.family,
            fate: if blocks { Fate::Block } else { Fate::Pass },
            not: false,
            packets: p.segments,
            bytes: p.bytes,
        };
        rule.src.count(self.worker.id, p.src, &counted);
        rule.dst.count(self.worker.id, p.dst, &counted);
    }

    /// No rule decides: the packet passes.
    fn by_none(&mut self, m: &mut Mbuf, p: &Packet, outcome: Outcome<'_>) -> Verdict {
        if p.options && !outcome.allow_opts {
            return self.block(Why::PfOptions);
        }
        if outcome.tag != 0 {
            m.hdr_mut().tag = outcome.tag;
        }
        choose_queue(m, p, outcome.queue, outcome.low_delay_queue);
        if outcome.treatment != Treatment::NONE {
            outcome.treatment.apply(m, p, &mut self.worker.ids);
        }
        Verdict::pass()
    }

    /// A rule passes a packet: its state is made, and it becomes what it was translated to.
    fn pass(&mut self, direction: Direction, index: IfIndex, m: &mut Mbuf, judged: &Judged) -> Verdict {
        let Judged { seen, p, rule, outcome, .. } = *judged;
        // A rule for one family knows nothing of the addresses of the other.
        let changes_family = p.family != seen.p.family;
        let (counted, asks) = if changes_family { (&seen.p, p) } else { (p, &seen.p) };
        self.count_decided(direction, rule, outcome.anchor, counted);
        if p.options && !rule.allow_opts && !outcome.allow_opts {
            return self.block(Why::PfOptions);
        }
        if outcome.tag != 0 {
            m.hdr_mut().tag = outcome.tag;
        }
        let becomes = p.key(if changes_family { Direction::Out } else { direction });
        let opens = seen.lookup.opens_state(p);
        let mut treatment = outcome.treated_by(rule);
        treatment.log = rule.log.filter(|log| log.all).map(|log| log.to);
        if let Some(pool) = rule.rare.as_ref().and_then(|rare| rare.route.as_ref()) {
            match pool.choose(asks, &self.pf.slab.hops, &mut self.worker.random) {
                Ok(routed) => treatment.route = Some(routed),
                Err(why) => return self.block(why),
            }
        }
        if opens && (rule.keep.is_some() || becomes != seen.p.key(direction)) {
            let hit = match self.keep_state(direction, index, m, judged, becomes, treatment) {
                Ok(hit) => hit,
                Err(verdict) => return verdict,
            };
            if hit.rewrites()
                && let Err(why) = self.rewrite_by(direction, index, m, &seen.p, &hit, false)
            {
                return self.block(why);
            }
        }
        let (queue, low_delay_queue) = outcome.queues(rule);
        choose_queue(m, p, queue, low_delay_queue);
        if treatment == Treatment::NONE {
            return Verdict::pass();
        }
        treatment.apply(m, p, &mut self.worker.ids);
        route(treatment.route, true, m)
    }

    /// Makes the state of a packet that a rule passes. If another worker has made it meanwhile, that one decides.
    #[cold]
    fn keep_state(
        &mut self,
        direction: Direction,
        index: IfIndex,
        m: &mut Mbuf,
        judged: &Judged,
        becomes: Key,
        treatment: Treatment,
    ) -> Result<Hit, Verdict> {
        let Judged { seen, rule, ref outcome, by, .. } = *judged;
        let (nat, sticky) = by.map_or((RuleSlot::NONE, None), |by| (by.rule.slot, by.sticky));
        let (p, data, now) = (&seen.p, m.data(), self.now.secs() as u32);
        let passing = Passing { direction, index, p, data, now };
        let (queue, low_delay_queue) = outcome.queues(rule);
        let allow_opts = outcome.allow_opts || rule.allow_opts;
        let anchor = outcome.anchor.map_or(RuleSlot::NONE, |call| call.slot);
        let hops = &self.pf.slab.hops;
        let treatment_number = match treatment {
            Treatment::NONE => 0,
            _ => match self.pf.slab.treatments.number(treatment) {
                Some(number) => number,
                None => return Err(self.block(Why::PfStateInsert)),
            },
        };
        let making = Making {
            rule,
            treatment: treatment_number,
            stamped: treatment.normalise.reassemble_tcp
                || self.rules.scrub.reassembles_tcp(direction, index, m),
            binds: if becomes.family() == p.family {
                Routed::binds(treatment.route, hops, direction, index)
            } else {
                None
            },
            anchor,
            tag: outcome.tag,
            queue,
            low_delay_queue,
            allow_opts,
            becomes,
            nat,
            sticky,
            cookie: seen.cookie,
        };
        let slots = &mut self.worker.slots;
        let made = self.pf.states.insert(&mut self.held, slots, &seen.lookup, &passing, &making);
        match made {
            Ok(Made::Live(hit)) => {
                remember(m, &hit);
                self.count_made([rule.slot, nat, anchor]);
                Ok(hit)
            }
            Ok(Made::Proxied) => {
                self.count_made([rule.slot, nat, anchor]);
                Err(self.block(Why::PfSynproxy))
            }
            Ok(Made::Raced) => match self.by_state(direction, index, m, seen) {
                Some(verdict) => Err(verdict),
                None => Err(self.block(Why::PfStateInsert)),
            },
            Ok(Made::Taken) => Err(self.block(Why::PfStateInsert)),
            Err(why) => Err(self.block(why)),
        }
    }

    /// Counts a state that has been made.
    fn count_made(&self, rules: [RuleSlot; 3]) {
        if let Some(counters) = self.counters() {
            counters.inserts.inc();
        }
        for slot in rules {
            if let Some(counts) = self.pf.slab.counts(self.worker.id, slot) {
                counts.states.inc();
            }
        }
    }

    /// Undoes what translation has done to a packet on its way out, so that an error about it quotes what its sender
    /// sent, and goes there.
    pub fn undo(&mut self, m: &mut Mbuf) {
        let hint = (m.hdr().state, m.hdr().state_gen);
        let Ok(p) = Packet::read(m) else { return };
        if let Some(key) = self.pf.states.before_translation(&mut self.held, hint, &p) {
            // What was translated once can be translated back.
            let _ = if key.family() == p.family {
                rewrite::translate(m, Direction::Out, &key)
            } else {
                family::undo(m, &key, self.worker.ids.next())
            };
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

/// A packet that a rule passes.
#[derive(Clone, Copy)]
struct Judged<'a> {
    seen: &'a Seen,
    /// As translation makes it.
    p: &'a Packet,
    rule: &'a Compiled,
    outcome: Outcome<'a>,
    /// What translates it.
    by: Option<By<'a>>,
}

/// A rule that has translated a packet.
#[derive(Clone, Copy)]
struct By<'a> {
    rule: &'a Compiled,
    /// The address that the source is to keep.
    sticky: Option<u128>,
}

/// Counters of rules, of one worker.
#[derive(Clone, Copy)]
struct Counts<'a> {
    pf: &'a Pf,
    worker: usize,
}

/// What rules do while they are evaluated.
struct Walk<'w, 'a, 'r> {
    states: &'w States,
    held: &'w mut Held<'a, PfRules>,
    random: &'w mut Random,
    counts: Counts<'w>,
    direction: Direction,
    interface: IfIndex,
    shown: &'w mut Shown<'a>,
    /// Where what matches is logged, since a rule said `log (matches)`.
    following: Option<u8>,
    /// The packet may open a state, and so be translated.
    opens: bool,
    /// Who sent the packet, for rules that ask.
    sender: Sender<'w, 'r>,
    /// The last rule that has translated.
    by: Option<By<'r>>,
}

impl<'r> Walk<'_, '_, 'r> {
    fn translate(&mut self, rule: &'r Compiled, p: &mut Packet) -> Result<(), Why> {
        self.count(rule, p);
        let mut by = By { rule, sticky: None };
        for to in &rule.translates {
            let key = NodeKey { rule: rule.slot, sticky: true, family: p.family, source: p.src };
            let kept = if to.is_sticky() { self.states.nodes().address(self.held, &key) } else { None };
            let mut chooser = Chooser {
                states: self.states,
                held: self.held,
                random: self.random,
                direction: to.key_direction(self.direction),
            };
            let chosen = chooser.apply(to, p, kept)?;
            by.sticky = to.is_sticky().then_some(chosen).or(by.sticky);
        }
        self.by = Some(by);
        Ok(())
    }

    fn count(&self, rule: &Compiled, p: &Packet) {
        if let Some(counts) = self.counts.pf.slab.counts(self.counts.worker, rule.slot) {
            counts.count(self.direction.index(), p.segments, p.bytes);
        }
    }
}

impl<'r> Effects<'r> for Walk<'_, '_, 'r> {
    fn honours(&mut self, share: u32) -> bool {
        (self.random.next() as u32) < share
    }

    fn is_from(&mut self, wanted: Asked, p: &Packet) -> bool {
        self.sender.is(wanted, p)
    }

    fn matched(
        &mut self,
        rule: &'r Compiled,
        within: Option<&'r Compiled>,
        p: &mut Packet,
    ) -> Result<(), Why> {
        self.log_matched(rule, within);
        if self.opens && !rule.translates.is_empty() {
            return self.translate(rule, p);
        }
        self.count(rule, p);
        Ok(())
    }

    #[inline(always)]
    fn tried(&mut self, rule: &'r Compiled, within: Option<&'r Compiled>, trial: Trial) {
        if trial == Trial::Matches
            && rule.log.is_none()
            && let Some(to) = self.following
        {
            self.log(rule, within, to);
        }
    }
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
