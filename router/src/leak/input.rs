//! In: the NIC's interrupt, the softints, `ip_input`.

use super::{
    cpu::Cpu,
    freight::{End, Freight},
    layout::{PHASE, RAISED, SERVED, TARGET, pending},
    locks::Path,
    memory::Memory,
    profile::Extra,
    world::{Kind, Parcel, Traffic, World},
};
use ipsec::sa::Protocol;

/// Completions that may wait before the NIC holds back: an interrupt that never yields would starve their thread.
const COMPLETIONS: usize = 256;

impl<M: Memory, F: Freight> World<M, F> {
    /// A receive interrupt, if the wire has something: a burst onto the input queue, under Kernel in 2013.
    pub fn nic(&self, cpu: &mut Cpu<'_, F>) -> bool {
        let (raised, target) = (self.mem.load(RAISED), self.mem.load(TARGET));
        let waiting = raised.wrapping_sub(self.mem.load(SERVED));
        let held_back = !self.has(Extra::Slow) && self.ret.1.len() > COMPLETIONS;
        if raised >= target || waiting >= self.plan.window || held_back {
            return false;
        }
        let burst = self.plan.burst.min(target - raised);
        cpu.in_interrupt = true;
        cpu.spl += 1;
        let q = self.inq();
        self.under(cpu, Path::DriverRx, q, |cpu| {
            for n in 0..burst {
                if let Some(parcel) = cpu.arrived.pop_front().or_else(|| self.arrive(cpu, raised + n)) {
                    self.if_enqueue(cpu, q, parcel, Path::DriverRx);
                } else {
                    cpu.counts.exhausted = true;
                    self.mem.store(TARGET, 0);
                }
            }
        });
        cpu.counts.raised += u64::from(burst);
        self.mem.store(RAISED, raised + burst);
        self.schednetisr(cpu);
        cpu.spl -= 1;
        cpu.in_interrupt = false;
        true
    }

    /// Lets the wire bring an epoch's packets ahead of time, as far as there are clusters: the peer's sealing is not the
    /// interrupt's work.
    pub fn prepare(&self, cpu: &mut Cpu<'_, F>) {
        let (raised, target) = (self.mem.load(RAISED), self.mem.load(TARGET));
        for n in raised + cpu.arrived.len() as u32..target {
            let Some(parcel) = self.arrive(cpu, n) else {
                cpu.counts.exhausted = true;
                self.mem.store(TARGET, n);
                break;
            };
            cpu.arrived.push_back(parcel);
        }
    }

    fn arrive(&self, cpu: &mut Cpu<'_, F>, n: u32) -> Option<Parcel<F>> {
        let kind = self.kind_of(n);
        Some((kind, self.freight.receive(cpu.hand, kind)?))
    }

    /// What the `n`th packet from the wire is: in a cell with an SA three of eight are the peer's, two are to be protected.
    /// Of either, IPComp leaves one as it is.
    fn kind_of(&self, n: u32) -> Kind {
        let ipcomp = self.plan.traffic != Traffic::None && self.plan.transform == Protocol::Ipcomp;
        match (self.plan.rules.extra, n % 8) {
            (Extra::Fragments, 1 | 3 | 5 | 7) => Kind::Fragment,
            (Extra::RouteTo, 1 | 3 | 5 | 7) => Kind::Routed,
            (_, 6) if ipcomp => Kind::Plain,
            (_, 4) if ipcomp => Kind::Short,
            (_, 0 | 3 | 6) if self.plan.traffic != Traffic::None => Kind::Protected,
            (_, 1 | 4) if self.plan.traffic != Traffic::None => Kind::Policy,
            _ => Kind::Clear,
        }
    }

    /// The softint of this cell's family, on the CPU that raised it or on its own.
    pub fn schednetisr(&self, cpu: &Cpu<'_, F>) {
        let on = self.plan.placement.soft.unwrap_or(cpu.id);
        self.mem.store(pending(on, self.plan.v6), 1);
    }

