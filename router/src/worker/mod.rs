//! A worker: one thread, one loop, one batch of packets at a time.
//!
//! ```text
//!   refresh the snapshot ─► due queues, due timers ─► read a burst ─► run stages, nearest to the wire first ─┐
//!        ▲                                                                                                  │
//!        └──────────────────────── nothing pending ◄────────────────────────────────────────────────────────┘
//! ```
//!
//! Everything a worker needs is its own or in the snapshot; what flows share is locked per object. At the top of the
//! loop nothing is pending, so that is where snapshots change and quiet moments are made. Tests step a worker by
//! hand ([`Worker::turn`]); a thread runs it for ever ([`thread`]).

mod stage;
pub mod thread;

pub use stage::{Pending, Stage};

use crate::{
    capture::Copiers,
    ether, host, icmp,
    iface::{
        driver::{Driver, Read, RxCx, RxQueue},
        output, vnet,
    },
    ip, neighbour,
    netconfig::NetConfig,
    reass,
    route::IfIndex,
    stats::WorkerStats,
};
use altq::{Turn, Victims};
use kern::{
    Batch, Magazines, Mbuf, Pool, Why,
    callout::Callouts,
    lock::{
        BigLocks, Held, Root,
        levels::{Softnet, Top},
    },
    publish::Reader,
    time::{Clock, Duration, Instant},
};
use std::sync::{Arc, atomic::AtomicBool};
use wire::HashSeed;

/// Frames read from one queue before the stages run.
const BURST: usize = 64;

/// Packets that one stage may make where no batch is at hand.
pub(crate) const LATE: usize = kern::mbuf::BATCH;

/// What all workers of a router share.
pub struct Shared {
    /// All packet buffers.
    pub pool: Pool,
    /// Softnet and Kernel.
    pub locks: BigLocks,
    /// The time.
    pub clock: Clock,
    /// Key of the flow hash, new each boot.
    pub seed: HashSeed,
    /// Link-layer addresses of neighbours.
    pub neighbours: neighbour::Neighbours,
    /// Fragments waiting for the rest.
    pub reass: reass::Reassembly,
    /// Fragments that pf is to see whole.
    pub pf_frags: reass::Reassembly<kern::lock::levels::PfFrags>,
    /// pf's states and counters.
    pub pf: pf::Pf,
    /// The router's own TCP and UDP.
    pub host: host::Port,
    /// Whether a peer behind a translator has moved and the control thread does not know.
    pub peers_moved: AtomicBool,
    /// SAs that packets wanted.
    pub acquires: crate::sadb::Acquires,
    /// Number of workers.
    pub workers: usize,
}

/// What a timer of a worker is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timer {
    /// Neighbours being resolved or probed.
    Neighbours,
    /// Fragments that waited too long.
    Reass,
    /// pf states that ran out.
    States,
    /// Router advertisements and address checks.
    Advertise,
    /// Translators that must not forget us.
    Keepalive,
}

/// Packets that `esp_output` has left in front of itself in this turn: they stand by SA, and pf has seen them.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Gathered {
    /// How many; 0 if there are none, or they have to be gathered again.
    pub(crate) packets: usize,
    /// All are of one SA.
    pub(crate) alone: bool,
    /// Some have been through an SA already, whose exit must not move before they are written.
    pub(crate) sealed: bool,
}

/// A worker's own moving parts.
pub struct Local {
    /// Timers.
    pub callouts: Callouts<Timer>,
    /// Recently used neighbours.
    pub neighbours: neighbour::Cache,
    /// ICMP errors it may still send.
    pub icmp: icmp::Limiter,
    /// pf's part.
    pub pf: pf::Worker,
    /// What this worker owes to the order of SAs, and packets of theirs that wait for other workers.
    pub releasing: ipsec::esp::Releasing,
    /// Policies that flows got.
    pub flows: ipsec::spd::FlowCache,
    /// What clients want to see of what passes.
    pub(crate) captures: Copiers,
    /// SAs that packets wanted lately.
    pub asked: crate::sadb::acquire::Asked,
    /// The IPv4 identification of the next packet the router makes.
    pub ident: u16,
    pub(crate) tx: Option<Box<Batch>>,
    pub(crate) burst: Option<Box<Batch>>,
    pub(crate) run: Option<Box<Batch>>,
    /// What `esp_output` left in front of itself.
    pub(crate) gathered: Gathered,
    pub(crate) exceptions: Option<Vec<(Mbuf, pf::Exception)>>,
    pub(crate) victims: Option<Victims>,
    /// Packets made where no batch was at hand; the loop sends them on after the stage.
    pub(crate) late: Vec<(Stage, Mbuf)>,
    /// Interface queues this worker serves next, and when.
    pub(crate) turns: Vec<(IfIndex, Instant, Turn)>,
}

