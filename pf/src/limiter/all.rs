//! All limiters, by number, and what is counted of them.

use std::{
    net::IpAddr,
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
};

use kern::{
    Why,
    counter::Counter,
    lock::{Held, Leaf, levels::PfRules},
};

use super::{
    Full, Limited, Limiter,
    by_source::{self, SourceLimiter},
    by_state::StateLimiter,
    tables::{Report, Reports, TableChange},
};
use crate::{
    addr::{Family, Prefix},
    rule::LimiterRef,
};

/// Numbers of limiters; 0 is none.
const IDS: usize = 256;

/// What a state holds: a share of these limiters, 0 for none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Share {
    pub(crate) state: u8,
    pub(crate) source: u8,
    /// Leading bits of the source that it counts at: those may be others by now.
    pub(crate) mask: u8,
}

impl Share {
    pub(crate) const NONE: Share = Share { state: 0, source: 0, mask: 0 };

    /// What it has of a source limiter alone.
    pub(crate) fn of_source(self) -> Share {
        Share { state: 0, ..self }
    }

    /// The source that it counts at, of a state with this source address.
    pub(crate) fn counts_at(self, (family, address): (Family, u128)) -> Prefix {
        Prefix::new(family.address(address), self.mask)
    }
}

/// What one worker counts of one limiter.
#[derive(Debug, Default)]
struct Counts {
    admitted: Counter,
    /// By kind: limit, rate, entries.
    refused: [Counter; 3],
}

impl Counts {
    fn all(&self) -> [u64; 4] {
        [&self.admitted, &self.refused[0], &self.refused[1], &self.refused[2]].map(Counter::get)
    }
}

/// A limiter of either kind, with what is counted of it.
#[derive(Debug)]
pub(super) struct Place<T> {
    pub(super) limiter: T,
    workers: Box<[Counts]>,
    /// What had been counted when it was last defined anew.
    before: Leaf<[u64; 4]>,
}

impl<T> Place<T> {
    fn new(limiter: T, workers: usize) -> Place<T> {
        let counts = (0..workers).map(|_| Counts::default()).collect();
        Place { limiter, workers: counts, before: Leaf::new([0; 4]) }
    }

    /// All that has been counted.
    fn counted(&self) -> [u64; 4] {
        let mut sum = [0; 4];
        for counts in &self.workers {
            for (sum, n) in sum.iter_mut().zip(counts.all()) {
                *sum += n;
            }
        }
        sum
    }

    /// What has been counted since the limiter is there: shares taken; refusals by limit, rate, entries.
    pub(super) fn since(&self) -> [u64; 4] {
        let (counted, before) = (self.counted(), self.before.with(|before| *before));
        std::array::from_fn(|i| counted[i].wrapping_sub(before[i]))
    }

    /// Lets what is counted begin at 0 if the limiter is new.
    fn begin(&self, is_new: bool) {
        if is_new {
            let counted = self.counted();
            self.before.with(|before| *before = counted);
        }
    }

    /// Counts what came of a look; whoever only asks is no worker and counts nothing.
    fn refuse(&self, worker: usize, full: Full) {
        if let Some(counts) = self.workers.get(worker) {
            counts.refused[full as usize].inc();
        }
    }

    fn admit(&self, worker: usize) {
        if let Some(counts) = self.workers.get(worker) {
            counts.admitted.inc();
        }
    }
}

/// All limiters.
#[derive(Debug)]
pub(crate) struct Limiters {
    by_state: Box<[OnceLock<Place<StateLimiter>>]>,
    by_source: Box<[OnceLock<Place<SourceLimiter>>]>,
    workers: usize,
    /// Those that the ruleset in force defines.
    pub(super) defined: Leaf<Vec<Limiter>>,
    reports: Reports,
    /// Row that the purge looks at next.
    at: AtomicU32,
}

impl Limiters {
    pub(crate) fn new(workers: usize) -> Limiters {
        Limiters {
            by_state: (0..IDS).map(|_| OnceLock::new()).collect(),
            by_source: (0..IDS).map(|_| OnceLock::new()).collect(),
            workers,
            defined: Leaf::new(Vec::new()),
            reports: Reports::new(),
            at: AtomicU32::new(0),
        }
    }

