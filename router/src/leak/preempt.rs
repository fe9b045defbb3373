//! Preemption points: between two steps of a queue, anything may happen that splnet does not mask.
//!
//! An interrupt may come, nested on the same thread. And the whole CPU may be slow: it misses a cache, serves a management
//! interrupt, or is a guest whose host has something else to do. The other CPUs go on meanwhile, and only a lock makes them
//! wait. On a machine at rest that happens seldom within two loads and a store; one point in [`stall`](super::world::Plan::stall)
//! gives the core away here, in every cell alike, whatever it locks. Steps and locks stay what they are: this makes no
//! interleaving possible that was not, and a cell that has none stays at zero.

use super::{cpu::Cpu, freight::Freight, memory::Memory, world::World};

impl<M: Memory, F: Freight> World<M, F> {
    /// A preemption point.
    #[inline]
    pub fn point(&self, cpu: &mut Cpu<'_, F>) {
        // Often where nothing else brings packets, seldom where they would only fill the window ahead of time.
        let one_in = if self.plan.vcpus == 1 { 4 } else { 256 };
        if self.interruptible(cpu) && cpu.chance(one_in) {
            self.interrupt(cpu);
        }
        // A scheduler that chooses at every access has no use for more choices.
        if M::TIMED && self.plan.stall > 0 && cpu.chance(self.plan.stall) {
            self.mem.pause();
        }
    }

    fn interruptible(&self, cpu: &Cpu<'_, F>) -> bool {
        let masked = cpu.spl > 0 && self.plan.rules.spl;
        !masked && !cpu.in_interrupt && cpu.id == self.plan.placement.nic
    }

    /// Delivers the NIC's interrupts, if it has any and they are not masked.
    pub(super) fn interrupt(&self, cpu: &mut Cpu<'_, F>) -> bool {
        self.interruptible(cpu) && (self.nic(cpu) | self.tx_interrupt(cpu))
    }
}
