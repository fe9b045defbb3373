//! `state limiter` and `source limiter` with packets: what of pf's own limiters.sh needs no second machine, and what it
//! leaves out: reloads, tables, workers on threads of their own.

#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use std::{
    net::Ipv4Addr,
    sync::{Arc, Barrier},
    thread,
};

use common::{IN, LAN, OUT, SERVER, Shown, WAN, World, router};
use kern::{
    Why,
    lock::{Root, levels::PfRules},
    testing::Fixture,
    time::Instant,
};
use pf::{LimiterInfo, Names, Pf, PfCx, Verdict};
use wire::build;

fn udp(from: u8, port: u16) -> Vec<u8> {
    build::udp4(Ipv4Addr::new(192, 0, 2, from), SERVER, port, 53, b"q")
}

fn asks(w: &mut World, from: u8, port: u16) -> bool {
    w.passes(IN, LAN, &udp(from, port))
}

fn limiters(w: &World, by_source: bool) -> Vec<LimiterInfo> {
    let mut root = Root::claim();
    let mut held = root.top();
    w.pf.limiters(&mut held.at::<PfRules>(), by_source)
}

fn only(w: &World, by_source: bool) -> LimiterInfo {
    limiters(w, by_source).pop().unwrap()
}

fn settle(w: &World) {
    let mut root = Root::claim();
    let mut held = root.top();
    w.pf.settle(&mut held.at::<PfRules>(), 1).unwrap();
}

fn in_table(w: &World) -> Vec<String> {
    let table = w.pf.tables().find("", "busy").unwrap();
    table.entries().iter().map(|e| format!("{}/{}", e.entry.prefix.addr(), e.entry.prefix.length())).collect()
}

#[test]
fn a_rule_whose_limiter_is_full_does_not_match_and_an_ended_state_makes_room() {
    let mut w = World::new(
        "state limiter server id 1 limit 2\nblock in\npass in proto udp state limiter server (no-match)\n",
    );
    assert!(asks(&mut w, 9, 1) && asks(&mut w, 9, 2));
    assert!(!asks(&mut w, 9, 3) && !asks(&mut w, 10, 1));
    assert!(asks(&mut w, 9, 1), "a state that there is passes its packets");
    let info = only(&w, false);
    assert_eq!((info.states, info.admitted, info.hard, info.rate), (2, 2, 2, 0));
    assert_eq!(LimiterInfo::head(false), " ID      USE/LIMIT     RATE/SECS     ADMIT  HARDLIM  RATELIM");
    assert_eq!(info.line(), "  1        2/2          nil/nil          2        2        0");
    assert_eq!(w.kill(|s| s.wire[0].1 == 2), 1);
    assert!(asks(&mut w, 9, 3) && !asks(&mut w, 9, 4));
    w.advance(3600);
    w.purge();
    assert_eq!(only(&w, false).states, 0, "expired states give their shares back");
}

#[test]
fn a_limiter_may_block_and_then_no_later_rule_is_asked() {
    let rules = |action: &str| {
        format!(
            "state limiter server id 1 limit 1 rate 1/5\npass\npass in log proto udp state limiter server ({action})\npass from 192.0.2.10\n"
        )
    };
    let mut w = World::new(&rules("block"));
    assert!(asks(&mut w, 9, 1));
    assert!(matches!(w.verdict(IN, LAN, &udp(9, 2)), Verdict::Block(Why::PfStateLimit)));
    assert!(!asks(&mut w, 10, 1), "though a later rule would pass it");
    let (passes, shown) = w.logged(IN, LAN, &udp(9, 3));
    let why: Vec<&str> = shown.iter().map(|Shown { why, .. }| why.as_str()).collect();
    assert_eq!((passes, &why[..]), (false, &["pflog0: rule 1(statelimit) block in 1"][..]));
    w.load(&rules("no-match"));
    assert!(asks(&mut w, 9, 4) && asks(&mut w, 9, 5), "the other rules let it pass");
    assert_eq!(only(&w, false).states, 1);
}

