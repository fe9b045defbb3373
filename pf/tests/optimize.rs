//! Optimised rulesets in force: tables that come and go with rules, and rules in the order of what they have counted.

#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use std::sync::Arc;

use common::{CLIENT, IN, LAN, World, router};
use pf::{
    Kind, PfConf,
    conf::{Optimizer, Reading, Section},
    optimize::optimize,
    show,
};
use wire::build;

/// Reads, optimises and loads these sections of a ruleset; all else stays.
fn load(w: &mut World, text: &str, optimizer: Optimizer, sections: &[Section]) {
    let env = router();
    let reading =
        Reading { env: &env, defines: &[], anchor: "", fingerprints: None, options: None, engines: true };
    let mut new: PfConf = reading.text("pf.conf", text).unwrap_or_else(|e| panic!("{}", e[0].with_caret()));
    optimize(&mut new, Some(optimizer), Some(&w.ruleset));
    let (conf, fresh) = w.ruleset.conf().with("", new, sections);
    let ruleset = w.pf.compile_over(&w.ruleset, &fresh, &Arc::new(conf), &env, &mut w.names).unwrap();
    w.publish(ruleset);
}

/// Whether a datagram to this host and port comes in.
fn passes(w: &mut World, host: u8, port: u16) -> bool {
    let to = std::net::Ipv4Addr::from([203, 0, 113, host]);
    w.passes(IN, LAN, &build::udp4(CLIENT, to, 4000, port, b""))
}

#[test]
fn tables_of_the_optimizer_come_and_go_with_the_rules() {
    let hosts = |from: u8| (from..from + 7).map(|n| format!("203.0.113.{n}")).collect::<Vec<_>>().join(" ");
    let mut w = World::new("pass all\n");
    let rules = |from| format!("block all\npass in proto udp from any to {{ {} }} no state\n", hosts(from));
    let names = |w: &World| w.pf.tables().list(None).into_iter().map(|t| t.name).collect::<Vec<_>>();
    load(&mut w, &rules(10), Optimizer::Basic, &Section::ALL);
    assert_eq!(show::rules(&w.ruleset, "", Kind::Filter, &router()).len(), 2);
    assert_eq!([9, 10, 16, 17].map(|host| passes(&mut w, host, 1)), [false, true, true, false]);
    let first = names(&w);
    assert!(first.len() == 1 && first[0].starts_with("__automatic_"), "{first:?}");
    // `pfctl -R` loads rules and no tables; these belong to the rules.
    let own = "table <own> persist { 203.0.113.99 }\n";
    load(&mut w, &format!("{own}{}", rules(20)), Optimizer::Basic, &[Section::Filter]);
    assert_eq!([16, 20, 26, 27].map(|host| passes(&mut w, host, 1)), [false, true, true, false]);
    let second = names(&w);
    assert!(second.len() == 1 && second != first, "{second:?}");
    load(&mut w, &format!("{own}{}", rules(10)), Optimizer::Basic, &[Section::Tables]);
    assert_eq!(names(&w), [second[0].as_str(), "own"], "and stay without them");
    load(&mut w, &rules(10), Optimizer::None, &[Section::Filter]);
    assert_eq!(show::rules(&w.ruleset, "", Kind::Filter, &router()).len(), 8);
    assert_eq!(names(&w), ["own"]);
    assert!(passes(&mut w, 10, 1) && !passes(&mut w, 20, 1));
}

#[test]
fn a_profile_puts_the_rules_first_that_decided_most() {
    let rule = |port: u16| format!("pass in quick proto udp to port {port} no state\n");
    let text = &format!("{}{}{}block all\n", rule(60001), rule(60002), rule(60003));
    let mut w = World::new(text);
    let port =
        |text: &str| text.split("= ").nth(1).map_or(0, |p| p.split(' ').next().unwrap().parse().unwrap());
    let order = |w: &World| -> Vec<u16> {
        show::rules(&w.ruleset, "", Kind::Filter, &router()).iter().map(|rule| port(&rule.text)).collect()
    };
    load(&mut w, text, Optimizer::Profile, &Section::ALL);
    assert_eq!(order(&w), [60001, 60002, 60003, 0]);
    for _ in 0..5 {
        assert!(passes(&mut w, 1, 60003));
    }
    assert!(passes(&mut w, 1, 60002) && !passes(&mut w, 1, 9));
    load(&mut w, text, Optimizer::Profile, &Section::ALL);
    assert_eq!(order(&w), [60003, 60002, 60001, 0]);
    load(&mut w, text, Optimizer::None, &Section::ALL);
    assert_eq!(order(&w), [60001, 60002, 60003, 0]);
}
