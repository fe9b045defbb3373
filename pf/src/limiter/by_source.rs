//! A source limiter: so many states of each source, and so many sources. A source is an address, or with a mask all
//! addresses of a prefix; it is there while it has states, and until its bucket is full again.

use std::{
    net::IpAddr,
    sync::atomic::{AtomicU32, Ordering::Relaxed},
};

use kern::lock::{
    Held, SpinMutex,
    levels::{PfRules, PfSrcNodes},
};

use super::{Full, Limiter, bucket::Bucket};
use crate::addr::{Family, Prefix};

const ROWS: usize = 256;
/// `table` was not said.
const NEVER: u32 = u32::MAX;

/// The moving part of a source limiter.
#[derive(Debug)]
pub(super) struct SourceLimiter {
    limit: AtomicU32,
    entries: AtomicU32,
    bucket: Bucket,
    /// Leading bits that count, by family.
    masks: [AtomicU32; 2],
    /// A source with more states goes to the table, with fewer it leaves it.
    above: AtomicU32,
    below: AtomicU32,
    sources: AtomicU32,
    states: AtomicU32,
    rows: Box<[SpinMutex<PfSrcNodes, Vec<Source>>]>,
}

/// A source.
#[derive(Clone, Copy, Debug)]
pub(super) struct Source {
    pub(super) prefix: Prefix,
    pub(super) states: u32,
    pub(super) admitted: u64,
    pub(super) refused: [u64; 2],
    /// When its bucket is full again.
    full: u64,
    /// It was reported to be put into the table, and not since to be taken out.
    in_table: bool,
}

/// What is to be done about the table of a limiter: a source is to be in it or not.
pub(super) type Report<'a> = &'a mut dyn FnMut(Prefix, bool) -> bool;

/// Leading bits that count, by family.
pub(super) fn masks(limiter: &Limiter) -> [u32; 2] {
    [limiter.inet_mask.unwrap_or(32).into(), limiter.inet6_mask.unwrap_or(128).into()]
}

impl SourceLimiter {
    pub(super) fn new() -> SourceLimiter {
        SourceLimiter {
            limit: AtomicU32::new(0),
            entries: AtomicU32::new(0),
            bucket: Bucket::default(),
            masks: [AtomicU32::new(32), AtomicU32::new(128)],
            above: AtomicU32::new(NEVER),
            below: AtomicU32::new(0),
            sources: AtomicU32::new(0),
            states: AtomicU32::new(0),
            rows: (0..ROWS).map(|_| SpinMutex::new(Vec::new())).collect(),
        }
    }

    pub(super) fn set(&self, limiter: &Limiter) {
        self.limit.store(limiter.limit, Relaxed);
        self.entries.store(limiter.entries, Relaxed);
        self.bucket.set(limiter.rate);
        for (place, mask) in self.masks.iter().zip(masks(limiter)) {
            place.store(mask, Relaxed);
        }
        let table = limiter.table.as_ref();
        self.above.store(table.map_or(NEVER, |t| t.above), Relaxed);
        self.below.store(table.map_or(0, |t| t.below), Relaxed);
    }

    /// The masks by which the sources there are are counted.
    pub(super) fn masks(&self) -> [u32; 2] {
        self.masks.each_ref().map(|mask| mask.load(Relaxed))
    }

    /// It is defined no more: there is no room.
    pub(super) fn close(&self) {
        self.limit.store(0, Relaxed);
        self.entries.store(0, Relaxed);
    }

    /// Its sources leave the table: which these are. None comes into one until the limiter is [set](Self::set) anew.
    pub(super) fn leave_table(&self, held: &mut Held<'_, PfRules>) -> Vec<Prefix> {
        self.above.store(NEVER, Relaxed);
        let mut left = Vec::new();
        for row in &self.rows {
            let (mut row, _held) = held.lock(row);
            for source in row.iter_mut().filter(|source| source.in_table) {
                source.in_table = false;
                left.push(source.prefix);
            }
        }
        left
    }

    /// Forgets the source of an address that has no states left; says whether there was one, with states or without. If
    /// the masks changed just as it came, there are two.
    pub(super) fn forget(&self, held: &mut Held<'_, PfRules>, address: IpAddr) -> bool {
        let mut found = false;
        for row in &self.rows {
            let (mut row, _held) = held.lock(row);
            row.retain(|source| {
                let is = source.prefix.contains(address);
                found |= is;
                let goes = is && self.is_done_with(source);
                self.sources.fetch_sub(goes.into(), Relaxed);
                !goes
            });
        }
        found
    }

    pub(super) fn sources(&self) -> u32 {
        self.sources.load(Relaxed)
    }

    /// States that hold a share, of all sources.
    pub(super) fn states(&self) -> u32 {
        self.states.load(Relaxed)
    }

    /// The source that an address belongs to.
    fn prefix(&self, family: Family, address: u128) -> Prefix {
        let mask = match family {
            Family::Inet => self.masks[0].load(Relaxed),
            Family::Inet6 => self.masks[1].load(Relaxed),
        };
        Prefix::new(family.address(address), mask as u8)
    }

