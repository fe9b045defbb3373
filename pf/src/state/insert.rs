//! States come and go: a slot is reserved, the keys are put in one by one, the state goes live; a dead one is taken out.

use std::sync::atomic::Ordering::Relaxed;

use kern::{
    Why,
    lock::{Held, levels::PfRules},
};
use wire::IpProto;

use super::{
    CACHED, Hit, Lookup, Passing, SlotCache, States,
    entry::{Phase, State, flag},
    key::{Hash, Key},
    other,
    table::{NEVER, Node},
    tcp,
};
use crate::{ruleset::Compiled, slab::RuleSlot, timeout::Timeout};

impl States {
    /// Makes the state of a packet that a rule has passed. `None`: another worker was faster, look again.
    pub(crate) fn insert(
        &self,
        held: &mut Held<'_, PfRules>,
        cache: &mut SlotCache,
        lookup: &Lookup,
        passing: &Passing,
        rule: &Compiled,
        tag: u16,
    ) -> Result<Option<Hit>, Why> {
        let slot = self.reserve(cache, rule.slot)?;
        let state = self.first(lookup.key, passing, rule, tag);
        let hit = self.go_live(held, slot, &state, self.seed.hash(&lookup.key));
        if hit.is_none() {
            self.give_back(cache, slot, rule.slot);
        }
        Ok(hit)
    }

    /// A slot, counted against the limit and the rule's maximum.
    pub(super) fn reserve(&self, cache: &mut SlotCache, rule: RuleSlot) -> Result<u32, Why> {
        if self.count.0.fetch_add(1, Relaxed) >= self.limit() {
            self.count.0.fetch_sub(1, Relaxed);
            return Err(Why::PfStateLimit);
        }
        if cache.slots.is_empty() {
            self.table.take_free(CACHED / 2, &mut cache.slots);
        }
        let slot = cache.slots.pop();
        match slot {
            Some(slot) if self.slab.state_made(rule) => Ok(slot),
            _ => {
                cache.slots.extend(slot);
                self.count.0.fetch_sub(1, Relaxed);
                Err(Why::PfStateLimit)
            }
        }
    }

    /// Undoes [`Self::reserve`].
    fn give_back(&self, cache: &mut SlotCache, slot: u32, rule: RuleSlot) {
        self.slab.state_gone(rule);
        self.count.0.fetch_sub(1, Relaxed);
        if cache.slots.is_full() {
            self.table.give_free(cache.slots.drain(..CACHED / 2));
        }
        cache.slots.push(slot);
    }

    pub(super) fn first(&self, key: Key, passing: &Passing, rule: &Compiled, tag: u16) -> State {
        let Passing { direction, index, p, data, now } = *passing;
        let keep = rule.keep;
        let set = |on: bool, flag: u8| if on { flag } else { 0 };
        let adaptive = self.slab.slot(rule.slot).is_some_and(|s| s.adaptive().is_some());
        let mut state = State {
            wire: key,
            stack: key,
            phase: Phase::Pending,
            direction,
            rule: rule.slot.0,
            tag,
            queue: rule.queue,
            low_delay_queue: rule.low_delay_queue,
            flags: set(keep.is_some_and(|k| k.sloppy), flag::SLOPPY)
                | set(keep.is_some_and(|k| k.bound), flag::BOUND)
                | set(rule.allow_opts, flag::ALLOW_OPTS)
                | set(adaptive, flag::ADAPTIVE),
            last: now,
            created: now,
            ifindex: index.0,
            id: self.next_id.fetch_add(1, Relaxed),
            ..State::FREE
        };
        if IpProto(p.proto) == IpProto::TCP {
            tcp::open(&mut state, p, data.get(usize::from(p.l4)..).unwrap_or(&[]));
        } else {
            other::open(&mut state, p);
        }
        state.count(direction, p.segments, p.bytes);
        state
    }

    /// Puts a state into its slot and into the table. `None` if one with such a key is there.
    pub(super) fn go_live(
        &self,
        held: &mut Held<'_, PfRules>,
        slot: u32,
        state: &State,
        hash: Hash,
    ) -> Option<Hit> {
        let place = self.table.slot(slot)?;
        let (wire, stack, two, bound) = (state.wire, state.stack, state.has(flag::TWO_KEYS), state.binding());
        let due = if state.has(flag::ADAPTIVE) {
            state.last.saturating_add(self.timeouts.get(Timeout::Interval))
        } else {
            state.last.saturating_add(self.seconds(RuleSlot(state.rule), state.class))
        };
        {
            let (mut own, _held) = held.lock(&place.state);
            let generation = own.generation.wrapping_add(1);
            *own = State { generation, ..state.clone() };
        }
        if !self.put(held, &wire, hash, Node::new(slot, 0), bound) {
            return None;
        }
        if two && !self.put(held, &stack, self.seed.hash(&stack), Node::new(slot, 1), bound) {
            self.take_out(held, hash, Node::new(slot, 0));
            return None;
        }
        let (mut own, _held) = held.lock(&place.state);
        own.phase = Phase::Live;
        if let Some(time) = self.table.due(slot) {
            time.store(due, Relaxed);
        }
        let mut hit = Hit::NONE;
        own.fill(slot, &mut hit);
        Some(hit)
    }

    /// Puts one key into its row, unless a state that is not dead has it.
    fn put(&self, held: &mut Held<'_, PfRules>, key: &Key, hash: Hash, node: Node, bound: u16) -> bool {
        let row = self.table.row(hash);
        let (mut overflow, mut held) = held.lock(&row.lock);
        for other in self.table.candidates(row, *overflow, hash.tag) {
            let Some(slot) = self.table.slot(other.slot()) else { continue };
            let (state, _held) = held.lock(&slot.state);
            let its = if other.is_stack() { &state.stack } else { &state.wire };
            if matches!(state.phase, Phase::Pending | Phase::Live) && its == key && state.binding() == bound {
                return false;
            }
        }
        self.table.put(row, &mut overflow, hash.tag, node);
        true
    }

    fn take_out(&self, held: &mut Held<'_, PfRules>, hash: Hash, node: Node) {
        let row = self.table.row(hash);
        let (mut overflow, _held) = held.lock(&row.lock);
        self.table.remove(row, &mut overflow, hash.tag, node);
    }

    /// Takes a dead state out of the table and frees its slot. Only who has ended it calls this.
    #[cold]
    pub(super) fn unlink(&self, held: &mut Held<'_, PfRules>, cache: &mut SlotCache, slot: u32) {
        let Some(place) = self.table.slot(slot) else { return };
        let (wire, stack, rule) = {
            let (state, _held) = held.lock(&place.state);
            (state.wire, state.has(flag::TWO_KEYS).then_some(state.stack), RuleSlot(state.rule))
        };
        self.take_out(held, self.seed.hash(&wire), Node::new(slot, 0));
        if let Some(stack) = &stack {
            self.take_out(held, self.seed.hash(stack), Node::new(slot, 1));
        }
        if let Some(due) = self.table.due(slot) {
            due.store(NEVER, Relaxed);
        }
        {
            let (mut state, _held) = held.lock(&place.state);
            state.phase = Phase::Free;
        }
        self.give_back(cache, slot, rule);
    }
}
