//! Timers (BSD: callout): one hierarchical wheel a worker.
//!
//! A callout carries a small key, never a function: [`Callouts::pop`] hands the key back when its time has come and
//! the caller decides what that means. So nothing is called under a lock, and a key may be looked up and found stale.
//!
//! ```text
//!   level 0   64 slots of 1 tick          a callout stands at the level of the highest bit in which
//!   level 1   64 slots of 64 ticks        its tick differs from the wheel's own; when the wheel comes
//!   ...                                   to a slot of level n > 0, what is in it is sorted again into
//!   level 10  16 slots of 2^60 ticks      the levels below ("cascade"), one callout at a time
//! ```
//!
//! Arm, cancel and fire are O(1) (each callout cascades at most once a level). Callouts sit in a slab with 32-bit
//! links; it is allocated at the start and grows only when more are armed than ever before. A [`Handle`] carries the
//! generation of its slab entry, so cancelling what has fired is harmless.
//!
//! A callout fires never early and less than one tick (plus the caller's loop) late. Within a tick the order is
//! undefined. The wheel does not read the clock.
//!
//! After the timing wheels of Varghese and Lauck (1987) that BSD's callout(9) uses.

use crate::time::{Duration, Instant, nanos_of};

/// Slots of a level, as a power of two.
const LEVEL_BITS: u32 = 6;
const SLOTS: usize = 1 << LEVEL_BITS;
/// Enough for every tick of 64 bits.
const LEVELS: usize = u64::BITS.div_ceil(LEVEL_BITS) as usize;
/// Two more lists after those of the slots: what has come due, and what waits to be sorted into lower levels.
const DUE: u16 = (LEVELS * SLOTS) as u16;
const CASCADE: u16 = DUE + 1;
/// An entry on no list.
const FREE: u16 = DUE + 2;
/// No entry.
const NIL: u32 = u32::MAX;

/// An armed callout, to cancel it by. One that has fired or was cancelled stays recognisable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Handle {
    index: u32,
    generation: u32,
}

impl Handle {
    /// A handle of no callout: cancelling it does nothing.
    pub const NONE: Handle = Handle { index: NIL, generation: 0 };
}

impl Default for Handle {
    fn default() -> Handle {
        Handle::NONE
    }
}

#[derive(Clone, Copy, Debug)]
struct Entry<K> {
    /// Absent while the entry is free.
    key: Option<K>,
    tick: u64,
    generation: u32,
    /// Neighbours on the list; `next` of a free entry is the next free one.
    next: u32,
    prev: u32,
    /// Which list: a slot, DUE, CASCADE or FREE.
    list: u16,
}

/// A list of entries by their ends.
#[derive(Clone, Copy, Debug)]
struct List {
    head: u32,
    tail: u32,
}

const EMPTY: List = List { head: NIL, tail: NIL };

/// The callouts of one worker.
#[derive(Debug)]
pub struct Callouts<K> {
    entries: Vec<Entry<K>>,
    free: u32,
    armed: usize,
    /// The slots of all levels, then DUE and CASCADE.
    lists: Box<[List; LEVELS * SLOTS + 2]>,
    /// A bit for each slot that is not empty.
    occupied: [u64; LEVELS],
    /// The tick up to which everything has been moved to DUE.
    now: u64,
    /// No work before this tick; may be too early, never too late.
    earliest: u64,
    /// A tick is two to this power nanoseconds.
    tick_shift: u32,
}

impl<K: Copy> Callouts<K> {
    /// A wheel that starts at `now`, whose tick is `tick` rounded down to a power of two nanoseconds (1 ms becomes
    /// 0.52 ms), with room for `capacity` callouts before it has to grow.
    pub fn new(now: Instant, tick: Duration, capacity: usize) -> Callouts<K> {
        let tick_shift = nanos_of(tick).max(1).ilog2();
        Callouts {
            entries: Vec::with_capacity(capacity),
            free: NIL,
            armed: 0,
            lists: Box::new([EMPTY; LEVELS * SLOTS + 2]),
            occupied: [0; LEVELS],
            now: now.nanos() >> tick_shift,
            earliest: u64::MAX,
            tick_shift,
        }
    }

