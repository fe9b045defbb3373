//! From pf.conf's `altq on` and `queue` lines to a tree that can run.
//!
//! The router fills a [`TreeSpec`] from the parsed lines, names resolved and the queue ids given (the same name on
//! two interfaces is the same id); [`TreeSpec::build`] checks it and allocates everything. What can be wrong is a
//! [`TreeError`]. Grammar and defaults: pf.conf(5), QUEUEING. Not here: the text itself and its positions (pf).

use crate::{
    discipline::{ClassId, Engine},
    error::TreeError,
    fifo::Fifo,
    priq::{PRIORITIES, Priq},
    tbr::Regulator,
};
use std::sync::Arc;

/// Packets a queue holds when the configuration does not say.
pub(crate) const DEFAULT_QLIMIT: u32 = 50;
/// The priority of a queue when the configuration does not say.
pub(crate) const DEFAULT_PRIORITY: u8 = 1;
/// Packets a queue may be told to hold.
const MAX_QLIMIT: u32 = 65_536;
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
    /// Takes what no rule put elsewhere.
    pub const DEFAULT: QueueFlags = QueueFlags(1 << 10);

    /// Every word, in pfctl's order of printing.
    pub const NAMES: [(QueueFlags, &'static str); 11] = [
        (Self::RED, "red"),
        (Self::ECN, "ecn"),
        (Self::RIO, "rio"),
        (Self::CODEL, "codel"),
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
    /// The queues, in the order of their ids.
    pub queues: Vec<QueueSpec>,
}

/// A class, checked, nothing left to default.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClassConf {
    /// Its name.
    pub name: String,
    /// The number of that name; 0 for the unnamed class of a scheduler without queues.
    pub qid: u16,
    /// Its parent's name.
    pub parent: Option<String>,
    /// Bits a second: the interface's where the scheduler has no shares.
    pub bandwidth: u64,
    /// Its priority.
    pub priority: u8,
    /// Wire packets that may wait.
    pub qlimit: u32,
    /// The words in brackets.
    pub flags: QueueFlags,
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
    /// The classes; a [`ClassId`] is a place in this list.
    pub classes: Vec<ClassConf>,
}

