//! The optimizer: what it makes of small rulesets, and that nobody can tell by what is decided.

use std::{collections::HashMap, sync::Arc};

use kern::lock::Root;
use proptest::{collection::vec, prelude::*};

use super::*;
use crate::{
    Direction, Environment, IfIndex, Names, Pf,
    addr::Prefix,
    arbitrary, conf,
    eval::{
        self, Outcome,
        linear::{Linear, Translating, env, table},
    },
    once::Once,
    print,
    rule::{Host, Log, Rules},
};

/// What is printed of a ruleset after it was optimised.
fn optimised(text: &str) -> Vec<String> {
    let env = Environment::default();
    let mut conf = conf::load_text("pf.conf", text, &env, &[]).unwrap();
    optimize(&mut conf, None, None);
    let printed = print::conf(&conf, &env);
    let again = conf::load_text("printed", &printed, &env, &[]).unwrap();
    assert_eq!((&again.rules, &again.tables), (&conf.rules, &conf.tables), "{printed}");
    printed.lines().map(str::to_owned).collect()
}

#[test]
fn duplicates_and_what_a_broader_rule_covers_go() {
    let text = "pass in quick inet proto tcp from 10.1.2.0/24 to any port 22 no state\n\
                pass in quick inet proto tcp from 10.0.0.0/8 to any no state\n\
                pass in quick inet proto tcp from 10.0.0.0/8 to any no state\n\
                pass in quick inet proto tcp from any to any port 80 flags S/SA no state\n\
                pass in quick inet proto tcp from any to any port 80 no state\n\
                pass in quick inet proto tcp from ! 10.9.0.0/16 to any port 25 no state\n\
                pass in quick inet proto tcp from ! 10.0.0.0/8 to any port 25 no state\n";
    let left = [
        "pass in quick inet proto tcp from ! 10.9.0.0/16 to any port = smtp no state",
        "pass in quick inet proto tcp from ! 10.0.0.0/8 to any port = smtp no state",
        "pass in quick inet proto tcp from 10.0.0.0/8 to any no state",
        "pass in quick inet proto tcp from any to any port = http no state",
    ];
    assert_eq!(optimised(text), left);
}

#[test]
fn six_rules_that_differ_in_an_address_become_a_table_and_five_do_not() {
    let hosts = |n: u8| (1..=n).map(|n| format!("192.0.2.{n}")).collect::<Vec<_>>().join(" ");
    let five = optimised(&format!("block in from {{ {} }} to any\n", hosts(5)));
    assert_eq!(five.len(), 5, "{five:?}");
    let six = optimised(&format!("block in from {{ {} }} to any\n", hosts(6)));
    let [table, rule] = &six[..] else { panic!("{six:?}") };
    assert!(table.starts_with("table <__automatic_"), "{table}");
    let name = table.split(['<', '>']).nth(1).unwrap();
    assert_eq!(*table, format!("table <{name}> const {{ {} }}", hosts(6)));
    assert_eq!(*rule, format!("block drop in inet from <{name}> to any"));
    // The same names every time, one table for the same addresses, and both sides of a rule.
    let lists = format!("{{ {} }}", hosts(7));
    let text = format!(
        "pass in inet proto tcp from {lists} to {lists} port 22\nblock in inet proto udp from {lists} to any\n"
    );
    let both = optimised(&text);
    assert_eq!(both.len(), 3, "{both:?}");
    assert_eq!(both, optimised(&text));
}

#[test]
fn addresses_that_are_negated_are_not_joined() {
    let lines: Vec<_> = (1..9).map(|n| format!("block in from ! 192.0.2.{n} to any\n")).collect();
    assert_eq!(optimised(&lines.concat()).len(), 8);
}

#[test]
fn rules_that_share_a_field_stand_together() {
    let text = "pass in on lan0 proto tcp from any to any port 60001 no state\n\
                pass in on wan0 proto udp from any to any port 60002 no state\n\
                pass in on lan0 proto tcp from any to any port 60003 no state\n\
                pass in on wan0 proto udp from any to any port 60004 no state\n\
                pass in on lan0 proto udp from any to any port 60005 no state\n";
    let ports: Vec<String> =
        optimised(text).iter().map(|l| l.split(' ').nth_back(2).unwrap().into()).collect();
    assert_eq!(ports, ["60001", "60003", "60005", "60002", "60004"]);
}

