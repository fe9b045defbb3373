//! Anchors in the engine: calls and their conditions, quick, wildcards, tables, translation, counters, and what stays when
//! one is replaced.

#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use std::sync::Arc;

use common::{CLIENT, IN, LAN, OUT, SERVER, WAN, World, router};
use pf::{Fresh, Kind, PfConf, Which, addr::Entry, conf::Section, show, table::parse_entry};
use wire::build;

fn udp(port: u16) -> Vec<u8> {
    build::udp4(CLIENT, SERVER, 4000, port, b"question")
}

/// The ports, of these, to which a packet passes in on the LAN.
fn open(w: &mut World, ports: &[u16]) -> Vec<u16> {
    ports.iter().copied().filter(|&port| w.passes(IN, LAN, &udp(port))).collect()
}

const PORTS: [u16; 5] = [1, 2, 3, 4, 5];

#[test]
fn the_last_match_decides_inside_an_anchor_and_behind_it() {
    let mut w = World::new(
        "block all\n\
         anchor web on lan0 proto udp {\n\
           pass proto udp to port { 1 2 } no state\n\
           block proto udp to port 2\n\
           anchor deeper {\n pass proto udp to port 3 no state\n}\n\
         }\n\
         anchor other on wan0 {\n pass all no state\n}\n\
         block proto udp to port 1\n",
    );
    assert_eq!(open(&mut w, &PORTS), [3]);
}

#[test]
fn quick_inside_ends_all_and_quick_on_a_call_ends_all_if_a_rule_inside_has_decided() {
    let mut w = World::new(
        "anchor a {\n block quick proto udp to port 1\n}\n\
         anchor b quick {\n block proto udp to port 2\n match proto udp to port 3 tag x\n}\n\
         anchor quick {\n anchor {\n block proto udp to port 4\n}\n anchor {\n block proto udp to port 9\n}\n}\n\
         pass all no state\n",
    );
    assert_eq!(open(&mut w, &PORTS), [3, 5], "a match rule decides nothing");
}

#[test]
fn a_wildcard_calls_what_is_below_by_name_and_not_deeper() {
    let mut w = World::new(
        "pass all no state\nanchor \"f/*\"\n\
         anchor \"f/b\" on wan0 {\n pass proto udp to port 1 no state\n block proto udp to port 2\n}\n\
         anchor \"f/a\" on wan0 {\n block proto udp to port { 1 3 }\n}\n\
         anchor \"f/a/deep\" on wan0 {\n block proto udp to port 4\n}\n\
         anchor \"f\" on wan0 {\n block proto udp to port 5\n}\n",
    );
    assert_eq!(open(&mut w, &PORTS), [1, 4, 5], "f/a and then f/b");
}

#[test]
fn a_name_is_relative_to_its_anchor_unless_it_begins_with_a_slash() {
    let mut w = World::new(
        "pass all no state\n\
         anchor outer {\n anchor inner {\n block proto udp to port 1\n}\n anchor \"/top\"\n anchor top\n }\n\
         anchor top on wan0 {\n block proto udp to port 2\n}\n\
         anchor \"outer/top\" on wan0 {\n block proto udp to port 3\n}\n",
    );
    assert_eq!(open(&mut w, &PORTS), [4, 5]);
}

#[test]
fn a_tag_of_a_call_is_seen_inside_and_a_tag_of_an_anchor_behind_it() {
    let mut w = World::new(
        "block all\n\
         anchor in on lan0 proto udp tag LAN {\n match tagged LAN tag SEEN\n }\n\
         pass tagged SEEN no state\n",
    );
    assert_eq!(open(&mut w, &[7]), [7]);
}

#[test]
fn a_table_of_an_anchor_hides_that_of_the_main_ruleset() {
    let rules = "table <t> persist { 192.0.2.9 }\nblock all\n\
                 anchor a {\n pass proto udp from <t> to port 1 no state\n}\n\
                 anchor b {\n table <t> { 192.0.2.77 }\n pass proto udp from <t> to port 2 no state\n }\n";
    let mut w = World::new(rules);
    assert_eq!(open(&mut w, &PORTS), [1]);
    let entry = |text: &str| -> Vec<Entry> { vec![parse_entry(text).unwrap()] };
    // One made at run time hides it, too, and no longer when it is gone.
    w.pf.tables().add("a", "t", &entry("192.0.2.77"), 0).unwrap();
    assert!(open(&mut w, &PORTS).is_empty());
    w.pf.tables().add("b", "t", &entry("192.0.2.9"), 0).unwrap();
    assert_eq!(open(&mut w, &PORTS), [2]);
    w.pf.tables().kill("a", "t").unwrap();
    assert_eq!(open(&mut w, &PORTS), [1, 2]);
    w.pf.tables().delete("", "t", &entry("192.0.2.9")).unwrap();
    assert_eq!(open(&mut w, &PORTS), [2]);
}

