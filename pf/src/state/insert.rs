//! States come and go: a slot is reserved, the keys are put in one by one, the state goes live; a dead one is taken out.

use std::sync::atomic::Ordering::Relaxed;

use kern::{
    Why,
    lock::{Held, levels::PfRules},
};
use wire::IpProto;

use super::{
    CACHED, Hit, Lookup, Passing, SlotCache, States,
    cookie::Cookie,
    entry::{Phase, State, flag},
    key::{Hash, Key},
    other,
    proxy::{largest, segment_size},
    sctp,
    table::{NEVER, Node},
    tcp,
    timestamps::{Restamp, Timestamps},
};
use crate::{
    IfIndex,
    limiter::Share,
    rule::{Direction, SourceTrack, StateKind},
    ruleset::Compiled,
    slab::{RuleSlot, Slot},
    timeout::Timeout,
    track::{Limits, NodeKey},
};

/// What the rules say of a state that is to be made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Making<'a> {
    /// The rule that passes it.
    pub(crate) rule: &'a Compiled,
    /// The call in the main ruleset that led to it.
    pub(crate) anchor: RuleSlot,
    pub(crate) tag: u16,
    pub(crate) queue: u16,
    pub(crate) low_delay_queue: u16,
    pub(crate) allow_opts: bool,
    /// What the packet's key becomes.
    pub(crate) becomes: Key,
    /// The rule that says so.
    pub(crate) nat: RuleSlot,
    /// The address that its source is to keep.
    pub(crate) sticky: Option<u128>,
    /// Number of what its packets get besides; 0 is nothing.
    pub(crate) treatment: u32,
    /// The interface that it is bound to if its rule wants it bound; none if that cannot be known.
    pub(crate) binds: Option<IfIndex>,
    /// Its timestamps are looked at, if it has any.
    pub(crate) stamped: bool,
    /// Its client has answered this cookie.
    pub(crate) cookie: Option<Cookie>,
    /// What it has of limiters.
    pub(crate) share: Share,
    /// Its source is that of a mapping, which it has taken.
    pub(crate) mapped: bool,
}

/// What came of putting a state into the table.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Made {
    /// It decides from now on.
    Live(Hit),
    /// The same, and the router has answered in the server's place.
    Proxied,
    /// Another state has the packet's own key: another worker was faster.
    Raced,
    /// Another state has the key that the packet's becomes.
    Taken,
}

impl States {
    /// Makes the state of a packet that a rule has passed.
    pub(crate) fn insert(
        &self,
        held: &mut Held<'_, PfRules>,
        cache: &mut SlotCache,
        lookup: &Lookup,
        passing: &Passing,
        making: &Making,
    ) -> Result<Made, Why> {
        let state = self.first(lookup.key, passing, making);
        if let Err(why) = self.enter_nodes(held, &state, making) {
            self.leave_others(held, &state);
            return Err(why);
        }
        let slot = match self.reserve(cache, making.rule.slot) {
            Ok(slot) => slot,
            Err(why) => {
                state.nodes().for_each(|key| self.leave_node(held, &key, false));
                self.leave_others(held, &state);
                return Err(why);
            }
        };
        if state.has(flag::HALF_OPEN) {
            self.cookies.opened();
        }
        self.slab.state_made(making.nat);
        self.slab.state_made(making.anchor);
        let restamp = if state.has(flag::STAMPED) {
            self.begin_timestamps(slot, &state, passing)
        } else {
            Restamp::NONE
        };
        let mut made = self.go_live(held, slot, &state, self.seed.hash(&lookup.key));
        if let Made::Live(hit) = &mut made {
            hit.restamp = restamp;
        }
        if !matches!(made, Made::Live(_)) {
            self.give_back(held, cache, slot, &state);
        } else if state.src.level == tcp::level::PROXY_SRC {
            if making.cookie.is_none() {
                state.challenge(&mut cache.outbox);
            }
            return Ok(Made::Proxied);
        }
        Ok(made)
    }

    /// Begins with the timestamps of a connection, whose slot nobody else has yet.
    #[cold]
    fn begin_timestamps(&self, slot: u32, state: &State, passing: &Passing) -> Restamp {
        if let Some(kept) = self.table.timestamps(slot) {
            kept.with(|t| *t = Timestamps::default());
        }
        self.restamp(slot, state, &self.stamped(state, passing))
    }

