//! What can be wrong with `altq on` and `queue` lines, one queue after the other.
//!
//! Sums over queues (curves, shares) are in `admission.rs`.

use crate::{
    admission,
    codel::CodelConf,
    conf::{
        Bandwidth, ClassConf, CurveSpec, DEFAULT_PRIORITY, DEFAULT_QLIMIT, QueueFlags, QueueSpec,
        SchedulerKind, TreeConf, TreeSpec, default_tbrsize,
    },
    curve::Curve,
    discipline::ClassId,
    error::TreeError,
    flows::FlowsConf,
    hfsc::Curves,
    queue::DropperConf,
};

/// Packets a queue may be told to hold.
const MAX_QLIMIT: u32 = 65_536;
/// Flows that FQ-CoDel and cake tell apart.
const FQ_FLOWS: u32 = 1024;
/// FAIRQ's buckets when the configuration does not say, and at most.
const FAIRQ_BUCKETS: u32 = 256;
const MAX_BUCKETS: u32 = 2048;

impl TreeSpec {
    /// Checks everything, fills in the defaults and allocates nothing that runs.
    pub fn check(&self) -> Result<TreeConf, TreeError> {
        let interface = self.interface.clone();
        let Some(bandwidth) = self.bandwidth.filter(|&b| b > 0) else {
            return Err(TreeError::NoBandwidth { interface });
        };
        let tbrsize = self.tbrsize.unwrap_or_else(|| default_tbrsize(bandwidth, self.mtu));
        if tbrsize == 0 {
            return Err(TreeError::NoBucket { interface });
        }
        let max = self.scheduler.max_queues();
        if let Some(over) = self.queues.get(max) {
            return Err(TreeError::TooManyQueues {
                queue: over.name.clone(),
                interface,
                scheduler: self.scheduler.name(),
                max,
                count: self.queues.len(),
            });
        }
        let mut conf = TreeConf {
            interface,
            scheduler: self.scheduler,
            bandwidth,
            tbrsize,
            mtu: self.mtu,
            framing: self.framing,
            warnings: Vec::new(),
            classes: Vec::with_capacity(self.queues.len() + 1),
        };
        self.check_queues(&mut conf)?;
        admission::check(&mut conf)?;
        Ok(conf)
    }

    fn check_queues(&self, conf: &mut TreeConf) -> Result<(), TreeError> {
        if self.queues.is_empty() {
            conf.classes.push(self.unnamed_class(conf)?);
            return Ok(());
        }
        if self.scheduler.has_root() {
            conf.classes.push(self.root(conf));
        }
        let mut seen = std::collections::HashSet::new();
        for spec in &self.queues {
            let class = self.check_queue(spec, conf)?;
            self.check_against(&class, &conf.classes)?;
            if !seen.insert(class.qid) || class.qid == 0 || self.is_root(class.qid) {
                let (queue, interface) = (class.name, self.interface.clone());
                return Err(TreeError::SameId { queue, qid: class.qid, interface });
            }
            if let Some(parent) = class.parent {
                conf.classes[usize::from(parent.0)].leaf = false;
            }
            conf.classes.push(class);
        }
        let Some(default) = conf.classes.iter().find(|c| c.flags.has(QueueFlags::DEFAULT)) else {
            return Err(TreeError::NoDefault { interface: self.interface.clone() });
        };
        if default.leaf { Ok(()) } else { Err(TreeError::DefaultParent { queue: default.name.clone() }) }
    }

    fn is_root(&self, qid: u16) -> bool {
        self.scheduler.has_root() && qid == self.root_qid
    }

    /// A scheduler without queues has one class, which has the interface's name.
    fn unnamed_class(&self, conf: &TreeConf) -> Result<ClassConf, TreeError> {
        let interface = self.interface.clone();
        if !matches!(self.scheduler, SchedulerKind::Fifo | SchedulerKind::Codel) {
            return Err(TreeError::NoQueues { interface, scheduler: self.scheduler.name() });
        }
        let mut flags = self.flags.with(QueueFlags::DEFAULT);
        if self.scheduler == SchedulerKind::Codel {
            flags = flags.with(QueueFlags::CODEL);
        }
        let spec = QueueSpec { name: interface, flags, ..QueueSpec::default() };
        self.check_queue(&spec, conf)
    }

    /// The root that pfctl makes.
    fn root(&self, conf: &TreeConf) -> ClassConf {
        let own = if self.scheduler == SchedulerKind::Cbq {
            QueueFlags::ROOT.with(QueueFlags::WRR)
        } else {
            QueueFlags::empty()
        };
        let efficient = QueueFlags::EFFICIENT;
        ClassConf {
            name: format!("root_{}", self.interface),
            qid: self.root_qid,
            parent: None,
            level: 0,
            leaf: false,
            bandwidth: conf.bandwidth,
            priority: 0,
            qlimit: self.qlimit.unwrap_or(DEFAULT_QLIMIT),
            flags: if self.flags.has(efficient) { own.with(efficient) } else { own },
            curves: Curves { linkshare: Curve::linear(conf.bandwidth), ..Curves::default() },
            dropper: DropperConf::Tail,
        }
    }

