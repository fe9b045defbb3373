//! Insertion, from several threads and with two keys. What packets do to states is in `tests/states.rs`.

use std::{
    sync::{Arc, Barrier},
    thread,
};

use kern::lock::Root;

use super::{
    insert::{Made, Making},
    *,
};
use crate::{Environment, Names, Pf, Ruleset, addr::Family, conf, limiter::Share};

mod interleavings;

fn ruleset(pf: &Pf) -> Ruleset {
    let conf = conf::load_text("test", "pass proto udp keep state\n", &Environment::default(), &[]).unwrap();
    pf.compile(&Arc::new(conf), &Environment::default(), &mut Names::new()).unwrap()
}

fn udp(n: u32) -> Packet {
    Packet {
        src: u128::from(n),
        dst: 7,
        sport: 1000,
        dport: 53,
        family: Family::Inet,
        proto: 17,
        bytes: 28,
        ..Packet::EMPTY
    }
}

fn lookup(states: &States, direction: Direction, p: &Packet) -> Lookup {
    let mut lookup = Lookup::NOTHING;
    states.lookup(direction, p, &[], None, &mut lookup).unwrap();
    lookup
}

const AT: (Direction, IfIndex) = (Direction::In, IfIndex(1));

fn passing(p: &Packet) -> Passing<'_> {
    Passing { direction: AT.0, index: AT.1, p, data: &[], now: 1, at: Instant::from_secs(1) }
}

fn track(states: &States, held: &mut Held<'_, PfRules>, cache: &mut SlotCache, p: &Packet) -> Tracked {
    let lookup = lookup(states, AT.0, p);
    let mut hit = Hit::NONE;
    states.track(held, cache, &lookup, &passing(p), &mut hit)
}

fn insert(
    states: &States,
    held: &mut Held<'_, PfRules>,
    cache: &mut SlotCache,
    rules: &Ruleset,
    p: &Packet,
) -> Result<Made, Why> {
    let key = p.key(AT.0);
    states.insert(held, cache, &lookup(states, AT.0, p), &passing(p), &making(rules, key))
}

fn making(rules: &Ruleset, becomes: Key) -> Making<'_> {
    Making {
        rule: &rules.main.filter[0],
        anchor: RuleSlot::NONE,
        tag: 0,
        queue: 0,
        low_delay_queue: 0,
        allow_opts: false,
        becomes,
        nat: RuleSlot::NONE,
        sticky: None,
        treatment: 0,
        binds: Some(AT.1),
        stamped: false,
        cookie: None,
        share: Share::NONE,
        mapped: false,
    }
}

/// Threads make and end the states of the same flows; whatever they do, a flow has one state or none.
#[test]
fn racing_workers_make_one_state_a_flow_and_lose_no_slot() {
    const THREADS: u32 = 4;
    const FLOWS: u32 = 3000;
    let pf = Arc::new(Pf::new(THREADS as usize, FLOWS + THREADS));
    let rules = ruleset(&pf);
    let states = pf.shared_states();
    let barrier = Barrier::new(THREADS as usize);
    let made: u32 = thread::scope(|scope| {
        let workers: Vec<_> = (0..THREADS)
            .map(|t| {
                let (states, rules, barrier) = (&states, &rules, &barrier);
                scope.spawn(move || {
                    let mut root = Root::claim();
                    let mut top = root.top();
                    let mut held = top.at::<PfRules>();
                    let mut cache = states.cache();
                    let mut made = 0;
                    barrier.wait();
                    for n in 0..FLOWS {
                        // Each goes through them in another order, so that they meet everywhere.
                        let p = udp((n.wrapping_mul(2 * t + 1) + t * 17) % FLOWS);
                        let mut patience = match insert(states, &mut held, &mut cache, rules, &p) {
                            Ok(Made::Live(_)) => {
                                made += 1;
                                0
                            }
                            // Whoever was faster may have been stopped before his state went live.
                            Ok(_) => 1_000_000,
                            Err(why) => panic!("{why:?}"),
                        };
                        loop {
                            let tracked = track(states, &mut held, &mut cache, &p);
                            if tracked == Tracked::Hit {
                                break;
                            }
                            assert!(patience > 0, "{tracked:?}");
                            patience -= 1;
                            thread::yield_now();
                        }
                    }
                    made
                })
            })
            .collect();
        workers.into_iter().map(|w| w.join().unwrap()).sum()
    });
    let mut root = Root::claim();
    let mut top = root.top();
    let mut held = top.at::<PfRules>();
    let all = states.dump(&mut held, 1);
    let flows: std::collections::HashSet<_> = all.iter().map(|s| s.wire).collect();
    assert_eq!((made as usize, states.count() as usize), (all.len(), all.len()));
    assert_eq!(flows.len(), all.len(), "one a flow");
    let mut cache = states.cache();
    assert_eq!(states.remove_if(&mut held, &mut cache, |_| true) as usize, all.len());
    drop(cache);
    let mut free = Vec::new();
    states.table.take_free(usize::MAX, &mut free);
    free.sort_unstable();
    free.dedup();
    assert_eq!(free.len(), states.table.capacity() as usize, "every slot is free, once");
    drop(rules);
    assert_eq!(pf.slab().in_use(), 0);
}

/// Two keys, as translation will make them: what was put in is undone if the second is taken.
#[test]
fn a_collision_of_the_second_key_takes_the_first_out_again() {
    let pf = Arc::new(Pf::new(1, 100));
    let rules = ruleset(&pf);
    let states = pf.shared_states();
    let mut root = Root::claim();
    let mut top = root.top();
    let mut held = top.at::<PfRules>();
    let mut cache = states.cache();
    let key = |n| lookup(&states, AT.0, &udp(n)).key;
    let mut make = |held: &mut Held<'_, PfRules>, wire: u32, stack: u32| {
        let slot = states.reserve(&mut cache, rules.main.filter[0].slot).unwrap();
        let state = states.first(key(wire), &passing(&udp(wire)), &making(&rules, key(stack)));
        matches!(states.go_live(held, slot, &state, states.seed.hash(&key(wire))), Made::Live(_))
    };
    assert!(make(&mut held, 1, 2));
    assert!(!make(&mut held, 3, 2), "the stack key is taken");
    assert!(!make(&mut held, 1, 4), "the wire key is taken");
    assert!(make(&mut held, 3, 5), "and nothing of either is left");
    let found = |held: &mut Held<'_, PfRules>, n: u32, direction| {
        let lookup =
            Lookup { key: key(n), hash: states.seed.hash(&key(n)), ..lookup(&states, AT.0, &udp(n)) };
        states.find(held, &lookup, direction, IfIndex(1), |node, s| s.id(node.slot())).is_some()
    };
    assert!(found(&mut held, 1, Direction::In) && !found(&mut held, 1, Direction::Out));
    assert!(found(&mut held, 2, Direction::Out) && !found(&mut held, 2, Direction::In));
    assert!(!found(&mut held, 4, Direction::Out));
}
