//! What a class of HFSC keeps: its promise, its share, and which of its children are active.

use super::Curves;
use crate::{
    curve::{BYTE, Curve, Runtime},
    tournament::{ABSENT, Tournament},
};

/// How far behind its upper limit a class may catch up, in nanoseconds.
const LAG: u64 = 10_000_000;

/// What a leaf was promised.
pub(super) struct Realtime {
    pub(super) deadline: Runtime,
    /// A convex curve's packets are eligible from the start at its second rate, so that it keeps up later.
    pub(super) eligible: Option<Runtime>,
    pub(super) cumul: i128,
    /// The next packet's deadline.
    pub(super) due: u64,
}

/// A class's part in link-sharing.
pub(super) struct Share {
    pub(super) virtual_curve: Runtime,
    pub(super) upper: Option<Runtime>,
    /// Service of all kinds.
    pub(super) total: i128,
    pub(super) vt: u64,
    /// By how much it is ahead of its curve, because it was passed over while it did not fit.
    pub(super) vt_ahead: u64,
    /// The parent's backlog period in which it was last active.
    pub(super) period: u64,
    /// Its own fit time, and by how much that was moved.
    pub(super) own_fit: u64,
    pub(super) fit_moved: u64,
    /// That, or the least of its children's.
    pub(super) fit: u64,
}

/// The children of a class that are active.
pub(super) struct Children {
    /// By place: the class.
    pub(super) members: Box<[u32]>,
    /// Those that fit, by virtual time.
    pub(super) fit: Tournament,
    /// Those that do not, by fit time.
    pub(super) unfit: Tournament,
    /// All, the greatest virtual time first.
    pub(super) greatest: Tournament,
    /// The virtual time of the last one served; 0 before the first.
    pub(super) least: u64,
    /// The greatest virtual time of one that left.
    pub(super) left: u64,
    pub(super) period: u64,
    pub(super) active: u32,
}

impl Children {
    pub(super) fn new(members: Box<[u32]>) -> Children {
        let n = members.len();
        Children {
            members,
            fit: Tournament::new(n),
            unfit: Tournament::new(n),
            greatest: Tournament::new(n),
            least: 0,
            left: 1,
            period: 0,
            active: 0,
        }
    }

    /// When the first of them fits: 0 if one does.
    pub(super) fn fit_at(&self) -> u64 {
        if self.fit.least() == ABSENT { self.unfit.least() } else { 0 }
    }

    pub(super) fn remove(&mut self, place: usize) {
        self.fit.set(place, ABSENT);
        self.unfit.set(place, ABSENT);
        self.greatest.set(place, ABSENT);
    }

    pub(super) fn put(&mut self, place: usize, vt: u64, fit: u64, now: u64) {
        self.greatest.set(place, !vt);
        let (f, u) = if fit <= now { (vt, ABSENT) } else { (ABSENT, fit) };
        self.fit.set(place, f);
        self.unfit.set(place, u);
    }

    /// Where a child begins that was not active: `vt` is where it stood, in `period`.
    pub(super) fn entry_point(&mut self, vt: u64, period: u64) -> u64 {
        let greatest = self.greatest.least();
        if greatest == ABSENT {
            // A new backlog period begins after everything that was.
            self.least = 0;
            self.period += 1;
            return self.left;
        }
        let greatest = !greatest;
        let mean = if self.least == 0 { greatest } else { self.least.midpoint(greatest) };
        if period == self.period { mean.max(vt) } else { mean }
    }
}

impl Realtime {
    pub(super) fn new(curve: Curve) -> Realtime {
        Realtime {
            deadline: Runtime::new(curve, 0, 0),
            eligible: curve.is_convex().then(|| Runtime::new(Curve::linear(curve.m2), 0, 0)),
            cumul: 0,
            due: 0,
        }
    }

    pub(super) fn again(&mut self, now: u64) {
        let replaced = self.deadline.again(now, self.cumul);
        if let Some(eligible) = self.eligible.as_mut().filter(|_| replaced) {
            *eligible = eligible.restarted(now, self.cumul);
        }
    }

    pub(super) fn eligible_at(&self) -> u64 {
        self.eligible.as_ref().unwrap_or(&self.deadline).time(self.cumul)
    }

    pub(super) fn set_due(&mut self, cost: u32) {
        self.due = self.deadline.time(self.cumul + i128::from(cost) * BYTE);
    }
}

impl Share {
    pub(super) fn new(curves: &Curves) -> Option<Share> {
        (!curves.linkshare.is_zero()).then(|| Share {
            virtual_curve: Runtime::new(curves.linkshare, 0, 0),
            upper: (!curves.upperlimit.is_zero()).then(|| Runtime::new(curves.upperlimit, 0, 0)),
            total: 0,
            vt: 0,
            vt_ahead: 0,
            period: 0,
            own_fit: 0,
            fit_moved: 0,
            fit: 0,
        })
    }

    /// It becomes active at this virtual time.
    pub(super) fn again(&mut self, vt: u64, now: u64) {
        self.vt = vt;
        self.vt_ahead = 0;
        self.virtual_curve.again(vt, self.total);
        if let Some(upper) = &mut self.upper {
            upper.again(now - self.fit_moved.min(now), self.total);
            self.own_fit = upper.time(self.total).saturating_add(self.fit_moved);
        }
    }

    /// Its service has grown, and the siblings have come to `least`.
    pub(super) fn advance(&mut self, least: u64) {
        self.vt = self.virtual_curve.time(self.total).saturating_add(self.vt_ahead);
        if self.vt < least {
            self.vt_ahead += least - self.vt;
            self.vt = least;
        }
    }

    pub(super) fn set_own_fit(&mut self, now: u64) {
        let Some(upper) = &self.upper else { return };
        self.own_fit = upper.time(self.total).saturating_add(self.fit_moved);
        let behind = now.saturating_sub(self.own_fit.saturating_add(LAG));
        self.fit_moved += behind;
        self.own_fit += behind;
    }
}
