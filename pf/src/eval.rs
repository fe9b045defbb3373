//! Evaluation of a ruleset: every rule in order, the last that matches decides, `quick` decides at once.
//!
//! What a `match` rule says sticks to the packet; if it translates, later rules see what it made of it. A call of an
//! anchor evaluates the rules there in its place (see [`crate::anchor`]).

use kern::Why;
use wire::IpProto;

use crate::{
    IfIndex,
    anchor::{Calls, Kind, Lists},
    limiter::Limited,
    osfp::Asked,
    packet::Packet,
    route::Routes,
    rule::{Action, Direction, Ports},
    ruleset::{Compiled, Rare, Ruleset},
    treatment::Treatment,
};

/// What evaluation came to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outcome<'r> {
    /// The rule that decides; none matched if there is none.
    pub(crate) rule: Option<&'r Compiled>,
    /// The call in the main ruleset that leads to this rule.
    pub(crate) anchor: Option<&'r Compiled>,
    /// The tag after all rules that matched.
    pub(crate) tag: u16,
    /// The queues that match rules have chosen; 0 is none.
    pub(crate) queue: u16,
    pub(crate) low_delay_queue: u16,
    /// A match rule lets IP options pass.
    pub(crate) allow_opts: bool,
    /// What match rules say besides.
    pub(crate) treatment: Treatment,
    /// The rule would have passed the packet, and its limiter blocks it.
    pub(crate) full: Option<Why>,
}

/// What rules do while they are evaluated.
pub(crate) trait Effects<'r> {
    /// Whether a rule with this share of 2^32 is honoured.
    fn honours(&mut self, share: u32) -> bool;

    /// Whether the sender of a packet is a system that a rule asks for.
    fn is_from(&mut self, wanted: Asked, p: &Packet) -> bool;

    /// The routes, if there are any to ask.
    fn routes(&self) -> Option<&dyn Routes>;

    /// Whether rate and limiters of a rule have room for so many packets; if not, whether it blocks them, and why.
    fn looks_at(&mut self, rule: &Compiled, limited: Limited, packets: u32) -> Result<(), Option<Why>>;

    /// A match rule has matched, within what a call in the main ruleset calls.
    fn matched(
        &mut self,
        rule: &'r Compiled,
        within: Option<&'r Compiled>,
        p: &mut Packet,
    ) -> Result<(), Why>;

    /// A rule has been tried, and was found to match or not.
    #[inline(always)]
    fn tried(&mut self, _rule: &'r Compiled, _within: Option<&'r Compiled>, _trial: Trial) {}
}

/// What came of trying a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trial {
    /// This field with skip steps does not match, the first of them.
    Field(usize),
    /// Another field does not match, or the sender is another system, or chance has it that the rule is passed over.
    Rest,
    /// Its limiter or its rate has no room.
    Full,
    /// It matches.
    Matches,
}

/// Evaluates the rules for a packet, jumping by skip steps.
#[inline]
pub(crate) fn evaluate<'r>(
    rules: &'r Ruleset,
    worker: usize,
    direction: Direction,
    index: IfIndex,
    p: &mut Packet,
    effects: &mut impl Effects<'r>,
) -> Result<Outcome<'r>, Why> {
    let mut outcome = Outcome::decided(p.tag);
    Evaluation { calls: &rules.calls, worker, direction, index, within: None }.run(
        &rules.main,
        p,
        effects,
        &mut outcome,
    )?;
    Ok(outcome)
}

/// Where evaluation stands.
#[derive(Clone, Copy)]
struct Evaluation<'r> {
    calls: &'r Calls,
    worker: usize,
    direction: Direction,
    index: IfIndex,
    /// The call in the main ruleset that has led here.
    within: Option<&'r Compiled>,
}

/// Whether a `quick` has ended evaluation.
type Ended = bool;

/// Why a rule does not apply that matches by all that the packet says.
enum Denied {
    /// The next rule is looked at.
    PassesOver(Trial),
    /// Its limiter has no room, and blocks the packet.
    Full(Why),
}

