//! A testbed: several routers in one process, joined by cables in memory, under one clock.
//!
//! Used by `softnet demo`, by the tests and by everything that must run where there are no privileges. Time is virtual
//! unless asked otherwise: [`Testbed::run_for`] steps every router until none has anything to do, then moves the clock
//! to the next timer or arrival. A cable is named by `device = "..."` of an interface with `driver = "link"`; the first
//! two who ask for it have its ends, and a test may be one of them.

pub mod jobs;
pub mod peer;

use crate::{
    commit::{Commit, Faults, Files},
    conf::{self, DriverConf, Host, InterfaceConf},
    control::{
        setkey::{SaEvent, SetkeyReport, Statements},
        socket::Session,
    },
    host::Sessions,
    iface::{
        driver::Driver,
        link::{LinkConfig, LinkEnd, link},
    },
    report::Books,
    router::{Router, RouterError, Setup},
    sadb::Sadb,
    stats::WorkerStats,
};
use kern::{
    Why,
    counter::CounterSet,
    lock::Root,
    time::{Clock, Duration, Instant},
};
use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
    sync::Arc,
};
use wire::HashSeed;
use zeroize::Zeroizing;

/// The least that time moves: a tick of the timers.
const TICK_NS: u64 = 100_000;

/// A router with what its control thread keeps.
pub struct Node {
    /// The router.
    pub router: Router,
    /// Routes, names and devices.
    pub commit: Commit,
    /// What is configured.
    pub files: Files,
    /// The control thread's part of the databases of IPsec.
    pub sadb: Sadb,
}

/// Somebody who takes turns with the routers: a host on a cable, a router's control thread.
pub trait Party {
    /// Does what there is to do now; says whether there was anything.
    fn turn(&mut self, testbed: &mut Testbed) -> bool;

    /// When it next has something to do by itself.
    fn deadline(&mut self) -> Instant;
}

/// The host stack of a router, which its control thread would run.
pub struct Control {
    /// The router's name.
    pub name: String,
    /// The stack.
    pub sessions: Sessions,
}

impl Control {
    /// The host stack of a router of this testbed.
    pub fn of(testbed: &mut Testbed, name: &str) -> Control {
        Control { name: name.into(), sessions: Sessions::new(&testbed.node(name).router) }
    }

    /// Closes what is open. A router is stopped after its host stack.
    pub fn end(self, testbed: &mut Testbed) {
        let Control { name, sessions } = self;
        testbed.with_root(&name, |node, root| sessions.end(&node.router, root));
    }
}

impl Party for Control {
    fn turn(&mut self, testbed: &mut Testbed) -> bool {
        let now = testbed.clock.now();
        testbed.with_root(&self.name, |node, root| {
            let waits = node.router.shared().host.input_len(&mut root.top()) > 0;
            let is_due = waits || self.sessions.deadline() <= now;
            if is_due {
                self.sessions.turn(&node.router, root);
            }
            is_due
        })
    }

    fn deadline(&mut self) -> Instant {
        self.sessions.deadline()
    }
}

/// Routers, cables and a clock.
pub struct Testbed {
    /// The time.
    pub clock: Clock,
    /// Proof that this thread holds no lock.
    pub root: Root,
    nodes: Vec<(String, Option<Node>)>,
    cables: HashMap<String, Cable>,
    default_link: LinkConfig,
}

struct Cable {
    free: Vec<LinkEnd>,
    watched: [LinkEnd; 2],
}

impl Cable {
    fn new(config: LinkConfig, clock: &Clock) -> Cable {
        let (a, b) = link(config, clock);
        let watched = [a.clone(), b.clone()];
        Cable { free: vec![b, a], watched }
    }
}

fn take_end(
    cables: &mut HashMap<String, Cable>,
    clock: &Clock,
    config: &LinkConfig,
    name: &str,
) -> Option<LinkEnd> {
    cables.entry(name.into()).or_insert_with(|| Cable::new(config.clone(), clock)).free.pop()
}

fn open(
    cables: &mut HashMap<String, Cable>,
    clock: &Clock,
    config: &LinkConfig,
    interface: &InterfaceConf,
) -> Result<Arc<dyn Driver>, String> {
    match &interface.driver {
        DriverConf::Link { device } => match take_end(cables, clock, config, device) {
            Some(end) => Ok(Arc::new(end)),
            None => Err(format!("both ends of cable {device} are taken")),
        },
        _ => Err("a testbed has cables in memory only (driver = \"link\")".into()),
    }
}

/// The texts of one router's configuration.
#[derive(Clone, Copy, Debug, Default)]
pub struct Texts<'a> {
    /// softnet.toml.
    pub conf: &'a str,
    /// pf.conf.
    pub pf: Option<&'a str>,
    /// ipsec.conf.
    pub ipsec: Option<&'a str>,
}

