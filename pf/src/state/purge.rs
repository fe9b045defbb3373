//! Expiry: every slot is looked at once per `set timeout interval`, a few at a time, by whichever worker has time.
//!
//! A slot's due time says before when it need not be looked at; sixteen share a cache line, so that passing over live
//! states costs next to nothing. It may be too early, and then is put right; it is never too late, but for adaptive
//! timeouts: while these shorten lives, every state is asked.

use std::{
    net::IpAddr,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use kern::{
    lock::{Held, levels::PfRules},
    time::Instant,
};

use super::{
    SlotCache, States,
    entry::{Phase, flag},
    table::NEVER,
};
use crate::timeout::Timeout;

/// How far purging has come: slots looked at since the clock's zero, over all rounds.
#[derive(Debug, Default)]
pub(super) struct Pace {
    done: AtomicU64,
}

impl States {
    /// Looks at as many slots as are due by now, `budget` at most, and removes the states that have expired. Returns how
    /// many were removed.
    ///
    /// To be called every few milliseconds by every worker; they share the work.
    pub(crate) fn purge(
        &self,
        held: &mut Held<'_, PfRules>,
        cache: &mut SlotCache,
        now: Instant,
        budget: u32,
    ) -> u32 {
        let capacity = u64::from(self.table.capacity());
        let interval = u64::from(self.timeouts.get(Timeout::Interval).max(1)) * 1000;
        let target = u64::try_from(u128::from(now.millis()) * u128::from(capacity) / u128::from(interval));
        let target = target.unwrap_or(u64::MAX);
        self.nodes.purge(held, &self.slab, now.secs() as u32, self.timeouts.get(Timeout::SrcTrack));
        self.limiters.purge(held, now.nanos_since(Instant::default()));
        let done = self.purge.done.load(Relaxed);
        // After a pause one whole round is enough.
        let from = done.max(target.saturating_sub(capacity));
        let to = target.min(from.saturating_add(u64::from(budget)));
        if from >= to || self.purge.done.compare_exchange(done, to, Relaxed, Relaxed).is_err() {
            return 0;
        }
        if self.count() == 0 {
            return 0;
        }
        let mut removed = 0;
        let mut at = from;
        while at < to {
            let slot = (at % capacity) as u32;
            let n = (to - at).min(capacity - u64::from(slot)) as u32;
            let (seen, gone) = self.purge_slots(held, cache, slot, n, now.secs() as u32);
            at += u64::from(seen.max(1));
            removed += gone;
        }
        removed
    }

    /// Removes every state that `doomed` names; for the control thread (`pfctl -F states`, `-k`).
    pub(crate) fn remove_if(
        &self,
        held: &mut Held<'_, PfRules>,
        cache: &mut SlotCache,
        mut doomed: impl FnMut(&super::info::StateInfo) -> bool,
    ) -> u32 {
        let mut removed = 0;
        for slot in 0..self.table.capacity() {
            if self.table.due(slot).is_none_or(|due| due.load(Relaxed) == NEVER) {
                continue;
            }
            let Some(info) = self.info(held, slot, 0) else { continue };
            if doomed(&info) && self.end_if(held, cache, slot, |s| s.id(slot) == info.id) {
                removed += 1;
            }
        }
        removed
    }

    /// Takes a source's share of a limiter off its states, which go on; for the control thread. Says how many had one.
    pub(crate) fn forget_source(&self, held: &mut Held<'_, PfRules>, id: u8, source: IpAddr) -> u32 {
        let mut forgotten = 0;
        for slot in 0..self.table.capacity() {
            let Some(place) = self.table.slot(slot) else { continue };
            let had = {
                let (mut state, _held) = held.lock(&place.state);
                let (share, key) = (state.share, (state.source_family(), state.source()));
                let is =
                    state.phase == Phase::Live && share.source == id && share.counts_at(key).contains(source);
                if is {
                    state.share.source = 0;
                }
                is.then_some((share, key))
            };
            if let Some((share, key)) = had {
                self.limiters.leave(held, share.of_source(), key);
                forgotten += 1;
            }
        }
        forgotten
    }

    /// Looks at up to `n` slots of one chunk: how many, and how many states were removed.
    fn purge_slots(
        &self,
        held: &mut Held<'_, PfRules>,
        cache: &mut SlotCache,
        first: u32,
        n: u32,
        now: u32,
    ) -> (u32, u32) {
        let adaptive = self.timeouts.get(Timeout::AdaptiveEnd) != 0
            && self.count() > self.timeouts.get(Timeout::AdaptiveStart);
        let dues = self.table.due_from(first);
        let n = (n as usize).min(dues.len());
        let mut removed = 0;
        for (i, due) in dues.iter().take(n).enumerate() {
            let due = due.load(Relaxed);
            if due == NEVER || (due > now && !adaptive) {
                continue;
            }
            removed += u32::from(self.purge_slot(held, cache, first + i as u32, now));
        }
        (n as u32, removed)
    }

    #[cold]
    fn purge_slot(&self, held: &mut Held<'_, PfRules>, cache: &mut SlotCache, slot: u32, now: u32) -> bool {
        let interval = self.timeouts.get(Timeout::Interval);
        self.end_if(held, cache, slot, |state| {
            let expiry = self.expiry(state);
            let next = if state.has(flag::ADAPTIVE) { expiry.min(now + interval) } else { expiry };
            // Under the state's lock: a class that gets shorter after this lowers it again.
            if let Some(due) = self.table.due(slot).filter(|_| expiry > now) {
                due.store(next, Relaxed);
            }
            expiry <= now
        })
    }

    /// Ends and removes a live state if it is one of those.
    pub(super) fn end_if(
        &self,
        held: &mut Held<'_, PfRules>,
        cache: &mut SlotCache,
        slot: u32,
        ends: impl FnOnce(&super::State) -> bool,
    ) -> bool {
        let ended = self.mark_dead(held, slot, ends);
        if ended {
            self.unlink(held, cache, slot);
        }
        ended
    }

    /// Ends a live state if it is one of those; whoever has ended it takes it out of the table.
    pub(super) fn mark_dead(
        &self,
        held: &mut Held<'_, PfRules>,
        slot: u32,
        ends: impl FnOnce(&super::State) -> bool,
    ) -> bool {
        let Some(place) = self.table.slot(slot) else { return false };
        let (mut state, _held) = held.lock(&place.state);
        let ends = state.phase == Phase::Live && ends(&state);
        if ends {
            state.phase = Phase::Dead;
        }
        ends
    }
}
