//! What the rules say of a packet that has no state, and the state that it gets.

use kern::{Mbuf, Why, time::Instant};
use wire::IpProto;

use super::{
    PfCx, Seen, choose_queue,
    log::{Decision, is_own},
    remember, route,
    walk::{By, Counts, Walk},
};
use crate::{
    IfIndex,
    eval::{Outcome, evaluate, first_match},
    limiter::{Limited, Share},
    membership,
    nat::{Translate, mapping::Endpoint},
    normalise::Scrubbed,
    once::Once,
    osfp::Sender,
    packet::Packet,
    route::Routed,
    rule::{Action, Direction, Reply},
    ruleset::{Compiled, Translation},
    slab::RuleSlot,
    state::{
        Hit, Passing,
        insert::{Made, Making},
        key::Key,
        sctp,
    },
    table::{Counted, Fate},
    treatment::Treatment,
    verdict::{Verdict, refuse},
};

impl<'a> PfCx<'a> {
    pub(super) fn by_rules(
        &mut self,
        direction: Direction,
        index: IfIndex,
        m: &mut Mbuf,
        seen: &Seen,
    ) -> Verdict {
        let mut decision = Decision::default();
        let verdict = self.judge(direction, index, m, seen, &mut decision);
        // No state has got it.
        self.pf.states.let_go(&mut self.held, &mut self.worker.choices);
        self.log_decided(direction, index, m, &seen.p, &verdict, &decision);
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
            match self.translate(direction, index, m, &mut p, self.worker.id) {
                Ok(by) => translated = by,
                Err(why) => return self.is_not_translated(direction, index, m, seen, why),
            }
        }
        let classic = translated.map(|by| by.rule);
        if let Some(counters) = self.counters() {
            counters.matched.inc();
        }
        if let Some(rule) = classic.filter(|rule| rule.nat_pass) {
            (decision.rule, decision.translates) = (Some(rule), classic);
            let outcome = Outcome::decided(p.tag);
            return self.pass(
                direction,
                index,
                m,
                &Judged { seen, p: &p, rule, outcome, by: translated, floats: false },
            );
        }
        let worker = self.worker.id;
        let mut walk = self.walk(direction, index, opens, m, &seen.p);
        let outcome = match evaluate(rules, worker, direction, index, &mut p, &mut walk) {
            Ok(outcome) => outcome,
            Err(why) => return self.is_not_translated(direction, index, m, seen, why),
        };
        let mut by = walk.by.or(translated);
        (decision.rule, decision.call) = (outcome.rule, outcome.anchor);
        decision.translates = classic;
        let Some(rule) = outcome.rule else {
            let Some(By { rule, .. }) = by else { return self.by_none(m, &seen.p, outcome) };
            return self.pass(direction, index, m, &Judged { seen, p: &p, rule, outcome, by, floats: false });
        };
        if let Some(why) = outcome.full {
            self.count_decided(direction, rule, outcome.anchor, &p, Fate::Block);
            return self.block(why);
        }
        if !self.takes(rule, opens, &seen.p) {
            return self.judge(direction, index, m, seen, decision);
        }
        if let Action::Block(reply) = rule.action {
            self.count_decided(direction, rule, outcome.anchor, &p, Fate::Block);
            return refuse(reply, &seen.p, m.data());
        }
        if !opens && rule.translates.iter().any(Translate::changes_family) {
            // Without a state it would have to stay what it is.
            return self.block(Why::PfTranslate);
        }
        if opens && !rule.translates.is_empty() {
            let mut walk = self.walk(direction, index, opens, m, &seen.p);
            if let Err(why) = walk.translate(rule, &mut p) {
                self.give_back(&seen.p);
                return self.is_not_translated(direction, index, m, seen, why);
            }
            by = walk.by;
        }
        let verdict =
            self.pass(direction, index, m, &Judged { seen, p: &p, rule, outcome, by, floats: false });
        self.give_back(&seen.p);
        verdict
    }

    /// Takes what a rule does not have for every packet: a share of its limiters, and the one packet of `once`. If another
    /// worker has been faster with either, nothing is taken, and the rules say something else.
    #[inline(always)]
    pub(super) fn takes(&mut self, rule: &Compiled, opens: bool, came: &Packet) -> bool {
        let Some(share) = self.share(rule, opens, came) else { return false };
        self.worker.share = share;
        let has_it = rule.once.as_ref().is_none_or(|once| self.spends(once));
        if !has_it {
            self.give_back(came);
        }
        has_it
    }

    /// Gives back the share that no state has got.
    #[inline(always)]
    pub(super) fn give_back(&mut self, came: &Packet) {
        let unused = std::mem::take(&mut self.worker.share);
        if unused != Share::NONE {
            self.pf.states.limiters.leave(&mut self.held, unused, (came.family, came.src));
        }
    }

    /// Takes a share of the limiters of a rule for the state that it makes; none if another worker has taken the last.
    #[inline(always)]
    fn share(&mut self, rule: &Compiled, opens: bool, came: &Packet) -> Option<Share> {
        match rule.limited() {
            Some(limited) if opens && rule.keep.is_some() => self.take_share(limited, came),
            _ => Some(Share::NONE),
        }
    }

    #[cold]
    fn take_share(&mut self, limited: Limited, came: &Packet) -> Option<Share> {
        #[cfg(test)]
        crate::once::tests::step();
        let now = self.now.nanos_since(Instant::default());
        let source = (came.family, came.src);
        self.pf.states.limiters.take(&mut self.held, self.worker.id, limited, source, now)
    }

    /// Takes the one packet that a rule is for, unless another worker has. Whoever only asks takes nothing.
    #[cold]
    fn spends(&self, once: &Once) -> bool {
        self.counters().is_none() || once.spend()
    }

    /// What the rules of translation make of a packet without a state. What that is counted for is `worker`'s.
    #[cold]
    pub(super) fn translate(
        &mut self,
        direction: Direction,
        index: IfIndex,
        m: &Mbuf,
        p: &mut Packet,
        worker: usize,
    ) -> Result<Option<By<'a>>, Why> {
        let (rules, came) = (self.rules, *p);
        let mut walk = self.walk(direction, index, true, m, &came);
        walk.counts.worker = worker;
        for kind in Translation::kinds(direction) {
            if let Some(rule) = first_match(rules, worker, kind, direction, index, p, &mut walk) {
                walk.translate(rule, p)?;
                return Ok(walk.by);
            }
        }
        Ok(None)
    }

    /// Ends a packet for which the rules find no translation. What is taken may be its own: if another worker has made its
    /// state meanwhile, that one decides.
    #[cold]
    fn is_not_translated(
        &mut self,
        direction: Direction,
        index: IfIndex,
        m: &mut Mbuf,
        seen: &Seen,
        why: Why,
    ) -> Verdict {
        let state = if why == Why::PfTranslate { self.by_state(direction, index, m, seen) } else { None };
        state.unwrap_or_else(|| self.block(why))
    }

    pub(super) fn walk<'w>(
        &'w mut self,
        direction: Direction,
        interface: IfIndex,
        opens: bool,
        m: &'w Mbuf,
        came: &Packet,
    ) -> Walk<'w, 'a, 'a> {
        Walk {
            states: &self.pf.states,
            held: &mut self.held,
            choices: &mut self.worker.choices,
            counts: Counts { pf: self.pf, worker: self.worker.id },
            direction,
            interface,
            lent: &mut self.lent,
            following: None,
            own: is_own(m),
            source: (came.family, came.src),
            port: came.sport,
            now: self.now.nanos_since(Instant::default()),
            opens,
            sender: Sender::new(&self.rules.known, m.data()),
            by: None,
        }
    }

    /// Counts a packet of the rule that decides on it, of the call that led there, and in the rule's tables.
    #[inline]
    fn count_decided(
        &self,
        direction: Direction,
        rule: &Compiled,
        call: Option<&Compiled>,
        p: &Packet,
        fate: Fate,
    ) {
        self.count(rule.slot, direction, p.segments, p.bytes);
        self.count_call(direction, call, p);
        self.count_tables(direction, rule, p, fate);
    }

    #[inline]
    fn count_call(&self, direction: Direction, call: Option<&Compiled>, p: &Packet) {
        if let Some(call) = call {
            self.count(call.slot, direction, p.segments, p.bytes);
        }
    }

    /// Counts a packet in the tables of the rule that decides on it.
    #[inline]
    fn count_tables(&self, direction: Direction, rule: &Compiled, p: &Packet, fate: Fate) {
        let counted =
            Counted { direction, family: p.family, fate, not: false, packets: p.segments, bytes: p.bytes };
        rule.src.count(self.worker.id, p.src, &counted);
        rule.dst.count(self.worker.id, p.dst, &counted);
    }

    /// No rule decides: the packet passes.
    fn by_none(&mut self, m: &mut Mbuf, p: &Packet, outcome: Outcome<'_>) -> Verdict {
        if p.options && !outcome.allow_opts && !membership::only_alerts(p, m.data()) {
            return self.block(Why::PfOptions);
        }
        if !outcome.treatment.admits(m, p) {
            return self.block(Why::PfNormalize);
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
        let Judged { seen, p, rule, outcome, by, .. } = *judged;
        // A rule for one family knows nothing of the addresses of the other.
        let changes_family = p.family != seen.p.family;
        let (counted, asks) = if changes_family { (&seen.p, p) } else { (p, &seen.p) };
        // A rule that translates has been counted when it did.
        if by.is_some_and(|by| by.rule.slot == rule.slot) {
            self.count_call(direction, outcome.anchor, counted);
            self.count_tables(direction, rule, counted, Fate::Pass);
        } else {
            self.count_decided(direction, rule, outcome.anchor, counted, Fate::Pass);
        }
        let allows = rule.allow_opts || outcome.allow_opts;
        if p.options && !allows && !membership::only_alerts(&seen.p, m.data()) {
            return self.block(Why::PfOptions);
        }
        if outcome.tag != 0 {
            m.hdr_mut().tag = outcome.tag;
        }
        let becomes = p.key(if changes_family { Direction::Out } else { direction });
        let opens = seen.lookup.opens_state(p);
        let mut treatment = outcome.treated_by(rule);
        if !treatment.admits(m, &seen.p) {
            return self.block(Why::PfNormalize);
        }
        if let Err(why) = self.complete(&mut treatment, rule, asks) {
            return self.block(why);
        }
        if opens && (rule.keep.is_some() || becomes != seen.p.key(direction)) {
            let is_sctp = IpProto(seen.p.proto) == IpProto::SCTP;
            if is_sctp && !sctp::opens(&seen.p, m.data()) {
                return self.has_no_state(Why::PfStateMismatch, judged, m.data());
            }
            let hit = match self.keep_state(direction, index, m, judged, becomes, treatment) {
                Ok(hit) => hit,
                Err(verdict) => return verdict,
            };
            if is_sctp && sctp::names(&seen.p, m.data()) {
                self.relate(direction, index, m, &seen.p, &hit);
            }
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

    /// What else a rule that passes a packet does with it and with those of its state.
    #[inline(always)]
    pub(super) fn complete(
        &mut self,
        treatment: &mut Treatment,
        rule: &Compiled,
        asks: &Packet,
    ) -> Result<(), Why> {
        treatment.log = rule.log.filter(|log| log.all).map(Into::into);
        if let Some(pool) = rule.rare.as_ref().and_then(|rare| rare.route.as_ref()) {
            treatment.route = Some(pool.choose(asks, &self.pf.slab.hops, &mut self.worker.choices.random)?);
        }
        Ok(())
    }

    /// Keeps the state of a packet that a rule passes. If another worker has made it meanwhile, that one decides.
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
        match self.make_state(direction, index, m.data(), judged, becomes, treatment) {
            Ok(Made::Live(hit)) => {
                remember(m, &hit);
                Ok(hit)
            }
            Ok(Made::Proxied) => Err(self.block(Why::PfSynproxy)),
            Ok(Made::Raced) => match self.by_state(direction, index, m, judged.seen) {
                Some(verdict) => Err(verdict),
                None => Err(self.has_no_state(Why::PfStateInsert, judged, m.data())),
            },
            Ok(Made::Taken) => Err(self.has_no_state(Why::PfStateInsert, judged, m.data())),
            Err(why) => Err(self.has_no_state(why, judged, m.data())),
        }
    }

    /// Makes the state of a packet that a rule passes, or would: nothing is done to the packet.
    #[cold]
    pub(super) fn make_state(
        &mut self,
        direction: Direction,
        index: IfIndex,
        data: &[u8],
        judged: &Judged,
        becomes: Key,
        treatment: Treatment,
    ) -> Result<Made, Why> {
        let Judged { seen, rule, ref outcome, by, .. } = *judged;
        let (nat, sticky) = by.map_or((RuleSlot::NONE, None), |by| (by.rule.slot, by.sticky));
        let (p, now) = (&seen.p, self.now.secs() as u32);
        let passing = Passing { direction, index, p, data, now, at: self.now };
        let (queue, low_delay_queue) = outcome.queues(rule);
        let allow_opts = outcome.allow_opts || rule.allow_opts;
        let anchor = outcome.anchor.map_or(RuleSlot::NONE, |call| call.slot);
        let hops = &self.pf.slab.hops;
        let treatment_number = match treatment {
            Treatment::NONE => 0,
            _ => self.pf.slab.treatments.number(treatment).ok_or(Why::PfStateInsert)?,
        };
        let making = Making {
            rule,
            treatment: treatment_number,
            stamped: treatment.normalise.reassemble_tcp
                || (seen.scrubbed == Scrubbed::Stamped && !self.rules.scrub.is_empty()),
            binds: if !judged.floats && becomes.family() == p.family {
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
            share: std::mem::take(&mut self.worker.share),
            mapped: self.take_mapping(judged.p),
        };
        let slots = &mut self.worker.slots;
        let made = self.pf.states.insert(&mut self.held, slots, &seen.lookup, &passing, &making)?;
        if matches!(made, Made::Live(_) | Made::Proxied) {
            self.count_made([rule.slot, nat, anchor]);
        }
        Ok(made)
    }

    /// Ends a packet whose state cannot be made; its sender is told if `set fail-policy` says so.
    #[cold]
    fn has_no_state(&self, why: Why, judged: &Judged, data: &[u8]) -> Verdict {
        let policy = self.rules.conf().options.fail_policy;
        let blocked = self.block(why);
        if policy == Reply::Drop || judged.rule.action != Action::Pass {
            return blocked;
        }
        match refuse(policy, &judged.seen.p, data) {
            Verdict::Return(answer, _) => Verdict::Return(answer, why),
            _ => blocked,
        }
    }

    /// Takes the mapping that the source of a packet was chosen by for the packet's state, if the packet `becomes` what that
    /// says.
    fn take_mapping(&mut self, becomes: &Packet) -> bool {
        match self.worker.choices.mapped {
            Some((mapping, is_new)) if mapping.outside == Endpoint::of(becomes) => {
                self.worker.choices.mapped = None;
                if let Some(counters) = self.counters().filter(|_| is_new) {
                    counters.mappings.inc();
                }
                true
            }
            _ => false,
        }
    }

    /// Counts a state that has been made.
    pub(super) fn count_made(&self, rules: [RuleSlot; 3]) {
        if let Some(counters) = self.counters() {
            counters.inserts.inc();
        }
        for slot in rules {
            if let Some(counts) = self.pf.slab.counts(self.worker.id, slot) {
                counts.states.inc();
            }
        }
    }
}

/// A packet that a rule passes.
#[derive(Clone, Copy)]
pub(super) struct Judged<'a> {
    pub(super) seen: &'a Seen,
    /// As translation makes it.
    pub(super) p: &'a Packet,
    pub(super) rule: &'a Compiled,
    pub(super) outcome: Outcome<'a>,
    /// What translates it.
    pub(super) by: Option<By<'a>>,
    /// Its state is bound to no interface, whatever the rule says: it comes through another one than the packet at hand.
    pub(super) floats: bool,
}

#[cfg(test)]
mod tests;
