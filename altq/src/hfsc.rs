//! HFSC: hierarchical fair service curves (Stoica, Zhang and Ng 1997, `altq_hfsc.c`).
//!
//! | curve | of | says | kept as |
//! |---|---|---|---|
//! | real-time | leaves | what a class gets whatever the others do, so by when each packet leaves | eligible time and deadline |
//! | link-share | all | how siblings share what is left | virtual time |
//! | upper limit | all | what a class never gets more of | fit time |
//!
//! ```text
//!   dequeue:  a leaf is eligible ──yes──▶ the one with the least deadline       counts for both curves
//!                   │ no
//!                   ▼
//!             from the root down, the child with the least virtual time of those that fit   counts for link-share only
//! ```
//!
//! BSD walks a list to find the least deadline of those eligible, and the least virtual time of those that fit. Here
//! each question is two tournaments, one of those whose time has come and one of those whose has not; the clock only
//! moves classes from the second to the first, so all is O(log n). Curves are exact, see `curve.rs`.
//!
//! A class that joins its active siblings starts at the mean of their least and greatest virtual time. A class that
//! lags behind its upper limit because others were served may catch up by 10 ms and no more.

use crate::{
    curve::{BYTE, Curve},
    discipline::{ClassId, Discipline, Entry, Refused, Victims, purge_queue},
    queue::{ClassQueue, Counters},
    tournament::{ABSENT, Tournament},
};
use kern::time::Instant;

mod class;
#[cfg(test)]
mod tests;

use class::{Children, Realtime, Share};

/// The parent of the root.
const NOBODY: u32 = u32::MAX;

/// The curves of a class; zero is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Curves {
    /// Real-time.
    pub realtime: Curve,
    /// Link-share.
    pub linkshare: Curve,
    /// Upper limit.
    pub upperlimit: Curve,
}

/// A class as it is built.
pub(crate) struct HfscClass {
    /// Its parent, which comes before it; none for the root, which comes first.
    pub(crate) parent: Option<usize>,
    pub(crate) curves: Curves,
    pub(crate) queue: ClassQueue,
}

struct Node {
    parent: u32,
    /// Its place among its siblings.
    place: u32,
    realtime: Option<Realtime>,
    share: Option<Share>,
    children: Option<Children>,
}

/// The tree.
pub struct Hfsc {
    nodes: Vec<Node>,
    queues: Vec<ClassQueue>,
    /// Leaves whose packets are eligible, by deadline.
    eligible: Tournament,
    /// Leaves whose are not yet, by the time they will be.
    waiting: Tournament,
}

impl Hfsc {
    /// A tree of idle classes.
    pub(crate) fn new(classes: Vec<HfscClass>) -> Hfsc {
        let mut members = vec![Vec::new(); classes.len()];
        let (mut nodes, mut queues) = (Vec::new(), Vec::new());
        for (i, class) in classes.into_iter().enumerate() {
            let place = class.parent.map_or(0, |p| {
                members[p].push(i as u32);
                members[p].len() - 1
            });
            let realtime = class.curves.realtime;
            nodes.push(Node {
                parent: class.parent.map_or(NOBODY, |p| p as u32),
                place: place as u32,
                realtime: (!realtime.is_zero()).then(|| Realtime::new(realtime)),
                share: Share::new(&class.curves),
                children: None,
            });
            queues.push(class.queue);
        }
        for (node, members) in nodes.iter_mut().zip(members) {
            node.children = (!members.is_empty()).then(|| Children::new(members.into()));
        }
        let n = nodes.len();
        Hfsc { nodes, queues, eligible: Tournament::new(n), waiting: Tournament::new(n) }
    }

    /// A leaf has its first packet.
    fn activate(&mut self, leaf: usize, now: u64) {
        if let Some(realtime) = &mut self.nodes[leaf].realtime {
            realtime.again(now);
            self.set_realtime(leaf, now);
        }
        if self.nodes[leaf].share.is_some() {
            self.join(leaf, now);
        }
    }

    /// A leaf's next packet has an eligible time and a deadline.
    fn set_realtime(&mut self, leaf: usize, now: u64) {
        let cost = self.queues[leaf].next_cost();
        let Some(realtime) = &mut self.nodes[leaf].realtime else { return };
        realtime.set_due(cost);
        let at = realtime.eligible_at();
        let (e, w) = if at <= now { (realtime.due, ABSENT) } else { (ABSENT, at) };
        self.eligible.set(leaf, e);
        self.waiting.set(leaf, w);
    }

    /// A leaf, and its ancestors as far as they were idle, become active.
    fn join(&mut self, leaf: usize, now: u64) {
        let (mut at, mut joins) = (leaf, true);
        while self.nodes[at].parent != NOBODY {
            let parent = self.nodes[at].parent as usize;
            if joins {
                self.enter(at, parent, now);
            }
            let siblings = self.nodes[parent].children.as_mut();
            // The parent joins with its first child.
            joins &= siblings.is_some_and(|s| {
                s.active += u32::from(joins);
                s.active == 1
            });
            self.place(at, parent, now);
            at = parent;
        }
    }

    /// A class joins its active siblings.
    fn enter(&mut self, at: usize, parent: usize, now: u64) {
        let (vt, period) = self.nodes[at].share.as_ref().map_or((0, 0), |s| (s.vt, s.period));
        let Some(siblings) = &mut self.nodes[parent].children else { return };
        let (vt, period) = (siblings.entry_point(vt, period), siblings.period);
        if let Some(share) = &mut self.nodes[at].share {
            share.period = period;
            share.again(vt, now);
        }
    }

