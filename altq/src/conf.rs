//! From pf.conf's `altq on` and `queue` lines to a tree that can run.
//!
//! The router fills a [`TreeSpec`] from the parsed lines, names resolved and the queue ids given (the same name on
//! two interfaces is the same id); [`TreeSpec::build`] checks it and allocates everything. What can be wrong is a
//! [`TreeError`]. Grammar and defaults: pf.conf(5), QUEUEING. The checks are in `check.rs` and `admission.rs`. Not here:
//! the text itself and its positions (pf).

use crate::{
    cbq::{Cbq, CbqClass},
    charge::Framing,
    discipline::{ClassId, Engine},
    error::TreeError,
    fairq::{Fairq, FairqClass},
    fifo::Fifo,
    hfsc::{Curves, Hfsc, HfscClass},
    priq::Priq,
    queue::{ClassQueue, DropperConf, QueueConf},
    tbr::Regulator,
};
use std::sync::Arc;

/// Packets a queue holds when the configuration does not say.
pub(crate) const DEFAULT_QLIMIT: u32 = 50;
/// The priority of a queue when the configuration does not say.
pub(crate) const DEFAULT_PRIORITY: u8 = 1;
/// No class has this queue id on this interface.
const NO_CLASS: u16 = u16::MAX;

/// Which discipline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SchedulerKind {
    /// First in, first out.
    Fifo,
    /// Strict priorities.
    Priq,
    /// Class-based queueing.
    Cbq,
    /// Hierarchical fair service curve.
    Hfsc,
    /// Fair queueing.
    Fairq,
    /// CoDel over the whole interface.
    Codel,
}

impl SchedulerKind {
    /// The word in pf.conf.
    pub const fn name(self) -> &'static str {
        match self {
            SchedulerKind::Fifo => "fifo",
            SchedulerKind::Priq => "priq",
            SchedulerKind::Cbq => "cbq",
            SchedulerKind::Hfsc => "hfsc",
            SchedulerKind::Fairq => "fairq",
            SchedulerKind::Codel => "codel",
        }
    }

    /// Whether its queues are a tree below one root.
    pub(crate) const fn has_root(self) -> bool {
        matches!(self, SchedulerKind::Cbq | SchedulerKind::Hfsc)
    }

    /// Queues there may be.
    pub(crate) const fn max_queues(self) -> usize {
        match self {
            SchedulerKind::Fifo | SchedulerKind::Codel => 1,
            SchedulerKind::Priq => 16,
            SchedulerKind::Fairq => 8,
            SchedulerKind::Cbq => 1024,
            SchedulerKind::Hfsc => 4096,
        }
    }

    /// The highest priority.
    pub(crate) const fn max_priority(self) -> u8 {
        match self {
            SchedulerKind::Priq | SchedulerKind::Fifo => 15,
            _ => 7,
        }
    }

    /// Whether queues of it have a bandwidth (and pfctl prints it).
    pub(crate) const fn shares_bandwidth(self) -> bool {
        matches!(self, SchedulerKind::Cbq | SchedulerKind::Hfsc | SchedulerKind::Fairq)
    }
}

/// The words in a queue's brackets, `priq( red default )`, one bit each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueFlags(u16);

impl QueueFlags {
    /// Random early detection.
    pub const RED: QueueFlags = QueueFlags(1);
    /// Marks instead of early drops.
    pub const ECN: QueueFlags = QueueFlags(1 << 1);
    /// Random early detection with in and out.
    pub const RIO: QueueFlags = QueueFlags(1 << 2);
    /// Controlled delay.
    pub const CODEL: QueueFlags = QueueFlags(1 << 3);
    /// Zeroes the DSCP.
    pub const CLEARDSCP: QueueFlags = QueueFlags(1 << 4);
    /// Limits flows that do not respond.
    pub const FLOWVALVE: QueueFlags = QueueFlags(1 << 5);
    /// May use its parent's bandwidth.
    pub const BORROW: QueueFlags = QueueFlags(1 << 6);
    /// Weighted round robin.
    pub const WRR: QueueFlags = QueueFlags(1 << 7);
    /// Keeps the link busy rather than the classes exact.
    pub const EFFICIENT: QueueFlags = QueueFlags(1 << 8);
    /// The root of the tree.
    pub const ROOT: QueueFlags = QueueFlags(1 << 9);
    /// FQ-CoDel: flows kept apart, CoDel for each.
    pub const FQ_CODEL: QueueFlags = QueueFlags(1 << 11);
    /// FQ-CoDel, fair between hosts before flows.
    pub const CAKE: QueueFlags = QueueFlags(1 << 12);
    /// BLUE.
    pub const BLUE: QueueFlags = QueueFlags(1 << 13);
    /// Takes what no rule put elsewhere.
    pub const DEFAULT: QueueFlags = QueueFlags(1 << 10);

