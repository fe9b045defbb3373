//! pf.conf's `altq` and `queue` lines to ALTQ's trees: the one place where the words of both crates meet.

use super::Faults;
use crate::conf::{DriverConf, ValidConf};
use altq::{CurveSpec, Framing, QueueFlags, SchedulerKind, Tree, TreeConf, TreeSpec};
use pf::{
    PfConf,
    conf::{AltqSpec, Bandwidth, QueueOptions, QueueSpec, Scheduler, ServiceCurve},
};
use std::path::Path;

/// Faults that only ALTQ can find.
pub(super) fn check(conf: &ValidConf, pf: &PfConf, path: &Path) -> Vec<String> {
    let mut names = pf::Names::new();
    let place = |at: &AltqSpec| format!("{}:{}:{}", path.display(), at.at.line, at.at.column);
    pf.altqs
        .iter()
        .filter_map(|altq| {
            match spec(conf, pf, altq, &mut names).and_then(|s| s.check().map_err(|e| e.to_string())) {
                Ok(_) => None,
                Err(e) => Some(format!("{}: {e}", place(altq))),
            }
        })
        .collect()
}

/// What ALTQ has to say of a configuration without faults: the trees, with their warnings.
pub(super) fn confs(conf: &ValidConf, pf: &PfConf) -> Vec<TreeConf> {
    let mut names = pf::Names::new();
    let tree = |altq: &AltqSpec| spec(conf, pf, altq, &mut names).ok()?.check().ok();
    pf.altqs.iter().filter_map(tree).collect()
}

/// The trees, by interface.
pub(super) fn trees(
    conf: &ValidConf,
    pf: &PfConf,
    names: &mut pf::Names,
) -> Result<Vec<(String, Tree)>, Faults> {
    let one = |altq: &AltqSpec| {
        let tree = spec(conf, pf, altq, names).and_then(|s| s.build().map_err(|e| e.to_string()));
        tree.map(|t| (altq.interface.clone(), t)).map_err(|e| Faults(vec![e]))
    };
    pf.altqs.iter().map(one).collect()
}

fn spec(conf: &ValidConf, pf: &PfConf, altq: &AltqSpec, names: &mut pf::Names) -> Result<TreeSpec, String> {
    let Some(interface) = conf.named(&altq.interface) else {
        return Err(format!("altq on {}: no such interface", altq.interface));
    };
    if let DriverConf::Ipsec(ends) = interface.driver {
        return Err(format!(
            "altq on {}: a tunnel has no line of its own; queue its ESP where it leaves for {}, and let rules on {} say \
             which queue",
            altq.interface, ends.remote, altq.interface
        ));
    }
    let scheduler = scheduler(altq.scheduler);
    // pfctl gives the root its name and its number before all others.
    let root_qid = match scheduler {
        SchedulerKind::Cbq | SchedulerKind::Hfsc => {
            names.queue(&format!("root_{}", altq.interface)).map_err(|e| e.to_string())?
        }
        _ => 0,
    };
    let mut tree = TreeSpec {
        interface: altq.interface.clone(),
        mtu: altq.mtu.into(),
        scheduler,
        bandwidth: altq.rate(),
        qlimit: altq.qlimit,
        tbrsize: altq.tbrsize,
        flags: flags(&altq.options),
        codel: (altq.options.target, altq.options.interval),
        framing: Framing {
            overhead: altq.overhead.unwrap_or(0).into(),
            mpu: altq.mpu.unwrap_or(0).into(),
            atm: altq.atm,
        },
        root_qid,
        queues: Vec::new(),
    };
    for name in &altq.queues {
        add(pf, altq, name, None, names, &mut tree)?;
    }
    Ok(tree)
}

/// Adds a queue and those below it, parents first.
fn add(
    pf: &PfConf,
    altq: &AltqSpec,
    name: &str,
    parent: Option<&str>,
    names: &mut pf::Names,
    tree: &mut TreeSpec,
) -> Result<(), String> {
    let here = |q: &&QueueSpec| q.name == name && q.interface.as_ref().is_none_or(|i| *i == altq.interface);
    let queue = pf.queues.iter().find(here).ok_or_else(|| format!("queue {name}: not defined"))?;
    tree.queues.push(altq::QueueSpec {
        name: name.into(),
        qid: names.queue(name).map_err(|e| e.to_string())?,
        parent: parent.map(Into::into),
        bandwidth: queue.bandwidth.map(bandwidth),
        priority: queue.priority,
        qlimit: queue.qlimit,
        flags: flags(&queue.options),
        realtime: queue.options.realtime.map(curve),
        linkshare: queue.options.linkshare.map(curve),
        upperlimit: queue.options.upperlimit.map(curve),
        buckets: queue.options.buckets,
        hogs: queue.options.hogs.map(bandwidth),
        codel: (queue.options.target, queue.options.interval),
    });
    for child in &queue.children {
        add(pf, altq, child, Some(name), names, tree)?;
    }
    Ok(())
}

fn bandwidth(bandwidth: Bandwidth) -> altq::Bandwidth {
    match bandwidth {
        Bandwidth::Bits(bits) => altq::Bandwidth::Bits(bits),
        Bandwidth::Percent(percent) => altq::Bandwidth::Percent(percent),
    }
}

fn curve(curve: ServiceCurve) -> CurveSpec {
    CurveSpec { first: curve.first.map(|(rate, ms)| (bandwidth(rate), ms)), second: bandwidth(curve.second) }
}

fn scheduler(scheduler: Scheduler) -> SchedulerKind {
    match scheduler {
        Scheduler::Priq => SchedulerKind::Priq,
        Scheduler::Cbq => SchedulerKind::Cbq,
        Scheduler::Hfsc => SchedulerKind::Hfsc,
        Scheduler::Fairq => SchedulerKind::Fairq,
        Scheduler::Codel => SchedulerKind::Codel,
    }
}

fn flags(options: &QueueOptions) -> QueueFlags {
    let words = [
        (options.default, QueueFlags::DEFAULT),
        (options.borrow, QueueFlags::BORROW),
        (options.red, QueueFlags::RED),
        (options.ecn, QueueFlags::ECN),
        (options.rio, QueueFlags::RIO),
        (options.codel, QueueFlags::CODEL),
        (options.fq_codel, QueueFlags::FQ_CODEL),
        (options.cake, QueueFlags::CAKE),
        (options.blue, QueueFlags::BLUE),
        (options.cleardscp, QueueFlags::CLEARDSCP),
        (options.flowvalve, QueueFlags::FLOWVALVE),
        (options.efficient, QueueFlags::EFFICIENT),
    ];
    words.into_iter().filter(|w| w.0).fold(QueueFlags::default(), |all, w| all.with(w.1))
}