    /// What is right or wrong about a queue by itself.
    fn check_queue(&self, spec: &QueueSpec, conf: &TreeConf) -> Result<ClassConf, TreeError> {
        let queue = spec.name.clone();
        let parent = self.parent_of(spec, conf)?;
        let above = parent.map(|p| &conf.classes[usize::from(p.0)]);
        let priority = spec.priority.unwrap_or(DEFAULT_PRIORITY);
        let max = self.scheduler.max_priority();
        if priority > max {
            return Err(TreeError::Priority { queue, priority, max });
        }
        let qlimit = spec.qlimit.or(self.qlimit).unwrap_or(DEFAULT_QLIMIT);
        if !(1..=MAX_QLIMIT).contains(&qlimit) {
            return Err(TreeError::Limit { queue, qlimit, max: MAX_QLIMIT });
        }
        let of = above.map_or(conf.bandwidth, |c| c.bandwidth);
        let bandwidth = spec.bandwidth.map_or(Ok(of), |b| rate(&queue, b, of))?;
        if bandwidth > of {
            let parent = above.map_or(&self.interface, |c| &c.name).clone();
            return Err(TreeError::Bandwidth { queue, bandwidth, parent, limit: of });
        }
        if bandwidth == 0 && self.scheduler.shares_bandwidth() {
            return Err(TreeError::NoShare { queue });
        }
        Ok(ClassConf {
            curves: self.curves(spec, bandwidth, of)?,
            dropper: self.dropper(spec, of)?,
            name: queue,
            qid: spec.qid,
            parent,
            level: above.map_or(0, |c| c.level + 1),
            leaf: true,
            bandwidth,
            priority,
            qlimit,
            flags: spec.flags,
        })
    }

    /// The place of a queue's parent, which must come before it.
    fn parent_of(&self, spec: &QueueSpec, conf: &TreeConf) -> Result<Option<ClassId>, TreeError> {
        let queue = spec.name.clone();
        match &spec.parent {
            None => Ok(self.scheduler.has_root().then_some(ClassId(0))),
            Some(parent) if !self.scheduler.has_root() => {
                Err(TreeError::Parent { queue, parent: parent.clone(), scheduler: self.scheduler.name() })
            }
            Some(parent) => {
                let place = conf.classes.iter().position(|c| c.name == *parent);
                let parent = parent.clone();
                place.map(|p| Some(ClassId(p as u16))).ok_or(TreeError::NoParent { queue, parent })
            }
        }
    }

    fn curves(&self, spec: &QueueSpec, bandwidth: u64, of: u64) -> Result<Curves, TreeError> {
        if self.scheduler != SchedulerKind::Hfsc {
            return self.linkshare(spec, of);
        }
        let read = |(name, curve): (&'static str, &Option<CurveSpec>)| {
            curve.map_or(Ok(Curve::default()), |c| read_curve(&spec.name, name, &c, of))
        };
        let mut curves = Curves {
            realtime: read(("realtime", &spec.realtime))?,
            linkshare: read(("linkshare", &spec.linkshare))?,
            upperlimit: read(("upperlimit", &spec.upperlimit))?,
        };
        if curves.linkshare.is_zero() {
            curves.linkshare = Curve::linear(bandwidth);
        }
        Ok(curves)
    }

    /// The only curve there is outside HFSC: FAIRQ's `linkshare`, a rate.
    fn linkshare(&self, spec: &QueueSpec, of: u64) -> Result<Curves, TreeError> {
        let scheduler = self.scheduler;
        let shares = scheduler == SchedulerKind::Fairq;
        let bends = spec.linkshare.is_some_and(|c| c.first.is_some());
        let wrong = [
            (spec.realtime.is_some(), "realtime"),
            (spec.linkshare.is_some() && !shares, "linkshare"),
            (spec.upperlimit.is_some(), "upperlimit"),
            (bends, "a linkshare of two pieces"),
        ];
        let (queue, scheduler) = (spec.name.clone(), scheduler.name());
        if let Some((_, option)) = wrong.into_iter().find(|w| w.0) {
            return Err(TreeError::NotHere { queue, option, scheduler });
        }
        let share = spec.linkshare.map_or(Ok(0), |c| rate(&queue, c.second, of))?;
        Ok(Curves { linkshare: Curve::linear(share), ..Curves::default() })
    }