#[test]
fn what_tells_rules_apart_keeps_them_in_place() {
    let apart = [
        "label one",
        "probability 50%",
        "max-pkt-rate 10/1",
        "keep state (max 10)",
        "keep state (source-track rule)",
        "keep state (max-src-states 3)",
        "keep state (adaptive.start 10, adaptive.end 20)",
    ];
    for option in apart {
        let text = format!("pass in from 10.0.0.1 to any {option}\n").repeat(7);
        assert_eq!(optimised(&text).len(), 7, "{option}");
    }
    let matches = "match in from 10.0.0.1 to any tag a\n".repeat(7);
    assert_eq!(optimised(&matches).len(), 7);
    // What a rule does besides ends a block, and within it changes nothing.
    let effects =
        ["log", "queue a", "tag a", "allow-opts", "max-pkt-size 100", "keep state (tcp.first 9)", "no state"];
    for option in effects {
        let queues = "altq on lan0 priq bandwidth 1Mb queue { a }\nqueue a priq(default)\n";
        let place = if option == "log" { ("log ", "") } else { ("", option) };
        let one = format!("pass in {}from 10.0.0.1 to any {}\n", place.0, place.1);
        let text = format!("{queues}{one}pass in from 10.0.0.0/8 to any\n{one}");
        assert_eq!(optimised(&text).len(), 5, "{option}: the rule between is another");
        assert_eq!(optimised(&format!("{queues}{one}{one}")).len(), 3, "{option}: twice the same");
    }
}

#[test]
fn the_busiest_quick_rules_come_first() {
    let env = Environment::default();
    let text = "pass in quick proto tcp to port 1 no state\npass in quick proto tcp to port 2 no state\n\
                pass in quick proto tcp to port 3 no state\npass in proto tcp to port 4 no state\n\
                pass in proto tcp to port 5 no state\n";
    let rules = conf::load_text("pf.conf", text, &env, &[]).unwrap().rules.filter;
    let counted = [1, 7, 7, 0, 9];
    let profile = Profile::new(rules.iter().zip(counted));
    let none = HashSet::new();
    let ordered = rewrite(rules.clone(), &none, &mut Automatic::new("", &[]), Some(&profile));
    let order: Vec<_> = ordered.iter().map(|r| rules.iter().position(|of| of == r).unwrap()).collect();
    assert_eq!(order, [1, 2, 0, 3, 4]);
}

/// Rules of one effect: that of the first.
fn run() -> impl Strategy<Value = Vec<Rule>> {
    let few = vec(arbitrary::rule(), 1..7);
    let varied = (few, vec((0_u8..2, arbitrary::rule()), 0..9), any::<[u8; 5]>());
    varied.prop_map(|(mut rules, variants, [label, probability, once, log, limit])| {
        let mut of = rules[0].clone();
        if label % 4 != 0 {
            of.labels.clear();
        }
        if let Some(keep) = of.keep.as_mut().filter(|_| limit % 4 != 0) {
            (keep.max, keep.timeouts) = (0, Vec::new());
        }
        of.probability = (probability % 8 == 0).then_some(u32::from(once));
        of.once = (once % 16 == 0).then(Once::default);
        of.log = (log % 4 == 0).then_some(Log { matches: log % 8 == 0, ..Log::default() });
        // Lists: the rule, with another address on one side.
        for (side, other) in variants {
            let mut rule = rules[0].clone();
            let to = if side == 0 { &mut rule.from } else { &mut rule.to };
            to.host = if side == 0 { other.from.host } else { other.to.host };
            rules.push(rule);
        }
        rules.into_iter().map(|rule| with_effect(&rule, &of)).collect()
    })
}