    /// Counts a state that is to be made at its source nodes: at all, or at none.
    fn enter_nodes(&self, held: &mut Held<'_, PfRules>, state: &State, making: &Making) -> Result<(), Why> {
        if !state.has(flag::TRACKED | flag::TRACKED_GLOBALLY | flag::STICKY) {
            return Ok(());
        }
        let limits = self.slab.slot(making.rule.slot).map(Slot::source_limits).unwrap_or_default();
        let none = Limits::default();
        for (done, key) in state.nodes().enumerate() {
            let limits = if key.sticky { &none } else { &limits };
            let address = making.sticky.unwrap_or(0);
            if !self.nodes.enter(held, &self.slab, &key, limits, address, state.created) {
                state.nodes().take(done).for_each(|key| self.leave_node(held, &key, false));
                return Err(Why::PfSrcLimit);
            }
        }
        Ok(())
    }

    /// Gives back what a state has of what others have, too: limiters and a mapping.
    fn leave_others(&self, held: &mut Held<'_, PfRules>, state: &State) {
        if let Some(mapping) = state.mapping() {
            self.mappings.leave(held, &mapping);
        }
        if state.share != Share::NONE {
            self.limiters.leave(held, state.share, (state.source_family(), state.source()));
        }
    }

    fn leave_node(&self, held: &mut Held<'_, PfRules>, key: &NodeKey, connected: bool) {
        let keeps = self.timeouts.get(Timeout::SrcTrack) != 0;
        self.nodes.leave(held, &self.slab, key, connected && !key.sticky, keeps);
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

    /// Gives back a slot and what its state held.
    pub(super) fn give_back(
        &self,
        held: &mut Held<'_, PfRules>,
        cache: &mut SlotCache,
        slot: u32,
        state: &State,
    ) {
        state.nodes().for_each(|key| self.leave_node(held, &key, state.has(flag::CONNECTED)));
        self.leave_others(held, state);
        state.ends().for_each(|end| self.endpoints.leave(end));
        if state.has(flag::HALF_OPEN) {
            self.cookies.closed();
        }
        self.slab.state_gone(RuleSlot(state.rule));
        self.slab.state_gone(RuleSlot(state.nat));
        self.slab.state_gone(RuleSlot(state.anchor));
        self.count.0.fetch_sub(1, Relaxed);
        if cache.slots.is_full() {
            self.table.give_free(cache.slots.drain(..CACHED / 2));
        }
        cache.slots.push(slot);
    }

    pub(super) fn first(&self, key: Key, passing: &Passing, making: &Making) -> State {
        let Passing { direction, p, data, now, .. } = *passing;
        let Making { rule, anchor, tag, becomes, nat, .. } = *making;
        let (wire, stack) = match direction {
            Direction::In => (key, becomes),
            Direction::Out => (becomes, key),
        };
        let keep = rule.keep;
        let set = |on: bool, flag: u16| if on { flag } else { 0 };
        let adaptive = self.slab.slot(rule.slot).is_some_and(|s| s.adaptive().is_some());
        let mut state = State {
            wire,
            stack,
            phase: Phase::Pending,
            direction,
            rule: rule.slot.0,
            tag,
            queue: making.queue,
            low_delay_queue: making.low_delay_queue,
            flags: set(keep.is_some_and(|k| k.sloppy), flag::SLOPPY)
                | set(making.binds.is_some() && keep.is_some_and(|k| k.bound), flag::BOUND)
                | set(making.allow_opts, flag::ALLOW_OPTS)
                | set(adaptive, flag::ADAPTIVE)
                | set(wire != stack, flag::TWO_KEYS)
                | set(wire.family != stack.family, flag::TWO_FAMILIES)
                | set(keep.is_some_and(|k| k.track == Some(SourceTrack::Rule)), flag::TRACKED)
                | set(keep.is_some_and(|k| k.track == Some(SourceTrack::Global)), flag::TRACKED_GLOBALLY)
                | set(making.sticky.is_some(), flag::STICKY)
                | set(anchor != RuleSlot::NONE, flag::ANCHORED)
                | set(making.treatment != 0, flag::TREATED)
                | set(rule.limited().is_some_and(|limited| limited.metered), flag::METERED)
                | set(making.stamped && IpProto(p.proto) == IpProto::TCP, flag::STAMPED),
            last: now,
            created: now,
            ifindex: making.binds.unwrap_or(passing.index).0,
            treatment: making.treatment as u16,
            creator: self.creator.load(Relaxed) as u16,
            share: making.share,
            nat: nat.0,
            anchor: anchor.0,
            ..State::FREE
        };
        if IpProto(p.proto) == IpProto::TCP {
            let l4 = data.get(usize::from(p.l4)..).unwrap_or(&[]);
            tcp::open(&mut state, p, l4);
            // Segments of either end must fit where the other's family has the longer header.
            let fits = |size: u16| size.min(largest(becomes.family()));
            if let Some(Cookie { isn, size }) = making.cookie {
                state.open_proxy(isn, fits(size));
            } else if keep.is_some_and(|k| k.kind == StateKind::Synproxy) && p.is_syn() {
                state.open_proxy(self.isn(&key, p.tcp.seq), fits(segment_size(p, l4)));
            }
            if self.cookies.counts() {
                state.flags |= flag::HALF_OPEN;
            }
            if keep.is_some_and(|k| k.kind == StateKind::Modulate) && p.is_syn() {
                state.flags |= flag::MODULATED;
                state.diff[0] = self.draw_diff(&key, p.tcp.seq);
            }
        } else if IpProto(p.proto) == IpProto::SCTP {
            sctp::open(&mut state, p, data, keep.is_some_and(|k| k.allow_related));
        } else {
            other::open(&mut state, p);
            if making.mapped {
                state.src.wscale = other::MAPPED;
            }
        }
        state.count(direction, p.segments, p.bytes);
        state
    }

    /// Puts a state into its slot and into the table: the packet's own key first.
    pub(super) fn go_live(&self, held: &mut Held<'_, PfRules>, slot: u32, state: &State, hash: Hash) -> Made {
        let (two, bound) = (state.has(flag::TWO_KEYS), state.binding());
        // Which of the keys is the packet's own: one key alone is the wire key.
        let own_is_stack = two && state.direction == Direction::Out;
        let (own, other) = if own_is_stack { (state.stack, state.wire) } else { (state.wire, state.stack) };
        let own_node = Node::new(slot, own_is_stack.into());
        self.fill_slot(held, slot, state);
        if !self.put(held, &own, hash, own_node, bound) {
            return Made::Raced;
        }
        let other_node = Node::new(slot, (!own_is_stack).into());
        if two && !self.put(held, &other, self.seed.hash(&other), other_node, bound) {
            self.take_out(held, hash, own_node);
            return Made::Taken;
        }
        self.enliven(held, own_node)
    }

    /// Writes a state that is pending into its slot.
    pub(super) fn fill_slot(&self, held: &mut Held<'_, PfRules>, slot: u32, state: &State) {
        let Some(place) = self.table.slot(slot) else { return };
        let (mut own, _held) = held.lock(&place.state);
        let generation = own.generation.wrapping_add(1);
        *own = State { generation, ..state.clone() };
    }

    /// All keys are in: the state decides from now on.
    pub(super) fn enliven(&self, held: &mut Held<'_, PfRules>, own_node: Node) -> Made {
        let slot = own_node.slot();
        let Some(place) = self.table.slot(slot) else { return Made::Raced };
        let (mut state, _held) = held.lock(&place.state);
        let due = if state.has(flag::ADAPTIVE) {
            state.last.saturating_add(self.timeouts.get(Timeout::Interval))
        } else {
            state.last.saturating_add(self.seconds(RuleSlot(state.rule), state.class))
        };
        state.phase = Phase::Live;
        if let Some(time) = self.table.due(slot) {
            time.store(due, Relaxed);
        }
        let mut hit = Hit::NONE;
        state.fill(own_node, &mut hit);
        if state.flags & flag::REWRITTEN != 0 {
            state.fill_rewriting(state.direction, &mut hit);
        }
        Made::Live(hit)
    }

    /// Puts one key into its row, unless a state that is not dead has it.
    pub(super) fn put(
        &self,
        held: &mut Held<'_, PfRules>,
        key: &Key,
        hash: Hash,
        node: Node,
        bound: u16,
    ) -> bool {
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

    pub(super) fn take_out(&self, held: &mut Held<'_, PfRules>, hash: Hash, node: Node) {
        let row = self.table.row(hash);
        let (mut overflow, _held) = held.lock(&row.lock);
        self.table.remove(row, &mut overflow, hash.tag, node);
    }

    /// Takes a dead state out of the table and frees its slot. Only who has ended it calls this.
    #[cold]
    pub(super) fn unlink(&self, held: &mut Held<'_, PfRules>, cache: &mut SlotCache, slot: u32) {
        let Some(place) = self.table.slot(slot) else { return };
        let gone = {
            let (state, _held) = held.lock(&place.state);
            state.clone()
        };
        self.take_out(held, self.seed.hash(&gone.wire), Node::new(slot, 0));
        if gone.has(flag::TWO_KEYS) {
            self.take_out(held, self.seed.hash(&gone.stack), Node::new(slot, 1));
        }
        self.free_slot(held, cache, slot, &gone);
    }

    /// No row has the state any more: its slot is free.
    pub(super) fn free_slot(
        &self,
        held: &mut Held<'_, PfRules>,
        cache: &mut SlotCache,
        slot: u32,
        gone: &State,
    ) {
        let Some(place) = self.table.slot(slot) else { return };
        if let Some(due) = self.table.due(slot) {
            due.store(NEVER, Relaxed);
        }
        {
            let (mut state, _held) = held.lock(&place.state);
            state.phase = Phase::Free;
        }
        self.give_back(held, cache, slot, gone);
    }
}