    /// Runs this CPU's softints.
    pub fn softints(&self, cpu: &mut Cpu<'_, F>) -> bool {
        let flag = pending(cpu.id, self.plan.v6);
        if self.mem.load(flag) == 0 {
            return false;
        }
        self.mem.store(flag, 0);
        match (self.plan.v6, self.plan.rules.splice) {
            (true, _) => self.ip6intr(cpu),
            (false, true) => self.ipintr(cpu),
            (false, false) => self.ipintr52(cpu),
        }
        true
    }

    /// `ipintr` of 2013: Softnet throughout, Kernel while the queue is spliced onto the stack.
    fn ipintr(&self, cpu: &mut Cpu<'_, F>) {
        let q = self.inq();
        self.under(cpu, Path::IpInput, q, |cpu| {
            let mut queue = self.under(cpu, Path::Ipintr, q, |cpu| {
                self.publish_served();
                self.splice(cpu, q)
            });
            while let Some((kind, packet)) = self.spliced(cpu, &mut queue) {
                self.point(cpu);
                self.ip_input(cpu, kind, packet);
            }
        });
    }

    /// `ipintr` of 5.2: packet by packet off the global queue, under both locks.
    fn ipintr52(&self, cpu: &mut Cpu<'_, F>) {
        let q = self.inq();
        self.under(cpu, Path::IpInput, q, |cpu| {
            while let Some((kind, packet)) = self.under(cpu, Path::Ipintr, q, |cpu| self.if_dequeue(cpu, q)) {
                self.ip_input(cpu, kind, packet);
            }
            self.publish_served();
        });
    }

    /// `ip6intr`: packet by packet, under both locks throughout; with locks of their own, the queue's only while it is
    /// touched.
    fn ip6intr(&self, cpu: &mut Cpu<'_, F>) {
        let q = self.inq();
        self.under(cpu, Path::Ip6intr, q, |cpu| {
            while let Some((kind, packet)) = self.dequeue_alone(cpu, q) {
                self.point(cpu);
                self.ip_input(cpu, kind, packet);
            }
            self.publish_served();
        });
    }

    fn dequeue_alone(&self, cpu: &mut Cpu<'_, F>, q: super::layout::Q) -> Option<(Kind, F::Packet)> {
        if !self.fine() {
            return self.if_dequeue(cpu, q);
        }
        self.lock_queue(cpu, q);
        let parcel = self.if_dequeue(cpu, q);
        self.unlock_queue(cpu, q);
        parcel
    }

    /// `ip_input`, `ip6_input`: pf, then on by what the packet is. A decrypted packet skips pf, as in 2013.
    fn ip_input(&self, cpu: &mut Cpu<'_, F>, kind: Kind, mut packet: F::Packet) {
        if kind != Kind::Inner && !self.pf(cpu, &mut packet, false) {
            return self.freight.end(cpu.hand, packet, End::Dropped);
        }
        match kind {
            Kind::Protected => self.ipsec_input(cpu, packet),
            Kind::Plain => self.gif_input(cpu, packet),
            Kind::Policy => self.ipsec_output(cpu, packet, false),
            Kind::Short => self.ipsec_output(cpu, packet, true),
            Kind::Fragment => self.pf_reassemble(cpu, packet),
            Kind::Routed => self.pf_route(cpu, packet),
            Kind::Clear if self.has(Extra::Capture) => self.bpf_tap(cpu, packet),
            Kind::Clear | Kind::Inner | Kind::Output => self.ip_forward(cpu, packet),
        }
    }

    /// pf, in or out. With J, a packet may meet half of a new configuration.
    pub fn pf(&self, cpu: &mut Cpu<'_, F>, packet: &mut F::Packet, out: bool) -> bool {
        if self.has(Extra::Ioctl) {
            self.look_at_rules(cpu);
        }
        self.freight.filter(cpu.hand, packet, out)
    }

    /// Whether the world still runs.
    pub fn phase(&self) -> u32 {
        self.mem.load(PHASE)
    }
}