#[test]
fn a_rate_lets_so_many_states_begin_in_so_many_seconds() {
    let mut w = World::new(
        "state limiter server id 9 limit 1000 rate 3/6\nblock in\npass in proto udp state limiter id 9\n",
    );
    assert_eq!((1..6).filter(|&port| asks(&mut w, 9, port)).count(), 3, "three at once");
    w.advance(1);
    assert!(!asks(&mut w, 9, 6));
    w.advance(1);
    assert!(asks(&mut w, 9, 7) && !asks(&mut w, 9, 8), "one in two seconds");
    assert_eq!(only(&w, false).line(), "  9        4/1000         3/6            4        0        4");
    w.advance(60);
    assert_eq!((10..16).filter(|&port| asks(&mut w, 9, port)).count(), 3, "and no more after a pause");
}

#[test]
fn sources_are_limited_one_by_one_and_so_is_how_many_there_are() {
    let mut w = World::new(
        "source limiter server id 1 entries 2 limit 1\nblock in\npass in proto udp source limiter server (no-match)\n",
    );
    assert!(asks(&mut w, 2, 1) && !asks(&mut w, 2, 2) && !asks(&mut w, 2, 3));
    assert!(asks(&mut w, 3, 1), "another source has its own");
    assert!(!asks(&mut w, 4, 1), "a third source is one too many");
    let info = only(&w, true);
    assert_eq!((info.admitted, info.hard, info.addresses), (2, 2, 1));
    assert_eq!(info.line(), "  1        2/2            1   nil/nil          2        1        2        0");
    let lines: Vec<String> = info.sources.iter().map(|s| s.line(1)).collect();
    assert_eq!(lines[0], "\t192.0.2.2/32 inuse 1/1 admit 1 hardlim 2 ratelim 0");
    assert_eq!(lines[1], "\t192.0.2.3/32 inuse 1/1 admit 1 hardlim 0 ratelim 0");
    w.kill(|s| s.wire[0].0 == Ipv4Addr::new(192, 0, 2, 2));
    assert!(asks(&mut w, 4, 1), "who has no states is no source");
}

#[test]
fn a_mask_makes_a_network_one_source_and_translation_does_not_hide_it() {
    let mut w = World::new(
        "source limiter net id 1 entries 9 limit 2 inet mask 30 inet6 mask 64\nnat on wan0 from 192.0.2.0/24 -> 203.0.113.1\nblock out\npass out proto udp source limiter net\n",
    );
    let mut leaves = |from, port| w.passes(OUT, WAN, &udp(from, port));
    assert!(leaves(4, 1) && leaves(7, 2) && !leaves(5, 3), "4 to 7 are one");
    assert!(leaves(8, 4));
    let prefixes: Vec<String> =
        only(&w, true).sources.iter().map(|s| format!("{}/{}", s.prefix.addr(), s.prefix.length())).collect();
    assert_eq!(prefixes, ["192.0.2.4/30", "192.0.2.8/30"], "as they were before translation");
    w.kill(|_| true);
    assert!(only(&w, true).sources.is_empty());
}

#[test]
fn a_source_forgotten_has_its_states_and_room_for_more() {
    let mut w =
        World::new("source limiter s id 3 entries 9 limit 1\nblock in\npass in proto udp source limiter s\n");
    assert!(asks(&mut w, 2, 1) && !asks(&mut w, 2, 2));
    let forget = |w: &World, id, from| {
        let mut root = Root::claim();
        let mut held = root.top();
        w.pf.forget_source(&mut held.at::<PfRules>(), id, Ipv4Addr::new(192, 0, 2, from).into())
    };
    assert_eq!((forget(&w, 3, 9), forget(&w, 4, 2)), (None, None), "there are none such");
    assert_eq!(forget(&w, 3, 2), Some(1));
    assert!(asks(&mut w, 2, 2) && asks(&mut w, 2, 1) && !asks(&mut w, 2, 3));
    assert_eq!(w.states().len(), 2);
    w.kill(|s| s.wire[0].1 == 1);
    assert_eq!(only(&w, true).states, 1, "the old state holds nothing to give back");
    w.kill(|_| true);
    assert_eq!((only(&w, true).states, only(&w, true).sources.len()), (0, 0));
}

