//! Epochs: traffic, then quiet, then the sweep, again and again.
//!
//! ```text
//!   virtual CPU 0 (conducts)       RUN ── target reached ──▶ PARK ── all parked: drain, sweep ──▶ RUN ... ──▶ STOP
//!   the others (follow)            turn, turn, turn ───────▶ parked, nothing in hand ───────────▶ turn, ...
//! ```
//!
//! A turn ends with nothing in hand, so when all are parked every packet is in a queue, in a channel, or lost. What is in
//! queues and channels is then worked off by one CPU alone.

use super::{
    cpu::{Counts, Cpu},
    freight::Freight,
    layout::{NIL, PHASE, Q, RAISED, RULES, SA_REFS, SA_TRUE, STUCK, TARGET, idle, pending},
    memory::Memory,
    profile::Extra,
    sweep::Found,
    world::World,
};
use kern::time::Clock;

const RUN: u32 = 0;
const PARK: u32 = 1;
const STOP: u32 = 2;

/// Turns without work before a CPU lets others have the core.
const IDLE_TURNS: u32 = 64;

/// What a cell came to.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// What was found, over all sweeps.
    pub found: Found,
    /// Everything counted.
    pub counts: Counts,
    /// Leaked in all after so many packets, a point an epoch.
    pub series: Vec<(u64, u64)>,
    /// The watchdog ended it; what it saw.
    pub stuck: Option<String>,
    /// Nanoseconds of traffic and sweeps.
    pub nanos: u64,
}

impl<M: Memory, F: Freight> World<M, F> {
    /// One turn of a virtual CPU's loop: everything that may run there, once. Whether there was anything.
    pub fn turn(&self, cpu: &mut Cpu<'_, F>) -> bool {
        let at = self.plan.placement;
        let mut any = false;
        if cpu.id == at.nic {
            any |= self.nic(cpu);
            any |= self.tx_interrupt(cpu);
        }
        any |= self.softints(cpu);
        if cpu.id == at.cryptoret {
            any |= self.cryptoret(cpu);
        }
        if cpu.id == self.plan.vcpus - 1 {
            any |= self.captured(cpu);
            any |= self.hardware_done(cpu);
            any |= self.pf_purge(cpu);
            any |= self.host_output6(cpu);
            if self.has(Extra::Ioctl) {
                self.pfioctl(cpu);
            }
        }
        any
    }

    /// A virtual CPU that follows, until the end.
    pub fn follow(&self, cpu: &mut Cpu<'_, F>) {
        let mut nothing = 0;
        loop {
            if self.mem.load(STUCK) != 0 {
                return;
            }
            match self.phase() {
                STOP => return,
                PARK => {
                    self.mem.store(idle(cpu.id), 1);
                    cpu.turns = 0;
                    while self.phase() == PARK && self.mem.load(STUCK) == 0 {
                        self.mem.pause();
                    }
                    self.mem.store(idle(cpu.id), 0);
                }
                _ => self.rest(cpu, &mut nothing),
            }
        }
    }

    fn rest(&self, cpu: &mut Cpu<'_, F>, nothing: &mut u32) {
        if self.turn(cpu) {
            *nothing = 0;
            return;
        }
        *nothing += 1;
        if !M::TIMED || *nothing > IDLE_TURNS {
            self.mem.pause();
        }
    }

    /// Virtual CPU 0: works like the others, and beats time.
    pub fn conduct(&self, cpu: &mut Cpu<'_, F>, packets: u32, reclaim: bool) -> Outcome {
        let mut outcome = Outcome::default();
        let start = M::TIMED.then(|| Clock::Real.now());
        let mut sent = 0;
        while sent < packets && outcome.stuck.is_none() && !cpu.counts.exhausted {
            let epoch = self.plan.epoch.min(packets - sent);
            sent += epoch;
            cpu.turns = 0;
            self.mem.store(TARGET, sent);
            if cpu.id == self.plan.placement.nic {
                self.prepare(cpu);
            }
            self.mem.store(PHASE, RUN);
            self.await_all(0, &mut outcome);
            self.traffic(cpu, &mut outcome);
            self.mem.store(PHASE, PARK);
            self.await_all(1, &mut outcome);
            if outcome.stuck.is_some() {
                break;
            }
            self.drain(cpu);
            let found = self.sweep(cpu, reclaim);
            outcome.take(found, reclaim);
            outcome.series.push((u64::from(self.mem.load(RAISED)), outcome.found.leaked));
        }
        self.mem.store(PHASE, STOP);
        if let Some(start) = start {
            outcome.nanos = Clock::Real.now().nanos_since(start);
        }
        outcome
    }

    /// Until the NIC has raised what it should, or the pool is empty, or nothing moves.
    fn traffic(&self, cpu: &mut Cpu<'_, F>, outcome: &mut Outcome) {
        let (mut nothing, mut last, mut turns) = (0, self.mem.load(RAISED), 0u32);
        let mut until = M::TIMED.then(|| Clock::Real.now() + self.plan.patience);
        while self.mem.load(RAISED) < self.mem.load(TARGET) {
            self.rest(cpu, &mut nothing);
            turns = turns.wrapping_add(1);
            if !turns.is_multiple_of(4096) {
                continue;
            }
            let raised = self.mem.load(RAISED);
            if raised != last {
                last = raised;
                until = until.map(|_| Clock::Real.now() + self.plan.patience);
            } else if until.is_some_and(|until| Clock::Real.now() > until) {
                return self.give_up(outcome, "no packet was raised");
            }
        }
    }

