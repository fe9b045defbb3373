//! ESP between the queues: FAST_IPSEC with a completion thread, KAME inline.
//!
//! FAST: `esp_input` and `esp_output` run the cipher on the caller's CPU (`swcr_process`) and leave the rest to the thread
//! `cryptoret`, which calls back under Softnet. KAME does all of it where it stands.

use super::{
    cpu::Cpu,
    freight::{End, Freight},
    layout::{BLOCKED, HW_BUSY, Q},
    locks::Path,
    memory::Memory,
    profile::Extra,
    world::{Crypto, Kind, Request, Traffic, World},
};

/// Callbacks that the thread runs before it looks at anything else.
const CALLBACKS: usize = 8;

impl<M: Memory, F: Freight> World<M, F> {
    /// `esp_input`, first half.
    pub fn ipsec_input(&self, cpu: &mut Cpu<'_, F>, packet: F::Packet) {
        self.first_half(cpu, packet, false);
    }

    /// `esp_output`, first half.
    pub fn ipsec_output(&self, cpu: &mut Cpu<'_, F>, packet: F::Packet) {
        self.first_half(cpu, packet, true);
    }

    fn first_half(&self, cpu: &mut Cpu<'_, F>, packet: F::Packet, out: bool) {
        if self.has(Extra::Hardware) && !out {
            return self.crypto_dispatch_hardware(cpu, packet);
        }
        self.sa_ref(cpu, 1);
        let Some(job) = self.freight.begin(cpu.hand, packet, out) else {
            cpu.counts.qfull += 1;
            return;
        };
        let request = Request { job, out };
        if self.plan.crypto == Crypto::Fast {
            // Both ends of the channel live in the world, so it is never closed.
            let _ = self.ret.0.send(request);
        } else {
            self.second_half(cpu, request);
        }
    }

    /// The thread `cryptoret`: some callbacks, each under what this profile gives them.
    pub fn cryptoret(&self, cpu: &mut Cpu<'_, F>) -> bool {
        let mut any = false;
        for _ in 0..CALLBACKS {
            let Ok(request) = self.ret.1.try_recv() else { break };
            any = true;
            if self.has(Extra::Slow) {
                (0..2000).for_each(|_| std::hint::spin_loop());
            }
            self.under(cpu, Path::Callback, self.inq(), |cpu| self.second_half(cpu, request));
        }
        any
    }

    /// `esp_input_cb`, `esp_output_cb`, or the rest of KAME's functions.
    fn second_half(&self, cpu: &mut Cpu<'_, F>, request: Request<F>) {
        let out = request.out;
        self.sa_ref(cpu, -1);
        let mut done = Vec::with_capacity(1);
        self.freight.finish(cpu.hand, request.job, out, &mut done);
        loop {
            for packet in done.drain(..) {
                if out { self.reinject(cpu, packet) } else { self.decrypted(cpu, packet) }
            }
            if !self.freight.owed(cpu.hand, out, &mut done) {
                break;
            }
        }
    }

    fn decrypted(&self, cpu: &mut Cpu<'_, F>, packet: F::Packet) {
        if self.has(Extra::Errors) && cpu.chance(64) {
            // X2: the path that forgets to free. The slot's number is gone, so nobody can.
            let _ = self.hold(cpu, (Kind::Inner, packet), Path::Callback);
            return;
        }
        if self.plan.traffic == Traffic::Transport {
            // pr_input: straight to the socket.
            cpu.counts.delivered += 1;
            return self.freight.end(cpu.hand, packet, End::Delivered);
        }
        let path = if self.plan.v6 { Path::Handoff6 } else { Path::Handoff };
        let q = self.inq();
        self.under(cpu, path, q, |cpu| self.if_enqueue(cpu, q, (Kind::Inner, packet), path));
        self.schednetisr(cpu);
    }

    fn reinject(&self, cpu: &mut Cpu<'_, F>, mut packet: F::Packet) {
        if self.plan.crypto != Crypto::Fast {
            return self.ip_forward(cpu, packet);
        }
        self.under(cpu, Path::Reinject, self.sndq(), |cpu| {
            if !self.pf(cpu, &mut packet, true) {
                return self.freight.end(cpu.hand, packet, End::Dropped);
            }
            self.if_output(cpu, Path::IfOutput, packet);
        });
    }

    /// G: `crypto_dispatch` with a driver that may be busy. The request waits on `crp_q` meanwhile, under its mutex; whether
    /// the driver is blocked is written down after the mutex was given up for the call.
    fn crypto_dispatch_hardware(&self, cpu: &mut Cpu<'_, F>, packet: F::Packet) {
        self.lock_queue(cpu, Q::Crp);
        self.if_enqueue(cpu, Q::Crp, (Kind::Esp, packet), Path::Callback);
        self.unlock_queue(cpu, Q::Crp);
        if self.mem.load(BLOCKED) == 0 {
            self.crypto_invoke(cpu);
        }
    }

    fn crypto_invoke(&self, cpu: &mut Cpu<'_, F>) {
        if !self.mem.swap_if(HW_BUSY, 0, 1) {
            // ERESTART. A crypto_unblock that comes here finds nothing to unblock.
            self.point(cpu);
            self.mem.store(BLOCKED, 1);
            return;
        }
        self.lock_queue(cpu, Q::Crp);
        let parcel = self.if_dequeue(cpu, Q::Crp);
        self.unlock_queue(cpu, Q::Crp);
        let job = parcel.and_then(|(_, packet)| self.freight.begin(cpu.hand, packet, false));
        match job {
            Some(job) => {
                // As above.
                let _ = self.hardware.0.send(Request { job, out: false });
            }
            None => self.mem.store(HW_BUSY, 0),
        }
    }

    /// G: the driver's completion interrupt, and `crypto_unblock`.
    pub fn hardware_done(&self, cpu: &mut Cpu<'_, F>) -> bool {
        let Ok(request) = self.hardware.1.try_recv() else { return false };
        self.mem.store(HW_BUSY, 0);
        let _ = self.ret.0.send(request);
        if self.mem.load(BLOCKED) == 1 {
            self.mem.store(BLOCKED, 0);
            self.crypto_invoke(cpu);
        }
        true
    }
}
