//! Insertion, lookup, expiry and flush against each other, in every order of their steps.
//!
//! Every step is one critical section, under one lock: all that several workers can do to each other is some order of such
//! steps. One thread walks through the orders, with the table's own functions. After each step a flow has one live state
//! or none, and a lookup finds a state exactly if there is one that is live.

use kern::testing::{Chance, soak};

use super::{super::table::Node, *};
use crate::orders;

/// What one worker is about.
#[derive(Clone, Copy)]
enum Actor {
    /// Makes a state whose wire and stack key are those of these two flows.
    Make {
        wire: u32,
        stack: u32,
        slot: u32,
        at: Make,
    },
    /// Ends a state, as expiry and flush do.
    End {
        slot: u32,
        at: End,
    },
    /// Looks for the state of a flow, on one side.
    Find {
        flow: u32,
        direction: Direction,
        guess: Option<Node>,
    },
    Done,
}

#[derive(Clone, Copy)]
enum Make {
    Fill,
    Own,
    Other,
    Live,
    Undo,
    GiveBack,
}

#[derive(Clone, Copy)]
enum End {
    Mark,
    Wire,
    Stack,
    Free,
}

fn make(wire: u32, stack: u32) -> Actor {
    Actor::Make { wire, stack, slot: 0, at: Make::Fill }
}

fn end() -> Actor {
    Actor::End { slot: 0, at: End::Mark }
}

fn find(flow: u32, direction: Direction) -> Actor {
    Actor::Find { flow, direction, guess: None }
}

struct Stage<'a> {
    states: &'a States,
    rules: &'a Ruleset,
    cache: SlotCache,
    held: Held<'a, PfRules>,
    /// Lookups that found something, and that did not.
    found: [u64; 2],
}

fn key(n: u32) -> Key {
    udp(n).key(AT.0)
}

impl Stage<'_> {
    fn hash(&self, flow: u32) -> Hash {
        self.states.seed.hash(&key(flow))
    }

    fn live(&mut self) -> Vec<(u32, State)> {
        let mut live = Vec::new();
        for slot in 0..16 {
            let Some(place) = self.states.table.slot(slot) else { continue };
            let (state, _held) = self.held.lock(&place.state);
            if state.phase == Phase::Live {
                live.push((slot, state.clone()));
            }
        }
        live
    }

    /// One step of an actor: what it is about next.
    fn step(&mut self, actor: Actor) -> Actor {
        match actor {
            Actor::Make { wire, stack, slot, at } => self.make(wire, stack, slot, at),
            Actor::End { slot, at } => self.end(slot, at),
            Actor::Find { flow, guess: None, direction } => {
                let guess = Some(self.states.table.guess(self.hash(flow)));
                Actor::Find { flow, direction, guess }
            }
            Actor::Find { flow, direction, guess: Some(guess) } => {
                self.find(flow, direction, guess);
                Actor::Done
            }
            Actor::Done => Actor::Done,
        }
    }

    fn make(&mut self, wire: u32, stack: u32, slot: u32, at: Make) -> Actor {
        let next = |slot, at| Actor::Make { wire, stack, slot, at };
        let node = |side| Node::new(slot, side);
        let (own, other) = (self.hash(wire), self.hash(stack));
        match at {
            Make::Fill => {
                let slot = self.states.reserve(&mut self.cache, self.rules.main.filter[0].slot).unwrap();
                let p = udp(wire);
                let state = self.states.first(key(wire), &passing(&p), &making(self.rules, key(stack)));
                self.states.fill_slot(&mut self.held, slot, &state);
                next(slot, Make::Own)
            }
            Make::Own => {
                let put = self.states.put(&mut self.held, &key(wire), own, node(0), 0);
                let then = if wire == stack { Make::Live } else { Make::Other };
                next(slot, if put { then } else { Make::GiveBack })
            }
            Make::Other => {
                let put = self.states.put(&mut self.held, &key(stack), other, node(1), 0);
                next(slot, if put { Make::Live } else { Make::Undo })
            }
            Make::Live => {
                assert!(matches!(self.states.enliven(&mut self.held, node(0)), Made::Live(_)));
                Actor::Done
            }
            Make::Undo => {
                self.states.take_out(&mut self.held, own, node(0));
                next(slot, Make::GiveBack)
            }
            Make::GiveBack => {
                let p = udp(wire);
                let state = self.states.first(key(wire), &passing(&p), &making(self.rules, key(stack)));
                self.states.give_back(&mut self.held, &mut self.cache, slot, &state);
                Actor::Done
            }
        }
    }

    fn end(&mut self, slot: u32, at: End) -> Actor {
        let next = |at| Actor::End { slot, at };
        let gone = |stage: &mut Self| {
            let (state, _held) = stage.held.lock(&stage.states.table.slot(slot).unwrap().state);
            state.clone()
        };
        match at {
            End::Mark => {
                let Some(&(slot, _)) = self.live().first() else { return Actor::Done };
                assert!(self.states.mark_dead(&mut self.held, slot, |_| true));
                Actor::End { slot, at: End::Wire }
            }
            End::Wire => {
                let hash = self.states.seed.hash(&gone(self).wire);
                self.states.take_out(&mut self.held, hash, Node::new(slot, 0));
                next(End::Stack)
            }
            End::Stack => {
                let state = gone(self);
                if state.has(flag::TWO_KEYS) {
                    let hash = self.states.seed.hash(&state.stack);
                    self.states.take_out(&mut self.held, hash, Node::new(slot, 1));
                }
                next(End::Free)
            }
            End::Free => {
                let state = gone(self);
                self.states.free_slot(&mut self.held, &mut self.cache, slot, &state);
                Actor::Done
            }
        }
    }

    fn find(&mut self, flow: u32, direction: Direction, guess: Node) {
        let p = udp(flow);
        let lookup = Lookup { key: key(flow), hash: self.hash(flow), guess, ..lookup(self.states, AT.0, &p) };
        let wanted = self.live().into_iter().find(|(_, s)| match direction {
            Direction::In => s.wire == lookup.key,
            Direction::Out => s.stack == lookup.key,
        });
        let found = self.states.find(&mut self.held, &lookup, direction, AT.1, |node, _| node.slot());
        assert_eq!(found, wanted.map(|(slot, _)| slot));
        self.found[usize::from(found.is_none())] += 1;
    }

    fn check(&mut self) {
        let live = self.live();
        for (n, (_, one)) in live.iter().enumerate() {
            assert!(live[n + 1..].iter().all(|(_, s)| s.wire != one.wire && s.stack != one.stack));
        }
    }

    /// One order: `choose` says which of so many goes on.
    fn run(&mut self, mut actors: Vec<Actor>, mut choose: impl FnMut(usize) -> usize) {
        loop {
            let ready: Vec<usize> =
                (0..actors.len()).filter(|&n| !matches!(actors[n], Actor::Done)).collect();
            if ready.is_empty() {
                break;
            }
            let n = ready[choose(ready.len())];
            actors[n] = self.step(actors[n]);
            self.check();
        }
        for (slot, _) in self.live() {
            assert!(self.states.end_if(&mut self.held, &mut self.cache, slot, |_| true));
        }
        assert_eq!(self.states.count(), 0, "every slot is given back");
        assert!((1..6).all(|n| !self.states.has_key(&mut self.held, &key(n))), "no row has anything left");
    }

    /// Every order there is.
    fn all(&mut self, actors: impl Fn() -> Vec<Actor>) -> u32 {
        orders::every(|choose| self.run(actors(), choose))
    }
}

