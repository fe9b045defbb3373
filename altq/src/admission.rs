//! Admission: whether what the queues are promised is there (`eval_pfqueue_hfsc` of pfctl).
//!
//! Curves are compared at every corner of any of them and in the long run; between two corners all are straight. What
//! is too much is told as a rate: what was promised by that moment, over the time until then.

use crate::{
    conf::{ClassConf, SchedulerKind, TreeConf},
    curve::Curve,
    error::TreeError,
    show::rate_text,
};

/// Per cent of the interface that may be promised to real-time curves.
const REALTIME_PERCENT: u64 = 80;

/// By how much curves are over a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Excess {
    /// When, in milliseconds after a class becomes active; none in the long run.
    pub at_ms: Option<u64>,
    /// Bits a second promised until then.
    pub sum: u64,
    /// Bits a second there are.
    pub limit: u64,
}

/// Checks what all queues together ask for; adds warnings.
pub(crate) fn check(conf: &mut TreeConf) -> Result<(), TreeError> {
    match conf.scheduler {
        SchedulerKind::Hfsc => curves(conf),
        SchedulerKind::Cbq | SchedulerKind::Fairq => {
            conf.warnings = shares(conf);
            Ok(())
        }
        SchedulerKind::Fifo | SchedulerKind::Priq | SchedulerKind::Codel => Ok(()),
    }
}

/// CBQ and FAIRQ take shares that do not fit and serve them as they can: a warning, as in pfctl.
fn shares(conf: &TreeConf) -> Vec<String> {
    let mut sums = vec![0_u64; conf.classes.len() + 1];
    let place = |c: &ClassConf| c.parent.map_or(conf.classes.len(), |p| usize::from(p.0));
    let own = |c: &&ClassConf| c.parent.is_some() || !conf.scheduler.has_root();
    for class in conf.classes.iter().filter(own) {
        sums[place(class)] = sums[place(class)].saturating_add(class.bandwidth);
    }
    let limits = conf.classes.iter().map(|c| (c.name.as_str(), c.bandwidth));
    let limits = limits.chain([(conf.interface.as_str(), conf.bandwidth)]);
    let over = sums.into_iter().zip(limits).filter(|(sum, (_, limit))| sum > limit);
    over.map(|(sum, (name, limit))| {
        format!(
            "the queues of {name} sum to {}, {} over its {}",
            rate_text(sum as f64),
            rate_text((sum - limit) as f64),
            rate_text(limit as f64)
        )
    })
    .collect()
}

fn curves(conf: &TreeConf) -> Result<(), TreeError> {
    let link = Curve::linear((u128::from(conf.bandwidth) * u128::from(REALTIME_PERCENT) / 100) as u64);
    let mut realtime = Sum::default();
    let mut below: Vec<Sum> = conf.classes.iter().map(|_| Sum::default()).collect();
    for class in &conf.classes {
        let queue = || class.name.clone();
        let Some(parent) = class.parent else { continue };
        let of = &conf.classes[usize::from(parent.0)];
        let curves = &class.curves;
        if !curves.realtime.is_zero() {
            if !class.leaf {
                return Err(TreeError::RealtimeInner { queue: queue() });
            }
            realtime.add(curves.realtime);
            if let Some(excess) = realtime.over(link) {
                let (queue, interface) = (queue(), conf.interface.clone());
                return Err(TreeError::Realtime { queue, interface, excess });
            }
        }
        let siblings = &mut below[usize::from(parent.0)];
        siblings.add(curves.linkshare);
        if let Some(excess) = siblings.over(of.curves.linkshare) {
            return Err(TreeError::Linkshare { queue: queue(), parent: of.name.clone(), excess });
        }
        if !curves.upperlimit.is_zero() {
            upper_limit(class, conf)?;
        }
    }
    Ok(())
}

/// An upper limit is below the link and above the real-time curve, everywhere.
fn upper_limit(class: &ClassConf, conf: &TreeConf) -> Result<(), TreeError> {
    let upper = class.curves.upperlimit;
    let queue = || class.name.clone();
    let rate = upper.m1.max(upper.m2);
    if rate > conf.bandwidth {
        let (interface, limit) = (conf.interface.clone(), conf.bandwidth);
        return Err(TreeError::Upperlimit { queue: queue(), interface, rate, limit });
    }
    let mut realtime = Sum::default();
    realtime.add(class.curves.realtime);
    match realtime.over(upper) {
        Some(excess) => Err(TreeError::UpperBelow { queue: queue(), excess }),
        None => Ok(()),
    }
}

/// A sum of curves.
#[derive(Default)]
struct Sum {
    /// Service at each corner, in order of time.
    corners: std::collections::BTreeMap<u64, i128>,
    /// All that were added, as one: the rates at the beginning and in the long run.
    first: u64,
    last: u64,
}

impl Sum {
    fn add(&mut self, curve: Curve) {
        if curve.d > 0 && !self.corners.contains_key(&curve.d) {
            let there = self.at(curve.d);
            self.corners.insert(curve.d, there);
        }
        for (&t, service) in &mut self.corners {
            *service += curve.at(t);
        }
        self.first += if curve.d > 0 { curve.m1 } else { curve.m2 };
        self.last += curve.m2;
    }

    /// Service at a time: straight between the corners beside it.
    fn at(&self, t: u64) -> i128 {
        let before = self.corners.range(..=t).next_back();
        let after = self.corners.range(t..).next();
        match (before, after) {
            (None, _) => i128::from(self.first) * i128::from(t),
            (Some((&x, &y)), None) => y + i128::from(self.last) * i128::from(t - x),
            (Some((&x, &y)), Some((&x2, _))) if x == x2 => y,
            (Some((&x, &y)), Some((&x2, &y2))) => y + (y2 - y) * i128::from(t - x) / i128::from(x2 - x),
        }
    }

    /// Where it is over `limit`, and by how much.
    fn over(&self, limit: Curve) -> Option<Excess> {
        let corners = self.corners.keys().copied().chain((limit.d > 0).then_some(limit.d));
        for t in corners {
            let (sum, there) = (self.at(t), limit.at(t));
            if sum > there {
                let rate = |service: i128| (service / i128::from(t)) as u64;
                return Some(Excess { at_ms: Some(t / 1_000_000), sum: rate(sum), limit: rate(there) });
            }
        }
        (self.last > limit.m2).then_some(Excess { at_ms: None, sum: self.last, limit: limit.m2 })
    }
}

/// The longest that a packet of this many bytes, alone in its queue, waits in an HFSC leaf with a real-time curve: in
/// nanoseconds, all other queues flooded. None without a real-time curve.
pub fn worst_delay(conf: &TreeConf, class: &ClassConf, bytes: u32) -> Option<u64> {
    let curve = class.curves.realtime;
    if !class.leaf || curve.is_zero() {
        return None;
    }
    let own = crate::curve::Runtime::new(curve, 0, 0).time(i128::from(bytes) * crate::curve::BYTE);
    // One frame on the wire before it, and as much until the regulator has paid for it.
    let frame = u64::from(conf.mtu + 14) * 8_000_000_000 / conf.bandwidth;
    Some(own.saturating_add(2 * frame))
}
