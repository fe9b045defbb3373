//! The router: everything but the process, so that tests can make several in one.
//!
//! Made in two steps. [`Router::new`] maps the buffers and makes the workers' books; [`Router::apply`] publishes a
//! configuration and gives devices' reading ends to workers. Workers are then run by threads ([`Router::start`]), or
//! stepped by hand ([`Router::step`]) under virtual time.

use crate::{
    capture::Copier,
    control::socket::Session,
    entropy::random,
    hooks, host,
    iface::{Kind, driver::Driver},
    neighbour,
    netconfig::NetConfig,
    reass,
    report::Books,
    stats::WorkerStats,
    worker::{
        Port, Shared, Worker,
        thread::{self, Idle, Waker},
    },
};
use ipsec::transform::Engine;
use kern::{
    Pool,
    lock::{BigLocks, Held, Leaf, Locking, Root, levels::Top},
    mbuf::{Audit, PoolConfig, PoolError},
    publish::{Late, Parked, Publisher},
    time::{Clock, Instant},
};
use pf::conf::LIMIT_STATES;
use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};
use wire::HashSeed;

/// How long a change or a quiet moment may take before it is given up.
const PATIENCE: Duration = Duration::from_secs(2);

/// What cannot change while the router runs.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Its name.
    pub name: String,
    /// Workers.
    pub workers: usize,
    /// Cores to pin them to, in turn; empty for not at all.
    pub cpus: Vec<usize>,
    /// How long a worker looks for work before it sleeps.
    pub spin_us: u64,
    /// How coarse locking is.
    pub locking: Locking,
    /// Buffers.
    pub pool: PoolConfig,
    /// The time.
    pub clock: Clock,
    /// Key of hashes.
    pub seed: HashSeed,
    /// Who does the arithmetic of SAs.
    pub engine: Engine,
    /// States that pf's table has rows for: `set limit states` as it is at the start.
    pub states: u32,
}

impl Setup {
    /// As a configuration has it.
    pub fn of(files: &crate::commit::Files) -> Setup {
        let conf = &files.conf;
        Setup {
            states: files.pf.as_ref().map_or(LIMIT_STATES, |pf| pf.options.limit_states),
            workers: conf.workers,
            cpus: conf.cpus.clone(),
            spin_us: conf.spin.as_micros() as u64,
            locking: conf.locking,
            pool: conf.pool,
            ..Setup::named(&conf.name)
        }
    }

    /// One worker, everything else as a configuration without `[router]` has it.
    pub fn named(name: &str) -> Setup {
        Setup {
            name: name.into(),
            workers: 1,
            cpus: Vec::new(),
            spin_us: 30,
            locking: Locking::Fine,
            pool: PoolConfig::default(),
            clock: Clock::Real,
            seed: HashSeed::new(random(), random()),
            engine: Engine::Auto,
            states: LIMIT_STATES,
        }
    }
}