    /// Arms a callout. One whose time is past fires at the next [`pop`](Self::pop).
    pub fn arm(&mut self, at: Instant, key: K) -> Handle {
        // Up to the next whole tick: never early.
        let part = at.nanos() & ((1 << self.tick_shift) - 1);
        let tick = (at.nanos() >> self.tick_shift) + u64::from(part != 0);
        let index = self.take_entry(key, tick);
        self.place(index);
        self.armed += 1;
        self.earliest = self.earliest.min(tick);
        Handle { index, generation: self.entries[index as usize].generation }
    }

    /// Cancels a callout and gives its key back; nothing if it has fired or was cancelled before.
    pub fn cancel(&mut self, handle: Handle) -> Option<K> {
        let entry = self.entries.get(handle.index as usize)?;
        if entry.generation != handle.generation || entry.list == FREE {
            return None;
        }
        self.unlink(handle.index);
        self.release(handle.index)
    }

    /// Whether a callout is still to fire.
    pub fn is_armed(&self, handle: Handle) -> bool {
        self.entries
            .get(handle.index as usize)
            .is_some_and(|entry| entry.generation == handle.generation && entry.list != FREE)
    }

    /// Cancels `handle` and arms `key` at another time.
    pub fn rearm(&mut self, handle: Handle, at: Instant, key: K) -> Handle {
        self.cancel(handle);
        self.arm(at, key)
    }

    /// Whether [`pop`](Self::pop) may have something to do at `now`: one comparison, for the worker's loop.
    #[inline(always)]
    pub fn is_due(&self, now: Instant) -> bool {
        now.nanos() >> self.tick_shift >= self.earliest
    }

    /// The key of a callout whose time has come, if there is one. Between two calls others may be armed and cancelled.
    pub fn pop(&mut self, now: Instant) -> Option<K> {
        loop {
            match self.step(now) {
                Step::Fired(key) => return Some(key),
                Step::Worked => {}
                Step::Idle => return None,
            }
        }
    }

    /// Gives the keys that have come due to `fire`, and stops after `limit` steps: a callout fired or sorted is one
    /// step, so the time this takes is bounded even when a full slot cascades. True if there may be more to do now.
    pub fn expire(&mut self, now: Instant, limit: usize, mut fire: impl FnMut(K)) -> bool {
        if !self.is_due(now) {
            return false;
        }
        for _ in 0..limit {
            match self.step(now) {
                Step::Fired(key) => fire(key),
                Step::Worked => {}
                Step::Idle => return false,
            }
        }
        true
    }

    /// When [`pop`](Self::pop) will next have something to do: at or before the time the next callout fires (the
    /// wheel may want to sort first), never after.
    pub fn next_deadline(&self) -> Option<Instant> {
        (self.armed > 0).then(|| self.start_of(self.earliest))
    }

    /// How many callouts are armed.
    pub fn len(&self) -> usize {
        self.armed
    }

    /// Whether none is armed.
    pub fn is_empty(&self) -> bool {
        self.armed == 0
    }

    /// How long a tick is.
    pub fn tick(&self) -> Duration {
        Duration::from_nanos(1 << self.tick_shift)
    }

    /// The first instant of a tick, or the latest there is.
    fn start_of(&self, tick: u64) -> Instant {
        Instant::from_nanos(tick.saturating_mul(1 << self.tick_shift))
    }

    /// One thing done: a callout fired, one sorted, or the wheel turned to its next occupied slot.
    fn step(&mut self, now: Instant) -> Step<K> {
        let tick = now.nanos() >> self.tick_shift;
        let due = self.lists[DUE as usize].head;
        if due != NIL {
            self.unlink(due);
            return self.release(due).map_or(Step::Worked, Step::Fired);
        }
        let unsorted = self.lists[CASCADE as usize].head;
        if unsorted != NIL {
            self.unlink(unsorted);
            self.place(unsorted);
            return Step::Worked;
        }
        match self.next_slot() {
            Some(slot) if slot.starts <= tick => {
                self.now = slot.starts;
                self.earliest = slot.starts;
                self.empty_slot(slot);
                Step::Worked
            }
            next => {
                self.now = self.now.max(tick);
                self.earliest = next.map_or(u64::MAX, |slot| slot.starts);
                Step::Idle
            }
        }
    }