    /// The one dropper that a queue's words ask for. `ecn` and `flowvalve` bring `red` along, which then means nothing by
    /// itself.
    fn dropper(&self, spec: &QueueSpec, of: u64) -> Result<DropperConf, TreeError> {
        let has = |flag| spec.flags.has(flag);
        let ecn = has(QueueFlags::ECN);
        let red = has(QueueFlags::RED) && !ecn && !has(QueueFlags::FLOWVALVE);
        let queue = || spec.name.clone();
        let valve = has(QueueFlags::FLOWVALVE);
        if valve && self.scheduler != SchedulerKind::Cbq {
            let scheduler = self.scheduler.name();
            return Err(TreeError::NotHere { queue: queue(), option: "flowvalve", scheduler });
        }
        if self.scheduler == SchedulerKind::Fairq {
            return self.buckets(spec, of);
        }
        if spec.buckets.is_some() || spec.hogs.is_some() {
            let option = if spec.buckets.is_some() { "buckets" } else { "hogs" };
            return Err(TreeError::NotHere { queue: queue(), option, scheduler: self.scheduler.name() });
        }
        let asked = [
            (red, "red"),
            (valve, "flowvalve"),
            (has(QueueFlags::RIO), "rio"),
            (has(QueueFlags::CODEL), "codel"),
            (has(QueueFlags::FQ_CODEL), "fq_codel"),
            (has(QueueFlags::CAKE), "cake"),
            (has(QueueFlags::BLUE), "blue"),
        ];
        let mut asked = asked.into_iter().filter(|a| a.0).map(|a| a.1);
        let (first, second) = (asked.next(), asked.next());
        if let (Some(first), Some(second)) = (first, second) {
            return Err(TreeError::TwoDroppers { queue: queue(), first, second });
        }
        let (target, interval) = (spec.codel.0.or(self.codel.0), spec.codel.1.or(self.codel.1));
        let codel = CodelConf::new(target, interval, ecn);
        let flows =
            |hosts| DropperConf::Flows(FlowsConf { flows: FQ_FLOWS, codel: Some(codel), hosts, hogs: 0 });
        Ok(match first {
            Some("codel") => DropperConf::Codel(codel),
            Some("fq_codel") => flows(false),
            Some("cake") => flows(true),
            Some("blue") => DropperConf::Blue { ecn },
            Some("rio") => DropperConf::Rio { ecn },
            Some(_) => DropperConf::Red { ecn, valve },
            None if ecn => DropperConf::Red { ecn, valve },
            None => DropperConf::Tail,
        })
    }

    /// FAIRQ's buckets of flows. CoDel works in each of them; RED and RIO need one queue.
    fn buckets(&self, spec: &QueueSpec, of: u64) -> Result<DropperConf, TreeError> {
        let queue = spec.name.clone();
        let one = [QueueFlags::RIO, QueueFlags::FQ_CODEL, QueueFlags::CAKE, QueueFlags::BLUE];
        let codel = spec.flags.has(QueueFlags::CODEL);
        let red = spec.flags.has(QueueFlags::RED) && !codel;
        if let Some(flag) = one.into_iter().find(|f| spec.flags.has(*f)).or(red.then_some(QueueFlags::RED)) {
            let option = flag.names().next().unwrap_or("red");
            return Err(TreeError::NotHere { queue, option, scheduler: self.scheduler.name() });
        }
        let hogs = spec.hogs.map_or(Ok(0), |hogs| rate(&spec.name, hogs, of))?;
        let flows = spec.buckets.unwrap_or(FAIRQ_BUCKETS);
        if !(1..=MAX_BUCKETS).contains(&flows) || !flows.is_power_of_two() {
            return Err(TreeError::Buckets { queue, buckets: flows, max: MAX_BUCKETS });
        }
        let ecn = spec.flags.has(QueueFlags::ECN);
        let (target, interval) = (spec.codel.0.or(self.codel.0), spec.codel.1.or(self.codel.1));
        let codel = codel.then(|| CodelConf::new(target, interval, ecn));
        Ok(DropperConf::Flows(FlowsConf { flows, codel, hosts: false, hogs }))
    }

    /// What is right or wrong about a queue beside those before it.
    fn check_against(&self, class: &ClassConf, before: &[ClassConf]) -> Result<(), TreeError> {
        let (queue, interface) = (class.name.clone(), self.interface.clone());
        if before.iter().any(|c| c.name == class.name) {
            return Err(TreeError::SameName { queue, interface });
        }
        if matches!(self.scheduler, SchedulerKind::Priq | SchedulerKind::Fairq)
            && let Some(first) = before.iter().find(|c| c.priority == class.priority)
        {
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
}

/// Bits a second, a percentage being of `of`.
fn rate(queue: &str, bandwidth: Bandwidth, of: u64) -> Result<u64, TreeError> {
    match bandwidth {
        Bandwidth::Bits(bits) => Ok(bits),
        Bandwidth::Percent(percent) if percent > 100 => {
            Err(TreeError::Percent { queue: queue.to_owned(), percent })
        }
        Bandwidth::Percent(percent) => Ok((u128::from(of) * u128::from(percent) / 100) as u64),
    }
}

fn read_curve(queue: &str, curve: &'static str, spec: &CurveSpec, of: u64) -> Result<Curve, TreeError> {
    let m2 = rate(queue, spec.second, of)?;
    let Some((m1, ms)) = spec.first.filter(|&(_, ms)| ms > 0) else { return Ok(Curve::linear(m2)) };
    let m1 = rate(queue, m1, of)?;
    let queue = queue.to_owned();
    if m1 > 0 && m2 == 0 {
        return Err(TreeError::FlatEnd { queue, curve });
    }
    if m1 > 0 && m1 < m2 {
        return Err(TreeError::Convex { queue, curve, m1, m2 });
    }
    Ok(Curve { m1, d: u64::from(ms) * 1_000_000, m2 })
}
