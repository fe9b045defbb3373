//! The world: memory, slots, channels, and the ways to take locks, slots and interrupts.

use super::{
    cpu::Cpu,
    freight::{End, Freight},
    layout::{self, KERNEL, NIL, Q, RAISED, SERVED, SOFTNET, State},
    locks::{self, Lock, Path},
    memory::{At, Memory},
    profile::{Extra, Rules, Snd},
};
use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use ipsec::sa::Protocol;
use kern::{
    lock::Leaf,
    mbuf::depot::Depot,
    time::{Clock, Duration, Instant},
};

/// What a packet is on its way to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// In clear, forwarded in clear.
    Clear,
    /// In clear, to be protected.
    Policy,
    /// The same, and too short for IPComp to try.
    Short,
    /// ESP, AH or IPComp for us.
    Protected,
    /// IP in IP for us: what the peer's IPComp left as it was.
    Plain,
    /// Out of the tunnel.
    Inner,
    /// Protected by us, or the host's own.
    Output,
    /// A fragment.
    Fragment,
    /// Routed by pf.
    Routed,
}

/// Traffic of a cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Traffic {
    /// No SA.
    None,
    /// Tunnel mode, both ways.
    Tunnel,
    /// Transport mode, both ways.
    Transport,
}

/// How the transforms are run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Crypto {
    /// FAST_IPSEC: callbacks on a thread.
    Fast,
    /// KAME under a softint that keeps both locks.
    KameSk,
    /// KAME under a softint that has let Kernel go.
    KameS,
}

/// Which virtual CPU does what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Placement {
    /// The NIC's interrupts.
    pub nic: u32,
    /// The softints: where they were raised, or one CPU.
    pub soft: Option<u32>,
    /// The completion thread.
    pub cryptoret: u32,
}

/// How one cell is run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Virtual CPUs.
    pub vcpus: u32,
    /// Traffic.
    pub traffic: Traffic,
    /// What its SAs speak.
    pub transform: Protocol,
    /// Crypto style.
    pub crypto: Crypto,
    /// inet6.
    pub v6: bool,
    /// Placement.
    pub placement: Placement,
    /// Locks and faults.
    pub rules: Rules,
    /// Slots, at least as many as there are clusters.
    pub slots: u32,
    /// Packets a NIC interrupt brings.
    pub burst: u32,
    /// Packets that may wait at the input.
    pub window: u32,
    /// `ifq_maxlen`.
    pub maxlen: u32,
    /// Seed of nested interrupts and of what packets are.
    pub seed: u64,
    /// Packets between two sweeps.
    pub epoch: u32,
    /// Descriptors of the transmit ring.
    pub ring: usize,
    /// One in so many preemption points finds its CPU slow; 0: none.
    pub stall: u64,
    /// Without progress for this long a cell is stuck.
    pub patience: Duration,
}

/// A packet in a slot.
pub type Parcel<F> = (Kind, <F as Freight>::Packet);

/// A packet between the halves of its transform.
pub struct Request<F: Freight> {
    /// The freight's own.
    pub job: F::Job,
    /// Outbound.
    pub out: bool,
}

/// The most descriptors of the transmit ring.
pub const TX_RING: usize = 64;

/// All that the virtual CPUs share.
pub struct World<M, F: Freight> {
    /// Words.
    pub mem: M,
    /// What packets carry.
    pub freight: F,
    /// How this cell is run.
    pub plan: Plan,
    slots: Box<[Leaf<Option<Parcel<F>>>]>,
    depot: Depot<u32>,
    /// `crp_ret_q`.
    pub ret: (Sender<Request<F>>, Receiver<Request<F>>),
    /// Requests in a crypto driver (G).
    pub hardware: (Sender<Request<F>>, Receiver<Request<F>>),
    /// The transmit ring.
    pub ring: (Sender<F::Packet>, Receiver<F::Packet>),
    /// Packets shown to a capture (X1).
    pub capture: (Sender<u32>, Receiver<u32>),
}

/// The watchdog of one wait: in the end the cell is stuck, and everyone goes on without what he waits for, to its end.
struct Patience {
    limit: Duration,
    until: Option<Instant>,
    turns: u32,
}

impl Patience {
    fn new(limit: Duration) -> Patience {
        Patience { limit, until: None, turns: 0 }
    }