fn on_stage(play: impl FnOnce(&mut Stage<'_>)) {
    let pf = Arc::new(Pf::new(1, 100));
    let rules = ruleset(&pf);
    let states = pf.shared_states();
    let mut root = Root::claim();
    let mut top = root.top();
    let mut stage = Stage {
        states: &states,
        rules: &rules,
        cache: states.cache(),
        held: top.at::<PfRules>(),
        found: [0; 2],
    };
    play(&mut stage);
    assert!(stage.found.iter().all(|n| *n > 0), "{:?}", stage.found);
}

#[test]
fn in_every_order_of_steps_a_flow_has_one_live_state_or_none_and_is_found_if_it_has() {
    on_stage(|stage| {
        use Direction::{In, Out};
        let mut orders = 0;
        // Two workers make the state of one flow; and states that collide in one key of two.
        orders += stage.all(|| vec![make(1, 1), make(1, 1), find(1, In), find(1, Out)]);
        orders += stage.all(|| vec![make(1, 2), make(3, 2), find(2, Out)]);
        orders += stage.all(|| vec![make(1, 2), make(1, 4), find(1, In)]);
        // Expiry and flush against a lookup, and against the next state of the same flow.
        orders += stage.all(|| vec![make(1, 2), end(), find(1, In)]);
        orders += stage.all(|| vec![make(1, 1), end(), end(), find(1, In)]);
        orders += stage.all(|| vec![make(1, 1), end(), make(1, 1), find(1, In)]);
        println!("{orders} orders");
        assert!(orders > 10_000);
    });
}

#[test]
fn in_random_orders_of_many_workers_too() {
    let rounds = if soak() { 1_000_000 } else { 5_000 };
    let mut chance = Chance::seeded(0x5eed_0004);
    on_stage(|stage| {
        for _ in 0..rounds {
            let actors = (0..8).map(|_| {
                let (a, b) = (1 + chance.below(4_u32), 1 + chance.below(4_u32));
                let direction = if chance.is(2) { Direction::In } else { Direction::Out };
                match chance.below(4) {
                    0 | 1 => make(a, if chance.is(2) { a } else { b }),
                    2 => end(),
                    _ => find(a, direction),
                }
            });
            let actors = actors.collect();
            stage.run(actors, |ready| chance.below(ready));
        }
    });
}