    pub(super) fn state(&self, id: u8) -> Option<&Place<StateLimiter>> {
        self.by_state.get(usize::from(id))?.get()
    }

    pub(super) fn source(&self, id: u8) -> Option<&Place<SourceLimiter>> {
        self.by_source.get(usize::from(id))?.get()
    }

    /// Puts the limiters of a ruleset into force; for the control thread. States there are keep their shares. Those that it
    /// does not define stay open until they are [closed](Self::close_undefined), but the sources that they have put into
    /// tables leave these: what is to be done about that, in order.
    pub(crate) fn set(&self, held: &mut Held<'_, PfRules>, limiters: &[Limiter]) -> Vec<TableChange> {
        let old = self.defined.with(|defined| defined.clone());
        let has_its_table = |o: &Limiter| limiters.iter().any(|l| l.is_same(o) && l.has_same_table(o));
        let leave = old.iter().filter(|o| o.by_source && !has_its_table(o));
        let left = leave.flat_map(|o| self.leave_table(held, o)).collect();
        self.defined.with(|defined| *defined = limiters.to_vec());
        for limiter in limiters {
            let id = usize::from(limiter.id);
            let is_new = !old.iter().any(|o| o.is_same(limiter));
            if limiter.by_source {
                let place = self.by_source[id].get_or_init(|| Place::new(SourceLimiter::new(), self.workers));
                place.limiter.set(limiter);
                place.begin(is_new);
            } else {
                let place =
                    self.by_state[id].get_or_init(|| Place::new(StateLimiter::default(), self.workers));
                place.limiter.set(limiter);
                place.begin(is_new);
            }
        }
        left
    }

    /// Takes the sources of a limiter out of the table that it has had, all but those that were to stay there for good.
    fn leave_table(&self, held: &mut Held<'_, PfRules>, limiter: &Limiter) -> Vec<TableChange> {
        let (Some(place), Some(table)) = (self.source(limiter.id), &limiter.table) else { return Vec::new() };
        let left = place.limiter.leave_table(held);
        // Nobody reports of this limiter any more.
        let mut reports = self.reports.take_of(limiter.id);
        if table.below != 0 {
            reports.extend(left.into_iter().map(|prefix| Report { id: limiter.id, prefix, add: false }));
        }
        reports.into_iter().map(|report| TableChange::of(report, &table.name, false)).collect()
    }

    /// Closes what no ruleset defines any more.
    pub(crate) fn close_undefined(&self) {
        let all = self.defined.with(|defined| defined.clone());
        let is_defined =
            |by_source, id| all.iter().any(|l| l.by_source == by_source && usize::from(l.id) == id);
        for (id, place) in self.by_state.iter().enumerate() {
            if let Some(place) = place.get().filter(|_| !is_defined(false, id)) {
                place.limiter.close();
            }
        }
        for (id, place) in self.by_source.iter().enumerate() {
            if let Some(place) = place.get().filter(|_| !is_defined(true, id)) {
                place.limiter.close();
            }
        }
    }