    fn over<M: Memory>(&mut self, mem: &M) -> bool {
        self.turns = self.turns.wrapping_add(1);
        if !M::TIMED || !self.turns.is_multiple_of(1024) {
            return false;
        }
        let now = Clock::Real.now();
        if now > *self.until.get_or_insert(now + self.limit) {
            mem.store(layout::STUCK, 1);
        }
        mem.load(layout::STUCK) != 0
    }
}

/// Locks that [`World::under`] took and has to give back.
#[derive(Default)]
struct Taken {
    big: [bool; 2],
    own: bool,
}

impl<M: Memory, F: Freight> World<M, F> {
    /// A quiet world.
    pub fn new(mem: M, freight: F, plan: Plan) -> Self {
        let depot = Depot::new(plan.slots as usize);
        depot.give((1..=plan.slots).rev());
        World {
            mem,
            freight,
            slots: (0..plan.slots).map(|_| Leaf::new(None)).collect(),
            depot,
            ret: unbounded(),
            hardware: unbounded(),
            ring: bounded(plan.ring),
            capture: unbounded(),
            plan,
        }
    }

    /// The input queue of this cell's family.
    pub fn inq(&self) -> Q {
        if self.plan.v6 { Q::Ip6 } else { Q::Ip }
    }

    /// The interface queue.
    pub fn sndq(&self) -> Q {
        if self.plan.rules.snd == Snd::Fifo { Q::IfSnd } else { Q::Class }
    }

    /// Whether every queue has a lock of its own.
    pub fn fine(&self) -> bool {
        locks::takes(&self.plan.rules.table, Path::DriverRx) == [Lock::Own]
    }

    /// Whether the interface queue is the router's own.
    pub fn discipline(&self) -> bool {
        F::DISCIPLINE && self.plan.rules.snd == Snd::Discipline
    }

    /// Whether this extra path runs.
    pub fn has(&self, extra: Extra) -> bool {
        self.plan.rules.extra == extra
    }

