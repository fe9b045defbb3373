//! ESP, AH and IPComp between the queues: FAST_IPSEC with a completion thread, KAME inline.
//!
//! FAST: `esp_input`, `ah_input`, `ipcomp_input` and their outputs are the first halves, on the caller's CPU (`swcr_process`);
//! the rest is left to the thread `cryptoret`, which calls back under Softnet. KAME does all of it where it stands.
//!
//! Not all that an IPComp SA is for goes that way (RFC 3173, 2.2): a payload below the threshold is not tried, and
//! `ipcomp_output` itself goes on with it (lock map, row 12a). What did not shrink leaves its callback as it was. Either comes
//! to the peer as plain IP in IP, of which `ipcomp_input` knows nothing: `gif_input` takes it, where `ip_input` stands.

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
    /// `esp_input`, `ah_input`, `ipcomp_input`.
    pub fn ipsec_input(&self, cpu: &mut Cpu<'_, F>, packet: F::Packet) {
        if self.has(Extra::Hardware) {
            return self.crypto_dispatch_hardware(cpu, packet);
        }
        let half = Path::half(self.plan.transform, false);
        self.first_half(cpu, packet, false, half, self.plan.crypto == Crypto::Fast);
    }

    /// `esp_output`, `ah_output`, `ipcomp_output`; `short`: too short for IPComp.
    pub fn ipsec_output(&self, cpu: &mut Cpu<'_, F>, packet: F::Packet, short: bool) {
        let half = Path::half(self.plan.transform, true);
        self.first_half(cpu, packet, true, half, self.plan.crypto == Crypto::Fast && !short);
    }

    /// `gif_input`: takes the outer header off, and no callback follows.
    pub fn gif_input(&self, cpu: &mut Cpu<'_, F>, packet: F::Packet) {
        self.first_half(cpu, packet, false, Path::GifInput, false);
    }

    /// One half, and with `dispatch` no more: the other is the thread's.
    fn first_half(&self, cpu: &mut Cpu<'_, F>, packet: F::Packet, out: bool, half: Path, dispatch: bool) {
        self.under(cpu, half, self.inq(), |cpu| {
            self.sa_ref(cpu, 1);
            let Some(job) = self.freight.begin(cpu.hand, packet, out) else {
                cpu.counts.qfull += 1;
                return;
            };
            let request = Request { job, out };
            if dispatch {
                // Both ends of the channel live in the world, so it is never closed.
                let _ = self.ret.0.send(request);
            } else {
                self.second_half(cpu, request);
            }
        });
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
            let callback = Path::callback(self.plan.transform, request.out);
            self.under(cpu, callback, self.inq(), |cpu| self.second_half(cpu, request));
        }
        any
    }

    /// What `esp_input_cb`, `esp_output_cb` and the like do, or the rest of KAME's functions.
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
            let _ = self.hold(cpu, (Kind::Inner, packet), Path::callback(self.plan.transform, false));
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
        self.if_enqueue(cpu, Q::Crp, (Kind::Protected, packet), Path::half(self.plan.transform, false));
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::leak::{
        cell::Cell,
        freight::Bare,
        layout,
        locks::{self, GIANT},
        memory::Relaxed,
        profile::Profile,
    };
    use ipsec::sa::Protocol::{self, Ah, Esp, Ipcomp};

    const SLOTS: u32 = 8;

    fn world(transform: Protocol, change: impl FnOnce(&mut locks::Table)) -> World<Relaxed, Bare> {
        let cell = Cell { transform, ..Cell::new(Profile::Giant, 2, Traffic::Tunnel, Crypto::Fast, false) };
        let mut plan = cell.plan(2013, SLOTS);
        change(&mut plan.rules.table);
        World::new(Relaxed::new(layout::words(SLOTS)), Bare, plan)
    }

    /// How often Softnet and Kernel are taken by what `run` does.
    fn taken(run: impl FnOnce(&mut Cpu<'_, Bare>)) -> [u64; 2] {
        let mut nothing = ();
        let mut cpu = Cpu::new(0, 2013, &mut nothing);
        run(&mut cpu);
        cpu.counts.taken
    }

    #[test]
    fn each_half_and_callback_takes_what_its_own_row_says() {
        for transform in [Esp, Ah, Ipcomp] {
            for row in [Esp, Ah, Ipcomp] {
                for out in [false, true] {
                    // Of one row Softnet is taken away, or given, and only that transform may show it.
                    let (half, callback) = (Path::half(row, out), Path::callback(row, out));
                    let world = world(transform, |table| {
                        table[half as usize] = (half, GIANT[Path::IpInput as usize].1, "a test");
                        table[callback as usize] = (callback, &[], "a test");
                    });
                    let own = u64::from(row == transform);
                    let first = taken(|cpu| {
                        if out { world.ipsec_output(cpu, (), false) } else { world.ipsec_input(cpu, ()) }
                    });
                    assert_eq!(first, [own, 0], "{transform:?} under {half:?}");
                    let second = taken(|cpu| assert!(world.cryptoret(cpu)));
                    assert_eq!(second, [1 - own, 1], "{transform:?} under {callback:?}");
                }
            }
        }
    }

    #[test]
    fn what_ipcomp_does_not_try_or_did_not_shrink_needs_no_thread() {
        let world = world(Ipcomp, |_| {});
        let left = taken(|cpu| {
            world.ipsec_output(cpu, (), true);
            world.gif_input(cpu, ());
        });
        // Kernel round the second pass and round the handoff, and no callback's Softnet.
        assert_eq!((left, world.ret.1.len()), ([0, 2], 0));
        assert_eq!((world.ring.1.len(), world.mem.load(Q::Ip.len())), (1, 1));
    }
}