    /// The occupied slot that the wheel comes to next.
    ///
    /// All callouts of a level share the wheel's bits above that level, so a lower level is always earlier, and within
    /// a level the slots ahead are those with a higher number than the wheel's own.
    fn next_slot(&self) -> Option<Slot> {
        let level = self.occupied.iter().position(|&slots| slots != 0)?;
        let number = self.occupied[level].trailing_zeros() as usize;
        let shift = level as u32 * LEVEL_BITS;
        let above = u64::MAX.checked_shl(shift + LEVEL_BITS).unwrap_or(0);
        Some(Slot { level, number, starts: self.now & above | (number as u64) << shift })
    }

    /// Moves a whole slot: of level 0 to DUE, of another to CASCADE.
    fn empty_slot(&mut self, slot: Slot) {
        let to = if slot.level == 0 { DUE } else { CASCADE };
        let from = slot.level * SLOTS + slot.number;
        let mut index = self.lists[from].head;
        while index != NIL {
            let entry = &mut self.entries[index as usize];
            entry.list = to;
            index = entry.next;
        }
        // Both lists are empty here: `step` sees to them first.
        self.lists[to as usize] = std::mem::replace(&mut self.lists[from], EMPTY);
        self.occupied[slot.level] &= !(1 << slot.number);
    }

    /// Puts an entry on the list where its tick belongs.
    fn place(&mut self, index: u32) {
        let tick = self.entries[index as usize].tick;
        let list = if tick <= self.now { DUE } else { slot_of(self.now, tick) };
        let tail = std::mem::replace(&mut self.lists[list as usize].tail, index);
        let entry = &mut self.entries[index as usize];
        (entry.list, entry.prev, entry.next) = (list, tail, NIL);
        if tail == NIL {
            self.lists[list as usize].head = index;
        } else {
            self.entries[tail as usize].next = index;
        }
        if list < DUE {
            self.occupied[list as usize / SLOTS] |= 1 << (list as usize % SLOTS);
        }
    }

    /// Takes an entry off its list.
    fn unlink(&mut self, index: u32) {
        let Entry { list, prev, next, .. } = self.entries[index as usize];
        match prev {
            NIL => self.lists[list as usize].head = next,
            prev => self.entries[prev as usize].next = next,
        }
        match next {
            NIL => self.lists[list as usize].tail = prev,
            next => self.entries[next as usize].prev = prev,
        }
        if list < DUE && self.lists[list as usize].head == NIL {
            self.occupied[list as usize / SLOTS] &= !(1 << (list as usize % SLOTS));
        }
    }

    fn take_entry(&mut self, key: K, tick: u64) -> u32 {
        if self.free == NIL {
            let index = self.entries.len() as u32;
            self.entries.push(Entry {
                key: Some(key),
                tick,
                generation: 0,
                next: NIL,
                prev: NIL,
                list: FREE,
            });
            return index;
        }
        let index = self.free;
        let entry = &mut self.entries[index as usize];
        self.free = entry.next;
        (entry.key, entry.tick) = (Some(key), tick);
        index
    }

    /// Gives an unlinked entry back; its handles are stale from now on.
    fn release(&mut self, index: u32) -> Option<K> {
        let entry = &mut self.entries[index as usize];
        entry.generation = entry.generation.wrapping_add(1);
        (entry.list, entry.next) = (FREE, self.free);
        self.free = index;
        self.armed -= 1;
        entry.key.take()
    }
}

/// What one step of the wheel did.
enum Step<K> {
    Fired(K),
    Worked,
    Idle,
}

/// An occupied slot and the tick it begins with.
#[derive(Clone, Copy)]
struct Slot {
    level: usize,
    number: usize,
    starts: u64,
}

