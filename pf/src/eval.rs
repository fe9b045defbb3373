//! Evaluation of a ruleset: every rule in order, the last that matches decides, `quick` decides at once.

use kern::counter::Counter;
use wire::IpProto;

use crate::{
    IfIndex,
    packet::Packet,
    rule::{Direction, Ports},
    ruleset::Compiled,
};

/// What evaluation came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// The rule that decides; none matched if there is none.
    pub(crate) rule: Option<usize>,
    /// The tag after all rules that matched.
    pub(crate) tag: u16,
}

/// Evaluates the rules for a packet, jumping by skip steps.
#[inline]
pub(crate) fn evaluate(
    rules: &[Compiled],
    evaluations: &[Counter],
    direction: Direction,
    index: IfIndex,
    p: &Packet,
) -> Outcome {
    let mut outcome = Outcome { rule: None, tag: p.tag };
    let mut i = 0;
    while let Some(rule) = rules.get(i) {
        if let Some(counter) = evaluations.get(i) {
            counter.inc();
        }
        if let Some(field) = rule.mismatch(direction, index, p) {
            i = rule.skip[field] as usize;
            continue;
        }
        if rule.rest_matches(p, outcome.tag) {
            outcome.rule = Some(i);
            if rule.tag != 0 {
                outcome.tag = rule.tag;
            }
            if rule.quick {
                break;
            }
        }
        i += 1;
    }
    outcome
}

impl Compiled {
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