    fn row(&self, prefix: &Prefix) -> &SpinMutex<PfSrcNodes, Vec<Source>> {
        let first = prefix.range().0;
        let mixed = (first as u64 ^ (first >> 64) as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        &self.rows[(mixed >> 32) as usize % ROWS]
    }

    /// Whether there is room for a state of a source, at which a refusal is counted.
    pub(super) fn look(
        &self,
        held: &mut Held<'_, PfRules>,
        family: Family,
        address: u128,
        now: u64,
    ) -> Result<(), Full> {
        let prefix = self.prefix(family, address);
        let (mut row, _held) = held.lock(self.row(&prefix));
        match row.iter_mut().find(|s| s.prefix == prefix) {
            Some(source) => {
                let looked = self.room(source, now);
                match looked {
                    Err(Full::Rate) => source.refused[1] += 1,
                    Err(_) => source.refused[0] += 1,
                    Ok(_) => {}
                }
                looked.map(|_| ())
            }
            None if self.sources() >= self.entries.load(Relaxed) => Err(Full::Entries),
            None => Ok(()),
        }
    }

    /// When the bucket of a source is full again if a state of it takes a share.
    fn room(&self, source: &Source, now: u64) -> Result<u64, Full> {
        if source.states >= self.limit.load(Relaxed) {
            return Err(Full::Limit);
        }
        self.bucket.take(source.full, now).ok_or(Full::Rate)
    }

    /// Takes a share, if there still is room: of which source.
    pub(super) fn take(
        &self,
        held: &mut Held<'_, PfRules>,
        (family, address): (Family, u128),
        now: u64,
        report: Report<'_>,
    ) -> Option<Prefix> {
        let prefix = self.prefix(family, address);
        let (mut row, _held) = held.lock(self.row(&prefix));
        let at = row.iter().position(|s| s.prefix == prefix).or_else(|| {
            if self.sources.fetch_add(1, Relaxed) >= self.entries.load(Relaxed) {
                self.sources.fetch_sub(1, Relaxed);
                return None;
            }
            row.push(Source { prefix, states: 0, admitted: 0, refused: [0; 2], full: 0, in_table: false });
            Some(row.len() - 1)
        });
        let source = at.and_then(|at| row.get_mut(at))?;
        let full = self.room(source, now).ok()?;
        source.full = full;
        source.states += 1;
        source.admitted += 1;
        self.states.fetch_add(1, Relaxed);
        self.mind_table(source, report);
        Some(prefix)
    }

    /// Gives a share back.
    pub(super) fn leave(&self, held: &mut Held<'_, PfRules>, prefix: Prefix, report: Report<'_>) {
        let (mut row, _held) = held.lock(self.row(&prefix));
        let Some(at) = row.iter().position(|s| s.prefix == prefix) else { return };
        let Some(left) = row[at].states.checked_sub(1) else { return };
        row[at].states = left;
        self.states.fetch_sub(1, Relaxed);
        self.mind_table(&mut row[at], report);
        // Without a rate it is as if it had never been.
        if !self.bucket.is_bound() && self.is_done_with(&row[at]) {
            row.swap_remove(at);
            self.sources.fetch_sub(1, Relaxed);
        }
    }

    /// Reports a source that has come to belong into the table, or out of it. If that cannot be said now, the next one who
    /// looks says it.
    fn mind_table(&self, source: &mut Source, report: Report<'_>) {
        let wanted = if source.in_table {
            source.states >= self.below.load(Relaxed)
        } else {
            source.states > self.above.load(Relaxed)
        };
        if wanted != source.in_table && report(source.prefix, wanted) {
            source.in_table = wanted;
        }
    }

    /// Whether a source has no states and nothing to be said of it. One that stays in the table for good (no `below`) may
    /// be forgotten.
    fn is_done_with(&self, source: &Source) -> bool {
        source.states == 0 && !(source.in_table && self.below.load(Relaxed) != 0)
    }

    /// Looks at some rows, from `at` on, and forgets sources that are as if they had never been.
    pub(super) fn purge(&self, held: &mut Held<'_, PfRules>, at: u32, now: u64, report: Report<'_>) {
        const STEP: u32 = 16;
        if self.sources() == 0 {
            return;
        }
        for i in 0..STEP {
            let (mut row, _held) = held.lock(&self.rows[at.wrapping_add(i) as usize % ROWS]);
            row.retain_mut(|source| {
                self.mind_table(source, report);
                let stays = source.full > now || !self.is_done_with(source);
                if !stays {
                    self.sources.fetch_sub(1, Relaxed);
                }
                stays
            });
        }
    }

    /// All sources, by address.
    pub(super) fn dump(&self, held: &mut Held<'_, PfRules>) -> Vec<Source> {
        let mut all = Vec::new();
        for row in &self.rows {
            let (row, _held) = held.lock(row);
            all.extend(row.iter().copied());
        }
        all.sort_by_key(|s| (s.prefix.family(), s.prefix.range()));
        all
    }
}