impl<'r> Evaluation<'r> {
    /// Evaluates the filter rules of the main ruleset or of an anchor.
    #[inline]
    fn run(
        self,
        lists: &'r Lists,
        p: &mut Packet,
        effects: &mut impl Effects<'r>,
        outcome: &mut Outcome<'r>,
    ) -> Result<Ended, Why> {
        let (rules, evaluations) = (&lists.filter, lists.evaluations_of(self.worker));
        let mut i = 0;
        while let Some(rule) = rules.get(i) {
            if let Some(counter) = evaluations.get(i) {
                counter.inc();
            }
            if let Some(field) = rule.mismatch(self.direction, self.index, p) {
                effects.tried(rule, self.within, Trial::Field(field));
                i = rule.skip[field] as usize;
                continue;
            }
            let matches = rule.rest_matches(p, outcome.tag) && rule.is_honoured(p, effects);
            if matches && let Some(rare) = &rule.rare {
                match self.asks(rule, rare, p, effects) {
                    Ok(()) => {}
                    Err(Denied::PassesOver(trial)) => {
                        effects.tried(rule, self.within, trial);
                        i += 1;
                        continue;
                    }
                    Err(Denied::Full(why)) => {
                        effects.tried(rule, self.within, Trial::Matches);
                        (outcome.rule, outcome.anchor, outcome.full) = (Some(rule), self.within, Some(why));
                        return Ok(true);
                    }
                }
            }
            if matches {
                effects.tried(rule, self.within, Trial::Matches);
                if rule.tag != 0 {
                    outcome.tag = rule.tag;
                }
                if rule.call != 0 {
                    if self.call(rule, p, effects, outcome)? {
                        return Ok(true);
                    }
                } else {
                    if rule.action == Action::Match {
                        outcome.stick(rule);
                        effects.matched(rule, self.within, p)?;
                    } else {
                        (outcome.rule, outcome.anchor) = (Some(rule), self.within);
                    }
                    if rule.quick {
                        return Ok(true);
                    }
                }
            } else {
                effects.tried(rule, self.within, Trial::Rest);
            }
            i += 1;
        }
        Ok(false)
    }

    /// Asks others whether a rule applies to a packet that it matches by all that the packet says.
    #[inline(always)]
    fn asks(
        self,
        rule: &Compiled,
        rare: &Rare,
        p: &Packet,
        effects: &mut impl Effects<'r>,
    ) -> Result<(), Denied> {
        if let Some(field) = rare.asks.and_then(|test| test.mismatch(self.index, p, effects.routes())) {
            return Err(Denied::PassesOver(Trial::Field(field)));
        }
        let Some(limited) = rare.limited else { return Ok(()) };
        let looked = effects.looks_at(rule, limited, p.segments);
        looked.map_err(|full| full.map_or(Denied::PassesOver(Trial::Full), Denied::Full))
    }

    /// Evaluates what a rule calls. Depth is bounded: no ruleset is compiled in which an anchor calls itself.
    #[cold]
    fn call(
        self,
        call: &'r Compiled,
        p: &mut Packet,
        effects: &mut impl Effects<'r>,
        outcome: &mut Outcome<'r>,
    ) -> Result<Ended, Why> {
        let inside = Evaluation { within: self.within.or(Some(call)), ..self };
        let before = outcome.rule.take();
        let mut ended = false;
        for lists in self.calls.of(call.call) {
            ended = inside.run(lists, p, effects, outcome)?;
            if ended {
                break;
            }
        }
        let decided = outcome.rule.is_some();
        outcome.rule = outcome.rule.or(before);
        Ok(ended || (call.quick && decided))
    }

    /// The first of the rules of translation that matches.
    fn first(
        self,
        kind: Kind,
        lists: &'r Lists,
        p: &mut Packet,
        effects: &mut impl Effects<'r>,
    ) -> Option<&'r Compiled> {
        let rules = match kind {
            Kind::Binat => &lists.translation.binat[self.direction.index()],
            kind => lists.list(kind),
        };
        let evaluations = lists.evaluations_of(self.worker);
        let mut i = 0;
        while let Some(rule) = rules.get(i) {
            if let Some(counter) = evaluations.get(rule.counter as usize) {
                counter.inc();
            }
            if let Some(field) = rule.mismatch(self.direction, self.index, p) {
                effects.tried(rule, self.within, Trial::Field(field));
                i = rule.skip[field] as usize;
                continue;
            }
            if rule.rest_matches(p, p.tag) && rule.is_honoured(p, effects) {
                let routes = effects.routes();
                if let Some(field) = rule.asks().and_then(|test| test.mismatch(self.index, p, routes)) {
                    effects.tried(rule, self.within, Trial::Field(field));
                    i += 1;
                    continue;
                }
                effects.tried(rule, self.within, Trial::Matches);
                if rule.tag != 0 {
                    p.tag = rule.tag;
                }
                if rule.call == 0 {
                    return Some(rule);
                }
                for called in self.calls.of(rule.call) {
                    if let Some(found) = self.first(kind, called, p, effects) {
                        return Some(found);
                    }
                }
            } else {
                effects.tried(rule, self.within, Trial::Rest);
            }
            i += 1;
        }
        None
    }
}

