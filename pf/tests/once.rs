//! `once`: a rule decides on one packet, exactly one however many workers there are, and stays spent until it is loaded
//! anew.

#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use std::{
    sync::{
        Arc, Barrier,
        atomic::{AtomicU32, Ordering},
    },
    thread,
};

use common::{CLIENT, Conversation, IN, LAN, OUT, SERVER, World, router};
use kern::{
    lock::{Root, levels::PfRules},
    testing::{Fixture, soak},
    time::Instant,
};
use pf::{Kind, Names, Pf, PfConf, PfCx, Verdict, conf::Section, explain::Question, show};
use wire::build;

fn udp(port: u16) -> Vec<u8> {
    build::udp4(CLIENT, SERVER, 4000, port, b"question")
}

/// The rules as `-v` shows them.
fn shown(w: &World) -> Vec<String> {
    show::rules(&w.ruleset, "", Kind::Filter, &router()).into_iter().map(|rule| rule.text).collect()
}

#[test]
fn the_first_packet_has_the_rule_and_the_next_one_has_none() {
    let mut w = World::new("block all\npass in proto udp no state once\n");
    assert_eq!(shown(&w)[1], "pass in proto udp all no state once");
    assert!(
        !w.passes(IN, LAN, &Conversation::WEB.up("S", 1, 0, 100, 0)),
        "what it is not for leaves it alone"
    );
    assert!(w.passes(IN, LAN, &udp(53)));
    assert!(!w.passes(IN, LAN, &udp(53)));
    assert_eq!(shown(&w)[1], "pass in proto udp all no state once # expired");

    // What it has begun goes on.
    let mut w = World::new("block all\npass in proto tcp once\n");
    let web = Conversation::WEB;
    assert!(w.passes(IN, LAN, &web.up("S", 1000, 0, 100, 0)));
    assert!(w.passes(OUT, LAN, &web.down("SA", 500, 1001, 100, 0)));
    assert!(w.passes(IN, LAN, &web.up("A", 1001, 501, 100, 0)));
    assert!(!w.passes(IN, LAN, &Conversation { client_port: 4001, ..web }.up("S", 1000, 0, 100, 0)));

    let mut w = World::new("pass all no state\nblock in proto udp once\n");
    assert_eq!([0; 3].map(|_| w.passes(IN, LAN, &udp(53))), [false, true, true]);
}

#[test]
fn only_the_rule_that_decides_is_spent_and_each_rule_of_a_list_by_itself() {
    let mut w = World::new("pass in proto udp no state once\nblock in proto udp to port 53\n");
    assert!(!w.passes(IN, LAN, &udp(53)));
    assert!(!shown(&w)[0].ends_with("expired"));
    let mut w = World::new("block all\npass in proto udp to port { 1 2 } no state once\n");
    assert_eq!([1, 2, 1, 2].map(|port| w.passes(IN, LAN, &udp(port))), [true, true, false, false]);
    let mut w = World::new("block all\nanchor a {\n pass in proto udp no state once\n}\n");
    assert_eq!([0; 2].map(|_| w.passes(IN, LAN, &udp(53))), [true, false]);
}

#[test]
fn a_rule_stays_spent_until_it_is_loaded_anew() {
    let (env, text) = (router(), "block all\npass in proto udp no state once\n");
    let mut w = World::new("");
    let read = || pf::conf::load_text("pf.conf", text, &env, &[]).unwrap();
    let (conf, _) = PfConf::default().with("", read(), &Section::ALL);
    w.ruleset = w.pf.compile(&Arc::new(conf.clone()), &env, &mut w.names).unwrap();
    assert!(w.passes(IN, LAN, &udp(53)));
    // Something else is loaded, and the rules are compiled for other interfaces.
    let other = pf::conf::load_text("other", "pass out\n", &env, &[]).unwrap();
    let (conf, _) = conf.with("a", other, &Section::ALL);
    w.ruleset = w.pf.compile(&Arc::new(conf.clone()), &env, &mut w.names).unwrap();
    assert!(!w.passes(IN, LAN, &udp(53)));
    let (conf, _) = conf.with("", read(), &Section::ALL);
    w.ruleset = w.pf.compile(&Arc::new(conf), &env, &mut w.names).unwrap();
    assert!(w.passes(IN, LAN, &udp(53)));
}

#[test]
fn who_asks_what_a_rule_would_do_does_not_spend_it() {
    let env = router();
    let mut w = World::new("block all\npass in proto udp no state once\n");
    let mut root = Root::claim();
    let question = "in on lan0 proto udp from 192.0.2.9 port 4000 to 198.51.100.1 port 53";
    let question = Question::parse(question, &env).unwrap();
    let mut fate =
        |w: &mut World| w.ruleset.explain(&question, &env, &mut w.names, None, &mut root.top()).unwrap().fate;
    assert_eq!([fate(&mut w), fate(&mut w)], [pf::explain::Fate::Passes; 2]);
    drop(root);
    assert!(w.passes(IN, LAN, &udp(53)));
}

#[test]
fn it_is_refused_where_no_rule_decides() {
    let env = router();
    for text in ["match in proto udp once\n", "anchor a once\n"] {
        let errors = pf::conf::load_text("pf.conf", text, &env, &[]).unwrap_err();
        assert!(errors[0].message.contains("once"), "{}", errors[0]);
    }
}

/// Two workers race for the packet of each rule.
#[test]
fn of_two_workers_one_has_the_packet() {
    let rounds: u16 = if soak() { 20_000 } else { 2_000 };
    let pf = Pf::new(2, 100);
    let rules: String = (1..=rounds)
        .map(|port| format!("pass in quick proto udp to port {port} no state once\n"))
        .chain(["block all\n".to_owned()])
        .collect();
    let conf = pf::conf::load_text("pf.conf", &rules, &router(), &[]).unwrap();
    let rules = pf.compile(&Arc::new(conf), &router(), &mut Names::new()).unwrap();
    let passed: Vec<AtomicU32> = (0..rounds).map(|_| AtomicU32::new(0)).collect();
    let barrier = Barrier::new(2);
    thread::scope(|scope| {
        for me in 0..2 {
            let (pf, rules, passed, barrier) = (&pf, &rules, &passed, &barrier);
            scope.spawn(move || {
                let (fixture, mut root, mut worker) = (Fixture::new(8), Root::claim(), pf.worker(me));
                for (port, passed) in (1..=rounds).zip(passed) {
                    let mut m = fixture.packet(&udp(port));
                    m.hdr_mut().family = 4;
                    barrier.wait();
                    let mut held = root.top();
                    let now = Instant::from_secs(1000);
                    let mut pf = PfCx::new(pf, rules, &mut worker, held.at::<PfRules>(), now);
                    let verdict = pf.test(IN, LAN, &mut m);
                    passed.fetch_add(u32::from(matches!(verdict, Verdict::Pass(_))), Ordering::Relaxed);
                    fixture.done(m);
                }
            });
        }
    });
    for (port, passed) in (1..).zip(&passed) {
        assert_eq!(passed.load(Ordering::Relaxed), 1, "port {port}");
    }
}
