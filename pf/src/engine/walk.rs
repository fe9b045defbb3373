//! A walk through the rules: what they do while they are evaluated.

use kern::{
    Why,
    lock::{Held, levels::PfRules},
};

use super::lent::Lent;
use crate::{
    IfIndex,
    addr::Family,
    counters::NOBODY,
    eval::{Effects, Trial},
    limiter::Limited,
    log::Where,
    nat::{
        Chooser,
        mapping::{Choices, Endpoint},
    },
    osfp::{Asked, Sender},
    packet::Packet,
    pf::Pf,
    route::Routes,
    rule::Direction,
    ruleset::Compiled,
    slab::RuleSlot,
    state::States,
    track::NodeKey,
};

/// A rule that has translated a packet.
#[derive(Clone, Copy)]
pub(super) struct By<'a> {
    pub(super) rule: &'a Compiled,
    /// The address that the source is to keep.
    pub(super) sticky: Option<u128>,
}

/// Counters of rules, of one worker.
#[derive(Clone, Copy)]
pub(super) struct Counts<'a> {
    pub(super) pf: &'a Pf,
    pub(super) worker: usize,
}

impl Counts<'_> {
    /// As it is for whoever only asks: nothing is counted, and no rate is used up.
    pub(super) fn asking(self) -> Self {
        Counts { worker: NOBODY, ..self }
    }

    /// Whether the rate of a rule has room. Whoever only asks is no worker, and finds that it has.
    fn meters(&self, rule: RuleSlot, now: u64, packets: u32) -> bool {
        let is_worker = self.pf.counters.get(self.worker).is_some();
        !is_worker || self.pf.slab.slot(rule).is_none_or(|slot| slot.meters(now, packets))
    }
}

/// What rules do while they are evaluated.
pub(super) struct Walk<'w, 'a, 'r> {
    pub(super) states: &'w States,
    pub(super) held: &'w mut Held<'a, PfRules>,
    pub(super) choices: &'w mut Choices,
    pub(super) counts: Counts<'w>,
    pub(super) direction: Direction,
    pub(super) interface: IfIndex,
    pub(super) lent: &'w mut Lent<'a>,
    /// Where what matches is logged, since a rule said `log (matches)`.
    pub(super) following: Option<Where>,
    /// The router itself has sent the packet.
    pub(super) own: bool,
    /// Who sent the packet as it came, and when, in nanoseconds of the clock: for limiters.
    pub(super) source: (Family, u128),
    /// The port that it came from.
    pub(super) port: u16,
    pub(super) now: u64,
    /// The packet may open a state, and so be translated.
    pub(super) opens: bool,
    /// Who sent the packet, for rules that ask.
    pub(super) sender: Sender<'w, 'r>,
    /// The last rule that has translated.
    pub(super) by: Option<By<'r>>,
}

impl<'r> Walk<'_, '_, 'r> {
    pub(super) fn translate(&mut self, rule: &'r Compiled, p: &mut Packet) -> Result<(), Why> {
        self.count(rule, p);
        let mut by = By { rule, sticky: None };
        for to in &rule.translates {
            let key = NodeKey { rule: rule.slot, sticky: true, family: p.family, source: p.src };
            let kept = if to.is_sticky() { self.states.nodes().address(self.held, &key) } else { None };
            let mut chooser = Chooser {
                states: self.states,
                held: self.held,
                choices: self.choices,
                direction: to.key_direction(self.direction),
                sender: Endpoint { family: self.source.0, address: self.source.1, port: self.port },
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
        (self.choices.random.next() as u32) < share
    }

    fn is_from(&mut self, wanted: Asked, p: &Packet) -> bool {
        self.sender.is(wanted, p)
    }

    #[inline(always)]
    fn routes(&self) -> Option<&dyn Routes> {
        self.lent.routes
    }

    #[cold]
    fn looks_at(&mut self, rule: &Compiled, limited: Limited, packets: u32) -> Result<(), Option<Why>> {
        if limited.metered && !self.counts.meters(rule.slot, self.now, packets) {
            return Err(None);
        }
        let (limiters, worker) = (&self.states.limiters, self.counts.worker);
        let looked = limiters.look(self.held, worker, limited, self.source, self.now);
        looked.map_err(|(by, why)| by.block.then_some(why))
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
            && let Some(log) = self.following
        {
            self.log(rule, within, log);
        }
    }
}
