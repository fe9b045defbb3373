//! The laboratory's paths under shuttle's random scheduler: consistent locks lose nothing, each fault is found.
//!
//! `SOFTNET_SOAK=1`: 100,000 schedules each; else 2,000, of which the number run is printed.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test")]

use ipsec::sa::Protocol::{self, Ah, Esp, Ipcomp};
use router::leak::{
    cell::Cell,
    cpu::Cpu,
    freight::Bare,
    layout,
    memory::{At, Memory},
    profile::Profile,
    world::{Crypto, Placement, Plan, Traffic, World},
};
use shuttle::sync::atomic::{AtomicU32, Ordering};
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

struct Words(Vec<AtomicU32>);

impl Memory for Words {
    fn load(&self, at: At) -> u32 {
        self.0[at.0 as usize].load(Ordering::SeqCst)
    }
    fn store(&self, at: At, value: u32) {
        self.0[at.0 as usize].store(value, Ordering::SeqCst);
    }
    fn swap_if(&self, at: At, old: u32, new: u32) -> bool {
        self.0[at.0 as usize].compare_exchange(old, new, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }
    fn add(&self, at: At, n: u32) -> u32 {
        self.0[at.0 as usize].fetch_add(n, Ordering::SeqCst)
    }
    fn pause(&self) {
        shuttle::thread::yield_now();
    }
}

const SLOTS: u32 = 32;
/// Seeds of the schedulers: what is found must not hang on one of them.
const SEEDS: [u64; 3] = [2013, 7, 1];

/// A small world on two virtual CPUs: bursts of four from the wire through the whole path, the transmit ring short.
fn plan(profile: Profile, transform: Protocol) -> Plan {
    let v6 = matches!(profile, Profile::A6 | Profile::B | Profile::D);
    // Where ESP has no part in it, every packet goes for the interface queue or the fragments.
    let traffic = match profile {
        Profile::E | Profile::F | Profile::X1 => Traffic::None,
        _ => Traffic::Tunnel,
    };
    let cell = Cell { transform, ..Cell::new(profile, 2, traffic, Crypto::Fast, v6) };
    let soft = (profile == Profile::F).then_some(1);
    let placement = Placement { soft, ..cell.placement };
    Plan { burst: 4, ring: 2, epoch: packets(profile), placement, ..cell.plan(2013, SLOTS) }
}

/// Packets of a schedule: eight, three of them ESP; more where the window is small.
fn packets(profile: Profile) -> u32 {
    if profile == Profile::F { 16 } else { 8 }
}

/// One schedule: how many clusters were lost.
fn lost(profile: Profile, transform: Protocol) -> u64 {
    let words = (0..layout::words(SLOTS)).map(|_| AtomicU32::new(0)).collect();
    let world = Arc::new(World::new(Words(words), Bare, plan(profile, transform)));
    let other = Arc::clone(&world);
    let follower = shuttle::thread::spawn(move || other.follow(&mut Cpu::new(1, 2013, &mut ())));
    let outcome = world.conduct(&mut Cpu::new(0, 2013, &mut ()), packets(profile), true);
    follower.join().unwrap();
    outcome.found.leaked
}

/// Runs schedules, with `until_lost` until one loses; how many were run, and in how many clusters were lost.
fn search(
    profile: Profile,
    transform: Protocol,
    seed: u64,
    schedules: usize,
    until_lost: bool,
) -> (u64, u64) {
    let (runs, losses) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let (r, l) = (Arc::clone(&runs), Arc::clone(&losses));
    let mut config = shuttle::Config::new();
    config.max_steps = shuttle::MaxSteps::ContinueAfter(200_000);
    let scheduler = shuttle::scheduler::RandomScheduler::new_from_seed(seed, schedules);
    shuttle::Runner::new(scheduler, config).run(move || {
        // What has been found need not be looked for: shuttle has no way to stop early but to do nothing.
        if until_lost && l.load(Relaxed) > 0 {
            return;
        }
        r.fetch_add(1, Relaxed);
        l.fetch_add(u64::from(lost(profile, transform) > 0), Relaxed);
    });
    (runs.load(Relaxed), losses.load(Relaxed))
}

#[test]
fn giant_and_fine_lose_nothing_on_the_whole_path() {
    let schedules = if std::env::var_os("SOFTNET_SOAK").is_some() { 100_000 } else { 2_000 };
    for transform in [Esp, Ah, Ipcomp] {
        for profile in [Profile::Giant, Profile::Fine] {
            let (runs, losses) = search(profile, transform, SEEDS[0], schedules, false);
            let what = format!("{}, {}", profile.name(), transform.name());
            println!("{what}: {runs} schedules, {losses} with a loss");
            assert_eq!((runs, losses), (schedules as u64, 0), "{what}");
        }
    }
}

/// Each seed finds a loss within a thousand schedules.
fn is_found(profile: Profile, transform: Protocol) {
    let what = format!("{}, {}", profile.name(), transform.name());
    for seed in SEEDS {
        let (runs, losses) = search(profile, transform, seed, 1_000, true);
        println!("{what}: schedule {runs} of seed {seed}");
        assert_eq!(losses, 1, "{what}: none in {runs} schedules of seed {seed}");
    }
}

#[test]
fn each_mechanism_loses_a_cluster_within_a_thousand_schedules() {
    use Profile::{A, A6, ALen, B, C, D, E, F, Netbsd2013, X1};
    for profile in [Netbsd2013, A, ALen, A6, B, C, D, E, F, X1] {
        is_found(profile, Esp);
    }
}

#[test]
fn each_mechanism_of_the_callbacks_is_found_with_ah_and_with_ipcomp() {
    use Profile::{A, A6, ALen, C, Netbsd2013};
    for profile in [Netbsd2013, A, ALen, A6, C] {
        for transform in [Ah, Ipcomp] {
            is_found(profile, transform);
        }
    }
}