#[test]
fn translation_is_found_in_anchors_and_no_nat_there_ends_the_search() {
    let mut w = World::new(
        "nat-anchor \"home/*\" on wan0\nnat on wan0 inet proto udp from any to any port 2 -> 203.0.113.5\n\
         rdr-anchor games on lan0\npass all\n\
         load anchor \"home/x\" from \"/dev/null\"\n",
    );
    let mut load = |path: &str, text: &str| w.reload(path, text);
    load("home/x", "no nat proto udp from any to any port 2\nnat inet proto udp to port 1 -> 203.0.113.7\n");
    load("games", "rdr inet proto udp from any to any port 9 -> 198.51.100.77 port 10\n");
    let source = |w: &mut World, port| {
        let mut m = w.packet(&udp(port));
        assert!(matches!(w.test(OUT, WAN, &mut m), pf::Verdict::Pass(_)));
        let source = m.data()[12..16].to_vec();
        w.fixture.done(m);
        source
    };
    assert_eq!(source(&mut w, 1), [203, 0, 113, 7]);
    assert_eq!(source(&mut w, 2), CLIENT.octets());
    w.reload("home/x", "");
    assert!(w.kill(|_| true) > 0);
    assert_eq!(source(&mut w, 2), [203, 0, 113, 5]);
    let mut m = w.packet(&udp(9));
    assert!(matches!(w.test(IN, LAN, &mut m), pf::Verdict::Pass(_)));
    assert_eq!((&m.data()[16..20], &m.data()[22..24]), (&[198, 51, 100, 77][..], &[0, 10][..]));
    w.fixture.done(m);
}

#[test]
fn replacing_an_anchor_leaves_counters_states_and_tables_of_the_rest_alone() {
    let mut w = World::new(
        "table <t> persist { 192.0.2.9 }\nblock all\npass proto udp from <t> to port 1 keep state (max 1)\n\
         anchor a {\n pass proto udp to port 2 no state\n}\nanchor b {\n pass proto udp to port 3\n}\n",
    );
    assert_eq!(open(&mut w, &PORTS), [1, 2, 3]);
    let slots = w.pf.slab().in_use();
    let added = [parse_entry("192.0.2.10").unwrap()];
    w.pf.tables().add("", "t", &added, 0).unwrap();
    for n in 0..50_u16 {
        w.reload("a", &format!("pass proto udp to port {} no state\n", 2 + 2 * (n % 2)));
        assert_eq!(open(&mut w, &PORTS), if n % 2 == 0 { [1, 2, 3] } else { [1, 3, 4] });
    }
    assert_eq!(w.pf.slab().in_use(), slots, "rules that are gone leave nothing behind");
    let at = |w: &World, path, rule| show::rules(&w.ruleset, path, Kind::Filter, &router()).swap_remove(rule);
    assert_eq!((at(&w, "", 1).packets, at(&w, "", 1).states), ([51, 0], 1));
    assert_eq!((at(&w, "b", 0).packets, at(&w, "b", 0).states_made), ([51, 0], 1));
    assert_eq!(at(&w, "a", 0).packets, [1, 0], "and those of the new one begin at 0");
    let second = build::udp4(CLIENT, SERVER, 4001, 1, b"");
    assert!(!w.passes(IN, LAN, &second), "the rule has its one state still");
    assert_eq!(w.pf.tables().find("", "t").unwrap().len(), 2);
}

#[test]
fn a_call_counts_what_is_decided_inside_states_included() {
    let mut w = World::new(
        "block all\nanchor a {\n anchor b {\n pass proto udp to port 1 label \"r$nr\"\n}\n block proto udp to port 2\n }\n",
    );
    assert_eq!(open(&mut w, &[1, 1, 1, 2, 9]), [1, 1, 1]);
    let call = &show::rules(&w.ruleset, "", Kind::Filter, &router())[1];
    assert_eq!((call.evaluations, call.packets, call.states, call.states_made), (3, [4, 0], 1, 1));
    let inner = &show::rules(&w.ruleset, "a/b", Kind::Filter, &router())[0];
    assert_eq!((inner.packets, inner.states), ([3, 0], 1));
    assert_eq!(inner.label_lines()[0].split(' ').next(), Some("r0"), "numbers begin in each anchor");
    let state = &w.states()[0];
    assert!(state.line(None, true).contains(", anchor 1, rule 0"), "{}", state.line(None, true));
    // The state outlives its anchor.
    w.reload("a/b", "");
    assert_eq!(open(&mut w, &[1]), [1]);
    assert_eq!(show::rules(&w.ruleset, "", Kind::Filter, &router())[1].packets, [5, 0]);
    w.advance(1000);
    w.purge();
    assert_eq!(show::rules(&w.ruleset, "", Kind::Filter, &router())[1].states, 0);
}

