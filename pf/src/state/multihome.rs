//! States of the further paths of an SCTP association (see [`super::endpoints`]).
//!
//! Each is a state like others, with the tags of the first. All are *kin*: they hold the same ends. What ends the association
//! on one path ends it on all.

use std::{net::IpAddr, sync::atomic::Ordering::Relaxed};

use kern::lock::{Held, levels::PfRules};

use super::{
    Hit, LookFor, Lookup, SlotCache, States,
    endpoints::{EndpointId, Source, paths},
    entry::{PeerState, Phase, State, flag},
    insert::Made,
    key::{Hash, Key},
    sctp::{ALLOWS_RELATED, level},
    table::Node,
};
use crate::{
    IfIndex, addr::Family, limiter::Share, packet::Packet, rule::Direction, slab::RuleSlot, timeout::Timeout,
};

/// A packet's association: the state that the packet belongs to, seen from the packet's sender.
#[derive(Clone, Debug)]
pub(crate) struct Association {
    pub(crate) state: State,
    slot: u32,
    direction: Direction,
    pub(crate) sender: EndpointId,
    pub(crate) receiver: EndpointId,
    /// The sender names addresses, and there is no room to keep them.
    pub(crate) is_full: bool,
}

/// What becomes of the state of another path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kin {
    /// It gets the tags, which may not have been known when it was made.
    Learns,
    /// Its sender leaves it.
    Leaves,
    /// The association is over.
    Closes,
}

impl Association {
    /// Whether paths need not be passed by a rule (`allow-related`).
    pub(crate) fn allows(&self) -> bool {
        self.state.src.wscale & ALLOWS_RELATED != 0
    }

    /// Whether addresses are translated: those of the ends that are kept may be others here.
    pub(crate) fn translates(&self) -> bool {
        self.state.has(flag::TWO_KEYS)
    }

    /// Which way its packet went.
    pub(crate) fn direction(&self) -> Direction {
        self.direction
    }

    fn from(&self) -> usize {
        usize::from(self.direction != self.state.direction)
    }

    /// Records of sender and receiver.
    fn peers(&self) -> (PeerState, PeerState) {
        if self.from() == 0 { (self.state.src, self.state.dst) } else { (self.state.dst, self.state.src) }
    }

    /// Tags of the ends that are held, the sender's first.
    fn holds(&self) -> [u32; 2] {
        let from = self.from();
        [self.state.diff[from], self.state.diff[from ^ 1]]
    }

    /// Whether a state holds an end of this association.
    fn is_kin(&self, other: &State) -> bool {
        other.diff.iter().any(|tag| *tag != 0 && self.holds().contains(tag))
    }

    /// The keys of a path of this association whose packets have this key here: wire and stack.
    fn keys(&self, key: Key) -> Option<(Key, Key)> {
        let State { wire, stack, .. } = &self.state;
        if !self.translates() {
            return Some((key, key));
        }
        let (own, other) = if self.direction == Direction::In { (wire, stack) } else { (stack, wire) };
        // The sender's address is another: it must be one that is not translated.
        let sender = usize::from(self.direction == Direction::Out);
        let plain = own.addr[sender] == other.addr[sender] && own.addr[sender ^ 1] == key.addr[sender ^ 1];
        let mut moved = *other;
        moved.addr[sender] = key.addr[sender];
        plain.then_some(if self.direction == Direction::In { (key, moved) } else { (moved, key) })
    }
}

impl State {
    /// At whose share of ends it counts.
    fn opener(&self) -> Source {
        Source::of(self.source_family(), self.source())
    }

    /// The ends that it holds.
    pub(super) fn ends(&self) -> impl Iterator<Item = EndpointId> {
        let is_sctp = self.wire.proto == wire::IpProto::SCTP.0;
        let first = usize::from(self.direction == Direction::Out);
        let ends = (0..2).map(move |end| (self.diff[end], self.wire.port[first ^ end]));
        ends.filter(move |(tag, _)| is_sctp && *tag != 0)
    }
}