    /// Puts an active class where it belongs among its siblings.
    fn place(&mut self, at: usize, parent: usize, now: u64) {
        let node = &mut self.nodes[at];
        let children = node.children.as_ref().map_or(0, Children::fit_at);
        let place = node.place as usize;
        let Some(share) = &mut node.share else { return };
        share.fit = share.own_fit.max(children);
        let (vt, fit) = (share.vt, share.fit);
        if let Some(siblings) = &mut self.nodes[parent].children {
            siblings.put(place, vt, fit, now);
        }
    }

    /// A leaf has been served: its ancestors' virtual times move, and those that have nothing left leave.
    fn charge(&mut self, leaf: usize, service: i128, now: u64) {
        let mut leaves = self.queues[leaf].is_empty() && self.nodes[leaf].share.is_some();
        let mut at = leaf;
        while self.nodes[at].parent != NOBODY {
            let parent = self.nodes[at].parent as usize;
            let least = self.nodes[parent].children.as_ref().map_or(0, |s| s.least);
            let node = &mut self.nodes[at];
            let idle = node.children.as_ref().is_some_and(|c| c.active == 0) && !leaves;
            if let Some(share) = &mut node.share {
                share.total += service;
                if !idle {
                    share.advance(least);
                    share.set_own_fit(now);
                }
            }
            let (place, vt) = (node.place as usize, node.share.as_ref().map_or(0, |s| s.vt));
            if leaves {
                leaves = self.nodes[parent].children.as_mut().is_some_and(|siblings| {
                    siblings.left = siblings.left.max(vt);
                    siblings.remove(place);
                    siblings.active -= 1;
                    siblings.active == 0
                });
            } else if !idle && self.nodes[at].share.is_some() {
                self.place(at, parent, now);
            }
            at = parent;
        }
    }

    /// The leaf that sends next and whether by its real-time curve.
    fn choose(&mut self, now: u64) -> Option<(usize, bool)> {
        while self.waiting.least() <= now {
            let leaf = self.waiting.winner()?;
            self.waiting.set(leaf, ABSENT);
            self.eligible.set(leaf, self.nodes[leaf].realtime.as_ref()?.due);
        }
        match self.eligible.winner() {
            Some(leaf) => Some((leaf, true)),
            None => self.descend(now).map(|leaf| (leaf, false)),
        }
    }

    /// By link-sharing: from the root down, the least virtual time of those that fit.
    fn descend(&mut self, now: u64) -> Option<usize> {
        let mut at = 0;
        while let Some(children) = &mut self.nodes[at].children {
            while children.unfit.least() <= now {
                let place = children.unfit.winner()?;
                children.unfit.set(place, ABSENT);
                children.fit.set(place, !children.greatest.key(place));
            }
            let place = children.fit.winner()?;
            children.least = children.least.max(children.fit.least());
            at = children.members[place] as usize;
        }
        Some(at)
    }

    /// What follows for the tree after a leaf's queue gave a packet of so much service, or gave none and is empty.
    fn settle(&mut self, leaf: usize, cost: u32, realtime: bool, now: u64) {
        let service = i128::from(cost) * BYTE;
        self.charge(leaf, service, now);
        let empty = self.queues[leaf].is_empty();
        let next = self.queues[leaf].next_cost();
        let Some(promise) = &mut self.nodes[leaf].realtime else { return };
        if empty {
            promise.cumul += if realtime { service } else { 0 };
            self.eligible.set(leaf, ABSENT);
            self.waiting.set(leaf, ABSENT);
        } else if realtime {
            promise.cumul += service;
            self.set_realtime(leaf, now);
        } else {
            // Nobody was eligible, so this leaf waits; its next packet may be of another length.
            promise.set_due(next);
        }
    }
}

impl Discipline for Hfsc {
    #[inline]
    fn enqueue(&mut self, entry: Entry, class: ClassId, now: Instant) -> Result<(), Refused> {
        let leaf = usize::from(class.0);
        let queue = &mut self.queues[leaf];
        let idle = queue.is_empty();
        let taken = queue.push(entry, now);
        if idle && !queue.is_empty() {
            self.activate(leaf, now.nanos());
        }
        taken
    }

    #[inline]
    fn dequeue(&mut self, now: Instant, victims: &mut Victims) -> Option<Entry> {
        loop {
            let (leaf, realtime) = self.choose(now.nanos())?;
            let entry = self.queues[leaf].pop(now, victims);
            let cost = entry.as_ref().map_or(0, |e| e.cost);
            self.settle(leaf, cost, realtime, now.nanos());
            if entry.is_some() {
                return entry;
            }
        }
    }

    #[inline]
    fn ready_at(&self, now: Instant) -> Option<Instant> {
        if self.eligible.least() != ABSENT {
            return Some(now);
        }
        let fit = self.nodes[0].children.as_ref().map_or(ABSENT, Children::fit_at);
        let at = fit.min(self.waiting.least());
        (at != ABSENT).then(|| Instant::from_nanos(at))
    }

    fn purge(&mut self, take: &mut impl FnMut(ClassId, Entry)) {
        for leaf in 0..self.queues.len() {
            if !self.queues[leaf].is_empty() {
                purge_queue(ClassId(leaf as u16), &mut self.queues[leaf], take);
                self.settle(leaf, 0, false, 0);
            }
        }
    }

    fn counters(&self, class: ClassId) -> Counters {
        self.queues[usize::from(class.0)].counters()
    }
}