    /// Which of these cannot be put into force: one whose sources are counted, or put into a table, in another way now.
    pub(crate) fn conflict<'l>(&self, limiters: &'l [Limiter]) -> Option<&'l Limiter> {
        let busy =
            |l: &&Limiter| l.by_source && self.source(l.id).is_some_and(|place| place.limiter.sources() != 0);
        let differs = |l: &&Limiter| {
            // A limiter that is defined no more still counts the sources it has by its masks.
            self.source(l.id).is_some_and(|place| place.limiter.masks() != by_source::masks(l))
                || self.defined.with(|defined| {
                    let old = defined.iter().find(|o| o.by_source && o.id == l.id);
                    old.is_some_and(|old| !old.has_same_table(l))
                })
        };
        limiters.iter().filter(busy).find(differs)
    }

    /// Whether the limiters of a rule have room for a state of this source at `now`, in nanoseconds of the clock. A limiter
    /// that is not defined has none.
    pub(crate) fn look(
        &self,
        held: &mut Held<'_, PfRules>,
        worker: usize,
        limited: Limited,
        (family, address): (Family, u128),
        now: u64,
    ) -> Result<(), (LimiterRef, Why)> {
        if let Some(by) = limited.state {
            let place = self.state(by.id).ok_or((by, Why::PfStateLimit))?;
            place.limiter.look(now).map_err(|full| {
                place.refuse(worker, full);
                (by, Why::PfStateLimit)
            })?;
        }
        if let Some(by) = limited.source {
            let place = self.source(by.id).ok_or((by, Why::PfSrcLimit))?;
            place.limiter.look(held, family, address, now).map_err(|full| {
                place.refuse(worker, full);
                (by, Why::PfSrcLimit)
            })?;
        }
        Ok(())
    }

    /// Takes a share of all limiters of a rule, or of none.
    pub(crate) fn take(
        &self,
        held: &mut Held<'_, PfRules>,
        worker: usize,
        limited: Limited,
        source: (Family, u128),
        now: u64,
    ) -> Option<Share> {
        let mut share = Share::NONE;
        if let Some(by) = limited.state {
            if !self.state(by.id)?.limiter.take(now) {
                return None;
            }
            share.state = by.id;
        }
        if let Some(by) = limited.source {
            let mut report = |prefix, add| self.reports.tell(Report { id: by.id, prefix, add });
            let taken = self.source(by.id).and_then(|p| p.limiter.take(held, source, now, &mut report));
            let Some(counts_at) = taken else {
                self.leave(held, share, source);
                return None;
            };
            (share.source, share.mask) = (by.id, counts_at.length());
        }
        if let Some(place) = self.state(share.state) {
            place.admit(worker);
        }
        if let Some(place) = self.source(share.source) {
            place.admit(worker);
        }
        Some(share)
    }

    /// Gives a share back. What it took of a rate is spent.
    pub(crate) fn leave(&self, held: &mut Held<'_, PfRules>, share: Share, source: (Family, u128)) {
        if let Some(place) = self.state(share.state) {
            place.limiter.leave();
        }
        if let Some(place) = self.source(share.source) {
            let mut report = |prefix, add| self.reports.tell(Report { id: share.source, prefix, add });
            place.limiter.leave(held, share.counts_at(source), &mut report);
        }
    }

    /// Looks at some sources of each limiter; `now` is in nanoseconds of the clock.
    pub(crate) fn purge(&self, held: &mut Held<'_, PfRules>, now: u64) {
        let mut at = None;
        for (id, place) in self.by_source.iter().enumerate() {
            let Some(place) = place.get().filter(|place| place.limiter.sources() != 0) else { continue };
            let at = *at.get_or_insert_with(|| self.at.fetch_add(16, Relaxed));
            let mut report = |prefix, add| self.reports.tell(Report { id: id as u8, prefix, add });
            place.limiter.purge(held, at, now, &mut report);
        }
    }

    /// What is to be done about tables, in order; for the control thread. `now` is in seconds.
    pub(crate) fn reported(&self, now: u64) -> Vec<TableChange> {
        let (heard, owed) = (self.reports.take(), self.reports.take_owed(now));
        let all = owed.into_iter().map(|r| (r, true)).chain(heard.into_iter().map(|r| (r, false)));
        let change = |(report, again): (Report, bool)| {
            self.defined.with(|defined| {
                let limiter = defined.iter().find(|l| l.by_source && l.id == report.id)?;
                Some(TableChange::of(report, &limiter.table.as_ref()?.name, again))
            })
        };
        all.filter_map(change).collect()
    }

    /// A source could not be put into its table.
    pub(crate) fn owe(&self, change: &TableChange) {
        let &TableChange { id, prefix, add, .. } = change;
        self.reports.owe(Report { id, prefix, add });
    }

    /// Forgets the source of an address that has no states left; says whether there was one.
    pub(crate) fn forget(&self, held: &mut Held<'_, PfRules>, id: u8, source: IpAddr) -> bool {
        self.source(id).is_some_and(|place| place.limiter.forget(held, source))
    }
}