    /// Every word, in pfctl's order of printing.
    pub const NAMES: [(QueueFlags, &'static str); 14] = [
        (Self::RED, "red"),
        (Self::ECN, "ecn"),
        (Self::RIO, "rio"),
        (Self::CODEL, "codel"),
        (Self::FQ_CODEL, "fq_codel"),
        (Self::CAKE, "cake"),
        (Self::BLUE, "blue"),
        (Self::CLEARDSCP, "cleardscp"),
        (Self::FLOWVALVE, "flowvalve"),
        (Self::BORROW, "borrow"),
        (Self::WRR, "wrr"),
        (Self::EFFICIENT, "efficient"),
        (Self::ROOT, "root"),
        (Self::DEFAULT, "default"),
    ];

    /// No word.
    pub const fn empty() -> QueueFlags {
        QueueFlags(0)
    }

    /// These and `other`.
    #[must_use]
    pub const fn with(self, other: QueueFlags) -> QueueFlags {
        QueueFlags(self.0 | other.0)
    }

    /// Whether all of `other` are set.
    pub const fn has(self, other: QueueFlags) -> bool {
        self.0 & other.0 == other.0
    }

    /// The words that are set, in pfctl's order.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        Self::NAMES.into_iter().filter(move |&(flag, _)| self.has(flag)).map(|(_, name)| name)
    }
}

/// `bandwidth` of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bandwidth {
    /// Bits a second.
    Bits(u64),
    /// Of the parent's.
    Percent(u32),
}

/// A service curve as written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CurveSpec {
    /// The first piece's rate and how many milliseconds it lasts; without, the curve is straight.
    pub first: Option<(Bandwidth, u32)>,
    /// The second piece's rate.
    pub second: Bandwidth,
}

/// A `queue` line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QueueSpec {
    /// Its name, which rules and states use.
    pub name: String,
    /// The number of that name, as pf writes it into packets; not 0.
    pub qid: u16,
    /// The queue it is a child of, where the scheduler has trees.
    pub parent: Option<String>,
    /// Its share.
    pub bandwidth: Option<Bandwidth>,
    /// Its priority; 1 if not given.
    pub priority: Option<u8>,
    /// Packets that may wait; the `altq` line's if not given, else 50.
    pub qlimit: Option<u32>,
    /// The words in brackets.
    pub flags: QueueFlags,
    /// `realtime` (HFSC).
    pub realtime: Option<CurveSpec>,
    /// `linkshare` (HFSC: the bandwidth if not given; FAIRQ, straight).
    pub linkshare: Option<CurveSpec>,
    /// `upperlimit` (HFSC).
    pub upperlimit: Option<CurveSpec>,
    /// `buckets` (FAIRQ).
    pub buckets: Option<u32>,
    /// `hogs` (FAIRQ).
    pub hogs: Option<Bandwidth>,
    /// `target` and `interval` of its CoDel, in milliseconds; the `altq` line's if not given.
    pub codel: (Option<u32>, Option<u32>),
}

/// An `altq on` line with its queues.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TreeSpec {
    /// The interface.
    pub interface: String,
    /// Its MTU, for the bucket's default size.
    pub mtu: u32,
    /// The discipline.
    pub scheduler: SchedulerKind,
    /// Bits a second; the interface's own speed if the line does not say, `None` if neither is known.
    pub bandwidth: Option<u64>,
    /// Packets that may wait in a queue that does not say.
    pub qlimit: Option<u32>,
    /// Bytes in the bucket; by bandwidth if not given.
    pub tbrsize: Option<u32>,
    /// The words in brackets: what the root, or the only queue, has.
    pub flags: QueueFlags,
    /// `target` and `interval` of CoDel, in milliseconds.
    pub codel: (Option<u32>, Option<u32>),
    /// What the link adds to a frame.
    pub framing: Framing,
    /// The queue id of the root, where the scheduler has trees.
    pub root_qid: u16,
    /// The queues, parents first.
    pub queues: Vec<QueueSpec>,
}

/// A class, checked, nothing left to default.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClassConf {
    /// Its name.
    pub name: String,
    /// The number of that name; 0 for the unnamed class of a scheduler without queues.
    pub qid: u16,
    /// Its parent.
    pub parent: Option<ClassId>,
    /// How many ancestors it has.
    pub level: u16,
    /// Whether it has no children: packets wait in leaves.
    pub leaf: bool,
    /// Bits a second: the interface's where the scheduler has no shares.
    pub bandwidth: u64,
    /// Its priority.
    pub priority: u8,
    /// Wire packets that may wait.
    pub qlimit: u32,
    /// The words in brackets.
    pub flags: QueueFlags,
    /// HFSC's curves; of FAIRQ's, the link-share.
    pub curves: Curves,
    /// What drops packets before the queue is full.
    pub dropper: DropperConf,
}

/// A tree's configuration, checked, nothing left to default.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TreeConf {
    /// The interface.
    pub interface: String,
    /// The discipline.
    pub scheduler: SchedulerKind,
    /// Bits a second.
    pub bandwidth: u64,
    /// Bytes in the bucket.
    pub tbrsize: u32,
    /// The interface's MTU.
    pub mtu: u32,
    /// What the link adds to a frame.
    pub framing: Framing,
    /// What is allowed and surely not meant.
    pub warnings: Vec<String>,
    /// The classes; a [`ClassId`] is a place in this list.
    pub classes: Vec<ClassConf>,
}