/// What one rule asks for, with what another does.
fn with_effect(asks: &Rule, does: &Rule) -> Rule {
    Rule {
        direction: asks.direction,
        on: asks.on.clone(),
        family: asks.family,
        proto: asks.proto,
        from: asks.from.clone(),
        to: asks.to.clone(),
        flags: asks.flags,
        icmp: asks.icmp,
        tos: asks.tos,
        fragment: asks.fragment,
        tagged: asks.tagged.clone(),
        ..does.clone()
    }
}

/// A list of hosts on one side: what becomes a table.
fn hosts() -> impl Strategy<Value = Vec<Rule>> {
    let some = vec((0_u32..6, 29_u8..=32), 4..10);
    (arbitrary::rule(), some, any::<[bool; 2]>()).prop_map(|(rule, hosts, [source, not])| {
        let one = |(host, len)| {
            let addr = std::net::Ipv4Addr::from_bits(0xc000_0200 + host);
            let mut rule = Rule { labels: Vec::new(), keep: None, family: None, ..rule.clone() };
            let peer = if source { &mut rule.from } else { &mut rule.to };
            (peer.host, peer.not) = (Host::Prefix(Prefix::new(addr.into(), len)), not);
            rule
        };
        hosts.into_iter().map(one).collect()
    })
}

fn rules() -> impl Strategy<Value = Vec<Rule>> {
    let more = vec(prop_oneof![3 => run().boxed(), 2 => hosts().boxed()], 1..5);
    more.prop_map(|runs| runs.into_iter().flatten().collect())
}

/// Whether a rule is told apart from all others.
fn is_apart(rule: &Rule) -> bool {
    let effect = block::effect(rule);
    block::split(vec![effect.clone(), effect], &HashSet::new()).len() == 2
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if kern::testing::soak() { 100_000 } else { 2000 }))]

    #[test]
    fn optimised_rules_decide_as_those_that_were_written(
        written in rules(),
        packets in vec((arbitrary::packet(), any::<bool>(), 0_u16..4), 20),
        packets_of in any::<Option<u64>>(),
    ) {
        let conf = PfConf {
            rules: Rules { filter: written.clone(), ..Rules::default() },
            tables: vec![table("")],
            ..arbitrary::conf()
        };
        let mut shorter = conf.clone();
        if let Some(of) = packets_of {
            let counts = written.iter().enumerate().map(|(n, rule)| (rule, of.rotate_left(n as u32) % 8));
            let mut tables = Automatic::new("", &conf.tables);
            shorter.rules.filter = rewrite(written.clone(), &HashSet::new(), &mut tables, Some(&Profile::new(counts)));
            shorter.tables.extend(tables.into_tables());
        } else {
            optimize(&mut shorter, None, None);
        }
        let apart = |rules: &[Rule]| rules.iter().filter(|rule| is_apart(rule)).cloned().collect::<Vec<_>>();
        prop_assert_eq!(apart(&written), apart(&shorter.rules.filter));

        let (pf, mut names) = (Pf::new(1, 1), Names::new());
        let shorter = Arc::new(shorter);
        let ruleset = pf.compile(&shorter, &env(), &mut names).unwrap();
        pf.enforce(&mut Root::claim().top().at(), &ruleset);
        let slots: HashMap<_, _> = shorter.rules.filter.iter().enumerate().map(|(n, rule)| {
            (ruleset.counted("", anchor::Kind::Filter, n).unwrap().0, rule)
        }).collect();
        for (packet, inward, index) in packets {
            let direction = if inward { Direction::In } else { Direction::Out };
            let (mut plain, mut fast) = (packet, packet);
            let plain = Linear::decide(&conf, &mut names, direction, IfIndex(index), &mut plain);
            let fast = eval::evaluate(&ruleset, 0, direction, IfIndex(index), &mut fast, &mut Translating).unwrap();
            let decides = fast.rule.map(|rule| slots[&rule.slot]);
            prop_assert_eq!(plain.rule().map(block::effect), decides.map(block::effect));
            if plain.rule().is_some_and(is_apart) {
                prop_assert_eq!(plain.rule(), decides);
            }
            let said = |o: &Outcome<'_>| (o.tag, o.queue, o.low_delay_queue, o.allow_opts, o.treatment.max_size);
            prop_assert_eq!(said(&fast), said(&plain.outcome));
        }
    }
}