impl States {
    /// The association of a packet of this hit. If it `names` addresses, its sender is kept with the address it came from.
    #[cold]
    pub(crate) fn association(
        &self,
        held: &mut Held<'_, PfRules>,
        hit: &Hit,
        direction: Direction,
        p: &Packet,
        names: bool,
    ) -> Option<Association> {
        let place = self.table.slot(hit.slot)?;
        let (mut state, _held) = held.lock(&place.state);
        let is_it = state.phase == Phase::Live && state.generation == hit.generation;
        if !is_it || state.has(flag::TWO_FAMILIES) {
            return None;
        }
        let from = usize::from(direction != state.direction);
        let kept = [state.diff[from], state.diff[from ^ 1]];
        let (src, dst) = state.peers(direction);
        let drawn = [dst.seqlo, src.seqlo];
        let known_by = |end: usize| if kept[end] == 0 { drawn[end] } else { kept[end] };
        let (sender, receiver) = ((known_by(0), p.sport), (known_by(1), p.dport));
        let is_new = names && kept[0] == 0 && sender.0 != 0;
        let is_full = is_new && !self.endpoints.enter(sender, state.opener());
        if is_new && !is_full {
            state.diff[from] = sender.0;
        }
        if names && !state.has(flag::TWO_KEYS) {
            self.endpoints.add(sender, p.family.address(p.src));
        }
        Some(Association { state: state.clone(), slot: hit.slot, direction, sender, receiver, is_full })
    }

    /// The association of the state in `slot` is over and begins anew on its path: the states of its other paths end, too,
    /// since they know the old tags. Says how many.
    #[cold]
    pub(super) fn end_kin(
        &self,
        held: &mut Held<'_, PfRules>,
        cache: &mut SlotCache,
        slot: u32,
        direction: Direction,
        index: IfIndex,
    ) -> u32 {
        let Some(old) = self.table.slot(slot).map(|place| held.lock(&place.state).0.clone()) else {
            return 0;
        };
        if old.ends().next().is_none() || old.has(flag::TWO_KEYS) {
            return 0;
        }
        let (family, first) = (old.wire.family(), usize::from(old.direction == Direction::Out));
        let [src, dst] = [0, 1].map(|end| {
            let side = first ^ end;
            self.endpoints.of((old.diff[end], old.wire.port[side]), family.address(old.wire.bits(side)))
        });
        let mut ended = 0;
        for (src, dst) in paths(&src, &dst).skip(1) {
            if Family::of(src) != family || Family::of(dst) != family {
                continue;
            }
            let mut key = old.wire;
            key.addr[first] = crate::addr::bits(src).to_ne_bytes();
            key.addr[first ^ 1] = crate::addr::bits(dst).to_ne_bytes();
            let lookup = Lookup { key, hash: Hash::NONE, kind: LookFor::Packet, seq: 0, guess: Node::NONE };
            let found = self.find(held, &lookup, direction, index, |node, state| {
                let is_kin = state.diff.iter().any(|tag| *tag != 0 && old.diff.contains(tag));
                if is_kin {
                    state.phase = Phase::Dead;
                }
                is_kin.then_some(node.slot())
            });
            if let Some(slot) = found.flatten() {
                self.unlink(held, cache, slot);
                ended += 1;
            }
        }
        ended
    }

    /// Does something to the state of another path of the association; whether there is one.
    #[cold]
    pub(crate) fn kin(
        &self,
        held: &mut Held<'_, PfRules>,
        of: &Association,
        key: Key,
        index: IfIndex,
        now: u32,
        what: Kin,
    ) -> bool {
        let lookup = Lookup { key, hash: Hash::NONE, kind: LookFor::Packet, seq: 0, guess: Node::NONE };
        let found = self.find(held, &lookup, of.direction, index, |node, state| {
            if !of.is_kin(state) {
                return None;
            }
            let (sender, receiver) = of.peers();
            let (src, dst) = state.peers(of.direction);
            match what {
                Kin::Learns if src.level.max(dst.level) < level::ESTABLISHED => {
                    (src.seqlo, src.seqhi) = (sender.seqlo, sender.seqhi);
                    (dst.seqlo, dst.seqhi) = (receiver.seqlo, receiver.seqhi);
                }
                Kin::Learns => {}
                Kin::Leaves => {
                    src.level = src.level.max(level::SHUTDOWN_SENT);
                    state.class = Timeout::SctpClosing as u8;
                }
                Kin::Closes => {
                    (src.level, dst.level) = (level::CLOSED, level::CLOSED);
                    (state.class, state.last) = (Timeout::SctpClosed as u8, now);
                }
            }
            let expiry = state.last.saturating_add(self.seconds(RuleSlot(state.rule), state.class));
            if let Some(due) = self.table.due(node.slot()) {
                due.fetch_min(expiry, Relaxed);
            }
            Some(())
        });
        found.flatten().is_some()
    }