    fn takes(&self, path: Path) -> &'static [Lock] {
        let takes = locks::takes(&self.plan.rules.table, path);
        match path {
            // ipintr as NetBSD 5.2 had it: both locks over ip_input.
            Path::IpInput if self.plan.crypto == Crypto::KameSk && takes == [Lock::S] => &[Lock::S, Lock::K],
            _ => takes,
        }
    }

    /// Runs `body` under what `path` takes by this profile's table; `q` is the queue it touches.
    pub fn under<R>(
        &self,
        cpu: &mut Cpu<'_, F>,
        path: Path,
        q: Q,
        body: impl FnOnce(&mut Cpu<'_, F>) -> R,
    ) -> R {
        let mut taken = Taken::default();
        for lock in self.takes(path) {
            match lock {
                Lock::S => taken.big[0] = self.enter(cpu, 0),
                Lock::K => taken.big[1] = self.enter(cpu, 1),
                // The router's own interface queue brings its lock along.
                Lock::Own if q == Q::Class && self.discipline() => {}
                Lock::Own => {
                    self.lock_queue(cpu, q);
                    taken.own = true;
                }
            }
        }
        let result = body(cpu);
        if taken.own {
            self.unlock_queue(cpu, q);
        }
        for which in [1, 0] {
            if taken.big[which] {
                self.leave(cpu, which);
            }
        }
        result
    }

    /// Takes a queue's own lock, at splnet.
    pub fn lock_queue(&self, cpu: &mut Cpu<'_, F>, q: Q) {
        cpu.spl += 1;
        let mut patience = Patience::new(self.plan.patience);
        while !self.mem.swap_if(q.lock(), 0, cpu.id + 1) && !patience.over(&self.mem) {
            self.mem.pause();
        }
    }

    /// Gives it back.
    pub fn unlock_queue(&self, cpu: &mut Cpu<'_, F>, q: Q) {
        self.mem.store(q.lock(), 0);
        cpu.spl -= 1;
    }

    /// Takes Softnet (0) or Kernel (1), both recursive on a virtual CPU. Always true: the caller gives it back.
    fn enter(&self, cpu: &mut Cpu<'_, F>, which: usize) -> bool {
        cpu.depth[which] += 1;
        if cpu.depth[which] > 1 {
            return true;
        }
        let at = [SOFTNET, KERNEL][which];
        cpu.counts.taken[which] += 1;
        if !self.mem.swap_if(at, 0, cpu.id + 1) {
            self.wait(cpu, which, at);
        }
        if M::TIMED && cpu.counts.taken[which].is_multiple_of(64) {
            cpu.since[which] = Some(Clock::Real.now());
        }
        if M::TOLD {
            self.mem.tell(|| format!("takes {}", ["softnet_lock", "KERNEL_LOCK"][which]));
        }
        true
    }

    #[cold]
    fn wait(&self, cpu: &mut Cpu<'_, F>, which: usize, at: At) {
        cpu.counts.waited[which] += 1;
        if M::TOLD {
            self.mem.tell(|| format!("waits for {}", ["softnet_lock", "KERNEL_LOCK"][which]));
        }
        let since = M::TIMED.then(|| Clock::Real.now());
        // Not ours yet: an interrupt that comes meanwhile may take it.
        cpu.depth[which] = 0;
        let mut patience = Patience::new(self.plan.patience);
        let mut turns = 0;
        while !self.mem.swap_if(at, 0, cpu.id + 1) && !patience.over(&self.mem) {
            turns += 1;
            // Who waits for Softnet is interrupted as soon as there is something.
            let interrupted = which == 0 && self.interrupt(cpu);
            if interrupted || M::TIMED && turns % 64 != 0 {
                std::hint::spin_loop();
                continue;
            }
            self.mem.pause();
        }
        cpu.depth[which] = 1;
        if let Some(since) = since {
            cpu.counts.wait_ns[which] += Clock::Real.now().nanos_since(since);
        }
    }

    fn leave(&self, cpu: &mut Cpu<'_, F>, which: usize) {
        cpu.depth[which] -= 1;
        if cpu.depth[which] > 0 {
            return;
        }
        if let Some(since) = cpu.since[which].take() {
            cpu.counts.timed[which] += 1;
            cpu.counts.hold_ns[which] += Clock::Real.now().nanos_since(since);
        }
        if M::TOLD {
            self.mem.tell(|| format!("releases {}", ["softnet_lock", "KERNEL_LOCK"][which]));
        }
        self.mem.store([SOFTNET, KERNEL][which], 0);
    }

    /// Puts a packet into a slot, on the way into a queue by this path.
    pub fn hold(&self, cpu: &mut Cpu<'_, F>, parcel: Parcel<F>, by: Path) -> Result<u32, Parcel<F>> {
        if cpu.free.is_empty() {
            let free = &mut cpu.free;
            let some = (self.plan.slots as usize / 8).clamp(1, 64);
            self.depot.take(some, |link| free.push(link));
        }
        let Some(link) = cpu.free.pop() else { return Err(parcel) };
        self.slot(link).with(|slot| *slot = Some(parcel));
        self.mem.store(layout::seen(link), by as u32);
        self.mem.store(layout::state(link), State::Owned.word());
        Ok(link)
    }

    /// Takes the packet out of a slot that the caller owns.
    pub fn unhold(&self, cpu: &mut Cpu<'_, F>, link: u32) -> Option<Parcel<F>> {
        let parcel = self.slot(link).with(Option::take);
        self.mem.store(layout::next(link), NIL);
        self.mem.store(layout::state(link), State::Free.word());
        cpu.free.push(link);
        if cpu.free.len() > 256 {
            self.depot.give(cpu.free.drain(..128));
        }
        parcel
    }

    fn slot(&self, link: u32) -> &Leaf<Option<Parcel<F>>> {
        &self.slots[link as usize - 1]
    }

    /// Whoever sees the slot in this state owns it now.
    pub fn claim(&self, link: u32, from: State) -> bool {
        self.mem.swap_if(layout::state(link), from.word(), State::Owned.word())
    }

    /// Ends a packet that was refused by a full queue.
    pub fn refuse(&self, cpu: &mut Cpu<'_, F>, packet: F::Packet) {
        cpu.counts.qfull += 1;
        self.freight.end(cpu.hand, packet, End::Full);
    }

    /// The softint's CPU has looked at all that the NIC raised.
    pub fn publish_served(&self) {
        self.mem.store(SERVED, self.mem.load(RAISED));
    }
}
