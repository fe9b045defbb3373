//! Out: `ip_forward`, `if_output`, the interface queue, the driver.

use super::{
    cpu::Cpu,
    freight::{End, Freight},
    layout::{NIL, Q, State},
    locks::Path,
    memory::Memory,
    profile::Extra,
    world::{Kind, World},
};

/// IPv6 packets that the host sends in one go.
const HOST_BURST: u32 = 4;

impl<M: Memory, F: Freight> World<M, F> {
    /// `ip_forward` and `ip_output`, `ip6_forward`: pf, then `if_output`.
    pub fn ip_forward(&self, cpu: &mut Cpu<'_, F>, mut packet: F::Packet) {
        if !self.pf(cpu, &mut packet, true) {
            return self.freight.end(cpu.hand, packet, End::Dropped);
        }
        let path = if self.plan.v6 { Path::IfOutput6 } else { Path::IfOutput };
        self.if_output(cpu, path, packet);
    }

    /// The host sends by itself (B, D), from a context of its own.
    pub fn host_output6(&self, cpu: &mut Cpu<'_, F>) -> bool {
        let target = self.mem.load(super::layout::TARGET);
        if !self.has(Extra::Host6) || cpu.turns >= target {
            return false;
        }
        let q = self.sndq();
        // Only what is likely to fit: a sender that finds the queue full waits.
        if self.mem.load(q.len()) + HOST_BURST > self.plan.maxlen {
            return false;
        }
        for _ in 0..HOST_BURST {
            cpu.turns += 1;
            let Some(mut packet) = self.freight.receive(cpu.hand, Kind::Clear) else {
                cpu.counts.exhausted = true;
                self.mem.store(super::layout::TARGET, 0);
                break;
            };
            cpu.counts.raised += 1;
            self.under(cpu, Path::HostOutput6, q, |cpu| {
                if self.pf(cpu, &mut packet, true) {
                    self.if_output(cpu, Path::IfOutputHost6, packet);
                } else {
                    self.freight.end(cpu.hand, packet, End::Dropped);
                }
            });
        }
        true
    }

    /// pf's route-to: `if_output` from pf itself.
    pub fn pf_route(&self, cpu: &mut Cpu<'_, F>, packet: F::Packet) {
        self.if_output(cpu, Path::RouteTo, packet);
    }

    /// `if_output`, `ether_output`: resolve, enqueue, start the driver, under what `path` takes.
    pub fn if_output(&self, cpu: &mut Cpu<'_, F>, path: Path, packet: F::Packet) {
        let q = self.sndq();
        self.under(cpu, path, q, |cpu| {
            let Some(packet) = self.arpresolve(cpu, packet) else { return };
            if self.discipline() {
                cpu.counts.qfull += self.freight.enqueue(cpu.hand, packet);
            } else {
                self.if_enqueue(cpu, q, (Kind::Output, packet), path);
            }
            self.if_start(cpu);
        });
    }

    /// `la_hold` (C): now and then the next hop is not known, and the packet is held instead of the one held before.
    fn arpresolve(&self, cpu: &mut Cpu<'_, F>, packet: F::Packet) -> Option<F::Packet> {
        if !self.plan.rules.la_hold || !cpu.chance(16) {
            return Some(packet);
        }
        let m = match self.hold(cpu, (Kind::Output, packet), Path::IfOutput) {
            Ok(m) => m,
            Err((_, packet)) => return Some(packet),
        };
        self.mem.store(super::layout::state(m), State::Queued(Q::Hold).word());
        let old = self.mem.load(Q::Hold.head());
        self.point(cpu);
        self.mem.store(Q::Hold.head(), m);
        self.drop_held(cpu, old);
        None
    }

    /// Ends what was held. Of two who read the same pointer only one can.
    pub fn drop_held(&self, cpu: &mut Cpu<'_, F>, held: u32) {
        if held == NIL {
            return;
        }
        if !self.claim(held, State::Queued(Q::Hold)) {
            cpu.counts.corrupt += 1;
            return;
        }
        if let Some((_, packet)) = self.unhold(cpu, held) {
            self.freight.end(cpu.hand, packet, End::Dropped);
        }
    }

    /// `wm_start`: from the interface queue to the ring, as long as there are descriptors.
    fn if_start(&self, cpu: &mut Cpu<'_, F>) {
        if self.discipline() {
            let room = self.plan.ring.saturating_sub(self.ring.1.len());
            if room == 0 {
                return;
            }
            let mut done = Vec::with_capacity(1);
            self.freight.dequeue(cpu.hand, room, &mut done);
            for packet in done {
                self.to_ring(cpu, packet);
            }
            return;
        }
        let q = self.sndq();
        while self.ring.1.len() < self.plan.ring {
            let Some((_, packet)) = self.if_dequeue(cpu, q) else { break };
            self.to_ring(cpu, packet);
        }
    }

    fn to_ring(&self, cpu: &mut Cpu<'_, F>, packet: F::Packet) {
        // The ring belongs to the hardware. Two drivers at once may find it full after all.
        if let Err(full) = self.ring.0.try_send(packet) {
            self.refuse(cpu, full.into_inner());
        }
    }

    /// The transmit interrupt: reclaims descriptors and starts the driver again.
    pub fn tx_interrupt(&self, cpu: &mut Cpu<'_, F>) -> bool {
        let waits = if self.discipline() { self.freight.waits() } else { self.sends(self.sndq()) };
        if self.ring.1.is_empty() && !waits {
            return false;
        }
        let interrupted = std::mem::replace(&mut cpu.in_interrupt, true);
        cpu.spl += 1;
        let q = self.sndq();
        self.under(cpu, Path::DriverTx, q, |cpu| {
            for _ in 0..self.plan.ring.div_ceil(4) {
                let Ok(packet) = self.ring.1.try_recv() else { break };
                cpu.counts.sent += 1;
                self.freight.sent(cpu.hand, packet);
            }
            self.if_start(cpu);
        });
        cpu.spl -= 1;
        cpu.in_interrupt = interrupted;
        true
    }

    /// Whether a queue has something to take.
    fn sends(&self, q: Q) -> bool {
        let at = if q == Q::Class { q.tail() } else { q.head() };
        self.mem.load(at) != NIL
    }
}
