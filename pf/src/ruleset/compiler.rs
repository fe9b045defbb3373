//! From a rule as pfctl prints it to one as it is evaluated.

use std::{collections::HashMap, sync::Arc};

use kern::counter::Counter;

use super::{AddrTest, CompileError, Compiled, FIELDS, Iface, KeepState, Rare, compiled::link_skip_steps};
use crate::{
    addr::{AddrSet, Entry, Family, bits},
    anchor::{Kept, Kind, Lists},
    env::Environment,
    ids::Names,
    limiter::Limited,
    normalise::Normalise,
    osfp::{Asked, Fingerprints},
    random::Random,
    route::RouteTest,
    rule::{Host, On, Peer, Rule, Rules},
    slab::{Described, RuleSlab, RuleSlot},
    table,
};

/// What compiles the rules of the main ruleset or of an anchor.
pub(crate) struct Compiler<'a> {
    pub(super) env: &'a Environment,
    pub(crate) names: &'a mut Names,
    pub(super) tables: HashMap<&'a str, table::Shared>,
    /// The anchor whose rules they are; empty for the main ruleset.
    pub(crate) path: &'a str,
    /// What `os` of a rule may mean.
    pub(super) fingerprints: &'a Fingerprints,
    pub(super) random: Random,
    /// Counters of evaluations given out.
    pub(crate) counters: u32,
}