#[test]
fn what_calls_itself_and_what_is_too_much_is_refused() {
    let refused = |text: &str| {
        let w = World::new("pass all\n");
        let env = router();
        let conf = pf::conf::load_text("pf.conf", text, &env, &[]).unwrap();
        w.pf.compile(&Arc::new(conf), &env, &mut pf::Names::new())
            .err()
            .map(|e| e.to_string())
            .unwrap_or_default()
    };
    let round = "anchor a {\n anchor \"/b\"\n }\nanchor b on lan0 {\n anchor \"/a\"\n }\n";
    assert_eq!(refused(round), "anchor `a` calls itself");
    assert_eq!(refused("anchor a {\n anchor \"/*\"\n }\n"), "anchor `a` calls itself");
    let many = "set limit anchors 1\nanchor a {\n pass\n}\nanchor b {\n pass\n}\n";
    assert_eq!(refused(many), "2 anchors are more than the 1 of `set limit anchors`");
    let deep = "anchor a {\n".repeat(66);
    assert!(refused(&(deep + &"}\n".repeat(66))).contains("more than 64 deep"));
}

#[test]
fn overloading_a_rule_of_an_anchor_fills_its_own_table_or_else_the_main_one() {
    let rules = |own: &str| {
        format!(
            "table <bad> persist\nblock all\nanchor a {{\n {own}pass proto tcp to port 80 keep state (max-src-conn 1, overload <bad>)\n }}\n"
        )
    };
    for (own, anchor) in [("", ""), ("table <bad> persist\n", "a")] {
        let mut w = World::new(&rules(own));
        for port in [5000, 5001] {
            let up = |flags: &str, seq, ack| {
                build::tcp4(CLIENT, SERVER, &common::header(port, 80, flags, seq, ack, 100), &[])
            };
            let down = build::tcp4(SERVER, CLIENT, &common::header(80, port, "SA", 9, 2, 100), &[]);
            assert!(w.passes(IN, LAN, &up("S", 1, 0)));
            assert!(w.passes(OUT, LAN, &down));
            let _ = w.verdict(IN, LAN, &up("A", 2, 10));
        }
        let mut root = kern::lock::Root::claim();
        assert_eq!(w.pf.settle(&mut root.top().at(), 0).errors, []);
        drop(root);
        let len = |path: &str| w.pf.tables().find(path, "bad").map_or(0, |t| t.len());
        assert_eq!((len(anchor), len(if own.is_empty() { "a" } else { "" })), (1, 0), "{own}");
    }
}

#[test]
fn only_what_is_fresh_is_compiled_anew() {
    let mut w = World::new("table <t> persist { 192.0.2.9 }\npass from <t> to any\n");
    w.pf.tables().flush("", "t").unwrap();
    let conf: PfConf = w.ruleset.conf().clone();
    let fresh = Fresh {
        filter: Which::these([""]),
        nat: Which::these([""]),
        ether: Which::NONE,
        tables: Which::NONE,
    };
    let env = router();
    let next = w.pf.compile_over(&w.ruleset, &fresh, &Arc::new(conf), &env, &mut w.names).unwrap();
    w.publish(next);
    assert!(w.pf.tables().find("", "t").unwrap().is_empty(), "tables stay as they are");
    let rules = show::rules(&w.ruleset, "", Kind::Filter, &env);
    assert_eq!(rules[0].evaluations, 0, "rules begin anew");
}

#[test]
fn a_load_of_one_kind_of_rules_leaves_the_counters_of_the_other() {
    let text = "rdr on lan0 proto udp to port 1 -> 10.0.0.7\npass in proto udp no state\n";
    let (env, mut w) = (router(), World::new(""));
    let read = || pf::conf::load_text("pf.conf", text, &env, &[]).unwrap();
    let (mut conf, _) = PfConf::default().with("", read(), &Section::ALL);
    w.ruleset = w.pf.compile(&Arc::new(conf.clone()), &env, &mut w.names).unwrap();
    let counted = |w: &World| {
        [Kind::Rdr, Kind::Filter].map(|kind| {
            let rule = show::rules(&w.ruleset, "", kind, &env).remove(0);
            (rule.evaluations, rule.packets[0])
        })
    };
    assert!((0..3).all(|_| w.passes(IN, LAN, &udp(2))));
    // The translation makes a state of its own; the rest comes by it.
    assert!((0..2).all(|_| w.passes(IN, LAN, &udp(1))));
    let [rdr, filter] = counted(&w);
    assert_eq!(rdr, (4, 2), "as many as it has translated");
    assert_eq!(filter, (4, 5));
    for (section, wanted) in [(Section::Filter, [rdr, (0, 0)]), (Section::Nat, [(0, 0), (1, 1)])] {
        let fresh;
        (conf, fresh) = conf.with("", read(), &[section]);
        w.ruleset =
            w.pf.compile_over(&w.ruleset, &fresh, &Arc::new(conf.clone()), &env, &mut w.names).unwrap();
        assert_eq!(counted(&w), wanted, "{section:?}");
        assert!(w.passes(IN, LAN, &udp(2)));
    }
    // Tables are fresh: the rules are compiled anew, and go on.
    let (conf, fresh) = conf.with("", read(), &[Section::Tables]);
    w.ruleset = w.pf.compile_over(&w.ruleset, &fresh, &Arc::new(conf), &env, &mut w.names).unwrap();
    assert_eq!(counted(&w), [(1, 0), (2, 2)]);
    let slots = w.pf.slab().in_use();
    w.ruleset = w.pf.disabled();
    assert_eq!(w.pf.slab().in_use(), slots - 2, "their rules");
}
