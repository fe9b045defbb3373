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
use pf::{LimiterInfo, Names, Pf, PfCx, Verdict, table::TableError};
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
    settle_at(w, 1).unwrap();
}

fn settle_at(w: &World, now: u64) -> Result<(), TableError> {
    w.pf.settle(&mut Root::claim().top().at(), now).errors.pop().map_or(Ok(()), Err)
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
fn what_a_limiter_blocks_is_blocked_in_the_counters_of_tables_too() {
    let mut w = World::new(
        "table <known> counters { 192.0.2.0/24 }\nstate limiter s id 1 limit 1\npass in proto udp from <known> state limiter s (block)\n",
    );
    assert!(asks(&mut w, 9, 1) && !asks(&mut w, 9, 2) && !asks(&mut w, 9, 3));
    let known = w.pf.tables().find("", "known").unwrap();
    let [[blocked, _], [passed, _], _] = known.entries()[0].counts.unwrap()[0];
    assert_eq!((blocked, passed), (2, 1));
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

/// A source that is busy with more than two states.
const BUSY: &str = "source limiter s id 1 entries 9 limit 9 table <busy> above 2 below 2\n";
const BY_IT: &str = "block in quick proto udp from <busy> to port 54\npass in proto udp source limiter s\n";

#[test]
fn a_source_leaves_the_table_when_a_reload_drops_the_limiter() {
    let table = "table <busy> persist\n";
    for settled in [true, false] {
        let mut w = World::new(&format!("{table}{BUSY}{BY_IT}"));
        assert!((1..=3).all(|port| asks(&mut w, 2, port)));
        if settled {
            settle(&w);
            assert_eq!(in_table(&w), ["192.0.2.2/32"]);
        }
        w.load(&format!("{table}block in quick proto udp from <busy> to port 54\npass in\n"));
        settle(&w);
        assert!(in_table(&w).is_empty(), "nobody would take it out any more");
        // It is defined again, for another table: the source is in that one once it asks for more.
        w.load(&format!("table <other> persist\n{table}{}{BY_IT}", BUSY.replace("<busy>", "<other>")));
        assert!(asks(&mut w, 2, 4));
        settle(&w);
        assert_eq!((in_table(&w).len(), w.pf.tables().find("", "other").unwrap().len()), (0, 1));
        w.kill(|_| true);
        settle(&w);
        assert!(w.pf.tables().find("", "other").unwrap().is_empty());
    }
}

#[test]
fn what_a_reload_itself_puts_into_the_table_stays_and_so_does_a_source_that_is_never_to_leave() {
    let mut w = World::new(&format!("table <busy> persist\n{BUSY}{BY_IT}"));
    assert!((1..=3).all(|port| asks(&mut w, 2, port)));
    settle(&w);
    w.load("table <busy> persist { 192.0.2.2 }\nblock in quick proto udp from <busy> to port 54\npass in\n");
    settle(&w);
    assert_eq!(in_table(&w), ["192.0.2.2/32"]);

    let forever = BUSY.replace(" below 2", "");
    let mut w = World::new(&format!("table <busy> persist\n{forever}{BY_IT}"));
    assert!((1..=3).all(|port| asks(&mut w, 2, port)));
    w.load("table <busy> persist\nblock in quick proto udp from <busy> to port 54\npass in\n");
    settle(&w);
    assert_eq!(in_table(&w), ["192.0.2.2/32"]);
}

#[test]
fn a_source_for_which_the_table_has_no_room_comes_into_it_when_there_is_some() {
    let rules = format!("set limit table-entries 1\ntable <busy> persist\n{BUSY}{BY_IT}");
    let mut w = World::new(&rules);
    assert!((1..=3).all(|port| asks(&mut w, 2, port) && asks(&mut w, 3, port) && asks(&mut w, 4, port)));
    assert!(matches!(settle_at(&w, 1), Err(TableError::Entries { wanted: 2, limit: 1 })));
    assert_eq!(in_table(&w), ["192.0.2.2/32"]);
    assert_eq!(settle_at(&w, 2), Ok(()), "that has been said");
    w.kill(|s| s.wire[0].0 == Ipv4Addr::new(192, 0, 2, 2));
    assert_eq!((settle_at(&w, 3), in_table(&w).len()), (Ok(()), 0));
    // One of the two that wait is busy no more.
    w.kill(|s| s.wire[0].0 == Ipv4Addr::new(192, 0, 2, 3));
    assert_eq!(settle_at(&w, 4), Ok(()));
    assert_eq!(in_table(&w), ["192.0.2.4/32"]);
    w.kill(|_| true);
    assert_eq!((settle_at(&w, 5), settle_at(&w, 6), in_table(&w).len()), (Ok(()), Ok(()), 0));
}

#[test]
fn a_source_that_comes_as_the_masks_change_is_given_back_what_it_took() {
    let rules = |mask, table| {
        format!(
            "table <busy> persist\ntable <other> persist\nsource limiter s id 1 entries 9 limit 9 inet mask {mask} table <{table}> above 1 below 1\npass in proto udp source limiter s\n"
        )
    };
    let mut w = World::new(&rules(24, "busy"));
    let conf = pf::conf::load_text("pf.conf", &rules(30, "other"), &router(), &[]).unwrap();
    let next = w.pf.compile(&Arc::new(conf), &router(), &mut w.names).unwrap();
    // There were no sources when that was looked at, and are now.
    assert!(asks(&mut w, 9, 1) && asks(&mut w, 9, 2) && asks(&mut w, 8, 1));
    settle(&w);
    assert_eq!(in_table(&w), ["192.0.2.0/24"]);
    w.publish(next);
    assert!(in_table(&w).is_empty(), "that is not its table any more");
    assert!(asks(&mut w, 9, 3));
    let states = |w: &World| {
        let sources = only(w, true).sources;
        sources.iter().map(|s| (s.prefix.to_string(), s.states)).collect::<Vec<_>>()
    };
    assert_eq!(states(&w), [("192.0.2.0/24".to_owned(), 3), ("192.0.2.8/30".to_owned(), 1)]);
    w.kill(|s| s.wire[0] == (Ipv4Addr::new(192, 0, 2, 9).into(), 1));
    assert_eq!(states(&w)[0].1, 2);
    let forgotten = {
        let (mut root, source) = (Root::claim(), Ipv4Addr::new(192, 0, 2, 8).into());
        w.pf.forget_source(&mut root.top().at(), 1, source)
    };
    assert_eq!((forgotten, only(&w, true).states, only(&w, true).sources.len()), (Some(3), 0, 0));
    w.kill(|_| true);
    assert_eq!((only(&w, true).states, only(&w, true).sources.len()), (0, 0));
}

#[test]
fn a_limiter_that_a_reload_drops_is_open_until_nobody_asks_by_the_old_rules() {
    let mut w = World::new(
        "state limiter s id 1 limit 9\nsource limiter t id 1 entries 9 limit 9\nblock in\npass in proto udp state limiter s source limiter t\n",
    );
    let conf = pf::conf::load_text("pf.conf", "pass in proto udp\n", &router(), &[]).unwrap();
    let next = w.pf.compile(&Arc::new(conf), &router(), &mut w.names).unwrap();
    w.pf.enforce(&mut Root::claim().top().at(), &next);
    assert!(asks(&mut w, 9, 1), "by the rules that are still in force");
    w.pf.retire();
    assert!(!asks(&mut w, 9, 2));
    w.ruleset = next;
    assert!(asks(&mut w, 9, 2));
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
    pf.enforce(&mut Root::claim().top().at(), &rules);
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
