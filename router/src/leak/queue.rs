//! The queues of NetBSD 2013, step by step: `IF_ENQUEUE`, `IF_DEQUEUE`, the splice of `ipintr` (net/if.h, netinet/ip_input.c),
//! `_addq` and `_getq` (altq/altq_classq.h).
//!
//! ```text
//!   IF_ENQUEUE(m)   1  m.next = 0          who comes between 2 and 4 reads the same tail,
//!                   2  t = tail            and one of the two packets hangs on nobody
//!                   3  t.next = m  (or head = m)
//!                   4  tail = m
//!                   5  len = len + 1       a load and a store
//! ```
//!
//! All run at splnet. Between the steps lie preemption points, where an interrupt may come if splnet does not mask it.

use super::{
    cpu::Cpu,
    freight::Freight,
    layout::{NIL, Q, State, next, state},
    locks::Path,
    memory::Memory,
    world::{Parcel, World},
};

/// What `ipintr` has on its stack.
#[derive(Debug)]
pub struct Spliced {
    q: Q,
    head: u32,
    tail: u32,
    len: u32,
    last: u32,
}

impl<M: Memory, F: Freight> World<M, F> {
    /// `IF_ENQUEUE`, or a full queue. Under whatever the caller holds.
    pub fn if_enqueue(&self, cpu: &mut Cpu<'_, F>, q: Q, parcel: Parcel<F>, by: Path) {
        if self.mem.load(q.len()) >= self.plan.maxlen {
            self.refuse(cpu, parcel.1);
            return;
        }
        let m = match self.hold(cpu, parcel, by) {
            Ok(m) => m,
            Err((_, packet)) => return self.refuse(cpu, packet),
        };
        self.mem.store(state(m), State::Queued(q).word());
        cpu.spl += 1;
        let locked = self.plan.rules.links_locked;
        if locked {
            self.lock_queue(cpu, q);
        }
        if q == Q::Class {
            self.addq(cpu, q, m);
        } else {
            self.link(cpu, q, m);
        }
        if locked {
            self.unlock_queue(cpu, q);
        }
        self.count(cpu, q, m);
        cpu.spl -= 1;
    }

    fn link(&self, cpu: &mut Cpu<'_, F>, q: Q, m: u32) {
        self.mem.store(next(m), NIL);
        let tail = self.mem.load(q.tail());
        self.told(|| format!("IF_ENQUEUE(#{m}): reads tail = {}", Link(tail)));
        self.point(cpu);
        if tail == NIL {
            self.mem.store(q.head(), m);
            self.told(|| format!("IF_ENQUEUE(#{m}): head = #{m}"));
        } else {
            self.mem.store(next(tail), m);
            self.told(|| format!("IF_ENQUEUE(#{m}): #{tail}.next = #{m}"));
        }
        self.point(cpu);
        self.mem.store(q.tail(), m);
        self.told(|| format!("IF_ENQUEUE(#{m}): tail = #{m}"));
        self.point(cpu);
    }

    fn count(&self, cpu: &mut Cpu<'_, F>, q: Q, m: u32) {
        if !self.plan.rules.plain_len {
            self.mem.add(q.len(), 1);
            return;
        }
        let len = self.mem.load(q.len());
        self.told(|| format!("IF_ENQUEUE(#{m}): reads len = {len}"));
        self.point(cpu);
        self.mem.store(q.len(), len.wrapping_add(1));
        self.told(|| format!("IF_ENQUEUE(#{m}): len = {}", len.wrapping_add(1)));
    }

    /// `_addq`: onto a circular list.
    fn addq(&self, cpu: &mut Cpu<'_, F>, q: Q, m: u32) {
        let tail = self.mem.load(q.tail());
        self.point(cpu);
        if tail == NIL {
            self.mem.store(next(m), m);
        } else {
            let head = self.mem.load(next(tail));
            self.mem.store(next(m), head);
            self.point(cpu);
            self.mem.store(next(tail), m);
        }
        self.point(cpu);
        self.mem.store(q.tail(), m);
    }

