//! Evaluation of a ruleset: every rule in order, the last that matches decides, `quick` decides at once.
//!
//! What a `match` rule says sticks to the packet; if it translates, later rules see what it made of it.

use kern::{Why, counter::Counter};
use wire::IpProto;

use crate::{
    IfIndex,
    packet::Packet,
    rule::{Action, Direction, Ports},
    ruleset::Compiled,
};

/// What evaluation came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// The rule that decides; none matched if there is none.
    pub(crate) rule: Option<usize>,
    /// The tag after all rules that matched.
    pub(crate) tag: u16,
    /// The queues that match rules have chosen; 0 is none.
    pub(crate) queue: u16,
    pub(crate) low_delay_queue: u16,
    /// A match rule lets IP options pass.
    pub(crate) allow_opts: bool,
}

/// What rules do while they are evaluated.
pub(crate) trait Effects<'r> {
    /// Whether a rule with this share of 2^32 is honoured.
    fn honours(&mut self, share: u32) -> bool;

    /// A match rule has matched.
    fn matched(&mut self, rule: &'r Compiled, p: &mut Packet) -> Result<(), Why>;
}

/// Evaluates the rules for a packet, jumping by skip steps.
#[inline]
pub(crate) fn evaluate<'r>(
    rules: &'r [Compiled],
    evaluations: &[Counter],
    direction: Direction,
    index: IfIndex,
    p: &mut Packet,
    effects: &mut impl Effects<'r>,
) -> Result<Outcome, Why> {
    let mut outcome = Outcome::decided(p.tag);
    let mut i = 0;
    while let Some(rule) = rules.get(i) {
        if let Some(counter) = evaluations.get(i) {
            counter.inc();
        }
        if let Some(field) = rule.mismatch(direction, index, p) {
            i = rule.skip[field] as usize;
            continue;
        }
        if rule.rest_matches(p, outcome.tag) && rule.is_honoured(effects) {
            if rule.tag != 0 {
                outcome.tag = rule.tag;
            }
            if rule.action == Action::Match {
                outcome.stick(rule);
                effects.matched(rule, p)?;
            } else {
                outcome.rule = Some(i);
            }
            if rule.quick {
                break;
            }
        }
        i += 1;
    }
    Ok(outcome)
}

/// The first of the rules of translation that matches; nothing if that says `no`.
pub(crate) fn first_match<'a>(
    rules: &'a [Compiled],
    evaluations: &[Counter],
    direction: Direction,
    index: IfIndex,
    p: &mut Packet,
    effects: &mut impl Effects<'a>,
) -> Option<&'a Compiled> {
    let mut i = 0;
    while let Some(rule) = rules.get(i) {
        if let Some(counter) = evaluations.get(rule.counter as usize) {
            counter.inc();
        }
        if let Some(field) = rule.mismatch(direction, index, p) {
            i = rule.skip[field] as usize;
            continue;
        }
        if rule.rest_matches(p, p.tag) && rule.is_honoured(effects) {
            if rule.tag != 0 {
                p.tag = rule.tag;
            }
            let translates = matches!(rule.action, Action::Nat | Action::Rdr | Action::Binat);
            return translates.then_some(rule);
        }
        i += 1;
    }
    None
}

impl Outcome {
    /// Decided without evaluation.
    pub(crate) const fn decided(tag: u16) -> Outcome {
        Outcome { rule: None, tag, queue: 0, low_delay_queue: 0, allow_opts: false }
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
    }
}