/// A tree that can run: goes into an [`IfQueue`](crate::IfQueue).
pub struct Tree {
    pub(crate) conf: Arc<TreeConf>,
    pub(crate) engine: Engine,
    pub(crate) regulator: Regulator,
    pub(crate) framing: Framing,
    /// By queue id: the class.
    by_id: Box<[u16]>,
    default: ClassId,
}

/// Bytes in the bucket when the configuration does not say: more at rates where a timer would come too late.
pub fn default_tbrsize(bandwidth: u64, mtu: u32) -> u32 {
    let packets = match bandwidth {
        0..=1_000_000 => 1,
        1_000_001..=10_000_000 => 4,
        10_000_001..=200_000_000 => 8,
        200_000_001..=2_500_000_000 => 24,
        _ => 128,
    };
    mtu.saturating_mul(packets)
}

impl Tree {
    /// The configuration it was built from.
    pub fn conf(&self) -> &TreeConf {
        &self.conf
    }

    /// The class of a packet with this queue id.
    #[inline]
    pub(crate) fn class_of(&self, qid: u16) -> ClassId {
        match self.by_id.get(usize::from(qid)) {
            Some(&class) if class != NO_CLASS => ClassId(class),
            _ => self.default,
        }
    }

    /// The class of this name.
    pub(crate) fn class_named(&self, name: &str) -> Option<ClassId> {
        self.conf.classes.iter().position(|c| c.name == name).map(|class| ClassId(class as u16))
    }

    /// The class that takes what no rule put elsewhere.
    pub(crate) fn default_class(&self) -> ClassId {
        self.default
    }
}

impl TreeSpec {
    /// Checks everything and allocates everything.
    pub fn build(&self) -> Result<Tree, TreeError> {
        let conf = self.check()?;
        let default = conf.classes.iter().position(|c| c.flags.has(QueueFlags::DEFAULT)).unwrap_or(0);
        let ids = conf.classes.iter().map(|c| usize::from(c.qid) + 1).max().unwrap_or(0);
        let mut by_id = vec![NO_CLASS; ids].into_boxed_slice();
        // Packets wait in leaves: a rule that names an inner queue means the default one.
        for (class, c) in conf.classes.iter().enumerate().filter(|(_, c)| c.leaf) {
            by_id[usize::from(c.qid)] = class as u16;
        }
        Ok(Tree {
            engine: engine(&conf),
            regulator: Regulator::new(conf.bandwidth, conf.tbrsize),
            framing: conf.framing,
            conf: Arc::new(conf),
            by_id,
            default: ClassId(default as u16),
        })
    }
}

fn engine(conf: &TreeConf) -> Engine {
    let queues = conf.classes.iter().enumerate().map(|(i, class)| queue(conf, class, i as u64));
    match conf.scheduler {
        SchedulerKind::Fifo | SchedulerKind::Codel => {
            Engine::Fifo(Box::new(Fifo::new(queue(conf, &conf.classes[0], 0))))
        }
        SchedulerKind::Priq => Engine::Priq(Priq::new(conf.classes.iter().map(|c| c.priority).zip(queues))),
        SchedulerKind::Hfsc => {
            let class = |(c, queue): (&ClassConf, ClassQueue)| HfscClass {
                parent: c.parent.map(|p| usize::from(p.0)),
                curves: c.curves,
                queue,
            };
            Engine::Hfsc(Box::new(Hfsc::new(conf.classes.iter().zip(queues).map(class).collect())))
        }
        SchedulerKind::Cbq => {
            let class = |(c, queue): (&ClassConf, ClassQueue)| CbqClass {
                parent: c.parent.map(|p| usize::from(p.0)),
                rate: c.bandwidth,
                priority: c.priority,
                borrow: c.flags.has(QueueFlags::BORROW),
                efficient: c.flags.has(QueueFlags::EFFICIENT),
                queue,
            };
            let classes = conf.classes.iter().zip(queues).map(class).collect();
            Engine::Cbq(Box::new(Cbq::new(classes, conf.bandwidth, conf.mtu + 14)))
        }
        SchedulerKind::Fairq => {
            let class = |(c, queue): (&ClassConf, ClassQueue)| FairqClass {
                priority: c.priority,
                rate: c.bandwidth,
                share: c.curves.linkshare.m2,
                queue,
            };
            Engine::Fairq(Fairq::new(conf.classes.iter().zip(queues).map(class), 4 * (conf.mtu + 14)))
        }
    }
}

/// An inner class has a queue that nothing enters, for its counters.
fn queue(conf: &TreeConf, class: &ClassConf, seed: u64) -> ClassQueue {
    ClassQueue::new(&QueueConf {
        limit: if class.leaf { class.qlimit } else { 0 },
        dropper: class.dropper,
        clear_dscp: class.flags.has(QueueFlags::CLEARDSCP),
        rate: class.bandwidth,
        mtu: conf.mtu,
        seed,
    })
}