impl Local {
    fn new(me: usize, shared: &Shared) -> Local {
        let now = shared.clock.now();
        Local {
            callouts: Callouts::new(now, Duration::from_millis(1), 64),
            neighbours: neighbour::Cache::default(),
            icmp: icmp::Limiter::new(now),
            pf: shared.pf.worker(me),
            releasing: ipsec::esp::Releasing::with_capacity(1024),
            flows: ipsec::spd::FlowCache::of(me as u16),
            captures: Copiers::default(),
            asked: crate::sadb::acquire::Asked::default(),
            ident: now.nanos() as u16,
            tx: None,
            burst: None,
            run: None,
            gathered: Gathered::default(),
            exceptions: Some(Vec::with_capacity(kern::mbuf::BATCH)),
            victims: Some(Victims::new()),
            late: Vec::with_capacity(LATE),
            turns: Vec::with_capacity(crate::stats::INTERFACES),
        }
    }
}

/// What a stage works with.
pub struct Cx<'a> {
    /// The configuration.
    pub net: &'a NetConfig,
    /// What workers share.
    pub shared: &'a Shared,
    /// This worker's books.
    pub stats: &'a WorkerStats,
    /// This worker's moving parts.
    pub local: &'a mut Local,
    /// When this turn began.
    pub now: Instant,
    /// Which worker this is.
    pub me: usize,
}

impl Cx<'_> {
    /// A packet ends.
    #[inline(always)]
    pub fn end(&self, m: Mbuf, why: Why) {
        m.end(why, &self.stats.ledger);
    }

    /// A blank buffer for a packet the router makes, or `None` (counted by the pool).
    pub fn new_packet(&self) -> Option<Mbuf> {
        let mut m = self.shared.pool.alloc(kern::Class::Cluster, kern::Owner::Worker)?;
        self.stats.ledger.create(&mut m);
        Some(m)
    }
}

/// A reading end this worker has.
pub struct Port {
    /// The interface.
    pub index: IfIndex,
    /// Its device.
    pub driver: Arc<dyn Driver>,
    /// The reading end.
    pub rx: Box<dyn RxQueue>,
    /// Whether the device was there at the last read.
    pub up: bool,
}

/// One worker.
pub struct Worker {
    /// Its number.
    pub me: usize,
    shared: Arc<Shared>,
    stats: Arc<WorkerStats>,
    reader: Reader<NetConfig>,
    magazines: Magazines,
    pending: Pending,
    local: Local,
    ports: Vec<Port>,
    next_port: usize,
    reads: bool,
}

impl Worker {
    /// A worker that reads from these ports.
    pub fn new(
        me: usize,
        shared: Arc<Shared>,
        stats: Arc<WorkerStats>,
        reader: Reader<NetConfig>,
        ports: Vec<Port>,
    ) -> Worker {
        let magazines = Magazines::new(&shared.pool);
        let mut local = Local::new(me, &shared);
        if me == 0 {
            start_timers(&mut local, shared.clock.now());
        }
        Worker {
            me,
            magazines,
            pending: Pending::default(),
            local,
            shared,
            stats,
            reader,
            ports,
            next_port: 0,
            reads: true,
        }
    }

    /// Its reading ends, to add one or take one away between turns.
    pub fn ports(&mut self) -> &mut Vec<Port> {
        &mut self.ports
    }

    /// Its ends of captures.
    pub(crate) fn captures(&mut self) -> &mut Copiers {
        &mut self.local.captures
    }

    /// Takes the configuration from another reader: when a worker moves to its thread.
    pub fn read_config_from(&mut self, reader: Reader<NetConfig>) {
        self.reader = reader;
    }