impl Compiled {
    #[inline(always)]
    fn is_honoured<'r>(&self, effects: &mut impl Effects<'r>) -> bool {
        self.probability.is_none_or(|share| effects.honours(share))
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
        if !self.received.matches(p.received) {
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
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        Environment, Names, Pf, PfConf,
        addr::{Entry, Family, Prefix, bits},
        arbitrary,
        conf::Table,
        env::{IfAddress, Interface},
        rule::{Host, Peer, Rule, Rules},
    };
    use proptest::prelude::*;

    fn env() -> Environment {
        let interface = |name: &str, index, addr: &str| Interface {
            name: name.into(),
            index: IfIndex(index),
            addresses: vec![
                IfAddress::new(addr.parse().unwrap(), 30),
                IfAddress::new("2001:db8::1".parse().unwrap(), 126),
            ],
            mtu: 1500,
            bandwidth: None,
        };
        Environment::new(vec![interface("lan0", 1, "192.0.2.1"), interface("wan0", 2, "192.0.2.5")])
    }

    fn table() -> Table {
        let entry = |not, text: &str, len| Entry { not, prefix: Prefix::new(text.parse().unwrap(), len) };
        Table {
            name: "t".into(),
            anchor: String::new(),
            constant: false,
            persist: false,
            counters: false,
            entries: vec![
                entry(false, "192.0.2.0", 30),
                entry(true, "192.0.2.2", 32),
                entry(false, "2001:db8::4", 127),
            ],
            files: Vec::new(),
        }
    }

    /// The rules as the manual has them: one after the other, field by field, by name.
    fn linear(
        rules: &[Rule],
        names: &mut Names,
        direction: Direction,
        index: IfIndex,
        p: &mut Packet,
    ) -> Outcome {
        let env = env();
        let mut outcome = Outcome::decided(p.tag);
        for (i, rule) in rules.iter().enumerate() {
            if !matches(rule, &env, names, direction, index, p, outcome.tag) {
                continue;
            }
            let tag = rule.tag.as_ref().map_or(0, |tag| names.tag(tag).unwrap());
            if tag != 0 {
                outcome.tag = tag;
            }
            if rule.action == Action::Match {
                translate(tag, p);
                outcome.allow_opts |= rule.allow_opts;
                if let Some(queue) = &rule.queue {
                    let mut number = |name: &String| names.queue(name).unwrap();
                    outcome.queue = number(&queue.name);
                    outcome.low_delay_queue = number(queue.low_delay.as_ref().unwrap_or(&queue.name));
                }
            } else {
                outcome.rule = Some(i);
            }
            if rule.quick {
                break;
            }
        }
        outcome
    }

    fn matches(
        rule: &Rule,
        env: &Environment,
        names: &mut Names,
        direction: Direction,
        index: IfIndex,
        p: &Packet,
        tag: u16,
    ) -> bool {
        let here = |name: &str| env.interface(name).is_some_and(|i| i.index == index);
        let is_port =
            |ports: Option<Ports>, port| ports.is_none_or(|ports| !p.fragment && ports.matches(port));
        rule.on.as_ref().is_none_or(|on| here(&on.name) != on.not)
            && rule.direction.is_none_or(|d| d == direction)
            && rule.family.is_none_or(|f| f == p.family)
            && rule.proto.is_none_or(|n| n == p.proto)
            && address(&rule.from, env, p.family, p.src)
            && address(&rule.to, env, p.family, p.dst)
            && is_port(rule.from.port, p.sport)
            && is_port(rule.to.port, p.dport)
            && (!rule.fragment || p.fragment)
            && rule.tos.is_none_or(|tos| tos == p.tos)
            && rule.tagged.as_ref().is_none_or(|t| (names.tag(&t.name).unwrap() == tag) != t.not)
            && (p.proto != 6 || rule.flags.is_none_or(|f| !p.fragment && p.tcp.flags & f.mask == f.set))
            && (!matches!(p.proto, 1 | 58)
                || rule
                    .icmp
                    .is_none_or(|i| !p.fragment && i.kind == p.icmp && i.code.is_none_or(|c| c == p.code)))
    }

    fn address(peer: &Peer, env: &Environment, family: Family, addr: u128) -> bool {
        let within = |prefix: &Prefix| {
            let (first, last) = prefix.range();
            prefix.family() == family && (first..=last).contains(&addr)
        };
        let is_in = match &peer.host {
            Host::Any => return true,
            Host::NoRoute | Host::UrpfFailed => return false,
            Host::Prefix(prefix) => within(prefix),
            Host::Range(a, b) => Family::of(*a) == family && (bits(*a)..=bits(*b)).contains(&addr),
            Host::Dynamic(d) => env.addresses_of(d, None).iter().any(within),
            Host::Table(_) => {
                let entries = table().entries;
                entries
                    .iter()
                    .filter(|e| within(&e.prefix))
                    .max_by_key(|e| e.prefix.length())
                    .is_some_and(|e| !e.not)
            }
        };
        is_in != peer.not
    }

    /// What a match rule with a tag does to a packet in this test, in place of a translation.
    fn translate(tag: u16, p: &mut Packet) {
        if tag != 0 {
            (p.dport, p.src) = (tag % 7, p.src ^ 1);
        }
    }

    /// One rule of four is a match rule.
    fn sometimes_match((mut rule, n): (Rule, i32)) -> Rule {
        if n == 0 {
            (rule.action, rule.keep) = (Action::Match, None);
        }
        rule
    }

    struct Translating;

    impl Effects<'_> for Translating {
        fn honours(&mut self, _: u32) -> bool {
            unreachable!("no rule here has a probability")
        }

        fn matched(&mut self, rule: &Compiled, p: &mut Packet) -> Result<(), Why> {
            translate(rule.tag, p);
            Ok(())
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(if std::env::var_os("SOFTNET_SOAK").is_some() { 100_000 } else { 400 }))]

        #[test]
        fn skip_steps_and_compiled_rules_decide_as_the_plain_rules_do(
            rules in proptest::collection::vec((arbitrary::rule(), 0..4).prop_map(sometimes_match), 0..30),
            packets in proptest::collection::vec((arbitrary::packet(), any::<bool>(), 0_u16..4), 20),
        ) {
            let mut names = Names::new();
            let conf = Arc::new(PfConf { rules: Rules { filter: rules, ..Rules::default() }, tables: vec![table()], ..PfConf::default() });
            let ruleset = Pf::new(1, 1).compile(&conf, &env(), &mut names).unwrap();
            for (p, inward, index) in packets {
                let direction = if inward { Direction::In } else { Direction::Out };
                let (mut seen, mut translated) = (p, p);
                let evaluations = ruleset.evaluations_of(0);
                let fast = evaluate(&ruleset.rules, evaluations, direction, IfIndex(index), &mut seen, &mut Translating);
                let fast = fast.unwrap();
                let plain = linear(&conf.rules.filter, &mut names, direction, IfIndex(index), &mut translated);
                prop_assert_eq!((seen.src, seen.dport), (translated.src, translated.dport));
                prop_assert_eq!(fast, plain);
                // What is known beforehand of an interface must be what each of its packets gets.
                if let crate::ruleset::Constant::Pass { rule, .. } = ruleset.constant(direction, IfIndex(index)) {
                    prop_assert_eq!(plain.rule, rule.map(|r| r as usize));
                }
            }
        }
    }
}