impl Testbed {
    /// An empty one under virtual time. Claims this thread's lock root.
    pub fn new() -> Testbed {
        Testbed::with_clock(Clock::virtual_at_one_second())
    }

    /// An empty one under this clock.
    pub fn with_clock(clock: Clock) -> Testbed {
        Testbed {
            clock,
            root: Root::claim(),
            nodes: Vec::new(),
            cables: HashMap::new(),
            default_link: LinkConfig::default(),
        }
    }

    /// What cables that are not laid by [`cable`](Self::cable) are like.
    pub fn default_link(&mut self, config: LinkConfig) {
        self.default_link = config;
    }

    /// Lays a cable.
    pub fn cable(&mut self, name: &str, config: LinkConfig) {
        self.cables.insert(name.into(), Cable::new(config, &self.clock));
    }

    /// Takes a free end of a cable; lays the cable if it is new.
    pub fn end(&mut self, name: &str) -> Option<LinkEnd> {
        take_end(&mut self.cables, &self.clock, &self.default_link, name)
    }

    /// Both ends of a cable that is laid, to look at.
    pub fn watch(&self, name: &str) -> Option<&[LinkEnd; 2]> {
        self.cables.get(name).map(|cable| &cable.watched)
    }

    /// Adds a router configured by these texts.
    pub fn add(&mut self, texts: Texts<'_>) -> Result<(), Faults> {
        self.add_with(texts, |setup| setup)
    }

    /// Adds a router, with the last word on its set-up.
    pub fn add_with(&mut self, texts: Texts<'_>, adjust: impl FnOnce(Setup) -> Setup) -> Result<(), Faults> {
        let files = read(texts)?;
        let setup =
            adjust(Setup { clock: self.clock.clone(), seed: HashSeed::new(1, 2), ..Setup::of(&files) });
        let name = setup.name.clone();
        let router = Router::new(setup).map_err(|e| Faults(vec![e.to_string()]))?;
        let mut sadb = Sadb::default();
        sadb.subscribe(Session(0));
        let node = Node { router, commit: Commit::new(), files, sadb };
        self.nodes.push((name.clone(), Some(node)));
        self.apply(&name, None)
    }

    /// Gives a router another configuration.
    pub fn reload(&mut self, name: &str, texts: Texts<'_>) -> Result<(), Faults> {
        self.apply(name, Some(read(texts)?))
    }

    /// Carries out statements of setkey(8) on a router.
    pub fn setkey(&mut self, name: &str, text: &str) -> Result<SetkeyReport, String> {
        let text = Zeroizing::new(text.to_owned()).into();
        let said = Statements { file: "stdin".into(), text, check: false };
        self.with_root(name, |node, root| {
            node.sadb.setkey(&mut node.router, root, &mut node.files.ipsec, &said)
        })
    }

    /// The control thread's turn at the databases of IPsec; the events since the last, as one who listens is told them.
    pub fn sa_events(&mut self, name: &str) -> Vec<SaEvent> {
        self.with_root(name, |node, root| {
            node.sadb.turn(&mut node.router, root, &mut node.files.ipsec);
            node.sadb.take()
        })
    }

    /// Gives a router what is in these files, or in those it has.
    fn apply(&mut self, name: &str, files: Option<Files>) -> Result<(), Faults> {
        let place = self.place(name);
        let Some(mut node) = self.nodes[place].1.take() else { return Ok(()) };
        let new = files.as_ref().unwrap_or(&node.files);
        let Testbed { root, cables, clock, default_link, .. } = self;
        let mut open = |i: &InterfaceConf| open(cables, clock, default_link, i);
        let done = node.commit.prepare(&node.router, root, new, &mut open).and_then(|prepared| {
            let late = |e: kern::publish::Late| Faults(vec![e.to_string()]);
            node.commit.publish(&mut node.router, root, prepared).map_err(late)
        });
        if let (Some(files), Ok(())) = (files, &done) {
            node.files = files;
        }
        self.nodes[place].1 = Some(node);
        done
    }

    fn place(&self, name: &str) -> usize {
        self.nodes
            .iter()
            .position(|(n, _)| n == name)
            .unwrap_or_else(|| panic!("no router {name} in the testbed"))
    }

    /// A router.
    pub fn node(&mut self, name: &str) -> &mut Node {
        let place = self.place(name);
        self.nodes[place].1.as_mut().expect("a router is absent only while it is being configured")
    }

    /// A router and the lock root, for calls that need both.
    pub fn with_root<R>(&mut self, name: &str, call: impl FnOnce(&mut Node, &mut Root) -> R) -> R {
        let place = self.place(name);
        let node =
            self.nodes[place].1.as_mut().expect("a router is absent only while it is being configured");
        call(node, &mut self.root)
    }

