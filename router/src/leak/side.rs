//! Paths that run beside the traffic: pf's fragments, its rules, captures, references to the SA.

use super::{
    cpu::Cpu,
    freight::{End, Freight},
    layout::{Q, RULES, SA_REFS, SA_TRUE, State, refs, state},
    locks::Path,
    memory::Memory,
    profile::Extra,
    world::{Kind, World},
};

/// Fragments purged in one go.
const PURGED: usize = 4;

impl<M: Memory, F: Freight> World<M, F> {
    /// `pf_reassemble`: keeps a fragment; every fourth completes a datagram, and the oldest goes on.
    pub fn pf_reassemble(&self, cpu: &mut Cpu<'_, F>, packet: F::Packet) {
        let whole = self.under(cpu, Path::Fragment, Q::Frags, |cpu| {
            self.if_enqueue(cpu, Q::Frags, (Kind::Fragment, packet), Path::Fragment);
            if cpu.chance(4) { self.if_dequeue(cpu, Q::Frags) } else { None }
        });
        if let Some((_, packet)) = whole {
            self.ip_forward(cpu, packet);
        }
    }

    /// `pf_purge_expired_fragments`.
    pub fn pf_purge(&self, cpu: &mut Cpu<'_, F>) -> bool {
        if !self.has(Extra::Fragments) {
            return false;
        }
        self.under(cpu, Path::Purge, Q::Frags, |cpu| {
            let mut any = false;
            for _ in 0..PURGED {
                let Some((_, packet)) = self.if_dequeue(cpu, Q::Frags) else { break };
                any = true;
                self.freight.end(cpu.hand, packet, End::Dropped);
            }
            any
        })
    }

    /// J: another ruleset, in two writes. Only while there is traffic.
    pub fn pfioctl(&self, cpu: &mut Cpu<'_, F>) {
        cpu.turns = cpu.turns.wrapping_add(1);
        let version = cpu.turns;
        self.under(cpu, Path::Ioctl, Q::Frags, |_| {
            self.mem.store(RULES[0], version);
            self.mem.pause();
            self.mem.store(RULES[1], version);
        });
    }

    /// J: a packet is judged by one half and the other.
    pub fn look_at_rules(&self, cpu: &mut Cpu<'_, F>) {
        if self.mem.load(RULES[0]) != self.mem.load(RULES[1]) {
            cpu.counts.odd += 1;
        }
    }

    /// H: a reference to the SA taken or given back, with a load and a store, as `SA_ADDREF` and `KEY_FREESAV` do.
    pub fn sa_ref(&self, cpu: &mut Cpu<'_, F>, by: i32) {
        if !self.has(Extra::Refs) {
            return;
        }
        let count = self.mem.load(SA_REFS);
        self.point(cpu);
        self.mem.store(SA_REFS, count.wrapping_add_signed(by));
        self.mem.add(SA_TRUE, by as u32);
    }

    /// X1: the cluster has a second owner, a capture on another CPU; the reference count is plain.
    pub fn bpf_tap(&self, cpu: &mut Cpu<'_, F>, packet: F::Packet) {
        let link = match self.hold(cpu, (Kind::Clear, packet), Path::IpInput) {
            Ok(link) => link,
            Err((_, packet)) => return self.refuse(cpu, packet),
        };
        self.mem.store(refs(link), 2);
        // Its number is all that the two owners share; both ends of the channel live in the world.
        let _ = self.capture.0.send(link);
        self.m_ext_free(cpu, link);
    }

    /// X1: the capture gives its reference back.
    pub fn captured(&self, cpu: &mut Cpu<'_, F>) -> bool {
        let mut any = false;
        while let Ok(link) = self.capture.1.try_recv() {
            self.m_ext_free(cpu, link);
            any = true;
        }
        any
    }

    fn m_ext_free(&self, cpu: &mut Cpu<'_, F>, link: u32) {
        let count = self.mem.load(refs(link));
        self.point(cpu);
        self.mem.store(refs(link), count.wrapping_sub(1));
        if count != 1 {
            return;
        }
        // Both may believe that they are the last: the state word lets one.
        if !self.mem.swap_if(state(link), State::Owned.word(), State::Queued(Q::Hold).word()) {
            cpu.counts.corrupt += 1;
            return;
        }
        if let Some((_, packet)) = self.unhold(cpu, link) {
            self.freight.end(cpu.hand, packet, End::Dropped);
        }
    }
}
