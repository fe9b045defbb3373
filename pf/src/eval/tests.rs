//! The evaluator against its model.

use std::sync::Arc;

use super::{
    linear::{Linear, Translating, env, table},
    *,
};
use crate::{
    Names, Pf, PfConf, arbitrary,
    rule::{Anchor, AnchorCall, Rule, Rules},
};
use kern::lock::Root;
use proptest::prelude::*;

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

/// One rule of four is a match rule.
fn sometimes_match((mut rule, n): (Rule, i32)) -> Rule {
    if n == 0 {
        (rule.action, rule.keep) = (Action::Match, None);
    }
    rule
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if kern::testing::soak() { 100_000 } else { 400 }))]

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
            ..arbitrary::conf()
        });
        let pf = Pf::new(1, 1);
        let ruleset = pf.compile(&conf, &env(), &mut names).unwrap();
        pf.enforce(&mut Root::claim().top().at(), &ruleset);
        for (p, inward, index) in packets {
            let direction = if inward { Direction::In } else { Direction::Out };
            let (mut seen, mut translated) = (p, p);
            let fast = evaluate(&ruleset, 0, direction, IfIndex(index), &mut seen, &mut Translating);
            let fast = fast.unwrap();
            let plain = Linear::decide(&conf, &mut names, direction, IfIndex(index), &mut translated);
            prop_assert_eq!((seen.src, seen.dport), (translated.src, translated.dport));
            let slot = |path: &str, rule: usize| ruleset.counted(path, Kind::Filter, rule).unwrap().0;
            let decides = plain.decides.as_ref().map(|(path, rule)| slot(path, *rule));
            prop_assert_eq!(fast.rule.map(|r| r.slot), decides);
            prop_assert_eq!(
                fast.anchor.map(|call| call.slot),
                plain.through.map(|call| slot("", call))
            );
            let said = |o: &Outcome<'_>| (o.tag, o.queue, o.low_delay_queue, o.allow_opts, o.treatment.max_size);
            prop_assert_eq!(said(&fast), said(&plain.outcome));
            // What is known beforehand of an interface must be what each of its packets gets.
            if let crate::ruleset::Constant::Pass { rule, .. } = ruleset.constant(direction, IfIndex(index)) {
                prop_assert_eq!(decides, rule.map(|rule| slot("", rule as usize)));
            }
        }
    }
}
