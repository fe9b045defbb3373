//! The sweep: at a quiet moment, which packets can nobody reach any more?
//!
//! *Leaked*: in no queue that has a head. *Stranded*: in a queue that nobody serves. What is found is given back, unless the
//! point is to see the pool run dry.

use super::{
    cpu::Cpu,
    freight::{End, Freight},
    layout::{NIL, Q, State, next, seen, state},
    memory::Memory,
    world::World,
};
use std::collections::{BTreeMap, HashSet};

/// What a sweep has found.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// Packets nobody can reach.
    pub leaked: u64,
    /// Packets on queues nobody serves.
    pub stranded: u64,
    /// By where they were last: queue, and the path that put them there.
    pub last_seen: BTreeMap<(String, String), u64>,
}

impl<M: Memory, F: Freight> World<M, F> {
    /// Looks at every slot; nobody else runs, and everything has been drained.
    pub fn sweep(&self, cpu: &mut Cpu<'_, F>, reclaim: bool) -> Found {
        let mut found = Found::default();
        let reachable: HashSet<u32> = Q::ALL.into_iter().flat_map(|q| self.walk(q)).collect();
        for link in 1..=self.plan.slots {
            let word = self.mem.load(state(link));
            if word == State::Free.word() {
                continue;
            }
            let queue = Q::ALL.into_iter().find(|q| State::Queued(*q).word() == word);
            if reachable.contains(&link) {
                found.stranded += 1;
            } else {
                found.leaked += 1;
            }
            let owner = queue.map_or("in hand", Q::name).to_owned();
            let step = self.plan.rules.table.get(self.mem.load(seen(link)) as usize);
            let step = step.map_or_else(String::new, |row| format!("{:?}", row.0));
            *found.last_seen.entry((owner, step)).or_default() += 1;
            if reclaim && let Some((_, packet)) = self.unhold(cpu, link) {
                self.freight.end(cpu.hand, packet, End::Swept);
            }
        }
        for q in Q::ALL {
            let empty = self.mem.load(if q == Q::Class { q.tail() } else { q.head() }) == NIL;
            if empty && self.mem.load(q.len()) >= self.plan.maxlen {
                cpu.counts.jammed += 1;
            }
            if reclaim {
                self.mem.store(q.head(), NIL);
                self.mem.store(q.tail(), NIL);
                self.mem.store(q.len(), 0);
            }
        }
        found
    }

    /// What hangs on a queue's head, or on the tail of a circular one; as far as it says it belongs there.
    fn walk(&self, q: Q) -> Vec<u32> {
        let circular = q == Q::Class;
        let start = self.mem.load(if circular { q.tail() } else { q.head() });
        let (mut found, mut link) = (Vec::new(), start);
        while link != NIL && found.len() < self.plan.slots as usize {
            if self.mem.load(state(link)) != State::Queued(q).word() {
                break;
            }
            found.push(link);
            link = self.mem.load(next(link));
            if circular && link == start {
                break;
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::leak::{
        cell::Cell,
        freight::Bare,
        layout,
        locks::Path,
        memory::Relaxed,
        profile::Profile,
        world::{Crypto, Kind, Traffic},
    };

    const SLOTS: u32 = 8;

    /// Three packets on `crp_q` and two on `ipintrq`.
    fn planted(cpu: &mut Cpu<'_, Bare>) -> World<Relaxed, Bare> {
        let cell = Cell::new(Profile::Giant, 2, Traffic::Tunnel, Crypto::Fast, false);
        let world = World::new(Relaxed::new(layout::words(SLOTS)), Bare, cell.plan(2013, SLOTS));
        for (q, by, count) in [(Q::Crp, Path::EspInput, 3), (Q::Ip, Path::DriverRx, 2)] {
            (0..count).for_each(|_| world.if_enqueue(cpu, q, (Kind::Protected, ()), by));
        }
        world
    }

    #[test]
    fn what_waits_where_nobody_serves_is_stranded_not_leaked() {
        let mut nothing = ();
        let mut cpu = Cpu::new(0, 2013, &mut nothing);
        let world = planted(&mut cpu);
        // A length that has lost its increments: whoever believes it does not look at the head.
        world.mem.store(Q::Ip.len(), 0);
        let found = world.sweep(&mut cpu, true);
        assert_eq!((found.stranded, found.leaked), (5, 0));
        let place = |queue: &str, path: &str| found.last_seen[&(queue.to_owned(), path.to_owned())];
        assert_eq!((place("crp_q", "EspInput"), place("ipintrq", "DriverRx")), (3, 2));
        let again = world.sweep(&mut cpu, true);
        assert_eq!((again.stranded, again.leaked), (0, 0), "it was given back");
    }

    #[test]
    fn what_hangs_on_nobody_is_leaked_and_stays_so_unless_it_is_given_back() {
        let mut nothing = ();
        let mut cpu = Cpu::new(0, 2013, &mut nothing);
        let world = planted(&mut cpu);
        // The head of ipintrq overwritten, as by a second producer that saw it empty.
        let first = world.mem.load(Q::Ip.head());
        world.mem.store(Q::Ip.head(), world.mem.load(next(first)));
        for _ in 0..2 {
            let found = world.sweep(&mut cpu, false);
            assert_eq!((found.stranded, found.leaked), (4, 1));
        }
        world.sweep(&mut cpu, true);
        assert_eq!(world.sweep(&mut cpu, true).leaked, 0);
    }
}