    /// Reads no more frames: the router is about to stop.
    pub fn stop_reading(&mut self) {
        self.reads = false;
    }

    /// Its books.
    pub fn stats(&self) -> &WorkerStats {
        &self.stats
    }

    /// When it next has something to do by itself.
    pub fn deadline(&self) -> Instant {
        let timer = self.local.callouts.next_deadline().unwrap_or(Instant::NEVER);
        self.local.turns.iter().map(|(_, at, _)| *at).fold(timer, Instant::min)
    }

    /// One turn of the loop; says whether there was anything to do.
    pub fn turn(&mut self, root: &mut Root) -> bool {
        self.reader.refresh(root);
        let _entered = self.magazines.enter();
        let mut cx = Cx {
            net: self.reader.get(),
            shared: &self.shared,
            stats: &self.stats,
            local: &mut self.local,
            now: self.shared.clock.now(),
            me: self.me,
        };
        // Another configuration may have been taken up.
        cx.local.gathered = Gathered::default();
        let mut top = root.top();
        let mut busy = false;
        if cx.deadline() <= cx.now {
            let (_softnet, mut held) = cx.shared.locks.enter_softnet(&mut top);
            busy |= output::serve_due(&mut cx, &mut held);
            busy |= run_timers(&mut cx, &mut held, &mut self.pending);
        }
        if cx.shared.host.has_output(cx.me) {
            let (_softnet, mut held) = cx.shared.locks.enter_softnet(&mut top);
            host::host_output(&mut cx, &mut held, &mut self.pending);
        }
        if self.pending.is_empty() {
            busy |= read_burst(
                &mut cx,
                &mut top,
                &mut self.ports,
                &mut self.next_port,
                self.reads,
                &mut self.pending,
            );
        }
        busy |= !self.pending.is_empty() || !cx.local.releasing.is_empty();
        if busy {
            run_stages(&mut cx, &mut top, &mut self.pending);
            cx.stats.count.loops.inc();
        }
        busy
    }

    /// Waits with `sleep` until something may be there to do. The snapshot is given up meanwhile, so a change need
    /// not wait for a sleeper.
    pub fn park<R>(&mut self, root: &mut Root, sleep: impl FnOnce(&[Port], Instant) -> R) -> R {
        self.stats.count.sleeps.inc();
        let deadline = self.deadline();
        let ports = &self.ports;
        let (result, _changed) = self.reader.park_while(root, |_| sleep(ports, deadline));
        result
    }

    /// Gives up everything it holds: the router stops.
    pub fn drain(mut self) -> Vec<Port> {
        let _entered = self.magazines.enter();
        while let Some(stage) = self.pending.nearest() {
            self.stats.ledger.end_all(self.pending.at(stage), Why::Shutdown);
        }
        self.local.releasing.give_up().for_each(|m| m.end(Why::Shutdown, &self.stats.ledger));
        self.ports
    }
}

impl Cx<'_> {
    fn deadline(&self) -> Instant {
        let timer = self.local.callouts.next_deadline().unwrap_or(Instant::NEVER);
        self.local.turns.iter().map(|(_, at, _)| *at).fold(timer, Instant::min)
    }
}

/// Reads a burst from the next port that has frames.
fn read_burst(
    cx: &mut Cx<'_>,
    top: &mut Held<'_, Top>,
    ports: &mut [Port],
    next_port: &mut usize,
    reads: bool,
    pending: &mut Pending,
) -> bool {
    if !reads {
        return false;
    }
    for i in 0..ports.len() {
        let at = (*next_port + i) % ports.len();
        if read(cx, top, &mut ports[at], pending.at(Stage::EtherInput)) {
            *next_port = (at + 1) % ports.len();
            return true;
        }
    }
    false
}

