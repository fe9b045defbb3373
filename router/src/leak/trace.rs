//! One small case, told step by step: a NIC interrupt with two packets on one CPU, a callback with one decrypted packet on
//! another, then the softint, then the sweep.

use super::{
    cell::Cell,
    cpu::Cpu,
    freight::Bare,
    layout::{self, TARGET},
    locks::Path,
    memory::Memory,
    profile::Profile,
    schedule::Scheduled,
    world::{Crypto, Plan, Request, Traffic, World},
};

/// Schedules that are tried before the search gives up.
const TRIES: u64 = 1_000;
/// Slots of the small case.
const SLOTS: u32 = 8;

/// A schedule of the small case.
#[derive(Clone, Debug)]
pub struct Trace {
    /// Its seed.
    pub seed: u64,
    /// Clusters lost.
    pub lost: u64,
    /// What happened, in order.
    pub lines: Vec<String>,
}

/// The plan of the small case.
pub fn plan(profile: Profile) -> Plan {
    let cell = Cell::new(profile, 2, Traffic::Tunnel, Crypto::Fast, profile == Profile::A6);
    Plan { burst: 2, ..cell.plan(0, SLOTS) }
}

/// Runs the small case under one schedule.
pub fn run(profile: Profile, seed: u64) -> Trace {
    let mem = Scheduled::new(layout::words(SLOTS), &["NIC", "cryptoret"], seed);
    let world = World::new(mem, Bare, plan(profile));
    let _ = world.ret.0.send(Request { job: (), out: false });
    std::thread::scope(|scope| {
        // Nobody has the baton yet, so this is not a choice of the seed.
        scope.spawn(|| {
            world.mem.scheduled(0, || {
                let mut nothing = ();
                let mut cpu = Cpu::new(0, 1, &mut nothing);
                world.mem.store(TARGET, 2);
                world.nic(&mut cpu);
            });
        });
        scope.spawn(|| {
            world.mem.scheduled(1, || {
                let mut nothing = ();
                let mut cpu = Cpu::new(1, 1, &mut nothing);
                world.cryptoret(&mut cpu);
            });
        });
        world.mem.start();
    });
    world.mem.alone("softint");
    let mut nothing = ();
    let mut cpu = Cpu::new(0, 1, &mut nothing);
    world.drain(&mut cpu);
    let found = world.sweep(&mut cpu, false);
    for ((queue, path), n) in &found.last_seen {
        let by = if *path == path_name(Path::DriverRx) { "the NIC" } else { "the callback" };
        world
            .mem
            .tell(|| format!("sweep: {n} cluster lost; {by} put it on {queue}, and nobody can reach it"));
    }
    if found.leaked == 0 {
        world.mem.tell(|| "sweep: nothing lost".to_owned());
    }
    Trace { seed, lost: found.leaked, lines: world.mem.lines() }
}

fn path_name(path: Path) -> String {
    format!("{path:?}")
}

/// The first schedule from `seed` on that loses a cluster under the locks of 2013, and the same seed under `giant`.
pub fn search(seed: u64) -> Option<(Trace, Trace)> {
    let lost =
        (seed..seed.saturating_add(TRIES)).map(|s| run(Profile::Netbsd2013, s)).find(|t| t.lost > 0)?;
    let closed = run(Profile::Giant, lost.seed);
    Some((lost, closed))
}

/// Both traces for a reader.
pub fn text(lost: &Trace, closed: &Trace) -> String {
    format!(
        "schedule {}, locks of February 2013: {} lost\n\n{}\n\nschedule {}, giant (Kernel round the callback's enqueue too): {} lost\n\n{}\n",
        lost.seed,
        lost.lost,
        lost.lines.join("\n"),
        closed.seed,
        closed.lost,
        closed.lines.join("\n")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schedule_that_loses_a_cluster_is_found_and_replays_line_by_line() {
        let (lost, closed) = search(1).unwrap();
        assert_eq!((lost.lost > 0, closed.lost), (true, 0));
        assert_eq!(run(Profile::Netbsd2013, lost.seed).lines, lost.lines, "seed {}", lost.seed);
    }

    #[test]
    fn consistent_locks_lose_nothing_under_any_of_many_schedules() {
        for seed in 0..300 {
            for profile in [Profile::Giant, Profile::Fine] {
                let trace = run(profile, seed);
                assert_eq!(trace.lost, 0, "{} seed {seed}: {:#?}", profile.name(), trace.lines);
            }
        }
    }

    #[test]
    fn each_way_to_lose_from_the_input_queue_is_found_within_a_thousand_schedules() {
        for profile in [Profile::A, Profile::ALen, Profile::A6, Profile::C] {
            let lost = (0..1000).find(|&seed| run(profile, seed).lost > 0);
            assert!(lost.is_some(), "{}", profile.name());
        }
    }
}