    fn await_all(&self, parked: u32, outcome: &mut Outcome) {
        let until = M::TIMED.then(|| Clock::Real.now() + self.plan.patience);
        for cpu in 1..self.plan.vcpus {
            while self.mem.load(idle(cpu)) != parked {
                if until.is_some_and(|until| Clock::Real.now() > until) {
                    return self.give_up(outcome, "a virtual CPU does not answer");
                }
                self.mem.pause();
            }
        }
        if self.mem.load(STUCK) != 0 {
            self.give_up(outcome, "a lock was not to be had");
        }
    }

    fn give_up(&self, outcome: &mut Outcome, why: &str) {
        let queues = Q::ALL.map(|q| {
            let word = |at| self.mem.load(at);
            format!("{} head {} tail {} len {}", q.name(), word(q.head()), word(q.tail()), word(q.len()))
        });
        outcome.stuck = Some(format!(
            "{why}: raised {} of {}, {} completions, ring {}; {}",
            self.mem.load(RAISED),
            self.mem.load(TARGET),
            self.ret.1.len(),
            self.ring.1.len(),
            queues.join("; ")
        ));
        self.mem.store(STUCK, 1);
    }

    /// Works off everything, alone: the others are parked.
    pub fn drain(&self, cpu: &mut Cpu<'_, F>) {
        // No interrupts: sources have stopped.
        cpu.in_interrupt = true;
        let me = cpu.id;
        loop {
            let mut any = false;
            for other in 0..self.plan.vcpus {
                cpu.id = other;
                any |= self.softints(cpu);
            }
            cpu.id = me;
            any |= self.cryptoret(cpu);
            any |= self.captured(cpu);
            any |= self.hardware_done(cpu);
            any |= self.pf_purge(cpu);
            any |= self.tx_interrupt(cpu);
            if !any {
                break;
            }
        }
        let held = self.mem.load(Q::Hold.head());
        self.mem.store(Q::Hold.head(), NIL);
        self.drop_held(cpu, held);
        if self.has(Extra::Refs) && self.mem.load(SA_REFS) != self.mem.load(SA_TRUE) {
            cpu.counts.odd += 1;
            self.mem.store(SA_REFS, self.mem.load(SA_TRUE));
        }
        self.mem.store(RULES[0], self.mem.load(RULES[1]));
        for other in 0..self.plan.vcpus {
            self.mem.store(pending(other, self.plan.v6), 0);
        }
        cpu.in_interrupt = false;
    }
}

impl Outcome {
    fn take(&mut self, found: Found, reclaim: bool) {
        if !reclaim {
            // It is all still there: the last sweep counts everything.
            self.found = found;
            return;
        }
        self.found.leaked += found.leaked;
        self.found.stranded += found.stranded;
        for (place, n) in found.last_seen {
            *self.found.last_seen.entry(place).or_default() += n;
        }
    }
}

/// Runs a cell on threads of its own, one a virtual CPU, pinned to `cores`.
pub fn on_threads<M: Memory, F: Freight>(
    world: &World<M, F>,
    packets: u32,
    reclaim: bool,
    cores: &[core_affinity::CoreId],
) -> Outcome
where
    World<M, F>: Sync,
{
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..world.plan.vcpus)
            .map(|id| {
                let core = cores.get(core_of(id, world.plan.vcpus, cores.len())).copied();
                scope.spawn(move || {
                    if let Some(core) = core {
                        core_affinity::set_for_current(core);
                    }
                    let mut outcome = Outcome::default();
                    world.freight.with_hand(id, &mut |hand| {
                        let mut cpu = Cpu::new(id, world.plan.seed, hand);
                        if id == 0 {
                            outcome = world.conduct(&mut cpu, packets, reclaim);
                        } else {
                            world.follow(&mut cpu);
                        }
                        outcome.counts = cpu.counts.clone();
                    });
                    outcome
                })
            })
            .collect();
        let mut all = Outcome::default();
        for (id, thread) in threads.into_iter().enumerate() {
            match thread.join() {
                Ok(mine) if id == 0 => all = mine,
                Ok(mine) => all.counts.add(&mine.counts),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        all
    })
}

/// The core of a virtual CPU: the first on the first, the last on the last, so that the NIC and the completion thread have
/// cores of their own where there are two.
pub fn core_of(id: u32, vcpus: u32, cores: usize) -> usize {
    (id as usize * cores) / (vcpus as usize).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::leak::{
        cell::Cell,
        freight::Bare,
        layout::{self, KERNEL},
        memory::Relaxed,
        profile::Profile,
        world::{Crypto, Plan, Traffic},
    };
    use kern::time::Duration;

    const SLOTS: u32 = 256;

    fn world(profile: Profile) -> World<Relaxed, Bare> {
        let cell = Cell::new(profile, 2, Traffic::Tunnel, Crypto::Fast, false);
        let plan = Plan { patience: Duration::from_millis(100), ..cell.plan(2013, SLOTS) };
        World::new(Relaxed::new(layout::words(SLOTS)), Bare, plan)
    }

    #[test]
    fn a_cell_that_cannot_go_on_is_ended_and_says_how_it_stood() {
        let world = world(Profile::Giant);
        // Held by a CPU that does not exist.
        world.mem.store(KERNEL, 9);
        let outcome = on_threads(&world, 1000, true, &[]);
        let stuck = outcome.stuck.unwrap();
        assert!(stuck.contains("ipintrq head 0 tail 0 len"), "{stuck}");
        assert!(stuck.contains("of 1000"), "{stuck}");
    }

    #[test]
    fn a_cell_that_goes_on_is_not_ended_by_the_watchdog() {
        let outcome = on_threads(&world(Profile::Giant), 2000, true, &[]);
        assert_eq!((outcome.stuck, outcome.counts.raised, outcome.found.leaked), (None, 2000, 0));
    }
}