/// Runs stages until nothing is pending, or what is left waits for another worker.
fn run_stages(cx: &mut Cx<'_>, top: &mut Held<'_, Top>, pending: &mut Pending) {
    loop {
        let mut stalled = false;
        while let Some(stage) = pending.nearest() {
            let (_softnet, mut held) = cx.shared.locks.enter_softnet(top);
            let mut batch = pending.take(stage);
            let before = batch.len();
            run(stage, cx, &mut held, &mut batch, pending);
            let as_long = batch.len() == before;
            pending.put_back(stage, batch, &cx.stats.ledger);
            for (stage, m) in cx.local.late.drain(..) {
                pending.push(stage, m, &cx.stats.ledger);
            }
            // A stage that sent something on has not stalled, though its batch be as long: of a super-frame the rest stays.
            stalled = as_long && pending.nearest() == Some(stage);
            // A burst of super-frames takes longer than a bucket lasts.
            if !cx.local.turns.is_empty() {
                cx.now = cx.shared.clock.now();
                output::serve_due(cx, &mut held);
            }
            if stalled {
                break;
            }
        }
        // All that could be written has been written: what waited behind it may follow.
        crate::hooks::esp_written(cx, top, pending);
        if stalled || pending.is_empty() {
            return;
        }
    }
}

/// Reads a burst under Kernel alone, as an interrupt handler would.
fn read(cx: &mut Cx<'_>, top: &mut Held<'_, Top>, port: &mut Port, batch: &mut Batch) -> bool {
    let before = batch.len();
    let rx = RxCx { pool: &cx.shared.pool, ledger: &cx.stats.ledger };
    let outcome = if port.driver.mp_safe() {
        let (_kernel, _held) = cx.shared.locks.enter_kernel(top);
        port.rx.read(&rx, BURST, batch)
    } else {
        let (_kernel, _held) = cx.shared.locks.enter_kernel_always(top);
        port.rx.read(&rx, BURST, batch)
    };
    port.up = outcome != Read::Gone;
    let new = &mut batch.as_mut_slice()[before..];
    if new.is_empty() {
        return false;
    }
    let (mut frames, mut bytes) = (0, 0);
    for m in new {
        m.hdr_mut().rcvif = port.index.0;
        let wire = vnet::on_the_wire(m);
        frames += wire.0;
        bytes += wire.1;
    }
    cx.stats.interface(port.index.0).received(frames, bytes);
    cx.stats.count.bursts.inc();
    true
}

/// Runs one stage on its batch.
fn run(
    stage: Stage,
    cx: &mut Cx<'_>,
    held: &mut Held<'_, Softnet>,
    batch: &mut Box<Batch>,
    out: &mut Pending,
) {
    match stage {
        Stage::EtherInput => ether::ether_input(cx, held, batch, out),
        Stage::IpInput => ip::input::ip_input(cx, held, batch, out),
        Stage::Forward => ip::forward::ip_forward(cx, held, batch, out),
        Stage::EspInput => crate::hooks::esp_input(cx, held, batch, out),
        Stage::Reass => reass::reass_input(cx, held, batch, out),
        Stage::HostInput => host::host_input(cx, held, batch, out),
        Stage::EspOutput => crate::hooks::esp_output(cx, held, batch, out),
        Stage::IpOutput => ip::output::ip_output(cx, held, batch, out),
        Stage::EtherOutput => ether::ether_output(cx, held, batch, out),
    }
}

/// The least time between two turns of one timer.
const LEAST_NS: u64 = 2_000_000;

const SECOND: u64 = 1_000_000_000;

/// Worker 0 has the timers of what is shared.
fn start_timers(local: &mut Local, now: Instant) {
    for timer in [Timer::Neighbours, Timer::Reass, Timer::States, Timer::Advertise, Timer::Keepalive] {
        local.callouts.arm(now.after(SECOND / 100), timer);
    }
}

/// Runs the timers that are due; says whether any was.
fn run_timers(cx: &mut Cx<'_>, held: &mut Held<'_, Softnet>, out: &mut Pending) -> bool {
    let mut any = false;
    while let Some(timer) = cx.local.callouts.pop(cx.now) {
        let next = match timer {
            Timer::Neighbours => neighbour::expire(cx, held, out),
            Timer::Reass => reass::expire(cx, held, out),
            Timer::States => crate::hooks::expire_states(cx, held),
            Timer::Advertise => crate::nd::advertise(cx, held, out),
            Timer::Keepalive => crate::hooks::keep_alive(cx, held, out),
        };
        // Never twice in one turn: a timer is to come again, not to stay.
        cx.local.callouts.arm(next.max(cx.now.after(LEAST_NS)), timer);
        any = true;
    }
    any
}