/// The first of the rules of translation that matches; nothing if that says `no`.
pub(crate) fn first_match<'r>(
    rules: &'r Ruleset,
    worker: usize,
    kind: Kind,
    direction: Direction,
    index: IfIndex,
    p: &mut Packet,
    effects: &mut impl Effects<'r>,
) -> Option<&'r Compiled> {
    let evaluation = Evaluation { calls: &rules.calls, worker, direction, index, within: None };
    let rule = evaluation.first(kind, &rules.main, p, effects)?;
    matches!(rule.action, Action::Nat | Action::Rdr | Action::Binat).then_some(rule)
}

impl<'r> Outcome<'r> {
    /// Decided without evaluation.
    pub(crate) const fn decided(tag: u16) -> Outcome<'r> {
        Outcome {
            rule: None,
            anchor: None,
            tag,
            queue: 0,
            low_delay_queue: 0,
            allow_opts: false,
            treatment: Treatment::NONE,
            full: None,
        }
    }

    /// The queues of a packet that a rule passes.
    #[inline(always)]
    pub(crate) fn queues(&self, rule: &Compiled) -> (u16, u16) {
        if rule.queue != 0 { (rule.queue, rule.low_delay_queue) } else { (self.queue, self.low_delay_queue) }
    }

    #[cold]
    fn stick(&mut self, rule: &Compiled) {
        if rule.queue != 0 {
            (self.queue, self.low_delay_queue) = (rule.queue, rule.low_delay_queue);
        }
        self.allow_opts |= rule.allow_opts;
        self.treatment = self.treated_by(rule);
    }

    /// What a packet gets that has come to this rule.
    #[inline(always)]
    pub(crate) fn treated_by(&self, rule: &Compiled) -> Treatment {
        match &rule.rare {
            Some(rare) => self.treatment.then(rare.normalise, rare.prio, rare.max_size),
            None => self.treatment,
        }
    }
}

impl Compiled {
    /// Whether a rule that matches otherwise does so by what few rules ask: that it has had no packet yet, the sender's
    /// system, and chance.
    #[inline(always)]
    fn is_honoured<'r>(&self, p: &Packet, effects: &mut impl Effects<'r>) -> bool {
        self.once.as_ref().is_none_or(|once| !once.is_spent())
            && self.os.is_none_or(|os| effects.is_from(os, p))
            && self.probability.is_none_or(|share| effects.honours(share))
    }

    /// The first of the fields with skip steps that does not match.
    #[inline(always)]
    pub(crate) fn mismatch(&self, direction: Direction, index: IfIndex, p: &Packet) -> Option<usize> {
        if !self.iface.matches(index) {
            return Some(0);
        }
        if self.direction.is_some_and(|d| d != direction) {
            return Some(1);
        }
        if self.family.is_some_and(|f| f != p.family) {
            return Some(2);
        }
        if self.proto.is_some_and(|n| n != p.proto) {
            return Some(3);
        }
        if !self.src.matches(p.family, p.src) {
            return Some(4);
        }
        if !port_matches(self.sport, p.sport, p.fragment) {
            return Some(5);
        }
        if !self.dst.matches(p.family, p.dst) {
            return Some(6);
        }
        if !port_matches(self.dport, p.dport, p.fragment) {
            return Some(7);
        }
        None
    }

    /// Whether the fields without skip steps match; `tag` is what earlier rules made of it.
    #[inline(always)]
    pub(crate) fn rest_matches(&self, p: &Packet, tag: u16) -> bool {
        if self.fragment && !p.fragment {
            return false;
        }
        if let Some(tos) = self.tos
            && tos != p.tos
        {
            return false;
        }
        if self.prio.is_some_and(|prio| prio != p.prio) || !self.received.matches(p.received) {
            return false;
        }
        if let Some((wanted, not)) = self.tagged
            && (wanted == tag) == not
        {
            return false;
        }
        match IpProto(p.proto) {
            IpProto::TCP => self.flags.is_none_or(|f| !p.fragment && p.tcp.flags & f.mask == f.set),
            IpProto::ICMP | IpProto::ICMPV6 => self
                .icmp
                .is_none_or(|i| !p.fragment && i.kind == p.icmp && i.code.is_none_or(|code| code == p.code)),
            _ => true,
        }
    }
}

/// A fragment has no ports: no rule with ports is for it.
#[inline(always)]
fn port_matches(ports: Option<Ports>, port: u16, fragment: bool) -> bool {
    match ports {
        None => true,
        Some(ports) => !fragment && ports.matches(port),
    }
}

#[cfg(test)]
pub(crate) mod linear;
#[cfg(test)]
mod tests;
