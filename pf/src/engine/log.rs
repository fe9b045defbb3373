//! Which packets are logged, and as what (see [`crate::log`]).

use std::net::IpAddr;

use kern::{Mbuf, PktFlags};

use super::{PfCx, lent::Lent, walk::Walk};
use crate::{
    IfIndex,
    counters::NOBODY,
    log::{self, Logged, Reason, Record, Where},
    packet::Packet,
    rule::{Direction, Log},
    ruleset::Compiled,
    slab::{RuleSlab, RuleSlot, Slot},
    state::Hit,
    verdict::Verdict,
};

/// The rules that have decided on a packet.
#[derive(Clone, Copy, Default)]
pub(super) struct Decision<'r> {
    /// The filter rule, or the rule of translation with `pass`.
    pub(super) rule: Option<&'r Compiled>,
    /// The call in the main ruleset that leads to it.
    pub(super) call: Option<&'r Compiled>,
    /// The nat, binat or rdr rule that translates; match rules log by themselves.
    pub(super) translates: Option<&'r Compiled>,
}

impl<'r> Decision<'r> {
    /// The rule that is logged: the one that decides if it says so, else the one that translates.
    #[inline(always)]
    fn logged(&self) -> Option<(&'r Compiled, Log)> {
        let of = |rule: Option<&'r Compiled>| rule.and_then(|rule| Some((rule, rule.log?)));
        of(self.rule).or_else(|| of(self.translates))
    }
}

/// What is to be said of a packet.
struct Event {
    log: Where,
    own: bool,
    source: (IpAddr, u16),
    direction: Direction,
    interface: IfIndex,
    became: (Logged, Reason),
    rule: RuleSlot,
    call: RuleSlot,
}

impl Lent<'_> {
    #[cold]
    fn say(&mut self, slab: &RuleSlab, event: &Event, packet: &[u8]) {
        let Some(logger) = &mut self.logger else { return };
        let number = |slot| slab.slot(slot).map_or(u32::MAX, Slot::number);
        let anchor = slab.anchor(event.rule);
        let (rule, in_anchor) = match event.call {
            RuleSlot::NONE => (number(event.rule), None),
            call => (number(call), Some(number(event.rule))),
        };
        let (action, reason) = event.became;
        let &Event { log: Where { to, user }, own, source, direction, interface, .. } = event;
        let anchor = anchor.as_deref().unwrap_or("");
        let identifier = slab.slot(event.rule).map_or(0, Slot::identifier);
        let record = Record {
            to,
            direction,
            interface,
            action,
            reason,
            rule,
            in_anchor,
            identifier,
            anchor,
            user,
            own,
            source,
        };
        logger.log(&record, packet);
    }
}

impl PfCx<'_> {
    /// Logs a packet of which rules have made this, if they say so.
    #[inline(always)]
    pub(super) fn log_decided(
        &mut self,
        direction: Direction,
        interface: IfIndex,
        m: &Mbuf,
        p: &Packet,
        verdict: &Verdict,
        decision: &Decision<'_>,
    ) {
        let Some((rule, log)) = decision.logged() else { return };
        let event = Event {
            log: log.into(),
            own: is_own(m),
            source: source(p),
            direction,
            interface,
            became: log::outcome(verdict, rule.action),
            rule: rule.slot,
            call: slot_of(decision.call),
        };
        self.lent.say(&self.pf.slab, &event, m.data());
    }

    /// Logs a packet of a state whose rule says `log (all)`.
    #[cold]
    pub(super) fn log_by_state(
        &mut self,
        direction: Direction,
        interface: IfIndex,
        m: &Mbuf,
        p: &Packet,
        hit: &Hit,
        log: Where,
    ) {
        let became = (Logged::Pass, Reason::Match);
        let (rule, call) = (hit.rule, hit.anchor);
        let event =
            Event { log, own: is_own(m), source: source(p), direction, interface, became, rule, call };
        self.lent.say(&self.pf.slab, &event, m.data());
    }
}

impl<'r> Walk<'_, '_, 'r> {
    /// Logs a packet that a match rule has matched, if the rule says so.
    #[inline(always)]
    pub(super) fn log_matched(&mut self, rule: &'r Compiled, within: Option<&'r Compiled>) {
        if let Some(log) = rule.log {
            self.log(rule, within, log.into());
            if log.matches {
                self.following = Some(log.into());
            }
        }
    }

    /// Logs a packet that a rule behind one with `log (matches)` matches.
    #[cold]
    pub(super) fn log(&mut self, rule: &'r Compiled, within: Option<&'r Compiled>, log: Where) {
        if self.counts.worker == NOBODY {
            // There is no packet.
            return;
        }
        let event = Event {
            log,
            own: self.own,
            source: (self.source.0.address(self.source.1), self.port),
            direction: self.direction,
            interface: self.interface,
            became: (Logged::of(rule.action), Reason::Match),
            rule: rule.slot,
            call: slot_of(within),
        };
        self.lent.say(&self.counts.pf.slab, &event, self.sender.packet());
    }
}

/// Where a packet came from, as it was read.
fn source(p: &Packet) -> (IpAddr, u16) {
    (p.family.address(p.src), p.sport)
}

/// Whether the router itself has sent a packet.
pub(super) fn is_own(m: &Mbuf) -> bool {
    m.hdr().flags.has(PktFlags::ORIGIN)
}

fn slot_of(call: Option<&Compiled>) -> RuleSlot {
    call.map_or(RuleSlot::NONE, |call| call.slot)
}