    /// `IF_DEQUEUE`, or `_getq`. Under whatever the caller holds.
    pub fn if_dequeue(&self, cpu: &mut Cpu<'_, F>, q: Q) -> Option<Parcel<F>> {
        cpu.spl += 1;
        let m = if q == Q::Class { self.getq(cpu, q) } else { self.unlink(cpu, q) };
        cpu.spl -= 1;
        let m = m?;
        if !self.claim(m, State::Queued(q)) {
            cpu.counts.corrupt += 1;
            return None;
        }
        self.unhold(cpu, m)
    }

    fn unlink(&self, cpu: &mut Cpu<'_, F>, q: Q) -> Option<u32> {
        let m = self.mem.load(q.head());
        if m == NIL {
            return None;
        }
        let after = self.mem.load(next(m));
        self.point(cpu);
        self.mem.store(q.head(), after);
        if after == NIL {
            self.mem.store(q.tail(), NIL);
        }
        self.uncount(cpu, q);
        Some(m)
    }

    fn getq(&self, cpu: &mut Cpu<'_, F>, q: Q) -> Option<u32> {
        let tail = self.mem.load(q.tail());
        if tail == NIL {
            return None;
        }
        let head = self.mem.load(next(tail));
        self.point(cpu);
        if head == tail || head == NIL {
            self.mem.store(q.tail(), NIL);
        } else {
            let after = self.mem.load(next(head));
            self.mem.store(next(tail), after);
        }
        self.uncount(cpu, q);
        (head != NIL).then_some(head)
    }

    fn uncount(&self, cpu: &mut Cpu<'_, F>, q: Q) {
        if !self.plan.rules.plain_len {
            self.mem.add(q.len(), u32::MAX);
            return;
        }
        let len = self.mem.load(q.len());
        self.point(cpu);
        // A count that has lost an increment would wrap; if_len is signed there and only compared with maxlen.
        self.mem.store(q.len(), len.saturating_sub(1));
    }

    /// The whole queue onto the softint's stack, the queue empty.
    pub fn splice(&self, cpu: &mut Cpu<'_, F>, q: Q) -> Spliced {
        cpu.spl += 1;
        let head = self.mem.load(q.head());
        let tail = self.mem.load(q.tail());
        self.point(cpu);
        let len = self.mem.load(q.len());
        self.mem.store(q.head(), NIL);
        self.mem.store(q.tail(), NIL);
        self.point(cpu);
        self.mem.store(q.len(), 0);
        self.told(|| {
            format!("ipintr: splices {}: head = {}, tail = {}, len = {len}", q.name(), Link(head), Link(tail))
        });
        cpu.spl -= 1;
        Spliced { q, head, tail, len, last: NIL }
    }

    /// The next packet of a spliced queue. At its end, says whether all that was linked has come.
    pub fn spliced(&self, cpu: &mut Cpu<'_, F>, queue: &mut Spliced) -> Option<Parcel<F>> {
        let ended = queue.head == NIL || (self.plan.rules.by_len && queue.len == 0);
        if ended {
            // Lost: what hangs behind the last packet but was not counted, or is the tail but hangs on nobody.
            let lost = queue.head != NIL || queue.last != queue.tail;
            if lost {
                cpu.counts.incidents += 1;
                self.told(|| {
                    format!(
                        "ipintr: ends; the stack still says head = {}, tail = {}: out of scope, LOST",
                        Link(queue.head),
                        Link(queue.tail)
                    )
                });
            }
            return None;
        }
        let m = queue.head;
        if !self.claim(m, State::Queued(queue.q)) {
            cpu.counts.corrupt += 1;
            queue.head = NIL;
            queue.last = queue.tail;
            return None;
        }
        queue.head = self.mem.load(next(m));
        queue.last = m;
        queue.len = queue.len.saturating_sub(1);
        self.told(|| format!("ipintr: takes #{m}"));
        self.unhold(cpu, m)
    }

    /// A line of a trace, if there is one.
    pub fn told(&self, line: impl FnOnce() -> String) {
        if M::TOLD {
            self.mem.tell(line);
        }
    }
}

/// A link, as a trace prints it.
pub(super) struct Link(pub(super) u32);

impl std::fmt::Display for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            NIL => f.write_str("0"),
            m => write!(f, "#{m}"),
        }
    }
}