/// Why a router could not be made.
#[derive(Debug, thiserror::Error)]
pub enum RouterError {
    /// Buffers.
    #[error(transparent)]
    Pool(#[from] PoolError),
    /// Descriptors or threads.
    #[error("the system refused a descriptor or a thread: {0}")]
    System(#[from] io::Error),
}

/// Why SAs could not be made to send to where their peers are.
#[derive(Debug, thiserror::Error)]
pub enum FollowError {
    /// Their keys.
    #[error(transparent)]
    Key(#[from] ipsec::transform::KeyError),
    /// A worker.
    #[error(transparent)]
    Late(#[from] Late),
}

/// What the control thread tells one worker between two turns.
enum Message {
    Attach(Port),
    Detach(crate::route::IfIndex),
    Capture(Box<Copier>),
    EndCapture(Session),
}

/// A worker as the control thread sees it.
struct Seat {
    stats: Arc<WorkerStats>,
    waker: Waker,
    inbox: Arc<Inbox>,
    runs: Runs,
}

struct Inbox {
    messages: Leaf<Vec<Message>>,
    full: AtomicBool,
}

impl Default for Inbox {
    fn default() -> Self {
        Inbox { messages: Leaf::new(Vec::new()), full: AtomicBool::new(false) }
    }
}

impl Inbox {
    fn put(&self, message: Message) {
        self.messages.with(|m| m.push(message));
        self.full.store(true, Ordering::Release);
    }
}

enum Runs {
    ByHand(Box<Worker>),
    Thread(JoinHandle<io::Result<Worker>>),
    Stopped,
}

const RUN: u8 = 0;
const DRAIN: u8 = 1;
const STOP: u8 = 2;

/// The router.
pub struct Router {
    setup: Setup,
    publisher: Publisher<NetConfig>,
    shared: Arc<Shared>,
    own: Arc<WorkerStats>,
    seats: Vec<Seat>,
    phase: Arc<AtomicU8>,
    started_at: Instant,
}

impl Router {
    /// A router without interfaces whose workers do not run yet.
    pub fn new(setup: Setup) -> Result<Router, RouterError> {
        let pool = Pool::new(setup.pool)?;
        let shared = Arc::new(Shared {
            locks: BigLocks::new(setup.locking),
            clock: setup.clock.clone(),
            seed: setup.seed,
            neighbours: neighbour::Neighbours::new(neighbour::LIMIT, setup.pool.clusters / 16),
            reass: reass::Reassembly::new(setup.pool.clusters),
            pf_frags: reass::Reassembly::of_pf(setup.pool.clusters),
            pf: pf::Pf::new(setup.workers, setup.states),
            host: host::Port::new()?,
            peers_moved: AtomicBool::new(false),
            acquires: crate::sadb::Acquires::new()?,
            workers: setup.workers,
            pool,
        });
        let publisher = Publisher::new(NetConfig::default());
        let mut router = Router {
            own: Arc::default(),
            seats: Vec::new(),
            phase: Arc::new(AtomicU8::new(RUN)),
            started_at: setup.clock.now(),
            setup,
            publisher,
            shared,
        };
        for me in 0..router.setup.workers {
            router.add_seat(me)?;
        }
        Ok(router)
    }

    fn add_seat(&mut self, me: usize) -> io::Result<()> {
        let stats: Arc<WorkerStats> = Arc::default();
        let reader = self.publisher.local_reader(&format!("worker {me}"));
        let worker = Worker::new(me, self.shared.clone(), stats.clone(), reader, Vec::new());
        self.seats.push(Seat {
            stats,
            waker: Waker::new()?,
            inbox: Arc::default(),
            runs: Runs::ByHand(Box::new(worker)),
        });
        Ok(())
    }

    /// What it was made of.
    pub fn setup(&self) -> &Setup {
        &self.setup
    }

    /// What workers share.
    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// The configuration in force.
    pub fn net(&self) -> &NetConfig {
        self.publisher.current()
    }

    /// The control thread's own books.
    pub fn own_stats(&self) -> &Arc<WorkerStats> {
        &self.own
    }

    /// When it was made.
    pub fn started_at(&self) -> Instant {
        self.started_at
    }

    /// Publishes a configuration and waits until every worker has seen it. Reading ends of new devices go to
    /// workers, queue by queue; those of devices that are gone are taken away first.
    pub fn apply(&mut self, root: &mut Root, net: NetConfig) -> Result<(), Late> {
        let old: Vec<_> = self.net().all().cloned().collect();
        let new: Vec<_> = net.all().cloned().collect();
        let device = |i: &crate::iface::Interface| match &i.kind {
            Kind::Device(driver) => Some(driver.clone()),
            Kind::Vlan { .. } | Kind::Ipsec(_) => None,
        };
        if let Some(rules) = &net.pf {
            self.shared.pf.enforce(&mut root.top().at(), rules);
            let options = &rules.conf().options;
            let frags = options.limits.get(pf::conf::Limit::Frags) as usize;
            let wait = options.timeouts.get(pf::timeout::Timeout::Fragment);
            let ledger = &self.own_stats().ledger;
            self.shared.pf_frags.limit(&mut root.top(), frags, wait, ledger);
        }
        let published = self.publish(root, net);
        self.shared.pf.retire();
        published?;
        for was in &old {
            let stays =
                device(was).is_none_or(|d| new.iter().filter_map(|i| device(i)).any(|n| Arc::ptr_eq(&n, &d)));
            if !stays {
                self.detach(was.index);
            }
        }
        for now in &new {
            let Some(driver) = device(now) else { continue };
            let is_new = !old.iter().filter_map(|i| device(i)).any(|o| Arc::ptr_eq(&o, &driver));
            if is_new {
                self.attach(now.index, &driver);
            }
        }
        self.wake();
        self.deliver();
        Ok(())
    }

    /// Publishes a configuration and waits until every worker has seen it.
    fn publish(&mut self, root: &mut Root, net: NetConfig) -> Result<(), Late> {
        let version = self.publisher.publish(net);
        self.wake();
        self.publisher.wait_all(root, version, PATIENCE)
    }

    /// How SAs are set up.
    pub(crate) fn sa_setup(&self) -> ipsec::sa::Setup {
        let now = self.shared.clock.now();
        let Setup { workers, seed, engine, .. } = self.setup;
        ipsec::sa::Setup { workers, seed, engine, ..ipsec::sa::Setup::new(now) }
    }

    /// Publishes SAs that send to where their peers are now, if a worker has rung because one has moved; says how many. For
    /// the control thread.
    pub fn follow_peers(&mut self, root: &mut Root) -> Result<usize, FollowError> {
        if !self.shared.peers_moved.swap(false, Ordering::AcqRel) {
            return Ok(0);
        }
        let mut net = self.net().clone();
        let moved = hooks::follow_peers(&mut net, &self.sa_setup(), &mut root.top())?;
        if moved > 0 {
            self.publish(root, net)?;
            self.own.count.natt_moved.add(moved as u64);
        }
        Ok(moved)
    }

    /// Gives queue *n* of a device to worker *n* modulo their number.
    fn attach(&mut self, index: crate::route::IfIndex, driver: &Arc<dyn Driver>) {
        for queue in 0..driver.queues() {
            let seat = &self.seats[queue % self.seats.len()];
            if let Some(rx) = driver.rx(queue) {
                seat.inbox.put(Message::Attach(Port { index, driver: driver.clone(), rx, up: true }));
            }
        }
    }

    fn detach(&mut self, index: crate::route::IfIndex) {
        for seat in &self.seats {
            seat.inbox.put(Message::Detach(index));
        }
    }

    /// Has workers copy what passes a tap, one copier each.
    pub(crate) fn begin_capture(&mut self, copiers: Vec<Copier>) {
        for (seat, copier) in self.seats.iter().zip(copiers) {
            seat.inbox.put(Message::Capture(Box::new(copier)));
        }
        self.wake();
        self.deliver();
    }

    /// Has workers copy no more for a client.
    pub(crate) fn end_capture(&mut self, session: Session) {
        for seat in &self.seats {
            seat.inbox.put(Message::EndCapture(session));
        }
        self.wake();
        self.deliver();
    }

    /// Workers stepped by hand take their messages at once.
    fn deliver(&mut self) {
        for seat in &mut self.seats {
            if let Runs::ByHand(worker) = &mut seat.runs {
                take_messages(&seat.inbox, worker);
            }
        }
    }

    fn wake(&self) {
        self.seats.iter().for_each(|s| s.waker.wake());
    }

    /// Wakes all workers: something they sleep on has changed.
    pub fn wake_all(&self) {
        self.wake();
    }

    /// Wakes worker 0, which sends what the host stack has to send.
    pub fn wake_sender(&self) {
        if let Some(seat) = self.seats.first() {
            seat.waker.wake();
        }
    }

    /// One turn of every worker that no thread runs; says whether any had something to do.
    pub fn step(&mut self, root: &mut Root) -> bool {
        let mut busy = false;
        for seat in &mut self.seats {
            if let Runs::ByHand(worker) = &mut seat.runs {
                busy |= worker.turn(root);
            }
        }
        busy
    }

    /// One turn of one worker that no thread runs.
    pub fn step_one(&mut self, root: &mut Root, worker: usize) -> bool {
        match &mut self.seats[worker].runs {
            Runs::ByHand(worker) => worker.turn(root),
            Runs::Thread(_) | Runs::Stopped => false,
        }
    }

    /// When a worker stepped by hand next has something to do by itself.
    pub fn deadline(&self) -> Instant {
        let each = self.seats.iter().map(|s| match &s.runs {
            Runs::ByHand(worker) => worker.deadline(),
            Runs::Thread(_) | Runs::Stopped => Instant::NEVER,
        });
        each.fold(Instant::NEVER, Instant::min)
    }

    /// Gives every worker a thread of its own, pinned to its core.
    pub fn start(&mut self) -> Result<(), RouterError> {
        for me in 0..self.seats.len() {
            let Runs::ByHand(worker) = std::mem::replace(&mut self.seats[me].runs, Runs::Stopped) else {
                continue;
            };
            let reader = self.publisher.reader(&format!("worker {me}"));
            let cpu = self.setup.cpus.get(me % self.setup.cpus.len().max(1)).copied();
            let job = Job {
                worker,
                reader,
                inbox: self.seats[me].inbox.clone(),
                waker: self.seats[me].waker.clone(),
                phase: self.phase.clone(),
                idle: Idle { spin_ns: self.setup.spin_us * 1000 },
                cpu,
            };
            let thread = std::thread::Builder::new().name(format!("worker {me}")).spawn(move || job.run())?;
            self.seats[me].runs = Runs::Thread(thread);
        }
        Ok(())
    }

    /// Takes a worker that no thread runs, to run it on a thread of the caller's; [`put_worker`](Self::put_worker)
    /// follows.
    pub fn take_worker(&mut self, me: usize) -> Option<Seated> {
        match std::mem::replace(&mut self.seats.get_mut(me)?.runs, Runs::Stopped) {
            Runs::ByHand(worker) => {
                Some(Seated { worker, reader: self.publisher.reader(&format!("worker {me}")) })
            }
            other => {
                self.seats[me].runs = other;
                None
            }
        }
    }

    /// Takes back a worker.
    pub fn put_worker(&mut self, me: usize, worker: Worker) {
        self.seats[me].runs = Runs::ByHand(Box::new(worker));
    }

    /// Reads all books at a quiet moment.
    pub fn audit(&mut self, root: &mut Root) -> Result<Books, Late> {
        let wakers: Vec<Waker> = self.seats.iter().map(|s| s.waker.clone()).collect();
        let pool = self.shared.pool.clone();
        let ledgers = self.ledgers();
        let wake = move || wakers.iter().for_each(Waker::wake);
        self.publisher.quiet_moment(root, PATIENCE, wake, |_| Books::read(&pool, &ledgers))
    }

    fn ledgers(&self) -> Vec<Arc<WorkerStats>> {
        self.all_stats().cloned().collect()
    }

    /// The books of the control thread and of every worker.
    pub fn all_stats(&self) -> impl Iterator<Item = &Arc<WorkerStats>> {
        std::iter::once(&self.own).chain(self.seats.iter().map(|s| &s.stats))
    }

    /// The quiet moments made so far.
    pub fn quiet_log(&self) -> kern::quiet::QuietLog {
        self.publisher.quiet_log()
    }

    /// Stops: reads no more, lets queues run empty for a while, ends what is left, and reads the books.
    pub fn stop(mut self, root: &mut Root) -> Result<Books, RouterError> {
        self.phase.store(DRAIN, Ordering::Release);
        self.wake();
        let patience = std::time::Instant::now() + Duration::from_millis(500);
        while self.queued(root) > 0 && std::time::Instant::now() < patience && self.runs_threads() {
            std::thread::sleep(Duration::from_millis(5));
        }
        self.phase.store(STOP, Ordering::Release);
        self.wake();
        let mut ports = Vec::new();
        for seat in &mut self.seats {
            match std::mem::replace(&mut seat.runs, Runs::Stopped) {
                Runs::ByHand(worker) => ports.extend(worker.drain()),
                Runs::Thread(thread) => match thread.join() {
                    Ok(worker) => ports.extend(worker?.drain()),
                    Err(panic) => std::panic::resume_unwind(panic),
                },
                Runs::Stopped => {}
            }
        }
        drop(ports);
        self.purge(&mut root.top());
        Ok(Books::read(&self.shared.pool, &self.ledgers()))
    }

    fn runs_threads(&self) -> bool {
        self.seats.iter().any(|s| matches!(s.runs, Runs::Thread(_)))
    }

    /// Packets in interface queues.
    fn queued(&self, root: &mut Root) -> u64 {
        let mut top = root.top();
        self.net().all().filter_map(|i| i.ifq.as_ref()).map(|q| q.queued(&mut top).packets).sum()
    }

    /// Ends every packet that waits somewhere.
    fn purge(&mut self, held: &mut Held<'_, Top>) {
        let ledger = &self.own.ledger;
        let mut victims = altq::Victims::new();
        for ifq in self.net().all().filter_map(|i| i.ifq.as_ref()) {
            ifq.purge(held, &mut victims);
            victims.drain().for_each(|(m, why)| m.end(why, ledger));
        }
        self.shared.neighbours.purge(held, ledger);
        self.shared.reass.purge(held, ledger);
        self.shared.pf_frags.purge(held, ledger);
        self.shared.host.purge(held, ledger);
    }

    /// The pool's own audit, without a quiet moment: for tests that step by hand.
    pub fn pool_audit(&self) -> Audit {
        self.shared.pool.audit()
    }
}

fn take_messages(inbox: &Inbox, worker: &mut Worker) {
    if !inbox.full.swap(false, Ordering::AcqRel) {
        return;
    }
    for message in inbox.messages.with(std::mem::take) {
        match message {
            Message::Attach(port) => worker.ports().push(port),
            Message::Detach(index) => worker.ports().retain(|p| p.index != index),
            Message::Capture(copier) => worker.captures().add(*copier),
            Message::EndCapture(session) => worker.captures().remove(session),
        }
    }
}

/// A worker on its way to a thread of somebody's own.
pub struct Seated {
    worker: Box<Worker>,
    reader: Parked<NetConfig>,
}

impl Seated {
    /// The worker, now of the calling thread.
    pub fn unpark(self, root: &mut Root) -> Worker {
        let mut worker = *self.worker;
        worker.read_config_from(self.reader.unpark(root));
        worker
    }
}

/// A worker on its way to its thread.
struct Job {
    worker: Box<Worker>,
    reader: Parked<NetConfig>,
    inbox: Arc<Inbox>,
    waker: Waker,
    phase: Arc<AtomicU8>,
    idle: Idle,
    cpu: Option<usize>,
}

impl Job {
    fn run(self) -> io::Result<Worker> {
        if let Some(id) = self.cpu {
            // Not pinned is slower, not wrong: containers may forbid it.
            core_affinity::set_for_current(core_affinity::CoreId { id });
        }
        let mut root = Root::claim();
        let mut worker = *self.worker;
        worker.read_config_from(self.reader.unpark(&mut root));
        let between = |worker: &mut Worker| {
            take_messages(&self.inbox, worker);
            match self.phase.load(Ordering::Acquire) {
                RUN => true,
                DRAIN => {
                    worker.stop_reading();
                    true
                }
                _ => false,
            }
        };
        thread::run(worker, &mut root, &self.waker, self.idle, between)
    }
}