/// The slot for `tick` when the wheel stands at `now`, which is earlier.
fn slot_of(now: u64, tick: u64) -> u16 {
    let level = (now ^ tick).ilog2() / LEVEL_BITS;
    let number = tick >> (level * LEVEL_BITS) & (SLOTS as u64 - 1);
    (level as usize * SLOTS + number as usize) as u16
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    const MS: u64 = 1 << 20;

    fn wheel() -> Callouts<u32> {
        Callouts::new(Instant::ZERO, Duration::from_nanos(MS), 4)
    }

    fn fired(callouts: &mut Callouts<u32>, now: u64) -> Vec<u32> {
        let mut keys: Vec<_> = std::iter::from_fn(|| callouts.pop(Instant::from_nanos(now))).collect();
        keys.sort_unstable();
        keys
    }

    #[test]
    fn a_callout_fires_once_not_early_and_within_a_tick() {
        let mut callouts = wheel();
        callouts.arm(Instant::from_nanos(5 * MS + 1), 1);
        assert_eq!(fired(&mut callouts, 5 * MS + 1), []);
        assert_eq!(fired(&mut callouts, 6 * MS - 1), []);
        assert_eq!(fired(&mut callouts, 6 * MS), [1]);
        assert_eq!(fired(&mut callouts, 7 * MS), []);
        assert!(callouts.is_empty() && callouts.next_deadline().is_none());
    }

    #[test]
    fn what_was_due_before_it_was_armed_fires_at_once() {
        let mut callouts = wheel();
        fired(&mut callouts, 100 * MS);
        callouts.arm(Instant::from_nanos(3 * MS), 1);
        assert!(callouts.is_due(Instant::from_nanos(100 * MS)));
        assert_eq!(fired(&mut callouts, 100 * MS), [1]);
    }

    #[test]
    fn a_cancelled_callout_does_not_fire_and_its_handle_is_stale_for_ever() {
        let mut callouts = wheel();
        let first = callouts.arm(Instant::from_nanos(MS), 1);
        assert!(callouts.is_armed(first));
        assert_eq!((callouts.cancel(first), callouts.cancel(first)), (Some(1), None));
        let second = callouts.arm(Instant::from_nanos(MS), 2);
        assert_eq!(callouts.cancel(first), None, "the entry is used again by another callout");
        assert!(callouts.is_armed(second) && !callouts.is_armed(first) && !callouts.is_armed(Handle::NONE));
        let third = callouts.rearm(second, Instant::from_nanos(9 * MS), 3);
        assert_eq!((fired(&mut callouts, 8 * MS), fired(&mut callouts, 9 * MS)), (vec![], vec![3]));
        assert_eq!(callouts.cancel(third), None);
        assert_eq!(callouts.cancel(Handle::default()), None);
    }

    #[test]
    fn a_far_callout_is_sorted_down_level_by_level_and_not_missed() {
        for nanos in [64 * MS, 65 * MS, 4096 * MS, 4097 * MS, (MS << 18) + MS, MS << 40, u64::MAX - MS] {
            let mut callouts = wheel();
            callouts.arm(Instant::from_nanos(nanos), 7);
            let mut steps = 0;
            while let Some(next) = callouts.next_deadline() {
                let before = fired(&mut callouts, next.nanos() - 1);
                assert_eq!(before, [], "{nanos}: early");
                if !fired(&mut callouts, next.nanos()).is_empty() {
                    assert!(next.nanos() >= nanos && next.nanos() - nanos < MS, "{nanos}: {next}");
                }
                steps += 1;
            }
            assert!(steps <= LEVELS, "{nanos}: {steps} wake-ups");
        }
    }

    #[test]
    fn the_end_of_time_never_comes() {
        let mut callouts = wheel();
        callouts.arm(Instant::NEVER, 1);
        assert_eq!(fired(&mut callouts, u64::MAX - MS), []);
        assert_eq!(callouts.len(), 1);
    }

    #[test]
    fn expire_stops_at_its_limit_and_goes_on_where_it_was() {
        let mut callouts = wheel();
        for key in 0..1000 {
            callouts.arm(Instant::from_nanos(100 * MS), key);
        }
        let (mut keys, mut calls) = (Vec::new(), 1);
        while callouts.expire(Instant::from_nanos(200 * MS), 64, |key| keys.push(key)) {
            assert!(callouts.next_deadline().unwrap() <= Instant::from_nanos(200 * MS));
            assert!(callouts.is_due(Instant::from_nanos(200 * MS)));
            calls += 1;
        }
        keys.sort_unstable();
        assert_eq!(keys, (0..1000).collect::<Vec<_>>());
        assert!(calls >= 2 * 1000 / 64, "sorting counts too: {calls}");
        assert!(!callouts.expire(Instant::from_nanos(201 * MS), 64, |_| ()));
    }

    #[test]
    fn a_wheel_within_its_capacity_does_not_allocate_again() {
        let mut callouts: Callouts<u32> = Callouts::new(Instant::ZERO, Duration::from_millis(1), 100);
        let capacity = callouts.entries.capacity();
        for round in 0..1000 {
            for key in 0..100 {
                callouts.arm(Instant::from_millis(round + u64::from(key)), key);
            }
            let mut left = 100;
            while callouts.pop(Instant::from_millis(round + 200)).is_some() {
                left -= 1;
            }
            assert_eq!(left, 0);
        }
        assert_eq!(callouts.entries.capacity(), capacity);
        assert_eq!(callouts.tick(), Duration::from_nanos(1 << 19));
    }

    #[derive(Clone, Debug)]
    enum Op {
        Arm(u64),
        Cancel(usize),
        /// Moves the clock on and fires with a limit.
        Advance(u64, usize),
    }

    fn spans() -> impl Strategy<Value = u64> {
        prop_oneof![0..3 * MS, 0..200 * MS, 0..10_000 * MS, 0..(MS << 30)]
    }

    fn ops() -> impl Strategy<Value = Vec<Op>> {
        let op = prop_oneof![
            4 => spans().prop_map(Op::Arm),
            1 => any::<usize>().prop_map(Op::Cancel),
            2 => (spans(), prop_oneof![1..8_usize, Just(usize::MAX)]).prop_map(|(by, limit)| Op::Advance(by, limit)),
        ];
        prop::collection::vec(op, 1..200)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(
            if std::env::var_os("SOFTNET_SOAK").is_some() { 20_000 } else { 300 }
        ))]

        /// The model: a map from key to the tick it may fire in.
        #[test]
        fn the_wheel_fires_what_a_sorted_map_would(start in spans(), ops in ops()) {
            let mut now = start;
            let mut callouts = Callouts::new(Instant::from_nanos(now), Duration::from_nanos(MS), 0);
            let mut model: BTreeMap<u32, u64> = BTreeMap::new();
            let mut handles: Vec<(Handle, u32)> = Vec::new();
            for op in ops {
                match op {
                    Op::Arm(after) => {
                        let key = handles.len() as u32;
                        let at = now + after;
                        handles.push((callouts.arm(Instant::from_nanos(at), key), key));
                        model.insert(key, at.div_ceil(MS));
                    }
                    Op::Cancel(which) if !handles.is_empty() => {
                        let (handle, key) = handles[which % handles.len()];
                        prop_assert_eq!(callouts.is_armed(handle), model.contains_key(&key));
                        prop_assert_eq!(callouts.cancel(handle), model.remove(&key).map(|_| key));
                    }
                    Op::Cancel(_) => {}
                    Op::Advance(by, limit) => {
                        now += by;
                        let mut fired = Vec::new();
                        let more = callouts.expire(Instant::from_nanos(now), limit, |key| fired.push(key));
                        for key in fired {
                            let tick = model.remove(&key);
                            prop_assert!(tick.is_some_and(|tick| tick <= now / MS), "{key} at {tick:?}");
                        }
                        let left = model.values().filter(|&&tick| tick <= now / MS).count();
                        prop_assert!(more || left == 0, "{left} left");
                    }
                }
                prop_assert_eq!(callouts.len(), model.len());
                let first = model.values().min().map(|tick| Instant::from_nanos(tick * MS));
                match (callouts.next_deadline(), first) {
                    (Some(next), Some(first)) => prop_assert!(next <= first, "{next} after {first}"),
                    (next, first) => prop_assert_eq!(next, first),
                }
            }
        }
    }
}