/// A tree that can run: goes into an [`IfQueue`](crate::IfQueue).
pub struct Tree {
    pub(crate) conf: Arc<TreeConf>,
    pub(crate) engine: Engine,
    pub(crate) regulator: Regulator,
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
        let engine = match conf.scheduler {
            SchedulerKind::Fifo => Engine::Fifo(Fifo::new(conf.classes[0].qlimit)),
            SchedulerKind::Priq => {
                Engine::Priq(Priq::new(conf.classes.iter().map(|c| (c.priority, c.qlimit))))
            }
            other => return Err(self.no_engine(other)),
        };
        let default = conf.classes.iter().position(|c| c.flags.has(QueueFlags::DEFAULT)).unwrap_or(0);
        let ids = conf.classes.iter().map(|c| usize::from(c.qid) + 1).max().unwrap_or(0);
        let mut by_id = vec![NO_CLASS; ids].into_boxed_slice();
        for (class, c) in conf.classes.iter().enumerate() {
            by_id[usize::from(c.qid)] = class as u16;
        }
        Ok(Tree {
            engine,
            regulator: Regulator::new(conf.bandwidth, conf.tbrsize),
            conf: Arc::new(conf),
            by_id,
            default: ClassId(default as u16),
        })
    }

    /// Checks everything, fills in the defaults and allocates nothing that runs.
    pub fn check(&self) -> Result<TreeConf, TreeError> {
        let interface = self.interface.clone();
        let max = match self.scheduler {
            SchedulerKind::Fifo => 1,
            SchedulerKind::Priq => PRIORITIES,
            other => return Err(self.no_engine(other)),
        };
        let Some(bandwidth) = self.bandwidth.filter(|&b| b > 0) else {
            return Err(TreeError::NoBandwidth { interface });
        };
        let tbrsize = self.tbrsize.unwrap_or_else(|| default_tbrsize(bandwidth, self.mtu));
        if tbrsize == 0 {
            return Err(TreeError::NoBucket { interface });
        }
        if let Some(over) = self.queues.get(max) {
            return Err(TreeError::TooManyQueues {
                queue: over.name.clone(),
                interface,
                scheduler: self.scheduler.name(),
                max,
                count: self.queues.len(),
            });
        }
        let classes = self.check_queues(bandwidth)?;
        Ok(TreeConf { interface, scheduler: self.scheduler, bandwidth, tbrsize, classes })
    }

    fn check_queues(&self, bandwidth: u64) -> Result<Vec<ClassConf>, TreeError> {
        if self.queues.is_empty() {
            return self.unnamed_class(bandwidth).map(|class| vec![class]);
        }
        let mut classes: Vec<ClassConf> = Vec::with_capacity(self.queues.len());
        for spec in &self.queues {
            let class = self.check_queue(spec, bandwidth)?;
            self.check_against(&class, &classes)?;
            classes.push(class);
        }
        if !classes.iter().any(|c| c.flags.has(QueueFlags::DEFAULT)) {
            return Err(TreeError::NoDefault { interface: self.interface.clone() });
        }
        Ok(classes)
    }

    /// A scheduler without queues has one class, which has the interface's name.
    fn unnamed_class(&self, bandwidth: u64) -> Result<ClassConf, TreeError> {
        let interface = self.interface.clone();
        if self.scheduler != SchedulerKind::Fifo {
            return Err(TreeError::NoQueues { interface, scheduler: self.scheduler.name() });
        }
        let spec = QueueSpec { name: interface, flags: QueueFlags::DEFAULT, ..QueueSpec::default() };
        self.check_queue(&spec, bandwidth)
    }

    /// What is right or wrong about a queue by itself.
    fn check_queue(&self, spec: &QueueSpec, limit: u64) -> Result<ClassConf, TreeError> {
        let queue = spec.name.clone();
        if let Some(option) = spec.flags.names().find(|&name| name != "default") {
            return Err(TreeError::NoOption { queue, option });
        }
        if let Some(parent) = spec.parent.clone() {
            return Err(TreeError::Parent { queue, parent, scheduler: self.scheduler.name() });
        }
        let priority = spec.priority.unwrap_or(DEFAULT_PRIORITY);
        let max = (PRIORITIES - 1) as u8;
        if priority > max {
            return Err(TreeError::Priority { queue, priority, max });
        }
        let qlimit = spec.qlimit.or(self.qlimit).unwrap_or(DEFAULT_QLIMIT);
        if !(1..=MAX_QLIMIT).contains(&qlimit) {
            return Err(TreeError::Limit { queue, qlimit, max: MAX_QLIMIT });
        }
        let bandwidth = match spec.bandwidth {
            None => limit,
            Some(Bandwidth::Bits(bits)) => bits,
            Some(Bandwidth::Percent(percent)) if percent > 100 => {
                return Err(TreeError::Percent { queue, percent });
            }
            Some(Bandwidth::Percent(percent)) => (u128::from(limit) * u128::from(percent) / 100) as u64,
        };
        if bandwidth > limit {
            return Err(TreeError::Bandwidth { queue, bandwidth, interface: self.interface.clone(), limit });
        }
        Ok(ClassConf {
            name: queue,
            qid: spec.qid,
            parent: None,
            bandwidth,
            priority,
            qlimit,
            flags: spec.flags,
        })
    }

    /// What is right or wrong about a queue beside those before it.
    fn check_against(&self, class: &ClassConf, before: &[ClassConf]) -> Result<(), TreeError> {
        let (queue, interface) = (class.name.clone(), self.interface.clone());
        if before.iter().any(|c| c.name == class.name) {
            return Err(TreeError::SameName { queue, interface });
        }
        if class.qid == 0 || before.iter().any(|c| c.qid == class.qid) {
            return Err(TreeError::SameId { queue, qid: class.qid, interface });
        }
        if let Some(first) = before.iter().find(|c| c.priority == class.priority) {
            return Err(TreeError::SamePriority {
                queue,
                first: first.name.clone(),
                priority: class.priority,
            });
        }
        let default = |c: &&ClassConf| c.flags.has(QueueFlags::DEFAULT);
        match before.iter().find(default) {
            Some(first) if default(&class) => {
                Err(TreeError::SecondDefault { queue, first: first.name.clone(), interface })
            }
            _ => Ok(()),
        }
    }

    fn no_engine(&self, scheduler: SchedulerKind) -> TreeError {
        TreeError::NoEngine { interface: self.interface.clone(), scheduler: scheduler.name() }
    }
}