    /// One turn of every worker of every router; says whether any had something to do.
    pub fn step(&mut self) -> bool {
        let mut busy = false;
        for (_, node) in &mut self.nodes {
            if let Some(node) = node {
                busy |= node.router.step(&mut self.root);
                let followed = node.router.follow_peers(&mut self.root);
                busy |= followed.expect("keys that were set up once are set up again") > 0;
            }
        }
        busy
    }

    /// When something next happens by itself.
    pub fn next_event(&self) -> Instant {
        let routers = self.nodes.iter().flat_map(|(_, n)| n).map(|n| n.router.deadline());
        // What has arrived and was not taken waits for nobody but a test.
        let now = self.clock.now();
        let wires = self.cables.values().flat_map(|c| &c.watched).filter_map(LinkEnd::next_arrival);
        routers.chain(wires.filter(|at| *at > now)).fold(Instant::NEVER, Instant::min)
    }

    /// Lets this much time pass.
    pub fn run_for(&mut self, time: Duration) {
        self.run_with(time, &mut []);
    }

    /// Lets this much time pass for the routers and for others.
    pub fn run_with(&mut self, time: Duration, parties: &mut [&mut dyn Party]) {
        let end = self.clock.now() + time;
        loop {
            while self.step_with(parties) {
                if !self.clock.is_virtual() && self.clock.now() >= end {
                    return;
                }
            }
            let next =
                parties.iter_mut().map(|p| p.deadline()).fold(self.next_event(), Instant::min).min(end);
            if next >= end {
                self.wait_until(end);
                while self.clock.is_virtual() && self.step_with(parties) {}
                return;
            }
            // A timer due now has run; whatever says "now" again gets a tick.
            self.wait_until(next.max(self.clock.now().after(TICK_NS)));
        }
    }

    fn step_with(&mut self, parties: &mut [&mut dyn Party]) -> bool {
        let mut busy = self.step();
        for party in parties {
            busy |= party.turn(self);
        }
        busy
    }

    fn wait_until(&self, at: Instant) {
        if self.clock.is_virtual() {
            self.clock.advance_to(at);
        } else {
            std::thread::sleep(at.since(self.clock.now()));
        }
    }

    /// Every counter of a router, and every reason for which packets ended.
    pub fn counts(&mut self, name: &str) -> BTreeMap<String, u64> {
        counts(self.node(name).router.all_stats())
    }

    /// A router's books.
    pub fn books(&mut self, name: &str) -> Books {
        let stats: Vec<_> = self.node(name).router.all_stats().cloned().collect();
        Books::read(&self.node(name).router.shared().pool, &stats)
    }

    /// Stops all routers; gives the books of each.
    pub fn stop(mut self) -> Result<Vec<(String, Books)>, RouterError> {
        let nodes = std::mem::take(&mut self.nodes).into_iter();
        let stop = |(name, node): (String, Option<Node>)| {
            let Node { router, commit, .. } = node?;
            drop(commit);
            Some(router.stop(&mut self.root).map(|books| (name, books)))
        };
        nodes.filter_map(stop).collect()
    }

    /// Stops all routers, and demands that the books of each balance with nothing held and nothing unexplained.
    pub fn finish(self) {
        for (name, books) in self.stop().expect("a router stepped by hand stops") {
            assert!(books.balanced(), "{name} does not balance: {books:#?}");
            assert_eq!(books.audit.held(), 0, "{name} holds buffers after it stopped: {books:#?}");
        }
    }
}

impl Default for Testbed {
    fn default() -> Self {
        Testbed::new()
    }
}

fn read(texts: Texts<'_>) -> Result<Files, Faults> {
    let conf = conf::from_text(Path::new("softnet.toml"), texts.conf, &Host::this())?;
    Files::from_texts(conf, texts.pf, texts.ipsec)
}

/// Every counter of a set of books, by name.
pub fn counts<'a>(all: impl Iterator<Item = &'a Arc<WorkerStats>>) -> BTreeMap<String, u64> {
    let mut sums = BTreeMap::new();
    for stats in all {
        let balance = stats.ledger.balance();
        let ledger = [
            ("packet.received", balance.received),
            ("packet.created", balance.created),
            ("packet.split", balance.split),
            ("packet.sent", balance.sent),
            ("packet.delivered", balance.delivered),
            ("packet.merged", balance.merged),
        ];
        let ended = Why::ALL.iter().map(|&w| (w.path(), balance.why(w)));
        let own = stats.count.iter().map(|(d, n)| (d.name, n));
        for (name, n) in ledger.into_iter().chain(ended).chain(own) {
            *sums.entry(name.to_owned()).or_insert(0) += n;
        }
    }
    sums
}