#[test]
fn a_busy_source_goes_into_the_table_and_comes_out_again() {
    let mut w = World::new(
        "table <busy> persist\nsource limiter s id 1 entries 9 limit 9 table <busy> above 2 below 2\nblock in quick proto udp from <busy> to port 54\npass in proto udp source limiter s\n",
    );
    assert!((1..=2).all(|port| asks(&mut w, 2, port)));
    settle(&w);
    assert!(in_table(&w).is_empty(), "two are not above two");
    assert!((3..=4).all(|port| asks(&mut w, 2, port)));
    settle(&w);
    assert_eq!(in_table(&w), ["192.0.2.2/32"]);
    let other = build::udp4(Ipv4Addr::new(192, 0, 2, 2), SERVER, 9, 54, b"q");
    assert!(!w.passes(IN, LAN, &other));
    w.kill(|s| s.wire[0].1 > 2);
    settle(&w);
    assert_eq!(in_table(&w).len(), 1, "two are not below two");
    w.kill(|s| s.wire[0].1 == 2);
    settle(&w);
    assert!(in_table(&w).is_empty() && w.passes(IN, LAN, &other));
}

#[test]
fn a_reload_keeps_what_is_counted_of_a_limiter_whose_number_stays() {
    let rules = |limit: u32| {
        format!(
            "state limiter s id 1 limit {limit}\nsource limiter t id 1 entries 9 limit 9\nblock in\npass in proto udp state limiter s source limiter t\n"
        )
    };
    let mut w = World::new(&rules(2));
    assert!(asks(&mut w, 9, 1) && asks(&mut w, 9, 2) && !asks(&mut w, 9, 3));
    w.load(&rules(3));
    assert_eq!((only(&w, false).states, only(&w, false).hard, only(&w, true).states), (2, 1, 2));
    assert!(asks(&mut w, 9, 3) && !asks(&mut w, 9, 4));
    w.load(&rules(1));
    assert!(!asks(&mut w, 9, 4), "there are more than it allows now");
    w.kill(|s| s.wire[0].1 > 1);
    assert!(!asks(&mut w, 9, 4));
    w.load("pass in proto udp\n");
    assert!(limiters(&w, false).is_empty() && limiters(&w, true).is_empty());
    w.kill(|_| true);
    w.load(&rules(1));
    let info = only(&w, false);
    assert_eq!((info.states, info.admitted, info.hard), (0, 0, 0), "a new one begins anew");
    assert!(asks(&mut w, 9, 5) && !asks(&mut w, 9, 6));
}

#[test]
fn sources_are_not_counted_by_another_mask_while_there_are_any() {
    let rules = |mask| {
        format!(
            "source limiter s id 1 entries 9 limit 9 inet mask {mask}\npass in proto udp source limiter s\n"
        )
    };
    let mut w = World::new(&rules(24));
    assert!(asks(&mut w, 9, 1));
    let load = |w: &mut World| {
        let conf = pf::conf::load_text("pf.conf", &rules(30), &router(), &[]).unwrap();
        w.pf.compile(&Arc::new(conf), &router(), &mut w.names).map(|_| ())
    };
    let error = load(&mut w).unwrap_err().to_string();
    assert_eq!(error, "source limiter `s` has sources: its masks and its table stay as they are");
    // Not even where it was gone in between: its sources were not.
    w.load("pass in proto udp\n");
    assert_eq!(load(&mut w).unwrap_err().to_string(), error);
    w.kill(|_| true);
    assert!(load(&mut w).is_ok());
}

#[test]
fn what_makes_no_state_gives_its_share_back() {
    let mut w = World::new(
        "set limit states 1\nstate limiter s id 1 limit 5\nsource limiter t id 1 entries 5 limit 5\npass in proto udp state limiter s source limiter t\n",
    );
    assert!(asks(&mut w, 9, 1) && !asks(&mut w, 9, 2));
    assert_eq!((only(&w, false).states, only(&w, true).states), (1, 1));
}