impl Compiler<'_> {
    /// Compiles the rules of an anchor or of the main ruleset; some may be what they were before.
    pub(super) fn lists(
        &mut self,
        rules: &Rules,
        slab: &Arc<RuleSlab>,
        before: &Kept<'_>,
    ) -> Result<Lists, CompileError> {
        // Built step by step: whatever has been taken is given back by `Drop` if a later step fails.
        let mut lists = Lists::empty(slab);
        let mut list = |kind| self.list(kind, rules.list(kind), before, slab, &mut lists.slots);
        lists.filter = list(Kind::Filter)?;
        lists.translation.nat = list(Kind::Nat)?;
        lists.translation.rdr = list(Kind::Rdr)?;
        lists.translation.binat = self.binat(&rules.binat, before, slab, &mut lists.slots)?;
        lists.ether = self.ether(&rules.ether, before.ether_rules(), slab, &mut lists.slots)?;
        let counted = self.counters as usize;
        lists.evaluations = slab.per_worker(|| (0..counted).map(|_| Counter::new()).collect());
        lists.go_on(before);
        Ok(lists)
    }

    /// Compiles the rules of a list, which have the slots that they had `before` if they stay; `slots` gets what has been
    /// taken even if it fails.
    pub(super) fn list(
        &mut self,
        kind: Kind,
        rules: &[Rule],
        before: &Kept<'_>,
        slab: &RuleSlab,
        slots: &mut Vec<RuleSlot>,
    ) -> Result<Box<[Compiled]>, CompileError> {
        let mut list = Vec::with_capacity(rules.len());
        for (number, rule) in rules.iter().enumerate() {
            let before = before.rule(kind, number).map(|old| old.slot);
            let described = Described {
                number: number as u32,
                path: self.path,
                keep: rule.keep.as_ref(),
                rate: rule.max_pkt_rate,
                identifier: rule.ridentifier,
                labels: &rule.labels,
            };
            let slot = slab.share_or_take(before, &described)?;
            slots.push(slot);
            let mut compiled = self.rule(rule)?;
            compiled.slot = slot;
            compiled.counter = self.counters;
            self.counters += 1;
            list.push(compiled);
        }
        link_skip_steps(&mut list);
        Ok(list.into_boxed_slice())
    }

    pub(crate) fn iface(&self, on: Option<&On>) -> Iface {
        match on {
            None => Iface::Any,
            Some(on) => match (self.env.interface(&on.name), on.not) {
                (Some(i), false) => Iface::Is(i.index),
                (Some(i), true) => Iface::Not(i.index),
                (None, false) => Iface::Never,
                (None, true) => Iface::Any,
            },
        }
    }

    fn rare(&mut self, rule: &Rule) -> Option<Box<Rare>> {
        let route = rule.route.as_ref().map(|route| self.route(route));
        // A scrub rule's own is in its list.
        let is_filter = Kind::of(rule.action) == Some(Kind::Filter);
        let normalise = if is_filter { Normalise::from(&rule.scrub) } else { Normalise::NONE };
        let metered = rule.max_pkt_rate.is_some();
        let limited = Limited { state: rule.state_limiter, source: rule.source_limiter, metered };
        let limited = (limited != Limited::NOT).then_some(limited);
        let (prio, max_size, asks) = (rule.set_prio, rule.max_pkt_size, RouteTest::of(rule));
        let rare = Rare { route, normalise, prio, max_size, asks, limited };
        let is_some = rare.route.is_some()
            || !rare.normalise.is_none()
            || rare.prio.is_some()
            || rare.max_size != 0
            || rare.asks.is_some()
            || rare.limited.is_some();
        is_some.then(|| Box::new(rare))
    }

    pub(super) fn rule(&mut self, rule: &Rule) -> Result<Compiled, CompileError> {
        let iface = self.iface(rule.on.as_ref());
        let family = self.family(rule);
        let tag = rule.tag.as_deref().map_or(Ok(0), |t| self.names.tag(t))?;
        let tagged = match &rule.tagged {
            Some(tagged) => Some((self.names.tag(&tagged.name)?, tagged.not)),
            None => None,
        };
        let (queue, low_delay_queue) = match &rule.queue {
            None => (0, 0),
            Some(q) => {
                let queue = self.names.queue(&q.name)?;
                (queue, q.low_delay.as_deref().map_or(Ok(queue), |n| self.names.queue(n))?)
            }
        };
        Ok(Compiled {
            skip: [0; FIELDS],
            iface,
            direction: rule.direction,
            family,
            proto: rule.proto,
            src: self.address(&rule.from, family),
            sport: rule.from.port,
            dst: self.address(&rule.to, family),
            dport: rule.to.port,
            flags: rule.flags.filter(|f| f.mask != 0),
            icmp: rule.icmp,
            tos: rule.tos,
            prio: rule.prio,
            fragment: rule.fragment,
            tagged,
            quick: rule.quick,
            action: rule.action,
            keep: rule.keep.as_ref().map(KeepState::of),
            allow_opts: rule.allow_opts,
            log: rule.log,
            tag,
            queue,
            low_delay_queue,
            slot: RuleSlot::NONE,
            counter: 0,
            received: self.iface(rule.received_on.as_ref()),
            os: rule.os.as_deref().map(|os| Asked::of(os, self.fingerprints, self.names)).transpose()?,
            once: rule.once.clone(),
            probability: rule.probability,
            translates: self.translates(rule),
            nat_pass: rule.nat_pass,
            rare: self.rare(rule),
            call: rule.anchor.as_ref().map_or(Ok(0), |call| self.names.call(&call.target()))?,
        })
    }

    pub(crate) fn address(&self, peer: &Peer, family: Option<Family>) -> AddrTest {
        let not = peer.not;
        match &peer.host {
            // What the address alone does not tell, `RouteTest` asks when all else matches.
            Host::Any | Host::NoRoute | Host::UrpfFailed => AddrTest::Any,
            Host::Prefix(p) => {
                let (mask, value) = p.mask();
                AddrTest::Masked { family: p.family(), mask, value, not }
            }
            Host::Range(a, b) => {
                AddrTest::Range { family: Family::of(*a), low: bits(*a), high: bits(*b), not }
            }
            Host::Dynamic(d) => {
                let entries: Vec<Entry> = self.env.entries_of(d, family);
                AddrTest::Set { set: Arc::new(AddrSet::new(&entries)), not }
            }
            Host::Table(name) => match self.tables.get(name.as_str()) {
                Some(table) => AddrTest::Table { table: Arc::clone(table), not },
                None => AddrTest::Set { set: Arc::default(), not },
            },
        }
    }
}
