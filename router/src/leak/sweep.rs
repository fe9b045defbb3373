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
