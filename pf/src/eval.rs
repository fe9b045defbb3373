//! Evaluation of a ruleset: every rule in order, the last that matches decides, `quick` decides at once.
//!
//! What a `match` rule says sticks to the packet; if it translates, later rules see what it made of it. A call of an
//! anchor evaluates the rules there in its place (see [`crate::anchor`]).

use kern::Why;
use wire::IpProto;

use crate::{
    IfIndex,
    anchor::{Calls, Kind, Lists},
    osfp::Asked,
    packet::Packet,
    rule::{Action, Direction, Ports},
    ruleset::{Compiled, Ruleset},
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
}

/// What rules do while they are evaluated.
pub(crate) trait Effects<'r> {
    /// Whether a rule with this share of 2^32 is honoured.
    fn honours(&mut self, share: u32) -> bool;

    /// Whether the sender of a packet is a system that a rule asks for.
    fn is_from(&mut self, wanted: Asked, p: &Packet) -> bool;

    /// A match rule has matched.
    fn matched(&mut self, rule: &'r Compiled, p: &mut Packet) -> Result<(), Why>;

    /// A rule has been tried, and was found to match or not; for [`crate::explain`] alone.
    #[inline(always)]
    fn tried(&mut self, _rule: &'r Compiled, _trial: Trial) {}
}

/// What came of trying a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trial {
    /// This field with skip steps does not match, the first of them.
    Field(usize),
    /// Another field does not match, or the sender is another system, or chance has it that the rule is passed over.
    Rest,
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
                effects.tried(rule, Trial::Field(field));
                i = rule.skip[field] as usize;
                continue;
            }
            if rule.rest_matches(p, outcome.tag) && rule.is_honoured(p, effects) {
                effects.tried(rule, Trial::Matches);
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
                        effects.matched(rule, p)?;
                    } else {
                        (outcome.rule, outcome.anchor) = (Some(rule), self.within);
                    }
                    if rule.quick {
                        return Ok(true);
                    }
                }
            } else {
                effects.tried(rule, Trial::Rest);
            }
            i += 1;
        }
        Ok(false)
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
                effects.tried(rule, Trial::Field(field));
                i = rule.skip[field] as usize;
                continue;
            }
            if rule.rest_matches(p, p.tag) && rule.is_honoured(p, effects) {
                effects.tried(rule, Trial::Matches);
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
                effects.tried(rule, Trial::Rest);
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
            Some(rare) => self.treatment.then(rare.normalise, rare.prio),
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
mod tests {
    use std::{collections::BTreeMap, sync::Arc};

    use super::*;
    use crate::{
        Environment, Names, Pf, PfConf,
        addr::{Entry, Family, Prefix, bits},
        anchor, arbitrary,
        conf::Table,
        env::{IfAddress, Interface},
        rule::{Anchor, AnchorCall, Host, Peer, Rule, Rules},
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

    fn table(anchor: &str) -> Table {
        let own = !anchor.is_empty();
        let entry = |not, text: &str, len| Entry { not, prefix: Prefix::new(text.parse().unwrap(), len) };
        Table {
            name: "t".into(),
            anchor: anchor.into(),
            constant: false,
            persist: false,
            counters: false,
            entries: vec![
                entry(own, "192.0.2.0", 30),
                entry(!own, "192.0.2.2", 32),
                entry(false, "2001:db8::4", 127),
            ],
            files: Vec::new(),
        }
    }

    /// A ruleset with anchors as the manual has it: rules one after the other, field by field, by name.
    struct Linear<'a> {
        rules: BTreeMap<String, &'a [Rule]>,
        /// The anchors that have a table of their own.
        own_tables: Vec<&'a str>,
        env: Environment,
        names: &'a mut Names,
        direction: Direction,
        index: IfIndex,
        /// The rule that decides, and the call in the main ruleset that led there.
        decides: Option<(String, usize)>,
        through: Option<usize>,
        outcome: Outcome<'a>,
    }

    impl Linear<'_> {
        /// Whether evaluation has ended.
        fn evaluate(&mut self, path: &str, through: Option<usize>, p: &mut Packet) -> bool {
            let table = table(if self.own_tables.contains(&path) { path } else { "" });
            for (i, rule) in self.rules.get(path).copied().unwrap_or(&[]).iter().enumerate() {
                let tag = self.outcome.tag;
                if !matches(rule, &self.env, &table, self.names, self.direction, self.index, p, tag) {
                    continue;
                }
                let tag = rule.tag.as_ref().map_or(0, |tag| self.names.tag(tag).unwrap());
                if tag != 0 {
                    self.outcome.tag = tag;
                }
                if let Some(call) = &rule.anchor {
                    if self.call(call, rule.quick, through.or(Some(i)), p) {
                        return true;
                    }
                    continue;
                }
                if rule.action == Action::Match {
                    translate(tag, p);
                    self.outcome.allow_opts |= rule.allow_opts;
                    if let Some(queue) = &rule.queue {
                        let mut number = |name: &String| self.names.queue(name).unwrap();
                        self.outcome.queue = number(&queue.name);
                        self.outcome.low_delay_queue =
                            number(queue.low_delay.as_ref().unwrap_or(&queue.name));
                    }
                } else {
                    (self.decides, self.through) = (Some((path.to_owned(), i)), through);
                }
                if rule.quick {
                    return true;
                }
            }
            false
        }

        fn call(&mut self, call: &AnchorCall, quick: bool, through: Option<usize>, p: &mut Packet) -> bool {
            let called: Vec<String> = if call.wildcard {
                let below = |path: &&String| path.rsplit_once('/').map_or("", |(up, _)| up) == call.path;
                self.rules.keys().filter(|path| !path.is_empty()).filter(below).cloned().collect()
            } else {
                vec![call.path.clone()]
            };
            let before = self.decides.take();
            let ended = called.iter().any(|path| self.evaluate(path, through, p));
            let decided = self.decides.is_some();
            if !decided {
                self.decides = before;
            }
            ended || (quick && decided)
        }
    }

    /// What may be called from where: never what calls oneself.
    const CALLS: [(&str, &[&str]); 5] = [
        ("", &["a", "a/*", "b", "a/x", "*", "none", "none/*"]),
        ("a", &["a/x", "a/*", "b"]),
        ("b", &[]),
        ("a/x", &["b"]),
        ("a/y", &["b"]),
    ];

    /// One rule of five calls something, as far as there is something to call.
    fn sometimes_call(path: &str, (mut rule, n): (Rule, usize)) -> Rule {
        let may = CALLS.iter().find(|(from, _)| *from == path).unwrap().1;
        if let Some(target) = may.get(n) {
            let wildcard = target.ends_with('*');
            let path = target.trim_end_matches('*').trim_end_matches('/').to_owned();
            rule.anchor = Some(AnchorCall { name: (*target).into(), path, wildcard, inline: false });
            (rule.action, rule.keep) = (Action::Pass, None);
        }
        rule
    }

    fn rules(path: &'static str, most: usize) -> impl Strategy<Value = Vec<Rule>> {
        let rule = (arbitrary::rule(), 0..4).prop_map(sometimes_match);
        let rule = (rule, 0_usize..30).prop_map(move |r| sometimes_call(path, r));
        proptest::collection::vec(rule, 0..most)
    }

    #[expect(clippy::too_many_arguments, reason = "the model spells everything out")]
    fn matches(
        rule: &Rule,
        env: &Environment,
        table: &Table,
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
            && address(&rule.from, env, table, p.family, p.src)
            && address(&rule.to, env, table, p.family, p.dst)
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

    fn address(peer: &Peer, env: &Environment, table: &Table, family: Family, addr: u128) -> bool {
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
            Host::Table(_) => table
                .entries
                .iter()
                .filter(|e| within(&e.prefix))
                .max_by_key(|e| e.prefix.length())
                .is_some_and(|e| !e.not),
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

        fn is_from(&mut self, _: Asked, _: &Packet) -> bool {
            unreachable!("no rule here asks for a system")
        }

        fn matched(&mut self, rule: &Compiled, p: &mut Packet) -> Result<(), Why> {
            translate(rule.tag, p);
            Ok(())
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(if std::env::var_os("SOFTNET_SOAK").is_some() { 100_000 } else { 400 }))]

        #[test]
        fn skip_steps_anchors_and_compiled_rules_decide_as_the_plain_rules_do(
            main in rules("", 30),
            inside in (rules("a", 12), rules("b", 8), rules("a/x", 8), rules("a/y", 8)),
            own_table in any::<bool>(),
            packets in proptest::collection::vec((arbitrary::packet(), any::<bool>(), 0_u16..4), 20),
        ) {
            let mut names = Names::new();
            let (a, b, x, y) = inside;
            let anchors = [("a/y", y), ("b", b), ("a", a), ("a/x", x)];
            let anchors = anchors.map(|(path, filter)| Anchor {
                path: path.into(),
                rules: Rules { filter, ..Rules::default() },
                preamble: Vec::new(),
            });
            let own_tables = if own_table { vec!["a/x"] } else { Vec::new() };
            let tables = own_tables.iter().copied().chain([""]).map(table).collect();
            let conf = Arc::new(PfConf {
                rules: Rules { filter: main, ..Rules::default() },
                anchors: anchors.to_vec(),
                tables,
                ..PfConf::default()
            });
            let pf = Pf::new(1, 1);
            let ruleset = pf.compile(&conf, &env(), &mut names).unwrap();
            pf.enforce(&ruleset);
            for (p, inward, index) in packets {
                let direction = if inward { Direction::In } else { Direction::Out };
                let (mut seen, mut translated) = (p, p);
                let fast = evaluate(&ruleset, 0, direction, IfIndex(index), &mut seen, &mut Translating);
                let fast = fast.unwrap();
                let mut plain = Linear {
                    rules: anchor::sources(&conf).map(|(path, r)| (path.to_owned(), &r.filter[..])).collect(),
                    own_tables: own_tables.clone(),
                    env: env(),
                    names: &mut names,
                    direction,
                    index: IfIndex(index),
                    decides: None,
                    through: None,
                    outcome: Outcome::decided(p.tag),
                };
                plain.evaluate("", None, &mut translated);
                prop_assert_eq!((seen.src, seen.dport), (translated.src, translated.dport));
                let slot = |path: &str, rule: usize| ruleset.counted(path, Kind::Filter, rule).unwrap().0;
                let decides = plain.decides.as_ref().map(|(path, rule)| slot(path, *rule));
                prop_assert_eq!(fast.rule.map(|r| r.slot), decides);
                prop_assert_eq!(
                    fast.anchor.map(|call| call.slot),
                    plain.through.map(|call| slot("", call))
                );
                let said = |o: &Outcome<'_>| (o.tag, o.queue, o.low_delay_queue, o.allow_opts);
                prop_assert_eq!(said(&fast), said(&plain.outcome));
                // What is known beforehand of an interface must be what each of its packets gets.
                if let crate::ruleset::Constant::Pass { rule, .. } = ruleset.constant(direction, IfIndex(index)) {
                    prop_assert_eq!(decides, rule.map(|rule| slot("", rule as usize)));
                }
            }
        }
    }
}