    /// A state that a rule has just made for another path joins the association.
    #[cold]
    pub(crate) fn adopt(&self, held: &mut Held<'_, PfRules>, of: &Association, hit: &Hit) {
        let Some(place) = self.table.slot(hit.slot) else { return };
        let (mut state, _held) = held.lock(&place.state);
        if state.phase == Phase::Live && state.generation == hit.generation {
            self.join(of, &mut state);
        }
    }

    /// Makes the state of another path, as the association's own is. None if that cannot be.
    #[cold]
    pub(crate) fn insert_related(
        &self,
        held: &mut Held<'_, PfRules>,
        cache: &mut SlotCache,
        of: &Association,
        key: Key,
        now: u32,
    ) -> Option<Hit> {
        let (wire, stack) = of.keys(key)?;
        let slot = {
            // As long as that state is there, so are its rules.
            let place = self.table.slot(of.slot)?;
            let (parent, _held) = held.lock(&place.state);
            if parent.phase != Phase::Live || parent.generation != of.state.generation {
                return None;
            }
            let slot = self.reserve(cache, RuleSlot(parent.rule)).ok()?;
            self.slab.state_made(RuleSlot(parent.nat));
            self.slab.state_made(RuleSlot(parent.anchor));
            slot
        };
        let counted =
            flag::TRACKED | flag::TRACKED_GLOBALLY | flag::STICKY | flag::CONNECTED | flag::HALF_OPEN;
        let mut state = State {
            wire,
            stack,
            phase: Phase::Pending,
            direction: of.direction,
            // Which interface the path leads through is not known yet.
            flags: of.state.flags & !(counted | flag::BOUND),
            share: Share::NONE,
            diff: [0; 2],
            packets: State::FREE.packets,
            bytes: State::FREE.bytes,
            last: now,
            created: now,
            class: Timeout::SctpFirst as u8,
            ..of.state.clone()
        };
        self.join(of, &mut state);
        let made = self.go_live(held, slot, &state, self.seed.hash(&key));
        if let Made::Live(hit) = made {
            return Some(hit);
        }
        self.give_back(held, cache, slot, &state);
        None
    }

    /// Gives a state of another path, which the sender of the association's packet opens, tags and ends.
    fn join(&self, of: &Association, state: &mut State) {
        let (sender, receiver) = of.peers();
        let allows = of.state.src.wscale & ALLOWS_RELATED;
        state.src = PeerState { level: level::COOKIE_WAIT, wscale: allows, ..sender };
        state.dst = PeerState { level: level::CLOSED, wscale: 0, ..receiver };
        let (ports, before) = ([of.sender.1, of.receiver.1], state.diff);
        for (end, (tag, port)) in of.holds().into_iter().zip(ports).enumerate() {
            // Another worker's packet may have given it one since it is there.
            if std::mem::take(&mut state.diff[end]) != 0 {
                self.endpoints.leave((before[end], port));
            }
            if tag != 0 && self.endpoints.enter((tag, port), of.state.opener()) {
                state.diff[end] = tag;
            }
        }
    }
}

/// The packet as it would come from one address to another; none if they are not of its family.
pub(crate) fn on_path(p: &Packet, from: IpAddr, to: IpAddr) -> Option<Packet> {
    let ours = Family::of(from) == p.family && Family::of(to) == p.family;
    ours.then(|| Packet { src: crate::addr::bits(from), dst: crate::addr::bits(to), ..*p })
}