#[test]
fn a_limiter_without_meaning_is_refused() {
    for (rules, said) in [
        ("state limiter s id 1 limit 1\nblock in state limiter s\n", "for pass rules that keep state"),
        (
            "state limiter s id 1 limit 1\npass in no state state limiter s\n",
            "for pass rules that keep state",
        ),
        ("state limiter s id 1 limit 1\nmatch in state limiter s\n", "for pass rules that keep state"),
        ("pass in source limiter id 3\n", "source limiter id 3 is not defined"),
    ] {
        let errors = pf::conf::load_text("pf.conf", rules, &router(), &[]).unwrap_err();
        assert!(errors[0].to_string().contains(said), "{rules}: {}", errors[0]);
    }
}

/// Workers on threads of their own, at the limit all the time: never are there more states than it allows.
#[test]
fn workers_at_the_limit_never_exceed_it() {
    const WORKERS: usize = 3;
    const LIMIT: u32 = 5;
    let pf = Pf::new(WORKERS, 10_000);
    let text = "state limiter s id 1 limit 5\nsource limiter t id 1 entries 2 limit 3\nblock in\npass in proto udp state limiter s source limiter t\n";
    let conf = Arc::new(pf::conf::load_text("pf.conf", text, &router(), &[]).unwrap());
    let rules = pf.compile(&conf, &router(), &mut Names::new()).unwrap();
    pf.enforce(&rules);
    let barrier = Barrier::new(WORKERS);
    let passed: usize = thread::scope(|scope| {
        let work = |id: usize| {
            let (pf, rules, barrier) = (&pf, &rules, &barrier);
            scope.spawn(move || {
                let (fixture, mut worker, mut root) = (Fixture::new(64), pf.worker(id), Root::claim());
                barrier.wait();
                let mut passed = 0;
                for n in 0..3000_u16 {
                    let mut m = fixture.packet(&udp(2 + (n % 3) as u8, n * WORKERS as u16 + id as u16 + 1));
                    m.hdr_mut().family = 4;
                    let now = Instant::from_secs(1000);
                    let mut held = root.top();
                    let verdict =
                        PfCx::new(pf, rules, &mut worker, held.at::<PfRules>(), now).test(IN, LAN, &mut m);
                    passed += usize::from(matches!(verdict, Verdict::Pass(_)));
                    fixture.done(m);
                    for by_source in [false, true] {
                        let info = pf.limiters(&mut held.at::<PfRules>(), by_source).pop().unwrap();
                        // Sources are shown row by row, which is no instant; each of them is one.
                        assert!(info.sources.iter().all(|s| s.states <= 3), "{info:?}");
                        assert!(info.states <= if by_source { 2 * 3 } else { LIMIT }, "{info:?}");
                    }
                    if n % 7 == 0 {
                        let doomed = |s: &pf::StateInfo| usize::from(s.wire[0].1 - 1) % WORKERS == id;
                        pf.kill_states(&mut held.at::<PfRules>(), doomed);
                    }
                }
                passed
            })
        };
        let threads: Vec<_> = (0..WORKERS).map(work).collect();
        threads.into_iter().map(|t| t.join().unwrap()).sum()
    });
    let mut root = Root::claim();
    let mut held = root.top();
    let info = pf.limiters(&mut held.at::<PfRules>(), false).pop().unwrap();
    assert_eq!(info.states, pf.states().count());
    assert!(info.states <= LIMIT && info.admitted as usize >= passed && passed > 100, "{info:?}");
    assert!(info.hard > 100, "{info:?}");
    pf.kill_states(&mut held.at::<PfRules>(), |_| true);
    let both = [false, true].map(|by| pf.limiters(&mut held.at::<PfRules>(), by).pop().unwrap());
    assert_eq!((both[0].states, both[1].states, both[1].sources.len()), (0, 0, 0));
}
