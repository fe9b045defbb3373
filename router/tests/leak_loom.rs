//! The laboratory's queues under loom: every interleaving of two CPUs, weak memory included.
//!
//! `giant` and `fine` lose nothing, neither from the input queue (the NIC against the crypto callback) nor from the interface
//! queue (`if_output` against the transmit interrupt). The locks of 2013 lose, in the same models: so these can find it.
//! The models bound the number of preemptions (`LOOM_MAX_PREEMPTIONS` overrides it).
//!
//! What loom sees are the words of [`Memory`]. The pool's depot has a model of its own (`make loom`); slots and channels are
//! touched by whoever owns the packet, never across a step.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test")]

use loom::sync::atomic::{AtomicU32, Ordering};
use router::leak::{
    cell::Cell,
    cpu::Cpu,
    freight::Bare,
    layout::{self, KERNEL, Q, RAISED, SERVED, SOFTNET, TARGET},
    locks::Path,
    memory::{At, Memory, Relaxed},
    profile::Profile,
    world::{Crypto, Plan, Request, Traffic, World},
};
use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed as Plain},
    },
};

const SLOTS: u32 = 3;

/// Words that both CPUs touch are loom's; what only the sweep looks at is not, or each model would begin with a thousand.
struct Words {
    shared: BTreeMap<u32, AtomicU32>,
    own: Relaxed,
}

impl Words {
    fn new() -> Words {
        let queues =
            [Q::Ip, Q::Ip6, Q::Class].into_iter().flat_map(|q| [q.head(), q.tail(), q.len(), q.lock()]);
        let slots = (1..=SLOTS).flat_map(|m| [layout::next(m), layout::state(m)]);
        let shared = [SOFTNET, KERNEL, RAISED, SERVED].into_iter().chain(queues).chain(slots);
        let shared = shared.map(|at| (at.0, AtomicU32::new(0))).collect();
        Words { shared, own: Relaxed::new(layout::words(SLOTS)) }
    }
}

/// The orders of the real thing: see [`Relaxed`].
impl Memory for Words {
    fn load(&self, at: At) -> u32 {
        self.shared.get(&at.0).map_or_else(|| self.own.load(at), |word| word.load(Ordering::Relaxed))
    }
    fn store(&self, at: At, value: u32) {
        match self.shared.get(&at.0) {
            Some(word) => word.store(value, Ordering::Release),
            None => self.own.store(at, value),
        }
    }
    fn swap_if(&self, at: At, old: u32, new: u32) -> bool {
        match self.shared.get(&at.0) {
            Some(word) => word.compare_exchange(old, new, Ordering::AcqRel, Ordering::Relaxed).is_ok(),
            None => self.own.swap_if(at, old, new),
        }
    }
    fn add(&self, at: At, n: u32) -> u32 {
        match self.shared.get(&at.0) {
            Some(word) => word.fetch_add(n, Ordering::AcqRel),
            None => self.own.add(at, n),
        }
    }
    fn pause(&self) {
        loom::thread::yield_now();
    }
}

fn world(profile: Profile, v6: bool) -> Arc<World<Words, Bare>> {
    let cell = Cell::new(profile, 2, Traffic::Tunnel, Crypto::Fast, v6);
    Arc::new(World::new(Words::new(), Bare, Plan { burst: 1, ring: 1, ..cell.plan(2013, SLOTS) }))
}

/// Runs `one` on CPU 0 and `other` on CPU 1 in every order; how many orders there were, and clusters lost in all of them.
fn explore(
    profile: Profile,
    v6: bool,
    begin: fn(&World<Words, Bare>),
    one: fn(&World<Words, Bare>, &mut Cpu<'_, Bare>),
    other: fn(&World<Words, Bare>, &mut Cpu<'_, Bare>),
) -> (u64, u64) {
    let (orders, lost) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let (o, l) = (Arc::clone(&orders), Arc::clone(&lost));
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = builder.preemption_bound.or(Some(4));
    builder.max_branches = 20_000;
    builder.check(move || {
        let world = world(profile, v6);
        begin(&world);
        let theirs = Arc::clone(&world);
        let thread = loom::thread::spawn(move || other(&theirs, &mut Cpu::new(1, 2013, &mut ())));
        one(&world, &mut Cpu::new(0, 2013, &mut ()));
        thread.join().unwrap();
        let mut nothing = ();
        let mut cpu = Cpu::new(0, 2013, &mut nothing);
        world.drain(&mut cpu);
        o.fetch_add(1, Plain);
        l.fetch_add(world.sweep(&mut cpu, true).leaked, Plain);
    });
    (orders.load(Plain), lost.load(Plain))
}

/// A frame from the wire against a decrypted packet.
fn input(profile: Profile, v6: bool) -> (u64, u64) {
    let begin: fn(&World<Words, Bare>) = |world| {
        world.mem.store(TARGET, 1);
        world.ret.0.send(Request { job: (), out: false }).unwrap();
    };
    explore(
        profile,
        v6,
        begin,
        |world, cpu| assert!(world.nic(cpu)),
        |world, cpu| assert!(world.cryptoret(cpu)),
    )
}

/// A packet to be sent, the ring full and one waiting, against the transmit interrupt that makes room.
fn output(profile: Profile, v6: bool, path: Path) -> (u64, u64) {
    let begin = |world: &World<Words, Bare>| {
        let mut nothing = ();
        let mut cpu = Cpu::new(1, 2013, &mut nothing);
        (0..2).for_each(|_| world.if_output(&mut cpu, Path::IfOutput, ()));
    };
    let send: fn(&World<Words, Bare>, &mut Cpu<'_, Bare>) = match path {
        Path::IfOutputHost6 => |world, cpu| world.if_output(cpu, Path::IfOutputHost6, ()),
        _ => |world, cpu| world.if_output(cpu, Path::IfOutput, ()),
    };
    explore(profile, v6, begin, |world, cpu| assert!(world.tx_interrupt(cpu)), send)
}

#[test]
fn consistent_locks_lose_nothing_in_any_order() {
    for profile in [Profile::Giant, Profile::Fine] {
        for v6 in [false, true] {
            let (orders, lost) = input(profile, v6);
            println!("{} input, inet6 {v6}: {orders} orders", profile.name());
            assert!(orders > 4, "loom saw next to nothing");
            assert_eq!(lost, 0, "{} input, inet6 {v6}, {orders} orders", profile.name());
        }
        for path in [Path::IfOutput, Path::IfOutputHost6] {
            let (orders, lost) = output(profile, path == Path::IfOutputHost6, path);
            println!("{} {path:?}: {orders} orders", profile.name());
            assert!(orders > 4, "loom saw next to nothing");
            assert_eq!(lost, 0, "{} {path:?}, {orders} orders", profile.name());
        }
    }
}

#[test]
fn the_locks_of_2013_lose_in_the_same_models() {
    for (what, (orders, lost)) in [
        ("A, ipintrq", input(Profile::A, false)),
        ("A-len, ipintrq", input(Profile::ALen, false)),
        ("A6, ip6intrq", input(Profile::A6, true)),
        ("D, the ALTQ class", output(Profile::D, true, Path::IfOutputHost6)),
    ] {
        println!("{what}: {lost} lost in {orders} orders");
        assert!(lost > 0, "{what}: none in {orders} orders");
    }
}
